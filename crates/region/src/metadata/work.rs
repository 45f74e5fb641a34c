//! What a machine is to do: its work, its scripts, and where it boots from next.

use bytes::Bytes;
use metal::Timestamp;
use metal::boot::Purpose;
use metal::install::Work;
use metal::status::Status;
use store::Tx;

use super::{caller, check_version, signal};
use crate::answer::Answer;
use crate::auth::{Actor, ApiKey};
use crate::call::Call;
use crate::error::ApiError;
use crate::lifecycle::{self, Cause};
use crate::node::NodeRow;
use crate::preseed;
use crate::script::{self, archive};

pub(super) async fn scripts(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let mut tx = call.read().await?;
    let archive = if *call.actor() == Actor::Anonymous {
        archive::of_strangers(&mut tx).await?
    } else {
        let node = caller(&mut tx, &call).await?;
        archive::of_node(&mut tx, &node).await?
    };
    Ok(archive.map_or_else(Answer::none, |tar| Answer::bytes(tar, "application/x-tar")))
}

/// What a machine's ephemeral system is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// Begin the commissioning that belongs to its enlistment.
    Begin,
    /// Run scripts.
    Scripts,
    /// Be installed.
    Install,
    /// Stay up.
    Rescue,
    /// Nothing.
    Nothing,
}

fn duty(node: &NodeRow) -> Result<Duty, ApiError> {
    Ok(match node.status()? {
        Status::New if node.enlisting => Duty::Begin,
        Status::Commissioning | Status::Testing | Status::Releasing | Status::DiskErasing => {
            Duty::Scripts
        }
        Status::Deploying if preseed::purpose(node)? == Purpose::Xinstall => Duty::Install,
        Status::RescueMode | Status::EnteringRescueMode => Duty::Rescue,
        _ => Duty::Nothing,
    })
}

pub(super) async fn work(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    if call.actor().node()?.purpose == preseed::INSTALLED {
        return Err(ApiError::Conflict(
            "An installed system has no work here.".to_owned(),
        ));
    }
    let mut tx = call.read().await?;
    let node = caller(&mut tx, &call).await?;
    drop(tx);
    let work = match duty(&node)? {
        Duty::Begin => {
            call.write(|tx, call| {
                Box::pin(async move {
                    let mut node = caller(tx, &call).await?;
                    signal::begin_commissioning(tx, &mut node, call.now()).await
                })
            })
            .await?;
            Work::Scripts
        }
        Duty::Scripts => Work::Scripts,
        Duty::Install => install(&call).await?,
        Duty::Rescue => Work::Rescue,
        Duty::Nothing => Work::Nothing,
    };
    let body = serde_json::to_vec(&work).map_err(|e| ApiError::bug(&e.to_string()))?;
    Ok(Answer::bytes(Bytes::from(body), crate::answer::JSON))
}

/// The plan of an installation, with new credentials for the system that it installs. What cannot be
/// planned fails the deployment: the machine can do nothing about it.
async fn install(call: &Call) -> Result<Work, ApiError> {
    let key = ApiKey::random();
    let planned = call
        .write(move |tx, call| {
            let key = key.clone();
            Box::pin(async move {
                let node = caller(tx, &call).await?;
                if duty(&node)? != Duty::Install {
                    return Ok(Work::Nothing);
                }
                let plan =
                    crate::install::plan(tx, &node, &call.origin().base, &key, call.now()).await?;
                preseed::renew_token(
                    tx,
                    call.region(),
                    &node,
                    preseed::INSTALLED,
                    &key,
                    call.now(),
                )
                .await?;
                script::start_installation(tx, &node, call.now()).await?;
                lifecycle::extend(tx, &node, call.now()).await?;
                Ok(Work::Install(Box::new(plan)))
            })
        })
        .await;
    let why = match planned {
        Ok(work) => return Ok(work),
        Err(e @ (ApiError::Store(_) | ApiError::Bug(_) | ApiError::Unavailable(..))) => {
            return Err(e);
        }
        Err(ApiError::Fields(f)) => f
            .into_iter()
            .map(|(name, m)| format!("{name}: {}", m.join(" ")))
            .collect::<Vec<_>>()
            .join("; "),
        Err(e) => e.to_string(),
    };
    let text = format!("No installation can be planned: {why}");
    let kept = text.clone();
    call.write(move |tx, call| {
        let text = kept.clone();
        Box::pin(async move {
            let mut node = caller(tx, &call).await?;
            if duty(&node)? == Duty::Install {
                script::end_installation(tx, &node, script::FAILED, call.now()).await?;
                lifecycle::fail(
                    tx,
                    &mut node,
                    Cause {
                        by: "",
                        why: &text,
                        at: call.now(),
                    },
                )
                .await?;
            }
            Ok(())
        })
    })
    .await?;
    Err(ApiError::Conflict(text))
}

pub(super) async fn netboot(call: Call, on: bool) -> Result<Answer, ApiError> {
    check_version(&call)?;
    call.write(move |tx, call| {
        Box::pin(async move {
            let node = caller(tx, &call).await?;
            set_netboot(tx, &node, on, call.now()).await
        })
    })
    .await?;
    Ok(Answer::text("OK"))
}

/// Says where a machine boots from next; racks are told.
pub(super) async fn set_netboot(
    tx: &mut Tx,
    node: &NodeRow,
    on: bool,
    now: Timestamp,
) -> Result<(), ApiError> {
    if node.netboot == on {
        return Ok(());
    }
    store::exec!(
        tx,
        "UPDATE node SET netboot = $2 WHERE id = $1",
        node.id,
        on
    )?;
    node.touch(tx, now).await?;
    // It works: the time for its reboot begins now.
    lifecycle::extend(tx, node, now).await
}
