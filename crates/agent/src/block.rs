//! The disks of the machine, as sysfs and udev's database tell: shared by the inventory and the installer,
//! so that a serial number means the same to both.

use std::path::Path;

use crate::sys::{Sys, pci_address};

/// A sysfs sector, whatever the disk's own block size.
const SECTOR: u64 = 512;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Kernel name.
    pub name: String,
    /// `major:minor`.
    pub device: String,
    /// Its number.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, for example `sda`.
    pub name: String,
    /// `major:minor`.
    pub device: String,
    /// Model name.
    pub model: Option<String>,
    /// Vendor name, where the disk has one apart from its model.
    pub vendor: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware_version: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical block.
    pub block_size: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Revolutions per minute; 0 for solid state, 1 for a rotating disk that does not tell.
    pub rpm: u64,
    /// `nvme`, `virtio`, `sata`, `scsi`, `usb`, `mmc` or another bus.
    pub bus: String,
    /// PCI address of its controller.
    pub pci_address: Option<String>,
    /// `bus:device` on USB.
    pub usb_address: Option<String>,
    /// NUMA node of its controller.
    pub numa_node: u32,
    /// Name below `/dev/disk/by-id`.
    pub by_id: Option<String>,
    /// Name below `/dev/disk/by-path`.
    pub by_path: Option<String>,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

impl Disk {
    /// Path of the device.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }
}

/// Path of a disk's partition: `/dev/sda1`, `/dev/nvme0n1p1`.
#[must_use]
pub fn partition_path(disk: &str, number: u32) -> String {
    let p = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("/dev/{disk}{p}{number}")
}

/// All disks that hold data: no loop, RAM, floppy, optical or assembled devices, and not the device that
/// the running system's squashfs is on.
#[must_use]
pub fn disks(sys: &Sys) -> Vec<Disk> {
    let boot = squashfs_devices(sys);
    sys.list("sys/block")
        .into_iter()
        .filter(|name| is_disk(sys, name) && !boot.contains(name))
        .filter_map(|name| disk(sys, name))
        .collect()
}

