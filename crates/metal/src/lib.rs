//! The domain of Steelyard, pure: nouns and their identifiers, the life cycle of a machine, address
//! arithmetic, storage planning, what a booting machine is told, and the verdict on a boot that stalled.
//!
//! Nothing here is async, opens a socket, speaks SQL, reads a clock or draws a random number: time and
//! randomness come in as arguments. `metal` imports no other crate of the workspace.
//!
//! Start reading at [`status`] (the life cycle) and [`boot`] (what a booting machine gets).

#![forbid(unsafe_code)]

pub mod boot;
pub mod constraint;
pub mod dns;
pub mod filter;
pub mod id;
pub mod install;
pub mod interface;
pub mod ipam;
pub mod layout;
pub mod operation;
pub mod setting;
pub mod snippet;
pub mod status;
pub mod storage;
pub mod template;
pub mod time;
pub mod timeline;
pub mod upload;
pub mod verdict;
pub mod xpath;

pub use id::{MacAddr, SystemId};
pub use time::Timestamp;
