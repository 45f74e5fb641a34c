//! A machine that nobody knows introduces itself.

use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::config::{Config, ConfigError};
use crate::http::{Http, HttpError, Patience, Request, random_text};
use crate::inventory::live::debian_architecture;
use crate::inventory::network;
use crate::metadata::Metadata;
use crate::multipart::Form;
use crate::scripts::{self, Power, ScriptsError, Site};

/// Why a machine could not be introduced.
#[derive(Debug, thiserror::Error)]
pub enum EnlistError {
    /// It has no network card.
    #[error("this machine has no network interface with a hardware address")]
    NoInterface,
    /// The rack.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The anonymous scripts.
    #[error(transparent)]
    Scripts(#[from] ScriptsError),
    /// The preseed that was handed out.
    #[error("the preseed of the new machine cannot be used")]
    Preseed(#[from] ConfigError),
    /// The preseed that was handed out has no key.
    #[error("the preseed of the new machine has no key")]
    NoKey,
}

/// What came of it.
#[derive(Debug)]
pub enum Enlisted {
    /// The machine is known already, and nobody waits for it.
    Known,
    /// It is known now: its preseed's text, and what was read from it.
    New {
        /// The preseed.
        text: String,
        /// Service and key.
        config: Config,
    },
}

/// Introduces the machine. `machine` is `uname -m`.
///
/// # Errors
/// When it has no interface, or the rack does not take it.
pub fn enlist(
    site: &Site<'_>,
    http: &Http,
    config: &Config,
    machine: &str,
    patience: Patience,
) -> Result<Enlisted, EnlistError> {
    let addresses = network::enlist_addresses(site.sys);
    if addresses.is_empty() {
        return Err(EnlistError::NoInterface);
    }
    let machines = format!("{}api/2.0/machines/", config.site_url());
    let list = addresses.join(",");
    let query = format!(
        "{machines}?op=is_registered&mac_address={}",
        utf8_percent_encode(&list, NON_ALPHANUMERIC)
    );
    let known = http.send(
        &Request {
            url: query,
            ..Request::default()
        },
        patience,
    )?;
    if serde_json::from_slice::<Value>(&known.body).ok() == Some(Value::Bool(true)) {
        return Ok(Enlisted::Known);
    }
    let metadata = Metadata::new(http.clone(), config.clone(), patience);
    let bundle = match scripts::fetch(site, &metadata) {
        Ok(bundle) => bundle,
        // A region that gives no scripts to strangers still takes them in.
        Err(ScriptsError::Http(e)) if matches!(e.status(), Some(401 | 403 | 404)) => None,
        Err(e) => return Err(e.into()),
    };
    let power = bundle.and_then(|b| scripts::run_anonymous(site, &b));
    let architecture = debian_architecture(machine);
    let system_id = match register(
        http,
        &machines,
        architecture,
        &list,
        power.as_ref(),
        patience,
    ) {
        Err(e @ HttpError::Refused { .. }) if power.is_some() => {
            site.journal.line(format_args!(
                "not taken with its power control, trying without: {e}"
            ));
            register(http, &machines, architecture, &list, None, patience)?
        }
        other => other?,
    };
    site.journal
        .line(format_args!("this machine is {system_id} now"));
    let text = preseed(
        http,
        &format!(
            "{}latest/by-id/{system_id}/?op=get_preseed",
            config.metadata_url
        ),
        patience,
    )?;
    let config = Config::parse(&text)?;
    if config.credentials.is_none() {
        return Err(EnlistError::NoKey);
    }
    Ok(Enlisted::New { text, config })
}

fn register(
    http: &Http,
    machines: &str,
    architecture: &str,
    addresses: &str,
    power: Option<&Power>,
    patience: Patience,
) -> Result<String, HttpError> {
    let mut form = Form::new(&random_text());
    form.field("architecture", architecture);
    form.field("mac_addresses", addresses);
    form.field("commission", "true");
    if let Some((kind, parameters)) = power {
        form.field("power_type", kind);
        form.field("power_parameters", &parameters.to_string());
    }
    let request = Request {
        url: machines.to_owned(),
        credentials: None,
        post: Some(form.finish()),
    };
    let answer = http.send(&request, patience)?;
    let system_id = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|v| v.get("system_id")?.as_str().map(str::to_owned));
    let plausible =
        |id: &String| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    system_id
        .filter(plausible)
        .ok_or_else(|| HttpError::Malformed {
            url: machines.to_owned(),
            expected: "a machine with a system_id",
        })
}

/// The new machine's preseed. The rack hands it out only when it has heard of the machine, which may take a moment.
fn preseed(http: &Http, url: &str, patience: Patience) -> Result<String, HttpError> {
    /// How long the rack may take.
    const LIMIT: Duration = Duration::from_secs(60);
    let started = Instant::now();
    loop {
        match http.send(
            &Request {
                url: url.to_owned(),
                ..Request::default()
            },
            patience,
        ) {
            Ok(answer) => return Ok(String::from_utf8_lossy(&answer.body).into_owned()),
            Err(e)
                if matches!(e.status(), Some(401 | 403 | 404))
                    && started.elapsed() < LIMIT.min(patience.limit) =>
            {
                std::thread::sleep(patience.first)
            }
            Err(e) => return Err(e),
        }
    }
}
