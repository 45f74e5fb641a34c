//! What machines report all at once is not lost: stock cloud-init and the scripts of MAAS do not come again when
//! they are refused with "try again".

use metal::status::Status;
use steelyard_tests::Client;

/// Machines that report at the same time.
const MACHINES: usize = 48;
/// Reports of each, one after the other, as from one machine.
const ROUNDS: usize = 4;

/// Everything that a stock machine sends on its own while it is commissioned: the answers that were not good.
async fn live(machine: Client, id: String) -> Vec<String> {
    let mut refused = Vec::new();
    let webhook = format!("/metadata/status/{id}");
    for round in 0..ROUNDS {
        let text = format!("round {round}");
        let fields = [("status", "WORKING"), ("error", text.as_str())];
        let said = machine.op("/metadata/2012-03-01/", "signal", &fields).await;
        let event = serde_json::json!({
            "name": "modules-final", "description": text, "event_type": "start", "origin": "cloudinit", "timestamp": 1.0,
        });
        let report = machine.request(reqwest::Method::POST, &webhook);
        let told = machine.send(report.body(event.to_string())).await;
        let off = machine
            .op("/metadata/2012-03-01/", "netboot_off", &[])
            .await;
        let on = machine.op("/metadata/2012-03-01/", "netboot_on", &[]).await;
        for (what, reply) in [
            ("signal", said),
            ("report", told),
            ("netboot_off", off),
            ("netboot_on", on),
        ] {
            if !(200..300).contains(&reply.status) {
                refused.push(format!(
                    "{id} {what} {round}: {} {}",
                    reply.status,
                    reply.text()
                ));
            }
        }
    }
    refused
}

steelyard_tests::front_test! {
    /// However many machines report at once, and while people change things, each report is taken the first time.
    async fn reports_of_many_machines_at_once_are_all_taken(f: Front) {
        let mut machines = Vec::new();
        for _ in 0..MACHINES {
            let id = f.machine(&[]).await["system_id"].as_str().expect("an id").to_owned();
            f.put_into(&id, Status::Ready, None).await;
            drop(f.admin.op(&format!("machines/{id}/"), "commission", &[]).await.good());
            machines.push((f.node(&id, "ephemeral").await, id));
        }
        let lives = machines.iter().cloned().map(|(machine, id)| tokio::spawn(live(machine, id)));
        let lives: Vec<_> = lives.collect();
        let mut refused = Vec::new();
        for life in lives {
            refused.extend(life.await.expect("a machine's life"));
        }
        assert!(refused.is_empty(), "{} refused, the first: {:#?}", refused.len(), &refused[..refused.len().min(5)]);
        // And each is there: the last word of each machine is its heartbeat's.
        for (_, id) in &machines {
            let machine = f.admin.get(&format!("machines/{id}/")).await.good();
            assert_eq!(machine["status_name"], "Commissioning", "{machine}");
        }
    }

    /// Strangers enlist themselves all at once: none of them is turned away.
    async fn machines_that_enlist_at_once_are_all_taken(f: Front) {
        let strangers = (0..MACHINES).map(|_| {
            let nobody = f.nobody();
            tokio::spawn(async move {
                let mac = steelyard_tests::front::mac();
                let fields = [("architecture", "amd64"), ("mac_addresses", mac.as_str()), ("power_type", "manual")];
                nobody.create("machines/", &fields).await
            })
        });
        let strangers: Vec<_> = strangers.collect();
        for stranger in strangers {
            let reply = stranger.await.expect("an enlistment");
            assert!((200..300).contains(&reply.status), "{}: {}", reply.status, reply.text());
        }
        assert_eq!(f.admin.get("machines/").await.good().as_array().map(Vec::len), Some(MACHINES));
    }
}
