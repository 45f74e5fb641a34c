//! Tests and rescue mode: what a machine is taken out of its status for, and comes back from. The status
//! itself is written by [`crate::lifecycle`].

use link::message::PowerAction;
use metal::status::Status;
use serde_json::{Map, Value};
use store::Tx;

use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::lifecycle::{self, Cause};
use crate::node::NodeRow;
use crate::{power, script};

/// How a test is to be done.
#[derive(Clone, Debug, Default)]
pub struct Testing {
    /// Stay up with SSH afterwards.
    pub enable_ssh: bool,
    /// Tests by name or tag; empty means the default ones.
    pub scripts: Vec<String>,
    /// Parameters for scripts, by name.
    pub parameters: Map<String, Value>,
}

/// Where a machine goes back to: what it was before the detour, or, after a failed one, what it was before
/// that.
async fn remember(tx: &mut Tx, node: &mut NodeRow) -> Result<(), ApiError> {
    let back = match node.status()? {
        // These are part of a detour themselves.
        Status::Testing
        | Status::RescueMode
        | Status::EnteringRescueMode
        | Status::FailedEnteringRescueMode
        | Status::ExitingRescueMode
        | Status::FailedExitingRescueMode => node.return_status.unwrap_or(Status::Ready.code()),
        Status::FailedTesting => lifecycle::idle(node).code(),
        other => other.code(),
    };
    store::exec!(
        tx,
        "UPDATE node SET return_status = $2 WHERE id = $1",
        node.id,
        back
    )?;
    node.return_status = Some(back);
    Ok(())
}

/// Makes the results of a test, pending, without starting it.
///
/// # Errors
/// 400 for a script that there is not, for none at all, and for one that would destroy a system that runs.
pub async fn choose_tests(
    tx: &mut Tx,
    node: &NodeRow,
    how: &Testing,
    at: metal::Timestamp,
) -> Result<i64, ApiError> {
    let set = script::new_set(tx, node, script::TESTING, &how.scripts, &how.parameters, at).await?;
    let chosen = store::all!(
        tx,
        (String, bool),
        "SELECT s.name, s.destructive FROM script_result r JOIN script s ON s.id = r.script_id WHERE r.script_set_id = $1 ORDER BY s.name",
        set
    )?;
    if chosen.is_empty() {
        return Err(ApiError::field(
            "testing_scripts",
            "There is no test to run: name one, or give one the tag 'commissioning'.",
        ));
    }
    let destructive: Vec<&str> = chosen
        .iter()
        .filter(|(_, d)| *d)
        .map(|(n, _)| n.as_str())
        .collect();
    let runs =
        node.status()? == Status::Deployed || node.return_status == Some(Status::Deployed.code());
    if runs && !destructive.is_empty() {
        return Err(ApiError::field(
            "testing_scripts",
            format!(
                "{} is deployed, and these tests destroy data: {}.",
                node.hostname,
                destructive.join(", ")
            ),
        ));
    }
    Ok(set)
}

