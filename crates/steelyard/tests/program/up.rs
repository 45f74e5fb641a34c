//! `steelyard up` and the commands beside it.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::server::Fake;
use crate::support::{Place, UP, Up};

#[test]
fn it_says_what_runs_and_what_is_off_and_stops_when_told() {
    let place = Place::new();
    for signal in [Signal::TERM, Signal::INT] {
        let up = Up::start(&place);
        let (code, said) = up.stop(signal);
        assert_eq!(code, 0, "{said}");
        for expected in [
            "http://127.0.0.1:",
            "SQLite",
            "createadmin",
            "dhcpd        off",
            "tftp         off",
            "http         running",
        ] {
            assert!(said.contains(expected), "{expected:?} is not in {said}");
        }
    }
    assert!(!place.data().join("running.json").exists());
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_says_who_has_it() {
    let place = Place::new();
    let up = Up::start(&place);
    place.steelyard(&UP).fails(1, "another steelyard (process");
    place.steelyard(&UP).fails(1, &up.url);
    // The lock goes with the process, however that ends.
    up.stop(Signal::KILL);
    let (code, _) = Up::start(&place).stop(Signal::TERM);
    assert_eq!(code, 0);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let place = Place::new();
    place
        .steelyard(&["up", "--listen", &address, "--role", "region"])
        .fails(1, &address);
}

#[test]
fn a_boot_port_that_is_taken_turns_http_off_and_the_region_runs() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let place = Place::new();
    let arguments = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--http-port",
        &port,
        "--without",
        "dhcp,tftp,syslog",
        "--no-default-images",
    ];
    let (code, said) = Up::start_with(&place, &arguments, &[]).stop(Signal::TERM);
    assert_eq!(code, 0);
    assert!(
        said.contains(&format!("http         off: port {port} is taken")),
        "{said}"
    );
}

#[test]
fn a_region_without_a_rack_runs_none() {
    let place = Place::new();
    let arguments = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--role",
        "region",
        "--link-listen",
        "127.0.0.1:0",
        "--no-default-images",
    ];
    let (code, said) = Up::start_with(&place, &arguments, &[]).stop(Signal::TERM);
    assert_eq!(code, 0);
    assert!(said.contains("none in this process"), "{said}");
    assert!(!place.data().join("rack").exists());
}

#[test]
fn agents_are_taken_from_the_directory_named_and_missing_ones_are_told() {
    let place = Place::new();
    let agents = place.path("agents-here");
    std::fs::create_dir(&agents).unwrap();
    for architecture in ["amd64", "arm64"] {
        std::fs::write(
            agents.join(format!("steelyard-agent-{architecture}")),
            "an agent",
        )
        .unwrap();
    }
    let environment: [(&str, &Path); 1] = [("STEELYARD_AGENT_DIR", &agents)];
    let (_, said) = Up::start_with(&place, &UP, &environment).stop(Signal::TERM);
    assert!(!said.contains("no agent"), "{said}");
}

#[test]
fn status_tells_a_running_process_from_none() {
    let place = Place::new();
    let none = place.steelyard(&["status"]);
    assert_eq!(
        (none.code, none.out.contains("Nothing is running")),
        (1, true),
        "{none:?}"
    );
    let up = Up::start(&place);
    let mut local = place.steelyard(&["status"]);
    // The notice for other commands is written just before the address is said; services follow.
    for expected in [
        "is running (process",
        &up.url,
        "SQLite, schema",
        "MAAS 3.7.3",
        "tftp         off",
    ] {
        assert!(
            local.out.contains(expected),
            "{expected:?} is not in {local:?}"
        );
    }
    assert_eq!(local.code, 0);
    let key = place.admin("root");
    local = place.steelyard(&["status", "--url", &up.url, "--api-key", &key]);
    let local = local.ok();
    assert!(
        local.contains("rack ") && local.contains("rackd        running"),
        "{local}"
    );
    up.stop(Signal::TERM);
    assert_eq!(place.steelyard(&["status"]).code, 1);
}

#[test]
fn status_of_a_process_that_was_killed_is_not_running() {
    let place = Place::new();
    Up::start(&place).stop(Signal::KILL);
    let done = place.steelyard(&["status"]);
    assert_eq!(
        (done.code, done.out.contains("Nothing is running")),
        (1, true),
        "{done:?}"
    );
}

