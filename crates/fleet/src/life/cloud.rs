//! cloud-init: the MAAS datasource, and the events it reports. And what the agent shares with it: signals.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{End, Stage};
use crate::config::Patience;
use crate::form::{Body, Credentials, multipart};
use crate::http::{Answer, Http, HttpError, Request, nonce};
use crate::machine::Machine;
use crate::preseed::Preseed;
use crate::state::Phase;

/// The version of the metadata service that cloud-init asks for.
const VERSION: &str = "2012-03-01";

/// A metadata service, and who asks it.
#[derive(Clone)]
pub(super) struct Cloud {
    http: Http,
    patience: Patience,
    base: String,
    credentials: Option<Credentials>,
    endpoint: Option<String>,
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

impl Cloud {
    pub(super) fn new(m: &Machine, http: Http, preseed: &Preseed) -> Stage<Self> {
        let base = preseed
            .metadata_url
            .clone()
            .ok_or_else(|| End::Stuck("the preseed names no metadata service".into()))?;
        Ok(Self {
            http,
            patience: m.shared.config.patience,
            base,
            credentials: preseed.credentials.clone(),
            endpoint: preseed.endpoint.clone(),
        })
    }

    pub(super) fn is_known(&self) -> bool {
        self.credentials.is_some()
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    pub(super) fn url(&self, tail: &str) -> String {
        format!("{}{VERSION}/{tail}", self.base)
    }

    /// A GET with the machine's key.
    pub(super) async fn get(&self, tail: &str) -> Result<Answer, HttpError> {
        let request = Request::get(self.url(tail)).signed(self.credentials.as_ref());
        self.http.deliver(&request, self.patience).await
    }

    /// What is there, or nothing where the service has none.
    async fn optional(&self, tail: &str) -> Result<Option<String>, HttpError> {
        match self.get(tail).await {
            Ok(answer) => Ok(Some(answer.text())),
            Err(e) if e.status().is_some_and(|s| s == http::StatusCode::NOT_FOUND) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads everything that the datasource reads; gives the user-data.
    pub(super) async fn datasource(&self) -> Result<Option<String>, HttpError> {
        self.get("meta-data/instance-id").await?;
        self.get("meta-data/local-hostname").await?;
        self.optional("meta-data/public-keys").await?;
        self.optional("meta-data/vendor-data").await?;
        self.optional("user-data").await
    }

    /// Reports that a stage of cloud-init started or finished. Lost reports stop nothing.
    pub(super) async fn event(&self, name: &str, kind: &str) {
        let mut event = json!({
            "name": name, "description": format!("{name} (simulated)"), "event_type": kind, "origin": "cloudinit", "timestamp": now(),
        });
        if kind == "finish" {
            event["result"] = "SUCCESS".into();
        }
        if let Err(error) = self.report(&event).await {
            tracing::debug!(%error, "an event was lost");
        }
    }

    /// Posts an event to the status endpoint, where there is one.
    pub(super) async fn report(&self, event: &Value) -> Result<(), HttpError> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        let body = Body {
            content_type: "application/json".into(),
            bytes: event.to_string().into_bytes(),
        };
        let request = Request::post(endpoint, body).signed(self.credentials.as_ref());
        self.http.deliver(&request, self.patience).await.map(|_| ())
    }

    /// An installation's event, as curtin sends it.
    pub(super) async fn progress(
        &self,
        name: &str,
        kind: &str,
        attempt: i64,
        failure: Option<&str>,
    ) -> Result<(), HttpError> {
        let mut event = json!({
            "name": name, "description": failure.unwrap_or("simulated"), "event_type": kind, "origin": "curtin", "timestamp": now(),
            "level": if failure.is_some() { "ERROR" } else { "INFO" }, "attempt": attempt,
        });
        if kind == "finish" {
            event["result"] = if failure.is_some() { "FAIL" } else { "SUCCESS" }.into();
        }
        self.report(&event).await
    }

    /// Where installation progress goes when the preseed does not say.
    pub(super) async fn with_endpoint(mut self) -> Result<Self, HttpError> {
        if self.endpoint.is_none() {
            let id = self.get("meta-data/instance-id").await?.text();
            self.endpoint = Some(format!("{}status/{}", self.base, id.trim()));
        }
        Ok(self)
    }

    /// Posts a form to the machine's own page.
    pub(super) async fn post(
        &self,
        fields: &[(&str, String)],
        files: &[(String, Vec<u8>)],
    ) -> Result<(), HttpError> {
        let request = Request::post(self.url(""), multipart(&nonce(), fields, files))
            .signed(self.credentials.as_ref());
        self.http.deliver(&request, self.patience).await.map(|_| ())
    }

    /// A signal with nothing but a status and a sentence.
    pub(super) async fn signal(&self, status: &str, message: &str) -> Result<(), HttpError> {
        self.post(
            &[
                ("op", "signal".into()),
                ("status", status.into()),
                ("error", message.into()),
            ],
            &[],
        )
        .await
    }

    /// Sends heartbeats while something is done.
    pub(super) async fn beating<T>(&self, m: &Machine, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let every = m.shared.config.heartbeat;
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(every) => {
                    // The next one will do.
                    self.signal("WORKING", "").await.ok();
                }
            }
        }
    }
}

/// Rescue mode: up, and saying so.
pub(super) async fn beat_for_ever(m: &Machine, http: &Http, preseed: &Preseed) -> Stage<End> {
    m.enter(Phase::Rescue, "stays up");
    let cloud = Cloud::new(m, http.clone(), preseed)?;
    cloud.beating(m, super::for_ever()).await
}
