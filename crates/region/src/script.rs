//! Scripts, and the sets of results they leave. (face; being filled in)

use metal::Timestamp;
use serde_json::{Map, Value};
use store::Tx;

use crate::error::ApiError;
use crate::node::NodeRow;

/// `script_type` and `result_type` of commissioning.
pub const COMMISSIONING: i64 = 0;
/// `result_type` of installations.
pub const INSTALLATION: i64 = 1;
/// `script_type` and `result_type` of tests.
pub const TESTING: i64 = 2;
/// `script_type` and `result_type` of release scripts.
pub const RELEASE: i64 = 3;

/// A new set of results, pending, for the scripts chosen by name or tag (none chosen: the default ones
/// of the type). Gives its id. 400 for a name or tag that there is not. Older sets beyond
/// `max_node_*_results` go.
pub async fn new_set(
    _tx: &mut Tx,
    _node: &NodeRow,
    _kind: i64,
    _chosen: &[String],
    _parameters: &Map<String, Value>,
    _now: Timestamp,
) -> Result<i64, ApiError> {
    Err(ApiError::bug("scripts"))
}

/// A new set for the log of an installation.
pub async fn new_installation_set(
    _tx: &mut Tx,
    _node: &NodeRow,
    _now: Timestamp,
) -> Result<i64, ApiError> {
    Err(ApiError::bug("scripts"))
}

/// Whatever still runs or waits in the current sets of a node is aborted.
pub async fn abort_running(_tx: &mut Tx, _node: &NodeRow, _now: Timestamp) -> Result<(), ApiError> {
    Err(ApiError::bug("scripts"))
}

/// Whether a set exists and all of it passed (or was skipped or suppressed).
pub async fn passed(_tx: &mut Tx, _set: Option<i64>) -> Result<bool, ApiError> {
    Err(ApiError::bug("scripts"))
}

/// The installation's result passes.
pub async fn finish_installation(
    _tx: &mut Tx,
    _node: &NodeRow,
    _now: Timestamp,
) -> Result<(), ApiError> {
    Err(ApiError::bug("scripts"))
}
