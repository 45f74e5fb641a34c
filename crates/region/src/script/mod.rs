//! Scripts, and the sets of results they leave.
//!
//! A set is made when a machine starts to be commissioned, tested or installed: one pending result for
//! each script chosen. The machine fetches the scripts of its current sets ([`archive`]) and reports
//! their results ([`crate::script_result`]).

pub mod archive;
pub mod builtin;
pub mod meta;

use metal::Timestamp;
use serde_json::{Map, Value};
use store::Tx;

pub use builtin::ensure_builtin;

use crate::error::ApiError;
use crate::node::NodeRow;
use crate::setting;

/// `script_type` and `result_type` of commissioning.
pub const COMMISSIONING: i64 = 0;
/// `result_type` of installations.
pub const INSTALLATION: i64 = 1;
/// `script_type` and `result_type` of tests.
pub const TESTING: i64 = 2;
/// `script_type` and `result_type` of release scripts.
pub const RELEASE: i64 = 3;

/// `status` of a result: waits for its turn.
pub const PENDING: i64 = 0;
/// `status` of a result: runs.
pub const RUNNING: i64 = 1;
/// `status` of a result: all well.
pub const PASSED: i64 = 2;
/// `status` of a result: not well.
pub const FAILED: i64 = 3;
/// `status` of a result: took longer than it may.
pub const TIMED_OUT: i64 = 4;
/// `status` of a result: stopped from outside.
pub const ABORTED: i64 = 5;
/// `status` of a result: works, but not as it should.
pub const DEGRADED: i64 = 6;
/// `status` of a result: its packages are being installed.
pub const INSTALLING: i64 = 7;
/// `status` of a result: its packages could not be installed.
pub const FAILED_INSTALLING: i64 = 8;
/// `status` of a result: did not apply to this machine.
pub const SKIPPED: i64 = 9;
/// `status` of a result: the configured network is being applied.
pub const APPLYING_NETCONF: i64 = 10;
/// `status` of a result: the configured network could not be applied.
pub const FAILED_APPLYING_NETCONF: i64 = 11;

/// Name of the one result of an installation: the path of its log, as clients know it.
pub const INSTALL_LOG: &str = "/tmp/install.log";

/// Tag of tests that run with every commissioning.
const DEFAULT_TEST_TAG: &str = "commissioning";
/// Tag of commissioning scripts that run only when they are named.
const NOT_BY_ITSELF_TAG: &str = "noauto";

/// Whether a script of this status is neither done nor given up.
#[must_use]
pub const fn is_open(status: i64) -> bool {
    matches!(status, PENDING | RUNNING | INSTALLING | APPLYING_NETCONF)
}

/// Whether this status is no reason against the machine.
#[must_use]
pub const fn is_good(status: i64) -> bool {
    matches!(status, PASSED | SKIPPED)
}

#[derive(Clone, sqlx::FromRow)]
struct Candidate {
    id: i64,
    name: String,
    tags: String,
    parameters: String,
    for_hardware: String,
    is_default: bool,
    current_version_id: Option<i64>,
}

fn list(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_default()
}

