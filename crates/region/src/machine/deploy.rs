//! Deployment: checks everything that can be checked beforehand, then starts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use link::message::PowerAction;
use metal::status::Status;
use store::Tx;

use crate::answer::Answer;
use crate::auth::Action;
use crate::call::Call;
use crate::error::ApiError;
use crate::event::{self, Kind as EventKind};
use crate::interface::ops;
use crate::machine::{act, allocate, read};
use crate::node::NodeRow;
use crate::operation::{Kind, Param};
use crate::{image, ipam, lifecycle, power, script, setting};

/// What a deployment can be told.
pub const PARAMS: &[Param] = &[
    Param::opt(
        "osystem",
        Kind::Text,
        "Operating system; may also stand before the series, as debian/bookworm.",
    ),
    Param::opt(
        "distro_series",
        Kind::Text,
        "Release to install; the setting default_distro_series when left out.",
    ),
    Param::opt("hwe_kernel", Kind::Text, "Kernel, for example ga-24.04."),
    Param::opt(
        "user_data",
        Kind::Text,
        "User-data for the installed system, in base64.",
    ),
    Param::opt(
        "agent_name",
        Kind::Text,
        "A name to remember the allocation by.",
    ),
    Param::opt("comment", Kind::Text, "A note for the event log."),
    Param::opt(
        "ephemeral_deploy",
        Kind::Bool,
        "Run in memory, leave the disks alone.",
    ),
    Param::opt(
        "enable_hw_sync",
        Kind::Bool,
        "Keep the inventory up to date while deployed.",
    ),
    Param::opt(
        "enable_kernel_crash_dump",
        Kind::Bool,
        "Reserve memory for crash dumps.",
    ),
    Param::opt("install_rackd", Kind::Bool, "Make it a rack."),
    Param::opt("install_kvm", Kind::Bool, "Make it a KVM host."),
    Param::opt("register_vmhost", Kind::Bool, "Make it an LXD host."),
    Param::opt(
        "vcenter_registration",
        Kind::Bool,
        "Register an ESXi host with vCenter.",
    ),
    Param::opt("bridge_all", Kind::Bool, "Put a bridge on every interface."),
    Param::opt("bridge_type", Kind::Text, "standard or ovs."),
    Param::opt("bridge_stp", Kind::Bool, "Spanning tree on those bridges."),
    Param::opt(
        "bridge_fd",
        Kind::Int,
        "Forward delay of those bridges in seconds.",
    ),
];

/// What is asked for by switches that have no engine yet: refused, never ignored.
const NOT_YET: [&str; 6] = [
    "install_rackd",
    "install_kvm",
    "register_vmhost",
    "vcenter_registration",
    "ephemeral_deploy",
    "enable_kernel_crash_dump",
];

/// Most bytes of user-data.
pub const MAX_USER_DATA: usize = 1 << 20;

