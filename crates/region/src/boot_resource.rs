//! `boot-resources`: the images that are held, and their import.

use std::collections::{BTreeMap, HashMap};

use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use store::Tx;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::answer::{Answer, Content};
use crate::boot_upload::{self, UploadRow};
use crate::call::Call;
use crate::error::ApiError;
use crate::image::blob::{self, HASH_DIGITS};
use crate::image::held::{self, Extra, FileRow, LOADER, ResourceRow, SYNCED, SetRow, UPLOADED};
use crate::image::{publish, sync};
use crate::node::view::time_json;
use crate::operation::{Face, Kind, Method, Operation, Param, Who};

/// `boot-resources/`, `boot-resources/{id}/` and, for racks and machines, `/MAAS/boot-resources/{sha256}/…`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "BootResourcesHandler",
        uri: "boot-resources/",
        title: "List the images and boot loaders that are held.",
        params: &[Param::opt(
            "type",
            Kind::Choice(&["all", "synced", "uploaded"]),
            "Which: synced, uploaded, or all.",
        )],
        run: |call| Box::pin(list(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootResourcesHandler",
        uri: "boot-resources/",
        method: Method::Post,
        op: Some("import"),
        who: Who::Admin,
        title: "Import the selected images now.",
        audit: Some("BOOT_RESOURCE"),
        run: |call| Box::pin(import(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootResourcesHandler",
        uri: "boot-resources/",
        method: Method::Post,
        op: Some("stop_import"),
        who: Who::Admin,
        title: "Stop the import that runs; what was fetched stays.",
        audit: Some("BOOT_RESOURCE"),
        run: |call| Box::pin(stop_import(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootResourcesHandler",
        uri: "boot-resources/",
        op: Some("is_importing"),
        title: "Whether images are being imported.",
        run: |call| Box::pin(is_importing(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootResourceHandler",
        uri: "boot-resources/{id}/",
        title: "Read an image with its sets of files.",
        run: |call| Box::pin(read(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootResourceHandler",
        uri: "boot-resources/{id}/",
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete an image; the next import brings it again while it is selected.",
        success: 204,
        audit: Some("BOOT_RESOURCE"),
        run: |call| Box::pin(delete(call)),
        ..Operation::READ
    },
    Operation {
        face: Face::Web,
        uri: "boot-resources/{sha256}/",
        // What follows the hash is for people.
        also: &[
            "boot-resources/{sha256}",
            "boot-resources/{sha256}/{a}",
            "boot-resources/{sha256}/{a}/{b}",
            "boot-resources/{sha256}/{a}/{b}/{c}",
            "boot-resources/{sha256}/{a}/{b}/{c}/{d}",
            "boot-resources/{sha256}/{a}/{b}/{c}/{d}/{e}",
            "boot-resources/{sha256}/{a}/{b}/{c}/{d}/{e}/{f}",
        ],
        who: Who::Anyone,
        title: "Read content by its SHA-256.",
        run: |call| Box::pin(content(call)),
        ..Operation::READ
    },
];

/// The sets and files of all resources, and how far content is that is on its way.
#[derive(Default)]
struct Contents {
    sets: HashMap<i64, Vec<SetRow>>,
    files: HashMap<i64, Vec<FileRow>>,
    bytes: HashMap<String, i64>,
    uploads: Vec<UploadRow>,
}

impl Contents {
    async fn load(tx: &mut Tx) -> Result<Self, ApiError> {
        let mut out = Self::default();
        for s in held::sets(tx).await? {
            out.sets.entry(s.resource_id).or_default().push(s);
        }
        for f in held::files(tx).await? {
            out.files.entry(f.set_id).or_default().push(f);
        }
        out.bytes = store::all!(
            tx,
            (String, i64),
            "SELECT sha256, MAX(bytes) FROM blob GROUP BY sha256"
        )?
        .into_iter()
        .collect();
        out.uploads = boot_upload::all(tx).await?;
        Ok(out)
    }

    /// The sets of a resource, the newest first, one that is on its way among them.
    fn of(&self, resource: i64, extra: &Extra) -> Map<String, Value> {
        let mut all: BTreeMap<&str, Value> = BTreeMap::new();
        for s in self.sets.get(&resource).into_iter().flatten() {
            let files: Vec<&FileRow> = self
                .files
                .get(&s.id)
                .into_iter()
                .flatten()
                .filter(|f| f.filetype != LOADER)
                .collect();
            let listed: Map<String, Value> = files
                .iter()
                .map(|f| {
                    let value = json!({
                        "filename": f.filename,
                        "filetype": f.filetype,
                        "sha256": f.sha256,
                        "filename_on_disk": f.sha256,
                        "size": f.size,
                        "complete": true,
                    });
                    (f.filename.clone(), value)
                })
                .collect();
            let set = json!({
                "version": s.version,
                "label": s.label,
                "size": files.iter().map(|f| f.size).sum::<i64>(),
                "complete": true,
                "files": listed,
            });
            all.insert(&s.version, set);
        }
        if let Some(p) = &extra.pending {
            let here = |sha256: &str, size: i64| {
                self.bytes.get(sha256).copied().unwrap_or(0).clamp(0, size)
            };
            let (mut total, mut got) = (0, 0);
            let mut listed = Map::new();
            for f in &p.files {
                let bytes = here(&f.sha256, f.size);
                total += f.size;
                got += bytes;
                let mut file = json!({
                    "filename": f.filename,
                    "filetype": f.filetype,
                    "sha256": f.sha256,
                    "filename_on_disk": f.sha256,
                    "size": f.size,
                    "complete": bytes == f.size,
                });
                if bytes < f.size {
                    file["progress"] = percent(bytes, f.size).into();
                }
                listed.insert(f.filename.clone(), file);
            }
            let set = json!({
                "version": p.version,
                "label": p.label,
                "size": total,
                "complete": false,
                "progress": percent(got, total),
                "files": listed,
            });
            all.entry(&p.version).or_insert(set);
        }
        for u in self.uploads.iter().filter(|u| u.resource_id == resource) {
            all.entry(&u.version).or_insert_with(|| u.json());
        }
        all.into_iter()
            .rev()
            .map(|(version, set)| (version.to_owned(), set))
            .collect()
    }
}

/// How much of something there is, in percent.
#[allow(clippy::cast_precision_loss)] // a percentage
pub(crate) fn percent(part: i64, whole: i64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// Since when the machines that run a system have been running it, the latest of them, by
/// (system, release, architecture).
type Deployed = HashMap<(String, String, String), i64>;

async fn deployed(tx: &mut Tx) -> Result<Deployed, ApiError> {
    let rows = store::all!(
        tx,
        (String, String, Option<String>, i64),
        "SELECT osystem, distro_series, architecture, MAX(status_since) FROM node \
         WHERE node_type = 0 AND status = 6 GROUP BY osystem, distro_series, architecture"
    )?;
    let mut out = Deployed::new();
    for (os, series, architecture, since) in rows {
        let arch = held::split_architecture(&architecture.unwrap_or_default())
            .0
            .to_owned();
        let at = out.entry((os, series, arch)).or_insert(since);
        *at = since.max(*at);
    }
    Ok(out)
}

fn summary(row: &ResourceRow, extra: &Extra, deployed: &Deployed) -> Map<String, Value> {
    let (os, release) = held::split_name(&row.name);
    let arch = held::split_architecture(&row.architecture).0;
    let last = deployed.get(&(os.to_owned(), release.to_owned(), arch.to_owned()));
    let mut out = Map::new();
    out.insert("id".to_owned(), row.id.into());
    out.insert(
        "type".to_owned(),
        if row.rtype == SYNCED {
            "Synced".into()
        } else {
            "Uploaded".into()
        },
    );
    out.insert("name".to_owned(), row.name.clone().into());
    out.insert("architecture".to_owned(), row.architecture.clone().into());
    out.insert(
        "resource_uri".to_owned(),
        format!("/MAAS/api/2.0/boot-resources/{}/", row.id).into(),
    );
    out.insert("last_deployed".to_owned(), time_json(last.copied()));
    if !row.base_image.is_empty() {
        out.insert("base_image".to_owned(), row.base_image.clone().into());
    }
    if let Ok(Value::Object(kept)) = serde_json::to_value(extra) {
        for (name, value) in kept {
            if name != "pending" && value != "" {
                out.entry(name).or_insert(value);
            }
        }
    }
    out
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        ResourceRow,
        "SELECT id, rtype, name, architecture, bootloader_type, base_image, extra FROM boot_resource ORDER BY id"
    )?;
    let deployed = deployed(&mut tx).await?;
    let only = match call.args().filled("type") {
        Some("synced") => Some(SYNCED),
        Some("uploaded") => Some(UPLOADED),
        _ => None,
    };
    Ok(Answer::json(
        rows.iter()
            .filter(|r| only.is_none_or(|o| r.rtype == o))
            .map(|r| Value::Object(summary(r, &Extra::parse(&r.extra), &deployed)))
            .collect(),
    ))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<ResourceRow, ApiError> {
    by_id(tx, call.path_id("id", "BootResource")?).await
}

async fn by_id(tx: &mut Tx, id: i64) -> Result<ResourceRow, ApiError> {
    store::opt!(
        tx,
        ResourceRow,
        "SELECT id, rtype, name, architecture, bootloader_type, base_image, extra FROM boot_resource WHERE id = $1",
        id
    )?
    .ok_or_else(|| ApiError::missing("BootResource"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(whole(&mut tx, &row).await?))
}

/// An image with its sets of files.
async fn whole(tx: &mut Tx, row: &ResourceRow) -> Result<Value, ApiError> {
    let extra = Extra::parse(&row.extra);
    let mut out = summary(row, &extra, &deployed(tx).await?);
    let sets = Contents::load(tx).await?.of(row.id, &extra);
    out.insert("sets".to_owned(), sets.into());
    Ok(out.into())
}

/// The image of an id with its sets of files.
///
/// # Errors
/// 404 when there is none.
pub(crate) async fn single(tx: &mut Tx, id: i64) -> Result<Value, ApiError> {
    let row = by_id(tx, id).await?;
    whole(tx, &row).await
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            publish::delete_resource(tx, row.id, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn import(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, _| Box::pin(async move { sync::request_import(tx).await }))
        .await?;
    Ok(Answer::text("Import of boot resources started"))
}

async fn stop_import(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move { sync::stop_import(tx, call.actor().name()).await })
    })
    .await?;
    Ok(Answer::text("Import of boot resources is being stopped"))
}

async fn is_importing(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(sync::is_importing(&mut tx).await?.into()))
}

/// Bytes read from disk at a time.
const CHUNK: usize = 128 << 10;

/// Images are public: whoever may boot a machine here can read them.
async fn content(call: Call) -> Result<Answer, ApiError> {
    let sha256 = call.path("sha256").to_ascii_lowercase();
    if sha256.len() != HASH_DIGITS {
        return Err(ApiError::NotFound(format!(
            "There is no content {}.",
            sha256.chars().take(HASH_DIGITS).collect::<String>()
        )));
    }
    if call.origin().rack.is_some() {
        // A rack has it itself, and would have to hold all of it in memory to pass it on.
        return Ok(Answer {
            status: 307,
            headers: vec![(
                "Location",
                format!("{}/images/{sha256}/", call.origin().base),
            )],
            content: Content::Empty,
        });
    }
    let etag = ("ETag", format!("\"{sha256}\""));
    let size = blob::open(call.region(), &sha256, 0).await?.size;
    let (status, from, to) = match call.origin().range.as_deref().map(|r| range(r, size)) {
        None | Some(Part::Whole) => (200, 0, size),
        Some(Part::Of(from, to)) => (206, from, to),
        Some(Part::Outside) => {
            return Ok(Answer {
                status: 416,
                headers: vec![("Content-Range", format!("bytes */{size}"))],
                content: Content::Empty,
            });
        }
    };
    let blob = blob::open(call.region(), &sha256, from).await?;
    let stream = ReaderStream::with_capacity(blob.reader.take(to - from), CHUNK).boxed();
    let mut answer = Answer {
        status,
        headers: vec![etag, ("Accept-Ranges", "bytes".to_owned())],
        content: Content::Stream(stream, "application/octet-stream", Some(to - from)),
    };
    if status == 206 {
        let last = to.saturating_sub(1);
        answer = answer.header("Content-Range", format!("bytes {from}-{last}/{size}"));
    }
    Ok(answer)
}

/// A part of some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All of it: also for headers that make no sense or ask for several parts (RFC 9110 §14.2).
    Whole,
    /// From the first to before the second.
    Of(u64, u64),
    /// Nothing that there is.
    Outside,
}

/// Reads a `Range` header (RFC 9110 §14.1.2).
fn range(header: &str, size: u64) -> Part {
    let Some((first, last)) = header
        .trim()
        .strip_prefix("bytes=")
        .filter(|r| !r.contains(','))
        .and_then(|r| r.split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(from), "") if from < size => Part::Of(from, size),
        (Ok(_), "") => Part::Outside,
        (Ok(from), last) => match last.parse::<u64>() {
            Ok(to) if to < from => Part::Whole,
            Ok(_) if from >= size => Part::Outside,
            Ok(to) => Part::Of(from, to.saturating_add(1).min(size)),
            Err(_) => Part::Whole,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<u64>() {
            Ok(0) => Part::Outside,
            Ok(_) if size == 0 => Part::Outside,
            Ok(n) => Part::Of(size.saturating_sub(n), size),
            Err(_) => Part::Whole,
        },
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (header, part) in [
            ("bytes=0-", Part::Of(0, 10)),
            ("bytes=3-5", Part::Of(3, 6)),
            ("bytes=3-99", Part::Of(3, 10)),
            ("bytes=-4", Part::Of(6, 10)),
            ("bytes=-99", Part::Of(0, 10)),
            ("bytes=10-", Part::Outside),
            ("bytes=10-12", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=5-3", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=0-18446744073709551615", Part::Of(0, 10)),
        ] {
            assert_eq!(range(header, 10), part, "{header}");
        }
    }
}
