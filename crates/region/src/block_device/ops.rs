//! The operations of disks.

use metal::status::Status;
use metal::storage::{MIN_BLOCK, MIN_DISK, down};

use super::change::{self, refuse_member, target};
use super::{BlockDeviceRow, Device, signed, unsigned};
use crate::answer::Answer;
use crate::auth::Action;
use crate::call::Call;
use crate::error::ApiError;
use crate::filesystem;
use crate::operation::{Kind, Method, Operation, Param};
use crate::subnet::texts;

const DISK: Operation = Operation {
    handler: "BlockDeviceHandler",
    uri: "nodes/{system_id}/blockdevices/{id}/",
    ..Operation::READ
};
const ACT: Operation = Operation {
    method: Method::Post,
    audit: Some("NODE"),
    ..DISK
};

const CREATE: &[Param] = &[
    Param::field("name", Kind::Text, "Name, for example sda."),
    Param::opt(
        "model",
        Kind::Text,
        "Model; together with the serial number it finds the disk.",
    ),
    Param::opt("serial", Kind::Text, "Serial number."),
    Param::opt(
        "id_path",
        Kind::Text,
        "A path that always means this disk, where there is no model and serial number.",
    ),
    Param::field("size", Kind::Text, "Size, for example 10G."),
    Param::field("block_size", Kind::Text, "Size of a block in bytes."),
    Param::opt("numa_node", Kind::Int, "NUMA node that it is attached to."),
];
const UPDATE: &[Param] = &[
    Param::opt("name", Kind::Text, "New name."),
    Param::opt("model", Kind::Text, "New model; physical disks."),
    Param::opt("serial", Kind::Text, "New serial number; physical disks."),
    Param::opt("id_path", Kind::Text, "New path; physical disks."),
    Param::opt("size", Kind::Text, "New size."),
    Param::opt(
        "block_size",
        Kind::Text,
        "New size of a block; physical disks.",
    ),
    Param::opt("numa_node", Kind::Int, "NUMA node; physical disks."),
    Param::opt(
        "partition_table_type",
        Kind::Choice(&["MBR", "GPT"]),
        "Kind of its partition table.",
    ),
    Param::opt("uuid", Kind::Text, "New UUID; virtual devices."),
];
const TAG: &[Param] = &[Param::must("tag", Kind::Text, "The tag.")];

