//! What is believed, and what is refused.

mod common;

use common::{DAY, Key, MADE, NOW, Signing, Spec, armored, sign, signature};
use pgp::packet::{SignatureType, Subpacket, SubpacketData};
use pgp::types::Duration;
use proptest::prelude::*;
use wire_simplestreams::{
    ClearSigned, DOCUMENT_MAX, KEYRING_MAX, Keyring, KeyringError, OpenError, Refusal,
    SIGNATURES_MAX, Trust, VerifyError, open_document,
};

const TEXT: &str = "{\n \"format\": \"products:1.0\",\n \"products\": {}\n}\n";

fn verify(document: &str, keyring: &Keyring) -> Result<String, VerifyError> {
    match open_document(document.as_bytes(), Trust::Signed { keyring, now: NOW }) {
        Ok((text, signer)) => {
            assert!(signer.is_some());
            Ok(text)
        }
        Err(OpenError::Signature(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(document: &str, keyring: &Keyring, expected: &Refusal) {
    match verify(document, keyring) {
        Err(VerifyError::Refused(refused)) => {
            assert_eq!(refused.len(), 1);
            assert_eq!(refused[0].refusal, *expected);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_document_signed_by_a_key_of_the_keyring_is_believed() {
    let key = Key::new(Spec::default());
    let document = sign(TEXT, &key.secret);
    for keyring in [key.armored().into_bytes(), key.binary()] {
        let keyring = Keyring::from_bytes(&keyring).unwrap();
        assert_eq!(
            verify(&document, &keyring).unwrap(),
            TEXT.trim_end_matches('\n').to_owned() + "\n"
        );
    }
    let (_, signer) = open_document(
        document.as_bytes(),
        Trust::Signed {
            keyring: &key.keyring(),
            now: NOW,
        },
    )
    .unwrap();
    let signer = signer.unwrap();
    assert_eq!(signer.signed_at, u64::from(MADE + DAY));
    assert_eq!(
        signer.fingerprint,
        key.keyring().fingerprints().next().unwrap()
    );
    assert_eq!(signer.signing_fingerprint, signer.fingerprint);
}

#[test]
fn line_ends_and_blanks_changed_on_the_way_do_no_harm() {
    let key = Key::new(Spec::default());
    let document = sign(TEXT, &key.secret).replace('\n', "  \r\n");
    assert_eq!(verify(&document, &key.keyring()).unwrap(), TEXT);
}

#[test]
fn escaped_dashes_are_undone_before_verifying() {
    let key = Key::new(Spec::default());
    let text = "- list\n--\n-----BEGIN PGP SIGNATURE-----\nx";
    let document = sign(text, &key.secret);
    assert!(document.contains("\n- -----BEGIN PGP SIGNATURE-----\nx"));
    assert_eq!(verify(&document, &key.keyring()).unwrap(), text);
}

#[test]
fn altered_text_is_refused() {
    let key = Key::new(Spec::default());
    let document = sign(TEXT, &key.secret);
    refused(
        &document.replace("products\": {}", "products\": {\"x\":{}}"),
        &key.keyring(),
        &Refusal::Bad,
    );
    refused(
        &document.replace(" \"format\"", "\"format\""),
        &key.keyring(),
        &Refusal::Bad,
    );
    refused(
        &document.replace("\n}\n", "\n}\n\n"),
        &key.keyring(),
        &Refusal::Bad,
    );
}

#[test]
fn a_signature_by_a_stranger_is_refused() {
    let key = Key::new(Spec::default());
    let stranger = Key::new(Spec {
        seed: 2,
        ..Spec::default()
    });
    refused(
        &sign(TEXT, &stranger.secret),
        &key.keyring(),
        &Refusal::UnknownKey,
    );
}

#[test]
fn one_good_signature_among_several_is_enough() {
    let (old, new) = (
        Key::new(Spec::default()),
        Key::new(Spec {
            seed: 2,
            ..Spec::default()
        }),
    );
    let both = [&old, &new].map(|key| signature(TEXT, &key.secret, Signing::default()));
    let mut packets = Vec::new();
    for signature in &both {
        pgp::packet::PacketTrait::to_writer_with_header(signature, &mut packets).unwrap();
    }
    let block = format!(
        "-----BEGIN PGP SIGNATURE-----\n\n{}\n-----END PGP SIGNATURE-----",
        base64(&packets)
    );
    let document = ClearSigned::assemble(TEXT, "SHA512", &block);
    for key in [&old, &new] {
        assert_eq!(verify(&document, &key.keyring()).unwrap(), TEXT);
    }
    let third = Key::new(Spec {
        seed: 3,
        ..Spec::default()
    });
    assert!(
        matches!(verify(&document, &third.keyring()), Err(VerifyError::Refused(refused)) if refused.len() == 2)
    );

    let many = (0..=SIGNATURES_MAX)
        .flat_map(|_| packets[..packets.len() / 2].to_vec())
        .collect::<Vec<u8>>();
    let block = format!(
        "-----BEGIN PGP SIGNATURE-----\n\n{}\n-----END PGP SIGNATURE-----",
        base64(&many)
    );
    let document = ClearSigned::assemble(TEXT, "SHA512", &block);
    assert!(matches!(
        verify(&document, &old.keyring()),
        Err(VerifyError::TooMany)
    ));
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for (at, chunk) in bytes.chunks(3).enumerate() {
        if at > 0 && at % 16 == 0 {
            out.push('\n');
        }
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            out.push(if digit <= chunk.len() {
                DIGITS[index as usize] as char
            } else {
                '='
            });
        }
    }
    out
}

#[test]
fn keys_that_have_ended_are_refused() {
    for (spec, refusal) in [
        (
            Spec {
                expires_after: Some(30 * DAY),
                ..Spec::default()
            },
            Refusal::KeyExpired,
        ),
        (
            Spec {
                revoked: true,
                ..Spec::default()
            },
            Refusal::KeyRevoked,
        ),
        (
            Spec {
                self_signed: false,
                ..Spec::default()
            },
            Refusal::KeyUnbound,
        ),
        (
            Spec {
                sign: false,
                ..Spec::default()
            },
            Refusal::KeyUsage,
        ),
    ] {
        let key = Key::new(spec);
        refused(&sign(TEXT, &key.secret), &key.keyring(), &refusal);
    }
    let lasting = Key::new(Spec {
        expires_after: Some(3650 * DAY),
        ..Spec::default()
    });
    assert!(verify(&sign(TEXT, &lasting.secret), &lasting.keyring()).is_ok());
}

#[test]
fn subkeys_sign_for_their_certificate_while_both_are_valid() {
    let check = |primary: Spec, subkey: Spec, consent: bool, expected: Option<Refusal>| {
        let mut key = Key::new(Spec {
            sign: false,
            ..primary
        });
        let secret = key.add_subkey(9, consent, subkey);
        let document = sign(TEXT, &secret);
        match expected {
            None => assert_eq!(verify(&document, &key.keyring()).unwrap(), TEXT),
            Some(refusal) => refused(&document, &key.keyring(), &refusal),
        }
    };
    let fine = Spec::default();
    check(fine, fine, true, None);
    check(fine, fine, false, Some(Refusal::KeyUnbound));
    check(
        fine,
        Spec {
            revoked: true,
            ..fine
        },
        true,
        Some(Refusal::KeyRevoked),
    );
    check(
        fine,
        Spec {
            expires_after: Some(DAY),
            ..fine
        },
        true,
        Some(Refusal::KeyExpired),
    );
    check(
        fine,
        Spec {
            sign: false,
            ..fine
        },
        true,
        Some(Refusal::KeyUsage),
    );
    check(
        Spec {
            revoked: true,
            ..fine
        },
        fine,
        true,
        Some(Refusal::KeyRevoked),
    );
    check(
        Spec {
            expires_after: Some(DAY),
            ..fine
        },
        fine,
        true,
        Some(Refusal::KeyExpired),
    );
}

#[test]
fn a_subkey_moved_to_another_certificate_signs_for_nobody() {
    let mut owner = Key::new(Spec {
        sign: false,
        ..Spec::default()
    });
    let secret = owner.add_subkey(9, true, Spec::default());
    let mut thief = Key::new(Spec {
        seed: 2,
        ..Spec::default()
    });
    thief.certificate.public_subkeys = owner.certificate.public_subkeys.clone();
    refused(&sign(TEXT, &secret), &thief.keyring(), &Refusal::KeyUnbound);
}

#[test]
fn the_dates_of_a_signature_are_looked_at() {
    let key = Key::new(Spec::default());
    let document = |signing| {
        ClearSigned::assemble(
            TEXT,
            "SHA512",
            &armored(signature(TEXT, &key.secret, signing)),
        )
    };
    let now = u32::try_from(NOW).unwrap();
    assert!(
        verify(
            &document(Signing {
                made: now + DAY,
                ..Signing::default()
            }),
            &key.keyring()
        )
        .is_ok()
    );
    refused(
        &document(Signing {
            made: now + DAY + 1,
            ..Signing::default()
        }),
        &key.keyring(),
        &Refusal::Date,
    );
    refused(
        &document(Signing {
            made: MADE - 1,
            ..Signing::default()
        }),
        &key.keyring(),
        &Refusal::Date,
    );
    let life = |seconds| {
        vec![
            Subpacket::regular(SubpacketData::SignatureExpirationTime(Duration::from_secs(
                seconds,
            )))
            .unwrap(),
        ]
    };
    refused(
        &document(Signing {
            more: life(DAY),
            ..Signing::default()
        }),
        &key.keyring(),
        &Refusal::Expired,
    );
    assert!(
        verify(
            &document(Signing {
                more: life(3650 * DAY),
                ..Signing::default()
            }),
            &key.keyring()
        )
        .is_ok()
    );
}

#[test]
fn signatures_over_something_else_or_with_unknown_demands_are_refused() {
    let key = Key::new(Spec::default());
    let document = |signing| {
        ClearSigned::assemble(
            TEXT,
            "SHA512",
            &armored(signature(TEXT, &key.secret, signing)),
        )
    };
    refused(
        &document(Signing {
            typ: SignatureType::Binary,
            ..Signing::default()
        }),
        &key.keyring(),
        &Refusal::Type,
    );
    let demand = Subpacket::critical(SubpacketData::Experimental(101, vec![1].into())).unwrap();
    refused(
        &document(Signing {
            more: vec![demand],
            ..Signing::default()
        }),
        &key.keyring(),
        &Refusal::Critical,
    );
}

const GPG_TEXT: &str = "{\n \"format\": \"products:1.0\",\n-1: \"x\",\n \"products\": {}\n}";

macro_rules! gpg {
    ($key:literal, $signed:literal) => {
        (
            Keyring::from_bytes(include_bytes!(concat!("../testdata/key-", $key, ".asc"))).unwrap(),
            include_str!(concat!("../testdata/signed-", $signed, ".sjson")),
        )
    };
}

#[test]
fn documents_signed_by_gpg_are_believed() {
    for (keyring, document) in [
        gpg!("rsa", "rsa"),
        gpg!("rsa", "sha256"),
        gpg!("nist", "nist"),
        gpg!("sha1-self", "sha1-self"),
    ] {
        assert_eq!(verify(document, &keyring).unwrap(), GPG_TEXT);
    }
}

#[test]
fn weak_hashes_and_algorithms_are_refused() {
    let (keyring, document) = gpg!("rsa", "sha1");
    refused(document, &keyring, &Refusal::Hash("SHA1".into()));
    let (keyring, document) = gpg!("rsa", "md5");
    refused(document, &keyring, &Refusal::Hash("MD5".into()));
    let (keyring, document) = gpg!("dsa", "dsa");
    refused(document, &keyring, &Refusal::Algorithm("DSA".into()));
    let (keyring, document) = gpg!("short", "short");
    refused(document, &keyring, &Refusal::ShortKey(1024));
}

#[test]
fn refusals_name_the_signer() {
    let (_, document) = gpg!("rsa", "rsa");
    let (other, _) = gpg!("dsa", "dsa");
    let error = verify(document, &other).unwrap_err().to_string();
    assert!(
        error.contains("86e19e7cf37b1e3b4e6ecd7dcb7cf7c40275b043"),
        "{error}"
    );
    assert!(error.contains("not in the keyring"), "{error}");
}

#[test]
fn keyrings_of_several_blocks_and_keys_are_read() {
    let mut all = include_str!("../testdata/key-rsa.asc").to_owned();
    all += "\nsome words between\n";
    all += include_str!("../testdata/key-dsa.asc");
    all += &Key::new(Spec::default()).armored();
    let keyring = Keyring::from_bytes(all.as_bytes()).unwrap();
    assert_eq!(keyring.fingerprints().count(), 3);
    let binary = [
        Key::new(Spec::default()).binary(),
        Key::new(Spec {
            seed: 2,
            ..Spec::default()
        })
        .binary(),
    ]
    .concat();
    assert_eq!(
        Keyring::from_bytes(&binary).unwrap().fingerprints().count(),
        2
    );
    assert_eq!(verify(gpg!("rsa", "rsa").1, &keyring).unwrap(), GPG_TEXT);
}

#[test]
fn what_is_no_keyring_is_named() {
    assert!(matches!(Keyring::from_bytes(b""), Err(KeyringError::Empty)));
    assert!(matches!(
        Keyring::from_bytes(b"hello"),
        Err(KeyringError::Armor(_))
    ));
    assert!(matches!(
        Keyring::from_bytes(b"\0\0\0\x20\x01\x01\0\0KBXf\0\0\0\0"),
        Err(KeyringError::Keybox)
    ));
    assert!(matches!(
        Keyring::from_bytes(&vec![0x99; KEYRING_MAX + 1]),
        Err(KeyringError::TooLarge)
    ));
    let signature = armored(signature(
        "x",
        &Key::new(Spec::default()).secret,
        Signing::default(),
    ));
    assert!(matches!(
        Keyring::from_bytes(signature.as_bytes()),
        Err(KeyringError::NotPublicKeys)
    ));
}

#[test]
fn unsigned_documents_are_taken_only_when_asked_for() {
    let key = Key::new(Spec::default());
    let keyring = key.keyring();
    let trust = Trust::Signed {
        keyring: &keyring,
        now: NOW,
    };
    assert!(matches!(
        open_document(TEXT.as_bytes(), trust),
        Err(OpenError::ClearSigned(_))
    ));
    assert_eq!(
        open_document(TEXT.as_bytes(), Trust::Unsigned).unwrap(),
        (TEXT.to_owned(), None)
    );
    let signed = sign(TEXT, &key.secret);
    assert_eq!(
        open_document(signed.as_bytes(), Trust::Unsigned).unwrap(),
        (TEXT.to_owned(), None)
    );
    assert!(matches!(
        open_document(&vec![b' '; DOCUMENT_MAX + 1], Trust::Unsigned),
        Err(OpenError::TooLarge)
    ));
    assert!(matches!(
        open_document(b"\xff", Trust::Unsigned),
        Err(OpenError::NotText)
    ));
}

#[test]
fn a_document_of_official_size_is_verified_in_linear_time() {
    let key = Key::new(Spec::default());
    let text = format!(
        "{{\n{}}}",
        "  \"boot-kernel\": \"0123456789abcdef\",\n".repeat(200_000)
    );
    let document = sign(&text, &key.secret);
    assert_eq!(verify(&document, &key.keyring()).unwrap().len(), text.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_of_the_text_is_noticed(at in 0usize..1000, flip in 1u8..=255) {
        let key = Key::new(Spec::default());
        let document = sign(TEXT, &key.secret);
        let start = document.find("\n\n").unwrap() + 2;
        let mut bytes = document.clone().into_bytes();
        let at = start + at % TEXT.len();
        bytes[at] ^= flip;
        let opened = open_document(&bytes, Trust::Signed { keyring: &key.keyring(), now: NOW });
        // Blanks at line ends are the one thing that is not signed.
        if let Ok((text, _)) = opened {
            prop_assert_eq!(text, TEXT);
        }
    }

    #[test]
    fn no_bytes_make_keyrings_or_signatures_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..1000) {
        Keyring::from_bytes(&bytes).ok();
        let key = Key::new(Spec::default());
        let mut binary = key.binary();
        let at = at % binary.len();
        binary.truncate(at);
        binary.extend_from_slice(&bytes);
        Keyring::from_bytes(&binary).ok();
        let block = format!("-----BEGIN PGP SIGNATURE-----\n\n{}\n-----END PGP SIGNATURE-----", base64(&bytes));
        let document = ClearSigned::assemble(TEXT, "SHA512", &block);
        prop_assert!(verify(&document, &key.keyring()).is_err());
    }
}
