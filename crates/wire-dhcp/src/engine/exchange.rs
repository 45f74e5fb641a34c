//! One message of a client and what it leads to (RFC 2131 §4.3).

use super::{Action, Engine, Observation, ObservedKind, Received};
use crate::assign::{self, Asker, Refusal};
use crate::boot::BootReply;
use crate::config::{Config, LEASE_TIME_MIN_S};
use crate::request::Request;
use crate::stats::DropReason;
use crate::types::Timestamp;
use dhcproto::v4::MessageType;
use std::net::Ipv4Addr;

/// A request on a network that we serve.
pub(super) struct Exchange<'a> {
    pub(super) config: &'a Config,
    pub(super) request: Request,
    pub(super) from: Received,
    pub(super) now: Timestamp,
    pub(super) asker: Asker,
    /// How we call ourselves towards this client (option 54).
    pub(super) server_id: Ipv4Addr,
}

impl<'a> Exchange<'a> {
    /// Finds the network that the client is on.
    pub(super) fn new(
        config: &'a Config,
        request: Request,
        from: Received,
        now: Timestamp,
    ) -> Result<Exchange<'a>, DropReason> {
        let (network, prefer) = if request.giaddr.is_unspecified() {
            (direct_network(config, &request, from)?, None)
        } else {
            relayed_network(config, &request)?
        };
        if !config.networks[network].dhcp_on {
            return Err(DropReason::DhcpOff);
        }
        // RFC 5107: the relay agent wants to be the server that clients talk to.
        let server_id = request
            .server_id_override
            .unwrap_or(config.networks[network].server_id);
        let asker = Asker {
            mac: request.mac,
            network,
            prefer,
        };
        Ok(Exchange {
            config,
            request,
            from,
            now,
            asker,
            server_id,
        })
    }

    fn is_us(&self, server_id: Ipv4Addr) -> bool {
        server_id == self.server_id || self.config.is_own(server_id)
    }

    /// Lease time: what the subnet says, less for boot ROMs, less when the client wants less.
    fn lease_time_s(&self, subnet: usize) -> u32 {
        let mut most = self.config.subnets[subnet].lease_time_s;
        if self.request.is_pxe {
            most = most
                .min(self.config.settings.pxe_lease_time_s)
                .max(LEASE_TIME_MIN_S);
        }
        self.request
            .lease_time_s
            .map_or(most, |wish| wish.clamp(LEASE_TIME_MIN_S, most))
    }

    pub(super) fn observation(
        &mut self,
        kind: ObservedKind,
        address: Option<(Ipv4Addr, usize)>,
        expires: Option<Timestamp>,
        boot: Option<BootReply>,
    ) -> Action {
        let giaddr = self.request.giaddr;
        Action::Observed(Box::new(Observation {
            kind,
            at: self.now,
            link: Some(self.from.link),
            relay: (!giaddr.is_unspecified()).then_some(giaddr),
            mac: self.request.mac,
            address: address.map(|(address, _)| address),
            subnet: address.map(|(_, subnet)| self.config.subnets[subnet].id),
            expires,
            boot_method: boot.as_ref().map(|boot| boot.method),
            boot_file: boot.map(|boot| boot.file.into_owned()),
            client: std::mem::take(&mut self.request.client),
        }))
    }
}

/// The network of the wire, or of a client that renews by unicast from behind a router.
fn direct_network(config: &Config, request: &Request, from: Received) -> Result<usize, DropReason> {
    let network = config
        .network_of_link(from.link)
        .ok_or(DropReason::UnknownLink)?;
    let routed = !request.ciaddr.is_unspecified()
        && config.is_own(from.dst)
        && config.subnet_in(network, request.ciaddr).is_none();
    if !routed {
        return Ok(network);
    }
    let subnet = config
        .subnet_of(request.ciaddr)
        .ok_or(DropReason::WrongNetwork)?;
    Ok(config.subnets[subnet].network)
}

/// RFC 3527: the link selection names the client's subnet where the relay agent's address does not.
fn relayed_network(
    config: &Config,
    request: &Request,
) -> Result<(usize, Option<usize>), DropReason> {
    if config.is_own(request.giaddr) {
        return Err(DropReason::RelayIsSelf);
    }
    let named = request.link_selection.or(request.subnet_selection);
    let listed = match named {
        Some(_) => None,
        None => config.network_of_relay(request.giaddr),
    };
    let address = named.unwrap_or(request.giaddr);
    let network = listed
        .or_else(|| {
            config
                .subnet_of(address)
                .map(|subnet| config.subnets[subnet].network)
        })
        .ok_or(DropReason::UnknownRelay)?;
    Ok((network, config.subnet_in(network, address)))
}

impl Engine {
    pub(super) fn exchange(
        &mut self,
        exchange: Exchange<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        match exchange.request.message_type {
            MessageType::Discover => self.discover(exchange, actions),
            MessageType::Request => self.request(exchange, actions),
            MessageType::Release => self.release(exchange, actions),
            MessageType::Decline => self.decline(exchange, actions),
            MessageType::Inform => self.inform(exchange, actions),
            _ => Err(DropReason::UnsupportedType),
        }
    }

