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
    /// Statements run so far; tests assert that lists cost a constant number.
    pub statements: u64,
}

/// The connection under a [`Tx`], one arm per engine. Public for the macros only.
#[doc(hidden)]
pub enum Conn {
    Lite(LiteConn),
    Pg(sqlx::pool::PoolConnection<sqlx::Postgres>),
}

#[doc(hidden)]
pub enum LiteConn {
    Pool(sqlx::pool::PoolConnection<sqlx::Sqlite>),
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
        Self { conn, wrote_feed: false, statements: 0 }
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
        dialect::statement(self.engine(), sql)
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
                let (t,) = crate::one!(self, (i64,), "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")?;
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
    ($tx:expr, $c:ident => $body:expr) => {
        match $tx.conn() {
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
        }
        .map_err($crate::StoreError::from)
    };
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
