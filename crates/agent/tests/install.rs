//! Whole installations on a machine made of files: the image really streamed, hashed and unpacked, the
//! new system's files really written, every other command written down.
#![allow(missing_docs)]

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::journal::Journal;
use agent::run::{self, Done, OnFailure, Options};
use agent::sys::Sys;
use common::{HASTY, Machine, Recorder, Req, Resp, SECRET, Server, fails, ok, serve_file};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DISK_BYTES: u64 = 64 << 20;
const ROOT_UUID: &str = "11111111-2222-3333-4444-555555555555";

struct Lab {
    dir: tempfile::TempDir,
    machine: Machine,
    journal: Journal,
    server: Server,
    plan: Value,
}

/// What varies between installations.
struct Setup {
    uefi: bool,
    ftype: &'static str,
    /// Bytes the rack serves, when not those of the plan.
    served: Option<Vec<u8>>,
    /// Breaks in the image's transfer, last first.
    cuts: Vec<usize>,
    /// Files of the image beside the usual ones.
    files: Vec<(&'static str, &'static str)>,
    network: Value,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            uefi: false,
            ftype: "root-tgz",
            served: None,
            cuts: Vec::new(),
            files: Vec::new(),
            network: json!({"network": {"version": 2, "ethernets": {"eth0": {"match": {"macaddress": "52:54:00:00:00:01"}, "set-name": "eth0", "addresses": ["10.0.0.5/24"], "gateway4": "10.0.0.1", "nameservers": {"addresses": ["10.0.0.1"]}}}}}),
        }
    }
}

/// A root file system as a packed archive.
fn image(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    machine.files(
        "",
        &[
            ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            (
                "etc/hosts",
                "127.0.0.1 localhost\n127.0.1.1 builder\n::1 ip6-localhost\n",
            ),
            ("etc/machine-id", "0123456789abcdef\n"),
            ("var/lib/cloud/instances/old/x", "x"),
            ("boot/vmlinuz-6.1", "kernel"),
            ("boot/grub/.keep", ""),
            ("usr/sbin/grub-install", "x"),
            ("usr/sbin/update-grub", "x"),
            ("usr/lib/grub/i386-pc/core.img", "x"),
            ("lib/systemd/systemd-networkd", "x"),
            // Something that does not compress away, so that a transfer can break in its middle.
            (
                "usr/share/noise",
                &(0..40_000u64)
                    .map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                    .collect::<String>(),
            ),
        ],
    );
    machine.files("", files);
    let out = Command::new("tar")
        .args(["-C", dir.path().to_str().unwrap(), "-cz", "."])
        .output()
        .unwrap();
    assert!(out.status.success());
    out.stdout
}

