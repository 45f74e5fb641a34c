//! Addresses of AUTO links.

use futures::future::join_all;
use metal::status::Status;
use region::error::ApiError;
use region::{ipam, node::NodeRow};
use store::testing::TestDb;

use crate::support::{NewNode, Site, now};

async fn auto(site: &Site, interface: i64, subnet: i64) {
    site.write(move |tx| {
        Box::pin(async move {
            store::exec!(
                tx,
                "INSERT INTO ip_address (alloc_type, subnet_id, interface_id, created, updated) VALUES (0, $1, $2, 0, 0)",
                subnet,
                interface
            )?;
            Ok(())
        })
    })
    .await
    .unwrap();
}

async fn claim(site: &Site, node: &NodeRow) -> Result<(), ApiError> {
    let node = node.clone();
    site.write(move |tx| {
        let node = node.clone();
        Box::pin(async move { ipam::claim_auto(tx, &node, now()).await })
    })
    .await
}

async fn addresses(site: &Site, system_id: &str) -> Vec<String> {
    let m = site.machine(system_id).await;
    serde_json::from_value(m["ip_addresses"].clone()).unwrap()
}

store::both! {
    /// Neither DHCP nor anything that has an address already is touched.
    async fn auto_links_get_the_lowest_address_that_nothing_holds(t: TestDb) {
        let site = Site::open(t).await;
        let subnet = site.subnet("10.0.0.0/24", Some("10.0.0.1")).await;
        site.range(subnet, "dynamic", "10.0.0.2", "10.0.0.9").await;
        site.range(subnet, "reserved", "10.0.0.10", "10.0.0.19").await;
        site.lease("10.0.0.20", "52:54:00:00:00:99", subnet).await;
        let node = site.node(NewNode::default()).await;
        for (name, mac) in [("eth0", "52:54:00:00:00:01"), ("eth1", "52:54:00:00:00:02")] {
            let i = site.interface(&node, name, mac).await;
            auto(&site, i, subnet).await;
        }
        claim(&site, &node).await.unwrap();
        assert_eq!(addresses(&site, "aaaaaa").await, ["10.0.0.21", "10.0.0.22"]);
        let revision = site.fresh(&node).await.revision;
        assert!(revision > node.revision, "racks hear of it");
        claim(&site, &node).await.unwrap();
        assert_eq!(addresses(&site, "aaaaaa").await, ["10.0.0.21", "10.0.0.22"], "an address that is there stays");
        assert_eq!(site.fresh(&node).await.revision, revision);
    }

    /// And nothing of a claim that cannot be met is kept.
    async fn a_full_subnet_is_said_by_name(t: TestDb) {
        let site = Site::open(t).await;
        let subnet = site.subnet("10.0.0.0/30", Some("10.0.0.1")).await;
        let node = site.node(NewNode::default()).await;
        for (name, mac) in [("eth0", "52:54:00:00:00:01"), ("eth1", "52:54:00:00:00:02")] {
            let i = site.interface(&node, name, mac).await;
            auto(&site, i, subnet).await;
        }
        let e = claim(&site, &node).await.unwrap_err();
        assert_eq!(e.to_string(), "No more IPs available in subnet: 10.0.0.0/30.");
        assert_eq!(e.answer().status, 503);
        assert!(addresses(&site, "aaaaaa").await.is_empty());
    }

    /// One is served, and the other passes the address over.
    async fn an_address_of_a_network_around_this_one_is_not_given_twice(t: TestDb) {
        let site = Site::open(t).await;
        let inner = site.subnet("10.0.0.0/24", None).await;
        let outer = site.subnet("10.0.0.0/16", None).await;
        let node = site.node(NewNode::default()).await;
        let i = site.interface(&node, "eth0", "52:54:00:00:00:01").await;
        auto(&site, i, inner).await;
        auto(&site, i, outer).await;
        claim(&site, &node).await.unwrap();
        assert_eq!(addresses(&site, "aaaaaa").await, ["10.0.0.1", "10.0.0.2"]);
    }

    /// Addresses are unique by constraint; whoever comes second takes the next.
    async fn machines_that_deploy_at_once_get_different_addresses(t: TestDb) {
        let site = Site::open(t).await;
        let subnet = site.subnet("10.0.0.0/24", None).await;
        let macs = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03", "52:54:00:00:00:04", "52:54:00:00:00:05", "52:54:00:00:00:06"];
        let ids = ["aaaaaa", "bbbbbb", "cccccc", "dddddd", "eeeeee", "ffffff"];
        let mut nodes = Vec::new();
        for (system_id, mac) in ids.into_iter().zip(macs) {
            let node = site.node(NewNode { system_id, status: Status::Allocated, ..NewNode::default() }).await;
            let i = site.interface(&node, "eth0", mac).await;
            auto(&site, i, subnet).await;
            nodes.push(node);
        }
        for done in join_all(nodes.iter().map(|n| claim(&site, n))).await {
            done.unwrap();
        }
        let mut got = Vec::new();
        for id in ids {
            got.extend(addresses(&site, id).await);
        }
        got.sort();
        assert_eq!(got, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    }
}
