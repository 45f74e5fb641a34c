//! GnuPG as the publisher, and as the reader of what we sign. A gpg that is not installed is a
//! failure.

mod common;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Key, Spec, sign};
use wire_simplestreams::{Keyring, OpenError, Refusal, Trust, VerifyError, open_document};

struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        // Short, because the agent's socket lives in it.
        let home = tempfile::Builder::new()
            .prefix("gpg")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { home }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("GNUPGHOME", self.home.path())
            .env("LC_ALL", "C");
        command
    }

    fn try_run(&self, args: &[&str]) -> Output {
        let common = [
            "--batch",
            "--yes",
            "--no-tty",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        ];
        self.command("gpg")
            .args(common)
            .args(args)
            .output()
            .expect("gpg is installed")
    }

    fn run(&self, args: &[&str]) -> Vec<u8> {
        let output = self.try_run(args);
        assert!(
            output.status.success(),
            "gpg {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn generate(&self, user: &str, algorithm: &str, usage: &str, expire: &str) {
        self.run(&["--quick-generate-key", user, algorithm, usage, expire]);
    }

    fn clearsign(&self, user: &str, text: &str, more: &[&str]) -> Vec<u8> {
        let file = self.home.path().join("text");
        std::fs::write(&file, text).unwrap();
        let mut args = more.to_vec();
        args.extend([
            "-u",
            user,
            "--output",
            "-",
            "--clearsign",
            file.to_str().unwrap(),
        ]);
        self.run(&args)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // The agent would notice that its directory is gone, but only after a while.
        self.command("gpgconf")
            .args(["--kill", "all"])
            .status()
            .ok();
    }
}

const TEXT: &str =
    "{\n  \"format\": \"products:1.0\",   \n- \"dashes\"\n-----BEGIN\n\n  \"é\": {}\t\n}\n\n";
/// What of it is signed.
const SIGNED: &str =
    "{\n  \"format\": \"products:1.0\",\n- \"dashes\"\n-----BEGIN\n\n  \"é\": {}\n}\n";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn open(document: &[u8], keyring: &Keyring) -> Result<String, OpenError> {
    open_document(
        document,
        Trust::Signed {
            keyring,
            now: now(),
        },
    )
    .map(|(text, _)| text)
}

