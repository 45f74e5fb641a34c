//! What disks can be made into: how large partitions, volume groups, RAIDs, bcache devices and datastores
//! become, how many members they need, and which file systems there are.

pub mod custom;
pub mod plan;

use std::fmt;

use crate::layout::{ALIGNMENT, TAIL};

/// Bytes of an extent of a volume group; each physical volume gives up one for LVM's own data.
pub const EXTENT: u64 = 4 << 20;
/// Bytes that the metadata of a RAID takes from each member.
pub const RAID_OVERHEAD: u64 = 64 << 10;
/// Fewest bytes of a partition.
pub const MIN_PARTITION: u64 = ALIGNMENT;
/// Fewest bytes of a disk.
pub const MIN_DISK: u64 = 4 << 20;
/// Fewest bytes of a disk's block.
pub const MIN_BLOCK: u64 = 512;
/// Highest number of a partition: a GPT has 128 entries (UEFI 2.10 §5.3.2), and the last one is the
/// installer's.
pub const MAX_PARTITION: i64 = 127;
/// Longest mount point, in bytes.
pub const MAX_PATH: usize = 4095;

/// File systems that can be asked for on a device.
pub const FORMATS: [&str; 8] = [
    "ext2", "ext4", "xfs", "fat32", "vfat", "swap", "btrfs", "zfsroot",
];
/// File systems without a device.
pub const SPECIAL: [&str; 2] = ["ramfs", "tmpfs"];
/// Ways of a cache.
pub const CACHE_MODES: [&str; 3] = ["writeback", "writethrough", "writearound"];

/// Rounds down to a multiple.
#[must_use]
pub const fn down(n: u64, unit: u64) -> u64 {
    n / unit * unit
}

/// Bytes that can still be partitioned on a disk of this size, of which partitions have so many.
#[must_use]
pub const fn free(disk: u64, partitions: u64) -> u64 {
    down(
        disk.saturating_sub(ALIGNMENT + TAIL)
            .saturating_sub(partitions),
        ALIGNMENT,
    )
}

/// Why a size is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Below what there can be.
    #[error("Ensure this value is greater than or equal to {least}: the size is too small.")]
    TooSmall {
        /// Fewest bytes.
        least: u64,
    },
    /// More than there is.
    #[error("The size is too large: {left} bytes are left.")]
    TooLarge {
        /// Bytes that are left.
        left: u64,
    },
}

/// The size of a new partition or logical volume where this much is free: all of it unless told.
///
/// # Errors
/// When it is too small, or there is not so much.
pub fn carve(asked: Option<u64>, free: u64) -> Result<u64, SizeError> {
    let free = down(free, ALIGNMENT);
    let size = down(asked.unwrap_or(free), ALIGNMENT);
    if size < MIN_PARTITION && asked.is_some() {
        return Err(SizeError::TooSmall {
            least: MIN_PARTITION,
        });
    }
    if size > free || size == 0 {
        return Err(SizeError::TooLarge { left: free });
    }
    Ok(size)
}

/// Bytes of a volume group on physical volumes of these sizes.
#[must_use]
pub fn volume_group(members: &[u64]) -> u64 {
    members
        .iter()
        .map(|m| down(*m, EXTENT).saturating_sub(EXTENT))
        .sum()
}

/// RAID levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Striped.
    Raid0,
    /// Mirrored.
    Raid1,
    /// One member's worth of parity.
    Raid5,
    /// Two members' worth of parity.
    Raid6,
    /// Striped over mirrors.
    Raid10,
}

/// Every level.
pub const LEVELS: [Level; 5] = [
    Level::Raid0,
    Level::Raid1,
    Level::Raid5,
    Level::Raid6,
    Level::Raid10,
];

/// Why members do not make a RAID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaidError {
    /// Not enough.
    #[error("{level} needs at least {least} devices besides spares; these are {given}.")]
    TooFew {
        /// The level.
        level: Level,
        /// Fewest members.
        least: usize,
        /// Members given.
        given: usize,
    },
    /// Nothing to take over a lost member's part.
    #[error("raid-0 cannot have spare devices.")]
    Spares,
}

