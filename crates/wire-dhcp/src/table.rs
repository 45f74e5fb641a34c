//! The lease table: who has which address, and which addresses are free.
//!
//! Each address that anything is known of has one entry, and each entry is in exactly one queue: *held*
//! (ordered by when the hold ends), *reusable* (dead, in a pool, ordered by when it died) or *orphan* (dead,
//! in no pool). Addresses of a pool without an entry are in that pool's `fresh` set. Every step is O(log n).

use crate::config::Config;
use crate::free_set::FreeSet;
use crate::record::{LeaseRecord, RecordState};
use crate::types::{Mac, SubnetId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Entries in the table. Sixteen full /16 pools; about 200 MB.
pub const LEASES_MAX: usize = 1 << 20;

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseState {
    /// Promised in an OFFER and not yet asked for.
    Offered,
    /// Acknowledged.
    Bound,
    /// Given back; remembered for its last holder.
    Released,
    /// Ran out; remembered for its last holder.
    Expired,
    /// Reported as in use by a stranger.
    Declined,
}

/// One entry of the table, as told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it, had it, or declined it.
    pub mac: Mac,
    /// What holds.
    pub state: LeaseState,
    /// When the lease began.
    pub start: Timestamp,
    /// When the lease ends or ended. Not meaningful for an address that is only offered.
    pub expires: Timestamp,
    /// Nobody else gets the address before; absent when it may be given out again.
    pub held_until: Option<Timestamp>,
    /// Subnet it was given out from.
    pub subnet: SubnetId,
    /// What the client calls itself, or its reservation does.
    pub hostname: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Held(Timestamp),
    Reusable(SubnetId, Timestamp),
    Orphan(Timestamp),
}

#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) mac: Mac,
    pub(crate) state: LeaseState,
    pub(crate) start: Timestamp,
    pub(crate) expires: Timestamp,
    /// End of the hold by an OFFER; not kept on disk.
    offer_until: Timestamp,
    pub(crate) subnet: SubnetId,
    pub(crate) hostname: Option<Box<str>>,
    queue: Queue,
}

impl Lease {
    /// When the address stops being this client's, as far as it still is.
    fn until(&self) -> Timestamp {
        match self.state {
            LeaseState::Offered | LeaseState::Released | LeaseState::Expired => self.offer_until,
            LeaseState::Bound | LeaseState::Declined => self.expires.max(self.offer_until),
        }
    }

    /// Whether nobody else may get the address. True between [`Table::settle`]s only.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.queue, Queue::Held(_))
    }

    /// Whether an ACK for it is in force.
    pub(crate) fn is_bound(&self) -> bool {
        self.state == LeaseState::Bound
    }
}

#[derive(Debug, Default)]
struct Pool {
    ranges: Vec<(u32, u32)>,
    fresh: FreeSet,
    reusable: BTreeSet<(Timestamp, u32)>,
}

/// A lease that ran out.
#[derive(Debug)]
pub(crate) struct Lapsed {
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: Mac,
    pub(crate) subnet: SubnetId,
    pub(crate) expires: Timestamp,
    pub(crate) hostname: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    config: Arc<Config>,
    leases: BTreeMap<u32, Lease>,
    by_mac: BTreeSet<(Mac, u32)>,
    held: BTreeSet<(Timestamp, u32)>,
    orphans: BTreeSet<(Timestamp, u32)>,
    pools: BTreeMap<SubnetId, Pool>,
}