    /// DHCPDISCOVER: the offer leaves at once, and the address is held for the client from now on.
    fn discover(
        &mut self,
        mut exchange: Exchange<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let Exchange {
            config, asker, now, ..
        } = exchange;
        let (address, subnet) =
            assign::choose(config, &self.table, asker, exchange.request.requested)
                .ok_or(DropReason::NoFreeAddress)?;
        if !self.table.make_room(address, self.leases_max) {
            return Err(DropReason::TableFull);
        }
        self.drop_other_offers(&exchange, Some(address));
        let until = now.plus_s(config.settings.offer_hold_s.max(1));
        // The lease of a bond's other member goes on; the shared reservation is hold enough.
        let shared = |lease: &crate::table::Lease| {
            lease.mac != asker.mac && lease.is_held() && lease.is_bound()
        };
        if !self.table.get(address).is_some_and(shared) {
            self.table
                .offer(address, asker.mac, config.subnets[subnet].id, now, until);
        }
        let lease_time_s = exchange.lease_time_s(subnet);
        let (send, boot) = exchange.lease_reply(MessageType::Offer, address, subnet, lease_time_s);
        self.stats.offers += 1;
        actions.push(send);
        actions.push(exchange.observation(
            ObservedKind::Offered,
            Some((address, subnet)),
            None,
            boot,
        ));
        Ok(())
    }

    /// DHCPREQUEST in its four forms (RFC 2131 §4.3.2, table 4).
    fn request(
        &mut self,
        mut exchange: Exchange<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let request = &exchange.request;
        let ciaddr = Some(request.ciaddr).filter(|address| !address.is_unspecified());
        let (address, kind) = match (request.server_id, ciaddr) {
            // SELECTING: the client takes an offer, ours or not.
            (Some(server_id), _) => {
                if !exchange.is_us(server_id) {
                    self.drop_other_offers(&exchange, None);
                    let address = request.requested.and_then(|address| {
                        Some((
                            address,
                            exchange.config.subnet_in(exchange.asker.network, address)?,
                        ))
                    });
                    let kind = ObservedKind::ChoseOtherServer(server_id);
                    actions.push(exchange.observation(kind, address, None, None));
                    return Err(DropReason::OtherServer);
                }
                (request.requested.or(ciaddr), ObservedKind::Granted)
            }
            // RENEWING by unicast, REBINDING by broadcast.
            (None, Some(_)) => (ciaddr, ObservedKind::Renewed),
            // INIT-REBOOT.
            (None, None) => (request.requested, ObservedKind::Granted),
        };
        let address = address.ok_or(DropReason::NoAddressNamed)?;
        // We are authoritative: an address of our networks that the client may not have is refused, so that
        // it starts over at once. Addresses are ours alone to give, so one that is free is granted even
        // where nothing is known of the client (RFC 2131 leaves that open for a server that lost its memory).
        match assign::claim(exchange.config, &self.table, exchange.asker, address) {
            Ok(subnet) => self.grant(exchange, address, subnet, kind, actions),
            Err(refusal) => {
                self.refuse(&mut exchange, address, refusal, actions);
                Ok(())
            }
        }
    }

    fn grant(
        &mut self,
        mut exchange: Exchange<'_>,
        address: Ipv4Addr,
        subnet: usize,
        kind: ObservedKind,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        if !self.table.make_room(address, self.leases_max) {
            return Err(DropReason::TableFull);
        }
        let Exchange {
            config, asker, now, ..
        } = exchange;
        self.leave_other_addresses(&exchange, address, actions);
        let lease_time_s = exchange.lease_time_s(subnet);
        let expires = now.plus_s(lease_time_s);
        let reserved = config
            .reservations_of(asker.mac)
            .iter()
            .find(|reserved| reserved.address == address);
        let hostname = reserved
            .and_then(|reserved| reserved.hostname.as_deref())
            .or(exchange.request.client.hostname.as_deref());
        let id = config.subnets[subnet].id;
        let record = self
            .table
            .bind(address, asker.mac, id, now, expires, hostname);
        let (send, boot) = exchange.lease_reply(MessageType::Ack, address, subnet, lease_time_s);
        self.stats.acks += 1;
        actions.push(Action::Persist(record));
        actions.push(send);
        actions.push(exchange.observation(kind, Some((address, subnet)), Some(expires), boot));
        Ok(())
    }

    fn refuse(
        &mut self,
        exchange: &mut Exchange<'_>,
        address: Ipv4Addr,
        refusal: Refusal,
        actions: &mut Vec<Action>,
    ) {
        self.stats.naks += 1;
        actions.push(exchange.nak(refusal.text()));
        let place = exchange
            .config
            .subnet_in(exchange.asker.network, address)
            .map(|subnet| (address, subnet));
        actions.push(exchange.observation(
            ObservedKind::Refused(refusal.text()),
            place,
            None,
            None,
        ));
    }

