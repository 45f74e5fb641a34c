//! The product with a simulated fleet: machines from enlistment to release, through the REST API alone.

use std::time::Duration;

use fleet::{Fault, Fleet, Phase};
use futures::future::join_all;
use serde_json::Value;
use steelyard_tests::{Engine, Options, TestCluster, until};

const LIMIT: Duration = Duration::from_secs(120);

/// The machine of the API with each machine's address.
async fn system_ids(c: &TestCluster, fleet: &Fleet) -> Vec<String> {
    until("every machine is known", || async {
        let machines = c.admin.get("machines/").await.good();
        let machines = machines.as_array().expect("a list");
        let id_of = |mac: &str| {
            let has = |m: &&Value| {
                m["interface_set"]
                    .as_array()
                    .is_some_and(|i| i.iter().any(|i| i["mac_address"] == mac))
            };
            machines
                .iter()
                .find(has)
                .and_then(|m| m["system_id"].as_str().map(str::to_owned))
        };
        let found: Vec<String> = (0..fleet.len())
            .filter_map(|i| id_of(&fleet.hardware(i).mac().to_string()))
            .collect();
        if found.len() == fleet.len() {
            Ok(found)
        } else {
            Err(format!("{} of {}", found.len(), fleet.len()))
        }
    })
    .await
}

/// Waits until every machine has a status.
async fn all_are(c: &TestCluster, ids: &[String], status: &str) {
    join_all(ids.iter().map(|id| c.machine_with_status(id, status))).await;
}

async fn all_off(fleet: &Fleet) {
    for i in 0..fleet.len() {
        fleet.wait_phase(i, Phase::Off, LIMIT).await.unwrap();
    }
}

async fn op(c: &TestCluster, id: &str, op: &str, fields: &[(&str, &str)]) -> Value {
    // This client tries again where twenty changes at once get into each other's way.
    c.fleet_api()
        .op(&format!("machines/{id}/"), op, fields)
        .await
        .unwrap_or_else(|e| panic!("{op} {id}: {e}"))
}

/// Enlists every machine of a fleet and tells the region of the BMCs.
async fn enlist(c: &TestCluster, fleet: &Fleet) -> Vec<String> {
    fleet.press_all(Duration::ZERO).await;
    let ids = system_ids(c, fleet).await;
    all_off(fleet).await;
    all_are(c, &ids, "New").await;
    assert_eq!(
        fleet::demo::adopt(&c.fleet_api(), fleet).await.unwrap(),
        fleet.len()
    );
    ids
}

