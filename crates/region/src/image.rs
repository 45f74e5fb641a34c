//! Boot images: what there is, what a machine gets, and where the bytes are. (face; being filled in)

use std::collections::BTreeMap;
use std::sync::Arc;

use link::port::BlobReader;
use link::snapshot::{Blob, Image};
use store::Tx;
use store::job::Job;

use crate::error::ApiError;
use crate::region::Region;

/// Kind of the jobs that import images.
pub const SYNC_KIND: &str = "image-sync";

/// A system that can be installed.
#[derive(Clone, Debug)]
pub struct Deployable {
    /// `ubuntu`, `debian`, …
    pub osystem: String,
    /// Release.
    pub series: String,
    /// Kernel, for example `ga-24.04`.
    pub kernel: Option<String>,
}

/// The file that an installation writes.
#[derive(Clone, Debug)]
pub struct Source {
    /// File name.
    pub filename: String,
    /// `root-tgz`, `squashfs`, …
    pub filetype: String,
    /// SHA-256.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// 400 for an architecture that no image is held for.
pub async fn check_architecture(_tx: &mut Tx, _architecture: &str) -> Result<(), ApiError> {
    Err(ApiError::bug("images"))
}

/// The system to install: 400 when there is no complete image of it for the architecture.
pub async fn deployable(
    _tx: &mut Tx,
    _osystem: Option<&str>,
    _series: &str,
    _architecture: &str,
) -> Result<Deployable, ApiError> {
    Err(ApiError::bug("images"))
}

/// The newest release held of an operating system.
pub async fn newest_series(_tx: &mut Tx, _osystem: &str) -> Result<String, ApiError> {
    Err(ApiError::bug("images"))
}

/// The file to install.
pub async fn install_source(
    _tx: &mut Tx,
    _osystem: &str,
    _series: &str,
    _architecture: &str,
) -> Result<Source, ApiError> {
    Err(ApiError::bug("images"))
}

/// Everything racks serve: bootable images and loader files.
pub async fn for_racks(
    _tx: &mut Tx,
) -> Result<(BTreeMap<i64, Image>, BTreeMap<String, Blob>), ApiError> {
    Err(ApiError::bug("images"))
}

/// Opens content by its hash.
pub async fn open_blob(
    _region: &Arc<Region>,
    _sha256: &str,
    _offset: u64,
) -> Result<BlobReader, ApiError> {
    Err(ApiError::bug("images"))
}

/// Imports the selected images.
pub async fn sync_job(_region: &Arc<Region>, _job: &Job) -> Result<(), ApiError> {
    Err(ApiError::bug("images"))
}
