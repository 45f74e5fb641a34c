//! SQLite: one writer that commits waiting changes together, and readers beside it.
//!
//! Group commit: the writer takes every change that waits, runs each under a savepoint, commits once
//! with `synchronous=FULL`, and only then answers them all. An error of one change rolls back that change.
//! When the group as a whole cannot be committed, each of its changes is run again alone, so that one
//! that the database cannot stomach does not take its neighbours along.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot};

use crate::db::Wakes;
use crate::error::StoreError;
use crate::readers::Readers;
use crate::tx::{Conn, LiteConn, Tx, TxError};

/// Changes that may wait for the writer; further callers wait for a place.
const QUEUE: usize = 1024;
/// Changes committed together at most.
const MAX_GROUP: usize = 256;
/// How long to wait for another process that writes (a command line beside the running program).
const BUSY: Duration = Duration::from_secs(5);
/// A group that takes longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

type Run = Box<dyn for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, bool> + Send + Sync>;
type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send + Sync>;

struct Change {
    /// Runs the change and says whether it is to be kept.
    run: Run,
    /// Answers the caller.
    done: Done,
}

/// How a change's closure ended.
enum Ended<T, E> {
    Returned(Result<T, E>),
    Panicked(Box<dyn Any + Send>),
}

pub(crate) struct Lite {
    queue: mpsc::Sender<Change>,
    read: Arc<Readers>,
    writer: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    stop: tokio_util::sync::CancellationToken,
}

fn open_error(path: &Path, cause: sqlx::Error) -> StoreError {
    StoreError::Open {
        what: path.display().to_string(),
        cause: Box::new(cause),
    }
}

impl Lite {
    pub(crate) async fn open(
        path: &Path,
        readers: u32,
        wakes: Arc<Wakes>,
    ) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .statement_cache_capacity(512)
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Warn, SLOW)
            .pragma("temp_store", "memory")
            // Give the space of a log that grew under a long reader back.
            .pragma("journal_size_limit", "67108864")
            // Names that hide a typing error in quotes are errors, and no schema text runs functions.
            .pragma("trusted_schema", "0")
            .pragma("cache_size", "-16000");
        let writer = options
            .clone()
            .connect()
            .await
            .map_err(|e| open_error(path, e))?;
        // A reader's page cache is small: the pages are in the system's cache anyway.
        let read = Readers::new(
            options
                .pragma("query_only", "1")
                .pragma("cache_size", "-4000"),
            readers,
        );
        let (queue, waiting) = mpsc::channel(QUEUE);
        let stop = tokio_util::sync::CancellationToken::new();
        let writer = tokio::spawn(write_loop(writer, waiting, wakes, stop.clone()));
        Ok(Self {
            queue,
            read,
            writer: tokio::sync::Mutex::new(Some(writer)),
            stop,
        })
    }

    pub(crate) async fn read(&self) -> Result<Tx, StoreError> {
        Ok(Tx::new(Conn::Lite(LiteConn::Pool(
            self.read.begin().await?,
        ))))
    }

    pub(crate) async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let slot: Arc<Mutex<Option<Ended<T, E>>>> = Arc::default();
        let (answer, answered) = oneshot::channel();
        let (into, out, f) = (Arc::clone(&slot), slot, Arc::new(f));
        let run: Run = Box::new(move |tx| {
            let (f, into) = (Arc::clone(&f), Arc::clone(&into));
            Box::pin(async move {
                let ended = match AssertUnwindSafe(async { f(&mut *tx).await })
                    .catch_unwind()
                    .await
                {
                    Ok(Ok(_)) if tx.trouble.is_some() => {
                        Ended::Returned(Err(E::from(StoreError::Ignored)))
                    }
                    Ok(result) => Ended::Returned(result),
                    Err(panic) => Ended::Panicked(panic),
                };
                let kept = matches!(ended, Ended::Returned(Ok(_)));
                *into.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
                kept
            })
        });
        let done: Done = Box::new(move |committed| {
            let ran = out.lock().unwrap_or_else(PoisonError::into_inner).take();
            let ended = match (committed, ran) {
                (Err(e), Some(Ended::Returned(Ok(_))) | None) => Ended::Returned(Err(E::from(e))),
                (_, Some(ended)) => ended,
                (Ok(()), None) => Ended::Returned(Err(E::from(StoreError::Closed))),
            };
            // The caller may have gone away; its change is committed all the same.
            answer.send(ended).ok();
        });
        self.queue
            .send(Change { run, done })
            .await
            .map_err(|_| StoreError::Closed)?;
        match answered.await {
            Ok(Ended::Returned(result)) => result,
            // The panic belongs to the caller, as it does where the closure runs in the caller's task.
            Ok(Ended::Panicked(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(E::from(StoreError::Closed)),
        }
    }

    pub(crate) async fn close(&self) {
        self.stop.cancel();
        if let Some(task) = self.writer.lock().await.take()
            && let Err(e) = task.await
        {
            tracing::error!(error = %e, "the database's writer ended badly");
        }
        self.read.close().await;
    }
}

