//! What is held: resources with their newest complete set of files.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::Tx;

use crate::error::ApiError;

/// `rtype` of what came from a boot source.
pub const SYNCED: i64 = 0;
/// `rtype` of what a user has uploaded.
pub const UPLOADED: i64 = 2;
/// File type of a boot loader's file, taken out of an archive.
pub const LOADER: &str = "loader";
/// Operating system of uploads without a name before the slash.
pub const CUSTOM: &str = "custom";

/// What is known about a resource besides its name; empty values are left out of answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// Subarches served, with commas between.
    pub subarches: String,
    /// Platform of the kernel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Platforms that it serves, with commas between.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub supported_platforms: String,
    /// Title for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Flavour of the kernel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kflavor: String,
    /// Kernel options that the image needs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kparams: String,
    /// How the initrd finds its root: a word of [`crate::image::racks::root_method`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root_method: String,
    /// The release as a number, for example `24.04`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Last day of support.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub support_eol: String,
    /// A set that is on its way. Not part of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Whatever else was kept.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Extra {
    /// Reads the column.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The column's text.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// A set of files that is being fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Version.
    pub version: String,
    /// Label.
    pub label: String,
    /// Its files.
    pub files: Vec<PendingFile>,
}

/// A file that is being fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingFile {
    /// File name.
    pub filename: String,
    /// Type.
    pub filetype: String,
    /// SHA-256.
    pub sha256: String,
    /// Bytes.
    pub size: i64,
}

/// A file of a complete set.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct FileRow {
    /// Its set.
    pub set_id: i64,
    /// Name, unique within the set.
    pub filename: String,
    /// `boot-kernel`, `squashfs`, `root-tgz`, [`LOADER`], …
    pub filetype: String,
    /// SHA-256.
    pub sha256: String,
    /// Bytes.
    pub size: i64,
    /// JSON: where it came from.
    pub extra: String,
}

/// A complete set.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SetRow {
    /// Database id.
    pub id: i64,
    /// Its resource.
    pub resource_id: i64,
    /// Version; the newest by string order counts.
    pub version: String,
    /// Label.
    pub label: String,
}

/// A resource as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ResourceRow {
    /// Database id.
    pub id: i64,
    /// [`SYNCED`] or [`UPLOADED`].
    pub rtype: i64,
    /// `os/release`, or the name of an upload.
    pub name: String,
    /// `arch/subarch`.
    pub architecture: String,
    /// Firmware, for boot loaders.
    pub bootloader_type: Option<String>,
    /// System that an upload is derived from.
    pub base_image: String,
    /// [`Extra`] as JSON.
    pub extra: String,
}

/// A resource with its newest complete set.
#[derive(Clone, Debug)]
pub struct Held {
    /// Database id of the resource.
    pub id: i64,
    /// Operating system, or the boot loader's name.
    pub os: String,
    /// Release, or the boot loader's firmware.
    pub release: String,
    /// Architecture.
    pub arch: String,
    /// Subarch: the kernel.
    pub subarch: String,
    /// Subarches that it serves.
    pub subarches: Vec<String>,
    /// Whether it is a boot loader.
    pub is_bootloader: bool,
    /// What else is known.
    pub extra: Extra,
    /// Its newest complete set.
    pub set: SetRow,
    /// The files of that set.
    pub files: Vec<FileRow>,
}

impl Held {
    /// The file of a type.
    #[must_use]
    pub fn file(&self, filetype: &str) -> Option<&FileRow> {
        self.files.iter().find(|f| f.filetype == filetype)
    }

    /// Whether it serves a machine of this architecture; the subarch `generic` is served by all.
    #[must_use]
    pub fn serves(&self, architecture: &str) -> bool {
        let (arch, subarch) = split_architecture(architecture);
        self.arch == arch
            && (subarch == "generic"
                || self.subarch == subarch
                || self.subarches.iter().any(|s| s == subarch))
    }

    /// Whether the release is called so, by name or by number.
    #[must_use]
    pub fn is_release(&self, series: &str) -> bool {
        self.release == series || (!self.extra.version.is_empty() && self.extra.version == series)
    }
}

/// `arch/subarch`, taken apart.
#[must_use]
pub fn split_architecture(architecture: &str) -> (&str, &str) {
    architecture
        .split_once('/')
        .unwrap_or((architecture, "generic"))
}

/// Operating system and release of a resource's name.
#[must_use]
pub fn split_name(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((CUSTOM, name))
}

/// Every resource that has a complete set, boot loaders too.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx) -> Result<Vec<Held>, ApiError> {
    let resources = store::all!(
        tx,
        ResourceRow,
        "SELECT id, rtype, name, architecture, bootloader_type, base_image, extra FROM boot_resource ORDER BY id"
    )?;
    let mut newest: HashMap<i64, SetRow> = HashMap::new();
    for set in sets(tx).await? {
        match newest.entry(set.resource_id) {
            std::collections::hash_map::Entry::Vacant(e) => {
                e.insert(set);
            }
            std::collections::hash_map::Entry::Occupied(mut e) => {
                if e.get().version < set.version {
                    e.insert(set);
                }
            }
        }
    }
    let mut files: HashMap<i64, Vec<FileRow>> = HashMap::new();
    for f in self::files(tx).await? {
        files.entry(f.set_id).or_default().push(f);
    }
    Ok(resources
        .into_iter()
        .filter_map(|r| {
            let set = newest.remove(&r.id)?;
            let files = files.remove(&set.id)?;
            let (os, release) = split_name(&r.name);
            let (arch, subarch) = split_architecture(&r.architecture);
            let extra = Extra::parse(&r.extra);
            Some(Held {
                id: r.id,
                os: os.to_owned(),
                release: release.to_owned(),
                arch: arch.to_owned(),
                subarch: subarch.to_owned(),
                subarches: extra
                    .subarches
                    .split(',')
                    .map(|s| s.trim().to_owned())
                    .collect(),
                is_bootloader: r.bootloader_type.is_some(),
                extra,
                set,
                files,
            })
        })
        .collect())
}

/// Every complete image of a system; no boot loaders.
///
/// # Errors
/// When the database fails.
pub async fn images(tx: &mut Tx) -> Result<Vec<Held>, ApiError> {
    let mut held = all(tx).await?;
    held.retain(|h| !h.is_bootloader);
    Ok(held)
}

/// Every complete set.
///
/// # Errors
/// When the database fails.
pub async fn sets(tx: &mut Tx) -> Result<Vec<SetRow>, ApiError> {
    Ok(store::all!(
        tx,
        SetRow,
        "SELECT id, resource_id, version, label FROM boot_resource_set ORDER BY id"
    )?)
}

/// Whether a complete set has a file with this content.
///
/// # Errors
/// When the database fails.
pub async fn is_held(tx: &mut Tx, sha256: &str) -> Result<bool, ApiError> {
    let sql = "SELECT COUNT(*) FROM boot_resource_file WHERE sha256 = $1";
    let (count,) = store::one!(tx, (i64,), sql, sha256)?;
    Ok(count > 0)
}

/// Every file of every complete set.
///
/// # Errors
/// When the database fails.
pub async fn files(tx: &mut Tx) -> Result<Vec<FileRow>, ApiError> {
    Ok(store::all!(
        tx,
        FileRow,
        "SELECT set_id, filename, filetype, sha256, size, extra FROM boot_resource_file ORDER BY id"
    )?)
}
