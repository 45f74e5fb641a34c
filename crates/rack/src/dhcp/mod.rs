//! DHCP for the machines of this rack: sockets, clock and disk around [`wire_dhcp::Engine`].
//!
//! Nothing is opened or sent while no VLAN has DHCP on, and before a VLAN is served the rack asks whether
//! someone else serves it already ([`foreign`]). Leases are on disk before they are acknowledged
//! ([`journal`]). What is served where follows from the snapshot ([`mapping`]).

pub mod foreign;
pub mod journal;
pub mod link;
pub mod mapping;
pub mod observe;

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use ::link::message::Report;
use metal::MacAddr;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wire_dhcp::record::LeaseLog;
use wire_dhcp::{Action, DropReason, Engine, ObservedKind, Timestamp};

use self::foreign::{Failure, Found, Place, SearchError, Timing, Verdict};
use self::journal::{Commit, DiskLog, Health, Step, Transmit};
use self::link::{Counters, Link, Packet};
use self::mapping::{LinkPlan, Part, Plan};
use self::observe::{Effects, Observer};
use crate::interfaces::{Interface, Interfaces};
use crate::shared::Shared;

/// The service's name in the API.
pub const SERVICE: &str = "dhcpd";
/// Messages that may wait for the engine; the kernel's buffers come on top.
pub const PACKET_QUEUE: usize = 2_048;
/// How often leases are looked at for their end.
const TICK: Duration = Duration::from_secs(1);
/// Time between attempts to open what could not be opened.
const REOPEN: Duration = Duration::from_secs(30);
/// Shortest time between two searches that clients of another server give rise to.
const SEARCH_AGAIN_MIN: Duration = Duration::from_secs(20);
/// Shortest time between two rewritings of the lease log.
const COMPACT_EVERY: Duration = Duration::from_secs(60);

/// How the service runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the lease log is.
    pub data_dir: PathBuf,
    /// TCP port of the boot file service, for the addresses of boot files.
    pub http_port: u16,
    /// How other servers are looked for.
    pub timing: Timing,
}

/// An interface with DHCP on for its VLAN.
struct Served {
    plan: LinkPlan,
    verdict: Verdict,
    /// When the next search is due; none while one is under way.
    search_at: Option<Instant>,
    searched_at: Option<Instant>,
    sockets: Option<Sockets>,
    open_failure: Option<OpenFailure>,
}

struct Sockets {
    link: Arc<Link>,
    /// Receives until dropped.
    _receiving: AbortOnDropHandle<()>,
}

struct OpenFailure {
    failure: Failure,
    again_at: Instant,
}

impl Served {
    /// Whether machines may be answered here.
    fn is_allowed(&self, ignore_foreign: bool) -> bool {
        match self.verdict {
            Verdict::Clear => true,
            Verdict::Partner(_) => self.plan.part == Part::Primary,
            Verdict::Unknown | Verdict::Failed(_) | Verdict::Foreign(_) => ignore_foreign,
        }
    }
}

/// A search that has ended.
struct Searched {
    index: u32,
    mac: MacAddr,
    result: Result<Found, SearchError>,
}

