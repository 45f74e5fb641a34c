//! Why a boot stalled, in one sentence with its remedy.
//!
//! A boot is a ladder: power, address, loader, configuration, kernel, root file system, metadata, work,
//! reboot, installed system. [`judge`] looks for what is known to have gone wrong, and else for the
//! highest rung that was reached: what stalled is the next one.

pub mod table;

mod words;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::boot::Purpose;
use crate::timeline::{Entry, FileOutcome, PowerFaultClass, What};
use table::Cause;

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Short name of the cause, the key of the table of verdicts.
    pub code: &'static str,
    /// What is wrong.
    pub sentence: String,
    /// What to do.
    pub remedy: String,
    /// The last thing that was seen of the machine.
    pub last_seen: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} Last seen: {}.",
            self.sentence, self.remedy, self.last_seen
        )
    }
}

/// The beginning of the rack's note on content whose hash is wrong, and of the agent's words for it.
const ALTERED: &str = "altered ";
/// The beginning of the rack's note on a client that got no address.
const NO_ADDRESS: &str = "asked for an address and got none";
/// The beginning of the rack's note on a client that took another server's offer.
const OTHER_SERVER: &str = "took the offer of another DHCP server";
/// What the rack's note on a missing image contains.
const NO_IMAGE: &str = " image with a kernel for ";

/// The verdict on what was seen of one boot, oldest first. `boot_method` is how the machine booted when it
/// was last seen (`pxe`, `uefi`): it counts where the record itself does not tell the firmware.
#[must_use]
pub fn judge(entries: &[Entry], boot_method: Option<&str>) -> Verdict {
    let (cause, detail) = Boot {
        entries,
        boot_method,
    }
    .cause();
    Verdict {
        code: cause.code,
        sentence: match detail {
            Some(d) if !d.is_empty() => {
                format!("{} ({})", cause.sentence, d.trim_end_matches('.'))
            }
            _ => cause.sentence.to_owned(),
        },
        remedy: cause.remedy.to_owned(),
        last_seen: last_seen(entries),
    }
}

/// The last thing seen of the machine; without any, the last power command.
fn last_seen(entries: &[Entry]) -> String {
    let latest = |wanted: fn(&What) -> bool| {
        entries
            .iter()
            .filter(|e| wanted(&e.what))
            .max_by_key(|e| e.last)
    };
    let power_on = entries
        .iter()
        .find(|e| matches!(&e.what, What::Power { command, error: None, .. } if is_start(command)));
    let from = power_on.or_else(|| entries.iter().min_by_key(|e| e.first));
    let seen = latest(is_of_machine).or_else(|| latest(|w| matches!(w, What::Power { .. })));
    match (seen, from) {
        (Some(e), Some(f)) => {
            let after = if power_on.is_some() {
                "power-on"
            } else {
                "the first sign of the boot"
            };
            words::last_seen(e, f.first, after)
        }
        _ => "nothing at all".to_owned(),
    }
}

fn is_start(command: &str) -> bool {
    matches!(command, "on" | "cycle")
}

/// Whether the machine itself was heard: not our own commands and decisions.
const fn is_of_machine(what: &What) -> bool {
    match what {
        What::Dhcp { .. }
        | What::File { .. }
        | What::Config { .. }
        | What::Metadata { .. }
        | What::Signal { .. }
        | What::Report { .. }
        | What::Syslog { .. }
        | What::Note { .. } => true,
        What::Power { .. } | What::Status { .. } => false,
    }
}

/// What a firmware or a boot loader is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Firmware {
    Bios,
    Efi32,
    Efi64,
    EfiArm,
    /// UEFI of an architecture that is not told.
    Efi,
}

impl Firmware {
    /// RFC 4578 §2.1 and the IANA registry "Processor Architecture Types".
    const fn of_arch(arch: u16) -> Option<Self> {
        Some(match arch {
            0x00 => Self::Bios,
            0x06 | 0x0f => Self::Efi32,
            0x07 | 0x09 | 0x10 => Self::Efi64,
            0x0b | 0x13 => Self::EfiArm,
            _ => return None,
        })
    }

