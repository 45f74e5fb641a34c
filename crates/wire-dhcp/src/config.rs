//! The configuration as the engine works with it: checked, indexed, immutable, shared by `Arc`.

use crate::boot::{BootMethod, MethodSet};
use crate::reply::code;
use crate::spec::{self, Settings};
use crate::types::{LinkId, Mac, SubnetId};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Shortest lease time in seconds, whatever is configured or asked for.
pub const LEASE_TIME_MIN_S: u32 = 10;
/// Servers listed in one option.
pub const SERVERS_MAX: usize = 16;
/// Bytes of an encoded search list (option 119).
pub const SEARCH_BYTES_MAX: usize = 510;
/// Bytes of a domain name or host name sent to clients.
pub const NAME_BYTES_MAX: usize = 253;
/// MTU that needs no option 26.
const MTU_ORDINARY: u16 = 1500;

/// Something in the stated configuration that could not be used. The rest works without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// Two links with one id: the later is ignored.
    #[error("link {0:?} is listed twice; the later entry is ignored")]
    DuplicateLink(LinkId),
    /// Nothing can be answered from an interface without an address.
    #[error("link {0:?} has DHCP on and no address of ours; it stays silent")]
    LinkWithoutAddress(LinkId),
    /// Two subnets with one id: the later is ignored.
    #[error("subnet {0} is listed twice; the later entry is ignored")]
    DuplicateSubnet(SubnetId),
    /// A relay agent's address listed for two networks: the first keeps it.
    #[error("relay agent {0} is listed for two networks; the first keeps it")]
    DuplicateRelay(Ipv4Addr),
    /// A range that is upside down or not inside its subnet.
    #[error("subnet {subnet}: range {first}-{last} is not a range inside {cidr}; ignored")]
    BadRange {
        /// The subnet.
        subnet: SubnetId,
        /// Its network.
        cidr: Ipv4Net,
        /// Lowest address stated.
        first: Ipv4Addr,
        /// Highest address stated.
        last: Ipv4Addr,
    },
    /// A dynamic range shares addresses with one that came before.
    #[error(
        "subnet {subnet}: dynamic range {first}-{last} overlaps another one; the shared addresses stay with the first"
    )]
    RangeOverlap {
        /// The subnet.
        subnet: SubnetId,
        /// Lowest address stated.
        first: Ipv4Addr,
        /// Highest address stated.
        last: Ipv4Addr,
    },
    /// A boot method that does not exist.
    #[error("subnet {subnet}: {name:?} is not a boot method; nothing is disabled by it")]
    UnknownBootMethod {
        /// The subnet.
        subnet: SubnetId,
        /// The name stated.
        name: String,
    },
    /// A domain name that cannot be put into a packet.
    #[error("subnet {subnet}: {name:?} is not a domain name; not sent")]
    BadDomainName {
        /// The subnet.
        subnet: SubnetId,
        /// The name stated.
        name: String,
    },
    /// More servers or search domains than a reply has room for.
    #[error("subnet {subnet}: option {code} is cut to what fits")]
    OptionCut {
        /// The subnet.
        subnet: SubnetId,
        /// Which option.
        code: u8,
    },
    /// A reservation in none of the subnets.
    #[error("reservation of {address} for {mac} lies in no subnet; ignored")]
    ReservationOutside {
        /// The network card.
        mac: Mac,
        /// The address stated.
        address: Ipv4Addr,
    },
    /// A reservation of an address that no machine can have: ours, the gateway's, the network's.
    #[error(
        "reservation of {address} for {mac}: the address is taken by the network itself; ignored"
    )]
    ReservationTaken {
        /// The network card.
        mac: Mac,
        /// The address stated.
        address: Ipv4Addr,
    },
}

