//! What is said and done when an installation fails.

use super::{
    Done, Lab, OnFailure, Options, Recorder, Req, Resp, Server, Setup, Sys, fails, lab, ok, run,
};

#[test]
fn a_failed_command_is_reported_with_its_words_and_the_machine_stays_up() {
    let lab = lab(Setup::default());
    let runner = lab.recorder().on("grub-install", |_| {
        Some(fails(1, "grub-install: error: embedding is not possible"))
    });
    let error = lab.run(&runner).unwrap_err().to_string();
    assert!(
        error.contains("install-boot-loader failed: `chroot")
            && error.contains("exit status 1")
            && error.contains("embedding is not possible"),
        "{error}"
    );
    let signals = lab.server.signals();
    assert_eq!(signals.len(), 1);
    assert_eq!(
        (
            signals[0].0.as_str(),
            signals[0].1.field("attempt").as_deref()
        ),
        ("FAILED", Some("7"))
    );
    assert!(
        signals[0]
            .1
            .field("error")
            .unwrap()
            .contains("embedding is not possible")
    );
    let failed: Vec<(String, String)> = lab
        .finished()
        .into_iter()
        .filter(|(_, r)| r == "FAIL")
        .collect();
    let names: Vec<&str> = failed.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(
        names,
        [
            "cmd-install/stage-curthooks/install-boot-loader",
            "cmd-install/stage-curthooks",
            "cmd-install"
        ]
    );
    let last = lab.server.events().pop().unwrap();
    assert_eq!(last["files"][0]["path"], "/tmp/install.log");
    assert!(!lab.netboot_off() && runner.never("reboot"));
    // cloud-init must not reboot it either.
    assert!(lab.machine.root.join("tmp/block-reboot").exists());
}

#[test]
fn a_failed_installation_switches_off_when_told() {
    let lab = lab(Setup::default());
    let runner = lab.recorder().on("mkfs.ext4", |_| Some(fails(1, "no")));
    let options = Options {
        on_failure: OnFailure::PowerOff,
        ..lab.options()
    };
    assert!(
        run::run(
            &options,
            &Sys::new(&lab.machine.root),
            &runner,
            &lab.journal
        )
        .is_err()
    );
    assert_eq!(
        runner.lines().last().map(String::as_str),
        Some("poweroff -f")
    );
}

#[test]
fn every_step_can_fail_and_the_next_try_succeeds() {
    for words in [
        "wipefs --all",
        "sfdisk",
        "mkfs.ext4",
        "mkswap",
        "mount -t ext4",
        "tar --extract",
        "systemctl enable",
        "mount --bind --make-private /dev",
        "grub-install",
        "update-grub",
        "sync",
    ] {
        let lab = lab(Setup::default());
        let runner = lab.recorder();
        let broken = Recorder {
            real: vec!["tar"],
            ..Recorder::default()
        }
        .on(words, |_| Some(fails(9, "broken on purpose")));
        let dev = lab.machine.root.join("dev");
        let broken = broken.on("sfdisk", move |_| {
            ["vda1", "vda2", "vda3"]
                .iter()
                .for_each(|n| std::fs::write(dev.join(n), vec![0; 33 << 20]).unwrap());
            Some(ok(""))
        });
        let first = lab.run(&broken);
        if words == "wipefs --all" {
            // The agent's own zeroes have done it already.
            assert_eq!(first.unwrap(), Done::Installed, "{words}");
        } else {
            let error = first.unwrap_err().to_string();
            assert!(
                error.contains("broken on purpose") && error.contains("exit status 9"),
                "{words}: {error}"
            );
        }
        assert_eq!(lab.run(&runner).unwrap(), Done::Installed, "{words}");
    }
}

#[test]
fn an_order_that_is_not_understood_is_told_to_the_region() {
    let server = Server::start(|r: &Req| {
        if r.path.ends_with("/agent-work") {
            Resp::new(
                200,
                r#"{"work": "install", "storage": [{"type": "teleport"}]}"#,
            )
        } else {
            Resp::new(200, "OK")
        }
    });
    let lab = lab(Setup::default());
    let lab = Lab { server, ..lab };
    assert!(lab.run(&lab.recorder()).is_err());
    let signals = lab.server.signals();
    assert_eq!(signals[0].0, "FAILED");
    assert!(
        signals[0]
            .1
            .field("error")
            .unwrap()
            .contains("not a work order this agent understands")
    );
}
