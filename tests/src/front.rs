//! A region that serves its API and does nothing by itself: no workers, no clock, no rack. What its database
//! holds afterwards is what the calls did.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use link::message::{Hello, Welcome};
use link::port::Region as _;
use metal::Timestamp;
use metal::status::Status;
use region::Region;
use region::auth::{self, ApiKey, TokenFor};
use region::error::ApiError;
use region::rack_link::RegionPort;
use serde_json::Value;
use store::Target;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::{Client, Fields};
use crate::cluster::Engine;

/// Name and password of the administrator.
pub const ADMIN: (&str, &str) = ("admin", "a password of tests");

/// A region with its API on a port of its own, an administrator, and one image.
pub struct Front {
    /// The region.
    pub region: Arc<Region>,
    /// The API's address, ending in `/MAAS`.
    pub url: String,
    /// The API as the administrator.
    pub admin: Client,
    /// The database, to be opened again.
    pub database: Target,
    /// Its files.
    pub dir: TempDir,
    serving: JoinHandle<()>,
}

/// The ids of what [`Front::layers`] makes.
#[derive(Clone, Debug)]
pub struct Layers {
    /// A volume group.
    pub group: String,
    /// A logical volume of it.
    pub volume: String,
    /// A RAID.
    pub raid: String,
    /// A cache set.
    pub cache_set: String,
    /// A bcache device on it.
    pub bcache: String,
    /// A datastore.
    pub datastore: String,
    /// Partitions that nothing uses.
    pub free: Vec<String>,
}