    /// DHCPRELEASE: the lease ends now and the address stays in memory for the client.
    fn release(
        &mut self,
        mut exchange: Exchange<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let request = &exchange.request;
        if request
            .server_id
            .is_some_and(|server_id| !exchange.is_us(server_id))
        {
            return Err(DropReason::OtherServer);
        }
        let address = request.ciaddr;
        let lease = self
            .table
            .get(address)
            .filter(|lease| lease.mac == request.mac && lease.is_held());
        let lease = lease.ok_or(DropReason::NotTheHolder)?;
        let subnet = exchange
            .config
            .subnet_in(exchange.asker.network, address)
            .ok_or(DropReason::WrongNetwork)?;
        if !lease.is_bound() {
            self.table.withdraw_offer(address, exchange.now);
            return Ok(());
        }
        self.stats.releases += 1;
        actions.extend(
            self.table
                .release(address, exchange.now)
                .map(Action::Persist),
        );
        let now = exchange.now;
        actions.push(exchange.observation(
            ObservedKind::Released,
            Some((address, subnet)),
            Some(now),
            None,
        ));
        Ok(())
    }

    /// DHCPDECLINE: someone else uses the address; nobody gets it for a while.
    fn decline(
        &mut self,
        mut exchange: Exchange<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let Exchange { config, now, .. } = exchange;
        let request = &exchange.request;
        if request
            .server_id
            .is_some_and(|server_id| !exchange.is_us(server_id))
        {
            return Err(DropReason::OtherServer);
        }
        let ciaddr = Some(request.ciaddr).filter(|address| !address.is_unspecified());
        let address = request
            .requested
            .or(ciaddr)
            .ok_or(DropReason::NoAddressNamed)?;
        let holds = |lease: &&crate::table::Lease| {
            lease.mac == request.mac
                && lease.is_held()
                && lease.state != crate::LeaseState::Declined
        };
        self.table
            .get(address)
            .filter(holds)
            .ok_or(DropReason::NotTheHolder)?;
        let subnet = config
            .subnet_in(exchange.asker.network, address)
            .ok_or(DropReason::WrongNetwork)?;
        self.stats.declines += 1;
        let until = now.plus_s(config.settings.quarantine_s.max(1));
        actions.extend(self.table.decline(address, now, until).map(Action::Persist));
        actions.push(exchange.observation(
            ObservedKind::Declined,
            Some((address, subnet)),
            Some(until),
            None,
        ));
        Ok(())
    }

    /// DHCPINFORM: options only, to a client that has an address (RFC 2131 §4.3.5).
    fn inform(
        &mut self,
        mut exchange: Exchange<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let stated = [exchange.request.ciaddr, exchange.from.src];
        let address = stated.into_iter().find(|address| !address.is_unspecified());
        let address = address.ok_or(DropReason::NoAddressNamed)?;
        let subnet = exchange
            .config
            .subnet_in(exchange.asker.network, address)
            .ok_or(DropReason::WrongNetwork)?;
        let (send, boot) = exchange.inform_reply(address, subnet);
        self.stats.inform_acks += 1;
        actions.push(send);
        actions.push(exchange.observation(
            ObservedKind::Informed,
            Some((address, subnet)),
            None,
            boot,
        ));
        Ok(())
    }

    /// Takes back what was offered to the client on this network, apart from `keep`.
    fn drop_other_offers(&mut self, exchange: &Exchange<'_>, keep: Option<Ipv4Addr>) {
        let offers: Vec<Ipv4Addr> = self
            .table
            .of_mac(exchange.request.mac)
            .filter(|(address, lease)| {
                Some(*address) != keep
                    && lease.is_held()
                    && !lease.is_bound()
                    && exchange
                        .config
                        .subnet_in(exchange.asker.network, *address)
                        .is_some()
            })
            .map(|(address, _)| address)
            .collect();
        for address in offers {
            self.table.withdraw_offer(address, exchange.now);
        }
    }

    /// One machine, one address on a network: whatever else the client has there ends.
    fn leave_other_addresses(
        &mut self,
        exchange: &Exchange<'_>,
        keep: Ipv4Addr,
        actions: &mut Vec<Action>,
    ) {
        let others: Vec<(Ipv4Addr, usize, bool)> = self
            .table
            .of_mac(exchange.request.mac)
            .filter(|(address, _)| *address != keep)
            .filter_map(|(address, lease)| {
                let subnet = exchange.config.subnet_in(exchange.asker.network, address)?;
                Some((address, subnet, lease.is_bound()))
            })
            .collect();
        for (address, subnet, live) in others {
            if live {
                actions.extend(
                    self.table
                        .release(address, exchange.now)
                        .map(Action::Persist),
                );
                actions.push(Action::Observed(Box::new(Observation {
                    kind: ObservedKind::Released,
                    at: exchange.now,
                    link: Some(exchange.from.link),
                    relay: None,
                    mac: exchange.request.mac,
                    address: Some(address),
                    subnet: Some(exchange.config.subnets[subnet].id),
                    expires: Some(exchange.now),
                    boot_method: None,
                    boot_file: None,
                    client: crate::ClientInfo::default(),
                })));
            }
            self.table.forget(address);
        }
    }
}
