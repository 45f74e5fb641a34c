//! The `netascii` transfer mode (RFC 764 as used by RFC 1350): a line ends in CR LF, a lone CR is
//! CR NUL. Boot firmware never asks for it; command-line clients do by default, and undo it, so
//! that binaries pass unchanged as long as this side follows the rule.

/// Appends `bytes` in netascii to `out`. Needs no state between calls: each byte of the file
/// becomes one or two by itself.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'\n' => out.extend_from_slice(b"\r\n"),
            b'\r' => out.extend_from_slice(b"\r\0"),
            other => out.push(other),
        }
    }
}

/// The receiving side. A CR at the end of one block is completed by the next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoder {
    after_cr: bool,
}

impl Decoder {
    /// Decodes one block.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(block.len().saturating_add(1));
        for &byte in block {
            match (std::mem::take(&mut self.after_cr), byte) {
                (true, b'\n') => out.push(b'\n'),
                (true, 0) => out.push(b'\r'),
                // Not netascii; kept as it came.
                (true, b'\r') => {
                    out.push(b'\r');
                    self.after_cr = true;
                }
                (true, other) => out.extend_from_slice(&[b'\r', other]),
                (false, b'\r') => self.after_cr = true,
                (false, other) => out.push(other),
            }
        }
        out
    }

    /// What is left at the end of the file.
    pub(crate) fn finish(self) -> &'static [u8] {
        if self.after_cr { b"\r" } else { b"" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn netascii_round_trips_however_it_is_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(0u8), any::<u8>()], 0..200),
            cut in 1usize..9,
        ) {
            let mut wire = Vec::new();
            encode(&bytes, &mut wire);
            let mut decoder = Decoder::default();
            let mut back = Vec::new();
            for block in wire.chunks(cut) {
                back.extend(decoder.decode(block));
            }
            back.extend_from_slice(decoder.finish());
            prop_assert_eq!(back, bytes);
        }
    }
}
