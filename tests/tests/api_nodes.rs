//! Nodes of every kind, their scripts and tags, through the front door.

use metal::status::Status;
use region::tag::definition;
use serde_json::Value;
use steelyard_tests::Front;
use steelyard_tests::front::mac;

fn text(v: &Value, key: &str) -> String {
    v[key].as_str().unwrap_or_default().to_owned()
}

fn ids(list: &Value) -> Vec<String> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|n| text(n, "system_id"))
        .collect()
}

fn names(list: &Value) -> Vec<String> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|n| text(n, "hostname"))
        .collect()
}

/// A machine that is Ready, linked to a subnet.
async fn ready(f: &Front, hostname: &str, subnet: Option<&str>) -> String {
    let m = f.machine(&[("hostname", hostname)]).await;
    let id = text(&m, "system_id");
    f.equip(&id).await;
    if let Some(subnet) = subnet {
        let path = format!("nodes/{id}/interfaces/{}/", m["interface_set"][0]["id"]);
        let link = [("mode", "auto"), ("subnet", subnet), ("force", "1")];
        drop(f.admin.op(&path, "link_subnet", &link).await.good());
    }
    f.put_into(&id, Status::Ready, None).await;
    id
}

/// Does the work on tags that waits.
async fn work_on_tags(f: &Front) -> usize {
    let mut done = 0;
    while let Some(job) = f
        .region
        .db
        .claim_job(
            &[definition::KIND],
            "a test",
            std::time::Duration::from_secs(60),
        )
        .await
        .expect("jobs are looked for")
    {
        definition::job(&f.region, &job)
            .await
            .expect("the job is done");
        done += 1;
    }
    done
}

/// What a script of commissioning printed on a machine.
async fn listing(f: &Front, system_id: &str, xml: &'static str) {
    let id = system_id.to_owned();
    f.write(move |tx| {
        let id = id.clone();
        Box::pin(async move {
            store::exec!(
                tx,
                "UPDATE script_result SET stdout = $2 WHERE script_name = 'maas-lshw' AND script_set_id = \
                 (SELECT n.current_commissioning_set_id FROM node n WHERE n.system_id = $1)",
                id,
                xml.as_bytes()
            )?;
            Ok(())
        })
    })
    .await;
}

