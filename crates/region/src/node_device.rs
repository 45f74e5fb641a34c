//! `nodes/{system_id}/devices/`: what sits on the buses of a node, as commissioning found it.

use std::collections::HashMap;

use metal::Timestamp;
use metal::filter::Device;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::hardware::bus::BusDevice;
use crate::node::{NodeRow, View, row};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::script::meta::HARDWARE;

const DEVICES: Operation = Operation {
    handler: "NodeDevicesHandler",
    uri: "nodes/{system_id}/devices/",
    ..Operation::READ
};
const DEVICE: Operation = Operation {
    handler: "NodeDeviceHandler",
    uri: "nodes/{system_id}/devices/{id}/",
    ..Operation::READ
};

/// `nodes/{system_id}/devices/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the devices on the buses of a node.",
        params: &[
            Param::opt("bus", Kind::Text, "Only devices on this bus: PCIE or USB."),
            Param::opt(
                "hardware_type",
                Kind::Text,
                "Only devices of this kind: node, cpu, memory, storage, network or gpu.",
            ),
            Param::opt(
                "vendor_id",
                Kind::Text,
                "Only devices of this vendor, by id.",
            ),
            Param::opt("product_id", Kind::Text, "Only this product, by id."),
            Param::opt(
                "vendor_name",
                Kind::Text,
                "Only devices of this vendor, by name.",
            ),
            Param::opt("product_name", Kind::Text, "Only this product, by name."),
            Param::opt(
                "commissioning_driver",
                Kind::Text,
                "Only devices with this kernel driver.",
            ),
        ],
        run: |c| Box::pin(list(c)),
        ..DEVICES
    },
    Operation {
        title: "Read a device of a node: by id, by PCI address, or by bus and device number as in 1:2.",
        run: |c| Box::pin(read(c)),
        ..DEVICE
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Forget a device until the next commissioning finds it.",
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(delete(c)),
        ..DEVICE
    },
];

/// The buses, with the numbers of the API.
const BUSES: [(&str, i64); 2] = [("PCIE", 1), ("USB", 2)];

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    node_id: i64,
    bus: i64,
    hardware_type: i64,
    numa_index: i64,
    block_device_id: Option<i64>,
    interface_id: Option<i64>,
    vendor_id: String,
    product_id: String,
    vendor_name: String,
    product_name: String,
    commissioning_driver: String,
    bus_number: i64,
    device_number: i64,
    pci_address: Option<String>,
}

fn word<'a>(words: &[(&'a str, i64)], n: i64) -> &'a str {
    words.iter().find(|(_, w)| *w == n).map_or("", |(w, _)| *w)
}

/// The kinds of hardware as they are shown.
#[must_use]
pub const fn hardware_name(n: i64) -> &'static str {
    match n {
        1 => "CPU",
        2 => "Memory",
        3 => "Storage",
        4 => "Network",
        5 => "GPU",
        _ => "Node",
    }
}

impl Row {
    fn json(&self, system_id: &str, view: &View) -> Value {
        let storage = view.storage_of(self.node_id);
        let disk = self
            .block_device_id
            .and_then(|id| storage.disks.iter().find(|d| d.id == id));
        let port = self
            .interface_id
            .and_then(|id| view.interfaces_of(self.node_id).iter().find(|i| i.id == id));
        json!({
            "id": self.id,
            "bus": self.bus,
            "bus_name": word(&BUSES, self.bus),
            "hardware_type": self.hardware_type,
            "hardware_type_name": hardware_name(self.hardware_type),
            "system_id": system_id,
            "numa_node": self.numa_index,
            "physical_blockdevice": disk.map(|d| storage.disk_json(system_id, d)),
            "physical_interface": port.map(|p| p.json(system_id, &view.around)),
            "vendor_id": self.vendor_id,
            "product_id": self.product_id,
            "vendor_name": self.vendor_name,
            "product_name": self.product_name,
            "commissioning_driver": self.commissioning_driver,
            "bus_number": self.bus_number,
            "device_number": self.device_number,
            "pci_address": self.pci_address,
            "resource_uri": format!("/MAAS/api/2.0/nodes/{system_id}/devices/{}/", self.id),
        })
    }
}

async fn of_node(tx: &mut Tx, node: &NodeRow) -> Result<Vec<Row>, ApiError> {
    Ok(store::all!(
        tx,
        Row,
        "SELECT id, node_id, bus, hardware_type, numa_index, block_device_id, interface_id, vendor_id, product_id, vendor_name, product_name, \
         commissioning_driver, bus_number, device_number, pci_address FROM node_device WHERE node_id = $1 \
         ORDER BY bus, bus_number, device_number, pci_address, id",
        node.id
    )?)
}

/// Every device of every node, to compare with.
///
/// # Errors
/// When the database fails.
pub async fn facts(tx: &mut Tx) -> Result<Vec<(i64, Device)>, ApiError> {
    let rows = store::all!(
        tx,
        (i64, i64, i64, String, String, String, String, String),
        "SELECT node_id, bus, hardware_type, vendor_id, product_id, vendor_name, product_name, commissioning_driver FROM node_device"
    )?;
    Ok(rows
        .into_iter()
        .map(
            |(node, bus, kind, vendor_id, product_id, vendor_name, product_name, driver)| {
                let device = Device {
                    bus: word(&BUSES, bus).to_ascii_lowercase(),
                    vendor_id,
                    product_id,
                    vendor_name,
                    product_name,
                    commissioning_driver: driver,
                    hardware_type: word(HARDWARE, kind).to_owned(),
                };
                (node, device)
            },
        )
        .collect())
}

