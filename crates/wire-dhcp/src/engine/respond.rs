//! Builds replies and says where they go.

use super::exchange::Exchange;
use super::{Action, Dest, Outgoing};
use crate::boot::{self, BootReply};
use crate::reply::{FILE_LEN_MAX, Head, Reply, code};
use crate::types::SubnetId;
use dhcproto::v4::MessageType;
use std::net::Ipv4Addr;

/// Inside option 175: do not wait for a ProxyDHCP offer. Saves iPXE seconds at each boot.
const IPXE_NO_PXEDHCP: [u8; 3] = [176, 1, 1];

impl Exchange<'_> {
    /// An OFFER or an ACK of a lease.
    pub(super) fn lease_reply(
        &self,
        message_type: MessageType,
        address: Ipv4Addr,
        subnet: usize,
        lease_time_s: u32,
    ) -> (Action, Option<BootReply>) {
        let boot = self.boot(subnet);
        let mut reply = self.begin(message_type, address, subnet, boot.as_ref());
        reply.option(code::LEASE_TIME, &lease_time_s.to_be_bytes());
        let (t1, t2) = (lease_time_s / 2, lease_time_s - lease_time_s / 8);
        self.options(&mut reply, address, subnet, boot.as_ref(), Some((t1, t2)));
        (self.send(self.dest(address), reply), boot)
    }

    /// An ACK without a lease, to a client that has its address.
    pub(super) fn inform_reply(
        &self,
        address: Ipv4Addr,
        subnet: usize,
    ) -> (Action, Option<BootReply>) {
        let boot = self.boot(subnet);
        let mut reply = self.begin(
            MessageType::Ack,
            Ipv4Addr::UNSPECIFIED,
            subnet,
            boot.as_ref(),
        );
        self.options(&mut reply, address, subnet, boot.as_ref(), None);
        (self.send(Dest::Client(address), reply), boot)
    }

    /// A NAK; it is broadcast, because the client's address is in doubt.
    pub(super) fn nak(&self, text: &str) -> Action {
        let relayed = !self.request.giaddr.is_unspecified();
        let head = Head {
            message_type: MessageType::Nak.into(),
            server_id: self.server_id,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            file: "",
            force_broadcast: relayed,
        };
        let mut reply = Reply::new(&self.request, &head);
        reply.option(code::MESSAGE, text.as_bytes());
        let dest = if relayed {
            Dest::Relay(self.request.giaddr)
        } else {
            Dest::Broadcast
        };
        self.send(dest, reply)
    }

    fn boot(&self, subnet: usize) -> Option<BootReply> {
        let subnet = &self.config.subnets[subnet];
        let entry = boot::select(self.request.boot_client(), subnet.disabled)?;
        Some(entry.reply(subnet.rack, self.config.settings.http_port))
    }

    fn begin(
        &self,
        message_type: MessageType,
        yiaddr: Ipv4Addr,
        subnet: usize,
        boot: Option<&BootReply>,
    ) -> Reply {
        let ciaddr = match message_type {
            MessageType::Offer => Ipv4Addr::UNSPECIFIED,
            _ => self.request.ciaddr,
        };
        let head = Head {
            message_type: message_type.into(),
            server_id: self.server_id,
            ciaddr,
            yiaddr,
            siaddr: self.config.subnets[subnet].rack,
            file: boot.map_or("", |boot| &boot.file),
            force_broadcast: false,
        };
        Reply::new(&self.request, &head)
    }

    /// What the client cannot do without, then what the boot needs, then what it asked for, in its order.
    fn options(
        &self,
        reply: &mut Reply,
        address: Ipv4Addr,
        index: usize,
        boot: Option<&BootReply>,
        renewal: Option<(u32, u32)>,
    ) {
        let subnet = &self.config.subnets[index];
        let stated = |wanted: u8| subnet.options.iter().find(|(code, _)| *code == wanted);
        if let Some((code, mask)) = stated(code::SUBNET_MASK) {
            reply.option(*code, mask);
        }
        if let Some(boot) = boot {
            if let Some(class) = boot.vendor_class {
                reply.option(code::VENDOR_CLASS, class.as_bytes());
            }
            if let Some(prefix) = &boot.path_prefix {
                reply.option(code::PATH_PREFIX, prefix.as_bytes());
            }
            if self.request.wants(code::BOOT_FILE) || boot.file.len() > FILE_LEN_MAX {
                reply.option(code::BOOT_FILE, boot.file.as_bytes());
            }
            if self.request.knows_ipxe_options {
                reply.option(code::IPXE, &IPXE_NO_PXEDHCP);
            }
        }
        let Some(wanted) = &self.request.wanted else {
            for (code, data) in &subnet.options {
                reply.option(*code, data);
            }
            return;
        };
        for &code in wanted {
            match (code, boot, renewal) {
                (code::TFTP_SERVER_NAME, Some(_), _) => {
                    reply.option(code, subnet.rack.to_string().as_bytes())
                }
                (code::TFTP_SERVER_ADDRESS, Some(_), _) => {
                    reply.option(code, &subnet.rack.octets())
                }
                (code::T1, _, Some((t1, _))) => reply.option(code, &t1.to_be_bytes()),
                (code::T2, _, Some((_, t2))) => reply.option(code, &t2.to_be_bytes()),
                (code::HOSTNAME, _, _) => {
                    if let Some(name) = self.reserved_hostname(subnet.id, address) {
                        reply.option(code, name.as_bytes());
                    }
                }
                _ => {
                    if let Some((code, data)) = stated(code) {
                        reply.option(*code, data);
                    }
                }
            }
        }
    }

    fn reserved_hostname(&self, subnet: SubnetId, address: Ipv4Addr) -> Option<&str> {
        let reserved = self.config.reservations_of(self.request.mac).iter();
        let mut here =
            reserved.filter(|reserved| self.config.subnets[reserved.subnet].id == subnet);
        here.find(|reserved| reserved.address == address)?
            .hostname
            .as_deref()
    }

    /// RFC 2131 §4.1: through the relay agent, to the address that the client has, by broadcast where it
    /// must be, else straight to the card.
    fn dest(&self, yiaddr: Ipv4Addr) -> Dest {
        let request = &self.request;
        if !request.giaddr.is_unspecified() {
            Dest::Relay(request.giaddr)
        } else if !request.ciaddr.is_unspecified() && request.message_type != MessageType::Discover
        {
            Dest::Client(request.ciaddr)
        } else if request.wants_broadcast() {
            Dest::Broadcast
        } else {
            Dest::Hardware {
                mac: request.mac,
                address: yiaddr,
            }
        }
    }

    fn send(&self, dest: Dest, reply: Reply) -> Action {
        let source = self.config.networks[self.asker.network].server_id;
        let bytes = reply.finish(&self.request);
        Action::Send(Outgoing {
            link: self.from.link,
            source,
            dest,
            bytes,
        })
    }
}