steelyard_tests::front_test! {
    /// A device is made, found, changed and deleted by its owner, and nobody else's.
    async fn a_device_is_its_owners(f: Front) {
        let (owner, other) = (f.user("owner").await, f.user("other").await);
        let parent = text(&f.machine(&[("hostname", "host")]).await, "system_id");
        let address = mac();
        let fields = [("mac_addresses", address.as_str()), ("hostname", "printer"), ("parent", parent.as_str()), ("description", "on floor 2")];
        let made = owner.create("devices/", &fields).await.good();
        assert_eq!((text(&made, "fqdn").as_str(), text(&made, "owner").as_str(), text(&made, "parent")), ("printer.maas", "owner", parent.clone()));
        assert_eq!((made["node_type"].as_i64(), text(&made, "node_type_name").as_str()), (Some(1), "Device"));
        assert_eq!(made["interface_set"][0]["mac_address"], address.as_str());
        let at = format!("devices/{}/", text(&made, "system_id"));
        // What is taken is told at once, for both.
        let refused = owner.create("devices/", &fields[..2]).await.expect(400).json();
        assert_eq!(refused["hostname"][0], "Node with this Hostname already exists.");
        assert!(text(&refused, "mac_addresses").is_empty() && refused["mac_addresses"][0].is_string());
        assert_eq!(names(&other.get("devices/").await.good()), Vec::<String>::new());
        drop(other.get(&at).await.expect(404));
        drop(other.update(&at, &[("hostname", "mine")]).await.expect(404));
        drop(owner.update(&at, &[("hostname", "scanner"), ("parent", "")]).await.good());
        let read = owner.get(&at).await.good();
        assert_eq!((text(&read, "hostname").as_str(), &read["parent"]), ("scanner", &Value::Null));
        drop(owner.op(&at, "set_workload_annotations", &[("room", "7")]).await.good());
        assert_eq!(owner.get(&at).await.good()["workload_annotations"]["room"], "7");
        assert_eq!(f.nobody().ask("devices/", "is_registered", &[("mac_address", &address)]).await.good(), Value::Bool(true));
        // A device with an address loses it when it goes back to what it had.
        let subnet = f.admin.create("subnets/", &[("cidr", "10.7.0.0/24")]).await.good();
        let port = format!("nodes/{}/interfaces/{}/", text(&made, "system_id"), made["interface_set"][0]["id"]);
        let link = [("mode", "static"), ("subnet", &*subnet["id"].to_string()), ("ip_address", "10.7.0.9"), ("force", "1")];
        drop(f.admin.op(&port, "link_subnet", &link).await.good());
        assert_eq!(owner.get(&at).await.good()["ip_addresses"][0], "10.7.0.9");
        drop(f.admin.op(&at, "restore_networking_configuration", &[]).await.good());
        assert_eq!(owner.get(&at).await.good()["ip_addresses"], serde_json::json!([]));
        drop(owner.delete(&at).await.expect(204));
        drop(owner.get(&at).await.expect(404));
    }

    /// `nodes/` has all kinds, each as its own collection shows it; negated filters leave out what they name.
    async fn nodes_are_shown_as_their_kind_and_filtered(f: Front) {
        let subnet = f.admin.create("subnets/", &[("cidr", "10.8.0.0/24"), ("name", "east")]).await.good();
        let subnet = subnet["id"].to_string();
        let (one, two) = (ready(f, "one", Some(&subnet)).await, ready(f, "two", None).await);
        let rack = f.rack().await.rack.0;
        let device = f.admin.create("devices/", &[("mac_addresses", &mac()), ("hostname", "three")]).await.good();
        f.bus_device(&one).await;
        let all = f.admin.get("nodes/").await.good();
        assert_eq!(ids(&all).len(), 4);
        for (id, path) in [(&one, "machines"), (&two, "machines"), (&text(&device, "system_id"), "devices"), (&rack, "rackcontrollers")] {
            let shown = all.as_array().expect("a list").iter().find(|n| n["system_id"] == id.as_str()).expect("it is there");
            assert_eq!(*shown, f.admin.get(&format!("{path}/{id}/")).await.good());
        }
        assert_eq!(ids(&f.admin.get("regioncontrollers/").await.good()), std::slice::from_ref(&rack));
        for (query, expected) in [
            ("hostname=one", vec!["one"]),
            ("not_hostname=one", vec!["two"]),
            ("not_id=IDONE", vec!["two"]),
            ("subnets=east", vec!["one"]),
            ("subnets=cidr:10.8.0.0/24", vec!["one"]),
            ("subnets=ip:10.8.0.77", vec!["one"]),
            ("not_subnets=10.8.0.0/24", vec!["two"]),
            ("cpu_count=4", vec!["one", "two"]),
            ("cpu_count=5", vec![]),
            ("arch=x86_64", vec!["one", "two"]),
            ("status=ready", vec!["one", "two"]),
            ("simple_status=failed", vec![]),
            ("not_status=ready", vec![]),
            ("devices=vendor_id=10de,hardware_type=gpu", vec!["one"]),
            ("power_state=on", vec![]),
        ] {
            let path = format!("machines/?{}", query.replace("IDONE", &one));
            assert_eq!(names(&f.admin.get(&path).await.good()), expected, "{query}");
        }
        for query in ["simple_status=asleep", "subnets=ip:nowhere", "power_state=maybe", "devices=vendor"] {
            drop(f.admin.get(&format!("machines/?{query}")).await.expect(400));
        }
        let bus = f.admin.get(&format!("nodes/{one}/devices/?vendor_id=10DE")).await.good();
        assert_eq!((bus[0]["bus_name"].as_str(), bus[0]["hardware_type_name"].as_str()), (Some("PCIE"), Some("GPU")));
        assert_eq!(f.admin.get(&format!("nodes/{one}/devices/0000:3b:00.0/")).await.good(), bus[0]);
    }

    /// A zone is given to several at once, or to none.
    async fn a_zone_is_given_to_all_or_none(f: Front) {
        drop(f.admin.create("zones/", &[("name", "west")]).await.good());
        let (one, two) = (ready(f, "one", None).await, ready(f, "two", None).await);
        let fields = [("zone", "west"), ("nodes", one.as_str()), ("nodes", "nobody")];
        drop(f.admin.op("machines/", "set_zone", &fields).await.expect(400));
        assert_eq!(f.admin.get(&format!("machines/{one}/")).await.good()["zone"]["name"], "default");
        let fields = [("zone", "west"), ("nodes", one.as_str()), ("nodes", two.as_str())];
        let user = f.user("somebody").await;
        drop(user.op("machines/", "set_zone", &fields).await.expect(403));
        assert_eq!(f.admin.op("nodes/", "set_zone", &fields).await.expect(200).json(), Value::Null);
        for id in [&one, &two] {
            assert_eq!(f.admin.get(&format!("machines/{id}/")).await.good()["zone"]["name"], "west");
        }
    }

    /// A script has versions: another text is a new one, and going back forgets what came later.
    async fn a_script_has_versions(f: Front) {
        let body = "#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# name: check-it\n# title: Checks it\n# script_type: testing\n# hardware_type: storage\n# timeout: 0:05:00\n# --- End MAAS 1.0 script metadata ---\ntrue\n";
        let made = f.admin.create("scripts/", &[("script", body), ("comment", "first"), ("tags", "mine")]).await.good();
        assert_eq!((text(&made, "name").as_str(), text(&made, "timeout").as_str(), text(&made, "type_name").as_str()), ("check-it", "0:05:00", "Testing script"));
        assert_eq!(text(&made, "hardware_type_name"), "Storage");
        assert_eq!(made["history"][0]["comment"], "first");
        let clash = f.admin.update("scripts/check-it", &[("script", body), ("timeout", "90")]).await.expect(400).json();
        assert!(clash["timeout"][0].is_string());
        let second = body.replace("true\n", "false\n");
        let changed = f.admin.update("scripts/check-it", &[("script", &second), ("comment", "second")]).await.good();
        assert_eq!(changed["history"].as_array().map(Vec::len), Some(2));
        assert_eq!(f.admin.ask("scripts/check-it", "download", &[]).await.expect(200).text(), second);
        assert_eq!(f.admin.ask("scripts/check-it", "download", &[("revision", "-1")]).await.expect(200).text(), body);
        drop(f.admin.op("scripts/check-it", "add_tag", &[("tag", "more")]).await.good());
        let back = f.admin.op("scripts/check-it", "revert", &[("to", "-1")]).await.good();
        assert_eq!((back["history"].as_array().map(Vec::len), &back["history"][0]["id"]), (Some(1), &made["history"][0]["id"]));
        assert!(back["tags"].as_array().expect("tags").contains(&"more".into()));
        assert_eq!(f.admin.ask("scripts/check-it", "download", &[]).await.expect(200).text(), body);
        let by_id = f.admin.get(&format!("scripts/{}?include_script=true", made["id"])).await.good();
        assert!(by_id["history"][0]["data"].is_string());
        let of_storage = f.admin.get("scripts/?type=testing&hardware_type=storage").await.good();
        assert_eq!(of_storage.as_array().map(Vec::len), Some(1));
        // What comes with the product stays as it is.
        drop(f.admin.delete("scripts/maas-lshw").await.expect(400));
        drop(f.admin.update("scripts/maas-lshw", &[("title", "other")]).await.expect(400));
        drop(f.admin.update("scripts/maas-lshw", &[("timeout", "77")]).await.good());
        assert_eq!(text(&f.admin.get("scripts/maas-lshw").await.good(), "timeout"), "0:01:17");
        drop(f.admin.delete("scripts/check-it").await.expect(204));
        drop(f.admin.get("scripts/check-it").await.expect(404));
        // The older name of commissioning scripts.
        drop(f.admin.create("commissioning-scripts/", &[("name", "old"), ("content", "#!/bin/sh\n")]).await.good());
        assert!(f.admin.get("commissioning-scripts/").await.good().as_array().expect("names").contains(&"old".into()));
        assert_eq!(f.admin.get("commissioning-scripts/old").await.expect(200).text(), "#!/bin/sh\n");
        assert_eq!(f.admin.get("scripts/old").await.good()["type"], 0);
        drop(f.admin.delete("commissioning-scripts/old").await.expect(204));
    }

    /// Results are set aside, packed and deleted.
    async fn results_are_set_aside_packed_and_deleted(f: Front) {
        let id = ready(f, "one", None).await;
        let at = format!("nodes/{id}/results/current-commissioning/");
        let aside = f.admin.update(&at, &[("suppressed", "true"), ("filters", "maas-lshw")]).await.good();
        assert_eq!(aside["results"].as_array().map(Vec::len), Some(1));
        assert_eq!((&aside["results"][0]["suppressed"], &aside["suppressed"]), (&Value::Bool(true), &Value::Bool(true)));
        assert_eq!(f.admin.get(&at).await.good()["suppressed"], false);
        let packed = f.admin.ask(&at, "download", &[("filetype", "tar.xz"), ("output", "all")]).await.expect(200);
        let mut tar = tar::Archive::new(lzma_rust2::XzReader::new(packed.body.as_slice(), false));
        let files: Vec<String> = tar
            .entries()
            .expect("an archive")
            .map(|e| e.expect("a file").path().expect("a name").to_string_lossy().into_owned())
            .collect();
        assert!(files.iter().any(|n| n.ends_with("/maas-lshw.out")) && files.iter().all(|n| n.starts_with("one-results-")), "{files:?}");
        let old = f.admin.get(&format!("installation-results/?system_id={id}&name=maas-lshw")).await.good();
        assert_eq!((old.as_array().map(Vec::len), &old[0]["node"]["system_id"]), (Some(1), &id.as_str().into()));
        drop(f.user("somebody").await.delete(&at).await.expect(403));
        drop(f.admin.delete(&at).await.expect(204));
        assert_eq!(f.admin.get(&format!("machines/{id}/")).await.good()["current_commissioning_result_id"], Value::Null);
        drop(f.admin.get(&at).await.expect(404));
    }

    /// A tag with a definition is on the machines that meet it, and on no others, when its work is done.
    async fn a_definition_decides_which_machines_have_the_tag(f: Front) {
        let (one, two) = (ready(f, "one", None).await, ready(f, "two", None).await);
        listing(f, &one, "<list><node id='host'><node id='display' class='display'><vendor>NVIDIA</vendor></node></node></list>").await;
        listing(f, &two, "<list><node id='host'/></list>").await;
        let bad = f.admin.create("tags/", &[("name", "gpu"), ("definition", "//node[")]).await.expect(400).json();
        assert!(bad["definition"][0].is_string());
        let fields = [("name", "gpu"), ("definition", "//node[@class='display']/vendor[contains(., 'NVIDIA')]"), ("kernel_opts", "nomodeset")];
        let made = f.admin.create("tags/", &fields).await.good();
        assert_eq!(text(&made, "definition"), fields[1].1);
        assert_eq!(work_on_tags(f).await, 1);
        assert_eq!(ids(&f.admin.ask("tags/gpu/", "machines", &[]).await.good()), std::slice::from_ref(&one));
        assert_eq!(ids(&f.admin.ask("tags/gpu/", "nodes", &[]).await.good()), std::slice::from_ref(&one));
        assert_eq!(f.admin.get(&format!("machines/{one}/")).await.good()["tag_names"], serde_json::json!(["gpu"]));
        // What a rack says of another definition comes too late.
        let late = [("add", two.as_str()), ("definition", "//other")];
        drop(f.admin.op("tags/gpu/", "update_nodes", &late).await.expect(409));
        drop(f.admin.update("tags/gpu/", &[("definition", "not(//node[@class='display'])")]).await.good());
        assert_eq!(work_on_tags(f).await, 1);
        assert_eq!(ids(&f.admin.ask("tags/gpu/", "machines", &[]).await.good()), std::slice::from_ref(&two));
        listing(f, &two, "<list><node class='display'/></list>").await;
        assert_eq!(text(&f.admin.op("tags/gpu/", "rebuild", &[]).await.good(), "rebuilding"), "gpu");
        assert_eq!(work_on_tags(f).await, 1);
        assert_eq!(f.admin.ask("tags/gpu/", "machines", &[]).await.good(), serde_json::json!([]));
    }

    /// Rescue mode and tests end where they began; what was lent is given back.
    async fn a_machine_comes_back_from_rescue_mode_and_tests(f: Front) {
        let id = ready(f, "one", None).await;
        let at = format!("machines/{id}/");
        let status = async || text(&f.admin.get(&at).await.good(), "status_name");
        let entered = f.admin.op(&at, "rescue_mode", &[]).await.good();
        assert_eq!((text(&entered, "status_name").as_str(), text(&entered, "owner").as_str()), ("Entering rescue mode", "admin"));
        let node = f.node(&id, "ephemeral").await;
        drop(node.op("/metadata/2012-03-01/", "signal", &[("status", "OK")]).await.good());
        assert_eq!(status().await, "Rescue mode");
        let left = f.admin.op(&at, "exit_rescue_mode", &[]).await.good();
        // Its power is switched by hand: nothing is waited for.
        assert_eq!((text(&left, "status_name").as_str(), &left["owner"]), ("Ready", &Value::Null));
        drop(f.admin.op(&at, "exit_rescue_mode", &[]).await.expect(409));

        drop(f.admin.op(&at, "test", &[]).await.expect(400));
        let script = [("name", "try-it"), ("script", "#!/bin/sh\n"), ("type", "testing"), ("destructive", "true")];
        drop(f.admin.create("scripts/", &script).await.good());
        assert_eq!(text(&f.admin.op(&at, "test", &[("testing_scripts", "try-it")]).await.good(), "status_name"), "Testing");
        drop(node.op("/metadata/2012-03-01/", "signal", &[("status", "OK")]).await.good());
        assert_eq!(status().await, "Ready");
        drop(f.admin.op(&at, "test", &[("testing_scripts", "try-it")]).await.good());
        drop(node.op("/metadata/2012-03-01/", "signal", &[("status", "FAILED")]).await.good());
        assert_eq!(status().await, "Failed testing");
        assert_eq!(text(&f.admin.op(&at, "override_failed_testing", &[]).await.good(), "status_name"), "Ready");
        let said = f.admin.op(&at, "override_failed_testing", &[]).await.expect(409).text();
        assert_eq!(said, "Unable to override node status. Node is not in 'Failed testing' status.");
        f.put_into(&id, Status::Deployed, Some("admin")).await;
        let refused = f.admin.op(&at, "test", &[("testing_scripts", "try-it")]).await.expect(400).json();
        assert!(refused["testing_scripts"][0].as_str().is_some_and(|s| s.contains("destroy")));
    }

    /// The cheapest machine that meets every constraint is given; what cannot be met is told as it was understood.
    async fn a_machine_is_allocated_by_its_networks(f: Front) {
        let east = f.admin.create("subnets/", &[("cidr", "10.8.0.0/24"), ("name", "east")]).await.good();
        let fabric = f.admin.create("fabrics/", &[("name", "lab"), ("class_type", "10g")]).await.good();
        let vlan = fabric["vlans"][0]["id"].to_string();
        let west = f.admin.create("subnets/", &[("cidr", "10.9.0.0/24"), ("name", "west"), ("vlan", &vlan)]).await.good();
        ready(f, "one", Some(&east["id"].to_string())).await;
        ready(f, "two", Some(&west["id"].to_string())).await;
        let user = f.user("somebody").await;
        for (fields, expected) in [
            (&[("subnets", "west")][..], "two"),
            (&[("not_subnets", "west")], "one"),
            (&[("fabrics", "lab")], "two"),
            (&[("not_fabrics", "name:lab")], "one"),
            (&[("fabric_classes", "10g")], "two"),
            (&[("subnets", "fabric:lab")], "two"),
            (&[("name", "one.maas")], "one"),
            (&[("arch", "amd64"), ("cpu_count", "4"), ("mem", "4096")], "one"),
        ] {
            let dry: Vec<(&str, &str)> = fields.iter().copied().chain([("dry_run", "true")]).collect();
            assert_eq!(text(&user.op("machines/", "allocate", &dry).await.good(), "hostname"), expected, "{fields:?}");
        }
        let none = user.op("machines/", "allocate", &[("mem", "999999999")]).await.expect(409).text();
        assert_eq!(none, "No available machine matches constraints: [('mem', ['999999999'])] (resolved to \"mem=999999999.0\")");
        for (name, value) in [("tags", "nothing"), ("zone", "nowhere"), ("subnets", "nowhere"), ("not_fabrics", "nowhere"), ("pool", "nowhere"), ("vlans", "id:4711")] {
            let refused = user.op("machines/", "allocate", &[(name, value)]).await.expect(400).json();
            assert!(refused[name][0].is_string(), "{name}: {refused}");
        }
        assert_eq!(text(&user.op("machines/", "allocate", &[("subnets", "west")]).await.good(), "owner"), "somebody");
        drop(user.op("machines/", "allocate", &[("subnets", "west")]).await.expect(409));
    }

    /// Disks and interfaces are asked for by label, and the answer says which they are.
    async fn a_machine_is_allocated_by_its_disks_and_interfaces(f: Front) {
        let east = f.admin.create("subnets/", &[("cidr", "10.8.0.0/24"), ("name", "east")]).await.good();
        let west = f.admin.create("subnets/", &[("cidr", "10.9.0.0/24"), ("name", "west")]).await.good();
        let one = ready(f, "one", Some(&east["id"].to_string())).await;
        let two = ready(f, "two", Some(&west["id"].to_string())).await;
        let large = [("name", "sdz"), ("model", "m"), ("serial", "s"), ("size", "900000000000"), ("block_size", "512")];
        let disk = f.admin.create(&format!("nodes/{one}/blockdevices/"), &large).await.good();
        drop(f.admin.op(&format!("nodes/{one}/blockdevices/{}/", disk["id"]), "add_tag", &[("tag", "ssd")]).await.good());
        let user = f.user("somebody").await;
        let dry = |fields: &'static [(&'static str, &'static str)]| {
            let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("dry_run", "true")]).collect();
            let user = &user;
            async move { user.op("machines/", "allocate", &fields).await }
        };
        let got = dry(&[("storage", "root:1,data:800(ssd)")]).await.good();
        assert_eq!(text(&got, "system_id"), one);
        let by_type = &got["constraints_by_type"];
        assert_eq!(by_type["storage"]["data"], serde_json::json!([disk["id"]]));
        assert_eq!(by_type["storage"]["root"], serde_json::json!([got["boot_disk"]["id"]]));
        assert!(by_type.get("interfaces").is_none() && by_type.get("verbose_storage").is_none(), "{by_type}");
        let got = dry(&[("interfaces", "lan:subnet=west,mode=auto"), ("verbose", "true")]).await.good();
        assert_eq!(text(&got, "system_id"), two);
        assert_eq!(got["constraints_by_type"]["interfaces"]["lan"], serde_json::json!([got["interface_set"][0]["id"]]));
        assert_eq!(got["constraints_by_type"]["verbose_storage"], serde_json::json!({}));
        drop(dry(&[("storage", "root:1,data:800(ssd)"), ("interfaces", "lan:subnet=west")]).await.expect(409));
        drop(dry(&[("storage", "root:1,data:800(tape)")]).await.expect(409));
        for (name, value) in [("storage", "root"), ("interfaces", "lan:colour=red")] {
            let refused = user.op("machines/", "allocate", &[(name, value)]).await.expect(400).json();
            assert!(refused[name][0].is_string(), "{name}: {refused}");
        }
    }

    /// Every configured interface gets a bridge with its address, until the machine is released.
    async fn bridges_are_put_on_every_configured_interface(f: Front) {
        let subnet = f.admin.create("subnets/", &[("cidr", "10.8.0.0/24"), ("name", "east")]).await.good();
        let id = ready(f, "one", Some(&subnet["id"].to_string())).await;
        let at = format!("machines/{id}/");
        let user = f.user("somebody").await;
        let asked = [("bridge_all", "true"), ("bridge_type", "standard"), ("bridge_stp", "true"), ("bridge_fd", "4")];
        let wrong = [("bridge_all", "true"), ("bridge_fd", "-1")];
        drop(user.op("machines/", "allocate", &wrong).await.expect(400));
        assert_eq!(text(&f.admin.get(&at).await.good(), "status_name"), "Ready", "nothing is half done");
        let got = user.op("machines/", "allocate", &asked).await.good();
        let interfaces = |m: &Value| m["interface_set"].as_array().cloned().unwrap_or_default();
        let bridges: Vec<Value> = interfaces(&got).into_iter().filter(|i| i["type"] == "bridge").collect();
        assert_eq!(bridges.len(), 1, "{got}");
        let (bridge, card) = (&bridges[0], &interfaces(&got)[0]);
        assert_eq!(bridge["name"].as_str(), Some(format!("br-{}", text(card, "name")).as_str()));
        assert_eq!((&bridge["params"]["bridge_stp"], &bridge["params"]["bridge_fd"]), (&true.into(), &4.into()));
        assert_eq!(bridge["links"][0]["subnet"]["name"], "east");
        assert_eq!(card["links"], serde_json::json!([]));
        drop(f.admin.op(&at, "release", &[]).await.good());
        f.put_into(&id, Status::Ready, None).await;
        let after = f.admin.get(&at).await.good();
        assert!(interfaces(&after).iter().all(|i| i["type"] != "bridge"), "{after}");
        assert_eq!(interfaces(&after)[0]["links"][0]["subnet"]["name"], "east");
    }

    /// A machine becomes like another: its links, its partitions; and nothing happens when one cannot.
    async fn a_machine_is_cloned_to_others(f: Front) {
        let subnet = f.admin.create("subnets/", &[("cidr", "10.8.0.0/24")]).await.good();
        let (one, two) = (ready(f, "one", Some(&subnet["id"].to_string())).await, ready(f, "two", None).await);
        let refused = f.admin.op("machines/", "clone", &[]).await.expect(400).json();
        assert_eq!(refused["__all__"][0], "Either storage or interfaces must be true.");
        assert_eq!(refused["source"][0], "This field is required.");
        let fields = [("source", one.as_str()), ("destinations", two.as_str()), ("interfaces", "true"), ("storage", "true")];
        drop(f.user("somebody").await.op("machines/", "clone", &fields).await.expect(403));
        drop(f.admin.op("machines/", "clone", &fields).await.expect(204));
        let (a, b) = (f.admin.get(&format!("machines/{one}/")).await.good(), f.admin.get(&format!("machines/{two}/")).await.good());
        assert_eq!(b["interface_set"][0]["links"][0]["subnet"]["cidr"], "10.8.0.0/24");
        assert_ne!(b["interface_set"][0]["mac_address"], a["interface_set"][0]["mac_address"]);
        let of = |m: &Value| m["blockdevice_set"][0]["partitions"][0]["filesystem"]["mount_point"].clone();
        assert_eq!((of(&b), of(&a)), ("/".into(), "/".into()));
        assert_ne!(a["blockdevice_set"][0]["partitions"][0]["uuid"], b["blockdevice_set"][0]["partitions"][0]["uuid"]);
        let own = [("source", one.as_str()), ("destinations", one.as_str()), ("interfaces", "true")];
        drop(f.admin.op("machines/", "clone", &own).await.expect(400));
    }

    /// A rack is changed and deleted; one that is a region as well goes on as that, and comes back.
    async fn a_rack_that_is_a_region_goes_on_as_that(f: Front) {
        let rack = f.rack().await.rack.0;
        let at = format!("rackcontrollers/{rack}/");
        drop(f.admin.update(&at, &[("description", "first of many")]).await.good());
        assert_eq!(text(&f.admin.get(&at).await.good(), "description"), "first of many");
        assert_eq!(f.admin.ask("rackcontrollers/", "describe_power_types", &[]).await.good().as_array().map(Vec::len), Some(24));
        let images = f.admin.ask(&at, "list_boot_images", &[]).await.good();
        assert_eq!((&images["images"][0]["name"], &images["connected"]), (&"ubuntu/noble".into(), &Value::Bool(false)));
        drop(f.admin.op("rackcontrollers/", "import_boot_images", &[]).await.expect(202));
        drop(f.admin.delete(&at).await.expect(204));
        drop(f.admin.get(&at).await.expect(404));
        assert_eq!(ids(&f.admin.get("regioncontrollers/").await.good()), std::slice::from_ref(&rack));
        assert_eq!(f.rack().await.rack.0, rack);
        assert_eq!(ids(&f.admin.get("rackcontrollers/").await.good()), [rack]);
    }

    /// Devices, scripts, region controllers and devices on buses have the fields that clients read, and no others.
    async fn objects_have_the_fields_that_clients_read(f: Front) {
        drop(f.rack().await);
        let machine = text(&f.machine(&[]).await, "system_id");
        f.bus_device(&machine).await;
        drop(f.admin.create("devices/", &[("mac_addresses", &mac())]).await.good());
        for (path, expected) in FIELDS {
            let list = f.admin.get(&path.replace("{}", &machine)).await.good();
            let mut keys: Vec<&str> = list[0].as_object().expect("an object").keys().map(String::as_str).collect();
            keys.sort_unstable();
            assert_eq!(keys.join(" "), *expected, "{path}");
        }
        let version = f.admin.get("scripts/maas-lshw").await.good();
        let mut keys: Vec<&str> = version["history"][0].as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["comment", "created", "id"]);
    }
}

