//! `op=signal`: what a machine says while it is commissioned, tested, installed or rescued.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use link::message::Parameters;
use metal::Timestamp;
use metal::status::Status;
use metal::timeline::What;
use serde_json::Value;
use store::Tx;

use super::{caller, check_version, record, short};
use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::lifecycle::{self, Cause};
use crate::machine::create;
use crate::node::NodeRow;
use crate::script::{self, builtin};
use crate::script_result::{self, End, Ended, Open, Upload};
use crate::tag::definition;
use crate::{detour, hardware, power};

/// The words of a signal's status.
pub(super) const WORDS: [&str; 10] = [
    "OK",
    "FAILED",
    "WORKING",
    "COMMISSIONING",
    "TESTING",
    "TIMEDOUT",
    "INSTALLING",
    "APPLYING_NETCONF",
    "RELEASING",
    "DEPLOYING",
];
/// Most outputs that one signal may bring.
const MAX_FILES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Ok,
    Failed,
    Working,
    Commissioning,
    Testing,
    TimedOut,
    Installing,
    ApplyingNetconf,
    Releasing,
    Deploying,
}

impl Word {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "OK" => Self::Ok,
            "FAILED" => Self::Failed,
            "WORKING" => Self::Working,
            "COMMISSIONING" => Self::Commissioning,
            "TESTING" => Self::Testing,
            "TIMEDOUT" => Self::TimedOut,
            "INSTALLING" => Self::Installing,
            "APPLYING_NETCONF" => Self::ApplyingNetconf,
            "RELEASING" => Self::Releasing,
            "DEPLOYING" => Self::Deploying,
            _ => return None,
        })
    }
}

/// A signal, read.
struct Signal {
    word: Word,
    text: String,
    result: Option<i64>,
    exit_status: Option<i64>,
    runtime: Option<f64>,
    /// Outputs by the script's name.
    uploads: Vec<(String, Upload)>,
    /// The script's name as told.
    name: Option<String>,
    power: Option<(String, Parameters)>,
    attempt: Option<i64>,
}

impl Signal {
    fn of(args: &Args) -> Result<Self, ApiError> {
        let word = Word::of(args.required("status")?)
            .ok_or_else(|| ApiError::field("status", "Unknown status."))?;
        let mut uploads: Vec<(String, Upload)> = Vec::new();
        for (part, content) in args.files() {
            let mut one = Upload::default();
            let name = one.take(part, content).to_owned();
            match uploads.iter().position(|(n, _)| *n == name) {
                Some(at) => {
                    uploads[at].1.take(part, content);
                }
                None if uploads.len() < MAX_FILES => uploads.push((name, one)),
                None => {
                    return Err(ApiError::Bad(format!(
                        "A signal may bring the outputs of at most {MAX_FILES} scripts."
                    )));
                }
            }
        }
        let runtime = match args.filled("runtime") {
            None => None,
            Some(t) => Some(
                t.trim()
                    .parse::<f64>()
                    .map_err(|_| ApiError::field("runtime", "Enter seconds."))?,
            ),
        };
        let exit_status = match args.int("exit_status")? {
            Some(n) => Some(n),
            None => args.int("script_result")?,
        };
        let power = match args.filled("power_type") {
            None => None,
            Some(kind) => {
                let parameters = match args
                    .filled("power_parameters")
                    .map(serde_json::from_str::<Value>)
                {
                    None => Parameters::default(),
                    Some(Ok(Value::Object(map))) => Parameters(map.into_iter().collect()),
                    Some(_) => {
                        return Err(ApiError::Bad(
                            "Failed to parse JSON power_parameters.".to_owned(),
                        ));
                    }
                };
                create::check_power(kind, &parameters, false)?;
                Some((kind.to_owned(), parameters))
            }
        };
        Ok(Self {
            word,
            text: args.text("error").unwrap_or("").trim().to_owned(),
            result: args.int("script_result_id")?,
            exit_status,
            runtime,
            uploads,
            name: args.filled("name").map(str::to_owned),
            power,
            attempt: args.int("attempt")?,
        })
    }
}

/// Whether a machine of this status may signal at all.
const fn may_signal(status: Status) -> bool {
    !matches!(
        status,
        Status::Missing
            | Status::Reserved
            | Status::Retired
            | Status::Allocated
            | Status::ExitingRescueMode
            | Status::FailedExitingRescueMode
    )
}