fn lab(setup: Setup) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(&dir.path().join("root"));
    machine.file(
        "proc/cmdline",
        "ro console=tty0 console=ttyS0,115200 BOOTIF=01-52-54-00-00-00-01",
    );
    machine.file("proc/self/mounts", "");
    machine.file("etc/resolv.conf", "nameserver 10.0.0.1\n");
    machine.disk(
        "pci0000:00/0000:00:05.0/virtio2",
        "vda",
        "254:0",
        DISK_BYTES / 512,
        &[("serial", "LABD1")],
    );
    machine.disk(
        "pci0000:00/0000:00:06.0/virtio3",
        "vdb",
        "254:16",
        DISK_BYTES / 512,
        &[("serial", "OTHER")],
    );
    for disk in ["vda", "vdb"] {
        // Old content everywhere, so that a wipe is seen.
        let mut file = std::fs::File::create({
            machine.file(&format!("dev/{disk}"), "");
            machine.root.join("dev").join(disk)
        })
        .unwrap();
        file.write_all(&vec![0xaa; DISK_BYTES as usize]).unwrap();
    }
    if setup.uefi {
        machine.file("sys/firmware/efi/efivars/x", "");
    }
    let content = image(&setup.files);
    let mut plan = json!({
        "work": "install", "attempt": 7, "hostname": "node1", "fqdn": "node1.maas",
        "image": {"url": "", "sha256": hex::encode(Sha256::digest(&content)), "size": content.len(), "ftype": setup.ftype},
        "storage": storage(setup.uefi),
        "network": setup.network,
        "datasource": {"metadata_url": "http://10.0.0.1:5248/MAAS/metadata/", "consumer_key": "consumer-2", "token_key": "token-2", "token_secret": "second-secret"},
        "files": [{"path": "/etc/extra.conf", "content": "extra", "mode": 0o640}],
        "kernel_options": "nomodeset", "timeout_minutes": 30,
    });
    let served = setup.served.unwrap_or(content);
    let cuts = Mutex::new(setup.cuts);
    let work = Arc::new(Mutex::new(String::new()));
    let order = Arc::clone(&work);
    let server = Server::start(move |r: &Req| {
        if r.path.starts_with("/images/") {
            return serve_file(r, &served, &cuts);
        }
        if !r.is_signed() {
            return Resp::new(401, "no key");
        }
        if r.path.ends_with("/agent-work") {
            Resp::new(200, order.lock().unwrap().clone())
        } else {
            Resp::new(200, "OK")
        }
    });
    plan["image"]["url"] = format!("{}/images/abc/root.tgz", server.url).into();
    *work.lock().unwrap() = plan.to_string();
    Lab {
        dir,
        machine,
        journal: Journal::quiet(),
        server,
        plan,
    }
}

fn storage(uefi: bool) -> Value {
    let first = if uefi {
        json!({"type": "partition", "id": "p1", "number": 1, "size": 8 << 20, "offset": 1 << 20, "device": "d", "flag": "boot", "wipe": "superblock"})
    } else {
        json!({"type": "partition", "id": "p1", "number": 1, "size": 1 << 20, "offset": 1 << 20, "device": "d", "flag": "bios_grub", "wipe": "zero"})
    };
    let mut out = vec![
        json!({"type": "disk", "id": "d", "name": "sda", "serial": "LABD1", "ptable": "gpt", "grub_device": true, "wipe": "superblock"}),
        first,
        json!({"type": "partition", "id": "p2", "number": 2, "size": 32 << 20, "offset": 10 << 20, "device": "d", "uuid": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "flag": "linux", "wipe": "superblock"}),
        json!({"type": "partition", "id": "p3", "number": 3, "size": 4 << 20, "offset": 50 << 20, "device": "d"}),
        json!({"type": "format", "id": "f2", "fstype": "ext4", "volume": "p2", "uuid": ROOT_UUID, "label": "root"}),
        json!({"type": "format", "id": "f3", "fstype": "swap", "volume": "p3", "uuid": "22222222-0000-0000-0000-000000000000"}),
        json!({"type": "mount", "id": "m2", "device": "f2", "path": "/", "options": "relatime"}),
    ];
    if uefi {
        // The plan's order has the lower directory first: the agent sorts.
        out.insert(6, json!({"type": "format", "id": "f1", "fstype": "fat32", "volume": "p1", "uuid": "1234abcd-0000-0000-0000-000000000000", "label": "efi"}));
        out.insert(
            7,
            json!({"type": "mount", "id": "m1", "device": "f1", "path": "/boot/efi"}),
        );
    }
    Value::from(out)
}

impl Lab {
    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn options(&self) -> Options {
        let config = self.dir.path().join("91.cfg");
        std::fs::write(&config, self.server.preseed()).unwrap();
        let mut options = Options::new(config);
        options.work = self.dir.path().join("work");
        options.target = self.target();
        options.machine = "x86_64".to_owned();
        options.delivery = HASTY;
        options.power_wait = Duration::ZERO;
        options
    }

