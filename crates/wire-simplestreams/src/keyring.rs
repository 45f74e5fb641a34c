//! The keys a source may be signed with, and what we demand of a signature.
//!
//! The arithmetic is the `pgp` crate's. The policy is ours, and stricter than what programs of
//! the time of the first streams did: see [`Refusal`]. What a certificate says about itself is
//! honoured where it restricts (expiry, revocation, usage), even when it says so with a SHA-1
//! self-signature, as the Ubuntu image key of 2009 does; where it extends trust (to a subkey), the
//! binding needs a strong hash.

use std::io::Cursor;

use pgp::armor::{BlockType, Dearmor, DearmorOptions};
use pgp::composed::{SignedPublicKey, SignedPublicKeyParser, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, PublicParams, Tag, Timestamp};

use crate::clearsign::{ClearSigned, SIGNATURE_MAX};

/// Largest keyring, in bytes.
pub const KEYRING_MAX: usize = 4 << 20;
/// Most certificates in a keyring.
pub const KEYS_MAX: usize = 500;
/// Most signatures looked at per document.
pub const SIGNATURES_MAX: usize = 16;
/// How far in the future a signature may have been made: clocks differ.
pub const FUTURE_SKEW_SECONDS: u64 = 24 * 60 * 60;
/// Shortest RSA modulus accepted.
pub const RSA_BITS_MIN: usize = 2048;

/// Certificates, as read from a keyring file.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fingerprints()).finish()
    }
}

/// Why a keyring is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// More than [`KEYRING_MAX`] bytes.
    #[error("the keyring is larger than {KEYRING_MAX} bytes")]
    TooLarge,
    /// More than [`KEYS_MAX`] certificates.
    #[error("the keyring has more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// GnuPG's own database rather than an exported keyring.
    #[error("this is GnuPG's keybox; export the keys from it with `gpg --export`")]
    Keybox,
    /// The armor is broken.
    #[error("the keyring's armor cannot be read")]
    Armor(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The armor holds something else, for example a secret key.
    #[error("the armor does not hold public keys")]
    NotPublicKeys,
    /// Neither armor nor packets.
    #[error("the keyring cannot be read")]
    Packets(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It could be read and holds no certificate.
    #[error("the keyring holds no public key")]
    Empty,
}

/// Who made the signature that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Fingerprint of the certificate, in lower-case hex.
    pub fingerprint: String,
    /// Fingerprint of the key in it that signed.
    pub signing_fingerprint: String,
    /// Seconds since 1970, as the signature says.
    pub signed_at: u64,
}

/// Why a single signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a signature over text, or of a version that is not known.
    #[error("it is no signature over a text")]
    Type,
    /// MD5, SHA-1 and everything else that can be made to collide, and what is not known.
    #[error("the hash {0} is not accepted")]
    Hash(String),
    /// DSA, and everything that is not RSA, ECDSA or EdDSA.
    #[error("the algorithm {0} is not accepted")]
    Algorithm(String),
    /// RSA shorter than [`RSA_BITS_MIN`].
    #[error("an RSA key of {0} bits is too short")]
    ShortKey(usize),
    /// No key of the keyring made it, as far as it says.
    #[error("it was made with a key that is not in the keyring")]
    UnknownKey,
    /// It does not fit the text: altered text, or not this key.
    #[error("it does not fit the text")]
    Bad,
    /// It does not say when it was made.
    #[error("it has no date")]
    Undated,
    /// Made later than now, by more than [`FUTURE_SKEW_SECONDS`], or before its key.
    #[error("its date cannot be right")]
    Date,
    /// Its own time is over.
    #[error("it has expired")]
    Expired,
    /// It demands something that we do not know.
    #[error("it demands an extension that is not known")]
    Critical,
    /// The certificate has expired.
    #[error("its key has expired")]
    KeyExpired,
    /// The certificate or the subkey was revoked.
    #[error("its key was revoked")]
    KeyRevoked,
    /// The certificate lacks a valid self-signature or binding.
    #[error("its key is not bound by a valid self-signature")]
    KeyUnbound,
    /// The key is for something else.
    #[error("its key is not for signing")]
    KeyUsage,
}

