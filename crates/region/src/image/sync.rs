//! The import: sources are read, what they offer is compared with what is selected and held, files are
//! fetched, and a set is published when all its files are here.
//!
//! It runs as jobs of [`SYNC_KIND`], one at a time in each region:
//!
//! * [`READ`] reads the sources, so that there is something to select from;
//! * [`IMPORT`] reads them and imports;
//! * [`CLOCK`] never ends: it begins an import when the interval has passed.
//!
//! An attempt that is cut off anywhere leaves partial files and a list of what was to come; the next one
//! looks again and goes on. Nothing that is complete is touched before its successor is complete.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use metal::Timestamp;
use store::job::{Attempt, Job, NewJob, WhenActive};
use store::{StoreError, Tx};
use wire_simplestreams::{
    CachedProduct, HeldResource, Location, ProductKind, ResourceKey, Selection, WantedResource,
};

use super::SYNC_KIND;
use super::blob::Files;
use super::fetch::{FetchError, Fetcher, Wanted, chain, shown};
use super::held::{self, SYNCED, SetRow};
use super::publish::{self, Incoming};
use super::stream::{self as source_stream, Offer, SourceRow};
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::region::Region;
use crate::{select_boot_source, setting};

/// Subject of the job that reads sources.
pub const READ: &str = "sources";
/// Subject of the job that imports.
pub const IMPORT: &str = "all";
/// Subject of the job that begins imports.
pub const CLOCK: &str = "clock";
/// Files fetched at a time.
pub const AT_ONCE: usize = 3;
/// How often progress is written, and looked whether the job is still wanted.
pub const TICK: Duration = Duration::from_secs(1);
/// How often the clock looks at the settings.
pub const CLOCK_TICK: Duration = Duration::from_secs(60);
/// How long to wait while somebody else works in the directory of images.
const BUSY: Duration = Duration::from_secs(2);

fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// Lets the sources be read now.
///
/// # Errors
/// When the database fails.
pub async fn request_read(tx: &mut Tx) -> Result<(), ApiError> {
    ask(tx, READ).await?;
    // An import that runs gives way at once, and goes on afterwards.
    tx.poke_job(SYNC_KIND, IMPORT).await?;
    Ok(())
}

/// Lets the selected images be imported now.
///
/// # Errors
/// When the database fails.
pub async fn request_import(tx: &mut Tx) -> Result<(), ApiError> {
    ask(tx, IMPORT).await
}

async fn ask(tx: &mut Tx, subject: &str) -> Result<(), ApiError> {
    tx.enqueue_job(&NewJob {
        kind: SYNC_KIND,
        subject,
        payload: serde_json::json!({}),
        when_active: WhenActive::Poke,
        ..NewJob::default()
    })
    .await?;
    Ok(())
}

/// Starts the clock, which begins imports; it runs for ever, in one region at a time.
///
/// # Errors
/// When the database fails.
pub async fn start_clock(tx: &mut Tx) -> Result<(), ApiError> {
    tx.enqueue_job(&NewJob {
        kind: SYNC_KIND,
        subject: CLOCK,
        payload: serde_json::json!({}),
        ..NewJob::default()
    })
    .await?;
    Ok(())
}

/// Ends the import that runs or waits. What was fetched stays.
///
/// # Errors
/// When the database fails.
pub async fn stop_import(tx: &mut Tx, by: &str) -> Result<(), ApiError> {
    tx.cancel_job(SYNC_KIND, IMPORT, &format!("stopped by {by}"))
        .await?;
    Ok(())
}

/// Whether an import runs or is about to.
///
/// # Errors
/// When the database fails.
pub async fn is_importing(tx: &mut Tx) -> Result<bool, ApiError> {
    let (n,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM job WHERE kind = $1 AND subject = $2 AND state IN ('waiting', 'running')",
        SYNC_KIND,
        IMPORT
    )?;
    Ok(n > 0)
}

/// Works at a job of [`SYNC_KIND`].
///
/// Cancel-safe: yes; the next attempt goes on.
///
/// # Errors
/// When the database fails. That a source fails is no error of the job's code: it is written down at the
/// source, as an event and as the job's end.
pub async fn job(region: &Arc<Region>, job: &Job) -> Result<(), ApiError> {
    let result = match job.subject.as_str() {
        CLOCK => clock(region, job).await,
        subject => work(region, job.fence(), subject == IMPORT).await,
    };
    match result {
        // Stopped, or somebody else's by now.
        Err(ApiError::Store(StoreError::Fenced { .. })) => Ok(()),
        r => r,
    }
}

