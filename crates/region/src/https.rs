//! The API over HTTPS, with a certificate that an administrator gave (`config-tls`).
//!
//! Key and certificates are one sealed secret in the database, so every region of it serves the same. Each
//! region looks at it now and then: a certificate that was changed is used for the next handshake, on the same
//! socket; connections that are open stay open. What was checked when it was given is checked again when it is
//! taken over; one that cannot be used is told in the log, and the one before stays.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::http;
use crate::region::Region;

/// Name and sealing context of the secret.
const SECRET: &str = "tls.files";
/// The port unless another one is given.
pub const DEFAULT_PORT: u16 = 5443;
/// How often each region looks whether something was changed. Another process may have done it, whose wake-up does
/// not reach this one on SQLite.
const LOOK: Duration = Duration::from_secs(2);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; further callers wait.
const MAX_HANDSHAKES: usize = 256;
/// How long to wait after the socket refused to accept.
const PAUSE: Duration = Duration::from_millis(200);

/// What an administrator gave.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The private key, PEM.
    pub key: String,
    /// The certificate and those between it and its authority, PEM.
    pub certificate: String,
    /// Further certificates to send along, PEM.
    pub cacert: Option<String>,
    /// The port.
    pub port: u16,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no private key in the file of the key.
    #[error("the key is no private key in PEM (PKCS #8, PKCS #1 or SEC 1, without a password)")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// There is no certificate in a file.
    #[error("there is no certificate in PEM in {0}")]
    NoCertificate(&'static str),
    /// Key and certificate cannot be used, for example because they do not belong together.
    #[error("key and certificate cannot be used together")]
    Unfit(#[source] rustls::Error),
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, FilesError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(FilesError::NoCertificate(what)),
    }
}

impl Files {
    /// The key with its chain, checked: both can be read and belong together.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<CertifiedKey, FilesError> {
        let mut chain = certificates(&self.certificate, "the file of the certificate")?;
        if let Some(more) = &self.cacert {
            chain.extend(certificates(more, "the file of the authority")?);
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(FilesError::Key)?;
        CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
            .map_err(FilesError::Unfit)
    }
}

/// Keeps files for all regions of the database, or switches HTTPS off.
///
/// # Errors
/// When the database does not take them.
pub async fn set(region: &Region, files: Option<&Files>) -> Result<(), ApiError> {
    let sealed = match files {
        Some(files) => {
            let text = serde_json::to_vec(files).map_err(|e| ApiError::bug(&e.to_string()))?;
            Some(region.sealer.try_seal(SECRET, &text)?)
        }
        None => None,
    };
    region
        .db
        .write(move |tx| {
            let sealed = sealed.clone();
            Box::pin(async move {
                store::exec!(tx, "DELETE FROM secret WHERE name = $1", SECRET)?;
                if let Some(sealed) = sealed {
                    store::exec!(
                        tx,
                        "INSERT INTO secret (name, sealed) VALUES ($1, $2)",
                        SECRET,
                        sealed
                    )?;
                }
                Ok::<_, ApiError>(())
            })
        })
        .await
}

async fn sealed(region: &Region) -> Result<Option<Vec<u8>>, ApiError> {
    let mut tx = region.db.read().await?;
    let row = store::opt!(
        tx,
        (Vec<u8>,),
        "SELECT sealed FROM secret WHERE name = $1",
        SECRET
    )?;
    Ok(row.map(|(s,)| s))
}

fn open(region: &Region, sealed: &[u8]) -> Result<Files, ApiError> {
    let text = region.sealer.unseal(SECRET, sealed)?;
    serde_json::from_slice(&text).map_err(|e| ApiError::bug(&format!("the TLS files: {e}")))
}

/// The files that are in use, if HTTPS is on.
///
/// # Errors
/// When the database cannot be read.
pub async fn get(region: &Region) -> Result<Option<Files>, ApiError> {
    match sealed(region).await? {
        Some(s) => open(region, &s).map(Some),
        None => Ok(None),
    }
}

