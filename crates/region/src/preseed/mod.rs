//! What the ephemeral system of a machine is told before it knows anything: its preseed, with its
//! credentials, and who may have it.

pub mod script;
pub mod yaml;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use metal::boot::{Facts, Purpose, decide};
use metal::status::Status;
use metal::{MacAddr, Timestamp};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use store::Tx;

use crate::auth::{self, ApiKey, TokenFor};
use crate::call::Origin;
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::node::NodeRow;
use crate::node::row::MACHINE;
use crate::region::Region;
use crate::setting;

/// Purpose of the tokens of the ephemeral system.
pub const EPHEMERAL: &str = "ephemeral";
/// Purpose of the tokens of the installed system.
pub const INSTALLED: &str = "installed";

/// How long the address that fetched a boot configuration speaks for the machine: from the loader to
/// cloud-init on slow hardware.
pub const BOOT_AGE: Duration = Duration::from_secs(3_600);
/// Events about refused preseeds are not repeated within this time for the same machine and address.
pub const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// An agent that machines can fetch.
#[derive(Clone, Debug)]
pub struct Agent {
    /// SHA-256 in lower-case hexadecimal digits.
    pub sha256: String,
    /// The program.
    pub content: Bytes,
}

/// The agents of a region, by Debian architecture.
#[derive(Clone, Debug, Default)]
pub struct Agents(BTreeMap<String, Agent>);

impl Agents {
    /// Takes the programs of the configuration and computes their hashes.
    #[must_use]
    pub fn new(programs: &BTreeMap<String, Bytes>) -> Self {
        let agent = |content: &Bytes| Agent {
            sha256: hex::encode(Sha256::digest(content)),
            content: content.clone(),
        };
        Self(
            programs
                .iter()
                .filter(|(_, c)| !c.is_empty())
                .map(|(arch, c)| (arch.clone(), agent(c)))
                .collect(),
        )
    }

    /// Each agent with its architecture.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Agent)> {
        self.0.iter().map(|(a, b)| (a.as_str(), b))
    }

    /// The agent with this hash.
    #[must_use]
    pub fn by_hash(&self, sha256: &str) -> Option<&Agent> {
        self.0
            .values()
            .find(|a| a.sha256.eq_ignore_ascii_case(sha256))
    }
}

/// The content of an agent by its hash, for racks that fetch it like any other content.
#[must_use]
pub fn agent_blob(region: &Region, sha256: &str) -> Option<Bytes> {
    region.agents.by_hash(sha256).map(|a| a.content.clone())
}

/// What a machine that boots from the network is told now.
///
/// # Errors
/// When the database holds an unknown status.
pub fn purpose(node: &NodeRow) -> Result<Purpose, ApiError> {
    Ok(decide(Some(&Facts {
        status: node.status()?,
        netboot: node.netboot,
        ephemeral_deploy: node.ephemeral_deploy,
        is_machine: node.node_type == MACHINE,
    })))
}

/// Why somebody does not get a machine's preseed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// Whether the caller's address is this machine's: what the rack knows of it, else whom it is leased to,
/// else where the machine's boot configuration went.
async fn speaks_for(
    tx: &mut Tx,
    node: &NodeRow,
    origin: &Origin,
    now: Timestamp,
) -> Result<bool, ApiError> {
    let ip = origin.ip.to_string();
    let known: Option<String> = match origin.mac {
        Some(mac) => Some(mac.to_string()),
        None => store::opt!(
            tx,
            (String,),
            "SELECT mac FROM lease WHERE ip = $1 AND until > $2",
            &ip,
            now.0
        )?
        .map(|r| r.0),
    };
    if let Some(mac) = known.and_then(|m| m.parse::<MacAddr>().ok()) {
        let own = store::opt!(
            tx,
            (i64,),
            "SELECT id FROM interface WHERE node_id = $1 AND mac = $2 AND type = 'physical'",
            node.id,
            mac.to_string()
        )?;
        return Ok(own.is_some());
    }
    let (at,) = store::one!(
        tx,
        (Option<i64>,),
        "SELECT boot_client_at FROM node WHERE id = $1",
        node.id
    )?;
    let recent = at.is_some_and(|t| now.since(Timestamp(t)) <= BOOT_AGE);
    Ok(recent && node.boot_client_ip.as_deref() == Some(ip.as_str()))
}

