//! A fleet beside a region, for people who want to look: images of its own, machines that introduce
//! themselves, and a region that knows how to switch them.
//!
//! [`run`] does all of it for `steelyard up --demo N`; its parts serve tests too.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError};
use crate::config::{FleetConfig, Network, Timing};
use crate::fleet::{Fleet, StartError};
use crate::hardware::TAG;
use crate::stream::{self, OSYSTEM, RELEASE, StreamError};

/// Time for each thing that the region does in the background.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two machines that are switched on.
const PAUSE: Duration = Duration::from_millis(150);
/// The network of machines that boot over loopback: [`crate::config::LOOPBACK_FIRST`] is in it.
const NETWORK: &str = "127.1.0.0/16";
/// Addresses that machines boot from; the others are the region's to give.
const BOOTING: (&str, &str) = ("127.1.0.1", "127.1.127.255");

/// A demonstration.
#[derive(Clone)]
pub struct DemoConfig {
    /// The region's API, ending in `/MAAS`.
    pub region_url: String,
    /// An administrator's API key.
    pub api_key: String,
    /// The rack's boot HTTP server.
    pub rack_http: SocketAddr,
    /// How many machines.
    pub machines: usize,
    /// Where the images are put; the region must be able to read it.
    pub stream_dir: PathBuf,
    /// How fast the machines live.
    pub timing: Timing,
}

impl std::fmt::Debug for DemoConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DemoConfig")
            .field("region_url", &self.region_url)
            .field("machines", &self.machines)
            .finish_non_exhaustive()
    }
}

/// Why there is no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The region refused something.
    #[error("{what}")]
    Api {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        cause: ApiError,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {limit:?}; last: {last}")]
    TooLong {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
        /// What was seen last.
        last: String,
    },
    /// The images.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The fleet.
    #[error("the simulated machines do not start")]
    Fleet(#[from] StartError),
}

fn because(what: &'static str) -> impl FnOnce(ApiError) -> DemoError {
    move |cause| DemoError::Api { what, cause }
}

/// Writes the simulated images as a SimpleStreams directory.
///
/// # Errors
/// [`DemoError::Stream`].
pub fn write_stream(dir: &Path) -> Result<(), DemoError> {
    Ok(stream::write(dir)?)
}

/// Looks again and again until there is something. The error of a look is what is said when time is up.
async fn until<T, F>(what: &'static str, mut look: impl FnMut() -> F) -> Result<T, DemoError>
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(last) if started.elapsed() > LIMIT => {
                return Err(DemoError::TooLong {
                    what,
                    limit: LIMIT,
                    last,
                });
            }
            Err(_) => sleep(LOOK.min(started.elapsed() / 4 + Duration::from_millis(20))).await,
        }
    }
}