    /// A recorder in which partitioning makes the partitions' devices and tar really unpacks.
    fn recorder(&self) -> Recorder {
        let dev = self.machine.root.join("dev");
        let make = move || {
            for (name, size) in [("vda1", 8u64 << 20), ("vda2", 32 << 20), ("vda3", 4 << 20)] {
                std::fs::write(dev.join(name), vec![0xbb; size as usize]).unwrap();
            }
        };
        let again = make.clone();
        let partitioned = move |make: &dyn Fn()| {
            make();
            Some(ok(""))
        };
        Recorder {
            real: vec!["tar"],
            ..Recorder::default()
        }
        .on("sfdisk", move |_| partitioned(&make))
        .on("sgdisk", move |_| {
            again();
            Some(ok(""))
        })
    }

    fn run(&self, runner: &Recorder) -> Result<Done, run::RunError> {
        run::run(
            &self.options(),
            &Sys::new(&self.machine.root),
            runner,
            &self.journal,
        )
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.target().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn mode(&self, path: &str) -> u32 {
        std::fs::metadata(self.target().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }

    /// Names and results of the finished events.
    fn finished(&self) -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        self.server
            .events()
            .iter()
            .filter(|e| e["event_type"] == "finish")
            .map(|e| (text(&e["name"]), text(&e["result"])))
            .collect()
    }

    fn netboot_off(&self) -> bool {
        self.server
            .requests()
            .iter()
            .any(|r| r.field("op").as_deref() == Some("netboot_off"))
    }
}

#[test]
fn a_bios_machine_is_installed_from_disk_to_reboot() {
    let lab = lab(Setup::default());
    let runner = lab.recorder();
    assert_eq!(lab.run(&runner).unwrap(), Done::Installed);
    let target = lab.target().display().to_string();

    // Commands, in their order.
    let order = [
        "wipefs --all --force /dev/vda",
        "sfdisk --force --wipe always --wipe-partitions always /dev/vda",
        &format!(
            "mkfs.ext4 -F -q -U {ROOT_UUID} -E lazy_itable_init=1,lazy_journal_init=1 -L root /dev/vda2"
        ),
        "mkswap -f -U 22222222-0000-0000-0000-000000000000 /dev/vda3",
        &format!("mount -t ext4 /dev/vda2 {target}"),
        &format!(
            "tar --extract --file=- --directory {target} --preserve-permissions --numeric-owner --acls --xattrs --xattrs-include=* --gzip"
        ),
        &format!("chroot {target} systemctl enable systemd-networkd.service"),
        &format!("mount --bind --make-private /dev {target}/dev"),
        &format!("chroot {target} grub-install --target=i386-pc --recheck /dev/vda"),
        &format!("chroot {target} update-grub"),
        &format!("umount --recursive {target}"),
        "systemctl --force reboot",
        "reboot -f",
    ];
    let places: Vec<usize> = order.iter().map(|words| runner.place(words)).collect();
    assert!(
        places.is_sorted(),
        "{places:?}\n{}",
        runner.lines().join("\n")
    );
    assert!(runner.never("vdb") && runner.never("apt-get") && runner.never("x86_64-efi"));

    // The partition table.
    let log = runner.log.lock().unwrap();
    let script = log
        .iter()
        .find(|c| c.argv[0] == "sfdisk")
        .unwrap()
        .stdin
        .clone()
        .unwrap();
    assert_eq!(
        script,
        "label: gpt\nunit: sectors\nsector-size: 512\n\n\
         /dev/vda1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n\
         /dev/vda2 : start=20480, size=65536, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE\n\
         /dev/vda3 : start=102400, size=8192, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n"
    );
    drop(log);

    // Old content: gone at both ends of the disk and the partitions, untouched on the other disk.
    let device = |name: &str| std::fs::read(lab.machine.root.join("dev").join(name)).unwrap();
    let (disk, other, root) = (device("vda"), device("vdb"), device("vda2"));
    assert!(
        disk[..1 << 20].iter().all(|b| *b == 0)
            && disk[disk.len() - (1 << 20)..].iter().all(|b| *b == 0)
    );
    assert!(other.iter().all(|b| *b == 0xaa));
    assert!(root[..1 << 20].iter().all(|b| *b == 0) && root[2 << 20] == 0xbb);

    // The new system.
    assert_eq!(
        lab.read("etc/fstab"),
        format!(
            "# <file system> <mount point> <type> <options> <dump> <pass>\nUUID={ROOT_UUID} / ext4 relatime 0 1\nUUID=22222222-0000-0000-0000-000000000000 none swap sw 0 0\n"
        )
    );
    assert_eq!(lab.read("etc/hostname"), "node1\n");
    assert_eq!(
        lab.read("etc/hosts"),
        "127.0.0.1 localhost\n127.0.1.1 node1.maas node1\n::1 ip6-localhost\n"
    );
    assert_eq!(lab.read("etc/machine-id"), "");
    assert!(!lab.target().join("var/lib/cloud/instances").exists());
    assert!(
        lab.read("etc/systemd/network/10-eth0.network")
            .contains("Address=10.0.0.5/24\n")
    );
    assert_eq!(
        lab.read("etc/cloud/cloud.cfg.d/99-steelyard-network.cfg"),
        "network: {config: disabled}\n"
    );
    assert_eq!(lab.read("etc/resolv.conf"), "nameserver 10.0.0.1\n");
    assert_eq!(
        lab.read("etc/cloud/cloud.cfg.d/90_maas_datasource.cfg"),
        "datasource_list: [ MAAS ]\n"
    );
    assert_eq!(
        lab.read("etc/cloud/cloud.cfg.d/90_maas_cloud_config.cfg"),
        "datasource:\n  MAAS:\n    consumer_key: consumer-2\n    token_key: token-2\n    token_secret: second-secret\n    metadata_url: \"http://10.0.0.1:5248/MAAS/metadata/\"\n"
    );
    assert_eq!(
        lab.mode("etc/cloud/cloud.cfg.d/90_maas_cloud_config.cfg"),
        0o600
    );
    assert!(
        lab.read("etc/cloud/cloud.cfg.d/90_maas_cloud_init_reporting.cfg")
            .contains("type: webhook\n")
    );
    assert_eq!(
        (
            lab.read("etc/extra.conf").as_str(),
            lab.mode("etc/extra.conf")
        ),
        ("extra", 0o640)
    );
    let grub = lab.read("etc/default/grub.d/90-steelyard.cfg");
    assert!(
        grub.contains("console=tty0 console=ttyS0,115200 nomodeset\"")
            && grub.contains("--unit=0 --speed=115200"),
        "{grub}"
    );

    // What the region was told.
    let events = lab.server.events();
    assert_eq!(
        (
            events[0]["name"].as_str(),
            events[0]["event_type"].as_str(),
            events[0]["origin"].as_str(),
            events[0]["attempt"].as_i64()
        ),
        (Some("cmd-install"), Some("start"), Some("curtin"), Some(7))
    );
    let finished = lab.finished();
    assert!(finished.iter().all(|(_, r)| r == "SUCCESS"), "{finished:?}");
    let stages: Vec<&str> = finished
        .iter()
        .map(|(n, _)| n.as_str())
        .filter(|n| n.matches('/').count() < 2)
        .collect();
    assert_eq!(
        stages,
        [
            "cmd-install/stage-partitioning",
            "cmd-install/stage-extract",
            "cmd-install/stage-curthooks",
            "cmd-install/stage-late",
            "cmd-install"
        ]
    );
    let last = events.last().unwrap();
    assert_eq!(
        (
            last["files"][0]["path"].as_str(),
            last["files"][0]["encoding"].as_str()
        ),
        (Some("/tmp/install.log"), Some("base64"))
    );
    assert!(lab.netboot_off());
    // The end of the agent is not the end of the deployment: no OK is signalled.
    assert!(lab.server.signals().is_empty());

    // Secrets are in no log.
    let log = lab.journal.text();
    assert!(!log.contains(SECRET) && !log.contains("second-secret") && !log.contains("token-2"));
}

#[test]
fn a_uefi_machine_gets_shim_in_both_places_and_keeps_booting_the_network_first() {
    let lab = lab(Setup {
        uefi: true,
        files: vec![
            ("usr/lib/shim/shimx64.efi.signed", "shim"),
            ("usr/lib/shim/mmx64.efi.signed", "mm"),
            ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grub"),
            ("usr/lib/grub/x86_64-efi/moddep.lst", "x"),
        ],
        ..Setup::default()
    });
    let vars =
        "BootCurrent: 0003\nBootOrder: 0003,0001\nBoot0001* debian\tHD(1)\nBoot0003* UEFI PXEv4\n";
    let created =
        "BootCurrent: 0003\nBootOrder: 0004,0003\nBoot0003* UEFI PXEv4\nBoot0004* debian\tHD(1)\n";
    let runner = lab.recorder().on("efibootmgr", move |cmd| {
        match cmd.argv.get(1).map(String::as_str) {
            None => Some(ok(vars)),
            Some("--create") => Some(ok(created)),
            Some(_) => None,
        }
    });
    assert_eq!(lab.run(&runner).unwrap(), Done::Installed);
    let target = lab.target().display().to_string();
    for words in [
        "mkfs.vfat -F 32 -i 1234ABCD -n EFI /dev/vda1".to_owned(),
        format!("mount -t vfat /dev/vda1 {target}/boot/efi"),
        format!("chroot {target} grub-install --target=x86_64-efi --efi-directory=/boot/efi --bootloader-id=debian --no-nvram --recheck"),
        "efibootmgr --quiet --bootnum 0001 --delete-bootnum".to_owned(),
        "efibootmgr --create --disk /dev/vda --part 1 --label debian --loader '\\EFI\\debian\\shimx64.efi'".to_owned(),
        "efibootmgr --quiet --bootorder 0003,0004".to_owned(),
    ] {
        runner.place(&words);
    }
    assert!(
        runner.place(&format!("mount -t ext4 /dev/vda2 {target}")) < runner.place("mount -t vfat")
    );
    assert!(runner.never("i386-pc"));
    for (path, content) in [
        ("EFI/debian/shimx64.efi", "shim"),
        ("EFI/debian/grubx64.efi", "grub"),
        ("EFI/debian/mmx64.efi", "mm"),
        ("EFI/BOOT/BOOTX64.EFI", "shim"),
        ("EFI/BOOT/grubx64.efi", "grub"),
    ] {
        assert_eq!(lab.read(&format!("boot/efi/{path}")), content, "{path}");
    }
    let stub = format!(
        "search.fs_uuid {ROOT_UUID} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
    );
    assert_eq!(
        (
            lab.read("boot/efi/EFI/BOOT/grub.cfg"),
            lab.read("boot/efi/EFI/debian/grub.cfg")
        ),
        (stub.clone(), stub)
    );
    assert!(
        lab.read("etc/fstab")
            .contains("UUID=1234-ABCD /boot/efi vfat defaults 0 2\n")
    );
}

#[test]
fn a_uefi_machine_without_an_esp_in_its_plan_says_so() {
    let mut lab = lab(Setup {
        uefi: true,
        ..Setup::default()
    });
    lab.plan["storage"] = storage(false);
    let work = lab.plan.to_string();
    let preseed_server = Server::start(move |r: &Req| {
        if r.path.ends_with("/agent-work") {
            Resp::new(200, work.clone())
        } else {
            Resp::new(200, "OK")
        }
    });
    let images = std::mem::replace(&mut lab.server, preseed_server);
    let error = lab.run(&lab.recorder()).unwrap_err().to_string();
    assert!(error.contains("check-plan failed: this machine was booted by UEFI, but the plan mounts no EFI system partition"), "{error}");
    drop(images);
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let lab = lab(Setup {
        cuts: vec![30_000, 20_000, 3],
        ..Setup::default()
    });
    assert_eq!(lab.run(&lab.recorder()).unwrap(), Done::Installed);
    let ranges: Vec<Option<String>> = lab
        .server
        .requests()
        .iter()
        .filter(|r| r.path.starts_with("/images/"))
        .map(|r| r.headers.get("range").cloned())
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=3-".to_owned()),
            Some("bytes=20003-".to_owned()),
            Some("bytes=50003-".to_owned())
        ]
    );
    assert_eq!(lab.read("etc/hostname"), "node1\n");
}

