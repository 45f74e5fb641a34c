//! Looking for DHCP servers that are not ours.
//!
//! The caller sends [`discover`] by broadcast from a card that has no reservation with us, listens on port 68
//! for a few seconds, and hands each datagram to [`inspect`]. An offer that is never taken costs a foreign
//! server nothing but the time it holds an address.

use crate::reply::{HEADER_LEN, code};
use crate::types::Mac;
use dhcproto::v4::borrowed::Message;
use dhcproto::v4::{DhcpOption, Flags, Message as Owned, MessageType, Opcode, OptionCode};
use dhcproto::{Encodable, error::EncodeError};
use std::net::Ipv4Addr;

const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Smallest BOOTP message; some servers ignore shorter ones.
const MESSAGE_LEN_MIN: usize = 300;

/// The probe could not be written.
#[derive(Debug, thiserror::Error)]
#[error("encoding of the DHCP probe failed")]
pub struct ProbeError(#[source] EncodeError);

/// A DHCPDISCOVER with the broadcast flag, as a boot ROM sends it, so that servers which answer only those
/// are found too. `xid` comes from the caller's random numbers.
///
/// # Errors
///
/// [`ProbeError`] when the codec refuses the message.
pub fn discover(mac: Mac, xid: u32) -> Result<Vec<u8>, ProbeError> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Owned::new_with_id(xid, none, none, none, none, &mac.0);
    message.set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Discover));
    options.insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::TFTPServerName,
        OptionCode::BootfileName,
    ]));
    let mut bytes = message.to_vec().map_err(ProbeError)?;
    if bytes.len() < MESSAGE_LEN_MIN {
        bytes.resize(MESSAGE_LEN_MIN, 0);
    }
    Ok(bytes)
}

/// What an answer to the probe means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// Another server offers addresses here.
    Foreign(ForeignServer),
    /// One of our own racks answered.
    Ours(Ipv4Addr),
    /// Not an answer to this probe.
    Unrelated(Unrelated),
}

/// A DHCP server that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignServer {
    /// Option 54, or the sender where a server leaves it out.
    pub server: Ipv4Addr,
    /// The address it offers; 0.0.0.0 from a proxyDHCP server.
    pub offered: Ipv4Addr,
    /// Where it sends machines for their boot file; 0.0.0.0 when nowhere.
    pub next_server: Ipv4Addr,
    /// The boot file it names.
    pub boot_file: Option<String>,
}

/// Why a datagram is no answer to the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrelated {
    /// Not a DHCP message.
    Malformed,
    /// A client's message.
    NotAReply,
    /// Answer to someone else's message.
    OtherExchange,
    /// A reply that offers nothing.
    NotAnOffer,
}

/// Judges a datagram that came to port 68 from `sender`. `ours` are the server identifiers of our racks.
pub fn inspect(
    packet: &[u8],
    sender: Ipv4Addr,
    mac: Mac,
    xid: u32,
    ours: &[Ipv4Addr],
) -> ProbeAnswer {
    if packet.len() < HEADER_LEN || packet[HEADER_LEN - 4..HEADER_LEN] != MAGIC {
        return ProbeAnswer::Unrelated(Unrelated::Malformed);
    }
    let Ok(message) = Message::new(packet) else {
        return ProbeAnswer::Unrelated(Unrelated::Malformed);
    };
    if message.opcode() != Opcode::BootReply {
        return ProbeAnswer::Unrelated(Unrelated::NotAReply);
    }
    if message.xid() != xid || packet[28..34] != mac.0 {
        return ProbeAnswer::Unrelated(Unrelated::OtherExchange);
    }
    let mut offer = false;
    let mut server = sender;
    let mut boot_file = message.fname().to_vec();
    for option in message.opts() {
        let data = option.data();
        match u8::from(option.code()) {
            code::MESSAGE_TYPE => {
                offer =
                    data == [u8::from(MessageType::Offer)] || data == [u8::from(MessageType::Ack)];
            }
            code::SERVER_ID => {
                if let Ok(octets) = <[u8; 4]>::try_from(data) {
                    server = octets.into();
                }
            }
            code::BOOT_FILE => boot_file = data.to_vec(),
            _ => {}
        }
    }
    if !offer {
        return ProbeAnswer::Unrelated(Unrelated::NotAnOffer);
    }
    if ours.contains(&server) {
        return ProbeAnswer::Ours(server);
    }
    boot_file.retain(|&byte| byte != 0);
    ProbeAnswer::Foreign(ForeignServer {
        server,
        offered: message.yiaddr(),
        next_server: message.siaddr(),
        boot_file: (!boot_file.is_empty())
            .then(|| String::from_utf8_lossy(&boot_file).into_owned()),
    })
}