/// A checked configuration. Made by [`Config::compile`], which may run far from the engine; the engine only
/// swaps a pointer and the pools that changed.
#[derive(Debug, Default)]
pub struct Config {
    pub(crate) settings: Settings,
    pub(crate) networks: Vec<Network>,
    pub(crate) subnets: Vec<Subnet>,
    /// Where dynamic addresses are: sorted by first address, not overlapping.
    pool_ranges: Vec<PoolRange>,
    by_link: BTreeMap<LinkId, usize>,
    by_relay: BTreeMap<Ipv4Addr, usize>,
    by_mac: BTreeMap<Mac, Vec<Reserved>>,
    by_address: BTreeMap<Ipv4Addr, Vec<Mac>>,
    own: BTreeSet<Ipv4Addr>,
}

/// Subnets on one wire: what ISC calls a shared network.
#[derive(Debug)]
pub(crate) struct Network {
    /// Our address in option 54.
    pub(crate) server_id: Ipv4Addr,
    pub(crate) dhcp_on: bool,
    /// Indices into `subnets`.
    pub(crate) subnets: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Subnet {
    pub(crate) id: SubnetId,
    pub(crate) network: usize,
    pub(crate) cidr: Ipv4Net,
    /// Our address that machines of this subnet reach us at.
    pub(crate) rack: Ipv4Addr,
    pub(crate) lease_time_s: u32,
    pub(crate) disabled: MethodSet,
    /// Options that are the same for every client, encoded, in the order in which they are sent.
    pub(crate) options: Vec<(u8, Vec<u8>)>,
    /// Dynamic addresses: sorted, not touching one another.
    pub(crate) pool: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct PoolRange {
    first: u32,
    last: u32,
    subnet: usize,
}

/// A reservation of one card.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) address: Ipv4Addr,
    pub(crate) subnet: usize,
    pub(crate) hostname: Option<String>,
}

impl Config {
    /// Checks and indexes a configuration. What cannot be used is left out and named, so that one bad entry
    /// does not stop the whole rack from booting machines.
    pub fn compile(stated: &spec::Config) -> (Config, Vec<ConfigProblem>) {
        let mut config = Config {
            settings: stated.settings.clone(),
            ..Config::default()
        };
        let mut problems = Vec::new();
        let mut compile = Compile {
            config: &mut config,
            problems: &mut problems,
        };
        compile.links(&stated.links);
        compile.reservations(&stated.reservations);
        compile.pools(&stated.links);
        (config, problems)
    }

    /// Whether the address is one of the rack's own.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        self.own.contains(&address)
    }

    pub(crate) fn network_of_link(&self, link: LinkId) -> Option<usize> {
        self.by_link.get(&link).copied()
    }

    pub(crate) fn network_of_relay(&self, giaddr: Ipv4Addr) -> Option<usize> {
        self.by_relay.get(&giaddr).copied()
    }

    /// The most specific subnet that the address lies in, over all networks.
    pub(crate) fn subnet_of(&self, address: Ipv4Addr) -> Option<usize> {
        (0..self.subnets.len())
            .filter(|&subnet| self.subnets[subnet].cidr.contains(&address))
            .max_by_key(|&subnet| self.subnets[subnet].cidr.prefix_len())
    }

    /// The most specific subnet of one network that the address lies in.
    pub(crate) fn subnet_in(&self, network: usize, address: Ipv4Addr) -> Option<usize> {
        self.networks[network]
            .subnets
            .iter()
            .copied()
            .filter(|&subnet| self.subnets[subnet].cidr.contains(&address))
            .max_by_key(|&subnet| self.subnets[subnet].cidr.prefix_len())
    }

    /// The subnet whose dynamic addresses include this one.
    pub(crate) fn pool_of(&self, address: Ipv4Addr) -> Option<usize> {
        let address = u32::from(address);
        let after = self
            .pool_ranges
            .partition_point(|range| range.first <= address);
        let range = self.pool_ranges.get(after.checked_sub(1)?)?;
        (address <= range.last).then_some(range.subnet)
    }

