//! File systems: made and mounted on disks and partitions, and those without a device.

use metal::storage::{FORMATS, MAX_PATH, SPECIAL, is_mount_point};
use serde_json::Value;
use store::Tx;

use crate::answer::Answer;
use crate::auth::Action;
use crate::block_device::change::{self, refuse_member, target};
use crate::block_device::{Device, Storage};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::{NodeRow, View, row};
use crate::operation::{Kind, Method, Operation, Param};

/// Parameters of `format`.
pub const FORMAT: &[Param] = &[
    Param::field("fstype", Kind::Choice(&FORMATS), "The file system."),
    Param::opt("uuid", Kind::Text, "Its UUID; a new one when left out."),
    Param::opt("label", Kind::Text, "Its label."),
];
/// Parameters of `mount`.
pub const MOUNT: &[Param] = &[
    Param::opt("mount_point", Kind::Text, "Absolute path; swap has none."),
    Param::opt(
        "mount_options",
        Kind::Text,
        "Mount options, with commas between.",
    ),
];

const ACT: Operation = Operation {
    handler: "MachineHandler",
    uri: "machines/{system_id}/",
    method: Method::Post,
    audit: Some("NODE"),
    ..Operation::READ
};

/// File systems without a device.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        op: Some("mount_special"),
        title: "Mount a file system that lies in memory.",
        params: &[
            Param::field("fstype", Kind::Choice(&SPECIAL), "tmpfs or ramfs."),
            Param::field("mount_point", Kind::Text, "Absolute path."),
            Param::opt(
                "mount_options",
                Kind::Text,
                "Mount options, with commas between.",
            ),
            Param::opt(
                "mount_option",
                Kind::Text,
                "Another spelling of mount_options.",
            ),
        ],
        run: |c| Box::pin(mount_special(c)),
        ..ACT
    },
    Operation {
        op: Some("unmount_special"),
        title: "Do not mount a file system that lies in memory.",
        params: &[Param::field(
            "mount_point",
            Kind::Text,
            "Where it is mounted.",
        )],
        run: |c| Box::pin(unmount_special(c)),
        ..ACT
    },
];

/// What is done to the file system of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is made.
    Format,
    /// It goes.
    Unformat,
    /// It is mounted.
    Mount,
    /// It is not mounted any more.
    Unmount,
}

impl Step {
    /// The word of the operation.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Unformat => "unformat",
            Self::Mount => "mount",
            Self::Unmount => "unmount",
        }
    }
}

/// A mount point that nothing else of the node has.
fn mount_point(s: &Storage, text: &str, own: Option<i64>) -> Result<(), ApiError> {
    if text.len() > MAX_PATH {
        return Err(ApiError::field(
            "mount_point",
            format!(
                "Ensure this value has at most {MAX_PATH} characters (it has {}).",
                text.chars().count()
            ),
        ));
    }
    if !is_mount_point(text) {
        return Err(ApiError::field("mount_point", "Enter an absolute path."));
    }
    let taken = |f: &&crate::block_device::FilesystemRow| {
        f.mount_point.as_deref() == Some(text) && Some(f.id) != own
    };
    if s.filesystems.iter().any(|f| taken(&f)) {
        return Err(ApiError::field(
            "mount_point",
            "Another file system is mounted there already.",
        ));
    }
    Ok(())
}

