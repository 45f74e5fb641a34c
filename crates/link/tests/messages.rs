//! Every kind of message as it crosses the wire, against what is checked in below `messages/`. A region
//! must still read what racks of the version before send, and they what it sends: a diff here is a change
//! of the protocol. Run with `UPDATE_EXPECT=1` to write the files anew; then look at the diff.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use link::message::{
    Batch, BootConfig, Command, CommandResult, Hello, Interface, Lease, LeaseEvent, Order, Outcome,
    Parameters, PassedRequest, PassedResponse, PowerAction, PowerOrder, PowerState, Report,
    Service, ToRack, Welcome,
};
use link::snapshot::{
    Blob, Change, Delta, Image, Machine, Position, Range, Reservation, RootMethod, Settings,
    Snapshot, Subnet, Vlan,
};
use link::tls::frame::{BlobHead, Call, Down, Enrolled, Open, Reply, Up, WireError};
use metal::boot::{Facts, Purpose};
use metal::status::Status;
use metal::timeline::{Entry, FileOutcome, PowerFault, PowerFaultClass, What};
use metal::{MacAddr, SystemId, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Compares messages by name with a file, and reads the file's messages back.
fn check<T: Serialize + DeserializeOwned>(file: &str, messages: Vec<(&str, T)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/messages")
        .join(format!("v{}", link::VERSION))
        .join(file);
    let count = messages.len();
    let now: BTreeMap<&str, Value> = messages
        .iter()
        .map(|(name, m)| (*name, serde_json::to_value(m).unwrap()))
        .collect();
    assert_eq!(now.len(), count, "two messages of {file} have one name");
    let text = serde_json::to_string_pretty(&now).unwrap() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{} ({e}): UPDATE_EXPECT=1 writes it", path.display()));
    assert_eq!(text, kept, "{} differs", path.display());
    reads_back::<T>(&kept);
}

/// Each recorded message is understood, and says the same when it is said again.
fn reads_back<T: Serialize + DeserializeOwned>(kept: &str) {
    let kept: BTreeMap<String, Value> = serde_json::from_str(kept).unwrap();
    for (name, value) in kept {
        let read: T = serde_json::from_value(value.clone())
            .unwrap_or_else(|e| panic!("{name} cannot be read: {e}"));
        assert_eq!(
            serde_json::to_value(&read).unwrap(),
            value,
            "{name} lost something"
        );
    }
}

fn rack() -> SystemId {
    SystemId("abc123".to_owned())
}

fn mac() -> MacAddr {
    "52:54:00:12:34:56".parse().unwrap()
}

fn position(sequence: i64) -> Position {
    Position {
        epoch: 1,
        transaction: 7,
        sequence,
    }
}

fn services() -> BTreeMap<String, Service> {
    let service = Service {
        status: "off".to_owned(),
        info: "needs root".to_owned(),
    };
    BTreeMap::from([("dhcpd".to_owned(), service)])
}

fn interfaces() -> Vec<Interface> {
    vec![Interface {
        name: "eth0".to_owned(),
        mac: Some(mac()),
        addresses: vec![
            "10.0.0.2/24".parse().unwrap(),
            "fd00::2/64".parse().unwrap(),
        ],
    }]
}

fn hello() -> Hello {
    Hello {
        version: 1,
        rack: Some(rack()),
        hostname: "rack-1".to_owned(),
        program: "0.1.0".to_owned(),
        interfaces: interfaces(),
        services: services(),
        position: Some(position(42)),
    }
}

fn passed() -> PassedRequest {
    PassedRequest {
        method: "POST".to_owned(),
        target: "/MAAS/metadata/2012-03-01/".to_owned(),
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        body: Bytes::from_static(b"op=signal\xff"),
        client: "10.0.0.101".parse().unwrap(),
        mac: Some(mac()),
        base: "http://10.0.0.2:5248".to_owned(),
    }
}

fn blob(name: &str) -> Blob {
    Blob {
        filename: name.to_owned(),
        sha256: "ab".repeat(32),
        size: 1_000,
    }
}

fn settings() -> Settings {
    Settings {
        kernel_opts: "console=ttyS0".to_owned(),
        commissioning_osystem: "debian".to_owned(),
        commissioning_distro_series: "bookworm".to_owned(),
        default_domain: "maas".to_owned(),
        ntp_servers: vec!["ntp.example.com".to_owned()],
        dns_servers: vec!["10.0.0.53".parse().unwrap()],
        remote_syslog: Some("log.example.com:514".to_owned()),
        syslog_port: 5247,
        ignore_external_dhcp: false,
    }
}

fn vlan() -> Vlan {
    Vlan {
        id: 5001,
        vid: 10,
        fabric: "fabric-0".to_owned(),
        mtu: 1500,
        dhcp_on: true,
        primary_rack: Some(rack()),
        secondary_rack: None,
        relay_vlan: Some(5002),
    }
}

fn subnet() -> Subnet {
    Subnet {
        id: 1,
        vlan_id: 5001,
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: Some("10.0.0.1".parse().unwrap()),
        dns_servers: vec!["10.0.0.53".parse().unwrap()],
        allow_dns: true,
        disabled_boot_architectures: vec!["ipxe".to_owned()],
        router_advertisements: false,
        ranges: vec![Range {
            start: "10.0.0.100".parse().unwrap(),
            end: "10.0.0.199".parse().unwrap(),
            dynamic: true,
        }],
        reserved: Vec::new(),
    }
}

fn machine() -> Machine {
    Machine {
        system_id: SystemId("xyz789".to_owned()),
        hostname: "sure-cat".to_owned(),
        fqdn: "sure-cat.maas".to_owned(),
        facts: Facts {
            status: Status::Deploying,
            netboot: true,
            ephemeral_deploy: false,
            is_machine: true,
        },
        architecture: "amd64/generic".to_owned(),
        hardware_uuid: Some("0a1b2c3d-0000-1000-8000-525400123456".to_owned()),
        macs: vec![mac()],
        addresses: vec![Reservation {
            mac: mac(),
            ip: "10.0.0.20".parse().unwrap(),
            subnet_id: 1,
        }],
        kernel_opts: "quiet".to_owned(),
        deploy: Some(("debian".to_owned(), "bookworm".to_owned())),
    }
}

fn images() -> BTreeMap<i64, Image> {
    let image = |id, root_method| Image {
        id,
        osystem: "debian".to_owned(),
        release: "bookworm".to_owned(),
        arch: "amd64".to_owned(),
        subarch: "generic".to_owned(),
        label: "stable".to_owned(),
        kernel: blob("boot-kernel"),
        initrd: blob("boot-initrd"),
        root: Some(blob("squashfs")),
        root_method,
        kparams: String::new(),
    };
    let methods = [
        RootMethod::Squash,
        RootMethod::LiveBoot,
        RootMethod::Dracut,
        RootMethod::None,
    ];
    (1..).zip(methods).map(|(i, m)| (i, image(i, m))).collect()
}

fn loaders() -> BTreeMap<String, Blob> {
    BTreeMap::from([("bootx64.efi".to_owned(), blob("bootx64.efi"))])
}

fn entries() -> Vec<Entry> {
    let whats = vec![
        What::Dhcp {
            message: "DISCOVER".to_owned(),
            arch: Some(7),
            speaker: "uefi".to_owned(),
            boot_file: Some("bootx64.efi".to_owned()),
        },
        What::File {
            transport: "tftp".to_owned(),
            path: "bootx64.efi".to_owned(),
            bytes: 10,
            size: Some(20),
            outcome: FileOutcome::Aborted,
        },
        What::Config {
            loader: "grub".to_owned(),
            path: "grub.cfg".to_owned(),
            purpose: Purpose::Xinstall,
        },
        What::Metadata {
            method: "GET".to_owned(),
            path: "/MAAS/metadata/".to_owned(),
            status: 200,
        },
        What::Signal {
            status: "WORKING".to_owned(),
            script: Some("maas-lshw".to_owned()),
            exit_status: Some(0),
            message: "done".to_owned(),
        },
        What::Report {
            origin: "curtin".to_owned(),
            name: "cmd-install".to_owned(),
            event: "finish".to_owned(),
            result: Some("SUCCESS".to_owned()),
            description: "installing".to_owned(),
        },
        What::Power {
            command: "on".to_owned(),
            driver: "ipmi".to_owned(),
            error: Some(fault()),
        },
        What::Syslog {
            severity: 3,
            app: "kernel".to_owned(),
            text: "panic".to_owned(),
        },
        What::Status {
            from: Status::Ready,
            to: Status::Deploying,
        },
        What::Note {
            text: "note".to_owned(),
        },
    ];
    (1_000..)
        .zip(whats)
        .map(|(at, what)| {
            let mut e = Entry::new(Timestamp(at), what);
            e.mac = Some(mac());
            e.ip = Some("10.0.0.101".parse().unwrap());
            e.system_id = Some(SystemId("xyz789".to_owned()));
            e
        })
        .collect()
}

fn fault() -> PowerFault {
    PowerFault {
        class: PowerFaultClass::Auth,
        message: "the BMC refused the password".to_owned(),
    }
}

/// The name of a report. A new kind does not compile until it is recorded.
const fn report_name(r: &Report) -> &'static str {
    match r {
        Report::Lease(_) => "report lease",
        Report::Timeline { .. } => "report timeline",
        Report::BootConfig(_) => "report boot-config",
        Report::ForeignDhcp { .. } => "report foreign-dhcp",
        Report::Interfaces { .. } => "report interfaces",
        Report::Services { .. } => "report services",
        Report::Passed { .. } => "report passed",
    }
}

