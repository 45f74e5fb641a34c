//! Every operation of the table is called by nobody, by a user, by the owner, by an administrator, by the
//! machine itself and by another machine. What they are answered is in `golden/permissions.txt`; that
//! nothing is left behind by who is refused, and exactly one audit event by who is not, is checked on the way.

#[path = "api_permissions/names.rs"]
mod names;

use std::collections::{BTreeMap, BTreeSet};

use metal::status::Status;
use metal::timeline::{Entry, What};
use metal::{SystemId, Timestamp};
use region::operation::{Body, Face, Need, Operation, Who};
use reqwest::Method;
use steelyard_tests::front::{Layers, difference, golden, mac, ssh_key, unique};
use steelyard_tests::{Client, Front};

/// The callers, in the order of the columns.
const CALLERS: [&str; 6] = ["nobody", "user", "owner", "admin", "node", "stranger"];
const NOBODY: usize = 0;
const USER: usize = 1;
const OWNER: usize = 2;
const ADMIN: usize = 3;
const NODE: usize = 4;
const STRANGER: usize = 5;

/// The hardware address of somebody who was seen on the network.
const SEEN_MAC: &str = "52:54:00:ff:00:01";

/// One object of each kind. The machine is allocated to the owner.
struct Ground {
    system_id: String,
    mac: String,
    interface: String,
    link: String,
    disk: String,
    partition: String,
    layers: Layers,
    results: String,
    boot: String,
    net: u32,
    subnet: String,
    vlan: String,
    other_subnet: String,
    space: String,
    route: String,
    reserved: String,
    kept: String,
    fabric: String,
    range: String,
    tag: String,
    zone: String,
    pool: String,
    victim: String,
    key: String,
    source: String,
    selection: String,
    resource: String,
    rack: String,
    names: names::Names,
    device: String,
    bus_device: String,
    script: String,
    version: String,
    clients: Vec<Client>,
}

fn id(v: &serde_json::Value) -> String {
    v["id"].to_string()
}

