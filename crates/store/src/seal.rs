//! Sealing secrets before they are kept: AES-256-GCM with a key that never enters the database.
//!
//! The keys live in a file with mode 0600 (or in the environment) that all regions of one database
//! share. Every key has an id, and a sealed value names the key it was sealed with, so that keys can be
//! rotated: the first key of the file seals, all of them unseal.
//!
//! A sealed value, in bytes:
//!
//! ```text
//! 0        1            5                17
//! +--------+------------+----------------+----------------------+-----------+
//! | form=1 | key id, BE | nonce, random  | ciphertext           | tag (16)  |
//! +--------+------------+----------------+----------------------+-----------+
//! ```
//!
//! The first five bytes and the *context* (what the secret is and whose, for example
//! `node.power_parameters:4y3h7n`) are authenticated too: a sealed value that is copied to another row
//! does not open there.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Keys that a file may hold: the current one and those it replaced.
pub const MAX_KEYS: usize = 16;
/// Largest key file that is read, in bytes.
pub const MAX_FILE: u64 = 16 * 1024;
/// Longest secret that is sealed, in bytes.
pub const MAX_SECRET: usize = 1 << 20;

const FORM: u8 = 1;
const HEADER: usize = 5;
const OVERHEAD: usize = HEADER + NONCE_LEN + MAX_TAG_LEN;

