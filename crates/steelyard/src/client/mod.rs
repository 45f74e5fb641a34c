//! `maas`: a client of the API whose commands are built from the description that the server gives.
//!
//! `maas login` keeps a server's description and a key under a name (`profile`); `maas PROFILE RESOURCE
//! ACTION key=value…` finds the action in that description (`describe`), makes the request (`arguments`,
//! `request`) and prints the answer. Nothing here knows an operation of the API, but for the two that the
//! MAAS client treats specially (`upload`, and the import of SSH keys).

pub mod api;
mod arguments;
pub mod describe;
mod help;
pub mod login;
pub mod oauth;
pub mod profile;
mod request;
pub mod table;
mod upload;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli;
use crate::out;
use arguments::Line;
use profile::Profiles;

/// Why a command was not understood; the exit status is [`cli::USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Runs a short command to its end.
///
/// # Errors
/// The command's own.
pub fn block_on(
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime")?
        .block_on(command)
}

/// Runs a command line of the client; `name` is what was typed before it.
pub fn run(name: &str, arguments: Vec<OsString>) -> ExitCode {
    let words: Option<Vec<String>> = arguments
        .into_iter()
        .map(|a| a.into_string().ok())
        .collect();
    let result = match words {
        Some(words) => block_on(start(name, words)),
        None => Err(Usage("the arguments are not UTF-8 text".to_owned()).into()),
    };
    match result {
        Err(e) if e.is::<Usage>() => {
            out::complain(&format!("{name}: {e}"));
            ExitCode::from(cli::USAGE)
        }
        other => cli::finish(name, other),
    }
}

async fn start(name: &str, words: Vec<String>) -> anyhow::Result<ExitCode> {
    let Some(first) = words.first() else {
        out::complain(&help::top(name, &Profiles::open()?));
        return Ok(ExitCode::from(cli::USAGE));
    };
    match first.as_str() {
        "-h" | "--help" | "help" => {
            out::line(&help::top(name, &Profiles::open()?))?;
            Ok(ExitCode::SUCCESS)
        }
        "-V" | "--version" => {
            out::line(concat!("steelyard ", env!("CARGO_PKG_VERSION")))?;
            Ok(ExitCode::SUCCESS)
        }
        word if login::WORDS.contains(&word) => login::run(name, words).await,
        profile => call(name, profile, &words[1..]).await,
    }
}

async fn call(name: &str, profile_name: &str, words: &[String]) -> anyhow::Result<ExitCode> {
    let profiles = Profiles::open()?;
    let Some(profile) = profiles.get(profile_name) else {
        return Err(Usage(format!(
            "{profile_name} is neither a command nor a profile; \"{name} list\" shows the profiles, \"{name} login\" makes one"
        ))
        .into());
    };
    let description =
        describe::Description::new(&profile.description, profile.credentials.is_some())?;
    let line = Line::parse(words)?;
    let typed = format!("{name} {profile_name}");
    let Some(resource_name) = line.resource() else {
        return show(&line, &help::profile(&typed, profile, &description));
    };
    let resource = description.resource(resource_name).ok_or_else(|| {
        Usage(format!(
            "{profile_name} has no resource {resource_name}; \"{typed} --help\" lists them"
        ))
    })?;
    let typed = format!("{typed} {resource_name}");
    let Some(action_name) = line.action() else {
        return show(&line, &help::resource(&typed, resource));
    };
    let action = resource.action(action_name).ok_or_else(|| {
        Usage(format!(
            "{resource_name} has no action {action_name}; \"{typed} --help\" lists them"
        ))
    })?;
    let typed = format!("{typed} {action_name}");
    if line.help {
        return show(&line, &help::action(&typed, resource, action));
    }
    let arguments = line.arguments(&typed, resource, action)?;
    let api = api::Api::of(profile, line.insecure)?;
    let answer = if upload::applies(resource, action, &arguments) {
        upload::run(&api, resource, action, arguments).await?
    } else {
        api.send(request::build(resource, action, &arguments))
            .await?
    };
    request::print(&answer, description.hash, &line)
}

/// Shows a help text: asked for, or because the line ends too early.
fn show(line: &Line, text: &str) -> anyhow::Result<ExitCode> {
    if line.help {
        out::line(text)?;
        Ok(ExitCode::SUCCESS)
    } else {
        out::complain(text);
        Ok(ExitCode::from(cli::USAGE))
    }
}
