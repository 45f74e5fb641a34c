//! What is wanted of what can be had.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::path::StreamPath;
use crate::product::{CachedProduct, Item, ProductKind, Sha256Hex};

/// Stands for every value.
const ANY: &str = "*";

/// What an operator wants of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Operating system.
    pub os: String,
    /// Release.
    pub release: String,
    /// Architectures, or `*`.
    pub arches: Vec<String>,
    /// Subarches, or `*`; any of those that a product serves for will do.
    pub subarches: Vec<String>,
    /// Labels, or `*`.
    pub labels: Vec<String>,
}

fn admits(wanted: &[String], value: &str) -> bool {
    wanted.iter().any(|wanted| wanted == ANY || wanted == value)
}

impl Selection {
    /// Whether the selection asks for this product. Never for boot loaders: they come with the
    /// architectures.
    #[must_use]
    pub fn matches(&self, product: &CachedProduct) -> bool {
        product.kind != ProductKind::Bootloader
            && product.os == self.os
            && product.release == self.release
            && admits(&self.arches, &product.arch)
            && product
                .subarches
                .iter()
                .any(|subarch| admits(&self.subarches, subarch))
            && admits(&self.labels, &product.label)
    }
}

/// What identifies a boot resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// `ubuntu/noble`, or `grub-efi-signed/uefi`.
    pub name: String,
    /// `amd64/ga-24.04`
    pub architecture: String,
}

impl ResourceKey {
    /// The resource that a product becomes.
    #[must_use]
    pub fn of(product: &CachedProduct) -> Self {
        Self {
            name: format!("{}/{}", product.os, product.release),
            architecture: format!("{}/{}", product.arch, product.subarch),
        }
    }
}

/// A resource that exists, with its newest set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldResource {
    /// Which.
    pub key: ResourceKey,
    /// Version of its newest set, complete or not.
    pub version: String,
    /// Label of its newest set.
    pub label: String,
}

/// A resource as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedResource {
    /// Which.
    pub key: ResourceKey,
    /// Version of the set.
    pub version: String,
    /// The product, with titles and kernel details.
    pub product: CachedProduct,
    /// Its files.
    pub items: Vec<Item>,
}

/// A file to fetch, once for all resources that contain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// What it must be.
    pub sha256: Sha256Hex,
    /// How large it must be, in bytes.
    pub size: u64,
    /// Where it is; the first of its places.
    pub path: StreamPath,
}

/// The difference between what is and what should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Every resource that should exist, in order of its key.
    pub wanted: Vec<WantedResource>,
    /// Those of [`Plan::wanted`] (by position) that do not exist yet, or only with another version
    /// or label: a new set is to be made.
    pub create: Vec<usize>,
    /// Files of wanted resources that are not there, in order of [`Plan::wanted`]: smallest wait
    /// until a first image is complete.
    pub downloads: Vec<Download>,
    /// Resources that nothing asks for any more. Old sets of a resource that stays are not named:
    /// they go when the new one is complete.
    pub delete: Vec<ResourceKey>,
}

impl Plan {
    /// Bytes to fetch.
    #[must_use]
    pub fn download_bytes(&self) -> u64 {
        self.downloads
            .iter()
            .fold(0, |sum, download| sum.saturating_add(download.size))
    }
}

/// Compares selections with what a source has and what is held.
///
/// The newest complete version of each product is wanted. Of two products for one resource the
/// first in `products` is taken, so that the order of sources is their priority. Boot loaders are
/// wanted for every architecture of a selected image. `have` are the files that are complete.
#[must_use]
pub fn plan(
    selections: &[Selection],
    products: &[CachedProduct],
    held: &[HeldResource],
    have: &HashSet<Sha256Hex>,
) -> Plan {
    let mut wanted: BTreeMap<ResourceKey, &CachedProduct> = BTreeMap::new();
    let mut arches: BTreeSet<&str> = BTreeSet::new();
    for product in products {
        if selections
            .iter()
            .any(|selection| selection.matches(product))
        {
            wanted.entry(ResourceKey::of(product)).or_insert(product);
            arches.insert(&product.arch);
        }
    }
    for product in products
        .iter()
        .filter(|product| product.kind == ProductKind::Bootloader)
    {
        // pxelinux is a product of i386 alone on the official stream and boots amd64.
        let serves = |arch: &&str| {
            product.arches.iter().any(|of| of == arch)
                || (product.arch == "i386" && **arch == *"amd64")
        };
        if arches.iter().any(serves) {
            wanted.entry(ResourceKey::of(product)).or_insert(product);
        }
    }

    let mut plan = Plan::default();
    let held: BTreeMap<&ResourceKey, &HeldResource> =
        held.iter().map(|held| (&held.key, held)).collect();
    plan.delete = held
        .keys()
        .filter(|key| !wanted.contains_key(**key))
        .map(|key| (*key).clone())
        .collect();
    let mut listed: HashSet<&Sha256Hex> = HashSet::new();
    for (key, product) in wanted {
        let Some(newest) = product.newest() else {
            continue;
        };
        let present = held
            .get(&key)
            .is_some_and(|held| held.version == newest.name && held.label == product.label);
        if !present {
            plan.create.push(plan.wanted.len());
        }
        for item in &newest.items {
            if !have.contains(&item.sha256) && listed.insert(&item.sha256) {
                let (sha256, path) = (item.sha256.clone(), item.path.clone());
                plan.downloads.push(Download {
                    sha256,
                    size: item.size,
                    path,
                });
            }
        }
        plan.wanted.push(WantedResource {
            key,
            version: newest.name.clone(),
            items: newest.items.clone(),
            product: product.clone(),
        });
    }
    plan
}