#[test]
fn an_altered_image_is_named_with_both_hashes() {
    let mut altered = image(&[]);
    let n = altered.len();
    // gzip's header has the file time here: unpacking does not notice.
    altered[5] ^= 1;
    let lab = lab(Setup {
        served: Some(altered.clone()),
        ..Setup::default()
    });
    assert_eq!(
        altered.len() as u64,
        lab.plan["image"]["size"].as_u64().unwrap(),
        "{n}"
    );
    let error = lab.run(&lab.recorder()).unwrap_err().to_string();
    let (got, planned) = (
        hex::encode(Sha256::digest(&altered)),
        lab.plan["image"]["sha256"].as_str().unwrap(),
    );
    assert!(
        error.contains("extract-image failed: altered image")
            && error.contains(&got)
            && error.contains(planned),
        "{error}"
    );
    // In the middle, where unpacking fails first: still the altered image is the reason.
    let mut broken = image(&[]);
    broken[n / 2..n / 2 + 100].fill(0);
    let lab = self::lab(Setup {
        served: Some(broken),
        ..Setup::default()
    });
    let error = lab.run(&lab.recorder()).unwrap_err().to_string();
    assert!(error.contains("altered image"), "{error}");
    assert!(!lab.netboot_off());
}

#[test]
fn an_image_of_another_size_is_refused_before_it_is_unpacked() {
    let mut longer = image(&[]);
    longer.push(0);
    let lab = lab(Setup {
        served: Some(longer),
        ..Setup::default()
    });
    let runner = lab.recorder();
    let error = lab.run(&runner).unwrap_err().to_string();
    assert!(
        error.contains("altered image") && error.contains("planned were"),
        "{error}"
    );
    assert!(runner.never("tar --extract"));
}

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
fn a_disk_that_is_not_there_is_named_with_those_that_are_and_nothing_is_touched() {
    let lab = lab(Setup::default());
    std::fs::write(
        lab.machine
            .root
            .join("sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/serial"),
        "ANOTHER",
    )
    .unwrap();
    let runner = lab.recorder();
    let error = lab.run(&runner).unwrap_err().to_string();
    assert!(error.contains("find-disks failed: disk d (serial LABD1) is not in this machine; it has vda (serial ANOTHER"), "{error}");
    assert_eq!(runner.lines(), Vec::<String>::new());
    assert!(
        std::fs::read(lab.machine.root.join("dev/vda"))
            .unwrap()
            .iter()
            .all(|b| *b == 0xaa)
    );
}