/// The fields of objects as MAAS has them: the list that shows them, and their names in order.
const FIELDS: &[(&str, &str)] = &[
    (
        "devices/",
        "address_ttl description domain fqdn hostname interface_set ip_addresses node_type node_type_name owner owner_data parent resource_uri system_id tag_names workload_annotations zone",
    ),
    (
        "scripts/",
        "apply_configured_networking default description destructive for_hardware hardware_type hardware_type_name history id may_reboot name packages parallel parallel_name parameters recommission resource_uri results tags timeout title type type_name",
    ),
    (
        "regioncontrollers/",
        "architecture commissioning_status commissioning_status_name cpu_count cpu_speed cpu_test_status cpu_test_status_name current_commissioning_result_id current_installation_result_id current_testing_result_id description distro_series domain fqdn hardware_info hardware_uuid hostname interface_set interface_test_status interface_test_status_name ip_addresses memory memory_test_status memory_test_status_name network_test_status network_test_status_name node_type node_type_name osystem other_test_status other_test_status_name power_state power_type resource_uri status_action storage_test_status storage_test_status_name swap_size system_id tag_names testing_status testing_status_name version zone",
    ),
    (
        "nodes/{}/devices/",
        "bus bus_name bus_number commissioning_driver device_number hardware_type hardware_type_name id numa_node pci_address physical_blockdevice physical_interface product_id product_name resource_uri system_id vendor_id vendor_name",
    ),
];
