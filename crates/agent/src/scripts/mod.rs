//! The published protocol of user scripts: fetch them, run them in their order, send each result.
//!
//! [`run_all`] is the whole of it; [`index`] has the order, [`bundle`] the archive, [`exec`] one run.

pub mod bundle;
pub mod exec;
pub mod index;
pub mod netconf;
pub mod packages;
pub mod parameters;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use self::bundle::Bundle;
use self::exec::Outputs;
use self::index::{Parallel, Script, groups};
use crate::http::HttpError;
use crate::journal::Journal;
use crate::metadata::{Metadata, Signal, Status};
use crate::process::{End, Runner};
use crate::sys::Sys;

/// Time a script gets beyond its own limit before it is killed.
pub const GRACE: Duration = Duration::from_secs(5 * 60);
/// Scripts that run at the same time.
const TOGETHER_MAX: usize = 64;
/// Rounds of commissioning: each may bring scripts that match what the last one found.
const ROUNDS_MAX: usize = 8;
/// Exit status of a script whose parameters do not fit the machine.
const EXIT_PARAMETER: i32 = 2;
/// Exit status of a script that could not be started, as shells have it.
const EXIT_NOT_STARTED: i32 = 127;
/// Largest description of a power control.
const BMC_BYTES_MAX: usize = 64 * 1024;

/// Where and with what scripts run.
pub struct Site<'a> {
    /// The machine.
    pub sys: &'a Sys,
    /// For packages and networks.
    pub runner: &'a dyn Runner,
    /// The log.
    pub journal: &'a Journal,
    /// Directory for archives, outputs and downloads.
    pub work: PathBuf,
    /// This program, for scripts that call it.
    pub agent: PathBuf,
    /// Scheme, host and port of the rack, for scripts that download from it.
    pub base_url: String,
    /// [`GRACE`], or less in tests.
    pub grace: Duration,
}

/// What went wrong beyond a script's own failure.
#[derive(Debug, thiserror::Error)]
pub enum ScriptsError {
    /// The metadata service.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The archive.
    #[error("the scripts cannot be used")]
    Bundle(#[from] bundle::BundleError),
}

/// A power control that a script found: its type and parameters.
pub type Power = (String, Value);

/// What scripts did.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many ran.
    pub ran: usize,
    /// Names of those that failed.
    pub failed: Vec<String>,
    /// A power control that was found.
    pub power: Option<Power>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.ran += other.ran;
        self.failed.extend(other.failed);
        self.power = self.power.take().or(other.power);
    }
}

/// One script's end.
struct Done {
    name: String,
    passed: bool,
    power: Option<Power>,
}

/// Fetches the scripts; none when there are none to run.
///
/// # Errors
/// When the service or the archive fails.
pub fn fetch(site: &Site<'_>, metadata: &Metadata) -> Result<Option<Bundle>, ScriptsError> {
    let Some(archive) = metadata.scripts()? else {
        return Ok(None);
    };
    let bundle = bundle::unpack(&archive, &site.work)?;
    if bundle.left_out > 0 {
        site.journal.line(format_args!("{} entries of the scripts' archive left out: paths, links or devices that do not belong there", bundle.left_out));
    }
    Ok(Some(bundle))
}

/// Runs everything that the service has for this machine and signals the end of it.
///
/// # Errors
/// When the service or the archive fails; a script's failure is in the tally, and was signalled.
pub fn run_all(site: &Site<'_>, metadata: &Metadata) -> Result<Tally, ScriptsError> {
    let mut tally = Tally::default();
    let mut done: HashSet<Option<i64>> = HashSet::new();
    let mut bundle = fetch(site, metadata)?;
    for _ in 0..ROUNDS_MAX {
        let Some(b) = &bundle else { break };
        let new: Vec<Script> = b
            .index
            .commissioning_scripts
            .iter()
            .filter(|s| !s.has_finished && !done.contains(&s.script_result_id))
            .cloned()
            .collect();
        if new.is_empty() {
            break;
        }
        done.extend(new.iter().map(|s| s.script_result_id));
        tally.add(run_phase(
            site,
            Some(metadata),
            b,
            &new,
            Phase::Commissioning,
        ));
        // What was found may match further scripts, and those that follow are prepared by it.
        bundle = fetch(site, metadata)?;
    }
    if let Some(b) = &bundle {
        if b.index.testing_scripts.iter().any(|s| !s.has_finished) {
            metadata.signal(&Signal::new(Status::Testing).with_message("tests begin"))?;
            tally.add(run_phase(
                site,
                Some(metadata),
                b,
                &b.index.testing_scripts,
                Phase::Other,
            ));
        }
        for scripts in [&b.index.release_scripts, &b.index.deployment_scripts] {
            tally.add(run_phase(site, Some(metadata), b, scripts, Phase::Other));
        }
    }
    let end = if tally.failed.is_empty() {
        Signal::new(Status::Ok).with_message(format!("{} scripts passed", tally.ran))
    } else {
        Signal::new(Status::Failed).with_message(format!(
            "{} of {} scripts failed: {}",
            tally.failed.len(),
            tally.ran,
            tally.failed.join(", ")
        ))
    };
    metadata.signal(&end)?;
    Ok(tally)
}

