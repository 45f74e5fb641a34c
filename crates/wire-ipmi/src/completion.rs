//! Completion codes of commands (spec §5.2) and status codes of the session handshake (§13.24), with words.

use std::fmt;

/// The first byte of a command's answer: 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Completion(pub u8);

impl Completion {
    /// Done.
    pub const OK: Completion = Completion(0x00);
    /// The BMC is busy; ask again.
    pub const NODE_BUSY: Completion = Completion(0xc0);
    /// The command is not known.
    pub const INVALID_COMMAND: Completion = Completion(0xc1);
    /// The data is too short or too long.
    pub const WRONG_LENGTH: Completion = Completion(0xc7);
    /// A parameter is out of range.
    pub const OUT_OF_RANGE: Completion = Completion(0xc9);
    /// A field of the data is invalid.
    pub const INVALID_FIELD: Completion = Completion(0xcc);
    /// The BMC is still starting; ask again.
    pub const STARTING: Completion = Completion(0xd2);
    /// The privilege level does not suffice.
    pub const PRIVILEGE: Completion = Completion(0xd4);
    /// Not possible in the present state.
    pub const PRESENT_STATE: Completion = Completion(0xd5);
    /// Command-specific 0x80 (for boot options: parameter not supported).
    pub const SPECIFIC_80: Completion = Completion(0x80);
    /// Command-specific 0x81.
    pub const SPECIFIC_81: Completion = Completion(0x81);
    /// Command-specific 0x82.
    pub const SPECIFIC_82: Completion = Completion(0x82);

    /// Whether the command was carried out.
    pub fn is_ok(self) -> bool {
        self == Completion::OK
    }

    /// Whether asking again after a while may help.
    pub fn is_passing(self) -> bool {
        self == Completion::NODE_BUSY || self == Completion::STARTING
    }

    /// What the code means for any command.
    pub fn words(self) -> &'static str {
        match self.0 {
            0x00 => "command completed normally",
            0x01..=0x7e => "device specific (OEM) code",
            0x80..=0xbe => "command specific code",
            0xc0 => "node busy",
            0xc1 => "invalid command",
            0xc2 => "command invalid for this LUN",
            0xc3 => "timeout while processing the command",
            0xc4 => "out of space",
            0xc5 => "reservation cancelled or invalid",
            0xc6 => "request data truncated",
            0xc7 => "request data length invalid",
            0xc8 => "request data field length limit exceeded",
            0xc9 => "parameter out of range",
            0xca => "cannot return that many bytes",
            0xcb => "requested sensor, data or record not present",
            0xcc => "invalid data field in request",
            0xcd => "command illegal for this sensor or record",
            0xce => "response could not be provided",
            0xcf => "cannot execute duplicated request",
            0xd0 => "response could not be provided: SDR repository in update mode",
            0xd1 => "response could not be provided: device in firmware update mode",
            0xd2 => "response could not be provided: BMC initialization in progress",
            0xd3 => "destination unavailable",
            0xd4 => "insufficient privilege level",
            0xd5 => "command or parameter not supported in present state",
            0xd6 => "command sub-function disabled or unavailable",
            0xff => "unspecified error",
            _ => "reserved code",
        }
    }

    /// What the code means for one command, where that command has its own codes.
    pub fn words_for(self, net_fn: u8, command: u8) -> &'static str {
        match (net_fn & !1, command, self.0) {
            (0x06, 0x39, 0x81) => "invalid user name",
            (0x06, 0x39, 0x82) => "null user name not enabled",
            (0x06, 0x3a, 0x81) => "no session slot available",
            (0x06, 0x3a, 0x82) => "no slot available for this user",
            (0x06, 0x3a, 0x83) => "no slot available at this privilege level",
            (0x06, 0x3a, 0x84) => "session sequence number out of range",
            (0x06, 0x3a, 0x85) => "invalid session ID in request",
            (0x06, 0x3a, 0x86) => "requested privilege level exceeds the user or channel limit",
            (0x06, 0x3b, 0x80) => "requested level not available for this user",
            (0x06, 0x3b, 0x81) => "requested level exceeds channel or user privilege limit",
            (0x06, 0x3b, 0x82) => "cannot disable user level authentication",
            (0x06, 0x3c, 0x87) => "invalid session ID in request",
            (0x00, 0x08 | 0x09, 0x80) => "parameter not supported",
            (0x00, 0x08, 0x81) => "set already in progress",
            (0x00, 0x08, 0x82) => "attempt to write a read-only parameter",
            _ => self.words(),
        }
    }
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}, {}", self.0, self.words())
    }
}

/// Status byte of an open-session or RAKP message; never 0 where this type appears in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RakpStatus(pub u8);

impl RakpStatus {
    /// No room for another session.
    pub const NO_RESOURCES: RakpStatus = RakpStatus(0x01);
    /// Unknown session number.
    pub const INVALID_SESSION: RakpStatus = RakpStatus(0x02);
    /// Unknown authentication algorithm.
    pub const INVALID_AUTHENTICATION: RakpStatus = RakpStatus(0x04);
    /// Unknown integrity algorithm.
    pub const INVALID_INTEGRITY: RakpStatus = RakpStatus(0x05);
    /// The session is not open any more.
    pub const INACTIVE_SESSION: RakpStatus = RakpStatus(0x08);
    /// No such role.
    pub const INVALID_ROLE: RakpStatus = RakpStatus(0x09);
    /// The role is above what the user may have.
    pub const UNAUTHORIZED_ROLE: RakpStatus = RakpStatus(0x0a);
    /// No room for another session at this role.
    pub const NO_RESOURCES_AT_ROLE: RakpStatus = RakpStatus(0x0b);
    /// No such user.
    pub const UNAUTHORIZED_NAME: RakpStatus = RakpStatus(0x0d);
    /// The proof of the password does not fit.
    pub const INVALID_CODE: RakpStatus = RakpStatus(0x0f);
    /// No suite of the BMC has the proposed algorithms.
    pub const NO_SUITE_MATCH: RakpStatus = RakpStatus(0x11);

    /// Whether another cipher suite may be accepted after this.
    pub fn refuses_suite(self) -> bool {
        matches!(self.0, 0x03..=0x07 | 0x10..=0x12)
    }

    /// What it means.
    pub fn words(self) -> &'static str {
        match self.0 {
            0x00 => "no errors",
            0x01 => "insufficient resources to create a session",
            0x02 => "invalid session ID",
            0x03 => "invalid payload type",
            0x04 => "invalid authentication algorithm",
            0x05 => "invalid integrity algorithm",
            0x06 => "no matching authentication payload",
            0x07 => "no matching integrity payload",
            0x08 => "inactive session ID",
            0x09 => "invalid role",
            0x0a => "unauthorized role or privilege level requested",
            0x0b => "insufficient resources to create a session at the requested role",
            0x0c => "invalid name length",
            0x0d => "unauthorized name",
            0x0e => "unauthorized GUID",
            0x0f => "invalid integrity check value",
            0x10 => "invalid confidentiality algorithm",
            0x11 => "no cipher suite match with proposed security algorithms",
            0x12 => "illegal or unrecognized parameter",
            _ => "reserved status code",
        }
    }
}

impl fmt::Display for RakpStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}, {}", self.0, self.words())
    }
}