/// The number that a word or a number stands for.
fn choice(call: &Call, name: &str, words: &[(&str, i64)]) -> Result<Option<i64>, ApiError> {
    let Some(text) = call.args().filled(name) else {
        return Ok(None);
    };
    let found = words
        .iter()
        .find(|(w, n)| w.eq_ignore_ascii_case(text) || n.to_string() == text);
    found.map(|(_, n)| Some(*n)).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ApiError::field(
            name,
            format!("Select a valid choice. {shown} is not one of the available choices."),
        )
    })
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let bus = choice(&call, "bus", &BUSES)?;
    let hardware = choice(&call, "hardware_type", HARDWARE)?;
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    let mut rows = of_node(&mut tx, &node).await?;
    let asked = |name: &str, has: &str| {
        call.args()
            .filled(name)
            .is_none_or(|v| v.eq_ignore_ascii_case(has))
    };
    rows.retain(|r| {
        bus.is_none_or(|b| b == r.bus)
            && hardware.is_none_or(|h| h == r.hardware_type)
            && asked("vendor_id", &r.vendor_id)
            && asked("product_id", &r.product_id)
            && asked("vendor_name", &r.vendor_name)
            && asked("product_name", &r.product_name)
            && asked("commissioning_driver", &r.commissioning_driver)
    });
    let nodes = [node];
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    Ok(Answer::json(
        rows.iter()
            .map(|r| r.json(&nodes[0].system_id, &view))
            .collect(),
    ))
}

async fn find(tx: &mut Tx, node: &NodeRow, id: &str) -> Result<Row, ApiError> {
    let named = |r: &Row| {
        id.parse() == Ok(r.id)
            || r.pci_address.as_deref() == Some(id)
            || format!("{}:{}", r.bus_number, r.device_number) == id
    };
    of_node(tx, node)
        .await?
        .into_iter()
        .find(named)
        .ok_or_else(|| ApiError::missing("NodeDevice"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    let device = find(&mut tx, &node, call.path("id")).await?;
    let nodes = [node];
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    Ok(Answer::json(device.json(&nodes[0].system_id, &view)))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let node = row::by_system_id(tx, call.actor(), call.path("system_id")).await?;
            let device = find(tx, &node, call.path("id")).await?;
            store::exec!(tx, "DELETE FROM node_device WHERE id = $1", device.id)?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

/// Keeps what commissioning found on the buses of a node: what is there already keeps its id, what is no
/// longer there goes.
///
/// # Errors
/// When the database fails.
pub async fn update(
    tx: &mut Tx,
    node: &NodeRow,
    found: &[BusDevice],
    now: Timestamp,
) -> Result<(), ApiError> {
    let disks: HashMap<String, i64> = store::all!(
        tx,
        (String, i64),
        "SELECT name, id FROM block_device WHERE node_id = $1 AND type = 'physical'",
        node.id
    )?
    .into_iter()
    .collect();
    let ports: HashMap<String, i64> = store::all!(
        tx,
        (String, i64),
        "SELECT mac, id FROM interface WHERE node_id = $1 AND type = 'physical' AND mac IS NOT NULL",
        node.id
    )?
    .into_iter()
    .collect();
    let mut had = of_node(tx, node).await?;
    for d in found {
        let disk = d.disk.as_ref().and_then(|n| disks.get(n)).copied();
        let port = d.mac.as_ref().and_then(|m| ports.get(m)).copied();
        let same = had.iter().position(|r| {
            r.bus == d.bus
                && r.bus_number == d.bus_number
                && r.device_number == d.device_number
                && r.pci_address == d.pci_address
        });
        match same {
            Some(at) => {
                let r = had.swap_remove(at);
                store::exec!(
                    tx,
                    "UPDATE node_device SET hardware_type = $2, numa_index = $3, block_device_id = $4, interface_id = $5, vendor_id = $6, \
                     product_id = $7, vendor_name = $8, product_name = $9, commissioning_driver = $10, updated = $11 WHERE id = $1",
                    r.id,
                    d.hardware_type,
                    d.numa,
                    disk,
                    port,
                    &d.vendor_id,
                    &d.product_id,
                    &d.vendor_name,
                    &d.product_name,
                    &d.driver,
                    now.0
                )?;
            }
            None => {
                store::exec!(
                    tx,
                    "INSERT INTO node_device (node_id, bus, hardware_type, numa_index, block_device_id, interface_id, vendor_id, product_id, \
                     vendor_name, product_name, commissioning_driver, bus_number, device_number, pci_address, created, updated) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)",
                    node.id,
                    d.bus,
                    d.hardware_type,
                    d.numa,
                    disk,
                    port,
                    &d.vendor_id,
                    &d.product_id,
                    &d.vendor_name,
                    &d.product_name,
                    &d.driver,
                    d.bus_number,
                    d.device_number,
                    &d.pci_address,
                    now.0
                )?;
            }
        }
    }
    for gone in had {
        store::exec!(tx, "DELETE FROM node_device WHERE id = $1", gone.id)?;
    }
    Ok(())
}
