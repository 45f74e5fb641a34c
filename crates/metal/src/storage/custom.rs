//! The custom layout: what a machine's commissioning scripts ask for in `storage-extra`, as steps.
//!
//! `{"layout": {NAME: {"type": "disk"|"lvm"|"raid"|"bcache"|"special", …}}, "mounts": {PATH: {"device": NAME,
//! "options": TEXT}}}`. Names are those of disks, of the partitions that are listed (`sda1`), of volumes and of
//! what the entries make.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::plan::{Dev, Disk, Fs, PlanError, Step, fault};
use super::{CACHE_MODES, FORMATS, Level, SPECIAL, carve, free, is_mount_point, volume_group};
use crate::layout::Size;

/// Most entries of a custom layout.
pub const MAX_ENTRIES: usize = 1024;

fn wrong(what: impl Into<String>) -> PlanError {
    PlanError::Custom(what.into())
}

fn text<'a>(entry: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    entry.get(key).and_then(Value::as_str)
}

fn names(entry: &Map<String, Value>, key: &str) -> Result<Vec<String>, PlanError> {
    match entry.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .map(|v| {
                v.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong(format!("{key} has something that is no name")))
            })
            .collect(),
        Some(_) => Err(wrong(format!("{key} is no list"))),
    }
}

/// What is made so far.
struct Builder<'a> {
    disks: &'a HashMap<String, Disk>,
    steps: Vec<Step>,
    /// Devices by name.
    made: HashMap<String, Dev>,
    /// Their sizes.
    sizes: HashMap<Dev, u64>,
    /// File systems by the name of their device, before they are mounted.
    formats: BTreeMap<String, (Option<Dev>, Fs)>,
}

