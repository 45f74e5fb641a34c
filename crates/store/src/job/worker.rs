//! How a worker gets at its jobs, and each step of a job as a write of its own.

use std::time::Duration;

use futures::FutureExt as _;
use metal::Timestamp;
use tokio::sync::watch;

use super::{Attempt, Job, NewJob, POLL};
use crate::db::Db;
use crate::error::StoreError;
use crate::tx::Tx;

/// One worker's way to its jobs.
#[derive(Debug)]
pub struct Claims {
    db: Db,
    kinds: Vec<&'static str>,
    owner: String,
    lease: Duration,
    wakes: watch::Receiver<u64>,
}

impl Claims {
    /// Waits until a job of these kinds may be due. Returns too early rather than too late.
    ///
    /// Cancel-safe: yes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready(&mut self) -> Result<(), StoreError> {
        loop {
            // Marked as seen before looking, so that a job enqueued meanwhile is not slept over.
            self.wakes.borrow_and_update();
            let next = self.db.read().await?.next_job_in(&self.kinds).await?;
            let wait = next.unwrap_or(POLL).min(POLL);
            if wait.is_zero() {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                r = self.wakes.changed() => r.map_err(|_| StoreError::Closed)?,
            }
        }
    }

    /// Claims a job that is due, if there is one.
    ///
    /// Cancel-safe: no; a job claimed by a future that was dropped is free again when its lease ends.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(&self) -> Result<Option<Job>, StoreError> {
        self.db
            .claim_job(&self.kinds, &self.owner, self.lease)
            .await
    }
}

impl Db {
    /// A worker's way to the jobs of some kinds. The owner's name should say which process it is.
    #[must_use]
    pub fn claims(
        &self,
        kinds: &[&'static str],
        owner: impl Into<String>,
        lease: Duration,
    ) -> Claims {
        Claims {
            db: self.clone(),
            kinds: kinds.to_vec(),
            owner: owner.into(),
            lease,
            wakes: self.job_wakes(),
        }
    }

    /// [`Tx::enqueue_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn enqueue_job(&self, job: NewJob<'_>) -> Result<i64, StoreError> {
        let (kind, subject) = (job.kind.to_owned(), job.subject.to_owned());
        let NewJob {
            payload,
            run_at,
            deadline,
            max_failures,
            when_active,
            ..
        } = job;
        self.write(move |tx: &mut Tx| {
            let (kind, subject, payload) = (kind.clone(), subject.clone(), payload.clone());
            async move {
                let job = NewJob {
                    kind: &kind,
                    subject: &subject,
                    payload,
                    run_at,
                    deadline,
                    max_failures,
                    when_active,
                };
                tx.enqueue_job(&job).await
            }
            .boxed()
        })
        .await
    }

    /// [`Tx::claim_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn claim_job(
        &self,
        kinds: &[&'static str],
        owner: &str,
        lease: Duration,
    ) -> Result<Option<Job>, StoreError> {
        let (kinds, owner) = (kinds.to_vec(), owner.to_owned());
        self.write(move |tx: &mut Tx| {
            let (kinds, owner) = (kinds.clone(), owner.clone());
            async move { tx.claim_job(&kinds, &owner, lease).await }.boxed()
        })
        .await
    }

    /// [`Tx::renew_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn renew_job(&self, at: Attempt, lease: Duration) -> Result<(), StoreError> {
        self.write(move |tx: &mut Tx| tx.renew_job(at, lease).boxed())
            .await
    }

    /// [`Tx::save_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn save_job(
        &self,
        at: Attempt,
        payload: serde_json::Value,
    ) -> Result<(), StoreError> {
        self.write(move |tx: &mut Tx| {
            let payload = payload.clone();
            async move { tx.save_job(at, &payload).await }.boxed()
        })
        .await
    }

    /// [`Tx::wait_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn wait_job(
        &self,
        at: Attempt,
        run_at: Timestamp,
        reason: impl Into<String>,
    ) -> Result<(), StoreError> {
        let reason = reason.into();
        self.write(move |tx: &mut Tx| {
            let reason = reason.clone();
            async move { tx.wait_job(at, run_at, &reason).await }.boxed()
        })
        .await
    }

    /// [`Tx::retry_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn retry_job(
        &self,
        at: Attempt,
        run_at: Timestamp,
        reason: impl Into<String>,
    ) -> Result<(), StoreError> {
        let reason = reason.into();
        self.write(move |tx: &mut Tx| {
            let reason = reason.clone();
            async move { tx.retry_job(at, run_at, &reason).await }.boxed()
        })
        .await
    }

    /// [`Tx::finish_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn finish_job(&self, at: Attempt) -> Result<(), StoreError> {
        self.write(move |tx: &mut Tx| tx.finish_job(at).boxed())
            .await
    }

    /// [`Tx::fail_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn fail_job(&self, at: Attempt, reason: impl Into<String>) -> Result<(), StoreError> {
        let reason = reason.into();
        self.write(move |tx: &mut Tx| {
            let reason = reason.clone();
            async move { tx.fail_job(at, &reason).await }.boxed()
        })
        .await
    }

    /// [`Tx::cancel_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn cancel_job(
        &self,
        kind: &str,
        subject: &str,
        reason: impl Into<String>,
    ) -> Result<Option<i64>, StoreError> {
        let (kind, subject, reason) = (kind.to_owned(), subject.to_owned(), reason.into());
        self.write(move |tx: &mut Tx| {
            let (kind, subject, reason) = (kind.clone(), subject.clone(), reason.clone());
            async move { tx.cancel_job(&kind, &subject, &reason).await }.boxed()
        })
        .await
    }

    /// [`Tx::poke_job`] as a write of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn poke_job(&self, kind: &str, subject: &str) -> Result<bool, StoreError> {
        let (kind, subject) = (kind.to_owned(), subject.to_owned());
        self.write(move |tx: &mut Tx| {
            let (kind, subject) = (kind.clone(), subject.clone());
            async move { tx.poke_job(&kind, &subject).await }.boxed()
        })
        .await
    }
}
