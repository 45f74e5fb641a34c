//! `nodes/{system_id}/results/`: what scripts left. How a machine's report becomes a result is in [`report`].

mod change;
pub mod report;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::view::{aggregate, script_status_name};
use crate::node::{NodeRow, row};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::script::{self, meta};
pub use report::{End, Ended, Open, Upload, begin, by_id, by_name, finish, keep};

const FILTERS: Param = Param::opt(
    "filters",
    Kind::List,
    "Only results of scripts with these names or tags.",
);
const HARDWARE: Param = Param::opt(
    "hardware_type",
    Kind::Text,
    "Only results of scripts for this hardware: node, cpu, memory, storage, network or gpu.",
);

/// `nodes/{system_id}/results/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "NodeScriptResultsHandler",
        uri: "nodes/{system_id}/results/",
        title: "List what the scripts of a node left.",
        params: &[
            Param::opt(
                "type",
                Kind::List,
                "Only sets of this type: commissioning, installation, testing or release.",
            ),
            HARDWARE,
            Param::opt("include_output", Kind::Bool, "With the outputs, in base64."),
            FILTERS,
        ],
        run: |call| Box::pin(list(call)),
        ..Operation::READ
    },
    Operation {
        handler: "NodeScriptResultHandler",
        uri: "nodes/{system_id}/results/{id}/",
        title: "Read one set of results; also current-commissioning, current-testing and current-installation.",
        params: &[
            HARDWARE,
            Param::opt("include_output", Kind::Bool, "With the outputs, in base64."),
            FILTERS,
        ],
        run: |call| Box::pin(read(call)),
        ..Operation::READ
    },
    Operation {
        handler: "NodeScriptResultHandler",
        uri: "nodes/{system_id}/results/{id}/",
        op: Some("download"),
        title: "The outputs of one set of results as text.",
        params: &[
            HARDWARE,
            FILTERS,
            Param::opt(
                "output",
                Kind::Choice(&["combined", "stdout", "stderr", "result", "all"]),
                "Which output; combined when left out.",
            ),
            Param::opt(
                "filetype",
                Kind::Choice(&["txt", "tar.xz"]),
                "txt or tar.xz; txt when left out.",
            ),
        ],
        run: |call| Box::pin(download(call)),
        ..Operation::READ
    },
    Operation {
        handler: "NodeScriptResultHandler",
        uri: "nodes/{system_id}/results/{id}/",
        method: Method::Put,
        who: Who::Admin,
        title: "Set results aside, or take them into account again.",
        params: &[
            HARDWARE,
            FILTERS,
            Param::opt("include_output", Kind::Bool, "With the outputs, in base64."),
            Param::opt("suppressed", Kind::Bool, "Whether they are set aside."),
        ],
        audit: Some("NODE"),
        run: |call| Box::pin(change::update(call)),
        ..Operation::READ
    },
    Operation {
        handler: "NodeScriptResultHandler",
        uri: "nodes/{system_id}/results/{id}/",
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a set of results.",
        success: 204,
        audit: Some("NODE"),
        run: |call| Box::pin(change::delete(call)),
        ..Operation::READ
    },
];

#[derive(sqlx::FromRow)]
struct SetRow {
    id: i64,
    result_type: i64,
    last_ping: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct ResultRow {
    id: i64,
    script_set_id: i64,
    script_id: Option<i64>,
    script_version_id: Option<i64>,
    script_name: String,
    status: i64,
    exit_status: Option<i64>,
    parameters: String,
    suppressed: bool,
    started: Option<i64>,
    ended: Option<i64>,
    created: i64,
    updated: i64,
    timeout: Option<i64>,
    tags: Option<String>,
    hardware_type: Option<i64>,
}

#[derive(Default, sqlx::FromRow)]
struct Outputs {
    id: i64,
    output: Option<Vec<u8>>,
    stdout: Option<Vec<u8>>,
    stderr: Option<Vec<u8>>,
    result: Option<Vec<u8>>,
}

/// `Fri, 20 Nov 2026 17:55:17 -0000`, as MAAS spells the times of results.
#[must_use]
pub fn spelled(micros: Option<i64>) -> Value {
    micros
        .and_then(|m| jiff::Timestamp::from_microsecond(m).ok())
        .map_or(Value::Null, |t| {
            t.strftime("%a, %d %b %Y %H:%M:%S -0000").to_string().into()
        })
}

/// `0:00:30`, `1 day, 2:03:04`: how Python spells a duration of whole seconds.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let clock = format!("{}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        n => format!("{n} days, {clock}"),
    }
}

