//! Clients that build packets with `dhcproto`, and a rack around the engine that reads the replies with it.
#![allow(dead_code, reason = "each test file uses its own part")]

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType};
use dhcproto::{Decodable, Encodable};
use std::net::Ipv4Addr;
use std::sync::Arc;
use wire_dhcp::spec;
use wire_dhcp::{
    Action, Config, Dest, DropReason, Engine, LeaseRecord, LinkId, Mac, Observation, Outgoing,
    Received, SubnetId, Timestamp,
};

pub const RACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const LINK: LinkId = LinkId(3);
pub const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([0x52, 0x54, a, b, c, d])
}

pub fn range(first: &str, last: &str) -> spec::Range {
    spec::Range {
        first: ip(first),
        last: ip(last),
    }
}

pub fn subnet(id: i64, cidr: &str) -> spec::Subnet {
    spec::Subnet::new(SubnetId(id), cidr.parse().unwrap())
}

/// One VLAN, 10.77.0.0/24, dynamic addresses .100 to .109.
pub fn ordinary() -> spec::Config {
    let mut subnet = subnet(1, "10.77.0.0/24");
    subnet.gateway = Some(ip("10.77.0.254"));
    subnet.dns_servers = vec![RACK];
    subnet.domain_name = Some("maas".into());
    subnet.search = vec!["maas".into(), "example.com".into()];
    subnet.ntp_servers = vec![RACK];
    subnet.mtu = Some(9000);
    subnet.dynamic = vec![range("10.77.0.100", "10.77.0.109")];
    spec::Config {
        links: vec![spec::Link {
            id: LINK,
            addresses: vec![RACK],
            dhcp_on: true,
            subnets: vec![subnet],
            relayed: vec![],
        }],
        ..spec::Config::default()
    }
}

pub fn compile(stated: &spec::Config) -> Arc<Config> {
    let (config, problems) = Config::compile(stated);
    assert_eq!(problems, vec![]);
    Arc::new(config)
}

pub fn reserve(stated: &mut spec::Config, mac: Mac, address: &str) {
    stated.reservations.push(spec::Reservation {
        mac,
        address: ip(address),
        hostname: None,
    });
}

/// A client's message.
#[derive(Clone)]
pub struct Packet(pub Message, Vec<u8>);

impl Packet {
    pub fn new(mac: Mac, message_type: MessageType) -> Packet {
        let mut message = Message::new_with_id(0x1234_5678, NONE, NONE, NONE, NONE, &mac.0);
        message
            .opts_mut()
            .insert(DhcpOption::MessageType(message_type));
        Packet(message, Vec::new())
    }

    pub fn discover(mac: Mac) -> Packet {
        Packet::new(mac, MessageType::Discover)
    }

    /// SELECTING.
    pub fn select(mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> Packet {
        Packet::new(mac, MessageType::Request)
            .with(DhcpOption::RequestedIpAddress(address))
            .with(DhcpOption::ServerIdentifier(server))
    }

    /// INIT-REBOOT.
    pub fn reboot(mac: Mac, address: Ipv4Addr) -> Packet {
        Packet::new(mac, MessageType::Request).with(DhcpOption::RequestedIpAddress(address))
    }

    /// RENEWING or REBINDING, by how it is sent.
    pub fn renew(mac: Mac, address: Ipv4Addr) -> Packet {
        let mut packet = Packet::new(mac, MessageType::Request);
        packet.0.set_ciaddr(address);
        packet
    }

    pub fn release(mac: Mac, address: Ipv4Addr) -> Packet {
        let mut packet =
            Packet::new(mac, MessageType::Release).with(DhcpOption::ServerIdentifier(RACK));
        packet.0.set_ciaddr(address);
        packet
    }

    pub fn decline(mac: Mac, address: Ipv4Addr) -> Packet {
        Packet::new(mac, MessageType::Decline)
            .with(DhcpOption::RequestedIpAddress(address))
            .with(DhcpOption::ServerIdentifier(RACK))
    }

    pub fn with(mut self, option: DhcpOption) -> Packet {
        self.0.opts_mut().insert(option);
        self
    }

    /// An option as bytes, after all others.
    pub fn raw(mut self, code: u8, data: &[u8]) -> Packet {
        self.1.extend([code, data.len() as u8]);
        self.1.extend(data);
        self
    }

    pub fn relayed(mut self, giaddr: Ipv4Addr) -> Packet {
        self.0.set_giaddr(giaddr);
        self
    }

    pub fn broadcast(mut self) -> Packet {
        self.0.set_flags(Flags::default().set_broadcast());
        self
    }

    pub fn pxe(self, architecture: u16) -> Packet {
        let class = format!("PXEClient:Arch:{architecture:05}:UNDI:003000");
        self.with(DhcpOption::ClassIdentifier(class.into_bytes()))
            .with(DhcpOption::ClientSystemArchitecture(architecture.into()))
    }

    pub fn wanting(self, codes: &[u8]) -> Packet {
        self.with(DhcpOption::ParameterRequestList(
            codes.iter().map(|&code| code.into()).collect(),
        ))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.to_vec().unwrap();
        assert_eq!(bytes.pop(), Some(255));
        bytes.extend(&self.1);
        bytes.push(255);
        bytes
    }
}

/// What the engine did with a packet.
pub struct Outcome(pub Vec<Action>);

impl Outcome {
    pub fn sent(&self) -> Vec<&Outgoing> {
        self.0
            .iter()
            .filter_map(|action| match action {
                Action::Send(outgoing) => Some(outgoing),
                _ => None,
            })
            .collect()
    }

