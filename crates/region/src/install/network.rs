//! The network of an installed system.

use std::collections::BTreeMap;

use metal::interface::Kind;
use serde_json::{Map, Value, json};

use crate::interface::{DHCP, InterfaceRow};
use crate::node::{NodeRow, View};
use crate::static_route::RouteRow;
use crate::subnet::texts;

/// The network of the installed system as netplan version 2.
pub(super) fn netplan(node: &NodeRow, view: &View, ways: &[RouteRow]) -> Value {
    let mut kinds: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    kinds.insert("ethernets", Map::new());
    let mut have = Have::default();
    let none = Vec::new();
    for i in view.interfaces_of(node.id).iter().filter(|i| i.enabled) {
        let (Some(mac), name) = (&i.mac, &i.name) else {
            continue;
        };
        let parents = view.around.parents.get(&i.id).unwrap_or(&none);
        let params = i.params_map();
        let mut e = Map::new();
        let kind = match Kind::of(&i.r#type) {
            Kind::Physical => {
                e.insert("match".into(), json!({ "macaddress": mac }));
                e.insert("set-name".into(), name.clone().into());
                "ethernets"
            }
            Kind::Bond => {
                e.insert("interfaces".into(), json!(parents));
                e.insert("macaddress".into(), mac.clone().into());
                e.insert("parameters".into(), bond_parameters(&params));
                "bonds"
            }
            Kind::Bridge => {
                e.insert("interfaces".into(), json!(parents));
                e.insert("macaddress".into(), mac.clone().into());
                let stp = params.get("bridge_stp").cloned().unwrap_or(false.into());
                let fd = params.get("bridge_fd").cloned().unwrap_or(15.into());
                e.insert(
                    "parameters".into(),
                    json!({ "stp": stp, "forward-delay": fd }),
                );
                if params.get("bridge_type").and_then(Value::as_str) == Some("ovs") {
                    e.insert("openvswitch".into(), json!({}));
                }
                "bridges"
            }
            Kind::Vlan => {
                let vlan = i.vlan_id.and_then(|v| view.around.vlans.get(&v));
                let (Some(vlan), Some(parent)) = (vlan, parents.first()) else {
                    continue;
                };
                e.insert("id".into(), vlan.vid.into());
                e.insert("link".into(), parent.clone().into());
                "vlans"
            }
            Kind::Other => continue,
        };
        e.insert("mtu".into(), i.effective_mtu(&view.around.vlans).into());
        if let Some(ra) = params.get("accept_ra").and_then(Value::as_bool) {
            e.insert("accept-ra".into(), ra.into());
        }
        add_links(&mut e, i, view, &mut have, node, ways);
        kinds
            .entry(kind)
            .or_default()
            .insert(name.clone(), Value::Object(e));
    }
    let mut network = Map::new();
    network.insert("version".into(), 2.into());
    for (kind, devices) in kinds {
        network.insert(kind.to_owned(), Value::Object(devices));
    }
    json!({ "network": network })
}

/// The parameters of a bond as netplan names them; those that mean nothing in its mode are left out.
fn bond_parameters(params: &Map<String, Value>) -> Value {
    let mode = params
        .get("bond_mode")
        .and_then(Value::as_str)
        .unwrap_or("balance-rr");
    let mut out = Map::new();
    out.insert("mode".into(), mode.into());
    let mut put = |key: &str, name: &str, fits: bool| {
        if let Some(v) = params.get(name).filter(|_| fits) {
            out.insert(key.to_owned(), v.clone());
        }
    };
    put("mii-monitor-interval", "bond_miimon", true);
    put("up-delay", "bond_updelay", true);
    put("down-delay", "bond_downdelay", true);
    put("lacp-rate", "bond_lacp_rate", mode == "802.3ad");
    let hashes = matches!(mode, "balance-xor" | "802.3ad" | "balance-tlb");
    put("transmit-hash-policy", "bond_xmit_hash_policy", hashes);
    let announces = mode == "active-backup";
    put("gratuitous-arp", "bond_num_grat_arp", announces);
    Value::Object(out)
}

/// The families that have their default route already.
#[derive(Default)]
struct Have {
    v4: bool,
    v6: bool,
}

fn add_links(
    e: &mut Map<String, Value>,
    i: &InterfaceRow,
    view: &View,
    have: &mut Have,
    node: &NodeRow,
    ways: &[RouteRow],
) {
    let mut addresses = Vec::new();
    let mut routes = Vec::new();
    let mut dns: Vec<String> = Vec::new();
    let links = view.around.links.get(&i.id).map_or(&[][..], Vec::as_slice);
    for l in links {
        let Some(subnet) = l.subnet_id.and_then(|s| view.around.subnets.get(&s)) else {
            continue;
        };
        let v6 = subnet.cidr.contains(':');
        if l.alloc_type == DHCP {
            e.insert(if v6 { "dhcp6" } else { "dhcp4" }.to_owned(), true.into());
            continue;
        }
        let Some(ip) = &l.ip else { continue };
        let prefix = subnet.cidr.split('/').nth(1).unwrap_or("32");
        addresses.push(format!("{ip}/{prefix}"));
        let (chosen, have) = if v6 {
            (node.default_gateway_v6_id, &mut have.v6)
        } else {
            (node.default_gateway_v4_id, &mut have.v4)
        };
        if let Some(gateway) = &subnet.gateway_ip
            && chosen.is_none_or(|c| c == l.id)
            && !*have
        {
            *have = true;
            routes.push(json!({ "to": "default", "via": gateway }));
        }
        // Once for each subnet, however many addresses the interface has in it.
        for way in ways.iter().filter(|w| w.source_id == subnet.id) {
            if let Some(to) = view.around.subnets.get(&way.destination_id) {
                let route = json!({ "to": to.cidr, "via": way.gateway_ip, "metric": way.metric });
                if !routes.contains(&route) {
                    routes.push(route);
                }
            }
        }
        let own = texts(&subnet.dns_servers);
        let rack = if subnet.allow_dns {
            node.boot_rack_ip.clone()
        } else {
            None
        };
        for server in if own.is_empty() {
            rack.into_iter().collect()
        } else {
            own
        } {
            if !dns.contains(&server) {
                dns.push(server);
            }
        }
    }
    if links.is_empty()
        || addresses.is_empty() && !e.contains_key("dhcp4") && !e.contains_key("dhcp6")
    {
        e.insert("optional".into(), true.into());
    }
    if !addresses.is_empty() {
        e.insert("addresses".into(), addresses.into());
        e.insert(
            "nameservers".into(),
            json!({ "addresses": dns, "search": [node.domain_name] }),
        );
    }
    if !routes.is_empty() {
        e.insert("routes".into(), routes.into());
    }
}