fn is_disk(sys: &Sys, name: &str) -> bool {
    const ASSEMBLED: [&str; 10] = [
        "loop", "ram", "zram", "sr", "fd", "dm-", "md", "bcache", "nbd", "zd",
    ];
    let assembled = ASSEMBLED.iter().any(|p| {
        name.strip_prefix(p)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    // The boot and RPMB areas of an eMMC are block devices of their own; multipath members of NVMe are hidden.
    let part_of_mmc =
        name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    let hidden = sys.number(format!("sys/block/{name}/hidden")) == Some(1);
    // SCSI type 5 is CD/DVD (SPC-4 §6.4.2).
    let optical = sys.number(format!("sys/block/{name}/device/type")) == Some(5);
    !assembled && !part_of_mmc && !hidden && !optical
}

/// Disks on which a mounted squashfs lies directly.
fn squashfs_devices(sys: &Sys) -> Vec<String> {
    let mounts = sys.text("proc/mounts").unwrap_or_default();
    let sources = mounts.lines().filter_map(|l| {
        let mut words = l.split(' ');
        let (source, _, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "squashfs")
            .then(|| source.strip_prefix("/dev/").map(str::to_owned))
            .flatten()
    });
    sources.map(|s| parent_disk(sys, &s).unwrap_or(s)).collect()
}

/// The disk of a partition's kernel name.
#[must_use]
pub fn parent_disk(sys: &Sys, partition: &str) -> Option<String> {
    sys.list("sys/block")
        .into_iter()
        .find(|d| sys.exists(format!("sys/block/{d}/{partition}/partition")))
}

fn disk(sys: &Sys, name: String) -> Option<Disk> {
    let dir = format!("sys/block/{name}");
    let size = u64::try_from(sys.number(format!("{dir}/size"))?).ok()? * SECTOR;
    if size == 0 {
        return None;
    }
    let device = sys.text(format!("{dir}/dev")).unwrap_or_default();
    let udev = sys.udev(&format!("b{device}"));
    let property = |key: &str| {
        udev.get(key)
            .map(|v| v.trim().to_owned())
            .filter(|v| !v.is_empty())
    };
    let file = |tail: &str| sys.text(format!("{dir}/{tail}"));
    let whole = sys.resolve(&dir).unwrap_or_default();
    let bus = bus(sys, &dir, &whole, &name);
    let rotating = sys.number(format!("{dir}/queue/rotational")) == Some(1);
    let told_rpm = property("ID_ATA_ROTATION_RATE_RPM")
        .and_then(|v| v.parse().ok())
        .filter(|r| *r > 0);
    Some(Disk {
        model: property("ID_MODEL_ENC")
            .map(|m| unescape(&m))
            .filter(|m| !m.is_empty())
            .or_else(|| file("device/model"))
            .or_else(|| property("ID_MODEL")),
        vendor: file("device/vendor").filter(|v| !v.starts_with("0x")),
        serial: serial(sys, &dir, &udev),
        wwn: property("ID_WWN_WITH_EXTENSION")
            .or_else(|| property("ID_WWN"))
            .or_else(|| file("wwid"))
            .or_else(|| file("device/wwid")),
        firmware_version: file("device/firmware_rev")
            .or_else(|| file("device/rev"))
            .or_else(|| property("ID_REVISION")),
        size,
        block_size: sys
            .number(format!("{dir}/queue/logical_block_size"))
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n > 0)
            .unwrap_or(SECTOR),
        read_only: sys.number(format!("{dir}/ro")) == Some(1),
        removable: sys.number(format!("{dir}/removable")) == Some(1),
        rpm: if rotating { told_rpm.unwrap_or(1) } else { 0 },
        pci_address: pci_address(&whole),
        usb_address: usb_address(sys, &whole),
        numa_node: numa_node(sys, &whole),
        by_id: link_to(sys, "dev/disk/by-id", &name),
        by_path: link_to(sys, "dev/disk/by-path", &name),
        partitions: partitions(sys, &name),
        bus,
        device,
        name,
    })
}

/// Undoes udev's `\x20` escapes and trims.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        out.push_str(&rest[..at]);
        match rest
            .get(at + 2..at + 4)
            .and_then(|h| u8::from_str_radix(h, 16).ok())
        {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push_str("\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    out.push_str(rest);
    out.trim().to_owned()
}

fn serial(
    sys: &Sys,
    dir: &str,
    udev: &std::collections::BTreeMap<String, String>,
) -> Option<String> {
    let property = |key: &str| {
        udev.get(key)
            .map(|v| v.trim().to_owned())
            .filter(|v| !v.is_empty())
    };
    // SCSI VPD page 0x80: four bytes of header, then the unit serial number (SPC-4 §7.8.19).
    let page = || {
        let page = sys.bytes(format!("{dir}/device/vpd_pg80"))?;
        let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
        let text = String::from_utf8_lossy(page.get(4..4 + length)?)
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned();
        (!text.is_empty()).then_some(text)
    };
    property("ID_SCSI_SERIAL")
        .or_else(|| property("ID_SERIAL_SHORT"))
        .or_else(|| sys.text(format!("{dir}/serial")))
        .or_else(|| sys.text(format!("{dir}/device/serial")))
        .or_else(page)
        .or_else(|| property("ID_SERIAL"))
}

fn bus(sys: &Sys, dir: &str, whole: &Path, name: &str) -> String {
    let text = whole.to_string_lossy();
    if name.starts_with("nvme") {
        "nvme".to_owned()
    } else if text.contains("/usb") {
        "usb".to_owned()
    } else if text.contains("/ata") {
        "sata".to_owned()
    } else {
        sys.link_name(format!("{dir}/device/subsystem"))
            .unwrap_or_else(|| {
                if name.starts_with("vd") {
                    "virtio".to_owned()
                } else {
                    "unknown".to_owned()
                }
            })
    }
}

/// `bus:device` of the nearest USB device above.
fn usb_address(sys: &Sys, whole: &Path) -> Option<String> {
    whole.ancestors().find_map(|a| {
        let bus = sys.number(a.join("busnum"))?;
        let device = sys.number(a.join("devnum"))?;
        Some(format!("{bus}:{device}"))
    })
}

/// The NUMA node of the nearest device above that has one; the kernel's -1 ("none") is node 0.
#[must_use]
pub fn numa_node(sys: &Sys, device: &Path) -> u32 {
    device
        .ancestors()
        .find_map(|a| sys.number(a.join("numa_node")))
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(0)
}

fn link_to(sys: &Sys, dir: &str, name: &str) -> Option<String> {
    // World wide names are the least readable of the names; any other comes first.
    let mut names: Vec<String> = sys
        .list(dir)
        .into_iter()
        .filter(|l| sys.link_name(format!("{dir}/{l}")).as_deref() == Some(name))
        .collect();
    names.sort_by_key(|n| {
        n.starts_with("wwn-") || n.starts_with("nvme-eui") || n.starts_with("lvm-")
    });
    names.into_iter().next()
}

fn partitions(sys: &Sys, disk: &str) -> Vec<Partition> {
    let mut out: Vec<Partition> = sys
        .list(format!("sys/block/{disk}"))
        .into_iter()
        .filter_map(|name| {
            let dir = format!("sys/block/{disk}/{name}");
            Some(Partition {
                number: u32::try_from(sys.number(format!("{dir}/partition"))?).ok()?,
                device: sys.text(format!("{dir}/dev")).unwrap_or_default(),
                size: u64::try_from(sys.number(format!("{dir}/size"))?).ok()? * SECTOR,
                read_only: sys.number(format!("{dir}/ro")) == Some(1),
                name,
            })
        })
        .collect();
    out.sort_by_key(|p| p.number);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_names_follow_the_kernel() {
        assert_eq!(partition_path("sda", 2), "/dev/sda2");
        assert_eq!(partition_path("nvme0n1", 2), "/dev/nvme0n1p2");
        assert_eq!(unescape("Samsung\\x20SSD\\x20\\x20"), "Samsung SSD");
        assert_eq!(unescape("odd\\xzz"), "odd\\xzz");
    }
}
