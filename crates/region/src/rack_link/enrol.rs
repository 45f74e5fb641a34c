//! Racks on other hosts: the installation's certificate authority, one-time secrets, and the TLS
//! listener of the link.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use link::port::Region as Port;
use link::tls::ca::{self, Identity, Secret};
use link::tls::server;
use metal::{SystemId, Timestamp};
use rand::Rng as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;

use super::port::RegionPort;
use super::register;
use crate::error::ApiError;
use crate::node::row::RACK;
use crate::region::Region;

/// Name and sealing context of the authority among the secrets.
const AUTHORITY: &str = "link.authority";
/// How long a one-time secret is good unless told otherwise.
pub const SECRET_VALID: Duration = Duration::from_secs(24 * 3600);

fn tls(e: link::tls::TlsError) -> ApiError {
    let cause = std::error::Error::source(&e)
        .map(|c| format!(": {c}"))
        .unwrap_or_default();
    ApiError::Bug(format!("{e}{cause}"))
}

/// The authority of the installation, made when there is none. All regions of one database share it.
///
/// # Errors
/// When it cannot be unsealed.
pub async fn authority(region: &Arc<Region>) -> Result<Identity, ApiError> {
    let fresh = ca::new_authority(rand::rng().random()).map_err(tls)?;
    let text =
        serde_json::json!({ "certificate": fresh.certificate, "key": fresh.key }).to_string();
    let sealed = region.sealer.seal(AUTHORITY, text.as_bytes());
    let kept = region
        .db
        .write(move |tx| {
            let sealed = sealed.clone();
            Box::pin(async move {
                store::exec!(
                    tx,
                    "INSERT INTO secret (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                    AUTHORITY,
                    &sealed
                )?;
                let (kept,) = store::one!(tx, (Vec<u8>,), "SELECT sealed FROM secret WHERE name = $1", AUTHORITY)?;
                Ok::<_, ApiError>(kept)
            })
        })
        .await?;
    let plain = region.sealer.unseal(AUTHORITY, &kept)?;
    let v: serde_json::Value = serde_json::from_slice(&plain)
        .map_err(|_| ApiError::bug("the link's authority cannot be read"))?;
    let text = |k: &str| {
        v[k].as_str()
            .map(str::to_owned)
            .ok_or_else(|| ApiError::bug("the link's authority cannot be read"))
    };
    Ok(Identity {
        certificate: text("certificate")?,
        key: text("key")?,
    })
}

/// A new one-time secret for a rack.
///
/// # Errors
/// When the database fails.
pub async fn new_secret(
    region: &Arc<Region>,
    by: &str,
    valid: Duration,
    now: Timestamp,
) -> Result<Secret, ApiError> {
    let fingerprint = authority(region).await?.fingerprint().map_err(tls)?;
    let secret = Secret::new(rand::rng().random(), &fingerprint);
    let (hash, by, until) = (secret.hash(), by.to_owned(), now.plus(valid).0);
    region
        .db
        .write(move |tx| {
            let (hash, by) = (hash.clone(), by.clone());
            Box::pin(async move {
                store::exec!(tx, "DELETE FROM rack_enrolment WHERE expires < $1", now.0)?;
                store::exec!(
                    tx,
                    "INSERT INTO rack_enrolment (secret_hash, expires, created_by) VALUES ($1, $2, $3)",
                    hash,
                    until,
                    by
                )?;
                Ok::<(), ApiError>(())
            })
        })
        .await?;
    Ok(secret)
}

struct Host {
    region: Arc<Region>,
    authority: Identity,
}

#[async_trait]
impl server::Host for Host {
    fn region(&self, fingerprint: String) -> Arc<dyn Port> {
        Arc::new(RegionPort::remote(Arc::clone(&self.region), fingerprint))
    }

    async fn enrol(
        &self,
        token: String,
        csr: String,
        hostname: String,
    ) -> Result<(String, SystemId), String> {
        let now = Timestamp::from_system(std::time::SystemTime::now());
        let id = SystemId::from_random(rand::rng().random());
        let certificate = ca::issue_rack(&self.authority, &csr, id.as_str(), rand::rng().random())
            .map_err(|e| e.to_string())?;
        let der =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| e.to_string())?;
        let fingerprint = ca::fingerprint(&der);
        let (hash, rack) = (ca::hash_token(&token), id.clone());
        let taken = self
            .region
            .db
            .write(move |tx| {
                let (hash, rack, fingerprint, hostname) = (hash.clone(), rack.clone(), fingerprint.clone(), hostname.clone());
                Box::pin(async move {
                    let spent = store::exec!(
                        tx,
                        "UPDATE rack_enrolment SET used = $2 WHERE secret_hash = $1 AND used IS NULL AND expires > $2",
                        hash,
                        now.0
                    )?;
                    if spent == 0 {
                        return Ok(false);
                    }
                    register::create(tx, &hostname, RACK, Some(&fingerprint), &rack, now).await?;
                    Ok::<_, ApiError>(true)
                })
            })
            .await;
        match taken {
            Ok(true) => Ok((certificate, id)),
            Ok(false) => Err("the secret is wrong, was used before, or has expired; make a new one on the region".to_owned()),
            Err(e) => {
                tracing::error!(error = %e, "a rack could not be enrolled");
                Err("the region failed; its log says more".to_owned())
            }
        }
    }
}

/// Serves racks on other hosts until the region stops.
///
/// # Errors
/// When the certificates cannot be used.
pub async fn serve(
    region: Arc<Region>,
    listener: TcpListener,
    addresses: &[IpAddr],
) -> Result<(), ApiError> {
    let authority = authority(&region).await?;
    let own = ca::issue_region(&authority, addresses, rand::rng().random()).map_err(tls)?;
    let stop = region.stop.clone();
    let host = Arc::new(Host {
        region,
        authority: authority.clone(),
    });
    server::serve(listener, &authority.certificate, &own, host, stop)
        .await
        .map_err(tls)
}
