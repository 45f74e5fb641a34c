//! DHCP as firmware, loaders and operating systems speak it: messages to bytes and back. No sockets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::Encodable as _;
use dhcproto::v4::{DhcpOption, Message, MessageType};
use metal::MacAddr;

/// Port of clients.
pub const CLIENT_PORT: u16 = 68;
/// Port of servers.
pub const SERVER_PORT: u16 = 67;

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Who speaks: it decides what is asked for and what is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Firmware with PXE or, for architecture 0x10, HTTP boot.
    Firmware {
        /// Option 93.
        arch: u16,
    },
    /// An iPXE ROM.
    Ipxe {
        /// Option 93.
        arch: u16,
    },
    /// An operating system.
    System {
        /// Its host name (option 12).
        hostname: String,
    },
}

/// One client: who it is and what it calls this exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its card.
    pub mac: MacAddr,
    /// SMBIOS UUID.
    pub uuid: [u8; 16],
    /// Number of the exchange.
    pub xid: u32,
    /// Who speaks.
    pub speaker: Speaker,
}

/// Kinds of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OFFER
    Offer,
    /// ACK
    Ack,
    /// NAK
    Nak,
}

/// An answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Number of the exchange.
    pub xid: u32,
    /// To whom.
    pub mac: MacAddr,
    /// What it is.
    pub kind: Kind,
    /// The address.
    pub address: Ipv4Addr,
    /// Option 54.
    pub server: Ipv4Addr,
    /// Where files are: `siaddr`, else the server.
    pub next_server: Ipv4Addr,
    /// Boot file: option 67, else the field.
    pub file: Option<String>,
    /// Option 210.
    pub prefix: Option<String>,
    /// Option 60.
    pub vendor_class: Option<String>,
    /// Seconds of the lease.
    pub lease_seconds: u32,
}

impl Client {
    fn message(&self, kind: MessageType) -> Message {
        let mut message = Message::new_with_id(self.xid, NONE, NONE, NONE, NONE, &self.mac.0);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::MaxMessageSize(1_472));
        let wanted: &[u8] = match &self.speaker {
            Speaker::Firmware { arch } => {
                self.pxe(options, *arch);
                &[1, 3, 6, 12, 13, 15, 43, 60, 66, 67, 97]
            }
            Speaker::Ipxe { arch } => {
                self.pxe(options, *arch);
                options.insert(DhcpOption::UserClass(b"iPXE".to_vec()));
                &[
                    1, 3, 6, 7, 12, 15, 17, 43, 60, 66, 67, 119, 128, 129, 130, 131, 132, 133, 134,
                    135, 175, 203,
                ]
            }
            Speaker::System { hostname } => {
                options.insert(DhcpOption::Hostname(hostname.clone()));
                // Client identifier of the Ethernet kind.
                let id = [&[1], &self.mac.0[..]].concat();
                options.insert(DhcpOption::ClientIdentifier(id));
                &[1, 3, 6, 12, 15, 26, 28, 42, 119, 121]
            }
        };
        options.insert(DhcpOption::ParameterRequestList(
            wanted.iter().map(|code| (*code).into()).collect(),
        ));
        message
    }

    fn pxe(&self, options: &mut dhcproto::v4::DhcpOptions, arch: u16) {
        // UEFI HTTP boot calls itself otherwise (UEFI 2.10 §24.7.2).
        let class = if arch == 0x10 {
            "HTTPClient"
        } else {
            "PXEClient"
        };
        options.insert(DhcpOption::ClassIdentifier(
            format!("{class}:Arch:{arch:05}:UNDI:003016").into_bytes(),
        ));
        options.insert(DhcpOption::ClientSystemArchitecture(arch.into()));
        options.insert(DhcpOption::ClientNetworkInterface(1, 3, 16));
        // Type 0 is a UUID (RFC 4578 §2.3).
        options.insert(DhcpOption::ClientMachineIdentifier(
            [&[0], &self.uuid[..]].concat(),
        ));
    }

    /// Is there a server?
    #[must_use]
    pub fn discover(&self) -> Vec<u8> {
        encode(&self.message(MessageType::Discover))
    }

    /// This offer, please.
    #[must_use]
    pub fn request(&self, offer: &Reply) -> Vec<u8> {
        let mut message = self.message(MessageType::Request);
        message
            .opts_mut()
            .insert(DhcpOption::RequestedIpAddress(offer.address));
        message
            .opts_mut()
            .insert(DhcpOption::ServerIdentifier(offer.server));
        encode(&message)
    }

    /// May I keep the address? (RFC 2131 §4.3.2, RENEWING)
    #[must_use]
    pub fn renew(&self, address: Ipv4Addr) -> Vec<u8> {
        let mut message = self.message(MessageType::Request);
        message.set_ciaddr(address);
        encode(&message)
    }
}