/// Refuses what belongs to an earlier installation.
///
/// # Errors
/// 409 when the attempt is another one than the present.
pub(super) fn check_attempt(node: &NodeRow, attempt: Option<i64>) -> Result<(), ApiError> {
    match attempt {
        Some(n) if n != node.install_attempt => Err(ApiError::Conflict(format!(
            "This belongs to installation {n} of {}; the present one is {}.",
            node.hostname, node.install_attempt
        ))),
        _ => Ok(()),
    }
}

/// What a transaction tells of: the status before and after, and the script that the signal was about.
type Seen = (Status, Status, Option<String>);

/// What is known of the hooks of this signal's scripts.
struct Hooks<'a> {
    /// Why one could not use its output, when they ran before; then they do not run again.
    why: Option<&'a str>,
    /// Where the reason goes when one cannot use its output now.
    refusal: &'a Mutex<Option<String>>,
}

pub(super) async fn signal(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let signal = Arc::new(Signal::of(call.args())?);
    // Why the inventory of this machine could not be taken over; the transaction is then run again without.
    let refusal: Arc<Mutex<Option<String>>> = Arc::default();
    let read = |r: &Mutex<Option<String>>| r.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let run = |why: Option<String>| {
        let (signal, refusal) = (Arc::clone(&signal), Arc::clone(&refusal));
        call.write(move |tx, call| {
            let (signal, refusal, why) = (Arc::clone(&signal), Arc::clone(&refusal), why.clone());
            Box::pin(async move {
                process(
                    tx,
                    &call,
                    &signal,
                    &Hooks {
                        why: why.as_deref(),
                        refusal: &refusal,
                    },
                )
                .await
            })
        })
    };
    let (before, after, script) = match run(None).await {
        Err(e) => match read(&refusal) {
            Some(why) => run(Some(why)).await?,
            None => return Err(e),
        },
        Ok(seen) => seen,
    };
    let what = What::Signal {
        status: call.args().text("status").unwrap_or("").to_owned(),
        script,
        exit_status: signal.exit_status,
        message: short(&signal.text),
    };
    record(&call, what).await;
    if before != after {
        record(
            &call,
            What::Status {
                from: before,
                to: after,
            },
        )
        .await;
    }
    Ok(Answer::text("OK"))
}

async fn process(
    tx: &mut Tx,
    call: &Call,
    signal: &Signal,
    hooks: &Hooks<'_>,
) -> Result<Seen, ApiError> {
    let mut node = caller(tx, call).await?;
    let before = node.status()?;
    if !may_signal(before) {
        return Err(ApiError::Conflict(format!(
            "{} is '{}' and awaits no signal.",
            node.hostname,
            before.name()
        )));
    }
    check_attempt(&node, signal.attempt)?;
    let now = call.now();
    alive(tx, &node, now).await?;
    if let Some((kind, parameters)) = &signal.power {
        found_power(tx, call, &mut node, kind, parameters, now).await?;
    }
    let mut name = None;
    if let Some(id) = signal.result {
        let result = script_result::by_id(tx, &node, id).await?;
        let mut upload = Upload::default();
        for (_, u) in &signal.uploads {
            upload.output = u.output.clone().or(upload.output);
            upload.stdout = u.stdout.clone().or(upload.stdout);
            upload.stderr = u.stderr.clone().or(upload.stderr);
            upload.result = u.result.clone().or(upload.result);
        }
        report(tx, call, &node, &result, signal, &upload, hooks).await?;
        name = Some(result.script_name);
    } else if let Some(set) = current_set(&node)? {
        let mut named: Vec<(String, Upload)> = signal.uploads.clone();
        if named.is_empty()
            && let Some(n) = &signal.name
        {
            named.push((n.clone(), Upload::default()));
        }
        for (script, upload) in &named {
            let result = match script_result::by_name(tx, set, script).await? {
                Some(r) => r,
                None => unannounced(tx, set, script, now).await?,
            };
            report(tx, call, &node, &result, signal, upload, hooks).await?;
            name = Some(script.clone());
        }
    }
    // A signal about one script is not about the machine.
    let about_script = signal.result.is_some() && !matches!(signal.word, Word::Ok | Word::Failed);
    if !about_script {
        node = caller(tx, call).await?;
        step(tx, &mut node, signal, now).await?;
    }
    Ok((before, node.status()?, name))
}

