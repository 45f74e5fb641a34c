//! `installation-results` and `commissioning-results`: the older list of what scripts left, over all nodes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::view::time_json;
use crate::operation::{Kind, Operation, Param};
use crate::script::{COMMISSIONING, INSTALLATION, TESTING};

/// Most results of one answer: each comes with its output.
pub const MAX_RESULTS: i64 = 10_000;

/// `installation-results/` and `commissioning-results/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        uri: "installation-results/",
        ..RESULTS
    },
    Operation {
        uri: "commissioning-results/",
        ..RESULTS
    },
];

const RESULTS: Operation = Operation {
    handler: "NodeResultsHandler",
    title: "List what scripts left on the nodes that the caller may see.",
    params: &[
        Param::opt("system_id", Kind::List, "Only results of these nodes."),
        Param::opt("name", Kind::List, "Only results of these scripts."),
        Param::opt(
            "result_type",
            Kind::Int,
            "Only results of this type: 0 commissioning, 1 installation, 2 testing.",
        ),
    ],
    run: |c| Box::pin(list(c)),
    ..Operation::READ
};

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    system_id: String,
    script_name: String,
    status: i64,
    exit_status: Option<i64>,
    result_type: i64,
    output: Option<Vec<u8>>,
    created: i64,
    updated: i64,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.script_name,
            "script_result": self.exit_status.unwrap_or(self.status),
            "result_type": self.result_type,
            "created": time_json(Some(self.created)),
            "updated": time_json(Some(self.updated)),
            "node": { "system_id": self.system_id },
            "data": STANDARD.encode(self.output.as_deref().unwrap_or_default()),
            "resource_uri": "/MAAS/api/2.0/installation-results/",
        })
    }
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let kind = call.args().int("result_type")?;
    if kind.is_some_and(|k| ![COMMISSIONING, INSTALLATION, TESTING].contains(&k)) {
        return Err(ApiError::field(
            "result_type",
            "Select a valid choice: 0, 1 or 2.",
        ));
    }
    let texts = |name: &str| serde_json::to_string(&call.args().list(name)).unwrap_or_default();
    let (systems, names) = (texts("system_id"), texts("name"));
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        "SELECT r.id, n.system_id, r.script_name, r.status, r.exit_status, x.result_type, r.output, r.created, r.updated FROM script_result r \
         JOIN script_set x ON x.id = r.script_set_id JOIN node n ON n.id = x.node_id \
         WHERE (n.owner_id IS NULL OR n.owner_id = $1 OR $2) AND ($3 = '[]' OR n.system_id IN @texts($3)) \
         AND ($4 = '[]' OR r.script_name IN @texts($4)) AND ($5 < 0 OR x.result_type = $5) AND r.status NOT IN (0, 1, 7, 10) \
         AND x.id IN (n.current_commissioning_set_id, n.current_testing_set_id, n.current_installation_set_id) ORDER BY r.id LIMIT $6",
        call.actor().user_id(),
        call.actor().is_admin(),
        systems,
        names,
        kind.unwrap_or(-1),
        MAX_RESULTS
    )?;
    Ok(Answer::json(rows.iter().map(Row::json).collect()))
}
