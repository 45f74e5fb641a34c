//! From images to documents, and back.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use wire_simplestreams::writer::{
    FileFacts, Form, Image, ImageFile, PublishError, product_name, publish,
};
use wire_simplestreams::{
    BootloaderType, Index, ProductKind, ProductsDocument, Selection, StreamPath, plan,
};

fn sha2_of(text: &str) -> String {
    FileFacts::of(text.as_bytes()).unwrap().sha256.to_string()
}

fn file(ftype: &str, path: &str, content: &str) -> ImageFile {
    ImageFile {
        ftype: ftype.into(),
        name: None,
        path: StreamPath::new(path).unwrap(),
        facts: FileFacts::of(content.as_bytes()).unwrap(),
        extra: BTreeMap::new(),
    }
}

fn debian(version: &str) -> Image {
    let base = format!("trixie/amd64/{version}");
    let mut kernel = file(
        "boot-kernel",
        &format!("{base}/ga-13/boot-kernel"),
        "kernel",
    );
    kernel
        .extra
        .insert("kpackage".into(), "linux-image-amd64".into());
    Image {
        product: product_name("org.example.maas", "13", "amd64", "ga-13"),
        os: "debian".into(),
        release: "trixie".into(),
        arch: "amd64".into(),
        subarch: "ga-13".into(),
        subarches: vec!["generic".into()],
        label: "stable".into(),
        bootloader_type: None,
        extra: [
            ("release_title", "13"),
            ("version", "13"),
            ("kflavor", "generic"),
            ("kparams", "console=ttyS0"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        version: version.into(),
        files: vec![
            kernel,
            file(
                "boot-initrd",
                &format!("{base}/ga-13/boot-initrd"),
                "initrd",
            ),
            file("squashfs", &format!("{base}/squashfs"), "squashfs"),
            file("root-tgz", &format!("{base}/root.tgz"), version),
        ],
    }
}

fn loader() -> Image {
    let mut archive = file(
        "archive.tar.xz",
        "bootloaders/uefi/amd64/20260811/grub2-signed.tar.xz",
        "grub",
    );
    archive.name = Some("grub2-signed".into());
    archive
        .extra
        .insert("src_package".into(), "grub-efi-amd64-signed".into());
    Image {
        product: "org.example.maas:1:grub-efi-signed:uefi:amd64".into(),
        os: "grub-efi-signed".into(),
        release: String::new(),
        arch: "amd64".into(),
        subarch: String::new(),
        subarches: vec![],
        label: "stable".into(),
        bootloader_type: Some(BootloaderType::Uefi),
        extra: BTreeMap::new(),
        version: "20260811".into(),
        files: vec![archive],
    }
}

const UPDATED: u64 = 1_786_406_400;

#[test]
fn what_is_published_can_be_consumed() {
    let images = [debian("20260810"), loader(), debian("20260811")];
    let documents = publish(
        "org.example.maas:stable:v3:download",
        UPDATED,
        &images,
        Form::Plain,
    )
    .unwrap();
    let index = Index::parse(&documents.index).unwrap();
    assert_eq!(index.updated, "Tue, 11 Aug 2026 00:00:00 +0000");
    let entry = &index.entries["org.example.maas:stable:v3:download"];
    assert_eq!(entry.path, documents.products_path);
    assert_eq!(documents.index_path.as_str(), "streams/v1/index.json");
    let document = ProductsDocument::parse(&documents.products).unwrap();
    assert_eq!(document.names().collect::<Vec<_>>(), entry.products);
    let flattened = document.flatten().unwrap();
    assert_eq!(flattened.skipped, []);

    // In order of their names; `:1:` comes before `:boot:`.
    let trixie = &flattened.products[1];
    assert_eq!(trixie.kind, ProductKind::MultiFile);
    assert_eq!(trixie.subarches, ["generic", "ga-13"]);
    assert_eq!(trixie.kparams.as_deref(), Some("console=ttyS0"));
    assert_eq!(
        trixie
            .versions
            .iter()
            .map(|version| version.name.as_str())
            .collect::<Vec<_>>(),
        ["20260811", "20260810"]
    );
    let newest = &trixie.versions[0].items;
    assert_eq!(
        newest
            .iter()
            .map(|item| item.ftype.as_str())
            .collect::<Vec<_>>(),
        ["boot-kernel", "boot-initrd", "squashfs", "root-tgz"]
    );
    assert_eq!(newest[0].kpackage.as_deref(), Some("linux-image-amd64"));
    assert_eq!(
        (newest[0].sha256.to_string(), newest[0].size),
        (sha2_of("kernel"), 6)
    );

    let any = || vec!["*".to_owned()];
    let selection = Selection {
        os: "debian".into(),
        release: "trixie".into(),
        arches: vec!["amd64".into()],
        subarches: any(),
        labels: any(),
    };
    let plan = plan(&[selection], &flattened.products, &[], &HashSet::new());
    assert_eq!(plan.wanted.len(), 2, "the image and its loader");
    assert_eq!(plan.downloads.len(), 5);
}

#[test]
fn the_same_images_make_the_same_documents_in_any_order() {
    let one = publish(
        "x",
        UPDATED,
        &[debian("1"), loader(), debian("2")],
        Form::Signed,
    )
    .unwrap();
    let other = publish(
        "x",
        UPDATED,
        &[debian("2"), debian("1"), loader()],
        Form::Signed,
    )
    .unwrap();
    assert_eq!(one, other);
    assert_eq!(one.products_path.as_str(), "streams/v1/x.sjson");
}

#[test]
fn images_that_contradict_each_other_are_not_published() {
    let result = |images: &[Image]| publish("x", UPDATED, images, Form::Plain).unwrap_err();
    let product = || debian("1").product;
    assert_eq!(
        result(&[debian("1"), debian("1")]),
        PublishError::Twice {
            product: product(),
            version: "1".into()
        }
    );
    let other = Image {
        label: "candidate".into(),
        ..debian("2")
    };
    assert_eq!(
        result(&[debian("1"), other]),
        PublishError::Disagree {
            product: product(),
            key: "label".into()
        }
    );
    let mut twice = debian("1");
    twice.files.push(file("squashfs", "other", "x"));
    let expected = PublishError::TwoItems {
        product: product(),
        version: "1".into(),
        item: "squashfs".into(),
    };
    assert_eq!(result(&[twice]), expected);
    for id in ["a/b", "a b", "", "../x"] {
        let result = publish(id, UPDATED, &[], Form::Plain);
        assert!(matches!(result, Err(PublishError::ContentId(_))), "{id}");
    }
}

proptest! {
    #[test]
    fn published_images_survive_the_round_trip(
        files in proptest::collection::btree_map("[a-z0-9][a-z0-9/]{0,8}[a-z0-9]", "[a-z]{0,9}", 1..6),
        versions in proptest::collection::btree_set("20[0-9]{6}(\\.[1-9])?", 1..5),
        arch in "[a-z0-9]{1,6}", subarches in proptest::collection::vec("[a-z0-9.-]{1,8}", 0..4), label in "[a-z]{1,5}",
    ) {
        let files: BTreeMap<_, _> = files.into_iter().filter(|(path, _)| StreamPath::new(path).is_ok()).collect();
        let images: Vec<Image> = versions.iter().map(|version| {
            let mut image = debian(version);
            let extra = files.iter().enumerate().map(|(at, (path, content))| ImageFile {
                name: Some(format!("n{at}")), ..file("boot-dtb", path, content)
            });
            image.files.extend(extra);
            Image { arch: arch.clone(), subarches: subarches.clone(), label: label.clone(), ..image }
        }).collect();
        let documents = publish("x", UPDATED, &images, Form::Plain).unwrap();
        let flattened = ProductsDocument::parse(&documents.products).unwrap().flatten().unwrap();
        prop_assert_eq!(&flattened.skipped, &vec![]);
        let product = &flattened.products[0];
        prop_assert_eq!(&product.arch, &arch);
        prop_assert_eq!(&product.label, &label);
        prop_assert_eq!(product.versions.len(), versions.len());
        for (read, written) in product.versions.iter().zip(images.iter().rev()) {
            prop_assert_eq!(&read.name, &written.version);
            for (item, file) in read.items.iter().zip(&written.files) {
                prop_assert_eq!(&item.path, &file.path);
                prop_assert_eq!((&item.sha256, item.size), (&file.facts.sha256, file.facts.size));
            }
        }
    }
}
