//! Boot images as SimpleStreams publishes them: index and product documents, their clear-signed
//! form, what of them is bootable, what of that is wanted, and the writing of such a stream.
//!
//! Bytes go in, lists come out. This crate must never know about HTTP, files on disk, the
//! database or the clock: the caller fetches [`Location::index_path`], opens it with
//! [`open_document`], reads [`Index`] and each [`ProductsDocument`] it names, keeps the flattened
//! [`CachedProduct`]s, and asks [`plan()`] what to download and what to drop.
//!
//! A signature is checked before a single byte is read as JSON. Documents are bounded in size, and
//! every path in them is proven to stay below the source's root ([`StreamPath`]). A product that
//! is not understood is left out with a reason ([`Skipped`]), never a reason to refuse the rest.
//!
//! Start reading at [`open_document`], then [`ProductsDocument::flatten`] and [`plan()`];
//! [`writer`] is the other direction.

#![forbid(unsafe_code)]

mod clearsign;
mod document;
mod keyring;
mod path;
mod plan;
mod product;
mod source;
pub mod writer;

pub use clearsign::{ClearSigned, ClearSignedError, DOCUMENT_MAX, SIGNATURE_MAX};
pub use document::{
    DocumentError, INDEX_ENTRIES_MAX, ITEMS_MAX, Index, IndexEntry, PRODUCTS_MAX, ProductsDocument,
    VERSIONS_MAX,
};
pub use keyring::{
    FUTURE_SKEW_SECONDS, KEYRING_MAX, KEYS_MAX, Keyring, KeyringError, RSA_BITS_MIN, Refusal,
    RefusedSignature, SIGNATURES_MAX, Signer, VerifyError,
};
pub use path::{PATH_MAX, PathError, StreamPath};
pub use plan::{Download, HeldResource, Plan, ResourceKey, Selection, WantedResource, plan};
pub use product::{
    BOOTLOADERS, BootloaderType, CachedProduct, Flattened, Item, ProductKind, ProductVersion,
    Sha256Hex, SkipReason, Skipped,
};
pub use source::{Location, LocationError, OpenError, Trust, open_document};
