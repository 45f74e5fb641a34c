//! Writes replies.

use crate::request::Request;
use std::net::Ipv4Addr;

/// Option codes that the engine writes or asks for (RFC 2132 unless noted).
pub(crate) mod code {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS_SERVERS: u8 = 6;
    pub(crate) const HOSTNAME: u8 = 12;
    pub(crate) const DOMAIN_NAME: u8 = 15;
    pub(crate) const INTERFACE_MTU: u8 = 26;
    pub(crate) const BROADCAST: u8 = 28;
    pub(crate) const NTP_SERVERS: u8 = 42;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER_ID: u8 = 54;
    pub(crate) const PARAMETER_LIST: u8 = 55;
    pub(crate) const MESSAGE: u8 = 56;
    pub(crate) const MAX_SIZE: u8 = 57;
    pub(crate) const T1: u8 = 58;
    pub(crate) const T2: u8 = 59;
    pub(crate) const VENDOR_CLASS: u8 = 60;
    pub(crate) const TFTP_SERVER_NAME: u8 = 66;
    pub(crate) const BOOT_FILE: u8 = 67;
    /// RFC 3004.
    pub(crate) const USER_CLASS: u8 = 77;
    /// RFC 4702.
    pub(crate) const CLIENT_FQDN: u8 = 81;
    /// RFC 3046.
    pub(crate) const RELAY_INFO: u8 = 82;
    /// RFC 4578.
    pub(crate) const ARCHITECTURE: u8 = 93;
    /// RFC 4578.
    pub(crate) const CLIENT_UUID: u8 = 97;
    /// RFC 3011.
    pub(crate) const SUBNET_SELECTION: u8 = 118;
    /// RFC 3397.
    pub(crate) const DOMAIN_SEARCH: u8 = 119;
    /// RFC 5859.
    pub(crate) const TFTP_SERVER_ADDRESS: u8 = 150;
    /// iPXE's own.
    pub(crate) const IPXE: u8 = 175;
    /// RFC 5071.
    pub(crate) const PATH_PREFIX: u8 = 210;
    pub(crate) const END: u8 = 255;
}

/// Bytes before the options: BOOTP header and magic cookie.
pub(crate) const HEADER_LEN: usize = 240;
/// Smallest BOOTP message; some clients and relay agents drop shorter ones (RFC 1542 §2.1).
const MESSAGE_LEN_MIN: usize = 300;
/// IPv4 and UDP header, which option 57 counts in.
const IP_UDP_LEN: usize = 28;
/// Largest datagram a client must take (RFC 2131 §2).
const MAX_SIZE_MIN: usize = 576;
/// Never more than one Ethernet frame, whatever the client says it takes.
const MAX_SIZE_MAX: usize = 1500;
/// The `file` field is 128 bytes and ends with a zero byte.
pub(crate) const FILE_LEN_MAX: usize = 127;

const MAGIC: [u8; 4] = [99, 130, 83, 99];
const BROADCAST_FLAG: u16 = 0x8000;

/// The fixed part of a reply.
pub(crate) struct Head<'a> {
    /// Value of option 53.
    pub(crate) message_type: u8,
    pub(crate) server_id: Ipv4Addr,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) yiaddr: Ipv4Addr,
    /// Next server: who serves the boot file.
    pub(crate) siaddr: Ipv4Addr,
    /// Boot file name; left out when it does not fit the field (then only option 67 carries it).
    pub(crate) file: &'a str,
    /// Set the broadcast flag whatever the client said (a NAK through a relay agent, RFC 2131 §4.3.2).
    pub(crate) force_broadcast: bool,
}

/// A reply under construction. Options go in by importance: one that does not fit is left out.
pub(crate) struct Reply {
    bytes: Vec<u8>,
    /// Options end here at the latest; room for relay information and the end mark is set aside.
    limit: usize,
    present: [u64; 4],
}

impl Reply {
    pub(crate) fn new(request: &Request, head: &Head<'_>) -> Reply {
        let mut bytes = Vec::with_capacity(576);
        bytes.extend([2, request.htype, request.hlen, 0]);
        bytes.extend(request.xid.to_be_bytes());
        bytes.extend([0, 0]);
        let flags = if head.force_broadcast {
            request.flags | BROADCAST_FLAG
        } else {
            request.flags
        };
        bytes.extend(flags.to_be_bytes());
        for address in [head.ciaddr, head.yiaddr, head.siaddr, request.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(request.chaddr);
        // `sname` stays empty: ROMs that read it take it for a host name to be resolved.
        bytes.resize(108, 0);
        if head.file.len() <= FILE_LEN_MAX {
            bytes.extend(head.file.as_bytes());
        }
        bytes.resize(HEADER_LEN - MAGIC.len(), 0);
        bytes.extend(MAGIC);
        let max_size = usize::from(request.max_size).clamp(MAX_SIZE_MIN, MAX_SIZE_MAX) - IP_UDP_LEN;
        let relay_len = encoded_len(request.relay_info.as_deref().unwrap_or(&[]));
        let limit = max_size.saturating_sub(relay_len + 1);
        let mut reply = Reply {
            bytes,
            limit,
            present: [0; 4],
        };
        reply.option(code::MESSAGE_TYPE, &[head.message_type]);
        reply.option(code::SERVER_ID, &head.server_id.octets());
        reply
    }

    /// Adds an option unless it is there already or does not fit. Long data is split (RFC 3396).
    pub(crate) fn option(&mut self, code: u8, data: &[u8]) {
        let (word, bit) = (usize::from(code / 64), 1u64 << (code % 64));
        if self.present[word] & bit != 0 || self.bytes.len() + encoded_len(data) > self.limit {
            return;
        }
        self.present[word] |= bit;
        push_option(&mut self.bytes, code, data);
    }

    /// The finished message: relay information comes last (RFC 3046 §2.2), then the end mark and padding.
    pub(crate) fn finish(mut self, request: &Request) -> Vec<u8> {
        if let Some(relay_info) = &request.relay_info {
            push_option(&mut self.bytes, code::RELAY_INFO, relay_info);
        }
        self.bytes.push(code::END);
        if self.bytes.len() < MESSAGE_LEN_MIN {
            self.bytes.resize(MESSAGE_LEN_MIN, 0);
        }
        self.bytes
    }
}

fn encoded_len(data: &[u8]) -> usize {
    data.len() + 2 * data.len().div_ceil(255)
}

fn push_option(bytes: &mut Vec<u8>, code: u8, data: &[u8]) {
    for part in data.chunks(255) {
        bytes.push(code);
        bytes.push(part.len() as u8);
        bytes.extend(part);
    }
}
