//! The image cache: content by its hash, on disk, filled from the region as it is asked for.
//!
//! Nothing is complete before its hash was computed from the bytes on this disk by this process. Until
//! then readers follow the bytes as they are hashed, except for the last [`HOLD_BACK`], which nobody gets
//! before the hash was right. One [`fill::Fill`] serves all readers of the same content; content that was
//! left half received, or is on disk from an earlier run, takes the same way.

pub mod fill;

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use link::port::{LinkError, Region};
use metal::SystemId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::fill::{Fill, Progress};
use crate::shared::Shared;

/// Bytes at the end of content that are held back until its hash was right.
pub const HOLD_BACK: u64 = 64 << 10;
/// Default limit of the cache in bytes.
pub const DEFAULT_LIMIT: u64 = 20 << 30;
/// Contents that are fetched or checked at the same time; further ones wait.
pub const MAX_FILLS: usize = 8;
/// Contents of which the cache knows at the same time; beyond that, opening fails.
pub const MAX_WAITING_FILLS: usize = 1_024;

/// The image cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    limit: u64,
    region: Arc<dyn Region>,
    shared: Shared,
    state: Mutex<State>,
    turns: Arc<Semaphore>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Content whose hash was checked since the start.
    complete: HashMap<Arc<str>, Complete>,
    /// Content that is being received or checked.
    fills: HashMap<Arc<str>, Arc<Fill>>,
}

struct Complete {
    size: u64,
    modified: Option<SystemTime>,
}

/// Why content cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The region has no such content, and neither has the cache.
    #[error("there is no content {0}")]
    Unknown(String),
    /// The region cannot be reached and the cache does not have it.
    #[error("the region cannot be reached for content that is not in the cache: {0}")]
    Away(String),
    /// What was received does not have the hash.
    #[error("altered content: the bytes of {sha256} have the hash {found}")]
    Altered {
        /// The hash they should have.
        sha256: String,
        /// The hash they have.
        found: String,
    },
    /// The disk failed.
    #[error("the cache's disk failed: {0}")]
    Disk(String),
    /// Too much is being fetched already.
    #[error("too many contents are being fetched")]
    Busy,
    /// The rack stops.
    #[error("the rack is stopping")]
    Stopping,
}

impl CacheError {
    pub(crate) fn from_link(error: LinkError, sha256: &str) -> Self {
        match error {
            LinkError::NoBlob(_) => Self::Unknown(sha256.to_owned()),
            other => Self::Away(other.to_string()),
        }
    }
}

/// Content that was opened.
#[derive(Clone, Debug)]
pub enum Blob {
    /// All there, and its hash was right.
    Complete {
        /// The file.
        file: Arc<File>,
        /// Bytes.
        size: u64,
    },
    /// On its way.
    Filling {
        /// Follow this.
        fill: Arc<Fill>,
        /// Bytes.
        size: u64,
    },
}

