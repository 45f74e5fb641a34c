//! What a console needs to know about a BMC before it calls.

use std::time::Duration;

use crate::command::Privilege;
use crate::packet::AuthType;
use crate::rakp::USER_MAX;
use crate::secret::{KEY_MAX, Secret};
use crate::suite::Suite;

/// The longest password of an IPMI 1.5 session, bytes.
pub const PASSWORD_MAX_V15: usize = 16;

/// Which kind of session to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// What the BMC says it speaks: 2.0, else 1.5. Never sends the password in clear, because the BMC's
    /// word is not authenticated.
    Auto,
    /// IPMI 1.5 only (MAAS: `LAN`).
    Lan,
    /// IPMI 2.0 only (MAAS: `LAN_2_0`).
    Lan20,
}

impl Driver {
    /// In words for people.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Auto => "IPMI",
            Driver::Lan => "IPMI 1.5",
            Driver::Lan20 => "IPMI 2.0",
        }
    }

    /// From the value of MAAS's `power_driver`.
    pub fn from_name(name: &str) -> Option<Driver> {
        match name {
            "LAN" => Some(Driver::Lan),
            "LAN_2_0" => Some(Driver::Lan20),
            _ => None,
        }
    }
}

/// Which cipher suites to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuiteChoice {
    /// Ask the BMC, briefly; then 17, then 3, leaving out what it does not list.
    Auto,
    /// This one, then 17 and 3 without asking.
    Prefer(Suite),
    /// This one and no other.
    Only(Suite),
}

impl SuiteChoice {
    /// From the value of MAAS's `cipher_suite_id` (`17`, `3`, `8`, `12` or empty).
    pub fn from_id_text(text: &str) -> Option<SuiteChoice> {
        if text.is_empty() {
            return Some(SuiteChoice::Auto);
        }
        text.parse()
            .ok()
            .and_then(Suite::from_id)
            .map(SuiteChoice::Prefer)
    }

    /// The suites in the order of trying.
    pub(super) fn order(self) -> Vec<Suite> {
        match self {
            SuiteChoice::Auto => vec![Suite::Sha256, Suite::Sha1],
            SuiteChoice::Only(suite) => vec![suite],
            SuiteChoice::Prefer(first) => {
                let mut order = vec![first];
                order.extend(
                    [Suite::Sha256, Suite::Sha1]
                        .into_iter()
                        .filter(|s| *s != first),
                );
                order
            }
        }
    }
}

/// How the BMC shall look the user up (spec §13.20, role byte).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// By name.
    NameOnly,
    /// By name and privilege level.
    NameAndPrivilege,
}

/// A deviation from the spec for BMCs that have their own reading of it. The names are FreeIPMI's, which
/// MAAS stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workaround {
    /// Name the wanted privilege level in the open-session request instead of "the highest".
    OpenSessPriv,
    /// Do not believe Get Channel Authentication Capabilities; use what was configured.
    AuthCap,
    /// Accept session number 0 from the BMC.
    IdZero,
    /// Accept authenticated packets where none were agreed. Always on here: they are verified.
    UnexpectedAuth,
    /// Authenticate every packet, even if the BMC says that it need not be.
    ForcePerMsg,
    /// Sequence numbers of IPMI 1.5 sessions have their most significant byte first.
    EndianSeq,
    /// Names are filled up to 16 bytes in the handshake, and passwords cut to 16 with HMAC-MD5.
    Intel20,
    /// Codes in the handshake may have bytes too many.
    Supermicro20,
    /// Known, without effect here.
    Sun20,
    /// Do not look at message checksums.
    NoChecksumCheck,
    /// Known, without effect here: it concerns cipher suite 0 only, which is not spoken.
    IntegrityCheckValue,
    /// Known, without effect here: no ping is needed before a session.
    IpmiPing,
}

impl Workaround {
    const ALL: [(Workaround, &'static str); 12] = [
        (Workaround::OpenSessPriv, "opensesspriv"),
        (Workaround::AuthCap, "authcap"),
        (Workaround::IdZero, "idzero"),
        (Workaround::UnexpectedAuth, "unexpectedauth"),
        (Workaround::ForcePerMsg, "forcepermsg"),
        (Workaround::EndianSeq, "endianseq"),
        (Workaround::Intel20, "intel20"),
        (Workaround::Supermicro20, "supermicro20"),
        (Workaround::Sun20, "sun20"),
        (Workaround::NoChecksumCheck, "nochecksumcheck"),
        (Workaround::IntegrityCheckValue, "integritycheckvalue"),
        (Workaround::IpmiPing, "ipmiping"),
    ];

    /// From a name in MAAS's `workaround_flags`.
    pub fn from_name(name: &str) -> Option<Workaround> {
        Workaround::ALL
            .into_iter()
            .find(|(_, n)| *n == name)
            .map(|(w, _)| w)
    }

    /// FreeIPMI's name.
    pub fn name(self) -> &'static str {
        Workaround::ALL[self as usize].1
    }
}

/// A set of [`Workaround`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Workarounds(u16);

impl Workarounds {
    /// None.
    pub const NONE: Workarounds = Workarounds(0);

    /// The set with this one added.
    #[must_use]
    pub fn with(self, workaround: Workaround) -> Workarounds {
        Workarounds(self.0 | 1 << workaround as u16)
    }

    /// Whether it is in the set.
    pub fn has(self, workaround: Workaround) -> bool {
        self.0 & 1 << workaround as u16 != 0
    }

