//! Looking for DHCP servers that are not ours, and what follows from one.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use metal::MacAddr;
use tokio::time::Instant;
use wire_dhcp::probe::{self, ProbeAnswer};
use wire_dhcp::raw::{self as frames, Envelope};
use wire_dhcp::{CLIENT_PORT, Mac, SERVER_PORT};

use crate::raw::{FRAME_MAX, OpenError, PacketSocket};

/// How a search goes and when it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Questions that are sent.
    pub questions: u32,
    /// Time between two of them.
    pub between: Duration,
    /// How long answers are waited for after the last. Some servers first look for three seconds whether
    /// anyone uses the address that they are about to offer.
    pub listen: Duration,
    /// Time until the next search where all was clear.
    pub when_clear: Duration,
    /// Time until the next search where another server was found, or the search failed.
    pub when_not: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            questions: 3,
            between: Duration::from_millis(1_000),
            listen: Duration::from_millis(2_000),
            when_clear: Duration::from_secs(600),
            when_not: Duration::from_secs(60),
        }
    }
}

/// What a search came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Servers of strangers.
    pub foreign: BTreeSet<Ipv4Addr>,
    /// Servers of ours, other than this rack.
    pub partners: BTreeSet<Ipv4Addr>,
}

/// A search could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// No socket.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The question could not be written.
    #[error("the DHCP probe cannot be made")]
    Probe(#[from] probe::ProbeError),
    /// The question could not be framed.
    #[error("the DHCP probe cannot be framed")]
    Frame(#[from] frames::FrameError),
    /// The question could not be sent.
    #[error("the DHCP probe cannot be sent")]
    Send(#[source] std::io::Error),
}

impl SearchError {
    /// As a part of the service's state.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Open(error) => Failure {
                sentence: error.sentence(),
                is_privilege: error.is_privilege(),
            },
            Self::Probe(_) | Self::Frame(_) => Failure {
                sentence: self.to_string(),
                is_privilege: false,
            },
            Self::Send(cause) => Failure {
                sentence: format!("{self}: {cause}"),
                is_privilege: false,
            },
        }
    }
}

/// Why something could not be done, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The sentence.
    pub sentence: String,
    /// Whether only a missing privilege is in the way.
    pub is_privilege: bool,
}

/// Where a search is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Kernel index of the interface.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Servers that are no strangers.
    pub ours: Vec<Ipv4Addr>,
}

/// Asks for an address as a boot ROM would, and takes none. Returns early when a stranger has answered.
/// `xid` is a random number. Cancel-safe: yes.
///
/// # Errors
/// [`SearchError`] when nothing could be asked.
pub async fn search(place: &Place, timing: Timing, xid: u32) -> Result<Found, SearchError> {
    let socket = PacketSocket::open(place.index, &place.name, CLIENT_PORT)?;
    let mac = Mac(place.mac.0);
    let envelope = Envelope {
        src_mac: mac,
        dst_mac: Mac::BROADCAST,
        src: std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
        dst: std::net::SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT),
    };
    let question = frames::build(&envelope, &probe::discover(mac, xid)?)?;
    let mut found = Found::default();
    let mut buffer = vec![0; FRAME_MAX];
    for left in (0..timing.questions.max(1)).rev() {
        socket.send(&question).map_err(SearchError::Send)?;
        let wait = if left == 0 {
            timing.listen
        } else {
            timing.between
        };
        let until = Instant::now() + wait;
        while let Ok(received) = tokio::time::timeout_at(until, socket.receive(&mut buffer)).await {
            let frame = received.map_err(SearchError::Send)?;
            let Ok(datagram) = frames::parse(&buffer[..frame.len]) else {
                continue;
            };
            let sender = *datagram.envelope.src.ip();
            match probe::inspect(datagram.payload, sender, mac, xid, &place.ours) {
                ProbeAnswer::Foreign(server) => {
                    found.foreign.insert(server.server);
                }
                ProbeAnswer::Ours(server) => {
                    found.partners.insert(server);
                }
                ProbeAnswer::Unrelated(_) => {}
            }
        }
        if !found.foreign.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// What is known of an interface's neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not searched yet.
    Unknown,
    /// The search could not be made.
    Failed(Failure),
    /// Nobody else serves here.
    Clear,
    /// A stranger does.
    Foreign(Ipv4Addr),
    /// The VLAN's other rack does.
    Partner(Ipv4Addr),
}

impl Verdict {
    /// What a search means for a link.
    #[must_use]
    pub fn of(found: &Found) -> Self {
        match (found.foreign.first(), found.partners.first()) {
            (Some(server), _) => Self::Foreign(*server),
            (None, Some(partner)) => Self::Partner(*partner),
            (None, None) => Self::Clear,
        }
    }

    /// When to search again.
    #[must_use]
    pub fn again_after(&self, timing: Timing) -> Duration {
        match self {
            Self::Clear => timing.when_clear,
            Self::Unknown | Self::Failed(_) | Self::Foreign(_) | Self::Partner(_) => {
                timing.when_not
            }
        }
    }
}
