//! A client of the API for tests: says what it sends, shows everything that comes back.

use std::time::{Duration, SystemTime};

use fleet::form::{Credentials, query, urlencoded};
use reqwest::Method;
use serde_json::Value;

/// Time for one call.
const LIMIT: Duration = Duration::from_secs(60);

/// Names and values.
pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// The API with one person's key, or without one. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<Credentials>,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Body.
    pub body: Vec<u8>,
    /// What was asked, for messages.
    asked: String,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(e) => panic!(
                "{}: {} is no JSON ({e}): {}",
                self.asked,
                self.status,
                self.text()
            ),
        }
    }

    /// A header's value; empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// The same, when it has this status.
    ///
    /// # Panics
    /// When it has another one.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        self
    }

    /// The JSON of a success.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn good(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {} {}",
            self.asked,
            self.status,
            self.text()
        );
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|_| Value::from(self.text()))
    }
}

impl Client {
    /// A client for an address that ends in `/MAAS`, with a key of the form `consumer:token:secret`.
    ///
    /// # Panics
    /// When the key has another form.
    #[must_use]
    pub fn new(url: &str, key: Option<&str>) -> Self {
        let key = key.map(|k| Credentials::parse(k).expect("a key has three parts"));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .build();
        Self {
            http: http.expect("a client without special wishes"),
            url: url.trim_end_matches('/').to_owned(),
            key,
        }
    }

    /// The same without a key.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self {
            key: None,
            ..self.clone()
        }
    }

    /// The same with a secret that is not the right one.
    #[must_use]
    pub fn spoiled(&self) -> Self {
        Self {
            key: self.key.as_ref().map(Credentials::spoiled),
            ..self.clone()
        }
    }

    /// The address that ends in `/MAAS`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request that is ready but for its body. `path` is below `/MAAS/api/2.0/`, or below `/MAAS` when it
    /// begins with a slash; it may have a query.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with('/') {
            format!("{}{path}", self.url)
        } else {
            format!("{}/api/2.0/{path}", self.url)
        };
        let request = self.http.request(method, url);
        match &self.key {
            None => request,
            Some(key) => {
                let now = SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs();
                request.header("Authorization", key.header(now, &fleet::http::nonce()))
            }
        }
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let request = request.build().expect("a request that can be sent");
        let asked = format!("{} {}", request.method(), request.url());
        let answer = self
            .http
            .execute(request)
            .await
            .unwrap_or_else(|e| panic!("{asked}: {e:?}"));
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer
            .bytes()
            .await
            .unwrap_or_else(|e| panic!("{asked}: {e:?}"))
            .to_vec();
        Reply {
            status,
            headers,
            body,
            asked,
        }
    }

    /// One call. Fields go into the query for GET and DELETE, else into a form.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        op: Option<&str>,
        fields: Fields<'_>,
    ) -> Reply {
        let in_query = matches!(method, Method::GET | Method::DELETE);
        let mut asked: Vec<(&str, &str)> = op.map(|op| ("op", op)).into_iter().collect();
        if in_query {
            asked.extend(fields);
        }
        let mut path = path.to_owned();
        if !asked.is_empty() {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&query(&asked));
        }
        let mut request = self.request(method, &path);
        if !in_query {
            let body = urlencoded(fields);
            request = request
                .header("Content-Type", body.content_type)
                .body(body.bytes);
        }
        self.send(request).await
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None, &[]).await
    }

    /// An operation that only reads.
    pub async fn ask(&self, path: &str, op: &str, fields: Fields<'_>) -> Reply {
        self.call(Method::GET, path, Some(op), fields).await
    }

    /// Creates.
    pub async fn create(&self, path: &str, fields: Fields<'_>) -> Reply {
        self.call(Method::POST, path, None, fields).await
    }

    /// An operation.
    pub async fn op(&self, path: &str, op: &str, fields: Fields<'_>) -> Reply {
        self.call(Method::POST, path, Some(op), fields).await
    }

    /// Updates.
    pub async fn update(&self, path: &str, fields: Fields<'_>) -> Reply {
        self.call(Method::PUT, path, None, fields).await
    }

    /// Deletes.
    pub async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, None, &[]).await
    }
}
