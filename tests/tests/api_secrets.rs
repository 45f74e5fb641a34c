//! No secret is kept, logged, recorded or told in clear. A run with errors of every kind plants secrets; then
//! everything that the run has left is searched for them.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::Phase;
use reqwest::Method;
use serde_json::Value;
use steelyard_tests::{Client, Reply, TestCluster, until};
use tracing_subscriber::fmt::MakeWriter;

/// Everything that this process logs, at every level.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The logs of this process, from the first use on.
static LOGS: LazyLock<Logs> = LazyLock::new(|| {
    let logs = Logs::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(logs.clone())
        .with_ansi(false)
        .init();
    logs
});

/// A text that is nowhere by chance.
fn secret(what: &str) -> String {
    format!("{what}{:024x}Zq", rand::random::<u128>() >> 32)
}

/// The secrets of a run, and what was answered to those who may not know them.
#[derive(Default)]
struct Planted {
    secrets: Vec<(String, String)>,
    answers: Vec<u8>,
}

impl Planted {
    fn add(&mut self, what: &str, value: &str) {
        assert!(value.len() >= 16, "{what} could be anywhere: {value:?}");
        if self.secrets.iter().all(|(_, v)| v != value) {
            self.secrets.push((what.to_owned(), value.to_owned()));
        }
    }

    fn plant(&mut self, what: &str) -> String {
        let value = secret(&what.replace(' ', ""));
        self.add(what, &value);
        value
    }

    /// Keeps an answer that must not tell.
    fn told(&mut self, reply: &Reply) {
        self.answers.extend_from_slice(&reply.body);
        self.answers
            .extend_from_slice(format!("{:?}", reply.headers).as_bytes());
    }

    /// An answer that must be a refusal, and must not tell either.
    #[track_caller]
    fn refused(&mut self, reply: &Reply) {
        assert!(reply.status >= 400, "{}", reply.text());
        self.told(reply);
    }

    /// Where a secret is found in bytes: plainly, or in a spelling that anybody undoes.
    fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        for (what, value) in &self.secrets {
            let spelled = [
                ("in clear", value.clone().into_bytes()),
                ("in hexadecimal", hex::encode(value).into_bytes()),
                (
                    "in base64",
                    STANDARD.encode(value).trim_end_matches('=').as_bytes()
                        [..(value.len() * 4 / 3) & !3]
                        .to_vec(),
                ),
                (
                    "percent-encoded",
                    percent_encoding::utf8_percent_encode(
                        value,
                        percent_encoding::NON_ALPHANUMERIC,
                    )
                    .to_string()
                    .into_bytes(),
                ),
            ];
            for (how, needle) in spelled {
                if contains(bytes, &needle) {
                    out.push(format!("{what} is {how} in {place}"));
                    break;
                }
            }
        }
        out
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else {
        return false;
    };
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|b| *b == first) {
        at += next;
        if bytes[at..].starts_with(needle) {
            return true;
        }
        at += 1;
    }
    false
}

/// Every file below a directory, with its content.
fn files(of: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(of).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else if path.is_file() {
            out.push((
                path.display().to_string(),
                std::fs::read(&path).expect("a file"),
            ));
        }
    }
}

/// The machine's own credentials, as an administrator sees them.
async fn token(c: &TestCluster, id: &str, p: &mut Planted) -> bool {
    let token = c
        .admin
        .ask(&format!("machines/{id}/"), "get_token", &[])
        .await
        .good();
    if let Some(secret) = token["token_secret"].as_str() {
        p.add("a machine's token secret", secret);
        return true;
    }
    false
}

async fn wait_token(c: &TestCluster, id: &str, p: &mut Planted) {
    let p = Mutex::new(p);
    until("the machine has a token", || async {
        let mut mine = Planted::default();
        let there = token(c, id, &mut mine).await;
        let mut p = p.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, value) in &mine.secrets {
            p.add(what, value);
        }
        if there {
            Ok(())
        } else {
            Err("none".to_owned())
        }
    })
    .await;
}

