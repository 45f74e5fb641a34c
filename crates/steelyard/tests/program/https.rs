//! `config-tls`: a certificate is taken over by a region that runs.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::{Done, Place, Up};

/// How long a region may take to notice.
const LIMIT: Duration = Duration::from_secs(60);

/// Key and certificate for 127.0.0.1, which is its own authority.
fn certificate(place: &Place, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let path = |end: &str| place.path(&format!("{name}.{end}")).display().to_string();
    let (key, cert) = (path("key"), path("pem"));
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    (key, cert)
}

fn until(what: &str, mut ask: impl FnMut() -> Done, good: impl Fn(&Done) -> bool) {
    let begin = Instant::now();
    loop {
        let done = ask();
        if good(&done) {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "{what}: {done:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_running_region_takes_over_certificates_and_gives_https_up_again() {
    let place = Place::new();
    let up = Up::start(&place);
    let api_key = place.admin("admin");
    let (key, cert) = certificate(&place, "first");
    let (other_key, other_cert) = certificate(&place, "second");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    place
        .maas(&["config-tls", "enable", &key, &other_cert])
        .fails(1, "cannot be used together");
    place
        .maas(&["config-tls", "enable", &cert, &cert])
        .fails(1, "no private key");
    assert!(place.maas(&["config-tls", "status"]).ok().contains("off"));
    place
        .maas(&["config-tls", "enable", &key, &cert, "--port", &port])
        .ok();
    assert!(place.maas(&["config-tls", "status"]).ok().contains(&port));
    let url = format!("https://127.0.0.1:{port}/MAAS");
    let log_in = |ca: &str| place.maas(&["login", "s", &url, &api_key, "--cacerts", ca]);
    until("HTTPS comes", || log_in(&cert), |d| d.code == 0);
    // Generated clients are told of the address that they came by.
    let kept = std::fs::read_to_string(place.profiles()).unwrap();
    assert!(kept.contains(&format!("https://127.0.0.1:{port}/MAAS/api/2.0/zones/")));
    let read = ["s", "users", "whoami"];
    assert!(place.maas(&read).ok().contains("admin"));
    place
        .maas(&["login", "t", &url, &api_key])
        .fails(1, "does not answer");

    let enable = [
        "config-tls",
        "enable",
        &other_key,
        &other_cert,
        "--port",
        &port,
    ];
    place.maas(&enable).ok();
    until(
        "the other certificate",
        || log_in(&other_cert),
        |d| d.code == 0,
    );
    log_in(&cert).fails(1, "does not answer");
    // The region has not been away meanwhile.
    place.maas(&["login", "p", &up.url, &api_key]).ok();

    place.maas(&["config-tls", "disable"]).ok();
    until("HTTPS goes", || place.maas(&read), |d| d.code == 1);
    assert!(place.maas(&["p", "users", "whoami"]).ok().contains("admin"));
    // Nothing of the key is readable in the database.
    let secret = std::fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    let database = std::fs::read(place.data().join("steelyard.db")).unwrap();
    assert!(
        !database
            .windows(secret.len())
            .any(|w| w == secret.as_bytes())
    );
}
