//! The command line. Exit codes: 0 done, 1 failed, 2 not understood.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::install::chain;
use crate::inventory::live::Live;
use crate::inventory::{collect, lshw, resources, text};
use crate::journal::Journal;
use crate::process::Host;
use crate::run::{OnFailure, Options, heartbeat, run};
use crate::sys::Sys;

/// The log file.
const LOG: &str = "/run/steelyard/agent.log";

const USAGE: &str = "\
steelyard-agent run --config FILE [--rack URL] [--work DIR] [--on-failure stay|poweroff|reboot]
steelyard-agent heartbeat --config FILE
steelyard-agent inventory resources|lshw|modaliases|kernel-cmdline|serial-ports|support-info [--root DIR]
steelyard-agent version
";

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Do the machine's work.
    Run {
        /// The preseed.
        config: PathBuf,
        /// The rack.
        rack: Option<String>,
        /// The work directory.
        work: Option<PathBuf>,
        /// What follows a failed installation.
        on_failure: OnFailure,
    },
    /// Send heartbeats.
    Heartbeat {
        /// The preseed.
        config: PathBuf,
    },
    /// Print what is in the machine.
    Inventory {
        /// Which report.
        kind: Report,
        /// Root of the files to read.
        root: PathBuf,
    },
    /// Print the version.
    Version,
    /// Print how to call it.
    Help,
}

/// A report of the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The resources document.
    Resources,
    /// lshw-like XML.
    Lshw,
    /// Modaliases.
    Modaliases,
    /// The kernel's options.
    KernelCmdline,
    /// Serial ports.
    SerialPorts,
    /// A summary for people.
    SupportInfo,
}

impl Report {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "resources" => Self::Resources,
            "lshw" => Self::Lshw,
            "modaliases" => Self::Modaliases,
            "kernel-cmdline" => Self::KernelCmdline,
            "serial-ports" => Self::SerialPorts,
            "support-info" => Self::SupportInfo,
            _ => return None,
        })
    }
}

/// Understands a command line.
///
/// # Errors
/// A sentence that names what is wrong.
pub fn parse(arguments: &[String]) -> Result<Command, String> {
    let mut words = Vec::new();
    let mut flags: Vec<(String, String)> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("--") {
            Some("help") => return Ok(Command::Help),
            Some("version") => return Ok(Command::Version),
            Some(flag) => {
                let (name, value) = match flag.split_once('=') {
                    Some((name, value)) => (name.to_owned(), value.to_owned()),
                    None => (
                        flag.to_owned(),
                        rest.next()
                            .cloned()
                            .ok_or_else(|| format!("--{flag} wants a value"))?,
                    ),
                };
                flags.push((name, value));
            }
            None => words.push(argument.as_str()),
        }
    }
    let mut take = |name: &str| {
        flags
            .iter()
            .position(|(n, _)| n == name)
            .map(|at| flags.remove(at).1)
    };
    let command = match words.as_slice() {
        ["run"] => Command::Run {
            config: take("config").ok_or("run wants --config FILE")?.into(),
            rack: take("rack").map(|r| r.trim_end_matches('/').to_owned()),
            work: take("work").map(PathBuf::from),
            on_failure: match take("on-failure").as_deref() {
                None | Some("stay") => OnFailure::Stay,
                Some("poweroff") => OnFailure::PowerOff,
                Some("reboot") => OnFailure::Reboot,
                Some(other) => {
                    return Err(format!(
                        "--on-failure is stay, poweroff or reboot, not '{other}'"
                    ));
                }
            },
        },
        ["heartbeat"] => Command::Heartbeat {
            config: take("config")
                .ok_or("heartbeat wants --config FILE")?
                .into(),
        },
        ["inventory", kind] => Command::Inventory {
            kind: Report::parse(kind).ok_or_else(|| format!("there is no report '{kind}'"))?,
            root: take("root").map_or_else(|| PathBuf::from("/"), PathBuf::from),
        },
        ["version"] => Command::Version,
        ["help"] => Command::Help,
        [] => return Err("no command".to_owned()),
        other => return Err(format!("'{}' is not understood", other.join(" "))),
    };
    match flags.first() {
        Some((name, _)) => Err(format!("--{name} does not belong here")),
        None => Ok(command),
    }
}

