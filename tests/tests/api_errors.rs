//! Bad input gets what clients expect, and changes nothing.

use metal::status::Status;
use region::auth::ApiKey;
use region::operation::{Body, Face, Kind, Need, Who};
use reqwest::Method;
use steelyard_tests::front::{difference, golden, mac};
use steelyard_tests::{Client, Front, Reply};

/// The header of a key, with everything in it as the test wants it.
fn header(key: &ApiKey, stamp: &str, nonce: &str, method: &str) -> String {
    format!(
        "OAuth oauth_version=\"1.0\", oauth_signature_method=\"{method}\", oauth_nonce=\"{nonce}\", oauth_timestamp=\"{stamp}\", \
         oauth_consumer_key=\"{}\", oauth_token=\"{}\", oauth_signature=\"%26{}\"",
        key.consumer_key, key.token_key, key.token_secret
    )
}

async fn with_header(f: &Front, header: &str) -> Reply {
    let nobody = f.nobody();
    let request = nobody
        .request(Method::GET, "users/?op=whoami")
        .header("Authorization", header);
    nobody.send(request).await
}

fn seconds() -> i64 {
    steelyard_tests::front::now().seconds()
}

/// The 400 of a form: the field is named, and what is wrong with it is said.
#[track_caller]
fn names_the_field(reply: Reply, field: &str) {
    assert_eq!(reply.header("content-type"), "application/json");
    let body = reply.expect(400).json();
    let said = body[field][0].as_str().unwrap_or_default();
    assert!(!said.is_empty(), "{body} says nothing of {field}");
}

async fn machine(f: &Front) -> String {
    let m = f.machine(&[]).await;
    m["system_id"].as_str().expect("an id").to_owned()
}

/// Every operation that a machine can be asked for, with what it needs.
const OPS: &[(&str, &[(&str, &str)])] = &[
    ("commission", &[]),
    (
        "deploy",
        &[("osystem", "ubuntu"), ("distro_series", "noble")],
    ),
    ("release", &[]),
    ("abort", &[]),
    ("mark_broken", &[]),
    ("mark_fixed", &[]),
    ("lock", &[]),
    ("unlock", &[]),
    ("power_on", &[]),
    ("power_off", &[]),
    ("set_workload_annotations", &[("k", "v")]),
    ("set_storage_layout", &[("storage_layout", "flat")]),
    ("restore_storage_configuration", &[]),
    ("restore_networking_configuration", &[]),
    ("restore_default_configuration", &[]),
    ("rescue_mode", &[]),
    ("exit_rescue_mode", &[]),
    ("override_failed_testing", &[]),
    ("clear_default_gateways", &[]),
];

const STATUSES: [Status; 23] = [
    Status::New,
    Status::Commissioning,
    Status::FailedCommissioning,
    Status::Missing,
    Status::Ready,
    Status::Reserved,
    Status::Deployed,
    Status::Retired,
    Status::Broken,
    Status::Deploying,
    Status::Allocated,
    Status::FailedDeployment,
    Status::Releasing,
    Status::FailedReleasing,
    Status::DiskErasing,
    Status::FailedDiskErasing,
    Status::RescueMode,
    Status::EnteringRescueMode,
    Status::FailedEnteringRescueMode,
    Status::ExitingRescueMode,
    Status::FailedExitingRescueMode,
    Status::Testing,
    Status::FailedTesting,
];

/// A machine that could do everything if its status allowed it: owned by the administrator, with a disk, a
/// root file system, results of its commissioning, and an interface with an address.
async fn complete_machine(f: &Front, subnet: &str) -> String {
    let m = f.machine(&[]).await;
    let id = m["system_id"].as_str().expect("an id").to_owned();
    f.equip(&id).await;
    let path = format!("nodes/{id}/interfaces/{}/", m["interface_set"][0]["id"]);
    let link = [("mode", "auto"), ("subnet", subnet), ("force", "1")];
    drop(f.admin.op(&path, "link_subnet", &link).await.good());
    id
}

