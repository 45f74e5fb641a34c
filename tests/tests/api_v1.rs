//! Our own face of the API, through its own client.

use std::collections::{BTreeMap, BTreeSet};

use api::noun::{Machine, Subnet, Tag, Zone};
use api::{Bulk, OperationState};
use client::{Client, Error, Event};
use metal::status::Status;
use serde_json::{Value, json};
use steelyard_tests::Front;

async fn of(f: &Front, name: &str) -> Client {
    let key = region::user::api_key(&f.region, name, steelyard_tests::front::now())
        .await
        .expect("a key");
    Client::new(&f.url, &key.joined()).expect("a client")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, status: u16) -> api::Problem {
    match result {
        Err(Error::Refused(p)) => {
            assert_eq!(p.status, status, "{p:?}");
            *p
        }
        other => panic!("not refused with {status}: {other:?}"),
    }
}

steelyard_tests::front_test! {
    /// Every object once, whatever the size of the pages, also when some are deleted meanwhile.
    async fn pages_show_every_object_once(f: Front) {
        let admin = of(f, "admin").await;
        for i in 0..25 {
            let name = format!("zone{i:02}");
            drop(admin.create::<Zone>(&json!({ "name": name })).await.expect("a zone"));
            drop(f.machine(&[("hostname", &format!("m{i:02}"))]).await);
        }
        for limit in ["1", "7", "100"] {
            let zones = admin.list::<Zone>(&[("limit", limit)]).all().await.expect("zones");
            let names: BTreeSet<&str> = zones.iter().map(|z| z.name.as_str()).collect();
            assert_eq!((zones.len(), names.len()), (26, 26), "the default one as well, {limit} a page");
            let machines = admin.list::<Machine>(&[("limit", limit)]).all().await.expect("machines");
            let ids: BTreeSet<&str> = machines.iter().map(|m| m.system_id.as_str()).collect();
            assert_eq!((machines.len(), ids.len()), (25, 25));
        }
        let mut pages = admin.list::<Zone>(&[("limit", "10")]);
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(pages.next().await.expect("a page").expect("a zone").name);
        }
        admin.delete::<Zone>(seen.last().expect("ten")).await.expect("deleted");
        while let Some(zone) = pages.next().await.expect("a page") {
            seen.push(zone.name);
        }
        let unique: BTreeSet<&String> = seen.iter().collect();
        assert_eq!((seen.len(), unique.len()), (26, 26), "a cursor outlives the object it stands on");
    }
}

steelyard_tests::front_test! {
    /// Filters, fields and counts; what is misspelled is told, not passed over.
    async fn lists_are_filtered_counted_and_sparse(f: Front) {
        let admin = of(f, "admin").await;
        drop(admin.create::<Zone>(&json!({ "name": "east" })).await.expect("a zone"));
        let a = f.machine(&[("hostname", "a"), ("zone", "east")]).await;
        let id = a["system_id"].as_str().expect("an id").to_owned();
        drop(f.machine(&[("hostname", "b")]).await);
        drop(admin.create::<Tag>(&json!({ "name": "t1" })).await.expect("a tag"));
        drop(f.admin.op("tags/t1/", "update_nodes", &[("add", &id)]).await.good());
        let mac = a["interface_set"][0]["mac_address"].as_str().expect("an address").to_uppercase();
        for filter in [("hostname", "a"), ("zone", "east"), ("tags", "t1"), ("id", &*id), ("mac_address", &*mac), ("filter", "zone.name:east")] {
            let found = admin.list::<Machine>(&[filter, ("status", "new")]).all().await.expect("machines");
            assert_eq!(found.iter().map(|m| &*m.hostname).collect::<Vec<_>>(), ["a"], "{filter:?}");
        }
        let none = admin.list::<Machine>(&[("tags", "t1,t2")]).all().await.expect("machines");
        assert!(none.is_empty(), "all tags must be there");
        for wrong in [("status", "sleeping"), ("hostnane", "a"), ("limit", "0"), ("limit", "1001"), ("cursor", "zzz"), ("mac_address", "x"), ("filter", "nothing")] {
            let problem = refused(admin.list::<Machine>(&[wrong]).all().await, 400);
            assert!(problem.errors.contains_key(wrong.0), "{problem:?}");
        }
        let page = f.admin.get("/api/v1/machines?fields=hostname,zone&count=true&limit=1").await.good();
        assert_eq!(page["total"], 2);
        assert_eq!(page["items"][0].as_object().expect("an object").keys().collect::<Vec<_>>(), ["hostname", "zone"]);
        assert!(page["next"].is_string());
    }
}

