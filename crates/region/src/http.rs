//! The region's own HTTP server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Content, JSON};
use crate::dispatch::{self, Incoming};
use crate::error::ApiError;
use crate::https::TlsListener;
use crate::region::Region;
use crate::{compress, health, metrics};

/// How long a client may take to send its request.
pub const REQUEST_TIME: Duration = Duration::from_secs(300);
/// How long requests over TLS may go on after HTTPS was switched off.
const GRACE: Duration = Duration::from_secs(10);

/// What every request is given.
#[derive(Clone)]
struct App {
    region: Arc<Region>,
    /// How the socket is spoken to, unless a proxy says otherwise.
    scheme: &'static str,
}

fn app(
    region: Arc<Region>,
    scheme: &'static str,
) -> IntoMakeServiceWithConnectInfo<Router, SocketAddr> {
    Router::new()
        .fallback(handle)
        .with_state(App { region, scheme })
        .into_make_service_with_connect_info::<SocketAddr>()
}

/// Serves the region on a socket until it stops.
///
/// # Errors
/// When the socket fails.
pub async fn serve(region: Arc<Region>, listener: TcpListener) -> std::io::Result<()> {
    let stop = region.stop.clone();
    axum::serve(listener, app(region, "http"))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

/// The same over TLS, until it is told to stop.
///
/// # Errors
/// When the socket fails.
pub async fn serve_tls(
    region: Arc<Region>,
    listener: TlsListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let until = stop.clone();
    let serving = axum::serve(listener.tap_io(|_| {}), app(region, "https"))
        .with_graceful_shutdown(async move { until.cancelled().await });
    tokio::select! {
        ended = async { serving.await } => ended,
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

async fn handle(
    State(App { region, scheme }): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |p| p.as_str())
        .to_owned();
    if let Some(answer) = plain(&region, &target).await {
        return into_response(answer);
    }
    let limit = dispatch::body_limit(&region, &target);
    let body = match tokio::time::timeout(REQUEST_TIME, Limited::new(body, limit).collect()).await {
        Ok(Ok(b)) => b.to_bytes(),
        Ok(Err(e)) if e.downcast_ref::<LengthLimitError>().is_some() && limit > 0 => {
            return into_response(
                ApiError::TooLarge(format!("The body may have at most {limit} bytes here."))
                    .answer(),
            );
        }
        // An unknown path takes no body; dispatch says so.
        Ok(Err(_)) if limit == 0 => Bytes::new(),
        Ok(Err(_)) => {
            return into_response(ApiError::Bad("The body broke off.".to_owned()).answer());
        }
        Err(_) => {
            return into_response(
                ApiError::Bad("The request took too long to arrive.".to_owned()).answer(),
            );
        }
    };
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let scheme = header("x-forwarded-proto").unwrap_or(scheme);
    let host = header("x-forwarded-host")
        .or_else(|| header("host"))
        // HTTP/2 has it in the request line.
        .or_else(|| parts.uri.authority().map(|a| a.as_str()))
        .unwrap_or("localhost");
    let base = format!("{scheme}://{host}");
    let headers = parts
        .headers
        .iter()
        .map(|(k, v)| {
            (
                k.as_str().to_owned(),
                String::from_utf8_lossy(v.as_bytes()).into_owned(),
            )
        })
        .collect();
    let incoming = Incoming {
        method: parts.method.as_str().to_owned(),
        target,
        headers,
        body,
        ip: peer.ip().to_canonical(),
        via: None,
        base,
    };
    let packed = header("accept-encoding").is_some_and(compress::wants);
    let answer = dispatch::dispatch(&region, incoming).await;
    into_response(if packed {
        compress::pack(answer)
    } else {
        answer
    })
}

/// Pages that are no operations.
async fn plain(region: &Region, target: &str) -> Option<Answer> {
    match target.split('?').next().unwrap_or("") {
        "/" | "/MAAS" => Some(Answer {
            status: 302,
            headers: vec![("Location", "/MAAS/".to_owned())],
            content: Content::Empty,
        }),
        "/healthz" => Some(Answer::text("ok\n")),
        "/readyz" => Some(health::ready(region).await),
        "/metrics" => Some(match metrics::page(region).await {
            Ok(page) => Answer::bytes(page.into(), metrics::CONTENT_TYPE),
            Err(e) => e.answer(),
        }),
        _ => None,
    }
}

/// JSON indented by four spaces, as MAAS clients know it.
#[must_use]
pub fn pretty(value: &serde_json::Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing JSON into memory cannot fail.
    serde::Serialize::serialize(value, &mut serializer).ok();
    out
}

fn into_response(answer: Answer) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = match answer.content {
        // Clients read the content type of every answer, also of empty ones.
        Content::Empty => "text/plain; charset=utf-8",
        Content::Json(v) => {
            *response.body_mut() = Body::from(pretty(&v));
            JSON
        }
        Content::Bytes(b, kind) => {
            *response.body_mut() = Body::from(b);
            kind
        }
        Content::Stream(s, kind, length) => {
            *response.body_mut() = Body::from_stream(s);
            if let Some(n) = length {
                response
                    .headers_mut()
                    .insert(http::header::CONTENT_LENGTH, HeaderValue::from(n));
            }
            kind
        }
    };
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static(content_type),
    );
    for (name, value) in answer.headers {
        if let (Ok(n), Ok(v)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(&value),
        ) {
            headers.insert(n, v);
        }
    }
    response
}

/// An answer as one piece, for a rack that passes it on.
pub async fn collect(answer: Answer) -> (u16, Vec<(String, String)>, Bytes) {
    let response = into_response(answer);
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(k, v)| {
            (
                k.as_str().to_owned(),
                String::from_utf8_lossy(v.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = response
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    (status, headers, body)
}
