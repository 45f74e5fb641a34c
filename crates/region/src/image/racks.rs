//! What racks serve of the images.

use std::collections::BTreeMap;

use link::snapshot::{Blob, Image, RootMethod};
use store::Tx;

use super::held::{self, FileRow, LOADER};
use crate::error::ApiError;

/// Everything racks serve: bootable images by boot resource, and boot loader files by the name that
/// firmware and loaders ask for.
///
/// # Errors
/// When the database fails.
pub async fn for_racks(
    tx: &mut Tx,
) -> Result<(BTreeMap<i64, Image>, BTreeMap<String, Blob>), ApiError> {
    let mut images = BTreeMap::new();
    let mut loaders = BTreeMap::new();
    for h in held::all(tx).await? {
        if h.is_bootloader {
            for f in h.files.iter().filter(|f| f.filetype == LOADER) {
                // Two loaders with files of one name: the resource that was there first stays.
                loaders.entry(f.filename.clone()).or_insert_with(|| blob(f));
            }
            continue;
        }
        let (Some(kernel), Some(initrd)) = (h.file("boot-kernel"), h.file("boot-initrd")) else {
            continue;
        };
        let root = h.file("squashfs").or_else(|| h.file("root-image.gz"));
        let image = Image {
            id: h.id,
            kernel: blob(kernel),
            initrd: blob(initrd),
            root: root.map(blob),
            root_method: root_method(&h.extra.root_method),
            kparams: h.extra.kparams.clone(),
            label: h.set.label.clone(),
            osystem: h.os,
            release: h.release,
            arch: h.arch,
            subarch: h.subarch,
        };
        images.insert(h.id, image);
    }
    Ok((images, loaders))
}

/// The word `root_method` of a product.
#[must_use]
pub fn root_method(word: &str) -> RootMethod {
    match word {
        "live-boot" => RootMethod::LiveBoot,
        "dracut" => RootMethod::Dracut,
        "none" => RootMethod::None,
        _ => RootMethod::Squash,
    }
}

fn blob(f: &FileRow) -> Blob {
    Blob {
        filename: f.filename.clone(),
        sha256: f.sha256.clone(),
        size: u64::try_from(f.size).unwrap_or(0),
    }
}
