//! PostgreSQL: serialisable transactions with bounded retry, and wake-ups over LISTEN/NOTIFY.

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::db::MAX_TRIES;
use crate::error::StoreError;
use crate::tx::{Conn, Tx, TxError};

/// Channel of LISTEN/NOTIFY.
const CHANNEL: &str = "steelyard_changes";

pub(crate) struct Pg {
    pool: PgPool,
    stop: CancellationToken,
}

impl Pg {
    pub(crate) async fn open(url: &str, connections: u32, wake: watch::Sender<u64>) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url
            .parse()
            .map_err(|e: sqlx::Error| StoreError::Open { what: "PostgreSQL".to_owned(), cause: Box::new(e) })?;
        let what = format!("PostgreSQL at {}:{}", options.get_host(), options.get_port());
        let options = options
            .application_name("steelyard")
            .options([("statement_timeout", "60s"), ("idle_in_transaction_session_timeout", "30s"), ("lock_timeout", "20s")]);
        let pool = PgPoolOptions::new()
            .max_connections(connections.max(2))
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options)
            .await
            .map_err(|e| StoreError::Open { what, cause: Box::new(e) })?;
        let stop = CancellationToken::new();
        tokio::spawn(listen(pool.clone(), wake, stop.clone()));
        Ok(Self { pool, stop })
    }

    pub(crate) async fn read(&self) -> Result<Tx, StoreError> {
        let mut tx = Tx::new(Conn::Pg(self.pool.acquire().await?));
        // The pool hands out connections as their last reader left them.
        tx.raw("ROLLBACK").await?;
        tx.raw("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        Ok(tx)
    }

    pub(crate) async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let mut backoff = Duration::from_millis(2);
        for _ in 0..MAX_TRIES {
            let mut tx = Tx::new(Conn::Pg(self.pool.acquire().await.map_err(StoreError::from)?));
            tx.raw("ROLLBACK").await?;
            tx.raw("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
            let result = match f(&mut tx).await {
                Ok(t) => match finish(&mut tx).await {
                    Ok(()) => return Ok(t),
                    Err(e) => Err(E::from(e)),
                },
                Err(e) => {
                    tx.raw("ROLLBACK").await.ok();
                    Err::<T, E>(e)
                }
            };
            match result {
                Err(e) if e.store().is_some_and(StoreError::is_retryable) => {
                    drop(tx);
                    let jitter = rand::random_range(0..=backoff.as_micros() as u64);
                    tokio::time::sleep(backoff + Duration::from_micros(jitter)).await;
                    backoff = (backoff * 2).min(Duration::from_millis(250));
                }
                other => return other,
            }
        }
        Err(E::from(StoreError::Conflict { tries: MAX_TRIES }))
    }

    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.pool.close().await;
    }
}

async fn finish(tx: &mut Tx) -> Result<(), StoreError> {
    if tx.wrote_feed {
        tx.raw("NOTIFY steelyard_changes").await?;
    }
    tx.raw("COMMIT").await
}

async fn listen(pool: PgPool, wake: watch::Sender<u64>, stop: CancellationToken) {
    loop {
        let heard = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            loop {
                // Also after a reconnect: something may have been missed.
                listener.try_recv().await?;
                wake.send_modify(|n| *n = n.wrapping_add(1));
            }
            #[allow(unreachable_code)]
            Ok::<(), sqlx::Error>(())
        };
        tokio::select! {
            () = stop.cancelled() => return,
            r = heard => {
                if let Err(e) = r {
                    tracing::warn!(error = %e, "lost the database's notifications; polling goes on");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
