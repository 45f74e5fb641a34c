//! `commissioning-scripts`: the older name of commissioning scripts, kept for old clients.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use store::Tx;

use super::{delete, find, form};
use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::script::COMMISSIONING;

const SCRIPTS: Operation = Operation {
    handler: "CommissioningScriptsHandler",
    uri: "commissioning-scripts/",
    who: Who::Admin,
    ..Operation::READ
};
const SCRIPT: Operation = Operation {
    handler: "CommissioningScriptHandler",
    uri: "commissioning-scripts/{name}",
    who: Who::Admin,
    ..Operation::READ
};
const CONTENT: Param = Param::field("content", Kind::File, "The script, as text or as a file.");

/// `commissioning-scripts/` and `commissioning-scripts/{name}`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "The names of the commissioning scripts.",
        run: |c| Box::pin(list(c)),
        ..SCRIPTS
    },
    Operation {
        method: Method::Post,
        title: "Add a commissioning script.",
        params: &[
            Param::opt(
                "name",
                Kind::Text,
                "Name; may stand in the script's metadata instead.",
            ),
            CONTENT,
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(create(c)),
        ..SCRIPTS
    },
    Operation {
        title: "The text of a commissioning script.",
        run: |c| Box::pin(read(c)),
        ..SCRIPT
    },
    Operation {
        method: Method::Put,
        title: "Replace the text of a commissioning script.",
        params: &[CONTENT],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(update(c)),
        ..SCRIPT
    },
    Operation {
        method: Method::Delete,
        title: "Delete a commissioning script.",
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(remove(c)),
        ..SCRIPT
    },
];

async fn named(tx: &mut Tx, call: &Call) -> Result<super::Row, ApiError> {
    let row = find(tx, call.path("name")).await?;
    if row.script_type == COMMISSIONING {
        Ok(row)
    } else {
        Err(ApiError::missing("Script"))
    }
}

async fn body(tx: &mut Tx, id: i64) -> Result<(String, String), ApiError> {
    Ok(store::one!(
        tx,
        (String, String),
        "SELECT s.name, v.body FROM script s JOIN script_version v ON v.id = s.current_version_id WHERE s.id = $1",
        id
    )?)
}

async fn shown(tx: &mut Tx, id: i64) -> Result<Value, ApiError> {
    let (name, body) = body(tx, id).await?;
    Ok(json!({
        "name": name,
        "content": STANDARD.encode(body),
        "resource_uri": format!("/MAAS/api/2.0/commissioning-scripts/{name}"),
    }))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let names = store::all!(
        tx,
        (String,),
        "SELECT name FROM script WHERE script_type = 0 ORDER BY name"
    )?;
    Ok(Answer::json(
        names.into_iter().map(|(n,)| Value::from(n)).collect(),
    ))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let id = form::insert(tx, call.args(), "content", Some(COMMISSIONING), call.now())
                    .await?;
                shown(tx, id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = named(&mut tx, &call).await?;
    let (_, body) = body(&mut tx, row.id).await?;
    Ok(Answer::bytes(body.into(), "application/binary"))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let row = named(tx, &call).await?;
                if row.is_default {
                    return Err(ApiError::field(
                        "content",
                        "A script that comes with the product cannot be replaced.",
                    ));
                }
                form::change(tx, &row, call.args(), "content", call.now()).await?;
                // Whatever its text says, here it is a commissioning script.
                store::exec!(
                    tx,
                    "UPDATE script SET script_type = $2 WHERE id = $1",
                    row.id,
                    COMMISSIONING
                )?;
                shown(tx, row.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    named(&mut tx, &call).await?;
    drop(tx);
    delete(call).await
}
