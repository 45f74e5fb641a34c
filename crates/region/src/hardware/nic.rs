//! Network interfaces after commissioning, and the network configuration that a machine starts with.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use metal::Timestamp;
use store::Tx;

use crate::error::ApiError;
use crate::hardware::Found;
use crate::hardware::inventory::Port;
use crate::interface::{AUTO, DHCP, InterfaceRow, STICKY};
use crate::ipam;
use crate::node::{NodeRow, row};
use crate::select_interface;
use crate::setting;
use crate::subnet::{self, SubnetRow, narrowest};

/// Brings the physical interfaces of a node in line with the ports that were found.
pub(super) async fn update(
    tx: &mut Tx,
    node: &NodeRow,
    ports: &[Port],
    found: Found,
    now: Timestamp,
) -> Result<(), ApiError> {
    let have = store::all!(
        tx,
        InterfaceRow,
        select_interface!("WHERE i.node_id = $1 ORDER BY i.id"),
        node.id
    )?;
    let subnets = subnet::all(tx).await?;
    take_from_others(tx, node, ports, now).await?;
    let (physical, others): (Vec<_>, Vec<_>) =
        have.into_iter().partition(|i| i.r#type == "physical");
    // Names may have changed places: out of the way with all of them first.
    store::exec!(
        tx,
        "UPDATE interface SET name = '#' || id WHERE node_id = $1 AND type = 'physical'",
        node.id
    )?;
    let mut names: BTreeSet<String> = others.into_iter().map(|i| i.name).collect();
    let mut left: HashMap<String, InterfaceRow> = HashMap::new();
    let mut gone: Vec<InterfaceRow> = Vec::new();
    for i in physical {
        match i.mac.clone() {
            Some(mac) => {
                left.insert(mac, i);
            }
            None => gone.push(i),
        }
    }
    for p in ports {
        let name = free_name(&mut names, &p.name);
        let vlan = observed(tx, &p.mac, &p.addresses, &subnets)
            .await?
            .map(|s| s.vlan_id);
        match left.remove(&p.mac) {
            Some(old) => {
                // What people have configured stays where the configuration is to stay.
                let vlan = match found {
                    Found::Keep => old.vlan_id.or(vlan),
                    Found::Reset if p.connected => vlan.or(old.vlan_id),
                    Found::Reset => vlan,
                };
                store::exec!(
                    tx,
                    "UPDATE interface SET name = $2, vendor = $3, product = $4, firmware_version = $5, link_connected = $6, \
                     interface_speed = $7, link_speed = $8, numa_index = $9, sriov_max_vf = $10, vlan_id = $11, updated = $12 WHERE id = $1",
                    old.id,
                    name,
                    &p.vendor,
                    &p.product,
                    &p.firmware_version,
                    p.connected,
                    p.interface_speed,
                    p.link_speed,
                    p.numa,
                    p.sriov_max_vf,
                    vlan,
                    now.0
                )?;
            }
            None => {
                store::exec!(
                    tx,
                    "INSERT INTO interface (node_id, name, type, mac, vlan_id, vendor, product, firmware_version, link_connected, \
                     interface_speed, link_speed, numa_index, sriov_max_vf, created, updated) \
                     VALUES ($1, $2, 'physical', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
                    node.id,
                    name,
                    &p.mac,
                    vlan,
                    &p.vendor,
                    &p.product,
                    &p.firmware_version,
                    p.connected,
                    p.interface_speed,
                    p.link_speed,
                    p.numa,
                    p.sriov_max_vf,
                    now.0
                )?;
            }
        }
    }
    gone.extend(left.into_values());
    gone.sort_by_key(|i| i.id);
    for i in gone {
        // The machine has just booted from it, whatever the inventory says.
        if found == Found::Keep || node.boot_interface_id == Some(i.id) {
            let name = free_name(&mut names, &i.name);
            store::exec!(
                tx,
                "UPDATE interface SET name = $2 WHERE id = $1",
                i.id,
                name
            )?;
        } else {
            store::exec!(tx, "DELETE FROM interface WHERE id = $1", i.id)?;
        }
    }
    boot_interface(tx, node, &subnets).await
}

/// A name that is not yet taken, as close to the one wished for as can be.
pub(crate) fn free_name(names: &mut BTreeSet<String>, wish: &str) -> String {
    let mut name = wish.to_owned();
    let mut n = 2;
    while names.contains(&name) {
        name = format!("{}-{n}", wish.chars().take(10).collect::<String>());
        n += 1;
    }
    names.insert(name.clone());
    name
}

/// Cards that were in another machine before: what was configured there went with them.
async fn take_from_others(
    tx: &mut Tx,
    node: &NodeRow,
    ports: &[Port],
    now: Timestamp,
) -> Result<(), ApiError> {
    let macs: Vec<&str> = ports.iter().map(|p| p.mac.as_str()).collect();
    let moved = store::all!(
        tx,
        (i64, i64),
        "SELECT i.id, i.node_id FROM interface i WHERE i.type = 'physical' AND i.node_id <> $1 AND i.mac IN @texts($2) ORDER BY i.id",
        node.id,
        serde_json::to_string(&macs).unwrap_or_default()
    )?;
    for (id, from) in moved {
        store::exec!(tx, "DELETE FROM interface WHERE id = $1", id)?;
        store::exec!(
            tx,
            "UPDATE node SET boot_interface_id = NULL WHERE id = $1 AND boot_interface_id = $2",
            from,
            id
        )?;
        row::touch(tx, from, now).await?;
    }
    Ok(())
}

/// The subnet that an interface is seen in: that of its lease, else of an address that it had when the
/// inventory was taken.
async fn observed<'a>(
    tx: &mut Tx,
    mac: &str,
    addresses: &[IpAddr],
    subnets: &'a HashMap<i64, SubnetRow>,
) -> Result<Option<&'a SubnetRow>, ApiError> {
    let lease = store::opt!(
        tx,
        (i64,),
        "SELECT subnet_id FROM lease WHERE mac = $1 ORDER BY updated DESC LIMIT 1",
        mac
    )?;
    if let Some(s) = lease.and_then(|(id,)| subnets.get(&id)) {
        return Ok(Some(s));
    }
    Ok(addresses.iter().find_map(|ip| narrowest(subnets, *ip)))
}