fn reports() -> Vec<Report> {
    vec![
        Report::Lease(Lease {
            mac: mac(),
            ip: "10.0.0.101".parse().unwrap(),
            subnet_id: 1,
            hostname: Some("sure-cat".to_owned()),
            until: Timestamp(2_000),
            event: LeaseEvent::Commit,
        }),
        Report::Timeline { entries: entries() },
        Report::BootConfig(BootConfig {
            system_id: Some(SystemId("xyz789".to_owned())),
            mac: Some(mac()),
            ip: "10.0.0.101".parse().unwrap(),
            rack_ip: "10.0.0.2".parse().unwrap(),
            method: "ipxe".to_owned(),
            purpose: Purpose::Enlist,
            at: Timestamp(1_000),
        }),
        Report::ForeignDhcp {
            vlan_id: 5001,
            server: Some("10.0.0.66".parse().unwrap()),
        },
        Report::Interfaces {
            interfaces: interfaces(),
        },
        Report::Services {
            services: services(),
        },
        Report::Passed {
            request: passed(),
            at: Timestamp(1_000),
        },
    ]
}

const fn outcome_name(o: &Outcome) -> &'static str {
    match o {
        Outcome::Power { .. } => "complete power",
        Outcome::PowerFault(_) => "complete power-fault",
        Outcome::Dhcp { .. } => "complete dhcp",
        Outcome::Refused { .. } => "complete refused",
    }
}

