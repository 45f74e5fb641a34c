//! Why the API refuses, and the one place where that becomes a status and a body.

use bytes::Bytes;
use metal::status::InvalidTransition;
use serde_json::{Map, Value};
use store::{StoreError, TxError};

use crate::answer::{Answer, TEXT};

/// How every answer begins that says that something is not built yet.
pub const WITHOUT_ENGINE: &str = "Checked and in order, but nothing was done; not built yet: ";

/// An error of an operation.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400: fields of the request and what is wrong with each.
    #[error("invalid fields: {}", .0.iter().map(|(f, _)| f.as_str()).collect::<Vec<_>>().join(", "))]
    Fields(Vec<(String, Vec<String>)>),
    /// 400 with a sentence.
    #[error("{0}")]
    Bad(String),
    /// 401.
    #[error("{0}")]
    Unauthorized(String),
    /// 403.
    #[error("{0}")]
    Forbidden(String),
    /// 404.
    #[error("{0}")]
    NotFound(String),
    /// 405, with the methods that there are.
    #[error("method not allowed")]
    Method(String),
    /// 409: the object is not in a state for this, or somebody else was faster.
    #[error("{0}")]
    Conflict(String),
    /// 410: it was there, and is no longer.
    #[error("{0}")]
    Gone(String),
    /// 412: the object is not the one that the caller has seen.
    #[error("the object has changed")]
    Precondition,
    /// 413.
    #[error("{0}")]
    TooLarge(String),
    /// 429: too often; try again after these seconds.
    #[error("{0}")]
    TooMany(String, u64),
    /// 503: something this needs is not there now; try again after these seconds.
    #[error("{0}")]
    Unavailable(String, u32),
    /// 503: what this needs is not part of the product yet. Everything was checked before. All of these stand
    /// in `tests/golden/without_engine.tsv`.
    #[error("{WITHOUT_ENGINE}{0}.")]
    NoEngine(&'static str),
    /// The database.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// 500: our own fault.
    #[error("internal error: {0}")]
    Bug(String),
}

impl ApiError {
    /// One field, one message.
    #[must_use]
    pub fn field(name: &str, message: impl Into<String>) -> Self {
        Self::Fields(vec![(name.to_owned(), vec![message.into()])])
    }

    /// A missing object: clients know this sentence.
    #[must_use]
    pub fn missing(model: &str) -> Self {
        Self::NotFound(format!("No {model} matches the given query."))
    }

    /// Not allowed: clients know this sentence.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::Forbidden("User is not allowed access to this API.".to_owned())
    }

    /// Something that must not happen.
    #[must_use]
    pub fn bug(what: &str) -> Self {
        Self::Bug(what.to_owned())
    }

    /// What goes to the client. Internal errors are logged under an id that the client is told.
    #[must_use]
    pub fn answer(self) -> Answer {
        let text =
            |status: u16, text: String| Answer::bytes(Bytes::from(text), TEXT).status(status);
        match self {
            Self::Fields(fields) => {
                let map: Map<String, Value> = fields
                    .into_iter()
                    .map(|(k, v)| (k, Value::from(v)))
                    .collect();
                let body = serde_json::to_vec(&map).unwrap_or_default();
                Answer::bytes(Bytes::from(body), "application/json").status(400)
            }
            Self::Bad(s) => text(400, s),
            Self::Unauthorized(s) => {
                text(401, s).header("WWW-Authenticate", "OAuth realm=\"MAAS API\"")
            }
            Self::Forbidden(s) => text(403, s),
            Self::NotFound(s) => text(404, s),
            Self::Method(allow) => text(405, String::new()).header("Allow", allow),
            Self::Conflict(s) => text(409, s),
            Self::Gone(s) => text(410, s),
            Self::Precondition => text(
                412,
                "The object is not the one you have seen: read it again.".to_owned(),
            ),
            Self::TooLarge(s) => text(413, s),
            Self::TooMany(s, after) => text(429, s).header("Retry-After", after.to_string()),
            Self::Unavailable(s, after) => text(503, s).header("Retry-After", after.to_string()),
            e @ Self::NoEngine(_) => text(503, e.to_string()),
            Self::Store(StoreError::Conflict { .. }) => {
                text(409, "Too many changes at once; try again.".to_owned())
                    .header("Retry-After", "5")
            }
            Self::Store(e) => {
                let id = uuid::Uuid::new_v4();
                tracing::error!(%id, error = %e, cause = ?std::error::Error::source(&e), "a request failed in the database");
                text(
                    500,
                    format!("Internal error {id}; the log of the region says more."),
                )
            }
            Self::Bug(what) => {
                let id = uuid::Uuid::new_v4();
                tracing::error!(%id, what, "a request failed");
                text(
                    500,
                    format!("Internal error {id}; the log of the region says more."),
                )
            }
        }
    }
}

impl TxError for ApiError {
    fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(e) => Some(e),
            _ => None,
        }
    }
}

impl From<InvalidTransition> for ApiError {
    fn from(e: InvalidTransition) -> Self {
        Self::Conflict(e.to_string())
    }
}
