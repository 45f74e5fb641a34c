//! What each region does about its images by itself: it fetches content that the database says is held
//! but that is not here (another region imported it, or a disk was replaced), and deletes content that
//! nothing refers to.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metal::Timestamp;
use serde_json::{Value, json};
use store::StoreError;
use store::feed::FeedReader;
use tokio::sync::Notify;
use wire_simplestreams::StreamPath;

use super::blob::Files;
use super::fetch::{Fetcher, Wanted, chain};
use super::held::{self, LOADER};
use super::publish::{self, GRACE};
use super::stream::{self, SourceRow};
use super::sync;
use crate::error::ApiError;
use crate::region::Region;
use crate::{select_boot_source, setting};

/// How often missing content is looked for.
pub const FILL_INTERVAL: Duration = Duration::from_secs(15);
/// How often content that nothing refers to is looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// How long changes may gather before missing content is looked for.
const SETTLE: Duration = Duration::from_millis(200);
/// How long after a failure missing content is looked for again.
pub const FAILED_INTERVAL: Duration = Duration::from_secs(300);

/// How long a rack that asks for content which is still to be fetched is kept waiting; shorter than racks'
/// own patience with a silent region.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(20);

/// Content that racks ask for and that is not here yet.
#[derive(Debug, Default)]
pub struct Demand {
    asked: Mutex<BTreeSet<String>>,
    fill: Notify,
    came: Notify,
}

impl Demand {
    fn asked(&self) -> BTreeSet<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    fn set(&self, sha256: &str, asked: bool) {
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked {
            all.insert(sha256.to_owned());
        } else {
            all.remove(sha256);
        }
    }
}

/// Waits for content that the database says is held and that is not here: another region has imported it
/// just now. Gives whether it came.
pub async fn arrival(region: &Arc<Region>, files: &Files, sha256: &str) -> bool {
    let is_held = async {
        let mut tx = region.db.read().await?;
        held::is_held(&mut tx, sha256).await
    };
    match is_held.await {
        Ok(true) => {}
        Ok(false) => return false,
        Err(e) => {
            tracing::warn!(sha256, error = %chain(&e), "it cannot be told whether this content is held");
            return false;
        }
    }
    let demand = &region.content;
    demand.set(sha256, true);
    demand.fill.notify_one();
    let came = async {
        loop {
            let came = demand.came.notified();
            tokio::pin!(came);
            // From here on no arrival is missed.
            came.as_mut().enable();
            if files.has(sha256) {
                return;
            }
            came.await;
        }
    };
    let is_here = tokio::time::timeout(ARRIVAL_LIMIT, came).await.is_ok();
    demand.set(sha256, false);
    is_here
}

/// Waits until images change.
async fn changed(feed: &mut FeedReader) -> Result<(), StoreError> {
    loop {
        let rows = feed.next().await?;
        if rows.iter().any(|c| c.noun == "boot_resource") {
            return Ok(());
        }
    }
}

/// The source of a new installation.
pub const DEFAULT_URL: &str = "http://images.maas.io/ephemeral-v3/stable";
/// The setting that says that a source was configured once; deleting all is then the operator's wish.
const CONFIGURED: &str = "boot_source_configured";

/// Starts the region's own care for its images, and the clock of the imports.
pub fn start(region: &Arc<Region>) {
    let r = Arc::clone(region);
    region.tasks.spawn(async move {
        let stop = r.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = run(r) => {}
        }
    });
}

