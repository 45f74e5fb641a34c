//! The region: API, metadata service, database, images, and every decision.
//!
//! A request ([`http`], or passed on by a rack) becomes a [`call::Call`] of one [`operation::Operation`]
//! of the table ([`table`]), found by [`dispatch`]. One file per noun holds its operations. Status
//! changes go through one place, with their event and their entry in the change feed. This crate never
//! opens a socket of a rack service.
//!
//! Start reading at [`operation`], then any noun, for example [`sshkey`].

#![forbid(unsafe_code)]

pub mod account;
pub mod answer;
pub mod args;
pub mod auth;
pub mod block_device;
pub mod boot;
pub mod boot_resource;
pub mod boot_source;
pub mod boot_source_selection;
pub mod call;
pub mod describe;
pub mod dispatch;
pub mod error;
pub mod event;
pub mod event_query;
pub mod fabric;
pub mod hardware;
pub mod http;
pub mod image;
pub mod install;
pub mod interface;
pub mod ip_range;
pub mod ipam;
pub mod layout;
pub mod lifecycle;
pub mod machine;
pub mod metadata;
pub mod monitor;
pub mod multipart;
pub mod node;
pub mod operation;
pub mod power;
pub mod preseed;
pub mod rack_controller;
pub mod rack_link;
pub mod region;
pub mod router;
pub mod script;
pub mod script_result;
pub mod setting;
pub mod sshkey;
pub mod subnet;
pub mod table;
pub mod tag;
pub mod user;
pub mod v1;
pub mod version;
pub mod vlan;
pub mod worker;
pub mod zone;

pub use region::{Config, Region};