impl Table {
    /// Takes over a configuration. Only pools whose addresses changed are rebuilt.
    pub(crate) fn reconfigure(&mut self, config: Arc<Config>) {
        let changed: BTreeSet<SubnetId> = {
            let now: BTreeMap<SubnetId, &[(u32, u32)]> = config
                .subnets
                .iter()
                .map(|subnet| (subnet.id, subnet.pool.as_slice()))
                .collect();
            let differs = |(id, pool): (&SubnetId, &Pool)| {
                (now.get(id).copied() != Some(pool.ranges.as_slice())).then_some(*id)
            };
            let new = now
                .keys()
                .filter(|id| !self.pools.contains_key(id))
                .copied();
            self.pools.iter().filter_map(differs).chain(new).collect()
        };
        for id in &changed {
            for (at, address) in self.pools.remove(id).unwrap_or_default().reusable {
                self.leases
                    .get_mut(&address)
                    .expect("queued addresses have an entry")
                    .queue = Queue::Orphan(at);
                self.orphans.insert((at, address));
            }
        }
        for subnet in config
            .subnets
            .iter()
            .filter(|subnet| changed.contains(&subnet.id))
        {
            let mut pool = Pool {
                ranges: subnet.pool.clone(),
                fresh: FreeSet::from_ranges(&subnet.pool),
                reusable: BTreeSet::new(),
            };
            for &(first, last) in &subnet.pool {
                for (&address, lease) in self.leases.range_mut(first..=last) {
                    pool.fresh.remove(address);
                    if let Queue::Orphan(at) = lease.queue {
                        self.orphans.remove(&(at, address));
                        pool.reusable.insert((at, address));
                        lease.queue = Queue::Reusable(subnet.id, at);
                    }
                }
            }
            self.pools.insert(subnet.id, pool);
        }
        self.config = config;
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn get(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.get(&u32::from(address))
    }

    /// Addresses that the client has or had, lowest first.
    pub(crate) fn of_mac(&self, mac: Mac) -> impl Iterator<Item = (Ipv4Addr, &Lease)> {
        self.by_mac
            .range((mac, 0)..=(mac, u32::MAX))
            .map(|&(_, address)| (Ipv4Addr::from(address), &self.leases[&address]))
    }

    /// A never used address of the subnet.
    pub(crate) fn fresh(&self, subnet: SubnetId) -> Option<Ipv4Addr> {
        self.pools.get(&subnet)?.fresh.lowest().map(Ipv4Addr::from)
    }

    /// The address of the subnet that has been dead longest, and since when.
    pub(crate) fn reusable(&self, subnet: SubnetId) -> Option<(Timestamp, Ipv4Addr)> {
        let &(at, address) = self.pools.get(&subnet)?.reusable.first()?;
        Some((at, address.into()))
    }

    /// Addresses of the subnet that are never used, and those that may be used again.
    pub(crate) fn free_count(&self, subnet: SubnetId) -> (u64, u64) {
        self.pools.get(&subnet).map_or((0, 0), |pool| {
            (pool.fresh.len(), pool.reusable.len() as u64)
        })
    }

    /// When the next hold ends.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.held.first().map(|&(until, _)| until)
    }

    /// Ends every hold that is over and tells of the leases among them. To be called before anything else
    /// at a given time: then an address is held exactly when its entry says so.
    pub(crate) fn settle(&mut self, now: Timestamp, mut lapsed: impl FnMut(Lapsed)) {
        while let Some(&(until, address)) = self.held.first()
            && until <= now
        {
            let lease = self
                .leases
                .get_mut(&address)
                .expect("queued addresses have an entry");
            match lease.state {
                LeaseState::Offered | LeaseState::Declined => {
                    self.remove(address);
                    continue;
                }
                LeaseState::Bound => {
                    lease.state = LeaseState::Expired;
                    lapsed(Lapsed {
                        address: address.into(),
                        mac: lease.mac,
                        subnet: lease.subnet,
                        expires: lease.expires,
                        hostname: lease.hostname.as_deref().map(str::to_owned),
                    });
                }
                LeaseState::Released | LeaseState::Expired => {}
            }
            lease.offer_until = Timestamp(0);
            self.requeue(address, now);
        }
    }

    fn unqueue(&mut self, address: u32, queue: Queue) {
        match queue {
            Queue::Held(at) => {
                self.held.remove(&(at, address));
            }
            Queue::Orphan(at) => {
                self.orphans.remove(&(at, address));
            }
            Queue::Reusable(subnet, at) => {
                if let Some(pool) = self.pools.get_mut(&subnet) {
                    pool.reusable.remove(&(at, address));
                }
            }
        }
    }

    /// Puts the entry into the queue that its state asks for.
    fn requeue(&mut self, address: u32, now: Timestamp) {
        let Some(lease) = self.leases.get(&address) else {
            return;
        };
        let (before, until, died) = (lease.queue, lease.until(), lease.expires);
        self.unqueue(address, before);
        let queue = if until > now {
            self.held.insert((until, address));
            Queue::Held(until)
        } else {
            self.queue_dead(address, died)
        };
        self.leases
            .get_mut(&address)
            .expect("looked up above")
            .queue = queue;
    }

    fn queue_dead(&mut self, address: u32, died: Timestamp) -> Queue {
        let subnet = self
            .config
            .pool_of(address.into())
            .map(|subnet| self.config.subnets[subnet].id);
        match subnet.and_then(|id| self.pools.get_mut(&id).map(|pool| (id, pool))) {
            Some((id, pool)) => {
                pool.reusable.insert((died, address));
                Queue::Reusable(id, died)
            }
            None => {
                self.orphans.insert((died, address));
                Queue::Orphan(died)
            }
        }
    }

    /// Forgets an address.
    fn remove(&mut self, address: u32) {
        let Some(lease) = self.leases.remove(&address) else {
            return;
        };
        self.unqueue(address, lease.queue);
        self.by_mac.remove(&(lease.mac, address));
        if let Some(subnet) = self.config.pool_of(address.into()) {
            let id = self.config.subnets[subnet].id;
            if let Some(pool) = self.pools.get_mut(&id) {
                pool.fresh.insert(address);
            }
        }
    }

