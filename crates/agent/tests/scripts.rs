//! The script protocol against a metadata service: what is fetched, run, and sent.
#![allow(missing_docs)]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agent::enlist::{Enlisted, enlist};
use agent::http::Http;
use agent::journal::Journal;
use agent::run::{self, Done, Options};
use agent::scripts::{Site, run_all};
use agent::sys::Sys;
use common::{HASTY, Machine, Recorder, Req, Resp, SECRET, Server, fails, tar};
use serde_json::{Value, json};

/// A service with one archive after the other; the last one stays.
fn service(archives: Vec<Option<Vec<u8>>>, away: u32) -> Server {
    let away = AtomicU32::new(away);
    let archives = Mutex::new(archives);
    Server::start(move |r: &Req| {
        if !r.is_signed() {
            return Resp::new(401, "no key");
        }
        if away.load(Ordering::SeqCst) > 0 {
            away.fetch_sub(1, Ordering::SeqCst);
            return Resp::new(503, "the region is away");
        }
        match r.path.as_str() {
            "/MAAS/metadata/2012-03-01/maas-scripts" => {
                let mut left = archives.lock().unwrap();
                let next = if left.len() > 1 {
                    left.remove(0)
                } else {
                    left[0].clone()
                };
                next.map_or_else(|| Resp::new(204, ""), |a| Resp::new(200, a))
            }
            "/MAAS/metadata/2012-03-01/agent-work" => Resp::new(200, r#"{"work": "scripts"}"#),
            _ => Resp::new(200, "OK"),
        }
    })
}

fn script(name: &str, id: i64, more: Value) -> Value {
    let mut out = json!({"name": name, "path": format!("commissioning/{name}"), "script_result_id": id, "script_version_id": id + 1000, "timeout_seconds": 60.0, "parallel": 0, "hardware_type": 0});
    out.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    out
}

fn archive(commissioning: &[Value], testing: &[Value], files: &[(&str, &str)]) -> Vec<u8> {
    let index =
        json!({"1.0": {"commissioning_scripts": commissioning, "testing_scripts": testing}})
            .to_string();
    let mut all = vec![("index.json", index.as_str())];
    all.extend(files);
    tar(&all)
}

struct Place {
    dir: tempfile::TempDir,
    journal: Journal,
    sys: Sys,
    runner: Recorder,
    grace: Duration,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path().join("root"));
        Self {
            journal: Journal::quiet(),
            sys,
            runner: Recorder::default(),
            grace: Duration::from_secs(60),
            dir,
        }
    }

    fn site(&self) -> Site<'_> {
        Site {
            sys: &self.sys,
            runner: &self.runner,
            journal: &self.journal,
            work: self.dir.path().join("work"),
            agent: "/opt/agent".into(),
            base_url: "http://10.0.0.1:5248".to_owned(),
            grace: self.grace,
        }
    }
}

fn content(request: &Req, name: &str) -> String {
    request.field(name).unwrap_or_else(|| {
        panic!(
            "no part {name} in {:?}",
            request.parts().iter().map(|(n, _)| n).collect::<Vec<_>>()
        )
    })
}

#[test]
fn results_carry_outputs_status_and_the_scripts_own_verdict() {
    let body = "#!/bin/sh\necho to out\necho to err >&2\nprintf 'status: degraded\\n' > \"$RESULT_PATH\"\nexit 3\n";
    let first = archive(
        &[script("mine", 7, json!({}))],
        &[],
        &[("commissioning/mine", body)],
    );
    let server = service(vec![Some(first), None], 0);
    let place = Place::new();
    let tally = run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    assert_eq!((tally.ran, tally.failed), (1, vec!["mine".to_owned()]));
    let signals = server.signals();
    let words: Vec<&str> = signals.iter().map(|(s, _)| s.as_str()).collect();
    assert_eq!(words, ["WORKING", "WORKING", "FAILED"]);
    assert_eq!(signals[0].1.field("exit_status"), None);
    let result = &signals[1].1;
    assert_eq!(
        (
            content(result, "script_result_id"),
            content(result, "script_version_id"),
            content(result, "exit_status")
        ),
        ("7".into(), "1007".into(), "3".into())
    );
    assert_eq!(
        (
            content(result, "mine.out"),
            content(result, "mine.err"),
            content(result, "mine.yaml")
        ),
        (
            "to out\n".into(),
            "to err\n".into(),
            "status: degraded\n".into()
        )
    );
    let combined = content(result, "mine");
    assert!(combined.contains("to out\n") && combined.contains("to err\n"));
    assert!(content(result, "runtime").parse::<f64>().unwrap() >= 0.0);
}

