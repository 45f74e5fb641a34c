//! Interfaces and their links, through the API.

use metal::status::Status;
use serde_json::{Value, json};
use store::testing::TestDb;

use crate::support::{NewNode, Site, each};

const MAC: &str = "52:54:00:00:00:01";

fn links(interface: &Value) -> Vec<(String, String)> {
    interface["links"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            (
                l["mode"].as_str().unwrap().to_owned(),
                l["ip_address"].as_str().unwrap_or("").to_owned(),
            )
        })
        .collect()
}

fn link(mode: &str, ip: &str) -> (String, String) {
    (mode.to_owned(), ip.to_owned())
}

store::both! {
    /// Created, read, changed and deleted.
    async fn an_interface_lives_through_the_api(t: TestDb) {
        let site = Site::open(t).await;
        site.subnet("10.0.0.0/24", None).await;
        site.node(NewNode::default()).await;
        let vlan = site.get("fabrics/0/vlans/").await.ok()[0]["id"].clone();
        let all = "nodes/aaaaaa/interfaces/";
        site.post(&format!("{all}?op=create_physical"), "name=x").await.is(400, "mac_address");
        site.post(&format!("{all}?op=create_physical"), "mac_address=zz").await.is(400, "mac_address");
        site.post(&format!("{all}?op=create_physical"), &format!("mac_address={MAC}&vlan=99")).await.is(400, "vlan");
        let made = site.post(&format!("{all}?op=create_physical"), &format!("mac_address=52-54-00-00-00-01&vlan={vlan}&tags=a,b&mtu=9000&accept_ra=true")).await.ok();
        assert_eq!((&made["name"], &made["mac_address"], &made["type"]), (&json!("eth0"), &json!(MAC), &json!("physical")));
        assert_eq!((&made["params"], &made["effective_mtu"]), (&json!({ "mtu": 9000, "accept_ra": true }), &json!(9000)));
        assert_eq!(made["tags"], json!(["a", "b"]));
        assert_eq!(links(&made), [link("link_up", "")], "an interface in a network is up");
        site.post(&format!("{all}?op=create_physical"), &format!("mac_address={MAC}")).await.is(400, "already in use");
        let second = site.post(&format!("{all}?op=create_physical"), "mac_address=52:54:00:00:00:02&name=lan").await.ok();
        assert_eq!((links(&second).len(), &second["vlan"]), (0, &Value::Null));
        assert_eq!(each(&site.get(all).await.ok(), "name"), ["eth0", "lan"]);

        let one = format!("{all}{}/", made["id"]);
        assert_eq!(site.get(&format!("{all}eth0/")).await.ok(), made, "by name too");
        site.call("PUT", &one, "name=lan").await.is(400, "already exists");
        site.call("PUT", &one, "mac_address=52:54:00:00:00:02").await.is(400, "already in use");
        site.call("PUT", &one, "link_connected=false&link_speed=5").await.is(400, "link_speed");
        site.call("PUT", &one, "link_speed=500&interface_speed=100").await.is(400, "link_speed");
        let put = site.call("PUT", &one, "name=wan&mtu=&interface_speed=1000&link_speed=100").await.ok();
        assert_eq!((&put["name"], &put["params"], &put["link_speed"]), (&json!("wan"), &json!({ "accept_ra": true }), &json!(100)));
        assert_eq!(put["tags"], json!(["a", "b"]), "what is not named stays");
        let put = site.call("PUT", &one, "vlan=").await.ok();
        assert_eq!((links(&put).len(), &put["vlan"]), (0, &Value::Null));

        let tagged = site.post(&format!("{one}?op=add_tag"), "tag=c").await.ok();
        assert_eq!(tagged["tags"], json!(["a", "b", "c"]));
        let tagged = site.post(&format!("{one}?op=remove_tag"), "tag=a").await.ok();
        assert_eq!(tagged["tags"], json!(["b", "c"]));
        site.post(&format!("{one}?op=add_tag"), "tag=a b").await.is(400, "tag");

        assert_eq!(site.call("DELETE", &one, "").await.status, 204);
        site.get(&one).await.is(404, "No Interface matches the given query.");
        site.get("nodes/zzzzzz/interfaces/").await.is(404, "No Node matches");
    }

    /// Every mode, with what belongs to it.
    async fn links_are_made_and_taken_away(t: TestDb) {
        let site = Site::open(t).await;
        let subnet = site.subnet("10.0.0.0/24", Some("10.0.0.1")).await;
        site.range(subnet, "dynamic", "10.0.0.2", "10.0.0.99").await;
        let node = site.node(NewNode::default()).await;
        let id = site.interface(&node, "eth0", MAC).await;
        let other = site.interface(&node, "eth1", "52:54:00:00:00:02").await;
        let path = format!("nodes/aaaaaa/interfaces/{id}/");
        let make = async |form: &str| site.post(&format!("{path}?op=link_subnet"), form).await;

        make("mode=sideways").await.is(400, "not a valid choice");
        make("mode=auto").await.is(400, "subnet");
        make("mode=AUTO&subnet=999").await.is(400, "Select a valid choice");
        make(&format!("mode=auto&subnet={subnet}&ip_address=10.0.0.200")).await.is(400, "ip_address");
        make(&format!("mode=static&subnet={subnet}&ip_address=nope")).await.is(400, "ip_address");
        make(&format!("mode=static&subnet={subnet}&ip_address=10.1.0.5")).await.is(400, "not in the given subnet");
        make(&format!("mode=static&subnet={subnet}&ip_address=10.0.0.50")).await.is(400, "inside a dynamic range");
        make(&format!("mode=static&subnet={subnet}&ip_address=10.0.0.255")).await.is(400, "broadcast");
        make(&format!("mode=dhcp&subnet={subnet}&default_gateway=true")).await.is(400, "default_gateway");

        let up = make(&format!("mode=LINK_UP&subnet={subnet}")).await.ok();
        assert_eq!(links(&up), [link("link_up", "")]);
        let auto = make("mode=AUTO&subnet=10.0.0.0/24").await.ok();
        assert_eq!(links(&auto), [link("auto", "")], "an interface with a link is not merely up");
        assert_eq!(auto["links"][0]["subnet"]["cidr"], "10.0.0.0/24");
        let fixed = make(&format!("mode=STATIC&subnet={subnet}")).await.ok();
        assert_eq!(links(&fixed), [link("auto", ""), link("static", "10.0.0.100")]);
        let named = make(&format!("mode=static&subnet={subnet}&ip_address=10.0.0.200")).await.ok();
        assert_eq!(links(&named)[2], link("static", "10.0.0.200"));
        site.post(&format!("nodes/aaaaaa/interfaces/{other}/?op=link_subnet"), &format!("mode=static&subnet={subnet}&ip_address=10.0.0.200")).await.is(400, "already in use");
        let dhcp = make(&format!("mode=dhcp&subnet={subnet}")).await.ok();
        assert_eq!(links(&dhcp)[3], link("dhcp", ""));
        make(&format!("mode=dhcp&subnet={subnet}")).await.is(400, "already set to DHCP");
        make("mode=link_up").await.is(400, "mode");
        assert_eq!(site.machine("aaaaaa").await["ip_addresses"], json!(["10.0.0.100", "10.0.0.200"]));

        site.post(&format!("{path}?op=unlink_subnet"), "").await.is(400, "id");
        site.post(&format!("{path}?op=unlink_subnet"), "id=999999").await.is(400, "Select a valid choice");
        let mut left = dhcp;
        for n in (0..4).rev() {
            let link_id = left["links"][0]["id"].clone();
            left = site.post(&format!("{path}?op=unlink_subnet"), &format!("id={link_id}")).await.ok();
            if n > 0 {
                assert_eq!(left["links"].as_array().unwrap().len(), n);
            }
        }
        assert_eq!(links(&left), [link("link_up", "")], "the last link leaves the interface up");
        let off = site.post(&format!("{path}?op=disconnect"), "").await.ok();
        assert_eq!((links(&off).len(), &off["vlan"]), (0, &Value::Null));
        let back = make(&format!("mode=static&subnet={subnet}&default_gateway=true")).await.ok();
        assert_eq!(links(&back), [link("static", "10.0.0.100")], "a released address is free again");
        assert_eq!(back["vlan"]["id"], site.get("subnets/").await.ok()[0]["vlan"]["id"]);
        let gateways = &site.machine("aaaaaa").await["default_gateways"];
        assert_eq!(gateways["ipv4"]["gateway_ip"], "10.0.0.1");
        let forced = make("mode=link_up&force=true").await.ok();
        assert_eq!(links(&forced), [link("link_up", "")]);
        assert_eq!(site.machine("aaaaaa").await["default_gateways"]["ipv4"]["link_id"], Value::Null, "a gateway goes with its link");
    }

    /// One per family, and never one that has no gateway.
    async fn the_default_gateway_can_be_chosen(t: TestDb) {
        let site = Site::open(t).await;
        let first = site.subnet("10.0.0.0/24", Some("10.0.0.1")).await;
        let second = site.subnet("10.1.0.0/24", Some("10.1.0.1")).await;
        let sixth = site.subnet("fd00::/64", Some("fd00::1")).await;
        let bare = site.subnet("10.2.0.0/24", None).await;
        let node = site.node(NewNode::default()).await;
        let id = site.interface(&node, "eth0", MAC).await;
        let path = format!("nodes/aaaaaa/interfaces/{id}/");
        let make = async |subnet: i64| site.post(&format!("{path}?op=link_subnet"), &format!("mode=static&subnet={subnet}")).await.ok();
        let choose = async |form: &str| site.post(&format!("{path}?op=set_default_gateway"), form).await;
        make(bare).await;
        choose("").await.is(400, "no usable gateways");
        make(first).await;
        make(sixth).await;
        choose("").await.ok();
        let gateways = site.machine("aaaaaa").await["default_gateways"].clone();
        assert_eq!((&gateways["ipv4"]["gateway_ip"], &gateways["ipv6"]["gateway_ip"]), (&json!("10.0.0.1"), &json!("fd00::1")));
        let all = make(second).await;
        choose("").await.is(400, "link_id");
        choose("link_id=999999").await.is(400, "link_id");
        let newest = all["links"].as_array().unwrap().last().unwrap()["id"].clone();
        choose(&format!("link_id={newest}")).await.ok();
        assert_eq!(site.machine("aaaaaa").await["default_gateways"]["ipv4"]["gateway_ip"], "10.1.0.1");
    }

    /// The sentence is the one that clients know.
    async fn the_network_of_a_machine_in_use_stays_as_it_is(t: TestDb) {
        let site = Site::open(t).await;
        let subnet = site.subnet("10.0.0.0/24", None).await;
        let node = site.node(NewNode { status: Status::Deployed, ..NewNode::default() }).await;
        let id = site.interface(&node, "eth0", MAC).await;
        let path = format!("nodes/aaaaaa/interfaces/{id}/");
        for (call, form, what) in [
            (format!("{path}?op=link_subnet"), format!("mode=auto&subnet={subnet}"), "link"),
            (format!("{path}?op=unlink_subnet"), "id=1".to_owned(), "unlink"),
            (format!("{path}?op=disconnect"), String::new(), "disconnect"),
            ("nodes/aaaaaa/interfaces/?op=create_physical".to_owned(), "mac_address=52:54:00:00:00:09".to_owned(), "create"),
        ] {
            let wanted = format!("Cannot {what} interface because the machine is not New, Ready, Allocated, or Broken.");
            site.post(&call, &form).await.is(409, &wanted);
        }
        site.call("DELETE", &path, "").await.is(409, "Cannot delete interface");
        // Of a deployed machine only that can be changed which says what it is.
        let put = site.call("PUT", &path, "name=lan&mtu=9000&vlan=").await.ok();
        assert_eq!((&put["name"], &put["effective_mtu"]), (&json!("lan"), &json!(1500)));
        assert_ne!(put["vlan"], Value::Null);
        site.sql("UPDATE node SET status = 9").await;
        site.call("PUT", &path, "name=wan").await.is(409, "Cannot update interface");
        site.sql("UPDATE node SET status = 4, locked = TRUE").await;
        site.call("PUT", &path, "name=wan").await.is(409, "locked");
    }
}
