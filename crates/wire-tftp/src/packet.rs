//! The seven packets of the wire.
//!
//! ```text
//!  2 bytes   string   1   string   1   (string 1 string 1)*
//! | opcode | filename | 0 | mode | 0 | option  0 value  0 ...    RRQ 1, WRQ 2
//! | 3 | block# (2) | data (0..blksize) |                         DATA
//! | 4 | block# (2) |                                             ACK
//! | 5 | code (2)   | message | 0 |                               ERROR
//! | 6 | (option 0 value 0)* |                                    OACK (RFC 2347)
//! ```

use crate::request::OPTIONS_MAX;

/// Longest ERROR message kept or sent, in bytes; the rest is cut off.
pub const MESSAGE_MAX: usize = 256;

/// First field of every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Read request.
    Read,
    /// Write request.
    Write,
    /// A block of the file.
    Data,
    /// Acknowledgement.
    Ack,
    /// Error, ends the transfer.
    Error,
    /// Option acknowledgement.
    OptionAck,
    /// Anything else.
    Other(u16),
}

impl From<u16> for Opcode {
    fn from(value: u16) -> Self {
        match value {
            1 => Self::Read,
            2 => Self::Write,
            3 => Self::Data,
            4 => Self::Ack,
            5 => Self::Error,
            6 => Self::OptionAck,
            other => Self::Other(other),
        }
    }
}

/// Error codes of RFC 1350 §5 and RFC 2347.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// 0: the message says what happened.
    NotDefined,
    /// 1
    FileNotFound,
    /// 2
    AccessViolation,
    /// 3
    DiskFull,
    /// 4
    IllegalOperation,
    /// 5
    UnknownTransfer,
    /// 6
    FileExists,
    /// 7
    NoSuchUser,
    /// 8: the receiver of an OACK does not go on (RFC 2347); firmware also ends size probes so.
    OptionsRefused,
    /// Not assigned.
    Other(u16),
}

impl From<u16> for ErrorCode {
    fn from(value: u16) -> Self {
        match value {
            0 => Self::NotDefined,
            1 => Self::FileNotFound,
            2 => Self::AccessViolation,
            3 => Self::DiskFull,
            4 => Self::IllegalOperation,
            5 => Self::UnknownTransfer,
            6 => Self::FileExists,
            7 => Self::NoSuchUser,
            8 => Self::OptionsRefused,
            other => Self::Other(other),
        }
    }
}

impl From<ErrorCode> for u16 {
    fn from(value: ErrorCode) -> Self {
        match value {
            ErrorCode::NotDefined => 0,
            ErrorCode::FileNotFound => 1,
            ErrorCode::AccessViolation => 2,
            ErrorCode::DiskFull => 3,
            ErrorCode::IllegalOperation => 4,
            ErrorCode::UnknownTransfer => 5,
            ErrorCode::FileExists => 6,
            ErrorCode::NoSuchUser => 7,
            ErrorCode::OptionsRefused => 8,
            ErrorCode::Other(other) => other,
        }
    }
}

/// A packet, borrowed from its datagram. Requests are kept whole: [`crate::ReadRequest::parse`]
/// reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ or WRQ.
    Request(Opcode),
    /// DATA.
    Data {
        /// Wire number, wraps after 65535.
        block: u16,
        /// Payload.
        data: &'a [u8],
    },
    /// ACK.
    Ack {
        /// Wire number of the last block received in order.
        block: u16,
    },
    /// ERROR.
    Error {
        /// Code.
        code: ErrorCode,
        /// Message as sent, cut at [`MESSAGE_MAX`]; may lack its terminator.
        message: &'a [u8],
    },
    /// OACK: names and values in the order sent.
    OptionAck(Vec<NameValue<'a>>),
}

/// An option's name and value, as sent.
pub type NameValue<'a> = (&'a [u8], &'a [u8]);

/// Why a datagram is no TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its fixed fields.
    #[error("the datagram ends within its header")]
    Short,
    /// An opcode nobody assigned.
    #[error("opcode {0} is not assigned")]
    Opcode(u16),
    /// A string without its zero byte.
    #[error("a string has no end")]
    Unterminated,
    /// More than [`OPTIONS_MAX`] options.
    #[error("too many options")]
    TooManyOptions,
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk::<2>().map(|two| u16::from_be_bytes(*two))
}

