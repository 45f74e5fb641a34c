//! A client's message, read once into what the engine looks at.

use crate::boot::BootClient;
use crate::reply::{HEADER_LEN, code};
use crate::stats::DropReason;
use crate::types::Mac;
use dhcproto::v4::borrowed::Message;
use dhcproto::v4::{MessageType, Opcode};
use std::net::Ipv4Addr;

/// Bytes kept of a text that a client sends: class, host name.
pub const CLIENT_TEXT_MAX: usize = 255;
/// Architectures read from option 93.
const ARCHITECTURES_MAX: usize = 8;
/// Relay information that is copied back; a relay agent that sends more does not get a copy.
const RELAY_INFO_MAX: usize = 255;

const HTYPE_ETHERNET: u8 = 1;
/// IEEE 802 networks; used by a few firmwares for Ethernet with the same addresses.
const HTYPE_IEEE802: u8 = 6;
const MAC_LEN: usize = 6;
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// What a client says of itself, for the boot timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// Option 12, or the first label of option 81; letters, digits, `-`, `_` and `.` only.
    pub hostname: Option<String>,
    /// Option 60, unprintable bytes replaced by `?`.
    pub vendor_class: Option<String>,
    /// Option 77, unprintable bytes replaced by `?`, without the length byte of its first class.
    pub user_class: Option<String>,
    /// Option 93, first entry.
    pub architecture: Option<u16>,
    /// Option 97, type 0: the SMBIOS UUID in the byte order that the firmware sent.
    pub uuid: Option<[u8; 16]>,
}

/// A BOOTREQUEST with a message type and a usable hardware address.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) htype: u8,
    pub(crate) hlen: u8,
    pub(crate) chaddr: [u8; 16],
    pub(crate) mac: Mac,
    pub(crate) xid: u32,
    pub(crate) flags: u16,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) message_type: MessageType,
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server_id: Option<Ipv4Addr>,
    pub(crate) lease_time_s: Option<u32>,
    pub(crate) wanted: Option<Vec<u8>>,
    pub(crate) max_size: u16,
    pub(crate) relay_info: Option<Vec<u8>>,
    pub(crate) link_selection: Option<Ipv4Addr>,
    pub(crate) server_id_override: Option<Ipv4Addr>,
    pub(crate) subnet_selection: Option<Ipv4Addr>,
    pub(crate) is_pxe: bool,
    /// Sent option 175, so it reads option 175.
    pub(crate) knows_ipxe_options: bool,
    user_class_ipxe: bool,
    ipxe_http: bool,
    ipxe_kernel: bool,
    architectures: ([u16; ARCHITECTURES_MAX], usize),
    pub(crate) client: ClientInfo,
}

impl Request {
    /// Reads a message. `src_mac` stands in for a missing hardware address of a client on the wire.
    pub(crate) fn parse(packet: &[u8], src_mac: Option<Mac>) -> Result<Request, DropReason> {
        if packet.len() < HEADER_LEN || packet[HEADER_LEN - 4..HEADER_LEN] != MAGIC {
            return Err(DropReason::Malformed);
        }
        let message = Message::new(packet).map_err(|_| DropReason::Malformed)?;
        if message.opcode() != Opcode::BootRequest {
            return Err(DropReason::NotARequest);
        }
        // Not `Message::chaddr`, which trusts the length field.
        let mut chaddr = [0u8; 16];
        chaddr.copy_from_slice(&packet[28..44]);
        let giaddr = message.giaddr();
        let mac = hardware_address(packet[1], packet[2], &chaddr, giaddr, src_mac)?;
        let mut request = Request {
            htype: packet[1],
            hlen: packet[2],
            chaddr,
            mac,
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            giaddr,
            message_type: MessageType::Unknown(0),
            requested: None,
            server_id: None,
            lease_time_s: None,
            wanted: None,
            max_size: 0,
            relay_info: None,
            link_selection: None,
            server_id_override: None,
            subnet_selection: None,
            is_pxe: false,
            knows_ipxe_options: false,
            user_class_ipxe: false,
            ipxe_http: false,
            ipxe_kernel: false,
            architectures: ([0; ARCHITECTURES_MAX], 0),
            client: ClientInfo::default(),
        };
        let mut typed = false;
        let mut seen = [0u64; 4];
        for option in message.opts() {
            let code = u8::from(option.code());
            // The first of several wins; neighbours of one code were joined already (RFC 3396).
            let (word, bit) = (usize::from(code / 64), 1u64 << (code % 64));
            if seen[word] & bit == 0 {
                seen[word] |= bit;
                typed |= request.option(code, option.data());
            }
        }
        if typed {
            Ok(request)
        } else {
            Err(DropReason::NotDhcp)
        }
    }

