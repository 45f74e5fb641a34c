//! The words of administration: `init`, `config`, `createadmin`, completion, and what a terminal shows.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Place, Up};

fn logged_in(place: &Place) -> Up {
    let up = Up::start(place);
    let key = place.admin("admin");
    place.maas(&["login", "p", &up.url, &key]).ok();
    up
}

fn init<'a>(mode: &[&'a str], user: &'a str) -> Vec<&'a str> {
    let admin = ["--admin-username", user, "--admin-password", "-"];
    let mail = ["--admin-email", "a@b.example"];
    [mode, &admin[..], &mail[..]].concat()
}

#[test]
fn init_prepares_a_host_however_its_mode_is_spelled_and_may_be_repeated() {
    for mode in [
        &["init", "--mode", "all"][..],
        &["init", "-mode", "all"],
        &["init", "-mode=all"],
        &["init", "region+rack"],
        &["init"],
    ] {
        let place = Place::new();
        let line = init(mode, "eva");
        let said = place.maas_with_input(&line, "geheim-1\n").ok();
        assert!(said.contains("eva is an administrator now"), "{said}");
        assert!(said.contains("steelyard up --data-dir"), "{said}");
        let again = place.maas_with_input(&line, "geheim-1\n").ok();
        assert!(again.contains("Administrators: eva."), "{again}");
    }
    let place = Place::new();
    let said = place
        .maas(&["init", "--mode", "region", "--skip-admin"])
        .ok();
    assert!(said.contains("steelyard up --role region"), "{said}");
    place
        .maas(&["init", "--mode", "rack"])
        .fails(1, "--maas-url and --secret");
    place.maas(&["init", "--mode", "nonsense"]).fails(2, "rack");
}

#[test]
fn every_name_makes_administrators_and_keys() {
    let place = Place::new();
    for name in ["steelyard", "maas", "maas-region", "maas-region-admin"] {
        let email = format!("--email={name}@b.example");
        let make = [
            "createadmin",
            "--username",
            name,
            "--password=geheim-1",
            &email,
        ];
        place.run(name, &make, "").ok();
        let key = place.run(name, &["apikey", "--username", name], "").ok();
        assert_eq!(key.trim().split(':').count(), 3, "{key}");
    }
    let help = place.run("maas-rack", &["register", "--help"], "").ok();
    assert!(
        help.contains("--secret") && help.contains("--url"),
        "{help}"
    );
}

#[test]
fn createadmin_without_options_asks_and_the_password_twice() {
    let place = Place::new();
    let asked = place.on_terminal("maas", &["createadmin"], "eva\none-1\ntwo-2\n");
    assert!(asked.out.contains("the two passwords differ"), "{asked:?}");
    assert_eq!(asked.code, 1);
    let asked = place
        .on_terminal(
            "maas",
            &["createadmin"],
            "eva\ngeheim-1\ngeheim-1\neva@x.example\n",
        )
        .ok();
    assert!(asked.contains("eva is an administrator now"), "{asked}");
    place
        .maas(&["createadmin"])
        .fails(1, "there is no terminal to ask for it");
}

#[test]
fn config_says_what_a_host_is_set_to_and_no_password() {
    let place = Place::new();
    let read = |p: &Place, words: &[&str]| p.maas(words).ok();
    let of = |p: &Place| -> Value { serde_json::from_str(&read(p, &["config"])).unwrap() };
    assert_eq!(of(&place)["mode"], "none");
    let up = Up::start(&place);
    let all = of(&place);
    assert_eq!(all["mode"], "region+rack");
    assert_eq!(all["maas_url"], up.url.as_str());
    assert_eq!(all["running"], true);
    assert_eq!(read(&place, &["config", "maas_url"]).trim(), up.url);
    assert!(read(&place, &["config", "--parsable"]).contains("mode=region+rack\n"));
    place.maas(&["config", "colour"]).fails(1, "no setting");
    let secret = ["config", "--database", "postgres://u:geheim@h:1/d"];
    let said = read(&place, &secret);
    assert!(said.contains("postgres://h:1/d"), "{said}");
    assert!(!said.contains("geheim"), "{said}");
}

#[test]
fn a_terminal_gets_a_table_and_a_pipe_gets_json() {
    let place = Place::new();
    let _up = logged_in(&place);
    let list = ["p", "users", "read"];
    let shown = place.on_terminal("maas", &list, "").ok();
    let head: Vec<&str> = shown.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head[0], "USERNAME", "{shown}");
    assert!(
        shown.lines().nth(1).unwrap().starts_with("admin"),
        "{shown}"
    );
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(json(&place.maas(&list).ok())[0]["username"], "admin");
    let forced = place
        .on_terminal("maas", &["p", "users", "read", "--json"], "")
        .ok();
    assert_eq!(json(&forced)[0]["username"], "admin");
    let forced = place.maas(&["p", "users", "read", "--table"]).ok();
    assert!(forced.starts_with("USERNAME"), "{forced}");
    // A refusal is shown as the server put it, and the status stays.
    let gone = place.on_terminal("maas", &["p", "user", "read", "nobody"], "");
    assert_eq!(gone.code, 2);
    assert!(gone.out.contains("No User matches"), "{gone:?}");
}

fn complete(place: &Place, name: &str, words: &[&str]) -> Vec<String> {
    let all = [&["__complete"], words].concat();
    let found = place.run(name, &all, "").ok();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn completion_knows_words_profiles_resources_actions_and_parameters() {
    let place = Place::new();
    let _up = logged_in(&place);
    for (name, words, expected) in [
        ("maas", &["log"][..], &["login", "logout"][..]),
        ("maas", &["createa"], &["createadmin"]),
        ("maas", &["p"], &["p"]),
        ("maas", &["logout", ""], &["p"]),
        (
            "maas",
            &["p", "resource-p"],
            &["resource-pool", "resource-pools"],
        ),
        ("maas", &["p", "users", "who"], &["whoami"]),
        ("maas", &["p", "users", "create", "user"], &["username="]),
        // What stands in the path comes first.
        ("maas", &["p", "tag", "update", "kern"], &[]),
        (
            "maas",
            &["p", "tag", "update", "x", "kern"],
            &["kernel_opts="],
        ),
        ("maas", &["init", "--mode", ""], &["all", "rack", "region"]),
        ("maas", &["nonsense", ""], &[]),
        ("steelyard", &["stat"], &["status"]),
        ("steelyard", &["apikey", "--gen"], &["--generate"]),
        ("steelyard", &["maas", "p", "users", "who"], &["whoami"]),
        ("steelyard", &["import", "mach"], &["machines"]),
        ("maas-rack", &["regi"], &["register-rack"]),
    ] {
        assert_eq!(complete(&place, name, words), expected, "{name} {words:?}");
    }
}

#[test]
fn bash_completes_with_the_script_for_it() {
    let place = Place::new();
    let _up = logged_in(&place);
    let script = place.steelyard(&["completion", "bash"]).ok();
    std::fs::write(place.path("completion.bash"), script).unwrap();
    let typed = "set -e; source completion.bash; COMP_WORDS=(./maas p users who); COMP_CWORD=3; \
                 _steelyard_words; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", typed])
        .current_dir(place.path(""))
        .env("HOME", place.path(""))
        .stdin(Stdio::null());
    let done = bash.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "whoami\n",
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    for shell in ["zsh", "fish"] {
        let script = place.maas(&["completion", shell]).ok();
        assert!(
            script.contains("__complete") && script.contains("maas-rack"),
            "{script}"
        );
    }
}
