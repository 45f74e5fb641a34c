//! The inventory as XML in the vocabulary of lshw, for tag expressions and for clients that read details.
//!
//! Nodes have lshw's ids and classes (`system`, `bus`, `memory`, `processor`, `network`, `disk`, `volume`,
//! `display`, …); siblings of one id are numbered `id:0`, `id:1`, … as lshw does.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Inventory, pci};

/// One node.
#[derive(Default)]
struct Node {
    id: &'static str,
    class: &'static str,
    handle: Option<String>,
    description: &'static str,
    product: String,
    vendor: String,
    physid: String,
    businfo: String,
    logicalname: Vec<String>,
    version: String,
    serial: String,
    slot: String,
    size: Option<(&'static str, u64)>,
    capacity: Option<(&'static str, u64)>,
    clock: Option<(&'static str, u64)>,
    width: Option<u32>,
    configuration: Vec<(&'static str, String)>,
    capabilities: Vec<String>,
    children: Vec<Node>,
}

/// Text with what XML 1.0 does not allow taken out and what it reserves escaped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

impl Node {
    fn write(&self, out: &mut String, id: &str, depth: usize) {
        let pad = " ".repeat(depth);
        let handle = self
            .handle
            .as_deref()
            .map(|h| format!(" handle=\"{}\"", escape(h)))
            .unwrap_or_default();
        // A String takes every write: the results below are of no interest.
        writeln!(
            out,
            "{pad}<node id=\"{}\" claimed=\"true\" class=\"{}\"{handle}>",
            escape(id),
            self.class
        )
        .ok();
        let texts = [
            ("description", self.description),
            ("product", self.product.as_str()),
            ("vendor", &self.vendor),
            ("physid", &self.physid),
            ("businfo", &self.businfo),
        ];
        for (name, text) in texts {
            if !text.is_empty() {
                writeln!(out, "{pad} <{name}>{}</{name}>", escape(text)).ok();
            }
        }
        for name in &self.logicalname {
            writeln!(out, "{pad} <logicalname>{}</logicalname>", escape(name)).ok();
        }
        for (name, text) in [
            ("version", &self.version),
            ("serial", &self.serial),
            ("slot", &self.slot),
        ] {
            if !text.is_empty() {
                writeln!(out, "{pad} <{name}>{}</{name}>", escape(text)).ok();
            }
        }
        for (name, number) in [("size", self.size), ("capacity", self.capacity)] {
            if let Some((units, n)) = number {
                writeln!(out, "{pad} <{name} units=\"{units}\">{n}</{name}>").ok();
            }
        }
        if let Some(width) = self.width {
            writeln!(out, "{pad} <width units=\"bits\">{width}</width>").ok();
        }
        if let Some((units, n)) = self.clock {
            writeln!(out, "{pad} <clock units=\"{units}\">{n}</clock>").ok();
        }
        if self.configuration.iter().any(|(_, v)| !v.is_empty()) {
            writeln!(out, "{pad} <configuration>").ok();
            for (key, value) in self.configuration.iter().filter(|(_, v)| !v.is_empty()) {
                writeln!(
                    out,
                    "{pad}  <setting id=\"{key}\" value=\"{}\" />",
                    escape(value)
                )
                .ok();
            }
            writeln!(out, "{pad} </configuration>").ok();
        }
        if !self.capabilities.is_empty() {
            writeln!(out, "{pad} <capabilities>").ok();
            for capability in &self.capabilities {
                writeln!(out, "{pad}  <capability id=\"{}\" />", escape(capability)).ok();
            }
            writeln!(out, "{pad} </capabilities>").ok();
        }
        write_all(&self.children, out, depth + 1);
        writeln!(out, "{pad}</node>").ok();
    }
}

fn write_all(nodes: &[Node], out: &mut String, depth: usize) {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes {
        *count.entry(node.id).or_default() += 1;
    }
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes {
        let n = next.entry(node.id).or_default();
        let id = if count[node.id] > 1 {
            format!("{}:{n}", node.id)
        } else {
            node.id.to_owned()
        };
        node.write(out, &id, depth);
        *n += 1;
    }
}

/// The document.
#[must_use]
pub fn document(inventory: &Inventory) -> String {
    let mut out = String::from("<?xml version=\"1.0\" standalone=\"yes\" ?>\n<list>\n");
    write_all(&[system(inventory)], &mut out, 0);
    out.push_str("</list>\n");
    out
}

fn system(inventory: &Inventory) -> Node {
    let s = &inventory.system;
    let wide = inventory.cpu.architecture.contains("64") || inventory.cpu.architecture == "s390x";
    let version = inventory.dmi.version;
    Node {
        id: "host",
        class: "system",
        handle: inventory
            .dmi
            .first(1)
            .map(|d| format!("DMI:{:04X}", d.handle)),
        description: "Computer",
        product: s.product.clone(),
        vendor: s.vendor.clone(),
        version: s.version.clone(),
        serial: s.serial.clone(),
        width: Some(if wide { 64 } else { 32 }),
        configuration: vec![
            ("chassis", s.chassis.kind.to_lowercase()),
            ("family", s.family.clone()),
            ("sku", s.sku.clone()),
            ("uuid", s.uuid.clone()),
        ],
        capabilities: if inventory.dmi.structures.is_empty() {
            Vec::new()
        } else {
            vec![
                format!("smbios-{}.{}", version.0, version.1),
                format!("dmi-{}.{}", version.0, version.1),
            ]
        },
        children: vec![core(inventory)],
        ..Node::default()
    }
}

fn core(inventory: &Inventory) -> Node {
    let s = &inventory.system;
    let board = &s.motherboard;
    let mut children = Vec::new();
    if !s.firmware.vendor.is_empty() || !s.firmware.version.is_empty() {
        children.push(Node {
            id: "firmware",
            class: "memory",
            description: "BIOS",
            vendor: s.firmware.vendor.clone(),
            version: if s.firmware.date.is_empty() {
                s.firmware.version.clone()
            } else {
                format!("{} ({})", s.firmware.version, s.firmware.date)
            },
            physid: "0".to_owned(),
            ..Node::default()
        });
    }
    children.extend(
        inventory
            .cpu
            .sockets
            .iter()
            .map(|c| processor(inventory, c)),
    );
    children.push(memory(inventory));
    children.push(Node {
        id: "pci",
        class: "bridge",
        description: "Host bridge",
        physid: "100".to_owned(),
        children: inventory
            .pci
            .devices
            .iter()
            .filter_map(|d| pci_device(inventory, d))
            .collect(),
        ..Node::default()
    });
    children.extend(usb(inventory));
    // Disks and ports whose controller is not on PCI.
    let loose_disks = inventory
        .storage
        .disks
        .iter()
        .filter(|d| d.usb_address.is_none() && !on_pci(inventory, d.pci_address.as_deref()));
    children.extend(loose_disks.map(disk));
    let loose_cards = inventory
        .network
        .cards
        .iter()
        .filter(|c| c.usb_address.is_none() && !on_pci(inventory, c.pci_address.as_deref()));
    children.extend(loose_cards.flat_map(ports));
    Node {
        id: "core",
        class: "bus",
        description: "Motherboard",
        product: board.product.clone(),
        vendor: board.vendor.clone(),
        version: board.version.clone(),
        serial: board.serial.clone(),
        physid: "0".to_owned(),
        children,
        ..Node::default()
    }
}

fn on_pci(inventory: &Inventory, address: Option<&str>) -> bool {
    address.is_some_and(|a| {
        inventory
            .pci
            .devices
            .iter()
            .any(|d| d.pci_address == a && pci_class(d).is_some())
    })
}

fn processor(inventory: &Inventory, socket: &super::cpu::Socket) -> Node {
    let threads: usize = socket.cores.iter().map(|c| c.threads.len()).sum();
    let hz = |mhz: u64| (mhz > 0).then_some(("Hz", mhz * 1_000_000));
    let wide = inventory.cpu.architecture.contains("64");
    let mut capabilities = socket.flags.clone();
    if wide && capabilities.iter().any(|f| f == "lm") {
        capabilities.push("x86-64".to_owned());
    }
    let caches = socket.cache.iter().map(|c| Node {
        id: "cache",
        class: "memory",
        description: match c.level {
            1 => "L1 cache",
            2 => "L2 cache",
            3 => "L3 cache",
            _ => "cache",
        },
        size: Some(("bytes", c.size)),
        capabilities: vec![c.kind.to_lowercase()],
        ..Node::default()
    });
    Node {
        id: "cpu",
        class: "processor",
        description: "CPU",
        product: socket.name.clone(),
        vendor: socket.vendor.clone(),
        physid: format!("{:x}", 4 + socket.socket),
        businfo: format!("cpu@{}", socket.socket),
        size: hz(socket.frequency),
        capacity: hz(socket.frequency_turbo),
        width: Some(if wide { 64 } else { 32 }),
        configuration: vec![
            ("cores", socket.cores.len().to_string()),
            ("enabledcores", socket.cores.len().to_string()),
            ("threads", threads.to_string()),
        ],
        capabilities,
        children: caches.collect(),
        ..Node::default()
    }
}

fn memory(inventory: &Inventory) -> Node {
    let banks = inventory.dmi.memory().into_iter().map(|m| Node {
        id: "bank",
        class: "memory",
        handle: Some(format!("DMI:{:04X}", m.handle)),
        description: if m.size == 0 { "[empty]" } else { m.kind },
        product: m.product.unwrap_or_default(),
        vendor: m.vendor.unwrap_or_default(),
        serial: m.serial.unwrap_or_default(),
        slot: m.slot,
        size: (m.size > 0).then_some(("bytes", m.size)),
        // Two transfers per cycle.
        clock: m
            .speed
            .filter(|_| m.size > 0)
            .map(|s| ("Hz", u64::from(s) * 1_000_000)),
        ..Node::default()
    });
    Node {
        id: "memory",
        class: "memory",
        description: "System Memory",
        physid: "1000".to_owned(),
        size: Some(("bytes", inventory.memory.total)),
        children: banks.collect(),
        ..Node::default()
    }
}

/// lshw's id, class and words for PCI class codes (PCI Code and ID Assignment, base classes).
fn pci_class(device: &pci::Device) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match device.class >> 8 {
        0x0101 => ("ide", "storage", "IDE interface"),
        0x0104 => ("raid", "storage", "RAID bus controller"),
        0x0106 => ("sata", "storage", "SATA controller"),
        0x0107 => ("sas", "storage", "Serial Attached SCSI controller"),
        0x0108 => ("nvme", "storage", "NVMe device"),
        0x0100..=0x01ff => ("storage", "storage", "Mass storage controller"),
        0x0200..=0x02ff => ("network", "network", "Ethernet interface"),
        0x0300..=0x03ff => ("display", "display", "Display controller"),
        0x0400..=0x04ff => ("multimedia", "multimedia", "Multimedia controller"),
        0x0500..=0x05ff => ("memory", "memory", "Memory controller"),
        0x0600..=0x06ff => ("bridge", "bridge", "Bridge"),
        0x0700..=0x07ff => ("communication", "communication", "Communication controller"),
        0x0c03 => ("usb", "bus", "USB controller"),
        0x0c04 => ("fiber", "bus", "Fibre Channel"),
        0x0c05 => ("serial", "bus", "SMBus"),
        0x0c00..=0x0cff => ("serial", "bus", "Serial bus controller"),
        0x1200..=0x12ff => ("processing", "processor", "Processing accelerators"),
        _ => ("generic", "generic", "PCI device"),
    })
}

fn pci_device(inventory: &Inventory, device: &pci::Device) -> Option<Node> {
    let (id, class, description) = pci_class(device)?;
    let here = |a: &Option<String>| a.as_deref() == Some(device.pci_address.as_str());
    let mut node = Node {
        id,
        class,
        description,
        product: if device.product.is_empty() {
            format!("[{}:{}]", device.vendor_id, device.product_id)
        } else {
            device.product.clone()
        },
        vendor: if device.vendor.is_empty() {
            format!("[{}]", device.vendor_id)
        } else {
            device.vendor.clone()
        },
        businfo: format!("pci@{}", device.pci_address),
        configuration: vec![
            ("driver", device.driver.clone()),
            ("numa_node", device.numa_node.to_string()),
        ],
        children: inventory
            .storage
            .disks
            .iter()
            .filter(|d| here(&d.pci_address))
            .map(disk)
            .collect(),
        ..Node::default()
    };
    let mut ports: Vec<Node> = inventory
        .network
        .cards
        .iter()
        .filter(|c| here(&c.pci_address))
        .flat_map(ports)
        .collect();
    if class == "network" && ports.len() == 1 {
        // One port is the device itself.
        let port = ports.remove(0);
        node.logicalname = port.logicalname;
        node.serial = port.serial;
        node.size = port.size;
        node.capabilities = port.capabilities;
        node.configuration.extend(
            port.configuration
                .into_iter()
                .filter(|(k, _)| *k != "driver"),
        );
    }
    node.children.extend(ports);
    Some(node)
}

fn ports(card: &super::network::Card) -> impl Iterator<Item = Node> + '_ {
    card.ports.iter().map(|p| Node {
        id: "network",
        class: "network",
        description: "Ethernet interface",
        product: card.product.clone(),
        vendor: card.vendor.clone(),
        logicalname: vec![p.id.clone()],
        serial: p.address.clone(),
        size: p.link_speed.map(|s| ("bit/s", s * 1_000_000)),
        configuration: vec![
            ("driver", card.driver.clone()),
            ("driverversion", card.driver_version.clone()),
            ("duplex", p.link_duplex.clone().unwrap_or_default()),
            (
                "link",
                if p.link_detected { "yes" } else { "no" }.to_owned(),
            ),
        ],
        capabilities: vec![p.protocol.clone(), "physical".to_owned()],
        ..Node::default()
    })
}

fn disk(d: &super::storage::Disk) -> Node {
    let mut capabilities = vec![d.kind.clone()];
    if d.rpm > 1 {
        capabilities.push(format!("{}rpm", d.rpm));
    }
    if d.removable {
        capabilities.push("removable".to_owned());
    }
    Node {
        id: "disk",
        class: "disk",
        description: "Disk",
        product: d.model.clone(),
        businfo: format!("{}@{}", d.kind, d.id),
        logicalname: vec![format!("/dev/{}", d.id)],
        version: d.firmware_version.clone(),
        serial: d.serial.clone(),
        size: Some(("bytes", d.size)),
        configuration: vec![
            ("logicalsectorsize", d.block_size.to_string()),
            ("wwid", d.wwn.clone()),
        ],
        capabilities,
        children: d
            .partitions
            .iter()
            .map(|p| Node {
                id: "volume",
                class: "volume",
                description: "Partition",
                physid: format!("{:x}", p.partition),
                logicalname: vec![format!("/dev/{}", p.id)],
                size: Some(("bytes", p.size)),
                ..Node::default()
            })
            .collect(),
        ..Node::default()
    }
}

fn usb(inventory: &Inventory) -> impl Iterator<Item = Node> + '_ {
    inventory.usb.devices.iter().map(|d| {
        let here = format!("{}:{}", d.bus_address, d.device_address);
        let class = d.interfaces.first().map_or(0, |i| i.class_id);
        let (id, class, description) = match class {
            0x02 | 0x0a => ("communication", "communication", "USB communication device"),
            0x03 => ("input", "input", "USB input device"),
            0x08 => ("usb", "storage", "USB mass storage device"),
            _ => ("usb", "generic", "USB device"),
        };
        let disks = inventory
            .storage
            .disks
            .iter()
            .filter(|s| s.usb_address.as_deref() == Some(here.as_str()))
            .map(disk);
        let cards = inventory
            .network
            .cards
            .iter()
            .filter(|c| c.usb_address.as_deref() == Some(here.as_str()))
            .flat_map(ports);
        Node {
            id,
            class,
            description,
            product: d.product.clone(),
            vendor: d.vendor.clone(),
            businfo: format!("usb@{here}"),
            serial: d.serial.clone().unwrap_or_default(),
            children: disks.chain(cards).collect(),
            ..Node::default()
        }
    })
}
