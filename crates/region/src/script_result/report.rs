//! How a machine's report becomes a script's result.

use bytes::Bytes;
use metal::Timestamp;
use serde_json::{Map, Value};
use store::Tx;

use crate::error::ApiError;
use crate::event::{self, Kind as EventKind};
use crate::node::NodeRow;
use crate::node::view::script_status_name;
use crate::script;

/// What a machine delivered of one script.
#[derive(Clone, Debug, Default)]
pub struct Upload {
    /// Both streams together.
    pub output: Option<Bytes>,
    /// Standard output.
    pub stdout: Option<Bytes>,
    /// Standard error.
    pub stderr: Option<Bytes>,
    /// What the script says of its own result: YAML.
    pub result: Option<Bytes>,
}

impl Upload {
    /// Puts a file part where it belongs, and gives the script's name.
    pub fn take<'a>(&mut self, part: &'a str, content: &Bytes) -> &'a str {
        for (tail, field) in [
            (".out", &mut self.stdout),
            (".err", &mut self.stderr),
            (".yaml", &mut self.result),
        ] {
            if let Some(name) = part.strip_suffix(tail) {
                *field = Some(content.clone());
                return name;
            }
        }
        self.output = Some(content.clone());
        part
    }

    /// What the hooks of built-in scripts read.
    #[must_use]
    pub fn main_output(&self) -> Option<&Bytes> {
        self.stdout.as_ref().or(self.output.as_ref())
    }
}

/// How a script ended, as its machine reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Exit(i64),
    /// It took too long.
    TimedOut,
}

/// The end of a script.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// How.
    pub ended: Ended,
    /// Seconds it ran, as far as told.
    pub seconds: Option<f64>,
    /// Why its result could not be used; it then failed.
    pub refusal: Option<&'a str>,
}

/// A result as a report finds it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Open {
    /// Database id.
    pub id: i64,
    /// The set it belongs to.
    pub script_set_id: i64,
    /// The script's name.
    pub script_name: String,
    /// Its status so far.
    pub status: i64,
    /// The interface it is about.
    pub interface_id: Option<i64>,
    /// When it was begun.
    pub started: Option<i64>,
}

/// Most bytes of a script's own result that are looked at.
const MAX_RESULT: usize = 1 << 20;

/// What a script says of itself.
#[derive(Debug, Default, PartialEq)]
struct Says {
    status: Option<i64>,
    link_connected: Option<bool>,
}

/// Reads the YAML of a script; what is not understood is left out.
fn says(yaml: &[u8]) -> Says {
    let text = yaml
        .get(..MAX_RESULT.min(yaml.len()))
        .and_then(|y| std::str::from_utf8(y).ok());
    let Some(map) = text.and_then(|t| serde_saphyr::from_str::<Map<String, Value>>(t).ok()) else {
        return Says::default();
    };
    Says {
        status: map.get("status").and_then(Value::as_str).and_then(|s| {
            match s.to_ascii_lowercase().as_str() {
                "passed" => Some(script::PASSED),
                "failed" => Some(script::FAILED),
                "degraded" => Some(script::DEGRADED),
                "timedout" => Some(script::TIMED_OUT),
                "skipped" => Some(script::SKIPPED),
                _ => None,
            }
        }),
        link_connected: map.get("link_connected").and_then(Value::as_bool),
    }
}

/// The status of a script that ended, from the status it had, how it ended and what it says itself.
fn outcome(before: i64, ended: Ended, says: &Says) -> i64 {
    match ended {
        Ended::TimedOut => script::TIMED_OUT,
        Ended::Exit(n) if n != 0 && before == script::INSTALLING => script::FAILED_INSTALLING,
        Ended::Exit(n) if n != 0 && before == script::APPLYING_NETCONF => {
            script::FAILED_APPLYING_NETCONF
        }
        Ended::Exit(n) => says.status.unwrap_or(if n == 0 {
            script::PASSED
        } else {
            script::FAILED
        }),
    }
}

/// A script was begun, or gets its packages or its network.
///
/// # Errors
/// When the database fails.
pub async fn begin(
    tx: &mut Tx,
    node: &NodeRow,
    r: &Open,
    status: i64,
    now: Timestamp,
) -> Result<(), ApiError> {
    if !script::is_open(r.status) || r.status == status {
        return Ok(());
    }
    store::exec!(
        tx,
        "UPDATE script_result SET status = $2, started = COALESCE(started, $3), updated = $3 WHERE id = $1",
        r.id,
        status,
        now.0
    )?;
    node.touch(tx, now).await
}

