//! `boot-resources`, uploads: an image that an administrator brings, in pieces or at once. What has come so
//! far lies in `images/upload/` of the region that takes it; the row says how much of it counts.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use metal::upload;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::Tx;

use crate::answer::Answer;
use crate::boot_resource;
use crate::call::Call;
use crate::error::ApiError;
use crate::image::blob::{self, Files};
use crate::image::held::{Extra, UPLOADED, split_architecture};
use crate::image::{choose, publish};
use crate::operation::{Body, Kind, Method, Operation, Param, Who};
use crate::region::Region;
use crate::setting;

/// Most bytes of one piece.
pub const PIECE_MAX: usize = 32 << 20;
/// Largest image.
pub const IMAGE_MAX: i64 = 1 << 40;
/// Most uploads that are on their way at once.
pub const UPLOADS_MAX: i64 = 100;
/// Bytes read at a time to check a hash.
const READ: usize = 1 << 20;
/// What is left of an upload that was given up is deleted when it has been alone for so long.
const SWEEP_AGE: std::time::Duration = std::time::Duration::from_secs(3_600);
/// Seconds after which it is worth asking again while another piece is being written.
const BUSY_RETRY: u32 = 1;

/// `boot-resources/` and `boot-resources/{id}/upload/{file_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "BootResourcesHandler",
        uri: "boot-resources/",
        method: Method::Post,
        who: Who::Admin,
        title: "Bring an image of your own; its content follows in pieces, or comes along.",
        params: &[
            Param::field(
                "name",
                Kind::Text,
                "Its name: NAME, custom/NAME or OS/RELEASE.",
            ),
            Param::field(
                "architecture",
                Kind::Text,
                "Architecture, as in amd64/generic.",
            ),
            Param::opt(
                "sha256",
                Kind::Text,
                "SHA-256 of the content; required unless it comes along.",
            ),
            Param::opt(
                "size",
                Kind::Int,
                "Bytes of the content; required unless it comes along.",
            ),
            Param::opt("title", Kind::Text, "A title for people."),
            Param::opt(
                "filetype",
                Kind::Choice(&[
                    "tgz", "tbz", "txz", "ddtgz", "ddtbz", "ddtxz", "ddtar", "ddbz2", "ddgz",
                    "ddxz", "ddraw",
                ]),
                "What the file is; tgz when left out.",
            ),
            Param::opt(
                "base_image",
                Kind::Text,
                "What it is derived from, as os/release.",
            ),
            Param::opt("keep_old", Kind::Bool, "Whether earlier versions are kept."),
            Param::opt("content", Kind::File, "The content, when it comes along."),
        ],
        success: 201,
        audit: Some("BOOT_RESOURCE"),
        run: |c| Box::pin(create(c)),
        ..Operation::READ
    },
    // No audit event for each of thousands of pieces: the one of the image's creation says who brings it.
    Operation {
        uri: "boot-resources/{id}/upload/{file_id}/",
        method: Method::Put,
        who: Who::Admin,
        title: "The next piece of an image.",
        body: Body::Raw(PIECE_MAX),
        run: |c| Box::pin(piece(c)),
        ..Operation::READ
    },
];

/// An upload that is on its way.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct UploadRow {
    id: i64,
    /// The image's resource.
    pub resource_id: i64,
    /// The version that it is to be.
    pub version: String,
    filename: String,
    filetype: String,
    sha256: String,
    size: i64,
    bytes: i64,
    keep_old: bool,
    region: String,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, resource_id, version, filename, filetype, sha256, size, bytes, keep_old, region FROM boot_resource_upload ",
            $rest
        )
    };
}

/// The label of sets that people bring.
const LABEL: &str = "uploaded";

impl UploadRow {
    /// The set that it is to be, as the API shows it.
    #[must_use]
    pub fn json(&self) -> Value {
        let progress = boot_resource::percent(self.bytes, self.size);
        let file = json!({
            "filename": self.filename,
            "filetype": self.filetype,
            "sha256": self.sha256,
            "filename_on_disk": self.sha256,
            "size": self.size,
            "complete": false,
            "progress": progress,
            "upload_uri": format!("/MAAS/api/2.0/boot-resources/{}/upload/{}/", self.resource_id, self.id),
        });
        json!({
            "version": self.version,
            "label": LABEL,
            "size": self.size,
            "complete": false,
            "progress": progress,
            "files": { self.filename.as_str(): file },
        })
    }
}

