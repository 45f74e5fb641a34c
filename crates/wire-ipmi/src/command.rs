//! The commands that this product uses, both ways: the console encodes requests and decodes answers, the
//! BMC the other way round.

use crate::completion::Completion;
use crate::packet::AuthType;

/// Net function of chassis requests.
pub const NET_FN_CHASSIS: u8 = 0x00;
/// Net function of application requests (sessions, device).
pub const NET_FN_APP: u8 = 0x06;
/// "The channel this request came in on".
pub const CHANNEL_PRESENT: u8 = 0x0e;

/// Privilege levels (spec §6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// Hardly anything.
    Callback,
    /// May look.
    User,
    /// May switch power and set the boot device.
    Operator,
    /// May configure the BMC.
    Admin,
}

impl Privilege {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Privilege::Callback => 1,
            Privilege::User => 2,
            Privilege::Operator => 3,
            Privilege::Admin => 4,
        }
    }

    /// From the number on the wire (its low four bits).
    pub fn from_code(code: u8) -> Option<Privilege> {
        match code & 0x0f {
            1 => Some(Privilege::Callback),
            2 => Some(Privilege::User),
            3 => Some(Privilege::Operator),
            4 => Some(Privilege::Admin),
            _ => None,
        }
    }

    /// The name that MAAS stores (`USER`, `OPERATOR`, `ADMIN`).
    pub fn from_name(name: &str) -> Option<Privilege> {
        match name {
            "USER" => Some(Privilege::User),
            "OPERATOR" => Some(Privilege::Operator),
            "ADMIN" => Some(Privilege::Admin),
            _ => None,
        }
    }

    /// The level's name.
    pub fn name(self) -> &'static str {
        match self {
            Privilege::Callback => "CALLBACK",
            Privilege::User => "USER",
            Privilege::Operator => "OPERATOR",
            Privilege::Admin => "ADMIN",
        }
    }
}

/// What Chassis Control does (spec §28.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChassisControl {
    /// Power down at once.
    PowerDown,
    /// Power up.
    PowerUp,
    /// Off and on again.
    PowerCycle,
    /// Hard reset.
    HardReset,
    /// Diagnostic interrupt.
    DiagnosticInterrupt,
    /// Ask the operating system to shut down (ACPI).
    SoftShutdown,
}

impl ChassisControl {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            ChassisControl::PowerDown => 0,
            ChassisControl::PowerUp => 1,
            ChassisControl::PowerCycle => 2,
            ChassisControl::HardReset => 3,
            ChassisControl::DiagnosticInterrupt => 4,
            ChassisControl::SoftShutdown => 5,
        }
    }

    /// From the number on the wire.
    pub fn from_code(code: u8) -> Option<ChassisControl> {
        match code {
            0 => Some(ChassisControl::PowerDown),
            1 => Some(ChassisControl::PowerUp),
            2 => Some(ChassisControl::PowerCycle),
            3 => Some(ChassisControl::HardReset),
            4 => Some(ChassisControl::DiagnosticInterrupt),
            5 => Some(ChassisControl::SoftShutdown),
            _ => None,
        }
    }
}

/// Whether a machine has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// It runs.
    On,
    /// It does not.
    Off,
}

/// Answer of Get Chassis Status (spec §28.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChassisStatus {
    /// Whether the machine has power.
    pub power: Power,
    /// The rest of the current power state byte: overload, interlock, faults, restore policy.
    pub power_bits: u8,
    /// What happened last to the power.
    pub last_event: u8,
    /// Miscellaneous state: intrusion, front panel lockout, drive and fan faults, identify.
    pub misc: u8,
}

impl ChassisStatus {
    /// The data after the completion code.
    pub fn encode(&self) -> Vec<u8> {
        let on = match self.power {
            Power::On => 1,
            Power::Off => 0,
        };
        vec![self.power_bits & !1 | on, self.last_event, self.misc]
    }

    /// From the data after the completion code; `None` if it is too short.
    pub fn decode(data: &[u8]) -> Option<ChassisStatus> {
        let [state, last_event, misc, ..] = data else {
            return None;
        };
        let power = if state & 1 == 1 {
            Power::On
        } else {
            Power::Off
        };
        Some(ChassisStatus {
            power,
            power_bits: state & !1,
            last_event: *last_event,
            misc: *misc,
        })
    }
}

