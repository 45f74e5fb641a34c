//! Entity tags (RFC 9110 §8.8.3) and writes that only go through when nobody was faster (§13.1.1).

use metal::operation::Kind as Long;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use store::Tx;

use crate::answer::{Answer, Content};
use crate::call::Call;
use crate::dispatch;
use crate::error::ApiError;
use crate::operation::{Face, Method, Operation};

/// How often a conditional write is tried when its object changed in between without becoming another one.
const ATTEMPTS: usize = 4;

/// What a conditional write rests on: the object has not changed since.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Its changes when it was read: how many, and the last.
    pub seen: (i64, i64),
    /// The object's names in the feed, as a JSON list.
    pub objects: String,
}

impl Guard {
    /// Checks it, within the write.
    ///
    /// # Errors
    /// [`ApiError::Precondition`] when the object changed meanwhile.
    pub async fn check(&self, tx: &mut Tx) -> Result<(), ApiError> {
        if tx.changes_of(&self.objects).await? != self.seen {
            return Err(ApiError::Precondition);
        }
        Ok(())
    }
}

/// The tag of an object: strong, of all of it.
#[must_use]
pub fn of(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string().as_bytes());
    format!("\"{}\"", hex::encode(&digest[..16]))
}

/// Whether a list of tags in a header has this one.
#[must_use]
pub fn matches(header: &str, tag: &str) -> bool {
    header.trim() == "*"
        || header
            .split(',')
            .any(|t| t.trim().trim_start_matches("W/") == tag)
}

/// Runs a write, under the condition of `If-Match` where there is one. Gives the inner call as well.
///
/// # Errors
/// 412 when the object is another one; those of the write.
pub async fn guarded(
    call: &Call,
    of: &'static Operation,
    long: Option<Long>,
) -> Result<(Call, Answer), ApiError> {
    let Some(wanted) = call.origin().if_match.clone() else {
        let inner = call.second(of, None, long);
        let answer = dispatch::run(inner.clone()).await?;
        return Ok((inner, answer));
    };
    let reader = call
        .region()
        .table()
        .iter()
        .find(|o| {
            o.face == Face::Maas2
                && o.uri == of.uri
                && o.method == Method::Get
                && o.op.is_none()
                && !o.is_anonymous()
        })
        .copied()
        .ok_or(ApiError::Precondition)?;
    let current = async || -> Result<Value, ApiError> {
        let answer = dispatch::run(call.second(reader, None, None)).await?;
        match answer.content {
            Content::Json(value) if matches(&wanted, &self::of(&value)) => Ok(value),
            _ => Err(ApiError::Precondition),
        }
    };
    // What the feed calls it is known from the object alone.
    let objects = objects(call, &current().await?);
    for _ in 0..ATTEMPTS {
        let seen = {
            let mut tx = call.read().await?;
            tx.changes_of(&objects).await?
        };
        current().await?;
        let guard = Guard {
            seen,
            objects: objects.clone(),
        };
        let inner = call.second(of, Some(guard), long);
        match dispatch::run(inner.clone()).await {
            Err(ApiError::Precondition) => {}
            Ok(answer) => return Ok((inner, answer)),
            Err(e) => return Err(e),
        }
    }
    Err(ApiError::Conflict(
        "The object is changing all the time; try again.".to_owned(),
    ))
}

/// Everything that the feed may call an object.
fn objects(call: &Call, value: &Value) -> String {
    let mut names: Vec<String> = call.paths().map(str::to_owned).collect();
    for field in ["id", "system_id", "name", "username"] {
        match &value[field] {
            Value::String(s) => names.push(s.clone()),
            Value::Number(n) => names.push(n.to_string()),
            _ => {}
        }
    }
    Value::from(names).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_lists_and_by_the_star() {
        let tag = of(&serde_json::json!({"a": 1}));
        assert!(matches(&format!("\"x\", {tag}"), &tag));
        assert!(matches(&format!("W/{tag}"), &tag));
        assert!(matches("*", &tag));
        assert!(!matches("\"x\"", &tag));
        assert_ne!(tag, of(&serde_json::json!({"a": 2})));
    }
}
