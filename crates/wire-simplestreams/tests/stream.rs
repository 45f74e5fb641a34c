//! From documents to a plan.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use wire_simplestreams::writer::FileFacts;
use wire_simplestreams::{
    BootloaderType, CachedProduct, DocumentError, Flattened, HeldResource, ITEMS_MAX, Index,
    PathError, ProductKind, ProductsDocument, ResourceKey, Selection, Sha256Hex, SkipReason,
    VERSIONS_MAX, plan,
};

const INDEX: &str = include_str!("../testdata/index.json");
const UBUNTU: &str = include_str!("../testdata/ubuntu.json");
const BOOTLOADERS: &str = include_str!("../testdata/bootloaders.json");
const CENTOS: &str = include_str!("../testdata/centos.json");

fn flatten(document: &str) -> Flattened {
    ProductsDocument::parse(document)
        .unwrap()
        .flatten()
        .unwrap()
}

fn official() -> Vec<CachedProduct> {
    [UBUNTU, BOOTLOADERS, CENTOS]
        .into_iter()
        .flat_map(|document| flatten(document).products)
        .collect()
}

fn product<'a>(products: &'a [CachedProduct], name: &str) -> &'a CachedProduct {
    products
        .iter()
        .find(|product| product.product.ends_with(name))
        .unwrap_or_else(|| panic!("no {name}"))
}

fn select(os: &str, release: &str, arches: &[&str]) -> Selection {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    Selection {
        os: os.into(),
        release: release.into(),
        arches: owned(arches),
        subarches: owned(&["*"]),
        labels: owned(&["*"]),
    }
}

#[test]
fn the_index_lists_product_documents_and_names_the_rest() {
    let index = Index::parse(INDEX).unwrap();
    assert_eq!(index.updated, "Tue, 11 Aug 2026 00:00:00 +0000");
    let paths: Vec<&str> = index
        .entries
        .values()
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "streams/v1/com.ubuntu.maas:stable:1:bootloader-download.sjson",
            "streams/v1/com.ubuntu.maas:stable:centos-bases-download.sjson",
            "streams/v1/com.ubuntu.maas:stable:v3:download.sjson",
        ]
    );
    assert_eq!(
        index.other_formats,
        ["com.ubuntu.maas:stable:release-notifications"]
    );
    assert_eq!(
        index.entries["com.ubuntu.maas:stable:v3:download"]
            .products
            .len(),
        7
    );
}

#[test]
fn ubuntu_products_are_flattened() {
    let flattened = flatten(UBUNTU);
    let noble = product(&flattened.products, "24.04:amd64:hwe-24.04");
    assert_eq!(noble.kind, ProductKind::MultiFile);
    assert_eq!(
        (
            noble.os.as_str(),
            noble.release.as_str(),
            noble.arch.as_str()
        ),
        ("ubuntu", "noble", "amd64")
    );
    assert_eq!(noble.subarch, "hwe-24.04");
    assert_eq!(
        noble.subarches,
        [
            "generic",
            "hwe-p",
            "hwe-22.04",
            "ga-22.04",
            "ga-24.04",
            "hwe-24.04"
        ]
    );
    assert_eq!(noble.label, "stable");
    assert_eq!(noble.release_title.as_deref(), Some("24.04 LTS"));
    assert_eq!(noble.release_codename.as_deref(), Some("Noble Numbat"));
    assert_eq!(noble.support_eol.as_deref(), Some("2029-05-31"));
    assert_eq!(
        (noble.kflavor.as_deref(), noble.krel.as_deref()),
        (Some("generic"), Some("noble"))
    );
    let versions: Vec<&str> = noble
        .versions
        .iter()
        .map(|version| version.name.as_str())
        .collect();
    assert_eq!(versions, ["20260801.1", "20260801", "20260701"]);
    let types: Vec<&str> = noble.versions[0]
        .items
        .iter()
        .map(|item| item.ftype.as_str())
        .collect();
    assert_eq!(
        types,
        ["boot-kernel", "boot-initrd", "squashfs", "manifest"]
    );
    let kernel = &noble.versions[0].items[0];
    assert_eq!(
        kernel.path.as_str(),
        "noble/amd64/20260801.1/hwe-24.04/generic/boot-kernel"
    );
    assert_eq!(
        (kernel.size, kernel.kpackage.as_deref()),
        (15_000_000, Some("linux-hwe-24.04"))
    );
}

