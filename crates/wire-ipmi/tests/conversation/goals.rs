//! What is asked for is reached, over every kind of session.

use wire_ipmi::Suite;
use wire_ipmi::bmc::{BmcConfig, PerMessageAuth, SuiteListing, SuiteRefusal};
use wire_ipmi::client::{
    BootOnce, BootType, Config, Driver, Goal, IpmiError, Login, OffMode, SuiteChoice, Warning,
    Workaround, Workarounds,
};
use wire_ipmi::command::{BootDevice, BootFlags, ChassisControl, Power, Request, boot_parameter};
use wire_ipmi::completion::RakpStatus;
use wire_ipmi::packet::AuthType;

use crate::sim::{DELAY, PXE_EFI, Way, World, again, bmc_config, config, kinds, v15};

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
