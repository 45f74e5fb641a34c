//! Bonds, bridges and VLAN interfaces: what they may lie on, what they take over, and what a machine is
//! installed with.

use link::port::Region as _;
use metal::status::Status;
use serde_json::Value;
use steelyard_tests::front::{difference, mac};
use steelyard_tests::{Front, Reply};

fn id(v: &Value) -> String {
    v["id"].to_string()
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_else(|| panic!("{v} is no text"))
}

#[track_caller]
fn wrong(reply: Reply, field: &str) -> String {
    let body = reply.expect(400).json();
    text(&body[field][0]).to_owned()
}

/// A machine with two cards in one VLAN that has a subnet, and a tagged VLAN beside it.
struct Ground {
    system_id: String,
    cards: String,
    first: Value,
    second: Value,
    subnet: Value,
    tagged: Value,
}

impl Ground {
    async fn new(f: &Front) -> Self {
        let subnet = f
            .admin
            .create(
                "subnets/",
                &[("cidr", "10.1.0.0/24"), ("gateway_ip", "10.1.0.1")],
            )
            .await
            .good();
        let tagged = f
            .admin
            .create("fabrics/0/vlans/", &[("vid", "7")])
            .await
            .good();
        let m = f.machine(&[]).await;
        let system_id = text(&m["system_id"]).to_owned();
        let cards = format!("nodes/{system_id}/interfaces/");
        let vlan = id(&subnet["vlan"]);
        let path = format!("{cards}{}/", m["interface_set"][0]["id"]);
        let first = f.admin.update(&path, &[("vlan", &vlan)]).await.good();
        let fields = [
            ("mac_address", mac()),
            ("vlan", vlan),
            ("name", "eth1".to_owned()),
        ];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let second = f.admin.op(&cards, "create_physical", &fields).await.good();
        Self {
            system_id,
            cards,
            first,
            second,
            subnet,
            tagged,
        }
    }

    fn at(&self, i: &Value) -> String {
        format!("{}{}/", self.cards, i["id"])
    }

    async fn bond(&self, f: &Front) -> Value {
        let fields = [
            ("name", "bond0".to_owned()),
            ("parents", id(&self.first)),
            ("parents", id(&self.second)),
        ];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
        f.admin.op(&self.cards, "create_bond", &fields).await.good()
    }

