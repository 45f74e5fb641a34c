//! `ipmitool` and FreeIPMI against our BMC.

use std::process::Stdio;

use crate::PROGRAM_LIMIT;
use crate::udp::Server;
use tokio::process::Command;
use wire_ipmi::bmc::{BmcAction, BmcConfig, User};
use wire_ipmi::command::{BootDevice, BootFlags, ChassisControl, Privilege};
use wire_ipmi::{Secret, Suite};

fn bmc() -> BmcConfig {
    let user = |name: &str, password: &str, privilege| User {
        name: name.into(),
        password: password.into(),
        privilege,
    };
    let users = vec![
        user("admin", "secret", Privilege::Admin),
        user("oper", "switch", Privilege::Operator),
        user("guest", "look", Privilege::User),
    ];
    BmcConfig {
        users,
        guid: *b"0123456789abcdef",
        ..BmcConfig::default()
    }
}

struct Ran {
    ok: bool,
    text: String,
}

async fn run(program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM_LIMIT, command.output())
        .await
        .unwrap_or_else(|_| panic!("{program} {args:?} does not end"))
        .unwrap_or_else(|e| panic!("{program} cannot be run: {e}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ran {
        ok: output.status.success(),
        text,
    }
}

/// `ipmitool` with its interface options.
async fn ipmitool(server: &Server, interface: &[&str], login: (&str, &str), args: &[&str]) -> Ran {
    let port = server.address.port().to_string();
    let mut all = interface.to_vec();
    all.extend(["-H", "127.0.0.1", "-p", &port, "-U", login.0, "-P", login.1]);
    all.extend(args);
    run("ipmitool", &all).await
}

const ADMIN: (&str, &str) = ("admin", "secret");

async fn expect(server: &Server, interface: &[&str], args: &[&str], words: &str) {
    let ran = ipmitool(server, interface, ADMIN, args).await;
    assert!(
        ran.ok && ran.text.contains(words),
        "ipmitool {interface:?} {args:?}: {}",
        ran.text
    );
}

/// Everything `ipmitool` does with a machine, through one kind of session.
async fn use_ipmitool(interface: &[&str]) {
    let server = Server::start(bmc()).await;
    let boot_flags = |efi, device| {
        BmcAction::BootDevice(BootFlags {
            valid: true,
            persistent: false,
            efi,
            device,
        })
    };
    let switched = |control| vec![BmcAction::Chassis(control)];

    expect(
        &server,
        interface,
        &["chassis", "power", "status"],
        "Chassis Power is off",
    )
    .await;
    expect(
        &server,
        interface,
        &["chassis", "bootdev", "pxe", "options=efiboot"],
        "Set Boot Device to pxe",
    )
    .await;
    assert_eq!(server.take_actions(), [boot_flags(true, BootDevice::Pxe)]);
    expect(
        &server,
        interface,
        &["chassis", "bootparam", "get", "5"],
        "Force PXE",
    )
    .await;
    expect(
        &server,
        interface,
        &["chassis", "power", "on"],
        "Chassis Power Control: Up/On",
    )
    .await;
    assert_eq!(server.take_actions(), switched(ChassisControl::PowerUp));
    expect(
        &server,
        interface,
        &["chassis", "power", "status"],
        "Chassis Power is on",
    )
    .await;
    expect(
        &server,
        interface,
        &["chassis", "status"],
        "System Power         : on",
    )
    .await;
    expect(
        &server,
        interface,
        &["chassis", "power", "cycle"],
        "Chassis Power Control: Cycle",
    )
    .await;
    assert_eq!(server.take_actions(), switched(ChassisControl::PowerCycle));
    expect(
        &server,
        interface,
        &["chassis", "power", "reset"],
        "Chassis Power Control: Reset",
    )
    .await;
    assert_eq!(server.take_actions(), switched(ChassisControl::HardReset));
    expect(
        &server,
        interface,
        &["chassis", "power", "soft"],
        "Chassis Power Control: Soft",
    )
    .await;
    assert_eq!(
        server.take_actions(),
        switched(ChassisControl::SoftShutdown)
    );
    expect(
        &server,
        interface,
        &["chassis", "bootdev", "disk"],
        "Set Boot Device to disk",
    )
    .await;
    assert_eq!(server.take_actions(), [boot_flags(false, BootDevice::Disk)]);
    expect(
        &server,
        interface,
        &["chassis", "power", "off"],
        "Chassis Power Control: Down/Off",
    )
    .await;
    assert_eq!(server.take_actions(), switched(ChassisControl::PowerDown));
    expect(
        &server,
        interface,
        &["mc", "info"],
        "IPMI Version              : 2.0",
    )
    .await;
    expect(&server, interface, &["mc", "guid"], "GUID").await;
    // A command that the BMC does not have is refused, not ignored.
    let ran = ipmitool(&server, interface, ADMIN, &["sel", "info"]).await;
    assert!(
        !ran.ok && ran.text.contains("Invalid command"),
        "{}",
        ran.text
    );

    // Levels: who may only look cannot switch.
    let looking = [interface, &["-L", "USER"]].concat();
    let ran = ipmitool(
        &server,
        &looking,
        ("guest", "look"),
        &["chassis", "power", "status"],
    )
    .await;
    assert!(ran.ok, "{}", ran.text);
    let ran = ipmitool(
        &server,
        &looking,
        ("guest", "look"),
        &["chassis", "power", "on"],
    )
    .await;
    assert!(
        !ran.ok && ran.text.contains("nsufficient privilege"),
        "{}",
        ran.text
    );
    let ran = ipmitool(
        &server,
        interface,
        ("guest", "look"),
        &["chassis", "power", "status"],
    )
    .await;
    assert!(!ran.ok, "{}", ran.text);

    // Quicker failures.
    let impatient = [interface, &["-N", "1", "-R", "1"]].concat();
    let ran = ipmitool(
        &server,
        &impatient,
        ("admin", "wrong"),
        &["chassis", "power", "status"],
    )
    .await;
    assert!(!ran.ok, "{}", ran.text);
    let ran = ipmitool(
        &server,
        &impatient,
        ("nobody", "secret"),
        &["chassis", "power", "status"],
    )
    .await;
    assert!(!ran.ok, "{}", ran.text);
    assert_eq!(server.take_actions(), []);
    assert_eq!(
        server.with(|bmc| bmc.session_count()),
        0,
        "ipmitool logs out"
    );
}