    /// Adds or replaces an entry. It is in no queue until [`Table::requeue`] puts it into its own.
    fn put(&mut self, address: u32, mut lease: Lease, now: Timestamp) {
        self.remove(address);
        if let Some(subnet) = self.config.pool_of(address.into()) {
            let id = self.config.subnets[subnet].id;
            if let Some(pool) = self.pools.get_mut(&id) {
                pool.fresh.remove(address);
            }
        }
        if lease.state != LeaseState::Declined {
            self.by_mac.insert((lease.mac, address));
        }
        lease.queue = Queue::Held(Timestamp(0));
        self.leases.insert(address, lease);
        self.requeue(address, now);
    }

    /// Whether the table can take an entry for that address; forgets a dead one where that is needed.
    pub(crate) fn make_room(&mut self, address: Ipv4Addr, max: usize) -> bool {
        if self.leases.len() < max || self.leases.contains_key(&address.into()) {
            return true;
        }
        let oldest_of_pools = || {
            self.pools
                .values()
                .filter_map(|pool| pool.reusable.first().copied())
                .min()
        };
        let oldest = self.orphans.first().copied().or_else(oldest_of_pools);
        if let Some((_, dead)) = oldest {
            self.remove(dead);
        }
        oldest.is_some()
    }

    /// Holds the address for the client. A lease of its own goes on as it is.
    pub(crate) fn offer(
        &mut self,
        address: Ipv4Addr,
        mac: Mac,
        subnet: SubnetId,
        now: Timestamp,
        until: Timestamp,
    ) {
        let key = u32::from(address);
        match self.leases.get_mut(&key) {
            Some(lease) if lease.mac == mac && lease.state != LeaseState::Declined => {
                lease.offer_until = until;
                self.requeue(key, now);
            }
            _ => {
                let lease = Lease {
                    mac,
                    state: LeaseState::Offered,
                    start: now,
                    expires: Timestamp(0),
                    offer_until: until,
                    subnet,
                    hostname: None,
                    queue: Queue::Held(until),
                };
                self.put(key, lease, now);
            }
        }
    }

    /// Leases the address to the client until `expires` and says what to write down.
    pub(crate) fn bind(
        &mut self,
        address: Ipv4Addr,
        mac: Mac,
        subnet: SubnetId,
        now: Timestamp,
        expires: Timestamp,
        hostname: Option<&str>,
    ) -> LeaseRecord {
        let key = u32::from(address);
        let before = self.leases.get(&key).filter(|lease| lease.mac == mac);
        let start = before
            .filter(|lease| lease.is_bound())
            .map_or(now, |lease| lease.start);
        let hostname = hostname
            .or_else(|| before.and_then(|lease| lease.hostname.as_deref()))
            .map(Box::from);
        let lease = Lease {
            mac,
            state: LeaseState::Bound,
            start,
            expires,
            offer_until: Timestamp(0),
            subnet,
            hostname,
            queue: Queue::Held(expires),
        };
        self.put(key, lease, now);
        record_of(key, &self.leases[&key]).expect("bound leases are recorded")
    }

    /// Ends a lease early. The address stays in memory for its last holder.
    pub(crate) fn release(&mut self, address: Ipv4Addr, now: Timestamp) -> Option<LeaseRecord> {
        let key = u32::from(address);
        let lease = self.leases.get_mut(&key)?;
        lease.state = LeaseState::Released;
        lease.expires = now;
        lease.offer_until = Timestamp(0);
        let record = record_of(key, lease);
        self.requeue(key, now);
        record
    }

    /// Takes an address out of use until `until`.
    pub(crate) fn decline(
        &mut self,
        address: Ipv4Addr,
        now: Timestamp,
        until: Timestamp,
    ) -> Option<LeaseRecord> {
        let key = u32::from(address);
        let lease = self.leases.get(&key)?;
        let declined = Lease {
            mac: lease.mac,
            state: LeaseState::Declined,
            start: now,
            expires: until,
            offer_until: Timestamp(0),
            subnet: lease.subnet,
            hostname: None,
            queue: Queue::Held(until),
        };
        self.put(key, declined, now);
        record_of(key, self.leases.get(&key)?)
    }

    /// Takes back the hold of an OFFER; a lease or a memory that was there before stays.
    pub(crate) fn withdraw_offer(&mut self, address: Ipv4Addr, now: Timestamp) {
        let key = u32::from(address);
        let Some(lease) = self.leases.get_mut(&key) else {
            return;
        };
        if lease.state == LeaseState::Offered {
            self.remove(key);
        } else if !lease.is_bound() {
            lease.offer_until = Timestamp(0);
            self.requeue(key, now);
        }
    }

