//! Client against BMC over real sockets on the loopback interface.

#[path = "common/udp.rs"]
mod udp;

use std::time::Duration;

use udp::{Server, call};
use wire_ipmi::Suite;
use wire_ipmi::bmc::{BmcAction, BmcConfig, User};
use wire_ipmi::client::{
    BootOnce, BootType, Config, Driver, Goal, IpmiError, Login, SuiteChoice, Timing,
};
use wire_ipmi::command::{BootDevice, ChassisControl, Power, Privilege};
use wire_ipmi::packet::AuthType;

/// BMCs in one process.
const BMCS: usize = 100;

fn bmc() -> BmcConfig {
    let user = User {
        name: b"admin".to_vec(),
        password: "secret".into(),
        privilege: Privilege::Admin,
    };
    BmcConfig {
        users: vec![user],
        ..BmcConfig::default()
    }
}

fn config() -> Config {
    Config {
        user: b"admin".to_vec(),
        password: "secret".into(),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_machine_is_switched_on_over_every_kind_of_session() {
    let boot = BootOnce {
        device: BootDevice::Pxe,
        boot_type: BootType::Auto,
    };
    let kinds = [
        (
            Config {
                suites: SuiteChoice::Prefer(Suite::Sha256),
                ..config()
            },
            Login::V20 {
                suite: Suite::Sha256,
            },
        ),
        (
            Config {
                suites: SuiteChoice::Prefer(Suite::Sha1),
                ..config()
            },
            Login::V20 { suite: Suite::Sha1 },
        ),
        (
            Config {
                driver: Driver::Lan,
                ..config()
            },
            Login::V15 {
                auth: AuthType::Md5,
            },
        ),
        (
            Config {
                driver: Driver::Lan,
                auth: Some(AuthType::Straight),
                ..config()
            },
            Login::V15 {
                auth: AuthType::Straight,
            },
        ),
    ];
    for (config, login) in kinds {
        let server = Server::start(bmc()).await;
        let outcome = call(
            server.address,
            config.clone(),
            Goal::On { boot: Some(boot) },
        )
        .await
        .expect("on");
        assert_eq!(
            (outcome.login, outcome.sent),
            (login, Some(ChassisControl::PowerUp))
        );
        assert_eq!(
            server.take_actions(),
            [
                BmcAction::BootDevice(boot.flags()),
                BmcAction::Chassis(ChassisControl::PowerUp)
            ]
        );
        let outcome = call(server.address, config, Goal::Status)
            .await
            .expect("status");
        assert_eq!(outcome.status.map(|s| s.power), Some(Power::On));
        assert_eq!(server.with(|bmc| bmc.session_count()), 0);
    }
}

#[tokio::test]
async fn many_bmcs_are_asked_at_once_from_one_task_set() {
    let mut servers = Vec::new();
    for _ in 0..BMCS {
        servers.push(Server::start(bmc()).await);
    }
    let mut calls = tokio::task::JoinSet::new();
    for server in &servers {
        calls.spawn(call(server.address, config(), Goal::Status));
    }
    let results = calls.join_all().await;
    assert_eq!(results.len(), BMCS);
    for result in results {
        assert_eq!(
            result.expect("status").status.map(|s| s.power),
            Some(Power::Off)
        );
    }
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_named_so() {
    let address = Server::start(bmc()).await.address;
    let timing = Timing {
        first: Duration::from_millis(20),
        ceiling: Duration::from_millis(20),
        tries: 3,
        total: Duration::from_secs(5),
    };
    // The server's task ends soon after the server was dropped; until then it may still answer.
    for _ in 0..100 {
        match call(address, Config { timing, ..config() }, Goal::Status).await {
            Err(IpmiError::Unreachable { .. }) => return,
            Ok(_) | Err(IpmiError::NoAnswer { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never unreachable");
}