#[test]
fn scripts_see_the_published_environment() {
    let body = "#!/bin/sh\nenv | sort\n";
    let first = archive(
        &[script("env", 7, json!({"has_started": true}))],
        &[],
        &[("commissioning/env", body)],
    );
    let server = service(vec![Some(first), None], 0);
    let place = Place::new();
    run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    let out = content(&server.signals()[1].1, "env.out");
    let work = place.dir.path().join("work");
    for line in [
        "MAAS_BASE_URL=http://10.0.0.1:5248".to_owned(),
        format!(
            "MAAS_RESOURCES_FILE={}",
            work.join("resources.json").display()
        ),
        format!("OUTPUT_COMBINED_PATH={}", work.join("out/env.7").display()),
        format!(
            "OUTPUT_STDOUT_PATH={}",
            work.join("out/env.7.out").display()
        ),
        format!("RESULT_PATH={}", work.join("out/env.7.yaml").display()),
        format!("DOWNLOAD_PATH={}", work.join("downloads/env.7").display()),
        format!("BMC_CONFIG_PATH={}", work.join("bmc-env.7.yaml").display()),
        "RUNTIME=60".to_owned(),
        "HAS_STARTED=True".to_owned(),
        "STEELYARD_AGENT=/opt/agent".to_owned(),
    ] {
        assert!(out.lines().any(|l| l == line), "no {line} in {out}");
    }
    assert!(out.contains("MAAS_MACHINE_EXTRA_FILE=") && out.contains("MAAS_STORAGE_CONFIG_FILE="));
}

#[test]
fn parallel_scripts_run_at_the_same_time() {
    // Each waits for the other: one after the other they would never end.
    let body = |me: &str, other: &str| {
        format!("#!/bin/sh\ntouch ../{me}\nwhile [ ! -e ../{other} ]; do sleep 0.01; done\n")
    };
    let files = [body("a", "b"), body("b", "a")];
    let any = |n: &str, id| script(n, id, json!({"parallel": 2}));
    let first = archive(
        &[any("a", 1), any("b", 2)],
        &[],
        &[
            ("commissioning/a", &files[0]),
            ("commissioning/b", &files[1]),
        ],
    );
    let server = service(vec![Some(first), None], 0);
    let place = Place::new();
    let tally = run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    assert_eq!((tally.ran, tally.failed.len()), (2, 0));
    assert_eq!(server.signals().last().unwrap().0, "OK");
}

#[test]
fn a_script_over_its_time_is_killed_and_reported() {
    let slow = script(
        "slow",
        7,
        json!({"parameters": {"runtime": {"type": "runtime", "value": "0.05", "argument_format": "--for {input}"}}}),
    );
    let first = archive(
        &[slow],
        &[],
        &[("commissioning/slow", "#!/bin/sh\necho \"$@\"\nsleep 600\n")],
    );
    let server = service(vec![Some(first), None], 0);
    let mut place = Place::new();
    // Enough for the first line to be written on a busy machine.
    place.grace = Duration::from_secs(2);
    let tally = run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    assert_eq!(tally.failed, ["slow"]);
    let signals = server.signals();
    let (_, over) = signals
        .iter()
        .find(|(s, _)| s == "TIMEDOUT")
        .expect("a TIMEDOUT signal");
    assert_eq!(content(over, "script_result_id"), "7");
    assert_eq!(content(over, "slow.out"), "--for 0.05\n");
}