/// Where to boot from (spec table 28-14, parameter 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootDevice {
    /// Whatever the firmware is set up for.
    None,
    /// The network.
    Pxe,
    /// The default disk.
    Disk,
    /// Another number: diagnostic partition, CD, BIOS set-up, remote media, …
    Other(u8),
}

impl BootDevice {
    /// The number on the wire, four bits.
    pub fn code(self) -> u8 {
        match self {
            BootDevice::None => 0,
            BootDevice::Pxe => 1,
            BootDevice::Disk => 2,
            BootDevice::Other(code) => code & 0x0f,
        }
    }

    /// From the number on the wire.
    pub fn from_code(code: u8) -> BootDevice {
        match code & 0x0f {
            0 => BootDevice::None,
            1 => BootDevice::Pxe,
            2 => BootDevice::Disk,
            other => BootDevice::Other(other),
        }
    }
}

/// The boot flags, parameter 5 of the boot options.
///
/// ```text
/// byte 1   valid 80 | persistent 40 | EFI 20
/// byte 2   device << 2
/// byte 3–5 console and screen options, not used here
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootFlags {
    /// Whether the other fields count at the next boot.
    pub valid: bool,
    /// For all boots, not just the next.
    pub persistent: bool,
    /// Boot in UEFI mode; otherwise legacy BIOS, or as the firmware likes.
    pub efi: bool,
    /// Where from.
    pub device: BootDevice,
}

impl BootFlags {
    /// No wish.
    pub const NONE: BootFlags = BootFlags {
        valid: false,
        persistent: false,
        efi: false,
        device: BootDevice::None,
    };

    /// The five bytes of the parameter.
    pub fn encode(&self) -> [u8; 5] {
        let mut first = 0;
        for (set, bit) in [
            (self.valid, 0x80),
            (self.persistent, 0x40),
            (self.efi, 0x20),
        ] {
            if set {
                first |= bit;
            }
        }
        [first, self.device.code() << 2, 0, 0, 0]
    }

    /// From the bytes of the parameter; `None` if there are fewer than two.
    pub fn decode(data: &[u8]) -> Option<BootFlags> {
        let [first, second, ..] = data else {
            return None;
        };
        Some(BootFlags {
            valid: first & 0x80 != 0,
            persistent: first & 0x40 != 0,
            efi: first & 0x20 != 0,
            device: BootDevice::from_code(second >> 2),
        })
    }
}

/// The boot option parameters used here (spec table 28-14).
pub mod boot_parameter {
    /// "Set in progress": 0 complete, 1 in progress, 2 commit.
    pub const SET_IN_PROGRESS: u8 = 0;
    /// Which events leave the boot flags valid.
    pub const VALID_BIT_CLEARING: u8 = 3;
    /// Who has handled the boot information.
    pub const ACKNOWLEDGE: u8 = 4;
    /// The boot flags.
    pub const FLAGS: u8 = 5;
}

/// Answer of Get Device ID (spec §20.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceId {
    /// Device id.
    pub device: u8,
    /// Device revision, and bit 7 for SDRs.
    pub revision: u8,
    /// Firmware major revision, seven bits; bit 7 says that the device is being updated.
    pub firmware_major: u8,
    /// Firmware minor revision, BCD.
    pub firmware_minor: u8,
    /// IPMI version, BCD with the digits turned around: 0x02 is 2.0, 0x51 is 1.5.
    pub ipmi_version: u8,
    /// Which kinds of device it is.
    pub support: u8,
    /// The manufacturer's enterprise number, 20 bits.
    pub manufacturer: u32,
    /// The manufacturer's product number.
    pub product: u16,
}

