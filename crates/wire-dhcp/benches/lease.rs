//! Processor time of a lease (DISCOVER and REQUEST, decoding and encoding included) against a pool of 65,000
//! addresses, empty and full. `cargo bench -p wire-dhcp`.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark tells its result to whoever runs it"
)]

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;
use wire_dhcp::record::LeaseLog;
use wire_dhcp::{Action, Config, Engine, LinkId, Mac, Received, SubnetId, Timestamp, spec};

const CLIENTS: u32 = 60_000;
const RACK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn message(mac: Mac, message_type: MessageType) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, none, none, none, none, &mac.0);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(message_type));
    options.insert(DhcpOption::ClassIdentifier(
        b"PXEClient:Arch:00007:UNDI:003000".to_vec(),
    ));
    options.insert(DhcpOption::ClientSystemArchitecture(7.into()));
    options.insert(DhcpOption::ClientMachineIdentifier(vec![0; 17]));
    options.insert(DhcpOption::MaxMessageSize(1472));
    let wanted = [
        1u8, 2, 3, 4, 5, 6, 12, 13, 15, 26, 28, 42, 43, 51, 54, 58, 59, 60, 66, 67, 97, 119,
    ];
    let wanted = wanted.iter().map(|&code| OptionCode::from(code)).collect();
    options.insert(DhcpOption::ParameterRequestList(wanted));
    message
}

fn mac(n: u32) -> Mac {
    // Spread over the key space, as real cards are.
    let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
    Mac([0x52, 0x54, a, b, c, d])
}

fn main() {
    let mut subnet = spec::Subnet::new(SubnetId(1), "10.0.0.0/16".parse().expect("a network"));
    subnet.gateway = Some(Ipv4Addr::new(10, 0, 255, 254));
    subnet.dns_servers = vec![RACK];
    subnet.ntp_servers = vec![RACK];
    subnet.domain_name = Some("maas".into());
    subnet.search = vec!["maas".into(), "example.com".into()];
    subnet.dynamic = vec![spec::Range {
        first: Ipv4Addr::new(10, 0, 1, 0),
        last: Ipv4Addr::new(10, 0, 254, 255),
    }];
    let link = spec::Link {
        id: LinkId(1),
        addresses: vec![RACK],
        dhcp_on: true,
        subnets: vec![subnet],
        relayed: vec![],
    };
    let stated = spec::Config {
        links: vec![link],
        ..spec::Config::default()
    };
    let start = Instant::now();
    let (config, problems) = Config::compile(&stated);
    assert!(problems.is_empty(), "{problems:?}");
    let mut engine = Engine::new(Arc::new(config));
    println!("configuration of one /16: {:?}", start.elapsed());

    let packets: Vec<(Vec<u8>, Vec<u8>)> = (0..CLIENTS)
        .map(|n| {
            let discover = message(mac(n), MessageType::Discover);
            let mut request = message(mac(n), MessageType::Request);
            request
                .opts_mut()
                .insert(DhcpOption::ServerIdentifier(RACK));
            // The same length whatever the address will be; it is written in below.
            request
                .opts_mut()
                .insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 1, 0)));
            (
                discover.to_vec().expect("encodes"),
                request.to_vec().expect("encodes"),
            )
        })
        .collect();

    let from = Received {
        link: LinkId(1),
        src: Ipv4Addr::UNSPECIFIED,
        dst: Ipv4Addr::BROADCAST,
        src_mac: None,
    };
    let mut now = Timestamp(1_700_000_000_000);
    for round in [
        "first leases, pool fills",
        "again, pool full, leases in force",
        "after expiry",
    ] {
        let mut log = Vec::new();
        let mut acks = 0;
        let start = Instant::now();
        for (discover, request) in &packets {
            let mut request = request.clone();
            for action in engine.handle(discover, from, now) {
                if let Action::Send(sent) = action {
                    let options = &request[240..];
                    let at = options.windows(2).position(|pair| pair == [50, 4]);
                    let at = 240 + at.expect("option 50");
                    request[at + 2..at + 6].copy_from_slice(&sent.bytes[16..20]);
                }
            }
            for action in engine.handle(&request, from, now) {
                match action {
                    Action::Persist(record) => LeaseLog::append(&record, &mut log),
                    Action::Send(sent) => acks += u32::from(black_box(sent.bytes)[242] == 5),
                    Action::Observed(_) | Action::Dropped(_) => {}
                }
            }
        }
        let each = start.elapsed() / CLIENTS;
        assert_eq!(acks, CLIENTS, "{:?}", engine.stats());
        println!(
            "{round}: {each:?} a lease, {} bytes of log each",
            log.len() / acks as usize
        );
        now = now.plus_s(if round.starts_with("first") { 15 } else { 60 });
    }
    let start = Instant::now();
    let log: Vec<u8> = engine.records().fold(Vec::new(), |mut log, record| {
        LeaseLog::append(&record, &mut log);
        log
    });
    let replay = LeaseLog::replay(&log);
    let mut restored = Engine::default();
    restored.restore(&replay.records, now);
    restored.set_config(Arc::clone(engine.config()));
    println!(
        "log of {} leases written and replayed: {:?}",
        replay.records.len(),
        start.elapsed()
    );
}
