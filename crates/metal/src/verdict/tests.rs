use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::Timestamp;
use crate::status::Status;
use crate::timeline::PowerFault;

/// Entries a second apart.
fn boot(what: Vec<What>) -> Vec<Entry> {
    what.into_iter()
        .zip(0..)
        .map(|(w, s)| Entry::new(Timestamp(1_000_000_000 + s * 1_000_000), w))
        .collect()
}

fn power(error: Option<(PowerFaultClass, &str)>) -> What {
    What::Power {
        command: "cycle".into(),
        driver: "ipmi".into(),
        error: error.map(|(class, message)| PowerFault {
            class,
            message: message.into(),
        }),
    }
}

fn dhcp(message: &str, arch: u16, file: Option<&str>) -> What {
    What::Dhcp {
        message: message.into(),
        arch: Some(arch),
        speaker: "firmware".into(),
        boot_file: file.map(str::to_owned),
    }
}

fn os_dhcp(message: &str) -> What {
    What::Dhcp {
        message: message.into(),
        arch: None,
        speaker: "os".into(),
        boot_file: None,
    }
}

/// The four packets of an address.
fn leased(arch: u16, file: &str) -> Vec<What> {
    vec![
        dhcp("discover", arch, None),
        dhcp("offer", arch, Some(file)),
        dhcp("request", arch, None),
        dhcp("ack", arch, Some(file)),
    ]
}

fn file(path: &str, outcome: FileOutcome) -> What {
    What::File {
        transport: "http".into(),
        path: path.into(),
        bytes: 1_000,
        size: Some(2_000),
        outcome,
    }
}

fn fetched(path: &str) -> What {
    file(path, FileOutcome::Complete)
}

fn config(purpose: Purpose) -> What {
    What::Config {
        loader: "pxelinux".into(),
        path: "pxelinux.cfg/01-52-54-00-00-00-01".into(),
        purpose,
    }
}

fn metadata(path: &str, status: u16) -> What {
    What::Metadata {
        method: "GET".into(),
        path: path.into(),
        status,
    }
}

fn note(text: &str) -> What {
    What::Note { text: text.into() }
}

fn report(name: &str, event: &str, result: Option<&str>, description: &str) -> What {
    What::Report {
        origin: "curtin".into(),
        name: name.into(),
        event: event.into(),
        result: result.map(str::to_owned),
        description: description.into(),
    }
}

fn signal(status: &str, script: Option<&str>) -> What {
    What::Signal {
        status: status.into(),
        script: script.map(str::to_owned),
        exit_status: script.map(|_| 1),
        message: String::new(),
    }
}

const KERNEL: &str = "/images/aaaaaaa/debian/amd64/generic/trixie/stable/boot-kernel";
const INITRD: &str = "/images/bbbbbbb/debian/amd64/generic/trixie/stable/boot-initrd";
const ROOT: &str = "/images/ccccccc/debian/amd64/generic/trixie/stable/squashfs";

/// A machine with BIOS that was told what to do.
fn to_config(purpose: Purpose) -> Vec<What> {
    let mut out = vec![power(None)];
    out.extend(leased(0, "lpxelinux.0"));
    out.push(fetched("lpxelinux.0"));
    out.push(config(purpose));
    out
}

/// A machine whose ephemeral system is fetched.
fn to_root(purpose: Purpose) -> Vec<What> {
    let mut out = to_config(purpose);
    out.extend([fetched(KERNEL), fetched(INITRD), fetched(ROOT)]);
    out
}

/// A machine whose ephemeral system has its metadata.
fn to_metadata() -> Vec<What> {
    let mut out = to_root(Purpose::Xinstall);
    out.push(metadata(
        "/MAAS/metadata/latest/by-id/abc/?op=get_preseed",
        200,
    ));
    out.push(metadata(
        "/MAAS/metadata/2012-03-01/meta-data/instance-id",
        200,
    ));
    out
}

/// A machine that is installed.
fn to_installed() -> Vec<What> {
    let mut out = to_metadata();
    out.push(report("cmd-install", "start", None, "installing"));
    out.push(What::Metadata {
        method: "POST".into(),
        path: "/MAAS/metadata/latest/by-id/abc/?op=netboot_off".into(),
        status: 200,
    });
    out.push(report(
        "cmd-install",
        "finish",
        Some("SUCCESS"),
        "installed",
    ));
    out
}

