//! The life cycle: the only place that writes a node's status. Each change is one transaction with its
//! event, its entry in the change feed and the work that it asks for.

use std::time::Duration;

use link::message::PowerAction;
use metal::Timestamp;
use metal::status::Status;
use store::Tx;

use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::node::NodeRow;
use crate::v1::operations;
use crate::{interface, power, script, setting};

/// Why and by whom a status changes.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// The user, or empty for the product itself.
    pub by: &'a str,
    /// In words.
    pub why: &'a str,
    /// When.
    pub at: Timestamp,
}

/// How long a machine may be in RELEASING and EXITING_RESCUE_MODE.
pub const SHORT_LIMIT: Duration = Duration::from_secs(300);

/// Until when a node may stay in a status.
async fn expires(tx: &mut Tx, to: Status, at: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    Ok(match to {
        Status::Commissioning
        | Status::Deploying
        | Status::DiskErasing
        | Status::EnteringRescueMode
        | Status::Testing => Some(at.plus(setting::node_timeout(tx).await?)),
        Status::Releasing | Status::ExitingRescueMode => Some(at.plus(SHORT_LIMIT)),
        Status::New
        | Status::FailedCommissioning
        | Status::Missing
        | Status::Ready
        | Status::Reserved
        | Status::Deployed
        | Status::Retired
        | Status::Broken
        | Status::Allocated
        | Status::FailedDeployment
        | Status::FailedReleasing
        | Status::FailedDiskErasing
        | Status::RescueMode
        | Status::FailedEnteringRescueMode
        | Status::FailedExitingRescueMode
        | Status::FailedTesting => None,
    })
}

const fn kind_of(to: Status) -> Kind {
    match to {
        Status::New => Kind::New,
        Status::Commissioning => Kind::Commissioning,
        Status::FailedCommissioning => Kind::FailedCommissioning,
        Status::Testing => Kind::Testing,
        Status::FailedTesting => Kind::FailedTesting,
        Status::Ready => Kind::Ready,
        Status::Deploying => Kind::Deploying,
        Status::Deployed => Kind::Deployed,
        Status::Releasing => Kind::Releasing,
        Status::EnteringRescueMode => Kind::EnteringRescueMode,
        Status::RescueMode => Kind::RescueMode,
        Status::FailedDeployment
        | Status::FailedReleasing
        | Status::FailedDiskErasing
        | Status::FailedEnteringRescueMode
        | Status::FailedExitingRescueMode => Kind::MarkedFailed,
        Status::Missing
        | Status::Reserved
        | Status::Retired
        | Status::Broken
        | Status::Allocated
        | Status::DiskErasing
        | Status::ExitingRescueMode => Kind::StatusChanged,
    }
}

/// Moves a node to another status and updates the row at hand.
///
/// # Errors
/// 409 when the life cycle has no such step, or somebody else moved the node meanwhile.
pub async fn set_status(
    tx: &mut Tx,
    node: &mut NodeRow,
    to: Status,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    let from = node.status()?;
    from.check(to)?;
    if from == to {
        return Ok(());
    }
    let until = expires(tx, to, cause.at).await?;
    let moved = store::exec!(
        tx,
        "UPDATE node SET previous_status = status, status = $3, status_since = $4, status_expires = $5 WHERE id = $1 AND status = $2",
        node.id,
        from.code(),
        to.code(),
        cause.at.0,
        until.map(|t| t.0)
    )?;
    if moved == 0 {
        return Err(ApiError::Conflict(format!(
            "{} is no longer {}.",
            node.hostname,
            from.name()
        )));
    }
    if to == from.failed().unwrap_or(to) && from.failed().is_some() || to == Status::Broken {
        store::exec!(
            tx,
            "UPDATE node SET error_description = $2 WHERE id = $1",
            node.id,
            cause.why
        )?;
    } else if !node.error_description.is_empty() {
        store::exec!(
            tx,
            "UPDATE node SET error_description = '' WHERE id = $1",
            node.id
        )?;
    }
    let text = format!("From '{}' to '{}'", from.name(), to.name());
    event::add(
        tx,
        Kind::StatusChanged,
        Some(node.about()),
        cause.by,
        &text,
        cause.at,
    )
    .await?;
    event::add(
        tx,
        kind_of(to),
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    node.previous_status = from.code();
    node.status = to.code();
    node.status_since = cause.at.0;
    node.status_expires = until.map(|t| t.0);
    operations::moved(tx, node, to, cause).await?;
    node.touch(tx, cause.at).await
}

/// Gives a machine more time: it showed a sign of life.
///
/// # Errors
/// When the database fails.
pub async fn extend(tx: &mut Tx, node: &NodeRow, now: Timestamp) -> Result<(), ApiError> {
    if node.status_expires.is_none()
        || matches!(
            node.status()?,
            Status::Releasing | Status::ExitingRescueMode
        )
    {
        return Ok(());
    }
    let until = now.plus(setting::node_timeout(tx).await?);
    store::exec!(
        tx,
        "UPDATE node SET status_expires = $2 WHERE id = $1 AND status_expires IS NOT NULL",
        node.id,
        until.0
    )?;
    Ok(())
}

/// From now on heartbeats decide, not the time since the start.
///
/// # Errors
/// When the database fails.
pub async fn clear_expiry(tx: &mut Tx, node: &NodeRow) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE node SET status_expires = NULL WHERE id = $1",
        node.id
    )?;
    Ok(())
}

