//! What a product is, told by its shape, and the flattened list kept per source.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{DocumentError, ITEMS_MAX, ProductsDocument, VERSIONS_MAX, size, text};
use crate::path::{PathError, StreamPath};

/// Longest value of a product's or item's key, in bytes; `subarches` of the oldest kernels is the
/// longest in practice and stays below 500.
const VALUE_MAX: usize = 4096;

/// A SHA-256, as 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Sha256Hex(String);

impl Sha256Hex {
    /// Checks and lower-cases.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| Self(text.to_ascii_lowercase()))
    }

    /// From the hash itself.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(hex::encode(digest))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a product is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProductKind {
    /// Kernel, initrd and root file system: boots over the network. Ubuntu, and our Debian.
    MultiFile,
    /// A root file system in one file, to be installed only.
    SingleFile,
    /// A boot loader for one firmware.
    Bootloader,
}

/// Firmware that a boot loader is for; the value of `bootloader-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BootloaderType {
    /// `pxe`: BIOS.
    Pxe,
    /// `uefi`
    Uefi,
    /// `open-firmware`: ppc64el.
    OpenFirmware,
}

impl BootloaderType {
    /// The value on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pxe => "pxe",
            Self::Uefi => "uefi",
            Self::OpenFirmware => "open-firmware",
        }
    }

    fn from_wire(text: &str) -> Option<Self> {
        [Self::Pxe, Self::Uefi, Self::OpenFirmware]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// The boot loaders taken from a stream: name, firmware, architecture. Others have no boot method
/// that would hand them out.
pub const BOOTLOADERS: [(&str, BootloaderType, &str); 4] = [
    ("pxelinux", BootloaderType::Pxe, "i386"),
    ("grub-efi-signed", BootloaderType::Uefi, "amd64"),
    ("grub-efi", BootloaderType::Uefi, "arm64"),
    ("grub-ieee1275", BootloaderType::OpenFirmware, "ppc64el"),
];

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its key in the document.
    pub name: String,
    /// `boot-kernel`, `boot-initrd`, `squashfs`, `root-tgz`, `archive.tar.xz`, ...
    pub ftype: String,
    /// Where it is.
    pub path: StreamPath,
    /// SHA-256 of the file.
    pub sha256: Sha256Hex,
    /// Bytes.
    pub size: u64,
    /// Kernel package that matches this kernel.
    pub kpackage: Option<String>,
    /// Kernel parameters that this image needs.
    pub kparams: Option<String>,
    /// Source package of a boot loader.
    pub src_package: Option<String>,
    /// Its version.
    pub src_version: Option<String>,
    /// Release that it was taken from.
    pub src_release: Option<String>,
}

/// A complete version of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductVersion {
    /// `YYYYMMDD` or `YYYYMMDD.N`.
    pub name: String,
    /// Its files, in the order of the document.
    pub items: Vec<Item>,
}

/// A product that can be had from a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedProduct {
    /// Name in the document.
    pub product: String,
    /// What it is.
    pub kind: ProductKind,
    /// Operating system, or the boot loader's name.
    pub os: String,
    /// Architecture, in Debian's words.
    pub arch: String,
    /// `ga-24.04`, `hwe-24.04-lowlatency`, ...; `generic` where the product names none.
    pub subarch: String,
    /// Every subarch that this one serves for, [`CachedProduct::subarch`] among them.
    pub subarches: Vec<String>,
    /// Every architecture that a boot loader serves; just [`CachedProduct::arch`] otherwise.
    pub arches: Vec<String>,
    /// `noble`, `centos8`; for boot loaders the firmware (`uefi`).
    pub release: String,
    /// `Noble Numbat`
    pub release_codename: Option<String>,
    /// `24.04 LTS`
    pub release_title: Option<String>,
    /// `24.04`
    pub release_version: Option<String>,
    /// `YYYY-MM-DD`
    pub support_eol: Option<String>,
    /// `stable`, `candidate`, ...
    pub label: String,
    /// `generic`, `lowlatency`, ...
    pub kflavor: Option<String>,
    /// Release that the kernel is from.
    pub krel: Option<String>,
    /// Kernel parameters for all versions.
    pub kparams: Option<String>,
    /// Firmware, for boot loaders only.
    pub bootloader_type: Option<BootloaderType>,
    /// Complete versions, newest first, at least one.
    pub versions: Vec<ProductVersion>,
}

