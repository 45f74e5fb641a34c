//! Partition tables, written by `sfdisk` or, where that is missing, by `sgdisk`.

use std::fmt::Write;
use std::time::{Duration, Instant};

use metal::install::StorageItem;

use super::InstallError;
use super::disks::{Found, wipe_partition};
use crate::block::{Disk, partition_path};
use crate::process::{Cmd, Runner, must};
use crate::sys::Sys;

/// Time udev gets to show a new partition.
const NODE_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks.
const NODE_POLL: Duration = Duration::from_millis(20);

/// One partition of the plan, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its number.
    pub number: u32,
    /// First block.
    pub start: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub size: u64,
    /// GPT unique GUID.
    pub uuid: Option<&'a str>,
    /// Flag of the plan.
    pub flag: Option<&'a str>,
    /// Wipe of the plan.
    pub wipe: Option<&'a str>,
    /// What it is formatted with.
    pub fstype: Option<&'a str>,
}

/// GPT partition types (UEFI 2.10 §5.3.3, the Discoverable Partitions Specification, GRUB's manual).
fn gpt_type(part: &Part<'_>) -> &'static str {
    match (part.flag, part.fstype) {
        (Some("boot" | "esp"), _) => "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        (Some("bios_grub"), _) => "21686148-6449-6E6F-744E-656564454649",
        (Some("prep"), _) => "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
        (Some("swap"), _) | (_, Some("swap")) => "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
        (Some("lvm"), _) => "E6D6D379-F507-44C2-A23C-238F2A3DF928",
        (Some("raid"), _) => "A19D880F-05FC-4D3B-A006-743F0F84911E",
        (Some("home"), _) => "933AC7E1-2EB4-4F13-B844-0E14E2AEF915",
        _ => "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    }
}

/// MBR partition types.
fn mbr_type(part: &Part<'_>) -> &'static str {
    match (part.flag, part.fstype) {
        (Some("boot" | "esp"), Some("fat32" | "vfat" | "fat16")) => "ef",
        (Some("prep"), _) => "41",
        (Some("extended"), _) => "5",
        (Some("swap"), _) | (_, Some("swap")) => "82",
        (Some("lvm"), _) => "8e",
        (Some("raid"), _) => "fd",
        _ => "83",
    }
}

/// The partitions of one disk, in order of their numbers.
///
/// # Errors
/// When one does not begin or end on a block of the disk, or behind its end.
pub fn parts<'a>(
    storage: &'a [StorageItem],
    disk_id: &str,
    disk: &Disk,
) -> Result<Vec<Part<'a>>, InstallError> {
    let mut out = Vec::new();
    for item in storage {
        let StorageItem::Partition {
            id,
            number,
            size,
            offset,
            device,
            uuid,
            flag,
            wipe,
        } = item
        else {
            continue;
        };
        if device != disk_id {
            continue;
        }
        let block = disk.block_size;
        if *number == 0 || *size == 0 || offset % block != 0 {
            return Err(InstallError::Plan(format!(
                "partition {id}: number {number}, {size} bytes at {offset} do not fit blocks of {block} bytes"
            )));
        }
        if offset.saturating_add(*size) > disk.size {
            return Err(InstallError::Plan(format!(
                "partition {id} ends at byte {}, but {} has {} bytes",
                offset.saturating_add(*size),
                disk.path(),
                disk.size
            )));
        }
        let fstype = storage.iter().find_map(|i| match i {
            StorageItem::Format { volume, fstype, .. } if volume == id => Some(fstype.as_str()),
            _ => None,
        });
        out.push(Part {
            id,
            number: *number,
            start: offset / block,
            blocks: size / block,
            size: size / block * block,
            uuid: uuid.as_deref(),
            flag: flag.as_deref(),
            wipe: wipe.as_deref(),
            fstype,
        });
    }
    out.sort_by_key(|p| p.number);
    Ok(out)
}

/// sfdisk's script for a table.
#[must_use]
pub fn sfdisk_script(disk: &Disk, table: &str, parts: &[Part<'_>]) -> String {
    let gpt = table == "gpt";
    let mut out = format!(
        "label: {}\nunit: sectors\nsector-size: {}\n\n",
        if gpt { "gpt" } else { "dos" },
        disk.block_size
    );
    for part in parts {
        let kind = if gpt { gpt_type(part) } else { mbr_type(part) };
        // A String takes every write.
        write!(
            out,
            "{} : start={}, size={}, type={kind}",
            partition_path(&disk.name, part.number),
            part.start,
            part.blocks
        )
        .ok();
        if let (true, Some(uuid)) = (gpt, part.uuid) {
            write!(out, ", uuid={}", uuid.to_uppercase()).ok();
        }
        if !gpt && part.flag == Some("boot") {
            out.push_str(", bootable");
        }
        out.push('\n');
    }
    out
}

fn sgdisk_command(disk: &Disk, parts: &[Part<'_>]) -> Cmd {
    let mut argv = vec![
        "sgdisk".to_owned(),
        "--clear".to_owned(),
        "--set-alignment=1".to_owned(),
    ];
    for part in parts {
        argv.push(format!(
            "--new={}:{}:{}",
            part.number,
            part.start,
            part.start + part.blocks - 1
        ));
        argv.push(format!("--typecode={}:{}", part.number, gpt_type(part)));
        argv.extend(
            part.uuid
                .map(|u| format!("--partition-guid={}:{}", part.number, u.to_uppercase())),
        );
    }
    argv.push(disk.path());
    Cmd::new(&argv)
}

/// Writes the tables of all disks and waits until their partitions are there.
///
/// # Errors
/// When a plan does not fit, a tool fails, or a partition does not appear.
pub fn partition(
    sys: &Sys,
    runner: &dyn Runner,
    storage: &[StorageItem],
    found: &Found,
) -> Result<(), InstallError> {
    for item in storage {
        let StorageItem::Disk { id, ptable, .. } = item else {
            continue;
        };
        let Some(disk) = found.get(id) else { continue };
        let parts = parts(storage, id, disk)?;
        let Some(table) = ptable.as_deref() else {
            if parts.is_empty() {
                continue;
            }
            return Err(InstallError::Plan(format!(
                "disk {id} has partitions but no partition table"
            )));
        };
        if !matches!(table, "gpt" | "msdos" | "dos") {
            return Err(InstallError::Plan(format!(
                "disk {id}: partition table '{table}' is not known"
            )));
        }
        if runner.has("sfdisk") {
            let argv = [
                "sfdisk",
                "--force",
                "--wipe",
                "always",
                "--wipe-partitions",
                "always",
                &disk.path(),
            ];
            must(
                runner,
                &Cmd::new(&argv).stdin(sfdisk_script(disk, table, &parts)),
            )?;
        } else if table == "gpt" {
            must(runner, &sgdisk_command(disk, &parts))?;
        } else {
            return Err(InstallError::Plan(
                "this system has no sfdisk, which MBR partition tables need".to_owned(),
            ));
        }
        // Both repeat what the tool did already; the wait below tells whether it worked.
        if runner.has("partprobe") {
            runner.run(&Cmd::new(&["partprobe", &disk.path()]), None);
        }
        runner.run(&Cmd::new(&["udevadm", "settle", "--timeout=20"]), None);
        for part in &parts {
            let device = partition_path(&disk.name, part.number);
            wait_for(sys, &device)?;
            // An extended partition holds the others: there is nothing to wipe in it.
            if part.flag != Some("extended") {
                wipe_partition(sys, &device, part.size, part.wipe)?;
            }
        }
    }
    Ok(())
}

fn wait_for(sys: &Sys, device: &str) -> Result<(), InstallError> {
    let started = Instant::now();
    while !sys.exists(device) {
        if started.elapsed() > NODE_LIMIT {
            return Err(InstallError::Plan(format!(
                "{device} did not appear within {} s after partitioning",
                NODE_LIMIT.as_secs()
            )));
        }
        std::thread::sleep(NODE_POLL);
    }
    Ok(())
}
