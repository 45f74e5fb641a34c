//! `steelyard status`: whether it runs, what it serves, and what is off.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

use crate::client::api::{self, Api};
use crate::client::oauth::Credentials;
use crate::data::DataArgs;
use crate::{out, running};

/// How long a region may take to say its version.
const LIMIT: Duration = Duration::from_secs(10);

/// `steelyard status`.
#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Ask this server instead of the process on the data directory
    #[arg(long)]
    url: Option<String>,
    /// Key for that server; with it the racks are shown too
    #[arg(
        long,
        value_name = "KEY",
        env = "STEELYARD_API_KEY",
        hide_env_values = true,
        requires = "url"
    )]
    api_key: Option<String>,
}

/// Prints the status; the exit status is 0 when it runs and answers.
///
/// # Errors
/// When it does not answer.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    match &args.url {
        Some(url) => remote(url, args.api_key.as_deref()).await,
        None => local(&args.data).await,
    }
}

async fn local(args: &DataArgs) -> anyhow::Result<ExitCode> {
    let data = args.resolve()?;
    if !data.is_running()? {
        out::line(&format!("Nothing is running on {}.", data.dir.display()))?;
        return Ok(ExitCode::FAILURE);
    }
    let Some(r) = running::read(&data.dir) else {
        out::line(&format!("Something is starting on {}.", data.dir.display()))?;
        return Ok(ExitCode::FAILURE);
    };
    let since = Timestamp::from_second(r.started)
        .map_or_else(|_| String::new(), |t| format!(", since {t}"));
    out::line(&format!(
        "Steelyard {} is running (process {}{since}).",
        r.version, r.pid
    ))?;
    if r.url.is_empty() {
        out::line(&format!("  rack of      {}", r.regions.join(", ")))?;
        for (name, s) in &r.services {
            service(name, &s.status, &s.info)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    out::line(&format!("  API          {}", r.url))?;
    if let Some(link) = &r.link {
        out::line(&format!("  link         {link}"))?;
    }
    out::line(&format!(
        "  region       {}, {}, schema {}",
        r.region, r.database, r.schema
    ))?;
    out::line(&format!(
        "  racks        {}",
        if r.racks.is_empty() {
            "none".to_owned()
        } else {
            r.racks.join(", ")
        }
    ))?;
    for (name, s) in &r.services {
        service(name, &s.status, &s.info)?;
    }
    let version = version(&Api::new(&api::normalise(&r.url)?, None, None, true)?).await?;
    out::line(&format!("  answers      as MAAS {version}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn remote(url: &str, key: Option<&str>) -> anyhow::Result<ExitCode> {
    let credentials: Option<Credentials> = key.map(str::parse).transpose()?;
    let url = api::normalise(url)?;
    let with_key = credentials.is_some();
    let api = Api::new(&url, credentials, None, false)?;
    out::line(&format!("{url} answers as MAAS {}.", version(&api).await?))?;
    if with_key {
        let racks = api
            .get(api.resolve("rackcontrollers/")?.as_str())
            .await?
            .json()?;
        for rack in racks.as_array().context("rackcontrollers/ is no list")? {
            let word = |key: &str| out::printable(rack[key].as_str().unwrap_or("?"));
            out::line(&format!(
                "rack {} ({})",
                word("hostname"),
                word("system_id")
            ))?;
            for s in rack["service_set"].as_array().into_iter().flatten() {
                let word = |key: &str| out::printable(s[key].as_str().unwrap_or(""));
                service(&word("name"), &word("status"), &word("status_info"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn service(name: &str, status: &str, info: &str) -> std::io::Result<()> {
    let info = if info.is_empty() {
        String::new()
    } else {
        format!(": {info}")
    };
    out::line(&format!("  {name:<12} {status}{info}"))
}

async fn version(api: &Api) -> anyhow::Result<String> {
    let target = api.resolve("version/")?;
    let answer = tokio::time::timeout(LIMIT, api.get(target.as_str()))
        .await
        .with_context(|| format!("{target} has not answered within {LIMIT:?}"))??;
    let v = answer.json()?;
    let word = |key: &str| out::printable(v[key].as_str().unwrap_or("?"));
    Ok(format!("{} ({})", word("version"), word("subversion")))
}
