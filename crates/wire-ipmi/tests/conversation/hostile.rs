//! Repeated, forged and unwanted packets; secrets; what strangers can use up.

use std::time::Duration;

use wire_ipmi::bmc::{Bmc, BmcConfig, PerMessageAuth};
use wire_ipmi::client::{Client, Config, Goal, Login};
use wire_ipmi::command::{BootDevice, BootFlags, ChassisControl, Power};
use wire_ipmi::packet::AuthType;
use wire_ipmi::{DropReason, Secret};

use crate::sim::{DELAY, PXE_EFI, Way, World, again, bmc_config, config, kinds};

#[test]
fn a_lost_answer_does_not_cycle_twice() {
    for (login, config, bmc) in kinds() {
        let bmc = BmcConfig {
            power: Power::On,
            ..bmc
        };
        let mut world = World::new(config, Goal::Cycle { boot: None }, bmc);
        let mut answers = 0;
        // Capabilities, login (3 or 2), privilege, status; then the answer to the switching is lost once.
        let lost = match login {
            Login::V20 { .. } => 7,
            Login::V15 { .. } => 6,
        };
        world.fate = Box::new(move |way, bytes| {
            answers += usize::from(way == Way::ToClient);
            if way == Way::ToClient && answers == lost {
                Vec::new()
            } else {
                vec![(DELAY, bytes)]
            }
        });
        assert_eq!(
            world.run().expect("cycle").sent,
            Some(ChassisControl::PowerCycle)
        );
        assert_eq!(world.switched, [ChassisControl::PowerCycle], "{login:?}");
    }
}

#[test]
fn packets_that_arrive_twice_are_dropped_once() {
    for (login, config, bmc) in kinds() {
        let bmc = BmcConfig {
            power: Power::On,
            ..bmc
        };
        let mut world = World::new(
            config,
            Goal::Cycle {
                boot: Some(PXE_EFI),
            },
            bmc,
        );
        world.fate = Box::new(|_, bytes| vec![(DELAY, bytes.clone()), (DELAY * 2, bytes)]);
        assert_eq!(world.run().expect("cycle").login, login);
        assert_eq!(world.switched, [ChassisControl::PowerCycle], "{login:?}");
        let dropped = world.client.dropped();
        assert!(
            dropped.get(DropReason::Duplicate) > 0,
            "{login:?}: {dropped:?}"
        );
        assert!(
            world.bmc.dropped().get(DropReason::Duplicate) > 0,
            "{login:?}"
        );
    }
}

#[test]
fn a_session_packet_with_a_changed_byte_is_dropped() {
    for (login, config, bmc) in kinds() {
        if matches!(
            login,
            Login::V15 {
                auth: AuthType::None | AuthType::Straight
            }
        ) || bmc.per_message_auth == PerMessageAuth::Off
        {
            continue;
        }
        let mut world = World::new(config, Goal::Status, bmc);
        let mut seen = 0;
        // A changed copy of each answer in the session overtakes the real one.
        world.fate = Box::new(move |way, bytes| {
            seen += usize::from(way == Way::ToClient);
            let mut copies = Vec::new();
            if way == Way::ToClient && seen > 4 {
                let mut forged = bytes.clone();
                let at = forged.len() - 20;
                forged[at] ^= 1;
                copies.push((DELAY / 2, forged));
            }
            copies.push((DELAY, bytes));
            copies
        });
        assert!(world.run().is_ok(), "{login:?}");
        let dropped = world.client.dropped();
        assert!(
            dropped.get(DropReason::AuthCode) > 0,
            "{login:?}: {dropped:?}"
        );
    }
}

#[test]
fn the_password_is_on_the_wire_only_in_straight_sessions() {
    for (login, config, bmc) in kinds() {
        let mut world = World::new(config, Goal::Status, bmc);
        world.run().expect("status");
        let shown = world
            .sent
            .iter()
            .any(|(_, bytes)| bytes.windows(6).any(|w| w == b"secret"));
        assert_eq!(
            shown,
            login
                == (Login::V15 {
                    auth: AuthType::Straight
                }),
            "{login:?}"
        );
    }
}

