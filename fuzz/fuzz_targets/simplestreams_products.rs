//! Documents of any text, down to a plan.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use wire_simplestreams::{Index, ProductKind, ProductsDocument, Selection, plan};

fuzz_target!(|text: &str| {
    Index::parse(text).ok();
    let Ok(document) = ProductsDocument::parse(text) else {
        return;
    };
    let Ok(flattened) = document.flatten() else {
        return;
    };
    let any = || vec!["*".to_owned()];
    let selections: Vec<Selection> = flattened
        .products
        .iter()
        .filter(|product| product.kind != ProductKind::Bootloader)
        .map(|product| Selection {
            os: product.os.clone(),
            release: product.release.clone(),
            arches: any(),
            subarches: any(),
            labels: any(),
        })
        .collect();
    for product in &flattened.products {
        assert!(
            product
                .versions
                .windows(2)
                .all(|pair| pair[0].name > pair[1].name)
        );
        assert!(
            product
                .newest()
                .is_some_and(|version| !version.items.is_empty())
        );
    }
    let plan = plan(&selections, &flattened.products, &[], &HashSet::new());
    let once: HashSet<_> = plan
        .downloads
        .iter()
        .map(|download| &download.sha256)
        .collect();
    assert_eq!(once.len(), plan.downloads.len());
    assert_eq!(plan.create.len(), plan.wanted.len());
});
