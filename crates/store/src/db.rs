//! Opening a database, reading from it and writing to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::dialect::Engine;
use crate::error::StoreError;
use crate::lite::Lite;
use crate::migrate;
use crate::pg::Pg;
use crate::tx::{Tx, TxError};

/// How often a PostgreSQL transaction is tried before the caller is told that the database is too busy.
pub const MAX_TRIES: u32 = 10;

/// How long a change that PostgreSQL could not serialise is tried again.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// So often.
    Tries(u32),
    /// For so long.
    For(Duration),
}

/// Where the database is.
#[derive(Clone)]
pub enum Target {
    /// An SQLite file; made when it does not exist.
    Sqlite(PathBuf),
    /// A PostgreSQL URL, `postgres://user:password@host:port/database`.
    Postgres(String),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(p) => write!(f, "Sqlite({})", p.display()),
            // The URL holds a password.
            Self::Postgres(_) => f.write_str("Postgres"),
        }
    }
}

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub target: Target,
    /// Connections for reading (SQLite) or in all (PostgreSQL).
    pub connections: u32,
}

impl Options {
    /// Defaults for a target: eight connections.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        Self {
            target,
            connections: 8,
        }
    }
}

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: EngineOf,
    wakes: Arc<Wakes>,
    read: Arc<AtomicU64>,
}

/// Who sleeps until something is committed.
pub(crate) struct Wakes {
    changes: watch::Sender<u64>,
    jobs: watch::Sender<u64>,
}

impl Wakes {
    pub(crate) fn wake(&self, changes: bool, jobs: bool) {
        for (yes, sender) in [(changes, &self.changes), (jobs, &self.jobs)] {
            if yes {
                sender.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    }

    /// Wakes whoever waits for what this transaction, now committed, has done.
    pub(crate) fn after(&self, tx: &Tx) {
        self.wake(tx.wrote_feed, tx.woke_jobs);
    }
}

pub(crate) enum EngineOf {
    Lite(Lite),
    Pg(Pg),
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Db").field(&self.engine()).finish()
    }
}

impl Db {
    /// Opens the database, making it when it does not exist (SQLite), and brings its schema up to date.
    ///
    /// # Errors
    /// When it cannot be opened, a migration fails, or the schema is newer than this program.
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        let db = Self::open_with(options, &migrate::MAIN).await?;
        db.write(|tx: &mut Tx| tx.begin_feed().boxed()).await?;
        Ok(db)
    }

    pub(crate) async fn open_with(
        options: &Options,
        schema: &'static migrate::Schema,
    ) -> Result<Self, StoreError> {
        let wakes = Arc::new(Wakes {
            changes: watch::channel(0).0,
            jobs: watch::channel(0).0,
        });
        let engine = match &options.target {
            Target::Sqlite(path) => {
                EngineOf::Lite(Lite::open(path, options.connections, Arc::clone(&wakes)).await?)
            }
            Target::Postgres(url) => {
                EngineOf::Pg(Pg::open(url, options.connections, Arc::clone(&wakes)).await?)
            }
        };
        let db = Self {
            inner: Arc::new(Inner {
                engine,
                wakes,
                read: Arc::default(),
            }),
        };
        if let Err(e) = migrate::run(&db, schema).await {
            db.close().await;
            return Err(e);
        }
        Ok(db)
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.inner.engine {
            EngineOf::Lite(_) => Engine::Sqlite,
            EngineOf::Pg(_) => Engine::Postgres,
        }
    }

    /// A snapshot to read from. Keep it short: no network, no waiting in between.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        let mut tx = match &self.inner.engine {
            EngineOf::Lite(l) => l.read().await,
            EngineOf::Pg(p) => p.read().await,
        }?;
        tx.counted = Some(Arc::clone(&self.inner.read));
        Ok(tx)
    }

    /// Statements that were run on snapshots of [`Db::read`] since the database was opened. Tests take the
    /// difference to see that a list costs a constant number, whatever its length.
    #[must_use]
    pub fn statements_read(&self) -> u64 {
        self.inner.read.load(Ordering::Relaxed)
    }

    /// Runs a change as one transaction and returns when it is durable. The closure may run more than
    /// once and must do nothing but SQL; when it returns an error, nothing of it is kept. It must not go on
    /// after a statement has failed (PostgreSQL could not): that is refused with [`StoreError::Ignored`].
    ///
    /// Cancel-safe: no; the change may be kept although nobody was told.
    ///
    /// # Errors
    /// The closure's own, or a [`StoreError`] of the commit.
    pub async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        self.write_with(Patience::Tries(MAX_TRIES), f).await
    }

    /// [`Db::write`] with another patience than [`MAX_TRIES`]: callers who would not come again are given time
    /// rather than tries, and their changes go on one after the other when they have collided. SQLite has one
    /// writer and a queue: nothing collides there.
    ///
    /// Cancel-safe: no, as [`Db::write`].
    ///
    /// # Errors
    /// As [`Db::write`].
    pub async fn write_with<T, E, F>(&self, patience: Patience, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        match &self.inner.engine {
            EngineOf::Lite(l) => l.write(f).await,
            EngineOf::Pg(p) => p.write(patience, f).await,
        }
    }

    /// Wakes whenever the change feed may have grown. A lost wake-up costs latency only: readers poll too.
    #[must_use]
    pub fn wakes(&self) -> watch::Receiver<u64> {
        self.inner.wakes.changes.subscribe()
    }

    /// Wakes whenever a job may have become due. A lost wake-up costs latency only: workers poll too.
    #[must_use]
    pub fn job_wakes(&self) -> watch::Receiver<u64> {
        self.inner.wakes.jobs.subscribe()
    }

    /// Closes the database: what was accepted is finished first.
    pub async fn close(&self) {
        match &self.inner.engine {
            EngineOf::Lite(l) => l.close().await,
            EngineOf::Pg(p) => p.close().await,
        }
    }
}