pub(super) async fn deploy(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut node =
                    crate::node::row::machine(tx, call.actor(), call.path("system_id")).await?;
                match node.status()? {
                    Status::Ready if node.owner_id.is_none() => {
                        allocate::acquire(tx, &call, &mut node).await?
                    }
                    Status::Allocated => {}
                    other => {
                        // The sentence that clients of MAAS know.
                        return Err(ApiError::Conflict(format!(
                            "Can't deploy a machine that is in the '{}' state",
                            other.name()
                        )));
                    }
                }
                let mut node = act::target(tx, &call, Action::Edit).await?;
                has_engine(&call)?;
                if call.args().bool("bridge_all")?.unwrap_or(false) {
                    ops::bridge_all(tx, &call, &node).await?;
                }
                start(tx, &call, &mut node).await?;
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// 503 when a switch is on that nothing answers to yet.
fn has_engine(call: &Call) -> Result<(), ApiError> {
    for name in NOT_YET {
        if call.args().bool(name)? == Some(true) {
            return Err(ApiError::Unavailable(
                format!("{name} is not available yet."),
                3600,
            ));
        }
    }
    Ok(())
}

/// Starts the deployment of an allocated machine.
///
/// # Errors
/// 400 for what cannot be installed, 503 when a subnet has no free address.
pub(super) async fn start(tx: &mut Tx, call: &Call, node: &mut NodeRow) -> Result<(), ApiError> {
    let args = call.args();
    let arch = node.architecture.clone().unwrap_or_default();
    let (osystem, series) = wanted(tx, call).await?;
    let image = image::deployable(tx, osystem.as_deref(), &series, &arch).await?;
    check_storage(tx, node).await?;
    check_network(tx, node).await?;
    let user_data = match args.filled("user_data") {
        None => None,
        Some(text) => {
            let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = STANDARD
                .decode(packed)
                .map_err(|_| ApiError::field("user_data", "This is not base64."))?;
            if bytes.len() > MAX_USER_DATA {
                return Err(ApiError::field(
                    "user_data",
                    format!("User-data may have at most {MAX_USER_DATA} bytes."),
                ));
            }
            Some(bytes)
        }
    };
    let cause = act::cause(call);
    event::add(
        tx,
        EventKind::RequestDeploy,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    ipam::claim_auto(tx, node, cause.at).await?;
    let set = script::new_installation_set(tx, node, cause.at).await?;
    store::exec!(
        tx,
        "UPDATE node SET osystem = $2, distro_series = $3, hwe_kernel = $4, user_data = $5, netboot = TRUE, \
         agent_name = COALESCE($6, agent_name), enable_hw_sync = $7, install_attempt = install_attempt + 1, \
         current_installation_set_id = $8 WHERE id = $1",
        node.id,
        &image.osystem,
        &image.series,
        args.filled("hwe_kernel")
            .map(str::to_owned)
            .or_else(|| image.kernel.clone()),
        user_data,
        args.filled("agent_name"),
        args.bool("enable_hw_sync")?.unwrap_or(false),
        set
    )?;
    node.osystem = image.osystem;
    node.distro_series = image.series;
    node.netboot = true;
    node.install_attempt += 1;
    node.current_installation_set_id = Some(set);
    lifecycle::set_status(tx, node, Status::Deploying, cause).await?;
    power::ask(tx, node, PowerAction::Cycle { pxe: true }, cause.at).await?;
    Ok(())
}

/// The system asked for: `osystem` and `distro_series`, `os/series`, or the defaults.
async fn wanted(tx: &mut Tx, call: &Call) -> Result<(Option<String>, String), ApiError> {
    let osystem = call.args().filled("osystem").map(str::to_owned);
    match call.args().filled("distro_series") {
        Some(s) => match s.split_once('/') {
            Some((os, series)) => Ok((Some(os.to_owned()), series.to_owned())),
            None => Ok((osystem, s.to_owned())),
        },
        None if osystem.is_some() => {
            let series = image::newest_series(tx, osystem.as_deref().unwrap_or("")).await?;
            Ok((osystem, series))
        }
        None => Ok((
            Some(setting::text(tx, "default_osystem").await?),
            setting::text(tx, "default_distro_series").await?,
        )),
    }
}

async fn check_storage(tx: &mut Tx, node: &NodeRow) -> Result<(), ApiError> {
    let (roots,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM filesystem WHERE node_id = $1 AND mount_point = '/'",
        node.id
    )?;
    if roots == 0 {
        return Err(ApiError::field(
            "storage",
            "Node must have a root filesystem: mount one at '/' or set a storage layout.",
        ));
    }
    let planned = crate::block_device::change::of_node(tx, node.id).await?;
    if let Some(why) = crate::install::not_installable(&planned) {
        return Err(ApiError::Unavailable(why, 3600));
    }
    Ok(())
}

async fn check_network(tx: &mut Tx, node: &NodeRow) -> Result<(), ApiError> {
    let (links,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM ip_address a JOIN interface i ON i.id = a.interface_id \
         WHERE i.node_id = $1 AND a.subnet_id IS NOT NULL AND i.enabled",
        node.id
    )?;
    if links == 0 {
        return Err(ApiError::field(
            "network",
            "Node must be configured to use a network: link an interface to a subnet.",
        ));
    }
    Ok(())
}
