//! What DHCP serves where, from the snapshot and the host's interfaces. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use link::snapshot::{Machine, Range, Snapshot, Subnet, Vlan};
use metal::{MacAddr, SystemId};
use wire_dhcp::spec;
use wire_dhcp::{LinkId, Mac, SubnetId};

use crate::interfaces::{Interface, vlans_of};

/// This rack's part in serving a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It serves.
    Primary,
    /// It serves while the primary rack is silent.
    Secondary,
}

/// An interface that is to be served on.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkPlan {
    /// Kernel index.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// The VLANs served, at least one.
    pub vlans: Vec<i64>,
    /// Secondary only where that is so for every VLAN.
    pub part: Part,
    /// Servers that are no strangers: this rack's and its partners' addresses.
    pub ours: Vec<Ipv4Addr>,
    /// What the engine is told.
    pub spec: spec::Link,
}

/// What is to be served, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// One entry per interface, by index.
    pub links: Vec<LinkPlan>,
    /// VLANs of this rack that have DHCP on and no usable interface here.
    pub unattached: Vec<i64>,
    /// Reservations of all known interfaces.
    pub reservations: Vec<spec::Reservation>,
}

/// Whether the VLAN is this rack's to serve, and how.
#[must_use]
pub fn part_in(vlan: &Vlan, rack: &SystemId) -> Option<Part> {
    if !vlan.dhcp_on {
        return None;
    }
    if vlan.primary_rack.as_ref() == Some(rack) {
        Some(Part::Primary)
    } else if vlan.secondary_rack.as_ref() == Some(rack) {
        Some(Part::Secondary)
    } else {
        None
    }
}

/// What this rack serves. A VLAN is served through the first interface, by index, that is up, has a hardware
/// address and lies in it.
#[must_use]
pub fn plan(snapshot: &Snapshot, interfaces: &[Interface], rack: Option<&SystemId>) -> Plan {
    let mut plan = Plan::default();
    let Some(rack) = rack else { return plan };
    let mine = |id: &i64| {
        snapshot
            .vlans
            .get(id)
            .and_then(|vlan| Some((vlan, part_in(vlan, rack)?)))
    };
    let mut unattached: BTreeSet<i64> = snapshot
        .vlans
        .keys()
        .copied()
        .filter(|id| mine(id).is_some())
        .collect();
    let own: Vec<Ipv4Addr> = interfaces.iter().flat_map(v4_addresses).collect();
    for interface in interfaces.iter().filter(|i| i.up) {
        let Some(mac) = interface.mac else { continue };
        let mut vlans = vlans_of(snapshot, interface);
        vlans.retain(|id| unattached.remove(id));
        let served: Vec<(&Vlan, Part)> = vlans.iter().filter_map(mine).collect();
        if served.is_empty() {
            continue;
        }
        let mut addresses: Vec<Ipv4Addr> = v4_addresses(interface).collect();
        // The server identifier is an address that lies in a network being served.
        addresses.sort_by_key(|a| {
            !served
                .iter()
                .any(|(vlan, _)| v4_subnets(snapshot, vlan.id).any(|(_, net)| net.contains(a)))
        });
        let mut ours = own.clone();
        for (vlan, _) in &served {
            ours.extend(racks_of(snapshot, vlan));
        }
        let direct = served
            .iter()
            .flat_map(|&(vlan, part)| subnets_of(snapshot, vlan, vlan, part))
            .collect();
        let mut relayed = Vec::new();
        for &(vlan, part) in &served {
            // A relayed VLAN is served as the one it is relayed to is.
            for behind in snapshot
                .vlans
                .values()
                .filter(|v| v.relay_vlan == Some(vlan.id) && v.id != vlan.id)
            {
                let subnets = subnets_of(snapshot, behind, vlan, part);
                relayed.push(spec::Relayed {
                    giaddrs: Vec::new(),
                    subnets,
                });
            }
        }
        plan.links.push(LinkPlan {
            index: interface.index,
            name: interface.name.clone(),
            mac,
            part: if served.iter().any(|(_, part)| *part == Part::Primary) {
                Part::Primary
            } else {
                Part::Secondary
            },
            ours,
            spec: spec::Link {
                id: LinkId(interface.index),
                addresses,
                dhcp_on: true,
                subnets: direct,
                relayed,
            },
            vlans,
        });
    }
    plan.unattached = unattached.into_iter().collect();
    if !plan.links.is_empty() {
        let of_machines = snapshot
            .machines
            .values()
            .flat_map(|machine| machine.addresses.iter().map(move |r| (Some(machine), r)));
        // Those that belong to a hardware address alone come behind: the first of one pair counts.
        let others = snapshot
            .subnets
            .values()
            .flat_map(|subnet| subnet.reserved.iter().map(|r| (owner(snapshot, r.mac), r)));
        plan.reservations = of_machines
            .chain(others)
            .filter_map(|(machine, r)| {
                let hostname = machine
                    .map(|m| m.hostname.clone())
                    .filter(|name| !name.is_empty());
                Some(spec::Reservation {
                    mac: Mac(r.mac.0),
                    address: as_v4(r.ip)?,
                    hostname,
                })
            })
            .filter(|r| {
                plan.links
                    .iter()
                    .any(|link| subnets(&link.spec).any(|s| s.cidr.contains(&r.address)))
            })
            .collect();
    }
    plan
}

