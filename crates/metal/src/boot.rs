//! What a machine that asks for a boot configuration is told.

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// What a boot configuration makes the machine do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Boot the ephemeral system and enlist: nobody knows this machine.
    Enlist,
    /// Boot the ephemeral system and run what the status asks for (commissioning, tests, erase, rescue).
    Commissioning,
    /// Boot the ephemeral system and install (upstream's word on the wire is `xinstall`).
    Xinstall,
    /// Boot the local disk.
    Local,
    /// Boot the ephemeral system only to power off: the machine has nothing to do.
    Poweroff,
}

/// What the decision needs to know of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its status.
    pub status: Status,
    /// Whether its next boot is from the network; off once the installation is done.
    pub netboot: bool,
    /// Deployed into memory: the image itself is the ephemeral system.
    pub ephemeral_deploy: bool,
    /// A machine, and not a device or a controller, which always boot locally.
    pub is_machine: bool,
}

/// What a machine gets, from its status alone; `None` is a machine nobody knows.
#[must_use]
pub const fn decide(machine: Option<&Facts>) -> Purpose {
    let Some(m) = machine else {
        return Purpose::Enlist;
    };
    if !m.is_machine {
        return Purpose::Local;
    }
    match m.status {
        Status::New
        | Status::Commissioning
        | Status::Releasing
        | Status::DiskErasing
        | Status::RescueMode
        | Status::EnteringRescueMode
        | Status::Testing => Purpose::Commissioning,
        Status::Deploying if m.netboot => Purpose::Xinstall,
        Status::Deploying => Purpose::Local,
        Status::Deployed if m.ephemeral_deploy => Purpose::Xinstall,
        Status::Deployed => Purpose::Local,
        Status::FailedCommissioning
        | Status::Missing
        | Status::Ready
        | Status::Reserved
        | Status::Retired
        | Status::Broken
        | Status::Allocated
        | Status::FailedDeployment
        | Status::FailedReleasing
        | Status::FailedDiskErasing
        | Status::FailedEnteringRescueMode
        | Status::ExitingRescueMode
        | Status::FailedExitingRescueMode
        | Status::FailedTesting => Purpose::Poweroff,
    }
}
