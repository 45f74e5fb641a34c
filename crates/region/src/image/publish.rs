//! What an import writes into the database, each step in one transaction that depends on the job being
//! ours.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use metal::Timestamp;
use serde_json::{Value, json};
use store::Tx;
use store::job::Attempt;
use wire_simplestreams::{CachedProduct, ProductKind, ResourceKey, WantedResource};

use super::blob::Files;
use super::fetch::chain;
use super::held::{Extra, LOADER, Pending, PendingFile, SYNCED};
use super::stream::{Offer, SourceRow, Special};
use super::sync::Progress;
use super::unpack::{self, Member};
use crate::error::ApiError;
use crate::region::Region;

/// How long content stays on disk after nothing refers to it any more: machines that boot or install an
/// image while it is superseded still get it.
pub const GRACE: Duration = Duration::from_secs(3_600);

/// A resource that is wanted, with where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// The source.
    pub source: i64,
    /// What is wanted.
    pub wanted: WantedResource,
    /// Keys of its product that only some images have.
    pub special: Special,
    /// Where each of its items is.
    pub addresses: Vec<String>,
    /// Whether a new set is to be made; otherwise only files may be missing here.
    pub is_new: bool,
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What is kept of a product for the checks of selections.
fn cached(offer: &Offer) -> Value {
    let p = &offer.product;
    json!({
        "product": p.product,
        "kind": match p.kind {
            ProductKind::MultiFile => "multi-file",
            ProductKind::SingleFile => "single-file",
            ProductKind::Bootloader => "bootloader",
        },
        "subarches": p.subarches,
        "release_title": p.release_title,
        "release_codename": p.release_codename,
        "support_eol": p.support_eol,
        "kflavor": p.kflavor,
        "version": p.newest().map(|v| v.name.clone()),
    })
}

