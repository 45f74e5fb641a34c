//! `init` and `config`: preparing a host, and what it is set to.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::{Map, Value};
use store::Target;

use crate::client::table;
use crate::data::{Data, DataArgs};
use crate::enrolment::{self, RegisterArgs};
use crate::{admin, local, out, running};

/// `steelyard init`.
#[derive(clap::Args)]
pub struct InitArgs {
    /// What this host is to be; the same as --mode
    #[arg(value_enum, value_name = "MODE", conflicts_with = "mode")]
    what: Option<Mode>,
    /// What this host is to be [default: all]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    #[command(flatten)]
    data: DataArgs,
    /// Log-in name of the first administrator; asked for on a terminal when left out
    #[arg(long, visible_alias = "username")]
    admin_username: Option<String>,
    /// The administrator's password, or - to read it from standard input
    #[arg(long, visible_alias = "password", allow_hyphen_values = true)]
    admin_password: Option<String>,
    /// The administrator's e-mail address
    #[arg(long, visible_alias = "email")]
    admin_email: Option<String>,
    /// Make no administrator now
    #[arg(long)]
    skip_admin: bool,
    /// The region whose rack this is to be, for the mode rack
    #[arg(long, value_name = "URL")]
    maas_url: Option<String>,
    /// The one-time secret of that region, or - to read it from standard input
    #[arg(long, allow_hyphen_values = true)]
    secret: Option<String>,
}

/// What a host is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Region and rack
    #[value(alias = "region+rack")]
    All,
    /// The region only
    Region,
    /// A rack of a region elsewhere
    Rack,
}

/// Prepares this host. What is there already stays as it is.
///
/// # Errors
/// When the data cannot be made, or an administrator is refused.
pub async fn init(args: InitArgs) -> anyhow::Result<ExitCode> {
    let mode = args.what.or(args.mode).unwrap_or(Mode::All);
    if mode == Mode::Rack {
        let (Some(url), Some(secret)) = (args.maas_url, args.secret) else {
            anyhow::bail!(
                "a rack needs --maas-url and --secret; \"steelyard rack-secret\" on the region's host makes one"
            );
        };
        return enrolment::register(RegisterArgs::new(args.data.data_dir, &url, secret)?).await;
    }
    let data = args.data.resolve()?;
    let region = admin::open(&args.data).await?;
    let result = async {
        out::line(&format!(
            "The data is in {} ({}).",
            data.dir.display(),
            data.engine()
        ))?;
        let admins = local::administrators(&region).await?;
        let asked = args.admin_username.is_some() || std::io::stdin().is_terminal();
        if !admins.is_empty() {
            out::line(&format!("Administrators: {}.", admins.join(", ")))?;
        } else if args.skip_admin || !asked {
            out::line("There is no administrator yet: steelyard createadmin makes one.")?;
        } else {
            admin::make(
                &region,
                args.admin_username,
                args.admin_password,
                args.admin_email,
            )
            .await?;
        }
        anyhow::Ok(())
    };
    let result = result.await;
    region.stop().await;
    result?;
    let role = match mode {
        Mode::Region => " --role region",
        Mode::All | Mode::Rack => "",
    };
    out::line(&format!(
        "To run it: steelyard up{role} --data-dir {}",
        data.dir.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `steelyard config`.
#[derive(clap::Args)]
pub struct ConfigArgs {
    /// Only the value of this setting
    key: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Accepted for scripts; showing is all that this command does
    #[arg(long = "show", hide = true)]
    _show: bool,
    /// One KEY=VALUE per line, also on a terminal
    #[arg(long)]
    parsable: bool,
}

/// Shows what this host is set to: as a table on a terminal, as JSON elsewhere.
///
/// # Errors
/// When there is no such setting.
pub fn config(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let data = args.data.resolve()?;
    let all = settings(&data)?;
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let said = if let Some(key) = &args.key {
        let Some(value) = all.get(key) else {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            anyhow::bail!("there is no setting {key}; there are {}", known.join(", "));
        };
        text(value)
    } else if args.parsable {
        let lines: Vec<String> = all
            .iter()
            .map(|(k, v)| format!("{k}={}", text(v)))
            .collect();
        lines.join("\n")
    } else if out::is_terminal() {
        let rows: Vec<Vec<String>> = all.iter().map(|(k, v)| vec![k.clone(), text(v)]).collect();
        table::aligned(&rows)
    } else {
        serde_json::to_string_pretty(&all)?
    };
    out::line(&said)?;
    Ok(ExitCode::SUCCESS)
}

fn settings(data: &Data) -> anyhow::Result<Map<String, Value>> {
    let is_running = data.is_running()?;
    let told = running::read(&data.dir).filter(|_| is_running);
    let mode = match &told {
        Some(r) if r.url.is_empty() => "rack",
        Some(r) if r.services.is_empty() => "region",
        Some(_) => "region+rack",
        None if enrolment::is_registered(data) && !data.has_database() => "rack",
        None if data.has_database() => "region+rack",
        None => "none",
    };
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| all.insert(key.to_owned(), value);
    put("mode", mode.into());
    put("running", is_running.into());
    put("data_dir", data.dir.display().to_string().into());
    put("database", place(&data.database).into());
    put(
        "maas_url",
        told.as_ref().map_or("", |r| r.url.as_str()).into(),
    );
    put(
        "link",
        told.as_ref()
            .and_then(|r| r.link.as_deref())
            .unwrap_or("")
            .into(),
    );
    put(
        "regions",
        told.as_ref()
            .map(|r| r.regions.join(" "))
            .unwrap_or_default()
            .into(),
    );
    Ok(all)
}

/// Where a database is, without what opens it.
#[must_use]
pub fn place(target: &Target) -> String {
    match target {
        Target::Sqlite(path) => path.display().to_string(),
        Target::Postgres(url) => {
            let rest = url.split_once("://").map_or("", |(_, r)| r);
            let rest = rest.rsplit_once('@').map_or(rest, |(_, r)| r);
            format!("postgres://{}", rest.split('?').next().unwrap_or(""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_without_its_password() {
        let of = |url: &str| place(&Target::Postgres(url.to_owned()));
        assert_eq!(
            of("postgres://u:ge@heim@h:1/d?sslmode=x"),
            "postgres://h:1/d"
        );
        assert_eq!(
            of("postgresql:///d?host=/run&password=geheim"),
            "postgres:///d"
        );
    }
}