/// The time now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// A number that this process has not given before.
#[must_use]
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A hardware address that this process has not given before.
#[must_use]
pub fn mac() -> String {
    let [_, a, b, c] = unique().to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// An SSH key that this process has not given before.
#[must_use]
pub fn ssh_key() -> String {
    use base64::Engine as _;
    let mut wire = vec![0, 0, 0, 11];
    wire.extend_from_slice(b"ssh-ed25519\x00\x00\x00\x20");
    wire.extend_from_slice(&[7; 28]);
    wire.extend_from_slice(&unique().to_be_bytes());
    format!(
        "ssh-ed25519 {} somebody@somewhere",
        base64::engine::general_purpose::STANDARD.encode(wire)
    )
}

/// A certificate as PEM that this process has not given before.
///
/// # Panics
/// When none can be made.
#[must_use]
pub fn ssl_key() -> String {
    let made = rcgen::generate_simple_self_signed(vec![format!("n{}.example", unique())]);
    made.expect("a certificate").cert.pem()
}

/// What commissioning finds on a machine with this hardware address.
fn inventory(mac: &str) -> String {
    let hardware =
        fleet::hardware::Hardware::draw(1, unique() as usize, fleet::hardware::Firmware::Bios);
    fleet::inventory::document(&hardware, Ipv4Addr::new(10, 0, 0, 1))
        .to_string()
        .replace(&hardware.mac().to_string(), mac)
}

async fn serve(region: &Arc<Region>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    let region = Arc::clone(region);
    let serving = tokio::spawn(async move {
        region::http::serve(region, listener)
            .await
            .expect("the API is served");
    });
    (format!("http://{address}/MAAS"), serving)
}

async fn open(database: &Target, data_dir: &Path, name: &str) -> Arc<Region> {
    Region::open(region::Config {
        data_dir: data_dir.to_owned(),
        database: database.clone(),
        name: name.to_owned(),
        agents: BTreeMap::from([(
            "amd64".to_owned(),
            bytes::Bytes::from_static(b"\x7fELF as good as an agent for who does not run it"),
        )]),
    })
    .await
    .expect("the region opens")
}

impl Front {
    /// Starts a region on a database of its own; it answers when this returns.
    ///
    /// # Panics
    /// When it does not start; so do all that follow when something goes wrong.
    pub async fn start(engine: Engine) -> Self {
        // Another test of this process may have been first.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let database = match engine {
            Engine::Sqlite => Target::Sqlite(dir.path().join("region.db")),
            Engine::Postgres => Target::Postgres(store::testing::postgres_database().await),
        };
        let region = open(&database, &dir.path().join("region"), "first").await;
        region::user::create_admin(&region, ADMIN.0, ADMIN.1, "admin@example.com", now())
            .await
            .expect("an administrator");
        let (url, serving) = serve(&region).await;
        let admin = Self::client(&region, &url, ADMIN.0).await;
        let front = Self {
            region,
            url,
            admin,
            database,
            dir,
            serving,
        };
        // Without one no architecture is known.
        front.image("ubuntu/noble").await;
        front
    }

    /// Another region on the same database, with the same key for its secrets.
    pub async fn second(&self) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("region");
        std::fs::create_dir_all(&data).expect("a data directory");
        std::fs::copy(
            self.dir.path().join("region/secret.key"),
            data.join("secret.key"),
        )
        .expect("the key is shared");
        let region = open(&self.database, &data, "second").await;
        let (url, serving) = serve(&region).await;
        let admin = Self::client(&region, &url, ADMIN.0).await;
        Self {
            region,
            url,
            admin,
            database: self.database.clone(),
            dir,
            serving,
        }
    }

    async fn client(region: &Arc<Region>, url: &str, name: &str) -> Client {
        let key = region::user::api_key(region, name, now())
            .await
            .expect("the user's key")
            .joined();
        Client::new(url, Some(&key))
    }

    /// Every operation, but for our own face those only that stand beside the table: what follows from others
    /// is looked at by the tests of that face.
    #[must_use]
    pub fn operations(&self) -> Vec<&'static region::operation::Operation> {
        let own = |o: &&&'static region::operation::Operation| {
            o.face != region::operation::Face::V1 || o.uri.contains("/boots")
        };
        self.region.table().iter().filter(own).copied().collect()
    }

    /// The engine of its database.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.database {
            Target::Postgres(_) => Engine::Postgres,
            Target::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// The API without credentials.
    #[must_use]
    pub fn nobody(&self) -> Client {
        self.admin.anonymous()
    }

    /// Makes a user without privileges and gives the API as that user.
    pub async fn user(&self, name: &str) -> Client {
        let email = format!("{name}@example.com");
        let fields = [
            ("username", name),
            ("email", email.as_str()),
            ("password", "another password"),
            ("is_superuser", "0"),
        ];
        drop(self.admin.create("users/", &fields).await.good());
        Self::client(&self.region, &self.url, name).await
    }

    /// Adds a machine whose power is switched by hand, in the status New, with more fields of the form.
    pub async fn machine(&self, more: Fields<'_>) -> Value {
        let mac = mac();
        let mut fields = vec![
            ("architecture", "amd64/generic"),
            ("mac_addresses", mac.as_str()),
            ("commission", "false"),
        ];
        if !more.iter().any(|(k, _)| *k == "power_type") {
            fields.push(("power_type", "manual"));
        }
        fields.extend(more);
        self.admin.create("machines/", &fields).await.good()
    }

    /// Puts a machine into a status, as if it had been Ready before, without living through what leads to
    /// it. Only for tests: the product has no such thing.
    pub async fn put_into(&self, system_id: &str, status: Status, owner: Option<&str>) {
        let (system_id, owner) = (system_id.to_owned(), owner.map(str::to_owned));
        self.write(move |tx| {
            let (system_id, owner) = (system_id.clone(), owner.clone());
            Box::pin(async move {
                store::exec!(
                    tx,
                    "UPDATE node SET status = $2, previous_status = 4, owner_id = (SELECT id FROM user_account WHERE username = $3) \
                     WHERE system_id = $1",
                    system_id,
                    status.code(),
                    owner
                )?;
                Ok(())
            })
        })
        .await;
    }

    /// Gives a machine a disk with a formatted partition, and the results of a commissioning that passed:
    /// the ids of disk, partition and results.
    pub async fn equip(&self, system_id: &str) -> (i64, i64, i64) {
        let system_id = system_id.to_owned();
        self.write(move |tx| {
            let system_id = system_id.clone();
            Box::pin(async move {
                let (node,) = store::one!(tx, (i64,), "SELECT id FROM node WHERE system_id = $1", &system_id)?;
                let (disk,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO block_device (node_id, type, name, id_path, size, block_size, model, serial, firmware_version, tags, numa_index, \
                     partition_table_type, created, updated) \
                     VALUES ($1, 'physical', 'sda', '/dev/disk/by-id/a', 64000000000, 512, 'M', 'S', 'F', '[\"ssd\"]', 0, 'GPT', 0, 0) RETURNING id",
                    node
                )?;
                let (partition,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO partition (block_device_id, number, uuid, size, bootable, created, updated) \
                     VALUES ($1, 1, 'a-uuid', 32000000000, TRUE, 0, 0) RETURNING id",
                    disk
                )?;
                store::exec!(
                    tx,
                    "INSERT INTO filesystem (node_id, partition_id, fstype, label, uuid, mount_point, mount_options, created, updated) \
                     VALUES ($1, $2, 'ext4', 'root', 'b-uuid', '/', '', 0, 0)",
                    node,
                    partition
                )?;
                let (set,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO script_set (node_id, result_type, last_ping, created) VALUES ($1, 0, 1000000, 0) RETURNING id",
                    node
                )?;
                let (mac,) = store::one!(tx, (String,), "SELECT mac FROM interface WHERE node_id = $1 ORDER BY id LIMIT 1", node)?;
                for (script, output) in [("maas-lshw", "<list/>".to_owned()), (region::hardware::SCRIPT, inventory(&mac))] {
                    store::exec!(
                        tx,
                        "INSERT INTO script_result (script_set_id, script_id, script_version_id, script_name, status, exit_status, output, stdout, \
                         stderr, result, started, ended, created, updated) SELECT $1, id, current_version_id, name, 2, 0, $2, $2, $3, $3, 1000000, \
                         2000000, 0, 0 FROM script WHERE name = $4",
                        set,
                        output.as_bytes(),
                        b"".as_slice(),
                        script
                    )?;
                }
                store::exec!(
                    tx,
                    "UPDATE node SET current_commissioning_set_id = $2, cpu_count = 4, memory = 4096, boot_disk_id = $3, \
                     numa = '[{\"index\":0,\"memory\":4096,\"cores\":[0,1],\"hugepages_set\":[]}]' WHERE id = $1",
                    node,
                    set,
                    disk
                )?;
                Ok((disk, partition, set))
            })
        })
        .await
    }

    /// Gives an allocated machine that has a boot disk another one, and on its partitions one of everything
    /// that is made of several devices.
    pub async fn layers(&self, system_id: &str) -> Layers {
        let at = format!("nodes/{system_id}/");
        let post = |path: String, fields: Vec<(&'static str, String)>| async move {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
            self.admin.create(&path, &fields).await.good()
        };
        let text = |t: &str| t.to_owned();
        let id = |v: &Value| v["id"].to_string();
        let disk = vec![
            ("name", text("sdz")),
            ("size", text("100G")),
            ("block_size", text("512")),
            ("id_path", text("/dev/disk/by-id/sdz")),
        ];
        let disk = id(&post(format!("{at}blockdevices/"), disk).await);
        let mut parts = Vec::new();
        for _ in 0..8 {
            let path = format!("{at}blockdevices/{disk}/partitions/");
            parts.push(id(&post(path, vec![("size", text("5G"))]).await));
        }
        let free = parts.split_off(6);
        let vg = vec![("name", text("a-group")), ("partitions", parts[0].clone())];
        let group = id(&post(format!("{at}volume-groups/"), vg).await);
        let path = format!("{at}volume-group/{group}/");
        let lv = [("name", "a-volume"), ("size", "1G")];
        let volume = id(&self
            .admin
            .op(&path, "create_logical_volume", &lv)
            .await
            .good());
        let raid = vec![("level", text("1")), ("partitions", parts[1..3].join(","))];
        let raid = id(&post(format!("{at}raids/"), raid).await);
        let set = vec![("cache_partition", parts[3].clone())];
        let cache_set = id(&post(format!("{at}bcache-cache-sets/"), set).await);
        let bcache = vec![
            ("cache_set", cache_set.clone()),
            ("cache_mode", text("writeback")),
            ("backing_partition", parts[4].clone()),
        ];
        let bcache = id(&post(format!("{at}bcaches/"), bcache).await);
        let store = vec![("name", text("a-store")), ("partitions", parts[5].clone())];
        let datastore = id(&post(format!("{at}vmfs-datastores/"), store).await);
        Layers {
            group,
            volume,
            raid,
            cache_set,
            bcache,
            datastore,
            free,
        }
    }

    /// Gives a machine a device on its PCI bus, a graphics card: its id.
    pub async fn bus_device(&self, system_id: &str) -> i64 {
        let system_id = system_id.to_owned();
        self.write(move |tx| {
            let system_id = system_id.clone();
            Box::pin(async move {
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO node_device (node_id, bus, hardware_type, vendor_id, product_id, vendor_name, product_name, \
                     commissioning_driver, bus_number, device_number, pci_address, created, updated) \
                     SELECT n.id, 1, 5, '10de', '1eb8', 'Maker', 'Card', 'driver', 59, 0, '0000:3b:00.0', 0, 0 FROM node n \
                     WHERE n.system_id = $1 RETURNING id",
                    &system_id
                )?;
                Ok(id)
            })
        })
        .await
    }

    /// An image that can be booted and installed, and its resource's id. Its content is nowhere: nobody
    /// fetches it here.
    pub async fn image(&self, name: &str) -> i64 {
        let name = name.to_owned();
        self.write(move |tx| {
            let name = name.clone();
            Box::pin(async move {
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO boot_resource (rtype, name, architecture, extra, created, updated) \
                     VALUES (0, $1, 'amd64/generic', '{\"subarches\": \"generic\", \"platform\": \"generic\", \"supported_platforms\": \"generic\"}', 0, 0) RETURNING id",
                    &name
                )?;
                let (set,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO boot_resource_set (resource_id, version, label, created) VALUES ($1, '20260101', 'stable', 0) RETURNING id",
                    id
                )?;
                for (kind, hash) in [("boot-kernel", "aa11"), ("boot-initrd", "bb22"), ("squashfs", "cc33"), ("root-tgz", "dd44")] {
                    store::exec!(
                        tx,
                        "INSERT INTO boot_resource_file (set_id, filename, filetype, sha256, size) VALUES ($1, $2, $2, $3, 1000)",
                        set,
                        kind,
                        hash
                    )?;
                }
                Ok(id)
            })
        })
        .await
    }

    /// A source of images and a selection of it. The source's directory does not exist.
    pub async fn source(&self) -> (i64, i64) {
        let url = format!("/nowhere/{}", unique());
        self.write(move |tx| {
            let url = url.clone();
            Box::pin(async move {
                let (source,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO boot_source (url, synced, created, updated) VALUES ($1, 1, 0, 0) RETURNING id",
                    &url
                )?;
                let (selection,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO boot_source_selection (boot_source_id, os, release, arches) VALUES ($1, 'ubuntu', 'noble', '[\"amd64\"]') RETURNING id",
                    source
                )?;
                Ok((source, selection))
            })
        })
        .await
    }

    /// Credentials of a machine, as a preseed gives them: for `ephemeral` or `installed`.
    pub async fn node_key(&self, system_id: &str, purpose: &'static str) -> ApiKey {
        let (key, region) = (ApiKey::random(), Arc::clone(&self.region));
        let (kept, system_id) = (key.clone(), system_id.to_owned());
        self.write(move |tx| {
            let (key, region, system_id) = (kept.clone(), Arc::clone(&region), system_id.clone());
            Box::pin(async move {
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "SELECT id FROM node WHERE system_id = $1",
                    &system_id
                )?;
                auth::insert_token(tx, &region, &key, TokenFor::Node { id, purpose }, now()).await
            })
        })
        .await;
        key
    }

    /// The API as a machine.
    pub async fn node(&self, system_id: &str, purpose: &'static str) -> Client {
        Client::new(
            &self.url,
            Some(&self.node_key(system_id, purpose).await.joined()),
        )
    }

    /// The region as a rack in the same process sees it.
    #[must_use]
    pub fn port(&self) -> RegionPort {
        RegionPort::local(Arc::clone(&self.region))
    }

    /// A rack presents itself.
    pub async fn rack(&self) -> Welcome {
        let hello = Hello {
            version: link::VERSION,
            rack: None,
            hostname: "rack".to_owned(),
            program: "test".to_owned(),
            interfaces: Vec::new(),
            services: BTreeMap::from([(
                "http".to_owned(),
                link::message::Service {
                    status: "running".to_owned(),
                    info: String::new(),
                },
            )]),
            position: None,
        };
        self.port().hello(hello).await.expect("the rack is known")
    }

    /// Writes to the database as nobody but a test does.
    ///
    /// # Panics
    /// When it fails.
    pub async fn write<T, F>(&self, f: F) -> T
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut store::Tx) -> futures::future::BoxFuture<'t, Result<T, ApiError>>
            + Send
            + Sync
            + 'static,
    {
        self.region.db.write(f).await.expect("the test's own write")
    }

    /// Every table of the database with every row, as text.
    pub async fn dump(&self) -> BTreeMap<String, Vec<String>> {
        dump(&self.region).await
    }

    /// Number of audit events.
    pub async fn audits(&self) -> i64 {
        let mut tx = self.region.db.read().await.expect("a reader");
        store::one!(tx, (i64,), "SELECT COUNT(*) FROM event WHERE level = 0")
            .expect("events are counted")
            .0
    }

    /// Ends it.
    pub async fn stop(self) {
        self.region.stop().await;
        self.serving.abort();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.region.stop.cancel();
        self.serving.abort();
    }
}

