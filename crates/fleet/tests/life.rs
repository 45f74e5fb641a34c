//! Lives of machines beside a fake rack: what they ask for, in which order, and what stops them.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fleet::config::Patience;
use fleet::{Fault, Fleet, FleetConfig, Network, Phase};
use support::{LIMIT, Role, World};

async fn a_fleet(world: &World, count: usize) -> Fleet {
    let patience = Patience {
        first: Duration::from_millis(10),
        most: Duration::from_millis(100),
        limit: Duration::from_secs(2),
    };
    let config = FleetConfig {
        patience,
        boot_tries: 2,
        ..FleetConfig::new(count, Network::loopback(world.address))
    };
    Fleet::start(config).await.unwrap()
}

/// Whether the calls contain these, in this order.
fn in_order(calls: &[String], wanted: &[&str]) {
    let mut rest = calls.iter();
    for w in wanted {
        assert!(
            rest.any(|c| c.starts_with(w)),
            "{w} is missing, or too early, in {calls:#?}"
        );
    }
}

#[tokio::test]
async fn an_unknown_machine_introduces_itself_is_commissioned_and_switches_off() {
    let world = World::start(Role::Unknown).await;
    let fleet = a_fleet(&world, 1).await;
    fleet.press(0);
    fleet
        .wait(0, LIMIT, |s| s.phase == Phase::Off && s.boots == 1)
        .await
        .unwrap();
    assert!(!fleet.bmc(0).is_on());
    assert_eq!(fleet.state(0).system_id.as_deref(), Some("abc"));
    let mac = fleet.hardware(0).mac().dashed();
    in_order(
        &world.calls(),
        &[
            "GET /ipxe.cfg",
            &format!("GET /ipxe.cfg-{mac}"),
            "GET /ipxe.cfg-default-",
            "GET /images/kernel",
            "GET /images/initrd",
            "GET /images/squashfs",
            "GET /preseed",
            "GET /MAAS/metadata/2012-03-01/meta-data/instance-id",
            "GET /MAAS/metadata/2012-03-01/user-data",
            "GET /MAAS/api/2.0/machines/?op=is_registered",
            "POST /MAAS/api/2.0/machines/",
            "GET /MAAS/metadata/latest/by-id/abc/?op=get_preseed",
            "POST /MAAS/metadata/2012-03-01/",
            "GET /MAAS/metadata/2012-03-01/maas-scripts",
            "POST /MAAS/metadata/status/abc",
        ],
    );
    assert_eq!(
        world.posted("mac_addresses"),
        [fleet.hardware(0).mac_list()]
    );
    // One at a time first, then those that may run together; each started, then with its result.
    assert_eq!(
        world.posted("status"),
        [
            "COMMISSIONING",
            "WORKING",
            "WORKING",
            "WORKING",
            "WORKING",
            "OK"
        ]
    );
    assert_eq!(world.posted("script_result_id"), ["1", "1", "2", "2"]);
    let inventory: serde_json::Value =
        serde_json::from_str(&world.posted("50-maas-01-commissioning")[0]).unwrap();
    assert_eq!(inventory["resources"]["system"]["vendor"], "Steelyard");
    let address = IpAddr::from(Ipv4Addr::new(127, 1, 0, 1));
    assert!(world.seen().iter().all(|s| s.from == address));
    let counters = fleet.counters();
    assert_eq!(
        (counters.boots, counters.enlistments, counters.scripts),
        (1, 1, 2)
    );
    fleet.stop().await;
}

#[tokio::test]
async fn a_machine_is_installed_and_comes_back_from_its_disk() {
    let world = World::start(Role::Deploying).await;
    let fleet = a_fleet(&world, 1).await;
    fleet.press(0);
    let state = fleet.wait_phase(0, Phase::Running, LIMIT).await.unwrap();
    assert_eq!((state.boots, state.installed.as_deref()), (2, Some("rex")));
    let events = world.events();
    in_order(
        &events,
        &[
            "init-local start",
            "modules-final start",
            "cmd-install start",
            "cmd-install/stage-partitioning start",
            "cmd-install/stage-extract/extract-image finish",
            "cmd-install/stage-late finish",
            "cmd-install finish",
            "init-local start",
            "modules-final finish",
        ],
    );
    // The installed system speaks from its own address, with the credentials of the plan.
    let last = world
        .seen()
        .into_iter()
        .rfind(|s| s.target.ends_with("/user-data"))
        .unwrap();
    assert_eq!(
        (last.from, last.signed),
        (IpAddr::from(Ipv4Addr::new(127, 1, 200, 7)), true)
    );
    assert_eq!(fleet.counters().installations, 1);
    fleet.stop().await;
}

#[tokio::test]
async fn an_altered_image_is_reported_and_not_installed() {
    let world = World::start(Role::Deploying).await;
    *world.image.lock().unwrap() = b"an image that is altered!!".to_vec();
    let fleet = a_fleet(&world, 1).await;
    fleet.press(0);
    let state = fleet.wait_phase(0, Phase::Stuck, LIMIT).await.unwrap();
    assert!(
        state.detail.contains("extract-image failed: altered image"),
        "{}",
        state.detail
    );
    assert_eq!(state.installed, None);
    assert_eq!(world.posted("status"), ["FAILED"]);
    assert!(!world.posted("op").contains(&"netboot_off".to_owned()));
}