    async fn vlan_on(&self, f: &Front, parent: &Value) -> Value {
        let fields = [("parent", id(parent)), ("vlan", id(&self.tagged))];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
        f.admin.op(&self.cards, "create_vlan", &fields).await.good()
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(text).collect()
}

/// A rack that presents itself with one card with these addresses: its system id.
async fn rack_on(f: &Front, hostname: &str, addresses: &[&str]) -> String {
    let hello = link::message::Hello {
        version: link::VERSION,
        rack: None,
        hostname: hostname.to_owned(),
        program: "test".to_owned(),
        interfaces: vec![link::message::Interface {
            name: "eth0".to_owned(),
            mac: Some("52:54:00:99:00:01".parse().expect("an address")),
            addresses: addresses
                .iter()
                .map(|a| a.parse().expect("an address"))
                .collect(),
        }],
        services: std::collections::BTreeMap::new(),
        position: None,
    };
    f.port()
        .hello(hello)
        .await
        .expect("the rack is known")
        .rack
        .0
}

/// What the machine is told to install.
async fn netplan(f: &Front, system_id: &str) -> Value {
    let mut tx = f.region.db.read().await.expect("a reader");
    let node = region::node::row::find(&mut tx, system_id)
        .await
        .expect("a node")
        .expect("it is there");
    let key = region::auth::ApiKey::random();
    let now = steelyard_tests::front::now();
    region::install::plan(&mut tx, &node, "http://10.1.0.1:5248", &key, now)
        .await
        .expect("a plan")
        .network["network"]
        .clone()
}

steelyard_tests::front_test! {
    async fn a_bond_takes_its_cards_over(f: Front) {
        let g = Ground::new(f).await;
        let auto = [("mode", "auto"), ("subnet", &*id(&g.subnet))];
        drop(f.admin.op(&g.at(&g.first), "link_subnet", &auto).await.good());
        let bond = g.bond(f).await;
        assert_eq!((text(&bond["type"]), text(&bond["name"]), &bond["mac_address"]), ("bond", "bond0", &g.first["mac_address"]));
        assert_eq!(bond["vlan"]["id"], g.subnet["vlan"]["id"]);
        assert_eq!(bond["params"], serde_json::json!({
            "bond_mode": "balance-rr", "bond_miimon": 100, "bond_downdelay": 0, "bond_updelay": 0, "bond_lacp_rate": "fast",
            "bond_xmit_hash_policy": "layer2", "bond_num_grat_arp": 1,
        }));
        assert_eq!(bond["links"][0]["mode"], "link_up");
        let first = f.admin.get(&g.at(&g.first)).await.good();
        assert_eq!((names(&first["children"]), &first["links"]), (vec!["bond0"], &serde_json::json!([])));
        assert_eq!(names(&bond["parents"]).len(), 2);
        // A card of a bond has no address of its own.
        assert!(wrong(f.admin.op(&g.at(&g.first), "link_subnet", &auto).await, "__all__").contains("bond0"));
        let linked = f.admin.op(&g.at(&bond), "link_subnet", &auto).await.good();
        assert_eq!(linked["links"][0]["mode"], "auto");

        let changed = f.admin.update(&g.at(&bond), &[("bond_mode", "802.3ad"), ("bond_lacp_rate", "slow"), ("mtu", "9000")]).await.good();
        let params = &changed["params"];
        assert_eq!((text(&params["bond_mode"]), text(&params["bond_lacp_rate"]), &params["bond_miimon"]), ("802.3ad", "slow", &100.into()));
        assert_eq!(changed["effective_mtu"], 9000);
        for (field, value) in [("bond_mode", "bundle"), ("bond_miimon", "-1"), ("bond_num_grat_arp", "256"), ("bond_xmit_hash_policy", "layer9")] {
            drop(wrong(f.admin.update(&g.at(&bond), &[(field, value)]).await, field));
        }
        // One card leaves, and is up by itself.
        let only = f.admin.update(&g.at(&bond), &[("parents", &id(&g.first))]).await.good();
        assert_eq!(names(&only["parents"]), [text(&g.first["name"])]);
        assert_eq!(f.admin.get(&g.at(&g.second)).await.good()["links"][0]["mode"], "link_up");
        drop(f.admin.delete(&g.at(&bond)).await.expect(204));
        let first = f.admin.get(&g.at(&g.first)).await.good();
        assert_eq!((&first["children"], &first["links"][0]["mode"]), (&serde_json::json!([]), &"link_up".into()));
    }

    async fn what_a_bond_cannot_be_made_of_is_said(f: Front) {
        let g = Ground::new(f).await;
        let other = f.machine(&[]).await;
        let before = f.dump().await;
        let reply = f.admin.op(&g.cards, "create_bond", &[("name", "bond0"), ("parents", "0")]).await;
        assert_eq!(reply.expect(400).json(), serde_json::json!({
            "parents": ["Select a valid choice. 0 is not one of the available choices."],
            "mac_address": ["This field cannot be blank."],
        }));
        drop(wrong(f.admin.op(&g.cards, "create_bond", &[("name", "bond0")]).await, "parents"));
        drop(wrong(f.admin.op(&g.cards, "create_bond", &[("parents", "eth1")]).await, "name"));
        drop(wrong(f.admin.op(&g.cards, "create_bond", &[("name", "eth1"), ("parents", "eth1")]).await, "name"));
        drop(wrong(f.admin.op(&g.cards, "create_bond", &[("name", "bond0"), ("parents", "eth1"), ("mac_address", "x")]).await, "mac_address"));
        let stranger = id(&other["interface_set"][0]);
        drop(wrong(f.admin.op(&g.cards, "create_bond", &[("name", "bond0"), ("parents", &stranger)]).await, "parents"));
        assert_eq!(difference(&before, &f.dump().await), "");

        let bond = g.bond(f).await;
        assert_eq!(
            wrong(f.admin.op(&g.cards, "create_bond", &[("name", "bond1"), ("parents", "eth1")]).await, "parents"),
            "Interfaces already in-use: eth1."
        );
        drop(wrong(f.admin.op(&g.cards, "create_bond", &[("name", "bond1"), ("parents", &id(&bond))]).await, "parents"));
        // Not on itself, nor on what lies on it.
        let tagged = g.vlan_on(f, &bond).await;
        let bridge = f.admin.op(&g.cards, "create_bridge", &[("parent", &id(&tagged))]).await.good();
        drop(wrong(f.admin.update(&g.at(&tagged), &[("parent", &id(&bridge))]).await, "parent"));
        drop(wrong(f.admin.update(&g.at(&tagged), &[("parent", &id(&tagged))]).await, "parent"));
        drop(wrong(f.admin.update(&g.at(&g.second), &[("parents", &id(&g.first))]).await, "parent"));
    }

    async fn a_vlan_interface_is_called_after_its_parent_and_number(f: Front) {
        let g = Ground::new(f).await;
        let tagged = g.vlan_on(f, &g.first).await;
        assert_eq!((text(&tagged["type"]), tagged["name"].clone()), ("vlan", format!("{}.7", text(&g.first["name"])).into()));
        assert_eq!((&tagged["mac_address"], &tagged["vlan"]["id"], &tagged["params"]), (&g.first["mac_address"], &g.tagged["id"], &"".into()));
        // The parent keeps its own network.
        assert_eq!(f.admin.get(&g.at(&g.first)).await.good()["links"][0]["mode"], "link_up");
        let parent = id(&g.first);
        let make = |vlan: String| {
            let (admin, cards, parent) = (f.admin.clone(), g.cards.clone(), parent.clone());
            async move { admin.op(&cards, "create_vlan", &[("parent", &parent), ("vlan", &vlan)]).await }
        };
        drop(wrong(make(id(&g.subnet["vlan"])).await, "vlan"));
        drop(wrong(make("4711".into()).await, "vlan"));
        drop(wrong(make(id(&g.tagged)).await, "name"));
        let elsewhere = f.admin.create("fabrics/", &[]).await.good();
        let vlan = f.admin.create(&format!("fabrics/{}/vlans/", elsewhere["id"]), &[("vid", "8")]).await.good();
        drop(wrong(make(id(&vlan)).await, "vlan"));

        let eight = f.admin.create("fabrics/0/vlans/", &[("vid", "8")]).await.good();
        let moved = f.admin.update(&g.at(&tagged), &[("vlan", &id(&eight)), ("parent", "eth1")]).await.good();
        assert_eq!((text(&moved["name"]), names(&moved["parents"])), ("eth1.8", vec!["eth1"]));
        assert_eq!(moved["mac_address"], g.second["mac_address"]);
        // It goes with its card, and with its VLAN.
        drop(f.admin.delete(&g.at(&g.second)).await.expect(204));
        drop(f.admin.get(&g.at(&tagged)).await.expect(404));
        let tagged = g.vlan_on(f, &g.first).await;
        drop(f.admin.delete(&format!("vlans/{}/", g.tagged["id"])).await.expect(204));
        drop(f.admin.get(&g.at(&tagged)).await.expect(404));
    }

    async fn a_bridge_lies_on_one_interface(f: Front) {
        let g = Ground::new(f).await;
        let bond = g.bond(f).await;
        drop(wrong(f.admin.op(&g.cards, "create_bridge", &[("parent", &id(&bond)), ("bridge_type", "wood")]).await, "bridge_type"));
        let bridge = f.admin.op(&g.cards, "create_bridge", &[("parent", &id(&bond)), ("bridge_stp", "on")]).await.good();
        assert_eq!((text(&bridge["name"]), text(&bridge["type"]), &bridge["mac_address"]), ("br-bond0", "bridge", &bond["mac_address"]));
        assert_eq!(bridge["params"], serde_json::json!({ "bridge_type": "standard", "bridge_stp": true, "bridge_fd": 15 }));
        drop(wrong(f.admin.op(&g.cards, "create_bridge", &[("name", "br1")]).await, "parent"));
        drop(wrong(f.admin.op(&g.cards, "create_bridge", &[("name", "br1"), ("parents", "eth1"), ("parent", &id(&bond))]).await, "parent"));
        drop(wrong(f.admin.op(&g.cards, "create_bridge", &[("parent", &id(&bond))]).await, "parent"));
        // The bond goes only with its last card, the bridge with the bond.
        drop(f.admin.delete(&g.at(&g.first)).await.expect(204));
        assert_eq!(names(&f.admin.get(&g.at(&bond)).await.good()["parents"]), ["eth1"]);
        drop(f.admin.delete(&g.at(&g.second)).await.expect(204));
        assert_eq!(f.admin.get(&g.cards).await.good(), serde_json::json!([]));
    }

    async fn the_state_of_a_machine_decides_what_can_be_changed(f: Front) {
        let g = Ground::new(f).await;
        let bond = g.bond(f).await;
        f.put_into(&g.system_id, Status::Deployed, Some("admin")).await;
        for (op, fields) in [
            ("create_bond", &[("name", "bond1"), ("parents", "eth1")][..]),
            ("create_bridge", &[("parent", "bond0")]),
            ("create_vlan", &[("parent", "bond0"), ("vlan", "1")]),
            ("create_physical", &[("mac_address", "52:54:00:12:12:12")]),
        ] {
            let reply = f.admin.op(&g.cards, op, fields).await.expect(409);
            assert!(reply.text().contains("not New, Ready, Allocated, or Broken"), "{op}: {}", reply.text());
        }
        drop(f.admin.delete(&g.at(&bond)).await.expect(409));
        // What the hardware is may be told at any time.
        let told = f.admin.update(&g.at(&bond), &[("name", "bond9"), ("mtu", "9000"), ("parents", "eth1"), ("bond_mode", "802.3ad")]).await.good();
        assert_eq!((text(&told["name"]), &told["effective_mtu"], names(&told["parents"]).len()), ("bond9", &1500.into(), 2));
        assert_eq!(told["params"]["bond_mode"], "balance-rr");
        // The owner of a machine is no administrator of it.
        let user = f.user("user").await;
        f.put_into(&g.system_id, Status::Allocated, Some("user")).await;
        drop(user.op(&g.cards, "create_bridge", &[("parent", "bond9")]).await.expect(403));
        drop(f.admin.op(&g.cards, "create_bridge", &[("parent", "bond9")]).await.good());
    }

    async fn a_machine_is_installed_with_the_network_that_was_drawn(f: Front) {
        let g = Ground::new(f).await;
        let far = f.admin.create("subnets/", &[("cidr", "10.7.0.0/24"), ("vlan", &id(&g.tagged))]).await.good();
        let route = [("source", "10.7.0.0/24"), ("destination", "10.1.0.0/24"), ("gateway_ip", "10.7.0.1"), ("metric", "3")];
        drop(f.admin.create("static-routes/", &route).await.good());
        let bond = g.bond(f).await;
        drop(f.admin.update(&g.at(&bond), &[("bond_mode", "active-backup")]).await.good());
        let tagged = g.vlan_on(f, &bond).await;
        let bridge = f.admin.op(&g.cards, "create_bridge", &[("parent", &id(&tagged)), ("name", "br7")]).await.good();
        let link = |i: &Value, subnet: &Value, ip: &'static str| {
            let (admin, path, subnet) = (f.admin.clone(), g.at(i), id(subnet));
            async move { admin.op(&path, "link_subnet", &[("mode", "static"), ("subnet", &subnet), ("ip_address", ip)]).await.good() }
        };
        drop(link(&bond, &g.subnet, "10.1.0.9").await);
        drop(link(&bridge, &far, "10.7.0.9").await);
        f.equip(&g.system_id).await;
        f.image("ubuntu/jammy").await;
        f.write({
            let system_id = g.system_id.clone();
            move |tx| {
                let system_id = system_id.clone();
                Box::pin(async move {
                    store::exec!(tx, "UPDATE node SET osystem = 'ubuntu', distro_series = 'jammy' WHERE system_id = $1", system_id)?;
                    Ok(())
                })
            }
        })
        .await;
        let n = netplan(f, &g.system_id).await;
        let mac = &g.first["mac_address"];
        assert_eq!(n["ethernets"]["eth1"]["match"]["macaddress"], g.second["mac_address"]);
        assert_eq!(n["bonds"]["bond0"], serde_json::json!({
            "interfaces": names(&bond["parents"]), "macaddress": mac, "mtu": 1500,
            "parameters": { "mode": "active-backup", "mii-monitor-interval": 100, "up-delay": 0, "down-delay": 0, "gratuitous-arp": 1 },
            "addresses": ["10.1.0.9/24"], "nameservers": { "addresses": [], "search": ["maas"] },
            "routes": [{ "to": "default", "via": "10.1.0.1" }],
        }));
        assert_eq!((&n["vlans"]["bond0.7"]["id"], &n["vlans"]["bond0.7"]["link"]), (&7.into(), &"bond0".into()));
        assert_eq!(n["bridges"]["br7"]["interfaces"], serde_json::json!(["bond0.7"]));
        assert_eq!(n["bridges"]["br7"]["routes"], serde_json::json!([{ "to": "10.1.0.0/24", "via": "10.7.0.1", "metric": 3 }]));
        // The rack answers whichever card of the bond asks.
        let mut tx = f.region.db.read().await.expect("a reader");
        let (snapshot, _) = region::rack_link::snapshot::build(&mut tx).await.expect("a snapshot");
        let machine = &snapshot.machines[&metal::SystemId(g.system_id.clone())];
        let of_bond: Vec<String> = machine.addresses.iter().filter(|r| r.ip.to_string() == "10.1.0.9").map(|r| r.mac.to_string()).collect();
        assert!(of_bond.contains(&text(&g.second["mac_address"]).to_owned()), "{of_bond:?}");
        assert_eq!(of_bond.len(), 2);
    }

