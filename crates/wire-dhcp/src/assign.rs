//! Which address a client gets, and whether it may have the one it names.

use crate::config::{Config, is_network_address};
use crate::table::{Lease, LeaseState, Table};
use crate::types::Mac;
use std::net::Ipv4Addr;

/// Why a client may not have the address it asks for. The text goes into the NAK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotOnNetwork,
    TakenByNetwork,
    ReservedForOther,
    ReservedElsewhere,
    NotDynamic,
    Held,
    Quarantined,
}

impl Refusal {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Refusal::NotOnNetwork => "address does not belong to this network",
            Refusal::TakenByNetwork => "address is used by the network itself",
            Refusal::ReservedForOther => "address is reserved for another machine",
            Refusal::ReservedElsewhere => "another address is reserved for this machine",
            Refusal::NotDynamic => "address is not given out by this server",
            Refusal::Held => "address is held by another machine",
            Refusal::Quarantined => "address was declined a short time ago",
        }
    }
}

/// Who is asking, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) mac: Mac,
    pub(crate) network: usize,
    /// Subnet to try first: the relay agent's.
    pub(crate) prefer: Option<usize>,
}

/// Whether a reserved address is free for a card it is reserved for. Another such card (the bond's other
/// member) gives way, and so does a stranger who was only offered it.
fn reserved_is_free(
    config: &Config,
    table: &Table,
    address: Ipv4Addr,
    mac: Mac,
) -> Result<(), Refusal> {
    match table.get(address) {
        None => Ok(()),
        Some(lease) if lease.state == LeaseState::Declined => Err(Refusal::Quarantined),
        Some(lease) if lease.mac == mac || !lease.is_held() || !lease.is_bound() => Ok(()),
        Some(lease) if config.reserved_for(address).contains(&lease.mac) => Ok(()),
        Some(_) => Err(Refusal::Held),
    }
}

/// The reserved address of the client on this network, if one is free for it.
fn reservation(config: &Config, table: &Table, asker: Asker) -> Option<(Ipv4Addr, usize)> {
    config
        .reservations_of(asker.mac)
        .iter()
        .filter(|reserved| config.subnets[reserved.subnet].network == asker.network)
        .find(|reserved| reserved_is_free(config, table, reserved.address, asker.mac).is_ok())
        .map(|reserved| (reserved.address, reserved.subnet))
}

/// The pool that an address belongs to, if it is one of this network's.
fn pool_here(config: &Config, network: usize, address: Ipv4Addr) -> Option<usize> {
    config
        .pool_of(address)
        .filter(|&subnet| config.subnets[subnet].network == network)
}

/// Picks an address to offer, with its subnet: the reservation, the address the client has, the one it had,
/// the one it wishes for, one that nobody ever had, the one that nobody has had for longest.
pub(crate) fn choose(
    config: &Config,
    table: &Table,
    asker: Asker,
    wish: Option<Ipv4Addr>,
) -> Option<(Ipv4Addr, usize)> {
    if let Some(reserved) = reservation(config, table, asker) {
        return Some(reserved);
    }
    let rank = |lease: &Lease| (lease.is_bound(), lease.is_held(), lease.expires);
    let own = table
        .of_mac(asker.mac)
        .filter_map(|(address, lease)| {
            Some((
                rank(lease),
                address,
                pool_here(config, asker.network, address)?,
            ))
        })
        .max();
    if let Some((_, address, subnet)) = own {
        return Some((address, subnet));
    }
    if let Some(address) = wish
        && let Some(subnet) = pool_here(config, asker.network, address)
        && table.get(address).is_none_or(|lease| !lease.is_held())
    {
        return Some((address, subnet));
    }
    let others = config.networks[asker.network].subnets.iter().copied();
    let subnets = || {
        asker.prefer.into_iter().chain(
            others
                .clone()
                .filter(|&subnet| Some(subnet) != asker.prefer),
        )
    };
    let fresh =
        subnets().find_map(|subnet| Some((table.fresh(config.subnets[subnet].id)?, subnet)));
    fresh.or_else(|| {
        subnets()
            .filter_map(|subnet| Some((table.reusable(config.subnets[subnet].id)?, subnet)))
            .min_by_key(|&((died, _), _)| died)
            .map(|((_, address), subnet)| (address, subnet))
    })
}

/// Whether the client may have this address now; its subnet if so.
pub(crate) fn claim(
    config: &Config,
    table: &Table,
    asker: Asker,
    address: Ipv4Addr,
) -> Result<usize, Refusal> {
    let subnet = config
        .subnet_in(asker.network, address)
        .ok_or(Refusal::NotOnNetwork)?;
    if config.is_own(address) || is_network_address(config.subnets[subnet].cidr, address) {
        return Err(Refusal::TakenByNetwork);
    }
    let reserved_for = config.reserved_for(address);
    if reserved_for.contains(&asker.mac) {
        return reserved_is_free(config, table, address, asker.mac).map(|()| subnet);
    }
    if !reserved_for.is_empty() {
        return Err(Refusal::ReservedForOther);
    }
    if reservation(config, table, asker).is_some() {
        return Err(Refusal::ReservedElsewhere);
    }
    let subnet = pool_here(config, asker.network, address).ok_or(Refusal::NotDynamic)?;
    match table.get(address) {
        Some(lease) if lease.state == LeaseState::Declined => Err(Refusal::Quarantined),
        Some(lease) if lease.is_held() && lease.mac != asker.mac => Err(Refusal::Held),
        _ => Ok(subnet),
    }
}
