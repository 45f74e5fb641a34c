//! cloud-init's own reader of the MAAS datasource, and its own webhook, against the metadata service.
#![cfg(feature = "peers")]

mod common;

use std::process::Command;

use common::World;

/// Reads the service as cloud-init does at boot, reports one step, and prints what it got as JSON.
const READER: &str = r#"
import json, sys, yaml
from cloudinit.sources import DataSourceMAAS as maas
from cloudinit.reporting import events, handlers
preseed = yaml.safe_load(open(sys.argv[1]))
section = preseed["datasource"]["MAAS"]
helper = maas.get_oauth_helper(section)
userdata, metadata, vendor = maas.read_maas_seed_url(section["metadata_url"], read_file_or_url=helper.readurl, version="2012-03-01")
if "reporting" in preseed:
    hook = dict(preseed["reporting"]["maas"]); hook.pop("type")
    handler = handlers.WebHookHandler(**hook, timeout=10, retries=0)
    handler.publish_event(events.ReportingEvent("start", "init-network", "searching for network datasources"))
    handler.publish_event(events.FinishReportingEvent("modules-final", "running modules for final", result=events.status.FAIL))
    handler.flush()
print(json.dumps({"userdata": userdata.decode() if userdata else None, "metadata": metadata, "vendor": vendor}))
"#;

/// What cloud-init got with a preseed.
async fn read(preseed: &str) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("preseed");
    std::fs::write(&file, preseed).unwrap();
    let run = move || {
        Command::new("/usr/bin/python3")
            .args(["-c", READER])
            .arg(&file)
            .output()
            .expect("the system's python3, which has cloud-init")
    };
    let out = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_init_reads_the_service_and_reports_to_it() {
    let w = World::sqlite().await;
    let m = w.first();
    let id = m.make_ready().await;
    w.post(&format!("api/2.0/machines/{id}/?op=commission"), &[])
        .await
        .is(200);
    // cloud-init speaks to the region itself here, from the address that the machine has booted from.
    w.sql("UPDATE node SET boot_client_ip = '127.0.0.1', boot_client_at = 4000000000000000 WHERE system_id = $1", &id).await;
    let ask = |path: String| {
        let url = format!("{}/MAAS/metadata/{path}", w.base);
        async move {
            let answer = reqwest::get(url).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.text().await.unwrap()
        }
    };
    let got = read(&ask(format!("latest/by-id/{id}/?op=get_preseed")).await).await;
    assert_eq!(got["metadata"]["instance-id"], id.as_str(), "{got}");
    assert_eq!(
        got["metadata"]["local-hostname"],
        w.machine(&id).await["fqdn"]
    );
    assert!(
        got["userdata"]
            .as_str()
            .unwrap()
            .contains("steelyard-agent"),
        "{got}"
    );
    assert!(
        got["vendor"]["cloud-init"]
            .as_str()
            .unwrap()
            .starts_with("#cloud-config"),
        "{got}"
    );
    assert_eq!(w.events(&id, "LOADING_EPHEMERAL").await.len(), 1);
    assert_eq!(
        w.events(&id, "NODE_COMMISSIONING_EVENT_FAILED").await.len(),
        1
    );

    let got = read(&ask("latest/enlist-preseed/?op=get_enlist_preseed".to_owned()).await).await;
    assert_eq!(got["metadata"]["instance-id"], "i-maas-enlistment", "{got}");
    assert!(
        got["userdata"]
            .as_str()
            .unwrap()
            .contains("steelyard-agent"),
        "{got}"
    );
    w.stop().await;
}