/// How a commissioning is to be done.
#[derive(Clone, Debug, Default)]
pub struct Commissioning {
    /// Stay up with SSH afterwards.
    pub enable_ssh: bool,
    /// Leave the BMC alone.
    pub skip_bmc_config: bool,
    /// Keep the network configuration.
    pub skip_networking: bool,
    /// Keep the storage configuration.
    pub skip_storage: bool,
    /// Commissioning scripts by name or tag; empty means all.
    pub commissioning_scripts: Vec<String>,
    /// Tests by name or tag; empty means the default ones, `none` means none.
    pub testing_scripts: Vec<String>,
    /// Parameters for scripts, by name.
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// Starts commissioning: script sets, status, owner, power.
///
/// # Errors
/// 400 for unknown scripts, 409 for a wrong status.
pub async fn start_commissioning(
    tx: &mut Tx,
    node: &mut NodeRow,
    how: &Commissioning,
    owner: Option<i64>,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    event::add(
        tx,
        Kind::RequestCommissioning,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    let commissioning = script::new_set(
        tx,
        node,
        script::COMMISSIONING,
        &how.commissioning_scripts,
        &how.parameters,
        cause.at,
    )
    .await?;
    let testing = if how.testing_scripts.iter().any(|s| s == "none") {
        None
    } else {
        Some(
            script::new_set(
                tx,
                node,
                script::TESTING,
                &how.testing_scripts,
                &how.parameters,
                cause.at,
            )
            .await?,
        )
    };
    store::exec!(
        tx,
        "UPDATE node SET current_commissioning_set_id = $2, current_testing_set_id = $3, owner_id = COALESCE($4, owner_id), \
         enable_ssh = $5, skip_bmc_config = $6, skip_networking = $7, skip_storage = $8, netboot = TRUE, enlisting = FALSE, return_status = NULL WHERE id = $1",
        node.id,
        commissioning,
        testing,
        owner,
        how.enable_ssh,
        how.skip_bmc_config,
        how.skip_networking,
        how.skip_storage
    )?;
    node.current_commissioning_set_id = Some(commissioning);
    node.current_testing_set_id = testing;
    node.owner_id = owner.or(node.owner_id);
    // Somebody asked for it: it is no longer part of the enlistment, and ends in Ready.
    node.enlisting = false;
    set_status(tx, node, Status::Commissioning, cause).await?;
    power::ask(tx, node, PowerAction::Cycle { pxe: true }, cause.at).await?;
    Ok(())
}

/// The scripts of a commissioning are through: on to testing, or to the end.
///
/// # Errors
/// When the database fails.
pub async fn finish_commissioning(
    tx: &mut Tx,
    node: &mut NodeRow,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    let to = if node.enlisting {
        Status::New
    } else {
        Status::Ready
    };
    set_status(tx, node, to, cause).await?;
    // What commissioned it does not own it.
    store::exec!(
        tx,
        "UPDATE node SET owner_id = NULL, enlisting = FALSE, status_expires = NULL WHERE id = $1",
        node.id
    )?;
    node.owner_id = None;
    node.owner = None;
    node.enlisting = false;
    Ok(())
}

/// Where a machine stands that does nothing: with the system it has, or ready for one.
#[must_use]
pub const fn idle(node: &NodeRow) -> Status {
    if node.osystem.is_empty() {
        Status::Ready
    } else {
        Status::Deployed
    }
}

/// What a machine was doing failed: it goes to the failed status of what it was doing. A machine whose
/// status has none stays where it is.
///
/// # Errors
/// When the database fails.
pub async fn fail(tx: &mut Tx, node: &mut NodeRow, cause: Cause<'_>) -> Result<(), ApiError> {
    let Some(to) = node.status()?.failed() else {
        return Ok(());
    };
    script::abort_running(tx, node, cause.at).await?;
    set_status(tx, node, to, cause).await
}

/// Stops what a machine is doing.
///
/// # Errors
/// 409 when there is nothing to stop.
pub async fn abort(tx: &mut Tx, node: &mut NodeRow, cause: Cause<'_>) -> Result<(), ApiError> {
    let (to, kind) = match node.status()? {
        Status::Commissioning => (Status::New, Kind::AbortedCommissioning),
        Status::Deploying => (Status::Allocated, Kind::AbortedDeployment),
        Status::DiskErasing => (Status::FailedDiskErasing, Kind::StatusChanged),
        Status::Testing => {
            let back = match (
                node.return_status.and_then(Status::from_code),
                node.previous()?,
            ) {
                (Some(back), _) => back,
                (None, Status::Commissioning) => Status::Ready,
                (None, other) => other,
            };
            (back, Kind::AbortedTesting)
        }
        other => {
            return Err(ApiError::Conflict(format!(
                "Cannot abort in current state: node {} is in state {}.",
                node.system_id,
                other.name()
            )));
        }
    };
    event::add(
        tx,
        Kind::RequestAbort,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    script::abort_running(tx, node, cause.at).await?;
    event::add(tx, kind, Some(node.about()), cause.by, cause.why, cause.at).await?;
    let was = node.status()?;
    set_status(tx, node, to, cause).await?;
    match was {
        Status::Commissioning => {
            store::exec!(
                tx,
                "UPDATE node SET owner_id = NULL, enlisting = FALSE WHERE id = $1",
                node.id
            )?;
            node.owner_id = None;
        }
        Status::Deploying => clear_installation(tx, node).await?,
        _ => {}
    }
    power::ask(tx, node, PowerAction::Off, cause.at).await?;
    Ok(())
}

/// Forgets what was installed or was to be.
async fn clear_installation(tx: &mut Tx, node: &NodeRow) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE node SET osystem = '', distro_series = '', hwe_kernel = NULL, license_key = '', netboot = TRUE, user_data = NULL, \
         ephemeral_deploy = FALSE, install_attempt = install_attempt + 1 WHERE id = $1",
        node.id
    )?;
    store::exec!(tx, "DELETE FROM token WHERE node_id = $1", node.id)?;
    store::exec!(
        tx,
        "UPDATE ip_address SET ip = NULL WHERE alloc_type = $2 AND interface_id IN (SELECT i.id FROM interface i WHERE i.node_id = $1)",
        node.id,
        interface::AUTO
    )?;
    Ok(())
}

/// Takes a machine back: power off, then [`finish_release`] when the power is seen off.
///
/// # Errors
/// 409 for a wrong status.
pub async fn release(tx: &mut Tx, node: &mut NodeRow, cause: Cause<'_>) -> Result<(), ApiError> {
    event::add(
        tx,
        Kind::RequestRelease,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    script::abort_running(tx, node, cause.at).await?;
    set_status(tx, node, Status::Releasing, cause).await?;
    if power::ask(tx, node, PowerAction::Off, cause.at).await? {
        return Ok(());
    }
    // Power that cannot be asked for is not waited for.
    finish_release(tx, node, cause).await
}

/// Ends a release: addresses, owner, system and keys are gone.
///
/// # Errors
/// When the database fails.
pub async fn finish_release(
    tx: &mut Tx,
    node: &mut NodeRow,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    let commissioned = script::passed(tx, node.current_commissioning_set_id).await?;
    clear_installation(tx, node).await?;
    interface::made::give_back(tx, node, cause.at).await?;
    store::exec!(
        tx,
        "UPDATE node SET owner_id = NULL, agent_name = '', error_description = '', locked = FALSE, current_installation_set_id = NULL \
         WHERE id = $1",
        node.id
    )?;
    store::exec!(tx, "DELETE FROM owner_data WHERE node_id = $1", node.id)?;
    store::exec!(
        tx,
        "DELETE FROM node WHERE parent_id = $1 AND node_type = 1",
        node.id
    )?;
    node.owner_id = None;
    node.owner = None;
    let to = if commissioned {
        Status::Ready
    } else {
        Status::New
    };
    event::add(
        tx,
        Kind::Released,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    set_status(tx, node, to, cause).await
}

/// The installed system has fetched its user-data: the machine is deployed.
///
/// # Errors
/// When the database fails.
pub async fn finish_deployment(
    tx: &mut Tx,
    node: &mut NodeRow,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    script::finish_installation(tx, node, cause.at).await?;
    set_status(tx, node, Status::Deployed, cause).await
}
