//! The syslog receiver.