/// `nodes/{system_id}/blockdevices/` and what is done to one of them.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "BlockDevicesHandler",
        uri: "nodes/{system_id}/blockdevices/",
        title: "List the disks of a node.",
        run: |c| Box::pin(list(c)),
        ..Operation::READ
    },
    Operation {
        handler: "BlockDevicesHandler",
        uri: "nodes/{system_id}/blockdevices/",
        title: "Add a physical disk to a machine.",
        params: CREATE,
        run: |c| Box::pin(create(c)),
        ..ACT
    },
    Operation {
        title: "Read a disk.",
        run: |c| Box::pin(read(c)),
        ..DISK
    },
    Operation {
        method: Method::Put,
        title: "Change a disk.",
        params: UPDATE,
        run: |c| Box::pin(update(c)),
        ..ACT
    },
    Operation {
        method: Method::Delete,
        title: "Remove a disk.",
        success: 204,
        run: |c| Box::pin(delete(c)),
        ..ACT
    },
    Operation {
        op: Some("add_tag"),
        title: "Put a tag on a disk.",
        params: TAG,
        run: |c| Box::pin(tag(c, true)),
        ..ACT
    },
    Operation {
        op: Some("remove_tag"),
        title: "Take a tag from a disk.",
        params: TAG,
        run: |c| Box::pin(tag(c, false)),
        ..ACT
    },
    Operation {
        op: Some("format"),
        title: "Put a file system on a disk.",
        params: filesystem::FORMAT,
        run: |c| Box::pin(filesystem(c, filesystem::Step::Format)),
        ..ACT
    },
    Operation {
        op: Some("unformat"),
        title: "Remove the file system of a disk.",
        run: |c| Box::pin(filesystem(c, filesystem::Step::Unformat)),
        ..ACT
    },
    Operation {
        op: Some("mount"),
        title: "Mount the file system of a disk.",
        params: filesystem::MOUNT,
        run: |c| Box::pin(filesystem(c, filesystem::Step::Mount)),
        ..ACT
    },
    Operation {
        op: Some("unmount"),
        title: "Do not mount the file system of a disk.",
        run: |c| Box::pin(filesystem(c, filesystem::Step::Unmount)),
        ..ACT
    },
    Operation {
        op: Some("set_boot_disk"),
        title: "Boot the machine from this disk.",
        run: |c| Box::pin(set_boot_disk(c)),
        ..ACT
    },
];

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    Ok(Answer::json(
        s.disks
            .iter()
            .map(|d| s.disk_json(&node.system_id, d))
            .collect(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (node, s) = change::read(&mut tx, &call).await?;
    let d = change::disk(&s, call.path("id"))?;
    Ok(Answer::json(s.disk_json(&node.system_id, d)))
}

/// A size and a block size that a disk can have.
fn sizes(call: &Call, old: Option<&BlockDeviceRow>) -> Result<(u64, u64), ApiError> {
    let args = call.args();
    let had = |f: fn(&BlockDeviceRow) -> i64| old.map_or(0, |d| unsigned(f(d)));
    let block = change::size(args, "block_size", 0)?.unwrap_or_else(|| had(|d| d.block_size));
    let size = change::size(args, "size", had(|d| d.size))?.unwrap_or_else(|| had(|d| d.size));
    for (name, value, least) in [("block_size", block, MIN_BLOCK), ("size", size, MIN_DISK)] {
        if value < least {
            return Err(ApiError::field(
                name,
                format!("Ensure this value is greater than or equal to {least}."),
            ));
        }
        if i64::try_from(value).is_err() {
            return Err(ApiError::field(name, "This is more than a disk can have."));
        }
    }
    Ok((down(size, block), block))
}

fn id_path(call: &Call) -> Result<Option<&str>, ApiError> {
    match call.args().filled("id_path") {
        Some(p) if !metal::storage::is_mount_point(p) => {
            Err(ApiError::field("id_path", "Enter an absolute path."))
        }
        other => Ok(other),
    }
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                // Also before a commissioning: a machine may be described by hand.
                let (node, s) = change::machine(tx, &call, Action::Admin).await?;
                let args = call.args();
                let name = args.required("name")?;
                change::check_name(&s, name, None)?;
                let (size, block) = sizes(&call, None)?;
                let (model, serial) = (args.filled("model"), args.filled("serial"));
                let path = id_path(&call)?;
                if path.is_none() && (model.is_none() || serial.is_none()) {
                    return Err(ApiError::field(
                        "id_path",
                        "serial/model are required if id_path is not provided.",
                    ));
                }
                let numa = args.int("numa_node")?.unwrap_or(0);
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO block_device (node_id, type, name, id_path, size, block_size, model, serial, tags, numa_index, created, updated) \
                     VALUES ($1, 'physical', $2, $3, $4, $5, $6, $7, '[]', $8, $9, $9) RETURNING id",
                    node.id,
                    name,
                    path.unwrap_or(""),
                    signed(size),
                    signed(block),
                    model.unwrap_or(""),
                    serial.unwrap_or(""),
                    numa,
                    call.now().0
                )?;
                node.touch(tx, call.now()).await?;
                let s = change::of_node(tx, node.id).await?;
                Ok(s.device_json(&node.system_id, Device::Disk(id)))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, s) = change::machine(tx, &call, Action::Admin).await?;
                let deployed = match node.status()? {
                    Status::Ready | Status::Allocated => false,
                    Status::Deployed => true,
                    _ => {
                        return Err(ApiError::Conflict(
                            "Cannot update block device because the machine is not Ready, Allocated, or Deployed.".to_owned(),
                        ));
                    }
                };
                let d = change::disk(&s, call.path("id"))?;
                let args = call.args();
                let physical = d.r#type == "physical";
                let name = args.filled("name").unwrap_or(&d.name);
                change::check_name(&s, name, Some(d.id))?;
                // Of a deployed machine only what names the disk.
                let (mut size, mut block) = (unsigned(d.size), unsigned(d.block_size));
                let mut table = d.partition_table_type.clone();
                if !deployed {
                    let (new_size, new_block) = sizes(&call, Some(d))?;
                    if physical {
                        block = new_block;
                    }
                    if new_size != size {
                        let device = Device::Disk(d.id);
                        let used = s.partitions_of(d.id).next().is_some() || s.filesystem_of(device).is_some();
                        if used && new_size < size {
                            return Err(ApiError::field("size", "The disk is in use: it cannot become smaller."));
                        }
                        size = resized(&s, d, new_size)?;
                    }
                    if let Some(t) = args.filled("partition_table_type") {
                        table = Some(t.to_owned());
                    }
                }
                let text = |name: &str, had: &Option<String>| {
                    if physical && args.has(name) {
                        Some(args.text(name).unwrap_or("").to_owned())
                    } else {
                        had.clone()
                    }
                };
                let path = id_path(&call)?;
                let path = if physical && args.has("id_path") { Some(path.unwrap_or("").to_owned()) } else { d.id_path.clone() };
                let numa = if physical { args.int("numa_node")?.or(d.numa_index) } else { d.numa_index };
                let uuid = if physical { d.uuid.clone() } else { change::given_uuid(args)?.or_else(|| d.uuid.clone()) };
                store::exec!(
                    tx,
                    "UPDATE block_device SET name = $2, model = $3, serial = $4, id_path = $5, size = $6, block_size = $7, \
                     partition_table_type = $8, numa_index = $9, uuid = $10, updated = $11 WHERE id = $1",
                    d.id,
                    name,
                    text("model", &d.model),
                    text("serial", &d.serial),
                    path,
                    signed(size),
                    signed(block),
                    table,
                    numa,
                    uuid,
                    call.now().0
                )?;
                node.touch(tx, call.now()).await?;
                let s = change::of_node(tx, node.id).await?;
                Ok(s.device_json(&node.system_id, Device::Disk(d.id)))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// The new size of a device: what a logical volume has must be left in its group, and what a RAID or bcache
/// device has follows from its members.
fn resized(s: &super::Storage, d: &BlockDeviceRow, size: u64) -> Result<u64, ApiError> {
    let Some(group) = d
        .group_id
        .and_then(|id| s.groups.iter().find(|g| g.id == id))
    else {
        return Ok(size);
    };
    if group.r#type != "lvm-vg" {
        return Err(ApiError::field(
            "size",
            format!("The size of {} follows from its devices.", d.name),
        ));
    }
    let left = crate::volume_group::left(s, group) + unsigned(d.size);
    metal::storage::carve(Some(size), left).map_err(|e| change::refused("size", e))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Admin, "delete block device").await?;
            let d = change::disk(&s, call.path("id"))?;
            let parts = s.partitions_of(d.id).map(|p| Device::Partition(p.id));
            for device in std::iter::once(Device::Disk(d.id)).chain(parts) {
                refuse_member(&s, device, "delete")?;
            }
            if let Some(g) = d
                .group_id
                .and_then(|id| s.groups.iter().find(|g| g.id == id))
                && g.r#type != "lvm-vg"
            {
                return Err(ApiError::Conflict(format!(
                    "Cannot delete the device: it is what {} makes. Delete that instead.",
                    g.name
                )));
            }
            store::exec!(tx, "DELETE FROM block_device WHERE id = $1", d.id)?;
            store::exec!(
                tx,
                "UPDATE node SET boot_disk_id = NULL WHERE id = $1 AND boot_disk_id = $2",
                node.id,
                d.id
            )?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

