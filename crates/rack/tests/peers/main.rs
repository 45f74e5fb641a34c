//! The rack's network services against stock programs, in network namespaces. Needs root.

mod net;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::message::{LeaseEvent, Report};
use metal::MacAddr;
use metal::timeline::{FileOutcome, What};
use net::{CLIENT_MAC, Lab, Namespace, Program, wait_for};
use service::{Rights, Service, snapshot, snapshot_of_two};
use wire_dhcp::raw::{self as frames, Envelope};

fn client_mac() -> MacAddr {
    CLIENT_MAC.parse().unwrap()
}

/// What the service says once it serves.
const SERVING: &str = "serving the untagged VLAN of fabric-0 through";

fn in_range(address: &str) -> bool {
    let address: Ipv4Addr = address.parse().unwrap();
    (Ipv4Addr::new(10, 77, 0, 100)..=Ipv4Addr::new(10, 77, 0, 109)).contains(&address)
}

#[test]
fn udhcpc_gets_renews_and_releases_a_lease() {
    let lab = Lab::new();
    let service = Service::start(&lab.rack, lab.dir.path(), snapshot(true));
    let client = lab.udhcpc();
    let address = wait_for("a lease", || lab.client_addresses().pop());
    assert!(in_range(&address), "{address}");
    let ip: IpAddr = address.parse().unwrap();
    wait_for("the lease in the report", || {
        service
            .leases()
            .pop()
            .filter(|l| l.ip == ip && l.mac == client_mac())
    });
    assert_eq!(service.shared.client_mac(ip), Some(client_mac()));
    assert_eq!(
        service.dhcp_messages(),
        ["discover", "offer", "request", "ack"]
    );

    client.signal("USR1");
    wait_for("the renewal", || {
        lab.client_events()
            .contains(&format!("renew {address}"))
            .then_some(())
    });
    assert_eq!(
        service.lease_events(),
        [LeaseEvent::Commit],
        "a renewal changes nothing"
    );

    client.signal("USR2");
    wait_for("the release", || {
        (service.lease_events() == [LeaseEvent::Commit, LeaseEvent::Release]).then_some(())
    });
    assert_eq!(service.shared.client_mac(ip), None);
    drop(client);
}

#[test]
fn dhclient_gets_renews_and_releases_a_lease() {
    let lab = Lab::new();
    let service = Service::start(&lab.rack, lab.dir.path(), snapshot(true));
    let path = |name: &str| lab.dir.path().join(name).to_str().unwrap().to_owned();
    // The shortest lease there is, so that the client renews after half of it.
    std::fs::write(
        path("dhclient.conf"),
        "send dhcp-lease-time 10;\nretry 1;\n",
    )
    .unwrap();
    std::fs::write(path("dhclient.leases"), "").unwrap();
    let script = lab.client_script();
    let arguments = [
        "-d",
        "-4",
        "-cf",
        &path("dhclient.conf"),
        "-lf",
        &path("dhclient.leases"),
        "-pf",
        &path("dhclient.pid"),
        "-sf",
        &script,
    ]
    .map(str::to_owned);
    let client = Program::start(lab.client.command("dhclient").args(&arguments).arg("c0"));
    let address = wait_for("a lease", || lab.client_addresses().pop());
    assert!(in_range(&address), "{address}");
    wait_for("the renewal", || {
        lab.client_events()
            .contains(&format!("RENEW {address}"))
            .then_some(())
    });
    client.stop();
    let released = lab
        .client
        .command("dhclient")
        .args(&arguments)
        .args(["-r", "c0"])
        .output()
        .unwrap();
    assert!(released.status.success(), "{released:?}");
    wait_for("the release", || {
        (service.lease_events() == [LeaseEvent::Commit, LeaseEvent::Release]).then_some(())
    });
}

/// Lines of tcpdump on the machines' side: what a host there could take for configuration.
fn capture(lab: &Lab) -> (Program, Arc<Mutex<Vec<String>>>) {
    let mut command = lab.client.command("tcpdump");
    command.args(["-n", "-l", "-v", "-Q", "in", "-i", "c0"]);
    command.arg(
        "udp port 67 or udp port 68 or udp port 546 or udp port 547 or (icmp6 and ip6[40] == 134)",
    );
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, mut err) = (
        child.stdout.take().unwrap(),
        BufReader::new(child.stderr.take().unwrap()),
    );
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(err.read_line(&mut line).unwrap() > 0, "tcpdump ended");
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            seen.lock().unwrap().push(line);
        }
    });
    (Program::adopt(child), lines)
}

