//! Random clients, in random order, with crashes and changes of configuration between.

mod support;

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use support::*;
use wire_dhcp::record::LeaseLog;
use wire_dhcp::{
    Action, Engine, LeaseRecord, LeaseState, LeaseView, Mac, Received, Timestamp, spec,
};

const CLIENTS: u32 = 12;

#[derive(Debug, Clone)]
enum Step {
    Discover(u32, Option<u8>),
    /// Take the offer last made to the client, or this address.
    Select(u32, Option<u8>),
    SelectOther(u32),
    Reboot(u32, u8),
    Renew(u32, u8),
    Release(u32, u8),
    Decline(u32, u8),
    Sleep(u32),
    Configure(u8),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    prop_oneof![
        6 => (client(), prop::option::weighted(0.2, any::<u8>())).prop_map(|(c, a)| Step::Discover(c, a)),
        6 => (client(), prop::option::weighted(0.1, any::<u8>())).prop_map(|(c, a)| Step::Select(c, a)),
        1 => client().prop_map(Step::SelectOther),
        2 => (client(), any::<u8>()).prop_map(|(c, a)| Step::Reboot(c, a)),
        3 => (client(), any::<u8>()).prop_map(|(c, a)| Step::Renew(c, a)),
        1 => (client(), any::<u8>()).prop_map(|(c, a)| Step::Release(c, a)),
        1 => (client(), any::<u8>()).prop_map(|(c, a)| Step::Decline(c, a)),
        3 => prop_oneof![0u32..5, 0u32..120, 0u32..900].prop_map(Step::Sleep),
        1 => any::<u8>().prop_map(Step::Configure),
        1 => Just(Step::Crash),
    ]
}

/// Three configurations with small pools, holes and reservations inside and outside of the ranges.
fn stated(which: u8) -> spec::Config {
    let mut stated = ordinary();
    stated.settings.rate_burst = 1_000_000;
    let subnet = &mut stated.links[0].subnets[0];
    subnet.excluded = vec![range("10.77.0.103", "10.77.0.104")];
    match which % 3 {
        0 => {}
        1 => {
            subnet.dynamic = vec![
                range("10.77.0.100", "10.77.0.105"),
                range("10.77.0.120", "10.77.0.122"),
            ];
            reserve(&mut stated, mac(0), "10.77.0.101");
            reserve(&mut stated, mac(1), "10.77.0.20");
        }
        _ => {
            subnet.dynamic = vec![range("10.77.0.104", "10.77.0.108")];
            reserve(&mut stated, mac(1), "10.77.0.101");
            reserve(&mut stated, mac(2), "10.77.0.106");
        }
    }
    stated
}

fn is_allowed(stated: &spec::Config, mac: Mac, address: Ipv4Addr) -> bool {
    let reserved: Vec<Mac> = stated
        .reservations
        .iter()
        .filter(|r| r.address == address)
        .map(|r| r.mac)
        .collect();
    if !reserved.is_empty() {
        return reserved.contains(&mac);
    }
    let subnet = &stated.links[0].subnets[0];
    let within =
        |ranges: &[spec::Range]| ranges.iter().any(|r| (r.first..=r.last).contains(&address));
    within(&subnet.dynamic) && !within(&subnet.excluded)
}

/// What must be the same after a crash: leases and quarantines in force.
fn in_force(engine: &Engine, now: Timestamp) -> Vec<LeaseView> {
    let live = |lease: &LeaseView| {
        matches!(lease.state, LeaseState::Bound | LeaseState::Declined) && lease.expires > now
    };
    engine
        .leases()
        .filter(live)
        .map(|lease| LeaseView {
            held_until: Some(lease.expires),
            ..lease
        })
        .collect()
}

struct World {
    engine: Engine,
    stated: spec::Config,
    now: Timestamp,
    log: Vec<u8>,
    offers: BTreeMap<u32, Ipv4Addr>,
    /// Offers that bind the rack: client to address and end of the hold.
    holds: BTreeMap<u32, (Ipv4Addr, Timestamp)>,
    /// What clients believe: address to (client, end of lease).
    believed: BTreeMap<Ipv4Addr, (Mac, Timestamp)>,
}

impl World {
    fn new() -> World {
        let stated = stated(0);
        World {
            engine: Engine::new(compile(&stated)),
            stated,
            now: Timestamp(1_700_000_000_000),
            log: Vec::new(),
            offers: BTreeMap::new(),
            holds: BTreeMap::new(),
            believed: BTreeMap::new(),
        }
    }

