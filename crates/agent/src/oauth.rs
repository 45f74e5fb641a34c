//! OAuth 1.0 with the PLAINTEXT signature (RFC 5849 §3.4.4): how a machine proves who it is.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// RFC 5849 §3.6: everything but letters, digits, `-`, `.`, `_` and `~` is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The machine's key. The consumer secret is always empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// OAuth consumer key.
    pub consumer_key: String,
    /// OAuth token key.
    pub token_key: String,
    /// OAuth token secret.
    pub token_secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

impl Credentials {
    /// The value of the `Authorization` header for a request made at `timestamp` (Unix seconds).
    #[must_use]
    pub fn header(&self, timestamp: u64, nonce: &str) -> String {
        let quote = |s: &str| utf8_percent_encode(s, RESERVED).to_string();
        // The signature is the consumer secret (empty), `&`, the token secret, each encoded, and then encoded again.
        let signature = quote(&format!("&{}", quote(&self.token_secret)));
        format!(
            "OAuth oauth_nonce=\"{}\", oauth_timestamp=\"{timestamp}\", oauth_version=\"1.0\", \
             oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"{}\", oauth_token=\"{}\", oauth_signature=\"{signature}\"",
            quote(nonce),
            quote(&self.consumer_key),
            quote(&self.token_key),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_maas_clients_send() {
        let key = Credentials {
            consumer_key: "con".into(),
            token_key: "tok+1".into(),
            token_secret: "sec".into(),
        };
        assert_eq!(
            key.header(1_700_000_000, "n1"),
            "OAuth oauth_nonce=\"n1\", oauth_timestamp=\"1700000000\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", \
             oauth_consumer_key=\"con\", oauth_token=\"tok%2B1\", oauth_signature=\"%26sec\""
        );
        assert!(!format!("{key:?}").contains("sec"));
    }
}