/// Bytes of a datagram that nobody but this test sends; IPv4 and UDP add 28.
const MARKER_PAYLOAD: usize = 77;

#[test]
fn nothing_is_sent_while_no_vlan_has_dhcp_on() {
    let lab = Lab::new();
    let (_tcpdump, lines) = capture(&lab);
    let service = Service::start(&lab.rack, lab.dir.path(), snapshot(false));
    let (status, _) = service.wait_for_state("dhcpd", "no VLAN");
    assert_eq!(status, "off");
    // Longer than any of the service's intervals of its first seconds; a machine asks meanwhile.
    let until = Instant::now() + Duration::from_secs(4);
    assert!(!lab.udhcpc_asks(), "nobody may answer");
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    assert_eq!(*lines.lock().unwrap(), [] as [String; 0]);

    // The capture does see what is sent once DHCP is on.
    service.shared.set_snapshot(snapshot(true));
    let seen = |what: &str| {
        wait_for(what, || {
            lines
                .lock()
                .unwrap()
                .iter()
                .any(|l| l.contains(what))
                .then_some(())
        })
    };
    seen("BOOTP/DHCP, Request from 52:54:00:77:00:01");
    seen("router lifetime 0s");
    assert!(lab.udhcpc_once().status.success());
    // And off again is off again.
    service.shared.set_snapshot(snapshot(false));
    service.wait_for_state("dhcpd", "no VLAN");
    // tcpdump may still have to print what was sent before: it has when it prints this.
    lab.say_from_rack(MARKER_PAYLOAD);
    seen(&format!("length {})", MARKER_PAYLOAD + 28));
    lines.lock().unwrap().clear();
    assert!(!lab.udhcpc_asks());
    let lines = lines.lock().unwrap();
    // The rest of what it prints of one packet is indented.
    let packets: Vec<&String> = lines
        .iter()
        .filter(|l| l.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(packets.is_empty(), "{packets:?}");
}

#[test]
fn a_foreign_server_is_found_and_nobody_is_served_beside_it() {
    let lab = Lab::new();
    lab.client.ip(&["addr", "add", "10.77.0.5/24", "dev", "c0"]);
    let mut command = lab.client.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--port=0",
        "--interface=c0",
        "--dhcp-authoritative",
        "--no-ping",
    ]);
    command.args([
        "--dhcp-range=10.77.0.200,10.77.0.250,1h",
        "--conf-file=/dev/null",
        "--user=root",
    ]);
    command.arg(format!(
        "--dhcp-leasefile={}",
        lab.dir.path().join("dnsmasq.leases").display()
    ));
    command.arg(format!(
        "--pid-file={}",
        lab.dir.path().join("dnsmasq.pid").display()
    ));
    let dnsmasq = Program::start(&mut command);
    wait_for("dnsmasq to listen", || {
        let sockets = lab
            .client
            .command("cat")
            .arg("/proc/net/udp")
            .output()
            .unwrap();
        String::from_utf8_lossy(&sockets.stdout)
            .contains(":0043 ")
            .then_some(())
    });
    let service = Service::start(&lab.rack, lab.dir.path(), snapshot(true));
    let found = |wanted: Option<IpAddr>| {
        move |report: &Report| match report {
            Report::ForeignDhcp { vlan_id: 1, server } if *server == wanted => Some(()),
            _ => None,
        }
    };
    let theirs: IpAddr = "10.77.0.5".parse().unwrap();
    service.wait_for_report("the foreign server", found(Some(theirs)));
    let (status, info) = service.wait_for_state("dhcpd", "10.77.0.5");
    assert_eq!(status, "degraded");
    assert!(info.contains("turn that server off"), "{info}");
    // dnsmasq does not hear its own interface, so an answer would be ours.
    assert!(!lab.udhcpc_asks(), "served beside a foreign server");

    let mut told = snapshot(true);
    told.settings.ignore_external_dhcp = true;
    service.shared.set_snapshot(told);
    service.wait_for_state("dhcpd", "beside it because ignore_external_dhcp is set");
    assert!(lab.udhcpc_asks(), "told to serve beside it");

    service.shared.set_snapshot(snapshot(true));
    service.wait_for_state("dhcpd", "so machines are not served there");
    lab.client.ip(&["-4", "addr", "flush", "dev", "c0"]);
    dnsmasq.stop();
    service.wait_for_report("that it is gone", found(None));
    service.wait_for_state("dhcpd", SERVING);
    assert!(lab.udhcpc_asks(), "served once it is gone");
}

