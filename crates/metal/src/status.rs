//! The status of a node and the transitions between statuses.
//!
//! The table is the contract with MAAS clients: the numbers, the names and what may follow what.
//! Nothing else in the product writes a status; see the region's `lifecycle` module.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a node stands in its life cycle. The numbers are those of the MAAS API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "i64", try_from = "i64")]
pub enum Status {
    /// New.
    New = 0,
    /// Commissioning.
    Commissioning = 1,
    /// Failed commissioning.
    FailedCommissioning = 2,
    /// Missing.
    Missing = 3,
    /// Ready.
    Ready = 4,
    /// Reserved.
    Reserved = 5,
    /// Deployed.
    Deployed = 6,
    /// Retired.
    Retired = 7,
    /// Broken.
    Broken = 8,
    /// Deploying.
    Deploying = 9,
    /// Allocated.
    Allocated = 10,
    /// Failed deployment.
    FailedDeployment = 11,
    /// Releasing.
    Releasing = 12,
    /// Releasing failed.
    FailedReleasing = 13,
    /// Disk erasing.
    DiskErasing = 14,
    /// Failed disk erasing.
    FailedDiskErasing = 15,
    /// Rescue mode.
    RescueMode = 16,
    /// Entering rescue mode.
    EnteringRescueMode = 17,
    /// Failed to enter rescue mode.
    FailedEnteringRescueMode = 18,
    /// Exiting rescue mode.
    ExitingRescueMode = 19,
    /// Failed to exit rescue mode.
    FailedExitingRescueMode = 20,
    /// Testing.
    Testing = 21,
    /// Failed testing.
    FailedTesting = 22,
}

/// Every status, in the order of their numbers.
pub const ALL: [Status; 23] = [
    Status::New,
    Status::Commissioning,
    Status::FailedCommissioning,
    Status::Missing,
    Status::Ready,
    Status::Reserved,
    Status::Deployed,
    Status::Retired,
    Status::Broken,
    Status::Deploying,
    Status::Allocated,
    Status::FailedDeployment,
    Status::Releasing,
    Status::FailedReleasing,
    Status::DiskErasing,
    Status::FailedDiskErasing,
    Status::RescueMode,
    Status::EnteringRescueMode,
    Status::FailedEnteringRescueMode,
    Status::ExitingRescueMode,
    Status::FailedExitingRescueMode,
    Status::Testing,
    Status::FailedTesting,
];

impl Status {
    /// The number of the status in the API.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }

    /// The status with that number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        usize::try_from(code).ok().and_then(|i| ALL.get(i).copied())
    }

    /// The text that clients read as `status_name`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Commissioning => "Commissioning",
            Self::FailedCommissioning => "Failed commissioning",
            Self::Missing => "Missing",
            Self::Ready => "Ready",
            Self::Reserved => "Reserved",
            Self::Deployed => "Deployed",
            Self::Retired => "Retired",
            Self::Broken => "Broken",
            Self::Deploying => "Deploying",
            Self::Allocated => "Allocated",
            Self::FailedDeployment => "Failed deployment",
            Self::Releasing => "Releasing",
            Self::FailedReleasing => "Releasing failed",
            Self::DiskErasing => "Disk erasing",
            Self::FailedDiskErasing => "Failed disk erasing",
            Self::RescueMode => "Rescue mode",
            Self::EnteringRescueMode => "Entering rescue mode",
            Self::FailedEnteringRescueMode => "Failed to enter rescue mode",
            Self::ExitingRescueMode => "Exiting rescue mode",
            Self::FailedExitingRescueMode => "Failed to exit rescue mode",
            Self::Testing => "Testing",
            Self::FailedTesting => "Failed testing",
        }
    }

    /// The word for filters and forms, for example `failed_deployment`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Commissioning => "commissioning",
            Self::FailedCommissioning => "failed_commissioning",
            Self::Missing => "missing",
            Self::Ready => "ready",
            Self::Reserved => "reserved",
            Self::Deployed => "deployed",
            Self::Retired => "retired",
            Self::Broken => "broken",
            Self::Deploying => "deploying",
            Self::Allocated => "allocated",
            Self::FailedDeployment => "failed_deployment",
            Self::Releasing => "releasing",
            Self::FailedReleasing => "failed_releasing",
            Self::DiskErasing => "disk_erasing",
            Self::FailedDiskErasing => "failed_disk_erasing",
            Self::RescueMode => "rescue_mode",
            Self::EnteringRescueMode => "entering_rescue_mode",
            Self::FailedEnteringRescueMode => "failed_entering_rescue_mode",
            Self::ExitingRescueMode => "exiting_rescue_mode",
            Self::FailedExitingRescueMode => "failed_exiting_rescue_mode",
            Self::Testing => "testing",
            Self::FailedTesting => "failed_testing",
        }
    }

    /// The status with that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        ALL.into_iter().find(|s| s.word() == word)
    }

    /// The status that a node falls into when what it is doing fails or takes too long.
    #[must_use]
    pub const fn failed(self) -> Option<Self> {
        match self {
            Self::Commissioning => Some(Self::FailedCommissioning),
            Self::Deploying => Some(Self::FailedDeployment),
            Self::Releasing => Some(Self::FailedReleasing),
            Self::DiskErasing => Some(Self::FailedDiskErasing),
            Self::EnteringRescueMode => Some(Self::FailedEnteringRescueMode),
            Self::ExitingRescueMode => Some(Self::FailedExitingRescueMode),
            Self::Testing => Some(Self::FailedTesting),
            Self::New
            | Self::FailedCommissioning
            | Self::Missing
            | Self::Ready
            | Self::Reserved
            | Self::Deployed
            | Self::Retired
            | Self::Broken
            | Self::Allocated
            | Self::FailedDeployment
            | Self::FailedReleasing
            | Self::FailedDiskErasing
            | Self::RescueMode
            | Self::FailedEnteringRescueMode
            | Self::FailedExitingRescueMode
            | Self::FailedTesting => None,
        }
    }

    /// What may follow this status.
    #[must_use]
    pub const fn next(self) -> &'static [Self] {
        match self {
            Self::New => &[
                Self::Broken,
                Self::Commissioning,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Ready,
                Self::Retired,
                Self::Testing,
            ],
            Self::Commissioning => &[
                Self::Broken,
                Self::FailedCommissioning,
                Self::Missing,
                Self::New,
                Self::Ready,
                Self::Retired,
                Self::Testing,
            ],
            Self::FailedCommissioning => &[
                Self::Broken,
                Self::Commissioning,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Retired,
                Self::Testing,
            ],
            Self::Missing => &[
                Self::Allocated,
                Self::Broken,
                Self::Commissioning,
                Self::EnteringRescueMode,
                Self::New,
                Self::Ready,
                Self::Testing,
            ],
            Self::Ready => &[
                Self::Allocated,
                Self::Broken,
                Self::Commissioning,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Reserved,
                Self::Retired,
                Self::Testing,
            ],
            Self::Reserved => &[
                Self::Allocated,
                Self::Broken,
                Self::DiskErasing,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Ready,
                Self::Releasing,
                Self::Retired,
                Self::Testing,
            ],
            Self::Deployed => &[
                Self::Allocated,
                Self::Broken,
                Self::DiskErasing,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Ready,
                Self::Releasing,
                Self::Testing,
            ],
            Self::Retired => &[
                Self::Broken,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::New,
                Self::Ready,
                Self::Testing,
            ],
            Self::Broken => &[
                Self::Commissioning,
                Self::Deployed,
                Self::DiskErasing,
                Self::EnteringRescueMode,
                Self::Ready,
                Self::Releasing,
                Self::Testing,
            ],
            Self::Deploying => &[
                Self::Allocated,
                Self::Broken,
                Self::Deployed,
                Self::DiskErasing,
                Self::FailedDeployment,
                Self::Missing,
                Self::Ready,
                Self::Releasing,
            ],
            Self::Allocated => &[
                Self::Broken,
                Self::Deploying,
                Self::DiskErasing,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Ready,
                Self::Releasing,
                Self::Retired,
                Self::Testing,
            ],
            Self::FailedDeployment => &[
                Self::Allocated,
                Self::Broken,
                Self::DiskErasing,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Ready,
                Self::Releasing,
                Self::Testing,
            ],
            Self::Releasing => &[
                Self::Allocated,
                Self::Broken,
                Self::Deployed,
                Self::FailedDeployment,
                Self::FailedDiskErasing,
                Self::FailedReleasing,
                Self::Missing,
                Self::New,
                Self::Ready,
                Self::Reserved,
            ],
            Self::FailedReleasing => &[
                Self::Broken,
                Self::DiskErasing,
                Self::Ready,
                Self::Releasing,
                Self::Testing,
            ],
            Self::DiskErasing => &[
                Self::Broken,
                Self::DiskErasing,
                Self::FailedDiskErasing,
                Self::Ready,
                Self::Releasing,
            ],
            Self::FailedDiskErasing => &[
                Self::Allocated,
                Self::Broken,
                Self::DiskErasing,
                Self::EnteringRescueMode,
                Self::Ready,
                Self::Releasing,
                Self::Testing,
            ],
            Self::RescueMode => &[Self::Broken, Self::ExitingRescueMode, Self::Testing],
            Self::EnteringRescueMode => &[
                Self::Broken,
                Self::Deployed,
                Self::ExitingRescueMode,
                Self::FailedEnteringRescueMode,
                Self::Ready,
                Self::RescueMode,
            ],
            Self::FailedEnteringRescueMode => &[
                Self::Broken,
                Self::EnteringRescueMode,
                Self::ExitingRescueMode,
                Self::Testing,
            ],
            Self::ExitingRescueMode => &[
                Self::Allocated,
                Self::Broken,
                Self::Deployed,
                Self::FailedCommissioning,
                Self::FailedDeployment,
                Self::FailedDiskErasing,
                Self::FailedEnteringRescueMode,
                Self::FailedExitingRescueMode,
                Self::FailedReleasing,
                Self::FailedTesting,
                Self::Missing,
                Self::New,
                Self::Ready,
                Self::RescueMode,
                Self::Reserved,
                Self::Retired,
            ],
            Self::FailedExitingRescueMode => {
                &[Self::Broken, Self::ExitingRescueMode, Self::Testing]
            }
            Self::Testing => &[
                Self::Allocated,
                Self::Broken,
                Self::Commissioning,
                Self::Deployed,
                Self::FailedDeployment,
                Self::FailedDiskErasing,
                Self::FailedEnteringRescueMode,
                Self::FailedExitingRescueMode,
                Self::FailedReleasing,
                Self::FailedTesting,
                Self::Missing,
                Self::New,
                Self::Ready,
                Self::Reserved,
                Self::Retired,
            ],
            Self::FailedTesting => &[
                Self::Broken,
                Self::Commissioning,
                Self::Deployed,
                Self::EnteringRescueMode,
                Self::Missing,
                Self::Ready,
                Self::Testing,
            ],
        }
    }

    /// Checks one step of the life cycle. Staying where one is is always allowed.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the table has no such step.
    pub fn check(self, to: Self) -> Result<(), InvalidTransition> {
        if self == to || self.next().contains(&to) {
            Ok(())
        } else {
            Err(InvalidTransition { from: self, to })
        }
    }
}

