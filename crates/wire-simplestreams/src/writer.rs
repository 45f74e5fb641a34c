//! The other direction: describing images so that any reader of SimpleStreams finds them.
//!
//! The caller lays the files out below a root, describes each with [`FileFacts`], and writes the
//! documents of [`publish`] beside them. Signing is the caller's, over
//! [`crate::ClearSigned::canonical`].

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::path::StreamPath;
use crate::product::{BootloaderType, Sha256Hex};

/// Bytes read at once while hashing.
const BUFFER: usize = 64 * 1024;

/// Hash and size of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// SHA-256.
    pub sha256: Sha256Hex,
    /// Bytes.
    pub size: u64,
}

impl FileFacts {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// Those of `file`.
    pub fn of(mut file: impl Read) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut size = 0u64;
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    hash.update(buffer.get(..len).unwrap_or_default());
                    size = size.saturating_add(len as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            sha256: Sha256Hex::from_digest(hash.finalize().into()),
            size,
        })
    }
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// `boot-kernel`, `boot-initrd`, `squashfs`, `root-tgz`, ...; also its key in the document
    /// unless [`ImageFile::name`] is set.
    pub ftype: String,
    /// Key in the document, where it differs from the type.
    pub name: Option<String>,
    /// Where it is below the root.
    pub path: StreamPath,
    /// What it is.
    pub facts: FileFacts,
    /// Further keys: `kpackage`, `src_package`, ...
    pub extra: BTreeMap<String, String>,
}

/// One version of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Product name; [`product_name`] makes the usual one.
    pub product: String,
    /// Operating system or boot loader.
    pub os: String,
    /// Release; empty for boot loaders.
    pub release: String,
    /// Architecture.
    pub arch: String,
    /// Subarch; empty for boot loaders.
    pub subarch: String,
    /// Subarches served, [`Image::subarch`] among them.
    pub subarches: Vec<String>,
    /// Label.
    pub label: String,
    /// For boot loaders.
    pub bootloader_type: Option<BootloaderType>,
    /// Further keys of the product: `version`, `release_title`, `release_codename`,
    /// `support_eol`, `kflavor`, `krel`, `kparams`, `arches`, ...
    pub extra: BTreeMap<String, String>,
    /// `YYYYMMDD` or `YYYYMMDD.N`.
    pub version: String,
    /// Its files.
    pub files: Vec<ImageFile>,
}

/// `PREFIX:boot:24.04:amd64:ga-24.04`, in the manner of the official stream.
#[must_use]
pub fn product_name(prefix: &str, version: &str, arch: &str, subarch: &str) -> String {
    format!("{prefix}:boot:{version}:{arch}:{subarch}")
}

/// The two documents of a stream, unsigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// Where the index goes.
    pub index_path: StreamPath,
    /// The index.
    pub index: String,
    /// Where the products go.
    pub products_path: StreamPath,
    /// The products.
    pub products: String,
}

/// File extension, and with it the paths within the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.json`
    Plain,
    /// `.sjson`: the caller signs both documents.
    Signed,
}

/// Why a stream cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The content id makes no file name.
    #[error("{0:?} cannot be a content id")]
    ContentId(String),
    /// Two images of one product disagree about it.
    #[error("two images give product {product} different values for {key:?}")]
    Disagree {
        /// Which product.
        product: String,
        /// Which key.
        key: String,
    },
    /// One version twice.
    #[error("version {version} of product {product} is there twice")]
    Twice {
        /// Which product.
        product: String,
        /// Which version.
        version: String,
    },
    /// Two files of an image with one name.
    #[error("version {version} of product {product} has two items {item:?}")]
    TwoItems {
        /// Which product.
        product: String,
        /// Which version.
        version: String,
        /// Which item.
        item: String,
    },
}

