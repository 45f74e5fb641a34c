//! What runs inside a machine that booted Steelyard's ephemeral system: it enlists an unknown machine,
//! takes its inventory, runs scripts, and installs an operating system.
//!
//! It speaks the MAAS metadata protocol to its rack over plain HTTP and nothing else; it knows no
//! database, no region address, and decides nothing about the machine's life cycle: it is told its work
//! ([`metal::install::Work`]) and reports what happened.
//!
//! Everything that reads the machine goes through [`sys::Sys`], rooted at a directory, and every external
//! command of an installation through [`process::Runner`], so that tests run the whole of it on trees of
//! files with recorded commands.
//!
//! Start reading at [`run::run`]; then [`scripts`] for the script protocol, [`install`] for the
//! installation, [`inventory`] for what is found in a machine.

pub mod block;
pub mod cli;
pub mod config;
pub mod enlist;
pub mod http;
pub mod install;
pub mod inventory;
pub mod journal;
pub mod metadata;
pub mod multipart;
pub mod oauth;
pub mod process;
pub mod report;
pub mod run;
pub mod scripts;
pub mod sys;