impl Ground {
    async fn new(f: &Front, user: &Client, owner: &Client) -> Self {
        let n = unique();
        let net = n % 60_000;
        let cidr = format!("10.{}.{}.0/24", net / 256, net % 256);
        // A fabric of its own, with a tagged VLAN beside the subnet's.
        let home = f.admin.create("fabrics/", &[]).await.good();
        let home_vlan = id(&home["vlans"][0]);
        let tagged = format!("fabrics/{}/vlans/", id(&home));
        let vlan = id(&f.admin.create(&tagged, &[("vid", "9")]).await.good());
        let fields = [("cidr", cidr.as_str()), ("vlan", home_vlan.as_str())];
        let subnet = f.admin.create("subnets/", &fields).await.good();
        let subnet = id(&subnet);
        let other = format!("100.{}.{}.0/24", net / 256, net % 256);
        let other_subnet = id(&f.admin.create("subnets/", &[("cidr", &other)]).await.good());
        let at = |last: u32| format!("10.{}.{}.{last}", net / 256, net % 256);
        let space = id(&f.admin.create("spaces/", &[]).await.good());
        let fields = [
            ("source", subnet.as_str()),
            ("destination", other_subnet.as_str()),
            ("gateway_ip", &*at(2)),
        ];
        let route = id(&f.admin.create("static-routes/", &fields).await.good());
        let fields = [("ip", at(40)), ("mac_address", mac())];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let reserved = id(&f.admin.create("reservedips/", &fields).await.good());
        let kept = f
            .admin
            .op("ipaddresses/", "reserve", &[("ip", &at(50))])
            .await
            .good()["ip"]
            .as_str()
            .expect("an address")
            .to_owned();
        let machine = f.machine(&[]).await;
        let system_id = machine["system_id"].as_str().expect("an id").to_owned();
        let interface = id(&machine["interface_set"][0]);
        let path = format!("nodes/{system_id}/interfaces/{interface}/");
        let fields = [
            ("mode", "auto"),
            ("subnet", subnet.as_str()),
            ("force", "1"),
        ];
        let linked = f.admin.op(&path, "link_subnet", &fields).await.good();
        let (card, seen) = (interface.parse::<i64>().expect("a number"), at(60));
        f.write(move |tx| {
            let seen = seen.clone();
            Box::pin(async move {
                store::exec!(
                    tx,
                    "INSERT INTO neighbour (interface_id, ip, mac, first_seen, last_seen) VALUES ($1, $2, $3, 0, 0)",
                    card,
                    seen,
                    SEEN_MAC
                )?;
                Ok(())
            })
        })
        .await;
        let (disk, partition, results) = f.equip(&system_id).await;
        f.put_into(&system_id, Status::Allocated, Some("owner"))
            .await;
        let layers = f.layers(&system_id).await;
        let other = f.machine(&[]).await["system_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let what = What::Metadata {
            method: "GET".into(),
            path: "latest/".into(),
            status: 200,
        };
        let who = SystemId(system_id.clone());
        f.region
            .timeline
            .append((&who).into(), vec![Entry::new(Timestamp(1), what)])
            .await
            .expect("a boot");
        let boots = f.region.timeline.boots(&who).await.expect("boots");
        let fabric = id(&f.admin.create("fabrics/", &[]).await.good());
        let (start, end) = (
            format!("10.{}.{}.10", net / 256, net % 256),
            format!("10.{}.{}.20", net / 256, net % 256),
        );
        let fields = [
            ("type", "reserved"),
            ("start_ip", start.as_str()),
            ("end_ip", end.as_str()),
        ];
        let range = id(&owner.create("ipranges/", &fields).await.good());
        let (tag, zone, pool) = (format!("tag-{n}"), format!("zone-{n}"), format!("pool-{n}"));
        drop(f.admin.create("tags/", &[("name", &tag)]).await.good());
        drop(f.admin.create("zones/", &[("name", &zone)]).await.good());
        let pool = id(&f
            .admin
            .create("resourcepools/", &[("name", &pool)])
            .await
            .good());
        // Made when it is needed: to hash a password takes its time.
        let victim = format!("victim-{n}");
        let key = owner
            .create("account/prefs/sshkeys/", &[("key", &ssh_key())])
            .await
            .good();
        let (source, selection) = f.source().await;
        let resource = f.image(&format!("ubuntu/{n}")).await;
        let device = owner
            .create("devices/", &[("mac_addresses", &mac())])
            .await
            .good();
        let bus_device = f.bus_device(&system_id).await;
        let script = format!("script-{n}");
        let fields = [
            ("name", script.as_str()),
            ("script", "#!/bin/sh\n"),
            ("type", "commissioning"),
        ];
        let made = f.admin.create("scripts/", &fields).await.good();
        Self {
            device: device["system_id"].as_str().expect("an id").to_owned(),
            bus_device: bus_device.to_string(),
            version: id(&made["history"][0]),
            script,
            mac: machine["interface_set"][0]["mac_address"]
                .as_str()
                .expect("an address")
                .to_owned(),
            interface,
            link: id(&linked["links"][0]),
            disk: disk.to_string(),
            partition: partition.to_string(),
            layers,
            results: results.to_string(),
            boot: boots[0].id.to_string(),
            net,
            subnet,
            vlan,
            other_subnet,
            space,
            route,
            reserved,
            kept,
            fabric,
            range,
            tag,
            zone,
            pool,
            victim,
            key: id(&key),
            source: source.to_string(),
            selection: selection.to_string(),
            resource: resource.to_string(),
            rack: f.rack().await.rack.0,
            names: names::Names::new(f, owner).await,
            clients: vec![
                f.nobody(),
                user.clone(),
                owner.clone(),
                f.admin.clone(),
                f.node(&system_id, "ephemeral").await,
                f.node(&other, "ephemeral").await,
            ],
            system_id,
        }
    }

    /// The node that an operation of a path is about.
    fn node_of(&self, o: &Operation) -> &str {
        match o.uri.split('/').next() {
            Some("rackcontrollers" | "regioncontrollers") => &self.rack,
            Some("devices") => &self.device,
            _ => &self.system_id,
        }
    }