fn runtime(started: Option<i64>, ended: Option<i64>) -> String {
    match (started, ended) {
        (Some(s), Some(e)) if e >= s => duration((e - s) / 1_000_000),
        _ => String::new(),
    }
}

/// Seconds since 1970; an empty text when unknown.
#[allow(clippy::cast_precision_loss)] // microseconds of this millennium fit
fn epoch(micros: Option<i64>) -> Value {
    micros.map_or_else(|| "".into(), |m| (m as f64 / 1e6).into())
}

impl ResultRow {
    fn json(&self, outputs: Option<&Outputs>) -> Value {
        let mut parameters: Map<String, Value> =
            serde_json::from_str(&self.parameters).unwrap_or_default();
        for p in parameters.values_mut().filter_map(Value::as_object_mut) {
            if p.get("type").and_then(Value::as_str) == Some("password") && p.contains_key("value")
            {
                p.insert("value".to_owned(), "REDACTED".into());
            }
        }
        let mut out = json!({
            "id": self.id,
            "created": spelled(Some(self.created)),
            "updated": spelled(Some(self.updated)),
            "name": self.script_name,
            "status": self.status,
            "status_name": script_status_name(self.status),
            "exit_status": self.exit_status,
            "started": spelled(self.started),
            "ended": spelled(self.ended),
            "runtime": runtime(self.started, self.ended),
            "starttime": epoch(self.started),
            "endtime": epoch(self.ended),
            "estimated_runtime": self.timeout.filter(|t| *t > 0).map_or_else(|| "Unknown".to_owned(), duration),
            "parameters": parameters,
            "script_id": self.script_id,
            "script_revision_id": self.script_version_id,
            "suppressed": self.suppressed,
        });
        if let (Some(o), Some(members)) = (outputs, out.as_object_mut()) {
            let coded = |b: &Option<Vec<u8>>| {
                Value::from(STANDARD.encode(b.as_deref().unwrap_or_default()))
            };
            members.insert("output".into(), coded(&o.output));
            members.insert("stdout".into(), coded(&o.stdout));
            members.insert("stderr".into(), coded(&o.stderr));
            members.insert("result".into(), coded(&o.result));
        }
        out
    }

    fn wanted(&self, filters: &[String], hardware: Option<i64>) -> bool {
        let tags: Vec<String> = self
            .tags
            .as_deref()
            .and_then(|t| serde_json::from_str(t).ok())
            .unwrap_or_default();
        let named = filters.is_empty()
            || filters
                .iter()
                .any(|f| *f == self.script_name || f.parse() == Ok(self.id) || tags.contains(f));
        named && hardware.is_none_or(|h| self.hardware_type.unwrap_or(0) == h)
    }
}

const fn type_name(result_type: i64) -> &'static str {
    match result_type {
        script::COMMISSIONING => "Commissioning",
        script::INSTALLATION => "Installation",
        script::TESTING => "Testing",
        script::RELEASE => "Release",
        _ => "Deployment",
    }
}

/// What of a node's results is asked for.
struct Wanted {
    types: Option<Vec<i64>>,
    set: Option<i64>,
    filters: Vec<String>,
    hardware: Option<i64>,
}