impl DeviceId {
    /// The data after the completion code.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![
            self.device,
            self.revision,
            self.firmware_major,
            self.firmware_minor,
            self.ipmi_version,
            self.support,
        ];
        out.extend_from_slice(&self.manufacturer.to_le_bytes()[..3]);
        out.extend_from_slice(&self.product.to_le_bytes());
        out
    }

    /// From the data after the completion code; `None` if it is too short.
    pub fn decode(data: &[u8]) -> Option<DeviceId> {
        let [
            device,
            revision,
            major,
            minor,
            version,
            support,
            m0,
            m1,
            m2,
            p0,
            p1,
            ..,
        ] = data
        else {
            return None;
        };
        Some(DeviceId {
            device: *device,
            revision: *revision,
            firmware_major: *major,
            firmware_minor: *minor,
            ipmi_version: *version,
            support: *support,
            manufacturer: u32::from_le_bytes([*m0, *m1, *m2, 0]),
            product: u16::from_le_bytes([*p0, *p1]),
        })
    }
}

/// Which IPMI 1.5 authentication types a BMC offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct AuthTypes(u8);

impl AuthTypes {
    /// From the bits on the wire.
    pub fn from_bits(bits: u8) -> AuthTypes {
        AuthTypes(bits & 0x3f)
    }

    /// The bits on the wire.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set of these types.
    pub fn of(types: &[AuthType]) -> AuthTypes {
        AuthTypes(
            types
                .iter()
                .filter(|t| t.code() < 6)
                .fold(0, |bits, t| bits | 1 << t.code()),
        )
    }

    /// Whether the type is among them.
    pub fn has(self, auth: AuthType) -> bool {
        auth.code() < 6 && self.0 & 1 << auth.code() != 0
    }
}

/// Answer of Get Channel Authentication Capabilities (spec §22.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthCapabilities {
    /// The channel's number.
    pub channel: u8,
    /// What can be used for IPMI 1.5 sessions.
    pub auth_types: AuthTypes,
    /// Status bits: 20 a K_g is set, 10 per-message authentication off, 08 user-level authentication
    /// off, 04 named users, 02 users without a name, 01 anonymous login.
    pub status: u8,
    /// Bit 1: IPMI 2.0, bit 0: IPMI 1.5. `None` when the BMC gave no extended answer.
    pub extended: Option<u8>,
}

/// Status bit: per-message authentication is off.
pub const STATUS_PER_MESSAGE_OFF: u8 = 0x10;
/// Status bit: there is a K_g.
pub const STATUS_K_G: u8 = 0x20;
/// Status bit: users with a name can log in.
pub const STATUS_NAMED_USERS: u8 = 0x04;
/// Status bit: users without a name can log in.
pub const STATUS_UNNAMED_USERS: u8 = 0x02;

impl AuthCapabilities {
    /// The data after the completion code.
    pub fn encode(&self) -> Vec<u8> {
        let flag = if self.extended.is_some() { 0x80 } else { 0 };
        vec![
            self.channel,
            self.auth_types.bits() | flag,
            self.status,
            self.extended.unwrap_or(0),
            0,
            0,
            0,
            0,
        ]
    }

    /// From the data after the completion code; `None` if it is too short.
    pub fn decode(data: &[u8]) -> Option<AuthCapabilities> {
        let [channel, types, status, extended, ..] = data else {
            return None;
        };
        Some(AuthCapabilities {
            channel: *channel,
            auth_types: AuthTypes::from_bits(*types),
            status: *status,
            extended: (types & 0x80 != 0).then_some(*extended),
        })
    }

    /// Whether the BMC says that it speaks IPMI 2.0.
    pub fn speaks_v20(&self) -> bool {
        self.extended.is_some_and(|bits| bits & 2 != 0)
    }
}

/// How many bytes of cipher suite records one answer carries at most (spec §22.15).
pub const SUITE_CHUNK: usize = 16;

/// The records for these suites: C0, number, authentication, 40 + integrity, 80 + confidentiality.
pub fn encode_suite_records(suites: &[crate::Suite]) -> Vec<u8> {
    let mut out = Vec::with_capacity(suites.len() * 5);
    for suite in suites {
        let algorithms = suite.algorithms();
        out.extend_from_slice(&[
            0xc0,
            suite.id(),
            algorithms.authentication,
            0x40 | algorithms.integrity,
            0x80 | algorithms.confidentiality,
        ]);
    }
    out
}

