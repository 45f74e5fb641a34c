//! A region under test, and its API without sockets.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use metal::Timestamp;
use region::auth::ApiKey;
use region::dispatch::{Incoming, dispatch};
use region::{Config, Region, http, user, worker};
use serde_json::Value;

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Bench {
    pub region: Arc<Region>,
    pub key: ApiKey,
    _dir: tempfile::TempDir,
}

/// An answer: status and body, JSON where it is some.
pub type Answer = (u16, Value);

pub fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// Waits until a question has an answer.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(t) = ask().await {
                return t;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

thread_local! {
    /// Tests have one thread each.
    static POSTGRES: Cell<bool> = const { Cell::new(false) };
}

/// Lets the regions of this test use PostgreSQL.
#[cfg(feature = "peers")]
pub fn use_postgres() {
    POSTGRES.set(true);
}

async fn database(dir: &Path) -> store::Target {
    if POSTGRES.get() {
        store::Target::Postgres(store::testing::postgres_database().await)
    } else {
        store::Target::Sqlite(dir.join("region.db"))
    }
}

impl Bench {
    /// A region whose jobs nobody works at.
    pub async fn idle() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().to_owned(),
            database: database(dir.path()).await,
            name: "test".to_owned(),
            agents: BTreeMap::from([("amd64".to_owned(), Bytes::from_static(b"the agent"))]),
        };
        let region = Region::open(config).await.unwrap();
        user::create_admin(
            &region,
            "admin",
            "a long password",
            "admin@example.org",
            now(),
        )
        .await
        .unwrap();
        let key = user::api_key(&region, "admin", now()).await.unwrap();
        Self {
            region,
            key,
            _dir: dir,
        }
    }

    /// A region at work.
    pub async fn start() -> Self {
        let bench = Self::idle().await;
        worker::start(&bench.region);
        bench
    }

    async fn send(&self, method: &str, target: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let oauth = format!(
            "OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"{}\", \
             oauth_token=\"{}\", oauth_signature=\"%26{}\", oauth_timestamp=\"{}\", oauth_nonce=\"{}\"",
            self.key.consumer_key,
            self.key.token_key,
            self.key.token_secret,
            now().seconds(),
            uuid::Uuid::new_v4().simple(),
        );
        let incoming = Incoming {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![
                ("authorization".to_owned(), oauth),
                ("content-type".to_owned(), content_type.to_owned()),
            ],
            body: body.into(),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            via: None,
            base: "http://region:5240".to_owned(),
        };
        let (status, _, body) = http::collect(dispatch(&self.region, incoming).await).await;
        let value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body).into_owned()));
        (status, value)
    }

    pub async fn call(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Answer {
        let target = format!("/MAAS/api/2.0/{path}");
        let encode = |s: &str| {
            percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let body: Vec<String> = form
            .iter()
            .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
            .collect();
        let kind = "application/x-www-form-urlencoded";
        self.send(method, &target, kind, body.join("&").into_bytes())
            .await
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, &[]).await;
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    /// Adds a source with a keyring that is uploaded as a file.
    pub async fn upload_source(&self, url: &str, keyring: &str) -> Answer {
        let part = |name: &str, file: &str, value: &str| {
            format!(
                "--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
            )
        };
        let body = format!(
            "{}{}--XX--\r\n",
            part("url", "", url),
            part("keyring_data", "; filename=\"keys.asc\"", keyring)
        );
        let target = "/MAAS/api/2.0/boot-sources/";
        self.send(
            "POST",
            target,
            "multipart/form-data; boundary=XX",
            body.into_bytes(),
        )
        .await
    }

    /// The content under a hash, as anybody gets it.
    pub async fn content(&self, sha256: &str) -> (u16, Bytes) {
        self.part(sha256, None).await
    }

    /// The same, with a `Range`.
    pub async fn part(&self, sha256: &str, range: Option<&str>) -> (u16, Bytes) {
        let incoming = Incoming {
            method: "GET".to_owned(),
            target: format!("/MAAS/boot-resources/{sha256}/debian/amd64/boot-kernel"),
            headers: range
                .map(|r| ("range".to_owned(), r.to_owned()))
                .into_iter()
                .collect(),
            body: Bytes::new(),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            via: None,
            base: "http://region:5240".to_owned(),
        };
        let (status, _, body) = http::collect(dispatch(&self.region, incoming).await).await;
        (status, body)
    }

    /// Adds a source and selects a release once it was read. Returns the source's id.
    pub async fn select(&self, url: &str, release: &str) -> i64 {
        let (status, source) = self.call("POST", "boot-sources/", &[("url", url)]).await;
        assert_eq!(status, 201, "{source}");
        let id = source["id"].as_i64().unwrap();
        self.select_at(id, release).await;
        id
    }

    pub async fn select_at(&self, source: i64, release: &str) {
        let path = format!("boot-sources/{source}/selections/");
        until("the release to be selectable", || async {
            let (status, answer) = self
                .call("POST", &path, &[("os", "debian"), ("release", release)])
                .await;
            assert!(matches!(status, 200 | 400), "{status} {answer}");
            (status == 200).then_some(())
        })
        .await;
    }

    pub async fn import(&self) {
        let answer = self.call("POST", "boot-resources/?op=import", &[]).await;
        assert_eq!(
            answer,
            (200, Value::from("Import of boot resources started"))
        );
    }

    pub async fn imported(&self) {
        until("the import to end", || async {
            (self.get("boot-resources/?op=is_importing").await == Value::Bool(false)).then_some(())
        })
        .await;
    }

    /// The resource of that name, with its sets.
    pub async fn resource(&self, name: &str) -> Option<Value> {
        let all = self.get("boot-resources/").await;
        let found = all.as_array().unwrap().iter().find(|r| r["name"] == name)?;
        Some(self.get(&format!("boot-resources/{}/", found["id"])).await)
    }

    /// Texts of the import's errors.
    pub async fn errors(&self) -> Vec<String> {
        let mut tx = self.region.db.read().await.unwrap();
        store::all!(
            tx,
            (String,),
            "SELECT description FROM event WHERE type = 'REGION_IMPORT_ERROR' ORDER BY id"
        )
        .unwrap()
        .into_iter()
        .map(|(d,)| d)
        .collect()
    }
}
