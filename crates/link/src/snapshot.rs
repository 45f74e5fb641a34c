//! Everything a rack needs to go on without its region: a snapshot, and the changes to it.
//!
//! A snapshot holds no BMC credentials and no password. It is kept on the rack's disk.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use metal::boot::Facts;
use metal::{MacAddr, SystemId};
use serde::{Deserialize, Serialize};

/// Place in the change feed that a snapshot has reached. Only ever compared within one `epoch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Changes when the feed's history was replaced (a restored backup, a failover).
    pub epoch: i64,
    /// On PostgreSQL the transaction id; 0 on SQLite.
    pub transaction: i64,
    /// The sequence number of the change.
    pub sequence: i64,
}

/// What a rack knows, complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// How far in the change feed.
    pub position: Position,
    /// Settings of the installation.
    pub settings: Settings,
    /// VLANs by database id.
    #[serde(with = "by_id")]
    pub vlans: BTreeMap<i64, Vlan>,
    /// Subnets by database id.
    #[serde(with = "by_id")]
    pub subnets: BTreeMap<i64, Subnet>,
    /// Machines (and devices, controllers) by system id.
    pub machines: BTreeMap<SystemId, Machine>,
    /// Bootable images by database id of the boot resource.
    #[serde(with = "by_id")]
    pub images: BTreeMap<i64, Image>,
    /// Boot loader files by the name under which a loader asks, for example `bootx64.efi`.
    pub loaders: BTreeMap<String, Blob>,
}

/// One change to a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// New settings.
    Settings(Settings),
    /// A new or changed VLAN.
    Vlan(Vlan),
    /// A VLAN is gone.
    VlanGone {
        /// Database id.
        id: i64,
    },
    /// A new or changed subnet.
    Subnet(Subnet),
    /// A subnet is gone.
    SubnetGone {
        /// Database id.
        id: i64,
    },
    /// A new or changed machine.
    Machine(Box<Machine>),
    /// A machine is gone.
    MachineGone {
        /// Its system id.
        system_id: SystemId,
    },
    /// All images and loaders anew (they change seldom and together).
    Images {
        /// Bootable images by boot resource id.
        #[serde(with = "by_id")]
        images: BTreeMap<i64, Image>,
        /// Loader files by name.
        loaders: BTreeMap<String, Blob>,
    },
}

/// Changes from one position to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The position the rack must be at.
    pub from: Position,
    /// The position it is at afterwards.
    pub to: Position,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// Settings that a rack acts on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Kernel options for every machine.
    pub kernel_opts: String,
    /// OS of the ephemeral system for commissioning, for example `ubuntu`.
    pub commissioning_osystem: String,
    /// Its release.
    pub commissioning_distro_series: String,
    /// Domain name of machines without one.
    pub default_domain: String,
    /// NTP servers (addresses or names).
    pub ntp_servers: Vec<String>,
    /// DNS servers where a subnet names none.
    pub dns_servers: Vec<IpAddr>,
    /// `host` or `host:port` for syslog instead of the rack.
    pub remote_syslog: Option<String>,
    /// Port of the rack's own syslog receiver.
    pub syslog_port: u16,
    /// Serve beside a foreign DHCP server all the same.
    pub ignore_external_dhcp: bool,
}

/// A VLAN as a rack sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vlan {
    /// Database id.
    pub id: i64,
    /// 802.1Q number, 0 untagged.
    pub vid: u16,
    /// Fabric's name.
    pub fabric: String,
    /// MTU in bytes.
    pub mtu: u16,
    /// Whether addresses are served here.
    pub dhcp_on: bool,
    /// The rack that serves first.
    pub primary_rack: Option<SystemId>,
    /// The rack that stands by.
    pub secondary_rack: Option<SystemId>,
    /// Requests of this VLAN arrive through a relay on that VLAN.
    pub relay_vlan: Option<i64>,
}

/// A subnet as a rack sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    /// Database id.
    pub id: i64,
    /// Its VLAN.
    pub vlan_id: i64,
    /// Network and prefix length.
    pub cidr: IpNet,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
    /// DNS servers of its own.
    pub dns_servers: Vec<IpAddr>,
    /// Whether machines here may ask the rack's DNS.
    pub allow_dns: bool,
    /// Boot methods left out of DHCP here.
    pub disabled_boot_architectures: Vec<String>,
    /// Whether IPv6 router advertisements are sent here (IPv6 only).
    pub router_advertisements: bool,
    /// Address ranges.
    pub ranges: Vec<Range>,
    /// Addresses that belong to a hardware address, whether or not a machine with it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Reservation>,
}