/// The suite numbers in such records. Records with an OEM number and anything unreadable are passed over.
pub fn decode_suite_records(records: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut rest = records;
    while let [head, tail @ ..] = rest {
        rest = match (head, tail) {
            (0xc0, [id, after @ ..]) => {
                found.push(*id);
                after
            }
            (0xc1, [_, _, _, _, after @ ..]) => after,
            _ => tail,
        };
    }
    found
}

/// A request to a BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Get Channel Authentication Capabilities.
    GetAuthCapabilities {
        /// Whether the IPMI 2.0 extension is asked for.
        extended: bool,
        /// Channel, normally [`CHANNEL_PRESENT`].
        channel: u8,
        /// Privilege level that will be asked for.
        privilege: u8,
    },
    /// Get Channel Cipher Suites, by suite, for IPMI payloads.
    GetCipherSuites {
        /// Channel, normally [`CHANNEL_PRESENT`].
        channel: u8,
        /// Which chunk of the list, 0 to 63.
        index: u8,
    },
    /// Get Session Challenge (IPMI 1.5).
    GetSessionChallenge {
        /// How the session will be authenticated.
        auth: AuthType,
        /// User name, filled up with zeros.
        user: [u8; 16],
    },
    /// Activate Session (IPMI 1.5).
    ActivateSession {
        /// As in the challenge.
        auth: AuthType,
        /// Highest privilege level of the session.
        privilege: u8,
        /// What the BMC gave.
        challenge: [u8; 16],
        /// The first sequence number that the BMC shall use.
        initial_sequence: u32,
    },
    /// Set Session Privilege Level.
    SetPrivilege {
        /// The level; 0 only asks for the present one.
        level: u8,
    },
    /// Close Session.
    CloseSession {
        /// The BMC's session number.
        session: u32,
    },
    /// Get Device ID.
    GetDeviceId,
    /// Get System GUID.
    GetSystemGuid,
    /// Get Chassis Status.
    GetChassisStatus,
    /// Chassis Control.
    ChassisControl(ChassisControl),
    /// Set System Boot Options.
    SetBootOptions {
        /// Which parameter.
        parameter: u8,
        /// Its value.
        data: Vec<u8>,
    },
    /// Get System Boot Options.
    GetBootOptions {
        /// Which parameter.
        parameter: u8,
    },
    /// Any other command.
    Other {
        /// Net function.
        net_fn: u8,
        /// Command.
        command: u8,
        /// Data.
        data: Vec<u8>,
    },
}

impl Request {
    /// Net function and command.
    pub fn code(&self) -> (u8, u8) {
        match self {
            Request::GetAuthCapabilities { .. } => (NET_FN_APP, 0x38),
            Request::GetCipherSuites { .. } => (NET_FN_APP, 0x54),
            Request::GetSessionChallenge { .. } => (NET_FN_APP, 0x39),
            Request::ActivateSession { .. } => (NET_FN_APP, 0x3a),
            Request::SetPrivilege { .. } => (NET_FN_APP, 0x3b),
            Request::CloseSession { .. } => (NET_FN_APP, 0x3c),
            Request::GetDeviceId => (NET_FN_APP, 0x01),
            Request::GetSystemGuid => (NET_FN_APP, 0x37),
            Request::GetChassisStatus => (NET_FN_CHASSIS, 0x01),
            Request::ChassisControl(_) => (NET_FN_CHASSIS, 0x02),
            Request::SetBootOptions { .. } => (NET_FN_CHASSIS, 0x08),
            Request::GetBootOptions { .. } => (NET_FN_CHASSIS, 0x09),
            Request::Other {
                net_fn, command, ..
            } => (*net_fn, *command),
        }
    }

