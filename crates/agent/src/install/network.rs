//! The network of the installed system: the plan's netplan document as it is where the system has
//! netplan, as systemd-networkd's units where it has that, and otherwise left to its cloud-init.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::tree::Tree;
use super::{InstallError, yaml};

/// The file that MAAS-deployed systems have it in.
const NETPLAN_FILE: &str = "/etc/netplan/50-cloud-init.yaml";
/// Directory of networkd's units.
const NETWORKD_DIR: &str = "/etc/systemd/network";
/// Longest interface name the kernel takes.
const NAME_MAX: usize = 15;

/// How the installed system configures its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renderer {
    /// netplan.
    Netplan,
    /// systemd-networkd.
    Networkd,
    /// Whatever its cloud-init finds.
    CloudInit,
}

/// A file and its content.
pub type Unit = (String, String);

/// What the tree has.
#[must_use]
pub fn renderer(tree: &Tree) -> Renderer {
    if tree.has("/usr/sbin/netplan") || tree.has("/usr/bin/netplan") {
        Renderer::Netplan
    } else if tree.has("/lib/systemd/systemd-networkd") && !tree.has("/usr/sbin/NetworkManager") {
        Renderer::Networkd
    } else {
        Renderer::CloudInit
    }
}

/// Writes the configuration. Returns which it was.
///
/// # Errors
/// When a file cannot be written, or networkd's units cannot express the document.
pub fn write(tree: &Tree, network: &Value) -> Result<Renderer, InstallError> {
    let document = if network.get("network").is_some() {
        network.clone()
    } else {
        serde_json::json!({ "network": network })
    };
    let put = |path: &str, content: &str, mode| {
        tree.write(path, content.as_bytes(), mode)
            .map_err(|cause| InstallError::Io {
                what: format!("cannot write {path}"),
                cause,
            })
    };
    let renderer = renderer(tree);
    match renderer {
        Renderer::Netplan => {
            // What the image brought along would be merged with ours.
            for name in tree
                .list("/etc/netplan")
                .into_iter()
                .filter(|n| n.ends_with(".yaml"))
            {
                let path = format!("/etc/netplan/{name}");
                tree.remove(&path).map_err(|cause| InstallError::Io {
                    what: format!("cannot remove {path}"),
                    cause,
                })?;
            }
            put(NETPLAN_FILE, &yaml::document(&document), 0o600)?;
        }
        Renderer::Networkd => {
            for (name, content) in networkd(&document["network"])? {
                put(&format!("{NETWORKD_DIR}/{name}"), &content, 0o644)?;
            }
            let servers = name_servers(&document["network"]);
            // Without resolved nobody else writes the static servers down.
            if !servers.0.is_empty() && !tree.has("/lib/systemd/systemd-resolved") {
                let mut text = String::new();
                servers
                    .0
                    .iter()
                    .take(3)
                    .for_each(|s| text.push_str(&format!("nameserver {s}\n")));
                if !servers.1.is_empty() {
                    text.push_str(&format!("search {}\n", servers.1.join(" ")));
                }
                put("/etc/resolv.conf", &text, 0o644)?;
            }
        }
        Renderer::CloudInit => {
            put(
                "/etc/cloud/cloud.cfg.d/99-steelyard-network.cfg",
                &yaml::document(&document),
                0o600,
            )?;
            return Ok(renderer);
        }
    }
    put(
        "/etc/cloud/cloud.cfg.d/99-steelyard-network.cfg",
        "network: {config: disabled}\n",
        0o644,
    )?;
    Ok(renderer)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|i| match i {
                Value::String(s) => Some(s.clone()),
                // An address with options: `{"10.0.0.1/24": {label: x}}`.
                Value::Object(o) => o.keys().next().cloned(),
                Value::Number(n) => Some(n.to_string()),
                _ => None,
            })
            .collect(),
        Some(Value::String(s)) => vec![s.clone()],
        _ => Vec::new(),
    }
}

/// All name servers and search domains, each once.
fn name_servers(network: &Value) -> (Vec<String>, Vec<String>) {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for kind in ["ethernets", "bonds", "bridges", "vlans"] {
        for device in network
            .get(kind)
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::values)
        {
            for (list, key) in [(&mut servers, "addresses"), (&mut search, "search")] {
                for item in strings(device.get("nameservers").and_then(|n| n.get(key))) {
                    if !list.contains(&item) {
                        list.push(item);
                    }
                }
            }
        }
    }
    (servers, search)
}

