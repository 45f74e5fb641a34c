//! Commissioning, release, abort, broken and fixed, locks, annotations.

use metal::status::Status;
use serde_json::Value;
use store::Tx;

use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::lifecycle::{self, Cause, Commissioning};
use crate::machine::{create, read, update};
use crate::node::NodeRow;
use crate::node::{family, row};

/// The node of the path, when the actor may do this to it and it is not locked.
///
/// # Errors
/// 404 when there is none, 403 when it is not the actor's to do, 409 when it is locked.
pub async fn target(tx: &mut Tx, call: &Call, action: Action) -> Result<NodeRow, ApiError> {
    let node = family::find(tx, call).await?;
    authorize(
        call.actor(),
        action,
        Resource::Machine {
            owner: node.owner_id,
        },
    )?;
    update::refuse_locked(&node)?;
    Ok(node)
}

/// The cause of a change that the caller asked for.
#[must_use]
pub fn cause(call: &Call) -> Cause<'_> {
    Cause {
        by: call.actor().name(),
        why: call.args().filled("comment").unwrap_or(""),
        at: call.now(),
    }
}

/// Refuses a node that is in none of these statuses.
///
/// # Errors
/// 409 with what it is and what it should be.
pub fn must_be(node: &NodeRow, allowed: &[Status], what: &str) -> Result<(), ApiError> {
    let status = node.status()?;
    if allowed.contains(&status) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().map(|s| s.name()).collect();
    Err(ApiError::Conflict(format!(
        "{} cannot be {what} while it is '{}'; it must be one of: {}.",
        node.hostname,
        status.name(),
        names.join(", ")
    )))
}

const COMMISSIONABLE: [Status; 4] = [
    Status::New,
    Status::FailedCommissioning,
    Status::Ready,
    Status::Broken,
];

async fn commission_one(
    tx: &mut Tx,
    call: &Call,
    node: &mut NodeRow,
    how: &Commissioning,
) -> Result<(), ApiError> {
    must_be(node, &COMMISSIONABLE, "commissioned")?;
    if node.power_type.is_empty() {
        return Err(ApiError::field(
            "power_type",
            "Unable to commission: the machine has no power type; set it first.",
        ));
    }
    lifecycle::start_commissioning(tx, node, how, Some(call.actor().user_id()), cause(call)).await
}