/// A sign of life: from the first one on, heartbeats decide whether the machine is given up.
async fn alive(tx: &mut Tx, node: &NodeRow, now: Timestamp) -> Result<(), ApiError> {
    let Some(set) = current_set(node)? else {
        return Ok(());
    };
    store::exec!(
        tx,
        "UPDATE script_set SET last_ping = $2 WHERE id = $1",
        set,
        now.0
    )?;
    if matches!(node.status()?, Status::Commissioning | Status::Testing)
        && node.status_expires.is_some()
    {
        lifecycle::clear_expiry(tx, node).await?;
    }
    Ok(())
}

/// The set whose scripts run now.
fn current_set(node: &NodeRow) -> Result<Option<i64>, ApiError> {
    Ok(match node.status()? {
        Status::Commissioning | Status::FailedCommissioning => node.current_commissioning_set_id,
        Status::Testing | Status::FailedTesting => node.current_testing_set_id,
        Status::Deploying | Status::FailedDeployment => node.current_installation_set_id,
        Status::Releasing
        | Status::DiskErasing
        | Status::FailedDiskErasing
        | Status::FailedReleasing => node.current_release_set_id,
        _ => None,
    })
}

/// A result for a script that nobody asked for: it is kept under its name.
async fn unannounced(tx: &mut Tx, set: i64, name: &str, now: Timestamp) -> Result<Open, ApiError> {
    /// Most results of one set.
    const MAX_RESULTS: i64 = 1_024;
    if !script::meta::name_fits(name) {
        return Err(ApiError::Bad(
            "A script's name may have letters, digits, '-', '_' and '.' only.".to_owned(),
        ));
    }
    let (have,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM script_result WHERE script_set_id = $1",
        set
    )?;
    if have >= MAX_RESULTS {
        return Err(ApiError::Bad(format!(
            "A machine may leave at most {MAX_RESULTS} results."
        )));
    }
    Ok(store::one!(
        tx,
        Open,
        "INSERT INTO script_result (script_set_id, script_name, status, created, updated) VALUES ($1, $2, 1, $3, $3) \
         RETURNING id, script_set_id, script_name, status, interface_id, started",
        set,
        name,
        now.0
    )?)
}

/// What a signal says of one script.
async fn report(
    tx: &mut Tx,
    call: &Call,
    node: &NodeRow,
    r: &Open,
    signal: &Signal,
    upload: &Upload,
    hooks: &Hooks<'_>,
) -> Result<(), ApiError> {
    let now = call.now();
    let ended = match (signal.word, signal.exit_status) {
        (Word::TimedOut, _) => Some(Ended::TimedOut),
        (_, Some(n)) => Some(Ended::Exit(n)),
        _ => None,
    };
    let Some(ended) = ended else {
        let status = match signal.word {
            Word::Installing => Some(script::INSTALLING),
            Word::ApplyingNetconf => Some(script::APPLYING_NETCONF),
            Word::Working => Some(script::RUNNING),
            _ => None,
        };
        if let Some(status) = status {
            started(tx, node, r, status, now).await?;
            script_result::begin(tx, node, r, status, now).await?;
        }
        return script_result::keep(tx, r, upload, now).await;
    };
    if ended == Ended::Exit(0) && hooks.why.is_none() {
        let hooked = hook(tx, call, node, &r.script_name, upload, now).await;
        match hooked {
            Ok(()) => {}
            // The database's own trouble is not the script's.
            Err(e @ (ApiError::Store(_) | ApiError::Bug(_))) => return Err(e),
            Err(e) => {
                let text = match &e {
                    ApiError::Fields(f) => f
                        .iter()
                        .map(|(n, m)| format!("{n}: {}", m.join(" ")))
                        .collect::<Vec<_>>()
                        .join("; "),
                    other => other.to_string(),
                };
                *hooks.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                return Err(e);
            }
        }
    }
    // The reason is about the one script that has a hook.
    let why = hooks.why.filter(|_| has_hook(&r.script_name));
    let end = End {
        ended,
        seconds: signal.runtime,
        refusal: why,
    };
    script_result::finish(tx, node, r, end, upload, now).await?;
    if ended == Ended::Exit(0) && definition::SCRIPTS.contains(&r.script_name.as_str()) {
        // Tags are defined over what this found.
        definition::renew(tx, node.id).await?;
    }
    Ok(())
}

