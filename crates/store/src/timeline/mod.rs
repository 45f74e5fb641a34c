//! The timeline of boots: what was seen of a machine from power-on to its operating system, kept per boot.
//!
//! Append-only and outside the change feed: it is written much and read seldom. On SQLite it is a file
//! of its own, `timeline.db`, beside the region's; on PostgreSQL it has its own tables. Which entries
//! belong to which boot and what is folded or dropped is decided in [`record`], without a database.

pub mod record;

use std::path::Path;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use metal::timeline::{Entry, MAX_BOOTS};
use metal::{MacAddr, SystemId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::db::{Db, Options, Target};
use crate::error::StoreError;
use crate::migrate::Schema;
use crate::tx::Tx;
use record::{FOLD_WINDOW, Record, Stage, Taken};

/// Boots kept of hardware addresses that belong to no machine, in all.
pub const MAX_STRANGERS: i64 = 1_000;
/// Name of the file on SQLite.
pub const FILE_NAME: &str = "timeline.db";

pub(crate) static SCHEMA: Schema = Schema {
    make: "CREATE TABLE IF NOT EXISTS timeline_version (version BIGINT NOT NULL PRIMARY KEY)",
    newest: "SELECT COALESCE(MAX(version), 0) FROM timeline_version",
    note: "INSERT INTO timeline_version (version) VALUES ($1)",
    migrations: &[(1, include_str!("../../migrations/timeline/0001_first.sql"))],
};

/// The timelines of all machines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Timeline {
    db: Db,
}

/// Whose boot. At least one must be known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Who {
    /// The machine.
    pub system_id: Option<SystemId>,
    /// A hardware address of it.
    pub mac: Option<MacAddr>,
}

impl From<SystemId> for Who {
    fn from(system_id: SystemId) -> Self {
        Self {
            system_id: Some(system_id),
            mac: None,
        }
    }
}

impl From<&SystemId> for Who {
    fn from(system_id: &SystemId) -> Self {
        system_id.clone().into()
    }
}

impl From<MacAddr> for Who {
    fn from(mac: MacAddr) -> Self {
        Self {
            system_id: None,
            mac: Some(mac),
        }
    }
}

/// Names a batch, so that one sent again is not stored again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who sends, for example a rack's system id.
    pub source: String,
    /// Its number; numbers rise.
    pub number: i64,
}

/// What became of the entries handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// New entries of a boot.
    pub kept: u64,
    /// Repeats, counted in an entry that was there.
    pub folded: u64,
    /// No room in the boot's record: counted there.
    pub dropped: u64,
    /// Named neither a machine nor a hardware address.
    pub nobody: u64,
    /// The batch had been stored before: nothing was done.
    pub repeated: bool,
}

/// A boot without its entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootSummary {
    /// Its id.
    pub id: i64,
    /// Which boot of the machine, from 1. Those missing at the start were dropped: [`MAX_BOOTS`] are kept.
    pub number: i64,
    /// The machine; none before it is enlisted.
    pub system_id: Option<SystemId>,
    /// The hardware address it boots from, where known.
    pub mac: Option<MacAddr>,
    /// When its first entry was seen.
    pub started: Timestamp,
    /// When its last entry was seen.
    pub last: Timestamp,
    /// When the next boot began; none for the current one.
    pub ended: Option<Timestamp>,
    /// How far it has come.
    pub stage: Stage,
    /// Entries kept.
    pub entries: i64,
    /// Bytes kept.
    pub bytes: i64,
    /// Things seen but not kept.
    pub dropped: i64,
}

/// A boot with its entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// The boot.
    #[serde(flatten)]
    pub summary: BootSummary,
    /// What was seen, in order.
    pub entries: Vec<Entry>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    number: i64,
    system_id: Option<String>,
    mac: Option<String>,
    started: i64,
    last: i64,
    ended: Option<i64>,
    stage: i64,
    entries: i64,
    bytes: i64,
    dropped: i64,
}

