//! What fails is named, over every kind of session.

use std::time::Duration;

use wire_ipmi::bmc::BmcConfig;
use wire_ipmi::client::{
    Client, Config, Driver, Goal, IpmiError, Login, Lookup, PasswordEvidence, Refusal, Step,
    SuiteChoice, Warning,
};
use wire_ipmi::command::{ChassisControl, Privilege};
use wire_ipmi::completion::{Completion, RakpStatus};
use wire_ipmi::message::{Checksums, Message};
use wire_ipmi::packet::AuthType;
use wire_ipmi::packet::{self, Datagram, V15};
use wire_ipmi::{DropReason, Secret, Suite};

use crate::sim::{DELAY, PXE_EFI, Way, World, again, bmc_config, config, kinds, v15};

#[test]
fn a_bmc_that_refuses_all_suites_is_named_so() {
    let bmc = BmcConfig {
        suites: vec![Suite::Md5],
        ..bmc_config()
    };
    let error = World::new(config(), Goal::Status, bmc)
        .run()
        .expect_err("refused");
    assert_eq!(
        error,
        IpmiError::SuiteRefused {
            tried: vec![3, 17],
            last: RakpStatus::NO_SUITE_MATCH
        }
    );
}

#[test]
fn a_wrong_password_is_told_apart_in_every_kind_of_session() {
    for (login, config, bmc) in kinds() {
        if login
            == (Login::V15 {
                auth: AuthType::None,
            })
        {
            continue;
        }
        let mut world = World::new(
            Config {
                password: "wrong".into(),
                ..config
            },
            Goal::Status,
            bmc,
        );
        let evidence = match login {
            Login::V20 { .. } => PasswordEvidence::BmcProof,
            Login::V15 { .. } => PasswordEvidence::LoginIgnored,
        };
        assert_eq!(
            world.run(),
            Err(IpmiError::WrongPassword { evidence }),
            "{login:?}"
        );
        assert_eq!(world.bmc.session_count(), 0);
    }
}

#[test]
fn a_wrong_user_is_told_apart_in_every_kind_of_session() {
    for (login, config, bmc) in kinds() {
        let mut world = World::new(
            Config {
                user: b"nobody".to_vec(),
                ..config
            },
            Goal::Status,
            bmc,
        );
        let refusal = match login {
            Login::V20 { .. } => Refusal::Status(RakpStatus::UNAUTHORIZED_NAME),
            Login::V15 { .. } => Refusal::Completion(Completion(0x81)),
        };
        assert_eq!(
            world.run(),
            Err(IpmiError::WrongUser { refusal }),
            "{login:?}"
        );
    }
}

#[test]
fn a_level_above_the_users_is_told_apart_in_every_kind_of_session() {
    for (login, config, bmc) in kinds() {
        let config = Config {
            user: b"guest".to_vec(),
            password: "look".into(),
            ..config
        };
        let mut world = World::new(config, Goal::Status, bmc);
        let (step, refusal) = match login {
            Login::V20 { .. } => (Step::Rakp1, Refusal::Status(RakpStatus::UNAUTHORIZED_ROLE)),
            Login::V15 { .. } => (Step::ActivateSession, Refusal::Completion(Completion(0x86))),
        };
        assert_eq!(
            world.run(),
            Err(IpmiError::PrivilegeTooLow {
                step,
                wanted: Privilege::Operator,
                refusal
            }),
            "{login:?}"
        );
    }
}

