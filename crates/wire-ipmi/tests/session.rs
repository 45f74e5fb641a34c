//! Client and BMC against each other in virtual time: every kind of session, every goal, every error.

#[path = "common/sim.rs"]
mod sim;

use std::time::Duration;

use sim::{DELAY, Way, World, bmc_config, config};
use wire_ipmi::bmc::{Bmc, BmcConfig, PerMessageAuth, SuiteListing, SuiteRefusal};
use wire_ipmi::client::{
    BootOnce, BootType, Client, Config, Driver, Goal, IpmiError, Login, Lookup, OffMode,
    PasswordEvidence, Refusal, Step, SuiteChoice, Warning, Workaround, Workarounds,
};
use wire_ipmi::command::{
    BootDevice, BootFlags, ChassisControl, Power, Privilege, Request, boot_parameter,
};
use wire_ipmi::completion::{Completion, RakpStatus};
use wire_ipmi::packet::AuthType;
use wire_ipmi::{DropReason, Secret, Suite};

fn v15(auth: AuthType) -> (Config, BmcConfig) {
    let config = Config {
        driver: Driver::Lan,
        ..config()
    };
    (
        config,
        BmcConfig {
            auth_types: vec![auth],
            ..bmc_config()
        },
    )
}

/// Another conversation with the same BMC.
fn again(world: World, config: Config, goal: Goal, seed: u8) -> World {
    let client = Client::new(config, goal, [seed; 32]).expect("the test's configuration is sound");
    let now = world.now;
    let mut next = World::with(client, world.bmc);
    (next.now, next.start) = (now, now);
    next
}

/// One configuration per kind of session.
fn kinds() -> Vec<(Login, Config, BmcConfig)> {
    let mut kinds = Vec::new();
    for suite in Suite::ALL {
        let config = Config {
            suites: SuiteChoice::Only(suite),
            ..config()
        };
        kinds.push((
            Login::V20 { suite },
            config,
            BmcConfig {
                suites: vec![suite],
                ..bmc_config()
            },
        ));
    }
    for auth in [AuthType::Md5, AuthType::Straight, AuthType::None] {
        for per_message_auth in [PerMessageAuth::On, PerMessageAuth::Off] {
            let (config, bmc) = v15(auth);
            kinds.push((
                Login::V15 { auth },
                config,
                BmcConfig {
                    per_message_auth,
                    ..bmc
                },
            ));
        }
    }
    kinds
}

const PXE_EFI: BootOnce = BootOnce {
    device: BootDevice::Pxe,
    boot_type: BootType::Efi,
};

#[test]
fn every_kind_of_session_reaches_every_goal() {
    for (login, config, bmc) in kinds() {
        let mut world = World::new(config.clone(), Goal::Status, bmc.clone());
        let outcome = world.run().unwrap_or_else(|e| panic!("{login:?}: {e}"));
        assert_eq!(outcome.login, login);
        assert_eq!(outcome.status.map(|s| s.power), Some(Power::Off));
        assert_eq!(outcome.warnings, []);
        assert_eq!(world.bmc.session_count(), 0, "{login:?}: logged out");
        assert_eq!(
            (world.bmc.dropped().total(), world.client.dropped().total()),
            (0, 0),
            "{login:?}"
        );

        let mut world = again(
            world,
            config.clone(),
            Goal::On {
                boot: Some(PXE_EFI),
            },
            1,
        );
        let outcome = world.run().expect("on");
        assert_eq!(outcome.sent, Some(ChassisControl::PowerUp));
        assert_eq!(world.switched, [ChassisControl::PowerUp]);
        let flags = BootFlags {
            valid: true,
            persistent: false,
            efi: true,
            device: BootDevice::Pxe,
        };
        assert_eq!(world.boots, [flags]);

        let mut world = again(world, config.clone(), Goal::GetBoot, 2);
        assert_eq!(world.run().expect("get boot").boot, Some(flags));

        let mut world = again(world, config.clone(), Goal::Cycle { boot: None }, 3);
        assert_eq!(
            world.run().expect("cycle").sent,
            Some(ChassisControl::PowerCycle)
        );

        let mut world = again(world, config.clone(), Goal::Reset { boot: None }, 4);
        assert_eq!(
            world.run().expect("reset").sent,
            Some(ChassisControl::HardReset)
        );

        let mut world = again(
            world,
            config.clone(),
            Goal::Off {
                mode: OffMode::Soft,
            },
            5,
        );
        assert_eq!(
            world.run().expect("soft off").sent,
            Some(ChassisControl::SoftShutdown)
        );
        assert_eq!(world.bmc.power(), Power::On, "the machine decides when");

        let mut world = again(
            world,
            config.clone(),
            Goal::Off {
                mode: OffMode::Hard,
            },
            6,
        );
        assert_eq!(
            world.run().expect("off").sent,
            Some(ChassisControl::PowerDown)
        );
        assert_eq!(world.bmc.power(), Power::Off);

        let mut world = again(
            world,
            config.clone(),
            Goal::SetBoot(BootOnce {
                device: BootDevice::None,
                boot_type: BootType::Auto,
            }),
            7,
        );
        assert_eq!(world.run().expect("boot none").boot, Some(BootFlags::NONE));

        let mut world = again(world, config, Goal::DeviceId, 8);
        assert_eq!(
            world.run().expect("device id").device,
            Some(bmc.device.clone())
        );
        assert_eq!(world.bmc.session_count(), 0);
    }
}

