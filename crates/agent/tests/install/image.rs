//! How the image comes to the disk.

use sha2::Digest as _;

use super::{Done, Lab, Machine, Recorder, Req, Resp, Server, Setup, Sha256, image, json, lab, ok};

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
