//! Address arithmetic: which addresses of a subnet are free, and which ranges may be made in it.
//!
//! Everything works on spans of addresses, never on single ones, so that an IPv6 subnet costs no more
//! than a small IPv4 one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::MacAddr;

pub mod usage;

/// Fewest addresses of a dynamic IPv6 range.
pub const MIN_DYNAMIC_V6: u128 = 256;

/// What a range is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeKind {
    /// Given out by DHCP to machines without an address of their own.
    Dynamic,
    /// Kept out of the product's own choice; in an unmanaged subnet the only addresses it chooses from.
    Reserved,
}

impl RangeKind {
    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Reserved => "reserved",
        }
    }

    /// The kind of a word of the API.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "dynamic" => Some(Self::Dynamic),
            "reserved" => Some(Self::Reserved),
            _ => None,
        }
    }
}

impl fmt::Display for RangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A range of addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
    /// What it is for.
    pub kind: RangeKind,
}

impl Range {
    /// Whether the address is in the range.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.start.is_ipv4()
            && number(self.start) <= number(ip)
            && number(ip) <= number(self.end)
    }

    /// Number of addresses, saturating; 0 when the ends are in the wrong order.
    #[must_use]
    pub fn size(&self) -> u128 {
        number(self.end)
            .checked_sub(number(self.start))
            .map_or(0, |d| d.saturating_add(1))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// A subnet as the choice of an address sees it.
#[derive(Clone, Debug)]
pub struct Network {
    /// The network.
    pub net: IpNet,
    /// Whether addresses are chosen freely; otherwise only inside reserved ranges.
    pub managed: bool,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
    /// DNS servers, inside the subnet or not.
    pub dns_servers: Vec<IpAddr>,
    /// Dynamic and reserved ranges.
    pub ranges: Vec<Range>,
    /// Addresses that belong to one hardware address each.
    pub reserved: BTreeMap<IpAddr, MacAddr>,
}

/// Why a range cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The ends are of two families, or not of the subnet's.
    #[error("Start and end address must both be addresses of the subnet's family.")]
    Family,
    /// The end lies before the start.
    #[error("End IP address must not be less than Start IP address.")]
    Reversed,
    /// An end is not in the subnet.
    #[error("IP addresses must be within subnet: {0}.")]
    Outside(IpNet),
    /// It holds the network's own address.
    #[error("The range holds the network's own address {0}.")]
    HoldsNetwork(IpAddr),
    /// It holds the broadcast address.
    #[error("The range holds the broadcast address {0}.")]
    HoldsBroadcast(IpAddr),
    /// A dynamic range holds the gateway.
    #[error("The dynamic range holds the gateway {0}.")]
    HoldsGateway(IpAddr),
    /// A dynamic IPv6 range is too small.
    #[error("A dynamic IPv6 range needs at least {MIN_DYNAMIC_V6} addresses; this one has {0}.")]
    TooSmall(u128),
    /// It overlaps another range.
    #[error("Requested {kind} range conflicts with an existing {} range: {other}.", other.kind)]
    Overlaps {
        /// The kind of range asked for.
        kind: RangeKind,
        /// The range that is there.
        other: Range,
    },
    /// A dynamic range holds an address that belongs to one hardware address.
    #[error("The dynamic range holds {ip}, which is reserved for {mac}.")]
    HoldsReserved {
        /// The address.
        ip: IpAddr,
        /// Whose it is.
        mac: MacAddr,
    },
    /// It holds an address that is in use.
    #[error("Requested {kind} range conflicts with an existing IP address: {ip}.")]
    InUse {
        /// The kind of range asked for.
        kind: RangeKind,
        /// The address.
        ip: IpAddr,
    },
}

/// Why an address cannot be given to an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not in the subnet.
    #[error("IP address is not in the given subnet '{0}'.")]
    Outside(IpNet),
    /// It is the network's own address.
    #[error("{0} is the network's own address.")]
    Network(IpAddr),
    /// It is the broadcast address.
    #[error("{0} is the broadcast address.")]
    Broadcast(IpAddr),
    /// DHCP gives it out.
    #[error("IP address is inside a dynamic range {0}.")]
    Dynamic(Range),
    /// It belongs to another hardware address.
    #[error("IP address is reserved for {0}.")]
    Reserved(MacAddr),
    /// It is the default gateway.
    #[error("{0} is the gateway of the subnet.")]
    Gateway(IpAddr),
    /// Somebody has it.
    #[error("IP address is already in use.")]
    InUse,
}