    fn of_method(method: &str) -> Option<Self> {
        match method {
            "uefi" => Some(Self::Efi),
            "pxe" => Some(Self::Bios),
            _ => None,
        }
    }

    /// For what a loader is made, by its name.
    fn of_loader(path: &str) -> Option<Self> {
        let name = segment(path);
        if let Some(stem) = name.strip_suffix(".efi") {
            return Some(if stem.ends_with("aa64") || stem.contains("arm64") {
                Self::EfiArm
            } else if stem.ends_with("ia32") {
                Self::Efi32
            } else if stem.ends_with("x64") {
                Self::Efi64
            } else {
                Self::Efi
            });
        }
        (name.ends_with("pxelinux.0") || name.ends_with("pxe")).then_some(Self::Bios)
    }

    fn runs(self, loader: Self) -> bool {
        match (self, loader) {
            (Self::Bios, l) => l == Self::Bios,
            (_, Self::Bios) => false,
            (Self::Efi, _) | (_, Self::Efi) => true,
            (a, b) => a == b,
        }
    }
}

/// The last part of a path, lower case.
fn segment(path: &str) -> String {
    path.rsplit(['/', '\\'])
        .next()
        .unwrap_or("")
        .to_ascii_lowercase()
}

/// What a file of an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Kernel,
    Initrd,
    Root,
    /// A loader, one of its parts, or anything else.
    Other,
}

fn file_kind(path: &str) -> FileKind {
    let name = segment(path);
    if name.contains("initrd") || name.contains("initramfs") {
        FileKind::Initrd
    } else if name.contains("squashfs") || name.starts_with("root") {
        FileKind::Root
    } else if name.contains("kernel") || name.starts_with("vmlinu") {
        FileKind::Kernel
    } else {
        FileKind::Other
    }
}

struct Boot<'a> {
    entries: &'a [Entry],
    boot_method: Option<&'a str>,
}

type Found = (Cause, Option<String>);

impl<'a> Boot<'a> {
    fn cause(&self) -> Found {
        self.power()
            .or_else(|| self.altered())
            .or_else(|| self.reported())
            .or_else(|| self.refused())
            .or_else(|| self.installed())
            .or_else(|| self.local())
            .or_else(|| self.stopped())
            .or_else(|| self.loading())
            .or_else(|| self.addressing())
            .unwrap_or_else(
                || match self.entries.iter().any(|e| is_of_machine(&e.what)) {
                    false => (table::NO_REQUEST, None),
                    true => (table::UNKNOWN, None),
                },
            )
    }

    /// Whether anything that meets the condition was seen later than this entry.
    fn later(&self, place: usize, wanted: impl Fn(&What) -> bool) -> bool {
        let mark = self.entries[place].last;
        self.entries
            .iter()
            .enumerate()
            .any(|(i, e)| wanted(&e.what) && (e.last > mark || (i > place && e.last == mark)))
    }

    fn last(&self, wanted: impl Fn(&What) -> bool) -> Option<usize> {
        self.entries
            .iter()
            .enumerate()
            .filter(|(_, e)| wanted(&e.what))
            .max_by_key(|(i, e)| (e.last, *i))
            .map(|(i, _)| i)
    }

    fn any(&self, wanted: impl Fn(&What) -> bool) -> bool {
        self.entries.iter().any(|e| wanted(&e.what))
    }