fn with(mut base: Vec<What>, more: impl IntoIterator<Item = What>) -> Vec<What> {
    base.extend(more);
    base
}

/// Each cause with a boot that has it.
fn cases() -> Vec<(&'static str, Vec<What>)> {
    use FileOutcome::{Aborted, Failed, NotFound};
    use PowerFaultClass::{Action, Auth, Connection, Settings};
    let offered = vec![
        power(None),
        dhcp("discover", 7, None),
        dhcp("offer", 7, Some("bootx64.efi")),
    ];
    let acked = |arch, name| with(vec![power(None)], leased(arch, name));
    vec![
        (
            "power-refused",
            vec![power(Some((Auth, "the password is wrong")))],
        ),
        (
            "power-unreachable",
            vec![power(Some((Connection, "10.0.0.9 did not answer")))],
        ),
        (
            "power-settings",
            vec![power(Some((Settings, "no power_address")))],
        ),
        (
            "power-failed",
            vec![power(Some((Action, "chassis control: 0xd5")))],
        ),
        ("no-request", vec![power(None)]),
        (
            "no-address",
            vec![
                power(None),
                note(
                    "asked for an address and got none: the subnet has no free address in a dynamic range, and none is reserved",
                ),
            ],
        ),
        (
            "other-dhcp-server",
            with(
                offered.clone(),
                [note(
                    "took the offer of another DHCP server, 10.0.0.3, instead of ours",
                )],
            ),
        ),
        ("offer-not-taken", offered),
        (
            "address-refused",
            vec![
                power(None),
                dhcp("request", 0, None),
                dhcp("nak", 0, None),
                note("the address asked for was refused: it is not of this network"),
            ],
        ),
        (
            "not-booted-from-network",
            vec![
                power(None),
                os_dhcp("discover"),
                os_dhcp("offer"),
                os_dhcp("request"),
                os_dhcp("ack"),
            ],
        ),
        ("no-loader", acked(0, "lpxelinux.0")),
        (
            "loader-missing",
            with(acked(7, "bootx64.efi"), [file("bootx64.efi", NotFound)]),
        ),
        (
            "wrong-loader",
            with(acked(7, "lpxelinux.0"), [fetched("lpxelinux.0")]),
        ),
        (
            "no-boot-config",
            with(acked(7, "bootx64.efi"), [fetched("bootx64.efi")]),
        ),
        (
            "no-image",
            with(
                to_config(Purpose::Commissioning),
                [note("no ubuntu/noble image with a kernel for amd64")],
            ),
        ),
        (
            "no-kernel",
            with(to_config(Purpose::Commissioning), [file(KERNEL, Aborted)]),
        ),
        (
            "no-root",
            with(
                to_config(Purpose::Commissioning),
                [fetched(KERNEL), fetched(INITRD), file(ROOT, Aborted)],
            ),
        ),
        (
            "image-altered",
            with(
                to_config(Purpose::Xinstall),
                [
                    fetched(KERNEL),
                    fetched(INITRD),
                    note(
                        "altered content: the bytes of cccc have the hash dddd (asked for as squashfs)",
                    ),
                    file(ROOT, Failed),
                ],
            ),
        ),
        (
            "file-unreadable",
            with(
                to_config(Purpose::Xinstall),
                [fetched(KERNEL), file(INITRD, Failed)],
            ),
        ),
        ("no-metadata", to_root(Purpose::Commissioning)),
        (
            "credentials-refused",
            with(
                to_metadata(),
                [metadata("/MAAS/metadata/2012-03-01/user-data", 401)],
            ),
        ),
        (
            "metadata-failed",
            with(
                to_root(Purpose::Commissioning),
                [metadata(
                    "/MAAS/metadata/latest/by-id/abc/?op=get_preseed",
                    503,
                )],
            ),
        ),
        (
            "script-failed",
            with(
                to_metadata(),
                [
                    signal("WORKING", None),
                    signal("FAILED", Some("50-maas-01-commissioning")),
                ],
            ),
        ),
        (
            "install-failed",
            with(
                to_metadata(),
                [
                    report("cmd-install", "start", None, "installing"),
                    report(
                        "cmd-install",
                        "finish",
                        Some("FAIL"),
                        "make-file-systems failed: mkfs.ext4 ended with exit status 1",
                    ),
                ],
            ),
        ),
        (
            "stopped-reporting",
            with(
                to_metadata(),
                [
                    signal("WORKING", None),
                    report(
                        "cmd-install/stage-extract/extract-image",
                        "progress",
                        None,
                        "40 %",
                    ),
                ],
            ),
        ),
        ("installed-not-back", to_installed()),
        (
            "local-boot-silent",
            with(leased(0, "lpxelinux.0"), [config(Purpose::Local)]),
        ),
        (
            "installed-not-finished",
            with(
                to_installed(),
                [
                    config(Purpose::Local),
                    os_dhcp("ack"),
                    metadata("/MAAS/metadata/2012-03-01/meta-data/instance-id", 200),
                ],
            ),
        ),
        (
            "unknown",
            vec![What::Syslog {
                severity: 6,
                app: "kernel".into(),
                text: "hello".into(),
            }],
        ),
    ]
}

