//! GRUB's own parser against what we render. Needs the package grub-common; without it this fails.

use std::process::Stdio;

use link::snapshot::{Blob, Image, Machine, RootMethod, Settings, Snapshot};
use metal::boot::Facts;
use metal::status::Status;
use rack::bootconfig::{Question, render, text};
use rack::files::Transport;
use rack::namespace::Loader;
use tokio::io::AsyncWriteExt as _;

async fn accepts(script: &str) {
    let mut check = tokio::process::Command::new("grub-script-check")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("grub-script-check runs (package grub-common)");
    check
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .await
        .unwrap();
    let output = check.wait_with_output().await.unwrap();
    assert!(
        output.status.success(),
        "{}\n{script}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn grub_reads_every_configuration() {
    let blob = |name: &str| Blob {
        filename: name.into(),
        sha256: "a".repeat(64),
        size: 1,
    };
    let image = Image {
        id: 1,
        osystem: "ubuntu".into(),
        release: "noble".into(),
        arch: "amd64".into(),
        subarch: "ga-24.04".into(),
        label: "it's {odd}; $label".into(),
        kernel: blob("boot-kernel"),
        initrd: blob("boot-initrd"),
        root: Some(blob("squashfs")),
        root_method: RootMethod::Squash,
        kparams: "dyndbg=\"file x +p\" a={b} c;d e|f g&h $i <j>".into(),
    };
    let machine = |status| Machine {
        system_id: "4y3h7n".into(),
        hostname: "rex".into(),
        fqdn: "rex.maas".into(),
        facts: Facts {
            status,
            netboot: true,
            ephemeral_deploy: false,
            is_machine: true,
        },
        architecture: "amd64/generic".into(),
        hardware_uuid: None,
        macs: vec![],
        addresses: vec![],
        kernel_opts: "quiet}".into(),
        deploy: None,
    };
    let with_image = Snapshot {
        settings: Settings {
            commissioning_osystem: "ubuntu".into(),
            commissioning_distro_series: "noble".into(),
            ..Settings::default()
        },
        images: [(1, image)].into(),
        ..Snapshot::default()
    };
    let without = Snapshot {
        images: Default::default(),
        ..with_image.clone()
    };
    accepts(&text::chain(Loader::Grub)).await;
    for (snapshot, status) in [
        (&with_image, Status::Commissioning),
        (&with_image, Status::Deployed),
        (&without, Status::Ready),
    ] {
        let machine = machine(status);
        for transport in [Transport::Tftp, Transport::Http] {
            let rack = "10.0.0.2:5248".parse().unwrap();
            let q = Question {
                snapshot,
                machine: Some(&machine),
                arch: None,
                loader: Loader::Grub,
                transport,
                rack,
            };
            accepts(&render(&q).text).await;
        }
    }
}