    pub fn persisted(&self) -> Vec<&LeaseRecord> {
        self.0
            .iter()
            .filter_map(|action| match action {
                Action::Persist(record) => Some(record),
                _ => None,
            })
            .collect()
    }

    pub fn observed(&self) -> Vec<&Observation> {
        self.0
            .iter()
            .filter_map(|action| match action {
                Action::Observed(observation) => Some(&**observation),
                _ => None,
            })
            .collect()
    }

    pub fn dropped(&self) -> Option<DropReason> {
        self.0.iter().find_map(|action| match action {
            Action::Dropped(dropped) => Some(dropped.reason),
            _ => None,
        })
    }

    /// The one reply.
    pub fn reply(&self) -> Message {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "not one reply: {:?}", self.0);
        Message::from_bytes(&sent[0].bytes).unwrap()
    }

    pub fn dest(&self) -> Dest {
        assert_eq!(self.sent().len(), 1, "not one reply: {:?}", self.0);
        self.sent()[0].dest
    }

    /// Type and address of the one reply.
    pub fn answer(&self) -> (MessageType, Ipv4Addr) {
        let reply = self.reply();
        (reply.opts().msg_type().unwrap(), reply.yiaddr())
    }

    pub fn offered(&self) -> Ipv4Addr {
        let (message_type, address) = self.answer();
        assert_eq!(message_type, MessageType::Offer);
        address
    }

    pub fn acked(&self) -> Ipv4Addr {
        let (message_type, address) = self.answer();
        assert_eq!(message_type, MessageType::Ack);
        address
    }

    pub fn naked(&self) {
        assert_eq!(self.answer(), (MessageType::Nak, NONE));
    }
}

/// Bytes of an option, whatever type the codec has for it.
pub fn option(message: &Message, code: u8) -> Option<Vec<u8>> {
    let option = message.opts().get(code.into())?;
    let encoded = option.to_vec().unwrap();
    assert_eq!(encoded[0], code);
    assert_eq!(usize::from(encoded[1]), encoded.len() - 2);
    Some(encoded[2..].to_vec())
}

pub struct Rack {
    pub engine: Engine,
    pub now: Timestamp,
    pub log: Vec<LeaseRecord>,
}

impl Rack {
    pub fn new(stated: &spec::Config) -> Rack {
        Rack {
            engine: Engine::new(compile(stated)),
            now: Timestamp(1_700_000_000_000),
            log: Vec::new(),
        }
    }

    pub fn configure(&mut self, stated: &spec::Config) {
        self.engine.set_config(compile(stated));
        self.engine.check().unwrap();
    }

    pub fn sleep_s(&mut self, seconds: u64) {
        self.now.0 += seconds * 1000;
    }

    pub fn send(&mut self, packet: &Packet) -> Outcome {
        self.send_bytes(&packet.bytes(), Ipv4Addr::BROADCAST)
    }

    /// By unicast to the rack, as a client does that renews.
    pub fn send_unicast(&mut self, packet: &Packet) -> Outcome {
        self.send_bytes(&packet.bytes(), RACK)
    }

    pub fn send_bytes(&mut self, packet: &[u8], dst: Ipv4Addr) -> Outcome {
        let from = Received {
            link: LINK,
            src: NONE,
            dst,
            src_mac: None,
        };
        let actions = self.engine.handle(packet, from, self.now);
        self.engine.check().unwrap();
        let outcome = Outcome(actions);
        self.log.extend(outcome.persisted().into_iter().cloned());
        outcome
    }

    /// DISCOVER to ACK.
    pub fn lease(&mut self, mac: Mac) -> Ipv4Addr {
        let offered = self.send(&Packet::discover(mac)).offered();
        let acked = self.send(&Packet::select(mac, offered, RACK)).acked();
        assert_eq!(offered, acked);
        acked
    }

    pub fn tick(&mut self) -> Outcome {
        let outcome = Outcome(self.engine.tick(self.now));
        self.engine.check().unwrap();
        outcome
    }
}

/// A frame from `testdata`.
pub fn frame(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
