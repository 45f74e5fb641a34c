//! The program through its command line.

mod client;
mod server;
mod support;
mod up;