/// People: keys and passwords, good and bad.
async fn people(c: &TestCluster, p: &mut Planted) -> Client {
    let password = p.plant("a password");
    let fields = [
        ("username", "planted"),
        ("email", "p@example.com"),
        ("password", password.as_str()),
        ("is_superuser", "0"),
    ];
    p.told(&c.admin.create("users/", &fields).await);
    // Refused, with the password in it.
    p.refused(&c.admin.create("users/", &fields).await);
    p.refused(
        &c.admin
            .create(
                "users/",
                &[
                    ("username", "x y"),
                    ("email", "p@example.com"),
                    ("password", &password),
                    ("is_superuser", "0"),
                ],
            )
            .await,
    );
    let nobody = c.admin.anonymous();
    let wrong = p.plant("a wrong password");
    p.refused(
        &nobody
            .create(
                "/accounts/authenticate/",
                &[("username", "planted"), ("password", &wrong)],
            )
            .await,
    );
    p.refused(
        &nobody
            .create(
                "/accounts/authenticate/",
                &[("username", &wrong), ("password", &wrong)],
            )
            .await,
    );
    p.refused(
        &nobody
            .create("/accounts/authenticate/", &[("password", &wrong)])
            .await,
    );
    let login = [
        ("username", "planted"),
        ("password", password.as_str()),
        ("consumer", "a browser"),
    ];
    let key = nobody
        .create("/accounts/authenticate/", &login)
        .await
        .good();
    let part = |k: &str| key[k].as_str().expect("a part of a key").to_owned();
    p.add("a person's token secret", &part("token_secret"));
    let joined = format!(
        "{}:{}:{}",
        part("consumer_key"),
        part("token_key"),
        part("token_secret")
    );
    let person = Client::new(&c.url, Some(&joined));
    drop(person.get("users/?op=whoami").await.expect(200));
    let second = person
        .op(
            "account/",
            "create_authorisation_token",
            &[("name", "second")],
        )
        .await
        .good();
    p.add(
        "a deleted token's secret",
        second["token_secret"].as_str().expect("a secret"),
    );
    let gone = [("token_key", second["token_key"].as_str().expect("a key"))];
    p.told(
        &person
            .op("account/", "delete_authorisation_token", &gone)
            .await,
    );
    p.add(
        "the administrator's token secret",
        c.key.rsplit(':').next().expect("a secret"),
    );
    // A signature that is wrong, one in the query, one in a broken body.
    p.refused(&person.spoiled().get("machines/").await);
    let query = format!(
        "/api/2.0/machines/?oauth_token={}&oauth_signature_method=PLAINTEXT&oauth_timestamp=1&oauth_nonce=n&oauth_consumer_key={}&oauth_signature=%26{}",
        part("token_key"),
        part("consumer_key"),
        part("token_secret")
    );
    p.refused(&nobody.get(&query).await);
    p.refused(
        &nobody
            .get(&query.replace("/api/2.0/machines/", "/metadata/latest/"))
            .await,
    );
    let broken = format!("{{\"password\": \"{password}\", \"username\"");
    p.refused(
        &nobody
            .send(
                nobody
                    .request(Method::POST, "/accounts/authenticate/")
                    .header("Content-Type", "application/json")
                    .body(broken),
            )
            .await,
    );
    person
}

/// BMC credentials that are wrong, unusable, changed and thrown away.
async fn bmcs(c: &TestCluster, p: &mut Planted) {
    let pass = p.plant("a BMC password");
    let mac = steelyard_tests::front::mac();
    let mut fields = vec![
        ("architecture", "amd64/generic"),
        ("mac_addresses", mac.as_str()),
        ("power_type", "ipmi"),
        ("power_parameters_power_user", "root"),
        ("power_parameters_power_pass", pass.as_str()),
        ("commission", "false"),
        ("hostname", "planted"),
    ];
    // No address: refused.
    p.refused(&c.admin.create("machines/", &fields).await);
    // Nobody answers there.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("an address").to_string();
    fields.push(("power_parameters_power_address", &address));
    p.refused(
        &c.admin
            .create("machines/", &[&fields[..], &[("zone", "nowhere")]].concat())
            .await,
    );
    let made = c.admin.create("machines/", &fields).await;
    p.told(&made);
    let id = made.good()["system_id"].as_str().expect("an id").to_owned();
    let at = format!("machines/{id}/");
    let k_g = p.plant("a BMC key");
    p.told(&c.admin.update(&at, &[("power_parameters_k_g", &k_g)]).await);
    let whole = format!(
        "{{\"power_address\": \"{address}\", \"power_user\": \"u\", \"power_pass\": \"{}\"",
        p.plant("a BMC password in broken JSON")
    );
    p.told(
        &c.admin
            .update(&at, &[("power_type", "ipmi"), ("power_parameters", &whole)])
            .await,
    );
    p.told(&c.admin.get(&at).await);
    p.told(&c.admin.get("machines/").await);
    // What is asked of a BMC that is not there fails after a while; it is recorded then.
    p.told(&c.admin.delete(&at).await);
    drop(closed);
}

