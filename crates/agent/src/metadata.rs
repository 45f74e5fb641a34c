//! The metadata service as a machine uses it: its work, its scripts, and what it reports.

use std::sync::Mutex;
use std::sync::{Arc, Condvar, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metal::install::Work;
use serde_json::Value;

use crate::config::Config;
use crate::http::{Http, HttpError, Patience, Request, random_text};
use crate::journal::Journal;
use crate::multipart::Form;

/// The version of the metadata service that cloud-init uses too.
const VERSION: &str = "2012-03-01";
/// Time between two heartbeats; the region gives a machine up after `node_timeout` minutes without.
pub const HEARTBEAT: Duration = Duration::from_secs(120);

/// The `status` of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Finished, all well.
    Ok,
    /// Finished, not well.
    Failed,
    /// At work; also the heartbeat and the carrier of results.
    Working,
    /// Commissioning begins.
    Commissioning,
    /// Tests begin.
    Testing,
    /// A script ran over its time.
    TimedOut,
    /// A script's packages are being installed.
    Installing,
    /// The configured network is being put in place for a script.
    ApplyingNetconf,
}

impl Status {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Failed => "FAILED",
            Self::Working => "WORKING",
            Self::Commissioning => "COMMISSIONING",
            Self::Testing => "TESTING",
            Self::TimedOut => "TIMEDOUT",
            Self::Installing => "INSTALLING",
            Self::ApplyingNetconf => "APPLYING_NETCONF",
        }
    }
}

/// One `op=signal`.
#[derive(Clone, Debug)]
pub struct Signal {
    /// What is the matter.
    pub status: Status,
    /// A sentence for people.
    pub message: Option<String>,
    /// Which result the signal is about.
    pub script_result_id: Option<i64>,
    /// Which version of the script ran.
    pub script_version_id: Option<i64>,
    /// The script's exit status.
    pub exit_status: Option<i32>,
    /// How long the script ran.
    pub runtime: Option<Duration>,
    /// Type and parameters of the machine's power control, as found by a script.
    pub power: Option<(String, Value)>,
    /// Outputs: name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Number of the installation attempt the signal belongs to.
    pub attempt: Option<i64>,
}

impl Signal {
    /// A signal with nothing but a status.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            status,
            message: None,
            script_result_id: None,
            script_version_id: None,
            exit_status: None,
            runtime: None,
            power: None,
            files: Vec::new(),
            attempt: None,
        }
    }

    /// The same with a sentence for people.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Content type and body.
    #[must_use]
    pub fn encode(&self, unique: &str) -> (String, Vec<u8>) {
        let mut form = Form::new(unique);
        form.field("op", "signal");
        form.field("status", self.status.word());
        let mut text = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                form.field(name, &value);
            }
        };
        text("error", self.message.clone());
        text(
            "script_result_id",
            self.script_result_id.map(|v| v.to_string()),
        );
        text(
            "script_version_id",
            self.script_version_id.map(|v| v.to_string()),
        );
        text("exit_status", self.exit_status.map(|v| v.to_string()));
        text(
            "runtime",
            self.runtime.map(|v| format!("{:.6}", v.as_secs_f64())),
        );
        text("attempt", self.attempt.map(|v| v.to_string()));
        if let Some((kind, parameters)) = &self.power {
            text("power_type", Some(kind.clone()));
            text("power_parameters", Some(parameters.to_string()));
        }
        for (name, content) in &self.files {
            form.file(name, content);
        }
        form.finish()
    }
}

/// The metadata service of one machine.
#[derive(Clone)]
pub struct Metadata {
    http: Http,
    config: Config,
    /// Patience for what must arrive.
    pub delivery: Patience,
}

impl Metadata {
    /// The service that `config` names.
    #[must_use]
    pub fn new(http: Http, config: Config, delivery: Patience) -> Self {
        Self {
            http,
            config,
            delivery,
        }
    }

    /// Where the service is.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The client below.
    #[must_use]
    pub fn http(&self) -> &Http {
        &self.http
    }

    fn url(&self, tail: &str) -> String {
        format!("{}{VERSION}/{tail}", self.config.metadata_url)
    }

    /// A GET with the machine's key.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub fn get(&self, tail: &str) -> Result<crate::http::Answer, HttpError> {
        let request = Request {
            url: self.url(tail),
            credentials: self.config.credentials.clone(),
            post: None,
        };
        self.http.send(&request, self.delivery)
    }

    /// What this machine is to do.
    ///
    /// # Errors
    /// As [`Http::send`]; [`HttpError::Malformed`] when the answer is no [`Work`].
    pub fn work(&self) -> Result<Work, HttpError> {
        let answer = self.get("agent-work")?;
        serde_json::from_slice(&answer.body).map_err(|_| HttpError::Malformed {
            url: self.url("agent-work"),
            expected: "a work order this agent understands",
        })
    }

    /// The archive of scripts to run; none when there is nothing to run.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub fn scripts(&self) -> Result<Option<Vec<u8>>, HttpError> {
        let answer = self.get("maas-scripts")?;
        Ok((answer.status != 204 && !answer.body.is_empty()).then_some(answer.body))
    }

    /// Sends a signal with the given patience.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub fn signal_with(&self, signal: &Signal, patience: Patience) -> Result<(), HttpError> {
        let post = Some(signal.encode(&random_text()));
        let request = Request {
            url: self.url(""),
            credentials: self.config.credentials.clone(),
            post,
        };
        self.http.send(&request, patience).map(|_| ())
    }

    /// Sends a signal that must arrive.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub fn signal(&self, signal: &Signal) -> Result<(), HttpError> {
        self.signal_with(signal, self.delivery)
    }

    /// Says that the machine shall boot its disk from now on.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub fn netboot_off(&self) -> Result<(), HttpError> {
        let mut form = Form::new(&random_text());
        form.field("op", "netboot_off");
        let request = Request {
            url: self.url(""),
            credentials: self.config.credentials.clone(),
            post: Some(form.finish()),
        };
        self.http.send(&request, self.delivery).map(|_| ())
    }

    /// Where installation progress goes: the preseed's word for it, else made from the instance id.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub fn report_url(&self) -> Result<String, HttpError> {
        if let Some(url) = &self.config.report_url {
            return Ok(url.clone());
        }
        let answer = self.get("meta-data/instance-id")?;
        let id = String::from_utf8_lossy(&answer.body).trim().to_owned();
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(HttpError::Malformed {
                url: self.url("meta-data/instance-id"),
                expected: "an instance id",
            });
        }
        Ok(format!("{}status/{id}", self.config.metadata_url))
    }
}

/// Sends [`Status::Working`] every [`HEARTBEAT`] until dropped.
pub struct Heartbeat {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts it; the first beat leaves after one `interval`.
    #[must_use]
    pub fn start(metadata: Metadata, journal: Journal, interval: Duration) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            loop {
                let guard = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
                let (stopped, _) = seen
                    .1
                    .wait_timeout_while(guard, interval, |s| !*s)
                    .unwrap_or_else(PoisonError::into_inner);
                if *stopped {
                    return;
                }
                drop(stopped);
                if let Err(e) =
                    metadata.signal_with(&Signal::new(Status::Working), Patience::PASSING)
                {
                    journal.line(format_args!("heartbeat lost: {e}"));
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panicked heartbeat has nothing left to clean up.
            thread.join().ok();
        }
    }
}