/// What uses a device: the sections of its `.network` that others cause.
#[derive(Default)]
struct Users {
    bond: Option<String>,
    bridge: Option<String>,
    vlans: Vec<String>,
}

fn users(network: &Value, name: &str) -> Users {
    let mut out = Users::default();
    let devices = |kind: &str| {
        network
            .get(kind)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    let has = |v: &Value| strings(v.get("interfaces")).iter().any(|i| i == name);
    out.bond = devices("bonds")
        .into_iter()
        .find(|(_, v)| has(v))
        .map(|(k, _)| k);
    out.bridge = devices("bridges")
        .into_iter()
        .find(|(_, v)| has(v))
        .map(|(k, _)| k);
    out.vlans = devices("vlans")
        .into_iter()
        .filter(|(_, v)| v.get("link").and_then(Value::as_str) == Some(name))
        .map(|(k, _)| k)
        .collect();
    out
}

fn flag(device: &Value, key: &str) -> bool {
    // netplan takes YAML 1.1's words as well.
    match device.get(key) {
        Some(Value::Bool(b)) => *b,
        Some(Value::String(s)) => matches!(s.as_str(), "yes" | "true" | "on"),
        _ => false,
    }
}

/// Units of systemd-networkd for a netplan version 2 network.
///
/// # Errors
/// When a name is no interface name or a value would break out of its line.
pub fn networkd(network: &Value) -> Result<Vec<Unit>, InstallError> {
    let mut out = Vec::new();
    for kind in ["ethernets", "bonds", "bridges", "vlans"] {
        for (name, device) in network
            .get(kind)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if name.is_empty()
                || name.len() > NAME_MAX
                || name.contains(|c: char| c == '/' || c.is_whitespace())
            {
                return Err(InstallError::Plan(format!(
                    "network: '{name}' is no interface name"
                )));
            }
            let users = users(network, name);
            let mac = device
                .get("match")
                .and_then(|m| m.get("macaddress"))
                .and_then(Value::as_str);
            let set_name = device.get("set-name").and_then(Value::as_str);
            let mut matched = match (kind, mac) {
                // A member of a bond takes the bond's address: only its permanent one stays.
                ("ethernets", Some(mac)) if users.bond.is_some() => {
                    format!("PermanentMACAddress={mac}\n")
                }
                // The type keeps VLANs and bridges with the same address out.
                ("ethernets", Some(mac)) => format!("MACAddress={mac}\nType=ether\n"),
                _ => format!("Name={name}\n"),
            };
            if let ("ethernets", Some(mac), Some(new)) = (kind, mac, set_name) {
                let key = if users.bond.is_some() {
                    "PermanentMACAddress"
                } else {
                    "MACAddress"
                };
                out.push((
                    format!("10-{name}.link"),
                    format!("[Match]\n{key}={mac}\nType=ether\n\n[Link]\nName={new}\n"),
                ));
            }
            if kind != "ethernets" {
                out.push((format!("10-{name}.netdev"), netdev(kind, name, device)));
            }
            matched.insert_str(0, "[Match]\n");
            out.push((
                format!("10-{name}.network"),
                matched + &network_unit(device, &users),
            ));
        }
    }
    for (name, content) in &out {
        if content
            .lines()
            .any(|l| !l.is_empty() && !l.starts_with('[') && !l.contains('='))
        {
            return Err(InstallError::Plan(format!(
                "network: {name} would have a line that is no setting"
            )));
        }
    }
    Ok(out)
}

fn text(device: &Value, keys: &[&str]) -> Option<String> {
    let value = keys.iter().find_map(|k| device.get(*k))?;
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(if *b { "yes" } else { "no" }.to_owned()),
        _ => None,
    }
}

/// Adds `Key=value` lines; no String write fails.
fn set(out: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value {
        writeln!(out, "{key}={value}").ok();
    }
}