/// Keeps what a source offers.
///
/// # Errors
/// When the database fails or the job is no longer ours.
pub async fn cache(
    region: &Arc<Region>,
    fence: Attempt,
    source: &SourceRow,
    offers: &[Offer],
    at: Timestamp,
) -> Result<(), ApiError> {
    let rows: Arc<Vec<(CachedProduct, String)>> = Arc::new(
        offers
            .iter()
            .map(|o| (o.product.clone(), cached(o).to_string()))
            .collect(),
    );
    let (id, updated) = (source.id, source.updated);
    region
        .db
        .write(move |tx| {
            let rows = Arc::clone(&rows);
            Box::pin(async move {
                tx.hold_job(fence).await?;
                // Changed or gone since it was read: what was read is of something else.
                let same = store::exec!(
                    tx,
                    "UPDATE boot_source SET last_error = '', synced = $2 WHERE id = $1 AND updated = $3",
                    id,
                    at.0,
                    updated
                )?;
                if same == 0 {
                    return Ok(());
                }
                store::exec!(
                    tx,
                    "DELETE FROM boot_source_cache WHERE boot_source_id = $1",
                    id
                )?;
                for (p, text) in rows.iter() {
                    store::exec!(
                        tx,
                        "INSERT INTO boot_source_cache (boot_source_id, os, arch, subarch, release, label, product) \
                         VALUES ($1, $2, $3, $4, $5, $6, $7)",
                        id,
                        &p.os,
                        &p.arch,
                        &p.subarch,
                        &p.release,
                        &p.label,
                        text
                    )?;
                }
                tx.changed("boot_source", id, 0, at).await?;
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// Notes beside each resource which set is on its way, so that it can be seen, and so that its files are
/// not swept away.
///
/// # Errors
/// When the database fails or the job is no longer ours.
pub async fn announce(
    region: &Arc<Region>,
    fence: Attempt,
    incoming: &[Incoming],
) -> Result<(), ApiError> {
    let new: Arc<Vec<Incoming>> = Arc::new(incoming.iter().filter(|i| i.is_new).cloned().collect());
    if new.is_empty() {
        return Ok(());
    }
    let at = now();
    region
        .db
        .write(move |tx| {
            let new = Arc::clone(&new);
            Box::pin(async move {
                tx.hold_job(fence).await?;
                for i in new.iter() {
                    let pending = Pending {
                        version: i.wanted.version.clone(),
                        label: i.wanted.product.label.clone(),
                        files: i
                            .wanted
                            .items
                            .iter()
                            .map(|f| PendingFile {
                                filename: f.name.clone(),
                                filetype: f.ftype.clone(),
                                sha256: f.sha256.as_str().to_owned(),
                                size: signed(f.size),
                            })
                            .collect(),
                    };
                    match find(tx, &i.wanted.key).await? {
                        Some((id, extra)) => {
                            let mut extra = Extra::parse(&extra);
                            if extra.pending.as_ref() == Some(&pending) {
                                continue;
                            }
                            extra.pending = Some(pending);
                            store::exec!(
                                tx,
                                "UPDATE boot_resource SET extra = $2 WHERE id = $1",
                                id,
                                extra.text()
                            )?;
                        }
                        None => {
                            let extra = Extra {
                                pending: Some(pending),
                                ..extra(i)
                            };
                            insert(tx, i, &extra, at).await?;
                        }
                    }
                }
                Ok::<(), ApiError>(())
            })
        })
        .await
}

async fn find(tx: &mut Tx, key: &ResourceKey) -> Result<Option<(i64, String)>, ApiError> {
    Ok(store::opt!(
        tx,
        (i64, String),
        "SELECT id, extra FROM boot_resource WHERE rtype = $1 AND name = $2 AND architecture = $3",
        SYNCED,
        &key.name,
        &key.architecture
    )?)
}

async fn insert(tx: &mut Tx, i: &Incoming, extra: &Extra, at: Timestamp) -> Result<i64, ApiError> {
    let p = &i.wanted.product;
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO boot_resource (rtype, name, architecture, kflavor, bootloader_type, extra, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id",
        SYNCED,
        &i.wanted.key.name,
        &i.wanted.key.architecture,
        p.kflavor.as_deref(),
        p.bootloader_type.map(|b| b.as_str()),
        extra.text(),
        at.0
    )?;
    Ok(id)
}

fn extra(i: &Incoming) -> Extra {
    let p = &i.wanted.product;
    let or = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text.to_owned()
        }
    };
    // Of items that name kernel options the kernel's count, before those of the product.
    let kparams = i
        .wanted
        .items
        .iter()
        .find(|f| f.ftype == "boot-kernel")
        .and_then(|f| f.kparams.clone())
        .or_else(|| p.kparams.clone());
    let bootloader = p.kind == ProductKind::Bootloader;
    Extra {
        subarches: p.subarches.join(","),
        platform: if bootloader {
            String::new()
        } else {
            or(&i.special.platform, "generic")
        },
        supported_platforms: if bootloader {
            String::new()
        } else {
            or(&i.special.supported_platforms, "generic")
        },
        title: p.release_title.clone().unwrap_or_default(),
        kflavor: p.kflavor.clone().unwrap_or_default(),
        kparams: kparams.unwrap_or_default(),
        root_method: i.special.root_method.clone(),
        version: p.release_version.clone().unwrap_or_default(),
        support_eol: p.support_eol.clone().unwrap_or_default(),
        ..Extra::default()
    }
}

/// A file of a set, about to be written.
struct NewFile {
    filename: String,
    filetype: String,
    sha256: String,
    size: u64,
    extra: Value,
}

/// Publishes a set whose files are all here, in place of the ones before it. `Ok(Err)` says why it
/// cannot be.
///
/// # Errors
/// When the database fails or the job is no longer ours.
pub async fn complete(
    region: &Arc<Region>,
    fence: Attempt,
    files: &Files,
    incoming: &Incoming,
) -> Result<Result<(), String>, ApiError> {
    let w = &incoming.wanted;
    let mut list: Vec<NewFile> = w
        .items
        .iter()
        .map(|f| NewFile {
            filename: f.name.clone(),
            filetype: f.ftype.clone(),
            sha256: f.sha256.as_str().to_owned(),
            size: f.size,
            extra: json!({
                "source": incoming.source,
                "path": f.path.as_str(),
                "kpackage": f.kpackage,
                "src_package": f.src_package,
                "src_version": f.src_version,
                "src_release": f.src_release,
            }),
        })
        .collect();
    if w.product.kind == ProductKind::Bootloader {
        if !incoming.is_new && loaders_are_here(region, files, &w.key).await? {
            return Ok(Ok(()));
        }
        let archives: Vec<String> = list.iter().map(|f| f.sha256.clone()).collect();
        let mut names = HashSet::new();
        for archive in archives {
            let members = match unpack_one(files, &archive).await {
                Ok(m) => m,
                Err(problem) => return Ok(Err(problem)),
            };
            for m in members {
                if names.insert(m.name.clone()) {
                    list.push(NewFile {
                        filename: m.name,
                        filetype: LOADER.to_owned(),
                        sha256: m.sha256,
                        size: m.size,
                        extra: json!({ "archive": archive }),
                    });
                }
            }
        }
    }
    if !incoming.is_new {
        return Ok(Ok(()));
    }
    if let Some(gone) = list.iter().find(|f| !files.has(&f.sha256)) {
        return Ok(Err(format!("{} is not here any more", gone.filename)));
    }
    let (incoming, list) = (Arc::new(incoming.clone()), Arc::new(list));
    let at = now();
    let name = region.config.name.clone();
    tracing::info!(image = %incoming.wanted.key.name, architecture = %incoming.wanted.key.architecture, version = %incoming.wanted.version, "an image is complete");
    region
        .db
        .write(move |tx| {
            let (incoming, list, name) = (Arc::clone(&incoming), Arc::clone(&list), name.clone());
            Box::pin(async move {
                tx.hold_job(fence).await?;
                store_set(tx, &incoming, &list, &name, at).await
            })
        })
        .await?;
    Ok(Ok(()))
}

pub(super) async fn unpack_one(files: &Files, archive: &str) -> Result<Vec<Member>, String> {
    let (path, files) = (files.complete(archive), files.clone());
    tokio::task::spawn_blocking(move || unpack::unpack(&path, &files, unpack::LIMITS))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| chain(&e))
}

async fn loaders_are_here(
    region: &Arc<Region>,
    files: &Files,
    key: &ResourceKey,
) -> Result<bool, ApiError> {
    let mut tx = region.db.read().await?;
    let rows = store::all!(
        tx,
        (String,),
        "SELECT f.sha256 FROM boot_resource_file f JOIN boot_resource_set s ON s.id = f.set_id \
         JOIN boot_resource r ON r.id = s.resource_id \
         WHERE r.rtype = $1 AND r.name = $2 AND r.architecture = $3 AND f.filetype = $4",
        SYNCED,
        &key.name,
        &key.architecture,
        LOADER
    )?;
    Ok(rows.iter().all(|(sha256,)| files.has(sha256)))
}

async fn store_set(
    tx: &mut Tx,
    i: &Incoming,
    list: &[NewFile],
    region: &str,
    at: Timestamp,
) -> Result<(), ApiError> {
    let w = &i.wanted;
    let id = match find(tx, &w.key).await? {
        Some((id, _)) => {
            store::exec!(
                tx,
                "UPDATE boot_resource SET extra = $2, kflavor = $3, bootloader_type = $4, updated = $5 WHERE id = $1",
                id,
                extra(i).text(),
                w.product.kflavor.as_deref(),
                w.product.bootloader_type.map(|b| b.as_str()),
                at.0
            )?;
            id
        }
        None => insert(tx, i, &extra(i), at).await?,
    };
    // The time of the files that nothing refers to from now on begins now.
    store::exec!(
        tx,
        "UPDATE blob SET updated = $2 WHERE sha256 IN (SELECT f.sha256 FROM boot_resource_file f \
         JOIN boot_resource_set s ON s.id = f.set_id WHERE s.resource_id = $1)",
        id,
        at.0
    )?;
    store::exec!(
        tx,
        "DELETE FROM boot_resource_set WHERE resource_id = $1",
        id
    )?;
    let (set,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO boot_resource_set (resource_id, version, label, created) VALUES ($1, $2, $3, $4) RETURNING id",
        id,
        &w.version,
        &w.product.label,
        at.0
    )?;
    for f in list {
        store::exec!(
            tx,
            "INSERT INTO boot_resource_file (set_id, filename, filetype, sha256, size, extra) VALUES ($1, $2, $3, $4, $5, $6)",
            set,
            &f.filename,
            &f.filetype,
            &f.sha256,
            signed(f.size),
            f.extra.to_string()
        )?;
        put_blob(tx, &f.sha256, region, f.size, f.size, at).await?;
    }
    tx.changed("boot_resource", id, 0, at).await?;
    Ok(())
}

/// Writes down how much of some content a region has.
///
/// # Errors
/// When the database fails.
pub(crate) async fn put_blob(
    tx: &mut Tx,
    sha256: &str,
    region: &str,
    size: u64,
    bytes: u64,
    at: Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "INSERT INTO blob (sha256, region, size, bytes, updated) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (sha256, region) DO UPDATE SET size = excluded.size, bytes = excluded.bytes, updated = excluded.updated",
        sha256,
        region,
        signed(size),
        signed(bytes),
        at.0
    )?;
    Ok(())
}

/// Writes down how far the files are.
///
/// # Errors
/// When the database fails or the job is no longer ours.
pub async fn progress(
    region: &Arc<Region>,
    fence: Attempt,
    progress: &Progress,
) -> Result<(), ApiError> {
    // What is complete needs no second word.
    let moved: BTreeMap<String, (u64, u64)> = {
        let mut all = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = all.clone();
        all.retain(|_, (size, bytes)| bytes < size);
        moved
    };
    let (name, at) = (region.config.name.clone(), now());
    region
        .db
        .write(move |tx| {
            let (moved, name) = (moved.clone(), name.clone());
            Box::pin(async move {
                tx.hold_job(fence).await?;
                for (sha256, (size, bytes)) in &moved {
                    put_blob(tx, sha256, &name, *size, *bytes, at).await?;
                }
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// Removes resources that nothing asks for any more.
///
/// # Errors
/// When the database fails or the job is no longer ours.
pub async fn delete(
    region: &Arc<Region>,
    fence: Attempt,
    keys: &[ResourceKey],
) -> Result<(), ApiError> {
    if keys.is_empty() {
        return Ok(());
    }
    let keys: Arc<Vec<ResourceKey>> = Arc::new(keys.to_vec());
    let at = now();
    region
        .db
        .write(move |tx| {
            let keys = Arc::clone(&keys);
            Box::pin(async move {
                tx.hold_job(fence).await?;
                for key in keys.iter() {
                    if let Some((id, _)) = find(tx, key).await? {
                        delete_resource(tx, id, at).await?;
                    }
                }
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// Removes a resource with its sets; the content goes later (see [`sweep`]).
///
/// # Errors
/// When the database fails.
pub async fn delete_resource(tx: &mut Tx, id: i64, at: Timestamp) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE blob SET updated = $2 WHERE sha256 IN (SELECT f.sha256 FROM boot_resource_file f \
         JOIN boot_resource_set s ON s.id = f.set_id WHERE s.resource_id = $1)",
        id,
        at.0
    )?;
    store::exec!(tx, "DELETE FROM boot_resource WHERE id = $1", id)?;
    tx.changed("boot_resource", id, 0, at).await?;
    Ok(())
}

/// Deletes content that nothing has referred to for `grace`, and, when `partials`, what was left of
/// downloads that nobody waits for. The caller has the directory's lock.
///
/// # Errors
/// When the database or the file system fails.
pub async fn sweep(
    region: &Arc<Region>,
    files: &Files,
    grace: Duration,
    partials: bool,
) -> Result<(), ApiError> {
    let failed = |e: std::io::Error| {
        ApiError::Bug(format!(
            "the directory of images {} cannot be swept: {e}",
            files.dir().display()
        ))
    };
    let mut tx = region.db.read().await?;
    let mut wanted: HashSet<String> = store::all!(
        tx,
        (String,),
        "SELECT DISTINCT sha256 FROM boot_resource_file"
    )?
    .into_iter()
    .map(|(s,)| s)
    .collect();
    for (extra,) in store::all!(tx, (String,), "SELECT extra FROM boot_resource")? {
        let pending = Extra::parse(&extra).pending.unwrap_or_default();
        wanted.extend(pending.files.into_iter().map(|f| f.sha256));
    }
    let told: BTreeMap<String, i64> = store::all!(
        tx,
        (String, i64),
        "SELECT sha256, updated FROM blob WHERE region = $1",
        &region.config.name
    )?
    .into_iter()
    .collect();
    drop(tx);
    let before = Timestamp::from_system(
        SystemTime::now()
            .checked_sub(grace)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    );
    let mut gone: Vec<String> = Vec::new();
    for sha256 in files.list().map_err(failed)? {
        let path = files.complete(&sha256);
        let since = match told.get(&sha256) {
            Some(at) => *at,
            None => std::fs::metadata(&path)
                .and_then(|m| m.modified())
                .map_or(0, |t| Timestamp::from_system(t).0),
        };
        if !wanted.contains(&sha256) && since <= before.0 {
            std::fs::remove_file(&path).map_err(failed)?;
            tracing::info!(sha256, "content that nothing refers to was deleted");
            gone.push(sha256);
        }
    }
    if partials {
        for entry in std::fs::read_dir(files.partials()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let waited_for = entry
                .file_name()
                .to_str()
                .is_some_and(|n| wanted.contains(n) && !files.has(n));
            if !waited_for {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
    }
    // Rows of what is neither here nor coming.
    gone.extend(
        told.into_keys()
            .filter(|s| !wanted.contains(s) && !files.has(s)),
    );
    if gone.is_empty() {
        return Ok(());
    }
    let (gone, name) = (
        serde_json::to_string(&gone).unwrap_or_default(),
        region.config.name.clone(),
    );
    region
        .db
        .write(move |tx| {
            let (gone, name) = (gone.clone(), name.clone());
            Box::pin(async move {
                store::exec!(
                    tx,
                    "DELETE FROM blob WHERE region = $1 AND sha256 IN @texts($2)",
                    name,
                    gone
                )?;
                Ok::<(), ApiError>(())
            })
        })
        .await
}
