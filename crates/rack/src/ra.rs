//! Router advertisements (RFC 4861), so that firmware which waits for one goes on: iPXE sits for 13 seconds
//! where none comes.
//!
//! They make nobody's configuration: router lifetime 0 (not a default router), no autonomous prefix, no
//! DHCPv6. Sent only where DHCP is being served and an IPv6 subnet of the VLAN asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use link::snapshot::Snapshot;
use metal::MacAddr;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::interfaces::{Interface, Interfaces, vlans_of};
use crate::raw::{OpenError, RouterSocket};
use crate::shared::Shared;

/// Time between two advertisements, shortest and longest (RFC 4861 §6.2.1 allows from 3 to 1800 s).
const INTERVAL: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(13));
/// Shortest time between two advertisements to all (RFC 4861 §10, `MIN_DELAY_BETWEEN_RAS`).
const BETWEEN_MIN: Duration = Duration::from_secs(3);
/// Longest delay of an answer, so that several routers do not speak at once. RFC 4861 §10 has 500 ms
/// (`MAX_RA_DELAY_TIME`); a machine waits for this one.
const ANSWER_DELAY_MAX: Duration = Duration::from_millis(100);
/// Seconds for which a prefix counts as on this link, after the last advertisement.
const PREFIX_VALID_S: u32 = 120;
/// MTU that needs no option.
const MTU_ORDINARY: u16 = 1500;
/// Prefixes named in one advertisement; the message stays far below the smallest MTU of IPv6.
const PREFIXES_MAX: usize = 16;
/// Pause before a socket that failed is opened again.
const REOPEN: Duration = Duration::from_secs(30);
/// Pause before an advertisement that could not be sent is tried again.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// All nodes of the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What is advertised on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Kernel index.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Hardware address, told so that nobody has to ask for it.
    pub mac: MacAddr,
    /// Link-local address that is spoken from.
    pub source: Ipv6Addr,
    /// The VLAN's MTU in bytes.
    pub mtu: u16,
    /// Prefixes that are on this link.
    pub prefixes: Vec<Ipv6Net>,
}

/// What is to be advertised, from the VLANs that are being served.
#[must_use]
pub fn plan(snapshot: &Snapshot, interfaces: &[Interface], serving: &BTreeSet<i64>) -> Vec<Advert> {
    let mut out = Vec::new();
    for interface in interfaces.iter().filter(|i| i.up) {
        let vlans: Vec<i64> = vlans_of(snapshot, interface)
            .into_iter()
            .filter(|id| serving.contains(id))
            .collect();
        let asking = snapshot
            .subnets
            .values()
            .filter(|s| vlans.contains(&s.vlan_id) && s.router_advertisements);
        let prefixes: Vec<Ipv6Net> = asking
            .filter_map(|subnet| match subnet.cidr {
                IpNet::V6(net) => Some(net.trunc()),
                IpNet::V4(_) => None,
            })
            .take(PREFIXES_MAX)
            .collect();
        let source = interface.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        let (Some(mac), Some(source), false) = (interface.mac, source, prefixes.is_empty()) else {
            continue;
        };
        let mtu = vlans
            .iter()
            .filter_map(|id| snapshot.vlans.get(id))
            .map(|v| v.mtu)
            .next()
            .unwrap_or(MTU_ORDINARY);
        out.push(Advert {
            index: interface.index,
            name: interface.name.clone(),
            mac,
            source,
            mtu,
            prefixes,
        });
    }
    out
}

