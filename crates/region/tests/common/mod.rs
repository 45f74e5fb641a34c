//! A region on a database of its own, served over HTTP, with a person, a rack and machines that call it.
#![allow(dead_code)] // each test program uses a part of it

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use link::message::{Hello, Interface, PassedRequest};
use link::port::Region as _;
use metal::{MacAddr, SystemId, Timestamp};
use region::auth::ApiKey;
use region::rack_link::port::RegionPort;
use region::{Config, Region, user};
use serde_json::{Value, json};
use store::Target;

/// The address under which machines reach their rack.
pub const RACK: &str = "http://10.77.0.1:5248";
/// The first machine's hardware address.
pub const MAC: &str = "52:54:00:12:34:56";
/// The first machine's address while it boots.
pub const IP: &str = "10.77.0.100";
/// The agent that the region hands out.
pub const AGENT: &[u8] = b"\x7fELF not a real agent, but the bytes that are asked for";

/// Makes a test run on SQLite and, with the feature `peers`, on PostgreSQL.
#[macro_export]
macro_rules! on_each_engine {
    ($($(#[$meta:meta])* async fn $name:ident($w:ident) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn body($w: &$crate::common::World) $body
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                let w = $crate::common::World::sqlite().await;
                body(&w).await;
                w.stop().await;
            }
            #[cfg(feature = "peers")]
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                let w = $crate::common::World::postgres().await;
                body(&w).await;
                w.stop().await;
            }
        }
    )*};
}

