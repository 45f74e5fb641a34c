//! Layouts as steps: what is made on which device, in an order in which each step follows what it needs.

use std::collections::HashMap;

use super::{Level, RaidError, SizeError, carve, free, volume_group};
use crate::layout::{
    self, ALIGNMENT, EFI_SIZE, Layout, LayoutError, MIN_BOOT, MIN_ROOT, Size, Want,
};

/// Bytes of `/boot` where the boot loader cannot read the root.
pub const BOOT_BESIDE: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// A device of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dev {
    /// A physical disk, by its id.
    Disk(i64),
    /// What a step makes, by its index.
    Made(usize),
}

/// A file system and where it is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fs {
    /// `ext4`, `fat32`, …
    pub fstype: String,
    /// Label.
    pub label: String,
    /// Where.
    pub mount_point: Option<String>,
    /// How.
    pub mount_options: String,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An empty partition table.
    Table {
        /// On this disk.
        disk: Dev,
        /// `GPT` or `MBR`.
        kind: &'static str,
    },
    /// A partition.
    Partition {
        /// Of this disk.
        disk: Dev,
        /// Its number.
        number: u32,
        /// Bytes.
        size: u64,
        /// Whether the firmware boots from it.
        bootable: bool,
    },
    /// A file system.
    Format {
        /// On this device.
        on: Dev,
        /// Which.
        fs: Fs,
    },
    /// A file system without a device.
    Special {
        /// Which.
        fs: Fs,
    },
    /// A volume group.
    VolumeGroup {
        /// Its name.
        name: String,
        /// Of these.
        members: Vec<Dev>,
    },
    /// A logical volume.
    Volume {
        /// Of the group that this step makes.
        group: usize,
        /// Its name, without the group's.
        name: String,
        /// Bytes.
        size: u64,
    },
    /// A cache set.
    CacheSet {
        /// On this device.
        on: Dev,
    },
    /// A bcache device.
    Bcache {
        /// Its name.
        name: String,
        /// The slow device.
        backing: Dev,
        /// The step that makes its cache set.
        set: usize,
        /// How it caches.
        mode: String,
    },
    /// A RAID.
    Raid {
        /// Its name.
        name: String,
        /// Its level.
        level: Level,
        /// Of these.
        members: Vec<Dev>,
        /// In reserve.
        spares: Vec<Dev>,
    },
    /// A datastore of ESXi.
    Datastore {
        /// Its name.
        name: String,
        /// Of these.
        members: Vec<Dev>,
    },
}

/// A disk that a layout can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its id.
    pub id: i64,
    /// Bytes.
    pub size: u64,
    /// Whether it has no moving parts.
    pub ssd: bool,
}

/// What a layout can be told; by default what it does untold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Size of `/boot`; no such partition without one, where there need not be one.
    pub boot_size: Option<Size>,
    /// Size of the root; what is left without one.
    pub root_size: Option<Size>,
    /// The disk of the root; the boot disk without one.
    pub root_device: Option<i64>,
    /// Name of the volume group: `vgroot`.
    pub vg_name: Option<String>,
    /// Name of the logical volume: `lvroot`.
    pub lv_name: Option<String>,
    /// Size of the logical volume; all without one.
    pub lv_size: Option<Size>,
    /// The disk that caches; the smallest SSD that is free without one.
    pub cache_device: Option<i64>,
    /// How it caches: `writethrough`.
    pub cache_mode: Option<String>,
    /// Size of the cache; all without one.
    pub cache_size: Option<Size>,
    /// Whether the cache is the whole disk rather than a partition.
    pub cache_no_part: bool,
}

/// Why a layout cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Partitions do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A size of this option does not fit.
    #[error("{error}")]
    Size {
        /// The option.
        field: &'static str,
        /// Why.
        #[source]
        error: SizeError,
    },
    /// The members are no RAID.
    #[error(transparent)]
    Raid(#[from] RaidError),
    /// The boot disk would have nothing to boot from.
    #[error("The boot disk needs a partition for /boot when the root is on another disk.")]
    NeedsBoot,
    /// A disk that is both cached and caching.
    #[error("The disk of the root or of the boot loader cannot cache.")]
    CachesItself,
    /// What a custom layout says is no layout.
    #[error("The custom layout is wrong: {0}")]
    Custom(String),
}

impl PlanError {
    /// The option that is to blame.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Layout(LayoutError::BootTooSmall) | Self::NeedsBoot => "boot_size",
            Self::Layout(LayoutError::RootTooSmall | LayoutError::TooLarge { .. }) => "root_size",
            Self::Layout(LayoutError::DiskTooSmall { .. }) | Self::Raid(_) => "__all__",
            Self::Size { field, .. } => field,
            Self::CachesItself => "cache_device",
            Self::Custom(_) => "storage_layout",
        }
    }
}

