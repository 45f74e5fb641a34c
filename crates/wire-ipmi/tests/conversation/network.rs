//! Property tests: whatever the network does, a conversation ends within its limit, with success or with
//! a named error, and no bytes make either side panic.

use std::time::Duration;

use crate::sim::{self, Way, World, bmc_config, config};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire_ipmi::bmc::{Bmc, BmcConfig, PerMessageAuth};
use wire_ipmi::client::{
    Action, BootOnce, BootType, Client, Config, Driver, Goal, Input, IpmiError, OffMode,
    SuiteChoice,
};
use wire_ipmi::command::{BootDevice, ChassisControl, Power};
use wire_ipmi::packet::AuthType;
use wire_ipmi::{DropReason, Suite};

/// How bad a network is, in percent.
#[derive(Debug, Clone, Copy)]
struct Weather {
    lost: u32,
    doubled: u32,
    late: u32,
    damaged: u32,
}

fn fate(weather: Weather, seed: u64) -> sim::Fate {
    let mut dice = StdRng::seed_from_u64(seed);
    Box::new(move |_, bytes| {
        let mut copies = Vec::new();
        let count = if dice.random_range(0..100) < weather.doubled {
            2
        } else {
            1
        };
        for _ in 0..count {
            if dice.random_range(0..100) < weather.lost {
                continue;
            }
            let far = dice.random_range(0..100) < weather.late;
            let delay = Duration::from_millis(if far {
                dice.random_range(100..3000)
            } else {
                dice.random_range(1..30)
            });
            let mut copy = bytes.clone();
            if dice.random_range(0..100) < weather.damaged && !copy.is_empty() {
                let at = dice.random_range(0..copy.len());
                copy[at] ^= 1 << dice.random_range(0..8);
            }
            copies.push((delay, copy));
        }
        copies
    })
}

fn kind() -> impl Strategy<Value = (Config, BmcConfig)> {
    let v20 = (0usize..Suite::ALL.len(), any::<bool>()).prop_map(|(n, only)| {
        let suite = Suite::ALL[n];
        let suites = if only {
            SuiteChoice::Only(suite)
        } else {
            SuiteChoice::Auto
        };
        (
            Config { suites, ..config() },
            BmcConfig {
                suites: vec![suite, Suite::Sha1],
                ..bmc_config()
            },
        )
    });
    let auth = prop_oneof![
        Just(AuthType::Md5),
        Just(AuthType::Straight),
        Just(AuthType::None)
    ];
    let v15 = (auth, any::<bool>()).prop_map(|(auth, on)| {
        let per_message_auth = if on {
            PerMessageAuth::On
        } else {
            PerMessageAuth::Off
        };
        (
            Config {
                driver: Driver::Lan,
                ..config()
            },
            BmcConfig {
                auth_types: vec![auth],
                per_message_auth,
                ..bmc_config()
            },
        )
    });
    prop_oneof![v20, v15]
}

