//! Storage planning: which partitions a layout makes on a disk of a given size.
//!
//! The numbers agree with what the installer is told: partitions start and end on multiples of
//! [`ALIGNMENT`], the first one behind one such unit (where the partition table and, on GPT disks of BIOS
//! machines, GRUB's own partition lie), and the end of the disk is left to the table's copy.

use std::fmt;

/// Partitions start and end on multiples of this many bytes.
pub const ALIGNMENT: u64 = 4 << 20;
/// Bytes left alone at the end of a disk: the copy of the GPT (UEFI 2.10 §5.3.1), rounded up.
pub const TAIL: u64 = 1 << 20;
/// Bytes of the EFI system partition.
pub const EFI_SIZE: u64 = 512 << 20;
/// Fewest bytes of a partition for `/boot`.
pub const MIN_BOOT: u64 = 512 << 20;
/// Fewest bytes of a root partition.
pub const MIN_ROOT: u64 = 3 << 30;
/// Fewest bytes of a disk that can be booted from: a root partition and the table.
pub const MIN_BOOT_DISK: u64 = MIN_ROOT + ALIGNMENT + TAIL;

/// The layouts that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One root partition, and what the firmware needs.
    Flat,
    /// As flat, with the root on a logical volume.
    Lvm,
    /// The root on a disk that another one caches.
    Bcache,
    /// The fixed partitions of ESXi 6.
    Vmfs6,
    /// The fixed partitions of ESXi 7 and later.
    Vmfs7,
    /// Nothing.
    Blank,
    /// What the machine's commissioning scripts asked for.
    Custom,
}

/// Every layout.
pub const ALL: [Layout; 7] = [
    Layout::Flat,
    Layout::Lvm,
    Layout::Bcache,
    Layout::Vmfs6,
    Layout::Vmfs7,
    Layout::Blank,
    Layout::Custom,
];

impl Layout {
    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Lvm => "lvm",
            Self::Bcache => "bcache",
            Self::Vmfs6 => "vmfs6",
            Self::Vmfs7 => "vmfs7",
            Self::Blank => "blank",
            Self::Custom => "custom",
        }
    }

    /// The layout of a word of the API.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        ALL.into_iter().find(|l| l.word() == word)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A size that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of a percent of the disk, at most 10,000.
    Share(u16),
}

/// A text that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Enter a size such as 512M or 10G, or a share of the disk such as 50%.")]
pub struct BadSize;

impl std::str::FromStr for Size {
    type Err = BadSize;

    /// Plain bytes, decimal units (`512M`, `1.5G`, also `KB` and `GiB`-like spellings of the binary ones),
    /// or percent of the disk (`12.5%`).
    fn from_str(text: &str) -> Result<Self, BadSize> {
        let t = text.trim();
        let split = t
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(t.len());
        let (digits, unit) = t.split_at(split);
        // Hundredths, so that no floating point is needed.
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || part.len() > 2 || part.contains('.') {
            return Err(BadSize);
        }
        let whole: u64 = whole.parse().map_err(|_| BadSize)?;
        let part: u64 = format!("{part:0<2}").parse().map_err(|_| BadSize)?;
        let hundredths = whole
            .checked_mul(100)
            .and_then(|h| h.checked_add(part))
            .ok_or(BadSize)?;
        let unit = unit.trim().to_ascii_lowercase();
        if unit == "%" {
            return u16::try_from(hundredths)
                .ok()
                .filter(|h| *h <= 10_000)
                .map(Self::Share)
                .ok_or(BadSize);
        }
        let factor: u64 = match unit.as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            _ => return Err(BadSize),
        };
        let bytes = u128::from(hundredths) * u128::from(factor) / 100;
        u64::try_from(bytes).map(Self::Bytes).map_err(|_| BadSize)
    }
}

impl Size {
    /// Bytes on a disk of this size, rounded down to [`ALIGNMENT`].
    #[must_use]
    pub fn on(self, disk: u64) -> u64 {
        let bytes = match self {
            Self::Bytes(b) => b,
            Self::Share(s) => {
                let b = u128::from(disk) * u128::from(s) / 10_000;
                u64::try_from(b).unwrap_or(u64::MAX)
            }
        };
        bytes / ALIGNMENT * ALIGNMENT
    }
}

