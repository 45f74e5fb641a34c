//! Reading the machine: `/sys`, `/proc`, `/run` and `/etc` below a root directory that tests can replace.

use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file read as text or bytes.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most entries taken from one directory.
const DIR_ENTRIES_MAX: usize = 65_536;

/// The machine's files, below a root directory.
#[derive(Clone, Debug)]
pub struct Sys {
    root: PathBuf,
}

impl Sys {
    /// The machine as seen below `root`; `/` is the real one.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `path` (with or without a leading slash) below the root.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The content of a file; none when it does not exist or cannot be read.
    #[must_use]
    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let file = std::fs::File::open(self.path(path)).ok()?;
        let mut out = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut out).ok()?;
        Some(out)
    }

    /// The content of a text file without surrounding white space; none also when it is empty.
    #[must_use]
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = self.bytes(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A decimal number in a file.
    #[must_use]
    pub fn number(&self, path: impl AsRef<Path>) -> Option<i64> {
        self.text(path)?.parse().ok()
    }

    /// A hexadecimal number in a file, with or without `0x`.
    #[must_use]
    pub fn hex(&self, path: impl AsRef<Path>) -> Option<u64> {
        let text = self.text(path)?;
        u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    }

    /// The names in a directory, sorted; numbers inside names count as numbers (`cpu2` before `cpu10`).
    #[must_use]
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .take(DIR_ENTRIES_MAX)
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_by_cached_key(|n| natural(n));
        names
    }

    /// Whether something exists there.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The last component of a symbolic link's target.
    #[must_use]
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = std::fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The path with all links resolved, relative to the root; none when it does not exist or leaves the root.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let root = self.root.canonicalize().ok()?;
        let full = self.path(path).canonicalize().ok()?;
        Some(Path::new("/").join(full.strip_prefix(root).ok()?))
    }

    /// udev's properties of a device (`b8:0`, `n2`, `+pci:0000:00:03.0`): what follows `E:` in its database.
    #[must_use]
    pub fn udev(&self, id: &str) -> std::collections::BTreeMap<String, String> {
        let text = self
            .text(Path::new("run/udev/data").join(id))
            .unwrap_or_default();
        text.lines()
            .filter_map(|l| l.strip_prefix("E:")?.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    /// The options of the running kernel.
    #[must_use]
    pub fn kernel_options(&self) -> Vec<String> {
        self.text("proc/cmdline")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }
}

/// A sort key in which runs of digits compare as numbers.
#[must_use]
pub fn natural(name: &str) -> Vec<(String, u64)> {
    let mut out = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (text, tail) = rest.split_at(text_end);
        let digits_end = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (digits, tail) = tail.split_at(digits_end);
        out.push((
            text.to_owned(),
            digits.parse().unwrap_or(u64::from(!digits.is_empty())),
        ));
        rest = tail;
    }
    out
}

/// The last component of `path` that is a PCI address (`0000:00:1f.2`).
#[must_use]
pub fn pci_address(path: &Path) -> Option<String> {
    path.iter()
        .rev()
        .map(|c| c.to_string_lossy())
        .find(|c| is_pci_address(c))
        .map(|c| c.into_owned())
}

/// Whether `text` has the form `0000:00:1f.2`.
#[must_use]
pub fn is_pci_address(text: &str) -> bool {
    let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_hexdigit());
    let mut parts = text.split(':');
    let (Some(domain), Some(bus), Some(rest), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Some((slot, function)) = rest.split_once('.') else {
        return false;
    };
    domain.len() >= 4
        && hex(domain, domain.len())
        && hex(bus, 2)
        && hex(slot, 2)
        && hex(function, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let mut names = vec!["cpu10", "cpu2", "cpufreq", "cpu1"];
        names.sort_by_cached_key(|n| natural(n));
        assert_eq!(names, ["cpu1", "cpu2", "cpu10", "cpufreq"]);
    }

    #[test]
    fn a_pci_address_is_found_behind_a_virtio_device() {
        let path = Path::new("/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0");
        assert_eq!(pci_address(path).as_deref(), Some("0000:00:03.0"));
        assert!(!is_pci_address("pci0000:00") && !is_pci_address("0000:00:03"));
    }
}
