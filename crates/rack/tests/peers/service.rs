//! The rack's network services, run in a namespace by a thread of the test.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use link::message::{Lease, LeaseEvent, Report};
use link::snapshot::{Machine, Range, Reservation, Snapshot, Subnet, Vlan};
use metal::boot::Facts;
use metal::status::Status;
use metal::timeline::{Entry, What};
use metal::{MacAddr, SystemId};
use rack::dhcp::foreign::Timing;
use rack::files::{ClientContext, OpenError, Opened};
use rack::shared::Shared;
use rack::{dhcp, interfaces, ra, tftp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::net::{Namespace, wait_for};

pub const RACK: &str = "rack01";

/// Searches short enough for a test, long enough for dnsmasq on a veth.
pub const TIMING: Timing = Timing {
    questions: 2,
    between: Duration::from_millis(300),
    listen: Duration::from_millis(700),
    when_clear: Duration::from_secs(600),
    when_not: Duration::from_secs(1),
};

/// A VLAN with one IPv4 subnet whose dynamic range has ten addresses, one IPv6 subnet that asks for router
/// advertisements, and a VLAN behind a relay agent.
pub fn snapshot(dhcp_on: bool) -> Snapshot {
    let vlan = |id, relay_vlan: Option<i64>| Vlan {
        id,
        vid: 0,
        fabric: "fabric-0".into(),
        mtu: 1500,
        dhcp_on: dhcp_on && relay_vlan.is_none(),
        primary_rack: Some(RACK.into()),
        secondary_rack: None,
        relay_vlan,
    };
    let subnet =
        |id, vlan_id, cidr: &str, gateway: Option<&str>, range: Option<(&str, &str)>| Subnet {
            id,
            vlan_id,
            cidr: cidr.parse().unwrap(),
            gateway: gateway.map(|g| g.parse().unwrap()),
            dns_servers: Vec::new(),
            allow_dns: true,
            disabled_boot_architectures: Vec::new(),
            router_advertisements: id == 2,
            ranges: range
                .map(|(start, end)| Range {
                    start: start.parse().unwrap(),
                    end: end.parse().unwrap(),
                    dynamic: true,
                })
                .into_iter()
                .collect(),
            reserved: Vec::new(),
        };
    let mut out = Snapshot::default();
    out.settings.default_domain = "maas".into();
    out.settings.dns_servers = vec!["10.77.0.1".parse().unwrap()];
    out.vlans = BTreeMap::from([(1, vlan(1, None)), (2, vlan(2, Some(1)))]);
    out.subnets = BTreeMap::from([
        (
            1,
            subnet(
                1,
                1,
                "10.77.0.0/24",
                Some("10.77.0.1"),
                Some(("10.77.0.100", "10.77.0.109")),
            ),
        ),
        (2, subnet(2, 1, "2001:db8:77::/64", None, None)),
        (
            3,
            subnet(
                3,
                2,
                "10.78.0.0/24",
                None,
                Some(("10.78.0.100", "10.78.0.109")),
            ),
        ),
    ]);
    out
}

/// The same VLAN with a second rack, `rack02` at 10.77.0.4.
pub fn snapshot_of_two() -> Snapshot {
    let mut out = snapshot(true);
    for vlan in out.vlans.values_mut() {
        vlan.secondary_rack = Some("rack02".into());
    }
    for (id, ip) in [(RACK, "10.77.0.1"), ("rack02", "10.77.0.4")] {
        let controller = Machine {
            system_id: id.into(),
            hostname: id.into(),
            fqdn: format!("{id}.maas"),
            facts: Facts {
                status: Status::Deployed,
                netboot: false,
                ephemeral_deploy: false,
                is_machine: false,
            },
            architecture: "amd64/generic".into(),
            hardware_uuid: None,
            macs: Vec::new(),
            addresses: vec![Reservation {
                mac: MacAddr([2; 6]),
                ip: ip.parse().unwrap(),
                subnet_id: 1,
            }],
            kernel_opts: String::new(),
            deploy: None,
        };
        out.machines.insert(id.into(), controller);
    }
    out
}

/// Files from memory.
#[derive(Clone)]
pub struct Memory(pub Arc<BTreeMap<String, Bytes>>);

#[async_trait]
impl tftp::Source for Memory {
    async fn open_file(&self, path: &str, _: ClientContext) -> Result<Opened, OpenError> {
        self.0
            .get(path)
            .cloned()
            .map(Opened::Rendered)
            .ok_or(OpenError::NotFound)
    }
}

/// What the thread may do in its namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    All,
    None,
}

