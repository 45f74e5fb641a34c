//! The engine: one packet or one tick in, actions out.

mod exchange;
mod respond;

use crate::boot::BootMethod;
use crate::config::Config;
use crate::rate_limit::RateLimit;
use crate::record::LeaseRecord;
use crate::request::{ClientInfo, Request};
use crate::stats::{DropReason, Stats};
use crate::table::{LEASES_MAX, Lapsed, LeaseView, Table};
use crate::types::{LinkId, Mac, SubnetId, Timestamp};
use crate::{CLIENT_PORT, SERVER_PORT};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// Times later than this are taken for this, so that adding a lease time never reaches the end of time.
const TIME_MAX: Timestamp = Timestamp(u64::MAX >> 1);

/// How a packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The interface.
    pub link: LinkId,
    /// Source address of the IP header; 0.0.0.0 from clients without an address.
    pub src: Ipv4Addr,
    /// Destination address of the IP header; tells unicast from broadcast.
    pub dst: Ipv4Addr,
    /// Source of the Ethernet frame, where known. Used for clients that leave their hardware address out.
    pub src_mac: Option<Mac>,
}

/// What the caller does next. Actions are performed in the order given; in particular a `Persist` is durable
/// before a `Send` that follows it leaves. Several packets' actions may share one sync to disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write this down durably.
    Persist(LeaseRecord),
    /// Send this datagram.
    Send(Outgoing),
    /// Something worth an entry in the boot timeline.
    Observed(Box<Observation>),
    /// The packet was not answered.
    Dropped(Dropped),
}

/// A datagram from port 67.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Interface to send on: the one that the request came in on.
    pub link: LinkId,
    /// Our address on it, for the IP header.
    pub source: Ipv4Addr,
    /// Where to.
    pub dest: Dest,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// Where a reply goes (RFC 2131 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest {
    /// 255.255.255.255, port 68, on the link.
    Broadcast,
    /// A client that has no address yet and so does not answer ARP: a frame straight to its hardware address,
    /// see [`crate::raw`].
    Hardware {
        /// The client's card.
        mac: Mac,
        /// The address that it is being given.
        address: Ipv4Addr,
    },
    /// The relay agent, port 67.
    Relay(Ipv4Addr),
    /// A client that has its address, port 68.
    Client(Ipv4Addr),
}

impl Dest {
    /// Address and port for the IP and UDP headers.
    pub fn socket(self) -> SocketAddrV4 {
        match self {
            Dest::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            Dest::Hardware { address, .. } | Dest::Client(address) => {
                SocketAddrV4::new(address, CLIENT_PORT)
            }
            Dest::Relay(address) => SocketAddrV4::new(address, SERVER_PORT),
        }
    }
}

/// A packet that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// Where it came in.
    pub link: LinkId,
    /// From whom, as far as that could be read.
    pub mac: Option<Mac>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedKind {
    /// An address was offered.
    Offered,
    /// A lease was given.
    Granted,
    /// A lease was extended.
    Renewed,
    /// Options were given to a client with an address of its own.
    Informed,
    /// A NAK was sent, with this text.
    Refused(&'static str),
    /// The client gave its lease back, or got another one in its place.
    Released,
    /// The client says that the address is in use by someone else.
    Declined,
    /// The lease ran out.
    Expired,
    /// The client took the offer of another server on the network: a foreign DHCP server.
    ChoseOtherServer(Ipv4Addr),
}

/// An event of a machine's boot timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What happened.
    pub kind: ObservedKind,
    /// When.
    pub at: Timestamp,
    /// Where the packet came in; absent where there was no packet.
    pub link: Option<LinkId>,
    /// The relay agent, if one was between.
    pub relay: Option<Ipv4Addr>,
    /// The machine's card.
    pub mac: Mac,
    /// The address it is about.
    pub address: Option<Ipv4Addr>,
    /// The subnet of that address.
    pub subnet: Option<SubnetId>,
    /// When the lease ends or ended.
    pub expires: Option<Timestamp>,
    /// The boot method chosen for the machine, when a reply with a boot file was sent.
    pub boot_method: Option<BootMethod>,
    /// The boot file in the reply.
    pub boot_file: Option<String>,
    /// What the client says of itself.
    pub client: ClientInfo,
}

/// A DHCPv4 server without sockets, clock or disk.
#[derive(Debug)]
pub struct Engine {
    config: Arc<Config>,
    table: Table,
    rate: RateLimit,
    stats: Stats,
    leases_max: usize,
}

impl Default for Engine {
    fn default() -> Self {
        Engine::with_leases_max(LEASES_MAX)
    }
}

