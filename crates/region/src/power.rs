//! Power jobs: what is to be done at a machine's BMC, as durable work.
//!
//! A job is put beside the status change that needs it, in the same transaction. The worker
//! ([`crate::worker`]) has a rack carry it out and brings the result back here.

use std::time::Duration;

use link::message::{Parameters, PowerAction};
use metal::Timestamp;
use serde::{Deserialize, Serialize};
use store::Tx;
use store::job::{NewJob, WhenActive};

use crate::error::ApiError;
use crate::node::NodeRow;
use crate::region::Region;

/// Kind of the jobs of this module.
pub const KIND: &str = "power";

/// How long a power command may take before it is given up.
pub const LIMIT: Duration = Duration::from_secs(300);

/// What a power job is to do. Its subject is the machine's system id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerJob {
    /// The command.
    pub action: PowerAction,
    /// The status change number ([`NodeRow::revision`] at the time) that asked for it, for the log.
    pub revision: i64,
}

/// The context under which power parameters are sealed.
#[must_use]
pub fn seal_context(system_id: &str) -> String {
    format!("node.power_parameters:{system_id}")
}

/// The power parameters of a node, opened. They hold credentials.
///
/// # Errors
/// When they cannot be unsealed.
pub async fn parameters(
    tx: &mut Tx,
    region: &Region,
    node: &NodeRow,
) -> Result<Parameters, ApiError> {
    let (sealed,) = store::one!(
        tx,
        (Option<Vec<u8>>,),
        "SELECT power_parameters FROM node WHERE id = $1",
        node.id
    )?;
    let Some(sealed) = sealed else {
        return Ok(Parameters::default());
    };
    let plain = region
        .sealer
        .unseal(&seal_context(&node.system_id), &sealed)?;
    serde_json::from_slice(&plain).map_err(|_| ApiError::bug("power parameters are not JSON"))
}

/// Keeps the power parameters of a node, sealed.
///
/// # Errors
/// When the database fails.
pub async fn set_parameters(
    tx: &mut Tx,
    region: &Region,
    node_id: i64,
    system_id: &str,
    parameters: &Parameters,
) -> Result<(), ApiError> {
    let plain = serde_json::to_vec(parameters).map_err(|e| ApiError::bug(&e.to_string()))?;
    let sealed = region.sealer.seal(&seal_context(system_id), &plain);
    store::exec!(
        tx,
        "UPDATE node SET power_parameters = $2 WHERE id = $1",
        node_id,
        &sealed
    )?;
    Ok(())
}

/// Asks for a power command; one that still waits for this machine is replaced.
/// Nothing is asked of machines whose power is switched by hand or unknown.
///
/// # Errors
/// When the database fails.
pub async fn ask(
    tx: &mut Tx,
    node: &NodeRow,
    action: PowerAction,
    now: Timestamp,
) -> Result<bool, ApiError> {
    if !can_switch(node) {
        return Ok(false);
    }
    let payload = serde_json::to_value(PowerJob {
        action,
        revision: node.revision,
    })
    .map_err(|e| ApiError::bug(&e.to_string()))?;
    tx.enqueue_job(&NewJob {
        kind: KIND,
        subject: &node.system_id,
        payload,
        deadline: Some(now.plus(LIMIT)),
        when_active: WhenActive::Replace,
        ..NewJob::default()
    })
    .await?;
    Ok(true)
}

/// Whether the product can switch this machine's power.
#[must_use]
pub fn can_switch(node: &NodeRow) -> bool {
    !matches!(node.power_type.as_str(), "" | "manual")
}
