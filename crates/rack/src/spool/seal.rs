//! Credentials at rest: machines' requests are sealed with a key that only this directory's owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// The file with the key.
const KEY_FILE: &str = "key";

/// Seals and opens. The key lives as long as the directory.
pub(super) struct Seal {
    key: LessSafeKey,
}

impl Seal {
    /// Reads the key of a directory, or makes one.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(KEY_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes: [u8; 32] = rand::random();
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                File::open(dir)?.sync_all()?;
                bytes.to_vec()
            }
            Err(error) => return Err(error),
        };
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} holds no key", path.display()),
            )
        })?;
        Ok(Self {
            key: LessSafeKey::new(key),
        })
    }

    /// Nonce, then what only the key opens. Nonces are random: a spool never seals the 2^32 batches after
    /// which that would be unwise.
    pub(super) fn seal(&self, mut plain: Vec<u8>) -> io::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut plain,
            )
            .map_err(|_| io::Error::other("a batch cannot be sealed"))?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut plain);
        Ok(sealed)
    }

    /// The plain bytes; none when they were altered or sealed with another key.
    pub(super) fn open_sealed(&self, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        if sealed.len() < NONCE_LEN {
            return None;
        }
        let mut rest = sealed.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&sealed).ok()?;
        let length = self
            .key
            .open_in_place(nonce, Aad::empty(), &mut rest)
            .ok()?
            .len();
        rest.truncate(length);
        Some(rest)
    }
}
