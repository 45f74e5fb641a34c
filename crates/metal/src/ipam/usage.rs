//! What the addresses of a subnet are used for, as spans.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Network, RangeKind, number};

/// What a span of addresses is used for. Several can hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Assigned to something, or leased.
    Assigned,
    /// A DNS server.
    DnsServer,
    /// Given out by DHCP.
    Dynamic,
    /// The default gateway.
    Gateway,
    /// Kept back, in a range or for one hardware address.
    Reserved,
    /// The routers' anycast address of an IPv6 subnet (RFC 4291 §2.6.1).
    RouterAnycast,
    /// In an unmanaged subnet: everything that no range was reserved for.
    Unmanaged,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 7] = [
        Self::Assigned,
        Self::DnsServer,
        Self::Dynamic,
        Self::Gateway,
        Self::Reserved,
        Self::RouterAnycast,
        Self::Unmanaged,
    ];

    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Assigned => "assigned-ip",
            Self::DnsServer => "dns-server",
            Self::Dynamic => "dynamic",
            Self::Gateway => "gateway-ip",
            Self::Reserved => "reserved",
            Self::RouterAnycast => "rfc-4291-2.6.1",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// Neighbouring addresses that are used for the same; for nothing when there is no purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
    /// What for.
    pub purposes: BTreeSet<Purpose>,
}

impl Span {
    /// Whether the addresses are free.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.purposes.is_empty()
    }

    /// Number of addresses, saturating.
    #[must_use]
    pub fn size(&self) -> u128 {
        number(self.end)
            .saturating_sub(number(self.start))
            .saturating_add(1)
    }
}

/// How full a subnet is.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// First address that can be used.
    pub first: IpAddr,
    /// Last address that can be used.
    pub last: IpAddr,
    /// Number of addresses between them, both included.
    pub total: u128,
    /// Those that are used for nothing.
    pub available: u128,
    /// The others.
    pub unavailable: u128,
    /// Most free addresses in a row.
    pub largest: u128,
    /// The addresses in order.
    pub spans: Vec<Span>,
}

impl Usage {
    /// The part that is used, 0 to 1.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a share for people
    pub fn fraction(&self) -> f64 {
        self.unavailable as f64 / self.total.max(1) as f64
    }

    /// Whether this one address is free.
    fn is_free(&self, ip: IpAddr) -> bool {
        self.spans
            .iter()
            .any(|s| s.is_unused() && number(s.start) <= number(ip) && number(ip) <= number(s.end))
    }
}

impl Network {
    /// The addresses that hosts can have.
    #[must_use]
    pub fn usable(&self) -> (IpAddr, IpAddr) {
        let (first, last) = self.bounds();
        match self.broadcast_address() {
            Some(_) => (self.address(first + 1), self.address(last - 1)),
            None => (self.address(first), self.address(last)),
        }
    }

