//! Boot images from the source to the rack, through the API and real connections.

mod bench;
mod mirror;
mod server;

use std::time::Duration;

use bench::{Bench, until};
use link::snapshot::RootMethod;
use mirror::{Mirror, content};
use region::image::blob::Files;
use region::image::{self, SYNC_KIND, maintain, publish};
use serde_json::{Value, json};
use server::{Seen, Server};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

/// Each test on SQLite and, with the feature `peers`, on PostgreSQL.
macro_rules! both {
    ($($name:ident,)*) => {
        $(mod $name {
            #[tokio::test]
            async fn sqlite() {
                super::$name().await;
            }

            #[cfg(feature = "peers")]
            #[tokio::test]
            async fn postgres() {
                crate::bench::use_postgres();
                super::$name().await;
            }
        })*
    };
}

mod source;

both! {
    what_is_selected_is_imported_and_can_boot_and_install,
    a_selection_must_name_what_its_source_offers,
    a_broken_connection_goes_on_where_it_stopped,
    a_server_without_ranges_is_asked_for_all_of_it,
    an_altered_file_is_refused_and_what_was_held_stays,
    a_new_version_replaces_the_old_one,
    the_same_version_with_other_files_is_a_new_one,
    an_import_that_was_cut_off_is_finished_by_the_next_attempt,
    what_was_left_of_another_file_does_not_spoil_a_download,
    an_import_can_be_stopped_and_gives_way_to_new_sources,
    what_is_no_longer_selected_goes_with_the_next_import_but_not_while_a_source_is_away,
    content_that_should_be_here_is_fetched_again,
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn index(url: &str) -> String {
    format!("{url}/streams/v1/index.json")
}

async fn lab() -> (Mirror, Server) {
    let mut mirror = Mirror::new();
    mirror
        .system("bookworm", "amd64", "20250101")
        .loaders("20250101")
        .publish();
    let server = Server::start(mirror.path()).await;
    (mirror, server)
}

async fn what_is_selected_is_imported_and_can_boot_and_install() {
    let (_mirror, server) = lab().await;
    let b = Bench::start().await;
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    assert_eq!(b.errors().await, Vec::<String>::new());

    let r = b.resource("debian/bookworm").await.unwrap();
    assert_eq!(
        (
            &r["type"],
            &r["architecture"],
            &r["subarches"],
            &r["last_deployed"]
        ),
        (
            &json!("Synced"),
            &json!("amd64/ga-12"),
            &json!("generic,ga-12"),
            &Value::Null
        )
    );
    let set = &r["sets"]["20250101"];
    assert_eq!(
        (&set["complete"], &set["label"]),
        (&json!(true), &json!("stable"))
    );
    assert!(
        set.get("progress").is_none() && r.get("pending").is_none(),
        "{r}"
    );
    let kernel = content("bookworm/amd64/20250101/boot-kernel");
    assert_eq!(
        set["files"]["boot-kernel"],
        json!({
            "filename": "boot-kernel", "filetype": "boot-kernel", "sha256": hash(&kernel),
            "filename_on_disk": hash(&kernel), "size": kernel.len(), "complete": true,
        })
    );
    assert_eq!(set["files"].as_object().unwrap().len(), 4);

    let mut tx = b.region.db.read().await.unwrap();
    let (images, loaders) = image::for_racks(&mut tx).await.unwrap();
    let image = images.values().next().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(
        (
            image.osystem.as_str(),
            image.release.as_str(),
            image.subarch.as_str()
        ),
        ("debian", "bookworm", "ga-12")
    );
    assert_eq!(
        (image.root_method, image.kparams.as_str()),
        (RootMethod::LiveBoot, "console=ttyS0")
    );
    assert_eq!(image.kernel.sha256, hash(&kernel));
    assert_eq!(
        image.root.as_ref().unwrap().sha256,
        hash(&content("bookworm/amd64/20250101/squashfs"))
    );
    let names: Vec<_> = loaders
        .iter()
        .map(|(n, l)| (n.as_str(), l.sha256.clone()))
        .collect();
    assert_eq!(
        names,
        [
            ("bootx64.efi", hash(&content("bootx64.efi"))),
            ("grubx64.efi", hash(&content("grubx64.efi")))
        ]
    );

    image::check_architecture(&mut tx, "amd64/generic")
        .await
        .unwrap();
    let refused = image::check_architecture(&mut tx, "arm64/generic")
        .await
        .unwrap_err()
        .answer();
    assert_eq!(refused.status, 400);
    let d = image::deployable(&mut tx, None, "bookworm", "amd64/generic")
        .await
        .unwrap();
    assert_eq!(
        (d.osystem.as_str(), d.kernel.as_deref()),
        ("debian", Some("ga-12"))
    );
    let d = image::deployable(&mut tx, Some("debian"), "12", "amd64/generic")
        .await
        .unwrap();
    assert_eq!(d.series, "bookworm");
    assert!(
        image::deployable(&mut tx, Some("ubuntu"), "bookworm", "amd64/generic")
            .await
            .is_err()
    );
    assert!(
        image::deployable(&mut tx, None, "trixie", "amd64/generic")
            .await
            .is_err()
    );
    assert_eq!(
        image::newest_series(&mut tx, "debian").await.unwrap(),
        "bookworm"
    );
    let source = image::install_source(&mut tx, "debian", "bookworm", "amd64/generic")
        .await
        .unwrap();
    let tgz = content("bookworm/amd64/20250101/root-tgz");
    assert_eq!(
        (source.filetype.as_str(), source.sha256, source.size),
        ("root-tgz", hash(&tgz), tgz.len() as u64)
    );

    // Each way to the bytes.
    assert_eq!(
        b.content(&hash(&kernel)).await,
        (200, kernel.clone().into())
    );
    let part = b.part(&hash(&kernel), Some("bytes=10-19")).await;
    assert_eq!(part, (206, kernel[10..20].to_vec().into()));
    assert_eq!(
        b.part(&hash(&kernel), Some("bytes=999999999-")).await.0,
        416
    );
    assert_eq!(b.content(&"0".repeat(64)).await.0, 404);
    assert_eq!(b.content("../region.db").await.0, 404);
    let mut blob = image::open_blob(&b.region, &hash(&kernel), 1000)
        .await
        .unwrap();
    let mut rest = Vec::new();
    blob.reader.read_to_end(&mut rest).await.unwrap();
    assert_eq!(
        (blob.size, &rest[..]),
        (kernel.len() as u64, &kernel[1000..])
    );
    assert!(
        image::open_blob(&b.region, &hash(&kernel), kernel.len() as u64 + 1)
            .await
            .is_err()
    );
    let mut agent = image::open_blob(&b.region, &hash(b"the agent"), 4)
        .await
        .unwrap();
    let mut rest = String::new();
    agent.reader.read_to_string(&mut rest).await.unwrap();
    assert_eq!((agent.size, rest.as_str()), (9, "agent"));
}

async fn a_selection_must_name_what_its_source_offers() {
    let (_mirror, server) = lab().await;
    let b = Bench::idle().await;
    let (_, source) = b
        .call("POST", "boot-sources/", &[("url", &index(&server.url))])
        .await;
    let path = format!("boot-sources/{}/selections/", source["id"]);
    let good = [("os", "debian"), ("release", "bookworm")];
    let (status, early) = b.call("POST", &path, &good).await;
    assert_eq!(status, 400);
    assert!(
        early["os"][0]
            .as_str()
            .unwrap()
            .contains("has not been read yet"),
        "{early}"
    );

    region::worker::start(&b.region);
    until("the source to be read", || async {
        let (status, _) = b.call("POST", &path, &good).await;
        (status == 200).then_some(())
    })
    .await;
    for (form, field) in [
        (
            [("os", "plan9"), ("release", "bookworm"), ("arches", "*")],
            "os",
        ),
        (
            [("os", "debian"), ("release", "sid"), ("arches", "*")],
            "release",
        ),
        (
            [
                ("os", "debian"),
                ("release", "bookworm"),
                ("arches", "amd64,s390x"),
            ],
            "arches",
        ),
        (
            [
                ("os", "debian"),
                ("release", "bookworm"),
                ("subarches", "hwe-99"),
            ],
            "subarches",
        ),
        (
            [
                ("os", "debian"),
                ("release", "bookworm"),
                ("labels", "daily"),
            ],
            "labels",
        ),
        (
            [
                ("os", "grub-efi-signed"),
                ("release", "uefi"),
                ("labels", "*"),
            ],
            "os",
        ),
        (
            [
                ("os", "debian"),
                ("release", "bookworm"),
                ("arches", "amd64"),
            ],
            "__all__",
        ),
    ] {
        let (status, answer) = b.call("POST", &path, &form).await;
        assert_eq!(status, 400, "{form:?} {answer}");
        assert!(answer[field][0].is_string(), "{form:?} {answer}");
    }
    let all = b.get(&path).await;
    let one = &all[0];
    assert_eq!(one["arches"], json!(["*"]));
    let own = one["resource_uri"]
        .as_str()
        .unwrap()
        .strip_prefix("/MAAS/api/2.0/")
        .unwrap();
    let (status, changed) = b.call("PUT", own, &[("arches", "amd64")]).await;
    assert_eq!((status, &changed["arches"]), (200, &json!(["amd64"])));
    assert_eq!(b.call("PUT", own, &[("arches", "arm64")]).await.0, 400);
    assert_eq!(b.get(own).await["arches"], json!(["amd64"]));
    assert_eq!(b.call("DELETE", own, &[]).await.0, 204);
    assert_eq!(b.call("GET", own, &[]).await.0, 404);
    assert_eq!(
        b.call("GET", "boot-sources/99/selections/", &[]).await.0,
        404
    );
}

async fn a_broken_connection_goes_on_where_it_stopped() {
    let (_mirror, server) = lab().await;
    let (squashfs, kernel) = (
        "bookworm/amd64/20250101/squashfs",
        "bookworm/amd64/20250101/boot-kernel",
    );
    server.cut(squashfs, 30_000);
    server.cut(kernel, 1);
    let b = Bench::start().await;
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    assert_eq!(b.errors().await, Vec::<String>::new());
    for (path, at) in [(squashfs, 30_000), (kernel, 1)] {
        let seen = |from| Seen {
            path: path.to_owned(),
            from,
        };
        assert_eq!(server.seen(path), [seen(None), seen(Some(at))]);
        assert_eq!(b.content(&hash(&content(path))).await.1, content(path));
    }
}

async fn a_server_without_ranges_is_asked_for_all_of_it() {
    let (_mirror, server) = lab().await;
    let path = "bookworm/amd64/20250101/squashfs";
    server.cut(path, 30_000);
    server.without_ranges();
    let b = Bench::start().await;
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    assert_eq!(server.seen(path).len(), 2);
    assert_eq!(b.content(&hash(&content(path))).await.1, content(path));
}

async fn an_altered_file_is_refused_and_what_was_held_stays() {
    let (mut mirror, server) = lab().await;
    let b = Bench::start().await;
    let source = b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    mirror.system("bookworm", "amd64", "20250202").publish();
    server.alter("bookworm/amd64/20250202/squashfs");
    b.import().await;
    b.imported().await;
    let errors = b.errors().await;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].contains("debian/bookworm") && errors[0].contains("20250202/squashfs is altered"),
        "{errors:?}"
    );
    let altered = hash(&{
        let mut c = content("bookworm/amd64/20250202/squashfs");
        *c.last_mut().unwrap() ^= 1;
        c
    });
    assert!(!Files::of(&b.region).has(&altered));
    let r = b.resource("debian/bookworm").await.unwrap();
    assert_eq!(r["sets"]["20250101"]["complete"], json!(true));
    assert_eq!(r["sets"]["20250202"]["complete"], json!(false));
    assert_eq!(
        r["sets"]["20250202"]["files"]["squashfs"]["complete"],
        json!(false)
    );
    let mut tx = b.region.db.read().await.unwrap();
    let source_of = image::install_source(&mut tx, "debian", "bookworm", "amd64/generic")
        .await
        .unwrap();
    assert_eq!(
        source_of.sha256,
        hash(&content("bookworm/amd64/20250101/root-tgz"))
    );
    drop(tx);
    assert!(b.get(&format!("boot-sources/{source}/")).await.is_object());
}

