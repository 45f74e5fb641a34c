//! Which image a machine boots and installs.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use store::Tx;

use super::held::{self, Held};
use crate::error::ApiError;

/// A system that can be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployable {
    /// `ubuntu`, `debian`, …
    pub osystem: String,
    /// Release.
    pub series: String,
    /// Kernel, for example `ga-24.04`; none for images without one of their own.
    pub kernel: Option<String>,
}

/// The file that an installation writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name.
    pub filename: String,
    /// `root-tgz`, `squashfs`, …
    pub filetype: String,
    /// SHA-256.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// 400 for an architecture that no image is held for.
///
/// # Errors
/// 400 on the field `architecture`, naming those that there are.
pub async fn check_architecture(tx: &mut Tx, architecture: &str) -> Result<(), ApiError> {
    let held = held::images(tx).await?;
    if held.iter().any(|h| h.serves(architecture)) {
        return Ok(());
    }
    let known: BTreeSet<String> = held.iter().map(|h| format!("{}/generic", h.arch)).collect();
    Err(ApiError::field(
        "architecture",
        if known.is_empty() {
            format!(
                "'{architecture}' is not a valid architecture: no boot images have been imported yet."
            )
        } else {
            format!(
                "'{architecture}' is not a valid architecture. Images are held for: {}.",
                join(&known)
            )
        },
    ))
}

/// The system to install.
///
/// # Errors
/// 400 on the field `distro_series` when there is no complete image of it for the architecture.
pub async fn deployable(
    tx: &mut Tx,
    osystem: Option<&str>,
    series: &str,
    architecture: &str,
) -> Result<Deployable, ApiError> {
    let held = held::images(tx).await?;
    let installable = || {
        held.iter()
            .filter(|h| h.serves(architecture) && root_file(h).is_some())
    };
    let best = installable()
        .filter(|h| osystem.is_none_or(|os| h.os == os) && h.is_release(series))
        .min_by(|a, b| kernel_order(a, architecture).cmp(&kernel_order(b, architecture)));
    if let Some(h) = best {
        return Ok(Deployable {
            osystem: h.os.clone(),
            series: h.release.clone(),
            kernel: h.file("boot-kernel").map(|_| h.subarch.clone()),
        });
    }
    let asked = match osystem {
        Some(os) => format!("{os}/{series}"),
        None => series.to_owned(),
    };
    let known: BTreeSet<String> = installable()
        .map(|h| format!("{}/{}", h.os, h.release))
        .collect();
    Err(ApiError::field(
        "distro_series",
        if known.is_empty() {
            format!(
                "'{asked}' is not a valid distro_series: no image is held that {architecture} could install."
            )
        } else {
            format!(
                "'{asked}' is not a valid distro_series. Held for {architecture}: {}.",
                join(&known)
            )
        },
    ))
}

/// The newest release held of an operating system.
///
/// # Errors
/// 400 on the field `osystem` when there is none.
pub async fn newest_series(tx: &mut Tx, osystem: &str) -> Result<String, ApiError> {
    let held = held::images(tx).await?;
    held.iter()
        .filter(|h| h.os == osystem && root_file(h).is_some())
        .max_by_key(|h| (numbers(&h.extra.version), h.release.clone()))
        .map(|h| h.release.clone())
        .ok_or_else(|| {
            let known: BTreeSet<String> = held.iter().map(|h| h.os.clone()).collect();
            ApiError::field(
                "osystem",
                if known.is_empty() {
                    format!(
                        "'{osystem}' is not a valid osystem: no boot images have been imported yet."
                    )
                } else {
                    format!(
                        "'{osystem}' is not a valid osystem. Held: {}.",
                        join(&known)
                    )
                },
            )
        })
}

/// The file to install.
///
/// # Errors
/// 409 when there is none any more.
pub async fn install_source(
    tx: &mut Tx,
    osystem: &str,
    series: &str,
    architecture: &str,
) -> Result<Source, ApiError> {
    let held = held::images(tx).await?;
    held.iter()
        .filter(|h| h.os == osystem && h.is_release(series) && h.serves(architecture))
        .filter_map(|h| root_file(h).map(|(rank, f)| ((rank, kernel_order(h, architecture)), f)))
        .min_by(|(a, _), (b, _)| a.cmp(b))
        .map(|(_, f)| Source {
            filename: f.filename.clone(),
            filetype: f.filetype.clone(),
            sha256: f.sha256.clone(),
            size: u64::try_from(f.size).unwrap_or(0),
        })
        .ok_or_else(|| {
            ApiError::Conflict(format!(
                "No image of {osystem}/{series} for {architecture} is held any more; import it and deploy again."
            ))
        })
}

/// What can be written to a disk, the best first: a root made for installation before the ephemeral
/// system's own.
const ROOTS: [&str; 5] = [
    "root-tgz",
    "root-txz",
    "root-tbz",
    "squashfs",
    "root-image.gz",
];

fn root_file(h: &Held) -> Option<(usize, &held::FileRow)> {
    h.files
        .iter()
        .filter_map(|f| {
            if f.filetype == "root-dd" || f.filetype.starts_with("root-dd.") {
                return Some((0, f));
            }
            ROOTS
                .iter()
                .position(|r| *r == f.filetype)
                .map(|rank| (rank, f))
        })
        .min_by_key(|(rank, _)| *rank)
}

/// The order in which kernels are chosen: the machine's own, then the release's first kernel, the newest
/// of those, then whatever there is.
fn kernel_order(h: &Held, architecture: &str) -> (u8, Reverse<Vec<u64>>, Reverse<i64>) {
    let wanted = held::split_architecture(architecture).1;
    let subarch = h.subarch.as_str();
    let family = |f: &str| {
        subarch == f
            || subarch
                .strip_prefix(f)
                .is_some_and(|rest| rest.starts_with('-'))
    };
    let plain = !subarch.ends_with("-lowlatency") && !subarch.contains("-edge");
    let rank = if subarch == wanted && wanted != "generic" {
        0
    } else if family("ga") && plain {
        1
    } else if subarch == "generic" {
        2
    } else if family("hwe") && plain {
        3
    } else {
        4
    };
    (rank, Reverse(numbers(subarch)), Reverse(h.id))
}

/// The numbers in a name, for an order in which 9 is before 10.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok())
        .collect()
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(", ")
}
