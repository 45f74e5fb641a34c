//! `bcaches`: slow devices with a fast one in front.

use metal::storage::{CACHE_MODES, human, next_name};
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::Action;
use crate::bcache_cache_set::{self, one_device};
use crate::block_device::change::{self, Of, target};
use crate::block_device::{Device, GroupRow, Storage, unsigned};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::NodeRow;
use crate::operation::{Kind, Method, Need, Operation, Param};

/// The type of bcache devices.
pub const TYPE: &str = "bcache";
/// The file system of the slow device.
pub const BACKING: &str = "bcache-backing";

const ALL: Operation = Operation {
    handler: "BcachesHandler",
    uri: "nodes/{system_id}/bcaches/",
    ..Operation::READ
};
const ONE: Operation = Operation {
    handler: "BcacheHandler",
    uri: "nodes/{system_id}/bcache/{id}/",
    ..Operation::READ
};

const fn params(need: Need) -> [Param; 6] {
    [
        Param::opt(
            "name",
            Kind::Text,
            "Its name; the first free bcacheN when left out.",
        ),
        Param::opt("uuid", Kind::Text, "Its UUID; a new one when left out."),
        Param {
            name: "cache_set",
            kind: Kind::Text,
            need,
            doc: "The cache set, by id or name.",
        },
        Param::opt(
            "backing_device",
            Kind::Text,
            "The slow disk, by id or name.",
        ),
        Param::opt(
            "backing_partition",
            Kind::Text,
            "The slow partition, by id or name.",
        ),
        Param {
            name: "cache_mode",
            kind: Kind::Choice(&CACHE_MODES),
            need,
            doc: "How it caches.",
        },
    ]
}

/// `nodes/{system_id}/bcaches/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the bcache devices of a node.",
        run: |c| Box::pin(list(c)),
        ..ALL
    },
    Operation {
        method: Method::Post,
        audit: Some("NODE"),
        title: "Make a bcache device.",
        params: &params(Need::Field),
        run: |c| Box::pin(create(c)),
        ..ALL
    },
    Operation {
        title: "Read a bcache device.",
        run: |c| Box::pin(read(c)),
        ..ONE
    },
    Operation {
        method: Method::Put,
        audit: Some("NODE"),
        title: "Change a bcache device.",
        params: &params(Need::Optional),
        run: |c| Box::pin(update(c)),
        ..ONE
    },
    Operation {
        method: Method::Delete,
        audit: Some("NODE"),
        title: "Remove a bcache device.",
        success: 204,
        run: |c| Box::pin(delete(c)),
        ..ONE
    },
];

fn json(s: &Storage, node: &NodeRow, g: &GroupRow) -> Value {
    let id = &node.system_id;
    let backing = s.members(g.id, BACKING).first().copied();
    let size = backing.map_or(0, |d| unsigned(s.size_of(d)));
    let set = s
        .cache_sets
        .iter()
        .find(|c| Some(c.id) == g.cache_set_id)
        .map(|c| bcache_cache_set::json(s, id, c));
    json!({
        "system_id": id,
        "id": g.id,
        "uuid": g.uuid,
        "name": g.name,
        "cache_set": set,
        "backing_device": backing.map(|d| s.device_json(id, d)),
        "size": size,
        "human_size": human(size),
        "virtual_device": s.virtuals(g.id).next().map(|d| s.disk_json(id, d)),
        "cache_mode": g.cache_mode,
        "resource_uri": format!("/MAAS/api/2.0/nodes/{id}/bcache/{}/", g.id),
    })
}