/// Which phase scripts belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// One-at-a-time scripts may describe the power control.
    Commissioning,
    /// Tests, release, deployment.
    Other,
}

/// Runs the scripts of one phase. Without `metadata` nothing is sent: the machine is not known yet.
#[must_use]
pub fn run_phase(
    site: &Site<'_>,
    metadata: Option<&Metadata>,
    bundle: &Bundle,
    scripts: &[Script],
    phase: Phase,
) -> Tally {
    let mut tally = Tally::default();
    for group in groups(scripts) {
        for part in group.chunks(TOGETHER_MAX) {
            let ends: Vec<Done> = if let [only] = part {
                vec![run_one(site, metadata, bundle, only, phase)]
            } else {
                std::thread::scope(|scope| {
                    let threads: Vec<_> = part
                        .iter()
                        .map(|s| {
                            (
                                s.name.clone(),
                                scope.spawn(move || run_one(site, metadata, bundle, s, phase)),
                            )
                        })
                        .collect();
                    threads
                        .into_iter()
                        .map(|(name, t)| {
                            t.join().unwrap_or(Done {
                                name,
                                passed: false,
                                power: None,
                            })
                        })
                        .collect()
                })
            };
            for end in ends {
                tally.ran += 1;
                tally.power = tally.power.take().or(end.power);
                if !end.passed {
                    tally.failed.push(end.name);
                }
            }
        }
    }
    tally
}

/// Runs the one-at-a-time commissioning scripts of an unknown machine until one found a power control.
#[must_use]
pub fn run_anonymous(site: &Site<'_>, bundle: &Bundle) -> Option<Power> {
    let scripts: Vec<&Script> = groups(&bundle.index.commissioning_scripts)
        .into_iter()
        .flatten()
        .filter(|s| s.class() == Parallel::Disabled)
        .collect();
    scripts
        .into_iter()
        .find_map(|s| run_one(site, None, bundle, s, Phase::Commissioning).power)
}

fn about(script: &Script, status: Status) -> Signal {
    Signal {
        script_result_id: script.script_result_id,
        script_version_id: script.script_version_id,
        ..Signal::new(status)
    }
}

/// Sends a signal about a script. What cannot be delivered in all that time is logged: the work goes on,
/// and the region marks the script as it sees fit.
fn tell(site: &Site<'_>, metadata: Option<&Metadata>, signal: &Signal) {
    let Some(metadata) = metadata else { return };
    if let Err(e) = metadata.signal(signal) {
        site.journal
            .line(format_args!("a signal was not delivered: {e}"));
    }
}