/// A signature that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSignature {
    /// Fingerprints and key ids that it names as its maker, in lower-case hex.
    pub issuers: Vec<String>,
    /// Why.
    pub refusal: Refusal,
}

impl std::fmt::Display for RefusedSignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let issuers = if self.issuers.is_empty() {
            "an unnamed key".to_owned()
        } else {
            self.issuers.join("/")
        };
        write!(f, "signature by {issuers}: {}", self.refusal)
    }
}

/// Why a document is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The signature block cannot be read.
    #[error("the signature cannot be read")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It holds something other than signatures.
    #[error("the signature block holds something other than signatures")]
    NotSignatures,
    /// It holds none.
    #[error("the signature block is empty")]
    NoSignature,
    /// More than [`SIGNATURES_MAX`].
    #[error("the document has more than {SIGNATURES_MAX} signatures")]
    TooMany,
    /// None of them is accepted.
    #[error("no signature is accepted: {}", list(.0))]
    Refused(Vec<RefusedSignature>),
}

fn list(refused: &[RefusedSignature]) -> String {
    refused
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl Keyring {
    /// Reads a keyring file: packets as `gpg --export` writes them, or armored blocks, several of
    /// which may follow each other. Certificates of kinds that are not known are left out.
    ///
    /// # Errors
    /// [`KeyringError`] says what is wrong with the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyringError> {
        if bytes.len() > KEYRING_MAX {
            return Err(KeyringError::TooLarge);
        }
        // The first block of a keybox has its magic at byte 8.
        if bytes.get(8..12) == Some(b"KBXf") {
            return Err(KeyringError::Keybox);
        }
        let mut keys = Vec::new();
        match bytes.trim_ascii_start().first() {
            None => return Err(KeyringError::Empty),
            // The highest bit starts every packet.
            Some(first) if first & 0x80 != 0 => read_keys(bytes.trim_ascii_start(), &mut keys)?,
            Some(_) => {
                for block in armored_blocks(bytes) {
                    let (kind, packets) =
                        dearmor(block, KEYRING_MAX).map_err(KeyringError::Armor)?;
                    if kind != BlockType::PublicKey {
                        return Err(KeyringError::NotPublicKeys);
                    }
                    read_keys(&packets, &mut keys)?;
                }
            }
        }
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        Ok(Self { keys })
    }

    /// Fingerprints of the certificates, in lower-case hex.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.keys
            .iter()
            .map(|key| hex::encode(key.fingerprint().as_bytes()))
    }

    /// Verifies a document at the time `now` (seconds since 1970). One good signature is enough:
    /// publishers sign with the old and the new key while they change keys.
    ///
    /// # Errors
    /// [`VerifyError`]; the document must not be used then.
    pub fn verify(&self, document: &ClearSigned, now: u64) -> Result<Signer, VerifyError> {
        let signatures = signatures(document.signature())?;
        let text = document.signed_bytes();
        let mut refused = Vec::new();
        for signature in &signatures {
            match self.verify_one(signature, &text, now) {
                Ok(signer) => return Ok(signer),
                Err(refusal) => {
                    let fingerprints = signature
                        .issuer_fingerprint()
                        .into_iter()
                        .map(|of| hex::encode(of.as_bytes()));
                    let ids = signature
                        .issuer_key_id()
                        .into_iter()
                        .map(|of| hex::encode(of.as_ref()));
                    refused.push(RefusedSignature {
                        issuers: fingerprints.chain(ids).collect(),
                        refusal,
                    });
                }
            }
        }
        Err(VerifyError::Refused(refused))
    }

    fn verify_one(&self, signature: &Signature, text: &[u8], now: u64) -> Result<Signer, Refusal> {
        let config = signature.config().ok_or(Refusal::Type)?;
        if config.typ != SignatureType::Text {
            return Err(Refusal::Type);
        }
        if !strong_hash(config.hash_alg) {
            return Err(Refusal::Hash(config.hash_alg.to_string()));
        }
        if !signing_algorithm(config.pub_alg) {
            return Err(Refusal::Algorithm(format!("{:?}", config.pub_alg)));
        }
        let mut unknown = config.hashed_subpackets.iter().filter(|subpacket| {
            let known = !matches!(
                subpacket.data,
                SubpacketData::Experimental(..)
                    | SubpacketData::Other(..)
                    | SubpacketData::Notation(_)
            );
            subpacket.is_critical && !known
        });
        if unknown.next().is_some() {
            return Err(Refusal::Critical);
        }
        let signed_at = seconds(signature.created().ok_or(Refusal::Undated)?);
        if signed_at > now.saturating_add(FUTURE_SKEW_SECONDS) {
            return Err(Refusal::Date);
        }
        let expires = signature
            .signature_expiration_time()
            .map(|life| u64::from(life.as_secs()));
        if expires.is_some_and(|life| life != 0 && signed_at.saturating_add(life) <= now) {
            return Err(Refusal::Expired);
        }

        // The refusal that came closest to acceptance is the one worth telling.
        let mut refusal = Refusal::UnknownKey;
        for certificate in &self.keys {
            if names(signature, &certificate.primary_key) {
                match signature.verify(&certificate.primary_key, text) {
                    Err(_) => refusal = Refusal::Bad,
                    Ok(()) => match check_primary(certificate, signed_at, now) {
                        Err(reason) => refusal = reason,
                        Ok(()) => {
                            return Ok(signer(certificate, &certificate.primary_key, signed_at));
                        }
                    },
                }
            }
            for subkey in certificate
                .public_subkeys
                .iter()
                .filter(|subkey| names(signature, &subkey.key))
            {
                match signature.verify(&subkey.key, text) {
                    Err(_) => refusal = Refusal::Bad,
                    Ok(()) => match check_subkey(certificate, subkey, signed_at, now) {
                        Err(reason) => refusal = reason,
                        Ok(()) => return Ok(signer(certificate, &subkey.key, signed_at)),
                    },
                }
            }
        }
        Err(refusal)
    }
}