/// The machine that a layout is for.
#[derive(Clone, Debug)]
pub struct Ground<'a> {
    /// Its physical disks.
    pub disks: &'a [Disk],
    /// The one that it boots from.
    pub boot: &'a Disk,
    /// Whether it needs an EFI system partition.
    pub efi: bool,
}

/// The steps of a layout. [`Layout::Custom`] has none of its own: see [`super::custom`].
///
/// # Errors
/// When it does not fit.
pub fn steps(layout: Layout, on: &Ground<'_>, o: &Options) -> Result<Vec<Step>, PlanError> {
    match layout {
        Layout::Blank | Layout::Custom => Ok(Vec::new()),
        Layout::Flat => flat(on, o),
        Layout::Lvm => lvm(on, o),
        Layout::Bcache => bcache(on, o),
        Layout::Vmfs6 => vmfs(on, o, &VMFS6, 3),
        Layout::Vmfs7 => vmfs(on, o, &VMFS7, 8),
    }
}

/// Partitions for firmware and boot loader and one for the root, and the device of the root.
fn base(on: &Ground<'_>, o: &Options) -> Result<(Vec<Step>, Dev), PlanError> {
    let root = o
        .root_device
        .and_then(|id| on.disks.iter().find(|d| d.id == id))
        .unwrap_or(on.boot);
    let plans = if root.id == on.boot.id {
        let wants = layout::flat(on.efi, o.boot_size, o.root_size);
        vec![(on.boot, wants)]
    } else {
        let mut first: Vec<Want> = on.efi.then_some(Want::Efi).into_iter().collect();
        first.extend(o.boot_size.map(Want::Boot));
        if first.is_empty() {
            return Err(PlanError::NeedsBoot);
        }
        vec![(on.boot, first), (root, vec![Want::Root(o.root_size)])]
    };
    let mut out = Vec::new();
    let mut at = Dev::Disk(root.id);
    for (disk, wants) in plans {
        let disk_of = Dev::Disk(disk.id);
        out.push(Step::Table {
            disk: disk_of,
            kind: "GPT",
        });
        for p in layout::partitions(disk.size, &wants)? {
            let made = Dev::Made(out.len());
            out.push(Step::Partition {
                disk: disk_of,
                number: p.number,
                size: p.size,
                bootable: p.bootable,
            });
            if p.mount_point == "/" {
                at = made;
            } else {
                out.push(Step::Format {
                    on: made,
                    fs: fs(p.fstype, p.label, p.mount_point),
                });
            }
        }
    }
    Ok((out, at))
}

fn fs(fstype: &str, label: &str, at: &str) -> Fs {
    Fs {
        fstype: fstype.to_owned(),
        label: label.to_owned(),
        mount_point: Some(at.to_owned()),
        mount_options: String::new(),
    }
}

fn root_on(on: Dev) -> Step {
    Step::Format {
        on,
        fs: fs("ext4", "root", "/"),
    }
}

fn flat(on: &Ground<'_>, o: &Options) -> Result<Vec<Step>, PlanError> {
    let (mut out, at) = base(on, o)?;
    out.push(root_on(at));
    Ok(out)
}

fn size_of(steps: &[Step], dev: Dev) -> u64 {
    match dev {
        Dev::Made(n) => match steps.get(n) {
            Some(Step::Partition { size, .. } | Step::Volume { size, .. }) => *size,
            _ => 0,
        },
        Dev::Disk(_) => 0,
    }
}

fn lvm(on: &Ground<'_>, o: &Options) -> Result<Vec<Step>, PlanError> {
    let (mut out, at) = base(on, o)?;
    let whole = volume_group(&[size_of(&out, at)]);
    let size_error = |error| PlanError::Size {
        field: "lv_size",
        error,
    };
    let size = carve(o.lv_size.map(|s| s.on(whole)), whole).map_err(size_error)?;
    if o.lv_size.is_some() && size < MIN_ROOT {
        return Err(size_error(SizeError::TooSmall { least: MIN_ROOT }));
    }
    let group = out.len();
    out.push(Step::VolumeGroup {
        name: o.vg_name.clone().unwrap_or_else(|| "vgroot".to_owned()),
        members: vec![at],
    });
    out.push(Step::Volume {
        group,
        name: o.lv_name.clone().unwrap_or_else(|| "lvroot".to_owned()),
        size,
    });
    out.push(root_on(Dev::Made(group + 1)));
    Ok(out)
}

