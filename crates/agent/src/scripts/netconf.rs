//! Running a script with the network that the machine is to have, and putting the old one back.

use std::io;
use std::path::{Path, PathBuf};

use crate::process::{Cmd, CommandFailed, Runner, must};
use crate::sys::Sys;

/// The network could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum NetconfError {
    /// No configuration came with the scripts.
    #[error("no network configuration came with the scripts")]
    Missing,
    /// The configuration could not be moved.
    #[error("cannot replace the configuration in /etc/netplan")]
    Files(#[source] io::Error),
    /// netplan refused it.
    #[error(transparent)]
    Apply(#[from] CommandFailed),
}

/// The configured network, in place until [`Applied::revert`].
pub struct Applied {
    etc: PathBuf,
    kept: PathBuf,
}

fn apply_command() -> Cmd {
    Cmd::new(&["netplan", "apply"])
}

/// Moves what is in `/etc/netplan` aside, puts `netplan` in its place and applies it.
///
/// # Errors
/// When that failed; the old configuration is in force again then.
pub fn apply(
    sys: &Sys,
    runner: &dyn Runner,
    netplan: Option<&Path>,
    work: &Path,
) -> Result<Applied, NetconfError> {
    let netplan = netplan.ok_or(NetconfError::Missing)?;
    let applied = Applied {
        etc: sys.path("etc/netplan"),
        kept: work.join("netplan.kept"),
    };
    let replace = || -> io::Result<()> {
        std::fs::create_dir_all(&applied.kept)?;
        std::fs::create_dir_all(&applied.etc)?;
        move_all(&applied.etc, &applied.kept)?;
        std::fs::copy(netplan, applied.etc.join("netplan.yaml"))?;
        Ok(())
    };
    let result = replace()
        .map_err(NetconfError::Files)
        .and_then(|()| Ok(must(runner, &apply_command())?));
    match result {
        Ok(_) => Ok(applied),
        Err(e) => {
            // The first failure is the one to report.
            applied.revert(runner).ok();
            Err(e)
        }
    }
}

fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        // Not rename: the two may be on different file systems.
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        std::fs::remove_file(entry.path())?;
    }
    Ok(())
}

impl Applied {
    /// Puts the old network back.
    ///
    /// # Errors
    /// When that failed.
    pub fn revert(self, runner: &dyn Runner) -> Result<(), NetconfError> {
        match std::fs::remove_file(self.etc.join("netplan.yaml")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(NetconfError::Files(e)),
            _ => {}
        }
        move_all(&self.kept, &self.etc).map_err(NetconfError::Files)?;
        must(runner, &apply_command())?;
        Ok(())
    }
}
