//! Which nodes meet what a request asks for: the filters of lists, and the plain constraints of an
//! allocation. Networks are named in many ways ([`spec`]); the graph-like constraints on disks and
//! interfaces have parsers of their own.

pub mod spec;

#[cfg(test)]
mod tests;

use std::str::FromStr;

use ipnet::IpNet;

use crate::status::Status;
use spec::{DeviceSpec, FabricSpec, SubnetSpec, VlanSpec};

/// A subnet that an interface is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// Database id.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Network.
    pub cidr: IpNet,
    /// Name and id of its space.
    pub space: Option<(i64, String)>,
    /// Its VLAN.
    pub vlan: Vlan,
}

/// A VLAN as far as it can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlan {
    /// Database id.
    pub id: i64,
    /// The number on the wire; 0 is untagged.
    pub vid: i64,
    /// Name.
    pub name: String,
    /// Name and id of its space.
    pub space: Option<(i64, String)>,
    /// Its fabric.
    pub fabric: Fabric,
}

/// A fabric as far as it can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    /// Database id.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Class.
    pub class: Option<String>,
}

/// An interface as far as it can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Hardware address.
    pub mac: Option<String>,
    /// What it does, in Mbit/s.
    pub link_speed: i64,
    /// The VLAN it is on.
    pub vlan: Option<Vlan>,
    /// The subnets that it is linked to.
    pub nets: Vec<Net>,
}

/// A device on a bus of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `pcie` or `usb`.
    pub bus: String,
    /// Vendor as four hexadecimal digits.
    pub vendor_id: String,
    /// Product as four hexadecimal digits.
    pub product_id: String,
    /// Vendor in words.
    pub vendor_name: String,
    /// Product in words.
    pub product_name: String,
    /// Kernel driver.
    pub commissioning_driver: String,
    /// `node`, `cpu`, `memory`, `storage`, `network` or `gpu`.
    pub hardware_type: String,
}

/// What of a node can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the fields of a node under the names of the API
pub struct Facts {
    pub system_id: String,
    pub hostname: String,
    pub domain: String,
    pub domain_id: i64,
    pub zone: String,
    pub zone_id: i64,
    pub pool: Option<String>,
    pub pool_id: Option<i64>,
    pub owner: Option<String>,
    pub agent_name: String,
    pub status: i64,
    pub architecture: String,
    pub cpu_count: i64,
    pub cpu_speed: i64,
    pub memory: i64,
    pub power_state: String,
    pub ephemeral_deploy: bool,
    pub tags: Vec<String>,
    pub ports: Vec<Port>,
    pub devices: Vec<Device>,
}

/// One of some, and none of others. Nothing asked is always met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOf<T> {
    /// One of these, unless there are none.
    pub any: Vec<T>,
    /// None of these.
    pub none: Vec<T>,
}

impl<T> Default for OneOf<T> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            none: Vec::new(),
        }
    }
}

impl<T> OneOf<T> {
    /// Whether what `is` recognises meets it.
    pub fn met(&self, is: impl Fn(&T) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&is)) && !self.none.iter().any(&is)
    }

    /// Whether nothing is asked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// The coarse statuses that screens show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simple {
    /// Allocated.
    Allocated,
    /// Broken.
    Broken,
    /// Commissioning.
    Commissioning,
    /// Deployed.
    Deployed,
    /// Deploying.
    Deploying,
    /// Any of the failed ones.
    Failed,
    /// New.
    New,
    /// Missing, retired, reserved.
    Other,
    /// Ready.
    Ready,
    /// Releasing and erasing.
    Releasing,
    /// Rescue mode, and the way in and out.
    Rescue,
    /// Testing.
    Testing,
}

impl Simple {
    /// The words of the API.
    pub const WORDS: [(&'static str, Self); 12] = [
        ("allocated", Self::Allocated),
        ("broken", Self::Broken),
        ("commissioning", Self::Commissioning),
        ("deployed", Self::Deployed),
        ("deploying", Self::Deploying),
        ("failed", Self::Failed),
        ("new", Self::New),
        ("other", Self::Other),
        ("ready", Self::Ready),
        ("releasing", Self::Releasing),
        ("rescue_mode", Self::Rescue),
        ("testing", Self::Testing),
    ];

    /// The coarse status of a status.
    #[must_use]
    pub const fn of(status: Status) -> Self {
        match status {
            Status::Allocated => Self::Allocated,
            Status::Broken => Self::Broken,
            Status::Commissioning => Self::Commissioning,
            Status::Deployed => Self::Deployed,
            Status::Deploying => Self::Deploying,
            Status::FailedCommissioning
            | Status::FailedDeployment
            | Status::FailedReleasing
            | Status::FailedDiskErasing
            | Status::FailedEnteringRescueMode
            | Status::FailedExitingRescueMode
            | Status::FailedTesting => Self::Failed,
            Status::New => Self::New,
            Status::Missing | Status::Reserved | Status::Retired => Self::Other,
            Status::Ready => Self::Ready,
            Status::Releasing | Status::DiskErasing => Self::Releasing,
            Status::RescueMode | Status::EnteringRescueMode | Status::ExitingRescueMode => {
                Self::Rescue
            }
            Status::Testing => Self::Testing,
        }
    }
}

impl FromStr for Simple {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::WORDS
            .iter()
            .find(|(w, _)| w.eq_ignore_ascii_case(word))
            .map(|(_, s)| *s)
            .ok_or(())
    }
}

