//! Reading machines.

use metal::MacAddr;
use metal::status::Status;
use serde_json::Value;
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::auth::{self, Actor};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::{NodeRow, View, row};
use crate::operation::{Kind, Param};
use crate::select_node;

/// Filters of the list.
pub const FILTERS: &[Param] = &[
    Param::opt("hostname", Kind::List, "Only these host names."),
    Param::opt(
        "mac_address",
        Kind::List,
        "Only machines with these MAC addresses.",
    ),
    Param::opt("id", Kind::List, "Only these system ids."),
    Param::opt("domain", Kind::List, "Only machines of these domains."),
    Param::opt("zone", Kind::List, "Only machines in these zones."),
    Param::opt("pool", Kind::List, "Only machines in these resource pools."),
    Param::opt("owner", Kind::List, "Only machines of these owners."),
    Param::opt("tags", Kind::List, "Only machines with all of these tags."),
    Param::opt(
        "status",
        Kind::List,
        "Only machines in these states, as words (ready, deployed, …).",
    ),
    Param::opt(
        "agent_name",
        Kind::Text,
        "Only machines allocated under this name.",
    ),
];

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

/// Keeps the machines that meet the filters of a request.
///
/// # Errors
/// 400 for a status that does not exist or an address that is none.
pub fn filter(args: &Args, nodes: Vec<NodeRow>, view: &View) -> Result<Vec<NodeRow>, ApiError> {
    let words = |name: &str| args.list(name);
    let (names, ids, domains, zones, pools, owners, tags) = (
        words("hostname"),
        words("id"),
        words("domain"),
        words("zone"),
        words("pool"),
        words("owner"),
        words("tags"),
    );
    let macs = words("mac_address")
        .iter()
        .map(|m| {
            m.parse::<MacAddr>()
                .map(|m| m.to_string())
                .map_err(|e| ApiError::Bad(format!("Invalid MAC address: {e}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut states = Vec::new();
    for s in words("status") {
        let status = Status::from_word(&s.to_ascii_lowercase())
            .or_else(|| s.parse().ok().and_then(Status::from_code))
            .ok_or_else(|| {
                ApiError::field("status", format!("'{s}' is not a status of a machine."))
            })?;
        states.push(status.code());
    }
    let agent = args.filled("agent_name");
    let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
    Ok(nodes
        .into_iter()
        .filter(|n| {
            any(&names, &n.hostname)
                && any(&ids, &n.system_id)
                && any(&domains, &n.domain_name)
                && any(&zones, &n.zone_name)
                && any(&pools, n.pool_name.as_deref().unwrap_or(""))
                && any(&owners, n.owner.as_deref().unwrap_or(""))
                && (states.is_empty() || states.contains(&n.status))
                && agent.is_none_or(|a| a == n.agent_name)
                && tags.iter().all(|t| view.tags_of(n.id).contains(t))
                && (macs.is_empty()
                    || view
                        .interfaces_of(n.id)
                        .iter()
                        .any(|i| i.mac.as_ref().is_some_and(|m| macs.contains(m))))
        })
        .collect())
}

pub(super) async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let nodes = visible(&mut tx, call.actor()).await?;
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    drop(tx);
    let nodes = filter(call.args(), nodes, &view)?;
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
    drop(tx);
    let nodes = filter(call.args(), nodes, &view)?;
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

pub(super) async fn is_registered(call: Call) -> Result<Answer, ApiError> {
    // A list of addresses is compared as one, as upstream has it: it matches nothing.
    let Ok(mac) = call.args().required("mac_address")?.parse::<MacAddr>() else {
        return Ok(Answer::json(false.into()));
    };
    let mut tx = call.read().await?;
    let Some(node) = row::by_mac(&mut tx, &mac.to_string()).await? else {
        return Ok(Answer::json(false.into()));
    };
    // A machine that is being enlisted asks again and again; it may.
    let open = matches!(
        node.status()?,
        Status::New | Status::Commissioning | Status::Retired
    );
    let known = *call.actor() != Actor::Anonymous || !open;
    Ok(Answer::json(known.into()))
}

pub(super) async fn details(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::machine(&mut tx, call.actor(), call.path("system_id")).await?;
    let Some(set) = node.current_commissioning_set_id else {
        return Ok(bson(&[]));
    };
    let rows = store::all!(
        tx,
        (String, Option<Vec<u8>>),
        "SELECT script_name, stdout FROM script_result WHERE script_set_id = $1 AND status = 2 AND script_name IN ('maas-lshw', 'maas-capture-lldpd')",
        set
    )?;
    let parts: Vec<(&str, Vec<u8>)> = rows
        .into_iter()
        .filter_map(|(name, out)| Some((if name == "maas-lshw" { "lshw" } else { "lldp" }, out?)))
        .collect();
    Ok(bson(&parts))
}

/// A BSON document of binary values (bsonspec.org, version 1.1); `lshw` and `lldp` are always there.
fn bson(parts: &[(&str, Vec<u8>)]) -> Answer {
    let mut body = Vec::new();
    for key in ["lldp", "lshw"] {
        match parts.iter().find(|(k, _)| *k == key) {
            Some((_, bytes)) => {
                body.push(0x05);
                body.extend_from_slice(key.as_bytes());
                body.push(0);
                body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
                body.push(0);
                body.extend_from_slice(bytes);
            }
            None => {
                body.push(0x0a);
                body.extend_from_slice(key.as_bytes());
                body.push(0);
            }
        }
    }
    let total = u32::try_from(body.len() + 5).unwrap_or(u32::MAX);
    let mut out = total.to_le_bytes().to_vec();
    out.extend_from_slice(&body);
    out.push(0);
    Answer::bytes(out.into(), "application/bson")
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
