//! Boot loader archives (`tar`, also under `gzip` or `xz`): each file in them becomes content of its own.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use sha2::{Digest as _, Sha256};

use super::blob::Files;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of one file.
    pub file: u64,
    /// Most bytes of all of it, unpacked, headers included.
    pub total: u64,
}

/// The limits of boot loader archives: the largest in use has about 10 MiB.
pub const LIMITS: Limits = Limits {
    entries: 512,
    file: 32 << 20,
    total: 256 << 20,
};
/// Longest name of a file.
pub const NAME_MAX: usize = 100;
/// Most memory for `xz`'s dictionary, in KiB; `xz -9` needs 64 MiB.
pub const XZ_MEMORY_KIB: u32 = 80 << 10;

/// Why an archive is of no use.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It cannot be read, or what is in it cannot be written.
    #[error("the archive cannot be unpacked")]
    Io(#[source] io::Error),
    /// More entries than [`Limits::entries`].
    #[error("the archive has more than {0} entries")]
    TooMany(usize),
    /// A file above [`Limits::file`], or all of it above [`Limits::total`].
    #[error("the archive's files are larger than boot loaders are")]
    TooLarge,
    /// No usable file in it.
    #[error("the archive has no boot loader in it")]
    Empty,
}

/// A file taken out of an archive; its content is held under its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name, without a directory.
    pub name: String,
    /// SHA-256.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Unpacks an archive into the content. Only plain files directly in the archive count; directories,
/// links, devices, files in directories and odd names are left out.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(archive: &Path, files: &Files, limits: Limits) -> Result<Vec<Member>, UnpackError> {
    let mut file = BufReader::new(File::open(archive).map_err(UnpackError::Io)?);
    let mut magic = Vec::new();
    (&mut file)
        .take(6)
        .read_to_end(&mut magic)
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(UnpackError::Io)?;
    let reader: Box<dyn Read> = match magic.as_slice() {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB))
        }
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut bounded = Bounded {
        inner: reader,
        left: limits.total,
        exceeded: false,
    };
    let result = members(&mut bounded, files, limits);
    if bounded.exceeded {
        return Err(UnpackError::TooLarge);
    }
    let members = result?;
    if members.is_empty() {
        return Err(UnpackError::Empty);
    }
    File::open(files.dir())
        .and_then(|d| d.sync_all())
        .map_err(UnpackError::Io)?;
    Ok(members)
}

fn members(
    reader: &mut Bounded<Box<dyn Read>>,
    files: &Files,
    limits: Limits,
) -> Result<Vec<Member>, UnpackError> {
    let mut out: Vec<Member> = Vec::new();
    let mut archive = tar::Archive::new(reader);
    for (seen, entry) in archive.entries().map_err(UnpackError::Io)?.enumerate() {
        let mut entry = entry.map_err(UnpackError::Io)?;
        if seen >= limits.entries {
            return Err(UnpackError::TooMany(limits.entries));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(name) = flat_name(&entry.path_bytes()) else {
            continue;
        };
        if entry.size() > limits.file {
            return Err(UnpackError::TooLarge);
        }
        let member = keep(&mut entry, name, files).map_err(UnpackError::Io)?;
        // The last of several with one name counts, as when unpacking into a directory.
        out.retain(|m| m.name != member.name);
        out.push(member);
    }
    Ok(out)
}

/// The name of a file directly in the archive.
fn flat_name(path: &[u8]) -> Option<String> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-+".contains(b);
    let good =
        !path.is_empty() && path.len() <= NAME_MAX && path[0] != b'.' && path.iter().all(plain);
    good.then(|| String::from_utf8_lossy(path).into_owned())
}

fn keep(reader: &mut impl Read, name: String, files: &Files) -> io::Result<Member> {
    let partial = files
        .partials()
        .join(format!("unpack-{}", uuid::Uuid::new_v4()));
    let written = write(reader, &partial);
    let (sha256, size) = match written {
        Ok(w) => w,
        Err(e) => {
            // The error says more than a failure to clean up after it.
            std::fs::remove_file(&partial).ok();
            return Err(e);
        }
    };
    std::fs::rename(&partial, files.complete(&sha256))?;
    Ok(Member { name, sha256, size })
}

