//! USB devices.

use serde::Serialize;

use super::names::Ids;
use super::pci::driver;
use crate::sys::Sys;

/// The class of hubs (USB 2.0 §11.23.1).
const HUB: u64 = 9;

/// All USB devices that are not hubs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Usb {
    /// In order of their places.
    pub devices: Vec<Device>,
    /// How many.
    pub total: u64,
}

/// A USB device.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Device {
    /// Number of the bus.
    pub bus_address: u64,
    /// Number on the bus.
    pub device_address: u64,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Vendor's name.
    pub vendor: String,
    /// Vendor's id, four digits.
    pub vendor_id: String,
    /// Product's name.
    pub product: String,
    /// Product's id, four digits.
    pub product_id: String,
    /// Mbit/s.
    pub speed: f64,
    /// Serial number; not part of the resources document.
    #[serde(skip)]
    pub serial: Option<String>,
}

/// An interface of a USB device.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Interface {
    /// Class in words.
    pub class: String,
    /// Class.
    pub class_id: u64,
    /// Driver in use.
    pub driver: String,
    /// Its version.
    pub driver_version: String,
    /// Its number.
    pub number: u64,
    /// Subclass in words: the same as its number, there is no list.
    pub subclass: String,
    /// Subclass.
    pub subclass_id: u64,
}

/// Class codes as the USB-IF assigns them.
fn class_name(class: u64) -> &'static str {
    match class {
        0x01 => "Audio",
        0x02 => "Communications",
        0x03 => "Human Interface Device",
        0x06 => "Imaging",
        0x07 => "Printer",
        0x08 => "Mass Storage",
        0x09 => "Hub",
        0x0a => "CDC Data",
        0x0b => "Chip/SmartCard",
        0x0e => "Video",
        0xe0 => "Wireless",
        0xef => "Miscellaneous Device",
        0xff => "Vendor Specific Class",
        _ => "",
    }
}

/// Reads all devices.
#[must_use]
pub fn read(sys: &Sys, ids: &Ids, kernel_version: &str) -> Usb {
    let names = sys.list("sys/bus/usb/devices");
    let mut devices = Vec::new();
    for name in names.iter().filter(|n| !n.contains(':')) {
        let dir = format!("sys/bus/usb/devices/{name}");
        let hex = |file: &str| sys.hex(format!("{dir}/{file}"));
        let (Some(vendor), Some(product)) = (hex("idVendor"), hex("idProduct")) else {
            continue;
        };
        if hex("bDeviceClass") == Some(HUB) {
            continue;
        }
        let number = |file: &str| {
            sys.number(format!("{dir}/{file}"))
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or(0)
        };
        let (vendor, product) = (vendor as u16, product as u16);
        let text = |file: &str, list: Option<&str>| {
            list.map(str::to_owned)
                .or_else(|| sys.text(format!("{dir}/{file}")))
                .unwrap_or_default()
        };
        let interfaces = names
            .iter()
            .filter(|n| {
                n.strip_prefix(name.as_str())
                    .is_some_and(|r| r.starts_with(':'))
            })
            .map(|n| {
                let dir = format!("sys/bus/usb/devices/{n}");
                let hex = |file: &str| sys.hex(format!("{dir}/{file}")).unwrap_or(0);
                let (driver, driver_version) = driver(sys, &dir, kernel_version);
                let subclass_id = hex("bInterfaceSubClass");
                Interface {
                    class: class_name(hex("bInterfaceClass")).to_owned(),
                    class_id: hex("bInterfaceClass"),
                    driver,
                    driver_version,
                    number: hex("bInterfaceNumber"),
                    subclass: subclass_id.to_string(),
                    subclass_id,
                }
            });
        devices.push(Device {
            bus_address: number("busnum"),
            device_address: number("devnum"),
            interfaces: interfaces.collect(),
            vendor: text("manufacturer", ids.vendor(vendor)),
            vendor_id: format!("{vendor:04x}"),
            product: text("product", ids.product(vendor, product)),
            product_id: format!("{product:04x}"),
            speed: sys
                .text(format!("{dir}/speed"))
                .and_then(|s| s.parse().ok())
                .unwrap_or(0.0),
            serial: sys.text(format!("{dir}/serial")),
        });
    }
    Usb {
        total: devices.len() as u64,
        devices,
    }
}
