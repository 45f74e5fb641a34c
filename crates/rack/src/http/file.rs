//! Files of the boot namespace over HTTP: lengths, ranges, entity tags, and what came of each transfer.

use std::io;
use std::net::IpAddr;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use metal::timeline::{FileOutcome, What};

use super::{Body, Peers, Server, full, text, unavailable};
use crate::files::{ClientContext, OpenError, Opened, Transport};
use crate::shared::Shared;

/// Bytes handed to a connection at a time.
const CHUNK: usize = 256 << 10;

/// Part of a file: the first byte and the one after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// What a `Range` header means for a file (RFC 9110 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file: no range, one that makes no sense, or several.
    Whole,
    /// A part.
    Part(Span),
    /// A part that the file does not have.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes.
#[must_use]
pub fn wanted(range: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = range
        .and_then(|r| r.trim().strip_prefix("bytes="))
        .filter(|r| !r.contains(','))
        .and_then(|r| r.trim().split_once('-'))
    else {
        return Wanted::Whole;
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(0) => Wanted::Unsatisfiable,
            Ok(_) if size == 0 => Wanted::Unsatisfiable,
            Ok(n) => Wanted::Part(Span {
                start: size.saturating_sub(n),
                end: size,
            }),
            Err(_) => Wanted::Whole,
        },
        (first, last) => {
            let Ok(start) = first.parse::<u64>() else {
                return Wanted::Whole;
            };
            let end = match last {
                "" => size,
                last => match last.parse::<u64>() {
                    Ok(last) if last >= start => last.saturating_add(1).min(size),
                    _ => return Wanted::Whole,
                },
            };
            if start >= size {
                Wanted::Unsatisfiable
            } else {
                Wanted::Part(Span { start, end })
            }
        }
    }
}

impl Server {
    pub(super) async fn file(&self, request: &Request<Incoming>, peers: Peers) -> Response<Body> {
        let path = percent_encoding::percent_decode_str(request.uri().path())
            .decode_utf8_lossy()
            .into_owned();
        let context = ClientContext {
            ip: peers.client,
            transport: Transport::Http,
            local: peers.local.ip(),
        };
        let transfer = Transfer {
            shared: self.inner.shared.clone(),
            client: peers.client,
            path: path.clone(),
            size: None,
            bytes: 0,
            outcome: FileOutcome::Aborted,
        };
        let opened = match self.inner.files.open_or_why(&path, context).await {
            Ok(opened) => opened,
            Err(OpenError::NotFound) => {
                transfer.end(FileOutcome::NotFound);
                let words = if is_grub(request.headers()) {
                    ""
                } else {
                    "No such file.\n"
                };
                return text(StatusCode::NOT_FOUND, words);
            }
            Err(OpenError::Unavailable(_)) => {
                transfer.end(FileOutcome::Failed);
                return unavailable(
                    "The file is not here yet, and the region cannot be reached.\n",
                );
            }
        };
        respond(request.method(), request.headers(), opened, transfer)
    }
}

/// Whether GRUB asks. It runs the body of a 404 as the configuration that it asked for.
fn is_grub(headers: &HeaderMap) -> bool {
    headers
        .get(header::USER_AGENT)
        .is_some_and(|v| v.as_bytes().starts_with(b"GRUB "))
}