fn write(reader: &mut impl Read, path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::create_new(path)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                file.write_all(&buffer[..n])?;
                hash.update(&buffer[..n]);
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    file.sync_all()?;
    Ok((hex::encode(hash.finalize()), size))
}

/// Reads no more than a number of bytes, and remembers whether there were more.
struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.exceeded = true;
            return Err(io::Error::other("the archive is too large"));
        }
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let n = self.inner.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::at(dir.path().join("images"));
        files.create().unwrap();
        (dir, files)
    }

    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut w =
            lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        w.write_all(bytes).unwrap();
        w.finish().unwrap()
    }

    #[test]
    fn plain_files_come_out_of_all_three_forms() {
        let tar = archive(&[
            ("./", tar::EntryType::Directory, b""),
            ("./bootx64.efi", tar::EntryType::Regular, b"shim"),
            ("grubx64.efi", tar::EntryType::Regular, b"grub"),
        ]);
        for bytes in [tar.clone(), gz(&tar), xz(&tar)] {
            let (dir, files) = files();
            let path = dir.path().join("a");
            std::fs::write(&path, bytes).unwrap();
            let got = unpack(&path, &files, LIMITS).unwrap();
            let names: Vec<_> = got.iter().map(|m| (m.name.as_str(), m.size)).collect();
            assert_eq!(names, [("bootx64.efi", 4), ("grubx64.efi", 4)]);
            assert_eq!(
                std::fs::read(files.complete(&got[0].sha256)).unwrap(),
                b"shim"
            );
            assert_eq!(std::fs::read_dir(files.partials()).unwrap().count(), 0);
        }
    }

    #[test]
    fn nothing_but_plain_flat_files_is_taken() {
        let (dir, files) = files();
        let path = dir.path().join("a");
        let tar = archive(&[
            ("../outside", tar::EntryType::Regular, b"x"),
            ("/absolute", tar::EntryType::Regular, b"x"),
            ("sub/inner.efi", tar::EntryType::Regular, b"x"),
            ("link.efi", tar::EntryType::Symlink, b""),
            ("device", tar::EntryType::Char, b""),
            (".hidden", tar::EntryType::Regular, b"x"),
            ("odd name", tar::EntryType::Regular, b"x"),
        ]);
        std::fs::write(&path, &tar).unwrap();
        assert!(matches!(
            unpack(&path, &files, LIMITS),
            Err(UnpackError::Empty)
        ));
        assert_eq!(files.list().unwrap().len(), 0);
    }

    #[test]
    fn archives_are_bounded() {
        let (dir, files) = files();
        let path = dir.path().join("a");
        let limits = Limits {
            entries: 3,
            file: 4096,
            total: 10_000,
        };
        let file =
            |name: &'static str, content: &'static [u8]| (name, tar::EntryType::Regular, content);
        let small = [file("a", b"1"), file("b", b"2"), file("c", b"3")];
        std::fs::write(&path, archive(&small)).unwrap();
        assert_eq!(unpack(&path, &files, limits).unwrap().len(), 3);
        std::fs::write(&path, archive(&[small[0], small[1], small[2], small[0]])).unwrap();
        assert!(matches!(
            unpack(&path, &files, limits),
            Err(UnpackError::TooMany(3))
        ));
        static LARGE: [u8; 4097] = [0; 4097];
        std::fs::write(&path, gz(&archive(&[file("f", &LARGE)]))).unwrap();
        assert!(matches!(
            unpack(&path, &files, limits),
            Err(UnpackError::TooLarge)
        ));
        // Entries that are left out count too.
        let bomb = [("l", tar::EntryType::Symlink, &LARGE[1..]); 3];
        std::fs::write(&path, gz(&archive(&bomb))).unwrap();
        assert!(matches!(
            unpack(&path, &files, limits),
            Err(UnpackError::TooLarge)
        ));
        std::fs::write(&path, b"not an archive").unwrap();
        assert!(unpack(&path, &files, limits).is_err());
    }
}