/// The machine that has a hardware address.
fn owner(snapshot: &Snapshot, mac: MacAddr) -> Option<&Machine> {
    snapshot.machines.values().find(|m| m.macs.contains(&mac))
}

/// DHCP servers on a VLAN that are no strangers: this host's addresses and those of the VLAN's racks.
#[must_use]
pub fn known_servers(snapshot: &Snapshot, interfaces: &[Interface], vlan_id: i64) -> Vec<Ipv4Addr> {
    let own = interfaces.iter().flat_map(v4_addresses);
    own.chain(
        snapshot
            .vlans
            .get(&vlan_id)
            .into_iter()
            .flat_map(|vlan| racks_of(snapshot, vlan)),
    )
    .collect()
}

/// The addresses of a VLAN's racks, as far as the snapshot has them.
fn racks_of(snapshot: &Snapshot, vlan: &Vlan) -> Vec<Ipv4Addr> {
    let racks = [&vlan.primary_rack, &vlan.secondary_rack]
        .into_iter()
        .flatten();
    let machines = racks.filter_map(|id| snapshot.machines.get(id));
    machines
        .flat_map(|machine| &machine.addresses)
        .filter_map(|r| as_v4(r.ip))
        .collect()
}

/// All subnets of a link, those behind relay agents too.
fn subnets(link: &spec::Link) -> impl Iterator<Item = &spec::Subnet> {
    link.subnets
        .iter()
        .chain(link.relayed.iter().flat_map(|r| &r.subnets))
}

/// The engine's configuration for those links of the plan that may be served.
#[must_use]
pub fn config(plan: &Plan, allowed: impl Fn(&LinkPlan) -> bool, http_port: u16) -> spec::Config {
    spec::Config {
        links: plan
            .links
            .iter()
            .filter(|link| allowed(link))
            .map(|link| link.spec.clone())
            .collect(),
        reservations: plan.reservations.clone(),
        settings: spec::Settings {
            http_port,
            ..spec::Settings::default()
        },
    }
}

/// Subnets of `vlan` for the engine; `through` is the VLAN whose racks serve it.
fn subnets_of(snapshot: &Snapshot, vlan: &Vlan, through: &Vlan, part: Part) -> Vec<spec::Subnet> {
    let shared = through.primary_rack.is_some() && through.secondary_rack.is_some();
    let one = |(subnet, cidr): (&Subnet, ipnet::Ipv4Net)| {
        let dns = if subnet.dns_servers.is_empty() {
            &snapshot.settings.dns_servers
        } else {
            &subnet.dns_servers
        };
        let domain = Some(&snapshot.settings.default_domain).filter(|name| !name.is_empty());
        let (dynamic, reserved): (Vec<&Range>, Vec<&Range>) =
            subnet.ranges.iter().partition(|r| r.dynamic);
        let dynamic = dynamic.into_iter().filter_map(v4_range);
        spec::Subnet {
            gateway: subnet.gateway.and_then(as_v4),
            dns_servers: dns.iter().copied().filter_map(as_v4).collect(),
            domain_name: domain.cloned(),
            search: domain.cloned().into_iter().collect(),
            ntp_servers: snapshot
                .settings
                .ntp_servers
                .iter()
                .filter_map(|s| s.parse().ok())
                .collect(),
            mtu: Some(vlan.mtu),
            dynamic: if shared {
                dynamic.filter_map(|r| half(r, part)).collect()
            } else {
                dynamic.collect()
            },
            excluded: reserved.into_iter().filter_map(v4_range).collect(),
            disabled_boot_methods: subnet.disabled_boot_architectures.clone(),
            ..spec::Subnet::new(SubnetId(subnet.id), cidr)
        }
    };
    v4_subnets(snapshot, vlan.id).map(one).collect()
}