impl Wanted {
    fn of(call: &Call) -> Result<Self, ApiError> {
        let word = |name: &str, text: &str, words: &[(&str, i64)]| {
            let found = words
                .iter()
                .find(|(w, n)| w.eq_ignore_ascii_case(text) || n.to_string() == text);
            found.map(|(_, n)| *n).ok_or_else(|| {
                let known: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
                ApiError::field(
                    name,
                    format!(
                        "Select a valid choice. {} is not one of: {}.",
                        text.chars().take(64).collect::<String>(),
                        known.join(", ")
                    ),
                )
            })
        };
        const TYPES: &[(&str, i64)] = &[
            ("commissioning", 0),
            ("installation", 1),
            ("testing", 2),
            ("release", 3),
        ];
        let types = call
            .args()
            .list("type")
            .iter()
            .map(|t| word("type", t, TYPES))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            types: (!types.is_empty()).then_some(types),
            set: None,
            filters: call.args().list("filters"),
            hardware: call
                .args()
                .filled("hardware_type")
                .map(|t| word("hardware_type", t, meta::HARDWARE))
                .transpose()?,
        })
    }
}

/// The sets of a node with their results: two queries, and a third for the outputs.
async fn sets(
    tx: &mut Tx,
    node: &NodeRow,
    wanted: &Wanted,
    with_output: bool,
) -> Result<Vec<Value>, ApiError> {
    let mut sets = store::all!(
        tx,
        SetRow,
        "SELECT id, result_type, last_ping FROM script_set WHERE node_id = $1 AND ($2 < 0 OR id = $2) ORDER BY id DESC",
        node.id,
        wanted.set.unwrap_or(-1)
    )?;
    sets.retain(|s| {
        wanted
            .types
            .as_ref()
            .is_none_or(|t| t.contains(&s.result_type))
    });
    let ids =
        serde_json::to_string(&sets.iter().map(|s| s.id).collect::<Vec<_>>()).unwrap_or_default();
    let mut results = store::all!(
        tx,
        ResultRow,
        "SELECT r.id, r.script_set_id, r.script_id, r.script_version_id, r.script_name, r.status, r.exit_status, r.parameters, r.suppressed, \
         r.started, r.ended, r.created, r.updated, s.timeout, s.tags, s.hardware_type FROM script_result r \
         LEFT JOIN script s ON s.id = r.script_id WHERE r.script_set_id IN @ids($1) ORDER BY r.script_name, r.id",
        &ids
    )?;
    results.retain(|r| r.wanted(&wanted.filters, wanted.hardware));
    let outputs = if with_output {
        outputs(tx, &results).await?
    } else {
        Vec::new()
    };
    Ok(sets
        .iter()
        .map(|s| {
            let mine: Vec<&ResultRow> =
                results.iter().filter(|r| r.script_set_id == s.id).collect();
            let status = aggregate(mine.iter().filter(|r| !r.suppressed).map(|r| r.status));
            let started = mine.iter().filter_map(|r| r.started).min();
            let done = !mine.is_empty() && mine.iter().all(|r| !script::is_open(r.status));
            let ended = if done {
                mine.iter().filter_map(|r| r.ended).max()
            } else {
                None
            };
            let json = |r: &&ResultRow| {
                r.json(if with_output {
                    outputs.iter().find(|o| o.id == r.id)
                } else {
                    None
                })
            };
            json!({
                "id": s.id,
                "system_id": node.system_id,
                "type": s.result_type,
                "type_name": type_name(s.result_type),
                "last_ping": spelled(s.last_ping),
                "status": status,
                "status_name": script_status_name(status),
                "started": spelled(started),
                "ended": spelled(ended),
                "runtime": runtime(started, ended),
                "results": mine.iter().map(json).collect::<Vec<_>>(),
                "suppressed": !mine.is_empty() && mine.iter().all(|r| r.suppressed),
                "resource_uri": format!("/MAAS/api/2.0/nodes/{}/results/{}/", node.system_id, s.id),
            })
        })
        .collect())
}

