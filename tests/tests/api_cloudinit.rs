//! cloud-init's own reader of the MAAS datasource against the metadata service, as a deployed machine uses it
//! at each boot of its disk. (The ephemeral system's side is tested with the region.)

use std::process::Command;

use metal::status::Status;
use serde_json::Value;
use steelyard_tests::Front;
use steelyard_tests::front::ssh_key;

/// Reads the service as cloud-init does at boot, with the configuration that the installer writes.
const READER: &str = r#"
import json, sys
from cloudinit.sources import DataSourceMAAS as maas
section = json.loads(sys.argv[1])
helper = maas.get_oauth_helper(section)
data = maas.read_maas_seed_url(section["metadata_url"], read_file_or_url=helper.readurl, version="2012-03-01")
userdata, metadata, vendor = data
source = {"ud": userdata.decode() if userdata is not None else None, "md": metadata, "vd": vendor}
print(json.dumps(source))
"#;

/// What cloud-init got, or what it said.
async fn read(f: &Front, key: &region::auth::ApiKey) -> Result<Value, String> {
    let section = serde_json::json!({
        "metadata_url": format!("{}/metadata/", f.url),
        "consumer_key": key.consumer_key,
        "token_key": key.token_key,
        "token_secret": key.token_secret,
    });
    let section = section.to_string();
    let run = move || {
        Command::new("/usr/bin/python3")
            .args(["-c", READER, &section])
            .output()
            .expect("the system's python3")
    };
    let out = tokio::task::spawn_blocking(run).await.expect("it runs");
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&out.stdout).expect("JSON"))
}

steelyard_tests::front_test! {
    /// Instance id, host name, the owner's keys, the user-data of the deployment, and our vendor-data.
    async fn cloud_init_reads_a_deployed_machine(f: Front) {
        let owner = f.user("owner").await;
        let keys = [ssh_key(), ssh_key()];
        for key in &keys {
            drop(owner.create("account/prefs/sshkeys/", &[("key", key)]).await.expect(201));
        }
        // Somebody else's key does not count.
        drop(f.admin.create("account/prefs/sshkeys/", &[("key", &ssh_key())]).await.expect(201));
        let machine = f.machine(&[("hostname", "my-machine")]).await;
        let id = machine["system_id"].as_str().expect("an id").to_owned();
        f.equip(&id).await;
        let subnet = f.admin.create("subnets/", &[("cidr", "10.1.0.0/16")]).await.good()["id"].to_string();
        let port = format!("nodes/{id}/interfaces/{}/", machine["interface_set"][0]["id"]);
        drop(f.admin.op(&port, "link_subnet", &[("mode", "auto"), ("subnet", &subnet), ("force", "1")]).await.good());
        f.put_into(&id, Status::Ready, None).await;
        drop(owner.op("machines/", "allocate", &[("system_id", &id)]).await.good());
        use base64::Engine as _;
        let user_data = "#cloud-config\npackages: [hello]\n# \u{2713}\n";
        let sent = base64::engine::general_purpose::STANDARD.encode(user_data);
        drop(owner.op(&format!("machines/{id}/"), "deploy", &[("user_data", &sent)]).await.good());
        let key = f.node_key(&id, "installed").await;
        // As the agent leaves it: the next boot is from the disk.
        drop(f.node(&id, "ephemeral").await.op("/metadata/2012-03-01/", "netboot_off", &[]).await.good());
        assert_eq!(f.admin.get(&format!("machines/{id}/")).await.good()["status_name"], "Deploying");

        let got = read(f, &key).await.expect("cloud-init is content");
        assert_eq!(got["md"]["instance-id"], id.as_str(), "{got}");
        assert_eq!(got["md"]["local-hostname"], "my-machine.maas", "{got}");
        // cloud-init gives the keys as it got them, or line by line.
        let public = got["md"]["public-keys"].as_array().map_or_else(
            || got["md"]["public-keys"].as_str().unwrap_or_default().to_owned(),
            |list| list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"),
        );
        assert_eq!(public.lines().collect::<Vec<_>>(), keys, "{got}");
        assert_eq!(got["ud"], user_data, "{got}");
        let vendor = got["vd"]["cloud-init"].as_str().expect("vendor-data");
        assert!(vendor.starts_with("#cloud-config\n"), "{vendor}");
        // It has fetched its user-data: that, and nothing before it, ends the deployment.
        assert_eq!(f.admin.get(&format!("machines/{id}/")).await.good()["status_name"], "Deployed");

        // The next boot finds the same.
        assert_eq!(read(f, &key).await.expect("cloud-init is content"), got);
        let mut wrong = key.clone();
        wrong.token_secret.push('x');
        let said = read(f, &wrong).await.expect_err("a wrong secret");
        assert!(said.contains("401"), "{said}");
        // Released, its credentials are worth nothing.
        drop(owner.op(&format!("machines/{id}/"), "release", &[]).await.good());
        let said = read(f, &key).await.expect_err("a machine that was released");
        assert!(said.contains("401"), "{said}");
    }

    /// A machine without user-data and without keys is no error for cloud-init.
    async fn cloud_init_is_content_with_a_machine_without_user_data(f: Front) {
        let machine = f.machine(&[("hostname", "bare")]).await;
        let id = machine["system_id"].as_str().expect("an id").to_owned();
        f.put_into(&id, Status::Deployed, Some("admin")).await;
        let key = f.node_key(&id, "installed").await;
        let got = read(f, &key).await.expect("cloud-init is content");
        assert_eq!(got["md"]["instance-id"], id.as_str(), "{got}");
        assert!(got["ud"].is_null() || got["ud"] == "", "{got}");
    }
}