fn bcache(on: &Ground<'_>, o: &Options) -> Result<Vec<Step>, PlanError> {
    let root = o.root_device.unwrap_or(on.boot.id);
    let free_ssd = || {
        let other = |d: &&Disk| d.ssd && d.id != on.boot.id && d.id != root;
        on.disks.iter().filter(other).min_by_key(|d| (d.size, d.id))
    };
    let cache = match o.cache_device {
        Some(id) if id == on.boot.id || id == root => return Err(PlanError::CachesItself),
        Some(id) => on.disks.iter().find(|d| d.id == id),
        None => free_ssd(),
    };
    let Some(cache) = cache else {
        // Without a disk that could cache, it is the flat layout.
        return flat(on, o);
    };
    let mut o = o.clone();
    o.boot_size = o.boot_size.or(Some(Size::Bytes(BOOT_BESIDE)));
    let (mut out, at) = base(on, &o)?;
    let disk = Dev::Disk(cache.id);
    let mut device = disk;
    if !o.cache_no_part {
        out.push(Step::Table { disk, kind: "GPT" });
        let asked = o.cache_size.map(|s| s.on(cache.size));
        let size = carve(asked, free(cache.size, 0)).map_err(|error| PlanError::Size {
            field: "cache_size",
            error,
        })?;
        device = Dev::Made(out.len());
        out.push(Step::Partition {
            disk,
            number: 1,
            size,
            bootable: false,
        });
    }
    let set = out.len();
    out.push(Step::CacheSet { on: device });
    out.push(Step::Bcache {
        name: "bcache0".to_owned(),
        backing: at,
        set,
        mode: o.cache_mode.unwrap_or_else(|| "writethrough".to_owned()),
    });
    out.push(root_on(Dev::Made(set + 1)));
    Ok(out)
}

/// Numbers and MiB of ESXi's partitions; none is what is left.
type Fixed = [(u32, Option<u64>)];
const VMFS6: [(u32, Option<u64>); 8] = [
    (1, Some(3)),
    (2, Some(4096)),
    (3, None),
    (5, Some(249)),
    (6, Some(249)),
    (7, Some(109)),
    (8, Some(285)),
    (9, Some(2560)),
];
const VMFS7: [(u32, Option<u64>); 5] = [
    (1, Some(100)),
    (5, Some(4095)),
    (6, Some(4095)),
    (7, Some(24_474)),
    (8, None),
];

fn vmfs(on: &Ground<'_>, o: &Options, parts: &Fixed, store: u32) -> Result<Vec<Step>, PlanError> {
    let root = o
        .root_device
        .and_then(|id| on.disks.iter().find(|d| d.id == id))
        .unwrap_or(on.boot);
    let fixed: u64 = parts.iter().filter_map(|(_, m)| *m).map(|m| m * MIB).sum();
    // Every start is moved to the next unit.
    let taken: u64 = parts
        .iter()
        .filter_map(|(_, m)| *m)
        .map(|m| (m * MIB).div_ceil(ALIGNMENT) * ALIGNMENT)
        .sum();
    debug_assert!(taken >= fixed, "rounding up takes more");
    let left = free(root.size, taken);
    if left < ALIGNMENT {
        return Err(LayoutError::DiskTooSmall { size: root.size }.into());
    }
    let rest =
        carve(o.root_size.map(|s| s.on(root.size)), left).map_err(|error| PlanError::Size {
            field: "root_size",
            error,
        })?;
    let disk = Dev::Disk(root.id);
    let mut out = vec![Step::Table { disk, kind: "GPT" }];
    let mut member = disk;
    for (number, mib) in parts {
        if *number == store {
            member = Dev::Made(out.len());
        }
        out.push(Step::Partition {
            disk,
            number: *number,
            size: mib.map_or(rest, |m| m * MIB),
            bootable: false,
        });
    }
    out.push(Step::Datastore {
        name: "datastore1".to_owned(),
        members: vec![member],
    });
    Ok(out)
}