/// Why something could not be sealed or unsealed. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file could not be read, made or replaced.
    #[error("cannot use the key file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: std::io::Error,
    },
    /// Others than its owner may use the key file.
    #[error(
        "the key file {path} has mode {mode:04o}; only its owner may have access. Run: chmod 600 {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text holds no keys.
    #[error("these are no keys: {0}")]
    NotKeys(&'static str),
    /// The value was sealed with a key that is not here.
    #[error("the secret {context} was sealed with key {key:08x}, which is not in the key file")]
    UnknownKey {
        /// What the secret is.
        context: String,
        /// The key's id.
        key: u32,
    },
    /// The value was altered, cut, or belongs to something else.
    #[error("the secret {context} does not open: it was altered or belongs to something else")]
    DoesNotOpen {
        /// What the secret is.
        context: String,
    },
    /// The secret is longer than [`MAX_SECRET`].
    #[error("the secret {context} has {bytes} bytes, too long to seal")]
    TooLong {
        /// What the secret is.
        context: String,
        /// Its length.
        bytes: usize,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// The key file. `Debug` is absent on purpose.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<FileKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    /// Eight hexadecimal digits.
    id: String,
    /// Base64.
    key: String,
}

struct Key {
    id: u32,
    aead: LessSafeKey,
}

/// Seals and unseals secrets. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    /// The current key first.
    keys: Arc<[Key]>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// Opens the key file, or makes one with a fresh key when there is none. Of several programs that
    /// start at once one makes it and all use it.
    ///
    /// # Errors
    /// When the file cannot be read or made, when others than its owner may read it, or when it holds
    /// no keys.
    pub fn open_or_create(path: &Path) -> Result<Self, StoreError> {
        match Self::open(path) {
            Err(StoreError::Seal(SealError::File { cause, .. }))
                if cause.kind() == std::io::ErrorKind::NotFound => {}
            other => return other,
        }
        let text = new_file(&[])?;
        let fresh = write_beside(path, &text)?;
        // A link is made only where nothing is, and shows the whole file or nothing.
        let linked = std::fs::hard_link(&fresh, path);
        std::fs::remove_file(&fresh).map_err(|e| file_error(path, e))?;
        match linked {
            Ok(()) => sync_directory(path)?,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(file_error(path, e).into()),
        }
        Self::open(path)
    }

    /// Opens a key file that must be there (a restore refuses to go on without it).
    ///
    /// # Errors
    /// As for [`Sealer::open_or_create`], and when there is no such file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::from_text(&read_file(path)?)
    }

    /// The keys from the text of a key file, for example from the environment.
    ///
    /// # Errors
    /// When the text holds no keys.
    pub fn from_text(text: &str) -> Result<Self, StoreError> {
        let file: File = serde_json::from_str(text).map_err(|_| {
            SealError::NotKeys(
                "expected {\"keys\": [{\"id\": \"8 hex digits\", \"key\": \"base64\"}]}",
            )
        })?;
        if file.keys.is_empty() {
            return Err(SealError::NotKeys("the list of keys is empty").into());
        }
        if file.keys.len() > MAX_KEYS {
            return Err(SealError::NotKeys("too many keys").into());
        }
        let mut keys: Vec<Key> = Vec::with_capacity(file.keys.len());
        for k in &file.keys {
            let id = key_id(&k.id).ok_or(SealError::NotKeys(
                "a key's id is not eight hexadecimal digits",
            ))?;
            if keys.iter().any(|known| known.id == id) {
                return Err(SealError::NotKeys("two keys have the same id").into());
            }
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(&k.key)
                .map_err(|_| SealError::NotKeys("a key is not base64"))?;
            let key = UnboundKey::new(&AES_256_GCM, &bytes)
                .map_err(|_| SealError::NotKeys("a key does not have 32 bytes"))?;
            keys.push(Key {
                id,
                aead: LessSafeKey::new(key),
            });
        }
        Ok(Self { keys: keys.into() })
    }

    /// A fresh key that is kept nowhere: what it seals is lost with it.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[must_use]
    pub fn for_tests() -> Self {
        let text = new_file(&[]).expect("the system gives random bytes");
        Self::from_text(&text).expect("a fresh key file holds a key")
    }

    /// Puts a fresh key at the head of the file and returns a sealer that seals with it. What older keys
    /// sealed still opens; see [`Sealer::reseal`]. At most [`MAX_KEYS`] are kept: the oldest goes.
    ///
    /// # Errors
    /// When the file cannot be read or replaced.
    pub fn rotate(path: &Path) -> Result<Self, StoreError> {
        let text = read_file(path)?;
        Self::from_text(&text)?;
        let old: File = serde_json::from_str(&text)
            .map_err(|_| SealError::NotKeys("the file changed while it was read"))?;
        let text = new_file(&old.keys)?;
        let fresh = write_beside(path, &text)?;
        std::fs::rename(&fresh, path).map_err(|e| file_error(path, e))?;
        sync_directory(path)?;
        Self::from_text(&text)
    }

    /// Seals a secret. The context says what it is and whose; the same must be given to unseal.
    ///
    /// # Panics
    /// When the system gives no random bytes, or the secret is longer than [`MAX_SECRET`]: use
    /// [`Sealer::try_seal`] where its length comes from outside.
    #[must_use]
    pub fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        self.try_seal(context, plain)
            .expect("secrets are short and the system gives random bytes")
    }

    /// Seals a secret of any length.
    ///
    /// # Errors
    /// When it is longer than [`MAX_SECRET`] or the system gives no random bytes.
    pub fn try_seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        if plain.len() > MAX_SECRET {
            return Err(SealError::TooLong {
                context: context.to_owned(),
                bytes: plain.len(),
            }
            .into());
        }
        let key = self.current();
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        out.push(FORM);
        out.extend_from_slice(&key.id.to_be_bytes());
        let aad = aad(&out, context);
        out.extend_from_slice(&nonce);
        let from = out.len();
        out.extend_from_slice(plain);
        let tag = key
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut out[from..],
            )
            .map_err(|_| SealError::TooLong {
                context: context.to_owned(),
                bytes: plain.len(),
            })?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// When it was sealed with a key that is not here, for another context, or was altered.
    pub fn unseal(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let broken = || SealError::DoesNotOpen {
            context: context.to_owned(),
        };
        if sealed.len() < OVERHEAD || sealed[0] != FORM {
            return Err(broken().into());
        }
        let (header, rest) = sealed.split_at(HEADER);
        let (nonce, body) = rest.split_at(NONCE_LEN);
        let id = sealed_with(sealed).ok_or_else(broken)?;
        let key = self
            .keys
            .iter()
            .find(|k| k.id == id)
            .ok_or_else(|| SealError::UnknownKey {
                context: context.to_owned(),
                key: id,
            })?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut buffer = body.to_vec();
        let plain = key
            .aead
            .open_in_place(nonce, Aad::from(aad(header, context)), &mut buffer)
            .map_err(|_| broken())?
            .len();
        buffer.truncate(plain);
        Ok(buffer)
    }

    /// The secret sealed with the current key, when it was sealed with an older one; none when it is
    /// fine as it is. For going through the database after a rotation.
    ///
    /// # Errors
    /// When it does not open.
    pub fn reseal(&self, context: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if sealed_with(sealed) == Some(self.current().id) {
            return Ok(None);
        }
        let plain = self.unseal(context, sealed)?;
        self.try_seal(context, &plain).map(Some)
    }

    fn current(&self) -> &Key {
        self.keys
            .first()
            .expect("a sealer is made with at least one key")
    }
}