#[test]
fn what_cannot_be_booted_is_left_out_with_a_reason() {
    let flattened = flatten(UBUNTU);
    let reasons: Vec<(&str, &SkipReason)> = flattened
        .skipped
        .iter()
        .map(|skipped| {
            (
                skipped.product.rsplit_once("boot:").unwrap().1,
                &skipped.reason,
            )
        })
        .collect();
    assert_eq!(
        reasons,
        [
            (
                "22.04:amd64:ga-22.04",
                &SkipReason::Incomplete {
                    version: "20260810".into()
                }
            ),
            ("18.04:i386:ga-18.04", &SkipReason::I386),
        ]
    );
    // The version before is used, with one root file system of two and nothing for clouds.
    let jammy = product(&flattened.products, "22.04:amd64:ga-22.04");
    assert_eq!(jammy.newest().unwrap().name, "20260720");
    let types: Vec<&str> = jammy.versions[0]
        .items
        .iter()
        .map(|item| item.ftype.as_str())
        .collect();
    assert_eq!(
        types,
        ["boot-kernel", "boot-initrd", "squashfs", "manifest"]
    );
    assert_eq!(jammy.kparams.as_deref(), Some("nvme_core.multipath=0"));
    assert_eq!(
        product(&flattened.products, "16.04:i386:ga-16.04").arch,
        "i386"
    );

    let skipped = flatten(BOOTLOADERS).skipped;
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].reason, SkipReason::UnusedBootloader);
}

#[test]
fn bootloaders_and_single_files_are_told_by_their_shape() {
    let products = official();
    let grub = product(&products, "grub-efi-signed:uefi:amd64");
    assert_eq!(
        (grub.kind, grub.bootloader_type),
        (ProductKind::Bootloader, Some(BootloaderType::Uefi))
    );
    assert_eq!(
        (
            grub.os.as_str(),
            grub.release.as_str(),
            grub.subarch.as_str()
        ),
        ("grub-efi-signed", "uefi", "generic")
    );
    let shim = &grub.versions[0].items[1];
    assert_eq!(
        (shim.name.as_str(), shim.ftype.as_str()),
        ("shim-signed", "archive.tar.xz")
    );
    assert_eq!(shim.src_package.as_deref(), Some("shim-signed"));
    assert_eq!(
        (shim.src_release.as_deref(), shim.src_version.as_deref()),
        (Some("noble"), Some("1.58"))
    );
    let centos = product(&products, "centos-bases:8:amd64");
    assert_eq!(
        (centos.kind, centos.release.as_str()),
        (ProductKind::SingleFile, "centos8")
    );
}

#[test]
fn a_first_plan_takes_images_bootloaders_and_each_file_once() {
    let products = official();
    let plan = plan(
        &[select("ubuntu", "noble", &["amd64"])],
        &products,
        &[],
        &HashSet::new(),
    );
    let keys: Vec<String> = plan
        .wanted
        .iter()
        .map(|wanted| format!("{} {}", wanted.key.name, wanted.key.architecture))
        .collect();
    assert_eq!(
        keys,
        [
            "grub-efi-signed/uefi amd64/generic",
            "pxelinux/pxe i386/generic",
            "ubuntu/noble amd64/ga-24.04",
            "ubuntu/noble amd64/hwe-24.04",
        ]
    );
    assert_eq!(plan.create, [0, 1, 2, 3]);
    assert!(plan.delete.is_empty());
    // 2 + 1 archives; kernel, initrd and manifest twice; the squashfs is shared.
    let squashfs = plan
        .downloads
        .iter()
        .filter(|download| download.path.as_str().ends_with("/squashfs"))
        .count();
    assert_eq!(squashfs, 1);
    let hashes: HashSet<_> = plan
        .downloads
        .iter()
        .map(|download| &download.sha256)
        .collect();
    assert_eq!(hashes.len(), plan.downloads.len());
    assert_eq!(
        plan.download_bytes(),
        3 * 600_000 + 270_000_000 + 17_000 + 2 * (15_000_000 + 70_000_000)
    );
    assert!(
        plan.wanted
            .iter()
            .all(|wanted| wanted.version == wanted.product.versions[0].name)
    );
}