/// The address as a number; families are never mixed.
const fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => a.to_bits() as u128,
        IpAddr::V6(a) => a.to_bits(),
    }
}

impl Network {
    /// The address of a number in this network's family.
    fn address(&self, n: u128) -> IpAddr {
        match self.net {
            IpNet::V4(_) => Ipv4Addr::from_bits(u32::try_from(n).unwrap_or(u32::MAX)).into(),
            IpNet::V6(_) => Ipv6Addr::from_bits(n).into(),
        }
    }

    const fn same_family(&self, ip: IpAddr) -> bool {
        matches!(
            (self.net, ip),
            (IpNet::V4(_), IpAddr::V4(_)) | (IpNet::V6(_), IpAddr::V6(_))
        )
    }

    /// The network's own address, where the subnet has one: not in /31 (RFC 3021), /127 (RFC 6164) and
    /// smaller. For IPv6 it is the routers' anycast address (RFC 4291 §2.6.1).
    #[must_use]
    pub fn network_address(&self) -> Option<IpAddr> {
        (self.net.max_prefix_len() - self.net.prefix_len() >= 2).then(|| self.net.network())
    }

    /// The broadcast address, where the subnet has one: IPv4 only.
    #[must_use]
    pub fn broadcast_address(&self) -> Option<IpAddr> {
        match self.net {
            IpNet::V4(n) if n.prefix_len() <= 30 => Some(IpAddr::V4(n.broadcast())),
            IpNet::V4(_) | IpNet::V6(_) => None,
        }
    }

    fn bounds(&self) -> (u128, u128) {
        (number(self.net.network()), number(self.net.broadcast()))
    }

    /// What is never chosen, whoever has it.
    fn closed(&self, taken: &BTreeSet<IpAddr>) -> Vec<(u128, u128)> {
        let mut closed: Vec<(u128, u128)> = self
            .network_address()
            .into_iter()
            .chain(self.broadcast_address())
            .chain(self.gateway)
            .chain(self.dns_servers.iter().copied())
            .chain(self.reserved.keys().copied())
            .chain(taken.iter().copied())
            .filter(|ip| self.same_family(*ip))
            .map(|ip| (number(ip), number(ip)))
            .collect();
        closed.extend(
            self.ranges
                .iter()
                .filter(|r| self.managed || r.kind == RangeKind::Dynamic)
                .filter(|r| self.same_family(r.start) && self.same_family(r.end))
                .map(|r| (number(r.start), number(r.end))),
        );
        closed.sort_unstable();
        closed
    }

    /// Where addresses may be chosen at all.
    fn open(&self) -> Vec<(u128, u128)> {
        let (first, last) = self.bounds();
        if self.managed {
            return vec![(first, last)];
        }
        let mut open: Vec<(u128, u128)> = self
            .ranges
            .iter()
            .filter(|r| r.kind == RangeKind::Reserved)
            .filter(|r| self.same_family(r.start) && self.same_family(r.end))
            .map(|r| (number(r.start).max(first), number(r.end).min(last)))
            .filter(|(a, b)| a <= b)
            .collect();
        open.sort_unstable();
        open
    }

    /// The spans of free addresses, lowest first. `taken` are addresses that are assigned, leased or
    /// were seen in use; those of other subnets do not matter.
    #[must_use]
    pub fn free_spans(&self, taken: &BTreeSet<IpAddr>) -> Vec<(IpAddr, IpAddr)> {
        let closed = self.closed(taken);
        let mut out = Vec::new();
        for (start, end) in self.open() {
            let mut at = Some(start);
            for &(a, b) in closed.iter().filter(|(a, b)| *b >= start && *a <= end) {
                let Some(from) = at else { break };
                if a > from {
                    out.push((self.address(from), self.address(a - 1)));
                }
                // Behind the last address of all there is none.
                at = b.checked_add(1).map(|next| next.max(from));
            }
            if let Some(from) = at
                && from <= end
            {
                out.push((self.address(from), self.address(end)));
            }
        }
        out
    }

    /// The address to give next: the lowest free one, or none when all are gone.
    #[must_use]
    pub fn free(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        self.free_spans(taken).first().map(|(start, _)| *start)
    }