impl Builder<'_> {
    fn dev(&self, name: &str) -> Result<Dev, PlanError> {
        self.made
            .get(name)
            .copied()
            .or_else(|| self.disks.get(name).map(|d| Dev::Disk(d.id)))
            .ok_or_else(|| wrong(format!("there is no device {name}")))
    }

    fn size(&self, dev: Dev) -> u64 {
        let disk = |id| {
            self.disks
                .values()
                .find(|d| d.id == id)
                .map_or(0, |d| d.size)
        };
        match dev {
            Dev::Disk(id) => disk(id),
            Dev::Made(_) => self.sizes.get(&dev).copied().unwrap_or(0),
        }
    }

    fn make(&mut self, name: &str, step: Step, size: u64) -> Result<Dev, PlanError> {
        let dev = Dev::Made(self.steps.len());
        self.steps.push(step);
        self.sizes.insert(dev, size);
        if self.disks.contains_key(name) || self.made.insert(name.to_owned(), dev).is_some() {
            return Err(wrong(format!("two devices are called {name}")));
        }
        Ok(dev)
    }

    fn format(
        &mut self,
        name: &str,
        on: Option<Dev>,
        entry: &Map<String, Value>,
        known: &[&str],
    ) -> Result<(), PlanError> {
        let Some(fstype) = text(entry, "fs") else {
            return Ok(());
        };
        if !known.contains(&fstype) {
            return Err(wrong(format!(
                "{name} cannot have the file system {fstype}; there are {}",
                known.join(", ")
            )));
        }
        let fs = Fs {
            fstype: fstype.to_owned(),
            // Swap has no mount point of its own.
            mount_point: (fstype == "swap").then(|| "none".to_owned()),
            ..Fs::default()
        };
        self.formats.insert(name.to_owned(), (on, fs));
        Ok(())
    }

    fn disk(&mut self, name: &str, entry: &Map<String, Value>) -> Result<(), PlanError> {
        let disk = self
            .disks
            .get(name)
            .ok_or_else(|| wrong(format!("there is no disk {name}")))?;
        let (at, size) = (Dev::Disk(disk.id), disk.size);
        let parts = match entry.get("partitions") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(list)) => list.as_slice(),
            Some(_) => return Err(wrong(format!("the partitions of {name} are no list"))),
        };
        if parts.is_empty() {
            return self.format(name, Some(at), entry, &FORMATS);
        }
        let kind = match text(entry, "ptable") {
            None | Some("gpt") => "GPT",
            Some("mbr") => "MBR",
            Some(other) => return Err(wrong(format!("{name}: {other} is no partition table"))),
        };
        self.steps.push(Step::Table { disk: at, kind });
        let mut used = 0;
        for (part, number) in parts.iter().zip(1_u32..) {
            let part = part
                .as_object()
                .ok_or_else(|| wrong(format!("a partition of {name} is no object")))?;
            let own = text(part, "name").map_or_else(|| format!("{name}{number}"), str::to_owned);
            let asked = text(part, "size")
                .map(str::parse::<Size>)
                .transpose()
                .map_err(|e| wrong(format!("{own}: {e}")))?
                .map(|s| s.on(size));
            let bytes = carve(asked, free(size, used)).map_err(|e| wrong(format!("{own}: {e}")))?;
            used += bytes;
            let step = Step::Partition {
                disk: at,
                number,
                size: bytes,
                bootable: part
                    .get("bootable")
                    .and_then(Value::as_bool)
                    .unwrap_or(false),
            };
            let dev = self.make(&own, step, bytes)?;
            self.format(&own, Some(dev), part, &FORMATS)?;
        }
        Ok(())
    }

    fn members(&self, entry: &Map<String, Value>, key: &str) -> Result<Vec<Dev>, PlanError> {
        names(entry, key)?.iter().map(|n| self.dev(n)).collect()
    }

    fn lvm(&mut self, name: &str, entry: &Map<String, Value>) -> Result<(), PlanError> {
        let members = self.members(entry, "members")?;
        if members.is_empty() {
            return Err(wrong(format!("{name} has no members")));
        }
        let sizes: Vec<u64> = members.iter().map(|d| self.size(*d)).collect();
        let whole = volume_group(&sizes);
        let group = self.steps.len();
        self.steps.push(Step::VolumeGroup {
            name: name.to_owned(),
            members,
        });
        let mut used = 0;
        for v in entry
            .get("volumes")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
        {
            let v = v
                .as_object()
                .ok_or_else(|| wrong(format!("a volume of {name} is no object")))?;
            let own =
                text(v, "name").ok_or_else(|| wrong(format!("a volume of {name} has no name")))?;
            let asked = text(v, "size")
                .map(str::parse::<Size>)
                .transpose()
                .map_err(|e| wrong(format!("{own}: {e}")))?
                .map(|s| s.on(whole));
            let size = carve(asked, whole - used).map_err(|e| wrong(format!("{own}: {e}")))?;
            used += size;
            let step = Step::Volume {
                group,
                name: own.to_owned(),
                size,
            };
            let dev = self.make(own, step, size)?;
            self.format(own, Some(dev), v, &FORMATS)?;
        }
        Ok(())
    }

    fn raid(&mut self, name: &str, entry: &Map<String, Value>) -> Result<(), PlanError> {
        let word = match entry.get("level") {
            Some(Value::Number(n)) => n.to_string(),
            Some(Value::String(s)) => s.clone(),
            _ => String::new(),
        };
        let level = Level::from_word(&word)
            .ok_or_else(|| wrong(format!("{name}: no RAID level '{word}'")))?;
        let members = self.members(entry, "members")?;
        let spares = self.members(entry, "spares")?;
        level.check(members.len(), spares.len())?;
        let sizes: Vec<u64> = members.iter().map(|d| self.size(*d)).collect();
        let step = Step::Raid {
            name: name.to_owned(),
            level,
            members,
            spares,
        };
        let dev = self.make(name, step, level.size(&sizes))?;
        self.format(name, Some(dev), entry, &FORMATS)
    }

    fn bcache(&mut self, name: &str, entry: &Map<String, Value>) -> Result<(), PlanError> {
        let device = |key: &str| {
            let own = text(entry, key).ok_or_else(|| wrong(format!("{name} has no {key}")))?;
            self.dev(own)
        };
        let (cache, backing) = (device("cache-device")?, device("backing-device")?);
        let mode = text(entry, "cache-mode").unwrap_or("writethrough");
        if !CACHE_MODES.contains(&mode) {
            return Err(wrong(format!("{name}: no cache mode '{mode}'")));
        }
        // Several bcache devices may share what caches them.
        let known = self
            .steps
            .iter()
            .position(|s| matches!(s, Step::CacheSet { on } if *on == cache));
        let set = known.unwrap_or_else(|| {
            self.steps.push(Step::CacheSet { on: cache });
            self.steps.len() - 1
        });
        let step = Step::Bcache {
            name: name.to_owned(),
            backing,
            set,
            mode: mode.to_owned(),
        };
        let size = self.size(backing);
        let dev = self.make(name, step, size)?;
        self.format(name, Some(dev), entry, &FORMATS)
    }

    fn mounts(&mut self, mounts: Option<&Value>) -> Result<(), PlanError> {
        let Some(mounts) = mounts.filter(|m| !m.is_null()) else {
            return Ok(());
        };
        let mounts = mounts
            .as_object()
            .ok_or_else(|| wrong("mounts is no object"))?;
        for (path, how) in mounts {
            if !is_mount_point(path) {
                return Err(wrong(format!("{path} is no absolute path")));
            }
            let how = how
                .as_object()
                .ok_or_else(|| wrong(format!("what is mounted at {path} is no object")))?;
            let name = text(how, "device").ok_or_else(|| wrong(format!("{path} has no device")))?;
            let (_, fs) = self
                .formats
                .get_mut(name)
                .ok_or_else(|| wrong(format!("{name} has no file system to mount at {path}")))?;
            if fs.mount_point.is_some() {
                return Err(wrong(format!("{name} is used twice")));
            }
            fs.mount_point = Some(path.clone());
            text(how, "options")
                .unwrap_or("")
                .clone_into(&mut fs.mount_options);
        }
        Ok(())
    }
}

