//! `boot-sources/{boot_source_id}/selections`: which of a source's images are imported.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::boot_source;
use crate::call::Call;
use crate::error::ApiError;
use crate::image::fetch::shown;
use crate::image::stream::SourceRow;
use crate::image::sync;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::subnet::texts;

/// Longest name of an operating system or release.
pub const NAME_MAX: usize = 64;
/// Stands for every value.
const ANY: &str = "*";

const PARAMS: &[Param] = &[
    Param::opt("os", Kind::Text, "Operating system, for example ubuntu."),
    Param::opt("release", Kind::Text, "Release, for example noble."),
    Param::opt(
        "arches",
        Kind::List,
        "Architectures, for example amd64; * for all.",
    ),
    Param::opt("subarches", Kind::List, "Subarches (kernels); * for all."),
    Param::opt(
        "labels",
        Kind::List,
        "Labels, for example stable; * for all.",
    ),
];

/// `boot-sources/{boot_source_id}/selections/` and `…/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "BootSourceSelectionsHandler",
        uri: "boot-sources/{boot_source_id}/selections/",
        who: Who::Admin,
        title: "List what is imported from a source.",
        run: |call| Box::pin(list(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourceSelectionsHandler",
        uri: "boot-sources/{boot_source_id}/selections/",
        method: Method::Post,
        who: Who::Admin,
        title: "Select images of a source for import.",
        params: PARAMS,
        audit: Some("BOOT_SOURCE_SELECTION"),
        run: |call| Box::pin(create(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourceSelectionHandler",
        uri: "boot-sources/{boot_source_id}/selections/{id}/",
        who: Who::Admin,
        title: "Read a selection.",
        run: |call| Box::pin(read(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourceSelectionHandler",
        uri: "boot-sources/{boot_source_id}/selections/{id}/",
        method: Method::Put,
        who: Who::Admin,
        title: "Change a selection.",
        params: PARAMS,
        audit: Some("BOOT_SOURCE_SELECTION"),
        run: |call| Box::pin(update(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourceSelectionHandler",
        uri: "boot-sources/{boot_source_id}/selections/{id}/",
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a selection; the next import removes its images.",
        success: 204,
        audit: Some("BOOT_SOURCE_SELECTION"),
        run: |call| Box::pin(delete(call)),
        ..Operation::READ
    },
];

#[derive(Clone, Debug, sqlx::FromRow)]
struct SelectionRow {
    id: i64,
    boot_source_id: i64,
    os: String,
    release: String,
    arches: String,
    subarches: String,
    labels: String,
}

impl SelectionRow {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "boot_source_id": self.boot_source_id,
            "os": self.os,
            "release": self.release,
            "arches": texts(&self.arches),
            "subarches": texts(&self.subarches),
            "labels": texts(&self.labels),
            "resource_uri": format!("/MAAS/api/2.0/boot-sources/{}/selections/{}/", self.boot_source_id, self.id),
        })
    }
}

async fn source(tx: &mut Tx, call: &Call) -> Result<SourceRow, ApiError> {
    boot_source::find(tx, call.path_id("boot_source_id", "BootSource")?).await
}

async fn find(tx: &mut Tx, call: &Call) -> Result<SelectionRow, ApiError> {
    let source = source(tx, call).await?;
    let id = call.path_id("id", "BootSourceSelection")?;
    store::opt!(
        tx,
        SelectionRow,
        "SELECT id, boot_source_id, os, release, arches, subarches, labels FROM boot_source_selection \
         WHERE boot_source_id = $1 AND id = $2",
        source.id,
        id
    )?
    .ok_or_else(|| ApiError::missing("BootSourceSelection"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let source = source(&mut tx, &call).await?;
    let rows = store::all!(
        tx,
        SelectionRow,
        "SELECT id, boot_source_id, os, release, arches, subarches, labels FROM boot_source_selection \
         WHERE boot_source_id = $1 ORDER BY id",
        source.id
    )?;
    Ok(Answer::json(rows.iter().map(SelectionRow::json).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(find(&mut tx, &call).await?.json()))
}

/// What a selection shall be: the request over what it was.
struct Wanted {
    os: String,
    release: String,
    arches: Vec<String>,
    subarches: Vec<String>,
    labels: Vec<String>,
}

impl Wanted {
    fn of(call: &Call, was: Option<&SelectionRow>) -> Result<Self, ApiError> {
        let name = |field: &str, was: Option<&String>| {
            let value = call
                .args()
                .filled(field)
                .map(|v| v.trim().to_owned())
                .or_else(|| was.cloned())
                .ok_or_else(|| ApiError::field(field, "This field is required."))?;
            if value.len() > NAME_MAX {
                return Err(ApiError::field(
                    field,
                    format!("This may have at most {NAME_MAX} characters."),
                ));
            }
            Ok(value)
        };
        let list = |field: &str, was: Option<&String>| {
            let mut given = call.args().list(field);
            if given.is_empty() {
                given = was.map_or_else(|| vec![ANY.to_owned()], |w| texts(w));
            }
            let mut seen = BTreeSet::new();
            given.retain(|v| seen.insert(v.clone()));
            given
        };
        Ok(Self {
            os: name("os", was.map(|w| &w.os))?,
            release: name("release", was.map(|w| &w.release))?,
            arches: list("arches", was.map(|w| &w.arches)),
            subarches: list("subarches", was.map(|w| &w.subarches)),
            labels: list("labels", was.map(|w| &w.labels)),
        })
    }

    /// Checks it against what the source offers.
    async fn check(&self, tx: &mut Tx, source: &SourceRow) -> Result<(), ApiError> {
        if source.synced.is_none() {
            let why = if source.last_error.is_empty() {
                "try again in a moment".to_owned()
            } else {
                source.last_error.clone()
            };
            return Err(ApiError::field(
                "os",
                format!(
                    "What {} offers has not been read yet: {why}.",
                    shown(&source.url)
                ),
            ));
        }
        let offered: Vec<(String, String, String, String, Value)> = store::all!(
            tx,
            (String, String, String, String, String),
            "SELECT os, release, arch, label, product FROM boot_source_cache WHERE boot_source_id = $1 ORDER BY id",
            source.id
        )?
        .into_iter()
        .map(|(os, release, arch, label, product)| {
            let product = serde_json::from_str(&product).unwrap_or_default();
            (os, release, arch, label, product)
        })
        // Boot loaders come with the architectures.
        .filter(|o: &(_, _, _, _, Value)| o.4["kind"] != "bootloader")
        .collect();
        let same: Vec<_> = offered
            .iter()
            .filter(|o| o.0 == self.os && o.1 == self.release)
            .collect();
        if same.is_empty() {
            let (field, what) = if offered.iter().any(|o| o.0 == self.os) {
                ("release", format!("{} {}", self.os, self.release))
            } else {
                ("os", self.os.clone())
            };
            let known: BTreeSet<String> =
                offered.iter().map(|o| format!("{}/{}", o.0, o.1)).collect();
            let known = if known.is_empty() {
                "nothing".to_owned()
            } else {
                known.into_iter().collect::<Vec<_>>().join(", ")
            };
            return Err(ApiError::field(
                field,
                format!(
                    "{} has no images of {what}. It offers: {known}.",
                    shown(&source.url)
                ),
            ));
        }
        let arches: BTreeSet<&str> = same.iter().map(|o| o.2.as_str()).collect();
        let labels: BTreeSet<&str> = same.iter().map(|o| o.3.as_str()).collect();
        let subarches: BTreeSet<&str> = same
            .iter()
            .flat_map(|o| o.4["subarches"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        let mut wrong = Vec::new();
        for (field, wanted, offered) in [
            ("arches", &self.arches, arches),
            ("subarches", &self.subarches, subarches),
            ("labels", &self.labels, labels),
        ] {
            let messages: Vec<String> = wanted
                .iter()
                .filter(|w| *w != ANY && !offered.contains(w.as_str()))
                .map(|w| {
                    format!(
                        "No images of {} {} are offered for '{w}'; there are: {}.",
                        self.os,
                        self.release,
                        offered.iter().copied().collect::<Vec<_>>().join(", ")
                    )
                })
                .collect();
            if !messages.is_empty() {
                wrong.push((field.to_owned(), messages));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Fields(wrong))
        }
    }

    async fn unique(&self, tx: &mut Tx, source: i64, id: i64) -> Result<(), ApiError> {
        let (others,) = store::one!(
            tx,
            (i64,),
            "SELECT COUNT(*) FROM boot_source_selection WHERE boot_source_id = $1 AND os = $2 AND release = $3 AND id <> $4",
            source,
            &self.os,
            &self.release,
            id
        )?;
        if others == 0 {
            Ok(())
        } else {
            Err(ApiError::field(
                "__all__",
                format!(
                    "There is a selection of {} {} at this source already.",
                    self.os, self.release
                ),
            ))
        }
    }
}

fn list_text(list: &[String]) -> String {
    json!(list).to_string()
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let row = call
        .write(|tx, call| {
            Box::pin(async move {
                let source = source(tx, &call).await?;
                let w = Wanted::of(&call, None)?;
                w.check(tx, &source).await?;
                w.unique(tx, source.id, -1).await?;
                let row = store::one!(
                    tx,
                    SelectionRow,
                    "INSERT INTO boot_source_selection (boot_source_id, os, release, arches, subarches, labels) \
                     VALUES ($1, $2, $3, $4, $5, $6) RETURNING id, boot_source_id, os, release, arches, subarches, labels",
                    source.id,
                    &w.os,
                    &w.release,
                    list_text(&w.arches),
                    list_text(&w.subarches),
                    list_text(&w.labels)
                )?;
                sync::request_import(tx).await?;
                Ok(row)
            })
        })
        .await?;
    Ok(Answer::json(row.json()))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let row = call
        .write(|tx, call| {
            Box::pin(async move {
                let was = find(tx, &call).await?;
                let source = source(tx, &call).await?;
                let w = Wanted::of(&call, Some(&was))?;
                w.check(tx, &source).await?;
                w.unique(tx, source.id, was.id).await?;
                let row = store::one!(
                    tx,
                    SelectionRow,
                    "UPDATE boot_source_selection SET os = $2, release = $3, arches = $4, subarches = $5, labels = $6 \
                     WHERE id = $1 RETURNING id, boot_source_id, os, release, arches, subarches, labels",
                    was.id,
                    &w.os,
                    &w.release,
                    list_text(&w.arches),
                    list_text(&w.subarches),
                    list_text(&w.labels)
                )?;
                sync::request_import(tx).await?;
                Ok(row)
            })
        })
        .await?;
    Ok(Answer::json(row.json()))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            store::exec!(
                tx,
                "DELETE FROM boot_source_selection WHERE id = $1",
                row.id
            )?;
            // An import that runs shall not go on with what is no longer wanted.
            tx.poke_job(crate::image::SYNC_KIND, sync::IMPORT).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
