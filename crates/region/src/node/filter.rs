//! Filters of the lists of nodes, and what allocations share with them: from a request's parameters to
//! [`metal::filter::Wanted`], and from the database to what that is compared with.

use std::collections::HashMap;
use std::str::FromStr;

use metal::MacAddr;
use metal::filter::spec::DeviceSpec;
use metal::filter::{Device, Fabric, Facts, Net, OneOf, Port, Simple, Vlan, Wanted, architecture};
use metal::status::Status;
use store::Tx;

use crate::args::Args;
use crate::error::ApiError;
use crate::node::{NodeRow, View};
use crate::operation::{Kind, Param};
use crate::vlan::VlanRow;

/// Filters of the lists.
pub const FILTERS: &[Param] = &[
    Param::opt("hostname", Kind::List, "Only these host names."),
    Param::opt("not_hostname", Kind::List, "None of these host names."),
    Param::opt("cpu_count", Kind::Text, "At least this many CPU cores."),
    Param::opt("cpu_speed", Kind::Text, "At least this many MHz."),
    Param::opt("mem", Kind::Text, "At least this much memory in MiB."),
    Param::opt(
        "mac_address",
        Kind::List,
        "Only nodes with these MAC addresses.",
    ),
    Param::opt("id", Kind::List, "Only these system ids."),
    Param::opt("not_id", Kind::List, "None of these system ids."),
    Param::opt("system_id", Kind::List, "Only these system ids."),
    Param::opt("domain", Kind::List, "Only nodes of these domains."),
    Param::opt("not_domain", Kind::List, "No nodes of these domains."),
    Param::opt("zone", Kind::List, "Only nodes in these zones."),
    Param::opt("not_in_zone", Kind::List, "No nodes in these zones."),
    Param::opt("pool", Kind::List, "Only nodes in these resource pools."),
    Param::opt(
        "not_in_pool",
        Kind::List,
        "No nodes in these resource pools.",
    ),
    Param::opt("owner", Kind::List, "Only nodes of these owners."),
    Param::opt("not_owner", Kind::List, "No nodes of these owners."),
    Param::opt(
        "agent_name",
        Kind::List,
        "Only nodes allocated under these names.",
    ),
    Param::opt(
        "not_agent_name",
        Kind::List,
        "No nodes allocated under these names.",
    ),
    Param::opt("tags", Kind::List, "Only nodes with all of these tags."),
    Param::opt("not_tags", Kind::List, "No nodes with any of these tags."),
    Param::opt(
        "status",
        Kind::List,
        "Only nodes in these states, as words (ready, deployed, …).",
    ),
    Param::opt("not_status", Kind::List, "No nodes in these states."),
    Param::opt(
        "simple_status",
        Kind::List,
        "Only nodes in these coarse states.",
    ),
    Param::opt(
        "not_simple_status",
        Kind::List,
        "No nodes in these coarse states.",
    ),
    Param::opt(
        "power_state",
        Kind::List,
        "Only nodes with this power: on, off, unknown or error.",
    ),
    Param::opt("not_power_state", Kind::List, "No nodes with this power."),
    Param::opt(
        "deployment_target",
        Kind::List,
        "Only nodes that run from memory, or from disk.",
    ),
    Param::opt(
        "not_deployment_target",
        Kind::List,
        "No nodes that run from memory, or from disk.",
    ),
    Param::opt(
        "arch",
        Kind::List,
        "Only nodes of these architectures: amd64 or amd64/generic.",
    ),
    Param::opt("not_arch", Kind::List, "No nodes of these architectures."),
    Param::opt("fabrics", Kind::List, "Only nodes on one of these fabrics."),
    Param::opt("not_fabrics", Kind::List, "No nodes on these fabrics."),
    Param::opt(
        "fabric_classes",
        Kind::List,
        "Only nodes on fabrics of these classes.",
    ),
    Param::opt(
        "not_fabric_classes",
        Kind::List,
        "No nodes on fabrics of these classes.",
    ),
    Param::opt("vlans", Kind::List, "Only nodes on one of these VLANs."),
    Param::opt("not_vlans", Kind::List, "No nodes on these VLANs."),
    Param::opt("subnets", Kind::List, "Only nodes on all of these subnets."),
    Param::opt("not_subnets", Kind::List, "No nodes on these subnets."),
    Param::opt(
        "link_speed",
        Kind::Text,
        "Only nodes with a link of at least this many Mbit/s.",
    ),
    Param::opt(
        "devices",
        Kind::Text,
        "Only nodes with these devices: vendor_id=…,product_id=…;…",
    ),
    Param::opt("storage", Kind::Text, "Only nodes with these disks."),
    Param::opt(
        "interfaces",
        Kind::Text,
        "Only nodes with these interfaces.",
    ),
];

