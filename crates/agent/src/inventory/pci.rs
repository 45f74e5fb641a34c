//! PCI devices, and among them the graphics cards.

use serde::Serialize;

use super::names::Ids;
use crate::block::numa_node;
use crate::sys::{Sys, is_pci_address};

/// All PCI devices.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pci {
    /// In order of their addresses.
    pub devices: Vec<Device>,
    /// How many.
    pub total: u64,
}

/// Graphics cards.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Gpu {
    /// In order of their addresses.
    pub cards: Vec<Device>,
    /// How many.
    pub total: u64,
}

/// A PCI device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Driver in use.
    pub driver: String,
    /// Its version; the kernel's own where it has none.
    pub driver_version: String,
    /// NUMA node.
    pub numa_node: u32,
    /// Address.
    pub pci_address: String,
    /// Vendor's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// Vendor's id, four digits.
    pub vendor_id: String,
    /// Product's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product: String,
    /// Product's id, four digits.
    pub product_id: String,
    /// IOMMU group.
    pub iommu_group: u64,
    /// Vital product data, which is not read.
    pub vpd: Vpd,
    /// Class code, six digits as a number; not part of the resources document.
    #[serde(skip)]
    pub class: u32,
}

/// Vital product data (PCI 3.0 appendix I): always empty here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vpd {}

/// A driver and its version, from the `driver` link of a device.
#[must_use]
pub fn driver(sys: &Sys, device: &str, kernel_version: &str) -> (String, String) {
    match sys.link_name(format!("{device}/driver")) {
        None => (String::new(), String::new()),
        Some(name) => {
            let version = sys
                .text(format!("sys/module/{name}/version"))
                .or_else(|| sys.text(format!("{device}/driver/module/version")));
            (name, version.unwrap_or_else(|| kernel_version.to_owned()))
        }
    }
}

/// One device by its address.
#[must_use]
pub fn device(sys: &Sys, address: &str, ids: &Ids, kernel_version: &str) -> Option<Device> {
    let dir = format!("sys/bus/pci/devices/{address}");
    let vendor = u16::try_from(sys.hex(format!("{dir}/vendor"))?).ok()?;
    let product = u16::try_from(sys.hex(format!("{dir}/device"))?).ok()?;
    let udev = sys.udev(&format!("+pci:{address}"));
    let (driver, driver_version) = driver(sys, &dir, kernel_version);
    let name = |key: &str, list: Option<&str>| {
        udev.get(key)
            .cloned()
            .or_else(|| list.map(str::to_owned))
            .unwrap_or_default()
    };
    Some(Device {
        driver,
        driver_version,
        numa_node: numa_node(sys, &sys.resolve(&dir).unwrap_or_default()),
        pci_address: address.to_owned(),
        vendor: name("ID_VENDOR_FROM_DATABASE", ids.vendor(vendor)),
        vendor_id: format!("{vendor:04x}"),
        product: name("ID_MODEL_FROM_DATABASE", ids.product(vendor, product)),
        product_id: format!("{product:04x}"),
        iommu_group: sys
            .link_name(format!("{dir}/iommu_group"))
            .and_then(|n| n.parse().ok())
            .unwrap_or(0),
        vpd: Vpd {},
        class: sys
            .hex(format!("{dir}/class"))
            .and_then(|c| u32::try_from(c).ok())
            .unwrap_or(0),
    })
}

/// Reads all devices.
#[must_use]
pub fn read(sys: &Sys, ids: &Ids, kernel_version: &str) -> Pci {
    let addresses = sys
        .list("sys/bus/pci/devices")
        .into_iter()
        .filter(|a| is_pci_address(a));
    let mut devices: Vec<Device> = addresses
        .filter_map(|a| device(sys, &a, ids, kernel_version))
        .collect();
    devices.sort_by(|a, b| a.pci_address.cmp(&b.pci_address));
    Pci {
        total: devices.len() as u64,
        devices,
    }
}

/// The graphics cards among them: display controllers, class 03.
#[must_use]
pub fn gpus(pci: &Pci) -> Gpu {
    let cards: Vec<Device> = pci
        .devices
        .iter()
        .filter(|d| d.class >> 16 == 0x03)
        .cloned()
        .collect();
    Gpu {
        total: cards.len() as u64,
        cards,
    }
}