async fn run(region: Arc<Region>) {
    loop {
        let started = region
            .db
            .write(|tx| Box::pin(async move { sync::start_clock(tx).await }))
            .await;
        match started {
            Ok(()) => break,
            Err(e) => {
                tracing::warn!(error = %chain(&e), "the clock of image imports could not be started; trying again");
            }
        }
        tokio::time::sleep(FILL_INTERVAL).await;
    }
    let mut swept: Option<Instant> = None;
    let mut feed: Option<FeedReader> = None;
    loop {
        if feed.is_none() {
            let at = async { region.db.read().await?.feed_position().await };
            feed = at.await.ok().map(|at| region.db.feed_reader(at));
        }
        let mut pause = FILL_INTERVAL;
        match fill(&region).await {
            Ok(()) => {}
            Err(problem) => {
                tracing::warn!(problem, "content that should be here could not be fetched");
                pause = FAILED_INTERVAL;
            }
        }
        if swept.is_none_or(|t| t.elapsed() >= SWEEP_INTERVAL) {
            swept = Some(Instant::now());
            if let Err(problem) = sweep(&region).await {
                tracing::warn!(problem, "images could not be swept");
            }
        }
        let told = async {
            match &mut feed {
                Some(f) => changed(f).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = region.content.fill.notified() => {}
            r = told => if r.is_err() {
                feed = None;
            }
        }
        // However often racks ask: a source that fails is left alone for a while.
        let is_failing = pause == FAILED_INTERVAL;
        tokio::time::sleep(if is_failing { FILL_INTERVAL } else { SETTLE }).await;
    }
}

async fn sweep(region: &Arc<Region>) -> Result<(), String> {
    let files = Files::of(region);
    files.create().map_err(|e| e.to_string())?;
    let Some(_lock) = files.lock().map_err(|e| e.to_string())? else {
        return Ok(());
    };
    publish::sweep(region, &files, GRACE, false)
        .await
        .map_err(|e| chain(&e))
}

/// Fetches content of complete sets that is not here.
///
/// # Errors
/// What the first failure was, in words; the rest was tried all the same.
pub async fn fill(region: &Arc<Region>) -> Result<(), String> {
    let files = Files::of(region);
    let mut tx = region.db.read().await.map_err(|e| chain(&e))?;
    let rows = held::files(&mut tx).await.map_err(|e| chain(&e))?;
    let mut missing: Vec<_> = rows.iter().filter(|f| !files.has(&f.sha256)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let asked = region.content.asked();
    missing.sort_by_key(|f| !asked.contains(&f.sha256));
    files.create().map_err(|e| e.to_string())?;
    let Some(_lock) = files.lock().map_err(|e| e.to_string())? else {
        return Ok(());
    };
    let proxy = sync::proxy(&mut tx).await.map_err(|e| chain(&e))?;
    let sources: BTreeMap<i64, SourceRow> =
        store::all!(tx, SourceRow, select_boot_source!("ORDER BY id"))
            .map_err(|e| chain(&e))?
            .into_iter()
            .map(|s| (s.id, s))
            .collect();
    drop(tx);
    let fetcher = Fetcher::new(proxy.as_deref()).map_err(|e| chain(&e))?;
    let mut problem = None;
    let mut done = HashSet::new();
    for f in missing {
        if files.has(&f.sha256) || !done.insert(f.sha256.clone()) {
            continue;
        }
        let extra: Value = serde_json::from_str(&f.extra).unwrap_or_default();
        let result = if f.filetype == LOADER {
            let archive = extra["archive"].as_str().unwrap_or("");
            match rows.iter().find(|r| r.sha256 == archive) {
                Some(row) => match fetch(&fetcher, &files, &sources, row).await {
                    Ok(()) => publish::unpack_one(&files, archive).await.map(|_| ()),
                    Err(e) => Err(e),
                },
                None => Err(format!("the archive of {} is unknown", f.filename)),
            }
        } else {
            fetch(&fetcher, &files, &sources, f).await
        };
        match result {
            Ok(()) => {
                region.content.came.notify_waiters();
                note(region, &files, &f.sha256).await?;
            }
            Err(e) => problem = problem.or(Some(e)),
        }
    }
    problem.map_or(Ok(()), Err)
}

async fn fetch(
    fetcher: &Fetcher,
    files: &Files,
    sources: &BTreeMap<i64, SourceRow>,
    f: &held::FileRow,
) -> Result<(), String> {
    let extra: Value = serde_json::from_str(&f.extra).unwrap_or_default();
    let source = extra["source"]
        .as_i64()
        .and_then(|id| sources.get(&id))
        .ok_or_else(|| format!("the source of {} is not configured any more", f.filename))?;
    let path = StreamPath::new(extra["path"].as_str().unwrap_or("")).map_err(|e| chain(&e))?;
    let signed = !source.keyring_filename.is_empty()
        || source.keyring_data.as_ref().is_some_and(|d| !d.is_empty());
    let location = stream::locate(&source.url, signed).map_err(|e| chain(&e))?;
    let wanted = Wanted {
        address: location.join(&path),
        sha256: f.sha256.clone(),
        size: u64::try_from(f.size).unwrap_or(0),
    };
    fetcher
        .file(&wanted, files, &|_| {})
        .await
        .map_err(|e| chain(&e))
}

async fn note(region: &Arc<Region>, files: &Files, sha256: &str) -> Result<(), String> {
    let size = std::fs::metadata(files.complete(sha256))
        .map_err(|e| e.to_string())?
        .len();
    let (sha256, name) = (sha256.to_owned(), region.config.name.clone());
    let at = Timestamp::from_system(std::time::SystemTime::now());
    region
        .db
        .write(move |tx| {
            let (sha256, name) = (sha256.clone(), name.clone());
            Box::pin(async move { publish::put_blob(tx, &sha256, &name, size, size, at).await })
        })
        .await
        .map_err(|e| chain(&e))
}

/// Notes that a source was configured: from then on the list of sources is what the operator made it.
///
/// # Errors
/// When the database fails.
pub async fn configured(tx: &mut store::Tx, at: Timestamp) -> Result<(), ApiError> {
    setting::put(tx, CONFIGURED, &json!(true), at).await
}

/// Gives a new installation the source of the official images and a selection of the default release for
/// this host's architecture: only when no source was ever configured, and images are to be imported
/// without being asked. Where the internet cannot be reached, the import says so and nothing else happens.
///
/// # Errors
/// When the database fails.
pub async fn ensure_defaults(region: &Arc<Region>) -> Result<(), ApiError> {
    let at = Timestamp::from_system(std::time::SystemTime::now());
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "powerpc64" => "ppc64el",
        "s390x" => "s390x",
        _ => "amd64",
    };
    region
        .db
        .write(move |tx| {
            Box::pin(async move {
                let (known,) = store::one!(
                    tx,
                    (i64,),
                    "SELECT (SELECT COUNT(*) FROM boot_source) + (SELECT COUNT(*) FROM setting WHERE name = $1)",
                    CONFIGURED
                )?;
                if known > 0 || !setting::flag(tx, "boot_images_auto_import").await? {
                    return Ok(());
                }
                configured(tx, at).await?;
                let os = setting::text(tx, "commissioning_osystem").await?;
                let release = setting::text(tx, "commissioning_distro_series").await?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO boot_source (url, keyring_filename, created, updated) VALUES ($1, $2, $3, $3) RETURNING id",
                    DEFAULT_URL,
                    stream::DEFAULT_KEYRING,
                    at.0
                )?;
                store::exec!(
                    tx,
                    "INSERT INTO boot_source_selection (boot_source_id, os, release, arches) VALUES ($1, $2, $3, $4)",
                    id,
                    os,
                    release,
                    json!([arch]).to_string()
                )?;
                tx.changed("boot_source", id, 0, at).await?;
                Ok::<(), ApiError>(())
            })
        })
        .await
}
