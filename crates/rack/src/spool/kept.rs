//! The deliveries of machines that wait for the region: whose they are, and what they change already.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use link::message::{PassedRequest, Report};
use metal::MacAddr;
use tokio::time::Instant;

use crate::http::pass::{NETBOOT_OFF, operation_of};

/// How long a machine still boots its disk after the region took its word: until the change that this makes
/// has come back.
const SETTLED: Duration = Duration::from_secs(2);

/// A delivery that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// From where it came.
    pub client: IpAddr,
    /// The machine that from now on boots its disk, when this is what it says.
    pub to_disk: Option<MacAddr>,
}

impl Kept {
    fn of(request: &PassedRequest) -> Self {
        let says_so = operation_of(request).is_some_and(|op| op == NETBOOT_OFF);
        Self {
            client: request.client,
            to_disk: request.mac.filter(|_| says_so),
        }
    }

    /// Those among these reports.
    pub fn among(reports: &[Report]) -> impl Iterator<Item = Self> {
        reports.iter().filter_map(|r| match r {
            Report::Passed { request, .. } => Some(Self::of(request)),
            _ => None,
        })
    }
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct AllKept {
    /// Their number by address.
    from: HashMap<IpAddr, usize>,
    /// Machines that boot their disk.
    to_disk: HashMap<MacAddr, ToDisk>,
}

#[derive(Debug, Default)]
struct ToDisk {
    waiting: usize,
    until: Option<Instant>,
}

impl AllKept {
    pub(super) fn add(&mut self, kept: Kept) {
        *self.from.entry(kept.client).or_insert(0) += 1;
        if let Some(mac) = kept.to_disk {
            let disk = self.to_disk.entry(mac).or_default();
            disk.waiting += 1;
            disk.until = None;
        }
    }

    pub(super) fn remove(&mut self, kept: Kept, now: Instant) {
        if let Some(n) = self.from.get_mut(&kept.client) {
            *n -= 1;
            if *n == 0 {
                self.from.remove(&kept.client);
            }
        }
        if let Some(disk) = kept.to_disk.and_then(|mac| self.to_disk.get_mut(&mac)) {
            disk.waiting = disk.waiting.saturating_sub(1);
            disk.until = (disk.waiting == 0).then(|| now + SETTLED);
        }
        self.to_disk
            .retain(|_, d| d.until.is_none_or(|until| until > now));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from.is_empty()
    }

    /// Whether something waits from this address, or from a machine with one of these hardware addresses that
    /// has another one now.
    pub(super) fn is_from(&self, client: IpAddr, macs: &[MacAddr]) -> bool {
        let waits = |mac| self.to_disk.get(mac).is_some_and(|d| d.waiting > 0);
        self.from.contains_key(&client) || macs.iter().any(waits)
    }

    pub(super) fn boots_disk(&self, mac: MacAddr, now: Instant) -> bool {
        self.to_disk
            .get(&mac)
            .is_some_and(|d| d.until.is_none_or(|until| until > now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(to_disk: Option<MacAddr>) -> Kept {
        Kept {
            client: IpAddr::from([10, 0, 0, 9]),
            to_disk,
        }
    }

    #[test]
    fn a_machine_boots_its_disk_until_the_region_has_had_time_to_say_so_itself() {
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let mut now = Instant::now();
        let mut all = AllKept::default();
        all.add(kept(None));
        assert!(all.is_from(kept(None).client, &[]) && !all.boots_disk(mac, now));
        all.add(kept(Some(mac)));
        now += SETTLED * 10;
        assert!(all.boots_disk(mac, now), "as long as it waits");
        assert!(all.is_from(IpAddr::from([10, 0, 0, 10]), &[mac]));
        all.remove(kept(Some(mac)), now);
        assert!(all.boots_disk(mac, now));
        all.add(kept(Some(mac)));
        now += SETTLED * 2;
        assert!(all.boots_disk(mac, now), "said again, it waits again");
        all.remove(kept(Some(mac)), now);
        assert!(!all.is_from(IpAddr::from([10, 0, 0, 10]), &[mac]));
        now += SETTLED;
        assert!(!all.boots_disk(mac, now));
        all.remove(kept(None), now);
        assert!(!all.is_from(kept(None).client, &[]));
    }
}