    async fn a_bridge_of_an_allocation_ends_with_it(f: Front) {
        let g = Ground::new(f).await;
        let fixed = [("mode", "static"), ("subnet", &*id(&g.subnet)), ("ip_address", "10.1.0.9"), ("default_gateway", "1")];
        drop(f.admin.op(&g.at(&g.first), "link_subnet", &fixed).await.good());
        f.put_into(&g.system_id, Status::Allocated, Some("admin")).await;
        let bridge = f.admin.op(&g.cards, "create_bridge", &[("name", "br0"), ("parent", &id(&g.first))]).await.good();
        assert_eq!(bridge["links"][0]["ip_address"], "10.1.0.9");
        assert_eq!(f.admin.get(&g.at(&g.first)).await.good()["links"], serde_json::json!([]));
        let released = f.admin.op(&format!("machines/{}/", g.system_id), "release", &[]).await.good();
        assert_eq!(released["status_name"], "New");
        drop(f.admin.get(&g.at(&bridge)).await.expect(404));
        let first = f.admin.get(&g.at(&g.first)).await.good();
        assert_eq!((&first["links"][0]["ip_address"], &first["children"]), (&"10.1.0.9".into(), &serde_json::json!([])));
        assert_eq!(released["default_gateways"]["ipv4"]["gateway_ip"], "10.1.0.1");
        // One that was drawn beforehand stays.
        drop(f.admin.op(&g.cards, "create_bridge", &[("name", "br1"), ("parent", &id(&g.first))]).await.good());
        f.put_into(&g.system_id, Status::Allocated, Some("admin")).await;
        drop(f.admin.op(&format!("machines/{}/", g.system_id), "release", &[]).await.good());
        drop(f.admin.get(&format!("{}br1/", g.cards)).await.good());
    }