/// The advertisement as an ICMPv6 message; the kernel fills in the checksum.
///
/// ```text
/// | type 134 | code 0 | checksum (2) |                       RFC 4861 §4.2
/// | hop limit 0: unspecified | flags 0: no M, no O | router lifetime (2) = 0 |
/// | reachable time (4) = 0 | retransmission time (4) = 0 |
/// | 1 | 1 | hardware address (6) |                           source link-layer address, §4.6.1
/// | 5 | 1 | 0 (2) | MTU (4) |                                §4.6.4, where not 1500
/// | 3 | 4 | length | L, not A | valid (4) | preferred (4) | 0 (4) | prefix (16) |    §4.6.2, for each
/// ```
#[must_use]
pub fn message(advert: &Advert) -> Vec<u8> {
    const ON_LINK: u8 = 0x80;
    let mut out = vec![134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend([1, 1]);
    out.extend(advert.mac.0);
    if advert.mtu != MTU_ORDINARY {
        out.extend([5, 1, 0, 0]);
        out.extend(u32::from(advert.mtu).to_be_bytes());
    }
    for prefix in &advert.prefixes {
        out.extend([3, 4, prefix.prefix_len(), ON_LINK]);
        out.extend(PREFIX_VALID_S.to_be_bytes());
        out.extend(PREFIX_VALID_S.to_be_bytes());
        out.extend([0; 4]);
        out.extend(prefix.network().octets());
    }
    out
}

/// When the next advertisement to all may leave after a solicitation at `now`. `random` spreads answers.
fn answer_at(last: Option<Instant>, now: Instant, random: f64) -> Instant {
    let spread = now + ANSWER_DELAY_MAX.mul_f64(random);
    last.map_or(spread, |last| spread.max(last + BETWEEN_MIN))
}

/// Advertises until told to stop, on the VLANs in `serving` (see [`crate::dhcp::run`]). Cancel-safe: yes.
pub async fn run(
    shared: Shared,
    mut interfaces: watch::Receiver<Interfaces>,
    mut serving: watch::Receiver<BTreeSet<i64>>,
    stop: CancellationToken,
) {
    let mut changes = shared.changes();
    let mut running: BTreeMap<u32, (Advert, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        let wanted = {
            let interfaces = interfaces.borrow_and_update();
            plan(
                &shared.snapshot(),
                &interfaces,
                &serving.borrow_and_update(),
            )
        };
        running.retain(|_, (advert, _)| wanted.contains(advert));
        for advert in wanted {
            running.entry(advert.index).or_insert_with(|| {
                (
                    advert.clone(),
                    AbortOnDropHandle::new(tokio::spawn(advertise(advert))),
                )
            });
        }
        let changed = async {
            tokio::select! {
                changed = changes.changed() => changed,
                changed = interfaces.changed() => changed,
                changed = serving.changed() => changed,
            }
        };
        // Nobody is left who could change anything: the rack is stopping.
        if !matches!(stop.run_until_cancelled(changed).await, Some(Ok(()))) {
            return;
        }
    }
}

/// Advertises on one interface, for ever.
async fn advertise(advert: Advert) {
    let mut said = false;
    loop {
        let why = match RouterSocket::open(advert.index, &advert.name) {
            Ok(socket) => match speak(&socket, &advert).await {
                Ok(never) => match never {},
                Err(error) => OpenError::Failed {
                    what: format!("router advertisements on {}", advert.name),
                    cause: error,
                },
            },
            Err(error) => error,
        };
        if !said {
            tracing::warn!(
                interface = advert.name,
                error = why.sentence(),
                "no router advertisements"
            );
            said = true;
        }
        tokio::time::sleep(REOPEN).await;
    }
}

async fn speak(
    socket: &RouterSocket,
    advert: &Advert,
) -> std::io::Result<std::convert::Infallible> {
    let message = message(advert);
    let mut last = None;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {
                let sent = socket.send(&message, advert.source, ALL_NODES);
                let now = Instant::now();
                next = match sent {
                    Ok(()) => {
                        last = Some(now);
                        now + rand::random_range(INTERVAL.0..=INTERVAL.1)
                    }
                    // An address is not to be used until the kernel has looked for a duplicate.
                    Err(error) => {
                        tracing::debug!(interface = advert.name, %error, "sending a router advertisement");
                        now + SEND_AGAIN
                    }
                };
            }
            solicited = socket.solicitation() => {
                solicited?;
                // To all: whoever asks next within the pause is served by the same message.
                next = next.min(answer_at(last, Instant::now(), rand::random()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::snapshot::{Subnet, Vlan};

    fn snapshot(router_advertisements: bool) -> Snapshot {
        let mut out = Snapshot::default();
        let vlan = Vlan {
            id: 1,
            vid: 0,
            fabric: "fabric-0".into(),
            mtu: 1500,
            dhcp_on: true,
            primary_rack: None,
            secondary_rack: None,
            relay_vlan: None,
        };
        out.vlans.insert(1, vlan);
        for (id, cidr, on) in [
            (1, "10.0.0.0/24", true),
            (2, "2001:db8:1::/64", router_advertisements),
        ] {
            let subnet = Subnet {
                id,
                vlan_id: 1,
                cidr: cidr.parse().unwrap(),
                gateway: None,
                dns_servers: Vec::new(),
                allow_dns: true,
                disabled_boot_architectures: Vec::new(),
                router_advertisements: on,
                ranges: Vec::new(),
                reserved: Vec::new(),
            };
            out.subnets.insert(id, subnet);
        }
        out
    }

    fn interface() -> Interface {
        Interface {
            index: 3,
            name: "eth0".into(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            addresses: vec![
                "10.0.0.1/24".parse().unwrap(),
                "fe80::1/64".parse().unwrap(),
            ],
            up: true,
            loopback: false,
        }
    }

    #[test]
    fn advertised_is_only_where_dhcp_is_served_and_the_subnet_asks() {
        let serving = BTreeSet::from([1]);
        let adverts = plan(&snapshot(true), &[interface()], &serving);
        assert_eq!(adverts.len(), 1);
        assert_eq!(
            adverts[0].prefixes,
            ["2001:db8:1::/64".parse::<Ipv6Net>().unwrap()]
        );
        assert_eq!(plan(&snapshot(true), &[interface()], &BTreeSet::new()), []);
        assert_eq!(plan(&snapshot(false), &[interface()], &serving), []);
        let without_link_local = Interface {
            addresses: vec!["10.0.0.1/24".parse().unwrap()],
            ..interface()
        };
        assert_eq!(plan(&snapshot(true), &[without_link_local], &serving), []);
    }

    #[test]
    fn an_advertisement_is_no_router_and_configures_no_address() {
        let advert = plan(&snapshot(true), &[interface()], &BTreeSet::from([1])).remove(0);
        let bytes = message(&advert);
        assert_eq!(&bytes[..2], [134, 0]);
        assert_eq!(
            &bytes[4..8],
            [0, 0, 0, 0],
            "no hop limit, no flags, router lifetime 0"
        );
        assert_eq!(&bytes[16..24], [1, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(
            &bytes[24..28],
            [3, 4, 64, 0x80],
            "on this link, not autonomous"
        );
        assert_eq!(bytes.len(), 16 + 8 + 32);
        let jumbo = message(&Advert {
            mtu: 9000,
            ..advert
        });
        assert_eq!(&jumbo[24..32], [5, 1, 0, 0, 0, 0, 0x23, 0x28]);
    }

    #[test]
    fn answers_are_prompt_and_not_more_than_one_in_three_seconds() {
        let now = Instant::now();
        assert_eq!(answer_at(None, now, 0.0), now);
        assert!(answer_at(None, now, 1.0) <= now + ANSWER_DELAY_MAX);
        assert_eq!(answer_at(Some(now), now, 1.0), now + BETWEEN_MIN);
    }
}
