//! What a booting machine can ask for, over TFTP and HTTP alike.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::shared::Shared;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
}

impl Transport {
    /// The word of the timeline.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tftp => "tftp",
            Self::Http => "http",
        }
    }
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientContext {
    /// The client's address.
    pub ip: IpAddr,
    /// How it asks.
    pub transport: Transport,
    /// The rack's own address that it asked.
    pub local: IpAddr,
}

/// The boot namespace. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Shared,
}

/// A file that was asked for and found.
#[derive(Clone, Debug)]
pub enum Opened {
    /// Text made for this request.
    Rendered(Bytes),
    /// Content with a size known from the start.
    Content(Content),
}

/// There is no such file (for this client, now). Why is in the timeline where it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such file")]
pub struct NotFound;

/// Readable content. Cheap to clone; reads at any offset, from several tasks at once.
#[derive(Clone, Debug)]
pub struct Content {
    size: u64,
    sha256: Option<Arc<str>>,
    file: Arc<std::fs::File>,
}

impl Opened {
    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Rendered(b) => b.len() as u64,
            Self::Content(c) => c.size(),
        }
    }

    /// Up to `max` bytes from `offset`; empty only at the end (or with `max` 0). May wait while the
    /// content still arrives from the region. Cancel-safe: yes.
    ///
    /// # Errors
    /// When the content cannot be read, or turned out to be altered; the transfer must then be aborted.
    pub async fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        match self {
            Self::Rendered(b) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(b.len());
                Ok(b.slice(start..start.saturating_add(max).min(b.len())))
            }
            Self::Content(c) => c.read_at(offset, max).await,
        }
    }
}

impl Content {
    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Lower-case hexadecimal SHA-256, where known.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// As [`Opened::read_at`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        use std::os::unix::fs::FileExt as _;
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; max.min(left)];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }
}

impl Files {
    /// The namespace over the shared snapshot.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self { inner: Arc::new(Inner { shared }) }
    }

    /// Opens a path. Boot configurations are recorded in the timeline here; transfers of files are
    /// recorded by the caller, who knows how they ended. Cancel-safe: yes.
    ///
    /// # Errors
    /// [`NotFound`] when there is no such path for this client.
    pub async fn open(&self, path: &str, context: ClientContext) -> Result<Opened, NotFound> {
        tracing::debug!(path, client = %context.ip, machines = self.inner.shared.snapshot().machines.len(), "open");
        Err(NotFound)
    }
}
