//! The racks that are connected to this region now, and the commands that wait for their answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::message::{Command, CommandResult, Outcome, ToRack};
use link::snapshot::Position;
use metal::SystemId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Commands that may wait for their answers.
pub const MAX_PENDING: usize = 10_000;

/// Connected racks and open commands.
#[derive(Default)]
pub struct Hub {
    inner: Mutex<Inner>,
    /// Wakes when a rack connects: work that waited for one looks again.
    pub arrivals: tokio::sync::Notify,
}

#[derive(Default)]
struct Inner {
    racks: HashMap<SystemId, Connected>,
    pending: HashMap<(i64, i64), oneshot::Sender<Outcome>>,
    next_connection: u64,
}

struct Connected {
    connection: u64,
    to: mpsc::Sender<ToRack>,
    at: Option<Position>,
    /// Cancelled when this connection has ended, or the rack has made a newer one.
    gone: CancellationToken,
}

/// Why a command could not be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No rack is connected.
    #[error("no rack controller is connected")]
    NoRack,
    /// The rack went away before it answered.
    #[error("the rack controller went away before it answered")]
    Lost,
    /// It did not answer in time.
    #[error("the rack controller did not answer within {0:?}")]
    Timeout(Duration),
    /// Too much is waiting.
    #[error("too many commands are waiting for their answer")]
    Full,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A rack has subscribed; the number identifies this connection.
    pub(super) fn connect(&self, rack: SystemId, to: mpsc::Sender<ToRack>) -> u64 {
        let mut inner = self.lock();
        inner.next_connection += 1;
        let connection = inner.next_connection;
        let new = Connected {
            connection,
            to,
            at: None,
            gone: CancellationToken::new(),
        };
        if let Some(old) = inner.racks.insert(rack, new) {
            old.gone.cancel();
        }
        drop(inner);
        self.arrivals.notify_waiters();
        connection
    }

    /// A connection ended; a newer one of the same rack stays.
    pub(super) fn disconnect(&self, rack: &SystemId, connection: u64) {
        let mut inner = self.lock();
        if inner
            .racks
            .get(rack)
            .is_some_and(|c| c.connection == connection)
            && let Some(ended) = inner.racks.remove(rack)
        {
            ended.gone.cancel();
        }
    }

    /// How far in the change feed a rack was told.
    pub(super) fn told(&self, rack: &SystemId, connection: u64, at: Position) {
        if let Some(c) = self.lock().racks.get_mut(rack)
            && c.connection == connection
        {
            c.at = Some(at);
        }
    }

    /// The racks that are connected, by system id.
    #[must_use]
    pub fn connected(&self) -> Vec<SystemId> {
        let mut all: Vec<SystemId> = self.lock().racks.keys().cloned().collect();
        all.sort();
        all
    }

    /// Whether this rack is connected here.
    #[must_use]
    pub fn is_connected(&self, rack: &SystemId) -> bool {
        self.lock().racks.contains_key(rack)
    }

    /// Gives a command to a rack and waits for the outcome, as long as the rack stays connected: whether one
    /// that went away carries it out is not known.
    ///
    /// Cancel-safe: yes; the answer is then dropped.
    ///
    /// # Errors
    /// [`CommandError`] when there is no answer.
    pub async fn command(
        &self,
        rack: &SystemId,
        command: Command,
        limit: Duration,
    ) -> Result<Outcome, CommandError> {
        let key = (command.id, command.attempt);
        let (answer, answered) = oneshot::channel();
        let (to, gone) = {
            let mut inner = self.lock();
            let connected = inner.racks.get(rack);
            let (to, gone) = connected
                .map(|c| (c.to.clone(), c.gone.clone()))
                .ok_or(CommandError::NoRack)?;
            if inner.pending.len() >= MAX_PENDING {
                return Err(CommandError::Full);
            }
            inner.pending.insert(key, answer);
            (to, gone)
        };
        let _forget = Forget { hub: self, key };
        to.send(ToRack::Command(command))
            .await
            .map_err(|_| CommandError::Lost)?;
        tokio::select! {
            biased;
            outcome = answered => outcome.map_err(|_| CommandError::Lost),
            () = gone.cancelled() => Err(CommandError::Lost),
            () = tokio::time::sleep(limit) => Err(CommandError::Timeout(limit)),
        }
    }

    /// A rack answered. An answer to a command that nobody waits for is dropped: its job's lease ran
    /// out, and the next attempt has another number.
    pub(super) fn complete(&self, result: CommandResult) {
        if let Some(waiting) = self.lock().pending.remove(&(result.id, result.attempt)) {
            waiting.send(result.outcome).ok();
        } else {
            tracing::debug!(
                job = result.id,
                attempt = result.attempt,
                "an answer that nobody waits for"
            );
        }
    }
}

struct Forget<'a> {
    hub: &'a Hub,
    key: (i64, i64),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.hub.lock().pending.remove(&self.key);
    }
}
