//! HTTP as machines speak it: one connection per request, from an address of their own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RANGE, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::config::{LIGHT_BYTES, Patience, Transfer};
use crate::form::{Body, Credentials};
use crate::state::{Counting, count};

/// Time for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence in the middle of an exchange.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Largest answer that is kept in memory.
const ANSWER_MAX: usize = 64 << 20;
/// Bytes of a refusal's body that are shown.
const SHOWN: usize = 300;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address makes no sense.
    #[error("{0:?} is no http address")]
    Url(String),
    /// Nobody there, or nobody who speaks HTTP.
    #[error("no answer from {url}: {why}")]
    Away {
        /// What was asked.
        url: String,
        /// What happened.
        why: String,
    },
    /// An answer that is no success.
    #[error("{url} answered {status}: {body}")]
    Refused {
        /// What was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
        /// `Retry-After`, where the other side invites to try again.
        retry_after: Option<Duration>,
    },
    /// A transfer that broke off.
    #[error("{url} broke off after {bytes} bytes: {why}")]
    Broken {
        /// What was asked.
        url: String,
        /// Bytes that came.
        bytes: u64,
        /// What happened.
        why: String,
    },
}

impl HttpError {
    /// The status of a refusal.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Url(_) | Self::Away { .. } | Self::Broken { .. } => None,
        }
    }

    /// When the other side wants to be asked again.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Url(_) | Self::Away { .. } | Self::Broken { .. } => None,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Url(_) => false,
            Self::Away { .. } | Self::Broken { .. } => true,
            // 409 with Retry-After is a conflict of transactions, not a wrong state.
            Self::Refused {
                status,
                retry_after,
                ..
            } => {
                matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504)
                    || (status.as_u16() == 409 && retry_after.is_some())
            }
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Absolute URL.
    pub url: String,
    /// Who asks; none is anonymous.
    pub credentials: Option<Credentials>,
    /// The body.
    pub body: Option<Body>,
}

impl Request {
    /// A GET.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            credentials: None,
            body: None,
        }
    }

    /// A POST.
    #[must_use]
    pub fn post(url: impl Into<String>, body: Body) -> Self {
        Self {
            method: Method::POST,
            url: url.into(),
            credentials: None,
            body: Some(body),
        }
    }

    /// The same, signed.
    #[must_use]
    pub fn signed(mut self, credentials: Option<&Credentials>) -> Self {
        self.credentials = credentials.cloned();
        self
    }
}

/// An answer with a status below 400.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A file that was fetched and thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that came.
    pub bytes: u64,
    /// Size of the whole file.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal; none when not all of it was fetched.
    pub sha256: Option<String>,
}

/// A client at one address. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    local: Option<Ipv4Addr>,
    agent: &'static str,
    counting: Arc<Counting>,
}

