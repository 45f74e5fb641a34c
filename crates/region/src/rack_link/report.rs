//! What racks report, stored once.

use std::sync::Arc;

use link::message::{Batch, BootConfig, Lease, LeaseEvent, PassedRequest, Report};
use metal::boot::Purpose;
use metal::timeline::Entry;
use metal::{SystemId, Timestamp};
use store::Tx;
use store::timeline::Who;

use super::{port, register};
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::lifecycle;
use crate::node::row;
use crate::region::Region;

/// Stores a batch: all of it and once, however often it arrives.
///
/// # Errors
/// 400 for a batch that leaves a gap, 403 for a rack that is not known.
pub async fn store(
    region: &Arc<Region>,
    rack: &SystemId,
    batch: Batch,
    now: Timestamp,
) -> Result<(), ApiError> {
    let number = i64::try_from(batch.number)
        .map_err(|_| ApiError::Bad("the batch's number is too large".to_owned()))?;
    // What goes elsewhere than into the database is done first: done twice it changes nothing that counts,
    // left out it would be lost.
    let mut tx = region.db.read().await?;
    let known = store::opt!(
        tx,
        (i64, i64),
        "SELECT r.node_id, r.last_batch FROM rack_state r JOIN node n ON n.id = r.node_id WHERE n.system_id = $1",
        &rack.0
    )?;
    drop(tx);
    let Some((rack_id, last)) = known else {
        return Err(ApiError::Forbidden(format!(
            "no rack controller {rack} is known"
        )));
    };
    if number <= last {
        return Ok(());
    }
    let mut rows = Vec::new();
    let mut seen = Vec::new();
    for report in batch.reports {
        match report {
            Report::Timeline { entries } => seen.extend(entries),
            Report::Passed { request, at } => passed(region, rack, request, at).await,
            other => rows.push(other),
        }
    }
    record(
        region,
        Some(store::timeline::Batch {
            source: rack.0.clone(),
            number,
        }),
        seen,
    )
    .await;
    region
        .db
        .write(move |tx| {
            let rows = rows.clone();
            Box::pin(async move {
                let newer = store::exec!(
                    tx,
                    "UPDATE rack_state SET last_batch = $2, last_seen = $3 WHERE node_id = $1 AND last_batch < $2",
                    rack_id,
                    number,
                    now.0
                )?;
                if newer == 0 {
                    return Ok(());
                }
                for r in rows {
                    apply(tx, rack_id, r, now).await?;
                }
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// Puts entries into the boots they belong to. The machine of an address is filled in where it is known.
pub async fn timeline(region: &Region, entries: Vec<Entry>) {
    record(region, None, entries).await;
}

async fn record(region: &Region, batch: Option<store::timeline::Batch>, mut entries: Vec<Entry>) {
    if entries.is_empty() {
        return;
    }
    if let Err(e) = resolve(region, &mut entries).await {
        tracing::warn!(error = %e, "the machines of timeline entries could not be looked up");
    }
    let mut groups: Vec<(Who, Vec<Entry>)> = Vec::new();
    for e in entries {
        if e.mac.is_none() && e.system_id.is_none() {
            continue;
        }
        let same = |w: &Who| match (&w.system_id, &e.system_id) {
            (Some(a), Some(b)) => a == b,
            (None, None) => w.mac == e.mac,
            _ => false,
        };
        match groups.iter_mut().find(|(w, _)| same(w)) {
            Some((w, list)) => {
                w.mac = w.mac.or(e.mac);
                list.push(e);
            }
            None => groups.push((
                Who {
                    system_id: e.system_id.clone(),
                    mac: e.mac,
                },
                vec![e],
            )),
        }
    }
    if let Err(e) = region.timeline.append_all(batch, groups).await {
        tracing::warn!(error = %e, "timeline entries were lost");
    }
}

async fn resolve(region: &Region, entries: &mut [Entry]) -> Result<(), ApiError> {
    let macs: Vec<String> = entries
        .iter()
        .filter(|e| e.system_id.is_none())
        .filter_map(|e| e.mac)
        .map(|m| m.to_string())
        .collect();
    if macs.is_empty() {
        return Ok(());
    }
    let mut tx = region.db.read().await?;
    let rows = store::all!(
        tx,
        (String, String),
        "SELECT i.mac, n.system_id FROM interface i JOIN node n ON n.id = i.node_id WHERE i.type = 'physical' AND i.mac IN @texts($1)",
        serde_json::to_string(&macs).unwrap_or_default()
    )?;
    for e in entries.iter_mut().filter(|e| e.system_id.is_none()) {
        let mac = e.mac.map(|m| m.to_string());
        e.system_id = rows
            .iter()
            .find(|(m, _)| Some(m) == mac.as_ref())
            .map(|(_, s)| SystemId(s.clone()));
    }
    Ok(())
}

/// A request that the rack took while we were away.
async fn passed(region: &Arc<Region>, rack: &SystemId, request: PassedRequest, at: Timestamp) {
    let answer = port::pass(region, rack, request.clone()).await;
    if answer.status >= 400 {
        tracing::warn!(%rack, status = answer.status, ?request, spooled = at.0, "a request that was kept for us was refused");
    }
}

async fn apply(tx: &mut Tx, rack: i64, report: Report, now: Timestamp) -> Result<(), ApiError> {
    match report {
        Report::Lease(l) => lease(tx, rack, &l, now).await,
        Report::BootConfig(b) => boot_config(tx, &b).await,
        Report::ForeignDhcp { vlan_id, server } => {
            let text = server.map(|s| s.to_string());
            let changed = store::exec!(
                tx,
                "UPDATE vlan SET external_dhcp = $2 WHERE id = $1 AND external_dhcp IS DISTINCT FROM $2",
                vlan_id,
                &text
            )?;
            if changed > 0 {
                tx.changed("vlan", vlan_id, 0, now).await?;
                if let Some(s) = text {
                    let why = format!(
                        "{s} answers DHCP on VLAN {vlan_id}; the rack does not serve there beside it."
                    );
                    event::add(tx, Kind::ForeignDhcp, None, "", &why, now).await?;
                }
            }
            Ok(())
        }
        Report::Interfaces { interfaces } => {
            store::exec!(
                tx,
                "UPDATE rack_state SET interfaces = $2 WHERE node_id = $1",
                rack,
                serde_json::to_string(&interfaces).unwrap_or_default()
            )?;
            register::interfaces(tx, rack, &interfaces, now).await
        }
        Report::Services { services } => {
            store::exec!(
                tx,
                "UPDATE rack_state SET services = $2 WHERE node_id = $1",
                rack,
                serde_json::to_string(&services).unwrap_or_default()
            )?;
            Ok(())
        }
        // Not for the database: done before.
        Report::Timeline { .. } | Report::Passed { .. } => Ok(()),
    }
}

async fn lease(tx: &mut Tx, rack: i64, l: &Lease, now: Timestamp) -> Result<(), ApiError> {
    match l.event {
        LeaseEvent::Commit => {
            let known = store::opt!(
                tx,
                (i64,),
                "SELECT id FROM subnet WHERE id = $1",
                l.subnet_id
            )?;
            if known.is_none() {
                // The subnet was deleted meanwhile.
                return Ok(());
            }
            store::exec!(
                tx,
                "INSERT INTO lease (ip, mac, subnet_id, hostname, rack_id, until, updated) VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT (ip) DO UPDATE SET mac = excluded.mac, subnet_id = excluded.subnet_id, hostname = excluded.hostname, \
                 rack_id = excluded.rack_id, until = excluded.until, updated = excluded.updated",
                l.ip.to_string(),
                l.mac.to_string(),
                l.subnet_id,
                &l.hostname,
                rack,
                l.until.0,
                now.0
            )?;
            // An interface whose VLAN nobody knew is where its lease is.
            store::exec!(
                tx,
                "UPDATE interface SET vlan_id = (SELECT s.vlan_id FROM subnet s WHERE s.id = $2) WHERE mac = $1 AND vlan_id IS NULL AND type = 'physical'",
                l.mac.to_string(),
                l.subnet_id
            )?;
        }
        LeaseEvent::Expiry | LeaseEvent::Release => {
            store::exec!(
                tx,
                "DELETE FROM lease WHERE ip = $1 AND mac = $2",
                l.ip.to_string(),
                l.mac.to_string()
            )?;
        }
    }
    tx.changed("lease", l.ip, 0, now).await?;
    Ok(())
}

async fn boot_config(tx: &mut Tx, b: &BootConfig) -> Result<(), ApiError> {
    let node = match (&b.system_id, b.mac) {
        (Some(id), _) => row::find(tx, &id.0).await?,
        (None, Some(mac)) => row::by_mac(tx, &mac.to_string()).await?,
        (None, None) => None,
    };
    let Some(node) = node else { return Ok(()) };
    store::exec!(
        tx,
        "UPDATE node SET bios_boot_method = $2, boot_client_ip = $3, boot_client_at = $4, boot_rack_ip = $5 WHERE id = $1",
        node.id,
        &b.method,
        b.ip.to_string(),
        b.at.0,
        b.rack_ip.to_string()
    )?;
    if let Some(mac) = b.mac {
        store::exec!(
            tx,
            "UPDATE node SET boot_interface_id = (SELECT i.id FROM interface i WHERE i.node_id = $1 AND i.mac = $2) \
             WHERE id = $1 AND EXISTS (SELECT 1 FROM interface i WHERE i.node_id = $1 AND i.mac = $2)",
            node.id,
            mac.to_string()
        )?;
    }
    event::add(
        tx,
        Kind::PxeRequest,
        Some(node.about()),
        "",
        purpose_word(b.purpose),
        b.at,
    )
    .await?;
    event::add(tx, Kind::PerformingPxe, Some(node.about()), "", "", b.at).await?;
    lifecycle::extend(tx, &node, b.at).await
}

const fn purpose_word(p: Purpose) -> &'static str {
    match p {
        Purpose::Enlist => "enlist",
        Purpose::Commissioning => "commissioning",
        Purpose::Xinstall => "xinstall",
        Purpose::Local => "local",
        Purpose::Poweroff => "poweroff",
    }
}