/// What is wrong with a plan on disks of these sizes: two uses of one device, a step that uses what comes
/// later, partitions that do not fit. Nothing for a plan that can be carried out.
#[must_use]
pub fn fault(steps: &[Step], disks: &[Disk]) -> Option<String> {
    let mut used: HashMap<Dev, usize> = HashMap::new();
    let mut parts: HashMap<Dev, u64> = HashMap::new();
    let mut numbers: HashMap<(Dev, u32), usize> = HashMap::new();
    let mut mounts: HashMap<&str, usize> = HashMap::new();
    for (n, step) in steps.iter().enumerate() {
        let holds: Vec<Dev> = match step {
            Step::Table { .. } | Step::Volume { .. } | Step::Special { .. } => Vec::new(),
            Step::Partition {
                disk, number, size, ..
            } => {
                *parts.entry(*disk).or_default() += size.div_ceil(ALIGNMENT) * ALIGNMENT;
                if numbers.insert((*disk, *number), n).is_some() {
                    return Some(format!("step {n}: the number {number} twice"));
                }
                if *size == 0 {
                    return Some(format!("step {n}: an empty partition"));
                }
                Vec::new()
            }
            Step::Format { on, .. } | Step::CacheSet { on } => vec![*on],
            Step::VolumeGroup { members, .. } | Step::Datastore { members, .. } => members.clone(),
            Step::Bcache { backing, .. } => vec![*backing],
            Step::Raid {
                members, spares, ..
            } => members.iter().chain(spares).copied().collect(),
        };
        if let Step::Format { fs, .. } | Step::Special { fs } = step
            && let Some(at) = fs.mount_point.as_deref().filter(|m| *m != "none")
            && mounts.insert(at, n).is_some()
        {
            return Some(format!("step {n}: {at} twice"));
        }
        for d in holds {
            if let Dev::Made(m) = d
                && m >= n
            {
                return Some(format!("step {n} uses step {m}"));
            }
            if used.insert(d, n).is_some() {
                return Some(format!("step {n}: a device is used twice"));
            }
        }
    }
    for (disk, bytes) in &parts {
        if used.contains_key(disk) {
            return Some("a disk has partitions and another use".to_owned());
        }
        if let Dev::Disk(id) = disk {
            let size = disks.iter().find(|d| d.id == *id).map_or(0, |d| d.size);
            if *bytes > layout::room(size) {
                return Some(format!("{bytes} bytes of partitions on {size}"));
            }
        }
    }
    None
}