/// An architecture as people write it: `amd64`, `amd64/generic`, or a name that the processor's maker uses.
#[must_use]
pub fn architecture(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let (arch, sub) = match text.split_once('/') {
        Some((a, s)) => (a, Some(s)),
        None => (text.as_str(), None),
    };
    let arch = match arch {
        "x86_64" | "x86-64" => "amd64",
        "i486" | "i586" | "i686" => "i386",
        "aarch64" => "arm64",
        "armv7l" | "arm" => "armhf",
        "ppc64le" => "ppc64el",
        other => other,
    };
    sub.map_or_else(|| arch.to_owned(), |s| format!("{arch}/{s}"))
}

fn is_architecture(asked: &str, has: &str) -> bool {
    asked == has || !asked.contains('/') && has.split('/').next() == Some(asked)
}

/// A name or the number of the thing.
fn names(asked: &str, name: &str, id: i64) -> bool {
    asked == name || asked.parse() == Ok(id)
}

/// What is asked of nodes.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // the constraints under the names of the API; `not_…` is `none`
pub struct Wanted {
    /// Host names or full names.
    pub name: Vec<String>,
    pub hostname: OneOf<String>,
    pub system_id: OneOf<String>,
    pub mac_address: Vec<String>,
    pub domain: OneOf<String>,
    pub zone: OneOf<String>,
    pub pool: OneOf<String>,
    pub owner: OneOf<String>,
    pub agent_name: OneOf<String>,
    pub status: OneOf<Status>,
    pub simple_status: OneOf<Simple>,
    pub power_state: OneOf<String>,
    /// Whether it runs in memory.
    pub deployment_target: OneOf<bool>,
    pub arch: OneOf<String>,
    pub cpu_count: f64,
    pub cpu_speed: f64,
    pub mem: f64,
    pub link_speed: f64,
    /// All of `any`, none of `none`.
    pub tags: OneOf<String>,
    pub fabrics: OneOf<FabricSpec>,
    pub fabric_classes: OneOf<String>,
    pub vlans: OneOf<VlanSpec>,
    /// All of `any`, none of `none`.
    pub subnets: OneOf<SubnetSpec>,
    pub devices: Vec<DeviceSpec>,
}

impl Wanted {
    /// Whether any constraint needs to know the devices of nodes.
    #[must_use]
    pub const fn asks_for_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Whether a node meets everything.
    #[must_use]
    pub fn met_by(&self, n: &Facts) -> bool {
        self.who(n) && self.state(n) && self.hardware(n) && self.network(n)
    }

    fn who(&self, n: &Facts) -> bool {
        let fqdn = || format!("{}.{}", n.hostname, n.domain);
        (self.name.is_empty() || self.name.iter().any(|x| *x == n.hostname || *x == fqdn()))
            && self.hostname.met(|h| *h == n.hostname)
            && self.system_id.met(|s| *s == n.system_id)
            && self.domain.met(|d| names(d, &n.domain, n.domain_id))
            && self.zone.met(|z| names(z, &n.zone, n.zone_id))
            && self.pool.met(|p| match (&n.pool, n.pool_id) {
                (Some(name), Some(id)) => names(p, name, id),
                _ => false,
            })
            && self.owner.met(|o| Some(o) == n.owner.as_ref())
            && self.agent_name.met(|a| *a == n.agent_name)
            && self.tags.any.iter().all(|t| n.tags.contains(t))
            && !self.tags.none.iter().any(|t| n.tags.contains(t))
            && (self.mac_address.is_empty()
                || n.ports
                    .iter()
                    .filter_map(|p| p.mac.as_ref())
                    .any(|m| self.mac_address.contains(m)))
    }

    fn state(&self, n: &Facts) -> bool {
        let status = Status::from_code(n.status);
        self.status.met(|s| Some(*s) == status)
            && self
                .simple_status
                .met(|s| status.map(Simple::of) == Some(*s))
            && self.power_state.met(|p| *p == n.power_state)
            && self.deployment_target.met(|t| *t == n.ephemeral_deploy)
    }

    #[allow(clippy::cast_precision_loss)] // cores, MHz, MiB and Mbit/s are small
    fn hardware(&self, n: &Facts) -> bool {
        self.arch.met(|a| is_architecture(a, &n.architecture))
            && n.cpu_count as f64 >= self.cpu_count
            && n.cpu_speed as f64 >= self.cpu_speed
            && n.memory as f64 >= self.mem
            && (self.link_speed <= 0.0
                || n.ports
                    .iter()
                    .any(|p| p.link_speed as f64 >= self.link_speed))
            && self
                .devices
                .iter()
                .all(|d| n.devices.iter().any(|has| d.is(has)))
    }

    fn network(&self, n: &Facts) -> bool {
        let vlans = || {
            n.ports
                .iter()
                .flat_map(|p| p.vlan.iter().chain(p.nets.iter().map(|s| &s.vlan)))
        };
        let nets = || n.ports.iter().flat_map(|p| &p.nets);
        self.fabrics.met(|f| vlans().any(|v| f.is(&v.fabric)))
            && self
                .fabric_classes
                .met(|c| vlans().any(|v| v.fabric.class.as_ref() == Some(c)))
            && self.vlans.met(|s| vlans().any(|v| s.is(v)))
            && self.subnets.any.iter().all(|s| nets().any(|n| s.is(n)))
            && !self.subnets.none.iter().any(|s| nets().any(|n| s.is(n)))
    }
}