#[test]
fn a_second_plan_does_nothing() {
    let products = official();
    let selections = [
        select("ubuntu", "noble", &["*"]),
        select("centos", "centos8", &["*"]),
    ];
    let first = plan(&selections, &products, &[], &HashSet::new());
    let held: Vec<HeldResource> = first
        .wanted
        .iter()
        .map(|wanted| HeldResource {
            key: wanted.key.clone(),
            version: wanted.version.clone(),
            label: wanted.product.label.clone(),
        })
        .collect();
    let have: HashSet<Sha256Hex> = first
        .downloads
        .iter()
        .map(|download| download.sha256.clone())
        .collect();
    let second = plan(&selections, &products, &held, &have);
    assert_eq!(
        (
            second.create.len(),
            second.downloads.len(),
            second.delete.len()
        ),
        (0, 0, 0)
    );
    assert_eq!(second.wanted, first.wanted);

    // A file that got lost is fetched again without a new set.
    let lost = first.downloads[0].sha256.clone();
    let without = have
        .iter()
        .filter(|sha256| **sha256 != lost)
        .cloned()
        .collect();
    let third = plan(&selections, &products, &held, &without);
    assert_eq!((third.create.len(), third.downloads.len()), (0, 1));
    assert_eq!(third.downloads[0].sha256, lost);
}

#[test]
fn a_new_version_makes_a_set_and_a_dropped_selection_deletes() {
    let products = official();
    let key = |name: &str, architecture: &str| ResourceKey {
        name: name.into(),
        architecture: architecture.into(),
    };
    let held = |name: &str, architecture: &str, version: &str| HeldResource {
        key: key(name, architecture),
        version: version.into(),
        label: "stable".into(),
    };
    let held = [
        held("ubuntu/noble", "amd64/ga-24.04", "20260801"),
        held("ubuntu/noble", "amd64/hwe-24.04", "20260801.1"),
        held("ubuntu/jammy", "amd64/ga-22.04", "20260720"),
        held("grub-efi/uefi", "arm64/generic", "20260305.0"),
    ];
    let plan = plan(
        &[select("ubuntu", "noble", &["amd64"])],
        &products,
        &held,
        &HashSet::new(),
    );
    let created: Vec<&ResourceKey> = plan.create.iter().map(|at| &plan.wanted[*at].key).collect();
    assert_eq!(
        created,
        [
            &key("grub-efi-signed/uefi", "amd64/generic"),
            &key("pxelinux/pxe", "i386/generic"),
            &key("ubuntu/noble", "amd64/ga-24.04"),
        ]
    );
    assert_eq!(
        plan.delete,
        [
            key("grub-efi/uefi", "arm64/generic"),
            key("ubuntu/jammy", "amd64/ga-22.04")
        ]
    );
}

#[test]
fn selections_understand_stars_and_subarches() {
    let products = official();
    let noble = product(&products, "24.04:amd64:ga-24.04");
    let matches = |arches: &[&str], subarches: &[&str], labels: &[&str]| {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let (arches, subarches, labels) = (owned(arches), owned(subarches), owned(labels));
        Selection {
            os: "ubuntu".into(),
            release: "noble".into(),
            arches,
            subarches,
            labels,
        }
        .matches(noble)
    };
    assert!(matches(&["*"], &["*"], &["*"]));
    assert!(matches(&["arm64", "amd64"], &["*"], &["stable"]));
    assert!(matches(&["amd64"], &["ga-24.04"], &["*"]));
    assert!(
        matches(&["amd64"], &["hwe-p"], &["*"]),
        "one of those it serves for"
    );
    assert!(!matches(&["amd64"], &["hwe-24.04"], &["*"]));
    assert!(!matches(&["arm64"], &["*"], &["*"]));
    assert!(!matches(&["*"], &["*"], &["candidate"]));
    assert!(!matches(&[], &["*"], &["*"]));
    assert!(
        !select("grub-efi-signed", "uefi", &["*"])
            .matches(product(&products, "grub-efi-signed:uefi:amd64"))
    );
    assert!(!select("ubuntu", "jammy", &["*"]).matches(noble));
}