    /// What every usable address is used for, lowest first, without gaps. `assigned` are addresses that are
    /// assigned or leased.
    #[must_use]
    pub fn usage(&self, assigned: &BTreeSet<IpAddr>) -> Usage {
        let (first, last) = self.usable();
        let (low, high) = (number(first), number(last));
        let mut used: Vec<(u128, u128, Purpose)> = Vec::new();
        let single = |ip: IpAddr, p: Purpose| (number(ip), number(ip), p);
        let here = |ip: &IpAddr| self.same_family(*ip);
        used.extend(
            assigned
                .iter()
                .copied()
                .filter(here)
                .map(|ip| single(ip, Purpose::Assigned)),
        );
        used.extend(
            self.dns_servers
                .iter()
                .copied()
                .filter(here)
                .map(|ip| single(ip, Purpose::DnsServer)),
        );
        used.extend(
            self.gateway
                .into_iter()
                .filter(here)
                .map(|ip| single(ip, Purpose::Gateway)),
        );
        used.extend(
            self.reserved
                .keys()
                .copied()
                .filter(here)
                .map(|ip| single(ip, Purpose::Reserved)),
        );
        if first.is_ipv6() {
            used.extend(
                self.network_address()
                    .map(|ip| single(ip, Purpose::RouterAnycast)),
            );
        }
        let ranges = self
            .ranges
            .iter()
            .filter(|r| here(&r.start) && here(&r.end) && number(r.start) <= number(r.end));
        let mut open: Vec<(u128, u128)> = Vec::new();
        for r in ranges {
            let (a, b) = (number(r.start), number(r.end));
            match r.kind {
                RangeKind::Dynamic => used.push((a, b, Purpose::Dynamic)),
                RangeKind::Reserved if self.managed => used.push((a, b, Purpose::Reserved)),
                RangeKind::Reserved => open.push((a, b)),
            }
        }
        if !self.managed {
            open.sort_unstable();
            let mut at = Some(low);
            for (a, b) in open {
                if let Some(from) = at.filter(|from| a > *from) {
                    used.push((from, a - 1, Purpose::Unmanaged));
                }
                at = at.zip(b.checked_add(1)).map(|(from, next)| from.max(next));
            }
            if let Some(from) = at.filter(|from| *from <= high) {
                used.push((from, high, Purpose::Unmanaged));
            }
        }
        let spans = self.sweep(low, high, &used);
        let (mut available, mut unavailable, mut largest) = (0u128, 0u128, 0u128);
        for s in &spans {
            if s.is_unused() {
                available = available.saturating_add(s.size());
                largest = largest.max(s.size());
            } else {
                unavailable = unavailable.saturating_add(s.size());
            }
        }
        Usage {
            first,
            last,
            total: (high - low).saturating_add(1),
            available,
            unavailable,
            largest,
            spans,
        }
    }

    /// Cuts `low..=high` wherever a use begins or ends, and joins neighbours that are used for the same.
    fn sweep(&self, low: u128, high: u128, used: &[(u128, u128, Purpose)]) -> Vec<Span> {
        // At each place: what begins (+1) and what ended just before (-1).
        let mut steps: Vec<(u128, Purpose, i64)> = Vec::new();
        for &(a, b, p) in used {
            let (a, b) = (a.max(low), b.min(high));
            if a > b {
                continue;
            }
            steps.push((a, p, 1));
            if b < high {
                steps.push((b + 1, p, -1));
            }
        }
        steps.sort_unstable();
        let mut count = [0i64; Purpose::ALL.len()];
        let now = |count: &[i64; Purpose::ALL.len()]| -> BTreeSet<Purpose> {
            Purpose::ALL
                .into_iter()
                .filter(|p| count[*p as usize] > 0)
                .collect()
        };
        let mut out: Vec<Span> = Vec::new();
        let mut put = |from: u128, to: u128, purposes: BTreeSet<Purpose>| match out.last_mut() {
            Some(s) if s.purposes == purposes => s.end = self.address(to),
            _ => out.push(Span {
                start: self.address(from),
                end: self.address(to),
                purposes,
            }),
        };
        let mut from = low;
        let mut rest = steps.as_slice();
        while let Some(&(at, ..)) = rest.first() {
            if at > from {
                put(from, at - 1, now(&count));
                from = at;
            }
            while let Some(&(place, p, by)) = rest.first()
                && place == at
            {
                count[p as usize] += by;
                rest = &rest[1..];
            }
        }
        put(from, high, now(&count));
        out
    }

    /// A gateway for a subnet that has none: its first address, or its last one.
    #[must_use]
    pub fn suggest_gateway(&self, usage: &Usage) -> Option<IpAddr> {
        let first = match (usage.first, self.network_address()) {
            (IpAddr::V6(a), Some(n)) if IpAddr::V6(a) == n => self.address(number(n) + 1),
            (first, _) => first,
        };
        [first, usage.last]
            .into_iter()
            .find(|ip| usage.is_free(*ip))
    }

