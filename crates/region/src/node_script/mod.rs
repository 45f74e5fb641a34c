//! `scripts`: what runs on machines while they are commissioned, tested, released. What a script says of
//! itself is read by [`crate::script::meta`]; how a request becomes a script is in [`form`].

pub mod commissioning;
pub mod form;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::{Answer, TEXT};
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::node_device::hardware_name;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::script::meta::{self, HARDWARE, TYPES};
use crate::script_result::{duration, spelled};
use crate::subnet::texts;

const SCRIPTS: Operation = Operation {
    handler: "NodeScriptsHandler",
    uri: "scripts/",
    ..Operation::READ
};
const SCRIPT: Operation = Operation {
    handler: "NodeScriptHandler",
    uri: "scripts/{name}",
    ..Operation::READ
};
const TAG: &[Param] = &[Param::field("tag", Kind::Text, "The tag.")];

/// `scripts/` and `scripts/{name}`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List scripts.",
        params: &[
            Param::opt(
                "type",
                Kind::Text,
                "Only scripts of this type: commissioning, testing, release or deployment.",
            ),
            Param::opt(
                "hardware_type",
                Kind::Text,
                "Only scripts for this hardware: node, cpu, memory, storage, network or gpu.",
            ),
            Param::opt("include_script", Kind::Bool, "With the scripts, in base64."),
            Param::opt(
                "filters",
                Kind::List,
                "Only scripts with these names or tags.",
            ),
        ],
        run: |c| Box::pin(list(c)),
        ..SCRIPTS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Add a script.",
        params: form::PARAMS,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(form::create(c)),
        ..SCRIPTS
    },
    Operation {
        title: "Read a script, by name or id.",
        params: &[Param::opt(
            "include_script",
            Kind::Bool,
            "With the scripts, in base64.",
        )],
        run: |c| Box::pin(read(c)),
        ..SCRIPT
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a script; another text becomes a new version of it.",
        params: form::PARAMS,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(form::update(c)),
        ..SCRIPT
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a script; its results stay.",
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(delete(c)),
        ..SCRIPT
    },
    Operation {
        op: Some("download"),
        title: "The text of a script.",
        params: &[
            Param::opt(
                "revision",
                Kind::Int,
                "The version: its id, or how many versions ago as a negative number.",
            ),
            Param::opt("rev", Kind::Int, "The shorter name of revision."),
        ],
        run: |c| Box::pin(download(c)),
        ..SCRIPT
    },
    Operation {
        method: Method::Post,
        op: Some("revert"),
        who: Who::Admin,
        title: "Go back to an earlier version; later ones are forgotten.",
        params: &[Param::must(
            "to",
            Kind::Int,
            "The version: its id, or how many versions ago as a negative number.",
        )],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(revert(c)),
        ..SCRIPT
    },
    Operation {
        method: Method::Post,
        op: Some("add_tag"),
        who: Who::Admin,
        title: "Put a tag on a script.",
        params: TAG,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(retag(c, Tagging::Add)),
        ..SCRIPT
    },
    Operation {
        method: Method::Post,
        op: Some("remove_tag"),
        who: Who::Admin,
        title: "Take a tag off a script.",
        params: TAG,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(retag(c, Tagging::Remove)),
        ..SCRIPT
    },
];

/// A script as it is kept, without its text.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs)] // the columns of the table `script`, described there
pub struct Row {
    pub id: i64,
    pub name: String,
    pub title: String,
    pub description: String,
    pub tags: String,
    pub script_type: i64,
    pub hardware_type: i64,
    pub parallel: i64,
    pub results: String,
    pub parameters: String,
    pub packages: String,
    pub timeout: i64,
    pub destructive: bool,
    pub is_default: bool,
    pub may_reboot: bool,
    pub recommission: bool,
    pub for_hardware: String,
    pub apply_configured_networking: bool,
    pub current_version_id: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct Version {
    id: i64,
    script_id: i64,
    comment: String,
    created: i64,
    body: Option<String>,
}

macro_rules! select_script {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, title, description, tags, script_type, hardware_type, parallel, results, parameters, packages, timeout, ",
            "destructive, is_default, may_reboot, recommission, for_hardware, apply_configured_networking, current_version_id FROM script ",
            $rest
        )
    };
}

