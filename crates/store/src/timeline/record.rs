//! The record of one boot while it is written, without a database: which entries belong to it, what is
//! folded, what is kept and what is dropped.

use std::collections::VecDeque;
use std::time::Duration;

use metal::Timestamp;
use metal::boot::Purpose;
use metal::timeline::{Entry, FileOutcome, MAX_BYTES, MAX_ENTRIES, What};
use serde::{Deserialize, Serialize};

/// A machine that was not heard of for so long begins a new boot when its firmware speaks again.
pub const IDLE: Duration = Duration::from_secs(10 * 60);
/// A repeat is folded into one of the last so many entries.
pub const FOLD_WINDOW: usize = 32;
/// Entries and bytes of a boot that talk (syslog lines, progress reports, …) may not use up, so that
/// a machine that talks a lot cannot hide how its boot ended.
pub const RESERVED_ENTRIES: usize = MAX_ENTRIES / 4;
/// See [`RESERVED_ENTRIES`].
pub const RESERVED_BYTES: usize = MAX_BYTES / 4;
/// Largest entry that is kept, in bytes of JSON.
pub const MAX_ENTRY: usize = 16 * 1024;

/// How far a boot has come, as far as its record shows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing was heard from the machine itself.
    #[default]
    Silent,
    /// Its firmware or a boot loader was heard.
    Loading,
    /// A kernel was fetched, an operating system was heard, or the machine was sent to its own disk.
    Running,
}

impl Stage {
    /// The number kept in the database.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Silent => 0,
            Self::Loading => 1,
            Self::Running => 2,
        }
    }

    /// The stage for a number of the database.
    #[must_use]
    pub const fn from_number(n: i64) -> Option<Self> {
        match n {
            0 => Some(Self::Silent),
            1 => Some(Self::Loading),
            2 => Some(Self::Running),
            _ => None,
        }
    }

    /// The stage that an entry is evidence of.
    #[must_use]
    pub fn shown_by(what: &What) -> Self {
        match what {
            What::Dhcp { speaker, .. } if speaker == "os" => Self::Running,
            What::Dhcp { .. } => Self::Loading,
            What::File { path, outcome, .. } => match outcome {
                FileOutcome::Complete | FileOutcome::Aborted if is_of_an_image(path) => {
                    Self::Running
                }
                FileOutcome::Complete
                | FileOutcome::Aborted
                | FileOutcome::Probed
                | FileOutcome::NotFound
                | FileOutcome::Failed => Self::Loading,
            },
            What::Config {
                purpose: Purpose::Local,
                ..
            } => Self::Running,
            What::Config { .. } => Self::Loading,
            What::Metadata { .. }
            | What::Signal { .. }
            | What::Report { .. }
            | What::Syslog { .. } => Self::Running,
            What::Power { .. } | What::Status { .. } | What::Note { .. } => Self::Silent,
        }
    }
}

/// Whether a path is a kernel or something that only a kernel fetches.
fn is_of_an_image(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    ["kernel", "vmlinuz", "initrd", "squashfs"]
        .iter()
        .any(|w| name.contains(w))
}

/// Whether an entry may use the reserved room.
const fn is_talk(what: &What) -> bool {
    matches!(
        what,
        What::Syslog { .. }
            | What::Report { .. }
            | What::Note { .. }
            | What::File { .. }
            | What::Dhcp { .. }
    )
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A new entry of the record.
    Kept,
    /// Counted in an earlier entry.
    Folded,
    /// There is no room: counted as dropped.
    Dropped,
}

/// The record of one boot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When its first entry was seen.
    pub started: Timestamp,
    /// When its last entry was seen.
    pub last: Timestamp,
    /// How far it has come.
    pub stage: Stage,
    /// Entries kept.
    pub entries: usize,
    /// Bytes (as JSON) kept.
    pub bytes: usize,
    /// Things seen but not kept.
    pub dropped: u64,
    tail: VecDeque<Line>,
    written: Vec<(i64, String)>,
}

