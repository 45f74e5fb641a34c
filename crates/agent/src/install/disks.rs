//! The planned disks: found by what they say of themselves, freed from whatever holds them, wiped.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use metal::install::StorageItem;

use super::InstallError;
use crate::block::{self, Disk};
use crate::journal::Journal;
use crate::process::{Cmd, End, Runner};
use crate::sys::Sys;

/// Bytes zeroed at the beginning and at the end of a disk or partition: more than any signature needs
/// (GPT, MD, LVM, bcache, ZFS labels of 512 KiB).
const WIPED: u64 = 1024 * 1024;
/// Levels of devices on devices that are taken apart.
const LEVELS_MAX: usize = 16;

/// The disks of a plan, by their ids.
pub type Found = HashMap<String, Disk>;

/// Two texts that name the same thing: udev writes spaces as underscores.
fn same(a: &str, b: &str) -> bool {
    a.trim().replace(' ', "_") == b.trim().replace(' ', "_")
}

/// Finds the disks of the plan. A disk with a serial number is found by nothing else; one without by its
/// path; only a disk with neither by its name.
///
/// # Errors
/// When a disk is not there, or one disk answers to two of the plan.
pub fn find(sys: &Sys, storage: &[StorageItem]) -> Result<Found, InstallError> {
    let present = block::disks(sys);
    let mut found = Found::new();
    for item in storage {
        let StorageItem::Disk {
            id,
            name,
            serial,
            model,
            path,
            ..
        } = item
        else {
            continue;
        };
        let serial = serial.as_deref().filter(|s| !s.is_empty());
        let by_serial = |s: &str| {
            let all: Vec<&Disk> = present
                .iter()
                .filter(|d| d.serial.as_deref().is_some_and(|own| same(own, s)))
                .collect();
            // Several paths or copies of one serial number: the model decides, then the plan's name.
            let fits = |d: &&&Disk| {
                model
                    .as_deref()
                    .is_none_or(|m| d.model.as_deref().is_some_and(|own| same(own, m)))
            };
            all.iter()
                .filter(fits)
                .find(|d| d.name == *name)
                .or_else(|| all.iter().find(fits))
                .or_else(|| all.first())
                .map(|d| (*d).clone())
        };
        let by_path = |p: &str| {
            let kernel_name = sys.link_name(p).or_else(|| {
                Path::new(p)
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
            })?;
            present.iter().find(|d| d.name == kernel_name).cloned()
        };
        let disk = match (serial, path.as_deref().filter(|p| !p.is_empty())) {
            (Some(s), path) => by_serial(s).or_else(|| {
                path.filter(|p| p.starts_with("/dev/disk/"))
                    .and_then(by_path)
            }),
            (None, Some(p)) => by_path(p),
            (None, None) => present.iter().find(|d| d.name == *name).cloned(),
        };
        let Some(disk) = disk else {
            let there: Vec<String> = present
                .iter()
                .map(|d| {
                    format!(
                        "{} (serial {}, {} bytes)",
                        d.name,
                        d.serial.as_deref().unwrap_or("none"),
                        d.size
                    )
                })
                .collect();
            return Err(InstallError::NoDisk {
                id: id.clone(),
                wanted: serial
                    .map(|s| format!("serial {s}"))
                    .or_else(|| path.clone())
                    .unwrap_or_else(|| name.clone()),
                present: if there.is_empty() {
                    "no disk at all".to_owned()
                } else {
                    there.join(", ")
                },
            });
        };
        if disk.read_only {
            return Err(InstallError::Plan(format!(
                "disk {id} is {}, which is read-only",
                disk.path()
            )));
        }
        if let Some((other, _)) = found.iter().find(|(_, d)| d.name == disk.name) {
            return Err(InstallError::Plan(format!(
                "disks {other} and {id} of the plan are both {}",
                disk.path()
            )));
        }
        found.insert(id.clone(), disk);
    }
    if found.is_empty() {
        return Err(InstallError::Plan("the plan has no disk".to_owned()));
    }
    Ok(found)
}

