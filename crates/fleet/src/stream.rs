//! A SimpleStreams directory with images that simulated machines boot and install: a few kilobytes each,
//! of use to nobody else.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use wire_simplestreams::StreamPath;
use wire_simplestreams::writer::{
    self, FileFacts, Form, Image, ImageFile, PublishError, product_name,
};

/// The operating system of the images.
pub const OSYSTEM: &str = "simulated";
/// The release of the images.
pub const RELEASE: &str = "one";
/// Version of the images; content below never changes.
const VERSION: &str = "20260101";
/// When the stream says it was updated: 2026-01-01.
const UPDATED: u64 = 1_767_225_600;
/// Bytes of each file before packing.
const SIZE: usize = 8 << 10;

/// Why a stream could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The disk.
    #[error("the simulated images cannot be written")]
    Write(#[source] io::Error),
    /// The description.
    #[error("the simulated images cannot be described")]
    Publish(#[source] PublishError),
    /// A name.
    #[error("{0} cannot be a path of a stream")]
    Path(String),
}

/// Content that says what it is, line after line.
fn content(what: &str) -> Vec<u8> {
    let line = format!("This is the {what} of a simulated system. It boots nothing.\n");
    line.bytes().cycle().take(SIZE).collect()
}

/// A packed root file system with one file in it.
fn root_tgz() -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let text = content("root file system");
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/simulated", &text[..])?;
    tar.into_inner()?.finish()
}

/// Writes the stream below `dir`, unsigned. Doing it again changes nothing.
///
/// # Errors
/// [`StreamError`].
pub fn write(dir: &Path) -> Result<(), StreamError> {
    let files = [
        ("boot-kernel", "boot-kernel", content("kernel")),
        ("boot-initrd", "boot-initrd", content("initrd")),
        ("squashfs", "squashfs", content("ephemeral root")),
        (
            "root-tgz",
            "root.tgz",
            root_tgz().map_err(StreamError::Write)?,
        ),
    ];
    let mut described = Vec::new();
    for (ftype, name, bytes) in files {
        let path = format!("{RELEASE}/amd64/{VERSION}/{name}");
        put(dir, &path, &bytes)?;
        described.push(ImageFile {
            ftype: ftype.into(),
            name: None,
            path: StreamPath::new(&path).map_err(|_| StreamError::Path(path))?,
            facts: FileFacts::of(&bytes[..]).map_err(StreamError::Write)?,
            extra: BTreeMap::new(),
        });
    }
    let extra = [
        ("release_title", "Simulated system"),
        ("version", "1"),
        ("support_eol", "2099-12-31"),
        ("kflavor", "generic"),
    ];
    let image = Image {
        product: product_name("com.example.steelyard:simulated", "1", "amd64", "generic"),
        os: OSYSTEM.into(),
        release: RELEASE.into(),
        arch: "amd64".into(),
        subarch: "generic".into(),
        subarches: vec!["generic".into()],
        label: "stable".into(),
        bootloader_type: None,
        extra: extra.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        version: VERSION.into(),
        files: described,
    };
    let documents = writer::publish(
        "com.example.steelyard:simulated",
        UPDATED,
        &[image],
        Form::Plain,
    )
    .map_err(StreamError::Publish)?;
    put(
        dir,
        documents.products_path.as_str(),
        documents.products.as_bytes(),
    )?;
    // The index last: who finds it finds everything.
    put(
        dir,
        documents.index_path.as_str(),
        documents.index.as_bytes(),
    )
}

fn put(dir: &Path, path: &str, bytes: &[u8]) -> Result<(), StreamError> {
    let to = dir.join(path);
    let written = to
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::File::create(&to))
        .and_then(|mut f| f.write_all(bytes));
    written.map_err(StreamError::Write)
}

#[cfg(test)]
mod tests {
    use wire_simplestreams::ProductsDocument;

    use super::*;

    #[test]
    fn the_stream_holds_one_image_that_boots_and_installs() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let text = std::fs::read_to_string(
            dir.path()
                .join("streams/v1/com.example.steelyard:simulated.json"),
        )
        .unwrap();
        let flat = ProductsDocument::parse(&text).unwrap().flatten().unwrap();
        assert_eq!(flat.skipped, vec![]);
        let [product] = &flat.products[..] else {
            panic!("{} products", flat.products.len())
        };
        assert_eq!(
            (product.os.as_str(), product.release.as_str()),
            (OSYSTEM, RELEASE)
        );
        let version = product.newest().unwrap();
        assert_eq!(version.items.len(), 4);
        for item in &version.items {
            let bytes = std::fs::read(dir.path().join(item.path.as_str())).unwrap();
            assert_eq!(
                FileFacts::of(&bytes[..]).unwrap(),
                FileFacts {
                    sha256: item.sha256.clone(),
                    size: item.size
                }
            );
        }
    }
}
