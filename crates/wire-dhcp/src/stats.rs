//! Counters, and why packets are dropped.

/// Why a packet was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than a BOOTP header and the magic cookie, or without the cookie.
    Malformed,
    /// Not a BOOTREQUEST.
    NotARequest,
    /// No message type: plain BOOTP.
    NotDhcp,
    /// A message type that servers do not get, or that this one does not speak.
    UnsupportedType,
    /// Hardware that is not Ethernet, or an address length that does not fit.
    UnsupportedHardware,
    /// The hardware address is zero or a group address.
    BadHardwareAddress,
    /// The client sends faster than it may.
    RateLimited,
    /// It came in on an interface that is not configured.
    UnknownLink,
    /// Relayed from a network that is not configured.
    UnknownRelay,
    /// DHCP is off for the network.
    DhcpOff,
    /// The relay agent's address is one of our own.
    RelayIsSelf,
    /// The client takes another server's offer, or addresses another server.
    OtherServer,
    /// A REQUEST without any address.
    NoAddressNamed,
    /// An address that lies in no subnet of the network, in a message that may not be refused.
    WrongNetwork,
    /// Every address of the network is held, and the client has no reservation.
    NoFreeAddress,
    /// The lease table is at its bound and nothing in it can be forgotten.
    TableFull,
    /// RELEASE or DECLINE of an address that the client does not hold.
    NotTheHolder,
}

impl DropReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [DropReason; 17] = [
        DropReason::Malformed,
        DropReason::NotARequest,
        DropReason::NotDhcp,
        DropReason::UnsupportedType,
        DropReason::UnsupportedHardware,
        DropReason::BadHardwareAddress,
        DropReason::RateLimited,
        DropReason::UnknownLink,
        DropReason::UnknownRelay,
        DropReason::DhcpOff,
        DropReason::RelayIsSelf,
        DropReason::OtherServer,
        DropReason::NoAddressNamed,
        DropReason::WrongNetwork,
        DropReason::NoFreeAddress,
        DropReason::TableFull,
        DropReason::NotTheHolder,
    ];

    /// A short name for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::NotARequest => "not_a_request",
            DropReason::NotDhcp => "not_dhcp",
            DropReason::UnsupportedType => "unsupported_type",
            DropReason::UnsupportedHardware => "unsupported_hardware",
            DropReason::BadHardwareAddress => "bad_hardware_address",
            DropReason::RateLimited => "rate_limited",
            DropReason::UnknownLink => "unknown_link",
            DropReason::UnknownRelay => "unknown_relay",
            DropReason::DhcpOff => "dhcp_off",
            DropReason::RelayIsSelf => "relay_is_self",
            DropReason::OtherServer => "other_server",
            DropReason::NoAddressNamed => "no_address_named",
            DropReason::WrongNetwork => "wrong_network",
            DropReason::NoFreeAddress => "no_free_address",
            DropReason::TableFull => "table_full",
            DropReason::NotTheHolder => "not_the_holder",
        }
    }
}

/// What the engine has counted since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets handed in.
    pub received: u64,
    /// OFFERs sent.
    pub offers: u64,
    /// ACKs sent for a lease.
    pub acks: u64,
    /// ACKs sent for an INFORM.
    pub inform_acks: u64,
    /// NAKs sent.
    pub naks: u64,
    /// RELEASEs honoured.
    pub releases: u64,
    /// DECLINEs honoured.
    pub declines: u64,
    /// Leases that ran out.
    pub expirations: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// Packets dropped for that reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        let mut stats = Stats::default();
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            stats.count_drop(reason);
            assert_eq!(stats.dropped(reason), 1);
        }
    }
}
