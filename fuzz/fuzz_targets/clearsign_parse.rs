//! Clear-signed documents, signature blocks and keyrings of any bytes.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wire_simplestreams::{ClearSigned, Keyring, Trust, open_document};

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    Keyring::from_bytes(include_bytes!(
        "../../crates/wire-simplestreams/testdata/key-rsa.asc"
    ))
    .expect("a keyring")
});

/// What the key of the keyring has signed.
const SIGNED: &str = "{\n \"format\": \"products:1.0\",\n-1: \"x\",\n \"products\": {}\n}";

fuzz_target!(|data: &[u8]| {
    Keyring::from_bytes(data).ok();
    if let Ok(document) = ClearSigned::parse(data) {
        let again = ClearSigned::assemble(document.text(), "SHA256", document.signature());
        assert_eq!(
            ClearSigned::parse(again.as_bytes())
                .as_ref()
                .map(ClearSigned::text),
            Ok(document.text())
        );
    }
    // 2026-08-11
    if let Ok((text, _)) = open_document(
        data,
        Trust::Signed {
            keyring: &KEYRING,
            now: 1_786_406_400,
        },
    ) {
        assert_eq!(text, SIGNED);
    }
});
