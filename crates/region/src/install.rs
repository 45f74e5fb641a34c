//! The order for the agent that installs a machine: its image, its disks, its network, its credentials.

mod network;

use metal::install::{Datasource, Image, Plan, StorageItem, TargetFile};
use serde_json::Value;
use store::Tx;

use crate::auth::ApiKey;
use crate::block_device::{ALIGNMENT, Storage};
use crate::error::ApiError;
use crate::image;
use crate::node::{NodeRow, View};
use crate::static_route;

/// Bytes of the BIOS boot partition that GRUB needs on GPT disks of machines that boot with BIOS.
const BIOS_GRUB: u64 = 1 << 20;

/// Makes the plan for a machine that is being deployed.
///
/// # Errors
/// 409 when the model cannot be installed.
pub async fn plan(
    tx: &mut Tx,
    node: &NodeRow,
    base: &str,
    key: &ApiKey,
    now: metal::Timestamp,
) -> Result<Plan, ApiError> {
    let nodes = [node.clone()];
    let view = View::load(tx, &nodes, now).await?;
    let arch = node.architecture.clone().unwrap_or_default();
    let source = image::install_source(tx, &node.osystem, &node.distro_series, &arch).await?;
    let timeout = crate::setting::node_timeout(tx).await?;
    let metadata_url = format!("{base}/MAAS/metadata/");
    let datasource = Datasource {
        metadata_url: metadata_url.clone(),
        consumer_key: key.consumer_key.clone(),
        token_key: key.token_key.clone(),
        token_secret: key.token_secret.clone(),
    };
    Ok(Plan {
        attempt: node.install_attempt,
        hostname: node.hostname.clone(),
        fqdn: node.fqdn(),
        image: Image {
            url: format!("{base}/images/{}/{}", source.sha256, source.filename),
            sha256: source.sha256,
            size: source.size,
            ftype: source.filetype,
        },
        storage: storage(&view.storage_of(node.id), node)?,
        network: network::netplan(node, &view, &static_route::all(tx).await?),
        files: cloud_files(node, &datasource),
        datasource,
        kernel_options: kernel_options(tx, node).await?,
        timeout_minutes: u32::try_from(timeout.as_secs().div_ceil(60)).unwrap_or(u32::MAX),
    })
}

async fn kernel_options(tx: &mut Tx, node: &NodeRow) -> Result<String, ApiError> {
    let mut out = vec![crate::setting::text(tx, "kernel_opts").await?];
    let tags = store::all!(
        tx,
        (String,),
        "SELECT t.kernel_opts FROM tag t JOIN node_tag nt ON nt.tag_id = t.id WHERE nt.node_id = $1 AND t.kernel_opts <> '' ORDER BY t.name",
        node.id
    )?;
    out.extend(tags.into_iter().map(|t| t.0));
    Ok(out
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join(" "))
}

fn bytes(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// File systems that the agent makes.
const INSTALLABLE: [&str; 7] = ["ext2", "ext4", "xfs", "btrfs", "fat32", "vfat", "swap"];

/// What of a storage configuration the agent cannot make yet, in words; it makes partitions and file systems
/// on physical disks.
#[must_use]
pub fn not_installable(s: &Storage) -> Option<String> {
    let mut missing: Vec<String> = Vec::new();
    for g in &s.groups {
        let kind = match g.r#type.as_str() {
            "lvm-vg" => "volume group",
            "bcache" => "bcache device",
            "vmfs6" => "VMFS datastore",
            _ => "RAID",
        };
        missing.push(format!("the {kind} {}", g.name));
    }
    for c in &s.cache_sets {
        missing.push(format!("the cache set {}", s.cache_set_name(c.id)));
    }
    for f in s
        .filesystems
        .iter()
        .filter(|f| f.group_id.is_none() && f.cache_set_id.is_none())
    {
        let at = f.mount_point.as_deref().unwrap_or("no mount point");
        if f.is_special() {
            missing.push(format!("the {} file system at {at}", f.fstype));
        } else if !INSTALLABLE.contains(&f.fstype.as_str()) {
            missing.push(format!("a {} file system ({at})", f.fstype));
        }
    }
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "This storage configuration cannot be installed yet: {} cannot be made. Partitions and file systems directly on disks can.",
        missing.join(", ")
    ))
}

