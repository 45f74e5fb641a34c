//! What the services of one rack share: the snapshot they answer from, and where they report.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use link::message::{Report, Service};
use link::snapshot::Snapshot;
use metal::timeline::{Entry, What};
use metal::{MacAddr, SystemId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

/// Reports that may wait for the spool; beyond that they are counted and dropped (timeline entries) or
/// wait (leases).
pub const REPORT_QUEUE: usize = 8_192;
/// Reports that may wait for the spool with a sender that wants to know when they are on disk.
pub const DURABLE_QUEUE: usize = 256;
/// Addresses whose owner is remembered.
pub const MAX_CLIENTS: usize = 65_536;

/// Shared by all services of a rack. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Inner>,
}

struct Inner {
    snapshot: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
    reports: mpsc::Sender<Report>,
    durable: mpsc::Sender<Durable>,
    durable_waiting: Mutex<Option<mpsc::Receiver<Durable>>>,
    dropped: AtomicU64,
    clients: Mutex<HashMap<IpAddr, Client>>,
    services: Mutex<BTreeMap<String, Service>>,
    rack: ArcSwap<Option<SystemId>>,
}

/// A report whose sender waits until it is on disk.
#[derive(Debug)]
pub struct Durable {
    /// The report.
    pub report: Report,
    /// Told when the report is on disk; dropped when it is refused.
    pub stored: oneshot::Sender<()>,
}

/// A report could not be stored: the spool is full, stopped, or its disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool did not store the report")]
pub struct NotStored;

/// Whose an address is, and how that is known.
#[derive(Clone, Copy, Debug)]
struct Client {
    mac: MacAddr,
    at: Timestamp,
    evidence: Evidence,
}

/// How it is known whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// We leased it.
    Lease,
    /// It fetched the boot configuration of that hardware address.
    Config,
}

impl Shared {
    /// The shared state, and the end at which the spool takes reports from it.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> (Self, mpsc::Receiver<Report>) {
        let (reports, waiting) = mpsc::channel(REPORT_QUEUE);
        let (durable, durable_waiting) = mpsc::channel(DURABLE_QUEUE);
        let (changed, _) = watch::channel(0);
        let inner = Inner {
            snapshot: ArcSwap::from_pointee(snapshot),
            changed,
            reports,
            durable,
            durable_waiting: Mutex::new(Some(durable_waiting)),
            dropped: AtomicU64::new(0),
            clients: Mutex::default(),
            services: Mutex::default(),
            rack: ArcSwap::from_pointee(None),
        };
        (
            Self {
                inner: Arc::new(inner),
            },
            waiting,
        )
    }

    /// The snapshot as it is now. Take it once per packet or request.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// Puts a new snapshot in place; every service answers from it with its next packet.
    pub fn set_snapshot(&self, snapshot: Snapshot) {
        self.inner.snapshot.store(Arc::new(snapshot));
        self.inner.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Wakes when the snapshot was replaced.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// This rack's system id, once the region has given it one.
    #[must_use]
    pub fn rack(&self) -> Option<SystemId> {
        (**self.inner.rack.load()).clone()
    }

    /// Sets this rack's system id.
    pub fn set_rack(&self, id: SystemId) {
        self.inner.rack.store(Arc::new(Some(id)));
        self.inner.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Records something of a boot. Never waits: when the spool is full the entry is dropped and counted.
    pub fn note(&self, entry: Entry) {
        if self
            .inner
            .reports
            .try_send(Report::Timeline {
                entries: vec![entry],
            })
            .is_err()
        {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records something of the boot of whichever machine has that address.
    pub fn note_for(&self, ip: IpAddr, what: What) {
        let mac = self.client_mac(ip);
        let now = Timestamp::from_system(SystemTime::now());
        self.note(Entry {
            mac,
            ip: Some(ip),
            ..Entry::new(now, what)
        });
    }

    /// Takes the number of timeline entries dropped since the last call.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.inner.dropped.swap(0, Ordering::Relaxed)
    }

    /// Hands a report to the spool, waiting for a place. Cancel-safe: yes (the report is then not sent).
    pub async fn report(&self, report: Report) {
        if self.inner.reports.send(report).await.is_err() {
            tracing::warn!("the spool has stopped; a report was dropped");
        }
    }

    /// Hands a report to the spool and returns when it is on disk. Cancel-safe: the report may be
    /// stored all the same.
    ///
    /// # Errors
    /// [`NotStored`] when it is not on disk and will not be.
    pub async fn report_stored(&self, report: Report) -> Result<(), NotStored> {
        let (stored, done) = oneshot::channel();
        self.inner
            .durable
            .send(Durable { report, stored })
            .await
            .map_err(|_| NotStored)?;
        done.await.map_err(|_| NotStored)
    }

    /// The end at which the spool takes the reports of [`Self::report_stored`]; only the first call has it.
    #[must_use]
    pub fn durable_reports(&self) -> Option<mpsc::Receiver<Durable>> {
        self.inner
            .durable_waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Remembers that an address was leased to a hardware address.
    pub fn saw_client(&self, ip: IpAddr, mac: MacAddr, at: Timestamp) {
        self.remember(
            ip,
            Client {
                mac,
                at,
                evidence: Evidence::Lease,
            },
        );
    }

    /// Remembers that an address asked for the boot configuration of a hardware address. A lease to
    /// another one is better evidence and stays; says whether the two agree.
    pub fn saw_config(&self, ip: IpAddr, mac: MacAddr, at: Timestamp) -> bool {
        let leased_to_another = {
            let clients = self
                .inner
                .clients
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            clients
                .get(&ip)
                .is_some_and(|c| c.evidence == Evidence::Lease && c.mac != mac)
        };
        if leased_to_another {
            return false;
        }
        let mut clients = self
            .inner
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get_mut(&ip).filter(|c| c.mac == mac) {
            known.at = at;
            return true;
        }
        drop(clients);
        self.remember(
            ip,
            Client {
                mac,
                at,
                evidence: Evidence::Config,
            },
        );
        true
    }

    fn remember(&self, ip: IpAddr, client: Client) {
        let mut clients = self
            .inner
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS
            && !clients.contains_key(&ip)
            && let Some(oldest) = clients.iter().min_by_key(|(_, c)| c.at).map(|(ip, _)| *ip)
        {
            clients.remove(&oldest);
        }
        clients.insert(ip, client);
    }

    /// Forgets an address whose lease ended.
    pub fn forget_client(&self, ip: IpAddr) {
        self.inner
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&ip);
    }

    /// The hardware address that an address belongs to.
    #[must_use]
    pub fn client_mac(&self, ip: IpAddr) -> Option<MacAddr> {
        self.inner
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&ip)
            .map(|c| c.mac)
    }

    /// Sets the state of one service (`dhcpd`, `tftp`, `http`, `syslog_rack`, …); it goes to the region
    /// with the next report.
    pub fn set_service(&self, name: &str, status: &str, info: impl Into<String>) {
        let all = {
            let mut services = self
                .inner
                .services
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            services.insert(
                name.to_owned(),
                Service {
                    status: status.to_owned(),
                    info: info.into(),
                },
            );
            services.clone()
        };
        self.inner
            .reports
            .try_send(Report::Services { services: all })
            .ok();
    }

    /// The states of all services.
    #[must_use]
    pub fn services(&self) -> BTreeMap<String, Service> {
        self.inner
            .services
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
