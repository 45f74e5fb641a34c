//! Signing keys made from a seed, and what certificates say about them.

#![allow(dead_code, reason = "each test file uses its part")]

use pgp::composed::{
    ArmorOptions, DetachedSignature, SignedKeyDetails, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::ed25519::{Mode, SecretKey as Ed25519};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, PubKeyInner, PublicKey, PublicSubkey, SecretKey, SecretSubkey, Signature,
    SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
};
use pgp::types::{
    Duration, KeyDetails, KeyVersion, PacketHeaderVersion, Password, PlainSecretParams,
    PublicParams, SecretParams, SignedUser, SigningKey, Tag, Timestamp,
};
use wire_simplestreams::{ClearSigned, Keyring};

/// 2026-01-01
pub const MADE: u32 = 1_767_225_600;
/// 2026-08-11
pub const NOW: u64 = 1_786_406_400;
pub const DAY: u32 = 86_400;

#[derive(Clone, Copy)]
pub struct Spec {
    pub seed: u8,
    pub sign: bool,
    pub expires_after: Option<u32>,
    pub revoked: bool,
    pub self_signed: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            seed: 1,
            sign: true,
            expires_after: None,
            revoked: false,
            self_signed: true,
        }
    }
}

fn material(seed: u8) -> (PubKeyInner, SecretParams) {
    let secret = Ed25519::try_from_bytes([seed; 32], Mode::Ed25519).unwrap();
    let secret = PlainSecretParams::Ed25519(secret);
    let public = PublicParams::try_from(&secret).unwrap();
    let created = Timestamp::from_secs(MADE);
    let inner = PubKeyInner::new(
        KeyVersion::V4,
        PublicKeyAlgorithm::Ed25519,
        created,
        None,
        public,
    )
    .unwrap();
    (inner, SecretParams::Plain(secret))
}

fn statement(
    typ: SignatureType,
    by: &impl KeyDetails,
    made: u32,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(typ, PublicKeyAlgorithm::Ed25519, HashAlgorithm::Sha512);
    let mut hashed = vec![
        SubpacketData::SignatureCreationTime(Timestamp::from_secs(made)),
        SubpacketData::IssuerFingerprint(by.fingerprint()),
    ];
    hashed.extend(more);
    config.hashed_subpackets = hashed
        .into_iter()
        .map(|data| Subpacket::regular(data).unwrap())
        .collect();
    config
}

fn usage(sign: bool, expires_after: Option<u32>) -> Vec<SubpacketData> {
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(sign);
    let life =
        expires_after.map(|life| SubpacketData::KeyExpirationTime(Duration::from_secs(life)));
    [SubpacketData::KeyFlags(flags)]
        .into_iter()
        .chain(life)
        .collect()
}

pub fn password() -> Password {
    Password::empty()
}

pub struct Key {
    pub secret: SecretKey,
    pub certificate: SignedPublicKey,
}

impl Key {
    pub fn new(spec: Spec) -> Self {
        let (inner, params) = material(spec.seed);
        let public = PublicKey::from_inner(inner).unwrap();
        let secret = SecretKey::new(public.clone(), params).unwrap();
        let id = UserId::from_str(PacketHeaderVersion::New, "Images <images@example.org>").unwrap();
        let certification = statement(
            SignatureType::CertPositive,
            &public,
            MADE,
            usage(spec.sign, spec.expires_after),
        )
        .sign_certification(&secret, &public, &password(), Tag::UserId, &id)
        .unwrap();
        let revocation = statement(SignatureType::KeyRevocation, &public, MADE + DAY, vec![])
            .sign_key(&secret, &password(), &public)
            .unwrap();
        let revocations = if spec.revoked {
            vec![revocation]
        } else {
            vec![]
        };
        let users = if spec.self_signed {
            vec![SignedUser {
                id,
                signatures: vec![certification],
            }]
        } else {
            vec![]
        };
        let details = SignedKeyDetails::new(revocations, vec![], users, vec![]);
        let certificate = SignedPublicKey::new(public, details, vec![]);
        Self {
            secret,
            certificate,
        }
    }

    /// Adds a signing subkey and returns its secret part.
    pub fn add_subkey(&mut self, seed: u8, consent: bool, spec: Spec) -> SecretSubkey {
        let (inner, params) = material(seed);
        let public = PublicSubkey::from_inner(inner).unwrap();
        let secret = SecretSubkey::new(public.clone(), params).unwrap();
        let primary = &self.certificate.primary_key;
        let mut more = usage(spec.sign, spec.expires_after);
        if consent {
            let back = statement(SignatureType::KeyBinding, &public, MADE, vec![])
                .sign_primary_key_binding(&secret, &public, &password(), primary)
                .unwrap();
            more.push(SubpacketData::EmbeddedSignature(Box::new(back)));
        }
        let binding = statement(SignatureType::SubkeyBinding, primary, MADE, more)
            .sign_subkey_binding(&self.secret, primary, &password(), &public)
            .unwrap();
        let mut signatures = vec![binding];
        if spec.revoked {
            let revocation =
                statement(SignatureType::SubkeyRevocation, primary, MADE + DAY, vec![])
                    .sign_subkey_binding(&self.secret, primary, &password(), &public)
                    .unwrap();
            signatures.push(revocation);
        }
        self.certificate.public_subkeys.push(SignedPublicSubKey {
            key: public,
            signatures,
        });
        secret
    }

    pub fn armored(&self) -> String {
        self.certificate
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }

    pub fn binary(&self) -> Vec<u8> {
        use pgp::ser::Serialize;
        self.certificate.to_bytes().unwrap()
    }

    pub fn keyring(&self) -> Keyring {
        Keyring::from_bytes(self.armored().as_bytes()).unwrap()
    }
}

pub struct Signing {
    pub typ: SignatureType,
    pub made: u32,
    pub more: Vec<Subpacket>,
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            typ: SignatureType::Text,
            made: MADE + DAY,
            more: vec![],
        }
    }
}

pub fn signature(text: &str, key: &impl SigningKey, signing: Signing) -> Signature {
    let mut config = statement(signing.typ, key, signing.made, vec![]);
    config.hashed_subpackets.extend(signing.more);
    config
        .sign(key, &password(), &ClearSigned::canonical(text)[..])
        .unwrap()
}

pub fn armored(signature: Signature) -> String {
    DetachedSignature::new(signature)
        .to_armored_string(ArmorOptions::default())
        .unwrap()
}

/// A clear-signed document.
pub fn sign(text: &str, key: &impl SigningKey) -> String {
    ClearSigned::assemble(
        text,
        "SHA512",
        &armored(signature(text, key, Signing::default())),
    )
}