impl<'a> Packet<'a> {
    /// Reads one datagram.
    ///
    /// # Errors
    /// [`Malformed`] names what is wrong; nothing of the datagram is used then.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let opcode = Opcode::from(be16(datagram).ok_or(Malformed::Short)?);
        let rest = datagram.get(2..).unwrap_or_default();
        let number = || be16(rest).ok_or(Malformed::Short);
        match opcode {
            Opcode::Read | Opcode::Write => Ok(Self::Request(opcode)),
            Opcode::Data => Ok(Self::Data {
                block: number()?,
                data: rest.get(2..).unwrap_or_default(),
            }),
            Opcode::Ack => Ok(Self::Ack { block: number()? }),
            Opcode::Error => {
                let code = ErrorCode::from(number()?);
                let text = rest.get(2..).unwrap_or_default();
                let end = text
                    .iter()
                    .position(|&b| b == 0)
                    .unwrap_or(text.len())
                    .min(MESSAGE_MAX);
                Ok(Self::Error {
                    code,
                    message: text.get(..end).unwrap_or_default(),
                })
            }
            Opcode::OptionAck => options(rest).map(Self::OptionAck),
            Opcode::Other(value) => Err(Malformed::Opcode(value)),
        }
    }

    /// The bytes of the packet. [`Packet::Request`] carries no content and encodes to its opcode
    /// alone: [`crate::ReadRequest::encode`] writes requests.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Request(opcode) => match opcode {
                Opcode::Write => vec![0, 2],
                _ => vec![0, 1],
            },
            Self::Data { block, data } => {
                let mut out = Vec::with_capacity(data.len().saturating_add(4));
                out.extend_from_slice(&[0, 3]);
                out.extend_from_slice(&block.to_be_bytes());
                out.extend_from_slice(data);
                out
            }
            Self::Ack { block } => {
                let [high, low] = block.to_be_bytes();
                vec![0, 4, high, low]
            }
            Self::Error { code, message } => {
                let mut out = vec![0, 5];
                out.extend_from_slice(&u16::from(*code).to_be_bytes());
                out.extend(
                    message
                        .iter()
                        .copied()
                        .filter(|&b| b != 0)
                        .take(MESSAGE_MAX),
                );
                out.push(0);
                out
            }
            Self::OptionAck(options) => {
                let mut out = vec![0, 6];
                for (name, value) in options {
                    out.extend_from_slice(name);
                    out.push(0);
                    out.extend_from_slice(value);
                    out.push(0);
                }
                out
            }
        }
    }
}

/// An ERROR packet with our words, for example for a file that does not exist.
#[must_use]
pub fn error_reply(code: ErrorCode, message: &str) -> Vec<u8> {
    Packet::Error {
        code,
        message: message.as_bytes(),
    }
    .encode()
}

/// Splits `name 0 value 0` pairs. Trailing zero bytes, which some ROMs pad with, are accepted.
pub(crate) fn options(mut rest: &[u8]) -> Result<Vec<NameValue<'_>>, Malformed> {
    let mut found = Vec::new();
    while !rest.iter().all(|&b| b == 0) {
        let (name, after) = string(rest)?;
        let (value, after) = string(after)?;
        if found.len() == OPTIONS_MAX {
            return Err(Malformed::TooManyOptions);
        }
        found.push((name, value));
        rest = after;
    }
    Ok(found)
}

/// The string up to the zero byte, and what follows it.
pub(crate) fn string(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = bytes
        .iter()
        .position(|&b| b == 0)
        .ok_or(Malformed::Unterminated)?;
    let (text, rest) = bytes.split_at(end);
    Ok((text, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_and_unknown_datagrams_are_named() {
        assert_eq!(Packet::parse(b""), Err(Malformed::Short));
        assert_eq!(Packet::parse(b"\x00"), Err(Malformed::Short));
        assert_eq!(Packet::parse(b"\x00\x04\x00"), Err(Malformed::Short));
        assert_eq!(Packet::parse(b"\x00\x07"), Err(Malformed::Opcode(7)));
        assert_eq!(
            Packet::parse(b"\x00\x06blksize\x001408"),
            Err(Malformed::Unterminated)
        );
    }

    #[test]
    fn an_error_without_its_terminator_is_read() {
        assert_eq!(
            Packet::parse(b"\x00\x05\x00\x08User aborted"),
            Ok(Packet::Error {
                code: ErrorCode::OptionsRefused,
                message: b"User aborted"
            })
        );
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1u8..=255, 1..20)
    }

    proptest! {
        #[test]
        fn data_ack_and_error_round_trip(
            block: u16, data in proptest::collection::vec(any::<u8>(), 0..2000), code: u16, message in text(),
        ) {
            for packet in [
                Packet::Data { block, data: &data },
                Packet::Ack { block },
                Packet::Error { code: ErrorCode::from(code), message: &message },
            ] {
                let wire = packet.encode();
                prop_assert_eq!(Packet::parse(&wire), Ok(packet.clone()));
            }
        }

        #[test]
        fn option_acks_round_trip(options in proptest::collection::vec((text(), text()), 0..OPTIONS_MAX)) {
            let packet = Packet::OptionAck(options.iter().map(|(n, v)| (n.as_slice(), v.as_slice())).collect());
            let wire = packet.encode();
            prop_assert_eq!(Packet::parse(&wire), Ok(packet.clone()));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), opcode in 0u8..8) {
            Packet::parse(&bytes).ok();
            let mut typed = vec![0, opcode];
            typed.extend_from_slice(&bytes);
            Packet::parse(&typed).ok();
        }
    }
}
