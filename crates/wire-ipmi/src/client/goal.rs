//! What a caller wants from a BMC, the commands that lead there, and what came of it.

use std::collections::VecDeque;

use super::error::{IpmiError, Step};
use crate::command::{
    BootDevice, BootFlags, ChassisControl, ChassisStatus, DeviceId, Power, Request, boot_parameter,
};
use crate::packet::AuthType;
use crate::suite::Suite;

/// The firmware mode of the next boot (MAAS's `power_boot_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootType {
    /// As the firmware is set up; the EFI flag stays off.
    Auto,
    /// Legacy BIOS; the EFI flag is off.
    Legacy,
    /// UEFI; the EFI flag is on.
    Efi,
}

impl BootType {
    /// From the value of MAAS's `power_boot_type`.
    pub fn from_name(name: &str) -> Option<BootType> {
        match name {
            "auto" => Some(BootType::Auto),
            "legacy" => Some(BootType::Legacy),
            "efi" => Some(BootType::Efi),
            _ => None,
        }
    }
}

/// Where the next boot, and only the next, shall come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootOnce {
    /// The device.
    pub device: BootDevice,
    /// The firmware mode.
    pub boot_type: BootType,
}

impl BootOnce {
    /// The flags for the BMC. [`BootDevice::None`] takes an earlier wish back.
    pub fn flags(self) -> BootFlags {
        let valid = self.device != BootDevice::None;
        BootFlags {
            valid,
            persistent: false,
            efi: valid && self.boot_type == BootType::Efi,
            device: self.device,
        }
    }
}

/// How to switch off (MAAS's `power_off_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OffMode {
    /// At once.
    Hard,
    /// Ask the operating system.
    Soft,
}

impl OffMode {
    /// From the value of MAAS's `power_off_mode`.
    pub fn from_name(name: &str) -> Option<OffMode> {
        match name {
            "hard" => Some(OffMode::Hard),
            "soft" => Some(OffMode::Soft),
            _ => None,
        }
    }
}

/// What to reach at the BMC. Each goal looks before it acts, so that it can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goal {
    /// Is the machine on?
    Status,
    /// Switch on; does nothing if it is on.
    On {
        /// Set this first. Not being able to is a warning, unless the privilege level is the reason.
        boot: Option<BootOnce>,
    },
    /// Switch off; does nothing if it is off.
    Off {
        /// How.
        mode: OffMode,
    },
    /// Power cycle; switch on if it is off.
    Cycle {
        /// Set this first, as for [`Goal::On`].
        boot: Option<BootOnce>,
    },
    /// Hard reset; switch on if it is off.
    Reset {
        /// Set this first, as for [`Goal::On`].
        boot: Option<BootOnce>,
    },
    /// Set the device of the next boot.
    SetBoot(BootOnce),
    /// Read the device of the next boot.
    GetBoot,
    /// Which device and firmware is this?
    DeviceId,
}

/// How the session was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Login {
    /// IPMI 1.5.
    V15 {
        /// The authentication.
        auth: AuthType,
    },
    /// IPMI 2.0.
    V20 {
        /// The cipher suite.
        suite: Suite,
    },
}

/// Something that did not keep the goal from being reached, but should be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The configured K_g is not the BMC's; the login worked without.
    KgIgnored,
    /// The boot device could not be set.
    BootNotSet(IpmiError),
    /// A more wanted suite was refused or unanswered, and this one used instead.
    SuiteFellBack {
        /// The one that was wanted.
        from: Suite,
        /// The one in use.
        to: Suite,
    },
}

/// What a goal brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the session was opened.
    pub login: Login,
    /// The chassis status, as it was before anything was switched; present for all goals about power.
    pub status: Option<ChassisStatus>,
    /// What was switched, if anything.
    pub sent: Option<ChassisControl>,
    /// The boot flags that were set or read.
    pub boot: Option<BootFlags>,
    /// The device; present for [`Goal::DeviceId`].
    pub device: Option<DeviceId>,
    /// What else should be known.
    pub warnings: Vec<Warning>,
}

