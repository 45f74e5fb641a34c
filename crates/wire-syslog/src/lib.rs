//! Syslog as machines send it while they boot and install: RFC 5424 and RFC 3164 messages, in
//! datagrams (RFC 5426) or on a stream (RFC 6587, octet counting or one per line).
//!
//! Nothing is refused: what cannot be understood is kept as text. This crate must never know
//! about sockets, files, the clock or which machine a message came from; a hostname in a message
//! is what the sender claims, and time stamps stay text, because the clock of a machine that has
//! just been powered on says little.
//!
//! Start reading at [`Message::parse`]; [`Framer`] cuts a TCP stream into messages.
//!
//! ```
//! use wire_syslog::{Message, Severity};
//!
//! let message = Message::parse(b"<30>Aug 11 10:00:01 node1 cloud-init[812]: Cloud-init v. 24.1 running");
//! assert_eq!(message.severity(), Some(Severity::Info));
//! assert_eq!(message.hostname.as_deref(), Some("node1"));
//! assert_eq!(message.app.as_deref(), Some("cloud-init"));
//! assert_eq!(message.pid.as_deref(), Some("812"));
//! assert_eq!(message.text, "Cloud-init v. 24.1 running");
//! ```

#![forbid(unsafe_code)]

mod framer;
mod message;
mod priority;

pub use framer::{Frame, Framer};
pub use message::{FIELD_MAX, Format, MESSAGE_MAX, Message};
pub use priority::{Facility, Priority, Severity};
