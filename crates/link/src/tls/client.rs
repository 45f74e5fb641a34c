//! The rack's end: [`crate::port::Region`] over a connection that is made when it is needed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use metal::SystemId;
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::split;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::ca::{self, Identity, Secret};
use super::frame::{self, BlobHead, Call, Down, Enrolled, Open, Reply, Up};
use super::{SERVER_NAME, TlsError};
use crate::MAX_MESSAGE;
use crate::message::{Batch, CommandResult, Hello, PassedRequest, PassedResponse, ToRack, Welcome};
use crate::port::{BlobReader, LinkError, Region, SUBSCRIPTION_CAPACITY};
use crate::snapshot::Position;

/// How long a connection may take to be made.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take before the region counts as away.
pub const CALL_TIME: Duration = Duration::from_secs(60);
/// How often a silent session asks whether somebody is there.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the answer to that may take.
pub const PING_TIME: Duration = Duration::from_secs(10);

/// The region over TLS. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    /// `host:port` of the regions, tried in turn.
    regions: Vec<String>,
    connector: TlsConnector,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    turn: AtomicU64,
}

struct Session {
    up: mpsc::Sender<Up>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Reply, LinkError>>>>,
    pushes: Mutex<Option<mpsc::Sender<ToRack>>>,
    next: AtomicU64,
    over: CancellationToken,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("regions", &self.inner.regions)
            .finish_non_exhaustive()
    }
}

fn away(e: impl std::fmt::Display) -> LinkError {
    LinkError::Away(e.to_string())
}

impl Client {
    /// A client for these regions (`host:port`), with the authority's certificate (PEM) and the rack's own.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(regions: Vec<String>, authority: &str, own: &Identity) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let root = Identity {
            certificate: authority.to_owned(),
            key: String::new(),
        }
        .certificate_der()?;
        roots.add(root).map_err(TlsError::Config)?;
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.certificate_der()?], own.key_der()?)
        .map_err(TlsError::Config)?;
        config.alpn_protocols = vec![b"steelyard-link".to_vec()];
        Ok(Self {
            inner: Arc::new(Inner {
                regions,
                connector: TlsConnector::from(Arc::new(config)),
                session: tokio::sync::Mutex::default(),
                turn: AtomicU64::new(0),
            }),
        })
    }

    async fn connect(&self, open: &Open) -> Result<TlsStream<TcpStream>, LinkError> {
        let n = self.inner.regions.len();
        let start = usize::try_from(self.inner.turn.load(Ordering::Relaxed)).unwrap_or(0);
        let mut last = away("no region is named");
        for i in 0..n {
            let region = &self.inner.regions[(start + i) % n];
            let attempt = async {
                let tcp = TcpStream::connect(region).await?;
                tcp.set_nodelay(true)?;
                let mut tls = self.inner.connector.connect(server_name(), tcp).await?;
                frame::write(&mut tls, open).await?;
                Ok::<_, std::io::Error>(tls)
            };
            match tokio::time::timeout(CONNECT_TIME, attempt).await {
                Ok(Ok(tls)) => return Ok(tls),
                Ok(Err(e)) => last = away(format!("{region}: {e}")),
                Err(_) => last = away(format!("{region}: no answer within {CONNECT_TIME:?}")),
            }
            self.inner
                .turn
                .store(((start + i + 1) % n) as u64, Ordering::Relaxed);
        }
        Err(last)
    }

    /// The session that stands, if one does.
    async fn standing(&self) -> Result<Arc<Session>, LinkError> {
        match &*self.inner.session.lock().await {
            Some(s) if !s.over.is_cancelled() => Ok(Arc::clone(s)),
            _ => Err(away("not connected")),
        }
    }

    /// A new session in place of the old one.
    async fn fresh(&self) -> Result<Arc<Session>, LinkError> {
        let mut guard = self.inner.session.lock().await;
        if let Some(old) = guard.take() {
            old.over.cancel();
        }
        let tls = self.connect(&Open::Session).await?;
        let (up, out) = mpsc::channel(64);
        let session = Arc::new(Session {
            up,
            waiting: Mutex::default(),
            pushes: Mutex::default(),
            next: AtomicU64::new(1),
            over: CancellationToken::new(),
        });
        tokio::spawn(run(Arc::clone(&session), tls, out));
        *guard = Some(Arc::clone(&session));
        Ok(session)
    }
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a constant DNS name")
}

impl Session {
    async fn call(&self, call: Call, limit: Duration) -> Result<Reply, LinkError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, answer);
        let sent = async {
            self.up
                .send(Up { id, call })
                .await
                .map_err(|_| away("the connection ended"))?;
            answered.await.map_err(|_| away("the connection ended"))?
        };
        let result = tokio::select! {
            () = self.over.cancelled() => Err(away("the connection ended")),
            r = tokio::time::timeout(limit, sent) => r.unwrap_or_else(|_| Err(away(format!("no answer within {limit:?}")))),
        };
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        result
    }
}

