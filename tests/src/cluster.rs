//! Region and rack in one process, as `steelyard up` runs them, for one test.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::api::Api;
use fleet::{Fleet, FleetConfig, Network};
use metal::Timestamp;
use rack::Rack;
use rack::rack::Enable;
use region::Region;
use region::rack_link::RegionPort;
use store::Target;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::Client;

/// How long anything is waited for. Far longer than needed: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Name and password of the administrator.
const ADMIN: (&str, &str) = ("admin", "a password of tests");

/// The database engine of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// SQLite in the cluster's directory.
    #[default]
    Sqlite,
    /// A database of its own on the PostgreSQL of the tests.
    Postgres,
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// On which database.
    pub engine: Engine,
    /// Whether a rack runs beside the region: HTTP boot and power, nothing that needs privileges.
    pub rack: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: Engine::Sqlite,
            rack: true,
        }
    }
}

/// A region with its API on a port of its own, a rack, and an administrator.
pub struct TestCluster {
    /// The region.
    pub region: Arc<Region>,
    /// The rack.
    pub rack: Option<Rack>,
    /// The API as the administrator.
    pub admin: Client,
    /// The administrator's key.
    pub key: String,
    /// The API's address, ending in `/MAAS`.
    pub url: String,
    /// Files of region and rack; gone with this value.
    pub dir: TempDir,
    serving: JoinHandle<()>,
}

/// Waits until a look finds something.
///
/// # Panics
/// With the words of the last look, when [`LIMIT`] has passed.
pub async fn until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(
                started.elapsed() < LIMIT,
                "waited {LIMIT:?} until {what}; last: {last}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

async fn target(engine: Engine, dir: &Path) -> Target {
    match engine {
        Engine::Sqlite => Target::Sqlite(dir.join("region.db")),
        Engine::Postgres => Target::Postgres(store::testing::postgres_database().await),
    }
}

impl TestCluster {
    /// Starts a cluster; it answers when this returns.
    ///
    /// # Panics
    /// When it does not start; so do all that follow when something goes wrong.
    pub async fn start(options: Options) -> Self {
        // Another test of this process may have been first.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let region = Region::open(region::Config {
            data_dir: dir.path().join("region"),
            database: target(options.engine, dir.path()).await,
            name: "test".to_owned(),
            agents: Default::default(),
        });
        let region = region.await.expect("a fresh region opens");
        region::worker::start(&region);
        region::image::start(&region);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let url = format!(
            "http://{}/MAAS",
            listener
                .local_addr()
                .expect("a bound socket has an address")
        );
        let serving = tokio::spawn({
            let region = Arc::clone(&region);
            async move {
                region::http::serve(region, listener)
                    .await
                    .expect("the API is served")
            }
        });
        region::user::create_admin(&region, ADMIN.0, ADMIN.1, "admin@example.com", now())
            .await
            .expect("an administrator");
        let key = region::user::api_key(&region, ADMIN.0, now())
            .await
            .expect("the administrator's key")
            .joined();
        let admin = Client::new(&url, Some(&key));
        let mut cluster = Self {
            region,
            rack: None,
            admin,
            key,
            url,
            dir,
            serving,
        };
        if options.rack {
            cluster.start_rack(|_| {}).await;
        }
        cluster
    }

    /// Starts a rack on what an earlier one left, or on nothing, and waits until it has its snapshot.
    pub async fn start_rack(&mut self, change: impl FnOnce(&mut rack::Config)) {
        let mut config = rack::Config::new(self.dir.path().join("rack"));
        config.hostname = "test-rack".to_owned();
        config.http_listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        config.enable = Enable {
            dhcp: false,
            tftp: false,
            http: true,
            syslog: false,
            ra: false,
        };
        // None of this host's own boot loaders: tests are the same everywhere.
        config.distribution_root = self.dir.path().join("no-packages");
        // Simulated BMCs obey at once.
        config.power.verify = [10, 50, 250, 1_000, 4_000]
            .map(Duration::from_millis)
            .to_vec();
        change(&mut config);
        let port = Arc::new(RegionPort::local(Arc::clone(&self.region)));
        let rack = Rack::start(config, port, CancellationToken::new())
            .await
            .expect("the rack starts");
        until("the rack has its snapshot", || async {
            let (id, position) = (rack.shared().rack(), rack.shared().snapshot().position);
            if id.is_some() && position != link::snapshot::Position::default() {
                Ok(())
            } else {
                Err(format!("{id:?} {position:?}"))
            }
        })
        .await;
        self.rack = Some(rack);
    }

    /// Where machines reach the rack.
    #[must_use]
    pub fn rack_http(&self) -> SocketAddr {
        self.rack
            .as_ref()
            .expect("this cluster has a rack")
            .http_addresses()[0]
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
        let key = region::user::api_key(&self.region, name, now())
            .await
            .expect("the user's key")
            .joined();
        Client::new(&self.url, Some(&key))
    }

    /// The API as the fleet's helpers call it.
    #[must_use]
    pub fn fleet_api(&self) -> Api {
        Api::new(&self.url, Some(&self.key)).expect("the key has three parts")
    }

    /// Imports the simulated images and waits until the rack serves them.
    pub async fn import_images(&self) {
        let stream = self.dir.path().join("stream");
        fleet::demo::write_stream(&stream).expect("the stream is written");
        fleet::demo::import_images(&self.fleet_api(), &stream)
            .await
            .expect("the images are imported");
        if let Some(rack) = &self.rack {
            until("the rack knows the images", || async {
                let snapshot = rack.shared().snapshot();
                let known = snapshot
                    .images
                    .values()
                    .any(|i| i.osystem == snapshot.settings.commissioning_osystem);
                if known {
                    Ok(())
                } else {
                    Err(format!("{} images", snapshot.images.len()))
                }
            })
            .await;
        }
    }

    /// Simulated machines on the rack's network, all switched off.
    pub async fn fleet(&self, count: usize) -> Fleet {
        self.fleet_with(count, |_| {}).await
    }

    /// The same with other settings.
    pub async fn fleet_with(&self, count: usize, change: impl FnOnce(&mut FleetConfig)) -> Fleet {
        let mut config = FleetConfig::new(count, Network::loopback(self.rack_http()));
        change(&mut config);
        Fleet::start(config).await.expect("the fleet starts")
    }

    /// Waits until a machine has a status (its name, as the API says it) and gives the machine.
    pub async fn machine_with_status(&self, system_id: &str, status: &str) -> serde_json::Value {
        until(&format!("{system_id} is {status}"), || async {
            let machine = self
                .admin
                .get(&format!("machines/{system_id}/"))
                .await
                .good();
            let (now, why) = (
                machine["status_name"].as_str().unwrap_or_default(),
                &machine["status_message"],
            );
            if now == status {
                Ok(machine.clone())
            } else {
                Err(format!("{now} ({why})"))
            }
        })
        .await
    }

    /// Stops everything, in the order of `steelyard up`.
    pub async fn stop(mut self) {
        if let Some(rack) = self.rack.take() {
            rack.stop().await;
        }
        self.region.stop().await;
        self.serving.abort();
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.region.stop.cancel();
        self.serving.abort();
    }
}