fn specs<T: FromStr>(args: &Args, name: &str) -> Result<Vec<T>, ApiError>
where
    T::Err: std::fmt::Display,
{
    args.list(name)
        .iter()
        .map(|t| {
            t.parse::<T>()
                .map_err(|e| ApiError::field(name, format!("Invalid parameter: {e}.")))
        })
        .collect()
}

fn one_of(args: &Args, any: &str, none: &str) -> OneOf<String> {
    OneOf {
        any: args.list(any),
        none: args.list(none),
    }
}

fn at_least(args: &Args, name: &str) -> Result<f64, ApiError> {
    match args.filled(name) {
        None => Ok(0.0),
        Some(t) => match t.trim().parse::<f64>() {
            Ok(n) if n.is_finite() && n >= 0.0 => Ok(n),
            _ => Err(ApiError::field(
                name,
                format!("Invalid {name}: number required."),
            )),
        },
    }
}

/// Words of a list that is known, each as its value.
fn words<T: Copy>(
    args: &Args,
    name: &str,
    of: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ApiError> {
    args.list(name)
        .iter()
        .map(|w| {
            of(&w.to_ascii_lowercase()).ok_or_else(|| {
                let shown: String = w.chars().take(64).collect();
                ApiError::field(
                    name,
                    format!("Select a valid choice. {shown} is not one of the available choices."),
                )
            })
        })
        .collect()
}

fn status_of(word: &str) -> Option<Status> {
    Status::from_word(word).or_else(|| word.parse().ok().and_then(Status::from_code))
}

/// What a request asks for. Names of what does not exist are not checked here.
///
/// # Errors
/// 400 with the field that cannot be read.
pub fn wanted(args: &Args) -> Result<Wanted, ApiError> {
    let both = |any: &str, none: &str| -> Result<_, ApiError> {
        Ok(OneOf {
            any: words(args, any, status_of)?,
            none: words(args, none, status_of)?,
        })
    };
    let coarse = |name: &str| words(args, name, |w| w.parse::<Simple>().ok());
    let power = |name: &str| {
        words(args, name, |w| {
            ["on", "off", "unknown", "error"]
                .into_iter()
                .find(|p| *p == w)
        })
        .map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let target = |name: &str| {
        words(args, name, |w| match w {
            "memory" => Some(true),
            "disk" => Some(false),
            _ => None,
        })
    };
    let arch = |name: &str| args.list(name).iter().map(|a| architecture(a)).collect();
    let mut mac_address = Vec::new();
    for m in args.list("mac_address") {
        let mac: MacAddr = m
            .parse()
            .map_err(|e| ApiError::Bad(format!("Invalid MAC address: {e}")))?;
        mac_address.push(mac.to_string());
    }
    let mut ids = args.list("id");
    ids.extend(args.list("system_id"));
    Ok(Wanted {
        name: Vec::new(),
        hostname: one_of(args, "hostname", "not_hostname"),
        system_id: OneOf {
            any: ids,
            none: args.list("not_id"),
        },
        mac_address,
        domain: one_of(args, "domain", "not_domain"),
        zone: one_of(args, "zone", "not_in_zone"),
        pool: one_of(args, "pool", "not_in_pool"),
        owner: one_of(args, "owner", "not_owner"),
        agent_name: one_of(args, "agent_name", "not_agent_name"),
        status: both("status", "not_status")?,
        simple_status: OneOf {
            any: coarse("simple_status")?,
            none: coarse("not_simple_status")?,
        },
        power_state: OneOf {
            any: power("power_state")?,
            none: power("not_power_state")?,
        },
        deployment_target: OneOf {
            any: target("deployment_target")?,
            none: target("not_deployment_target")?,
        },
        arch: OneOf {
            any: arch("arch"),
            none: arch("not_arch"),
        },
        cpu_count: at_least(args, "cpu_count")?,
        cpu_speed: at_least(args, "cpu_speed")?,
        mem: at_least(args, "mem")?,
        link_speed: at_least(args, "link_speed")?,
        tags: OneOf {
            any: tags(args, "tags"),
            none: tags(args, "not_tags"),
        },
        fabrics: OneOf {
            any: specs(args, "fabrics")?,
            none: specs(args, "not_fabrics")?,
        },
        fabric_classes: one_of(args, "fabric_classes", "not_fabric_classes"),
        vlans: OneOf {
            any: specs(args, "vlans")?,
            none: specs(args, "not_vlans")?,
        },
        subnets: OneOf {
            any: specs(args, "subnets")?,
            none: specs(args, "not_subnets")?,
        },
        devices: DeviceSpec::parse(args.filled("devices").unwrap_or(""))
            .map_err(|e| ApiError::field("devices", format!("Invalid parameter: {e}.")))?,
    })
}

/// Tags stand apart by commas or by spaces.
fn tags(args: &Args, name: &str) -> Vec<String> {
    args.list(name)
        .iter()
        .flat_map(|t| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// What nodes are compared by that their [`View`] does not hold: fabrics, and the devices on their buses
/// where somebody asks for those.
#[derive(Default)]
pub struct Grounds {
    classes: HashMap<i64, Option<String>>,
    devices: HashMap<i64, Vec<Device>>,
}

impl Grounds {
    /// Loads them: at most two queries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn load(tx: &mut Tx, wanted: &Wanted) -> Result<Self, ApiError> {
        let classes = store::all!(
            tx,
            (i64, Option<String>),
            "SELECT id, class_type FROM fabric"
        )?;
        let mut devices: HashMap<i64, Vec<Device>> = HashMap::new();
        if wanted.asks_for_devices() {
            for (node, device) in crate::node_device::facts(tx).await? {
                devices.entry(node).or_default().push(device);
            }
        }
        Ok(Self {
            classes: classes.into_iter().collect(),
            devices,
        })
    }

    fn vlan(&self, v: &VlanRow) -> Vlan {
        Vlan {
            id: v.id,
            vid: v.vid,
            name: v.shown_name(),
            space: v.space_id.map(|id| (id, v.space())),
            fabric: Fabric {
                id: v.fabric_id,
                name: v.fabric(),
                class: self.class_of(v.fabric_id),
            },
        }
    }

    /// The class of a fabric.
    #[must_use]
    pub fn class_of(&self, fabric: i64) -> Option<String> {
        self.classes.get(&fabric).cloned().flatten()
    }

    /// Every VLAN and every subnet there is.
    #[must_use]
    pub fn networks(&self, view: &View) -> (Vec<Vlan>, Vec<Net>) {
        let vlans = view.around.vlans.values().map(|v| self.vlan(v)).collect();
        let nets = view
            .around
            .subnets
            .keys()
            .filter_map(|s| self.net(view, *s));
        (vlans, nets.collect())
    }

    fn net(&self, view: &View, subnet: i64) -> Option<Net> {
        let s = view.around.subnets.get(&subnet)?;
        let vlan = self.vlan(view.around.vlans.get(&s.vlan_id)?);
        Some(Net {
            id: s.id,
            name: s.name.clone(),
            cidr: s.net().ok()?,
            space: vlan.space.clone(),
            vlan,
        })
    }

    /// A node as it is compared.
    #[must_use]
    pub fn facts(&self, n: &NodeRow, view: &View) -> Facts {
        let port = |i: &crate::interface::InterfaceRow| Port {
            mac: i.mac.clone(),
            link_speed: if i.link_connected { i.link_speed } else { 0 },
            vlan: i
                .vlan_id
                .and_then(|v| view.around.vlans.get(&v))
                .map(|v| self.vlan(v)),
            nets: view
                .around
                .links
                .get(&i.id)
                .into_iter()
                .flatten()
                .filter_map(|l| self.net(view, l.subnet_id?))
                .collect(),
        };
        Facts {
            system_id: n.system_id.clone(),
            hostname: n.hostname.clone(),
            domain: n.domain_name.clone(),
            domain_id: n.domain_id,
            zone: n.zone_name.clone(),
            zone_id: n.zone_id,
            pool: n.pool_name.clone(),
            pool_id: n.pool_id,
            owner: n.owner.clone(),
            agent_name: n.agent_name.clone(),
            status: n.status,
            architecture: n.architecture.clone().unwrap_or_default(),
            cpu_count: n.cpu_count,
            cpu_speed: n.cpu_speed,
            memory: n.memory,
            power_state: n.power_state.clone(),
            ephemeral_deploy: n.ephemeral_deploy,
            tags: view.tags_of(n.id).to_vec(),
            ports: view.interfaces_of(n.id).iter().map(port).collect(),
            devices: self.devices.get(&n.id).cloned().unwrap_or_default(),
        }
    }
}

/// Keeps the nodes that meet the filters of a request.
///
/// # Errors
/// 400 for a filter that cannot be read.
pub async fn keep(
    tx: &mut Tx,
    args: &Args,
    mut nodes: Vec<NodeRow>,
    view: &View,
) -> Result<Vec<NodeRow>, ApiError> {
    let wanted = wanted(args)?;
    if wanted == Wanted::default() {
        return Ok(nodes);
    }
    let grounds = Grounds::load(tx, &wanted).await?;
    nodes.retain(|n| wanted.met_by(&grounds.facts(n, view)));
    Ok(nodes)
}
