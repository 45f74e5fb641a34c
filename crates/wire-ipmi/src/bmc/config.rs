//! What a fake BMC is and how well it behaves.

use std::time::Duration;

use crate::command::{DeviceId, Power, Privilege};
use crate::completion::RakpStatus;
use crate::packet::AuthType;
use crate::secret::Secret;
use crate::suite::Suite;

/// A user of the BMC.
#[derive(Debug, Clone)]
pub struct User {
    /// Name, up to 16 bytes; empty for the user without a name.
    pub name: Vec<u8>,
    /// Password.
    pub password: Secret,
    /// The highest level the user may have.
    pub privilege: Privilege,
}

/// What happens to a proposal of a suite that the BMC does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuiteRefusal {
    /// It is refused with this status. `ipmi_sim` says [`RakpStatus::INVALID_AUTHENTICATION`], most
    /// hardware [`RakpStatus::NO_SUITE_MATCH`].
    Status(RakpStatus),
    /// It is ignored, as old firmware does.
    Silence,
}

/// What Get Channel Cipher Suites brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuiteListing {
    /// The list.
    List,
    /// An error.
    Error,
    /// Nothing, as with `ipmi_sim`.
    Silence,
}

/// Whether packets of an IPMI 1.5 session carry a code after the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PerMessageAuth {
    /// They must.
    On,
    /// They need not, and the BMC's own do not.
    Off,
}

/// A fake BMC.
#[derive(Debug, Clone)]
pub struct BmcConfig {
    /// The GUID it gives in the handshake.
    pub guid: [u8; 16],
    /// Its users.
    pub users: Vec<User>,
    /// Its key K_g, if it has one.
    pub k_g: Option<Secret>,
    /// The cipher suites it accepts; empty for a BMC without IPMI 2.0.
    pub suites: Vec<Suite>,
    /// What it does about others.
    pub suite_refusal: SuiteRefusal,
    /// What it says about its suites.
    pub suite_listing: SuiteListing,
    /// The IPMI 1.5 authentication it accepts; empty for a BMC without IPMI 1.5. Only
    /// [`AuthType::None`], [`AuthType::Md5`] and [`AuthType::Straight`] can be used.
    pub auth_types: Vec<AuthType>,
    /// Whether every IPMI 1.5 packet is authenticated.
    pub per_message_auth: PerMessageAuth,
    /// What Get Device ID says.
    pub device: DeviceId,
    /// Power at the beginning.
    pub power: Power,
    /// How many sessions may be open at once.
    pub sessions_max: usize,
    /// A session without a packet for so long is closed (spec §6.12.15: 60 s ± 3 s).
    pub session_idle: Duration,
}

impl Default for BmcConfig {
    fn default() -> BmcConfig {
        BmcConfig {
            guid: [0; 16],
            users: Vec::new(),
            k_g: None,
            suites: vec![Suite::Sha1, Suite::Sha256],
            suite_refusal: SuiteRefusal::Status(RakpStatus::NO_SUITE_MATCH),
            suite_listing: SuiteListing::List,
            auth_types: vec![AuthType::Md5, AuthType::Straight],
            per_message_auth: PerMessageAuth::On,
            device: DeviceId {
                device: 0x20,
                revision: 1,
                firmware_major: 1,
                firmware_minor: 0,
                ipmi_version: 0x02,
                // Chassis device.
                support: 0x80,
                manufacturer: 0,
                product: 0,
            },
            power: Power::Off,
            sessions_max: 8,
            session_idle: Duration::from_secs(60),
        }
    }
}
