//! What the API answers: the fields and types that clients read (`golden/fields.tsv`, facts on MAAS), and
//! whole bodies with what varies masked (`golden/bodies.txt`).

use std::collections::{BTreeMap, BTreeSet};

use metal::status::Status;
use serde_json::{Map, Value};
use steelyard_tests::front::golden;

/// Objects within objects: the last part of the path, and the resource whose fields it has.
const NESTED: &[(&str, &str)] = &[
    ("boot_interface", "interface_physical"),
    ("interface_set[]", "interface_physical"),
    ("boot_disk", "blockdevice"),
    ("blockdevice_set[]", "blockdevice"),
    ("physicalblockdevice_set[]", "blockdevice"),
    ("virtualblockdevice_set[]", "blockdevice"),
    ("partitions[]", "partition"),
    ("vlan", "vlan"),
    ("vlans[]", "vlan"),
    ("subnet", "subnet"),
    ("subnets[]", "subnet"),
    ("source", "subnet"),
    ("destination", "subnet"),
    ("zone", "zone"),
    ("pool", "resourcepool"),
    ("domain", "domain"),
    ("links[]", "link"),
    ("ip_addresses[]", "ip_address"),
    ("resource_records[]", "dnsresourcerecord"),
    ("owner", "user"),
    ("user", "user"),
    ("discovered[]", "discovered"),
    ("files.*", "boot_resource_file"),
];
/// Objects whose keys are anybody's, or whose content is that of a program.
const OPEN: &[&str] = &[
    "context",
    "owner_data",
    "workload_annotations",
    "parameters",
    "params",
];
/// Objects whose keys are numbers or names: each value has the same fields.
const KEYED: &[(&str, &str)] = &[("sets", "sets.<n>"), ("sets.<n>.files", "sets.<n>.files.*")];
/// Where a null is right although none was seen in MAAS: it stands for what there is none of.
const NULLABLE: &[(&str, &str)] = &[
    ("machine", "bios_boot_method"),
    ("machine", "owner"),
    ("machine", "hwe_kernel"),
    ("machine", "status_message"),
    ("machine", "current_testing_result_id"),
    ("machine", "current_installation_result_id"),
    ("machine", "default_gateways.ipv4.gateway_ip"),
];
/// What is left out where there is none of it, in MAAS too.
const OPTIONAL: &[(&str, &str)] = &[
    ("link", "subnet"),
    ("link", "ip_address"),
    ("subnet_ip_addresses", "[].user"),
    ("subnet_ip_addresses", "[].node_summary"),
];
/// Fields that MAAS has and we do not, with the reason.
const ABSENT: &[(&str, &str, &str)] = &[];
/// Fields that we have and MAAS has not, with the reason.
const OURS: &[(&str, &str, &str)] = &[
    (
        "license_key",
        "resource_uri",
        "as every other object has one",
    ),
    ("dhcp_snippet", "node.hostname", "to know the node by"),
    ("dhcp_snippet", "node.fqdn", "to know the node by"),
    ("dhcp_snippet", "node.description", "to know the node by"),
    ("dhcp_snippet", "node.node_type", "to know the node by"),
    ("dhcp_snippet", "node.node_type_name", "to know the node by"),
    ("dhcp_snippet", "node.resource_uri", "to read the node"),
];

/// Fields of each resource, with their types.
type Facts = BTreeMap<&'static str, BTreeMap<&'static str, BTreeSet<&'static str>>>;

fn facts() -> Facts {
    let mut all = Facts::new();
    for line in include_str!("../golden/fields.tsv")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let f: Vec<&str> = line.split('\t').collect();
        all.entry(f[0])
            .or_default()
            .insert(f[1], f[2].split('|').collect());
    }
    // What lies within another resource's object is checked against that one.
    for (resource, fields) in &mut all {
        let within = |path: &str| {
            let parts: Vec<&str> = path.split('.').collect();
            (1..parts.len()).any(|n| {
                nested(resource, &parts[..n].join(".")).is_some()
                    || path.starts_with("sets.<n>.files.")
            })
        };
        fields.retain(|path, _| !within(path));
    }
    all
}