impl Row {
    fn summary(self) -> Result<BootSummary, StoreError> {
        Ok(BootSummary {
            id: self.id,
            number: self.number,
            system_id: self.system_id.map(SystemId),
            mac: self.mac.map(|m| m.parse()).transpose().map_err(|_| {
                StoreError::Corrupt(format!("the hardware address of boot {}", self.id))
            })?,
            started: Timestamp(self.started),
            last: Timestamp(self.last),
            ended: self.ended.map(Timestamp),
            stage: Stage::from_number(self.stage)
                .ok_or_else(|| StoreError::Corrupt(format!("the stage of boot {}", self.id)))?,
            entries: self.entries,
            bytes: self.bytes,
            dropped: self.dropped,
        })
    }
}

fn entry(boot: i64, body: &str) -> Result<Entry, StoreError> {
    serde_json::from_str(body).map_err(|_| StoreError::Corrupt(format!("an entry of boot {boot}")))
}

impl Timeline {
    /// Opens the timelines that belong to a region's database, making them when there are none.
    ///
    /// # Errors
    /// As for [`Db::open`].
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        let target = match &options.target {
            Target::Sqlite(path) => Target::Sqlite(beside(path)),
            postgres @ Target::Postgres(_) => postgres.clone(),
        };
        let options = Options {
            target,
            connections: options.connections.min(4),
        };
        Ok(Self {
            db: Db::open_with(&options, &SCHEMA).await?,
        })
    }

    /// Adds entries, in order, to the current boot of a machine, or begins a new one where an entry says so.
    /// Durable when it returns.
    ///
    /// # Errors
    /// When the database does not take them.
    pub async fn append(&self, who: Who, entries: Vec<Entry>) -> Result<Appended, StoreError> {
        self.append_all(None, vec![(who, entries)]).await
    }

    /// Adds the entries of several machines in one transaction. A batch that was stored before is not stored again.
    ///
    /// # Errors
    /// When the database does not take them.
    pub async fn append_all(
        &self,
        batch: Option<Batch>,
        items: Vec<(Who, Vec<Entry>)>,
    ) -> Result<Appended, StoreError> {
        let work = std::sync::Arc::new((batch, items));
        self.db
            .write(move |tx: &mut Tx| {
                let work = std::sync::Arc::clone(&work);
                async move { append_all(tx, work.0.as_ref(), &work.1).await }.boxed()
            })
            .await
    }

    /// The boots of a machine, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn boots(&self, who: impl Into<Who> + Send) -> Result<Vec<BootSummary>, StoreError> {
        let (system_id, mac) = words(&who.into());
        let mut tx = self.db.read().await?;
        crate::all!(
            tx,
            Row,
            "SELECT id, number, system_id, mac, started, last, ended, stage, entries, bytes, dropped FROM boot \
             WHERE system_id = $1 OR mac = $2 ORDER BY id DESC",
            system_id,
            mac
        )?
        .into_iter()
        .map(Row::summary)
        .collect()
    }

    /// One boot with its entries.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn boot(&self, id: i64) -> Result<Option<Boot>, StoreError> {
        let mut tx = self.db.read().await?;
        let row = crate::opt!(
            tx,
            Row,
            "SELECT id, number, system_id, mac, started, last, ended, stage, entries, bytes, dropped FROM boot WHERE id = $1",
            id
        )?;
        let Some(row) = row else { return Ok(None) };
        let entries = crate::all!(
            tx,
            (String,),
            "SELECT body FROM boot_entry WHERE boot_id = $1 ORDER BY n",
            id
        )?;
        let entries = entries
            .iter()
            .map(|(b,)| entry(id, b))
            .collect::<Result<_, _>>()?;
        Ok(Some(Boot {
            summary: row.summary()?,
            entries,
        }))
    }

    /// The current boot of a machine with its entries.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn latest(&self, who: impl Into<Who> + Send) -> Result<Option<Boot>, StoreError> {
        match self.boots(who).await?.first() {
            Some(newest) => self.boot(newest.id).await,
            None => Ok(None),
        }
    }

    /// The boots of a hardware address become those of a machine, which has just been enlisted. Returns how many.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn adopt(&self, mac: MacAddr, system_id: &SystemId) -> Result<u64, StoreError> {
        let (mac, system_id) = (mac.to_string(), system_id.0.clone());
        self.db
            .write(move |tx: &mut Tx| {
                let (mac, system_id) = (mac.clone(), system_id.clone());
                async move { adopt(tx, &mac, &system_id).await }.boxed()
            })
            .await
    }

    /// Removes the boots of a machine, which has gone. Returns how many.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn forget(&self, system_id: &SystemId) -> Result<u64, StoreError> {
        let system_id = system_id.0.clone();
        self.db
            .write(move |tx: &mut Tx| -> BoxFuture<'_, Result<u64, StoreError>> {
                let system_id = system_id.clone();
                async move { crate::exec!(tx, "DELETE FROM boot WHERE system_id = $1", system_id) }.boxed()
            })
            .await
    }

    /// The database under it, for copies.
    pub(crate) const fn db(&self) -> &Db {
        &self.db
    }

    /// Closes the database: what was accepted is finished first.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