fn signer(certificate: &SignedPublicKey, key: &impl KeyDetails, signed_at: u64) -> Signer {
    Signer {
        fingerprint: hex::encode(certificate.fingerprint().as_bytes()),
        signing_fingerprint: hex::encode(key.fingerprint().as_bytes()),
        signed_at,
    }
}

/// Whether the signature may be this key's, as far as it says whose it is. Spares the hashing of
/// the text for every other key.
fn names(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
    if fingerprints.is_empty() && ids.is_empty() {
        return true;
    }
    fingerprints.contains(&&key.fingerprint()) || ids.contains(&&key.legacy_key_id())
}

fn seconds(timestamp: Timestamp) -> u64 {
    u64::from(timestamp.as_secs())
}

fn strong_hash(hash: HashAlgorithm) -> bool {
    matches!(
        hash,
        HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    )
}

fn signing_algorithm(algorithm: PublicKeyAlgorithm) -> bool {
    matches!(
        algorithm,
        PublicKeyAlgorithm::RSA
            | PublicKeyAlgorithm::RSASign
            | PublicKeyAlgorithm::ECDSA
            | PublicKeyAlgorithm::EdDSALegacy
            | PublicKeyAlgorithm::Ed25519
            | PublicKeyAlgorithm::Ed448
    )
}

/// The key itself: algorithm, length, age.
fn check_material(key: &impl KeyDetails, signed_at: u64) -> Result<(), Refusal> {
    if !signing_algorithm(key.algorithm()) {
        return Err(Refusal::Algorithm(format!("{:?}", key.algorithm())));
    }
    if let PublicParams::RSA(params) = key.public_params() {
        let bits = rsa_bits(params);
        if bits < RSA_BITS_MIN {
            return Err(Refusal::ShortKey(bits));
        }
    }
    if seconds(key.created_at()) > signed_at {
        return Err(Refusal::Date);
    }
    Ok(())
}