/// Whether a caller may have what only the machine itself may have.
///
/// # Errors
/// When the database fails.
pub async fn check_address(
    tx: &mut Tx,
    node: &NodeRow,
    origin: &Origin,
    now: Timestamp,
) -> Result<Result<(), Refused>, ApiError> {
    if setting::flag(tx, "open_preseeds").await? || speaks_for(tx, node, origin, now).await? {
        return Ok(Ok(()));
    }
    Ok(Err(Refused(format!(
        "{} is not an address of {}.",
        origin.ip, node.hostname
    ))))
}

/// Whether a caller may have the machine's preseed now.
///
/// # Errors
/// When the database fails.
pub async fn check(
    tx: &mut Tx,
    node: &NodeRow,
    origin: &Origin,
    now: Timestamp,
) -> Result<Result<(), Refused>, ApiError> {
    if let Err(refused) = check_address(tx, node, origin, now).await? {
        return Ok(Err(refused));
    }
    if purpose(node)? == Purpose::Local && !setting::flag(tx, "open_preseeds").await? {
        return Ok(Err(Refused(format!(
            "{} is {}: it boots its own disk and gets no preseed.",
            node.hostname,
            node.status()?.name()
        ))));
    }
    Ok(Ok(()))
}

/// Whether a refusal of this machine's preseed to this address was told of a moment ago.
///
/// # Errors
/// When the database fails.
pub async fn told_of(
    tx: &mut Tx,
    node: &NodeRow,
    origin: &Origin,
    now: Timestamp,
) -> Result<bool, ApiError> {
    let found = store::opt!(
        tx,
        (i64,),
        "SELECT id FROM event WHERE node_id = $1 AND type = $2 AND created > $3 AND description LIKE $4 LIMIT 1",
        node.id,
        Kind::PreseedRefused.word(),
        now.minus(REFUSAL_PAUSE).0,
        format!("{} %", asked_from(origin))
    )?;
    Ok(found.is_some())
}

fn asked_from(origin: &Origin) -> String {
    format!("Asked for by {}:", origin.ip)
}

/// Writes the event of a refusal, unless there is one already.
///
/// # Errors
/// When the database fails.
pub async fn tell_refusal(
    tx: &mut Tx,
    node: &NodeRow,
    origin: &Origin,
    refused: &Refused,
    now: Timestamp,
) -> Result<(), ApiError> {
    if told_of(tx, node, origin, now).await? {
        return Ok(());
    }
    let text = format!("{} {}", asked_from(origin), refused.0);
    event::add(tx, Kind::PreseedRefused, Some(node.about()), "", &text, now).await
}

/// Gives a machine new credentials for a purpose; older ones for that purpose stop working at once.
///
/// # Errors
/// When the database fails.
pub async fn renew_token(
    tx: &mut Tx,
    region: &Region,
    node: &NodeRow,
    purpose: &str,
    key: &ApiKey,
    now: Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "DELETE FROM token WHERE node_id = $1 AND purpose = $2",
        node.id,
        purpose
    )?;
    auth::insert_token(
        tx,
        region,
        key,
        TokenFor::Node {
            id: node.id,
            purpose,
        },
        now,
    )
    .await
}

fn power_state(mode: &str, timeout: u32) -> Value {
    json!({
        "delay": "now",
        "mode": mode,
        "timeout": timeout,
        // The agent makes these files while it works.
        "condition": format!("test ! -e /tmp/block-{mode}"),
    })
}

/// What follows when cloud-init and the agent are done; none keeps the machine up.
async fn after(tx: &mut Tx, node: &NodeRow) -> Result<Option<Value>, ApiError> {
    Ok(match node.status()? {
        Status::RescueMode | Status::EnteringRescueMode => None,
        Status::Commissioning | Status::Testing if node.enable_ssh => None,
        Status::Deployed => None,
        Status::Deploying => Some(power_state("reboot", 1_800)),
        Status::DiskErasing => Some(power_state("poweroff", 604_800)),
        Status::Testing if node.previous()? != Status::Commissioning => {
            let was = store::opt!(
                tx,
                (String,),
                "SELECT power_state_before FROM script_set WHERE id = $1",
                node.current_testing_set_id
            )?;
            let was_on = was.is_some_and(|w| w.0 == "on");
            Some(if was_on {
                power_state("reboot", 1_800)
            } else {
                power_state("poweroff", 3_600)
            })
        }
        _ => Some(power_state("poweroff", 3_600)),
    })
}

