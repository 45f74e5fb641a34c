//! A rack presents itself: its node, its interfaces, and the networks that nobody had told us of.

use std::net::IpAddr;
use std::sync::Arc;

use link::message::{Hello, Interface, Welcome};
use metal::status::Status;
use metal::{SystemId, Timestamp};
use rand::Rng as _;
use store::Tx;

use crate::error::ApiError;
use crate::node::row::{self, RACK, REGION_AND_RACK};
use crate::region::Region;
use crate::{setting, subnet};

/// Keeps what a rack says of itself and tells it who it is.
///
/// # Errors
/// 403 for a rack whose certificate belongs to another, or to none.
pub async fn hello(
    region: &Arc<Region>,
    hello: Hello,
    fingerprint: Option<String>,
    now: Timestamp,
) -> Result<Welcome, ApiError> {
    let name = region.config.name.clone();
    let fresh = SystemId::from_random(rand::rng().random());
    let (system_id, last_batch) = region
        .db
        .write(move |tx| {
            let (hello, fingerprint, name, fresh) = (hello.clone(), fingerprint.clone(), name.clone(), fresh.clone());
            Box::pin(async move {
                let (id, system_id) = identify(tx, &hello, fingerprint.as_deref(), &fresh, now).await?;
                store::exec!(
                    tx,
                    "UPDATE rack_state SET services = $2, interfaces = $3, program = $4, connected_region = $5, last_seen = $6 WHERE node_id = $1",
                    id,
                    serde_json::to_string(&hello.services).unwrap_or_default(),
                    serde_json::to_string(&hello.interfaces).unwrap_or_default(),
                    &hello.program,
                    &name,
                    now.0
                )?;
                interfaces(tx, id, &hello.interfaces, now).await?;
                let (last,) = store::one!(tx, (i64,), "SELECT last_batch FROM rack_state WHERE node_id = $1", id)?;
                Ok::<_, ApiError>((system_id, last))
            })
        })
        .await?;
    tracing::info!(rack = %system_id, "a rack has connected");
    Ok(Welcome {
        rack: system_id,
        version: link::VERSION,
        last_batch: u64::try_from(last_batch).unwrap_or(0),
    })
}

/// The node of the rack: by its certificate, or, in the all-in-one, the one rack that has none.
async fn identify(
    tx: &mut Tx,
    hello: &Hello,
    fingerprint: Option<&str>,
    fresh: &SystemId,
    now: Timestamp,
) -> Result<(i64, SystemId), ApiError> {
    let found = match fingerprint {
        Some(f) => store::opt!(
            tx,
            (i64, String),
            "SELECT n.id, n.system_id FROM rack_state r JOIN node n ON n.id = r.node_id WHERE r.fingerprint = $1",
            f
        )?,
        None => store::opt!(
            tx,
            (i64, String),
            "SELECT n.id, n.system_id FROM rack_state r JOIN node n ON n.id = r.node_id WHERE r.fingerprint IS NULL AND n.hostname = $1",
            short(&hello.hostname)
        )?,
    };
    match (found, fingerprint) {
        (Some((id, system_id)), _) => Ok((id, SystemId(system_id))),
        (None, Some(_)) => Err(ApiError::Forbidden(
            "this rack's certificate is not known: register it anew with a one-time secret (maas-rack register)".to_owned(),
        )),
        (None, None) => {
            // A region that had its rack deleted, or has had none.
            let region = store::opt!(
                tx,
                (i64, String),
                "UPDATE node SET node_type = $2 WHERE hostname = $1 AND node_type = 3 RETURNING id, system_id",
                short(&hello.hostname),
                REGION_AND_RACK
            )?;
            if let Some((id, system_id)) = region {
                store::exec!(tx, "INSERT INTO rack_state (node_id) VALUES ($1)", id)?;
                row::touch(tx, id, now).await?;
                return Ok((id, SystemId(system_id)));
            }
            let id = create(tx, &hello.hostname, REGION_AND_RACK, None, fresh, now).await?;
            Ok((id, fresh.clone()))
        }
    }
}

/// The first part of a host name, with hyphens for what cannot be in one.
#[must_use]
pub fn short(hostname: &str) -> String {
    let s: String = hostname
        .split('.')
        .next()
        .unwrap_or("")
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    if s.is_empty() { "rack".to_owned() } else { s }
}

/// Makes the node of a controller.
///
/// # Errors
/// When the database fails.
pub async fn create(
    tx: &mut Tx,
    hostname: &str,
    node_type: i64,
    fingerprint: Option<&str>,
    system_id: &SystemId,
    now: Timestamp,
) -> Result<i64, ApiError> {
    let mut name = short(hostname);
    let taken = store::opt!(
        tx,
        (i64,),
        "SELECT id FROM node WHERE hostname = $1 AND domain_id = 0",
        &name
    )?;
    if taken.is_some() {
        name = format!("{}-{system_id}", name.chars().take(50).collect::<String>());
    }
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO node (system_id, node_type, hostname, domain_id, zone_id, status, previous_status, status_since, power_type, created, updated) \
         SELECT $1, $2, $3, d.id, z.id, $4, $4, $5, 'manual', $5, $5 FROM domain d, zone z WHERE d.is_default AND z.name = 'default' RETURNING id",
        &system_id.0,
        node_type,
        &name,
        Status::Deployed.code(),
        now.0
    )?;
    store::exec!(
        tx,
        "INSERT INTO rack_state (node_id, fingerprint) VALUES ($1, $2)",
        id,
        fingerprint
    )?;
    row::touch(tx, id, now).await?;
    Ok(id)
}

