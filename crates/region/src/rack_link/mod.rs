//! The region's side of the link: what its racks ask of it, and what it sends them.

pub mod enrol;
pub mod hub;
pub mod port;
pub mod register;
pub mod report;
pub mod snapshot;

pub use hub::Hub;
pub use port::RegionPort;
