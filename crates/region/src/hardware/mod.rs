//! What commissioning found: a machine's processors, memory, network cards and disks, and the
//! configuration that it starts with.

pub mod bus;
pub mod inventory;

mod disk;
pub(crate) mod nic;

use metal::Timestamp;
use metal::layout::Layout;
use serde_json::Value;
use store::Tx;

use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::layout::{self, Options};
use crate::node::{NodeRow, row};
use crate::region::Region;
use crate::setting;
use inventory::Inventory;

/// The script whose output this is about.
pub const SCRIPT: &str = "50-maas-01-commissioning";

/// What happens to what people have configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It stays; what was not found stays too.
    Keep,
    /// It gives way to what a machine starts with.
    Reset,
}

impl Found {
    const fn keep(keep: bool) -> Self {
        if keep { Self::Keep } else { Self::Reset }
    }
}

/// What of a machine is brought back to what commissioning found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its disks.
    Storage,
    /// Its network.
    Network,
    /// Both.
    Both,
}

impl Part {
    /// Whether the disks are meant.
    #[must_use]
    pub const fn storage(self) -> bool {
        matches!(self, Self::Storage | Self::Both)
    }

    /// Whether the network is meant.
    #[must_use]
    pub const fn network(self) -> bool {
        matches!(self, Self::Network | Self::Both)
    }
}

/// Takes over the output of [`SCRIPT`]. Network and storage start over unless the commissioning was told
/// to keep them. Nothing outside the transaction is touched.
///
/// # Errors
/// 400 when the output cannot be read.
pub async fn process_commissioning(
    tx: &mut Tx,
    _region: &Region,
    node: &NodeRow,
    output: &[u8],
    now: Timestamp,
) -> Result<(), ApiError> {
    let found = Inventory::parse(output)?;
    machine(tx, node, &found, now).await?;
    tag_virtual(tx, node, &found, now).await?;
    let network = Found::keep(node.skip_networking);
    nic::update(tx, node, &found.ports, network, now).await?;
    if network == Found::Reset {
        nic::configure(tx, node, &found.ports, now).await?;
    }
    let storage = Found::keep(node.skip_storage);
    disk::update(tx, node, &found.disks, storage, now).await?;
    if storage == Found::Reset {
        default_layout(tx, node.id, extra(output), now).await?;
    }
    // What its devices are, is known when its disks and ports are.
    crate::node_device::update(tx, node, &found.devices, now).await?;
    node.touch(tx, now).await
}

/// What [`SCRIPT`] printed in the last commissioning that passed.
async fn output(tx: &mut Tx, node: &NodeRow) -> Result<Option<Vec<u8>>, ApiError> {
    let row = store::opt!(
        tx,
        (Option<Vec<u8>>, Option<Vec<u8>>),
        "SELECT stdout, output FROM script_result WHERE script_set_id = $1 AND script_name = $2 AND status = 2 ORDER BY id DESC LIMIT 1",
        node.current_commissioning_set_id.unwrap_or(-1),
        SCRIPT
    )?;
    Ok(row
        .and_then(|(stdout, output)| stdout.filter(|s| !s.is_empty()).or(output))
        .filter(|o| !o.is_empty()))
}

/// The custom layout that the output of [`SCRIPT`] asks for.
fn extra(output: &[u8]) -> Option<Value> {
    let mut all: Value = serde_json::from_slice(output).ok()?;
    let extra = all.get_mut("storage-extra").map(Value::take)?;
    (!extra.is_null()).then_some(extra)
}

/// The custom layout that the commissioning scripts of a machine asked for.
///
/// # Errors
/// When the database fails.
pub async fn storage_extra(tx: &mut Tx, node: &NodeRow) -> Result<Option<Value>, ApiError> {
    Ok(output(tx, node).await?.and_then(|o| extra(&o)))
}

/// Brings a machine back to what its last commissioning found.
///
/// # Errors
/// 409 when it was never commissioned.
pub async fn restore(
    tx: &mut Tx,
    node: &NodeRow,
    part: Part,
    now: Timestamp,
) -> Result<(), ApiError> {
    let output = output(tx, node).await?.ok_or_else(|| {
        ApiError::Conflict(format!(
            "{} has no inventory: commission it first.",
            node.hostname
        ))
    })?;
    let found = Inventory::parse(&output)?;
    if part.network() {
        nic::update(tx, node, &found.ports, Found::Reset, now).await?;
        nic::configure(tx, node, &found.ports, now).await?;
    }
    if part.storage() {
        disk::update(tx, node, &found.disks, Found::Reset, now).await?;
        default_layout(tx, node.id, extra(&output), now).await?;
    }
    Ok(())
}