/// Bits of the modulus: on the wire it comes first, as a length in bits and the number.
fn rsa_bits(params: &pgp::types::RsaPublicParams) -> usize {
    use pgp::ser::Serialize;
    let mut wire = Vec::new();
    match params.to_writer(&mut wire) {
        Ok(()) => wire
            .first_chunk::<2>()
            .map_or(0, |bits| usize::from(u16::from_be_bytes(*bits))),
        // Too long to be written is nothing we know.
        Err(_) => 0,
    }
}

fn self_signature_hash(signature: &Signature) -> bool {
    signature
        .hash_alg()
        .is_some_and(|hash| strong_hash(hash) || hash == HashAlgorithm::Sha1)
}

/// The certificate's newest valid statement about its primary key.
fn self_signature(certificate: &SignedPublicKey) -> Option<&Signature> {
    let primary = &certificate.primary_key;
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|signature| {
            signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
        });
    let users = certificate.details.users.iter().flat_map(|user| {
        let valid = |signature: &&Signature| {
            self_signature_hash(signature)
                && signature
                    .verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        };
        let (revocations, certifications): (Vec<_>, Vec<_>) = user
            .signatures
            .iter()
            .filter(valid)
            .partition(|signature| signature.typ() == Some(SignatureType::CertRevocation));
        if revocations.is_empty() {
            certifications
        } else {
            Vec::new()
        }
    });
    let valid = direct
        .filter(|signature| self_signature_hash(signature))
        .chain(users);
    valid.max_by_key(|signature| signature.created().map(seconds))
}

fn check_lifetime(key: &impl KeyDetails, statement: &Signature, now: u64) -> Result<(), Refusal> {
    let life = statement
        .key_expiration_time()
        .map(|life| u64::from(life.as_secs()));
    if life.is_some_and(|life| life != 0 && seconds(key.created_at()).saturating_add(life) <= now) {
        return Err(Refusal::KeyExpired);
    }
    Ok(())
}

/// `None` if the statement says nothing about usage.
fn says_sign(statement: &Signature) -> Option<bool> {
    let config = statement.config()?;
    config
        .hashed_subpackets
        .iter()
        .find_map(|subpacket| match &subpacket.data {
            SubpacketData::KeyFlags(flags) => Some(flags.sign()),
            _ => None,
        })
}

/// The certificate as a whole: bound, not revoked, not expired. Returns the statement it stands on.
fn check_certificate(certificate: &SignedPublicKey, now: u64) -> Result<&Signature, Refusal> {
    let primary = &certificate.primary_key;
    if certificate
        .details
        .revocation_signatures
        .iter()
        .any(|revocation| revocation.verify_key(primary).is_ok())
    {
        return Err(Refusal::KeyRevoked);
    }
    let statement = self_signature(certificate).ok_or(Refusal::KeyUnbound)?;
    check_lifetime(primary, statement, now)?;
    Ok(statement)
}

fn check_primary(certificate: &SignedPublicKey, signed_at: u64, now: u64) -> Result<(), Refusal> {
    check_material(&certificate.primary_key, signed_at)?;
    let statement = check_certificate(certificate, now)?;
    // A certificate from before key flags signs with its primary key.
    if says_sign(statement) == Some(false) {
        Err(Refusal::KeyUsage)
    } else {
        Ok(())
    }
}

fn check_subkey(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    signed_at: u64,
    now: u64,
) -> Result<(), Refusal> {
    let primary = &certificate.primary_key;
    check_material(&subkey.key, signed_at)?;
    check_material(primary, signed_at)?;
    check_certificate(certificate, now)?;
    let valid = || {
        subkey.signatures.iter().filter(|signature| {
            signature
                .verify_subkey_binding(primary, &subkey.key)
                .is_ok()
        })
    };
    if valid().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Err(Refusal::KeyRevoked);
    }
    let strong = |signature: &Signature| signature.hash_alg().is_some_and(strong_hash);
    let binding = valid()
        .filter(|signature| {
            signature.typ() == Some(SignatureType::SubkeyBinding) && strong(signature)
        })
        .max_by_key(|signature| signature.created().map(seconds))
        .ok_or(Refusal::KeyUnbound)?;
    check_lifetime(&subkey.key, binding, now)?;
    if says_sign(binding) != Some(true) {
        return Err(Refusal::KeyUsage);
    }
    // Without the subkey's own consent anyone could claim its signatures (RFC 9580 §10.1.5).
    let back = binding
        .embedded_signature()
        .filter(|back| strong(back))
        .ok_or(Refusal::KeyUnbound)?;
    back.verify_primary_key_binding(&subkey.key, primary)
        .map_err(|_| Refusal::KeyUnbound)
}

