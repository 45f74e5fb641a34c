//! One content on its way from the region to the disk, and its readers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link::port::{LinkError, Region};
use metal::SystemId;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use super::{CacheError, HOLD_BACK};

/// Bytes moved at a time.
const CHUNK: usize = 256 << 10;
/// Attempts without a byte of progress before a fill is given up (the bytes stay for the next one).
const MAX_ATTEMPTS: u32 = 4;
/// Wait after the first failed attempt; doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest silence of the region in the middle of content.
const SILENCE: Duration = Duration::from_secs(30);

/// How far a fill is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The size is not known yet.
    Waiting,
    /// So many bytes of the size are on disk and hashed.
    Received {
        /// Bytes on disk and hashed.
        bytes: u64,
        /// Bytes in all.
        size: u64,
    },
    /// All there, and the hash was right.
    Complete,
    /// It failed; readers must abort.
    Failed(CacheError),
}

/// One content on its way.
#[derive(Debug)]
pub struct Fill {
    sha256: Arc<str>,
    file: Arc<File>,
    progress: watch::Sender<Progress>,
}

impl Fill {
    /// A fill of the file at `path`, which is created or taken as it is.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn create(sha256: Arc<str>, path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let (progress, _) = watch::channel(Progress::Waiting);
        Ok(Self {
            sha256,
            file: Arc::new(file),
            progress,
        })
    }

    /// Its hash.
    #[must_use]
    pub fn sha256(&self) -> Arc<str> {
        Arc::clone(&self.sha256)
    }

    pub(super) fn finish(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// The size, once known.
    pub(super) async fn size(&self) -> Result<u64, CacheError> {
        let mut progress = self.progress.subscribe();
        loop {
            match &*progress.borrow_and_update() {
                Progress::Waiting => {}
                Progress::Received { size, .. } => return Ok(*size),
                Progress::Complete => {
                    return self
                        .file
                        .metadata()
                        .map(|m| m.len())
                        .map_err(|e| CacheError::Disk(e.to_string()));
                }
                Progress::Failed(error) => return Err(error.clone()),
            }
            if progress.changed().await.is_err() {
                return Err(CacheError::Stopping);
            }
        }
    }

    /// Waits until a byte at `offset` may be read and says up to which offset one may read.
    pub(super) async fn readable(&self, offset: u64) -> Result<u64, CacheError> {
        let mut progress = self.progress.subscribe();
        loop {
            match &*progress.borrow_and_update() {
                Progress::Waiting => {}
                Progress::Received { bytes, size } => {
                    let limit = (*bytes).min(size.saturating_sub(HOLD_BACK));
                    if offset < limit {
                        return Ok(limit);
                    }
                }
                Progress::Complete => return Ok(u64::MAX),
                Progress::Failed(error) => return Err(error.clone()),
            }
            if progress.changed().await.is_err() {
                return Err(CacheError::Stopping);
            }
        }
    }

    pub(crate) async fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let limit = self.readable(offset).await.map_err(io::Error::other)?;
        let max = max.min(usize::try_from(limit - offset).unwrap_or(usize::MAX));
        read_file(&self.file, offset, max).await
    }

    /// Hashes what is on disk, fetches the rest and compares the hash. Returns the size. `had_whole`: the
    /// file was complete once, so that its own length is its size.
    pub(super) async fn run(
        &self,
        region: &dyn Region,
        rack: &SystemId,
        had_whole: bool,
    ) -> Result<u64, CacheError> {
        let disk = |e: io::Error| CacheError::Disk(e.to_string());
        let mut hash = Sha256::new();
        let mut at = 0;
        let present = self.file.metadata().map_err(disk)?.len();
        let mut size = had_whole.then_some(present);
        if let Some(size) = size {
            self.advance(0, size);
        }
        while at < present {
            let chunk = read_file(&self.file, at, CHUNK).await.map_err(disk)?;
            if chunk.is_empty() {
                break;
            }
            at += chunk.len() as u64;
            hash = hashed(hash, chunk).await;
            if let Some(size) = size {
                self.advance(at, size);
            }
        }
        if at > 0 && self.verify(hash.clone(), at).is_ok() {
            return Ok(at);
        }
        if had_whole {
            // The disk forgot. Readers have got at most a beginning; the next one gets it from the region.
            return self.verify(hash, at);
        }
        let mut attempts = 0;
        loop {
            let before = at;
            match self
                .receive(region, rack, &mut hash, &mut at, &mut size)
                .await
            {
                Ok(()) => break,
                Err(Broken::For(error)) => return Err(error),
                Err(Broken::Restart) => {
                    hash = Sha256::new();
                    at = 0;
                    self.file.set_len(0).map_err(disk)?;
                }
                Err(Broken::Off(error)) => {
                    attempts = if at > before { 1 } else { attempts + 1 };
                    if attempts >= MAX_ATTEMPTS {
                        return Err(error);
                    }
                    tokio::time::sleep(FIRST_WAIT * 2u32.pow(attempts - 1)).await;
                }
            }
        }
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || file.sync_data())
            .await
            .map_err(|e| CacheError::Disk(e.to_string()))?
            .map_err(disk)?;
        self.verify(hash, at)
    }

    fn verify(&self, hash: Sha256, size: u64) -> Result<u64, CacheError> {
        let found = hex::encode(hash.finalize());
        if found == *self.sha256 {
            Ok(size)
        } else {
            Err(CacheError::Altered {
                sha256: self.sha256.to_string(),
                found,
            })
        }
    }

    fn advance(&self, bytes: u64, size: u64) {
        self.progress
            .send_replace(Progress::Received { bytes, size });
    }

    /// Receives from where the file ends to the end of the content.
    async fn receive(
        &self,
        region: &dyn Region,
        rack: &SystemId,
        hash: &mut Sha256,
        at: &mut u64,
        size: &mut Option<u64>,
    ) -> Result<(), Broken> {
        let blob = match tokio::time::timeout(SILENCE, region.blob(rack, &self.sha256, *at)).await {
            Ok(Ok(blob)) => blob,
            Ok(Err(error @ LinkError::NoBlob(_))) => {
                return Err(Broken::For(CacheError::from_link(error, &self.sha256)));
            }
            Ok(Err(error)) => return Err(Broken::Off(CacheError::from_link(error, &self.sha256))),
            Err(_) => return Err(Broken::Off(CacheError::Away("no answer".into()))),
        };
        if *at > blob.size {
            return Err(Broken::Restart);
        }
        if size.is_some_and(|s| s != blob.size) {
            // Readers were told another size.
            return Err(Broken::For(CacheError::Altered {
                sha256: self.sha256.to_string(),
                found: format!("none: its size changed to {}", blob.size),
            }));
        }
        *size = Some(blob.size);
        self.advance(*at, blob.size);
        let mut reader = blob.reader;
        while *at < blob.size {
            let mut buffer = Vec::with_capacity(CHUNK);
            let mut limited = (&mut reader).take((blob.size - *at).min(CHUNK as u64));
            match tokio::time::timeout(SILENCE, limited.read_buf(&mut buffer)).await {
                Ok(Ok(n)) if n > 0 => {}
                Ok(Ok(_)) => {
                    return Err(Broken::Off(CacheError::Away(
                        "the content ended early".into(),
                    )));
                }
                Ok(Err(error)) => return Err(Broken::Off(CacheError::Away(error.to_string()))),
                Err(_) => {
                    return Err(Broken::Off(CacheError::Away(
                        "the content stopped coming".into(),
                    )));
                }
            }
            let chunk = Bytes::from(buffer);
            let (file, offset, data) = (Arc::clone(&self.file), *at, chunk.clone());
            let so_far = std::mem::take(hash);
            let written = tokio::task::spawn_blocking(move || {
                let mut so_far = so_far;
                so_far.update(&data);
                (so_far, file.write_all_at(&data, offset))
            })
            .await
            .map_err(|e| Broken::For(CacheError::Disk(e.to_string())))?;
            *hash = written.0;
            written
                .1
                .map_err(|e| Broken::For(CacheError::Disk(e.to_string())))?;
            *at += chunk.len() as u64;
            self.advance(*at, blob.size);
        }
        Ok(())
    }
}

/// How receiving ended before its end.
enum Broken {
    /// For good.
    For(CacheError),
    /// Off: to be tried again from where it stopped.
    Off(CacheError),
    /// What is on disk is longer than the content: from the start.
    Restart,
}

async fn hashed(hash: Sha256, chunk: Bytes) -> Sha256 {
    // Should the task be lost, the empty hash fails the comparison.
    tokio::task::spawn_blocking(move || hash.chain_update(&chunk))
        .await
        .unwrap_or_default()
}

/// Reads below this many bytes are done in place: they are block-sized, for TFTP, and read ahead.
const INLINE_READ: usize = 16 << 10;

pub(crate) async fn read_file(file: &Arc<File>, offset: u64, max: usize) -> io::Result<Bytes> {
    fn read(file: &File, offset: u64, max: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; max];
        let mut filled = 0;
        while filled < max {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        buffer.truncate(filled);
        Ok(buffer.into())
    }
    if max <= INLINE_READ {
        return read(file, offset, max);
    }
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || read(&file, offset, max))
        .await
        .map_err(io::Error::other)?
}