impl Engine {
    /// An engine that serves nothing until it is given a configuration.
    pub fn new(config: Arc<Config>) -> Engine {
        let mut engine = Engine::default();
        engine.set_config(config);
        engine
    }

    /// An engine with another bound on its lease table than [`Engine::new`]'s 1,048,576 entries.
    pub fn with_leases_max(leases_max: usize) -> Engine {
        Engine {
            config: Arc::default(),
            table: Table::default(),
            rate: RateLimit::default(),
            stats: Stats::default(),
            leases_max,
        }
    }

    /// Serves this configuration from the next packet on. Leases stay; one whose address is no longer the
    /// client's to have is refused when the client renews it.
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.table.reconfigure(Arc::clone(&config));
        self.config = config;
    }

    /// The configuration being served.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Takes in what a log says, see [`crate::record::LeaseLog::replay`]. Records beyond the bound of the
    /// table are left out; the number that was taken is returned.
    pub fn restore<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a LeaseRecord>,
        now: Timestamp,
    ) -> usize {
        let now = now.min(TIME_MAX);
        let mut taken = 0;
        for record in records {
            if self.table.make_room(record.address, self.leases_max) {
                self.table.restore(record, now);
                taken += 1;
            }
        }
        taken
    }

    /// What a new log has to hold: one record for each address that anything durable is known of.
    pub fn records(&self) -> impl Iterator<Item = LeaseRecord> {
        self.table.records()
    }

    /// All entries of the lease table, by address.
    pub fn leases(&self) -> impl Iterator<Item = LeaseView> {
        self.table.views()
    }

    /// The card that an address is leased to at `now`. Offers do not count.
    pub fn holder(&self, address: Ipv4Addr, now: Timestamp) -> Option<Mac> {
        let lease = self.table.get(address)?;
        (lease.is_bound() && lease.expires > now).then_some(lease.mac)
    }

    /// Number of entries in the lease table.
    pub fn lease_count(&self) -> usize {
        self.table.len()
    }

    /// Dynamic addresses of a subnet that nobody ever had, and that somebody had and nobody has.
    pub fn free_count(&self, subnet: SubnetId) -> (u64, u64) {
        self.table.free_count(subnet)
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Answers a DHCP message (the UDP payload of a datagram to port 67).
    pub fn handle(&mut self, packet: &[u8], from: Received, now: Timestamp) -> Vec<Action> {
        let now = now.min(TIME_MAX);
        let mut actions = Vec::with_capacity(4);
        self.settle(now, &mut actions);
        self.stats.received += 1;
        if let Err((reason, mac)) = self.answer(packet, from, now, &mut actions) {
            self.stats.count_drop(reason);
            actions.push(Action::Dropped(Dropped {
                reason,
                link: from.link,
                mac,
            }));
        }
        actions
    }

    /// Ends what is over by now. To be called at [`Engine::next_deadline`] or, as well, once a second.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        self.settle(now.min(TIME_MAX), &mut actions);
        actions
    }

    /// When the next lease, hold or quarantine ends.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.table.next_deadline()
    }

    /// Checks the bookkeeping of the lease table; costs time in proportion to it.
    ///
    /// # Errors
    ///
    /// A description of the first contradiction, which is a bug of this crate.
    #[doc(hidden)]
    pub fn check(&self) -> Result<(), String> {
        self.table.check()
    }

    fn settle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let stats = &mut self.stats;
        self.table.settle(now, |lapsed| {
            stats.expirations += 1;
            actions.push(Action::Observed(Box::new(expired(lapsed, now))));
        });
    }

    fn answer(
        &mut self,
        packet: &[u8],
        from: Received,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Result<(), (DropReason, Option<Mac>)> {
        let request = Request::parse(packet, from.src_mac).map_err(|reason| (reason, None))?;
        let mac = request.mac;
        let config = Arc::clone(&self.config);
        let settings = &config.settings;
        let exchange = if self
            .rate
            .allow(mac, now, settings.rate_burst, settings.rate_per_second)
        {
            exchange::Exchange::new(&config, request, from, now)
        } else {
            Err(DropReason::RateLimited)
        };
        exchange
            .and_then(|exchange| self.exchange(exchange, actions))
            .map_err(|reason| (reason, Some(mac)))
    }
}

fn expired(lapsed: Lapsed, now: Timestamp) -> Observation {
    Observation {
        kind: ObservedKind::Expired,
        at: now,
        link: None,
        relay: None,
        mac: lapsed.mac,
        address: Some(lapsed.address),
        subnet: Some(lapsed.subnet),
        expires: Some(lapsed.expires),
        boot_method: None,
        boot_file: None,
        client: ClientInfo {
            hostname: lapsed.hostname,
            ..ClientInfo::default()
        },
    }
}
