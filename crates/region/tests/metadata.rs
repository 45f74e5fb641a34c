//! The metadata service through the front door: what a machine sees from its first boot to its own system.

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{AGENT, MAC, RACK, inventory, sign};
use link::port::Region as _;
use metal::install::{StorageItem, Work};
use region::auth::ApiKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

fn key_of(d: &metal::install::Datasource) -> ApiKey {
    ApiKey {
        consumer_key: d.consumer_key.clone(),
        token_key: d.token_key.clone(),
        token_secret: d.token_secret.clone(),
    }
}

fn webhook(name: &str, event: &str, result: Option<&str>, attempt: i64) -> Value {
    let mut v = json!({ "name": name, "description": format!("about {name}"), "event_type": event, "origin": "curtin", "timestamp": 1.5, "attempt": attempt });
    if let Some(r) = result {
        v["result"] = r.into();
    }
    v
}

on_each_engine! {
    async fn an_unknown_machine_enlists_is_commissioned_and_ends_new(w) {
        let m = w.first();
        // What cloud-init reads before anybody knows the machine.
        let preseed = m.get("metadata/latest/enlist-preseed/?op=get_enlist_preseed", None).await.is(200).text();
        let value: Value = serde_saphyr::from_str(&preseed).unwrap();
        assert_eq!(value["datasource"]["MAAS"], json!({ "metadata_url": format!("{RACK}/MAAS/metadata/enlist") }));
        assert_eq!(value["power_state"]["mode"], "poweroff");
        assert_eq!(value["rsyslog"]["remotes"]["maas"], "10.77.0.1:5247");
        assert_eq!(m.get("metadata/enlist/2012-03-01/meta-data/instance-id", None).await.is(200).text(), "i-maas-enlistment");
        assert_eq!(m.get("metadata/enlist/2012-03-01/meta-data/local-hostname", None).await.is(200).text(), "maas-enlisting-node");
        assert_eq!(m.get("metadata/enlist/2012-03-01/meta-data/public-keys", None).await.is(200).text(), "");
        let script = m.get("metadata/enlist/2012-03-01/user-data", None).await.is(200).text();
        let hash = hex::encode(Sha256::digest(AGENT));
        assert!(script.starts_with("#!/bin/sh\n") && script.contains(&hash) && script.contains(RACK), "{script}");
        let (index, _) = m.scripts(None).await.unwrap();
        let strangers = index["commissioning_scripts"].as_array().unwrap();
        assert!(!strangers.is_empty() && strangers.iter().all(|s| s.get("script_result_id").is_none()), "{index}");

        let id = m.enlist().await;
        // The agent goes on below the address that the enlistment preseed named.
        m.get("metadata/enlist/2012-03-01/maas-scripts", None).await.is(200);
        let below = m.get(&format!("metadata/enlist/latest/by-id/{id}/?op=get_preseed"), None).await.is(200);
        assert!(below.text().contains("token_secret"));
        let (value, key) = m.preseed(&id).await;
        assert_eq!(value["datasource"]["MAAS"]["metadata_url"], format!("{RACK}/MAAS/metadata/"));
        assert_eq!(value["reporting"]["maas"]["endpoint"], format!("{RACK}/MAAS/metadata/status/{id}"));
        assert_eq!(value["reporting"]["maas"]["token_secret"], key.token_secret.as_str());
        m.signal(&key, "COMMISSIONING", &[]).await.is(200);
        assert_eq!(w.status(&id).await, "Commissioning");
        assert_eq!(m.get("metadata/2012-03-01/agent-work", Some(&key)).await.json(), json!({ "work": "scripts" }));
        m.run_commissioning(&key, &inventory()).await;
        m.signal(&key, "OK", &[("error", "7 scripts passed")]).await.is(200);

        let machine = w.machine(&id).await;
        assert_eq!(machine["status_name"], "New", "a machine that enlisted waits for somebody to accept it");
        assert_eq!((machine["cpu_count"].as_i64(), machine["memory"].as_i64()), (Some(2), Some(2048)));
        assert_eq!(machine["boot_interface"]["name"], "ens3");
        assert_eq!(machine["commissioning_status_name"], "Passed");
        let results = w.get(&format!("api/2.0/nodes/{id}/results/current-commissioning/?include_output=true")).await.json();
        assert_eq!((results["type_name"].as_str(), results["status_name"].as_str()), (Some("Commissioning"), Some("Passed")));
        let lshw = results["results"].as_array().unwrap().iter().find(|r| r["name"] == "maas-lshw").unwrap();
        assert_eq!(lshw["stdout"], STANDARD.encode("output of maas-lshw\n"));
        assert_eq!((lshw["exit_status"].as_i64(), lshw["runtime"].as_str()), (Some(0), Some("0:00:01")));
        let text = w.get(&format!("api/2.0/nodes/{id}/results/current-commissioning/?op=download&filters=maas-lshw")).await.is(200);
        assert_eq!(text.text(), "output of maas-lshw\n");

        let timeline = w.timeline(&id).await;
        assert!(timeline.contains("\"kind\":\"signal\"") && timeline.contains("50-maas-01-commissioning"), "{timeline}");
        assert!(!timeline.contains(&key.token_secret), "a secret is in the timeline");
    }

    async fn each_boot_gets_fresh_credentials(w) {
        let m = w.first();
        let id = m.enlist().await;
        let (_, first) = m.preseed(&id).await;
        let (_, second) = m.preseed(&id).await;
        assert_ne!(first.token_key, second.token_key);
        m.get("metadata/2012-03-01/meta-data/instance-id", Some(&first)).await.is(401);
        assert_eq!(m.get("metadata/2012-03-01/meta-data/instance-id", Some(&second)).await.is(200).text(), id);
    }

    async fn somebody_else_does_not_get_a_machines_preseed(w) {
        let id = w.first().enlist().await;
        let ask = format!("metadata/latest/by-id/{id}/?op=get_preseed");
        // Another machine of the rack, and an address that nobody knows.
        let other = w.host("10.77.0.101", Some("52:54:00:00:00:99"));
        let stranger = w.host("10.77.0.102", None);
        for _ in 0..2 {
            assert!(!other.get(&ask, None).await.is(403).text().contains("token"));
        }
        stranger.get(&ask, None).await.is(403);
        stranger.post(&format!("metadata/latest/by-id/{id}/"), None, &[("op", b"netboot_off", false)]).await.is(403);
        let told = w.events(&id, "NODE_PRESEED_REFUSED").await;
        assert_eq!(told.len(), 2, "one for each address, not one for each question: {told:?}");
        assert!(told[0].contains("10.77.0.102") && told[1].contains("10.77.0.101"), "{told:?}");

        // A lease speaks for an address that the rack cannot tell, and an address that is leased to another
        // machine is not believed for having booted this one.
        w.sql("INSERT INTO lease (ip, mac, subnet_id, until, updated) SELECT '10.77.0.102', $1, MIN(id), 4000000000000000, 0 FROM subnet", MAC).await;
        stranger.get(&ask, None).await.is(200);
        w.sql("UPDATE node SET boot_client_ip = '10.77.0.101', boot_client_at = 4000000000000000 WHERE system_id = $1", &id).await;
        other.get(&ask, None).await.is(403);
        w.host("10.77.0.101", None).get(&ask, None).await.is(200);

        w.set("open_preseeds", "true").await;
        other.get(&ask, None).await.is(200);
    }

    async fn a_machine_that_boots_its_disk_gets_no_preseed(w) {
        let m = w.first();
        let (id, key) = m.make_deploying(None).await;
        m.post("metadata/2012-03-01/", Some(&key), &[("op", b"netboot_off", false)]).await.is(200);
        let ask = format!("metadata/latest/by-id/{id}/?op=get_preseed");
        assert!(m.get(&ask, None).await.is(403).text().contains("boots its own disk"));
        assert_eq!(w.events(&id, "NODE_PRESEED_REFUSED").await.len(), 1);
    }

    async fn credentials_of_others_are_refused(w) {
        let m = w.first();
        let id = m.enlist().await;
        let (_, key) = m.preseed(&id).await;
        for path in ["", "meta-data/", "meta-data/instance-id", "user-data", "agent-work"] {
            let path = format!("metadata/2012-03-01/{path}");
            m.get(&path, None).await.is(401);
            m.get(&path, Some(&ApiKey { token_secret: "wrong".into(), ..key.clone() })).await.is(401);
            m.get(&path, Some(&w.admin)).await.is(403);
            m.get(&path, Some(&key)).await.is(200);
        }
        m.get("metadata/2012-03-01/maas-scripts", Some(&w.admin)).await.is(403);
        let report = webhook("modules-final", "start", None, 0);
        m.post_json(&format!("metadata/status/{id}"), None, &report).await.is(401);
        m.post_json(&format!("metadata/status/{id}"), Some(&w.admin), &report).await.is(403);
        m.signal(&w.admin, "OK", &[]).await.is(403);
        // A machine's key opens nothing else.
        m.get("api/2.0/machines/", Some(&key)).await.is(403);
    }

    async fn bad_requests_are_refused_and_change_nothing(w) {
        let m = w.first();
        let id = m.enlist().await;
        let (_, key) = m.preseed(&id).await;
        m.get("metadata/2009-04-04/meta-data/instance-id", Some(&key)).await.is(404);
        m.get("metadata/latest/meta-data/nothing", Some(&key)).await.is(404);
        m.signal(&key, "WONDERFUL", &[]).await.is(400);
        m.signal(&key, "OK", &[("exit_status", "none")]).await.is(400);
        m.signal(&key, "WORKING", &[("power_type", "ipmi"), ("power_parameters", "{")]).await.is(400);
        m.signal(&key, "WORKING", &[("script_result_id", "999999")]).await.is(409);
        m.post("metadata/2012-03-01/", Some(&key), &[("op", b"signal", false)]).await.is(400);
        m.post("metadata/2012-03-01/", Some(&key), &[("op", b"dance", false)]).await.is(400);
        let target = format!("metadata/status/{id}");
        m.post_json(&target, Some(&key), &json!({ "name": "x", "event_type": "start", "origin": "curtin" })).await.is(400);
        m.post_json(&target, Some(&key), &json!({ "name": "x", "description": "", "event_type": "pause", "origin": "curtin" })).await.is(400);
        m.post_json(&target, Some(&key), &json!([1])).await.is(400);
        m.get("metadata/latest/by-id/nobody/?op=get_preseed", None).await.is(404);
        assert_eq!(w.status(&id).await, "New");
        w.sql("UPDATE node SET status = 10 WHERE system_id = $1", &id).await;
        m.signal(&key, "OK", &[]).await.is(409);
    }

    async fn the_pages_are_lists_and_slashes_may_be_doubled(w) {
        let m = w.first();
        assert_eq!(m.get("metadata/", None).await.is(200).text(), "2012-03-01\nlatest");
        assert_eq!(m.get("metadata/enlist/latest/", None).await.is(200).text(), "meta-data\nuser-data");
        let id = m.make_ready().await;
        let (_, key) = m.preseed(&id).await;
        assert_eq!(m.get("metadata//latest/meta-data/", Some(&key)).await.is(200).text(), "instance-id\nlocal-hostname\nvendor-data");
        let machine = w.machine(&id).await;
        assert_eq!(m.get("metadata///latest//meta-data/local-hostname", Some(&key)).await.is(200).text(), machine["fqdn"].as_str().unwrap());
        assert_eq!(m.get("metadata/curtin/latest/meta-data/instance-id", Some(&key)).await.is(200).text(), id);
        assert!(m.get("metadata/latest/", Some(&key)).await.is(200).text().lines().any(|l| l == "user-data"));
        // Ready: nothing to do.
        assert_eq!(m.get("metadata/latest/agent-work", Some(&key)).await.json(), json!({ "work": "nothing" }));
        assert!(m.get("metadata/latest/user-data", Some(&key)).await.is(200).text().contains("poweroff"));
        m.get("metadata/latest/maas-scripts", Some(&key)).await.is(204);
        // The same without a rack, signed by the machine itself.
        let url = format!("{}/MAAS/metadata/latest/meta-data/instance-id", w.base);
        let answer = reqwest::Client::new().get(url).header("Authorization", sign(&key)).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), id);
        assert!(w.timeline(&id).await.contains("\"kind\":\"metadata\""));
    }

    async fn a_machine_is_deployed_when_its_own_system_has_asked_for_its_user_data(w) {
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmKp1Gx0f5yqS4mPqcCRQ4pZcGZk0Xk5p4XfC3o9WmT me@here";
        w.post("api/2.0/account/prefs/sshkeys/", &[("key", ssh)]).await.is(201);
        let m = w.first();
        let (id, key) = m.make_deploying(Some(&STANDARD.encode("#!/bin/sh\necho mine\n"))).await;
        let (preseed, key2) = m.preseed(&id).await;
        drop(key);
        let key = key2;
        assert_eq!(preseed["datasource"]["MAAS"]["metadata_url"], format!("{RACK}/MAAS/metadata/curtin"));
        assert_eq!((preseed["power_state"]["mode"].as_str(), preseed["power_state"]["condition"].as_str()), (Some("reboot"), Some("test ! -e /tmp/block-reboot")));

        // The ephemeral system's user-data runs the agent, whichever way it is asked for.
        for path in ["metadata/curtin/2012-03-01/user-data", "metadata/2012-03-01/user-data"] {
            assert!(m.get(path, Some(&key)).await.is(200).text().contains("steelyard-agent"), "{path}");
        }
        let work: Work = serde_json::from_value(m.get("metadata/curtin/2012-03-01/agent-work", Some(&key)).await.json()).unwrap();
        let Work::Install(plan) = work else { panic!("{work:?}") };
        assert_eq!((plan.image.url.as_str(), plan.image.ftype.as_str()), ("http://10.77.0.1:5248/images/dd44/root.tar.gz", "root-tgz"));
        assert!(plan.storage.iter().any(|i| matches!(i, StorageItem::Mount { path, .. } if path == "/")), "{:?}", plan.storage);
        assert_eq!(plan.datasource.metadata_url, format!("{RACK}/MAAS/metadata/"));
        let installed = key_of(&plan.datasource);
        assert_ne!(installed.token_key, key.token_key);
        let attempt = plan.attempt;
        let status = format!("metadata/status/{id}");
        let report = |name: &'static str, event: &'static str, result: Option<&'static str>| {
            let (key, status) = (key.clone(), status.clone());
            async move { m.post_json(&status, Some(&key), &webhook(name, event, result, attempt)).await.is(204) }
        };
        report("cmd-install", "start", None).await;
        let set = w.get(&format!("api/2.0/nodes/{id}/results/current-installation/")).await.json();
        assert_eq!((set["results"][0]["name"].as_str(), set["status_name"].as_str()), (Some("/tmp/install.log"), Some("Running")));
        report("cmd-install/stage-partitioning", "start", None).await;
        report("cmd-install/stage-extract", "start", None).await;
        report("cmd-install/stage-extract/extract-image", "progress", None).await;
        report("cmd-install/stage-curthooks", "start", None).await;
        for kind in ["CONFIGURING_STORAGE", "INSTALLING_OS", "CONFIGURING_OS"] {
            assert_eq!(w.events(&id, kind).await.len(), 1, "{kind}");
        }
        let late = m.post_json(&status, Some(&key), &webhook("cmd-install", "finish", Some("FAIL"), attempt - 1)).await;
        assert_eq!(late.status, 409, "a report of an earlier attempt");
        assert_eq!(m.signal(&key, "FAILED", &[("attempt", &(attempt - 1).to_string())]).await.status, 409);

        m.post("metadata/curtin/2012-03-01/", Some(&key), &[("op", b"signal", false), ("status", b"WORKING", false)]).await.is(200);
        // Before the machine boots its disk not even the installed system's key ends the deployment.
        m.get("metadata/2012-03-01/user-data", Some(&installed)).await.is(200);
        assert_eq!(w.status(&id).await, "Deploying");
        m.post("metadata/curtin/2012-03-01/", Some(&key), &[("op", b"netboot_off", false)]).await.is(200);
        let mut end = webhook("cmd-install", "finish", Some("SUCCESS"), attempt);
        end["files"] = json!([{ "path": "/tmp/install.log", "encoding": "base64", "content": STANDARD.encode("the log\n") }]);
        m.post_json(&status, Some(&key), &end).await.is(204);
        let log = w.get(&format!("api/2.0/nodes/{id}/results/current-installation/?op=download")).await.is(200);
        assert_eq!(log.text(), "the log\n");
        m.get("metadata/2012-03-01/user-data", Some(&key)).await.is(200);
        m.get("metadata/curtin/2012-03-01/user-data", Some(&installed)).await.is(200);
        assert_eq!(w.status(&id).await, "Deploying", "what was installed has yet to show that it boots");

        assert_eq!(m.get("metadata/2012-03-01/meta-data/instance-id", Some(&installed)).await.is(200).text(), id);
        assert_eq!(m.get("metadata/2012-03-01/meta-data/public-keys", Some(&installed)).await.is(200).text(), ssh);
        let vendor: Value = serde_saphyr::from_str(&m.get("metadata/2012-03-01/meta-data/vendor-data", Some(&installed)).await.is(200).text()).unwrap();
        let vendor = vendor["cloud-init"].as_str().unwrap();
        assert!(vendor.starts_with("#cloud-config\n") && vendor.contains("ntp.ubuntu.com"), "{vendor}");
        assert_eq!(m.get("metadata/2012-03-01/user-data", Some(&installed)).await.is(200).text(), "#!/bin/sh\necho mine\n");
        assert_eq!(w.status(&id).await, "Deployed");
        let set = w.get(&format!("api/2.0/nodes/{id}/results/current-installation/")).await.json();
        assert_eq!(set["status_name"], "Passed");
        m.get("metadata/2012-03-01/agent-work", Some(&installed)).await.is(409);
    }

    async fn an_installed_system_without_user_data_is_deployed_too(w) {
        let m = w.first();
        let (id, key) = m.make_deploying(None).await;
        let work: Work = serde_json::from_value(m.get("metadata/2012-03-01/agent-work", Some(&key)).await.json()).unwrap();
        let Work::Install(plan) = work else { panic!() };
        // Asked for again after a lost answer: the older key of the installed system no longer works.
        let again: Work = serde_json::from_value(m.get("metadata/2012-03-01/agent-work", Some(&key)).await.json()).unwrap();
        let Work::Install(again) = again else { panic!() };
        m.get("metadata/2012-03-01/", Some(&key_of(&plan.datasource))).await.is(401);
        m.post("metadata/2012-03-01/", Some(&key), &[("op", b"netboot_off", false)]).await.is(200);
        m.get("metadata/2012-03-01/user-data", Some(&key_of(&again.datasource))).await.is(404);
        assert_eq!(w.status(&id).await, "Deployed");
    }

    async fn a_failed_installation_fails_the_deployment_with_its_reason(w) {
        let m = w.first();
        let (id, key) = m.make_deploying(None).await;
        let why = "partition-disks failed: sgdisk exited with 4: disk is full";
        let mut end = webhook("cmd-install", "finish", Some("FAIL"), 1);
        end["description"] = why.into();
        end["files"] = json!([{ "path": "/run/steelyard/agent.log", "encoding": "base64", "content": STANDARD.encode("log\n") }]);
        m.post_json(&format!("metadata/status/{id}"), Some(&key), &end).await.is(204);
        let machine = w.machine(&id).await;
        assert_eq!((machine["status_name"].as_str(), machine["error_description"].as_str()), (Some("Failed deployment"), Some(why)));
        let set = w.get(&format!("api/2.0/nodes/{id}/results/current-installation/?include_output=1")).await.json();
        assert_eq!((set["status_name"].as_str(), set["results"][0]["output"].as_str()), (Some("Failed"), Some(STANDARD.encode("log\n").as_str())));
        // The agent says it once more; nothing changes.
        m.signal(&key, "FAILED", &[("error", "again"), ("attempt", "1")]).await.is(200);
        assert_eq!(w.machine(&id).await["error_description"], why);
    }

    async fn what_cannot_be_planned_fails_the_deployment(w) {
        let m = w.first();
        let (id, key) = m.make_deploying(None).await;
        w.sql("DELETE FROM boot_resource WHERE name = $1", "debian/bookworm").await;
        m.get("metadata/2012-03-01/agent-work", Some(&key)).await.is(409);
        let machine = w.machine(&id).await;
        assert_eq!(machine["status_name"], "Failed deployment");
        assert!(machine["error_description"].as_str().unwrap().contains("No image of debian/bookworm"), "{machine}");
    }

    async fn a_failed_script_fails_the_commissioning(w) {
        let m = w.first();
        let id = m.make_ready().await;
        w.post(&format!("api/2.0/machines/{id}/?op=commission"), &[]).await.is(200);
        let (_, key) = m.preseed(&id).await;
        let (index, _) = m.scripts(Some(&key)).await.unwrap();
        for s in index["commissioning_scripts"].as_array().unwrap() {
            let exit = i64::from(s["name"] == "maas-serial-ports");
            let output = if s["name"] == "50-maas-01-commissioning" { inventory().to_string() } else { String::new() };
            m.result(&key, s, exit, output.as_bytes()).await.is(200);
        }
        m.signal(&key, "OK", &[]).await.is(200);
        let machine = w.machine(&id).await;
        assert_eq!(machine["status_name"], "Failed commissioning");
        assert!(machine["error_description"].as_str().unwrap().contains("maas-serial-ports"), "{machine}");
    }

    async fn an_inventory_that_cannot_be_read_fails_its_script(w) {
        let m = w.first();
        let id = m.make_ready().await;
        w.post(&format!("api/2.0/machines/{id}/?op=commission"), &[]).await.is(200);
        let (_, key) = m.preseed(&id).await;
        let (index, _) = m.scripts(Some(&key)).await.unwrap();
        let script = index["commissioning_scripts"].as_array().unwrap().iter().find(|s| s["name"] == "50-maas-01-commissioning").unwrap().clone();
        m.result(&key, &script, 0, b"Segmentation fault").await.is(200);
        let set = w.get(&format!("api/2.0/nodes/{id}/results/current-commissioning/?include_output=1&filters=50-maas-01-commissioning")).await.json();
        let r = &set["results"][0];
        assert_eq!(r["status_name"], "Failed");
        let stderr = STANDARD.decode(r["stderr"].as_str().unwrap()).unwrap();
        assert!(String::from_utf8_lossy(&stderr).contains("was not accepted"), "{r}");
        assert_eq!(w.machine(&id).await["cpu_count"], 2, "what was known stays");
        // Scripts without a result speak against the machine as well.
        m.signal(&key, "OK", &[]).await.is(200);
        assert_eq!(w.status(&id).await, "Failed commissioning");
    }

    async fn a_runner_without_results_is_taken_at_its_word(w) {
        let m = w.first();
        let id = m.make_ready().await;
        w.post(&format!("api/2.0/machines/{id}/?op=commission"), &[]).await.is(200);
        let (_, key) = m.preseed(&id).await;
        m.signal(&key, "WORKING", &[]).await.is(200);
        m.signal(&key, "OK", &[]).await.is(200);
        assert_eq!(w.status(&id).await, "Ready");
        // Said twice, by a rack that delivered it again.
        m.signal(&key, "OK", &[]).await.is(200);
        m.signal(&key, "FAILED", &[]).await.is(200);
        assert_eq!(w.status(&id).await, "Ready");
    }

    async fn tests_run_after_commissioning(w) {
        let m = w.first();
        let id = m.make_ready().await;
        let body = "#!/bin/sh\nexit 0\n";
        w.sql("INSERT INTO script (name, script_type, tags, created, updated) VALUES ($1, 2, '[\"commissioning\"]', 0, 0)", "quick-test").await;
        w.sql("INSERT INTO script_version (script_id, body, created) SELECT id, $1, 0 FROM script WHERE name = 'quick-test'", body).await;
        w.sql("UPDATE script SET current_version_id = (SELECT v.id FROM script_version v WHERE v.script_id = script.id) WHERE name = $1", "quick-test").await;
        for (exit, end) in [(1, "Failed testing"), (0, "Ready")] {
            if w.status(&id).await == "Failed testing" {
                w.sql("UPDATE node SET status = 4 WHERE system_id = $1", &id).await;
            }
            w.post(&format!("api/2.0/machines/{id}/?op=commission"), &[]).await.is(200);
            let (_, key) = m.preseed(&id).await;
            m.run_commissioning(&key, &inventory()).await;
            m.signal(&key, "TESTING", &[]).await.is(200);
            assert_eq!(w.status(&id).await, "Testing");
            let (index, bodies) = m.scripts(Some(&key)).await.unwrap();
            assert_eq!(bodies["testing/quick-test"], body);
            let test = index["testing_scripts"][0].clone();
            m.signal(&key, "WORKING", &[("script_result_id", &test["script_result_id"].to_string())]).await.is(200);
            assert_eq!(w.events(&id, "RUNNING_TEST").await.first().map(String::as_str), Some("quick-test"));
            m.result(&key, &test, exit, b"").await.is(200);
            m.signal(&key, if exit == 0 { "OK" } else { "FAILED" }, &[("error", "1 of 1 scripts failed")]).await.is(200);
            assert_eq!(w.status(&id).await, end);
        }
    }

    async fn a_heartbeat_takes_the_clock_off_and_is_no_event(w) {
        let m = w.first();
        let id = m.make_ready().await;
        w.post(&format!("api/2.0/machines/{id}/?op=commission"), &[]).await.is(200);
        let (_, key) = m.preseed(&id).await;
        let count = || async {
            let mut tx = w.region.db.read().await.unwrap();
            store::one!(tx, (i64,), "SELECT (SELECT COUNT(*) FROM event) + (SELECT COUNT(*) FROM change_feed)").unwrap().0
        };
        let before = count().await;
        for _ in 0..3 {
            m.signal(&key, "WORKING", &[]).await.is(200);
        }
        assert_eq!(count().await, before);
        let mut tx = w.region.db.read().await.unwrap();
        let (expires,) = store::one!(tx, (Option<i64>,), "SELECT status_expires FROM node WHERE system_id = $1", &id).unwrap();
        assert_eq!(expires, None);
        drop(tx);
        let set = w.get(&format!("api/2.0/nodes/{id}/results/current-commissioning/")).await.json();
        assert!(set["last_ping"].is_string(), "{set}");
    }

    async fn only_the_newest_results_are_kept(w) {
        let m = w.first();
        let id = m.make_ready().await;
        w.set("max_node_commissioning_results", "2").await;
        for _ in 0..3 {
            w.post(&format!("api/2.0/machines/{id}/?op=commission"), &[]).await.is(200);
            w.post(&format!("api/2.0/machines/{id}/?op=abort"), &[]).await.is(200);
        }
        let sets = w.get(&format!("api/2.0/nodes/{id}/results/?type=commissioning")).await.json();
        assert_eq!(sets.as_array().unwrap().len(), 2);
        assert_eq!(sets[0]["status_name"], "Aborted");
        w.get("api/2.0/nodes/nobody/results/").await.is(404);
        w.get(&format!("api/2.0/nodes/{id}/results/999999/")).await.is(404);
        w.get(&format!("api/2.0/nodes/{id}/results/?type=dance")).await.is(400);
    }

    async fn a_machine_may_tell_its_power_control(w) {
        let m = w.first();
        let id = m.enlist().await;
        let (_, key) = m.preseed(&id).await;
        let parameters = r#"{"power_address": "10.77.0.200", "power_user": "maas", "power_pass": "hunter2hunter2"}"#;
        m.signal(&key, "WORKING", &[("power_type", "ipmi"), ("power_parameters", parameters)]).await.is(200);
        assert_eq!(w.machine(&id).await["power_type"], "ipmi");
        let got = w.get(&format!("api/2.0/machines/{id}/?op=power_parameters")).await.json();
        assert_eq!(got["power_address"], "10.77.0.200");
        assert!(!w.timeline(&id).await.contains("hunter2"));
    }

    async fn racks_fetch_the_agent_like_any_content(w) {
        let hash = hex::encode(Sha256::digest(AGENT));
        let mut blob = w.port.blob(&w.rack, &hash, 4).await.unwrap();
        let mut bytes = Vec::new();
        blob.reader.read_to_end(&mut bytes).await.unwrap();
        assert_eq!((blob.size, &bytes[..]), (AGENT.len() as u64, &AGENT[4..]));
        assert_eq!(region::preseed::agent_blob(&w.region, &hash).as_deref(), Some(AGENT));
    }

    async fn built_in_scripts_are_kept_up_to_date(w) {
        let versions = || async {
            let mut tx = w.region.db.read().await.unwrap();
            store::one!(tx, (i64, i64), "SELECT (SELECT COUNT(*) FROM script), (SELECT COUNT(*) FROM script_version)").unwrap()
        };
        let before = versions().await;
        region::script::ensure_builtin(&w.region).await.unwrap();
        assert_eq!(versions().await, before, "a second start changes nothing");
        w.sql("UPDATE script_version SET body = $1 WHERE id = (SELECT current_version_id FROM script WHERE name = 'maas-lshw')", "#!/bin/sh\nold\n").await;
        w.sql("INSERT INTO script (name, script_type, is_default, created, updated) VALUES ($1, 0, TRUE, 0, 0)", "of-an-older-release").await;
        region::script::ensure_builtin(&w.region).await.unwrap();
        assert_eq!(versions().await, (before.0, before.1 + 1));
    }
}
