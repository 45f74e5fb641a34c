//! A running rack.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The HTTP port that machines boot from.
pub const HTTP_PORT: u16 = 5248;

/// How a rack runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where snapshot, spool and image cache are kept.
    pub data_dir: PathBuf,
    /// Where the boot HTTP server listens.
    pub http_listen: Vec<SocketAddr>,
    /// Host name, for the region.
    pub hostname: String,
    /// Services to run.
    pub enable: Enable,
}

/// Which services a rack runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enable {
    /// DHCP (needs raw sockets), served only where the snapshot says so.
    pub dhcp: bool,
    /// TFTP.
    pub tftp: bool,
    /// HTTP boot.
    pub http: bool,
    /// The syslog receiver.
    pub syslog: bool,
    /// Router advertisements, sent only where the snapshot says so.
    pub ra: bool,
}

impl Config {
    /// The defaults for a data directory: every service, HTTP on all addresses.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            http_listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, HTTP_PORT))],
            hostname: String::from("localhost"),
            enable: Enable { dhcp: true, tftp: true, http: true, syslog: true, ra: true },
        }
    }
}

/// A running rack.
#[derive(Debug)]
pub struct Rack {}