impl Cache {
    /// A cache in `dir`, which is created.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn new(
        dir: PathBuf,
        limit: u64,
        region: Arc<dyn Region>,
        shared: Shared,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let turns = Arc::new(Semaphore::new(MAX_FILLS));
        let inner = Inner {
            dir,
            limit,
            region,
            shared,
            state: Mutex::default(),
            turns,
            tasks,
            cancel,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Opens content by its full hash (lower-case hexadecimal SHA-256). Returns once its size is known;
    /// the bytes may still arrive. Cancel-safe: yes (what was begun goes on).
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn open(&self, sha256: &str) -> Result<Blob, CacheError> {
        let fill = {
            let mut state = self.lock();
            if let Some(blob) = self.open_complete(&mut state, sha256) {
                return Ok(blob);
            }
            if let Some(fill) = state.fills.get(sha256) {
                Arc::clone(fill)
            } else {
                if state.fills.len() >= MAX_WAITING_FILLS {
                    return Err(CacheError::Busy);
                }
                self.begin(&mut state, sha256)?
            }
        };
        let size = fill.size().await?;
        Ok(Blob::Filling { fill, size })
    }

    /// Full hashes in the cache that begin with `prefix`, complete or not checked yet.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Vec<String> {
        let names = fs::read_dir(&self.inner.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        names
            .filter(|n| n.len() == crate::namespace::HASH_DIGITS && n.starts_with(prefix))
            .collect()
    }

    fn open_complete(&self, state: &mut State, sha256: &str) -> Option<Blob> {
        let known = state.complete.get(sha256)?;
        let path = self.inner.dir.join(sha256);
        let unchanged = File::open(&path)
            .and_then(|f| f.metadata().map(|m| (f, m)))
            .ok()
            .filter(|(_, m)| m.len() == known.size && m.modified().ok() == known.modified);
        match unchanged {
            Some((file, _)) => {
                let size = known.size;
                // The time of use is what eviction goes by; a disk that cannot keep it evicts less well.
                file.set_times(FileTimes::new().set_accessed(SystemTime::now()))
                    .ok();
                Some(Blob::Complete {
                    file: Arc::new(file),
                    size,
                })
            }
            None => {
                state.complete.remove(sha256);
                None
            }
        }
    }

    fn begin(&self, state: &mut State, sha256: &str) -> Result<Arc<Fill>, CacheError> {
        let sha: Arc<str> = sha256.into();
        let whole = self.inner.dir.join(sha256);
        let partial = self.inner.dir.join(format!("{sha256}.partial"));
        let had_whole = whole.exists();
        if had_whole {
            // From an earlier run, or changed behind our back: to be checked like anything received.
            fs::rename(&whole, &partial).map_err(|e| CacheError::Disk(e.to_string()))?;
        }
        let fill = Arc::new(
            Fill::create(Arc::clone(&sha), &partial)
                .map_err(|e| CacheError::Disk(e.to_string()))?,
        );
        state.fills.insert(Arc::clone(&sha), Arc::clone(&fill));
        let cache = self.clone();
        let filling = Arc::clone(&fill);
        self.inner
            .tasks
            .spawn(async move { cache.fill(filling, had_whole).await });
        Ok(fill)
    }

    async fn fill(&self, fill: Arc<Fill>, had_whole: bool) {
        let run = async {
            let _turn = self
                .inner
                .turns
                .acquire()
                .await
                .map_err(|_| CacheError::Stopping)?;
            let rack = self
                .inner
                .shared
                .rack()
                .unwrap_or_else(|| SystemId(String::new()));
            fill.run(&*self.inner.region, &rack, had_whole).await
        };
        let result = tokio::select! {
            result = run => result,
            () = self.inner.cancel.cancelled() => Err(CacheError::Stopping),
        };
        let sha = fill.sha256();
        let partial = self.inner.dir.join(format!("{sha}.partial"));
        let finished = result.and_then(|size| {
            let whole = self.inner.dir.join(&*sha);
            fs::rename(&partial, &whole).map_err(|e| CacheError::Disk(e.to_string()))?;
            let modified = fs::metadata(&whole).and_then(|m| m.modified()).ok();
            Ok(Complete { size, modified })
        });
        let mut state = self.lock();
        state.fills.remove(&sha);
        match finished {
            Ok(complete) => {
                tracing::info!(sha256 = %sha, bytes = complete.size, "content checked and complete");
                state.complete.insert(Arc::clone(&sha), complete);
                drop(state);
                fill.finish(Progress::Complete);
                self.evict(&sha);
            }
            Err(error) => {
                drop(state);
                match &error {
                    CacheError::Altered { .. } => {
                        tracing::error!(sha256 = %sha, %error, "content removed");
                        fs::remove_file(&partial).ok(); // what stays is checked again before it is served
                    }
                    // Nothing was received: an empty file would only be in the way.
                    CacheError::Unknown(_) => {
                        fs::remove_file(&partial).ok();
                    }
                    CacheError::Away(_)
                    | CacheError::Disk(_)
                    | CacheError::Busy
                    | CacheError::Stopping => {
                        tracing::warn!(sha256 = %sha, %error, "content not complete");
                    }
                }
                fill.finish(Progress::Failed(error));
            }
        }
    }

    /// Removes what was used longest ago until the limit is kept; never `keep`, nor what is being filled.
    fn evict(&self, keep: &str) {
        let state = self.lock();
        let mut files: Vec<(SystemTime, u64, String)> = fs::read_dir(&self.inner.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| {
                let meta = e.metadata().ok()?;
                let used = meta
                    .accessed()
                    .or_else(|_| meta.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                Some((used, meta.len(), e.file_name().into_string().ok()?))
            })
            .collect();
        let mut total: u64 = files.iter().map(|f| f.1).sum();
        files.sort();
        let mut gone = Vec::new();
        for (_, size, name) in files {
            if total <= self.inner.limit {
                break;
            }
            let sha = name.strip_suffix(".partial").unwrap_or(&name);
            if sha == keep || state.fills.contains_key(sha) {
                continue;
            }
            if fs::remove_file(self.inner.dir.join(&name)).is_ok() {
                total = total.saturating_sub(size);
                gone.push(sha.to_owned());
            }
        }
        drop(state);
        let mut state = self.lock();
        for sha in gone {
            tracing::info!(sha256 = %sha, "content evicted from the cache");
            state.complete.remove(sha.as_str());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