/// Every upload that is on its way.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx) -> Result<Vec<UploadRow>, ApiError> {
    Ok(store::all!(tx, UploadRow, select!("ORDER BY id"))?)
}

fn directory(region: &Region) -> PathBuf {
    Files::of(region).dir().join("upload")
}

fn failed(e: &std::io::Error) -> ApiError {
    if e.kind() == ErrorKind::StorageFull || e.kind() == ErrorKind::QuotaExceeded {
        return ApiError::Bad("There is not enough disk space for this image.".to_owned());
    }
    ApiError::Bug(format!("the content of an image cannot be written: {e}"))
}

/// What a request for a new image says, checked as far as that goes without the database.
#[derive(Clone)]
struct Asked {
    name: String,
    architecture: String,
    sha256: String,
    size: i64,
    title: String,
    filetype: &'static str,
    filename: &'static str,
    base_image: Option<String>,
    keep_old: bool,
    /// Whether the content is here already.
    held: bool,
}

async fn asked(call: &Call, content: Option<&Bytes>) -> Result<Asked, ApiError> {
    let args = call.args();
    let mut sha256 = args.filled("sha256").map(str::to_ascii_lowercase);
    let mut size = args.int("size")?;
    if let Some(content) = content {
        let (bytes, length) = (
            content.clone(),
            i64::try_from(content.len()).unwrap_or(i64::MAX),
        );
        let hash = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&bytes)))
            .await
            .map_err(|e| ApiError::bug(&e.to_string()))?;
        if sha256.as_ref().is_some_and(|s| *s != hash) {
            return Err(ApiError::field(
                "sha256",
                "The content has another SHA-256.",
            ));
        }
        if size.is_some_and(|s| s != length) {
            return Err(ApiError::field("size", "The content has another size."));
        }
        (sha256, size) = (Some(hash), Some(length));
    }
    let required = |f: &str| ApiError::field(f, "This field is required.");
    let sha256 = sha256.ok_or_else(|| required("sha256"))?;
    let size = size.ok_or_else(|| required("size"))?;
    if !blob::is_hash(&sha256) {
        return Err(ApiError::field("sha256", "Enter 64 hexadecimal digits."));
    }
    if !(1..=IMAGE_MAX).contains(&size) {
        return Err(ApiError::field(
            "size",
            format!("Enter a number of bytes from 1 to {IMAGE_MAX}."),
        ));
    }
    let (filetype, filename) = upload::file_type(args.filled("filetype").unwrap_or("tgz"))
        .ok_or_else(|| ApiError::field("filetype", "This is no type of image that is known."))?;
    let title = args.text("title").unwrap_or("").to_owned();
    if title.len() > upload::NAME_MAX {
        return Err(ApiError::field(
            "title",
            format!("At most {} bytes.", upload::NAME_MAX),
        ));
    }
    Ok(Asked {
        name: args.required("name")?.trim().to_owned(),
        architecture: args.required("architecture")?.to_owned(),
        held: Files::of(call.region()).has(&sha256),
        sha256,
        size,
        title,
        filetype,
        filename,
        base_image: args.filled("base_image").map(str::to_owned),
        keep_old: args.bool("keep_old")?.unwrap_or(false),
    })
}

/// What an image of a Linux that nobody knows is derived from.
async fn base_image(
    tx: &mut Tx,
    asked: &Asked,
    known: &BTreeSet<(String, String)>,
) -> Result<String, ApiError> {
    if !upload::is_custom(&asked.name) {
        return Ok(asked.base_image.clone().unwrap_or_default());
    }
    let Some(base) = &asked.base_image else {
        let (os, series) = (
            setting::text(tx, "commissioning_osystem").await?,
            setting::text(tx, "commissioning_distro_series").await?,
        );
        return Ok(format!("{os}/{series}"));
    };
    let known = base
        .split_once('/')
        .is_some_and(|(os, series)| known.contains(&(os.to_owned(), series.to_owned())));
    if known {
        Ok(base.clone())
    } else {
        let base: String = base.chars().take(64).collect();
        Err(ApiError::field(
            "base_image",
            format!("'{base}' is not the os/release of an image that is held or offered."),
        ))
    }
}

