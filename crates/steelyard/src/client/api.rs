//! HTTP to one server, signed with its key.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Url};

use super::oauth::Credentials;
use super::profile::Profile;

/// How long to wait for a connection. An answer may take as long as it takes: imports and uploads do.
const CONNECT: Duration = Duration::from_secs(30);

/// A server.
pub struct Api {
    url: Url,
    credentials: Option<Credentials>,
    http: reqwest::Client,
}

/// A request to it.
#[derive(Debug)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// Path and query, encoded.
    pub target: String,
    /// The body.
    pub body: Body,
}

/// A body.
#[derive(Debug)]
pub enum Body {
    /// None.
    Empty,
    /// A form: names, contents, and whether each is a file.
    Form(Vec<(String, Vec<u8>, bool)>),
    /// Bytes.
    Raw(Bytes),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `HTTP/1.1 200 OK`, for those who debug.
    pub status_line: String,
    /// Where it came from.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the status is 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status / 100 == 2
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of a success as JSON.
    ///
    /// # Errors
    /// With what the server said, when it is none.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        if !self.is_success() {
            anyhow::bail!(
                "{} answered {}: {}",
                self.url.path(),
                self.status,
                self.text().trim()
            );
        }
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} did not answer JSON", self.url.path()))
    }
}

impl Api {
    /// The server of a profile.
    ///
    /// # Errors
    /// When its URL or its certificates make no sense.
    pub fn of(profile: &Profile, insecure: bool) -> anyhow::Result<Self> {
        Self::new(
            &profile.url,
            profile.credentials.clone(),
            profile.cacerts.as_deref(),
            insecure || profile.insecure,
        )
    }

    /// A server by its URL.
    ///
    /// # Errors
    /// As for [`Self::of`].
    pub fn new(
        url: &str,
        credentials: Option<Credentials>,
        cacerts: Option<&str>,
        insecure: bool,
    ) -> anyhow::Result<Self> {
        let url = Url::parse(url).with_context(|| format!("{url} is not a URL"))?;
        let mut builder = trust::somebody(reqwest::Client::builder())
            .user_agent(concat!("steelyard/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            // A redirected POST would arrive as a GET; say so instead.
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(insecure);
        if let Some(pem) = cacerts {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .context("the certificates are not PEM")?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().context("the HTTP client")?;
        Ok(Self {
            url,
            credentials,
            http,
        })
    }

    /// The URL of a path and query on this server.
    ///
    /// # Errors
    /// When it leads to another server: the key is for this one.
    pub fn resolve(&self, target: &str) -> anyhow::Result<Url> {
        let url = self
            .url
            .join(target)
            .with_context(|| format!("{target} is not a path"))?;
        if url.origin() != self.url.origin() {
            anyhow::bail!("{target} leads to another server than {}", self.url);
        }
        Ok(url)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When there is no answer; an answer of any status is none.
    pub async fn send(&self, request: Request) -> anyhow::Result<Answer> {
        let url = self.resolve(&request.target)?;
        let mut builder = self.http.request(request.method, url.clone());
        if let Some(c) = &self.credentials {
            builder = builder.header(AUTHORIZATION, c.header());
        }
        builder = match request.body {
            Body::Empty => builder,
            Body::Raw(bytes) => builder
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(bytes),
            Body::Form(parts) => {
                let mut form = Form::new();
                for (name, content, is_file) in parts {
                    let mut part = Part::bytes(content);
                    if is_file {
                        part = part
                            .file_name(name.clone())
                            .mime_str("application/octet-stream")?;
                    }
                    form = form.part(name, part);
                }
                builder.multipart(form)
            }
        };
        let response = builder
            .send()
            .await
            .with_context(|| format!("{} does not answer", self.url))?;
        let (status, version, headers) = (
            response.status(),
            response.version(),
            response.headers().clone(),
        );
        let body = response
            .bytes()
            .await
            .with_context(|| format!("the answer of {} broke off", self.url))?;
        Ok(Answer {
            status: status.as_u16(),
            status_line: format!("{version:?} {status}"),
            url,
            headers,
            body,
        })
    }

    /// Reads a path.
    ///
    /// # Errors
    /// As for [`Self::send`].
    pub async fn get(&self, target: &str) -> anyhow::Result<Answer> {
        self.send(Request {
            method: Method::GET,
            target: target.to_owned(),
            body: Body::Empty,
        })
        .await
    }
}

/// The URL of the API for what a person typed: `http://HOST:5240/MAAS` will do.
///
/// # Errors
/// When it is not an HTTP URL.
pub fn normalise(typed: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(typed).with_context(|| format!("{typed} is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        anyhow::bail!("{typed} is not an http:// or https:// URL");
    }
    url.set_query(None);
    url.set_fragment(None);
    let mut path = url.path().trim_end_matches('/').to_owned();
    if !is_api(&path) {
        path.push_str("/api/2.0");
    }
    path.push('/');
    url.set_path(&path);
    Ok(url.into())
}

/// Whether a path ends in `/api/N.N`.
fn is_api(path: &str) -> bool {
    let mut ends = path.rsplit('/');
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    ends.next()
        .and_then(|v| v.split_once('.'))
        .is_some_and(|(a, b)| number(a) && number(b))
        && ends.next() == Some("api")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_completed_to_that_of_the_api() {
        for (typed, expected) in [
            ("http://h:5240/MAAS", "http://h:5240/MAAS/api/2.0/"),
            ("http://h:5240/MAAS/", "http://h:5240/MAAS/api/2.0/"),
            ("https://h/MAAS/api/2.0", "https://h/MAAS/api/2.0/"),
            ("http://h/MAAS/api/1.0/?x#y", "http://h/MAAS/api/1.0/"),
            (
                "http://[fe80::1]:5240/MAAS",
                "http://[fe80::1]:5240/MAAS/api/2.0/",
            ),
        ] {
            assert_eq!(normalise(typed).unwrap(), expected);
        }
        for bad in ["", "h:5240/MAAS", "ftp://h/", "file:///etc/passwd"] {
            assert!(normalise(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_key_never_goes_to_another_server() {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let api = Api::new("http://h:5240/MAAS/api/2.0/", None, None, false).unwrap();
        assert_eq!(
            api.resolve("/MAAS/x/?a=b").unwrap().as_str(),
            "http://h:5240/MAAS/x/?a=b"
        );
        for elsewhere in [
            "http://evil/x",
            "//evil/x",
            "https://h:5240/x",
            "http://h:5241/x",
        ] {
            assert!(api.resolve(elsewhere).is_err(), "{elsewhere}");
        }
    }
}
