//! The program: the command line, and the composition of region and rack. Nothing else lives here; it
//! decides nothing about machines.
//!
//! It answers to five names. As `steelyard`, `maas-region` (`maas-region-admin`) and `maas-rack` it runs and
//! administers the product ([`cli`]); as `maas` it is a client of the API ([`client`]) that also knows the words of
//! administration. Start reading at [`cli`], then [`up`].

#![forbid(unsafe_code)]

mod admin;
mod agents;
mod audit;
mod backup;
mod boots;
mod cli;
mod client;
mod completion;
mod data;
mod demo;
mod enrolment;
mod import;
mod local;
mod log;
mod out;
mod rack_role;
mod running;
mod server;
mod setup;
mod status;
mod tls;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os().collect())
}
