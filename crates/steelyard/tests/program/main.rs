//! The program through its command line.

mod client;
mod https;
mod import;
mod operate;
mod server;
mod support;
mod up;
mod words;
