//! `raids`: software RAID.

use metal::storage::{LEVELS, Level, human, next_name};
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

const MEMBER: &str = "raid";
const SPARE: &str = "raid-spare";

const ALL: Operation = Operation {
    handler: "RaidsHandler",
    uri: "nodes/{system_id}/raids/",
    ..Operation::READ
};
const ONE: Operation = Operation {
    handler: "RaidHandler",
    uri: "nodes/{system_id}/raid/{id}/",
    ..Operation::READ
};

/// `nodes/{system_id}/raids/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the RAIDs of a node.",
        run: |c| Box::pin(list(c)),
        ..ALL
    },
    Operation {
        method: Method::Post,
        audit: Some("NODE"),
        title: "Make a RAID of disks and partitions.",
        params: &[
            Param::opt(
                "name",
                Kind::Text,
                "Its name; the first free mdN when left out.",
            ),
            Param::opt("uuid", Kind::Text, "Its UUID; a new one when left out."),
            Param::field(
                "level",
                Kind::Text,
                "0, 1, 5, 6 or 10; also raid-0 and so on.",
            ),
            Param::opt("block_devices", Kind::List, "Disks, by id or name."),
            Param::opt("spare_devices", Kind::List, "Disks in reserve."),
            Param::opt("partitions", Kind::List, "Partitions, by id or name."),
            Param::opt("spare_partitions", Kind::List, "Partitions in reserve."),
        ],
        run: |c| Box::pin(create(c)),
        ..ALL
    },
    Operation {
        title: "Read a RAID.",
        run: |c| Box::pin(read(c)),
        ..ONE
    },
    Operation {
        method: Method::Put,
        audit: Some("NODE"),
        title: "Change a RAID.",
        params: &[
            Param::opt("name", Kind::Text, "New name."),
            Param::opt("uuid", Kind::Text, "New UUID."),
            Param::opt("add_block_devices", Kind::List, "Disks to add."),
            Param::opt("remove_block_devices", Kind::List, "Disks to take out."),
            Param::opt("add_spare_devices", Kind::List, "Disks to add in reserve."),
            Param::opt(
                "remove_spare_devices",
                Kind::List,
                "Disks in reserve to take out.",
            ),
            Param::opt("add_partitions", Kind::List, "Partitions to add."),
            Param::opt("remove_partitions", Kind::List, "Partitions to take out."),
            Param::opt(
                "add_spare_partitions",
                Kind::List,
                "Partitions to add in reserve.",
            ),
            Param::opt(
                "remove_spare_partitions",
                Kind::List,
                "Partitions in reserve to take out.",
            ),
        ],
        run: |c| Box::pin(update(c)),
        ..ONE
    },
    Operation {
        method: Method::Delete,
        audit: Some("NODE"),
        title: "Remove a RAID.",
        success: 204,
        run: |c| Box::pin(delete(c)),
        ..ONE
    },
];