/// The resource that the object at a path has the fields of.
fn nested(resource: &str, path: &str) -> Option<&'static str> {
    NESTED
        .iter()
        .find(|(end, of)| *of != resource && (path == *end || path.ends_with(&format!(".{end}"))))
        .map(|(_, of)| *of)
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The comparison of all answers with the facts.
struct Shapes {
    facts: Facts,
    wrong: BTreeSet<String>,
    seen: BTreeSet<(&'static str, String)>,
}

impl Shapes {
    fn check(&mut self, resource: &'static str, value: &Value) {
        let root = if value.is_array() { "[]" } else { "" };
        for v in value.as_array().unwrap_or(&vec![value.clone()]) {
            self.object(resource, root, v);
        }
        self.seen.insert((resource, ".".to_owned()));
    }

    /// An object, or a plain value, at a path of a resource.
    fn object(&mut self, resource: &'static str, path: &str, value: &Value) {
        let Value::Object(map) = value else { return };
        let below = |k: &str| {
            if path.is_empty() {
                k.to_owned()
            } else {
                format!("{path}.{k}")
            }
        };
        for (k, v) in map {
            self.field(resource, &below(k), v);
        }
        // What should be here too.
        let known = self
            .facts
            .get(resource)
            .unwrap_or_else(|| panic!("no facts on {resource}"));
        let mut missing = Vec::new();
        for field in known.keys().filter(|f| **f != ".") {
            let (parent, last) = field.rsplit_once('.').unwrap_or(("", field));
            let here = parent == path
                && !last.contains("[]")
                && !map.contains_key(last)
                && !last.contains('<');
            let open = OPEN.iter().any(|o| path.ends_with(o));
            let absent = ABSENT.iter().any(|(r, f, _)| r == &resource && f == field);
            let optional = OPTIONAL.contains(&(resource, field));
            if here && !absent && !optional && !open {
                missing.push(format!("{resource}: {field} is missing"));
            }
        }
        self.wrong.extend(missing);
    }

    fn field(&mut self, resource: &'static str, path: &str, value: &Value) {
        self.seen.insert((resource, path.to_owned()));
        let types = self.facts[resource].get(path);
        let ours = OURS.iter().any(|(r, f, _)| *r == resource && *f == path);
        match types {
            None if ours => {}
            None => {
                self.wrong
                    .insert(format!("{resource}: {path} is unknown to MAAS"));
            }
            Some(types) => {
                let is = kind(value);
                let fits = types.contains(is)
                    || is == "integer" && types.contains("number")
                    || types.iter().all(|t| matches!(*t, "null" | "any"))
                    || is == "null" && NULLABLE.contains(&(resource, path));
                if !fits {
                    let types: Vec<&str> = types.iter().copied().collect();
                    self.wrong.insert(format!(
                        "{resource}: {path} is {is}, not {}",
                        types.join(" or ")
                    ));
                }
            }
        }
        if OPEN
            .iter()
            .any(|o| path == *o || path.ends_with(&format!(".{o}")))
        {
            return;
        }
        match value {
            Value::Array(list) => {
                let each = format!("{path}[]");
                for v in list {
                    self.within(resource, &each, v);
                }
            }
            Value::Object(_) => self.within(resource, path, value),
            _ => {}
        }
    }

    /// An element or an object at a path: of another resource, keyed, or plain.
    fn within(&mut self, resource: &'static str, path: &str, value: &Value) {
        if let Some(other) = nested(resource, path)
            && value.is_object()
        {
            self.seen.insert((resource, path.to_owned()));
            self.object(other, "", value);
            return;
        }
        if let (Some((_, each)), Value::Object(map)) =
            (KEYED.iter().find(|(p, _)| *p == path), value)
        {
            for v in map.values() {
                self.within(resource, each, v);
            }
            return;
        }
        if value.is_object() {
            self.object(resource, path, value);
        } else if path.ends_with("[]") && self.facts[resource].contains_key(path) {
            self.field(resource, path, value);
        }
    }