    /// The address that belongs to a hardware address here.
    #[must_use]
    pub fn reserved_for(&self, mac: MacAddr) -> Option<IpAddr> {
        self.reserved
            .iter()
            .find(|(_, m)| **m == mac)
            .map(|(ip, _)| *ip)
    }

    /// The address to give next to a card: the one that is reserved for it, else the lowest free one that
    /// nobody was seen to use, else the lowest free one.
    #[must_use]
    pub fn free_for(
        &self,
        mac: Option<MacAddr>,
        taken: &BTreeSet<IpAddr>,
        seen: &BTreeSet<IpAddr>,
    ) -> Option<IpAddr> {
        let own = mac
            .and_then(|m| self.reserved_for(m))
            .filter(|ip| !taken.contains(ip));
        if own.is_some() {
            return own;
        }
        if !seen.is_empty()
            && let Some(ip) = self.free(&taken.union(seen).copied().collect())
        {
            return Some(ip);
        }
        self.free(taken)
    }

    /// Checks an address that somebody asks for by name, for a card where one is known. Reserved ranges
    /// are no obstacle: that is what they are reserved for.
    ///
    /// # Errors
    /// Why it cannot be given.
    pub fn check_address(
        &self,
        ip: IpAddr,
        mac: Option<MacAddr>,
        taken: &BTreeSet<IpAddr>,
    ) -> Result<(), AddressError> {
        if !self.net.contains(&ip) {
            return Err(AddressError::Outside(self.net));
        }
        if self.network_address() == Some(ip) {
            return Err(AddressError::Network(ip));
        }
        if self.broadcast_address() == Some(ip) {
            return Err(AddressError::Broadcast(ip));
        }
        if let Some(r) = self
            .ranges
            .iter()
            .find(|r| r.kind == RangeKind::Dynamic && r.contains(ip))
        {
            return Err(AddressError::Dynamic(*r));
        }
        if let Some(owner) = self.reserved.get(&ip).filter(|m| Some(**m) != mac) {
            return Err(AddressError::Reserved(*owner));
        }
        if taken.contains(&ip) {
            return Err(AddressError::InUse);
        }
        Ok(())
    }

