//! Network cards, and the state of all interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::live::InterfaceAddress;
use super::names::Ids;
use super::{pci, usb};
use crate::block::numa_node;
use crate::sys::{Sys, pci_address};

/// `ARPHRD_ETHER`.
const ETHERNET: i64 = 1;
/// `ARPHRD_INFINIBAND`.
const INFINIBAND: i64 = 32;
/// `ARPHRD_LOOPBACK`.
const LOOPBACK: i64 = 772;
/// `IFF_UP`.
const UP: u64 = 1;
/// The address that some virtual adapters of management controllers all have; it names no machine.
pub const SHARED_MAC: &str = "02:00:00:00:00:02";

/// All cards.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Network {
    /// Physical cards.
    pub cards: Vec<Card>,
    /// How many.
    pub total: u64,
}

/// A card.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Card {
    /// Driver in use.
    pub driver: String,
    /// Its version.
    pub driver_version: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Virtual functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sriov: Option<SrIov>,
    /// NUMA node.
    pub numa_node: u32,
    /// PCI address, when not on USB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// `bus:device`, when on USB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usb_address: Option<String>,
    /// Vendor's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// Vendor's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor_id: String,
    /// Product's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product: String,
    /// Product's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product_id: String,
    /// Firmware version, where sysfs tells it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub firmware_version: String,
    /// Vital product data, which is not read.
    pub vpd: pci::Vpd,
}

/// Virtual functions of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SrIov {
    /// Switched on.
    pub current_vfs: u64,
    /// Possible.
    pub maximum_vfs: u64,
    /// The functions as cards of their own: listed as cards, not here.
    pub vfs: Vec<Value>,
}

/// A port.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Port {
    /// Interface name.
    pub id: String,
    /// Hardware address.
    pub address: String,
    /// Its number on the card.
    pub port: u64,
    /// `ethernet` or `infiniband`.
    pub protocol: String,
    /// Whether speed is negotiated: taken as so while a link is up.
    pub auto_negotiation: bool,
    /// Whether there is a link.
    pub link_detected: bool,
    /// Mbit/s, with a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_speed: Option<u64>,
    /// `full` or `half`, with a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_duplex: Option<String>,
    /// MTU; not part of the resources document.
    #[serde(skip)]
    pub mtu: u64,
}

/// The permanent hardware address where the running one may be a bond's.
fn hardware_address(sys: &Sys, name: &str) -> Option<String> {
    let dir = format!("sys/class/net/{name}");
    sys.text(format!("{dir}/bonding_slave/perm_hwaddr"))
        .or_else(|| sys.text(format!("{dir}/address")))
        .map(|a| a.to_lowercase())
}

fn is_physical(sys: &Sys, name: &str) -> bool {
    let dir = format!("sys/class/net/{name}");
    sys.exists(format!("{dir}/device"))
        && matches!(
            sys.number(format!("{dir}/type")),
            Some(ETHERNET | INFINIBAND)
        )
}

/// The interfaces with hardware behind them, and their addresses.
#[must_use]
pub fn physical(sys: &Sys) -> Vec<(String, String)> {
    let names = sys
        .list("sys/class/net")
        .into_iter()
        .filter(|n| is_physical(sys, n));
    names
        .filter_map(|n| hardware_address(sys, &n).map(|a| (n, a)))
        .filter(|(_, a)| a.len() == 17 && a != "00:00:00:00:00:00")
        .collect()
}

/// Addresses for enlistment: the one that booted first, then the others; [`SHARED_MAC`] left out.
#[must_use]
pub fn enlist_addresses(sys: &Sys) -> Vec<String> {
    let boot = sys
        .kernel_options()
        .iter()
        .find_map(|o| o.strip_prefix("BOOTIF="))
        .map(|b| {
            let dashed = b.to_lowercase();
            // The first of seven bytes is the hardware type: PXELINUX's IPAPPEND 2.
            let dashed = if dashed.len() == 20 {
                dashed[3..].to_owned()
            } else {
                dashed
            };
            dashed.replace('-', ":")
        });
    let mut out: Vec<String> = Vec::new();
    for (_, address) in physical(sys) {
        if address != SHARED_MAC && !out.contains(&address) {
            out.push(address);
        }
    }
    out.sort_by_key(|a| boot.as_ref() != Some(a));
    out
}