/// Starts tests: script set, status, power.
///
/// # Errors
/// 400 for scripts that cannot be run, 409 for a wrong status.
pub async fn start_testing(
    tx: &mut Tx,
    node: &mut NodeRow,
    how: &Testing,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    let set = choose_tests(tx, node, how, cause.at).await?;
    event::add(
        tx,
        Kind::RequestTesting,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    remember(tx, node).await?;
    if node.return_status == Some(Status::FailedCommissioning.code()) {
        // Tests do not lead back to there.
        store::exec!(
            tx,
            "UPDATE node SET return_status = $2 WHERE id = $1",
            node.id,
            Status::New.code()
        )?;
        node.return_status = Some(Status::New.code());
    }
    store::exec!(
        tx,
        "UPDATE node SET current_testing_set_id = $2, enable_ssh = $3 WHERE id = $1",
        node.id,
        set,
        how.enable_ssh
    )?;
    node.current_testing_set_id = Some(set);
    lifecycle::set_status(tx, node, Status::Testing, cause).await?;
    power::ask(tx, node, PowerAction::Cycle { pxe: true }, cause.at).await?;
    Ok(())
}

/// The tests passed: the machine is what it was.
///
/// # Errors
/// When the database fails.
pub async fn finish_testing(
    tx: &mut Tx,
    node: &mut NodeRow,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    let back = back(node)?;
    lifecycle::set_status(tx, node, back, cause).await?;
    forget(tx, node).await
}

/// The status that a detour ends in.
fn back(node: &NodeRow) -> Result<Status, ApiError> {
    match node.return_status {
        Some(code) => {
            Status::from_code(code).ok_or_else(|| ApiError::bug("a node returns to no status"))
        }
        None => node.previous(),
    }
}

async fn forget(tx: &mut Tx, node: &mut NodeRow) -> Result<(), ApiError> {
    let lent = store::opt!(
        tx,
        (i64,),
        "SELECT id FROM node WHERE id = $1 AND lent",
        node.id
    )?;
    store::exec!(
        tx,
        "UPDATE node SET return_status = NULL, lent = FALSE WHERE id = $1",
        node.id
    )?;
    node.return_status = None;
    if lent.is_some() {
        store::exec!(tx, "UPDATE node SET owner_id = NULL WHERE id = $1", node.id)?;
        node.owner_id = None;
        node.owner = None;
    }
    Ok(())
}

/// Starts rescue mode: the ephemeral system with the keys of whoever asked.
///
/// # Errors
/// 409 for a wrong status.
pub async fn start_rescue(
    tx: &mut Tx,
    node: &mut NodeRow,
    user: i64,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    event::add(
        tx,
        Kind::RequestRescue,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    remember(tx, node).await?;
    if node.owner_id.is_none() {
        // Its system lets in the keys of its owner; it is given back when rescue mode ends.
        store::exec!(
            tx,
            "UPDATE node SET owner_id = $2, lent = TRUE WHERE id = $1",
            node.id,
            user
        )?;
        node.owner_id = Some(user);
    }
    lifecycle::set_status(tx, node, Status::EnteringRescueMode, cause).await?;
    power::ask(tx, node, PowerAction::Cycle { pxe: true }, cause.at).await?;
    Ok(())
}

/// Ends rescue mode: a machine that ran a system runs it again, another one is switched off.
///
/// # Errors
/// 409 for a wrong status.
pub async fn stop_rescue(
    tx: &mut Tx,
    node: &mut NodeRow,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    event::add(
        tx,
        Kind::RequestRescueEnd,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    lifecycle::set_status(tx, node, Status::ExitingRescueMode, cause).await?;
    let action = if back(node)? == Status::Deployed {
        PowerAction::Cycle { pxe: false }
    } else {
        PowerAction::Off
    };
    if power::ask(tx, node, action, cause.at).await? {
        return Ok(());
    }
    // Power that cannot be asked for is not waited for.
    finish_rescue(tx, node, cause).await
}

/// The power state of a machine that leaves rescue mode was seen.
///
/// # Errors
/// When the database fails.
pub async fn power_seen(
    tx: &mut Tx,
    node: &mut NodeRow,
    is_on: bool,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    if node.status()? == Status::ExitingRescueMode && is_on == (back(node)? == Status::Deployed) {
        finish_rescue(tx, node, cause).await?;
    }
    Ok(())
}

async fn finish_rescue(tx: &mut Tx, node: &mut NodeRow, cause: Cause<'_>) -> Result<(), ApiError> {
    let back = back(node)?;
    event::add(
        tx,
        Kind::ExitedRescueMode,
        Some(node.about()),
        cause.by,
        "",
        cause.at,
    )
    .await?;
    lifecycle::set_status(tx, node, back, Cause { why: "", ..cause }).await?;
    forget(tx, node).await
}
