//! How the storage of a machine is changed: who may, in which state, and the rows that every noun writes.

use metal::Timestamp;
use metal::layout::{ALIGNMENT, Size};
use metal::status::Status;
use metal::storage::{MAX_PARTITION, SizeError, carve};
use store::Tx;

use super::{BlockDeviceRow, Device, PartitionRow, Storage, signed, unsigned};
use crate::args::Args;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::NodeRow;
use crate::node::row::{self, MACHINE};

/// What clients are told of a value that is none of those there are.
#[must_use]
pub fn no_choice(name: &str, value: &str) -> ApiError {
    let value: String = value.chars().take(64).collect();
    ApiError::field(
        name,
        format!("Select a valid choice. {value} is not one of the available choices."),
    )
}

/// The storage of one node.
///
/// # Errors
/// When the database fails.
pub async fn of_node(tx: &mut Tx, node: i64) -> Result<Storage, ApiError> {
    let mut all = super::load(tx, &format!("[{node}]")).await?;
    Ok(all.remove(&node).unwrap_or_default())
}

/// The node of the path and its storage, to be read.
///
/// # Errors
/// 404 when the caller sees none.
pub async fn read(tx: &mut Tx, call: &Call) -> Result<(NodeRow, Storage), ApiError> {
    let node = row::by_system_id(tx, call.actor(), call.path("system_id")).await?;
    let storage = of_node(tx, node.id).await?;
    Ok((node, storage))
}

/// The machine of the path and its storage, when the caller may do this to it, whatever its state.
///
/// # Errors
/// 403, 404, and 409 when it is locked.
pub async fn machine(
    tx: &mut Tx,
    call: &Call,
    action: Action,
) -> Result<(NodeRow, Storage), ApiError> {
    let (node, storage) = read(tx, call).await?;
    let owner = node.owner_id;
    authorize(call.actor(), action, Resource::Machine { owner })?;
    if node.node_type != MACHINE {
        return Err(ApiError::missing("Machine"));
    }
    if node.locked {
        return Err(ApiError::Conflict(format!(
            "{} is locked; unlock it first.",
            node.hostname
        )));
    }
    Ok((node, storage))
}

/// [`machine`], when its storage may be changed at all.
///
/// # Errors
/// 403, 404, and 409 when it is locked or neither Ready nor Allocated. `what` ends "Cannot …".
pub async fn target(
    tx: &mut Tx,
    call: &Call,
    action: Action,
    what: &str,
) -> Result<(NodeRow, Storage), ApiError> {
    let (node, storage) = machine(tx, call, action).await?;
    if !matches!(node.status()?, Status::Ready | Status::Allocated) {
        return Err(ApiError::Conflict(format!(
            "Cannot {what} because the machine is not Ready or Allocated."
        )));
    }
    Ok((node, storage))
}

/// A disk by id or name.
///
/// # Errors
/// 404 when there is none.
pub fn disk<'a>(storage: &'a Storage, text: &str) -> Result<&'a BlockDeviceRow, ApiError> {
    storage
        .disks
        .iter()
        .find(|d| d.id.to_string() == text)
        .or_else(|| storage.disks.iter().find(|d| d.name == text))
        .ok_or_else(|| ApiError::missing("BlockDevice"))
}

/// A size that was asked for; a share of what a field says it is a share of.
///
/// # Errors
/// 400 for the field.
pub fn size(args: &Args, name: &str, whole: u64) -> Result<Option<u64>, ApiError> {
    let Some(text) = args.filled(name) else {
        return Ok(None);
    };
    let size: Size = text
        .parse()
        .map_err(|e: metal::layout::BadSize| ApiError::field(name, e.to_string()))?;
    Ok(Some(match size {
        Size::Bytes(b) => b,
        Size::Share(_) => size.on(whole),
    }))
}

/// A UUID that was given, in lower case, or a new one.
///
/// # Errors
/// 400 when it is none.
pub fn uuid(args: &Args) -> Result<String, ApiError> {
    Ok(given_uuid(args)?.unwrap_or_else(new_uuid))
}

/// A UUID that was given, in lower case.
///
/// # Errors
/// 400 when it is none.
pub fn given_uuid(args: &Args) -> Result<Option<String>, ApiError> {
    args.filled("uuid")
        .map(|t| {
            uuid::Uuid::try_parse(t.trim())
                .map(|u| u.to_string())
                .map_err(|_| ApiError::field("uuid", "Enter a valid UUID."))
        })
        .transpose()
}

/// A new UUID.
#[must_use]
pub fn new_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Longest name of a device or group, in characters.
const MAX_NAME: usize = 255;

/// A name for a new or renamed device: one that device paths can have.
///
/// # Errors
/// 400 when it is none, or another device of the node has it.
pub fn check_name(storage: &Storage, name: &str, own: Option<i64>) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(ApiError::field(
            "name",
            "A name has letters, digits, dots, underscores, plus signs and hyphens only.",
        ));
    }
    if storage
        .disks
        .iter()
        .any(|d| d.name == name && Some(d.id) != own)
    {
        return Err(ApiError::field(
            "name",
            "Block device with this Node and Name already exists.",
        ));
    }
    Ok(())
}