impl Level {
    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raid0 => "raid-0",
            Self::Raid1 => "raid-1",
            Self::Raid5 => "raid-5",
            Self::Raid6 => "raid-6",
            Self::Raid10 => "raid-10",
        }
    }

    /// The level of a word (`raid-5`) or number (`5`).
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        LEVELS
            .into_iter()
            .find(|l| l.word() == word || l.word().strip_prefix("raid-") == Some(word))
    }

    /// Fewest members.
    #[must_use]
    pub const fn least(self) -> usize {
        match self {
            Self::Raid0 | Self::Raid1 => 2,
            Self::Raid5 | Self::Raid10 => 3,
            Self::Raid6 => 4,
        }
    }

    /// Whether so many members and spares make a RAID of this level.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(self, members: usize, spares: usize) -> Result<(), RaidError> {
        if members < self.least() {
            return Err(RaidError::TooFew {
                level: self,
                least: self.least(),
                given: members,
            });
        }
        if self == Self::Raid0 && spares > 0 {
            return Err(RaidError::Spares);
        }
        Ok(())
    }

    /// Bytes of the RAID; every member counts like the smallest.
    #[must_use]
    pub fn size(self, members: &[u64]) -> u64 {
        let each = members
            .iter()
            .min()
            .map_or(0, |m| m.saturating_sub(RAID_OVERHEAD));
        let n = members.len() as u64;
        match self {
            Self::Raid0 => each * n,
            Self::Raid1 => each,
            Self::Raid5 => each * n.saturating_sub(1),
            Self::Raid6 => each * n.saturating_sub(2),
            Self::Raid10 => each * n / 2,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whether this can be a mount point: an absolute path.
#[must_use]
pub fn is_mount_point(path: &str) -> bool {
    path.starts_with('/') && path.len() <= MAX_PATH && !path.contains(char::is_whitespace)
}

/// A size as people read it: decimal units with one digit.
#[must_use]
#[allow(clippy::cast_precision_loss)] // one digit is shown
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut n = bytes as f64 / 1000.0;
    let mut unit = 0;
    while n >= 1000.0 && unit + 1 < UNITS.len() {
        n /= 1000.0;
        unit += 1;
    }
    format!("{n:.1} {}", UNITS[unit])
}

/// The first name `{stem}{number}` that is not taken.
#[must_use]
pub fn next_name(stem: &str, taken: &[&str]) -> String {
    (0..=taken.len())
        .map(|n| format!("{stem}{n}"))
        .find(|n| !taken.contains(&n.as_str()))
        .unwrap_or_else(|| format!("{stem}{}", taken.len() + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_those_of_the_reference() {
        assert_eq!(free(250_000_000_000, 0), 249_993_101_312);
        assert_eq!(
            Level::Raid6.size(&[1_000_000_000_000; 4]),
            1_999_999_868_928
        );
        assert_eq!(volume_group(&[7_994_343_424]), 7_990_149_120);
        assert_eq!(human(1_999_999_868_928), "2.0 TB");
        assert_eq!(human(7_990_149_120), "8.0 GB");
        assert_eq!(human(0), "0 bytes");
    }

    #[test]
    fn levels_say_how_many_members_they_need() {
        let least: Vec<usize> = LEVELS.iter().map(|l| l.least()).collect();
        assert_eq!(least, [2, 2, 3, 4, 3]);
        assert_eq!(Level::Raid0.check(2, 1), Err(RaidError::Spares));
        assert!(Level::Raid5.check(3, 2).is_ok());
        assert!(matches!(
            Level::Raid6.check(3, 9),
            Err(RaidError::TooFew { .. })
        ));
        assert_eq!(Level::from_word("10"), Some(Level::Raid10));
        assert_eq!(Level::from_word("raid-5"), Some(Level::Raid5));
        assert_eq!(Level::from_word("raid-4"), None);
    }

    #[test]
    fn mount_points_are_absolute_paths() {
        assert!(is_mount_point("/") && is_mount_point("/srv/data"));
        for bad in ["", "srv", "/a b", "none"] {
            assert!(!is_mount_point(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn partitions_never_take_more_than_the_disk_has(disk in 0..u64::MAX / 4, asked in prop::collection::vec(prop::option::of(any::<u64>()), 0..6)) {
            let mut used = 0;
            for a in asked {
                if let Ok(size) = carve(a, free(disk, used)) {
                    prop_assert_eq!(size % ALIGNMENT, 0);
                    prop_assert!(size >= MIN_PARTITION);
                    prop_assert!(a.is_none_or(|a| size <= a));
                    used += size;
                }
            }
            prop_assert!(used == 0 || ALIGNMENT + used + TAIL <= disk, "the table and its copy keep their place");
        }

        #[test]
        fn volumes_add_up_to_at_most_their_group(members in prop::collection::vec(0..1_u64 << 44, 1..6), asked in prop::collection::vec(prop::option::of(0..1_u64 << 44), 0..6)) {
            let whole = volume_group(&members);
            prop_assert_eq!(whole % EXTENT, 0);
            prop_assert!(whole <= members.iter().sum::<u64>());
            let mut used = 0;
            for a in asked {
                used += carve(a, whole - used).unwrap_or(0);
            }
            prop_assert!(used <= whole);
        }

        #[test]
        fn a_raid_is_never_larger_than_its_members(n in 2_usize..12, least in 0..1_u64 << 44, more in 0..1_u64 << 40) {
            let mut members = vec![least; n];
            members[0] += more;
            for l in LEVELS {
                let size = l.size(&members);
                prop_assert!(size <= members.iter().sum::<u64>());
                if l.check(n, 0).is_ok() && least > RAID_OVERHEAD {
                    prop_assert!(size >= least - RAID_OVERHEAD);
                }
                prop_assert_eq!(size, l.size(&vec![least; n]), "the smallest member counts");
            }
        }

        #[test]
        fn names_are_never_given_twice(n in 0_usize..12) {
            let mut taken: Vec<String> = Vec::new();
            for _ in 0..n {
                let refs: Vec<&str> = taken.iter().map(String::as_str).collect();
                let next = next_name("md", &refs);
                prop_assert!(!taken.contains(&next));
                taken.push(next);
            }
        }
    }
}
