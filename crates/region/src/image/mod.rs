//! Boot images: what there is, what a machine gets, where the bytes are, and how they come here.
//!
//! A set of files is in the database only when every one of its files is on disk; what is on its way is
//! noted beside the resource (see [`held::Pending`]). Content lies in the data directory by its SHA-256
//! ([`blob`]), so a file is never half of one version and half of another.
//!
//! Start reading at [`sync`], the import; [`held`] is what everybody else asks.

pub mod blob;
pub mod choose;
pub mod fetch;
pub mod held;
pub mod maintain;
pub mod publish;
pub mod racks;
pub mod stream;
pub mod sync;
pub mod unpack;

pub use blob::open as open_blob;
pub use choose::{
    Deployable, Source, check_architecture, deployable, install_source, newest_series,
};
pub use maintain::{Demand, ensure_defaults, start};
pub use racks::for_racks;
pub use sync::job as sync_job;

/// Kind of the jobs that import images.
pub const SYNC_KIND: &str = "image-sync";
