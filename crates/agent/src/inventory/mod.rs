//! What is found in a machine.
//!
//! [`resources`] is the document that commissioning stores (its shape is LXD's resources API, which is
//! what MAAS adopted); [`lshw`] is the same as lshw-like XML, for tag expressions; [`text`] has the
//! small text reports. All of them read files below a [`crate::sys::Sys`] only; what cannot be read from
//! files (addresses, the kernel's name) is in [`live`] and passed in.

pub mod cpu;
pub mod dmi;
pub mod live;
pub mod lshw;
pub mod memory;
pub mod names;
pub mod network;
pub mod pci;
pub mod resources;
pub mod storage;
pub mod system;
pub mod text;
pub mod usb;

pub use resources::{Inventory, collect};