/// The steps of a custom layout on disks with these names.
///
/// # Errors
/// What is wrong with it.
pub fn steps(extra: &Value, disks: &HashMap<String, Disk>) -> Result<Vec<Step>, PlanError> {
    let layout = extra
        .get("layout")
        .and_then(Value::as_object)
        .ok_or_else(|| wrong("it has no layout"))?;
    if layout.len() > MAX_ENTRIES {
        return Err(wrong(format!("it has more than {MAX_ENTRIES} entries")));
    }
    let mut b = Builder {
        disks,
        steps: Vec::new(),
        made: HashMap::new(),
        sizes: HashMap::new(),
        formats: BTreeMap::new(),
    };
    let mut waiting: Vec<(&String, &Map<String, Value>)> = Vec::new();
    for (name, entry) in layout {
        let entry = entry
            .as_object()
            .ok_or_else(|| wrong(format!("{name} is no object")))?;
        match text(entry, "type") {
            Some("disk") => b.disk(name, entry)?,
            Some("special") => b.format(name, None, entry, &SPECIAL)?,
            Some("lvm" | "raid" | "bcache") => waiting.push((name, entry)),
            other => {
                return Err(wrong(format!(
                    "{name} has the type {}",
                    other.unwrap_or("of nothing")
                )));
            }
        }
    }
    // An entry may need what another makes: those whose devices are there come first.
    while !waiting.is_empty() {
        let ready = |b: &Builder<'_>, entry: &Map<String, Value>| {
            let needs = ["members", "spares"]
                .iter()
                .flat_map(|k| names(entry, k).unwrap_or_default())
                .chain(
                    ["cache-device", "backing-device"]
                        .iter()
                        .filter_map(|k| text(entry, k).map(str::to_owned)),
                );
            needs.into_iter().all(|n| b.dev(&n).is_ok())
        };
        let at = waiting
            .iter()
            .position(|(_, e)| ready(&b, e))
            // What is missing is told by the one that needs it.
            .unwrap_or(0);
        let (name, entry) = waiting.remove(at);
        match text(entry, "type") {
            Some("lvm") => b.lvm(name, entry)?,
            Some("raid") => b.raid(name, entry)?,
            _ => b.bcache(name, entry)?,
        }
    }
    b.mounts(extra.get("mounts"))?;
    let mut steps = b.steps;
    for (_, (on, fs)) in b.formats {
        steps.push(match on {
            Some(on) => Step::Format { on, fs },
            None => Step::Special { fs },
        });
    }
    let all: Vec<Disk> = disks.values().cloned().collect();
    match fault(&steps, &all) {
        None => Ok(steps),
        Some(why) => Err(wrong(why)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn disks() -> HashMap<String, Disk> {
        ["sda", "sdb", "sdc", "sdd", "sde"]
            .iter()
            .zip(1..)
            .map(|(n, id)| {
                let size = 100 * GB;
                (
                    (*n).to_owned(),
                    Disk {
                        id,
                        size,
                        ssd: false,
                    },
                )
            })
            .collect()
    }

    fn example() -> Value {
        json!({
            "layout": {
                "a-raid": {"type": "raid", "level": 1, "members": ["sdb", "sdc"]},
                "a-group": {"type": "lvm", "members": ["a-raid"], "volumes": [{"name": "data", "size": "10G", "fs": "xfs"}]},
                "cached": {"type": "bcache", "cache-device": "sda3", "backing-device": "sdd", "cache-mode": "writeback", "fs": "ext4"},
                "sda": {"type": "disk", "ptable": "gpt", "partitions": [
                    {"name": "sda1", "fs": "vfat", "size": "500M", "bootable": true},
                    {"name": "sda2", "fs": "ext4", "size": "20G"},
                    {"name": "sda3", "size": "2G"}]},
                "memory": {"type": "special", "fs": "tmpfs"},
                "sde": {"type": "disk", "fs": "swap"},
            },
            "mounts": {
                "/": {"device": "sda2", "options": "noatime"},
                "/boot/efi": {"device": "sda1"},
                "/srv": {"device": "data"},
                "/srv/cached": {"device": "cached"},
                "/tmp": {"device": "memory"},
            }
        })
    }

    #[test]
    fn everything_is_made_in_an_order_that_can_be_carried_out() {
        let steps = steps(&example(), &disks()).unwrap();
        let count = |f: fn(&Step) -> bool| steps.iter().filter(|s| f(s)).count();
        assert_eq!(count(|s| matches!(s, Step::Partition { .. })), 3);
        assert_eq!(count(|s| matches!(s, Step::Format { .. })), 5);
        assert_eq!(count(|s| matches!(s, Step::Special { .. })), 1);
        assert!(steps.iter().any(|s| matches!(s, Step::Format { fs, .. }
            if fs.mount_point.as_deref() == Some("/") && fs.mount_options == "noatime")));
        let at = |f: fn(&Step) -> bool| steps.iter().position(f).unwrap();
        assert!(
            at(|s| matches!(s, Step::Raid { .. })) < at(|s| matches!(s, Step::VolumeGroup { .. }))
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (extra, why) in [
            (json!({}), "no layout"),
            (json!({"layout": {"x": {"type": "disk"}}}), "no disk x"),
            (json!({"layout": {"x": {"type": "tape"}}}), "type tape"),
            (
                json!({"layout": {"x": {"type": "raid", "level": 5, "members": ["sda", "sdb"]}}}),
                "at least 3",
            ),
            (
                json!({"layout": {"x": {"type": "lvm", "members": ["y"]}, "y": {"type": "lvm", "members": ["x"]}}}),
                "no device",
            ),
            (
                json!({"layout": {"x": {"type": "lvm", "members": ["sda"]}, "y": {"type": "lvm", "members": ["sda"]}}}),
                "twice",
            ),
            (
                json!({"layout": {"sda": {"type": "disk", "fs": "ext9"}}}),
                "ext9",
            ),
            (
                json!({"layout": {"sda": {"type": "disk", "partitions": [{"size": "101G"}]}}}),
                "too large",
            ),
            (
                json!({"layout": {}, "mounts": {"/": {"device": "sda"}}}),
                "no file system",
            ),
            (
                json!({"layout": {}, "mounts": {"x": {"device": "sda"}}}),
                "absolute",
            ),
        ] {
            let told = steps(&extra, &disks()).unwrap_err().to_string();
            assert!(told.contains(why), "{extra}: {told}");
        }
    }

    proptest! {
        #[test]
        fn a_text_that_is_bent_never_panics_nor_makes_an_impossible_plan(cut in 0_usize..900, with in "[a-z0-9\"{},:]{0,3}") {
            let mut text = example().to_string();
            let at = cut.min(text.len());
            if text.is_char_boundary(at) {
                let to = (at + with.len()).min(text.len());
                text.replace_range(at..to, &with);
            }
            if let Ok(v) = serde_json::from_str::<Value>(&text)
                && let Ok(steps) = steps(&v, &disks())
            {
                let all: Vec<Disk> = disks().values().cloned().collect();
                prop_assert_eq!(fault(&steps, &all), None);
            }
        }
    }
}
