//! Fetching: documents into memory, content into files, from `http(s)` addresses and from directories.
//!
//! A download that breaks off goes on where it stopped, in this attempt, in the next, and after the
//! program was killed: what is there already stays in a partial file and is hashed again first.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use http::header::{CONTENT_RANGE, RANGE};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};
use tokio_util::io::ReaderStream;

use super::blob::Files;

/// How long the connection may take.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long nothing may arrive.
pub const SILENCE: Duration = Duration::from_secs(60);
/// How long a whole document may take.
pub const DOCUMENT_TIME: Duration = Duration::from_secs(300);
/// How often a download is taken up again that broke off without a single new byte.
pub const MAX_TRIES: u32 = 5;
/// The first pause before that; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Why something could not be fetched. Addresses are shown without user and password.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The proxy setting is no address.
    #[error("the setting http_proxy is no address of a proxy")]
    Proxy(#[source] reqwest::Error),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be started")]
    Client(#[source] reqwest::Error),
    /// No answer.
    #[error("{address} could not be fetched")]
    Request {
        /// What was asked for.
        address: String,
        /// Why.
        #[source]
        cause: reqwest::Error,
    },
    /// Another answer than the content.
    #[error("{address} answered {status}")]
    Status {
        /// What was asked for.
        address: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// It took too long.
    #[error("{address} took longer than {limit:?}")]
    Slow {
        /// What was asked for.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke.
    #[error("{address} broke off after {got} bytes")]
    Broken {
        /// What was asked for.
        address: String,
        /// Bytes that are here, earlier ones included.
        got: u64,
        /// Why, where the other side did not simply stop.
        #[source]
        cause: Option<io::Error>,
    },
    /// Larger than a document may be.
    #[error("{address} has more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        address: String,
        /// The limit.
        limit: usize,
    },
    /// A file of a directory cannot be read.
    #[error("{address} cannot be read")]
    Read {
        /// Which file.
        address: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Our own file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The content is not what the source's documents say.
    #[error("{address} is altered: {what}")]
    Altered {
        /// What was asked for.
        address: String,
        /// How it differs.
        what: String,
    },
}

impl FetchError {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Request { .. } | Self::Slow { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            _ => false,
        }
    }
}

/// An error with all its causes, for events and the log.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let text = e.to_string();
        if !out.ends_with(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        next = e.source();
    }
    out
}

/// An address as it may be shown: without user and password.
#[must_use]
pub fn shown(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => address.to_owned(),
    }
}

/// The directory of an address that is none of the web.
#[must_use]
pub fn directory(address: &str) -> Option<&Path> {
    let path = address.strip_prefix("file://").unwrap_or(address);
    path.starts_with('/').then(|| Path::new(path))
}

/// Content as a source's documents describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub address: String,
    /// SHA-256.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Fetches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
}

type Chunks = BoxStream<'static, io::Result<Bytes>>;

