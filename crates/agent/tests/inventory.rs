//! The inventory of two machines made of files: a QEMU guest, and a server with two NUMA nodes, NVMe,
//! a SATA disk, a graphics card, a bond and things on USB.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use agent::cli::{Report, report};
use agent::inventory::live::{InterfaceAddress, Live};
use agent::inventory::network;
use agent::sys::Sys;
use common::Machine;
use serde_json::{Map, Value, json};

/// An SMBIOS structure: body from offset 4 on, strings.
fn smbios(kind: u8, handle: u16, body: &[u8], strings: &[&str]) -> Vec<u8> {
    let mut out = vec![kind, body.len() as u8 + 4];
    out.extend_from_slice(&handle.to_le_bytes());
    out.extend_from_slice(body);
    for s in strings {
        out.extend_from_slice(s.as_bytes());
        out.push(0);
    }
    out.extend_from_slice(if strings.is_empty() { &[0, 0] } else { &[0] });
    out
}

/// A memory slot (type 17) of `size` MiB; strings: slot, maker, serial, part.
fn slot(handle: u16, size: u16, strings: [&str; 4]) -> Vec<u8> {
    let mut body = [0u8; 0x22 - 4];
    body[0x0c - 4..0x0e - 4].copy_from_slice(&size.to_le_bytes());
    body[0x10 - 4] = 1;
    body[0x12 - 4] = 0x1a;
    body[0x15 - 4..0x17 - 4].copy_from_slice(&3200u16.to_le_bytes());
    body[0x17 - 4] = 2;
    body[0x18 - 4] = 3;
    body[0x1a - 4] = 4;
    smbios(17, handle, &body, &strings)
}

fn live(addresses: Vec<InterfaceAddress>) -> Live {
    Live {
        addresses,
        kernel: "Linux".into(),
        kernel_version: "6.1.0-31".into(),
        machine: "x86_64".into(),
        host_name: "maas-enlist".into(),
    }
}