#[test]
fn what_holds_the_disk_is_taken_apart_from_the_top() {
    let lab = lab(Setup::default());
    lab.machine.partition("vda", "vda1", 1, 2048, 20_000);
    // vda1 carries an array, the array a mapping, the mapping is mounted; there is swap as well.
    lab.machine
        .file("sys/block/vda/vda1/holders/md0", "")
        .file("sys/block/md0/md/level", "raid1")
        .file("sys/block/md0/size", "1");
    lab.machine
        .file("sys/block/md0/holders/dm-0", "")
        .file("sys/block/dm-0/dm/name", "vg-old")
        .file("sys/block/dm-0/size", "1");
    lab.machine.file("proc/self/mounts", "/dev/mapper/vg-old /mnt/old ext4 rw 0 0\n/dev/vda1 /mnt/old/in\\040side ext4 rw 0 0\n/dev/vdb1 /keep ext4 rw 0 0\n");
    lab.machine.file("proc/swaps", "Filename Type Size Used Priority\n/dev/vda1 partition 1 0 -2\n/dev/vdb2 partition 1 0 -2\n");
    let runner = lab.recorder();
    assert_eq!(lab.run(&runner).unwrap(), Done::Installed);
    let order = [
        "umount '/mnt/old/in side'",
        "umount /mnt/old",
        "swapoff /dev/vda1",
        "dmsetup remove --retry vg-old",
        "mdadm --stop /dev/md0",
        "wipefs",
    ];
    let places: Vec<usize> = order
        .iter()
        .map(|w| {
            runner
                .lines()
                .iter()
                .position(|l| l.starts_with(w))
                .unwrap_or_else(|| panic!("{w}"))
        })
        .collect();
    assert!(places.is_sorted(), "{}", runner.lines().join("\n"));
    assert!(runner.never("/keep") && runner.never("vdb2"));
}