    /// Facts that no answer had a chance to show.
    fn unseen(&self) -> Vec<String> {
        let all = self
            .facts
            .iter()
            .flat_map(|(r, fields)| fields.keys().map(move |f| (*r, *f)));
        all.filter(|(r, f)| !f.ends_with('.') && !self.seen.contains(&(*r, (*f).to_owned())))
            .filter(|(_, f)| {
                *f != "."
                    && !f.ends_with("<n>")
                    && OPEN.iter().all(|o| !f.starts_with(&format!("{o}.")))
            })
            .map(|(r, f)| format!("{r}: {f}"))
            .collect()
    }
}

/// Takes out what differs from run to run.
fn mask(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (k, v) in map {
                // Numbers of the database as keys.
                let shown = if !k.is_empty() && k.bytes().all(|b| b.is_ascii_digit()) {
                    "N"
                } else {
                    k
                };
                out.insert(shown.to_owned(), mask(k, v));
            }
            Value::Object(out)
        }
        Value::Array(list) => list.iter().map(|v| mask(key, v)).collect(),
        Value::Number(_) if key == "id" || key.ends_with("_id") => "ID".into(),
        Value::String(s) => {
            let secret = matches!(
                key,
                "system_id"
                    | "token_key"
                    | "token_secret"
                    | "consumer_key"
                    | "token"
                    | "hash"
                    | "node"
                    | "uuid"
                    | "hardware_uuid"
            );
            let time = matches!(
                key,
                "created" | "updated" | "started" | "ended" | "last_sync"
            );
            if secret {
                return if s.is_empty() {
                    "".into()
                } else {
                    key.to_uppercase().into()
                };
            }
            if time {
                // How it is spelled stays.
                let shape = s.chars().map(|c| {
                    if c.is_ascii_digit() {
                        '0'
                    } else if c.is_alphabetic() {
                        'a'
                    } else {
                        c
                    }
                });
                return shape.collect::<String>().into();
            }
            if key == "anon_resource_uri" {
                return s.split_inclusive("key=").next().unwrap_or_default().into();
            }
            if matches!(key, "mac_address") {
                return "MAC".into();
            }
            if matches!(key, "key" | "url") {
                return format!("{}…", &s[..s.len().min(8)]).into();
            }
            // Numbers and system ids within paths.
            let parts = s.split('/').map(|p| {
                let number = !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
                let system_id = p.len() == 6
                    && p.bytes().all(|b| b"34678abcdefghkmnpqrstwxy".contains(&b))
                    && s.starts_with("/MAAS/");
                if number && s.starts_with("/MAAS/") {
                    "N"
                } else if system_id {
                    "SYSTEM_ID"
                } else if p.starts_with("subnet-") && s.starts_with("/MAAS/") {
                    "subnet-N"
                } else {
                    p
                }
            });
            let joined = parts.collect::<Vec<_>>().join("/");
            if key.ends_with("_uri") {
                // The place in a list of events.
                let cut = joined
                    .rfind('=')
                    .filter(|_| joined.contains("op=query"))
                    .map(|i| format!("{}=N", &joined[..i]));
                return cut.unwrap_or(joined).into();
            }
            if key == "fabric" || key == "name" && s.starts_with("fabric-") {
                return "fabric-N".into();
            }
            if key == "name" && s.starts_with("subnet-") {
                return "subnet-N".into();
            }
            joined.into()
        }
        other => other.clone(),
    }
}

