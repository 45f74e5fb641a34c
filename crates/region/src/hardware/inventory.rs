//! What `50-maas-01-commissioning` printed, read leniently: keys that are missing or of another type are
//! taken as unknown, keys that nobody knows are passed over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use metal::MacAddr;
use serde_json::{Map, Value, json};

use super::bus::{self, BusDevice};
use crate::error::ApiError;

/// Most bytes of the output.
pub const MAX_OUTPUT: usize = 16 << 20;
/// Most network ports of one machine.
pub const MAX_PORTS: usize = 1_024;
/// Most disks of one machine.
pub const MAX_DISKS: usize = 4_096;
/// Longest text kept of one field, in characters.
const MAX_TEXT: usize = 255;
/// Disks with fewer bytes hold nothing of use.
const MIN_DISK: i64 = 4 << 20;
/// Longest name of an interface (Linux `IFNAMSIZ` - 1).
const MAX_NAME: usize = 15;
/// An address that some BMCs show to the host: the same on every machine.
const SHARED_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Architecture in Debian's word, where known.
    pub architecture: Option<&'static str>,
    /// Threads.
    pub cpu_count: i64,
    /// MHz.
    pub cpu_speed: i64,
    /// MiB.
    pub memory: i64,
    /// NUMA nodes in the shape of the API.
    pub numa: Value,
    /// `hardware_info`.
    pub info: BTreeMap<&'static str, String>,
    /// SMBIOS UUID, lower case.
    pub uuid: Option<String>,
    /// Whether it is a virtual machine or a container; none when not told.
    pub is_virtual: Option<bool>,
    /// Network ports.
    pub ports: Vec<Port>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// What is on the buses.
    pub devices: Vec<BusDevice>,
}

/// A network port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Maker of the card.
    pub vendor: Option<String>,
    /// The card.
    pub product: Option<String>,
    /// Firmware version.
    pub firmware_version: Option<String>,
    /// Whether there is a link.
    pub connected: bool,
    /// Mbit/s of the fastest mode.
    pub interface_speed: i64,
    /// Mbit/s now.
    pub link_speed: i64,
    /// NUMA node.
    pub numa: i64,
    /// Virtual functions.
    pub sriov_max_vf: i64,
    /// Addresses that are good beyond the link.
    pub addresses: Vec<IpAddr>,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disk {
    /// Kernel name.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// A path that stays, where model or serial number are missing.
    pub id_path: Option<String>,
    /// Bytes.
    pub size: i64,
    /// Bytes of a block.
    pub block_size: i64,
    /// Firmware version.
    pub firmware_version: Option<String>,
    /// NUMA node.
    pub numa: i64,
    /// Tags that follow from what it is.
    pub tags: Vec<String>,
}

pub(super) fn text(v: &Value, key: &str) -> Option<String> {
    let t: String = v
        .get(key)?
        .as_str()?
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect();
    let t = t.trim();
    (!t.is_empty()).then(|| t.to_owned())
}