impl Fetcher {
    /// A fetcher that goes through this proxy, or straight. Proxies of the environment do not count.
    ///
    /// # Errors
    /// When the proxy is no address, or the client cannot be made.
    pub fn new(proxy: Option<&str>) -> Result<Self, FetchError> {
        // One TLS provider per process; whoever came first has installed the same one.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut builder = trust::somebody(reqwest::Client::builder())
            .no_proxy()
            .connect_timeout(CONNECT_TIME)
            .read_timeout(SILENCE)
            .user_agent(concat!("steelyard/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = proxy {
            let proxy =
                reqwest::Proxy::all(proxy).map_err(|e| FetchError::Proxy(e.without_url()))?;
            builder = builder.proxy(proxy);
        }
        let client = builder
            .build()
            .map_err(|e| FetchError::Client(e.without_url()))?;
        Ok(Self { client })
    }

    /// A whole document of at most `limit` bytes.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn document(&self, address: &str, limit: usize) -> Result<Vec<u8>, FetchError> {
        let read = async {
            let (mut chunks, _) = self.open(address, 0).await?;
            let mut out = Vec::new();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|cause| FetchError::Broken {
                    address: shown(address),
                    got: out.len() as u64,
                    cause: Some(cause),
                })?;
                if out.len() + chunk.len() > limit {
                    return Err(FetchError::TooLarge {
                        address: shown(address),
                        limit,
                    });
                }
                out.extend_from_slice(&chunk);
            }
            Ok(out)
        };
        tokio::time::timeout(DOCUMENT_TIME, read)
            .await
            .unwrap_or_else(|_| {
                Err(FetchError::Slow {
                    address: shown(address),
                    limit: DOCUMENT_TIME,
                })
            })
    }

    /// Brings content into the directory of complete content, going on where an earlier attempt stopped.
    /// `progress` is told how many bytes are here.
    ///
    /// Cancel-safe: yes; what was written stays for the next attempt.
    ///
    /// # Errors
    /// [`FetchError`]. Content that is not what was wanted is thrown away.
    pub async fn file(
        &self,
        wanted: &Wanted,
        files: &Files,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), FetchError> {
        if files.has(&wanted.sha256) {
            progress(wanted.size);
            return Ok(());
        }
        let mut tries = 0;
        let mut doubted = false;
        loop {
            let before = length(&files.partial(&wanted.sha256)).await;
            let error = match self.attempt(wanted, files, progress).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            if matches!(error, FetchError::Altered { .. }) {
                remove(&files.partial(&wanted.sha256)).await;
                // What was there from before may have been of something else: once more from the start.
                if before > 0 && !doubted {
                    doubted = true;
                    continue;
                }
                return Err(error);
            }
            if !error.is_passing() {
                return Err(error);
            }
            if length(&files.partial(&wanted.sha256)).await > before {
                tries = 0;
            }
            tries += 1;
            if tries >= MAX_TRIES {
                return Err(error);
            }
            tracing::debug!(address = %shown(&wanted.address), error = %chain(&error), tries, "a download goes on after a pause");
            tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await;
        }
    }

    async fn attempt(
        &self,
        wanted: &Wanted,
        files: &Files,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), FetchError> {
        let path = files.partial(&wanted.sha256);
        let failed = |cause: io::Error| FetchError::Write {
            path: path.clone(),
            cause,
        };
        let altered = |what: String| FetchError::Altered {
            address: shown(&wanted.address),
            what,
        };
        let (mut hash, mut got, file) = resume(path.clone()).await.map_err(failed)?;
        let mut file = BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file));
        if got > wanted.size {
            start_again(&mut file).await.map_err(failed)?;
            (hash, got) = (Sha256::new(), 0);
        }
        progress(got);
        if got < wanted.size {
            let (mut chunks, from) = self.open(&wanted.address, got).await?;
            if from != got {
                start_again(&mut file).await.map_err(failed)?;
                (hash, got) = (Sha256::new(), 0);
            }
            while let Some(chunk) = chunks.next().await {
                let chunk = match chunk {
                    Ok(c) => c,
                    Err(cause) => {
                        file.flush().await.map_err(failed)?;
                        return Err(FetchError::Broken {
                            address: shown(&wanted.address),
                            got,
                            cause: Some(cause),
                        });
                    }
                };
                if got + chunk.len() as u64 > wanted.size {
                    return Err(altered(format!("it has more than {} bytes", wanted.size)));
                }
                file.write_all(&chunk).await.map_err(failed)?;
                hash.update(&chunk);
                got += chunk.len() as u64;
                progress(got);
            }
            file.flush().await.map_err(failed)?;
            if got < wanted.size {
                return Err(FetchError::Broken {
                    address: shown(&wanted.address),
                    got,
                    cause: None,
                });
            }
        }
        let found = hex::encode(hash.finalize());
        if found != wanted.sha256 {
            return Err(altered(format!(
                "its SHA-256 is {found} instead of {}",
                wanted.sha256
            )));
        }
        file.get_ref().sync_all().await.map_err(failed)?;
        drop(file);
        let to = files.complete(&wanted.sha256);
        tokio::fs::rename(&path, &to).await.map_err(failed)?;
        sync_directory(files.dir().to_owned()).await.map_err(failed)
    }

    /// Bytes from an offset on, and the offset at which they really begin: 0 when the other side does
    /// not go on in the middle.
    async fn open(&self, address: &str, offset: u64) -> Result<(Chunks, u64), FetchError> {
        if let Some(path) = directory(address) {
            let failed = |cause: io::Error| FetchError::Read {
                address: address.to_owned(),
                cause,
            };
            let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
            file.seek(io::SeekFrom::Start(offset))
                .await
                .map_err(failed)?;
            return Ok((
                ReaderStream::with_capacity(file, BUFFER / 4).boxed(),
                offset,
            ));
        }
        let mut asked = offset;
        let (response, from) = loop {
            let mut request = self.client.get(address);
            if asked > 0 {
                request = request.header(RANGE, format!("bytes={asked}-"));
            }
            let response = request.send().await.map_err(|e| FetchError::Request {
                address: shown(address),
                cause: e.without_url(),
            })?;
            match response.status() {
                StatusCode::OK => break (response, 0),
                StatusCode::PARTIAL_CONTENT => {
                    let from = response
                        .headers()
                        .get(CONTENT_RANGE)
                        .and_then(|v| v.to_str().ok())
                        .and_then(|v| v.trim().strip_prefix("bytes "))
                        .and_then(|v| v.split('-').next())
                        .and_then(|v| v.trim().parse().ok())
                        .unwrap_or(asked);
                    break (response, from);
                }
                // Shorter over there than what is here: from the start, to see what it is.
                StatusCode::RANGE_NOT_SATISFIABLE if asked > 0 => asked = 0,
                status => {
                    return Err(FetchError::Status {
                        address: shown(address),
                        status,
                    });
                }
            }
        };
        if from != 0 && from != offset {
            return Err(FetchError::Status {
                address: shown(address),
                status: StatusCode::RANGE_NOT_SATISFIABLE,
            });
        }
        let chunks = response
            .bytes_stream()
            .map_err(|e| io::Error::other(e.without_url()))
            .boxed();
        Ok((chunks, from))
    }
}

