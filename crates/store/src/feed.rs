//! The change feed: the only way in which others learn that something changed.
//!
//! A row names a noun, an object and its revision, never content: the reader reads the object again.
//! On PostgreSQL a row carries its transaction's id and readers stop below the oldest transaction that
//! still runs, because sequence numbers alone become visible out of order.

use metal::Timestamp;

use crate::dialect::Engine;
use crate::error::StoreError;
use crate::tx::Tx;

/// Most rows given at a time.
pub const MAX_ROWS: i64 = 1_000;

/// A place in the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Transaction id; always 0 on SQLite.
    pub xact: i64,
    /// Sequence number.
    pub seq: i64,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Change {
    /// Sequence number.
    pub seq: i64,
    /// Transaction id; 0 on SQLite.
    pub xact: i64,
    /// The noun: `machine`, `subnet`, …
    pub noun: String,
    /// The object's id as text.
    pub object: String,
    /// The object's revision, where it has one; otherwise 0.
    pub revision: i64,
    /// When.
    pub at: i64,
}

impl Tx {
    /// Notes that an object changed (or went). Part of the same transaction as the change.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn changed(&mut self, noun: &'static str, object: impl ToString, revision: i64, at: Timestamp) -> Result<(), StoreError> {
        self.wrote_feed = true;
        crate::exec!(
            self,
            "INSERT INTO change_feed (noun, object, revision, at) VALUES ($1, $2, $3, $4)",
            noun,
            object.to_string(),
            revision,
            at.0
        )?;
        Ok(())
    }

    /// The changes after a position, oldest first, at most [`MAX_ROWS`].
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn changes_after(&mut self, at: Position) -> Result<Vec<Change>, StoreError> {
        match self.engine() {
            Engine::Sqlite => crate::all!(
                self,
                Change,
                "SELECT seq, xact, noun, object, revision, at FROM change_feed WHERE seq > $1 ORDER BY seq LIMIT $2",
                at.seq,
                MAX_ROWS
            ),
            Engine::Postgres => crate::all!(
                self,
                Change,
                "SELECT seq, xact, noun, object, revision, at FROM change_feed \
                 WHERE (xact, seq) > ($1, $2) AND xact < pg_snapshot_xmin(pg_current_snapshot())::text::bigint \
                 ORDER BY xact, seq LIMIT $3",
                at.xact,
                at.seq,
                MAX_ROWS
            ),
        }
    }

    /// The position behind the last change that may be read now. Read it before a snapshot is taken
    /// in the same transaction, and nothing is missed.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn feed_position(&mut self) -> Result<Position, StoreError> {
        let row = match self.engine() {
            Engine::Sqlite => crate::opt!(self, (i64, i64), "SELECT xact, seq FROM change_feed ORDER BY seq DESC LIMIT 1")?,
            Engine::Postgres => crate::opt!(
                self,
                (i64, i64),
                "SELECT xact, seq FROM change_feed WHERE xact < pg_snapshot_xmin(pg_current_snapshot())::text::bigint \
                 ORDER BY xact DESC, seq DESC LIMIT 1"
            )?,
        };
        Ok(row.map_or_else(Position::default, |(xact, seq)| Position { xact, seq }))
    }
}

impl Change {
    /// Where the feed stands after this change.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { xact: self.xact, seq: self.seq }
    }
}
