//! The protocol between region and rack: typed, versioned messages, and what carries them.
//!
//! In the all-in-one the messages pass in process ([`port::Region`] implemented by the region itself);
//! with region and rack apart they cross one TLS connection with certificates on both sides ([`tls`]).
//! `link` knows neither the database nor a socket of the services.
//!
//! Start reading at [`port`], then [`snapshot`] (what a rack is told) and [`message`] (what it tells).

#![forbid(unsafe_code)]

pub mod message;
pub mod port;
pub mod snapshot;
pub mod tls;

/// Version of the messages. A region serves racks of its own version and of the one before.
pub const VERSION: u32 = 1;
/// The oldest version that a region still serves. There was none before the first.
pub const OLDEST: u32 = if VERSION > 1 { VERSION - 1 } else { 1 };
/// Most bytes of one message.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Whether a region serves a rack that speaks this version. A rack that is newer than its region is
/// refused: regions are upgraded first.
#[must_use]
pub const fn is_served(rack: u32) -> bool {
    OLDEST <= rack && rack <= VERSION
}
