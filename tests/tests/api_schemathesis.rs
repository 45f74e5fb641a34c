//! schemathesis reads the OpenAPI document of our own face and calls every operation in it: no answer is a fault
//! of the server, and none has a status that the document does not name.
#![cfg(feature = "peers")]

use std::path::Path;
use std::process::Command;

use steelyard_tests::Engine;
use steelyard_tests::front::{ADMIN, Front, now};

/// Requests made for each operation.
const EXAMPLES: &str = "3";
/// The same requests in each run.
const SEED: &str = "1";

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_fault_of_the_server_and_no_undocumented_status() {
    let f = Front::start(Engine::Sqlite).await;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = here
        .parent()
        .expect("the workspace")
        .join("target/peers/schemathesis/bin/st");
    assert!(
        program.exists(),
        "{} is missing: run scripts/install-python",
        program.display()
    );
    let document = f.dir.path().join("openapi.json");
    let text = f
        .nobody()
        .get("/api/v1/openapi.json")
        .await
        .expect(200)
        .text();
    std::fs::write(&document, &text).expect("the document is written");
    let key = region::user::api_key(&f.region, ADMIN.0, now())
        .await
        .expect("a key")
        .joined();
    let mut command = Command::new(program);
    command
        .current_dir(f.dir.path())
        .env("PYTHONPATH", here.join("tests/schemathesis"))
        .env("SCHEMATHESIS_HOOKS", "signed")
        .env("STEELYARD_API_KEY", key)
        .args(["run", "openapi.json", "--url", &format!("{}/api/v1", f.url)])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args([
            "--phases",
            "fuzzing",
            "--max-examples",
            EXAMPLES,
            "--seed",
            SEED,
        ])
        .args(["--continue-on-failure", "--no-color"]);
    let out = tokio::task::spawn_blocking(move || command.output().expect("schemathesis runs"))
        .await
        .expect("it ends");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    // It did look: every operation of the document.
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let methods = ["get", "put", "post", "delete", "patch"];
    let of = |p: &serde_json::Value| methods.iter().filter(|m| p.get(*m).is_some()).count();
    let operations: usize = paths.values().map(of).sum();
    assert!(
        operations > 300 && said.contains(&format!("{operations}/{operations}")),
        "{operations}: {said}"
    );
    f.stop().await;
}
