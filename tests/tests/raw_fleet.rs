//! A simulated fleet on a cable: raw DHCP, TFTP and HTTP between two network namespaces, one machine for
//! each kind of firmware. Needs root.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use fleet::config::{BmcSettings, FleetConfig};
use fleet::hardware::Firmware;
use fleet::{Fault, Fleet, Network, Phase};
use rack::rack::Enable;
use steelyard_tests::{Options, TestCluster, until};

const LIMIT: Duration = Duration::from_secs(120);
const RACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const BENCH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const ALL: [Firmware; 5] = [
    Firmware::IpxeBios,
    Firmware::Bios,
    Firmware::Uefi,
    Firmware::UefiHttp,
    Firmware::IpxeUefi,
];

#[track_caller]
fn ip(words: &[&str]) {
    let output = Command::new("ip")
        .args(words)
        .output()
        .expect("the program ip of iproute2");
    assert!(
        output.status.success(),
        "ip {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Two namespaces with a cable between them, gone with this value: `r0` at the rack, `c0` at the machines.
struct Cable {
    rack: String,
    bench: String,
}

impl Cable {
    fn new(name: &str) -> Self {
        let of = |role: &str| format!("sy-{name}-{role}-{}", std::process::id());
        let cable = Self {
            rack: of("rack"),
            bench: of("bench"),
        };
        let (rack, bench) = (cable.rack.as_str(), cable.bench.as_str());
        for ns in [rack, bench] {
            ip(&["netns", "add", ns]);
            ip(&["-n", ns, "link", "set", "lo", "up"]);
        }
        ip(&[
            "link", "add", "r0", "netns", rack, "type", "veth", "peer", "name", "c0", "netns",
            bench,
        ]);
        ip(&[
            "-n",
            rack,
            "addr",
            "add",
            &format!("{RACK}/24"),
            "dev",
            "r0",
        ]);
        ip(&[
            "-n",
            bench,
            "addr",
            "add",
            &format!("{BENCH}/24"),
            "dev",
            "c0",
        ]);
        ip(&["-n", rack, "link", "set", "r0", "up"]);
        ip(&["-n", bench, "link", "set", "c0", "up"]);
        cable
    }

    /// A runtime on a thread of its own, all of it in a namespace.
    fn inside<T: Send + 'static, F: Future<Output = T>>(
        namespace: &str,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = namespace.to_owned();
        std::thread::spawn(move || {
            let file =
                File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(file.as_fd(), kind)
                .expect("root may change its namespace");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(work())
        })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for ns in [&self.rack, &self.bench] {
            Command::new("ip").args(["netns", "del", ns]).output().ok();
        }
    }
}

/// Boot loaders that no firmware could start, where the distribution's packages would have them.
fn loaders(root: &Path) {
    let names = [
        "usr/lib/shim/shimx64.efi.signed",
        "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        "usr/lib/PXELINUX/lpxelinux.0",
    ];
    for name in names {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        std::fs::write(&path, vec![0x90; 3_000]).expect("a file");
    }
}

/// Region and rack on their side of the cable, with DHCP on and the images there.
async fn a_cluster() -> TestCluster {
    let mut c = TestCluster::start(Options {
        rack: false,
        ..Options::default()
    })
    .await;
    let root = c.dir.path().join("distribution");
    loaders(&root);
    c.start_rack(|config| {
        config.enable = Enable {
            dhcp: true,
            tftp: true,
            http: true,
            syslog: false,
            ra: false,
        };
        config.http_listen = vec![SocketAddr::from((RACK, 0))];
        config.tftp_listen = vec![SocketAddr::from((RACK, 69))];
        config.distribution_root = root;
    })
    .await;
    c.import_images().await;
    let rack = until("the rack is listed", || async {
        let racks = c.admin.get("rackcontrollers/").await.good();
        racks[0]["system_id"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| racks.to_string())
    })
    .await;
    let subnet = until("the subnet is known", || async {
        let all = c.admin.get("subnets/").await.good();
        let found = all
            .as_array()
            .and_then(|a| a.iter().find(|s| s["cidr"] == "10.77.0.0/24").cloned());
        found.ok_or_else(|| all.to_string())
    })
    .await;
    let id = subnet["id"].to_string();
    let range = [
        ("type", "dynamic"),
        ("start_ip", "10.77.0.100"),
        ("end_ip", "10.77.0.199"),
        ("subnet", id.as_str()),
    ];
    drop(c.admin.create("ipranges/", &range).await.good());
    let taken = [
        ("type", "reserved"),
        ("start_ip", "10.77.0.1"),
        ("end_ip", "10.77.0.9"),
        ("subnet", id.as_str()),
    ];
    drop(c.admin.create("ipranges/", &taken).await.good());
    let vlan = format!(
        "fabrics/{}/vlans/{}/",
        subnet["vlan"]["fabric_id"], subnet["vlan"]["vid"]
    );
    drop(
        c.admin
            .update(&vlan, &[("dhcp_on", "true"), ("primary_rack", &rack)])
            .await
            .good(),
    );
    until("DHCP is served", || async {
        let services = c.rack.as_ref().expect("it was started").shared().services();
        match services.get(rack::dhcp::SERVICE) {
            Some(s) if s.status == "running" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    c
}

/// What the machines' side is asked to do, one after the other.
enum Ask {
    Press(usize),
    Phase(usize, Phase),
    Inject(usize, Fault),
    Heal(usize),
    /// Waits until leases were renewed.
    Renewals,
}

/// The fleet on its side of the cable: orders in, answers out.
struct Bench {
    orders: tokio::sync::mpsc::Sender<Ask>,
    answers: tokio::sync::mpsc::Receiver<Result<(), String>>,
    /// Power parameters and MAC address of each machine.
    machines: Vec<(serde_json::Value, String)>,
    thread: std::thread::JoinHandle<()>,
}

impl Bench {
    fn start(cable: &Cable) -> Self {
        let (orders, mut asked) = tokio::sync::mpsc::channel(1);
        let (to, answers) = tokio::sync::mpsc::channel(1);
        let (told, machines) = mpsc::sync_channel(1);
        let thread = Cable::inside(&cable.bench, move || async move {
            let config = FleetConfig {
                firmware: ALL.to_vec(),
                renew_every: Some(Duration::from_millis(100)),
                bmc: BmcSettings {
                    address: BENCH,
                    ..BmcSettings::default()
                },
                ..FleetConfig::new(
                    ALL.len(),
                    Network::Raw {
                        interface: "c0".into(),
                    },
                )
            };
            let fleet = Fleet::start(config).await.expect("the fleet starts");
            let all = (0..fleet.len())
                .map(|i| {
                    (
                        fleet.power_parameters(i),
                        fleet.hardware(i).mac().to_string(),
                    )
                })
                .collect::<Vec<_>>();
            told.send(all).expect("the test waits for it");
            while let Some(next) = asked.recv().await {
                let answer = match next {
                    Ask::Press(i) => {
                        fleet.press(i);
                        Ok(())
                    }
                    Ask::Phase(i, phase) => fleet
                        .wait_phase(i, phase, LIMIT)
                        .await
                        .map(drop)
                        .map_err(|e| e.to_string()),
                    Ask::Inject(i, fault) => {
                        fleet.inject(i, fault);
                        Ok(())
                    }
                    Ask::Renewals => {
                        let enough = || async {
                            if fleet.counters().renewals >= 3 {
                                Ok(())
                            } else {
                                Err(format!("{:?}", fleet.counters()))
                            }
                        };
                        until("leases are renewed", enough).await;
                        Ok(())
                    }
                    Ask::Heal(i) => {
                        fleet.heal(i);
                        Ok(())
                    }
                };
                to.send(answer).await.ok();
            }
        });
        let machines = machines
            .recv_timeout(LIMIT)
            .expect("the fleet says what it has");
        Self {
            orders,
            answers,
            machines,
            thread,
        }
    }

    async fn ask(&mut self, ask: Ask) {
        self.orders.send(ask).await.expect("the fleet lives");
        self.answers
            .recv()
            .await
            .expect("the fleet lives")
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

async fn with_mac(c: &TestCluster, mac: &str) -> serde_json::Value {
    until(&format!("{mac} is known"), || async {
        let found = c
            .admin
            .get(&format!("machines/?mac_address={mac}"))
            .await
            .good();
        found
            .as_array()
            .and_then(|a| a.first().cloned())
            .ok_or_else(|| "nobody has it".to_owned())
    })
    .await
}

/// The installed system of this machine shall ask for its address.
async fn use_dhcp(c: &TestCluster, id: &str) {
    let machine = c.admin.get(&format!("machines/{id}/")).await.good();
    let interface = &machine["boot_interface"];
    let path = format!("nodes/{id}/interfaces/{}/", interface["id"]);
    let link = interface["links"][0].clone();
    let (link_id, subnet) = (link["id"].to_string(), link["subnet"]["id"].to_string());
    drop(
        c.admin
            .op(&path, "unlink_subnet", &[("id", &link_id)])
            .await
            .good(),
    );
    drop(
        c.admin
            .op(
                &path,
                "link_subnet",
                &[("mode", "DHCP"), ("subnet", &subnet)],
            )
            .await
            .good(),
    );
}

async fn test(mut bench: Bench) {
    let c = a_cluster().await;
    let mut ids = Vec::new();
    for i in 0..ALL.len() {
        bench.ask(Ask::Press(i)).await;
    }
    for i in 0..ALL.len() {
        let (parameters, mac) = bench.machines[i].clone();
        let id = with_mac(&c, &mac).await["system_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        c.machine_with_status(&id, "New").await;
        bench.ask(Ask::Phase(i, Phase::Off)).await;
        let parameters = parameters.to_string();
        let fields = [
            ("power_type", "ipmi"),
            ("power_parameters", parameters.as_str()),
        ];
        drop(
            c.admin
                .update(&format!("machines/{id}/"), &fields)
                .await
                .good(),
        );
        ids.push(id);
    }
    for step in ["commission", "deploy"] {
        if step == "deploy" {
            use_dhcp(&c, &ids[0]).await;
        }
        for id in &ids {
            drop(
                c.admin
                    .op(&format!("machines/{id}/"), step, &[])
                    .await
                    .good(),
            );
        }
        let status = if step == "deploy" {
            "Deployed"
        } else {
            "Ready"
        };
        for id in &ids {
            c.machine_with_status(id, status).await;
        }
    }
    bench.ask(Ask::Phase(0, Phase::Running)).await;
    bench.ask(Ask::Renewals).await;
    for (i, id) in ids.iter().enumerate() {
        bench.ask(Ask::Phase(i, Phase::Running)).await;
        let machine = c.admin.get(&format!("machines/{id}/")).await.good();
        let method = match ALL[i] {
            Firmware::Bios => "pxe",
            Firmware::Uefi | Firmware::UefiHttp => "uefi",
            Firmware::IpxeBios | Firmware::IpxeUefi => "ipxe",
        };
        assert_eq!(machine["bios_boot_method"], method, "{:?}", ALL[i]);
        let addresses = machine["ip_addresses"].as_array().expect("a list").clone();
        assert!(
            addresses
                .iter()
                .any(|a| a.as_str().is_some_and(|a| a.starts_with("10.77.0."))),
            "{addresses:?}"
        );
        drop(
            c.admin
                .op(&format!("machines/{id}/"), "release", &[])
                .await
                .good(),
        );
        c.machine_with_status(id, "Ready").await;
        bench.ask(Ask::Phase(i, Phase::Off)).await;
    }
    // A machine that names another architecture is given a loader that it cannot start.
    bench.ask(Ask::Inject(2, Fault::WrongLoader)).await;
    drop(
        c.admin
            .op(&format!("machines/{}/", ids[2]), "commission", &[])
            .await
            .good(),
    );
    bench.ask(Ask::Phase(2, Phase::Stuck)).await;
    drop(
        c.admin
            .op(&format!("machines/{}/", ids[2]), "abort", &[])
            .await
            .good(),
    );
    bench.ask(Ask::Phase(2, Phase::Off)).await;
    bench.ask(Ask::Heal(2)).await;
    // Without orders it ends.
    drop(bench.orders);
    bench.thread.join().expect("the fleet ends");
    c.stop().await;
}

#[test]
fn machines_with_every_firmware_live_their_lives_on_a_cable() {
    let cable = Cable::new("fleet");
    let bench = Bench::start(&cable);
    Cable::inside(&cable.rack, move || test(bench))
        .join()
        .expect("the test on the rack's side");
}
