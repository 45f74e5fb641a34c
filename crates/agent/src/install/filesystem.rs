//! File systems: made, mounted, and written into `/etc/fstab`.

use std::fmt::Write as _;
use std::io::Read;

use metal::install::StorageItem;

use super::InstallError;
use super::disks::Found;
use super::tree::Tree;
use crate::block::partition_path;
use crate::process::{Cmd, Runner, must};
use crate::sys::Sys;

/// A file system of the plan, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// The format's id.
    pub id: String,
    /// `ext4`, `vfat`, `swap`, …
    pub kind: String,
    /// Device path.
    pub device: String,
    /// As `/dev/disk/by-uuid` shows it.
    pub uuid: String,
    /// Label.
    pub label: Option<String>,
}

/// A mount of the plan, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub filesystem: Filesystem,
    /// Where, absolute; none for swap.
    pub path: Option<String>,
    /// Options for fstab.
    pub options: Option<String>,
}

/// The device of a disk's or partition's id.
#[must_use]
pub fn device_of(storage: &[StorageItem], found: &Found, volume: &str) -> Option<String> {
    if let Some(disk) = found.get(volume) {
        return Some(disk.path());
    }
    storage.iter().find_map(|i| match i {
        StorageItem::Partition {
            id, number, device, ..
        } if id == volume => found.get(device).map(|d| partition_path(&d.name, *number)),
        _ => None,
    })
}

