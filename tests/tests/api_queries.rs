//! Lists cost a constant number of statements, whatever their length.

use metal::status::Status;
use steelyard_tests::{Client, Front};

/// Statements that one read costs. Everything else that reads on this region is quiet; the least of a few
/// tries is taken all the same.
async fn cost(f: &Front, client: &Client, path: &str) -> (u64, usize) {
    let mut least = u64::MAX;
    let mut length = 0;
    for _ in 0..3 {
        let before = f.region.db.statements_read();
        let body = client.get(path).await.good();
        least = least.min(f.region.db.statements_read() - before);
        let list = body.get("events").unwrap_or(&body);
        length = list.as_array().map_or(0, Vec::len);
    }
    (least, length)
}

/// Adds objects of every kind.
async fn add(f: &Front, count: usize, from: usize, owner: &Client) {
    let first = f.admin.get("machines/").await.good();
    let host = first[0]["system_id"].as_str().map(str::to_owned);
    for i in from..from + count {
        let name = format!("m{i}");
        let m = f.machine(&[("hostname", &name)]).await;
        let id = m["system_id"].as_str().expect("an id").to_owned();
        f.equip(&id).await;
        let cidr = format!("10.{}.{}.0/24", i / 256, i % 256);
        let subnet = f.admin.create("subnets/", &[("cidr", &cidr)]).await.good();
        let subnet = subnet["id"].to_string();
        let path = format!("nodes/{id}/interfaces/{}/", m["interface_set"][0]["id"]);
        let link = [
            ("mode", "static"),
            ("subnet", subnet.as_str()),
            ("force", "1"),
        ];
        drop(f.admin.op(&path, "link_subnet", &link).await.good());
        let range = [
            ("type", "reserved"),
            ("start_ip", &*format!("10.{}.{}.10", i / 256, i % 256)),
            ("end_ip", &*format!("10.{}.{}.20", i / 256, i % 256)),
        ];
        drop(owner.create("ipranges/", &range).await.good());
        drop(
            f.admin
                .create("tags/", &[("name", &*format!("tag{i}"))])
                .await
                .good(),
        );
        let ip = format!("10.{}.{}.99", i / 256, i % 256);
        let fqdn = format!("n{i}.maas");
        let (a, fqdn, ip) = (&f.admin, fqdn.as_str(), ip.as_str());
        drop(
            a.create("dnsresources/", &[("fqdn", fqdn), ("ip_addresses", ip)])
                .await
                .good(),
        );
        let record = [("fqdn", fqdn), ("rrtype", "TXT"), ("rrdata", "text")];
        drop(a.create("dnsresourcerecords/", &record).await.good());
        let name = format!("s{i}");
        let snippet = [
            ("name", name.as_str()),
            ("value", "option x;"),
            ("node", id.as_str()),
        ];
        drop(a.create("dhcp-snippets/", &snippet).await.good());
        let domain = format!("d{i}.example");
        drop(a.create("domains/", &[("name", &domain)]).await.good());
        let repository = [("name", name.as_str()), ("url", "http://r.example")];
        drop(a.create("package-repositories/", &repository).await.good());
        let notification = [("message", "m"), ("users", "1")];
        drop(a.create("notifications/", &notification).await.good());
        let file = [("filename", name.as_str()), ("file", "content")];
        drop(owner.create("files/", &file).await.good());
        let tagged = [("add", id.as_str())];
        drop(
            f.admin
                .op(&format!("tags/tag{i}/"), "update_nodes", &tagged)
                .await
                .good(),
        );
        drop(
            f.admin
                .create("zones/", &[("name", &*format!("zone{i}"))])
                .await
                .good(),
        );
        drop(
            f.admin
                .create("resourcepools/", &[("name", &*format!("pool{i}"))])
                .await
                .good(),
        );
        drop(f.admin.create("fabrics/", &[]).await.good());
        drop(f.admin.create("spaces/", &[]).await.good());
        let at = |last: u32| format!("10.{}.{}.{last}", i / 256, i % 256);
        drop(
            owner
                .op("ipaddresses/", "reserve", &[("ip", &at(30))])
                .await
                .good(),
        );
        let mac = steelyard_tests::front::mac();
        let fields = [("ip", at(40)), ("mac_address", mac)];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
        drop(f.admin.create("reservedips/", &fields).await.good());
        if i > from {
            let to = format!("10.{}.{}.0/24", (i - 1) / 256, (i - 1) % 256);
            let route = [
                ("source", cidr.as_str()),
                ("destination", to.as_str()),
                ("gateway_ip", &*at(1)),
            ];
            drop(f.admin.create("static-routes/", &route).await.good());
        }
        let (card, ip) = (m["interface_set"][0]["id"].as_i64().expect("an id"), at(60));
        f.write(move |tx| {
            let ip = ip.clone();
            Box::pin(async move {
                store::exec!(
                    tx,
                    "INSERT INTO neighbour (interface_id, ip, mac, first_seen, last_seen) VALUES ($1, $2, '52:54:00:cc:cc:cc', 0, 0)",
                    card,
                    ip
                )?;
                Ok(())
            })
        })
        .await;
        let vid = (i + 1).to_string();
        drop(
            f.admin
                .create("fabrics/0/vlans/", &[("vid", &vid)])
                .await
                .good(),
        );
        f.image(&format!("ubuntu/r{i}")).await;
        f.source().await;
        f.put_into(&id, Status::Allocated, Some("owner")).await;
        drop(
            owner
                .op(&format!("machines/{id}/"), "set_owner_data", &[("k", "v")])
                .await
                .good(),
        );
        if let Some(host) = &host {
            let path = format!("nodes/{host}/interfaces/");
            let mac = steelyard_tests::front::mac();
            drop(
                f.admin
                    .op(
                        &path,
                        "create_physical",
                        &[("mac_address", &mac), ("name", &format!("x{i}"))],
                    )
                    .await,
            );
        }
    }
}