fn v4_subnets(
    snapshot: &Snapshot,
    vlan_id: i64,
) -> impl Iterator<Item = (&Subnet, ipnet::Ipv4Net)> {
    snapshot
        .subnets
        .values()
        .filter(move |subnet| subnet.vlan_id == vlan_id)
        .filter_map(|subnet| match subnet.cidr {
            IpNet::V4(net) => Some((subnet, net.trunc())),
            IpNet::V6(_) => None,
        })
}

/// Two racks of one VLAN do not know each other's leases, so each gives out its own half of every range:
/// the primary the lower, the secondary the upper one.
fn half(range: spec::Range, part: Part) -> Option<spec::Range> {
    let (first, last) = (u32::from(range.first), u32::from(range.last));
    let middle = first + last.checked_sub(first)? / 2;
    match part {
        Part::Primary => Some(spec::Range {
            first: range.first,
            last: middle.into(),
        }),
        Part::Secondary if middle < last => Some(spec::Range {
            first: (middle + 1).into(),
            last: range.last,
        }),
        Part::Secondary => None,
    }
}

fn v4_range(range: &Range) -> Option<spec::Range> {
    Some(spec::Range {
        first: as_v4(range.start)?,
        last: as_v4(range.end)?,
    })
}

fn v4_addresses(interface: &Interface) -> impl Iterator<Item = Ipv4Addr> {
    interface
        .addresses
        .iter()
        .filter_map(|net| as_v4(net.addr()))
}

