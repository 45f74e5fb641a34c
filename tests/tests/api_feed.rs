//! What is changed over the API reaches racks, also those of another region on the same database.

use std::time::Duration;

use link::message::ToRack;
use link::port::Region as _;
use link::snapshot::Snapshot;
#[cfg(feature = "peers")]
use steelyard_tests::Engine;
use steelyard_tests::Front;
use tokio::sync::mpsc::Receiver;

/// How long anything is waited for. Far longer than needed: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// A rack's own copy of what it was told.
struct Rack {
    from: Receiver<ToRack>,
    snapshot: Snapshot,
    deltas: usize,
}

impl Rack {
    async fn of(f: &Front) -> Self {
        let rack = f.rack().await.rack;
        let mut from = f
            .port()
            .subscribe(&rack, None)
            .await
            .expect("a subscription");
        let first = tokio::time::timeout(LIMIT, from.recv())
            .await
            .expect("in time")
            .expect("the link holds");
        let ToRack::Snapshot(snapshot) = first else {
            panic!("the first message is a snapshot")
        };
        Self {
            from,
            snapshot: *snapshot,
            deltas: 0,
        }
    }

    /// Takes what comes until the snapshot is as it should be.
    async fn until(&mut self, what: &str, holds: impl Fn(&Snapshot) -> bool) {
        let wait = async {
            while !holds(&self.snapshot) {
                match self.from.recv().await.expect("the link holds") {
                    ToRack::Snapshot(_) => panic!("a delta is enough"),
                    ToRack::Delta(d) => {
                        self.snapshot.apply(d).expect("deltas follow each other");
                        self.deltas += 1;
                    }
                    ToRack::Command(_) => {}
                }
            }
        };
        if tokio::time::timeout(LIMIT, wait).await.is_err() {
            panic!("waited {LIMIT:?} until {what}");
        }
    }
}

async fn changes_reach(f: &Front, rack: &mut Rack) {
    let m = f.machine(&[("hostname", "seen")]).await;
    let (id, mac) = (
        m["system_id"].as_str().expect("an id"),
        m["interface_set"][0]["mac_address"]
            .as_str()
            .expect("an address"),
    );
    rack.until("the new machine is there", |s| {
        s.machines
            .values()
            .any(|m| m.system_id.0 == id && m.macs.iter().any(|x| x.to_string() == mac))
    })
    .await;
    drop(
        f.admin
            .update(&format!("machines/{id}/"), &[("hostname", "renamed")])
            .await
            .good(),
    );
    rack.until("its new name is there", |s| {
        s.machines
            .values()
            .any(|m| m.system_id.0 == id && m.hostname == "renamed")
    })
    .await;

    let subnet = f
        .admin
        .create(
            "subnets/",
            &[("cidr", "10.9.8.0/24"), ("gateway_ip", "10.9.8.1")],
        )
        .await
        .good();
    let sid = subnet["id"].as_i64().expect("an id");
    rack.until("the new subnet is there", |s| {
        s.subnets
            .get(&sid)
            .is_some_and(|s| s.gateway == "10.9.8.1".parse().ok())
    })
    .await;
    let range = [
        ("type", "dynamic"),
        ("start_ip", "10.9.8.100"),
        ("end_ip", "10.9.8.200"),
    ];
    let range = f.admin.create("ipranges/", &range).await.good();
    rack.until("its dynamic range is there", |s| {
        s.subnets[&sid].ranges.iter().any(|r| r.dynamic)
    })
    .await;
    drop(
        f.admin
            .delete(&format!("ipranges/{}/", range["id"]))
            .await
            .expect(204),
    );
    rack.until("its range is gone", |s| s.subnets[&sid].ranges.is_empty())
        .await;

    let path = format!("nodes/{id}/interfaces/{}/", m["interface_set"][0]["id"]);
    let link = [
        ("mode", "static"),
        ("subnet", &*sid.to_string()),
        ("ip_address", "10.9.8.77"),
        ("force", "1"),
    ];
    drop(f.admin.op(&path, "link_subnet", &link).await.good());
    rack.until("its address is reserved", |s| {
        let addresses = s
            .machines
            .values()
            .filter(|m| m.system_id.0 == id)
            .flat_map(|m| &m.addresses);
        addresses
            .into_iter()
            .any(|r| r.ip.to_string() == "10.9.8.77" && r.mac.to_string() == mac)
    })
    .await;

    let set = [("name", "kernel_opts"), ("value", "console=ttyS9")];
    drop(f.admin.op("maas/", "set_config", &set).await.good());
    rack.until("the setting is there", |s| {
        s.settings.kernel_opts == "console=ttyS9"
    })
    .await;
    let tag = [("name", "with-options"), ("kernel_opts", "nomodeset")];
    drop(f.admin.create("tags/", &tag).await.good());
    drop(
        f.admin
            .op("tags/with-options/", "update_nodes", &[("add", id)])
            .await
            .good(),
    );
    rack.until("the tag's kernel options are there", |s| {
        s.machines
            .values()
            .any(|m| m.system_id.0 == id && m.kernel_opts.contains("nomodeset"))
    })
    .await;
    drop(
        f.admin
            .update("tags/with-options/", &[("kernel_opts", "quiet")])
            .await
            .good(),
    );
    rack.until("the tag's new options are there", |s| {
        s.machines.values().any(|m| {
            m.system_id.0 == id
                && m.kernel_opts.contains("quiet")
                && !m.kernel_opts.contains("nomodeset")
        })
    })
    .await;

    let vlan = f
        .admin
        .create("fabrics/0/vlans/", &[("vid", "99")])
        .await
        .good();
    let vid = vlan["id"].as_i64().expect("an id");
    rack.until("the new VLAN is there", |s| {
        s.vlans.get(&vid).is_some_and(|v| v.vid == 99)
    })
    .await;
    drop(f.admin.delete("fabrics/0/vlans/99/").await.expect(204));
    rack.until("the VLAN is gone", |s| !s.vlans.contains_key(&vid))
        .await;
    drop(f.admin.delete(&format!("machines/{id}/")).await.expect(204));
    rack.until("the machine is gone", |s| {
        s.machines.values().all(|m| m.system_id.0 != id)
    })
    .await;
    drop(f.admin.delete(&format!("subnets/{sid}/")).await.expect(204));
    rack.until("the subnet is gone", |s| !s.subnets.contains_key(&sid))
        .await;
}

