//! `rack-secret` and `register-rack`: how a rack on another host comes to its certificate, and where it
//! keeps it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use link::tls::TlsError;
use link::tls::ca::{Identity, Secret};
use link::tls::client::{self, Client};
use metal::{SystemId, Timestamp};
use region::rack_link::enrol;
use serde::{Deserialize, Serialize};

use crate::data::{Data, DataArgs};
use crate::{admin, out, up};

/// The file in the rack's directory.
const FILE: &str = "identity.json";
/// Longest time that a secret can be good for: 30 days.
const VALID_MAX: Duration = Duration::from_secs(30 * 86_400);

/// `steelyard rack-secret`.
#[derive(clap::Args)]
pub struct RackSecretArgs {
    #[command(flatten)]
    data: DataArgs,
    /// How long it is good: a number with s, m, h or d; at most 30d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = valid)]
    valid: Duration,
}

/// `steelyard register-rack`, `maas-rack register`.
#[derive(clap::Args)]
pub struct RegisterArgs {
    /// Directory of the data [default: /var/lib/steelyard as root, else ~/.local/share/steelyard]
    #[arg(long, value_name = "DIR", env = "STEELYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The region, HOST or HOST:PORT of its link, or the address of its API; repeat it for each region of
    /// the installation
    #[arg(long, value_name = "HOST", required = true)]
    url: Vec<Address>,
    /// The one-time secret, or - to read it from standard input
    // It may begin with a hyphen.
    #[arg(long, allow_hyphen_values = true)]
    secret: String,
    /// Name of this rack [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Register anew; the certificate that is here is given up
    #[arg(long)]
    force: bool,
}

impl RegisterArgs {
    /// As if this had been typed.
    ///
    /// # Errors
    /// When the address makes no sense.
    pub fn new(data_dir: Option<PathBuf>, url: &str, secret: String) -> anyhow::Result<Self> {
        Ok(Self {
            data_dir,
            url: vec![url.parse().map_err(anyhow::Error::msg)?],
            secret,
            name: None,
            force: false,
        })
    }
}

/// Whether this host's rack was registered with a region elsewhere.
#[must_use]
pub fn is_registered(data: &Data) -> bool {
    data.rack().join(FILE).exists()
}

fn valid(text: &str) -> Result<Duration, String> {
    let form = || "a number with s, m, h or d, as in 24h".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(form()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| form())?;
    let time = Duration::from_secs(number.saturating_mul(unit));
    if time.is_zero() || time > VALID_MAX {
        return Err("more than nothing and at most 30d".to_owned());
    }
    Ok(time)
}

/// `HOST:PORT` of a region's link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "HOST, HOST:PORT or http://HOST:PORT/MAAS".to_owned();
        let is_url = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        let authority = match is_url {
            Some(rest) => rest.split('/').next().unwrap_or_default(),
            None => text,
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']').ok_or_else(form)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| form())?;
                (format!("[{host}]"), rest.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (authority.to_owned(), None),
            },
        };
        let in_name = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host.is_empty() || !host.chars().all(in_name) {
            return Err(form());
        }
        let port = match port {
            // The port of a URL is the API's.
            Some(p) if is_url.is_none() => p.parse::<u16>().map_err(|_| form())?,
            Some(p) => p
                .parse::<u16>()
                .map(|_| link::tls::PORT)
                .map_err(|_| form())?,
            None => link::tls::PORT,
        };
        Ok(Self(format!("{host}:{port}")))
    }
}

/// What a registered rack has: its certificate and key, whom it trusts, and where its regions are.
#[derive(Serialize, Deserialize)]
pub struct Registered {
    /// Its system id at its region.
    pub rack: SystemId,
    /// Certificate, PEM.
    certificate: String,
    /// Private key, PEM.
    key: String,
    /// The authority's certificate, PEM.
    authority: String,
    /// `HOST:PORT` of the regions.
    pub regions: Vec<String>,
}

