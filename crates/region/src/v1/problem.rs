//! Refusals of this face: `application/problem+json` (RFC 9457).

use api::Problem;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::answer::{Answer, Content};

/// Content type.
pub const PROBLEM: &str = "application/problem+json";

/// A refusal in this face's form, made of one of the other face: same status, same words, same headers.
#[must_use]
pub fn of_answer(answer: Answer) -> Answer {
    let problem = problem(&answer);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Answer {
        status: answer.status,
        headers: answer.headers,
        content: Content::Bytes(body.into(), PROBLEM),
    }
}

/// What a refusal says.
#[must_use]
pub fn problem(answer: &Answer) -> Problem {
    let title = StatusCode::from_u16(answer.status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("Error");
    let (text, value) = match &answer.content {
        Content::Json(v) => (v.to_string(), Some(v.clone())),
        Content::Bytes(b, kind) => (
            String::from_utf8_lossy(b).into_owned(),
            kind.starts_with("application/json")
                .then(|| serde_json::from_slice(b).ok())
                .flatten(),
        ),
        Content::Empty | Content::Stream(..) => (String::new(), None),
    };
    let errors: Map<String, Value> = match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let detail = if !errors.is_empty() {
        let names: Vec<&str> = errors.keys().map(String::as_str).collect();
        format!("These parameters are not right: {}.", names.join(", "))
    } else if text.is_empty() {
        title.to_owned()
    } else {
        text
    };
    Problem {
        kind: "about:blank".to_owned(),
        title: title.to_owned(),
        status: answer.status,
        detail,
        errors,
    }
}