/// Systems and releases that belong to sources of images: what they offer, and what came from them.
async fn offered(tx: &mut Tx) -> Result<BTreeSet<(String, String)>, ApiError> {
    let mut out: BTreeSet<(String, String)> = store::all!(
        tx,
        (String, String),
        "SELECT DISTINCT os, release FROM boot_source_cache"
    )?
    .into_iter()
    .collect();
    let held = store::all!(
        tx,
        (String,),
        "SELECT DISTINCT name FROM boot_resource WHERE rtype = 0"
    )?;
    out.extend(held.iter().filter_map(|(name,)| {
        let (os, release) = name.split_once('/')?;
        Some((os.to_owned(), release.to_owned()))
    }));
    Ok(out)
}

/// Today, as versions have it.
fn day(call: &Call) -> String {
    jiff::Timestamp::from_microsecond(call.now().0)
        .map(|t| t.strftime("%Y%m%d").to_string())
        .unwrap_or_default()
}

/// Keeps what is to come: the resource, when it is new, and the upload.
async fn begin(tx: &mut Tx, call: &Call, asked: &Asked) -> Result<UploadRow, ApiError> {
    choose::check_architecture(tx, &asked.architecture).await?;
    let known = offered(tx).await?;
    upload::check_name(&asked.name, &known)
        .map_err(|e| ApiError::field("name", format!("Invalid name of an image: {e}.")))?;
    let base = base_image(tx, asked, &known).await?;
    let other = store::opt!(
        tx,
        (i64,),
        "SELECT size FROM blob WHERE sha256 = $1 AND size <> $2",
        &asked.sha256,
        asked.size
    )?;
    if let Some((size,)) = other {
        return Err(ApiError::field(
            "size",
            format!("The content with this SHA-256 has {size} bytes."),
        ));
    }
    let (pending,) = store::one!(tx, (i64,), "SELECT COUNT(*) FROM boot_resource_upload")?;
    if pending >= UPLOADS_MAX {
        return Err(ApiError::Conflict(format!(
            "{pending} uploads have begun and not ended; delete what will not be continued."
        )));
    }
    // `custom/NAME` and `NAME` are the same image.
    let plain = asked.name.strip_prefix("custom/").unwrap_or(&asked.name);
    let there = store::opt!(
        tx,
        (i64, String),
        "SELECT id, extra FROM boot_resource WHERE rtype = $1 AND architecture = $2 AND (name = $3 OR name = $4 OR name = $5)",
        UPLOADED,
        &asked.architecture,
        &asked.name,
        plain,
        format!("custom/{plain}")
    )?;
    let mut extra = there
        .as_ref()
        .map_or_else(Extra::default, |(_, e)| Extra::parse(e));
    if !asked.title.is_empty() {
        asked.title.clone_into(&mut extra.title);
    }
    split_architecture(&asked.architecture)
        .1
        .clone_into(&mut extra.subarches);
    let id = match there {
        Some((id, _)) => {
            store::exec!(
                tx,
                "UPDATE boot_resource SET extra = $2, base_image = $3, updated = $4 WHERE id = $1",
                id,
                extra.text(),
                &base,
                call.now().0
            )?;
            id
        }
        None => {
            store::one!(
                tx,
                (i64,),
                "INSERT INTO boot_resource (rtype, name, architecture, base_image, extra, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $6) \
                 RETURNING id",
                UPLOADED,
                &asked.name,
                &asked.architecture,
                &base,
                extra.text(),
                call.now().0
            )?
            .0
        }
    };
    let taken: BTreeSet<String> = store::all!(
        tx,
        (String,),
        "SELECT version FROM boot_resource_set WHERE resource_id = $1",
        id
    )?
    .into_iter()
    .map(|(v,)| v)
    .collect();
    // What began before is given up: whoever begins again sends all of it again.
    store::exec!(
        tx,
        "DELETE FROM boot_resource_upload WHERE resource_id = $1",
        id
    )?;
    let (upload,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO boot_resource_upload (resource_id, version, filename, filetype, sha256, size, bytes, keep_old, region, created, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9, $9) RETURNING id",
        id,
        upload::version(&day(call), &taken),
        asked.filename,
        asked.filetype,
        &asked.sha256,
        asked.size,
        asked.keep_old,
        &call.region().config.name,
        call.now().0
    )?;
    tx.changed("boot_resource", id, 0, call.now()).await?;
    Ok(store::one!(
        tx,
        UploadRow,
        select!("WHERE id = $1"),
        upload
    )?)
}