fn beside(path: &Path) -> std::path::PathBuf {
    path.with_file_name(FILE_NAME)
}

fn words(who: &Who) -> (Option<String>, Option<String>) {
    (
        who.system_id.as_ref().map(|s| s.0.clone()),
        who.mac.map(|m| m.to_string()),
    )
}

async fn adopt(tx: &mut Tx, mac: &str, system_id: &str) -> Result<u64, StoreError> {
    crate::exec!(
        tx,
        "UPDATE boot SET system_id = $2 WHERE mac = $1 AND system_id IS NULL",
        mac,
        system_id
    )
}

async fn append_all(
    tx: &mut Tx,
    batch: Option<&Batch>,
    items: &[(Who, Vec<Entry>)],
) -> Result<Appended, StoreError> {
    let mut done = Appended::default();
    if let Some(b) = batch {
        let fresh = crate::exec!(
            tx,
            "INSERT INTO timeline_source (name, last) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET last = excluded.last WHERE timeline_source.last < excluded.last",
            b.source.as_str(),
            b.number
        )?;
        if fresh == 0 {
            return Ok(Appended {
                repeated: true,
                ..done
            });
        }
    }
    for (who, entries) in items {
        if who.system_id.is_none() && who.mac.is_none() {
            done.nobody += u64::try_from(entries.len()).unwrap_or(u64::MAX);
        } else if !entries.is_empty() {
            append(tx, who, entries, &mut done).await?;
        }
    }
    Ok(done)
}

/// The current boot of a machine while entries are added to it.
struct Current {
    id: i64,
    number: i64,
    mac: Option<String>,
    record: Record,
}

async fn append(
    tx: &mut Tx,
    who: &Who,
    entries: &[Entry],
    done: &mut Appended,
) -> Result<(), StoreError> {
    let (system_id, mac) = words(who);
    let system_id = match (system_id, &mac) {
        (Some(s), Some(m)) => {
            adopt(tx, m, &s).await?;
            Some(s)
        }
        (Some(s), None) => Some(s),
        // A hardware address that is known to belong to a machine stands for it.
        (None, mac) => crate::opt!(
            tx,
            (Option<String>,),
            "SELECT system_id FROM boot WHERE mac = $1 AND system_id IS NOT NULL ORDER BY id DESC LIMIT 1",
            mac.as_deref()
        )?
        .and_then(|r| r.0),
    };
    let mut current = load(tx, system_id.as_deref(), mac.as_deref()).await?;
    for e in entries {
        let open = match current.take() {
            Some(c) if !c.record.ends_before(e) => c,
            before => {
                let number = before.as_ref().map_or(0, |b| b.number) + 1;
                if let Some(b) = before {
                    save(tx, b, Some(e.first)).await?;
                }
                begin(tx, number, system_id.as_deref(), mac.as_deref(), e.first).await?
            }
        };
        let open = current.insert(open);
        match open.record.take(e.clone()) {
            Taken::Kept => done.kept += 1,
            Taken::Folded => done.folded += 1,
            Taken::Dropped => done.dropped += 1,
        }
    }
    match current {
        Some(c) => save(tx, c, None).await,
        None => Ok(()),
    }
}