/// A whole number that is not negative.
pub(super) fn int(v: &Value, key: &str) -> Option<i64> {
    let n = match v.get(key)? {
        Value::Number(n) => n
            .as_i64()
            .or_else(|| n.as_u64().map(|_| i64::MAX))
            .or_else(|| whole(n.as_f64()?)),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    n.filter(|n| *n >= 0)
}

#[allow(clippy::cast_possible_truncation)] // the bound is checked
fn whole(f: f64) -> Option<i64> {
    (f.is_finite() && f.abs() < 9e15).then_some(f as i64)
}

fn flag(v: &Value, key: &str) -> bool {
    v.get(key).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn list<'a>(v: &'a Value, path: &str) -> &'a [Value] {
    v.pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

impl Inventory {
    /// Reads the output of the script.
    ///
    /// # Errors
    /// 400 when it is too large or no JSON object.
    pub fn parse(output: &[u8]) -> Result<Self, ApiError> {
        if output.len() > MAX_OUTPUT {
            return Err(ApiError::Bad(format!(
                "The inventory has {} bytes; at most {MAX_OUTPUT} are read.",
                output.len()
            )));
        }
        let root: Value = serde_json::from_slice(output)
            .map_err(|e| ApiError::Bad(format!("The inventory is not JSON: {e}.")))?;
        if !root.is_object() {
            return Err(ApiError::Bad(
                "The inventory is not a JSON object.".to_owned(),
            ));
        }
        let none = Value::Null;
        let resources = root.get("resources").unwrap_or(&none);
        let system = resources.get("system").unwrap_or(&none);
        let sockets = list(resources, "/cpu/sockets");
        let (model, speed) = cpu(sockets);
        let mut info = info(system);
        if let Some(m) = model {
            info.insert("cpu_model", m);
        }
        let counted: usize = sockets
            .iter()
            .flat_map(|s| list(s, "/cores"))
            .map(|c| list(c, "/threads").len())
            .sum();
        let memory = resources.get("memory").unwrap_or(&none);
        Ok(Self {
            architecture: root
                .pointer("/environment/kernel_architecture")
                .or_else(|| resources.pointer("/cpu/architecture"))
                .and_then(Value::as_str)
                .and_then(debian_architecture),
            cpu_count: resources
                .get("cpu")
                .and_then(|c| int(c, "total"))
                .filter(|n| *n > 0)
                .unwrap_or_else(|| i64::try_from(counted).unwrap_or(0)),
            cpu_speed: speed,
            memory: mebibytes(int(memory, "total").unwrap_or(0)),
            numa: numa(sockets, memory),
            info,
            uuid: text(system, "uuid")
                .and_then(|u| uuid::Uuid::parse_str(&u).ok())
                .filter(|u| !u.is_nil() && !u.is_max())
                .map(|u| u.hyphenated().to_string()),
            is_virtual: is_virtual(system),
            ports: ports(resources, root.get("networks").unwrap_or(&none)),
            disks: disks(resources),
            devices: bus::devices(resources),
        })
    }
}

fn mebibytes(bytes: i64) -> i64 {
    bytes.saturating_add(1 << 19) >> 20
}

/// Debian's word for what `uname -m` says.
fn debian_architecture(machine: &str) -> Option<&'static str> {
    Some(match machine {
        "x86_64" | "amd64" => "amd64",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "aarch64" | "arm64" => "arm64",
        "armv7l" | "armv8l" | "armhf" => "armhf",
        "ppc64le" | "ppc64el" => "ppc64el",
        "s390x" => "s390x",
        _ => return None,
    })
}

/// Model name without its clock rate, and the clock rate: as the name says it, else the highest, else
/// the present one.
fn cpu(sockets: &[Value]) -> (Option<String>, i64) {
    let Some(first) = sockets.first() else {
        return (None, 0);
    };
    let name = text(first, "name");
    let (model, named) = match name.as_deref().and_then(|n| n.rsplit_once('@')) {
        Some((model, rate)) => (Some(model.trim().to_owned()), megahertz(rate)),
        None => (name.clone(), None),
    };
    let speed = named
        .or_else(|| int(first, "frequency_turbo").filter(|n| *n > 0))
        .or_else(|| int(first, "frequency"))
        .unwrap_or(0);
    (model.filter(|m| !m.is_empty()), speed)
}

/// `2.40GHz` or `800MHz` in MHz.
fn megahertz(text: &str) -> Option<i64> {
    let t = text.trim().to_ascii_lowercase();
    let (digits, factor) = match (t.strip_suffix("ghz"), t.strip_suffix("mhz")) {
        (Some(d), _) => (d, 1_000.0),
        (None, Some(d)) => (d, 1.0),
        (None, None) => return None,
    };
    let rate: f64 = digits.trim().parse().ok()?;
    whole((rate * factor).round()).filter(|n| *n > 0)
}

