//! Storage layouts: what `metal::layout` plans, written to the database.

use metal::Timestamp;
use metal::layout::{self, Layout, LayoutError, MIN_BOOT_DISK, Part, Size, Want};
use metal::status::Status;
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::auth::{Action, Resource, authorize};
use crate::block_device::BlockDeviceRow;
use crate::call::Call;
use crate::error::ApiError;
use crate::hardware;
use crate::node::{NodeRow, View, row};
use crate::operation::{Kind, Method, Operation, Param};
use crate::select_block_device;

const ACT: Operation = Operation {
    handler: "MachineHandler",
    uri: "machines/{system_id}/",
    method: Method::Post,
    audit: Some("NODE"),
    ..Operation::READ
};

/// Parameters of a layout.
const PARAMS: &[Param] = &[
    Param::field(
        "storage_layout",
        Kind::Text,
        "The layout: flat, blank, lvm, bcache, vmfs6, vmfs7 or custom.",
    ),
    Param::opt(
        "boot_size",
        Kind::Text,
        "Size of a partition for /boot; none when left out.",
    ),
    Param::opt(
        "root_size",
        Kind::Text,
        "Size of the root partition; what is left on the disk when left out.",
    ),
    Param::opt(
        "root_device",
        Kind::Text,
        "Disk for the root partition, by id or name; the boot disk when left out.",
    ),
    Param::opt("vg_name", Kind::Text, "lvm: name of the volume group."),
    Param::opt("lv_name", Kind::Text, "lvm: name of the logical volume."),
    Param::opt("lv_size", Kind::Text, "lvm: size of the logical volume."),
    Param::opt("cache_device", Kind::Text, "bcache: the caching disk."),
    Param::opt(
        "cache_mode",
        Kind::Choice(&["writeback", "writethrough", "writearound"]),
        "bcache: how it caches.",
    ),
    Param::opt("cache_size", Kind::Text, "bcache: size of the cache."),
    Param::opt(
        "cache_no_part",
        Kind::Bool,
        "bcache: use the whole caching disk, without a partition.",
    ),
];

/// What is done to the storage and the network of a machine as a whole.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        op: Some("set_storage_layout"),
        title: "Replace the storage configuration of a Ready machine by a layout.",
        params: PARAMS,
        run: |c| Box::pin(set(c)),
        ..ACT
    },
    Operation {
        op: Some("restore_storage_configuration"),
        title: "Go back to the disks that commissioning found, with the default layout.",
        run: |c| Box::pin(restore(c, hardware::Part::Storage)),
        ..ACT
    },
    Operation {
        op: Some("restore_networking_configuration"),
        title: "Go back to the network that commissioning found.",
        run: |c| Box::pin(restore(c, hardware::Part::Network)),
        ..ACT
    },
    Operation {
        op: Some("restore_default_configuration"),
        title: "Go back to the disks and the network that commissioning found.",
        run: |c| Box::pin(restore(c, hardware::Part::Both)),
        ..ACT
    },
];

/// What a layout can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Size of `/boot`; no such partition without one.
    pub boot_size: Option<Size>,
    /// Size of the root; what is left without one.
    pub root_size: Option<Size>,
    /// Disk of the root by id or name; the boot disk without one.
    pub root_device: Option<String>,
}

impl Options {
    /// Reads them from a request, where each name stands behind a prefix (`storage_layout_` in some).
    ///
    /// # Errors
    /// 400 for a size that is none.
    pub fn from_args(args: &Args, prefix: &str) -> Result<Self, ApiError> {
        let size = |name: &str| {
            let name = format!("{prefix}{name}");
            args.filled(&name)
                .map(str::parse::<Size>)
                .transpose()
                .map_err(|e| ApiError::field(&name, e.to_string()))
        };
        // A size of zero is how clients say "none".
        let some = |s: Option<Size>| s.filter(|s| !matches!(s, Size::Bytes(0) | Size::Share(0)));
        Ok(Self {
            boot_size: some(size("boot_size")?),
            root_size: some(size("root_size")?),
            root_device: args
                .filled(&format!("{prefix}root_device"))
                .map(str::to_owned),
        })
    }
}

/// The physical disks of a node, in the order in which it got them.
///
/// # Errors
/// When the database fails.
pub async fn disks(tx: &mut Tx, node: i64) -> Result<Vec<BlockDeviceRow>, ApiError> {
    Ok(store::all!(
        tx,
        BlockDeviceRow,
        select_block_device!("WHERE b.node_id = $1 AND b.type = 'physical' ORDER BY b.id"),
        node
    )?)
}

