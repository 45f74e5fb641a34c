//! How a call to a BMC can fail, told apart so that a person knows what to change.

use std::fmt;
use std::time::Duration;

use super::config::{ConfigError, Driver};
use crate::command::{AuthTypes, Privilege};
use crate::completion::{Completion, RakpStatus};
use crate::drops::DropReason;

/// What was being asked when something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Get Channel Authentication Capabilities: the first contact.
    AuthCapabilities,
    /// Get Channel Cipher Suites.
    CipherSuites,
    /// Open Session Request.
    OpenSession,
    /// RAKP message 1, answered by message 2.
    Rakp1,
    /// RAKP message 3, answered by message 4.
    Rakp3,
    /// Get Session Challenge (IPMI 1.5).
    SessionChallenge,
    /// Activate Session (IPMI 1.5).
    ActivateSession,
    /// Set Session Privilege Level.
    SetPrivilege,
    /// Get Device ID.
    DeviceId,
    /// Get Chassis Status.
    ChassisStatus,
    /// Chassis Control.
    ChassisControl,
    /// Set System Boot Options.
    SetBootOptions,
    /// Get System Boot Options.
    GetBootOptions,
    /// Close Session.
    CloseSession,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::AuthCapabilities => "Get Channel Authentication Capabilities",
            Step::CipherSuites => "Get Channel Cipher Suites",
            Step::OpenSession => "Open Session",
            Step::Rakp1 => "RAKP message 1",
            Step::Rakp3 => "RAKP message 3",
            Step::SessionChallenge => "Get Session Challenge",
            Step::ActivateSession => "Activate Session",
            Step::SetPrivilege => "Set Session Privilege Level",
            Step::DeviceId => "Get Device ID",
            Step::ChassisStatus => "Get Chassis Status",
            Step::ChassisControl => "Chassis Control",
            Step::SetBootOptions => "Set System Boot Options",
            Step::GetBootOptions => "Get System Boot Options",
            Step::CloseSession => "Close Session",
        })
    }
}

impl Step {
    /// Net function and command, for the steps that are commands.
    pub(super) fn command(self) -> (u8, u8) {
        match self {
            Step::AuthCapabilities => (0x06, 0x38),
            Step::CipherSuites => (0x06, 0x54),
            Step::OpenSession | Step::Rakp1 | Step::Rakp3 => (0, 0xff),
            Step::SessionChallenge => (0x06, 0x39),
            Step::ActivateSession => (0x06, 0x3a),
            Step::SetPrivilege => (0x06, 0x3b),
            Step::DeviceId => (0x06, 0x01),
            Step::ChassisStatus => (0x00, 0x01),
            Step::ChassisControl => (0x00, 0x02),
            Step::SetBootOptions => (0x00, 0x08),
            Step::GetBootOptions => (0x00, 0x09),
            Step::CloseSession => (0x06, 0x3c),
        }
    }
}

/// A refusal as the BMC expressed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// By a status code of the IPMI 2.0 handshake.
    Status(RakpStatus),
    /// By a completion code.
    Completion(Completion),
}

impl Refusal {
    /// In words, which depend on the command.
    fn at(self, step: Step) -> String {
        match self {
            Refusal::Status(status) => format!("status {status}"),
            Refusal::Completion(code) => format!("completion code {}", explain(code, step)),
        }
    }
}

fn explain(code: Completion, step: Step) -> String {
    let (net_fn, command) = step.command();
    format!("0x{:02x}, {}", code.0, code.words_for(net_fn, command))
}

/// From what it was concluded that the password is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PasswordEvidence {
    /// The BMC's proof in RAKP message 2 does not fit our password.
    BmcProof,
    /// The BMC did not accept our proof.
    Refused(RakpStatus),
    /// The BMC gave a challenge and then ignored the login. BMCs do that on a wrong password; a
    /// damaged network can look the same.
    LoginIgnored,
}

