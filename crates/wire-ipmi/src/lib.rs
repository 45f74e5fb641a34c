//! IPMI over LAN without I/O: the console side that switches machines on and off ([`client`]) and the
//! BMC side that answers it ([`bmc`]), for IPMI 1.5 sessions and for IPMI 2.0 (RMCP+) sessions.
//!
//! Bytes and time go in, actions come out. The crate must never know about sockets, threads, the wall
//! clock, where randomness comes from, machines, or the rest of the product: a caller hands in a seed
//! and an [`std::time::Instant`], sends what it is told to send and calls back with what arrived.
//!
//! Where to start reading: [`client::Client::handle`] and [`bmc::Bmc::handle`]; below them, from the
//! wire upwards:
//!
//! * [`packet`]: the datagram (RMCP header, IPMI 1.5 and 2.0 session headers, ASF presence ping);
//! * [`rakp`]: the messages that open an IPMI 2.0 session, and the keys they agree on;
//! * [`message`]: the IPMI message inside (addresses, checksums, completion code);
//! * [`command`]: the commands this product uses, both ways;
//! * `channel`: a live session, that is keys, sequence numbers and the window against replays.
//!
//! Source of all wire facts: "IPMI – Intelligent Platform Management Interface Specification, Second
//! Generation, v2.0" (called *spec* in this crate, with its section numbers), and the behaviour of
//! `ipmitool`, FreeIPMI and OpenIPMI's `ipmi_sim` on the wire.

#![forbid(unsafe_code)]

pub mod bmc;
mod channel;
pub mod client;
pub mod command;
pub mod completion;
mod crypto;
pub mod drops;
pub mod message;
pub mod packet;
pub mod rakp;
pub mod secret;
pub mod suite;
#[cfg(test)]
mod vectors;

pub use channel::{SeqWindow, WINDOW_AHEAD, WINDOW_BEHIND};
pub use drops::{DropCounts, DropReason};
pub use secret::{KgError, Secret};
pub use suite::Suite;

/// The UDP port of a BMC (spec §13.1.2, "primary RMCP port").
pub const PORT: u16 = 623;