steelyard_tests::front_test! {
    /// Three machines and what belongs to them, then sixty: each list costs the same.
    async fn lists_cost_the_same_whatever_their_length(f: Front) {
        let owner = f.user("owner").await;
        // Interfaces are added to this one, which nobody owns.
        let host = f.machine(&[]).await["system_id"].as_str().expect("an id").to_owned();
        drop(f.rack().await);
        let lists = [
            "machines/", "machines/?op=list_allocated", "machines/?status=allocated", "machines/?tags=tag1",
            "events/?op=query&level=DEBUG&limit=1000", "subnets/", "fabrics/", "fabrics/0/vlans/", "ipranges/", "zones/",
            "resourcepools/", "tags/", "tags/tag1/?op=machines", "users/", "account/prefs/sshkeys/", "boot-resources/",
            "boot-sources/", "rackcontrollers/", "spaces/", "static-routes/", "reservedips/", "ipaddresses/", "ipaddresses/?all=1",
            "networks/", "discovery/", "discovery/?op=by_unknown_ip_and_mac",
            "boot-sources/", "rackcontrollers/", "domains/", "dnsresources/", "dnsresources/?all=1", "dnsresourcerecords/", "dhcp-snippets/",
            "package-repositories/", "notifications/", "files/", "account/prefs/sslkeys/",
            "boot-sources/", "rackcontrollers/", "nodes/", "devices/", "regioncontrollers/", "scripts/",
            "machines/?not_subnets=10.0.1.0/24", "installation-results/", "tags/tag1/?op=nodes",
        ].map(str::to_owned);
        let of_host = ["interfaces", "blockdevices", "results"].map(|l| format!("nodes/{host}/{l}/"));
        let lists: Vec<String> = lists.into_iter().chain(of_host).collect();
        add(f, 3, 0, &owner).await;
        let mut few = Vec::new();
        let of_admins = |list: &str| list.starts_with("boot-sources") || list.contains("all=1");
        for list in &lists {
            let user = if of_admins(list) { &f.admin } else { &owner };
            few.push((cost(f, &f.admin, list).await, cost(f, user, list).await));
        }
        add(f, 57, 3, &owner).await;
        for (list, (admin, user)) in lists.iter().zip(few) {
            for (who, client, (before, short)) in [("an administrator", &f.admin, admin), ("a user", &owner, user)] {
                if who == "a user" && of_admins(list) {
                    continue;
                }
                let (after, long) = cost(f, client, list).await;
                assert_eq!(after, before, "{list} read by {who}: {before} statements for {short} objects, {after} for {long}");
                // Those lists that grow here have grown, or the comparison means nothing.
                let grows = ["machines/", "machines/?op=list_allocated", "events", "subnets", "fabrics", "ipranges", "zones", "tags/", "spaces", "static-routes", "reservedips",
                    "networks", "discovery", "ipaddresses/?all"];
                let fixed = list.contains("tags=") || list.contains("op=machines") || list.contains("op=nodes") || (list.contains("list_allocated") && who != "a user");
                if grows.iter().any(|g| list.starts_with(g)) && !fixed {
                    assert!(long > short, "{list} read by {who}: {short} objects, then {long}");
                }
            }
        }
    }
}
