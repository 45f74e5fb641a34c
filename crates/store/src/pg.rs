//! PostgreSQL: serialisable transactions with bounded retry, and wake-ups over LISTEN/NOTIFY.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::db::{Patience, Wakes};
use crate::error::StoreError;
use crate::tx::{Conn, Trouble, Tx, TxError};

/// Channel of the change feed.
const CHANGES: &str = "steelyard_changes";
/// Channel of the jobs.
const JOBS: &str = "steelyard_jobs";
/// A connection that idled for longer is tested before it is used again.
const TEST_AFTER: Duration = Duration::from_secs(10);
/// A statement that takes longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);
/// First pause before a change that could not be serialised runs again; it doubles, with as much again by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest such pause.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// Connections beside those of the callers: the one that listens.
const OWN_CONNECTIONS: u32 = 1;

/// No transaction may hold the change feed up for long: statements, waits for locks and pauses between
/// statements have limits.
const LIMITS: [(&str, &str); 3] = [
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("lock_timeout", "10s"),
];

pub(crate) struct Pg {
    pool: PgPool,
    stop: CancellationToken,
    /// Ends the listener when the database is dropped without being closed.
    _listener: DropGuard,
    wakes: Arc<Wakes>,
    /// Patient changes that were in each other's way go on one after the other, in their order: however many
    /// they are, each of them gets through.
    line: Semaphore,
}

impl Pg {
    pub(crate) async fn open(
        url: &str,
        connections: u32,
        wakes: Arc<Wakes>,
    ) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|e: sqlx::Error| StoreError::Open {
            what: "PostgreSQL".to_owned(),
            cause: Box::new(e),
        })?;
        let what = format!(
            "PostgreSQL at {}:{}",
            options.get_host(),
            options.get_port()
        );
        let options = options
            .application_name("steelyard")
            .statement_cache_capacity(512)
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Warn, SLOW)
            .options(LIMITS);
        let pool = PgPoolOptions::new()
            .max_connections(connections.max(1) + OWN_CONNECTIONS)
            .acquire_timeout(Duration::from_secs(30))
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > TEST_AFTER {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await
            .map_err(|e| StoreError::Open {
                what,
                cause: Box::new(e),
            })?;
        let stop = CancellationToken::new();
        tokio::spawn(listen(pool.clone(), Arc::clone(&wakes), stop.clone()));
        Ok(Self {
            pool,
            _listener: stop.clone().drop_guard(),
            stop,
            wakes,
            line: Semaphore::new(1),
        })
    }

    pub(crate) async fn read(&self) -> Result<Tx, StoreError> {
        let tx = self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        Ok(Tx::new(Conn::Pg(tx)))
    }

    /// Takes the lock under which migrations run. Held by a session of its own, because a transaction
    /// that waits for a lock has chosen its snapshot before it waits.
    pub(crate) async fn migration_lock(&self) -> Result<MigrationLock, StoreError> {
        use sqlx::Executor as _;
        let mut conn = self.pool.acquire().await?.detach();
        conn.execute("SET lock_timeout = 0; SET statement_timeout = 0")
            .await?;
        conn.execute("SELECT pg_advisory_lock(7331001)").await?;
        Ok(MigrationLock(conn))
    }

    pub(crate) async fn write<T, E, F>(&self, patience: Patience, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let mut backoff = FIRST_PAUSE;
        let (mut tries, began) = (0, Instant::now());
        let mut turn = None;
        loop {
            tries += 1;
            if let Some(result) = self.attempt(&f).await {
                return result;
            }
            match patience {
                Patience::Tries(most) if tries >= most => break,
                Patience::Tries(_) => {}
                Patience::For(limit) => {
                    let Some(left) = limit.checked_sub(began.elapsed()) else {
                        break;
                    };
                    if turn.is_none() {
                        // Closed never; out of time, the last try follows without a turn.
                        let mine = tokio::time::timeout(left, self.line.acquire()).await;
                        turn = mine.ok().and_then(Result::ok);
                        backoff = FIRST_PAUSE;
                    }
                }
            }
            let jitter =
                rand::random_range(0..=u64::try_from(backoff.as_micros()).unwrap_or(u64::MAX));
            tokio::time::sleep(backoff + Duration::from_micros(jitter)).await;
            backoff = (backoff * 2).min(MAX_PAUSE);
        }
        Err(E::from(StoreError::Conflict { tries }))
    }

    /// One try at a change; none when it is to be run again.
    async fn attempt<T, E, F>(&self, f: &F) -> Option<Result<T, E>>
    where
        E: TxError,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let begun = self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE")
            .await;
        let mut tx = match begun {
            Ok(tx) => Tx::new(Conn::Pg(tx)),
            Err(e) => return Some(Err(E::from(StoreError::from(e)))),
        };
        let result = f(&mut tx).await;
        // What the closure made of a conflict does not matter: it is to be run again.
        let mut again = tx.trouble == Some(Trouble::Conflict);
        let ignored = tx.trouble.is_some();
        let result = match result {
            Ok(t) if !ignored => match commit(tx, &self.wakes).await {
                Ok(()) => return Some(Ok(t)),
                Err(e) => {
                    again = e.is_retryable();
                    Err(E::from(e))
                }
            },
            other => {
                rollback(tx).await;
                other.and(Err(E::from(StoreError::Ignored)))
            }
        };
        let retryable = |e: &E| e.store().is_some_and(StoreError::is_retryable);
        again |= result.as_ref().err().is_some_and(retryable);
        (!again).then_some(result)
    }

    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.pool.close().await;
    }
}

/// The session that holds the migration lock.
pub(crate) struct MigrationLock(sqlx::PgConnection);

impl MigrationLock {
    /// Gives the lock back. When this is not reached, the end of the session does it.
    pub(crate) async fn release(self) {
        self.0.close().await.ok();
    }
}

async fn commit(mut tx: Tx, wakes: &Wakes) -> Result<(), StoreError> {
    match (tx.wrote_feed, tx.woke_jobs) {
        (true, true) => {
            tx.raw("NOTIFY steelyard_changes; NOTIFY steelyard_jobs")
                .await?
        }
        (true, false) => tx.raw("NOTIFY steelyard_changes").await?,
        (false, true) => tx.raw("NOTIFY steelyard_jobs").await?,
        (false, false) => {}
    }
    let (changes, jobs) = (tx.wrote_feed, tx.woke_jobs);
    if let Conn::Pg(t) = tx.conn {
        t.commit().await?;
    }
    // The listener hears it too, but not if its connection is gone just now.
    wakes.wake(changes, jobs);
    Ok(())
}

async fn rollback(tx: Tx) {
    if let Conn::Pg(t) = tx.conn
        && let Err(e) = t.rollback().await
    {
        // The pool tests the connection before it keeps it, and its end rolls back as well.
        tracing::debug!(error = %e, "a transaction was not rolled back in order");
    }
}

async fn listen(pool: PgPool, wakes: Arc<Wakes>, stop: CancellationToken) {
    loop {
        let heard = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen_all([CHANGES, JOBS]).await?;
            // Something may have been missed while nobody listened.
            wakes.wake(true, true);
            loop {
                match listener.try_recv().await? {
                    Some(n) => wakes.wake(n.channel() == CHANGES, n.channel() == JOBS),
                    None => return Ok::<(), sqlx::Error>(()),
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            r = heard => match r {
                Ok(()) => tracing::info!("the connection for the database's notifications was lost; it is made again"),
                Err(e) => tracing::warn!(error = %e, "the database's notifications are not heard; polling goes on"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