    pub(crate) fn reservations_of(&self, mac: Mac) -> &[Reserved] {
        self.by_mac.get(&mac).map_or(&[], Vec::as_slice)
    }

    /// The cards an address is reserved for; none when it is not reserved.
    pub(crate) fn reserved_for(&self, address: Ipv4Addr) -> &[Mac] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }
}

struct Compile<'a> {
    config: &'a mut Config,
    problems: &'a mut Vec<ConfigProblem>,
}

impl Compile<'_> {
    fn links(&mut self, links: &[spec::Link]) {
        self.config.own = links
            .iter()
            .flat_map(|link| link.addresses.iter().copied())
            .collect();
        for link in links {
            if self.config.by_link.contains_key(&link.id) {
                self.problems.push(ConfigProblem::DuplicateLink(link.id));
                continue;
            }
            let server_id = link.addresses.first().copied();
            if link.dhcp_on && server_id.is_none() {
                self.problems
                    .push(ConfigProblem::LinkWithoutAddress(link.id));
            }
            let own = self.network(link, server_id, &link.subnets);
            self.config.by_link.insert(link.id, own);
            for relayed in &link.relayed {
                let network = self.network(link, server_id, &relayed.subnets);
                for &giaddr in &relayed.giaddrs {
                    if *self.config.by_relay.entry(giaddr).or_insert(network) != network {
                        self.problems.push(ConfigProblem::DuplicateRelay(giaddr));
                    }
                }
            }
        }
    }

    fn network(
        &mut self,
        link: &spec::Link,
        server_id: Option<Ipv4Addr>,
        subnets: &[spec::Subnet],
    ) -> usize {
        let network = self.config.networks.len();
        self.config.networks.push(Network {
            server_id: server_id.unwrap_or(Ipv4Addr::UNSPECIFIED),
            dhcp_on: link.dhcp_on && server_id.is_some(),
            subnets: Vec::new(),
        });
        for subnet in subnets {
            if self
                .config
                .subnets
                .iter()
                .any(|other| other.id == subnet.id)
            {
                self.problems
                    .push(ConfigProblem::DuplicateSubnet(subnet.id));
                continue;
            }
            let compiled = self.subnet(network, link, subnet);
            let index = self.config.subnets.len();
            self.config.subnets.push(compiled);
            self.config.networks[network].subnets.push(index);
        }
        network
    }

    fn subnet(&mut self, network: usize, link: &spec::Link, subnet: &spec::Subnet) -> Subnet {
        let inside = link
            .addresses
            .iter()
            .find(|address| subnet.cidr.contains(*address));
        let rack = inside
            .or(link.addresses.first())
            .copied()
            .unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut disabled = MethodSet::default();
        for name in &subnet.disabled_boot_methods {
            match BootMethod::from_name(name) {
                Some(method) => disabled.insert(method),
                None => self.problems.push(ConfigProblem::UnknownBootMethod {
                    subnet: subnet.id,
                    name: name.clone(),
                }),
            }
        }
        let options = self.options(subnet);
        let lease_time_s = subnet
            .lease_time_s
            .unwrap_or(self.config.settings.lease_time_s);
        Subnet {
            id: subnet.id,
            network,
            cidr: subnet.cidr,
            rack,
            lease_time_s: lease_time_s.max(LEASE_TIME_MIN_S),
            disabled,
            options,
            pool: Vec::new(),
        }
    }

    fn options(&mut self, subnet: &spec::Subnet) -> Vec<(u8, Vec<u8>)> {
        let mut options = vec![(code::SUBNET_MASK, subnet.cidr.netmask().octets().to_vec())];
        if let Some(gateway) = subnet.gateway {
            options.push((code::ROUTER, gateway.octets().to_vec()));
        }
        let dns = self.servers(subnet.id, code::DNS_SERVERS, &subnet.dns_servers);
        options.extend(dns.map(|bytes| (code::DNS_SERVERS, bytes)));
        if let Some(name) = &subnet.domain_name {
            match encode_name(name) {
                // Option 15 is text; the encoding is only the check.
                Some(_) => options.push((
                    code::DOMAIN_NAME,
                    name.trim_end_matches('.').as_bytes().to_vec(),
                )),
                None => self.bad_name(subnet.id, name),
            }
        }
        options.push((code::BROADCAST, subnet.cidr.broadcast().octets().to_vec()));
        if let Some(mtu) = subnet.mtu.filter(|&mtu| mtu != MTU_ORDINARY) {
            options.push((code::INTERFACE_MTU, mtu.to_be_bytes().to_vec()));
        }
        let ntp = self.servers(subnet.id, code::NTP_SERVERS, &subnet.ntp_servers);
        options.extend(ntp.map(|bytes| (code::NTP_SERVERS, bytes)));
        let mut search = Vec::new();
        for name in &subnet.search {
            match encode_name(name) {
                Some(encoded) if search.len() + encoded.len() <= SEARCH_BYTES_MAX => {
                    search.extend(encoded)
                }
                Some(_) => {
                    self.problems.push(ConfigProblem::OptionCut {
                        subnet: subnet.id,
                        code: code::DOMAIN_SEARCH,
                    });
                    break;
                }
                None => self.bad_name(subnet.id, name),
            }
        }
        if !search.is_empty() {
            options.push((code::DOMAIN_SEARCH, search));
        }
        options
    }

    fn bad_name(&mut self, subnet: SubnetId, name: &str) {
        self.problems.push(ConfigProblem::BadDomainName {
            subnet,
            name: name.to_owned(),
        });
    }

    fn servers(&mut self, subnet: SubnetId, code: u8, servers: &[Ipv4Addr]) -> Option<Vec<u8>> {
        if servers.len() > SERVERS_MAX {
            self.problems
                .push(ConfigProblem::OptionCut { subnet, code });
        }
        let bytes: Vec<u8> = servers
            .iter()
            .take(SERVERS_MAX)
            .flat_map(|server| server.octets())
            .collect();
        (!bytes.is_empty()).then_some(bytes)
    }

    fn reservations(&mut self, reservations: &[spec::Reservation]) {
        for reservation in reservations {
            let spec::Reservation { mac, address, .. } = *reservation;
            let Some(subnet) = self.config.subnet_of(address) else {
                self.problems
                    .push(ConfigProblem::ReservationOutside { mac, address });
                continue;
            };
            if self.config.is_own(address)
                || is_network_address(self.config.subnets[subnet].cidr, address)
            {
                self.problems
                    .push(ConfigProblem::ReservationTaken { mac, address });
                continue;
            }
            let hostname = reservation
                .hostname
                .clone()
                .filter(|name| encode_name(name).is_some());
            let of_card = self.config.by_mac.entry(mac).or_default();
            if of_card.iter().any(|other| other.address == address) {
                continue;
            }
            of_card.push(Reserved {
                address,
                subnet,
                hostname,
            });
            self.config.by_address.entry(address).or_default().push(mac);
        }
    }

    fn pools(&mut self, links: &[spec::Link]) {
        let stated = links.iter().flat_map(|link| {
            link.subnets.iter().chain(
                link.relayed
                    .iter()
                    .flat_map(|relayed| relayed.subnets.iter()),
            )
        });
        // Addresses that are never dynamic anywhere.
        let mut taken: Vec<(u32, u32)> = self
            .config
            .own
            .iter()
            .chain(self.config.by_address.keys())
            .map(|&address| (u32::from(address), u32::from(address)))
            .collect();
        taken.sort_unstable();
        let mut assigned: Vec<(u32, u32)> = Vec::new();
        let mut done = BTreeSet::new();
        for stated in stated {
            let Some(index) = self
                .config
                .subnets
                .iter()
                .position(|subnet| subnet.id == stated.id)
            else {
                continue;
            };
            if !done.insert(stated.id) {
                continue;
            }
            let mut wanted = Vec::new();
            for range in &stated.dynamic {
                let Some(range) = self.range(stated, range) else {
                    continue;
                };
                let free = subtract(&[range], &assigned);
                if free != [range] {
                    self.problems.push(ConfigProblem::RangeOverlap {
                        subnet: stated.id,
                        first: range.0.into(),
                        last: range.1.into(),
                    });
                }
                assigned.extend(&free);
                assigned.sort_unstable();
                wanted.extend(free);
            }
            wanted.sort_unstable();
            let mut excluded: Vec<(u32, u32)> = Vec::new();
            for range in &stated.excluded {
                excluded.extend(self.range(stated, range));
            }
            let single = stated
                .gateway
                .into_iter()
                .chain(stated.dns_servers.iter().copied());
            excluded.extend(single.map(|address| (u32::from(address), u32::from(address))));
            if stated.cidr.prefix_len() < 31 {
                for address in [stated.cidr.network(), stated.cidr.broadcast()] {
                    excluded.push((u32::from(address), u32::from(address)));
                }
            }
            excluded.sort_unstable();
            let pool = join(subtract(&subtract(&wanted, &excluded), &taken));
            let ranges = pool.iter().map(|&(first, last)| PoolRange {
                first,
                last,
                subnet: index,
            });
            self.config.pool_ranges.extend(ranges);
            self.config.subnets[index].pool = pool;
        }
        self.config
            .pool_ranges
            .sort_unstable_by_key(|range| range.first);
    }

    fn range(&mut self, subnet: &spec::Subnet, range: &spec::Range) -> Option<(u32, u32)> {
        let spec::Range { first, last } = *range;
        if first <= last && subnet.cidr.contains(&first) && subnet.cidr.contains(&last) {
            return Some((first.into(), last.into()));
        }
        self.problems.push(ConfigProblem::BadRange {
            subnet: subnet.id,
            cidr: subnet.cidr,
            first,
            last,
        });
        None
    }
}

