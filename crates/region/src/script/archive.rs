//! The archive of scripts that a machine fetches (`maas-scripts`): a tar file with `index.json`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use store::Tx;

use super::{COMMISSIONING, RELEASE, TESTING, is_open};
use crate::error::ApiError;
use crate::node::NodeRow;
use metal::status::Status;

/// Tag of scripts that find the BMC.
const BMC_TAG: &str = "bmc-config";
/// Tag of scripts that run before the machine is known.
const ENLISTING_TAG: &str = "enlisting";

/// One script of an archive.
#[derive(sqlx::FromRow)]
struct Item {
    result_id: Option<i64>,
    version_id: Option<i64>,
    result_type: i64,
    status: i64,
    given: String,
    name: String,
    body: String,
    tags: String,
    hardware_type: i64,
    parallel: i64,
    packages: String,
    timeout: i64,
    is_default: bool,
    for_hardware: String,
    apply_configured_networking: bool,
}

/// The list in the index and the directory of a kind of scripts.
const fn place(kind: i64) -> Option<(&'static str, &'static str)> {
    match kind {
        COMMISSIONING => Some(("commissioning_scripts", "commissioning")),
        TESTING => Some(("testing_scripts", "testing")),
        RELEASE => Some(("release_scripts", "release")),
        _ => None,
    }
}

impl Item {
    fn json(&self, path: &str) -> Value {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
        put("name", self.name.clone().into());
        put("path", path.into());
        if let Some(id) = self.result_id {
            put("script_result_id", id.into());
            put("has_started", (self.status != super::PENDING).into());
            put("has_finished", (!is_open(self.status)).into());
        }
        put("script_version_id", self.version_id.into());
        #[allow(clippy::cast_precision_loss)] // seconds are far below 2^52
        put("timeout_seconds", (self.timeout as f64).into());
        put("parallel", self.parallel.into());
        put("hardware_type", self.hardware_type.into());
        put("parameters", parsed(&self.given));
        put("packages", parsed(&self.packages));
        put("for_hardware", parsed(&self.for_hardware));
        put(
            "apply_configured_networking",
            self.apply_configured_networking.into(),
        );
        put("default", self.is_default.into());
        put("tags", parsed(&self.tags));
        Value::Object(out)
    }
}

/// What a machine with credentials is to run now; none when there is nothing.
///
/// # Errors
/// When the database fails.
pub async fn of_node(tx: &mut Tx, node: &NodeRow) -> Result<Option<Bytes>, ApiError> {
    let sets: Vec<i64> = match node.status()? {
        Status::Commissioning => [
            node.current_commissioning_set_id,
            node.current_testing_set_id,
        ]
        .into_iter()
        .flatten()
        .collect(),
        Status::Testing => node.current_testing_set_id.into_iter().collect(),
        Status::DiskErasing | Status::Releasing => {
            node.current_release_set_id.into_iter().collect()
        }
        _ => return Ok(None),
    };
    let items = store::all!(
        tx,
        Item,
        "SELECT r.id AS result_id, v.id AS version_id, x.result_type, r.status, r.parameters AS given, s.name, v.body, s.tags, \
         s.hardware_type, s.parallel, s.packages, s.timeout, s.is_default, s.for_hardware, s.apply_configured_networking \
         FROM script_result r JOIN script_set x ON x.id = r.script_set_id JOIN script s ON s.id = r.script_id \
         JOIN script_version v ON v.id = r.script_version_id \
         WHERE r.script_set_id IN @ids($1) AND r.status IN (0, 1, 7, 10) ORDER BY s.name, r.id",
        serde_json::to_string(&sets).unwrap_or_default()
    )?;
    pack(&items)
}

/// What a machine that nobody knows is to run before it presents itself.
///
/// # Errors
/// When the database fails.
pub async fn of_strangers(tx: &mut Tx) -> Result<Option<Bytes>, ApiError> {
    let commission = crate::setting::flag(tx, "enlist_commissioning").await?;
    let all = store::all!(
        tx,
        Item,
        "SELECT CAST(NULL AS BIGINT) AS result_id, v.id AS version_id, s.script_type AS result_type, s.script_type * 0 AS status, s.parameters AS given, \
         s.name, v.body, s.tags, s.hardware_type, s.parallel, s.packages, s.timeout, s.is_default, s.for_hardware, \
         s.apply_configured_networking FROM script s JOIN script_version v ON v.id = s.current_version_id \
         WHERE s.script_type = 0 AND NOT s.apply_configured_networking ORDER BY s.name"
    )?;
    let wanted = |i: &Item| {
        let tags = super::list(&i.tags);
        let has = |t: &str| tags.iter().any(|x| x == t);
        has(BMC_TAG) || commission && (i.is_default || has(ENLISTING_TAG))
    };
    pack(&all.into_iter().filter(wanted).collect::<Vec<_>>())
}

fn pack(items: &[Item]) -> Result<Option<Bytes>, ApiError> {
    if items.is_empty() {
        return Ok(None);
    }
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut bodies: BTreeMap<String, &str> = BTreeMap::new();
    for item in items {
        let Some((list, directory)) = place(item.result_type) else {
            continue;
        };
        let path = format!("{directory}/{}", item.name);
        lists.entry(list).or_default().push(item.json(&path));
        bodies.insert(path, &item.body);
    }
    let failed = |e: std::io::Error| ApiError::bug(&format!("the archive of scripts: {e}"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8], mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, content)
    };
    let index = json!({ "1.0": lists }).to_string();
    add("index.json", index.as_bytes(), 0o644).map_err(failed)?;
    for (path, body) in bodies {
        add(&path, body.as_bytes(), 0o755).map_err(failed)?;
    }
    tar.into_inner()
        .map(|v| Some(Bytes::from(v)))
        .map_err(failed)
}
