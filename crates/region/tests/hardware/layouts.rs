//! Storage layouts and what can be read of disks.

use metal::status::Status;
use store::testing::TestDb;

use crate::support::{NewNode, Site, each};

const GIB: i64 = 1 << 30;

store::both! {
    /// What the firmware needs, and the rest for the root.
    async fn flat_has_an_efi_partition_where_the_firmware_needs_one(t: TestDb) {
        let site = Site::open(t).await;
        for (system_id, boot_method, architecture, wanted) in [
            ("aaaaaa", "pxe", "amd64/generic", &["/"][..]),
            ("bbbbbb", "uefi", "amd64/generic", &["/boot/efi", "/"][..]),
            ("cccccc", "pxe", "arm64/generic", &["/boot/efi", "/"][..]),
        ] {
            let node = site.node(NewNode { system_id, boot_method, architecture, ..NewNode::default() }).await;
            let disk = site.disk(&node, "sda", 8 * GIB).await;
            let m = site.post(&format!("machines/{system_id}/?op=set_storage_layout"), "storage_layout=flat").await.ok();
            let parts = m["blockdevice_set"][0]["partitions"].clone();
            let mounts: Vec<&str> = parts.as_array().unwrap().iter().map(|p| p["filesystem"]["mount_point"].as_str().unwrap()).collect();
            assert_eq!(mounts, wanted, "{system_id}");
            assert_eq!(m["blockdevice_set"][0]["partition_table_type"], "GPT");
            // The same through the other paths.
            let listed = site.get(&format!("nodes/{system_id}/blockdevices/{disk}/partitions/")).await.ok();
            assert_eq!(listed, parts);
            let id = &parts[0]["id"];
            for path in ["partition", "partitions"] {
                assert_eq!(site.get(&format!("nodes/{system_id}/blockdevices/{disk}/{path}/{id}")).await.ok(), parts[0]);
            }
            assert_eq!(site.get(&format!("nodes/{system_id}/blockdevices/sda/")).await.ok(), m["blockdevice_set"][0]);
            assert_eq!(each(&site.get(&format!("nodes/{system_id}/blockdevices/")).await.ok(), "name"), ["sda"]);
        }
        site.get("nodes/aaaaaa/blockdevices/999999/").await.is(404, "No BlockDevice matches");
        site.get("nodes/aaaaaa/blockdevices/sda/partition/999999").await.is(404, "No Partition matches");
        site.get("nodes/zzzzzz/blockdevices/").await.is(404, "No Node matches");
    }

    /// And leaves what was there.
    async fn a_layout_that_cannot_be_is_refused(t: TestDb) {
        let site = Site::open(t).await;
        let node = site.node(NewNode::default()).await;
        let path = "machines/aaaaaa/?op=set_storage_layout";
        site.post(path, "storage_layout=flat").await.is(400, "no disk");
        site.disk(&node, "sda", 8 * GIB).await;
        site.post(path, "storage_layout=flat&root_size=4G").await.ok();
        let before = site.machine("aaaaaa").await["blockdevice_set"].clone();
        site.post(path, "").await.is(400, "storage_layout");
        site.post(path, "storage_layout=square").await.is(400, "not a storage layout");
        site.post(path, "storage_layout=flat&root_size=9G").await.is(400, "root_size");
        site.post(path, "storage_layout=flat&root_size=big").await.is(400, "root_size");
        site.post(path, "storage_layout=flat&boot_size=1M").await.is(400, "boot_size");
        site.post(path, "storage_layout=flat&root_device=sdz").await.is(400, "root_device");
        site.post(path, "storage_layout=lvm&lv_size=9G").await.is(400, "lv_size");
        site.post(path, "storage_layout=lvm&vg_name=a%20b").await.is(400, "vg_name");
        site.post(path, "storage_layout=bcache&cache_device=sda").await.is(400, "cache_device");
        site.post(path, "storage_layout=vmfs7").await.is(400, "too small");
        site.post(path, "storage_layout=custom").await.is(400, "No commissioning script");
        assert_eq!(site.machine("aaaaaa").await["blockdevice_set"], before);
        site.sql("UPDATE node SET locked = TRUE").await;
        site.post(path, "storage_layout=flat").await.is(409, "locked");
        site.sql("UPDATE node SET locked = FALSE, status = 10").await;
        site.post(path, "storage_layout=flat").await.is(409, "not Ready");
        assert_eq!(site.machine("aaaaaa").await["blockdevice_set"], before);
    }

    /// By its own partition, by another disk, or by a share of the disk.
    async fn the_parts_of_flat_can_be_told(t: TestDb) {
        let site = Site::open(t).await;
        let node = site.node(NewNode { boot_method: "uefi", ..NewNode::default() }).await;
        site.disk(&node, "sda", 8 * GIB).await;
        let second = site.disk(&node, "sdb", 16 * GIB).await;
        let m = site.post("machines/aaaaaa/?op=set_storage_layout", &format!("storage_layout=flat&boot_size=1G&root_size=50%25&root_device={second}")).await.ok();
        let disks = m["blockdevice_set"].as_array().unwrap();
        let sizes = |d: usize| -> Vec<(String, i64)> {
            disks[d]["partitions"].as_array().unwrap().iter().map(|p| (p["filesystem"]["label"].as_str().unwrap().to_owned(), p["size"].as_i64().unwrap())).collect()
        };
        let alignment = 4 << 20;
        assert_eq!(sizes(0), [("efi".to_owned(), 512 << 20), ("boot".to_owned(), 1_000_000_000 / alignment * alignment)]);
        assert_eq!(sizes(1), [("root".to_owned(), 8 * GIB)]);
        let m = site.post("machines/aaaaaa/?op=set_storage_layout", "storage_layout=blank").await.ok();
        assert_eq!(each(&m["blockdevice_set"], "used_for"), ["Unused", "Unused"]);
        assert_eq!(m["blockdevice_set"][0]["partition_table_type"], serde_json::Value::Null);
    }

    /// A disk too small to boot from is passed over; another can be chosen.
    async fn the_boot_disk_is_the_first_that_is_large_enough(t: TestDb) {
        let site = Site::open(t).await;
        let node = site.node(NewNode::default()).await;
        site.disk(&node, "sda", GIB).await;
        site.disk(&node, "sdb", 8 * GIB).await;
        let third = site.disk(&node, "sdc", 8 * GIB).await;
        let m = site.post("machines/aaaaaa/?op=set_storage_layout", "storage_layout=flat").await.ok();
        assert_eq!(m["boot_disk"]["name"], "sdb");
        assert_eq!(each(&m["blockdevice_set"], "used_for"), ["Unused", "GPT partitioned with 1 partition", "Unused"]);
        let chosen = site.post(&format!("nodes/aaaaaa/blockdevices/{third}/?op=set_boot_disk"), "").await;
        chosen.is(200, "OK");
        let m = site.post("machines/aaaaaa/?op=set_storage_layout", "storage_layout=flat").await.ok();
        assert_eq!(m["boot_disk"]["name"], "sdc");
        assert_eq!(each(&m["blockdevice_set"], "used_for"), ["Unused", "Unused", "GPT partitioned with 1 partition"]);
        site.node(NewNode { system_id: "bbbbbb", status: Status::Deployed, ..NewNode::default() }).await;
        site.post(&format!("nodes/bbbbbb/blockdevices/{third}/?op=set_boot_disk"), "").await.is(404, "BlockDevice");
        site.sql("UPDATE node SET status = 6").await;
        site.post(&format!("nodes/aaaaaa/blockdevices/{third}/?op=set_boot_disk"), "").await.is(409, "not Ready or Allocated");
    }
}