/// The disk that a node boots from: the one that was chosen, else the first that is large enough.
fn boot_disk(disks: &[BlockDeviceRow], chosen: Option<i64>) -> Option<&BlockDeviceRow> {
    chosen
        .and_then(|id| disks.iter().find(|d| d.id == id))
        .or_else(|| disks.iter().find(|d| bytes(d.size) >= MIN_BOOT_DISK))
        .or_else(|| disks.first())
}

fn bytes(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Removes all that is planned for a node's disks: partitions, file systems, virtual devices.
///
/// # Errors
/// When the database fails.
pub async fn clear(tx: &mut Tx, node: i64) -> Result<(), ApiError> {
    store::exec!(tx, "DELETE FROM filesystem WHERE node_id = $1", node)?;
    store::exec!(
        tx,
        "DELETE FROM partition WHERE block_device_id IN (SELECT b.id FROM block_device b WHERE b.node_id = $1)",
        node
    )?;
    store::exec!(
        tx,
        "DELETE FROM block_device WHERE node_id = $1 AND type = 'virtual'",
        node
    )?;
    store::exec!(
        tx,
        "UPDATE block_device SET partition_table_type = NULL WHERE node_id = $1 AND partition_table_type IS NOT NULL",
        node
    )?;
    Ok(())
}

/// Replaces a node's storage configuration by a layout. Nothing is changed when it does not fit.
///
/// # Errors
/// 400 when it does not fit or there is no disk, 503 for a layout that is not there yet.
pub async fn apply(
    tx: &mut Tx,
    node: &NodeRow,
    layout: Layout,
    options: &Options,
    now: Timestamp,
) -> Result<(), ApiError> {
    match layout {
        Layout::Flat => flat(tx, node, options, now).await,
        Layout::Blank => clear(tx, node.id).await,
        Layout::Lvm | Layout::Bcache | Layout::Vmfs6 | Layout::Vmfs7 | Layout::Custom => {
            let missing = match layout {
                Layout::Lvm => "volume groups",
                Layout::Bcache => "caching disks",
                Layout::Vmfs6 | Layout::Vmfs7 => "the partitions of ESXi",
                _ => "layouts from commissioning scripts",
            };
            Err(ApiError::Unavailable(
                format!("The {layout} layout is not available yet: {missing} cannot be made."),
                3600,
            ))
        }
    }
}

async fn flat(
    tx: &mut Tx,
    node: &NodeRow,
    options: &Options,
    now: Timestamp,
) -> Result<(), ApiError> {
    let disks = disks(tx, node.id).await?;
    // The row at hand may be older than the choice of the disk.
    let (chosen,) = store::one!(
        tx,
        (Option<i64>,),
        "SELECT boot_disk_id FROM node WHERE id = $1",
        node.id
    )?;
    let Some(boot) = boot_disk(&disks, chosen) else {
        return Err(ApiError::Bad(format!(
            "{} has no disk to boot from, so no storage layout can be set.",
            node.hostname
        )));
    };
    let root = match &options.root_device {
        None => boot,
        Some(name) => disks
            .iter()
            .find(|d| d.name == *name || d.id.to_string() == *name)
            .ok_or_else(|| {
                ApiError::field(
                    "root_device",
                    "Select a valid choice. That choice is not one of the available choices.",
                )
            })?,
    };
    let efi = layout::needs_efi(
        node.bios_boot_method.as_deref(),
        node.architecture.as_deref().unwrap_or(""),
    );
    let refuse = |e: LayoutError| {
        let field = match e {
            LayoutError::BootTooSmall => "boot_size",
            LayoutError::RootTooSmall | LayoutError::TooLarge { .. } => "root_size",
            LayoutError::DiskTooSmall { .. } => "__all__",
        };
        ApiError::field(field, e.to_string())
    };
    let plans: Vec<(&BlockDeviceRow, Vec<Part>)> = if root.id == boot.id {
        let wants = layout::flat(efi, options.boot_size, options.root_size);
        vec![(
            boot,
            layout::partitions(bytes(boot.size), &wants).map_err(refuse)?,
        )]
    } else {
        let mut first = Vec::new();
        if efi {
            first.push(Want::Efi);
        }
        first.extend(options.boot_size.map(Want::Boot));
        if first.is_empty() {
            return Err(ApiError::field(
                "boot_size",
                "The boot disk needs a partition for /boot when the root is on another disk.",
            ));
        }
        vec![
            (
                boot,
                layout::partitions(bytes(boot.size), &first).map_err(refuse)?,
            ),
            (
                root,
                layout::partitions(bytes(root.size), &[Want::Root(options.root_size)])
                    .map_err(refuse)?,
            ),
        ]
    };
    clear(tx, node.id).await?;
    for (disk, parts) in plans {
        store::exec!(
            tx,
            "UPDATE block_device SET partition_table_type = 'GPT', updated = $2 WHERE id = $1",
            disk.id,
            now.0
        )?;
        for p in parts {
            add_partition(tx, node.id, disk.id, &p, now).await?;
        }
    }
    // Who installs boots from the first disk unless told otherwise.
    if chosen != Some(boot.id) && disks.first().is_some_and(|d| d.id != boot.id) {
        store::exec!(
            tx,
            "UPDATE node SET boot_disk_id = $2 WHERE id = $1",
            node.id,
            boot.id
        )?;
    }
    Ok(())
}

async fn add_partition(
    tx: &mut Tx,
    node: i64,
    disk: i64,
    p: &Part,
    now: Timestamp,
) -> Result<(), ApiError> {
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO partition (block_device_id, number, uuid, size, bootable, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $6) RETURNING id",
        disk,
        i64::from(p.number),
        uuid::Uuid::new_v4().to_string(),
        i64::try_from(p.size).unwrap_or(i64::MAX),
        p.bootable,
        now.0
    )?;
    store::exec!(
        tx,
        "INSERT INTO filesystem (node_id, partition_id, fstype, label, uuid, mount_point, mount_options, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, '', $7, $7)",
        node,
        id,
        p.fstype,
        p.label,
        uuid::Uuid::new_v4().to_string(),
        p.mount_point,
        now.0
    )?;
    Ok(())
}