    async fn the_interfaces_of_devices_are_their_owners_and_those_of_controllers_their_hosts(f: Front) {
        let g = Ground::new(f).await;
        let (user, other) = (f.user("user").await, f.user("other").await);
        // A device is a node of another type, with an owner.
        f.write({
            let system_id = g.system_id.clone();
            move |tx| {
                let system_id = system_id.clone();
                Box::pin(async move {
                    store::exec!(
                        tx,
                        "UPDATE node SET node_type = 1, owner_id = (SELECT id FROM user_account WHERE username = 'user') WHERE system_id = $1",
                        system_id
                    )?;
                    Ok(())
                })
            }
        })
        .await;
        let fields = [("mode", "static"), ("subnet", &*id(&g.subnet))];
        let linked = user.op(&g.at(&g.first), "link_subnet", &fields).await.good();
        assert_eq!(linked["links"][0]["ip_address"], "10.1.0.2");
        drop(user.op(&g.cards, "create_physical", &[("mac_address", &mac())]).await.good());
        drop(other.op(&g.cards, "create_physical", &[("mac_address", &mac())]).await.expect(404));
        drop(user.op(&g.cards, "create_bond", &[("name", "bond0"), ("parents", "eth1")]).await.expect(404));

        // A rack with a card in no network that is known.
        let rack = rack_on(f, "rack", &[]).await;
        let cards = format!("nodes/{rack}/interfaces/");
        let card = format!("{cards}eth0/");
        let vlan = id(&g.subnet["vlan"]);
        drop(f.admin.op(&cards, "create_physical", &[("mac_address", &mac())]).await.expect(409));
        drop(f.admin.op(&card, "link_subnet", &fields).await.expect(409));
        drop(f.admin.delete(&card).await.expect(409));
        drop(user.update(&card, &[("vlan", &vlan)]).await.expect(403));
        let told = f.admin.update(&card, &[("vlan", &vlan), ("name", "other")]).await.good();
        assert_eq!((text(&told["name"]), &told["vlan"]["id"]), ("eth0", &g.subnet["vlan"]["id"]));
        // It stays there when the rack presents itself again.
        rack_on(f, "rack", &[]).await;
        assert_eq!(f.admin.get(&card).await.good()["vlan"]["id"], g.subnet["vlan"]["id"]);
    }