steelyard_tests::front_test! {
    /// A write under a tag goes through once; who comes later reads again.
    async fn a_write_under_an_old_tag_changes_nothing(f: Front) {
        let admin = of(f, "admin").await;
        drop(admin.create::<Zone>(&json!({ "name": "z", "description": "one" })).await.expect("a zone"));
        let seen = admin.get::<Zone>("z").await.expect("a zone");
        let new = admin.update::<Zone>("z", Some(&seen.tag), &json!({ "description": "two" })).await.expect("nobody was faster");
        assert_ne!(new.tag, seen.tag);
        refused(admin.update::<Zone>("z", Some(&seen.tag), &json!({ "description": "three" })).await, 412);
        assert_eq!(admin.get::<Zone>("z").await.expect("a zone").value.description, "two");
        // Many at once under one tag: one wins.
        let tag = admin.get::<Zone>("z").await.expect("a zone").tag;
        let all = futures::future::join_all((0..8).map(|i| {
            let (admin, tag) = (admin.clone(), tag.clone());
            async move { admin.update::<Zone>("z", Some(&tag), &json!({ "description": format!("by {i}") })).await }
        })).await;
        let won = all.iter().filter(|r| r.is_ok()).count();
        assert_eq!(won, 1, "{all:?}");
        for lost in all.into_iter().filter_map(Result::err) {
            assert!(matches!(lost.status(), Some(412 | 409)), "{lost}");
        }
        let m = f.machine(&[("hostname", "m")]).await;
        let id = m["system_id"].as_str().expect("an id");
        let seen = admin.get::<Machine>(id).await.expect("a machine");
        drop(admin.update::<Machine>(id, Some(&seen.tag), &json!({ "description": "x" })).await.expect("nobody was faster"));
        refused(admin.update::<Machine>(id, Some(&seen.tag), &json!({ "description": "y" })).await, 412);
    }
}

steelyard_tests::front_test! {
    /// What was begun is an object: it runs, it can be cancelled, it ends with its machine.
    async fn operations_are_watched_and_cancelled(f: Front) {
        let admin = of(f, "admin").await;
        let m = f.machine(&[("hostname", "m")]).await;
        let id = m["system_id"].as_str().expect("an id").to_owned();
        f.equip(&id).await;
        let begun = admin.act::<Machine>(&id, "commission", &json!({})).await.expect("it begins");
        assert_eq!((begun.state, &*begun.kind, &*begun.by), (OperationState::Running, "commission", "admin"));
        let waiting = tokio::spawn({ let (admin, n) = (admin.clone(), begun.id); async move { admin.wait(n).await } });
        let cancelled = admin.cancel(begun.id).await.expect("it can be cancelled");
        assert_eq!(cancelled.state, OperationState::Cancelled);
        let ended = waiting.await.expect("no panic").expect("an operation");
        assert_eq!(ended.state, OperationState::Cancelled);
        assert!(ended.ended.is_some());
        assert_eq!(admin.get::<Machine>(&id).await.expect("a machine").value.status_name, "New");
        refused(admin.cancel(begun.id).await, 409);

        let begun = admin.act::<Machine>(&id, "commission", &json!({})).await.expect("it begins again");
        drop(f.admin.op(&format!("machines/{id}/"), "mark_broken", &[("comment", "it burns")]).await.good());
        let ended = admin.wait(begun.id).await.expect("an operation");
        assert_eq!((ended.state, ended.reason.contains("it burns")), (OperationState::Failed, true), "{ended:?}");

        // Others do not see it, and there is no such thing as an operation of somebody else.
        drop(f.user("somebody").await);
        let somebody = of(f, "somebody").await;
        refused(somebody.operation(begun.id).await, 404);
        refused(somebody.cancel(begun.id).await, 404);
        let all = f.admin.get("/api/v1/operations").await.good();
        assert_eq!(all["items"].as_array().map(Vec::len), Some(2));
        // A machine in the wrong state begins nothing.
        f.put_into(&id, Status::Deployed, Some("admin")).await;
        refused(admin.act::<Machine>(&id, "commission", &json!({})).await, 409);
        assert_eq!(f.admin.get("/api/v1/operations").await.good()["items"].as_array().map(Vec::len), Some(2));
    }
}

