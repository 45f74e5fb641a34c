//! What region and rack tell each other, beside snapshots.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use metal::boot::Purpose;
use metal::timeline::{Entry, PowerFault};
use metal::{MacAddr, SystemId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::snapshot::{Delta, Position, Snapshot};

/// A rack presents itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the rack.
    pub version: u32,
    /// Its system id, when it already has one.
    pub rack: Option<SystemId>,
    /// Its host name.
    pub hostname: String,
    /// Version of the program.
    pub program: String,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
    /// The services it runs, by name (`dhcpd`, `tftp`, `http`, `syslog_rack`, …).
    pub services: BTreeMap<String, Service>,
    /// The snapshot it holds.
    pub position: Option<Position>,
}

/// A network interface of a rack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: Option<MacAddr>,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// The state of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `running`, `degraded`, `dead`, `off`.
    pub status: String,
    /// Why, in words.
    pub info: String,
}

/// The region's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The rack's system id from now on.
    pub rack: SystemId,
    /// [`crate::VERSION`] of the region.
    pub version: u32,
    /// The number of the last [`Batch`] that the region has stored from this rack.
    pub last_batch: u64,
}

/// What a region sends to a rack that has subscribed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToRack {
    /// Forget what you have; this is all.
    Snapshot(Box<Snapshot>),
    /// What changed.
    Delta(Delta),
    /// Do something and answer with [`CommandResult`].
    Command(Command),
}

/// An order to a rack. It may be sent again after a lost connection: a rack remembers the highest
/// attempt of each id and refuses an older one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The job.
    pub id: i64,
    /// The attempt of that job.
    pub attempt: i64,
    /// What to do.
    pub order: Order,
}

/// What a rack can be ordered to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Drive the power of a machine.
    Power(PowerOrder),
    /// Look for foreign DHCP servers on a VLAN now.
    ProbeDhcp {
        /// The VLAN.
        vlan_id: i64,
    },
}

/// An order for one BMC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerOrder {
    /// The machine, for the timeline.
    pub system_id: SystemId,
    /// What to do.
    pub action: PowerAction,
    /// Driver: `manual`, `ipmi`.
    pub driver: String,
    /// Parameters of the driver, with credentials.
    pub parameters: Parameters,
}

/// Power parameters. `Debug` hides them: they hold credentials.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(pub BTreeMap<String, serde_json::Value>);

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What can be asked of a BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// On, booting from the network once when `pxe`.
    On {
        /// Set the boot device to network for the next boot.
        pxe: bool,
    },
    /// Off, at once.
    Off,
    /// Ask the operating system to shut down.
    SoftOff,
    /// Off and on; on when it was off. Boots from the network once when `pxe`.
    Cycle {
        /// Set the boot device to network for the next boot.
        pxe: bool,
    },
    /// Report the state.
    Query,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The job.
    pub id: i64,
    /// The attempt.
    pub attempt: i64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The power is now in this state.
    Power {
        /// `on`, `off` or `unknown`.
        state: PowerState,
    },
    /// The power command failed.
    PowerFault(PowerFault),
    /// The foreign DHCP servers that answered.
    Dhcp {
        /// Their addresses.
        servers: Vec<IpAddr>,
    },
    /// The rack could not do it.
    Refused {
        /// Why.
        message: String,
    },
}

/// Power states of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// Cannot be known.
    Unknown,
    /// The last question failed.
    Error,
}

impl PowerState {
    /// The word in the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unknown => "unknown",
            Self::Error => "error",
        }
    }
}

/// Reports of a rack, spooled on its disk until the region has stored them. Numbers rise by one;
/// the region stores each number once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The number.
    pub number: u64,
    /// What happened, in order.
    pub reports: Vec<Report>,
}

/// One thing that happened at a rack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// A lease was given, renewed or ended.
    Lease(Lease),
    /// Entries of boot timelines.
    Timeline {
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// A boot configuration was rendered for a machine (known or not).
    BootConfig(BootConfig),
    /// A foreign DHCP server was seen, or is gone.
    ForeignDhcp {
        /// On which VLAN.
        vlan_id: i64,
        /// Its address; none when no longer there.
        server: Option<IpAddr>,
    },
    /// Interfaces of the rack changed.
    Interfaces {
        /// All of them.
        interfaces: Vec<Interface>,
    },
    /// Services of the rack changed.
    Services {
        /// All of them.
        services: BTreeMap<String, Service>,
    },
    /// A signal or result that a machine delivered while the region was away. The rack answered the
    /// machine; the region acts on it now.
    Passed {
        /// The request as it came.
        request: PassedRequest,
        /// When it came.
        at: Timestamp,
    },
}

/// A lease as the region keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The client.
    pub mac: MacAddr,
    /// Its address.
    pub ip: IpAddr,
    /// The subnet.
    pub subnet_id: i64,
    /// The name it gave itself, not yet checked.
    pub hostname: Option<String>,
    /// When it ends; in the past once released or expired.
    pub until: Timestamp,
    /// What happened.
    pub event: LeaseEvent,
}

/// What happened to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseEvent {
    /// Given to a client that did not have it.
    Commit,
    /// Ran out.
    Expiry,
    /// Given back, or declined.
    Release,
}

/// A boot configuration was rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootConfig {
    /// The machine, when known.
    pub system_id: Option<SystemId>,
    /// The address it named itself by.
    pub mac: Option<MacAddr>,
    /// Where it asked from.
    pub ip: IpAddr,
    /// The rack's address it asked.
    pub rack_ip: IpAddr,
    /// `pxe`, `uefi`, `ipxe`, …: `bios_boot_method` of the API.
    pub method: String,
    /// What it was told.
    pub purpose: Purpose,
    /// When.
    pub at: Timestamp,
}

/// An HTTP request that a machine made to its rack, for the region.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PassedRequest {
    /// Method.
    pub method: String,
    /// Path and query, starting with `/MAAS/`.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    #[serde(with = "base64_bytes")]
    pub body: Bytes,
    /// The machine's address as the rack's socket saw it.
    pub client: IpAddr,
    /// The hardware address that the rack leased that address to, or whose boot configuration was
    /// fetched from it.
    pub mac: Option<MacAddr>,
    /// The rack's own address and port as the machine reaches it, for URLs in the answer.
    pub base: String,
}

impl std::fmt::Debug for PassedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers and body carry credentials.
        f.debug_struct("PassedRequest")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("client", &self.client)
            .field("mac", &self.mac)
            .finish_non_exhaustive()
    }
}

/// The region's answer for the machine.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PassedResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    #[serde(with = "base64_bytes")]
    pub body: Bytes,
}

impl std::fmt::Debug for PassedResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PassedResponse")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(b: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(b))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let s = String::deserialize(d)?;
        STANDARD
            .decode(s)
            .map(Bytes::from)
            .map_err(serde::de::Error::custom)
    }
}
