//! OAuth 1.0 PLAINTEXT (RFC 5849 §3.4.4) with an API key: the consumer secret is empty.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// RFC 3986 §2.3: everything but the unreserved characters is encoded.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An API key: consumer key, token key, token secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials([String; 3]);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.0[1]).finish()
    }
}

/// An API key that is none. It does not say what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an API key has three parts with colons between, CONSUMER:TOKEN:SECRET")]
pub struct NotAKey;

impl FromStr for Credentials {
    type Err = NotAKey;

    fn from_str(s: &str) -> Result<Self, NotAKey> {
        let parts: Vec<&str> = s.trim().split(':').collect();
        match parts[..] {
            [a, b, c]
                if parts
                    .iter()
                    .all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_graphic())) =>
            {
                Ok(Self([a.to_owned(), b.to_owned(), c.to_owned()]))
            }
            _ => Err(NotAKey),
        }
    }
}

impl Credentials {
    /// The part that names the token.
    #[must_use]
    pub fn token_key(&self) -> &str {
        &self.0[1]
    }

    /// The form that people paste.
    #[must_use]
    pub fn joined(&self) -> String {
        self.0.join(":")
    }

    /// The `Authorization` header of one request.
    #[must_use]
    pub fn header(&self) -> String {
        let nonce = format!("{:032x}", rand::random::<u128>());
        let seconds = metal::Timestamp::from_system(SystemTime::now()).seconds();
        self.header_with(&nonce, seconds)
    }

    fn header_with(&self, nonce: &str, seconds: i64) -> String {
        let [consumer, token, secret] = &self.0;
        let signature = format!("&{}", utf8_percent_encode(secret, RESERVED));
        format!(
            "OAuth oauth_nonce=\"{nonce}\", oauth_timestamp=\"{seconds}\", oauth_version=\"1.0\", \
             oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"{}\", oauth_token=\"{}\", oauth_signature=\"{}\"",
            utf8_percent_encode(consumer, RESERVED),
            utf8_percent_encode(token, RESERVED),
            utf8_percent_encode(&signature, RESERVED),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_one_that_servers_expect() {
        let key: Credentials = "ck:tk:ts\n".parse().unwrap();
        assert_eq!(
            key.header_with("n", 12),
            "OAuth oauth_nonce=\"n\", oauth_timestamp=\"12\", oauth_version=\"1.0\", \
             oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"ck\", oauth_token=\"tk\", oauth_signature=\"%26ts\""
        );
    }

    #[test]
    fn what_is_no_key_is_refused_and_a_key_is_not_shown() {
        for bad in ["", "a:b", "a:b:c:d", "a::c", "a:b:c d"] {
            assert_eq!(bad.parse::<Credentials>(), Err(NotAKey), "{bad}");
        }
        let shown = format!("{:?}", "ck:tk:geheim".parse::<Credentials>().unwrap());
        assert!(
            !shown.contains("geheim") && !shown.contains("ck"),
            "{shown}"
        );
    }
}