/// A JSON document that another script left behind, for the resources document.
fn left_behind(variable: &str) -> Option<Value> {
    let path = std::env::var_os(variable)?;
    let value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(value)
}

/// The text of a report.
#[must_use]
pub fn report(kind: Report, sys: &Sys, live: &Live, extra: Map<String, Value>) -> String {
    match kind {
        Report::Resources => {
            let document = resources::document(sys, live, &collect(sys, live), extra);
            // A Value always becomes text.
            let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
            text.push('\n');
            text
        }
        Report::Lshw => lshw::document(&collect(sys, live)),
        Report::Modaliases => text::modaliases(sys),
        Report::KernelCmdline => text::kernel_options(sys),
        Report::SerialPorts => text::serial_ports(sys),
        Report::SupportInfo => text::support_info(sys, &collect(sys, live)),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs a command line.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    let command = match parse(arguments) {
        Ok(command) => command,
        Err(e) => {
            // With the console gone there is nobody to tell.
            std::io::stderr()
                .lock()
                .write_all(format!("steelyard-agent: {e}\n{USAGE}").as_bytes())
                .ok();
            return ExitCode::from(2);
        }
    };
    match command {
        Command::Run {
            config,
            rack,
            work,
            on_failure,
        } => {
            let journal = Journal::console(Path::new(LOG));
            let mut options = Options {
                rack,
                on_failure,
                ..Options::new(config)
            };
            options.work = work.unwrap_or(options.work);
            match run(&options, &Sys::new("/"), &Host, &journal) {
                Ok(done) => {
                    journal.line(format_args!("done: {done:?}"));
                    ExitCode::SUCCESS
                }
                Err(_) => ExitCode::FAILURE,
            }
        }
        Command::Heartbeat { config } => {
            let journal = Journal::console(Path::new(LOG));
            match heartbeat(&Options::new(config), &journal, None) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    journal.line(chain(&e));
                    ExitCode::FAILURE
                }
            }
        }
        Command::Inventory { kind, root } => {
            let mut extra = Map::new();
            for (member, variable) in [
                ("storage-extra", "MAAS_STORAGE_CONFIG_FILE"),
                ("machine-extra", "MAAS_MACHINE_EXTRA_FILE"),
            ] {
                extra.extend(left_behind(variable).map(|v| (member.to_owned(), v)));
            }
            print(&report(kind, &Sys::new(root), &Live::now(), extra))
        }
        Command::Version => print(concat!("steelyard-agent ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Help => print(USAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_line_of_the_user_data_is_understood() {
        let Ok(Command::Run {
            config,
            rack,
            on_failure,
            ..
        }) = parsed("run --config /etc/cloud/x.cfg --rack http://10.0.0.1:5248/")
        else {
            panic!()
        };
        assert_eq!(
            (config, rack.as_deref(), on_failure),
            (
                PathBuf::from("/etc/cloud/x.cfg"),
                Some("http://10.0.0.1:5248"),
                OnFailure::Stay
            )
        );
        assert_eq!(
            parsed("inventory lshw --root=/x"),
            Ok(Command::Inventory {
                kind: Report::Lshw,
                root: "/x".into()
            })
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parsed("run"), Err("run wants --config FILE".to_owned()));
        assert_eq!(
            parsed("inventory all"),
            Err("there is no report 'all'".to_owned())
        );
        assert_eq!(
            parsed("version --x y"),
            Err("--x does not belong here".to_owned())
        );
        assert_eq!(
            parsed("run --config"),
            Err("--config wants a value".to_owned())
        );
        assert_eq!(parsed("dance"), Err("'dance' is not understood".to_owned()));
    }
}
