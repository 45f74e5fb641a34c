//! The operations of disks and partitions. They are read here; making and formatting them comes later.

use metal::status::Status;
use store::Tx;

use super::{BlockDeviceRow, Storage};
use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::row::{self, MACHINE};
use crate::node::{NodeRow, View};
use crate::operation::{Method, Operation};

const DISK: Operation = Operation {
    handler: "BlockDeviceHandler",
    uri: "nodes/{system_id}/blockdevices/{id}/",
    ..Operation::READ
};

/// `nodes/{system_id}/blockdevices/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "BlockDevicesHandler",
        uri: "nodes/{system_id}/blockdevices/",
        title: "List the disks of a node.",
        run: |c| Box::pin(list(c)),
        ..Operation::READ
    },
    Operation {
        title: "Read a disk.",
        run: |c| Box::pin(read(c)),
        ..DISK
    },
    Operation {
        method: Method::Post,
        op: Some("set_boot_disk"),
        title: "Boot the machine from this disk.",
        audit: Some("NODE"),
        run: |c| Box::pin(set_boot_disk(c)),
        ..DISK
    },
    Operation {
        handler: "PartitionsHandler",
        uri: "nodes/{system_id}/blockdevices/{device_id}/partitions/",
        title: "List the partitions of a disk.",
        run: |c| Box::pin(partitions(c)),
        ..Operation::READ
    },
    Operation {
        handler: "PartitionHandler",
        uri: "nodes/{system_id}/blockdevices/{device_id}/partition/{id}",
        also: &["nodes/{system_id}/blockdevices/{device_id}/partitions/{id}"],
        title: "Read a partition.",
        run: |c| Box::pin(partition(c)),
        ..Operation::READ
    },
];

/// The node of the path and its storage.
async fn storage(tx: &mut Tx, call: &Call) -> Result<(NodeRow, Storage), ApiError> {
    let node = row::by_system_id(tx, call.actor(), call.path("system_id")).await?;
    let view = View::load(tx, std::slice::from_ref(&node), call.now()).await?;
    let storage = view.storage_of(node.id);
    Ok((node, storage))
}

/// A disk by id or name.
fn disk<'a>(storage: &'a Storage, text: &str) -> Result<&'a BlockDeviceRow, ApiError> {
    storage
        .disks
        .iter()
        .find(|d| d.id.to_string() == text)
        .or_else(|| storage.disks.iter().find(|d| d.name == text))
        .ok_or_else(|| ApiError::missing("BlockDevice"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = storage(&mut tx, &call).await?;
    Ok(Answer::json(
        s.disks
            .iter()
            .map(|d| s.disk_json(&node.system_id, d))
            .collect(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = storage(&mut tx, &call).await?;
    let d = disk(&s, call.path("id"))?;
    Ok(Answer::json(s.disk_json(&node.system_id, d)))
}

async fn partitions(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = storage(&mut tx, &call).await?;
    let d = disk(&s, call.path("device_id"))?;
    Ok(Answer::json(
        s.partitions_of(d.id)
            .map(|p| s.partition_json(&node.system_id, d, p))
            .collect(),
    ))
}

async fn partition(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = storage(&mut tx, &call).await?;
    let d = disk(&s, call.path("device_id"))?;
    let text = call.path("id");
    let p = s
        .partitions_of(d.id)
        .find(|p| p.id.to_string() == text || format!("{}-part{}", d.name, p.number) == text)
        .ok_or_else(|| ApiError::missing("Partition"))?;
    Ok(Answer::json(s.partition_json(&node.system_id, d, p)))
}

async fn set_boot_disk(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = storage(tx, &call).await?;
            authorize(
                call.actor(),
                Action::Admin,
                Resource::Machine {
                    owner: node.owner_id,
                },
            )?;
            let d = disk(&s, call.path("id"))?;
            if d.r#type != "physical" {
                return Err(ApiError::Bad(
                    "Only a physical disk can be the boot disk.".to_owned(),
                ));
            }
            if node.locked {
                return Err(ApiError::Conflict(format!(
                    "{} is locked; unlock it first.",
                    node.hostname
                )));
            }
            if node.node_type != MACHINE
                || !matches!(node.status()?, Status::Ready | Status::Allocated)
            {
                return Err(ApiError::Conflict(
                    "Cannot set as boot disk because the machine is not Ready or Allocated."
                        .to_owned(),
                ));
            }
            store::exec!(
                tx,
                "UPDATE node SET boot_disk_id = $2 WHERE id = $1",
                node.id,
                d.id
            )?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::text("OK"))
}