fn level(g: &GroupRow) -> Level {
    Level::from_word(&g.r#type).unwrap_or(Level::Raid1)
}

fn json(s: &Storage, node: &NodeRow, g: &GroupRow) -> Value {
    let id = &node.system_id;
    let members = s.members(g.id, MEMBER);
    let shown = |devices: &[Device]| -> Vec<Value> {
        devices.iter().map(|d| s.device_json(id, *d)).collect()
    };
    let size = level(g).size(&s.sizes(&members));
    json!({
        "system_id": id,
        "id": g.id,
        "uuid": g.uuid,
        "name": g.name,
        "level": g.r#type,
        "devices": shown(&members),
        "spare_devices": shown(&s.members(g.id, SPARE)),
        "size": size,
        "human_size": human(size),
        "virtual_device": s.virtuals(g.id).next().map(|d| s.disk_json(id, d)),
        "resource_uri": format!("/MAAS/api/2.0/nodes/{id}/raid/{}/", g.id),
    })
}

fn is_raid(g: &&GroupRow) -> bool {
    g.r#type.starts_with("raid-")
}

/// A RAID by id or name.
fn find<'a>(s: &'a Storage, call: &Call) -> Result<&'a GroupRow, ApiError> {
    let text = call.path("id");
    s.groups
        .iter()
        .filter(is_raid)
        .find(|g| g.id.to_string() == text || g.name == text)
        .ok_or_else(|| ApiError::missing("RAID"))
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
    let raids = s.groups.iter().filter(is_raid);
    Ok(Answer::json(raids.map(|g| json(&s, &node, g)).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    Ok(Answer::json(json(&s, &node, find(&s, &call)?)))
}

/// The same device in two places of one request.
fn twice(a: &[Device], b: &[Device]) -> Result<(), ApiError> {
    if a.iter().any(|d| b.contains(d)) {
        return Err(ApiError::field(
            "__all__",
            "A device cannot be a member and a spare at once.",
        ));
    }
    Ok(())
}

/// Makes a RAID: its id, and that of its block device.
///
/// # Errors
/// When the database fails.
pub async fn insert(
    tx: &mut Tx,
    node: &NodeRow,
    (name, uuid): (&str, String),
    level: Level,
    (members, spares): (&[Device], &[Device]),
    now: metal::Timestamp,
) -> Result<(i64, i64), ApiError> {
    let what = (level.word(), name, uuid.clone());
    let id = change::add_group(tx, node.id, what, None, now).await?;
    change::join(tx, node, members, MEMBER, Of::Group(id), now).await?;
    change::join(tx, node, spares, SPARE, Of::Group(id), now).await?;
    let after = change::of_node(tx, node.id).await?;
    let size = level.size(&after.sizes(members));
    let device = change::add_virtual(tx, node.id, id, (name, size, uuid), now).await?;
    Ok((id, device))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "create RAID").await?;
                let args = call.args();
                let word = args.required("level")?;
                let level = Level::from_word(word).ok_or_else(|| {
                    ApiError::field(
                        "level",
                        format!(
                            "'{}' is not one of: {}.",
                            word.chars().take(64).collect::<String>(),
                            LEVELS.map(Level::word).join(", ")
                        ),
                    )
                })?;
                let taken: Vec<&str> = s.disks.iter().map(|d| d.name.as_str()).collect();
                let name = args
                    .filled("name")
                    .map_or_else(|| next_name("md", &taken), str::to_owned);
                change::check_name(&s, &name, None)?;
                let members =
                    change::free_devices(&s, args, ("block_devices", "partitions"), None)?;
                let spares =
                    change::free_devices(&s, args, ("spare_devices", "spare_partitions"), None)?;
                twice(&members, &spares)?;
                level
                    .check(members.len(), spares.len())
                    .map_err(|e| ApiError::field("__all__", e.to_string()))?;
                let uuid = change::uuid(args)?;
                let now = call.now();
                let members = change::off_boot_disk(tx, &node, &s, members, now).await?;
                let spares = change::off_boot_disk(tx, &node, &s, spares, now).await?;
                let made = insert(tx, &node, (&name, uuid), level, (&members, &spares), now);
                let (id, _) = made.await?;
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
                let (node, s) = target(tx, &call, Action::Admin, "update RAID").await?;
                let g = find(&s, &call)?.clone();
                let Some(device) = s.virtuals(g.id).next().cloned() else {
                    return Err(ApiError::bug("a RAID without a device"));
                };
                let args = call.args();
                let name = args.filled("name").unwrap_or(&g.name);
                change::check_name(&s, name, Some(device.id))?;
                let uuid = change::given_uuid(args)?.unwrap_or_else(|| g.uuid.clone());
                let (members, spares) = (s.members(g.id, MEMBER), s.members(g.id, SPARE));
                let mut out = removed(
                    &s,
                    args,
                    ("remove_block_devices", "remove_partitions"),
                    &members,
                )?;
                let kept = members.len() - out.len();
                let out_spares = removed(
                    &s,
                    args,
                    ("remove_spare_devices", "remove_spare_partitions"),
                    &spares,
                )?;
                let kept_spares = spares.len() - out_spares.len();
                out.extend(out_spares);
                let new = change::free_devices(
                    &s,
                    args,
                    ("add_block_devices", "add_partitions"),
                    Some(g.id),
                )?;
                let new_spares = change::free_devices(
                    &s,
                    args,
                    ("add_spare_devices", "add_spare_partitions"),
                    Some(g.id),
                )?;
                twice(&new, &new_spares)?;
                level(&g)
                    .check(kept + new.len(), kept_spares + new_spares.len())
                    .map_err(|e| ApiError::field("__all__", e.to_string()))?;
                let now = call.now();
                let new = change::off_boot_disk(tx, &node, &s, new, now).await?;
                let new_spares = change::off_boot_disk(tx, &node, &s, new_spares, now).await?;
                change::leave(tx, &s, &out, g.id).await?;
                change::join(tx, &node, &new, MEMBER, Of::Group(g.id), now).await?;
                change::join(tx, &node, &new_spares, SPARE, Of::Group(g.id), now).await?;
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
                let after = change::of_node(tx, node.id).await?;
                let size = level(&g).size(&after.sizes(&after.members(g.id, MEMBER)));
                change::resize(tx, device.id, size, now).await?;
                shown(tx, &call, &node, g.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete RAID").await?;
            change::remove_group(tx, &s, find(&s, &call)?.id).await?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}
