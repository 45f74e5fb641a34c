//! Running statements: [`Tx`] and the macros [`all!`](crate::all), [`one!`](crate::one),
//! [`opt!`](crate::opt), [`exec!`](crate::exec).

use metal::Timestamp;

use crate::dialect::{self, Engine};
use crate::error::StoreError;

/// A transaction, reading or writing. Given to the closure of [`crate::Db::write`], or returned by
/// [`crate::Db::read`] for reading only.
pub struct Tx {
    pub(crate) conn: Conn,
    pub(crate) wrote_feed: bool,
    pub(crate) woke_jobs: bool,
    /// The worst that a statement ran into.
    pub(crate) trouble: Option<Trouble>,
    /// Statements run so far; tests assert that lists cost a constant number.
    pub statements: u64,
    /// Where the database counts what is read; see [`crate::Db::statements_read`].
    pub(crate) counted: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

/// What a statement ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// It failed. On PostgreSQL nothing of the transaction can be kept any more.
    Failed,
    /// Another transaction was in the way: the closure is to be run again.
    Conflict,
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx")
            .field("engine", &self.engine())
            .field("statements", &self.statements)
            .finish_non_exhaustive()
    }
}

/// The connection under a [`Tx`], one arm per engine. Public for the macros only.
#[doc(hidden)]
pub enum Conn {
    Lite(LiteConn),
    Pg(sqlx::Transaction<'static, sqlx::Postgres>),
}

#[doc(hidden)]
pub enum LiteConn {
    Pool(crate::readers::Reader),
    Own(sqlx::SqliteConnection),
}

/// Errors that a write closure may return: they can carry a [`StoreError`], so that the store sees
/// whether running again would help.
pub trait TxError: From<StoreError> + Send + 'static {
    /// The database's error within, if it is one.
    fn store(&self) -> Option<&StoreError>;
}

impl TxError for StoreError {
    fn store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl Tx {
    pub(crate) const fn new(conn: Conn) -> Self {
        Self {
            conn,
            wrote_feed: false,
            woke_jobs: false,
            trouble: None,
            statements: 0,
            counted: None,
        }
    }

    /// Forgets what the last transaction on this connection was about.
    pub(crate) const fn renew(&mut self) {
        self.wrote_feed = false;
        self.woke_jobs = false;
        self.trouble = None;
        self.statements = 0;
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self.conn {
            Conn::Lite(_) => Engine::Sqlite,
            Conn::Pg(_) => Engine::Postgres,
        }
    }

    #[doc(hidden)]
    pub fn prepare(&mut self, sql: &'static str) -> &'static str {
        self.statements += 1;
        if let Some(all) = &self.counted {
            all.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        dialect::statement(self.engine(), sql)
    }

    /// Remembers a statement's failure, so that a closure cannot overlook it.
    #[doc(hidden)]
    pub fn done<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        result.map_err(|cause| {
            let refused = matches!(cause, sqlx::Error::Database(_));
            let e = StoreError::Sql(cause);
            if e.is_retryable() {
                self.trouble = Some(Trouble::Conflict);
            } else if refused {
                self.trouble = self.trouble.max(Some(Trouble::Failed));
            }
            e
        })
    }

    #[doc(hidden)]
    pub const fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// The time that leases and jobs go by: the database's clock on PostgreSQL, where several regions
    /// must agree, and the host's on SQLite.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn now(&mut self) -> Result<Timestamp, StoreError> {
        match self.engine() {
            Engine::Sqlite => Ok(Timestamp::from_system(std::time::SystemTime::now())),
            Engine::Postgres => {
                let (t,) = crate::one!(
                    self,
                    (i64,),
                    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
                )?;
                Ok(Timestamp(t))
            }
        }
    }

    pub(crate) async fn raw(&mut self, sql: &'static str) -> Result<(), StoreError> {
        use sqlx::Executor as _;
        match &mut self.conn {
            Conn::Lite(LiteConn::Pool(c)) => {
                (&mut **c).execute(sql).await?;
            }
            Conn::Lite(LiteConn::Own(c)) => {
                c.execute(sql).await?;
            }
            Conn::Pg(c) => {
                (&mut **c).execute(sql).await?;
            }
        }
        Ok(())
    }
}

/// Runs `$body` with `$c` bound to the concrete connection of each engine.
#[doc(hidden)]
#[macro_export]
macro_rules! on_conn {
    ($tx:expr, $c:ident => $body:expr) => {{
        let result = match $tx.conn() {
            $crate::tx::Conn::Lite($crate::tx::LiteConn::Pool(c)) => {
                let $c = &mut **c;
                $body
            }
            $crate::tx::Conn::Lite($crate::tx::LiteConn::Own(c)) => {
                let $c = c;
                $body
            }
            $crate::tx::Conn::Pg(c) => {
                let $c = &mut **c;
                $body
            }
        };
        $tx.done(result)
    }};
}

/// All rows of a statement: `all!(tx, Row, "SELECT …", a, b)?` gives `Vec<Row>`. Values are bound to `$1`, `$2`, …
#[macro_export]
macro_rules! all {
    ($tx:expr, $row:ty, $sql:expr $(, $a:expr)* $(,)?) => {{
        let sql = $tx.prepare($sql);
        $crate::on_conn!($tx, c => $crate::sqlx::query_as::<_, $row>(sql)$(.bind($a))*.fetch_all(c).await)
    }};
}

/// The row of a statement, or none: gives `Option<Row>`.
#[macro_export]
macro_rules! opt {
    ($tx:expr, $row:ty, $sql:expr $(, $a:expr)* $(,)?) => {{
        let sql = $tx.prepare($sql);
        $crate::on_conn!($tx, c => $crate::sqlx::query_as::<_, $row>(sql)$(.bind($a))*.fetch_optional(c).await)
    }};
}

/// The one row of a statement; an error when there is none.
#[macro_export]
macro_rules! one {
    ($tx:expr, $row:ty, $sql:expr $(, $a:expr)* $(,)?) => {{
        let sql = $tx.prepare($sql);
        $crate::on_conn!($tx, c => $crate::sqlx::query_as::<_, $row>(sql)$(.bind($a))*.fetch_one(c).await)
    }};
}

/// Runs a statement and gives the number of rows it changed.
#[macro_export]
macro_rules! exec {
    ($tx:expr, $sql:expr $(, $a:expr)* $(,)?) => {{
        let sql = $tx.prepare($sql);
        $crate::on_conn!($tx, c => $crate::sqlx::query(sql)$(.bind($a))*.execute(c).await.map(|r| r.rows_affected()))
    }};
}
