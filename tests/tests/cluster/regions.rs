//! Two regions on one PostgreSQL.

use fleet::Fleet;
use fleet::fault::BmcFault;
use steelyard_tests::until;
use store::{Db, Options, Target};

use crate::processes::{Place, RackProcess, RegionProcess, enlist, status_is};
use crate::slow_mirror::SlowMirror;

/// A job: its state, its attempt, who works at it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct JobSeen {
    state: String,
    attempt: i64,
    owner: String,
}

/// The newest job of a kind about a subject.
async fn job(url: &str, kind: &str, subject: &str) -> Result<JobSeen, String> {
    let options = Options {
        connections: 1,
        ..Options::new(Target::Postgres(url.to_owned()))
    };
    let db = Db::open(&options).await.map_err(|e| e.to_string())?;
    let mut tx = db.read().await.map_err(|e| e.to_string())?;
    let found = async {
        store::opt!(
            tx,
            (String, i64, Option<String>),
            "SELECT state, attempt, lease_owner FROM job WHERE kind = $1 AND subject = $2 ORDER BY id DESC LIMIT 1",
            kind,
            subject
        )
    };
    let found = found.await.map_err(|e| e.to_string())?;
    drop(tx);
    db.close().await;
    let (state, attempt, owner) = found.ok_or_else(|| "there is no such job".to_owned())?;
    Ok(JobSeen {
        state,
        attempt,
        owner: owner.unwrap_or_default(),
    })
}

async fn running(url: &str, kind: &str, subject: &str) -> JobSeen {
    until("somebody works at the job", || async {
        let j = job(url, kind, subject).await?;
        if j.state == "running" {
            Ok(j)
        } else {
            Err(format!("{j:?}"))
        }
    })
    .await
}

async fn done(url: &str, kind: &str, subject: &str) -> JobSeen {
    until("the job is done", || async {
        let j = job(url, kind, subject).await?;
        if j.state == "done" {
            Ok(j)
        } else {
            Err(format!("{j:?}"))
        }
    })
    .await
}