fn armored_blocks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let mut starts: Vec<usize> = bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(at, window)| {
            *window == BEGIN && (*at == 0 || bytes.get(at.wrapping_sub(1)) == Some(&b'\n'))
        })
        .map(|(at, _)| at)
        .take(KEYS_MAX + 1)
        .collect();
    starts.push(bytes.len());
    // Text without any armor is handed on as a whole, to be refused with a reason.
    if starts.len() == 1 {
        starts.insert(0, 0);
    }
    let blocks: Vec<&[u8]> = starts
        .windows(2)
        .filter_map(|pair| bytes.get(*pair.first()?..*pair.last()?))
        .collect();
    blocks.into_iter()
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn dearmor(block: &[u8], limit: usize) -> Result<(BlockType, Vec<u8>), Cause> {
    use std::io::Read;
    let mut reader =
        Dearmor::with_options(Cursor::new(block), DearmorOptions::new().set_limit(limit));
    reader.read_header()?;
    let kind = reader.typ.ok_or("no armor header")?;
    let mut packets = Vec::new();
    reader.read_to_end(&mut packets)?;
    Ok((kind, packets))
}

fn read_keys(bytes: &[u8], keys: &mut Vec<SignedPublicKey>) -> Result<(), KeyringError> {
    let broken = |cause: pgp::errors::Error| KeyringError::Packets(Box::new(cause));
    let mut packets = Vec::new();
    for packet in PacketParser::new(Cursor::new(bytes)) {
        match packet {
            // GnuPG keeps trust packets between those that belong to a certificate.
            Ok(Packet::Trust(_) | Packet::Marker(_) | Packet::Padding(_)) => {}
            Ok(packet) => packets.push(Ok(packet)),
            Err(cause) if unknown_kind(&cause) => {}
            Err(cause) => return Err(broken(cause)),
        }
    }
    for certificate in SignedPublicKeyParser::from_packets(packets.into_iter().peekable()) {
        if keys.len() >= KEYS_MAX {
            return Err(KeyringError::TooManyKeys);
        }
        keys.push(certificate.map_err(broken)?);
    }
    Ok(())
}

/// Packets of a version, kind or curve that the library does not know: not to be used, and no
/// reason to refuse the rest of the file.
fn unknown_kind(cause: &pgp::errors::Error) -> bool {
    use pgp::errors::Error;
    match cause {
        Error::Unsupported { .. } | Error::Unimplemented { .. } | Error::EllipticCurve { .. } => {
            true
        }
        Error::InvalidPacketContent { source } => unknown_kind(source),
        _ => false,
    }
}

fn signatures(armored: &str) -> Result<Vec<Signature>, VerifyError> {
    let (kind, packets) =
        dearmor(armored.as_bytes(), SIGNATURE_MAX).map_err(VerifyError::Malformed)?;
    if kind != BlockType::Signature {
        return Err(VerifyError::NotSignatures);
    }
    let mut signatures = Vec::new();
    for packet in PacketParser::new(Cursor::new(packets)) {
        match packet {
            Ok(Packet::Signature(signature)) => {
                if signatures.len() >= SIGNATURES_MAX {
                    return Err(VerifyError::TooMany);
                }
                signatures.push(signature);
            }
            Ok(_) => return Err(VerifyError::NotSignatures),
            Err(cause) if unknown_kind(&cause) => {}
            Err(cause) => return Err(VerifyError::Malformed(Box::new(cause))),
        }
    }
    if signatures.is_empty() {
        Err(VerifyError::NoSignature)
    } else {
        Ok(signatures)
    }
}
