//! A region on a database of its own, with an administrator who signs requests, and rows to start from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use metal::Timestamp;
use metal::status::Status;
use region::answer::Content;
use region::auth::ApiKey;
use region::dispatch::{self, Incoming};
use region::error::ApiError;
use region::node::{NodeRow, row};
use region::{Config, Region};
use serde_json::Value;
use store::Tx;
use store::testing::TestDb;

/// A region and what the tests keep of it.
pub struct Site {
    pub region: Arc<Region>,
    admin: ApiKey,
    nonce: AtomicU64,
    _dir: store::testing::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?} is not JSON"))
    }

    /// The JSON of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(self.status < 300, "{self:?}");
        self.json()
    }

    #[track_caller]
    pub fn is(&self, status: u16, words: &str) {
        assert!(
            self.status == status && self.text.contains(words),
            "wanted {status} with '{words}': {self:?}"
        );
    }
}

pub fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// A node to start from.
pub struct NewNode<'a> {
    pub system_id: &'a str,
    pub status: Status,
    pub architecture: &'a str,
    pub boot_method: &'a str,
}

impl Default for NewNode<'_> {
    fn default() -> Self {
        Self {
            system_id: "aaaaaa",
            status: Status::Ready,
            architecture: "amd64/generic",
            boot_method: "pxe",
        }
    }
}

impl Site {
    pub async fn open(t: TestDb) -> Self {
        t.db.close().await;
        let region = Region::open(Config {
            data_dir: t.dir.path().to_owned(),
            database: t.options.target.clone(),
            name: "test".into(),
            agents: BTreeMap::new(),
        })
        .await
        .unwrap();
        region::user::create_admin(&region, "admin", "correct horse", "a@b.example", now())
            .await
            .unwrap();
        let admin = region::user::api_key(&region, "admin", now())
            .await
            .unwrap();
        Self {
            region,
            admin,
            nonce: AtomicU64::new(0),
            _dir: t.dir,
        }
    }

    /// A signed request; the form is `a=b&c=d`.
    pub async fn call(&self, method: &str, path: &str, form: &str) -> Reply {
        let k = &self.admin;
        let authorization = format!(
            "OAuth oauth_nonce=\"{}\", oauth_timestamp=\"{}\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", \
             oauth_consumer_key=\"{}\", oauth_token=\"{}\", oauth_signature=\"%26{}\"",
            self.nonce.fetch_add(1, Ordering::Relaxed),
            now().seconds(),
            k.consumer_key,
            k.token_key,
            k.token_secret
        );
        let answer = dispatch::dispatch(
            &self.region,
            Incoming {
                method: method.into(),
                target: format!("/MAAS/api/2.0/{path}"),
                headers: vec![
                    ("authorization".into(), authorization),
                    (
                        "content-type".into(),
                        "application/x-www-form-urlencoded".into(),
                    ),
                ],
                body: Bytes::copy_from_slice(form.as_bytes()),
                ip: Ipv4Addr::LOCALHOST.into(),
                via: None,
                base: "http://localhost:5240".into(),
            },
        )
        .await;
        let text = match answer.content {
            Content::Empty => String::new(),
            Content::Json(v) => v.to_string(),
            Content::Bytes(b, _) => String::from_utf8_lossy(&b).into_owned(),
            Content::Stream(..) => panic!("no stream was asked for"),
        };
        Reply {
            status: answer.status,
            text,
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, "").await
    }

    pub async fn post(&self, path: &str, form: &str) -> Reply {
        self.call("POST", path, form).await
    }