#[test]
fn a_lease_survives_a_kill() {
    let lab = Lab::new();
    let service = Service::start(&lab.rack, lab.dir.path(), snapshot(true));
    let client = lab.udhcpc();
    let address = wait_for("a lease", || lab.client_addresses().pop());
    service.kill();

    let service = Service::start(&lab.rack, lab.dir.path(), snapshot(true));
    service.wait_for_state("dhcpd", SERVING);
    assert_eq!(
        service.shared.client_mac(address.parse().unwrap()),
        Some(client_mac()),
        "known from the log"
    );
    client.signal("USR1");
    wait_for("the renewal", || {
        lab.client_events()
            .contains(&format!("renew {address}"))
            .then_some(())
    });
    drop(client);
    // Ten addresses for ten others: the one that is leased is not among those they get.
    let mut others = Vec::new();
    for n in 0..9 {
        lab.client.ip(&["link", "set", "c0", "down"]);
        lab.client.ip(&[
            "link",
            "set",
            "c0",
            "address",
            &format!("52:54:00:77:01:{n:02x}"),
        ]);
        lab.client.ip(&["link", "set", "c0", "up"]);
        lab.client.ip(&["-4", "addr", "flush", "dev", "c0"]);
        assert!(lab.udhcpc_once().status.success());
        others.extend(lab.client_addresses());
    }
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 9, "{others:?}");
    assert!(!others.contains(&address), "{address} was given out twice");
}

#[test]
fn the_second_rack_stands_by_and_takes_over() {
    let lab = Lab::new();
    let second = lab.second_rack();
    let (one, two) = (lab.dir.path().join("one"), lab.dir.path().join("two"));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&two).unwrap();
    let primary = Service::start(&lab.rack, &one, snapshot_of_two());
    primary.wait_for_state("dhcpd", SERVING);
    let secondary = Service::start_as(
        "rack02",
        &second,
        &two,
        snapshot_of_two(),
        Rights::All,
        BTreeMap::new(),
    );
    let (status, info) = secondary.wait_for_state("dhcpd", "standing by for 10.77.0.1");
    assert_eq!(status, "off", "{info}");
    assert!(lab.udhcpc_once().status.success());
    let from_primary = wait_for("a lease of the primary", || primary.leases().pop()).ip;
    assert!(
        from_primary <= "10.77.0.104".parse::<IpAddr>().unwrap(),
        "the lower half: {from_primary}"
    );
    assert!(secondary.leases().is_empty());

    drop(primary);
    secondary.wait_for_state("dhcpd", SERVING);
    lab.client
        .ip(&["link", "set", "c0", "address", "52:54:00:77:00:06"]);
    assert!(lab.udhcpc_once().status.success());
    let from_secondary = wait_for("a lease of the secondary", || secondary.leases().pop()).ip;
    assert!(
        from_secondary >= "10.77.0.105".parse::<IpAddr>().unwrap(),
        "the upper half: {from_secondary}"
    );
    let foreign = |r: &Report| {
        matches!(
            r,
            Report::ForeignDhcp {
                server: Some(_),
                ..
            }
        )
    };
    assert!(
        !secondary.reports().iter().any(foreign),
        "a partner is no stranger"
    );
}

/// Option `code` of a DHCP message.
fn option(message: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = message.get(240..)?;
    loop {
        match rest {
            [0, after @ ..] => rest = after,
            [255, ..] | [] => return None,
            [found, len, after @ ..] => {
                let (data, after) = after.split_at_checked(usize::from(*len))?;
                if *found == code {
                    return Some(data);
                }
                rest = after;
            }
            [_] => return None,
        }
    }
}

/// A message of a boot ROM in its frame: a DISCOVER, or the REQUEST that takes an offer.
fn machine_frame(mac: wire_dhcp::Mac, offer: Option<&[u8]>) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend(&mac.0[2..]);
    message.extend([0, 0, 0x80, 0]);
    message.resize(28, 0);
    message.extend(mac.0);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, if offer.is_some() { 3 } else { 1 }]);
    if let Some(offer) = offer {
        message.extend([50, 4]);
        message.extend(&offer[16..20]);
        message.extend([54, 4]);
        message.extend(option(offer, 54).unwrap());
    }
    message.push(255);
    let envelope = Envelope {
        src_mac: mac,
        dst_mac: wire_dhcp::Mac::BROADCAST,
        src: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        dst: SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
    };
    frames::build(&envelope, &message).unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "the time is worth knowing")]