fn numa(sockets: &[Value], memory: &Value) -> Value {
    let mut nodes: BTreeMap<i64, (i64, Vec<i64>, Vec<Value>)> = BTreeMap::new();
    let page = int(memory, "hugepages_size").unwrap_or(0);
    for n in list(memory, "/nodes") {
        let index = int(n, "numa_node").unwrap_or(0);
        let entry = nodes.entry(index).or_default();
        entry.0 = mebibytes(int(n, "total").unwrap_or(0));
        let total = int(n, "hugepages_total").unwrap_or(0);
        if page > 0 && total > 0 {
            entry.2.push(json!({ "page_size": page, "total": total }));
        }
    }
    for thread in sockets
        .iter()
        .flat_map(|s| list(s, "/cores"))
        .flat_map(|c| list(c, "/threads"))
    {
        if let Some(id) = int(thread, "id") {
            let index = int(thread, "numa_node").unwrap_or(0);
            nodes.entry(index).or_default().1.push(id);
        }
    }
    if nodes.len() == 1
        && let Some(only) = nodes.values_mut().next()
        && only.0 == 0
    {
        only.0 = mebibytes(int(memory, "total").unwrap_or(0));
    }
    nodes
        .into_iter()
        .map(|(index, (memory, mut cores, pages))| {
            cores.sort_unstable();
            cores.dedup();
            json!({ "index": index, "memory": memory, "cores": cores, "hugepages_set": pages })
        })
        .collect()
}

fn info(system: &Value) -> BTreeMap<&'static str, String> {
    const KEYS: [(&str, &str, &str); 17] = [
        ("system_vendor", "", "vendor"),
        ("system_product", "", "product"),
        ("system_family", "", "family"),
        ("system_version", "", "version"),
        ("system_sku", "", "sku"),
        ("system_serial", "", "serial"),
        ("mainboard_vendor", "/motherboard", "vendor"),
        ("mainboard_product", "/motherboard", "product"),
        ("mainboard_serial", "/motherboard", "serial"),
        ("mainboard_version", "/motherboard", "version"),
        ("mainboard_firmware_vendor", "/firmware", "vendor"),
        ("mainboard_firmware_date", "/firmware", "date"),
        ("mainboard_firmware_version", "/firmware", "version"),
        ("chassis_vendor", "/chassis", "vendor"),
        ("chassis_type", "/chassis", "type"),
        ("chassis_serial", "/chassis", "serial"),
        ("chassis_version", "/chassis", "version"),
    ];
    KEYS.into_iter()
        .filter_map(|(name, part, key)| Some((name, text(system.pointer(part)?, key)?)))
        .collect()
}

fn is_virtual(system: &Value) -> Option<bool> {
    if let Some(kind) = text(system, "type") {
        return Some(kind != "physical");
    }
    let vendor = text(system, "vendor")?;
    Some(
        [
            "QEMU",
            "KVM",
            "Bochs",
            "VMware, Inc.",
            "Xen",
            "innotek GmbH",
            "Parallels",
        ]
        .iter()
        .any(|v| vendor.starts_with(v)),
    )
}

/// Mbit/s of a mode such as `10000baseT/Full`.
fn mode_speed(mode: &Value) -> Option<i64> {
    let mode = mode.as_str()?;
    let end = mode.find(|c: char| !c.is_ascii_digit())?;
    mode[end..]
        .starts_with("base")
        .then(|| mode[..end].parse().ok())?
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.chars().all(|c| c.is_ascii_graphic() && c != '/')
}

fn ports(resources: &Value, networks: &Value) -> Vec<Port> {
    let mut out: Vec<Port> = Vec::new();
    for card in list(resources, "/network/cards") {
        for p in list(card, "/ports") {
            let mac = p
                .get("address")
                .and_then(Value::as_str)
                .and_then(|a| a.parse::<MacAddr>().ok());
            let (Some(name), Some(mac)) = (text(p, "id").filter(|n| is_name(n)), mac) else {
                continue;
            };
            let seen = out
                .iter()
                .any(|o| o.mac == mac.to_string() || o.name == name);
            if mac == SHARED_MAC || mac.0 == [0; 6] || seen || out.len() >= MAX_PORTS {
                continue;
            }
            let connected = flag(p, "link_detected");
            let link_speed = if connected {
                int(p, "link_speed").unwrap_or(0)
            } else {
                0
            };
            let fastest = list(p, "/supported_modes")
                .iter()
                .filter_map(mode_speed)
                .max()
                .unwrap_or(0);
            out.push(Port {
                addresses: addresses(networks.get(&name)),
                name,
                mac: mac.to_string(),
                vendor: text(card, "vendor"),
                product: text(card, "product"),
                firmware_version: text(card, "firmware_version"),
                connected,
                interface_speed: fastest.max(link_speed),
                link_speed,
                numa: int(card, "numa_node").unwrap_or(0),
                sriov_max_vf: card
                    .get("sriov")
                    .and_then(|s| int(s, "maximum_vfs"))
                    .unwrap_or(0),
            });
        }
    }
    out
}

