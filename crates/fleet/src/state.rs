//! What can be seen of a machine from outside the network: the lights and the console, so to say.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// No power.
    Off,
    /// Firmware: self test, address, boot file.
    Firmware,
    /// A boot loader.
    Loader,
    /// Kernel, initrd and root are fetched.
    Kernel,
    /// The ephemeral system.
    Ephemeral,
    /// It introduces itself.
    Enlisting,
    /// Scripts run.
    Scripts,
    /// An operating system is being installed.
    Installing,
    /// The installed system starts.
    Starting,
    /// The installed system is up.
    Running,
    /// Rescue mode: the ephemeral system stays up.
    Rescue,
    /// It has power and does nothing any more; the detail says why.
    Stuck,
}

impl Phase {
    /// Whether an operating system is there that hears a wish to shut down.
    #[must_use]
    pub const fn hears_shutdown(self) -> bool {
        match self {
            Self::Ephemeral
            | Self::Enlisting
            | Self::Scripts
            | Self::Installing
            | Self::Starting
            | Self::Running
            | Self::Rescue => true,
            Self::Off | Self::Firmware | Self::Loader | Self::Kernel | Self::Stuck => false,
        }
    }
}

/// A machine as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// In words: what it does, or why it is stuck.
    pub detail: String,
    /// How often it has started, reboots included.
    pub boots: u64,
    /// Its name in the region, once it has been told.
    pub system_id: Option<String>,
    /// Its address, while it has one.
    pub address: Option<Ipv4Addr>,
    /// Host name of the system on its disk; none is an empty disk.
    pub installed: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::Off,
            detail: String::new(),
            boots: 0,
            system_id: None,
            address: None,
            installed: None,
        }
    }
}

/// What a fleet has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Starts, reboots included.
    pub boots: u64,
    /// DHCP leases acknowledged.
    pub leases: u64,
    /// Renewals acknowledged.
    pub renewals: u64,
    /// Files fetched over TFTP.
    pub tftp_files: u64,
    /// Requests over HTTP, answered or not.
    pub http_requests: u64,
    /// Bytes fetched over HTTP and TFTP.
    pub bytes: u64,
    /// Machines that introduced themselves.
    pub enlistments: u64,
    /// Script results delivered.
    pub scripts: u64,
    /// Installations that ended well.
    pub installations: u64,
    /// Installed systems that fetched their user-data.
    pub deployments: u64,
    /// Commands that BMCs took.
    pub power_commands: u64,
}

/// [`Counters`] that many tasks count up.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub boots: AtomicU64,
    pub leases: AtomicU64,
    pub renewals: AtomicU64,
    pub tftp_files: AtomicU64,
    pub http_requests: AtomicU64,
    pub bytes: AtomicU64,
    pub enlistments: AtomicU64,
    pub scripts: AtomicU64,
    pub installations: AtomicU64,
    pub deployments: AtomicU64,
    pub power_commands: AtomicU64,
}

/// Counts one up.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counting {
    pub(crate) fn read(&self) -> Counters {
        let of = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counters {
            boots: of(&self.boots),
            leases: of(&self.leases),
            renewals: of(&self.renewals),
            tftp_files: of(&self.tftp_files),
            http_requests: of(&self.http_requests),
            bytes: of(&self.bytes),
            enlistments: of(&self.enlistments),
            scripts: of(&self.scripts),
            installations: of(&self.installations),
            deployments: of(&self.deployments),
            power_commands: of(&self.power_commands),
        }
    }
}