/// Whether a node type carries rack services.
#[must_use]
pub const fn is_rack(node_type: i64) -> bool {
    matches!(node_type, RACK | REGION_AND_RACK)
}

/// Keeps the interfaces and addresses of a rack; networks that are new to us get a subnet, in a fabric
/// of their own unless it is the very first.
///
/// # Errors
/// When the database fails.
pub async fn interfaces(
    tx: &mut Tx,
    node: i64,
    interfaces: &[Interface],
    now: Timestamp,
) -> Result<(), ApiError> {
    let learn = setting::flag(tx, "auto_vlan_creation").await?;
    let mut kept = Vec::new();
    for i in interfaces.iter().filter(|i| i.name != "lo") {
        let mut vlan = None;
        let mut linked = Vec::new();
        for a in i.addresses.iter().filter(|a| !is_local_only(a.addr())) {
            let found = subnet::all(tx)
                .await?
                .into_values()
                .find(|s| s.contains(a.addr()));
            let (subnet_id, vlan_id) = match found {
                Some(s) => (s.id, s.vlan_id),
                None if learn && a.prefix_len() < a.max_prefix_len() => {
                    new_subnet(tx, a.trunc().to_string(), vlan, now).await?
                }
                None => continue,
            };
            vlan = vlan.or(Some(vlan_id));
            linked.push((a.addr().to_string(), subnet_id));
        }
        let (id,) = store::one!(
            tx,
            (i64,),
            "INSERT INTO interface (node_id, name, type, mac, vlan_id, created, updated) VALUES ($1, $2, 'unknown', $3, $4, $5, $5) \
             ON CONFLICT (node_id, name) DO UPDATE SET mac = excluded.mac, \
             vlan_id = COALESCE(excluded.vlan_id, interface.vlan_id), updated = excluded.updated RETURNING id",
            node,
            &i.name,
            i.mac.map(|m| m.to_string()),
            vlan,
            now.0
        )?;
        kept.push(id);
        let have = store::all!(
            tx,
            (i64, Option<String>),
            "SELECT id, ip FROM ip_address WHERE interface_id = $1",
            id
        )?;
        for (address, ip) in &have {
            if !linked.iter().any(|(l, _)| Some(l) == ip.as_ref()) {
                store::exec!(tx, "DELETE FROM ip_address WHERE id = $1", *address)?;
            }
        }
        for (ip, subnet_id) in linked {
            if !have.iter().any(|(_, h)| h.as_ref() == Some(&ip)) {
                // Somebody else may hold it: then there is a conflict to be seen, not to be hidden.
                let done = store::exec!(
                    tx,
                    "INSERT INTO ip_address (ip, alloc_type, subnet_id, interface_id, created, updated) VALUES ($1, 1, $2, $3, $4, $4) \
                     ON CONFLICT DO NOTHING",
                    &ip,
                    subnet_id,
                    id,
                    now.0
                )?;
                if done == 0 {
                    tracing::warn!(%ip, "a rack has an address that is assigned to something else");
                }
            }
        }
    }
    let kept = serde_json::to_string(&kept).unwrap_or_default();
    store::exec!(
        tx,
        "DELETE FROM interface WHERE node_id = $1 AND id NOT IN @ids($2)",
        node,
        &kept
    )?;
    row::touch(tx, node, now).await
}

fn is_local_only(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local(),
    }
}

/// A subnet that a rack is on: in the VLAN of the interface's other networks, else in the first fabric
/// while that is empty, else in a new one.
async fn new_subnet(
    tx: &mut Tx,
    cidr: String,
    vlan: Option<i64>,
    now: Timestamp,
) -> Result<(i64, i64), ApiError> {
    let vlan = match vlan {
        Some(v) => v,
        None => {
            let empty = store::opt!(
                tx,
                (i64,),
                "SELECT v.id FROM vlan v WHERE v.fabric_id = 0 AND v.vid = 0 AND NOT EXISTS (SELECT 1 FROM subnet s WHERE s.vlan_id = v.id)"
            )?;
            match empty {
                Some((v,)) => v,
                None => {
                    let (fabric,) = store::one!(
                        tx,
                        (i64,),
                        "INSERT INTO fabric (name) VALUES (NULL) RETURNING id"
                    )?;
                    let (v,) = store::one!(
                        tx,
                        (i64,),
                        "INSERT INTO vlan (fabric_id, vid) VALUES ($1, 0) RETURNING id",
                        fabric
                    )?;
                    tx.changed("fabric", fabric, 0, now).await?;
                    tx.changed("vlan", v, 0, now).await?;
                    v
                }
            }
        }
    };
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO subnet (vlan_id, cidr, name) VALUES ($1, $2, $2) RETURNING id",
        vlan,
        &cidr
    )?;
    tx.changed("subnet", id, 0, now).await?;
    Ok((id, vlan))
}
