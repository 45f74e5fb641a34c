//! Installations from the first command to the reboot.

use super::{Done, ROOT_UUID, SECRET, Setup, lab, ok};

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