    /// The request's data.
    pub fn data(&self) -> Vec<u8> {
        match self {
            Request::GetAuthCapabilities {
                extended,
                channel,
                privilege,
            } => vec![
                if *extended { 0x80 | channel } else { *channel },
                *privilege,
            ],
            Request::GetCipherSuites { channel, index } => vec![*channel, 0, 0x80 | index & 0x3f],
            Request::GetSessionChallenge { auth, user } => {
                let mut out = vec![auth.code()];
                out.extend_from_slice(user);
                out
            }
            Request::ActivateSession {
                auth,
                privilege,
                challenge,
                initial_sequence,
            } => {
                let mut out = vec![auth.code(), *privilege];
                out.extend_from_slice(challenge);
                out.extend_from_slice(&initial_sequence.to_le_bytes());
                out
            }
            Request::SetPrivilege { level } => vec![*level],
            Request::CloseSession { session } => session.to_le_bytes().to_vec(),
            Request::GetDeviceId | Request::GetSystemGuid | Request::GetChassisStatus => Vec::new(),
            Request::ChassisControl(control) => vec![control.code()],
            Request::SetBootOptions { parameter, data } => {
                let mut out = vec![parameter & 0x7f];
                out.extend_from_slice(data);
                out
            }
            Request::GetBootOptions { parameter } => vec![parameter & 0x7f, 0, 0],
            Request::Other { data, .. } => data.clone(),
        }
    }

