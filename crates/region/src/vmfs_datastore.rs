//! `vmfs-datastores`: where ESXi keeps its machines.

use metal::storage::human;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::Action;
use crate::block_device::change::{self, Of, target};
use crate::block_device::{Device, GroupRow, Storage};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::NodeRow;
use crate::operation::{Kind, Method, Operation, Param};
use crate::volume_group::removed;

/// The type of datastores, and the file system of their devices.
pub const TYPE: &str = "vmfs6";

const ALL: Operation = Operation {
    handler: "VmfsDatastoresHandler",
    uri: "nodes/{system_id}/vmfs-datastores/",
    ..Operation::READ
};
const ONE: Operation = Operation {
    handler: "VmfsDatastoreHandler",
    uri: "nodes/{system_id}/vmfs-datastore/{id}/",
    ..Operation::READ
};

/// `nodes/{system_id}/vmfs-datastores/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the datastores of a node.",
        run: |c| Box::pin(list(c)),
        ..ALL
    },
    Operation {
        method: Method::Post,
        audit: Some("NODE"),
        title: "Make a datastore of disks and partitions.",
        params: &[
            Param::field("name", Kind::Text, "Its name."),
            Param::opt("uuid", Kind::Text, "Its UUID; a new one when left out."),
            Param::opt("block_devices", Kind::List, "Disks, by id or name."),
            Param::opt("partitions", Kind::List, "Partitions, by id or name."),
        ],
        run: |c| Box::pin(create(c)),
        ..ALL
    },
    Operation {
        title: "Read a datastore.",
        run: |c| Box::pin(read(c)),
        ..ONE
    },
    Operation {
        method: Method::Put,
        audit: Some("NODE"),
        title: "Change a datastore.",
        params: &[
            Param::opt("name", Kind::Text, "New name."),
            Param::opt("uuid", Kind::Text, "New UUID."),
            Param::opt("add_block_devices", Kind::List, "Disks to add."),
            Param::opt("remove_block_devices", Kind::List, "Disks to take out."),
            Param::opt("add_partitions", Kind::List, "Partitions to add."),
            Param::opt("remove_partitions", Kind::List, "Partitions to take out."),
        ],
        run: |c| Box::pin(update(c)),
        ..ONE
    },
    Operation {
        method: Method::Delete,
        audit: Some("NODE"),
        title: "Remove a datastore.",
        success: 204,
        run: |c| Box::pin(delete(c)),
        ..ONE
    },
];

fn size(s: &Storage, g: &GroupRow) -> u64 {
    s.sizes(&s.members(g.id, TYPE)).iter().sum()
}

fn json(s: &Storage, node: &NodeRow, g: &GroupRow) -> Value {
    let id = &node.system_id;
    let members = s.members(g.id, TYPE);
    let made = s.virtuals(g.id).next();
    json!({
        "system_id": id,
        "id": g.id,
        "uuid": g.uuid,
        "name": g.name,
        "devices": members.iter().map(|d| s.device_json(id, *d)).collect::<Vec<_>>(),
        "size": size(s, g),
        "human_size": human(size(s, g)),
        "filesystem": made.and_then(|d| s.filesystem_of_disk(d.id)).map(crate::block_device::FilesystemRow::json),
        "resource_uri": format!("/MAAS/api/2.0/nodes/{id}/vmfs-datastore/{}/", g.id),
    })
}

/// A datastore by id or name.
fn find<'a>(s: &'a Storage, call: &Call) -> Result<&'a GroupRow, ApiError> {
    let text = call.path("id");
    s.groups
        .iter()
        .filter(|g| g.r#type == TYPE)
        .find(|g| g.id.to_string() == text || g.name == text)
        .ok_or_else(|| ApiError::missing("VMFS"))
}

