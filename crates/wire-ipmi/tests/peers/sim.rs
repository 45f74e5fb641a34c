//! Our client against OpenIPMI's `ipmi_sim`.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::config;
use crate::udp::call;
use tokio::process::{Child, Command};
use wire_ipmi::client::{
    BootOnce, BootType, Config, Driver, Goal, IpmiError, Login, OffMode, Outcome, PasswordEvidence,
    Step, SuiteChoice, Timing, Warning, Workarounds,
};
use wire_ipmi::command::{BootDevice, ChassisControl, Power, Privilege};
use wire_ipmi::packet::AuthType;
use wire_ipmi::{Secret, Suite};

/// A running `ipmi_sim` with a machine that is a few files.
struct Sim {
    address: SocketAddr,
    dir: tempfile::TempDir,
    _child: Child,
}

impl Sim {
    async fn start() -> Sim {
        Sim::start_with("").await
    }

    /// `more` is added to the LAN section of its configuration.
    async fn start_with(more: &str) -> Sim {
        // Somebody may take the port between our look and ipmi_sim's start; it then gives up.
        for _ in 0..10 {
            if let Some(sim) = Sim::try_start(more).await {
                return sim;
            }
        }
        panic!("ipmi_sim does not start");
    }

    async fn try_start(more: &str) -> Option<Sim> {
        let address = std::net::UdpSocket::bind("127.0.0.1:0")
            .and_then(|s| s.local_addr())
            .expect("a free port");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path();
        let root = path.display();
        let script = format!(
            "#!/bin/sh\n\
             op=$1; shift\n\
             case $op in\n\
             get) for p in \"$@\"; do case $p in power) echo power:$(cat {root}/power);; boot) echo boot:$(cat {root}/boot);; esac; done;;\n\
             set) while [ $# -ge 2 ]; do echo $1 $2 >> {root}/calls; case $1 in power|boot) echo $2 > {root}/$1;; esac; shift 2; done;;\n\
             esac\n"
        );
        let lan = format!(
            "name \"peer\"\nset_working_mc 0x20\n startlan 1\n addr 127.0.0.1 {port}\n priv_limit admin\n\
             allowed_auths_callback none md5 straight\n allowed_auths_user none md5 straight\n\
             allowed_auths_operator none md5 straight\n allowed_auths_admin none md5 straight\n\
             guid a123456789abcdefa123456789abcd01\n {more}\n endlan\n chassis_control \"{root}/chassis\"\n\
             user 1 true \"\" \"\" user 10 none md5 straight\n\
             user 2 true \"admin\" \"secret\" admin 10 none md5 straight\n\
             user 3 true \"guest\" \"look\" user 10 none md5 straight\n",
            port = address.port()
        );
        let commands = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nsel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
        std::fs::create_dir(path.join("state")).expect("a directory");
        for (name, text) in [
            ("chassis", script.as_str()),
            ("lan.conf", &lan),
            ("cmd.conf", commands),
            ("power", "0\n"),
            ("boot", "none\n"),
            ("calls", ""),
        ] {
            std::fs::write(path.join(name), text).expect("a file");
        }
        std::fs::set_permissions(path.join("chassis"), std::fs::Permissions::from_mode(0o755))
            .expect("permissions");
        let mut child = Command::new("ipmi_sim")
            .args(["-n", "-c"])
            .arg(path.join("lan.conf"))
            .arg("-f")
            .arg(path.join("cmd.conf"))
            .arg("-s")
            .arg(path.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("ipmi_sim (package openipmi) is installed");
        // It is up when it answers; the client keeps asking while the port is closed.
        let timing = Timing {
            first: Duration::from_millis(50),
            ceiling: Duration::from_millis(200),
            tries: 100,
            total: Duration::from_secs(10),
        };
        let up = call(address, Config { timing, ..config() }, Goal::Status).await;
        if child.try_wait().expect("a child can be asked").is_some() {
            return None;
        }
        up.unwrap_or_else(|e| panic!("ipmi_sim does not answer: {e}"));
        Some(Sim {
            address,
            dir,
            _child: child,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name))
            .expect("a file of the machine")
            .trim()
            .to_owned()
    }

    async fn call(&self, config: Config, goal: Goal) -> Result<Outcome, IpmiError> {
        call(self.address, config, goal).await
    }
}

fn power(outcome: &Outcome) -> Option<Power> {
    outcome.status.map(|s| s.power)
}

/// Everything the product does with a machine, through one kind of session.
async fn use_sim(config: Config, login: Login) {
    let sim = Sim::start().await;
    let boot = BootOnce {
        device: BootDevice::Pxe,
        boot_type: BootType::Auto,
    };
    let outcome = sim
        .call(config.clone(), Goal::On { boot: Some(boot) })
        .await
        .expect("on");
    assert_eq!(
        (outcome.login, power(&outcome), outcome.sent),
        (login, Some(Power::Off), Some(ChassisControl::PowerUp))
    );
    assert!(
        !outcome
            .warnings
            .iter()
            .any(|w| matches!(w, Warning::BootNotSet(_))),
        "{:?}",
        outcome.warnings
    );
    assert_eq!(
        (sim.read("power"), sim.read("boot")),
        ("1".into(), "pxe".into())
    );
    let outcome = sim
        .call(config.clone(), Goal::GetBoot)
        .await
        .expect("boot flags");
    assert_eq!(outcome.boot.map(|b| b.device), Some(BootDevice::Pxe));
    let outcome = sim
        .call(config.clone(), Goal::Reset { boot: None })
        .await
        .expect("reset");
    assert_eq!(
        (power(&outcome), outcome.sent),
        (Some(Power::On), Some(ChassisControl::HardReset))
    );
    assert!(
        sim.read("calls").ends_with("reset 1"),
        "{}",
        sim.read("calls")
    );
    let disk = BootOnce {
        device: BootDevice::Disk,
        boot_type: BootType::Legacy,
    };
    let outcome = sim
        .call(config.clone(), Goal::SetBoot(disk))
        .await
        .expect("boot from disk");
    assert_eq!(outcome.boot, Some(disk.flags()));
    assert_eq!(sim.read("boot"), "default");
    let outcome = sim
        .call(
            config.clone(),
            Goal::Off {
                mode: OffMode::Hard,
            },
        )
        .await
        .expect("off");
    assert_eq!(
        (power(&outcome), outcome.sent),
        (Some(Power::On), Some(ChassisControl::PowerDown))
    );
    assert_eq!(sim.read("power"), "0");
    let device = sim
        .call(config.clone(), Goal::DeviceId)
        .await
        .expect("device id")
        .device
        .expect("a device");
    assert_eq!(
        (device.manufacturer, device.product, device.ipmi_version),
        (0x1291, 0xf02, 0x02)
    );
}

#[tokio::test]
async fn our_client_uses_ipmi_sim_with_suite_3() {
    use_sim(config(), Login::V20 { suite: Suite::Sha1 }).await;
}

#[tokio::test]
async fn our_client_falls_back_from_suite_17_at_ipmi_sim() {
    use_sim(
        Config {
            suites: SuiteChoice::Prefer(Suite::Sha256),
            ..config()
        },
        Login::V20 { suite: Suite::Sha1 },
    )
    .await;
}

#[tokio::test]
async fn our_client_asks_ipmi_sim_for_suites_and_lives_with_its_silence() {
    use_sim(
        Config {
            suites: SuiteChoice::Auto,
            ..config()
        },
        Login::V20 { suite: Suite::Sha1 },
    )
    .await;
}

// No test of suites 8 and 12 here: `ipmi_sim` completes their handshake and then ignores every packet,
// also FreeIPMI's. Their proof is FreeIPMI against our BMC, below.

#[tokio::test]
async fn our_client_uses_ipmi_sim_with_md5() {
    use_sim(
        Config {
            driver: Driver::Lan,
            ..config()
        },
        Login::V15 {
            auth: AuthType::Md5,
        },
    )
    .await;
}

#[tokio::test]
async fn our_client_uses_ipmi_sim_with_a_straight_password() {
    use_sim(
        Config {
            driver: Driver::Lan,
            auth: Some(AuthType::Straight),
            ..config()
        },
        Login::V15 {
            auth: AuthType::Straight,
        },
    )
    .await;
}

#[tokio::test]
async fn our_client_uses_ipmi_sim_without_authentication() {
    use_sim(
        Config {
            driver: Driver::Lan,
            auth: Some(AuthType::None),
            ..config()
        },
        Login::V15 {
            auth: AuthType::None,
        },
    )
    .await;
}

#[tokio::test]
async fn errors_of_ipmi_sim_are_told_apart() {
    let sim = Sim::start().await;
    let wrong = Config {
        password: "wrong".into(),
        ..config()
    };
    let evidence = PasswordEvidence::BmcProof;
    assert_eq!(
        sim.call(wrong.clone(), Goal::Status).await,
        Err(IpmiError::WrongPassword { evidence })
    );
    let error = sim
        .call(
            Config {
                user: b"nobody".to_vec(),
                ..config()
            },
            Goal::Status,
        )
        .await
        .expect_err("no such user");
    assert!(matches!(error, IpmiError::WrongUser { .. }), "{error}");
    let guest = Config {
        user: b"guest".to_vec(),
        password: "look".into(),
        ..config()
    };
    let plain = Config {
        workarounds: Workarounds::NONE,
        ..config()
    };
    assert!(
        sim.call(plain, Goal::Status).await.is_ok(),
        "no workaround is needed"
    );
    assert!(
        sim.call(
            Config {
                privilege: Privilege::User,
                ..guest.clone()
            },
            Goal::Status
        )
        .await
        .is_ok()
    );
    let error = sim
        .call(
            Config {
                driver: Driver::Lan,
                ..guest.clone()
            },
            Goal::Status,
        )
        .await
        .expect_err("not allowed");
    assert!(
        matches!(error, IpmiError::PrivilegeTooLow { .. }),
        "{error}"
    );
    let looking = Config {
        privilege: Privilege::User,
        ..guest
    };
    let error = sim
        .call(looking, Goal::On { boot: None })
        .await
        .expect_err("not allowed");
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
    let error = sim
        .call(
            Config {
                suites: SuiteChoice::Only(Suite::Sha256),
                ..config()
            },
            Goal::Status,
        )
        .await
        .expect_err("refused");
    assert!(matches!(error, IpmiError::SuiteRefused { .. }), "{error}");
    let old = Config {
        driver: Driver::Lan,
        timing: Timing {
            first: Duration::from_millis(100),
            ..Timing::default()
        },
        ..wrong
    };
    let evidence = PasswordEvidence::LoginIgnored;
    assert_eq!(
        sim.call(old, Goal::Status).await,
        Err(IpmiError::WrongPassword { evidence })
    );
}

#[tokio::test]
async fn a_k_g_is_used_at_ipmi_sim_and_given_up_where_it_has_none() {
    let key = Secret::parse_k_g("0x6b65796b65796b65796b65796b65796b65796b65").expect("hexadecimal");
    let with_key = Config {
        k_g: key,
        ..config()
    };
    let sim = Sim::start().await;
    let outcome = sim
        .call(with_key.clone(), Goal::Status)
        .await
        .expect("status");
    assert_eq!(outcome.warnings, [Warning::KgIgnored]);
}