    /// A dynamic range for a subnet: the end of the widest free span, at most a quarter of the subnet.
    #[must_use]
    pub fn suggest_dynamic(&self, usage: &Usage) -> Option<Span> {
        let widest = usage
            .spans
            .iter()
            .filter(|s| s.is_unused())
            .max_by_key(|s| s.size())?;
        let want = (usage.total / 4).max(1).min(widest.size());
        Some(Span {
            start: self.address(number(widest.end) - (want - 1)),
            ..widest.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ip, network, range, small, taken};
    use super::*;
    use proptest::prelude::*;

    fn words(u: &Usage) -> Vec<String> {
        u.spans
            .iter()
            .map(|s| {
                let p: Vec<&str> = s.purposes.iter().map(|p| p.word()).collect();
                format!("{}-{} {}", s.start, s.end, p.join("+"))
            })
            .collect()
    }

    #[test]
    fn every_address_has_its_purposes() {
        let mut n = network("10.0.0.0/24");
        n.gateway = Some(ip("10.0.0.1"));
        n.dns_servers = vec![ip("10.0.0.1"), ip("8.8.8.8")];
        n.ranges = vec![
            range(RangeKind::Dynamic, "10.0.0.100", "10.0.0.199"),
            range(RangeKind::Reserved, "10.0.0.200", "10.0.0.254"),
        ];
        let u = n.usage(&taken(&["10.0.0.3", "10.0.0.4", "10.0.0.150"]));
        assert_eq!(
            words(&u),
            [
                "10.0.0.1-10.0.0.1 dns-server+gateway-ip",
                "10.0.0.2-10.0.0.2 ",
                "10.0.0.3-10.0.0.4 assigned-ip",
                "10.0.0.5-10.0.0.99 ",
                "10.0.0.100-10.0.0.149 dynamic",
                "10.0.0.150-10.0.0.150 assigned-ip+dynamic",
                "10.0.0.151-10.0.0.199 dynamic",
                "10.0.0.200-10.0.0.254 reserved",
            ]
        );
        assert_eq!(
            (u.total, u.available, u.unavailable, u.largest),
            (254, 96, 158, 95)
        );
        assert_eq!(n.suggest_gateway(&u), None);
        let d = n.suggest_dynamic(&u).unwrap();
        assert_eq!((d.start, d.end), (ip("10.0.0.37"), ip("10.0.0.99")));
    }

    #[test]
    fn an_unmanaged_subnet_is_used_but_for_its_reserved_ranges() {
        let mut n = network("10.0.0.0/29");
        n.managed = false;
        n.ranges = vec![range(RangeKind::Reserved, "10.0.0.2", "10.0.0.3")];
        assert_eq!(
            words(&n.usage(&taken(&["10.0.0.3"]))),
            [
                "10.0.0.1-10.0.0.1 unmanaged",
                "10.0.0.2-10.0.0.2 ",
                "10.0.0.3-10.0.0.3 assigned-ip",
                "10.0.0.4-10.0.0.6 unmanaged",
            ]
        );
    }

    #[test]
    fn a_huge_subnet_costs_no_more_than_a_small_one() {
        let n = network("::/0");
        let u = n.usage(&taken(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]));
        assert_eq!(u.spans.len(), 3);
        assert_eq!(u.total, u128::MAX);
        assert_eq!(n.suggest_gateway(&u), Some(ip("::1")));
    }

    proptest! {
        #[test]
        fn spans_cover_the_subnet_once_and_agree_with_what_is_free((n, taken) in small()) {
            let u = n.usage(&taken);
            let mut at = number(u.first);
            for s in &u.spans {
                prop_assert_eq!(number(s.start), at);
                prop_assert!(number(s.end) >= at);
                at = number(s.end) + 1;
            }
            prop_assert_eq!(at, number(u.last) + 1);
            prop_assert_eq!(u.available + u.unavailable, u.total);
            for pair in u.spans.windows(2) {
                prop_assert_ne!(&pair[0].purposes, &pair[1].purposes);
            }
            let free: Vec<(IpAddr, IpAddr)> = u.spans.iter().filter(|s| s.is_unused()).map(|s| (s.start, s.end)).collect();
            let mut joined: Vec<(IpAddr, IpAddr)> = Vec::new();
            for (a, b) in n.free_spans(&taken) {
                match joined.last_mut() {
                    // Reserved ranges of an unmanaged subnet may touch or overlap.
                    Some(l) if number(l.1) + 1 >= number(a) => l.1 = if number(b) > number(l.1) { b } else { l.1 },
                    _ => joined.push((a, b)),
                }
            }
            prop_assert_eq!(free, joined);
        }
    }
}
