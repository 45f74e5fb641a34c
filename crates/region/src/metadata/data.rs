//! What cloud-init reads: metadata, user-data, vendor-data.

use bytes::Bytes;
use metal::status::Status;
use serde_json::{Value, json};
use store::Tx;

use super::{caller, check_version, lines};
use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::lifecycle::{self, Cause};
use crate::node::NodeRow;
use crate::preseed::{self, yaml};
use crate::setting;

/// Content type of user-data.
const BYTES: &str = "application/octet-stream";
/// Content type of vendor-data.
const YAML: &str = "application/x-yaml";
/// Names of a machine's metadata; keys are left out where there are none.
const ITEMS: [&str; 3] = ["instance-id", "local-hostname", "vendor-data"];

pub(super) async fn index(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let mut tx = call.read().await?;
    let node = caller(&mut tx, &call).await?;
    let has_user_data = is_ephemeral(&call)? || own_user_data(&mut tx, &node).await?.is_some();
    Ok(if has_user_data {
        lines(&["maas-scripts", "meta-data", "user-data"])
    } else {
        lines(&["maas-scripts", "meta-data"])
    })
}

fn is_ephemeral(call: &Call) -> Result<bool, ApiError> {
    Ok(call.actor().node()?.purpose != preseed::INSTALLED)
}

/// The SSH keys that the machine shall accept.
async fn public_keys(tx: &mut Tx, node: &NodeRow) -> Result<Vec<String>, ApiError> {
    let closed =
        matches!(node.status()?, Status::Commissioning | Status::Testing) && !node.enable_ssh;
    let Some(owner) = node.owner_id.filter(|_| !closed) else {
        return Ok(Vec::new());
    };
    let rows = store::all!(
        tx,
        (String,),
        "SELECT key FROM sshkey WHERE user_id = $1 ORDER BY id",
        owner
    )?;
    Ok(rows.into_iter().map(|r| r.0).collect())
}

pub(super) async fn list(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let mut tx = call.read().await?;
    let node = caller(&mut tx, &call).await?;
    let mut names = ITEMS.to_vec();
    if !public_keys(&mut tx, &node).await?.is_empty() {
        names.insert(2, "public-keys");
    }
    Ok(lines(&names))
}

pub(super) async fn item(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let mut tx = call.read().await?;
    let node = caller(&mut tx, &call).await?;
    match call.path("item") {
        "instance-id" => Ok(Answer::text(node.system_id)),
        "local-hostname" => Ok(Answer::text(node.fqdn())),
        "public-keys" => Ok(Answer::text(public_keys(&mut tx, &node).await?.join("\n"))),
        // Keys for Windows Remote Management: people cannot store any yet.
        "x509" => Ok(Answer::text("")),
        "vendor-data" => {
            let text = vendor_data(&mut tx, is_ephemeral(&call)?).await?;
            Ok(Answer::bytes(Bytes::from(text), YAML))
        }
        other => Err(unknown_item(other)),
    }
}

fn unknown_item(name: &str) -> ApiError {
    ApiError::NotFound(format!(
        "Unknown metadata attribute: {}.",
        name.chars().take(64).collect::<String>()
    ))
}

/// What the product adds to a machine's own user-data.
async fn vendor_data(tx: &mut Tx, ephemeral: bool) -> Result<String, ApiError> {
    let mut config = json!({ "preserve_hostname": false, "manage_etc_hosts": true });
    // The ephemeral system is gone within minutes; cloud-init would fetch a package for its clock.
    if !ephemeral {
        let all = setting::text(tx, "ntp_servers").await?;
        let named: Vec<&str> = all.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        let (servers, pools): (Vec<&str>, Vec<&str>) = named
            .into_iter()
            .partition(|s| s.parse::<std::net::IpAddr>().is_ok());
        if !servers.is_empty() || !pools.is_empty() {
            config["ntp"] = json!({ "enabled": true, "servers": servers, "pools": pools });
        }
    }
    let inner = Value::from(yaml::cloud_config(&config));
    Ok(yaml::document(&json!({ "cloud-init": inner })))
}

async fn own_user_data(tx: &mut Tx, node: &NodeRow) -> Result<Option<Vec<u8>>, ApiError> {
    let (data,) = store::one!(
        tx,
        (Option<Vec<u8>>,),
        "SELECT user_data FROM node WHERE id = $1",
        node.id
    )?;
    Ok(data)
}

pub(super) async fn curtin_user_data(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let mut tx = call.read().await?;
    let node = caller(&mut tx, &call).await?;
    ephemeral(&call, &node)
}

fn ephemeral(call: &Call, node: &NodeRow) -> Result<Answer, ApiError> {
    let text = preseed::user_data(call.region(), node, &call.origin().base)?;
    Ok(Answer::bytes(Bytes::from(text), BYTES))
}

pub(super) async fn user_data(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let mut tx = call.read().await?;
    let node = caller(&mut tx, &call).await?;
    if is_ephemeral(&call)? {
        return ephemeral(&call, &node);
    }
    let data = own_user_data(&mut tx, &node).await?;
    drop(tx);
    if ends_deployment(&node)? {
        call.write(|tx, call| {
            Box::pin(async move {
                let mut node = caller(tx, &call).await?;
                if ends_deployment(&node)? {
                    let cause = Cause {
                        by: "",
                        why: "",
                        at: call.now(),
                    };
                    lifecycle::finish_deployment(tx, &mut node, cause).await?;
                }
                Ok(())
            })
        })
        .await?;
    }
    // Fetched all the same: cloud-init takes "there is none" for an answer.
    data.map(|d| Answer::bytes(Bytes::from(d), BYTES))
        .ok_or_else(|| ApiError::NotFound("This machine has no user-data.".to_owned()))
}

/// Whether the installed system's first request ends the deployment: it was installed, and booted its disk.
fn ends_deployment(node: &NodeRow) -> Result<bool, ApiError> {
    Ok(node.status()? == Status::Deploying && !node.netboot)
}

pub(super) async fn enlist_index(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    Ok(lines(&["meta-data", "user-data"]))
}

pub(super) async fn enlist_list(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    Ok(lines(&["instance-id", "local-hostname", "public-keys"]))
}

pub(super) async fn enlist_item(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    match call.path("item") {
        "instance-id" => Ok(Answer::text("i-maas-enlistment")),
        "local-hostname" => Ok(Answer::text("maas-enlisting-node")),
        "public-keys" => Ok(Answer::text("")),
        other => Err(unknown_item(other)),
    }
}

pub(super) async fn enlist_user_data(call: Call) -> Result<Answer, ApiError> {
    check_version(&call)?;
    let text = preseed::script::run_agent(&call.origin().base, &call.region().agents);
    Ok(Answer::text(text))
}
