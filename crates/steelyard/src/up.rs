//! `steelyard up`: the region, and the rack beside it, in one process until it is told to stop. A rack
//! without a region is in [`crate::rack_role`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use link::port::Region as Port;
use metal::Timestamp;
use rack::Rack;
use region::Region;
use region::rack_link::{RegionPort, enrol};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::data::{Data, DataArgs};
use crate::running::{self, Running, State};
use crate::{agents, demo, local, log, out, rack_role};

/// How long to wait at the start until every service of the rack has said whether it runs.
const SETTLE: Duration = Duration::from_secs(2);
/// How often other commands are told of services that changed.
pub const TELL: Duration = Duration::from_secs(2);
/// How long open requests may take to finish after the signal to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Exit status after a second signal, which does not wait.
pub const INTERRUPTED: i32 = 130;
/// Capability numbers of linux/capability.h.
const CAP_NET_RAW: u32 = 13;

/// `steelyard up`.
#[derive(clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Where the API listens
    #[arg(long, value_name = "ADDR:PORT", default_value_t = region::region::default_listen())]
    listen: SocketAddr,
    /// Where racks on other hosts connect [default: 0.0.0.0:5250 with --role region, else nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    link_listen: Option<SocketAddr>,
    /// Name of this region, or of the rack [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// What to run in this process
    #[arg(long, value_enum, default_value_t = Role::All)]
    role: Role,
    /// Port that machines boot from over HTTP
    #[arg(long, value_name = "PORT", default_value_t = rack::rack::HTTP_PORT)]
    http_port: u16,
    /// Services of the rack to leave off
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SERVICE,…")]
    without: Vec<Service>,
    /// Do not begin with the official images of the default release, which are fetched from the internet
    #[arg(long)]
    no_default_images: bool,
    /// Also run this many simulated machines, which enlist themselves
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    demo: Option<u16>,
    /// Write the log as one JSON object per line
    #[arg(long)]
    log_json: bool,
}

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Region and rack
    All,
    /// The region only
    Region,
    /// A rack that was registered with a region elsewhere
    Rack,
}

/// A service of the rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Service {
    /// DHCP and router advertisements
    Dhcp,
    /// TFTP
    Tftp,
    /// HTTP boot
    Http,
    /// The syslog receiver
    Syslog,
}

/// What was typed, resolved against the machine.
struct Plan {
    data: Data,
    listen: SocketAddr,
    /// Where racks on other hosts connect.
    link: Option<SocketAddr>,
    name: String,
    default_images: bool,
    demo: Option<u16>,
    rack: Option<RackPlan>,
}

pub struct RackPlan {
    /// How the rack runs.
    pub config: rack::Config,
    /// Services that cannot run here, and why.
    off: Vec<(&'static str, String)>,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When the data cannot be opened or an address cannot be bound.
pub fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    log::start(
        if args.log_json {
            log::Form::Json
        } else {
            log::Form::Human
        },
        "info,sqlx=warn,pgp=error",
    );
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime")?;
    match args.role {
        Role::Rack => runtime.block_on(rack_role::serve(args)),
        Role::All | Role::Region => runtime.block_on(serve(args)),
    }
}

async fn serve(args: UpArgs) -> anyhow::Result<ExitCode> {
    let plan = plan(args)?;
    plan.data.create()?;
    let _lock = plan.data.lock()?;
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind(plan.listen)
        .await
        .with_context(|| format!("the API cannot listen on {}", plan.listen))?;
    let address = listener.local_addr().context("the address of the API")?;
    let link = match plan.link {
        Some(to) => Some(
            TcpListener::bind(to)
                .await
                .with_context(|| format!("the link for racks cannot listen on {to}"))?,
        ),
        None => None,
    };

    let agents = agents::find()?;
    let region = Region::open(region::Config {
        data_dir: plan.data.dir.clone(),
        database: plan.data.database.clone(),
        name: plan.name.clone(),
        agents,
    })
    .await
    .context("the region cannot be opened")?;
    if plan.default_images {
        region::image::ensure_defaults(&region)
            .await
            .context("the image source cannot be set")?;
    }
    region::worker::start(&region);
    region::image::start(&region);
    let mut api = tokio::spawn(region::http::serve(Arc::clone(&region), listener));
    region
        .tasks
        .spawn(region::https::serve(Arc::clone(&region), address.ip()));
    let link_address = match link {
        Some(listener) => Some(serve_link(&region, listener)?),
        None => None,
    };

    let rack = match plan.rack {
        Some(rack) => {
            match start_rack(rack, Arc::new(RegionPort::local(Arc::clone(&region)))).await {
                Ok(rack) => Some(rack),
                Err(e) => {
                    region.stop().await;
                    return Err(e);
                }
            }
        }
        None => None,
    };
    let mut told = describe(&region, rack.as_ref(), (address, link_address), &plan.data);
    running::write(&plan.data.dir, &told)?;
    announce(&region, &told, &plan.data).await?;
    if let (Some(machines), Some(rack)) = (plan.demo, rack.as_ref()) {
        start_demo(&region, rack, machines, address, &plan.data).await?;
    }

    let mut tick = tokio::time::interval(TELL);
    let ended = loop {
        tokio::select! {
            () = signals.next() => break Ok(()),
            ended = &mut api => break match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(e)) => Err(anyhow::Error::new(e).context("the API's socket failed")),
                Err(e) => Err(anyhow::Error::new(e).context("the API ended")),
            },
            _ = tick.tick() => {
                let now = describe(&region, rack.as_ref(), (address, link_address), &plan.data);
                let now = Running { started: told.started, ..now };
                if now != told {
                    if let Err(e) = running::write(&plan.data.dir, &now) {
                        tracing::warn!(error = format!("{e:#}"), "other commands cannot be told of the services");
                    }
                    told = now;
                }
            }
        }
    };
    tracing::info!("stopping");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    if let Some(rack) = rack {
        rack.stop().await;
    }
    region.stop.cancel();
    if !api.is_finished() && tokio::time::timeout(GRACE, &mut api).await.is_err() {
        tracing::warn!(waited = ?GRACE, "requests were still open and are cut off");
        api.abort();
    }
    region.stop().await;
    running::remove(&plan.data.dir);
    ended.map(|()| ExitCode::SUCCESS)
}