pub(super) async fn commission(call: Call) -> Result<Answer, ApiError> {
    let how = create::commissioning_of(call.args())?;
    let value = call
        .write(move |tx, call| {
            let how = how.clone();
            Box::pin(async move {
                let mut node = target(tx, &call, Action::Admin).await?;
                commission_one(tx, &call, &mut node, &how).await?;
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn accept_ids(tx: &mut Tx, call: &Call, ids: Vec<String>) -> Result<Value, ApiError> {
    let mut out = Vec::new();
    for id in ids {
        let mut node = row::machine(tx, call.actor(), &id)
            .await
            .map_err(|_| ApiError::Bad(format!("Unknown machine(s): {id}.")))?;
        authorize(
            call.actor(),
            Action::Admin,
            Resource::Machine {
                owner: node.owner_id,
            },
        )?;
        match node.status()? {
            Status::New => {
                commission_one(tx, call, &mut node, &Commissioning::default()).await?;
                out.push(read::fresh(tx, call, node.id).await?);
            }
            // It was accepted before.
            Status::Ready => {}
            // The sentence that clients of MAAS know.
            other => {
                return Err(ApiError::Conflict(format!(
                    "Cannot accept node enlistment: node {id} is in state {}.",
                    other.name()
                )));
            }
        }
    }
    Ok(out.into())
}

pub(super) async fn accept(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move { accept_ids(tx, &call, call.args().list("machines")).await })
        })
        .await?;
    Ok(Answer::json(value))
}

pub(super) async fn accept_all(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let all = read::visible(tx, call.actor()).await?;
                let ids = all
                    .iter()
                    .filter(|n| n.status == Status::New.code() && !n.power_type.is_empty())
                    .map(|n| n.system_id.clone())
                    .collect();
                accept_ids(tx, &call, ids).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

const RELEASABLE: [Status; 8] = [
    Status::Allocated,
    Status::Reserved,
    Status::Broken,
    Status::Deploying,
    Status::Deployed,
    Status::FailedDeployment,
    Status::FailedDiskErasing,
    Status::FailedReleasing,
];

fn is_released(status: Status) -> bool {
    matches!(status, Status::Ready | Status::Releasing)
}

pub(super) async fn release(call: Call) -> Result<Answer, ApiError> {
    refuse_erase(&call).await?;
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = row::machine(tx, call.actor(), call.path("system_id")).await?;
                if !is_released(node.status()?) {
                    authorize(
                        call.actor(),
                        Action::Edit,
                        Resource::Machine {
                            owner: node.owner_id,
                        },
                    )?;
                    update::refuse_locked(&node)?;
                    must_be(&node, &RELEASABLE, "released")?;
                    lifecycle::release(tx, &mut node, cause(&call)).await?;
                }
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Erasing needs the erase scripts in the agent, which are not there yet: it is refused, never pretended.
async fn refuse_erase(call: &Call) -> Result<(), ApiError> {
    let mut tx = call.read().await?;
    let always = crate::setting::flag(&mut tx, "enable_disk_erasing_on_release").await?;
    let asked = ["erase", "secure_erase", "quick_erase"]
        .iter()
        .any(|k| matches!(call.args().bool(k), Ok(Some(true))));
    if asked || always {
        return Err(ApiError::Unavailable(
            "Erasing disks on release is not available yet; release without erase, and switch off enable_disk_erasing_on_release.".to_owned(),
            3600,
        ));
    }
    Ok(())
}

pub(super) async fn release_several(call: Call) -> Result<Answer, ApiError> {
    let released = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut nodes = Vec::new();
                let mut unknown = Vec::new();
                let mut wrong = Vec::new();
                for id in call.args().list("machines") {
                    match row::machine(tx, call.actor(), &id).await {
                        Ok(n) => nodes.push(n),
                        Err(ApiError::NotFound(_)) => unknown.push(id),
                        Err(e) => return Err(e),
                    }
                }
                if !unknown.is_empty() {
                    return Err(ApiError::Bad(format!("Unknown machine(s): {}.", unknown.join(", "))));
                }
                for n in &nodes {
                    if !is_released(n.status()?) {
                        authorize(call.actor(), Action::Edit, Resource::Machine { owner: n.owner_id }).map_err(|_| {
                            ApiError::Forbidden(format!("You don't have the required permission to release the following machine(s): {}.", n.system_id))
                        })?;
                        update::refuse_locked(n)?;
                        if !RELEASABLE.contains(&n.status()?) {
                            wrong.push(format!("{} ('{}')", n.system_id, n.status()?.name()));
                        }
                    }
                }
                if !wrong.is_empty() {
                    // The sentence that clients of MAAS know.
                    return Err(ApiError::Conflict(format!(
                        "Machine(s) cannot be released in their current state: {}.",
                        wrong.join(", ")
                    )));
                }
                let mut out = Vec::new();
                for mut n in nodes {
                    if !is_released(n.status()?) {
                        lifecycle::release(tx, &mut n, cause(&call)).await?;
                        out.push(n.system_id);
                    }
                }
                Ok(out)
            })
        })
        .await?;
    Ok(Answer::json(released.into()))
}

