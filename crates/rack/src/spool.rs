//! Reports on their way to the region: on disk from when they are made until the region has stored them.
//!
//! [`Spool::start`] runs two tasks. One takes reports from [`Shared`], folds timeline entries, and writes
//! batches into the [`journal`]; leases and requests that a machine was answered for are forced to disk
//! before anything counts as stored. The other hands the batches to the region in their order and removes
//! what the region has stored. A power cut can lose up to [`FLUSH_AFTER`] of timeline, nothing else.

pub mod journal;
pub mod kept;
mod seal;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::message::{Batch, Report};
use link::port::{LinkError, Region};
use metal::timeline::{Entry, What};
use metal::{MacAddr, SystemId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::journal::{Durability, Journal, Waiting};
use self::kept::{AllKept, Kept};
use crate::files::now;
use crate::shared::{Durable, Shared};

/// Longest time that a timeline entry waits for others to travel with.
pub const FLUSH_AFTER: Duration = Duration::from_millis(250);
/// The same while the region is away: fewer, larger batches.
pub const FLUSH_AFTER_AWAY: Duration = Duration::from_secs(2);
/// Reports in one batch.
pub const MAX_BATCH_REPORTS: usize = 512;
/// Bytes of requests in one batch, beyond which it is closed.
pub const MAX_BATCH_BYTES: usize = 4 << 20;
/// Timeline entries that wait for a batch.
pub const MAX_BATCH_ENTRIES: usize = 2_048;
/// Entries that a new one is compared with for folding.
const FOLD_WINDOW: usize = 64;
/// Leases kept in memory while the disk fails.
pub const MAX_KEPT: usize = 65_536;
/// First wait after the region could not be reached; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest wait between attempts.
const MAX_RETRY: Duration = Duration::from_secs(10);
/// Time for the region to store a batch.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Default limit of the spool on disk in bytes. Beyond it timeline entries and requests are refused;
/// leases are written all the same.
pub const DEFAULT_LIMIT: u64 = 256 << 20;

/// The spool. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Mutex<Journal>,
    /// Batches written so far: wakes the sender.
    written: watch::Sender<u64>,
    /// The link as it is: the rack's id while it is up.
    link: watch::Sender<Option<SystemId>>,
    /// Deliveries on disk.
    kept: Mutex<AllKept>,
    /// Changes whenever some of them were taken by the region, and with the link.
    delivered: watch::Sender<()>,
    limit: u64,
}

impl Spool {
    /// Opens the spool in `dir`, which is created, and finds what an earlier run left there.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(dir: PathBuf, limit: u64) -> io::Result<Self> {
        let (journal, left) = Journal::open(dir)?;
        let mut kept = AllKept::default();
        for one in left.kept {
            kept.add(one);
        }
        if left.batches > 0 {
            tracing::info!(
                batches = left.batches,
                "reports of an earlier run wait for the region"
            );
        }
        let inner = Inner {
            journal: Mutex::new(journal),
            written: watch::channel(left.batches).0,
            link: watch::channel(None).0,
            kept: Mutex::new(kept),
            delivered: watch::channel(()).0,
            limit,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Starts taking reports from `shared` and handing them to the region. The tasks end with `cancel`,
    /// after what was taken is on disk.
    pub fn start(
        &self,
        shared: &Shared,
        reports: mpsc::Receiver<Report>,
        region: Arc<dyn Region>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) {
        let durable = shared
            .durable_reports()
            .unwrap_or_else(|| mpsc::channel(1).1);
        tasks.spawn(
            self.clone()
                .take(shared.clone(), reports, durable, cancel.clone()),
        );
        tasks.spawn(self.clone().send(region, cancel.clone()));
    }

    /// The link is up: the region knows this rack as `rack` and has stored its batches up to `last_batch`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn link_up(&self, rack: SystemId, last_batch: u64) -> io::Result<()> {
        let gone = self.journal().welcome(last_batch)?;
        self.forget(&gone);
        self.inner.link.send_replace(Some(rack));
        Ok(())
    }

    /// The link is down.
    pub fn link_down(&self) {
        self.inner.link.send_replace(None);
        self.inner.delivered.send_replace(());
    }

    /// Whether a delivery of any machine is still waiting for the region.
    #[must_use]
    pub fn keeps_any(&self) -> bool {
        !self.kept().is_empty()
    }

    /// Whether a delivery of this machine is still waiting for the region. It is known by the address that it
    /// speaks from, and by its hardware addresses.
    #[must_use]
    pub fn waiting_from(&self, client: IpAddr, macs: &[MacAddr]) -> bool {
        self.kept().is_from(client, macs)
    }

    /// Waits until no delivery of this machine waits for the region, or the link is down, or the limit is
    /// reached. Cancel-safe: yes.
    pub async fn delivered_from(&self, client: IpAddr, macs: &[MacAddr], limit: Duration) {
        let mut delivered = self.inner.delivered.subscribe();
        let done = async {
            while self.waiting_from(client, macs) && self.inner.link.borrow().is_some() {
                if delivered.changed().await.is_err() {
                    return;
                }
            }
        };
        // Late is no fault: the delivery then queues behind the others.
        tokio::time::timeout(limit, done).await.ok();
    }

