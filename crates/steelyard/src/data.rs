//! The data directory: where it is, which database belongs to it, and that one process has it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use store::Target;

use crate::running;

/// Where the data is when nobody says so and the program runs as root.
const SYSTEM: &str = "/var/lib/steelyard";
/// The same below the home directory of anybody else.
const PERSONAL: &str = ".local/share/steelyard";
/// The SQLite file in the data directory.
const DATABASE: &str = "steelyard.db";
/// The directory of the rack in the data directory.
const RACK: &str = "rack";
/// The file whose lock a running process holds.
const LOCK: &str = "lock";

/// The options that say where the data is.
#[derive(Clone, clap::Args)]
pub struct DataArgs {
    /// Directory of the data [default: /var/lib/steelyard as root, else ~/.local/share/steelyard]
    #[arg(long, value_name = "DIR", env = "STEELYARD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// PostgreSQL database, postgres://USER:PASSWORD@HOST/DATABASE [default: SQLite in the data directory]
    #[arg(
        long,
        value_name = "URL",
        env = "STEELYARD_DATABASE",
        hide_env_values = true,
        alias = "database-uri"
    )]
    pub database: Option<String>,
}

/// A data directory and its database.
#[derive(Clone, Debug)]
pub struct Data {
    /// The directory.
    pub dir: PathBuf,
    /// The database.
    pub database: Target,
}

impl DataArgs {
    /// What the options and the environment come to.
    ///
    /// # Errors
    /// When there is no home directory, or the database is of a kind that we do not know.
    pub fn resolve(&self) -> anyhow::Result<Data> {
        let dir = match &self.data_dir {
            Some(d) => d.clone(),
            None if rustix::process::geteuid().is_root() => PathBuf::from(SYSTEM),
            None => std::env::home_dir()
                .filter(|h| !h.as_os_str().is_empty())
                .context("there is no home directory; say where the data is with --data-dir")?
                .join(PERSONAL),
        };
        let database = match &self.database {
            None => Target::Sqlite(dir.join(DATABASE)),
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Target::Postgres(url.clone())
            }
            Some(_) => {
                anyhow::bail!("--database takes a postgres:// URL; without it, SQLite is used")
            }
        };
        Ok(Data { dir, database })
    }
}

impl Data {
    /// The kind of database, for people.
    #[must_use]
    pub const fn engine(&self) -> &'static str {
        match self.database {
            Target::Sqlite(_) => "SQLite",
            Target::Postgres(_) => "PostgreSQL",
        }
    }

    /// Whether there is a region's database, as far as this host can tell without asking one.
    #[must_use]
    pub fn has_database(&self) -> bool {
        match &self.database {
            Target::Sqlite(path) => path.exists(),
            Target::Postgres(_) => true,
        }
    }

    /// Where a rack keeps its files.
    #[must_use]
    pub fn rack(&self) -> PathBuf {
        self.dir.join(RACK)
    }

    /// Makes the directory where it is missing; then only its owner may look inside.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self) -> anyhow::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .with_context(|| format!("the data directory {} cannot be made", self.dir.display()))
    }

    /// Takes the directory for this process until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// When another process has it.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.dir.join(LOCK);
        let file =
            open_lock(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let who = match running::read(&self.dir) {
                    Some(r) => format!("another steelyard (process {}, {})", r.pid, r.place()),
                    None => "another steelyard".to_owned(),
                };
                anyhow::bail!(
                    "{who} is running on {}; stop it first, or give this one a --data-dir of its own",
                    self.dir.display()
                )
            }
            Err(TryLockError::Error(e)) => {
                Err(e).with_context(|| format!("{} cannot be locked", path.display()))
            }
        }
    }

    /// Whether a process runs on this directory.
    ///
    /// # Errors
    /// When the lock cannot be looked at.
    pub fn is_running(&self) -> anyhow::Result<bool> {
        let path = self.dir.join(LOCK);
        let file = match File::open(&path) {
            Ok(f) => f,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => {
                return Err(e).with_context(|| format!("{} cannot be opened", path.display()));
            }
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => {
                Err(e).with_context(|| format!("{} cannot be looked at", path.display()))
            }
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_has_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let args = DataArgs {
            data_dir: Some(dir.path().join("data")),
            database: None,
        };
        let data = args.resolve().unwrap();
        data.create().unwrap();
        assert!(!data.is_running().unwrap());
        let lock = data.lock().unwrap();
        assert!(data.is_running().unwrap());
        let refused = data.lock().unwrap_err().to_string();
        assert!(refused.contains("another steelyard"), "{refused}");
        drop(lock);
        data.lock().unwrap();
    }

    #[test]
    fn an_unknown_database_is_refused_without_showing_it() {
        let args = DataArgs {
            data_dir: Some("/nowhere".into()),
            database: Some("mysql://u:geheim@h/d".into()),
        };
        let refused = args.resolve().unwrap_err().to_string();
        assert!(
            refused.contains("postgres://") && !refused.contains("geheim"),
            "{refused}"
        );
    }
}
