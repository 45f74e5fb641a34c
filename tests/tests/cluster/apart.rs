//! A rack process beside a region process: enrolment, changes, and the time without the region.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use fleet::preseed::Preseed;
use fleet::{Fault, Phase};
use steelyard_tests::until;

use crate::processes::{Place, RackProcess, RegionProcess, enlist, status_is};

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_enrols_once_and_is_told_of_changes() {
    let place = Place::new();
    let region = RegionProcess::start(&place, "region", None).await;
    let mut rack = RackProcess::new(&place);

    // Without a registration it says what to do.
    let (ok, said) = rack.run(&["up", "--role", "rack"]);
    assert!(
        !ok && said.contains("rack-secret") && said.contains("register-rack"),
        "{said}"
    );

    // The secret is all that is printed; it is good once.
    let secret = region.run(&["rack-secret", "--valid", "1h"]);
    assert_eq!(secret.split_whitespace().count(), 1, "{secret:?}");
    let (ok, said) = rack.register(&[&region], secret.trim(), &[]);
    assert!(ok && said.contains(&region.link.to_string()), "{said}");
    let identity = rack.files().join("identity.json");
    let mode = identity.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = std::fs::read(&identity).unwrap();
    let (ok, said) = rack.register(&[&region], secret.trim(), &[]);
    assert!(
        !ok && said.contains("registered already") && said.contains("--force"),
        "{said}"
    );
    let (ok, said) = rack.register(&[&region], secret.trim(), &["--force"]);
    assert!(!ok && said.contains("used before"), "{said}");
    assert_eq!(
        std::fs::read(&identity).unwrap(),
        first,
        "a refusal changes nothing"
    );

    rack.start_again().await;
    region.import_images(&place).await;
    region.set_kernel_opts("first-mark").await;
    rack.serves("first-mark").await;
    region.set_kernel_opts("second-mark").await;
    rack.serves("second-mark").await;
    let racks = region.api().get("rackcontrollers/", &[]).await.unwrap();
    assert_eq!(racks[0]["hostname"], "rack-1", "{racks}");
    let (ok, said) = rack.run(&["status"]);
    assert!(ok && said.contains(&region.link.to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_secret_and_one_of_another_installation_are_refused() {
    let place = Place::new();
    let region = RegionProcess::start(&place, "region", None).await;
    let other = RegionProcess::start(&place, "other", None).await;
    let rack = RackProcess::new(&place);
    let elsewhere = other.run(&["rack-secret"]);
    let (ok, said) = rack.register(&[&region], elsewhere.trim(), &[]);
    assert!(
        !ok && said.contains("not the one that made the secret"),
        "{said}"
    );
    let short = region.run(&["rack-secret", "--valid", "1s"]);
    until("the secret has expired", || async {
        // A registration that is in time ends the test: it would have to be within the second.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let (ok, said) = rack.register(&[&region], short.trim(), &[]);
        if !ok && said.contains("has expired") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    assert!(!rack.files().join("identity.json").exists());
}

/// Signs as the machine and signals through the rack.
async fn signal(preseed: &Preseed, message: &str) -> u16 {
    let url = format!(
        "{}2012-03-01/",
        preseed.metadata_url.as_deref().expect("an address")
    );
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let key = preseed.credentials.as_ref().expect("a key");
    let body =
        fleet::form::urlencoded(&[("op", "signal"), ("status", "WORKING"), ("error", message)]);
    let answer = machine_client()
        .post(url)
        .header("Authorization", key.header(now, &fleet::http::nonce()))
        .header("Content-Type", body.content_type)
        .body(body.bytes)
        .send()
        .await
        .expect("the rack answers");
    answer.status().as_u16()
}

fn machine_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .local_address(IpAddr::from([127, 1, 0, 1]))
        .build()
        .expect("a client")
}

/// How often the timeline of a machine has a signal with this message.
async fn signals(region: &RegionProcess, id: &str, message: &str) -> Result<u64, String> {
    let boots = region
        .api()
        .get(&format!("/api/v1/machines/{id}/boots"), &[])
        .await
        .map_err(|e| e.to_string())?;
    let entries = boots["boots"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|b| b["entries"].as_array().into_iter().flatten());
    Ok(entries
        .filter(|e| e["kind"] == "signal" && e["message"] == message)
        .map(|e| e["count"].as_u64().unwrap_or(0))
        .sum())
}

/// Waits until the command that switched a machine on is over and written down.
async fn switched_on(region: &RegionProcess, id: &str) {
    let api = region.api();
    until("the power command is over", || async {
        let machine = api.get(&format!("machines/{id}/"), &[]).await;
        let machine = machine.map_err(|e| e.to_string())?;
        if machine["power_state"] == "on" {
            Ok(())
        } else {
            Err(machine["power_state"].to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_region_a_rack_serves_and_keeps_signals_which_arrive_once() {
    let place = Place::new();
    let mut region = RegionProcess::start(&place, "region", None).await;
    region.import_images(&place).await;
    let mut rack = RackProcess::start(&place, &[&region]).await;
    region.set_kernel_opts("before-the-night").await;
    rack.serves("before-the-night").await;
    // A machine that is in the ephemeral system and says nothing by itself: the test speaks for it.
    let fleet = rack.fleet(1, |_| {}).await;
    let id = enlist(&region.api(), &fleet).await;
    fleet.inject(0, Fault::NoMetadataRoute);
    region
        .api()
        .op(&format!("machines/{id}/"), "commission", &[])
        .await
        .unwrap();
    fleet
        .wait_phase(0, Phase::Stuck, Duration::from_secs(60))
        .await
        .unwrap();
    switched_on(&region, &id).await;
    let url = format!(
        "http://{}/MAAS/metadata/latest/by-id/{id}/?op=get_preseed",
        rack.http
    );
    let text = machine_client()
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let preseed = Preseed::parse(&text).unwrap();

    region.kill();
    until("the rack knows that it is alone", || async {
        let link = rack.link();
        if link == "degraded" {
            Ok(())
        } else {
            Err(link)
        }
    })
    .await;
    rack.serves("before-the-night").await;
    let messages = ["night one", "night two", "night three"];
    for message in &messages[..2] {
        assert_eq!(signal(&preseed, message).await, 200);
    }
    // What it keeps outlives it, and it starts without its region.
    rack.kill_and_start().await;
    rack.serves("before-the-night").await;
    assert_eq!(signal(&preseed, messages[2]).await, 200);

    region.start_again().await;
    for message in messages {
        until(&format!("{message:?} has arrived"), || async {
            match signals(&region, &id, message).await? {
                0 => Err("not yet".to_owned()),
                n => Ok(n),
            }
        })
        .await;
    }
    // Both start again: nothing is delivered a second time.
    rack.kill_and_start().await;
    region.kill_and_start().await;
    region.set_kernel_opts("after-the-night").await;
    rack.serves("after-the-night").await;
    for message in messages {
        assert_eq!(signals(&region, &id, message).await, Ok(1), "{message}");
    }
    status_is(&region.api(), &id, "Commissioning").await;
    fleet.stop().await;
}
