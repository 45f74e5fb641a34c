//! A client of `/MAAS/api/v1/` with the types of [`api`].
//!
//! ```text
//! let client = Client::new("http://region:5240/MAAS", "consumer:token:secret")?;
//! let mut machines = client.list::<Machine>(&[("status", "ready")]);
//! while let Some(machine) = machines.next().await? { … }
//! let operation = client.act::<Machine>(&id, "deploy", &json!({})).await?;
//! let ended = client.wait(operation.id).await?;
//! ```
//!
//! It knows nothing of regions or databases. Start reading at [`Client`].

#![forbid(unsafe_code)]

mod events;
mod pages;

use api::noun::Noun;
use api::{Bulk, BulkResult, Operation, OperationState, Problem};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use events::{Changes, Event};
pub use pages::Pages;

/// Seconds that one question for the end of an operation waits on the server.
const WAIT_S: u32 = 30;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The region refused.
    #[error("{} ({})", .0.detail, .0.status)]
    Refused(Box<Problem>),
    /// The region could not be reached, or the connection broke.
    #[error("the region cannot be reached")]
    Http(#[from] reqwest::Error),
    /// The answer is not of the form that the document says.
    #[error("the region's answer cannot be read")]
    Answer(#[from] serde_json::Error),
    /// The key is not three parts with colons between.
    #[error("an API key has three parts with colons between")]
    Key,
    /// The stream of changes no longer reaches back: read what you need anew.
    #[error("the stream of changes starts again: read what you need anew")]
    StartAgain,
}

impl Error {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(p) => Some(p.status),
            _ => None,
        }
    }
}

/// An object and the tag under which it was read.
#[derive(Clone, Debug)]
pub struct Tagged<T> {
    /// The object.
    pub value: T,
    /// Its tag, for [`Client::update`].
    pub tag: String,
}

