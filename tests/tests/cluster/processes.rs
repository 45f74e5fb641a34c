//! The program as processes: regions and racks that can be killed and started again on their ports.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use fleet::api::Api;
use fleet::{Fleet, FleetConfig, Network};
use serde_json::Value;
use steelyard_tests::until;
use tempfile::TempDir;

/// Variables of the environment that would change what the program does.
const FOREIGN: [&str; 13] = [
    "STEELYARD_DATA_DIR",
    "STEELYARD_DATABASE",
    "STEELYARD_PROFILES",
    "STEELYARD_AGENT_DIR",
    "STEELYARD_API_KEY",
    "STEELYARD_LOG",
    "XDG_CONFIG_HOME",
    "http_proxy",
    "HTTP_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];
/// Name of the administrator.
const ADMIN: &str = "admin";

/// The program under test: what `STEELYARD` names, or what cargo built beside this test.
fn program() -> PathBuf {
    let path = std::env::var_os("STEELYARD").map_or_else(
        || {
            let own = std::env::current_exe().expect("this test has a path");
            let profile = own.parent().and_then(Path::parent);
            profile.expect("target/PROFILE/deps").join("steelyard")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: run cargo build, or set STEELYARD",
        path.display()
    );
    path
}

/// A port of 127.0.0.1 that nobody has. Its next owner is a process that is started again on it, so it is none
/// of those that the kernel gives to connections, and tests beside this one look elsewhere.
fn free() -> SocketAddr {
    /// Below what Linux gives to connections unless told otherwise (32768 to 60999).
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    /// Ports for one process.
    const EACH: u32 = 16;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * EACH + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + u16::try_from(number % PORTS.len() as u32).expect("below the end");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A directory for one test.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        // Another test of this process may have been first.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A process that can be killed and started again. Killed when dropped.
struct Process {
    data: PathBuf,
    arguments: Vec<String>,
    database: Option<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    fn new(place: &Place, name: &str, arguments: Vec<String>, database: Option<String>) -> Self {
        let data = place.path(name);
        std::fs::create_dir_all(&data).expect("a directory");
        Self {
            log: place.path(&format!("{name}.log")),
            data,
            arguments,
            database,
            child: None,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("STEELYARD_DATA_DIR", &self.data)
            .env("HOME", &self.data)
            .stdin(Stdio::null());
        if let Some(url) = &self.database {
            command.env("STEELYARD_DATABASE", url);
        }
        command
    }

    /// Runs a command on this process's data; gives status and everything it said.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let done = self.command(arguments).output().expect("the program runs");
        let mut said = String::from_utf8_lossy(&done.stdout).into_owned();
        if !done.status.success() {
            said.push_str(&String::from_utf8_lossy(&done.stderr));
        }
        (done.status.success(), said)
    }

    fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log");
        let errors = log.try_clone().expect("the same log");
        let words: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let child = self.command(&words).stdout(log).stderr(errors).spawn();
        self.child = Some(child.expect("the program starts"));
    }

    /// Ends it with SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it has not ended by itself");
            child.wait().expect("it ends");
        }
    }

    /// The end of its log, for messages.
    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn alive(&mut self) -> Result<(), String> {
        let ended = self
            .child
            .as_mut()
            .and_then(|c| c.try_wait().ok().flatten());
        match ended {
            Some(status) => panic!("it ended with {status}:\n{}", self.said()),
            None => Ok(()),
        }
    }

    /// What it tells other commands.
    fn running(&self) -> Value {
        let text = std::fs::read(self.data.join("running.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or(Value::Null)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            let name = self.log.file_name().unwrap_or_default().to_string_lossy();
            #[allow(clippy::print_stderr)]
            {
                eprintln!("---- {name}\n{}", self.said());
            }
        }
    }
}

/// A region in a process of its own.
pub struct RegionProcess {
    process: Process,
    /// Its link.
    pub link: SocketAddr,
    /// The API's address, ending in `/MAAS`.
    pub url: String,
    key: String,
}

impl RegionProcess {
    /// Makes a region and its administrator, and starts it.
    pub async fn start(place: &Place, name: &str, database: Option<String>) -> Self {
        let mut region = Self::new(place, name, database);
        let done = region.process.run(&[
            "createadmin",
            "--username",
            ADMIN,
            "--password",
            "a password of tests",
            "--email",
            "admin@example.com",
        ]);
        assert!(done.0, "{}", done.1);
        region.begin().await;
        region
    }

    /// Starts another region on the database of this one.
    #[cfg(feature = "peers")]
    pub async fn another(&self, place: &Place, name: &str) -> Self {
        let mut other = Self::new(place, name, self.process.database.clone());
        let key = |r: &Self| r.process.data.join("secret.key");
        std::fs::copy(key(self), key(&other)).expect("the key can be copied");
        other.begin().await;
        other
    }

    fn new(place: &Place, name: &str, database: Option<String>) -> Self {
        let (api, link) = (free(), free());
        let arguments = [
            "up",
            "--role",
            "region",
            "--listen",
            &api.to_string(),
            "--link-listen",
            &link.to_string(),
            "--name",
            name,
            "--no-default-images",
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        Self {
            process: Process::new(place, name, arguments, database),
            link,
            url: format!("http://{api}/MAAS"),
            key: String::new(),
        }
    }

    async fn begin(&mut self) {
        let (ok, key) = self.process.run(&["apikey", "--username", ADMIN]);
        assert!(ok, "{key}");
        key.trim().clone_into(&mut self.key);
        self.start_again().await;
    }

    /// Starts it after it was killed; it answers when this returns.
    pub async fn start_again(&mut self) {
        self.process.start();
        let api = self.api();
        loop {
            self.process.alive().expect("it runs");
            if api.get("version/", &[]).await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub async fn kill_and_start(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// The API as the administrator.
    pub fn api(&self) -> Api {
        Api::new(&self.url, Some(&self.key)).expect("the key has three parts")
    }

    /// Runs a command on its data; gives what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let (ok, said) = self.process.run(arguments);
        assert!(ok, "{said}");
        said
    }

    /// Racks that are connected to it, as it last said.
    #[cfg(feature = "peers")]
    pub fn racks(&self) -> usize {
        self.process.running()["racks"]
            .as_array()
            .map_or(0, Vec::len)
    }

    /// Imports the simulated images from a directory or a URL.
    pub async fn import_images(&self, place: &Place) {
        let stream = place.path("stream");
        fleet::demo::write_stream(&stream).expect("the stream is written");
        fleet::demo::import_images(&self.api(), &stream)
            .await
            .expect("the images are imported");
    }

    /// Kernel options for every machine: something that shows in what a rack serves.
    pub async fn set_kernel_opts(&self, value: &str) {
        let fields = [("name", "kernel_opts"), ("value", value)];
        self.api()
            .op("maas/", "set_config", &fields)
            .await
            .expect("the setting is taken");
    }
}

/// A rack in a process of its own: HTTP boot and power.
pub struct RackProcess {
    process: Process,
    /// Where machines reach it.
    pub http: SocketAddr,
}

impl RackProcess {
    /// A rack that is registered nowhere and does not run.
    pub fn new(place: &Place) -> Self {
        let http = free();
        let arguments = [
            "up",
            "--role",
            "rack",
            "--name",
            "rack-1",
            "--http-port",
            &http.port().to_string(),
            "--without",
            "dhcp,tftp,syslog",
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        Self {
            process: Process::new(place, "rack", arguments, None),
            http,
        }
    }

    /// A rack that is registered with these regions, at the first, and runs.
    pub async fn start(place: &Place, regions: &[&RegionProcess]) -> Self {
        let mut rack = Self::new(place);
        let secret = regions[0].run(&["rack-secret"]);
        let (ok, said) = rack.register(regions, secret.trim(), &[]);
        assert!(ok, "{said}");
        rack.start_again().await;
        rack
    }

    /// Registers it; gives whether that went well, and what was said.
    pub fn register(
        &self,
        regions: &[&RegionProcess],
        secret: &str,
        more: &[&str],
    ) -> (bool, String) {
        let links: Vec<String> = regions.iter().map(|r| r.link.to_string()).collect();
        let mut words = vec!["register-rack", "--secret", secret, "--name", "rack-1"];
        for link in &links {
            words.extend(["--url", link]);
        }
        words.extend(more);
        self.process.run(&words)
    }

    /// Where it keeps what it has.
    pub fn files(&self) -> PathBuf {
        self.process.data.join("rack")
    }

    /// A command on its data.
    pub fn run(&self, arguments: &[&str]) -> (bool, String) {
        self.process.run(arguments)
    }

    /// Starts it; it listens when this returns.
    pub async fn start_again(&mut self) {
        self.process.start();
        loop {
            self.process.alive().expect("it runs");
            if tokio::net::TcpStream::connect(self.http).await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub async fn kill_and_start(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// What it says of its link to the region: `running` or `degraded`.
    pub fn link(&self) -> String {
        self.process.running()["services"]["rackd"]["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The boot configuration of a machine that nobody knows.
    pub async fn config(&self) -> Result<String, String> {
        let url = format!("http://{}/ipxe.cfg-default-amd64", self.http);
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let answer = client.get(&url).send().await.map_err(|e| e.to_string())?;
        let answer = answer.error_for_status().map_err(|e| e.to_string())?;
        answer.text().await.map_err(|e| e.to_string())
    }

    /// Waits until its boot configurations hold a text.
    pub async fn serves(&self, text: &str) {
        until(&format!("the rack serves {text:?}"), || async {
            let config = self.config().await?;
            if config.contains(text) {
                Ok(())
            } else {
                Err(config)
            }
        })
        .await;
    }

    /// Simulated machines at this rack, all switched off.
    pub async fn fleet(&self, count: usize, change: impl FnOnce(&mut FleetConfig)) -> Fleet {
        let mut config = FleetConfig::new(count, Network::loopback(self.http));
        change(&mut config);
        Fleet::start(config).await.expect("the fleet starts")
    }
}

/// The machine of the API with this machine's address.
pub async fn find(api: &Api, fleet: &Fleet, index: usize) -> Result<Value, String> {
    let mac = fleet.hardware(index).mac().to_string();
    let found = api
        .get("machines/", &[("mac_address", &mac)])
        .await
        .map_err(|e| e.to_string())?;
    found
        .as_array()
        .and_then(|a| a.first().cloned())
        .ok_or_else(|| format!("nobody has {mac}"))
}

/// Waits until a machine has a status.
pub async fn status_is(api: &Api, id: &str, status: &str) -> Value {
    until(&format!("{id} is {status}"), || async {
        let path = format!("machines/{id}/");
        let machine = api.get(&path, &[]).await.map_err(|e| e.to_string())?;
        if machine["status_name"] == status {
            Ok(machine)
        } else {
            Err(format!(
                "{} ({})",
                machine["status_name"], machine["status_message"]
            ))
        }
    })
    .await
}

/// Enlists the machine of a fleet of one and tells the region of its BMC; gives its system id.
pub async fn enlist(api: &Api, fleet: &Fleet) -> String {
    fleet.press(0);
    let machine = until("the machine is known", || find(api, fleet, 0)).await;
    let id = machine["system_id"].as_str().expect("an id").to_owned();
    status_is(api, &id, "New").await;
    fleet
        .wait_phase(0, fleet::Phase::Off, std::time::Duration::from_secs(60))
        .await
        .expect("it switches itself off");
    fleet::demo::adopt(api, fleet)
        .await
        .expect("its BMC is taken");
    id
}
