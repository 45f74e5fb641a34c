//! Power by hand, and power parameters.

use link::message::{Outcome, PowerAction};
use metal::status::Status;
use serde_json::json;

use crate::answer::Answer;
use crate::auth::Action;
use crate::call::Call;
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::machine::{act, deploy};
use crate::node::family;
use crate::node::row::MACHINE;
use crate::power;

/// Switches the power on; deploys a machine that is allocated.
///
/// # Errors
/// 409 for a machine that nobody owns.
pub async fn on(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = act::target(tx, &call, Action::Edit).await?;
                if node.node_type == MACHINE && node.owner_id.is_none() {
                    return Err(ApiError::Conflict(
                        "Can't start node: it hasn't been allocated.".to_owned(),
                    ));
                }
                let cause = act::cause(&call);
                event::add(
                    tx,
                    Kind::RequestPowerOn,
                    Some(node.about()),
                    cause.by,
                    cause.why,
                    cause.at,
                )
                .await?;
                if node.status()? == Status::Allocated {
                    deploy::start(tx, &call, &mut node).await?;
                } else {
                    power::ask(tx, &node, PowerAction::On { pxe: false }, call.now()).await?;
                }
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Switches the power off.
///
/// # Errors
/// 409 for a machine that is locked.
pub async fn off(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = act::target(tx, &call, Action::Edit).await?;
                let cause = act::cause(&call);
                event::add(
                    tx,
                    Kind::RequestPowerOff,
                    Some(node.about()),
                    cause.by,
                    cause.why,
                    cause.at,
                )
                .await?;
                let action = if call.args().filled("stop_mode") == Some("soft") {
                    PowerAction::SoftOff
                } else {
                    PowerAction::Off
                };
                if power::ask(tx, &node, action, call.now()).await? {
                    family::fresh(tx, &call, node.id).await
                } else {
                    // No command was sent: clients know this as null.
                    Ok(serde_json::Value::Null)
                }
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Asks the BMC for the power state now.
///
/// # Errors
/// 503 when no rack can ask.
pub async fn query(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = family::find(&mut tx, &call).await?;
    if !power::can_switch(&node) {
        return Ok(Answer::json(json!({ "state": "unknown" })));
    }
    drop(tx);
    let outcome = crate::worker::query_power(call.region(), &node).await?;
    let state = match outcome {
        Outcome::Power { state } => state.word(),
        Outcome::PowerFault(_) | Outcome::Dhcp { .. } | Outcome::Refused { .. } => "error",
    };
    Ok(Answer::json(json!({ "state": state })))
}
