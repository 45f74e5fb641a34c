//! Two machines as trees of files: what the kernel shows of them.

use std::path::Path;

use agent::sys::Sys;

use crate::common::Machine;

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

pub fn qemu(root: &Path) -> Sys {
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

pub fn server(root: &Path) -> Sys {
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
