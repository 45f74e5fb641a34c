//! The region's end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metal::SystemId;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::TlsError;
use super::ca::{self, Identity};
use super::frame::{self, BlobHead, Call, Down, Enrolled, Open, Reply, WireError};
use crate::MAX_MESSAGE;
use crate::port::Region;

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 4_096;
/// How long a peer may take for its handshake and first frame.
pub const OPEN_TIME: Duration = Duration::from_secs(20);
/// Calls of one rack worked at together.
pub const MAX_CALLS: usize = 256;
/// How long a session may be silent; racks ping three times in this.
pub const SILENCE: Duration = Duration::from_secs(45);
/// Most bytes of a first frame.
const MAX_OPEN: usize = 64 << 10;

/// What the listener needs of the region.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// The region as seen by the rack with this certificate.
    fn region(&self, fingerprint: String) -> Arc<dyn Region>;

    /// Takes a rack in: checks and spends the token, issues its certificate (PEM) and names it.
    async fn enrol(
        &self,
        token: String,
        csr: String,
        hostname: String,
    ) -> Result<(String, SystemId), String>;
}

/// Serves racks until told to stop.
///
/// # Errors
/// When the certificates cannot be used.
pub async fn serve(
    listener: TcpListener,
    authority: &str,
    own: &Identity,
    host: Arc<dyn Host>,
    stop: CancellationToken,
) -> Result<(), TlsError> {
    let acceptor = acceptor(authority, own)?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            s = Arc::clone(&slots).acquire_owned() => s.expect("the semaphore is never closed"),
        };
        let (tcp, peer) = tokio::select! {
            () = stop.cancelled() => break,
            a = listener.accept() => match a {
                Ok(a) => a,
                Err(e) => {
                    tracing::warn!(error = %e, "a rack's connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (acceptor, host, stop) = (acceptor.clone(), Arc::clone(&host), stop.clone());
        tasks.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = stop.cancelled() => {}
                r = connection(tcp, &acceptor, &host) => {
                    if let Err(e) = r {
                        tracing::info!(%peer, error = %e, "a rack's connection ended");
                    }
                }
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn acceptor(authority: &str, own: &Identity) -> Result<TlsAcceptor, TlsError> {
    let root = Identity {
        certificate: authority.to_owned(),
        key: String::new(),
    }
    .certificate_der()?;
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).map_err(TlsError::Config)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Enrolment comes without a certificate; everything else is refused without one below.
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::Read(e.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(verifier)
        // The authority goes along: an enrolling rack compares its fingerprint.
        .with_single_cert(vec![own.certificate_der()?, root], own.key_der()?)
        .map_err(TlsError::Config)?;
    config.alpn_protocols = vec![b"steelyard-link".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(
    tcp: TcpStream,
    acceptor: &TlsAcceptor,
    host: &Arc<dyn Host>,
) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let opened = tokio::time::timeout(OPEN_TIME, async {
        let mut tls = acceptor.accept(tcp).await?;
        let open: Option<Open> = frame::read(&mut tls, MAX_OPEN).await?;
        Ok::<_, std::io::Error>((tls, open))
    });
    let (mut tls, open) = opened
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let Some(open) = open else { return Ok(()) };
    let fingerprint = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|c| c.first())
        .map(ca::fingerprint);
    match (open, fingerprint) {
        (
            Open::Enrol {
                token,
                csr,
                hostname,
            },
            _,
        ) => {
            let result = host.enrol(token, csr, hostname).await;
            frame::write(&mut tls, &Enrolled { result }).await?;
            tls.shutdown().await
        }
        (_, None) => Err(std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            "no client certificate",
        )),
        (Open::Blob { sha256, offset }, Some(f)) => {
            blob(tls, &host.region(f), &sha256, offset).await
        }
        (Open::Session, Some(f)) => session(tls, host.region(f)).await,
    }
}

async fn blob(
    mut tls: TlsStream<TcpStream>,
    region: &Arc<dyn Region>,
    sha256: &str,
    offset: u64,
) -> std::io::Result<()> {
    match region.blob(&SystemId(String::new()), sha256, offset).await {
        Ok(mut b) => {
            frame::write(&mut tls, &BlobHead { size: Ok(b.size) }).await?;
            let mut buffer = vec![0u8; 256 << 10];
            loop {
                let n = b.reader.read(&mut buffer).await?;
                if n == 0 {
                    break;
                }
                tls.write_all(&buffer[..n]).await?;
            }
        }
        Err(e) => {
            frame::write(
                &mut tls,
                &BlobHead {
                    size: Err(e.into()),
                },
            )
            .await?
        }
    }
    tls.shutdown().await
}

async fn session(tls: TlsStream<TcpStream>, region: Arc<dyn Region>) -> std::io::Result<()> {
    let (mut read, mut write) = split(tls);
    let (down, mut out) = mpsc::channel::<Down>(64);
    let calls = Arc::new(Semaphore::new(MAX_CALLS));
    let tasks = TaskTracker::new();
    let over = CancellationToken::new();
    let _end = over.clone().drop_guard();
    let reading = async {
        let mut rack: Option<SystemId> = None;
        loop {
            let up =
                tokio::time::timeout(SILENCE, frame::read::<_, frame::Up>(&mut read, MAX_MESSAGE))
                    .await;
            let Some(up) = up.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??
            else {
                return Ok(());
            };
            // Only the region knows who this is; what the rack calls itself does not count.
            if let Call::Hello(hello) = up.call {
                let result = region.hello(*hello).await;
                if let Ok(w) = &result {
                    rack = Some(w.rack.clone());
                }
                let result = result.map(Reply::Welcome).map_err(WireError::from);
                down.send(Down::Reply { id: up.id, result }).await.ok();
                continue;
            }
            let Some(rack) = rack.clone() else {
                let result = Err(WireError::Invalid("hello comes first".to_owned()));
                down.send(Down::Reply { id: up.id, result }).await.ok();
                continue;
            };
            let slot = Arc::clone(&calls)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let (region, down, over) = (Arc::clone(&region), down.clone(), over.clone());
            tasks.spawn(async move {
                let _slot = slot;
                tokio::select! {
                    () = over.cancelled() => {}
                    () = one(region, rack, up, down) => {}
                }
            });
        }
    };
    let writing = async {
        while let Some(d) = out.recv().await {
            frame::write(&mut write, &d).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    tokio::select! {
        r = reading => r,
        r = writing => r,
    }
}

async fn one(region: Arc<dyn Region>, rack: SystemId, up: frame::Up, down: mpsc::Sender<Down>) {
    let done =
        |r: Result<(), crate::port::LinkError>| r.map(|()| Reply::Done).map_err(WireError::from);
    let result = match up.call {
        Call::Report(batch) => done(region.report(&rack, *batch).await),
        Call::Complete(r) => done(region.complete(&rack, r).await),
        Call::Pass(r) => region
            .pass(&rack, *r)
            .await
            .map(Reply::Response)
            .map_err(WireError::from),
        Call::Ping => Ok(Reply::Done),
        Call::Hello(_) => Err(WireError::Invalid("hello comes once".to_owned())),
        Call::Subscribe(from) => match region.subscribe(&rack, from).await {
            Ok(mut messages) => {
                down.send(Down::Reply {
                    id: up.id,
                    result: Ok(Reply::Done),
                })
                .await
                .ok();
                while let Some(message) = messages.recv().await {
                    if down.send(Down::Push { message }).await.is_err() {
                        return;
                    }
                }
                down.send(Down::Ended).await.ok();
                return;
            }
            Err(e) => Err(e.into()),
        },
    };
    // A rack that has gone away reads no answer.
    down.send(Down::Reply { id: up.id, result }).await.ok();
}
