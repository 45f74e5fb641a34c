//! Progress of an installation, as the webhook events that curtin sends and clients know.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Http, Patience, Request, unix_time};
use crate::journal::Journal;
use crate::oauth::Credentials;

/// Events that may wait for the rack; beyond that, progress is dropped and the others wait.
const QUEUE: usize = 256;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// Not.
    Fail,
}

/// One event.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step begins.
    Start {
        /// Name, with `/` between levels.
        name: String,
        /// For people.
        description: String,
    },
    /// A step goes on.
    Progress {
        /// Name, with `/` between levels.
        name: String,
        /// For people.
        description: String,
    },
    /// A step ended.
    Finish {
        /// Name, with `/` between levels.
        name: String,
        /// For people.
        description: String,
        /// How.
        outcome: Outcome,
        /// Paths and contents to keep with the result.
        files: Vec<(String, Vec<u8>)>,
    },
}

impl Event {
    /// The event as the status webhook takes it. `at` is seconds since 1970.
    #[must_use]
    pub fn to_json(&self, at: f64, attempt: i64) -> Value {
        let (name, description, kind) = match self {
            Self::Start { name, description } => (name, description, "start"),
            Self::Progress { name, description } => (name, description, "progress"),
            Self::Finish {
                name, description, ..
            } => (name, description, "finish"),
        };
        let mut out = json!({
            "name": name, "description": description, "event_type": kind, "origin": "curtin",
            "timestamp": at, "level": "INFO", "attempt": attempt,
        });
        if let Self::Finish { outcome, files, .. } = self {
            let failed = *outcome == Outcome::Fail;
            out["result"] = Value::from(if failed { "FAIL" } else { "SUCCESS" });
            if failed {
                out["level"] = Value::from("ERROR");
            }
            if !files.is_empty() {
                let files = files.iter().map(|(path, content)| json!({"path": path, "content": STANDARD.encode(content), "encoding": "base64"}));
                out["files"] = Value::from(files.collect::<Vec<_>>());
            }
        }
        out
    }
}

/// Sends events in order, beside the work.
pub struct Reporter {
    queue: Option<SyncSender<(f64, Event)>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Starts it for one attempt.
    #[must_use]
    pub fn start(
        http: Http,
        url: String,
        credentials: Option<Credentials>,
        attempt: i64,
        delivery: Patience,
        journal: Journal,
    ) -> Self {
        let (queue, events): (_, Receiver<(f64, Event)>) = sync_channel(QUEUE);
        let thread = std::thread::spawn(move || {
            for (at, event) in events {
                let patience = if matches!(event, Event::Progress { .. }) {
                    Patience::PASSING
                } else {
                    delivery
                };
                let post = Some((
                    "application/json".to_owned(),
                    event.to_json(at, attempt).to_string().into_bytes(),
                ));
                let request = Request {
                    url: url.clone(),
                    credentials: credentials.clone(),
                    post,
                };
                if let Err(e) = http.send(&request, patience) {
                    journal.line(format_args!("event lost: {e}"));
                }
            }
        });
        Self {
            queue: Some(queue),
            thread: Some(thread),
        }
    }

    /// A reporter that drops everything: for work that is not reported step by step.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            queue: None,
            thread: None,
        }
    }

    /// Queues an event.
    pub fn send(&self, event: Event) {
        let Some(queue) = &self.queue else { return };
        let at = unix_time().as_secs_f64();
        if matches!(event, Event::Progress { .. }) {
            // The next percentage says more than this one.
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                queue.try_send((at, event))
            {}
        } else {
            // An error means that the thread is gone, and it goes only when this sender does.
            queue.send((at, event)).ok();
        }
    }

    /// Waits until everything queued was delivered or given up.
    pub fn finish(mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // What it could not deliver is in the log.
            thread.join().ok();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.close();
    }
}
