//! The inventory of two machines made of files: a QEMU guest, and a server with two NUMA nodes, NVMe,
//! a SATA disk, a graphics card, a bond and things on USB.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod lshw;
mod machines;

use agent::cli::{Report, report};
use agent::inventory::live::{InterfaceAddress, Live};
use agent::inventory::network;
use agent::sys::Sys;
use machines::{qemu, server};
use serde_json::{Map, Value, json};

fn live(addresses: Vec<InterfaceAddress>) -> Live {
    Live {
        addresses,
        kernel: "Linux".into(),
        kernel_version: "6.1.0-31".into(),
        machine: "x86_64".into(),
        host_name: "maas-enlist".into(),
    }
}

fn resources(sys: &Sys, live: &Live) -> Value {
    serde_json::from_str(&report(Report::Resources, sys, live, Map::new())).unwrap()
}

#[test]
fn a_virtual_machine_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let sys = qemu(dir.path());
    let address = |interface: &str, address: &str, prefix| InterfaceAddress {
        interface: interface.into(),
        address: address.parse().unwrap(),
        prefix,
    };
    let live = live(vec![
        address("eth0", "10.0.0.77", 24),
        address("eth0", "fe80::1", 64),
        address("lo", "127.0.0.1", 8),
    ]);
    let all = resources(&sys, &live);
    assert_eq!(
        all["environment"],
        json!({"kernel": "Linux", "kernel_architecture": "x86_64", "kernel_version": "6.1.0-31", "os_name": "debian gnu/linux", "os_version": "12", "server": "steelyard-agent", "server_name": "maas-enlist", "server_version": env!("CARGO_PKG_VERSION")})
    );
    assert_eq!(all["api_version"], "1.0");
    assert!(
        all["api_extensions"]
            .as_array()
            .unwrap()
            .contains(&json!("resources_v2"))
    );
    let r = &all["resources"];
    assert_eq!(
        r["cpu"],
        json!({"architecture": "x86_64", "total": 1, "sockets": [{"name": "QEMU Virtual CPU version 2.5+", "vendor": "AuthenticAMD", "socket": 0, "frequency": 2445,
        "cores": [{"core": 0, "die": 0, "frequency": 2445, "threads": [{"id": 0, "numa_node": 0, "thread": 0, "online": true, "isolated": false}]}]}]})
    );
    // What the firmware says, not the 1159 MiB that the kernel left over.
    assert_eq!(r["memory"]["total"], 1200u64 << 20);
    assert_eq!(
        r["memory"]["nodes"],
        json!([{"numa_node": 0, "hugepages_used": 0, "hugepages_total": 0, "used": 287_632u64 * 1024, "total": 1200u64 << 20}])
    );
    assert_eq!(r["memory"]["hugepages_size"], 2 << 20);
    assert_eq!(
        r["network"],
        json!({"total": 1, "cards": [{"driver": "virtio_net", "driver_version": "6.1.0-31", "numa_node": 0, "pci_address": "0000:00:02.0", "vendor_id": "1af4", "product_id": "1041", "vpd": {},
        "ports": [{"id": "eth0", "address": "52:54:00:12:34:56", "port": 0, "protocol": "ethernet", "auto_negotiation": true, "link_detected": true}]}]})
    );
    let disk = |id: &str, n: u64, sectors: u64| json!({"id": id, "device": format!("254:{n}"), "read_only": false, "size": sectors * 512, "partition": n});
    assert_eq!(
        r["storage"],
        json!({"total": 1, "disks": [{"id": "vda", "device": "254:0", "model": "", "type": "virtio", "read_only": false, "size": 8_589_934_592u64, "removable": false, "wwn": "", "numa_node": 0,
        "device_path": "", "block_size": 512, "firmware_version": "", "rpm": 1, "serial": "LABD1", "device_id": "", "pci_address": "0000:00:03.0",
        "partitions": [disk("vda1", 1, 2048), disk("vda2", 2, 100), disk("vda10", 10, 4)]}]})
    );
    assert_eq!(
        (&r["gpu"], &r["usb"]),
        (
            &json!({"cards": [], "total": 0}),
            &json!({"devices": [], "total": 0})
        )
    );
    assert_eq!(
        (
            r["pci"]["total"].as_u64(),
            r["pci"]["devices"][0]["driver"].as_str()
        ),
        (Some(2), Some("virtio-pci"))
    );
    assert_eq!(
        r["system"],
        json!({"uuid": "00112233-4455-6677-8899-aabbccddeeff", "vendor": "QEMU", "product": "Standard PC (Q35 + ICH9, 2009)", "family": "", "version": "pc-q35-7.2", "sku": "", "serial": "", "type": "virtual-machine",
        "firmware": {"vendor": "SeaBIOS", "date": "04/01/2014", "version": "1.16.2-debian"}, "chassis": {"vendor": "QEMU", "type": "Other", "serial": "", "version": "pc-q35-7.2"},
        "motherboard": {"vendor": "", "product": "", "serial": "", "version": ""}})
    );
    assert_eq!(
        all["networks"]["eth0"]["addresses"],
        json!([{"family": "inet", "address": "10.0.0.77", "netmask": "24", "scope": "global"}, {"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link"}])
    );
    assert_eq!(
        (
            &all["networks"]["eth0"]["state"],
            &all["networks"]["eth0"]["type"],
            &all["networks"]["lo"]["type"]
        ),
        (&json!("up"), &json!("broadcast"), &json!("loopback"))
    );
    assert_eq!(network::enlist_addresses(&sys), ["52:54:00:12:34:56"]);
}