/// Makes the set of an upload whose content is here.
async fn end(tx: &mut Tx, call: &Call, row: &UploadRow) -> Result<(), ApiError> {
    if !row.keep_old {
        store::exec!(
            tx,
            "UPDATE blob SET updated = $2 WHERE sha256 IN (SELECT f.sha256 FROM boot_resource_file f \
             JOIN boot_resource_set s ON s.id = f.set_id WHERE s.resource_id = $1)",
            row.resource_id,
            call.now().0
        )?;
        store::exec!(
            tx,
            "DELETE FROM boot_resource_set WHERE resource_id = $1",
            row.resource_id
        )?;
    }
    let (set,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO boot_resource_set (resource_id, version, label, created) VALUES ($1, $2, $3, $4) RETURNING id",
        row.resource_id,
        &row.version,
        LABEL,
        call.now().0
    )?;
    store::exec!(
        tx,
        "INSERT INTO boot_resource_file (set_id, filename, filetype, sha256, size) VALUES ($1, $2, $3, $4, $5)",
        set,
        &row.filename,
        &row.filetype,
        &row.sha256,
        row.size
    )?;
    let size = u64::try_from(row.size).unwrap_or(0);
    publish::put_blob(tx, &row.sha256, &row.region, size, size, call.now()).await?;
    store::exec!(tx, "DELETE FROM boot_resource_upload WHERE id = $1", row.id)?;
    tx.changed("boot_resource", row.resource_id, 0, call.now())
        .await?;
    Ok(())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let content = call.args().bytes("content");
    let asked = asked(&call, content.as_ref()).await?;
    sweep(call.region()).await?;
    let kept = asked.clone();
    let row = call
        .write(move |tx, call| {
            let asked = kept.clone();
            Box::pin(async move {
                let row = begin(tx, &call, &asked).await?;
                if asked.held {
                    end(tx, &call, &row).await?;
                }
                Ok(row)
            })
        })
        .await?;
    if let Some(content) = content.filter(|_| !asked.held) {
        take(&call, &row, content).await?;
    }
    let mut tx = call.read().await?;
    Ok(Answer::json(boot_resource::single(&mut tx, row.resource_id).await?).status(201))
}

async fn piece(call: Call) -> Result<Answer, ApiError> {
    let (resource, file) = (
        call.path_id("id", "BootResource")?,
        call.path_id("file_id", "BootResourceFile")?,
    );
    let mut tx = call.read().await?;
    let kind = store::opt!(
        tx,
        (i64,),
        "SELECT rtype FROM boot_resource WHERE id = $1",
        resource
    )?
    .ok_or_else(|| ApiError::missing("BootResource"))?;
    if kind.0 != UPLOADED {
        return Err(ApiError::Forbidden(
            "This image comes from a source; nothing is uploaded to it.".to_owned(),
        ));
    }
    let row = store::opt!(
        tx,
        UploadRow,
        select!("WHERE id = $1 AND resource_id = $2"),
        file,
        resource
    )?
    .ok_or_else(|| ApiError::missing("BootResourceFile"))?;
    drop(tx);
    take(&call, &row, call.body().clone()).await?;
    Ok(Answer::text("OK"))
}

