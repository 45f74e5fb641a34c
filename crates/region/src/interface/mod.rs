//! `interfaces`: network interfaces of nodes, and the addresses linked to them.

pub mod form;
pub mod link;
pub mod made;
pub mod ops;

use std::collections::HashMap;

use metal::status::Status;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::node::NodeRow;
use crate::node::row::{DEVICE, MACHINE};
use crate::subnet::{SubnetRow, texts};
use crate::vlan::VlanRow;

/// An interface as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct InterfaceRow {
    /// Database id.
    pub id: i64,
    /// Its node.
    pub node_id: i64,
    /// Kernel name.
    pub name: String,
    /// `physical`, `bond`, `bridge`, `vlan`, …
    pub r#type: String,
    /// Hardware address.
    pub mac: Option<String>,
    /// Its VLAN.
    pub vlan_id: Option<i64>,
    /// Whether it is configured at all.
    pub enabled: bool,
    /// Parameters as JSON, or empty.
    pub params: String,
    /// Tags as a JSON list.
    pub tags: String,
    /// Maker.
    pub vendor: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// Firmware version.
    pub firmware_version: Option<String>,
    /// Whether the cable is in.
    pub link_connected: bool,
    /// What it can do, in Mbit/s.
    pub interface_speed: i64,
    /// What it does, in Mbit/s.
    pub link_speed: i64,
    /// NUMA node.
    pub numa_index: Option<i64>,
    /// Virtual functions.
    pub sriov_max_vf: i64,
}

/// Columns of [`InterfaceRow`] from `interface i`; a `WHERE` or `ORDER BY` may follow.
#[macro_export]
#[doc(hidden)]
macro_rules! select_interface {
    ($rest:literal) => {
        concat!(
            "SELECT i.id, i.node_id, i.name, i.type, i.mac, i.vlan_id, i.enabled, i.params, i.tags, i.vendor, i.product, ",
            "i.firmware_version, i.link_connected, i.interface_speed, i.link_speed, i.numa_index, i.sriov_max_vf FROM interface i ",
            $rest
        )
    };
}

/// An address linked to an interface.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LinkRow {
    /// Database id.
    pub id: i64,
    /// The interface.
    pub interface_id: i64,
    /// The address, when there is one.
    pub ip: Option<String>,
    /// How it came to be: see [`LinkRow::mode`].
    pub alloc_type: i64,
    /// The subnet.
    pub subnet_id: Option<i64>,
}

/// `alloc_type` of an address that is picked at deployment.
pub const AUTO: i64 = 0;
/// `alloc_type` of a fixed address (and of `link_up`, without an address).
pub const STICKY: i64 = 1;
/// `alloc_type` of an address that a user reserved.
pub const USER_RESERVED: i64 = 4;
/// `alloc_type` of an address from DHCP.
pub const DHCP: i64 = 5;

impl LinkRow {
    /// The word of the API.
    #[must_use]
    pub const fn mode(&self) -> &'static str {
        match (self.alloc_type, &self.ip) {
            (AUTO, _) => "auto",
            (DHCP, _) => "dhcp",
            (STICKY, None) => "link_up",
            _ => "static",
        }
    }
}

/// What the JSON of interfaces needs beside their rows.
#[derive(Default)]
pub struct Around {
    /// VLANs by id.
    pub vlans: HashMap<i64, VlanRow>,
    /// Subnets by id.
    pub subnets: HashMap<i64, SubnetRow>,
    /// Links by interface.
    pub links: HashMap<i64, Vec<LinkRow>>,
    /// Names of parents by interface.
    pub parents: HashMap<i64, Vec<String>>,
    /// Names of children by interface.
    pub children: HashMap<i64, Vec<String>>,
    /// Leased addresses by hardware address: (address, subnet).
    pub leases: HashMap<String, Vec<(String, i64)>>,
}

impl InterfaceRow {
    /// The parameters.
    #[must_use]
    pub fn params_json(&self) -> Value {
        if self.params.is_empty() {
            Value::String(String::new())
        } else {
            serde_json::from_str(&self.params).unwrap_or(Value::Null)
        }
    }