fn environment(
    site: &Site<'_>,
    script: &Script,
    outputs: &Outputs,
    limit: Option<Duration>,
) -> Vec<(String, String)> {
    let path = |p: &Path| p.display().to_string();
    [
        ("MAAS_BASE_URL", site.base_url.clone()),
        (
            "MAAS_RESOURCES_FILE",
            path(&site.work.join("resources.json")),
        ),
        (
            "MAAS_MACHINE_EXTRA_FILE",
            path(&site.sys.path("machine-extra.json")),
        ),
        (
            "MAAS_STORAGE_CONFIG_FILE",
            path(&site.sys.path("storage-config.json")),
        ),
        ("OUTPUT_COMBINED_PATH", path(&outputs.combined)),
        ("OUTPUT_STDOUT_PATH", path(&outputs.stdout)),
        ("OUTPUT_STDERR_PATH", path(&outputs.stderr)),
        ("RESULT_PATH", path(&outputs.result)),
        (
            "DOWNLOAD_PATH",
            path(&site.work.join("downloads").join(script.file_stem())),
        ),
        (
            "RUNTIME",
            limit.map_or_else(String::new, |l| l.as_secs().to_string()),
        ),
        // The words that Python prints for a truth value: scripts compare with them.
        (
            "HAS_STARTED",
            if script.has_started { "True" } else { "False" }.to_owned(),
        ),
        ("STEELYARD_AGENT", path(&site.agent)),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

fn run_one(
    site: &Site<'_>,
    metadata: Option<&Metadata>,
    bundle: &Bundle,
    script: &Script,
    phase: Phase,
) -> Done {
    let journal = site.journal;
    let outputs = Outputs::new(&site.work.join("out"), script);
    let limit = parameters::time_limit(script);
    let failed_before = |status: i32, text: &str| {
        journal.line(format_args!("script {}: {text}", script.name));
        outputs.explain(&format!("{text}\n"));
        let files = outputs.parts(&script.name);
        tell(
            site,
            metadata,
            &Signal {
                exit_status: Some(status),
                files,
                ..about(script, Status::Working)
            }
            .with_message(text),
        );
        Done {
            name: script.name.clone(),
            passed: false,
            power: None,
        }
    };
    let downloads = site.work.join("downloads").join(script.file_stem());
    if let Err(e) = std::fs::create_dir_all(&downloads) {
        return failed_before(
            EXIT_NOT_STARTED,
            &format!("cannot create {}: {e}", downloads.display()),
        );
    }
    if packages::wanted(&script.packages) {
        tell(
            site,
            metadata,
            &about(script, Status::Installing)
                .with_message(format!("installing what {} needs", script.name)),
        );
        if let Err(e) = packages::install(site.runner, &script.packages, &downloads) {
            let status = match e.output.end {
                End::Exited(n) => n,
                _ => EXIT_NOT_STARTED,
            };
            return failed_before(status, &format!("its packages cannot be installed: {e}"));
        }
    }
    let arguments = match parameters::arguments(script, site.sys) {
        Ok(arguments) => arguments,
        Err(e) => return failed_before(EXIT_PARAMETER, &e.to_string()),
    };
    let Some(place) = bundle::place(Path::new(&script.path)) else {
        return failed_before(EXIT_NOT_STARTED, "its path leads out of the archive");
    };
    let body = bundle
        .scripts
        .parent()
        .unwrap_or(&bundle.scripts)
        .join(place);
    let applied = if script.apply_configured_networking {
        tell(
            site,
            metadata,
            &about(script, Status::ApplyingNetconf).with_message("applying the configured network"),
        );
        match netconf::apply(site.sys, site.runner, bundle.netplan.as_deref(), &site.work) {
            Ok(applied) => Some(applied),
            Err(e) => {
                return failed_before(
                    EXIT_NOT_STARTED,
                    &format!("the configured network cannot be applied: {e}"),
                );
            }
        }
    } else {
        None
    };
    tell(
        site,
        metadata,
        &about(script, Status::Working).with_message(format!("{} starts", script.name)),
    );
    journal.line(format_args!("script {} starts", script.name));
    let mut env = environment(site, script, &outputs, limit);
    let bmc = (phase == Phase::Commissioning && script.class() == Parallel::Disabled)
        .then(|| site.work.join(format!("bmc-{}.yaml", script.file_stem())));
    if let Some(path) = &bmc {
        // Left over from an earlier run of the same script, or not there.
        std::fs::remove_file(path).ok();
        env.push(("BMC_CONFIG_PATH".to_owned(), path.display().to_string()));
    }
    let (end, runtime) = exec::run(
        &body,
        &arguments,
        &env,
        &downloads,
        &outputs,
        limit.map(|l| l + site.grace),
    );
    if let Some(applied) = applied
        && let Err(e) = applied.revert(site.runner)
    {
        journal.line(format_args!(
            "the network before {} cannot be put back: {e}",
            script.name
        ));
    }
    let power = bmc
        .and_then(|p| std::fs::read(p).ok())
        .and_then(|y| power_control(&y));
    let (status, exit_status) = match &end {
        End::Exited(n) => (Status::Working, Some(*n)),
        // Shells report a death by signal N as 128 + N.
        End::Killed(n) => (Status::Working, Some(128 + n)),
        End::TimedOut(_) => (Status::TimedOut, None),
        End::NotStarted(why) => {
            outputs.explain(&format!("the script cannot be started: {why}\n"));
            (Status::Working, Some(EXIT_NOT_STARTED))
        }
    };
    journal.line(format_args!(
        "script {}: {end} after {:.1} s",
        script.name,
        runtime.as_secs_f64()
    ));
    let signal = Signal {
        exit_status,
        runtime: Some(runtime),
        files: outputs.parts(&script.name),
        power: power.clone(),
        ..about(script, status)
    };
    tell(
        site,
        metadata,
        &signal.with_message(format!("{}: {end}", script.name)),
    );
    Done {
        name: script.name.clone(),
        passed: end == End::Exited(0),
        power,
    }
}

/// The power control that a script wrote: `power_type`, and everything else as its parameters.
fn power_control(yaml: &[u8]) -> Option<Power> {
    let text = std::str::from_utf8(yaml.get(..yaml.len().min(BMC_BYTES_MAX))?).ok()?;
    let mut all: Map<String, Value> = serde_saphyr::from_str(text).ok()?;
    let kind = all.remove("power_type")?.as_str()?.to_owned();
    let parameters = match all.remove("power_parameters") {
        Some(nested @ Value::Object(_)) => nested,
        _ => Value::Object(all),
    };
    Some((kind, parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_control_is_read_flat_and_nested() {
        let flat = power_control(b"power_type: ipmi\npower_address: 10.0.0.9\npower_user: maas\n")
            .unwrap();
        assert_eq!(
            flat,
            (
                "ipmi".to_owned(),
                serde_json::json!({"power_address": "10.0.0.9", "power_user": "maas"})
            )
        );
        let nested =
            power_control(b"{power_type: redfish, power_parameters: {node_id: '1'}}").unwrap();
        assert_eq!(nested.1, serde_json::json!({"node_id": "1"}));
        assert!(
            power_control(b"").is_none()
                && power_control(b"- a").is_none()
                && power_control(&[0xff]).is_none()
        );
    }
}
