//! The certificate authority of an installation, the certificates it issues, and the secret with which
//! a rack enrols.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::digest;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use super::{SERVER_NAME, TlsError};

/// Certificate and key as PEM. `Debug` hides the key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// The certificate as DER.
    ///
    /// # Errors
    /// When the PEM cannot be read.
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, TlsError> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|e| TlsError::Read(e.to_string()))
    }

    pub(super) fn key_der(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivatePkcs8KeyDer::from_pem_slice(self.key.as_bytes())
            .map(PrivateKeyDer::Pkcs8)
            .map_err(|e| TlsError::Read(e.to_string()))
    }

    /// The fingerprint of the certificate.
    ///
    /// # Errors
    /// When the PEM cannot be read.
    pub fn fingerprint(&self) -> Result<String, TlsError> {
        Ok(fingerprint(&self.certificate_der()?))
    }
}

/// SHA-256 of a certificate, lower-case hexadecimal.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(digest::digest(&digest::SHA256, certificate))
}

fn serial(random: [u8; 16]) -> SerialNumber {
    // A positive number (RFC 5280 §4.1.2.2).
    let mut bytes = random;
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

/// Makes the authority of a new installation. It is valid for long: racks renew under it.
///
/// # Errors
/// When the key cannot be made.
pub fn new_authority(random: [u8; 16]) -> Result<Identity, TlsError> {
    let key = KeyPair::generate()?;
    let mut p = CertificateParams::new(Vec::<String>::new())?;
    p.serial_number = Some(serial(random));
    p.distinguished_name
        .push(DnType::CommonName, "Steelyard installation");
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    p.not_before = rcgen::date_time_ymd(2020, 1, 1);
    p.not_after = rcgen::date_time_ymd(2120, 1, 1);
    let certificate = p.self_signed(&key)?;
    Ok(Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn issuer(authority: &Identity) -> Result<Issuer<'static, KeyPair>, TlsError> {
    Ok(Issuer::from_ca_cert_pem(
        &authority.certificate,
        KeyPair::from_pem(&authority.key)?,
    )?)
}

/// Issues the certificate of a region's own socket.
///
/// # Errors
/// When the authority cannot be read.
pub fn issue_region(
    authority: &Identity,
    addresses: &[IpAddr],
    random: [u8; 16],
) -> Result<Identity, TlsError> {
    let key = KeyPair::generate()?;
    let mut p = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    p.serial_number = Some(serial(random));
    p.distinguished_name
        .push(DnType::CommonName, "Steelyard region");
    p.subject_alt_names
        .extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.not_before = rcgen::date_time_ymd(2020, 1, 1);
    p.not_after = rcgen::date_time_ymd(2120, 1, 1);
    let certificate = p.signed_by(&key, &issuer(authority)?)?;
    Ok(Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// A rack's new key and its request for a certificate (PEM both).
///
/// # Errors
/// When the key cannot be made.
pub fn request(hostname: &str) -> Result<(String, String), TlsError> {
    let key = KeyPair::generate()?;
    let mut p = CertificateParams::new(Vec::<String>::new())?;
    p.distinguished_name.push(DnType::CommonName, hostname);
    let csr = p.serialize_request(&key)?;
    Ok((key.serialize_pem(), csr.pem()?))
}

/// Issues a rack's certificate for its request: only the key and the name are taken from the request.
///
/// # Errors
/// When the request cannot be read or its signature is wrong.
pub fn issue_rack(
    authority: &Identity,
    csr: &str,
    hostname: &str,
    random: [u8; 16],
) -> Result<String, TlsError> {
    let mut request = CertificateSigningRequestParams::from_pem(csr)?;
    let mut p = CertificateParams::new(Vec::<String>::new())?;
    p.serial_number = Some(serial(random));
    p.distinguished_name.push(DnType::CommonName, hostname);
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.not_before = rcgen::date_time_ymd(2020, 1, 1);
    p.not_after = rcgen::date_time_ymd(2120, 1, 1);
    request.params = p;
    Ok(request.signed_by(&issuer(authority)?)?.pem())
}

/// What a rack enrols with, once: a random token, and the fingerprint of the authority that the rack
/// shall trust. Printed as one word.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The token; the region keeps its hash only.
    pub token: String,
    /// SHA-256 of the authority's certificate.
    pub authority: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// A secret from 32 random bytes.
    #[must_use]
    pub fn new(random: [u8; 32], authority: &str) -> Self {
        Self {
            token: URL_SAFE_NO_PAD.encode(random),
            authority: authority.to_owned(),
        }
    }

    /// The word that is printed and pasted.
    #[must_use]
    pub fn word(&self) -> String {
        format!("{}.{}", self.token, self.authority)
    }

    /// Reads the word.
    ///
    /// # Errors
    /// [`TlsError::Secret`] when it is none.
    pub fn parse(word: &str) -> Result<Self, TlsError> {
        let (token, authority) = word.trim().split_once('.').ok_or(TlsError::Secret)?;
        let token_ok = URL_SAFE_NO_PAD.decode(token).is_ok_and(|b| b.len() == 32);
        let authority_ok =
            authority.len() == 64 && authority.bytes().all(|b| b.is_ascii_hexdigit());
        if token_ok && authority_ok {
            Ok(Self {
                token: token.to_owned(),
                authority: authority.to_ascii_lowercase(),
            })
        } else {
            Err(TlsError::Secret)
        }
    }

    /// What the region keeps of it.
    #[must_use]
    pub fn hash(&self) -> String {
        hash_token(&self.token)
    }
}

/// What a region keeps of a token.
#[must_use]
pub fn hash_token(token: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_being_pasted() {
        let s = Secret::new([7; 32], &"ab".repeat(32));
        assert_eq!(Secret::parse(&format!(" {}\n", s.word())).unwrap(), s);
        for bad in ["", "a.b", &s.word()[1..], &s.word()[..s.word().len() - 1]] {
            assert!(Secret::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_key_of_a_request_is_taken() {
        let ca = new_authority([1; 16]).unwrap();
        let (_, csr) = request("somebody-else").unwrap();
        let pem = issue_rack(&ca, &csr, "rack-1", [2; 16]).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(cert.subject().to_string().contains("rack-1"));
        assert!(!cert.is_ca());
    }
}
