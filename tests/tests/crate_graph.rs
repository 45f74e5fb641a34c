//! Who may depend on whom, and what may not be in the repository at all.
//!
//! The boundaries of `ARCHITECTURE.md` as tests over what cargo itself says of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most lines of a source file; longer ones are named, with their length, in [`LONG_FILES`].
const MAX_LINES: usize = 800;
/// The files that are longer for now: a path and the lines it may have. The list only gets shorter.
const LONG_FILES: &str = "tests/long_files.txt";
/// TLS and cryptography that must not come in beside rustls with ring.
const SECOND_TLS: [&str; 8] = [
    "openssl",
    "openssl-sys",
    "native-tls",
    "aws-lc-rs",
    "aws-lc-sys",
    "aws-lc-fips-sys",
    "boring",
    "boring-sys",
];
/// Directories that hold what was made, not what was written.
const NOT_OURS: [&str; 7] = [
    ".git",
    "target",
    "fuzz/target",
    "fuzz/corpus",
    "fuzz/artifacts",
    "node_modules",
    "__pycache__",
];

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("this package is a directory of the workspace")
        .to_path_buf()
}

fn cargo(args: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(args)
        .args(["--offline", "--color", "never"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {complaint}");
    String::from_utf8(output.stdout).expect("cargo speaks UTF-8")
}

/// Each package of the workspace with the packages of the workspace that it is built from, without those
/// of its tests.
struct Graph {
    direct: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: serde_json::Value = serde_json::from_str(&text).expect("metadata is JSON");
        let packages = metadata["packages"].as_array().expect("packages");
        let name = |p: &serde_json::Value| p["name"].as_str().expect("a name").to_owned();
        let members: BTreeSet<String> = packages.iter().map(name).collect();
        let mut direct = BTreeMap::new();
        for package in packages {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let of_workspace = dependencies
                .iter()
                .filter(|d| d["kind"].as_str() != Some("dev"))
                .map(name)
                .filter(|n| members.contains(n))
                .collect();
            direct.insert(name(package), of_workspace);
        }
        Self { direct }
    }

    /// Everything of the workspace that a package is built from.
    fn all(&self, package: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut next = vec![package.to_owned()];
        while let Some(p) = next.pop() {
            let direct = self
                .direct
                .get(&p)
                .unwrap_or_else(|| panic!("there is no crate {p}"));
            next.extend(
                direct
                    .iter()
                    .filter(|d| found.insert((*d).clone()))
                    .cloned(),
            );
        }
        found
    }

    fn wire(&self) -> Vec<String> {
        let wire: Vec<String> = self
            .direct
            .keys()
            .filter(|n| n.starts_with("wire-"))
            .cloned()
            .collect();
        assert!(wire.len() >= 5, "the wire crates are there: {wire:?}");
        wire
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// Every package that a package is built from on this host, from anywhere, without those of its tests.
fn built_from(package: &str) -> BTreeSet<String> {
    let tree = cargo(&[
        "tree",
        "--package",
        package,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--no-dedupe",
    ]);
    let names: BTreeSet<String> = tree
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(names.contains(package), "the tree of {package} was read");
    names
}

#[test]
fn a_rack_needs_neither_region_nor_database() {
    let rack = Graph::read().all("rack");
    assert!(rack.contains("link") && rack.contains("metal"), "{rack:?}");
    for forbidden in [
        "region",
        "store",
        "wire-simplestreams",
        "steelyard",
        "fleet",
    ] {
        assert!(!rack.contains(forbidden), "rack depends on {forbidden}");
    }
    let everything = built_from("rack");
    for forbidden in ["sqlx", "sqlx-core", "libsqlite3-sys"] {
        assert!(
            !everything.contains(forbidden),
            "rack depends on {forbidden}"
        );
    }
}

#[test]
fn the_domain_imports_nobody() {
    assert_eq!(Graph::read().all("metal"), set(&[]));
    let everything = built_from("metal");
    for forbidden in ["tokio", "sqlx", "rand", "libc", "rustix"] {
        assert!(
            !everything.contains(forbidden),
            "metal depends on {forbidden}"
        );
    }
}

#[test]
fn protocols_know_neither_each_other_nor_the_product() {
    let graph = Graph::read();
    for wire in graph.wire() {
        assert_eq!(graph.all(&wire), set(&[]), "{wire}");
    }
}

#[test]
fn protocols_do_no_input_or_output() {
    for wire in Graph::read().wire() {
        let everything = built_from(&wire);
        for forbidden in [
            "tokio", "mio", "socket2", "hyper", "reqwest", "ureq", "sqlx", "rustls",
        ] {
            assert!(
                !everything.contains(forbidden),
                "{wire} depends on {forbidden}"
            );
        }
    }
}

#[test]
fn database_and_protocols_never_meet() {
    let graph = Graph::read();
    assert_eq!(graph.all("store"), set(&["metal"]));
    // Those that put the two together are the composition and the region, which reads image streams.
    for package in graph.direct.keys() {
        let all = graph.all(package);
        let wires: Vec<&String> = all.iter().filter(|n| n.starts_with("wire-")).collect();
        if all.contains("store") && !wires.is_empty() {
            let allowed = match package.as_str() {
                "steelyard" | "steelyard-tests" => continue,
                "region" => set(&["wire-simplestreams"]),
                _ => set(&[]),
            };
            let met: BTreeSet<String> = wires.into_iter().cloned().collect();
            assert_eq!(met, allowed, "{package} knows the database and protocols");
        }
    }
}

#[test]
fn region_and_rack_meet_only_in_the_program() {
    let graph = Graph::read();
    for package in graph.direct.keys() {
        let all = graph.all(package);
        if all.contains("region") && all.contains("rack") {
            let composition = ["steelyard", "steelyard-tests"].contains(&package.as_str());
            assert!(composition, "{package} depends on both region and rack");
        }
    }
    assert_eq!(graph.all("link"), set(&["metal"]));
}

#[test]
fn the_agent_is_small() {
    assert_eq!(Graph::read().all("agent"), set(&["metal"]));
    let everything = built_from("agent");
    for forbidden in [
        "tokio", "ring", "rustls", "hyper", "reqwest", "sqlx", "clap", "regex",
    ] {
        assert!(
            !everything.contains(forbidden),
            "the agent depends on {forbidden}"
        );
    }
}

#[test]
fn there_is_one_tls() {
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let text = std::fs::read_to_string(root().join(lock)).expect(lock);
        let names: BTreeSet<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("name = \"")?.strip_suffix('"'))
            .collect();
        assert!(names.contains("thiserror"), "{lock} was read");
        for forbidden in SECOND_TLS {
            assert!(!names.contains(forbidden), "{lock} has {forbidden}");
        }
    }
}

// ---- what we are built from: deny.toml, without the database of advisories and without a network ----

/// Where packages may come from, beside the workspace.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What `deny.toml` says.
struct Deny {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    banned: BTreeMap<String, String>,
}

impl Deny {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
        let all: toml::Table = text.parse().expect("deny.toml is TOML");
        let texts = |section: &str, key: &str| -> Vec<String> {
            let list = all[section][key].as_array().expect("a list");
            list.iter()
                .map(|t| t.as_str().expect("a text").to_owned())
                .collect()
        };
        // This test knows no other way to let something in.
        let sections = |s: &str| -> BTreeSet<String> {
            let table = all[s].as_table().expect("a section");
            table.keys().cloned().collect()
        };
        assert_eq!(sections("licenses"), set(&["allow"]));
        assert_eq!(
            sections("sources"),
            set(&["unknown-git", "unknown-registry"])
        );
        let banned = all["bans"]["deny"].as_array().expect("a list");
        let text = |v: &toml::Value, key: &str| v[key].as_str().expect("a text").to_owned();
        Self {
            targets: texts("graph", "targets"),
            licences: texts("licenses", "allow").into_iter().collect(),
            banned: banned
                .iter()
                .map(|b| (text(b, "crate"), text(b, "reason")))
                .collect(),
        }
    }

    /// Every package for any of the targets, with all features, and with what only tests need, by name and version.
    fn packages(&self) -> BTreeMap<(String, String), serde_json::Value> {
        let mut found = BTreeMap::new();
        for target in &self.targets {
            let text = cargo(&[
                "metadata",
                "--locked",
                "--format-version",
                "1",
                "--all-features",
                "--filter-platform",
                target,
            ]);
            let metadata: serde_json::Value =
                serde_json::from_str(&text).expect("metadata is JSON");
            for package in metadata["packages"].as_array().expect("packages") {
                let text = |key: &str| package[key].as_str().expect("a text").to_owned();
                found.insert((text("name"), text("version")), package.clone());
            }
        }
        assert!(found.len() > 100, "the packages were read");
        found
    }

    /// Whether a licence expression (SPDX, and the slash of older packages) can be met with what is allowed.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut left = words.as_slice();
        let met = self.any(&mut left);
        assert!(left.is_empty(), "{expression:?} is no licence expression");
        met
    }

    fn any(&self, words: &mut &[&str]) -> bool {
        let mut met = self.every(words);
        while let ["OR", rest @ ..] = *words {
            *words = rest;
            met |= self.every(words);
        }
        met
    }

    fn every(&self, words: &mut &[&str]) -> bool {
        let mut met = self.one(words);
        while let ["AND", rest @ ..] = *words {
            *words = rest;
            met &= self.one(words);
        }
        met
    }

    fn one(&self, words: &mut &[&str]) -> bool {
        match *words {
            ["(", rest @ ..] => {
                *words = rest;
                let met = self.any(words);
                *words = words
                    .strip_prefix(&[")"])
                    .expect("a bracket that is closed");
                met
            }
            [name, "WITH", exception, rest @ ..] => {
                *words = rest;
                self.licences.contains(&format!("{name} WITH {exception}"))
            }
            [name, rest @ ..] => {
                *words = rest;
                self.licences.contains(*name)
            }
            [] => panic!("a licence is missing in an expression"),
        }
    }
}

