//! `block-devices`: the disks of nodes, and everything that lies on them.

pub mod change;
pub mod ops;

use std::collections::HashMap;

use serde_json::{Value, json};
use store::Tx;

use crate::error::ApiError;
use crate::subnet::texts;

/// Partitions start and end on multiples of this many bytes.
pub const ALIGNMENT: i64 = 4 << 20;
/// Bytes that a partition table takes from a disk: the first alignment unit and a copy at the end.
pub const TABLE_OVERHEAD: i64 = ALIGNMENT + (1 << 20);

/// A disk as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct BlockDeviceRow {
    /// Database id.
    pub id: i64,
    /// Its node.
    pub node_id: i64,
    /// `physical` or `virtual`.
    pub r#type: String,
    /// Kernel name.
    pub name: String,
    /// Stable path, where there is no model and serial number.
    pub id_path: Option<String>,
    /// Bytes.
    pub size: i64,
    /// Bytes of a sector.
    pub block_size: i64,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Firmware version.
    pub firmware_version: Option<String>,
    /// Tags as a JSON list.
    pub tags: String,
    /// NUMA node.
    pub numa_index: Option<i64>,
    /// UUID of virtual devices.
    pub uuid: Option<String>,
    /// `GPT` or `MBR`.
    pub partition_table_type: Option<String>,
    /// The group that a virtual device is made of.
    pub group_id: Option<i64>,
}

/// Columns of [`BlockDeviceRow`] from `block_device b`.
#[macro_export]
#[doc(hidden)]
macro_rules! select_block_device {
    ($rest:literal) => {
        concat!(
            "SELECT b.id, b.node_id, b.type, b.name, b.id_path, b.size, b.block_size, b.model, b.serial, b.firmware_version, b.tags, ",
            "b.numa_index, b.uuid, b.partition_table_type, b.group_id FROM block_device b ",
            $rest
        )
    };
}

/// A partition as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct PartitionRow {
    /// Database id.
    pub id: i64,
    /// Its disk.
    pub block_device_id: i64,
    /// Number on the disk, from 1.
    pub number: i64,
    /// GPT unique GUID.
    pub uuid: String,
    /// Bytes.
    pub size: i64,
    /// Whether the firmware boots from it.
    pub bootable: bool,
    /// Tags as a JSON list.
    pub tags: String,
}

/// A file system as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct FilesystemRow {
    /// Database id.
    pub id: i64,
    /// Its node.
    pub node_id: i64,
    /// On a whole disk.
    pub block_device_id: Option<i64>,
    /// On a partition.
    pub partition_id: Option<i64>,
    /// `ext4`, `fat32`, …
    pub fstype: String,
    /// Label.
    pub label: Option<String>,
    /// UUID.
    pub uuid: String,
    /// Where it is mounted.
    pub mount_point: Option<String>,
    /// Mount options.
    pub mount_options: Option<String>,
    /// The group whose member its device is.
    pub group_id: Option<i64>,
    /// The cache set whose device it is.
    pub cache_set_id: Option<i64>,
}

/// What is made of several devices: a volume group, a RAID, a bcache device, a datastore.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct GroupRow {
    /// Database id, of all kinds together.
    pub id: i64,
    /// Its node.
    pub node_id: i64,
    /// `lvm-vg`, `raid-0` to `raid-10`, `bcache`, `vmfs6`.
    pub r#type: String,
    /// Name.
    pub name: String,
    /// UUID.
    pub uuid: String,
    /// How a bcache device caches.
    pub cache_mode: Option<String>,
    /// What caches a bcache device.
    pub cache_set_id: Option<i64>,
}

/// A cache set.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct CacheSetRow {
    /// Database id.
    pub id: i64,
    /// Its node.
    pub node_id: i64,
}

/// A device that can hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A whole disk, by its id.
    Disk(i64),
    /// A partition, by its id.
    Partition(i64),
}

/// The storage of one node.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// Disks, by name.
    pub disks: Vec<BlockDeviceRow>,
    /// Partitions, by disk and number.
    pub partitions: Vec<PartitionRow>,
    /// File systems, also those that make a device a member of something, and those without a device.
    pub filesystems: Vec<FilesystemRow>,
    /// Volume groups, RAIDs, bcache devices, datastores.
    pub groups: Vec<GroupRow>,
    /// Cache sets.
    pub cache_sets: Vec<CacheSetRow>,
}

