//! A whole rack over loopback, its region in the test.

mod support;

use link::message::{Command, Order, Outcome, PowerAction, PowerOrder, PowerState, Report};
use link::snapshot::Change;
use metal::boot::Purpose;
use metal::status::Status;
use metal::timeline::{FileOutcome, What};
use support::*;

const CONFIG: &str = "/ipxe.cfg-52:54:00:01:02:03";
const AUTH: (&str, &str) = ("Authorization", "OAuth oauth_token=\"secret-token\"");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

#[tokio::test(flavor = "multi_thread")]
async fn a_change_shows_in_the_next_configuration() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let port = rack.http_addresses()[0].port();

    let first = get(&rack, CONFIG).await;
    assert_eq!(first.status, 200);
    assert!(
        first.whole()
            && first
                .text()
                .contains(&format!("kernel http://127.0.0.1:{port}/images/")),
        "{}",
        first.text()
    );
    region.change(Change::Machine(Box::new(a_machine(Status::Deployed))));
    settled(&rack, &region).await;
    assert!(get(&rack, CONFIG).await.text().contains("sanboot"));
    let by_uuid = get(&rack, "/pxelinux.cfg/4C4C4544-0042-3010-8035-B4C04F4E4632").await;
    assert!(by_uuid.text().contains("chain.c32"), "{}", by_uuid.text());

    until("the configurations are reported", || {
        let purposes: Vec<Purpose> = region
            .reports()
            .iter()
            .filter_map(|r| match r {
                Report::BootConfig(b) => {
                    assert_eq!(b.system_id.as_ref().unwrap().as_str(), "4y3h7n");
                    assert_eq!(
                        b.mac,
                        Some(MAC),
                        "the UUID's request is known by its address"
                    );
                    Some(b.purpose)
                }
                _ => None,
            })
            .collect();
        purposes == [Purpose::Commissioning, Purpose::Local, Purpose::Local]
    })
    .await;
    assert!(region.saw(
        |w| matches!(w, What::Config { loader, purpose: Purpose::Local, .. } if loader == "ipxe")
    ));
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_machine_is_sent_on_to_enlist() {
    let (region, dir) = (a_region(Status::Ready), tempfile::tempdir().unwrap());
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    for path in [
        "/ipxe.cfg-52:54:00:ff:ff:ff",
        "/grub/grub.cfg-52:54:00:ff:ff:ff",
        "/pxelinux.cfg/01-52-54-00-ff-ff-ff",
    ] {
        assert_eq!(get(&rack, path).await.status, 404, "{path}");
    }
    assert!(
        get(&rack, "/ipxe.cfg-default-i386")
            .await
            .text()
            .contains("maas-enlist")
    );
    assert!(
        get(&rack, "/grub/grub.cfg-default-x86_64")
            .await
            .text()
            .contains("maas-enlist")
    );
    // A loader that cannot name its machine is known by its address.
    rack.shared()
        .saw_client("127.0.0.1".parse().unwrap(), MAC, metal::Timestamp(1));
    assert!(
        get(&rack, "/pxelinux.cfg/default")
            .await
            .text()
            .contains("by-id/4y3h7n")
    );
    // A lease is better evidence than the name a client gives itself.
    get(&rack, "/ipxe.cfg-52:54:00:ff:ff:ff").await;
    assert_eq!(
        rack.shared().client_mac("127.0.0.1".parse().unwrap()),
        Some(MAC)
    );
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_named_in_the_timeline() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    region.with(|s| s.snapshot.images.clear());
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    assert!(
        get(&rack, CONFIG)
            .await
            .text()
            .contains("Cannot boot: no ubuntu/noble image")
    );
    until("it is noted", || {
        region.saw(|w| matches!(w, What::Note { text } if text.contains("no ubuntu/noble image")))
    })
    .await;
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_region_a_restarted_rack_serves_what_it_had() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let root = region.with(|s| s.snapshot.images[&1].root.clone().unwrap());
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let path = format!("/images/{}/ubuntu/whatever", root.sha256);
    assert_eq!(get(&rack, &path).await.body, big(1));
    region.set_away(true);
    rack.stop().await;

    let rack = a_rack(&region, dir.path()).await;
    assert_eq!(rack.shared().rack().unwrap().as_str(), "rack01");
    assert!(get(&rack, CONFIG).await.text().contains(&root.sha256));
    assert_eq!(get(&rack, &path).await.body, big(1));
    assert_eq!(
        get(&rack, &format!("/images/{}/x", &root.sha256[..9]))
            .await
            .body,
        big(1),
        "a prefix will do"
    );
    // What it never had, it says so.
    let kernel = region.with(|s| s.snapshot.images[&1].kernel.sha256.clone());
    let reply = get(&rack, &format!("/images/{kernel}/x")).await;
    assert_eq!(
        (reply.status, reply.headers["retry-after"].as_str()),
        (503, "5")
    );
    // The region is back: the rack goes on from where it was, without a new snapshot.
    region.set_away(false);
    until("the rack is back", || {
        region.with(|s| s.subscriber.is_some())
    })
    .await;
    assert_eq!(
        region.with(|s| s.subscribed_from.clone()),
        [None, Some(region.with(|s| s.snapshot.position))]
    );
    region.change(Change::Machine(Box::new(a_machine(Status::Deployed))));
    settled(&rack, &region).await;
    assert_eq!(
        get(&rack, &format!("/images/{kernel}/x")).await.body,
        b"the kernel"
    );
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_given_while_the_region_is_away_are_delivered_once_and_in_order() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    region.set_away(true);
    let to = rack.http_addresses()[0];
    let signal = |n: u32, to| async move {
        let body = format!("op=signal&status=WORKING&error=step+{n}");
        request(
            to,
            "POST",
            "/MAAS/metadata/2012-03-01/",
            &[AUTH, FORM],
            body.as_bytes(),
        )
        .await
    };
    for n in 1..=3 {
        let reply = signal(n, to).await;
        assert_eq!((reply.status, reply.text()), (200, "OK".into()));
    }
    let status = request(to, "POST", "/MAAS/metadata/status/4y3h7n", &[AUTH], b"{}").await;
    assert_eq!(status.status, 204);
    let netboot = request(
        to,
        "POST",
        "/MAAS/metadata/latest/by-id/4y3h7n/",
        &[AUTH, FORM],
        b"op=netboot_off",
    )
    .await;
    assert_eq!(netboot.status, 200);
    let question = get(&rack, "/MAAS/metadata/2012-03-01/meta-data/instance-id").await;
    assert_eq!(
        (question.status, question.headers["retry-after"].as_str()),
        (503, "5")
    );
    let anonymous = request(
        to,
        "POST",
        "/MAAS/metadata/2012-03-01/",
        &[FORM],
        b"op=signal",
    )
    .await;
    assert_eq!(anonymous.status, 401);
    rack.stop().await; // nothing of it is lost with the process

    let rack = a_rack(&region, dir.path()).await;
    let to = rack.http_addresses()[0];
    assert_eq!(signal(4, to).await.status, 200);
    region.with(|s| s.lose_answers = 3); // stored, but the rack does not hear of it
    region.set_away(false);
    let delivered = || -> Vec<String> {
        region
            .reports()
            .iter()
            .filter_map(|r| match r {
                Report::Passed { request, .. } => {
                    Some(String::from_utf8(request.body.to_vec()).unwrap())
                }
                _ => None,
            })
            .collect()
    };
    until("all are delivered", || {
        delivered().len() >= 6 && rack.spool().waiting() == 0
    })
    .await;
    let step = |n: u32| format!("op=signal&status=WORKING&error=step+{n}");
    assert_eq!(
        delivered(),
        [
            step(1),
            step(2),
            step(3),
            "{}".into(),
            "op=netboot_off".into(),
            step(4)
        ]
    );
    // From then on they go straight to the region.
    assert_eq!(signal(5, to).await.text(), "from the region");
    let passed = region.with(|s| s.passed.last().cloned().unwrap());
    assert_eq!(passed.body, step(5));
    assert_eq!(
        (passed.client, passed.base),
        ("127.0.0.1".parse().unwrap(), format!("http://{to}"))
    );
    assert!(
        passed
            .headers
            .contains(&("authorization".into(), AUTH.1.into()))
    );
    // No credential is in the timeline.
    until("the calls are noted", || region.saw(|w| matches!(w, What::Metadata { path, status: 200, .. } if path.ends_with("?op=signal")))).await;
    assert!(!format!("{:?}", region.timeline()).contains("secret-token"));
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_installed_while_the_region_is_away_boots_its_disk() {
    let (region, dir) = (a_region(Status::Deploying), tempfile::tempdir().unwrap());
    region.with(|s| {
        for m in s.snapshot.machines.values_mut() {
            m.facts.netboot = true;
        }
    });
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let text = |reply: Reply| reply.text();
    assert!(text(get(&rack, CONFIG).await).contains("boot-kernel"));
    region.set_away(true);
    let told = request(
        rack.http_addresses()[0],
        "POST",
        "/MAAS/metadata/curtin/2012-03-01/",
        &[AUTH, FORM],
        b"op=netboot_off",
    )
    .await;
    assert_eq!(told.status, 200);
    assert!(!text(get(&rack, CONFIG).await).contains("boot-kernel"));
    rack.stop().await; // it is known afterwards too

    let rack = a_rack(&region, dir.path()).await;
    assert!(!text(get(&rack, CONFIG).await).contains("boot-kernel"));
    // The region has the last word: here it did not follow.
    region.set_away(false);
    until("the region has taken it", || rack.spool().waiting() == 0).await;
    until("the region's word counts", || {
        !rack.spool().boots_disk(&[MAC])
    })
    .await;
    assert!(text(get(&rack, CONFIG).await).contains("boot-kernel"));
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_passed_on() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let to = rack.http_addresses()[0];
    for (method, path, headers) in [
        ("GET", "/MAAS/api/2.0/users/", &[][..]),
        ("GET", "/MAAS/api/2.0/machines/", &[]),
        ("POST", "/MAAS/api/2.0/machines/?op=allocate", &[]),
        ("POST", "/MAAS/api/2.0/machines/", &[AUTH]),
        ("GET", "/MAAS/metadata/%2e%2e/api/2.0/users/", &[]),
        ("GET", "/MAAS/", &[]),
        ("GET", "/MAAS/accounts/login/", &[]),
        ("DELETE", "/MAAS/metadata/latest/", &[AUTH]),
    ] {
        assert_eq!(
            request(to, method, path, headers, b"").await.status,
            404,
            "{method} {path}"
        );
    }
    let hidden = request(
        to,
        "POST",
        "/MAAS/api/2.0/machines/",
        &[FORM],
        b"op=allocate",
    )
    .await;
    assert_eq!(hidden.status, 404);
    assert_eq!(region.with(|s| s.passed.len()), 0);
    assert_eq!(
        request(to, "POST", "/ipxe.cfg", &[], b"x").await.status,
        405
    );

    let registered = get(
        &rack,
        "/MAAS/api/2.0/machines/?op=is_registered&mac_address=52:54:00:01:02:03",
    )
    .await;
    assert_eq!(
        (registered.status, registered.text()),
        (200, "from the region".into())
    );
    assert!(registered.whole() && registered.headers["content-type"] == "text/x-test");
    assert_eq!(
        request(
            to,
            "POST",
            "/MAAS/api/2.0/machines/",
            &[FORM],
            b"architecture=amd64"
        )
        .await
        .status,
        200
    );
    assert_eq!(
        get(&rack, "/MAAS/machine-resources/amd64").await.status,
        200
    );
    let large = [("Content-Length", "40000000"), AUTH];
    assert_eq!(
        request(to, "POST", "/MAAS/metadata/2012-03-01/", &large, b"")
            .await
            .status,
        413
    );
    assert_eq!(region.with(|s| s.passed.len()), 3);
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_goes_on_where_it_stopped_and_is_fetched_once_for_all() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let root = region.with(|s| s.snapshot.images[&1].root.clone().unwrap());
    region.with(|s| s.cut = vec![700_000, 300_000]);
    let path = format!("/images/{}/x", root.sha256);
    let (a, b, c) = tokio::join!(get(&rack, &path), get(&rack, &path), get(&rack, &path));
    for reply in [a, b, c] {
        assert!(reply.whole() && reply.body == big(1));
    }
    let opened: Vec<u64> = region.with(|s| s.opened.iter().map(|(_, offset)| *offset).collect());
    assert_eq!(opened, [0, 700_000, 1_000_000]);
    until("the transfers are noted", || {
        let whole = |w: &What| matches!(w, What::File { outcome: FileOutcome::Complete, bytes, size: Some(size), .. } if bytes % size == 0 && bytes / size >= 1);
        region.timeline().iter().filter(|e| whole(&e.what)).map(|e| e.count).sum::<u32>() == 3
    })
    .await;
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_received_content_is_resumed_by_the_next_process() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let root = region.with(|s| s.snapshot.images[&1].root.clone().unwrap());
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    region.with(|s| s.cut = vec![500_000, 0, 0, 0, 0, 0]);
    let path = format!("/images/{}/x", root.sha256);
    let reply = get(&rack, &path).await;
    assert!(reply.status == 503 || !reply.whole(), "it never came whole");
    rack.stop().await;
    region.with(|s| s.cut.clear());
    region.with(|s| s.opened.clear());
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    assert_eq!(get(&rack, &path).await.body, big(1));
    assert_eq!(region.with(|s| s.opened.clone()), [(root.sha256, 500_000)]);
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_content_is_never_served_whole() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    get(&rack, CONFIG).await; // so that the client is known
    let root = region.with(|s| s.snapshot.images[&1].root.clone().unwrap());
    let kernel = region.with(|s| s.snapshot.images[&1].kernel.clone());
    region.with(|s| {
        s.blobs.get_mut(&root.sha256).unwrap()[1_000_000] ^= 1;
        s.blobs.get_mut(&kernel.sha256).unwrap()[0] ^= 1;
    });
    for blob in [&root, &kernel] {
        let reply = get(&rack, &format!("/images/{}/x", blob.sha256)).await;
        assert_eq!(reply.status, 200);
        assert!(!reply.whole(), "{} of {}", reply.body.len(), blob.size);
    }
    until("it is noted", || {
        let noted = |e: &metal::timeline::Entry| {
            matches!(&e.what, What::Note { text } if text.starts_with("altered content"))
                && e.mac == Some(MAC)
        };
        region.timeline().iter().filter(|e| noted(e)).count() == 2
            && region.saw(|w| {
                matches!(
                    w,
                    What::File {
                        outcome: FileOutcome::Failed,
                        ..
                    }
                )
            })
    })
    .await;
    // Nothing of it stays: once the region's copy is right again, so is ours.
    region.add_blob(&big(1), "squashfs");
    assert_eq!(
        get(&rack, &format!("/images/{}/x", root.sha256)).await.body,
        big(1)
    );
    // A copy that changed on our own disk is noticed too, by this process and by the next one.
    for _ in 0..2 {
        let cached = dir.path().join("data/cache").join(&root.sha256);
        let mut bytes = std::fs::read(&cached).unwrap();
        bytes[2_000_000] ^= 1;
        std::fs::write(&cached, bytes).unwrap();
        assert!(
            !get(&rack, &format!("/images/{}/x", root.sha256))
                .await
                .whole()
        );
        assert_eq!(
            get(&rack, &format!("/images/{}/x", root.sha256)).await.body,
            big(1)
        );
    }
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_lengths_and_tags_are_as_http_has_them() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let (to, content) = (rack.http_addresses()[0], big(1));
    let root = region.with(|s| s.snapshot.images[&1].root.clone().unwrap());
    let path = format!("/images/{}/x", root.sha256);
    let tag = format!("\"{}\"", root.sha256);

    let head = request(to, "HEAD", &path, &[], b"").await;
    assert_eq!(
        (
            head.status,
            head.body.len(),
            head.headers["content-length"].as_str()
        ),
        (200, 0, "2400000")
    );
    assert_eq!(head.headers["etag"], tag);
    let part = request(to, "GET", &path, &[("Range", "bytes=100000-199999")], b"").await;
    assert_eq!(
        (part.status, part.headers["content-range"].as_str()),
        (206, "bytes 100000-199999/2400000")
    );
    assert!(part.whole() && part.body == content[100_000..200_000]);
    let tail = request(
        to,
        "GET",
        &path,
        &[("Range", "bytes=-10"), ("If-Range", tag.as_str())],
        b"",
    )
    .await;
    assert!(tail.status == 206 && tail.body == content[content.len() - 10..]);
    let beyond = request(to, "GET", &path, &[("Range", "bytes=2400000-")], b"").await;
    assert_eq!(
        (beyond.status, beyond.headers["content-range"].as_str()),
        (416, "bytes */2400000")
    );
    let other = request(
        to,
        "GET",
        &path,
        &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")],
        b"",
    )
    .await;
    assert!(other.status == 200 && other.body == content);
    assert_eq!(
        request(to, "GET", &path, &[("If-None-Match", tag.as_str())], b"")
            .await
            .status,
        304
    );
    assert_eq!(get(&rack, "/no/such/file").await.status, 404);
    until("both are noted", || {
        region.saw(|w| matches!(w, What::File { outcome: FileOutcome::Probed, .. }))
            && region.saw(|w| matches!(w, What::File { outcome: FileOutcome::NotFound, path, .. } if path == "/no/such/file"))
    })
    .await;
    rack.stop().await;
}

/// GRUB compares "Content-Length: " byte by byte, reads to the end of the connection where it does not find it, and
/// takes what comes with a 404 for the file.
#[tokio::test(flavor = "multi_thread")]
async fn grub_understands_the_answers_to_it() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let mut stream = tokio::net::TcpStream::connect(rack.http_addresses()[0])
        .await
        .unwrap();
    for (path, status) in [
        ("/grub/grub.cfg", 200),
        ("/grub/x86_64-efi/fs.lst", 404),
        ("/grub/grub.cfg", 200),
    ] {
        let ask = format!("GET {path} HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: GRUB 2.06\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("Content-Length: "))
            .unwrap_or_else(|| panic!("no length that GRUB reads: {head}"))
            .parse::<usize>()
            .unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(body.is_empty(), status == 404, "{head}");
    }
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loaders_come_from_the_region_else_from_the_distribution() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let packages = dir.path().join("root");
    for (path, content) in [
        ("usr/lib/shim/shimx64.efi.signed", "the shim"),
        ("usr/lib/syslinux/modules/bios/chain.c32", "chain"),
    ] {
        let path = packages.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let rack = a_rack_with(&region, dir.path(), |c| c.distribution_root = packages).await;
    settled(&rack, &region).await;
    for path in ["/bootx64.efi", "/images/bootx64.efi", "//bootx64.efi"] {
        assert_eq!(get(&rack, path).await.text(), "the shim", "{path}");
    }
    assert_eq!(get(&rack, "/chain.c32").await.text(), "chain");
    assert_eq!(get(&rack, "/grubx64.efi").await.status, 404);
    let loader = region.add_blob(b"a newer shim", "bootx64.efi");
    let images = region.with(|s| s.snapshot.images.clone());
    region.change(Change::Images {
        images,
        loaders: [("bootx64.efi".into(), loader)].into(),
    });
    settled(&rack, &region).await;
    assert_eq!(get(&rack, "/bootx64.efi").await.text(), "a newer shim");
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_forgets_what_was_used_longest_ago() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack_with(&region, dir.path(), |c| c.cache_limit = 5_000_000).await;
    settled(&rack, &region).await;
    let blobs: Vec<_> = (10..13)
        .map(|n| region.add_blob(&big(n), "x").sha256)
        .collect();
    for sha in &blobs[..2] {
        assert!(get(&rack, &format!("/images/{sha}/x")).await.whole());
    }
    let cached = |sha: &String| dir.path().join("data/cache").join(sha).exists();
    until("both are complete", || {
        cached(&blobs[0]) && cached(&blobs[1])
    })
    .await;
    assert!(get(&rack, &format!("/images/{}/x", blobs[0])).await.whole()); // used again
    assert!(get(&rack, &format!("/images/{}/x", blobs[2])).await.whole());
    until("one is evicted", || cached(&blobs[2]) && !cached(&blobs[1])).await;
    assert!(cached(&blobs[0]));
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_of_a_command_is_answered_and_old_ones_are_refused() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    let command = |attempt| Command {
        id: 7,
        attempt,
        order: Order::Power(PowerOrder {
            system_id: "4y3h7n".into(),
            action: PowerAction::On { pxe: true },
            driver: "manual".into(),
            parameters: Default::default(),
        }),
    };
    let done = |n: usize| region.with(|s| s.results.len() >= n);
    region.command(command(2));
    until("it is done", || done(1)).await;
    region.command(command(2)); // the region may have missed the answer
    until("it is answered again", || done(2)).await;
    region.command(command(1));
    until("it is refused", || done(3)).await;
    region.command(command(3));
    until("the next is done", || done(4)).await;
    let results = region.with(|s| s.results.clone());
    let unknown = Outcome::Power {
        state: PowerState::Unknown,
    };
    assert_eq!((results[0].attempt, &results[0].outcome), (2, &unknown));
    assert_eq!(results[1], results[0]);
    assert!(
        matches!(&results[2].outcome, Outcome::Refused { message } if message.contains("attempt 1 is old"))
    );
    assert_eq!((results[3].attempt, &results[3].outcome), (3, &unknown));

    // A result waits for the region.
    region.command(Command {
        id: 8,
        ..command(1)
    });
    region.set_away(true);
    region.set_away(false);
    until("it is delivered", || {
        region.with(|s| s.results.iter().any(|r| r.id == 8))
    })
    .await;
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_fit_brings_a_new_snapshot() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack(&region, dir.path()).await;
    settled(&rack, &region).await;
    region.with(|s| s.snapshot.position.sequence += 5); // changes that the rack never gets
    region.change(Change::Machine(Box::new(a_machine(Status::Deployed))));
    settled(&rack, &region).await;
    assert_eq!(region.with(|s| s.subscribed_from.clone()), [None, None]);
    assert!(get(&rack, CONFIG).await.text().contains("sanboot"));
    rack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_deliveries_instead_of_losing_them() {
    let (region, dir) = (
        a_region(Status::Commissioning),
        tempfile::tempdir().unwrap(),
    );
    let rack = a_rack_with(&region, dir.path(), |c| c.spool_limit = 0).await;
    settled(&rack, &region).await;
    region.set_away(true);
    let reply = request(
        rack.http_addresses()[0],
        "POST",
        "/MAAS/metadata/2012-03-01/",
        &[AUTH, FORM],
        b"op=signal",
    )
    .await;
    assert_eq!(
        (reply.status, reply.headers["retry-after"].as_str()),
        (503, "5")
    );
    rack.stop().await;
}
