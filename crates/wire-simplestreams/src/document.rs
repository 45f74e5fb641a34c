//! The two documents, `index:1.0` and `products:1.0`. Unknown keys are ignored; a product that
//! does not have the shape of one is left to [`crate::ProductsDocument::flatten`] to report.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::clearsign::DOCUMENT_MAX;
use crate::path::{PathError, StreamPath};
use crate::product::Sha256Hex;

/// Most product documents an index may list.
pub const INDEX_ENTRIES_MAX: usize = 1000;
/// Most products per document. The official stream has a few hundred.
pub const PRODUCTS_MAX: usize = 20_000;
/// Most versions per product.
pub const VERSIONS_MAX: usize = 1000;
/// Most items per version.
pub const ITEMS_MAX: usize = 200;

/// Why a document is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More than [`DOCUMENT_MAX`] bytes.
    #[error("the document is larger than {DOCUMENT_MAX} bytes")]
    TooLarge,
    /// Not the JSON that it should be.
    #[error("the document is not a {expected} document")]
    Json {
        /// `index:1.0` or `products:1.0`.
        expected: &'static str,
        /// Where it breaks.
        #[source]
        cause: serde_json::Error,
    },
    /// Another `format`.
    #[error("the document's format is {found:?} instead of {expected}")]
    Format {
        /// `index:1.0` or `products:1.0`.
        expected: &'static str,
        /// What it says.
        found: String,
    },
    /// More of something than is read.
    #[error("the document has more than {max} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The index names a document outside the source.
    #[error("the path of {content_id} is not acceptable")]
    Path {
        /// Which entry.
        content_id: String,
        /// What is wrong.
        #[source]
        cause: PathError,
    },
    /// The index says another hash or size for this document.
    #[error("the document {path} is not the one that the index lists")]
    Altered {
        /// Where it was fetched from.
        path: StreamPath,
    },
    /// Two items with one hash have two sizes.
    #[error("the document gives two sizes for the file with SHA-256 {0}")]
    SizeConflict(Sha256Hex),
}

/// An index: which product documents a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// When it was written, as it says; text for people.
    pub updated: String,
    /// Its entries of format `products:1.0`, by content id.
    pub entries: BTreeMap<String, IndexEntry>,
    /// Content ids whose format is another.
    pub other_formats: Vec<String>,
}

/// A product document, as the index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where it is.
    pub path: StreamPath,
    /// `image-downloads`, `image-ids` or something else; not to be relied upon.
    pub datatype: String,
    /// When it was written, as the index says.
    pub updated: String,
    /// Names of its products.
    pub products: Vec<String>,
    /// SHA-256 of the document as fetched, if the index gives one.
    pub sha256: Option<Sha256Hex>,
    /// Size of the document as fetched in bytes, if the index gives one.
    pub size: Option<u64>,
}

impl IndexEntry {
    /// Compares a fetched document with what the index says about it, if it says anything.
    ///
    /// # Errors
    /// [`DocumentError::Altered`].
    pub fn check(&self, fetched: &[u8]) -> Result<(), DocumentError> {
        let size = self.size.is_none_or(|size| size == fetched.len() as u64);
        let hash = self
            .sha256
            .as_ref()
            .is_none_or(|told| *told == Sha256Hex::from_digest(Sha256::digest(fetched).into()));
        if size && hash {
            Ok(())
        } else {
            Err(DocumentError::Altered {
                path: self.path.clone(),
            })
        }
    }
}

#[derive(Deserialize)]
struct RawIndex {
    format: String,
    #[serde(default, deserialize_with = "text")]
    updated: String,
    #[serde(default)]
    index: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct RawEntry {
    path: String,
    #[serde(default)]
    format: String,
    #[serde(default, deserialize_with = "text")]
    datatype: String,
    #[serde(default, deserialize_with = "text")]
    updated: String,
    #[serde(default)]
    products: Vec<String>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default, deserialize_with = "size")]
    size: Option<u64>,
}