#[test]
fn what_commissioning_found_may_bring_more_scripts_and_tests_follow() {
    let one = script("one", 1, json!({}));
    let test = script("check", 3, json!({"path": "testing/check"}));
    let pass = "#!/bin/sh\nexit 0\n";
    let first = archive(
        std::slice::from_ref(&one),
        std::slice::from_ref(&test),
        &[("commissioning/one", pass), ("testing/check", pass)],
    );
    let second = archive(
        &[script("matched", 2, json!({}))],
        std::slice::from_ref(&test),
        &[("commissioning/matched", pass), ("testing/check", pass)],
    );
    // The region may list what is done as well.
    let third = archive(
        &[one],
        &[test],
        &[("commissioning/one", pass), ("testing/check", pass)],
    );
    let server = service(vec![Some(first), Some(second), Some(third)], 0);
    let place = Place::new();
    let tally = run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    assert_eq!(tally.ran, 3);
    let results: Vec<String> = server
        .signals()
        .iter()
        .map(|(s, r)| {
            r.field("script_result_id")
                .map_or_else(|| s.clone(), |id| format!("{s} {id}"))
        })
        .collect();
    assert_eq!(
        results,
        [
            "WORKING 1",
            "WORKING 1",
            "WORKING 2",
            "WORKING 2",
            "TESTING",
            "WORKING 3",
            "WORKING 3",
            "OK"
        ]
    );
}

#[test]
fn an_absent_region_delays_and_loses_nothing() {
    let first = archive(
        &[script("a", 1, json!({}))],
        &[],
        &[("commissioning/a", "#!/bin/sh\n")],
    );
    let server = service(vec![Some(first), None], 7);
    let place = Place::new();
    run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    assert_eq!(
        server
            .signals()
            .iter()
            .map(|(s, _)| s.as_str())
            .collect::<Vec<_>>(),
        ["WORKING", "WORKING", "OK"]
    );
    assert!(place.journal.text().contains("the region is away"));
}

