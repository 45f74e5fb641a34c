//! A running rack: [`Rack::start`] puts the services together, [`Rack::stop`] ends them.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use link::port::Region;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{self, Cache};
use crate::files::Files;
use crate::http::{self, Server};
use crate::interfaces;
use crate::loaders::Loaders;
use crate::power::{Power, PowerConfig};
use crate::shared::Shared;
use crate::spool::{self, Spool};
use crate::uplink::{self, Commands, DhcpProbe, Uplink};

/// The HTTP port that machines boot from.
pub const HTTP_PORT: u16 = 5248;
/// Where [`Config::new`] looks for the distribution's boot loaders.
const ROOT: &str = "/";

/// How a rack runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where snapshot, spool and image cache are kept.
    pub data_dir: PathBuf,
    /// Where the boot HTTP server listens. The first one's port is in the addresses that machines are told.
    pub http_listen: Vec<SocketAddr>,
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
        Self { dhcp: false, tftp: false, http: true, syslog: true, ra: false }
    }
}

impl Config {
    /// The defaults for a data directory: every service, HTTP on all IPv4 addresses.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            http_listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, HTTP_PORT))],
            hostname: String::from("localhost"),
            enable: Enable { dhcp: true, tftp: true, http: true, syslog: true, ra: true },
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
    pub async fn start(config: Config, region: Arc<dyn Region>, cancel: CancellationToken) -> Result<Self, StartError> {
        let data_dir = config.data_dir.clone();
        std::fs::create_dir_all(&data_dir).map_err(|cause| StartError::DataDir { path: data_dir.clone(), cause })?;
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

        let spool = Spool::open(data_dir.join("spool"), config.spool_limit).map_err(StartError::Spool)?;
        spool.start(&shared, reports, Arc::clone(&region), &recorders, &stop_recorders);
        recorders.spawn(uplink::persist(shared.clone(), data_dir.clone(), stop_recorders.clone()));

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
                let failed = |cause| StartError::Listen { address: *address, cause };
                let listener = http::bind(*address).map_err(failed)?;
                http_addresses.push(listener.local_addr().map_err(failed)?);
                listeners.push(listener);
            }
        }
        let http_port = http_addresses.first().map_or(HTTP_PORT, SocketAddr::port);
        let files = Files::new(shared.clone(), cache, loaders, http_port);
        if config.enable.http {
            Server::new(files.clone(), shared.clone(), Arc::clone(&region), spool.clone())
                .start(listeners, &services, &stop_services);
            shared.set_service("http", "running", "");
        } else {
            shared.set_service("http", "off", "switched off");
        }

        let watcher = interfaces::Watcher::new().map_err(StartError::Interfaces)?;
        let interfaces_now = watcher.subscribe();
        let probe = start_network(&config, &shared, &files, &watcher, &services, &stop_services).await;
        services.spawn(watcher.run(shared.clone(), stop_services.clone()));

        let power = Power::new(config.power.clone(), shared.clone());
        let commands = Commands::new(Arc::clone(&region), power, probe, services.clone(), stop_services.clone());
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
        f.debug_struct("Rack").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.stop_services.cancel();
        self.stop_recorders.cancel();
    }
}

/// Starts what needs the network below HTTP: DHCP, TFTP, router advertisements, syslog.
async fn start_network(
    _config: &Config,
    _shared: &Shared,
    _files: &Files,
    _watcher: &interfaces::Watcher,
    _services: &TaskTracker,
    _stop: &CancellationToken,
) -> Option<Arc<dyn DhcpProbe>> {
    None
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