/// A statement made at run time. It stays in memory, like all statements.
fn statement(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// One statement that gives every row of every table, for a database of this engine.
async fn everything(tx: &mut store::Tx) -> &'static str {
    static KNOWN: Mutex<Vec<(store::dialect::Engine, &str)>> = Mutex::new(Vec::new());
    let engine = tx.engine();
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, sql)) = known().iter().find(|(e, _)| *e == engine) {
        return sql;
    }
    let lite = engine == store::dialect::Engine::Sqlite;
    let tables = if lite {
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    } else {
        "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
    };
    let mut parts = Vec::new();
    for (table,) in store::all!(tx, (String,), tables).expect("the list of tables") {
        let row = if lite {
            let columns = statement(format!("SELECT name FROM pragma_table_info('{table}')"));
            let columns = store::all!(tx, (String,), columns).expect("the columns of a table");
            let quoted: Vec<String> = columns
                .into_iter()
                .map(|(c,)| format!("'{c}=' || quote(\"{c}\")"))
                .collect();
            quoted.join(" || ' ' || ")
        } else {
            "t::text".to_owned()
        };
        parts.push(format!("SELECT '{table}', {row} FROM \"{table}\" t"));
    }
    let sql = statement(parts.join(" UNION ALL ") + " ORDER BY 1, 2");
    known().push((engine, sql));
    sql
}