fn a_thousand_machines_that_start_together_get_an_address_each() {
    const MACHINES: u16 = 1_000;
    let lab = Lab::new();
    lab.rack.ip(&["addr", "add", "10.80.0.1/16", "dev", "r0"]);
    let mut wide = snapshot(true);
    let subnet = wide.subnets.get_mut(&1).unwrap();
    subnet.cidr = "10.80.0.0/16".parse().unwrap();
    subnet.gateway = None;
    subnet.ranges[0].start = "10.80.1.0".parse().unwrap();
    subnet.ranges[0].end = "10.80.200.0".parse().unwrap();
    let service = Service::start(&lab.rack, lab.dir.path(), wide);
    service.wait_for_state("dhcpd", SERVING);
    let name = lab.client.name.clone();
    let addresses = std::thread::spawn(move || {
        Namespace::enter(&name);
        let index = rack::raw::interfaces()
            .unwrap()
            .into_iter()
            .find(|i| i.name == "c0")
            .unwrap()
            .index;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = rack::raw::PacketSocket::open(index, "c0", 68).unwrap();
            let mac = |n: u16| {
                wire_dhcp::Mac([0x52, 0x54, 0, 0x80, n.to_be_bytes()[0], n.to_be_bytes()[1]])
            };
            let began = Instant::now();
            for n in 0..MACHINES {
                socket.send(&machine_frame(mac(n), None)).unwrap();
            }
            let mut leased: BTreeMap<[u8; 6], [u8; 4]> = BTreeMap::new();
            let mut buffer = vec![0; 2_048];
            while leased.len() < usize::from(MACHINES) {
                let frame =
                    tokio::time::timeout(Duration::from_secs(20), socket.receive(&mut buffer))
                        .await;
                let frame = frame
                    .unwrap_or_else(|_| panic!("{} leases, then silence", leased.len()))
                    .unwrap();
                let datagram = frames::parse(&buffer[..frame.len]).unwrap();
                let client: [u8; 6] = datagram.payload[28..34].try_into().unwrap();
                match option(datagram.payload, 53) {
                    Some([2]) => {
                        socket
                            .send(&machine_frame(
                                wire_dhcp::Mac(client),
                                Some(datagram.payload),
                            ))
                            .unwrap();
                    }
                    Some([5]) => {
                        leased.insert(client, datagram.payload[16..20].try_into().unwrap());
                    }
                    other => panic!("message type {other:?}"),
                }
            }
            println!("{MACHINES} leases in {:?}", began.elapsed());
            leased.into_values().collect::<BTreeSet<_>>()
        })
    });
    assert_eq!(
        addresses.join().unwrap().len(),
        usize::from(MACHINES),
        "no address twice"
    );
    wait_for("the reports", || {
        (service.leases().len() == usize::from(MACHINES)).then_some(())
    });
    drop(service);
    let opened = rack::dhcp::journal::DiskLog::open(lab.dir.path()).unwrap();
    assert_eq!(
        opened.records.len(),
        usize::from(MACHINES),
        "every lease is on disk"
    );
}

#[test]
fn a_relay_agent_gets_an_address_of_the_relayed_vlan() {
    let lab = Lab::new();
    lab.client.ip(&["addr", "add", "10.77.0.2/24", "dev", "c0"]);
    lab.client.ip(&["addr", "add", "10.78.0.1/24", "dev", "lo"]);
    lab.rack
        .ip(&["route", "add", "10.78.0.0/24", "via", "10.77.0.2"]);
    let service = Service::start(&lab.rack, lab.dir.path(), snapshot(true));
    service.wait_for_state("dhcpd", SERVING);
    let name = lab.client.name.clone();
    let offer = std::thread::spawn(move || {
        Namespace::enter(&name);
        let socket = UdpSocket::bind("10.78.0.1:67").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let mut discover =
            wire_dhcp::probe::discover(wire_dhcp::Mac([0x52, 0x54, 0, 0x78, 0, 9]), 0x5ca1_ab1e)
                .unwrap();
        discover[3] = 1;
        discover[24..28].copy_from_slice(&[10, 78, 0, 1]);
        let mut reply = [0; 1_500];
        wait_for("an offer", || {
            socket.send_to(&discover, "10.77.0.1:67").unwrap();
            let (len, from) = socket.recv_from(&mut reply).ok()?;
            Some((reply[..len].to_vec(), from))
        })
    });
    let (reply, from) = offer.join().unwrap();
    assert_eq!(from, "10.77.0.1:67".parse().unwrap());
    assert_eq!((reply[0], &reply[4..8]), (2, &[0x5c, 0xa1, 0xab, 0x1e][..]));
    assert_eq!(reply[16..19], [10, 78, 0], "yiaddr");
}