const fn parallel_name(n: i64) -> &'static str {
    match n {
        1 => "Run along other instances of this script",
        2 => "Run along any other script",
        _ => "Disabled",
    }
}

const fn type_name(n: i64) -> &'static str {
    match n {
        0 => "Commissioning script",
        2 => "Testing script",
        3 => "Release script",
        _ => "Deployment script",
    }
}

impl Row {
    fn json(&self, versions: &[Version]) -> Value {
        let parsed = |t: &str| serde_json::from_str::<Value>(t).unwrap_or(Value::Null);
        let history: Vec<Value> = versions
            .iter()
            .filter(|v| v.script_id == self.id)
            .map(|v| {
                let mut o = json!({
                    "id": v.id,
                    "comment": if v.comment.is_empty() { Value::Null } else { v.comment.clone().into() },
                    "created": spelled(Some(v.created)),
                });
                if let Some(body) = &v.body {
                    o["data"] = STANDARD.encode(body).into();
                }
                o
            })
            .collect();
        json!({
            "id": self.id,
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "tags": texts(&self.tags),
            "type": self.script_type,
            "type_name": type_name(self.script_type),
            "hardware_type": self.hardware_type,
            "hardware_type_name": hardware_name(self.hardware_type),
            "parallel": self.parallel,
            "parallel_name": parallel_name(self.parallel),
            "results": parsed(&self.results),
            "parameters": parsed(&self.parameters),
            "packages": parsed(&self.packages),
            "timeout": duration(self.timeout),
            "destructive": self.destructive,
            "default": self.is_default,
            "for_hardware": texts(&self.for_hardware),
            "may_reboot": self.may_reboot,
            "recommission": self.recommission,
            "apply_configured_networking": self.apply_configured_networking,
            "history": history,
            "resource_uri": format!("/MAAS/api/2.0/scripts/{}", self.name),
        })
    }
}

/// Every version of these scripts, the newest first: one query.
async fn versions(tx: &mut Tx, rows: &[Row], with_body: bool) -> Result<Vec<Version>, ApiError> {
    let ids =
        serde_json::to_string(&rows.iter().map(|r| r.id).collect::<Vec<_>>()).unwrap_or_default();
    Ok(store::all!(
        tx,
        Version,
        "SELECT id, script_id, comment, created, CASE WHEN $2 THEN body END AS body FROM script_version WHERE script_id IN @ids($1) \
         ORDER BY id DESC",
        ids,
        with_body
    )?)
}

/// The script that a path names, by id or by name.
///
/// # Errors
/// 404 when there is none.
pub async fn find(tx: &mut Tx, name: &str) -> Result<Row, ApiError> {
    store::opt!(
        tx,
        Row,
        select_script!(
            "WHERE id = $1 OR name = $2 ORDER BY CASE WHEN id = $1 THEN 0 ELSE 1 END LIMIT 1"
        ),
        name.parse::<i64>().unwrap_or(-1),
        name
    )?
    .ok_or_else(|| ApiError::missing("Script"))
}

/// A script read anew, as the API shows it.
///
/// # Errors
/// 404 when it is gone.
pub async fn fresh(tx: &mut Tx, id: i64, args: &Args) -> Result<Value, ApiError> {
    let rows = store::all!(tx, Row, select_script!("WHERE id = $1"), id)?;
    let with_body = args.bool("include_script")?.unwrap_or(false);
    let history = versions(tx, &rows, with_body).await?;
    rows.first()
        .map(|r| r.json(&history))
        .ok_or_else(|| ApiError::missing("Script"))
}