/// Every table of a region's database but those of the boot timeline, with every row, as text. The boot
/// timeline, which SQLite has in a file of its own, records what is refused as well.
///
/// # Panics
/// When it cannot be read.
pub async fn dump(region: &Region) -> BTreeMap<String, Vec<String>> {
    let mut all = dump_all(region).await;
    all.retain(|table, _| {
        !table.starts_with("boot_entry") && table != "boot" && !table.starts_with("timeline")
    });
    all
}

/// Every table of a region's database with every row, as text.
///
/// # Panics
/// When it cannot be read.
pub async fn dump_all(region: &Region) -> BTreeMap<String, Vec<String>> {
    let mut tx = region.db.read().await.expect("a reader");
    let sql = everything(&mut tx).await;
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (table, row) in store::all!(tx, (String, String), sql).expect("the rows of all tables") {
        out.entry(table).or_default().push(row);
    }
    out
}

/// What is different between two dumps, in words; empty when nothing is.
#[must_use]
pub fn difference(
    before: &BTreeMap<String, Vec<String>>,
    after: &BTreeMap<String, Vec<String>>,
) -> String {
    if before == after {
        return String::new();
    }
    let mut out = String::new();
    let tables: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for table in tables {
        let rows_of = |of: &BTreeMap<String, Vec<String>>| -> HashSet<String> {
            of.get(table).into_iter().flatten().cloned().collect()
        };
        let (old, rows) = (rows_of(before), rows_of(after));
        for r in rows.difference(&old) {
            out.push_str(&format!("+ {table}: {r}\n"));
        }
        for r in old.difference(&rows) {
            out.push_str(&format!("- {table}: {r}\n"));
        }
    }
    out
}