fn as_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::snapshot::Reservation;

    const RACK: &str = "rack01";

    fn vlan(id: i64, dhcp_on: bool, primary: Option<&str>, secondary: Option<&str>) -> Vlan {
        Vlan {
            id,
            vid: 0,
            fabric: "fabric-0".into(),
            mtu: 1500,
            dhcp_on,
            primary_rack: primary.map(SystemId::from),
            secondary_rack: secondary.map(SystemId::from),
            relay_vlan: None,
        }
    }

    fn subnet(id: i64, vlan_id: i64, cidr: &str, ranges: &[(&str, &str, bool)]) -> Subnet {
        let range = |&(start, end, dynamic): &(&str, &str, bool)| Range {
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
            dynamic,
        };
        Subnet {
            id,
            vlan_id,
            cidr: cidr.parse().unwrap(),
            gateway: None,
            dns_servers: Vec::new(),
            allow_dns: true,
            disabled_boot_architectures: Vec::new(),
            router_advertisements: false,
            ranges: ranges.iter().map(range).collect(),
            reserved: Vec::new(),
        }
    }

    fn interface(index: u32, addresses: &[&str]) -> Interface {
        Interface {
            index,
            name: format!("eth{index}"),
            mac: Some(MacAddr([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            up: true,
            loopback: false,
        }
    }

    fn snapshot(vlans: &[Vlan], subnets: &[Subnet]) -> Snapshot {
        let mut out = Snapshot::default();
        out.settings.default_domain = "maas".into();
        out.settings.dns_servers = vec![
            "192.0.2.53".parse().unwrap(),
            "2001:db8::53".parse().unwrap(),
        ];
        out.settings.ntp_servers = vec!["192.0.2.123".into(), "ntp.example.com".into()];
        out.vlans.extend(vlans.iter().map(|v| (v.id, v.clone())));
        out.subnets
            .extend(subnets.iter().map(|s| (s.id, s.clone())));
        out
    }

    fn rack() -> SystemId {
        SystemId::from(RACK)
    }

    fn range(first: &str, last: &str) -> spec::Range {
        spec::Range {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        }
    }

    #[test]
    fn only_vlans_that_are_on_and_this_racks_are_served() {
        let snapshot = snapshot(
            &[
                vlan(1, true, Some(RACK), None),
                vlan(2, false, Some(RACK), None),
                vlan(3, true, Some("other"), None),
                vlan(4, true, Some("other"), Some(RACK)),
                vlan(5, true, Some(RACK), None),
            ],
            &[
                subnet(1, 1, "10.1.0.0/24", &[]),
                subnet(2, 2, "10.2.0.0/24", &[]),
                subnet(3, 3, "10.3.0.0/24", &[]),
                subnet(4, 4, "10.4.0.0/24", &[]),
                subnet(5, 5, "10.5.0.0/24", &[]),
            ],
        );
        let all: Vec<Interface> = (1..=4)
            .map(|n| interface(n, &[format!("10.{n}.0.1/24").as_str()]))
            .collect();
        let plan = plan(&snapshot, &all, Some(&rack()));
        let served: Vec<(u32, &[i64], Part)> = plan
            .links
            .iter()
            .map(|l| (l.index, l.vlans.as_slice(), l.part))
            .collect();
        assert_eq!(
            served,
            [(1, &[1][..], Part::Primary), (4, &[4][..], Part::Secondary)]
        );
        assert_eq!(plan.unattached, [5]);
        assert_eq!(
            super::plan(&snapshot, &all, None),
            Plan::default(),
            "a rack without a name serves nothing"
        );
    }

    #[test]
    fn interfaces_that_cannot_carry_it_are_passed_over() {
        let snapshot = snapshot(
            &[vlan(1, true, Some(RACK), None)],
            &[subnet(1, 1, "10.1.0.0/24", &[])],
        );
        let down = Interface {
            up: false,
            ..interface(1, &["10.1.0.1/24"])
        };
        let tunnel = Interface {
            mac: None,
            ..interface(2, &["10.1.0.2/24"])
        };
        assert!(
            plan(&snapshot, &[down.clone(), tunnel.clone()], Some(&rack()))
                .links
                .is_empty()
        );
        let all = [
            down,
            tunnel,
            interface(3, &["10.1.0.3/24"]),
            interface(4, &["10.1.0.4/24"]),
        ];
        let plan = plan(&snapshot, &all, Some(&rack()));
        assert_eq!(
            plan.links.iter().map(|l| l.index).collect::<Vec<_>>(),
            [3],
            "one interface per VLAN"
        );
    }

    #[test]
    fn a_subnet_becomes_what_its_machines_are_told() {
        let mut stated = subnet(
            7,
            1,
            "10.1.0.0/24",
            &[
                ("10.1.0.100", "10.1.0.200", true),
                ("10.1.0.150", "10.1.0.160", false),
            ],
        );
        stated.gateway = Some("10.1.0.254".parse().unwrap());
        stated.disabled_boot_architectures = vec!["ipxe".into()];
        let v6 = subnet(
            8,
            1,
            "2001:db8::/64",
            &[("2001:db8::10", "2001:db8::20", true)],
        );
        let mut snapshot = snapshot(
            &[Vlan {
                mtu: 9000,
                ..vlan(1, true, Some(RACK), None)
            }],
            &[stated, v6],
        );
        snapshot.machines.insert(
            "abc123".into(),
            machine(
                "abc123",
                "brave-hen",
                &[
                    ("52:54:00:00:00:01", "10.1.0.7"),
                    ("52:54:00:00:00:02", "192.0.2.9"),
                ],
            ),
        );
        let plan = plan(
            &snapshot,
            &[interface(3, &["192.0.2.1/24", "10.1.0.1/24"])],
            Some(&rack()),
        );
        let link = &plan.links[0].spec;
        assert_eq!(
            link.addresses,
            ["10.1.0.1", "192.0.2.1"].map(|a| a.parse::<Ipv4Addr>().unwrap()),
            "the address in the network comes first"
        );
        let wanted = spec::Subnet {
            gateway: Some("10.1.0.254".parse().unwrap()),
            dns_servers: vec!["192.0.2.53".parse().unwrap()],
            domain_name: Some("maas".into()),
            search: vec!["maas".into()],
            ntp_servers: vec!["192.0.2.123".parse().unwrap()],
            mtu: Some(9000),
            dynamic: vec![range("10.1.0.100", "10.1.0.200")],
            excluded: vec![range("10.1.0.150", "10.1.0.160")],
            disabled_boot_methods: vec!["ipxe".into()],
            ..spec::Subnet::new(SubnetId(7), "10.1.0.0/24".parse().unwrap())
        };
        assert_eq!(link.subnets, [wanted]);
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let reserved = spec::Reservation {
            mac,
            address: "10.1.0.7".parse().unwrap(),
            hostname: Some("brave-hen".into()),
        };
        assert_eq!(
            plan.reservations,
            [reserved],
            "those of other networks are left out"
        );
        let (_, problems) = wire_dhcp::Config::compile(&config(&plan, |_| true, 5248));
        assert_eq!(problems, []);
        assert!(config(&plan, |_| false, 5248).links.is_empty());
    }

    #[test]
    fn relayed_vlans_are_served_through_the_vlan_they_are_relayed_to() {
        let behind = Vlan {
            relay_vlan: Some(1),
            ..vlan(2, false, None, None)
        };
        let snapshot = snapshot(
            &[vlan(1, true, Some(RACK), None), behind],
            &[
                subnet(1, 1, "10.1.0.0/24", &[]),
                subnet(2, 2, "10.2.0.0/24", &[("10.2.0.10", "10.2.0.20", true)]),
            ],
        );
        let plan = plan(&snapshot, &[interface(3, &["10.1.0.1/24"])], Some(&rack()));
        let relayed = &plan.links[0].spec.relayed;
        assert_eq!(relayed.len(), 1);
        assert_eq!(
            relayed[0].subnets[0].dynamic,
            [range("10.2.0.10", "10.2.0.20")]
        );
    }

    #[test]
    fn two_racks_never_give_out_the_same_dynamic_address() {
        let ranges = [
            ("10.1.0.10", "10.1.0.20", true),
            ("10.1.0.30", "10.1.0.30", true),
        ];
        let dynamic = |name: &str| {
            let snapshot = snapshot(
                &[vlan(1, true, Some("one"), Some("two"))],
                &[subnet(1, 1, "10.1.0.0/24", &ranges)],
            );
            let plan = plan(
                &snapshot,
                &[interface(3, &["10.1.0.1/24"])],
                Some(&name.into()),
            );
            plan.links[0].spec.subnets[0].dynamic.clone()
        };
        assert_eq!(
            dynamic("one"),
            [
                range("10.1.0.10", "10.1.0.15"),
                range("10.1.0.30", "10.1.0.30")
            ]
        );
        assert_eq!(dynamic("two"), [range("10.1.0.16", "10.1.0.20")]);
    }

    fn machine(id: &str, hostname: &str, addresses: &[(&str, &str)]) -> Machine {
        let reservation = |&(mac, ip): &(&str, &str)| Reservation {
            mac: mac.parse().unwrap(),
            ip: ip.parse().unwrap(),
            subnet_id: 1,
        };
        Machine {
            system_id: id.into(),
            hostname: hostname.into(),
            fqdn: format!("{hostname}.maas"),
            facts: metal::boot::Facts {
                status: metal::status::Status::Ready,
                netboot: true,
                ephemeral_deploy: false,
                is_machine: true,
            },
            architecture: "amd64/generic".into(),
            hardware_uuid: None,
            macs: Vec::new(),
            addresses: addresses.iter().map(reservation).collect(),
            kernel_opts: String::new(),
            deploy: None,
        }
    }

    #[test]
    fn the_partner_rack_is_no_stranger() {
        let mut snapshot = snapshot(
            &[vlan(1, true, Some("one"), Some("two"))],
            &[subnet(1, 1, "10.1.0.0/24", &[])],
        );
        snapshot.machines.insert(
            "one".into(),
            machine("one", "rack-one", &[("52:54:00:00:00:01", "10.1.0.1")]),
        );
        let plan = plan(
            &snapshot,
            &[interface(3, &["10.1.0.2/24"])],
            Some(&"two".into()),
        );
        assert_eq!(
            plan.links[0].ours,
            ["10.1.0.2", "10.1.0.1"].map(|a| a.parse::<Ipv4Addr>().unwrap())
        );
    }

    #[test]
    fn an_address_of_a_hardware_address_is_kept_for_it_known_or_not() {
        let reservation = |mac: &str, ip: &str| Reservation {
            mac: mac.parse().unwrap(),
            ip: ip.parse().unwrap(),
            subnet_id: 1,
        };
        let mut here = subnet(1, 1, "10.1.0.0/24", &[("10.1.0.100", "10.1.0.200", true)]);
        here.reserved = vec![
            reservation("52:54:00:00:00:01", "10.1.0.9"),
            reservation("52:54:00:00:00:02", "10.1.0.10"),
            reservation("52:54:00:00:00:02", "2001:db8::10"),
        ];
        // Another rack's subnet is none of this one's business.
        let mut there = subnet(2, 2, "10.2.0.0/24", &[]);
        there.reserved = vec![reservation("52:54:00:00:00:03", "10.2.0.9")];
        let mut snapshot = snapshot(
            &[
                vlan(1, true, Some(RACK), None),
                vlan(2, true, Some("other"), None),
            ],
            &[here, there],
        );
        let mut known = machine("m", "web", &[]);
        known.macs = vec!["52:54:00:00:00:01".parse().unwrap()];
        snapshot.machines.insert("m".into(), known);
        let plan = plan(&snapshot, &[interface(3, &["10.1.0.1/24"])], Some(&rack()));
        let told: Vec<(String, Option<&str>)> = plan
            .reservations
            .iter()
            .map(|r| (r.address.to_string(), r.hostname.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("10.1.0.9".to_owned(), Some("web")),
                ("10.1.0.10".to_owned(), None)
            ]
        );
        let (_, problems) = wire_dhcp::Config::compile(&config(&plan, |_| true, 5248));
        assert_eq!(problems, []);
    }
}