/// Network and broadcast address of a subnet that has them (RFC 3021: not below /31).
pub(crate) fn is_network_address(cidr: Ipv4Net, address: Ipv4Addr) -> bool {
    cidr.prefix_len() < 31 && (address == cidr.network() || address == cidr.broadcast())
}

/// `from` without `holes`; both sorted by first address, holes may overlap one another.
fn subtract(from: &[(u32, u32)], holes: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut left = Vec::with_capacity(from.len());
    let mut next_hole = 0;
    for &(first, last) in from {
        // Holes that end before this range can be passed for good: later ranges start higher.
        while next_hole < holes.len() && holes[next_hole].1 < first {
            next_hole += 1;
        }
        let mut at = Some(first);
        for &(hole_first, hole_last) in &holes[next_hole..] {
            let Some(start) = at.filter(|_| hole_first <= last) else {
                break;
            };
            if hole_last < start {
                continue;
            }
            if hole_first > start {
                left.push((start, hole_first - 1));
            }
            at = hole_last.checked_add(1).filter(|&next| next <= last);
        }
        if let Some(start) = at {
            left.push((start, last));
        }
    }
    left
}

/// Sorted ranges with neighbours made one.
fn join(ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(previous) if previous.1.checked_add(1) == Some(first) => previous.1 = last,
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// A domain name as in RFC 1035 §3.1, without compression; nothing when it is not one.
fn encode_name(name: &str) -> Option<Vec<u8>> {
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut encoded = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let fits = (1..=63).contains(&label.len());
        if !fits
            || !label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return None;
        }
        encoded.push(label.len() as u8);
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0u32..60, 0u32..6), 0..10).prop_map(|pairs| {
            let mut ranges: Vec<_> = pairs
                .into_iter()
                .map(|(first, more)| (first, first + more))
                .collect();
            ranges.sort_unstable();
            ranges
        })
    }

    proptest! {
        #[test]
        fn subtract_agrees_with_plain_sets(from in ranges(), holes in ranges()) {
            // The first argument is a set of ranges without overlap.
            let from = subtract(&[(0, 70)], &subtract(&[(0, 70)], &from));
            let left: Vec<u32> = subtract(&from, &holes).into_iter().flat_map(|(a, b)| a..=b).collect();
            let plain: Vec<u32> = (0..=70)
                .filter(|n| from.iter().any(|(a, b)| (a..=b).contains(&n)))
                .filter(|n| !holes.iter().any(|(a, b)| (a..=b).contains(&n)))
                .collect();
            prop_assert_eq!(left, plain);
        }
    }

    #[test]
    fn ranges_reach_the_last_address_without_overflow() {
        assert_eq!(
            subtract(&[(0, u32::MAX)], &[(u32::MAX, u32::MAX)]),
            vec![(0, u32::MAX - 1)]
        );
        assert_eq!(subtract(&[(5, u32::MAX)], &[(0, u32::MAX)]), vec![]);
        assert_eq!(join(vec![(1, 2), (3, u32::MAX)]), vec![(1, u32::MAX)]);
    }

    fn subnet(id: i64, cidr: &str) -> spec::Subnet {
        spec::Subnet::new(SubnetId(id), cidr.parse().unwrap())
    }

    fn range(first: &str, last: &str) -> spec::Range {
        spec::Range {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        }
    }

    #[test]
    fn each_mistake_is_named_and_the_rest_works() {
        let mut a = subnet(1, "10.0.0.0/24");
        a.gateway = Some(Ipv4Addr::new(10, 0, 0, 254));
        a.dynamic = vec![
            range("10.0.0.100", "10.0.0.255"),
            range("10.0.0.90", "10.0.0.110"),
            range("10.0.1.0", "10.0.1.9"),
        ];
        a.excluded = vec![range("10.0.0.120", "10.0.0.129")];
        a.disabled_boot_methods = vec!["ipxe".into(), "floppy".into()];
        a.domain_name = Some("bad name".into());
        let link = spec::Link {
            id: LinkId(1),
            addresses: vec![Ipv4Addr::new(10, 0, 0, 101)],
            dhcp_on: true,
            subnets: vec![a, subnet(1, "10.9.0.0/24")],
            relayed: vec![],
        };
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let reserve = |address: &str| spec::Reservation {
            mac,
            address: address.parse().unwrap(),
            hostname: None,
        };
        let stated = spec::Config {
            links: vec![link.clone(), link],
            reservations: vec![
                reserve("10.0.0.105"),
                reserve("10.0.0.101"),
                reserve("192.0.2.1"),
                reserve("10.0.0.0"),
            ],
            settings: Settings::default(),
        };
        let (config, problems) = Config::compile(&stated);
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 9, "{text:#?}");
        assert!(matches!(
            problems[0],
            ConfigProblem::UnknownBootMethod { .. }
        ));
        assert!(problems.contains(&ConfigProblem::DuplicateSubnet(SubnetId(1))));
        assert!(problems.contains(&ConfigProblem::DuplicateLink(LinkId(1))));
        let pool: Vec<Ipv4Addr> = config.subnets[0]
            .pool
            .iter()
            .flat_map(|&(a, b)| a..=b)
            .map(Ipv4Addr::from)
            .collect();
        // 90..=255 without ours, the reserved one, the excluded ten, the gateway and the broadcast address.
        assert_eq!(pool.len(), 166 - 1 - 1 - 10 - 1 - 1);
        assert!(config.pool_of(Ipv4Addr::new(10, 0, 0, 90)).is_some());
        for refused in [101, 105, 120, 129, 254, 255, 89] {
            assert!(
                config.pool_of(Ipv4Addr::new(10, 0, 0, refused)).is_none(),
                "{refused}"
            );
        }
        assert!(config.subnets[0].disabled.contains(BootMethod::Ipxe));
    }
}