impl Registered {
    /// What an earlier registration left; none when this rack was never registered.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(data: &Data) -> anyhow::Result<Option<Self>> {
        let path = data.rack().join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
                format!(
                    "{} is damaged; register this rack anew with --force",
                    path.display()
                )
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// The connection to the regions.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        let own = Identity {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        };
        Client::new(self.regions.clone(), &self.authority, &own)
            .context("this rack's certificate cannot be used; register it anew with --force")
    }

    /// On disk when this returns; only the owner may read it.
    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).context("the identity of the rack")?;
        replace(&path, &text).with_context(|| format!("{} cannot be written", path.display()))
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Prints a one-time secret, and nothing else.
///
/// # Errors
/// When the database fails.
pub async fn rack_secret(args: RackSecretArgs) -> anyhow::Result<ExitCode> {
    let region = admin::open(&args.data).await?;
    let now = Timestamp::from_system(SystemTime::now());
    let secret = enrol::new_secret(&region, "command line", args.valid, now).await;
    region.stop().await;
    out::line(&secret.map_err(admin::said)?.word())?;
    Ok(ExitCode::SUCCESS)
}

/// Registers this host's rack.
///
/// # Errors
/// When it is registered already, or no region takes it.
pub async fn register(args: RegisterArgs) -> anyhow::Result<ExitCode> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let data = DataArgs {
        data_dir: args.data_dir,
        database: None,
    };
    let data = data.resolve()?;
    data.create()?;
    let _lock = data.lock()?;
    if !args.force
        && let Some(r) = Registered::read(&data)?
    {
        anyhow::bail!(
            "this rack is registered already, as {} with {}; --force registers it anew",
            r.rack,
            r.regions.join(", ")
        );
    }
    let word = if args.secret == "-" {
        admin::first_line()?
    } else {
        args.secret
    };
    let secret = Secret::parse(&word)?;
    // Before the secret is spent.
    let dir = data.rack();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("{} cannot be made", dir.display()))?;
    let name = args.name.unwrap_or_else(up::host_name);
    let regions: Vec<String> = args.url.into_iter().map(|a| a.0).collect();
    let (own, authority, rack) = enrol_at_one(&regions, &secret, &name).await?;
    let registered = Registered {
        rack,
        certificate: own.certificate,
        key: own.key,
        authority,
        regions,
    };
    registered.write(&dir)?;
    out::line(&format!(
        "This rack is registered as {} ({name}) with {}.",
        registered.rack,
        registered.regions.join(", ")
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Enrols at the first region that can be reached. One that refuses has the last word: the others have
/// the same database.
async fn enrol_at_one(
    regions: &[String],
    secret: &Secret,
    name: &str,
) -> anyhow::Result<(Identity, String, SystemId)> {
    let mut unreachable = Vec::new();
    for region in regions {
        match client::enrol(region, secret, name).await {
            Ok(taken) => return Ok(taken),
            Err(TlsError::Connect(e)) => unreachable.push(format!("{region}: {e}")),
            Err(e) => {
                return Err(
                    anyhow::Error::new(e).context(format!("{region} did not take this rack"))
                );
            }
        }
    }
    anyhow::bail!("no region can be reached ({})", unreachable.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_found_by_what_people_paste() {
        for (pasted, means) in [
            ("region.example", "region.example:5250"),
            ("region.example:6250", "region.example:6250"),
            ("10.0.0.1", "10.0.0.1:5250"),
            ("http://10.0.0.1:5240/MAAS", "10.0.0.1:5250"),
            ("http://region.example/MAAS/", "region.example:5250"),
            ("[fd00::1]", "[fd00::1]:5250"),
            ("[fd00::1]:6250", "[fd00::1]:6250"),
            ("http://[fd00::1]:5240/MAAS", "[fd00::1]:5250"),
        ] {
            assert_eq!(pasted.parse(), Ok(Address(means.to_owned())), "{pasted}");
        }
        for bad in [
            "",
            "http://",
            "host:port",
            "host:70000",
            "[fd00::1",
            "a b",
            "http://h:x/",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_time_of_a_secret_has_a_unit_and_a_bound() {
        assert_eq!(valid("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(valid("30d"), Ok(VALID_MAX));
        for bad in [
            "",
            "h",
            "24",
            "0s",
            "31d",
            "-1h",
            "1w",
            "99999999999999999999d",
            "é",
        ] {
            assert!(valid(bad).is_err(), "{bad}");
        }
    }
}
