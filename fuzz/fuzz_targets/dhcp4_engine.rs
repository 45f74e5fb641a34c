//! Any sequence of packets at any times, with crashes and changes of configuration between: no panic, the
//! bookkeeping holds, every ACK of a lease has its record before it, and replies are whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};
use wire_dhcp::record::LeaseLog;
use wire_dhcp::{
    Action, Config, Engine, LinkId, Mac, Received, SubnetId, Timestamp, probe, raw, spec,
};

const RACK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn config(last: u8) -> Arc<Config> {
    let mut subnet = spec::Subnet::new(SubnetId(1), "10.0.0.0/24".parse().expect("a network"));
    subnet.dns_servers = vec![RACK];
    subnet.search = vec!["maas".into()];
    subnet.dynamic = vec![spec::Range {
        first: Ipv4Addr::new(10, 0, 0, 10),
        last: Ipv4Addr::new(10, 0, 0, last),
    }];
    let mut relayed = spec::Subnet::new(SubnetId(2), "10.1.0.0/24".parse().expect("a network"));
    relayed.dynamic = vec![spec::Range {
        first: Ipv4Addr::new(10, 1, 0, 10),
        last: Ipv4Addr::new(10, 1, 0, last),
    }];
    let stated = spec::Config {
        links: vec![spec::Link {
            id: LinkId(1),
            addresses: vec![RACK],
            dhcp_on: true,
            subnets: vec![subnet],
            relayed: vec![spec::Relayed {
                giaddrs: vec![Ipv4Addr::new(172, 16, 0, 1)],
                subnets: vec![relayed],
            }],
        }],
        reservations: vec![spec::Reservation {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            address: Ipv4Addr::new(10, 0, 0, 11),
            hostname: Some("one".into()),
        }],
        settings: spec::Settings::default(),
    };
    let (config, problems) = Config::compile(&stated);
    assert!(problems.is_empty(), "{problems:?}");
    Arc::new(config)
}

static CONFIGS: LazyLock<[Arc<Config>; 2]> = LazyLock::new(|| [config(13), config(20)]);

/// A packet with the fields that matter at the front, so that the fuzzer need not find the layout:
/// type, client, flags, then addresses, then options as they are.
fn shaped(bytes: &[u8]) -> Option<Vec<u8>> {
    let (head, options) = bytes.split_at_checked(8)?;
    let mut packet = vec![0u8; 240];
    packet[0] = 1;
    packet[1] = 1;
    packet[2] = 6;
    packet[10] = head[2] & 0x80;
    packet[28] = 2;
    packet[33] = head[1];
    if head[2] & 1 != 0 {
        packet[12..16].copy_from_slice(&[10, head[3] & 1, 0, head[4]]);
    }
    if head[2] & 2 != 0 {
        packet[24..28].copy_from_slice(&[10, 1, 0, head[5]]);
    }
    packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
    packet.extend([53, 1, head[0]]);
    if head[2] & 4 != 0 {
        packet.extend([54, 4, 10, 0, 0, head[6]]);
    }
    if head[2] & 8 != 0 {
        packet.extend([50, 4, 10, head[3] & 1, 0, head[7]]);
    }
    packet.extend(options);
    Some(packet)
}

fuzz_target!(|data: &[u8]| {
    raw::parse(data).ok();
    LeaseLog::replay(data);
    probe::inspect(data, RACK, Mac([2, 0, 0, 0, 0, 1]), 7, &[RACK]);

    let mut engine = Engine::new(Arc::clone(&CONFIGS[0]));
    let mut now = Timestamp(1_700_000_000_000);
    let mut log = Vec::new();
    let mut rest = data;
    // Each step: what to do, how much time passes, how many bytes the packet has.
    while let [step, wait, length, tail @ ..] = rest {
        let (packet, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = tail;
        now = now.plus_s(u32::from(*wait) * 4);
        let packet = match step % 8 {
            0 => {
                engine.set_config(Arc::clone(&CONFIGS[usize::from(*step >> 7)]));
                continue;
            }
            1 => {
                let replay = LeaseLog::replay(&log);
                assert_eq!(replay.valid_len, log.len());
                engine = Engine::new(Arc::clone(engine.config()));
                engine.restore(&replay.records, now);
                engine.check().expect("a restored table holds together");
                continue;
            }
            2 => packet.to_vec(),
            _ => match shaped(packet) {
                Some(packet) => packet,
                None => continue,
            },
        };
        let from = Received {
            link: LinkId(1),
            src: Ipv4Addr::UNSPECIFIED,
            dst: if *step & 0x40 == 0 {
                Ipv4Addr::BROADCAST
            } else {
                RACK
            },
            src_mac: None,
        };
        let mut written = None;
        for action in engine.handle(&packet, from, now) {
            match action {
                Action::Persist(record) => {
                    LeaseLog::append(&record, &mut log);
                    written = Some(record.address);
                }
                Action::Send(sent) => {
                    assert!((300..=1472).contains(&sent.bytes.len()));
                    let given = Ipv4Addr::new(
                        sent.bytes[16],
                        sent.bytes[17],
                        sent.bytes[18],
                        sent.bytes[19],
                    );
                    if sent.bytes[242] == 5 && !given.is_unspecified() {
                        assert_eq!(written, Some(given), "an ACK without its record");
                    }
                }
                Action::Observed(_) | Action::Dropped(_) => {}
            }
        }
        engine.check().expect("the table holds together");
    }
});