/// A range of addresses within a subnet, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
    /// Given out by DHCP; otherwise reserved for others.
    pub dynamic: bool,
}

/// A machine as a rack sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its system id.
    pub system_id: SystemId,
    /// Short name.
    pub hostname: String,
    /// Full name.
    pub fqdn: String,
    /// What the boot decision needs.
    pub facts: Facts,
    /// `arch/subarch`.
    pub architecture: String,
    /// SMBIOS UUID, lower case.
    pub hardware_uuid: Option<String>,
    /// Hardware addresses of its physical interfaces.
    pub macs: Vec<MacAddr>,
    /// Addresses reserved for its interfaces.
    pub addresses: Vec<Reservation>,
    /// Kernel options of its tags and of its own, after the installation's.
    pub kernel_opts: String,
    /// The system it boots for an installation or a deployment in memory: (osystem, series).
    pub deploy: Option<(String, String)>,
}

/// An address that belongs to one hardware address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// The interface's hardware address.
    pub mac: MacAddr,
    /// The address.
    pub ip: IpAddr,
    /// The subnet it is in.
    pub subnet_id: i64,
}

/// A bootable image: kernel, initrd and root of the ephemeral system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Database id of the boot resource.
    pub id: i64,
    /// `ubuntu`, `debian`, …
    pub osystem: String,
    /// `noble`, `bookworm`, …
    pub release: String,
    /// `amd64`, …
    pub arch: String,
    /// `ga-24.04`, …
    pub subarch: String,
    /// `stable`, `daily`, …
    pub label: String,
    /// Kernel.
    pub kernel: Blob,
    /// Initrd.
    pub initrd: Blob,
    /// Root file system of the ephemeral system.
    pub root: Option<Blob>,
    /// How the initrd is told where its root is.
    pub root_method: RootMethod,
    /// Kernel options of the image.
    pub kparams: String,
}

/// How an initrd finds its root file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootMethod {
    /// `root=squash:http://…` (Ubuntu's cloud-initramfs and images made alike).
    #[default]
    Squash,
    /// `boot=live fetch=http://…` (Debian live-boot).
    LiveBoot,
    /// `root=live:http://…` (dracut).
    Dracut,
    /// The initrd is the whole system.
    None,
}

/// Content by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// File name for people.
    pub filename: String,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

impl Snapshot {
    /// Applies a delta.
    ///
    /// # Errors
    /// [`Gap`] when the delta does not start where this snapshot is; the rack then asks for a new one.
    pub fn apply(&mut self, delta: Delta) -> Result<(), Gap> {
        if delta.from != self.position {
            return Err(Gap {
                at: self.position,
                from: delta.from,
            });
        }
        for c in delta.changes {
            match c {
                Change::Settings(s) => self.settings = s,
                Change::Vlan(v) => {
                    self.vlans.insert(v.id, v);
                }
                Change::VlanGone { id } => {
                    self.vlans.remove(&id);
                }
                Change::Subnet(s) => {
                    self.subnets.insert(s.id, s);
                }
                Change::SubnetGone { id } => {
                    self.subnets.remove(&id);
                }
                Change::Machine(m) => {
                    self.machines.insert(m.system_id.clone(), *m);
                }
                Change::MachineGone { system_id } => {
                    self.machines.remove(&system_id);
                }
                Change::Images { images, loaders } => {
                    self.images = images;
                    self.loaders = loaders;
                }
            }
        }
        self.position = delta.to;
        Ok(())
    }
}

/// A delta that does not fit the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delta starts at {from:?}, the snapshot is at {at:?}")]
pub struct Gap {
    /// Where the snapshot is.
    pub at: Position,
    /// Where the delta starts.
    pub from: Position,
}

/// Maps by database id. In JSON their keys are strings, and what stands below a tagged enum is read
/// without knowing that: the keys are turned into numbers here.
mod by_id {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, T: Serialize>(
        map: &BTreeMap<i64, T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        map.serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        d: D,
    ) -> Result<BTreeMap<i64, T>, D::Error> {
        BTreeMap::<String, T>::deserialize(d)?
            .into_iter()
            .map(|(k, v)| Ok((k.parse().map_err(serde::de::Error::custom)?, v)))
            .collect()
    }
}
