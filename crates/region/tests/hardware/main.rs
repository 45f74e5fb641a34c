//! Commissioning results, addresses, interfaces, disks and layouts, from the request to the database, on
//! both engines.

mod addresses;
mod commissioning;
mod interfaces;
mod layouts;
mod support;