    /// A power command that failed, with nothing heard from the machine since.
    fn power(&self) -> Option<Found> {
        let place = self.last(|w| matches!(w, What::Power { .. }))?;
        let What::Power {
            command,
            error: Some(fault),
            ..
        } = &self.entries[place].what
        else {
            return None;
        };
        // A question that failed says something only where there is nothing else: it moved nothing.
        let heard = if command == "query" {
            self.any(is_of_machine)
        } else {
            self.later(place, is_of_machine)
        };
        if heard {
            return None;
        }
        let cause = match fault.class {
            PowerFaultClass::Auth => table::POWER_AUTH,
            PowerFaultClass::Connection => table::POWER_UNREACHABLE,
            PowerFaultClass::Settings => table::POWER_SETTINGS,
            PowerFaultClass::Action => table::POWER_ACTION,
        };
        Some((cause, Some(words::quote(&fault.message))))
    }

    /// Content with a wrong hash, or that could not be read, and not fetched well since.
    fn altered(&self) -> Option<Found> {
        if let Some(place) = self.last(|w| match w {
            What::Note { text } => text.starts_with(ALTERED),
            What::Report {
                result: Some(r),
                description,
                ..
            } => r == "FAIL" && description.contains("altered image"),
            _ => false,
        }) && !self.later(place, |w| {
            matches!(w, What::File { outcome: FileOutcome::Complete, path, .. } if file_kind(path) != FileKind::Other)
        }) {
            let detail = match &self.entries[place].what {
                What::Note { text } => words::quote(text),
                other => words::describe(other),
            };
            return Some((table::IMAGE_ALTERED, Some(detail)));
        }
        let place = self.last(|w| {
            matches!(
                w,
                What::File {
                    outcome: FileOutcome::Failed,
                    ..
                }
            )
        })?;
        let What::File { path: failed, .. } = &self.entries[place].what else {
            return None;
        };
        let recovered = self.later(place, |w| match w {
            What::File { outcome, path, .. } => *outcome == FileOutcome::Complete && path == failed,
            What::Signal { .. } | What::Report { .. } => true,
            _ => false,
        });
        (!recovered).then(|| (table::FILE_UNREADABLE, Some(words::quote(failed))))
    }

    /// A failure that the machine reported itself.
    fn reported(&self) -> Option<Found> {
        let outcome = self.last(|w| {
            matches!(w, What::Report { name, event, .. } if name == "cmd-install" && event == "finish")
        });
        if let Some(place) = outcome
            && let What::Report {
                result: Some(r),
                description,
                ..
            } = &self.entries[place].what
            && r == "FAIL"
        {
            return Some((table::INSTALL_FAILED, Some(words::quote(description))));
        }
        let place = self.last(|w| match w {
            What::Signal { status, .. } => {
                status.starts_with("FAILED") || matches!(status.as_str(), "OK" | "TIMEDOUT")
            }
            _ => false,
        })?;
        let What::Signal { status, .. } = &self.entries[place].what else {
            return None;
        };
        (status != "OK").then(|| {
            (
                table::SCRIPT_FAILED,
                Some(words::describe(&self.entries[place].what)),
            )
        })
    }

    /// The last call of the machine was refused, or could not be answered.
    fn refused(&self) -> Option<Found> {
        let place = self.last(|w| {
            matches!(
                w,
                What::Metadata { .. } | What::Signal { .. } | What::Report { .. }
            )
        })?;
        let What::Metadata { status, .. } = &self.entries[place].what else {
            return None;
        };
        let cause = match status {
            401 | 403 => table::REFUSED,
            500.. => table::METADATA_FAILED,
            _ => return None,
        };
        Some((cause, Some(words::describe(&self.entries[place].what))))
    }

    /// The installation is done, and the machine was to come back from its disk.
    fn installed(&self) -> Option<Found> {
        let done = self.last(|w| match w {
            What::Metadata { path, status, .. } => path.contains("netboot_off") && *status < 400,
            What::Report {
                name,
                event,
                result: Some(r),
                ..
            } => name == "cmd-install" && event == "finish" && r == "SUCCESS",
            _ => false,
        })?;
        if self.later(done, is_installed_system) {
            return Some((table::NOT_FINISHED, None));
        }
        if self.later(done, is_local_config) {
            return Some((table::LOCAL_SILENT, None));
        }
        Some((table::NOT_BACK, None))
    }