/// A new UUID from the kernel.
fn new_uuid(sys: &Sys) -> Result<String, InstallError> {
    if let Some(uuid) = sys.text("proc/sys/kernel/random/uuid") {
        return Ok(uuid);
    }
    let mut bytes = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.map_err(|cause| InstallError::Io {
        what: "no random numbers".to_owned(),
        cause,
    })?;
    // RFC 9562 §5.4.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

/// A FAT volume id, `1234-ABCD`, from an id of that form or from the beginning of a UUID.
fn fat_id(uuid: &str) -> String {
    let digits: String = uuid
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(8)
        .collect::<String>()
        .to_uppercase();
    let digits = format!("{digits:0>8}");
    format!("{}-{}", &digits[..4], &digits[4..])
}

/// The first `n` characters of a label.
fn cut(label: &str, n: usize) -> String {
    label.chars().take(n).collect()
}

/// The file systems of the plan. Those without a UUID get one here, so that fstab knows it.
///
/// # Errors
/// When one is on something that is not in the plan.
pub fn filesystems(
    sys: &Sys,
    storage: &[StorageItem],
    found: &Found,
) -> Result<Vec<Filesystem>, InstallError> {
    let mut out = Vec::new();
    for item in storage {
        let StorageItem::Format {
            id,
            fstype,
            volume,
            uuid,
            label,
        } = item
        else {
            continue;
        };
        let device = device_of(storage, found, volume).ok_or_else(|| {
            InstallError::Plan(format!(
                "file system {id} is on '{volume}', which the plan does not have"
            ))
        })?;
        let kind = match fstype.as_str() {
            "fat32" | "fat16" | "fat" => "vfat",
            other => other,
        };
        let uuid = match uuid.as_deref().filter(|u| !u.is_empty()) {
            Some(uuid) => uuid.to_owned(),
            None => new_uuid(sys)?,
        };
        let uuid = if kind == "vfat" {
            fat_id(&uuid)
        } else {
            uuid.to_lowercase()
        };
        out.push(Filesystem {
            id: id.clone(),
            kind: kind.to_owned(),
            device,
            uuid,
            label: label.clone().filter(|l| !l.is_empty()),
        });
    }
    Ok(out)
}

/// The command that makes a file system.
///
/// # Errors
/// For kinds that are not known.
pub fn make_command(fs: &Filesystem) -> Result<Cmd, InstallError> {
    let mut argv: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| argv.extend(words.iter().map(|w| (*w).to_owned()));
    let label = fs.label.as_deref();
    match fs.kind.as_str() {
        kind @ ("ext2" | "ext3" | "ext4") => {
            add(&[&format!("mkfs.{kind}"), "-F", "-q", "-U", &fs.uuid]);
            if kind == "ext4" {
                // The kernel finishes the tables in the background of the first boots.
                add(&["-E", "lazy_itable_init=1,lazy_journal_init=1"]);
            }
            label.iter().for_each(|l| add(&["-L", &cut(l, 16)]));
        }
        "xfs" => {
            add(&["mkfs.xfs", "-f", "-q", "-m", &format!("uuid={}", fs.uuid)]);
            label.iter().for_each(|l| add(&["-L", &cut(l, 12)]));
        }
        "btrfs" => {
            add(&["mkfs.btrfs", "-f", "-q", "-U", &fs.uuid]);
            label.iter().for_each(|l| add(&["-L", &cut(l, 255)]));
        }
        "vfat" => {
            add(&["mkfs.vfat", "-F", "32", "-i", &fs.uuid.replace('-', "")]);
            label
                .iter()
                .for_each(|l| add(&["-n", &cut(&l.to_uppercase(), 11)]));
        }
        "swap" => {
            add(&["mkswap", "-f", "-U", &fs.uuid]);
            label.iter().for_each(|l| add(&["-L", &cut(l, 15)]));
        }
        other => {
            return Err(InstallError::Plan(format!(
                "file system {}: type '{other}' is not known",
                fs.id
            )));
        }
    }
    argv.push(fs.device.clone());
    Ok(Cmd::new(&argv))
}

/// Makes all file systems.
///
/// # Errors
/// When a tool fails.
pub fn make(runner: &dyn Runner, filesystems: &[Filesystem]) -> Result<(), InstallError> {
    for fs in filesystems {
        must(runner, &make_command(fs)?)?;
    }
    Ok(())
}

/// The mounts of the plan, upper directories before lower ones, swap last.
///
/// # Errors
/// When one mounts something that is not in the plan, or nothing is mounted at `/`.
pub fn mounts(
    storage: &[StorageItem],
    filesystems: &[Filesystem],
) -> Result<Vec<Mount>, InstallError> {
    let mut out: Vec<Mount> = Vec::new();
    for item in storage {
        let StorageItem::Mount {
            id,
            device,
            path,
            options,
        } = item
        else {
            continue;
        };
        let filesystem = filesystems
            .iter()
            .find(|f| f.id == *device)
            .ok_or_else(|| {
                InstallError::Plan(format!(
                    "mount {id} is of '{device}', which the plan does not have"
                ))
            })?
            .clone();
        let path = (filesystem.kind != "swap").then(|| format!("/{}", path.trim_matches('/')));
        if path
            .as_deref()
            .is_some_and(|p| p.split('/').any(|c| c == ".." || c == ".") || p.contains("//"))
        {
            return Err(InstallError::Plan(format!(
                "mount {id}: '{}' is no plain path",
                path.unwrap_or_default()
            )));
        }
        if let Some(other) = out.iter().find(|m| path.is_some() && m.path == path) {
            return Err(InstallError::Plan(format!(
                "{} and {} are both mounted at {}",
                other.filesystem.id,
                filesystem.id,
                path.unwrap_or_default()
            )));
        }
        out.push(Mount {
            filesystem,
            path,
            options: options.clone().filter(|o| !o.is_empty()),
        });
    }
    // Swap that is formatted but not mounted is used all the same: that is what it was made for.
    for fs in filesystems.iter().filter(|f| f.kind == "swap") {
        if !out.iter().any(|m| m.filesystem.id == fs.id) {
            out.push(Mount {
                filesystem: fs.clone(),
                path: None,
                options: None,
            });
        }
    }
    out.sort_by_key(|m| {
        m.path.as_deref().map_or((usize::MAX, String::new()), |p| {
            (p.split('/').filter(|c| !c.is_empty()).count(), p.to_owned())
        })
    });
    if out.first().and_then(|m| m.path.as_deref()) != Some("/") {
        return Err(InstallError::Plan(
            "the plan mounts nothing at /".to_owned(),
        ));
    }
    Ok(out)
}

/// Mounts everything below `target`. What an earlier try left mounted there is unmounted first.
///
/// # Errors
/// When a directory cannot be made or a mount fails.
pub fn mount_all(
    runner: &dyn Runner,
    sys: &Sys,
    target: &Tree,
    mounts: &[Mount],
) -> Result<(), InstallError> {
    let root = target.root().to_string_lossy().into_owned();
    let table = sys.text("proc/self/mounts").unwrap_or_default();
    if table
        .lines()
        .any(|l| l.split(' ').nth(1) == Some(root.as_str()))
    {
        must(runner, &Cmd::new(&["umount", "--recursive", &root]))?;
    }
    for mount in mounts {
        let Some(path) = &mount.path else { continue };
        let at = target
            .path(path)
            .and_then(|at| std::fs::create_dir_all(&at).map(|()| at));
        let at = at.map_err(|cause| InstallError::Io {
            what: format!("cannot make the mount point {path}"),
            cause,
        })?;
        // The plan's options are for the installed system: `ro` or `noexec` would stop the installation.
        must(
            runner,
            &Cmd::new(&[
                "mount",
                "-t",
                &mount.filesystem.kind,
                &mount.filesystem.device,
                &at.to_string_lossy(),
            ]),
        )?;
    }
    Ok(())
}

/// The text of `/etc/fstab`.
#[must_use]
pub fn fstab(mounts: &[Mount]) -> String {
    let mut out = String::from("# <file system> <mount point> <type> <options> <dump> <pass>\n");
    for mount in mounts {
        let fs = &mount.filesystem;
        let escape = |p: &str| {
            p.replace('\\', "\\134")
                .replace(' ', "\\040")
                .replace('\t', "\\011")
        };
        let (path, options, pass) = match &mount.path {
            None => (
                "none".to_owned(),
                mount.options.as_deref().unwrap_or("sw"),
                0,
            ),
            Some(path) => {
                // xfs and btrfs check themselves.
                let pass = match (path.as_str(), fs.kind.as_str()) {
                    (_, "xfs" | "btrfs") => 0,
                    ("/", _) => 1,
                    _ => 2,
                };
                (
                    escape(path),
                    mount.options.as_deref().unwrap_or("defaults"),
                    pass,
                )
            }
        };
        // A String takes every write.
        writeln!(
            out,
            "UUID={} {path} {} {options} 0 {pass}",
            fs.uuid, fs.kind
        )
        .ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fat_ids_come_from_ids_and_from_uuids() {
        assert_eq!(fat_id("12ab-cd34"), "12AB-CD34");
        assert_eq!(fat_id("0fc63daf-8483-4772-8e79-3d69d8477de4"), "0FC6-3DAF");
    }

    #[test]
    fn labels_are_cut_to_what_a_file_system_takes() {
        let fs = Filesystem {
            id: "f".into(),
            kind: "vfat".into(),
            device: "/dev/vda1".into(),
            uuid: "12AB-CD34".into(),
            label: Some("efi-partition".into()),
        };
        assert_eq!(
            make_command(&fs).unwrap().to_string(),
            "mkfs.vfat -F 32 -i 12ABCD34 -n EFI-PARTITI /dev/vda1"
        );
    }

    #[test]
    fn an_unknown_type_is_refused() {
        let fs = Filesystem {
            id: "f".into(),
            kind: "reiserfs".into(),
            device: "/dev/vda1".into(),
            uuid: "x".into(),
            label: None,
        };
        assert!(
            make_command(&fs)
                .unwrap_err()
                .to_string()
                .contains("reiserfs")
        );
    }
}