/// Stops what a node is doing.
///
/// # Errors
/// 409 when there is nothing to stop.
pub async fn abort(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = target(tx, &call, Action::Edit).await?;
                lifecycle::abort(tx, &mut node, cause(&call)).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

const BREAKABLE: [Status; 16] = [
    Status::New,
    Status::Commissioning,
    Status::FailedCommissioning,
    Status::Ready,
    Status::Deployed,
    Status::Deploying,
    Status::Allocated,
    Status::FailedDeployment,
    Status::Releasing,
    Status::FailedReleasing,
    Status::DiskErasing,
    Status::FailedDiskErasing,
    Status::FailedEnteringRescueMode,
    Status::FailedExitingRescueMode,
    Status::Testing,
    Status::FailedTesting,
];

pub(super) async fn mark_broken(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = row::machine(tx, call.actor(), call.path("system_id")).await?;
                // Only its owner may say so, also among administrators: clients rely on it.
                if node.owner_id != Some(call.actor().user()?.id) {
                    return Err(ApiError::Forbidden(
                        "Only the owner of a machine can mark it as broken.".to_owned(),
                    ));
                }
                update::refuse_locked(&node)?;
                must_be(&node, &BREAKABLE, "marked broken")?;
                let why = call
                    .args()
                    .filled("comment")
                    .or(call.args().filled("error_description"))
                    .unwrap_or("")
                    .to_owned();
                let cause = Cause {
                    by: call.actor().name(),
                    why: &why,
                    at: call.now(),
                };
                lifecycle::set_status(tx, &mut node, Status::Broken, cause).await?;
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

pub(super) async fn mark_fixed(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node = target(tx, &call, Action::Admin).await?;
                must_be(&node, &[Status::Broken], "marked fixed")?;
                let to = if node.previous()? == Status::Deployed { Status::Deployed } else { Status::Ready };
                lifecycle::set_status(tx, &mut node, to, cause(&call)).await?;
                if to == Status::Ready {
                    store::exec!(tx, "UPDATE node SET owner_id = NULL, osystem = '', distro_series = '' WHERE id = $1", node.id)?;
                }
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn set_lock(call: Call, lock: bool) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let node = row::machine(tx, call.actor(), call.path("system_id")).await?;
                authorize(
                    call.actor(),
                    Action::Edit,
                    Resource::Machine {
                        owner: node.owner_id,
                    },
                )?;
                // The sentences that clients of MAAS know.
                if lock && !matches!(node.status()?, Status::Deployed | Status::Deploying) {
                    return Err(ApiError::Conflict(
                        "Can't lock, node is not deployed or deploying".to_owned(),
                    ));
                }
                if !lock && !node.locked {
                    return Err(ApiError::Conflict("Machine is not locked".to_owned()));
                }
                store::exec!(
                    tx,
                    "UPDATE node SET locked = $2 WHERE id = $1",
                    node.id,
                    lock
                )?;
                node.touch(tx, call.now()).await?;
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

pub(super) async fn lock(call: Call) -> Result<Answer, ApiError> {
    set_lock(call, true).await
}

pub(super) async fn unlock(call: Call) -> Result<Answer, ApiError> {
    set_lock(call, false).await
}

/// Longest annotation, in bytes.
const MAX_ANNOTATION: usize = 2_048;

/// Sets annotations of a node that the caller owns.
///
/// # Errors
/// 409 for a machine that nobody owns.
pub async fn annotate(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = target(tx, &call, Action::Edit).await?;
                if node.owner_id.is_none() {
                    // The sentence that clients of MAAS know.
                    return Err(ApiError::Conflict(
                        "Cannot set workload annotation: it hasn't been acquired.".to_owned(),
                    ));
                }
                for (key, value) in call
                    .args()
                    .iter()
                    .filter(|(k, _)| *k != "op" && !k.starts_with("oauth_"))
                {
                    if key.len() > 64 || value.len() > MAX_ANNOTATION {
                        return Err(ApiError::field(
                            "key",
                            format!(
                                "Use at most 64 bytes for a name and {MAX_ANNOTATION} for a value."
                            ),
                        ));
                    }
                    if value.is_empty() {
                        store::exec!(
                            tx,
                            "DELETE FROM owner_data WHERE node_id = $1 AND key = $2",
                            node.id,
                            key
                        )?;
                    } else {
                        store::exec!(
                            tx,
                            "INSERT INTO owner_data (node_id, key, value) VALUES ($1, $2, $3) \
                             ON CONFLICT (node_id, key) DO UPDATE SET value = excluded.value",
                            node.id,
                            key,
                            value
                        )?;
                    }
                }
                node.touch(tx, call.now()).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}
