//! Which disk is touched, and how it is made free.

use super::{Done, Recorder, Req, Resp, Server, Setup, lab, storage};

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