    /// A change straight in the database.
    pub async fn write<T, F>(&self, f: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> futures::future::BoxFuture<'t, Result<T, ApiError>>
            + Send
            + Sync
            + 'static,
    {
        self.region.db.write(f).await
    }

    /// A statement without parameters.
    pub async fn sql(&self, statement: &'static str) {
        self.write(move |tx| {
            Box::pin(async move {
                store::exec!(tx, statement)?;
                Ok(())
            })
        })
        .await
        .unwrap();
    }

    pub async fn node(&self, new: NewNode<'_>) -> NodeRow {
        let (system_id, architecture) = (new.system_id.to_owned(), new.architecture.to_owned());
        let (status, method) = (new.status, new.boot_method.to_owned());
        self.write(move |tx| {
            let (system_id, architecture, method) =
                (system_id.clone(), architecture.clone(), method.clone());
            Box::pin(async move {
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO node (system_id, node_type, hostname, domain_id, zone_id, pool_id, status, previous_status, status_since, \
                     architecture, bios_boot_method, created, updated) VALUES ($1, 0, $1, 0, 1, 0, $2, $2, 0, $3, $4, 0, 0) RETURNING id",
                    system_id,
                    status.code(),
                    architecture,
                    method
                )?;
                row::by_id(tx, id).await
            })
        })
        .await
        .unwrap()
    }

    /// The node as it is now.
    pub async fn fresh(&self, node: &NodeRow) -> NodeRow {
        let mut tx = self.region.db.read().await.unwrap();
        row::by_id(&mut tx, node.id).await.unwrap()
    }

    /// A subnet in the VLAN that stands from the start; gives its id.
    pub async fn subnet(&self, cidr: &'static str, gateway: Option<&'static str>) -> i64 {
        self.write(move |tx| {
            Box::pin(async move {
                let (vlan,) = store::one!(tx, (i64,), "SELECT MIN(id) FROM vlan")?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO subnet (vlan_id, cidr, name, gateway_ip) VALUES ($1, $2, $2, $3) RETURNING id",
                    vlan,
                    cidr,
                    gateway
                )?;
                Ok(id)
            })
        })
        .await
        .unwrap()
    }

    pub async fn range(
        &self,
        subnet: i64,
        kind: &'static str,
        start: &'static str,
        end: &'static str,
    ) {
        self.write(move |tx| {
            Box::pin(async move {
                store::exec!(
                    tx,
                    "INSERT INTO ip_range (subnet_id, type, start_ip, end_ip) VALUES ($1, $2, $3, $4)",
                    subnet,
                    kind,
                    start,
                    end
                )?;
                Ok(())
            })
        })
        .await
        .unwrap();
    }

    /// A lease that a rack has told of.
    pub async fn lease(&self, ip: &'static str, mac: &'static str, subnet: i64) {
        self.write(move |tx| {
            Box::pin(async move {
                let until = now().0 + 600_000_000;
                store::exec!(
                    tx,
                    "INSERT INTO lease (ip, mac, subnet_id, until, updated) VALUES ($1, $2, $3, $4, 1)",
                    ip,
                    mac,
                    subnet,
                    until
                )?;
                Ok(())
            })
        })
        .await
        .unwrap();
    }

    /// An interface without a link in the VLAN that stands from the start.
    pub async fn interface(&self, node: &NodeRow, name: &'static str, mac: &'static str) -> i64 {
        let node = node.id;
        self.write(move |tx| {
            Box::pin(async move {
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO interface (node_id, name, type, mac, vlan_id, created, updated) \
                     VALUES ($1, $2, 'physical', $3, (SELECT MIN(v.id) FROM vlan v), 0, 0) RETURNING id",
                    node,
                    name,
                    mac
                )?;
                Ok(id)
            })
        })
        .await
        .unwrap()
    }

    pub async fn disk(&self, node: &NodeRow, name: &'static str, size: i64) -> i64 {
        let node = node.id;
        self.write(move |tx| {
            Box::pin(async move {
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO block_device (node_id, type, name, size, block_size, created, updated) \
                     VALUES ($1, 'physical', $2, $3, 512, 0, 0) RETURNING id",
                    node,
                    name,
                    size
                )?;
                Ok(id)
            })
        })
        .await
        .unwrap()
    }

    /// The machine as the API shows it.
    pub async fn machine(&self, system_id: &str) -> Value {
        self.get(&format!("machines/{system_id}/")).await.ok()
    }
}

/// The values of one field in a list of objects.
pub fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|v| v[field].as_str().unwrap_or("null"))
        .collect()
}
