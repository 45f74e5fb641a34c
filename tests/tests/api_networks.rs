//! Spaces, routes, reserved addresses, addresses of users, what a subnet is used for, and who was seen.

use std::collections::BTreeSet;

use link::snapshot::Reservation;
use serde_json::Value;
use steelyard_tests::front::{difference, mac};
use steelyard_tests::{Client, Front, Reply};

fn id(v: &Value) -> String {
    v["id"].to_string()
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_else(|| panic!("{v} is no text"))
}

/// The 400 of a form: what is wrong with the field.
#[track_caller]
fn wrong(reply: Reply, field: &str) -> String {
    let body = reply.expect(400).json();
    text(&body[field][0]).to_owned()
}

async fn subnet(f: &Front, cidr: &str, more: &[(&str, &str)]) -> Value {
    let mut fields = vec![("cidr", cidr)];
    fields.extend(more);
    f.admin.create("subnets/", &fields).await.good()
}

/// A machine with its one card in a subnet: system id, path of the card, hardware address.
async fn machine_in(f: &Front, subnet: &Value) -> (String, String, String) {
    let m = f.machine(&[]).await;
    let system_id = text(&m["system_id"]).to_owned();
    let card = &m["interface_set"][0];
    let path = format!("nodes/{system_id}/interfaces/{}/", card["id"]);
    let vlan = id(&subnet["vlan"]);
    drop(f.admin.update(&path, &[("vlan", &vlan)]).await.good());
    (system_id, path, text(&card["mac_address"]).to_owned())
}

async fn link_static(f: &Front, path: &str, subnet: &Value, ip: Option<&str>) -> Reply {
    let subnet = id(subnet);
    let mut fields = vec![("mode", "static"), ("subnet", subnet.as_str())];
    fields.extend(ip.map(|ip| ("ip_address", ip)));
    f.admin.op(path, "link_subnet", &fields).await
}

fn addresses(interface: &Value) -> BTreeSet<String> {
    let links = interface["links"].as_array().expect("links");
    let given = links.iter().filter_map(|l| l["ip_address"].as_str());
    given.map(str::to_owned).collect()
}

/// What racks are told of a subnet's hardware addresses.
async fn told(f: &Front, subnet: &Value) -> Vec<Reservation> {
    let mut tx = f.region.db.read().await.expect("a reader");
    let (snapshot, _) = region::rack_link::snapshot::build(&mut tx)
        .await
        .expect("a snapshot");
    snapshot.subnets[&subnet["id"].as_i64().expect("an id")]
        .reserved
        .clone()
}

async fn seen(f: &Front, card: i64, ip: &'static str, mac: &'static str, at: i64) {
    f.write(move |tx| {
        Box::pin(async move {
            store::exec!(
                tx,
                "INSERT INTO neighbour (interface_id, ip, mac, first_seen, last_seen) VALUES ($1, $2, $3, $4, $4)",
                card,
                ip,
                mac,
                at
            )?;
            Ok(())
        })
    })
    .await;
}

async fn purposes(client: &Client, subnet: &Value) -> Vec<String> {
    let path = format!("subnets/{}/", subnet["id"]);
    let list = client.ask(&path, "reserved_ip_ranges", &[]).await.good();
    let one = |r: &Value| {
        let what: Vec<&str> = r["purpose"]
            .as_array()
            .expect("a list")
            .iter()
            .map(text)
            .collect();
        format!(
            "{}-{} {}",
            text(&r["start"]),
            text(&r["end"]),
            what.join("+")
        )
    };
    list.as_array().expect("a list").iter().map(one).collect()
}