#[test]
fn every_cause_of_the_table_is_found() {
    let mut found = BTreeSet::new();
    for (code, what) in cases() {
        let v = judge(&boot(what), None);
        assert_eq!(v.code, code, "{v}");
        let row = table::ALL.iter().find(|c| c.code == code).unwrap();
        assert!(v.sentence.starts_with(row.sentence), "{v}");
        assert_eq!(v.remedy, row.remedy);
        found.insert(code);
    }
    let all: BTreeSet<_> = table::ALL.iter().map(|c| c.code).collect();
    assert_eq!(found, all);
}

#[test]
fn no_two_causes_share_a_sentence_or_a_remedy() {
    for pick in [
        |c: &Cause| c.code,
        |c: &Cause| c.sentence,
        |c: &Cause| c.remedy,
    ] {
        let unique: BTreeSet<_> = table::ALL.iter().map(pick).collect();
        assert_eq!(unique.len(), table::ALL.len());
    }
}

#[test]
fn nothing_at_all_is_said_so() {
    let v = judge(&[], None);
    assert_eq!(v.code, "no-request");
    assert_eq!(v.last_seen, "nothing at all");
    let status = What::Status {
        from: Status::Allocated,
        to: Status::Deploying,
    };
    assert_eq!(judge(&boot(vec![status]), None).last_seen, "nothing at all");
}

#[test]
fn the_last_thing_seen_is_named_with_its_time() {
    let v = judge(
        &boot(with(
            to_config(Purpose::Commissioning),
            [file(KERNEL, FileOutcome::Aborted)],
        )),
        None,
    );
    assert_eq!(
        v.last_seen,
        format!(
            "{KERNEL} over http, 1000 of 2000 bytes, the machine stopped taking it, 7 s after power-on"
        )
    );
    assert!(v.to_string().ends_with("after power-on."));
    // Our own commands are not signs of the machine.
    let mut late = boot(vec![power(None), dhcp("discover", 0, None), power(None)]);
    late[1].last = Timestamp(late[0].first.0 + 75_000_000);
    late[1].count = 4;
    late[2].last = Timestamp(late[0].first.0 + 99_000_000);
    let v = judge(&late, None);
    assert_eq!(
        v.last_seen,
        "DHCP discover (firmware), 4 times, 1 min 15 s after power-on"
    );
}

#[test]
fn a_loader_for_another_firmware_is_the_cause_whatever_the_two_are() {
    let check = |arch: Option<u16>, method: Option<&str>, name: &str| {
        let what = vec![
            What::Dhcp {
                message: "ack".into(),
                arch,
                speaker: "firmware".into(),
                boot_file: Some(name.into()),
            },
            fetched(name),
        ];
        judge(&boot(what), method).code
    };
    assert_eq!(check(Some(0), None, "bootx64.efi"), "wrong-loader");
    assert_eq!(check(Some(7), None, "lpxelinux.0"), "wrong-loader");
    assert_eq!(check(Some(7), None, "undionly.kpxe"), "wrong-loader");
    assert_eq!(check(Some(11), None, "bootx64.efi"), "wrong-loader");
    assert_eq!(
        check(Some(16), None, "http://10.0.0.2:5248/images/bootaa64.efi"),
        "wrong-loader"
    );
    assert_eq!(check(None, Some("uefi"), "lpxelinux.0"), "wrong-loader");
    // The record itself counts for more than what was seen before.
    assert_eq!(
        check(Some(0), Some("uefi"), "lpxelinux.0"),
        "no-boot-config"
    );
    assert_eq!(check(Some(7), None, "snponly.efi"), "no-boot-config");
    assert_eq!(check(None, None, "lpxelinux.0"), "no-boot-config");
}