#[test]
fn the_first_source_wins() {
    let mut products = official();
    let mut second = products.clone();
    for product in &mut second {
        product.label = "candidate".into();
    }
    products.extend(second);
    let plan = plan(
        &[select("ubuntu", "jammy", &["*"])],
        &products,
        &[],
        &HashSet::new(),
    );
    assert!(
        plan.wanted
            .iter()
            .all(|wanted| wanted.product.label == "stable")
    );
}

/// The jammy product alone, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Flattened, DocumentError> {
    let mut document: Value = serde_json::from_str(UBUNTU).unwrap();
    let name = "com.ubuntu.maas.stable:v3:boot:22.04:amd64:ga-22.04";
    let mut product = document["products"][name].take();
    product["versions"]
        .as_object_mut()
        .unwrap()
        .remove("20260810");
    change(&mut product);
    document["products"] = json!({ name: product });
    ProductsDocument::parse(&document.to_string())
        .unwrap()
        .flatten()
}

#[track_caller]
fn left_out(change: impl FnOnce(&mut Value), expected: &[SkipReason]) {
    let flattened = changed(change).unwrap();
    assert_eq!(flattened.products, []);
    let reasons: Vec<SkipReason> = flattened
        .skipped
        .into_iter()
        .map(|skipped| skipped.reason)
        .collect();
    assert_eq!(reasons, expected);
}

const V: &str = "20260720";

#[test]
fn broken_products_and_items_are_left_out_one_by_one() {
    let version = || V.to_owned();
    let item = || "boot-kernel".to_owned();
    assert_eq!(changed(|_| {}).unwrap().products.len(), 1);
    left_out(|p| p["os"] = json!(""), &[SkipReason::Missing("os")]);
    left_out(
        |p| p["release"] = json!(null),
        &[SkipReason::Missing("release")],
    );
    left_out(|p| p["label"] = json!([]), &[SkipReason::Missing("label")]);
    left_out(|p| *p = json!(7), &[SkipReason::Shape]);
    left_out(|p| p["versions"] = json!(7), &[SkipReason::Shape]);
    left_out(
        |p| p["release_title"] = json!("x".repeat(5000)),
        &[SkipReason::Shape],
    );
    left_out(|p| p["versions"] = json!({}), &[SkipReason::NotBootable]);
    left_out(
        |p| p["versions"][V]["items"]["boot-kernel"]["sha256"] = json!("abc"),
        &[
            SkipReason::Item {
                version: version(),
                item: item(),
            },
            SkipReason::NoVersion,
        ],
    );
    left_out(
        |p| p["versions"][V]["items"]["boot-kernel"]["size"] = json!(-1),
        &[
            SkipReason::Item {
                version: version(),
                item: item(),
            },
            SkipReason::NoVersion,
        ],
    );
    left_out(
        |p| p["versions"][V]["items"]["boot-kernel"]["path"] = json!("../../etc/shadow"),
        &[
            SkipReason::Path {
                version: version(),
                item: item(),
                cause: PathError::Dots,
            },
            SkipReason::NoVersion,
        ],
    );
    left_out(
        |p| {
            drop(
                p["versions"][V]["items"]
                    .as_object_mut()
                    .unwrap()
                    .remove("boot-initrd"),
            )
        },
        &[
            SkipReason::Incomplete { version: version() },
            SkipReason::NoVersion,
        ],
    );
    left_out(
        |p| (0..=VERSIONS_MAX).for_each(|at| p["versions"][at.to_string()] = json!({})),
        &[SkipReason::TooMany],
    );
    left_out(
        |p| (0..=ITEMS_MAX).for_each(|at| p["versions"][V]["items"][at.to_string()] = json!({})),
        &[SkipReason::TooMany],
    );
}

#[test]
fn unknown_keys_and_loose_types_are_forgiven() {
    let flattened = changed(|p| {
        p["something_new"] = json!({ "deep": [1, 2, { "x": null }] });
        p["version"] = json!(22.04);
        p["versions"][V]["items"]["boot-kernel"]["size"] = json!("15000000");
        p["versions"][V]["items"]["boot-kernel"]["sha256"] = json!("AB".repeat(32));
        p["versions"][V]["pubname"] = json!("x");
    })
    .unwrap();
    let kernel = &flattened.products[0].versions[0].items[0];
    assert_eq!(
        (kernel.size, kernel.sha256.as_str()),
        (15_000_000, "ab".repeat(32).as_str())
    );
    assert_eq!(
        flattened.products[0].release_version.as_deref(),
        Some("22.04")
    );
}

