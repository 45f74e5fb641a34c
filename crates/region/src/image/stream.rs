//! Reading a boot source: its index and product documents, verified, as a list of what it offers.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};
use wire_simplestreams::{
    CachedProduct, DOCUMENT_MAX, DocumentError, Index, KEYRING_MAX, Keyring, KeyringError,
    Location, LocationError, OpenError, ProductsDocument, StreamPath, Trust, open_document,
};

use super::fetch::{FetchError, Fetcher, directory, shown};

/// The keyring of the official images.
pub const DEFAULT_KEYRING: &str = "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg";

/// A boot source as it stands in the database.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SourceRow {
    /// Database id.
    pub id: i64,
    /// Address of its root or of an index.
    pub url: String,
    /// File with the keys that sign it, or empty.
    pub keyring_filename: String,
    /// Keys that sign it.
    pub keyring_data: Option<Vec<u8>>,
    /// Why it could not be read the last time, or empty.
    pub last_error: String,
    /// When it was read.
    pub synced: Option<i64>,
    /// When it was made.
    pub created: i64,
    /// When it was changed.
    pub updated: i64,
}

impl std::fmt::Debug for SourceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceRow")
            .field("id", &self.id)
            .field("url", &shown(&self.url))
            .finish_non_exhaustive()
    }
}

/// The columns of a [`SourceRow`], with what follows `FROM boot_source`.
#[macro_export]
macro_rules! select_boot_source {
    ($rest:literal) => {
        concat!(
            "SELECT id, url, keyring_filename, keyring_data, last_error, synced, created, updated FROM boot_source ",
            $rest
        )
    };
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Neither signed nor plainly asked for unsigned.
    #[error(
        "no keyring is given, so nothing could be verified: set keyring_filename or keyring_data, or, to \
         take images without a signature, name the unsigned index (URL/streams/v1/index.json)"
    )]
    Unsigned,
    /// A keyring for documents that carry no signature.
    #[error(
        "a keyring is given, but the URL names an unsigned index: name the signed one (index.sjson), or \
         take the keyring away"
    )]
    SignedJson,
    /// The address is none.
    #[error("the URL is of no use")]
    Location(#[source] LocationError),
    /// The keyring file is not there.
    #[error("the keyring {} cannot be read{hint}", path.display())]
    KeyringFile {
        /// Which file.
        path: PathBuf,
        /// What to install, where that is known.
        hint: &'static str,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The keyring holds no keys.
    #[error("the keyring cannot be used")]
    Keyring(#[source] KeyringError),
    /// A document could not be fetched.
    #[error("a document is missing")]
    Fetch(#[source] FetchError),
    /// A document is not believed.
    #[error("{path} is not accepted")]
    Open {
        /// Which document.
        path: StreamPath,
        /// Why.
        #[source]
        cause: OpenError,
    },
    /// A document makes no sense.
    #[error("{path} cannot be used")]
    Document {
        /// Which document.
        path: StreamPath,
        /// Why.
        #[source]
        cause: DocumentError,
    },
}

/// A product that a source offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// What it is and has.
    pub product: CachedProduct,
    /// Keys of the product that only some images have.
    pub special: Special,
}

/// Keys of a product that only some images have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Special {
    /// How its initrd finds its root.
    pub root_method: String,
    /// Platform of the kernel.
    pub platform: String,
    /// Platforms served, with commas between.
    pub supported_platforms: String,
}

/// What a source offers.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    /// Products, in the order of the documents.
    pub offers: Vec<Offer>,
    /// Products or versions that were left out.
    pub skipped: usize,
}

/// Where a source's documents are and whether they must be signed: with a keyring always; without one
/// only where the operator has named an unsigned index or a directory of this host.
///
/// # Errors
/// [`SourceError`] that says what to change.
pub fn locate(url: &str, has_keyring: bool) -> Result<Location, SourceError> {
    let local = directory(url).is_some();
    let address = url.strip_prefix("file://").unwrap_or(url);
    let location = Location::new(address, has_keyring).map_err(SourceError::Location)?;
    let names_unsigned = location.index_path.as_str().ends_with(".json")
        && url.trim_end().ends_with(location.index_path.as_str());
    match (has_keyring, names_unsigned) {
        (true, true) => Err(SourceError::SignedJson),
        (false, false) if !local => Err(SourceError::Unsigned),
        _ => Ok(location),
    }
}

