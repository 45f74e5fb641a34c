//! The constraints of an allocation that name what of the machine is meant: `storage` and `interfaces`.

use std::collections::{BTreeMap, BTreeSet};

use metal::constraint::{interface, storage};
use serde_json::{Value, json};

use crate::args::Args;
use crate::block_device::change::boot_disk;
use crate::block_device::unsigned;
use crate::error::ApiError;
use crate::interface::InterfaceRow;
use crate::node::{NodeRow, View};
use crate::subnet::texts;
use crate::volume_group;

/// What is asked for.
#[derive(Default)]
pub struct Demand {
    storage: Option<storage::Constraint>,
    interfaces: Option<interface::Constraint>,
}

/// What of a machine serves it: ids by label.
#[derive(Default)]
pub struct Served {
    storage: Option<BTreeMap<String, Vec<i64>>>,
    interfaces: Option<BTreeMap<String, Vec<i64>>>,
}

impl Demand {
    /// Reads the two parameters.
    ///
    /// # Errors
    /// 400 for what is not written as they are.
    pub fn of(args: &Args) -> Result<Self, ApiError> {
        Ok(Self {
            storage: read(args, "storage")?,
            interfaces: read(args, "interfaces")?,
        })
    }

    /// What of this machine serves it; none when something is missing.
    #[must_use]
    pub fn served_by(
        &self,
        n: &NodeRow,
        view: &View,
        classes: &dyn Fn(i64) -> Option<String>,
    ) -> Option<Served> {
        let storage = match &self.storage {
            Some(wanted) => Some(wanted.by_label(&pieces(n, view))?),
            None => None,
        };
        let interfaces = match &self.interfaces {
            Some(wanted) => {
                let all = view.interfaces_of(n.id).iter();
                let seen: Vec<_> = all.map(|i| interface_of(n, view, i, classes)).collect();
                Some(wanted.by_label(&seen)?)
            }
            None => None,
        };
        Some(Served {
            storage,
            interfaces,
        })
    }
}

fn read<T>(args: &Args, name: &'static str) -> Result<Option<T>, ApiError>
where
    T: std::str::FromStr<Err: std::error::Error>,
{
    let asked = args.filled(name).map(str::parse);
    asked
        .transpose()
        .map_err(|e: T::Err| ApiError::field(name, e.to_string()))
}

impl Served {
    /// `constraints_by_type` of the answer. The verbose form has a place for details beside it.
    #[must_use]
    pub fn json(&self, verbose: bool) -> Value {
        let mut out = json!({});
        for (name, found) in [("storage", &self.storage), ("interfaces", &self.interfaces)] {
            if let Some(found) = found {
                out[name] = json!(found);
            }
            if verbose {
                out[format!("verbose_{name}")] = found.as_ref().map_or(json!({}), |f| json!(f));
            }
        }
        out
    }
}

fn pieces(n: &NodeRow, view: &View) -> Vec<storage::Piece> {
    let s = view.storage_of(n.id);
    let boot = boot_disk(n, &s);
    let disks = s.disks.iter().filter(|d| d.r#type == "physical");
    let disks = disks.map(|d| storage::Piece {
        id: d.id,
        kind: storage::Kind::Disk,
        size: unsigned(d.size),
        tags: texts(&d.tags).into_iter().collect(),
        boot: boot == Some(d.id),
    });
    let partitions = s.partitions.iter().map(|p| storage::Piece {
        id: p.id,
        kind: storage::Kind::Partition,
        size: unsigned(p.size),
        tags: texts(&p.tags).into_iter().collect(),
        boot: false,
    });
    let groups = s.groups.iter().filter(|g| g.r#type == volume_group::TYPE);
    let groups = groups.map(|g| storage::Piece {
        id: g.id,
        kind: storage::Kind::VolumeGroup,
        size: volume_group::left(&s, g),
        tags: BTreeSet::new(),
        boot: false,
    });
    disks.chain(partitions).chain(groups).collect()
}

fn interface_of(
    n: &NodeRow,
    view: &View,
    i: &InterfaceRow,
    classes: &dyn Fn(i64) -> Option<String>,
) -> interface::Interface {
    let vlan = i.vlan_id.and_then(|id| view.around.vlans.get(&id));
    let links = view.around.links.get(&i.id).map_or(&[][..], Vec::as_slice);
    let subnet = |id: i64| {
        let s = view.around.subnets.get(&id)?;
        let of = view.around.vlans.get(&s.vlan_id);
        Some(interface::Subnet {
            id: s.id,
            name: s.name.clone(),
            cidr: s.cidr.clone(),
            space: of.and_then(|v| v.space_id.map(|id| (id, v.space()))),
        })
    };
    let mut modes: BTreeSet<String> = links.iter().map(|l| l.mode().to_owned()).collect();
    if links.is_empty() {
        modes.insert("unconfigured".to_owned());
    }
    interface::Interface {
        id: i.id,
        name: i.name.clone(),
        kind: i.r#type.clone(),
        mac: i.mac.clone(),
        hostname: n.hostname.clone(),
        link_speed: if i.link_connected { i.link_speed } else { 0 },
        tags: texts(&i.tags).into_iter().collect(),
        fabric: vlan.map(|v| (v.fabric_id, v.fabric())),
        fabric_class: vlan.and_then(|v| classes(v.fabric_id)),
        vlan: vlan.map(|v| (v.id, v.shown_name(), v.vid)),
        space: vlan.and_then(|v| v.space_id.map(|id| (id, v.space()))),
        racks: vlan
            .into_iter()
            .flat_map(|v| [&v.primary_rack, &v.secondary_rack])
            .flatten()
            .cloned()
            .collect(),
        subnets: links
            .iter()
            .filter_map(|l| l.subnet_id)
            .filter_map(subnet)
            .collect(),
        ips: links.iter().filter_map(|l| l.ip.clone()).collect(),
        modes,
    }
}