/// Now.
pub fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// The `Authorization` header of a key, as MAAS clients sign.
pub fn sign(key: &ApiKey) -> String {
    static NONCE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let nonce = NONCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!(
        "OAuth oauth_nonce=\"{}-{nonce}\", oauth_timestamp=\"{}\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", \
         oauth_consumer_key=\"{}\", oauth_token=\"{}\", oauth_signature=\"%26{}\"",
        std::process::id(),
        now().seconds(),
        key.consumer_key,
        key.token_key,
        key.token_secret
    )
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub kind: String,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON of an answer that must be a success.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(self.status < 300, "{} {}", self.status, self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The same, with the status checked.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A region and those who use it.
pub struct World {
    /// The region.
    pub region: Arc<Region>,
    /// `http://127.0.0.1:port` of its own server.
    pub base: String,
    /// The administrator's key.
    pub admin: ApiKey,
    /// The rack's system id.
    pub rack: SystemId,
    /// The region as its rack sees it.
    pub port: RegionPort,
    http: reqwest::Client,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    _dir: tempfile::TempDir,
}

impl World {
    /// On SQLite.
    pub async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::Sqlite(dir.path().join("region.db"));
        Self::on(target, dir).await
    }

    /// On the tests' PostgreSQL.
    #[cfg(feature = "peers")]
    pub async fn postgres() -> Self {
        let url = store::testing::postgres_database().await;
        Self::on(Target::Postgres(url), tempfile::tempdir().unwrap()).await
    }

    async fn on(database: Target, dir: tempfile::TempDir) -> Self {
        // Somebody else may have installed it already.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let region = Region::open(Config {
            data_dir: dir.path().to_owned(),
            database,
            name: "test".to_owned(),
            agents: BTreeMap::from([("amd64".to_owned(), Bytes::from_static(AGENT))]),
        })
        .await
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(region::http::serve(Arc::clone(&region), listener));
        user::create_admin(
            &region,
            "admin",
            "a long password",
            "admin@example.com",
            now(),
        )
        .await
        .unwrap();
        let admin = user::api_key(&region, "admin", now()).await.unwrap();
        let port = RegionPort::local(Arc::clone(&region));
        let welcome = port
            .hello(Hello {
                version: link::VERSION,
                rack: None,
                hostname: "rack".to_owned(),
                program: "test".to_owned(),
                interfaces: vec![Interface {
                    name: "eth0".to_owned(),
                    mac: None,
                    addresses: vec!["10.77.0.1/24".parse().unwrap()],
                }],
                services: BTreeMap::new(),
                position: None,
            })
            .await
            .unwrap();
        let w = Self {
            region,
            base,
            admin,
            rack: welcome.rack,
            port,
            http: reqwest::Client::new(),
            server,
            _dir: dir,
        };
        w.add_image("debian", "bookworm").await;
        w
    }

    /// Ends it.
    pub async fn stop(&self) {
        self.region.stop().await;
        self.server.abort();
    }

    /// Runs one statement on the database.
    pub async fn sql(&self, statement: &'static str, text: &str) {
        let text = text.to_owned();
        self.region
            .db
            .write(move |tx| {
                let text = text.clone();
                Box::pin(async move {
                    store::exec!(tx, statement, text)?;
                    Ok::<(), region::error::ApiError>(())
                })
            })
            .await
            .unwrap();
    }

    /// An image that can be booted and installed. Its content is nowhere: nobody fetches it here.
    pub async fn add_image(&self, os: &str, release: &str) {
        let name = format!("{os}/{release}");
        self.sql("INSERT INTO boot_resource (rtype, name, architecture, extra, created, updated) VALUES (0, $1, 'amd64/generic', '{\"subarches\": \"generic\"}', 0, 0)", &name).await;
        self.sql("INSERT INTO boot_resource_set (resource_id, version, label, created) SELECT id, '20260101', 'stable', 0 FROM boot_resource WHERE name = $1", &name).await;
        self.sql(
            "INSERT INTO boot_resource_file (set_id, filename, filetype, sha256, size) \
             SELECT s.id, f.name, f.type, f.hash, 1000 FROM boot_resource_set s JOIN boot_resource r ON r.id = s.resource_id, \
             (SELECT 'boot-kernel' AS name, 'boot-kernel' AS type, 'aa11' AS hash UNION ALL SELECT 'boot-initrd', 'boot-initrd', 'bb22' \
             UNION ALL SELECT 'squashfs', 'squashfs', 'cc33' UNION ALL SELECT 'root.tar.gz', 'root-tgz', 'dd44') f WHERE r.name = $1",
            &name,
        )
        .await;
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response
            .headers()
            .get("content-type")
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default();
        Reply {
            status,
            kind,
            body: response.bytes().await.unwrap(),
        }
    }

    /// A GET below `/MAAS/` by the administrator.
    pub async fn get(&self, path: &str) -> Reply {
        let url = format!("{}/MAAS/{path}", self.base);
        self.send(
            self.http
                .get(url)
                .header("Authorization", sign(&self.admin)),
        )
        .await
    }

    /// A form posted below `/MAAS/` by the administrator.
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        let url = format!("{}/MAAS/{path}", self.base);
        self.send(
            self.http
                .post(url)
                .header("Authorization", sign(&self.admin))
                .form(form),
        )
        .await
    }

    /// A form put below `/MAAS/` by the administrator.
    pub async fn put(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        let url = format!("{}/MAAS/{path}", self.base);
        self.send(
            self.http
                .put(url)
                .header("Authorization", sign(&self.admin))
                .form(form),
        )
        .await
    }

    /// Changes a setting.
    pub async fn set(&self, name: &str, value: &str) {
        self.post(
            "api/2.0/maas/?op=set_config",
            &[("name", name), ("value", value)],
        )
        .await
        .is(200);
    }

    /// A machine as the administrator sees it.
    pub async fn machine(&self, system_id: &str) -> Value {
        self.get(&format!("api/2.0/machines/{system_id}/"))
            .await
            .json()
    }

    /// Name of a machine's status.
    pub async fn status(&self, system_id: &str) -> String {
        self.machine(system_id).await["status_name"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Descriptions of the events of a type about a machine, newest first.
    pub async fn events(&self, system_id: &str, kind: &str) -> Vec<String> {
        let mut tx = self.region.db.read().await.unwrap();
        let rows = store::all!(
            tx,
            (String,),
            "SELECT description FROM event WHERE node_system_id = $1 AND type = $2 ORDER BY id DESC",
            system_id,
            kind
        )
        .unwrap();
        rows.into_iter().map(|r| r.0).collect()
    }

    /// Everything recorded of a machine's boots, as JSON text.
    pub async fn timeline(&self, system_id: &str) -> String {
        let id = SystemId::from(system_id);
        let boot = self.region.timeline.latest(&id).await.unwrap();
        serde_json::to_string(&boot).unwrap()
    }

    /// A host on the machines' network that calls over the rack.
    pub fn host(&self, ip: &str, mac: Option<&str>) -> Host<'_> {
        Host {
            w: self,
            ip: ip.parse().unwrap(),
            mac: mac.map(|m| m.parse().unwrap()),
        }
    }

    /// The first machine.
    pub fn first(&self) -> Host<'_> {
        self.host(IP, Some(MAC))
    }
}

