//! Nodes with everything around them, in a constant number of queries however many there are, and as
//! the API shows them.

use std::collections::{BTreeMap, HashMap};

use metal::Timestamp;
use metal::status::Status;
use serde_json::{Map, Value, json};
use store::Tx;

use crate::block_device::{self, Storage};
use crate::error::ApiError;
use crate::interface::{Around, InterfaceRow, LinkRow};
use crate::node::row::NodeRow;
use crate::select_interface;
use crate::{subnet, vlan};

/// What the JSON of nodes needs beside their rows.
#[derive(Default)]
pub struct View {
    /// Interfaces by node.
    pub interfaces: HashMap<i64, Vec<InterfaceRow>>,
    /// VLANs, subnets, links, leases.
    pub around: Around,
    /// Disks by node.
    pub storage: HashMap<i64, Storage>,
    tags: HashMap<i64, Vec<String>>,
    owner_data: HashMap<i64, Map<String, Value>>,
    scripts: HashMap<i64, Vec<(i64, i64, bool)>>,
    records: HashMap<i64, i64>,
}

/// The keys that `hardware_info` always has.
const HARDWARE_KEYS: [&str; 18] = [
    "system_vendor",
    "system_product",
    "system_family",
    "system_version",
    "system_sku",
    "system_serial",
    "cpu_model",
    "mainboard_vendor",
    "mainboard_product",
    "mainboard_serial",
    "mainboard_version",
    "mainboard_firmware_vendor",
    "mainboard_firmware_date",
    "mainboard_firmware_version",
    "chassis_vendor",
    "chassis_type",
    "chassis_serial",
    "chassis_version",
];

