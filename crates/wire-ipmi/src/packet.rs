//! The datagram: RMCP header, then an ASF message or an IPMI 1.5 or 2.0 session header with a payload.
//!
//! ```text
//! RMCP      06 00 FF 07 | session header, payload          (07 IPMI, 06 ASF; FF: no acknowledgement)
//! IPMI 1.5  auth type | sequence 4 LE | session 4 LE | code 16 unless type 0 | length | payload
//! IPMI 2.0  06 | E A type | session 4 LE | sequence 4 LE | length 2 LE | payload |
//!           if A: FF padding | padding length | 07 | code
//! ```
//! (spec §13.1.3, §13.6)

use crate::crypto;
use crate::drops::DropReason;
use crate::rakp::SessionKeys;

/// The longest datagram looked at, bytes. IPMI messages are far shorter; anything longer is not for us.
pub const DATAGRAM_MAX: usize = 1024;

const RMCP_VERSION: u8 = 0x06;
const RMCP_NO_ACK: u8 = 0xff;
const CLASS_ASF: u8 = 0x06;
const CLASS_IPMI: u8 = 0x07;
const CLASS_ACK: u8 = 0x80;
/// Enterprise number of the ASF messages.
const ASF_IANA: [u8; 4] = [0, 0, 0x11, 0xbe];
const ASF_PING: u8 = 0x80;
const ASF_PONG: u8 = 0x40;
/// The authentication type that announces an IPMI 2.0 session header.
const FORMAT_V20: u8 = 0x06;
/// "Next header" byte before the code of an authenticated IPMI 2.0 packet.
const NEXT_HEADER: u8 = 0x07;
/// Where the session header starts, bytes.
const RMCP_LEN: usize = 4;

/// Authentication of an IPMI 1.5 packet (spec table 13-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthType {
    /// No code at all.
    None,
    /// MD2, which this crate does not compute.
    Md2,
    /// MD5 over password, session, message and sequence number.
    Md5,
    /// The password itself, readable.
    Straight,
    /// A number with another or no meaning.
    Other(u8),
}

impl AuthType {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            AuthType::None => 0,
            AuthType::Md2 => 1,
            AuthType::Md5 => 2,
            AuthType::Straight => 4,
            AuthType::Other(code) => code,
        }
    }

    /// From the number on the wire.
    pub fn from_code(code: u8) -> AuthType {
        match code {
            0 => AuthType::None,
            1 => AuthType::Md2,
            2 => AuthType::Md5,
            4 => AuthType::Straight,
            other => AuthType::Other(other),
        }
    }
}

/// What an IPMI 2.0 packet carries (spec table 13-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// An IPMI message.
    Ipmi,
    /// Open Session Request.
    OpenRequest,
    /// Open Session Response.
    OpenResponse,
    /// RAKP message 1.
    Rakp1,
    /// RAKP message 2.
    Rakp2,
    /// RAKP message 3.
    Rakp3,
    /// RAKP message 4.
    Rakp4,
    /// Anything else (serial over LAN, OEM).
    Other(u8),
}

impl PayloadType {
    /// The number on the wire, six bits.
    pub fn code(self) -> u8 {
        match self {
            PayloadType::Ipmi => 0x00,
            PayloadType::OpenRequest => 0x10,
            PayloadType::OpenResponse => 0x11,
            PayloadType::Rakp1 => 0x12,
            PayloadType::Rakp2 => 0x13,
            PayloadType::Rakp3 => 0x14,
            PayloadType::Rakp4 => 0x15,
            PayloadType::Other(code) => code & 0x3f,
        }
    }

    /// From the number on the wire.
    pub fn from_code(code: u8) -> PayloadType {
        match code & 0x3f {
            0x00 => PayloadType::Ipmi,
            0x10 => PayloadType::OpenRequest,
            0x11 => PayloadType::OpenResponse,
            0x12 => PayloadType::Rakp1,
            0x13 => PayloadType::Rakp2,
            0x14 => PayloadType::Rakp3,
            0x15 => PayloadType::Rakp4,
            other => PayloadType::Other(other),
        }
    }
}