    /// Takes one option in. An option of the wrong length counts as absent. True for a message type.
    fn option(&mut self, code: u8, data: &[u8]) -> bool {
        match code {
            code::MESSAGE_TYPE => {
                if let [message_type] = *data {
                    self.message_type = message_type.into();
                    return true;
                }
            }
            code::REQUESTED_ADDRESS => self.requested = address(data),
            code::SERVER_ID => self.server_id = address(data),
            code::SUBNET_SELECTION => self.subnet_selection = address(data),
            code::LEASE_TIME => self.lease_time_s = data.try_into().ok().map(u32::from_be_bytes),
            code::PARAMETER_LIST => self.wanted = Some(data.iter().copied().take(255).collect()),
            code::MAX_SIZE => self.max_size = data.try_into().map_or(0, u16::from_be_bytes),
            code::VENDOR_CLASS => {
                self.is_pxe = data.starts_with(b"PXE");
                self.client.vendor_class = printable(data);
            }
            code::USER_CLASS => {
                // iPXE sends the bare text, others a length before each class (RFC 3004 §4).
                let text = match data {
                    [length, rest @ ..] if usize::from(*length) <= rest.len() => {
                        &rest[..usize::from(*length)]
                    }
                    _ => data,
                };
                self.user_class_ipxe = text == b"iPXE" || data == b"iPXE";
                self.client.user_class =
                    printable(if self.user_class_ipxe { b"iPXE" } else { text });
            }
            code::HOSTNAME => self.client.hostname = hostname(data).or(self.client.hostname.take()),
            code::CLIENT_FQDN => {
                let stated = self.client.hostname.take();
                self.client.hostname = stated.or_else(|| fqdn_label(data));
            }
            code::ARCHITECTURE => {
                let (values, count) = &mut self.architectures;
                for pair in data.chunks_exact(2).take(ARCHITECTURES_MAX) {
                    values[*count] = u16::from_be_bytes([pair[0], pair[1]]);
                    *count += 1;
                }
                self.client.architecture = (*count > 0).then_some(values[0]);
            }
            code::CLIENT_UUID => {
                if let [0, uuid @ ..] = data {
                    self.client.uuid = uuid.try_into().ok();
                }
            }
            code::IPXE => {
                self.knows_ipxe_options = true;
                for (feature, value) in suboptions(data) {
                    match feature {
                        // A feature is a number; absent and zero both mean no.
                        19 => self.ipxe_http = value.iter().any(|&byte| byte != 0),
                        24 | 36 => self.ipxe_kernel |= value.iter().any(|&byte| byte != 0),
                        _ => {}
                    }
                }
            }
            code::RELAY_INFO => {
                for (sub, value) in suboptions(data) {
                    match sub {
                        // RFC 3527.
                        5 => self.link_selection = address(value),
                        // RFC 5107.
                        11 => self.server_id_override = address(value),
                        _ => {}
                    }
                }
                self.relay_info =
                    (!data.is_empty() && data.len() <= RELAY_INFO_MAX).then(|| data.to_vec());
            }
            _ => {}
        }
        false
    }

    /// What the boot file depends on.
    pub(crate) fn boot_client(&self) -> BootClient<'_> {
        BootClient {
            user_class_ipxe: self.user_class_ipxe,
            ipxe_http: self.ipxe_http,
            ipxe_kernel: self.ipxe_kernel,
            architectures: &self.architectures.0[..self.architectures.1],
        }
    }

    /// Whether the client asks for that option; a client without a list asks for what we think useful.
    pub(crate) fn wants(&self, code: u8) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|wanted| wanted.contains(&code))
    }

    /// Whether the client cannot take unicast before it has its address.
    pub(crate) fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }
}

/// The card that a message speaks for. A length of 16 is padding by careless firmware; a length of 0 is
/// taken from the frame, and only when no relay agent is between.
fn hardware_address(
    htype: u8,
    hlen: u8,
    chaddr: &[u8; 16],
    giaddr: Ipv4Addr,
    src_mac: Option<Mac>,
) -> Result<Mac, DropReason> {
    if htype != HTYPE_ETHERNET && htype != HTYPE_IEEE802 {
        return Err(DropReason::UnsupportedHardware);
    }
    let mac = match usize::from(hlen) {
        0 if giaddr.is_unspecified() => src_mac.ok_or(DropReason::UnsupportedHardware)?,
        MAC_LEN => Mac([
            chaddr[0], chaddr[1], chaddr[2], chaddr[3], chaddr[4], chaddr[5],
        ]),
        MAC_LEN..=16 if chaddr[MAC_LEN..].iter().all(|&byte| byte == 0) => Mac([
            chaddr[0], chaddr[1], chaddr[2], chaddr[3], chaddr[4], chaddr[5],
        ]),
        _ => return Err(DropReason::UnsupportedHardware),
    };
    if mac.is_host() {
        Ok(mac)
    } else {
        Err(DropReason::BadHardwareAddress)
    }
}