#[test]
fn licence_expressions_are_read() {
    let deny = Deny::read();
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "Unlicense OR MIT",
        "GPL-3.0 OR (MIT AND ISC)",
        "Apache-2.0 WITH LLVM-exception",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ] {
        assert!(deny.allows(good), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT OR Apache-2.0 AND GPL-3.0 AND ISC OR AGPL-3.0 AND MIT",
        "(MIT OR Apache-2.0) AND MPL-2.0",
        "GPL-2.0 WITH Classpath-exception-2.0",
    ] {
        // "AND" binds closer than "OR".
        assert_eq!(deny.allows(bad), bad.starts_with("MIT OR"), "{bad}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let deny = Deny::read();
    let wrong: Vec<String> = deny
        .packages()
        .iter()
        .filter(|(_, p)| !p["license"].as_str().is_some_and(|l| deny.allows(l)))
        .map(|((name, version), p)| format!("{name} {version}: {}", p["license"]))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_dependency_is_banned_or_from_elsewhere() {
    let deny = Deny::read();
    let mut wrong = Vec::new();
    for ((name, version), package) in deny.packages() {
        if let Some(reason) = deny.banned.get(&name) {
            wrong.push(format!("{name} {version} is banned: {reason}"));
        }
        match package["source"].as_str() {
            Some(REGISTRY) => {}
            Some(source) => wrong.push(format!("{name} {version} comes from {source}")),
            // One of ours: each of its dependencies says which version it needs, or is ours as well.
            None => {
                let dependencies = package["dependencies"].as_array().expect("dependencies");
                let any = dependencies
                    .iter()
                    .filter(|d| d["req"] == "*" && d["path"].is_null());
                wrong.extend(any.map(|d| format!("{name} takes any version of {}", d["name"])));
                let manifest = package["manifest_path"].as_str().expect("a path");
                if !Path::new(manifest).starts_with(root()) {
                    wrong.push(format!("{name} is outside of the repository"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

// ---- the repository ----

/// Every text file below the root that somebody wrote, with its path from there.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut next = vec![root.clone()];
    while let Some(dir) = next.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of the repository") {
            let entry = entry.expect("an entry");
            let path = entry.path();
            let relative = path
                .strip_prefix(&root)
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            let name = entry.file_name().to_string_lossy().into_owned();
            if NOT_OURS.contains(&relative.as_str()) || NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                next.push(path);
            } else if kind.is_file()
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((relative, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 100, "the repository was read");
    found
}

fn is_source(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Lines with one of the needles, as `path:line: needle`.
fn lines_with(needles: &[String], of: impl Fn(&str) -> bool) -> Vec<String> {
    let mut hits = Vec::new();
    for (path, text) in files().iter().filter(|(p, _)| of(p)) {
        for (number, line) in text.lines().enumerate() {
            for needle in needles.iter().filter(|n| line.contains(n.as_str())) {
                hits.push(format!("{path}:{}: {needle}", number + 1));
            }
        }
    }
    hits
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Put together here, so that this file does not hold them.
    let needles = [
        ["/work", "/main"],
        ["/work", "/shared"],
        ["/work", "/.library"],
        ["/root/", ".cargo"],
        ["/root/", ".rustup"],
        [".rustup/", "toolchains/"],
    ]
    .map(|parts| parts.concat());
    assert_eq!(lines_with(&needles, |_| true), Vec::<String>::new());
}

#[test]
fn nothing_is_left_open() {
    let needles =
        [["todo", "!("], ["unimplemented", "!("], ["#[", "ignore"]].map(|parts| parts.concat());
    assert_eq!(lines_with(&needles, is_source), Vec::<String>::new());
}

#[test]
fn files_are_short_and_the_list_of_exceptions_only_gets_shorter() {
    let list = std::fs::read_to_string(root().join(LONG_FILES)).expect(LONG_FILES);
    let mut allowed: BTreeMap<&str, usize> = list
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|l| {
            let (path, lines) = l.split_once(' ').expect("a path and a number");
            (path, lines.trim().parse().expect("a number of lines"))
        })
        .collect();
    let mut wrong = Vec::new();
    for (path, text) in files().iter().filter(|(p, _)| is_source(p)) {
        let lines = text.lines().count();
        match allowed.remove(path.as_str()) {
            None if lines > MAX_LINES => wrong.push(format!(
                "{path} has {lines} lines: split it by noun or by state"
            )),
            Some(_) if lines <= MAX_LINES => wrong.push(format!(
                "{path} has {lines} lines: take it off {LONG_FILES}"
            )),
            Some(most) if lines > most => wrong.push(format!(
                "{path} grew from {most} to {lines} lines: split it"
            )),
            Some(most) if most > lines => {
                wrong.push(format!("{path} has {lines} lines: say so in {LONG_FILES}"))
            }
            None | Some(_) => {}
        }
    }
    wrong.extend(
        allowed
            .keys()
            .map(|path| format!("{path} is gone: take it off {LONG_FILES}")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