/// Host and port that log lines go to: the rack, unless a setting names another.
async fn syslog(tx: &mut Tx, base: &str) -> Result<String, ApiError> {
    let remote = setting::text(tx, "remote_syslog").await?;
    if !remote.is_empty() {
        let has_port = remote.rsplit_once(':').is_some_and(|(h, p)| {
            p.parse::<u16>().is_ok() && (!h.contains(':') || h.ends_with(']'))
        });
        return Ok(if has_port {
            remote
        } else {
            format!("{remote}:514")
        });
    }
    let port = setting::number(tx, "maas_syslog_port").await?;
    Ok(format!("{}:{port}", host_of(base)))
}

/// The host in `http://host:port`, in brackets when it is an IPv6 address.
fn host_of(base: &str) -> &str {
    let authority = base.split_once("://").map_or(base, |(_, a)| a);
    let authority = authority.split('/').next().unwrap_or(authority);
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

/// What known and unknown machines have in common.
async fn common(tx: &mut Tx, base: &str) -> Result<Map<String, Value>, ApiError> {
    let mut out = Map::new();
    out.insert("manage_etc_hosts".into(), true.into());
    out.insert(
        "rsyslog".into(),
        json!({ "remotes": { "maas": syslog(tx, base).await? } }),
    );
    let proxy = setting::text(tx, "http_proxy").await?;
    if setting::flag(tx, "enable_http_proxy").await? && !proxy.is_empty() {
        out.insert(
            "apt".into(),
            json!({ "preserve_sources_list": true, "proxy": proxy }),
        );
    }
    Ok(out)
}

/// The preseed of a known machine, with these credentials.
///
/// # Errors
/// When the database fails.
pub async fn known(
    tx: &mut Tx,
    node: &NodeRow,
    base: &str,
    key: &ApiKey,
) -> Result<String, ApiError> {
    let metadata = format!("{base}/MAAS/metadata/");
    // Below `curtin/` nothing that is fetched ends the deployment.
    let metadata_url = if purpose(node)? == Purpose::Xinstall {
        format!("{metadata}curtin")
    } else {
        metadata.clone()
    };
    let keys = |first: Value| {
        let mut all = first;
        all["consumer_key"] = key.consumer_key.clone().into();
        all["token_key"] = key.token_key.clone().into();
        all["token_secret"] = key.token_secret.clone().into();
        all
    };
    let mut out = Map::new();
    out.insert(
        "datasource".into(),
        json!({ "MAAS": keys(json!({ "metadata_url": metadata_url })) }),
    );
    out.insert(
        "reporting".into(),
        json!({ "maas": keys(json!({ "type": "webhook", "endpoint": format!("{metadata}status/{}", node.system_id) })) }),
    );
    out.extend(common(tx, base).await?);
    if let Some(p) = after(tx, node).await? {
        out.insert("power_state".into(), p);
    }
    Ok(yaml::cloud_config(&Value::Object(out)))
}

/// The preseed of a machine that nobody knows: no credentials.
///
/// # Errors
/// When the database fails.
pub async fn enlist(tx: &mut Tx, base: &str) -> Result<String, ApiError> {
    let mut out = Map::new();
    out.insert(
        "datasource".into(),
        json!({ "MAAS": { "metadata_url": format!("{base}/MAAS/metadata/enlist") } }),
    );
    out.extend(common(tx, base).await?);
    out.insert("power_state".into(), power_state("poweroff", 3_600));
    Ok(yaml::cloud_config(&Value::Object(out)))
}

/// The user-data of a machine's ephemeral system.
///
/// # Errors
/// When the database holds an unknown status.
pub fn user_data(region: &Region, node: &NodeRow, base: &str) -> Result<String, ApiError> {
    Ok(match purpose(node)? {
        Purpose::Enlist | Purpose::Commissioning | Purpose::Xinstall => {
            script::run_agent(base, &region.agents)
        }
        Purpose::Local | Purpose::Poweroff => script::POWER_OFF.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_base_is_found() {
        for (base, host) in [
            ("http://10.0.0.1:5248", "10.0.0.1"),
            ("http://[fd00::1]:5248", "[fd00::1]"),
            ("http://rack.example", "rack.example"),
            ("http://rack:80/x", "rack"),
        ] {
            assert_eq!(host_of(base), host);
        }
    }

    #[test]
    fn agents_are_found_by_their_hash() {
        let agents = Agents::new(&BTreeMap::from([
            ("amd64".to_owned(), Bytes::from_static(b"abc")),
            ("arm64".to_owned(), Bytes::new()),
        ]));
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            agents.by_hash(sha).unwrap().content,
            Bytes::from_static(b"abc")
        );
        assert!(agents.by_hash("00").is_none());
        assert_eq!(agents.iter().count(), 1, "an empty program is no agent");
    }
}