/// Opens a partial file at its end and hashes what is in it.
async fn resume(path: PathBuf) -> io::Result<(Sha256, u64, std::fs::File)> {
    blocking(move || {
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let mut hash = Sha256::new();
        let got = hash_rest(&mut file, &mut hash)?;
        Ok((hash, got, file))
    })
    .await
}

/// Hashes a file from where it stands to its end; gives the bytes read.
pub(super) fn hash_rest(file: &mut impl io::Read, hash: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER / 4];
    let mut total = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                hash.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

async fn start_again(file: &mut BufWriter<tokio::fs::File>) -> io::Result<()> {
    file.flush().await?;
    file.get_ref().set_len(0).await?;
    file.seek(io::SeekFrom::Start(0)).await?;
    Ok(())
}

async fn length(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |m| m.len())
}

async fn remove(path: &Path) {
    if let Err(e) = tokio::fs::remove_file(path).await
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), error = %e, "a partial file could not be removed");
    }
}

async fn sync_directory(dir: PathBuf) -> io::Result<()> {
    blocking(move || std::fs::File::open(dir)?.sync_all()).await
}

/// Runs file work off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(f)
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_their_password() {
        assert_eq!(
            shown("http://user:secret@host:80/a@b"),
            "http://host:80/a@b"
        );
        assert_eq!(shown("http://host/a@b"), "http://host/a@b");
        assert_eq!(shown("/srv/images"), "/srv/images");
    }

    #[test]
    fn directories_are_told_from_the_web() {
        assert_eq!(directory("/srv/x"), Some(Path::new("/srv/x")));
        assert_eq!(directory("file:///srv/x"), Some(Path::new("/srv/x")));
        assert_eq!(directory("http://host/x"), None);
        assert_eq!(directory("relative"), None);
    }
}
