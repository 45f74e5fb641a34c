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
pub mod attempts;
pub mod auth;
pub mod bcache;
pub mod bcache_cache_set;
pub mod block_device;
pub mod boot;
pub mod boot_resource;
pub mod boot_source;
pub mod boot_source_selection;
pub mod boot_upload;
pub mod call;
pub mod compress;
pub mod describe;
pub mod detour;
pub mod device;
pub mod dhcp_snippet;
pub mod discovery;
pub mod dispatch;
pub mod dns_record;
pub mod dns_resource;
pub mod domain;
pub mod error;
pub mod event;
pub mod event_query;
pub mod fabric;
pub mod file;
pub mod filesystem;
pub mod hardware;
pub mod health;
pub mod http;
pub mod https;
pub mod image;
pub mod install;
pub mod interface;
pub mod ip_address;
pub mod ip_range;
pub mod ipam;
pub mod layout;
pub mod license_key;
pub mod lifecycle;
pub mod machine;
pub mod metadata;
pub mod metrics;
pub mod monitor;
pub mod multipart;
pub mod network;
pub mod node;
pub mod node_device;
pub mod node_result;
pub mod node_script;
pub mod notification;
pub mod operation;
pub mod package_repository;
pub mod partition;
pub mod power;
pub mod power_type;
pub mod preseed;
pub mod rack_controller;
pub mod rack_link;
pub mod raid;
pub mod region;
pub mod region_controller;
pub mod reserved_ip;
pub mod router;
pub mod script;
pub mod script_result;
pub mod setting;
pub mod space;
pub mod sshkey;
pub mod sslkey;
pub mod static_route;
pub mod subnet;
pub mod sync_progress;
pub mod table;
pub mod tag;
pub mod user;
pub mod v1;
pub mod version;
pub mod vlan;
pub mod vmfs_datastore;
pub mod volume_group;
pub mod worker;
pub mod zone;

pub use region::{Config, Region};
