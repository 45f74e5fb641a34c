//! Puts the agents into the program: where `STEELYARD_EMBED_AGENTS` names a directory with
//! `steelyard-agent-<architecture>`, their bytes are compiled in. Without it the program has none and
//! looks for them in files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

fn main() {
    println!("cargo::rerun-if-env-changed=STEELYARD_EMBED_AGENTS");
    let mut list = String::new();
    if let Some(dir) = env::var_os("STEELYARD_EMBED_AGENTS").filter(|d| !d.is_empty()) {
        let dir = fs::canonicalize(&dir).unwrap_or_else(|e| {
            panic!("STEELYARD_EMBED_AGENTS={}: {e}", Path::new(&dir).display())
        });
        for architecture in ARCHITECTURES {
            let file = dir.join(format!("steelyard-agent-{architecture}"));
            println!("cargo::rerun-if-changed={}", file.display());
            assert!(
                file.is_file(),
                "STEELYARD_EMBED_AGENTS: {} is missing",
                file.display()
            );
            writeln!(list, "    ({architecture:?}, include_bytes!({file:?})),")
                .expect("writing to memory");
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let text = format!(
        "/// The agents compiled in, by architecture.\npub const EMBEDDED: &[(&str, &[u8])] = &[\n{list}];\n"
    );
    fs::write(out.join("embedded.rs"), text).expect("the build directory is writable");
}