/// A host on the machines' network. What it asks goes over the rack, and with no mac the rack knows nothing
/// of its address.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    w: &'a World,
    ip: IpAddr,
    mac: Option<MacAddr>,
}

/// A part of a form: name, content, and whether it is a file.
pub type Part<'a> = (&'a str, &'a [u8], bool);

impl Host<'_> {
    async fn call(
        &self,
        method: &str,
        target: &str,
        key: Option<&ApiKey>,
        kind: &str,
        body: Vec<u8>,
    ) -> Reply {
        let mut headers = vec![("content-type".to_owned(), kind.to_owned())];
        if let Some(key) = key {
            headers.push(("authorization".to_owned(), sign(key)));
        }
        let request = PassedRequest {
            method: method.to_owned(),
            target: format!("/MAAS/{target}"),
            headers,
            body: Bytes::from(body),
            client: self.ip,
            mac: self.mac,
            base: RACK.to_owned(),
        };
        let r = self.w.port.pass(&self.w.rack, request).await.unwrap();
        let kind = r
            .headers
            .iter()
            .find(|(n, _)| n == "content-type")
            .map(|(_, v)| v.clone())
            .unwrap_or_default();
        Reply {
            status: r.status,
            kind,
            body: r.body,
        }
    }

    /// A GET below `/MAAS/`.
    pub async fn get(&self, target: &str, key: Option<&ApiKey>) -> Reply {
        self.call("GET", target, key, "", Vec::new()).await
    }

    /// A multipart form posted below `/MAAS/`.
    pub async fn post(&self, target: &str, key: Option<&ApiKey>, parts: &[Part<'_>]) -> Reply {
        let mut body = Vec::new();
        for (name, content, is_file) in parts {
            let file = if *is_file {
                format!("; filename=\"{name}\"")
            } else {
                String::new()
            };
            body.extend_from_slice(
                format!("--b0und\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                    .as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--b0und--\r\n");
        self.call(
            "POST",
            target,
            key,
            "multipart/form-data; boundary=b0und",
            body,
        )
        .await
    }

    /// JSON posted below `/MAAS/`.
    pub async fn post_json(&self, target: &str, key: Option<&ApiKey>, value: &Value) -> Reply {
        self.call(
            "POST",
            target,
            key,
            "application/json",
            value.to_string().into_bytes(),
        )
        .await
    }

    /// The preseed of a machine, which must be answered, and the key in it.
    pub async fn preseed(&self, system_id: &str) -> (Value, ApiKey) {
        let reply = self
            .get(
                &format!("metadata/latest/by-id/{system_id}/?op=get_preseed"),
                None,
            )
            .await
            .is(200);
        let text = reply.text();
        assert!(text.starts_with("#cloud-config\n"), "{text}");
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let maas = &value["datasource"]["MAAS"];
        let member = |name: &str| maas[name].as_str().unwrap().to_owned();
        let key = ApiKey {
            consumer_key: member("consumer_key"),
            token_key: member("token_key"),
            token_secret: member("token_secret"),
        };
        (value, key)
    }

    /// A signal with a status and further fields.
    pub async fn signal(&self, key: &ApiKey, status: &str, fields: &[(&str, &str)]) -> Reply {
        let mut parts: Vec<Part<'_>> = vec![
            ("op", b"signal", false),
            ("status", status.as_bytes(), false),
        ];
        parts.extend(fields.iter().map(|(n, v)| (*n, v.as_bytes(), false)));
        self.post("metadata/2012-03-01/", Some(key), &parts).await
    }

    /// The list of scripts that the machine is to run, with their bodies.
    pub async fn scripts(&self, key: Option<&ApiKey>) -> Option<(Value, BTreeMap<String, String>)> {
        let reply = self.get("metadata/2012-03-01/maas-scripts", key).await;
        if reply.status == 204 {
            return None;
        }
        assert_eq!(
            (reply.status, reply.kind.as_str()),
            (200, "application/x-tar"),
            "{}",
            reply.text()
        );
        let mut index = Value::Null;
        let mut bodies = BTreeMap::new();
        for entry in tar::Archive::new(&reply.body[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            if path == "index.json" {
                index = serde_json::from_str::<Value>(&text).unwrap()["1.0"].clone();
            } else {
                bodies.insert(path, text);
            }
        }
        Some((index, bodies))
    }

    /// Sends the result of a script.
    pub async fn result(
        &self,
        key: &ApiKey,
        script: &Value,
        exit_status: i64,
        output: &[u8],
    ) -> Reply {
        let name = script["name"].as_str().unwrap();
        let (id, version) = (
            script["script_result_id"].to_string(),
            script["script_version_id"].to_string(),
        );
        let exit = exit_status.to_string();
        let out = format!("{name}.out");
        let parts: [Part<'_>; 8] = [
            ("op", b"signal", false),
            ("status", b"WORKING", false),
            ("script_result_id", id.as_bytes(), false),
            ("script_version_id", version.as_bytes(), false),
            ("exit_status", exit.as_bytes(), false),
            ("runtime", b"1.5", false),
            (name, output, true),
            (&out, output, true),
        ];
        self.post("metadata/2012-03-01/", Some(key), &parts).await
    }

    /// Runs every commissioning script as an agent would; the inventory is this one.
    pub async fn run_commissioning(&self, key: &ApiKey, inventory: &Value) {
        let (index, bodies) = self
            .scripts(Some(key))
            .await
            .expect("there are scripts to run");
        for script in index["commissioning_scripts"].as_array().unwrap() {
            let name = script["name"].as_str().unwrap();
            assert!(
                bodies[script["path"].as_str().unwrap()].starts_with("#!"),
                "{name}"
            );
            let id = script["script_result_id"].to_string();
            self.signal(key, "WORKING", &[("script_result_id", &id)])
                .await
                .is(200);
            let output = match name {
                "50-maas-01-commissioning" => inventory.to_string(),
                "maas-kernel-cmdline" => {
                    format!("nomodeset ro BOOTIF=01-{}\n", MAC.replace(':', "-"))
                }
                other => format!("output of {other}\n"),
            };
            self.result(key, script, 0, output.as_bytes()).await.is(200);
        }
        assert!(
            self.scripts(Some(key))
                .await
                .is_none_or(|(i, _)| i.get("commissioning_scripts").is_none()),
            "all scripts are done"
        );
    }

    /// Enlists as the first machine does; gives its system id.
    pub async fn enlist(&self) -> String {
        let mac = self.mac.unwrap().to_string();
        let reply = self
            .post(
                "api/2.0/machines/",
                None,
                &[
                    ("architecture", b"amd64", false),
                    ("mac_addresses", mac.as_bytes(), false),
                    ("commission", b"true", false),
                ],
            )
            .await
            .is(200);
        reply.json()["system_id"].as_str().unwrap().to_owned()
    }

    /// Enlists, is given a power type and commissioned: Ready.
    pub async fn make_ready(&self) -> String {
        let id = self.enlist().await;
        self.w
            .put(
                &format!("api/2.0/machines/{id}/"),
                &[("power_type", "manual")],
            )
            .await
            .is(200);
        self.w
            .post(&format!("api/2.0/machines/{id}/?op=commission"), &[])
            .await
            .is(200);
        let (_, key) = self.preseed(&id).await;
        self.run_commissioning(&key, &inventory()).await;
        self.signal(&key, "OK", &[]).await.is(200);
        assert_eq!(self.w.status(&id).await, "Ready");
        id
    }

    /// Makes the first machine Ready and starts to deploy it; gives its id and the ephemeral system's key.
    pub async fn make_deploying(&self, user_data: Option<&str>) -> (String, ApiKey) {
        let id = self.make_ready().await;
        let mut form = vec![("distro_series", "bookworm"), ("osystem", "debian")];
        form.extend(user_data.map(|u| ("user_data", u)));
        self.w
            .post(&format!("api/2.0/machines/{id}/?op=deploy"), &form)
            .await
            .is(200);
        assert_eq!(self.w.status(&id).await, "Deploying");
        let (_, key) = self.preseed(&id).await;
        (id, key)
    }
}

/// What `50-maas-01-commissioning` prints on a small virtual machine.
pub fn inventory() -> Value {
    json!({
        "api_extensions": ["resources"], "api_version": "1.0",
        "environment": { "kernel": "Linux", "kernel_architecture": "x86_64", "kernel_version": "6.1.0", "os_name": "debian", "os_version": "12",
            "server": "steelyard-agent", "server_name": "node", "server_version": "0.1.0" },
        "resources": {
            "cpu": { "architecture": "x86_64", "total": 2, "sockets": [{ "name": "QEMU Virtual CPU", "vendor": "AuthenticAMD", "socket": 0, "frequency": 2400,
                "cores": [{ "core": 0, "die": 0, "threads": [{ "id": 0, "thread": 0, "numa_node": 0, "online": true, "isolated": false }] },
                          { "core": 1, "die": 0, "threads": [{ "id": 1, "thread": 0, "numa_node": 0, "online": true, "isolated": false }] }] }] },
            "memory": { "total": 2_147_483_648u64, "used": 0, "nodes": [{ "numa_node": 0, "total": 2_147_483_648u64, "used": 0, "hugepages_total": 0, "hugepages_used": 0 }],
                "hugepages_size": 2_097_152, "hugepages_total": 0, "hugepages_used": 0 },
            "gpu": { "cards": [], "total": 0 },
            "network": { "total": 1, "cards": [{ "driver": "virtio_net", "numa_node": 0, "pci_address": "0000:00:03.0", "vendor": "Red Hat, Inc.", "vendor_id": "1af4",
                "product": "Virtio network device", "product_id": "1000", "firmware_version": "",
                "ports": [{ "id": "ens3", "address": MAC, "port": 0, "protocol": "ethernet", "link_detected": true, "auto_negotiation": false }] }] },
            "storage": { "total": 1, "disks": [{ "id": "vda", "device": "254:0", "model": "", "type": "virtio", "read_only": false, "size": 21_474_836_480u64,
                "removable": false, "numa_node": 0, "block_size": 512, "rpm": 0, "serial": "D1", "device_id": "virtio-D1", "partitions": [] }] },
            "usb": { "devices": [], "total": 0 }, "pci": { "devices": [], "total": 0 },
            "system": { "uuid": "9c4a2a0c-0000-4000-8000-000000000001", "vendor": "QEMU", "product": "Standard PC", "family": "", "version": "pc", "sku": "",
                "serial": "S1", "type": "virtual-machine", "firmware": { "vendor": "SeaBIOS", "version": "1.16", "date": "04/01/2014" } },
        },
        "networks": { "ens3": { "addresses": [{ "family": "inet", "address": IP, "netmask": "24", "scope": "global" }],
            "hwaddr": MAC, "mtu": 1500, "state": "up", "type": "broadcast" } },
    })
}
