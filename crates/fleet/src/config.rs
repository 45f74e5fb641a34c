//! How a fleet is made and how fast it lives.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::hardware::Firmware;

/// Most machines of one fleet: their numbers fill two bytes of a MAC address.
pub const MACHINES_MAX: usize = 65_535;
/// First address of machines that boot over loopback.
pub const LOOPBACK_FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// How machines reach their rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// No DHCP: the loader asks the rack for `ipxe.cfg` at once, from a loopback address of its own. Needs no
    /// privilege on Linux, where all of 127.0.0.0/8 is local.
    LoopbackHttp {
        /// The rack's boot HTTP server.
        rack: SocketAddr,
        /// Address of the first machine; the others follow.
        first: Ipv4Addr,
    },
    /// Real DHCP in raw frames on an interface, TFTP and HTTP from the leased address. Needs `CAP_NET_RAW`
    /// and `CAP_NET_ADMIN` (leased addresses are put on the interface), so it wants a network namespace.
    /// The interface must be up and have a route to the rack.
    Raw {
        /// The interface on the machines' network.
        interface: String,
    },
}

impl Network {
    /// Loopback, with the usual addresses.
    #[must_use]
    pub const fn loopback(rack: SocketAddr) -> Self {
        Self::LoopbackHttp {
            rack,
            first: LOOPBACK_FIRST,
        }
    }
}

/// How much of kernels, initrds and images is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Every byte, hashed where the hash is known.
    Full,
    /// Of each file the first [`LIGHT_BYTES`] only, with a `Range` header: for fleets that measure something else.
    Light,
}

/// Bytes of a file that [`Transfer::Light`] fetches.
pub const LIGHT_BYTES: u64 = 4_096;

/// How long things take. Zero is allowed everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Power-on self test.
    pub post: Duration,
    /// Starting a loader or a kernel.
    pub load: Duration,
    /// Starting a system, ephemeral or installed.
    pub boot: Duration,
    /// One script.
    pub script: Duration,
    /// One step of an installation.
    pub step: Duration,
    /// Shutting down when asked to.
    pub shutdown: Duration,
    /// Until a loader without an image, or firmware without an answer, tries again.
    pub retry: Duration,
}

impl Timing {
    /// As fast as the product allows: for tests.
    #[must_use]
    pub const fn none() -> Self {
        let zero = Duration::ZERO;
        Self {
            post: zero,
            load: zero,
            boot: zero,
            script: zero,
            step: zero,
            shutdown: zero,
            retry: Duration::from_millis(50),
        }
    }

    /// Slow enough for a person to watch, fast enough not to be waited for.
    #[must_use]
    pub const fn watchable() -> Self {
        Self {
            post: Duration::from_secs(1),
            load: Duration::from_millis(500),
            boot: Duration::from_millis(1_500),
            script: Duration::from_millis(300),
            step: Duration::from_millis(400),
            shutdown: Duration::from_secs(1),
            retry: Duration::from_secs(5),
        }
    }
}

/// How long a request is repeated while the rack or its region is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Wait after the first failure; it doubles with each further one.
    pub first: Duration,
    /// Longest wait between two tries.
    pub most: Duration,
    /// Time after the first try when no further try is made.
    pub limit: Duration,
}

impl Default for Patience {
    /// The agent's own limit, with the waits of someone who looks on.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            most: Duration::from_secs(2),
            limit: Duration::from_secs(30 * 60),
        }
    }
}

/// Where the BMCs are and who may use them.
#[derive(Clone)]
pub struct BmcSettings {
    /// Where they listen; all have one address and ports of their own.
    pub address: Ipv4Addr,
    /// Port of the first BMC, the others follow; none lets the system choose them all.
    pub first_port: Option<u16>,
    /// User.
    pub user: String,
    /// Password, at most 20 bytes.
    pub password: String,
}

impl fmt::Debug for BmcSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BmcSettings")
            .field("address", &self.address)
            .field("first_port", &self.first_port)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Default for BmcSettings {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST,
            first_port: None,
            user: "maas".into(),
            password: "simulated".into(),
        }
    }
}

/// A fleet to be started.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// How many machines, at most [`MACHINES_MAX`].
    pub count: usize,
    /// The same seed makes the same machines.
    pub seed: u64,
    /// How they reach their rack.
    pub network: Network,
    /// Their BMCs.
    pub bmc: BmcSettings,
    /// Their firmware, in turn. Over loopback there is no DHCP to tell what to load: all are iPXE then.
    pub firmware: Vec<Firmware>,
    /// How fast they live.
    pub timing: Timing,
    /// How long they repeat requests.
    pub patience: Patience,
    /// How often firmware asks for an address or a first file before it boots the disk.
    pub boot_tries: u32,
    /// How much they fetch.
    pub transfer: Transfer,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time between renewals of a lease; none is half of the lease, as the protocol has it.
    pub renew_every: Option<Duration>,
}

impl FleetConfig {
    /// A fleet as fast as possible.
    #[must_use]
    pub fn new(count: usize, network: Network) -> Self {
        Self {
            count,
            seed: 1,
            network,
            bmc: BmcSettings::default(),
            firmware: vec![
                Firmware::IpxeBios,
                Firmware::Bios,
                Firmware::Uefi,
                Firmware::UefiHttp,
                Firmware::IpxeUefi,
            ],
            timing: Timing::none(),
            patience: Patience::default(),
            boot_tries: 5,
            transfer: Transfer::Full,
            heartbeat: Duration::from_secs(120),
            renew_every: None,
        }
    }
}