/// A bcache device by id or name.
fn find<'a>(s: &'a Storage, call: &Call) -> Result<&'a GroupRow, ApiError> {
    let text = call.path("id");
    s.groups
        .iter()
        .filter(|g| g.r#type == TYPE)
        .find(|g| g.id.to_string() == text || g.name == text)
        .ok_or_else(|| ApiError::missing("Bcache"))
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

/// The cache set that was asked for; not one that lies on what it is to cache.
fn cache_set(s: &Storage, call: &Call, group: Option<i64>) -> Result<Option<i64>, ApiError> {
    let Some(text) = call.args().filled("cache_set") else {
        return Ok(None);
    };
    let found = bcache_cache_set::named(s, text)
        .ok_or_else(|| change::no_choice("cache_set", text))?
        .id;
    let over = |g: i64| {
        s.filesystems
            .iter()
            .filter(|f| f.cache_set_id == Some(found))
            .filter_map(crate::block_device::FilesystemRow::device)
            .any(|d| s.lies_on(d, g))
    };
    if group.is_some_and(over) {
        return Err(change::no_choice("cache_set", text));
    }
    Ok(Some(found))
}

/// Makes a bcache device: its id, and that of its block device.
///
/// # Errors
/// When the database fails.
pub async fn insert(
    tx: &mut Tx,
    node: &NodeRow,
    (name, uuid): (&str, String),
    cache: (&str, i64),
    backing: &[Device],
    now: metal::Timestamp,
) -> Result<(i64, i64), ApiError> {
    let what = (TYPE, name, uuid.clone());
    let id = change::add_group(tx, node.id, what, Some(cache), now).await?;
    change::join(tx, node, backing, BACKING, Of::Group(id), now).await?;
    let after = change::of_node(tx, node.id).await?;
    let size = after.sizes(backing).iter().sum();
    let device = change::add_virtual(tx, node.id, id, (name, size, uuid), now).await?;
    Ok((id, device))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "create Bcache").await?;
                let args = call.args();
                let now = call.now();
                let taken: Vec<&str> = s.disks.iter().map(|d| d.name.as_str()).collect();
                let name = args
                    .filled("name")
                    .map_or_else(|| next_name("bcache", &taken), str::to_owned);
                change::check_name(&s, &name, None)?;
                args.required("cache_set")?;
                let set = cache_set(&s, &call, None)?
                    .ok_or_else(|| ApiError::field("cache_set", "This field is required."))?;
                let mode = args.required("cache_mode")?;
                let Some(d) = one_device(&s, &call, ("backing_device", "backing_partition"), None)?
                else {
                    return Err(ApiError::field(
                        "__all__",
                        "Either backing_device or backing_partition must be specified.",
                    ));
                };
                let uuid = change::uuid(args)?;
                let d = change::off_boot_disk(tx, &node, &s, vec![d], now).await?;
                let (id, _) = insert(tx, &node, (&name, uuid), (mode, set), &d, now).await?;
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
                let (node, s) = target(tx, &call, Action::Admin, "update Bcache").await?;
                let g = find(&s, &call)?.clone();
                let Some(device) = s.virtuals(g.id).next().cloned() else {
                    return Err(ApiError::bug("a bcache without a device"));
                };
                let args = call.args();
                let now = call.now();
                let name = args.filled("name").unwrap_or(&g.name);
                change::check_name(&s, name, Some(device.id))?;
                let uuid = change::given_uuid(args)?.unwrap_or_else(|| g.uuid.clone());
                let set = cache_set(&s, &call, Some(g.id))?.or(g.cache_set_id);
                let mode = args.filled("cache_mode").or(g.cache_mode.as_deref());
                let names = ("backing_device", "backing_partition");
                if let Some(d) = one_device(&s, &call, names, Some(g.id))? {
                    let d = change::off_boot_disk(tx, &node, &s, vec![d], now).await?;
                    let old = s.members(g.id, BACKING);
                    change::leave(tx, &s, &old, g.id).await?;
                    change::join(tx, &node, &d, BACKING, Of::Group(g.id), now).await?;
                    let after = change::of_node(tx, node.id).await?;
                    change::resize(tx, device.id, after.sizes(&d).iter().sum(), now).await?;
                }
                store::exec!(
                    tx,
                    "UPDATE filesystem_group SET name = $2, uuid = $3, cache_mode = $4, cache_set_id = $5, updated = $6 WHERE id = $1",
                    g.id,
                    name,
                    &uuid,
                    mode,
                    set,
                    now.0
                )?;
                store::exec!(
                    tx,
                    "UPDATE block_device SET name = $2, uuid = $3 WHERE id = $1",
                    device.id,
                    name,
                    &uuid
                )?;
                shown(tx, &call, &node, g.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete Bcache").await?;
            change::remove_group(tx, &s, find(&s, &call)?.id).await?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}
