//! The console side in the middle of a conversation with a real BMC side: the input says how each answer is
//! changed, and what is slipped in. The client must end, whatever comes.
#![no_main]

use std::net::SocketAddr;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use wire_ipmi::bmc::{Bmc, BmcAction, BmcConfig, User};
use wire_ipmi::client::{Action, Client, Config, Driver, Goal, Input, SuiteChoice};
use wire_ipmi::command::Privilege;

fuzz_target!(|data: &[u8]| {
    let [kind, rest @ ..] = data else { return };
    let mut script = rest;
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
    let driver = if kind & 1 == 0 {
        Driver::Lan20
    } else {
        Driver::Lan
    };
    let config = Config {
        user: b"admin".to_vec(),
        password: "secret".into(),
        driver,
        suites: SuiteChoice::Auto,
        ..Config::default()
    };
    let mut client = Client::new(config, Goal::Cycle { boot: None }, [2; 32]).expect("sound");
    let peer = SocketAddr::from(([192, 0, 2, 1], 1000));
    let mut now = Instant::now();
    let mut actions = client.handle(Input::Start, now);
    for _ in 0..2000 {
        let mut answers = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Send(bytes) => {
                    for action in bmc.handle(&bytes, peer, now) {
                        if let BmcAction::Send { bytes, .. } = action {
                            answers.push(bytes);
                        }
                    }
                }
                Action::SetTimer(_) => {}
                Action::Done(_) => return,
            }
        }
        for mut answer in answers {
            // Two bytes change one byte of the answer; zero leaves it as it is; 255 slips the rest in.
            if let [at, value, tail @ ..] = script {
                script = tail;
                match *value {
                    0 => {}
                    255 => {
                        let (slipped, tail) = script.split_at(usize::from(*at).min(script.len()));
                        script = tail;
                        actions.extend(client.handle(Input::Packet(slipped), now));
                    }
                    value => {
                        if let Some(byte) = answer.get_mut(usize::from(*at)) {
                            *byte ^= value;
                        }
                    }
                }
            }
            actions.extend(client.handle(Input::Packet(&answer), now));
        }
        if client.is_done() {
            return;
        }
        if !actions.iter().any(|a| matches!(a, Action::Send(_))) {
            now = client
                .next_timeout()
                .expect("a client at work has a time limit");
            actions.extend(client.handle(Input::Timeout, now));
        }
    }
    panic!("the client does not end");
});
