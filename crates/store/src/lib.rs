//! The database: SQLite for one region host, PostgreSQL for several, behind one face.
//!
//! A write is a closure ([`Db::write`]) that may run again and does nothing but SQL; a read borrows a
//! snapshot ([`Db::read`]). Nobody outside this crate holds a writing transaction. SQL is one text for
//! both engines (`$1`, `RETURNING`, `ON CONFLICT`); the words that differ start with `@`, see [`dialect`].
//! This crate knows neither HTTP nor the wire protocols.
//!
//! Start reading at [`db`], then [`tx`] (how statements run), [`feed`] (how others learn of changes) and
//! [`job`] (work that outlives a process). [`timeline`] is a store of its own beside the main one; [`seal`]
//! keeps secrets unreadable in both. Tests take their databases from `testing` (feature of that name).

#![forbid(unsafe_code)]

pub mod copy;
pub mod db;
pub mod dialect;
pub mod error;
pub mod feed;
pub mod job;
mod lite;
pub mod migrate;
mod pg;
mod readers;
pub mod seal;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timeline;
pub mod tx;

pub use db::{Db, Options, Target};
pub use error::StoreError;
pub use seal::Sealer;
pub use timeline::Timeline;
pub use tx::{Tx, TxError};

#[doc(hidden)]
pub use sqlx;
