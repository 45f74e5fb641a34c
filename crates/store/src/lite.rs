//! SQLite: one writer that commits waiting changes together, and readers beside it.
//!
//! Group commit: the writer takes every change that waits, runs each under a savepoint, commits once
//! with `synchronous=FULL`, and only then answers them all. An error of one change rolls back that change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::StoreError;
use crate::tx::{Conn, LiteConn, Tx, TxError};

/// Changes that may wait for the writer; further callers wait for a place.
const QUEUE: usize = 1024;
/// Changes committed together at most.
const MAX_GROUP: usize = 256;

type Run = Box<dyn for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, bool> + Send>;
type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Change {
    run: Run,
    done: Done,
}

pub(crate) struct Lite {
    queue: mpsc::Sender<Change>,
    read: SqlitePool,
    writer: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    stop: tokio_util::sync::CancellationToken,
}

fn open_error(path: &Path, cause: sqlx::Error) -> StoreError {
    StoreError::Open { what: path.display().to_string(), cause: Box::new(cause) }
}

impl Lite {
    pub(crate) async fn open(path: &Path, readers: u32, wake: watch::Sender<u64>) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("temp_store", "memory")
            .pragma("cache_size", "-16000");
        let writer = options.clone().connect().await.map_err(|e| open_error(path, e))?;
        let read = SqlitePoolOptions::new()
            .max_connections(readers)
            .connect_lazy_with(options.pragma("query_only", "1"));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let stop = tokio_util::sync::CancellationToken::new();
        let writer = tokio::spawn(write_loop(writer, waiting, wake, stop.clone()));
        Ok(Self { queue, read, writer: tokio::sync::Mutex::new(Some(writer)), stop })
    }

    pub(crate) async fn read(&self) -> Result<Tx, StoreError> {
        let conn = self.read.acquire().await?;
        let mut tx = Tx::new(Conn::Lite(LiteConn::Pool(conn)));
        // A connection comes back from the pool inside the transaction its last reader left open;
        // ending that is harmless when there is none.
        tx.raw("ROLLBACK").await.ok();
        tx.raw("BEGIN").await?;
        Ok(tx)
    }

    pub(crate) async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let slot: Arc<Mutex<Option<Result<T, E>>>> = Arc::default();
        let (answer, answered) = oneshot::channel();
        let (into, out) = (Arc::clone(&slot), slot);
        let run: Run = Box::new(move |tx| {
            Box::pin(async move {
                let result = f(tx).await;
                let kept = result.is_ok();
                *into.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                kept
            })
        });
        let done: Done = Box::new(move |committed| {
            let ran = out.lock().unwrap_or_else(PoisonError::into_inner).take();
            let result = match (committed, ran) {
                (_, Some(Err(e))) => Err(e),
                (Err(e), _) => Err(E::from(e)),
                (Ok(()), Some(Ok(t))) => Ok(t),
                (Ok(()), None) => Err(E::from(StoreError::Closed)),
            };
            // The caller may have gone away; its change is committed all the same.
            answer.send(result).ok();
        });
        self.queue.send(Change { run, done }).await.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or_else(|_| Err(E::from(StoreError::Closed)))
    }

    pub(crate) async fn close(&self) {
        self.stop.cancel();
        if let Some(task) = self.writer.lock().await.take() {
            task.await.ok();
        }
        self.read.close().await;
    }
}

async fn write_loop(
    conn: sqlx::SqliteConnection,
    mut waiting: mpsc::Receiver<Change>,
    wake: watch::Sender<u64>,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut tx = Tx::new(Conn::Lite(LiteConn::Own(conn)));
    let mut group = Vec::new();
    loop {
        tokio::select! {
            biased;
            n = waiting.recv_many(&mut group, MAX_GROUP) => if n == 0 { break },
            () = stop.cancelled() => break,
        }
        commit_group(&mut tx, &mut group, &wake).await;
    }
    if let Conn::Lite(LiteConn::Own(c)) = tx.conn {
        use sqlx::Connection as _;
        c.close().await.ok();
    }
}

async fn commit_group(tx: &mut Tx, group: &mut Vec<Change>, wake: &watch::Sender<u64>) {
    tx.wrote_feed = false;
    if let Err(e) = tx.raw("BEGIN IMMEDIATE").await {
        tracing::error!(error = %e, "the database does not begin a transaction");
        for c in group.drain(..) {
            (c.done)(Err(StoreError::Closed));
        }
        return;
    }
    let mut done = Vec::with_capacity(group.len());
    let mut failed = None;
    for change in group.drain(..) {
        if failed.is_none() {
            match run_one(tx, change.run).await {
                Ok(()) => {}
                Err(e) => failed = Some(e),
            }
        }
        done.push(change.done);
    }
    let committed = match failed {
        None => tx.raw("COMMIT").await,
        Some(e) => Err(e),
    };
    match committed {
        Ok(()) => {
            if tx.wrote_feed {
                wake.send_modify(|n| *n = n.wrapping_add(1));
            }
            for d in done {
                d(Ok(()));
            }
        }
        Err(e) => {
            tracing::error!(error = %e, cause = ?std::error::Error::source(&e), "a group of changes could not be committed");
            tx.raw("ROLLBACK").await.ok();
            let text = e.to_string();
            for d in done {
                d(Err(StoreError::Sql(sqlx::Error::Protocol(text.clone()))));
            }
        }
    }
}

/// Runs one change under a savepoint. An error means that the whole transaction is unusable.
async fn run_one(tx: &mut Tx, run: Run) -> Result<(), StoreError> {
    tx.raw("SAVEPOINT change").await?;
    if run(tx).await {
        tx.raw("RELEASE change").await
    } else {
        tx.raw("ROLLBACK TO change").await?;
        tx.raw("RELEASE change").await
    }
}