#[test]
fn the_running_systems_own_disk_is_refused() {
    let lab = lab(Setup::default());
    lab.machine
        .file("proc/self/mounts", "/dev/vda / ext4 rw 0 0\n");
    let runner = lab.recorder();
    let error = lab.run(&runner).unwrap_err().to_string();
    assert!(
        error.contains("the running system is on /dev/vda"),
        "{error}"
    );
    assert!(runner.never("wipefs") && runner.never("umount"));
}

#[test]
fn netplan_is_used_where_the_image_has_it() {
    let lab = lab(Setup {
        files: vec![
            ("usr/sbin/netplan", "x"),
            ("etc/netplan/01-image.yaml", "x"),
        ],
        ..Setup::default()
    });
    assert_eq!(lab.run(&lab.recorder()).unwrap(), Done::Installed);
    let text = lab.read("etc/netplan/50-cloud-init.yaml");
    assert!(
        text.starts_with("network:\n  version: 2\n  ethernets:\n    eth0:\n"),
        "{text}"
    );
    assert_eq!(lab.mode("etc/netplan/50-cloud-init.yaml"), 0o600);
    assert!(
        !lab.target().join("etc/netplan/01-image.yaml").exists()
            && !lab.target().join("etc/systemd/network").exists()
    );
}

#[test]
fn an_image_without_boot_loader_gets_one_from_its_packages() {
    let lab = lab(Setup {
        files: vec![("usr/bin/apt-get", "x")],
        ..Setup::default()
    });
    let target = lab.target();
    let runner = lab.recorder();
    let policy = target.join("usr/sbin/policy-rc.d");
    let seen = policy.clone();
    let runner = runner.on("apt-get -qy update", move |_| {
        assert!(
            seen.exists(),
            "services would start while packages are installed"
        );
        Some(ok(""))
    });
    // As if the image had come without GRUB's files.
    let late = target.clone();
    let runner = runner.on("mount -t proc", move |_| {
        std::fs::remove_dir_all(late.join("usr/lib/grub")).unwrap();
        Some(ok(""))
    });
    assert_eq!(lab.run(&runner).unwrap(), Done::Installed);
    assert!(
        runner.place("apt-get -qy update")
            < runner.place("apt-get -qy install --no-install-recommends -- grub-pc")
    );
    assert!(runner.place("grub-pc") < runner.place("grub-install"));
    assert!(!policy.exists());
}

