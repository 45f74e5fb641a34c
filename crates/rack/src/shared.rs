//! What the services of one rack share: the snapshot they answer from, and where they report.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use link::message::{Report, Service};
use link::snapshot::Snapshot;
use metal::timeline::Entry;
use metal::{MacAddr, SystemId, Timestamp};
use tokio::sync::{mpsc, watch};

/// Reports that may wait for the spool; beyond that they are counted and dropped (timeline entries) or
/// wait (leases).
pub const REPORT_QUEUE: usize = 8_192;
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
    clients: Mutex<HashMap<IpAddr, (MacAddr, Timestamp)>>,
    services: Mutex<BTreeMap<String, Service>>,
    rack: ArcSwap<Option<SystemId>>,
}

impl Shared {
    /// The shared state, and the end at which the spool takes reports from it.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> (Self, mpsc::Receiver<Report>) {
        let (reports, waiting) = mpsc::channel(REPORT_QUEUE);
        let (changed, _) = watch::channel(0);
        let inner = Inner {
            snapshot: ArcSwap::from_pointee(snapshot),
            changed,
            reports,
            clients: Mutex::default(),
            services: Mutex::default(),
            rack: ArcSwap::from_pointee(None),
        };
        (Self { inner: Arc::new(inner) }, waiting)
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

    /// Records something of a boot. Never waits: when the spool is full the entry is dropped.
    pub fn note(&self, entry: Entry) {
        if self.inner.reports.try_send(Report::Timeline { entries: vec![entry] }).is_err() {
            tracing::warn!("the report queue is full; a timeline entry was dropped");
        }
    }

    /// Hands a report to the spool, waiting for a place. Cancel-safe: yes (the report is then not sent).
    pub async fn report(&self, report: Report) {
        if self.inner.reports.send(report).await.is_err() {
            tracing::warn!("the spool has stopped; a report was dropped");
        }
    }

    /// Remembers that an address belongs to a hardware address: leased to it, or seen asking for its
    /// boot configuration.
    pub fn saw_client(&self, ip: IpAddr, mac: MacAddr, at: Timestamp) {
        let mut clients = self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&ip)
            && let Some(oldest) = clients.iter().min_by_key(|(_, (_, at))| *at).map(|(ip, _)| *ip)
        {
            clients.remove(&oldest);
        }
        clients.insert(ip, (mac, at));
    }

    /// Forgets an address whose lease ended.
    pub fn forget_client(&self, ip: IpAddr) {
        self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&ip);
    }

    /// The hardware address that an address belongs to.
    #[must_use]
    pub fn client_mac(&self, ip: IpAddr) -> Option<MacAddr> {
        self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&ip).map(|(mac, _)| *mac)
    }

    /// Sets the state of one service (`dhcpd`, `tftp`, `http`, `syslog_rack`, …); it goes to the region
    /// with the next report.
    pub fn set_service(&self, name: &str, status: &str, info: impl Into<String>) {
        let all = {
            let mut services = self.inner.services.lock().unwrap_or_else(PoisonError::into_inner);
            services.insert(name.to_owned(), Service { status: status.to_owned(), info: info.into() });
            services.clone()
        };
        self.inner.reports.try_send(Report::Services { services: all }).ok();
    }

    /// The states of all services.
    #[must_use]
    pub fn services(&self) -> BTreeMap<String, Service> {
        self.inner.services.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
