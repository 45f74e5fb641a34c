//! The BMC side: a fake BMC that stock consoles (`ipmitool`, FreeIPMI, this crate's client) can talk to.
//!
//! It keeps a power state and boot flags, and tells its owner what a console asked for. Commands that take
//! effect at once change the power state here; a soft shutdown only is an [`BmcAction::Chassis`], and the
//! owner calls [`Bmc::set_power`] when the machine has gone down. Everything a stranger can fill up is
//! bounded: half-open logins push out the oldest, sessions are refused when there are too many.

mod config;
mod serve;
mod session;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::command::{BootFlags, ChassisControl, Power};
use crate::drops::{DropCounts, DropReason};
use crate::packet::{self, Asf, AuthType, Datagram, PayloadType, V15};

pub use config::{BmcConfig, PerMessageAuth, SuiteListing, SuiteRefusal, User};
use session::{Challenge, Handshake, Session};

/// Logins that may be half done at once; a further one pushes out the oldest.
pub const HALF_OPEN_MAX: usize = 16;
/// A half done login is forgotten after this.
pub const HALF_OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Boot flags count only if a chassis command follows within this time (spec table 28-14, parameter 3).
pub const BOOT_FLAGS_LIMIT: Duration = Duration::from_secs(60);

/// What the owner of the BMC has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcAction {
    /// Send a datagram.
    Send {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// A console switched the machine.
    Chassis(ChassisControl),
    /// A console set the boot flags.
    BootDevice(BootFlags),
}

/// A fake BMC.
#[derive(Debug)]
pub struct Bmc {
    config: BmcConfig,
    rng: StdRng,
    power: Power,
    boot: BootFlags,
    boot_set_at: Option<Instant>,
    /// Parameter 3: which events leave the boot flags valid.
    boot_keep: u8,
    boot_progress: u8,
    boot_acknowledge: [u8; 2],
    challenges: Vec<Challenge>,
    handshakes: Vec<Handshake>,
    sessions: Vec<Session>,
    dropped: DropCounts,
}

impl Bmc {
    /// A BMC. `seed` must differ between BMCs; session numbers and random numbers are drawn from it.
    pub fn new(config: BmcConfig, seed: [u8; 32]) -> Bmc {
        Bmc {
            power: config.power,
            config,
            rng: StdRng::from_seed(seed),
            boot: BootFlags::NONE,
            boot_set_at: None,
            boot_keep: 0,
            boot_progress: 0,
            boot_acknowledge: [0; 2],
            challenges: Vec::new(),
            handshakes: Vec::new(),
            sessions: Vec::new(),
            dropped: DropCounts::default(),
        }
    }

    /// Takes a datagram and says what to do.
    pub fn handle(&mut self, bytes: &[u8], peer: SocketAddr, now: Instant) -> Vec<BmcAction> {
        self.forget(now);
        let mut out = Vec::new();
        if let Err(reason) = self.on_packet(bytes, peer, now, &mut out) {
            self.dropped.add(reason);
        }
        out
    }

    /// The power state.
    pub fn power(&self) -> Power {
        self.power
    }

    /// Says that the machine has gone on or off by itself.
    pub fn set_power(&mut self, power: Power) {
        self.power = power;
    }

    /// The boot flags as they stand.
    pub fn boot_flags(&self) -> BootFlags {
        self.boot
    }

    /// The boot flags for a boot that begins now: flags for one boot are gone afterwards.
    pub fn take_boot(&mut self) -> BootFlags {
        let flags = self.boot;
        if !flags.persistent {
            self.boot = BootFlags::NONE;
            self.boot_set_at = None;
        }
        if flags.valid { flags } else { BootFlags::NONE }
    }

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Which datagrams were dropped, and why.
    pub fn dropped(&self) -> &DropCounts {
        &self.dropped
    }

    /// Drops what has been idle for too long.
    fn forget(&mut self, now: Instant) {
        let idle = self.config.session_idle;
        self.sessions
            .retain(|s| now.saturating_duration_since(s.last_used) < idle);
        self.handshakes
            .retain(|h| now.saturating_duration_since(h.begun) < HALF_OPEN_LIMIT);
        self.challenges
            .retain(|c| now.saturating_duration_since(c.given) < HALF_OPEN_LIMIT);
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A session number that is neither 0 nor in use.
    fn fresh_session(&mut self) -> u32 {
        loop {
            let number = self.rng.next_u32();
            let taken = self.sessions.iter().any(|s| s.number == number)
                || self.handshakes.iter().any(|h| h.bmc_session == number)
                || self.challenges.iter().any(|c| c.session == number);
            if number != 0 && !taken {
                return number;
            }
        }
    }

    fn on_packet(
        &mut self,
        bytes: &[u8],
        peer: SocketAddr,
        now: Instant,
        out: &mut Vec<BmcAction>,
    ) -> Result<(), DropReason> {
        let reply = match packet::parse(bytes)? {
            Datagram::Asf(Asf::Ping { tag }) => packet::encode_asf(Asf::Pong { tag, ipmi: true }),
            Datagram::Asf(Asf::Pong { .. }) => return Err(DropReason::OtherAsf),
            Datagram::V15(packet) if packet.session == 0 => {
                if packet.auth != AuthType::None {
                    return Err(DropReason::AuthType);
                }
                let payload = self.outside(packet.payload, peer, now)?;
                packet::encode_v15(&V15 {
                    auth: AuthType::None,
                    sequence: 0,
                    session: 0,
                    code: None,
                    payload: &payload,
                })
            }
            Datagram::V15(packet) => self.inside_v15(&packet, peer, now, out)?,
            Datagram::V20(_) if self.config.suites.is_empty() => return Err(DropReason::AuthType),
            Datagram::V20(packet) if packet.session == 0 => {
                if packet.encrypted || packet.authenticated {
                    return Err(DropReason::Session);
                }
                match packet.payload_type {
                    PayloadType::Ipmi => packet::encode_v20_plain(
                        PayloadType::Ipmi,
                        &self.outside(packet.payload, peer, now)?,
                    ),
                    PayloadType::OpenRequest => self.on_open(packet.payload, peer, now)?,
                    PayloadType::Rakp1 => self.on_rakp1(packet.payload, peer)?,
                    PayloadType::Rakp3 => self.on_rakp3(packet.payload, peer, now)?,
                    PayloadType::OpenResponse
                    | PayloadType::Rakp2
                    | PayloadType::Rakp4
                    | PayloadType::Other(_) => {
                        return Err(DropReason::PayloadType);
                    }
                }
            }
            Datagram::V20(packet) => self.inside_v20(&packet, peer, now, out)?,
        };
        out.push(BmcAction::Send {
            to: peer,
            bytes: reply,
        });
        Ok(())
    }
}
