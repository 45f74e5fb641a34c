//! The BMC side against any sequence of datagrams: each chunk of the input is one, from one of two
//! addresses, plain or behind a session header that makes it past the first checks.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use wire_ipmi::bmc::{Bmc, BmcConfig, User};
use wire_ipmi::command::Privilege;
use wire_ipmi::message::Message;
use wire_ipmi::packet::{self, AuthType, PayloadType, V15};

fuzz_target!(|data: &[u8]| {
    let users = vec![User {
        name: b"admin".to_vec(),
        password: "secret".into(),
        privilege: Privilege::Admin,
    }];
    let mut bmc = Bmc::new(
        BmcConfig {
            users,
            ..BmcConfig::default()
        },
        [1; 32],
    );
    let mut now = Instant::now();
    let mut rest = data;
    while let [control, length, tail @ ..] = rest {
        let (body, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        let bytes = match control & 3 {
            0 => body.to_vec(),
            1 => packet::encode_v20_plain(PayloadType::from_code(0x10 | control >> 4), body),
            _ => {
                let [net_fn, command, data @ ..] = body else {
                    continue;
                };
                let payload = Message::request(1, net_fn & 0x3f, *command, data.to_vec()).encode();
                packet::encode_v15(&V15 {
                    auth: AuthType::None,
                    sequence: 0,
                    session: 0,
                    code: None,
                    payload: &payload,
                })
            }
        };
        let peer = SocketAddr::from(([192, 0, 2, 1], 1000 + u16::from(control >> 2 & 1)));
        now += Duration::from_millis(u64::from(control >> 3 & 1) * 5000);
        bmc.handle(&bytes, peer, now);
    }
});
