//! What HTTP requests carry: OAuth signatures and forms.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// RFC 5849 §3.6: everything but letters, digits, `-`, `.`, `_` and `~` is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Percent-encodes a text for a query or a form.
#[must_use]
pub fn quote(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// An OAuth key whose consumer secret is empty, as all keys of the API are.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Consumer key.
    pub consumer_key: String,
    /// Token key.
    pub token_key: String,
    /// Token secret.
    pub token_secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

impl Credentials {
    /// Reads `consumer:token:secret`.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let mut parts = key.trim().split(':').map(str::to_owned);
        let key = Self {
            consumer_key: parts.next()?,
            token_key: parts.next()?,
            token_secret: parts.next()?,
        };
        parts.next().is_none().then_some(key)
    }

    /// The same with a secret that nobody gave out.
    #[must_use]
    pub fn spoiled(&self) -> Self {
        Self {
            token_secret: self.token_secret.chars().rev().chain("x".chars()).collect(),
            ..self.clone()
        }
    }

    /// The `Authorization` header for a request at `timestamp` (seconds since 1970): OAuth 1.0, PLAINTEXT
    /// (RFC 5849 §3.4.4).
    #[must_use]
    pub fn header(&self, timestamp: u64, nonce: &str) -> String {
        // The signature is `&` and the encoded secret, and is encoded again as a parameter's value.
        let signature = quote(&format!("&{}", quote(&self.token_secret)));
        format!(
            "OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_nonce=\"{}\", oauth_timestamp=\"{timestamp}\", \
             oauth_consumer_key=\"{}\", oauth_token=\"{}\", oauth_signature=\"{signature}\"",
            quote(nonce),
            quote(&self.consumer_key),
            quote(&self.token_key),
        )
    }
}

/// A content type and a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// `Content-Type`.
    pub content_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// An `application/x-www-form-urlencoded` body.
#[must_use]
pub fn urlencoded<K: AsRef<str>, V: AsRef<str>>(fields: &[(K, V)]) -> Body {
    Body {
        content_type: "application/x-www-form-urlencoded".into(),
        bytes: query(fields).into_bytes(),
    }
}

/// `a=b&c=d`.
#[must_use]
pub fn query<K: AsRef<str>, V: AsRef<str>>(fields: &[(K, V)]) -> String {
    let pairs = fields
        .iter()
        .map(|(k, v)| format!("{}={}", quote(k.as_ref()), quote(v.as_ref())));
    pairs.collect::<Vec<_>>().join("&")
}

/// A `multipart/form-data` body (RFC 7578). `unique` must not occur in any value.
#[must_use]
pub fn multipart(unique: &str, fields: &[(&str, String)], files: &[(String, Vec<u8>)]) -> Body {
    let boundary = format!("simulated-{unique}");
    let mut bytes = Vec::new();
    let mut part = |disposition: String, kind: &str, content: &[u8]| {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {kind}\r\n\r\n"
        );
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(b"\r\n");
    };
    for (name, value) in fields {
        part(
            format!("name=\"{name}\""),
            "text/plain; charset=utf-8",
            value.as_bytes(),
        );
    }
    for (name, content) in files {
        part(
            format!("name=\"{name}\"; filename=\"{name}\""),
            "application/octet-stream",
            content,
        );
    }
    bytes.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Body {
        content_type: format!("multipart/form-data; boundary={boundary}"),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_signed_and_hidden() {
        let key = Credentials::parse("con:tok:s+c\n").unwrap();
        let header = key.header(7, "n");
        assert!(
            header.contains("oauth_signature=\"%26s%252Bc\"")
                && header.contains("oauth_token=\"tok\""),
            "{header}"
        );
        assert!(!format!("{key:?}").contains("s+c"));
        assert_ne!(key.spoiled(), key);
        assert!(Credentials::parse("a:b").is_none() && Credentials::parse("a:b:c:d").is_none());
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            urlencoded(&[("op", "a b"), ("x", "&")]).bytes,
            b"op=a%20b&x=%26"
        );
        let body = multipart(
            "u",
            &[("op", "signal".into())],
            &[("f".into(), vec![0, 255])],
        );
        assert_eq!(
            body.content_type,
            "multipart/form-data; boundary=simulated-u"
        );
        assert!(
            body.bytes
                .starts_with(b"--simulated-u\r\nContent-Disposition: form-data; name=\"op\"\r\n")
        );
        assert!(body.bytes.ends_with(b"\r\n\x00\xff\r\n--simulated-u--\r\n"));
    }
}