const fn call_name(c: &Call) -> &'static str {
    match c {
        Call::Hello(_) => "hello",
        Call::Subscribe(None) => "subscribe from nothing",
        Call::Subscribe(Some(_)) => "subscribe",
        Call::Report(_) => "report",
        Call::Complete(_) => "complete",
        Call::Pass(_) => "pass",
        Call::Ping => "ping",
    }
}

#[test]
fn what_racks_say_is_as_recorded() {
    let mut calls: Vec<(&str, Call)> = [
        Call::Hello(Box::new(hello())),
        Call::Subscribe(None),
        Call::Subscribe(Some(position(42))),
        Call::Pass(Box::new(passed())),
        Call::Ping,
    ]
    .into_iter()
    .map(|c| (call_name(&c), c))
    .collect();
    for (number, report) in (1..).zip(reports()) {
        let name = report_name(&report);
        let reports = vec![report];
        calls.push((name, Call::Report(Box::new(Batch { number, reports }))));
    }
    let outcomes = [
        Outcome::Power {
            state: PowerState::On,
        },
        Outcome::PowerFault(fault()),
        Outcome::Dhcp {
            servers: vec!["10.0.0.66".parse().unwrap()],
        },
        Outcome::Refused {
            message: "an older attempt".to_owned(),
        },
    ];
    for outcome in outcomes {
        let name = outcome_name(&outcome);
        let result = CommandResult {
            id: 9,
            attempt: 2,
            outcome,
        };
        calls.push((name, Call::Complete(result)));
    }
    let ups = (1..)
        .zip(calls)
        .map(|(id, (name, call))| (name, Up { id, call }))
        .collect();
    check("rack-to-region.json", ups);
}