/// The machine of the path, when the caller administers it and it is not locked.
async fn target(tx: &mut Tx, call: &Call) -> Result<NodeRow, ApiError> {
    let node = row::machine(tx, call.actor(), call.path("system_id")).await?;
    authorize(
        call.actor(),
        Action::Admin,
        Resource::Machine {
            owner: node.owner_id,
        },
    )?;
    if node.locked {
        return Err(ApiError::Conflict(format!(
            "{} is locked; unlock it first.",
            node.hostname
        )));
    }
    Ok(node)
}

async fn shown(tx: &mut Tx, call: &Call, id: i64) -> Result<Answer, ApiError> {
    let nodes = [row::by_id(tx, id).await?];
    let view = View::load(tx, &nodes, call.now()).await?;
    Ok(Answer::json(view.machine_json(&nodes[0])))
}

async fn set(call: Call) -> Result<Answer, ApiError> {
    let word = call.args().required("storage_layout")?;
    let layout = Layout::from_word(word).ok_or_else(|| {
        ApiError::field(
            "storage_layout",
            format!(
                "'{}' is not a storage layout. It should be one of: {}.",
                word.chars().take(64).collect::<String>(),
                layout::ALL.map(Layout::word).join(", ")
            ),
        )
    })?;
    let options = Options::from_args(call.args(), "")?;
    call.write(move |tx, call| {
        let options = options.clone();
        Box::pin(async move {
            let node = target(tx, &call).await?;
            if node.status()? != Status::Ready {
                return Err(ApiError::Conflict(
                    "Cannot change the storage layout on a machine that is not Ready.".to_owned(),
                ));
            }
            apply(tx, &node, layout, &options, call.now()).await?;
            node.touch(tx, call.now()).await?;
            shown(tx, &call, node.id).await
        })
    })
    .await
}

async fn restore(call: Call, part: hardware::Part) -> Result<Answer, ApiError> {
    call.write(move |tx, call| {
        Box::pin(async move {
            let node = target(tx, &call).await?;
            if part.storage() && !matches!(node.status()?, Status::Ready | Status::FailedTesting) {
                return Err(ApiError::Conflict(
                    "Machine must be in Ready or Failed Testing state to restore the storage configuration.".to_owned(),
                ));
            }
            if part.network() {
                crate::interface::editable(&node, "restore")?;
            }
            hardware::restore(tx, &node, part, call.now()).await?;
            node.touch(tx, call.now()).await?;
            shown(tx, &call, node.id).await
        })
    })
    .await
}