/// A partition to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number on the disk, from 1.
    pub number: u32,
    /// First byte on the disk.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Whether the firmware boots from it.
    pub bootable: bool,
    /// File system.
    pub fstype: &'static str,
    /// Label of the file system.
    pub label: &'static str,
    /// Where it is mounted.
    pub mount_point: &'static str,
}

/// What a partition is for; decides its size, file system and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The EFI system partition.
    Efi,
    /// `/boot` of this size.
    Boot(Size),
    /// `/` of this size; all that is left without one.
    Root(Option<Size>),
}

/// Why a layout does not fit. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// `/boot` would be too small.
    #[error("Size is too small. Minimum size is {MIN_BOOT} bytes.")]
    BootTooSmall,
    /// `/` would be too small.
    #[error("Size is too small. Minimum size is {MIN_ROOT} bytes.")]
    RootTooSmall,
    /// The partitions asked for do not fit.
    #[error("Size is too large: {left} bytes are left on the disk.")]
    TooLarge {
        /// Bytes that were left for the partition.
        left: u64,
    },
    /// The disk has no room for what is always needed.
    #[error("The disk is too small: {size} bytes.")]
    DiskTooSmall {
        /// The disk's size.
        size: u64,
    },
}

/// Bytes of a disk that partitions may have in all.
#[must_use]
pub const fn room(disk: u64) -> u64 {
    let end = disk.saturating_sub(TAIL) / ALIGNMENT * ALIGNMENT;
    end.saturating_sub(ALIGNMENT)
}

/// Lays partitions out on a disk of this many bytes, in the order given.
///
/// # Errors
/// When they do not fit, or one would be too small to be of use.
pub fn partitions(disk: u64, wants: &[Want]) -> Result<Vec<Part>, LayoutError> {
    let mut out = Vec::with_capacity(wants.len());
    let mut left = room(disk);
    let mut offset = ALIGNMENT;
    for (want, number) in wants.iter().zip(1..) {
        let (size, fstype, label, mount_point, bootable) = match *want {
            Want::Efi => (EFI_SIZE, "fat32", "efi", "/boot/efi", true),
            Want::Boot(size) => {
                let size = size.on(disk);
                if size < MIN_BOOT {
                    return Err(LayoutError::BootTooSmall);
                }
                (size, "ext4", "boot", "/boot", false)
            }
            Want::Root(size) => {
                let size = size.map_or(left, |s| s.on(disk));
                if size > left {
                    return Err(LayoutError::TooLarge { left });
                }
                if size < MIN_ROOT {
                    return Err(if left < MIN_ROOT {
                        LayoutError::DiskTooSmall { size: disk }
                    } else {
                        LayoutError::RootTooSmall
                    });
                }
                (size, "ext4", "root", "/", false)
            }
        };
        if size > left {
            return Err(match want {
                Want::Efi => LayoutError::DiskTooSmall { size: disk },
                Want::Boot(_) | Want::Root(_) => LayoutError::TooLarge { left },
            });
        }
        out.push(Part {
            number,
            offset,
            size,
            bootable,
            fstype,
            label,
            mount_point,
        });
        offset += size;
        left -= size;
    }
    Ok(out)
}

/// What the flat layout puts on the boot disk when the root is there too.
#[must_use]
pub fn flat(efi: bool, boot: Option<Size>, root: Option<Size>) -> Vec<Want> {
    let mut out = Vec::new();
    if efi {
        out.push(Want::Efi);
    }
    out.extend(boot.map(Want::Boot));
    out.push(Want::Root(root));
    out
}