pub struct Service {
    pub shared: Shared,
    reports: Arc<Mutex<Vec<Report>>>,
    stop: CancellationToken,
    kill: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub fn start(namespace: &Namespace, data_dir: &Path, snapshot: Snapshot) -> Self {
        Self::start_with(namespace, data_dir, snapshot, Rights::All, BTreeMap::new())
    }

    pub fn start_with(
        namespace: &Namespace,
        data_dir: &Path,
        snapshot: Snapshot,
        rights: Rights,
        files: BTreeMap<String, Bytes>,
    ) -> Self {
        Self::start_as(RACK, namespace, data_dir, snapshot, rights, files)
    }

    pub fn start_as(
        rack: &str,
        namespace: &Namespace,
        data_dir: &Path,
        snapshot: Snapshot,
        rights: Rights,
        files: BTreeMap<String, Bytes>,
    ) -> Self {
        let (shared, mut incoming) = Shared::new(snapshot);
        shared.set_rack(SystemId::from(rack));
        let reports = Arc::new(Mutex::new(Vec::new()));
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (name, data_dir) = (namespace.name.clone(), data_dir.to_owned());
        let inside = (
            shared.clone(),
            Arc::clone(&reports),
            stop.clone(),
            kill.clone(),
        );
        let thread = std::thread::spawn(move || {
            let (shared, reports, stop, kill) = inside;
            Namespace::enter(&name);
            if rights == Rights::None {
                let none = rustix::thread::CapabilitySet::empty();
                let sets = rustix::thread::CapabilitySets {
                    effective: none,
                    permitted: none,
                    inheritable: none,
                };
                rustix::thread::set_capabilities(None, sets).unwrap();
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let all = async {
                let watcher = interfaces::Watcher::new().unwrap();
                let (serving, served) = watch::channel(Default::default());
                let options = dhcp::Options {
                    data_dir,
                    http_port: 5248,
                    timing: TIMING,
                };
                let files = Memory(Arc::new(files));
                let list = watcher.subscribe();
                tokio::join!(
                    async {
                        while let Some(report) = incoming.recv().await {
                            reports.lock().unwrap().push(report);
                        }
                    },
                    async {
                        tokio::join!(
                            dhcp::run(options, shared.clone(), list.clone(), serving, stop.clone()),
                            ra::run(shared.clone(), list, served, stop.clone()),
                            tftp::run(
                                tftp::Options::default(),
                                files,
                                shared.clone(),
                                stop.clone()
                            ),
                            watcher.run(shared.clone(), stop.clone()),
                        );
                        kill.cancel();
                    },
                );
            };
            // Killed: everything is dropped where it stands.
            runtime.block_on(kill.run_until_cancelled(all));
            runtime.shutdown_background();
        });
        Self {
            shared,
            reports,
            stop,
            kill,
            thread: Some(thread),
        }
    }

    /// Ends at once, as a kill would, without finishing anything.
    pub fn kill(mut self) {
        self.kill.cancel();
        self.thread.take().unwrap().join().unwrap();
    }

    #[track_caller]
    pub fn wait_for_report<T>(&self, what: &str, find: impl Fn(&Report) -> Option<T>) -> T {
        wait_for(what, || self.reports.lock().unwrap().iter().find_map(&find))
    }

    pub fn reports(&self) -> Vec<Report> {
        self.reports.lock().unwrap().clone()
    }

    pub fn leases(&self) -> Vec<Lease> {
        let reports = self.reports.lock().unwrap();
        reports
            .iter()
            .filter_map(|r| {
                if let Report::Lease(lease) = r {
                    Some(lease.clone())
                } else {
                    None
                }
            })
            .collect()
    }

    pub fn lease_events(&self) -> Vec<LeaseEvent> {
        self.leases().iter().map(|lease| lease.event).collect()
    }

    pub fn timeline(&self) -> Vec<Entry> {
        let reports = self.reports.lock().unwrap();
        let entries = reports.iter().filter_map(|r| {
            if let Report::Timeline { entries } = r {
                Some(entries)
            } else {
                None
            }
        });
        entries.flatten().cloned().collect()
    }

    pub fn dhcp_messages(&self) -> Vec<String> {
        let message = |e: Entry| {
            if let What::Dhcp { message, .. } = e.what {
                Some(message)
            } else {
                None
            }
        };
        self.timeline().into_iter().filter_map(message).collect()
    }

    /// Status and words of a service, once the words contain `words`.
    #[track_caller]
    pub fn wait_for_state(&self, service: &str, words: &str) -> (String, String) {
        wait_for(&format!("{service} to say {words:?}"), || {
            let state = self.shared.services().get(service).cloned()?;
            state
                .info
                .contains(words)
                .then_some((state.status, state.info))
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
        if std::thread::panicking() {
            self.kill.cancel();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
