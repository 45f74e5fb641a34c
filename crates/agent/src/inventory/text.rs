//! The small text reports of commissioning.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use super::Inventory;
use crate::sys::Sys;

/// Directories visited below `/sys/devices` at most.
const DIRS_MAX: usize = 200_000;

/// Every modalias of every device, sorted, each once.
#[must_use]
pub fn modaliases(sys: &Sys) -> String {
    let mut found = BTreeSet::new();
    let mut todo: Vec<PathBuf> = vec![PathBuf::from("sys/devices")];
    let mut visited = 0;
    while let Some(dir) = todo.pop() {
        visited += 1;
        if visited > DIRS_MAX {
            break;
        }
        let Ok(entries) = std::fs::read_dir(sys.path(&dir)) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                todo.push(dir.join(entry.file_name()));
            } else if kind.is_file() && entry.file_name() == "modalias" {
                found.extend(sys.text(dir.join("modalias")));
            }
        }
    }
    let mut out = found.into_iter().collect::<Vec<_>>().join("\n");
    out.push('\n');
    out
}

/// The kernel's options, as they are.
#[must_use]
pub fn kernel_options(sys: &Sys) -> String {
    format!("{}\n", sys.text("proc/cmdline").unwrap_or_default())
}

/// Serial ports that have hardware behind them.
#[must_use]
pub fn serial_ports(sys: &Sys) -> String {
    let mut out = String::new();
    for name in sys.list("sys/class/tty") {
        let dir = format!("sys/class/tty/{name}");
        // A port the driver only reserved has type 0, PORT_UNKNOWN.
        if !sys.exists(format!("{dir}/device")) || sys.number(format!("{dir}/type")) == Some(0) {
            continue;
        }
        let driver = sys
            .link_name(format!("{dir}/device/driver"))
            .unwrap_or_else(|| "-".to_owned());
        let port = sys
            .text(format!("{dir}/port"))
            .unwrap_or_else(|| "-".to_owned());
        let irq = sys
            .text(format!("{dir}/irq"))
            .unwrap_or_else(|| "-".to_owned());
        // A String takes every write.
        writeln!(out, "/dev/{name} driver={driver} port={port} irq={irq}").ok();
    }
    if out.is_empty() {
        out.push_str("no serial ports\n");
    }
    out
}

fn table(out: &mut String, title: &str, rows: impl IntoIterator<Item = String>) {
    out.push_str(&format!("== {title} ==\n"));
    for row in rows {
        out.push_str(&row);
        out.push('\n');
    }
    out.push('\n');
}

/// What support asks first: maker, firmware, processors, memory slots, PCI, disks, modules, kernel messages of the machine.
#[must_use]
pub fn support_info(sys: &Sys, inventory: &Inventory) -> String {
    let s = &inventory.system;
    let mut out = String::new();
    table(
        &mut out,
        "System",
        [
            format!("vendor: {}", s.vendor),
            format!("product: {} {}", s.product, s.version),
            format!("serial: {}", s.serial),
            format!("uuid: {}", s.uuid),
            format!("type: {}", s.kind),
            format!("board: {} {}", s.motherboard.vendor, s.motherboard.product),
            format!(
                "firmware: {} {} ({})",
                s.firmware.vendor, s.firmware.version, s.firmware.date
            ),
            format!(
                "boot: {}",
                if sys.exists("sys/firmware/efi") {
                    "UEFI"
                } else {
                    "BIOS or other"
                }
            ),
        ],
    );
    table(
        &mut out,
        "Processors",
        inventory.cpu.sockets.iter().map(|c| {
            let threads: usize = c.cores.iter().map(|c| c.threads.len()).sum();
            format!(
                "socket {}: {} {}, {} cores, {threads} threads",
                c.socket,
                c.vendor,
                c.name,
                c.cores.len()
            )
        }),
    );
    let slots = inventory.dmi.memory();
    table(
        &mut out,
        "Memory",
        std::iter::once(format!("total: {} MiB", inventory.memory.total >> 20)).chain(
            slots.iter().map(|m| {
                format!(
                    "{}: {} MiB {} {}",
                    m.slot,
                    m.size >> 20,
                    m.kind,
                    m.product.as_deref().unwrap_or("-")
                )
            }),
        ),
    );
    table(
        &mut out,
        "PCI",
        inventory.pci.devices.iter().map(|d| {
            format!(
                "{} [{:06x}] {}:{} {} {} driver={}",
                d.pci_address, d.class, d.vendor_id, d.product_id, d.vendor, d.product, d.driver
            )
        }),
    );
    table(
        &mut out,
        "USB",
        inventory.usb.devices.iter().map(|d| {
            format!(
                "{}:{} {}:{} {} {}",
                d.bus_address, d.device_address, d.vendor_id, d.product_id, d.vendor, d.product
            )
        }),
    );
    table(
        &mut out,
        "Disks",
        inventory.storage.disks.iter().flat_map(|d| {
            let whole = format!(
                "{} {} {} bytes model={} serial={} {}",
                d.id, d.kind, d.size, d.model, d.serial, d.device_path
            );
            std::iter::once(whole).chain(
                d.partitions
                    .iter()
                    .map(|p| format!("  {} {} bytes", p.id, p.size)),
            )
        }),
    );
    table(
        &mut out,
        "Network",
        inventory.network.cards.iter().flat_map(|c| {
            c.ports.iter().map(move |p| {
                format!(
                    "{} {} driver={} link={} speed={}",
                    p.id,
                    p.address,
                    c.driver,
                    p.link_detected,
                    p.link_speed.unwrap_or(0)
                )
            })
        }),
    );
    let modules = sys.text("proc/modules").unwrap_or_default();
    table(
        &mut out,
        "Modules",
        modules
            .lines()
            .filter_map(|l| l.split(' ').next())
            .map(str::to_owned),
    );
    out
}