async fn machine(
    tx: &mut Tx,
    node: &NodeRow,
    found: &Inventory,
    now: Timestamp,
) -> Result<(), ApiError> {
    let mut uuid = found.uuid.clone();
    if let Some(u) = &found.uuid {
        // Boards of some makers all have the same: then it names none of them.
        let others = store::all!(
            tx,
            (i64,),
            "UPDATE node SET hardware_uuid = NULL WHERE hardware_uuid = $1 AND id <> $2 RETURNING id",
            u,
            node.id
        )?;
        for (other,) in &others {
            row::touch(tx, *other, now).await?;
        }
        if !others.is_empty() {
            uuid = None;
        }
    }
    let had = node.architecture.as_deref().unwrap_or("");
    let architecture = match found.architecture {
        Some(a) if had.is_empty() || had.ends_with("/generic") => Some(format!("{a}/generic")),
        _ => node.architecture.clone(),
    };
    store::exec!(
        tx,
        "UPDATE node SET architecture = $2, cpu_count = $3, cpu_speed = $4, memory = $5, numa = $6, hardware_info = $7, hardware_uuid = $8 \
         WHERE id = $1",
        node.id,
        architecture,
        found.cpu_count,
        found.cpu_speed,
        found.memory,
        found.numa.to_string(),
        found.info_json(),
        uuid
    )?;
    Ok(())
}

/// Puts the tag `virtual` on virtual machines, and takes it from others.
async fn tag_virtual(
    tx: &mut Tx,
    node: &NodeRow,
    found: &Inventory,
    now: Timestamp,
) -> Result<(), ApiError> {
    match found.is_virtual {
        None => {}
        Some(true) => {
            store::exec!(
                tx,
                "INSERT INTO tag (name, created, updated) VALUES ('virtual', $1, $1) ON CONFLICT (name) DO NOTHING",
                now.0
            )?;
            store::exec!(
                tx,
                "INSERT INTO node_tag (node_id, tag_id) SELECT CAST($1 AS @int), t.id FROM tag t WHERE t.name = 'virtual' \
                 ON CONFLICT DO NOTHING",
                node.id
            )?;
        }
        Some(false) => {
            store::exec!(
                tx,
                "DELETE FROM node_tag WHERE node_id = $1 AND tag_id IN (SELECT t.id FROM tag t WHERE t.name = 'virtual')",
                node.id
            )?;
        }
    }
    Ok(())
}

/// Sets the layout of the setting `default_storage_layout`. One that cannot be made gives way to the flat
/// one, and a machine without a disk for it is left without: a commissioning does not fail for that, and
/// an event says it.
async fn default_layout(
    tx: &mut Tx,
    node: i64,
    custom: Option<Value>,
    now: Timestamp,
) -> Result<(), ApiError> {
    let options = Options {
        custom,
        ..Options::default()
    };
    // What was just found decides: the architecture, for one.
    let node = row::by_id(tx, node).await?;
    let word = setting::text(tx, "default_storage_layout").await?;
    let wanted = Layout::from_word(&word).unwrap_or(Layout::Flat);
    let mut said = String::new();
    let mut done = layout::apply(tx, &node, wanted, &options, now).await;
    if let Err(ApiError::Fields(fields)) = &done
        && wanted != Layout::Flat
    {
        let why: Vec<&str> = fields
            .iter()
            .flat_map(|(_, m)| m.iter().map(String::as_str))
            .collect();
        said = format!(
            "The {wanted} layout cannot be made: {} The flat layout is used instead.",
            why.join(" ")
        );
        done = layout::apply(tx, &node, Layout::Flat, &options, now).await;
    }
    match done {
        Ok(()) => {}
        Err(ApiError::Bad(why)) => said = format!("{said} {why}"),
        Err(ApiError::Fields(fields)) => {
            let why: Vec<String> = fields.into_iter().flat_map(|(_, m)| m).collect();
            said = format!("{said} No storage layout was set: {}", why.join(" "));
            layout::clear(tx, node.id).await?;
        }
        Err(e) => return Err(e),
    }
    let said = said.trim();
    if said.is_empty() {
        return Ok(());
    }
    event::add(tx, Kind::GatheringInfo, Some(node.about()), "", said, now).await
}
