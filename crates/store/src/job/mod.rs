//! Durable jobs: long work that outlives the process that began it.
//!
//! A job is *waiting* until it is due, then *running* under a lease of one owner, and in the end *done*,
//! *failed* or *cancelled*. Who claims it gets a new attempt number; whatever is done under an older
//! number is refused with [`StoreError::Fenced`], so an owner that was thought dead cannot do harm when it
//! comes back. A running job whose lease ran out may be claimed by anyone.
//!
//! An owner looks at the world, does one step, and either finishes the job or gives it back with
//! [`Tx::wait_job`]: when to look again, and a reason that a person can act on. A deadline or too many
//! failures do not end a job behind its owner's back: it is handed out once more with
//! [`Job::overrun`] set, so that the owner says what that means for the machine.

mod worker;

use std::time::Duration;

use metal::Timestamp;
use metal::timeline::MAX_TEXT;

pub use worker::Claims;

use crate::error::StoreError;
use crate::tx::Tx;

/// Largest payload, in bytes of JSON.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Longest time without looking for due jobs: the safety net under the wake-ups.
pub const POLL: Duration = Duration::from_secs(5);
/// Ended jobs that one call to [`Tx::prune_jobs`] removes at most.
pub const MAX_PRUNE: i64 = 1_000;

/// What to do when the same work about the same subject is already waiting or running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenActive {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Leave it, but let it look again at once (see [`Tx::poke_job`]).
    Poke,
    /// Cancel it and start afresh.
    Replace,
}

/// A job to be done.
#[derive(Clone, Debug, Default)]
pub struct NewJob<'a> {
    /// What kind of work: `deploy`, `image-sync`, …
    pub kind: &'a str,
    /// What it is about, for example a system id. One job per kind and subject is active at a time.
    pub subject: &'a str,
    /// What the worker needs to know. No secrets.
    pub payload: serde_json::Value,
    /// Not before; none is now.
    pub run_at: Option<Timestamp>,
    /// When it must be over; none is never.
    pub deadline: Option<Timestamp>,
    /// Failures after which it is handed out with [`Overrun::Failures`]; none is no limit.
    pub max_failures: Option<i64>,
    /// What to do when there is one already.
    pub when_active: WhenActive,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Until it is due.
    Waiting,
    /// Somebody's.
    Running,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// No longer wanted.
    Cancelled,
}

impl State {
    /// The word kept in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn parse(word: &str) -> Result<Self, StoreError> {
        [
            Self::Waiting,
            Self::Running,
            Self::Done,
            Self::Failed,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|s| s.as_str() == word)
        .ok_or_else(|| StoreError::Corrupt(format!("job state {word:?}")))
    }
}

/// A limit that a job has passed. Its owner must end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// The deadline passed.
    Deadline,
    /// It failed too often.
    Failures,
}

/// One attempt at a job: the fence. A write or a command that belongs to a job carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The job.
    pub id: i64,
    /// The number of the attempt.
    pub attempt: i64,
}

/// A job as it stands in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What kind of work.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// What the worker needs to know.
    pub payload: serde_json::Value,
    /// Where it stands.
    pub state: State,
    /// When it is due.
    pub run_at: Timestamp,
    /// Who has it.
    pub owner: Option<String>,
    /// Until when.
    pub lease_until: Option<Timestamp>,
    /// How often it was claimed.
    pub attempt: i64,
    /// How often its owner died or it had to be tried again.
    pub failures: i64,
    /// When it must be over.
    pub deadline: Option<Timestamp>,
    /// A limit that it has passed, as of when it was read.
    pub overrun: Option<Overrun>,
    /// What it waits for, or how it ended, in words.
    pub reason: String,
    /// When it was enqueued.
    pub created: Timestamp,
    /// When it last moved.
    pub updated: Timestamp,
}