#[tokio::test]
async fn ipmitool_uses_our_bmc_with_suite_3() {
    use_ipmitool(&["-I", "lanplus", "-C", "3"]).await;
}

#[tokio::test]
async fn ipmitool_uses_our_bmc_with_suite_17() {
    use_ipmitool(&["-I", "lanplus", "-C", "17"]).await;
}

#[tokio::test]
async fn ipmitool_uses_our_bmc_and_chooses_the_suite() {
    use_ipmitool(&["-I", "lanplus"]).await;
}

#[tokio::test]
async fn ipmitool_uses_our_bmc_with_md5() {
    use_ipmitool(&["-I", "lan", "-A", "MD5"]).await;
}

#[tokio::test]
async fn ipmitool_uses_our_bmc_with_a_straight_password() {
    use_ipmitool(&["-I", "lan", "-A", "PASSWORD"]).await;
}

#[tokio::test]
async fn ipmitool_is_told_that_suite_17_is_refused() {
    let server = Server::start(BmcConfig {
        suites: vec![Suite::Sha1],
        ..bmc()
    })
    .await;
    let ran = ipmitool(
        &server,
        &["-I", "lanplus", "-C", "17"],
        ADMIN,
        &["chassis", "power", "status"],
    )
    .await;
    assert!(
        !ran.ok && ran.text.contains("no matching cipher suite"),
        "{}",
        ran.text
    );
    expect(
        &server,
        &["-I", "lanplus", "-C", "3"],
        &["chassis", "power", "status"],
        "Chassis Power is off",
    )
    .await;
}

#[tokio::test]
async fn ipmitool_uses_the_k_g_of_our_bmc() {
    let k_g = Secret::parse_k_g("keykeykey").expect("text");
    let server = Server::start(BmcConfig { k_g, ..bmc() }).await;
    for suite in ["3", "17"] {
        expect(
            &server,
            &["-I", "lanplus", "-C", suite, "-k", "keykeykey"],
            &["chassis", "power", "status"],
            "Chassis Power is off",
        )
        .await;
        let ran = ipmitool(
            &server,
            &["-I", "lanplus", "-C", suite, "-k", "other"],
            ADMIN,
            &["chassis", "power", "status"],
        )
        .await;
        assert!(!ran.ok, "{}", ran.text);
    }
}

#[tokio::test]
async fn ipmitool_lists_the_suites_of_our_bmc() {
    let server = Server::start(bmc()).await;
    let ran = ipmitool(
        &server,
        &["-I", "lanplus", "-C", "3"],
        ADMIN,
        &["channel", "getciphers", "ipmi"],
    )
    .await;
    assert!(
        ran.ok && ran.text.contains("hmac_sha256") && ran.text.contains("hmac_sha1"),
        "{}",
        ran.text
    );
}

/// `ipmipower` as MAAS calls it.
async fn ipmipower(server: &Server, args: &[&str]) -> Ran {
    let host = server.address.to_string();
    let mut all = vec!["-h", &host, "-u", "admin", "-p", "secret", "-l", "OPERATOR"];
    all.extend(args);
    run("ipmipower", &all).await
}

async fn use_ipmipower(driver: &[&str]) {
    let server = Server::start(BmcConfig {
        suites: Suite::ALL.to_vec(),
        ..bmc()
    })
    .await;
    let ran = ipmipower(&server, &[driver, &["--stat"]].concat()).await;
    assert!(
        ran.ok && ran.text.contains(": off"),
        "{driver:?}: {}",
        ran.text
    );
    let ran = ipmipower(&server, &[driver, &["--cycle", "--on-if-off"]].concat()).await;
    assert!(
        ran.ok && ran.text.contains(": ok"),
        "{driver:?}: {}",
        ran.text
    );
    assert_eq!(
        server.take_actions(),
        [BmcAction::Chassis(ChassisControl::PowerUp)]
    );
    let ran = ipmipower(&server, &[driver, &["--stat"]].concat()).await;
    assert!(
        ran.ok && ran.text.contains(": on"),
        "{driver:?}: {}",
        ran.text
    );
    let ran = ipmipower(&server, &[driver, &["--off"]].concat()).await;
    assert!(
        ran.ok && ran.text.contains(": ok"),
        "{driver:?}: {}",
        ran.text
    );
    assert_eq!(
        server.take_actions(),
        [BmcAction::Chassis(ChassisControl::PowerDown)]
    );
}

#[tokio::test]
async fn freeipmi_uses_our_bmc_as_maas_does() {
    use_ipmipower(&["--driver-type", "LAN_2_0", "-I", "3", "-W", "opensesspriv"]).await;
    use_ipmipower(&["--driver-type", "LAN_2_0", "-I", "17", "-W", "opensesspriv"]).await;
    use_ipmipower(&["--driver-type", "LAN_2_0", "-I", "8"]).await;
    use_ipmipower(&["--driver-type", "LAN_2_0", "-I", "12"]).await;
    use_ipmipower(&["--driver-type", "LAN"]).await;
}