    async fn a_vlan_is_served_by_two_racks_that_are_on_it(f: Front) {
        let g = Ground::new(f).await;
        let one = rack_on(f, "one", &["10.1.0.2/24"]).await;
        let two = rack_on(f, "two", &["10.1.0.3/24"]).await;
        let away = rack_on(f, "away", &[]).await;
        let path = format!("vlans/{}/", g.subnet["vlan"]["id"]);
        let put = |fields: Vec<(&'static str, String)>| {
            let (admin, path) = (f.admin.clone(), path.clone());
            async move {
                let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
                admin.update(&path, &fields).await
            }
        };
        drop(wrong(put(vec![("dhcp_on", "true".into())]).await, "dhcp_on"));
        drop(wrong(put(vec![("primary_rack", away.clone())]).await, "primary_rack"));
        drop(wrong(put(vec![("primary_rack", one.clone()), ("secondary_rack", one.clone())]).await, "secondary_rack"));
        drop(wrong(put(vec![("primary_rack", one.clone()), ("dhcp_on", "true".into())]).await, "dhcp_on"));
        let range = [("type", "dynamic"), ("start_ip", "10.1.0.100"), ("end_ip", "10.1.0.199")];
        drop(f.admin.create("ipranges/", &range).await.good());
        let on = put(vec![("primary_rack", one.clone()), ("secondary_rack", two.clone()), ("dhcp_on", "true".into())]).await.good();
        assert_eq!((text(&on["primary_rack"]), text(&on["secondary_rack"]), &on["dhcp_on"]), (one.as_str(), two.as_str(), &true.into()));
        // What is served by racks is not relayed; what is relayed has none.
        let other = id(&g.tagged);
        drop(wrong(put(vec![("relay_vlan", other.clone())]).await, "relay_vlan"));
        let relayed = put(vec![("relay_vlan", other), ("dhcp_on", "false".into())]).await.good();
        assert_eq!((&relayed["primary_rack"], &relayed["secondary_rack"], &relayed["relay_vlan"]["id"]), (&Value::Null, &Value::Null, &g.tagged["id"]));
    }
}