struct Service {
    options: Options,
    shared: Shared,
    interfaces: watch::Receiver<Interfaces>,
    serving: watch::Sender<BTreeSet<i64>>,
    engine: Engine,
    observer: Observer,
    plan: Plan,
    served: BTreeMap<u32, Served>,
    searches: JoinSet<Searched>,
    packets: mpsc::Sender<Packet>,
    steps: mpsc::Sender<Step>,
    health: watch::Receiver<Health>,
    counters: Arc<Counters>,
    /// What the region was told of other servers, by VLAN.
    reported: BTreeMap<i64, Option<Ipv4Addr>>,
    problems: Vec<String>,
    said: Option<(&'static str, String)>,
    compacted_at: Option<Instant>,
}

/// Serves until told to stop. `serving` is kept at the VLANs that are being served. Cancel-safe: no; use `stop`.
pub async fn run(
    options: Options,
    shared: Shared,
    interfaces: watch::Receiver<Interfaces>,
    serving: watch::Sender<BTreeSet<i64>>,
    stop: CancellationToken,
) {
    let opened = loop {
        let directory = options.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || DiskLog::open(&directory)).await;
        let sentence = match opened {
            Ok(Ok(opened)) => break opened,
            Ok(Err(error)) => match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::error!(error = sentence, "the lease log cannot be opened");
        shared.set_service(
            SERVICE,
            "dead",
            format!("no leases can be stored: {sentence}"),
        );
        if stop
            .run_until_cancelled(tokio::time::sleep(REOPEN))
            .await
            .is_none()
        {
            return;
        }
    };
    let now = wall_clock();
    let mut engine = Engine::default();
    engine.restore(&opened.records, now);
    let observer = Observer::new(shared.clone());
    observer.restore(engine.leases(), now);
    tracing::info!(
        leases = engine.lease_count(),
        bytes = opened.bytes,
        "lease log read"
    );

    let (packets, incoming) = mpsc::channel(PACKET_QUEUE);
    let (steps, waiting) = mpsc::channel(journal::QUEUE);
    let (healthy, health) = watch::channel(Health::default());
    let journal = tokio::spawn(journal::run(
        opened.log,
        opened.bytes,
        waiting,
        healthy,
        Effects::tell,
    ));
    let service = Service {
        options,
        shared,
        interfaces,
        serving,
        engine,
        observer,
        plan: Plan::default(),
        served: BTreeMap::new(),
        searches: JoinSet::new(),
        packets,
        steps,
        health,
        counters: Arc::default(),
        reported: BTreeMap::new(),
        problems: Vec::new(),
        said: None,
        compacted_at: None,
    };
    service.run(incoming, stop).await;
    // The service has dropped its end of the queue: what waits is written, and acknowledged.
    journal.await.ok();
}

impl Service {
    async fn run(mut self, mut incoming: mpsc::Receiver<Packet>, stop: CancellationToken) {
        let mut changes = self.shared.changes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.reconcile().await;
        loop {
            // In this order: a change holds for the next packet.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.reconcile().await;
                }
                changed = self.interfaces.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.reconcile().await;
                }
                Some(Ok(searched)) = self.searches.join_next(), if !self.searches.is_empty() => {
                    self.searched(searched);
                    self.reconcile().await;
                }
                _ = self.health.changed() => self.say(),
                _ = tick.tick() => self.tick().await,
                Some(packet) = incoming.recv() => {
                    let actions = self.engine.handle(&packet.bytes, packet.from, wall_clock());
                    self.perform(actions).await;
                }
            }
        }
        self.serving.send_replace(BTreeSet::new());
        self.shared.set_service(SERVICE, "off", "stopped");
        let stats = self.engine.stats();
        tracing::info!(
            received = stats.received,
            offers = stats.offers,
            acks = stats.acks,
            naks = stats.naks,
            dropped = stats.dropped_total(),
            queue_full = self.counters.queue_full.load(Ordering::Relaxed),
            bad_frames = self.counters.bad_frames.load(Ordering::Relaxed),
            send_failures = self.counters.send_failures.load(Ordering::Relaxed),
            "DHCP stopped"
        );
    }

    async fn tick(&mut self) {
        let actions = self.engine.tick(wall_clock());
        self.perform(actions).await;
        let now = Instant::now();
        let due = |served: &Served| {
            served.search_at.is_some_and(|at| at <= now)
                || served
                    .open_failure
                    .as_ref()
                    .is_some_and(|failure| failure.again_at <= now)
        };
        if self.served.values().any(due) {
            self.reconcile().await;
        }
        let bytes = self.health.borrow().bytes;
        if LeaseLog::wants_compaction(bytes, self.engine.lease_count())
            && self.compacted_at.is_none_or(|at| at + COMPACT_EVERY <= now)
        {
            self.compacted_at = Some(now);
            self.commit(Step::Compact(self.engine.records().collect()))
                .await;
        }
    }

    /// Does what the engine says. A promise goes through the log; everything else leaves at once.
    async fn perform(&mut self, actions: Vec<Action>) {
        let mut records = Vec::new();
        let mut sends: Vec<(Arc<dyn Transmit>, _)> = Vec::new();
        let mut observed = Vec::new();
        for action in actions {
            match action {
                Action::Persist(record) => records.push(record),
                Action::Send(out) => {
                    let sockets = self
                        .served
                        .get(&out.link.0)
                        .and_then(|served| served.sockets.as_ref());
                    if let Some(sockets) = sockets {
                        let link: Arc<dyn Transmit> = Arc::<Link>::clone(&sockets.link);
                        sends.push((link, out));
                    }
                }
                Action::Observed(observation) => {
                    if let (ObservedKind::ChoseOtherServer(server), Some(link)) =
                        (observation.kind, observation.link)
                    {
                        self.doubt(link.0, server);
                    }
                    observed.push(*observation);
                }
                Action::Dropped(dropped) => {
                    tracing::debug!(reason = dropped.reason.name(), mac = ?dropped.mac, link = dropped.link.0, "DHCP message not answered");
                    if let (DropReason::NoFreeAddress, Some(mac)) = (dropped.reason, dropped.mac) {
                        self.observer.no_address(mac, wall_clock()).tell().await;
                    }
                }
            }
        }
        let effects = self.observer.effects(observed, &records);
        if records.is_empty() {
            effects.remember();
            for (link, out) in sends {
                link.transmit(&out);
            }
            effects.tell().await;
        } else {
            self.commit(Step::Commit(Commit {
                records,
                sends,
                effects,
            }))
            .await;
        }
    }

    async fn commit(&self, step: Step) {
        // Closed only when the log is gone, which it has said; nothing may be promised then.
        self.steps.send(step).await.ok();
    }

    /// A client has taken the offer of a server that is not ours: look for it soon.
    fn doubt(&mut self, index: u32, server: Ipv4Addr) {
        if let Some(served) = self.served.get_mut(&index)
            && !served.plan.ours.contains(&server)
            && let (Some(_), Some(last)) = (served.search_at, served.searched_at)
        {
            let soonest = (last + SEARCH_AGAIN_MIN).max(Instant::now());
            served.search_at = served.search_at.map(|at| at.min(soonest));
        }
    }

    fn searched(&mut self, searched: Searched) {
        let timing = self.options.timing;
        let Some(served) = self
            .served
            .get_mut(&searched.index)
            .filter(|s| s.plan.mac == searched.mac)
        else {
            return;
        };
        let verdict = match &searched.result {
            Ok(found) => Verdict::of(found),
            Err(error) => Verdict::Failed(error.failure()),
        };
        let now = Instant::now();
        served.searched_at = Some(now);
        served.search_at = Some(now + verdict.again_after(timing));
        // A search that could not be made is no reason to stop.
        if matches!(verdict, Verdict::Failed(_))
            && !matches!(served.verdict, Verdict::Unknown | Verdict::Failed(_))
        {
            return;
        }
        if served.verdict != verdict {
            tracing::info!(interface = served.plan.name, from = ?served.verdict, to = ?verdict, "looked for other DHCP servers");
            served.verdict = verdict;
        }
    }

    /// Closes the gap between what the snapshot asks for and what is served.
    async fn reconcile(&mut self) {
        let snapshot = self.shared.snapshot();
        let interfaces = Arc::clone(&self.interfaces.borrow_and_update());
        let ignore_foreign = snapshot.settings.ignore_external_dhcp;
        self.plan = mapping::plan(&snapshot, &interfaces, self.shared.rack().as_ref());
        self.adopt_plan();
        self.start_searches();
        self.open_sockets(ignore_foreign);
        self.report_foreign().await;

        let usable = |link: &LinkPlan| {
            self.served
                .get(&link.index)
                .is_some_and(|s| s.sockets.is_some())
        };
        let spec = mapping::config(&self.plan, usable, self.options.http_port);
        let (config, problems) = wire_dhcp::Config::compile(&spec);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|p| !self.problems.contains(p)) {
            tracing::warn!(problem, "a part of the DHCP configuration is not used");
        }
        self.problems = problems;
        self.engine.set_config(Arc::new(config));
        let vlans: BTreeSet<i64> = self
            .served
            .values()
            .filter(|served| served.sockets.is_some())
            .flat_map(|served| served.plan.vlans.iter().copied())
            .collect();
        self.serving
            .send_if_modified(|known| std::mem::replace(known, vlans.clone()) != vlans);
        self.say();
    }

    /// Takes over the plan; what is known of an interface stays while it is the same interface.
    fn adopt_plan(&mut self) {
        let mut before = std::mem::take(&mut self.served);
        for plan in &self.plan.links {
            let known = before
                .remove(&plan.index)
                .filter(|s| s.plan.mac == plan.mac && s.plan.name == plan.name);
            let served = match known {
                Some(served) => Served {
                    plan: plan.clone(),
                    ..served
                },
                None => Served {
                    plan: plan.clone(),
                    verdict: Verdict::Unknown,
                    search_at: Some(Instant::now()),
                    searched_at: None,
                    sockets: None,
                    open_failure: None,
                },
            };
            self.served.insert(plan.index, served);
        }
    }

    fn start_searches(&mut self) {
        let now = Instant::now();
        let timing = self.options.timing;
        for served in self
            .served
            .values_mut()
            .filter(|s| s.search_at.is_some_and(|at| at <= now))
        {
            served.search_at = None;
            let LinkPlan {
                index,
                name,
                mac,
                ours,
                ..
            } = served.plan.clone();
            let place = Place {
                index,
                name,
                mac,
                ours,
            };
            self.searches.spawn(async move {
                let result = foreign::search(&place, timing, rand::random()).await;
                Searched { index, mac, result }
            });
        }
    }

    fn open_sockets(&mut self, ignore_foreign: bool) {
        let now = Instant::now();
        for served in self.served.values_mut() {
            if !served.is_allowed(ignore_foreign) {
                served.sockets = None;
                served.open_failure = None;
                continue;
            }
            let plan = &served.plan;
            if served
                .sockets
                .as_ref()
                .is_some_and(|s| s.link.is_for(plan.index, &plan.name, plan.mac))
                || served
                    .open_failure
                    .as_ref()
                    .is_some_and(|failure| failure.again_at > now)
            {
                continue;
            }
            served.sockets = None;
            match Link::open(plan.index, &plan.name, plan.mac, Arc::clone(&self.counters)) {
                Ok(link) => {
                    let link = Arc::new(link);
                    let receiver = Arc::clone(&link);
                    let packets = self.packets.clone();
                    let receiving = tokio::spawn(async move { receiver.receive(packets).await });
                    served.sockets = Some(Sockets {
                        link,
                        _receiving: AbortOnDropHandle::new(receiving),
                    });
                    served.open_failure = None;
                    tracing::info!(interface = plan.name, vlans = ?plan.vlans, "serving DHCP");
                }
                Err(error) => {
                    served.open_failure = Some(OpenFailure {
                        failure: SearchError::from(error).failure(),
                        again_at: now + REOPEN,
                    });
                }
            }
        }
    }

    async fn report_foreign(&mut self) {
        let mut news = Vec::new();
        for served in self.served.values() {
            let server = match served.verdict {
                Verdict::Foreign(server) => Some(server),
                Verdict::Clear | Verdict::Partner(_) => None,
                Verdict::Unknown | Verdict::Failed(_) => continue,
            };
            news.extend(served.plan.vlans.iter().map(|vlan_id| (*vlan_id, server)));
        }
        for (vlan_id, server) in news {
            if self.reported.insert(vlan_id, server) != Some(server) {
                self.shared
                    .report(Report::ForeignDhcp {
                        vlan_id,
                        server: server.map(IpAddr::from),
                    })
                    .await;
            }
        }
    }

    /// Sets the service's state; says it in the log when it is a new one.
    fn say(&mut self) {
        let snapshot = self.shared.snapshot();
        let health = self.health.borrow().clone();
        let (status, info) = state::describe(&snapshot, &self.plan, &self.served, &health);
        if self
            .said
            .as_ref()
            .is_some_and(|(s, i)| *s == status && *i == info)
        {
            return;
        }
        match status {
            "running" | "off" => tracing::info!(status, info, "DHCP"),
            _ => tracing::warn!(status, info, "DHCP"),
        }
        self.shared.set_service(SERVICE, status, info.clone());
        self.said = Some((status, info));
    }
}

/// A search that was ordered could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OrderedSearchError {
    /// This rack is not on that VLAN.
    #[error("this rack has no interface that is up in VLAN {0}")]
    NotAttached(i64),
    /// The search failed.
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// Looks for strangers' DHCP servers on a VLAN now, whether it is served or not. Cancel-safe: yes.
///
/// # Errors
/// [`OrderedSearchError`].
pub async fn search_vlan(
    shared: &Shared,
    interfaces: &[Interface],
    vlan_id: i64,
    timing: Timing,
) -> Result<Vec<IpAddr>, OrderedSearchError> {
    let snapshot = shared.snapshot();
    let place = interfaces
        .iter()
        .filter(|i| i.up && crate::interfaces::vlans_of(&snapshot, i).contains(&vlan_id))
        .find_map(|i| Some((i, i.mac?)));
    let (interface, mac) = place.ok_or(OrderedSearchError::NotAttached(vlan_id))?;
    let ours = mapping::known_servers(&snapshot, interfaces, vlan_id);
    let place = Place {
        index: interface.index,
        name: interface.name.clone(),
        mac,
        ours,
    };
    let found = foreign::search(&place, timing, rand::random()).await?;
    Ok(found.foreign.into_iter().map(IpAddr::from).collect())
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
