//! The record of one boot: what was seen of a machine between power-on and its operating system.
//!
//! Racks and regions write [`Entry`]s; repeats are folded ([`Entry::fold`]). The verdict on a boot that
//! stalled is in [`crate::verdict`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::status::Status;
use crate::{MacAddr, SystemId, Timestamp};

/// Most entries kept of one boot.
pub const MAX_ENTRIES: usize = 2_000;
/// Most bytes (as JSON) kept of one boot.
pub const MAX_BYTES: usize = 1 << 20;
/// Boots kept of one machine.
pub const MAX_BOOTS: usize = 10;
/// Longest text kept in an entry, in bytes.
pub const MAX_TEXT: usize = 2_048;

/// One thing seen, or several alike folded into one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
    /// How often.
    pub count: u32,
    /// The machine's hardware address, where the observer knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The machine's network address, where the observer knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The machine, where the observer knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<SystemId>,
    /// What was seen.
    #[serde(flatten)]
    pub what: What,
}

/// The things that are recorded of a boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// A DHCP packet from the machine, or our answer.
    Dhcp {
        /// `discover`, `offer`, `request`, `ack`, `nak`, `decline`, `release`, `inform`.
        message: String,
        /// Client architecture (RFC 4578 option 93).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arch: Option<u16>,
        /// Who speaks: `firmware`, `ipxe`, `os`.
        speaker: String,
        /// The boot file that we named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot_file: Option<String>,
    },
    /// A file asked for over TFTP or HTTP.
    File {
        /// `tftp` or `http`.
        transport: String,
        /// The path as asked for, without credentials.
        path: String,
        /// Bytes sent, in all.
        bytes: u64,
        /// The file's size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// How it ended.
        outcome: FileOutcome,
    },
    /// A boot configuration rendered for the machine.
    Config {
        /// `pxelinux`, `grub` or `ipxe`.
        loader: String,
        /// The path as asked for.
        path: String,
        /// What the machine was told to do: see [`crate::boot::Purpose`].
        purpose: crate::boot::Purpose,
    },
    /// A call to the metadata service or the enlistment API.
    Metadata {
        /// HTTP method.
        method: String,
        /// Path and `op`, without credentials.
        path: String,
        /// HTTP status of the answer.
        status: u16,
    },
    /// A signal from the agent or a script runner.
    Signal {
        /// `WORKING`, `OK`, `FAILED`, …
        status: String,
        /// The script it speaks of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        script: Option<String>,
        /// The script's exit status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_status: Option<i64>,
        /// What the sender said.
        message: String,
    },
    /// Progress from cloud-init or the agent (the status webhook).
    Report {
        /// `cloudinit` or `curtin`.
        origin: String,
        /// Name of the step, for example `modules-final` or `cmd-install/stage-extract`.
        name: String,
        /// `start`, `progress` or `finish`.
        event: String,
        /// `SUCCESS`, `FAIL`, `WARN`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<String>,
        /// What the sender said, cut to [`MAX_TEXT`].
        description: String,
    },
    /// A power command and what came of it.
    Power {
        /// `on`, `off`, `cycle`, `query`.
        command: String,
        /// Driver, for example `ipmi`.
        driver: String,
        /// The error in words, without credentials; none when it worked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<PowerFault>,
    },
    /// A line that the machine sent to the syslog receiver.
    Syslog {
        /// RFC 5424 severity, 0 (emergency) to 7 (debug).
        severity: u8,
        /// The program that wrote it.
        app: String,
        /// The line, cut to [`MAX_TEXT`].
        text: String,
    },
    /// The machine's status changed.
    Status {
        /// Before.
        from: Status,
        /// After.
        to: Status,
    },
    /// Anything else worth keeping, in words.
    Note {
        /// The words.
        text: String,
    },
}

/// How a file transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileOutcome {
    /// All of it was sent and acknowledged.
    Complete,
    /// The machine asked for the size only.
    Probed,
    /// The machine stopped taking it.
    Aborted,
    /// There is no such file.
    NotFound,
    /// We could not read it, or its hash was wrong.
    Failed,
}

/// Why a power command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerFault {
    /// The class.
    pub class: PowerFaultClass,
    /// The sentence, without credentials.
    pub message: String,
}

/// Classes of power failures; each has a remedy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerFaultClass {
    /// The BMC refused the user or the password.
    Auth,
    /// The BMC did not answer.
    Connection,
    /// The parameters make no sense.
    Settings,
    /// The BMC answered, but would not do it.
    Action,
}

impl Entry {
    /// A new entry, seen once.
    #[must_use]
    pub const fn new(at: Timestamp, what: What) -> Self {
        Self {
            first: at,
            last: at,
            count: 1,
            mac: None,
            ip: None,
            system_id: None,
            what,
        }
    }

    /// Adds `other` to this entry when both are the same thing seen again; says whether it did.
    /// Bytes of the same file add up.
    pub fn fold(&mut self, other: &Self) -> bool {
        if self.mac != other.mac || self.ip != other.ip || self.system_id != other.system_id {
            return false;
        }
        let same = match (&mut self.what, &other.what) {
            (
                What::File {
                    transport,
                    path,
                    bytes,
                    size,
                    outcome,
                },
                What::File {
                    transport: t2,
                    path: p2,
                    bytes: b2,
                    size: s2,
                    outcome: o2,
                },
            ) if transport == t2 && path == p2 && size == s2 && outcome == o2 => {
                *bytes = bytes.saturating_add(*b2);
                true
            }
            (a, b) => a == b,
        };
        if same {
            self.count = self.count.saturating_add(other.count);
            self.last = self.last.max(other.last);
            self.first = self.first.min(other.first);
        }
        same
    }
}