const fn change_name(c: &Change) -> &'static str {
    match c {
        Change::Settings(_) => "delta settings",
        Change::Vlan(_) => "delta vlan",
        Change::VlanGone { .. } => "delta vlan-gone",
        Change::Subnet(_) => "delta subnet",
        Change::SubnetGone { .. } => "delta subnet-gone",
        Change::Machine(_) => "delta machine",
        Change::MachineGone { .. } => "delta machine-gone",
        Change::Images { .. } => "delta images",
    }
}

fn changes() -> Vec<Change> {
    vec![
        Change::Settings(settings()),
        Change::Vlan(vlan()),
        Change::VlanGone { id: 5002 },
        Change::Subnet(subnet()),
        Change::SubnetGone { id: 2 },
        Change::Machine(Box::new(machine())),
        Change::MachineGone {
            system_id: SystemId("gone12".to_owned()),
        },
        Change::Images {
            images: images(),
            loaders: loaders(),
        },
    ]
}

const fn action_name(a: PowerAction) -> &'static str {
    match a {
        PowerAction::On { .. } => "command power on",
        PowerAction::Off => "command power off",
        PowerAction::SoftOff => "command power soft-off",
        PowerAction::Cycle { .. } => "command power cycle",
        PowerAction::Query => "command power query",
    }
}

fn orders() -> Vec<(&'static str, Order)> {
    let actions = [
        PowerAction::On { pxe: true },
        PowerAction::Off,
        PowerAction::SoftOff,
        PowerAction::Cycle { pxe: false },
        PowerAction::Query,
    ];
    let mut all: Vec<(&'static str, Order)> = actions
        .into_iter()
        .map(|action| {
            let order = PowerOrder {
                system_id: SystemId("xyz789".to_owned()),
                action,
                driver: "ipmi".to_owned(),
                parameters: Parameters(BTreeMap::from([(
                    "power_address".to_owned(),
                    "10.0.1.101".into(),
                )])),
            };
            (action_name(action), Order::Power(order))
        })
        .collect();
    all.push(("command probe-dhcp", Order::ProbeDhcp { vlan_id: 5001 }));
    all
}

const fn error_name(e: &WireError) -> &'static str {
    match e {
        WireError::Refused(_) => "error refused",
        WireError::Version(..) => "error version",
        WireError::NoBlob(_) => "error no-blob",
        WireError::Failed(_) => "error failed",
        WireError::Invalid(_) => "error invalid",
    }
}

const fn reply_name(r: &Reply) -> &'static str {
    match r {
        Reply::Welcome(_) => "reply welcome",
        Reply::Response(_) => "reply response",
        Reply::Done => "reply done",
    }
}