/// An option that is one address; an unspecified or group address counts as absent.
fn address(data: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = data.try_into().ok()?;
    let address = Ipv4Addr::from(octets);
    (!address.is_unspecified() && !address.is_multicast() && !address.is_broadcast())
        .then_some(address)
}

/// Code, length, value triples inside an option; a torn last one is dropped.
fn suboptions(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [sub, length, rest @ ..] = data else {
            return None;
        };
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        data = rest;
        Some((*sub, value))
    })
}

fn printable(data: &[u8]) -> Option<String> {
    let text: String = data
        .iter()
        .take(CLIENT_TEXT_MAX)
        .map(|&byte| {
            if (0x20..0x7f).contains(&byte) {
                char::from(byte)
            } else {
                '?'
            }
        })
        .collect();
    (!text.is_empty()).then_some(text)
}

/// A client's host name, in lower case, without what DNS would refuse.
fn hostname(data: &[u8]) -> Option<String> {
    let name: String = data
        .iter()
        .take(CLIENT_TEXT_MAX)
        .take_while(|&&byte| byte != 0)
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte.to_ascii_lowercase())
            }
            _ => '-',
        })
        .collect();
    let name = name.trim_matches(['-', '.']);
    (!name.is_empty()).then(|| name.to_owned())
}

/// First label of option 81: flags, two unused bytes, then a name in text or in DNS form (flag E, RFC 4702 §2.1).
fn fqdn_label(data: &[u8]) -> Option<String> {
    const FLAG_E: u8 = 0x04;
    let [flags, _, _, name @ ..] = data else {
        return None;
    };
    let label = if flags & FLAG_E != 0 {
        let (&length, rest) = name.split_first()?;
        rest.get(..usize::from(length))?
    } else {
        name.split(|&byte| byte == b'.').next()?
    };
    hostname(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_of_odd_lengths() {
        let mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
        let mut chaddr = [0u8; 16];
        chaddr[..6].copy_from_slice(&mac.0);
        let direct = Ipv4Addr::UNSPECIFIED;
        let relayed = Ipv4Addr::new(10, 0, 0, 1);
        let frame = Mac([0x52, 0, 0, 0, 0, 9]);
        let other = Some(frame);
        assert_eq!(hardware_address(1, 6, &chaddr, direct, other), Ok(mac));
        assert_eq!(hardware_address(6, 6, &chaddr, relayed, None), Ok(mac));
        assert_eq!(hardware_address(1, 16, &chaddr, direct, None), Ok(mac));
        assert_eq!(hardware_address(1, 0, &[0; 16], direct, other), Ok(frame));
        assert_eq!(
            hardware_address(1, 0, &[0; 16], relayed, other),
            Err(DropReason::UnsupportedHardware)
        );
        assert_eq!(
            hardware_address(1, 0, &[0; 16], direct, None),
            Err(DropReason::UnsupportedHardware)
        );
        assert_eq!(
            hardware_address(1, 5, &chaddr, direct, None),
            Err(DropReason::UnsupportedHardware)
        );
        assert_eq!(
            hardware_address(1, 255, &chaddr, direct, None),
            Err(DropReason::UnsupportedHardware)
        );
        assert_eq!(
            hardware_address(32, 6, &chaddr, direct, None),
            Err(DropReason::UnsupportedHardware)
        );
        assert_eq!(
            hardware_address(1, 6, &[0; 16], direct, None),
            Err(DropReason::BadHardwareAddress)
        );
        chaddr[9] = 1;
        assert_eq!(
            hardware_address(1, 16, &chaddr, direct, None),
            Err(DropReason::UnsupportedHardware)
        );
    }

    #[test]
    fn names_are_cleaned() {
        assert_eq!(hostname(b"Node 07\xff"), Some("node-07".into()));
        assert_eq!(
            hostname(b"node.example.com\0junk"),
            Some("node.example.com".into())
        );
        assert_eq!(hostname(b"---"), None);
        assert_eq!(
            fqdn_label(b"\x04\0\0\x04node\x07example\0"),
            Some("node".into())
        );
        assert_eq!(fqdn_label(b"\x00\0\0node.example"), Some("node".into()));
        assert_eq!(fqdn_label(b"\x04\0\0\x40no"), None);
        assert_eq!(fqdn_label(b"\x04"), None);
        assert_eq!(printable(b"PXE\x00Client"), Some("PXE?Client".into()));
    }
}