/// The number that a word or a number stands for.
fn number_of(args: &Args, name: &str, words: &[(&str, i64)]) -> Result<Option<i64>, ApiError> {
    let Some(text) = args.filled(name) else {
        return Ok(None);
    };
    meta::number_of(words, text).map(Some).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ApiError::field(
            name,
            format!("Select a valid choice. {shown} is not one of the available choices."),
        )
    })
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let kind = number_of(args, "type", TYPES)?;
    let hardware = number_of(args, "hardware_type", HARDWARE)?;
    let filters = args.list("filters");
    let with_body = args.bool("include_script")?.unwrap_or(false);
    let mut tx = call.read().await?;
    let mut rows = store::all!(tx, Row, select_script!("ORDER BY name"))?;
    rows.retain(|r| {
        let tags = texts(&r.tags);
        kind.is_none_or(|k| k == r.script_type)
            && hardware.is_none_or(|h| h == r.hardware_type)
            && (filters.is_empty() || filters.iter().any(|f| *f == r.name || tags.contains(f)))
    });
    let history = versions(&mut tx, &rows, with_body).await?;
    Ok(Answer::json(
        rows.iter().map(|r| r.json(&history)).collect(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, call.path("name")).await?;
    fresh(&mut tx, row.id, call.args()).await.map(Answer::json)
}

/// Deletes a script that did not come with the product.
///
/// # Errors
/// 400 for one that did.
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, call.path("name")).await?;
            if row.is_default {
                return Err(ApiError::Bad(format!(
                    "{} comes with the product and cannot be deleted.",
                    row.name
                )));
            }
            store::exec!(tx, "DELETE FROM script WHERE id = $1", row.id)?;
            tx.changed("script", &row.name, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

/// The version that a number means: an id, or how many versions ago.
fn meant(versions: &[Version], number: i64, field: &str) -> Result<usize, ApiError> {
    let at = if number < 0 {
        usize::try_from(number.unsigned_abs())
            .ok()
            .filter(|n| *n < versions.len())
    } else {
        versions.iter().position(|v| v.id == number)
    };
    at.ok_or_else(|| ApiError::field(field, "This script has no such version."))
}

async fn download(call: Call) -> Result<Answer, ApiError> {
    let number = match call.args().int("revision")? {
        Some(n) => Some(n),
        None => call.args().int("rev")?,
    };
    let mut tx = call.read().await?;
    let row = find(&mut tx, call.path("name")).await?;
    let history = versions(&mut tx, std::slice::from_ref(&row), true).await?;
    let at = match number {
        Some(n) => meant(&history, n, "revision")?,
        None => history
            .iter()
            .position(|v| Some(v.id) == row.current_version_id)
            .unwrap_or(0),
    };
    let body = history
        .into_iter()
        .nth(at)
        .and_then(|v| v.body)
        .ok_or_else(|| ApiError::missing("VersionedTextFile"))?;
    Ok(Answer::bytes(body.into(), TEXT).header(
        "Content-Disposition",
        format!("attachment; filename=\"{}\"", row.name),
    ))
}

async fn revert(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let row = find(tx, call.path("name")).await?;
                if row.is_default {
                    return Err(ApiError::Bad(format!(
                        "{} comes with the product; it has no versions of yours.",
                        row.name
                    )));
                }
                let number = call
                    .args()
                    .int("to")?
                    .ok_or_else(|| ApiError::Bad("No provided to!".to_owned()))?;
                let history = versions(tx, std::slice::from_ref(&row), false).await?;
                let to = &history[meant(&history, number, "to")?];
                store::exec!(
                    tx,
                    "UPDATE script SET current_version_id = $2, updated = $3 WHERE id = $1",
                    row.id,
                    to.id,
                    call.now().0
                )?;
                store::exec!(
                    tx,
                    "DELETE FROM script_version WHERE script_id = $1 AND id > $2",
                    row.id,
                    to.id
                )?;
                form::redeclare(tx, row.id, call.now()).await?;
                tx.changed("script", &row.name, to.id, call.now()).await?;
                fresh(tx, row.id, call.args()).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tagging {
    Add,
    Remove,
}

async fn retag(call: Call, how: Tagging) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let row = find(tx, call.path("name")).await?;
                let tag = call.args().required("tag")?;
                if tag.contains(',') {
                    return Err(ApiError::field("tag", "A tag has no comma in it."));
                }
                let mut tags = texts(&row.tags);
                tags.retain(|t| t != tag);
                if how == Tagging::Add {
                    tags.push(tag.to_owned());
                }
                store::exec!(
                    tx,
                    "UPDATE script SET tags = $2, updated = $3 WHERE id = $1",
                    row.id,
                    serde_json::to_string(&tags).unwrap_or_default(),
                    call.now().0
                )?;
                tx.changed(
                    "script",
                    &row.name,
                    row.current_version_id.unwrap_or(0),
                    call.now(),
                )
                .await?;
                fresh(tx, row.id, call.args()).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}
