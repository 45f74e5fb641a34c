//! The configuration as the rack states it: plain data, nothing checked yet.
//!
//! [`crate::Config::compile`] turns it into what the engine works with and says what it had to leave out.

use crate::types::{LinkId, Mac, SubnetId};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Lease time in seconds where a subnet does not say otherwise (reference: ISC dhcpd default of MAAS).
pub const LEASE_TIME_DEFAULT_S: u32 = 600;
/// Lease time in seconds for boot ROMs, recognised by a vendor class that starts with `PXE`.
pub const PXE_LEASE_TIME_DEFAULT_S: u32 = 30;
/// Seconds an offered address is kept for the client that it was offered to. Firmware retries for about 60.
pub const OFFER_HOLD_DEFAULT_S: u32 = 60;
/// Seconds a declined address is left alone.
pub const QUARANTINE_DEFAULT_S: u32 = 600;
/// TCP port of the rack's boot file service.
pub const HTTP_PORT_DEFAULT: u16 = 5248;
/// Packets a client may send at once. A network boot with three DHCP stages and retries stays below 24.
pub const RATE_BURST_DEFAULT: u32 = 40;
/// Packets per second a client may keep sending.
pub const RATE_PER_SECOND_DEFAULT: u32 = 5;

/// Everything the engine needs to know from the region.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// One entry for each network interface that requests may come in on.
    pub links: Vec<Link>,
    /// Fixed addresses of known network cards, over all subnets.
    pub reservations: Vec<Reservation>,
    /// What is the same everywhere.
    pub settings: Settings,
}

/// Values that hold for every network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// TCP port in the `http://RACK:port/` of boot files.
    pub http_port: u16,
    /// Lease time in seconds of subnets that state none.
    pub lease_time_s: u32,
    /// Longest lease time in seconds for boot ROMs.
    pub pxe_lease_time_s: u32,
    /// Seconds an offered address is held.
    pub offer_hold_s: u32,
    /// Seconds a declined address is not given out.
    pub quarantine_s: u32,
    /// Packets one client may send at once before it is ignored.
    pub rate_burst: u32,
    /// Packets per second one client may send on the long run.
    pub rate_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            http_port: HTTP_PORT_DEFAULT,
            lease_time_s: LEASE_TIME_DEFAULT_S,
            pxe_lease_time_s: PXE_LEASE_TIME_DEFAULT_S,
            offer_hold_s: OFFER_HOLD_DEFAULT_S,
            quarantine_s: QUARANTINE_DEFAULT_S,
            rate_burst: RATE_BURST_DEFAULT,
            rate_per_second: RATE_PER_SECOND_DEFAULT,
        }
    }
}

/// A VLAN the rack has an interface in, with the VLANs that are relayed to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The interface.
    pub id: LinkId,
    /// The rack's own addresses on this interface; the first is the DHCP server identifier.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether DHCP is on for the VLAN. Off means that not one packet is answered.
    pub dhcp_on: bool,
    /// Subnets on the wire itself.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// VLANs whose relay agents send to this rack.
    #[serde(default)]
    pub relayed: Vec<Relayed>,
}

/// A VLAN behind a relay agent. It is served when DHCP is on for the link that it is relayed to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relayed {
    /// Addresses of the relay agents where these lie outside of the subnets. Others are found by subnet.
    #[serde(default)]
    pub giaddrs: Vec<Ipv4Addr>,
    /// Subnets of the VLAN.
    pub subnets: Vec<Subnet>,
}

/// An IPv4 subnet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    /// The region's number.
    pub id: SubnetId,
    /// Network and prefix length.
    pub cidr: Ipv4Net,
    /// Default router (option 3).
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers (option 6).
    #[serde(default)]
    pub dns_servers: Vec<Ipv4Addr>,
    /// Domain name (option 15).
    #[serde(default)]
    pub domain_name: Option<String>,
    /// Search list (option 119).
    #[serde(default)]
    pub search: Vec<String>,
    /// Time servers (option 42).
    #[serde(default)]
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Interface MTU in bytes (option 26); sent when it is not 1500.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Addresses for anyone who asks.
    #[serde(default)]
    pub dynamic: Vec<Range>,
    /// Addresses never given out from a dynamic range. Reservations inside them still hold.
    #[serde(default)]
    pub excluded: Vec<Range>,
    /// Lease time in seconds; the settings' one where absent.
    #[serde(default)]
    pub lease_time_s: Option<u32>,
    /// Names of boot methods that are left out (`disabled_boot_architectures`), see [`crate::boot`].
    #[serde(default)]
    pub disabled_boot_methods: Vec<String>,
}

impl Subnet {
    /// A subnet with nothing but its number and network.
    pub fn new(id: SubnetId, cidr: Ipv4Net) -> Subnet {
        Subnet {
            id,
            cidr,
            gateway: None,
            dns_servers: Vec::new(),
            domain_name: None,
            search: Vec::new(),
            ntp_servers: Vec::new(),
            mtu: None,
            dynamic: Vec::new(),
            excluded: Vec::new(),
            lease_time_s: None,
            disabled_boot_methods: Vec::new(),
        }
    }
}

/// A range of addresses; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Lowest address.
    pub first: Ipv4Addr,
    /// Highest address.
    pub last: Ipv4Addr,
}

/// A fixed address. Several cards may share one (the members of a bond), and one card may have an address
/// in each of several VLANs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// The network card.
    pub mac: Mac,
    /// Its address, which says which subnet is meant.
    pub address: Ipv4Addr,
    /// Host name told to clients that ask for one (option 12).
    #[serde(default)]
    pub hostname: Option<String>,
}
