//! The whole of one start of the agent: who am I, what is my work, do it, say how it went.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use metal::install::{Plan, Work};

use crate::config::{Config, ConfigError};
use crate::enlist::{EnlistError, Enlisted, enlist};
use crate::http::{Http, HttpError, Patience};
use crate::install;
use crate::journal::Journal;
use crate::metadata::{HEARTBEAT, Heartbeat, Metadata, Signal, Status};
use crate::process::{Cmd, End, Runner};
use crate::report::Reporter;
use crate::scripts::{self, GRACE, ScriptsError};
use crate::sys::Sys;

/// Files whose presence keeps cloud-init's `power_state` from acting.
const BLOCKS: [&str; 2] = ["tmp/block-poweroff", "tmp/block-reboot"];
/// Pause of a machine that is known already before it stops, as the published protocol has it.
const KNOWN_PAUSE: Duration = Duration::from_secs(10);

/// What happens with a machine whose installation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It stays up, to be looked at.
    #[default]
    Stay,
    /// It is switched off.
    PowerOff,
    /// It reboots.
    Reboot,
}

/// With what the agent runs.
pub struct Options {
    /// The preseed that cloud-init saved.
    pub config: PathBuf,
    /// Scheme, host and port of the rack; by default those of the metadata service.
    pub rack: Option<String>,
    /// Directory for scripts and their outputs; programs must be allowed to run from it.
    pub work: PathBuf,
    /// Where a new system is mounted.
    pub target: PathBuf,
    /// This program.
    pub agent: PathBuf,
    /// `uname -m`.
    pub machine: String,
    /// What happens after a failed installation.
    pub on_failure: OnFailure,
    /// Patience for what must arrive.
    pub delivery: Patience,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time a script gets beyond its limit.
    pub grace: Duration,
    /// Time a machine that is known already waits before it stops.
    pub known_pause: Duration,
    /// Time a reboot or power-off gets before it is forced.
    pub power_wait: Duration,
}

impl Options {
    /// The usual options for a preseed.
    #[must_use]
    pub fn new(config: PathBuf) -> Self {
        Self {
            config,
            rack: None,
            // Not /run: it is often mounted without the right to execute.
            work: PathBuf::from("/var/lib/steelyard-agent"),
            target: PathBuf::from("/run/steelyard/target"),
            agent: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("steelyard-agent")),
            machine: crate::inventory::live::Live::now().machine,
            on_failure: OnFailure::default(),
            delivery: Patience::DELIVERY,
            heartbeat: HEARTBEAT,
            grace: GRACE,
            known_pause: KNOWN_PAUSE,
            power_wait: Duration::from_secs(60),
        }
    }
}

/// Why the work could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The preseed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Enlistment.
    #[error("this machine could not be enlisted")]
    Enlist(#[from] EnlistError),
    /// The metadata service.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The scripts.
    #[error("the scripts could not be run")]
    Scripts(#[from] ScriptsError),
    /// The installation.
    #[error(transparent)]
    Install(#[from] install::Failure),
}

/// How the work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Scripts ran; so many failed. cloud-init's `power_state` decides what follows.
    Scripts {
        /// How many ran.
        ran: usize,
        /// Names of those that failed.
        failed: Vec<String>,
    },
    /// A system is installed and the machine reboots.
    Installed,
    /// Rescue mode: the machine stays up.
    Rescue,
    /// There was nothing to do and the machine is switched off.
    Nothing,
    /// The machine is known and nobody waits for it.
    Known,
}

/// Keeps cloud-init from switching the machine off while work goes on.
struct PowerBlock<'a> {
    sys: &'a Sys,
    keep: bool,
}

impl<'a> PowerBlock<'a> {
    fn new(sys: &'a Sys, journal: &Journal) -> Self {
        for file in BLOCKS {
            let path = sys.path(file);
            let made = path
                .parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| std::fs::write(&path, b""));
            if let Err(e) = made {
                journal.line(format_args!("cannot create {}: {e}", path.display()));
            }
        }
        Self { sys, keep: false }
    }
}