    fn address(&self, client: u32, pick: Option<u8>) -> Ipv4Addr {
        let own = self
            .believed
            .iter()
            .find(|(_, (holder, _))| *holder == mac(client))
            .map(|(address, _)| *address);
        match pick {
            // Mostly its own address, else one near the ranges.
            Some(pick) if pick >= 160 => Ipv4Addr::new(10, 77, 0, 95 + pick % 32),
            _ => own
                .or(self.offers.get(&client).copied())
                .unwrap_or(ip("10.77.0.100")),
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (client, packet) = match *step {
            Step::Sleep(seconds) => {
                self.now = self.now.plus_s(seconds);
                return Ok(());
            }
            Step::Configure(which) => {
                self.stated = stated(which);
                // A new reservation revokes what was offered to others.
                self.holds.clear();
                self.engine.set_config(compile(&self.stated));
                return self.check();
            }
            Step::Crash => return self.crash(),
            Step::Discover(client, wish) => {
                let mut packet = Packet::discover(mac(client));
                if wish.is_some() {
                    let wish = self.address(client, wish);
                    packet = packet.with(dhcproto::v4::DhcpOption::RequestedIpAddress(wish));
                }
                (client, packet)
            }
            Step::Select(client, pick) => {
                let offered = self.offers.get(&client).copied().filter(|_| pick.is_none());
                let address = offered.unwrap_or_else(|| self.address(client, pick));
                (client, Packet::select(mac(client), address, RACK))
            }
            Step::SelectOther(client) => (
                client,
                Packet::select(mac(client), ip("10.77.0.250"), ip("10.77.0.9")),
            ),
            Step::Reboot(client, pick) => (
                client,
                Packet::reboot(mac(client), self.address(client, Some(pick))),
            ),
            Step::Renew(client, pick) => (
                client,
                Packet::renew(mac(client), self.address(client, Some(pick))),
            ),
            Step::Release(client, pick) => {
                let address = self.address(client, Some(pick));
                if self
                    .believed
                    .get(&address)
                    .is_some_and(|(holder, _)| *holder == mac(client))
                {
                    self.believed.remove(&address);
                }
                (client, Packet::release(mac(client), address))
            }
            Step::Decline(client, pick) => {
                let address = self.address(client, Some(pick));
                if self
                    .believed
                    .get(&address)
                    .is_some_and(|(holder, _)| *holder == mac(client))
                {
                    self.believed.remove(&address);
                }
                (client, Packet::decline(mac(client), address))
            }
        };
        if matches!(
            step,
            Step::SelectOther(_) | Step::Release(..) | Step::Decline(..)
        ) {
            self.holds.remove(&client);
        }
        self.send(client, &packet)
    }

    fn send(&mut self, client: u32, packet: &Packet) -> Result<(), TestCaseError> {
        let from = Received {
            link: LINK,
            src: NONE,
            dst: Ipv4Addr::BROADCAST,
            src_mac: None,
        };
        let actions = self.engine.handle(&packet.bytes(), from, self.now);
        let mut written: Option<LeaseRecord> = None;
        for action in &actions {
            match action {
                Action::Persist(record) => {
                    LeaseLog::append(record, &mut self.log);
                    written = Some(record.clone());
                }
                Action::Send(sent) => {
                    let reply = Outcome(vec![Action::Send(sent.clone())]);
                    match reply.answer() {
                        (dhcproto::v4::MessageType::Offer, address) => {
                            self.offered(client, address)?
                        }
                        (dhcproto::v4::MessageType::Ack, address) => {
                            let record = written.as_ref();
                            prop_assert!(
                                record
                                    .is_some_and(|r| r.address == address && r.mac == mac(client)),
                                "ACK without a record before it"
                            );
                            self.acked(client, address, record.map_or(self.now, |r| r.expires))?;
                        }
                        (_, _) => {
                            // A NAK: the client has nothing any more.
                            self.believed
                                .retain(|_, (holder, _)| *holder != mac(client));
                        }
                    }
                }
                Action::Observed(_) | Action::Dropped(_) => {}
            }
        }
        self.check()
    }

    fn free_of_others(&self, client: u32, address: Ipv4Addr) -> Result<(), TestCaseError> {
        if let Some((holder, until)) = self.believed.get(&address) {
            prop_assert!(
                *holder == mac(client) || *until <= self.now,
                "{address} is {holder}'s until {until:?} and goes to {}",
                mac(client)
            );
        }
        for (other, (held, until)) in &self.holds {
            prop_assert!(
                *other == client || *held != address || *until <= self.now,
                "{address} is offered to client {other} and goes to {client}"
            );
        }
        prop_assert!(
            is_allowed(&self.stated, mac(client), address),
            "{address} is not to be given to {client}"
        );
        Ok(())
    }

    fn offered(&mut self, client: u32, address: Ipv4Addr) -> Result<(), TestCaseError> {
        self.free_of_others(client, address)?;
        self.offers.insert(client, address);
        self.holds.insert(client, (address, self.now.plus_s(60)));
        Ok(())
    }

    fn acked(
        &mut self,
        client: u32,
        address: Ipv4Addr,
        expires: Timestamp,
    ) -> Result<(), TestCaseError> {
        self.free_of_others(client, address)?;
        self.believed
            .retain(|_, (holder, _)| *holder != mac(client));
        self.believed.insert(address, (mac(client), expires));
        self.holds.remove(&client);
        prop_assert_eq!(self.engine.holder(address, self.now), Some(mac(client)));
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        if let Err(wrong) = self.engine.check() {
            return Err(TestCaseError::fail(wrong));
        }
        // One machine, one address.
        let mut bound: BTreeMap<Mac, Ipv4Addr> = BTreeMap::new();
        for lease in in_force(&self.engine, self.now)
            .iter()
            .filter(|lease| lease.state == LeaseState::Bound)
        {
            if let Some(other) = bound.insert(lease.mac, lease.address) {
                return Err(TestCaseError::fail(format!(
                    "{} has {other} and {}",
                    lease.mac, lease.address
                )));
            }
        }
        Ok(())
    }

    /// A new engine from the log alone, its end torn off in the middle of a write.
    fn crash(&mut self) -> Result<(), TestCaseError> {
        let mut torn = self.log.clone();
        torn.extend(b"SL\x01\x00\x24\x01\x0a");
        let replay = LeaseLog::replay(&torn);
        prop_assert_eq!(replay.valid_len, self.log.len());
        let mut engine = Engine::new(compile(&self.stated));
        engine.restore(&replay.records, self.now);
        prop_assert_eq!(
            in_force(&engine, self.now),
            in_force(&self.engine, self.now)
        );
        // The same from a rewritten log.
        let mut compact = Vec::new();
        self.engine
            .records()
            .for_each(|record| LeaseLog::append(&record, &mut compact));
        let mut from_compact = Engine::default();
        from_compact.restore(&LeaseLog::replay(&compact).records, self.now);
        from_compact.set_config(compile(&self.stated));
        prop_assert_eq!(
            in_force(&from_compact, self.now),
            in_force(&self.engine, self.now)
        );
        prop_assert!(from_compact.check().is_ok());
        self.engine = engine;
        self.holds.clear();
        self.check()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_address_has_two_holders_and_no_ack_is_forgotten(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step)?;
        }
        world.crash()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_can_be_handled(
        head in prop::collection::vec(any::<u8>(), 0..60),
        options in prop::collection::vec(any::<u8>(), 0..300),
        whole in any::<bool>(),
        relayed in any::<bool>(),
        message_type in 1u8..9,
    ) {
        let mut packet = head;
        if whole {
            packet.resize(236, 0);
            packet[0] = 1;
            packet[1] = 1;
            packet[2] = 6;
            packet[28] &= 0xfe;
            packet[29] |= 1;
            packet[24..28].copy_from_slice(&if relayed { [10, 77, 0, 7] } else { [0; 4] });
            packet.extend([99, 130, 83, 99, 53, 1, message_type]);
        }
        packet.extend(options);
        let mut rack = Rack::new(&stated(1));
        for _ in 0..2 {
            let outcome = rack.send_bytes(&packet, Ipv4Addr::BROADCAST);
            prop_assert!(!outcome.0.is_empty());
            for sent in outcome.sent() {
                prop_assert!(sent.bytes.len() <= 1472);
                prop_assert!(dhcproto::Decodable::from_bytes(&sent.bytes).map(|_: dhcproto::v4::Message| ()).is_ok());
            }
        }
    }
}
