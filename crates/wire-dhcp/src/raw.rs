//! Ethernet, IPv4 and UDP headers around a DHCP message, for clients that cannot be reached through the
//! kernel because they have no address yet. Bytes only; the packet socket is the caller's.

use crate::types::Mac;
use std::net::{Ipv4Addr, SocketAddrV4};

const ETHERNET_LEN: usize = 14;
const IPV4_LEN_MIN: usize = 20;
const UDP_LEN: usize = 8;
const ETHERTYPE_IPV4: u16 = 0x0800;
const PROTOCOL_UDP: u8 = 17;
/// Time to live of what we send. RFC 2131 says nothing; relay agents and firmware take any.
const TTL: u8 = 64;
/// Largest payload of an IPv4 datagram with the shortest header.
pub const PAYLOAD_MAX: usize = 65_535 - IPV4_LEN_MIN - UDP_LEN;

/// Addresses of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Sender's card.
    pub src_mac: Mac,
    /// Receiver's card.
    pub dst_mac: Mac,
    /// Sender's address and port.
    pub src: SocketAddrV4,
    /// Receiver's address and port.
    pub dst: SocketAddrV4,
}

/// What the UDP checksum says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpChecksum {
    /// Zero: the sender made none (RFC 768).
    Absent,
    /// It fits.
    Valid,
    /// It does not fit. On a packet socket that is also how a datagram looks whose checksum the sender's
    /// kernel left to the card (veth, bridges, virtio); whether it did, the kernel says in the socket's
    /// auxiliary data, not here.
    Invalid,
}

/// A UDP datagram in its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpFrame<'a> {
    /// Addresses.
    pub envelope: Envelope,
    /// What the UDP checksum says.
    pub checksum: UdpChecksum,
    /// The UDP payload, without the padding of short frames.
    pub payload: &'a [u8],
}

/// Why a frame is not a UDP datagram that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its headers say.
    #[error("frame is cut short")]
    Short,
    /// Another protocol than IPv4; also frames with a VLAN tag, which belong to another interface.
    #[error("EtherType {0:#06x} is not untagged IPv4")]
    NotIpv4(u16),
    /// Contradictory IPv4 header.
    #[error("bad IPv4 header")]
    BadIpv4Header,
    /// IPv4 header checksum.
    #[error("wrong IPv4 header checksum")]
    BadIpv4Checksum,
    /// Part of a datagram; DHCP messages come whole.
    #[error("fragment of an IPv4 datagram")]
    Fragment,
    /// Another protocol than UDP.
    #[error("IP protocol {0} is not UDP")]
    NotUdp(u8),
    /// The UDP length does not fit into the datagram.
    #[error("bad UDP length")]
    BadUdpLength,
    /// More payload than a datagram can hold.
    #[error("payload of {0} bytes does not fit into a datagram")]
    PayloadTooLong(usize),
}

