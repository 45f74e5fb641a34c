//! The rack: DHCP, TFTP, HTTP boot, image cache, syslog and power for the machines of its networks.
//!
//! A rack answers from a snapshot of its region's data and goes on without the region; what happens
//! meanwhile is spooled on disk. It depends on neither the region's crate nor the database: everything
//! comes and goes over [`link`].
//!
//! Start reading at [`rack`] (what runs), then [`shared`] (what the services share) and [`files`] (what
//! a booting machine can ask for).

pub mod bootconfig;
pub mod cache;
pub mod dhcp;
pub mod files;
pub mod http;
pub mod interfaces;
pub mod loaders;
pub mod namespace;
pub mod power;
pub mod ra;
pub mod rack;
pub mod raw;
pub mod shared;
pub mod spool;
pub mod syslog;
pub mod tftp;
pub mod uplink;

pub use rack::{Config, Rack};