impl CachedProduct {
    /// The newest complete version.
    #[must_use]
    pub fn newest(&self) -> Option<&ProductVersion> {
        self.versions.first()
    }
}

/// Why a product, or one of its versions, is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// A key that it must have is missing or empty.
    #[error("it has no {0:?}")]
    Missing(&'static str),
    /// Not an object, or a key of a wrong type, or an endless value.
    #[error("it does not have the shape of a product")]
    Shape,
    /// Nothing in it can be booted or installed by us.
    #[error("it is no boot image")]
    NotBootable,
    /// A boot loader that is not in [`BOOTLOADERS`].
    #[error("no firmware is served with this boot loader")]
    UnusedBootloader,
    /// Ubuntu for i386 after 16.04: there are no complete images.
    #[error("32-bit x86 ended with Ubuntu 16.04")]
    I386,
    /// A version that lacks a kernel, an initrd or a root file system, or its only file.
    #[error("version {version} is not complete")]
    Incomplete {
        /// Which.
        version: String,
    },
    /// An item without a usable hash or size.
    #[error("item {item} of version {version} has no usable hash or size")]
    Item {
        /// Which version.
        version: String,
        /// Which item.
        item: String,
    },
    /// An item that is not below the source's root.
    #[error("item {item} of version {version} has an unacceptable path")]
    Path {
        /// Which version.
        version: String,
        /// Which item.
        item: String,
        /// What is wrong.
        #[source]
        cause: PathError,
    },
    /// More than [`VERSIONS_MAX`] versions or [`ITEMS_MAX`] items.
    #[error("it has too many versions or items")]
    TooMany,
    /// None of its versions can be used; the reasons are listed beside this one.
    #[error("none of its versions can be used")]
    NoVersion,
}

/// A product that was left out, at least in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Name in the document.
    pub product: String,
    /// Why.
    pub reason: SkipReason,
}

/// What a document is good for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flattened {
    /// What can be had.
    pub products: Vec<CachedProduct>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

#[derive(Deserialize)]
struct RawProduct {
    #[serde(default, deserialize_with = "text")]
    os: String,
    #[serde(default, deserialize_with = "text")]
    arch: String,
    #[serde(default, deserialize_with = "text")]
    arches: String,
    #[serde(default, deserialize_with = "text")]
    subarch: String,
    #[serde(default, deserialize_with = "text")]
    subarches: String,
    #[serde(default, deserialize_with = "text")]
    release: String,
    #[serde(default, deserialize_with = "text")]
    release_codename: String,
    #[serde(default, deserialize_with = "text")]
    release_title: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "text")]
    support_eol: String,
    #[serde(default, deserialize_with = "text")]
    label: String,
    #[serde(default, deserialize_with = "text")]
    kflavor: String,
    #[serde(default, deserialize_with = "text")]
    krel: String,
    #[serde(default, deserialize_with = "text")]
    kparams: String,
    #[serde(default, rename = "bootloader-type", deserialize_with = "text")]
    bootloader_type: String,
    #[serde(default)]
    versions: BTreeMap<String, RawVersion>,
}