/// Random hexadecimal digits, for nonces and boundaries.
#[must_use]
pub fn nonce() -> String {
    hex::encode(rand::random::<[u8; 12]>())
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// An answer whose body has not been read, with the connection it comes over.
struct Open {
    url: String,
    response: http::Response<Incoming>,
}

impl Http {
    /// A client that speaks from `local`, or from where the system likes. `agent` is its `User-Agent`.
    pub(crate) fn new(
        local: Option<Ipv4Addr>,
        agent: &'static str,
        counting: Arc<Counting>,
    ) -> Self {
        Self {
            local,
            agent,
            counting,
        }
    }

    /// The same client with another name.
    #[must_use]
    pub(crate) fn named(&self, agent: &'static str) -> Self {
        Self {
            agent,
            ..self.clone()
        }
    }

    async fn connect(&self, uri: &Uri) -> io::Result<TcpStream> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(80);
        let to = match host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => tokio::net::lookup_host((host, port))
                .await?
                .next()
                .ok_or(io::ErrorKind::NotFound)?,
        };
        let socket = if to.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let (Some(local), true) = (self.local, to.is_ipv4()) {
            socket.bind(SocketAddr::new(local.into(), 0))?;
        }
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// One exchange; `with` reads the body while the connection is driven.
    async fn exchange<T, F>(
        &self,
        request: &Request,
        range: Option<String>,
        with: impl FnOnce(Open) -> F,
    ) -> Result<T, HttpError>
    where
        F: Future<Output = Result<T, HttpError>>,
    {
        let url = request.url.clone();
        let bad = || HttpError::Url(url.clone());
        let away = |why: String| HttpError::Away {
            url: url.clone(),
            why,
        };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(bad());
        }
        count(&self.counting.http_requests);
        let mut head = http::Request::builder()
            .method(request.method.clone())
            .uri(uri.path_and_query().map_or("/", |p| p.as_str()))
            .header(HOST, uri.authority().map_or("", |a| a.as_str()))
            .header(USER_AGENT, self.agent);
        if let Some(key) = &request.credentials {
            head = head.header(AUTHORIZATION, key.header(unix_seconds(), &nonce()));
        }
        if let Some(range) = range {
            head = head.header(RANGE, range);
        }
        if let Some(body) = &request.body {
            head = head.header(CONTENT_TYPE, body.content_type.as_str());
        }
        let body = Full::new(
            request
                .body
                .as_ref()
                .map_or_else(Bytes::new, |b| Bytes::copy_from_slice(&b.bytes)),
        );
        let message = head.body(body).map_err(|_| bad())?;

        let stream = match timeout(CONNECT_LIMIT, self.connect(&uri)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(away(e.to_string())),
            Err(_) => return Err(away("no connection".into())),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| away(e.to_string()))?;
        let work = async {
            let response = match timeout(SILENCE_LIMIT, sender.send_request(message)).await {
                Ok(Ok(response)) => response,
                Ok(Err(e)) => return Err(away(e.to_string())),
                Err(_) => return Err(away("no answer in time".into())),
            };
            with(Open {
                url: url.clone(),
                response,
            })
            .await
        };
        let mut work = std::pin::pin!(work);
        let mut connection = std::pin::pin!(connection);
        let mut connected = true;
        loop {
            tokio::select! {
                done = &mut work => return done,
                // What it ended with is seen by whoever reads from it.
                _ = &mut connection, if connected => connected = false,
            }
        }
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// [`HttpError`]; also for every status from 400 on. Cancel-safe: the request may have been acted on.
    pub async fn send(&self, request: &Request) -> Result<Answer, HttpError> {
        self.exchange(request, None, |open| async move {
            let (head, mut body) = open.response.into_parts();
            let mut bytes = Vec::new();
            let broken = |bytes: &[u8], why: String| HttpError::Broken {
                url: open.url.clone(),
                bytes: bytes.len() as u64,
                why,
            };
            loop {
                match timeout(SILENCE_LIMIT, body.frame()).await {
                    Ok(None) => break,
                    Ok(Some(Ok(frame))) => {
                        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d))
                    }
                    Ok(Some(Err(e))) => return Err(broken(&bytes, e.to_string())),
                    Err(_) => return Err(broken(&bytes, "silence".into())),
                }
                if bytes.len() > ANSWER_MAX {
                    return Err(broken(&bytes, "the answer is too large".into()));
                }
            }
            self.counting
                .bytes
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if head.status.as_u16() >= 400 {
                let body = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)])
                    .trim()
                    .to_owned();
                let retry_after = head
                    .headers
                    .get("retry-after")
                    .and_then(|v| v.to_str().ok()?.trim().parse().ok())
                    .map(Duration::from_secs);
                return Err(HttpError::Refused {
                    url: open.url.clone(),
                    status: head.status,
                    body,
                    retry_after,
                });
            }
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: bytes.into(),
            })
        })
        .await
    }

    /// Sends a request again and again while the other side is away.
    ///
    /// # Errors
    /// A refusal at once, the last failure when patience ended.
    pub async fn deliver(
        &self,
        request: &Request,
        patience: Patience,
    ) -> Result<Answer, HttpError> {
        let started = Instant::now();
        let mut wait = patience.first;
        loop {
            let error = match self.send(request).await {
                Err(e) if e.may_pass() && started.elapsed() + wait <= patience.limit => e,
                other => return other,
            };
            tracing::debug!(%error, "trying again");
            sleep(error.retry_after().unwrap_or(wait).min(patience.most)).await;
            wait = (wait * 2).min(patience.most);
        }
    }

    /// Fetches a file and throws it away.
    ///
    /// # Errors
    /// [`HttpError`]; also when fewer bytes came than were announced.
    pub async fn fetch(&self, url: &str, transfer: Transfer) -> Result<Fetched, HttpError> {
        let range = match transfer {
            Transfer::Full => None,
            Transfer::Light => Some(format!("bytes=0-{}", LIGHT_BYTES - 1)),
        };
        self.fetch_part(url, range, u64::MAX).await
    }

    /// Fetches a file until at least `stop` bytes came, and breaks off there.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn fetch_until(&self, url: &str, stop: u64) -> Result<Fetched, HttpError> {
        self.fetch_part(url, None, stop).await
    }

    async fn fetch_part(
        &self,
        url: &str,
        range: Option<String>,
        stop: u64,
    ) -> Result<Fetched, HttpError> {
        self.exchange(&Request::get(url), range, |open| async move {
            let (head, mut body) = open.response.into_parts();
            if !matches!(head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
                return Err(HttpError::Refused {
                    url: open.url,
                    status: head.status,
                    body: String::new(),
                    retry_after: None,
                });
            }
            let number = |text: Option<&str>| text.and_then(|t| t.trim().parse::<u64>().ok());
            let header = |name| head.headers.get(name).and_then(|v| v.to_str().ok());
            let length = number(header("content-length"));
            let whole =
                number(header("content-range").and_then(|r| r.rsplit('/').next())).or(length);
            let (mut bytes, mut hash) = (0u64, Sha256::new());
            let broken = |bytes, why: String| HttpError::Broken {
                url: open.url.clone(),
                bytes,
                why,
            };
            while bytes < stop {
                match timeout(SILENCE_LIMIT, body.frame()).await {
                    Ok(None) => break,
                    Ok(Some(Ok(frame))) => {
                        if let Some(data) = frame.data_ref() {
                            bytes += data.len() as u64;
                            hash.update(data);
                        }
                    }
                    Ok(Some(Err(e))) => return Err(broken(bytes, e.to_string())),
                    Err(_) => return Err(broken(bytes, "silence".into())),
                }
            }
            self.counting.bytes.fetch_add(bytes, Ordering::Relaxed);
            if bytes < stop && length.is_some_and(|l| l != bytes) {
                return Err(broken(bytes, "fewer bytes than announced".into()));
            }
            let size = whole.unwrap_or(bytes);
            Ok(Fetched {
                bytes,
                size,
                sha256: (bytes == size).then(|| hex::encode(hash.finalize())),
            })
        })
        .await
    }
}