impl Job {
    /// The fence of this attempt.
    #[must_use]
    pub const fn fence(&self) -> Attempt {
        Attempt {
            id: self.id,
            attempt: self.attempt,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    kind: String,
    subject: String,
    payload: String,
    state: String,
    run_at: i64,
    lease_owner: Option<String>,
    lease_until: Option<i64>,
    attempt: i64,
    failures: i64,
    max_failures: Option<i64>,
    deadline: Option<i64>,
    reason: String,
    created: i64,
    updated: i64,
}

impl Row {
    fn job(self, now: Timestamp) -> Result<Job, StoreError> {
        let overrun = if self.deadline.is_some_and(|d| d <= now.0) {
            Some(Overrun::Deadline)
        } else if self.max_failures.is_some_and(|m| self.failures >= m) {
            Some(Overrun::Failures)
        } else {
            None
        };
        Ok(Job {
            id: self.id,
            payload: serde_json::from_str(&self.payload)
                .map_err(|_| StoreError::Corrupt(format!("the payload of job {}", self.id)))?,
            state: State::parse(&self.state)?,
            kind: self.kind,
            subject: self.subject,
            run_at: Timestamp(self.run_at),
            owner: self.lease_owner,
            lease_until: self.lease_until.map(Timestamp),
            attempt: self.attempt,
            failures: self.failures,
            deadline: self.deadline.map(Timestamp),
            overrun,
            reason: self.reason,
            created: Timestamp(self.created),
            updated: Timestamp(self.updated),
        })
    }
}

fn payload_text(payload: &serde_json::Value) -> Result<String, StoreError> {
    let text = payload.to_string();
    if text.len() > MAX_PAYLOAD {
        return Err(StoreError::TooLarge {
            what: "the payload of a job",
            bytes: text.len(),
            limit: MAX_PAYLOAD,
        });
    }
    Ok(text)
}

/// Cuts a text to [`MAX_TEXT`] bytes, at a character.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

fn words(kinds: &[&str]) -> String {
    serde_json::json!(kinds).to_string()
}

impl Tx {
    /// Enqueues a job and returns its number: that of the one already active for the same kind and
    /// subject, unless it is to be replaced.
    ///
    /// # Errors
    /// When a statement fails or the payload is too large.
    pub async fn enqueue_job(&mut self, job: &NewJob<'_>) -> Result<i64, StoreError> {
        let payload = payload_text(&job.payload)?;
        let now = self.now().await?;
        if job.when_active == WhenActive::Replace {
            self.cancel_job(job.kind, job.subject, "replaced by a newer job")
                .await?;
        }
        let due = job.run_at.unwrap_or(now);
        let due = job.deadline.map_or(due, |d| due.min(d));
        let fresh = crate::opt!(
            self,
            (i64,),
            "INSERT INTO job (kind, subject, payload, state, run_at, deadline, max_failures, created, updated) \
             VALUES ($1, $2, $3, 'waiting', $4, $5, $6, $7, $7) \
             ON CONFLICT (kind, subject) WHERE state IN ('waiting', 'running') DO NOTHING RETURNING id",
            job.kind,
            job.subject,
            payload,
            due.0,
            job.deadline.map(|t| t.0),
            job.max_failures,
            now.0
        )?;
        if let Some((id,)) = fresh {
            self.woke_jobs = true;
            return Ok(id);
        }
        if job.when_active == WhenActive::Poke {
            self.poke_job(job.kind, job.subject).await?;
        }
        let (id,) = crate::one!(
            self,
            (i64,),
            "SELECT id FROM job WHERE kind = $1 AND subject = $2 AND state IN ('waiting', 'running')",
            job.kind,
            job.subject
        )?;
        Ok(id)
    }

    /// Claims the job of these kinds that has been due for longest, or whose owner let its lease run out.
    /// The caller is its owner for the length of the lease.
    ///
    /// # Errors
    /// When a statement fails.
    pub async fn claim_job(
        &mut self,
        kinds: &[&str],
        owner: &str,
        lease: Duration,
    ) -> Result<Option<Job>, StoreError> {
        let now = self.now().await?;
        let row = crate::opt!(
            self,
            Row,
            "UPDATE job SET state = 'running', attempt = attempt + 1, poked = FALSE, lease_owner = $1, lease_until = $2, \
               updated = $3, failures = failures + CASE WHEN state = 'running' THEN 1 ELSE 0 END \
             WHERE id = (SELECT id FROM job WHERE kind IN @texts($4) \
               AND ((state = 'waiting' AND run_at <= $3) OR (state = 'running' AND lease_until < $3)) \
               ORDER BY run_at, id LIMIT 1 @skip_locked) \
             RETURNING id, kind, subject, payload, state, run_at, lease_owner, lease_until, attempt, failures, \
               max_failures, deadline, reason, created, updated",
            owner,
            now.plus(lease).0,
            now.0,
            words(kinds)
        )?;
        row.map(|r| r.job(now)).transpose()
    }

    /// Keeps a job for another lease.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the attempt is no longer current.
    pub async fn renew_job(&mut self, at: Attempt, lease: Duration) -> Result<(), StoreError> {
        let now = self.now().await?;
        let rows = crate::exec!(
            self,
            "UPDATE job SET lease_until = $3, updated = $4 WHERE id = $1 AND attempt = $2 AND state = 'running'",
            at.id,
            at.attempt,
            now.plus(lease).0,
            now.0
        )?;
        held(rows, at)
    }

    /// Ends the leases of all owners with this part in their name, so that their jobs can be claimed now rather than
    /// when the leases run out, and returns how many there were. For owners that are known to have ended.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn end_leases(&mut self, kind: &str, part: &str) -> Result<u64, StoreError> {
        // A name with one of the two signs of LIKE would mean other names as well.
        debug_assert!(!part.contains(['%', '_']), "{part:?} is a pattern");
        let rows = crate::exec!(
            self,
            "UPDATE job SET lease_until = 0 WHERE state = 'running' AND kind = $1 AND lease_owner LIKE $2",
            kind,
            format!("%{part}%")
        )?;
        self.woke_jobs |= rows > 0;
        Ok(rows)
    }

    /// Makes the rest of this transaction depend on the attempt being current: nobody takes the job over
    /// before it commits. To be called before anything else that a job writes.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the attempt is no longer current.
    pub async fn hold_job(&mut self, at: Attempt) -> Result<(), StoreError> {
        let now = self.now().await?;
        let rows = crate::exec!(
            self,
            "UPDATE job SET updated = $3 WHERE id = $1 AND attempt = $2 AND state = 'running'",
            at.id,
            at.attempt,
            now.0
        )?;
        held(rows, at)
    }

    /// Keeps what the job has learned, for the next attempt.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the attempt is no longer current; when the payload is too large.
    pub async fn save_job(
        &mut self,
        at: Attempt,
        payload: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let payload = payload_text(payload)?;
        let now = self.now().await?;
        let rows = crate::exec!(
            self,
            "UPDATE job SET payload = $3, updated = $4 WHERE id = $1 AND attempt = $2 AND state = 'running'",
            at.id,
            at.attempt,
            payload,
            now.0
        )?;
        held(rows, at)
    }

    /// Gives the job back until `run_at`, or until it is poked or its deadline comes, with what it waits
    /// for in words that a person can act on.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the attempt is no longer current.
    pub async fn wait_job(
        &mut self,
        at: Attempt,
        run_at: Timestamp,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.give_back(at, run_at, reason, 0).await
    }

    /// Gives the job back as [`Tx::wait_job`] does and counts a failure.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the attempt is no longer current.
    pub async fn retry_job(
        &mut self,
        at: Attempt,
        run_at: Timestamp,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.give_back(at, run_at, reason, 1).await
    }

    async fn give_back(
        &mut self,
        at: Attempt,
        run_at: Timestamp,
        reason: &str,
        failures: i64,
    ) -> Result<(), StoreError> {
        let now = self.now().await?;
        let rows = crate::exec!(
            self,
            "UPDATE job SET state = 'waiting', lease_owner = NULL, lease_until = NULL, reason = $4, updated = $5, \
               failures = failures + $6, poked = FALSE, \
               run_at = CASE WHEN poked THEN $5 WHEN deadline < $3 THEN deadline ELSE $3 END \
             WHERE id = $1 AND attempt = $2 AND state = 'running'",
            at.id,
            at.attempt,
            run_at.0,
            cut(reason),
            now.0,
            failures
        )?;
        // Whoever sleeps until the next due job must hear of this one.
        self.woke_jobs = true;
        held(rows, at)
    }

    /// Ends the job well.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the attempt is no longer current.
    pub async fn finish_job(&mut self, at: Attempt) -> Result<(), StoreError> {
        self.end_job(at, State::Done, "").await
    }

    /// Ends the job badly, with the reason in words.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the attempt is no longer current.
    pub async fn fail_job(&mut self, at: Attempt, reason: &str) -> Result<(), StoreError> {
        self.end_job(at, State::Failed, reason).await
    }

    async fn end_job(&mut self, at: Attempt, end: State, reason: &str) -> Result<(), StoreError> {
        let now = self.now().await?;
        let rows = crate::exec!(
            self,
            "UPDATE job SET state = $3, lease_owner = NULL, lease_until = NULL, poked = FALSE, reason = $4, updated = $5 \
             WHERE id = $1 AND attempt = $2 AND state = 'running'",
            at.id,
            at.attempt,
            end.as_str(),
            cut(reason),
            now.0
        )?;
        held(rows, at)
    }

    /// Cancels the active job of this kind about this subject, if there is one, and returns its number. Its
    /// owner learns of it at its next word to the database.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn cancel_job(
        &mut self,
        kind: &str,
        subject: &str,
        reason: &str,
    ) -> Result<Option<i64>, StoreError> {
        let now = self.now().await?;
        let row = crate::opt!(
            self,
            (i64,),
            "UPDATE job SET state = 'cancelled', lease_owner = NULL, lease_until = NULL, poked = FALSE, reason = $3, updated = $4 \
             WHERE kind = $1 AND subject = $2 AND state IN ('waiting', 'running') RETURNING id",
            kind,
            subject,
            cut(reason),
            now.0
        )?;
        Ok(row.map(|r| r.0))
    }