/// Reads and writes until the connection ends, then lets every waiting call know.
async fn run(session: Arc<Session>, tls: TlsStream<TcpStream>, mut out: mpsc::Receiver<Up>) {
    let (mut read, mut write) = split(tls);
    let reading = async {
        loop {
            let Some(down) = frame::read::<_, Down>(&mut read, MAX_MESSAGE).await? else {
                return Ok::<(), std::io::Error>(());
            };
            match down {
                Down::Reply { id, result } => {
                    let waiting = session
                        .waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&id);
                    if let Some(w) = waiting {
                        // The caller may have given up.
                        w.send(result.map_err(LinkError::from)).ok();
                    }
                }
                Down::Push { message } => {
                    let to = session
                        .pushes
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .clone();
                    if let Some(to) = to
                        && to.send(message).await.is_err()
                    {
                        return Ok(());
                    }
                }
                Down::Ended => return Ok(()),
            }
        }
    };
    let writing = async {
        while let Some(up) = out.recv().await {
            frame::write(&mut write, &up).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    let pinging = async {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            if session.call(Call::Ping, PING_TIME).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = session.over.cancelled() => {}
        r = reading => if let Err(e) = r { tracing::debug!(error = %e, "the link's connection failed") },
        r = writing => if let Err(e) = r { tracing::debug!(error = %e, "the link's connection failed") },
        () = pinging => tracing::info!("the region does not answer"),
    }
    session.over.cancel();
    session
        .pushes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    session
        .waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

#[async_trait]
impl Region for Client {
    async fn hello(&self, hello: Hello) -> Result<Welcome, LinkError> {
        let session = self.fresh().await?;
        match session
            .call(Call::Hello(Box::new(hello)), CALL_TIME)
            .await?
        {
            Reply::Welcome(w) => Ok(w),
            Reply::Done | Reply::Response(_) => Err(LinkError::Invalid(
                "an answer to another question".to_owned(),
            )),
        }
    }

    async fn subscribe(
        &self,
        _rack: &SystemId,
        from: Option<Position>,
    ) -> Result<mpsc::Receiver<ToRack>, LinkError> {
        let session = self.standing().await?;
        let (to, messages) = mpsc::channel(SUBSCRIPTION_CAPACITY);
        *session
            .pushes
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(to);
        session.call(Call::Subscribe(from), CALL_TIME).await?;
        Ok(messages)
    }

    async fn report(&self, _rack: &SystemId, batch: Batch) -> Result<(), LinkError> {
        self.standing()
            .await?
            .call(Call::Report(Box::new(batch)), CALL_TIME)
            .await
            .map(|_| ())
    }

    async fn complete(&self, _rack: &SystemId, result: CommandResult) -> Result<(), LinkError> {
        self.standing()
            .await?
            .call(Call::Complete(result), CALL_TIME)
            .await
            .map(|_| ())
    }

    async fn pass(
        &self,
        _rack: &SystemId,
        request: PassedRequest,
    ) -> Result<PassedResponse, LinkError> {
        match self
            .standing()
            .await?
            .call(Call::Pass(Box::new(request)), CALL_TIME)
            .await?
        {
            Reply::Response(r) => Ok(r),
            Reply::Done | Reply::Welcome(_) => Err(LinkError::Invalid(
                "an answer to another question".to_owned(),
            )),
        }
    }

    async fn blob(
        &self,
        _rack: &SystemId,
        sha256: &str,
        offset: u64,
    ) -> Result<BlobReader, LinkError> {
        let mut tls = self
            .connect(&Open::Blob {
                sha256: sha256.to_owned(),
                offset,
            })
            .await?;
        let head = tokio::time::timeout(CALL_TIME, frame::read::<_, BlobHead>(&mut tls, 64 << 10));
        let head = head
            .await
            .map_err(|_| away("no answer"))?
            .map_err(away)?
            .ok_or_else(|| away("the connection ended"))?;
        let size = head.size.map_err(LinkError::from)?;
        Ok(BlobReader {
            size,
            reader: Box::new(tls),
        })
    }
}

/// Enrols a rack: gives its identity and the authority's certificate (PEM), and its system id.
///
/// # Errors
/// When the region is another one than the secret names, refuses, or cannot be reached.
pub async fn enrol(
    region: &str,
    secret: &Secret,
    hostname: &str,
) -> Result<(Identity, String, SystemId), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(Pinned {
        authority: secret.authority.clone(),
        provider: Arc::clone(&provider),
    });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"steelyard-link".to_vec()];
    let (key, csr) = ca::request(hostname)?;
    let attempt = async {
        let tcp = TcpStream::connect(region)
            .await
            .map_err(TlsError::Connect)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut tls = connector.connect(server_name(), tcp).await.map_err(|e| {
            if e.to_string().contains(OTHER_REGION) {
                TlsError::OtherRegion
            } else {
                TlsError::Connect(e)
            }
        })?;
        let authority = tls
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|c| c.last())
            .map(|c| pem(c))
            .ok_or(TlsError::OtherRegion)?;
        let open = Open::Enrol {
            token: secret.token.clone(),
            csr,
            hostname: hostname.to_owned(),
        };
        frame::write(&mut tls, &open)
            .await
            .map_err(TlsError::Connect)?;
        let answer: Option<Enrolled> = frame::read(&mut tls, 64 << 10)
            .await
            .map_err(TlsError::Connect)?;
        let answer =
            answer.ok_or_else(|| TlsError::Refused("it closed the connection".to_owned()))?;
        let (certificate, rack) = answer.result.map_err(TlsError::Refused)?;
        Ok((Identity { certificate, key }, authority, rack))
    };
    tokio::time::timeout(CONNECT_TIME, attempt)
        .await
        .unwrap_or_else(|_| Err(TlsError::Connect(std::io::ErrorKind::TimedOut.into())))
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|c| std::str::from_utf8(c).unwrap_or(""))
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

const OTHER_REGION: &str = "not the authority that the secret names";

/// Accepts exactly the chain under the authority that the secret names.
#[derive(Debug)]
struct Pinned {
    authority: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates
            .iter()
            .find(|c| ca::fingerprint(c) == self.authority);
        let Some(root) = root else {
            return Err(rustls::Error::General(OTHER_REGION.to_owned()));
        };
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?
        .verify_server_cert(end_entity, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
