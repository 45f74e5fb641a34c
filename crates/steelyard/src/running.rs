//! What a running process tells other commands on the same data directory: `running.json`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The file in the data directory.
const FILE: &str = "running.json";

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Process id.
    pub pid: u32,
    /// The API, `http://HOST:PORT/MAAS/`; empty for a rack without a region.
    pub url: String,
    /// Version of the program.
    pub version: String,
    /// Schema of the database.
    pub schema: i64,
    /// `SQLite` or `PostgreSQL`; empty without a region.
    pub database: String,
    /// The region's name.
    pub region: String,
    /// When it started, seconds since the epoch.
    pub started: i64,
    /// Its rack's services: name to state and reason; empty without a rack.
    pub services: BTreeMap<String, State>,
    /// Racks that are connected to it, by system id.
    pub racks: Vec<String>,
    /// Where racks on other hosts connect.
    #[serde(default)]
    pub link: Option<String>,
    /// The regions of a rack without one of its own, `HOST:PORT`.
    #[serde(default)]
    pub regions: Vec<String>,
}

impl Running {
    /// Where it is found, or whose rack it is.
    #[must_use]
    pub fn place(&self) -> String {
        if self.url.is_empty() {
            format!("a rack of {}", self.regions.join(", "))
        } else {
            self.url.clone()
        }
    }
}

/// The state of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `running`, `degraded`, `dead` or `off`.
    pub status: String,
    /// Why, in words.
    pub info: String,
}

/// What the process that runs on a directory says, or the last one that ran there and was killed.
#[must_use]
pub fn read(dir: &Path) -> Option<Running> {
    serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()
}

/// Tells other commands.
///
/// # Errors
/// When the directory cannot be written.
pub fn write(dir: &Path, running: &Running) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(running).context("running.json")?;
    let new = dir.join(format!("{FILE}.new"));
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, dir.join(FILE)))
        .with_context(|| format!("{} cannot be written", new.display()))
}

/// The process ends.
pub fn remove(dir: &Path) {
    // Whoever reads a file that stayed behind looks at the lock first.
    std::fs::remove_file(dir.join(FILE)).ok();
}