    /// Whether one of these hardware addresses said that its machine boots from its disk now, and the region
    /// does not know yet.
    #[must_use]
    pub fn boots_disk(&self, macs: &[MacAddr]) -> bool {
        let (now, kept) = (Instant::now(), self.kept());
        macs.iter().any(|mac| kept.boots_disk(*mac, now))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, AllKept> {
        self.inner
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Batches that wait for the region.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.journal().waiting()
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.inner
            .journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, gone: &[Kept]) {
        {
            let (now, mut kept) = (Instant::now(), self.kept());
            for one in gone {
                kept.remove(*one, now);
            }
        }
        self.inner.delivered.send_replace(());
    }

    async fn take(
        self,
        shared: Shared,
        mut reports: mpsc::Receiver<Report>,
        mut durable: mpsc::Receiver<Durable>,
        cancel: CancellationToken,
    ) {
        let mut pending = Pending::default();
        let mut durable_open = true;
        loop {
            let flush_at = pending.since.map(|s| {
                s + if self.inner.link.borrow().is_some() {
                    FLUSH_AFTER
                } else {
                    FLUSH_AFTER_AWAY
                }
            });
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                d = durable.recv(), if durable_open => match d {
                    Some(d) => self.admit(&mut pending, d),
                    None => durable_open = false,
                },
                r = reports.recv() => match r {
                    Some(r) => pending.add(r, self.room()),
                    None => break,
                },
                () = tokio::time::sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => {
                    pending.due = true;
                }
            }
            // Whatever waits already travels along, and shares one write.
            while !pending.full()
                && let Ok(d) = durable.try_recv()
            {
                self.admit(&mut pending, d);
            }
            while !pending.full()
                && let Ok(r) = reports.try_recv()
            {
                pending.add(r, self.room());
            }
            if pending.due || pending.full() {
                pending.dropped += shared.take_dropped();
                self.write(&mut pending).await;
            }
        }
        while let Ok(d) = durable.try_recv() {
            self.admit(&mut pending, d);
        }
        while let Ok(r) = reports.try_recv() {
            pending.add(r, self.room());
        }
        pending.durability = Durability::Disk;
        self.write(&mut pending).await;
    }

    /// Whether there is room for what may be dropped.
    fn room(&self) -> Room {
        if self.journal().bytes() < self.inner.limit {
            Room::Enough
        } else {
            Room::LeasesOnly
        }
    }

    fn admit(&self, pending: &mut Pending, durable: Durable) {
        if matches!(durable.report, Report::Passed { .. }) && self.room() == Room::LeasesOnly {
            // Dropping the sender tells the asker.
            tracing::warn!("the spool is full; a machine's delivery was refused");
            return;
        }
        // What `add` does not force to the disk outlives a kill, not a power cut.
        pending.add(durable.report, Room::Enough);
        pending.due = true;
        pending.stored.push(durable.stored);
    }

    async fn write(&self, pending: &mut Pending) {
        let taken = std::mem::take(pending);
        let (reports, durability, stored) = taken.finish();
        if reports.is_empty() {
            return;
        }
        let kept: Vec<Kept> = Kept::among(&reports).collect();
        {
            // Counted before it is on disk: a later one must not overtake it meanwhile.
            let mut all = self.kept();
            for one in &kept {
                all.add(*one);
            }
        }
        let spool = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = spool.journal().append(&reports, durability);
            (written, reports)
        });
        match written.await {
            Ok((Ok(()), _)) => {
                for s in stored {
                    s.send(()).ok(); // the asker may have gone
                }
                self.inner.written.send_modify(|n| *n += 1);
            }
            Ok((Err(error), reports)) => {
                self.forget(&kept);
                tracing::error!(%error, "reports could not be written to the spool; leases are kept, the rest is lost");
                // Askers learn it by `stored` being dropped. Leases are tried again with the next batch.
                pending.reports = reports
                    .into_iter()
                    .filter(|r| matches!(r, Report::Lease(_)))
                    .take(MAX_KEPT)
                    .collect();
                pending.since = (!pending.reports.is_empty()).then(Instant::now);
                pending.durability = Durability::Disk;
            }
            Err(error) => {
                self.forget(&kept);
                tracing::error!(%error, "writing to the spool was cut short");
            }
        }
    }

    async fn send(self, region: Arc<dyn Region>, cancel: CancellationToken) {
        let mut link = self.inner.link.subscribe();
        let mut written = self.inner.written.subscribe();
        let mut wait = FIRST_RETRY;
        loop {
            let rack = tokio::select! {
                () = cancel.cancelled() => return,
                rack = link.wait_for(Option::is_some) => match rack {
                    Ok(rack) => rack.clone(),
                    Err(_) => return,
                },
            };
            let Some(rack) = rack else { continue };
            written.mark_unchanged();
            let spool = self.clone();
            let next = tokio::task::spawn_blocking(move || spool.journal().front()).await;
            let batch = match next.map_err(io::Error::other).and_then(|n| n) {
                Ok(Waiting::Batch(batch)) => batch,
                Ok(Waiting::Nothing) => {
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        changed = written.changed() => if changed.is_err() { return },
                    }
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    if pause(MAX_RETRY, &cancel).await.is_break() {
                        return;
                    }
                    continue;
                }
            };
            let sent = tokio::select! {
                () = cancel.cancelled() => return,
                sent = tokio::time::timeout(REPORT_TIMEOUT, region.report(&rack, batch.clone())) => sent,
            };
            match sent.unwrap_or_else(|_| Err(LinkError::Away("no answer to a batch".into()))) {
                Ok(()) => {
                    wait = FIRST_RETRY;
                    self.done(&batch);
                }
                Err(LinkError::Invalid(why)) => {
                    // It would be refused for ever, and everything behind it would wait for ever.
                    tracing::error!(
                        number = batch.number,
                        why,
                        "the region refused a batch; it is set aside"
                    );
                    if let Err(error) = self.journal().set_aside(&batch) {
                        tracing::error!(%error, "the refused batch could not be kept");
                    }
                    self.done(&batch);
                }
                Err(error) => {
                    tracing::debug!(%error, number = batch.number, "a batch was not sent");
                    tokio::select! {
                        ended = pause(wait, &cancel) => {
                            if ended.is_break() {
                                return;
                            }
                            wait = (wait * 2).min(MAX_RETRY);
                        }
                        // A link that has just come up is not kept waiting.
                        changed = link.changed() => {
                            if changed.is_err() {
                                return;
                            }
                            wait = FIRST_RETRY;
                        }
                    }
                }
            }
        }
    }

    fn done(&self, batch: &Batch) {
        if let Err(error) = self.journal().done(batch.number) {
            // The region refuses to store it twice; it is sent again.
            tracing::error!(%error, number = batch.number, "the spool cannot be shortened");
        }
        self.forget(&Kept::among(&batch.reports).collect::<Vec<_>>());
    }
}