#[test]
fn a_server_with_two_nodes_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let sys = server(dir.path());
    let all = resources(&sys, &live(Vec::new()));
    let r = &all["resources"];
    let sockets = r["cpu"]["sockets"].as_array().unwrap();
    assert_eq!((sockets.len(), r["cpu"]["total"].as_u64()), (2, Some(8)));
    assert_eq!(
        (
            &sockets[1]["frequency"],
            &sockets[1]["frequency_minimum"],
            &sockets[1]["frequency_turbo"]
        ),
        (&json!(2100), &json!(800), &json!(3100))
    );
    assert_eq!(
        sockets[1]["cores"][1],
        json!({"core": 1, "die": 0, "frequency": 2100, "threads": [{"id": 3, "numa_node": 1, "thread": 0, "online": true, "isolated": false}, {"id": 7, "numa_node": 1, "thread": 1, "online": true, "isolated": true}]})
    );
    assert_eq!(
        sockets[0]["cache"][3],
        json!({"level": 3, "type": "Unified", "size": 43008 * 1024})
    );
    assert_eq!(
        (&r["memory"]["total"], &r["memory"]["hugepages_used"]),
        (&json!(32u64 << 30), &json!(4 << 21))
    );
    assert_eq!(r["memory"]["nodes"][1]["total"], 16u64 << 30);

    let disk = |id: &str| {
        r["storage"]["disks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|d| d["id"] == id)
            .unwrap()
            .clone()
    };
    let nvme = disk("nvme0n1");
    assert_eq!(
        (
            &nvme["type"],
            &nvme["model"],
            &nvme["serial"],
            &nvme["firmware_version"],
            &nvme["rpm"],
            &nvme["numa_node"],
            &nvme["pci_address"],
            &nvme["wwn"]
        ),
        (
            &json!("nvme"),
            &json!("SAMSUNG MZQL2960HCJR-00A07"),
            &json!("S64FNE0R500001"),
            &json!("GDC5502Q"),
            &json!(0),
            &json!(1),
            &json!("0000:81:00.0"),
            &json!("eui.36344630525000010025385300000001")
        )
    );
    let sata = disk("sda");
    assert_eq!(
        (
            &sata["type"],
            &sata["model"],
            &sata["serial"],
            &sata["rpm"],
            &sata["block_size"],
            &sata["wwn"],
            &sata["device_id"],
            &sata["device_path"]
        ),
        (
            &json!("sata"),
            &json!("ST4000NM0035"),
            &json!("ZC1ABCDE"),
            &json!(7200),
            &json!(4096),
            &json!("0x5000c500a1b2c3d4"),
            &json!("ata-ST4000NM0035_ZC1ABCDE"),
            &json!("pci-0000:00:17.0-ata-1")
        )
    );
    // The kernel counts in 512 bytes whatever the disk's blocks are.
    assert_eq!(sata["size"], 7_814_037_168u64 * 512);
    let stick = disk("sdb");
    assert_eq!(
        (
            &stick["type"],
            &stick["usb_address"],
            stick.get("pci_address"),
            &stick["removable"]
        ),
        (&json!("usb"), &json!("1:4"), None, &json!(true))
    );
    assert_eq!(disk("sdc")["read_only"], true);

    let cards = r["network"]["cards"].as_array().unwrap();
    assert_eq!(cards.len(), 2);
    let card = cards
        .iter()
        .find(|c| c["pci_address"] == "0000:04:00.0")
        .unwrap();
    assert_eq!(
        (
            &card["driver_version"],
            &card["vendor"],
            &card["product"],
            &card["sriov"]
        ),
        (
            &json!("1.10.2"),
            &json!("Broadcom Inc. and subsidiaries"),
            &json!("BCM57416"),
            &json!({"current_vfs": 2, "maximum_vfs": 16, "vfs": []})
        )
    );
    // A member of a bond keeps its own address.
    assert_eq!(
        (
            &card["ports"][0]["address"],
            &card["ports"][0]["link_speed"],
            &card["ports"][0]["link_duplex"]
        ),
        (&json!("b4:45:06:00:00:01"), &json!(25000), &json!("full"))
    );
    assert_eq!(
        (
            &card["ports"][1]["address"],
            &card["ports"][1]["port"],
            card["ports"][1].get("link_speed")
        ),
        (&json!("b4:45:06:00:00:02"), &json!(1), None)
    );
    assert_eq!(
        cards.iter().find(|c| c["usb_address"] == "1:5").unwrap()["vendor_id"],
        "413c"
    );

    assert_eq!(
        (
            r["gpu"]["total"].as_u64(),
            &r["gpu"]["cards"][0]["vendor"],
            &r["gpu"]["cards"][0]["product"],
            &r["gpu"]["cards"][0]["driver"]
        ),
        (
            Some(1),
            &json!("NVIDIA Corporation"),
            &json!("GA100 [A100 PCIe 80GB]"),
            &json!("")
        )
    );
    // Hubs are not counted.
    assert_eq!(r["usb"]["total"], 2);
    let usb = r["usb"]["devices"]
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["product_id"] == "5583")
        .unwrap();
    assert_eq!(
        (
            &usb["vendor"],
            &usb["speed"],
            &usb["interfaces"][0]["class"]
        ),
        (&json!("SanDisk"), &json!(480.0), &json!("Mass Storage"))
    );
    assert_eq!(
        r["pci"]["devices"]
            .as_array()
            .unwrap()
            .iter()
            .find(|d| d["pci_address"] == "0000:81:00.0")
            .unwrap()["iommu_group"],
        44
    );
    assert_eq!(
        (
            &r["system"]["type"],
            &r["system"]["uuid"],
            &r["system"]["chassis"]["type"]
        ),
        (
            &json!("physical"),
            &json!("4c4c4544-0051-3010-8052-b4c04f4a4e32"),
            &json!("Rack Mount Chassis")
        )
    );

    let n = &all["networks"];
    assert!(n.get("bonding_masters").is_none());
    assert_eq!(
        (
            &n["bond0"]["bond"]["mode"],
            &n["bond0"]["bond"]["transmit_policy"],
            &n["bond0"]["bond"]["lower_devices"],
            &n["bond0"]["counters"]["bytes_received"]
        ),
        (
            &json!("802.3ad"),
            &json!("layer3+4"),
            &json!(["eno1", "eno2"]),
            &json!(77)
        )
    );
    assert_eq!(
        (&n["bond0.7"]["vlan"], &n["bond0.7"]["state"]),
        (&json!({"lower_device": "bond0", "vid": 7}), &json!("down"))
    );
    assert_eq!(
        (
            &n["br0"]["bridge"]["stp"],
            &n["br0"]["bridge"]["upper_devices"]
        ),
        (&json!(true), &json!(["bond0.7"]))
    );
}