#[test]
fn what_was_overcome_is_not_the_cause() {
    // A wrong password, corrected, then a boot that ran.
    let refused = power(Some((PowerFaultClass::Auth, "no")));
    let v = judge(
        &boot(with(vec![refused], to_root(Purpose::Commissioning))),
        None,
    );
    assert_eq!(v.code, "no-metadata");
    // A file that failed once and was fetched then.
    let v = judge(
        &boot(with(
            to_config(Purpose::Commissioning),
            [
                note("altered content: x"),
                file(KERNEL, FileOutcome::Failed),
                fetched(KERNEL),
                fetched(INITRD),
                fetched(ROOT),
            ],
        )),
        None,
    );
    assert_eq!(v.code, "no-metadata");
    // Credentials that were refused once.
    let v = judge(
        &boot(with(
            to_root(Purpose::Commissioning),
            [metadata("/a", 401), metadata("/a", 200)],
        )),
        None,
    );
    assert_eq!(v.code, "stopped-reporting");
    // A power-on that fails after a boot: the machine was never restarted.
    let refused = power(Some((PowerFaultClass::Connection, "gone")));
    let v = judge(
        &boot(with(to_root(Purpose::Commissioning), [refused])),
        None,
    );
    assert_eq!(v.code, "power-unreachable");
    // A power state that could not be asked for later has stopped nothing.
    let question = What::Power {
        command: "query".into(),
        driver: "ipmi".into(),
        error: Some(PowerFault {
            class: PowerFaultClass::Connection,
            message: "gone".into(),
        }),
    };
    let v = judge(
        &boot(with(to_root(Purpose::Commissioning), [question])),
        None,
    );
    assert_eq!(v.code, "no-metadata");
}

#[test]
fn an_altered_image_is_told_from_other_failures_of_the_installation() {
    let failed = |why: &str| {
        with(
            to_metadata(),
            [
                report("cmd-install", "start", None, "installing"),
                report("cmd-install", "finish", Some("FAIL"), why),
            ],
        )
    };
    let altered = "extract-image failed: altered image: http://10.0.0.2:5248/images/x has 5 bytes, planned were 6";
    assert_eq!(judge(&boot(failed(altered)), None).code, "image-altered");
    assert_eq!(
        judge(&boot(failed("grub-install ended with 1")), None).code,
        "install-failed"
    );
}

#[test]
fn an_installed_machine_that_does_not_finish_is_told_from_one_that_does_not_start() {
    let code = |more: Vec<What>| judge(&boot(with(to_installed(), more)), None).code;
    let trailing = report("modules-final", "finish", Some("SUCCESS"), "");
    assert_eq!(code(vec![trailing.clone()]), "installed-not-back");
    assert_eq!(
        code(vec![trailing, config(Purpose::Local)]),
        "local-boot-silent"
    );
    assert_eq!(code(vec![os_dhcp("ack")]), "installed-not-finished");
    // The firmware's request begins a record of its own.
    let next = with(
        leased(7, "bootx64.efi"),
        [
            fetched("bootx64.efi"),
            config(Purpose::Local),
            os_dhcp("ack"),
        ],
    );
    assert_eq!(judge(&boot(next), None).code, "installed-not-finished");
}

#[test]
fn the_documented_table_is_the_table() {
    let mut text = String::from(
        "# Verdicts\n\nA boot that stalls ends with a verdict: what is wrong, what to do, and the last thing that was seen of the machine.\nThis table is made from `crates/metal/src/verdict/table.rs`; run its tests with `UPDATE_EXPECT=1` to write it anew.\n\n| verdict | what is wrong | what to do |\n|---|---|---|\n",
    );
    for c in table::ALL {
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            c.code, c.sentence, c.remedy
        ));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verdicts.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text);
}