async fn load(
    tx: &mut Tx,
    system_id: Option<&str>,
    mac: Option<&str>,
) -> Result<Option<Current>, StoreError> {
    let row = crate::opt!(
        tx,
        Row,
        "SELECT id, number, system_id, mac, started, last, ended, stage, entries, bytes, dropped FROM boot \
         WHERE system_id = $1 OR (mac = $2 AND system_id IS NULL) ORDER BY id DESC LIMIT 1",
        system_id,
        mac
    )?;
    let Some(row) = row else { return Ok(None) };
    let tail = crate::all!(
        tx,
        (i64, String),
        "SELECT n, body FROM boot_entry WHERE boot_id = $1 ORDER BY n DESC LIMIT $2",
        row.id,
        i64::try_from(FOLD_WINDOW).unwrap_or(i64::MAX)
    )?;
    let tail = tail
        .iter()
        .rev()
        .map(|(n, body)| Ok((*n, entry(row.id, body)?, body.len())))
        .collect::<Result<Vec<_>, StoreError>>()?;
    let mac = row.mac.clone().or_else(|| mac.map(str::to_owned));
    let boot = row.summary()?;
    let whole = |n: i64| {
        usize::try_from(n).map_err(|_| StoreError::Corrupt(format!("a count of boot {}", boot.id)))
    };
    let mut record = Record::new(boot.started).with_tail(tail);
    (record.last, record.stage) = (boot.last, boot.stage);
    (record.entries, record.bytes) = (whole(boot.entries)?, whole(boot.bytes)?);
    record.dropped = u64::try_from(boot.dropped).unwrap_or(0);
    Ok(Some(Current {
        id: boot.id,
        number: boot.number,
        mac,
        record,
    }))
}

/// Begins a boot and lets the oldest go when there are too many.
async fn begin(
    tx: &mut Tx,
    number: i64,
    system_id: Option<&str>,
    mac: Option<&str>,
    started: Timestamp,
) -> Result<Current, StoreError> {
    let (id,) = crate::one!(
        tx,
        (i64,),
        "INSERT INTO boot (number, system_id, mac, started, last, stage, entries, bytes, dropped) \
         VALUES ($1, $2, $3, $4, $4, 0, 0, 0, 0) RETURNING id",
        number,
        system_id,
        mac,
        started.0
    )?;
    let kept = i64::try_from(MAX_BOOTS).unwrap_or(i64::MAX);
    crate::exec!(
        tx,
        "DELETE FROM boot WHERE id IN (SELECT id FROM boot \
           WHERE system_id = $1 OR (mac = $2 AND system_id IS NULL) ORDER BY id DESC LIMIT 100 OFFSET $3)",
        system_id,
        mac,
        kept
    )?;
    if system_id.is_none() {
        crate::exec!(
            tx,
            "DELETE FROM boot WHERE id IN (SELECT id FROM boot WHERE system_id IS NULL ORDER BY id DESC LIMIT 100 OFFSET $1)",
            MAX_STRANGERS
        )?;
    }
    Ok(Current {
        id,
        number,
        mac: mac.map(str::to_owned),
        record: Record::new(started),
    })
}

async fn save(tx: &mut Tx, mut boot: Current, ended: Option<Timestamp>) -> Result<(), StoreError> {
    for (n, body) in boot.record.flush() {
        crate::exec!(
            tx,
            "INSERT INTO boot_entry (boot_id, n, body) VALUES ($1, $2, $3) \
             ON CONFLICT (boot_id, n) DO UPDATE SET body = excluded.body",
            boot.id,
            n,
            body
        )?;
    }
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    crate::exec!(
        tx,
        "UPDATE boot SET started = $2, last = $3, ended = $4, stage = $5, entries = $6, bytes = $7, dropped = $8, mac = $9 \
         WHERE id = $1",
        boot.id,
        boot.record.started.0,
        boot.record.last.0,
        ended.map(|t| t.0),
        boot.record.stage.number(),
        whole(boot.record.entries),
        whole(boot.record.bytes),
        i64::try_from(boot.record.dropped).unwrap_or(i64::MAX),
        boot.mac
    )?;
    Ok(())
}