/// The scripts that are meant by names and tags.
fn choose(all: Vec<Candidate>, kind: i64, chosen: &[String]) -> Result<Vec<Candidate>, ApiError> {
    let named = |c: &Candidate| {
        chosen
            .iter()
            .any(|w| *w == c.name || list(&c.tags).contains(w))
    };
    for word in chosen {
        if !all
            .iter()
            .any(|c| c.name == *word || list(&c.tags).contains(word))
        {
            let field = match kind {
                COMMISSIONING => "commissioning_scripts",
                RELEASE => "scripts",
                _ => "testing_scripts",
            };
            return Err(ApiError::field(
                field,
                format!("Select a valid choice. '{word}' is no script or tag of this kind."),
            ));
        }
    }
    let by_default = |c: &Candidate| {
        let tags = list(&c.tags);
        match kind {
            // Scripts for certain hardware run when that hardware was found.
            COMMISSIONING => {
                !tags.iter().any(|t| t == NOT_BY_ITSELF_TAG) && list(&c.for_hardware).is_empty()
            }
            TESTING => tags.iter().any(|t| t == DEFAULT_TEST_TAG),
            _ => false,
        }
    };
    let wanted = |c: &Candidate| {
        if chosen.is_empty() {
            by_default(c)
        } else {
            // Without the inventory there is nothing to commission: the built-in scripts always run.
            named(c) || kind == COMMISSIONING && c.is_default
        }
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// The declared parameters of a script with the values given for them: `SCRIPT_NAME` beats `NAME`.
fn valued(c: &Candidate, given: &Map<String, Value>) -> Map<String, Value> {
    let mut declared: Map<String, Value> = serde_json::from_str(&c.parameters).unwrap_or_default();
    for (name, parameter) in &mut declared {
        let value = given
            .get(&format!("{}_{name}", c.name))
            .or_else(|| given.get(name));
        if let (Some(value), Some(members)) = (value, parameter.as_object_mut()) {
            members.insert("value".to_owned(), value.clone());
        }
    }
    declared
}

/// A new set of results, pending, for the scripts chosen by name or tag (none chosen: the default ones
/// of the type). Gives its id. 400 for a name or tag that there is not. Older sets beyond
/// `max_node_*_results` go.
///
/// # Errors
/// 400 for an unknown script.
pub async fn new_set(
    tx: &mut Tx,
    node: &NodeRow,
    kind: i64,
    chosen: &[String],
    parameters: &Map<String, Value>,
    now: Timestamp,
) -> Result<i64, ApiError> {
    let all = store::all!(
        tx,
        Candidate,
        "SELECT id, name, tags, parameters, for_hardware, is_default, current_version_id FROM script WHERE script_type = $1 ORDER BY name",
        kind
    )?;
    let scripts = choose(all, kind, chosen)?;
    let set = insert_set(tx, node, kind, chosen, now).await?;
    for c in &scripts {
        store::exec!(
            tx,
            "INSERT INTO script_result (script_set_id, script_id, script_version_id, script_name, status, parameters, created, updated) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
            set,
            c.id,
            c.current_version_id,
            &c.name,
            PENDING,
            Value::Object(valued(c, parameters)).to_string(),
            now.0
        )?;
    }
    Ok(set)
}

async fn insert_set(
    tx: &mut Tx,
    node: &NodeRow,
    kind: i64,
    requested: &[String],
    now: Timestamp,
) -> Result<i64, ApiError> {
    let (set,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO script_set (node_id, result_type, requested, power_state_before, created) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        node.id,
        kind,
        serde_json::to_string(requested).map_err(|e| ApiError::bug(&e.to_string()))?,
        &node.power_state,
        now.0
    )?;
    let setting = match kind {
        COMMISSIONING => "max_node_commissioning_results",
        INSTALLATION => "max_node_installation_results",
        RELEASE => "max_node_release_results",
        _ => "max_node_testing_results",
    };
    let keep = setting::number(tx, setting).await?.max(1);
    store::exec!(
        tx,
        "DELETE FROM script_set WHERE node_id = $1 AND result_type = $2 AND id NOT IN \
         (SELECT s.id FROM script_set s WHERE s.node_id = $1 AND s.result_type = $2 ORDER BY s.id DESC LIMIT $3)",
        node.id,
        kind,
        keep
    )?;
    Ok(set)
}

/// A new set for the log of an installation.
///
/// # Errors
/// When the database fails.
pub async fn new_installation_set(
    tx: &mut Tx,
    node: &NodeRow,
    now: Timestamp,
) -> Result<i64, ApiError> {
    let set = insert_set(tx, node, INSTALLATION, &[], now).await?;
    store::exec!(
        tx,
        "INSERT INTO script_result (script_set_id, script_name, status, created, updated) VALUES ($1, $2, $3, $4, $4)",
        set,
        INSTALL_LOG,
        PENDING,
        now.0
    )?;
    Ok(set)
}

/// The current sets of a node as a JSON list for `@ids`.
fn current(node: &NodeRow) -> String {
    let sets: Vec<i64> = [
        node.current_commissioning_set_id,
        node.current_testing_set_id,
        node.current_installation_set_id,
        node.current_release_set_id,
    ]
    .into_iter()
    .flatten()
    .collect();
    serde_json::to_string(&sets).unwrap_or_default()
}

/// Whatever still runs or waits in the current sets of a node is aborted.
///
/// # Errors
/// When the database fails.
pub async fn abort_running(tx: &mut Tx, node: &NodeRow, now: Timestamp) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE script_result SET status = $2, ended = $3, updated = $3 WHERE script_set_id IN @ids($1) AND status IN (0, 1, 7, 10)",
        current(node),
        ABORTED,
        now.0
    )?;
    Ok(())
}

/// Whether a set exists and all of it passed (or was skipped or suppressed).
///
/// # Errors
/// When the database fails.
pub async fn passed(tx: &mut Tx, set: Option<i64>) -> Result<bool, ApiError> {
    let Some(set) = set else { return Ok(false) };
    let row = store::opt!(
        tx,
        (i64,),
        "SELECT (SELECT COUNT(*) FROM script_result r WHERE r.script_set_id = s.id AND r.status NOT IN (2, 9) AND NOT r.suppressed) \
         FROM script_set s WHERE s.id = $1",
        set
    )?;
    Ok(row == Some((0,)))
}