/// The certificate that the next handshake uses.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// HTTPS while it is on.
struct On {
    port: u16,
    current: Arc<Current>,
    stop: CancellationToken,
}

/// Serves HTTPS on an address of this host whenever files are given, until the region stops.
pub async fn serve(region: Arc<Region>, ip: IpAddr) {
    let mut tick = tokio::time::interval(LOOK);
    let mut on: Option<On> = None;
    // What was looked at last, used or not, so that a failure is told once.
    let mut seen: Option<Vec<u8>> = None;
    loop {
        tokio::select! {
            () = region.stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let found = match sealed(&region).await {
            Ok(found) => found,
            Err(e) => {
                tracing::warn!(error = %e, "the certificate of HTTPS cannot be looked at");
                continue;
            }
        };
        if found == seen {
            continue;
        }
        match &found {
            None => {
                if let Some(on) = on.take() {
                    on.stop.cancel();
                    tracing::info!("HTTPS is off");
                }
            }
            Some(sealed) => match take_over(&region, ip, sealed, on.as_ref()).await {
                Ok(None) => tracing::info!("HTTPS has another certificate from now on"),
                Ok(Some(new)) => {
                    tracing::info!(port = new.port, "HTTPS is on");
                    if let Some(before) = on.replace(new) {
                        before.stop.cancel();
                    }
                }
                Err(e) => {
                    tracing::error!(
                        error = %e, cause = ?std::error::Error::source(&*e),
                        "HTTPS cannot be served with what was given; it stays as it was"
                    );
                }
            },
        }
        seen = found;
    }
    if let Some(on) = on {
        on.stop.cancel();
    }
}

/// Uses new files: on the socket there is, or on a new one.
async fn take_over(
    region: &Arc<Region>,
    ip: IpAddr,
    sealed: &[u8],
    on: Option<&On>,
) -> Result<Option<On>, Box<dyn std::error::Error + Send + Sync>> {
    let files = open(region, sealed)?;
    let key = Arc::new(files.check()?);
    if let Some(on) = on
        && on.port == files.port
    {
        on.current.0.store(key);
        return Ok(None);
    }
    let current = Arc::new(Current(ArcSwap::new(key)));
    let mut config =
        ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let socket = TcpListener::bind((ip, files.port)).await?;
    let stop = region.stop.child_token();
    let listener = TlsListener::start(region, socket, config, stop.clone())?;
    let (serving, until) = (Arc::clone(region), stop.clone());
    region.tasks.spawn(async move {
        if let Err(e) = http::serve_tls(serving, listener, until).await {
            tracing::error!(error = %e, "HTTPS ended");
        }
    });
    Ok(Some(On {
        port: files.port,
        current,
        stop,
    }))
}

/// A socket whose connections have their handshake behind them.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    fn start(
        region: &Region,
        socket: TcpListener,
        config: ServerConfig,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let (to, ready) = mpsc::channel(1);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let tasks = region.tasks.clone();
        region.tasks.spawn(async move {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    a = socket.accept() => a,
                };
                let (stream, peer) = match accepted {
                    Ok(a) => a,
                    Err(e) => {
                        tracing::warn!(error = %e, "HTTPS could not accept a connection");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let (acceptor, to, stop) = (acceptor.clone(), to.clone(), stop.clone());
                tasks.spawn(async move {
                    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
                    let done = tokio::select! {
                        () = stop.cancelled() => return,
                        d = handshake => d,
                    };
                    drop(place);
                    match done {
                        Ok(Ok(stream)) => {
                            // Nobody takes it once HTTPS is being switched off.
                            to.send((stream, peer)).await.ok();
                        }
                        Ok(Err(e)) => tracing::debug!(error = %e, %peer, "a TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                    }
                });
            }
        });
        Ok(Self { ready, address })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The server is told to stop by other means.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