fn sealed_with(sealed: &[u8]) -> Option<u32> {
    sealed
        .get(1..HEADER)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_be_bytes)
}

fn aad(header: &[u8], context: &str) -> Vec<u8> {
    [header, context.as_bytes()].concat()
}

fn key_id(text: &str) -> Option<u32> {
    (text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(text, 16).ok())
        .flatten()
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut out = [0; N];
    SystemRandom::new()
        .fill(&mut out)
        .map_err(|_| SealError::NoRandom)?;
    Ok(out)
}

/// The text of a key file with a fresh key before the ones given.
fn new_file(older: &[FileKey]) -> Result<String, StoreError> {
    let id = loop {
        let id = hex::encode(random::<4>()?);
        if older.iter().all(|k| !k.id.eq_ignore_ascii_case(&id)) {
            break id;
        }
    };
    let key = base64::engine::general_purpose::STANDARD.encode(random::<KEY_BYTES>()?);
    let mut keys = vec![FileKey { id, key }];
    keys.extend(older.iter().take(MAX_KEYS - 1).map(|k| FileKey {
        id: k.id.clone(),
        key: k.key.clone(),
    }));
    let text = serde_json::to_string_pretty(&File { keys })
        .map_err(|_| SealError::NotKeys("the keys cannot be written down"))?;
    Ok(text + "\n")
}

fn file_error(path: &Path, cause: std::io::Error) -> SealError {
    SealError::File {
        path: path.to_owned(),
        cause,
    }
}

fn read_file(path: &Path) -> Result<String, SealError> {
    let file = std::fs::File::open(path).map_err(|e| file_error(path, e))?;
    let meta = file.metadata().map_err(|e| file_error(path, e))?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SealError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(|e| file_error(path, e))?;
    Ok(text)
}

/// Writes a new file, mode 0600, durable, beside `path` and under a name of its own.
fn write_beside(path: &Path, text: &str) -> Result<PathBuf, StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", hex::encode(random::<8>()?)));
    let fresh = path.with_file_name(name);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()));
    if let Err(e) = written {
        std::fs::remove_file(&fresh).ok();
        return Err(file_error(path, e).into());
    }
    Ok(fresh)
}