/// What a refused size becomes.
#[must_use]
pub fn refused(name: &str, e: SizeError) -> ApiError {
    ApiError::field(name, e.to_string())
}

/// Whether a device holds nothing and is part of nothing.
fn is_free(storage: &Storage, device: Device) -> bool {
    storage.filesystem_of(device).is_none()
        && match device {
            Device::Disk(id) => storage.partitions_of(id).next().is_none(),
            Device::Partition(_) => true,
        }
}

/// Devices named by a parameter with disks and one with partitions: free ones, each once, none of which
/// lies on what `group` makes.
///
/// # Errors
/// 400 for a name that is none of those.
pub fn free_devices(
    storage: &Storage,
    args: &Args,
    (disks, partitions): (&str, &str),
    group: Option<i64>,
) -> Result<Vec<Device>, ApiError> {
    let mut out = Vec::new();
    for (name, device) in named(storage, args, (disks, partitions))? {
        let (field, text) = name;
        if !is_free(storage, device)
            || out.contains(&device)
            || group.is_some_and(|g| storage.lies_on(device, g))
        {
            return Err(no_choice(&field, &text));
        }
        out.push(device);
    }
    Ok(out)
}

/// The field and the text that named a device.
type Named = ((String, String), Device);

/// Devices named by a parameter with disks and one with partitions, by id or name.
///
/// # Errors
/// 400 for a name that none has.
pub fn named(
    storage: &Storage,
    args: &Args,
    (disks, partitions): (&str, &str),
) -> Result<Vec<Named>, ApiError> {
    let mut out = Vec::new();
    for text in args.list(disks) {
        let d = disk(storage, &text).map_err(|_| no_choice(disks, &text))?;
        out.push(((disks.to_owned(), text), Device::Disk(d.id)));
    }
    for text in args.list(partitions) {
        let p = storage
            .partitions
            .iter()
            .find(|p| p.id.to_string() == text || partition_name(storage, p) == text)
            .ok_or_else(|| no_choice(partitions, &text))?;
        out.push(((partitions.to_owned(), text), Device::Partition(p.id)));
    }
    Ok(out)
}

/// `sda-part1`.
#[must_use]
pub fn partition_name(storage: &Storage, p: &PartitionRow) -> String {
    let disk = storage.disks.iter().find(|d| d.id == p.block_device_id);
    format!("{}-part{}", disk.map_or("", |d| d.name.as_str()), p.number)
}

/// Adds a partition and gives its disk a table where it has none.
///
/// # Errors
/// 400 for `size` when there is no room.
pub async fn add_partition(
    tx: &mut Tx,
    storage: &Storage,
    disk: &BlockDeviceRow,
    asked: Option<u64>,
    (uuid, bootable): (String, bool),
    now: Timestamp,
) -> Result<i64, ApiError> {
    let left = unsigned(storage.available(disk));
    let size = carve(asked, left).map_err(|e| refused("size", e))?;
    let taken: Vec<i64> = storage.partitions_of(disk.id).map(|p| p.number).collect();
    let number = (1..=MAX_PARTITION)
        .find(|n| !taken.contains(n))
        .ok_or_else(|| {
            ApiError::field(
                "__all__",
                format!("A disk has at most {MAX_PARTITION} partitions."),
            )
        })?;
    store::exec!(
        tx,
        "UPDATE block_device SET partition_table_type = COALESCE(partition_table_type, 'GPT'), updated = $2 WHERE id = $1",
        disk.id,
        now.0
    )?;
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO partition (block_device_id, number, uuid, size, bootable, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $6) RETURNING id",
        disk.id,
        number,
        uuid,
        signed(size),
        bootable,
        now.0
    )?;
    Ok(id)
}

/// What a device becomes a member of.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// A group.
    Group(i64),
    /// A cache set.
    CacheSet(i64),
}

/// Makes devices members of something. The boot disk keeps a partition table: it gets a partition, and that
/// is the member.
///
/// # Errors
/// When the database fails.
pub async fn join(
    tx: &mut Tx,
    node: &NodeRow,
    devices: &[Device],
    fstype: &str,
    of: Of,
    now: Timestamp,
) -> Result<(), ApiError> {
    let (group, set) = match of {
        Of::Group(id) => (Some(id), None),
        Of::CacheSet(id) => (None, Some(id)),
    };
    for device in devices {
        let (disk, partition) = match *device {
            Device::Disk(id) => (Some(id), None),
            Device::Partition(id) => (None, Some(id)),
        };
        store::exec!(
            tx,
            "INSERT INTO filesystem (node_id, block_device_id, partition_id, fstype, uuid, group_id, cache_set_id, created, updated) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
            node.id,
            disk,
            partition,
            fstype,
            new_uuid(),
            group,
            set,
            now.0
        )?;
    }
    Ok(())
}