steelyard_tests::front_test! {
    /// Machines, networks, settings, tags: each change arrives as a delta, also that something is gone.
    async fn a_change_over_the_api_reaches_the_rack_as_a_delta(f: Front) {
        let mut rack = Rack::of(f).await;
        changes_reach(f, &mut rack).await;
        assert!(rack.deltas >= 10, "{}", rack.deltas);
    }

    /// What a rack was told piece by piece is what it is told as a whole.
    async fn deltas_add_up_to_the_snapshot(f: Front) {
        let mut rack = Rack::of(f).await;
        changes_reach(f, &mut rack).await;
        let m = f.machine(&[]).await;
        let id = m["system_id"].as_str().expect("an id");
        rack.until("the last machine is there", |s| s.machines.values().any(|m| m.system_id.0 == id)).await;
        let again = Rack::of(f).await;
        let (mut a, mut b) = (rack.snapshot, again.snapshot);
        // The rack that asked anew is one more node; racks know each other as nodes too.
        (a.position, b.position) = Default::default();
        a.machines.retain(|_, m| m.hostname != "rack");
        b.machines.retain(|_, m| m.hostname != "rack");
        assert_eq!(a, b);
    }

    /// A deleted token is worth nothing from its deletion on; so is that of a deleted user.
    async fn a_deleted_token_stops_at_once(f: Front) {
        let user = f.user("user").await;
        let made = user.op("account/", "create_authorisation_token", &[("name", "t")]).await.good();
        let part = |k: &str| made[k].as_str().expect("a part of a key").to_owned();
        let key = format!("{}:{}:{}", part("consumer_key"), part("token_key"), part("token_secret"));
        let other = steelyard_tests::Client::new(&f.url, Some(&key));
        drop(other.get("machines/").await.expect(200));
        drop(user.op("account/", "delete_authorisation_token", &[("token_key", &part("token_key"))]).await.expect(204));
        drop(other.get("machines/").await.expect(401));
        drop(user.get("machines/").await.expect(200));
        drop(f.admin.delete("users/user/").await.expect(204));
        drop(user.get("machines/").await.expect(401));
    }
}

/// A change made on one region is seen by the rack of the other, and a token deleted on one is refused by the
/// other at once.
#[cfg(feature = "peers")]
#[tokio::test(flavor = "multi_thread")]
async fn two_regions_on_one_postgres_are_one_product() {
    let first = Front::start(Engine::Postgres).await;
    let second = first.second().await;
    let mut rack = Rack::of(&second).await;
    changes_reach(&first, &mut rack).await;
    assert!(rack.deltas >= 10, "{}", rack.deltas);

    // The same person, the same key, at both.
    let user = first.user("user").await;
    let made = user
        .op("account/", "create_authorisation_token", &[])
        .await
        .good();
    let part = |k: &str| made[k].as_str().expect("a part of a key").to_owned();
    let key = format!(
        "{}:{}:{}",
        part("consumer_key"),
        part("token_key"),
        part("token_secret")
    );
    let here = steelyard_tests::Client::new(&first.url, Some(&key));
    let there = steelyard_tests::Client::new(&second.url, Some(&key));
    drop(here.get("machines/").await.expect(200));
    drop(there.get("machines/").await.expect(200));
    drop(
        here.op(
            "account/",
            "delete_authorisation_token",
            &[("token_key", &part("token_key"))],
        )
        .await
        .expect(204),
    );
    drop(there.get("machines/").await.expect(401));
    drop(here.get("machines/").await.expect(401));
    second.stop().await;
    first.stop().await;
}
