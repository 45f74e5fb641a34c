//! Unpacking the archive of scripts. Nothing is ever written outside the work directory, whatever the
//! archive says; what is left out is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use super::index::Index;

/// Largest file in an archive.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most bytes in all files of an archive.
const TOTAL_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most entries of an archive.
const ENTRIES_MAX: usize = 8192;
/// The one path above the archive's root that is published: the network the machine is to have.
const NETPLAN: &str = "../config/netplan.yaml";

/// An unpacked archive.
#[derive(Debug)]
pub struct Bundle {
    /// What is in it.
    pub index: Index,
    /// Where the scripts are.
    pub scripts: PathBuf,
    /// The network that the machine is to have, when it came along.
    pub netplan: Option<PathBuf>,
    /// Entries that were left out: bad paths, links, devices.
    pub left_out: usize,
}

/// An archive that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is no tar archive, or is cut off.
    #[error("the archive of scripts cannot be read")]
    Archive(#[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Where.
        path: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is larger than anything sensible.
    #[error("the archive of scripts is too large")]
    TooLarge,
    /// It has no list of scripts.
    #[error("the archive has no index.json for version 1.0")]
    NoIndex,
}

/// Where an entry belongs below the work directory; none for a path that leads out of it.
#[must_use]
pub fn place(path: &Path) -> Option<PathBuf> {
    if path == Path::new(NETPLAN) {
        return Some(PathBuf::from("config/netplan.yaml"));
    }
    let mut out = PathBuf::from("scripts");
    let mut parts = 0;
    for component in path.components() {
        match component {
            Component::Normal(part) => {
                out.push(part);
                parts += 1;
            }
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (parts > 0).then_some(out)
}

/// Unpacks `archive` into `work`, which must be a directory of ours: what was in it from an earlier
/// archive is replaced.
///
/// # Errors
/// When it is no archive of scripts, is too large, or a file cannot be written.
pub fn unpack(archive: &[u8], work: &Path) -> Result<Bundle, BundleError> {
    let mut left_out = 0;
    let mut total = 0u64;
    let mut netplan = None;
    let mut index = None;
    for dir in ["scripts", "config"] {
        match std::fs::remove_dir_all(work.join(dir)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(BundleError::Write {
                    path: dir.to_owned(),
                    cause,
                });
            }
            _ => {}
        }
    }
    let scripts = work.join("scripts");
    create_dir(&scripts)?;
    let mut tar = tar::Archive::new(archive);
    for (n, entry) in tar.entries().map_err(BundleError::Archive)?.enumerate() {
        let mut entry = entry.map_err(BundleError::Archive)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if n >= ENTRIES_MAX
            || entry.size() > FILE_BYTES_MAX
            || total.saturating_add(entry.size()) > TOTAL_BYTES_MAX
        {
            return Err(BundleError::TooLarge);
        }
        total += entry.size();
        let path = entry.path().map_err(BundleError::Archive)?.into_owned();
        let Some(place) = place(&path).filter(|_| kind.is_file()) else {
            left_out += 1;
            continue;
        };
        let to = work.join(&place);
        write_entry(&mut entry, &to)?;
        if place == Path::new("config/netplan.yaml") {
            netplan = Some(to);
        } else if place == Path::new("scripts/index.json") {
            index = Some(to);
        }
    }
    let text = index
        .and_then(|p| std::fs::read(p).ok())
        .ok_or(BundleError::NoIndex)?;
    let mut versions: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|_| BundleError::NoIndex)?;
    let index = versions
        .remove("1.0")
        .and_then(|v| serde_json::from_value(v).ok())
        .ok_or(BundleError::NoIndex)?;
    Ok(Bundle {
        index,
        scripts,
        netplan,
        left_out,
    })
}

fn create_dir(dir: &Path) -> Result<(), BundleError> {
    std::fs::create_dir_all(dir).map_err(|cause| BundleError::Write {
        path: dir.display().to_string(),
        cause,
    })
}

fn write_entry(entry: &mut impl Read, to: &Path) -> Result<(), BundleError> {
    if let Some(parent) = to.parent() {
        create_dir(parent)?;
    }
    let failed = |cause| BundleError::Write {
        path: to.display().to_string(),
        cause,
    };
    match std::fs::remove_file(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(to)
        .map_err(failed)?;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        match entry.read(&mut buffer).map_err(BundleError::Archive)? {
            0 => return Ok(()),
            n => file.write_all(&buffer[..n]).map_err(failed)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // Paths that lead upwards can only be written past the builder's own check.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            out.append(&header, *content).unwrap();
        }
        out.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_written_outside_the_work_directory() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        let tar = archive(&[
            ("index.json", br#"{"1.0": {"commissioning_scripts": []}}"#),
            ("commissioning/a", b"#!/bin/sh\n"),
            ("../config/netplan.yaml", b"network: {}"),
            ("../evil", b"x"),
            ("/evil", b"x"),
            ("commissioning/../../evil", b"x"),
        ]);
        let bundle = unpack(&tar, &work).unwrap();
        assert_eq!(bundle.left_out, 3);
        assert_eq!(bundle.netplan, Some(work.join("config/netplan.yaml")));
        assert!(bundle.scripts.join("commissioning/a").is_file());
        assert!(!dir.path().join("evil").exists() && !dir.path().join("config").exists());
    }

    #[test]
    fn links_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut out = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        out.append_link(&mut header, "commissioning/link", "/etc")
            .unwrap();
        let mut header = tar::Header::new_gnu();
        let index = br#"{"1.0": {}}"#;
        header.set_size(index.len() as u64);
        out.append_data(&mut header, "index.json", &index[..])
            .unwrap();
        let bundle = unpack(&out.into_inner().unwrap(), dir.path()).unwrap();
        assert_eq!(bundle.left_out, 1);
        assert!(!dir.path().join("scripts/commissioning/link").exists());
    }

    #[test]
    fn an_archive_without_index_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            unpack(&archive(&[("a", b"b")]), dir.path()),
            Err(BundleError::NoIndex)
        ));
        assert!(matches!(
            unpack(
                b"no tar archive, but long enough to be looked at"
                    .repeat(30)
                    .as_slice(),
                dir.path()
            ),
            Err(BundleError::Archive(_))
        ));
    }

    proptest! {
        #[test]
        fn every_place_is_below_the_work_directory(path in "[./a]{0,24}") {
            if let Some(place) = place(Path::new(&path)) {
                prop_assert!(place.components().all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
