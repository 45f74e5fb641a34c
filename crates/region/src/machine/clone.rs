//! Cloning: the network and the storage configuration of one machine put onto others.

use std::collections::HashMap;

use metal::Timestamp;
use metal::status::Status;
use store::Tx;

use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::block_device::BlockDeviceRow;
use crate::call::Call;
use crate::error::ApiError;
use crate::interface::{AUTO, DHCP, InterfaceRow};
use crate::machine::update;
use crate::node::NodeRow;
use crate::node::family::Family;
use crate::operation::{Kind, Param};
use crate::{layout, select_block_device, select_interface};

/// Most machines that one request clones to.
pub const MAX_DESTINATIONS: usize = 1_000;

/// What is cloned to where.
pub const PARAMS: &[Param] = &[
    Param::opt(
        "source",
        Kind::Text,
        "System id of the machine that is cloned.",
    ),
    Param::opt(
        "destinations",
        Kind::List,
        "System ids of the machines that become like it.",
    ),
    Param::opt("interfaces", Kind::Bool, "Clone the network configuration."),
    Param::opt("storage", Kind::Bool, "Clone the storage configuration."),
];

/// The statuses in which a machine can be made like another.
const OPEN: [Status; 2] = [Status::Ready, Status::FailedTesting];

pub(super) async fn clone(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let (network, storage) = (
        args.bool("interfaces")?.unwrap_or(false),
        args.bool("storage")?.unwrap_or(false),
    );
    let mut wrong: Vec<(String, Vec<String>)> = Vec::new();
    let mut say = |field: &str, text: String| wrong.push((field.to_owned(), vec![text]));
    let required = || "This field is required.".to_owned();
    if args.list("destinations").is_empty() {
        say("destinations", required());
    }
    if args.filled("source").is_none() {
        say("source", required());
    }
    if !network && !storage {
        // The sentence that clients of MAAS know.
        say(
            "__all__",
            "Either storage or interfaces must be true.".to_owned(),
        );
    }
    if args.list("destinations").len() > MAX_DESTINATIONS {
        say(
            "destinations",
            format!("At most {MAX_DESTINATIONS} machines at a time."),
        );
    }
    if !wrong.is_empty() {
        return Err(ApiError::Fields(wrong));
    }
    call.write(move |tx, call| {
        Box::pin(async move {
            let (source, destinations) = machines(tx, &call).await?;
            let ports = physical(tx, source.id).await?;
            let disks = layout::disks(tx, source.id).await?;
            if storage {
                refuse_virtual(tx, &source).await?;
            }
            for node in destinations {
                if network {
                    clone_network(tx, &ports, &node, call.now()).await?;
                }
                if storage {
                    clone_storage(tx, &source, &disks, &node, call.now()).await?;
                }
                node.touch(tx, call.now()).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

/// The machines of a request, when each is there, is the caller's, and can be changed now.
async fn machines(tx: &mut Tx, call: &Call) -> Result<(NodeRow, Vec<NodeRow>), ApiError> {
    let refuse = |field: &str, text: String| ApiError::field(field, text);
    let missing =
        |id: &str| format!("Select a valid choice. {id} is not one of the available choices.");
    let id = call.args().filled("source").unwrap_or("").to_owned();
    let source = match Family::Machines.by_system_id(tx, call.actor(), &id).await {
        Ok(n) => n,
        Err(ApiError::NotFound(_)) => return Err(refuse("source", missing(&id))),
        Err(e) => return Err(e),
    };
    let mut out: Vec<NodeRow> = Vec::new();
    for id in call.args().list("destinations") {
        let node = match Family::Machines.by_system_id(tx, call.actor(), &id).await {
            Ok(n) => n,
            Err(ApiError::NotFound(_)) => return Err(refuse("destinations", missing(&id))),
            Err(e) => return Err(e),
        };
        let owner = Resource::Machine {
            owner: node.owner_id,
        };
        authorize(call.actor(), Action::Admin, owner)?;
        update::refuse_locked(&node)?;
        if node.id == source.id {
            return Err(refuse(
                "destinations",
                format!("Source machine {id} cannot be a destination machine."),
            ));
        }
        if !OPEN.contains(&node.status()?) {
            return Err(refuse(
                "destinations",
                format!(
                    "Machine {id} is '{}'; it must be Ready or have failed testing.",
                    node.status()?.name()
                ),
            ));
        }
        if !out.iter().any(|n| n.id == node.id) {
            out.push(node);
        }
    }
    Ok((source, out))
}

async fn physical(tx: &mut Tx, node: i64) -> Result<Vec<InterfaceRow>, ApiError> {
    Ok(store::all!(
        tx,
        InterfaceRow,
        select_interface!(
            "WHERE i.node_id = $1 ORDER BY CASE i.type WHEN 'physical' THEN 0 ELSE 1 END, i.id"
        ),
        node
    )?)
}

/// Puts the interfaces of a machine onto those of the same name of another. Fixed addresses cannot be in two
/// places: where the source has one, the other gets one of its own at deployment.
async fn clone_network(
    tx: &mut Tx,
    source: &[InterfaceRow],
    node: &NodeRow,
    now: Timestamp,
) -> Result<(), ApiError> {
    let own = physical(tx, node.id).await?;
    let mut to: HashMap<i64, i64> = HashMap::new();
    let mut missing = Vec::new();
    for s in source.iter().filter(|s| s.r#type == "physical") {
        match own
            .iter()
            .find(|o| o.r#type == "physical" && o.name == s.name)
        {
            Some(o) => {
                to.insert(s.id, o.id);
            }
            None => missing.push(s.name.as_str()),
        }
    }
    if !missing.is_empty() {
        return Err(ApiError::field(
            "destinations",
            format!(
                "{} has no interface named {}.",
                node.hostname,
                missing.join(", ")
            ),
        ));
    }
    store::exec!(
        tx,
        "DELETE FROM interface WHERE node_id = $1 AND type <> 'physical'",
        node.id
    )?;
    store::exec!(
        tx,
        "DELETE FROM ip_address WHERE interface_id IN (SELECT i.id FROM interface i WHERE i.node_id = $1)",
        node.id
    )?;
    store::exec!(
        tx,
        "UPDATE node SET default_gateway_v4_id = NULL, default_gateway_v6_id = NULL WHERE id = $1",
        node.id
    )?;
    for s in source {
        let id = match to.get(&s.id) {
            Some(id) => {
                store::exec!(
                    tx,
                    "UPDATE interface SET vlan_id = $2, enabled = $3, params = $4, tags = $5, updated = $6 WHERE id = $1",
                    *id,
                    s.vlan_id,
                    s.enabled,
                    &s.params,
                    &s.tags,
                    now.0
                )?;
                *id
            }
            None => {
                // A bond or a bridge has the address of what it is made of.
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO interface (node_id, name, type, vlan_id, enabled, params, tags, link_connected, created, updated) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) RETURNING id",
                    node.id,
                    &s.name,
                    &s.r#type,
                    s.vlan_id,
                    s.enabled,
                    &s.params,
                    &s.tags,
                    s.link_connected,
                    now.0
                )?;
                to.insert(s.id, id);
                id
            }
        };
        let links = store::all!(
            tx,
            (i64, Option<String>, Option<i64>),
            "SELECT alloc_type, ip, subnet_id FROM ip_address WHERE interface_id = $1 ORDER BY id",
            s.id
        )?;
        for (alloc, ip, subnet) in links {
            let alloc = if alloc == DHCP || ip.is_none() {
                alloc
            } else {
                AUTO
            };
            store::exec!(
                tx,
                "INSERT INTO ip_address (alloc_type, subnet_id, interface_id, created, updated) VALUES ($1, $2, $3, $4, $4)",
                alloc,
                subnet,
                id,
                now.0
            )?;
        }
    }
    let ids: Vec<i64> = source.iter().map(|s| s.id).collect();
    let relations = store::all!(
        tx,
        (i64, i64),
        "SELECT parent_id, child_id FROM interface_relation WHERE child_id IN @ids($1) ORDER BY child_id, parent_id",
        serde_json::to_string(&ids).unwrap_or_default()
    )?;
    for (parent, child) in relations {
        let (Some(p), Some(c)) = (to.get(&parent), to.get(&child)) else {
            continue;
        };
        store::exec!(
            tx,
            "INSERT INTO interface_relation (parent_id, child_id) VALUES ($1, $2)",
            *p,
            *c
        )?;
        store::exec!(
            tx,
            "UPDATE interface SET mac = (SELECT p.mac FROM interface p WHERE p.id = $2) WHERE id = $1 AND mac IS NULL",
            *c,
            *p
        )?;
    }
    Ok(())
}

/// Volume groups, RAIDs and caches are not cloned yet: a machine that has them is refused, not cloned in part.
async fn refuse_virtual(tx: &mut Tx, source: &NodeRow) -> Result<(), ApiError> {
    let virtual_disks = store::all!(
        tx,
        BlockDeviceRow,
        select_block_device!("WHERE b.node_id = $1 AND b.type = 'virtual' ORDER BY b.id"),
        source.id
    )?;
    if virtual_disks.is_empty() {
        return Ok(());
    }
    Err(ApiError::Unavailable(
        format!(
            "{} has virtual disks ({}), and those cannot be cloned yet.",
            source.hostname,
            virtual_disks
                .iter()
                .map(|d| d.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ),
        3_600,
    ))
}

/// Which disk of a machine stands for which of another: the boot disk for the boot disk, the rest by size,
/// each at least as large.
fn pair(
    source: &[BlockDeviceRow],
    own: &[BlockDeviceRow],
    boot: (Option<i64>, Option<i64>),
) -> Option<Vec<(i64, i64)>> {
    let rank = |d: &BlockDeviceRow, b: Option<i64>| (Some(d.id) != b, d.size, d.id);
    let mut from: Vec<&BlockDeviceRow> = source.iter().collect();
    let mut to: Vec<&BlockDeviceRow> = own.iter().collect();
    from.sort_by_key(|d| rank(d, boot.0));
    to.sort_by_key(|d| rank(d, boot.1));
    let mut out = Vec::new();
    for s in from {
        let at = to.iter().position(|d| d.size >= s.size)?;
        out.push((s.id, to.remove(at).id));
    }
    Some(out)
}

async fn clone_storage(
    tx: &mut Tx,
    source: &NodeRow,
    disks: &[BlockDeviceRow],
    node: &NodeRow,
    now: Timestamp,
) -> Result<(), ApiError> {
    let own = layout::disks(tx, node.id).await?;
    let Some(pairs) = pair(disks, &own, (source.boot_disk_id, node.boot_disk_id)) else {
        return Err(ApiError::field(
            "destinations",
            format!(
                "{} has fewer or smaller disks than {}.",
                node.hostname, source.hostname
            ),
        ));
    };
    layout::clear(tx, node.id).await?;
    for (from, to) in pairs {
        store::exec!(
            tx,
            "UPDATE block_device SET partition_table_type = (SELECT s.partition_table_type FROM block_device s WHERE s.id = $2) WHERE id = $1",
            to,
            from
        )?;
        if source.boot_disk_id == Some(from) {
            store::exec!(
                tx,
                "UPDATE node SET boot_disk_id = $2 WHERE id = $1",
                node.id,
                to
            )?;
        }
        let partitions = store::all!(
            tx,
            (i64, i64, i64, bool, String),
            "SELECT id, number, size, bootable, tags FROM partition WHERE block_device_id = $1 ORDER BY number",
            from
        )?;
        for (old, number, size, bootable, tags) in partitions {
            let (id,) = store::one!(
                tx,
                (i64,),
                "INSERT INTO partition (block_device_id, number, uuid, size, bootable, tags, created, updated) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id",
                to,
                number,
                uuid::Uuid::new_v4().to_string(),
                size,
                bootable,
                tags,
                now.0
            )?;
            filesystem(tx, Place::Partition { from: old, to: id }, node.id, now).await?;
        }
        filesystem(tx, Place::Disk { from, to }, node.id, now).await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Place {
    Disk { from: i64, to: i64 },
    Partition { from: i64, to: i64 },
}

async fn filesystem(tx: &mut Tx, place: Place, node: i64, now: Timestamp) -> Result<(), ApiError> {
    let uuid = uuid::Uuid::new_v4().to_string();
    match place {
        Place::Disk { from, to } => store::exec!(
            tx,
            "INSERT INTO filesystem (node_id, block_device_id, fstype, label, uuid, mount_point, mount_options, created, updated) \
             SELECT CAST($1 AS @int), CAST($2 AS @int), fstype, label, $3, mount_point, mount_options, CAST($4 AS @int), CAST($4 AS @int) \
             FROM filesystem WHERE block_device_id = $5",
            node,
            to,
            uuid,
            now.0,
            from
        )?,
        Place::Partition { from, to } => store::exec!(
            tx,
            "INSERT INTO filesystem (node_id, partition_id, fstype, label, uuid, mount_point, mount_options, created, updated) \
             SELECT CAST($1 AS @int), CAST($2 AS @int), fstype, label, $3, mount_point, mount_options, CAST($4 AS @int), CAST($4 AS @int) \
             FROM filesystem WHERE partition_id = $5",
            node,
            to,
            uuid,
            now.0,
            from
        )?,
    };
    Ok(())
}
