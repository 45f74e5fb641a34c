//! `partitions`: parts of disks.

use crate::answer::Answer;
use crate::auth::Action;
use crate::block_device::change::{self, refuse_member, target};
use crate::block_device::ops::retagged;
use crate::block_device::{BlockDeviceRow, Device, PartitionRow, Storage};
use crate::call::Call;
use crate::error::ApiError;
use crate::filesystem;
use crate::operation::{Kind, Method, Operation, Param};

const ALL: Operation = Operation {
    handler: "PartitionsHandler",
    uri: "nodes/{system_id}/blockdevices/{device_id}/partitions/",
    ..Operation::READ
};
const ONE: Operation = Operation {
    handler: "PartitionHandler",
    uri: "nodes/{system_id}/blockdevices/{device_id}/partition/{id}",
    also: &["nodes/{system_id}/blockdevices/{device_id}/partitions/{id}"],
    ..Operation::READ
};
const ACT: Operation = Operation {
    method: Method::Post,
    audit: Some("NODE"),
    ..ONE
};
const TAG: &[Param] = &[Param::must("tag", Kind::Text, "The tag.")];

/// `nodes/{system_id}/blockdevices/{device_id}/partitions/` and below.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the partitions of a disk.",
        run: |c| Box::pin(list(c)),
        ..ALL
    },
    Operation {
        method: Method::Post,
        audit: Some("NODE"),
        title: "Add a partition to a disk.",
        params: &[
            Param::opt(
                "size",
                Kind::Text,
                "Size, for example 10G; all that is left when left out.",
            ),
            Param::opt("uuid", Kind::Text, "Its UUID; a new one when left out."),
            Param::opt(
                "bootable",
                Kind::Bool,
                "Whether the firmware boots from it.",
            ),
        ],
        run: |c| Box::pin(create(c)),
        ..ALL
    },
    Operation {
        title: "Read a partition.",
        run: |c| Box::pin(read(c)),
        ..ONE
    },
    Operation {
        method: Method::Delete,
        title: "Remove a partition.",
        success: 204,
        run: |c| Box::pin(delete(c)),
        ..ACT
    },
    Operation {
        op: Some("add_tag"),
        title: "Put a tag on a partition.",
        params: TAG,
        run: |c| Box::pin(tag(c, true)),
        ..ACT
    },
    Operation {
        op: Some("remove_tag"),
        title: "Take a tag from a partition.",
        params: TAG,
        run: |c| Box::pin(tag(c, false)),
        ..ACT
    },
    Operation {
        op: Some("format"),
        title: "Put a file system on a partition.",
        params: filesystem::FORMAT,
        run: |c| Box::pin(step(c, filesystem::Step::Format)),
        ..ACT
    },
    Operation {
        op: Some("unformat"),
        title: "Remove the file system of a partition.",
        run: |c| Box::pin(step(c, filesystem::Step::Unformat)),
        ..ACT
    },
    Operation {
        op: Some("mount"),
        title: "Mount the file system of a partition.",
        params: filesystem::MOUNT,
        run: |c| Box::pin(step(c, filesystem::Step::Mount)),
        ..ACT
    },
    Operation {
        op: Some("unmount"),
        title: "Do not mount the file system of a partition.",
        run: |c| Box::pin(step(c, filesystem::Step::Unmount)),
        ..ACT
    },
];

/// The disk and the partition of the path; the partition by id or name.
fn find<'a>(
    s: &'a Storage,
    call: &Call,
) -> Result<(&'a BlockDeviceRow, &'a PartitionRow), ApiError> {
    let d = change::disk(s, call.path("device_id"))?;
    let text = call.path("id");
    let p = s
        .partitions_of(d.id)
        .find(|p| p.id.to_string() == text || change::partition_name(s, p) == text)
        .ok_or_else(|| ApiError::missing("Partition"))?;
    Ok((d, p))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    let d = change::disk(&s, call.path("device_id"))?;
    Ok(Answer::json(
        s.partitions_of(d.id)
            .map(|p| s.partition_json(&node.system_id, d, p))
            .collect(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    let (d, p) = find(&s, &call)?;
    Ok(Answer::json(s.partition_json(&node.system_id, d, p)))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "create partition").await?;
                let d = change::disk(&s, call.path("device_id"))?;
                let args = call.args();
                if s.filesystem_of_disk(d.id).is_some() {
                    return Err(ApiError::field(
                        "__all__",
                        "The disk has a file system or is a part of something: it cannot be partitioned.",
                    ));
                }
                let asked = change::size(args, "size", change::whole(d.size))?;
                let new = (change::uuid(args)?, args.bool("bootable")?.unwrap_or(false));
                let id = change::add_partition(tx, &s, d, asked, new, call.now()).await?;
                node.touch(tx, call.now()).await?;
                let s = change::of_node(tx, node.id).await?;
                Ok(s.device_json(&node.system_id, Device::Partition(id)))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete partition").await?;
            let (d, p) = find(&s, &call)?;
            refuse_member(&s, Device::Partition(p.id), "delete")?;
            store::exec!(tx, "DELETE FROM partition WHERE id = $1", p.id)?;
            if s.partitions_of(d.id).count() == 1 {
                // A table without partitions is none.
                store::exec!(
                    tx,
                    "UPDATE block_device SET partition_table_type = NULL WHERE id = $1",
                    d.id
                )?;
            }
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn tag(call: Call, add: bool) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "update partition").await?;
                let (_, p) = find(&s, &call)?;
                store::exec!(
                    tx,
                    "UPDATE partition SET tags = $2, updated = $3 WHERE id = $1",
                    p.id,
                    retagged(&p.tags, call.args().required("tag")?, add),
                    call.now().0
                )?;
                node.touch(tx, call.now()).await?;
                let s = change::of_node(tx, node.id).await?;
                Ok(s.device_json(&node.system_id, Device::Partition(p.id)))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn step(call: Call, step: filesystem::Step) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let what = format!("{} partition", step.word());
                let (node, s) = target(tx, &call, Action::Edit, &what).await?;
                let (_, p) = find(&s, &call)?;
                filesystem::apply(tx, &call, &node, &s, Device::Partition(p.id), step).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}