#[test]
fn a_user_level_session_may_look_but_not_switch() {
    for (login, config, bmc) in kinds() {
        let config = Config {
            user: b"guest".to_vec(),
            password: "look".into(),
            privilege: Privilege::User,
            ..config
        };
        let mut world = World::new(config.clone(), Goal::Status, bmc);
        assert_eq!(world.run().expect("status").login, login);
        let mut world = again(world, config, Goal::On { boot: None }, 9);
        let error = world.run().expect_err("not allowed");
        assert!(
            matches!(
                error,
                IpmiError::PrivilegeTooLow {
                    step: Step::ChassisControl,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(
            world.bmc.session_count(),
            0,
            "logged out also after an error"
        );
        assert_eq!(world.switched, []);
    }
}

#[test]
fn lookup_by_name_and_level_works_and_misses_who_is_too_low() {
    let by_level = |user: &str, password: &str| {
        let config = Config {
            lookup: Lookup::NameAndPrivilege,
            user: user.into(),
            password: password.into(),
            ..config()
        };
        World::new(config, Goal::Status, bmc_config()).run()
    };
    assert!(by_level("oper", "switch").is_ok());
    assert!(matches!(
        by_level("guest", "look"),
        Err(IpmiError::WrongUser { .. })
    ));
}

#[test]
fn the_right_k_g_opens_and_a_wrong_one_is_given_up() {
    let key = Secret::parse_k_g("0x0102ff").expect("hexadecimal");
    let other = Secret::parse_k_g("other").expect("text");
    for suite in Suite::ALL {
        let run = |ours: &Option<Secret>, theirs: &Option<Secret>| {
            let bmc = BmcConfig {
                suites: vec![suite],
                k_g: theirs.clone(),
                ..bmc_config()
            };
            let config = Config {
                suites: SuiteChoice::Only(suite),
                k_g: ours.clone(),
                ..config()
            };
            World::new(config, Goal::Status, bmc).run()
        };
        assert_eq!(run(&key, &key).expect("same key").warnings, []);
        assert_eq!(
            run(&key, &None).expect("tried again without").warnings,
            [Warning::KgIgnored]
        );
        assert_eq!(run(&other, &key), Err(IpmiError::WrongKg));
        assert_eq!(run(&None, &key), Err(IpmiError::WrongKg));
    }
}

#[test]
fn silence_names_the_step_and_the_time() {
    let mut world = World::new(config(), Goal::Status, bmc_config());
    world.fate = Box::new(|_, _| Vec::new());
    let error = world.run().expect_err("nobody there");
    let timing = config().timing;
    assert_eq!(
        error,
        IpmiError::NoAnswer {
            step: Step::AuthCapabilities,
            waited: (world.ended - world.start),
            sent: timing.tries
        }
    );
    assert!((world.ended - world.start) <= timing.total);
    assert_eq!(
        error.to_string(),
        "no answer to Get Channel Authentication Capabilities within 12.9s (5 packets sent)"
    );
}

#[test]
fn silence_in_the_middle_names_the_step() {
    for (login, config, bmc) in kinds() {
        let mut world = World::new(config, Goal::Status, bmc);
        // The BMC's answer to Set Session Privilege Level is the first that does not arrive.
        let mut answers = match login {
            Login::V20 { .. } => 4,
            Login::V15 { .. } => 3,
        };
        world.fate = Box::new(move |way, bytes| {
            if way == Way::ToClient {
                if answers == 0 {
                    return Vec::new();
                }
                answers -= 1;
            }
            vec![(DELAY, bytes)]
        });
        assert!(
            matches!(
                world.run(),
                Err(IpmiError::NoAnswer {
                    step: Step::SetPrivilege,
                    ..
                })
            ),
            "{login:?}"
        );
        assert_eq!(
            world.bmc.session_count(),
            0,
            "{login:?}: closed without waiting for an answer"
        );
    }
}

#[test]
fn only_damaged_answers_are_named_so() {
    let mut world = World::new(config(), Goal::Status, bmc_config());
    world.fate = Box::new(|way, mut bytes| {
        if way == Way::ToClient {
            let last = bytes.len() - 1;
            bytes[last] ^= 0x55;
        }
        vec![(DELAY, bytes)]
    });
    assert_eq!(
        world.run(),
        Err(IpmiError::BadPacket {
            step: Step::AuthCapabilities,
            reason: DropReason::Checksum
        })
    );
}

#[test]
fn a_full_bmc_is_named_so() {
    for (login, config, bmc) in kinds() {
        let mut world = World::new(
            config,
            Goal::Status,
            BmcConfig {
                sessions_max: 0,
                ..bmc
            },
        );
        let error = world.run().expect_err("no session free");
        assert!(
            matches!(error, IpmiError::NoSession { .. }),
            "{login:?}: {error}"
        );
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_at_once() {
    let new = |config: Config| Client::new(config, Goal::Status, [0; 32]).map(|_| ());
    assert!(
        new(Config {
            user: vec![b'x'; 17],
            ..config()
        })
        .is_err()
    );
    assert!(
        new(Config {
            password: Secret::new([1; 21]),
            ..config()
        })
        .is_err()
    );
    assert!(
        new(Config {
            password: Secret::new([1; 17]),
            driver: Driver::Lan,
            ..config()
        })
        .is_err()
    );
    assert!(
        new(Config {
            auth: Some(AuthType::Md2),
            ..config()
        })
        .is_err()
    );
    assert!(
        new(Config {
            password: Secret::new([1; 20]),
            ..config()
        })
        .is_ok()
    );
}

/// A BMC that answers `command` with `completion` for the first `times`; possible from outside because the
/// session is not authenticated.
fn refusing(goal: Goal, command: u8, completion: u8, times: u32) -> World {
    let (config, bmc) = v15(AuthType::None);
    let mut world = World::new(config, goal, bmc);
    let mut left = times;
    world.fate = Box::new(move |way, bytes| {
        let Ok(Datagram::V15(packet)) = packet::parse(&bytes) else {
            return vec![(DELAY, bytes)];
        };
        let mut message = Message::decode(packet.payload, Checksums::Check).expect("a message");
        if way == Way::ToClient && message.command == command && left > 0 {
            left -= 1;
            message.data = vec![completion];
            let payload = message.encode();
            return vec![(
                DELAY,
                packet::encode_v15(&V15 {
                    payload: &payload,
                    ..packet
                }),
            )];
        }
        vec![(DELAY, bytes)]
    });
    world
}

#[test]
fn a_busy_bmc_is_asked_again() {
    for (command, completion) in [
        (0x38, 0xc0),
        (0x39, 0xc0),
        (0x3a, 0xd2),
        (0x3b, 0xc0),
        (0x01, 0xd2),
    ] {
        let outcome = refusing(Goal::Status, command, completion, 2).run();
        assert!(outcome.is_ok(), "{command:#x}: {outcome:?}");
    }
    let error = refusing(Goal::Status, 0x01, 0xc0, 99).run();
    assert_eq!(
        error,
        Err(IpmiError::Command {
            step: Step::ChassisStatus,
            completion: Completion::NODE_BUSY
        })
    );
}

#[test]
fn a_session_that_becomes_free_is_taken() {
    assert!(refusing(Goal::Status, 0x3a, 0x81, 2).run().is_ok());
    let error = refusing(Goal::Status, 0x3a, 0x81, 99)
        .run()
        .expect_err("none free");
    assert_eq!(
        error.to_string(),
        "Activate Session: the BMC has no free session (completion code 0x81, no session slot available)"
    );
}

#[test]
fn a_failed_command_is_named_with_its_completion_code() {
    let error = refusing(Goal::On { boot: None }, 0x02, 0xd5, 9)
        .run()
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "Chassis Control failed: completion code 0xd5, command or parameter not supported in present state"
    );
    let error = refusing(Goal::SetBoot(PXE_EFI), 0x08, 0x80, 9)
        .run()
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "Set System Boot Options failed: completion code 0x80, parameter not supported"
    );
}

#[test]
fn a_boot_device_that_cannot_be_set_is_a_warning_when_switching_on() {
    let outcome = refusing(
        Goal::On {
            boot: Some(PXE_EFI),
        },
        0x08,
        0x80,
        9,
    )
    .run()
    .expect("on");
    let error = IpmiError::Command {
        step: Step::SetBootOptions,
        completion: Completion::SPECIFIC_80,
    };
    assert_eq!(outcome.warnings, [Warning::BootNotSet(error)]);
    assert_eq!(
        (outcome.sent, outcome.boot),
        (Some(ChassisControl::PowerUp), None)
    );
}

#[test]
fn a_missing_privilege_for_the_boot_device_is_an_error() {
    let mut world = refusing(
        Goal::On {
            boot: Some(PXE_EFI),
        },
        0x08,
        0xd4,
        9,
    );
    let error = world.run().expect_err("not allowed");
    assert!(
        matches!(
            error,
            IpmiError::PrivilegeTooLow {
                step: Step::SetBootOptions,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(world.switched, []);
}

#[test]
fn a_goal_that_takes_too_long_ends_at_the_limit() {
    let (config, bmc) = v15(AuthType::Md5);
    let mut world = World::new(config, Goal::Status, bmc);
    // Two answers come just in time, the third does not, and there is no time for another login.
    world.fate = Box::new(|_, bytes| vec![(Duration::from_secs(6), bytes)]);
    let limit = Config::default().timing.total;
    assert_eq!(
        world.run(),
        Err(IpmiError::OutOfTime {
            step: Step::SessionChallenge,
            limit
        })
    );
    assert_eq!(world.ended - world.start, limit);
}