/// Disks, partitions, file systems and mounts in curtin's storage format.
fn storage(s: &Storage, node: &NodeRow) -> Result<Vec<StorageItem>, ApiError> {
    let boot_disk = node
        .boot_disk_id
        .filter(|id| s.disks.iter().any(|d| d.id == *id))
        .or_else(|| {
            s.disks
                .iter()
                .find(|d| d.r#type == "physical")
                .map(|d| d.id)
        })
        .ok_or_else(|| ApiError::Conflict(format!("{} has no disk.", node.hostname)))?;
    let uefi = node.bios_boot_method.as_deref() == Some("uefi");
    let mut out = Vec::new();
    let mut mounts = Vec::new();
    for disk in &s.disks {
        let parts: Vec<_> = s.partitions_of(disk.id).collect();
        let whole = s
            .filesystems
            .iter()
            .find(|f| f.block_device_id == Some(disk.id));
        if parts.is_empty() && whole.is_none() {
            // A disk that nothing is planned for is left alone.
            continue;
        }
        let is_boot = disk.id == boot_disk;
        let gpt = disk.partition_table_type.as_deref() != Some("MBR");
        let known = |t: &Option<String>| t.clone().filter(|v| !v.is_empty());
        out.push(StorageItem::Disk {
            id: disk.name.clone(),
            name: disk.name.clone(),
            serial: known(&disk.serial),
            model: known(&disk.model),
            path: known(&disk.id_path).or_else(|| Some(format!("/dev/{}", disk.name))),
            ptable: (!parts.is_empty()).then(|| {
                if gpt {
                    "gpt".to_owned()
                } else {
                    "msdos".to_owned()
                }
            }),
            grub_device: is_boot,
            wipe: Some("superblock".to_owned()),
        });
        let mut at = bytes(ALIGNMENT);
        if is_boot && gpt && !uefi && !parts.is_empty() {
            // Behind the table and before the first partition: numbers of the others stay as in the model.
            out.push(StorageItem::Partition {
                id: format!("{}-part-bios", disk.name),
                number: 128,
                size: BIOS_GRUB,
                offset: 1 << 20,
                device: disk.name.clone(),
                uuid: None,
                flag: Some("bios_grub".to_owned()),
                wipe: Some("zero".to_owned()),
            });
        }
        for p in parts {
            let number = u32::try_from(p.number).unwrap_or(u32::MAX);
            let id = format!("{}-part{number}", disk.name);
            let fs = s.filesystem_of_partition(p.id);
            let esp = fs.is_some_and(|f| f.mount_point.as_deref() == Some("/boot/efi"));
            out.push(StorageItem::Partition {
                id: id.clone(),
                number,
                size: bytes(p.size),
                offset: at,
                device: disk.name.clone(),
                uuid: Some(p.uuid.clone()),
                flag: if esp || p.bootable {
                    Some("boot".to_owned())
                } else {
                    None
                },
                wipe: Some("superblock".to_owned()),
            });
            at += bytes(p.size);
            if let Some(f) = fs {
                format_item(&mut out, &mut mounts, &id, f);
            }
        }
        if let Some(f) = whole {
            format_item(&mut out, &mut mounts, &disk.name, f);
        }
    }
    mounts.sort_by_key(|(path, _)| path.matches('/').count() + usize::from(path.as_str() != "/"));
    out.extend(mounts.into_iter().map(|(_, m)| m));
    Ok(out)
}

fn format_item(
    out: &mut Vec<StorageItem>,
    mounts: &mut Vec<(String, StorageItem)>,
    volume: &str,
    f: &crate::block_device::FilesystemRow,
) {
    let id = format!("{volume}_format");
    out.push(StorageItem::Format {
        id: id.clone(),
        fstype: f.fstype.clone(),
        volume: volume.to_owned(),
        uuid: Some(f.uuid.clone()),
        label: f.label.clone().filter(|l| !l.is_empty()),
    });
    if let Some(path) = f.mount_point.clone().filter(|p| !p.is_empty()) {
        let mount = StorageItem::Mount {
            id: format!("{volume}_mount"),
            device: id,
            path: path.clone(),
            options: f.mount_options.clone().filter(|o| !o.is_empty()),
        };
        mounts.push((path, mount));
    }
}

/// cloud-init's configuration of the installed system: the MAAS datasource with the machine's own key.
fn cloud_files(node: &NodeRow, d: &Datasource) -> Vec<TargetFile> {
    let quoted = |s: &str| Value::String(s.to_owned()).to_string();
    let datasource = format!(
        "datasource_list: [ MAAS ]\ndatasource:\n  MAAS:\n    metadata_url: {}\n    consumer_key: {}\n    token_key: {}\n    token_secret: {}\n",
        quoted(&d.metadata_url),
        quoted(&d.consumer_key),
        quoted(&d.token_key),
        quoted(&d.token_secret)
    );
    let reporting = format!(
        "reporting:\n  maas:\n    type: webhook\n    endpoint: {}\n    consumer_key: {}\n    token_key: {}\n    token_secret: {}\n",
        quoted(&format!("{}status/{}", d.metadata_url, node.system_id)),
        quoted(&d.consumer_key),
        quoted(&d.token_key),
        quoted(&d.token_secret)
    );
    let own = "manage_etc_hosts: true\npreserve_hostname: false\nnetwork: {config: disabled}\n"
        .to_owned();
    let file = |name: &str, content: String| TargetFile {
        path: format!("/etc/cloud/cloud.cfg.d/{name}"),
        content,
        mode: 0o600,
    };
    vec![
        file("90_maas_datasource.cfg", datasource),
        file("90_maas_cloud_init_reporting.cfg", reporting),
        file("95_maas_own.cfg", own),
    ]
}
