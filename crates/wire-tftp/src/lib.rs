//! The Trivial File Transfer Protocol as boot firmware speaks it: a read-only server and a small
//! client, both as state machines.
//!
//! RFC 1350 (protocol), 2347 (options), 2348 (`blksize`), 2349 (`timeout`, `tsize`),
//! 7440 (`windowsize`).
//!
//! Bytes and time go in, actions come out. This crate must never know about sockets, timers,
//! files or the clock: the caller owns the UDP socket of each transfer, looks at
//! [`Transfer::deadline`], answers [`Action::Read`] with the bytes of its file, and drops
//! datagrams from another port than the one that asked (answering with
//! [`unknown_transfer_reply`]).
//!
//! Start reading at [`ReadRequest::parse`], then [`Transfer::begin`] and [`Transfer::handle`].
//! [`client::Fetch`] is the other side.
//!
//! ```
//! use std::time::Instant;
//! use wire_tftp::{Action, Input, Limits, ReadRequest, Transfer};
//!
//! let now = Instant::now();
//! let request = ReadRequest::parse(b"\x00\x01/lpxelinux.0\0octet\0").expect("well formed");
//! assert_eq!(request.filename, "lpxelinux.0");
//! let file = b"a boot loader";
//! let (mut transfer, actions) = Transfer::begin(&request, file.len() as u64, &Limits::default(), now);
//! assert_eq!(actions, [Action::Read { offset: 0, len: 13 }]);
//! let actions = transfer.handle(Input::Data { offset: 0, bytes: file }, now);
//! assert_eq!(actions, [Action::Send(b"\x00\x03\x00\x01a boot loader".to_vec())]);
//! ```

#![forbid(unsafe_code)]

pub mod client;
mod limits;
mod netascii;
mod packet;
mod request;
mod transfer;

pub use limits::{
    BLKSIZE_DEFAULT, BLKSIZE_MAX, BLKSIZE_MIN, Limits, TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN,
};
pub use packet::{ErrorCode, MESSAGE_MAX, Malformed, NameValue, Opcode, Packet, error_reply};
pub use request::{
    FILENAME_MAX, Mode, OPTIONS_MAX, REQUEST_MAX, ReadRequest, Refusal, RefusalReason,
};
pub use transfer::{
    Action, FailReason, Ignored, IgnoredCounts, Input, Negotiated, Summary, Transfer,
};

/// The answer to a datagram that reached a transfer's socket from a port that has no part in it
/// (RFC 1350 §4). The transfer itself goes on undisturbed.
#[must_use]
pub fn unknown_transfer_reply() -> Vec<u8> {
    error_reply(
        ErrorCode::UnknownTransfer,
        "this port has no transfer with you",
    )
}