async fn clock(region: &Arc<Region>, job: &Job) -> Result<(), ApiError> {
    let fence = job.fence();
    region
        .db
        .write(move |tx| {
            Box::pin(async move {
                tx.hold_job(fence).await?;
                let at = tx.now().await?;
                if setting::flag(tx, "boot_images_auto_import").await? {
                    let minutes =
                        setting::number(tx, "boot_images_import_interval_minutes").await?;
                    let interval = Duration::from_secs(
                        u64::try_from(minutes).unwrap_or(60).saturating_mul(60),
                    );
                    let (last,) = store::one!(
                        tx,
                        (Option<i64>,),
                        "SELECT MAX(updated) FROM job WHERE kind = $1 AND subject = $2",
                        SYNC_KIND,
                        IMPORT
                    )?;
                    let (sources,) = store::one!(tx, (i64,), "SELECT COUNT(*) FROM boot_source")?;
                    let due = last.is_none_or(|t| Timestamp(t).plus(interval) <= at);
                    if due && sources > 0 {
                        request_import(tx).await?;
                    }
                }
                tx.wait_job(
                    fence,
                    at.plus(CLOCK_TICK),
                    "waiting until the next import is due",
                )
                .await?;
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// A source that was read.
struct ReadSource {
    id: i64,
    location: Location,
    offers: Vec<Offer>,
    selections: Vec<Selection>,
}

async fn work(region: &Arc<Region>, fence: Attempt, import: bool) -> Result<(), ApiError> {
    let files = Files::of(region);
    files.create().map_err(|e| disk(&files, &e))?;
    let Some(_lock) = files.lock().map_err(|e| disk(&files, &e))? else {
        region
            .db
            .wait_job(
                fence,
                now().plus(BUSY),
                "waiting for other work in the directory of images",
            )
            .await?;
        return Ok(());
    };
    let mut tx = region.db.read().await?;
    let proxy = proxy(&mut tx).await?;
    let rows = store::all!(tx, SourceRow, select_boot_source!("ORDER BY id"))?;
    let mut selections = selections(&mut tx).await?;
    drop(tx);
    let mut problems = Vec::new();
    let mut unreadable = Vec::new();
    let mut read = Vec::new();
    match Fetcher::new(proxy.as_deref()) {
        Err(e) => problems.push(chain(&e)),
        Ok(fetcher) => {
            for row in &rows {
                let selections = selections.remove(&row.id).unwrap_or_default();
                match read_source(region, fence, &fetcher, row, selections).await? {
                    Ok(source) => read.push(source),
                    Err(problem) => unreadable.push(problem),
                }
            }
            if import {
                let whole = unreadable.is_empty() && !rows.is_empty();
                match bring(region, fence, &fetcher, &files, &read, whole).await? {
                    Brought::GaveWay => return Ok(()),
                    Brought::Done(more) => problems.extend(more),
                }
            }
        }
    }
    if import {
        let clean = problems.is_empty() && unreadable.is_empty();
        publish::sweep(region, &files, publish::GRACE, clean).await?;
    }
    finish(region, fence, import, unreadable, problems).await
}

fn disk(files: &Files, e: &std::io::Error) -> ApiError {
    ApiError::Bug(format!(
        "the directory of images {} cannot be used: {e}",
        files.dir().display()
    ))
}

/// The proxy that images come through.
///
/// # Errors
/// When the database fails.
pub async fn proxy(tx: &mut Tx) -> Result<Option<String>, ApiError> {
    let wanted = setting::flag(tx, "enable_http_proxy").await?
        && !setting::flag(tx, "boot_images_no_proxy").await?;
    let proxy = setting::text(tx, "http_proxy").await?;
    Ok((wanted && !proxy.is_empty()).then_some(proxy))
}

async fn selections(tx: &mut Tx) -> Result<BTreeMap<i64, Vec<Selection>>, ApiError> {
    let rows = store::all!(
        tx,
        (i64, String, String, String, String, String),
        "SELECT boot_source_id, os, release, arches, subarches, labels FROM boot_source_selection ORDER BY id"
    )?;
    let list = |text: String| serde_json::from_str(&text).unwrap_or_default();
    let mut out: BTreeMap<i64, Vec<Selection>> = BTreeMap::new();
    for (source, os, release, arches, subarches, labels) in rows {
        out.entry(source).or_default().push(Selection {
            os,
            release,
            arches: list(arches),
            subarches: list(subarches),
            labels: list(labels),
        });
    }
    Ok(out)
}

/// Reads a source and keeps what it offers, or why it cannot be read.
async fn read_source(
    region: &Arc<Region>,
    fence: Attempt,
    fetcher: &Fetcher,
    row: &SourceRow,
    selections: Vec<Selection>,
) -> Result<Result<ReadSource, String>, ApiError> {
    let at = now();
    let seconds = u64::try_from(at.seconds()).unwrap_or(0);
    match source_stream::read(fetcher, row, seconds).await {
        Ok((location, found)) => {
            tracing::info!(url = %shown(&row.url), products = found.offers.len(), skipped = found.skipped, "a boot source was read");
            publish::cache(region, fence, row, &found.offers, at).await?;
            Ok(Ok(ReadSource {
                id: row.id,
                location,
                offers: found.offers,
                selections,
            }))
        }
        Err(e) => {
            let problem = chain(&e);
            tracing::warn!(url = %shown(&row.url), problem, "a boot source cannot be read");
            let text = format!("{}: {problem}", shown(&row.url));
            let (id, told) = (row.id, text.clone());
            region
                .db
                .write(move |tx| {
                    let (problem, told) = (problem.clone(), told.clone());
                    Box::pin(async move {
                        tx.hold_job(fence).await?;
                        let fresh = store::exec!(
                            tx,
                            "UPDATE boot_source SET last_error = $2 WHERE id = $1 AND last_error <> $2",
                            id,
                            &problem
                        )?;
                        // The same every hour is no news.
                        if fresh > 0 {
                            event::add(tx, Kind::ImportError, None, "", &told, at).await?;
                            tx.changed("boot_source", id, 0, at).await?;
                        }
                        Ok::<(), ApiError>(())
                    })
                })
                .await?;
            Ok(Err(text))
        }
    }
}

enum Brought {
    /// Something changed that must be looked at first; the job was given back.
    GaveWay,
    /// Done, with what went wrong.
    Done(Vec<String>),
}

/// Makes what is held into what is selected.
async fn bring(
    region: &Arc<Region>,
    fence: Attempt,
    fetcher: &Fetcher,
    files: &Files,
    read: &[ReadSource],
    whole: bool,
) -> Result<Brought, ApiError> {
    let mut products: Vec<CachedProduct> = Vec::new();
    let mut origins: Vec<(&ReadSource, &Offer)> = Vec::new();
    for source in read {
        for offer in &source.offers {
            let p = &offer.product;
            if p.kind == ProductKind::Bootloader || source.selections.iter().any(|s| s.matches(p)) {
                products.push(p.clone());
                origins.push((source, offer));
            }
        }
    }
    let all: Vec<Selection> = read.iter().flat_map(|s| s.selections.clone()).collect();
    let mut tx = region.db.read().await?;
    let (held, contents) = held_resources(&mut tx).await?;
    drop(tx);
    let plan = wire_simplestreams::plan(&all, &products, &held, &HashSet::new());
    let mut create: HashSet<usize> = plan.create.iter().copied().collect();
    for (n, w) in plan.wanted.iter().enumerate() {
        // Published again under the same version, with other files.
        let known = contents.get(&w.key);
        let same = |sha256: &str| known.is_some_and(|k| k.contains(sha256));
        if !w.items.iter().all(|i| same(i.sha256.as_str())) {
            create.insert(n);
        }
    }
    let incoming: Vec<Incoming> = plan
        .wanted
        .into_iter()
        .enumerate()
        .filter_map(|(n, w)| incoming(w, &products, &origins, create.contains(&n)))
        .collect();
    publish::announce(region, fence, &incoming).await?;

    let mut problems = Vec::new();
    match fetch(region, fence, fetcher, files, &incoming).await? {
        None => return Ok(Brought::GaveWay),
        Some(failed) => problems.extend(failed),
    }
    // A source that could not be read may still be what the rest is from.
    if whole {
        publish::delete(region, fence, &plan.delete).await?;
    }
    Ok(Brought::Done(problems))
}

/// A resource that is wanted, with where it comes from.
fn incoming(
    wanted: WantedResource,
    products: &[CachedProduct],
    origins: &[(&ReadSource, &Offer)],
    is_new: bool,
) -> Option<Incoming> {
    let at = products
        .iter()
        .position(|p| ResourceKey::of(p) == wanted.key && *p == wanted.product)?;
    let (source, offer) = origins.get(at)?;
    Some(Incoming {
        source: source.id,
        special: offer.special.clone(),
        addresses: wanted
            .items
            .iter()
            .map(|i| source.location.join(&i.path))
            .collect(),
        wanted,
        is_new,
    })
}

/// The hashes of the files that a resource's newest set has.
type HeldFiles = BTreeMap<ResourceKey, HashSet<String>>;

/// What came from sources and stands in the database, complete or not.
async fn held_resources(tx: &mut Tx) -> Result<(Vec<HeldResource>, HeldFiles), ApiError> {
    let mut newest: BTreeMap<i64, SetRow> = BTreeMap::new();
    for set in held::sets(tx).await? {
        match newest.get(&set.resource_id) {
            Some(known) if known.version > set.version => {}
            _ => {
                newest.insert(set.resource_id, set);
            }
        }
    }
    let mut files: BTreeMap<i64, HashSet<String>> = BTreeMap::new();
    for f in held::files(tx).await? {
        files.entry(f.set_id).or_default().insert(f.sha256);
    }
    let rows = store::all!(
        tx,
        (i64, String, String),
        "SELECT id, name, architecture FROM boot_resource WHERE rtype = $1 ORDER BY id",
        SYNCED
    )?;
    let mut resources = Vec::new();
    let mut contents = HeldFiles::new();
    for (id, name, architecture) in rows {
        let key = ResourceKey { name, architecture };
        let (mut version, mut label) = (String::new(), String::new());
        if let Some(set) = newest.remove(&id) {
            contents.insert(key.clone(), files.remove(&set.id).unwrap_or_default());
            (version, label) = (set.version, set.label);
        }
        resources.push(HeldResource {
            key,
            version,
            label,
        });
    }
    Ok((resources, contents))
}

/// How far each file is, by hash: its size and the bytes that are here.
pub(super) type Progress = Arc<Mutex<BTreeMap<String, (u64, u64)>>>;

/// Fetches what is missing and publishes each set as soon as it is complete. None when the job was given
/// back because something changed.
async fn fetch(
    region: &Arc<Region>,
    fence: Attempt,
    fetcher: &Fetcher,
    files: &Files,
    incoming: &[Incoming],
) -> Result<Option<Vec<String>>, ApiError> {
    let mut listed = HashSet::new();
    let mut downloads = Vec::new();
    for i in incoming {
        for (item, address) in i.wanted.items.iter().zip(&i.addresses) {
            let sha256 = item.sha256.as_str();
            if !files.has(sha256) && listed.insert(sha256) {
                downloads.push(Wanted {
                    address: address.clone(),
                    sha256: sha256.to_owned(),
                    size: item.size,
                });
            }
        }
    }
    if !downloads.is_empty() {
        let bytes: u64 = downloads.iter().map(|d| d.size).sum();
        tracing::info!(files = downloads.len(), bytes, "images are being fetched");
    }
    let progress: Progress = Arc::default();
    let all = async {
        let mut problems = Vec::new();
        let mut left: Vec<&Incoming> = incoming.iter().collect();
        // What needs no fetching first, and then whatever each file completes.
        settle(region, fence, files, &mut left, &mut problems).await?;
        let mut running = stream::iter(downloads)
            .map(|wanted| {
                let progress = &progress;
                async move {
                    let note = |bytes: u64| {
                        progress
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .insert(wanted.sha256.clone(), (wanted.size, bytes));
                    };
                    // All bytes count only when they are the right ones.
                    let told = |bytes: u64| note(bytes.min(wanted.size.saturating_sub(1)));
                    let result = fetcher.file(&wanted, files, &told).await;
                    match &result {
                        Ok(()) => note(wanted.size),
                        Err(FetchError::Altered { .. }) => note(0),
                        Err(_) => {}
                    }
                    (wanted, result)
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some((wanted, result)) = running.next().await {
            match result {
                Ok(()) => settle(region, fence, files, &mut left, &mut problems).await?,
                Err(e) => {
                    let what = incoming
                        .iter()
                        .find(|i| {
                            i.wanted
                                .items
                                .iter()
                                .any(|item| item.sha256.as_str() == wanted.sha256)
                        })
                        .map(|i| format!("{} {}", i.wanted.key.name, i.wanted.key.architecture));
                    let problem = format!("{}: {}", what.unwrap_or_default(), chain(&e));
                    tracing::warn!(problem, "a file of an image could not be fetched");
                    problems.push(problem);
                }
            }
        }
        publish::progress(region, fence, &progress).await?;
        Ok::<_, ApiError>(problems)
    };
    let watch = async {
        loop {
            tokio::time::sleep(TICK).await;
            publish::progress(region, fence, &progress).await?;
            if give_way(region, fence).await? {
                return Ok::<(), ApiError>(());
            }
        }
    };
    tokio::select! {
        done = all => done.map(Some),
        gave = watch => gave.map(|()| None),
    }
}

/// Publishes what is complete by now and takes it from the list.
async fn settle(
    region: &Arc<Region>,
    fence: Attempt,
    files: &Files,
    left: &mut Vec<&Incoming>,
    problems: &mut Vec<String>,
) -> Result<(), ApiError> {
    let (complete, rest): (Vec<&Incoming>, Vec<&Incoming>) = left
        .drain(..)
        .partition(|i| i.wanted.items.iter().all(|f| files.has(f.sha256.as_str())));
    *left = rest;
    for i in complete {
        if let Err(problem) = publish::complete(region, fence, files, i).await? {
            let problem = format!(
                "{} {}: {problem}",
                i.wanted.key.name, i.wanted.key.architecture
            );
            tracing::warn!(problem, "an image could not be published");
            problems.push(problem);
        }
    }
    Ok(())
}

/// Whether something happened that the import must look at from the start; the job is given back then.
async fn give_way(region: &Arc<Region>, fence: Attempt) -> Result<bool, ApiError> {
    region
        .db
        .write(move |tx| {
            Box::pin(async move {
                tx.hold_job(fence).await?;
                let (poked,) =
                    store::one!(tx, (bool,), "SELECT poked FROM job WHERE id = $1", fence.id)?;
                if poked {
                    let at = tx.now().await?;
                    tx.wait_job(fence, at, "sources or selections have changed")
                        .await?;
                }
                Ok::<bool, ApiError>(poked)
            })
        })
        .await
}

/// Ends the job, or begins again when something changed meanwhile. There are events about the sources
/// that could not be read already.
async fn finish(
    region: &Arc<Region>,
    fence: Attempt,
    import: bool,
    unreadable: Vec<String>,
    problems: Vec<String>,
) -> Result<(), ApiError> {
    let at = now();
    region
        .db
        .write(move |tx| {
            let (unreadable, problems) = (unreadable.clone(), problems.clone());
            Box::pin(async move {
                tx.hold_job(fence).await?;
                let (poked,) =
                    store::one!(tx, (bool,), "SELECT poked FROM job WHERE id = $1", fence.id)?;
                if poked {
                    let at = tx.now().await?;
                    tx.wait_job(fence, at, "sources or selections have changed")
                        .await?;
                } else if problems.is_empty() && unreadable.is_empty() {
                    if import {
                        event::add(
                            tx,
                            Kind::ImportInfo,
                            None,
                            "",
                            "Everything selected is held.",
                            at,
                        )
                        .await?;
                    }
                    tx.finish_job(fence).await?;
                } else {
                    if import {
                        for p in problems.iter().take(MAX_EVENTS) {
                            event::add(tx, Kind::ImportError, None, "", p, at).await?;
                        }
                    }
                    let all = [unreadable, problems].concat();
                    tx.fail_job(fence, &all.join("; ")).await?;
                }
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// Most events about one import.
const MAX_EVENTS: usize = 20;
