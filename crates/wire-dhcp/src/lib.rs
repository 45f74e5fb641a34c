//! The DHCPv4 server engine: packets and time in, [`Action`]s out.
//!
//! **For**: deciding what a rack says to DHCP clients. Addresses are held from the OFFER on, leases are
//! handed to the caller for durable storage before the ACK that promises them, and boot files follow the
//! firmware's architecture.
//!
//! **Must never know about**: sockets, files, clocks, random numbers, the region, the database. The caller
//! passes bytes and a [`Timestamp`], performs the actions in their order, and swaps in a new [`Config`]
//! whenever the region changed something.
//!
//! **Start reading** at [`Engine::handle`]; then `engine/request.rs` for the RFC 2131 cases, `assign.rs` for
//! which address a client gets, `table.rs` for how leases are kept, [`boot`] for boot files, and
//! [`record`] for what is written to disk.
//!
//! The packet codec is `dhcproto`: requests are read through its borrowed view, which looks at one option at
//! a time, so that one malformed option (a hostname that is not UTF-8, say) costs that option and not all
//! that follow it. Replies are written by `reply.rs`, because order and size matter to boot ROMs
//! (message type first, relay information last, cut to what the client can take) and the owned codec sorts
//! options by number. The tests read every reply back through `dhcproto`.
//!
//! DHCPv6, proxyDHCP and failover are not here yet. They are separate engines over the same [`Config`]
//! and lease table: `handle` picks the network, `assign` picks the address, `respond` builds the reply, and
//! each can be replaced alone.

pub mod boot;
pub mod config;
pub mod engine;
pub mod probe;
pub mod raw;
pub mod record;
pub mod spec;
pub mod stats;

mod assign;
mod free_set;
mod rate_limit;
mod reply;
mod request;
mod table;
mod types;

pub use config::{Config, ConfigProblem};
pub use engine::{Action, Dest, Dropped, Engine, Observation, ObservedKind, Outgoing, Received};
pub use record::{LeaseRecord, RecordState};
pub use request::ClientInfo;
pub use stats::{DropReason, Stats};
pub use table::{LeaseState, LeaseView};
pub use types::{LinkId, Mac, ParseMacError, SubnetId, Timestamp};

/// UDP port of DHCP servers and relay agents (RFC 2131 §4.1).
pub const SERVER_PORT: u16 = 67;
/// UDP port of DHCP clients (RFC 2131 §4.1).
pub const CLIENT_PORT: u16 = 68;
