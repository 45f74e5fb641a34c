//! The command line: what was typed, by which name, and the exit status.
//!
//! Exit status: 0 done; 1 failed; 2 not understood, or refused by the API.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{admin, boots, client, enrolment, log, out, status, up};

/// Not understood, or refused by the API.
pub const USAGE: u8 = 2;

/// The words of administration that the name `maas` knows beside those of the client. A profile cannot
/// have one of them as its name.
pub const ADMIN_WORDS: [&str; 7] = [
    "up",
    "createadmin",
    "apikey",
    "rack-secret",
    "register-rack",
    "status",
    "boots",
];

/// Bare-metal provisioning: a region and a rack in one program.
#[derive(Parser)]
#[command(version, propagate_version = false, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the region, and the rack beside it, in the foreground
    Up(up::UpArgs),
    /// Make an administrator
    Createadmin(admin::CreateAdminArgs),
    /// Print the API key of a user
    Apikey(admin::ApiKeyArgs),
    /// Print a one-time secret with which a rack on another host registers
    RackSecret(enrolment::RackSecretArgs),
    /// Register this host's rack with a region elsewhere
    #[command(visible_alias = "register")]
    RegisterRack(enrolment::RegisterArgs),
    /// Say whether it runs, what it serves, and what is off
    Status(status::StatusArgs),
    /// Show what was seen of a machine's boots, and what is wrong
    Boots(boots::BootsArgs),
    /// Call the API, as the command `maas` does
    #[command(disable_help_flag = true)]
    Maas {
        /// What would follow `maas`
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGUMENTS"
        )]
        arguments: Vec<OsString>,
    },
}

/// Runs a command line.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let name = arguments
        .first()
        .and_then(|a| Path::new(a).file_name())
        .and_then(OsStr::to_str)
        .unwrap_or("steelyard")
        .to_owned();
    if name == "maas"
        && !arguments
            .get(1)
            .and_then(|a| a.to_str())
            .is_some_and(|a| ADMIN_WORDS.contains(&a))
    {
        return client::run("maas", arguments.into_iter().skip(1).collect());
    }
    let known = ["maas", "maas-region", "maas-rack"]
        .iter()
        .find(|n| **n == name)
        .unwrap_or(&"steelyard");
    let arguments = if *known == "maas-rack" {
        as_rack(arguments)
    } else {
        arguments
    };
    let command = Cli::command().name(*known).bin_name(*known);
    let cli = match command
        .try_get_matches_from(arguments)
        .and_then(|m| Cli::from_arg_matches(&m))
    {
        Ok(c) => c,
        Err(e) => {
            // Help and version go to standard output with status 0, the rest to standard error with 2.
            e.print().ok();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(USAGE));
        }
    };
    let result = match cli.command {
        Command::Up(args) => up::run(args),
        Command::Maas { arguments } => return client::run("steelyard maas", arguments),
        other => {
            log::start(log::Form::Human, "warn");
            client::block_on(async {
                match other {
                    Command::Createadmin(args) => admin::create_admin(args).await,
                    Command::Apikey(args) => admin::api_key(args).await,
                    Command::RackSecret(args) => enrolment::rack_secret(args).await,
                    Command::RegisterRack(args) => enrolment::register(args).await,
                    Command::Status(args) => status::run(args).await,
                    Command::Boots(args) => boots::run(args).await,
                    Command::Up(_) | Command::Maas { .. } => Ok(ExitCode::SUCCESS),
                }
            })
        }
    };
    finish(&name, result)
}

/// Under the name `maas-rack`, to run means to run a rack; so does nothing at all.
fn as_rack(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let word = arguments.get(1).and_then(|a| a.to_str());
    let told = arguments
        .iter()
        .filter_map(|a| a.to_str())
        .any(|a| a == "--role" || a.starts_with("--role="));
    match word {
        None => arguments.extend(["up", "--role", "rack"].map(OsString::from)),
        Some("up") if !told => arguments.extend(["--role", "rack"].map(OsString::from)),
        Some(_) => {}
    }
    arguments
}

/// The exit status of a result; its error goes to standard error with its causes.
pub fn finish(name: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(e) => {
            out::complain(&format!("{name}: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_name_maas_rack_runs_a_rack() {
        let of = |words: &[&str]| as_rack(words.iter().map(OsString::from).collect());
        assert_eq!(of(&["maas-rack"]), ["maas-rack", "up", "--role", "rack"]);
        assert_eq!(
            of(&["maas-rack", "up", "--log-json"]),
            ["maas-rack", "up", "--log-json", "--role", "rack"]
        );
        for untouched in [
            &["maas-rack", "up", "--role=all"][..],
            &["maas-rack", "status"],
        ] {
            assert_eq!(of(untouched), untouched);
        }
    }

    #[test]
    fn the_name_maas_knows_every_word_of_administration() {
        let words: Vec<String> = Cli::command()
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        assert_eq!(words, [&ADMIN_WORDS[..], &["maas"]].concat());
    }
}