fn addresses(network: Option<&Value>) -> Vec<IpAddr> {
    network
        .map_or(&[][..], |n| list(n, "/addresses"))
        .iter()
        .filter(|a| a.get("scope").and_then(Value::as_str) == Some("global"))
        .filter_map(|a| a.get("address")?.as_str()?.parse().ok())
        .collect()
}

fn disks(resources: &Value) -> Vec<Disk> {
    let mut out: Vec<Disk> = Vec::new();
    for d in list(resources, "/storage/disks") {
        let Some(name) = text(d, "id").filter(|n| !n.contains('/')) else {
            continue;
        };
        let size = int(d, "size").unwrap_or(0);
        let skip = flag(d, "read_only")
            || size < MIN_DISK
            || text(d, "type").as_deref() == Some("cdrom")
            || ["loop", "sr", "ram", "fd"]
                .iter()
                .any(|p| name.strip_prefix(p).is_some_and(is_number))
            || out.iter().any(|o| o.name == name)
            || out.len() >= MAX_DISKS;
        if skip {
            continue;
        }
        let (model, serial) = (text(d, "model"), text(d, "serial"));
        let id_path = if model.is_some() && serial.is_some() {
            None
        } else {
            Some(stable_path(d, &name))
        };
        out.push(Disk {
            id_path,
            model,
            serial,
            size,
            block_size: int(d, "block_size").filter(|n| *n > 0).unwrap_or(512),
            firmware_version: text(d, "firmware_version"),
            numa: int(d, "numa_node").unwrap_or(0),
            tags: disk_tags(d),
            name,
        });
    }
    out
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn stable_path(disk: &Value, name: &str) -> String {
    let below = |dir: &str, key: &str| {
        text(disk, key)
            .filter(|p| !p.contains('/') && !p.contains(char::is_whitespace))
            .map(|p| format!("/dev/disk/{dir}/{p}"))
    };
    below("by-id", "device_id")
        .or_else(|| below("by-path", "device_path"))
        .unwrap_or_else(|| format!("/dev/{name}"))
}

/// Whether a tag is one that [`Disk::tags`] may have: the others are people's own.
pub fn is_derived_tag(tag: &str) -> bool {
    matches!(tag, "ssd" | "rotary" | "sata" | "removable")
        || tag.strip_suffix("rpm").is_some_and(is_number)
}

fn disk_tags(disk: &Value) -> Vec<String> {
    let mut tags = Vec::new();
    match int(disk, "rpm").unwrap_or(0) {
        0 => tags.push("ssd".to_owned()),
        rpm => {
            tags.push("rotary".to_owned());
            // 1 is a disk that turns and does not say how fast.
            if rpm > 1 {
                tags.push(format!("{rpm}rpm"));
            }
        }
    }
    if text(disk, "type").as_deref() == Some("sata") {
        tags.push("sata".to_owned());
    }
    if flag(disk, "removable") {
        tags.push("removable".to_owned());
    }
    tags
}

impl Inventory {
    /// `hardware_info` as it is kept.
    pub fn info_json(&self) -> String {
        let map: Map<String, Value> = self
            .info
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone().into()))
            .collect();
        Value::Object(map).to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(v: &Value) -> Inventory {
        Inventory::parse(v.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_empty_inventory_is_all_unknown() {
        let i = parse(&json!({}));
        assert_eq!((i.cpu_count, i.cpu_speed, i.memory), (0, 0, 0));
        assert!(i.ports.is_empty() && i.disks.is_empty() && i.info.is_empty());
        assert_eq!((i.uuid, i.is_virtual, i.architecture), (None, None, None));
    }

    #[test]
    fn what_is_not_an_inventory_is_refused() {
        for bad in [&b""[..], b"[]", b"{", b"\xff", b"null"] {
            assert!(Inventory::parse(bad).is_err());
        }
        assert!(Inventory::parse(&vec![b' '; MAX_OUTPUT + 1]).is_err());
    }

    #[test]
    fn keys_of_a_wrong_type_are_unknown() {
        let i = parse(&json!({
            "resources": {
                "cpu": { "sockets": 3, "total": "eight" },
                "memory": { "total": -5, "nodes": {} },
                "network": { "cards": [null, 5, { "ports": [{ "id": 5 }, { "id": "eth0", "address": "x" }] }] },
                "storage": { "disks": [[], { "id": "sda" }, { "id": "a/b", "size": 1u64 << 40 }] },
                "system": { "uuid": "Not Specified", "type": 7, "vendor": [] },
            },
            "networks": [],
        }));
        assert_eq!(
            i,
            Inventory {
                numa: json!([]),
                ..Inventory::default()
            }
        );
    }

    #[test]
    fn the_clock_rate_is_the_one_in_the_name() {
        let speed =
            |socket: Value| parse(&json!({ "resources": { "cpu": { "sockets": [socket] } } }));
        let i = speed(
            json!({ "name": "Intel(R) Xeon(R) CPU E5-2650 v4 @ 2.20GHz", "frequency_turbo": 2900 }),
        );
        assert_eq!(i.cpu_speed, 2200);
        assert_eq!(i.info["cpu_model"], "Intel(R) Xeon(R) CPU E5-2650 v4");
        assert_eq!(
            speed(json!({ "name": "EPYC", "frequency": 1500, "frequency_turbo": 3350 })).cpu_speed,
            3350
        );
        assert_eq!(
            speed(json!({ "name": "EPYC", "frequency": 1500 })).cpu_speed,
            1500
        );
    }

    #[test]
    fn disks_that_hold_nothing_are_left_out_and_tags_follow_from_the_rest() {
        let gib = 1u64 << 30;
        let i = parse(&json!({ "resources": { "storage": { "disks": [
            { "id": "loop0", "size": gib }, { "id": "sr0", "size": gib }, { "id": "sdz", "size": gib, "read_only": true },
            { "id": "sdb", "size": 1 << 20 },
            { "id": "sda", "size": gib, "rpm": 7200, "type": "sata", "model": "M", "serial": "S", "device_id": "ata-M_S" },
            { "id": "vda", "size": gib, "rpm": 1, "removable": true, "device_path": "pci-0000:00:05.0" },
            { "id": "nvme0n1", "size": gib, "serial": "only", "device_id": "nvme-x" },
        ] } } }));
        let seen: Vec<_> = i
            .disks
            .iter()
            .map(|d| (d.name.as_str(), d.tags.join(","), d.id_path.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("sda", "rotary,7200rpm,sata".to_owned(), None),
                (
                    "vda",
                    "rotary,removable".to_owned(),
                    Some("/dev/disk/by-path/pci-0000:00:05.0")
                ),
                ("nvme0n1", "ssd".to_owned(), Some("/dev/disk/by-id/nvme-x")),
            ]
        );
        for d in &i.disks {
            assert!(d.tags.iter().all(|t| is_derived_tag(t)));
        }
        assert!(!is_derived_tag("rpm") && !is_derived_tag("mine"));
    }

    #[test]
    fn numa_nodes_have_their_threads_memory_and_pages() {
        let i = parse(&json!({ "resources": {
            "cpu": { "sockets": [{ "cores": [
                { "threads": [{ "id": 0, "numa_node": 0 }, { "id": 2, "numa_node": 0 }] },
                { "threads": [{ "id": 1, "numa_node": 1 }] },
            ] }] },
            "memory": { "total": 3u64 << 30, "hugepages_size": 2_097_152, "nodes": [
                { "numa_node": 0, "total": 1u64 << 30, "hugepages_total": 8 },
                { "numa_node": 1, "total": 2u64 << 30, "hugepages_total": 0 },
            ] },
        } }));
        assert_eq!((i.cpu_count, i.memory), (3, 3072));
        assert_eq!(
            i.numa,
            json!([
                { "index": 0, "memory": 1024, "cores": [0, 2], "hugepages_set": [{ "page_size": 2_097_152, "total": 8 }] },
                { "index": 1, "memory": 2048, "cores": [1], "hugepages_set": [] },
            ])
        );
    }

    #[test]
    fn ports_without_a_usable_address_are_left_out() {
        let i = parse(&json!({
            "resources": { "network": { "cards": [{ "vendor": "V", "sriov": { "maximum_vfs": 8 }, "ports": [
                { "id": "eth0", "address": "52:54:00:AA:00:01", "link_detected": true, "link_speed": 1000,
                  "supported_modes": ["10baseT/Half", "10000baseT/Full", "odd"] },
                { "id": "eth1", "address": "52:54:00:aa:00:01" },
                { "id": "usb0", "address": "02:00:00:00:00:02" },
                { "id": "ib0", "address": "00:11:22:33:44:55:66:77:88:99:00:11:22:33:44:55:66:77:88:99" },
                { "id": "a-name-that-is-far-too-long", "address": "52:54:00:aa:00:02" },
            ] }] } },
            "networks": { "eth0": { "addresses": [
                { "family": "inet", "address": "10.0.0.9", "scope": "global" },
                { "family": "inet6", "address": "fe80::1", "scope": "link" },
            ] } },
        }));
        assert_eq!(i.ports.len(), 1);
        let p = &i.ports[0];
        assert_eq!(
            (p.mac.as_str(), p.interface_speed, p.link_speed),
            ("52:54:00:aa:00:01", 10_000, 1_000)
        );
        assert_eq!(
            (p.sriov_max_vf, p.addresses.len(), p.connected),
            (8, 1, true)
        );
    }

    /// JSON out of the names that are looked for, with any values below them.
    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "resources",
            "environment",
            "networks",
            "cpu",
            "sockets",
            "cores",
            "threads",
            "memory",
            "nodes",
            "total",
            "network",
            "cards",
            "ports",
            "id",
            "address",
            "supported_modes",
            "link_speed",
            "link_detected",
            "sriov",
            "maximum_vfs",
            "storage",
            "disks",
            "size",
            "rpm",
            "model",
            "serial",
            "device_id",
            "system",
            "uuid",
            "type",
            "name",
            "frequency",
            "numa_node",
            "addresses",
            "scope",
            "eth0",
            "global",
            "kernel_architecture",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
            Just(json!("52:54:00:00:00:01")),
            Just(json!("x86_64 @ 2.5GHz")),
            Just(json!("10000baseT/Full")),
        ];
        leaf.prop_recursive(8, 200, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(word.clone(), inner, 0..8).prop_map(|m| Value::Object(
                    m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn reading_never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let is_object = bytes.contains(&b'{');
            prop_assert!(Inventory::parse(&bytes).is_err() || is_object);
        }

        #[test]
        fn whatever_is_read_can_be_kept(parts in prop::collection::vec(any_json(), 5)) {
            let keys = ["cpu", "memory", "network", "storage", "system"];
            let resources: Map<String, Value> = keys.iter().map(|k| (*k).to_owned()).zip(parts).collect();
            let i = parse(&json!({ "resources": resources }));
            prop_assert!(i.cpu_count >= 0 && i.cpu_speed >= 0 && i.memory >= 0);
            let names: std::collections::BTreeSet<_> = i.ports.iter().map(|p| &p.name).collect();
            let macs: std::collections::BTreeSet<_> = i.ports.iter().map(|p| &p.mac).collect();
            prop_assert!(names.len() == i.ports.len() && macs.len() == i.ports.len());
            let disks: std::collections::BTreeSet<_> = i.disks.iter().map(|d| &d.name).collect();
            prop_assert_eq!(disks.len(), i.disks.len());
            prop_assert!(i.disks.iter().all(|d| d.size >= MIN_DISK && d.block_size > 0));
        }
    }
}