/// An ASF presence message (spec §13.2.3): "is there a BMC that speaks IPMI?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asf {
    /// The question.
    Ping {
        /// Chosen by the asker and sent back.
        tag: u8,
    },
    /// The answer.
    Pong {
        /// The tag of the question.
        tag: u8,
        /// Whether the BMC says that it speaks IPMI.
        ipmi: bool,
    },
}

/// An IPMI 1.5 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V15<'a> {
    /// How it is authenticated.
    pub auth: AuthType,
    /// Session sequence number; 0 outside a session.
    pub sequence: u32,
    /// Session number; 0 outside a session.
    pub session: u32,
    /// The authentication code; present unless `auth` is [`AuthType::None`].
    pub code: Option<[u8; 16]>,
    /// The IPMI message.
    pub payload: &'a [u8],
}

/// An IPMI 2.0 packet, not yet checked or decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V20<'a> {
    /// What it carries.
    pub payload_type: PayloadType,
    /// Whether the payload is encrypted.
    pub encrypted: bool,
    /// Whether a code follows the payload.
    pub authenticated: bool,
    /// Session number of the receiver; 0 outside a session.
    pub session: u32,
    /// Session sequence number; 0 outside a session.
    pub sequence: u32,
    /// The payload, encrypted if `encrypted`.
    pub payload: &'a [u8],
    /// The datagram from the session header to its end.
    whole: &'a [u8],
    /// What follows the payload.
    tail: &'a [u8],
}

/// A received datagram, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// An ASF presence message.
    Asf(Asf),
    /// An IPMI 1.5 packet.
    V15(V15<'a>),
    /// An IPMI 2.0 packet.
    V20(V20<'a>),
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// Takes a datagram apart.
///
/// # Errors
/// The reason for which it is unusable.
pub fn parse(bytes: &[u8]) -> Result<Datagram<'_>, DropReason> {
    if bytes.len() > DATAGRAM_MAX {
        return Err(DropReason::TooLong);
    }
    let (header, rest) = bytes
        .split_first_chunk::<RMCP_LEN>()
        .ok_or(DropReason::TooShort)?;
    if header[0] != RMCP_VERSION {
        return Err(DropReason::NotRmcp);
    }
    if header[3] & CLASS_ACK != 0 {
        return Err(DropReason::OtherClass);
    }
    match header[3] {
        CLASS_ASF => parse_asf(rest).map(Datagram::Asf),
        CLASS_IPMI => match rest.first() {
            None => Err(DropReason::TooShort),
            Some(&FORMAT_V20) => parse_v20(rest).map(Datagram::V20),
            Some(_) => parse_v15(rest).map(Datagram::V15),
        },
        _ => Err(DropReason::OtherClass),
    }
}

fn parse_asf(rest: &[u8]) -> Result<Asf, DropReason> {
    let (head, data) = rest.split_first_chunk::<8>().ok_or(DropReason::TooShort)?;
    if head[..4] != ASF_IANA {
        return Err(DropReason::OtherAsf);
    }
    let tag = head[5];
    match head[4] {
        ASF_PING => Ok(Asf::Ping { tag }),
        // Data: enterprise 4, OEM 4, supported entities; bit 7 of the latter says IPMI.
        ASF_PONG => Ok(Asf::Pong {
            tag,
            ipmi: data.get(8).ok_or(DropReason::TooShort)? & 0x80 != 0,
        }),
        _ => Err(DropReason::OtherAsf),
    }
}

fn parse_v15(rest: &[u8]) -> Result<V15<'_>, DropReason> {
    let auth = AuthType::from_code(*rest.first().ok_or(DropReason::TooShort)?);
    let sequence = u32_at(rest, 1).ok_or(DropReason::TooShort)?;
    let session = u32_at(rest, 5).ok_or(DropReason::TooShort)?;
    let (code, at) = match auth {
        AuthType::None => (None, 9),
        _ => (
            Some(
                rest.get(9..25)
                    .and_then(|c| c.try_into().ok())
                    .ok_or(DropReason::TooShort)?,
            ),
            25,
        ),
    };
    let length = usize::from(*rest.get(at).ok_or(DropReason::TooShort)?);
    let payload = rest
        .get(at + 1..at + 1 + length)
        .ok_or(DropReason::Length)?;
    // One byte more may follow, the "legacy pad" of spec §13.6.
    if rest.len() > at + 2 + length {
        return Err(DropReason::Length);
    }
    Ok(V15 {
        auth,
        sequence,
        session,
        code,
        payload,
    })
}

