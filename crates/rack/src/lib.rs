//! The rack: DHCP, TFTP, HTTP boot, image cache, syslog and power for the machines of its networks.
//!
//! A rack answers from a snapshot of its region's data and goes on without the region; what happens
//! meanwhile is spooled on disk. It depends on neither the region's crate nor the database: everything
//! comes and goes over [`link`].
//!
//! Start reading at [`shared`] (what the services share).

pub mod shared;
