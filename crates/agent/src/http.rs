//! HTTP to the rack: requests that are repeated while the rack or its region is away.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use crate::journal::Journal;
use crate::oauth::Credentials;

/// Largest answer that is kept in memory (the scripts' archive is the largest).
const ANSWER_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of a refusal's body that are shown.
const REFUSAL_SHOWN: usize = 512;
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the rack may say nothing in the middle of an exchange.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// How long a request is repeated, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Wait after the first failure; it doubles with each further one.
    pub first: Duration,
    /// Longest wait between two tries.
    pub most: Duration,
    /// Time after the first try when no further try is made.
    pub limit: Duration,
}

impl Patience {
    /// For everything that must not be lost: results, signals, the work order. The rack spools while its
    /// region is away, so this only bridges a restart or a longer outage of the rack itself.
    pub const DELIVERY: Self = Self {
        first: Duration::from_secs(1),
        most: Duration::from_secs(30),
        limit: Duration::from_secs(30 * 60),
    };
    /// For what is sent again anyway: heartbeats and progress.
    pub const PASSING: Self = Self {
        first: Duration::from_secs(1),
        most: Duration::from_secs(5),
        limit: Duration::from_secs(15),
    };
}

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The rack did not answer, or not usefully, until patience ended.
    #[error("no answer from {url} after {tries} tries in {} s: {last}", waited.as_secs())]
    Away {
        /// What was asked.
        url: String,
        /// How often.
        tries: u32,
        /// For how long.
        waited: Duration,
        /// The last failure.
        last: String,
    },
    /// The rack answered that it will not do it.
    #[error("{url} answered {status}: {body}")]
    Refused {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// The answer was not readable as what it should be.
    #[error("the answer of {url} is not {expected}")]
    Malformed {
        /// What was asked.
        url: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl HttpError {
    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Away { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// An answer with a status below 400.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A body that is read while it arrives.
pub struct Stream {
    /// HTTP status: 200 from the beginning, 206 from the offset that was asked for.
    pub status: u16,
    /// Size of the whole file, when the rack said it.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Absolute URL.
    pub url: String,
    /// Who asks; none is anonymous.
    pub credentials: Option<Credentials>,
    /// Content type and body of a POST; none is a GET.
    pub post: Option<(String, Vec<u8>)>,
}

/// The client.
#[derive(Clone)]
pub struct Http {
    agent: ureq::Agent,
    journal: Journal,
}

enum Once {
    Done(Answer),
    Refused(HttpError),
    Again {
        why: String,
        after: Option<Duration>,
    },
}

/// Seconds since 1970 by this machine's clock, which may be wrong: nothing is decided by it.
#[must_use]
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// 16 random hexadecimal digits for nonces and boundaries.
#[must_use]
pub fn random_text() -> String {
    let mut bytes = [0u8; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    if read.is_err() {
        // No random device this early is no reason to stop: uniqueness is enough here.
        bytes = (unix_time().as_nanos() as u64 ^ u64::from(std::process::id()) << 40).to_le_bytes();
    }
    hex::encode(bytes)
}

fn retryable(status: u16, has_retry_after: bool) -> bool {
    // 409 with Retry-After is a transaction conflict of the region, not a wrong state.
    matches!(status, 408 | 425 | 429 | 500 | 502..=504) || (status == 409 && has_retry_after)
}

impl Http {
    /// A client that follows no proxy setting and no redirect: it speaks to the rack.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_per_read(Some(SILENCE_LIMIT))
            .timeout_per_write(Some(SILENCE_LIMIT))
            .user_agent(concat!("steelyard-agent/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.new_agent(),
            journal,
        }
    }

    fn once(&self, request: &Request) -> Once {
        let sign = request
            .credentials
            .as_ref()
            .map(|c| c.header(unix_time().as_secs(), &random_text()));
        let result = match &request.post {
            None => {
                let mut r = self.agent.get(&request.url);
                if let Some(sign) = sign {
                    r = r.header("Authorization", sign);
                }
                r.call()
            }
            Some((content_type, body)) => {
                let mut r = self
                    .agent
                    .post(&request.url)
                    .header("Content-Type", content_type.as_str());
                if let Some(sign) = sign {
                    r = r.header("Authorization", sign);
                }
                r.send(&body[..])
            }
        };
        let mut response = match result {
            Ok(response) => response,
            Err(e) => {
                return Once::Again {
                    why: e.to_string(),
                    after: None,
                };
            }
        };
        let status = response.status().as_u16();
        let after = response
            .headers()
            .get("retry-after")
            .and_then(|v| v.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let body = match response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
        {
            Ok(body) => body,
            Err(e) => {
                return Once::Again {
                    why: format!("the answer broke off: {e}"),
                    after: None,
                };
            }
        };
        if status < 400 {
            return Once::Done(Answer { status, body });
        }
        let shown = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_SHOWN)])
            .trim()
            .to_owned();
        if retryable(status, after.is_some()) {
            return Once::Again {
                why: format!("status {status}: {shown}"),
                after,
            };
        }
        Once::Refused(HttpError::Refused {
            url: request.url.clone(),
            status,
            body: shown,
        })
    }

    /// Sends a request, again and again while the other side is away.
    ///
    /// # Errors
    /// A refusal at once; [`HttpError::Away`] when patience ended.
    pub fn send(&self, request: &Request, patience: Patience) -> Result<Answer, HttpError> {
        let started = Instant::now();
        let mut wait = patience.first;
        for tries in 1.. {
            let (why, after) = match self.once(request) {
                Once::Done(answer) => return Ok(answer),
                Once::Refused(e) => return Err(e),
                Once::Again { why, after } => (why, after),
            };
            let pause = after.unwrap_or(wait).min(patience.most);
            let waited = started.elapsed();
            if waited + pause > patience.limit {
                return Err(HttpError::Away {
                    url: request.url.clone(),
                    tries,
                    waited,
                    last: why,
                });
            }
            // The first failure and every tenth: an outage of half an hour shall not fill the console.
            if tries % 10 == 1 {
                self.journal.line(format_args!(
                    "{} is away ({why}), trying again",
                    request.url
                ));
            }
            std::thread::sleep(pause);
            wait = (wait * 2).min(patience.most);
        }
        unreachable!("the loop above has no end")
    }

    /// Opens a file on the rack at `offset`, once; its body is read as it arrives.
    ///
    /// # Errors
    /// A refusal, or [`HttpError::Away`] when there was no connection or a status that may pass.
    pub fn open(&self, url: &str, offset: u64) -> Result<Stream, HttpError> {
        let mut request = self.agent.get(url);
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let away = |last: String| HttpError::Away {
            url: url.to_owned(),
            tries: 1,
            waited: Duration::ZERO,
            last,
        };
        let response = request.call().map_err(|e| away(e.to_string()))?;
        let status = response.status().as_u16();
        if status != 200 && status != 206 {
            return Err(if retryable(status, true) {
                away(format!("status {status}"))
            } else {
                HttpError::Refused {
                    url: url.to_owned(),
                    status,
                    body: String::new(),
                }
            });
        }
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let total = if status == 206 {
            header("content-range").and_then(|v| v.rsplit_once('/')?.1.parse().ok())
        } else {
            header("content-length").and_then(|v| v.parse().ok())
        };
        let body = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        Ok(Stream {
            status,
            total,
            body: Box::new(body),
        })
    }
}