fn parse_v20(rest: &[u8]) -> Result<V20<'_>, DropReason> {
    let kind = *rest.get(1).ok_or(DropReason::TooShort)?;
    let payload_type = PayloadType::from_code(kind);
    if kind & 0x3f == 0x02 {
        // An OEM payload has a longer header; nothing here uses one.
        return Err(DropReason::PayloadType);
    }
    let session = u32_at(rest, 2).ok_or(DropReason::TooShort)?;
    let sequence = u32_at(rest, 6).ok_or(DropReason::TooShort)?;
    let length = rest.get(10..12).ok_or(DropReason::TooShort)?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let payload = rest.get(12..12 + length).ok_or(DropReason::Length)?;
    let tail = &rest[12 + length..];
    let authenticated = kind & 0x40 != 0;
    if !authenticated && tail.len() > 1 {
        return Err(DropReason::Length);
    }
    Ok(V20 {
        payload_type,
        encrypted: kind & 0x80 != 0,
        authenticated,
        session,
        sequence,
        payload,
        whole: rest,
        tail,
    })
}

impl V20<'_> {
    /// Checks the authentication code and decrypts the payload.
    ///
    /// # Errors
    /// [`DropReason::Unprotected`], [`DropReason::Length`], [`DropReason::AuthCode`] or
    /// [`DropReason::Decryption`].
    pub(crate) fn open(&self, keys: &SessionKeys) -> Result<Vec<u8>, DropReason> {
        if !self.authenticated || !self.encrypted {
            return Err(DropReason::Unprotected);
        }
        let code_len = keys.suite().integrity_len();
        let signed_len = self
            .whole
            .len()
            .checked_sub(code_len)
            .ok_or(DropReason::Length)?;
        // The padding's length and the next-header byte must be there, and are covered by the code.
        if self.tail.len() < code_len + 2 {
            return Err(DropReason::Length);
        }
        let (signed, code) = self.whole.split_at(signed_len);
        if !crypto::same(&keys.integrity_code(signed), code) {
            return Err(DropReason::AuthCode);
        }
        keys.decrypt(self.payload).ok_or(DropReason::Decryption)
    }
}

fn rmcp(class: u8, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(RMCP_LEN + capacity);
    out.extend_from_slice(&[RMCP_VERSION, 0, RMCP_NO_ACK, class]);
    out
}

/// The bytes of an ASF presence message.
pub fn encode_asf(message: Asf) -> Vec<u8> {
    let mut out = rmcp(CLASS_ASF, 24);
    out.extend_from_slice(&ASF_IANA);
    match message {
        Asf::Ping { tag } => out.extend_from_slice(&[ASF_PING, tag, 0, 0]),
        Asf::Pong { tag, ipmi } => {
            out.extend_from_slice(&[ASF_PONG, tag, 0, 16]);
            out.extend_from_slice(&ASF_IANA);
            out.extend_from_slice(&[0, 0, 0, 0]);
            // Entities: ASF 1.0, with or without IPMI; no further interactions.
            out.push(if ipmi { 0x81 } else { 0x01 });
            out.extend_from_slice(&[0; 7]);
        }
    }
    out
}

/// Datagram lengths (from the RMCP header on) after which an IPMI 1.5 packet gets one padding byte,
/// because old network chips mishandle them (spec §13.6, "Legacy PAD").
const LEGACY_PAD_LENGTHS: [usize; 5] = [56, 84, 112, 128, 156];

/// The bytes of an IPMI 1.5 packet. A payload longer than 255 bytes cannot be expressed and is cut off;
/// nothing in this crate makes one.
pub fn encode_v15(packet: &V15<'_>) -> Vec<u8> {
    let payload = &packet.payload[..packet.payload.len().min(255)];
    let mut out = rmcp(CLASS_IPMI, 26 + payload.len());
    out.push(packet.auth.code());
    out.extend_from_slice(&packet.sequence.to_le_bytes());
    out.extend_from_slice(&packet.session.to_le_bytes());
    if packet.auth != AuthType::None {
        out.extend_from_slice(&packet.code.unwrap_or([0; 16]));
    }
    out.push(payload.len() as u8);
    out.extend_from_slice(payload);
    if LEGACY_PAD_LENGTHS.contains(&out.len()) {
        out.push(0);
    }
    out
}