/// Reads the cards.
#[must_use]
pub fn read(sys: &Sys, ids: &Ids, usb: &usb::Usb, kernel_version: &str) -> Network {
    let mut cards: BTreeMap<String, Card> = BTreeMap::new();
    for name in sys
        .list("sys/class/net")
        .into_iter()
        .filter(|n| is_physical(sys, n))
    {
        let dir = format!("sys/class/net/{name}");
        let Some(device) = sys.resolve(format!("{dir}/device")) else {
            continue;
        };
        let usb_address = device
            .ancestors()
            .find_map(|a| Some((sys.number(a.join("busnum"))?, sys.number(a.join("devnum"))?)));
        let pci = pci_address(&device);
        let place = usb_address
            .map(|(b, d)| format!("usb {b}:{d}"))
            .or_else(|| pci.clone())
            .unwrap_or_else(|| device.to_string_lossy().into_owned());
        let card = cards.entry(place).or_insert_with(|| {
            card(
                sys,
                ids,
                usb,
                &device.to_string_lossy(),
                pci,
                usb_address,
                kernel_version,
            )
        });
        card.ports.push(port(sys, &name));
    }
    let cards: Vec<Card> = cards.into_values().collect();
    Network {
        total: cards.len() as u64,
        cards,
    }
}

fn card(
    sys: &Sys,
    ids: &Ids,
    usb: &usb::Usb,
    device: &str,
    pci: Option<String>,
    usb_address: Option<(i64, i64)>,
    kernel_version: &str,
) -> Card {
    let (driver, driver_version) = pci::driver(sys, device, kernel_version);
    let mut card = Card {
        driver,
        driver_version,
        numa_node: numa_node(sys, std::path::Path::new(device)),
        ..Card::default()
    };
    if let Some((bus, number)) = usb_address {
        card.usb_address = Some(format!("{bus}:{number}"));
        if let Some(d) = usb
            .devices
            .iter()
            .find(|d| d.bus_address as i64 == bus && d.device_address as i64 == number)
        {
            (card.vendor, card.vendor_id) = (d.vendor.clone(), d.vendor_id.clone());
            (card.product, card.product_id) = (d.product.clone(), d.product_id.clone());
        }
    } else if let Some(address) = pci {
        if let Some(d) = pci::device(sys, &address, ids, kernel_version) {
            (card.vendor, card.vendor_id) = (d.vendor, d.vendor_id);
            (card.product, card.product_id) = (d.product, d.product_id);
        }
        let count = |file: &str| {
            sys.number(format!("sys/bus/pci/devices/{address}/{file}"))
                .and_then(|n| u64::try_from(n).ok())
        };
        if let Some(maximum_vfs) = count("sriov_totalvfs").filter(|n| *n > 0) {
            card.sriov = Some(SrIov {
                current_vfs: count("sriov_numvfs").unwrap_or(0),
                maximum_vfs,
                vfs: Vec::new(),
            });
        }
        card.pci_address = Some(address);
    }
    card
}

fn port(sys: &Sys, name: &str) -> Port {
    let dir = format!("sys/class/net/{name}");
    let number = |file: &str| {
        sys.number(format!("{dir}/{file}"))
            .and_then(|n| u64::try_from(n).ok())
    };
    let link = number("carrier") == Some(1);
    Port {
        id: name.to_owned(),
        address: hardware_address(sys, name).unwrap_or_default(),
        port: number("dev_port").unwrap_or(0),
        protocol: if sys.number(format!("{dir}/type")) == Some(INFINIBAND) {
            "infiniband"
        } else {
            "ethernet"
        }
        .to_owned(),
        auto_negotiation: link,
        link_detected: link,
        // Virtual cards tell -1 for "unknown", which is not a u64.
        link_speed: if link { number("speed") } else { None },
        link_duplex: if link {
            sys.text(format!("{dir}/duplex")).filter(|d| d != "unknown")
        } else {
            None
        },
        mtu: number("mtu").unwrap_or(0),
    }
}

/// Scope of an address, in the words of iproute2.
fn scope(address: &IpAddr) -> &'static str {
    match address {
        a if a.is_loopback() => "local",
        IpAddr::V4(a) if a.is_link_local() => "link",
        IpAddr::V6(a) if a.is_unicast_link_local() => "link",
        _ => "global",
    }
}