/// Makes sure that the node has a boot interface: the one it has, else the one that is seen in a network.
async fn boot_interface(
    tx: &mut Tx,
    node: &NodeRow,
    subnets: &HashMap<i64, SubnetRow>,
) -> Result<(), ApiError> {
    let rows = interfaces(tx, node.id).await?;
    if rows.iter().any(|i| Some(i.id) == node.boot_interface_id) {
        return Ok(());
    }
    let mut chosen = None;
    for i in &rows {
        let mac = i.mac.as_deref().unwrap_or("");
        if observed(tx, mac, &[], subnets).await?.is_some() {
            chosen = Some(i.id);
            break;
        }
    }
    let chosen = chosen
        .or_else(|| rows.iter().find(|i| i.link_connected).map(|i| i.id))
        .or_else(|| rows.first().map(|i| i.id));
    store::exec!(
        tx,
        "UPDATE node SET boot_interface_id = $2 WHERE id = $1",
        node.id,
        chosen
    )?;
    Ok(())
}

async fn interfaces(tx: &mut Tx, node: i64) -> Result<Vec<InterfaceRow>, ApiError> {
    Ok(store::all!(
        tx,
        InterfaceRow,
        select_interface!("WHERE i.node_id = $1 AND i.type = 'physical' ORDER BY i.id"),
        node
    )?)
}

