//! The HTTP server that machines boot from: the boot namespace ([`file`]), and a narrow opening to the
//! region ([`pass`]). Everything else is not found.
//!
//! UEFI's HTTP boot and GRUB need `Content-Length` and do not read chunked answers: every answer has one.

pub mod file;
pub mod pass;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use link::port::Region;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::files::Files;
use crate::shared::Shared;
use crate::spool::Spool;

/// Connections at the same time; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 2_048;
/// Connections of one client at the same time (but from this host itself); further ones are closed.
pub const MAX_CONNECTIONS_PER_CLIENT: usize = 128;
/// Connections that the kernel may queue.
const BACKLOG: i32 = 1_024;
/// Time for a request's headers, and longest idle time between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a client that acknowledges nothing is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of request line and headers.
const MAX_HEAD: usize = 32 << 10;
/// Time for requests that run when the rack stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Seconds after which a client may try again what cannot be had now.
pub const RETRY_AFTER_SECONDS: &str = "5";

/// Body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What the server answers from. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    shared: Shared,
    region: Arc<dyn Region>,
    spool: Spool,
    passes: Semaphore,
    body_budget: Semaphore,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// Who speaks on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers {
    pub client: IpAddr,
    pub local: SocketAddr,
}

/// Binds a listening socket. IPv6 sockets take IPv6 only, so that `0.0.0.0` and `::` can stand side by side.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Server {
    /// A server over the namespace, the region and the spool.
    #[must_use]
    pub fn new(files: Files, shared: Shared, region: Arc<dyn Region>, spool: Spool) -> Self {
        let inner = Inner {
            files,
            shared,
            region,
            spool,
            passes: Semaphore::new(pass::MAX_PASSES),
            body_budget: Semaphore::new(pass::BODY_BUDGET_KIB),
            clients: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Serves on listening sockets until cancelled; the tasks are in `tasks`.
    pub fn start(
        &self,
        listeners: Vec<TcpListener>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for listener in listeners {
            let (server, room, cancel, connections) = (
                self.clone(),
                Arc::clone(&room),
                cancel.clone(),
                tasks.clone(),
            );
            tasks.spawn(async move {
                tokio::select! {
                    () = server.accept(&listener, &room, &connections, &cancel) => {}
                    () = cancel.cancelled() => {}
                }
            });
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        room: &Arc<Semaphore>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) {
        loop {
            let Ok(place) = Arc::clone(room).acquire_owned().await else {
                return;
            };
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the client was gone already.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(counted) = self.count(client.ip().to_canonical()) else {
                tracing::debug!(client = %client.ip(), "too many connections of one client");
                continue;
            };
            let (server, cancel) = (self.clone(), cancel.clone());
            tasks.spawn(async move {
                server.connection(stream, client, &cancel).await;
                drop((place, counted));
            });
        }
    }

    fn count(&self, client: IpAddr) -> Option<Counted> {
        let mut clients = self
            .inner
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let n = clients.entry(client).or_insert(0);
        if *n >= MAX_CONNECTIONS_PER_CLIENT && !client.is_loopback() {
            return None;
        }
        *n += 1;
        Some(Counted {
            server: Arc::clone(&self.inner),
            client,
        })
    }

    async fn connection(&self, stream: TcpStream, client: SocketAddr, cancel: &CancellationToken) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let socket = SockRef::from(&stream);
        // A socket without these still serves; a dead client is then noticed later.
        socket.set_tcp_nodelay(true).ok();
        socket.set_tcp_user_timeout(Some(STALL_TIMEOUT)).ok();
        socket
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(STALL_TIMEOUT))
            .ok();
        let peers = Peers {
            client: client.ip().to_canonical(),
            local: SocketAddr::new(local.ip().to_canonical(), local.port()),
        };
        let service =
            service_fn(
                |request| async move { Ok::<_, Infallible>(self.answer(request, peers).await) },
            );
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            // GRUB knows "Content-Length" in this spelling only, and without it waits for the end of the connection.
            .title_case_headers(true)
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(STOP_GRACE, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %peers.client, %error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peers: Peers) -> Response<Body> {
        let path = request.uri().path();
        if path == "/MAAS" || path.starts_with("/MAAS/") {
            return self.pass(request, peers).await;
        }
        match *request.method() {
            Method::GET | Method::HEAD => self.file(&request, peers).await,
            _ => {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
                answer
                    .headers_mut()
                    .insert(header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
                answer
            }
        }
    }
}

/// A connection of one client, counted while it lives.
struct Counted {
    server: Arc<Inner>,
    client: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut clients = self
            .server
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = clients.get_mut(&self.client) {
            *n -= 1;
            if *n == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer of one line.
pub(crate) fn text(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut answer = Response::new(full(words));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, http::HeaderValue::from(words.len()));
    answer
}

/// "Not now": the client may try again.
pub(crate) fn unavailable(words: &'static str) -> Response<Body> {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, words);
    answer.headers_mut().insert(
        header::RETRY_AFTER,
        http::HeaderValue::from_static(RETRY_AFTER_SECONDS),
    );
    answer
}
