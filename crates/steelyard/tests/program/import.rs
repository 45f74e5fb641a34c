//! `steelyard import machines`.

use serde_json::Value;

use crate::support::{Place, Up};

const LIST: &str = "\
name,macs,architecture,power_type,power_address,power_user,power_pass,pool,tags
n1,52:54:00:00:01:01 52:54:00:00:01:02,amd64/generic,ipmi,10.0.0.1,root,geheim-x,default,rack-a
n2,52:54:00:00:02:01,,,,,,,
n3,not-a-mac,,,,,,,
n4,52:54:00:00:02:01,,,,,,,
";

fn machines(place: &Place) -> Vec<Value> {
    let all = place.maas(&["p", "machines", "read"]).ok();
    let all: Value = serde_json::from_str(&all).unwrap();
    all.as_array().unwrap().clone()
}

/// An image, without which no architecture is known. Its content is nowhere: nobody fetches it here.
async fn image(place: &Place) {
    let target = store::Target::Sqlite(place.data().join("steelyard.db"));
    let db = store::Db::open(&store::Options::new(target)).await.unwrap();
    db.write(|tx| {
        Box::pin(async move {
            let (id,) = store::one!(
                tx,
                (i64,),
                "INSERT INTO boot_resource (rtype, name, architecture, extra, created, updated) \
                 VALUES (0, 'ubuntu/noble', 'amd64/generic', '{\"subarches\": \"generic\"}', 0, 0) RETURNING id"
            )?;
            let (set,) = store::one!(
                tx,
                (i64,),
                "INSERT INTO boot_resource_set (resource_id, version, label, created) VALUES ($1, '20260101', 'stable', 0) RETURNING id",
                id
            )?;
            for kind in ["boot-kernel", "boot-initrd", "squashfs"] {
                store::exec!(
                    tx,
                    "INSERT INTO boot_resource_file (set_id, filename, filetype, sha256, size) VALUES ($1, $2, $2, $2, 1000)",
                    set,
                    kind
                )?;
            }
            Ok::<_, store::StoreError>(())
        })
    })
    .await
    .unwrap();
    db.close().await;
}

fn logged_in(place: &Place) -> Up {
    let up = Up::start(place);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(image(place));
    let key = place.admin("admin");
    place.maas(&["login", "p", &up.url, &key]).ok();
    up
}

#[test]
fn a_list_of_machines_can_be_imported_again_and_again() {
    let place = Place::new();
    let _up = logged_in(&place);
    std::fs::write(place.path("list.csv"), LIST).unwrap();
    let file = place.path("list.csv").display().to_string();
    let import =
        |words: &[&str]| place.steelyard(&[&["import", "machines", &file], words].concat());

    let dry = import(&["--dry-run"]);
    assert_eq!(dry.code, 1, "two of the rows are wrong: {dry:?}");
    assert_eq!(
        dry.out.lines().collect::<Vec<_>>(),
        [
            "line 2: n1 would be added",
            "line 3: n2 would be added",
            "line 4: failed: not-a-mac is not a MAC address",
            "line 5: failed: 52:54:00:00:02:01 stands in the list twice",
        ]
    );
    assert_eq!(machines(&place).len(), 0, "nothing was done");

    let first = import(&[]);
    assert_eq!(first.code, 1);
    assert!(first.err.contains("2 added, 2 failed"), "{first:?}");
    assert!(!first.out.contains("geheim-x"), "{first:?}");
    let all = machines(&place);
    assert_eq!(all.len(), 2);
    let n1 = all.iter().find(|m| m["hostname"] == "n1").unwrap();
    assert_eq!(n1["architecture"], "amd64/generic");
    assert_eq!(n1["power_type"], "ipmi");
    assert_eq!(n1["pool"]["name"], "default");
    assert_eq!(n1["tag_names"][0], "rack-a");
    assert_eq!(n1["status_name"], "New");
    assert_eq!(n1["interface_set"].as_array().unwrap().len(), 2);
    let power = [
        "p",
        "machine",
        "power-parameters",
        n1["system_id"].as_str().unwrap(),
    ];
    let power: Value = serde_json::from_str(&place.maas(&power).ok()).unwrap();
    assert_eq!(power["power_pass"], "geheim-x");

    // Again: nothing changes, and the event log does not grow.
    let again = import(&["--profile", "p"]);
    assert!(again.err.contains("2 failed, 2 unchanged"), "{again:?}");

    // A changed list changes what differs, and names it without its value.
    place
        .maas(&["p", "resource-pools", "create", "name=lab"])
        .ok();
    let changed = LIST
        .replace("geheim-x,default,rack-a", "geheim-y,lab,rack-a;rack-b")
        .replace(
            "n2,52:54:00:00:02:01,",
            "n2,52:54:00:00:02:01 52:54:00:00:02:02,",
        );
    std::fs::write(place.path("list.csv"), changed).unwrap();
    let third = import(&[]);
    let lines: Vec<&str> = third.out.lines().collect();
    assert!(
        lines[0].contains("was changed: pool, power_type"),
        "{third:?}"
    );
    assert!(lines[0].ends_with("tags"), "{third:?}");
    assert!(
        lines[1].ends_with("was changed: mac_addresses"),
        "{third:?}"
    );
    assert!(!third.out.contains("geheim-y"), "{third:?}");
    let n1 = machines(&place);
    let n1 = n1.iter().find(|m| m["hostname"] == "n1").unwrap();
    assert_eq!(n1["pool"]["name"], "lab");
    assert_eq!(n1["tag_names"].as_array().unwrap().len(), 2);
}

#[test]
fn json_on_standard_input_is_a_list_too_and_what_the_server_refuses_is_told() {
    let place = Place::new();
    let _up = logged_in(&place);
    let list = r#"[{"name": "a", "mac": "52:54:00:00:03:01", "pool": "no-such-pool"},
                   {"name": "b", "macs": ["52:54:00:00:03:02"]}]"#;
    let done = place.run("steelyard", &["import", "machines", "-"], list);
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(done.code, 1, "{done:?}");
    assert!(lines[0].starts_with("entry 1: failed: "), "{done:?}");
    assert!(
        lines[0].contains("pool: ") && lines[0].ends_with("(400)"),
        "{done:?}"
    );
    assert!(lines[1].ends_with("was added"), "{done:?}");
    place
        .run("steelyard", &["import", "machines", "-"], "name,colour\n")
        .fails(1, "colour is unknown");
}
