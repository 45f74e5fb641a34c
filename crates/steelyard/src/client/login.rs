//! `login`, `logout`, `list`, `refresh`: the profiles.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use serde_json::Value;

use super::api::{self, Api};
use super::oauth::Credentials;
use super::profile::{Profile, Profiles};
use super::{Usage, describe};
use crate::{cli, completion, out};

/// Commands that are no profiles.
pub const WORDS: [&str; 4] = ["login", "logout", "list", "refresh"];

#[derive(Parser)]
enum Command {
    /// Keep a server and a key under a name
    Login {
        /// The name
        profile: String,
        /// The server, for example http://HOST:5240/MAAS
        url: String,
        /// API key (CONSUMER:TOKEN:SECRET), or - to read it from standard input; asked for when left out
        key: Option<String>,
        /// Further certificates to trust, PEM
        #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
        cacerts: Option<PathBuf>,
        /// Do not check the server's certificate
        #[arg(short = 'k', long)]
        insecure: bool,
    },
    /// Forget a profile
    Logout {
        /// Its name
        profile: String,
    },
    /// List the profiles with their keys
    List,
    /// Read the descriptions of the servers again
    Refresh,
}

/// Runs one of them.
///
/// # Errors
/// When the server refuses or does not answer, or the profiles cannot be kept.
pub async fn run(name: &str, words: Vec<String>) -> anyhow::Result<ExitCode> {
    let command = match Command::try_parse_from([vec![name.to_owned()], words].concat()) {
        Ok(c) => c,
        Err(e) => {
            e.print().ok();
            return Ok(ExitCode::from(
                u8::try_from(e.exit_code()).unwrap_or(cli::USAGE),
            ));
        }
    };
    match command {
        Command::Login {
            profile,
            url,
            key,
            cacerts,
            insecure,
        } => {
            login(name, &profile, &url, key, cacerts, insecure).await?;
        }
        Command::Logout { profile } => {
            if !Profiles::remove(&profile)? {
                return Err(Usage(format!("there is no profile {profile}")).into());
            }
        }
        Command::List => list()?,
        Command::Refresh => refresh().await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn login(
    name: &str,
    profile_name: &str,
    url: &str,
    key: Option<String>,
    cacerts: Option<PathBuf>,
    insecure: bool,
) -> anyhow::Result<()> {
    let reserved = WORDS.contains(&profile_name)
        || cli::ADMIN_WORDS.contains(&profile_name)
        || profile_name == "help"
        || profile_name == completion::ASK;
    if reserved || profile_name.is_empty() || profile_name.starts_with('-') {
        return Err(Usage(format!("a profile cannot be called \"{profile_name}\"")).into());
    }
    let url = api::normalise(url).map_err(|e| Usage(format!("{e:#}")))?;
    let credentials: Option<Credentials> = match read_key(key)?.trim() {
        "" => None,
        key => Some(key.parse()?),
    };
    let cacerts = match cacerts {
        Some(path) => Some(
            std::fs::read_to_string(&path)
                .with_context(|| format!("{} cannot be read", path.display()))?,
        ),
        None => None,
    };
    let mut profile = Profile {
        url,
        credentials,
        cacerts,
        insecure,
        description: Value::Null,
    };
    let api = Api::of(&profile, false)?;
    let user = match &profile.credentials {
        None => None,
        Some(_) => Some(whoami(&api).await?),
    };
    profile.description = description(&api).await?;
    let url = profile.url.clone();
    Profiles::put(profile_name, profile)?;
    let who = user.map_or_else(|| "without a key".to_owned(), |u| format!("as {u}"));
    out::line(&format!(
        "Logged in to {url} {who}. \"{name} {profile_name} --help\" lists what there is."
    ))?;
    Ok(())
}

fn read_key(key: Option<String>) -> anyhow::Result<String> {
    match key {
        Some(key) if key != "-" => Ok(key),
        None if std::io::stdin().is_terminal() => {
            rpassword::prompt_password("API key (empty for access without one): ")
                .context("the terminal cannot be read")
        }
        _ => {
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .context("standard input cannot be read")?;
            Ok(line)
        }
    }
}

/// The name of the user whose key it is.
async fn whoami(api: &Api) -> anyhow::Result<String> {
    let answer = api.get(api.resolve("users/?op=whoami")?.as_str()).await?;
    if answer.status == 401 {
        anyhow::bail!(
            "the server refused this API key (401): {}",
            answer.text().trim()
        );
    }
    Ok(answer.json()?["username"]
        .as_str()
        .unwrap_or("somebody")
        .to_owned())
}

async fn description(api: &Api) -> anyhow::Result<Value> {
    let document = api.get(api.resolve("describe/")?.as_str()).await?.json()?;
    // Refuse here what no later command could use.
    describe::Description::new(&document, true)?;
    Ok(document)
}

fn list() -> anyhow::Result<()> {
    for (name, p) in Profiles::open()?.iter() {
        let key = p
            .credentials
            .as_ref()
            .map_or_else(|| "-".to_owned(), Credentials::joined);
        out::line(&format!("{name} {} {key}", p.url))?;
    }
    Ok(())
}

async fn refresh() -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for (name, p) in Profiles::open()?.iter() {
        match async { description(&Api::of(p, false)?).await }.await {
            Ok(description) => Profiles::put(
                name,
                Profile {
                    description,
                    ..p.clone()
                },
            )?,
            Err(e) => {
                out::complain(&format!("{name}: {e:#}"));
                failed.push(name.to_owned());
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        anyhow::bail!("not refreshed: {}", failed.join(", "))
    }
}
