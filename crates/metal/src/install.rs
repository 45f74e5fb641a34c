//! The order an agent carries out: the contract between region and agent, as JSON.
//!
//! Storage items have the names and keys of curtin's storage format, version 1, because that is what
//! people have written; the network is netplan's version 2.

use serde::{Deserialize, Serialize};

/// What an agent that has just started in the ephemeral system is to do.
/// `GET …/metadata/2012-03-01/agent-work`, with the machine's credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "kebab-case")]
pub enum Work {
    /// Run the scripts of `maas-scripts` (commissioning, tests, release), then stop as cloud-init's
    /// `power_state` says.
    Scripts,
    /// Install an operating system.
    Install(Box<Plan>),
    /// Stay up and report: rescue mode.
    Rescue,
    /// Nothing: power off.
    Nothing,
}

/// One installation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Number of the attempt. Reports with an older number are refused.
    pub attempt: i64,
    /// Short host name of the installed system.
    pub hostname: String,
    /// Full name of the installed system.
    pub fqdn: String,
    /// Where the system comes from.
    pub image: Image,
    /// Disks, partitions, file systems and mounts, in an order in which each follows what it needs.
    pub storage: Vec<StorageItem>,
    /// Network configuration of the installed system: netplan version 2 (`{"network": {"version": 2, …}}`).
    pub network: serde_json::Value,
    /// cloud-init's MAAS datasource for the installed system.
    pub datasource: Datasource,
    /// Files to write into the installed system.
    pub files: Vec<TargetFile>,
    /// Kernel options for the installed system, after the image's own.
    pub kernel_options: String,
    /// Minutes after which the region gives the installation up.
    pub timeout_minutes: u32,
}

/// A root file system image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where to get it: an `http` URL on the rack.
    pub url: String,
    /// Lower-case hexadecimal SHA-256 of the bytes at the URL.
    pub sha256: String,
    /// Size of the bytes at the URL.
    pub size: u64,
    /// The file type of the boot resource: `root-tgz`, `root-txz`, `root-tbz`, `squashfs`, …
    pub ftype: String,
}

/// Credentials and address of the metadata service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datasource {
    /// Base URL, ending in `/MAAS/metadata/`.
    pub metadata_url: String,
    /// OAuth consumer key.
    pub consumer_key: String,
    /// OAuth token key.
    pub token_key: String,
    /// OAuth token secret.
    pub token_secret: String,
}

impl std::fmt::Debug for Datasource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datasource")
            .field("metadata_url", &self.metadata_url)
            .finish_non_exhaustive()
    }
}

/// A file for the installed system.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFile {
    /// Absolute path in the installed system.
    pub path: String,
    /// Content.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
}

impl std::fmt::Debug for TargetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetFile")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// One step of the storage configuration (curtin storage version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StorageItem {
    /// A whole disk: wipe it and give it a partition table.
    Disk {
        /// Name for later items.
        id: String,
        /// Name in the model, for example `sda`.
        name: String,
        /// Serial number to find it by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial: Option<String>,
        /// Model name, together with the serial number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Device path (`/dev/disk/by-id/…` or `/dev/vda`) when there is no serial number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// `gpt` or `msdos`; none leaves the disk without a table.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ptable: Option<String>,
        /// The disk that the firmware boots.
        #[serde(default)]
        grub_device: bool,
        /// `superblock` wipes signatures.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wipe: Option<String>,
    },
    /// A partition.
    Partition {
        /// Name for later items.
        id: String,
        /// Its number on the disk, from 1.
        number: u32,
        /// Size in bytes.
        size: u64,
        /// Start on the disk in bytes.
        offset: u64,
        /// The disk's id.
        device: String,
        /// GPT unique GUID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
        /// `boot` (EFI system partition), `bios_grub`, `linux`, …
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flag: Option<String>,
        /// `superblock` wipes signatures, `zero` zeroes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wipe: Option<String>,
    },
    /// A file system.
    Format {
        /// Name for later items.
        id: String,
        /// `ext4`, `fat32`, `xfs`, `swap`, …
        fstype: String,
        /// The partition's or disk's id.
        volume: String,
        /// File system UUID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
        /// Label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// A mount.
    Mount {
        /// Name for later items.
        id: String,
        /// The format's id.
        device: String,
        /// Mount point.
        path: String,
        /// Mount options, comma separated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        options: Option<String>,
    },
}