    /// Forgets an address that is not leased.
    pub(crate) fn forget(&mut self, address: Ipv4Addr) {
        self.remove(address.into());
    }

    /// Takes in what a record says.
    pub(crate) fn restore(&mut self, record: &LeaseRecord, now: Timestamp) {
        let state = match record.state {
            RecordState::Bound if record.expires > now => LeaseState::Bound,
            RecordState::Bound => LeaseState::Expired,
            RecordState::Released => LeaseState::Released,
            RecordState::Declined if record.expires > now => LeaseState::Declined,
            RecordState::Declined => {
                self.remove(record.address.into());
                return;
            }
        };
        let lease = Lease {
            mac: record.mac,
            state,
            start: record.start,
            expires: record.expires,
            offer_until: Timestamp(0),
            subnet: record.subnet,
            hostname: record.hostname.as_deref().map(Box::from),
            queue: Queue::Held(record.expires),
        };
        self.put(record.address.into(), lease, now);
    }

    /// What a log needs to hold for this table to come back.
    pub(crate) fn records(&self) -> impl Iterator<Item = LeaseRecord> {
        self.leases
            .iter()
            .filter_map(|(&address, lease)| record_of(address, lease))
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = LeaseView> {
        self.leases.iter().map(|(&address, lease)| LeaseView {
            address: address.into(),
            mac: lease.mac,
            state: lease.state,
            start: lease.start,
            expires: lease.expires,
            held_until: lease.is_held().then(|| lease.until()),
            subnet: lease.subnet,
            hostname: lease.hostname.as_deref().map(str::to_owned),
        })
    }

    /// Says what is wrong with the bookkeeping, if anything is. For tests and the fuzzer.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut queued = 0;
        for (&address, lease) in &self.leases {
            let name = Ipv4Addr::from(address);
            let there = match lease.queue {
                Queue::Held(at) => self.held.contains(&(at, address)) && at == lease.until(),
                Queue::Orphan(at) => {
                    self.orphans.contains(&(at, address)) && self.config.pool_of(name).is_none()
                }
                Queue::Reusable(subnet, at) => {
                    self.pools
                        .get(&subnet)
                        .is_some_and(|pool| pool.reusable.contains(&(at, address)))
                        && self
                            .config
                            .pool_of(name)
                            .map(|index| self.config.subnets[index].id)
                            == Some(subnet)
                }
            };
            if !there {
                return Err(format!("{name} is not where it says: {lease:?}"));
            }
            if !lease.is_held()
                && !matches!(lease.state, LeaseState::Released | LeaseState::Expired)
            {
                return Err(format!("{name} is dead and says {:?}", lease.state));
            }
            if self.by_mac.contains(&(lease.mac, address)) == (lease.state == LeaseState::Declined)
            {
                return Err(format!(
                    "{name} is wrong in the index of clients: {lease:?}"
                ));
            }
            queued += 1;
        }
        let in_queues = self.held.len()
            + self.orphans.len()
            + self
                .pools
                .values()
                .map(|pool| pool.reusable.len())
                .sum::<usize>();
        if in_queues != queued {
            return Err(format!("{queued} entries and {in_queues} places in queues"));
        }
        let declined = self
            .leases
            .values()
            .filter(|lease| lease.state == LeaseState::Declined)
            .count();
        if self.by_mac.len() + declined != queued {
            return Err("the index of clients has strangers in it".into());
        }
        for (id, pool) in &self.pools {
            let size: u64 = pool
                .ranges
                .iter()
                .map(|&(first, last)| u64::from(last - first) + 1)
                .sum();
            let known: u64 = pool
                .ranges
                .iter()
                .map(|&(first, last)| self.leases.range(first..=last).count() as u64)
                .sum();
            if pool.fresh.len() + known != size {
                return Err(format!(
                    "pool {id}: {size} addresses, {known} known, {} fresh",
                    pool.fresh.len()
                ));
            }
        }
        Ok(())
    }
}

/// What is written down about an entry; nothing for an address that is only offered.
fn record_of(address: u32, lease: &Lease) -> Option<LeaseRecord> {
    let state = match lease.state {
        LeaseState::Offered => return None,
        // The end of a lease is in its record; running out is no news.
        LeaseState::Bound | LeaseState::Expired => RecordState::Bound,
        LeaseState::Released => RecordState::Released,
        LeaseState::Declined => RecordState::Declined,
    };
    Some(LeaseRecord {
        state,
        address: address.into(),
        mac: lease.mac,
        subnet: lease.subnet,
        start: lease.start,
        expires: lease.expires,
        hostname: lease.hostname.as_deref().map(str::to_owned),
    })
}