async fn shown(tx: &mut Tx, call: &Call, node: &NodeRow, id: i64) -> Result<Value, ApiError> {
    node.touch(tx, call.now()).await?;
    let s = change::of_node(tx, node.id).await?;
    let g = s.groups.iter().find(|g| g.id == id);
    Ok(g.map_or(Value::Null, |g| json(&s, node, g)))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    let all = s.groups.iter().filter(|g| g.r#type == TYPE);
    Ok(Answer::json(all.map(|g| json(&s, &node, g)).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    Ok(Answer::json(json(&s, &node, find(&s, &call)?)))
}

/// Makes a datastore with its device and file system; ESXi mounts it by its name.
///
/// # Errors
/// When the database fails.
pub async fn insert(
    tx: &mut Tx,
    node: &NodeRow,
    (name, uuid): (&str, String),
    members: &[Device],
    now: metal::Timestamp,
) -> Result<i64, ApiError> {
    let id = change::add_group(tx, node.id, (TYPE, name, uuid.clone()), None, now).await?;
    change::join(tx, node, members, TYPE, Of::Group(id), now).await?;
    let size = change::of_node(tx, node.id)
        .await?
        .sizes(members)
        .iter()
        .sum();
    let device = change::add_virtual(tx, node.id, id, (name, size, uuid), now).await?;
    store::exec!(
        tx,
        "INSERT INTO filesystem (node_id, block_device_id, fstype, uuid, mount_point, mount_options, created, updated) \
         VALUES ($1, $2, 'vmfs6', $3, $4, '', $5, $5)",
        node.id,
        device,
        change::new_uuid(),
        format!("/vmfs/volumes/{name}"),
        now.0
    )?;
    Ok(id)
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "create VMFS datastore").await?;
                let args = call.args();
                let name = args.required("name")?;
                change::check_name(&s, name, None)?;
                let members =
                    change::free_devices(&s, args, ("block_devices", "partitions"), None)?;
                if members.is_empty() {
                    return Err(ApiError::field(
                        "__all__",
                        "A datastore needs at least one block device or partition.",
                    ));
                }
                let uuid = change::uuid(args)?;
                let members = change::off_boot_disk(tx, &node, &s, members, call.now()).await?;
                let id = insert(tx, &node, (name, uuid), &members, call.now()).await?;
                shown(tx, &call, &node, id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "update VMFS datastore").await?;
                let g = find(&s, &call)?.clone();
                let Some(device) = s.virtuals(g.id).next().cloned() else {
                    return Err(ApiError::bug("a datastore without a device"));
                };
                let args = call.args();
                let now = call.now();
                let name = args.filled("name").unwrap_or(&g.name);
                change::check_name(&s, name, Some(device.id))?;
                let uuid = change::given_uuid(args)?.unwrap_or_else(|| g.uuid.clone());
                let members = s.members(g.id, TYPE);
                let out = removed(
                    &s,
                    args,
                    ("remove_block_devices", "remove_partitions"),
                    &members,
                )?;
                let new = change::free_devices(
                    &s,
                    args,
                    ("add_block_devices", "add_partitions"),
                    Some(g.id),
                )?;
                if new.len() + members.len() == out.len() {
                    return Err(ApiError::field(
                        "__all__",
                        "A datastore needs at least one block device or partition.",
                    ));
                }
                let new = change::off_boot_disk(tx, &node, &s, new, now).await?;
                change::leave(tx, &s, &out, g.id).await?;
                change::join(tx, &node, &new, TYPE, Of::Group(g.id), now).await?;
                store::exec!(
                    tx,
                    "UPDATE filesystem_group SET name = $2, uuid = $3, updated = $4 WHERE id = $1",
                    g.id,
                    name,
                    &uuid,
                    now.0
                )?;
                store::exec!(
                    tx,
                    "UPDATE block_device SET name = $2, uuid = $3 WHERE id = $1",
                    device.id,
                    name,
                    &uuid
                )?;
                store::exec!(
                    tx,
                    "UPDATE filesystem SET mount_point = $2 WHERE block_device_id = $1",
                    device.id,
                    format!("/vmfs/volumes/{name}")
                )?;
                let after = change::of_node(tx, node.id).await?;
                change::resize(tx, device.id, size(&after, &g), now).await?;
                shown(tx, &call, &node, g.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete VMFS datastore").await?;
            change::remove_group(tx, &s, find(&s, &call)?.id).await?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}
