//! The status webhook: progress of cloud-init and of an installation, as JSON.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use metal::status::Status;
use metal::timeline::What;
use serde::Deserialize;
use store::Tx;

use super::{caller, record, short, signal};
use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::lifecycle::{self, Cause};
use crate::node::NodeRow;
use crate::script;
use crate::script_result::{self, Upload};
use crate::setting;

/// The step that is the whole installation.
const INSTALL: &str = "cmd-install";
/// A stay of execution is written only when it is worth this part of the whole.
const WORTH: u32 = 20;
/// Most bytes of a file that is kept.
const MAX_FILE: usize = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventType {
    Start,
    Progress,
    Finish,
}

impl EventType {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Progress => "progress",
            Self::Finish => "finish",
        }
    }
}

#[derive(Deserialize)]
struct File {
    path: String,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    compression: Option<String>,
    #[serde(default)]
    content: String,
}

impl File {
    /// The content; none for an encoding that we do not read.
    fn bytes(&self) -> Option<Bytes> {
        if self.encoding.as_deref() != Some("base64") || self.compression.is_some() {
            return None;
        }
        let packed: String = self
            .content
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .collect();
        let mut bytes = STANDARD.decode(packed).ok()?;
        bytes.truncate(MAX_FILE);
        Some(Bytes::from(bytes))
    }
}

#[derive(Deserialize)]
struct Report {
    name: String,
    description: String,
    event_type: EventType,
    origin: String,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    attempt: Option<i64>,
    #[serde(default)]
    files: Vec<File>,
}

impl Report {
    fn failed(&self) -> bool {
        self.event_type == EventType::Finish
            && matches!(self.result.as_deref(), Some("FAIL" | "FAILURE"))
    }

    fn is_install(&self) -> bool {
        self.origin == "curtin" || self.name == INSTALL || self.name.starts_with("cmd-install/")
    }
}