steelyard_tests::front_test! {
    /// Every resource, by its fields and as a whole.
    async fn answers_have_the_fields_that_clients_read(f: Front) {
        let a = &f.admin;
        let user = f.user("somebody").await;
        let subnet = a.create("subnets/", &[("cidr", "10.1.2.0/24"), ("gateway_ip", "10.1.2.1"), ("dns_servers", "10.1.2.2")]).await.good();
        let range = [("type", "reserved"), ("start_ip", "10.1.2.10"), ("end_ip", "10.1.2.20"), ("comment", "a comment")];
        let range = user.create("ipranges/", &range).await.good();
        let fabric = a.create("fabrics/", &[("name", "a-fabric"), ("class_type", "a-class")]).await.good();
        let zone = a.create("zones/", &[("name", "a-zone"), ("description", "a description")]).await.good();
        let pool = a.create("resourcepools/", &[("name", "a-pool"), ("description", "a description")]).await.good();
        let tag = a.create("tags/", &[("name", "a-tag"), ("comment", "a comment"), ("kernel_opts", "quiet")]).await.good();
        let fields = [("hostname", "a-machine"), ("zone", "a-zone"), ("pool", "a-pool"), ("power_type", "ipmi"),
            ("power_parameters_power_address", "10.1.2.3"), ("power_parameters_power_user", "u"), ("power_parameters_power_pass", "p")];
        let new = f.machine(&fields).await;
        let id = new["system_id"].as_str().expect("an id").to_owned();
        let at = format!("nodes/{id}/");
        let port = new["interface_set"][0]["id"].to_string();
        let link = [("mode", "static"), ("subnet", &*subnet["id"].to_string()), ("ip_address", "10.1.2.30"), ("force", "1"), ("default_gateway", "1")];
        drop(a.op(&format!("{at}interfaces/{port}/"), "link_subnet", &link).await.good());
        drop(a.op(&format!("{at}interfaces/{port}/"), "add_tag", &[("tag", "a-tag")]).await.good());
        let (disk, partition, results) = f.equip(&id).await;
        let update = a.op("tags/a-tag/", "update_nodes", &[("add", &id)]).await.good();
        f.put_into(&id, Status::Allocated, Some("admin")).await;
        drop(a.op(&format!("machines/{id}/"), "set_workload_annotations", &[("k", "v")]).await.good());
        let key = a.create("account/prefs/sshkeys/", &[("key", &steelyard_tests::front::ssh_key())]).await.good();
        let token = a.op("account/", "create_authorisation_token", &[("name", "a token")]).await.good();
        let (source, selection) = f.source().await;
        let image = a.get("boot-resources/").await.good()[0]["id"].to_string();
        let rack = f.rack().await.rack.0;
        // Another machine has no address of its own, but a lease.
        let guest = f.machine(&[("hostname", "a-guest")]).await;
        let leased = guest["interface_set"][0]["mac_address"].as_str().expect("an address").to_owned();
        let net = subnet["id"].as_i64().expect("an id");
        f.write(move |tx| {
            let leased = leased.clone();
            Box::pin(async move {
                store::exec!(tx, "INSERT INTO lease (ip, mac, subnet_id, until, updated) VALUES ('10.1.2.77', $1, $2, $3, 0)", leased, net, i64::MAX)?;
                Ok(())
            })
        })
        .await;
        let host = a.create("dnsresources/", &[("fqdn", "www.maas"), ("ip_addresses", "10.1.2.40")]).await.good();
        drop(a.create("dnsresourcerecords/", &[("fqdn", "www.maas"), ("rrtype", "TXT"), ("rrdata", "text"), ("ttl", "60")]).await.good());
        let snippet = a.create("dhcp-snippets/", &[("name", "a-snippet"), ("value", "option x;"), ("node", &id)]).await.good();
        let of_subnet = a.create("dhcp-snippets/", &[("name", "of-subnet"), ("value", "option x;"), ("subnet", &*subnet["id"].to_string())]).await.good();
        let told = [("message", "hello {who}"), ("context", r#"{"who": "you"}"#), ("user", "somebody"), ("ident", "a-notification")];
        let told = a.create("notifications/", &told).await.good();
        let licence = [("osystem", "windows"), ("distro_series", "win2019"), ("license_key", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE")];
        let licence = a.create("license-keys/", &licence).await.good();
        drop(a.create("files/", &[("filename", "a-file"), ("file", "content")]).await.good());
        let certificate = a.create("account/prefs/sslkeys/", &[("key", &*steelyard_tests::front::ssl_key())]).await.good();
        let guest = guest["system_id"].as_str().expect("an id").to_owned();
        // And one with a bond of two cards, a VLAN on it and a bridge on that.
        let stack = f.machine(&[("hostname", "a-stack")]).await;
        let cards = format!("nodes/{}/interfaces/", stack["system_id"].as_str().expect("an id"));
        let mac = steelyard_tests::front::mac();
        let second = a.op(&cards, "create_physical", &[("mac_address", &mac), ("name", "eth7"), ("vlan", &*subnet["vlan"]["id"].to_string())]).await.good();
        let first = stack["interface_set"][0]["id"].to_string();
        let vlan = a.create("fabrics/0/vlans/", &[("vid", "77"), ("name", "a-vlan"), ("mtu", "1400")]).await.good();
        let fields = [("name", "bond0"), ("parents", first.as_str()), ("parents", &*second["id"].to_string()), ("bond_mode", "802.3ad")];
        let bond = a.op(&cards, "create_bond", &fields).await.good();
        let fields = [("parent", &*bond["id"].to_string()), ("vlan", &*vlan["id"].to_string()), ("mtu", "1400")];
        let tagged = a.op(&cards, "create_vlan", &fields).await.good();
        let bridge = a.op(&cards, "create_bridge", &[("parent", &*tagged["id"].to_string()), ("tags", "a-tag")]).await.good();
        let space = a.create("spaces/", &[("name", "a-space"), ("description", "a description")]).await.good();
        drop(a.update(&format!("vlans/{}/", vlan["id"]), &[("space", "a-space")]).await.good());
        let other = a.create("subnets/", &[("cidr", "10.1.3.0/24"), ("vlan", &*vlan["id"].to_string())]).await.good();
        let route = [("source", "10.1.2.0/24"), ("destination", "10.1.3.0/24"), ("gateway_ip", "10.1.2.1"), ("metric", "7")];
        drop(a.create("static-routes/", &route).await.good());
        drop(a.op("ipaddresses/", "reserve", &[("ip", "10.1.2.50")]).await.good());
        let reserved = a.create("reservedips/", &[("ip", "10.1.2.60"), ("mac_address", "52:54:00:aa:aa:aa"), ("comment", "a comment")]).await.good();
        let card: i64 = port.parse().expect("a number");
        f.write(move |tx| {
            Box::pin(async move {
                store::exec!(
                    tx,
                    "INSERT INTO neighbour (interface_id, ip, mac, vid, first_seen, last_seen) VALUES ($1, '10.1.2.90', '52:54:00:bb:bb:bb', 7, 0, 1000000)",
                    card
                )?;
                store::exec!(tx, "INSERT INTO mdns_name (interface_id, ip, hostname, updated) VALUES ($1, '10.1.2.90', 'a-printer', 0)", card)?;
                Ok(())
            })
        })
        .await;
        let get = |path: String| async move { a.get(&path).await.good() };
        let of_a = |v: &Value, name: &str| v.as_array().expect("a list").iter().find(|x| x["name"] == name).expect("it is in the list").clone();

        let mut bodies: Vec<(&'static str, &str, Value)> = vec![
            ("version", "version", f.nobody().get("version/").await.good()),
            ("whoami", "whoami", get("users/?op=whoami".into()).await),
            ("user", "user", get("users/somebody/".into()).await),
            ("machine", "machine", get(format!("machines/{id}/")).await),
            ("machine", "machine, new", new),
            ("machine", "machine with a lease", get(format!("machines/{guest}/")).await),
            ("interface_physical", "interface", get(format!("{at}interfaces/{port}/")).await),
            ("blockdevice", "block device", get(format!("{at}blockdevices/{disk}/")).await),
            ("partition", "partition", get(format!("{at}blockdevices/{disk}/partition/{partition}")).await),
            ("script_result", "results", get(format!("{at}results/{results}/")).await),
            ("vlan", "vlan", get(format!("fabrics/{}/vlans/0/", fabric["id"])).await),
            ("fabric", "fabric", get(format!("fabrics/{}/", fabric["id"])).await),
            ("fabric", "fabric, created", fabric),
            ("subnet", "subnet", get(format!("subnets/{}/", subnet["id"])).await),
            ("subnet_ip_addresses", "subnet, addresses", get(format!("subnets/{}/?op=ip_addresses", subnet["id"])).await),
            ("iprange", "iprange", range),
            ("interface_physical", "interface, bond", get(format!("{cards}bond0/")).await),
            ("interface_physical", "interface, VLAN", get(format!("{cards}{}/", tagged["id"])).await),
            ("interface_physical", "interface, bridge", get(format!("{cards}{}/", bridge["id"])).await),
            ("interface_physical", "interface, member of a bond", get(format!("{cards}eth7/")).await),
            ("space", "space", get(format!("spaces/{}/", space["id"])).await),
            ("space", "space, undefined", get("spaces/undefined/".into()).await),
            ("static_route", "static routes", get("static-routes/".into()).await),
            ("reserved_ip", "reserved ip", reserved),
            ("ipaddress", "ip addresses", get("ipaddresses/".into()).await),
            ("network", "networks", get("networks/".into()).await),
            ("discovery", "discovery", get("discovery/".into()).await[0].clone()),
            ("subnet_statistics", "subnet, statistics", get(format!("subnets/{}/?op=statistics", subnet["id"])).await),
            ("subnet_reserved", "subnet, reserved ranges", get(format!("subnets/{}/?op=reserved_ip_ranges", subnet["id"])).await),
            ("subnet_unreserved", "subnet, unreserved ranges", get(format!("subnets/{}/?op=unreserved_ip_ranges", other["id"])).await),
            ("zone", "zone", zone),
            ("resourcepool", "pool", pool),
            ("tag", "tag", tag),
            ("tag_update_nodes", "tag, update_nodes", update),
            ("sshkey", "sshkey", key),
            ("account_create_token", "token, created", token),
            ("account_token", "tokens", get("account/?op=list_authorisation_tokens".into()).await),
            ("events", "events", get("events/?op=query&hostname=a-machine&limit=2&level=DEBUG".into()).await),
            ("boot_source", "boot source", get(format!("boot-sources/{source}/")).await),
            ("boot_source_selection", "boot source selection", get(format!("boot-sources/{source}/selections/{selection}/")).await),
            ("boot_resource", "boot resource", get(format!("boot-resources/{image}/")).await),
            ("boot_resources", "boot resources", get("boot-resources/".into()).await),
            ("rackcontroller", "rack controller", get(format!("rackcontrollers/{rack}/")).await),
            ("domain", "domain", get("domains/0/".into()).await),
            ("dnsresource", "name", get(format!("dnsresources/{}/", host["id"])).await),
            ("dnsresourcerecord", "records", get("dnsresourcerecords/".into()).await[0].clone()),
            ("dhcp_snippet", "snippet of a node", snippet),
            ("dhcp_snippet", "snippet of a subnet", of_subnet),
            ("package_repository", "repositories", get("package-repositories/".into()).await[0].clone()),
            ("notification", "notification", told),
            ("license_key", "licence key", licence),
            ("file", "file", get("files/a-file/".into()).await),
            ("sslkey", "sslkey", certificate),
        ];
        let mut shapes = Shapes { facts: facts(), wrong: BTreeSet::new(), seen: BTreeSet::new() };
        for (resource, _, body) in &bodies {
            shapes.check(resource, body);
        }
        // A list has the objects that one reads alone.
        for (list, name, what) in [("zones/", "a-zone", "zone"), ("resourcepools/", "a-pool", "pool"), ("tags/", "a-tag", "tag"), ("fabrics/", "a-fabric", "fabric")] {
            let one = bodies.iter().find(|(_, w, _)| *w == what).expect("it was read").2.clone();
            assert_eq!(of_a(&get(list.to_owned()).await, name), one, "{list}");
        }
        assert_eq!(get("machines/".to_owned()).await[0], bodies[3].2);
        let wrong: Vec<&String> = shapes.wrong.iter().collect();
        assert!(wrong.is_empty(), "not as clients expect:\n{wrong:#?}");
        assert_eq!(shapes.unseen(), UNSEEN, "facts that this test does not look at");

        let mut describe = f.nobody().get("describe/").await.expect(200);
        assert_eq!(describe.header("x-maas-api-hash"), describe.json()["hash"]);
        let all = describe.json();
        let first = all["resources"].as_array().expect("a list").iter().find(|r| r["name"] == "ZoneHandler").expect("zones").clone();
        describe.body.clear();
        bodies.push(("", "describe, head", serde_json::json!({ "doc": all["doc"], "hash": all["hash"], "ZoneHandler": first })));
        let mut text = String::from("# Answers of the API, with what differs from run to run masked. UPDATE_EXPECT=1 writes this anew.\n");
        for (_, what, body) in &bodies {
            let body = serde_json::to_string_pretty(&mask("", body)).expect("JSON");
            text.push_str(&format!("\n## {what}\n{}\n", body.replace(f.url.as_str(), "URL").replace(f.url.trim_end_matches("/MAAS"), "SERVER")));
        }
        golden("bodies.txt", &text);
    }
}

/// Facts that cannot show here.
const UNSEEN: &[&str] = &[];
