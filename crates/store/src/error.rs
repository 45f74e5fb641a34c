//! Why the database could not do it.

/// A failed database operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened.
    #[error("cannot open the database {what}")]
    Open {
        /// Which, without credentials.
        what: String,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A migration failed.
    #[error("cannot bring the database to schema {version}")]
    Migrate {
        /// The migration that failed.
        version: i64,
        /// The cause.
        #[source]
        cause: sqlx::Error,
    },
    /// The database was written by a newer program.
    #[error(
        "the database has schema {found}; this program knows schemas up to {known}. Install the newer program again"
    )]
    Newer {
        /// The database's schema.
        found: i64,
        /// The newest this program knows.
        known: i64,
    },
    /// A statement failed.
    #[error("a database statement failed")]
    Sql(#[source] sqlx::Error),
    /// Another transaction was in the way, again and again.
    #[error("the database is too busy: the change was tried {tries} times")]
    Conflict {
        /// How often.
        tries: u32,
    },
    /// The writer has stopped.
    #[error("the database is closed")]
    Closed,
    /// The attempt at a job is no longer the current one: another owner took it over, or it ended.
    #[error("attempt {attempt} at job {id} is no longer the current one")]
    Fenced {
        /// The job.
        id: i64,
        /// The attempt that was refused.
        attempt: i64,
    },
    /// A change went on, and ended well, although one of its statements had failed. PostgreSQL would keep nothing
    /// of it, so it is refused on both engines.
    #[error("a change ignored the failure of one of its statements")]
    Ignored,
    /// A position in the change feed that the feed does not reach back to, or from another history of the database.
    #[error("the change feed does not reach back to this position: start again from a snapshot")]
    StartAgain,
    /// A secret could not be sealed or unsealed, or there are no keys for it.
    #[error(transparent)]
    Seal(#[from] crate::seal::SealError),
    /// What was to be kept is too large.
    #[error("{what} has {bytes} bytes; at most {limit} are kept")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Something kept in the database cannot be read.
    #[error("the database holds something unreadable: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// The kind of constraint that a statement ran into, if that is what happened.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(e)) if e.is_unique_violation())
    }

    /// A row that is still referred to was to be deleted, or one that does not exist was referred to.
    #[must_use]
    pub fn is_foreign_key_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(e)) if e.is_foreign_key_violation())
    }

    /// The transaction may succeed when run again (PostgreSQL 40001 and 40P01).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Sql(cause) if Self::retryable(cause))
    }

    pub(crate) fn retryable(cause: &sqlx::Error) -> bool {
        matches!(cause, sqlx::Error::Database(e) if matches!(e.code().as_deref(), Some("40001" | "40P01")))
    }

    /// Another process holds SQLite's write lock (SQLITE_BUSY and its extended codes).
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(e))
            if e.code().and_then(|c| c.parse::<u32>().ok()).is_some_and(|c| c & 0xff == 5))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        Self::Sql(e)
    }
}