async fn pause(wait: Duration, cancel: &CancellationToken) -> std::ops::ControlFlow<()> {
    tokio::select! {
        () = cancel.cancelled() => std::ops::ControlFlow::Break(()),
        () = tokio::time::sleep(wait) => std::ops::ControlFlow::Continue(()),
    }
}

/// Whether there is room on disk for what may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    LeasesOnly,
}

/// What waits for the next batch.
#[derive(Default)]
struct Pending {
    reports: Vec<Report>,
    entries: Vec<Entry>,
    bytes: usize,
    dropped: u64,
    durability: Durability,
    due: bool,
    since: Option<Instant>,
    stored: Vec<oneshot::Sender<()>>,
}

impl Pending {
    fn add(&mut self, report: Report, room: Room) {
        self.since.get_or_insert_with(Instant::now);
        match report {
            Report::Timeline { entries } if room == Room::LeasesOnly => {
                self.dropped += entries.len() as u64
            }
            Report::Timeline { entries } => {
                for entry in entries {
                    self.fold(entry);
                }
            }
            Report::Lease(_) => {
                self.close_entries();
                self.durability = Durability::Disk;
                self.due = true;
                self.reports.push(report);
            }
            Report::Passed { ref request, .. } => {
                self.bytes += request.body.len();
                self.close_entries();
                self.durability = Durability::Disk;
                self.due = true;
                self.reports.push(report);
            }
            // The latest state is all that counts.
            Report::Services { .. } => {
                self.replace(report, |r| matches!(r, Report::Services { .. }))
            }
            Report::Interfaces { .. } => {
                self.replace(report, |r| matches!(r, Report::Interfaces { .. }))
            }
            Report::BootConfig(_) | Report::ForeignDhcp { .. } => {
                self.close_entries();
                self.due = true;
                self.reports.push(report);
            }
        }
    }

    fn replace(&mut self, report: Report, same: impl Fn(&Report) -> bool) {
        self.reports.retain(|r| !same(r));
        self.reports.push(report);
    }

    fn fold(&mut self, entry: Entry) {
        if !self
            .entries
            .iter_mut()
            .rev()
            .take(FOLD_WINDOW)
            .any(|e| e.fold(&entry))
        {
            self.entries.push(entry);
        }
    }

    /// Entries so far come before what follows.
    fn close_entries(&mut self) {
        if !self.entries.is_empty() {
            self.reports.push(Report::Timeline {
                entries: std::mem::take(&mut self.entries),
            });
        }
    }

    fn full(&self) -> bool {
        self.reports.len() >= MAX_BATCH_REPORTS
            || self.bytes >= MAX_BATCH_BYTES
            || self.entries.len() >= MAX_BATCH_ENTRIES
    }

    fn finish(mut self) -> (Vec<Report>, Durability, Vec<oneshot::Sender<()>>) {
        if self.dropped > 0 {
            let text = format!(
                "{} timeline entries were dropped: the rack's spool was full",
                self.dropped
            );
            self.entries.push(Entry::new(now(), What::Note { text }));
        }
        self.close_entries();
        (self.reports, self.durability, self.stored)
    }
}

#[cfg(test)]
mod tests;