impl FilesystemRow {
    /// The object of the API.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "fstype": self.fstype,
            "label": self.label,
            "uuid": self.uuid,
            "mount_point": self.mount_point,
            "mount_options": self.mount_options,
        })
    }

    /// Whether it is mounted without a device.
    #[must_use]
    pub const fn is_special(&self) -> bool {
        self.block_device_id.is_none() && self.partition_id.is_none()
    }

    /// What it lies on.
    #[must_use]
    pub fn device(&self) -> Option<Device> {
        self.block_device_id
            .map(Device::Disk)
            .or_else(|| self.partition_id.map(Device::Partition))
    }

    /// What a device with this file system is used for, in words that clients show.
    #[must_use]
    fn used_for(&self) -> String {
        match self.mount_point.as_deref() {
            Some(at) if !at.is_empty() => {
                format!("{} formatted filesystem mounted at {at}", self.fstype)
            }
            _ => format!("Unmounted {} formatted filesystem", self.fstype),
        }
    }
}

impl Storage {
    /// The partitions of a disk.
    pub fn partitions_of(&self, disk: i64) -> impl Iterator<Item = &PartitionRow> {
        self.partitions
            .iter()
            .filter(move |p| p.block_device_id == disk)
    }

    /// The file system of a whole disk.
    #[must_use]
    pub fn filesystem_of_disk(&self, disk: i64) -> Option<&FilesystemRow> {
        self.filesystems
            .iter()
            .find(|f| f.block_device_id == Some(disk))
    }

    /// The file system of a partition.
    #[must_use]
    pub fn filesystem_of_partition(&self, partition: i64) -> Option<&FilesystemRow> {
        self.filesystems
            .iter()
            .find(|f| f.partition_id == Some(partition))
    }

    /// Bytes of a disk that are in use.
    #[must_use]
    pub fn used(&self, disk: &BlockDeviceRow) -> i64 {
        if self.filesystem_of_disk(disk.id).is_some() {
            return disk.size;
        }
        let parts: i64 = self.partitions_of(disk.id).map(|p| p.size).sum();
        if parts == 0 {
            0
        } else {
            (parts + TABLE_OVERHEAD).min(disk.size)
        }
    }

    /// Bytes of a disk that can still be partitioned.
    #[must_use]
    pub fn available(&self, disk: &BlockDeviceRow) -> i64 {
        if self.filesystem_of_disk(disk.id).is_some() {
            return 0;
        }
        let parts: i64 = self.partitions_of(disk.id).map(|p| p.size).sum();
        signed(metal::storage::free(unsigned(disk.size), unsigned(parts)))
    }

    /// The file system of a device.
    #[must_use]
    pub fn filesystem_of(&self, device: Device) -> Option<&FilesystemRow> {
        self.filesystems.iter().find(|f| f.device() == Some(device))
    }

    /// Bytes of a device.
    #[must_use]
    pub fn size_of(&self, device: Device) -> i64 {
        match device {
            Device::Disk(id) => self.disks.iter().find(|d| d.id == id).map_or(0, |d| d.size),
            Device::Partition(id) => self
                .partitions
                .iter()
                .find(|p| p.id == id)
                .map_or(0, |p| p.size),
        }
    }

    /// The members of a group that have file systems of this type.
    #[must_use]
    pub fn members(&self, group: i64, fstype: &str) -> Vec<Device> {
        self.filesystems
            .iter()
            .filter(|f| f.group_id == Some(group) && f.fstype == fstype)
            .filter_map(FilesystemRow::device)
            .collect()
    }

    /// Sizes of these devices.
    #[must_use]
    pub fn sizes(&self, devices: &[Device]) -> Vec<u64> {
        devices.iter().map(|d| unsigned(self.size_of(*d))).collect()
    }

    /// The virtual devices of a group.
    pub fn virtuals(&self, group: i64) -> impl Iterator<Item = &BlockDeviceRow> {
        self.disks.iter().filter(move |d| d.group_id == Some(group))
    }

    /// The name of a cache set: its place among those of the node.
    #[must_use]
    pub fn cache_set_name(&self, id: i64) -> String {
        let n = self.cache_sets.iter().position(|c| c.id == id).unwrap_or(0);
        format!("cache{n}")
    }

