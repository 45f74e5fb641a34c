//! The primitives of IPMI sessions, over RustCrypto: HMACs, MD5, AES-CBC with IPMI's padding.

use aes::Aes128;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

/// Size of an AES block, of the initialisation vector and of the AES-128 key, bytes.
pub(crate) const AES_BLOCK: usize = 16;

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// HMAC-SHA1 over the parts one after another; 20 bytes.
pub(crate) fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    mac::<Hmac<Sha1>>(key, parts)
}

/// HMAC-SHA256; 32 bytes.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    mac::<Hmac<Sha256>>(key, parts)
}

/// HMAC-MD5; 16 bytes.
pub(crate) fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    mac::<Hmac<Md5>>(key, parts)
}

/// MD5 over the parts one after another.
pub(crate) fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whether two codes are equal, in a time that does not depend on where they differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut difference = 0;
    for (x, y) in a.iter().zip(b) {
        difference |= x ^ y;
    }
    std::hint::black_box(difference) == 0
}

/// Encrypts a payload as spec §13.29 has it: the initialisation vector in clear, then AES-128-CBC over
/// data, padding bytes 1, 2, 3, … and the padding's length.
pub(crate) fn aes_seal(key: &[u8; AES_BLOCK], iv: [u8; AES_BLOCK], plain: &[u8]) -> Vec<u8> {
    let pad = (AES_BLOCK - (plain.len() + 1) % AES_BLOCK) % AES_BLOCK;
    let mut body = Vec::with_capacity(plain.len() + pad + 1);
    body.extend_from_slice(plain);
    body.extend((1..=pad).map(|n| n as u8));
    body.push(pad as u8);
    let length = body.len();
    cbc::Encryptor::<Aes128>::new(key.into(), &iv.into())
        .encrypt_padded::<NoPadding>(&mut body, length)
        .expect("the body is a whole number of blocks");
    let mut out = iv.to_vec();
    out.append(&mut body);
    out
}

/// Undoes [`aes_seal`]; `None` when lengths or padding are wrong.
pub(crate) fn aes_open(key: &[u8; AES_BLOCK], sealed: &[u8]) -> Option<Vec<u8>> {
    let (iv, body) = sealed.split_first_chunk::<AES_BLOCK>()?;
    if body.is_empty() || !body.len().is_multiple_of(AES_BLOCK) {
        return None;
    }
    let mut plain = body.to_vec();
    cbc::Decryptor::<Aes128>::new(key.into(), iv.into())
        .decrypt_padded::<NoPadding>(&mut plain)
        .ok()?;
    let pad = usize::from(plain.pop()?);
    let keep = plain.len().checked_sub(pad)?;
    let well_formed =
        pad < AES_BLOCK && plain[keep..].iter().zip(1u8..).all(|(byte, n)| *byte == n);
    plain.truncate(keep);
    well_formed.then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens(key: [u8; 16], iv: [u8; 16], plain in proptest::collection::vec(any::<u8>(), 0..100)) {
            let sealed = aes_seal(&key, iv, &plain);
            prop_assert_eq!(sealed.len() % AES_BLOCK, 0);
            prop_assert_eq!(aes_open(&key, &sealed), Some(plain));
        }

        #[test]
        fn any_bytes_open_or_fail_without_panic(key: [u8; 16], sealed in proptest::collection::vec(any::<u8>(), 0..100)) {
            aes_open(&key, &sealed);
        }
    }

    #[test]
    fn hmac_md5_gives_the_rfc_2202_vector() {
        let got = hmac_md5(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            got,
            [
                0x75, 0x0c, 0x78, 0x3e, 0x6a, 0xb0, 0xb5, 0x03, 0xea, 0xa8, 0x6e, 0x31, 0x0a, 0x5d,
                0xb7, 0x38
            ]
        );
    }

    #[test]
    fn hmac_sha1_gives_the_rfc_2202_vector() {
        let got = hmac_sha1(b"Jefe", &[b"what do ya want for nothing?"]);
        assert_eq!(got[..8], [0xef, 0xfc, 0xdf, 0x6a, 0xe5, 0xeb, 0x2f, 0xa2]);
    }
}
