//! `bcache-cache-sets`: fast devices in front of slow ones.

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::Action;
use crate::block_device::change::{self, Of, target};
use crate::block_device::{CacheSetRow, Device, FilesystemRow, Storage};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::NodeRow;
use crate::operation::{Kind, Method, Operation, Param};

/// The file system of their devices.
pub const MEMBER: &str = "bcache-cache";

const ALL: Operation = Operation {
    handler: "BcacheCacheSetsHandler",
    uri: "nodes/{system_id}/bcache-cache-sets/",
    ..Operation::READ
};
const ONE: Operation = Operation {
    handler: "BcacheCacheSetHandler",
    uri: "nodes/{system_id}/bcache-cache-set/{id}/",
    ..Operation::READ
};
const PARAMS: &[Param] = &[
    Param::opt(
        "cache_device",
        Kind::Text,
        "The caching disk, by id or name.",
    ),
    Param::opt(
        "cache_partition",
        Kind::Text,
        "The caching partition, by id or name.",
    ),
];

/// `nodes/{system_id}/bcache-cache-sets/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the cache sets of a node.",
        run: |c| Box::pin(list(c)),
        ..ALL
    },
    Operation {
        method: Method::Post,
        audit: Some("NODE"),
        title: "Make a cache set of a disk or a partition.",
        params: PARAMS,
        run: |c| Box::pin(create(c)),
        ..ALL
    },
    Operation {
        title: "Read a cache set.",
        run: |c| Box::pin(read(c)),
        ..ONE
    },
    Operation {
        method: Method::Put,
        audit: Some("NODE"),
        title: "Put a cache set on another device.",
        params: PARAMS,
        run: |c| Box::pin(update(c)),
        ..ONE
    },
    Operation {
        method: Method::Delete,
        audit: Some("NODE"),
        title: "Remove a cache set that caches nothing.",
        success: 204,
        run: |c| Box::pin(delete(c)),
        ..ONE
    },
];

fn device(s: &Storage, set: i64) -> Option<Device> {
    s.filesystems
        .iter()
        .filter(|f| f.cache_set_id == Some(set))
        .find_map(FilesystemRow::device)
}

/// The object of the API.
#[must_use]
pub fn json(s: &Storage, system_id: &str, c: &CacheSetRow) -> Value {
    json!({
        "system_id": system_id,
        "id": c.id,
        "name": s.cache_set_name(c.id),
        "cache_device": device(s, c.id).map(|d| s.device_json(system_id, d)),
        "resource_uri": format!("/MAAS/api/2.0/nodes/{system_id}/bcache-cache-set/{}/", c.id),
    })
}

/// A cache set by id or name.
#[must_use]
pub fn named<'a>(s: &'a Storage, text: &str) -> Option<&'a CacheSetRow> {
    s.cache_sets
        .iter()
        .find(|c| c.id.to_string() == text || s.cache_set_name(c.id) == text)
}

fn find<'a>(s: &'a Storage, call: &Call) -> Result<&'a CacheSetRow, ApiError> {
    named(s, call.path("id")).ok_or_else(|| ApiError::missing("CacheSet"))
}

async fn shown(tx: &mut Tx, call: &Call, node: &NodeRow, id: i64) -> Result<Value, ApiError> {
    node.touch(tx, call.now()).await?;
    let s = change::of_node(tx, node.id).await?;
    let c = s.cache_sets.iter().find(|c| c.id == id);
    Ok(c.map_or(Value::Null, |c| json(&s, &node.system_id, c)))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    let all = s.cache_sets.iter().map(|c| json(&s, &node.system_id, c));
    Ok(Answer::json(all.collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    Ok(Answer::json(json(&s, &node.system_id, find(&s, &call)?)))
}

/// The one device of two parameters, of which exactly one is to be given.
///
/// # Errors
/// 400 when both are, or the device is not free.
pub fn one_device(
    s: &Storage,
    call: &Call,
    names: (&str, &str),
    group: Option<i64>,
) -> Result<Option<Device>, ApiError> {
    let found = change::free_devices(s, call.args(), names, group)?;
    if found.len() > 1 {
        return Err(ApiError::field(
            "__all__",
            format!("Give either {} or {}, and one device.", names.0, names.1),
        ));
    }
    Ok(found.first().copied())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "create cache set").await?;
                let now = call.now();
                let Some(d) = one_device(&s, &call, ("cache_device", "cache_partition"), None)?
                else {
                    return Err(ApiError::field(
                        "__all__",
                        "Either cache_device or cache_partition must be specified.",
                    ));
                };
                let d = change::off_boot_disk(tx, &node, &s, vec![d], now).await?;
                let id = insert(tx, node.id, now).await?;
                change::join(tx, &node, &d, MEMBER, Of::CacheSet(id), now).await?;
                shown(tx, &call, &node, id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Adds a cache set without a device.
///
/// # Errors
/// When the database fails.
pub async fn insert(tx: &mut Tx, node: i64, now: metal::Timestamp) -> Result<i64, ApiError> {
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO cache_set (node_id, created, updated) VALUES ($1, $2, $2) RETURNING id",
        node,
        now.0
    )?;
    Ok(id)
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "update cache set").await?;
                let id = find(&s, &call)?.id;
                let now = call.now();
                if let Some(d) = one_device(&s, &call, ("cache_device", "cache_partition"), None)? {
                    if s.groups
                        .iter()
                        .any(|g| g.cache_set_id == Some(id) && s.lies_on(d, g.id))
                    {
                        return Err(ApiError::field(
                            "__all__",
                            "The device lies on what the cache set caches.",
                        ));
                    }
                    let d = change::off_boot_disk(tx, &node, &s, vec![d], now).await?;
                    store::exec!(tx, "DELETE FROM filesystem WHERE cache_set_id = $1", id)?;
                    change::join(tx, &node, &d, MEMBER, Of::CacheSet(id), now).await?;
                }
                shown(tx, &call, &node, id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete cache set").await?;
            let c = find(&s, &call)?;
            if s.groups.iter().any(|g| g.cache_set_id == Some(c.id)) {
                return Err(ApiError::Bad(
                    "Cannot delete the cache set: a bcache device uses it.".to_owned(),
                ));
            }
            store::exec!(tx, "DELETE FROM cache_set WHERE id = $1", c.id)?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}
