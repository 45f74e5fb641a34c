//! What is passed on to the region, and what happens to it while the region is away.
//!
//! A machine speaks to its rack only. Three things are passed on: the metadata service, the machine
//! resources, and the two anonymous calls of enlistment. While the region is away, what a machine only
//! delivers (signals, progress, "do not boot from the network again") is stored on disk and answered;
//! everything else is asked to come back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use link::message::{PassedRequest, PassedResponse, Report};
use link::port::LinkError;
use link::snapshot::Machine;
use metal::MacAddr;
use metal::timeline::What;

use super::{Body, Peers, Server, full, text, unavailable};
use crate::files::now;

/// Largest body of a request that is passed on, in bytes.
pub const MAX_BODY: usize = 32 << 20;
/// Bodies held in memory at the same time, in KiB.
pub const BODY_BUDGET_KIB: usize = 128 << 10;
/// Requests that wait for the region at the same time; further ones wait.
pub const MAX_PASSES: usize = 256;
/// Time for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for the region's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for earlier deliveries of a machine to reach the region before the next queues behind them.
const ORDER_TIMEOUT: Duration = Duration::from_secs(20);
/// The operation by which a machine says that it boots its disk from now on.
pub const NETBOOT_OFF: &str = "netboot_off";
/// Longest form field that is looked at for `op`.
const MAX_OP: usize = 64;

