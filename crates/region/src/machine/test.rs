//! Tests and rescue mode of machines.

use metal::status::Status;
use serde_json::{Map, Value};
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::auth::Action;
use crate::call::Call;
use crate::detour::{self, Testing};
use crate::error::ApiError;
use crate::event::{self, Kind as EventKind};
use crate::lifecycle;
use crate::machine::act;
use crate::node::{NodeRow, family};
use crate::operation::{Kind, Param};

/// How a test is to be done.
pub const PARAMS: &[Param] = &[
    Param::opt(
        "enable_ssh",
        Kind::Bool,
        "Stay up with SSH for the user's keys afterwards.",
    ),
    Param::opt(
        "testing_scripts",
        Kind::List,
        "Tests by name or tag; those with the tag commissioning when left out.",
    ),
    Param::opt(
        "parameters",
        Kind::Text,
        "Parameters of scripts, as a JSON object.",
    ),
];

fn of_args(args: &Args) -> Result<Testing, ApiError> {
    let parameters = match args.filled("parameters") {
        None => Map::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(m)) => m,
            _ => return Err(ApiError::field("parameters", "Enter a JSON object.")),
        },
    };
    Ok(Testing {
        enable_ssh: args.bool("enable_ssh")?.unwrap_or(false),
        scripts: args.list("testing_scripts"),
        parameters,
    })
}

/// The statuses in which a node can be tested.
const TESTABLE: [Status; 16] = [
    Status::New,
    Status::FailedCommissioning,
    Status::Missing,
    Status::Ready,
    Status::Reserved,
    Status::Deployed,
    Status::Retired,
    Status::Broken,
    Status::Allocated,
    Status::FailedDeployment,
    Status::FailedReleasing,
    Status::FailedDiskErasing,
    Status::RescueMode,
    Status::FailedEnteringRescueMode,
    Status::FailedExitingRescueMode,
    Status::FailedTesting,
];

/// Whether a node can be tested as this call asks. Writes nothing.
///
/// # Errors
/// 400 and 409 with the reason why not.
pub async fn check(tx: &mut Tx, call: &Call, node: &NodeRow) -> Result<(), ApiError> {
    let how = of_args(call.args())?;
    act::must_be(node, &TESTABLE, "tested")?;
    for word in &how.scripts {
        let known = store::all!(
            tx,
            (String, String),
            "SELECT name, tags FROM script WHERE script_type = 2"
        )?;
        let is_known = known
            .iter()
            .any(|(name, tags)| name == word || crate::subnet::texts(tags).contains(word));
        if !is_known {
            return Err(ApiError::field(
                "testing_scripts",
                format!("Select a valid choice. '{word}' is no script or tag of this kind."),
            ));
        }
    }
    Ok(())
}

pub(super) async fn test(call: Call) -> Result<Answer, ApiError> {
    let how = of_args(call.args())?;
    let value = call
        .write(move |tx, call| {
            let how = how.clone();
            Box::pin(async move {
                let mut node = act::target(tx, &call, Action::Admin).await?;
                act::must_be(&node, &TESTABLE, "tested")?;
                if node.power_type.is_empty() {
                    return Err(ApiError::field(
                        "power_type",
                        "Unable to test: the machine has no power type; set it first.",
                    ));
                }
                if node.status()? == Status::New && node.current_commissioning_set_id.is_none() {
                    return Err(ApiError::Bad(format!(
                        "{} was never commissioned: what it has to test is not known.",
                        node.hostname
                    )));
                }
                detour::start_testing(tx, &mut node, &how, act::cause(&call)).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Uses a node although its tests failed.
///
/// # Errors
/// 409 when no tests failed.
pub async fn override_failed(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = act::target(tx, &call, Action::Admin).await?;
                if node.status()? != Status::FailedTesting {
                    // The sentence that clients of MAAS know.
                    return Err(ApiError::Conflict(
                        "Unable to override node status. Node is not in 'Failed testing' status."
                            .to_owned(),
                    ));
                }
                let cause = act::cause(&call);
                event::add(
                    tx,
                    EventKind::RequestOverride,
                    Some(node.about()),
                    cause.by,
                    cause.why,
                    cause.at,
                )
                .await?;
                let to = lifecycle::idle(&node);
                lifecycle::set_status(tx, &mut node, to, cause).await?;
                store::exec!(
                    tx,
                    "UPDATE node SET return_status = NULL WHERE id = $1",
                    node.id
                )?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// The statuses from which rescue mode can be entered.
const RESCUABLE: [Status; 14] = [
    Status::New,
    Status::FailedCommissioning,
    Status::Missing,
    Status::Ready,
    Status::Reserved,
    Status::Deployed,
    Status::Retired,
    Status::Broken,
    Status::Allocated,
    Status::FailedDeployment,
    Status::FailedDiskErasing,
    Status::FailedEnteringRescueMode,
    Status::FailedExitingRescueMode,
    Status::FailedTesting,
];

pub(super) async fn rescue(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = act::target(tx, &call, Action::Admin).await?;
                act::must_be(&node, &RESCUABLE, "put into rescue mode")?;
                let user = call.actor().user()?.id;
                detour::start_rescue(tx, &mut node, user, act::cause(&call)).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// The statuses that rescue mode can be left from.
const LEAVABLE: [Status; 4] = [
    Status::RescueMode,
    Status::EnteringRescueMode,
    Status::FailedEnteringRescueMode,
    Status::FailedExitingRescueMode,
];

pub(super) async fn exit_rescue(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = act::target(tx, &call, Action::Admin).await?;
                act::must_be(&node, &LEAVABLE, "taken out of rescue mode")?;
                detour::stop_rescue(tx, &mut node, act::cause(&call)).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}
