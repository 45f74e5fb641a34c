//! What becomes of the output of `50-maas-01-commissioning`.

use metal::status::Status;
use region::error::ApiError;
use region::hardware;
use region::node::NodeRow;
use serde_json::{Value, json};
use store::testing::TestDb;

use crate::support::{NewNode, Site, each, now};

const BOOT: &str = "52:54:00:00:00:01";
const SECOND: &str = "52:54:00:00:00:02";

/// A virtual machine with two network cards and two disks.
fn inventory() -> Value {
    json!({
        "api_version": "1.0",
        "environment": { "kernel": "Linux", "kernel_architecture": "x86_64" },
        "resources": {
            "cpu": { "architecture": "x86_64", "total": 4, "sockets": [{
                "name": "QEMU Virtual CPU @ 2.5GHz",
                "cores": [
                    { "core": 0, "threads": [{ "id": 0, "numa_node": 0 }, { "id": 1, "numa_node": 0 }] },
                    { "core": 1, "threads": [{ "id": 2, "numa_node": 0 }, { "id": 3, "numa_node": 0 }] },
                ],
            }] },
            "memory": { "total": 2_147_483_648u64, "nodes": [{ "numa_node": 0, "total": 2_147_483_648u64 }] },
            "network": { "cards": [
                { "vendor": "Red Hat, Inc.", "product": "Virtio network device", "numa_node": 0, "ports": [
                    { "id": "ens3", "address": BOOT, "link_detected": true, "link_speed": 1000, "supported_modes": ["10000baseT/Full"] },
                ] },
                { "vendor": "Intel", "product": "82574L", "ports": [{ "id": "ens4", "address": SECOND, "link_detected": true }] },
            ] },
            "storage": { "disks": [
                { "id": "vda", "size": 8u64 << 30, "block_size": 512, "rpm": 0, "serial": "S1", "model": "M", "type": "virtio" },
                { "id": "vdb", "size": 16u64 << 30, "block_size": 512, "rpm": 7200, "device_path": "pci-0000:00:06.0" },
            ] },
            "system": {
                "uuid": "AAAAAAAA-0000-4000-8000-000000000001", "vendor": "QEMU", "product": "Standard PC", "type": "virtual-machine",
                "motherboard": { "vendor": "Boards" }, "chassis": {}, "firmware": { "version": "1.16" },
            },
        },
        "networks": {
            "ens3": { "hwaddr": BOOT, "addresses": [{ "family": "inet", "address": "10.0.0.200", "netmask": "24", "scope": "global" }] },
            "ens4": { "hwaddr": SECOND, "addresses": [{ "family": "inet", "address": "10.1.0.200", "netmask": "24", "scope": "global" }] },
        },
    })
}

async fn process(site: &Site, node: &NodeRow, inventory: &Value) -> Result<(), ApiError> {
    let node = site.fresh(node).await;
    let output = inventory.to_string().into_bytes();
    let region = std::sync::Arc::clone(&site.region);
    site.write(move |tx| {
        let (node, output, region) = (node.clone(), output.clone(), std::sync::Arc::clone(&region));
        Box::pin(async move {
            hardware::process_commissioning(tx, &region, &node, &output, now()).await
        })
    })
    .await
}

/// A machine as it is after its enlistment, in a network with DHCP.
async fn enlisted(site: &Site) -> (NodeRow, i64) {
    let subnet = site.subnet("10.0.0.0/24", Some("10.0.0.1")).await;
    site.range(subnet, "dynamic", "10.0.0.100", "10.0.0.250")
        .await;
    let node = site
        .node(NewNode {
            status: Status::Commissioning,
            ..NewNode::default()
        })
        .await;
    let boot = site.interface(&node, "eth0", BOOT).await;
    site.sql("UPDATE node SET boot_interface_id = (SELECT MIN(i.id) FROM interface i)")
        .await;
    site.lease("10.0.0.200", BOOT, subnet).await;
    (node, boot)
}

fn modes(interface: &Value) -> Vec<(&str, &str)> {
    interface["links"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            (
                l["mode"].as_str().unwrap(),
                l["subnet"]["cidr"].as_str().unwrap_or("null"),
            )
        })
        .collect()
}

