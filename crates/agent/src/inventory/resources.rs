//! The document that commissioning stores.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::dmi::Dmi;
use super::live::Live;
use super::names::Ids;
use super::{cpu, memory, network, pci, storage, system, usb};
use crate::sys::Sys;

/// The extensions of LXD's resources API that the document contains, by their published names.
const API_EXTENSIONS: [&str; 19] = [
    "resources",
    "resources_v2",
    "resources_cpu_socket",
    "resources_gpu",
    "resources_numa",
    "resources_infiniband",
    "resources_disk_sata",
    "resources_usb_pci",
    "resources_cpu_threads_numa",
    "resources_cpu_core_die",
    "resources_system",
    "resources_network_firmware",
    "resources_disk_id",
    "resources_pci_iommu",
    "resources_network_usb",
    "resources_disk_address",
    "resources_cpu_isolated",
    "resources_network_vpd",
    "network_state",
];

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inventory {
    /// Processors.
    pub cpu: cpu::Cpu,
    /// Memory.
    pub memory: memory::Memory,
    /// Graphics cards.
    pub gpu: pci::Gpu,
    /// Network cards.
    pub network: network::Network,
    /// Disks.
    pub storage: storage::Storage,
    /// USB devices.
    pub usb: usb::Usb,
    /// PCI devices.
    pub pci: pci::Pci,
    /// The machine.
    pub system: system::System,
    /// State of the interfaces.
    #[serde(skip)]
    pub networks: Map<String, Value>,
    /// The tables that the firmware left.
    #[serde(skip)]
    pub dmi: Dmi,
}

/// Reads the machine.
#[must_use]
pub fn collect(sys: &Sys, live: &Live) -> Inventory {
    let dmi = Dmi::read(sys);
    let ids = Ids::read(sys, "pci.ids");
    let usb = usb::read(sys, &Ids::read(sys, "usb.ids"), &live.kernel_version);
    let pci = pci::read(sys, &ids, &live.kernel_version);
    Inventory {
        cpu: cpu::read(sys, &live.machine),
        memory: memory::read(sys, &dmi),
        gpu: pci::gpus(&pci),
        network: network::read(sys, &ids, &usb, &live.kernel_version),
        storage: storage::read(sys),
        system: system::read(sys, &dmi),
        networks: network::states(sys, &live.addresses),
        usb,
        pci,
        dmi,
    }
}

/// `KEY="value"` lines of `os-release`.
#[must_use]
pub fn os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|l| l.trim().split_once('='))
        .map(|(k, v)| (k.to_owned(), v.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

/// The document. `extra` adds members such as `storage-extra` and `machine-extra`.
#[must_use]
pub fn document(sys: &Sys, live: &Live, inventory: &Inventory, extra: Map<String, Value>) -> Value {
    let os = os_release(
        &sys.text("etc/os-release")
            .or_else(|| sys.text("usr/lib/os-release"))
            .unwrap_or_default(),
    );
    let os = |key: &str| os.get(key).cloned().unwrap_or_default();
    // A map of numbers, texts and lists always becomes JSON; a null here would be seen by the region's check of the result.
    let resources = serde_json::to_value(inventory).unwrap_or(Value::Null);
    let mut out = json!({
        "api_extensions": API_EXTENSIONS,
        "api_version": "1.0",
        "environment": {
            "kernel": live.kernel,
            "kernel_architecture": live.machine,
            "kernel_version": live.kernel_version,
            "os_name": os("NAME").to_lowercase(),
            "os_version": os("VERSION_ID"),
            "server": "steelyard-agent",
            "server_name": live.host_name,
            "server_version": env!("CARGO_PKG_VERSION"),
        },
        "resources": resources,
        "networks": inventory.networks,
    });
    if let Some(members) = out.as_object_mut() {
        members.extend(extra);
    }
    out
}
