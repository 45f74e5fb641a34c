//! Domains, names and their records; snippets, repositories, keys, notifications and files.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use steelyard_tests::front::{difference, ssh_key, ssl_key};
use steelyard_tests::{Client, Front, Reply};

/// 400 with something about the field.
#[track_caller]
fn names(reply: Reply, field: &str) -> String {
    let body = reply.expect(400).json();
    let said = body[field][0].as_str().unwrap_or_default().to_owned();
    assert!(!said.is_empty(), "{body} says nothing of {field}");
    said
}

async fn domain(f: &Front, name: &str) -> String {
    f.admin.create("domains/", &[("name", name)]).await.good()["id"].to_string()
}

async fn records(f: &Front, id: &str) -> i64 {
    let d = f.admin.get(&format!("domains/{id}/")).await.good();
    d["resource_record_count"].as_i64().expect("a number")
}

async fn list(c: &Client, path: &str) -> Vec<Value> {
    c.get(path).await.good().as_array().expect("a list").clone()
}

steelyard_tests::front_test! {
    async fn a_domain_has_the_values_it_was_given(f: Front) {
        let a = &f.admin;
        let d = a.create("domains/", &[("name", "Example.ORG."), ("ttl", "60")]).await.expect(200).json();
        let id = d["id"].to_string();
        assert_eq!(d, json!({ "name": "example.org", "ttl": 60, "authoritative": true, "is_default": false, "resource_record_count": 0, "id": d["id"],
            "resource_uri": format!("/MAAS/api/2.0/domains/{id}/") }));
        let at = format!("domains/{id}/");
        assert_eq!(a.get(&at).await.good(), d);
        let changed = a.update(&at, &[("ttl", ""), ("authoritative", "false"), ("forward_dns_servers", "10.0.0.1 [fe80::1]:5353,10.0.0.2:54")]).await.good();
        assert_eq!((&changed["ttl"], &changed["authoritative"]), (&Value::Null, &json!(false)));
        let before = f.dump().await;
        for (fields, field) in [
            (&[("name", "maas")][..], "name"),
            (&[("name", "maas-internal")], "name"),
            (&[("name", "no_name")], "name"),
            (&[("name", "a..b")], "name"),
            (&[("name", "x.org"), ("ttl", "0")], "ttl"),
            (&[("name", "x.org"), ("ttl", "604801")], "ttl"),
            (&[("name", "x.org"), ("forward_dns_servers", "nobody")], "forward_dns_servers"),
            (&[("name", "x.org"), ("forward_dns_servers", "10.0.0.1")], "forward_dns_servers"),
        ] {
            names(a.create("domains/", fields).await, field);
        }
        names(a.update(&at, &[("authoritative", "true")]).await, "forward_dns_servers");
        for serial in ["0", "-1", "4294967296"] {
            drop(a.op("domains/", "set_serial", &[("serial", serial)]).await.expect(400));
        }
        assert_eq!(difference(&before, &f.dump().await), "");
        assert_eq!(a.op("domains/", "set_serial", &[("serial", "42")]).await.expect(200).text(), "OK");
        drop(a.delete(&at).await.expect(204));
        drop(a.get(&at).await.expect(404));
    }

    async fn the_default_domain_stays_and_a_new_one_takes_machines_of_nobody(f: Front) {
        let a = &f.admin;
        let text = a.delete("domains/0/").await.expect(400).text();
        assert_eq!(text, "This domain is the default domain, it cannot be deleted.");
        let (free, taken) = (f.machine(&[("hostname", "free")]).await, f.machine(&[("hostname", "taken")]).await);
        let id = |m: &Value| m["system_id"].as_str().expect("an id").to_owned();
        f.put_into(&id(&taken), metal::status::Status::Allocated, Some("admin")).await;
        let new = domain(f, "new.example").await;
        let d = a.op(&format!("domains/{new}/"), "set_default", &[]).await.expect(200).json();
        assert_eq!(d["is_default"], true);
        assert_eq!(a.get("domains/0/").await.good()["is_default"], false);
        let fqdn = async |m: &Value| a.get(&format!("machines/{}/", id(m))).await.good()["fqdn"].clone();
        assert_eq!(fqdn(&free).await, "free.new.example");
        assert_eq!(fqdn(&taken).await, "taken.maas");
        assert_eq!(f.machine(&[("hostname", "later")]).await["fqdn"], "later.new.example");
        // What has machines in it stays.
        assert!(a.delete("domains/0/").await.expect(409).text().contains("1 machines"));
        // A renamed one renames its machines.
        drop(a.update(&format!("domains/{new}/"), &[("name", "renamed.example")]).await.good());
        assert_eq!(fqdn(&free).await, "free.renamed.example");
    }

    async fn a_name_has_addresses_that_come_and_go_with_it(f: Front) {
        let a = &f.admin;
        let subnet = a.create("subnets/", &[("cidr", "10.7.0.0/24")]).await.good();
        let d = domain(f, "example.org").await;
        let r = a.create("dnsresources/", &[("fqdn", "www.example.org"), ("ip_addresses", "10.7.0.5 fd00::5"), ("address_ttl", "7")]).await.expect(200).json();
        assert_eq!((&r["fqdn"], &r["address_ttl"], &r["resource_records"]), (&json!("www.example.org"), &json!(7), &json!([])));
        let first = &r["ip_addresses"][0];
        assert_eq!((&first["ip"], &first["alloc_type"], &first["alloc_type_name"], &first["subnet"]["id"], &first["owner"]["username"]),
            (&json!("10.7.0.5"), &json!(4), &json!("User reserved"), &subnet["id"], &json!("admin")));
        assert_eq!((&r["ip_addresses"][1]["ip"], &r["ip_addresses"][1]["subnet"]), (&json!("fd00::5"), &Value::Null));
        assert_eq!(records(f, &d).await, 2);
        // Nobody else is given an address that has a name.
        let used = a.ask(&format!("subnets/{}/", subnet["id"]), "ip_addresses", &[]).await.good();
        assert_eq!(used[0]["ip"], "10.7.0.5");
        let at = format!("dnsresources/{}/", r["id"]);
        let r = a.update(&at, &[("ip_addresses", "10.7.0.6"), ("name", "web"), ("address_ttl", "")]).await.good();
        assert_eq!((&r["fqdn"], &r["address_ttl"], r["ip_addresses"].as_array().map(Vec::len)), (&json!("web.example.org"), &Value::Null, Some(1)));
        // A second name for the same address: the address goes with the last of them.
        let other = a.create("dnsresources/", &[("name", "alias"), ("domain", &d), ("ip_addresses", "10.7.0.6")]).await.good();
        drop(a.delete(&at).await.expect(204));
        let used = async || a.ask(&format!("subnets/{}/", subnet["id"]), "ip_addresses", &[]).await.good();
        assert_eq!(used().await.as_array().map(Vec::len), Some(1));
        drop(a.delete(&format!("dnsresources/{}/", other["id"])).await.expect(204));
        assert_eq!(used().await, json!([]));
        assert_eq!(records(f, &d).await, 0);
        drop(a.delete(&format!("domains/{d}/")).await.expect(204));
    }

    async fn names_are_checked_and_unique_in_their_domain(f: Front) {
        let a = &f.admin;
        domain(f, "example.org").await;
        drop(a.create("dnsresources/", &[("fqdn", "www.example.org"), ("ip_addresses", "10.0.0.5")]).await.good());
        let before = f.dump().await;
        for (fields, field) in [
            (&[("ip_addresses", "10.0.0.6")][..], "name"),
            (&[("name", "x"), ("ip_addresses", "10.0.0.6")], "domain"),
            (&[("name", "x"), ("domain", "nowhere"), ("ip_addresses", "10.0.0.6")], "domain"),
            (&[("fqdn", "x.nowhere"), ("ip_addresses", "10.0.0.6")], "fqdn"),
            (&[("fqdn", "www.example.org"), ("ip_addresses", "10.0.0.6")], "name"),
            (&[("name", "a b"), ("domain", "example.org"), ("ip_addresses", "10.0.0.6")], "name"),
            (&[("fqdn", "y.example.org")], "ip_addresses"),
            (&[("fqdn", "y.example.org"), ("ip_addresses", "ten")], "ip_addresses"),
            (&[("fqdn", "y.example.org"), ("ip_addresses", "4711")], "ip_addresses"),
            (&[("fqdn", "y.example.org"), ("ip_addresses", "0.0.0.0")], "ip_addresses"),
            (&[("fqdn", "y.example.org"), ("ip_addresses", "10.0.0.6"), ("address_ttl", "-1")], "address_ttl"),
        ] {
            names(a.create("dnsresources/", fields).await, field);
        }
        drop(a.get("dnsresources/?domain=nowhere").await.expect(404));
        assert_eq!(difference(&before, &f.dump().await), "");
        // The domain itself has a name too.
        let apex = a.create("dnsresources/", &[("fqdn", "example.org"), ("ip_addresses", "10.0.0.7")]).await.good();
        assert_eq!(apex["fqdn"], "example.org");
    }

    async fn lists_of_names_are_narrowed_and_show_machines_when_asked(f: Front) {
        let a = &f.admin;
        domain(f, "example.org").await;
        let subnet = a.create("subnets/", &[("cidr", "10.8.0.0/24")]).await.good()["id"].to_string();
        drop(a.create("dnsresources/", &[("fqdn", "www.example.org"), ("ip_addresses", "10.8.0.5")]).await.good());
        drop(a.create("dnsresourcerecords/", &[("fqdn", "t.maas"), ("rrtype", "txt"), ("rrdata", "hello")]).await.good());
        let m = f.machine(&[("hostname", "host")]).await;
        let id = m["system_id"].as_str().expect("an id");
        let port = format!("nodes/{id}/interfaces/{}/", m["interface_set"][0]["id"]);
        drop(a.op(&port, "link_subnet", &[("mode", "static"), ("subnet", &subnet), ("ip_address", "10.8.0.9"), ("force", "1")]).await.good());
        let fqdns = async |c: &Client, path: &str| list(c, path).await.iter().map(|r| r["fqdn"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>();
        assert_eq!(fqdns(a, "dnsresources/").await, ["www.example.org", "t.maas"]);
        assert_eq!(fqdns(a, "dnsresources/?domain=example.org").await, ["www.example.org"]);
        assert_eq!(fqdns(a, "dnsresources/?fqdn=t.maas").await, ["t.maas"]);
        assert_eq!(fqdns(a, "dnsresources/?name=www").await, ["www.example.org"]);
        assert_eq!(fqdns(a, "dnsresources/?rrtype=TXT").await, ["t.maas"]);
        assert_eq!(fqdns(a, "dnsresources/?rrtype=A").await, ["www.example.org"]);
        assert_eq!(fqdns(a, "dnsresourcerecords/?rrtype=TXT").await, ["t.maas"]);
        assert_eq!(fqdns(a, "dnsresourcerecords/?rrtype=MX").await, Vec::<String>::new());
        let all = list(a, "dnsresources/?all=true&domain=maas").await;
        let host = all.iter().find(|r| r["fqdn"] == "host.maas").expect("the machine's name");
        assert_eq!((&host["id"], &host["ip_addresses"]), (&json!(-1), &Value::Null));
        let record = &host["resource_records"][0];
        assert_eq!((&record["rrtype"], &record["rrdata"], &record["system_id"], &record["ttl"]), (&json!("A"), &json!("10.8.0.9"), &json!(id), &json!(30)));
        // An address of a machine may have further names; the interface stands with it.
        let more = a.create("dnsresources/", &[("fqdn", "more.maas"), ("ip_addresses", "10.8.0.9")]).await.good();
        assert_eq!(more["ip_addresses"][0]["interface_set"][0]["system_id"], id);
        drop(a.delete(&format!("dnsresources/{}/", more["id"])).await.expect(204));
        assert_eq!(a.get(&format!("machines/{id}/")).await.good()["ip_addresses"], json!(["10.8.0.9"]));
        // Who may not see the machine does not see its name.
        let user = f.user("somebody").await;
        f.put_into(id, metal::status::Status::Allocated, Some("admin")).await;
        assert!(!fqdns(&user, "dnsresources/?all=true").await.contains(&"host.maas".to_owned()));
    }

    async fn records_have_the_form_of_their_type_and_an_alias_stands_alone(f: Front) {
        let a = &f.admin;
        let d = domain(f, "example.org").await;
        let add = async |fqdn: &str, rrtype: &str, rrdata: &str| a.create("dnsresourcerecords/", &[("fqdn", fqdn), ("rrtype", rrtype), ("rrdata", rrdata)]).await;
        let txt = add("txt.example.org", "TXT", "hello").await.expect(200).json();
        assert_eq!(txt, json!({ "ttl": null, "rrtype": "TXT", "rrdata": "hello", "fqdn": "txt.example.org", "id": txt["id"],
            "resource_uri": format!("/MAAS/api/2.0/dnsresourcerecords/{}/", txt["id"]) }));
        for (fqdn, rrtype, rrdata) in [("example.org", "MX", "10 mail"), ("sub.example.org", "NS", "ns1.sub.example.org."),
            ("_sip._tcp.example.org", "SRV", "0 5 5060 sip"), ("ssh.example.org", "SSHFP", "1 1 aabb"), ("www.example.org", "CNAME", "web.example.org")] {
            drop(add(fqdn, rrtype, rrdata).await.expect(200));
        }
        assert_eq!(records(f, &d).await, 6);
        let before = f.dump().await;
        for (fqdn, rrtype, rrdata, field) in [
            ("m.example.org", "MX", "mail", "rrdata"),
            ("m.example.org", "A", "10.0.0.1", "rrtype"),
            ("m.example.org", "HINFO", "x", "rrtype"),
            ("m.example.org", "SRV", "0 5 5060 sip", "rrdata"),
            ("m.example.org", "SSHFP", "1 1 xx", "rrdata"),
            ("www.example.org", "CNAME", "other.example.org", "rrtype"),
            ("www.example.org", "TXT", "beside an alias", "rrtype"),
            ("txt.example.org", "CNAME", "other.example.org", "rrtype"),
            ("txt.example.org", "TXT", "hello", "rrdata"),
        ] {
            names(add(fqdn, rrtype, rrdata).await, field);
        }
        names(a.create("dnsresourcerecords/", &[("fqdn", "txt.example.org"), ("rrtype", "TXT"), ("rrdata", "b"), ("ttl", "9")]).await, "ttl");
        names(a.create("dnsresourcerecords/", &[("fqdn", "txt.example.org")]).await, "rrtype");
        let m = f.machine(&[("hostname", "host")]).await;
        names(add("host.maas", "CNAME", "other.example.org").await, "rrtype");
        drop(a.delete(&format!("machines/{}/", m["system_id"].as_str().expect("an id"))).await.good());
        assert_eq!(difference(&before, &f.dump().await).lines().filter(|l| l.contains("dns_")).count(), 0);
        let at = format!("dnsresourcerecords/{}/", txt["id"]);
        assert_eq!(a.update(&at, &[("rrdata", "good bye"), ("ttl", "60")]).await.good()["rrdata"], "good bye");
        // The last record takes the name with it.
        drop(a.delete(&at).await.expect(204));
        assert_eq!(list(a, "dnsresources/?name=txt").await, Vec::<Value>::new());
    }

    async fn a_snippet_keeps_what_it_was_and_goes_back_to_it(f: Front) {
        let a = &f.admin;
        let s = a.create("dhcp-snippets/", &[("name", "s1"), ("value", "option x;")]).await.expect(200).json();
        assert_eq!((&s["value"], &s["enabled"], &s["global_snippet"], &s["node"], &s["subnet"]), (&json!("option x;"), &json!(true), &json!(true), &Value::Null, &Value::Null));
        let at = format!("dhcp-snippets/{}/", s["id"]);
        let first = s["history"][0]["id"].clone();
        for n in 1..4 {
            drop(a.update(&at, &[("value", &format!("option y{n};"))]).await.good());
        }
        let s = a.update(&at, &[("value", "option y3;"), ("enabled", "false"), ("description", "d")]).await.good();
        assert_eq!(s["history"].as_array().map(Vec::len), Some(4), "the same again is nothing new");
        assert_eq!(a.op(&at, "revert", &[("to", "-1")]).await.good()["value"], "option y2;");
        for to in ["0", "4711", "-9"] {
            let reply = a.op(&at, "revert", &[("to", to)]).await;
            assert!(reply.status == 400 || to == "0" && reply.status == 200, "{to}: {}", reply.text());
        }
        let s = a.op(&at, "revert", &[("to", &first.to_string())]).await.good();
        assert_eq!((&s["value"], s["history"].as_array().map(Vec::len)), (&json!("option x;"), Some(1)));
        let created = s["history"][0]["created"].as_str().expect("a time");
        assert!(created.ends_with(" -0000") && created.contains(", "), "{created}");
        drop(a.delete(&at).await.expect(204));
        drop(a.get(&at).await.expect(404));
    }

    async fn a_snippet_is_for_one_thing_and_complete(f: Front) {
        let a = &f.admin;
        let subnet = a.create("subnets/", &[("cidr", "10.9.0.0/24")]).await.good()["id"].to_string();
        let other = a.create("subnets/", &[("cidr", "10.10.0.0/24")]).await.good()["id"].to_string();
        let range = a.create("ipranges/", &[("type", "dynamic"), ("start_ip", "10.9.0.10"), ("end_ip", "10.9.0.20")]).await.good()["id"].to_string();
        let m = f.machine(&[("hostname", "host")]).await;
        let node = m["system_id"].as_str().expect("an id");
        let make = async |name: &str, more: &[(&str, &str)]| {
            let mut fields = vec![("name", name), ("value", "option x;")];
            fields.extend(more);
            a.create("dhcp-snippets/", &fields).await
        };
        let s = make("n", &[("node", node)]).await.good();
        assert_eq!((&s["node"]["system_id"], &s["global_snippet"]), (&json!(node), &json!(false)));
        let s = make("s", &[("subnet", "10.9.0.0/24")]).await.good();
        assert_eq!(s["subnet"]["id"].to_string(), subnet);
        let at = format!("dhcp-snippets/{}/", s["id"]);
        let s = make("r", &[("iprange", &range)]).await.good();
        assert_eq!(s["subnet"]["id"].to_string(), subnet);
        let before = f.dump().await;
        for (more, field) in [
            (&[("node", node), ("subnet", &*subnet)][..], "node"),
            (&[("node", "nobody")], "node"),
            (&[("subnet", "4711")], "subnet"),
            (&[("iprange", "4711")], "iprange"),
            (&[("iprange", &*range), ("subnet", &*other)], "iprange"),
            (&[("global_snippet", "true"), ("subnet", &*subnet)], "subnet"),
        ] {
            names(make("bad", more).await, field);
        }
        names(make("n", &[]).await, "name");
        for value in ["option x", "a {", "}", "filename \"x;", "# nothing"] {
            let said = names(a.create("dhcp-snippets/", &[("name", "bad"), ("value", value)]).await, "value");
            assert!(said.starts_with("Invalid DHCP snippet: "), "{said}");
        }
        assert_eq!(difference(&before, &f.dump().await), "");
        assert_eq!(a.update(&at, &[("global_snippet", "true")]).await.good()["global_snippet"], true);
        // A node takes its snippets with it.
        drop(a.delete(&format!("machines/{node}/")).await.good());
        assert_eq!(list(a, "dhcp-snippets/").await.len(), 2);
    }

    async fn the_archives_of_ubuntu_are_always_there(f: Front) {
        let a = &f.admin;
        let all = list(a, "package-repositories/").await;
        assert_eq!(all[0]["name"], "main_archive");
        assert_eq!((&all[1]["name"], all.len()), (&json!("ports_archive"), 2));
        let at = format!("package-repositories/{}/", all[0]["id"]);
        drop(a.delete(&at).await.expect(400));
        names(a.update(&at, &[("enabled", "false")]).await, "enabled");
        names(a.update(&at, &[("components", "main")]).await, "components");
        names(a.update(&at, &[("name", "mine")]).await, "name");
        names(a.update(&at, &[("disabled_pockets", "proposed")]).await, "disabled_pockets");
        let changed = [("url", "http://mirror.example/ubuntu"), ("disabled_pockets", "security,backports"), ("disabled_components", "universe"), ("disable_sources", "0")];
        let r = a.update(&at, &changed).await.good();
        assert_eq!((&r["url"], &r["disabled_pockets"], &r["disabled_components"], &r["disable_sources"]),
            (&json!("http://mirror.example/ubuntu"), &json!(["security", "backports"]), &json!(["universe"]), &json!(false)));
    }

    async fn a_repository_is_checked_with_its_key(f: Front) {
        let a = &f.admin;
        let key = include_str!("../../crates/wire-simplestreams/testdata/key-rsa.asc");
        let r = a.create("package-repositories/", &[("name", "mine"), ("url", "http://repo.example/x"), ("distributions", "noble"), ("components", "main,extra"), ("key", key)]).await.expect(200).json();
        assert_eq!((&r["distributions"], &r["components"], &r["arches"], &r["key"], &r["enabled"]),
            (&json!(["noble"]), &json!(["main", "extra"]), &json!(["amd64", "i386"]), &json!(key.trim()), &json!(true)));
        drop(a.create("package-repositories/", &[("name", "ppa"), ("url", "ppa:owner/name"), ("arches", "arm64"), ("arches", "amd64")]).await.good());
        let before = f.dump().await;
        for (fields, field) in [
            (&[("name", "mine"), ("url", "http://a.example")][..], "name"),
            (&[("name", "b"), ("url", "ftp://a.example")], "url"),
            (&[("name", "b"), ("url", "ppa:owner")], "url"),
            (&[("name", "b"), ("url", "http://a b")], "url"),
            (&[("name", "b"), ("url", "http://a.example"), ("arches", "z80")], "arches"),
            (&[("name", "b"), ("url", "http://a.example"), ("disabled_components", "universe")], "disabled_components"),
            (&[("name", "b"), ("url", "http://a.example"), ("key", "no key")], "key"),
            (&[("name", "b"), ("url", "http://a.example"), ("key", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxxxx\n-----END PGP PUBLIC KEY BLOCK-----")], "key"),
        ] {
            names(a.create("package-repositories/", fields).await, field);
        }
        assert_eq!(difference(&before, &f.dump().await), "");
        let at = format!("package-repositories/{}/", r["id"]);
        assert_eq!(a.update(&at, &[("key", ""), ("enabled", "0")]).await.good()["key"], "");
        drop(a.delete(&at).await.expect(204));
        drop(a.get(&at).await.expect(404));
    }

    async fn a_certificate_is_its_owners(f: Front) {
        let (a, user) = (&f.admin, f.user("somebody").await);
        let pem = ssl_key();
        let k = user.create("account/prefs/sslkeys/", &[("key", &pem)]).await.expect(201).json();
        assert_eq!(k["key"], pem.trim());
        let at = format!("account/prefs/sslkeys/{}/", k["id"]);
        assert_eq!(user.get(&at).await.good(), k);
        drop(a.get(&at).await.expect(403));
        drop(a.delete(&at).await.expect(403));
        assert_eq!(list(a, "account/prefs/sslkeys/").await, Vec::<Value>::new());
        names(user.create("account/prefs/sslkeys/", &[("key", &pem)]).await, "key");
        let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for bad in ["junk", private, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &format!("{pem}{pem}")] {
            names(user.create("account/prefs/sslkeys/", &[("key", bad)]).await, "key");
        }
        drop(user.delete(&at).await.expect(204));
        drop(user.get(&at).await.expect(404));
    }

    async fn a_licence_key_is_kept_sealed(f: Front) {
        let a = &f.admin;
        let key = "AAAAA-BBBBB-CCCCC-DDDDD-12345";
        let fields = [("osystem", "windows"), ("distro_series", "win2019"), ("license_key", key)];
        let k = a.create("license-keys/", &fields).await.expect(200).json();
        assert_eq!((&k["osystem"], &k["distro_series"], &k["license_key"]), (&json!("windows"), &json!("win2019"), &json!(key)));
        assert_eq!(a.get("license-key/windows/win2019").await.good(), k);
        assert!(!format!("{:?}", f.dump().await).contains(key));
        names(a.create("license-keys/", &fields).await, "distro_series");
        names(a.create("license-keys/", &[("osystem", "ubuntu"), ("distro_series", "noble"), ("license_key", key)]).await, "osystem");
        names(a.create("license-keys/", &[("osystem", "windows"), ("distro_series", "a b"), ("license_key", key)]).await, "distro_series");
        names(a.update("license-key/windows/win2019", &[("license_key", "x")]).await, "license_key");
        let new = "ZZZZZ-BBBBB-CCCCC-DDDDD-12345";
        assert_eq!(a.update("license-key/windows/win2019", &[("license_key", new)]).await.good()["license_key"], new);
        assert_eq!(list(a, "license-keys/").await.len(), 1);
        drop(a.delete("license-key/windows/win2019").await.expect(204));
        drop(a.get("license-key/windows/win2019").await.expect(404));
    }

    async fn a_notification_reaches_whom_it_is_for_until_it_is_put_away(f: Front) {
        let (a, user, other) = (&f.admin, f.user("somebody").await, f.user("other").await);
        let add = async |more: &[(&str, &str)]| {
            let mut fields = vec![("message", "hello {who}"), ("context", r#"{"who": "you"}"#)];
            fields.extend(more);
            a.create("notifications/", &fields).await.expect(200).json()
        };
        let for_users = add(&[("users", "true"), ("ident", "one")]).await;
        assert_eq!((&for_users["context"], &for_users["category"], &for_users["dismissable"], &for_users["user"]), (&json!({ "who": "you" }), &json!("info"), &json!(true), &Value::Null));
        let for_admins = add(&[("admins", "true"), ("category", "error"), ("dismissable", "false")]).await;
        let for_one = add(&[("user", "somebody")]).await;
        assert_eq!(for_one["user"]["username"], "somebody");
        let ids = async |c: &Client| list(c, "notifications/").await.iter().map(|n| n["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(a).await, [for_users["id"].clone(), for_admins["id"].clone()]);
        assert_eq!(ids(&user).await, [for_users["id"].clone(), for_one["id"].clone()]);
        assert_eq!(ids(&other).await, [for_users["id"].clone()]);
        let at = |n: &Value| format!("notifications/{}/", n["id"]);
        drop(other.get(&at(&for_one)).await.expect(403));
        drop(other.op(&at(&for_one), "dismiss", &[]).await.expect(403));
        drop(a.get(&at(&for_one)).await.expect(200));
        drop(a.op(&at(&for_admins), "dismiss", &[]).await.expect(400));
        drop(user.op(&at(&for_users), "dismiss", &[]).await.expect(200));
        drop(user.op(&at(&for_users), "dismiss", &[]).await.expect(200));
        assert_eq!(ids(&user).await, [for_one["id"].clone()]);
        assert_eq!(ids(&other).await, [for_users["id"].clone()]);
        for (fields, field) in [
            (&[("message", "{nobody}")][..], "message"),
            (&[("message", "{")], "message"),
            (&[("message", "m"), ("context", "[]")], "context"),
            (&[("message", "m"), ("context", "{")], "context"),
            (&[("message", "m"), ("category", "loud")], "category"),
            (&[("message", "m"), ("ident", "one")], "ident"),
            (&[("message", "m"), ("user", "nobody")], "user"),
        ] {
            names(a.create("notifications/", fields).await, field);
        }
        let changed = a.update(&at(&for_one), &[("user", ""), ("admins", "1"), ("message", "plain")]).await.good();
        assert_eq!((&changed["user"], &changed["admins"], &changed["message"]), (&Value::Null, &json!(true), &json!("plain")));
        drop(a.delete(&at(&for_users)).await.expect(204));
        drop(a.get(&at(&for_users)).await.expect(404));
    }

    async fn a_file_is_its_owners_and_whoever_knows_its_key(f: Front) {
        let (a, user) = (&f.admin, f.user("somebody").await);
        let kept = user.create("files/", &[("filename", "a/b c.txt"), ("file", "content\n")]).await.expect(201).json();
        let listed = list(&user, "files/?prefix=a/").await;
        assert_eq!(listed, std::slice::from_ref(&kept));
        assert_eq!(list(&user, "files/?prefix=b").await, Vec::<Value>::new());
        let path = kept["resource_uri"].as_str().and_then(|u| u.strip_prefix("/MAAS/api/2.0/")).expect("a path");
        let one = user.get(path).await.good();
        assert_eq!((&one["filename"], &one["content"]), (&json!("a/b c.txt"), &json!("Y29udGVudAo=")));
        let got = user.ask("files/", "get", &[("filename", "a/b c.txt")]).await.expect(200);
        assert_eq!((got.text(), got.header("content-type")), ("content\n".to_owned(), "application/octet-stream"));
        let anon = kept["anon_resource_uri"].as_str().and_then(|u| u.strip_prefix("/MAAS/api/2.0/")).expect("a path");
        for client in [&f.nobody(), a, &user] {
            assert_eq!(client.get(anon).await.expect(200).text(), "content\n");
        }
        drop(f.nobody().ask("files/", "get_by_key", &[("key", "4711")]).await.expect(404));
        // The administrator has files of the own.
        drop(a.get(path).await.expect(404));
        drop(a.ask("files/", "get", &[("filename", "a/b c.txt")]).await.expect(404));
        drop(a.delete("files/?filename=a%2Fb%20c.txt").await.expect(404));
        // Again: the content is replaced, the key stays.
        let again = user.create("files/", &[("filename", "a/b c.txt"), ("file", "new")]).await.expect(201).json();
        assert_eq!(again, kept);
        assert_eq!(f.nobody().get(anon).await.expect(200).text(), "new");
        assert_eq!(user.create("files/", &[("filename", "x")]).await.expect(400).text(), "File not supplied");
        let long = "x".repeat(256);
        drop(user.create("files/", &[("filename", &long), ("file", "x")]).await.expect(400));
        let large = "x".repeat(region::file::FILE_MAX + 1);
        drop(user.create("files/", &[("filename", "large"), ("file", &large)]).await.expect(413));
        drop(user.delete(path).await.expect(204));
        drop(f.nobody().get(anon).await.expect(404));
        drop(user.create("account/prefs/sshkeys/", &[("key", &ssh_key())]).await.expect(201));
    }

    async fn an_image_comes_in_pieces_and_is_checked(f: Front) {
        let a = &f.admin;
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (hash, size) = (hex::encode(Sha256::digest(&content)), content.len().to_string());
        let begin = async |name: &str, more: &[(&str, &str)]| {
            let mut fields = vec![("name", name), ("architecture", "amd64/generic"), ("sha256", hash.as_str()), ("size", size.as_str()), ("filetype", "ddgz")];
            fields.retain(|(k, _)| more.iter().all(|(m, _)| m != k));
            fields.extend(more);
            a.create("boot-resources/", &fields).await
        };
        let image = begin("mine", &[("title", "Mine")]).await.expect(201).json();
        assert_eq!((&image["type"], &image["name"], &image["base_image"], &image["title"]), (&json!("Uploaded"), &json!("mine"), &json!("ubuntu/noble"), &json!("Mine")));
        let newest = |image: &Value| image["sets"].as_object().and_then(|s| s.values().next()).cloned().expect("a set");
        let file = |image: &Value| newest(image)["files"].as_object().filter(|f| f.len() == 1).and_then(|f| f.values().next()).cloned().expect("one file");
        let uri = |image: &Value| file(image)["upload_uri"].as_str().and_then(|u| u.strip_prefix("/MAAS/api/2.0/")).expect("where pieces go").to_owned();
        assert_eq!((&file(&image)["complete"], &file(&image)["filetype"]), (&json!(false), &json!("root-dd.gz")));
        let at = format!("boot-resources/{}/", image["id"]);
        let put = async |uri: &str, piece: &[u8]| a.send(a.request(Method::PUT, uri).header("Content-Type", "application/octet-stream").body(piece.to_vec())).await;
        // Nothing, and too much, are refused and do not count.
        drop(put(&uri(&image), b"").await.expect(400));
        let mut more = content.clone();
        more.push(0);
        drop(put(&uri(&image), &more).await.expect(400));
        drop(put(&uri(&image), &content[..150_000]).await.expect(200));
        let half = file(&a.get(&at).await.good());
        assert_eq!(half["progress"], 37.5);
        // Begun again: what came before is forgotten, and so is where it went.
        let again = begin("custom/mine", &[]).await.expect(201).json();
        assert_eq!(again["id"], image["id"]);
        drop(put(&uri(&image), &content[..10]).await.expect(404));
        for piece in content.chunks(150_000) {
            drop(put(&uri(&again), piece).await.expect(200));
        }
        let whole = a.get(&at).await.good();
        assert_eq!((&newest(&whole)["complete"], &file(&whole)["complete"], &newest(&whole)["label"]), (&json!(true), &json!(true), &json!("uploaded")));
        assert_eq!(f.nobody().get(&format!("/boot-resources/{hash}/")).await.expect(200).body, content);
        drop(put(&uri(&again), &content[..10]).await.expect(404));
        // The same content again needs no upload; without keep_old the earlier version goes.
        let same = begin("mine", &[]).await.expect(201).json();
        assert_eq!((file(&same)["complete"].clone(), same["sets"].as_object().map(serde_json::Map::len)), (json!(true), Some(1)));
        let kept = begin("mine", &[("keep_old", "true")]).await.expect(201).json();
        assert_eq!(kept["sets"].as_object().map(serde_json::Map::len), Some(2));
        assert!(list(a, "boot-resources/?type=uploaded").await.iter().any(|r| r["id"] == image["id"]));
        drop(a.delete(&at).await.expect(204));
    }

    async fn an_image_that_is_not_what_was_said_comes_again(f: Front) {
        let a = &f.admin;
        let (content, hash) = (b"what is meant".to_vec(), hex::encode(Sha256::digest(b"what is meant")));
        let fields = [("name", "mine"), ("architecture", "amd64/generic"), ("sha256", hash.as_str()), ("size", "13")];
        let image = a.create("boot-resources/", &fields).await.expect(201).json();
        let text = image["sets"].to_string();
        let uri = text.split('"').find_map(|w| w.strip_prefix("/MAAS/api/2.0/")).expect("where pieces go");
        let put = async |piece: &[u8]| a.send(a.request(Method::PUT, uri).body(piece.to_vec())).await;
        assert!(put(b"what is wrong").await.expect(400).text().contains("SHA-256"));
        drop(put(&content).await.expect(200));
        assert_eq!(f.nobody().get(&format!("/boot-resources/{hash}/")).await.expect(200).body, content);
        // Small ones come along with their request.
        let fields = [("name", "small"), ("architecture", "amd64/generic"), ("content", "content")];
        let small = a.create("boot-resources/", &fields).await.expect(201).json();
        assert!(small["sets"].to_string().contains("\"complete\":true"), "{small}");
        let before = f.dump().await;
        let refuse = async |change: &[(&str, &str)], field: &str| {
            let mut fields = vec![("name", "other"), ("architecture", "amd64/generic"), ("sha256", hash.as_str()), ("size", "13")];
            fields.retain(|(k, _)| change.iter().all(|(m, _)| m != k));
            fields.extend(change.iter().filter(|(_, v)| !v.is_empty()));
            names(a.create("boot-resources/", &fields).await, field);
        };
        refuse(&[("name", "ubuntu/noble")], "name").await;
        refuse(&[("name", "ubuntu")], "name").await;
        refuse(&[("name", "solaris/11")], "name").await;
        refuse(&[("architecture", "z80/generic")], "architecture").await;
        refuse(&[("sha256", "xyz")], "sha256").await;
        refuse(&[("sha256", "")], "sha256").await;
        refuse(&[("size", "0")], "size").await;
        refuse(&[("size", "14")], "size").await;
        refuse(&[("filetype", "zip")], "filetype").await;
        refuse(&[("base_image", "ubuntu/nothing")], "base_image").await;
        refuse(&[("content", "other")], "sha256").await;
        assert_eq!(difference(&before, &f.dump().await), "");
        // A synced image takes no pieces.
        let synced = list(a, "boot-resources/?type=synced").await[0]["id"].to_string();
        drop(a.send(a.request(Method::PUT, &format!("boot-resources/{synced}/upload/1/")).body("x")).await.expect(403));
        let user = f.user("somebody").await;
        drop(user.send(user.request(Method::PUT, uri).body("x")).await.expect(403));
    }

    async fn a_setting_is_checked_and_a_secret_one_is_sealed(f: Front) {
        let (a, user) = (&f.admin, f.user("somebody").await);
        let set = async |name: &str, value: &str| a.op("maas/", "set_config", &[("name", name), ("value", value)]).await;
        let get = async |c: &Client, name: &str| c.ask("maas/", "get_config", &[("name", name)]).await;
        for (name, value) in [("upstream_dns", "10.0.0.1 10.0.0.2"), ("dns_trusted_acl", "10.0.0.0/8"), ("http_proxy", "http://proxy.example:3128/"),
            ("remote_syslog", "log.example:514"), ("ntp_servers", "ntp.example, 10.0.0.1"), ("hardware_sync_interval", "1h"), ("maas_auto_ipmi_workaround_flags", "authcap"),
            ("maas_internal_domain", "inner.example"), ("vcenter_password", "a secret of tests"), ("maas_auto_ipmi_k_g_bmc_key", "abcdefghij0123456789")] {
            assert_eq!(set(name, value).await.expect(200).text(), "OK");
            assert_eq!(get(a, name).await.expect(200).json(), value, "{name}");
        }
        assert_eq!(set("active_discovery_interval", "0").await.expect(200).text(), "OK");
        assert_eq!(get(&user, "active_discovery_interval").await.expect(200).text(), "0");
        let before = f.dump().await;
        for (name, value) in [("upstream_dns", "nobody"), ("dns_trusted_acl", "10.0.0.0/33"), ("http_proxy", "proxy"), ("remote_syslog", "a b"), ("ntp_servers", "no_host"),
            ("hardware_sync_interval", "soon"), ("maas_auto_ipmi_workaround_flags", "magic"), ("active_discovery_interval", "7"), ("maas_internal_domain", "maas"),
            ("maas_auto_ipmi_k_g_bmc_key", "short"), ("maas_name", "two\nlines"), ("session_length", "5")] {
            names(set(name, value).await, name);
        }
        assert_eq!(difference(&before, &f.dump().await), "");
        assert!(!format!("{before:?}").contains("a secret of tests"));
        drop(get(&user, "vcenter_password").await.expect(403));
        drop(set("vcenter_password", "").await.expect(200));
        assert_eq!(get(a, "vcenter_password").await.expect(200).text(), "\"\"");
        drop(set("upstream_dns", "").await.expect(200));
        assert_eq!(get(a, "upstream_dns").await.expect(200).text(), "null");
    }

    async fn events_are_paged_and_narrowed(f: Front) {
        let a = &f.admin;
        domain(f, "example.org").await;
        let m = f.machine(&[("hostname", "one")]).await;
        let other = f.machine(&[("hostname", "two"), ("domain", "example.org")]).await;
        for _ in 0..6 {
            for m in [&m, &other] {
                let (id, hostname) = (m["system_id"].as_str().expect("an id").to_owned(), m["hostname"].as_str().expect("a name").to_owned());
                f.write(move |tx| {
                    let (id, hostname) = (id.clone(), hostname.clone());
                    Box::pin(async move {
                        store::exec!(tx, "INSERT INTO event (type, level, type_description, node_id, node_system_id, node_hostname, description, created) \
                            SELECT 'T', 40, 'A test', id, system_id, $2, 'd', 0 FROM node WHERE system_id = $1", id, hostname)?;
                        Ok(())
                    })
                }).await;
            }
        }
        let ids = |v: &Value| v["events"].as_array().expect("a list").iter().map(|e| e["id"].as_i64().expect("an id")).collect::<Vec<_>>();
        let follow = async |v: &Value, way: &str| a.get(v[way].as_str().and_then(|u| u.strip_prefix("/MAAS/api/2.0/")).expect("a path")).await.good();
        let first = a.ask("events/", "query", &[("limit", "4"), ("level", "ERROR")]).await.good();
        assert_eq!((ids(&first).len(), &first["count"]), (4, &json!(4)));
        assert!(ids(&first).windows(2).all(|w| w[0] > w[1]), "the newest first");
        let older = follow(&first, "prev_uri").await;
        assert!(ids(&older).iter().all(|id| *id < ids(&first)[3]) && ids(&older).len() == 4);
        assert_eq!(ids(&follow(&older, "next_uri").await), ids(&first));
        assert_eq!(ids(&follow(&first, "next_uri").await), Vec::<i64>::new());
        let mac = m["interface_set"][0]["mac_address"].as_str().expect("an address").to_uppercase();
        let id = m["system_id"].as_str().expect("an id");
        for (name, value) in [("hostname", "one"), ("mac_address", mac.as_str()), ("id", id), ("domain", "maas")] {
            let found = a.ask("events/", "query", &[("level", "ERROR"), (name, value)]).await.good();
            assert_eq!(found["count"], 6, "{name}");
            assert!(found["events"].as_array().expect("a list").iter().all(|e| e["node"] == id), "{name}");
        }
        assert_eq!(a.ask("events/", "query", &[("level", "ERROR"), ("zone", "default")]).await.good()["count"], 12);
        assert_eq!(a.ask("events/", "query", &[("level", "CRITICAL")]).await.good()["count"], 0);
        names(a.ask("events/", "query", &[("mac_address", "nobody")]).await, "mac_address");
    }

    async fn a_user_who_owns_something_stays_until_there_is_an_heir(f: Front) {
        let a = &f.admin;
        let user = f.user("somebody").await;
        drop(f.user("heir").await);
        drop(a.create("subnets/", &[("cidr", "10.11.0.0/24")]).await.good());
        let range = [("type", "reserved"), ("start_ip", "10.11.0.10"), ("end_ip", "10.11.0.20")];
        let range = user.create("ipranges/", &range).await.good()["id"].to_string();
        assert!(a.delete("users/somebody/").await.expect(400).text().contains("1 IP ranges"));
        names(a.delete("users/somebody/?transfer_resources_to=nobody").await, "transfer_resources_to");
        drop(a.delete("users/somebody/?transfer_resources_to=heir").await.expect(204));
        assert_eq!(a.get(&format!("ipranges/{range}/")).await.good()["user"]["username"], "heir");
        drop(user.get("users/?op=whoami").await.expect(401));
    }

    async fn keys_of_other_services_are_named_properly_and_not_fetched_yet(f: Front) {
        let (a, user) = (&f.admin, f.user("somebody").await);
        let before = f.dump().await;
        for bad in ["gl:me", "lp:", "gh:a/b"] {
            names(user.op("account/prefs/sshkeys/", "import", &[("keysource", bad)]).await, "keysource");
        }
        assert_eq!(user.op("account/prefs/sshkeys/", "import", &[]).await.expect(400).text(), "No provided keysource!");
        assert!(user.op("account/prefs/sshkeys/", "import", &[("keysource", "gh:me")]).await.expect(503).text().contains("GitHub"));
        drop(user.create("account/prefs/sshkeys/", &[("key", &ssh_key()), ("user", "admin")]).await.expect(403));
        assert_eq!(difference(&before, &f.dump().await), "");
        drop(a.create("account/prefs/sshkeys/", &[("key", &ssh_key()), ("user", "somebody")]).await.expect(201));
        assert_eq!(list(&user, "account/prefs/sshkeys/").await.len(), 1);
        names(a.create("account/prefs/sshkeys/", &[("key", &ssh_key()), ("user", "nobody")]).await, "user");
        for (path, text) in [("zones/default/", "This zone is the default zone, it cannot be deleted."), ("resourcepool/0/", "This is the default resource pool, it cannot be deleted.")] {
            assert_eq!(a.delete(path).await.expect(400).text(), text);
        }
    }
}
