//! What boot loaders are told, as text: pure functions from the snapshot.
//!
//! [`render`] decides with [`metal::boot::decide`] what the machine does, finds the image for it
//! ([`image`]), writes the kernel command line ([`cmdline`]) and puts both into the loader's language
//! ([`text`]). Which machine asks is the caller's business.

pub mod cmdline;
pub mod image;
pub mod text;

use std::net::SocketAddr;

use link::snapshot::{Blob, Image, Machine, Snapshot};
use metal::boot::{Purpose, decide};

use crate::files::Transport;
use crate::namespace::Loader;

/// Architecture of a machine that nobody knows and whose loader does not say: the only one that loads
/// PXELINUX.
pub const DEFAULT_ARCH: &str = "amd64";

/// One question of a boot loader.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What the rack knows.
    pub snapshot: &'a Snapshot,
    /// The machine; none is one that nobody knows.
    pub machine: Option<&'a Machine>,
    /// Debian's name of the architecture, for machines that nobody knows.
    pub arch: Option<&'a str>,
    /// Who asks.
    pub loader: Loader,
    /// How it asks: GRUB fetches kernel and initrd the same way.
    pub transport: Transport,
    /// The rack's address as the machine reaches it, with the HTTP port.
    pub rack: SocketAddr,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The configuration.
    pub text: String,
    /// What it makes the machine do.
    pub purpose: Purpose,
    /// What is missing, in words, when the configuration only says so on the machine's console.
    pub missing: Option<String>,
}

/// A system to boot from the network.
#[derive(Clone, Debug)]
struct System<'a> {
    image: &'a Image,
    cmdline: String,
}

impl System<'_> {
    /// Path of a file of the image below `images/`. Only the hash counts; the rest is for people.
    fn path(&self, blob: &Blob) -> String {
        image_path(self.image, blob)
    }
}

/// Path of a file of an image below `images/`: `HASH/OS/ARCH/SUBARCH/RELEASE/LABEL/FILENAME`.
#[must_use]
pub fn image_path(image: &Image, blob: &Blob) -> String {
    let parts = [
        blob.sha256.as_str(),
        &image.osystem,
        &image.arch,
        &image.subarch,
        &image.release,
        &image.label,
        &blob.filename,
    ];
    parts.map(|p| plain(p, "-")).join("/")
}

/// Answers a boot loader.
#[must_use]
pub fn render(q: &Question<'_>) -> Rendered {
    let purpose = decide(q.machine.map(|m| &m.facts));
    let arch = machine_arch(q);
    match purpose {
        Purpose::Local => Rendered {
            text: text::local(q.loader, arch),
            purpose,
            missing: None,
        },
        Purpose::Enlist | Purpose::Commissioning | Purpose::Xinstall | Purpose::Poweroff => {
            match image::choose(q.snapshot, q.machine, purpose, arch) {
                Ok(image) => {
                    let system = System {
                        image,
                        cmdline: cmdline::render(q, image),
                    };
                    Rendered {
                        text: text::system(q, &system),
                        purpose,
                        missing: None,
                    }
                }
                Err(missing) => {
                    let words = missing.to_string();
                    Rendered {
                        text: text::missing(q.loader, &words),
                        purpose,
                        missing: Some(words),
                    }
                }
            }
        }
    }
}

/// Debian's architecture name of whoever asks.
fn machine_arch<'a>(q: &Question<'a>) -> &'a str {
    let known = q
        .machine
        .and_then(|m| m.architecture.split('/').next())
        .filter(|a| !a.is_empty());
    known.or(q.arch).unwrap_or(DEFAULT_ARCH)
}

/// `text` with everything but harmless characters of a path segment replaced; `fallback` when empty.
fn plain(text: &str, fallback: &str) -> String {
    let cleaned: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '~') {
                c
            } else {
                '_'
            }
        })
        .collect();
    if cleaned.is_empty() || cleaned.bytes().all(|b| b == b'.') {
        fallback.to_owned()
    } else {
        cleaned
    }
}

#[cfg(test)]
mod tests;