#[test]
fn what_is_already_so_is_not_switched_again() {
    let mut world = World::new(
        config(),
        Goal::Off {
            mode: OffMode::Hard,
        },
        bmc_config(),
    );
    assert_eq!(world.run().expect("off").sent, None);
    assert_eq!(world.switched, []);
    let mut world = World::new(
        config(),
        Goal::On { boot: None },
        BmcConfig {
            power: Power::On,
            ..bmc_config()
        },
    );
    assert_eq!(world.run().expect("on").sent, None);
    assert_eq!(world.switched, []);
}

#[test]
fn cycle_and_reset_switch_on_what_is_off() {
    for goal in [Goal::Cycle { boot: None }, Goal::Reset { boot: None }] {
        let mut world = World::new(config(), goal, bmc_config());
        assert_eq!(world.run().expect("on").sent, Some(ChassisControl::PowerUp));
    }
}

#[test]
fn suite_17_falls_back_to_3_when_refused_or_ignored() {
    let refusals = [
        SuiteRefusal::Status(RakpStatus::INVALID_AUTHENTICATION),
        SuiteRefusal::Status(RakpStatus::NO_SUITE_MATCH),
        SuiteRefusal::Status(RakpStatus::INVALID_INTEGRITY),
        SuiteRefusal::Silence,
    ];
    for suite_refusal in refusals {
        let bmc = BmcConfig {
            suites: vec![Suite::Sha1],
            suite_refusal,
            ..bmc_config()
        };
        let config = Config {
            suites: SuiteChoice::Prefer(Suite::Sha256),
            ..config()
        };
        let outcome = World::new(config, Goal::Status, bmc)
            .run()
            .unwrap_or_else(|e| panic!("{suite_refusal:?}: {e}"));
        assert_eq!(outcome.login, Login::V20 { suite: Suite::Sha1 });
        assert_eq!(
            outcome.warnings,
            [Warning::SuiteFellBack {
                from: Suite::Sha256,
                to: Suite::Sha1
            }]
        );
    }
}

#[test]
fn the_suite_is_found_whatever_the_bmc_says_about_its_suites() {
    for suite_listing in [
        SuiteListing::List,
        SuiteListing::Error,
        SuiteListing::Silence,
    ] {
        for suite in [Suite::Sha1, Suite::Sha256] {
            let bmc = BmcConfig {
                suites: vec![suite],
                suite_listing,
                ..bmc_config()
            };
            let config = Config {
                suites: SuiteChoice::Auto,
                ..config()
            };
            let mut world = World::new(config, Goal::Status, bmc);
            assert_eq!(world.run().expect("status").login, Login::V20 { suite });
            let opens = world
                .sent
                .iter()
                .filter(|(way, bytes)| *way == Way::ToBmc && bytes.get(4..6) == Some(&[6, 0x10]))
                .count();
            let wasted = suite_listing != SuiteListing::List && suite == Suite::Sha1;
            assert_eq!(
                opens,
                if wasted { 2 } else { 1 },
                "{suite_listing:?} {suite:?}"
            );
        }
    }
}

