//! The host's network interfaces, and which VLANs they are attached to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use link::message::{Interface as Told, Report};
use link::snapshot::{Snapshot, Subnet};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::raw::{self, ChangeSocket};
use crate::shared::Shared;

pub use crate::raw::KernelInterface as Interface;

/// All interfaces at one moment.
pub type Interfaces = Arc<[Interface]>;

/// How long changes are collected before the list is read again: an interface that comes up sends several.
const SETTLE: Duration = Duration::from_millis(100);
/// How often the list is read when the kernel has announced nothing.
const REREAD: Duration = Duration::from_secs(30);
/// How often it is read where the kernel announces nothing at all.
const REREAD_BLIND: Duration = Duration::from_secs(3);

/// The subnet that an address lies in: the most specific one.
#[must_use]
pub fn subnet_of(snapshot: &Snapshot, address: IpAddr) -> Option<&Subnet> {
    let containing = snapshot
        .subnets
        .values()
        .filter(|subnet| subnet.cidr.contains(&address));
    containing.max_by_key(|subnet| subnet.cidr.prefix_len())
}

/// The VLANs an interface is attached to: those with a subnet that one of its addresses lies in, each once,
/// in the order of the addresses. Loopback is attached to none.
#[must_use]
pub fn vlans_of(snapshot: &Snapshot, interface: &Interface) -> Vec<i64> {
    let mut out = Vec::new();
    if interface.loopback {
        return out;
    }
    for net in &interface.addresses {
        if let Some(subnet) = subnet_of(snapshot, net.addr())
            && !out.contains(&subnet.vlan_id)
        {
            out.push(subnet.vlan_id);
        }
    }
    out
}

/// The interfaces as the region is told of them.
#[must_use]
pub fn told(interfaces: &[Interface]) -> Vec<Told> {
    let seen = interfaces.iter().filter(|i| !i.loopback);
    seen.map(|i| Told {
        name: i.name.clone(),
        mac: i.mac,
        addresses: i.addresses.clone(),
    })
    .collect()
}

/// Every address of this host that others can reach it by: not loopback, not link-local.
///
/// # Errors
/// When the kernel does not answer.
pub fn addresses() -> std::io::Result<Vec<IpAddr>> {
    let reachable = |a: &IpAddr| match a {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    };
    let all = raw::interfaces()?;
    let addresses = all
        .iter()
        .filter(|i| !i.loopback)
        .flat_map(|i| &i.addresses);
    Ok(addresses.map(|n| n.addr()).filter(reachable).collect())
}

/// Lists the interfaces now and keeps the list current until told to stop. Every change is reported to the
/// region.
#[derive(Debug)]
pub struct Watcher {
    current: watch::Sender<Interfaces>,
}

impl Watcher {
    /// Lists the interfaces.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn new() -> std::io::Result<Self> {
        let (current, _) = watch::channel(raw::interfaces()?.into());
        Ok(Self { current })
    }

    /// The list, and when it changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Interfaces> {
        self.current.subscribe()
    }

    /// Runs until `stop`. Cancel-safe: yes.
    pub async fn run(self, shared: Shared, stop: CancellationToken) {
        stop.run_until_cancelled(self.watch(shared)).await;
    }

    async fn watch(self, shared: Shared) {
        let announced = ChangeSocket::open()
            .inspect_err(|error| tracing::warn!(%error, "interface changes are not announced; looking for them"))
            .ok();
        loop {
            match &announced {
                Some(socket) => {
                    // Time out or error, the list is read again either way.
                    tokio::time::timeout(REREAD, socket.changed()).await.ok();
                    tokio::time::sleep(SETTLE).await;
                }
                None => tokio::time::sleep(REREAD_BLIND).await,
            }
            match raw::interfaces() {
                Ok(now) => {
                    let changed = self.current.send_if_modified(|known| {
                        let changed = **known != *now;
                        if changed {
                            *known = now.into();
                        }
                        changed
                    });
                    if changed {
                        let interfaces = told(&self.current.borrow());
                        shared.report(Report::Interfaces { interfaces }).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "the interfaces cannot be listed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: i64, vlan_id: i64, cidr: &str) -> Subnet {
        Subnet {
            id,
            vlan_id,
            cidr: cidr.parse().unwrap(),
            gateway: None,
            dns_servers: Vec::new(),
            allow_dns: true,
            disabled_boot_architectures: Vec::new(),
            router_advertisements: false,
            ranges: Vec::new(),
            reserved: Vec::new(),
        }
    }

    fn interface(addresses: &[&str]) -> Interface {
        Interface {
            index: 2,
            name: "eth0".into(),
            mac: None,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            up: true,
            loopback: false,
        }
    }

    #[test]
    fn an_interface_is_attached_to_the_vlan_of_its_most_specific_subnet() {
        let mut snapshot = Snapshot::default();
        for s in [
            subnet(1, 10, "10.0.0.0/8"),
            subnet(2, 20, "10.1.0.0/16"),
            subnet(3, 20, "fd00::/64"),
        ] {
            snapshot.subnets.insert(s.id, s);
        }
        assert_eq!(vlans_of(&snapshot, &interface(&["10.1.2.3/24"])), [20]);
        assert_eq!(
            vlans_of(
                &snapshot,
                &interface(&["10.2.2.3/24", "fd00::5/64", "10.1.0.1/16"])
            ),
            [10, 20]
        );
        assert_eq!(
            vlans_of(&snapshot, &interface(&["192.0.2.1/24"])),
            [] as [i64; 0]
        );
        let loopback = Interface {
            loopback: true,
            ..interface(&["10.1.2.3/24"])
        };
        assert_eq!(vlans_of(&snapshot, &loopback), [] as [i64; 0]);
    }

    #[test]
    fn the_kernel_lists_the_loopback_interface() {
        let all = raw::interfaces().unwrap();
        let lo = all
            .iter()
            .find(|i| i.loopback)
            .expect("every namespace has one");
        assert_eq!((lo.name.as_str(), lo.mac), ("lo", None));
        assert!(told(&all).iter().all(|i| i.name != "lo"));
    }
}
