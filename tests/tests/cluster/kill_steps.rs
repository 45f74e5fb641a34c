//! A simulated machine lives from enlistment to release while a process is killed after every step that
//! can be seen in the database. However often that happens, it ends Ready.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fleet::api::Api;
use fleet::{Fleet, Phase};
use serde_json::Value;

use crate::processes::{Place, RackProcess, RegionProcess, find};

/// Longest time for a whole life.
const LIMIT: Duration = Duration::from_secs(280);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Region,
    Rack,
}

/// What the operator has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Adopt,
    Commission,
    Allocate,
    Deploy,
    Release,
    Done,
}

/// What is seen of a machine: a step is a state that was not seen before.
async fn look(api: &Api, fleet: &Fleet) -> Result<(String, Value), String> {
    let machine = find(api, fleet, 0).await?;
    let id = machine["system_id"].as_str().unwrap_or_default();
    let events = api
        .ask(
            "events/",
            "query",
            &[("id", id), ("level", "DEBUG"), ("limit", "1")],
        )
        .await
        .map_err(|e| e.to_string())?;
    let step = format!(
        "{} {} {}",
        machine["status_name"].as_str().unwrap_or_default(),
        machine["power_state"].as_str().unwrap_or_default(),
        events["events"][0]["id"],
    );
    Ok((step, machine))
}

/// What an operator does next; the answer is what to wait for then.
async fn act(api: &Api, fleet: &Fleet, machine: &Value, next: Next) -> Option<Next> {
    let id = machine["system_id"].as_str()?;
    let path = format!("machines/{id}/");
    let is = |status: &str| machine["status_name"] == status;
    let off = fleet.state(0).phase == Phase::Off;
    let done = match next {
        Next::Adopt if is("New") && off => fleet::demo::adopt(api, fleet)
            .await
            .map(|_| Next::Commission)
            .map_err(|e| e.to_string()),
        Next::Commission if is("New") => op(api, &path, "commission", Next::Allocate).await,
        Next::Allocate if is("Ready") && off => {
            let fields = [("system_id", id)];
            let answer = api.op("machines/", "allocate", &fields).await;
            answer.map(|_| Next::Deploy).map_err(|e| e.to_string())
        }
        Next::Deploy if is("Allocated") => op(api, &path, "deploy", Next::Release).await,
        Next::Release if is("Deployed") && fleet.state(0).phase == Phase::Running => {
            op(api, &path, "release", Next::Done).await
        }
        _ => return None,
    };
    Some(done.unwrap_or_else(|e| panic!("{next:?}: {e}")))
}

async fn op(api: &Api, path: &str, op: &str, next: Next) -> Result<Next, String> {
    api.op(path, op, &[])
        .await
        .map(|_| next)
        .map_err(|e| e.to_string())
}

async fn live(victim: Victim) {
    let place = Place::new();
    let mut region = RegionProcess::start(&place, "region", None).await;
    region.import_images(&place).await;
    fleet::demo::describe_network(&region.api()).await.unwrap();
    let mut rack = RackProcess::start(&place, &[&region]).await;
    // Firmware that asks until somebody answers: giving up is another test's.
    let fleet = rack.fleet(1, |c| c.boot_tries = 10_000).await;
    let api = region.api();
    let (started, mut steps, mut next) = (Instant::now(), BTreeSet::new(), Next::Adopt);
    fleet.press(0);
    loop {
        let seen = look(&api, &fleet).await;
        assert!(
            started.elapsed() < LIMIT,
            "waited {LIMIT:?}; {} steps, next {next:?}, seen {:?}, machine {:?}",
            steps.len(),
            seen.as_ref().map(|(step, _)| step),
            fleet.state(0)
        );
        if let Ok((step, machine)) = seen {
            let status = machine["status_name"].as_str().unwrap_or_default();
            assert!(
                !status.starts_with("Failed") && !status.ends_with("failed"),
                "{step}: {}",
                machine["status_message"]
            );
            let acted = act(&api, &fleet, &machine, next).await;
            next = acted.unwrap_or(next);
            let is_over =
                next == Next::Done && status == "Ready" && machine["power_state"] == "off";
            if is_over {
                break;
            }
            if steps.insert(step) || acted.is_some() {
                match victim {
                    Victim::Region => region.kill_and_start().await,
                    Victim::Rack => rack.kill_and_start().await,
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A life of this length has more steps than changes of status.
    assert!(steps.len() >= 10, "{steps:?}");
    let counters = fleet.counters();
    assert_eq!(
        (counters.installations, counters.deployments),
        (1, 1),
        "{counters:?}"
    );
    let (_, machine) = look(&api, &fleet).await.unwrap();
    assert_eq!(
        (&machine["owner"], &machine["status_name"]),
        (&Value::Null, &"Ready".into())
    );
    fleet
        .wait_phase(0, Phase::Off, Duration::from_secs(60))
        .await
        .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_through_its_life_with_its_region_killed_after_every_step() {
    live(Victim::Region).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_through_its_life_with_its_rack_killed_after_every_step() {
    live(Victim::Rack).await;
}