async fn started(
    tx: &mut Tx,
    node: &NodeRow,
    r: &Open,
    status: i64,
    now: Timestamp,
) -> Result<(), ApiError> {
    if r.status != script::PENDING || status == r.status {
        return Ok(());
    }
    let kind = match node.status()? {
        Status::Testing => Kind::RunningTest,
        Status::Commissioning if r.script_name == builtin::INVENTORY => Kind::GatheringInfo,
        _ => return Ok(()),
    };
    event::add(tx, kind, Some(node.about()), "", &r.script_name, now).await
}

fn has_hook(script: &str) -> bool {
    matches!(script, builtin::INVENTORY | builtin::KERNEL_CMDLINE)
}

/// What the region takes over from the outputs of built-in scripts.
async fn hook(
    tx: &mut Tx,
    call: &Call,
    node: &NodeRow,
    script: &str,
    upload: &Upload,
    now: Timestamp,
) -> Result<(), ApiError> {
    let output = || upload.main_output().cloned().unwrap_or_else(Bytes::new);
    match script {
        builtin::INVENTORY => {
            hardware::process_commissioning(tx, call.region(), node, &output(), now).await
        }
        builtin::KERNEL_CMDLINE => booted_from(tx, node, &output(), now).await,
        _ => Ok(()),
    }
}

/// The interface that a kernel was booted from: `BOOTIF=01-aa-bb-cc-dd-ee-ff`.
fn boot_mac(cmdline: &[u8]) -> Option<metal::MacAddr> {
    let text = String::from_utf8_lossy(cmdline);
    let word = text
        .split_whitespace()
        .find_map(|w| w.strip_prefix("BOOTIF="))?;
    // In front is the hardware type of ARP; 01 is Ethernet.
    word.strip_prefix("01-").unwrap_or(word).parse().ok()
}

async fn booted_from(
    tx: &mut Tx,
    node: &NodeRow,
    cmdline: &[u8],
    now: Timestamp,
) -> Result<(), ApiError> {
    let Some(mac) = boot_mac(cmdline) else {
        return Ok(());
    };
    let changed = store::exec!(
        tx,
        "UPDATE node SET boot_interface_id = (SELECT i.id FROM interface i WHERE i.node_id = $1 AND i.mac = $2 AND i.type = 'physical') \
         WHERE id = $1 AND EXISTS (SELECT 1 FROM interface i WHERE i.node_id = $1 AND i.mac = $2 AND i.type = 'physical')",
        node.id,
        mac.to_string()
    )?;
    if changed > 0 {
        node.touch(tx, now).await?;
    }
    Ok(())
}

