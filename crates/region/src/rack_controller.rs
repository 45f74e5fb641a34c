//! `rack-controllers`: the racks, what they run, and whether they are there.

use metal::Timestamp;
use metal::status::Status;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::{NodeRow, View};
use crate::operation::Operation;
use crate::region::Region;
use crate::{select_node, version};

/// `rackcontrollers/` and `rackcontrollers/{system_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "RackControllersHandler",
        uri: "rackcontrollers/",
        title: "List rack controllers.",
        run: |c| Box::pin(list(c)),
        ..Operation::READ
    },
    Operation {
        handler: "RackControllerHandler",
        uri: "rackcontrollers/{system_id}/",
        title: "Read a rack controller.",
        run: |c| Box::pin(read(c)),
        ..Operation::READ
    },
];

/// What a rack has told of itself: services by name, and when it was last heard of.
async fn states(tx: &mut Tx) -> Result<Vec<(i64, String, Option<i64>)>, ApiError> {
    Ok(store::all!(
        tx,
        (i64, String, Option<i64>),
        "SELECT node_id, services, last_seen FROM rack_state"
    )?)
}

fn json_of(
    region: &Region,
    view: &View,
    n: &NodeRow,
    states: &[(i64, String, Option<i64>)],
    _now: Timestamp,
) -> Value {
    let mut o = view.common_json(n, Status::from_code(n.status).unwrap_or(Status::Deployed));
    for k in ["owner", "status", "status_name", "status_message"] {
        o.remove(k);
    }
    let connected = region.hub.is_connected(&n.sid());
    let mut services = vec![json!({
        "name": "rackd",
        "status": if connected { "running" } else { "dead" },
        "status_info": if connected { "" } else { "not connected to this region" },
    })];
    if let Some((_, text, _)) = states.iter().find(|(id, ..)| *id == n.id)
        && let Ok(Value::Object(all)) = serde_json::from_str(text)
    {
        for (name, s) in all {
            services.push(json!({
                "name": name,
                "status": if connected { s["status"].clone() } else { "unknown".into() },
                "status_info": s["info"],
            }));
        }
    }
    o.insert("service_set".into(), services.into());
    o.insert("version".into(), version::MAAS_VERSION.into());
    o.insert(
        "resource_uri".into(),
        format!("/MAAS/api/2.0/rackcontrollers/{}/", n.system_id).into(),
    );
    Value::Object(o)
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let nodes = store::all!(
        tx,
        NodeRow,
        select_node!("WHERE n.node_type IN (2, 4) ORDER BY n.id")
    )?;
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    let states = states(&mut tx).await?;
    Ok(Answer::json(
        nodes
            .iter()
            .map(|n| json_of(call.region(), &view, n, &states, call.now()))
            .collect(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let nodes = store::all!(
        tx,
        NodeRow,
        select_node!("WHERE n.node_type IN (2, 4) AND n.system_id = $1"),
        call.path("system_id")
    )?;
    let node = nodes
        .first()
        .ok_or_else(|| ApiError::missing("RackController"))?;
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    let states = states(&mut tx).await?;
    Ok(Answer::json(json_of(
        call.region(),
        &view,
        node,
        &states,
        call.now(),
    )))
}