/// A script ended: stores what it left and gives the status it ends with.
///
/// # Errors
/// When the database fails.
pub async fn finish(
    tx: &mut Tx,
    node: &NodeRow,
    r: &Open,
    end: End<'_>,
    upload: &Upload,
    now: Timestamp,
) -> Result<i64, ApiError> {
    let End {
        ended,
        seconds,
        refusal,
    } = end;
    let says = says(upload.result.as_deref().unwrap_or_default());
    let status = if refusal.is_some() {
        script::FAILED
    } else {
        outcome(r.status, ended, &says)
    };
    let exit_status = match ended {
        Ended::Exit(n) => Some(n),
        Ended::TimedOut => None,
    };
    let ran = seconds
        .filter(|s| s.is_finite() && *s >= 0.0)
        .and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
    let started = ran.map_or(r.started.unwrap_or(now.0), |d| now.minus(d).0);
    let output = upload
        .output
        .as_ref()
        .or(upload.stdout.as_ref())
        .map(|b| b.to_vec());
    let stderr = match refusal {
        Some(why) => {
            let mut text = upload
                .stderr
                .as_ref()
                .map(|b| b.to_vec())
                .unwrap_or_default();
            text.extend_from_slice(format!("The result was not accepted: {why}\n").as_bytes());
            Some(text)
        }
        None => upload.stderr.as_ref().map(|b| b.to_vec()),
    };
    store::exec!(
        tx,
        "UPDATE script_result SET status = $2, exit_status = $3, started = $4, ended = $5, updated = $5, output = COALESCE($6, output), \
         stdout = COALESCE($7, stdout), stderr = COALESCE($8, stderr), result = COALESCE($9, result) WHERE id = $1",
        r.id,
        status,
        exit_status,
        started,
        now.0,
        output,
        upload.stdout.as_ref().map(|b| b.to_vec()),
        stderr,
        upload.result.as_ref().map(|b| b.to_vec())
    )?;
    if let (Some(connected), Some(interface)) = (says.link_connected, r.interface_id) {
        store::exec!(
            tx,
            "UPDATE interface SET link_connected = $2, updated = $3 WHERE id = $1",
            interface,
            connected,
            now.0
        )?;
    }
    if status != r.status {
        let kind = if script::is_good(status) {
            EventKind::ScriptChanged
        } else {
            EventKind::ScriptDidNotComplete
        };
        let mut text = format!("{}: {}", r.script_name, script_status_name(status));
        if let Some(why) = refusal {
            text.push_str(&format!(" ({why})"));
        }
        event::add(tx, kind, Some(node.about()), "", &text, now).await?;
    }
    node.touch(tx, now).await?;
    Ok(status)
}

/// Keeps outputs without an end: files that are sent apart from a result.
///
/// # Errors
/// When the database fails.
pub async fn keep(tx: &mut Tx, r: &Open, upload: &Upload, now: Timestamp) -> Result<(), ApiError> {
    let bytes = |b: &Option<Bytes>| b.as_ref().map(|b| b.to_vec());
    store::exec!(
        tx,
        "UPDATE script_result SET output = COALESCE($2, output), stdout = COALESCE($3, stdout), stderr = COALESCE($4, stderr), \
         result = COALESCE($5, result), updated = $6 WHERE id = $1",
        r.id,
        bytes(&upload.output),
        bytes(&upload.stdout),
        bytes(&upload.stderr),
        bytes(&upload.result),
        now.0
    )?;
    Ok(())
}

/// The result with this id in a set of the node; 409 when it belongs to an earlier run or another machine.
///
/// # Errors
/// 409 for a result that nobody waits for.
pub async fn by_id(tx: &mut Tx, node: &NodeRow, id: i64) -> Result<Open, ApiError> {
    let sets = [
        node.current_commissioning_set_id,
        node.current_testing_set_id,
        node.current_installation_set_id,
        node.current_release_set_id,
    ];
    let found = store::opt!(
        tx,
        Open,
        "SELECT id, script_set_id, script_name, status, interface_id, started FROM script_result WHERE id = $1",
        id
    )?;
    found
        .filter(|r| sets.contains(&Some(r.script_set_id)))
        .ok_or_else(|| {
            ApiError::Conflict(format!(
                "Script result {id} does not belong to what this machine does now."
            ))
        })
}

/// The results of a set with this script name.
///
/// # Errors
/// When the database fails.
pub async fn by_name(tx: &mut Tx, set: i64, name: &str) -> Result<Option<Open>, ApiError> {
    Ok(store::opt!(
        tx,
        Open,
        "SELECT id, script_set_id, script_name, status, interface_id, started FROM script_result \
         WHERE script_set_id = $1 AND script_name = $2 ORDER BY id LIMIT 1",
        set,
        name
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_may_overrule_its_exit_status() {
        let none = Says::default();
        let skipped = says(b"status: skipped\nlink_connected: false\n");
        assert_eq!(
            skipped,
            Says {
                status: Some(script::SKIPPED),
                link_connected: Some(false)
            }
        );
        assert_eq!(
            outcome(script::RUNNING, Ended::Exit(0), &none),
            script::PASSED
        );
        assert_eq!(
            outcome(script::RUNNING, Ended::Exit(1), &none),
            script::FAILED
        );
        assert_eq!(
            outcome(script::RUNNING, Ended::Exit(1), &skipped),
            script::SKIPPED
        );
        assert_eq!(
            outcome(script::RUNNING, Ended::TimedOut, &skipped),
            script::TIMED_OUT
        );
        assert_eq!(
            outcome(script::INSTALLING, Ended::Exit(100), &none),
            script::FAILED_INSTALLING
        );
        assert_eq!(
            outcome(script::APPLYING_NETCONF, Ended::Exit(1), &none),
            script::FAILED_APPLYING_NETCONF
        );
        for odd in [
            &b"status: [passed]"[..],
            b"- a",
            b"\xff\xfe",
            b"status: wonderful",
        ] {
            assert_eq!(says(odd), Says::default());
        }
    }

    #[test]
    fn file_parts_find_their_places() {
        let mut u = Upload::default();
        let b = |t: &'static str| Bytes::from_static(t.as_bytes());
        assert_eq!(u.take("50-x", &b("all")), "50-x");
        assert_eq!(u.take("50-x.out", &b("out")), "50-x");
        assert_eq!(u.take("50-x.yaml", &b("status: passed")), "50-x");
        assert_eq!(u.main_output(), Some(&b("out")));
        assert_eq!(u.output, Some(b("all")));
    }
}