pub(super) async fn report(call: Call) -> Result<Answer, ApiError> {
    let report: Report = serde_json::from_slice(call.body())
        .map_err(|e| ApiError::Bad(format!("The report cannot be read: JSON with name, description, event_type and origin is needed (line {}).", e.line())))?;
    let report = Arc::new(report);
    let mut tx = call.read().await?;
    let node = caller(&mut tx, &call).await?;
    if call.path("system_id") != node.system_id {
        return Err(ApiError::Forbidden(
            "These are the credentials of another machine.".to_owned(),
        ));
    }
    signal::check_attempt(&node, report.attempt)?;
    let wanted = writes(&mut tx, &call, &node, &report).await?;
    drop(tx);
    let before = node.status()?;
    let mut after = before;
    if wanted {
        let shared = Arc::clone(&report);
        after = call
            .write(move |tx, call| {
                let report = Arc::clone(&shared);
                Box::pin(async move {
                    let mut node = caller(tx, &call).await?;
                    signal::check_attempt(&node, report.attempt)?;
                    process(tx, &call, &mut node, &report).await?;
                    node.status()
                })
            })
            .await?;
    }
    let what = What::Report {
        origin: short(&report.origin),
        name: short(&report.name),
        event: report.event_type.word().to_owned(),
        result: report.result.as_deref().map(short),
        description: short(&report.description),
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
    Ok(Answer::none())
}

/// Whether a report changes anything in the database. Progress comes often and mostly does not.
async fn writes(
    tx: &mut Tx,
    call: &Call,
    node: &NodeRow,
    report: &Report,
) -> Result<bool, ApiError> {
    if report.event_type == EventType::Start || report.failed() || !report.files.is_empty() {
        return Ok(true);
    }
    if report.event_type == EventType::Finish && report.name == INSTALL {
        return Ok(true);
    }
    let Some(expires) = node
        .status_expires
        .filter(|_| node.status == Status::Deploying.code())
    else {
        return Ok(false);
    };
    let limit = setting::node_timeout(tx).await?;
    Ok(expires < call.now().plus(limit - limit / WORTH).0)
}

/// The event that a step makes.
fn kind(status: Status, r: &Report) -> Kind {
    let deploying = matches!(status, Status::Deploying | Status::FailedDeployment);
    let commissioning = matches!(
        status,
        Status::Commissioning | Status::FailedCommissioning | Status::New
    );
    if r.failed() {
        return if deploying {
            Kind::InstallFailed
        } else if commissioning {
            Kind::CommissioningFailed
        } else {
            Kind::StatusEvent
        };
    }
    match r.name.as_str() {
        "cmd-install/stage-partitioning" => Kind::ConfiguringStorage,
        "cmd-install/stage-extract" => Kind::InstallingOs,
        "cmd-install/stage-curthooks" => Kind::ConfiguringOs,
        _ if r.is_install() => Kind::InstallEvent,
        "init-network"
            if matches!(
                status,
                Status::Commissioning | Status::Testing | Status::New
            ) =>
        {
            Kind::LoadingEphemeral
        }
        _ if commissioning => Kind::CommissioningEvent,
        _ => Kind::StatusEvent,
    }
}

fn text(r: &Report) -> String {
    if r.description.is_empty() {
        format!("'{}' {}", r.origin, r.name)
    } else {
        format!("'{}' {}: {}", r.origin, r.name, r.description)
    }
}

async fn process(tx: &mut Tx, call: &Call, node: &mut NodeRow, r: &Report) -> Result<(), ApiError> {
    let now = call.now();
    let status = node.status()?;
    if r.event_type == EventType::Start || r.failed() {
        event::add(tx, kind(status, r), Some(node.about()), "", &text(r), now).await?;
    }
    keep_files(tx, node, r, now).await?;
    if status != Status::Deploying {
        return Ok(());
    }
    lifecycle::extend(tx, node, now).await?;
    if r.name != INSTALL || r.origin != "curtin" {
        return Ok(());
    }
    match r.event_type {
        EventType::Start => script::start_installation(tx, node, now).await,
        EventType::Progress => Ok(()),
        EventType::Finish if r.failed() => {
            script::end_installation(tx, node, script::FAILED, now).await?;
            let why = if r.description.is_empty() {
                "The installation failed and gave no reason."
            } else {
                &r.description
            };
            lifecycle::fail(
                tx,
                node,
                Cause {
                    by: "",
                    why,
                    at: now,
                },
            )
            .await
        }
        // The machine stays Deploying: what was installed has yet to show that it boots.
        EventType::Finish => {
            script::end_installation(tx, node, script::PASSED, now).await?;
            event::add(
                tx,
                Kind::InstallationFinished,
                Some(node.about()),
                "",
                &r.description,
                now,
            )
            .await?;
            event::add(tx, Kind::Rebooting, Some(node.about()), "", "", now).await
        }
    }
}

/// Keeps the log of an installation with its result. Other files belong to no result and are dropped.
async fn keep_files(
    tx: &mut Tx,
    node: &NodeRow,
    r: &Report,
    now: metal::Timestamp,
) -> Result<(), ApiError> {
    let Some(set) = node.current_installation_set_id.filter(|_| r.is_install()) else {
        return Ok(());
    };
    for file in &r.files {
        let named = script_result::by_name(tx, set, &file.path).await?;
        let log = match named {
            Some(log) => log,
            // The path of the log is the installer's choice; there is one result for it.
            None if file.path.ends_with(".log") => {
                match script_result::by_name(tx, set, script::INSTALL_LOG).await? {
                    Some(log) => log,
                    None => continue,
                }
            }
            None => {
                tracing::debug!(
                    system_id = node.system_id,
                    path = file.path,
                    "a file that belongs to no result was dropped"
                );
                continue;
            }
        };
        let Some(content) = file.bytes() else {
            tracing::debug!(
                system_id = node.system_id,
                path = file.path,
                "a file in an encoding that is not read was dropped"
            );
            continue;
        };
        script_result::keep(
            tx,
            &log,
            &Upload {
                output: Some(content),
                ..Upload::default()
            },
            now,
        )
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(json: &str) -> Report {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn steps_become_the_events_that_clients_know() {
        let start = |name: &str, origin: &str| {
            report(&format!(
                r#"{{"name":"{name}","description":"","event_type":"start","origin":"{origin}","timestamp":1.5}}"#
            ))
        };
        assert_eq!(
            kind(
                Status::Deploying,
                &start("cmd-install/stage-partitioning", "curtin")
            ),
            Kind::ConfiguringStorage
        );
        assert_eq!(
            kind(
                Status::Deploying,
                &start("cmd-install/stage-extract", "curtin")
            ),
            Kind::InstallingOs
        );
        assert_eq!(
            kind(
                Status::Deploying,
                &start("cmd-install/stage-extract/extract-image", "curtin")
            ),
            Kind::InstallEvent
        );
        assert_eq!(
            kind(Status::Commissioning, &start("init-network", "cloudinit")),
            Kind::LoadingEphemeral
        );
        assert_eq!(
            kind(Status::Deployed, &start("modules-final", "cloudinit")),
            Kind::StatusEvent
        );
        let failed = report(r#"{"name":"cmd-install","description":"d","event_type":"finish","origin":"curtin","result":"FAIL","files":null}"#.replace(",\"files\":null", "").as_str());
        assert_eq!(kind(Status::Deploying, &failed), Kind::InstallFailed);
    }

    #[test]
    fn only_plain_base64_files_are_read() {
        let file = |encoding: &str, compression: Option<&str>| File {
            path: "/tmp/install.log".into(),
            encoding: Some(encoding.into()),
            compression: compression.map(str::to_owned),
            content: "aGVs\nbG8=".into(),
        };
        assert_eq!(
            file("base64", None).bytes(),
            Some(Bytes::from_static(b"hello"))
        );
        assert_eq!(file("base64", Some("bzip2")).bytes(), None);
        assert_eq!(file("uu", None).bytes(), None);
    }
}