fn refusal(document: &[u8], keyring: &Keyring) -> Refusal {
    match open(document, keyring) {
        Err(OpenError::Signature(VerifyError::Refused(refused))) => refused[0].refusal.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_gpg_signs_is_believed_with_its_keyring_in_both_forms() {
    let gpg = Gpg::new();
    for (user, algorithm) in [
        ("rsa@example.org", "rsa4096"),
        ("ed@example.org", "ed25519"),
        ("nist@example.org", "nistp384"),
    ] {
        gpg.generate(user, algorithm, "sign", "1y");
        let document = gpg.clearsign(user, TEXT, &["--digest-algo", "SHA512"]);
        for keyring in [
            gpg.run(&["--export", user]),
            gpg.run(&["--armor", "--export", user]),
        ] {
            let keyring = Keyring::from_bytes(&keyring).unwrap();
            assert_eq!(open(&document, &keyring).unwrap(), SIGNED, "{algorithm}");
            let altered = String::from_utf8(document.clone())
                .unwrap()
                .replace("products", "product");
            assert_eq!(refusal(altered.as_bytes(), &keyring), Refusal::Bad);
        }
    }
    // All of them together, among which the right one is found.
    let keyring = Keyring::from_bytes(&gpg.run(&["--export"])).unwrap();
    assert_eq!(keyring.fingerprints().count(), 3);
    let document = gpg.clearsign("ed@example.org", TEXT, &[]);
    assert_eq!(open(&document, &keyring).unwrap(), SIGNED);
    // A keyring file as gpg keeps them itself, with its trust packets or as a keybox.
    let file = gpg.home.path().join("trusted.gpg");
    let export = gpg.home.path().join("export");
    std::fs::write(&export, gpg.run(&["--export"])).unwrap();
    let args = [
        "--no-default-keyring",
        "--keyring",
        file.to_str().unwrap(),
        "--import",
        export.to_str().unwrap(),
    ];
    gpg.run(&args);
    match Keyring::from_bytes(&std::fs::read(&file).unwrap()) {
        Ok(keyring) => assert_eq!(open(&document, &keyring).unwrap(), SIGNED),
        Err(error) => assert!(
            matches!(error, wire_simplestreams::KeyringError::Keybox),
            "{error}"
        ),
    }
}

#[test]
fn a_signing_subkey_of_gpg_signs_for_its_key() {
    let gpg = Gpg::new();
    gpg.generate("sub@example.org", "ed25519", "cert", "never");
    let listing = String::from_utf8(gpg.run(&["--with-colons", "--list-keys"])).unwrap();
    let fingerprint = listing
        .lines()
        .find_map(|line| line.strip_prefix("fpr:"))
        .unwrap()
        .trim_matches(':')
        .to_owned();
    gpg.run(&["--quick-add-key", &fingerprint, "rsa3072", "sign", "never"]);
    let keyring = Keyring::from_bytes(&gpg.run(&["--export"])).unwrap();
    let document = gpg.clearsign("sub@example.org", TEXT, &[]);
    assert_eq!(open(&document, &keyring).unwrap(), SIGNED);
}

#[test]
fn keys_that_gpg_has_expired_or_revoked_are_refused() {
    let gpg = Gpg::new();
    gpg.run(&[
        "--faked-system-time",
        "20250101T000000",
        "--quick-generate-key",
        "old@example.org",
        "ed25519",
        "sign",
        "30d",
    ]);
    let document = gpg.clearsign(
        "old@example.org",
        TEXT,
        &["--faked-system-time", "20250102T000000"],
    );
    let keyring = Keyring::from_bytes(&gpg.run(&["--export"])).unwrap();
    assert_eq!(refusal(&document, &keyring), Refusal::KeyExpired);

    let gpg = Gpg::new();
    gpg.generate("gone@example.org", "ed25519", "sign", "never");
    let document = gpg.clearsign("gone@example.org", TEXT, &[]);
    assert!(
        open(
            &document,
            &Keyring::from_bytes(&gpg.run(&["--export"])).unwrap()
        )
        .is_ok()
    );
    // The certificate that gpg makes in advance carries a colon against accidents.
    let directory = gpg.home.path().join("openpgp-revocs.d");
    let prepared = std::fs::read_dir(&directory)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let armed = std::fs::read_to_string(&prepared)
        .unwrap()
        .replace(":-----BEGIN", "-----BEGIN");
    std::fs::write(&prepared, armed).unwrap();
    gpg.run(&["--import", prepared.to_str().unwrap()]);
    assert_eq!(
        refusal(
            &document,
            &Keyring::from_bytes(&gpg.run(&["--export"])).unwrap()
        ),
        Refusal::KeyRevoked
    );
}

#[test]
fn weak_signatures_of_gpg_are_refused() {
    let gpg = Gpg::new();
    gpg.generate("rsa@example.org", "rsa2048", "sign", "never");
    gpg.generate("dsa@example.org", "dsa2048", "sign", "never");
    let keyring = Keyring::from_bytes(&gpg.run(&["--export"])).unwrap();
    let document = gpg.clearsign("rsa@example.org", TEXT, &["--digest-algo", "SHA1"]);
    assert_eq!(refusal(&document, &keyring), Refusal::Hash("SHA1".into()));
    let document = gpg.clearsign("dsa@example.org", TEXT, &["--digest-algo", "SHA256"]);
    assert_eq!(
        refusal(&document, &keyring),
        Refusal::Algorithm("DSA".into())
    );
}

#[test]
fn gpg_agrees_about_what_we_assemble() {
    let gpg = Gpg::new();
    // The old form of Ed25519 would be needed for GnuPG 2.2 to know our test key: a document that
    // gpg signed is taken apart and put together again instead.
    gpg.generate("rsa@example.org", "rsa2048", "sign", "never");
    let document = gpg.clearsign("rsa@example.org", TEXT, &["--digest-algo", "SHA256"]);
    let parsed = wire_simplestreams::ClearSigned::parse(&document).unwrap();
    let again =
        wire_simplestreams::ClearSigned::assemble(parsed.text(), "SHA256", parsed.signature());
    let file = gpg.home.path().join("again.sjson");
    std::fs::write(&file, &again).unwrap();
    gpg.run(&["--verify", file.to_str().unwrap()]);
    std::fs::write(&file, again.replace("dashes", "lashes")).unwrap();
    assert!(
        !gpg.try_run(&["--verify", file.to_str().unwrap()])
            .status
            .success()
    );
}

#[test]
fn keyrings_of_the_distribution_are_read() {
    // Whatever Debian trusts today: old DSA-free RSA keys, subkeys, user attributes.
    let mut read = 0;
    for entry in std::fs::read_dir("/usr/share/keyrings").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "gpg") && is_debian(&path) {
            let bytes = std::fs::read(&path).unwrap();
            let keyring = Keyring::from_bytes(&bytes)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(keyring.fingerprints().count() > 0);
            read += 1;
        }
    }
    assert!(read > 0, "debian-archive-keyring is installed");
    // Ours, for completeness: not among them.
    let document = sign(TEXT, &Key::new(Spec::default()).secret);
    let debian = std::fs::read("/usr/share/keyrings/debian-archive-keyring.gpg").unwrap();
    assert_eq!(
        refusal(document.as_bytes(), &Keyring::from_bytes(&debian).unwrap()),
        Refusal::UnknownKey
    );
}

fn is_debian(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("debian-archive"))
}
