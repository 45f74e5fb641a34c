//! Faults injected into simulated machines: each is told from the others, with the sentence and the remedy of the
//! checked-in table. The lab scenario `faults` does the same with real firmware, and with the two that need it: a
//! loader that does not fit the firmware, and one that gets no kernel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::{BmcFault, Fault, Fleet, Phase};
use metal::verdict::table::{self, Cause};
use sha2::{Digest as _, Sha256};
use steelyard_tests::{Engine, Options, TestCluster, until};

const LIMIT: Duration = Duration::from_secs(120);
/// Seconds that a machine may be silent: far longer than a simulated machine takes to its fault.
const SILENCE_S: &str = "15";

/// Adds each machine of a fleet, with its BMC; the first boot of each is then its commissioning.
async fn add(c: &TestCluster, fleet: &Fleet) -> Vec<String> {
    let mut ids = Vec::new();
    for i in 0..fleet.len() {
        let (mac, power) = (
            fleet.hardware(i).mac().to_string(),
            fleet.power_parameters(i).to_string(),
        );
        let fields = [
            ("architecture", "amd64/generic"),
            ("mac_addresses", mac.as_str()),
            ("power_type", "ipmi"),
            ("power_parameters", power.as_str()),
            ("commission", "false"),
        ];
        let made = c.admin.create("machines/", &fields).await.good();
        ids.push(made["system_id"].as_str().expect("an id").to_owned());
    }
    ids
}

async fn commission(c: &TestCluster, id: &str) {
    let path = format!("machines/{id}/");
    drop(c.admin.op(&path, "commission", &[]).await.good());
}

/// The region's file of the root image of ephemeral systems.
fn root_image(c: &TestCluster) -> PathBuf {
    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("the stream is there") {
            let path = entry.expect("the stream can be listed").path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    files(&c.dir.path().join("stream"), &mut found);
    let image = found
        .iter()
        .find(|p| p.ends_with("squashfs"))
        .expect("the stream has a root image");
    let bytes = std::fs::read(image).expect("the root image can be read");
    let held = c
        .dir
        .path()
        .join("region/images")
        .join(hex::encode(Sha256::digest(bytes)));
    assert!(held.exists(), "{}", held.display());
    held
}

/// Flips a bit in the middle of a file; a second time it is as it was.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("the file can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("the file can be written");
}

/// Waits until a machine has failed, and compares what is said of it with the table.
async fn failed_with(c: &TestCluster, id: &str, cause: Cause) -> String {
    until(&format!("{id} has failed ({})", cause.code), || async {
        let m = c.admin.get(&format!("machines/{id}/")).await.good();
        match m["status_name"].as_str() {
            Some("Failed commissioning") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let machine = c.admin.get(&format!("machines/{id}/")).await.good();
    let said = machine["error_description"]
        .as_str()
        .expect("a text")
        .to_owned();
    let boots = c
        .admin
        .get(&format!("/api/v1/machines/{id}/boots"))
        .await
        .good();
    for part in [cause.sentence, cause.remedy, "Last seen: "] {
        assert!(
            said.contains(part),
            "{}: {part:?} is not in {said:?}; {:#}",
            cause.code,
            boots["boots"]
        );
    }
    for other in table::ALL.iter().filter(|o| o.code != cause.code) {
        assert!(
            !said.contains(other.sentence),
            "{} is also {}: {said:?}",
            cause.code,
            other.code
        );
    }
    assert_eq!(
        boots["boots"][0]["verdict"]["code"], cause.code,
        "{said:?}: {:#}",
        boots["boots"][0]
    );
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_has_a_verdict_of_its_own() {
    let c = TestCluster::start(Options {
        engine: Engine::Sqlite,
        ..Options::default()
    })
    .await;
    c.import_images().await;
    let set = [("name", "node_timeout_seconds"), ("value", SILENCE_S)];
    drop(c.admin.op("maas/", "set_config", &set).await.expect(200));
    // A self test, as every machine has: it is silent while its BMC says that it took the command.
    let fleet = c
        .fleet_with(5, |f| f.timing.post = Duration::from_millis(200))
        .await;
    let ids = add(&c, &fleet).await;

    // The altered image first: no rack has it yet.
    let image = root_image(&c);
    flip(&image);
    commission(&c, &ids[0]).await;
    let mut said = BTreeSet::from([failed_with(&c, &ids[0], table::IMAGE_ALTERED).await]);
    flip(&image);

    fleet.inject(1, Fault::StopBeforeRequest);
    fleet.inject(2, Fault::NoMetadataRoute);
    fleet.inject(3, Fault::RefusedCredentials);
    fleet.inject_bmc(4, BmcFault::OtherPassword);
    let causes = [
        table::NO_REQUEST,
        table::NO_METADATA,
        table::REFUSED,
        table::POWER_AUTH,
    ];
    for id in &ids[1..] {
        commission(&c, id).await;
    }
    for (id, cause) in ids[1..].iter().zip(causes) {
        said.insert(failed_with(&c, id, cause).await);
    }
    assert_eq!(said.len(), ids.len(), "no two share a verdict: {said:#?}");

    // With the image as it was, and no fault, the first machine is commissioned.
    let set = [("name", "node_timeout_seconds"), ("value", "0")];
    drop(c.admin.op("maas/", "set_config", &set).await.expect(200));
    commission(&c, &ids[0]).await;
    c.machine_with_status(&ids[0], "Ready").await;
    fleet
        .wait_phase(0, Phase::Off, LIMIT)
        .await
        .expect("it is switched off");
    fleet.stop().await;
    c.stop().await;
}