/// The installation's result passes.
///
/// # Errors
/// When the database fails.
pub async fn finish_installation(
    tx: &mut Tx,
    node: &NodeRow,
    now: Timestamp,
) -> Result<(), ApiError> {
    end_installation(tx, node, PASSED, now).await
}

/// The installation's result ends with a status, where it is still open.
///
/// # Errors
/// When the database fails.
pub async fn end_installation(
    tx: &mut Tx,
    node: &NodeRow,
    status: i64,
    now: Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE script_result SET status = $2, started = COALESCE(started, $3), ended = $3, updated = $3 \
         WHERE script_set_id = $1 AND status IN (0, 1, 7, 10)",
        node.current_installation_set_id,
        status,
        now.0
    )?;
    Ok(())
}

/// The installation's result runs.
///
/// # Errors
/// When the database fails.
pub async fn start_installation(
    tx: &mut Tx,
    node: &NodeRow,
    now: Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE script_result SET status = $2, started = $3, updated = $3 WHERE script_set_id = $1 AND status = 0",
        node.current_installation_set_id,
        RUNNING,
        now.0
    )?;
    Ok(())
}

/// How the scripts of a set stand.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Names of those that speak against the machine.
    pub bad: Vec<String>,
    /// Names of those that have no result yet.
    pub open: Vec<String>,
    /// Whether any was begun.
    pub begun: bool,
}

/// How the scripts of a set stand; nothing at all for no set.
///
/// # Errors
/// When the database fails.
pub async fn standing(tx: &mut Tx, set: Option<i64>) -> Result<Standing, ApiError> {
    let mut out = Standing::default();
    let Some(set) = set else { return Ok(out) };
    let rows = store::all!(
        tx,
        (String, i64, bool),
        "SELECT script_name, status, suppressed FROM script_result WHERE script_set_id = $1 ORDER BY script_name, id",
        set
    )?;
    for (name, status, suppressed) in rows {
        out.begun |= status != PENDING;
        if is_open(status) {
            out.open.push(name);
        } else if !is_good(status) && !suppressed {
            out.bad.push(name);
        }
    }
    Ok(out)
}

/// What of a set was never begun is skipped.
///
/// # Errors
/// When the database fails.
pub async fn skip_open(tx: &mut Tx, set: Option<i64>, now: Timestamp) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE script_result SET status = $2, ended = $3, updated = $3 WHERE script_set_id = $1 AND status IN (0, 1, 7, 10)",
        set,
        SKIPPED,
        now.0
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, tags: &[&str], is_default: bool) -> Candidate {
        Candidate {
            id: 1,
            name: name.to_owned(),
            tags: serde_json::to_string(tags).unwrap(),
            parameters:
                r#"{"disk": {"type": "string", "default": "a"}, "count": {"type": "string"}}"#
                    .to_owned(),
            for_hardware: if name.starts_with("hw-") {
                r#"["pci:1:2"]"#
            } else {
                "[]"
            }
            .to_owned(),
            is_default,
            current_version_id: None,
        }
    }

    fn names(kind: i64, chosen: &[&str]) -> Result<Vec<String>, ApiError> {
        let all = vec![
            candidate("built-in", &["commissioning", "node"], true),
            candidate("mine", &["commissioning", "extra"], false),
            candidate("quiet", &["noauto"], false),
            candidate("hw-gpu", &[], false),
        ];
        let chosen: Vec<String> = chosen.iter().map(|s| (*s).to_owned()).collect();
        Ok(choose(all, kind, &chosen)?
            .into_iter()
            .map(|c| c.name)
            .collect())
    }

    #[test]
    fn scripts_are_chosen_by_name_and_tag() {
        assert_eq!(names(COMMISSIONING, &[]).unwrap(), ["built-in", "mine"]);
        assert_eq!(
            names(COMMISSIONING, &["quiet"]).unwrap(),
            ["built-in", "quiet"]
        );
        assert_eq!(
            names(COMMISSIONING, &["extra"]).unwrap(),
            ["built-in", "mine"]
        );
        assert_eq!(names(TESTING, &[]).unwrap(), ["built-in", "mine"]);
        assert_eq!(names(TESTING, &["quiet"]).unwrap(), ["quiet"]);
        assert!(
            matches!(names(TESTING, &["nothing"]), Err(ApiError::Fields(f)) if f[0].0 == "testing_scripts")
        );
    }

    #[test]
    fn a_value_for_one_script_beats_the_value_for_all() {
        let given = serde_json::json!({"disk": "b", "s_disk": "c", "other": 1});
        let Value::Object(given) = given else {
            panic!()
        };
        let got = Value::Object(valued(&candidate("s", &[], false), &given));
        assert_eq!(got["disk"]["value"], "c");
        assert_eq!(got["count"].get("value"), None);
        assert_eq!(
            Value::Object(valued(&candidate("t", &[], false), &given))["disk"]["value"],
            "b"
        );
    }
}
