//! What is asked of machines now and then: their installer's configuration, their gateways, a chassis full
//! of them.

use metal::status::Status;
use serde_json::json;

use crate::answer::Answer;
use crate::auth::{Action, ApiKey};
use crate::call::Call;
use crate::error::ApiError;
use crate::install;
use crate::machine::{act, create};
use crate::node::family::{self, Family};
use crate::operation::{Kind, Param};
use crate::preseed::yaml;

/// The configuration that the installer of a machine gets, without its credentials.
pub(super) async fn curtin_config(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = family::find(&mut tx, &call).await?;
    if !matches!(node.status()?, Status::Deploying | Status::Deployed) {
        // The sentence that clients of MAAS know.
        return Err(ApiError::Bad(format!(
            "Machine {} is not in a deployment state.",
            node.hostname
        )));
    }
    // Whoever may look at a machine may not speak for it.
    let nobody = ApiKey {
        consumer_key: String::new(),
        token_key: String::new(),
        token_secret: String::new(),
    };
    let plan = install::plan(&mut tx, &node, &call.origin().base, &nobody, call.now()).await?;
    let mut config = json!({
        "install": { "log_file": crate::script::INSTALL_LOG, "save_install_config": true },
        "kernel": { "options": plan.kernel_options },
        "sources": { "00_root": { "type": plan.image.ftype, "uri": plan.image.url, "sha256": plan.image.sha256 } },
        "storage": { "version": 1, "config": plan.storage },
        "verbosity": 3,
    });
    config["network"] = plan.network["network"].clone();
    Ok(Answer::text(yaml::document(&config)))
}

/// Forgets which links a machine's default routes go through.
pub(super) async fn clear_default_gateways(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = act::target(tx, &call, Action::Admin).await?;
                store::exec!(
                    tx,
                    "UPDATE node SET default_gateway_v4_id = NULL, default_gateway_v6_id = NULL WHERE id = $1",
                    node.id
                )?;
                node.touch(tx, call.now()).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// What a chassis is told by.
pub const CHASSIS: &[Param] = &[
    Param::must(
        "chassis_type",
        Kind::Text,
        "What it is: mscm, msftocs, proxmox, recs_box, sm15k, ucsm, virsh, vmware or hmcz.",
    ),
    Param::must(
        "hostname",
        Kind::Text,
        "Its address: a URL, a host name or an IP address.",
    ),
    Param::opt("username", Kind::Text, "User of the chassis."),
    Param::opt("password", Kind::Text, "Password of that user."),
    Param::opt(
        "accept_all",
        Kind::Bool,
        "Commission what is found at once.",
    ),
    Param::opt(
        "rack_controller",
        Kind::Text,
        "System id of the rack controller that asks it; any that can when left out.",
    ),
    Param::opt(
        "domain",
        Kind::Text,
        "DNS domain of what is found, by name or id.",
    ),
    Param::opt(
        "prefix_filter",
        Kind::Text,
        "Only machines whose names begin so: virsh, vmware, powerkvm, proxmox and hmcz.",
    ),
    Param::opt(
        "power_control",
        Kind::Text,
        "seamicro15k: ipmi, restapi or restapi2.",
    ),
    Param::opt("token_name", Kind::Text, "proxmox: name of an API token."),
    Param::opt("token_secret", Kind::Text, "proxmox: secret of that token."),
    Param::opt("verify_ssl", Kind::Bool, "proxmox: check its certificate."),
    Param::opt(
        "port",
        Kind::Int,
        "Port of its API: recs_box, vmware and msftocs.",
    ),
    Param::opt("protocol", Kind::Text, "vmware: http or https."),
];

/// The kinds of chassis, in the order in which clients are told them.
const CHASSIS_TYPES: [&str; 11] = [
    "recs_box",
    "ucsm",
    "mscm",
    "hmcz",
    "msftocs",
    "proxmox",
    "sm15k",
    "vmware",
    "virsh",
    "powerkvm",
    "seamicro15k",
];

/// Whether a request about a chassis can be carried out, but for who would.
async fn check_chassis(call: &Call) -> Result<(), ApiError> {
    let args = call.args();
    let kind = args.filled("chassis_type").unwrap_or("");
    if !CHASSIS_TYPES.contains(&kind) {
        return Err(ApiError::Bad(format!(
            "Invalid chassis_type: Value must be one of: {} (not '{kind}')",
            CHASSIS_TYPES.join("; ")
        )));
    }
    let only = |name: &str, kinds: &[&str]| {
        if args.has(name) && !kinds.contains(&kind) {
            return Err(ApiError::Bad(format!(
                "{name} is unavailable with the {kind} chassis type"
            )));
        }
        Ok(())
    };
    only(
        "prefix_filter",
        &["powerkvm", "virsh", "vmware", "proxmox", "hmcz"],
    )?;
    only("port", &["recs_box", "vmware", "msftocs"])?;
    only("protocol", &["vmware"])?;
    only("power_control", &["seamicro15k", "sm15k"])?;
    only("token_name", &["proxmox"])?;
    only("token_secret", &["proxmox"])?;
    only("verify_ssl", &["proxmox"])?;
    let needs_user = matches!(
        kind,
        "mscm"
            | "msftocs"
            | "ucsm"
            | "vmware"
            | "recs_box"
            | "sm15k"
            | "seamicro15k"
            | "proxmox"
            | "hmcz"
    );
    if needs_user && args.filled("username").is_none() {
        return Err(ApiError::Bad("No provided username!".to_owned()));
    }
    let token = args.filled("token_name").is_some() || args.filled("token_secret").is_some();
    if kind == "proxmox" && token {
        if args.filled("password").is_some() {
            return Err(ApiError::Bad(
                "You may only specify a password or token_name and token_secret!".to_owned(),
            ));
        }
        for name in ["token_name", "token_secret"] {
            if args.filled(name).is_none() {
                return Err(ApiError::Bad(format!("No provided {name}!")));
            }
        }
    } else if needs_user && args.filled("password").is_none() {
        return Err(ApiError::Bad("No provided password!".to_owned()));
    }
    if let Some(c) = args.filled("power_control")
        && !["ipmi", "restapi", "restapi2"].contains(&c)
    {
        return Err(ApiError::Bad(format!(
            "Invalid power_control: Value must be one of: ipmi; restapi; restapi2 (not '{c}')"
        )));
    }
    if let Some(p) = args.filled("protocol")
        && !["http", "https"].contains(&p)
    {
        return Err(ApiError::Bad(format!(
            "Invalid protocol: Value must be one of: http; https (not '{p}')"
        )));
    }
    if let Some(port) = args.int("port")?
        && !(1..=65_535).contains(&port)
    {
        return Err(ApiError::Bad(
            "Invalid port: enter a number between 1 and 65535".to_owned(),
        ));
    }
    let mut tx = call.read().await?;
    if let Some(d) = args.filled("domain") {
        create::domain_id(&mut tx, Some(d))
            .await
            .map_err(|_| ApiError::NotFound(format!("Unable to find specified domain {d}")))?;
    }
    if let Some(rack) = args.filled("rack_controller") {
        Family::Racks
            .by_system_id(&mut tx, call.actor(), rack)
            .await
            .map_err(|_| ApiError::NotFound(format!("Unable to find specified rack {rack}")))?;
    }
    Ok(())
}

/// Chassis are asked for their machines by racks, which cannot do that yet.
pub(super) async fn add_chassis(call: Call) -> Result<Answer, ApiError> {
    check_chassis(&call).await?;
    Err(ApiError::NoEngine("asking a chassis for its machines"))
}
