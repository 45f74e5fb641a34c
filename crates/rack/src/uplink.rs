//! The link to the region: presents the rack, keeps the snapshot current, carries out commands.
//!
//! [`Uplink::run`] never gives up. While the region is away the services go on with the snapshot they have;
//! commands that were begun go on, and their results wait.

mod commands;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use link::message::{Hello, Interface, ToRack};
use link::port::{LinkError, Region};
use link::snapshot::{Delta, Position, Snapshot};
use metal::SystemId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::commands::{Commands, DhcpProbe, MAX_REMEMBERED_COMMANDS};
use crate::rack::write_atomically;
use crate::shared::Shared;
use crate::spool::Spool;

/// First wait after the link was lost; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest wait between attempts.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// Time for the region's answer to a greeting or a subscription.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The snapshot is written to disk at most this often.
const PERSIST_EVERY: Duration = Duration::from_secs(1);
/// Name of the link in the list of services.
const SERVICE: &str = "rackd";

/// File with the snapshot, in the data directory.
pub const SNAPSHOT_FILE: &str = "snapshot.json";
/// File with the rack's system id, in the data directory.
pub const IDENTITY_FILE: &str = "rack-id";

/// The link to the region.
pub(crate) struct Uplink {
    pub region: Arc<dyn Region>,
    pub shared: Shared,
    pub spool: Spool,
    pub commands: Commands,
    pub data_dir: PathBuf,
    pub hostname: String,
    pub interfaces: Box<dyn Fn() -> Vec<Interface> + Send + Sync>,
    pub cancel: CancellationToken,
    /// Whether the snapshot came from a region, in this run or an earlier one.
    pub have_snapshot: bool,
}

/// Reads what an earlier run kept: the snapshot and the rack's system id. A file that cannot be read is
/// as good as none: the region has it all.
#[must_use]
pub(crate) fn load(data_dir: &std::path::Path) -> (Option<Snapshot>, Option<SystemId>) {
    let path = data_dir.join(SNAPSHOT_FILE);
    let snapshot = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the kept snapshot cannot be read"))
            .ok(),
        Err(_) => None,
    };
    let id = std::fs::read_to_string(data_dir.join(IDENTITY_FILE)).ok();
    let id = id
        .map(|s| s.trim().to_owned())
        .filter(|s| !s.is_empty())
        .map(SystemId);
    (snapshot, id)
}

impl Uplink {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self) {
        let mut wait = FIRST_RETRY;
        self.shared
            .set_service(SERVICE, "degraded", "not connected to the region yet");
        loop {
            let cancel = self.cancel.clone();
            let ended = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.session(&mut wait) => ended,
            };
            self.spool.link_down();
            let info = match &ended {
                Ok(()) => "the link to the region was closed".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::info!(info, "the link to the region is down");
            self.shared.set_service(SERVICE, "degraded", info);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(MAX_RETRY),
            }
        }
    }

    /// One connection, until it is lost.
    async fn session(&mut self, wait: &mut Duration) -> Result<(), LinkError> {
        let position = self.position();
        let hello = Hello {
            version: link::VERSION,
            rack: self.shared.rack(),
            hostname: self.hostname.clone(),
            program: env!("CARGO_PKG_VERSION").into(),
            interfaces: (self.interfaces)(),
            services: self.shared.services(),
            position,
        };
        let welcome = answered(self.region.hello(hello)).await?;
        if self.shared.rack().as_ref() != Some(&welcome.rack) {
            let path = self.data_dir.join(IDENTITY_FILE);
            if let Err(error) = write_atomically(&path, welcome.rack.as_str().as_bytes()) {
                tracing::error!(%error, "the rack's system id cannot be kept; without the region a restart will not know it");
            }
            self.shared.set_rack(welcome.rack.clone());
        }
        let rack = welcome.rack;
        let mut messages = answered(self.region.subscribe(&rack, position)).await?;
        if let Err(error) = self.spool.link_up(rack.clone(), welcome.last_batch) {
            tracing::error!(%error, "the spool cannot be read");
        }
        self.commands.link_up(rack);
        self.shared.set_service(SERVICE, "running", "");
        tracing::info!("connected to the region");
        while let Some(message) = messages.recv().await {
            *wait = FIRST_RETRY;
            if self.take(message, &mut messages).is_err() {
                // The feed goes on from elsewhere: ask for everything.
                self.have_snapshot = false;
                return Ok(());
            }
        }
        Ok(())
    }

    fn position(&self) -> Option<Position> {
        self.have_snapshot.then(|| self.shared.snapshot().position)
    }

    /// Takes a message and those that wait behind it; the services see all their changes at once.
    fn take(
        &mut self,
        first: ToRack,
        more: &mut mpsc::Receiver<ToRack>,
    ) -> Result<(), link::snapshot::Gap> {
        let mut changed: Option<Snapshot> = None;
        let mut next = Some(first);
        let mut gap = None;
        while let Some(message) = next {
            match message {
                ToRack::Snapshot(snapshot) => {
                    changed = Some(*snapshot);
                    self.have_snapshot = true;
                }
                ToRack::Delta(delta) => {
                    if let Err(error) = self.apply(&mut changed, delta) {
                        gap = Some(error);
                        break;
                    }
                }
                ToRack::Command(command) => self.commands.execute(command),
            }
            next = more.try_recv().ok();
        }
        if let Some(snapshot) = changed {
            self.shared.set_snapshot(snapshot);
        }
        match gap {
            Some(gap) => {
                tracing::warn!(%gap, "a change does not fit the snapshot");
                Err(gap)
            }
            None => Ok(()),
        }
    }

    fn apply(
        &self,
        changed: &mut Option<Snapshot>,
        delta: Delta,
    ) -> Result<(), link::snapshot::Gap> {
        let snapshot = changed.get_or_insert_with(|| (*self.shared.snapshot()).clone());
        if delta.to == snapshot.position && delta.from != snapshot.position {
            return Ok(()); // seen already
        }
        snapshot.apply(delta)
    }
}

async fn answered<T>(call: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(LinkError::Away(format!(
            "no answer within {ANSWER_TIMEOUT:?}"
        ))),
    }
}

/// Keeps the snapshot on disk, until cancelled; writes the last one then.
pub(crate) async fn persist(shared: Shared, data_dir: PathBuf, cancel: CancellationToken) {
    let mut changes = shared.changes();
    let path = data_dir.join(SNAPSHOT_FILE);
    let mut kept = shared.snapshot();
    loop {
        let stopping = tokio::select! {
            changed = changes.changed() => changed.is_err(),
            () = cancel.cancelled() => true,
        };
        let snapshot = shared.snapshot();
        if !Arc::ptr_eq(&snapshot, &kept) {
            let (to, written) = (path.clone(), Arc::clone(&snapshot));
            let write = move || {
                let bytes = serde_json::to_vec(&*written).map_err(std::io::Error::other)?;
                write_atomically(&to, &bytes)
            };
            match tokio::task::spawn_blocking(write)
                .await
                .map_err(std::io::Error::other)
                .and_then(|w| w)
            {
                Ok(()) => kept = snapshot,
                Err(error) => tracing::error!(%error, "the snapshot cannot be kept on disk"),
            }
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(PERSIST_EVERY) => {}
            () = cancel.cancelled() => {}
        }
    }
}

/// The tasks that commands run in, for [`Commands::new`].
pub(crate) type Tasks = TaskTracker;
