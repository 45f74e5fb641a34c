//! `block-devices` and `partitions`: the disks of nodes.

pub mod ops;

use std::collections::HashMap;

use serde_json::{Value, json};

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
}

/// Columns of [`BlockDeviceRow`] from `block_device b`.
#[macro_export]
#[doc(hidden)]
macro_rules! select_block_device {
    ($rest:literal) => {
        concat!(
            "SELECT b.id, b.node_id, b.type, b.name, b.id_path, b.size, b.block_size, b.model, b.serial, b.firmware_version, b.tags, ",
            "b.numa_index, b.uuid, b.partition_table_type FROM block_device b ",
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
}

/// The storage of one node.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// Disks, by name.
    pub disks: Vec<BlockDeviceRow>,
    /// Partitions, by disk and number.
    pub partitions: Vec<PartitionRow>,
    /// File systems.
    pub filesystems: Vec<FilesystemRow>,
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

    /// What a device with this file system is used for, in words that clients show.
    #[must_use]
    pub fn used_for(&self) -> String {
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

    fn filesystem_of_disk(&self, disk: i64) -> Option<&FilesystemRow> {
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
        let free = disk.size - TABLE_OVERHEAD - parts;
        (free / ALIGNMENT * ALIGNMENT).max(0)
    }

    fn used_for(&self, disk: &BlockDeviceRow) -> String {
        if let Some(f) = self.filesystem_of_disk(disk.id) {
            return f.used_for();
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
        json!({
            "firmware_version": disk.firmware_version,
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
        })
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
            "used_for": fs.map_or_else(|| "Unused".to_owned(), FilesystemRow::used_for),
            "filesystem": fs.map(FilesystemRow::json),
            "device_id": p.block_device_id,
            "resource_uri": format!("/MAAS/api/2.0/nodes/{system_id}/blockdevices/{}/partition/{}", disk.id, p.id),
        })
    }
}

/// Storage of many nodes from rows that are sorted as [`Storage`] wants them.
#[must_use]
pub fn by_node(
    disks: Vec<BlockDeviceRow>,
    partitions: Vec<PartitionRow>,
    filesystems: Vec<FilesystemRow>,
) -> HashMap<i64, Storage> {
    let mut out: HashMap<i64, Storage> = HashMap::new();
    let mut node_of: HashMap<i64, i64> = HashMap::new();
    for d in disks {
        node_of.insert(d.id, d.node_id);
        out.entry(d.node_id).or_default().disks.push(d);
    }
    for p in partitions {
        if let Some(node) = node_of.get(&p.block_device_id) {
            out.entry(*node).or_default().partitions.push(p);
        }
    }
    for f in filesystems {
        out.entry(f.node_id).or_default().filesystems.push(f);
    }
    out
}
