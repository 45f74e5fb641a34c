//! Disks after commissioning.

use std::collections::BTreeSet;

use metal::Timestamp;
use store::Tx;

use crate::block_device::BlockDeviceRow;
use crate::error::ApiError;
use crate::hardware::Found;
use crate::hardware::inventory::{Disk, is_derived_tag};
use crate::hardware::nic::free_name;
use crate::layout;
use crate::node::NodeRow;
use crate::subnet::texts;

/// Takes the row of a disk out of those that are left: found by model and serial number, else by its
/// path, else by its name.
fn take(left: &mut Vec<BlockDeviceRow>, d: &Disk) -> Option<BlockDeviceRow> {
    let exact = |r: &BlockDeviceRow| {
        d.serial.is_some() && r.serial == d.serial && (r.model == d.model || d.model.is_none())
    };
    let by_path =
        |r: &BlockDeviceRow| d.id_path.is_some() && r.id_path == d.id_path && r.serial == d.serial;
    let by_name = |r: &BlockDeviceRow| d.serial.is_none() && r.serial.is_none() && r.name == d.name;
    let at = left
        .iter()
        .position(exact)
        .or_else(|| left.iter().position(by_path))
        .or_else(|| left.iter().position(by_name))?;
    Some(left.remove(at))
}

/// Brings the physical disks of a node in line with those that were found.
pub(super) async fn update(
    tx: &mut Tx,
    node: &NodeRow,
    disks: &[Disk],
    found: Found,
    now: Timestamp,
) -> Result<(), ApiError> {
    let mut left = layout::disks(tx, node.id).await?;
    let virtuals = store::all!(
        tx,
        (String,),
        "SELECT name FROM block_device WHERE node_id = $1 AND type <> 'physical'",
        node.id
    )?;
    // Names may have changed places: out of the way with all of them first.
    store::exec!(
        tx,
        "UPDATE block_device SET name = '#' || id WHERE node_id = $1 AND type = 'physical'",
        node.id
    )?;
    let mut names: BTreeSet<String> = virtuals.into_iter().map(|n| n.0).collect();
    for d in disks {
        let name = free_name(&mut names, &d.name);
        let known = take(&mut left, d);
        let mut tags = d.tags.clone();
        if let Some(old) = &known {
            tags.extend(texts(&old.tags).into_iter().filter(|t| !is_derived_tag(t)));
        }
        let tags = serde_json::to_string(&tags).unwrap_or_default();
        match known {
            Some(old) => {
                store::exec!(
                    tx,
                    "UPDATE block_device SET name = $2, id_path = $3, size = $4, block_size = $5, model = $6, serial = $7, \
                     firmware_version = $8, tags = $9, numa_index = $10, updated = $11 WHERE id = $1",
                    old.id,
                    name,
                    &d.id_path,
                    d.size,
                    d.block_size,
                    &d.model,
                    &d.serial,
                    &d.firmware_version,
                    tags,
                    d.numa,
                    now.0
                )?;
            }
            None => {
                store::exec!(
                    tx,
                    "INSERT INTO block_device (node_id, type, name, id_path, size, block_size, model, serial, firmware_version, tags, \
                     numa_index, created, updated) VALUES ($1, 'physical', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
                    node.id,
                    name,
                    &d.id_path,
                    d.size,
                    d.block_size,
                    &d.model,
                    &d.serial,
                    &d.firmware_version,
                    tags,
                    d.numa,
                    now.0
                )?;
            }
        }
    }
    for old in left {
        match found {
            Found::Keep => {
                let name = free_name(&mut names, &old.name);
                store::exec!(
                    tx,
                    "UPDATE block_device SET name = $2 WHERE id = $1",
                    old.id,
                    name
                )?;
            }
            Found::Reset => {
                store::exec!(tx, "DELETE FROM block_device WHERE id = $1", old.id)?;
            }
        }
    }
    store::exec!(
        tx,
        "UPDATE node SET boot_disk_id = NULL WHERE id = $1 AND boot_disk_id IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM block_device b WHERE b.id = node.boot_disk_id)",
        node.id
    )?;
    Ok(())
}
