//! How requests are written and answers dressed, as generated clients rely on it: the describe document, `op`
//! in query, body or path, bodies in every form, slashes at the end.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;
use steelyard_tests::Reply;

/// The command that a client makes of a handler's name.
fn command(handler: &str) -> String {
    let mut out = String::new();
    let mut small = false;
    for c in handler.trim_end_matches("Handler").chars() {
        if c.is_uppercase() && small {
            out.push('-');
        }
        small = !c.is_uppercase();
        out.extend(c.to_lowercase());
    }
    out
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|v| v.as_str().expect("text")).collect()
}

steelyard_tests::front_test! {
    async fn the_describe_document_is_what_clients_build_themselves_from(f: Front) {
        let reply = f.nobody().get("describe/").await.expect(200);
        // Compared to the letter by the official client.
        assert_eq!(reply.header("content-type"), "application/json");
        let document = reply.json();
        let keys: Vec<&String> = document.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["doc", "handlers", "hash", "resources"], "sorted, and nothing else");
        let hash = document["hash"].as_str().expect("a hash");
        assert!(hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
        for path in ["version/", "users/?op=whoami", "no/such/thing/"] {
            assert_eq!(f.admin.get(path).await.header("x-maas-api-hash"), hash, "{path}");
        }

        let server = f.url.trim_end_matches("/MAAS");
        let resources = document["resources"].as_array().expect("a list");
        let names: Vec<&str> = resources.iter().map(|r| r["name"].as_str().expect("a name")).collect();
        assert!(names.is_sorted(), "{names:?}");
        let (mut anon, mut auth, mut commands) = (Vec::new(), Vec::new(), BTreeSet::new());
        for resource in resources {
            assert!(commands.insert(command(resource["name"].as_str().expect("a name"))), "{resource}");
            for (kind, flat) in [("anon", &mut anon), ("auth", &mut auth)] {
                let handler = &resource[kind];
                if handler.is_null() {
                    continue;
                }
                let path = handler["path"].as_str().expect("a path");
                assert!(path.starts_with("/MAAS/api/2.0/"), "{path}");
                assert_eq!(handler["uri"], format!("{server}{path}"));
                let in_path: Vec<&str> = path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect();
                assert_eq!(strings(&handler["params"]), in_path, "{path}");
                let actions = handler["actions"].as_array().expect("a list");
                let names: Vec<&str> = actions.iter().map(|a| a["name"].as_str().expect("a name")).collect();
                assert!(names.is_sorted() && !names.is_empty(), "{path}: {names:?}");
                for a in actions {
                    let (name, method) = (a["name"].as_str().expect("a name"), a["method"].as_str().expect("a method"));
                    match a["op"].as_str() {
                        Some(op) => {
                            assert_eq!((op, a["restful"].as_bool()), (name, Some(false)), "{path}");
                            assert!(["GET", "POST"].contains(&method), "operations are never {method}: {path} {op}");
                        }
                        None => {
                            assert_eq!(a["restful"], true);
                            let plain = [("read", "GET"), ("create", "POST"), ("update", "PUT"), ("delete", "DELETE")];
                            assert!(plain.contains(&(name, method)), "{path} {name} {method}");
                        }
                    }
                    // A parameter in the first paragraph would be one that the client does not accept.
                    let doc = a["doc"].as_str().expect("help");
                    let first = doc.split("\n\n").next().unwrap_or_default();
                    assert!(!first.is_empty() && !first.contains(":param"), "{path} {name}: {doc}");
                }
                let mut bare = handler.clone();
                bare.as_object_mut().expect("an object").remove("uri");
                flat.push(bare);
            }
        }
        anon.extend(auth);
        assert_eq!(document["handlers"], Value::Array(anon));
        // Who comes through a proxy is told the proxy's address.
        let nobody = f.nobody();
        let request = nobody.request(Method::GET, "describe/");
        let request = request.header("X-Forwarded-Host", "maas.example").header("X-Forwarded-Proto", "https");
        let document = nobody.send(request).await.json();
        let uri = document["resources"][0]["auth"]["uri"].as_str().expect("a uri").to_owned();
        assert!(uri.starts_with("https://maas.example/MAAS/api/2.0/"), "{uri}");
        assert_eq!(document["hash"], hash);
    }

    async fn an_operation_is_named_in_the_query_the_body_or_the_path(f: Front) {
        let form = "application/x-www-form-urlencoded";
        let boundary = "multipart/form-data; boundary=\"===============12==\"";
        let parts = "--===============12==\r\nContent-Disposition: form-data; name=\"op\"\r\n\r\ncreate_authorisation_token\r\n--===============12==--\r\n";
        let post = async |path: &str, kind: &str, body: &str| -> Reply {
            let request = f.admin.request(Method::POST, path).header("Content-Type", kind);
            f.admin.send(request.body(body.to_owned())).await
        };
        for (path, kind, body) in [
            ("account/?op=create_authorisation_token", form, ""),
            ("account/", form, "op=create_authorisation_token"),
            ("account/", boundary, parts),
            ("account/", "application/json", r#"{"op": "create_authorisation_token"}"#),
            ("account/op-create_authorisation_token", form, ""),
            // The query comes first.
            ("account/?op=create_authorisation_token", form, "op=nonsense"),
        ] {
            let made = post(path, kind, body).await.good();
            assert_eq!(made["token_secret"].as_str().map(str::len), Some(32), "{path} {body}");
        }
        assert_eq!(f.admin.get("users/op-whoami").await.good()["username"], "admin");
        let unknown = post("account/?op=nonsense", form, "").await.expect(400);
        assert_eq!(unknown.text(), "Unrecognised signature: method=POST op=nonsense");
        assert!(unknown.header("content-type").starts_with("text/plain"));
        let method = f.admin.call(Method::PUT, "account/", None, &[]).await.expect(405);
        assert_eq!((method.text().as_str(), method.header("allow")), ("", "GET, POST"));
    }

    async fn a_form_may_come_in_every_dress(f: Front) {
        // As the official client builds it: every part in base64, its headers in this order.
        let mime = |parts: &[(&str, &str, bool)]| {
            let mut body = String::new();
            for (name, base64, is_file) in parts {
                let (kind, more) = if *is_file {
                    ("application/octet-stream", format!("; filename=\"{name}\""))
                } else {
                    ("text/plain; charset=\"utf-8\"", String::new())
                };
                body.push_str(&format!(
                    "--===============7==\r\nContent-Type: {kind}\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{base64}\r\n"
                ));
            }
            body + "--===============7==--\r\n"
        };
        let multipart = "multipart/form-data; boundary=\"===============7==\"";
        let send = async |method: Method, path: &str, kind: &str, body: String| -> Value {
            let request = f.admin.request(method, path).header("Content-Type", kind);
            f.admin.send(request.body(body)).await.good()
        };
        // "zone-1" and "Größe", folded as a mail library folds.
        let made = send(Method::POST, "zones/", multipart, mime(&[("name", "em9uZS0x\r\n", false), ("description", "R3LDtsOf\r\nZQ==\r\n", false)])).await;
        assert_eq!((&made["name"], &made["description"]), (&"zone-1".into(), &"Größe".into()));
        let made = send(Method::POST, "zones/", multipart, mime(&[("name", "em9uZS0y", true)])).await;
        assert_eq!(made["name"], "zone-2", "a file part is as good as a field");
        let changed = send(Method::PUT, "zones/zone-1/", multipart, mime(&[("description", "bmV3", false)])).await;
        assert_eq!(changed["description"], "new");
        let changed = send(Method::PUT, "zones/zone-1/", "application/x-www-form-urlencoded; charset=utf-8", "description=a+b%26c".to_owned()).await;
        assert_eq!(changed["description"], "a b&c");
        let changed = send(Method::PUT, "zones/zone-1/", "application/json", r#"{"description": "from JSON"}"#.to_owned()).await;
        assert_eq!(changed["description"], "from JSON");
    }

    async fn a_slash_at_the_end_counts(f: Front) {
        for (path, status) in [
            ("machines/", 200),
            ("machines", 404),
            ("zones/default/", 200),
            ("zones/default", 404),
            ("version/", 200),
            ("version", 404),
            ("describe", 404),
        ] {
            let reply = f.admin.get(path).await.expect(status);
            if status == 404 {
                assert!(reply.text().starts_with("Unknown API endpoint: /MAAS/api/2.0/"), "{}", reply.text());
            }
        }
        // Each path that is described answers as it is written, and with its slash the other way it does not,
        // except where both are known.
        let document = f.nobody().get("describe/").await.good();
        for resource in document["resources"].as_array().expect("a list") {
            let path = resource["auth"]["path"].as_str().expect("a path");
            let mut filled = String::new();
            for (i, s) in path.trim_start_matches("/MAAS/api/2.0/").split('/').enumerate() {
                filled.push_str(if i > 0 { "/" } else { "" });
                filled.push_str(if s.starts_with('{') { "1" } else { s });
            }
            let reply = f.admin.call(Method::GET, &filled, Some("no_such_op"), &[]).await;
            assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        }
    }

    async fn an_answer_is_packed_for_who_asks_and_echoes_the_trace(f: Front) {
        let get = async |path: &str, accept: &str| -> Reply {
            let request = f.admin.request(Method::GET, path).header("Accept-Encoding", accept);
            f.admin.send(request.header("MAAS-trace-id", "abc-123")).await.expect(200)
        };
        let plain = get("describe/", "identity").await;
        let packed = get("describe/", "br, gzip;q=0.5").await;
        assert_eq!(plain.header("content-encoding"), "");
        assert_eq!(packed.header("content-encoding"), "gzip");
        assert_eq!(packed.header("content-type"), "application/json");
        assert!(packed.header("vary").contains("Authorization"), "{}", packed.header("vary"));
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut unpacked).expect("gzip");
        assert!(unpacked == plain.body && packed.body.len() * 4 < plain.body.len());
        assert_eq!(get("describe/", "gzip;q=0").await.header("content-encoding"), "");
        assert_eq!(get("version/", "gzip").await.header("content-encoding"), "", "small ones are not worth it");
        assert_eq!(plain.header("maas-trace-id"), "abc-123");
    }
}