const INDEX_FORMAT: &str = "index:1.0";
const PRODUCTS_FORMAT: &str = "products:1.0";

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// [`DocumentError`]; a single entry with an unacceptable path refuses the whole index.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let raw: RawIndex = json(text, INDEX_FORMAT)?;
        format(&raw.format, INDEX_FORMAT)?;
        bound(raw.index.len(), INDEX_ENTRIES_MAX, "entries")?;
        let mut index = Self {
            updated: raw.updated,
            entries: BTreeMap::new(),
            other_formats: Vec::new(),
        };
        for (content_id, entry) in raw.index {
            if entry.get("format").and_then(Value::as_str) != Some(PRODUCTS_FORMAT) {
                index.other_formats.push(content_id);
                continue;
            }
            let raw: RawEntry =
                serde_json::from_value(entry).map_err(|cause| DocumentError::Json {
                    expected: INDEX_FORMAT,
                    cause,
                })?;
            bound(raw.products.len(), PRODUCTS_MAX, "products")?;
            debug_assert_eq!(raw.format, PRODUCTS_FORMAT);
            let path = StreamPath::new(&raw.path).map_err(|cause| DocumentError::Path {
                content_id: content_id.clone(),
                cause,
            })?;
            let sha256 = match raw.sha256.as_deref().map(Sha256Hex::new) {
                None => None,
                Some(Some(sha256)) => Some(sha256),
                // A hash that is none cannot agree with anything.
                Some(None) => return Err(DocumentError::Altered { path }),
            };
            let entry = IndexEntry {
                path,
                datatype: raw.datatype,
                updated: raw.updated,
                products: raw.products,
                sha256,
                size: raw.size,
            };
            index.entries.insert(content_id, entry);
        }
        Ok(index)
    }
}

/// A product document as read; [`ProductsDocument::flatten`] makes something of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProductsDocument {
    /// Content id, as it says.
    pub content_id: String,
    /// When it was written, as it says.
    pub updated: String,
    /// Its products, in the order of the document.
    pub(crate) products: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct RawProducts {
    format: String,
    #[serde(default, deserialize_with = "text")]
    content_id: String,
    #[serde(default, deserialize_with = "text")]
    updated: String,
    #[serde(default)]
    products: serde_json::Map<String, Value>,
}

impl ProductsDocument {
    /// Reads a product document.
    ///
    /// # Errors
    /// [`DocumentError`] if it is none. Single products are not looked at yet.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let raw: RawProducts = json(text, PRODUCTS_FORMAT)?;
        format(&raw.format, PRODUCTS_FORMAT)?;
        bound(raw.products.len(), PRODUCTS_MAX, "products")?;
        Ok(Self {
            content_id: raw.content_id,
            updated: raw.updated,
            products: raw.products,
        })
    }

    /// Names of all products, whatever they are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.products.keys().map(String::as_str)
    }
}

fn json<'a, T: Deserialize<'a>>(text: &'a str, expected: &'static str) -> Result<T, DocumentError> {
    if text.len() > DOCUMENT_MAX {
        return Err(DocumentError::TooLarge);
    }
    serde_json::from_str(text).map_err(|cause| DocumentError::Json { expected, cause })
}

fn format(found: &str, expected: &'static str) -> Result<(), DocumentError> {
    if found == expected {
        Ok(())
    } else {
        Err(DocumentError::Format {
            expected,
            found: found.chars().take(40).collect(),
        })
    }
}

fn bound(count: usize, max: usize, what: &'static str) -> Result<(), DocumentError> {
    if count > max {
        Err(DocumentError::TooMany { what, max })
    } else {
        Ok(())
    }
}

/// A text, or a number or truth value as one; anything else is an empty text.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    })
}

/// A number of bytes, as a number or as digits; anything else is none.
pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    })
}