/// Offers the stream in `dir` to a region, imports it, and makes it what machines boot and install. On a
/// region without any images, sources that it came with are taken away: nothing is to be downloaded.
///
/// # Errors
/// [`DemoError`].
pub async fn import_images(api: &Api, dir: &Path) -> Result<(), DemoError> {
    let url = dir.to_string_lossy();
    let sources = api
        .get("boot-sources/", &[])
        .await
        .map_err(because("the boot sources cannot be listed"))?;
    let images = api
        .get("boot-resources/", &[])
        .await
        .map_err(because("the images cannot be listed"))?;
    let is_fresh = images.as_array().is_some_and(Vec::is_empty);
    let mut ours = None;
    for source in sources.as_array().into_iter().flatten() {
        if source["url"].as_str() == Some(&url) {
            ours = source["id"].as_i64();
        } else if is_fresh && let Some(id) = source["id"].as_i64() {
            api.delete(&format!("boot-sources/{id}/"))
                .await
                .map_err(because("a boot source cannot be deleted"))?;
        }
    }
    let id = match ours {
        Some(id) => id,
        None => {
            let made = api
                .create("boot-sources/", &[("url", &url)])
                .await
                .map_err(because("the boot source cannot be made"))?;
            made["id"].as_i64().unwrap_or_default()
        }
    };
    let selections = format!("boot-sources/{id}/selections/");
    let chosen = api
        .get(&selections, &[])
        .await
        .map_err(because("the selections cannot be listed"))?;
    if !chosen
        .as_array()
        .is_some_and(|c| c.iter().any(|s| s["os"] == OSYSTEM))
    {
        let wanted = [
            ("os", OSYSTEM),
            ("release", RELEASE),
            ("arches", "amd64"),
            ("subarches", "*"),
            ("labels", "*"),
        ];
        // What can be selected is known once the region has read the source.
        until("the simulated images to be offered", || async {
            api.create(&selections, &wanted)
                .await
                .map_err(|e| e.to_string())
        })
        .await?;
    }
    api.op("boot-resources/", "import", &[])
        .await
        .map_err(because("the import cannot be started"))?;
    let name = format!("{OSYSTEM}/{RELEASE}");
    until("the import of the simulated images", || async {
        let held = api
            .get("boot-resources/", &[])
            .await
            .map_err(|e| e.to_string())?;
        let found = held
            .as_array()
            .is_some_and(|all| all.iter().any(|r| r["name"] == name.as_str()));
        if found {
            Ok(())
        } else {
            Err(format!(
                "{} images are held",
                held.as_array().map_or(0, Vec::len)
            ))
        }
    })
    .await?;
    for (setting, value) in [
        ("commissioning_osystem", OSYSTEM),
        ("commissioning_distro_series", RELEASE),
        ("default_osystem", OSYSTEM),
        ("default_distro_series", RELEASE),
    ] {
        let fields = [("name", setting), ("value", value)];
        api.op("maas/", "set_config", &fields)
            .await
            .map_err(because("a setting cannot be changed"))?;
    }
    Ok(())
}

/// Makes the network of machines that boot over loopback known, with the part of it that they boot from
/// reserved.
///
/// # Errors
/// [`DemoError`].
pub async fn describe_network(api: &Api) -> Result<(), DemoError> {
    let subnets = api
        .get("subnets/", &[])
        .await
        .map_err(because("the subnets cannot be listed"))?;
    if subnets
        .as_array()
        .is_some_and(|all| all.iter().any(|s| s["cidr"] == NETWORK))
    {
        return Ok(());
    }
    let fabric = api
        .create("fabrics/", &[("name", TAG)])
        .await
        .map_err(because("the fabric cannot be made"))?;
    let vlan = fabric["vlans"][0]["id"].to_string();
    let subnet = [("cidr", NETWORK), ("name", TAG), ("vlan", vlan.as_str())];
    api.create("subnets/", &subnet)
        .await
        .map_err(because("the subnet cannot be made"))?;
    let range = [
        ("type", "reserved"),
        ("start_ip", BOOTING.0),
        ("end_ip", BOOTING.1),
        ("comment", "Simulated machines boot from here."),
    ];
    api.create("ipranges/", &range).await.map_err(because(
        "the addresses that machines boot from cannot be reserved",
    ))?;
    Ok(())
}

/// Tells the region about the BMCs of all machines of the fleet that it knows and cannot switch yet, and
/// tags them. Says how many it was told of.
///
/// # Errors
/// [`DemoError`]; what was done before stays done.
pub async fn adopt(api: &Api, fleet: &Fleet) -> Result<usize, DemoError> {
    let machines = list(api).await?;
    let mut adopted = 0;
    for machine in machines
        .iter()
        .filter(|m| m["power_type"].as_str().unwrap_or_default().is_empty())
    {
        if let Some((index, id)) = ours(fleet, machine) {
            give_power(api, fleet, index, id).await?;
            adopted += 1;
        }
    }
    Ok(adopted)
}

/// Machines of an earlier demonstration on the same data: their BMCs are new ones at other addresses. The answer
/// is which they are.
async fn adopt_again(api: &Api, fleet: &Fleet) -> Result<BTreeSet<usize>, DemoError> {
    let mut known = BTreeSet::new();
    for machine in &list(api).await? {
        if let Some((index, id)) = ours(fleet, machine) {
            give_power(api, fleet, index, id).await?;
            known.insert(index);
        }
    }
    Ok(known)
}

