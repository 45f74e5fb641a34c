//! Every accepted change leaves one audit event that says who did what, to what, from where. That each
//! operation does so, and that what is refused leaves none, is seen in `api_permissions`.

use reqwest::Method;
use steelyard_tests::{Client, Front};

#[derive(Debug, PartialEq)]
struct Event {
    kind: String,
    username: String,
    ip: String,
    endpoint: i64,
    agent: String,
    description: String,
    machine: Option<String>,
}

/// The audit event of one change: exactly one.
async fn audit(f: &Front, from: i64) -> Event {
    let mut tx = f.region.db.read().await.expect("a reader");
    let mut rows = store::all!(
        tx,
        (String, String, Option<String>, i64, String, String, Option<String>),
        "SELECT type, username, ip_address, endpoint, user_agent, description, node_system_id FROM event WHERE level = 0 AND id > $1",
        from
    )
    .expect("events");
    assert_eq!(rows.len(), 1, "{rows:?}");
    let (kind, username, ip, endpoint, agent, description, machine) = rows.remove(0);
    Event {
        kind,
        username,
        ip: ip.unwrap_or_default(),
        endpoint,
        agent,
        description,
        machine,
    }
}

async fn last(f: &Front) -> i64 {
    let mut tx = f.region.db.read().await.expect("a reader");
    store::one!(tx, (i64,), "SELECT COALESCE(MAX(id), 0) FROM event")
        .expect("a number")
        .0
}

/// A call with a program's name.
async fn call(client: &Client, method: Method, path: &str, agent: &str, form: &str) {
    let request = client
        .request(method, path)
        .header("User-Agent", agent)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    drop(client.send(request).await.good());
}

steelyard_tests::front_test! {
    async fn an_audit_event_says_who_did_what_to_what_from_where(f: Front) {
        let owner = f.user("owner").await;
        let machine = f.machine(&[("hostname", "audited")]).await;
        let id = machine["system_id"].as_str().expect("an id").to_owned();
        f.put_into(&id, metal::status::Status::Deployed, Some("owner")).await;
        let at = format!("machines/{id}/");
        #[allow(clippy::type_complexity)] // a table
        let cases: [(&Client, Method, &str, &str, &str, (&str, &str, i64, &str)); 8] = [
            (&f.admin, Method::POST, "tags/", "a test", "name=a-tag&comment=nothing", ("TAG", "admin", 0, "create tags/ name=a-tag")),
            (&f.admin, Method::POST, "maas/?op=set_config", "maascli 3", "name=kernel_opts&value=quiet", ("SETTINGS", "admin", 2, "set_config maas/ name=kernel_opts")),
            (&f.admin, Method::DELETE, "tags/a-tag/", "Mozilla/5.0", "", ("TAG", "admin", 1, "delete tags/{name}/ name=a-tag")),
            (&owner, Method::POST, &format!("{at}?op=lock"), "", "comment=mine", ("NODE", "owner", 0, &format!("lock machines/{{system_id}}/ system_id={id}"))),
            (&owner, Method::POST, "account/?op=create_authorisation_token", "", "name=laptop", ("AUTHORISATION", "owner", 0, "create_authorisation_token account/ name=laptop")),
            (&f.admin, Method::POST, "users/", "", "username=new&email=n@example.com&password=a+good+password&is_superuser=0", ("AUTHORISATION", "admin", 0, "create users/ username=new")),
            (&f.nobody(), Method::POST, "/accounts/authenticate/", "", "username=owner&password=another+password&consumer=browser", ("AUTHORISATION", "owner", 0, "create accounts/authenticate/ username=owner")),
            (&f.admin, Method::POST, "subnets/", "", "cidr=10.0.0.0/24", ("NETWORKING", "admin", 0, "create subnets/ cidr=10.0.0.0/24")),
        ];
        for (client, method, path, agent, form, (kind, username, endpoint, description)) in cases {
            let from = last(f).await;
            call(client, method, path, agent, form).await;
            let event = audit(f, from).await;
            let machine = path.starts_with("machines/").then(|| id.clone());
            let expected = Event {
                kind: kind.to_owned(),
                username: username.to_owned(),
                ip: "127.0.0.1".to_owned(),
                endpoint,
                agent: agent.to_owned(),
                description: description.to_owned(),
                machine,
            };
            assert_eq!(event, expected, "{path}");
        }
        // Administrators read them over the API, nobody else does.
        let read = f.admin.ask("events/", "query", &[("level", "AUDIT"), ("limit", "1")]).await.good();
        assert_eq!(read["events"][0]["description"], "create subnets/ cidr=10.0.0.0/24");
        assert_eq!((&read["events"][0]["username"], &read["events"][0]["type"]), (&"admin".into(), &"NETWORKING".into()));
        drop(owner.ask("events/", "query", &[("level", "AUDIT")]).await.expect(403));
    }

    /// A change and its event are kept together or not at all, and what changes nothing but is accepted is
    /// audited as well.
    async fn a_change_and_its_event_stand_or_fall_together(f: Front) {
        let before = f.audits().await;
        for name in ["a", "b", "c"] {
            drop(f.admin.create("zones/", &[("name", name)]).await.good());
        }
        assert_eq!(f.audits().await, before + 3);
        // Many at once that want the same name: one is made, one event is there.
        let same = (0..6).map(|_| f.admin.create("zones/", &[("name", "contended")]));
        let made = futures::future::join_all(same).await.iter().filter(|r| r.status < 400).count();
        assert_eq!((made, f.audits().await), (1, before + 4));
        // To release what is released already is accepted.
        let machine = f.machine(&[]).await;
        let id = machine["system_id"].as_str().expect("an id");
        f.put_into(id, metal::status::Status::Ready, None).await;
        let before = f.audits().await;
        drop(f.admin.op(&format!("machines/{id}/"), "release", &[]).await.good());
        assert_eq!(f.audits().await, before + 1);
        // Reading is not a change.
        drop(f.admin.get("machines/").await.good());
        drop(f.admin.ask(&format!("machines/{id}/"), "power_parameters", &[]).await.good());
        assert_eq!(f.audits().await, before + 1);
    }
}