/// Whether machines need an EFI system partition: those that boot with UEFI, and all of arm64.
#[must_use]
pub fn needs_efi(boot_method: Option<&str>, architecture: &str) -> bool {
    boot_method == Some("uefi") || architecture.split('/').next() == Some("arm64")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn flat_on_bios_is_one_root_on_all_of_the_disk() {
        let parts = partitions(8 * GIB, &flat(false, None, None)).unwrap();
        assert_eq!(parts.len(), 1);
        assert_eq!(
            (parts[0].mount_point, parts[0].fstype, parts[0].bootable),
            ("/", "ext4", false)
        );
        assert_eq!(parts[0].offset, ALIGNMENT);
        // One unit for the table in front; the last one is broken off by the table's copy.
        assert_eq!(parts[0].size, 8 * GIB - 2 * ALIGNMENT);
    }

    #[test]
    fn flat_on_uefi_has_an_efi_system_partition_first() {
        let parts = partitions(8 * GIB, &flat(true, Some(Size::Bytes(GIB)), None)).unwrap();
        let seen: Vec<_> = parts
            .iter()
            .map(|p| (p.number, p.mount_point, p.fstype, p.bootable))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "/boot/efi", "fat32", true),
                (2, "/boot", "ext4", false),
                (3, "/", "ext4", false)
            ]
        );
        assert_eq!(parts[0].size, EFI_SIZE);
        assert!(needs_efi(None, "arm64/generic") && needs_efi(Some("uefi"), "amd64/generic"));
        assert!(!needs_efi(Some("pxe"), "amd64/generic") && !needs_efi(None, "armhf/generic"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let plan = |disk, boot, root| partitions(disk, &flat(false, boot, root));
        assert_eq!(
            plan(2 * GIB, None, None),
            Err(LayoutError::DiskTooSmall { size: 2 * GIB })
        );
        assert!(plan(MIN_BOOT_DISK + ALIGNMENT, None, None).is_ok());
        assert_eq!(
            plan(8 * GIB, Some(Size::Bytes(1_000_000)), None),
            Err(LayoutError::BootTooSmall)
        );
        assert_eq!(
            plan(8 * GIB, None, Some(Size::Bytes(GIB))),
            Err(LayoutError::RootTooSmall)
        );
        assert!(matches!(
            plan(8 * GIB, None, Some(Size::Bytes(9 * GIB))),
            Err(LayoutError::TooLarge { .. })
        ));
        assert_eq!(
            plan(0, None, None),
            Err(LayoutError::DiskTooSmall { size: 0 })
        );
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let size = |t: &str| t.parse::<Size>();
        assert_eq!(size("10G"), Ok(Size::Bytes(10_000_000_000)));
        assert_eq!(size(" 1.5g "), Ok(Size::Bytes(1_500_000_000)));
        assert_eq!(size("512MiB"), Ok(Size::Bytes(512 << 20)));
        assert_eq!(size("4096"), Ok(Size::Bytes(4096)));
        assert_eq!(size("50%"), Ok(Size::Share(5_000)));
        assert_eq!(size("12.5%"), Ok(Size::Share(1_250)));
        for bad in [
            "",
            "G",
            "-1G",
            "10X",
            "101%",
            "1.234G",
            "1..2",
            "99999999999999999999",
            "…",
        ] {
            assert_eq!(size(bad), Err(BadSize), "{bad}");
        }
        assert_eq!(Size::Share(5_000).on(8 * GIB), 4 * GIB);
        assert_eq!(Size::Bytes(ALIGNMENT + 1).on(0), ALIGNMENT);
    }

    fn a_size() -> impl Strategy<Value = Size> {
        prop_oneof![
            any::<u64>().prop_map(Size::Bytes),
            (0..16 * GIB).prop_map(Size::Bytes),
            (0u16..=10_000).prop_map(Size::Share)
        ]
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_aligned_in_order_and_fits(
            disk in prop_oneof![any::<u64>(), 0..64 * GIB],
            efi: bool,
            boot in prop::option::of(a_size()),
            root in prop::option::of(a_size()),
        ) {
            if let Ok(parts) = partitions(disk, &flat(efi, boot, root)) {
                let mut at = ALIGNMENT;
                for p in &parts {
                    prop_assert_eq!(p.offset, at, "nothing overlaps and nothing is left between");
                    prop_assert_eq!(p.size % ALIGNMENT, 0);
                    prop_assert!(p.size > 0);
                    at += p.size;
                }
                prop_assert!(at <= disk - TAIL, "the end is left to the copy of the table");
                prop_assert!(parts.last().is_some_and(|p| p.mount_point == "/" && p.size >= MIN_ROOT));
                if root.is_none() {
                    // All of the disk is used, but for what alignment breaks off.
                    prop_assert!(disk - at < TAIL + ALIGNMENT);
                    prop_assert_eq!(parts.iter().map(|p| p.size).sum::<u64>(), room(disk));
                }
            }
        }

        #[test]
        fn every_large_disk_takes_the_plain_layout(disk in 4 * GIB..(64 << 40), efi: bool) {
            prop_assert!(partitions(disk, &flat(efi, None, None)).is_ok());
        }

        #[test]
        fn reading_a_size_never_panics(text in ".{0,24}") {
            if let Ok(s) = text.parse::<Size>() {
                prop_assert_eq!(s.on(u64::MAX) % ALIGNMENT, 0);
            }
        }
    }
}