fn netdev(kind: &str, name: &str, device: &Value) -> String {
    let mut out = format!(
        "[NetDev]\nName={name}\nKind={}\n",
        kind.trim_end_matches('s')
    );
    set(&mut out, "MACAddress", text(device, &["macaddress"]));
    set(&mut out, "MTUBytes", text(device, &["mtu"]));
    let parameters = device.get("parameters").cloned().unwrap_or(Value::Null);
    // netplan's times are milliseconds where no unit is given.
    let milliseconds = |keys: &[&str]| {
        text(&parameters, keys).map(|v| {
            if v.bytes().all(|b| b.is_ascii_digit()) {
                format!("{v}ms")
            } else {
                v
            }
        })
    };
    match kind {
        "bonds" => {
            out.push_str("\n[Bond]\n");
            set(&mut out, "Mode", text(&parameters, &["mode"]));
            set(
                &mut out,
                "MIIMonitorSec",
                milliseconds(&["mii-monitor-interval"]),
            );
            set(
                &mut out,
                "LACPTransmitRate",
                text(&parameters, &["lacp-rate"]),
            );
            set(
                &mut out,
                "TransmitHashPolicy",
                text(&parameters, &["transmit-hash-policy"]),
            );
            set(&mut out, "UpDelaySec", milliseconds(&["up-delay"]));
            set(&mut out, "DownDelaySec", milliseconds(&["down-delay"]));
            // The first spelling is netplan's historical one.
            set(
                &mut out,
                "GratuitousARP",
                text(&parameters, &["gratuitious-arp", "gratuitous-arp"]),
            );
        }
        "bridges" => {
            out.push_str("\n[Bridge]\n");
            set(&mut out, "STP", text(&parameters, &["stp"]));
            set(
                &mut out,
                "ForwardDelaySec",
                text(&parameters, &["forward-delay"]),
            );
        }
        "vlans" => {
            out.push_str("\n[VLAN]\n");
            set(&mut out, "Id", text(device, &["id"]));
        }
        _ => {}
    }
    out
}