/// Lets racks on other hosts connect, until the region stops.
fn serve_link(region: &Arc<Region>, listener: TcpListener) -> anyhow::Result<SocketAddr> {
    let address = listener.local_addr().context("the address of the link")?;
    let own: Vec<IpAddr> = if address.ip().is_unspecified() {
        rack::interfaces::addresses().context("the addresses of this host")?
    } else {
        vec![address.ip()]
    };
    let serving = Arc::clone(region);
    region.tasks.spawn(async move {
        if let Err(e) = enrol::serve(serving, listener, &own).await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(e)),
                "racks on other hosts cannot connect"
            );
        }
    });
    Ok(address)
}

/// Simulated machines beside the product, and what a newcomer does next.
async fn start_demo(
    region: &Arc<Region>,
    rack: &Rack,
    machines: u16,
    api: SocketAddr,
    data: &Data,
) -> anyhow::Result<()> {
    let http = rack
        .http_addresses()
        .first()
        .copied()
        .context("--demo needs the rack's HTTP service: leave http on")?;
    demo::start(
        region,
        usize::from(machines),
        api,
        http,
        &data.dir,
        region.stop.clone(),
    )
    .await?;
    out::line(&format!(
        "  demo     {machines} simulated machines are being switched on; they enlist themselves. To look at them:"
    ))?;
    let (dir, url) = (data.dir.display(), reachable(api));
    out::line(&format!(
        "           maas login {user} http://{url}/MAAS/ $(steelyard apikey --username {user} --data-dir {dir})",
        user = demo::USER
    ))?;
    out::line(&format!("           maas {} machines read", demo::USER))?;
    Ok(())
}

/// Looks at the machine: names, privileges, ports.
fn plan(args: UpArgs) -> anyhow::Result<Plan> {
    let data = args.data.resolve()?;
    let name = args.name();
    let rack = match args.role {
        Role::Region => None,
        Role::All | Role::Rack => Some(plan_rack(&args, &data)),
    };
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, link::tls::PORT));
    let link = match args.role {
        Role::Region => Some(args.link_listen.unwrap_or(everywhere)),
        Role::All | Role::Rack => args.link_listen,
    };
    Ok(Plan {
        data,
        listen: args.listen,
        link,
        name,
        default_images: !args.no_default_images && args.demo.is_none(),
        demo: args.demo,
        rack,
    })
}

impl UpArgs {
    /// The name of this region or rack.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(host_name)
    }
}

/// How a rack runs on this machine.
#[must_use]
pub fn plan_rack(args: &UpArgs, data: &Data) -> RackPlan {
    let mut config = rack::Config::new(data.rack());
    let mut off = Vec::new();
    config.hostname = args.name();
    let wanted = |s| !args.without.contains(&s);
    config.enable.dhcp = wanted(Service::Dhcp);
    config.enable.ra = wanted(Service::Dhcp);
    config.enable.tftp = wanted(Service::Tftp);
    config.enable.syslog = wanted(Service::Syslog);
    config.enable.http = wanted(Service::Http);
    if config.enable.dhcp && !has_capability(CAP_NET_RAW) {
        config.enable.dhcp = false;
        config.enable.ra = false;
        off.push((
            rack::dhcp::SERVICE,
            "needs root, or the privilege CAP_NET_RAW".to_owned(),
        ));
    }
    if config.enable.http {
        match http_addresses(args.http_port) {
            Ok(addresses) => config.http_listen = addresses,
            Err(why) => {
                config.enable.http = false;
                off.push(("http", why));
            }
        }
    }
    RackPlan { config, off }
}