    /// From names as MAAS stores them; the empty name (its "none") is passed over.
    ///
    /// # Errors
    /// The first name that is not known.
    pub fn from_names<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Workarounds, &'a str> {
        names
            .into_iter()
            .filter(|n| !n.is_empty())
            .try_fold(Workarounds::NONE, |set, name| {
                match Workaround::from_name(name) {
                    Some(workaround) => Ok(set.with(workaround)),
                    None => Err(name),
                }
            })
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Wait after the first transmission of a request; doubles with every further one.
    pub first: Duration,
    /// The wait does not grow beyond this.
    pub ceiling: Duration,
    /// Transmissions of one request before it counts as unanswered (at least 1).
    pub tries: u32,
    /// Limit for everything together, from the start to the result.
    pub total: Duration,
}

impl Default for Timing {
    /// BMCs are slow: half a second to an answer is common, several seconds happen while they start.
    fn default() -> Timing {
        Timing {
            first: Duration::from_millis(700),
            ceiling: Duration::from_secs(4),
            tries: 5,
            total: Duration::from_secs(30),
        }
    }
}

/// Everything about one BMC and the way to talk to it.
#[derive(Debug, Clone)]
pub struct Config {
    /// User name; empty for the user without a name.
    pub user: Vec<u8>,
    /// Password; empty for none.
    pub password: Secret,
    /// The BMC's key K_g, see [`Secret::parse_k_g`]. If the BMC has another one, the login is tried
    /// again without.
    pub k_g: Option<Secret>,
    /// Which kind of session.
    pub driver: Driver,
    /// Which cipher suites (IPMI 2.0).
    pub suites: SuiteChoice,
    /// Which authentication (IPMI 1.5); `None` for the best on offer.
    pub auth: Option<AuthType>,
    /// Privilege level of the session.
    pub privilege: Privilege,
    /// How the BMC shall look the user up (IPMI 2.0).
    pub lookup: Lookup,
    /// Deviations.
    pub workarounds: Workarounds,
    /// Waiting.
    pub timing: Timing,
}

impl Default for Config {
    /// MAAS's defaults: IPMI 2.0, suite 3 first, level OPERATOR, workaround `opensesspriv`.
    fn default() -> Config {
        Config {
            user: Vec::new(),
            password: Secret::default(),
            k_g: None,
            driver: Driver::Lan20,
            suites: SuiteChoice::Prefer(Suite::Sha1),
            auth: None,
            privilege: Privilege::Operator,
            lookup: Lookup::NameOnly,
            workarounds: Workarounds::NONE.with(Workaround::OpenSessPriv),
            timing: Timing::default(),
        }
    }
}

/// A configuration that no BMC could accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The user name has more than 16 bytes.
    #[error("the user name is longer than 16 bytes")]
    UserTooLong,
    /// The password is longer than the kind of session allows.
    #[error("the password is longer than {max} bytes")]
    PasswordTooLong {
        /// The limit, bytes.
        max: usize,
    },
    /// The K_g has more than 20 bytes.
    #[error("the K_g is longer than 20 bytes")]
    KgTooLong,
    /// IPMI 1.5 authentication that this program does not compute.
    #[error("authentication type {0:?} is not supported")]
    AuthType(AuthType),
}

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.user.len() > USER_MAX {
            return Err(ConfigError::UserTooLong);
        }
        let max = match self.driver {
            Driver::Lan => PASSWORD_MAX_V15,
            Driver::Auto | Driver::Lan20 => KEY_MAX,
        };
        if self.password.len() > max {
            return Err(ConfigError::PasswordTooLong { max });
        }
        if self.k_g.as_ref().is_some_and(|k| k.len() > KEY_MAX) {
            return Err(ConfigError::KgTooLong);
        }
        match self.auth {
            Some(auth @ (AuthType::Md2 | AuthType::Other(_))) => Err(ConfigError::AuthType(auth)),
            None | Some(AuthType::None | AuthType::Md5 | AuthType::Straight) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workaround_has_its_freeipmi_name() {
        for (i, (workaround, name)) in Workaround::ALL.into_iter().enumerate() {
            assert_eq!(workaround as usize, i);
            assert_eq!(Workaround::from_name(name), Some(workaround));
            assert_eq!(workaround.name(), name);
        }
        let set = Workarounds::from_names(["", "idzero"]).expect("known");
        assert!(set.has(Workaround::IdZero) && !set.has(Workaround::AuthCap));
        assert_eq!(
            Workarounds::from_names(["idzero", "nonsense"]),
            Err("nonsense")
        );
    }

    #[test]
    fn a_preferred_suite_is_followed_by_17_and_3() {
        assert_eq!(
            SuiteChoice::from_id_text("17").map(SuiteChoice::order),
            Some(vec![Suite::Sha256, Suite::Sha1])
        );
        assert_eq!(
            SuiteChoice::from_id_text("3").map(SuiteChoice::order),
            Some(vec![Suite::Sha1, Suite::Sha256])
        );
        assert_eq!(
            SuiteChoice::from_id_text("8").map(SuiteChoice::order),
            Some(vec![Suite::HmacMd5, Suite::Sha256, Suite::Sha1])
        );
        assert_eq!(SuiteChoice::from_id_text(""), Some(SuiteChoice::Auto));
        assert_eq!(SuiteChoice::from_id_text("4"), None);
    }
}