fn qemu(root: &Path) -> Sys {
    let m = Machine::new(root);
    let mut system = vec![1, 2, 3, 0];
    system.extend_from_slice(&[
        0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
        0xff, 6, 0, 0,
    ]);
    let mut table = smbios(
        0,
        0,
        &[1, 2, 0, 0, 3],
        &["SeaBIOS", "1.16.2-debian", "04/01/2014"],
    );
    table.extend(smbios(
        1,
        0x100,
        &system,
        &["QEMU", "Standard PC (Q35 + ICH9, 2009)", "pc-q35-7.2"],
    ));
    table.extend(smbios(3, 0x300, &[1, 1, 2], &["QEMU", "pc-q35-7.2"]));
    table.extend(slot(0x1100, 1200, ["DIMM 0", "QEMU", "", ""]));
    table.extend(smbios(127, 0x7f00, &[], &[]));
    m.file("sys/firmware/dmi/tables/DMI", table).file(
        "sys/firmware/dmi/tables/smbios_entry_point",
        b"_SM3_\x00\x18\x03\x00\x00",
    );
    m.file("proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: QEMU Virtual CPU version 2.5+\ncpu MHz\t\t: 2445.404\nflags\t\t: fpu lm hypervisor\n");
    m.cpu(0, 0, 0);
    m.file("proc/meminfo", "MemTotal:        1187632 kB\nMemFree:          900000 kB\nMemAvailable:    1000000 kB\nHugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
    m.file("sys/devices/system/node/node0/cpulist", "0").file(
        "sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal:  1187632 kB\nNode 0 MemFree:  900000 kB\nNode 0 MemUsed:  287632 kB\n",
    );
    m.pci(
        "pci0000:00/0000:00:02.0",
        "0x1af4",
        "0x1041",
        "0x020000",
        "virtio-pci",
        "-1",
    );
    m.pci(
        "pci0000:00/0000:00:03.0",
        "0x1af4",
        "0x1042",
        "0x010000",
        "virtio-pci",
        "-1",
    );
    m.nic(
        "pci0000:00/0000:00:02.0/virtio0",
        "eth0",
        "52:54:00:12:34:56",
        &[("carrier", "1"), ("speed", "-1"), ("duplex", "unknown")],
    );
    m.files(
        "sys/bus/virtio/drivers",
        &[("virtio_net/.keep", ""), ("virtio_blk/.keep", "")],
    );
    m.link(
        "sys/devices/pci0000:00/0000:00:02.0/virtio0/driver",
        "sys/bus/virtio/drivers/virtio_net",
    );
    m.file("sys/bus/virtio/.keep", "").link(
        "sys/devices/pci0000:00/0000:00:03.0/virtio1/subsystem",
        "sys/bus/virtio",
    );
    m.disk(
        "pci0000:00/0000:00:03.0/virtio1",
        "vda",
        "254:0",
        16_777_216,
        &[("serial", "LABD1"), ("queue/rotational", "1")],
    );
    m.partition("vda", "vda1", 1, 2048, 2048)
        .partition("vda", "vda10", 10, 9000, 4)
        .partition("vda", "vda2", 2, 4096, 100);
    // None of these is a disk of the machine.
    for (name, sectors) in [
        ("loop0", 400_000),
        ("ram0", 8192),
        ("sr0", 2_000_000),
        ("dm-0", 100),
        ("md127", 100),
        ("fd0", 8),
        ("zram0", 800),
        ("vdz", 0),
    ] {
        m.files(
            &format!("sys/block/{name}"),
            &[
                ("size", &sectors.to_string()),
                ("dev", "7:0"),
                ("ro", "0"),
                ("removable", "0"),
            ],
        );
    }
    // The squashfs of the running system lies on this one.
    m.disk(
        "pci0000:00/0000:00:04.0/virtio2",
        "vdb",
        "254:16",
        400_000,
        &[],
    );
    m.file(
        "proc/mounts",
        "/dev/vdb /media/root-ro squashfs ro 0 0\noverlayroot / overlay rw 0 0\n",
    );
    m.files(
        "sys/class/net/lo",
        &[
            ("type", "772"),
            ("address", "00:00:00:00:00:00"),
            ("mtu", "65536"),
            ("flags", "0x9"),
        ],
    );
    m.file(
        "etc/os-release",
        "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n",
    );
    m.file(
        "proc/cmdline",
        "BOOT_IMAGE=vmlinuz BOOTIF=01-52-54-00-12-34-56\n",
    );
    m.files(
        "sys/class/tty",
        &[
            ("ttyS0/type", "4"),
            ("ttyS0/port", "0x3F8"),
            ("ttyS0/irq", "4"),
            ("ttyS0/device/x", ""),
            ("ttyS1/type", "0"),
            ("ttyS1/device/x", ""),
            ("tty1/dev", "4:1"),
        ],
    );
    Sys::new(root)
}

fn server(root: &Path) -> Sys {
    let m = Machine::new(root);
    m.files(
        "sys/class/dmi/id",
        &[
            ("product_uuid", "4C4C4544-0051-3010-8052-B4C04F4A4E32"),
            ("sys_vendor", "Dell Inc."),
            ("product_name", "PowerEdge R650"),
            ("product_serial", "7Q0RJN2"),
            ("product_sku", "SKU=0912"),
            ("product_family", "PowerEdge"),
            ("bios_vendor", "Dell Inc."),
            ("bios_version", "1.9.2"),
            ("bios_date", "11/17/2022"),
            ("chassis_vendor", "Dell Inc."),
            ("chassis_type", "23"),
            ("chassis_serial", "7Q0RJN2"),
            ("board_vendor", "Dell Inc."),
            ("board_name", "0PYXKY"),
            ("board_serial", ".B1."),
            ("board_version", "A03"),
        ],
    );
    let mut info = String::new();
    for id in 0..8 {
        info.push_str(&format!("processor\t: {id}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz\ncpu MHz\t\t: 2000.000\nflags\t\t: fpu lm vmx\n\n"));
        // Two sockets of two cores of two threads; siblings are four apart, as Linux numbers them.
        m.cpu(id, (id / 2) % 2, id % 2);
        m.files(
            &format!("sys/devices/system/cpu/cpu{id}/cpufreq"),
            &[
                ("scaling_cur_freq", "2100000"),
                ("cpuinfo_min_freq", "800000"),
                ("cpuinfo_max_freq", "3100000"),
            ],
        );
    }
    for (index, level, kind, size) in [
        (0, "1", "Data", "48K"),
        (1, "1", "Instruction", "32K"),
        (2, "2", "Unified", "1280K"),
        (3, "3", "Unified", "43008K"),
    ] {
        for cpu in [0, 2] {
            m.files(
                &format!("sys/devices/system/cpu/cpu{cpu}/cache/index{index}"),
                &[("level", level), ("type", kind), ("size", size)],
            );
        }
    }
    m.file("proc/cpuinfo", info)
        .file("sys/devices/system/cpu/isolated", "6-7\n");
    m.file("proc/meminfo", "MemTotal:       32000000 kB\nMemFree:        30000000 kB\nMemAvailable:   31000000 kB\nHugePages_Total:      16\nHugePages_Free:       12\nHugepagesize:       2048 kB\n");
    m.file("sys/devices/system/memory/block_size_bytes", "80000000\n");
    for n in 0..16 {
        m.file(
            &format!("sys/devices/system/memory/memory{n}/state"),
            "online",
        );
        m.link(
            &format!("sys/devices/system/node/node{}/memory{n}", n / 8),
            &format!("sys/devices/system/memory/memory{n}"),
        );
    }
    for (node, cpus) in [(0, "0-1,4-5"), (1, "2-3,6-7")] {
        m.file(&format!("sys/devices/system/node/node{node}/cpulist"), cpus);
        m.file(&format!("sys/devices/system/node/node{node}/meminfo"), format!("Node {node} MemTotal: 16000000 kB\nNode {node} MemUsed: 1000000 kB\nNode {node} HugePages_Total: 8\nNode {node} HugePages_Free: 6\n"));
    }
    // An NVMe disk on node 1, a rotating SATA disk, a stick, a read-only LUN.
    let nvme = "pci0000:80/0000:80:02.0/0000:81:00.0";
    m.pci(
        "pci0000:80/0000:80:02.0",
        "0x8086",
        "0x347a",
        "0x060400",
        "pcieport",
        "1",
    );
    m.pci(nvme, "0x144d", "0xa80a", "0x010802", "nvme", "1");
    m.link(
        &format!("sys/devices/{nvme}/iommu_group"),
        "sys/kernel/iommu_groups/44",
    )
    .file("sys/kernel/iommu_groups/44/x", "");
    m.files(
        &format!("sys/devices/{nvme}/nvme/nvme0"),
        &[
            ("model", "SAMSUNG MZQL2960HCJR-00A07"),
            ("serial", "S64FNE0R500001"),
            ("firmware_rev", "GDC5502Q"),
        ],
    );
    m.disk(
        &format!("{nvme}/nvme/nvme0"),
        "nvme0n1",
        "259:0",
        1_875_385_008,
        &[("wwid", "eui.36344630525000010025385300000001")],
    );
    m.partition("nvme0n1", "nvme0n1p1", 1, 2048, 2048);
    m.pci(
        "pci0000:00/0000:00:17.0",
        "0x8086",
        "0xa182",
        "0x010601",
        "ahci",
        "0",
    );
    let sata = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";
    m.files(
        &format!("sys/devices/{sata}"),
        &[
            ("model", "ST4000NM0035"),
            ("vendor", "ATA"),
            ("rev", "DA06"),
            ("type", "0"),
        ],
    );
    m.file(
        &format!("sys/devices/{sata}/vpd_pg80"),
        b"\x00\x80\x00\x0c    ZC1ABCDE",
    );
    m.disk(
        sata,
        "sda",
        "8:0",
        7_814_037_168,
        &[
            ("queue/rotational", "1"),
            ("queue/logical_block_size", "4096"),
        ],
    );
    m.file("run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_WWN=0x5000c500a1b2c3d4\nE:ID_ATA_ROTATION_RATE_RPM=7200\nE:ID_MODEL_ENC=ST4000NM0035\\x20\\x20\n");
    m.file("dev/sda", "")
        .link("dev/disk/by-id/wwn-0x5000c500a1b2c3d4", "dev/sda")
        .link("dev/disk/by-id/ata-ST4000NM0035_ZC1ABCDE", "dev/sda")
        .link("dev/disk/by-path/pci-0000:00:17.0-ata-1", "dev/sda");
    m.pci(
        "pci0000:00/0000:00:14.0",
        "0x8086",
        "0xa12f",
        "0x0c0330",
        "xhci_hcd",
        "0",
    );
    let hub = "pci0000:00/0000:00:14.0/usb1";
    m.files(
        &format!("sys/devices/{hub}"),
        &[
            ("busnum", "1"),
            ("devnum", "1"),
            ("idVendor", "1d6b"),
            ("idProduct", "0002"),
            ("bDeviceClass", "09"),
        ],
    );
    m.link("sys/bus/usb/devices/usb1", &format!("sys/devices/{hub}"));
    let stick = format!("{hub}/1-3");
    m.files(
        &format!("sys/devices/{stick}"),
        &[
            ("busnum", "1"),
            ("devnum", "4"),
            ("idVendor", "0781"),
            ("idProduct", "5583"),
            ("bDeviceClass", "00"),
            ("manufacturer", "SanDisk"),
            ("product", "Ultra Fit"),
            ("speed", "480"),
            ("serial", "4C53"),
        ],
    );
    m.files(
        &format!("sys/devices/{stick}/1-3:1.0"),
        &[
            ("bInterfaceClass", "08"),
            ("bInterfaceSubClass", "06"),
            ("bInterfaceNumber", "00"),
        ],
    );
    m.link("sys/bus/usb/devices/1-3", &format!("sys/devices/{stick}"))
        .link(
            "sys/bus/usb/devices/1-3:1.0",
            &format!("sys/devices/{stick}/1-3:1.0"),
        );
    m.disk(
        &format!("{stick}/1-3:1.0/host2/target2:0:0/2:0:0:0"),
        "sdb",
        "8:16",
        30_000_000,
        &[("removable", "1")],
    );
    m.disk(
        "pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0",
        "sdc",
        "8:32",
        1000,
        &[("ro", "1")],
    );
    // Two ports of one card in a bond, with a VLAN on it; a port of the management controller on USB.
    m.pci(
        "pci0000:00/0000:00:1c.0/0000:04:00.0",
        "0x14e4",
        "0x16d8",
        "0x020000",
        "bnxt_en",
        "0",
    );
    m.files(
        "sys/bus/pci/devices/0000:04:00.0",
        &[("sriov_totalvfs", "16"), ("sriov_numvfs", "2")],
    );
    let card = "pci0000:00/0000:00:1c.0/0000:04:00.0";
    m.nic(
        card,
        "eno1",
        "b4:45:06:00:00:01",
        &[
            ("carrier", "1"),
            ("speed", "25000"),
            ("duplex", "full"),
            ("bonding_slave/perm_hwaddr", "B4:45:06:00:00:01"),
        ],
    );
    m.nic(
        card,
        "eno2",
        "b4:45:06:00:00:01",
        &[
            ("dev_port", "1"),
            ("carrier", "0"),
            ("bonding_slave/perm_hwaddr", "b4:45:06:00:00:02"),
        ],
    );
    m.file("sys/module/bnxt_en/version", "1.10.2");
    m.files(
        "sys/class/net/bond0",
        &[
            ("type", "1"),
            ("address", "b4:45:06:00:00:01"),
            ("mtu", "9000"),
            ("flags", "0x1003"),
            ("bonding/mode", "802.3ad 4"),
            ("bonding/miimon", "100"),
            ("bonding/slaves", "eno1 eno2"),
            ("bonding/xmit_hash_policy", "layer3+4 1"),
            ("statistics/rx_bytes", "77"),
        ],
    );
    m.files(
        "sys/class/net/bond0.7",
        &[
            ("type", "1"),
            ("address", "b4:45:06:00:00:01"),
            ("mtu", "9000"),
            ("flags", "0x1002"),
        ],
    );
    m.files(
        "sys/class/net/br0",
        &[
            ("type", "1"),
            ("address", "b4:45:06:00:00:01"),
            ("flags", "0x1003"),
            ("bridge/stp_state", "1"),
            ("bridge/forward_delay", "1500"),
            ("brif/bond0.7/x", ""),
        ],
    );
    m.file("sys/class/net/bonding_masters", "bond0");
    m.file("proc/net/vlan/config", "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\nbond0.7        | 7  | bond0\n");
    m.nic(
        &format!("{hub}/1-14/1-14:1.0"),
        "idrac",
        "b4:45:06:00:00:09",
        &[],
    );
    m.files(
        &format!("sys/devices/{hub}/1-14"),
        &[
            ("busnum", "1"),
            ("devnum", "5"),
            ("idVendor", "413c"),
            ("idProduct", "a102"),
            ("bDeviceClass", "02"),
            ("manufacturer", "Dell <iDRAC> & Co"),
            ("product", "iDRAC \"NIC\"\u{1}"),
        ],
    );
    m.link(
        "sys/bus/usb/devices/1-14",
        &format!("sys/devices/{hub}/1-14"),
    );
    // A graphics card with names from the list, and from udev.
    m.pci(
        "pci0000:80/0000:80:03.0",
        "0x10de",
        "0x20b5",
        "0x030200",
        "",
        "1",
    );
    m.file("usr/share/misc/pci.ids", "10de  NVIDIA Corporation\n\t20b5  GA100 [A100 PCIe 80GB]\n14e4  Broadcom Inc.\n\t16d8  BCM57416\n144d  Samsung Electronics Co Ltd\n");
    m.file(
        "run/udev/data/+pci:0000:04:00.0",
        "E:ID_VENDOR_FROM_DATABASE=Broadcom Inc. and subsidiaries\n",
    );
    Sys::new(root)
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

/// Every node of the XML as a path of ids, with its texts.
fn nodes(xml: &str) -> Vec<(String, String, std::collections::BTreeMap<String, String>)> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut open: Vec<usize> = Vec::new();
    let mut out: Vec<(String, String, std::collections::BTreeMap<String, String>)> = Vec::new();
    let mut element = String::new();
    loop {
        match reader.read_event().expect("well-formed XML") {
            Event::Start(e) if e.name().as_ref() == "node" => {
                let attribute = |n: &str| {
                    e.try_get_attribute(n)
                        .unwrap()
                        .map(|a| a.value.into_owned())
                        .unwrap()
                };
                let above = open
                    .last()
                    .map(|at| format!("{}/", out[*at].0))
                    .unwrap_or_default();
                out.push((
                    format!("{above}{}", attribute("id")),
                    attribute("class"),
                    Default::default(),
                ));
                open.push(out.len() - 1);
            }
            Event::End(e) if e.name().as_ref() == "node" => drop(open.pop()),
            Event::Start(e) => element = e.name().as_ref().to_owned(),
            Event::Empty(e) if e.name().as_ref() == "capability" => {
                let id = e
                    .try_get_attribute("id")
                    .unwrap()
                    .unwrap()
                    .value
                    .into_owned();
                out[*open.last().unwrap()]
                    .2
                    .entry("capabilities".into())
                    .or_default()
                    .push_str(&format!("{id} "));
            }
            Event::Text(t) => {
                let text: &str = &t;
                if let (Some(at), false) = (open.last(), text.trim().is_empty()) {
                    out[*at]
                        .2
                        .entry(element.clone())
                        .or_default()
                        .push_str(text);
                }
            }
            Event::Eof => return out,
            _ => {}
        }
    }
}

#[test]
fn lshw_xml_answers_what_tags_ask() {
    let dir = tempfile::tempdir().unwrap();
    let sys = server(dir.path());
    let xml = report(Report::Lshw, &sys, &live(Vec::new()), Map::new());
    assert!(xml.starts_with("<?xml version=\"1.0\" standalone=\"yes\" ?>\n<list>\n<node id=\"host\" claimed=\"true\" class=\"system\">"), "{xml}");
    let all = nodes(&xml);
    let text = |path: &str, element: &str| {
        let node = all.iter().find(|(p, _, _)| p == path).unwrap_or_else(|| {
            panic!(
                "no {path} in {:?}",
                all.iter().map(|(p, _, _)| p).collect::<Vec<_>>()
            )
        });
        node.2.get(element).cloned().unwrap_or_default()
    };
    assert_eq!(
        (
            text("host", "vendor"),
            text("host", "product"),
            text("host", "serial")
        ),
        (
            "Dell Inc.".into(),
            "PowerEdge R650".into(),
            "7Q0RJN2".into()
        )
    );
    assert!(text("host/core/cpu:1", "capabilities").contains("vmx "));
    assert_eq!(text("host/core/cpu:0", "capacity"), "3100000000");
    assert_eq!(text("host/core/memory", "size"), (32u64 << 30).to_string());
    assert_eq!(
        text("host/core/pci/display", "vendor"),
        "NVIDIA Corporation"
    );
    assert_eq!(
        text("host/core/pci/nvme/disk", "logicalname"),
        "/dev/nvme0n1"
    );
    assert_eq!(
        text("host/core/pci/nvme/disk/volume", "size"),
        (2048 * 512).to_string()
    );
    assert_eq!(text("host/core/pci/sata/disk:0", "serial"), "ZC1ABCDE");
    assert_eq!(
        text("host/core/pci/network/network:0", "size"),
        "25000000000"
    );
    assert!(
        xml.contains("<vendor>Dell &lt;iDRAC&gt; &amp; Co</vendor>")
            && xml.contains("<product>iDRAC &quot;NIC&quot;</product>"),
        "{xml}"
    );
}

#[test]
fn lshw_xml_of_a_virtual_machine_has_its_port_on_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let all = nodes(&report(
        Report::Lshw,
        &qemu(dir.path()),
        &live(Vec::new()),
        Map::new(),
    ));
    let node = |path: &str| {
        all.iter()
            .find(|(p, _, _)| p == path)
            .unwrap_or_else(|| panic!("no {path}"))
            .2
            .clone()
    };
    assert_eq!(
        (
            node("host/core/pci/network")["logicalname"].as_str(),
            node("host/core/pci/network")["serial"].as_str()
        ),
        ("eth0", "52:54:00:12:34:56")
    );
    assert_eq!(
        node("host/core/memory/bank")["size"],
        (1200u64 << 20).to_string()
    );
    assert_eq!(
        node("host/core/pci/storage/disk")["logicalname"],
        "/dev/vda"
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