    /// Checks an address that is to belong to one hardware address from now on.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check_reservation(
        &self,
        ip: IpAddr,
        mac: MacAddr,
        taken: &BTreeSet<IpAddr>,
    ) -> Result<(), AddressError> {
        if self.gateway == Some(ip) {
            return Err(AddressError::Gateway(ip));
        }
        self.check_address(ip, Some(mac), taken)
    }

    /// Checks a range that is to be made; `self.ranges` are the others. `in_use` are addresses that are
    /// assigned: a dynamic range may not hold one.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn check_range(&self, new: &Range, in_use: &BTreeSet<IpAddr>) -> Result<(), RangeError> {
        if !self.same_family(new.start) || !self.same_family(new.end) {
            return Err(RangeError::Family);
        }
        if number(new.end) < number(new.start) {
            return Err(RangeError::Reversed);
        }
        if !self.net.contains(&new.start) || !self.net.contains(&new.end) {
            return Err(RangeError::Outside(self.net));
        }
        if let IpNet::V4(_) = self.net {
            if let Some(ip) = self.network_address().filter(|ip| new.contains(*ip)) {
                return Err(RangeError::HoldsNetwork(ip));
            }
            if let Some(ip) = self.broadcast_address().filter(|ip| new.contains(*ip)) {
                return Err(RangeError::HoldsBroadcast(ip));
            }
        }
        if new.kind == RangeKind::Dynamic {
            if let Some(ip) = self.gateway.filter(|ip| new.contains(*ip)) {
                return Err(RangeError::HoldsGateway(ip));
            }
            if matches!(self.net, IpNet::V6(_)) && new.size() < MIN_DYNAMIC_V6 {
                return Err(RangeError::TooSmall(new.size()));
            }
        }
        if let Some(other) = self
            .ranges
            .iter()
            .find(|r| number(r.start) <= number(new.end) && number(new.start) <= number(r.end))
        {
            return Err(RangeError::Overlaps {
                kind: new.kind,
                other: *other,
            });
        }
        if new.kind == RangeKind::Dynamic
            && let Some((ip, mac)) = self.reserved.iter().find(|(ip, _)| new.contains(**ip))
        {
            return Err(RangeError::HoldsReserved { ip: *ip, mac: *mac });
        }
        if new.kind == RangeKind::Dynamic
            && let Some(ip) = in_use.iter().find(|ip| new.contains(**ip))
        {
            return Err(RangeError::InUse {
                kind: new.kind,
                ip: *ip,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    pub(super) fn range(kind: RangeKind, start: &str, end: &str) -> Range {
        Range {
            start: ip(start),
            end: ip(end),
            kind,
        }
    }

    pub(super) fn network(net: &str) -> Network {
        Network {
            net: net.parse().unwrap(),
            managed: true,
            gateway: None,
            dns_servers: Vec::new(),
            ranges: Vec::new(),
            reserved: BTreeMap::new(),
        }
    }

    pub(super) fn taken(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|s| ip(s)).collect()
    }

    #[test]
    fn the_lowest_address_that_nothing_holds_is_chosen() {
        let mut n = network("10.0.0.0/24");
        n.gateway = Some(ip("10.0.0.1"));
        n.dns_servers = vec![ip("10.0.0.2"), ip("8.8.8.8")];
        n.ranges = vec![
            range(RangeKind::Reserved, "10.0.0.4", "10.0.0.20"),
            range(RangeKind::Dynamic, "10.0.0.22", "10.0.0.199"),
        ];
        assert_eq!(n.free(&taken(&[])), Some(ip("10.0.0.3")));
        assert_eq!(n.free(&taken(&["10.0.0.3"])), Some(ip("10.0.0.21")));
        assert_eq!(
            n.free(&taken(&["10.0.0.3", "10.0.0.21"])),
            Some(ip("10.0.0.200"))
        );
    }

    #[test]
    fn an_unmanaged_subnet_gives_only_from_its_reserved_ranges() {
        let mut n = network("10.0.0.0/24");
        n.managed = false;
        assert_eq!(n.free(&taken(&[])), None);
        n.ranges = vec![
            range(RangeKind::Dynamic, "10.0.0.1", "10.0.0.9"),
            range(RangeKind::Reserved, "10.0.0.40", "10.0.0.41"),
            range(RangeKind::Reserved, "10.0.0.10", "10.0.0.10"),
        ];
        assert_eq!(n.free(&taken(&[])), Some(ip("10.0.0.10")));
        assert_eq!(n.free(&taken(&["10.0.0.10"])), Some(ip("10.0.0.40")));
        assert_eq!(
            n.free(&taken(&["10.0.0.10", "10.0.0.40", "10.0.0.41"])),
            None
        );
    }

    #[test]
    fn tiny_and_huge_subnets_have_no_odd_ends() {
        assert_eq!(
            network("10.0.0.8/31").free(&taken(&[])),
            Some(ip("10.0.0.8"))
        );
        assert_eq!(network("10.0.0.8/32").free(&taken(&["10.0.0.8"])), None);
        assert_eq!(
            network("10.0.0.8/30").free(&taken(&["10.0.0.9", "10.0.0.10"])),
            None
        );
        assert_eq!(
            network("fd00::/64").free(&taken(&["fd00::1"])),
            Some(ip("fd00::2"))
        );
        let all = network("::/0").free_spans(&taken(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]));
        assert_eq!(all.len(), 1);
        assert_eq!(
            network("255.255.255.254/31").free(&taken(&["255.255.255.254"])),
            Some(ip("255.255.255.255"))
        );
    }

    #[test]
    fn ranges_are_refused_with_their_reason() {
        let mut n = network("10.0.0.0/24");
        n.gateway = Some(ip("10.0.0.1"));
        n.ranges = vec![range(RangeKind::Reserved, "10.0.0.50", "10.0.0.60")];
        let none = taken(&[]);
        let check = |r: Range| n.check_range(&r, &none);
        use RangeKind::{Dynamic, Reserved};
        assert_eq!(check(range(Dynamic, "10.0.0.100", "10.0.0.200")), Ok(()));
        assert_eq!(
            check(range(Dynamic, "10.0.0.100", "10.0.0.90")),
            Err(RangeError::Reversed)
        );
        assert!(matches!(
            check(range(Dynamic, "10.0.0.100", "10.0.1.1")),
            Err(RangeError::Outside(_))
        ));
        assert_eq!(
            check(range(Dynamic, "fd00::1", "fd00::2")),
            Err(RangeError::Family)
        );
        assert!(matches!(
            check(range(Reserved, "10.0.0.0", "10.0.0.2")),
            Err(RangeError::HoldsNetwork(_))
        ));
        assert!(matches!(
            check(range(Reserved, "10.0.0.250", "10.0.0.255")),
            Err(RangeError::HoldsBroadcast(_))
        ));
        assert!(matches!(
            check(range(Dynamic, "10.0.0.1", "10.0.0.9")),
            Err(RangeError::HoldsGateway(_))
        ));
        assert_eq!(check(range(Reserved, "10.0.0.1", "10.0.0.9")), Ok(()));
        let overlap = check(range(Dynamic, "10.0.0.60", "10.0.0.70")).unwrap_err();
        assert!(
            overlap
                .to_string()
                .starts_with("Requested dynamic range conflicts with an existing reserved range"),
            "{overlap}"
        );
        assert!(matches!(
            n.check_range(
                &range(Dynamic, "10.0.0.100", "10.0.0.200"),
                &taken(&["10.0.0.150"])
            ),
            Err(RangeError::InUse { .. })
        ));
        let v6 = network("fd00::/64");
        assert_eq!(
            v6.check_range(&range(Dynamic, "fd00::1", "fd00::ff"), &none),
            Err(RangeError::TooSmall(255))
        );
        assert_eq!(
            v6.check_range(&range(Dynamic, "fd00::1", "fd00::100"), &none),
            Ok(())
        );
    }

    #[test]
    fn a_named_address_may_be_reserved_but_not_dynamic() {
        let mut n = network("10.0.0.0/24");
        n.ranges = vec![
            range(RangeKind::Reserved, "10.0.0.50", "10.0.0.60"),
            range(RangeKind::Dynamic, "10.0.0.100", "10.0.0.110"),
        ];
        let none = taken(&[]);
        assert_eq!(n.check_address(ip("10.0.0.55"), None, &none), Ok(()));
        assert!(matches!(
            n.check_address(ip("10.0.0.105"), None, &none),
            Err(AddressError::Dynamic(_))
        ));
        assert!(matches!(
            n.check_address(ip("10.0.1.5"), None, &none),
            Err(AddressError::Outside(_))
        ));
        assert!(matches!(
            n.check_address(ip("10.0.0.0"), None, &none),
            Err(AddressError::Network(_))
        ));
        assert!(matches!(
            n.check_address(ip("10.0.0.255"), None, &none),
            Err(AddressError::Broadcast(_))
        ));
        assert_eq!(
            n.check_address(ip("10.0.0.5"), None, &taken(&["10.0.0.5"])),
            Err(AddressError::InUse)
        );
    }

    #[test]
    fn a_reserved_address_is_for_its_card_and_for_no_other() {
        let mut n = network("10.0.0.0/29");
        let (one, other) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        n.reserved = BTreeMap::from([(ip("10.0.0.5"), one)]);
        let none = taken(&[]);
        assert_eq!(n.free_for(Some(one), &none, &none), Some(ip("10.0.0.5")));
        assert_eq!(n.free_for(Some(other), &none, &none), Some(ip("10.0.0.1")));
        assert_eq!(n.free_for(None, &none, &none), Some(ip("10.0.0.1")));
        let here = ip("10.0.0.5");
        assert_eq!(n.check_address(here, Some(one), &none), Ok(()));
        assert_eq!(
            n.check_address(here, Some(other), &none),
            Err(AddressError::Reserved(one))
        );
        assert_eq!(
            n.check_address(here, None, &none),
            Err(AddressError::Reserved(one))
        );
        n.gateway = Some(ip("10.0.0.1"));
        assert_eq!(
            n.check_reservation(ip("10.0.0.1"), other, &none),
            Err(AddressError::Gateway(ip("10.0.0.1")))
        );
        assert!(matches!(
            n.check_range(&range(RangeKind::Dynamic, "10.0.0.4", "10.0.0.6"), &none),
            Err(RangeError::HoldsReserved { .. })
        ));
        // What was seen on the wire is taken last.
        let seen = taken(&["10.0.0.2", "10.0.0.3"]);
        assert_eq!(n.free_for(None, &none, &seen), Some(ip("10.0.0.4")));
        let taken = taken(&["10.0.0.4", "10.0.0.6"]);
        assert_eq!(n.free_for(None, &taken, &seen), Some(ip("10.0.0.2")));
    }

    /// A small network with ranges, a gateway and taken addresses, all close together.
    pub(super) fn small() -> impl Strategy<Value = (Network, BTreeSet<IpAddr>)> {
        let v4 =
            (24u8..=32, any::<bool>()).prop_map(|(p, managed)| (format!("10.1.2.0/{p}"), managed));
        let v6 =
            (120u8..=128, any::<bool>()).prop_map(|(p, managed)| (format!("fd00::/{p}"), managed));
        (
            prop_oneof![v4, v6],
            prop::collection::vec((0u8..=255, 0u8..=255, any::<bool>()), 0..5),
            prop::collection::btree_set(0u8..=255, 0..40),
            prop::option::of(0u8..=255),
            prop::collection::btree_set(0u8..=255, 0..4),
        )
            .prop_map(|((net, managed), ranges, taken, gateway, reserved)| {
                let mut n = network(&net);
                n.managed = managed;
                let base = number(n.net.network());
                let at = |n: &Network, o: u8| n.address(base + u128::from(o));
                n.ranges = ranges
                    .into_iter()
                    .map(|(a, b, dynamic)| Range {
                        start: at(&n, a.min(b)),
                        end: at(&n, a.max(b)),
                        kind: if dynamic {
                            RangeKind::Dynamic
                        } else {
                            RangeKind::Reserved
                        },
                    })
                    .collect();
                n.gateway = gateway.map(|g| at(&n, g));
                n.reserved = reserved
                    .into_iter()
                    .map(|r| (at(&n, r), MacAddr([2, 0, 0, 0, 0, r])))
                    .collect();
                let taken = taken.into_iter().map(|t| at(&n, t)).collect();
                (n, taken)
            })
    }

    /// The same question asked address by address.
    fn is_free(n: &Network, taken: &BTreeSet<IpAddr>, ip: IpAddr) -> bool {
        let inside = |kind| n.ranges.iter().any(|r| r.kind == kind && r.contains(ip));
        n.net.contains(&ip)
            && n.network_address() != Some(ip)
            && n.broadcast_address() != Some(ip)
            && n.gateway != Some(ip)
            && !n.reserved.contains_key(&ip)
            && !taken.contains(&ip)
            && !inside(RangeKind::Dynamic)
            && (inside(RangeKind::Reserved) != n.managed)
    }

    proptest! {
        #[test]
        fn spans_hold_exactly_the_free_addresses((n, taken) in small()) {
            let spans = n.free_spans(&taken);
            let base = number(n.net.network());
            for o in 0..=256u128 {
                let ip = n.address(base + o);
                let in_span = spans.iter().any(|(a, b)| number(*a) <= number(ip) && number(ip) <= number(*b));
                prop_assert_eq!(in_span, is_free(&n, &taken, ip), "{}", ip);
            }
            let lowest = (0..=256u128).map(|o| n.address(base + o)).find(|ip| is_free(&n, &taken, *ip));
            prop_assert_eq!(n.free(&taken), lowest);
        }

        #[test]
        fn giving_addresses_out_never_gives_one_twice((n, mut taken) in small()) {
            let mut given = BTreeSet::new();
            while let Some(ip) = n.free(&taken) {
                prop_assert!(given.insert(ip));
                prop_assert!(given.len() <= 256);
                taken.insert(ip);
            }
        }

        #[test]
        fn an_accepted_range_overlaps_no_other((n, _) in small(), a in 0u8..=255, b in 0u8..=255, dynamic: bool) {
            let base = number(n.net.network());
            let new = Range {
                start: n.address(base + u128::from(a)),
                end: n.address(base + u128::from(b)),
                kind: if dynamic { RangeKind::Dynamic } else { RangeKind::Reserved },
            };
            if n.check_range(&new, &BTreeSet::new()).is_ok() {
                prop_assert!(n.net.contains(&new.start) && n.net.contains(&new.end));
                for r in &n.ranges {
                    prop_assert!(!r.contains(new.start) && !r.contains(new.end) && !new.contains(r.start));
                }
                prop_assert!(!dynamic || n.gateway.is_none_or(|g| !new.contains(g)));
            }
        }
    }
}