impl Drop for PowerBlock<'_> {
    fn drop(&mut self) {
        if !self.keep {
            // Not there is as good as removed.
            BLOCKS
                .iter()
                .for_each(|f| drop(std::fs::remove_file(self.sys.path(f))));
        }
    }
}

/// Does what there is to do.
///
/// # Errors
/// When it could not be done; failed scripts are no error.
pub fn run(
    options: &Options,
    sys: &Sys,
    runner: &dyn Runner,
    journal: &Journal,
) -> Result<Done, RunError> {
    let mut block = PowerBlock::new(sys, journal);
    let result = work(options, sys, runner, journal, &mut block);
    if let Err(e) = &result {
        journal.line(format_args!("failed: {}", install::chain(e)));
    }
    result
}

fn hide(journal: &Journal, config: &Config) {
    if let Some(c) = &config.credentials {
        [&c.token_secret, &c.token_key, &c.consumer_key]
            .into_iter()
            .for_each(|s| journal.hide(s));
    }
}

fn work(
    options: &Options,
    sys: &Sys,
    runner: &dyn Runner,
    journal: &Journal,
    block: &mut PowerBlock<'_>,
) -> Result<Done, RunError> {
    let config = Config::read(&options.config)?;
    hide(journal, &config);
    let http = Http::new(journal.clone());
    let site = scripts::Site {
        sys,
        runner,
        journal,
        work: options.work.clone(),
        agent: options.agent.clone(),
        base_url: options.rack.clone().unwrap_or_else(|| config.base_url()),
        grace: options.grace,
    };
    if config.credentials.is_none() {
        let Enlisted::New { text, config } =
            enlist(&site, &http, &config, &options.machine, options.delivery)?
        else {
            journal.line("this machine is known already");
            std::thread::sleep(options.known_pause);
            return Ok(Done::Known);
        };
        hide(journal, &config);
        Config::save(&options.config, &text)?;
        let metadata = Metadata::new(http, config, options.delivery);
        metadata.signal(
            &Signal::new(Status::Commissioning).with_message("enlisted; commissioning begins"),
        )?;
        return run_scripts(options, &site, &metadata);
    }
    let metadata = Metadata::new(http, config, options.delivery);
    let work = metadata.work().inspect_err(|e| {
        // A region newer than this agent shall not wait for a machine that cannot do what it was told.
        if matches!(e, HttpError::Malformed { .. })
            && let Err(lost) = metadata.signal_with(
                &Signal::new(Status::Failed).with_message(e.to_string()),
                Patience::PASSING,
            )
        {
            journal.line(format_args!("the failure was not delivered: {lost}"));
        }
    })?;
    match work {
        Work::Scripts => run_scripts(options, &site, &metadata),
        Work::Install(plan) => run_install(options, sys, runner, journal, &metadata, &plan, block),
        Work::Rescue => {
            metadata.signal(
                &Signal::new(Status::Ok).with_message("rescue mode: the machine stays up"),
            )?;
            stay_alive(options, journal);
            Ok(Done::Rescue)
        }
        Work::Nothing => {
            journal.line("nothing to do: switching off");
            power(options, runner, journal, "poweroff");
            Ok(Done::Nothing)
        }
    }
}

fn run_scripts(
    options: &Options,
    site: &scripts::Site<'_>,
    metadata: &Metadata,
) -> Result<Done, RunError> {
    let heartbeat = Heartbeat::start(metadata.clone(), site.journal.clone(), options.heartbeat);
    let result = scripts::run_all(site, metadata);
    drop(heartbeat);
    match result {
        Ok(tally) => Ok(Done::Scripts {
            ran: tally.ran,
            failed: tally.failed,
        }),
        Err(e) => {
            let text = site.journal.redact(&install::chain(&e));
            // Whoever could not be reached before is hardly reached now; but an archive that is broken can be told of.
            if let Err(lost) = metadata.signal_with(
                &Signal::new(Status::Failed).with_message(text),
                Patience::PASSING,
            ) {
                site.journal
                    .line(format_args!("the failure was not delivered: {lost}"));
            }
            Err(e.into())
        }
    }
}