#[test]
fn a_stock_client_fetches_files_over_tftp() {
    let lab = Lab::new();
    lab.client.ip(&["addr", "add", "10.77.0.2/24", "dev", "c0"]);
    // A second address of ours: the answer must come from the one that was asked.
    lab.rack.ip(&["addr", "add", "10.77.0.3/24", "dev", "r0"]);
    lab.rack
        .ip(&["addr", "add", "2001:db8:77::1/64", "dev", "r0", "nodad"]);
    lab.client
        .ip(&["addr", "add", "2001:db8:77::2/64", "dev", "c0", "nodad"]);
    let content: Vec<u8> = (0..3_000_000u32)
        .flat_map(|n| (n % 251).to_le_bytes())
        .take(3_000_001)
        .collect();
    let files = BTreeMap::from([("boot/kernel".to_owned(), Bytes::from(content.clone()))]);
    let service = Service::start_with(
        &lab.rack,
        lab.dir.path(),
        snapshot(false),
        Rights::All,
        files,
    );
    service.wait_for_state("tftp", "listening");
    let client: IpAddr = "10.77.0.2".parse().unwrap();
    service
        .shared
        .saw_client(client, client_mac(), metal::Timestamp(0));
    let target = lab.dir.path().join("fetched");
    for asked in ["10.77.0.1", "10.77.0.3", "2001:db8:77::1"] {
        std::fs::write(&target, "").unwrap();
        let mut tftp = lab.client.command("tftp");
        tftp.args([
            "-m",
            "binary",
            asked,
            "-c",
            "get",
            "/boot/kernel",
            target.to_str().unwrap(),
        ]);
        assert!(tftp.status().unwrap().success());
        assert!(
            std::fs::read(&target).unwrap() == content,
            "the file differs"
        );
    }
    let mut tftp = lab.client.command("tftp");
    tftp.args([
        "-m",
        "binary",
        "10.77.0.1",
        "-c",
        "get",
        "/boot/nothing",
        target.to_str().unwrap(),
    ]);
    let refused = tftp.output().unwrap();
    assert!(
        String::from_utf8_lossy(&refused.stdout).contains("no such file"),
        "{refused:?}"
    );
    let transfers = wait_for("the timeline", || {
        let entries = service.timeline();
        let files: Vec<_> = entries
            .into_iter()
            .filter(|e| matches!(e.what, What::File { .. }))
            .collect();
        (files.len() == 4).then_some(files)
    });
    let size = content.len() as u64;
    let file = |path: &str, bytes, size, outcome| What::File {
        transport: "tftp".into(),
        path: path.into(),
        bytes,
        size,
        outcome,
    };
    assert_eq!(
        transfers[0].what,
        file("boot/kernel", size, Some(size), FileOutcome::Complete)
    );
    assert_eq!(
        (transfers[0].mac, transfers[0].ip),
        (Some(client_mac()), Some(client))
    );
    assert_eq!(transfers[2].ip, Some("2001:db8:77::2".parse().unwrap()));
    assert_eq!(
        transfers[3].what,
        file("boot/nothing", 0, None, FileOutcome::NotFound)
    );
}

#[test]
fn without_privileges_each_service_says_which_one_is_missing() {
    let lab = Lab::new();
    let service = Service::start_with(
        &lab.rack,
        lab.dir.path(),
        snapshot(true),
        Rights::None,
        BTreeMap::new(),
    );
    let (status, info) = service.wait_for_state("dhcpd", "CAP_NET_RAW");
    assert_eq!(status, "off", "{info}");
    let (status, info) = service.wait_for_state("tftp", "CAP_NET_BIND_SERVICE");
    assert_eq!(status, "off", "{info}");
}