/// The disk that the machine boots from.
#[must_use]
pub fn boot_disk(node: &NodeRow, storage: &Storage) -> Option<i64> {
    let physical = || storage.disks.iter().filter(|d| d.r#type == "physical");
    node.boot_disk_id
        .filter(|id| physical().any(|d| d.id == *id))
        .or_else(|| physical().next().map(|d| d.id))
}

/// The same devices with a partition over all of it in the place of the boot disk.
///
/// # Errors
/// 400 when it is too small for one.
pub async fn off_boot_disk(
    tx: &mut Tx,
    node: &NodeRow,
    storage: &Storage,
    devices: Vec<Device>,
    now: Timestamp,
) -> Result<Vec<Device>, ApiError> {
    let boot = boot_disk(node, storage);
    let mut out = Vec::with_capacity(devices.len());
    for device in devices {
        let found = match device {
            Device::Disk(id) if Some(id) == boot => storage.disks.iter().find(|d| d.id == id),
            Device::Disk(_) | Device::Partition(_) => None,
        };
        out.push(match found {
            None => device,
            Some(d) => {
                let id = add_partition(tx, storage, d, None, (new_uuid(), false), now).await?;
                Device::Partition(id)
            }
        });
    }
    Ok(out)
}

/// Takes devices out of a group.
///
/// # Errors
/// When the database fails.
pub async fn leave(
    tx: &mut Tx,
    storage: &Storage,
    devices: &[Device],
    group: i64,
) -> Result<(), ApiError> {
    for f in storage
        .filesystems
        .iter()
        .filter(|f| f.group_id == Some(group) && f.device().is_some_and(|d| devices.contains(&d)))
    {
        store::exec!(tx, "DELETE FROM filesystem WHERE id = $1", f.id)?;
    }
    Ok(())
}

/// A group of the node.
///
/// # Errors
/// When the database fails.
pub async fn add_group(
    tx: &mut Tx,
    node: i64,
    (kind, name, uuid): (&str, &str, String),
    cache: Option<(&str, i64)>,
    now: Timestamp,
) -> Result<i64, ApiError> {
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO filesystem_group (node_id, type, name, uuid, cache_mode, cache_set_id, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id",
        node,
        kind,
        name,
        uuid,
        cache.map(|c| c.0),
        cache.map(|c| c.1),
        now.0
    )?;
    Ok(id)
}

/// A virtual device of a group.
///
/// # Errors
/// When the database fails.
pub async fn add_virtual(
    tx: &mut Tx,
    node: i64,
    group: i64,
    (name, size, uuid): (&str, u64, String),
    now: Timestamp,
) -> Result<i64, ApiError> {
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO block_device (node_id, type, name, size, block_size, uuid, group_id, created, updated) \
         VALUES ($1, 'virtual', $2, $3, 512, $4, $5, $6, $6) RETURNING id",
        node,
        name,
        signed(size),
        uuid,
        group,
        now.0
    )?;
    Ok(id)
}

/// Removes a group with its virtual devices and what lies on them; its members are free again.
///
/// # Errors
/// 409 when one of its devices is a member of something else.
pub async fn remove_group(tx: &mut Tx, storage: &Storage, group: i64) -> Result<(), ApiError> {
    for d in storage.virtuals(group) {
        let parts = storage.partitions_of(d.id).map(|p| Device::Partition(p.id));
        for device in std::iter::once(Device::Disk(d.id)).chain(parts) {
            refuse_member(storage, device, "delete")?;
        }
        store::exec!(tx, "DELETE FROM block_device WHERE id = $1", d.id)?;
    }
    store::exec!(tx, "DELETE FROM filesystem WHERE group_id = $1", group)?;
    store::exec!(tx, "DELETE FROM filesystem_group WHERE id = $1", group)?;
    Ok(())
}

/// Refuses what would pull a device out of what it is a member of.
///
/// # Errors
/// 409 when it is a member.
pub fn refuse_member(storage: &Storage, device: Device, what: &str) -> Result<(), ApiError> {
    let Some(f) = storage.filesystem_of(device) else {
        return Ok(());
    };
    let of = match (f.group_id, f.cache_set_id) {
        (Some(g), _) => storage
            .groups
            .iter()
            .find(|r| r.id == g)
            .map(|g| g.name.clone()),
        (None, Some(c)) => Some(storage.cache_set_name(c)),
        (None, None) => None,
    };
    match of {
        None => Ok(()),
        Some(name) => Err(ApiError::Conflict(format!(
            "Cannot {what} the device: it is a part of {name}. Take it out of that first."
        ))),
    }
}

/// Makes a RAID's or datastore's device as large as its members make it now.
///
/// # Errors
/// When the database fails.
pub async fn resize(tx: &mut Tx, device: i64, size: u64, now: Timestamp) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE block_device SET size = $2, updated = $3 WHERE id = $1",
        device,
        signed(size),
        now.0
    )?;
    Ok(())
}

/// Bytes of a partition's place, for sizes that are given in shares.
#[must_use]
pub const fn whole(disk: i64) -> u64 {
    let disk = if disk < 0 { 0 } else { disk.unsigned_abs() };
    disk / ALIGNMENT * ALIGNMENT
}
