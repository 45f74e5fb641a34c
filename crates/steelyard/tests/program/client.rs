//! The program as `maas`.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::server::Fake;
use crate::support::{Place, Up};

fn logged_in(place: &Place) -> Up {
    let up = Up::start(place);
    let key = place.admin("admin");
    let said = place
        .maas(&["login", "p", up.url.trim_end_matches('/'), &key])
        .ok();
    assert!(said.contains("as admin"), "{said}");
    assert!(!said.contains(&key), "the key is not repeated");
    up
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_profile_calls_the_api() {
    let place = Place::new();
    let _up = logged_in(&place);
    // Standard output is JSON and nothing else when it is no terminal.
    assert_eq!(
        json_of(&place.maas(&["p", "version", "read"]).ok())["version"],
        "3.7.3"
    );
    let create = [
        "p",
        "users",
        "create",
        "username=eva",
        "password=x y&z",
        "email=eva@x.example",
        "is_superuser=0",
    ];
    assert_eq!(json_of(&place.maas(&create).ok())["username"], "eva");
    assert_eq!(
        json_of(&place.maas(&["p", "user", "read", "eva"]).ok())["email"],
        "eva@x.example"
    );
    assert_eq!(
        json_of(&place.maas(&["p", "users", "whoami"]).ok())["username"],
        "admin"
    );
    place
        .maas(&[
            "p",
            "maas",
            "set-config",
            "name=maas_name",
            "value=Größe = 1",
        ])
        .ok();
    assert_eq!(
        json_of(
            &place
                .maas(&["p", "maas", "get-config", "name=maas_name"])
                .ok()
        ),
        "Größe = 1"
    );
    assert_eq!(place.maas(&["p", "user", "delete", "eva"]).ok(), "");
    let gone = place.maas(&["p", "user", "read", "eva"]);
    assert_eq!(
        (gone.code, gone.out.contains("No User")),
        (2, true),
        "{gone:?}"
    );
    // The same client under the program's own name.
    assert_eq!(
        json_of(&place.steelyard(&["maas", "p", "version", "read"]).ok())["version"],
        "3.7.3"
    );
}

#[test]
fn a_refusal_of_the_api_is_printed_and_the_status_is_2() {
    let place = Place::new();
    let _up = logged_in(&place);
    let missing = place.maas(&["p", "users", "create", "username=eva"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.out.contains("No provided"), "{missing:?}");
    let debug = place.maas(&["-d", "p", "version", "read"]);
    assert_eq!(
        debug.code, 2,
        "options of a call stand behind the profile: {debug:?}"
    );
    let debug = place.maas(&["p", "version", "read", "-d"]);
    assert!(
        debug.err.contains("200 OK") && debug.err.contains("x-maas-api-hash"),
        "{debug:?}"
    );
    json_of(&debug.ok());
}

#[test]
fn a_line_that_makes_no_sense_ends_with_2_and_says_why() {
    let place = Place::new();
    let _up = logged_in(&place);
    for (line, said) in [
        (
            &["q", "version", "read"][..],
            "neither a command nor a profile",
        ),
        (&["p", "nonsense", "read"], "no resource nonsense"),
        (&["p", "version", "nonsense"], "no action nonsense"),
        (&["p", "user", "read"], "needs USERNAME"),
        (&["p", "version", "read", "a=b"], "takes no parameters"),
        (&["p", "users", "create", "eva"], "KEY=VALUE"),
        (&["p", "users"], "Actions:"),
        (&["p"], "Resources:"),
        (&[], "Usage:"),
        (&["logout", "q"], "there is no profile q"),
        (&["login", "p"], "required"),
        (
            &["login", "list", "http://127.0.0.1:1/MAAS", "a:b:c"],
            "cannot be called",
        ),
        (&["login", "p", "nowhere", "a:b:c"], "is not a URL"),
    ] {
        place.maas(line).fails(2, said);
    }
    place
        .maas(&["p", "users", "create", "username@=/nonexistent"])
        .fails(1, "cannot be read");
    place
        .maas(&["login", "p", "http://127.0.0.1:1/MAAS", "a:b"])
        .fails(1, "three parts");
}

#[test]
fn help_is_there_at_every_level() {
    let place = Place::new();
    let _up = logged_in(&place);
    for (line, expected) in [
        (
            &["--help"][..],
            &["login", "refresh", "createadmin", "  p "][..],
        ),
        (&["login", "--help"], &["--cacerts", "--insecure"]),
        (
            &["p", "--help"],
            &["machines", "sshkeys", "boot-resources", "Resources:"],
        ),
        (
            &["p", "machines", "-h"],
            &["allocate", "create", "Actions:"],
        ),
        (
            &["p", "machine", "deploy", "-h"],
            &[
                "SYSTEM_ID",
                "distro_series",
                "POST /MAAS/api/2.0/machines/{system_id}/",
                "--debug",
            ],
        ),
    ] {
        let said = place.maas(line).ok();
        for word in expected {
            assert!(
                said.contains(word),
                "{word:?} is not in the help of {line:?}:\n{said}"
            );
        }
        assert!(said.lines().all(|l| l.chars().count() <= 120), "{said}");
    }
    let own = place.steelyard(&["--help"]).ok();
    for word in ["up", "createadmin", "apikey", "status", "boots"] {
        assert!(own.contains(word), "{own}");
    }
    assert!(
        place
            .steelyard(&["--version"])
            .ok()
            .contains(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(place.steelyard(&[]).code, 2);
    assert_eq!(place.steelyard(&["nonsense"]).code, 2);
}

#[test]
fn profiles_are_kept_for_their_owner_only_and_can_be_listed_and_forgotten() {
    let place = Place::new();
    let up = logged_in(&place);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.profiles()), 0o600);
    assert_eq!(mode(place.profiles().parent().unwrap()), 0o700);
    let key = place.steelyard(&["apikey", "--username", "admin"]).ok();
    // The key may come from standard input, so that it is in no list of processes.
    place
        .maas_with_input(&["login", "second", &up.url, "-"], &key)
        .ok();
    let line = |name: &str| format!("{name} {}api/2.0/ {}\n", up.url, key.trim());
    assert_eq!(place.maas(&["list"]).ok(), line("p") + &line("second"));
    place.maas(&["logout", "p"]).ok();
    assert_eq!(place.maas(&["list"]).ok(), line("second"));
    place
        .maas(&["p", "version", "read"])
        .fails(2, "neither a command nor a profile");
}

#[test]
fn a_wrong_key_is_refused_with_401_and_leaves_no_profile() {
    let place = Place::new();
    let up = Up::start(&place);
    let done = place.maas(&["login", "p", &up.url, "aaa:bbb:geheim"]);
    assert!(!done.err.contains("geheim"), "{done:?}");
    done.fails(1, "refused this API key (401)");
    assert_eq!(place.maas(&["list"]).ok(), "");
    let dead = "http://127.0.0.1:1/MAAS";
    place
        .maas(&["login", "p", dead, "aaa:bbb:geheim"])
        .fails(1, "does not answer");
}

#[test]
fn without_a_key_only_what_anybody_may_call_is_there() {
    let place = Place::new();
    let up = Up::start(&place);
    place
        .maas_with_input(&["login", "anon", &up.url], "\n")
        .ok();
    assert_eq!(
        json_of(&place.maas(&["anon", "version", "read"]).ok())["version"],
        "3.7.3"
    );
    place
        .maas(&["anon", "users", "read"])
        .fails(2, "no resource users");
}

#[test]
fn a_changed_description_is_told_until_the_profile_is_refreshed() {
    let place = Place::new();
    let _up = logged_in(&place);
    assert_eq!(place.maas(&["p", "version", "read"]).err, "");
    let mut kept: Value = json_of(&std::fs::read_to_string(place.profiles()).unwrap());
    kept["profiles"]["p"]["description"]["hash"] = "old".into();
    std::fs::write(place.profiles(), kept.to_string()).unwrap();
    let done = place.maas(&["p", "version", "read"]);
    assert!(done.err.contains("maas refresh"), "{done:?}");
    json_of(&done.ok());
    place.maas(&["refresh"]).ok();
    assert_eq!(place.maas(&["p", "version", "read"]).err, "");
}

/// A profile of a fake server with one resource.
fn profile_of(place: &Place, url: &str, handler: &str, path: &str, action: Value) {
    let resource = json!({"name": handler, "anon": null, "auth": {
        "name": handler, "doc": "Things.", "params": [], "path": path, "actions": [action],
    }});
    let profile = json!({
        "url": format!("{url}/MAAS/api/2.0/"), "credentials": ["ck", "tk", "ts"],
        "description": {"hash": "h", "resources": [resource]},
    });
    std::fs::create_dir_all(place.profiles().parent().unwrap()).unwrap();
    std::fs::write(
        place.profiles(),
        json!({"profiles": {"p": profile}}).to_string(),
    )
    .unwrap();
}

#[test]
fn files_of_any_bytes_arrive_as_they_are_in_a_signed_form() {
    let place = Place::new();
    let fake = Fake::start(vec![(200, "{}".to_owned())]);
    let action = json!({"name": "do_it", "method": "POST", "op": "do_it", "restful": false, "doc": ":param a: x"});
    profile_of(
        &place,
        &fake.url,
        "ThingsHandler",
        "/MAAS/api/2.0/things/",
        action,
    );
    let content: Vec<u8> = (0..=255).chain(*b"\r\n--x\r\n").collect();
    std::fs::write(place.path("file"), &content).unwrap();
    let file = format!("f@={}", place.path("file").display());
    place
        .maas(&["p", "things", "do-it", "a=1 2", "a=3", &file])
        .ok();
    let seen = &fake.seen()[0];
    assert_eq!(seen.line, "POST /MAAS/api/2.0/things/?op=do_it HTTP/1.1");
    let authorization = seen.header("authorization");
    assert!(
        authorization.starts_with("OAuth oauth_nonce=\""),
        "{authorization}"
    );
    assert!(
        authorization.ends_with("oauth_signature=\"%26ts\""),
        "{authorization}"
    );
    let boundary = seen
        .header("content-type")
        .strip_prefix("multipart/form-data; boundary=")
        .unwrap();
    let mut expected = Vec::new();
    for value in ["1 2", "3"] {
        expected.extend(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n"
            )
            .into_bytes(),
        );
    }
    expected.extend(
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\nContent-Type: application/octet-stream\r\n\r\n")
            .into_bytes(),
    );
    expected.extend([&content[..], format!("\r\n--{boundary}--\r\n").as_bytes()].concat());
    assert_eq!(
        String::from_utf8_lossy(&seen.body),
        String::from_utf8_lossy(&expected)
    );
    assert_eq!(seen.body, expected);
}

#[test]
fn a_boot_resource_is_announced_and_then_sent_in_pieces() {
    const PIECE: usize = 4 << 20;
    let place = Place::new();
    let announced = json!({"id": 1, "sets": {"2": {"files": {"root": {"complete": false, "upload_uri": "/MAAS/api/2.0/boot-resources/1/upload/7/"}}}}});
    let fake = Fake::start(vec![
        (201, announced.to_string()),
        (200, "OK".to_owned()),
        (200, "OK".to_owned()),
    ]);
    let action = json!({"name": "create", "method": "POST", "op": null, "restful": true, "doc": ":param name: x"});
    profile_of(
        &place,
        &fake.url,
        "BootResourcesHandler",
        "/MAAS/api/2.0/boot-resources/",
        action,
    );
    let content = vec![7_u8; PIECE + 10];
    std::fs::write(place.path("image"), &content).unwrap();
    let file = format!("content@={}", place.path("image").display());
    let done = place
        .maas(&[
            "p",
            "boot-resources",
            "create",
            "name=custom/x",
            "architecture=amd64/generic",
            &file,
        ])
        .ok();
    assert_eq!(json_of(&done), announced);
    let seen = fake.seen();
    let form = String::from_utf8_lossy(&seen[0].body);
    assert!(
        form.contains(&format!("name=\"size\"\r\n\r\n{}\r\n", content.len())),
        "{form}"
    );
    assert!(form.contains("name=\"sha256\"\r\n\r\n"), "{form}");
    assert!(
        !form.contains("content"),
        "the file is not in the announcement: {form}"
    );
    for piece in &seen[1..] {
        assert_eq!(
            piece.line,
            "PUT /MAAS/api/2.0/boot-resources/1/upload/7/ HTTP/1.1"
        );
        assert_eq!(piece.header("content-type"), "application/octet-stream");
        assert!(piece.header("authorization").starts_with("OAuth "));
    }
    assert_eq!(
        seen[1..].iter().map(|s| s.body.len()).collect::<Vec<_>>(),
        [PIECE, 10]
    );
}

#[test]
fn a_piece_that_is_refused_ends_the_upload_with_2() {
    let place = Place::new();
    let announced =
        json!({"sets": {"2": {"files": {"root": {"complete": false, "upload_uri": "/u/"}}}}});
    let fake = Fake::start(vec![
        (201, announced.to_string()),
        (503, "no room".to_owned()),
    ]);
    let action = json!({"name": "create", "method": "POST", "op": null, "restful": true, "doc": ":param name: x"});
    profile_of(
        &place,
        &fake.url,
        "BootResourcesHandler",
        "/MAAS/api/2.0/boot-resources/",
        action,
    );
    std::fs::write(place.path("image"), vec![7_u8; 9 << 20]).unwrap();
    let file = format!("content@={}", place.path("image").display());
    let done = place.maas(&["p", "boot-resources", "create", "name=custom/x", &file]);
    assert_eq!((done.code, done.out.as_str()), (2, "no room"), "{done:?}");
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn ssh_keys_are_imported_from_a_source_without_a_key_word() {
    let place = Place::new();
    let fake = Fake::start(vec![(200, "[]".to_owned())]);
    let action = json!({"name": "import", "method": "POST", "op": "import", "restful": false, "doc": ":param keysource: x"});
    profile_of(
        &place,
        &fake.url,
        "SSHKeysHandler",
        "/MAAS/api/2.0/account/prefs/sshkeys/",
        action,
    );
    place.maas(&["p", "sshkeys", "import", "gh:eva"]).ok();
    let seen = &fake.seen()[0];
    assert!(seen.line.contains("?op=import"), "{}", seen.line);
    assert!(String::from_utf8_lossy(&seen.body).contains("name=\"keysource\"\r\n\r\ngh:eva\r\n"));
}
