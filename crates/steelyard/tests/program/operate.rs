//! Operating it: backup while it runs, restore, migrate, audit.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Place, Up};

fn logged_in(place: &Place) -> Up {
    let up = Up::start(place);
    let key = place.admin("admin");
    place.maas(&["login", "p", &up.url, &key]).ok();
    up
}

fn names(place: &Place) -> Vec<String> {
    let zones = place.maas(&["p", "zones", "read"]).ok();
    let zones: Value = serde_json::from_str(&zones).unwrap();
    let zones = zones.as_array().unwrap().iter();
    zones
        .map(|z| z["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_backup_of_a_running_region_is_restored_elsewhere_with_its_key_and_not_without() {
    let place = Place::new();
    let up = logged_in(&place);
    place.maas(&["p", "zones", "create", "name=lab"]).ok();
    let file = place.path("one.backup").display().to_string();
    let key = place.path("kept.key").display().to_string();
    let said = place.steelyard(&["backup", &file]).ok();
    assert!(said.contains("The key is not in it"), "{said}");
    place
        .steelyard(&["backup", &file])
        .fails(1, "cannot be used");
    let second = place.path("two.backup").display().to_string();
    place.steelyard(&["backup", &second, "--key", &key]).ok();
    for private in [&file, &key] {
        let mode = std::fs::metadata(private).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    // What came after the backup is not in it.
    place.maas(&["p", "zones", "create", "name=later"]).ok();
    place
        .steelyard(&["restore", &file, "--replace"])
        .fails(1, "is running");
    drop(up);

    let other = Place::new();
    other
        .steelyard(&["restore", &file])
        .fails(1, "cannot be restored without the key");
    assert!(
        !other.data().join("steelyard.db").exists(),
        "nothing was begun"
    );
    // Another region's key is no help either.
    let stranger = Place::new();
    stranger.steelyard(&["init", "--skip-admin"]).ok();
    let wrong = stranger.data().join("secret.key").display().to_string();
    other
        .steelyard(&["restore", &file, "--key", &wrong])
        .fails(1, "is not the key of this backup");
    other.steelyard(&["restore", &file, "--key", &key]).ok();
    let up = Up::start(&other);
    // Who could log in can log in, with the same key.
    let api_key = other.steelyard(&["apikey", "--username", "admin"]).ok();
    assert_eq!(
        api_key,
        place.steelyard(&["apikey", "--username", "admin"]).ok()
    );
    other.maas(&["login", "p", &up.url, api_key.trim()]).ok();
    assert_eq!(names(&other), ["default", "lab"]);
    drop(up);
    other
        .steelyard(&["restore", &file])
        .fails(1, "rows in user_account");
    other.steelyard(&["restore", &file, "--replace"]).ok();
    // A file that was cut off is refused, and what is there stays.
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&second, &whole[..whole.len() / 2]).unwrap();
    other
        .steelyard(&["restore", &second, "--replace"])
        .fails(1, "no complete copy");
    other.steelyard(&["apikey", "--username", "admin"]).ok();
}

#[test]
fn audit_says_who_changed_what() {
    let place = Place::new();
    let _up = logged_in(&place);
    place.maas(&["p", "zones", "create", "name=lab"]).ok();
    place.maas(&["p", "zone", "delete", "lab"]).ok();
    let read = |words: &[&str]| -> Vec<Value> {
        let all = place.maas(&[&["audit"], words].concat()).ok();
        serde_json::from_str::<Vec<Value>>(&all).unwrap()
    };
    let all = read(&[]);
    assert!(all.len() >= 2, "{all:?}");
    assert!(
        all.iter().take(2).all(|e| e["username"] == "admin"),
        "{all:?}"
    );
    assert!(
        all[1]["description"].as_str().unwrap().contains("lab"),
        "{all:?}"
    );
    assert_eq!(read(&["--limit", "1"]).len(), 1);
    assert_eq!(read(&["--user", "nobody"]).len(), 0);
    let shown = place.on_terminal("maas", &["audit"], "").ok();
    assert!(shown.starts_with("TIME"), "{shown}");
}

#[test]
fn migrate_refuses_what_it_cannot_do() {
    let place = Place::new();
    let url = "postgres://u:geheim@127.0.0.1:1/d";
    place
        .steelyard(&["migrate", "--to", url])
        .fails(1, "there is no database");
    let up = Up::start(&place);
    place
        .steelyard(&["migrate", "--to", url])
        .fails(1, "is running");
    assert_eq!(up.stop(Signal::TERM).0, 0);
    place
        .steelyard(&["migrate", "--to", "mysql://x"])
        .fails(1, "postgres://");
    let done = place.steelyard(&["migrate", "--to", url]);
    assert!(!done.err.contains("geheim"), "{done:?}");
    done.fails(1, "cannot open the database");
    let left: Vec<_> = std::fs::read_dir(place.data())
        .unwrap()
        .filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("migrate-")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