/// Kernel names of a disk, its partitions and all that is built on them; what lies on top comes first.
fn stack(sys: &Sys, disk: &Disk) -> Vec<String> {
    let mut out = Vec::new();
    let mut level: Vec<(String, String)> =
        vec![(disk.name.clone(), format!("sys/block/{}", disk.name))];
    level.extend(disk.partitions.iter().map(|p| {
        (
            p.name.clone(),
            format!("sys/block/{}/{}", disk.name, p.name),
        )
    }));
    for _ in 0..LEVELS_MAX {
        let mut next = Vec::new();
        for (name, dir) in level {
            // Seen again higher up: it must be taken apart before what it lies on.
            out.retain(|n| n != &name);
            out.push(name);
            for holder in sys.list(format!("{dir}/holders")) {
                let dir = format!("sys/block/{holder}");
                next.push((holder, dir));
            }
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    out.reverse();
    out
}

/// The mount table: source, mount point. `\040` and the like are undone.
fn mounts(sys: &Sys) -> Vec<(String, String)> {
    let plain = |s: &str| {
        s.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\")
    };
    let text = sys
        .text("proc/self/mounts")
        .or_else(|| sys.text("proc/mounts"))
        .unwrap_or_default();
    text.lines()
        .filter_map(|l| {
            l.split_once(' ')
                .and_then(|(s, r)| Some((plain(s), plain(r.split(' ').next()?))))
        })
        .collect()
}

/// Frees a disk: unmounts, switches swap off, stops arrays and mappings. What does not work is logged;
/// if it matters, wiping or partitioning fails and says so.
///
/// # Errors
/// When the running system lives on the disk.
pub fn release(
    sys: &Sys,
    runner: &dyn Runner,
    journal: &Journal,
    disk: &Disk,
) -> Result<(), InstallError> {
    let stack = stack(sys, disk);
    let mapped = |name: &String| sys.text(format!("sys/block/{name}/dm/name"));
    let mut devices: Vec<String> = stack.iter().map(|n| format!("/dev/{n}")).collect();
    devices.extend(
        stack
            .iter()
            .filter_map(|n| mapped(n).map(|m| format!("/dev/mapper/{m}"))),
    );
    let held: Vec<String> = mounts(sys)
        .into_iter()
        .filter(|(source, _)| devices.contains(source))
        .map(|(_, at)| at)
        .collect();
    if held.iter().any(|m| m == "/") {
        return Err(InstallError::Plan(format!(
            "the running system is on {}",
            disk.path()
        )));
    }
    let attempt = |argv: &[&str]| {
        let cmd = Cmd::new(argv);
        let output = runner.run(&cmd, None);
        if output.end != End::Exited(0) {
            journal.line(format_args!(
                "`{cmd}`: {} {}",
                output.end,
                output.stderr.trim()
            ));
        }
    };
    // Last mounted, first unmounted.
    for at in held.iter().rev() {
        attempt(&["umount", at]);
    }
    let swaps = sys.text("proc/swaps").unwrap_or_default();
    for swap in swaps
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().next())
        .filter(|s| devices.iter().any(|d| d == s))
    {
        attempt(&["swapoff", swap]);
    }
    for name in &stack {
        if let Some(mapping) = mapped(name) {
            attempt(&["dmsetup", "remove", "--retry", &mapping]);
        } else if sys.exists(format!("sys/block/{name}/md")) {
            attempt(&["mdadm", "--stop", &format!("/dev/{name}")]);
        }
    }
    Ok(())
}

/// Writes zeroes over the beginning and the end of `length` bytes from `offset` on.
fn zero_ends(path: &Path, offset: u64, length: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let zeroes = vec![0u8; WIPED as usize];
    let n = length.min(WIPED);
    for at in [offset, offset + length - n] {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&zeroes[..n as usize])?;
    }
    file.sync_data()
}

/// Writes zeroes over a whole device.
fn zero_all(path: &Path, length: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let zeroes = vec![0u8; WIPED as usize];
    let mut left = length;
    while left > 0 {
        let n = left.min(WIPED);
        file.write_all(&zeroes[..n as usize])?;
        left -= n;
    }
    file.sync_data()
}

/// Wipes a disk's signatures, and those at both ends of each of its old partitions.
///
/// # Errors
/// When it cannot be written.
pub fn wipe(
    sys: &Sys,
    runner: &dyn Runner,
    journal: &Journal,
    disk: &Disk,
) -> Result<(), InstallError> {
    let path = sys.path(disk.path());
    let failed = |cause| InstallError::Io {
        what: format!("cannot wipe {}", disk.path()),
        cause,
    };
    for partition in &disk.partitions {
        let start = sys
            .number(format!("sys/block/{}/{}/start", disk.name, partition.name))
            .and_then(|n| u64::try_from(n).ok());
        // Partitions of a broken table may end behind the disk.
        if let Some(start) = start
            .map(|s| s * 512)
            .filter(|s| s.saturating_add(partition.size) <= disk.size)
        {
            zero_ends(&path, start, partition.size).map_err(failed)?;
        }
    }
    zero_ends(&path, 0, disk.size).map_err(failed)?;
    if runner.has("wipefs") {
        let cmd = Cmd::new(&["wipefs", "--all", "--force", &disk.path()]);
        let output = runner.run(&cmd, None);
        if output.end != End::Exited(0) {
            journal.line(format_args!(
                "`{cmd}`: {} {}",
                output.end,
                output.stderr.trim()
            ));
        }
    }
    Ok(())
}

/// Wipes a new partition as the plan says: `superblock` both ends, `zero` all of it.
///
/// # Errors
/// When it cannot be written.
pub fn wipe_partition(
    sys: &Sys,
    device: &str,
    size: u64,
    wipe: Option<&str>,
) -> Result<(), InstallError> {
    let path = sys.path(device);
    let done = match wipe {
        Some("zero") => zero_all(&path, size),
        Some(_) => zero_ends(&path, 0, size),
        None => Ok(()),
    };
    done.map_err(|cause| InstallError::Io {
        what: format!("cannot wipe {device}"),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_zeroed_and_nothing_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        std::fs::write(&path, vec![7u8; 4 << 20]).unwrap();
        zero_ends(&path, 0, 4 << 20).unwrap();
        let content = std::fs::read(&path).unwrap();
        assert!(
            content[..1 << 20].iter().all(|b| *b == 0)
                && content[3 << 20..].iter().all(|b| *b == 0)
        );
        assert!(content[1 << 20..3 << 20].iter().all(|b| *b == 7));
    }
}