async fn life(engine: Engine, count: usize) {
    let c = TestCluster::start(Options {
        engine,
        ..Options::default()
    })
    .await;
    c.import_images().await;
    fleet::demo::describe_network(&c.fleet_api()).await.unwrap();
    let fleet = c.fleet(count).await;

    // Enlisted, with the inventory of what they are made of.
    let ids = enlist(&c, &fleet).await;
    for (i, id) in ids.iter().enumerate() {
        let (machine, hardware) = (
            c.admin.get(&format!("machines/{id}/")).await.good(),
            fleet.hardware(i),
        );
        assert_eq!(machine["cpu_count"], hardware.cpu_count(), "{id}");
        assert_eq!(machine["memory"], hardware.memory >> 20, "{id}");
        assert_eq!(
            machine["interface_set"].as_array().map(Vec::len),
            Some(hardware.nics.len()),
            "{id}"
        );
        assert_eq!(
            machine["physicalblockdevice_set"].as_array().map(Vec::len),
            Some(hardware.disks.len()),
            "{id}"
        );
        assert_eq!(machine["hardware_info"]["system_vendor"], "Steelyard");
        assert_eq!(
            machine["hardware_uuid"].as_str(),
            Some(hardware.uuid.as_str())
        );
        assert_eq!(
            machine["hostname"].as_str(),
            Some(hardware.hostname.as_str())
        );
        assert!(
            machine["tag_names"]
                .as_array()
                .unwrap()
                .contains(&"simulated".into()),
            "{id}"
        );
    }

    // Commissioned, switched on over their BMCs.
    join_all(ids.iter().map(|id| op(&c, id, "commission", &[]))).await;
    all_are(&c, &ids, "Ready").await;
    all_off(&fleet).await;

    // Allocated and deployed.
    join_all(ids.iter().map(|id| async {
        c.fleet_api()
            .op("machines/", "allocate", &[("system_id", id)])
            .await
            .unwrap()
    }))
    .await;
    all_are(&c, &ids, "Allocated").await;
    join_all(ids.iter().map(|id| op(&c, id, "deploy", &[]))).await;
    all_are(&c, &ids, "Deployed").await;
    for i in 0..fleet.len() {
        let state = fleet.wait_phase(i, Phase::Running, LIMIT).await.unwrap();
        assert_eq!(
            state.installed.as_deref(),
            Some(fleet.hardware(i).hostname.as_str())
        );
    }
    let counters = fleet.counters();
    assert_eq!(
        (
            counters.enlistments,
            counters.installations,
            counters.deployments
        ),
        (count as u64, count as u64, count as u64)
    );

    // Released: powered off and ready again.
    join_all(ids.iter().map(|id| op(&c, id, "release", &[]))).await;
    all_are(&c, &ids, "Ready").await;
    all_off(&fleet).await;
    for id in &ids {
        let machine = c.admin.get(&format!("machines/{id}/")).await.good();
        assert_eq!(
            (&machine["owner"], machine["power_state"].as_str()),
            (&Value::Null, Some("off")),
            "{id}"
        );
    }
    fleet.stop().await;
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_machines_live_from_enlistment_to_release_on_sqlite() {
    life(Engine::Sqlite, 20).await;
}

#[cfg(feature = "peers")]
#[tokio::test(flavor = "multi_thread")]
async fn twenty_machines_live_from_enlistment_to_release_on_postgres() {
    life(Engine::Postgres, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_script_fails_the_commissioning_and_is_named() {
    let c = TestCluster::start(Options::default()).await;
    c.import_images().await;
    // Kernels and roots are of no interest: parts of them will do.
    let fleet = c
        .fleet_with(1, |f| f.transfer = fleet::config::Transfer::Light)
        .await;
    let ids = enlist(&c, &fleet).await;
    fleet.inject(
        0,
        Fault::ScriptFails {
            script: "maas-lshw".into(),
            exit_status: 3,
        },
    );
    op(&c, &ids[0], "commission", &[]).await;
    c.machine_with_status(&ids[0], "Failed commissioning").await;
    let results = c
        .admin
        .get(&format!("nodes/{}/results/current-commissioning/", ids[0]))
        .await
        .good();
    let failed: Vec<&Value> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["exit_status"] == 3)
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["name"], "maas-lshw");
    fleet.stop().await;
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_does_not_get_a_machines_preseed() {
    let c = TestCluster::start(Options::default()).await;
    c.import_images().await;
    let fleet = c.fleet(2).await;
    let ids = enlist(&c, &fleet).await;
    // One machine stays in the ephemeral system: the other host asks for its preseed meanwhile.
    fleet.inject(0, Fault::NoMetadataRoute);
    op(&c, &ids[0], "commission", &[]).await;
    fleet.wait_phase(0, Phase::Stuck, LIMIT).await.unwrap();
    let url = format!(
        "http://{}/MAAS/metadata/latest/by-id/{}/?op=get_preseed",
        c.rack_http(),
        ids[0]
    );
    let stranger = reqwest::Client::builder()
        .no_proxy()
        .local_address(std::net::IpAddr::from([127, 1, 99, 99]))
        .build()
        .unwrap();
    assert_eq!(stranger.get(&url).send().await.unwrap().status(), 403);
    let machine = reqwest::Client::builder()
        .no_proxy()
        .local_address(std::net::IpAddr::from([127, 1, 0, 1]))
        .build()
        .unwrap();
    assert_eq!(machine.get(&url).send().await.unwrap().status(), 200);
    fleet.stop().await;
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demonstration_brings_machines_that_a_newcomer_can_deploy() {
    let c = TestCluster::start(Options::default()).await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let config = fleet::demo::DemoConfig {
        region_url: c.url.clone(),
        api_key: c.key.clone(),
        rack_http: c.rack_http(),
        machines: 3,
        stream_dir: c.dir.path().join("demo-stream"),
        timing: fleet::config::Timing::none(),
    };
    let demo = tokio::spawn(fleet::demo::run(config.clone(), cancel.clone()));
    let ids = until("three machines can be switched", || async {
        let all = c.admin.get("machines/").await.good();
        let ready = |m: &&Value| {
            m["status_name"] == "New"
                && m["power_type"] == "ipmi"
                && m["tag_names"] == serde_json::json!(["simulated"])
        };
        let ids: Vec<String> = all
            .as_array()
            .unwrap()
            .iter()
            .filter(ready)
            .filter_map(|m| m["system_id"].as_str().map(str::to_owned))
            .collect();
        if ids.len() == 3 {
            Ok(ids)
        } else {
            Err(format!("{}", ids.len()))
        }
    })
    .await;
    op(&c, &ids[0], "commission", &[]).await;
    c.machine_with_status(&ids[0], "Ready").await;
    op(&c, &ids[0], "deploy", &[]).await;
    c.machine_with_status(&ids[0], "Deployed").await;
    op(&c, &ids[0], "release", &[]).await;
    c.machine_with_status(&ids[0], "Ready").await;
    cancel.cancel();
    demo.await.unwrap().unwrap();

    // Started again on the same data, its BMCs are new ones; the machines that are known can be switched as before.
    let cancel = tokio_util::sync::CancellationToken::new();
    let addresses = async || -> Vec<Value> {
        let mut all = Vec::new();
        for id in &ids {
            let path = format!("machines/{id}/");
            let asked = c.admin.ask(&path, "power_parameters", &[]).await.good();
            all.push(asked["power_address"].clone());
        }
        all
    };
    let before = addresses().await;
    let demo = tokio::spawn(fleet::demo::run(config, cancel.clone()));
    until("the new BMCs are known", || async {
        let now = addresses().await;
        if now.iter().zip(&before).all(|(new, old)| new != old) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    op(&c, &ids[0], "deploy", &[]).await;
    c.machine_with_status(&ids[0], "Deployed").await;
    op(&c, &ids[1], "commission", &[]).await;
    c.machine_with_status(&ids[1], "Ready").await;
    let machines = c.admin.get("machines/").await.good();
    assert_eq!(
        machines.as_array().map(Vec::len),
        Some(3),
        "nobody enlists twice"
    );
    cancel.cancel();
    demo.await.unwrap().unwrap();
    c.stop().await;
}
