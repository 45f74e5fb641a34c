//! What a booting machine can ask for, over TFTP and HTTP alike: [`Files::open`].
//!
//! Boot configurations are rendered from the snapshot as it is at that moment; content comes out of the
//! [`crate::cache`]; boot loaders come from the region's images, else from the distribution's packages.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use link::message::{BootConfig, Report};
use link::snapshot::{self, Machine, Snapshot};
use metal::timeline::{Entry, What};
use metal::{MacAddr, Timestamp};

use crate::bootconfig::{self, Question};
use crate::cache::fill::{Fill, read_file};
use crate::cache::{self, Cache, CacheError};
use crate::loaders::Loaders;
use crate::namespace::{Ask, HASH_DIGITS, Loader, Who, parse};
use crate::shared::Shared;
use crate::spool::Spool;

/// How long a boot configuration waits until it is kept to whom it went.
const KEEP_LIMIT: Duration = Duration::from_secs(2);

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
    cache: Cache,
    loaders: Loaders,
    spool: Spool,
    http_port: u16,
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

/// Why a file cannot be opened, for who can say so to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such file for this client.
    #[error("no such file")]
    NotFound,
    /// There may be such a file, but it cannot be had now.
    #[error("the file cannot be had now: {0}")]
    Unavailable(#[source] CacheError),
}

/// Readable content. Cheap to clone; reads at any offset, from several tasks at once.
#[derive(Clone, Debug)]
pub struct Content {
    size: u64,
    sha256: Option<Arc<str>>,
    source: Source,
    reader: Option<Arc<Reader>>,
}

#[derive(Clone, Debug)]
enum Source {
    File(Arc<File>),
    Fill(Arc<Fill>),
}

/// Who reads, for the note about altered content.
struct Reader {
    shared: Shared,
    client: IpAddr,
    path: String,
    noted: AtomicBool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("client", &self.client)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
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
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let max = max.min(left);
        if max == 0 {
            return Ok(Bytes::new());
        }
        let read = match &self.source {
            Source::File(file) => read_file(file, offset, max).await,
            Source::Fill(fill) => fill.read_at(offset, max).await,
        };
        match read {
            Ok(bytes) if bytes.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                self.note_altered(&error);
                Err(error)
            }
        }
    }

    fn note_altered(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|e| e.downcast_ref::<CacheError>());
        if let (Some(altered @ CacheError::Altered { .. }), Some(reader)) = (cause, &self.reader)
            && !reader.noted.swap(true, Ordering::Relaxed)
        {
            reader.shared.note_for(
                reader.client,
                What::Note {
                    text: format!("{altered} (asked for as {})", reader.path),
                },
            );
        }
    }
}

/// The clock at the edge of this crate.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