async fn write_loop(
    conn: sqlx::SqliteConnection,
    mut waiting: mpsc::Receiver<Change>,
    wakes: Arc<Wakes>,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut tx = Tx::new(Conn::Lite(LiteConn::Own(conn)));
    let mut group = Vec::new();
    loop {
        let n = tokio::select! {
            n = waiting.recv_many(&mut group, MAX_GROUP) => n,
            () = stop.cancelled(), if !waiting.is_closed() => {
                // No more are taken; what was accepted is finished.
                waiting.close();
                continue;
            }
        };
        if n == 0 {
            break;
        }
        let began = std::time::Instant::now();
        commit(&mut tx, std::mem::take(&mut group), &wakes).await;
        if began.elapsed() > SLOW {
            tracing::warn!(changes = n, elapsed = ?began.elapsed(), "a group of changes took long");
        }
    }
    if let Conn::Lite(LiteConn::Own(mut c)) = tx.conn {
        // Refreshes the planner's statistics where they are stale; failing costs nothing.
        c.execute("PRAGMA optimize").await.ok();
        c.close().await.ok();
    }
}

/// Commits a group and answers every caller.
async fn commit(tx: &mut Tx, group: Vec<Change>, wakes: &Wakes) {
    let result = commit_together(tx, &group, wakes).await;
    match result {
        Err(Failed::Within(_)) if group.len() > 1 => {
            for change in group {
                let result = commit_together(tx, std::slice::from_ref(&change), wakes).await;
                (change.done)(result.map_err(|e| e.answer()));
            }
        }
        result => {
            for change in group {
                (change.done)(result.as_ref().copied().map_err(Failed::answer));
            }
        }
    }
}

/// Why a group could not be committed.
enum Failed {
    /// The transaction did not begin: nothing has run.
    Begin(StoreError),
    /// Something of it has run.
    Within(StoreError),
}

impl Failed {
    /// The error as each caller gets it; the cause cannot be shared, so it goes along in words.
    fn answer(&self) -> StoreError {
        let (Self::Begin(e) | Self::Within(e)) = self;
        match e {
            e if e.is_busy() => StoreError::Conflict { tries: 1 },
            StoreError::Sql(cause) => StoreError::Sql(sqlx::Error::Protocol(cause.to_string())),
            e => StoreError::Sql(sqlx::Error::Protocol(e.to_string())),
        }
    }
}

async fn commit_together(tx: &mut Tx, group: &[Change], wakes: &Wakes) -> Result<(), Failed> {
    tx.renew();
    if let Err(e) = tx.raw("BEGIN IMMEDIATE").await {
        tracing::error!(error = %e, cause = ?std::error::Error::source(&e), "the database does not begin a transaction");
        return Err(Failed::Begin(e));
    }
    let committed = match run(tx, group).await {
        Ok(()) => tx.raw("COMMIT").await,
        Err(e) => Err(e),
    };
    if let Err(e) = committed {
        tracing::error!(
            error = %e, cause = ?std::error::Error::source(&e), changes = group.len(),
            "changes could not be committed"
        );
        // Fails when the database has rolled back by itself, which is as well.
        tx.raw("ROLLBACK").await.ok();
        return Err(Failed::Within(e));
    }
    wakes.after(tx);
    Ok(())
}

/// Runs the changes of a group. An error means that the whole transaction is unusable.
async fn run(tx: &mut Tx, group: &[Change]) -> Result<(), StoreError> {
    if let [change] = group {
        // Alone, the transaction does what the savepoint would: nothing is left of a refused change.
        if !(change.run)(tx).await {
            tx.raw("ROLLBACK").await?;
            tx.raw("BEGIN").await?;
            tx.renew();
        }
        return Ok(());
    }
    for change in group {
        tx.trouble = None;
        tx.raw("SAVEPOINT change").await?;
        if !(change.run)(tx).await {
            tx.raw("ROLLBACK TO change").await?;
        }
        tx.raw("RELEASE change").await?;
    }
    Ok(())
}