/// Builds a frame, with both checksums.
///
/// # Errors
///
/// [`FrameError::PayloadTooLong`].
pub fn build(envelope: &Envelope, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    if payload.len() > PAYLOAD_MAX {
        return Err(FrameError::PayloadTooLong(payload.len()));
    }
    let udp_len = (UDP_LEN + payload.len()) as u16;
    let total_len = IPV4_LEN_MIN as u16 + udp_len;
    let mut frame = Vec::with_capacity(ETHERNET_LEN + usize::from(total_len));
    frame.extend(envelope.dst_mac.0);
    frame.extend(envelope.src_mac.0);
    frame.extend(ETHERTYPE_IPV4.to_be_bytes());

    let [length_high, length_low] = total_len.to_be_bytes();
    // Version 4 and five words of header; no fragments, so the identification may be zero (RFC 6864 §4.1).
    frame.extend([
        0x45,
        0,
        length_high,
        length_low,
        0,
        0,
        0x40,
        0,
        TTL,
        PROTOCOL_UDP,
        0,
        0,
    ]);
    frame.extend(envelope.src.ip().octets());
    frame.extend(envelope.dst.ip().octets());
    let header = &frame[ETHERNET_LEN..];
    let checksum = !fold(sum(header));
    frame[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&checksum.to_be_bytes());

    let udp = frame.len();
    frame.extend(envelope.src.port().to_be_bytes());
    frame.extend(envelope.dst.port().to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    let checksum = !udp_sum(*envelope.src.ip(), *envelope.dst.ip(), &frame[udp..]);
    // Zero would mean that there is none.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
    Ok(frame)
}

/// Takes a frame apart.
///
/// # Errors
///
/// [`FrameError`] for everything that is not one whole UDP datagram over untagged IPv4. A wrong UDP checksum
/// is no error, see [`UdpChecksum::Invalid`].
pub fn parse(frame: &[u8]) -> Result<UdpFrame<'_>, FrameError> {
    let (ethernet, packet) = frame
        .split_at_checked(ETHERNET_LEN)
        .ok_or(FrameError::Short)?;
    let ethertype = u16_at(ethernet, 12);
    if ethertype != ETHERTYPE_IPV4 {
        return Err(FrameError::NotIpv4(ethertype));
    }
    if packet.len() < IPV4_LEN_MIN {
        return Err(FrameError::Short);
    }
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let total_len = usize::from(u16_at(packet, 2));
    if packet[0] >> 4 != 4 || header_len < IPV4_LEN_MIN || total_len < header_len {
        return Err(FrameError::BadIpv4Header);
    }
    // Whatever follows is padding of the Ethernet frame.
    let packet = packet.get(..total_len).ok_or(FrameError::Short)?;
    let (header, udp) = packet.split_at(header_len);
    if fold(sum(header)) != 0xffff {
        return Err(FrameError::BadIpv4Checksum);
    }
    // More fragments, or an offset.
    if u16_at(header, 6) & 0x3fff != 0 {
        return Err(FrameError::Fragment);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(FrameError::NotUdp(header[9]));
    }
    if udp.len() < UDP_LEN {
        return Err(FrameError::BadUdpLength);
    }
    let udp_len = usize::from(u16_at(udp, 4));
    if udp_len < UDP_LEN {
        return Err(FrameError::BadUdpLength);
    }
    let udp = udp.get(..udp_len).ok_or(FrameError::BadUdpLength)?;
    let (src_ip, dst_ip) = (address_at(header, 12), address_at(header, 16));
    let checksum = match u16_at(udp, 6) {
        0 => UdpChecksum::Absent,
        _ if udp_sum(src_ip, dst_ip, udp) == 0xffff => UdpChecksum::Valid,
        _ => UdpChecksum::Invalid,
    };
    Ok(UdpFrame {
        envelope: Envelope {
            src_mac: mac_at(ethernet, 6),
            dst_mac: mac_at(ethernet, 0),
            src: SocketAddrV4::new(src_ip, u16_at(udp, 0)),
            dst: SocketAddrV4::new(dst_ip, u16_at(udp, 2)),
        },
        checksum,
        payload: &udp[UDP_LEN..],
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn address_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn mac_at(bytes: &[u8], at: usize) -> Mac {
    let mut mac = [0; 6];
    mac.copy_from_slice(&bytes[at..at + 6]);
    Mac(mac)
}

/// Sum of 16-bit words, not yet folded; an odd last byte counts as the high half (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks_exact(2);
    let odd = pairs
        .remainder()
        .first()
        .map_or(0, |&byte| u64::from(byte) << 8);
    pairs.map(|pair| u64::from(u16_at(pair, 0))).sum::<u64>() + odd
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Folded sum of the UDP pseudo header and the datagram.
fn udp_sum(src: Ipv4Addr, dst: Ipv4Addr, udp: &[u8]) -> u16 {
    fold(
        sum(&src.octets())
            + sum(&dst.octets())
            + u64::from(PROTOCOL_UDP)
            + udp.len() as u64
            + sum(udp),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope() -> impl Strategy<Value = Envelope> {
        (
            any::<[u8; 6]>(),
            any::<[u8; 6]>(),
            any::<([u8; 4], u16)>(),
            any::<([u8; 4], u16)>(),
        )
            .prop_map(|(src_mac, dst_mac, src, dst)| Envelope {
                src_mac: Mac(src_mac),
                dst_mac: Mac(dst_mac),
                src: SocketAddrV4::new(src.0.into(), src.1),
                dst: SocketAddrV4::new(dst.0.into(), dst.1),
            })
    }

    proptest! {
        #[test]
        fn frames_come_back_as_built(envelope in envelope(), payload in prop::collection::vec(any::<u8>(), 0..700), padding in 0usize..40) {
            let mut frame = build(&envelope, &payload).unwrap();
            frame.resize(frame.len() + padding, 0);
            let parsed = parse(&frame).unwrap();
            prop_assert_eq!(parsed.envelope, envelope);
            prop_assert_eq!(parsed.checksum, UdpChecksum::Valid);
            prop_assert_eq!(parsed.payload, &payload[..]);
        }

        #[test]
        fn a_flipped_bit_of_the_payload_is_seen(envelope in envelope(), payload in prop::collection::vec(any::<u8>(), 1..100), at in any::<usize>(), bit in 0u8..8) {
            let mut frame = build(&envelope, &payload).unwrap();
            let at = frame.len() - 1 - at % payload.len();
            frame[at] ^= 1 << bit;
            prop_assert_eq!(parse(&frame).unwrap().checksum, UdpChecksum::Invalid);
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes).ok();
            let mut ipv4 = vec![0u8; 12];
            ipv4.extend([8, 0]);
            ipv4.extend(&bytes);
            parse(&ipv4).ok();
        }
    }

    #[test]
    fn what_is_not_a_datagram_for_us_is_named() {
        let envelope = Envelope {
            src_mac: Mac([2, 0, 0, 0, 0, 1]),
            dst_mac: Mac::BROADCAST,
            src: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 67),
            dst: SocketAddrV4::new(Ipv4Addr::BROADCAST, 68),
        };
        let good = build(&envelope, b"text").unwrap();
        let changed = |at: usize, to: u8| {
            let mut frame = good.clone();
            frame[at] = to;
            // Make the header checksum fit again.
            frame[24] = 0;
            frame[25] = 0;
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            frame
        };
        assert_eq!(parse(&changed(12, 0x81)), Err(FrameError::NotIpv4(0x8100)));
        assert_eq!(parse(&changed(14, 0x65)), Err(FrameError::BadIpv4Header));
        assert_eq!(parse(&changed(14, 0x44)), Err(FrameError::BadIpv4Header));
        assert_eq!(parse(&changed(20, 0x20)), Err(FrameError::Fragment));
        assert_eq!(parse(&changed(23, 6)), Err(FrameError::NotUdp(6)));
        assert_eq!(parse(&changed(39, 7)), Err(FrameError::BadUdpLength));
        assert_eq!(parse(&changed(39, 200)), Err(FrameError::BadUdpLength));
        assert_eq!(parse(&changed(17, 200)), Err(FrameError::Short));
        assert_eq!(parse(&good[..20]), Err(FrameError::Short));
        let mut flipped = good.clone();
        flipped[22] ^= 1;
        assert_eq!(parse(&flipped), Err(FrameError::BadIpv4Checksum));
        let mut unsummed = good.clone();
        unsummed[40..42].fill(0);
        assert_eq!(parse(&unsummed).unwrap().checksum, UdpChecksum::Absent);
        assert_eq!(
            build(&envelope, &vec![0; PAYLOAD_MAX + 1]),
            Err(FrameError::PayloadTooLong(PAYLOAD_MAX + 1))
        );
        assert_eq!(
            parse(&build(&envelope, &vec![7; PAYLOAD_MAX]).unwrap())
                .unwrap()
                .checksum,
            UdpChecksum::Valid
        );
    }
}
