//! The image: streamed from the rack, hashed on the way, taken up again where a connection broke.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use metal::install::Image;
use sha2::{Digest, Sha256};

use crate::http::{Http, HttpError, Patience, Stream};
use crate::journal::Journal;

/// Time between two progress reports.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Why an image could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The rack did not deliver it.
    #[error("the image stopped at byte {at} of {size}")]
    Broken {
        /// Bytes received.
        at: u64,
        /// Bytes expected.
        size: u64,
        /// The last failure.
        #[source]
        cause: HttpError,
    },
    /// The bytes are not those that were planned.
    #[error("altered image: {url} has SHA-256 {got}, planned was {planned}")]
    AlteredContent {
        /// Where it came from.
        url: String,
        /// What was received.
        got: String,
        /// What the plan says.
        planned: String,
    },
    /// The number of bytes is not what was planned.
    #[error(
        "altered image: {url} has {got} bytes, planned were {planned} (SHA-256 of what came: {got_sha256}, planned: {planned_sha256})"
    )]
    AlteredSize {
        /// Where it came from.
        url: String,
        /// Bytes offered or received.
        got: u64,
        /// Bytes the plan says.
        planned: u64,
        /// Hash of what was received so far.
        got_sha256: String,
        /// What the plan says.
        planned_sha256: String,
    },
}

/// How the image is packed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// `.xz`.
    Xz,
    /// `.bz2`.
    Bzip2,
    /// RFC 8878.
    Zstd,
    /// Not packed, or unknown.
    Plain,
}

impl Packing {
    /// By magic number.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        if first.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if first.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Self::Xz
        } else if first.starts_with(b"BZh") {
            Self::Bzip2
        } else if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::Plain
        }
    }

    /// The program that unpacks it to standard output.
    #[must_use]
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::Gzip => Some("gzip"),
            Self::Xz => Some("xz"),
            Self::Bzip2 => Some("bzip2"),
            Self::Zstd => Some("zstd"),
            Self::Plain => None,
        }
    }

    /// tar's option for it.
    #[must_use]
    pub fn tar_option(self) -> Option<&'static str> {
        match self {
            Self::Gzip => Some("--gzip"),
            Self::Xz => Some("--xz"),
            Self::Bzip2 => Some("--bzip2"),
            Self::Zstd => Some("--zstd"),
            Self::Plain => None,
        }
    }
}

/// The image as bytes that arrive.
pub struct Source<'a> {
    http: &'a Http,
    image: &'a Image,
    patience: Patience,
    journal: &'a Journal,
    stream: Option<Stream>,
    hash: Sha256,
    at: u64,
    first: Vec<u8>,
    first_given: usize,
    failed: Option<ImageError>,
    progress: Box<dyn FnMut(u64, u64) + Send + 'a>,
    reported: Instant,
}

