//! The storage of machines: disks, partitions, file systems, and what is made of several of them.

use metal::status::Status;
use serde_json::Value;
use steelyard_tests::{Client, Front};

/// A Ready machine with disks `sda` (64 GB, the boot disk) to `sde` (100 GB each), and the path of its node.
async fn ready(f: &Front) -> (String, String) {
    let machine = f.machine(&[]).await;
    let id = machine["system_id"].as_str().expect("an id").to_owned();
    f.put_into(&id, Status::Ready, None).await;
    let at = format!("nodes/{id}/");
    for (name, size) in [
        ("sda", "64G"),
        ("sdb", "100G"),
        ("sdc", "100G"),
        ("sdd", "100G"),
        ("sde", "100G"),
    ] {
        let path = format!("/dev/disk/by-id/{name}");
        let fields = [
            ("name", name),
            ("size", size),
            ("block_size", "512"),
            ("id_path", path.as_str()),
        ];
        drop(
            f.admin
                .create(&format!("{at}blockdevices/"), &fields)
                .await
                .good(),
        );
    }
    (id, at)
}

fn used_for(machine: &Value) -> Vec<&str> {
    let disks = machine["blockdevice_set"].as_array().expect("disks");
    disks
        .iter()
        .map(|d| d["used_for"].as_str().expect("text"))
        .collect()
}

async fn machine(c: &Client, id: &str) -> Value {
    c.get(&format!("machines/{id}/")).await.good()
}

fn number(v: &Value) -> u64 {
    v.as_u64().expect("a number")
}

