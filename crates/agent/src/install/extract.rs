//! From the rack onto the disk.

use std::io::{Read, Write};
use std::time::Duration;

use super::image::{Packing, Source};
use super::{InstallError, State};
use crate::process::{Cmd, judge, must};
use crate::report::Event;

/// Where a squashfs is kept while it is unpacked: on the new system's own disk, which has the room.
const SQUASHFS_FILE: &str = "/.steelyard-image";

/// How an image is put onto the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tar archive of a root file system.
    Archive,
    /// A squashfs of a root file system.
    Squashfs,
    /// A whole disk.
    Raw,
}

impl Kind {
    /// The kind of a boot resource's file type.
    ///
    /// # Errors
    /// For types that are no root image.
    pub fn of(ftype: &str) -> Result<Self, InstallError> {
        match ftype {
            t if t == "root-dd" || t.starts_with("root-dd.") => Ok(Self::Raw),
            "squashfs" | "root-squashfs" => Ok(Self::Squashfs),
            "root-tgz" | "root-txz" | "root-tbz" | "root-tbz2" | "root-tzst" => Ok(Self::Archive),
            t if t == "root-tar" || t.starts_with("root-tar.") => Ok(Self::Archive),
            other => Err(InstallError::Plan(format!(
                "image type '{other}' cannot be installed"
            ))),
        }
    }
}

fn source<'a>(state: &'a State<'_>) -> Result<Source<'a>, InstallError> {
    let report = state.report;
    let progress = move |at: u64, size: u64| {
        let percent = at.saturating_mul(100) / size.max(1);
        let description = format!("image: {percent} %, {} of {} MiB", at >> 20, size >> 20);
        report.send(Event::Progress {
            name: "cmd-install/stage-extract/extract-image".to_owned(),
            description,
        });
    };
    let site = state.site;
    Ok(Source::open(
        site.metadata.http(),
        &state.plan.image,
        site.metadata.delivery,
        site.journal,
        progress,
    )?)
}

/// Streams the image into the command that `command` makes for its packing.
pub(super) fn stream(
    state: &State<'_>,
    command: impl FnOnce(Packing) -> Cmd,
) -> Result<(), InstallError> {
    let mut source = source(state)?;
    let mut cmd = command(source.packing());
    cmd.limit = Duration::from_secs(60 * u64::from(state.plan.timeout_minutes.max(1)));
    let output = state.site.runner.run(&cmd, Some(&mut source));
    let unpacked = judge(&cmd, output);
    // An altered image is the better explanation when unpacking failed.
    let bytes = source.verify().inspect_err(|_| {
        if let Err(e) = &unpacked {
            state.site.journal.line(e);
        }
    })?;
    unpacked?;
    state.site.journal.line(format_args!(
        "image unpacked: {bytes} bytes, SHA-256 as planned"
    ));
    Ok(())
}

/// Unpacks a root file system into the mounted tree.
pub(super) fn image(state: &mut State<'_>) -> Result<(), InstallError> {
    let root = state.tree.root().to_string_lossy().into_owned();
    match Kind::of(&state.plan.image.ftype)? {
        Kind::Squashfs => squashfs(state, &root)?,
        Kind::Archive | Kind::Raw => stream(state, |packing| {
            let mut argv = vec![
                "tar",
                "--extract",
                "--file=-",
                "--directory",
                &root,
                "--preserve-permissions",
                "--numeric-owner",
                "--acls",
                "--xattrs",
                "--xattrs-include=*",
            ];
            argv.extend(packing.tar_option());
            Cmd::new(&argv)
        })?,
    }
    if state.tree.has("/etc") {
        return Ok(());
    }
    Err(InstallError::Plan(
        "the image has no /etc: it is no root file system".to_owned(),
    ))
}

fn squashfs(state: &State<'_>, root: &str) -> Result<(), InstallError> {
    let file = state.tree.path(SQUASHFS_FILE);
    let io = |what: &str| {
        let what = what.to_owned();
        move |cause| InstallError::Io { what, cause }
    };
    let file = file.map_err(io("cannot place the image"))?;
    let mut source = source(state)?;
    let mut out = std::fs::File::create(&file).map_err(io("cannot write the image"))?;
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => out
                .write_all(&buffer[..n])
                .map_err(io("cannot write the image"))?,
            // The source keeps the reason; verify returns it.
            Err(_) => break,
        }
    }
    drop(out);
    source.verify()?;
    let mounted = format!("{root}-image");
    std::fs::create_dir_all(&mounted).map_err(io("cannot make the image's mount point"))?;
    let runner = state.site.runner;
    must(
        runner,
        &Cmd::new(&[
            "mount",
            "-t",
            "squashfs",
            "-o",
            "loop,ro",
            &file.to_string_lossy(),
            &mounted,
        ]),
    )?;
    let mut copy = Cmd::new(&[
        "cp",
        "--archive",
        &format!("{mounted}/."),
        &format!("{root}/"),
    ]);
    copy.limit = Duration::from_secs(60 * u64::from(state.plan.timeout_minutes.max(1)));
    let copied = must(runner, &copy);
    must(runner, &Cmd::new(&["umount", &mounted]))?;
    copied?;
    std::fs::remove_file(&file).map_err(io("cannot remove the image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_types_of_boot_resources() {
        assert_eq!(Kind::of("root-tgz").unwrap(), Kind::Archive);
        assert_eq!(Kind::of("root-tar.zst").unwrap(), Kind::Archive);
        assert_eq!(Kind::of("squashfs").unwrap(), Kind::Squashfs);
        assert_eq!(Kind::of("root-dd").unwrap(), Kind::Raw);
        assert_eq!(Kind::of("root-dd.tar.xz").unwrap(), Kind::Raw);
        assert!(Kind::of("boot-kernel").is_err());
    }
}