    /// The machine was sent to its disk.
    fn local(&self) -> Option<Found> {
        let place = self.last(|w| matches!(w, What::Config { .. }))?;
        if !is_local_config(&self.entries[place].what) {
            return None;
        }
        let seen = self.later(place, |w| {
            matches!(
                w,
                What::Metadata { .. }
                    | What::Report { .. }
                    | What::Signal { .. }
                    | What::Syslog { .. }
            ) || is_os_dhcp(w)
        });
        Some((
            if seen {
                table::NOT_FINISHED
            } else {
                table::LOCAL_SILENT
            },
            None,
        ))
    }

    /// The ephemeral system ran.
    fn stopped(&self) -> Option<Found> {
        let place = self
            .last(|w| matches!(w, What::Report { .. } | What::Signal { .. }))
            .or_else(|| self.last(|w| matches!(w, What::Metadata { .. })))?;
        let what = &self.entries[place].what;
        Some((
            table::STOPPED_REPORTING,
            Some(format!("its last step: {}", words::describe(what))),
        ))
    }

    fn complete(&self, kind: FileKind) -> bool {
        self.any(|w| {
            matches!(w, What::File { path, outcome: FileOutcome::Complete, .. } if file_kind(path) == kind)
        })
    }

    /// How far a file came that was not fetched whole.
    fn partly(&self, kinds: &[FileKind]) -> Option<String> {
        let place = self.last(|w| {
            matches!(w, What::File { path, outcome, .. }
                if kinds.contains(&file_kind(path)) && *outcome != FileOutcome::Complete)
        })?;
        Some(words::describe(&self.entries[place].what))
    }

    /// Loader, configuration, kernel, root file system.
    fn loading(&self) -> Option<Found> {
        if self.complete(FileKind::Root) {
            return Some((table::NO_METADATA, None));
        }
        let kernel = self.complete(FileKind::Kernel);
        if kernel && (self.complete(FileKind::Initrd) || !self.tried(FileKind::Initrd)) {
            return Some((table::NO_ROOT, self.partly(&[FileKind::Root])));
        }
        if self.any(|w| matches!(w, What::Config { .. })) {
            let missing = self.note(|t| t.starts_with("no ") && t.contains(NO_IMAGE));
            if let Some(text) = missing {
                return Some((table::NO_IMAGE, Some(text)));
            }
            return Some((
                table::NO_KERNEL,
                self.partly(&[FileKind::Kernel, FileKind::Initrd]),
            ));
        }
        if kernel || self.tried(FileKind::Kernel) {
            return Some((
                table::NO_KERNEL,
                self.partly(&[FileKind::Kernel, FileKind::Initrd]),
            ));
        }
        if let Some(found) = self.wrong_loader() {
            return Some(found);
        }
        if self.any(|w| {
            matches!(
                w,
                What::File {
                    outcome: FileOutcome::Complete,
                    ..
                }
            )
        }) {
            return Some((table::NO_CONFIG, None));
        }
        self.any(|w| matches!(w, What::File { .. })).then(|| {
            let place = self.last(|w| matches!(w, What::File { .. })).unwrap_or(0);
            let detail = words::describe(&self.entries[place].what);
            match &self.entries[place].what {
                What::File {
                    outcome: FileOutcome::NotFound,
                    ..
                } => (table::LOADER_MISSING, Some(detail)),
                _ => (table::NO_LOADER, Some(detail)),
            }
        })
    }

    fn tried(&self, kind: FileKind) -> bool {
        self.any(|w| matches!(w, What::File { path, .. } if file_kind(path) == kind))
    }

    fn note(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.entries.iter().rev().find_map(|e| match &e.what {
            What::Note { text } if wanted(text) => Some(words::quote(text)),
            _ => None,
        })
    }

