//! The nouns: what clients read most is typed, the rest is kept as it came in `more`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A noun with a path of its own.
pub trait Noun: serde::de::DeserializeOwned + Send + 'static {
    /// Where its list is, behind `/MAAS/api/v1/`.
    const LIST: &'static str;
    /// What a single one is called in the path `LIST/KEY`.
    fn key(&self) -> String;
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// What it is called in paths.
    pub system_id: String,
    /// Host name without domain.
    pub hostname: String,
    /// Host name with domain.
    pub fqdn: String,
    /// A description.
    pub description: String,
    /// Status as MAAS numbers it.
    pub status: i64,
    /// Status in words.
    pub status_name: String,
    /// The last thing that happened to it.
    pub status_message: Option<String>,
    /// Who has it.
    pub owner: Option<String>,
    /// `amd64/generic`, `arm64/generic`, …
    pub architecture: Option<String>,
    /// Processors.
    pub cpu_count: i64,
    /// MiB.
    pub memory: i64,
    /// `on`, `off`, `unknown`, `error`.
    pub power_state: String,
    /// Driver of its BMC.
    pub power_type: Option<String>,
    /// Operating system that is or is to be installed.
    pub osystem: String,
    /// Its release.
    pub distro_series: String,
    /// Addresses.
    pub ip_addresses: Vec<String>,
    /// Tags.
    pub tag_names: Vec<String>,
    /// Whether it is protected from changes.
    pub locked: bool,
    /// Where it stands.
    pub zone: Zone,
    /// To whom it may be given.
    pub pool: Option<ResourcePool>,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Noun for Machine {
    const LIST: &'static str = "machines";
    fn key(&self) -> String {
        self.system_id.clone()
    }
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Zone {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// A description.
    pub description: String,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Noun for Zone {
    const LIST: &'static str = "zones";
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// A resource pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourcePool {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// A description.
    pub description: String,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Noun for ResourcePool {
    const LIST: &'static str = "resourcepools";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// A fabric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fabric {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its VLANs.
    pub vlans: Vec<Vlan>,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Noun for Fabric {
    const LIST: &'static str = "fabrics";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// A VLAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Vlan {
    /// Its number in the database.
    pub id: i64,
    /// Its tag, 0 for untagged.
    pub vid: i64,
    /// Its name.
    pub name: Option<String>,
    /// Bytes of the largest packet.
    pub mtu: i64,
    /// Whether machines on it get addresses from us.
    pub dhcp_on: bool,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subnet {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its network, `10.0.0.0/24`.
    pub cidr: String,
    /// The gateway.
    pub gateway_ip: Option<String>,
    /// Name servers.
    pub dns_servers: Vec<String>,
    /// The VLAN.
    pub vlan: Vlan,
    /// Whether addresses are given from it.
    pub managed: bool,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Noun for Subnet {
    const LIST: &'static str = "subnets";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// A comment.
    pub comment: String,
    /// The XPath expression over the hardware listing that gives it; empty when it is given by hand.
    pub definition: String,
    /// What it adds to the kernel's command line.
    pub kernel_opts: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Noun for Tag {
    const LIST: &'static str = "tags";
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// The name.
    pub username: String,
    /// The address.
    pub email: String,
    /// Whether an administrator.
    pub is_superuser: bool,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Noun for User {
    const LIST: &'static str = "users";
    fn key(&self) -> String {
        self.username.clone()
    }
}
