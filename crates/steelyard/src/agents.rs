//! Where the agents for the machines come from: a directory that was named, files beside the program,
//! or the program itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Architectures that there are agents for.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// The environment variable that names the directory to look in first.
pub const DIRECTORY: &str = "STEELYARD_AGENT_DIR";

/// Every agent that can be found, by architecture.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn find() -> anyhow::Result<BTreeMap<String, Bytes>> {
    find_in(&directories())
}

fn find_in(directories: &[PathBuf]) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let mut found = BTreeMap::new();
    for architecture in ARCHITECTURES {
        let mut agent = None;
        for dir in directories {
            agent = read(&dir.join(format!("steelyard-agent-{architecture}")))?;
            if agent.is_some() {
                break;
            }
        }
        let embedded = || {
            EMBEDDED
                .iter()
                .find(|(a, _)| *a == architecture)
                .map(|(_, b)| Bytes::from_static(b))
        };
        if let Some(bytes) = agent.or_else(embedded) {
            found.insert(architecture.to_owned(), bytes);
        }
    }
    Ok(found)
}

fn directories() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::env::var_os(DIRECTORY)
        .map(PathBuf::from)
        .into_iter()
        .collect();
    if let Ok(exe) = std::env::current_exe()
        && let Some(dir) = exe.parent()
    {
        all.push(dir.join("agents"));
        // `scripts/agent` puts them beside cargo's profiles.
        all.extend(dir.parent().map(|d| d.join("agents")));
    }
    all
}

fn read(path: &Path) -> anyhow::Result<Option<Bytes>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e).with_context(|| format!("the agent {} cannot be read", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_has_an_agent_wins() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(first.path().join("steelyard-agent-amd64"), "first").unwrap();
        std::fs::write(second.path().join("steelyard-agent-amd64"), "second").unwrap();
        std::fs::write(second.path().join("steelyard-agent-arm64"), "second").unwrap();
        let found = find_in(&[
            first.path().join("missing"),
            first.path().into(),
            second.path().into(),
        ])
        .unwrap();
        assert_eq!(found["amd64"], "first");
        assert_eq!(found["arm64"], "second");
    }
}
