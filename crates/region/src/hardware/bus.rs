//! The devices on the buses of a machine, out of the inventory.

use serde_json::Value;

use super::inventory::{int, list, text};

/// Most devices of one machine.
pub const MAX_DEVICES: usize = 4_096;
/// `bus` of PCI Express.
const PCIE: i64 = 1;
/// `bus` of USB.
const USB: i64 = 2;
/// Kinds of hardware, in the numbers of the API.
const NODE: i64 = 0;
const STORAGE: i64 = 3;
const NETWORK: i64 = 4;
const GPU: i64 = 5;

/// A device on a bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusDevice {
    /// 1 PCI Express, 2 USB.
    pub bus: i64,
    /// 0 node, 3 storage, 4 network, 5 graphics.
    pub hardware_type: i64,
    /// NUMA node.
    pub numa: i64,
    /// Name of the disk that it is.
    pub disk: Option<String>,
    /// Hardware address of the network port that it is.
    pub mac: Option<String>,
    /// Vendor, four hexadecimal digits.
    pub vendor_id: String,
    /// Product, four hexadecimal digits.
    pub product_id: String,
    /// Vendor in words.
    pub vendor_name: String,
    /// Product in words.
    pub product_name: String,
    /// Kernel driver in use.
    pub driver: String,
    /// Number of the bus.
    pub bus_number: i64,
    /// Number on the bus.
    pub device_number: i64,
    /// PCI address.
    pub pci_address: Option<String>,
}

/// Bus and device of an address such as `0000:3b:00.0`.
fn place(pci: &str) -> Option<(i64, i64)> {
    let mut parts = pci.rsplit(':');
    let (device, bus) = (parts.next()?, parts.next()?);
    let device = device.split('.').next()?;
    Some((
        i64::from_str_radix(bus, 16).ok()?,
        i64::from_str_radix(device, 16).ok()?,
    ))
}

/// What a device at an address is for: the disk or the port on it.
struct At<'a> {
    resources: &'a Value,
    key: &'static str,
}

impl At<'_> {
    fn disk(&self, address: &str) -> Option<String> {
        list(self.resources, "/storage/disks")
            .iter()
            .find(|d| text(d, self.key).as_deref() == Some(address))
            .and_then(|d| text(d, "id"))
    }

    fn mac(&self, address: &str) -> Option<String> {
        list(self.resources, "/network/cards")
            .iter()
            .find(|c| text(c, self.key).as_deref() == Some(address))
            .and_then(|c| list(c, "/ports").iter().find_map(|p| text(p, "address")))
            .map(|m| m.to_ascii_lowercase())
    }

    fn kind(&self, address: &str, disk: Option<&String>, mac: Option<&String>) -> i64 {
        let has = |path: &str| {
            list(self.resources, path)
                .iter()
                .any(|c| text(c, self.key).as_deref() == Some(address))
        };
        if has("/gpu/cards") {
            GPU
        } else if mac.is_some() || has("/network/cards") {
            NETWORK
        } else if disk.is_some() {
            STORAGE
        } else {
            NODE
        }
    }
}

/// What is on the buses: those devices that say where they are and what they are.
#[must_use]
pub fn devices(resources: &Value) -> Vec<BusDevice> {
    let mut out = Vec::new();
    let ids = |d: &Value| Some((text(d, "vendor_id")?, text(d, "product_id")?));
    for d in list(resources, "/pci/devices") {
        let Some(address) = text(d, "pci_address") else {
            continue;
        };
        let (Some((vendor_id, product_id)), Some((bus_number, device_number))) =
            (ids(d), place(&address))
        else {
            continue;
        };
        let at = At {
            resources,
            key: "pci_address",
        };
        let (disk, mac) = (at.disk(&address), at.mac(&address));
        out.push(BusDevice {
            bus: PCIE,
            hardware_type: at.kind(&address, disk.as_ref(), mac.as_ref()),
            numa: int(d, "numa_node").unwrap_or(0),
            disk,
            mac,
            vendor_id,
            product_id,
            vendor_name: text(d, "vendor").unwrap_or_default(),
            product_name: text(d, "product").unwrap_or_default(),
            driver: text(d, "driver").unwrap_or_default(),
            bus_number,
            device_number,
            pci_address: Some(address),
        });
    }
    for d in list(resources, "/usb/devices") {
        let (Some(bus_number), Some(device_number)) =
            (int(d, "bus_address"), int(d, "device_address"))
        else {
            continue;
        };
        let Some((vendor_id, product_id)) = ids(d) else {
            continue;
        };
        let address = format!("{bus_number}:{device_number}");
        let at = At {
            resources,
            key: "usb_address",
        };
        let (disk, mac) = (at.disk(&address), at.mac(&address));
        out.push(BusDevice {
            bus: USB,
            hardware_type: at.kind(&address, disk.as_ref(), mac.as_ref()),
            numa: 0,
            disk,
            mac,
            vendor_id,
            product_id,
            vendor_name: text(d, "vendor").unwrap_or_default(),
            product_name: text(d, "product").unwrap_or_default(),
            driver: list(d, "/interfaces")
                .iter()
                .find_map(|i| text(i, "driver"))
                .unwrap_or_default(),
            bus_number,
            device_number,
            pci_address: None,
        });
    }
    out.truncate(MAX_DEVICES);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_is_what_hangs_on_it() {
        let found = devices(&json!({
            "pci": { "devices": [
                { "pci_address": "0000:3b:1f.0", "vendor_id": "10de", "product_id": "1eb8", "driver": "nvidia", "numa_node": 1 },
                { "pci_address": "0000:00:03.0", "vendor_id": "1af4", "product_id": "1041", "vendor": "V" },
                { "pci_address": "0000:00:04.0", "vendor_id": "1af4", "product_id": "1042" },
                { "pci_address": "nowhere", "vendor_id": "1af4", "product_id": "1042" },
                { "pci_address": "0000:00:05.0" },
            ] },
            "usb": { "devices": [{ "bus_address": 1, "device_address": 4, "vendor_id": "174c", "product_id": "07d1",
                "interfaces": [{ "driver": "" }, { "driver": "uas" }] }] },
            "gpu": { "cards": [{ "pci_address": "0000:3b:1f.0" }] },
            "network": { "cards": [{ "pci_address": "0000:00:03.0", "ports": [{ "address": "52:54:00:AA:00:01" }] }] },
            "storage": { "disks": [{ "id": "vda", "pci_address": "0000:00:04.0" }, { "id": "sdb", "usb_address": "1:4" }] },
        }));
        let seen: Vec<_> = found
            .iter()
            .map(|d| {
                (
                    d.bus,
                    d.hardware_type,
                    d.bus_number,
                    d.device_number,
                    d.disk.as_deref(),
                    d.mac.as_deref(),
                    d.driver.as_str(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (PCIE, GPU, 0x3b, 0x1f, None, None, "nvidia"),
                (PCIE, NETWORK, 0, 3, None, Some("52:54:00:aa:00:01"), ""),
                (PCIE, STORAGE, 0, 4, Some("vda"), None, ""),
                (USB, STORAGE, 1, 4, Some("sdb"), None, "uas"),
            ]
        );
        assert!(devices(&Value::Null).is_empty());
    }
}