/// The power control that a machine found for itself. One that was set to the better protocol stays.
async fn found_power(
    tx: &mut Tx,
    call: &Call,
    node: &mut NodeRow,
    kind: &str,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<(), ApiError> {
    if node.power_type == "redfish" && kind == "ipmi" {
        return Ok(());
    }
    store::exec!(
        tx,
        "UPDATE node SET power_type = $2 WHERE id = $1",
        node.id,
        kind
    )?;
    power::set_parameters(tx, call.region(), node.id, &node.system_id, parameters).await?;
    node.power_type = kind.to_owned();
    node.touch(tx, now).await
}

/// A machine that has just enlisted begins to be commissioned. It runs already: no power command.
pub(super) async fn begin_commissioning(
    tx: &mut Tx,
    node: &mut NodeRow,
    now: Timestamp,
) -> Result<(), ApiError> {
    if node.status()? != Status::New || !node.enlisting {
        return Ok(());
    }
    let none = serde_json::Map::new();
    let commissioning = script::new_set(tx, node, script::COMMISSIONING, &[], &none, now).await?;
    let testing = script::new_set(tx, node, script::TESTING, &[], &none, now).await?;
    store::exec!(
        tx,
        "UPDATE node SET current_commissioning_set_id = $2, current_testing_set_id = $3 WHERE id = $1",
        node.id,
        commissioning,
        testing
    )?;
    node.current_commissioning_set_id = Some(commissioning);
    node.current_testing_set_id = Some(testing);
    lifecycle::set_status(
        tx,
        node,
        Status::Commissioning,
        Cause {
            by: "",
            why: "",
            at: now,
        },
    )
    .await?;
    alive(tx, node, now).await
}

/// What a signal means for the machine's status.
async fn step(
    tx: &mut Tx,
    node: &mut NodeRow,
    signal: &Signal,
    now: Timestamp,
) -> Result<(), ApiError> {
    let cause = Cause {
        by: "",
        why: &signal.text,
        at: now,
    };
    let quiet = Cause { why: "", ..cause };
    match (node.status()?, signal.word) {
        (Status::New, Word::Commissioning) => begin_commissioning(tx, node, now).await,
        (Status::Commissioning, Word::Testing) => {
            let found = script::standing(tx, node.current_commissioning_set_id).await?;
            let tests = script::standing(tx, node.current_testing_set_id).await?;
            // A machine that failed is not tested as well.
            if found.bad.is_empty() && !tests.open.is_empty() {
                lifecycle::set_status(tx, node, Status::Testing, quiet).await?;
                alive(tx, node, now).await?;
            }
            Ok(())
        }
        (Status::Commissioning, Word::Ok) => {
            if !settled(tx, node, node.current_commissioning_set_id, cause).await? {
                return Ok(());
            }
            let tests = script::standing(tx, node.current_testing_set_id).await?;
            if tests.open.is_empty() {
                lifecycle::finish_commissioning(tx, node, quiet).await
            } else {
                lifecycle::set_status(tx, node, Status::Testing, quiet).await
            }
        }
        (Status::Testing, Word::Ok) => {
            if !settled(tx, node, node.current_testing_set_id, cause).await? {
                return Ok(());
            }
            match node.previous()? {
                Status::Commissioning => lifecycle::finish_commissioning(tx, node, quiet).await,
                _ => detour::finish_testing(tx, node, quiet).await,
            }
        }
        (Status::EnteringRescueMode, Word::Ok | Word::Working) => {
            lifecycle::set_status(tx, node, Status::RescueMode, quiet).await
        }
        (status, Word::Failed | Word::TimedOut) => {
            let text = match (signal.text.as_str(), signal.word) {
                ("", Word::TimedOut) => "The machine reported that its time ran out.",
                ("", _) => "The machine reported a failure and gave no reason.",
                (text, _) => text,
            };
            if status == Status::Deploying {
                script::end_installation(tx, node, script::FAILED, now).await?;
            }
            lifecycle::fail(tx, node, Cause { why: text, ..cause }).await
        }
        // Heartbeats, and words that come late.
        _ => Ok(()),
    }
}

/// The machine says that a set is through: whether it passed. It fails with the names of the scripts
/// that speak against it, or that left no result although others did. A runner that reports no results at
/// all is taken at its word.
async fn settled(
    tx: &mut Tx,
    node: &mut NodeRow,
    set: Option<i64>,
    cause: Cause<'_>,
) -> Result<bool, ApiError> {
    let s = script::standing(tx, set).await?;
    let why = if !s.bad.is_empty() {
        format!("These scripts failed: {}.", s.bad.join(", "))
    } else if !s.open.is_empty() && s.begun {
        format!("These scripts left no result: {}.", s.open.join(", "))
    } else {
        script::skip_open(tx, set, cause.at).await?;
        return Ok(true);
    };
    lifecycle::fail(tx, node, Cause { why: &why, ..cause }).await?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_interface_is_read_from_the_kernel_options() {
        let mac = |t: &str| boot_mac(t.as_bytes()).map(|m| m.to_string());
        assert_eq!(
            mac("nomodeset BOOTIF=01-52-54-00-AB-cd-0f ro\n").as_deref(),
            Some("52:54:00:ab:cd:0f")
        );
        assert_eq!(
            mac("BOOTIF=52:54:00:ab:cd:0f").as_deref(),
            Some("52:54:00:ab:cd:0f")
        );
        assert_eq!(mac("BOOTIF=01-52-54"), None);
        assert_eq!(mac("ro quiet"), None);
    }

    #[test]
    fn every_word_of_the_table_is_known() {
        for w in WORDS {
            assert!(Word::of(w).is_some(), "{w}");
        }
        assert!(Word::of("ok").is_none());
    }
}