    /// From net function, command and data.
    ///
    /// # Errors
    /// The completion code with which a BMC refuses such a request.
    pub fn decode(net_fn: u8, command: u8, data: &[u8]) -> Result<Request, Completion> {
        let short = Completion::WRONG_LENGTH;
        match (net_fn, command) {
            (NET_FN_APP, 0x38) => match data {
                [channel, privilege, ..] => Ok(Request::GetAuthCapabilities {
                    extended: channel & 0x80 != 0,
                    channel: channel & 0x0f,
                    privilege: privilege & 0x0f,
                }),
                _ => Err(short),
            },
            (NET_FN_APP, 0x54) => match data {
                [channel, 0, index, ..] if index & 0x80 != 0 => Ok(Request::GetCipherSuites {
                    channel: channel & 0x0f,
                    index: index & 0x3f,
                }),
                [_, _, _, ..] => Err(Completion::INVALID_FIELD),
                _ => Err(short),
            },
            (NET_FN_APP, 0x39) => {
                let (auth, user) = data.split_first().ok_or(short)?;
                Ok(Request::GetSessionChallenge {
                    auth: AuthType::from_code(auth & 0x0f),
                    user: user.try_into().map_err(|_| short)?,
                })
            }
            (NET_FN_APP, 0x3a) => match data {
                [auth, privilege, rest @ ..] => {
                    let (challenge, sequence) = rest.split_first_chunk::<16>().ok_or(short)?;
                    Ok(Request::ActivateSession {
                        auth: AuthType::from_code(auth & 0x0f),
                        privilege: privilege & 0x0f,
                        challenge: *challenge,
                        initial_sequence: u32::from_le_bytes(
                            sequence.try_into().map_err(|_| short)?,
                        ),
                    })
                }
                _ => Err(short),
            },
            (NET_FN_APP, 0x3b) => match data {
                [level, ..] => Ok(Request::SetPrivilege {
                    level: level & 0x0f,
                }),
                _ => Err(short),
            },
            (NET_FN_APP, 0x3c) => match data.first_chunk::<4>() {
                Some(session) => Ok(Request::CloseSession {
                    session: u32::from_le_bytes(*session),
                }),
                None => Err(short),
            },
            (NET_FN_APP, 0x01) => Ok(Request::GetDeviceId),
            (NET_FN_APP, 0x37) => Ok(Request::GetSystemGuid),
            (NET_FN_CHASSIS, 0x01) => Ok(Request::GetChassisStatus),
            (NET_FN_CHASSIS, 0x02) => match data {
                [code, ..] => ChassisControl::from_code(code & 0x0f)
                    .map(Request::ChassisControl)
                    .ok_or(Completion::INVALID_FIELD),
                _ => Err(short),
            },
            (NET_FN_CHASSIS, 0x08) => match data {
                [parameter, value @ ..] => Ok(Request::SetBootOptions {
                    parameter: parameter & 0x7f,
                    data: value.to_vec(),
                }),
                _ => Err(short),
            },
            (NET_FN_CHASSIS, 0x09) => match data {
                [parameter, _, _, ..] => Ok(Request::GetBootOptions {
                    parameter: parameter & 0x7f,
                }),
                _ => Err(short),
            },
            _ => Ok(Request::Other {
                net_fn,
                command,
                data: data.to_vec(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Suite;
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Request> {
        let auth = prop_oneof![
            Just(AuthType::None),
            Just(AuthType::Md5),
            Just(AuthType::Straight)
        ];
        let control = (0u8..6).prop_map(|c| {
            Request::ChassisControl(ChassisControl::from_code(c).expect("0 to 5 have a meaning"))
        });
        prop_oneof![
            (any::<bool>(), 0u8..16, 0u8..16).prop_map(|(extended, channel, privilege)| {
                Request::GetAuthCapabilities {
                    extended,
                    channel,
                    privilege,
                }
            }),
            (0u8..16, 0u8..64)
                .prop_map(|(channel, index)| Request::GetCipherSuites { channel, index }),
            (auth.clone(), any::<[u8; 16]>())
                .prop_map(|(auth, user)| Request::GetSessionChallenge { auth, user }),
            (auth, 0u8..16, any::<[u8; 16]>(), any::<u32>()).prop_map(
                |(auth, privilege, challenge, initial_sequence)| Request::ActivateSession {
                    auth,
                    privilege,
                    challenge,
                    initial_sequence
                }
            ),
            (0u8..16).prop_map(|level| Request::SetPrivilege { level }),
            any::<u32>().prop_map(|session| Request::CloseSession { session }),
            Just(Request::GetDeviceId),
            Just(Request::GetSystemGuid),
            Just(Request::GetChassisStatus),
            control,
            (0u8..128, proptest::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(parameter, data)| Request::SetBootOptions { parameter, data }),
            (0u8..128).prop_map(|parameter| Request::GetBootOptions { parameter }),
            (
                8u8..64,
                any::<u8>(),
                proptest::collection::vec(any::<u8>(), 0..20)
            )
                .prop_map(|(net_fn, command, data)| Request::Other {
                    net_fn,
                    command,
                    data
                }),
        ]
    }

    proptest! {
        #[test]
        fn a_request_survives_the_wire(request in request()) {
            let (net_fn, command) = request.code();
            prop_assert_eq!(Request::decode(net_fn, command, &request.data()), Ok(request));
        }

        #[test]
        fn any_data_is_decoded_or_refused(net_fn in 0u8..64, command: u8, data in proptest::collection::vec(any::<u8>(), 0..40)) {
            Request::decode(net_fn, command, &data).ok();
            ChassisStatus::decode(&data);
            BootFlags::decode(&data);
            DeviceId::decode(&data);
            AuthCapabilities::decode(&data);
            decode_suite_records(&data);
        }

        #[test]
        fn boot_flags_survive_the_wire(valid: bool, persistent: bool, efi: bool, device in 0u8..16) {
            let flags = BootFlags { valid, persistent, efi, device: BootDevice::from_code(device) };
            prop_assert_eq!(BootFlags::decode(&flags.encode()), Some(flags));
        }

        #[test]
        fn a_device_id_survives_the_wire(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, manufacturer in 0u32..0x0100_0000, product: u16) {
            let id = DeviceId { device: a, revision: b, firmware_major: c, firmware_minor: d, ipmi_version: e, support: f, manufacturer, product };
            prop_assert_eq!(DeviceId::decode(&id.encode()), Some(id));
        }

        #[test]
        fn authentication_capabilities_survive_the_wire(channel: u8, types: u8, status: u8, extended: Option<u8>) {
            let capabilities = AuthCapabilities { channel, auth_types: AuthTypes::from_bits(types), status, extended };
            prop_assert_eq!(AuthCapabilities::decode(&capabilities.encode()), Some(capabilities));
        }

        #[test]
        fn a_chassis_status_survives_the_wire(on: bool, bits: u8, last_event: u8, misc: u8) {
            let power = if on { Power::On } else { Power::Off };
            let status = ChassisStatus { power, power_bits: bits & !1, last_event, misc };
            prop_assert_eq!(ChassisStatus::decode(&status.encode()), Some(status));
        }
    }

    #[test]
    fn suite_records_are_read_past_an_oem_record() {
        let mut records = vec![0xc1, 0x80, 1, 2, 3, 0x01, 0x41];
        records.extend(encode_suite_records(&[Suite::Sha1, Suite::Sha256]));
        assert_eq!(decode_suite_records(&records), [3, 17]);
    }
}
