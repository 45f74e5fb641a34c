//! Storage layouts: what `metal::layout` plans, written to the database.

use std::collections::HashMap;

use metal::Timestamp;
use metal::layout::{self, Layout, MIN_BOOT_DISK, Size};
use metal::status::Status;
use metal::storage::plan::{self, Dev, Disk, Fs, Ground, PlanError, Step};
use metal::storage::{CACHE_MODES, custom};
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::auth::{Action, Resource, authorize};
use crate::block_device::change::{self, Of, no_choice};
use crate::block_device::{BlockDeviceRow, Device, signed, unsigned};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::{NodeRow, View, row};
use crate::operation::{Kind, Method, Operation, Param};
use crate::select_block_device;
use crate::subnet::texts;
use crate::{bcache, bcache_cache_set, hardware, vmfs_datastore, volume_group};

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
        Kind::Choice(&CACHE_MODES),
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

/// What a layout can be told; disks by id or name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Sizes and names.
    pub plan: plan::Options,
    /// Disk of the root; the boot disk without one.
    pub root_device: Option<String>,
    /// Disk that caches.
    pub cache_device: Option<String>,
    /// The custom layout; what the last commissioning asked for without one.
    pub custom: Option<serde_json::Value>,
}

impl Options {
    /// Reads them from a request, where each name stands behind a prefix (`storage_layout_` in some).
    ///
    /// # Errors
    /// 400 for a size that is none.
    pub fn from_args(args: &Args, prefix: &str) -> Result<Self, ApiError> {
        let text = |name: &str| args.filled(&format!("{prefix}{name}")).map(str::to_owned);
        let size = |name: &str| -> Result<Option<Size>, ApiError> {
            let name = format!("{prefix}{name}");
            let size = args
                .filled(&name)
                .map(str::parse::<Size>)
                .transpose()
                .map_err(|e| ApiError::field(&name, e.to_string()))?;
            // A size of zero is how clients say "none".
            Ok(size.filter(|s| !matches!(s, Size::Bytes(0) | Size::Share(0))))
        };
        for (name, own) in [("vg_name", "vgroot"), ("lv_name", "lvroot")] {
            let given = text(name).unwrap_or_else(|| own.to_owned());
            change::check_name(&crate::block_device::Storage::default(), &given, None).map_err(
                |_| ApiError::field(&format!("{prefix}{name}"), "This is no name of a volume."),
            )?;
        }
        Ok(Self {
            plan: plan::Options {
                boot_size: size("boot_size")?,
                root_size: size("root_size")?,
                vg_name: text("vg_name"),
                lv_name: text("lv_name"),
                lv_size: size("lv_size")?,
                cache_mode: text("cache_mode"),
                cache_size: size("cache_size")?,
                cache_no_part: args
                    .bool(&format!("{prefix}cache_no_part"))?
                    .unwrap_or(false),
                ..plan::Options::default()
            },
            root_device: text("root_device"),
            cache_device: text("cache_device"),
            custom: None,
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
        .or_else(|| disks.iter().find(|d| unsigned(d.size) >= MIN_BOOT_DISK))
        .or_else(|| disks.first())
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
    store::exec!(tx, "DELETE FROM filesystem_group WHERE node_id = $1", node)?;
    store::exec!(tx, "DELETE FROM cache_set WHERE node_id = $1", node)?;
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
/// 400 when it does not fit or there is no disk.
pub async fn apply(
    tx: &mut Tx,
    node: &NodeRow,
    layout: Layout,
    options: &Options,
    now: Timestamp,
) -> Result<(), ApiError> {
    if layout == Layout::Blank {
        return clear(tx, node.id).await;
    }
    let rows = disks(tx, node.id).await?;
    // The row at hand may be older than the choice of the disk.
    let (chosen,) = store::one!(
        tx,
        (Option<i64>,),
        "SELECT boot_disk_id FROM node WHERE id = $1",
        node.id
    )?;
    let Some(boot) = boot_disk(&rows, chosen) else {
        return Err(ApiError::Bad(format!(
            "{} has no disk to boot from, so no storage layout can be set.",
            node.hostname
        )));
    };
    let refuse = |e: PlanError| ApiError::field(e.field(), e.to_string());
    let disk = |d: &BlockDeviceRow| Disk {
        id: d.id,
        size: unsigned(d.size),
        ssd: texts(&d.tags).iter().any(|t| t == "ssd"),
    };
    let steps = if layout == Layout::Custom {
        let asked = match &options.custom {
            Some(c) => Some(c.clone()),
            None => hardware::storage_extra(tx, node).await?,
        };
        let extra = asked.ok_or_else(|| {
            ApiError::field(
                "storage_layout",
                "No commissioning script of this machine has asked for a custom layout.",
            )
        })?;
        let named: HashMap<String, Disk> = rows.iter().map(|d| (d.name.clone(), disk(d))).collect();
        custom::steps(&extra, &named).map_err(refuse)?
    } else {
        let find = |field: &str, name: &Option<String>| match name {
            None => Ok(None),
            Some(n) => rows
                .iter()
                .find(|d| d.name == *n || d.id.to_string() == *n)
                .map(|d| Some(d.id))
                .ok_or_else(|| no_choice(field, n)),
        };
        let told = plan::Options {
            root_device: find("root_device", &options.root_device)?,
            cache_device: find("cache_device", &options.cache_device)?,
            ..options.plan.clone()
        };
        let all: Vec<Disk> = rows.iter().map(disk).collect();
        let ground = Ground {
            disks: &all,
            boot: &disk(boot),
            efi: layout::needs_efi(
                node.bios_boot_method.as_deref(),
                node.architecture.as_deref().unwrap_or(""),
            ),
        };
        plan::steps(layout, &ground, &told).map_err(refuse)?
    };
    clear(tx, node.id).await?;
    carry_out(tx, node, &steps, now).await?;
    // Who installs boots from the first disk unless told otherwise.
    if chosen != Some(boot.id) && rows.first().is_some_and(|d| d.id != boot.id) {
        store::exec!(
            tx,
            "UPDATE node SET boot_disk_id = $2 WHERE id = $1",
            node.id,
            boot.id
        )?;
    }
    Ok(())
}

/// What a step has made.
#[derive(Clone, Copy)]
enum Made {
    Device(Device),
    Group(i64),
    CacheSet(i64),
    Nothing,
}

/// What the steps before have made.
struct Site(Vec<Made>);

impl Site {
    fn device(&self, dev: Dev) -> Result<Device, ApiError> {
        match dev {
            Dev::Disk(id) => Ok(Device::Disk(id)),
            Dev::Made(n) => match self.0.get(n) {
                Some(Made::Device(d)) => Ok(*d),
                _ => Err(ApiError::bug("a layout uses what is no device")),
            },
        }
    }

    fn devices(&self, devs: &[Dev]) -> Result<Vec<Device>, ApiError> {
        devs.iter().map(|d| self.device(*d)).collect()
    }
}

/// Writes the steps of a plan.
async fn carry_out(
    tx: &mut Tx,
    node: &NodeRow,
    steps: &[Step],
    now: Timestamp,
) -> Result<(), ApiError> {
    let mut site = Site(Vec::with_capacity(steps.len()));
    // Names of the groups by step: volumes have them before their own.
    let mut groups: HashMap<usize, &str> = HashMap::new();
    for (n, step) in steps.iter().enumerate() {
        let made = match step {
            Step::Table { disk, kind } => {
                if let Device::Disk(id) = site.device(*disk)? {
                    store::exec!(
                        tx,
                        "UPDATE block_device SET partition_table_type = $2, updated = $3 WHERE id = $1",
                        id,
                        *kind,
                        now.0
                    )?;
                }
                Made::Nothing
            }
            Step::Partition {
                disk,
                number,
                size,
                bootable,
            } => {
                let Device::Disk(disk) = site.device(*disk)? else {
                    return Err(ApiError::bug("a layout partitions a partition"));
                };
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO partition (block_device_id, number, uuid, size, bootable, created, updated) \
                     VALUES ($1, $2, $3, $4, $5, $6, $6) RETURNING id",
                    disk,
                    i64::from(*number),
                    change::new_uuid(),
                    signed(*size),
                    *bootable,
                    now.0
                )?;
                Made::Device(Device::Partition(id))
            }
            Step::Format { on, fs } => {
                let device = site.device(*on)?;
                format(tx, node.id, Some(device), fs, now).await?;
                Made::Nothing
            }
            Step::Special { fs } => {
                format(tx, node.id, None, fs, now).await?;
                Made::Nothing
            }
            Step::VolumeGroup { name, members } => {
                let members = site.devices(members)?;
                let what = (volume_group::TYPE, name.as_str(), change::new_uuid());
                let id = change::add_group(tx, node.id, what, None, now).await?;
                let of = Of::Group(id);
                change::join(tx, node, &members, volume_group::MEMBER, of, now).await?;
                groups.insert(n, name);
                Made::Group(id)
            }
            Step::Volume { group, name, size } => {
                let Some(Made::Group(id)) = site.0.get(*group).copied() else {
                    return Err(ApiError::bug("a layout has a volume in no group"));
                };
                let full = format!("{}-{name}", groups.get(group).copied().unwrap_or(""));
                let what = (full.as_str(), *size, change::new_uuid());
                let device = change::add_virtual(tx, node.id, id, what, now).await?;
                Made::Device(Device::Disk(device))
            }
            Step::CacheSet { on } => {
                let device = site.device(*on)?;
                let id = bcache_cache_set::insert(tx, node.id, now).await?;
                let of = Of::CacheSet(id);
                change::join(tx, node, &[device], bcache_cache_set::MEMBER, of, now).await?;
                Made::CacheSet(id)
            }
            Step::Bcache {
                name,
                backing,
                set,
                mode,
            } => {
                let Some(Made::CacheSet(set)) = site.0.get(*set).copied() else {
                    return Err(ApiError::bug("a layout caches with no cache set"));
                };
                let backing = [site.device(*backing)?];
                let made = bcache::insert(
                    tx,
                    node,
                    (name, change::new_uuid()),
                    (mode, set),
                    &backing,
                    now,
                );
                Made::Device(Device::Disk(made.await?.1))
            }
            Step::Raid {
                name,
                level,
                members,
                spares,
            } => {
                let (members, spares) = (site.devices(members)?, site.devices(spares)?);
                let made = crate::raid::insert(
                    tx,
                    node,
                    (name, change::new_uuid()),
                    *level,
                    (&members, &spares),
                    now,
                );
                Made::Device(Device::Disk(made.await?.1))
            }
            Step::Datastore { name, members } => {
                let members = site.devices(members)?;
                let what = (name.as_str(), change::new_uuid());
                Made::Group(vmfs_datastore::insert(tx, node, what, &members, now).await?)
            }
        };
        site.0.push(made);
    }
    Ok(())
}

async fn format(
    tx: &mut Tx,
    node: i64,
    on: Option<Device>,
    fs: &Fs,
    now: Timestamp,
) -> Result<(), ApiError> {
    let (disk, partition) = match on {
        Some(Device::Disk(id)) => (Some(id), None),
        Some(Device::Partition(id)) => (None, Some(id)),
        None => (None, None),
    };
    store::exec!(
        tx,
        "INSERT INTO filesystem (node_id, block_device_id, partition_id, fstype, label, uuid, mount_point, mount_options, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
        node,
        disk,
        partition,
        fs.fstype.as_str(),
        fs.label.as_str(),
        change::new_uuid(),
        fs.mount_point.as_deref(),
        fs.mount_options.as_str(),
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