/// Tags with one more or one less, as JSON.
pub(crate) fn retagged(tags: &str, tag: &str, add: bool) -> String {
    let mut all = texts(tags);
    all.retain(|t| t != tag);
    if add {
        all.push(tag.to_owned());
    }
    serde_json::to_string(&all).unwrap_or_default()
}

async fn tag(call: Call, add: bool) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let (node, s) = target(tx, &call, Action::Admin, "update block device").await?;
                let d = change::disk(&s, call.path("id"))?;
                store::exec!(
                    tx,
                    "UPDATE block_device SET tags = $2, updated = $3 WHERE id = $1",
                    d.id,
                    retagged(&d.tags, call.args().required("tag")?, add),
                    call.now().0
                )?;
                node.touch(tx, call.now()).await?;
                let s = change::of_node(tx, node.id).await?;
                Ok(s.device_json(&node.system_id, Device::Disk(d.id)))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn filesystem(call: Call, step: filesystem::Step) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let what = format!("{} block device", step.word());
                let (node, s) = target(tx, &call, Action::Edit, &what).await?;
                let d = change::disk(&s, call.path("id"))?;
                if matches!(step, filesystem::Step::Format)
                    && s.partitions_of(d.id).next().is_some()
                {
                    return Err(ApiError::field(
                        "__all__",
                        "Cannot format a block device that has partitions.",
                    ));
                }
                filesystem::apply(tx, &call, &node, &s, Device::Disk(d.id), step).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn set_boot_disk(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            // A disk of another machine is none of this one's, whatever state this one is in.
            let known = store::opt!(
                tx,
                (i64,),
                "SELECT b.id FROM block_device b JOIN node n ON n.id = b.node_id \
                 WHERE n.system_id = $1 AND (b.name = $2 OR CAST(b.id AS TEXT) = $2)",
                call.path("system_id"),
                call.path("id")
            )?;
            if known.is_none() {
                return Err(ApiError::missing("BlockDevice"));
            }
            let (node, s) = target(tx, &call, Action::Admin, "set as boot disk").await?;
            let d = change::disk(&s, call.path("id"))?;
            if d.r#type != "physical" {
                return Err(ApiError::Bad(
                    "Only a physical disk can be the boot disk.".to_owned(),
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
