//! Nodes: machines, devices and controllers are one table with one life.

pub mod family;
pub mod filter;
pub mod row;
pub mod view;

pub use row::NodeRow;
pub use view::View;