    /// The path of an operation with this ground's objects in it.
    fn path(&self, o: &Operation) -> String {
        let mut path = self.names.path(o);
        let ids = [
            ("account/prefs/sshkeys/", &self.key),
            ("boot-resources/", &self.resource),
            ("boot-sources/{boot_source_id}/", &self.selection),
            ("boot-sources/", &self.source),
            ("fabrics/", &self.fabric),
            ("ipranges/", &self.range),
            ("machines/{system_id}/boots/", &self.boot),
            (
                "nodes/{system_id}/blockdevices/{device_id}/",
                &self.partition,
            ),
            ("nodes/{system_id}/blockdevices/", &self.disk),
            ("nodes/{system_id}/volume-group/", &self.layers.group),
            ("nodes/{system_id}/raid/", &self.layers.raid),
            ("nodes/{system_id}/bcache/", &self.layers.bcache),
            (
                "nodes/{system_id}/bcache-cache-set/",
                &self.layers.cache_set,
            ),
            ("nodes/{system_id}/vmfs-datastore/", &self.layers.datastore),
            ("nodes/{system_id}/devices/", &self.bus_device),
            ("nodes/{system_id}/interfaces/", &self.interface),
            ("nodes/{system_id}/results/", &self.results),
            ("reservedips/", &self.reserved),
            ("resourcepool/", &self.pool),
            ("spaces/", &self.space),
            ("static-routes/", &self.route),
            ("subnets/", &self.subnet),
        ];
        if path.contains("{id}") {
            let (_, id) = ids
                .iter()
                .find(|(prefix, _)| o.uri.starts_with(prefix))
                .unwrap_or_else(|| panic!("what is {{id}} of {o:?}?"));
            path = path.replace("{id}", id);
        }
        let network = format!("subnet-{}", self.subnet);
        let name = match o.uri.split('/').next() {
            Some("tags") => &self.tag,
            Some("networks") => &network,
            Some("scripts" | "commissioning-scripts") => &self.script,
            _ => &self.zone,
        };
        let sighting = format!("{},{SEEN_MAC}", self.at(60));
        let sighting = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sighting);
        let system_id = self.node_of(o);
        for (part, value) in [
            ("{system_id}", system_id),
            ("{name}", name),
            ("{username}", &self.victim),
            ("{version}", "2012-03-01"),
            ("{item}", "instance-id"),
            ("{sha256}", &"0".repeat(64)),
            ("{fabric_id}", &self.fabric),
            ("{vid}", "0"),
            ("{device_id}", &self.disk),
            ("{boot_source_id}", &self.source),
            ("{discovery_id}", &sighting),
        ] {
            path = path.replace(part, value);
        }
        assert!(
            !path.contains('{'),
            "{path}: a part of the path that this test does not know"
        );
        format!("{}{path}", o.face.prefix().trim_start_matches("/MAAS"))
    }

    /// An address of the ground's subnet.
    fn at(&self, last: u32) -> String {
        format!("10.{}.{}.{last}", self.net / 256, self.net % 256)
    }

    /// What is sent: every parameter that must be there, and those that the code asks for on top.
    fn fields(&self, o: &Operation, caller: usize) -> Vec<(String, String)> {
        let n = unique();
        let mut names: Vec<&str> = o
            .params
            .iter()
            .filter(|p| p.need != Need::Optional)
            .map(|p| p.name)
            .collect();
        names.extend(match (o.uri, o.action()) {
            ("subnets/", "create") => &["cidr"][..],
            ("boot-sources/{boot_source_id}/selections/", "create") => &["os", "release"],
            ("maas/", "set_config") => &["value"],
            ("fabrics/{fabric_id}/vlans/", "create") => &["vid"],
            ("tags/{name}/", "update_nodes") => &["add"],
            ("scripts/", "create") => &["name", "script"],
            ("commissioning-scripts/", "create") => &["name"],
            (_, "link_subnet") => &["subnet"],
            (_, "set_storage_layout") => &["storage_layout"],
            ("nodes/{system_id}/blockdevices/", "create") => &["id_path"],
            ("nodes/{system_id}/blockdevices/{device_id}/partitions/", "create") => &["size"],
            ("nodes/{system_id}/volume-groups/", "create")
            | ("nodes/{system_id}/vmfs-datastores/", "create") => &["partitions"],
            ("nodes/{system_id}/raids/", "create") => &["partitions"],
            ("nodes/{system_id}/bcaches/", "create") => &["backing_partition"],
            ("nodes/{system_id}/bcache-cache-sets/", "create") => &["cache_partition"],
            (_, "set_owner_data" | "set_workload_annotations") => &["annotation"],
            (_, "create_physical") => &["mac_address"],
            (_, "create_bridge") => &["parent"],
            ("ipaddresses/", "reserve") => &["subnet"],
            ("discovery/", "clear") => &["all"],
            ("discovery/", "scan") => &["force"],
            (_, "signal") => &["status"],
            _ => names::Names::needs(o),
        });
        names.sort_unstable();
        names.dedup();
        let at = |last: u32| self.at(last);
        let token = || {
            let me = ["-", "user", "owner", "admin", "-", "-"][caller];
            format!("{me}-has-no-such-token")
        };
        names
            .into_iter()
            .map(|name| {
                if let Some(value) = self.names.field(o, name) {
                    return (name.to_owned(), value);
                }
                let value = match name {
                    "name" if o.uri == "maas/" => "maas_name".to_owned(),
                    "name" => format!("name-{n}"),
                    "value" | "annotation" => "a value".to_owned(),
                    "token" | "token_key" => token(),
                    "username" if o.uri == "accounts/authenticate/" => "user".to_owned(),
                    "username" => format!("user-{n}"),
                    "password" => "another password".to_owned(),
                    "email" => format!("user-{n}@example.com"),
                    "is_superuser" => "0".to_owned(),
                    "key" => ssh_key(),
                    "type" => "reserved".to_owned(),
                    "start_ip" => at(100),
                    "end_ip" => at(110),
                    "cidr" => format!("172.{}.{}.0/24", 16 + n % 16, n / 16 % 256),
                    "vid" => "7".to_owned(),
                    "add" | "machines" => self.system_id.clone(),
                    "id" if o.action() == "unlink_subnet" => self.link.clone(),
                    "id" if o.action() == "delete_logical_volume" => self.layers.volume.clone(),
                    "level" => "0".to_owned(),
                    "size" if o.action() == "create" && o.uri.ends_with("partitions/") => {
                        "1G".to_owned()
                    }
                    "size" => "10G".to_owned(),
                    "block_size" => "512".to_owned(),
                    "id_path" => format!("/dev/disk/by-id/{n}"),
                    "fstype" if o.action() == "mount_special" => "tmpfs".to_owned(),
                    "fstype" => "ext4".to_owned(),
                    "mount_point" => format!("/srv/{n}"),
                    "cache_set" => self.layers.cache_set.clone(),
                    "cache_mode" => "writeback".to_owned(),
                    // Two free ones for a RAID, one for the others.
                    "partitions" if o.uri.contains("raids/") => self.layers.free.join(","),
                    "partitions" | "backing_partition" | "cache_partition" => {
                        self.layers.free[0].clone()
                    }
                    "id" | "nodes" => self.node_of(o).to_owned(),
                    "zone" => self.zone.clone(),
                    "script" | "content" => "#!/bin/sh\ntrue\n".to_owned(),
                    "to" => self.version.clone(),
                    "chassis_type" => "virsh".to_owned(),
                    "hostname" => "qemu+tcp://10.0.0.1/system".to_owned(),
                    "mode" => "dhcp".to_owned(),
                    "ip" if o.action() == "release" => self.kept.clone(),
                    "ip" if o.action() == "clear_by_mac_and_ip" => at(60),
                    "ip" => at(70),
                    "mac" => SEEN_MAC.to_owned(),
                    "all" | "force" => "true".to_owned(),
                    "source" => self.subnet.clone(),
                    "destination" => self.other_subnet.clone(),
                    "gateway_ip" => at(3),
                    "parent" | "parents" => self.interface.clone(),
                    "vlan" => self.vlan.clone(),
                    "subnet" => self.subnet.clone(),
                    "tag" => "a-tag".to_owned(),
                    "storage_layout" => "flat".to_owned(),
                    "architecture" => "amd64/generic".to_owned(),
                    "mac_addresses" | "mac_address"
                        if matches!(o.action(), "is_registered" | "is_action_in_progress") =>
                    {
                        self.mac.clone()
                    }
                    "mac_addresses" | "mac_address" => mac(),
                    "status" => "WORKING".to_owned(),
                    "url" => format!("/nowhere/{n}"),
                    "os" => "ubuntu".to_owned(),
                    "release" => "jammy".to_owned(),
                    other => panic!("what is {other} of {o:?}?"),
                };
                (name.to_owned(), value)
            })
            .collect()
    }
}

