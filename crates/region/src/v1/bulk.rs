//! One action on many objects, with a result for each: what one refuses does not keep the others.

use api::{Bulk, BulkItem, BulkResult};
use futures::StreamExt as _;

use crate::answer::{Answer, Content};
use crate::args::Args;
use crate::call::Call;
use crate::dispatch;
use crate::error::ApiError;
use crate::operation::{Body, Face, Method, Operation};
use crate::v1::{is_item_of, json, problem, shape};

/// Objects of one request at most.
pub const MAX_IDS: usize = 1_000;
/// Most bytes of the request.
pub const MAX_BODY: usize = 1 << 20;
/// Worked at side by side.
const AT_ONCE: usize = 8;

/// The operation at a path.
#[must_use]
pub fn operation(uri: &'static str) -> Operation {
    Operation {
        face: Face::V1,
        uri,
        method: Method::Post,
        title: "Do the same to many objects, with a result for each.",
        body: Body::Raw(MAX_BODY),
        run: |c| Box::pin(run(c)),
        ..Operation::READ
    }
}

/// The operation of this face that an action is, on one object of a list.
fn find(call: &Call, list: &str, action: &str) -> Option<&'static Operation> {
    let (suffix, method) = match action {
        "update" => (String::new(), Method::Put),
        "delete" => (String::new(), Method::Delete),
        other => (
            format!("/actions/{}", other.replace('_', "-")),
            Method::Post,
        ),
    };
    call.region()
        .table()
        .iter()
        .find(|o| {
            o.face == Face::V1
                && o.of.is_some()
                && o.method == method
                && o.uri
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|item| is_item_of(item, list))
        })
        .copied()
}

async fn run(call: Call) -> Result<Answer, ApiError> {
    let asked: Bulk = serde_json::from_slice(call.body())
        .map_err(|e| ApiError::Bad(format!("The body cannot be read: {e}.")))?;
    let list = call.operation().uri.trim_end_matches("/bulk");
    let Some(op) = find(&call, list, &asked.action) else {
        let action: String = asked.action.chars().take(64).collect();
        return Err(ApiError::field(
            "action",
            format!("'{action}' is no action on one of the {list}."),
        ));
    };
    if asked.ids.len() > MAX_IDS {
        return Err(ApiError::field(
            "ids",
            format!("At most {MAX_IDS} at a time."),
        ));
    }
    let mut args = Args::default();
    args.push_json(asked.parameters)?;
    let items = futures::stream::iter(asked.ids)
        .map(|id| {
            let (call, args) = (call.clone(), args.clone());
            async move { one(&call, op, id, args).await }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    json(200, &BulkResult { items })
}

async fn one(call: &Call, op: &'static Operation, id: String, args: Args) -> BulkItem {
    let answer = async {
        dispatch::permit(op, call.actor())?;
        args.check(op)?;
        let name = op
            .path_params()
            .next()
            .ok_or_else(|| ApiError::bug("an item without a name"))?;
        (op.run)(call.of_item(op, vec![(name, id.clone())], args)).await
    };
    let answer = answer.await.unwrap_or_else(ApiError::answer);
    let status = answer.status;
    if status >= 400 {
        // Own operations of this face refuse in its form already.
        let problem = match &answer.content {
            Content::Bytes(b, problem::PROBLEM) => serde_json::from_slice(b).ok(),
            _ => Some(problem::problem(&answer)),
        };
        return BulkItem {
            id,
            status,
            result: None,
            problem,
        };
    }
    let result = match answer.content {
        Content::Json(v) => Some(v),
        Content::Bytes(b, _) => serde_json::from_slice(&b).ok(),
        Content::Empty | Content::Stream(..) => None,
    };
    debug_assert_ne!(shape(op), crate::v1::Shape::Bulk);
    BulkItem {
        id,
        status,
        result,
        problem: None,
    }
}
