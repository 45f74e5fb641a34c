//! `volume-groups`: LVM.

use metal::storage::{self, carve, human};
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::Action;
use crate::block_device::change::{self, Of, target};
use crate::block_device::{Device, GroupRow, Storage, unsigned};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::NodeRow;
use crate::operation::{Kind, Method, Operation, Param};

/// The type of volume groups.
pub const TYPE: &str = "lvm-vg";
/// The file system of their members.
pub const MEMBER: &str = "lvm-pv";

const ALL: Operation = Operation {
    handler: "VolumeGroupsHandler",
    uri: "nodes/{system_id}/volume-groups/",
    ..Operation::READ
};
const ONE: Operation = Operation {
    handler: "VolumeGroupHandler",
    uri: "nodes/{system_id}/volume-group/{id}/",
    also: &["nodes/{system_id}/volume-groups/{id}/"],
    ..Operation::READ
};
const ACT: Operation = Operation {
    method: Method::Post,
    audit: Some("NODE"),
    ..ONE
};

/// `nodes/{system_id}/volume-groups/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the volume groups of a node.",
        run: |c| Box::pin(list(c)),
        ..ALL
    },
    Operation {
        method: Method::Post,
        audit: Some("NODE"),
        title: "Make a volume group of disks and partitions.",
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
        title: "Read a volume group.",
        run: |c| Box::pin(read(c)),
        ..ONE
    },
    Operation {
        method: Method::Put,
        title: "Change a volume group.",
        params: &[
            Param::opt("name", Kind::Text, "New name."),
            Param::opt("uuid", Kind::Text, "New UUID."),
            Param::opt("add_block_devices", Kind::List, "Disks to add."),
            Param::opt("remove_block_devices", Kind::List, "Disks to take out."),
            Param::opt("add_partitions", Kind::List, "Partitions to add."),
            Param::opt("remove_partitions", Kind::List, "Partitions to take out."),
        ],
        run: |c| Box::pin(update(c)),
        ..ACT
    },
    Operation {
        method: Method::Delete,
        title: "Remove a volume group that has no logical volumes.",
        success: 204,
        run: |c| Box::pin(delete(c)),
        ..ACT
    },
    Operation {
        op: Some("create_logical_volume"),
        title: "Make a logical volume.",
        params: &[
            Param::field("name", Kind::Text, "Its name."),
            Param::opt("uuid", Kind::Text, "Its UUID; a new one when left out."),
            Param::opt(
                "size",
                Kind::Text,
                "Size, for example 10G; all that is left when left out.",
            ),
        ],
        run: |c| Box::pin(create_volume(c)),
        ..ACT
    },
    Operation {
        op: Some("delete_logical_volume"),
        title: "Remove a logical volume.",
        params: &[Param::must("id", Kind::Int, "The logical volume.")],
        success: 204,
        run: |c| Box::pin(delete_volume(c)),
        ..ACT
    },
];

fn size(s: &Storage, g: &GroupRow) -> u64 {
    storage::volume_group(&s.sizes(&s.members(g.id, MEMBER)))
}

fn used(s: &Storage, g: &GroupRow) -> u64 {
    s.virtuals(g.id).map(|d| unsigned(d.size)).sum()
}

/// Bytes of a volume group that no logical volume has.
#[must_use]
pub fn left(s: &Storage, g: &GroupRow) -> u64 {
    size(s, g).saturating_sub(used(s, g))
}

fn json(s: &Storage, node: &NodeRow, g: &GroupRow) -> Value {
    let id = &node.system_id;
    let members = s.members(g.id, MEMBER);
    json!({
        "system_id": id,
        "id": g.id,
        "uuid": g.uuid,
        "name": g.name,
        "devices": members.iter().map(|d| s.device_json(id, *d)).collect::<Vec<_>>(),
        "size": size(s, g),
        "human_size": human(size(s, g)),
        "available_size": left(s, g),
        "human_available_size": human(left(s, g)),
        "used_size": used(s, g),
        "human_used_size": human(used(s, g)),
        "logical_volumes": s.virtuals(g.id).map(|d| s.disk_json(id, d)).collect::<Vec<_>>(),
        "resource_uri": format!("/MAAS/api/2.0/nodes/{id}/volume-group/{}/", g.id),
    })
}

