//! What a machine asks before it has credentials.

use std::sync::Arc;

use super::check_version;
use crate::answer::Answer;
use crate::auth::ApiKey;
use crate::call::Call;
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::node::{NodeRow, row};
use crate::preseed::{self, Refused};

async fn refuse(call: &Call, node: NodeRow, refused: Refused) -> ApiError {
    tracing::info!(system_id = node.system_id, ip = %call.origin().ip, why = refused.0, "a preseed was refused");
    let (what, text) = (Arc::new((node, refused.clone())), refused.0);
    let written = async {
        let mut tx = call.read().await?;
        // Asked again and again, it costs no writing transaction.
        if preseed::told_of(&mut tx, &what.0, call.origin(), call.now()).await? {
            return Ok(());
        }
        drop(tx);
        let what = Arc::clone(&what);
        call.write(move |tx, call| {
            let what = Arc::clone(&what);
            Box::pin(async move {
                preseed::tell_refusal(tx, &what.0, call.origin(), &what.1, call.now()).await
            })
        })
        .await
    };
    match written.await {
        Ok(()) => ApiError::Forbidden(text),
        Err(e) => e,
    }
}

async fn named(call: &Call) -> Result<NodeRow, ApiError> {
    let mut tx = call.read().await?;
    row::find(&mut tx, call.path("system_id"))
        .await?
        .ok_or_else(|| ApiError::missing("Node"))
}

pub(super) async fn preseed(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let node = named(&call).await?;
    let mut tx = call.read().await?;
    let verdict = preseed::check(&mut tx, &node, call.origin(), call.now()).await?;
    drop(tx);
    if let Err(refused) = verdict {
        return Err(refuse(&call, node, refused).await);
    }
    let key = ApiKey::random();
    let id = node.id;
    let text = call
        .write(move |tx, call| {
            let key = key.clone();
            Box::pin(async move {
                let node = row::by_id(tx, id).await?;
                // What allowed it may have changed since.
                if let Err(refused) = preseed::check(tx, &node, call.origin(), call.now()).await? {
                    return Err(ApiError::Forbidden(refused.0));
                }
                preseed::renew_token(
                    tx,
                    call.region(),
                    &node,
                    preseed::EPHEMERAL,
                    &key,
                    call.now(),
                )
                .await?;
                preseed::known(tx, &node, &call.origin().base, &key).await
            })
        })
        .await?;
    Ok(Answer::text(text))
}

pub(super) async fn enlist_preseed(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let mut tx = call.read().await?;
    Ok(Answer::text(
        preseed::enlist(&mut tx, &call.origin().base).await?,
    ))
}

pub(super) async fn netboot_off(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let node = named(&call).await?;
    let mut tx = call.read().await?;
    let verdict = preseed::check_address(&mut tx, &node, call.origin(), call.now()).await?;
    drop(tx);
    if let Err(refused) = verdict {
        return Err(refuse(&call, node, refused).await);
    }
    call.write(move |tx, call| {
        let node = node.clone();
        Box::pin(async move {
            event::add(
                tx,
                Kind::StatusEvent,
                Some(node.about()),
                "",
                "boots its disk from now on",
                call.now(),
            )
            .await?;
            super::work::set_netboot(tx, &node, false, call.now()).await
        })
    })
    .await?;
    Ok(Answer::text("OK"))
}