fn encode(message: &Message) -> Vec<u8> {
    // It is put together above, from parts that fit.
    message.to_vec().unwrap_or_default()
}

/// Where the options begin: after the fields of BOOTP and the cookie (RFC 2131 §2, §3).
const OPTIONS_AT: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOT_REPLY: u8 = 2;

/// The options: the value of a code that comes several times is one value in pieces (RFC 3396).
fn options(mut bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut out: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    while let Some((&code, rest)) = bytes.split_first() {
        match (code, rest.split_first()) {
            (0, _) => bytes = rest,
            (255, _) | (_, None) => break,
            (_, Some((&len, rest))) => {
                let Some((value, after)) = rest.split_at_checked(usize::from(len)) else {
                    break;
                };
                out.entry(code).or_default().extend_from_slice(value);
                bytes = after;
            }
        }
    }
    out
}

/// Reads what a server sent; none is something else. (Not with `dhcproto`, whose decoder asserts on some
/// malformed options.)
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Reply> {
    let quad = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| <[u8; 4]>::try_from(b).ok())
    };
    if bytes.first() != Some(&BOOT_REPLY) || quad(OPTIONS_AT - 4) != Some(COOKIE) {
        return None;
    }
    let options = options(bytes.get(OPTIONS_AT..)?);
    let text_of = |b: &[u8]| {
        let end = b.iter().position(|b| *b == 0).unwrap_or(b.len());
        (end > 0).then(|| String::from_utf8_lossy(&b[..end]).into_owned())
    };
    let text = |code: u8| options.get(&code).and_then(|b| text_of(b));
    let number = |code: u8| {
        options
            .get(&code)
            .and_then(|b| <[u8; 4]>::try_from(&b[..]).ok())
    };
    let kind = match options.get(&53)?[..] {
        [2] => Kind::Offer,
        [5] => Kind::Ack,
        [6] => Kind::Nak,
        _ => return None,
    };
    let server = number(54).map_or(NONE, Ipv4Addr::from);
    let next_server = Ipv4Addr::from(quad(20)?);
    Some(Reply {
        xid: u32::from_be_bytes(quad(4)?),
        mac: MacAddr(bytes.get(28..34)?.try_into().ok()?),
        kind,
        address: quad(16)?.into(),
        server,
        next_server: if next_server.is_unspecified() {
            server
        } else {
            next_server
        },
        file: text(67).or_else(|| text_of(bytes.get(108..236)?)),
        prefix: text(210),
        vendor_class: text(60),
        lease_seconds: number(51).map_or(0, u32::from_be_bytes),
    })
}

#[cfg(test)]
mod tests {
    use wire_dhcp::boot::BootMethod;
    use wire_dhcp::{Action, Config, Engine, LinkId, Received, SubnetId, Timestamp, spec};

    use super::*;

    const RACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    fn client(speaker: Speaker) -> Client {
        Client {
            mac: MacAddr([0x52, 0x54, 1, 0, 0, 0]),
            uuid: [7; 16],
            xid: 99,
            speaker,
        }
    }

