//! The command line: what was typed, by which name, and the exit status.
//!
//! Exit status: 0 done; 1 failed; 2 not understood, or refused by the API.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    admin, audit, backup, boots, client, completion, enrolment, import, log, out, setup, status,
    tls, up,
};

/// Not understood, or refused by the API.
pub const USAGE: u8 = 2;

/// The words of administration that the name `maas` knows beside those of the client. A profile cannot
/// have one of them as its name.
pub const ADMIN_WORDS: [&str; 16] = [
    "up",
    "init",
    "createadmin",
    "apikey",
    "rack-secret",
    "register-rack",
    "status",
    "config",
    "config-tls",
    "boots",
    "audit",
    "import",
    "backup",
    "restore",
    "migrate",
    "completion",
];

/// The names that the program answers to.
pub const NAMES: [&str; 5] = [
    "steelyard",
    "maas",
    "maas-region",
    "maas-region-admin",
    "maas-rack",
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
    /// Prepare this host: data directory, database, administrator
    Init(setup::InitArgs),
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
    /// Show what this host is set to
    Config(setup::ConfigArgs),
    /// Serve the API over HTTPS with a certificate of yours; no restart
    ConfigTls(tls::TlsArgs),
    /// Show what was seen of a machine's boots, and what is wrong
    Boots(boots::BootsArgs),
    /// Show who changed what
    Audit(audit::AuditArgs),
    /// Add or change many things at once, from a list
    Import(import::ImportArgs),
    /// Write everything in the database to a file, also while the region runs
    Backup(backup::BackupArgs),
    /// Load a backup into a database
    Restore(backup::RestoreArgs),
    /// Move everything from SQLite to PostgreSQL
    Migrate(backup::MigrateArgs),
    /// Print a script with which a shell completes these commands
    Completion(completion::CompletionArgs),
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
    let root = || Cli::command().name("steelyard");
    if arguments.get(1).is_some_and(|a| a == completion::ASK) {
        let words: Vec<String> = arguments[2..]
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        return finish(&name, completion::answer(&name, &root(), &words));
    }
    if name == "maas"
        && !arguments
            .get(1)
            .and_then(|a| a.to_str())
            .is_some_and(|a| ADMIN_WORDS.contains(&a))
    {
        return client::run("maas", arguments.into_iter().skip(1).collect());
    }
    let known = NAMES.iter().find(|n| **n == name).unwrap_or(&"steelyard");
    let arguments = one_dash(arguments);
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
            log::start(log::Form::Human, "warn,pgp=error");
            client::block_on(async {
                match other {
                    Command::Init(args) => setup::init(args).await,
                    Command::Config(args) => setup::config(&args),
                    Command::Audit(args) => audit::run(args).await,
                    Command::Backup(args) => backup::backup(args).await,
                    Command::Restore(args) => backup::restore(args).await,
                    Command::Migrate(args) => backup::migrate(args).await,
                    Command::ConfigTls(args) => tls::run(args).await,
                    Command::Import(args) => import::run(args).await,
                    Command::Completion(args) => completion::print(&args),
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

/// `init -mode all` is how old instructions spell it.
fn one_dash(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|a| a == "init") {
        for a in &mut arguments[2..] {
            match a.to_str() {
                Some("-mode") => *a = "--mode".into(),
                Some(x) if x.starts_with("-mode=") => *a = format!("-{x}").into(),
                _ => {}
            }
        }
    }
    arguments
}

/// The words of administration and what each is for.
#[must_use]
pub fn about() -> Vec<(String, String)> {
    let all = Cli::command();
    all.get_subcommands()
        .filter(|c| ADMIN_WORDS.contains(&c.get_name()))
        .map(|c| {
            let about = c.get_about().map(ToString::to_string).unwrap_or_default();
            (c.get_name().to_owned(), about)
        })
        .collect()
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
