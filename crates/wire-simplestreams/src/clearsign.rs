//! The clear-signed form (RFC 9580 §7): text between a header and an armored signature.
//!
//! ```text
//! -----BEGIN PGP SIGNED MESSAGE-----
//! Hash: SHA512
//!
//! text, lines that start with "-" written as "- -..."
//! -----BEGIN PGP SIGNATURE-----
//! ...
//! -----END PGP SIGNATURE-----
//! ```
//!
//! Only that is accepted. Text before, after or between, other armor headers and lines that
//! should have been escaped are how documents were made that show one thing and verify another;
//! they are refused, whatever other programs do about them.

use std::borrow::Cow;

/// Largest document read, signed or not, in bytes. The official stream's is below 10 MiB.
pub const DOCUMENT_MAX: usize = 64 << 20;
/// Largest signature block, in bytes.
pub const SIGNATURE_MAX: usize = 64 << 10;
/// Most armor header lines before the text.
const HEADERS_MAX: usize = 16;

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// A clear-signed document, taken apart but not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearSigned {
    text: String,
    signature: String,
}

/// Why a document is not clear-signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClearSignedError {
    /// More than [`DOCUMENT_MAX`] bytes.
    #[error("the document is larger than {DOCUMENT_MAX} bytes")]
    TooLarge,
    /// Not text.
    #[error("the document is not UTF-8")]
    NotText,
    /// Does not start with the header line.
    #[error("the document is not signed")]
    NotSigned,
    /// A header other than `Hash`, or too many, or no blank line after them.
    #[error("the document has an unknown or unfinished armor header")]
    Header,
    /// A line that starts with `-` and is not escaped.
    #[error("line {0} of the document is not escaped")]
    NotEscaped(usize),
    /// The signature's first or last line is missing.
    #[error("the signature is cut off")]
    NoSignature,
    /// More than [`SIGNATURE_MAX`] bytes of signature.
    #[error("the signature is too large")]
    SignatureTooLarge,
    /// Something follows the signature.
    #[error("there is text after the signature")]
    Trailing,
}

impl ClearSigned {
    /// Whether `bytes` claim to be clear-signed.
    #[must_use]
    pub fn looks_like(bytes: &[u8]) -> bool {
        bytes.trim_ascii_start().starts_with(BEGIN.as_bytes())
    }

    /// Takes a document apart.
    ///
    /// # Errors
    /// [`ClearSignedError`] says what is not as it must be.
    pub fn parse(bytes: &[u8]) -> Result<Self, ClearSignedError> {
        if bytes.len() > DOCUMENT_MAX {
            return Err(ClearSignedError::TooLarge);
        }
        let document = str::from_utf8(bytes).map_err(|_| ClearSignedError::NotText)?;
        let mut lines = document.split('\n').map(trim_line).enumerate();

        let first = lines
            .by_ref()
            .map(|(_, line)| line)
            .find(|line| !line.is_empty());
        if first != Some(BEGIN) {
            return Err(ClearSignedError::NotSigned);
        }
        for count in 0.. {
            match lines.next() {
                Some((_, "")) => break,
                Some((_, line)) if count < HEADERS_MAX && line.starts_with("Hash: ") => {}
                _ => return Err(ClearSignedError::Header),
            }
        }
        let mut text = String::with_capacity(document.len());
        let mut line_breaks = 0;
        loop {
            let (number, line) = lines.next().ok_or(ClearSignedError::NoSignature)?;
            if line == SIGNATURE {
                break;
            }
            let line = match line.strip_prefix('-') {
                None => line,
                // Trimming has taken the blank of an escaped empty line.
                Some("") => "",
                Some(rest) => rest
                    .strip_prefix(' ')
                    .ok_or(ClearSignedError::NotEscaped(number + 1))?,
            };
            // The break before the signature is not part of the text.
            if line_breaks > 0 {
                text.push('\n');
            }
            line_breaks += 1;
            text.push_str(line);
        }
        let mut signature = format!("{SIGNATURE}\n");
        loop {
            let (_, line) = lines.next().ok_or(ClearSignedError::NoSignature)?;
            if signature.len() + line.len() > SIGNATURE_MAX {
                return Err(ClearSignedError::SignatureTooLarge);
            }
            signature.push_str(line);
            signature.push('\n');
            if line == END {
                break;
            }
        }
        if lines.any(|(_, line)| !line.is_empty()) {
            return Err(ClearSignedError::Trailing);
        }
        Ok(Self { text, signature })
    }