#[test]
fn sgdisk_stands_in_for_sfdisk() {
    let lab = lab(Setup::default());
    let runner = Recorder {
        missing: vec!["sfdisk", "wipefs"],
        ..lab.recorder()
    };
    assert_eq!(lab.run(&runner).unwrap(), Done::Installed);
    runner.place("sgdisk --clear --set-alignment=1 --new=1:2048:4095 --typecode=1:21686148-6449-6E6F-744E-656564454649 --new=2:20480:86015 --typecode=2:0FC63DAF-8483-4772-8E79-3D69D8477DE4 --partition-guid=2:AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE");
    assert!(runner.never("wipefs"));
}

#[test]
fn a_squashfs_is_stored_mounted_and_copied() {
    let lab = lab(Setup {
        ftype: "squashfs",
        ..Setup::default()
    });
    let target = lab.target();
    let runner = lab.recorder().on("mount -t squashfs", {
        let (target, size) = (target.clone(), lab.plan["image"]["size"].as_u64().unwrap());
        move |cmd| {
            assert_eq!(
                std::fs::metadata(target.join(".steelyard-image"))
                    .unwrap()
                    .len(),
                size
            );
            assert_eq!(&cmd.argv[3..5], ["-o", "loop,ro"]);
            Machine::new(std::path::Path::new(&cmd.argv[6]))
                .file("etc/os-release", "ID=debian\n")
                .file("usr/sbin/update-grub", "x")
                .file("boot/vmlinuz", "x");
            Some(ok(""))
        }
    });
    let runner = Recorder {
        real: vec!["cp"],
        ..runner
    };
    assert_eq!(lab.run(&runner).unwrap(), Done::Installed);
    assert!(!target.join(".steelyard-image").exists());
    assert_eq!(lab.read("usr/sbin/update-grub"), "x");
    let mounted = format!("{}-image", target.display());
    assert!(
        runner.place(&format!("cp --archive {mounted}/. {}/", target.display()))
            < runner.place(&format!("umount {mounted}"))
    );
}