#[test]
fn the_small_reports() {
    let dir = tempfile::tempdir().unwrap();
    let sys = qemu(dir.path());
    let get = |kind| report(kind, &sys, &live(Vec::new()), Map::new());
    assert_eq!(
        get(Report::KernelCmdline),
        "BOOT_IMAGE=vmlinuz BOOTIF=01-52-54-00-12-34-56\n"
    );
    assert_eq!(
        get(Report::Modaliases),
        "pci:v0x1af4d0x1041\npci:v0x1af4d0x1042\n"
    );
    assert_eq!(
        get(Report::SerialPorts),
        "/dev/ttyS0 driver=- port=0x3F8 irq=4\n"
    );
    let info = get(Report::SupportInfo);
    assert!(
        info.contains("type: virtual-machine\n")
            && info.contains("DIMM 0: 1200 MiB DDR4")
            && info.contains("vda virtio 8589934592 bytes"),
        "{info}"
    );
}

#[test]
fn what_other_scripts_left_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let extra = Map::from_iter([("machine-extra".to_owned(), json!({"platform": "generic"}))]);
    let text = report(
        Report::Resources,
        &qemu(dir.path()),
        &live(Vec::new()),
        extra,
    );
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap()["machine-extra"]["platform"],
        "generic"
    );
}

#[test]
fn an_empty_machine_is_no_reason_to_fail() {
    let dir = tempfile::tempdir().unwrap();
    let sys = Sys::new(dir.path());
    let all = resources(&sys, &live(Vec::new()));
    assert_eq!(
        (
            &all["resources"]["cpu"]["total"],
            &all["resources"]["storage"]["total"],
            &all["resources"]["system"]["type"]
        ),
        (&json!(0), &json!(0), &json!("physical"))
    );
    for kind in [
        Report::Lshw,
        Report::Modaliases,
        Report::KernelCmdline,
        Report::SerialPorts,
        Report::SupportInfo,
    ] {
        assert!(!report(kind, &sys, &live(Vec::new()), Map::new()).is_empty());
    }
}