/// One of the last entries.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    n: i64,
    entry: Entry,
    bytes: usize,
    dirty: bool,
}

fn body(entry: &Entry) -> Option<String> {
    serde_json::to_string(entry)
        .ok()
        .filter(|b| b.len() <= MAX_ENTRY)
}

impl Record {
    /// A record that begins with an entry seen at a moment.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            last: started,
            ..Self::default()
        }
    }

    /// Adds the last entries of a stored record, oldest first: number, entry and bytes kept.
    #[must_use]
    pub fn with_tail(mut self, tail: impl IntoIterator<Item = (i64, Entry, usize)>) -> Self {
        self.tail = tail
            .into_iter()
            .map(|(n, entry, bytes)| Line {
                n,
                entry,
                bytes,
                dirty: false,
            })
            .collect();
        self
    }

    /// Whether an entry begins another boot of the machine.
    ///
    /// A power-on or a power cycle does, unless all that is known of this boot is that it was ordered
    /// (the command was repeated); one that failed only does when the machine was idle, because it has
    /// changed nothing. The firmware asking for an address does, when this boot was past its loader or
    /// idle; otherwise the firmware is trying again. So does iPXE, which is the firmware of many a network
    /// card; a loader that the firmware fetched asks before there is a kernel.
    #[must_use]
    pub fn ends_before(&self, entry: &Entry) -> bool {
        let idle = entry.first.since(self.last) >= IDLE;
        match &entry.what {
            What::Power {
                command,
                error: None,
                ..
            } if is_start(command) => idle || self.stage > Stage::Silent,
            What::Power {
                command,
                error: Some(_),
                ..
            } if is_start(command) => idle,
            What::Dhcp {
                message, speaker, ..
            } if message == "discover" && matches!(speaker.as_str(), "firmware" | "ipxe") => {
                idle || self.stage == Stage::Running
            }
            _ => false,
        }
    }

    /// Takes an entry into the record: folded into one of the last [`FOLD_WINDOW`] entries where it is a
    /// repeat, as a new one while there is room, or else counted as dropped.
    pub fn take(&mut self, entry: Entry) -> Taken {
        self.started = self.started.min(entry.first);
        self.last = self.last.max(entry.last);
        self.stage = self.stage.max(Stage::shown_by(&entry.what));
        for line in self.tail.iter_mut().rev() {
            let mut folded = line.entry.clone();
            if !folded.fold(&entry) {
                continue;
            }
            let Some(bytes) = body(&folded).map(|b| b.len()) else {
                break;
            };
            if self.bytes - line.bytes + bytes > MAX_BYTES {
                break;
            }
            self.bytes = self.bytes - line.bytes + bytes;
            (line.entry, line.bytes, line.dirty) = (folded, bytes, true);
            return Taken::Folded;
        }
        let (max_entries, max_bytes) = if is_talk(&entry.what) {
            (MAX_ENTRIES - RESERVED_ENTRIES, MAX_BYTES - RESERVED_BYTES)
        } else {
            (MAX_ENTRIES, MAX_BYTES)
        };
        let bytes = body(&entry).map_or(usize::MAX, |b| b.len());
        if self.entries >= max_entries || self.bytes.saturating_add(bytes) > max_bytes {
            self.dropped = self.dropped.saturating_add(u64::from(entry.count));
            return Taken::Dropped;
        }
        let n = i64::try_from(self.entries).unwrap_or(i64::MAX);
        self.entries += 1;
        self.bytes += bytes;
        self.tail.push_back(Line {
            n,
            entry,
            bytes,
            dirty: true,
        });
        if self.tail.len() > FOLD_WINDOW
            && let Some(line) = self.tail.pop_front()
            && line.dirty
        {
            self.written.extend(body(&line.entry).map(|b| (line.n, b)));
        }
        Taken::Kept
    }

    /// What is to be written: numbers and bodies of the entries that are new or changed since the last call.
    pub fn flush(&mut self) -> Vec<(i64, String)> {
        for line in &mut self.tail {
            if std::mem::take(&mut line.dirty) {
                self.written.extend(body(&line.entry).map(|b| (line.n, b)));
            }
        }
        std::mem::take(&mut self.written)
    }
}

