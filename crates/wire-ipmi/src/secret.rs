//! Passwords and keys that do not show up in logs.

use std::fmt;

/// Bytes that must not be seen: a password, a K_g, a derived key. `Debug` shows only that it is there,
/// and the memory is overwritten when it goes away (best effort: the compiler may have made copies).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Vec<u8>);

/// The longest K_g and the longest IPMI 2.0 password, bytes (spec §22.30, §24.25).
pub const KEY_MAX: usize = 20;

/// Why a text is no K_g.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KgError {
    /// It starts with `0x`, but what follows is not an even number of hexadecimal digits.
    #[error("the K_g starts with 0x but is not hexadecimal")]
    NotHex,
    /// More than [`KEY_MAX`] bytes.
    #[error("the K_g is longer than 20 bytes")]
    TooLong,
}

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into())
    }

    /// A K_g as people write it: `0x` and hexadecimal digits, or else the characters themselves
    /// (FreeIPMI's notation, which MAAS stores as typed). Empty text and a key of only zeros both mean
    /// "no K_g" (spec §13.31) and give `None`.
    ///
    /// # Errors
    /// [`KgError`] when the text is not hexadecimal after `0x`, or too long.
    pub fn parse_k_g(text: &str) -> Result<Option<Secret>, KgError> {
        let bytes = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => unhex(digits).ok_or(KgError::NotHex)?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() > KEY_MAX {
            return Err(KgError::TooLong);
        }
        Ok(if bytes.iter().all(|b| *b == 0) {
            None
        } else {
            Some(Secret(bytes))
        })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first `N` bytes, filled up with zeros.
    pub(crate) fn padded<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(&self.0) {
            *to = *from;
        }
        out
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        })
        .collect()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_k_g_is_text_or_hexadecimal() {
        assert_eq!(Secret::parse_k_g("abc"), Ok(Some(Secret::from("abc"))));
        assert_eq!(
            Secret::parse_k_g("0x00ff"),
            Ok(Some(Secret::new([0, 0xff])))
        );
        assert_eq!(Secret::parse_k_g("0x0"), Err(KgError::NotHex));
        assert_eq!(Secret::parse_k_g("0xzz"), Err(KgError::NotHex));
        assert_eq!(Secret::parse_k_g(&"k".repeat(21)), Err(KgError::TooLong));
    }

    #[test]
    fn an_empty_or_zero_k_g_is_none() {
        assert_eq!(Secret::parse_k_g(""), Ok(None));
        assert_eq!(Secret::parse_k_g("0x0000"), Ok(None));
    }

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(hidden)");
    }
}