/// A client. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    authorization: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Client {
    /// A client of a region, `http://HOST:5240/MAAS`, with an API key, `CONSUMER:TOKEN:SECRET`.
    ///
    /// # Errors
    /// When the key is none, or no HTTP client can be made.
    pub fn new(url: &str, key: &str) -> Result<Self, Error> {
        let mut parts = key.trim().split(':');
        let (Some(consumer), Some(token), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Key);
        };
        Ok(Self {
            http: trust::somebody(reqwest::Client::builder()).build()?,
            base: format!("{}/api/v1/", url.trim_end_matches('/')),
            authorization: format!(
                "OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"{consumer}\", \
                 oauth_token=\"{token}\", oauth_signature=\"%26{secret}\""
            ),
        })
    }

    /// A signed request. Each has a nonce and a time of its own.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let authorization = format!(
            "{}, oauth_nonce=\"{:x}{:x}\", oauth_timestamp=\"{}\"",
            self.authorization,
            now.as_nanos(),
            nonce(),
            now.as_secs()
        );
        self.http
            .request(method, format!("{}{path}", self.base))
            .header("Authorization", authorization)
    }

    async fn send(request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = response.bytes().await?;
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("").to_owned(),
            status: status.as_u16(),
            detail: String::from_utf8_lossy(&body).into_owned(),
            errors: serde_json::Map::default(),
        });
        Err(Error::Refused(Box::new(problem)))
    }

    async fn json<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
        Ok(serde_json::from_slice(&response.bytes().await?)?)
    }

    /// All objects of a noun that meet filters, page by page as they are asked for.
    #[must_use]
    pub fn list<T: Noun>(&self, filters: &[(&str, &str)]) -> Pages<T> {
        Pages::new(self.clone(), filters)
    }

    /// One object, by what its path calls it.
    ///
    /// # Errors
    /// When there is none, or it cannot be had.
    pub async fn get<T: Noun>(&self, key: &str) -> Result<Tagged<T>, Error> {
        let request = self.request(Method::GET, &format!("{}/{}", T::LIST, encode(key)));
        Self::tagged(Self::send(request).await?).await
    }

    async fn tagged<T: DeserializeOwned>(response: Response) -> Result<Tagged<T>, Error> {
        let tag = response
            .headers()
            .get("ETag")
            .and_then(|t| t.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        Ok(Tagged {
            value: Self::json(response).await?,
            tag,
        })
    }

    /// Makes an object.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create<T: Noun>(&self, fields: &impl Serialize) -> Result<Tagged<T>, Error> {
        let request = self.request(Method::POST, T::LIST).json(fields);
        Self::tagged(Self::send(request).await?).await
    }

    /// Changes an object; with a tag only if it is still the one that was read under it.
    ///
    /// # Errors
    /// 412 when somebody was faster.
    pub async fn update<T: Noun>(
        &self,
        key: &str,
        tag: Option<&str>,
        fields: &impl Serialize,
    ) -> Result<Tagged<T>, Error> {
        let mut request = self
            .request(Method::PATCH, &format!("{}/{}", T::LIST, encode(key)))
            .json(fields);
        if let Some(tag) = tag {
            request = request.header("If-Match", tag);
        }
        Self::tagged(Self::send(request).await?).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn delete<T: Noun>(&self, key: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &format!("{}/{}", T::LIST, encode(key)));
        Self::send(request).await.map(drop)
    }

    /// Begins something long with an object: `commission`, `deploy`, `release` …
    ///
    /// # Errors
    /// When it is refused.
    pub async fn act<T: Noun>(
        &self,
        key: &str,
        action: &str,
        parameters: &impl Serialize,
    ) -> Result<Operation, Error> {
        let path = format!(
            "{}/{}/actions/{}",
            T::LIST,
            encode(key),
            action.replace('_', "-")
        );
        let request = self.request(Method::POST, &path).json(parameters);
        Self::json(Self::send(request).await?).await
    }

    /// The same action on many objects, with a result for each.
    ///
    /// # Errors
    /// When the whole is refused; what single objects refuse is in the result.
    pub async fn bulk<T: Noun>(&self, bulk: &Bulk) -> Result<BulkResult, Error> {
        let request = self
            .request(Method::POST, &format!("{}/bulk", T::LIST))
            .json(bulk);
        Self::json(Self::send(request).await?).await
    }

    /// How far an operation has come.
    ///
    /// # Errors
    /// When there is none.
    pub async fn operation(&self, id: i64) -> Result<Operation, Error> {
        let request = self.request(Method::GET, &format!("operations/{id}"));
        Self::json(Self::send(request).await?).await
    }

    /// Waits for the end of an operation, however long it takes.
    ///
    /// Cancel-safe: yes.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub async fn wait(&self, id: i64) -> Result<Operation, Error> {
        loop {
            let request = self.request(Method::GET, &format!("operations/{id}?wait={WAIT_S}"));
            let operation: Operation = Self::json(Self::send(request).await?).await?;
            if operation.state != OperationState::Running {
                return Ok(operation);
            }
        }
    }

    /// Cancels an operation.
    ///
    /// # Errors
    /// 409 when it is over already.
    pub async fn cancel(&self, id: i64) -> Result<Operation, Error> {
        let request = self.request(Method::POST, &format!("operations/{id}/actions/cancel"));
        Self::json(Self::send(request).await?).await
    }

    /// The position of now in the stream of changes: read it, then what you need, then follow from there.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn position(&self) -> Result<String, Error> {
        let request = self.request(Method::GET, "changes/position");
        let answer: Value = Self::json(Self::send(request).await?).await?;
        Ok(answer["position"].as_str().unwrap_or_default().to_owned())
    }

    /// Follows what changes from a position on.
    ///
    /// # Errors
    /// [`Error::StartAgain`] when the stream does not reach back to the position.
    pub async fn changes(&self, since: &str) -> Result<Changes, Error> {
        let request = self
            .request(Method::GET, "changes")
            .query(&[("since", since)]);
        match Self::send(request).await {
            Ok(response) => Ok(Changes::new(response)),
            Err(e) if e.status() == Some(410) => Err(Error::StartAgain),
            Err(e) => Err(e),
        }
    }
}

/// A number that this process has not given before.
fn nonce() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    (u64::from(std::process::id()) << 32) | NEXT.fetch_add(1, Ordering::Relaxed)
}
