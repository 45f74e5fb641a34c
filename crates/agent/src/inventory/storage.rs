//! Disks in the shape of the resources document.

use serde::Serialize;

use crate::block;
use crate::sys::Sys;

/// All disks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Storage {
    /// The disks.
    pub disks: Vec<Disk>,
    /// How many.
    pub total: u64,
}

/// A disk.
#[derive(Clone, Debug, Serialize)]
pub struct Disk {
    /// Kernel name.
    pub id: String,
    /// `major:minor`.
    pub device: String,
    /// Model name.
    pub model: String,
    /// The bus.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Bytes.
    pub size: u64,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// World wide name.
    pub wwn: String,
    /// NUMA node.
    pub numa_node: u32,
    /// Name below `/dev/disk/by-path`.
    pub device_path: String,
    /// Bytes of a logical block.
    pub block_size: u64,
    /// Firmware revision.
    pub firmware_version: String,
    /// Revolutions per minute; 0 for solid state, 1 for a rotating disk that does not tell.
    pub rpm: u64,
    /// Serial number.
    pub serial: String,
    /// Name below `/dev/disk/by-id`.
    pub device_id: String,
    /// Partitions.
    pub partitions: Vec<Partition>,
    /// PCI address of the controller, when not on USB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// `bus:device`, when on USB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usb_address: Option<String>,
}

/// A partition.
#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    /// Kernel name.
    pub id: String,
    /// `major:minor`.
    pub device: String,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Bytes.
    pub size: u64,
    /// Its number.
    pub partition: u32,
}

/// Reads the disks.
#[must_use]
pub fn read(sys: &Sys) -> Storage {
    let disks: Vec<Disk> = block::disks(sys)
        .into_iter()
        .map(|d| Disk {
            partitions: d
                .partitions
                .into_iter()
                .map(|p| Partition {
                    id: p.name,
                    device: p.device,
                    read_only: p.read_only,
                    size: p.size,
                    partition: p.number,
                })
                .collect(),
            pci_address: if d.usb_address.is_some() {
                None
            } else {
                d.pci_address
            },
            usb_address: d.usb_address,
            id: d.name,
            device: d.device,
            model: d.model.unwrap_or_default(),
            kind: d.bus,
            read_only: d.read_only,
            size: d.size,
            removable: d.removable,
            wwn: d.wwn.unwrap_or_default(),
            numa_node: d.numa_node,
            device_path: d.by_path.unwrap_or_default(),
            block_size: d.block_size,
            firmware_version: d.firmware_version.unwrap_or_default(),
            rpm: d.rpm,
            serial: d.serial.unwrap_or_default(),
            device_id: d.by_id.unwrap_or_default(),
        })
        .collect();
    Storage {
        total: disks.len() as u64,
        disks,
    }
}