fn network_unit(device: &Value, users: &Users) -> String {
    let mut link = String::new();
    set(&mut link, "MTUBytes", text(device, &["mtu"]));
    if flag(device, "optional") {
        link.push_str("RequiredForOnline=no\n");
    }
    let mut network = String::new();
    let (dhcp4, dhcp6) = (flag(device, "dhcp4"), flag(device, "dhcp6"));
    let dhcp = match (dhcp4, dhcp6) {
        (true, true) => Some("yes"),
        (true, false) => Some("ipv4"),
        (false, true) => Some("ipv6"),
        (false, false) => None,
    };
    set(&mut network, "DHCP", dhcp.map(str::to_owned));
    set(&mut network, "Bond", users.bond.clone());
    set(&mut network, "Bridge", users.bridge.clone());
    for vlan in &users.vlans {
        set(&mut network, "VLAN", Some(vlan.clone()));
    }
    if users.bond.is_some() || users.bridge.is_some() {
        network.push_str("LinkLocalAddressing=no\n");
    }
    set(&mut network, "IPv6AcceptRA", text(device, &["accept-ra"]));
    for address in strings(device.get("addresses")) {
        set(&mut network, "Address", Some(address));
    }
    for key in ["gateway4", "gateway6"] {
        set(&mut network, "Gateway", text(device, &[key]));
    }
    let servers = device.get("nameservers");
    for server in strings(servers.and_then(|n| n.get("addresses"))) {
        set(&mut network, "DNS", Some(server));
    }
    let search = strings(servers.and_then(|n| n.get("search")));
    if !search.is_empty() {
        set(&mut network, "Domains", Some(search.join(" ")));
    }
    let mut out = String::new();
    if !link.is_empty() {
        out.push_str(&format!("\n[Link]\n{link}"));
    }
    out.push_str(&format!("\n[Network]\n{network}"));
    for route in device
        .get("routes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        out.push_str("\n[Route]\n");
        let to = text(route, &["to"]);
        let default = matches!(to.as_deref(), Some("default" | "0.0.0.0/0" | "::/0"));
        set(&mut out, "Destination", to.filter(|_| !default));
        set(&mut out, "Gateway", text(route, &["via"]));
        set(&mut out, "Metric", text(route, &["metric"]));
        set(&mut out, "Table", text(route, &["table"]));
        set(&mut out, "Scope", text(route, &["scope"]));
        if flag(route, "on-link") {
            out.push_str("GatewayOnLink=yes\n");
        }
    }
    for rule in device
        .get("routing-policy")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        out.push_str("\n[RoutingPolicyRule]\n");
        set(&mut out, "From", text(rule, &["from"]));
        set(&mut out, "To", text(rule, &["to"]));
        set(&mut out, "Table", text(rule, &["table"]));
        set(&mut out, "Priority", text(rule, &["priority"]));
    }
    if dhcp4 {
        // The same name for the machine that firmware and ephemeral system had: one lease, not two.
        out.push_str("\n[DHCPv4]\nClientIdentifier=mac\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unit<'a>(units: &'a [Unit], name: &str) -> &'a str {
        &units
            .iter()
            .find(|(n, _)| n == name)
            .unwrap_or_else(|| panic!("no {name} in {units:?}"))
            .1
    }

    #[test]
    fn a_static_interface_with_everything() {
        let units = networkd(&json!({"version": 2, "ethernets": {"eth0": {
            "match": {"macaddress": "52:54:00:00:00:01"}, "set-name": "eth0", "mtu": 9000, "addresses": ["10.0.0.5/24", "fd00::5/64"],
            "gateway4": "10.0.0.1", "nameservers": {"addresses": ["10.0.0.2"], "search": ["maas", "lab"]},
            "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.254", "metric": 5}, {"to": "default", "via": "10.0.0.3", "table": 10, "on-link": true}],
            "routing-policy": [{"from": "10.0.0.0/24", "table": 10, "priority": 1000}],
        }}}))
        .unwrap();
        assert_eq!(
            unit(&units, "10-eth0.link"),
            "[Match]\nMACAddress=52:54:00:00:00:01\nType=ether\n\n[Link]\nName=eth0\n"
        );
        assert_eq!(
            unit(&units, "10-eth0.network"),
            "[Match]\nMACAddress=52:54:00:00:00:01\nType=ether\n\n[Link]\nMTUBytes=9000\n\n[Network]\nAddress=10.0.0.5/24\nAddress=fd00::5/64\n\
             Gateway=10.0.0.1\nDNS=10.0.0.2\nDomains=maas lab\n\n[Route]\nDestination=10.9.0.0/16\nGateway=10.0.0.254\nMetric=5\n\n\
             [Route]\nGateway=10.0.0.3\nTable=10\nGatewayOnLink=yes\n\n[RoutingPolicyRule]\nFrom=10.0.0.0/24\nTable=10\nPriority=1000\n"
        );
    }

    #[test]
    fn dhcp_identifies_itself_by_mac() {
        let units = networkd(
            &json!({"ethernets": {"ens3": {"dhcp4": true, "dhcp6": "yes", "optional": true}}}),
        )
        .unwrap();
        assert_eq!(
            unit(&units, "10-ens3.network"),
            "[Match]\nName=ens3\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n"
        );
    }

    #[test]
    fn bonds_bridges_and_vlans_refer_to_each_other() {
        let units = networkd(&json!({
            "ethernets": {"eth0": {"match": {"macaddress": "52:54:00:00:00:01"}, "set-name": "eth0"}, "eth1": {"match": {"macaddress": "52:54:00:00:00:02"}}},
            "bonds": {"bond0": {"interfaces": ["eth0", "eth1"], "macaddress": "52:54:00:00:00:01", "parameters": {"mode": "802.3ad", "mii-monitor-interval": 100, "lacp-rate": "fast"}}},
            "vlans": {"bond0.7": {"id": 7, "link": "bond0"}},
            "bridges": {"br0": {"interfaces": ["bond0.7"], "addresses": ["10.0.0.5/24"], "parameters": {"stp": false, "forward-delay": 15}}},
        }))
        .unwrap();
        assert!(
            unit(&units, "10-eth0.network")
                .starts_with("[Match]\nPermanentMACAddress=52:54:00:00:00:01\n")
        );
        assert!(unit(&units, "10-eth1.network").contains("Bond=bond0\n"));
        assert!(
            unit(&units, "10-bond0.netdev").contains("Kind=bond\n")
                && unit(&units, "10-bond0.netdev")
                    .contains("MIIMonitorSec=100ms\nLACPTransmitRate=fast\n")
        );
        assert!(unit(&units, "10-bond0.network").contains("VLAN=bond0.7\n"));
        assert!(
            unit(&units, "10-bond0.7.netdev").contains("Kind=vlan\n")
                && unit(&units, "10-bond0.7.netdev").contains("Id=7\n")
        );
        assert!(unit(&units, "10-bond0.7.network").contains("Bridge=br0\n"));
        assert!(unit(&units, "10-br0.netdev").contains("STP=no\nForwardDelaySec=15\n"));
    }

    #[test]
    fn a_value_cannot_add_lines() {
        let sneaky = json!({"ethernets": {"eth0": {"addresses": ["10.0.0.5/24\nrubbish"]}}});
        assert!(networkd(&sneaky).is_err());
        assert!(networkd(&json!({"ethernets": {"../../x": {}}})).is_err());
    }
}