#[derive(Deserialize)]
struct RawVersion {
    #[serde(default, deserialize_with = "text")]
    label: String,
    #[serde(default)]
    items: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct RawItem {
    #[serde(default, deserialize_with = "text")]
    ftype: String,
    #[serde(default, deserialize_with = "text")]
    path: String,
    #[serde(default, deserialize_with = "text")]
    sha256: String,
    #[serde(default, deserialize_with = "size")]
    size: Option<u64>,
    #[serde(default, deserialize_with = "text")]
    kpackage: String,
    #[serde(default, deserialize_with = "text")]
    kparams: String,
    #[serde(default, deserialize_with = "text")]
    src_package: String,
    #[serde(default, deserialize_with = "text")]
    src_version: String,
    #[serde(default, deserialize_with = "text")]
    src_release: String,
}

impl ProductsDocument {
    /// Classifies every product and keeps what can be booted or installed.
    ///
    /// # Errors
    /// [`DocumentError::SizeConflict`]: a document that contradicts itself about a file is not
    /// believed at all.
    pub fn flatten(&self) -> Result<Flattened, DocumentError> {
        let mut flattened = Flattened::default();
        let mut sizes: HashMap<&Sha256Hex, u64> = HashMap::new();
        for (name, value) in &self.products {
            let mut skip = |reason| {
                flattened.skipped.push(Skipped {
                    product: name.clone(),
                    reason,
                })
            };
            match read_product(name, value, &mut skip) {
                Ok(product) => flattened.products.push(product),
                Err(reason) => skip(reason),
            }
        }
        let versions = flattened
            .products
            .iter()
            .flat_map(|product| &product.versions);
        for item in versions.flat_map(|version| &version.items) {
            if *sizes.entry(&item.sha256).or_insert(item.size) != item.size {
                return Err(DocumentError::SizeConflict(item.sha256.clone()));
            }
        }
        Ok(flattened)
    }
}

fn read_product(
    name: &str,
    value: &Value,
    skip: &mut impl FnMut(SkipReason),
) -> Result<CachedProduct, SkipReason> {
    let raw = RawProduct::deserialize(value).map_err(|_| SkipReason::Shape)?;
    if !short(value) {
        return Err(SkipReason::Shape);
    }
    if raw.versions.len() > VERSIONS_MAX
        || raw
            .versions
            .values()
            .any(|version| version.items.len() > ITEMS_MAX)
    {
        return Err(SkipReason::TooMany);
    }
    let required = |key, value: &str| {
        if value.is_empty() {
            Err(SkipReason::Missing(key))
        } else {
            Ok(value.to_owned())
        }
    };
    let os = required("os", &raw.os)?;
    let arch = required("arch", &raw.arch)?;
    let kind = classify(&raw)?;
    let bootloader_type = match kind {
        ProductKind::Bootloader => {
            let of = BootloaderType::from_wire(&raw.bootloader_type)
                .ok_or(SkipReason::UnusedBootloader)?;
            if !BOOTLOADERS.contains(&(os.as_str(), of, arch.as_str())) {
                return Err(SkipReason::UnusedBootloader);
            }
            Some(of)
        }
        ProductKind::MultiFile | ProductKind::SingleFile => None,
    };
    let release = match bootloader_type {
        Some(of) => of.as_str().to_owned(),
        None => required("release", &raw.release)?,
    };
    if os == "ubuntu" && arch == "i386" && !i386_was_alive(&release, &raw.version) {
        return Err(SkipReason::I386);
    }
    let label = if raw.label.is_empty() {
        // Older documents put it into the version.
        raw.versions
            .values()
            .next_back()
            .map(|version| version.label.clone())
            .unwrap_or_default()
    } else {
        raw.label.clone()
    };
    let label = required("label", &label)?;

    let mut versions = Vec::new();
    // By string order, as all readers of such streams do.
    for (version, raw_version) in raw.versions.iter().rev() {
        match read_version(kind, version, raw_version) {
            Ok(version) => versions.push(version),
            Err(reason) => skip(reason),
        }
    }
    if versions.is_empty() {
        return Err(SkipReason::NoVersion);
    }
    let subarch = optional(&raw.subarch).unwrap_or_else(|| "generic".to_owned());
    let mut subarches = list(&raw.subarches);
    if !subarches.contains(&subarch) {
        subarches.push(subarch.clone());
    }
    let mut arches = list(&raw.arches);
    if !arches.contains(&arch) {
        arches.push(arch.clone());
    }
    Ok(CachedProduct {
        product: name.to_owned(),
        kind,
        os,
        arch,
        subarch,
        subarches,
        arches,
        release,
        release_codename: optional(&raw.release_codename),
        release_title: optional(&raw.release_title),
        release_version: optional(&raw.version),
        support_eol: optional(&raw.support_eol),
        label,
        kflavor: optional(&raw.kflavor),
        krel: optional(&raw.krel),
        kparams: optional(&raw.kparams),
        bootloader_type,
        versions,
    })
}

fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether no text in the product is longer than anything has a reason to be.
fn short(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= VALUE_MAX,
        Value::Array(values) => values.iter().all(short),
        Value::Object(map) => map
            .iter()
            .all(|(key, value)| key.len() <= VALUE_MAX && short(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Up to xenial (16.04). The version decides; a product without one goes by its release.
fn i386_was_alive(release: &str, version: &str) -> bool {
    match version
        .split_once('.')
        .and_then(|(year, _)| year.parse::<u32>().ok())
    {
        Some(year) => year <= 16 && version != "16.10",
        None => matches!(release, "precise" | "trusty" | "xenial"),
    }
}

fn is_root(ftype: &str) -> bool {
    matches!(ftype, "squashfs" | "root-image.gz") || is_single_root(ftype)
}

fn is_single_root(ftype: &str) -> bool {
    matches!(ftype, "root-tgz" | "root-tbz" | "root-txz")
        || ftype == "root-dd"
        || ftype.starts_with("root-dd.")
}

fn classify(raw: &RawProduct) -> Result<ProductKind, SkipReason> {
    if !raw.bootloader_type.is_empty() {
        return Ok(ProductKind::Bootloader);
    }
    let has = |test: &dyn Fn(&str) -> bool| {
        raw.versions
            .values()
            .flat_map(|version| version.items.values())
            .any(|item| item.get("ftype").and_then(Value::as_str).is_some_and(test))
    };
    if has(&|ftype| ftype == "boot-kernel") {
        Ok(ProductKind::MultiFile)
    } else if has(&is_single_root) {
        Ok(ProductKind::SingleFile)
    } else {
        Err(SkipReason::NotBootable)
    }
}

fn read_version(
    kind: ProductKind,
    version: &str,
    raw: &RawVersion,
) -> Result<ProductVersion, SkipReason> {
    let mut items = Vec::new();
    for (name, value) in &raw.items {
        let broken = || SkipReason::Item {
            version: version.to_owned(),
            item: name.clone(),
        };
        let raw = RawItem::deserialize(value).map_err(|_| broken())?;
        let ftype = raw.ftype.as_str();
        let wanted = match kind {
            ProductKind::Bootloader => !ftype.is_empty(),
            ProductKind::MultiFile => {
                is_root(ftype)
                    || matches!(
                        ftype,
                        "boot-kernel"
                            | "boot-initrd"
                            | "boot-dtb"
                            | "manifest"
                            | "squashfs.manifest"
                    )
            }
            ProductKind::SingleFile => is_single_root(ftype) || ftype == "manifest",
        };
        if !wanted {
            continue;
        }
        let path = StreamPath::new(&raw.path).map_err(|cause| SkipReason::Path {
            version: version.to_owned(),
            item: name.clone(),
            cause,
        })?;
        items.push(Item {
            path,
            sha256: Sha256Hex::new(&raw.sha256).ok_or_else(broken)?,
            size: raw.size.ok_or_else(broken)?,
            kpackage: optional(&raw.kpackage),
            kparams: optional(&raw.kparams),
            src_package: optional(&raw.src_package),
            src_version: optional(&raw.src_version),
            src_release: optional(&raw.src_release),
            name: name.clone(),
            ftype: raw.ftype,
        });
    }
    let has = |test: &dyn Fn(&str) -> bool| items.iter().any(|item| test(&item.ftype));
    // Old products offer the root file system in both forms; the older one is then not needed.
    if kind == ProductKind::MultiFile && has(&|ftype| ftype == "squashfs") {
        items.retain(|item| item.ftype != "root-image.gz");
    }
    let has = |test: &dyn Fn(&str) -> bool| items.iter().any(|item| test(&item.ftype));
    let complete = match kind {
        ProductKind::Bootloader => !items.is_empty(),
        ProductKind::MultiFile => {
            has(&|ftype| ftype == "boot-kernel")
                && has(&|ftype| ftype == "boot-initrd")
                && has(&is_root)
        }
        ProductKind::SingleFile => has(&is_single_root),
    };
    if complete {
        Ok(ProductVersion {
            name: version.to_owned(),
            items,
        })
    } else {
        Err(SkipReason::Incomplete {
            version: version.to_owned(),
        })
    }
}