    /// Whether a device is a part of what a group is made of, or lies on what the group makes.
    #[must_use]
    pub fn lies_on(&self, device: Device, group: i64) -> bool {
        let mut at = device;
        // A chain is no longer than there are devices.
        for _ in 0..=self.disks.len() + self.partitions.len() {
            let disk = match at {
                Device::Disk(id) => id,
                Device::Partition(id) => match self.partitions.iter().find(|p| p.id == id) {
                    Some(p) => p.block_device_id,
                    None => return false,
                },
            };
            let Some(of) = self
                .disks
                .iter()
                .find(|d| d.id == disk)
                .and_then(|d| d.group_id)
            else {
                return false;
            };
            if of == group {
                return true;
            }
            let Some(next) = self
                .filesystems
                .iter()
                .filter(|f| f.group_id == Some(of))
                .find_map(FilesystemRow::device)
            else {
                return false;
            };
            at = next;
        }
        false
    }

    /// What a device with this file system is used for, in words that clients show.
    fn purpose(&self, f: &FilesystemRow) -> String {
        if let Some(set) = f.cache_set_id {
            return format!("Cache device for {}", self.cache_set_name(set));
        }
        let Some(g) = f
            .group_id
            .and_then(|id| self.groups.iter().find(|g| g.id == id))
        else {
            return f.used_for();
        };
        match f.fstype.as_str() {
            "lvm-pv" => format!("LVM volume for {}", g.name),
            "raid" => format!("Active {} device for {}", g.r#type, g.name),
            "raid-spare" => format!("Spare {} device for {}", g.r#type, g.name),
            "bcache-backing" => format!("Backing device for {}", g.name),
            _ => format!("VMFS extent for {}", g.name),
        }
    }

    /// A device as the API shows it.
    #[must_use]
    pub fn device_json(&self, system_id: &str, device: Device) -> Value {
        match device {
            Device::Disk(id) => self
                .disks
                .iter()
                .find(|d| d.id == id)
                .map_or(Value::Null, |d| self.disk_json(system_id, d)),
            Device::Partition(id) => {
                let p = self.partitions.iter().find(|p| p.id == id);
                let found = p.and_then(|p| {
                    let d = self.disks.iter().find(|d| d.id == p.block_device_id)?;
                    Some(self.partition_json(system_id, d, p))
                });
                found.unwrap_or(Value::Null)
            }
        }
    }

    /// File systems without a device.
    #[must_use]
    pub fn special_json(&self) -> Vec<Value> {
        self.filesystems
            .iter()
            .filter(|f| f.is_special())
            .map(FilesystemRow::json)
            .collect()
    }

    /// The groups of some types, as a machine lists them: by reference.
    #[must_use]
    pub fn references(&self, system_id: &str, of: fn(&str) -> bool) -> Value {
        self.groups
            .iter()
            .filter(|g| of(&g.r#type))
            .map(|g| reference(system_id, g.id))
            .collect()
    }

    /// The cache sets, as a machine lists them.
    #[must_use]
    pub fn cache_set_references(&self, system_id: &str) -> Value {
        self.cache_sets
            .iter()
            .map(|c| reference(system_id, c.id))
            .collect()
    }

    fn used_for(&self, disk: &BlockDeviceRow) -> String {
        if let Some(f) = self.filesystem_of_disk(disk.id) {
            return self.purpose(f);
        }
        match (
            self.partitions_of(disk.id).count(),
            disk.partition_table_type.as_deref(),
        ) {
            (0, _) => "Unused".to_owned(),
            (1, t) => format!("{} partitioned with 1 partition", t.unwrap_or("GPT")),
            (n, t) => format!("{} partitioned with {n} partitions", t.unwrap_or("GPT")),
        }
    }

    /// A disk as the API shows it.
    #[must_use]
    pub fn disk_json(&self, system_id: &str, disk: &BlockDeviceRow) -> Value {
        let mut out = json!({
            "path": format!("/dev/disk/by-dname/{}", disk.name),
            "id": disk.id,
            "partitions": self.partitions_of(disk.id).map(|p| self.partition_json(system_id, disk, p)).collect::<Vec<_>>(),
            "type": disk.r#type,
            "partition_table_type": disk.partition_table_type,
            "uuid": disk.uuid,
            "name": disk.name,
            "storage_pool": null,
            "system_id": system_id,
            "used_size": self.used(disk),
            "tags": texts(&disk.tags),
            "used_for": self.used_for(disk),
            "size": disk.size,
            "available_size": self.available(disk),
            "block_size": disk.block_size,
            "id_path": disk.id_path,
            "model": disk.model,
            "serial": disk.serial,
            "filesystem": self.filesystem_of_disk(disk.id).map(FilesystemRow::json),
            "numa_node": disk.numa_index,
            "resource_uri": format!("/MAAS/api/2.0/nodes/{system_id}/blockdevices/{}/", disk.id),
        });
        // Virtual devices have no such field.
        if disk.r#type == "physical" {
            out["firmware_version"] = disk.firmware_version.clone().into();
        }
        out
    }

    /// A partition as the API shows it.
    #[must_use]
    pub fn partition_json(
        &self,
        system_id: &str,
        disk: &BlockDeviceRow,
        p: &PartitionRow,
    ) -> Value {
        let fs = self.filesystem_of_partition(p.id);
        json!({
            "uuid": p.uuid,
            "size": p.size,
            "bootable": p.bootable,
            "tags": texts(&p.tags),
            "path": format!("/dev/disk/by-dname/{}-part{}", disk.name, p.number),
            "system_id": system_id,
            "id": p.id,
            "type": "partition",
            "used_for": fs.map_or_else(|| "Unused".to_owned(), |f| self.purpose(f)),
            "filesystem": fs.map(FilesystemRow::json),
            "device_id": p.block_device_id,
            "resource_uri": format!("/MAAS/api/2.0/nodes/{system_id}/blockdevices/{}/partition/{}", disk.id, p.id),
        })
    }
}

/// A database number of bytes as one that cannot be negative.
#[must_use]
pub fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Bytes as the database keeps them.
#[must_use]
pub fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn reference(system_id: &str, id: i64) -> Value {
    json!({ "system_id": system_id, "id": id, "__incomplete__": true })
}

/// The storage of these nodes (a JSON list of ids), in a constant number of queries.
///
/// # Errors
/// When the database fails.
pub async fn load(tx: &mut Tx, ids: &str) -> Result<HashMap<i64, Storage>, ApiError> {
    let mut out: HashMap<i64, Storage> = HashMap::new();
    let mut node_of: HashMap<i64, i64> = HashMap::new();
    for d in store::all!(
        tx,
        BlockDeviceRow,
        select_block_device!("WHERE b.node_id IN @ids($1) ORDER BY b.id"),
        ids
    )? {
        node_of.insert(d.id, d.node_id);
        out.entry(d.node_id).or_default().disks.push(d);
    }
    for p in store::all!(
        tx,
        PartitionRow,
        "SELECT p.id, p.block_device_id, p.number, p.uuid, p.size, p.bootable, p.tags FROM partition p \
         JOIN block_device b ON b.id = p.block_device_id WHERE b.node_id IN @ids($1) ORDER BY p.block_device_id, p.number",
        ids
    )? {
        if let Some(node) = node_of.get(&p.block_device_id) {
            out.entry(*node).or_default().partitions.push(p);
        }
    }
    for f in store::all!(
        tx,
        FilesystemRow,
        "SELECT id, node_id, block_device_id, partition_id, fstype, label, uuid, mount_point, mount_options, group_id, cache_set_id \
         FROM filesystem WHERE node_id IN @ids($1) ORDER BY id",
        ids
    )? {
        out.entry(f.node_id).or_default().filesystems.push(f);
    }
    for g in store::all!(
        tx,
        GroupRow,
        "SELECT id, node_id, type, name, uuid, cache_mode, cache_set_id FROM filesystem_group WHERE node_id IN @ids($1) ORDER BY id",
        ids
    )? {
        out.entry(g.node_id).or_default().groups.push(g);
    }
    for c in store::all!(
        tx,
        CacheSetRow,
        "SELECT id, node_id FROM cache_set WHERE node_id IN @ids($1) ORDER BY id",
        ids
    )? {
        out.entry(c.node_id).or_default().cache_sets.push(c);
    }
    Ok(out)
}