steelyard_tests::front_test! {
    async fn a_space_holds_the_vlans_that_are_put_into_it(f: Front) {
        let net = subnet(f, "10.1.0.0/24", &[]).await;
        let vlan = format!("vlans/{}/", net["vlan"]["id"]);
        let space = f.admin.create("spaces/", &[("name", "dmz"), ("description", "d")]).await.good();
        let path = format!("spaces/{}/", space["id"]);
        assert_eq!((text(&space["name"]), text(&space["description"]), &space["vlans"]), ("dmz", "d", &serde_json::json!([])));
        drop(f.admin.update(&vlan, &[("space", "dmz")]).await.good());
        let space = f.admin.get(&path).await.good();
        assert_eq!((&space["vlans"][0]["id"], &space["subnets"][0]["cidr"]), (&net["vlan"]["id"], &net["cidr"]));
        assert_eq!(f.admin.get(&format!("subnets/{}/", net["id"])).await.good()["space"], "dmz");
        let all = f.admin.get("spaces/").await.good();
        let all = all.as_array().expect("a list");
        assert_eq!((all.len(), &all[1]["id"], &all[1]["name"]), (2, &Value::from(-1), &Value::from("undefined")));
        assert!(all[1]["vlans"].as_array().expect("a list").is_empty());

        // By name as well; without a name it is called after its number.
        let other = f.admin.create("spaces/", &[]).await.good();
        let made_up = format!("space-{}", other["id"]);
        assert_eq!(f.admin.get(&format!("spaces/{made_up}/")).await.good(), other);
        assert_eq!(wrong(f.admin.create("spaces/", &[("name", "dmz")]).await, "name"), "Space with this Name already exists.");
        drop(wrong(f.admin.create("spaces/", &[("name", "undefined")]).await, "name"));
        drop(wrong(f.admin.create("spaces/", &[("name", "space-99")]).await, "name"));
        drop(wrong(f.admin.create("spaces/", &[("name", "a/b")]).await, "name"));
        drop(f.admin.delete("spaces/undefined/").await.expect(400));
        drop(f.admin.update("spaces/undefined/", &[("name", "x")]).await.expect(400));
        assert_eq!(f.admin.update(&path, &[("name", "inner")]).await.good()["name"], "inner");

        drop(f.admin.delete(&path).await.expect(204));
        assert_eq!(f.admin.get(&vlan).await.good()["space"], "undefined");
        drop(f.admin.get(&path).await.expect(404));
    }

    async fn a_route_leads_from_one_subnet_to_another_of_its_family(f: Front) {
        let (a, b) = (subnet(f, "10.1.0.0/24", &[("name", "a")]).await, subnet(f, "10.2.0.0/24", &[]).await);
        let six = subnet(f, "2001:db8:1::/64", &[]).await;
        let seven = subnet(f, "2001:db8:2::/64", &[]).await;
        let make = |source: String, destination: String, gateway: &'static str| {
            let admin = f.admin.clone();
            async move { admin.create("static-routes/", &[("source", &source), ("destination", &destination), ("gateway_ip", gateway)]).await }
        };
        let route = make("name:a".into(), "cidr:10.2.0.0/24".into(), "10.1.0.1").await.good();
        assert_eq!((&route["source"], &route["destination"], &route["metric"]), (&a, &b, &Value::from(0)));
        drop(make(id(&six), id(&seven), "2001:db8:1::1").await.good());
        drop(wrong(make(id(&a), id(&b), "10.2.0.1").await, "gateway_ip"));
        drop(wrong(make(id(&a), id(&b), "nowhere").await, "gateway_ip"));
        drop(wrong(make(id(&a), id(&a), "10.1.0.1").await, "destination"));
        drop(wrong(make(id(&a), id(&six), "10.1.0.1").await, "destination"));
        drop(wrong(make("4711".into(), id(&b), "10.1.0.1").await, "source"));
        assert_eq!(
            wrong(make(id(&a), id(&b), "10.1.0.1").await, "__all__"),
            "Static route with this Source, Destination and Gateway ip already exists."
        );
        let path = format!("static-routes/{}/", route["id"]);
        drop(wrong(f.admin.update(&path, &[("metric", "-1")]).await, "metric"));
        let changed = f.admin.update(&path, &[("metric", "5"), ("gateway_ip", "10.1.0.9")]).await.good();
        assert_eq!((&changed["metric"], &changed["gateway_ip"]), (&Value::from(5), &Value::from("10.1.0.9")));
        assert_eq!(f.admin.get(&path).await.good(), changed);
        // A route goes with its subnet.
        drop(f.admin.delete(&format!("subnets/{}/", b["id"])).await.expect(204));
        drop(f.admin.get(&path).await.expect(404));
    }

    async fn a_reserved_address_goes_to_its_card_and_to_no_other(f: Front) {
        let net = subnet(f, "10.1.0.0/24", &[("gateway_ip", "10.1.0.1")]).await;
        let dynamic = [("type", "dynamic"), ("start_ip", "10.1.0.100"), ("end_ip", "10.1.0.200")];
        drop(f.admin.create("ipranges/", &dynamic).await.good());
        let ((_, own, card), (_, other, other_card)) = (machine_in(f, &net).await, machine_in(f, &net).await);
        let reserve = |ip: &'static str, mac: String| {
            let admin = f.admin.clone();
            async move { admin.create("reservedips/", &[("ip", ip), ("mac_address", &mac)]).await }
        };
        let made = reserve("10.1.0.2", card.to_uppercase()).await.good();
        assert_eq!((text(&made["ip"]), text(&made["mac_address"]), &made["subnet"]["id"]), ("10.1.0.2", card.as_str(), &net["id"]));
        let rack = told(f, &net).await;
        assert_eq!(rack.len(), 1);
        assert_eq!((rack[0].mac.to_string(), rack[0].ip.to_string()), (card.clone(), "10.1.0.2".to_owned()));

        for (ip, mac, field) in [
            ("10.1.0.2", mac(), "ip"),
            ("10.1.0.1", mac(), "ip"),
            ("10.1.0.0", mac(), "ip"),
            ("10.1.0.255", mac(), "ip"),
            ("10.1.0.150", mac(), "ip"),
            ("10.9.0.2", mac(), "subnet"),
            ("ten", mac(), "ip"),
            ("10.1.0.3", card.clone(), "mac_address"),
            ("10.1.0.3", "no card".to_owned(), "mac_address"),
        ] {
            drop(wrong(reserve(ip, mac).await, field));
        }
        // Nobody else gets it, asked for or not; its owner gets it without asking.
        assert!(wrong(link_static(f, &other, &net, Some("10.1.0.2")).await, "ip_address").contains(&card));
        assert_eq!(addresses(&link_static(f, &other, &net, None).await.good()), ["10.1.0.3".to_owned()].into());
        assert_eq!(addresses(&link_static(f, &own, &net, None).await.good()), ["10.1.0.2".to_owned()].into());
        // What somebody has cannot be reserved for another.
        assert!(wrong(reserve("10.1.0.3", mac()).await, "ip").contains("in use"));
        drop(reserve("10.1.0.3", other_card).await.good());
        // A dynamic range cannot swallow it.
        drop(reserve("10.1.0.90", mac()).await.good());
        let range = [("type", "dynamic"), ("start_ip", "10.1.0.80"), ("end_ip", "10.1.0.99")];
        drop(wrong(f.admin.create("ipranges/", &range).await, "start_ip"));

        let path = format!("reservedips/{}/", made["id"]);
        assert_eq!(f.admin.update(&path, &[("comment", "c")]).await.good()["comment"], "c");
        drop(wrong(f.admin.update(&path, &[("ip", "10.1.0.7")]).await, "ip"));
        drop(f.admin.delete(&path).await.expect(204));
        assert_eq!(told(f, &net).await.len(), 2);
        drop(f.admin.get(&path).await.expect(404));
    }

    async fn a_reserved_address_is_picked_at_deployment_too_for_both_families(f: Front) {
        for (cidr, ip) in [("10.1.0.0/24", "10.1.0.77"), ("2001:db8:1::/64", "2001:db8:1::77")] {
            let net = subnet(f, cidr, &[]).await;
            let (_, path, card) = machine_in(f, &net).await;
            drop(f.admin.create("reservedips/", &[("ip", ip), ("mac_address", &card)]).await.good());
            let linked = link_static(f, &path, &net, None).await.good();
            assert_eq!(addresses(&linked), [ip.to_owned()].into());
        }
    }

    async fn a_user_keeps_an_address_until_it_is_given_back(f: Front) {
        let net = subnet(f, "10.1.0.0/29", &[("gateway_ip", "10.1.0.1"), ("dns_servers", "10.1.0.2")]).await;
        let (user, other) = (f.user("user").await, f.user("other").await);
        let subnet = id(&net);
        let kept = user.op("ipaddresses/", "reserve", &[("subnet", &subnet)]).await.good();
        assert_eq!((text(&kept["ip"]), &kept["alloc_type"], text(&kept["alloc_type_name"])), ("10.1.0.3", &Value::from(4), "User reserved"));
        assert_eq!((text(&kept["owner"]["username"]), &kept["subnet"]["id"]), ("user", &net["id"]));
        let card = mac();
        let named = user.op("ipaddresses/", "reserve", &[("ip", "10.1.0.5"), ("mac", &card), ("hostname", "printer")]).await.good();
        assert_eq!(named["interface_set"][0]["mac_address"], card.as_str());
        assert_eq!(told(f, &net).await[0].ip.to_string(), "10.1.0.5");
        for ip in ["10.1.0.5", "10.1.0.0", "10.1.0.7"] {
            drop(wrong(other.op("ipaddresses/", "reserve", &[("ip", ip)]).await, "ip_address"));
        }
        drop(other.op("ipaddresses/", "reserve", &[("ip", "10.9.0.1")]).await.expect(400));
        drop(other.op("ipaddresses/", "reserve", &[]).await.expect(400));
        drop(wrong(other.op("ipaddresses/", "reserve", &[("subnet", &subnet), ("hostname", "no name")]).await, "hostname"));
        drop(wrong(other.op("ipaddresses/", "reserve", &[("subnet", &subnet), ("mac", "x")]).await, "mac_address"));

        // Everybody sees his own, administrators all.
        let count = |c: &Client, query: &'static str| {
            let c = c.clone();
            async move { c.get(&format!("ipaddresses/{query}")).await.good().as_array().expect("a list").len() }
        };
        assert_eq!((count(&user, "").await, count(&other, "").await, count(&f.admin, "").await), (2, 0, 0));
        assert_eq!((count(&f.admin, "?all=true").await, count(&f.admin, "?owner=user").await, count(&user, "?owner=user").await), (2, 2, 2));
        assert_eq!((count(&user, "?ip=10.1.0.5").await, count(&user, "?ip=10.1.0.4").await), (1, 0));
        drop(other.get("ipaddresses/?all=true").await.expect(403));
        drop(other.get("ipaddresses/?owner=user").await.expect(403));

        // The subnet has two left: then it is full.
        for ip in ["10.1.0.4", "10.1.0.6"] {
            assert_eq!(other.op("ipaddresses/", "reserve", &[("subnet", &subnet)]).await.good()["ip"], ip);
        }
        let full = other.op("ipaddresses/", "reserve", &[("subnet", &subnet)]).await.expect(503);
        assert_eq!(full.text(), "No more IPs available in subnet: 10.1.0.0/29.");

        drop(other.op("ipaddresses/", "release", &[("ip", "10.1.0.3")]).await.expect(404));
        drop(other.op("ipaddresses/", "release", &[("ip", "10.1.0.3"), ("force", "true")]).await.expect(403));
        drop(user.op("ipaddresses/", "release", &[("ip", "10.1.0.3")]).await.expect(204));
        assert_eq!(other.op("ipaddresses/", "reserve", &[("subnet", &subnet)]).await.good()["ip"], "10.1.0.3");
        drop(f.admin.op("ipaddresses/", "release", &[("ip", "10.1.0.3")]).await.expect(404));
        drop(f.admin.op("ipaddresses/", "release", &[("ip", "10.1.0.3"), ("force", "true")]).await.expect(204));
    }

    async fn an_administrator_takes_the_address_of_a_machine_and_forgets_a_lease(f: Front) {
        let net = subnet(f, "10.1.0.0/24", &[]).await;
        let (system_id, path, card) = machine_in(f, &net).await;
        drop(link_static(f, &path, &net, Some("10.1.0.9")).await.good());
        let subnet = net["id"].as_i64().expect("an id");
        f.write(move |tx| {
            let card = card.clone();
            Box::pin(async move {
                store::exec!(tx, "INSERT INTO lease (ip, mac, subnet_id, until, updated) VALUES ('10.1.0.99', $1, $2, $3, 0)", card, subnet, i64::MAX)?;
                Ok(())
            })
        })
        .await;
        let all = f.admin.get("ipaddresses/?all=true").await.good();
        let kinds: BTreeSet<(&str, &str)> = all.as_array().expect("a list").iter().map(|a| (text(&a["ip"]), text(&a["alloc_type_name"]))).collect();
        assert_eq!(kinds, [("10.1.0.9", "Sticky"), ("10.1.0.99", "Observed")].into());
        assert!(all.as_array().expect("a list").iter().all(|a| a["interface_set"][0]["system_id"] == system_id.as_str()));
        drop(f.admin.op("ipaddresses/", "release", &[("ip", "10.1.0.9"), ("force", "true")]).await.expect(204));
        assert_eq!(f.admin.get(&path).await.good()["links"][0]["mode"], "link_up");
        drop(f.admin.op("ipaddresses/", "release", &[("ip", "10.1.0.99"), ("force", "true")]).await.expect(404));
        drop(f.admin.op("ipaddresses/", "release", &[("ip", "10.1.0.99"), ("force", "true"), ("discovered", "true")]).await.expect(204));
        assert_eq!(f.admin.get("ipaddresses/?all=true").await.good(), serde_json::json!([]));
    }

    async fn a_subnet_says_what_its_addresses_are_used_for(f: Front) {
        let net = subnet(f, "10.1.0.0/24", &[("gateway_ip", "10.1.0.1")]).await;
        let (_, path, _) = machine_in(f, &net).await;
        drop(link_static(f, &path, &net, Some("10.1.0.5")).await.good());
        for (kind, start, end) in [("dynamic", "10.1.0.100", "10.1.0.199"), ("reserved", "10.1.0.200", "10.1.0.254")] {
            drop(f.admin.create("ipranges/", &[("type", kind), ("start_ip", start), ("end_ip", end)]).await.good());
        }
        assert_eq!(purposes(&f.admin, &net).await, [
            "10.1.0.1-10.1.0.1 gateway-ip",
            "10.1.0.5-10.1.0.5 assigned-ip",
            "10.1.0.100-10.1.0.199 dynamic",
            "10.1.0.200-10.1.0.254 reserved",
        ]);
        let at = format!("subnets/{}/", net["id"]);
        let free = f.admin.ask(&at, "unreserved_ip_ranges", &[]).await.good();
        assert_eq!(free, serde_json::json!([
            { "start": "10.1.0.2", "end": "10.1.0.4", "num_addresses": 3 },
            { "start": "10.1.0.6", "end": "10.1.0.99", "num_addresses": 94 },
        ]));
        let s = f.admin.ask(&at, "statistics", &[("include_ranges", "1"), ("include_suggestions", "1")]).await.good();
        assert_eq!((&s["total_addresses"], &s["num_available"], &s["num_unavailable"], &s["largest_available"]), (&254.into(), &97.into(), &157.into(), &94.into()));
        assert_eq!((text(&s["usage_string"]), text(&s["available_string"]), &s["ip_version"]), ("62%", "38%", &4.into()));
        assert_eq!((s["ranges"].as_array().map(Vec::len), &s["suggested_gateway"]), (Some(6), &Value::Null));
        assert_eq!(text(&s["suggested_dynamic_range"]["end"]), "10.1.0.99");

        let six = subnet(f, "2001:db8::/48", &[]).await;
        assert_eq!(purposes(&f.admin, &six).await, ["2001:db8::-2001:db8:: rfc-4291-2.6.1"]);
        let s = f.admin.ask(&format!("subnets/{}/", six["id"]), "statistics", &[]).await.good();
        assert_eq!((&s["ip_version"], text(&s["usage_string"])), (&6.into(), "0%"));
        assert!(s["num_available"].as_f64().expect("a number") > 1e24);

        // An unmanaged subnet gives from its reserved ranges only.
        let lent = subnet(f, "10.2.0.0/29", &[("managed", "false")]).await;
        drop(f.admin.create("ipranges/", &[("type", "reserved"), ("start_ip", "10.2.0.3"), ("end_ip", "10.2.0.3")]).await.good());
        assert_eq!(purposes(&f.admin, &lent).await, ["10.2.0.1-10.2.0.2 unmanaged", "10.2.0.4-10.2.0.6 unmanaged"]);
    }

    async fn an_address_that_was_seen_in_use_is_given_last(f: Front) {
        let net = subnet(f, "10.1.0.0/30", &[]).await;
        let (_, path, _) = machine_in(f, &net).await;
        let card = f.admin.get(&path).await.good()["id"].as_i64().expect("an id");
        seen(f, card, "10.1.0.1", "52:54:00:dd:dd:dd", 1).await;
        let subnet = id(&net);
        for ip in ["10.1.0.2", "10.1.0.1"] {
            assert_eq!(f.admin.op("ipaddresses/", "reserve", &[("subnet", &subnet)]).await.good()["ip"], ip);
        }
        drop(f.admin.op("ipaddresses/", "reserve", &[("subnet", &subnet)]).await.expect(503));
    }

    async fn who_was_seen_is_listed_and_forgotten(f: Front) {
        let net = subnet(f, "10.1.0.0/24", &[]).await;
        let (system_id, path, card) = machine_in(f, &net).await;
        drop(link_static(f, &path, &net, Some("10.1.0.9")).await.good());
        let i = f.admin.get(&path).await.good()["id"].as_i64().expect("an id");
        let card: &'static str = card.leak();
        seen(f, i, "10.1.0.9", card, 3_000_000).await;
        seen(f, i, "10.1.0.50", card, 2_000_000).await;
        seen(f, i, "10.1.0.60", "52:54:00:ee:ee:01", 1_000_000).await;
        seen(f, i, "2001:db8::1", "52:54:00:ee:ee:02", 4_000_000).await;
        let user = f.user("user").await;
        let list = |op: &'static str| {
            let user = user.clone();
            async move {
                let path = if op.is_empty() { "discovery/".to_owned() } else { format!("discovery/?op={op}") };
                let all = user.get(&path).await.good();
                all.as_array().expect("a list").iter().map(|d| text(&d["ip"]).to_owned()).collect::<Vec<_>>()
            }
        };
        assert_eq!(list("").await, ["2001:db8::1", "10.1.0.9", "10.1.0.50", "10.1.0.60"]);
        assert_eq!(list("by_unknown_mac").await, ["2001:db8::1", "10.1.0.60"]);
        assert_eq!(list("by_unknown_ip").await, ["2001:db8::1", "10.1.0.50", "10.1.0.60"]);
        assert_eq!(list("by_unknown_ip_and_mac").await, ["2001:db8::1", "10.1.0.60"]);
        let first = &user.get("discovery/").await.good()[1];
        assert_eq!((text(&first["observer"]["system_id"]), text(&first["fabric_name"]), text(&first["last_seen"])), (system_id.as_str(), "fabric-0", "1970-01-01T00:00:03.000"));
        let one = format!("discovery/{}/", text(&first["discovery_id"]));
        assert_eq!(&user.get(&one).await.good(), first);

        drop(user.op("discovery/", "clear", &[("all", "1")]).await.expect(403));
        drop(f.admin.op("discovery/", "clear", &[]).await.expect(400));
        drop(f.admin.op("discovery/", "clear_by_mac_and_ip", &[("ip", "10.1.0.9"), ("mac", "52:54:00:ee:ee:09")]).await.expect(404));
        drop(f.admin.op("discovery/", "clear_by_mac_and_ip", &[("ip", "10.1.0.9"), ("mac", card)]).await.expect(204));
        drop(user.get(&one).await.expect(404));
        drop(f.admin.op("discovery/", "clear", &[("mdns", "1")]).await.expect(204));
        assert_eq!(list("").await.len(), 3);
        drop(f.admin.op("discovery/", "clear", &[("neighbours", "1")]).await.expect(204));
        assert_eq!(list("").await.len(), 0);
    }

    /// There is no scanner: what is asked is checked all the same, and nothing is pretended.
    async fn a_scan_is_checked_and_then_says_what_is_missing(f: Front) {
        drop(subnet(f, "10.1.0.0/24", &[]).await);
        drop(subnet(f, "2001:db8::/64", &[]).await);
        let before = f.dump().await;
        drop(f.admin.op("discovery/", "scan", &[]).await.expect(400));
        drop(wrong(f.admin.op("discovery/", "scan", &[("cidr", "10.9.0.0/24")]).await, "cidr"));
        drop(wrong(f.admin.op("discovery/", "scan", &[("cidr", "2001:db8::/64")]).await, "cidr"));
        drop(wrong(f.admin.op("discovery/", "scan", &[("cidr", "10.1.0.0/24"), ("threads", "0")]).await, "threads"));
        drop(wrong(f.admin.op("discovery/", "scan", &[("cidr", "10.1.0.0/24"), ("slow", "perhaps")]).await, "slow"));
        for fields in [&[("cidr", "10.1.0.0/24")][..], &[("force", "true")]] {
            let reply = f.admin.op("discovery/", "scan", fields).await.expect(503);
            assert!(reply.text().contains("scanner"), "{}", reply.text());
        }
        assert_eq!(difference(&before, &f.dump().await), "");
    }

    async fn an_old_client_reads_subnets_as_networks(f: Front) {
        let net = subnet(f, "10.1.0.0/24", &[("gateway_ip", "10.1.0.1"), ("dns_servers", "8.8.8.8")]).await;
        drop(subnet(f, "2001:db8::/64", &[]).await);
        let (system_id, path, card) = machine_in(f, &net).await;
        drop(link_static(f, &path, &net, None).await.good());
        let name = format!("subnet-{}", net["id"]);
        let all = f.admin.get("networks/").await.good();
        assert_eq!(all[0], serde_json::json!({
            "name": name, "ip": "10.1.0.0", "netmask": "255.255.255.0", "vlan_tag": 0, "description": "10.1.0.0/24",
            "default_gateway": "10.1.0.1", "dns_servers": ["8.8.8.8"], "resource_uri": format!("/MAAS/api/2.0/networks/{name}/"),
        }));
        assert_eq!(all[1]["netmask"], "ffff:ffff:ffff:ffff::");
        let at = format!("networks/{name}/");
        assert_eq!(f.admin.get(&at).await.good(), all[0]);
        assert_eq!(f.admin.get(&format!("networks/?node={system_id}")).await.good(), serde_json::json!([all[0]]));
        drop(wrong(f.admin.get("networks/?node=abc123").await, "node"));
        let macs = f.admin.ask(&at, "list_connected_macs", &[]).await.good();
        assert_eq!(macs, serde_json::json!([{ "mac_address": card }]));
        let before = f.dump().await;
        drop(f.admin.create("networks/", &[]).await.expect(410));
        drop(f.admin.update(&at, &[("name", "x")]).await.expect(410));
        drop(f.admin.delete(&at).await.expect(410));
        drop(f.admin.op(&at, "connect_macs", &[]).await.expect(410));
        assert_eq!(difference(&before, &f.dump().await), "");
    }

    async fn a_relayed_vlan_has_no_racks_and_the_other_one_is_not_relayed(f: Front) {
        let make = |vid: &'static str| {
            let admin = f.admin.clone();
            async move { admin.create("fabrics/0/vlans/", &[("vid", vid)]).await.good() }
        };
        let (a, b, c) = (make("10").await, make("20").await, make("30").await);
        let at = |v: &Value| format!("vlans/{}/", v["id"]);
        let relayed = f.admin.update(&at(&a), &[("relay_vlan", &id(&b))]).await.good();
        assert_eq!((&relayed["relay_vlan"]["id"], &relayed["primary_rack"]), (&b["id"], &Value::Null));
        drop(wrong(f.admin.update(&at(&a), &[("relay_vlan", &id(&a))]).await, "relay_vlan"));
        drop(wrong(f.admin.update(&at(&b), &[("relay_vlan", &id(&c))]).await, "relay_vlan"));
        drop(wrong(f.admin.update(&at(&c), &[("relay_vlan", &id(&a))]).await, "relay_vlan"));
        drop(wrong(f.admin.update(&at(&c), &[("relay_vlan", "4711")]).await, "relay_vlan"));
        drop(f.admin.delete(&at(&b)).await.expect(204));
        assert_eq!(f.admin.get(&at(&a)).await.good()["relay_vlan"], Value::Null);

        // To another fabric, where the number is free.
        let fabric = f.admin.create("fabrics/", &[("name", "other")]).await.good();
        assert_eq!(f.admin.update(&at(&a), &[("fabric", "other")]).await.good()["fabric_id"], fabric["id"]);
        drop(f.admin.create("fabrics/other/vlans/", &[("vid", "30")]).await.good());
        drop(wrong(f.admin.update(&at(&c), &[("fabric", "other")]).await, "vid"));
        drop(wrong(f.admin.update(&format!("vlans/{}/", fabric["vlans"][0]["id"]), &[("fabric", "0")]).await, "fabric"));
    }
}
