//! The machine as a whole: maker, product, firmware, chassis, board, and whether it is virtual.

use serde::Serialize;

use super::dmi::Dmi;
use crate::sys::Sys;

/// The machine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct System {
    /// SMBIOS UUID, lower case.
    pub uuid: String,
    /// Maker.
    pub vendor: String,
    /// Product.
    pub product: String,
    /// Product family.
    pub family: String,
    /// Version.
    pub version: String,
    /// Stock keeping unit.
    pub sku: String,
    /// Serial number.
    pub serial: String,
    /// `physical`, `virtual-machine` or `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Firmware.
    pub firmware: Firmware,
    /// Chassis.
    pub chassis: Chassis,
    /// Board.
    pub motherboard: Motherboard,
}

/// Firmware.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Firmware {
    /// Maker.
    pub vendor: String,
    /// Release date, as the firmware writes it.
    pub date: String,
    /// Version.
    pub version: String,
}

/// Chassis.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Chassis {
    /// Maker.
    pub vendor: String,
    /// Kind, in words.
    #[serde(rename = "type")]
    pub kind: String,
    /// Serial number.
    pub serial: String,
    /// Version.
    pub version: String,
}

/// Board.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Motherboard {
    /// Maker.
    pub vendor: String,
    /// Product.
    pub product: String,
    /// Serial number.
    pub serial: String,
    /// Version.
    pub version: String,
}

/// Chassis types (DSP0134 §7.4.1) that servers have; others keep their number.
fn chassis_type(number: i64) -> String {
    let name = match number {
        1 => "Other",
        2 => "Unknown",
        3 => "Desktop",
        4 => "Low Profile Desktop",
        5 => "Pizza Box",
        6 => "Mini Tower",
        7 => "Tower",
        8 => "Portable",
        9 => "Laptop",
        10 => "Notebook",
        11 => "Hand Held",
        12 => "Docking Station",
        13 => "All In One",
        14 => "Sub Notebook",
        15 => "Space-saving",
        16 => "Lunch Box",
        17 => "Main Server Chassis",
        18 => "Expansion Chassis",
        19 => "Sub Chassis",
        20 => "Bus Expansion Chassis",
        21 => "Peripheral Chassis",
        22 => "RAID Chassis",
        23 => "Rack Mount Chassis",
        24 => "Sealed-case PC",
        25 => "Multi-system Chassis",
        26 => "Compact PCI",
        27 => "Advanced TCA",
        28 => "Blade",
        29 => "Blade Enclosure",
        30 => "Tablet",
        31 => "Convertible",
        32 => "Detachable",
        33 => "IoT Gateway",
        34 => "Embedded PC",
        35 => "Mini PC",
        36 => "Stick PC",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// Makers and products that exist only as software.
const VIRTUAL: [&str; 14] = [
    "QEMU",
    "KVM",
    "VMware",
    "VirtualBox",
    "innotek",
    "Xen",
    "Bochs",
    "Parallels",
    "BHYVE",
    "Virtual Machine",
    "OpenStack",
    "Google Compute Engine",
    "Amazon EC2",
    "Apple Virtualization",
];

fn kind(sys: &Sys, told: &[&str]) -> &'static str {
    if sys.exists("run/systemd/container") || sys.exists(".dockerenv") {
        return "container";
    }
    let virtual_name = told.iter().any(|t| VIRTUAL.iter().any(|v| t.contains(v)));
    let hypervisor = sys.exists("sys/hypervisor/type")
        || sys.text("proc/cpuinfo").is_some_and(|c| {
            c.lines()
                .any(|l| l.starts_with("flags") && l.split(' ').any(|f| f == "hypervisor"))
        });
    // Metal of a cloud reports the cloud's name, but has no hypervisor below it.
    if hypervisor || (virtual_name && !told.iter().any(|t| t.contains(".metal"))) {
        "virtual-machine"
    } else {
        "physical"
    }
}

/// Reads the machine.
#[must_use]
pub fn read(sys: &Sys, dmi: &Dmi) -> System {
    let get = |file: &str, structure: u8, offset: usize| {
        let told = sys
            .text(format!("sys/class/dmi/id/{file}"))
            .or_else(|| dmi.string(structure, offset));
        told.unwrap_or_default()
    };
    let mut out = System {
        uuid: sys
            .text("sys/class/dmi/id/product_uuid")
            .or_else(|| dmi.uuid())
            .unwrap_or_default()
            .to_lowercase(),
        vendor: get("sys_vendor", 1, 4),
        product: get("product_name", 1, 5),
        version: get("product_version", 1, 6),
        serial: get("product_serial", 1, 7),
        sku: get("product_sku", 1, 0x19),
        family: get("product_family", 1, 0x1a),
        kind: String::new(),
        firmware: Firmware {
            vendor: get("bios_vendor", 0, 4),
            version: get("bios_version", 0, 5),
            date: get("bios_date", 0, 8),
        },
        chassis: Chassis {
            vendor: get("chassis_vendor", 3, 4),
            version: get("chassis_version", 3, 6),
            serial: get("chassis_serial", 3, 7),
            kind: sys
                .number("sys/class/dmi/id/chassis_type")
                // Bit 7 says that the chassis can be locked.
                .or_else(|| dmi.first(3)?.byte(5).map(|b| i64::from(b & 0x7f)))
                .map(chassis_type)
                .unwrap_or_default(),
        },
        motherboard: Motherboard {
            vendor: get("board_vendor", 2, 4),
            product: get("board_name", 2, 5),
            version: get("board_version", 2, 6),
            serial: get("board_serial", 2, 7),
        },
    };
    if out.product.is_empty() {
        // Machines without SMBIOS have a device tree.
        out.product = sys.text("proc/device-tree/model").unwrap_or_default();
    }
    out.kind = kind(
        sys,
        &[
            &out.vendor,
            &out.product,
            &out.version,
            &out.firmware.vendor,
            &out.motherboard.vendor,
        ],
    )
    .to_owned();
    out
}