/// A volume group by id or name.
fn find<'a>(s: &'a Storage, call: &Call) -> Result<&'a GroupRow, ApiError> {
    let text = call.path("id");
    s.groups
        .iter()
        .filter(|g| g.r#type == TYPE)
        .find(|g| g.id.to_string() == text || g.name == text)
        .ok_or_else(|| ApiError::missing("VolumeGroup"))
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
    let groups = s.groups.iter().filter(|g| g.r#type == TYPE);
    Ok(Answer::json(groups.map(|g| json(&s, &node, g)).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    Ok(Answer::json(json(&s, &node, find(&s, &call)?)))
}

fn check_name(s: &Storage, name: &str, own: Option<i64>) -> Result<(), ApiError> {
    let taken = |g: &GroupRow| g.r#type == TYPE && g.name == name && Some(g.id) != own;
    if s.groups.iter().any(taken) {
        return Err(ApiError::field(
            "name",
            "The machine has a volume group with this name already.",
        ));
    }
    // A volume group makes no device of its own name; what it may consist of is the same.
    change::check_name(&Storage::default(), name, None)
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "create volume group").await?;
                let args = call.args();
                let name = args.required("name")?;
                check_name(&s, name, None)?;
                let members =
                    change::free_devices(&s, args, ("block_devices", "partitions"), None)?;
                if members.is_empty() {
                    return Err(ApiError::field(
                        "__all__",
                        "A volume group needs at least one block device or partition.",
                    ));
                }
                let uuid = change::uuid(args)?;
                let members = change::off_boot_disk(tx, &node, &s, members, call.now()).await?;
                let id =
                    change::add_group(tx, node.id, (TYPE, name, uuid), None, call.now()).await?;
                change::join(tx, &node, &members, MEMBER, Of::Group(id), call.now()).await?;
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
                let (node, s) = target(tx, &call, Action::Admin, "update volume group").await?;
                let g = find(&s, &call)?.clone();
                let args = call.args();
                let name = args.filled("name").unwrap_or(&g.name);
                check_name(&s, name, Some(g.id))?;
                let uuid = change::given_uuid(args)?.unwrap_or_else(|| g.uuid.clone());
                let members = s.members(g.id, MEMBER);
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
                        "A volume group needs at least one block device or partition.",
                    ));
                }
                let new = change::off_boot_disk(tx, &node, &s, new, call.now()).await?;
                change::leave(tx, &s, &out, g.id).await?;
                change::join(tx, &node, &new, MEMBER, Of::Group(g.id), call.now()).await?;
                let after = change::of_node(tx, node.id).await?;
                if size(&after, &g) < used(&s, &g) {
                    return Err(ApiError::field(
                        "__all__",
                        "The logical volumes do not fit on the devices that would be left.",
                    ));
                }
                store::exec!(
                    tx,
                    "UPDATE filesystem_group SET name = $2, uuid = $3, updated = $4 WHERE id = $1",
                    g.id,
                    name,
                    uuid,
                    call.now().0
                )?;
                if name != g.name {
                    // Its volumes have its name before their own.
                    for d in s.virtuals(g.id) {
                        let own = d
                            .name
                            .strip_prefix(&format!("{}-", g.name))
                            .unwrap_or(&d.name);
                        let full = format!("{name}-{own}");
                        change::check_name(&s, &full, Some(d.id))?;
                        store::exec!(
                            tx,
                            "UPDATE block_device SET name = $2 WHERE id = $1",
                            d.id,
                            full
                        )?;
                    }
                }
                shown(tx, &call, &node, g.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Members that are named to be taken out.
pub(crate) fn removed(
    s: &Storage,
    args: &crate::args::Args,
    names: (&str, &str),
    members: &[Device],
) -> Result<Vec<Device>, ApiError> {
    let mut out = Vec::new();
    for ((field, text), device) in change::named(s, args, names)? {
        if !members.contains(&device) || out.contains(&device) {
            return Err(change::no_choice(&field, &text));
        }
        out.push(device);
    }
    Ok(out)
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete volume group").await?;
            let g = find(&s, &call)?;
            if s.virtuals(g.id).next().is_some() {
                return Err(ApiError::Bad(format!(
                    "{} has logical volumes: delete them first.",
                    g.name
                )));
            }
            change::remove_group(tx, &s, g.id).await?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn create_volume(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "create logical volume").await?;
                let g = find(&s, &call)?;
                let args = call.args();
                let name = format!("{}-{}", g.name, args.required("name")?);
                change::check_name(&s, &name, None)?;
                let asked = change::size(args, "size", size(&s, g))?;
                let size = carve(asked, left(&s, g)).map_err(|e| change::refused("size", e))?;
                let uuid = change::uuid(args)?;
                let id =
                    change::add_virtual(tx, node.id, g.id, (&name, size, uuid), call.now()).await?;
                node.touch(tx, call.now()).await?;
                let s = change::of_node(tx, node.id).await?;
                Ok(s.device_json(&node.system_id, Device::Disk(id)))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete_volume(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete logical volume").await?;
            let g = find(&s, &call)?;
            let id = call.args().int("id")?;
            // One that is gone already is as good as deleted.
            if let Some(d) = s.virtuals(g.id).find(|d| Some(d.id) == id) {
                let parts = s.partitions_of(d.id).map(|p| Device::Partition(p.id));
                for device in std::iter::once(Device::Disk(d.id)).chain(parts) {
                    change::refuse_member(&s, device, "delete")?;
                }
                store::exec!(tx, "DELETE FROM block_device WHERE id = $1", d.id)?;
                node.touch(tx, call.now()).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
