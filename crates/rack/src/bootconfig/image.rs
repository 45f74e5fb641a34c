//! Which image a machine boots.

use link::snapshot::{Image, Machine, RootMethod, Snapshot};
use metal::boot::Purpose;

/// No image fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {osystem}/{release} image with a kernel for {arch}")]
pub struct NoImage {
    /// Operating system that was looked for.
    pub osystem: String,
    /// Its release.
    pub release: String,
    /// Architecture that was looked for.
    pub arch: String,
}

/// The image for a purpose: what is installed, when it can boot itself, else the system that
/// commissions. (Images that are a root tarball only are installed from the latter.)
///
/// # Errors
/// [`NoImage`] names the system that would have been used.
pub fn choose<'a>(
    snapshot: &'a Snapshot,
    machine: Option<&Machine>,
    purpose: Purpose,
    arch: &str,
) -> Result<&'a Image, NoImage> {
    let subarch = machine
        .and_then(|m| m.architecture.split_once('/'))
        .map_or("generic", |(_, s)| s);
    let find = |osystem: &str, release: &str| {
        snapshot
            .images
            .values()
            .filter(|i| {
                i.osystem == osystem && i.release == release && i.arch == arch && boots_alone(i)
            })
            .min_by_key(|i| {
                (
                    subarch_rank(&i.subarch, subarch),
                    label_rank(&i.label),
                    std::cmp::Reverse(i.id),
                )
            })
    };
    if purpose == Purpose::Xinstall
        && let Some((osystem, release)) = machine.and_then(|m| m.deploy.as_ref())
        && let Some(image) = find(osystem, release)
    {
        return Ok(image);
    }
    let (osystem, release) = (
        &snapshot.settings.commissioning_osystem,
        &snapshot.settings.commissioning_distro_series,
    );
    find(osystem, release).ok_or_else(|| NoImage {
        osystem: osystem.clone(),
        release: release.clone(),
        arch: arch.to_owned(),
    })
}

fn boots_alone(image: &Image) -> bool {
    image.root.is_some() || image.root_method == RootMethod::None
}

/// The machine's own kernel first, then the release's first kernel, then whatever there is.
fn subarch_rank(image: &str, wanted: &str) -> u8 {
    let family = |f: &str| image == f || image.strip_prefix(f).is_some_and(|r| r.starts_with('-'));
    if image == wanted {
        0
    } else if family("ga") && !image.ends_with("-lowlatency") {
        1
    } else if image == "generic" {
        2
    } else if family("hwe") && !image.ends_with("-lowlatency") && !image.contains("-edge") {
        3
    } else {
        4
    }
}

fn label_rank(label: &str) -> u8 {
    match label {
        "stable" | "release" => 0,
        "candidate" => 1,
        "uploaded" => 2,
        _ => 3,
    }
}
