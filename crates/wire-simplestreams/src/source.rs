//! Where a source's documents are, and opening one.

use crate::clearsign::{ClearSigned, ClearSignedError, DOCUMENT_MAX};
use crate::keyring::{Keyring, Signer, VerifyError};
use crate::path::{PathError, StreamPath};

/// What a document must show before it is believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// A good signature by a key of this keyring; unsigned documents are refused.
    Signed {
        /// The keys.
        keyring: &'a Keyring,
        /// Now, in seconds since 1970, for keys and signatures that expire.
        now: u64,
    },
    /// Nothing: the operator has asked for an unsigned source. A signature that is there is taken
    /// off and not looked at.
    Unsigned,
}

/// Why a document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// More than [`DOCUMENT_MAX`] bytes.
    #[error("the document is larger than {DOCUMENT_MAX} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("the document is not text")]
    NotText,
    /// The clear-signed form is broken, or there is none.
    #[error("the document cannot be taken apart")]
    ClearSigned(#[source] ClearSignedError),
    /// The signature is not good.
    #[error("the document's signature is not accepted")]
    Signature(#[source] VerifyError),
}

/// Opens a document: verifies and removes its signature as `trust` demands, and returns the JSON
/// text and, if one was verified, who signed.
///
/// # Errors
/// [`OpenError`] says why it is not believed; nothing of it may be used then.
pub fn open_document(
    bytes: &[u8],
    trust: Trust<'_>,
) -> Result<(String, Option<Signer>), OpenError> {
    if bytes.len() > DOCUMENT_MAX {
        return Err(OpenError::TooLarge);
    }
    match trust {
        Trust::Signed { keyring, now } => {
            let signed = ClearSigned::parse(bytes).map_err(OpenError::ClearSigned)?;
            let signer = keyring.verify(&signed, now).map_err(OpenError::Signature)?;
            Ok((signed.into_text(), Some(signer)))
        }
        Trust::Unsigned if ClearSigned::looks_like(bytes) => {
            let signed = ClearSigned::parse(bytes).map_err(OpenError::ClearSigned)?;
            Ok((signed.into_text(), None))
        }
        Trust::Unsigned => {
            let text = str::from_utf8(bytes).map_err(|_| OpenError::NotText)?;
            Ok((text.to_owned(), None))
        }
    }
}

/// A source's root and its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// URL or directory that all paths are relative to, without a slash at its end.
    pub root: String,
    /// The index, below the root.
    pub index_path: StreamPath,
}

/// Why a source's address is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Nothing is left of it.
    #[error("the source has no address")]
    Empty,
    /// The named index is not below the root.
    #[error("the index named by the address is not acceptable")]
    Index(#[source] PathError),
}

impl Location {
    /// Reads the address of a source: its root, or the address of an index
    /// (`.../streams/v1/NAME.json` or `.sjson`) in it. Without one, `index.sjson` is meant when
    /// signatures are wanted, else `index.json`.
    ///
    /// # Errors
    /// [`LocationError`] if there is no root or the index's name cannot be used.
    pub fn new(address: &str, signed: bool) -> Result<Self, LocationError> {
        const DIRECTORY: &str = "streams/v1/";
        let address = address.trim();
        let named = address.rfind(DIRECTORY).filter(|&at| {
            let name = address.get(at + DIRECTORY.len()..).unwrap_or_default();
            let document = name.ends_with(".json") || name.ends_with(".sjson");
            document
                && (at == 0
                    || address
                        .get(..at)
                        .is_some_and(|before| before.ends_with('/')))
        });
        let (root, index) = match named {
            Some(at) => address.split_at(at),
            None => (
                address,
                if signed {
                    "streams/v1/index.sjson"
                } else {
                    "streams/v1/index.json"
                },
            ),
        };
        let root = root.trim_end_matches('/');
        if root.is_empty() || root.ends_with(':') {
            return Err(LocationError::Empty);
        }
        Ok(Self {
            root: root.to_owned(),
            index_path: StreamPath::new(index).map_err(LocationError::Index)?,
        })
    }

    /// The address of a document or file of this source.
    #[must_use]
    pub fn join(&self, path: &StreamPath) -> String {
        format!("{}/{path}", self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_root_or_an_index() {
        let check = |address: &str, signed, root: &str, index: &str| {
            let location = Location::new(address, signed).unwrap();
            assert_eq!(
                (location.root.as_str(), location.index_path.as_str()),
                (root, index),
                "{address}"
            );
        };
        check(
            "http://images.maas.io/ephemeral-v3/stable",
            true,
            "http://images.maas.io/ephemeral-v3/stable",
            "streams/v1/index.sjson",
        );
        check(
            "http://mirror:8080/x/",
            false,
            "http://mirror:8080/x",
            "streams/v1/index.json",
        );
        check(
            "http://mirror/streams/v1/candidate.sjson",
            true,
            "http://mirror",
            "streams/v1/candidate.sjson",
        );
        check(
            "http://mirror/streams/v1/",
            true,
            "http://mirror/streams/v1",
            "streams/v1/index.sjson",
        );
        check("/srv/mirror", false, "/srv/mirror", "streams/v1/index.json");
        let location = Location::new("http://mirror/x/streams/v1/index.json", false).unwrap();
        assert_eq!(
            location.join(&location.index_path),
            "http://mirror/x/streams/v1/index.json"
        );
        for bad in ["", " ", "/", "http://", "streams/v1/index.json"] {
            assert_eq!(
                Location::new(bad, true),
                Err(LocationError::Empty),
                "{bad:?}"
            );
        }
        assert!(matches!(
            Location::new("http://m/streams/v1/../x.json", true),
            Err(LocationError::Index(_))
        ));
    }
}
