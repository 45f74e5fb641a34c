//! Profiles: servers that a person has logged in to, in one file that only its owner may read.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::oauth::Credentials;

/// The environment variable that names another file.
pub const FILE: &str = "STEELYARD_PROFILES";

/// One server and how to speak to it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Profile {
    /// The API, ending in `/api/2.0/`.
    pub url: String,
    /// The key; none for anonymous access.
    pub credentials: Option<Credentials>,
    /// Further certificates to trust, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cacerts: Option<String>,
    /// Whether certificates are not checked at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The describe document.
    pub description: Value,
}

#[derive(Default, Serialize, Deserialize)]
struct Content {
    profiles: BTreeMap<String, Profile>,
}

/// All profiles, as they are in the file.
pub struct Profiles {
    content: Content,
}

impl Profiles {
    /// Reads the file; there may be none yet.
    ///
    /// # Errors
    /// When it cannot be read or is not ours.
    pub fn open() -> anyhow::Result<Self> {
        Self::open_at(&path()?)
    }

    fn open_at(path: &Path) -> anyhow::Result<Self> {
        let content = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not a file of profiles", path.display()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
        };
        Ok(Self { content })
    }

    /// The profile with that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.content.profiles.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Profile)> {
        self.content.profiles.iter().map(|(n, p)| (n.as_str(), p))
    }

    /// Keeps a profile, in place of one of the same name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(name: &str, profile: Profile) -> anyhow::Result<()> {
        change(&path()?, |all| {
            all.insert(name.to_owned(), profile);
        })
    }

    /// Forgets a profile; says whether there was one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remove(name: &str) -> anyhow::Result<bool> {
        change(&path()?, |all| all.remove(name).is_some())
    }
}

fn path() -> anyhow::Result<PathBuf> {
    if let Some(p) = std::env::var_os(FILE).filter(|p| !p.is_empty()) {
        return Ok(p.into());
    }
    let config = match std::env::var_os("XDG_CONFIG_HOME").filter(|p| !p.is_empty()) {
        Some(p) => PathBuf::from(p),
        None => std::env::home_dir()
            .filter(|h| !h.as_os_str().is_empty())
            .with_context(|| {
                format!("there is no home directory; name the file of profiles in {FILE}")
            })?
            .join(".config"),
    };
    Ok(config.join("steelyard").join("profiles.json"))
}

/// Reads, changes and replaces the file; two commands at once do it one after the other.
fn change<T>(
    path: &Path,
    f: impl FnOnce(&mut BTreeMap<String, Profile>) -> T,
) -> anyhow::Result<T> {
    let dir = path
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("{} cannot be made", dir.display()))?;
    let lock = private(&with_ending(path, ".lock"))?;
    lock.lock()
        .with_context(|| format!("{} cannot be locked", path.display()))?;
    let mut profiles = Profiles::open_at(path)?;
    let result = f(&mut profiles.content.profiles);
    let new = with_ending(path, ".new");
    let text = serde_json::to_vec(&profiles.content).context("profiles")?;
    let write = || -> anyhow::Result<()> {
        let mut file = private(&new)?;
        file.set_len(0)?;
        file.write_all(&text)?;
        file.sync_all()?;
        Ok(std::fs::rename(&new, path)?)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(result)
}

/// Opens a file for its owner only, also where it was there with other rights.
fn private(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(url: &str) -> Profile {
        Profile {
            url: url.to_owned(),
            credentials: "a:b:c".parse().ok(),
            cacerts: None,
            insecure: false,
            description: Value::Null,
        }
    }

    #[test]
    fn the_file_is_for_its_owner_only_and_keeps_what_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("profiles.json");
        change(&path, |all| all.insert("one".to_owned(), profile("u1"))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        change(&path, |all| all.insert("two".to_owned(), profile("u2"))).unwrap();
        let all = Profiles::open_at(&path).unwrap();
        assert_eq!(
            all.iter()
                .map(|(n, p)| (n, p.url.as_str()))
                .collect::<Vec<_>>(),
            [("one", "u1"), ("two", "u2")]
        );
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(change(&path, |all| all.remove("one").is_some()).unwrap());
        assert!(Profiles::open_at(&path).unwrap().get("one").is_none());
    }
}