async fn two(place: &Place) -> (String, RegionProcess, RegionProcess) {
    let url = store::testing::postgres_database().await;
    let a = RegionProcess::start(place, "a", Some(url.clone())).await;
    let b = a.another(place, "b").await;
    (url, a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_on_one_region_is_seen_by_the_rack_of_the_other() {
    let place = Place::new();
    let (_, mut a, b) = two(&place).await;
    a.import_images(&place).await;
    let rack = RackProcess::start(&place, &[&a, &b]).await;
    b.set_kernel_opts("said-to-b").await;
    rack.serves("said-to-b").await;
    until("the rack is at a", || async {
        if a.racks() == 1 {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    assert_eq!(b.racks(), 0, "a rack is connected to one region at a time");
    // With its region gone it goes on to the other.
    a.kill();
    b.set_kernel_opts("said-to-b-alone").await;
    rack.serves("said-to-b-alone").await;
    a.start_again().await;
    a.set_kernel_opts("said-to-a").await;
    rack.serves("said-to-a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_command_of_a_killed_region_is_carried_out_by_the_other() {
    let place = Place::new();
    let (url, mut a, b) = two(&place).await;
    a.import_images(&place).await;
    let rack = RackProcess::start(&place, &[&a, &b]).await;
    a.set_kernel_opts("known").await;
    rack.serves("known").await;
    let fleet: Fleet = rack.fleet(1, |_| {}).await;
    let id = enlist(&a.api(), &fleet).await;
    // The BMC does not answer while A works at the command.
    fleet.inject_bmc(0, BmcFault::Silent);
    let path = format!("machines/{id}/");
    a.api().op(&path, "commission", &[]).await.unwrap();
    let begun = running(&url, "power", &id).await;
    assert!(begun.owner.starts_with("a:"), "{begun:?}: the rack is at a");
    a.kill();
    fleet.inject_bmc(0, BmcFault::None);
    let ended = done(&url, "power", &id).await;
    assert!(ended.attempt > begun.attempt, "{ended:?} after {begun:?}");
    let machine = status_is(&b.api(), &id, "Ready").await;
    assert_eq!(machine["power_type"], "ipmi");
    assert!(
        fleet.counters().power_commands > 0,
        "{:?}",
        fleet.counters()
    );
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_a_killed_region_is_finished_by_the_other() {
    let place = Place::new();
    let (url, a, b) = two(&place).await;
    let stream = place.path("slow-stream");
    fleet::demo::write_stream(&stream).unwrap();
    let mut mirror = SlowMirror::start(&stream, "squashfs").await;
    let api = a.api();
    let index = format!("{}streams/v1/index.json", mirror.url);
    for source in api
        .get("boot-sources/", &[])
        .await
        .unwrap()
        .as_array()
        .unwrap()
    {
        api.delete(&format!("boot-sources/{}/", source["id"]))
            .await
            .unwrap();
    }
    let source = api
        .create("boot-sources/", &[("url", &index)])
        .await
        .unwrap();
    let selections = format!("boot-sources/{}/selections/", source["id"]);
    let wanted = [
        ("os", fleet::stream::OSYSTEM),
        ("release", fleet::stream::RELEASE),
        ("arches", "amd64"),
        ("subarches", "*"),
        ("labels", "*"),
    ];
    until("the images are offered", || async {
        api.create(&selections, &wanted)
            .await
            .map_err(|e| e.to_string())
    })
    .await;
    api.op("boot-resources/", "import", &[]).await.unwrap();
    mirror.in_the_middle().await;
    let begun = running(&url, "image-sync", "all").await;
    let (mut working, other) = if begun.owner.starts_with("a:") {
        (a, b)
    } else {
        (b, a)
    };
    working.kill();
    mirror.go_on();
    let ended = done(&url, "image-sync", "all").await;
    assert!(ended.attempt > begun.attempt, "{ended:?} after {begun:?}");
    let api = other.api();
    let held = until("the images are there", || async {
        let held = api
            .get("boot-resources/", &[])
            .await
            .map_err(|e| e.to_string())?;
        let first = held[0]["id"].as_i64().ok_or_else(|| held.to_string())?;
        let one = api
            .get(&format!("boot-resources/{first}/"), &[])
            .await
            .map_err(|e| e.to_string())?;
        let complete = one["sets"]
            .as_object()
            .is_some_and(|s| !s.is_empty() && s.values().all(|s| s["complete"] == true));
        if complete {
            Ok(one)
        } else {
            Err(one.to_string())
        }
    })
    .await;
    assert_eq!(
        held["name"],
        format!("{}/{}", fleet::stream::OSYSTEM, fleet::stream::RELEASE)
    );
    for (name, value) in [
        ("commissioning_osystem", fleet::stream::OSYSTEM),
        ("commissioning_distro_series", fleet::stream::RELEASE),
    ] {
        let fields = [("name", name), ("value", value)];
        api.op("maas/", "set_config", &fields).await.unwrap();
    }
    // What the database says is here can be served from here: a rack of this region gets it.
    let rack = RackProcess::start(&place, &[&other]).await;
    let fleet = rack.fleet(1, |_| {}).await;
    enlist(&api, &fleet).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_with_a_key_of_its_own_is_refused() {
    let url = store::testing::postgres_database().await;
    let open = async |dir: &std::path::Path| {
        let config = region::region::Config {
            data_dir: dir.to_owned(),
            database: Target::Postgres(url.clone()),
            name: "test".to_owned(),
            agents: Default::default(),
        };
        region::Region::open(config).await
    };
    let place = Place::new();
    open(&place.path("first")).await.unwrap().stop().await;
    let refused = open(&place.path("second")).await.unwrap_err().to_string();
    assert!(refused.contains("secret.key"), "{refused}");
    open(&place.path("first")).await.unwrap().stop().await;
}