/// One command on the way to a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    SetPrivilege,
    DeviceId,
    Status,
    Control(ChassisControl),
    GetBoot,
    /// Tell the BMC that boot options are about to change.
    BootBegin,
    /// Declare earlier boot information as handled.
    BootAcknowledge,
    BootFlags(BootFlags),
    BootEnd,
}

impl Task {
    pub(super) fn step(self) -> Step {
        match self {
            Task::SetPrivilege => Step::SetPrivilege,
            Task::DeviceId => Step::DeviceId,
            Task::Status => Step::ChassisStatus,
            Task::Control(_) => Step::ChassisControl,
            Task::GetBoot => Step::GetBootOptions,
            Task::BootBegin | Task::BootAcknowledge | Task::BootFlags(_) | Task::BootEnd => {
                Step::SetBootOptions
            }
        }
    }

    /// A boot command that a BMC may refuse without harm: the flags alone do the work.
    pub(super) fn is_courtesy(self) -> bool {
        matches!(
            self,
            Task::BootBegin | Task::BootAcknowledge | Task::BootEnd
        )
    }

    pub(super) fn request(self, privilege: u8) -> Request {
        let set = |parameter, data: &[u8]| Request::SetBootOptions {
            parameter,
            data: data.to_vec(),
        };
        match self {
            Task::SetPrivilege => Request::SetPrivilege { level: privilege },
            Task::DeviceId => Request::GetDeviceId,
            Task::Status => Request::GetChassisStatus,
            Task::Control(control) => Request::ChassisControl(control),
            Task::GetBoot => Request::GetBootOptions {
                parameter: boot_parameter::FLAGS,
            },
            Task::BootBegin => set(boot_parameter::SET_IN_PROGRESS, &[1]),
            // Write mask and data: the BIOS bit.
            Task::BootAcknowledge => set(boot_parameter::ACKNOWLEDGE, &[1, 1]),
            Task::BootFlags(flags) => set(boot_parameter::FLAGS, &flags.encode()),
            Task::BootEnd => set(boot_parameter::SET_IN_PROGRESS, &[0]),
        }
    }
}

fn boot_tasks(boot: BootOnce) -> [Task; 4] {
    [
        Task::BootBegin,
        Task::BootAcknowledge,
        Task::BootFlags(boot.flags()),
        Task::BootEnd,
    ]
}

impl Goal {
    /// The commands known from the start; the answer to a status may add one.
    pub(super) fn tasks(self) -> VecDeque<Task> {
        let mut tasks = VecDeque::new();
        match self {
            Goal::Status | Goal::Off { .. } => tasks.push_back(Task::Status),
            Goal::On { boot } | Goal::Cycle { boot } | Goal::Reset { boot } => {
                tasks.extend(boot.into_iter().flat_map(boot_tasks));
                tasks.push_back(Task::Status);
            }
            Goal::SetBoot(boot) => tasks.extend(boot_tasks(boot)),
            Goal::GetBoot => tasks.push_back(Task::GetBoot),
            Goal::DeviceId => tasks.push_back(Task::DeviceId),
        }
        tasks
    }

    /// What to switch, now that the power state is known.
    pub(super) fn switch(self, power: Power) -> Option<ChassisControl> {
        match (self, power) {
            (Goal::On { .. } | Goal::Cycle { .. } | Goal::Reset { .. }, Power::Off) => {
                Some(ChassisControl::PowerUp)
            }
            (Goal::Cycle { .. }, Power::On) => Some(ChassisControl::PowerCycle),
            (Goal::Reset { .. }, Power::On) => Some(ChassisControl::HardReset),
            (
                Goal::Off {
                    mode: OffMode::Hard,
                },
                Power::On,
            ) => Some(ChassisControl::PowerDown),
            (
                Goal::Off {
                    mode: OffMode::Soft,
                },
                Power::On,
            ) => Some(ChassisControl::SoftShutdown),
            (Goal::On { .. }, Power::On) | (Goal::Off { .. }, Power::Off) => None,
            (
                Goal::Status | Goal::SetBoot(_) | Goal::GetBoot | Goal::DeviceId,
                Power::On | Power::Off,
            ) => None,
        }
    }
}