// The least sizes are the planner's of single disks.
const _: () = assert!(BOOT_BESIDE >= MIN_BOOT && EFI_SIZE.is_multiple_of(ALIGNMENT));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn disks(sizes: &[(u64, bool)]) -> Vec<Disk> {
        (1..)
            .zip(sizes)
            .map(|(id, (size, ssd))| Disk {
                id,
                size: *size,
                ssd: *ssd,
            })
            .collect()
    }

    fn plan(layout: Layout, d: &[Disk], o: &Options) -> Result<Vec<Step>, PlanError> {
        let ground = Ground {
            disks: d,
            boot: &d[0],
            efi: true,
        };
        steps(layout, &ground, o)
    }

    #[test]
    fn lvm_has_the_root_on_all_of_a_group_on_the_rest_of_the_disk() {
        let d = disks(&[(64 * GIB, false)]);
        let steps = plan(Layout::Lvm, &d, &Options::default()).unwrap();
        assert!(
            matches!(&steps[..], [Step::Table { .. }, Step::Partition { bootable: true, .. }, Step::Format { .. }, Step::Partition { size, .. },
                Step::VolumeGroup { name, members }, Step::Volume { name: lv, size: whole, .. }, Step::Format { on: Dev::Made(5), fs }]
                if name == "vgroot" && members == &[Dev::Made(3)] && lv == "lvroot" && *whole == volume_group(&[*size])
                    && fs.mount_point.as_deref() == Some("/")),
            "{steps:?}"
        );
        let half = Options {
            lv_size: Some(Size::Share(5_000)),
            ..Options::default()
        };
        let Some(Step::Volume { size, .. }) = plan(Layout::Lvm, &d, &half)
            .unwrap()
            .into_iter()
            .find(|s| matches!(s, Step::Volume { .. }))
        else {
            panic!("no volume");
        };
        assert!(size > 31 * GIB && size < 32 * GIB);
        let much = Options {
            lv_size: Some(Size::Bytes(65 * GIB)),
            ..Options::default()
        };
        assert_eq!(plan(Layout::Lvm, &d, &much).unwrap_err().field(), "lv_size");
    }

    #[test]
    fn bcache_takes_an_ssd_or_falls_back_to_flat() {
        let slow = disks(&[(64 * GIB, true), (64 * GIB, false)]);
        let o = Options::default();
        assert_eq!(
            plan(Layout::Bcache, &slow, &o),
            plan(Layout::Flat, &slow, &o)
        );
        let d = disks(&[(64 * GIB, false), (32 * GIB, true), (16 * GIB, true)]);
        let steps = plan(Layout::Bcache, &d, &o).unwrap();
        assert!(
            steps.iter().any(|s| matches!(
                s,
                Step::Partition {
                    disk: Dev::Disk(3),
                    ..
                }
            )),
            "the smallest: {steps:?}"
        );
        assert!(steps.iter().any(
            |s| matches!(s, Step::Format { fs, .. } if fs.mount_point.as_deref() == Some("/boot"))
        ));
        assert!(
            steps
                .iter()
                .any(|s| matches!(s, Step::Bcache { mode, .. } if mode == "writethrough"))
        );
        let whole = Options {
            cache_no_part: true,
            cache_device: Some(2),
            ..Options::default()
        };
        let steps = plan(Layout::Bcache, &d, &whole).unwrap();
        assert!(
            steps
                .iter()
                .any(|s| matches!(s, Step::CacheSet { on: Dev::Disk(2) }))
        );
        let itself = Options {
            cache_device: Some(1),
            ..Options::default()
        };
        assert_eq!(
            plan(Layout::Bcache, &d, &itself),
            Err(PlanError::CachesItself)
        );
    }

    #[test]
    fn esxi_has_its_partitions_and_a_datastore_on_the_rest() {
        let d = disks(&[(64 * GIB, false)]);
        for (layout, numbers, store) in [
            (Layout::Vmfs6, vec![1, 2, 3, 5, 6, 7, 8, 9], 3),
            (Layout::Vmfs7, vec![1, 5, 6, 7, 8], 8),
        ] {
            let steps = plan(layout, &d, &Options::default()).unwrap();
            let seen: Vec<u32> = steps
                .iter()
                .filter_map(|s| {
                    if let Step::Partition { number, .. } = s {
                        Some(*number)
                    } else {
                        None
                    }
                })
                .collect();
            assert_eq!(seen, numbers);
            let Some(Step::Datastore { name, members }) = steps.last() else {
                panic!("no datastore");
            };
            assert_eq!(name, "datastore1");
            let Dev::Made(n) = members[0] else {
                panic!("not a partition")
            };
            assert!(matches!(steps[n], Step::Partition { number, .. } if number == store));
        }
        assert!(
            plan(
                Layout::Vmfs7,
                &disks(&[(16 * GIB, false)]),
                &Options::default()
            )
            .is_err()
        );
    }

    #[test]
    fn faults_are_found() {
        let d = disks(&[(8 * GIB, false)]);
        let table = Step::Table {
            disk: Dev::Disk(1),
            kind: "GPT",
        };
        let part = |number, size| Step::Partition {
            disk: Dev::Disk(1),
            number,
            size,
            bootable: false,
        };
        assert_eq!(
            fault(&[table.clone(), part(1, GIB), root_on(Dev::Made(1))], &d),
            None
        );
        for bad in [
            vec![part(1, GIB), part(1, GIB)],
            vec![part(1, 9 * GIB)],
            vec![part(1, GIB), root_on(Dev::Disk(1))],
            vec![part(1, GIB), root_on(Dev::Made(0)), root_on(Dev::Made(0))],
            vec![root_on(Dev::Made(1)), part(1, GIB)],
        ] {
            assert!(fault(&bad, &d).is_some(), "{bad:?}");
        }
    }

    fn an_option() -> impl Strategy<Value = Option<Size>> {
        prop::option::of(prop_oneof![
            (0..64 * GIB).prop_map(Size::Bytes),
            (0_u16..=10_000).prop_map(Size::Share)
        ])
    }

    proptest! {
        #[test]
        fn every_plan_fits_and_uses_each_device_once(
            sizes in prop::collection::vec((0..128 * GIB, any::<bool>()), 1..5),
            efi: bool,
            (boot_size, root_size, lv_size, cache_size) in (an_option(), an_option(), an_option(), an_option()),
            (root_device, cache_device) in (prop::option::of(1_i64..6), prop::option::of(1_i64..6)),
            cache_no_part: bool,
        ) {
            let d = disks(&sizes);
            let o = Options { boot_size, root_size, lv_size, cache_size, root_device, cache_device, cache_no_part, ..Options::default() };
            for l in layout::ALL {
                let ground = Ground { disks: &d, boot: &d[0], efi };
                if let Ok(steps) = steps(l, &ground, &o) {
                    prop_assert_eq!(fault(&steps, &d), None, "{:?}: {:?}", l, steps);
                }
            }
        }

        #[test]
        fn large_disks_take_every_layout(size in 48 * GIB..(16 << 40), efi: bool) {
            let d = disks(&[(size, false), (size, true)]);
            for l in layout::ALL {
                let ground = Ground { disks: &d, boot: &d[0], efi };
                prop_assert!(steps(l, &ground, &Options::default()).is_ok(), "{:?}", l);
            }
        }
    }
}
