//! A running rack: [`Rack::start`] puts the services together, [`Rack::stop`] ends them.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use link::port::Region;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{self, Cache};
use crate::dhcp;
use crate::files::Files;
use crate::http::{self, Server};
use crate::interfaces::{self, Interfaces};
use crate::loaders::Loaders;
use crate::power::{Power, PowerConfig};
use crate::ra;
use crate::shared::Shared;
use crate::spool::{self, Spool};
use crate::syslog;
use crate::tftp;
use crate::uplink::{self, Commands, DhcpProbe, Uplink};

/// The HTTP port that machines boot from.
pub const HTTP_PORT: u16 = 5248;
/// Why a service is off that nobody wanted.
const SWITCHED_OFF: &str = "switched off on this rack";
/// Where [`Config::new`] looks for the distribution's boot loaders.
const ROOT: &str = "/";

/// How a rack runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where snapshot, spool and image cache are kept.
    pub data_dir: PathBuf,
    /// Where the boot HTTP server listens. The first one's port is in the addresses that machines are told.
    pub http_listen: Vec<SocketAddr>,
    /// Where TFTP listens.
    pub tftp_listen: Vec<SocketAddr>,
    /// Host name, for the region.
    pub hostname: String,
    /// Services to run.
    pub enable: Enable,
    /// Bytes of the image cache.
    pub cache_limit: u64,
    /// Bytes of reports that wait for the region.
    pub spool_limit: u64,
    /// How power orders are carried out.
    pub power: PowerConfig,
    /// Below this are the distribution's packages with boot loaders: `/` but in tests.
    pub distribution_root: PathBuf,
}

/// Which services a rack runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enable {
    /// DHCP (needs raw sockets), served only where the snapshot says so.
    pub dhcp: bool,
    /// TFTP.
    pub tftp: bool,
    /// HTTP boot.
    pub http: bool,
    /// The syslog receiver.
    pub syslog: bool,
    /// Router advertisements, sent only where the snapshot says so.
    pub ra: bool,
}

impl Enable {
    /// Only what needs no privileges.
    #[must_use]
    pub const fn unprivileged() -> Self {
        Self {
            dhcp: false,
            tftp: false,
            http: true,
            syslog: true,
            ra: false,
        }
    }
}

impl Config {
    /// The defaults for a data directory: every service, HTTP on all IPv4 addresses.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            http_listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, HTTP_PORT))],
            tftp_listen: tftp::Options::default().listen,
            hostname: String::from("localhost"),
            enable: Enable {
                dhcp: true,
                tftp: true,
                http: true,
                syslog: true,
                ra: true,
            },
            cache_limit: cache::DEFAULT_LIMIT,
            spool_limit: spool::DEFAULT_LIMIT,
            power: PowerConfig::default(),
            distribution_root: PathBuf::from(ROOT),
        }
    }
}