/// Writes index and products for `images`. `updated` is seconds since 1970.
///
/// The result depends on the arguments alone, whatever the order of the images.
///
/// # Errors
/// [`PublishError`] if the images cannot be told apart or contradict each other.
pub fn publish(
    content_id: &str,
    updated: u64,
    images: &[Image],
    form: Form,
) -> Result<Documents, PublishError> {
    let extension = match form {
        Form::Plain => "json",
        Form::Signed => "sjson",
    };
    let bad_id = || PublishError::ContentId(content_id.to_owned());
    if content_id.is_empty() || content_id.contains('/') {
        return Err(bad_id());
    }
    let path = |name: &str| {
        StreamPath::new(&format!("streams/v1/{name}.{extension}")).map_err(|_| bad_id())
    };
    let (index_path, products_path) = (path("index")?, path(content_id)?);
    let updated = http_date(updated);

    // The keys of each product, and its versions.
    type Product<'a> = (Map<String, Value>, BTreeMap<&'a str, Value>);
    let mut products: BTreeMap<&str, Product<'_>> = BTreeMap::new();
    for image in images {
        let keys = product_keys(image);
        let (known, versions) = products
            .entry(&image.product)
            .or_insert_with(|| (keys.clone(), BTreeMap::new()));
        let all = known.keys().chain(keys.keys());
        if let Some(key) = all
            .into_iter()
            .find(|key| known.get(*key) != keys.get(*key))
        {
            return Err(PublishError::Disagree {
                product: image.product.clone(),
                key: key.clone(),
            });
        }
        let (product, version) = (image.product.clone(), image.version.clone());
        if versions
            .insert(&image.version, json!({ "items": items(image)? }))
            .is_some()
        {
            return Err(PublishError::Twice { product, version });
        }
    }
    let names: Vec<&str> = products.keys().copied().collect();
    let products: Map<String, Value> = products
        .iter()
        .map(|(name, (keys, versions))| {
            let mut product = keys.clone();
            product.insert("versions".into(), json!(versions));
            ((*name).to_owned(), Value::Object(product))
        })
        .collect();
    let datatype = "image-downloads";
    let index = json!({
        "format": "index:1.0",
        "updated": updated,
        "index": { content_id: {
            "path": products_path.as_str(), "format": "products:1.0", "datatype": datatype, "updated": updated,
            "products": names,
        } },
    });
    let document = json!({
        "format": "products:1.0", "content_id": content_id, "datatype": datatype, "updated": updated,
        "products": products,
    });
    Ok(Documents {
        index_path,
        index: format!("{index:#}\n"),
        products_path,
        products: format!("{document:#}\n"),
    })
}

fn product_keys(image: &Image) -> Map<String, Value> {
    let mut subarches = image.subarches.clone();
    if !image.subarch.is_empty() && !subarches.contains(&image.subarch) {
        subarches.push(image.subarch.clone());
    }
    let subarches = subarches.join(",");
    let bootloader_type = image.bootloader_type.map_or("", BootloaderType::as_str);
    let keys = [
        ("os", image.os.as_str()),
        ("release", &image.release),
        ("arch", &image.arch),
        ("subarch", &image.subarch),
        ("subarches", &subarches),
        ("label", &image.label),
        ("bootloader-type", bootloader_type),
    ];
    let extra = image
        .extra
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let present = extra.chain(keys).filter(|(_, value)| !value.is_empty());
    present
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect()
}

fn items(image: &Image) -> Result<Map<String, Value>, PublishError> {
    let mut items = Map::new();
    for file in &image.files {
        let mut item: Map<String, Value> = file
            .extra
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
            .collect();
        item.insert("ftype".into(), file.ftype.as_str().into());
        item.insert("path".into(), file.path.as_str().into());
        item.insert("sha256".into(), file.facts.sha256.as_str().into());
        item.insert("size".into(), file.facts.size.into());
        let name = file.name.as_ref().unwrap_or(&file.ftype);
        if items.insert(name.clone(), Value::Object(item)).is_some() {
            return Err(PublishError::TwoItems {
                product: image.product.clone(),
                version: image.version.clone(),
                item: name.clone(),
            });
        }
    }
    Ok(items)
}

/// `Tue, 11 Aug 2026 00:00:00 +0000`, as the official stream dates its documents.
#[must_use]
pub fn http_date(unix_seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Counted in eras of 400 years from 1 March of year 0: the leap day is then the last of a year.
    let day = days.saturating_add(719_468);
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12;
    let year = era * 400 + year + u64::from(month < 2);
    let name = |names: &[&'static str], at: u64| {
        usize::try_from(at)
            .ok()
            .and_then(|at| names.get(at).copied())
            .unwrap_or("")
    };
    format!(
        "{}, {day_of_month:02} {} {year:04} {:02}:{:02}:{:02} +0000",
        name(&DAYS, days % 7),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_786_406_400, "Tue, 11 Aug 2026 00:00:00 +0000"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 +0000"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 +0000"),
        ] {
            assert_eq!(http_date(seconds), date);
        }
    }

    #[test]
    fn a_file_is_hashed_and_measured() {
        let facts = FileFacts::of(&b"abc"[..]).unwrap();
        assert_eq!(
            facts.sha256.as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(facts.size, 3);
        assert_eq!(
            FileFacts::of(&vec![0; 3 * BUFFER + 1][..]).unwrap().size,
            3 * BUFFER as u64 + 1
        );
    }
}