/// Reads everything that a source says. `now` is seconds since 1970.
///
/// # Errors
/// [`SourceError`]; nothing of the source is used then.
pub async fn read(
    fetcher: &Fetcher,
    source: &SourceRow,
    now: u64,
) -> Result<(Location, Offers), SourceError> {
    let keyring = keyring(source).await?;
    let location = locate(&source.url, keyring.is_some())?;
    let trust = match &keyring {
        Some(keyring) => Trust::Signed { keyring, now },
        None => Trust::Unsigned,
    };
    let (_, text) = document(fetcher, &location, &location.index_path, trust).await?;
    let index = Index::parse(&text).map_err(|cause| SourceError::Document {
        path: location.index_path.clone(),
        cause,
    })?;
    let mut out = Offers::default();
    for entry in index.entries.values() {
        let failed = |cause| SourceError::Document {
            path: entry.path.clone(),
            cause,
        };
        let (raw, text) = document(fetcher, &location, &entry.path, trust).await?;
        entry.check(&raw).map_err(failed)?;
        let parsed = ProductsDocument::parse(&text).map_err(failed)?;
        let flat = parsed.flatten().map_err(failed)?;
        for s in &flat.skipped {
            tracing::debug!(url = %shown(&source.url), product = s.product, reason = %s.reason, "a product is left out");
        }
        out.skipped += flat.skipped.len();
        let mut specials = specials(&text);
        out.offers
            .extend(flat.products.into_iter().map(|product| Offer {
                special: specials.remove(&product.product).unwrap_or_default(),
                product,
            }));
    }
    Ok((location, out))
}

async fn document(
    fetcher: &Fetcher,
    location: &Location,
    path: &StreamPath,
    trust: Trust<'_>,
) -> Result<(Vec<u8>, String), SourceError> {
    let raw = fetcher
        .document(&location.join(path), DOCUMENT_MAX)
        .await
        .map_err(SourceError::Fetch)?;
    let (text, signer) = open_document(&raw, trust).map_err(|cause| SourceError::Open {
        path: path.clone(),
        cause,
    })?;
    if let Some(s) = signer {
        tracing::debug!(%path, key = s.fingerprint, "a signature is good");
    }
    Ok((raw, text))
}

/// The keys that few products have, by product.
fn specials(text: &str) -> std::collections::HashMap<String, Special> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        products: Map<String, Value>,
    }
    let Ok(document) = serde_json::from_str::<Document>(text) else {
        return std::collections::HashMap::new();
    };
    document
        .products
        .into_iter()
        .filter_map(|(name, value)| Some((name, Special::deserialize(value).ok()?)))
        .collect()
}

async fn keyring(source: &SourceRow) -> Result<Option<Keyring>, SourceError> {
    let bytes = match &source.keyring_data {
        Some(data) if !data.is_empty() => data.clone(),
        _ if source.keyring_filename.is_empty() => return Ok(None),
        _ => {
            let path = PathBuf::from(&source.keyring_filename);
            read_keyring(&path)
                .await
                .map_err(|cause| SourceError::KeyringFile {
                    hint: if source.keyring_filename == DEFAULT_KEYRING {
                        " (it comes with the package ubuntu-keyring)"
                    } else {
                        ""
                    },
                    path,
                    cause,
                })?
        }
    };
    Keyring::from_bytes(&bytes)
        .map(Some)
        .map_err(SourceError::Keyring)
}

async fn read_keyring(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let mut out = Vec::new();
    tokio::fs::File::open(path)
        .await?
        .take(KEYRING_MAX as u64 + 1)
        .read_to_end(&mut out)
        .await?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_sources_must_be_asked_for() {
        let ok = |url, keyring| locate(url, keyring).map(|l| l.index_path.as_str().to_owned());
        assert_eq!(ok("http://m/x", true).unwrap(), "streams/v1/index.sjson");
        assert_eq!(
            ok("http://m/streams/v1/index.json", false).unwrap(),
            "streams/v1/index.json"
        );
        assert_eq!(ok("/srv/m", false).unwrap(), "streams/v1/index.json");
        assert_eq!(ok("file:///srv/m", false).unwrap(), "streams/v1/index.json");
        assert_eq!(ok("file:///srv/m", true).unwrap(), "streams/v1/index.sjson");
        assert!(matches!(
            ok("http://m/x", false),
            Err(SourceError::Unsigned)
        ));
        assert!(matches!(
            ok("http://m/streams/v1/index.sjson", false),
            Err(SourceError::Unsigned)
        ));
        assert!(matches!(
            ok("http://m/streams/v1/index.json", true),
            Err(SourceError::SignedJson)
        ));
    }
}