impl View {
    /// Loads what belongs to these nodes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn load(tx: &mut Tx, nodes: &[NodeRow], now: Timestamp) -> Result<Self, ApiError> {
        let ids = serde_json::to_string(&nodes.iter().map(|n| n.id).collect::<Vec<_>>())
            .unwrap_or_default();
        let mut v = Self::default();
        for i in store::all!(
            tx,
            InterfaceRow,
            select_interface!("WHERE i.node_id IN @ids($1) ORDER BY i.id"),
            &ids
        )? {
            v.interfaces.entry(i.node_id).or_default().push(i);
        }
        let relations = store::all!(
            tx,
            (i64, i64, String, String),
            "SELECT r.parent_id, r.child_id, p.name, c.name FROM interface_relation r JOIN interface p ON p.id = r.parent_id \
             JOIN interface c ON c.id = r.child_id WHERE p.node_id IN @ids($1) ORDER BY p.name, c.name",
            &ids
        )?;
        for (parent, child, parent_name, child_name) in relations {
            v.around.parents.entry(child).or_default().push(parent_name);
            v.around
                .children
                .entry(parent)
                .or_default()
                .push(child_name);
        }
        let links = store::all!(
            tx,
            LinkRow,
            "SELECT a.id, a.interface_id, a.ip, a.alloc_type, a.subnet_id FROM ip_address a \
             WHERE a.interface_id IN (SELECT i.id FROM interface i WHERE i.node_id IN @ids($1)) ORDER BY a.id",
            &ids
        )?;
        for l in links {
            v.around.links.entry(l.interface_id).or_default().push(l);
        }
        let leases = store::all!(
            tx,
            (String, String, i64),
            "SELECT l.mac, l.ip, l.subnet_id FROM lease l WHERE l.until > $2 AND l.mac IN \
             (SELECT i.mac FROM interface i WHERE i.node_id IN @ids($1)) ORDER BY l.updated",
            &ids,
            now.0
        )?;
        for (mac, ip, subnet) in leases {
            v.around.leases.entry(mac).or_default().push((ip, subnet));
        }
        v.around.vlans = vlan::all(tx).await?;
        v.around.subnets = subnet::all(tx).await?;
        v.storage = block_device::load(tx, &ids).await?;
        let tags = store::all!(
            tx,
            (i64, String),
            "SELECT nt.node_id, t.name FROM node_tag nt JOIN tag t ON t.id = nt.tag_id WHERE nt.node_id IN @ids($1) ORDER BY t.name",
            &ids
        )?;
        for (node, tag) in tags {
            v.tags.entry(node).or_default().push(tag);
        }
        let data = store::all!(
            tx,
            (i64, String, String),
            "SELECT node_id, key, value FROM owner_data WHERE node_id IN @ids($1) ORDER BY key",
            &ids
        )?;
        for (node, key, value) in data {
            v.owner_data
                .entry(node)
                .or_default()
                .insert(key, value.into());
        }
        let scripts = store::all!(
            tx,
            (i64, i64, i64, bool),
            "SELECT r.script_set_id, r.status, COALESCE(s.hardware_type, 0), r.suppressed FROM script_result r \
             LEFT JOIN script s ON s.id = r.script_id WHERE r.script_set_id IN \
             (SELECT current_commissioning_set_id FROM node WHERE id IN @ids($1) UNION ALL \
              SELECT current_testing_set_id FROM node WHERE id IN @ids($1))",
            &ids
        )?;
        for (set, status, hardware, suppressed) in scripts {
            v.scripts
                .entry(set)
                .or_default()
                .push((status, hardware, suppressed));
        }
        v.records = crate::domain::records(tx).await?;
        Ok(v)
    }

    /// The interfaces of a node.
    #[must_use]
    pub fn interfaces_of(&self, node: i64) -> &[InterfaceRow] {
        self.interfaces.get(&node).map_or(&[], Vec::as_slice)
    }

    /// The disks of a node.
    #[must_use]
    pub fn storage_of(&self, node: i64) -> Storage {
        self.storage.get(&node).cloned().unwrap_or_default()
    }

    /// Tags of a node, by name.
    #[must_use]
    pub fn tags_of(&self, node: i64) -> &[String] {
        self.tags.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Annotations of a node.
    #[must_use]
    pub fn owner_data_of(&self, node: i64) -> Map<String, Value> {
        self.owner_data.get(&node).cloned().unwrap_or_default()
    }

    /// The domain object of a node.
    #[must_use]
    pub fn domain_json(&self, n: &NodeRow) -> Value {
        json!({
            "authoritative": n.domain_authoritative,
            "ttl": n.domain_ttl,
            "resource_record_count": self.records.get(&n.domain_id).copied().unwrap_or(0),
            "id": n.domain_id,
            "is_default": n.domain_is_default,
            "name": n.domain_name,
            "resource_uri": format!("/MAAS/api/2.0/domains/{}/", n.domain_id),
        })
    }

    /// Addresses of a node: those linked to it, or, when there are none, those leased to it.
    #[must_use]
    pub fn addresses_of(&self, node: i64) -> Vec<String> {
        let mut out = Vec::new();
        for i in self.interfaces_of(node) {
            out.extend(
                self.around
                    .links
                    .get(&i.id)
                    .into_iter()
                    .flatten()
                    .filter_map(|l| l.ip.clone()),
            );
        }
        if out.is_empty() {
            for i in self.interfaces_of(node) {
                let leases = i.mac.as_ref().and_then(|m| self.around.leases.get(m));
                out.extend(leases.into_iter().flatten().map(|(ip, _)| ip.clone()));
            }
        }
        out
    }

    /// A machine as `machines` shows it.
    #[must_use]
    pub fn machine_json(&self, n: &NodeRow) -> Value {
        let interfaces = self.interfaces_of(n.id);
        let storage = self.storage_of(n.id);
        let status = Status::from_code(n.status).unwrap_or(Status::New);
        let interface_json = |i: &InterfaceRow| i.json(&n.system_id, &self.around);
        let boot_interface = n
            .boot_interface_id
            .and_then(|id| interfaces.iter().find(|i| i.id == id))
            .or_else(|| interfaces.iter().find(|i| i.r#type == "physical"));
        let boot_disk = n
            .boot_disk_id
            .and_then(|id| storage.disks.iter().find(|d| d.id == id))
            .or_else(|| storage.disks.iter().find(|d| d.r#type == "physical"));
        let disks = |of: Option<&str>| -> Vec<Value> {
            storage
                .disks
                .iter()
                .filter(|d| of.is_none_or(|t| d.r#type == t))
                .map(|d| storage.disk_json(&n.system_id, d))
                .collect()
        };
        let bytes: i64 = storage
            .disks
            .iter()
            .filter(|d| d.r#type == "physical")
            .map(|d| d.size)
            .sum();
        let owner_data = self.owner_data_of(n.id);
        let mut o = self.common_json(n, status);
        let mut put = |k: &str, v: Value| {
            o.insert(k.to_owned(), v);
        };
        put("owner_data", Value::Object(owner_data.clone()));
        put("workload_annotations", Value::Object(owner_data));
        put("locked", n.locked.into());
        put("cache_sets", storage.cache_set_references(&n.system_id));
        put(
            "bcaches",
            storage.references(&n.system_id, |t| t == "bcache"),
        );
        put(
            "volume_groups",
            storage.references(&n.system_id, |t| t == "lvm-vg"),
        );
        put(
            "raids",
            storage.references(&n.system_id, |t| t.starts_with("raid-")),
        );
        put("bios_boot_method", n.bios_boot_method.clone().into());
        put(
            "boot_interface",
            boot_interface.map(interface_json).unwrap_or(Value::Null),
        );
        put("min_hwe_kernel", n.min_hwe_kernel.clone().into());
        put("hwe_kernel", n.hwe_kernel.clone().into());
        put("storage", json!(to_megabytes(bytes)));
        put("ephemeral_deploy", n.ephemeral_deploy.into());
        put("error_description", n.error_description.clone().into());
        put("netboot", n.netboot.into());
        put("address_ttl", n.address_ttl.into());
        put("pool", pool_json(n));
        put("disable_ipv4", false.into());
        put("constraints_by_type", json!({}));
        put(
            "boot_disk",
            boot_disk.map_or(Value::Null, |d| storage.disk_json(&n.system_id, d)),
        );
        put("blockdevice_set", disks(None).into());
        put("physicalblockdevice_set", disks(Some("physical")).into());
        put("virtualblockdevice_set", disks(Some("virtual")).into());
        put("special_filesystems", storage.special_json().into());
        put("parent", Value::Null);
        put("default_gateways", self.gateways_json(n));
        put(
            "numanode_set",
            serde_json::from_str(&n.numa).unwrap_or_else(|_| json!([])),
        );
        put("last_sync", time_json(n.last_sync));
        put("sync_interval", n.sync_interval.into());
        put(
            "next_sync",
            time_json(
                n.last_sync
                    .zip(n.sync_interval)
                    .map(|(l, s)| l + s * 1_000_000),
            ),
        );
        put("enable_hw_sync", n.enable_hw_sync.into());
        put(
            "enable_kernel_crash_dump",
            n.enable_kernel_crash_dump.into(),
        );
        put("is_dpu", n.is_dpu.into());
        put("pod", Value::Null);
        put("virtualmachine_id", Value::Null);
        put(
            "resource_uri",
            format!("/MAAS/api/2.0/machines/{}/", n.system_id).into(),
        );
        Value::Object(o)
    }

    /// What machines and controllers have in common.
    #[must_use]
    pub fn common_json(&self, n: &NodeRow, status: Status) -> Map<String, Value> {
        let interfaces: Vec<Value> = self
            .interfaces_of(n.id)
            .iter()
            .map(|i| i.json(&n.system_id, &self.around))
            .collect();
        let mut hardware: BTreeMap<String, String> =
            serde_json::from_str(&n.hardware_info).unwrap_or_default();
        for k in HARDWARE_KEYS {
            hardware
                .entry(k.to_owned())
                .or_insert_with(|| "Unknown".to_owned());
        }
        let object = json!({
            "system_id": n.system_id,
            "hostname": n.hostname,
            "description": n.description,
            "hardware_uuid": n.hardware_uuid,
            "domain": self.domain_json(n),
            "fqdn": n.fqdn(),
            "owner": n.owner,
            "architecture": n.architecture,
            "cpu_count": n.cpu_count,
            "cpu_speed": n.cpu_speed,
            "memory": n.memory,
            "swap_size": n.swap_size,
            "status": n.status,
            "status_name": status.name(),
            "status_action": n.status_action,
            "status_message": n.status_message,
            "osystem": n.osystem,
            "distro_series": n.distro_series,
            "power_type": n.power_type,
            "power_state": n.power_state,
            "tag_names": self.tags_of(n.id),
            "ip_addresses": self.addresses_of(n.id),
            "interface_set": interfaces,
            "zone": zone_json(n),
            "node_type": n.node_type,
            "node_type_name": type_name(n.node_type),
            "hardware_info": hardware,
            "current_commissioning_result_id": n.current_commissioning_set_id,
            "current_testing_result_id": n.current_testing_set_id,
            "current_installation_result_id": n.current_installation_set_id,
        });
        let Value::Object(mut o) = object else {
            return Map::new();
        };
        let of = |set: Option<i64>, hardware: Option<i64>| -> i64 {
            let results = set
                .and_then(|s| self.scripts.get(&s))
                .map_or(&[][..], Vec::as_slice);
            aggregate(
                results
                    .iter()
                    .filter(|(_, h, hidden)| !hidden && hardware.is_none_or(|w| w == *h))
                    .map(|(s, ..)| *s),
            )
        };
        let mut status_of = |name: &str, value: i64| {
            o.insert(format!("{name}_status"), value.into());
            o.insert(
                format!("{name}_status_name"),
                script_status_name(value).into(),
            );
        };
        status_of("commissioning", of(n.current_commissioning_set_id, None));
        status_of("testing", of(n.current_testing_set_id, None));
        status_of("cpu_test", of(n.current_testing_set_id, Some(1)));
        status_of("memory_test", of(n.current_testing_set_id, Some(2)));
        status_of("storage_test", of(n.current_testing_set_id, Some(3)));
        status_of("network_test", of(n.current_testing_set_id, Some(4)));
        status_of("other_test", of(n.current_testing_set_id, Some(0)));
        status_of("interface_test", of(n.current_testing_set_id, Some(4)));
        o
    }

    fn gateways_json(&self, n: &NodeRow) -> Value {
        let chosen = |id: Option<i64>| {
            let link = id.and_then(|id| self.around.links.values().flatten().find(|l| l.id == id));
            let gateway = link
                .and_then(|l| l.subnet_id)
                .and_then(|s| self.around.subnets.get(&s))
                .and_then(|s| s.gateway_ip.clone());
            (gateway, link.map(|l| l.id))
        };
        let first = |v6: bool| {
            self.interfaces_of(n.id)
                .iter()
                .flat_map(|i| self.around.links.get(&i.id).into_iter().flatten())
                .filter_map(|l| self.around.subnets.get(&l.subnet_id?))
                .filter_map(|s| s.gateway_ip.clone())
                .find(|g| g.contains(':') == v6)
        };
        let (v4, v4_link) = chosen(n.default_gateway_v4_id);
        let (v6, v6_link) = chosen(n.default_gateway_v6_id);
        json!({
            "ipv4": { "gateway_ip": v4.or_else(|| first(false)), "link_id": v4_link },
            "ipv6": { "gateway_ip": v6.or_else(|| first(true)), "link_id": v6_link },
        })
    }
}

/// What callers without credentials see of a machine.
#[must_use]
pub fn anonymous_json(view: &View, n: &NodeRow) -> Value {
    let full = view.machine_json(n);
    let keys = [
        "system_id",
        "hostname",
        "domain",
        "fqdn",
        "architecture",
        "status",
        "power_type",
        "power_state",
        "zone",
        "status_action",
        "status_message",
        "status_name",
        "node_type",
        "resource_uri",
    ];
    Value::Object(
        keys.iter()
            .map(|k| ((*k).to_owned(), full[*k].clone()))
            .collect(),
    )
}

/// A zone object.
#[must_use]
pub fn zone_json(n: &NodeRow) -> Value {
    json!({
        "name": n.zone_name,
        "description": n.zone_description,
        "id": n.zone_id,
        "resource_uri": format!("/MAAS/api/2.0/zones/{}/", n.zone_name),
    })
}

/// A pool object; null for what is in no pool.
#[must_use]
pub fn pool_json(n: &NodeRow) -> Value {
    match (n.pool_id, &n.pool_name) {
        (Some(id), Some(name)) => json!({
            "name": name,
            "description": n.pool_description,
            "id": id,
            "resource_uri": format!("/MAAS/api/2.0/resourcepool/{id}/"),
        }),
        _ => Value::Null,
    }
}

/// The name of a node type.
#[must_use]
pub const fn type_name(node_type: i64) -> &'static str {
    match node_type {
        0 => "Machine",
        1 => "Device",
        2 => "Rack controller",
        3 => "Region controller",
        _ => "Region and rack controller",
    }
}

/// A time in the ISO form without a zone that raw model times have.
#[must_use]
pub fn time_json(micros: Option<i64>) -> Value {
    let Some(t) = micros.and_then(|m| jiff::Timestamp::from_microsecond(m).ok()) else {
        return Value::Null;
    };
    t.strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string().into()
}

#[allow(clippy::cast_precision_loss)] // megabytes of disks are far below 2^52
fn to_megabytes(bytes: i64) -> f64 {
    bytes as f64 / 1_000_000.0
}

/// The one status that stands for several script results: what still runs, then what went worst.
pub(crate) fn aggregate(statuses: impl Iterator<Item = i64>) -> i64 {
    /// Running, installing, applying network, pending, then failures, then the rest.
    const ORDER: [i64; 12] = [1, 10, 7, 0, 3, 4, 8, 11, 5, 6, 9, 2];
    let mut best: Option<usize> = None;
    for s in statuses {
        let rank = ORDER
            .iter()
            .position(|o| *o == s)
            .unwrap_or(ORDER.len() - 1);
        best = Some(best.map_or(rank, |b| b.min(rank)));
    }
    best.map_or(-1, |r| ORDER[r])
}

/// The name of a script status.
#[must_use]
pub const fn script_status_name(status: i64) -> &'static str {
    match status {
        0 => "Pending",
        1 => "Running",
        2 => "Passed",
        3 => "Failed",
        4 => "Timed out",
        5 => "Aborted",
        6 => "Degraded",
        7 => "Installing dependencies",
        8 => "Failed installing dependencies",
        9 => "Skipped",
        10 => "Applying custom network configuration",
        11 => "Failed to apply custom network configuration",
        _ => "Unknown",
    }
}