#[tokio::test]
async fn each_fault_stops_a_machine_at_its_place() {
    let cases = [
        (
            Role::Commissioning,
            Fault::StopBeforeRequest,
            "",
            "before its first request",
        ),
        (
            Role::Commissioning,
            Fault::WrongLoader,
            "GET /bootx64.efi",
            "loader",
        ),
        (
            Role::Commissioning,
            Fault::StopAfterLoader,
            "GET /ipxe.cfg",
            "loader hangs",
        ),
        (
            Role::Commissioning,
            Fault::StopDuringKernel,
            "GET /images/kernel",
            "kernel",
        ),
        (
            Role::Commissioning,
            Fault::NoMetadataRoute,
            "GET /images/squashfs",
            "no route",
        ),
        (
            Role::Commissioning,
            Fault::RefusedCredentials,
            "GET /MAAS/metadata/2012-03-01/meta-data/instance-id",
            "401",
        ),
        (
            Role::Deploying,
            Fault::StopDuringImage,
            "GET /images/root",
            "image",
        ),
        (Role::Deploying, Fault::NoReturn, "GET /ipxe.cfg-", "reboot"),
    ];
    for (role, fault, last, why) in cases {
        let world = World::start(role).await;
        let fleet = a_fleet(&world, 1).await;
        fleet.inject(0, fault.clone());
        fleet.press(0);
        let state = fleet
            .wait_phase(0, Phase::Stuck, LIMIT)
            .await
            .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert!(state.detail.contains(why), "{fault:?}: {}", state.detail);
        let calls = world.calls();
        // The last thing that is not an event.
        let seen = calls
            .iter()
            .rfind(|c| !c.contains("/status/"))
            .cloned()
            .unwrap_or_default();
        assert!(
            seen.starts_with(last) && last.is_empty() == seen.is_empty(),
            "{fault:?}: {seen}"
        );
        assert!(fleet.bmc(0).is_on(), "a machine that hangs has power");
        // Healed and switched off and on, it goes its way.
        fleet.heal(0);
        world.set(Role::Commissioning);
        fleet.pull(0);
        fleet.wait_phase(0, Phase::Off, LIMIT).await.unwrap();
        fleet.press(0);
        fleet
            .wait(0, LIMIT, |s| s.phase == Phase::Off && s.boots > state.boots)
            .await
            .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        fleet.stop().await;
    }
}

#[tokio::test]
async fn a_failed_script_is_reported_with_its_exit_status() {
    let world = World::start(Role::Commissioning).await;
    let fleet = a_fleet(&world, 1).await;
    fleet.inject(
        0,
        Fault::ScriptFails {
            script: "maas-lshw".into(),
            exit_status: 7,
        },
    );
    fleet.press(0);
    fleet
        .wait(0, LIMIT, |s| s.phase == Phase::Off && s.boots == 1)
        .await
        .unwrap();
    assert_eq!(world.posted("exit_status"), ["0", "7"]);
    assert_eq!(
        world.posted("status").last().map(String::as_str),
        Some("FAILED")
    );
}

#[tokio::test]
async fn a_machine_without_an_image_asks_again() {
    let world = World::start(Role::Missing).await;
    let fleet = a_fleet(&world, 1).await;
    fleet.press(0);
    fleet.wait(0, LIMIT, |s| s.boots >= 3).await.unwrap();
    world.set(Role::Commissioning);
    fleet.wait_phase(0, Phase::Off, LIMIT).await.unwrap();
    assert_eq!(fleet.counters().scripts, 2);
}

#[tokio::test]
async fn a_machine_whose_rack_is_away_boots_its_disk_or_stays_stuck() {
    let world = World::start(Role::Deploying).await;
    let fleet = a_fleet(&world, 1).await;
    fleet.press(0);
    fleet.wait_phase(0, Phase::Running, LIMIT).await.unwrap();
    fleet.pull(0);
    fleet.wait_phase(0, Phase::Off, LIMIT).await.unwrap();
    drop(world);
    fleet.press(0);
    // Its disk starts; there is nobody to give it metadata.
    fleet.wait_phase(0, Phase::Starting, LIMIT).await.unwrap();
    fleet.pull(0);
    fleet.wait_phase(0, Phase::Off, LIMIT).await.unwrap();
    fleet.wipe(0);
    fleet.press(0);
    let state = fleet.wait_phase(0, Phase::Stuck, LIMIT).await.unwrap();
    assert!(
        state
            .detail
            .starts_with("no boot device: no answer from http://"),
        "{}",
        state.detail
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_machines_live_at_once() {
    let world = World::start(Role::Commissioning).await;
    let fleet = a_fleet(&world, 300).await;
    fleet.press_all(Duration::ZERO).await;
    for i in 0..fleet.len() {
        fleet
            .wait(i, LIMIT, |s| s.phase == Phase::Off && s.boots == 1)
            .await
            .unwrap();
    }
    assert_eq!(fleet.counters().scripts, 600);
    fleet.stop().await;
}