    /// The firmware as its last DHCP packet told it.
    fn firmware(&self) -> Option<Firmware> {
        self.entries
            .iter()
            .rev()
            .find_map(|e| match &e.what {
                What::Dhcp {
                    arch: Some(a),
                    speaker,
                    ..
                } if speaker != "os" => Firmware::of_arch(*a),
                _ => None,
            })
            .or_else(|| self.boot_method.and_then(Firmware::of_method))
    }

    /// A loader that was fetched or named and that the firmware cannot run.
    fn wrong_loader(&self) -> Option<Found> {
        let firmware = self.firmware()?;
        let name = |e: &'a Entry| match &e.what {
            What::File { path, outcome, .. } if *outcome != FileOutcome::NotFound => {
                Some(path.as_str())
            }
            What::Dhcp {
                boot_file: Some(f),
                speaker,
                ..
            } if speaker != "os" => Some(f.as_str()),
            _ => None,
        };
        let wrong = |path: &&str| Firmware::of_loader(path).is_some_and(|l| !firmware.runs(l));
        // What was fetched says more than what was offered.
        let fetched = self
            .entries
            .iter()
            .filter(|e| matches!(e.what, What::File { .. }));
        let offered = self
            .entries
            .iter()
            .filter(|e| matches!(e.what, What::Dhcp { .. }));
        let path = fetched.chain(offered).filter_map(name).find(wrong)?;
        let kind = match firmware {
            Firmware::Bios => "BIOS",
            Firmware::Efi32 => "32-bit UEFI",
            Firmware::Efi64 => "UEFI on amd64",
            Firmware::EfiArm => "UEFI on arm64",
            Firmware::Efi => "UEFI",
        };
        Some((
            table::WRONG_LOADER,
            Some(format!("{} for {kind}", words::quote(path))),
        ))
    }

    /// Before any file was asked for.
    fn addressing(&self) -> Option<Found> {
        let dhcp = |words: &'static [&'static str]| move |w: &What| matches!(w, What::Dhcp { message, .. } if words.contains(&message.as_str()));
        let acked = self.last(dhcp(&["ack"]));
        let refused = self.last(dhcp(&["nak"]));
        if let Some(nak) = refused
            && acked.is_none_or(|a| self.entries[nak].last > self.entries[a].last)
            && !self.later(nak, dhcp(&["offer"]))
        {
            return Some((
                table::ADDRESS_REFUSED,
                self.note(|t| t.starts_with("the address asked for was refused")),
            ));
        }
        if acked.is_some() {
            let only_os = !self.any(|w| matches!(w, What::Dhcp { speaker, .. } if speaker != "os"));
            return Some(if only_os {
                (table::NOT_FROM_NETWORK, None)
            } else {
                (table::NO_LOADER, None)
            });
        }
        if let Some(text) = self.note(|t| t.starts_with(OTHER_SERVER)) {
            return Some((table::OTHER_SERVER, Some(text)));
        }
        if self.any(dhcp(&["offer"])) {
            return Some((table::OFFER_IGNORED, None));
        }
        let asked = self.any(dhcp(&["discover"]));
        let none = self.note(|t| t.starts_with(NO_ADDRESS));
        (asked || none.is_some()).then_some((table::NO_ADDRESS, None))
    }
}

fn is_local_config(what: &What) -> bool {
    matches!(
        what,
        What::Config {
            purpose: Purpose::Local,
            ..
        }
    )
}

fn is_os_dhcp(what: &What) -> bool {
    matches!(what, What::Dhcp { speaker, .. } if speaker == "os")
}

/// A sign of the installed system: its cloud-init looks for its metadata afresh, or its kernel asks for an
/// address. What the ephemeral system still reports while it goes down is none.
fn is_installed_system(what: &What) -> bool {
    match what {
        What::Metadata { path, .. } => path.contains("/meta-data") || path.contains("/user-data"),
        What::Report { name, event, .. } => {
            event == "start" && (name == "init-local" || name == "init-network")
        }
        other => is_os_dhcp(other),
    }
}