#[test]
fn what_a_region_says_is_as_recorded() {
    let replies = [
        Reply::Welcome(Welcome {
            rack: rack(),
            version: 1,
            last_batch: 12,
        }),
        Reply::Response(PassedResponse {
            status: 200,
            headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
            body: Bytes::from_static(b"ok\xff"),
        }),
        Reply::Done,
    ];
    let errors = [
        WireError::Refused("register anew".to_owned()),
        WireError::Version(1, 3),
        WireError::NoBlob("ab".repeat(32)),
        WireError::Failed("f00d".to_owned()),
        WireError::Invalid("hello comes first".to_owned()),
    ];
    let mut downs = vec![("ended", Down::Ended)];
    for (id, r) in (1..).zip(replies) {
        downs.push((reply_name(&r), Down::Reply { id, result: Ok(r) }));
    }
    for (id, e) in (4..).zip(errors) {
        downs.push((error_name(&e), Down::Reply { id, result: Err(e) }));
    }
    let snapshot = Snapshot {
        position: position(42),
        settings: settings(),
        vlans: BTreeMap::from([(5001, vlan())]),
        subnets: BTreeMap::from([(1, subnet())]),
        machines: BTreeMap::from([(machine().system_id, machine())]),
        images: images(),
        loaders: loaders(),
    };
    let mut pushes = vec![("snapshot", ToRack::Snapshot(Box::new(snapshot)))];
    for (n, change) in (42..).zip(changes()) {
        let name = change_name(&change);
        let delta = Delta {
            from: position(n),
            to: position(n + 1),
            changes: vec![change],
        };
        pushes.push((name, ToRack::Delta(delta)));
    }
    for (name, order) in orders() {
        let command = Command {
            id: 9,
            attempt: 2,
            order,
        };
        pushes.push((name, ToRack::Command(command)));
    }
    downs.extend(
        pushes
            .into_iter()
            .map(|(name, message)| (name, Down::Push { message })),
    );
    check("region-to-rack.json", downs);
}

#[test]
fn how_connections_open_is_as_recorded() {
    let opens = vec![
        ("session", Open::Session),
        (
            "blob",
            Open::Blob {
                sha256: "ab".repeat(32),
                offset: 512,
            },
        ),
        (
            "enrol",
            Open::Enrol {
                token: "token".to_owned(),
                csr: "request".to_owned(),
                hostname: "rack-1".to_owned(),
            },
        ),
    ];
    check("open.json", opens);
    let heads = vec![
        ("content", BlobHead { size: Ok(1_000) }),
        (
            "no content",
            BlobHead {
                size: Err(WireError::NoBlob("ab".repeat(32))),
            },
        ),
    ];
    check("blob.json", heads);
    let enrolled = vec![
        (
            "taken in",
            Enrolled {
                result: Ok(("certificate".to_owned(), rack())),
            },
        ),
        (
            "refused",
            Enrolled {
                result: Err("the secret was used before".to_owned()),
            },
        ),
    ];
    check("enrolled.json", enrolled);
}

/// What racks of the version before say, and what they are told, is still understood.
#[test]
fn messages_of_the_version_before_are_understood() {
    for version in link::OLDEST..=link::VERSION {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/messages/v{version}"));
        let kept = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let understood: BTreeMap<String, Up> =
            serde_json::from_str(&kept("rack-to-region.json")).unwrap();
        assert!(understood.contains_key("hello"));
        let understood: BTreeMap<String, Open> = serde_json::from_str(&kept("open.json")).unwrap();
        assert!(understood.contains_key("session"));
    }
}

#[test]
fn a_region_serves_its_own_version_and_the_one_before() {
    assert!(link::is_served(link::VERSION));
    assert!(link::is_served(link::OLDEST));
    assert!(
        !link::is_served(link::VERSION + 1),
        "regions are upgraded first"
    );
    assert!(!link::is_served(0), "there was no version 0");
    assert!(matches!(link::VERSION - link::OLDEST, 0 | 1));
}
