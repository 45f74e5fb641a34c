//! Sources: what is accepted as one, which are believed, and those that are away.

use super::{Bench, content, hash, index, json, lab, maintain, until};
use crate::mirror::Signer;

both! {
    sources_are_checked_before_they_are_kept,
    a_signed_source_is_believed_with_its_key_only,
    a_directory_is_a_source,
    a_new_installation_has_the_official_source_once,
    a_source_that_cannot_be_reached_says_so_and_blocks_nothing,
}

async fn sources_are_checked_before_they_are_kept() {
    let b = Bench::idle().await;
    for (form, field) in [
        (vec![], "url"),
        (vec![("url", "ftp://m/x")], "url"),
        (vec![("url", "http://")], "url"),
        (vec![("url", "relative/path")], "url"),
        (vec![("url", "/srv/../etc")], "url"),
        // Nothing could be verified, and nobody asked for that.
        (vec![("url", "http://m.example/x")], "keyring_filename"),
        (
            vec![
                ("url", "http://m.example/streams/v1/index.json"),
                ("keyring_filename", "/k.gpg"),
            ],
            "url",
        ),
        (
            vec![("url", "http://m.example/x"), ("keyring_filename", "k.gpg")],
            "keyring_filename",
        ),
        (
            vec![
                ("url", "http://m.example/x"),
                ("keyring_data", "bm90IGEga2V5"),
            ],
            "keyring_data",
        ),
    ] {
        let (status, answer) = b.call("POST", "boot-sources/", &form).await;
        assert_eq!(status, 400, "{form:?} {answer}");
        assert!(answer[field][0].is_string(), "{form:?} {answer}");
    }
    let form = [
        ("url", "http://m.example/x"),
        ("keyring_filename", "/k.gpg"),
    ];
    let (status, source) = b.call("POST", "boot-sources/", &form).await;
    assert_eq!(
        (status, &source["keyring_filename"], &source["keyring_data"]),
        (201, &json!("/k.gpg"), &json!(""))
    );
    assert_eq!(b.call("POST", "boot-sources/", &form).await.0, 400, "twice");
    let own = format!("boot-sources/{}/", source["id"]);
    let keyring = Signer::new(1).keyring();
    // The one that is given replaces the other.
    let (status, changed) = b.call("PUT", &own, &[("keyring_data", &keyring)]).await;
    assert_eq!((status, &changed["keyring_filename"]), (200, &json!("")));
    assert!(changed["keyring_data"].as_str().unwrap().len() > 100);
    let both = [
        ("keyring_data", keyring.as_str()),
        ("keyring_filename", "/k.gpg"),
    ];
    assert_eq!(b.call("PUT", &own, &both).await.0, 400);
    assert_eq!(b.get("boot-sources/").await.as_array().unwrap().len(), 1);
    assert_eq!(b.call("DELETE", &own, &[]).await.0, 204);
    assert_eq!(b.call("GET", &own, &[]).await.0, 404);
}

async fn a_signed_source_is_believed_with_its_key_only() {
    let (mirror, server) = lab().await;
    let (good, other) = (Signer::new(1), Signer::new(2));
    mirror.publish_signed(&good);
    let b = Bench::start().await;
    let (status, source) = b.upload_source(&server.url, &other.keyring()).await;
    assert_eq!(status, 201, "{source}");
    let errors = until("the refusal", || async {
        Some(b.errors().await).filter(|e| !e.is_empty())
    })
    .await;
    assert!(
        errors[0].contains("index.sjson is not accepted"),
        "{errors:?}"
    );
    let own = format!("boot-sources/{}/", source["id"]);
    let (status, _) = b
        .call("PUT", &own, &[("keyring_data", &good.keyring())])
        .await;
    assert_eq!(status, 200);
    let id = source["id"].as_i64().unwrap();
    b.select_at(id, "bookworm").await;
    b.imported().await;
    assert!(b.resource("debian/bookworm").await.unwrap()["sets"]["20250101"]["complete"] == true);

    // Altered after signing: nothing of it is used, what is held stays.
    let path = mirror
        .path()
        .join("streams/v1/org.example:stable:v3:download.sjson");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("bookworm", "bookwurm");
    std::fs::write(&path, text).unwrap();
    b.import().await;
    b.imported().await;
    assert!(
        b.errors()
            .await
            .last()
            .unwrap()
            .contains("download.sjson is not accepted"),
        "{:?}",
        b.errors().await
    );
    assert!(b.resource("debian/bookworm").await.unwrap()["sets"]["20250101"]["complete"] == true);
}

async fn a_directory_is_a_source() {
    let (mirror, _server) = lab().await;
    let b = Bench::start().await;
    b.select(&format!("file://{}", mirror.path().display()), "bookworm")
        .await;
    b.imported().await;
    assert_eq!(b.errors().await, Vec::<String>::new());
    let kernel = content("bookworm/amd64/20250101/boot-kernel");
    assert_eq!(b.content(&hash(&kernel)).await.1, kernel);
}

async fn a_new_installation_has_the_official_source_once() {
    let b = Bench::idle().await;
    maintain::ensure_defaults(&b.region).await.unwrap();
    maintain::ensure_defaults(&b.region).await.unwrap();
    let sources = b.get("boot-sources/").await;
    assert_eq!(sources.as_array().unwrap().len(), 1);
    assert_eq!(sources[0]["url"], maintain::DEFAULT_URL);
    let id = &sources[0]["id"];
    let selections = b.get(&format!("boot-sources/{id}/selections/")).await;
    assert_eq!(
        (&selections[0]["os"], &selections[0]["release"]),
        (&json!("ubuntu"), &json!("noble"))
    );
    // Who deletes it does not get it back.
    assert_eq!(
        b.call("DELETE", &format!("boot-sources/{id}/"), &[])
            .await
            .0,
        204
    );
    maintain::ensure_defaults(&b.region).await.unwrap();
    assert_eq!(b.get("boot-sources/").await, json!([]));
}

async fn a_source_that_cannot_be_reached_says_so_and_blocks_nothing() {
    let (_mirror, server) = lab().await;
    let b = Bench::start().await;
    // A port that nobody listens at.
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let dead = format!("http://user:geheim@127.0.0.1:{port}/streams/v1/index.json");
    let (status, source) = b.call("POST", "boot-sources/", &[("url", &dead)]).await;
    assert_eq!(status, 201);
    let (status, missing) = b
        .call(
            "POST",
            "boot-sources/",
            &[
                ("url", "http://m.invalid/x"),
                ("keyring_filename", "/no/such/keys.gpg"),
            ],
        )
        .await;
    assert_eq!(status, 201, "{missing}");
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    assert_eq!(
        b.resource("debian/bookworm").await.unwrap()["sets"]["20250101"]["complete"],
        json!(true)
    );
    let errors = b.errors().await;
    let once: std::collections::BTreeSet<_> = errors.iter().collect();
    assert_eq!(
        once.len(),
        errors.len(),
        "the same is told once: {errors:?}"
    );
    let errors = errors.join("\n");
    assert!(
        errors.contains(&format!("127.0.0.1:{port}")) && errors.contains("/no/such/keys.gpg"),
        "{errors}"
    );
    assert!(!errors.contains("geheim"));
    let path = format!("boot-sources/{}/selections/", source["id"]);
    let (status, answer) = b
        .call("POST", &path, &[("os", "debian"), ("release", "bookworm")])
        .await;
    assert_eq!(status, 400);
    assert!(!answer.to_string().contains("geheim"), "{answer}");
}