/// The statuses that a new node may be created in.
pub const INITIAL: [Status; 3] = [Status::Missing, Status::New, Status::Retired];

/// A step that the life cycle does not have. Clients compare the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid transition: {} -> {}.", from.name(), to.name())]
pub struct InvalidTransition {
    /// Where the node is.
    pub from: Status,
    /// Where it was to go.
    pub to: Status,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Status> for i64 {
    fn from(s: Status) -> Self {
        s.code()
    }
}

impl TryFrom<i64> for Status {
    type Error = String;

    fn try_from(code: i64) -> Result<Self, String> {
        Self::from_code(code).ok_or_else(|| format!("{code} is not a node status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_are_unique_and_round_trip() {
        for s in ALL {
            assert_eq!(Status::from_code(s.code()), Some(s));
            assert_eq!(Status::from_word(s.word()), Some(s));
        }
        assert_eq!(Status::from_code(99), None);
        assert_eq!(Status::from_code(-1), None);
    }

    #[test]
    fn every_failure_is_a_step_the_table_allows() {
        for s in ALL {
            if let Some(f) = s.failed() {
                assert!(s.check(f).is_ok(), "{s} -> {f}");
            }
        }
    }

    #[test]
    fn a_deployed_machine_cannot_be_commissioned() {
        let e = Status::Deployed.check(Status::Commissioning).unwrap_err();
        assert_eq!(
            e.to_string(),
            "Invalid transition: Deployed -> Commissioning."
        );
    }
}