/// Why a rack does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory {} cannot be used", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The spool cannot be opened.
    #[error("the spool cannot be opened")]
    Spool(#[source] io::Error),
    /// The image cache cannot be opened.
    #[error("the image cache cannot be opened")]
    Cache(#[source] io::Error),
    /// The HTTP server cannot listen.
    #[error("cannot listen for HTTP on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The network interfaces cannot be listed.
    #[error("the network interfaces cannot be listed")]
    Interfaces(#[source] io::Error),
}

/// A running rack. Dropping it stops it without waiting.
pub struct Rack {
    shared: Shared,
    spool: Spool,
    files: Files,
    http: Vec<SocketAddr>,
    services: TaskTracker,
    recorders: TaskTracker,
    stop_services: CancellationToken,
    stop_recorders: CancellationToken,
}

impl Rack {
    /// Starts a rack and returns when it listens. It runs until `cancel` or [`Self::stop`]. Without its
    /// region it serves what an earlier run kept in the data directory. Services that this host does not
    /// allow are off, and the list of services says why.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        config: Config,
        region: Arc<dyn Region>,
        cancel: CancellationToken,
    ) -> Result<Self, StartError> {
        let data_dir = config.data_dir.clone();
        std::fs::create_dir_all(&data_dir).map_err(|cause| StartError::DataDir {
            path: data_dir.clone(),
            cause,
        })?;
        let (kept, identity) = uplink::load(&data_dir);
        let have_snapshot = kept.is_some();
        let (shared, reports) = Shared::new(kept.unwrap_or_default());
        if let Some(id) = identity {
            shared.set_rack(id);
        }

        // Services stop first; what records their last words stops after them.
        let stop_services = cancel.child_token();
        let stop_recorders = CancellationToken::new();
        let (services, recorders) = (TaskTracker::new(), TaskTracker::new());

        let spool =
            Spool::open(data_dir.join("spool"), config.spool_limit).map_err(StartError::Spool)?;
        spool.start(
            &shared,
            reports,
            Arc::clone(&region),
            &recorders,
            &stop_recorders,
        );
        recorders.spawn(uplink::persist(
            shared.clone(),
            data_dir.clone(),
            stop_recorders.clone(),
        ));

        let cache = Cache::new(
            data_dir.join("cache"),
            config.cache_limit,
            Arc::clone(&region),
            shared.clone(),
            services.clone(),
            stop_services.clone(),
        )
        .map_err(StartError::Cache)?;
        let loaders = Loaders::find(&config.distribution_root);

        let mut listeners = Vec::new();
        let mut http_addresses = Vec::new();
        if config.enable.http {
            for address in &config.http_listen {
                let failed = |cause| StartError::Listen {
                    address: *address,
                    cause,
                };
                let listener = http::bind(*address).map_err(failed)?;
                http_addresses.push(listener.local_addr().map_err(failed)?);
                listeners.push(listener);
            }
        }
        let http_port = http_addresses.first().map_or(HTTP_PORT, SocketAddr::port);
        let files = Files::new(shared.clone(), cache, loaders, spool.clone(), http_port);
        if config.enable.http {
            Server::new(
                files.clone(),
                shared.clone(),
                Arc::clone(&region),
                spool.clone(),
            )
            .start(listeners, &services, &stop_services);
            shared.set_service("http", "running", "");
        } else {
            shared.set_service("http", "off", SWITCHED_OFF);
        }

        let watcher = interfaces::Watcher::new().map_err(StartError::Interfaces)?;
        let interfaces_now = watcher.subscribe();
        let probe = start_network(
            &config,
            &shared,
            &files,
            &interfaces_now,
            &services,
            &stop_services,
        );
        services.spawn(watcher.run(shared.clone(), stop_services.clone()));

        let power = Power::new(config.power.clone(), shared.clone());
        let commands = Commands::new(
            Arc::clone(&region),
            power,
            probe,
            services.clone(),
            stop_services.clone(),
        );
        let uplink = Uplink {
            region,
            shared: shared.clone(),
            spool: spool.clone(),
            commands,
            data_dir,
            hostname: config.hostname.clone(),
            interfaces: Box::new(move || interfaces::told(&interfaces_now.borrow())),
            cancel: stop_services.clone(),
            have_snapshot,
        };
        services.spawn(uplink.run());
        services.close();
        recorders.close();
        Ok(Self {
            shared,
            spool,
            files,
            http: http_addresses,
            services,
            recorders,
            stop_services,
            stop_recorders,
        })
    }

    /// Where the HTTP server listens.
    #[must_use]
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// What the services share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The boot namespace.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The reports on their way to the region.
    #[must_use]
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Stops the services, lets what they reported reach the disk, and returns when everything has ended.
    pub async fn stop(self) {
        self.stop_services.cancel();
        self.services.wait().await;
        self.stop_recorders.cancel();
        self.recorders.wait().await;
    }

    /// Returns when the rack was told to stop and everything has ended.
    pub async fn run(self) {
        self.stop_services.cancelled().await;
        self.stop().await;
    }
}

impl std::fmt::Debug for Rack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rack")
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.stop_services.cancel();
        self.stop_recorders.cancel();
    }
}

/// Starts what needs the network below HTTP: DHCP, router advertisements, TFTP, syslog. Each says in the list
/// of services whether it runs, and if not, why.
fn start_network(
    config: &Config,
    shared: &Shared,
    files: &Files,
    interfaces: &watch::Receiver<Interfaces>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Option<Arc<dyn DhcpProbe>> {
    let (serving, served) = watch::channel(BTreeSet::new());
    let mut probe: Option<Arc<dyn DhcpProbe>> = None;
    if config.enable.dhcp {
        let options = dhcp::Options {
            data_dir: config.data_dir.clone(),
            http_port: files.http_port(),
            timing: dhcp::foreign::Timing::default(),
        };
        tasks.spawn(dhcp::run(
            options,
            shared.clone(),
            interfaces.clone(),
            serving,
            stop.clone(),
        ));
        probe = Some(Arc::new(Probe {
            shared: shared.clone(),
            interfaces: interfaces.clone(),
        }));
    } else {
        shared.set_service(dhcp::SERVICE, "off", SWITCHED_OFF);
    }
    if config.enable.ra && config.enable.dhcp {
        tasks.spawn(ra::run(
            shared.clone(),
            interfaces.clone(),
            served,
            stop.clone(),
        ));
    }
    if config.enable.tftp {
        let options = tftp::Options {
            listen: config.tftp_listen.clone(),
            ..tftp::Options::default()
        };
        tasks.spawn(tftp::run(
            options,
            files.clone(),
            shared.clone(),
            stop.clone(),
        ));
    } else {
        shared.set_service(tftp::SERVICE, "off", SWITCHED_OFF);
    }
    if config.enable.syslog {
        tasks.spawn(syslog::run(shared.clone(), stop.clone()));
    } else {
        shared.set_service(syslog::SERVICE, "off", SWITCHED_OFF);
    }
    probe
}

/// Looks for foreign DHCP servers on the region's order.
struct Probe {
    shared: Shared,
    interfaces: watch::Receiver<Interfaces>,
}

#[async_trait]
impl DhcpProbe for Probe {
    async fn probe(&self, vlan_id: i64) -> Result<Vec<IpAddr>, String> {
        let interfaces = Arc::clone(&self.interfaces.borrow());
        let timing = dhcp::foreign::Timing::default();
        dhcp::search_vlan(&self.shared, &interfaces, vlan_id, timing)
            .await
            .map_err(|error| chain(&error))
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}

/// Writes a file so that a power cut leaves the old content or the new, never something between.
///
/// # Errors
/// When the disk fails.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(content)?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