fn run_install(
    options: &Options,
    sys: &Sys,
    runner: &dyn Runner,
    journal: &Journal,
    metadata: &Metadata,
    plan: &Plan,
    block: &mut PowerBlock<'_>,
) -> Result<Done, RunError> {
    let source = &plan.datasource;
    [
        &source.token_secret,
        &source.token_key,
        &source.consumer_key,
    ]
    .into_iter()
    .for_each(|s| journal.hide(s));
    let report_url = metadata.report_url()?;
    let heartbeat = Heartbeat::start(metadata.clone(), journal.clone(), options.heartbeat);
    let report = Reporter::start(
        metadata.http().clone(),
        report_url.clone(),
        metadata.config().credentials.clone(),
        plan.attempt,
        options.delivery,
        journal.clone(),
    );
    let site = install::Site {
        sys,
        runner,
        metadata,
        journal,
        target: options.target.clone(),
        machine: options.machine.clone(),
    };
    let result = install::install(&site, plan, &report, &report_url);
    // Everything queued leaves before the machine does.
    report.finish();
    drop(heartbeat);
    match result {
        Ok(()) => {
            block.keep = true;
            power(options, runner, journal, "reboot");
            Ok(Done::Installed)
        }
        Err(failure) => {
            let signal = Signal {
                attempt: Some(plan.attempt),
                ..Signal::new(Status::Failed)
            }
            .with_message(failure.to_string());
            if let Err(lost) = metadata.signal(&signal) {
                journal.line(format_args!("the failure was not delivered: {lost}"));
            }
            block.keep = true;
            match options.on_failure {
                OnFailure::Stay => journal.line("the machine stays up to be looked at"),
                OnFailure::PowerOff => power(options, runner, journal, "poweroff"),
                OnFailure::Reboot => power(options, runner, journal, "reboot"),
            }
            Err(failure.into())
        }
    }
}

/// Reboots or switches off: by systemd without waiting for the ephemeral system's services, and by the kernel when that does not work.
fn power(options: &Options, runner: &dyn Runner, journal: &Journal, action: &str) {
    let cmd = Cmd::new(&["systemctl", "--force", action]);
    let output = runner.run(&cmd, None);
    if output.end == End::Exited(0) {
        std::thread::sleep(options.power_wait);
    } else {
        journal.line(format_args!(
            "`{cmd}`: {} {}",
            output.end,
            output.stderr.trim()
        ));
    }
    let cmd = Cmd::new(&[action, "-f"]);
    let output = runner.run(&cmd, None);
    if output.end != End::Exited(0) {
        journal.line(format_args!(
            "`{cmd}`: {} {}",
            output.end,
            output.stderr.trim()
        ));
    }
}

/// Leaves a process behind that sends heartbeats while the machine stays up.
fn stay_alive(options: &Options, journal: &Journal) {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(&options.agent);
    command
        .arg("heartbeat")
        .arg("--config")
        .arg(&options.config);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if let Err(e) = command.spawn() {
        journal.line(format_args!("no heartbeat in rescue mode: {e}"));
    }
}

/// Sends heartbeats for ever; `beats` ends it earlier, for tests.
///
/// # Errors
/// When the preseed cannot be read.
pub fn heartbeat(options: &Options, journal: &Journal, beats: Option<u32>) -> Result<(), RunError> {
    let config = Config::read(&options.config)?;
    hide(journal, &config);
    let metadata = Metadata::new(Http::new(journal.clone()), config, options.delivery);
    let mut sent = 0;
    while beats.is_none_or(|b| sent < b) {
        if let Err(e) = metadata.signal_with(&Signal::new(Status::Working), Patience::PASSING) {
            journal.line(format_args!("heartbeat lost: {e}"));
        }
        sent = sent.saturating_add(1);
        std::thread::sleep(options.heartbeat);
    }
    Ok(())
}
