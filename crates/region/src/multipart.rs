//! `multipart/form-data` as MAAS clients send it (RFC 7578, RFC 2046): parts may carry a
//! `Content-Transfer-Encoding` of base64 (the `maas` client sends every part so).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use crate::error::ApiError;

/// Most parts of one body.
pub const MAX_PARTS: usize = 10_000;
/// Most bytes of the headers of one part.
const MAX_PART_HEADERS: usize = 16 << 10;

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The field's name.
    pub name: String,
    /// Whether it came with a file name.
    pub is_file: bool,
    /// The content, decoded.
    pub content: Bytes,
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn bad(what: &str) -> ApiError {
    ApiError::Bad(format!("The multipart body cannot be read: {what}."))
}

/// Splits a body into its parts.
///
/// # Errors
/// 400 when the body is not what its content type says.
pub fn parse(content_type: &str, body: &Bytes) -> Result<Vec<Part>, ApiError> {
    let boundary = parameter(content_type, "boundary")
        .filter(|b| !b.is_empty())
        .ok_or_else(|| bad("no boundary is named"))?;
    let delimiter = format!("--{boundary}");
    let d = delimiter.as_bytes();
    let mut parts = Vec::new();
    let mut at = find(body, d, 0).ok_or_else(|| bad("the boundary does not occur"))? + d.len();
    loop {
        if body[at..].starts_with(b"--") {
            return Ok(parts);
        }
        at = line_end(body, at).ok_or_else(|| bad("it ends within a part"))?;
        // The end of a part is the line break before the next boundary.
        let (end, next) =
            next_boundary(body, d, at).ok_or_else(|| bad("the last boundary is missing"))?;
        if parts.len() >= MAX_PARTS {
            return Err(bad("it has too many parts"));
        }
        // Python's "email" writes a body without fields as one part without anything.
        if !body[at..end].trim_ascii().is_empty() {
            parts.push(part(body, at, end)?);
        }
        at = next;
    }
}

fn part(body: &Bytes, start: usize, end: usize) -> Result<Part, ApiError> {
    let mut name = None;
    let mut is_file = false;
    let mut encoding = String::new();
    let mut at = start;
    loop {
        let stop = body[at..end]
            .iter()
            .position(|b| *b == b'\n')
            .map(|i| at + i);
        let Some(stop) = stop else {
            return Err(bad("a part has no end of headers"));
        };
        if stop - start > MAX_PART_HEADERS {
            return Err(bad("a part's headers are too long"));
        }
        let line = String::from_utf8_lossy(&body[at..stop]);
        let line = line.trim_end_matches('\r');
        at = stop + 1;
        if line.is_empty() {
            break;
        }
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "content-disposition" => {
                name = parameter(value, "name");
                is_file = parameter(value, "filename").is_some();
            }
            "content-transfer-encoding" => encoding = value.trim().to_ascii_lowercase(),
            _ => {}
        }
    }
    let name = name.ok_or_else(|| bad("a part has no name"))?;
    let raw = body.slice(at.min(end)..end);
    let content = match encoding.as_str() {
        "base64" => {
            let packed: Vec<u8> = raw
                .iter()
                .copied()
                .filter(|b| !b.is_ascii_whitespace())
                .collect();
            Bytes::from(
                BASE64
                    .decode(packed)
                    .map_err(|_| bad("a part is not the base64 it says"))?,
            )
        }
        _ => raw,
    };
    Ok(Part {
        name,
        is_file,
        content,
    })
}

fn next_boundary(body: &[u8], delimiter: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        let hit = find(body, delimiter, at)?;
        let line_start = hit == from || body.get(hit.wrapping_sub(1)) == Some(&b'\n');
        if line_start {
            let mut end = hit;
            if end > from && body[end - 1] == b'\n' {
                end -= 1;
            }
            if end > from && body[end - 1] == b'\r' {
                end -= 1;
            }
            return Some((end, hit + delimiter.len()));
        }
        at = hit + 1;
    }
}

fn line_end(body: &[u8], from: usize) -> Option<usize> {
    body[from..]
        .iter()
        .position(|b| *b == b'\n')
        .map(|i| from + i + 1)
}

fn find(body: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    if needle.is_empty() || from > body.len() {
        return None;
    }
    body[from..]
        .windows(needle.len())
        .position(|w| w == needle)
        .map(|i| from + i)
}

/// A parameter of a header value: `name=value` or `name="value"` with backslash escapes.
#[must_use]
pub fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (key, after) = rest.split_once('=')?;
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => {
                        end = i + 1;
                        break;
                    }
                    '\\' => {
                        if let Some((_, c)) = chars.next() {
                            value.push(c);
                        }
                    }
                    c => value.push(c),
                }
            }
            (value, &quoted[end..])
        } else {
            let end = after.find(';').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = tail;
        if rest.is_empty() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_base64_are_decoded() {
        let body = Bytes::from_static(
            b"--===============1==\r\nContent-Type: text/plain; charset=\"utf-8\"\r\nMIME-Version: 1.0\r\n\
              Content-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name=\"hostname\"\r\n\r\nbm9k\r\nZTE=\r\n\
              --===============1==--\r\n",
        );
        let parts = parse(
            "multipart/form-data; boundary=\"===============1==\"",
            &body,
        )
        .unwrap();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].name, "hostname");
        assert_eq!(&parts[0].content[..], b"node1");
        assert!(!parts[0].is_file);
    }

    #[test]
    fn a_body_without_fields_is_what_python_writes_of_it() {
        let body = Bytes::from_static(b"--===============1==\r\n\r\n--===============1==--");
        let parts = parse(
            "multipart/form-data; boundary=\"===============1==\"",
            &body,
        );
        assert_eq!(parts.unwrap().len(), 0);
    }

    #[test]
    fn binary_content_and_empty_parts_survive() {
        let body = Bytes::from_static(
            b"--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f.bin\"\r\n\r\n\x00--x\xff\r\n\r\n--x\r\n\
              Content-Disposition: form-data; name=b\r\n\r\n\r\n--x--",
        );
        let parts = parse("multipart/form-data; boundary=x", &body).unwrap();
        assert_eq!(&parts[0].content[..], b"\x00--x\xff\r\n");
        assert!(parts[0].is_file);
        assert_eq!(&parts[1].content[..], b"");
        assert_eq!(parts[1].name, "b");
    }

    #[test]
    fn a_body_cut_short_is_refused() {
        for body in [
            &b""[..],
            b"--x",
            b"--x\r\n",
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nabc",
            b"--y\r\n\r\n--y--",
        ] {
            assert!(
                parse(
                    "multipart/form-data; boundary=x",
                    &Bytes::copy_from_slice(body)
                )
                .is_err()
            );
        }
        assert!(parse("multipart/form-data", &Bytes::from_static(b"--x--")).is_err());
    }
}
