//! SQLite's readers: connections that are used by one reader at a time.
//!
//! A free connection waits inside a transaction that has not read anything yet: such a one holds neither a
//! snapshot nor a lock, and the next reader's first statement chooses its snapshot. So a read costs one
//! trip to the connection's thread per statement and nothing else. When a reader lets go, a task ends
//! its transaction at once, so that its snapshot does not keep the write-ahead log from being folded
//! back, and only then offers the connection to others.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::StoreError;

/// The readers of one database.
#[doc(hidden)]
pub struct Readers {
    options: SqliteConnectOptions,
    /// The last one used is the next one used: its cache is warm.
    free: Mutex<Vec<SqliteConnection>>,
    places: Arc<Semaphore>,
}

/// A connection inside a transaction of its own.
#[doc(hidden)]
pub struct Reader {
    /// There until it is dropped.
    inner: Option<(SqliteConnection, OwnedSemaphorePermit)>,
    of: Arc<Readers>,
}

impl Readers {
    pub(crate) fn new(options: SqliteConnectOptions, count: u32) -> Arc<Self> {
        let places = usize::try_from(count.max(1)).unwrap_or(1);
        Arc::new(Self {
            options,
            free: Mutex::default(),
            places: Arc::new(Semaphore::new(places)),
        })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection whose transaction has not read anything yet; waits while none is free.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<Reader, StoreError> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let free = self.free().pop();
        let conn = match free {
            Some(conn) => conn,
            None => {
                let mut conn = self.options.connect().await?;
                conn.execute("BEGIN").await?;
                conn
            }
        };
        Ok(Reader {
            inner: Some((conn, place)),
            of: Arc::clone(self),
        })
    }

    /// No more readers; those at work end when they are dropped.
    pub(crate) async fn close(&self) {
        self.places.close();
        let free = std::mem::take(&mut *self.free());
        for conn in free {
            conn.close().await.ok();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some((mut conn, place)) = self.inner.take() else {
            return;
        };
        let of = Arc::clone(&self.of);
        // Without a runtime, and when the database is closed, the connection just ends.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if of.places.is_closed() {
            return;
        }
        runtime.spawn(async move {
            match conn.execute("ROLLBACK; BEGIN").await {
                Ok(_) if !of.places.is_closed() => of.free().push(conn),
                Ok(_) => {}
                Err(e) => tracing::warn!(error = %e, "a reading connection is given up"),
            }
            drop(place);
        });
    }
}

impl Deref for Reader {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self
            .inner
            .as_ref()
            .expect("a reader has its connection until it is dropped")
            .0
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self
            .inner
            .as_mut()
            .expect("a reader has its connection until it is dropped")
            .0
    }
}