store::both! {
    /// Hardware, interfaces, disks, and a configuration that can be deployed.
    async fn an_inventory_makes_a_machine_ready_to_deploy(t: TestDb) {
        let site = Site::open(t).await;
        let (node, boot) = enlisted(&site).await;
        process(&site, &node, &inventory()).await.unwrap();
        let m = site.machine("aaaaaa").await;
        assert_eq!((m["cpu_count"].as_i64(), m["cpu_speed"].as_i64(), m["memory"].as_i64()), (Some(4), Some(2500), Some(2048)));
        assert_eq!(m["architecture"], "amd64/generic");
        assert_eq!(m["hardware_uuid"], "aaaaaaaa-0000-4000-8000-000000000001");
        assert_eq!(m["hardware_info"]["system_vendor"], "QEMU");
        assert_eq!(m["hardware_info"]["cpu_model"], "QEMU Virtual CPU");
        assert_eq!(m["hardware_info"]["chassis_type"], "Unknown");
        assert_eq!(m["numanode_set"], json!([{ "index": 0, "memory": 2048, "cores": [0, 1, 2, 3], "hugepages_set": [] }]));
        assert_eq!(m["tag_names"], json!(["virtual"]));

        let nics = &m["interface_set"];
        assert_eq!(each(nics, "name"), ["ens3", "ens4"]);
        assert_eq!(nics[0]["id"], boot, "the interface that enlisted is the same one");
        assert_eq!((&nics[0]["vendor"], &nics[0]["interface_speed"], &nics[0]["link_speed"]), (&json!("Red Hat, Inc."), &json!(10_000), &json!(1_000)));
        assert_eq!(m["boot_interface"]["id"], boot);
        assert_eq!(modes(&nics[0]), [("auto", "10.0.0.0/24")]);
        assert_eq!(modes(&nics[1]), [], "nobody knows where the second is plugged in");
        assert_eq!(nics[1]["vlan"], Value::Null);

        let disks = &m["blockdevice_set"];
        assert_eq!(each(disks, "name"), ["vda", "vdb"]);
        assert_eq!((&disks[0]["serial"], &disks[0]["id_path"], &disks[0]["tags"]), (&json!("S1"), &Value::Null, &json!(["ssd"])));
        assert_eq!((&disks[1]["serial"], &disks[1]["tags"]), (&Value::Null, &json!(["rotary", "7200rpm"])));
        assert_eq!(disks[1]["id_path"], "/dev/disk/by-path/pci-0000:00:06.0");
        assert_eq!(disks[0]["used_for"], "GPT partitioned with 1 partition");
        assert_eq!(disks[0]["partitions"][0]["filesystem"]["mount_point"], "/");
        assert_eq!(disks[0]["available_size"], 0);
        assert_eq!(disks[1]["used_for"], "Unused");
    }

    /// Names that changed places, a card that went to another machine, a disk that was pulled.
    async fn hardware_that_moved_is_followed(t: TestDb) {
        let site = Site::open(t).await;
        let (node, boot) = enlisted(&site).await;
        process(&site, &node, &inventory()).await.unwrap();
        let before = site.machine("aaaaaa").await;
        let mut changed = inventory();
        changed["resources"]["network"]["cards"][0]["ports"][0]["id"] = "ens4".into();
        changed["resources"]["network"]["cards"][1]["ports"][0]["id"] = "ens3".into();
        changed["resources"]["storage"]["disks"][0]["id"] = "vdb".into();
        changed["resources"]["storage"]["disks"][1]["id"] = "vda".into();
        process(&site, &node, &changed).await.unwrap();
        let after = site.machine("aaaaaa").await;
        let named = |m: &Value, set: &str, name: &str| m[set].as_array().unwrap().iter().find(|v| v["name"] == name).unwrap()["id"].clone();
        assert_eq!(named(&after, "interface_set", "ens4"), boot);
        assert_eq!(named(&after, "interface_set", "ens3"), named(&before, "interface_set", "ens4"));
        assert_eq!(named(&after, "blockdevice_set", "vdb"), named(&before, "blockdevice_set", "vda"), "found by its serial number");

        // The second card and the second disk go to another machine.
        let other = site.node(NewNode { system_id: "bbbbbb", status: Status::Commissioning, ..NewNode::default() }).await;
        let mut theirs = inventory();
        theirs["resources"]["network"]["cards"].as_array_mut().unwrap().remove(0);
        theirs["resources"]["system"]["uuid"] = "AAAAAAAA-0000-4000-8000-000000000002".into();
        process(&site, &other, &theirs).await.unwrap();
        assert_eq!(each(&site.machine("bbbbbb").await["interface_set"], "mac_address"), [SECOND]);
        assert_eq!(each(&site.machine("aaaaaa").await["interface_set"], "mac_address"), [BOOT]);

        let mut fewer = inventory();
        fewer["resources"]["storage"]["disks"].as_array_mut().unwrap().pop();
        fewer["resources"]["network"]["cards"] = json!([]);
        process(&site, &node, &fewer).await.unwrap();
        let m = site.machine("aaaaaa").await;
        assert_eq!(each(&m["blockdevice_set"], "name"), ["vda"]);
        assert_eq!(each(&m["interface_set"], "mac_address"), [BOOT], "the interface it booted from stays");
    }

    /// `skip_networking` and `skip_storage`.
    async fn what_is_to_be_kept_is_kept(t: TestDb) {
        let site = Site::open(t).await;
        let (node, boot) = enlisted(&site).await;
        process(&site, &node, &inventory()).await.unwrap();
        let subnet = site.get("subnets/").await.ok()[0]["id"].clone();
        site.sql("UPDATE node SET status = 4").await;
        let linked = site.post(&format!("nodes/aaaaaa/interfaces/{boot}/?op=link_subnet"), &format!("mode=static&subnet={subnet}&ip_address=10.0.0.50")).await;
        assert_eq!(linked.status, 200, "{linked:?}");
        site.post("machines/aaaaaa/?op=set_storage_layout", "storage_layout=blank").await.ok();
        site.sql("UPDATE node SET skip_networking = TRUE, skip_storage = TRUE").await;
        let mut fewer = inventory();
        fewer["resources"]["storage"]["disks"].as_array_mut().unwrap().pop();
        fewer["resources"]["network"]["cards"].as_array_mut().unwrap().pop();
        process(&site, &node, &fewer).await.unwrap();
        let m = site.machine("aaaaaa").await;
        assert_eq!(each(&m["interface_set"], "name"), ["ens3", "ens4"]);
        let links = modes(&m["interface_set"][0]);
        assert!(links.contains(&("static", "10.0.0.0/24")), "{links:?}");
        assert_eq!(each(&m["blockdevice_set"], "name"), ["vda", "vdb"]);
        assert_eq!(each(&m["blockdevice_set"], "used_for"), ["Unused", "Unused"]);
    }

    /// It names neither of them, and both are told to racks.
    async fn a_uuid_that_two_machines_have_is_forgotten(t: TestDb) {
        let site = Site::open(t).await;
        let (node, _) = enlisted(&site).await;
        process(&site, &node, &inventory()).await.unwrap();
        let other = site.node(NewNode { system_id: "bbbbbb", status: Status::Commissioning, ..NewNode::default() }).await;
        let mut twin = inventory();
        twin["resources"]["network"]["cards"] = json!([]);
        process(&site, &other, &twin).await.unwrap();
        assert_eq!(site.machine("aaaaaa").await["hardware_uuid"], Value::Null);
        assert_eq!(site.machine("bbbbbb").await["hardware_uuid"], Value::Null);
    }

    /// The flat layout is used, and an event says so; a machine without a disk has none.
    async fn a_default_layout_that_cannot_be_made_does_not_fail_commissioning(t: TestDb) {
        let site = Site::open(t).await;
        let (node, _) = enlisted(&site).await;
        site.sql("INSERT INTO setting (name, value) VALUES ('default_storage_layout', '\"custom\"')").await;
        process(&site, &node, &inventory()).await.unwrap();
        let m = site.machine("aaaaaa").await;
        assert_eq!(m["blockdevice_set"][0]["partitions"][0]["filesystem"]["mount_point"], "/");
        let message = m["status_message"].as_str().unwrap().to_owned();
        assert!(message.contains("custom") && message.contains("flat"), "{message}");
        let mut diskless = inventory();
        diskless["resources"]["storage"]["disks"] = json!([]);
        process(&site, &node, &diskless).await.unwrap();
        let m = site.machine("aaaaaa").await;
        assert_eq!(m["blockdevice_set"], json!([]));
        assert!(m["status_message"].as_str().unwrap().contains("no disk"), "{}", m["status_message"]);
    }

    /// Nothing of the machine changes.
    async fn output_that_is_no_inventory_is_refused(t: TestDb) {
        let site = Site::open(t).await;
        let (node, _) = enlisted(&site).await;
        assert!(process(&site, &node, &json!([])).await.is_err());
        let after = site.fresh(&node).await;
        assert_eq!((after.revision, after.memory), (node.revision, 0));
        process(&site, &node, &json!({})).await.unwrap();
        assert_eq!(each(&site.machine("aaaaaa").await["interface_set"], "mac_address"), [BOOT]);
    }

    /// Without a lease, the address that the boot configuration was fetched from tells.
    async fn the_boot_interface_is_linked_where_it_booted(t: TestDb) {
        let site = Site::open(t).await;
        let (node, _) = enlisted(&site).await;
        site.sql("DELETE FROM lease").await;
        site.sql("UPDATE node SET boot_client_ip = '10.0.0.200'").await;
        site.sql("UPDATE interface SET vlan_id = NULL").await;
        site.sql("INSERT INTO setting (name, value) VALUES ('default_boot_interface_link_type', '\"dhcp\"')").await;
        let mut bare = inventory();
        bare["networks"] = json!({});
        process(&site, &node, &bare).await.unwrap();
        let m = site.machine("aaaaaa").await;
        assert_eq!(modes(&m["interface_set"][0]), [("dhcp", "10.0.0.0/24")]);
    }

    /// From the inventory that was kept.
    async fn a_configuration_can_be_brought_back(t: TestDb) {
        let site = Site::open(t).await;
        let (node, boot) = enlisted(&site).await;
        process(&site, &node, &inventory()).await.unwrap();
        site.sql("UPDATE node SET status = 4").await;
        site.post("machines/aaaaaa/?op=restore_default_configuration", "").await.is(409, "commission");
        let (id, output) = (node.id, inventory().to_string().into_bytes());
        site.write(move |tx| {
            let output = output.clone();
            Box::pin(async move {
                let (set,) = store::one!(tx, (i64,), "INSERT INTO script_set (node_id, result_type, created) VALUES ($1, 0, 0) RETURNING id", id)?;
                store::exec!(tx, "UPDATE node SET current_commissioning_set_id = $2 WHERE id = $1", id, set)?;
                store::exec!(
                    tx,
                    "INSERT INTO script_result (script_set_id, script_name, status, stdout, created, updated) VALUES ($1, $2, 2, $3, 0, 0)",
                    set,
                    hardware::SCRIPT,
                    output
                )?;
                Ok(())
            })
        })
        .await
        .unwrap();
        site.post("machines/aaaaaa/?op=set_storage_layout", "storage_layout=blank").await.ok();
        site.post(&format!("nodes/aaaaaa/interfaces/{boot}/?op=disconnect"), "").await.ok();
        let m = site.post("machines/aaaaaa/?op=restore_storage_configuration", "").await.ok();
        assert_eq!(m["blockdevice_set"][0]["used_for"], "GPT partitioned with 1 partition");
        assert_eq!(modes(&m["interface_set"][0]), []);
        let m = site.post("machines/aaaaaa/?op=restore_networking_configuration", "").await.ok();
        assert_eq!(modes(&m["interface_set"][0]), [("auto", "10.0.0.0/24")]);
        site.sql("UPDATE node SET status = 6").await;
        site.post("machines/aaaaaa/?op=restore_storage_configuration", "").await.is(409, "Ready");
        site.post("machines/aaaaaa/?op=restore_networking_configuration", "").await.is(409, "Cannot restore");
    }
}
