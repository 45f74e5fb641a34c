//! `/api/v1/machines/{id}/boots`: the boot timelines of a machine, with the verdict on each.

use metal::verdict;
use serde_json::{Value, json};
use store::timeline::{Boot, BootSummary};

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::row;
use crate::operation::{Face, Kind, Operation, Param};

/// `machines/{system_id}/boots` and `machines/{system_id}/boots/{id}` of our own face.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        face: Face::V1,
        uri: "machines/{system_id}/boots",
        also: &["machines/{system_id}/boots/"],
        title: "The boots of a machine, newest first, with their timelines.",
        params: &[Param::opt(
            "entries",
            Kind::Bool,
            "Whether to give the entries too; yes when left out.",
        )],
        run: |c| Box::pin(list(c)),
        ..Operation::READ
    },
    Operation {
        face: Face::V1,
        uri: "machines/{system_id}/boots/{id}",
        also: &["machines/{system_id}/boots/{id}/"],
        title: "One boot of a machine with its timeline.",
        run: |c| Box::pin(read(c)),
        ..Operation::READ
    },
];

fn summary_json(s: &BootSummary) -> Value {
    json!({
        "id": s.id,
        "number": s.number,
        "mac": s.mac,
        "started": s.started,
        "last": s.last,
        "ended": s.ended,
        "count": s.entries,
        "bytes": s.bytes,
        "dropped": s.dropped,
    })
}

fn boot_json(b: &Boot, method: Option<&str>) -> Value {
    let v = verdict::judge(&b.entries, method);
    let mut o = summary_json(&b.summary);
    o["verdict"] = json!({ "code": v.code, "sentence": v.sentence, "remedy": v.remedy, "last_seen": v.last_seen });
    o["entries"] = serde_json::to_value(&b.entries).unwrap_or(Value::Null);
    o
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    drop(tx);
    let timeline = &call.region().timeline;
    let boots = timeline.boots(&node.sid()).await?;
    let full = call.args().bool("entries")?.unwrap_or(true);
    let mut out = Vec::new();
    for s in boots {
        if !full {
            out.push(summary_json(&s));
        } else if let Some(b) = timeline.boot(s.id).await? {
            out.push(boot_json(&b, node.bios_boot_method.as_deref()));
        }
    }
    Ok(Answer::json(
        json!({ "system_id": node.system_id, "hostname": node.hostname, "boots": out }),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    drop(tx);
    let id = call.path_id("id", "Boot")?;
    let boot = call
        .region()
        .timeline
        .boot(id)
        .await?
        .filter(|b| b.summary.system_id == Some(node.sid()));
    let boot = boot.ok_or_else(|| ApiError::missing("Boot"))?;
    Ok(Answer::json(boot_json(
        &boot,
        node.bios_boot_method.as_deref(),
    )))
}