/// A machine from its first boot to its own system, and a BMC that refuses a password.
async fn machines(c: &TestCluster, p: &mut Planted) {
    fleet::demo::describe_network(&c.fleet_api())
        .await
        .expect("the network is described");
    let fleet = c.fleet(1).await;
    fleet.press_all(Duration::ZERO).await;
    let id = until("the machine is known", || async {
        let all = c.admin.get("machines/").await.good();
        let found = all
            .as_array()
            .expect("a list")
            .iter()
            .find(|m| m["hostname"] == fleet.hardware(0).hostname.as_str())
            .cloned();
        found
            .and_then(|m| m["system_id"].as_str().map(str::to_owned))
            .ok_or_else(|| all.to_string())
    })
    .await;
    token(c, &id, p).await;
    fleet
        .wait_phase(0, Phase::Off, steelyard_tests_limit())
        .await
        .expect("it is off");
    let _: Value = c.machine_with_status(&id, "New").await;
    assert_eq!(
        fleet::demo::adopt(&c.fleet_api(), &fleet)
            .await
            .expect("its BMC is known"),
        1
    );
    let bmc = fleet.power_parameters(0)["power_pass"]
        .as_str()
        .expect("a password")
        .to_owned();
    if bmc.len() >= 16 {
        p.add("a fleet BMC's password", &bmc);
    }
    let at = format!("machines/{id}/");
    p.told(&c.admin.op(&at, "commission", &[]).await);
    wait_token(c, &id, p).await;
    let _: Value = c.machine_with_status(&id, "Ready").await;
    p.told(
        &c.admin
            .op("machines/", "allocate", &[("system_id", &id)])
            .await,
    );
    let script = p.plant("user data");
    let user_data = STANDARD.encode(format!("#cloud-config\npassword: {script}\n"));
    // User-data is kept as it is: a machine's owner puts into it what he likes. It is not logged.
    p.secrets.retain(|(what, _)| what != "user data");
    p.told(
        &c.admin
            .op(&at, "deploy", &[("user_data", &user_data)])
            .await,
    );
    wait_token(c, &id, p).await;
    let _: Value = c.machine_with_status(&id, "Deployed").await;
    token(c, &id, p).await;
    assert!(
        !contains(&LOGS.bytes(), script.as_bytes()),
        "user-data is in the logs"
    );
    assert!(
        !contains(&LOGS.bytes(), user_data.as_bytes()),
        "user-data is in the logs"
    );

    // From now on its BMC refuses.
    let wrong: String = p.plant("W").chars().rev().take(20).collect();
    p.add("a wrong BMC password", &wrong);
    p.told(
        &c.admin
            .update(&at, &[("power_parameters_power_pass", &wrong)])
            .await,
    );
    let state = c.admin.ask(&at, "query_power_state", &[]).await;
    assert_eq!(state.json()["state"], "error", "{}", state.text());
    p.told(&state);
    p.told(&c.admin.op(&at, "power_off", &[]).await);
    until("the failure is an event", || async {
        let events = c
            .admin
            .ask("events/", "query", &[("level", "DEBUG"), ("id", &id)])
            .await
            .good();
        let failed = |e: &Value| {
            e["type"]
                .as_str()
                .is_some_and(|t| t.contains("could not be"))
        };
        if events["events"]
            .as_array()
            .expect("a list")
            .iter()
            .any(failed)
        {
            Ok(())
        } else {
            Err(events.to_string())
        }
    })
    .await;
    let boots = c.admin.get(&format!("/api/v1/machines/{id}/boots")).await;
    assert!(
        boots.json()["boots"]
            .as_array()
            .is_some_and(|b| !b.is_empty()),
        "the machine's boots were recorded"
    );
    p.told(&boots);
    fleet.stop().await;
}

const fn steelyard_tests_limit() -> Duration {
    Duration::from_secs(120)
}

steelyard_tests::cluster_test! {
    /// Passwords of people and BMCs, secrets of keys of people and machines: not in the database's files, the
    /// rack's directory, logs, events, timelines or answers.
    async fn no_secret_is_found_in_clear(c: TestCluster) {
        drop(LOGS.bytes());
        let mut p = Planted::default();
        c.import_images().await;
        let person = people(c, &mut p).await;
        bmcs(c, &mut p).await;
        machines(c, &mut p).await;
        for level in ["AUDIT", "DEBUG"] {
            let events = c.admin.ask("events/", "query", &[("level", level), ("limit", "1000")]).await;
            assert!(events.json()["count"].as_u64() > Some(3), "{level} events");
            p.told(&events);
        }
        p.refused(&person.ask("events/", "query", &[("level", "AUDIT")]).await);

        let mut found = p.found_in("an answer", &p.answers);
        found.extend(p.found_in("the logs", &LOGS.bytes()));
        let mut left = Vec::new();
        files(c.dir.path(), &mut left);
        for (path, content) in &left {
            found.extend(p.found_in(path, content));
        }
        for (table, rows) in steelyard_tests::front::dump_all(&c.region).await {
            found.extend(p.found_in(&format!("the table {table}"), rows.join("\n").as_bytes()));
        }
        // What was searched is what there is: other things of the run are found there.
        let everywhere: Vec<u8> = left.iter().flat_map(|(_, c)| c.iter().copied()).collect();
        assert!(contains(&everywhere, b"dhcp_on") || left.iter().any(|(p, _)| p.contains("rack")), "the rack's directory was read");
        assert!(contains(&LOGS.bytes(), b"rack"), "logs were kept");
        assert!(p.secrets.len() >= 10, "{:?}", p.secrets.iter().map(|s| &s.0).collect::<Vec<_>>());
        assert!(found.is_empty(), "{found:#?}");
    }
}