fn method(o: &Operation) -> Method {
    o.method.word().parse().expect("a method of HTTP")
}

/// One line of the list: the operation's face, path, method and `op`.
type Key = (&'static str, &'static str, &'static str, &'static str);

fn key(o: &Operation) -> Key {
    (o.face.prefix(), o.uri, o.method.word(), o.op.unwrap_or("-"))
}

/// Operations that say that something is not built yet, with what.
type Missing = BTreeMap<(&'static str, &'static str, &'static str), String>;

/// Operations that are called on one database.
const OPERATIONS_PER_DATABASE: usize = 25;

/// What each operation answers to each caller.
async fn walk(f: &Front) -> (BTreeMap<Key, Vec<u16>>, Missing) {
    let mut seen = BTreeMap::new();
    let mut missing = Missing::new();
    // The whole database is looked at after each call, and every change lays new ground: with a new database now
    // and then it stays small.
    for some in f.operations().chunks(OPERATIONS_PER_DATABASE) {
        let f = Front::start(f.engine()).await;
        part(&f, some, &mut seen, &mut missing).await;
    }
    (seen, missing)
}

/// The same for some of the operations, on a database of their own.
async fn part(
    f: &Front,
    operations: &[&'static Operation],
    seen: &mut BTreeMap<Key, Vec<u16>>,
    missing: &mut Missing,
) {
    let (user, owner) = (f.user("user").await, f.user("owner").await);
    let mut ground = Ground::new(f, &user, &owner).await;
    let mut before = f.dump().await;
    for &o in operations {
        if seen.contains_key(&key(o)) {
            continue;
        }
        let mut row = Vec::new();
        for (caller, name) in CALLERS.iter().enumerate() {
            if o.uri == "users/{username}/"
                && f.admin
                    .get(&format!("users/{}/", ground.victim))
                    .await
                    .status
                    == 404
            {
                drop(f.user(&ground.victim).await);
                before = f.dump().await;
            }
            let (client, path) = (&ground.clients[caller], ground.path(o));
            let fields = ground.fields(o, caller);
            let fields: Vec<(&str, &str)> = fields
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            let audits = f.audits().await;
            let reply = match o.body {
                Body::Form => client.call(method(o), &path, o.op, &fields).await,
                Body::Raw(_) => {
                    let body = r#"{"name": "n", "event_type": "progress", "origin": "cloudinit", "description": "d", "timestamp": 1}"#;
                    client
                        .send(client.request(method(o), &path).body(body))
                        .await
                }
            };
            row.push(reply.status);
            if let Some(what) = reply.text().strip_prefix(region::error::WITHOUT_ENGINE) {
                let key = (o.uri, o.method.word(), o.op.unwrap_or(""));
                missing.insert(key, what.trim_end_matches('.').to_owned());
            }
            let what = format!("{} calls {o:?}: {} {}", name, reply.status, reply.text());
            assert!(reply.status < 500 || reply.status == 503, "{what}");
            let accepted = reply.status < 400;
            // The operation that this caller reached: there may be one for nobody and one for the others.
            let all = f.operations();
            let declared = all.iter().filter(|other| key(other) == key(o));
            let audited = declared
                .filter(|d| {
                    d.is_anonymous() == (caller == NOBODY)
                        || f.operations().iter().filter(|x| key(x) == key(o)).count() == 1
                })
                .any(|d| d.audit.is_some());
            let expected = i64::from(accepted && audited);
            assert_eq!(f.audits().await - audits, expected, "audit events: {what}");
            let after = f.dump().await;
            if !accepted || o.method.word() == "GET" {
                let noted = o.op == Some("get_preseed"); // an event says who asked for it
                assert!(
                    noted || difference(&before, &after).is_empty(),
                    "{what} has left something:\n{}",
                    difference(&before, &after)
                );
                before = after;
            } else {
                // What was made beside the ground leaves it as it is.
                if o.uri.contains('{') || !matches!(o.action(), "create" | "set_config") {
                    ground = Ground::new(f, &user, &owner).await;
                }
                before = f.dump().await;
            }
        }
        seen.insert(key(o), row);
    }
}

/// Compares what is not built yet with the list.
fn agrees_with_the_list(missing: &Missing) {
    let shown: BTreeSet<String> = missing
        .iter()
        .map(|((uri, method, op), what)| format!("{uri}\t{method}\t{op}\t{what}"))
        .collect();
    let listed: BTreeSet<String> = include_str!("../golden/without_engine.tsv")
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        shown, listed,
        "golden/without_engine.tsv is not what operations say"
    );
}

fn shown(seen: &BTreeMap<Key, Vec<u16>>) -> String {
    let mut out = format!(
        "# What each operation answers to each caller; the machine belongs to \"owner\".\n# UPDATE_EXPECT=1 writes this anew.\n{:78}",
        ""
    );
    for c in CALLERS {
        out.push_str(&format!(" {c:>8}"));
    }
    out.push('\n');
    for ((prefix, uri, method, op), row) in seen {
        let prefix = prefix.trim_start_matches("/MAAS/");
        out.push_str(&format!("{:78}", format!("{method:6} {prefix}{uri} {op}")));
        for status in row {
            out.push_str(&format!(" {status:>8}"));
        }
        out.push('\n');
    }
    out
}

/// What follows from the table alone, whatever the list says.
fn follows_from_the_table(f: &Front, seen: &BTreeMap<Key, Vec<u16>>) {
    let refused = |status: u16| matches!(status, 401 | 403);
    for (k, row) in seen {
        let declared: Vec<Who> = f
            .region
            .table()
            .iter()
            .filter(|o| key(o) == *k)
            .map(|o| o.who)
            .collect();
        let open = declared
            .iter()
            .any(|w| matches!(w, Who::Anyone | Who::NodeOrAnyone));
        let nobody = row[NOBODY];
        // A path that has something for nobody says that there is nothing of this kind: 400, as MAAS has it.
        assert!(
            open || matches!(nobody, 400 | 401),
            "{k:?} answers {nobody} to nobody"
        );
        if declared.contains(&Who::Admin) {
            assert!(
                row[USER] == 403 && row[OWNER] == 403 && !refused(row[ADMIN]),
                "{k:?}: {row:?}"
            );
        }
        if declared.iter().any(|w| matches!(w, Who::User | Who::Admin)) && !open {
            assert!(row[NODE] == 403 && row[STRANGER] == 403, "{k:?}: {row:?}");
        }
        if declared
            .iter()
            .all(|w| matches!(w, Who::Node | Who::NodeOrAnyone))
        {
            assert!(
                [USER, OWNER, ADMIN].iter().all(|c| row[*c] == 403),
                "{k:?}: {row:?}"
            );
        }
    }
}

/// Where our answers differ from what the reference says on purpose: method, path, `op`, and why.
const OTHERWISE: &[(&str, &str, &str, &str)] = &[
    (
        "POST",
        "machines/{}/",
        "mark_broken",
        "only its owner: seen on a running MAAS",
    ),
    (
        "POST",
        "machines/",
        "release",
        "who may not see a machine is told that it is unknown: 400",
    ),
    (
        "PUT",
        "tags/{}/",
        "",
        "the reference names the way in; the tag itself asks for an administrator",
    ),
    ("DELETE", "tags/{}/", "", "as above"),
    ("POST", "tags/{}/", "rebuild", "as above"),
    (
        "PUT",
        "zones/{}/",
        "",
        "the reference names the way in; the zone itself asks for an administrator",
    ),
    ("DELETE", "zones/{}/", "", "as above"),
    (
        "POST",
        "resourcepools/",
        "",
        "the reference names the way in; the pool itself asks for an administrator",
    ),
    ("PUT", "resourcepool/{}/", "", "as above"),
    ("DELETE", "resourcepool/{}/", "", "as above"),
    (
        "POST",
        "rackcontrollers/",
        "set_zone",
        "the reference names the way in; a controller asks for an administrator",
    ),
    ("POST", "regioncontrollers/", "set_zone", "as above"),
    (
        "POST",
        "rackcontrollers/{}/",
        "abort",
        "a controller has no owner: administrators only",
    ),
    ("POST", "rackcontrollers/{}/", "power_on", "as above"),
    ("POST", "rackcontrollers/{}/", "power_off", "as above"),
];

/// Compares the answers with who may call what in MAAS.
fn agrees_with_the_reference(seen: &BTreeMap<Key, Vec<u16>>) {
    let text = include_str!("../golden/who.tsv");
    let reference: BTreeMap<(&str, &str, &str), BTreeSet<&str>> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .fold(BTreeMap::new(), |mut all, line| {
            let f: Vec<&str> = line.split('\t').collect();
            all.entry((f[1], f[0], f[2])).or_default().insert(f[3]);
            all
        });
    let mut wrong = Vec::new();
    for ((prefix, uri, method, op), row) in seen {
        if *prefix != Face::Maas2.prefix() {
            continue;
        }
        let plain: String = uri
            .split('/')
            .map(|s| if s.starts_with('{') { "{}" } else { s })
            .collect::<Vec<_>>()
            .join("/");
        let op = if *op == "-" { "" } else { op };
        let Some(who) = reference.get(&(*method, plain.as_str(), op)) else {
            wrong.push(format!(
                "{method} {plain} {op}: the reference does not have it"
            ));
            continue;
        };
        if OTHERWISE
            .iter()
            .any(|(m, u, o, _)| m == method && *u == plain && *o == op)
        {
            continue;
        }
        // 404 is how a machine of somebody else is refused.
        let may = |caller: usize| !matches!(row[caller], 401 | 403 | 404);
        for w in who {
            let agrees = match *w {
                "anon" => !matches!(row[NOBODY], 401 | 403),
                "user" => !matches!(row[USER], 401 | 403) || may(OWNER),
                "admin" | "user(admin_read)" | "user(node admin) & user(node view)" => {
                    !may(USER) && !may(OWNER) && may(ADMIN)
                }
                "user(node view)" => may(OWNER) && may(ADMIN),
                "user(node edit/owner)" | "user(lock)" => may(OWNER) && may(ADMIN) && !may(USER),
                "user(node admin)" => !may(USER) && !may(OWNER) && may(ADMIN),
                // Machines need an administrator, devices their owner; a deployment the owner.
                "user(node admin) & user(node edit/owner)" => {
                    !may(USER) && may(ADMIN) && (op != "deploy" || may(OWNER))
                }
                // What is asked depends on what is sent.
                "superuser-check" | "dynamic_compose" => may(ADMIN),
                other => panic!("what is {other} of {method} {plain} {op}?"),
            };
            let left_to_nobody = who.contains("anon") && *w != "anon";
            if !agrees && !left_to_nobody {
                wrong.push(format!("{method} {plain} {op}: {w}, and we answer {row:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "who may do what is not as in MAAS:\n{}",
        wrong.join("\n")
    );
}

steelyard_tests::front_test! {
    /// The whole surface, by everybody.
    async fn everybody_may_do_what_the_list_says_and_leaves_nothing_else(f: Front) {
        let (seen, missing) = walk(f).await;
        agrees_with_the_list(&missing);
        follows_from_the_table(f, &seen);
        golden("permissions.txt", &shown(&seen));
        agrees_with_the_reference(&seen);
    }
}
