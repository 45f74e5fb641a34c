//! Whole installations on a machine made of files: the image really streamed, hashed and unpacked, the
//! new system's files really written, every other command written down.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod failure;
mod image;
mod whole;

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
    // The same bytes each time.
    let out = Command::new("tar")
        .args(["--sort=name", "--mtime=@1700000000"])
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