/// Replaces the network configuration of a node by the one that machines start with: the interface that it
/// boots from has an address in its subnet, the others are up.
pub(super) async fn configure(
    tx: &mut Tx,
    node: &NodeRow,
    ports: &[Port],
    now: Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "DELETE FROM interface WHERE node_id = $1 AND type NOT IN ('physical', 'unknown')",
        node.id
    )?;
    store::exec!(
        tx,
        "DELETE FROM ip_address WHERE interface_id IN (SELECT i.id FROM interface i WHERE i.node_id = $1)",
        node.id
    )?;
    store::exec!(
        tx,
        "UPDATE node SET default_gateway_v4_id = NULL, default_gateway_v6_id = NULL WHERE id = $1",
        node.id
    )?;
    let (boot, client) = store::one!(
        tx,
        (Option<i64>, Option<String>),
        "SELECT boot_interface_id, boot_client_ip FROM node WHERE id = $1",
        node.id
    )?;
    let client: Option<IpAddr> = client.and_then(|c| c.parse().ok());
    let subnets = subnet::all(tx).await?;
    let mode = setting::text(tx, "default_boot_interface_link_type").await?;
    for i in interfaces(tx, node.id).await? {
        let mac = i.mac.as_deref().unwrap_or("");
        let addresses = ports
            .iter()
            .find(|p| p.mac == mac)
            .map_or(&[][..], |p| &p.addresses);
        let is_boot = Some(i.id) == boot;
        let seen = match observed(tx, mac, addresses, &subnets).await? {
            None if is_boot => client.and_then(|ip| narrowest(&subnets, ip)),
            seen => seen,
        };
        if let Some(s) = seen
            && i.vlan_id != Some(s.vlan_id)
        {
            store::exec!(
                tx,
                "UPDATE interface SET vlan_id = $2 WHERE id = $1",
                i.id,
                s.vlan_id
            )?;
        }
        let vlan = seen.map(|s| s.vlan_id).or(i.vlan_id);
        let subnet = seen.or_else(|| first_of(&subnets, vlan));
        match (subnet, is_boot) {
            (Some(s), true) => boot_link(tx, &i, s, &mode, now).await?,
            (subnet, _) if vlan.is_some() => {
                link(tx, i.id, subnet.map(|s| s.id), STICKY, None, now).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The subnet of a VLAN to link interfaces to that were not seen in any: a managed one first.
pub(crate) fn first_of(subnets: &HashMap<i64, SubnetRow>, vlan: Option<i64>) -> Option<&SubnetRow> {
    subnets
        .values()
        .filter(|s| Some(s.vlan_id) == vlan)
        .min_by_key(|s| (!s.managed, s.id))
}

async fn boot_link(
    tx: &mut Tx,
    i: &InterfaceRow,
    s: &SubnetRow,
    mode: &str,
    now: Timestamp,
) -> Result<(), ApiError> {
    match mode {
        "dhcp" => link(tx, i.id, Some(s.id), DHCP, None, now).await,
        "link_up" => link(tx, i.id, Some(s.id), STICKY, None, now).await,
        "static" => {
            let mut addresses = ipam::addresses(tx, s.id, now).await?;
            match addresses.take(tx, i.mac.as_deref()).await {
                Ok(ip) => link(tx, i.id, Some(s.id), STICKY, Some(ip), now).await,
                // A full subnet is said at deployment, not at the end of a commissioning that went well.
                Err(ApiError::Unavailable(..)) => link(tx, i.id, Some(s.id), AUTO, None, now).await,
                Err(e) => Err(e),
            }
        }
        _ => link(tx, i.id, Some(s.id), AUTO, None, now).await,
    }
}

/// Links an interface to a subnet.
pub(crate) async fn link(
    tx: &mut Tx,
    interface: i64,
    subnet: Option<i64>,
    alloc_type: i64,
    ip: Option<IpAddr>,
    now: Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "INSERT INTO ip_address (ip, alloc_type, subnet_id, interface_id, created, updated) VALUES ($1, $2, $3, $4, $5, $5)",
        ip.map(|ip| ip.to_string()),
        alloc_type,
        subnet,
        interface,
        now.0
    )?;
    Ok(())
}