#[test]
fn a_whole_disk_image_is_written_as_it_is_and_given_its_datasource() {
    let lab = lab(Setup {
        ftype: "root-dd.gz",
        ..Setup::default()
    });
    let target = lab.target();
    lab.machine.partition("vda", "vda1", 1, 2048, 20_000);
    let runner = lab.recorder().on("mount -t ext4 /dev/vda1", move |_| {
        Machine::new(&target).file("etc/cloud/cloud.cfg", "");
        Some(ok(""))
    });
    let runner = Recorder {
        real: vec!["gzip"],
        ..runner
    };
    assert_eq!(lab.run(&runner).unwrap(), Done::Installed);
    let disk = std::fs::read(lab.machine.root.join("dev/vda")).unwrap();
    // A tar archive's magic, at its place in the first header.
    assert_eq!(&disk[257..262], b"ustar");
    assert!(
        lab.read("etc/cloud/cloud.cfg.d/90_maas_cloud_config.cfg")
            .contains("token_key: token-2")
    );
    assert!(runner.never("sfdisk") && runner.never("grub-install") && lab.netboot_off());
}

#[test]
fn an_image_type_that_cannot_be_installed_is_named() {
    let lab = lab(Setup {
        ftype: "boot-kernel",
        ..Setup::default()
    });
    let error = lab.run(&lab.recorder()).unwrap_err().to_string();
    assert!(
        error.contains("image type 'boot-kernel' cannot be installed"),
        "{error}"
    );
    assert!(
        std::fs::read(lab.machine.root.join("dev/vda"))
            .unwrap()
            .iter()
            .all(|b| *b == 0xaa)
    );
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

#[test]
fn a_rack_without_ranges_starts_again_and_the_image_is_whole() {
    let lab = lab(Setup::default());
    let content = image(&[]);
    let (served, first) = (content.clone(), std::sync::atomic::AtomicBool::new(true));
    let images = Server::start(move |_| {
        let mut response = Resp::new(200, served.clone());
        response.cut = first
            .swap(false, std::sync::atomic::Ordering::SeqCst)
            .then_some(25_000);
        response
    });
    let mut plan = lab.plan.clone();
    plan["image"] = json!({"url": format!("{}/x", images.url), "sha256": hex::encode(Sha256::digest(&content)), "size": content.len(), "ftype": "root-tgz"});
    let work = plan.to_string();
    let server = Server::start(move |r: &Req| {
        if r.path.ends_with("/agent-work") {
            Resp::new(200, work.clone())
        } else {
            Resp::new(200, "OK")
        }
    });
    let lab = Lab { server, ..lab };
    assert_eq!(lab.run(&lab.recorder()).unwrap(), Done::Installed);
    assert_eq!(images.requests().len(), 2);
}