steelyard_tests::front_test! {
    /// From nothing to mounted and back.
    async fn a_disk_is_partitioned_formatted_and_mounted(f: Front) {
        let (id, at) = ready(f).await;
        let a = &f.admin;
        let disk = format!("{at}blockdevices/sdb/");
        let d = a.get(&disk).await.good();
        assert_eq!((&d["used_for"], &d["available_size"]), (&"Unused".into(), &99_992_207_360_u64.into()));
        let parts = format!("{at}blockdevices/{}/partitions/", d["id"]);
        let first = a.create(&parts, &[("size", "10G"), ("bootable", "true")]).await.good();
        assert_eq!(number(&first["size"]), 10_000_000_000 / (4 << 20) * (4 << 20), "rounded down to 4 MiB");
        assert_eq!(first["path"], "/dev/disk/by-dname/sdb-part1");
        let rest = a.create(&parts, &[]).await.good();
        let d = a.get(&disk).await.good();
        assert_eq!((&d["available_size"], &d["partition_table_type"]), (&0.into(), &"GPT".into()));
        assert_eq!(number(&first["size"]) + number(&rest["size"]), 99_992_207_360);
        assert_eq!(a.create(&parts, &[("size", "1G")]).await.expect(400).json()["size"][0], "The size is too large: 0 bytes are left.");
        let p = format!("{at}blockdevices/{}/partition/{}", d["id"], first["id"]);
        assert_eq!(a.op(&p, "mount", &[("mount_point", "/srv")]).await.status, 400, "nothing to mount");
        let made = a.op(&p, "format", &[("fstype", "ext4"), ("label", "data")]).await.good();
        assert_eq!(made["used_for"], "Unmounted ext4 formatted filesystem");
        let fs = &made["filesystem"];
        assert_eq!((&fs["label"], &fs["mount_point"]), (&"data".into(), &Value::Null));
        let made = a.op(&p, "mount", &[("mount_point", "/srv"), ("mount_options", "noatime")]).await.good();
        assert_eq!(made["used_for"], "ext4 formatted filesystem mounted at /srv");
        // One mount point, one file system; a mounted one stays.
        let whole = format!("{at}blockdevices/sdc/");
        drop(a.op(&whole, "format", &[("fstype", "xfs")]).await.good());
        assert!(a.op(&whole, "mount", &[("mount_point", "/srv")]).await.expect(400).json()["mount_point"].is_array());
        assert!(a.op(&whole, "mount", &[("mount_point", "srv")]).await.expect(400).json()["mount_point"].is_array());
        assert_eq!(a.op(&p, "format", &[("fstype", "xfs")]).await.status, 400);
        assert_eq!(a.op(&p, "unformat", &[]).await.status, 400);
        let swap = format!("{at}blockdevices/{}/partition/{}", d["id"], rest["id"]);
        drop(a.op(&swap, "format", &[("fstype", "swap")]).await.good());
        assert_eq!(a.op(&swap, "mount", &[]).await.good()["filesystem"]["mount_point"], "none");
        drop(a.op(&p, "unmount", &[]).await.good());
        assert_eq!(a.op(&p, "unmount", &[]).await.status, 400);
        assert_eq!(a.op(&p, "unformat", &[]).await.good()["filesystem"], Value::Null);
        assert_eq!(a.op(&p, "add_tag", &[("tag", "fast")]).await.good()["tags"], serde_json::json!(["fast"]));
        assert_eq!(a.op(&p, "remove_tag", &[("tag", "fast")]).await.good()["tags"], serde_json::json!([]));
        drop(a.delete(&p).await.expect(204));
        drop(a.get(&p).await.expect(404));
        assert_eq!(used_for(&machine(a, &id).await)[1], "GPT partitioned with 1 partition");
    }

    /// Only what is not used by anything else; only what fits.
    async fn a_volume_group_is_made_of_free_devices_and_cut_into_volumes(f: Front) {
        let (id, at) = ready(f).await;
        let a = &f.admin;
        let groups = format!("{at}volume-groups/");
        let fields = [("name", "vg"), ("block_devices", "sdb"), ("block_devices", "sdc")];
        let vg = a.create(&groups, &fields).await.good();
        assert_eq!(vg["human_size"], "200.0 GB");
        assert_eq!((&vg["available_size"], &vg["used_size"]), (&vg["size"], &0.into()));
        assert_eq!(vg["devices"][0]["used_for"], "LVM volume for vg");
        assert!(a.create(&groups, &[("name", "other"), ("block_devices", "sdb")]).await.expect(400).json()["block_devices"].is_array());
        let one = format!("{at}volume-group/{}/", vg["id"]);
        let lv = a.op(&one, "create_logical_volume", &[("name", "lv"), ("size", "50%")]).await.good();
        assert_eq!((&lv["name"], &lv["type"]), (&"vg-lv".into(), &"virtual".into()));
        assert!(lv.get("firmware_version").is_none(), "{lv}");
        let rest = a.op(&one, "create_logical_volume", &[("name", "rest")]).await.good();
        let seen = a.get(&one).await.good();
        assert_eq!(number(&lv["size"]) + number(&rest["size"]), number(&seen["size"]));
        assert_eq!(seen["available_size"], 0);
        // With volumes it stays, and so do the devices that they lie on.
        drop(a.delete(&one).await.expect(400));
        drop(a.update(&one, &[("remove_block_devices", "sdb")]).await.expect(400));
        drop(a.delete(&format!("{at}blockdevices/sdb/")).await.expect(409));
        assert!(a.update(&one, &[("add_block_devices", "vg-lv")]).await.expect(400).json()["add_block_devices"].is_array(), "not on itself");
        let renamed = a.update(&one, &[("name", "other"), ("add_block_devices", "sdd")]).await.good();
        assert_eq!(renamed["logical_volumes"][0]["name"], "other-lv");
        let m = machine(a, &id).await;
        assert_eq!(m["volume_groups"], serde_json::json!([{"system_id": id, "id": vg["id"], "__incomplete__": true}]));
        assert_eq!(m["virtualblockdevice_set"].as_array().map(Vec::len), Some(2));
        for volume in [&lv, &rest] {
            drop(a.op(&one, "delete_logical_volume", &[("id", &volume["id"].to_string())]).await.expect(204));
        }
        drop(a.delete(&one).await.expect(204));
        assert!(used_for(&machine(a, &id).await).iter().all(|u| *u == "Unused"));
        drop(a.get(&one).await.expect(404));
    }

    /// Every level with too few members and with enough; the boot disk takes part with a partition.
    async fn a_raid_has_enough_members_and_the_size_that_they_give(f: Front) {
        let (id, at) = ready(f).await;
        let a = &f.admin;
        let raids = format!("{at}raids/");
        let member = 100_000_000_000_u64 - (64 << 10);
        for (level, few, enough, size) in [
            ("0", "sdb", "sdb,sdc", 2 * member),
            ("1", "sdb", "sdb,sdc", member),
            ("raid-5", "sdb,sdc", "sdb,sdc,sdd", 2 * member),
            ("raid-6", "sdb,sdc,sdd", "sdb,sdc,sdd,sde", 2 * member),
            ("raid-10", "sdb,sdc", "sdb,sdc,sdd", 3 * member / 2),
        ] {
            drop(a.create(&raids, &[("level", level), ("block_devices", few)]).await.expect(400));
            let raid = a.create(&raids, &[("level", level), ("block_devices", enough)]).await.good();
            assert_eq!((&raid["name"], &raid["virtual_device"]["name"]), (&"md0".into(), &"md0".into()));
            assert_eq!((number(&raid["size"]), number(&raid["virtual_device"]["size"])), (size, size), "{level}");
            drop(a.delete(&format!("{at}raid/{}/", raid["id"])).await.expect(204));
        }
        drop(a.create(&raids, &[("level", "0"), ("block_devices", "sdb,sdc"), ("spare_devices", "sdd")]).await.expect(400));
        drop(a.create(&raids, &[("level", "4"), ("block_devices", "sdb,sdc")]).await.expect(400));
        let raid = a.create(&raids, &[("level", "1"), ("block_devices", "sda,sdb"), ("spare_devices", "sdc")]).await.good();
        assert_eq!(raid["devices"].as_array().map(Vec::len), Some(2));
        assert!(raid["devices"].as_array().expect("a list").iter().any(|d| d["type"] == "partition"), "{raid}");
        assert_eq!(raid["spare_devices"][0]["used_for"], "Spare raid-1 device for md0");
        let one = format!("{at}raid/{}/", raid["id"]);
        let small = number(&raid["size"]);
        drop(a.delete(&format!("{at}blockdevices/md0/")).await.expect(409));
        let fields = [("add_block_devices", "sdd,sde"), ("remove_partitions", "sda-part1"), ("name", "md7")];
        let raid = a.update(&one, &fields).await.good();
        assert!(number(&raid["size"]) > small && raid["virtual_device"]["name"] == "md7", "{raid}");
        drop(a.op(&format!("{at}blockdevices/md7/"), "format", &[("fstype", "ext4")]).await.good());
        drop(a.delete(&one).await.expect(204));
        let m = machine(a, &id).await;
        assert_eq!((&m["raids"], &m["virtualblockdevice_set"]), (&serde_json::json!([]), &serde_json::json!([])));
    }

    /// A cache set that is in use stays.
    async fn a_slow_disk_is_cached_by_a_fast_one(f: Front) {
        let (id, at) = ready(f).await;
        let a = &f.admin;
        let sets = format!("{at}bcache-cache-sets/");
        drop(a.create(&sets, &[]).await.expect(400));
        let set = a.create(&sets, &[("cache_device", "sdb")]).await.good();
        assert_eq!((&set["name"], &set["cache_device"]["used_for"]), (&"cache0".into(), &"Cache device for cache0".into()));
        let text = set["id"].to_string();
        let bcaches = format!("{at}bcaches/");
        drop(a.create(&bcaches, &[("cache_set", &text), ("cache_mode", "writeback")]).await.expect(400));
        drop(a.create(&bcaches, &[("cache_set", &text), ("cache_mode", "never"), ("backing_device", "sdc")]).await.expect(400));
        let fields = [("cache_set", text.as_str()), ("cache_mode", "writeback"), ("backing_device", "sdc")];
        let b = a.create(&bcaches, &fields).await.good();
        assert_eq!((&b["name"], number(&b["size"])), (&"bcache0".into(), 100_000_000_000));
        assert_eq!(b["backing_device"]["used_for"], "Backing device for bcache0");
        drop(a.delete(&format!("{at}bcache-cache-set/{text}/")).await.expect(400));
        let one = format!("{at}bcache/{}/", b["id"]);
        let b = a.update(&one, &[("backing_device", "sdd"), ("cache_mode", "writearound")]).await.good();
        assert_eq!((&b["backing_device"]["name"], &b["cache_mode"]), (&"sdd".into(), &"writearound".into()));
        let m = machine(a, &id).await;
        assert_eq!((m["bcaches"][0]["id"].clone(), m["cache_sets"][0]["id"].clone()), (b["id"].clone(), set["id"].clone()));
        drop(a.delete(&one).await.expect(204));
        drop(a.delete(&format!("{at}bcache-cache-set/{text}/")).await.expect(204));
        assert!(used_for(&machine(a, &id).await).iter().all(|u| *u == "Unused"));
    }

    /// With the file system that ESXi mounts.
    async fn a_datastore_grows_with_its_devices(f: Front) {
        let (_, at) = ready(f).await;
        let a = &f.admin;
        let stores = format!("{at}vmfs-datastores/");
        drop(a.create(&stores, &[("name", "datastore1")]).await.expect(400));
        let s = a.create(&stores, &[("name", "datastore1"), ("block_devices", "sdb")]).await.good();
        assert_eq!((number(&s["size"]), &s["human_size"]), (100_000_000_000, &"100.0 GB".into()));
        assert_eq!(s["filesystem"]["mount_point"], "/vmfs/volumes/datastore1");
        let one = format!("{at}vmfs-datastore/{}/", s["id"]);
        let s = a.update(&one, &[("add_block_devices", "sdc"), ("name", "big")]).await.good();
        assert_eq!((number(&s["size"]), &s["filesystem"]["mount_point"]), (200_000_000_000, &"/vmfs/volumes/big".into()));
        drop(a.update(&one, &[("remove_block_devices", "sdb,sdc")]).await.expect(400));
        drop(a.delete(&one).await.expect(204));
    }

    /// tmpfs and ramfs have no device.
    async fn a_file_system_in_memory_is_mounted_once(f: Front) {
        let (id, _) = ready(f).await;
        let a = &f.admin;
        let m = format!("machines/{id}/");
        let fields = [("fstype", "tmpfs"), ("mount_point", "/tmp"), ("mount_options", "size=1G")];
        let made = a.op(&m, "mount_special", &fields).await.good();
        let fs = &made["special_filesystems"][0];
        assert_eq!((&fs["fstype"], &fs["mount_point"], &fs["mount_options"]), (&"tmpfs".into(), &"/tmp".into(), &"size=1G".into()));
        drop(a.op(&m, "mount_special", &fields).await.expect(400));
        drop(a.op(&m, "mount_special", &[("fstype", "ext4"), ("mount_point", "/x")]).await.expect(400));
        assert_eq!(a.op(&m, "unmount_special", &[("mount_point", "/tmp")]).await.good()["special_filesystems"], serde_json::json!([]));
        drop(a.op(&m, "unmount_special", &[("mount_point", "/tmp")]).await.expect(400));
    }

    /// Each leaves what it promises, and takes away what the one before made.
    async fn every_layout_replaces_the_one_before(f: Front) {
        let (id, at) = ready(f).await;
        let a = &f.admin;
        drop(a.op(&format!("{at}blockdevices/sdc/"), "add_tag", &[("tag", "ssd")]).await.good());
        let m = format!("machines/{id}/");
        for (layout, first, made) in [
            ("lvm", "GPT partitioned with 1 partition", vec!["vgroot-lvroot"]),
            ("bcache", "GPT partitioned with 2 partitions", vec!["bcache0"]),
            ("vmfs6", "GPT partitioned with 8 partitions", vec!["datastore1"]),
            ("vmfs7", "GPT partitioned with 5 partitions", vec!["datastore1"]),
            ("flat", "GPT partitioned with 1 partition", vec![]),
            ("blank", "Unused", vec![]),
        ] {
            let seen = a.op(&m, "set_storage_layout", &[("storage_layout", layout)]).await.good();
            assert_eq!(used_for(&seen)[0], first, "{layout}");
            let names: Vec<&str> = seen["virtualblockdevice_set"].as_array().expect("a list").iter().map(|d| d["name"].as_str().expect("text")).collect();
            assert_eq!(names, made, "{layout}");
        }
        drop(a.op(&m, "set_storage_layout", &[("storage_layout", "custom")]).await.expect(400));
    }

    /// In words; it is not installed in another way.
    async fn a_configuration_that_the_agent_cannot_make_is_refused_at_deployment(f: Front) {
        let (id, at) = ready(f).await;
        let a = &f.admin;
        let m = format!("machines/{id}/");
        drop(a.op(&m, "set_storage_layout", &[("storage_layout", "lvm")]).await.good());
        let refused = a.op(&m, "deploy", &[]).await.expect(503);
        assert!(refused.text().contains("volume group vgroot"), "{}", refused.text());
        assert_eq!(machine(a, &id).await["status_name"], "Ready");
        drop(a.op(&m, "set_storage_layout", &[("storage_layout", "flat")]).await.good());
        let disk = format!("{at}blockdevices/sdb/");
        drop(a.op(&disk, "format", &[("fstype", "zfsroot")]).await.good());
        assert!(a.op(&m, "deploy", &[]).await.expect(503).text().contains("zfsroot"));
    }

    /// Storage changes while the machine is Ready or Allocated; who has it formats and mounts, no more.
    async fn storage_is_changed_by_whom_and_when_it_may(f: Front) {
        let (id, at) = ready(f).await;
        let owner = f.user("owner").await;
        f.put_into(&id, Status::Allocated, Some("owner")).await;
        let disk = format!("{at}blockdevices/sdb/");
        drop(owner.op(&disk, "format", &[("fstype", "ext4")]).await.good());
        drop(owner.op(&disk, "mount", &[("mount_point", "/srv")]).await.good());
        drop(owner.create(&format!("{at}volume-groups/"), &[("name", "vg"), ("block_devices", "sdc")]).await.expect(403));
        drop(owner.op(&disk, "add_tag", &[("tag", "t")]).await.expect(403));
        drop(owner.delete(&disk).await.expect(403));
        f.put_into(&id, Status::Deployed, Some("owner")).await;
        let a = &f.admin;
        let refused = owner.op(&disk, "unmount", &[]).await.expect(409);
        assert_eq!(refused.text(), "Cannot unmount block device because the machine is not Ready or Allocated.");
        drop(a.create(&format!("{at}blockdevices/{}/partitions/", "sdc"), &[]).await.expect(409));
        drop(a.create(&format!("{at}raids/"), &[("level", "1"), ("block_devices", "sdc,sdd")]).await.expect(409));
        // Of a deployed machine, what names a disk may still be corrected; its size is a fact.
        let seen = a.update(&disk, &[("model", "M"), ("serial", "S"), ("size", "1G")]).await.good();
        assert_eq!((&seen["model"], &seen["serial"], number(&seen["size"])), (&"M".into(), &"S".into(), 100_000_000_000));
    }
}