fn respond(
    method: &Method,
    asked: &HeaderMap,
    opened: Opened,
    mut transfer: Transfer,
) -> Response<Body> {
    let size = opened.size();
    transfer.size = Some(size);
    let tag = match &opened {
        Opened::Content(c) => c.sha256().map(|h| format!("\"{h}\"")),
        Opened::Rendered(_) => None,
    };
    let mut answer = Response::new(full(Bytes::new()));
    let headers = answer.headers_mut();
    let kind = match &opened {
        Opened::Rendered(_) => "text/plain; charset=utf-8",
        Opened::Content(_) => "application/octet-stream",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(tag) = tag.as_deref().and_then(|t| HeaderValue::from_str(t).ok()) {
        headers.insert(header::ETAG, tag);
    } else {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }

    let text_of = |name| asked.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if let (Some(tag), Some(have)) = (&tag, text_of(header::IF_NONE_MATCH))
        && (have.trim() == "*"
            || have
                .split(',')
                .any(|t| t.trim().trim_start_matches("W/") == tag))
    {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        transfer.end(FileOutcome::Probed);
        return answer;
    }
    // A part of another version than the client has would be worse than all of this one.
    let same = text_of(header::IF_RANGE).is_none_or(|t| Some(t.trim()) == tag.as_deref());
    let range = if same && *method == Method::GET {
        text_of(header::RANGE)
    } else {
        None
    };
    let span = match wanted(range, size) {
        Wanted::Whole => Span {
            start: 0,
            end: size,
        },
        Wanted::Part(span) => {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            insert(
                answer.headers_mut(),
                header::CONTENT_RANGE,
                format!("bytes {}-{}/{size}", span.start, span.end - 1),
            );
            span
        }
        Wanted::Unsatisfiable => {
            *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            insert(
                answer.headers_mut(),
                header::CONTENT_RANGE,
                format!("bytes */{size}"),
            );
            answer
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
            transfer.end(FileOutcome::Failed);
            return answer;
        }
    };
    answer.headers_mut().insert(
        header::CONTENT_LENGTH,
        HeaderValue::from(span.end - span.start),
    );
    if *method == Method::HEAD {
        transfer.end(FileOutcome::Probed);
    } else {
        *answer.body_mut() = body(opened, span, transfer);
    }
    answer
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(name, value);
    }
}

fn body(opened: Opened, span: Span, mut transfer: Transfer) -> Body {
    if span.start == span.end {
        transfer.end(FileOutcome::Complete);
        return full(Bytes::new());
    }
    transfer.outcome = FileOutcome::Aborted;
    let chunks = stream::try_unfold(
        (opened, span.start, transfer),
        move |(opened, at, mut transfer)| async move {
            if at >= span.end {
                return Ok::<_, io::Error>(None);
            }
            let max = usize::try_from(span.end - at).unwrap_or(CHUNK).min(CHUNK);
            match opened.read_at(at, max).await {
                Ok(bytes) => {
                    let next = at + bytes.len() as u64;
                    transfer.bytes += bytes.len() as u64;
                    if next >= span.end {
                        transfer.outcome = FileOutcome::Complete;
                    }
                    Ok(Some((Frame::data(bytes), (opened, next, transfer))))
                }
                Err(error) => {
                    transfer.outcome = FileOutcome::Failed;
                    tracing::warn!(client = %transfer.client, path = transfer.path, %error, "a file cannot be read");
                    Err(error)
                }
            }
        },
    );
    StreamBody::new(chunks).boxed_unsync()
}

/// A transfer; recorded in the timeline when it is dropped, that is at its end or when the client went.
struct Transfer {
    shared: Shared,
    client: IpAddr,
    path: String,
    size: Option<u64>,
    bytes: u64,
    outcome: FileOutcome,
}

impl Transfer {
    fn end(mut self, outcome: FileOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let what = What::File {
            transport: Transport::Http.word().into(),
            path: self
                .path
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .take(crate::namespace::MAX_PATH)
                .collect(),
            bytes: self.bytes,
            size: self.size,
            outcome: self.outcome,
        };
        self.shared.note_for(self.client, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_rfc_9110_reads_them() {
        let part = |start, end| Wanted::Part(Span { start, end });
        for (range, expected) in [
            (None, Wanted::Whole),
            (Some("bytes=0-9"), part(0, 10)),
            (Some("bytes=90-"), part(90, 100)),
            (Some("bytes=-10"), part(90, 100)),
            (Some("bytes=-1000"), part(0, 100)),
            (Some("bytes=95-1000"), part(95, 100)),
            (Some("bytes=100-"), Wanted::Unsatisfiable),
            (Some("bytes=-0"), Wanted::Unsatisfiable),
            (Some("bytes=9-0"), Wanted::Whole),
            (Some("bytes=0-1,5-6"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some("bytes=a-b"), Wanted::Whole),
            (Some("bytes=0-18446744073709551615"), part(0, 100)),
        ] {
            assert_eq!(wanted(range, 100), expected, "{range:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }
}