    /// The parameters as an object, empty when there are none.
    #[must_use]
    pub fn params_map(&self) -> Map<String, Value> {
        match self.params_json() {
            Value::Object(m) => m,
            _ => Map::new(),
        }
    }

    /// Keeps parameters.
    pub fn set_params(&mut self, params: Map<String, Value>) {
        self.params = if params.is_empty() {
            String::new()
        } else {
            Value::Object(params).to_string()
        };
    }

    /// MTU in bytes: its own, its VLAN's, or 1500.
    #[must_use]
    pub fn effective_mtu(&self, vlans: &HashMap<i64, VlanRow>) -> i64 {
        self.params_json()
            .get("mtu")
            .and_then(Value::as_i64)
            .or_else(|| self.vlan_id.and_then(|v| vlans.get(&v)).map(|v| v.mtu))
            .unwrap_or(1500)
    }

    /// The object of the API.
    #[must_use]
    pub fn json(&self, system_id: &str, around: &Around) -> Value {
        let names = |m: &HashMap<i64, Vec<String>>| m.get(&self.id).cloned().unwrap_or_default();
        let links: Vec<Value> = around
            .links
            .get(&self.id)
            .into_iter()
            .flatten()
            .map(|l| {
                let mut o = json!({ "id": l.id, "mode": l.mode() });
                if let Some(ip) = &l.ip {
                    o["ip_address"] = ip.clone().into();
                }
                if let Some(s) = l.subnet_id.and_then(|s| around.subnets.get(&s)) {
                    o["subnet"] = s.json(&around.vlans);
                }
                o
            })
            .collect();
        let discovered: Vec<Value> = self
            .mac
            .as_ref()
            .and_then(|m| around.leases.get(m))
            .into_iter()
            .flatten()
            .map(|(ip, subnet)| {
                json!({ "ip_address": ip, "subnet": around.subnets.get(subnet).map(|s| s.json(&around.vlans)) })
            })
            .collect();
        json!({
            "id": self.id,
            "numa_node": self.numa_index,
            "type": self.r#type,
            "parents": names(&around.parents),
            "effective_mtu": self.effective_mtu(&around.vlans),
            "name": self.name,
            "vlan": self.vlan_id.and_then(|v| around.vlans.get(&v)).map(|v| v.json(&around.vlans)),
            "system_id": system_id,
            "tags": texts(&self.tags),
            "mac_address": self.mac,
            "firmware_version": self.firmware_version,
            "children": names(&around.children),
            "params": self.params_json(),
            "interface_speed": self.interface_speed,
            "discovered": if discovered.is_empty() { Value::Null } else { discovered.into() },
            "product": self.product,
            "enabled": self.enabled,
            "sriov_max_vf": self.sriov_max_vf,
            "link_speed": if self.link_connected { self.link_speed } else { 0 },
            "links": links,
            "link_connected": self.link_connected,
            "vendor": self.vendor,
            "resource_uri": format!("/MAAS/api/2.0/nodes/{system_id}/interfaces/{}/", self.id),
        })
    }
}

/// The statuses in which the network of a machine can be configured.
const EDITABLE: [Status; 5] = [
    Status::New,
    Status::Ready,
    Status::FailedTesting,
    Status::Allocated,
    Status::Broken,
];

/// Whether the network of a node can be configured now; `what` is the verb for the answer.
///
/// # Errors
/// 409 when it cannot.
pub fn editable(node: &NodeRow, what: &str) -> Result<(), ApiError> {
    match node.node_type {
        MACHINE if EDITABLE.contains(&node.status()?) => Ok(()),
        // The sentence that clients of MAAS know.
        MACHINE => Err(ApiError::Conflict(format!(
            "Cannot {what} interface because the machine is not New, Ready, Allocated, or Broken."
        ))),
        DEVICE => Ok(()),
        _ => Err(ApiError::Conflict(format!(
            "Cannot {what} interface: the interfaces of a controller are those of its host."
        ))),
    }
}