/// The authentication code of an IPMI 1.5 packet (spec §22.17.1); `None` for types that have none or
/// that this crate does not compute.
pub(crate) fn v15_code(
    auth: AuthType,
    password: &[u8; 16],
    session: u32,
    sequence: [u8; 4],
    payload: &[u8],
) -> Option<[u8; 16]> {
    match auth {
        AuthType::Md5 => Some(crypto::md5(&[
            password,
            &session.to_le_bytes(),
            payload,
            &sequence,
            password,
        ])),
        AuthType::Straight => Some(*password),
        AuthType::None | AuthType::Md2 | AuthType::Other(_) => None,
    }
}

fn v20_header(kind: u8, session: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = rmcp(CLASS_IPMI, 44 + payload.len());
    out.extend_from_slice(&[FORMAT_V20, kind]);
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u16).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// The bytes of an IPMI 2.0 packet outside a session: the handshake, and commands before it.
pub fn encode_v20_plain(payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    v20_header(payload_type.code(), 0, 0, payload)
}

/// The bytes of an IPMI 2.0 packet inside a session, encrypted and authenticated.
pub(crate) fn seal_v20(
    keys: &SessionKeys,
    payload_type: PayloadType,
    session: u32,
    sequence: u32,
    iv: [u8; 16],
    payload: &[u8],
) -> Vec<u8> {
    let sealed = keys.encrypt(iv, payload);
    let mut out = v20_header(0xc0 | payload_type.code(), session, sequence, &sealed);
    // What is signed starts behind the RMCP header and is a multiple of four bytes long (§13.6).
    let pad = (4 - (out.len() - RMCP_LEN + 2) % 4) % 4;
    out.extend(std::iter::repeat_n(0xff, pad));
    out.extend_from_slice(&[pad as u8, NEXT_HEADER]);
    let code = keys.integrity_code(&out[RMCP_LEN..]);
    out.extend_from_slice(&code);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_v15_packet_survives_the_wire(code in 0u8..16, sequence: u32, session: u32, mac: [u8; 16],
                                          payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(code != FORMAT_V20);
            let auth = AuthType::from_code(code);
            let packet = V15 { auth, sequence, session, code: (auth != AuthType::None).then_some(mac), payload: &payload };
            let bytes = encode_v15(&packet);
            prop_assert_eq!(parse(&bytes), Ok(Datagram::V15(packet)));
        }

        #[test]
        fn a_plain_v20_packet_survives_the_wire(kind in 0u8..64, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(kind != 2);
            let bytes = encode_v20_plain(PayloadType::from_code(kind), &payload);
            match parse(&bytes) {
                Ok(Datagram::V20(got)) => {
                    prop_assert_eq!(got.payload_type.code(), kind);
                    prop_assert_eq!(got.payload, &payload[..]);
                    prop_assert_eq!((got.session, got.sequence, got.encrypted, got.authenticated), (0, 0, false, false));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            parse(&bytes).ok();
        }

        #[test]
        fn any_bytes_behind_an_rmcp_header_parse_or_are_refused(format in 0u8..8, tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = vec![6, 0, 0xff, 7, format];
            bytes.extend(tail);
            parse(&bytes).ok();
        }
    }

    #[test]
    fn ping_and_pong_survive_the_wire() {
        for message in [
            Asf::Ping { tag: 7 },
            Asf::Pong { tag: 9, ipmi: true },
            Asf::Pong {
                tag: 0,
                ipmi: false,
            },
        ] {
            assert_eq!(parse(&encode_asf(message)), Ok(Datagram::Asf(message)));
        }
    }

    #[test]
    fn an_oversized_datagram_is_refused_by_its_size() {
        assert_eq!(parse(&[6; DATAGRAM_MAX + 1]), Err(DropReason::TooLong));
    }
}