/// `machines/` has operations for nobody, so the rest of it is "unrecognised" there; all else asks for a key.
fn asks_for_a_key(reply: &Reply) -> bool {
    reply.status == 401 || reply.status == 400 && reply.text().starts_with("Unrecognised signature")
}

steelyard_tests::front_test! {
    async fn an_unknown_path_or_operation_is_refused(f: Front) {
        for path in ["nothing/", "machines", "machines/x/y/z/", "/api/3.0/machines/", "/metadata/a/b/c/d/e", "/nothing"] {
            drop(f.admin.get(path).await.expect(404));
            drop(f.nobody().get(path).await.expect(404));
        }
        let reply = f.admin.ask("machines/", "make_coffee", &[]).await.expect(400);
        assert_eq!(reply.text(), "Unrecognised signature: method=GET op=make_coffee");
        let reply = f.admin.op("zones/", "allocate", &[]).await.expect(400);
        assert_eq!(reply.text(), "Unrecognised signature: method=POST op=allocate");
        // An operation under the wrong method is none.
        drop(f.admin.ask("machines/", "allocate", &[]).await.expect(400));
        assert_eq!(f.nobody().get("machines/").await.expect(400).text(), "Unrecognised signature: method=GET op=None");
        // The op of a form counts as well, and a path may carry it.
        drop(f.admin.get("users/op-whoami").await.expect(200));
    }

    async fn a_wrong_method_is_told_the_right_ones(f: Front) {
        for (method, path, allow) in [
            (Method::DELETE, "machines/", "GET, POST"),
            (Method::PUT, "zones/", "GET, POST"),
            (Method::POST, "zones/default/", "DELETE, GET, PUT"),
            (Method::POST, "version/", "GET"),
            (Method::OPTIONS, "users/", "GET, POST"),
        ] {
            let reply = f.admin.call(method.clone(), path, None, &[]).await;
            assert_eq!((reply.status, reply.header("allow")), (405, allow), "{method} {path}");
        }
    }

    /// Every operation of the table that needs a parameter says which one when it is not there; each typed
    /// parameter is refused with what it cannot be. Nothing is changed by any of it.
    async fn every_parameter_is_checked_by_the_table(f: Front) {
        let id = machine(f).await;
        let node = f.node(&id, "ephemeral").await;
        let before = f.dump().await;
        let (mut missing, mut wrong) = (0, 0);
        for o in f.operations() {
            // Our own face has a form of its own for this.
            if matches!(o.body, Body::Raw(_)) || o.face == Face::V1 {
                continue;
            }
            let nobody = f.nobody();
            let client: &Client = match o.who {
                Who::Node => &node,
                _ if o.handler.starts_with("Anon") || o.face == Face::Web => &nobody,
                _ => &f.admin,
            };
            let path = o.uri.split('/').map(|s| match s {
                "{system_id}" => id.as_str(),
                "{version}" => "2012-03-01",
                s if s.starts_with('{') => "1",
                s => s,
            });
            let path = format!("{}{}", o.face.prefix().trim_start_matches("/MAAS"), path.collect::<Vec<_>>().join("/"));
            let method: Method = o.method.word().parse().expect("a method");
            if let Some(p) = o.params.iter().find(|p| p.need == Need::Param) {
                let reply = client.call(method.clone(), &path, o.op, &[]).await.expect(400);
                assert_eq!(reply.text(), format!("No provided {}!", p.name), "{o:?}");
                missing += 1;
            } else if o.params.iter().any(|p| p.need == Need::Field) {
                let reply = client.call(method.clone(), &path, o.op, &[]).await.expect(400);
                let body = reply.json();
                for p in o.params.iter().filter(|p| p.need == Need::Field) {
                    assert_eq!(body[p.name][0], "This field is required.", "{o:?}: {body}");
                }
                missing += 1;
            }
            for p in o.params {
                let bad = match p.kind {
                    Kind::Int => "many",
                    Kind::Bool => "perhaps",
                    Kind::Choice(_) => "none-of-them",
                    _ => continue,
                };
                let needed: Vec<(&str, &str)> = o.params.iter().filter(|x| x.need == Need::Param && x.name != p.name).map(|x| (x.name, "1")).collect();
                let fields: Vec<(&str, &str)> = needed.into_iter().chain([(p.name, bad)]).collect();
                names_the_field(client.call(method.clone(), &path, o.op, &fields).await, p.name);
                wrong += 1;
            }
        }
        assert!(missing > 15 && wrong > 40, "{missing} {wrong}");
        assert_eq!(difference(&before, &f.dump().await), "");
    }

    /// Values of the right type that cannot be: 400 with the field, and nothing changed.
    async fn a_value_that_cannot_be_names_its_field(f: Front) {
        let taken = f.machine(&[("hostname", "taken")]).await;
        let (id, address) = (taken["system_id"].as_str().expect("an id"), taken["interface_set"][0]["mac_address"].as_str().expect("an address"));
        drop(f.admin.create("subnets/", &[("cidr", "10.1.1.0/24")]).await.good());
        let before = f.dump().await;
        let at = format!("machines/{id}/");
        let new = mac();
        let with = |more: &[(&'static str, &'static str)]| {
            let mut fields = vec![("architecture", "amd64/generic"), ("mac_addresses", new.as_str()), ("commission", "false")];
            fields.retain(|(k, _)| more.iter().all(|(m, _)| m != k));
            fields.extend(more);
            fields.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>()
        };
        for (fields, field) in [
            (with(&[("mac_addresses", "no-address")]), "mac_addresses"),
            (with(&[("architecture", "z80/generic")]), "architecture"),
            (with(&[("hostname", "taken")]), "hostname"),
            (with(&[("hostname", "no_name!")]), "hostname"),
            (with(&[("zone", "nowhere")]), "zone"),
            (with(&[("pool", "nowhere")]), "pool"),
            (with(&[("domain", "nowhere")]), "domain"),
            (with(&[("power_type", "magic")]), "power_type"),
            (with(&[("power_type", "ipmi")]), "power_parameters"),
        ] {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let reply = f.admin.create("machines/", &fields).await;
            if field == "power_parameters" {
                // The parameter that is missing is named behind the word.
                assert!(reply.expect(400).text().contains("power_"), "a power parameter");
            } else {
                names_the_field(reply, field);
            }
        }
        let same = [("architecture", "amd64/generic"), ("mac_addresses", address), ("commission", "false")];
        names_the_field(f.admin.create("machines/", &same).await, "mac_addresses");
        names_the_field(f.admin.update(&at, &[("zone", "nowhere"), ("description", "half of it")]).await, "zone");
        names_the_field(f.admin.update(&at, &[("description", "half of it"), ("pool", "nowhere")]).await, "pool");
        for (path, fields, field) in [
            ("subnets/", &[("cidr", "10.1.1.0/24")][..], "cidr"),
            ("subnets/", &[("cidr", "ten")], "cidr"),
            ("subnets/", &[("cidr", "10.2.0.0/24"), ("gateway_ip", "10.3.0.1")], "gateway_ip"),
            ("subnets/", &[("cidr", "10.2.0.0/24"), ("vlan", "4711")], "vlan"),
            ("fabrics/0/vlans/", &[("vid", "5000")], "vid"),
            ("fabrics/0/vlans/", &[("vid", "0")], "vid"),
            ("ipranges/", &[("type", "dynamic"), ("start_ip", "10.1.1.9"), ("end_ip", "10.1.1.3")], "end_ip"),
            ("ipranges/", &[("type", "dynamic"), ("start_ip", "10.1.1.0"), ("end_ip", "10.1.1.3")], "start_ip"),
            ("tags/", &[("name", "no name")], "name"),
            ("zones/", &[("name", "default")], "name"),
            ("resourcepools/", &[("name", "default")], "name"),
            ("account/prefs/sshkeys/", &[("key", "ssh-rsa nothing")], "key"),
            ("boot-sources/", &[("url", "gopher://x")], "url"),
            ("users/", &[("username", "admin"), ("email", "a@example.com"), ("password", "x y z 1 2 3"), ("is_superuser", "0")], "username"),
        ] {
            names_the_field(f.admin.create(path, fields).await, field);
        }
        for fields in [[("name", "no_such_setting"), ("value", "1")], [("name", "node_timeout"), ("value", "soon")], [("name", "default_storage_layout"), ("value", "pile")]] {
            drop(f.admin.op("maas/", "set_config", &fields).await.expect(400));
        }
        drop(f.admin.ask("maas/", "get_config", &[("name", "no_such_setting")]).await.expect(400));
        drop(f.admin.ask("events/", "query", &[("level", "LOUD")]).await.expect(400));
        drop(f.admin.ask("events/", "query", &[("limit", "1001")]).await.expect(400));
        drop(f.admin.ask("events/", "query", &[("before", "1"), ("after", "1")]).await.expect(400));
        names_the_field(f.admin.get("machines/?status=asleep").await, "status");
        drop(f.admin.get("machines/?mac_address=no-address").await.expect(400));
        assert_eq!(difference(&before, &f.dump().await), "");
    }

    /// What does not exist is 404 with the name of its kind, for readers and writers alike.
    async fn an_unknown_object_is_not_found(f: Front) {
        let id = machine(f).await;
        let before = f.dump().await;
        let mut asked = 0;
        for o in f.operations() {
            if o.face == Face::Metadata || o.face == Face::Web || !o.uri.contains('{') || matches!(o.who, Who::Node) {
                continue;
            }
            for unknown in ["4711", "abc123", "%F0%9F%92%A9", "99999999999999999999", "-1", "a'b"] {
                let path = o.uri.split('/').map(|s| if s.starts_with('{') { unknown } else { s });
                let path = format!("{}{}", o.face.prefix().trim_start_matches("/MAAS"), path.collect::<Vec<_>>().join("/"));
                let mut fields: Vec<(&str, &str)> = Vec::new();
                for p in o.params.iter().filter(|p| p.need != Need::Optional) {
                    fields.push((p.name, match p.name {
                        "mac_address" => "52:54:00:ff:ff:ff",
                        "mode" => "dhcp",
                        _ => match p.kind {
                            Kind::Int => "1",
                            Kind::Choice(words) => words[0],
                            _ => "x",
                        },
                    }));
                }
                if o.op == Some("set_storage_layout") {
                    fields.push(("storage_layout", "flat"));
                }
                let method: Method = o.method.word().parse().expect("a method");
                let reply = f.admin.call(method, &path, o.op, &fields).await;
                assert_eq!(reply.status, 404, "{o:?} {unknown}: {}", reply.text());
                asked += 1;
            }
        }
        assert!(asked > 300, "{asked}");
        for path in ["interfaces/4711/", "blockdevices/4711/", "blockdevices/4711/partitions/", "blockdevices/4711/partition/1", "results/4711/"] {
            let reply = f.admin.get(&format!("nodes/{id}/{path}")).await.expect(404);
            assert!(reply.text().ends_with("matches the given query."), "{}", reply.text());
        }
        assert_eq!(difference(&before, &f.dump().await), "");
    }

    async fn credentials_that_are_none_are_refused(f: Front) {
        let id = machine(f).await;
        let key = region::user::api_key(&f.region, "admin", steelyard_tests::front::now()).await.expect("a key");
        let good = seconds().to_string();
        drop(with_header(f, &header(&key, &good, "first", "PLAINTEXT")).await.expect(200));
        let before = f.dump().await;
        let other = |change: fn(&mut ApiKey)| {
            let mut k = key.clone();
            change(&mut k);
            k
        };
        for (why, text) in [
            ("a wrong secret", header(&other(|k| k.token_secret.push('x')), &good, "a", "PLAINTEXT")),
            ("no secret", header(&other(|k| k.token_secret.clear()), &good, "b", "PLAINTEXT")),
            ("a wrong consumer", header(&other(|k| k.consumer_key.push('x')), &good, "c", "PLAINTEXT")),
            ("an unknown token", header(&other(|k| k.token_key.push('x')), &good, "d", "PLAINTEXT")),
            ("a signature of another kind", header(&key, &good, "e", "HMAC-SHA1")),
            ("an old timestamp", header(&key, &(seconds() - 301).to_string(), "f", "PLAINTEXT")),
            ("a timestamp of the future", header(&key, &(seconds() + 330).to_string(), "g", "PLAINTEXT")),
            ("a nonce used before", header(&key, &good, "first", "PLAINTEXT")),
            ("nothing", "OAuth ".to_owned()),
        ] {
            let reply = with_header(f, &text).await;
            assert_eq!(reply.status, 401, "{why}: {}", reply.text());
            assert!(!reply.text().contains(&key.token_secret), "{why}");
        }
        drop(with_header(f, &header(&key, "yesterday", "h", "PLAINTEXT")).await.expect(400));
        // Other kinds of credentials are none.
        let reply = with_header(f, "Basic YWRtaW46YWRtaW4=").await.expect(401);
        assert!(reply.header("www-authenticate").starts_with("OAuth"), "{:?}", reply.headers);
        assert_eq!(f.admin.spoiled().get("users/?op=whoami").await.status, 401);
        // Every operation that is not open, without a key and with a spoiled one.
        for o in f.operations() {
            let path = o.uri.split('/').map(|s| match s {
                "{version}" => "2012-03-01",
                s if s.starts_with('{') => id.as_str(),
                s => s,
            });
            let path = format!("{}{}", o.face.prefix().trim_start_matches("/MAAS"), path.collect::<Vec<_>>().join("/"));
            let method: Method = o.method.word().parse().expect("a method");
            if !o.is_anonymous() {
                let open = f.operations().iter().any(|x| x.uri == o.uri && x.face == o.face && x.method == o.method && x.op == o.op && x.is_anonymous());
                let reply = f.nobody().call(method.clone(), &path, o.op, &[]).await;
                assert!(open || asks_for_a_key(&reply), "{o:?}: {} {}", reply.status, reply.text());
            }
            let reply = f.admin.spoiled().call(method, &path, o.op, &[]).await;
            assert_eq!(reply.status, 401, "{o:?}: {}", reply.text());
        }
        assert_eq!(difference(&before, &f.dump().await), "");
    }

    async fn keys_of_people_and_of_machines_do_not_stand_for_each_other(f: Front) {
        let id = machine(f).await;
        let node = f.node(&id, "ephemeral").await;
        drop(node.get("/metadata/2012-03-01/meta-data/instance-id").await.expect(200));
        for path in ["machines/", "users/?op=whoami", "account/?op=list_authorisation_tokens", "zones/"] {
            drop(node.get(path).await.expect(403));
        }
        drop(node.get(&format!("machines/{id}/")).await.expect(403));
        drop(node.op(&format!("machines/{id}/"), "commission", &[]).await.expect(403));
        let user = f.user("user").await;
        for person in [&user, &f.admin] {
            for path in ["/metadata/2012-03-01/", "/metadata/2012-03-01/meta-data/instance-id", "/metadata/2012-03-01/user-data", "/metadata/latest/meta-data/public-keys"] {
                drop(person.get(path).await.expect(403));
            }
            drop(person.op("/metadata/2012-03-01/", "signal", &[("status", "OK")]).await.expect(403));
        }
        // A machine speaks for itself only.
        let other = machine(f).await;
        let body = r#"{"name": "n", "event_type": "finish", "result": "FAIL", "origin": "cloudinit", "description": "d", "timestamp": 1}"#;
        let report = |to: &str| node.request(Method::POST, &format!("/metadata/status/{to}")).body(body);
        drop(node.send(report(&other)).await.expect(403));
        drop(node.send(report(&id)).await.expect(204));
    }

    async fn a_body_that_is_broken_or_too_large_is_refused(f: Front) {
        let before = f.dump().await;
        let send = |path: &str, kind: &str, body: Vec<u8>| {
            let request = f.admin.request(Method::POST, path).header("Content-Type", kind).body(body);
            f.admin.send(request)
        };
        for (kind, body) in [
            ("application/json", &b"{\"name\": "[..]),
            ("application/json", b"[1, 2]"),
            ("application/json", b"\xff\xfe"),
            ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nx"),
            ("multipart/form-data; boundary=b", b"no part at all"),
            ("multipart/form-data", b"--b--"),
            ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\n\xff\xfe\r\n--b--\r\n"),
            ("application/x-www-form-urlencoded", b"name=\xff\xfe"),
        ] {
            let reply = send("zones/", kind, body.to_vec()).await;
            assert_eq!(reply.status, 400, "{kind} {:?}: {}", String::from_utf8_lossy(body), reply.text());
        }
        let deep = format!("{{\"name\": {}", "[".repeat(200_000));
        drop(send("zones/", "application/json", deep.into_bytes()).await.expect(400));
        let many = "a=1&".repeat(10_001);
        drop(send("zones/", "application/x-www-form-urlencoded", many.into_bytes()).await.expect(400));
        let names: String = (0..10_001).map(|i| format!("a{i}=1&")).collect();
        drop(send("zones/", "application/x-www-form-urlencoded", names.into_bytes()).await.expect(400));
        let large = vec![b'a'; region::operation::MAX_FORM + 1];
        drop(send("zones/", "application/x-www-form-urlencoded", large).await.expect(413));
        let id = machine(f).await;
        let limit = f.operations().iter().find_map(|o| match o.body {
            Body::Raw(n) if o.uri == "status/{system_id}" => Some(n),
            _ => None,
        });
        let node = f.node(&id, "ephemeral").await;
        let request = node.request(Method::POST, &format!("/metadata/status/{id}")).body(vec![b' '; limit.expect("a limit") + 1]);
        drop(node.send(request).await.expect(413));
        drop(f.admin.delete(&format!("machines/{id}/")).await.expect(204));
        // The machine, its token and its events came and went; the rest is as it was.
        let mut after = f.dump().await;
        let mut before = before;
        for table in ["event", "change_feed"] {
            before.remove(table);
            after.remove(table);
        }
        assert_eq!(difference(&before, &after), "");
    }

    /// Each operation of a machine in each status: what the life cycle does not have is 409 and changes
    /// nothing. The list is in `golden/states.txt`.
    async fn an_operation_in_the_wrong_state_is_a_conflict(f: Front) {
        let subnet = f.admin.create("subnets/", &[("cidr", "10.1.0.0/16")]).await.good();
        let subnet = subnet["id"].to_string();
        let mut out = String::from("# What each operation answers in each status of a machine that is complete and belongs to the caller, an\n# administrator (New and Ready: to nobody), and the status it has then. UPDATE_EXPECT=1 writes this anew.\n");
        for (op, fields) in OPS {
            for status in STATUSES {
                let id = complete_machine(f, &subnet).await;
                // What waits to be taken belongs to nobody.
                let owner = (!matches!(status, Status::New | Status::Ready)).then_some("admin");
                f.put_into(&id, status, owner).await;
                let before = f.dump().await;
                let audits = f.audits().await;
                let reply = f.admin.op(&format!("machines/{id}/"), op, fields).await;
                let after = f.dump().await;
                let now = f.admin.get(&format!("machines/{id}/")).await.good();
                let now = now["status_name"].as_str().expect("a name").to_owned();
                if reply.status >= 400 {
                    assert_eq!(difference(&before, &after), "", "{op} while {}: {}", status.name(), reply.text());
                    assert!(!reply.text().is_empty(), "{op} while {}: says nothing", status.name());
                } else {
                    assert_eq!(f.audits().await - audits, 1, "{op} while {}", status.name());
                }
                out.push_str(&format!("{op:34}{:30}{}  {now}\n", status.name(), reply.status));
                assert!(matches!(reply.status, 200 | 409) || reply.status == 403 && owner.is_none(), "{op} while {}: {} {}", status.name(), reply.status, reply.text());
                drop(f.admin.op(&format!("machines/{id}/"), "unlock", &[]).await);
                drop(f.admin.delete(&format!("machines/{id}/")).await.expect(204));
            }
        }
        golden("states.txt", &out);
    }

    /// A locked machine refuses what would change it.
    async fn a_locked_machine_is_left_alone(f: Front) {
        let subnet = f.admin.create("subnets/", &[("cidr", "10.1.0.0/16")]).await.good();
        let id = complete_machine(f, &subnet["id"].to_string()).await;
        f.put_into(&id, Status::Deployed, Some("admin")).await;
        let at = format!("machines/{id}/");
        drop(f.admin.op(&at, "lock", &[]).await.good());
        let before = f.dump().await;
        for op in ["release", "power_off", "power_on", "mark_broken", "commission", "deploy", "set_storage_layout"] {
            drop(f.admin.op(&at, op, &[("storage_layout", "flat")]).await.expect(409));
        }
        drop(f.admin.update(&at, &[("hostname", "other")]).await.expect(409));
        drop(f.admin.delete(&at).await.expect(409));
        drop(f.admin.op("machines/", "release", &[("machines", &id)]).await.expect(409));
        assert_eq!(difference(&before, &f.dump().await), "");
        drop(f.admin.op(&at, "unlock", &[]).await.good());
        drop(f.admin.op(&at, "release", &[]).await.good());
    }

    /// Several machines are released together or not at all.
    async fn a_release_of_several_is_all_or_nothing(f: Front) {
        let (mine, ready, busy) = (machine(f).await, machine(f).await, machine(f).await);
        let user = f.user("user").await;
        f.put_into(&mine, Status::Allocated, Some("user")).await;
        f.put_into(&ready, Status::Ready, None).await;
        f.put_into(&busy, Status::Commissioning, Some("user")).await;
        let before = f.dump().await;
        let both = |other: &str| format!("{mine},{other}");
        drop(user.op("machines/", "release", &[("machines", &both("nobody"))]).await.expect(400));
        drop(user.op("machines/", "release", &[("machines", &both(&busy))]).await.expect(409));
        f.put_into(&busy, Status::Allocated, None).await;
        drop(user.op("machines/", "release", &[("machines", &both(&busy))]).await.expect(403));
        f.put_into(&busy, Status::Commissioning, Some("user")).await;
        assert_eq!(difference(&before, &f.dump().await), "");
        let released = user.op("machines/", "release", &[("machines", &both(&ready))]).await.good();
        assert_eq!(released, serde_json::json!([mine]));
    }

    /// Two who want the same machine at once: one gets it.
    async fn one_machine_is_allocated_once(f: Front) {
        let id = machine(f).await;
        f.put_into(&id, Status::Ready, None).await;
        let users = [f.user("u1").await, f.user("u2").await, f.user("u3").await];
        let asked = users.iter().map(|u| u.op("machines/", "allocate", &[]));
        let mut answers: Vec<u16> = futures::future::join_all(asked).await.iter().map(|r| r.status).collect();
        answers.sort_unstable();
        assert_eq!(answers, [200, 409, 409]);
    }
}
