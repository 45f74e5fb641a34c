//! What a script needs installed: Debian packages, snaps, files from URLs.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::process::{Cmd, CommandFailed, End, Output, Runner, must};

/// Time an installation of packages may take.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// The strings of a list, or of a single text with commas or spaces.
fn names(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(s)) => s
            .split([',', ' '])
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect(),
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether a script needs anything at all.
#[must_use]
pub fn wanted(packages: &Map<String, Value>) -> bool {
    packages.values().any(|v| match v {
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    })
}

/// Installs what is missing. Returns what the tools said.
///
/// # Errors
/// The first command that failed.
pub fn install(
    runner: &dyn Runner,
    packages: &Map<String, Value>,
    downloads: &Path,
) -> Result<String, CommandFailed> {
    let mut said = String::new();
    apt(runner, &names(packages.get("apt")), &mut said)?;
    for snap in packages
        .get("snap")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        snap_install(runner, snap, &mut said)?;
    }
    for url in names(packages.get("url")) {
        fetch(runner, &url, downloads, &mut said)?;
    }
    Ok(said)
}

fn keep(said: &mut String, output: &Output) {
    said.push_str(&output.stdout);
    said.push_str(&output.stderr);
}

fn apt_get(arguments: &[&str]) -> Cmd {
    let mut argv = vec!["apt-get", "-qy", "-o", "DPkg::Lock::Timeout=120"];
    argv.extend(arguments);
    let mut cmd = Cmd::new(&argv).env("DEBIAN_FRONTEND", "noninteractive");
    cmd.limit = LIMIT;
    cmd
}

fn apt(runner: &dyn Runner, packages: &[String], said: &mut String) -> Result<(), CommandFailed> {
    let installed = |name: &String| {
        let output = runner.run(&Cmd::new(&["dpkg-query", "-W", "-f=${Status}", name]), None);
        output.end == End::Exited(0) && output.stdout.contains("install ok installed")
    };
    let missing: Vec<&str> = packages
        .iter()
        .filter(|p| !installed(p))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["install", "--no-install-recommends", "--"];
    arguments.extend(&missing);
    let first = runner.run(&apt_get(&arguments), None);
    keep(said, &first);
    if first.end == End::Exited(0) {
        return Ok(());
    }
    // The lists of an ephemeral system are empty or old.
    keep(said, &must(runner, &apt_get(&["update"]))?);
    keep(said, &must(runner, &apt_get(&arguments))?);
    Ok(())
}

fn snap_install(runner: &dyn Runner, snap: &Value, said: &mut String) -> Result<(), CommandFailed> {
    let text = |key: &str| {
        snap.get(key)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
    };
    let Some(name) = snap.as_str().or_else(|| text("name")) else {
        return Ok(());
    };
    let mut argv = vec!["snap".to_owned(), "install".to_owned(), name.to_owned()];
    argv.extend(text("channel").map(|c| format!("--channel={c}")));
    match text("mode") {
        Some("classic") => argv.push("--classic".to_owned()),
        Some("dev" | "devmode") => argv.push("--devmode".to_owned()),
        Some("jail" | "jailmode") => argv.push("--jailmode".to_owned()),
        _ => {}
    }
    let mut cmd = Cmd::new(&argv);
    cmd.limit = LIMIT;
    keep(said, &must(runner, &cmd)?);
    Ok(())
}

fn fetch(
    runner: &dyn Runner,
    url: &str,
    downloads: &Path,
    said: &mut String,
) -> Result<(), CommandFailed> {
    let name = url
        .split(['?', '#'])
        .next()
        .and_then(|u| u.rsplit('/').next())
        .filter(|n| !n.is_empty() && *n != "..")
        .unwrap_or("download");
    let path = downloads.join(name);
    let (path, dir) = (path.to_string_lossy(), downloads.to_string_lossy());
    let argv: Vec<&str> = if runner.has("curl") {
        vec!["curl", "-fsSL", "-o", &path, "--", url]
    } else {
        vec!["wget", "-q", "-O", &path, "--", url]
    };
    let mut cmd = Cmd::new(&argv);
    cmd.limit = LIMIT;
    keep(said, &must(runner, &cmd)?);
    let archive = [
        ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2",
    ]
    .iter()
    .any(|e| name.ends_with(e));
    let then: Option<Cmd> = if archive {
        Some(Cmd::new(&["tar", "-xf", &path, "-C", &dir]))
    } else if name.ends_with(".zip") {
        Some(Cmd::new(&["unzip", "-qo", &path, "-d", &dir]))
    } else if name.ends_with(".deb") {
        Some(apt_get(&["install", "--", &path]))
    } else if name.ends_with(".snap") {
        Some(Cmd::new(&["snap", "install", "--dangerous", &path]))
    } else {
        None
    };
    if let Some(cmd) = then {
        keep(said, &must(runner, &cmd)?);
    }
    Ok(())
}