    /// Something happened that the job may wait for: it becomes due now, or, when it is running, as soon
    /// as it is given back. Says whether there is an active job.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn poke_job(&mut self, kind: &str, subject: &str) -> Result<bool, StoreError> {
        let now = self.now().await?;
        let rows = crate::exec!(
            self,
            "UPDATE job SET poked = (state = 'running'), \
               run_at = CASE WHEN state = 'waiting' AND run_at > $3 THEN $3 ELSE run_at END \
             WHERE kind = $1 AND subject = $2 AND state IN ('waiting', 'running')",
            kind,
            subject,
            now.0
        )?;
        self.woke_jobs |= rows > 0;
        Ok(rows > 0)
    }

    /// One job.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn job(&mut self, id: i64) -> Result<Option<Job>, StoreError> {
        let now = self.now().await?;
        let row = crate::opt!(
            self,
            Row,
            "SELECT id, kind, subject, payload, state, run_at, lease_owner, lease_until, attempt, failures, \
               max_failures, deadline, reason, created, updated FROM job WHERE id = $1",
            id
        )?;
        row.map(|r| r.job(now)).transpose()
    }

    /// The active jobs about a subject, oldest first (there is at most one of each kind).
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn active_jobs(&mut self, subject: &str) -> Result<Vec<Job>, StoreError> {
        let now = self.now().await?;
        crate::all!(
            self,
            Row,
            "SELECT id, kind, subject, payload, state, run_at, lease_owner, lease_until, attempt, failures, \
               max_failures, deadline, reason, created, updated FROM job \
             WHERE subject = $1 AND state IN ('waiting', 'running') ORDER BY id",
            subject
        )?
        .into_iter()
        .map(|r| r.job(now))
        .collect()
    }

    /// How long until a job of these kinds can be claimed; none when there is no active one.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn next_job_in(&mut self, kinds: &[&str]) -> Result<Option<Duration>, StoreError> {
        let now = self.now().await?;
        let (at,) = crate::one!(
            self,
            (Option<i64>,),
            "SELECT MIN(CASE WHEN state = 'waiting' THEN run_at ELSE lease_until + 1 END) FROM job \
             WHERE state IN ('waiting', 'running') AND kind IN @texts($1)",
            words(kinds)
        )?;
        Ok(at.map(|t| Timestamp(t).since(now)))
    }

    /// Removes jobs that ended before a moment, at most [`MAX_PRUNE`] at a time, and returns how many.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn prune_jobs(&mut self, ended_before: Timestamp) -> Result<u64, StoreError> {
        crate::exec!(
            self,
            "DELETE FROM job WHERE id IN (SELECT id FROM job WHERE state IN ('done', 'failed', 'cancelled') \
               AND updated < $1 ORDER BY id LIMIT $2)",
            ended_before.0,
            MAX_PRUNE
        )
    }
}

const fn held(rows: u64, at: Attempt) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Fenced {
            id: at.id,
            attempt: at.attempt,
        })
    }
}