#[test]
fn a_refused_key_ends_it_at_once_and_is_not_shown() {
    let server = Server::start(|_| Resp::new(401, "who are you"));
    let place = Place::new();
    let error = run_all(&place.site(), &server.metadata(&place.journal)).unwrap_err();
    assert!(
        error.to_string().contains("answered 401: who are you"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains(SECRET));
}

#[test]
fn a_script_that_cannot_run_says_why() {
    let scripts = [
        script("gone", 1, json!({})),
        script("noexec", 2, json!({})),
        script("out", 3, json!({"path": "../../etc/passwd"})),
        script(
            "disk",
            4,
            json!({"parameters": {"storage": {"type": "storage", "value": {"serial": "ABC"}}}}),
        ),
        script("pkg", 5, json!({"packages": {"apt": ["tool"]}})),
        script("net", 6, json!({"apply_configured_networking": true})),
    ];
    let first = archive(
        &scripts,
        &[],
        &[
            ("commissioning/noexec", "#!/no/such/interpreter\n"),
            ("commissioning/disk", "#!/bin/sh\n"),
            ("commissioning/pkg", "#!/bin/sh\n"),
            ("commissioning/net", "#!/bin/sh\n"),
        ],
    );
    let server = service(vec![Some(first), None], 0);
    let mut place = Place::new();
    place.runner = Recorder::default()
        .on("dpkg-query", |_| Some(fails(1, "")))
        .on("apt-get", |_| {
            Some(fails(100, "E: Unable to locate package tool"))
        });
    let tally = run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    assert_eq!(tally.failed.len(), 6);
    let signals = server.signals();
    let result = |id: &str| {
        signals
            .iter()
            .map(|(_, r)| r)
            .find(|r| {
                r.field("script_result_id").as_deref() == Some(id)
                    && r.field("exit_status").is_some()
            })
            .unwrap()
    };
    assert_eq!(content(result("1"), "exit_status"), "127");
    assert!(content(result("2"), "noexec").contains("cannot be started"));
    assert!(content(result("3"), "out").contains("leads out of the archive"));
    assert_eq!(content(result("4"), "exit_status"), "2");
    assert!(content(result("4"), "disk").contains("no disk 'ABC'"));
    assert_eq!(content(result("5"), "exit_status"), "100");
    assert!(content(result("5"), "pkg").contains("Unable to locate package tool"));
    assert!(
        signals
            .iter()
            .any(|(s, r)| s == "INSTALLING" && r.field("script_result_id").as_deref() == Some("5"))
    );
    assert!(content(result("6"), "net").contains("no network configuration came"));
    assert!(signals.iter().any(|(s, _)| s == "APPLYING_NETCONF"));
}

#[test]
fn the_configured_network_is_in_place_only_while_its_script_runs() {
    let mut place = Place::new();
    let machine = Machine::new(&place.dir.path().join("root"));
    machine.file("etc/netplan/old.yaml", "old");
    let etc = machine.root.join("etc/netplan");
    let body = format!("#!/bin/sh\ncat {0}/*; ls {0}\n", etc.display());
    let index = json!({"1.0": {"commissioning_scripts": [script("net", 6, json!({"apply_configured_networking": true}))]}}).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [
        ("index.json", index.as_str()),
        ("commissioning/net", &body),
        ("../config/netplan.yaml", "configured"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    let server = service(vec![Some(tar.into_inner().unwrap()), None], 0);
    place.runner = Recorder::default();
    let tally = run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    assert_eq!(tally.failed, Vec::<String>::new());
    let signals = server.signals();
    let out = signals
        .iter()
        .find_map(|(_, r)| r.field("net.out"))
        .unwrap();
    assert_eq!(out, "configurednetplan.yaml\n");
    assert_eq!(
        std::fs::read_to_string(etc.join("old.yaml")).unwrap(),
        "old"
    );
    assert!(!etc.join("netplan.yaml").exists());
    assert_eq!(place.runner.lines(), ["netplan apply", "netplan apply"]);
}

#[test]
fn a_power_control_that_was_found_goes_with_the_result() {
    let body =
        "#!/bin/sh\nprintf 'power_type: ipmi\\npower_address: 10.0.0.9\\n' > $BMC_CONFIG_PATH\n";
    let first = archive(
        &[script("bmc", 1, json!({}))],
        &[],
        &[("commissioning/bmc", body)],
    );
    let server = service(vec![Some(first), None], 0);
    let place = Place::new();
    run_all(&place.site(), &server.metadata(&place.journal)).unwrap();
    let result = &server.signals()[1].1;
    assert_eq!(
        (
            content(result, "power_type"),
            content(result, "power_parameters")
        ),
        ("ipmi".into(), r#"{"power_address":"10.0.0.9"}"#.into())
    );
}

#[test]
fn heartbeats_leave_while_a_script_runs() {
    let wait = "#!/bin/sh\nwhile [ ! -e ../go ]; do sleep 0.01; done\n";
    let first = archive(
        &[script("a", 1, json!({}))],
        &[],
        &[("commissioning/a", wait)],
    );
    let server = service(vec![Some(first), None], 0);
    let place = Place::new();
    let config = place.dir.path().join("preseed.cfg");
    std::fs::write(&config, server.preseed()).unwrap();
    let mut options = options(&place, &config);
    options.heartbeat = Duration::from_millis(20);
    let block = place.sys.path("tmp/block-poweroff");
    let go = options.work.join("downloads/go");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| run::run(&options, &place.sys, &place.runner, &place.journal));
        let beats = || {
            server
                .signals()
                .iter()
                .filter(|(s, r)| s == "WORKING" && r.field("script_result_id").is_none())
                .count()
        };
        for _ in 0..1000 {
            if beats() >= 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(beats() >= 2);
        assert!(
            block.exists(),
            "the machine could be switched off while it works"
        );
        std::fs::write(&go, "").unwrap();
        assert_eq!(
            run.join().unwrap().unwrap(),
            Done::Scripts {
                ran: 1,
                failed: Vec::new()
            }
        );
    });
    assert!(!block.exists() && !place.sys.path("tmp/block-reboot").exists());
}

fn options(place: &Place, config: &std::path::Path) -> Options {
    let mut options = Options::new(config.to_owned());
    options.work = place.dir.path().join("work");
    options.target = place.dir.path().join("target");
    options.agent = "/bin/true".into();
    options.machine = "x86_64".to_owned();
    options.delivery = HASTY;
    options.known_pause = Duration::ZERO;
    options.power_wait = Duration::ZERO;
    options
}

/// A region to enlist with. `registered` is its answer to the first question; `refuse_power` refuses a power control.
fn enlistment(registered: bool, refuse_power: bool) -> Server {
    let preseeds = AtomicU32::new(0);
    let scripts = AtomicU32::new(0);
    Server::start(move |r: &Req| {
        let host = r.headers["host"].clone();
        match (
            r.method.as_str(),
            r.path.split('?').next().unwrap(),
            r.is_signed(),
        ) {
            ("GET", "/MAAS/api/2.0/machines/", false) => {
                assert!(r.path.contains("op=is_registered&mac_address=52%3A54%3A00%3A00%3A00%3A02%2C52%3A54%3A00%3A00%3A00%3A01"), "{}", r.path);
                Resp::new(200, registered.to_string())
            }
            ("GET", "/MAAS/metadata/2012-03-01/maas-scripts", false) => {
                let bmc = "#!/bin/sh\nprintf 'power_type: ipmi\\npower_address: 10.0.0.9\\n' > $BMC_CONFIG_PATH\n";
                let one = json!({"name": "30-bmc", "path": "commissioning/30-bmc", "timeout_seconds": 5, "parallel": 0});
                Resp::new(200, archive(&[one], &[], &[("commissioning/30-bmc", bmc)]))
            }
            ("POST", "/MAAS/api/2.0/machines/", false) => {
                if refuse_power && r.field("power_type").is_some() {
                    return Resp::new(400, r#"{"power_type": ["no"]}"#);
                }
                assert_eq!(
                    (
                        r.field("architecture").as_deref(),
                        r.field("commission").as_deref()
                    ),
                    (Some("amd64"), Some("true"))
                );
                assert_eq!(
                    r.field("mac_addresses").as_deref(),
                    Some("52:54:00:00:00:02,52:54:00:00:00:01")
                );
                Resp::new(200, r#"{"system_id": "abc123", "resource_uri": "/x/"}"#)
            }
            ("GET", "/MAAS/metadata/latest/by-id/abc123/", false) => {
                // The rack hears of the machine a moment later.
                if preseeds.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Resp::new(403, "not yet");
                }
                Resp::new(
                    200,
                    format!(
                        "#cloud-config\ndatasource: {{MAAS: {{consumer_key: consumer-1, metadata_url: 'http://{host}/MAAS/metadata/', token_key: token-1, token_secret: {SECRET}}}}}\n"
                    ),
                )
            }
            ("GET", "/MAAS/metadata/2012-03-01/maas-scripts", true) => {
                match scripts.fetch_add(1, Ordering::SeqCst) {
                    0 => Resp::new(
                        200,
                        archive(
                            &[script("a", 1, json!({}))],
                            &[],
                            &[("commissioning/a", "#!/bin/sh\n")],
                        ),
                    ),
                    _ => Resp::new(204, ""),
                }
            }
            ("POST", "/MAAS/metadata/2012-03-01/", true) => Resp::new(200, "OK"),
            other => Resp::new(404, format!("{other:?}")),
        }
    })
}

fn unknown_machine() -> (Place, std::path::PathBuf) {
    let place = Place::new();
    Machine::new(&place.dir.path().join("root"))
        .file("proc/cmdline", "ro BOOTIF=01-52-54-00-00-00-02")
        .nic(
            "pci0000:00/0000:00:02.0/virtio0",
            "eth0",
            "52:54:00:00:00:01",
            &[],
        )
        .nic(
            "pci0000:00/0000:00:03.0/virtio1",
            "eth1",
            "52:54:00:00:00:02",
            &[],
        )
        .nic(
            "pci0000:00/0000:00:04.0/usb1/1-1",
            "usb0",
            "02:00:00:00:00:02",
            &[],
        )
        .files(
            "sys/class/net/lo",
            &[("type", "772"), ("address", "00:00:00:00:00:00")],
        );
    let config = place.dir.path().join("91.cfg");
    (place, config)
}

fn anonymous(server: &Server) -> String {
    format!(
        "#cloud-config\ndatasource: {{MAAS: {{metadata_url: '{}/MAAS/metadata/'}}}}\n",
        server.url
    )
}

#[test]
fn an_unknown_machine_enlists_and_goes_on_to_commissioning() {
    let server = enlistment(false, false);
    let (place, config) = unknown_machine();
    std::fs::write(&config, anonymous(&server)).unwrap();
    let done = run::run(
        &options(&place, &config),
        &place.sys,
        &place.runner,
        &place.journal,
    )
    .unwrap();
    assert_eq!(
        done,
        Done::Scripts {
            ran: 1,
            failed: Vec::new()
        }
    );
    let words: Vec<String> = server.signals().into_iter().map(|(s, _)| s).collect();
    assert_eq!(words, ["COMMISSIONING", "WORKING", "WORKING", "OK"]);
    let post = server
        .requests()
        .into_iter()
        .find(|r| r.method == "POST" && r.path == "/MAAS/api/2.0/machines/")
        .unwrap();
    assert_eq!(post.field("power_type").as_deref(), Some("ipmi"));
    // Started again, the machine knows who it is.
    assert!(
        agent::config::Config::read(&config)
            .unwrap()
            .credentials
            .is_some()
    );
    assert!(!place.journal.text().contains(SECRET));
}

#[test]
fn a_power_control_that_is_refused_does_not_stop_enlistment() {
    let server = enlistment(false, true);
    let (place, config) = unknown_machine();
    std::fs::write(&config, anonymous(&server)).unwrap();
    let config = agent::config::Config::read(&config).unwrap();
    let enlisted = enlist(
        &place.site(),
        &Http::new(place.journal.clone()),
        &config,
        "x86_64",
        HASTY,
    )
    .unwrap();
    assert!(matches!(enlisted, Enlisted::New { .. }));
    assert!(place.journal.text().contains("trying without"));
}

#[test]
fn a_registered_machine_does_not_enlist_again() {
    let server = enlistment(true, false);
    let (place, config) = unknown_machine();
    std::fs::write(&config, anonymous(&server)).unwrap();
    let done = run::run(
        &options(&place, &config),
        &place.sys,
        &place.runner,
        &place.journal,
    )
    .unwrap();
    assert_eq!(done, Done::Known);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn rescue_reports_and_stays_and_nothing_switches_off() {
    for (work, words, commands, done) in [
        (r#"{"work": "rescue"}"#, vec!["OK"], vec![], Done::Rescue),
        (
            r#"{"work": "nothing"}"#,
            vec![],
            vec!["systemctl --force poweroff", "poweroff -f"],
            Done::Nothing,
        ),
    ] {
        let server = Server::start(move |r| {
            if r.path.ends_with("/agent-work") {
                Resp::new(200, work)
            } else {
                Resp::new(200, "OK")
            }
        });
        let place = Place::new();
        let config = place.dir.path().join("91.cfg");
        std::fs::write(&config, server.preseed()).unwrap();
        assert_eq!(
            run::run(
                &options(&place, &config),
                &place.sys,
                &place.runner,
                &place.journal
            )
            .unwrap(),
            done
        );
        assert_eq!(
            server
                .signals()
                .iter()
                .map(|(s, _)| s.as_str())
                .collect::<Vec<_>>(),
            words
        );
        assert_eq!(place.runner.lines(), commands);
    }
}
