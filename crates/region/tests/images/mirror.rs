//! Image streams made for tests, plain or signed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgp::composed::{ArmorOptions, CleartextSignedMessage, SignedKeyDetails, SignedPublicKey};
use pgp::crypto::ed25519::{Mode, SecretKey as Ed25519};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, PubKeyInner, PublicKey, SecretKey, SignatureConfig, SignatureType, Subpacket,
    SubpacketData, UserId,
};
use pgp::types::{
    KeyDetails as _, KeyVersion, PacketHeaderVersion, Password, PlainSecretParams, PublicParams,
    SecretParams, SignedUser, Tag, Timestamp,
};
use wire_simplestreams::BootloaderType;
use wire_simplestreams::StreamPath;
use wire_simplestreams::writer::{FileFacts, Form, Image, ImageFile, publish};

/// 2026-01-01
const MADE: u32 = 1_767_225_600;

pub struct Signer {
    secret: SecretKey,
    certificate: SignedPublicKey,
}

impl Signer {
    pub fn new(seed: u8) -> Self {
        let secret = Ed25519::try_from_bytes([seed; 32], Mode::Ed25519).unwrap();
        let secret = PlainSecretParams::Ed25519(secret);
        let params = PublicParams::try_from(&secret).unwrap();
        let created = Timestamp::from_secs(MADE);
        let inner = PubKeyInner::new(
            KeyVersion::V4,
            PublicKeyAlgorithm::Ed25519,
            created,
            None,
            params,
        )
        .unwrap();
        let public = PublicKey::from_inner(inner).unwrap();
        let secret = SecretKey::new(public.clone(), SecretParams::Plain(secret)).unwrap();
        let id = UserId::from_str(PacketHeaderVersion::New, "Images <images@example.org>").unwrap();
        let mut flags = KeyFlags::default();
        flags.set_certify(true);
        flags.set_sign(true);
        let mut config = config(&secret, SignatureType::CertPositive);
        config
            .hashed_subpackets
            .push(Subpacket::regular(SubpacketData::KeyFlags(flags)).unwrap());
        let signature = config
            .sign_certification(&secret, &public, &Password::empty(), Tag::UserId, &id)
            .unwrap();
        let users = vec![SignedUser {
            id,
            signatures: vec![signature],
        }];
        let details = SignedKeyDetails::new(vec![], vec![], users, vec![]);
        let certificate = SignedPublicKey::new(public, details, vec![]);
        Self {
            secret,
            certificate,
        }
    }

    pub fn keyring(&self) -> String {
        self.certificate
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }

    fn sign(&self, text: &str) -> String {
        let config = config(&self.secret, SignatureType::Text);
        CleartextSignedMessage::new(text, config, &self.secret, &Password::empty())
            .unwrap()
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }
}

fn config(by: &SecretKey, typ: SignatureType) -> SignatureConfig {
    let mut config = SignatureConfig::v4(typ, PublicKeyAlgorithm::Ed25519, HashAlgorithm::Sha512);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(
            MADE,
        )))
        .unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(by.fingerprint())).unwrap(),
    ];
    config
}

/// A stream in a directory.
pub struct Mirror {
    pub dir: tempfile::TempDir,
    images: Vec<Image>,
}

impl Mirror {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            images: Vec::new(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn file(&self, path: &str, ftype: &str, name: Option<&str>, content: &[u8]) -> ImageFile {
        let target = self.dir.path().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(&target, content).unwrap();
        ImageFile {
            ftype: ftype.to_owned(),
            name: name.map(str::to_owned),
            path: StreamPath::new(path).unwrap(),
            facts: FileFacts::of(content).unwrap(),
            extra: BTreeMap::new(),
        }
    }

    /// A bootable system; its files are at `RELEASE/ARCH/VERSION/TYPE`.
    pub fn system(&mut self, release: &str, arch: &str, version: &str) -> &mut Self {
        let files = ["boot-kernel", "boot-initrd", "squashfs", "root-tgz"]
            .map(|ftype| {
                let path = format!("{release}/{arch}/{version}/{ftype}");
                self.file(&path, ftype, None, &content(&path))
            })
            .to_vec();
        let extra = [
            ("version", "12"),
            ("release_title", "12"),
            ("kparams", "console=ttyS0"),
            ("root_method", "live-boot"),
        ];
        self.images.push(Image {
            product: format!("org.example:v3:boot:{release}:{arch}:ga-12"),
            os: "debian".to_owned(),
            release: release.to_owned(),
            arch: arch.to_owned(),
            subarch: "ga-12".to_owned(),
            subarches: vec!["generic".to_owned(), "ga-12".to_owned()],
            label: "stable".to_owned(),
            bootloader_type: None,
            extra: extra.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            version: version.to_owned(),
            files,
        });
        self
    }

    /// Gives a file of the last system other content.
    pub fn with(&mut self, ftype: &str, content: &[u8]) -> &mut Self {
        let mut image = self.images.pop().unwrap();
        let file = image.files.iter_mut().find(|f| f.ftype == ftype).unwrap();
        *file = self.file(file.path.as_str(), ftype, None, content);
        self.images.push(image);
        self
    }

    /// Shim and GRUB for amd64, each in an archive of its own.
    pub fn loaders(&mut self, version: &str) -> &mut Self {
        let archive = |name: &str| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            let content = content(name);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &content[..]).unwrap();
            let tar = tar.into_inner().unwrap();
            let options = lzma_rust2::XzOptions::with_preset(1);
            let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            std::io::Write::write_all(&mut xz, &tar).unwrap();
            xz.finish().unwrap()
        };
        let files = [
            ("shim-signed", "bootx64.efi"),
            ("grub2-signed", "grubx64.efi"),
        ]
        .map(|(name, member)| {
            let path = format!("bootloaders/uefi/amd64/{version}/{name}.tar.xz");
            self.file(&path, "archive.tar.xz", Some(name), &archive(member))
        })
        .to_vec();
        self.images.push(Image {
            product: "org.example:1:grub-efi-signed:uefi:amd64".to_owned(),
            os: "grub-efi-signed".to_owned(),
            release: String::new(),
            arch: "amd64".to_owned(),
            subarch: String::new(),
            subarches: vec![],
            label: "stable".to_owned(),
            bootloader_type: Some(BootloaderType::Uefi),
            extra: [("arches".to_owned(), "amd64".to_owned())].into(),
            version: version.to_owned(),
            files,
        });
        self
    }

    pub fn publish(&self) {
        self.write(Form::Plain, str::to_owned);
    }

    pub fn publish_signed(&self, signer: &Signer) {
        self.write(Form::Signed, |text| signer.sign(text));
    }

    fn write(&self, form: Form, seal: impl Fn(&str) -> String) {
        let d = publish(
            "org.example:stable:v3:download",
            1_786_406_400,
            &self.images,
            form,
        )
        .unwrap();
        for (path, text) in [(&d.index_path, &d.index), (&d.products_path, &d.products)] {
            let target = Path::new(self.dir.path()).join(path.as_str());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, seal(text)).unwrap();
        }
    }
}

/// The content of a file: different for each name, and long enough to be cut.
pub fn content(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..4_000 {
        out.extend_from_slice(format!("{name} {n}\n").as_bytes());
    }
    out
}