/// Does a step on a device and gives the device as it is then.
///
/// # Errors
/// 400 for what the form refuses, 409 for a device that is a member of something.
pub async fn apply(
    tx: &mut Tx,
    call: &Call,
    node: &NodeRow,
    s: &Storage,
    device: Device,
    step: Step,
) -> Result<Value, ApiError> {
    refuse_member(s, device, step.word())?;
    let args = call.args();
    let now = call.now().0;
    let has = s.filesystem_of(device);
    let present =
        || has.ok_or_else(|| ApiError::Bad("It has no file system: format it first.".to_owned()));
    match step {
        Step::Format => {
            if has.is_some_and(|f| f.mount_point.as_deref().is_some_and(|m| !m.is_empty())) {
                return Err(ApiError::field(
                    "__all__",
                    "Its file system is mounted: unmount it first.",
                ));
            }
            if let Some(old) = has {
                store::exec!(tx, "DELETE FROM filesystem WHERE id = $1", old.id)?;
            }
            let (disk, partition) = match device {
                Device::Disk(id) => (Some(id), None),
                Device::Partition(id) => (None, Some(id)),
            };
            store::exec!(
                tx,
                "INSERT INTO filesystem (node_id, block_device_id, partition_id, fstype, label, uuid, created, updated) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
                node.id,
                disk,
                partition,
                args.required("fstype")?,
                args.text("label").unwrap_or(""),
                change::uuid(args)?,
                now
            )?;
        }
        Step::Unformat => {
            let f = present()?;
            if f.mount_point.as_deref().is_some_and(|m| !m.is_empty()) {
                return Err(ApiError::Bad(
                    "Its file system is mounted: unmount it first.".to_owned(),
                ));
            }
            store::exec!(tx, "DELETE FROM filesystem WHERE id = $1", f.id)?;
        }
        Step::Mount => {
            let f = present()?;
            // Swap is used, not mounted: clients know its place by this word.
            let at = if f.fstype == "swap" {
                "none"
            } else {
                let at = args.required("mount_point")?;
                mount_point(s, at, Some(f.id))?;
                at
            };
            store::exec!(
                tx,
                "UPDATE filesystem SET mount_point = $2, mount_options = $3, updated = $4 WHERE id = $1",
                f.id,
                at,
                args.text("mount_options").unwrap_or(""),
                now
            )?;
        }
        Step::Unmount => {
            let f = present()?;
            if f.mount_point.as_deref().is_none_or(str::is_empty) {
                return Err(ApiError::Bad("Its file system is not mounted.".to_owned()));
            }
            store::exec!(
                tx,
                "UPDATE filesystem SET mount_point = NULL, mount_options = NULL, updated = $2 WHERE id = $1",
                f.id,
                now
            )?;
        }
    }
    node.touch(tx, call.now()).await?;
    let s = change::of_node(tx, node.id).await?;
    Ok(s.device_json(&node.system_id, device))
}

async fn shown(tx: &mut Tx, call: &Call, node: &NodeRow) -> Result<Answer, ApiError> {
    node.touch(tx, call.now()).await?;
    let nodes = [row::by_id(tx, node.id).await?];
    let view = View::load(tx, &nodes, call.now()).await?;
    Ok(Answer::json(view.machine_json(&nodes[0])))
}

async fn mount_special(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Edit, "mount the filesystem").await?;
            let args = call.args();
            let at = args.required("mount_point")?;
            mount_point(&s, at, None)?;
            let options = args.text("mount_options").or_else(|| args.text("mount_option"));
            store::exec!(
                tx,
                "INSERT INTO filesystem (node_id, fstype, uuid, mount_point, mount_options, created, updated) \
                 VALUES ($1, $2, $3, $4, $5, $6, $6)",
                node.id,
                args.required("fstype")?,
                change::new_uuid(),
                at,
                options.unwrap_or(""),
                call.now().0
            )?;
            shown(tx, &call, &node).await
        })
    })
    .await
}

async fn unmount_special(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, s) = target(tx, &call, Action::Edit, "unmount the filesystem").await?;
            let at = call.args().required("mount_point")?;
            let found = s
                .filesystems
                .iter()
                .find(|f| f.is_special() && f.mount_point.as_deref() == Some(at))
                .ok_or_else(|| {
                    ApiError::field("mount_point", "No special filesystem is mounted there.")
                })?;
            store::exec!(tx, "DELETE FROM filesystem WHERE id = $1", found.id)?;
            shown(tx, &call, &node).await
        })
    })
    .await
}
