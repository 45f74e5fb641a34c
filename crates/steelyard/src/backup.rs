//! `backup`, `restore` and `migrate`: the whole database as one file, and into another database.
//!
//! The key that opens its secrets is never in that file. A restore refuses to begin without the right one:
//! what it would make could be looked at but would not work.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use store::copy::{self, Counts, Replace};
use store::{Db, Options, Sealer, Target, Timeline};

use crate::data::{Data, DataArgs};
use crate::{out, setup};

/// The file with the keys of secrets, in the data directory.
const KEY_FILE: &str = "secret.key";
/// Name and sealing context of the secret by which a key is known to be the right one.
const KEY_CHECK: &str = "key.check";

/// `steelyard backup`.
#[derive(clap::Args)]
pub struct BackupArgs {
    /// The file to write; it must not be there yet
    file: PathBuf,
    /// Also copy the key that opens the secrets, to this file. Keep it apart from the backup
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

/// `steelyard restore`.
#[derive(clap::Args)]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The key that opens its secrets [default: secret.key in the data directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Replace what is in the database
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// `steelyard migrate`.
#[derive(clap::Args)]
pub struct MigrateArgs {
    /// The database to move to, postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(
        long,
        value_name = "URL",
        env = "STEELYARD_MIGRATE_TO",
        hide_env_values = true
    )]
    to: String,
    /// Replace what is in that database
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    data: DataArgs,
}

async fn open(target: &Target) -> anyhow::Result<(Db, Timeline)> {
    let options = Options::new(target.clone());
    let db = Db::open(&options).await?;
    let timeline = Timeline::open(&options).await?;
    Ok((db, timeline))
}

async fn close((db, timeline): (Db, Timeline)) {
    timeline.close().await;
    db.close().await;
}

/// Writes a backup; the region may run.
///
/// # Errors
/// When there is nothing to save, or a file cannot be written.
pub async fn backup(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let data = args.data.resolve()?;
    if !data.has_database() {
        anyhow::bail!("there is no database in {}", data.dir.display());
    }
    let key = data.dir.join(KEY_FILE);
    if let Some(to) = &args.key {
        anyhow::ensure!(*to != args.file, "the key is kept apart from the backup");
        copy_key(&key, to)?;
    }
    let databases = open(&data.database).await?;
    let saved = copy::save(&databases.0, &databases.1, &args.file).await;
    close(databases).await;
    let rows: u64 = saved?.values().sum();
    out::line(&format!("{}: {rows} rows.", args.file.display()))?;
    if args.key.is_none() {
        out::line(&format!(
            "The key is not in it. Without {} nobody can restore it: keep a copy of that, apart from this file.",
            key.display()
        ))?;
    }
    out::line(
        "Boot images are not in it: they are imported again, or copied with the directory images/.",
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Copies a key to a new file for its owner only.
fn copy_key(from: &Path, to: &Path) -> anyhow::Result<()> {
    let key = std::fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?;
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        std::io::Write::write_all(&mut file, &key)?;
        file.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", to.display()))
}

/// Loads a backup into a database that nothing runs on.
///
/// # Errors
/// When the key is missing or another one, the backup is not complete, or the database is in use.
pub async fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let data = args.data.resolve()?;
    data.create()?;
    let _lock = data.lock()?;
    let own = data.dir.join(KEY_FILE);
    let key = args.key.clone().unwrap_or_else(|| own.clone());
    if !key.exists() {
        anyhow::bail!(
            "the key {} is missing; a backup cannot be restored without the key of the region it is from: name it with --key",
            key.display()
        );
    }
    check_key(&args.file, &key)?;
    if key != own {
        if own.exists() {
            check_key(&args.file, &own).with_context(|| {
                format!(
                    "{} is another key than {}; move it away first",
                    own.display(),
                    key.display()
                )
            })?;
        } else {
            copy_key(&key, &own)?;
        }
    }
    let databases = open(&data.database).await?;
    let loaded = copy::load(&databases.0, &databases.1, &args.file, how(args.replace)).await;
    close(databases).await;
    let rows: u64 = loaded?.values().sum();
    out::line(&format!(
        "{rows} rows are in {} again. To run it: steelyard up --data-dir {}",
        setup::place(&data.database),
        data.dir.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

const fn how(replace: bool) -> Replace {
    if replace {
        Replace::Everything
    } else {
        Replace::Nothing
    }
}

/// Whether a key opens the secrets of a backup.
fn check_key(backup: &Path, key: &Path) -> anyhow::Result<()> {
    let sealer = Sealer::open(key)?;
    if let Some(sealed) = copy::secret(backup, KEY_CHECK)? {
        sealer.unseal(KEY_CHECK, &sealed).map_err(|_| {
            anyhow::anyhow!(
                "{} is not the key of this backup: its secrets would be lost",
                key.display()
            )
        })?;
    }
    Ok(())
}

/// Moves everything to PostgreSQL. What was there before stays as it was.
///
/// # Errors
/// When something runs on the data, or the new database does not take everything.
pub async fn migrate(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let data = args.data.resolve()?;
    anyhow::ensure!(
        data.has_database(),
        "there is no database in {}",
        data.dir.display()
    );
    let to = DataArgs {
        data_dir: Some(data.dir.clone()),
        database: Some(args.to.clone()),
    }
    .resolve()
    .map_err(|_| anyhow::anyhow!("--to takes a postgres:// URL"))?;
    let _lock = data.lock()?;
    // On the same disk, where the whole database has room, and gone afterwards.
    let path = data
        .dir
        .join(format!("migrate-{}.copy", std::process::id()));
    let moved = transfer(&data, &to, &path, how(args.replace)).await;
    std::fs::remove_file(&path).ok();
    let (before, after) = moved?;
    for (table, rows) in &before {
        out::line(&format!(
            "{table:<32} {rows:>10} {:>10}",
            after.get(table).copied().unwrap_or(0)
        ))?;
    }
    anyhow::ensure!(
        before == after,
        "the counts differ; go on with the old database"
    );
    let (rows, tables): (u64, usize) = (before.values().sum(), before.len());
    out::line(&format!(
        "{rows} rows of {tables} tables, the same on both sides. {} is unchanged. To run it from now on: \
         steelyard up --data-dir {} --database URL",
        setup::place(&data.database),
        data.dir.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn transfer(
    from: &Data,
    to: &Data,
    path: &Path,
    replace: Replace,
) -> anyhow::Result<(Counts, Counts)> {
    let databases = open(&from.database).await?;
    let saved = copy::save(&databases.0, &databases.1, path).await;
    close(databases).await;
    let saved = saved?;
    let databases = open(&to.database).await?;
    let loaded = copy::load(&databases.0, &databases.1, path, replace).await;
    close(databases).await;
    Ok((saved, loaded?))
}