#[test]
fn a_bmc_with_many_suites_lists_them_in_chunks() {
    let bmc = BmcConfig {
        suites: Suite::ALL.to_vec(),
        ..bmc_config()
    };
    let mut world = World::new(
        Config {
            suites: SuiteChoice::Auto,
            ..config()
        },
        Goal::Status,
        bmc,
    );
    assert_eq!(
        world.run().expect("status").login,
        Login::V20 {
            suite: Suite::Sha256
        }
    );
}

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
fn the_kind_of_session_follows_the_bmc_unless_forced() {
    let old = BmcConfig {
        suites: Vec::new(),
        ..bmc_config()
    };
    let auto = Config {
        driver: Driver::Auto,
        ..config()
    };
    assert_eq!(
        World::new(auto.clone(), Goal::Status, old.clone())
            .run()
            .expect("1.5")
            .login,
        Login::V15 {
            auth: AuthType::Md5
        }
    );
    assert_eq!(
        World::new(auto.clone(), Goal::Status, bmc_config())
            .run()
            .expect("2.0")
            .login,
        Login::V20 { suite: Suite::Sha1 }
    );
    assert_eq!(
        World::new(config(), Goal::Status, old).run(),
        Err(IpmiError::DriverRefused(Driver::Lan20))
    );
    let clear = BmcConfig {
        suites: Vec::new(),
        auth_types: vec![AuthType::Straight],
        ..bmc_config()
    };
    let error = World::new(auto, Goal::Status, clear)
        .run()
        .expect_err("the password is not sent in clear unasked");
    assert!(matches!(error, IpmiError::NoAuthType { .. }), "{error}");
}

#[test]
fn an_earlier_boot_change_left_unfinished_does_not_block() {
    let (config, bmc) = (config(), bmc_config());
    let mut world = World::new(config.clone(), Goal::SetBoot(PXE_EFI), bmc);
    // The last command, "set complete", never reaches the BMC.
    let end = Request::SetBootOptions {
        parameter: boot_parameter::SET_IN_PROGRESS,
        data: vec![0],
    };
    assert_eq!(end.data(), [0, 0]);
    let mut requests = 0;
    world.fate = Box::new(move |way, bytes| {
        requests += usize::from(way == Way::ToBmc);
        if requests > 8 {
            Vec::new()
        } else {
            vec![(DELAY, bytes)]
        }
    });
    assert!(world.run().is_err());
    let mut world = again(world, config, Goal::SetBoot(PXE_EFI), 3);
    assert!(world.run().is_ok());
    assert_eq!(world.boots.len(), 1);
}

#[test]
fn workarounds_do_not_break_a_bmc_that_needs_none() {
    let all = Workarounds::from_names([
        "opensesspriv",
        "authcap",
        "idzero",
        "unexpectedauth",
        "forcepermsg",
        "supermicro20",
        "sun20",
        "nochecksumcheck",
        "integritycheckvalue",
        "ipmiping",
    ])
    .expect("known");
    for (login, config, bmc) in kinds() {
        if login
            == (Login::V15 {
                auth: AuthType::Straight,
            })
            || login
                == (Login::V15 {
                    auth: AuthType::None,
                })
        {
            // `authcap` means MD5 unless the configuration says otherwise.
            continue;
        }
        let mut world = World::new(
            Config {
                workarounds: all,
                ..config.clone()
            },
            Goal::Status,
            bmc.clone(),
        );
        assert_eq!(world.run().expect("status").login, login);
        let mut world = World::new(
            Config {
                workarounds: Workarounds::NONE,
                ..config
            },
            Goal::Status,
            bmc,
        );
        assert_eq!(world.run().expect("status").login, login);
    }
}

#[test]
fn every_packet_is_authenticated_where_that_is_forced() {
    let (config, bmc) = v15(AuthType::Md5);
    let bmc = BmcConfig {
        per_message_auth: PerMessageAuth::Off,
        ..bmc
    };
    let bare = |workarounds| {
        let mut world = World::new(
            Config {
                workarounds,
                ..config.clone()
            },
            Goal::Status,
            bmc.clone(),
        );
        world.run().expect("status");
        // After capabilities, challenge and activation.
        world
            .sent
            .iter()
            .filter(|(way, _)| *way == Way::ToBmc)
            .skip(3)
            .filter(|(_, bytes)| bytes[4] == 0)
            .count()
    };
    assert_eq!(bare(Workarounds::NONE), 3);
    assert_eq!(bare(Workarounds::NONE.with(Workaround::ForcePerMsg)), 0);
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