    /// What the product's own engine answers, and the boot method that it recognised.
    fn exchange(speaker: Speaker) -> (Reply, Option<BootMethod>) {
        let range = spec::Range {
            first: Ipv4Addr::new(10, 77, 0, 100),
            last: Ipv4Addr::new(10, 77, 0, 109),
        };
        let mut subnet = spec::Subnet::new(SubnetId(1), "10.77.0.0/24".parse().unwrap());
        subnet.dynamic = vec![range];
        let link = spec::Link {
            id: LinkId(3),
            addresses: vec![RACK],
            dhcp_on: true,
            subnets: vec![subnet],
            relayed: vec![],
        };
        let (config, problems) = Config::compile(&spec::Config {
            links: vec![link],
            ..spec::Config::default()
        });
        assert_eq!(problems, vec![]);
        let mut engine = Engine::new(std::sync::Arc::new(config));
        let client = client(speaker);
        let mut method = None;
        let mut ask = |bytes: &[u8]| {
            let from = Received {
                link: LinkId(3),
                src: NONE,
                dst: Ipv4Addr::BROADCAST,
                src_mac: None,
            };
            let actions = engine.handle(bytes, from, Timestamp(1_000_000));
            let mut reply = None;
            for action in actions {
                match action {
                    Action::Send(out) => reply = read(&out.bytes),
                    Action::Observed(seen) => method = seen.boot_method,
                    _ => {}
                }
            }
            reply.expect("an answer")
        };
        let offer = ask(&client.discover());
        assert_eq!(
            (offer.kind, offer.xid, offer.mac),
            (Kind::Offer, 99, client.mac)
        );
        let ack = ask(&client.request(&offer));
        assert_eq!((ack.kind, ack.address), (Kind::Ack, offer.address));
        (ack, method)
    }

    #[test]
    fn each_firmware_is_recognised_and_told_its_loader() {
        for (speaker, method, file) in [
            (
                Speaker::Firmware { arch: 0 },
                BootMethod::Pxe,
                "lpxelinux.0",
            ),
            (
                Speaker::Firmware { arch: 7 },
                BootMethod::UefiAmd64Tftp,
                "bootx64.efi",
            ),
            (
                Speaker::Firmware { arch: 0x10 },
                BootMethod::UefiAmd64Http,
                "http://10.77.0.1:5248/images/bootx64.efi",
            ),
            (
                Speaker::Ipxe { arch: 0 },
                BootMethod::Ipxe,
                "http://10.77.0.1:5248/ipxe.cfg",
            ),
            (
                Speaker::Ipxe { arch: 7 },
                BootMethod::Ipxe,
                "http://10.77.0.1:5248/ipxe.cfg",
            ),
        ] {
            let (ack, seen) = exchange(speaker.clone());
            assert_eq!(
                (seen, ack.file.as_deref()),
                (Some(method), Some(file)),
                "{speaker:?}"
            );
            assert_eq!(ack.next_server, RACK);
            assert_eq!(
                ack.prefix.as_deref(),
                (method == BootMethod::Pxe).then_some("http://10.77.0.1:5248/")
            );
        }
    }

    #[test]
    fn an_operating_system_gets_an_address_for_longer_than_firmware() {
        let (ack, _) = exchange(Speaker::System {
            hostname: "sim-0001".into(),
        });
        let (firmware, _) = exchange(Speaker::Firmware { arch: 7 });
        assert!(ack.lease_seconds >= 60 && ack.lease_seconds > firmware.lease_seconds);
        assert_eq!((ack.prefix, ack.vendor_class), (None, None));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            drop(read(&bytes));
            let mut reply = vec![0; OPTIONS_AT];
            reply[0] = BOOT_REPLY;
            reply[OPTIONS_AT - 4..].copy_from_slice(&COOKIE);
            reply.extend([53, 1, 5]);
            reply.extend(&bytes);
            // A second option 53 makes another value of it; else it is read.
            proptest::prop_assert!(read(&reply).is_some() || options(&reply[OPTIONS_AT..])[&53] != [5]);
        }
    }
}