/// Appends a piece; the last one completes the image.
async fn take(call: &Call, row: &UploadRow, content: Bytes) -> Result<(), ApiError> {
    if row.region != call.region().config.name {
        return Err(ApiError::Conflict(format!(
            "This upload began at the region {}; send its pieces there, or begin again.",
            row.region
        )));
    }
    let length = i64::try_from(content.len()).unwrap_or(i64::MAX);
    if length == 0 {
        return Err(ApiError::Bad(
            "There is no content in this request.".to_owned(),
        ));
    }
    let directory = directory(call.region());
    let path = directory.join(row.id.to_string());
    let place = path.clone();
    // The file is locked as long as this value lives; what the row says is read under the lock, so that a
    // piece that waited does not write over the one it waited for.
    let lock = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&directory).map_err(|e| failed(&e))?;
        open(&place)
    })
    .await
    .map_err(|e| ApiError::bug(&e.to_string()))??;
    let mut tx = call.read().await?;
    let row = &store::opt!(tx, UploadRow, select!("WHERE id = $1"), row.id)?
        .ok_or_else(|| ApiError::missing("BootResourceFile"))?;
    drop(tx);
    let bytes = row.bytes.saturating_add(length);
    if bytes > row.size {
        return Err(ApiError::Bad(format!(
            "Too much data: {} bytes are missing, and these are {length}.",
            row.size - row.bytes
        )));
    }
    let offset = u64::try_from(row.bytes).unwrap_or(0);
    let lock = tokio::task::spawn_blocking(move || append(lock, offset, &content))
        .await
        .map_err(|e| ApiError::bug(&e.to_string()))??;
    let fence = row.clone();
    call.write(move |tx, call| {
        let row = fence.clone();
        Box::pin(async move {
            let moved = store::exec!(
                tx,
                "UPDATE boot_resource_upload SET bytes = $3, updated = $4 WHERE id = $1 AND bytes = $2",
                row.id,
                row.bytes,
                bytes,
                call.now().0
            )?;
            if moved == 0 {
                return Err(ApiError::Conflict(
                    "Another piece came between, or the upload began again.".to_owned(),
                ));
            }
            Ok(())
        })
    })
    .await?;
    if bytes == row.size {
        finish(call, row, &path).await?;
    }
    drop(lock);
    Ok(())
}

/// Checks the whole content and makes it an image. When it is not what was said, all of it is to come again.
async fn finish(call: &Call, row: &UploadRow, path: &Path) -> Result<(), ApiError> {
    let (files, kept, place) = (Files::of(call.region()), row.clone(), path.to_owned());
    let good = tokio::task::spawn_blocking(move || -> std::io::Result<bool> {
        if hash(&place)? != kept.sha256 {
            return Ok(false);
        }
        files.create()?;
        std::fs::rename(&place, files.complete(&kept.sha256))?;
        std::fs::File::open(files.dir())?.sync_all()?;
        Ok(true)
    })
    .await
    .map_err(|e| ApiError::bug(&e.to_string()))?
    .map_err(|e| failed(&e))?;
    let row = row.clone();
    call.write(move |tx, call| {
        let row = row.clone();
        Box::pin(async move {
            if good {
                return end(tx, &call, &row).await;
            }
            store::exec!(
                tx,
                "UPDATE boot_resource_upload SET bytes = 0, updated = $2 WHERE id = $1",
                row.id,
                call.now().0
            )?;
            Ok(())
        })
    })
    .await?;
    if good {
        Ok(())
    } else {
        Err(ApiError::Bad(
            "The content has another SHA-256 than was said; send all of it again.".to_owned(),
        ))
    }
}

/// Opens the file of an upload and locks it.
fn open(path: &Path) -> Result<std::fs::File, ApiError> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| failed(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ApiError::Unavailable(
            "Another piece of this image is being written; send them one after the other."
                .to_owned(),
            BUSY_RETRY,
        )),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(&e)),
    }
}

/// Writes a piece behind what counts.
fn append(mut file: std::fs::File, offset: u64, content: &[u8]) -> Result<std::fs::File, ApiError> {
    let there = file.metadata().map_err(|e| failed(&e))?.len();
    if there < offset {
        return Err(ApiError::Conflict(
            "What came before is not here any more; begin this upload again.".to_owned(),
        ));
    }
    // What a piece that broke off has left does not count.
    file.set_len(offset)
        .and_then(|()| file.seek(SeekFrom::Start(offset)))
        .and_then(|_| file.write_all(content))
        .and_then(|()| file.sync_data())
        .map_err(|e| failed(&e))?;
    Ok(file)
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; READ]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// Deletes what is left of uploads that were given up.
async fn sweep(region: &Arc<Region>) -> Result<(), ApiError> {
    let mut tx = region.db.read().await?;
    let live: BTreeSet<String> = all(&mut tx)
        .await?
        .iter()
        .map(|u| u.id.to_string())
        .collect();
    drop(tx);
    let directory = directory(region);
    tokio::task::spawn_blocking(move || {
        let entries = match std::fs::read_dir(&directory) {
            Ok(e) => e,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let gone = entry.file_name().to_str().is_none_or(|n| !live.contains(n));
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            // A file that is locked belongs to a piece that is being taken right now.
            if gone
                && age > SWEEP_AGE
                && std::fs::File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok())
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    })
    .await
    .map_err(|e| ApiError::bug(&e.to_string()))?
    .map_err(|e| failed(&e))
}