#[test]
fn a_document_that_contradicts_itself_is_refused() {
    let hash = "ab".repeat(32);
    let result = changed(|p| {
        for item in ["boot-kernel", "boot-initrd"] {
            p["versions"][V]["items"][item]["sha256"] = json!(hash);
        }
    });
    assert!(matches!(result, Err(DocumentError::SizeConflict(sha256)) if sha256.as_str() == hash));
}

#[test]
fn a_document_other_than_the_one_listed_is_refused() {
    use sha2_of as sha256;
    let mut index: Value = serde_json::from_str(INDEX).unwrap();
    let entry = &mut index["index"]["com.ubuntu.maas:stable:v3:download"];
    entry["sha256"] = json!(sha256(UBUNTU));
    entry["size"] = json!(UBUNTU.len());
    let parsed = Index::parse(&index.to_string()).unwrap();
    let entry = &parsed.entries["com.ubuntu.maas:stable:v3:download"];
    assert!(entry.check(UBUNTU.as_bytes()).is_ok());
    assert!(matches!(
        entry.check(CENTOS.as_bytes()),
        Err(DocumentError::Altered { .. })
    ));
    assert!(matches!(
        entry.check(UBUNTU.replace("noble", "nobel").as_bytes()),
        Err(DocumentError::Altered { .. })
    ));
    // Without either there is nothing to compare; the signature vouches alone.
    assert!(
        parsed.entries["com.ubuntu.maas:stable:centos-bases-download"]
            .check(b"anything")
            .is_ok()
    );
    index["index"]["com.ubuntu.maas:stable:v3:download"]["sha256"] = json!("md5:x");
    assert!(matches!(
        Index::parse(&index.to_string()),
        Err(DocumentError::Altered { .. })
    ));
}

fn sha2_of(text: &str) -> String {
    FileFacts::of(text.as_bytes()).unwrap().sha256.to_string()
}

#[test]
fn indexes_that_lead_out_of_the_source_are_refused() {
    for path in [
        "../x.json",
        "/etc/passwd",
        "http://elsewhere/x.json",
        "a\\b",
        "",
    ] {
        let index = json!({ "format": "index:1.0", "index": { "x": { "format": "products:1.0", "path": path } } });
        assert!(
            matches!(
                Index::parse(&index.to_string()),
                Err(DocumentError::Path { .. })
            ),
            "{path}"
        );
    }
}

#[test]
fn other_documents_are_named() {
    assert!(matches!(Index::parse("{"), Err(DocumentError::Json { .. })));
    assert!(matches!(
        Index::parse(UBUNTU),
        Err(DocumentError::Format { .. })
    ));
    assert!(matches!(
        ProductsDocument::parse(INDEX),
        Err(DocumentError::Format { .. })
    ));
    assert!(matches!(
        ProductsDocument::parse("[]"),
        Err(DocumentError::Json { .. })
    ));
    let deep = format!(
        "{{\"format\":\"products:1.0\",\"products\":{{\"x\":{}{}}}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(matches!(
        ProductsDocument::parse(&deep),
        Err(DocumentError::Json { .. })
    ));
    let products: serde_json::Map<_, _> =
        (0..=20_000).map(|at| (at.to_string(), json!({}))).collect();
    let many = json!({ "format": "products:1.0", "products": products });
    assert!(matches!(
        ProductsDocument::parse(&many.to_string()),
        Err(DocumentError::TooMany { .. })
    ));
}

proptest! {
    #[test]
    fn no_document_makes_the_reader_panic(
        text in "[{}\\[\\]\":,a-z0-9. ]{0,200}",
        key in "(os|arch|versions|bootloader-type|subarches|label|release)",
        value in prop_oneof![
            Just(json!(null)), Just(json!(1e300)), Just(json!([[]])), Just(json!({"items": 3})),
            Just(json!({"1": {"items": {"a": {"ftype": "boot-kernel"}}}})),
            "[ -~]{0,20}".prop_map(Value::from),
        ],
    ) {
        Index::parse(&text).ok();
        ProductsDocument::parse(&text).ok();
        changed(|product| product[key.as_str()] = value).ok();
    }
}