fn a_text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        prop::sample::select(vec![
            "",
            "discover",
            "offer",
            "request",
            "ack",
            "nak",
            "firmware",
            "os",
            "cycle",
            "off",
            "cmd-install",
            "finish",
            "start",
            "FAIL",
            "SUCCESS",
            "FAILED",
            "OK",
            "WORKING",
            "lpxelinux.0",
            "bootx64.efi",
            KERNEL,
            INITRD,
            ROOT,
            "altered content",
            "?op=netboot_off",
            "/meta-data/",
            "init-local",
            "no x image with a kernel for y",
        ])
        .prop_map(str::to_owned),
    ]
}

fn a_what() -> impl Strategy<Value = What> {
    let t = a_text;
    let outcome = prop::sample::select(vec![
        FileOutcome::Complete,
        FileOutcome::Probed,
        FileOutcome::Aborted,
        FileOutcome::NotFound,
        FileOutcome::Failed,
    ]);
    let purpose = prop::sample::select(vec![
        Purpose::Enlist,
        Purpose::Commissioning,
        Purpose::Xinstall,
        Purpose::Local,
        Purpose::Poweroff,
    ]);
    let class = prop::sample::select(vec![
        PowerFaultClass::Auth,
        PowerFaultClass::Connection,
        PowerFaultClass::Settings,
        PowerFaultClass::Action,
    ]);
    prop_oneof![
        (t(), any::<Option<u16>>(), t(), prop::option::of(t())).prop_map(
            |(message, arch, speaker, boot_file)| {
                What::Dhcp {
                    message,
                    arch,
                    speaker,
                    boot_file,
                }
            }
        ),
        (t(), t(), any::<u64>(), any::<Option<u64>>(), outcome).prop_map(
            |(transport, path, bytes, size, outcome)| {
                What::File {
                    transport,
                    path,
                    bytes,
                    size,
                    outcome,
                }
            }
        ),
        (t(), t(), purpose).prop_map(|(loader, path, purpose)| What::Config {
            loader,
            path,
            purpose
        }),
        (t(), t(), any::<u16>()).prop_map(|(method, path, status)| What::Metadata {
            method,
            path,
            status
        }),
        (t(), prop::option::of(t()), any::<Option<i64>>(), t()).prop_map(
            |(status, script, exit_status, message)| {
                What::Signal {
                    status,
                    script,
                    exit_status,
                    message,
                }
            }
        ),
        (t(), t(), t(), prop::option::of(t()), t()).prop_map(
            |(origin, name, event, result, description)| {
                What::Report {
                    origin,
                    name,
                    event,
                    result,
                    description,
                }
            }
        ),
        (t(), t(), prop::option::of((class, t()))).prop_map(|(command, driver, error)| {
            What::Power {
                command,
                driver,
                error: error.map(|(class, message)| PowerFault { class, message }),
            }
        }),
        t().prop_map(|text| What::Note { text }),
        (any::<u8>(), t(), t()).prop_map(|(severity, app, text)| What::Syslog {
            severity,
            app,
            text
        }),
        Just(What::Status {
            from: Status::Ready,
            to: Status::Allocated
        }),
    ]
}

proptest! {
    #[test]
    fn every_boot_has_a_verdict(
        entries in prop::collection::vec((a_what(), any::<i64>(), any::<i64>(), any::<u32>()), 0..20),
        method in prop::option::of(a_text()),
    ) {
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|(what, first, last, count)| Entry {
                first: Timestamp(first),
                last: Timestamp(last),
                count,
                ..Entry::new(Timestamp(first), what)
            })
            .collect();
        let v = judge(&entries, method.as_deref());
        prop_assert!(table::ALL.iter().any(|c| c.code == v.code));
        prop_assert!(!v.sentence.is_empty() && !v.remedy.is_empty() && !v.last_seen.is_empty());
        // However much was said, a person can read the answer.
        prop_assert!(v.to_string().len() < 8_000 && !v.to_string().contains('\n'));
        prop_assert_eq!(judge(&entries, method.as_deref()), v);
    }
}