/// Compares a text with the checked-in one under `tests/golden`; with `UPDATE_EXPECT=1` writes it anew.
///
/// # Panics
/// When they differ, with the lines that do.
pub fn golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, text).expect("the expected text is written");
        return;
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{} ({e}): UPDATE_EXPECT=1 writes it", path.display()));
    if expected == text {
        return;
    }
    let lines = |of: &str, other: &str, mark: &str| -> String {
        let other: HashSet<&str> = other.lines().collect();
        of.lines()
            .filter(|l| !other.contains(l))
            .map(|l| format!("{mark} {l}\n"))
            .collect()
    };
    panic!(
        "{file} is not as expected (UPDATE_EXPECT=1 writes it anew):\n{}{}",
        lines(&expected, text, "-"),
        lines(text, &expected, "+")
    );
}

/// Makes a test that runs on SQLite, and with the feature `peers` on a real PostgreSQL too, with a [`Front`]:
///
/// ```ignore
/// steelyard_tests::front_test! {
///     /// Nobody reads the machines without a key.
///     async fn machines_need_a_key(f: Front) { … f.nobody().get("machines/").await … }
/// }
/// ```
#[macro_export]
macro_rules! front_test {
    ($($(#[$meta:meta])* async fn $name:ident($f:ident: Front) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn body($f: &$crate::front::Front) $body
            async fn run(engine: $crate::Engine) {
                let front = $crate::front::Front::start(engine).await;
                body(&front).await;
                front.stop().await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() { run($crate::Engine::Sqlite).await }
            #[cfg(feature = "peers")]
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() { run($crate::Engine::Postgres).await }
        }
    )*};
}