async fn list(api: &Api) -> Result<Vec<Value>, DemoError> {
    let machines = api
        .get("machines/", &[])
        .await
        .map_err(because("the machines cannot be listed"))?;
    Ok(machines.as_array().cloned().unwrap_or_default())
}

/// Tells the region how a machine is switched, and marks it as simulated.
async fn give_power(api: &Api, fleet: &Fleet, index: usize, id: &str) -> Result<(), DemoError> {
    let parameters = fleet.power_parameters(index);
    let mut fields: BTreeMap<String, String> =
        BTreeMap::from([("power_type".to_owned(), "ipmi".to_owned())]);
    for (key, value) in parameters.as_object().into_iter().flatten() {
        fields.insert(
            format!("power_parameters_{key}"),
            value.as_str().unwrap_or_default().to_owned(),
        );
    }
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    api.update(&format!("machines/{id}/"), &fields)
        .await
        .map_err(because("a machine's power control cannot be set"))?;
    tag(api, id).await
}

/// Which machine of the fleet a machine of the API is.
fn ours<'a>(fleet: &Fleet, machine: &'a Value) -> Option<(usize, &'a str)> {
    let macs = machine["interface_set"]
        .as_array()?
        .iter()
        .filter_map(|i| i["mac_address"].as_str());
    let index = macs.filter_map(|mac| fleet.with_mac(mac)).next()?;
    Some((index, machine["system_id"].as_str()?))
}

async fn tag(api: &Api, id: &str) -> Result<(), DemoError> {
    let failed = because("the tag cannot be set");
    let add = [("add", id)];
    let path = format!("tags/{TAG}/");
    match api.op(&path, "update_nodes", &add).await {
        Err(e) if e.status() == Some(404) => {
            let made = [("name", TAG), ("comment", "Not a real machine.")];
            api.create("tags/", &made)
                .await
                .map_err(because("the tag cannot be made"))?;
            api.op(&path, "update_nodes", &add)
                .await
                .map(drop)
                .map_err(failed)
        }
        other => other.map(drop).map_err(failed),
    }
}

/// Runs the whole demonstration until cancelled: images, network, machines, and from then on the BMC of
/// every machine that introduces itself.
///
/// # Errors
/// [`DemoError`] when it cannot be set up. What goes wrong afterwards is logged and tried again.
pub async fn run(config: DemoConfig, cancel: CancellationToken) -> Result<(), DemoError> {
    let demo = async {
        let api = Api::new(&config.region_url, Some(&config.api_key))
            .map_err(because("the API cannot be used"))?;
        until("the API to answer", || async {
            api.get("version/", &[]).await.map_err(|e| e.to_string())
        })
        .await?;
        write_stream(&config.stream_dir)?;
        import_images(&api, &config.stream_dir).await?;
        describe_network(&api).await?;
        let mut rack = config.rack_http;
        if rack.ip().is_unspecified() {
            rack.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let timing = config.timing;
        let fleet = Fleet::start(FleetConfig {
            timing,
            ..FleetConfig::new(config.machines, Network::loopback(rack))
        })
        .await?;
        let known = adopt_again(&api, &fleet).await?;
        tracing::info!(
            machines = fleet.len() - known.len(),
            known = known.len(),
            "simulated machines are being switched on"
        );
        // Those that are known stay off until the region switches them on.
        let buttons = async {
            for index in (0..fleet.len()).filter(|i| !known.contains(i)) {
                fleet.press(index);
                sleep(PAUSE).await;
            }
        };
        let look = async {
            loop {
                match adopt(&api, &fleet).await {
                    Ok(0) => {}
                    Ok(machines) => tracing::info!(
                        machines,
                        "simulated machines can be switched by the region now"
                    ),
                    Err(error) => {
                        tracing::warn!(%error, cause = ?std::error::Error::source(&error), "the region was not told of a simulated BMC; trying again")
                    }
                }
                sleep(LOOK).await;
            }
        };
        let ((), ()) = tokio::join!(buttons, look);
        Ok(())
    };
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        end = demo => end,
    }
}