/// Headers that concern one connection only (RFC 9110 §7.6.1), or that are written anew.
const NOT_PASSED: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What may become of a request below `/MAAS/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the region.
    Pass,
    /// It goes nowhere: there is no such thing here.
    Refuse,
}

/// What a request is, for the time when the region is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A delivery that can be stored, with the answer that the machine then gets.
    Delivery(StatusCode, &'static str),
    /// A question.
    Question,
}

/// Whether a request is passed on. `op` is the operation named in query or body.
#[must_use]
pub fn verdict(method: &Method, path: &str, headers: &HeaderMap, op: Option<&str>) -> Verdict {
    let strange = |segment: &str| {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
        decoded == "." || decoded == ".." || decoded.contains(['/', '\\', '\0'])
    };
    if path.split('/').any(strange) {
        return Verdict::Refuse;
    }
    let passed = if path.starts_with("/MAAS/metadata/") {
        [Method::GET, Method::HEAD, Method::POST, Method::PUT].contains(method)
    } else if path.starts_with("/MAAS/machine-resources/") {
        [Method::GET, Method::HEAD].contains(method)
    } else if path == "/MAAS/api/2.0/machines/" && !headers.contains_key(header::AUTHORIZATION) {
        match op {
            Some("is_registered") => *method == Method::GET,
            None | Some("create") => *method == Method::POST,
            Some(_) => false,
        }
    } else {
        false
    };
    if passed {
        Verdict::Pass
    } else {
        Verdict::Refuse
    }
}

/// Whether a request is a delivery.
#[must_use]
pub fn kind(method: &Method, path: &str, op: Option<&str>) -> Kind {
    if *method != Method::POST || !path.starts_with("/MAAS/metadata/") {
        return Kind::Question;
    }
    if path.starts_with("/MAAS/metadata/status/") {
        return Kind::Delivery(StatusCode::NO_CONTENT, "");
    }
    match op {
        Some("signal" | NETBOOT_OFF) => Kind::Delivery(StatusCode::OK, "OK"),
        _ => Kind::Question,
    }
}

/// The operation of a request that is passed on.
#[must_use]
pub fn operation_of(request: &PassedRequest) -> Option<String> {
    let content_type = request
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| value.as_str());
    let query = request.target.split_once('?').map(|(_, query)| query);
    operation(query, content_type, &request.body)
}

/// The operation of a request: `op` in the query, else in a form.
#[must_use]
pub fn operation(query: Option<&str>, content_type: Option<&str>, body: &[u8]) -> Option<String> {
    if let Some(op) = query.and_then(|q| form_op(q.as_bytes())) {
        return Some(op);
    }
    let content_type = content_type?;
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        form_op(body)
    } else if kind.eq_ignore_ascii_case("multipart/form-data") {
        multipart_op(body)
    } else {
        None
    }
}

fn form_op(form: &[u8]) -> Option<String> {
    let value = form
        .split(|b| *b == b'&')
        .find_map(|pair| pair.strip_prefix(b"op="))?;
    (value.len() <= MAX_OP).then(|| {
        percent_encoding::percent_decode(value)
            .decode_utf8_lossy()
            .replace('+', " ")
    })
}

/// The first part named `op`: its headers end with an empty line, its value with the next line end.
fn multipart_op(body: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"name=\"op\"";
    let at = body.windows(NAME.len()).position(|w| w == NAME)?;
    let rest = &body[at + NAME.len()..];
    let start = rest.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let value = rest.get(start..)?.split(|b| *b == b'\r').next()?;
    (value.len() <= MAX_OP).then(|| String::from_utf8_lossy(value).into_owned())
}

impl Server {
    pub(super) async fn pass(&self, request: Request<Incoming>, peers: Peers) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().map(str::to_owned);
        let content_type = head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);

        // What can be refused without its body is: nobody may make us read for nothing.
        let early_op = operation(query.as_deref(), None, &[]);
        let may_have_op_in_body = early_op.is_none() && head.method == Method::POST;
        if verdict(&head.method, &path, &head.headers, early_op.as_deref()) == Verdict::Refuse {
            return text(StatusCode::NOT_FOUND, "No such page here.\n");
        }
        let body = match self.body(body).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let op = if may_have_op_in_body {
            operation(None, content_type.as_deref(), &body.bytes)
        } else {
            early_op
        };
        if verdict(&head.method, &path, &head.headers, op.as_deref()) == Verdict::Refuse {
            return text(StatusCode::NOT_FOUND, "No such page here.\n");
        }

        let kind = kind(&head.method, &path, op.as_deref());
        let passed = PassedRequest {
            method: head.method.to_string(),
            target: head
                .uri
                .path_and_query()
                .map_or_else(|| path.clone(), ToString::to_string),
            headers: passed_headers(&head.headers),
            body: body.bytes.clone(),
            client: peers.client,
            mac: self.inner.shared.client_mac(peers.client),
            base: format!("http://{}", peers.local),
        };
        let answer = self.deliver_or_ask(kind, passed, &head.headers).await;
        drop(body);
        let path = match op {
            Some(op) => format!("{path}?op={op}"),
            None => path,
        };
        let what = What::Metadata {
            method: head.method.to_string(),
            path,
            status: answer.status().as_u16(),
        };
        self.inner.shared.note_for(peers.client, what);
        answer
    }

    async fn deliver_or_ask(
        &self,
        kind: Kind,
        request: PassedRequest,
        headers: &HeaderMap,
    ) -> Response<Body> {
        // An earlier delivery of this machine is still on its way: nothing may overtake it. It waits rather
        // than being kept too, for a machine that is answered at once may add faster than the region takes.
        let (spool, client) = (&self.inner.spool, request.client);
        let macs = if spool.keeps_any() {
            self.macs_of(&request)
        } else {
            Vec::new()
        };
        if spool.waiting_from(client, &macs) {
            spool.delivered_from(client, &macs, ORDER_TIMEOUT).await;
            if let Kind::Delivery(status, words) = kind
                && spool.waiting_from(client, &macs)
            {
                return self.store(request, headers, status, words).await;
            }
        }
        let Some(rack) = self.inner.shared.rack() else {
            return self.away(kind, request, headers).await;
        };
        let Ok(_place) = self.inner.passes.acquire().await else {
            return unavailable("The rack is stopping.\n");
        };
        match tokio::time::timeout(
            ANSWER_TIMEOUT,
            self.inner.region.pass(&rack, request.clone()),
        )
        .await
        {
            Ok(Ok(response)) => answered(response),
            Ok(Err(
                error @ (LinkError::Away(_) | LinkError::Version { .. } | LinkError::Refused(_)),
            )) => {
                tracing::debug!(%error, "a request was not passed on");
                self.away(kind, request, headers).await
            }
            Ok(Err(error @ (LinkError::Failed(_) | LinkError::NoBlob(_)))) => {
                tracing::warn!(%error, target = path_of(&request), "the region failed on a request");
                text(
                    StatusCode::BAD_GATEWAY,
                    "The region failed; its log says why.\n",
                )
            }
            Ok(Err(error @ LinkError::Invalid(_))) => {
                tracing::warn!(%error, target = path_of(&request), "the region refused a request");
                text(StatusCode::BAD_REQUEST, "The region refused the request.\n")
            }
            Err(_) => {
                // It may have been acted on; storing it could act twice. The machine asks again.
                tracing::warn!(
                    target = path_of(&request),
                    "the region did not answer in time"
                );
                unavailable("The region did not answer in time.\n")
            }
        }
    }

    /// The hardware addresses of the machine that asks, as far as the snapshot knows it.
    fn macs_of(&self, request: &PassedRequest) -> Vec<MacAddr> {
        let snapshot = self.inner.shared.snapshot();
        let is = |m: &&Machine| match request.mac {
            Some(mac) => m.macs.contains(&mac),
            None => m.addresses.iter().any(|a| a.ip == request.client),
        };
        snapshot
            .machines
            .values()
            .find(is)
            .map(|m| m.macs.clone())
            .unwrap_or_default()
    }

    async fn away(
        &self,
        kind: Kind,
        request: PassedRequest,
        headers: &HeaderMap,
    ) -> Response<Body> {
        match kind {
            Kind::Delivery(status, words) => self.store(request, headers, status, words).await,
            Kind::Question => unavailable("The region cannot be reached now.\n"),
        }
    }

    async fn store(
        &self,
        request: PassedRequest,
        headers: &HeaderMap,
        status: StatusCode,
        words: &'static str,
    ) -> Response<Body> {
        if !headers.contains_key(header::AUTHORIZATION) {
            // The region would refuse it; nobody may fill our disk without even claiming to be someone.
            return text(StatusCode::UNAUTHORIZED, "No credentials.\n");
        }
        let report = Report::Passed { request, at: now() };
        if self.inner.shared.report_stored(report).await.is_err() {
            return unavailable("The region cannot be reached and the rack cannot store more.\n");
        }
        let mut answer = text(status, words);
        if status == StatusCode::NO_CONTENT {
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            answer.headers_mut().remove(header::CONTENT_TYPE);
        }
        answer
    }

    async fn body(&self, body: Incoming) -> Result<Held<'_>, Response<Body>> {
        let too_large = || text(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.\n");
        let expected = match body.size_hint().upper() {
            Some(n) if n > MAX_BODY as u64 => return Err(too_large()),
            Some(n) => usize::try_from(n).unwrap_or(MAX_BODY),
            None => MAX_BODY,
        };
        let kib = u32::try_from(expected.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = self
            .inner
            .body_budget
            .acquire_many(kib)
            .await
            .map_err(|_| unavailable("The rack is stopping.\n"))?;
        match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(collected)) => Ok(Held {
                bytes: collected.to_bytes(),
                _room: room,
            }),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(text(StatusCode::BAD_REQUEST, "The body ended early.\n")),
            Err(_) => Err(text(
                StatusCode::REQUEST_TIMEOUT,
                "The body did not come in time.\n",
            )),
        }
    }
}

/// A body, and its share of the memory for bodies.
struct Held<'a> {
    bytes: Bytes,
    _room: tokio::sync::SemaphorePermit<'a>,
}

fn path_of(request: &PassedRequest) -> &str {
    request.target.split('?').next().unwrap_or_default()
}

fn passed_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| !NOT_PASSED.contains(&name.as_str()))
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect()
}

fn answered(response: PassedResponse) -> Response<Body> {
    let Ok(status) = StatusCode::from_u16(response.status) else {
        tracing::warn!(
            status = response.status,
            "the region answered with a status that is none"
        );
        return text(
            StatusCode::BAD_GATEWAY,
            "The region's answer makes no sense.\n",
        );
    };
    let length = response.body.len();
    let mut answer = Response::new(full(response.body));
    *answer.status_mut() = status;
    for (name, value) in response.headers {
        let name = name.to_ascii_lowercase();
        if NOT_PASSED.contains(&name.as_str()) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    let bodiless = status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status.is_informational();
    if !bodiless {
        answer
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, path: &str, op: Option<&str>) -> Verdict {
        verdict(method, path, &HeaderMap::new(), op)
    }

    #[test]
    fn three_things_are_passed_on_and_nothing_else() {
        for (method, path, op) in [
            (
                Method::GET,
                "/MAAS/metadata/latest/by-id/4y3h7n/",
                Some("get_preseed"),
            ),
            (Method::POST, "/MAAS/metadata/2012-03-01/", Some("signal")),
            (
                Method::GET,
                "/MAAS/metadata/2012-03-01/meta-data/instance-id",
                None,
            ),
            (Method::GET, "/MAAS/machine-resources/amd64", None),
            (
                Method::GET,
                "/MAAS/api/2.0/machines/",
                Some("is_registered"),
            ),
            (Method::POST, "/MAAS/api/2.0/machines/", None),
        ] {
            assert_eq!(check(&method, path, op), Verdict::Pass, "{method} {path}");
        }
        for (method, path, op) in [
            (Method::GET, "/MAAS/api/2.0/machines/", None),
            (Method::POST, "/MAAS/api/2.0/machines/", Some("allocate")),
            (Method::GET, "/MAAS/api/2.0/machines", Some("is_registered")),
            (Method::GET, "/MAAS/api/2.0/machines/4y3h7n/", None),
            (Method::GET, "/MAAS/api/2.0/users/", None),
            (Method::GET, "/MAAS/", None),
            (Method::GET, "/MAAS/metadata", None),
            (Method::DELETE, "/MAAS/metadata/latest/", None),
            (Method::POST, "/MAAS/machine-resources/amd64", None),
            (Method::GET, "/MAAS/metadata/../api/2.0/users/", None),
            (Method::GET, "/MAAS/metadata/%2e%2e/api/2.0/users/", None),
            (Method::GET, "/MAAS/metadata/..%2fapi/2.0/users/", None),
            (Method::GET, "/MAAS/metadata/..%5capi", None),
        ] {
            assert_eq!(check(&method, path, op), Verdict::Refuse, "{method} {path}");
        }
    }

    #[test]
    fn enlistment_with_credentials_is_not_anonymous() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("OAuth x"));
        assert_eq!(
            verdict(&Method::POST, "/MAAS/api/2.0/machines/", &headers, None),
            Verdict::Refuse
        );
        assert_eq!(
            verdict(&Method::POST, "/MAAS/metadata/2012-03-01/", &headers, None),
            Verdict::Pass
        );
    }

    #[test]
    fn the_operation_is_found_in_query_form_and_multipart() {
        assert_eq!(
            operation(Some("a=b&op=get_preseed"), None, b""),
            Some("get_preseed".into())
        );
        assert_eq!(
            operation(
                None,
                Some("application/x-www-form-urlencoded; charset=utf-8"),
                b"op=netboot_off"
            ),
            Some("netboot_off".into())
        );
        let body = b"--x\r\nContent-Disposition: form-data; name=\"status\"\r\n\r\nOK\r\n--x\r\n\
            Content-Disposition: form-data; name=\"op\"\r\n\r\nsignal\r\n--x--\r\n";
        assert_eq!(
            operation(None, Some("multipart/form-data; boundary=x"), body),
            Some("signal".into())
        );
        assert_eq!(
            operation(None, Some("application/json"), b"op=signal"),
            None
        );
        assert_eq!(
            operation(None, Some("multipart/form-data"), b"name=\"op\""),
            None
        );
    }

    #[test]
    fn only_deliveries_are_stored() {
        let ok = Kind::Delivery(StatusCode::OK, "OK");
        assert_eq!(
            kind(&Method::POST, "/MAAS/metadata/2012-03-01/", Some("signal")),
            ok
        );
        assert_eq!(
            kind(
                &Method::POST,
                "/MAAS/metadata/latest/by-id/x/",
                Some("netboot_off")
            ),
            ok
        );
        assert_eq!(
            kind(&Method::POST, "/MAAS/metadata/status/x", None),
            Kind::Delivery(StatusCode::NO_CONTENT, "")
        );
        assert_eq!(
            kind(&Method::GET, "/MAAS/metadata/2012-03-01/", Some("signal")),
            Kind::Question
        );
        assert_eq!(
            kind(&Method::POST, "/MAAS/api/2.0/machines/", None),
            Kind::Question
        );
    }

    proptest::proptest! {
        #[test]
        fn no_form_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), query in "\\PC{0,40}") {
            for kind in ["multipart/form-data", "application/x-www-form-urlencoded", "x"] {
                let mut named = b"name=\"op\"".to_vec();
                named.extend_from_slice(&body);
                for body in [&body, &named] {
                    let op = operation(Some(&query), Some(kind), body);
                    proptest::prop_assert!(op.is_none_or(|op| op.len() <= MAX_OP * 3));
                }
            }
        }
    }
}
