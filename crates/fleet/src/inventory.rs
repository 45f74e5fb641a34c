//! What scripts print about a simulated machine: the inventory in the published shape, lshw's XML, and a
//! line for everything else.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::hardware::{Hardware, PRODUCT, VENDOR};

const KERNEL: &str = "6.8.0-simulated";
const FIRMWARE_DATE: &str = "01/01/2026";
/// The kernel's alignment of partitions; sector size of all disks.
const BLOCK: u32 = 512;

/// The output of a script.
#[must_use]
pub fn output(script: &str, hardware: &Hardware, address: Ipv4Addr, cmdline: &str) -> String {
    match script {
        "50-maas-01-commissioning" => pretty(&document(hardware, address)),
        "20-maas-03-machine-resources" => pretty(&json!({ "resources": resources(hardware) })),
        "40-maas-01-machine-config-hints" => pretty(&json!({ "platform": "generic", "tags": [] })),
        "maas-lshw" => lshw(hardware),
        "maas-list-modaliases" => modaliases(hardware),
        "maas-kernel-cmdline" => format!("{cmdline}\n"),
        "maas-serial-ports" => {
            "serinfo:1.0 driver revision:\n0: uart:16550A port:000003F8 irq:4 (simulated)\n".into()
        }
        _ => format!(
            "{script}: nothing was run, {} is a simulated machine\n",
            hardware.hostname
        ),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The document of `50-maas-01-commissioning`.
#[must_use]
pub fn document(hardware: &Hardware, address: Ipv4Addr) -> Value {
    json!({
        "api_extensions": ["resources", "resources_v2", "resources_numa", "resources_disk_id", "resources_system", "network_state"],
        "api_version": "1.0",
        "environment": {
            "kernel": "Linux", "kernel_architecture": "x86_64", "kernel_version": KERNEL, "os_name": "simulated", "os_version": "1",
            "server": "steelyard-fleet", "server_name": hardware.hostname, "server_version": env!("CARGO_PKG_VERSION"),
        },
        "resources": resources(hardware),
        "networks": networks(hardware, address),
    })
}

fn resources(h: &Hardware) -> Value {
    json!({
        "cpu": cpu(h),
        "memory": {
            "nodes": (0..h.sockets).map(|n| json!({
                "numa_node": n, "hugepages_used": 0, "hugepages_total": 0, "used": 0, "total": h.memory / u64::from(h.sockets),
            })).collect::<Vec<_>>(),
            "hugepages_size": 2 << 20, "hugepages_total": 0, "hugepages_used": 0, "used": 0, "total": h.memory,
        },
        "gpu": { "cards": [], "total": 0 },
        "network": network(h),
        "storage": storage(h),
        "usb": { "devices": [], "total": 0 },
        "pci": pci(h),
        "system": {
            "uuid": h.uuid, "vendor": VENDOR, "product": PRODUCT, "family": "Simulated", "version": "1", "sku": "SIM-1",
            "serial": h.serial, "type": "physical",
            "firmware": { "vendor": VENDOR, "date": FIRMWARE_DATE, "version": "1.0 (simulated)" },
            "chassis": { "vendor": VENDOR, "type": "Rack Mount Chassis", "serial": format!("{}-C", h.serial), "version": "1" },
            "motherboard": { "vendor": VENDOR, "product": "Simulated board", "serial": format!("{}-B", h.serial), "version": "1" },
        },
    })
}

fn cpu(h: &Hardware) -> Value {
    let ghz = f64::from(h.mhz) / 1_000.0;
    let socket = |s: u32| {
        let core = |c: u32| {
            let thread = |t: u32| json!({ "id": (s * h.cores + c) * h.threads + t, "thread": t, "numa_node": s, "isolated": false, "online": true });
            json!({ "core": c, "die": 0, "frequency": h.mhz, "threads": (0..h.threads).map(thread).collect::<Vec<_>>() })
        };
        json!({
            "name": format!("Steelyard Simulated CPU @ {ghz:.2}GHz"), "vendor": "Steelyard", "socket": s, "frequency": h.mhz,
            "frequency_minimum": 800, "frequency_turbo": h.mhz, "cores": (0..h.cores).map(core).collect::<Vec<_>>(),
            "cache": [{ "level": 1, "type": "Data", "size": 32 << 10 }, { "level": 3, "type": "Unified", "size": 16 << 20 }],
        })
    };
    json!({ "architecture": "x86_64", "sockets": (0..h.sockets).map(socket).collect::<Vec<_>>(), "total": h.cpu_count() })
}

fn network(h: &Hardware) -> Value {
    let cards = h.nics.iter().enumerate().map(|(n, nic)| {
        let modes: Vec<String> = [1_000, 10_000, 25_000].iter().filter(|s| **s <= nic.speed).map(|s| format!("{s}baseT/Full")).collect();
        json!({
            "driver": "simnet", "driver_version": KERNEL, "numa_node": 0, "pci_address": nic.pci, "vendor": VENDOR, "vendor_id": "1af4",
            "product": "Simulated network card", "product_id": "1041", "firmware_version": "1.0",
            "ports": [{
                "id": nic.name, "address": nic.mac.to_string(), "port": 0, "protocol": "ethernet", "supported_modes": modes,
                "supported_ports": ["twisted pair"], "port_type": "twisted pair", "transceiver_type": "internal", "auto_negotiation": true,
                // The port that booted has a cable, and every other second one.
                "link_detected": n % 2 == 0, "link_speed": if n % 2 == 0 { nic.speed } else { 0 }, "link_duplex": "full",
            }],
        })
    });
    json!({ "cards": cards.collect::<Vec<_>>(), "total": h.nics.len() })
}

fn storage(h: &Hardware) -> Value {
    let disks = h.disks.iter().enumerate().map(|(n, d)| {
        json!({
            "id": d.name, "device": format!("8:{}", n * 16), "model": d.model, "type": "sata", "read_only": false, "size": d.size,
            "removable": false, "numa_node": 0, "device_path": format!("pci-0000:00:1f.2-ata-{}", n + 1), "block_size": BLOCK,
            "firmware_version": "1.0", "rpm": d.rpm, "serial": d.serial, "device_id": format!("ata-{}_{}", d.model.replace(' ', "_"), d.serial),
            "partitions": [], "pci_address": "0000:00:1f.2",
        })
    });
    json!({ "disks": disks.collect::<Vec<_>>(), "total": h.disks.len() })
}

fn pci(h: &Hardware) -> Value {
    let cards = h.nics.iter().map(|nic| {
        json!({
            "driver": "simnet", "driver_version": KERNEL, "numa_node": 0, "pci_address": nic.pci, "vendor": VENDOR, "vendor_id": "1af4",
            "product": "Simulated network card", "product_id": "1041", "iommu_group": 0,
        })
    });
    let devices: Vec<Value> = cards.collect();
    json!({ "total": devices.len(), "devices": devices })
}

fn networks(h: &Hardware, address: Ipv4Addr) -> Value {
    let none = Value::Null;
    let of = |(n, nic): (usize, &crate::hardware::Nic)| {
        let addresses = if n == 0 {
            json!([{ "family": "inet", "address": address.to_string(), "netmask": "24", "scope": "global" }])
        } else {
            json!([])
        };
        let state = json!({
            "addresses": addresses, "hwaddr": nic.mac.to_string(), "host_name": "", "mtu": 1500, "state": if n % 2 == 0 { "up" } else { "down" },
            "type": "broadcast", "bond": none, "bridge": none, "vlan": none, "ovn": none,
            "counters": { "bytes_received": 0, "bytes_sent": 0, "packets_received": 0, "packets_sent": 0 },
        });
        (nic.name.clone(), state)
    };
    Value::Object(h.nics.iter().enumerate().map(of).collect())
}

fn modaliases(h: &Hardware) -> String {
    let mut out =
        format!("dmi:bvn{VENDOR}:bvr1.0:bd{FIRMWARE_DATE}:svn{VENDOR}:pnSimulatedmachine:pvr1:\n");
    for _ in &h.nics {
        out.push_str("pci:v00001AF4d00001041sv00001AF4sd00001041bc02sc00i00\n");
    }
    out
}

/// The inventory in lshw's vocabulary. Every text in it is made here, and none needs escaping.
fn lshw(h: &Hardware) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" standalone=\"yes\" ?>\n<list>\n<node id=\"{}\" claimed=\"true\" class=\"system\" handle=\"DMI:0001\">\n \
         <description>Rack Mount Chassis</description>\n <product>{PRODUCT}</product>\n <vendor>{VENDOR}</vendor>\n <version>1</version>\n \
         <serial>{}</serial>\n <width units=\"bits\">64</width>\n <configuration>\n  <setting id=\"uuid\" value=\"{}\" />\n </configuration>\n \
         <node id=\"core\" claimed=\"true\" class=\"bus\" handle=\"DMI:0002\">\n  <description>Motherboard</description>\n  \
         <product>Simulated board</product>\n  <vendor>{VENDOR}</vendor>\n  \
         <node id=\"memory\" claimed=\"true\" class=\"memory\">\n   <description>System Memory</description>\n   <size units=\"bytes\">{}</size>\n  </node>\n",
        h.hostname, h.serial, h.uuid, h.memory
    );
    let numbered = |name: &str, n: u32, of: u32| {
        if of > 1 {
            format!("{name}:{n}")
        } else {
            name.to_owned()
        }
    };
    // A String takes every write.
    for s in 0..h.sockets {
        write!(
            out,
            "  <node id=\"{}\" claimed=\"true\" class=\"processor\">\n   <product>Steelyard Simulated CPU</product>\n   <vendor>{VENDOR}</vendor>\n   \
             <size units=\"Hz\">{}000000</size>\n   <configuration>\n    <setting id=\"cores\" value=\"{}\" />\n    \
             <setting id=\"threads\" value=\"{}\" />\n   </configuration>\n  </node>\n",
            numbered("cpu", s, h.sockets),
            h.mhz,
            h.cores,
            h.cores * h.threads
        )
        .ok();
    }
    for (n, nic) in (0..).zip(&h.nics) {
        write!(
            out,
            "  <node id=\"{}\" claimed=\"true\" class=\"network\">\n   <product>Simulated network card</product>\n   <vendor>{VENDOR}</vendor>\n   \
             <businfo>pci@{}</businfo>\n   <logicalname>{}</logicalname>\n   <serial>{}</serial>\n   <capacity>{}000000</capacity>\n  </node>\n",
            numbered("network", n, h.nics.len() as u32),
            nic.pci,
            nic.name,
            nic.mac,
            nic.speed
        )
        .ok();
    }
    for (n, disk) in (0..).zip(&h.disks) {
        write!(
            out,
            "  <node id=\"{}\" claimed=\"true\" class=\"disk\">\n   <product>{}</product>\n   <logicalname>/dev/{}</logicalname>\n   \
             <serial>{}</serial>\n   <size units=\"bytes\">{}</size>\n  </node>\n",
            numbered("disk", n, h.disks.len() as u32),
            disk.model,
            disk.name,
            disk.serial,
            disk.size
        )
        .ok();
    }
    out.push_str(" </node>\n</node>\n</list>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Firmware;

    #[test]
    fn the_inventory_says_what_the_machine_is_made_of_and_that_it_is_simulated() {
        for i in 0..50 {
            let h = Hardware::draw(1, i, Firmware::Bios);
            let address = Ipv4Addr::new(10, 0, 0, 9);
            let text = output("50-maas-01-commissioning", &h, address, "");
            let d: Value = serde_json::from_str(&text).unwrap();
            let threads: usize = d["resources"]["cpu"]["sockets"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|s| s["cores"].as_array().unwrap())
                .map(|c| c["threads"].as_array().unwrap().len())
                .sum();
            assert_eq!(threads as u32, h.cpu_count());
            assert_eq!(d["resources"]["memory"]["total"], h.memory);
            assert_eq!(
                d["resources"]["storage"]["disks"].as_array().unwrap().len(),
                h.disks.len()
            );
            assert_eq!(
                d["resources"]["network"]["cards"][0]["ports"][0]["address"],
                h.mac().to_string()
            );
            assert_eq!(
                d["networks"][&h.nics[0].name]["addresses"][0]["address"],
                "10.0.0.9"
            );
            assert_eq!(
                (
                    d["resources"]["system"]["vendor"].as_str(),
                    d["resources"]["system"]["product"].as_str()
                ),
                (Some(VENDOR), Some(PRODUCT))
            );
            let xml = output("maas-lshw", &h, address, "");
            assert_eq!(xml.matches("class=\"network\"").count(), h.nics.len());
            assert_eq!(
                xml.matches("<node ").count(),
                xml.matches("</node>").count()
            );
        }
    }
}