steelyard_tests::front_test! {
    /// One refusal does not keep the others, and each is told.
    async fn bulk_has_a_result_for_each(f: Front) {
        let admin = of(f, "admin").await;
        let mut ids = Vec::new();
        for i in 0..3 {
            let m = f.machine(&[("hostname", &format!("m{i}"))]).await;
            ids.push(m["system_id"].as_str().expect("an id").to_owned());
        }
        f.put_into(&ids[1], Status::Deployed, Some("admin")).await;
        ids.push("nobody".to_owned());
        let bulk = Bulk { action: "commission".into(), ids: ids.clone(), parameters: serde_json::Map::new() };
        let result = admin.bulk::<Machine>(&bulk).await.expect("a result");
        let statuses: Vec<u16> = result.items.iter().map(|i| i.status).collect();
        assert_eq!(statuses, [202, 409, 202, 404]);
        assert_eq!(result.items.iter().map(|i| &i.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
        assert_eq!(result.items[0].result.as_ref().expect("an operation")["kind"], "commission");
        assert!(result.items[1].problem.is_some());
        let change = Bulk { action: "update".into(), ids: vec![ids[1].clone()], parameters: json!({ "description": "x" }).as_object().expect("an object").clone() };
        assert_eq!(admin.bulk::<Machine>(&change).await.expect("a result").items[0].status, 200);
        refused(admin.bulk::<Machine>(&Bulk { action: "burn".into(), ..bulk.clone() }).await, 400);
        refused(admin.bulk::<Machine>(&Bulk { ids: vec!["x".into(); 1001], ..bulk }).await, 400);
        // Permissions are asked for each.
        drop(f.user("somebody").await);
        let somebody = of(f, "somebody").await;
        let bulk = Bulk { action: "delete".into(), ids: vec![ids[0].clone(), ids[1].clone()], parameters: serde_json::Map::new() };
        let statuses: Vec<u16> = somebody.bulk::<Machine>(&bulk).await.expect("a result").items.iter().map(|i| i.status).collect();
        assert!(statuses.iter().all(|s| matches!(s, 403 | 404)), "{statuses:?}");
    }
}

/// The next change of a noun.
async fn change(stream: &mut client::Changes, noun: &str) -> api::Change {
    let look = async {
        loop {
            match stream.next().await.expect("an event") {
                Some(Event::Change(c)) if c.noun == noun => return c,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), look)
        .await
        .expect("a change within its time")
}

steelyard_tests::front_test! {
    /// Nothing is missed between a position and the next; others' machines are not told of.
    async fn the_stream_of_changes_goes_on_where_it_was_left(f: Front) {
        let admin = of(f, "admin").await;
        let since = admin.position().await.expect("a position");
        let mut stream = admin.changes(&since).await.expect("a stream");
        drop(admin.create::<Zone>(&json!({ "name": "a" })).await.expect("a zone"));
        let first = change(&mut stream, "zone").await;
        drop(stream);
        drop(admin.create::<Zone>(&json!({ "name": "b" })).await.expect("a zone"));
        let mut stream = admin.changes(&first.position).await.expect("a stream");
        let second = change(&mut stream, "zone").await;
        assert_ne!(first.object, second.object);
        // From before the first both come again.
        let mut stream = admin.changes(&since).await.expect("a stream");
        assert_eq!(change(&mut stream, "zone").await, first);
        assert_eq!(change(&mut stream, "zone").await, second);

        drop(f.user("somebody").await);
        let somebody = of(f, "somebody").await;
        let theirs = f.machine(&[]).await["system_id"].as_str().expect("an id").to_owned();
        let free = f.machine(&[]).await["system_id"].as_str().expect("an id").to_owned();
        f.put_into(&theirs, Status::Deployed, Some("admin")).await;
        let since = admin.position().await.expect("a position");
        let mut stream = somebody.changes(&since).await.expect("a stream");
        for id in [&theirs, &free] {
            drop(admin.update::<Machine>(id, None, &json!({ "description": "y" })).await.expect("changed"));
        }
        assert_eq!(change(&mut stream, "node").await.object, free);

        refused(admin.changes("1.2").await, 400);
        assert!(matches!(admin.changes("1.0.5").await, Err(Error::StartAgain)), "a position of another history");
    }
}

steelyard_tests::front_test! {
    /// The document has every path that there is, and each is answered in its form.
    async fn every_operation_is_in_the_document(f: Front) {
        let document = f.admin.get("/api/v1/openapi.json").await.good();
        let paths = document["paths"].as_object().expect("paths");
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for op in region::table::all().into_iter().filter(|o| o.face == region::operation::Face::V1) {
            let item = paths.get(&format!("/{}", op.uri)).unwrap_or_else(|| panic!("{op:?} is not in the document"));
            let method = if op.method == region::operation::Method::Put && item.get("patch").is_some() { "patch".to_owned() } else { op.method.word().to_lowercase() };
            assert!(item.get(&method).is_some(), "{op:?}: no {method}");
            *known.entry(op.method.word()).or_default() += 1;
        }
        assert!(known["GET"] > 40, "{known:?}");
        // Every reference leads somewhere.
        let text = document.to_string();
        for name in text.split("#/components/schemas/").skip(1).filter_map(|r| r.split('"').next()) {
            assert!(document["components"]["schemas"].get(name).is_some(), "{name} is nowhere");
        }
        // Ids are unique, as generators need.
        let ids: Vec<&Value> = paths.values().flat_map(|p| p.as_object().expect("methods").values().map(|o| &o["operationId"])).collect();
        let unique: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(ids.len(), unique.len());

        let nobody = f.nobody().get("/api/v1/zones").await;
        assert_eq!((nobody.status, nobody.header("content-type")), (401, "application/problem+json"));
        let lost = f.admin.get("/api/v1/zones/nowhere").await;
        assert_eq!((lost.status, lost.header("content-type")), (404, "application/problem+json"));
        let admin = of(f, "admin").await;
        let seen = admin.get::<Zone>("default").await.expect("the default zone");
        assert!(seen.tag.starts_with('"'));
        let made = {
            let request = f.admin.request(reqwest::Method::POST, "/api/v1/zones").json(&json!({ "name": "made" }));
            f.admin.send(request).await
        };
        assert_eq!((made.status, made.header("location")), (201, "/MAAS/api/v1/zones/made"));
        let subnets = admin.list::<Subnet>(&[]).all().await.expect("subnets");
        assert!(subnets.len() < 100);
    }
}