fn sync_directory(path: &Path) -> Result<(), SealError> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    std::fs::File::open(parent)
        .and_then(|d| d.sync_all())
        .map_err(|e| file_error(path, e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    const CONTEXT: &str = "node.power_parameters:4y3h7n";

    fn cause(e: StoreError) -> SealError {
        match e {
            StoreError::Seal(e) => e,
            other => panic!("not a seal error: {other}"),
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_unseals(plain in proptest::collection::vec(any::<u8>(), 0..200), context in ".{0,40}") {
            let s = Sealer::for_tests();
            let sealed = s.seal(&context, &plain);
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(s.unseal(&context, &sealed).unwrap(), plain);
        }

        #[test]
        fn any_altered_bit_is_noticed(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
            let s = Sealer::for_tests();
            let mut sealed = s.seal(CONTEXT, b"calvin");
            let at = at.index(sealed.len());
            sealed[at] ^= 1u8 << bit;
            prop_assert!(s.unseal(CONTEXT, &sealed).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Sealer::for_tests().unseal(CONTEXT, &bytes).is_err());
        }
    }

    #[test]
    fn a_secret_does_not_open_in_another_row() {
        let s = Sealer::for_tests();
        let sealed = s.seal(CONTEXT, b"calvin");
        let e = cause(
            s.unseal("node.power_parameters:aaaaaa", &sealed)
                .unwrap_err(),
        );
        assert!(matches!(e, SealError::DoesNotOpen { .. }), "{e}");
    }

    #[test]
    fn the_same_secret_seals_differently_each_time() {
        let s = Sealer::for_tests();
        assert_ne!(s.seal(CONTEXT, b"calvin"), s.seal(CONTEXT, b"calvin"));
    }

    #[test]
    fn the_key_file_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = Sealer::open_or_create(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let second = Sealer::open_or_create(&path).unwrap();
        assert_eq!(
            second
                .unseal(CONTEXT, &first.seal(CONTEXT, b"calvin"))
                .unwrap(),
            b"calvin"
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside the key file"
        );
    }

    #[test]
    fn programs_that_start_together_agree_on_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let start = std::sync::Barrier::new(8);
        let sealers: Vec<Sealer> = std::thread::scope(|s| {
            let all: Vec<_> = (0..8)
                .map(|_| {
                    s.spawn(|| {
                        start.wait();
                        Sealer::open_or_create(&path).unwrap()
                    })
                })
                .collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let sealed = sealers[0].seal(CONTEXT, b"calvin");
        for s in &sealers {
            assert_eq!(s.unseal(CONTEXT, &sealed).unwrap(), b"calvin");
        }
    }

    #[test]
    fn an_exposed_key_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Sealer::open_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let text = Sealer::open_or_create(&path).unwrap_err().to_string();
            assert!(
                text.contains("chmod 600") && text.contains(&format!("{mode:04o}")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_missing_key_file_is_not_made_by_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(Sealer::open(&path).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn after_a_rotation_old_secrets_open_and_new_ones_need_the_new_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let old = Sealer::open_or_create(&path).unwrap();
        let before = old.seal(CONTEXT, b"calvin");
        let new = Sealer::rotate(&path).unwrap();
        assert_eq!(new.unseal(CONTEXT, &before).unwrap(), b"calvin");
        let after = new
            .reseal(CONTEXT, &before)
            .unwrap()
            .expect("sealed with the old key");
        assert!(new.reseal(CONTEXT, &after).unwrap().is_none());
        let e = cause(old.unseal(CONTEXT, &after).unwrap_err());
        assert!(matches!(e, SealError::UnknownKey { .. }), "{e}");
        let reopened = Sealer::open(&path).unwrap();
        assert_eq!(reopened.unseal(CONTEXT, &after).unwrap(), b"calvin");
        assert_eq!(reopened.unseal(CONTEXT, &before).unwrap(), b"calvin");
    }

    #[test]
    fn rotation_keeps_a_bounded_number_of_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Sealer::open_or_create(&path).unwrap();
        for _ in 0..MAX_KEYS + 3 {
            Sealer::rotate(&path).unwrap();
        }
        assert_eq!(Sealer::open(&path).unwrap().keys.len(), MAX_KEYS);
    }

    #[test]
    fn text_that_holds_no_keys_is_refused_without_quoting_it() {
        for text in [
            "",
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"id":"1","key":"hunter2"}]}"#,
            r#"{"keys":[{"id":"00000001","key":"aHVudGVyMg=="}]}"#,
            r#"{"keys":[{"id":"00000001","key":"hunter2!"}]}"#,
        ] {
            let shown = format!("{:?}", Sealer::from_text(text).unwrap_err());
            assert!(
                !shown.contains("hunter2") && !shown.contains("aHVudGVyMg"),
                "{shown}"
            );
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(
            format!("{:?}", Sealer::for_tests()),
            "Sealer { keys: 1, .. }"
        );
    }
}
