//! Content by its SHA-256, in `images/` of the data directory. A file there under its full hash is
//! complete and was checked; `images/partial/` holds what is still coming.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use link::port::BlobReader;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::maintain;
use crate::error::ApiError;
use crate::region::Region;

/// Hexadecimal digits of a SHA-256.
pub const HASH_DIGITS: usize = 64;

/// Whether a text is a full SHA-256 as file names have it: 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Where content lies.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// The content of a region.
    #[must_use]
    pub fn of(region: &Region) -> Self {
        Self {
            dir: region.config.data_dir.join("images"),
        }
    }

    /// The content of a directory.
    #[must_use]
    pub const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.partials())
    }

    /// Takes the directory for writing, as long as the value lives: two writers, of one program or of
    /// two, would undo each other's partial files. None when somebody else has it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lock(&self) -> io::Result<Option<std::fs::File>> {
        let file = std::fs::File::create(self.dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(e),
        }
    }

    /// The directory of complete content.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of what is still coming.
    #[must_use]
    pub fn partials(&self) -> PathBuf {
        self.dir.join("partial")
    }

    /// The file of complete content.
    #[must_use]
    pub fn complete(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    /// The file of content that is still coming.
    #[must_use]
    pub fn partial(&self, sha256: &str) -> PathBuf {
        self.partials().join(sha256)
    }

    /// Whether the content is here.
    #[must_use]
    pub fn has(&self, sha256: &str) -> bool {
        is_hash(sha256) && self.complete(sha256).is_file()
    }

    /// Every content that is here.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> io::Result<Vec<String>> {
        names(&self.dir)
    }

    /// Every content that has begun to come.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list_partial(&self) -> io::Result<Vec<String>> {
        names(&self.partials())
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut out = Vec::new();
    for entry in entries {
        if let Some(name) = entry?.file_name().to_str().filter(|n| is_hash(n)) {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

/// Opens content by its hash: of an image, or the agent of an architecture.
///
/// # Errors
/// 404 when it is not here and does not come within seconds, 400 for an offset behind its end.
pub async fn open(region: &Arc<Region>, sha256: &str, offset: u64) -> Result<BlobReader, ApiError> {
    let missing = || ApiError::NotFound(format!("There is no content {sha256}."));
    let beyond = |size: u64| {
        ApiError::Bad(format!(
            "Offset {offset} is behind the end of {sha256}, which has {size} bytes."
        ))
    };
    if !is_hash(sha256) {
        return Err(missing());
    }
    if let Some(bytes) = crate::preseed::agent_blob(region, sha256) {
        let size = bytes.len() as u64;
        let at = usize::try_from(offset)
            .ok()
            .filter(|at| *at <= bytes.len())
            .ok_or_else(|| beyond(size))?;
        return Ok(BlobReader {
            size,
            reader: Box::new(io::Cursor::new(bytes.slice(at..))),
        });
    }
    let failed = |e: io::Error| ApiError::Bug(format!("content {sha256} cannot be read: {e}"));
    let files = Files::of(region);
    if !files.has(sha256) && !maintain::arrival(region, &files, sha256).await {
        return Err(missing());
    }
    let mut file = match tokio::fs::File::open(files.complete(sha256)).await {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(e) => return Err(failed(e)),
    };
    let size = file.metadata().await.map_err(failed)?.len();
    if offset > size {
        return Err(beyond(size));
    }
    file.seek(io::SeekFrom::Start(offset))
        .await
        .map_err(failed)?;
    Ok(BlobReader {
        size,
        reader: Box::new(file.take(size - offset)),
    })
}