impl fmt::Display for PasswordEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordEvidence::BmcProof => f.write_str("the BMC's proof does not fit it"),
            PasswordEvidence::Refused(status) => {
                write!(f, "the BMC refused our proof: status {status}")
            }
            PasswordEvidence::LoginIgnored => {
                f.write_str("the BMC gave a challenge and then ignored the login")
            }
        }
    }
}

/// Why a goal was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpmiError {
    /// The BMC was silent.
    #[error("no answer to {step} within {waited:?} ({sent} packets sent)")]
    NoAnswer {
        /// To what.
        step: Step,
        /// How long it was waited, over all transmissions of this step.
        waited: Duration,
        /// Number of transmissions.
        sent: u32,
    },
    /// Nobody listens at the address: the network said that the port or the host cannot be reached.
    #[error("{step}: nothing listens there (unreachable for {waited:?})")]
    Unreachable {
        /// What was asked.
        step: Step,
        /// How long it was tried.
        waited: Duration,
    },
    /// Answers came, but all were damaged, or not made with our keys.
    #[error("{step}: only unusable answers: {reason}")]
    BadPacket {
        /// What was asked.
        step: Step,
        /// What was wrong with the last one.
        reason: DropReason,
    },
    /// There is no such user, or it is disabled.
    #[error("the BMC does not know the user ({words})", words = refusal.at(Step::SessionChallenge))]
    WrongUser {
        /// As the BMC said it.
        refusal: Refusal,
    },
    /// The password is wrong.
    #[error("wrong password: {evidence}")]
    WrongPassword {
        /// How it showed.
        evidence: PasswordEvidence,
    },
    /// The password is right, but the BMC has a K_g that we do not have.
    #[error("the BMC uses a K_g key other than ours")]
    WrongKg,
    /// The user may not have the privilege level, or the level may not do this.
    #[error("{step}: privilege level {wanted_name} is not enough or not allowed ({words})", words = refusal.at(*step), wanted_name = wanted.name())]
    PrivilegeTooLow {
        /// Where it showed.
        step: Step,
        /// The level that was asked for.
        wanted: Privilege,
        /// As the BMC said it.
        refusal: Refusal,
    },
    /// The BMC accepted none of the cipher suites.
    #[error("the BMC refused the cipher suites {tried:?}: {last}")]
    SuiteRefused {
        /// Their numbers, in the order of trying.
        tried: Vec<u8>,
        /// What it said to the last one.
        last: RakpStatus,
    },
    /// The BMC does not speak the wanted kind of session.
    #[error("the BMC does not offer {name} sessions", name = .0.name())]
    DriverRefused(Driver),
    /// The BMC offers no IPMI 1.5 authentication that we may use.
    #[error("no usable IPMI 1.5 authentication among those offered (bits 0x{bits:02x})", bits = offered.bits())]
    NoAuthType {
        /// What it offers.
        offered: AuthTypes,
    },
    /// All sessions of the BMC are taken.
    #[error("{step}: the BMC has no free session ({words})", words = refusal.at(*step))]
    NoSession {
        /// Where it showed.
        step: Step,
        /// As the BMC said it.
        refusal: Refusal,
    },
    /// The handshake was refused for another reason.
    #[error("{step} refused: status {status}")]
    HandshakeRefused {
        /// Where.
        step: Step,
        /// As the BMC said it.
        status: RakpStatus,
    },
    /// A command failed.
    #[error("{step} failed: completion code {words}", words = explain(*completion, *step))]
    Command {
        /// Which.
        step: Step,
        /// The completion code.
        completion: Completion,
    },
    /// A command succeeded, but its answer has too few bytes.
    #[error("{step}: the answer is too short")]
    ShortAnswer {
        /// Which.
        step: Step,
    },
    /// The total limit passed.
    #[error("not finished within {limit:?}; last at {step}")]
    OutOfTime {
        /// What was being asked.
        step: Step,
        /// The limit.
        limit: Duration,
    },
    /// The configuration cannot work with the kind of session that was chosen.
    #[error("unusable configuration")]
    Config(#[source] ConfigError),
}