fn is_start(command: &str) -> bool {
    matches!(command, "on" | "cycle")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metal::timeline::{PowerFault, PowerFaultClass};
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64, what: What) -> Entry {
        Entry::new(Timestamp(seconds * 1_000_000), what)
    }

    fn dhcp(message: &str, speaker: &str) -> What {
        What::Dhcp {
            message: message.into(),
            arch: None,
            speaker: speaker.into(),
            boot_file: None,
        }
    }

    fn power(command: &str, error: Option<PowerFault>) -> What {
        What::Power {
            command: command.into(),
            driver: "ipmi".into(),
            error,
        }
    }

    fn file(path: &str) -> What {
        What::File {
            transport: "http".into(),
            path: path.into(),
            bytes: 1,
            size: None,
            outcome: FileOutcome::Complete,
        }
    }

    fn refused() -> Option<PowerFault> {
        Some(PowerFault {
            class: PowerFaultClass::Auth,
            message: "refused".into(),
        })
    }

    /// The boot that each entry belongs to.
    fn boots(entries: Vec<Entry>) -> Vec<usize> {
        let mut now: Option<Record> = None;
        let mut boot = 0;
        entries
            .into_iter()
            .map(|e| {
                if now.as_ref().is_none_or(|r| r.ends_before(&e)) {
                    now = Some(Record::new(e.first));
                    boot += 1;
                }
                now.as_mut().unwrap().take(e);
                boot
            })
            .collect()
    }

    #[test]
    fn a_whole_boot_is_one_and_the_reboot_is_another() {
        let seen = vec![
            at(0, power("on", None)),
            at(1, power("on", None)),
            at(20, dhcp("discover", "firmware")),
            at(21, file("undionly.kpxe")),
            at(22, dhcp("discover", "ipxe")),
            at(23, file("images/0123/boot-kernel")),
            at(
                60,
                What::Metadata {
                    method: "GET".into(),
                    path: "/MAAS/metadata/".into(),
                    status: 200,
                },
            ),
            at(200, dhcp("discover", "firmware")),
            at(
                201,
                What::Config {
                    loader: "grub".into(),
                    path: "grub.cfg".into(),
                    purpose: Purpose::Local,
                },
            ),
            at(230, dhcp("discover", "os")),
            at(300, power("cycle", None)),
        ];
        assert_eq!(boots(seen), [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
    }

    #[test]
    fn a_card_whose_firmware_is_ipxe_begins_a_boot_as_any_other() {
        let local = || What::Config {
            loader: "ipxe".into(),
            path: "ipxe.cfg-52-54-00-77-00-01".into(),
            purpose: Purpose::Local,
        };
        let seen = vec![
            at(0, power("cycle", None)),
            at(3, dhcp("discover", "ipxe")),
            at(20, file("images/0123/boot-kernel")),
            at(30, dhcp("discover", "os")),
            at(300, dhcp("discover", "ipxe")),
            at(316, dhcp("discover", "ipxe")),
            at(330, local()),
            // Somebody pressed its reset button.
            at(400, dhcp("discover", "ipxe")),
            at(416, local()),
        ];
        assert_eq!(boots(seen), [1, 1, 1, 1, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn firmware_that_tries_again_stays_in_its_boot_until_it_was_idle() {
        let seen = vec![
            at(0, dhcp("discover", "firmware")),
            at(60, dhcp("discover", "firmware")),
            at(120, file("bootx64.efi")),
            at(180, dhcp("discover", "firmware")),
            at(180 + 601, dhcp("discover", "firmware")),
        ];
        assert_eq!(boots(seen), [1, 1, 1, 1, 2]);
    }

    #[test]
    fn a_power_command_that_failed_does_not_end_a_boot_that_goes_on() {
        let seen = vec![
            at(0, dhcp("discover", "os")),
            at(5, power("on", refused())),
            at(6, power("off", None)),
            at(700, power("on", refused())),
            at(701, power("on", None)),
        ];
        assert_eq!(boots(seen), [1, 1, 1, 2, 2]);
    }

    fn any_what() -> impl Strategy<Value = What> {
        prop_oneof![
            4 => ("[ab]", 0..40usize).prop_map(|(app, n)| What::Syslog { severity: 6, app, text: "x".repeat(n * 50) }),
            2 => "[a-c]/(kernel|grub)".prop_map(|p| file(&p)),
            1 => Just(dhcp("discover", "firmware")),
            1 => Just(power("on", None)),
            1 => Just(power("off", refused())),
            1 => "[a-z]{1,20}".prop_map(|text| What::Note { text }),
            1 => Just(What::Note { text: "y".repeat(MAX_ENTRY) }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever comes: the bounds hold, everything is kept, folded or counted as dropped, and what is
        /// written down is what the counts say.
        #[test]
        fn a_record_is_bounded_and_counts_everything(
            seen in proptest::collection::vec((0..3i64, any_what()), 0..200),
            repeat in 1..25usize,
            flush_every in 1..100usize,
        ) {
            let mut record = Record::new(Timestamp(0));
            let mut table: BTreeMap<i64, String> = BTreeMap::new();
            let (mut now, mut count) = (0, 0u64);
            for round in 0..repeat {
                for (i, (gap, what)) in seen.iter().enumerate() {
                    now += gap;
                    // Another text each round, so that there is more than the window folds.
                    let what = match what {
                        What::Syslog { severity, app, text } => {
                            What::Syslog { severity: *severity, app: format!("{app}{round}"), text: format!("{i}{text}") }
                        }
                        other => other.clone(),
                    };
                    record.take(at(now, what));
                    count += 1;
                    if i % flush_every == 0 {
                        table.extend(record.flush());
                    }
                }
            }
            table.extend(record.flush());
            prop_assert!(record.entries <= MAX_ENTRIES && record.bytes <= MAX_BYTES);
            prop_assert_eq!(table.len(), record.entries);
            prop_assert_eq!(table.values().map(String::len).sum::<usize>(), record.bytes);
            let kept: u64 = table.values().map(|b| u64::from(serde_json::from_str::<Entry>(b).unwrap().count)).sum();
            prop_assert_eq!(kept + record.dropped, count);
        }
    }

    #[test]
    fn a_machine_that_talks_a_lot_cannot_hide_how_its_boot_ended() {
        let mut record = Record::new(Timestamp(0));
        for n in 0..10 * MAX_ENTRIES {
            record.take(at(
                1,
                What::Syslog {
                    severity: 6,
                    app: "kernel".into(),
                    text: format!("{n} {}", "x".repeat(500)),
                },
            ));
        }
        assert!(record.dropped > 0);
        let end = What::Signal {
            status: "FAILED".into(),
            script: None,
            exit_status: Some(1),
            message: "no disk".into(),
        };
        assert_eq!(record.take(at(2, end)), Taken::Kept);
    }

    #[test]
    fn an_entry_too_large_is_dropped_and_counted() {
        let mut record = Record::new(Timestamp(0));
        assert_eq!(
            record.take(at(
                0,
                What::Note {
                    text: "x".repeat(MAX_ENTRY)
                }
            )),
            Taken::Dropped
        );
        assert_eq!((record.entries, record.dropped), (0, 1));
    }

    #[test]
    fn stages_survive_the_database() {
        for s in [Stage::Silent, Stage::Loading, Stage::Running] {
            assert_eq!(Stage::from_number(s.number()), Some(s));
        }
        assert_eq!(Stage::from_number(3), None);
    }
}
