//! A simulated fleet: servers with BMCs that speak the real protocols, hundreds at a time in one process.
//!
//! Each machine has a fake BMC (IPMI over UDP), firmware that asks for an address and a boot loader (DHCP
//! and TFTP, or HTTP alone where raw sockets are not allowed), a loader that reads the rendered boot
//! configuration, an ephemeral system that fetches its preseed and speaks to the metadata service as
//! cloud-init and the agent do, and a disk that an installation leaves a system on. What a machine does
//! not do is run programs: scripts get made-up outputs, images are fetched, hashed and thrown away.
//! Everything that leaves the process is plainly marked: vendor `Steelyard`, product `Simulated machine`,
//! host names `sim-…`.
//!
//! It knows the protocols and nothing of the product behind them: neither `region`, `rack` nor `store`.
//! What a test wants to know of the product it asks over the API ([`api`]).
//!
//! Start reading at [`fleet::Fleet`], then [`machine`] (power and boots) and [`life`] (one boot).

pub mod api;
pub mod bmc;
pub mod bootcfg;
pub mod cmdline;
pub mod config;
pub mod demo;
pub mod dhcp;
pub mod fault;
pub mod fleet;
pub mod form;
pub mod hardware;
pub mod http;
pub mod inventory;
mod life;
pub mod machine;
pub mod net;
pub mod preseed;
pub mod state;
pub mod stream;
pub mod tftp;
mod wire;

pub use config::{FleetConfig, Network};
pub use fault::{BmcFault, Fault};
pub use fleet::Fleet;
pub use state::{Phase, State};