    /// The text: lines end in a line feed, blanks at their ends are gone (they are not signed),
    /// escapes undone. Nothing says yet that the signature is good; [`crate::Keyring::verify`] does.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The armored signature block.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// The text out of this.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    /// The bytes that the signature covers: the text with CR LF between its lines.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        self.text.replace('\n', "\r\n").into_bytes()
    }

    /// Puts a document together from a text and its armored signature, for tests and publishing.
    /// The signature must be of type "canonical text" over [`ClearSigned::canonical`].
    #[must_use]
    pub fn assemble(text: &str, hash: &str, armored_signature: &str) -> String {
        let escaped: Vec<Cow<'_, str>> = text
            .split('\n')
            .map(|line| {
                if line.starts_with('-') {
                    Cow::Owned(format!("- {line}"))
                } else {
                    Cow::Borrowed(line)
                }
            })
            .collect();
        format!(
            "{BEGIN}\nHash: {hash}\n\n{}\n{}\n",
            escaped.join("\n"),
            armored_signature.trim_end()
        )
    }

    /// What a signature over `text` is made of: blanks at line ends gone, CR LF between lines.
    #[must_use]
    pub fn canonical(text: &str) -> Vec<u8> {
        let lines: Vec<&str> = text.split('\n').map(trim_line).collect();
        lines.join("\r\n").into_bytes()
    }
}

/// Blanks, tabs and the carriage return at the end of a line are not signed (RFC 9580 §7.1).
fn trim_line(line: &str) -> &str {
    line.trim_end_matches([' ', '\t', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: &str = "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----";

    fn with(text: &str) -> String {
        format!("{BEGIN}\nHash: SHA256\n\n{text}\n{BLOCK}\n")
    }

    fn text(document: &str) -> Result<String, ClearSignedError> {
        ClearSigned::parse(document.as_bytes()).map(ClearSigned::into_text)
    }

    #[test]
    fn escapes_and_line_ends_are_undone() {
        assert_eq!(text(&with("{\n- -1\n- - x\n}")).unwrap(), "{\n-1\n- x\n}");
        assert_eq!(
            text(&with("a  \t\nb").replace('\n', "\r\n")).unwrap(),
            "a\nb"
        );
        assert_eq!(text(&with("")).unwrap(), "");
        assert_eq!(text(&with("\n")).unwrap(), "\n");
        assert_eq!(
            ClearSigned::parse(with("a\nb").as_bytes())
                .unwrap()
                .signed_bytes(),
            b"a\r\nb"
        );
        assert_eq!(
            ClearSigned::parse(with("a").as_bytes())
                .unwrap()
                .signature(),
            format!("{BLOCK}\n")
        );
    }

    #[test]
    fn anything_around_the_signed_text_is_refused() {
        let good = with("{}");
        assert_eq!(text("{}"), Err(ClearSignedError::NotSigned));
        assert_eq!(text(""), Err(ClearSignedError::NotSigned));
        assert_eq!(
            text(&format!("{{\"evil\":1}}\n{good}")),
            Err(ClearSignedError::NotSigned)
        );
        assert_eq!(
            text(&format!("{good}{{\"evil\":1}}")),
            Err(ClearSignedError::Trailing)
        );
        assert_eq!(
            text(&format!("{good}{good}")),
            Err(ClearSignedError::Trailing)
        );
        assert_eq!(
            text(&good.replace("Hash: SHA256", "Comment: evil")),
            Err(ClearSignedError::Header)
        );
        assert_eq!(
            text(&good.replace("Hash: SHA256", "NotDashEscaped: y")),
            Err(ClearSignedError::Header)
        );
        assert_eq!(
            text(&good.replace("Hash: SHA256\n", &"Hash: X\n".repeat(17))),
            Err(ClearSignedError::Header)
        );
        assert_eq!(text(&with("a\n-b")), Err(ClearSignedError::NotEscaped(5)));
        assert_eq!(text(&with(BEGIN)), Err(ClearSignedError::NotEscaped(4)));
        assert_eq!(
            text(&good.replace(END, "")),
            Err(ClearSignedError::NoSignature)
        );
        assert_eq!(
            text(&good.replace(SIGNATURE, "")),
            Err(ClearSignedError::NotEscaped(8))
        );
        assert_eq!(
            text(&good.replace("AAAA", &"A".repeat(SIGNATURE_MAX))),
            Err(ClearSignedError::SignatureTooLarge)
        );
        assert_eq!(ClearSigned::parse(b"\xff"), Err(ClearSignedError::NotText));
    }

    proptest! {
        #[test]
        fn texts_come_back(lines in proptest::collection::vec("-{0,2}[ -~é]{0,20}", 1..8)) {
            let document = ClearSigned::assemble(&lines.join("\n"), "SHA256", BLOCK);
            let parsed = ClearSigned::parse(document.as_bytes()).unwrap();
            let trimmed: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
            // A line of nothing but an escaped dash and blanks loses no dash.
            prop_assert_eq!(parsed.text(), trimmed.join("\n"));
            prop_assert_eq!(parsed.signed_bytes(), ClearSigned::canonical(&lines.join("\n")));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[-\n A-Z]{0,200}") {
            ClearSigned::parse(&bytes).ok();
            ClearSigned::parse(with(&text).as_bytes()).ok();
            ClearSigned::parse(format!("{BEGIN}\n{text}").as_bytes()).ok();
        }
    }
}