#[test]
fn no_secret_is_in_debug_output() {
    let key = Secret::parse_k_g("keykeykey").expect("text");
    let config = Config {
        k_g: key.clone(),
        ..config()
    };
    let bmc = BmcConfig {
        k_g: key,
        ..bmc_config()
    };
    let mut world = World::new(config.clone(), Goal::Status, bmc.clone());
    let mut shown = format!("{config:?} {bmc:?} {:?} {:?}", world.client, world.bmc);
    let outcome = world.run();
    shown += &format!("{outcome:?} {:?} {:?}", world.client, world.bmc);
    for secret in ["secret", "keykeykey", "switch", "[115, 101, 99"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
}

#[test]
fn an_idle_session_is_forgotten() {
    let mut world = World::new(config(), Goal::Status, bmc_config());
    let mut requests = 0;
    // Close Session never arrives.
    world.fate = Box::new(move |way, bytes| {
        requests += usize::from(way == Way::ToBmc);
        if requests > 6 {
            Vec::new()
        } else {
            vec![(DELAY, bytes)]
        }
    });
    assert!(
        world.run().is_ok(),
        "the result does not depend on the farewell"
    );
    assert_eq!(world.bmc.session_count(), 1);
    let later = world.now + Duration::from_secs(61);
    world.bmc.handle(&[], world.peer, later);
    assert_eq!(world.bmc.session_count(), 0);
}

#[test]
fn strangers_cannot_fill_the_bmc_up() {
    let mut world = World::new(config(), Goal::Status, bmc_config());
    let mut stranger = Client::new(config(), Goal::Status, [3; 32]).expect("sound");
    let now = world.now;
    // Many logins are begun and never finished, from many addresses.
    for n in 0..1000u16 {
        let peer = std::net::SocketAddr::from(([192, 0, 2, 9], 1024 + n));
        let mut half = Client::new(config(), Goal::Status, [n as u8; 32]).expect("sound");
        std::mem::swap(&mut stranger, &mut half);
        let mut to_bmc = stranger.handle(wire_ipmi::client::Input::Start, now);
        for _ in 0..2 {
            let Some(wire_ipmi::client::Action::Send(bytes)) = to_bmc.first().cloned() else {
                panic!("no packet")
            };
            let answers = world.bmc.handle(&bytes, peer, now);
            let Some(wire_ipmi::bmc::BmcAction::Send { bytes, .. }) = answers.first().cloned()
            else {
                panic!("no answer")
            };
            to_bmc = stranger.handle(wire_ipmi::client::Input::Packet(&bytes), now);
        }
    }
    assert_eq!(world.bmc.session_count(), 0);
    assert!(world.run().is_ok());
}

#[test]
fn a_session_is_bound_to_its_address() {
    let mut world = World::new(config(), Goal::Status, bmc_config());
    let mut bmc = Bmc::new(bmc_config(), [8; 32]);
    world.run().expect("status");
    // The same conversation again, but one packet comes from elsewhere.
    let packets: Vec<_> = world
        .sent
        .iter()
        .filter(|(way, _)| *way == Way::ToBmc)
        .map(|(_, bytes)| bytes.clone())
        .collect();
    for bytes in &packets[..4] {
        assert_eq!(bmc.handle(bytes, world.peer, world.start).len(), 1);
    }
    let elsewhere = "192.0.2.77:1".parse().expect("an address");
    assert_eq!(bmc.handle(&packets[4], elsewhere, world.start), []);
    assert_eq!(bmc.dropped().get(DropReason::Peer), 1);
    assert_eq!(bmc.handle(&packets[4], world.peer, world.start).len(), 1);
}

#[test]
fn boot_flags_for_one_boot_are_used_once_and_expire() {
    let mut world = World::new(
        config(),
        Goal::On {
            boot: Some(PXE_EFI),
        },
        bmc_config(),
    );
    world.run().expect("on");
    assert_eq!(world.bmc.take_boot().device, BootDevice::Pxe);
    assert_eq!(world.bmc.take_boot(), BootFlags::NONE);
    let mut world = again(world, config(), Goal::SetBoot(PXE_EFI), 1);
    world.run().expect("set");
    world.now += Duration::from_secs(61);
    let mut world = again(world, config(), Goal::Cycle { boot: None }, 2);
    world.run().expect("cycle");
    assert_eq!(world.bmc.take_boot(), BootFlags::NONE, "too late");
}
