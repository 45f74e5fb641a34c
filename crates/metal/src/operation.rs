//! Operations that take a while: what was begun with a machine, and by which status one sees how it went.

use crate::status::Status;

/// What can be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To *Ready*, over inventory and tests.
    Commission,
    /// To *Deployed*.
    Deploy,
    /// Back to *Ready*.
    Release,
    /// Tests alone.
    Test,
    /// Into rescue mode.
    RescueMode,
    /// Out of rescue mode.
    ExitRescueMode,
    /// Power on; it ends with its command, not with a status.
    PowerOn,
    /// Power off; likewise.
    PowerOff,
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Running,
    /// It reached what it was for.
    Succeeded,
    /// It did not.
    Failed,
    /// The machine went another way.
    Cancelled,
}

/// All kinds.
pub const KINDS: [Kind; 8] = [
    Kind::Commission,
    Kind::Deploy,
    Kind::Release,
    Kind::Test,
    Kind::RescueMode,
    Kind::ExitRescueMode,
    Kind::PowerOn,
    Kind::PowerOff,
];

impl Kind {
    /// The word for it: the action of the API that begins it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Commission => "commission",
            Self::Deploy => "deploy",
            Self::Release => "release",
            Self::Test => "test",
            Self::RescueMode => "rescue_mode",
            Self::ExitRescueMode => "exit_rescue_mode",
            Self::PowerOn => "power_on",
            Self::PowerOff => "power_off",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        KINDS.into_iter().find(|k| k.word() == word)
    }

    /// Whether a power command decides, not the machine's status.
    #[must_use]
    pub const fn is_power(self) -> bool {
        matches!(self, Self::PowerOn | Self::PowerOff)
    }

    /// How an operation of this kind stands when its machine comes into a status.
    #[must_use]
    pub const fn outcome(self, now: Status) -> Outcome {
        use Outcome::{Cancelled, Failed, Running, Succeeded};
        match self {
            Self::Commission => match now {
                Status::Commissioning | Status::Testing => Running,
                Status::Ready | Status::Deployed => Succeeded,
                Status::FailedCommissioning | Status::FailedTesting | Status::Broken => Failed,
                _ => Cancelled,
            },
            Self::Deploy => match now {
                Status::Deploying => Running,
                Status::Deployed => Succeeded,
                Status::FailedDeployment | Status::Broken => Failed,
                _ => Cancelled,
            },
            Self::Release => match now {
                Status::Releasing | Status::DiskErasing => Running,
                Status::Ready | Status::New => Succeeded,
                Status::FailedReleasing | Status::FailedDiskErasing | Status::Broken => Failed,
                _ => Cancelled,
            },
            Self::Test => match now {
                Status::Testing => Running,
                Status::FailedTesting => Failed,
                _ => Succeeded,
            },
            Self::RescueMode => match now {
                Status::EnteringRescueMode => Running,
                Status::RescueMode => Succeeded,
                Status::FailedEnteringRescueMode => Failed,
                _ => Cancelled,
            },
            Self::ExitRescueMode => match now {
                Status::ExitingRescueMode => Running,
                Status::FailedExitingRescueMode => Failed,
                _ => Succeeded,
            },
            Self::PowerOn | Self::PowerOff => Running,
        }
    }
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ALL;

    #[test]
    fn every_failed_status_of_a_kind_is_no_success() {
        for kind in KINDS.into_iter().filter(|k| !k.is_power()) {
            for status in ALL {
                let failed_of_kind = status.name().to_lowercase().contains("fail")
                    && matches!(kind.outcome(status), Outcome::Succeeded);
                let other_kind = matches!(kind, Kind::Test | Kind::ExitRescueMode);
                assert!(!failed_of_kind || other_kind, "{kind:?} {status:?}");
            }
        }
    }

    #[test]
    fn a_deployment_that_is_aborted_is_cancelled() {
        assert_eq!(Kind::Deploy.outcome(Status::Allocated), Outcome::Cancelled);
        assert_eq!(Kind::Deploy.outcome(Status::Releasing), Outcome::Cancelled);
        assert_eq!(Kind::Commission.outcome(Status::New), Outcome::Cancelled);
    }

    #[test]
    fn words_are_read_back() {
        for kind in KINDS {
            assert_eq!(Kind::from_word(kind.word()), Some(kind));
        }
    }
}
