//! Cipher suites of IPMI 2.0 (spec §22.15.2, table 22-20): who authenticates, protects and encrypts how.

use crate::crypto;

/// The algorithm numbers as they stand in an open-session message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithms {
    /// Authentication algorithm (spec table 13-17).
    pub authentication: u8,
    /// Integrity algorithm (spec table 13-18).
    pub integrity: u8,
    /// Confidentiality algorithm (spec table 13-19).
    pub confidentiality: u8,
}

/// A cipher suite that this crate speaks; all of them encrypt with AES-CBC-128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Suite 3: HMAC-SHA1, HMAC-SHA1-96.
    Sha1,
    /// Suite 8: HMAC-MD5, HMAC-MD5-128.
    HmacMd5,
    /// Suite 12: HMAC-MD5, MD5-128.
    Md5,
    /// Suite 17: HMAC-SHA256, HMAC-SHA256-128.
    Sha256,
}

/// Confidentiality algorithm number of AES-CBC-128.
pub const AES_CBC_128: u8 = 1;

impl Suite {
    /// All suites, strongest first.
    pub const ALL: [Suite; 4] = [Suite::Sha256, Suite::Sha1, Suite::HmacMd5, Suite::Md5];

    /// The suite's number.
    pub fn id(self) -> u8 {
        match self {
            Suite::Sha1 => 3,
            Suite::HmacMd5 => 8,
            Suite::Md5 => 12,
            Suite::Sha256 => 17,
        }
    }

    /// The suite with this number, if this crate speaks it.
    pub fn from_id(id: u8) -> Option<Suite> {
        Suite::ALL.into_iter().find(|s| s.id() == id)
    }

    /// The numbers for the open-session messages.
    pub fn algorithms(self) -> Algorithms {
        let (authentication, integrity) = match self {
            Suite::Sha1 => (1, 1),
            Suite::HmacMd5 => (2, 2),
            Suite::Md5 => (2, 3),
            Suite::Sha256 => (3, 4),
        };
        Algorithms {
            authentication,
            integrity,
            confidentiality: AES_CBC_128,
        }
    }

    /// The suite that has these three algorithms.
    pub fn from_algorithms(algorithms: Algorithms) -> Option<Suite> {
        Suite::ALL
            .into_iter()
            .find(|s| s.algorithms() == algorithms)
    }

    /// The keyed hash of the RAKP messages.
    pub(crate) fn rakp_hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Suite::Sha1 => crypto::hmac_sha1(key, parts),
            Suite::HmacMd5 | Suite::Md5 => crypto::hmac_md5(key, parts),
            Suite::Sha256 => crypto::hmac_sha256(key, parts),
        }
    }

    /// Length of the key exchange authentication codes in RAKP 2 and 3, bytes.
    pub fn rakp_code_len(self) -> usize {
        match self {
            Suite::Sha1 => 20,
            Suite::HmacMd5 | Suite::Md5 => 16,
            Suite::Sha256 => 32,
        }
    }

    /// Length of the integrity check value in RAKP 4, bytes.
    pub fn rakp4_code_len(self) -> usize {
        match self {
            Suite::Sha1 => 12,
            Suite::HmacMd5 | Suite::Md5 | Suite::Sha256 => 16,
        }
    }

    /// Length of the authentication code at the end of a session packet, bytes.
    pub fn integrity_len(self) -> usize {
        match self {
            Suite::Sha1 => 12,
            Suite::HmacMd5 | Suite::Md5 | Suite::Sha256 => 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_found_by_number_and_by_algorithms() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_id(suite.id()), Some(suite));
            assert_eq!(Suite::from_algorithms(suite.algorithms()), Some(suite));
            assert_eq!(suite.rakp_hmac(b"k", &[b"x"]).len(), suite.rakp_code_len());
        }
        assert_eq!(Suite::from_id(0), None);
    }
}
