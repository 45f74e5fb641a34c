//! The change feed: the only way in which others learn that something changed.
//!
//! A row names a noun, an object and its revision, never content: the reader reads the object again.
//!
//! Sequence numbers alone become visible out of order on PostgreSQL, so a row carries its transaction's id there and a
//! place in the feed is (transaction, sequence). Readers stop below `pg_snapshot_xmin` of their own
//! snapshot: every transaction below it has ended, so what they see there is all that will ever be
//! there, and nothing can appear behind a position once it was given out. The price is latency: a row
//! waits for every older transaction that writes (in any database of the server), which is why writing
//! transactions have time limits. On SQLite, with one writer at a time, the sequence is the order of commits.
//!
//! A position belongs to an *epoch*, which changes when the history is replaced: by a restore
//! ([`Tx::new_feed_epoch`]), and on PostgreSQL by itself when the server is another one or was promoted
//! from a replica. The feed is trimmed up to its *horizon*. Who comes with a position of
//! another epoch or before the horizon gets [`StoreError::StartAgain`].

use std::time::Duration;

use metal::Timestamp;
use tokio::sync::watch;

use crate::db::Db;
use crate::dialect::Engine;
use crate::error::StoreError;
use crate::tx::Tx;

/// Most rows given at a time.
pub const MAX_ROWS: i64 = 1_000;
/// Rows kept at most, roughly; the oldest go first.
pub const MAX_KEPT: i64 = 1_000_000;
/// Rows that one call to [`Tx::trim_feed`] removes at most.
pub const MAX_TRIM: i64 = 5_000;
/// How long a reader sleeps without a wake-up: the safety net.
pub const POLL: Duration = Duration::from_secs(1);
/// How long a reader sleeps while rows wait for an older transaction to end: at first, and at most.
const HELD_POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A place in the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which history of the database.
    pub epoch: i64,
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

/// What a reader may see just now.
#[derive(sqlx::FromRow)]
struct Bounds {
    epoch: i64,
    horizon_xact: i64,
    horizon_seq: i64,
    /// SQLite: the last sequence number given; PostgreSQL: the first transaction id not to be read yet.
    head: i64,
    /// Rows are there that may not be read yet.
    held: bool,
}

impl Bounds {
    fn check(&self, engine: Engine, at: Position) -> Result<(), StoreError> {
        let beyond = match engine {
            Engine::Sqlite => at.seq > self.head,
            Engine::Postgres => at.xact >= self.head,
        };
        if at.epoch != self.epoch
            || (at.xact, at.seq) < (self.horizon_xact, self.horizon_seq)
            || beyond
        {
            return Err(StoreError::StartAgain);
        }
        Ok(())
    }
}