impl<'a> Source<'a> {
    /// Opens the image and reads its first bytes. `progress` is called with bytes received and bytes in
    /// all, at most every [`PROGRESS_INTERVAL`].
    ///
    /// # Errors
    /// When the rack does not deliver it, or offers another size than planned.
    pub fn open(
        http: &'a Http,
        image: &'a Image,
        patience: Patience,
        journal: &'a Journal,
        progress: impl FnMut(u64, u64) + Send + 'a,
    ) -> Result<Self, ImageError> {
        let mut source = Self {
            http,
            image,
            patience,
            journal,
            stream: None,
            hash: Sha256::new(),
            at: 0,
            first: Vec::new(),
            first_given: 0,
            failed: None,
            progress: Box::new(progress),
            reported: Instant::now(),
        };
        let mut first = [0u8; 8];
        let mut filled = 0;
        while filled < first.len() {
            match source.fetch(&mut first[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        source.first = first[..filled].to_vec();
        Ok(source)
    }

    /// How it is packed.
    #[must_use]
    pub fn packing(&self) -> Packing {
        Packing::of(&self.first)
    }

    fn altered_size(&self, got: u64) -> ImageError {
        ImageError::AlteredSize {
            url: self.image.url.clone(),
            got,
            planned: self.image.size,
            got_sha256: hex::encode(self.hash.clone().finalize()),
            planned_sha256: self.image.sha256.clone(),
        }
    }

    /// Connects at the current offset.
    fn connect(&mut self) -> Result<(), Interrupted> {
        let mut stream = self
            .http
            .open(&self.image.url, self.at)
            .map_err(Interrupted::Http)?;
        if let Some(total) = stream.total.filter(|t| *t != self.image.size) {
            return Err(Interrupted::Altered(self.altered_size(total)));
        }
        if stream.status == 200 && self.at > 0 {
            // A server that knows no ranges starts again; what is known already is passed over.
            let passed = io::copy(&mut (&mut stream.body).take(self.at), &mut io::sink());
            if passed.ok() != Some(self.at) {
                return Err(Interrupted::Http(
                    self.away("broke off before the place where it stopped".to_owned()),
                ));
            }
        }
        self.stream = Some(stream);
        Ok(())
    }

    fn away(&self, last: String) -> HttpError {
        HttpError::Away {
            url: self.image.url.clone(),
            tries: 1,
            waited: Duration::ZERO,
            last,
        }
    }

    /// Reads from the rack, reconnecting while patience lasts; patience starts anew with every byte.
    fn fetch(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let started = Instant::now();
        let mut wait = self.patience.first;
        loop {
            let why = match self.try_fetch(buffer) {
                Ok(n) => {
                    self.hash.update(&buffer[..n]);
                    self.at += n as u64;
                    if self.at > self.image.size {
                        return Err(self.altered_size(self.at));
                    }
                    if self.reported.elapsed() >= PROGRESS_INTERVAL {
                        self.reported = Instant::now();
                        (self.progress)(self.at, self.image.size);
                    }
                    return Ok(n);
                }
                Err(Interrupted::Altered(e)) => return Err(e),
                Err(Interrupted::Http(e)) => e,
            };
            self.stream = None;
            let refused = matches!(why, HttpError::Refused { .. });
            if refused || started.elapsed() + wait > self.patience.limit {
                return Err(ImageError::Broken {
                    at: self.at,
                    size: self.image.size,
                    cause: why,
                });
            }
            self.journal.line(format_args!(
                "the image broke off at byte {} ({why}), trying again",
                self.at
            ));
            std::thread::sleep(wait);
            wait = (wait * 2).min(self.patience.most);
        }
    }

    fn try_fetch(&mut self, buffer: &mut [u8]) -> Result<usize, Interrupted> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.stream.is_none() {
            if self.at == self.image.size && self.at > 0 {
                return Ok(0);
            }
            self.connect()?;
        }
        let Some(stream) = &mut self.stream else {
            return Ok(0);
        };
        match stream.body.read(buffer) {
            Ok(0) if self.at < self.image.size => Err(Interrupted::Http(
                self.away("the connection ended early".to_owned()),
            )),
            Ok(n) => Ok(n),
            Err(e) => Err(Interrupted::Http(self.away(e.to_string()))),
        }
    }

    /// Reads what is left and compares size and hash with the plan. To be called after the unpacker
    /// ended, well or not: an image that is altered explains why it could not be unpacked.
    ///
    /// # Errors
    /// When the image did not arrive or is altered.
    pub fn verify(mut self) -> Result<u64, ImageError> {
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            if let Some(e) = self.failed.take() {
                return Err(e);
            }
            if self.fetch(&mut buffer)? == 0 {
                break;
            }
        }
        if self.at != self.image.size {
            return Err(self.altered_size(self.at));
        }
        let got = hex::encode(self.hash.finalize());
        if got.eq_ignore_ascii_case(&self.image.sha256) {
            return Ok(self.at);
        }
        Err(ImageError::AlteredContent {
            url: self.image.url.clone(),
            got,
            planned: self.image.sha256.clone(),
        })
    }
}

/// Why there are no bytes now.
enum Interrupted {
    Http(HttpError),
    Altered(ImageError),
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.first_given < self.first.len() {
            let n = buffer.len().min(self.first.len() - self.first_given);
            buffer[..n].copy_from_slice(&self.first[self.first_given..self.first_given + n]);
            self.first_given += n;
            return Ok(n);
        }
        if self.failed.is_some() {
            return Err(io::Error::other("the image is gone"));
        }
        self.fetch(buffer).map_err(|e| {
            let text = e.to_string();
            self.failed = Some(e);
            io::Error::other(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_by_their_first_bytes() {
        assert_eq!(Packing::of(&[0x1f, 0x8b, 8]), Packing::Gzip);
        assert_eq!(Packing::of(&[0x28, 0xb5, 0x2f, 0xfd, 4]), Packing::Zstd);
        assert_eq!(Packing::of(b"BZh9"), Packing::Bzip2);
        assert_eq!(Packing::of(b"hsqs"), Packing::Plain);
        assert_eq!(Packing::of(b""), Packing::Plain);
    }
}