/// The addresses that the boot HTTP server can listen on: IPv4, and IPv6 where the host has it.
fn http_addresses(port: u16) -> Result<Vec<SocketAddr>, String> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    rack::http::bind(v4).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("port {port} is taken by another program on this host")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("port {port} needs root, or the privilege CAP_NET_BIND_SERVICE")
        }
        _ => format!("port {port} cannot be opened: {e}"),
    })?;
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    // Port 0 would be another port for each.
    let both = port != 0 && rack::http::bind(v6).is_ok();
    Ok(if both { vec![v4, v6] } else { vec![v4] })
}

/// Starts a rack, and waits a moment for its services to say whether they run.
///
/// # Errors
/// When it cannot be started.
pub async fn start_rack(plan: RackPlan, region: Arc<dyn Port>) -> anyhow::Result<Rack> {
    let rack = Rack::start(plan.config, region, CancellationToken::new())
        .await
        .context("the rack cannot be started")?;
    for (service, why) in plan.off {
        rack.shared().set_service(service, "off", why);
    }
    let settled = async {
        let all = [
            rack::dhcp::SERVICE,
            rack::tftp::SERVICE,
            rack::syslog::SERVICE,
            "http",
        ];
        loop {
            let services = rack.shared().services();
            if all.iter().all(|s| services.contains_key(*s)) && rack.shared().rack().is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // A service that takes longer says so in the log.
    tokio::time::timeout(SETTLE, settled).await.ok();
    Ok(rack)
}

/// The services of a rack, as other commands are told.
#[must_use]
pub fn services(rack: &Rack) -> BTreeMap<String, State> {
    let state = |s: link::message::Service| State {
        status: s.status,
        info: s.info,
    };
    let all = rack.shared().services().into_iter();
    all.map(|(name, s)| (name, state(s))).collect()
}

fn describe(
    region: &Region,
    rack: Option<&Rack>,
    (address, link): (SocketAddr, Option<SocketAddr>),
    data: &Data,
) -> Running {
    Running {
        pid: std::process::id(),
        url: format!("http://{}/MAAS/", reachable(address)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: store::migrate::MIGRATIONS.last().map_or(0, |m| m.0),
        database: data.engine().to_owned(),
        region: region.config.name.clone(),
        started: Timestamp::from_system(std::time::SystemTime::now()).seconds(),
        services: rack.map(services).unwrap_or_default(),
        link: link.map(|l| reachable(l).to_string()),
        regions: Vec::new(),
        racks: region
            .hub
            .connected()
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// Says once what runs, where the data is, how to log in, and what is off and why.
async fn announce(region: &Arc<Region>, running: &Running, data: &Data) -> anyhow::Result<()> {
    // As it was typed, so that the line can be pasted.
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "steelyard".to_owned());
    // The URL may hold a password and is not repeated.
    let database = match data.database {
        store::Target::Sqlite(_) => "",
        store::Target::Postgres(_) => " --database URL",
    };
    let option = |name: &str| {
        format!(
            "{program} {name} --data-dir {}{database}",
            data.dir.display()
        )
    };
    out::line(&format!(
        "Steelyard {} is up (region {}).",
        running.version, running.region
    ))?;
    out::line(&format!("  API      {}", running.url))?;
    out::line(&format!(
        "  data     {} ({})",
        data.dir.display(),
        running.database
    ))?;
    if let Some(link) = &running.link {
        out::line(&format!(
            "  link     {link} (for racks on other hosts; {} makes a secret)",
            option("rack-secret")
        ))?;
    }
    let admins = local::administrators(region).await?;
    if admins.is_empty() {
        out::line(&format!(
            "  log in   there is no administrator yet: {}",
            option("createadmin")
        ))?;
    } else {
        let login = format!(
            "{program} maas login PROFILE {} \"$({} --username {})\"",
            running.url,
            option("apikey"),
            admins[0]
        );
        out::line(&format!("  log in   as {}: {login}", admins.join(", ")))?;
    }
    print_services(running)?;
    if running.services.is_empty() {
        out::line("  rack     none in this process")?;
    }
    for architecture in agents::ARCHITECTURES {
        if !region.config.agents.contains_key(architecture) {
            out::line(&format!(
                "  no agent for {architecture}: such machines cannot be commissioned; scripts/agent builds it"
            ))?;
        }
    }
    Ok(())
}

/// Says which services run, and which do not and why.
///
/// # Errors
/// When standard output fails.
pub fn print_services(running: &Running) -> anyhow::Result<()> {
    for (name, state) in &running.services {
        let info = if state.info.is_empty() {
            String::new()
        } else {
            format!(": {}", state.info)
        };
        out::line(&format!("  {name:<12} {}{info}", state.status))?;
    }
    Ok(())
}

/// The address to tell people for one that is listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    SocketAddr::new(
        own_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        address.port(),
    )
}

/// The address from which this host would speak to others. Connecting a datagram socket looks the route
/// up and sends nothing; the address is one for documentation (RFC 5737).
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The short name of this host.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    name.split('.')
        .next()
        .filter(|n| !n.is_empty())
        .unwrap_or("localhost")
        .to_owned()
}

/// Whether this process has a capability in effect.
fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & (1 << number) != 0)
}

/// The signals that stop the program.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
        })
    }

    /// Returns when one of them has come. Cancel-safe: yes.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