/// Resolves a name in a boot configuration against where the configuration came from.
#[must_use]
pub fn join(base: &str, name: &str) -> String {
    if name.contains("://") {
        return name.to_owned();
    }
    let authority_end = base.find("://").map_or(0, |i| i + 3);
    let root_end = base[authority_end..]
        .find('/')
        .map_or(base.len(), |i| authority_end + i);
    if let Some(absolute) = name.strip_prefix('/') {
        return format!("{}/{absolute}", &base[..root_end]);
    }
    let path = base.split(['?', '#']).next().unwrap_or(base);
    let dir = path[root_end.min(path.len())..]
        .rfind('/')
        .map_or(root_end, |i| root_end + i);
    format!("{}/{name}", &path[..dir])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved_as_loaders_do() {
        assert_eq!(
            join("http://r:5248/ipxe.cfg", "ipxe.cfg-default-i386"),
            "http://r:5248/ipxe.cfg-default-i386"
        );
        assert_eq!(
            join("http://r:5248/images/a/b.efi", "c.efi"),
            "http://r:5248/images/a/c.efi"
        );
        assert_eq!(
            join("http://r:5248/images/b.efi", "/grub/grub.cfg"),
            "http://r:5248/grub/grub.cfg"
        );
        assert_eq!(join("http://r:5248", "x"), "http://r:5248/x");
        assert_eq!(join("http://r/x", "http://s/y"), "http://s/y");
    }
}
