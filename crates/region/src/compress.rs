//! Answers in gzip, for clients that ask.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::answer::{Answer, Content, JSON};
use crate::http::pretty;

/// Bytes from which it is worth it.
const MIN: usize = 1024;

/// Whether an `Accept-Encoding` takes gzip (RFC 9110 §12.5.3).
#[must_use]
pub fn wants(accept: &str) -> bool {
    accept.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let refused = parts.any(|p| {
            p.strip_prefix("q=")
                .and_then(|q| q.parse::<f32>().ok())
                .is_some_and(|q| q <= 0.0)
        });
        matches!(name, "gzip" | "x-gzip" | "*") && !refused
    })
}

/// The same answer in gzip, where that makes it shorter. What streams, and what is no text, goes as it is.
#[must_use]
pub fn pack(mut answer: Answer) -> Answer {
    let (bytes, kind): (Bytes, &'static str) = match answer.content {
        Content::Json(v) => (pretty(&v).into(), JSON),
        Content::Bytes(b, kind) => (b, kind),
        other => {
            answer.content = other;
            return answer;
        }
    };
    let is_text = kind.starts_with("text/") || kind.starts_with("application/json");
    let is_packed = answer
        .headers
        .iter()
        .any(|(n, _)| n.eq_ignore_ascii_case("content-encoding"));
    if bytes.len() < MIN || !is_text || is_packed || answer.status != 200 {
        answer.content = Content::Bytes(bytes, kind);
        return answer;
    }
    let mut out = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    answer.content = match out.write_all(&bytes).and_then(|()| out.finish()) {
        Ok(packed) => {
            answer.headers.push(("Content-Encoding", "gzip".to_owned()));
            if let Some((_, vary)) = answer.headers.iter_mut().find(|(n, _)| *n == "Vary") {
                vary.push_str(", Accept-Encoding");
            }
            Content::Bytes(packed.into(), kind)
        }
        // Writing into memory does not fail; if it does, the answer is as good without.
        Err(_) => Content::Bytes(bytes, kind),
    };
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_want_it() {
        for (accept, expected) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("", false),
            ("identity", false),
        ] {
            assert_eq!(wants(accept), expected, "{accept:?}");
        }
    }
}
