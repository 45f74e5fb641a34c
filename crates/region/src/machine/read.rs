//! Reading machines.

use metal::status::Status;
use serde_json::Value;
use store::Tx;

use crate::answer::Answer;
use crate::auth::{self, Actor};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::{NodeRow, View, filter, row};
use crate::select_node;

/// Every machine that the actor may see.
///
/// # Errors
/// When the database fails.
pub async fn visible(tx: &mut Tx, actor: &Actor) -> Result<Vec<NodeRow>, ApiError> {
    Ok(store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.node_type = 0 AND (n.owner_id IS NULL OR n.owner_id = $1 OR $2) ORDER BY n.id"
        ),
        actor.user_id(),
        actor.is_admin()
    )?)
}

pub(super) async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let nodes = visible(&mut tx, call.actor()).await?;
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    let nodes = filter::keep(&mut tx, call.args(), nodes, &view).await?;
    drop(tx);
    Ok(Answer::json(
        nodes.iter().map(|n| view.machine_json(n)).collect(),
    ))
}

pub(super) async fn list_allocated(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let nodes = store::all!(
        tx,
        NodeRow,
        select_node!("WHERE n.node_type = 0 AND n.owner_id = $1 AND n.status = $2 ORDER BY n.id"),
        call.actor().user_id(),
        Status::Allocated.code()
    )?;
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    let nodes = filter::keep(&mut tx, call.args(), nodes, &view).await?;
    drop(tx);
    Ok(Answer::json(
        nodes.iter().map(|n| view.machine_json(n)).collect(),
    ))
}

pub(super) async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::machine(&mut tx, call.actor(), call.path("system_id")).await?;
    json(&mut tx, &call, node).await.map(Answer::json)
}

/// One machine as the API shows it.
///
/// # Errors
/// When the database fails.
pub async fn json(tx: &mut Tx, call: &Call, node: NodeRow) -> Result<Value, ApiError> {
    let nodes = [node];
    let view = View::load(tx, &nodes, call.now()).await?;
    Ok(view.machine_json(&nodes[0]))
}

/// One machine, read anew by its database id.
///
/// # Errors
/// When the database fails.
pub async fn fresh(tx: &mut Tx, call: &Call, id: i64) -> Result<Value, ApiError> {
    let node = row::by_id(tx, id).await?;
    json(tx, call, node).await
}

pub(super) async fn get_token(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::machine(&mut tx, call.actor(), call.path("system_id")).await?;
    let token = store::opt!(
        tx,
        (String, String, Vec<u8>),
        "SELECT consumer_key, token_key, sealed_secret FROM token WHERE node_id = $1 ORDER BY id DESC LIMIT 1",
        node.id
    )?;
    let Some((consumer, token, sealed)) = token else {
        return Ok(Answer::json(Value::Null));
    };
    let key = auth::open_token(call.region(), &consumer, &token, &sealed)?;
    Ok(Answer::json(serde_json::json!({
        "token_key": key.token_key,
        "token_secret": key.token_secret,
        "consumer_key": key.consumer_key,
    })))
}