async fn outputs(tx: &mut Tx, results: &[ResultRow]) -> Result<Vec<Outputs>, ApiError> {
    let ids = serde_json::to_string(&results.iter().map(|r| r.id).collect::<Vec<_>>())
        .unwrap_or_default();
    Ok(store::all!(
        tx,
        Outputs,
        "SELECT id, output, stdout, stderr, result FROM script_result WHERE id IN @ids($1)",
        &ids
    )?)
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let wanted = Wanted::of(&call)?;
    let with_output = call.args().bool("include_output")?.unwrap_or(false);
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    Ok(Answer::json(
        sets(&mut tx, &node, &wanted, with_output).await?.into(),
    ))
}

/// The set that the path names.
fn set_id(node: &NodeRow, text: &str) -> Result<i64, ApiError> {
    let missing = || ApiError::missing("ScriptSet");
    match text {
        "current-commissioning" => node.current_commissioning_set_id.ok_or_else(missing),
        "current-testing" => node.current_testing_set_id.ok_or_else(missing),
        "current-installation" => node.current_installation_set_id.ok_or_else(missing),
        "current-release" => node.current_release_set_id.ok_or_else(missing),
        id => id.parse().ok().filter(|n| *n >= 0).ok_or_else(missing),
    }
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut wanted = Wanted::of(&call)?;
    let with_output = call.args().bool("include_output")?.unwrap_or(false);
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    wanted.set = Some(set_id(&node, call.path("id"))?);
    let set = sets(&mut tx, &node, &wanted, with_output).await?.pop();
    set.map(Answer::json)
        .ok_or_else(|| ApiError::missing("ScriptSet"))
}

async fn download(call: Call) -> Result<Answer, ApiError> {
    let wanted = Wanted::of(&call)?;
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    let set = set_id(&node, call.path("id"))?;
    let mut results = store::all!(
        tx,
        ResultRow,
        "SELECT r.id, r.script_set_id, r.script_id, r.script_version_id, r.script_name, r.status, r.exit_status, r.parameters, r.suppressed, \
         r.started, r.ended, r.created, r.updated, s.timeout, s.tags, s.hardware_type FROM script_result r \
         JOIN script_set x ON x.id = r.script_set_id LEFT JOIN script s ON s.id = r.script_id \
         WHERE x.id = $1 AND x.node_id = $2 ORDER BY r.script_name, r.id",
        set,
        node.id
    )?;
    if results.is_empty() {
        return Err(ApiError::missing("ScriptSet"));
    }
    results.retain(|r| r.wanted(&wanted.filters, wanted.hardware));
    let all = outputs(&mut tx, &results).await?;
    drop(tx);
    let which = call.args().filled("output").unwrap_or("combined");
    let files = change::files(which, &results, &all);
    if call.args().filled("filetype") != Some("tar.xz") {
        let text = change::text(&files);
        return Ok(Answer::bytes(Bytes::from(text), crate::answer::TEXT));
    }
    let directory = format!("{}-results-{set}", node.hostname);
    let name = format!("{directory}.tar.xz");
    let mtime = u64::try_from(call.now().seconds()).unwrap_or(0);
    // To compress takes a processor's time.
    let packed =
        tokio::task::spawn_blocking(move || change::archive(&directory, &files, mtime)).await;
    let packed = packed
        .map_err(|e| ApiError::bug(&e.to_string()))?
        .map_err(|e| ApiError::bug(&format!("the archive of results: {e}")))?;
    Ok(
        Answer::bytes(Bytes::from(packed), "application/x-tar").header(
            "Content-Disposition",
            format!("attachment; filename=\"{name}\""),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelled_as_clients_know_them() {
        assert_eq!(duration(30), "0:00:30");
        assert_eq!(duration(3_725), "1:02:05");
        assert_eq!(duration(86_400 + 61), "1 day, 0:01:01");
        assert_eq!(duration(2 * 86_400), "2 days, 0:00:00");
        assert_eq!(runtime(Some(1_000_000), Some(3_900_000)), "0:00:02");
        assert_eq!(runtime(Some(1), None), "");
        assert_eq!(
            spelled(Some(1_795_197_317_000_000)),
            "Fri, 20 Nov 2026 17:55:17 -0000"
        );
    }
}
