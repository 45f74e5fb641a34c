//! The region's API as an administrator uses it: as small a client as works, for demos and tests.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::form::{Credentials, query, urlencoded};
use crate::http::{Answer, Http, HttpError, Request};
use crate::state::Counting;

/// How often a change that got into another's way is sent again.
const CONFLICTS_MAX: u32 = 20;
/// Longest pause before that.
const CONFLICT_PAUSE: Duration = Duration::from_millis(500);

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The key is not `consumer:token:secret`.
    #[error("the API key has not the form CONSUMER:TOKEN:SECRET")]
    Key,
    /// The request.
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl ApiError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Http(e) => e.status().map(|s| s.as_u16()),
            Self::Key => None,
        }
    }
}

/// The API at one address with one key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    key: Option<Credentials>,
    http: Http,
}

/// Names and values.
pub type Pairs<'a> = &'a [(&'a str, &'a str)];

impl Api {
    /// The API below `url`, which ends in `/MAAS` or `/MAAS/`. Without a key every call is anonymous.
    ///
    /// # Errors
    /// When the key has another form.
    pub fn new(url: &str, key: Option<&str>) -> Result<Self, ApiError> {
        let key = key
            .map(|k| Credentials::parse(k).ok_or(ApiError::Key))
            .transpose()?;
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self {
            base,
            key,
            http: Http::new(None, "steelyard-fleet", Arc::new(Counting::default())),
        })
    }

    /// One call. `path` is below `/MAAS/api/2.0/`, or below `/MAAS` when it begins with a slash. What the JSON
    /// says comes back, or the text as a JSON string.
    ///
    /// # Errors
    /// [`ApiError`], also for every status from 400 on.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        op: Option<&str>,
        fields: Pairs<'_>,
    ) -> Result<Value, ApiError> {
        let mut url = if path.starts_with('/') {
            format!("{}{path}", self.base)
        } else {
            format!("{}/api/2.0/{path}", self.base)
        };
        let in_query = matches!(method, Method::GET | Method::DELETE);
        let mut asked: Vec<(&str, &str)> = op.map(|op| ("op", op)).into_iter().collect();
        if in_query {
            asked.extend(fields);
        }
        if !asked.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&query(&asked));
        }
        let body = (!in_query).then(|| urlencoded(fields));
        let request = Request {
            method,
            url,
            credentials: self.key.clone(),
            body,
        };
        let answer = self.once_more(&request).await?;
        Ok(serde_json::from_slice(&answer.body).unwrap_or_else(|_| Value::from(answer.text())))
    }

    /// Sends a request, again where the region says that changes got into each other's way.
    async fn once_more(&self, request: &Request) -> Result<Answer, HttpError> {
        for _ in 0..CONFLICTS_MAX {
            match self.http.send(request).await {
                Err(e) if e.status() == Some(StatusCode::CONFLICT) && e.may_pass() => {
                    tokio::time::sleep(e.retry_after().unwrap_or_default().min(CONFLICT_PAUSE))
                        .await;
                }
                other => return other,
            }
        }
        self.http.send(request).await
    }

    /// Reads.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn get(&self, path: &str, fields: Pairs<'_>) -> Result<Value, ApiError> {
        self.call(Method::GET, path, None, fields).await
    }

    /// An operation that only reads.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn ask(&self, path: &str, op: &str, fields: Pairs<'_>) -> Result<Value, ApiError> {
        self.call(Method::GET, path, Some(op), fields).await
    }

    /// Creates.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn create(&self, path: &str, fields: Pairs<'_>) -> Result<Value, ApiError> {
        self.call(Method::POST, path, None, fields).await
    }

    /// An operation.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn op(&self, path: &str, op: &str, fields: Pairs<'_>) -> Result<Value, ApiError> {
        self.call(Method::POST, path, Some(op), fields).await
    }

    /// Updates.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn update(&self, path: &str, fields: Pairs<'_>) -> Result<Value, ApiError> {
        self.call(Method::PUT, path, None, fields).await
    }

    /// Deletes.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn delete(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::DELETE, path, None, &[]).await
    }
}
