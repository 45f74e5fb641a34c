//! What is said over `/MAAS/api/v1/`: the types of requests and answers, shared by the region that serves
//! them, the OpenAPI document made of their schemas, and the client.
//!
//! Types only: nothing here knows HTTP, databases or the domain. Start reading at [`Page`] and
//! [`Operation`]; the nouns are in [`noun`].

#![forbid(unsafe_code)]

pub mod noun;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The objects of this page.
    pub items: Vec<T>,
    /// Where the next page begins: give it as `cursor`. Null on the last page.
    pub next: Option<String>,
    /// How many objects there are in all that meet the filters; only when `count` was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// Why a request was refused (RFC 9457), as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The words for the status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and where that is known what to do.
    pub detail: String,
    /// The parameters that are wrong, each with what is wrong with it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub errors: Map<String, Value>,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It goes on.
    Running,
    /// It reached what it was for.
    Succeeded,
    /// It did not; the reason says why.
    Failed,
    /// Somebody ended it, or began something else with the machine.
    Cancelled,
}

/// Something long that was begun with a machine, to be watched and cancelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// Its number.
    pub id: i64,
    /// What was begun: `commission`, `deploy`, `release`, `test`, `rescue_mode`, `exit_rescue_mode`,
    /// `power_on`, `power_off`.
    pub kind: String,
    /// The machine.
    pub system_id: String,
    /// Who began it.
    pub by: String,
    /// How far it has come.
    pub state: OperationState,
    /// What it waits for while it runs, and how it ended.
    pub reason: String,
    /// When it was begun, in microseconds since 1970.
    pub started: i64,
    /// When it ended, in microseconds since 1970.
    pub ended: Option<i64>,
}

/// The same action on many objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// The action, for example `deploy`, or `update` or `delete`.
    pub action: String,
    /// The objects, by what their path calls them; at most 1,000.
    pub ids: Vec<String>,
    /// Parameters of the action, the same for each.
    #[serde(default)]
    pub parameters: Map<String, Value>,
}

/// What became of one object of a [`Bulk`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BulkItem {
    /// The object.
    pub id: String,
    /// The HTTP status that the action alone would have had.
    pub status: u16,
    /// Its answer, when it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why not, when it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// The answer to a [`Bulk`], in the order of its ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BulkResult {
    /// One for each id.
    pub items: Vec<BulkItem>,
}

/// A change, as the stream tells it: which object, never its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Where the stream stands behind it: give it as `since` or `Last-Event-ID` to go on from here.
    pub position: String,
    /// The noun, for example `node` or `subnet`.
    pub noun: String,
    /// The object.
    pub object: String,
    /// Its revision, where it counts them; otherwise 0.
    pub revision: i64,
    /// When, in microseconds since 1970.
    pub at: i64,
}