#[test]
fn an_administrator_can_be_made_before_and_while_it_runs() {
    let place = Place::new();
    place.admin("before");
    let up = Up::start(&place);
    assert!(!place.admin("while").is_empty());
    place
        .steelyard(&[
            "createadmin",
            "--username",
            "while",
            "--password",
            "x",
            "--email",
            "",
        ])
        .fails(1, "username: A user with that username already exists.");
    place
        .steelyard(&["createadmin", "--username", "third"])
        .fails(1, "--password is missing");
    let done = place
        .steelyard(&["createadmin", "--if-none", "--username", "never"])
        .ok();
    assert!(done.contains("already: before, while"), "{done}");
    place
        .steelyard(&["apikey", "--username", "never"])
        .fails(1, "there is no user never");
    let (_, said) = up.stop(Signal::TERM);
    assert!(said.contains("maas login PROFILE"), "{said}");
}

#[test]
fn the_password_can_come_from_standard_input_and_logs_in() {
    let place = Place::new();
    let up = Up::start(&place);
    let arguments = [
        "createadmin",
        "--username",
        "a",
        "--password",
        "-",
        "--email",
        "",
    ];
    place.maas_with_input(&arguments, "pass word\n").ok();
    let answer = |password: &str| {
        let body = format!("username=a&password={password}");
        crate::server::post(&format!("{}accounts/authenticate/", up.url), &body)
    };
    assert_eq!(answer("pass+word").0, 200);
    assert_ne!(answer("pass").0, 200);
}

#[test]
fn keys_are_made_and_deleted_under_every_name_of_the_program() {
    let place = Place::new();
    let first = place.admin("a");
    let up = Up::start(&place);
    // Asking again gives the same key, also as people know the command.
    assert_eq!(
        place.maas(&["apikey", "--username", "a"]).ok().trim(),
        first
    );
    let second = place
        .steelyard(&["apikey", "--username", "a", "--generate"])
        .ok()
        .trim()
        .to_owned();
    assert_ne!(first, second);
    let login = |key: &str| place.maas(&["login", "p", &up.url, key]);
    login(&first).ok();
    login(&second).ok();
    place.admin("b");
    place
        .steelyard(&["apikey", "--username", "b", "--delete", &second])
        .fails(1, "not a key of b");
    login(&second).ok();
    place
        .steelyard(&["apikey", "--username", "a", "--delete", &second])
        .ok();
    login(&second).fails(1, "401");
    login(&first).ok();
    place
        .steelyard(&["apikey", "--username", "a", "--delete", &second])
        .fails(1, "no such key");
}

#[test]
fn boots_finds_the_machine_by_name_or_id() {
    let place = Place::new();
    let machines = json!([
        {"system_id": "abc123", "hostname": "node1", "fqdn": "node1.maas"},
        {"system_id": "def456", "hostname": "node2", "fqdn": "node2.maas"},
    ]);
    let boots = json!({"system_id": "def456", "hostname": "node2", "boots": []});
    for name in ["node2", "node2.maas", "def456"] {
        let fake = Fake::start(vec![(200, machines.to_string()), (200, boots.to_string())]);
        let done = place
            .steelyard(&["boots", name, "--url", &fake.url, "--api-key", "a:b:c"])
            .ok();
        assert_eq!(done, "node2 (def456): no boot recorded\n");
        let lines: Vec<String> = fake.seen().into_iter().map(|s| s.line).collect();
        assert_eq!(
            lines,
            [
                "GET /api/2.0/machines/ HTTP/1.1",
                "GET /MAAS/api/v1/machines/def456/boots HTTP/1.1"
            ]
        );
    }
}

#[test]
fn boots_asks_the_process_on_the_data_directory_or_a_profile() {
    let place = Place::new();
    place
        .steelyard(&["boots", "node1"])
        .fails(1, "name a --profile");
    let up = Up::start(&place);
    place
        .steelyard(&["boots", "node1"])
        .fails(1, "there is no administrator yet");
    let key = place.admin("a");
    place
        .steelyard(&["boots", "node1"])
        .fails(1, "there is no machine node1");
    place.maas(&["login", "p", &up.url, &key]).ok();
    place
        .steelyard(&["boots", "node1", "--profile", "p"])
        .fails(1, "there is no machine node1");
    place
        .steelyard(&["boots", "node1", "--profile", "q"])
        .fails(1, "there is no profile q");
}