impl Files {
    /// The namespace over the shared snapshot. `http_port` is where this rack serves HTTP, for URLs in
    /// configurations.
    #[must_use]
    pub fn new(
        shared: Shared,
        cache: Cache,
        loaders: Loaders,
        spool: Spool,
        http_port: u16,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                shared,
                cache,
                loaders,
                spool,
                http_port,
            }),
        }
    }

    /// The port that machines reach this rack's HTTP at.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.inner.http_port
    }

    /// Opens a path. Boot configurations are recorded in the timeline here; transfers of files are
    /// recorded by the caller, who knows how they ended. Cancel-safe: yes.
    ///
    /// # Errors
    /// [`NotFound`] when there is no such path for this client.
    pub async fn open(&self, path: &str, context: ClientContext) -> Result<Opened, NotFound> {
        self.open_or_why(path, context).await.map_err(|_| NotFound)
    }

    /// As [`Self::open`], telling what does not exist from what cannot be had now.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_or_why(
        &self,
        path: &str,
        context: ClientContext,
    ) -> Result<Opened, OpenError> {
        match parse(path) {
            Ask::Nothing => Err(OpenError::NotFound),
            Ask::Chain(loader) => Ok(Opened::Rendered(bootconfig::text::chain(loader).into())),
            Ask::Config { loader, who, arch } => {
                self.config(path, loader, &who, arch, context).await
            }
            Ask::Blob(prefix) => {
                let sha256 = self.full_hash(prefix).ok_or(OpenError::NotFound)?;
                self.blob(&sha256, path, context).await
            }
            Ask::File(name) => self.file(&name, path, context).await,
        }
    }

    async fn config(
        &self,
        path: &str,
        loader: Loader,
        who: &Who,
        implied_arch: Option<&'static str>,
        context: ClientContext,
    ) -> Result<Opened, OpenError> {
        let shared = &self.inner.shared;
        let snapshot = shared.snapshot();
        let leased = shared.client_mac(context.ip);
        let (machine, mac) = match who {
            Who::Mac(mac) => (machine_with_mac(&snapshot, *mac), Some(*mac)),
            Who::Uuid(uuid) => {
                let m = snapshot.machines.values().find(|m| {
                    m.hardware_uuid
                        .as_deref()
                        .is_some_and(|u| u.eq_ignore_ascii_case(uuid))
                });
                (m, leased)
            }
            // A loader that cannot name its machine asks for this; its address may still tell.
            Who::Default(_) => (
                leased.and_then(|mac| machine_with_mac(&snapshot, mac)),
                leased,
            ),
        };
        // What it said itself counts before the region, which may be away, has taken it.
        let told = machine
            .filter(|m| self.inner.spool.boots_disk(&m.macs))
            .map(|m| {
                let mut m = m.clone();
                m.facts.netboot = false;
                m
            });
        let machine = told.as_ref().or(machine);
        let arch = match who {
            Who::Default(arch) => arch.as_deref().or(implied_arch),
            Who::Mac(_) | Who::Uuid(_) if machine.is_none() => {
                // Not for us to say: the loader goes on to `default-ARCH`, and only that enlists.
                if let Some(mac) = mac {
                    shared.saw_config(context.ip, mac, now());
                }
                return Err(OpenError::NotFound);
            }
            Who::Mac(_) | Who::Uuid(_) => implied_arch,
        };
        let rack = SocketAddr::new(context.local, self.inner.http_port);
        let question = Question {
            snapshot: &snapshot,
            machine,
            arch,
            loader,
            transport: context.transport,
            rack,
        };
        let rendered = bootconfig::render(&question);

        let at = now();
        let mut words = Vec::new();
        if let Who::Mac(mac) = who
            && !shared.saw_config(context.ip, *mac, at)
        {
            words.push(format!("the configuration of {mac} was asked for from {}, which is leased to another machine", context.ip));
        }
        if let Some(missing) = &rendered.missing {
            words.push(missing.clone());
        }
        let entry = |what| Entry {
            mac,
            ip: Some(context.ip),
            system_id: machine.map(|m| m.system_id.clone()),
            ..Entry::new(at, what)
        };
        shared.note(entry(What::Config {
            loader: loader.word().into(),
            path: tidy(path),
            purpose: rendered.purpose,
        }));
        for text in words {
            shared.note(entry(What::Note { text }));
        }
        let booted = Report::BootConfig(BootConfig {
            system_id: machine.map(|m| m.system_id.clone()),
            mac,
            ip: context.ip,
            rack_ip: context.local,
            method: method(
                loader,
                implied_arch,
                machine
                    .and_then(|m| m.architecture.split('/').next())
                    .or(arch),
            )
            .into(),
            purpose: rendered.purpose,
            at,
        });
        // Whose address this is, the machine's next requests hang on; where it cannot be kept, or not soon,
        // the machine boots all the same.
        let kept = shared.report_stored(booted);
        tokio::time::timeout(KEEP_LIMIT, kept).await.ok();
        Ok(Opened::Rendered(rendered.text.into()))
    }

    async fn file(
        &self,
        name: &str,
        path: &str,
        context: ClientContext,
    ) -> Result<Opened, OpenError> {
        let snapshot = self.inner.shared.snapshot();
        // The name as asked for, else without the directory that a loader of another architecture lives in.
        let short = name
            .strip_prefix("ppc64el/")
            .or_else(|| name.strip_prefix("s390x/"))
            .unwrap_or(name);
        if let Some(blob) = snapshot
            .loaders
            .get(name)
            .or_else(|| snapshot.loaders.get(short))
        {
            let sha256 = blob.sha256.clone();
            match self.blob(&sha256, path, context).await {
                Ok(opened) => return Ok(opened),
                // Better the distribution's loader than none while the region is away.
                Err(error) => {
                    return self.distribution_file(short).ok_or(error);
                }
            }
        }
        self.distribution_file(short).ok_or(OpenError::NotFound)
    }

    fn distribution_file(&self, name: &str) -> Option<Opened> {
        let (file, size) = self.inner.loaders.open(name)?;
        Some(Opened::Content(Content {
            size,
            sha256: None,
            source: Source::File(Arc::new(file)),
            reader: None,
        }))
    }

    async fn blob(
        &self,
        sha256: &str,
        path: &str,
        context: ClientContext,
    ) -> Result<Opened, OpenError> {
        let (source, size) = match self.inner.cache.open(sha256).await {
            Ok(cache::Blob::Complete { file, size }) => (Source::File(file), size),
            Ok(cache::Blob::Filling { fill, size }) => (Source::Fill(fill), size),
            Err(CacheError::Unknown(_)) => return Err(OpenError::NotFound),
            Err(error) => {
                let text = format!("{} could not be opened: {error}", tidy(path));
                self.inner.shared.note_for(context.ip, What::Note { text });
                return Err(OpenError::Unavailable(error));
            }
        };
        let reader = Reader {
            shared: self.inner.shared.clone(),
            client: context.ip,
            path: tidy(path),
            noted: AtomicBool::new(false),
        };
        let content = Content {
            size,
            sha256: Some(sha256.into()),
            source,
            reader: Some(Arc::new(reader)),
        };
        Ok(Opened::Content(content))
    }

    /// The full hash for a prefix, when exactly one content known here has it.
    fn full_hash(&self, prefix: String) -> Option<String> {
        if prefix.len() == HASH_DIGITS {
            return Some(prefix);
        }
        let snapshot = self.inner.shared.snapshot();
        let mut found: BTreeSet<String> = blobs(&snapshot)
            .filter(|b| b.sha256.starts_with(&prefix))
            .map(|b| b.sha256.clone())
            .collect();
        found.extend(self.inner.cache.with_prefix(&prefix));
        if found.len() == 1 {
            found.pop_first()
        } else {
            None
        }
    }
}

fn blobs(snapshot: &Snapshot) -> impl Iterator<Item = &snapshot::Blob> {
    let images = snapshot
        .images
        .values()
        .flat_map(|i| [Some(&i.kernel), Some(&i.initrd), i.root.as_ref()])
        .flatten();
    images.chain(snapshot.loaders.values())
}

/// The machine with an interface of that address.
pub(crate) fn machine_with_mac(snapshot: &Snapshot, mac: MacAddr) -> Option<&Machine> {
    snapshot.machines.values().find(|m| m.macs.contains(&mac))
}

/// `bios_boot_method` of the API.
fn method(loader: Loader, implied_arch: Option<&str>, arch: Option<&str>) -> &'static str {
    match loader {
        Loader::Ipxe => "ipxe",
        Loader::S390x => "s390x",
        Loader::Pxelinux if implied_arch == Some("ppc64el") => "powernv",
        Loader::Pxelinux => "pxe",
        Loader::Grub if arch == Some("ppc64el") => "open-firmware",
        Loader::Grub => "uefi",
    }
}

/// A path for the timeline: as asked for, but one line and not endless.
fn tidy(path: &str) -> String {
    path.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(crate::namespace::MAX_PATH)
        .collect()
}