async fn a_new_version_replaces_the_old_one() {
    let (mut mirror, server) = lab().await;
    let b = Bench::start().await;
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    let id = b.resource("debian/bookworm").await.unwrap()["id"].clone();
    mirror.system("bookworm", "amd64", "20250202").publish();
    b.import().await;
    b.imported().await;
    assert_eq!(b.errors().await, Vec::<String>::new());
    let r = b.resource("debian/bookworm").await.unwrap();
    assert_eq!(r["id"], id);
    let versions: Vec<_> = r["sets"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(versions, ["20250202"]);
    // What a machine is booting still comes, until the time is up.
    let (files, old) = (
        Files::of(&b.region),
        hash(&content("bookworm/amd64/20250101/squashfs")),
    );
    assert!(files.has(&old));
    publish::sweep(&b.region, &files, Duration::ZERO, true)
        .await
        .unwrap();
    assert!(!files.has(&old));
    assert!(files.has(&hash(&content("bookworm/amd64/20250202/squashfs"))));
    assert!(
        files.has(&hash(&content("bootx64.efi"))),
        "boot loaders are referred to"
    );
}

async fn the_same_version_with_other_files_is_a_new_one() {
    let (_mirror, server) = lab().await;
    let b = Bench::start().await;
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    let mut again = Mirror::new();
    again
        .system("bookworm", "amd64", "20250101")
        .with("boot-kernel", b"another kernel")
        .loaders("20250101")
        .publish();
    let source = b.get("boot-sources/").await[0]["id"].clone();
    let url = again.path().display().to_string();
    let (status, _) = b
        .call("PUT", &format!("boot-sources/{source}/"), &[("url", &url)])
        .await;
    assert_eq!(status, 200);
    b.import().await;
    b.imported().await;
    assert_eq!(b.errors().await, Vec::<String>::new());
    let r = b.resource("debian/bookworm").await.unwrap();
    let kernel = &r["sets"]["20250101"]["files"]["boot-kernel"];
    assert_eq!(kernel["sha256"], hash(b"another kernel"));
}

/// Claims the job about a subject, as a worker does.
async fn claim(b: &Bench, subject: &str, lease: Duration) -> store::job::Job {
    until("a job", || async {
        let job = b
            .region
            .db
            .claim_job(&[SYNC_KIND], "test", lease)
            .await
            .unwrap()?;
        if job.subject == subject {
            return Some(job);
        }
        image::sync_job(&b.region, &job).await.unwrap();
        None
    })
    .await
}

async fn an_import_that_was_cut_off_is_finished_by_the_next_attempt() {
    let (_mirror, server) = lab().await;
    let stuck = "bookworm/amd64/20250101/squashfs";
    let b = Bench::idle().await;
    let (_, source) = b
        .call("POST", "boot-sources/", &[("url", &index(&server.url))])
        .await;
    let job = claim(&b, "sources", Duration::from_secs(60)).await;
    image::sync_job(&b.region, &job).await.unwrap();
    b.select_at(source["id"].as_i64().unwrap(), "bookworm")
        .await;

    server.stick(stuck, 50_000);
    let lease = Duration::from_millis(300);
    let job = claim(&b, "all", lease).await;
    let (region, first) = (b.region.clone(), job.clone());
    let attempt = tokio::spawn(async move { image::sync_job(&region, &first).await });
    let files = Files::of(&b.region);
    let sha256 = hash(&content(stuck));
    until("the download to be stuck", || async {
        let others = files.has(&hash(&content("bookworm/amd64/20250101/root-tgz")));
        (others && server.seen(stuck).len() == 1).then_some(())
    })
    .await;
    let r = b.resource("debian/bookworm").await.unwrap();
    let set = &r["sets"]["20250101"];
    assert_eq!(set["complete"], json!(false), "{set}");
    assert!(set["progress"].as_f64().unwrap() < 100.0);
    assert_eq!(b.get("boot-resources/?op=is_importing").await, json!(true));
    let mut tx = b.region.db.read().await.unwrap();
    assert!(
        image::for_racks(&mut tx).await.unwrap().0.is_empty(),
        "half an image boots nothing"
    );
    drop(tx);
    attempt.abort();
    attempt.await.unwrap_err();

    // As after kill -9: the lease runs out, somebody else takes the job, with what is on disk.
    std::fs::write(files.partial(&sha256), &content(stuck)[..40_000]).unwrap();
    server.unstick();
    let again = claim(&b, "all", Duration::from_secs(60)).await;
    assert_eq!((again.id, again.attempt), (job.id, job.attempt + 1));
    // The attempt that was thought dead cannot do harm.
    image::sync_job(&b.region, &job).await.unwrap();
    image::sync_job(&b.region, &again).await.unwrap();
    assert_eq!(server.seen(stuck).last().unwrap().from, Some(40_000));
    assert_eq!(
        server.seen("bookworm/amd64/20250101/root-tgz").len(),
        1,
        "what is here is not fetched again"
    );
    assert_eq!(b.get("boot-resources/?op=is_importing").await, json!(false));
    let r = b.resource("debian/bookworm").await.unwrap();
    assert_eq!(r["sets"]["20250101"]["complete"], json!(true));
    assert!(!files.partial(&sha256).exists());
}

async fn what_was_left_of_another_file_does_not_spoil_a_download() {
    let (_mirror, server) = lab().await;
    let b = Bench::idle().await;
    let files = Files::of(&b.region);
    files.create().unwrap();
    let (short, long) = (
        "bookworm/amd64/20250101/squashfs",
        "bookworm/amd64/20250101/root-tgz",
    );
    std::fs::write(files.partial(&hash(&content(short))), b"rubbish").unwrap();
    std::fs::write(files.partial(&hash(&content(long))), vec![7; 1 << 20]).unwrap();
    region::worker::start(&b.region);
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    assert_eq!(b.errors().await, Vec::<String>::new());
    for path in [short, long] {
        assert_eq!(b.content(&hash(&content(path))).await.1, content(path));
    }
}

async fn an_import_can_be_stopped_and_gives_way_to_new_sources() {
    let (_mirror, server) = lab().await;
    let mut second = Mirror::new();
    second.system("trixie", "amd64", "20250101").publish();
    let stuck = "bookworm/amd64/20250101/squashfs";
    server.stick(stuck, 1_000);
    let b = Bench::start().await;
    b.select(&index(&server.url), "bookworm").await;
    until("the download to be stuck", || async {
        (!server.seen(stuck).is_empty()).then_some(())
    })
    .await;
    // The first import never ends by itself; the second source is read all the same.
    b.select(second.path().to_str().unwrap(), "trixie").await;
    until("the import to be at it again", || async {
        (server.seen(stuck).len() > 1).then_some(())
    })
    .await;
    until("the other image", || async {
        let r = b.resource("debian/trixie").await?;
        (r["sets"]["20250101"]["complete"] == true).then_some(())
    })
    .await;
    assert_eq!(b.get("boot-resources/?op=is_importing").await, json!(true));
    let answer = b.call("POST", "boot-resources/?op=stop_import", &[]).await;
    assert_eq!(
        answer,
        (200, json!("Import of boot resources is being stopped"))
    );
    assert_eq!(b.get("boot-resources/?op=is_importing").await, json!(false));
    // The worker is free again: the next import runs.
    server.unstick();
    b.import().await;
    b.imported().await;
    assert_eq!(
        b.resource("debian/bookworm").await.unwrap()["sets"]["20250101"]["complete"],
        json!(true)
    );
}

async fn what_is_no_longer_selected_goes_with_the_next_import_but_not_while_a_source_is_away() {
    let mut mirror = Mirror::new();
    mirror
        .system("bookworm", "amd64", "20250101")
        .system("trixie", "amd64", "20250101")
        .publish();
    let server = Server::start(mirror.path()).await;
    let b = Bench::start().await;
    let source = b.select(&index(&server.url), "bookworm").await;
    b.select_at(source, "trixie").await;
    b.imported().await;
    assert_eq!(b.get("boot-resources/").await.as_array().unwrap().len(), 2);
    let selections = b.get(&format!("boot-sources/{source}/selections/")).await;
    let own = format!("boot-sources/{source}/selections/{}/", selections[0]["id"]);
    assert_eq!(b.call("DELETE", &own, &[]).await.0, 204);
    assert!(b.resource("debian/bookworm").await.is_some());

    let (moved, there) = (mirror.path().join("gone"), mirror.path().join("streams"));
    std::fs::rename(&there, &moved).unwrap();
    b.import().await;
    b.imported().await;
    assert!(
        b.errors().await[0].contains("answered 404"),
        "{:?}",
        b.errors().await
    );
    assert!(b.resource("debian/bookworm").await.is_some());

    std::fs::rename(&moved, &there).unwrap();
    b.import().await;
    b.imported().await;
    assert!(b.resource("debian/bookworm").await.is_none());
    let id = b.resource("debian/trixie").await.unwrap()["id"].clone();
    assert_eq!(
        b.call("DELETE", &format!("boot-resources/{id}/"), &[])
            .await
            .0,
        204
    );
    assert_eq!(b.get("boot-resources/?type=synced").await, json!([]));
    assert_eq!(b.call("GET", "boot-resources/?type=odd", &[]).await.0, 400);
}

async fn content_that_should_be_here_is_fetched_again() {
    let (_mirror, server) = lab().await;
    let b = Bench::start().await;
    b.select(&index(&server.url), "bookworm").await;
    b.imported().await;
    let files = Files::of(&b.region);
    let lost = ["bookworm/amd64/20250101/squashfs", "grubx64.efi"].map(|n| hash(&content(n)));
    for sha256 in &lost {
        std::fs::remove_file(files.complete(sha256)).unwrap();
    }
    maintain::fill(&b.region).await.unwrap();
    for sha256 in &lost {
        assert!(files.has(sha256));
    }
}