fn goal() -> impl Strategy<Value = Goal> {
    let boot = Some(BootOnce {
        device: BootDevice::Pxe,
        boot_type: BootType::Efi,
    });
    prop_oneof![
        Just(Goal::Status),
        Just(Goal::On { boot }),
        Just(Goal::Cycle { boot }),
        Just(Goal::Off {
            mode: OffMode::Hard
        }),
        Just(Goal::DeviceId),
        Just(Goal::GetBoot),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    (0u32..70, 0u32..50, 0u32..50, 0u32..30).prop_map(|(lost, doubled, late, damaged)| Weather {
        lost,
        doubled,
        late,
        damaged,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]

    #[test]
    fn a_conversation_ends_within_its_limit((config, bmc) in kind(), goal in goal(), weather in weather(), seed: u64, on: bool) {
        let bmc = BmcConfig { power: if on { Power::On } else { Power::Off }, ..bmc };
        let limit = config.timing.total;
        let mut world = World::new(config, goal, bmc);
        world.fate = fate(weather, seed);
        // `run` panics on an endless conversation; the limit is checked when the client is done.
        match world.run() {
            Ok(outcome) => {
                // A single switching is asked for, and it happened.
                if let Some(sent) = outcome.sent {
                    prop_assert!(world.switched.contains(&sent), "{:?} was answered but not done", sent);
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        let ended = world.client.next_timeout();
        prop_assert_eq!(ended, None);
        prop_assert!(world.ended - world.start <= limit, "took {:?}", world.ended - world.start);
    }

    #[test]
    fn without_damage_no_wrong_reason_is_given((config, bmc) in kind(), goal in goal(), lost in 0u32..40, doubled in 0u32..50, late in 0u32..30, seed: u64) {
        let mut world = World::new(config, goal, bmc);
        world.fate = fate(Weather { lost, doubled, late, damaged: 0 }, seed);
        match world.run() {
            Ok(_) => {}
            // Silence is the network's fault, and can look like an ignored login; nothing else is wrong here.
            Err(IpmiError::NoAnswer { .. } | IpmiError::OutOfTime { .. } | IpmiError::WrongPassword { .. }) => {}
            Err(IpmiError::HandshakeRefused { .. } | IpmiError::Command { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
        for reason in [DropReason::AuthCode, DropReason::Checksum, DropReason::Decryption, DropReason::Length, DropReason::TooShort] {
            prop_assert_eq!(world.client.dropped().get(reason), 0, "{}", reason);
        }
        prop_assert!(world.switched.iter().filter(|s| **s == ChassisControl::PowerCycle).count() <= 1, "cycled more than once");
    }

    #[test]
    fn a_tolerable_network_is_tolerated((config, bmc) in kind(), goal in goal(), seed: u64) {
        let mut world = World::new(config, goal, bmc);
        // The third transmission of anything always arrives.
        let mut dice = fate(Weather { lost: 100, doubled: 0, late: 0, damaged: 0 }, seed);
        let mut count = 0u32;
        world.fate = Box::new(move |way, bytes| {
            count += u32::from(way == Way::ToBmc);
            if way == Way::ToBmc && !count.is_multiple_of(3) { dice(way, bytes) } else { vec![(sim::DELAY, bytes)] }
        });
        let result = world.run();
        prop_assert!(result.is_ok(), "{result:?}");
    }

    #[test]
    fn any_bytes_leave_a_client_standing((config, bmc) in kind(), goal in goal(), depth in 0usize..8,
                                         junk in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..20)) {
        // Go some way into a good conversation, then send junk, plain and behind a good header.
        let mut client = Client::new(config, goal, [1; 32]).expect("sound");
        let mut server = Bmc::new(bmc, [2; 32]);
        let now = std::time::Instant::now();
        let peer = "192.0.2.1:1".parse().expect("an address");
        let mut actions = client.handle(Input::Start, now);
        let mut last = Vec::new();
        for _ in 0..depth {
            let Some(Action::Send(bytes)) = actions.iter().find(|a| matches!(a, Action::Send(_))).cloned() else { break };
            for action in server.handle(&bytes, peer, now) {
                if let wire_ipmi::bmc::BmcAction::Send { bytes, .. } = action {
                    actions = client.handle(Input::Packet(&bytes), now);
                    last = bytes;
                }
            }
        }
        for bytes in &junk {
            client.handle(Input::Packet(bytes), now);
            server.handle(bytes, peer, now);
            for head in [5usize, 12, 16, 30] {
                let mut mixed = last.get(..head.min(last.len())).unwrap_or(&[]).to_vec();
                mixed.extend_from_slice(bytes);
                client.handle(Input::Packet(&mixed), now);
                server.handle(&mixed, peer, now);
            }
        }
    }

    #[test]
    fn any_handshake_message_leaves_a_bmc_standing(kind in 0u8..64, flags in 0u8..4, session in prop_oneof![Just(0u32), any::<u32>()],
                                                   body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut server = Bmc::new(bmc_config(), [2; 32]);
        let mut bytes = vec![6, 0, 0xff, 7, 6, kind | flags << 6];
        bytes.extend_from_slice(&session.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&body);
        server.handle(&bytes, "192.0.2.1:1".parse().expect("an address"), std::time::Instant::now());
    }
}