impl Tx {
    /// Notes that an object changed (or went). Part of the same transaction as the change.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn changed(
        &mut self,
        noun: &'static str,
        object: impl ToString,
        revision: i64,
        at: Timestamp,
    ) -> Result<(), StoreError> {
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

    /// Gives a new database its epoch.
    pub(crate) async fn begin_feed(&mut self) -> Result<(), StoreError> {
        let epoch = rand::random_range(1..i64::MAX);
        crate::exec!(
            self,
            "INSERT INTO feed_state (id, epoch) VALUES (1, $1) ON CONFLICT (id) DO NOTHING",
            epoch
        )?;
        Ok(())
    }

    /// Begins a new history: every position given out so far is void. A restore does this.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn new_feed_epoch(&mut self) -> Result<(), StoreError> {
        self.wrote_feed = true;
        let epoch = rand::random_range(1..i64::MAX);
        crate::exec!(self, "DELETE FROM change_feed")?;
        crate::exec!(
            self,
            "UPDATE feed_state SET epoch = $1, horizon_xact = 0, horizon_seq = 0",
            epoch
        )?;
        Ok(())
    }

    async fn feed_bounds(&mut self) -> Result<Bounds, StoreError> {
        match self.engine() {
            Engine::Sqlite => crate::one!(
                self,
                Bounds,
                "SELECT epoch, horizon_xact, horizon_seq, 0 AS held, \
                   COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'change_feed'), 0) AS head \
                 FROM feed_state"
            ),
            // The server's identity and its timeline (which rises with a promotion) are part of the epoch.
            Engine::Postgres => crate::one!(
                self,
                Bounds,
                "SELECT hashtextextended(epoch || '.' || (SELECT system_identifier FROM pg_control_system()) || '.' || \
                     substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 0) AS epoch, \
                   horizon_xact, horizon_seq, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS head, \
                   EXISTS (SELECT 1 FROM change_feed WHERE xact >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint) AS held \
                 FROM feed_state"
            ),
        }
    }

    /// The changes after a position, oldest first, at most [`MAX_ROWS`].
    ///
    /// # Errors
    /// [`StoreError::StartAgain`] when the feed does not reach back to the position; when a statement fails.
    pub async fn changes_after(&mut self, at: Position) -> Result<Vec<Change>, StoreError> {
        Ok(self.read_feed(at).await?.0)
    }

    /// How many changes of some objects (a JSON list of their names) this transaction sees, and the number of the
    /// last: another answer later says that one of them changed meanwhile.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn changes_of(&mut self, objects: &str) -> Result<(i64, i64), StoreError> {
        crate::one!(
            self,
            (i64, i64),
            "SELECT COUNT(*), COALESCE(MAX(seq), 0) FROM change_feed WHERE object IN @texts($1)",
            objects
        )
    }

    /// The changes, and whether more are held back.
    async fn read_feed(&mut self, at: Position) -> Result<(Vec<Change>, bool), StoreError> {
        let bounds = self.feed_bounds().await?;
        bounds.check(self.engine(), at)?;
        let rows = match self.engine() {
            Engine::Sqlite => crate::all!(
                self,
                Change,
                "SELECT seq, xact, noun, object, revision, at FROM change_feed WHERE seq > $1 ORDER BY seq LIMIT $2",
                at.seq,
                MAX_ROWS
            )?,
            // Never above the bounds that were read: they may be of an older snapshot, never of a newer one.
            Engine::Postgres => crate::all!(
                self,
                Change,
                "SELECT seq, xact, noun, object, revision, at FROM change_feed \
                 WHERE (xact, seq) > ($1, $2) AND xact < $3 ORDER BY xact, seq LIMIT $4",
                at.xact,
                at.seq,
                bounds.head,
                MAX_ROWS
            )?,
        };
        Ok((rows, bounds.held))
    }

    /// The position behind the last change that may be read now. Read it before a snapshot is taken
    /// in the same transaction, and nothing is missed.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn feed_position(&mut self) -> Result<Position, StoreError> {
        let bounds = self.feed_bounds().await?;
        let row = match self.engine() {
            Engine::Sqlite => crate::opt!(
                self,
                (i64, i64),
                "SELECT xact, seq FROM change_feed ORDER BY seq DESC LIMIT 1"
            )?,
            Engine::Postgres => crate::opt!(
                self,
                (i64, i64),
                "SELECT xact, seq FROM change_feed WHERE xact < $1 ORDER BY xact DESC, seq DESC LIMIT 1",
                bounds.head
            )?,
        };
        let (xact, seq) = row.unwrap_or((bounds.horizon_xact, bounds.horizon_seq));
        Ok(Position {
            epoch: bounds.epoch,
            xact,
            seq,
        })
    }

    /// Removes the oldest changes: those noted before a moment, and those beyond [`MAX_KEPT`]; at most
    /// [`MAX_TRIM`] at a time. Returns how many went.
    ///
    /// # Errors
    /// When a statement fails.
    pub async fn trim_feed(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        let bounds = self.feed_bounds().await?;
        // On SQLite `xact` is 0 and every row may go.
        let head = if self.engine() == Engine::Sqlite {
            1
        } else {
            bounds.head
        };
        let (newest,) = crate::one!(
            self,
            (i64,),
            "SELECT COALESCE(MAX(seq), 0) FROM change_feed"
        )?;
        let oldest = crate::all!(
            self,
            (i64, i64, i64),
            "SELECT xact, seq, at FROM change_feed WHERE xact < $1 ORDER BY xact, seq LIMIT $2",
            head,
            MAX_TRIM
        )?;
        let gone = oldest
            .iter()
            .take_while(|(_, seq, at)| *at < before.0 || *seq <= newest - MAX_KEPT)
            .last();
        let Some(&(xact, seq, _)) = gone else {
            return Ok(0);
        };
        crate::exec!(
            self,
            "UPDATE feed_state SET horizon_xact = $1, horizon_seq = $2",
            xact,
            seq
        )?;
        crate::exec!(
            self,
            "DELETE FROM change_feed WHERE (xact, seq) <= ($1, $2)",
            xact,
            seq
        )
    }
}

impl Change {
    /// Where the feed stands after this change.
    #[must_use]
    pub const fn position(&self, epoch: i64) -> Position {
        Position {
            epoch,
            xact: self.xact,
            seq: self.seq,
        }
    }
}

/// Reads the feed from a position on, one batch after the other.
#[derive(Debug)]
pub struct FeedReader {
    db: Db,
    at: Position,
    wakes: watch::Receiver<u64>,
}

impl FeedReader {
    /// The next changes, oldest first, at most [`MAX_ROWS`]; waits until there are some.
    ///
    /// Cancel-safe: yes; a change is passed over only once it was returned.
    ///
    /// # Errors
    /// [`StoreError::StartAgain`] when the feed no longer reaches back to where the reader stands: take
    /// a snapshot and a new reader. Otherwise when the database does not answer; calling again goes on.
    pub async fn next(&mut self) -> Result<Vec<Change>, StoreError> {
        let mut held_poll = HELD_POLL.0;
        loop {
            // Marked as seen before looking, so that a change committed meanwhile is not slept over.
            self.wakes.borrow_and_update();
            let (rows, held) = self.db.read().await?.read_feed(self.at).await?;
            if let Some(last) = rows.last() {
                self.at = last.position(self.at.epoch);
                return Ok(rows);
            }
            // Nobody notifies when the transaction ends that holds rows back.
            let wait = if held { held_poll } else { POLL };
            held_poll = (held_poll * 2).min(HELD_POLL.1);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                r = self.wakes.changed() => r.map_err(|_| StoreError::Closed)?,
            }
        }
    }

    /// Where the reader stands.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.at
    }
}

impl Db {
    /// Reads the feed from a position on, which [`Tx::feed_position`] gave.
    #[must_use]
    pub fn feed_reader(&self, from: Position) -> FeedReader {
        FeedReader {
            db: self.clone(),
            at: from,
            wakes: self.wakes(),
        }
    }
}