/// VLAN id and lower device of each VLAN interface (`/proc/net/vlan/config`).
fn vlans(sys: &Sys) -> BTreeMap<String, (u64, String)> {
    let text = sys.text("proc/net/vlan/config").unwrap_or_default();
    text.lines()
        .filter_map(|l| {
            let mut parts = l.split('|').map(str::trim);
            let (name, id, lower) = (parts.next()?, parts.next()?, parts.next()?);
            Some((name.to_owned(), (id.parse().ok()?, lower.to_owned())))
        })
        .collect()
}

/// The state of every interface, by name.
#[must_use]
pub fn states(sys: &Sys, addresses: &[InterfaceAddress]) -> Map<String, Value> {
    let vlans = vlans(sys);
    let mut out = Map::new();
    for name in sys.list("sys/class/net") {
        let dir = format!("sys/class/net/{name}");
        // Files such as bonding_masters are no interfaces.
        let Some(kind) = sys.number(format!("{dir}/type")) else {
            continue;
        };
        let counter = |file: &str| sys.number(format!("{dir}/statistics/{file}")).unwrap_or(0);
        let own: Vec<Value> = addresses
            .iter()
            .filter(|a| a.interface == name)
            .map(|a| {
                let family = if a.address.is_ipv4() { "inet" } else { "inet6" };
                json!({"family": family, "address": a.address.to_string(), "netmask": a.prefix.to_string(), "scope": scope(&a.address)})
            })
            .collect();
        let vlan = vlans
            .get(&name)
            .map(|(id, lower)| json!({"lower_device": lower, "vid": id}));
        out.insert(
            name.clone(),
            json!({
                "addresses": own,
                "counters": {
                    "bytes_received": counter("rx_bytes"), "bytes_sent": counter("tx_bytes"),
                    "packets_received": counter("rx_packets"), "packets_sent": counter("tx_packets"),
                },
                "hwaddr": sys.text(format!("{dir}/address")).unwrap_or_default(),
                "host_name": "",
                "mtu": sys.number(format!("{dir}/mtu")).unwrap_or(0),
                "state": if sys.hex(format!("{dir}/flags")).unwrap_or(0) & UP != 0 { "up" } else { "down" },
                "type": match kind { ETHERNET => "broadcast", LOOPBACK => "loopback", INFINIBAND => "infiniband", _ => "unknown" },
                "bond": bond(sys, &dir),
                "bridge": bridge(sys, &dir),
                "vlan": vlan,
                "ovn": null,
            }),
        );
    }
    out
}

fn bond(sys: &Sys, dir: &str) -> Value {
    if !sys.exists(format!("{dir}/bonding")) {
        return Value::Null;
    }
    // The kernel writes `balance-rr 0`: word and number.
    let word = |file: &str| {
        sys.text(format!("{dir}/bonding/{file}"))
            .and_then(|t| t.split_whitespace().next().map(str::to_owned))
            .unwrap_or_default()
    };
    let number = |file: &str| sys.number(format!("{dir}/bonding/{file}")).unwrap_or(0);
    json!({
        "mode": word("mode"), "transmit_policy": word("xmit_hash_policy"), "up_delay": number("updelay"), "down_delay": number("downdelay"),
        "mii_frequency": number("miimon"), "mii_state": word("mii_status"),
        "lower_devices": sys.text(format!("{dir}/bonding/slaves")).unwrap_or_default().split_whitespace().collect::<Vec<_>>(),
    })
}

fn bridge(sys: &Sys, dir: &str) -> Value {
    if !sys.exists(format!("{dir}/bridge")) {
        return Value::Null;
    }
    let number = |file: &str| sys.number(format!("{dir}/bridge/{file}")).unwrap_or(0);
    json!({
        "id": sys.text(format!("{dir}/bridge/bridge_id")).unwrap_or_default(), "stp": number("stp_state") != 0,
        "forward_delay": number("forward_delay"), "vlan_default": number("default_pvid"), "vlan_filtering": number("vlan_filtering") != 0,
        "upper_devices": sys.list(format!("{dir}/brif")),
    })
}
