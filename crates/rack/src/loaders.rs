//! Boot loader files from the distribution's packages, for racks whose region has none in its images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Where packages put boot loaders: (name that machines ask for, path below the root directory).
const FILES: [(&str, &str); 14] = [
    ("bootx64.efi", "usr/lib/shim/shimx64.efi.signed"),
    ("shimx64.efi", "usr/lib/shim/shimx64.efi.signed"),
    ("mmx64.efi", "usr/lib/shim/mmx64.efi.signed"),
    (
        "grubx64.efi",
        "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    ),
    ("bootaa64.efi", "usr/lib/shim/shimaa64.efi.signed"),
    ("mmaa64.efi", "usr/lib/shim/mmaa64.efi.signed"),
    (
        "grubaa64.efi",
        "usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
    ),
    ("lpxelinux.0", "usr/lib/PXELINUX/lpxelinux.0"),
    ("pxelinux.0", "usr/lib/PXELINUX/pxelinux.0"),
    ("undionly.kpxe", "usr/lib/ipxe/undionly.kpxe"),
    ("undionly.kkpxe", "usr/lib/ipxe/undionly.kkpxe"),
    ("ipxe.pxe", "usr/lib/ipxe/ipxe.pxe"),
    ("ipxe.efi", "usr/lib/ipxe/ipxe.efi"),
    ("snponly.efi", "usr/lib/ipxe/snponly.efi"),
];
/// PXELINUX's modules: every `.c32` here.
const MODULES: &str = "usr/lib/syslinux/modules/bios";
/// Most modules that are looked at.
const MAX_MODULES: usize = 256;

/// Boot loader files found on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaders {
    files: BTreeMap<String, PathBuf>,
}

impl Loaders {
    /// Looks for the files below a root directory (`/` but in tests).
    #[must_use]
    pub fn find(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(root.join(MODULES))
            .into_iter()
            .flatten()
            .flatten()
            .take(MAX_MODULES)
        {
            if let Some(name) = entry.file_name().to_str().filter(|n| n.ends_with(".c32")) {
                files.insert(name.to_owned(), entry.path());
            }
        }
        for (name, path) in FILES {
            let path = root.join(path);
            if path.is_file() {
                files.insert(name.to_owned(), path);
            }
        }
        Self { files }
    }

    /// The names found.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Opens a file by the name that a loader asks for, in whatever directory.
    #[must_use]
    pub fn open(&self, path: &str) -> Option<(File, u64)> {
        let name = path.rsplit('/').next()?;
        let file = File::open(self.files.get(name)?).ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size))
    }
}
