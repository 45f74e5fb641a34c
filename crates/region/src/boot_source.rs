//! `boot-sources`: where images come from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use store::Tx;
use wire_simplestreams::{KEYRING_MAX, Keyring};

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::image::fetch::{chain, directory, shown};
use crate::image::stream::{SourceRow, locate};
use crate::image::{maintain, sync};
use crate::node::view::time_json;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::select_boot_source;

/// Longest URL.
pub const URL_MAX: usize = 1_024;

const PARAMS: &[Param] = &[
    Param::opt(
        "url",
        Kind::Text,
        "Where it is: an http or https URL of its root or of an index, or a directory of the region's host.",
    ),
    Param::opt(
        "keyring_filename",
        Kind::Text,
        "File on the region's host with the keys that sign it.",
    ),
    Param::opt(
        "keyring_data",
        Kind::File,
        "Those keys themselves: a file, or text in base64 or ASCII armour.",
    ),
];

/// `boot-sources/` and `boot-sources/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "BootSourcesHandler",
        uri: "boot-sources/",
        who: Who::Admin,
        title: "List the sources of boot images.",
        run: |call| Box::pin(list(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourcesHandler",
        uri: "boot-sources/",
        method: Method::Post,
        who: Who::Admin,
        title: "Add a source of boot images; what it offers is read at once.",
        params: &[
            Param::field("url", PARAMS[0].kind, PARAMS[0].doc),
            PARAMS[1],
            PARAMS[2],
        ],
        success: 201,
        audit: Some("BOOT_SOURCE"),
        run: |call| Box::pin(create(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourceHandler",
        uri: "boot-sources/{id}/",
        who: Who::Admin,
        title: "Read a source of boot images.",
        run: |call| Box::pin(read(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourceHandler",
        uri: "boot-sources/{id}/",
        method: Method::Put,
        who: Who::Admin,
        title: "Change a source of boot images.",
        params: PARAMS,
        audit: Some("BOOT_SOURCE"),
        run: |call| Box::pin(update(call)),
        ..Operation::READ
    },
    Operation {
        handler: "BootSourceHandler",
        uri: "boot-sources/{id}/",
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a source of boot images with its selections; imported images stay.",
        success: 204,
        audit: Some("BOOT_SOURCE"),
        run: |call| Box::pin(delete(call)),
        ..Operation::READ
    },
];

fn json(row: &SourceRow) -> Value {
    json!({
        "id": row.id,
        "url": row.url,
        "keyring_filename": row.keyring_filename,
        "keyring_data": STANDARD.encode(row.keyring_data.as_deref().unwrap_or_default()),
        "created": time_json(Some(row.created)),
        "updated": time_json(Some(row.updated)),
        "resource_uri": format!("/MAAS/api/2.0/boot-sources/{}/", row.id),
    })
}

/// The source with that id.
///
/// # Errors
/// 404 when there is none.
pub async fn find(tx: &mut Tx, id: i64) -> Result<SourceRow, ApiError> {
    store::opt!(tx, SourceRow, select_boot_source!("WHERE id = $1"), id)?
        .ok_or_else(|| ApiError::missing("BootSource"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(tx, SourceRow, select_boot_source!("ORDER BY id"))?;
    Ok(Answer::json(rows.iter().map(json).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let id = call.path_id("id", "BootSource")?;
    let mut tx = call.read().await?;
    Ok(Answer::json(json(&find(&mut tx, id).await?)))
}

/// Checks an address.
fn check_url(url: &str) -> Result<String, ApiError> {
    let wrong = |m: &str| Err(ApiError::field("url", m));
    let url = url.trim();
    if url.len() > URL_MAX {
        return wrong(&format!("A URL may have at most {URL_MAX} bytes."));
    }
    if url.contains(|c: char| c.is_control() || c.is_whitespace()) && directory(url).is_none() {
        return wrong("Enter a valid URL.");
    }
    if let Some(path) = directory(url) {
        let plain = path
            .components()
            .all(|c| !matches!(c, std::path::Component::ParentDir));
        return if plain {
            Ok(url.to_owned())
        } else {
            wrong("Name the directory without '..'.")
        };
    }
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .unwrap_or("");
    if host.is_empty() || host.starts_with('/') || reqwest::Url::parse(url).is_err() {
        return wrong("Enter a valid URL: http, https, or a directory of the region's host.");
    }
    Ok(url.to_owned())
}

/// The keys given: none when the parameter was not given at all, empty to take them away.
fn keyring_data(call: &Call) -> Result<Option<Vec<u8>>, ApiError> {
    let Some(bytes) = call.args().bytes("keyring_data") else {
        return Ok(None);
    };
    let file = call.args().files().any(|(name, _)| name == "keyring_data");
    let text = std::str::from_utf8(&bytes).unwrap_or("").trim();
    let keys = if file || text.starts_with("-----BEGIN") {
        bytes.to_vec()
    } else {
        let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(packed).map_err(|_| {
            ApiError::field(
                "keyring_data",
                "Upload the keyring as a file, or give it in base64 or ASCII armour.",
            )
        })?
    };
    if keys.len() > KEYRING_MAX {
        return Err(ApiError::field(
            "keyring_data",
            format!("A keyring may have at most {KEYRING_MAX} bytes."),
        ));
    }
    if !keys.is_empty() {
        Keyring::from_bytes(&keys).map_err(|e| {
            ApiError::field(
                "keyring_data",
                format!("This keyring cannot be used: {}.", chain(&e)),
            )
        })?;
    }
    Ok(Some(keys))
}

/// What a source shall be: the request over what it was.
struct Wanted {
    url: String,
    keyring_filename: String,
    keyring_data: Vec<u8>,
}

impl Wanted {
    fn of(call: &Call, was: Option<&SourceRow>) -> Result<Self, ApiError> {
        let url = match call.args().filled("url") {
            Some(url) => check_url(url)?,
            None => was
                .map(|w| w.url.clone())
                .ok_or_else(|| ApiError::field("url", "This field is required."))?,
        };
        let filename = call
            .args()
            .text("keyring_filename")
            .map(|f| f.trim().to_owned());
        let data = keyring_data(call)?;
        let given = |f: &Option<String>| f.as_ref().is_some_and(|f| !f.is_empty());
        let has_data = data.as_ref().is_some_and(|d| !d.is_empty());
        if given(&filename) && has_data {
            return Err(ApiError::field(
                "keyring_filename",
                "Give either keyring_filename or keyring_data, not both.",
            ));
        }
        // The one that is given replaces the other.
        let keyring_filename = match &filename {
            Some(f) => f.clone(),
            None if has_data => String::new(),
            None => was.map(|w| w.keyring_filename.clone()).unwrap_or_default(),
        };
        let keyring_data = match data {
            Some(d) => d,
            None if given(&filename) => Vec::new(),
            None => was.and_then(|w| w.keyring_data.clone()).unwrap_or_default(),
        };
        if !keyring_filename.is_empty() && !keyring_filename.starts_with('/') {
            return Err(ApiError::field(
                "keyring_filename",
                "Name the file with its whole path.",
            ));
        }
        let signed = !keyring_filename.is_empty() || !keyring_data.is_empty();
        locate(&url, signed).map_err(|e| {
            let field = match e {
                crate::image::stream::SourceError::Unsigned => "keyring_filename",
                _ => "url",
            };
            let mut text = chain(&e);
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            ApiError::field(field, format!("{text}."))
        })?;
        Ok(Self {
            url,
            keyring_filename,
            keyring_data,
        })
    }
}

async fn unique(tx: &mut Tx, url: &str, id: i64) -> Result<(), ApiError> {
    let (others,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM boot_source WHERE url = $1 AND id <> $2",
        url,
        id
    )?;
    if others == 0 {
        Ok(())
    } else {
        Err(ApiError::field(
            "url",
            format!(
                "There is a boot source with the URL {} already.",
                shown(url)
            ),
        ))
    }
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let row = call
        .write(|tx, call| {
            Box::pin(async move {
                let w = Wanted::of(&call, None)?;
                unique(tx, &w.url, -1).await?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO boot_source (url, keyring_filename, keyring_data, created, updated) \
                     VALUES ($1, $2, $3, $4, $4) RETURNING id",
                    &w.url,
                    &w.keyring_filename,
                    (!w.keyring_data.is_empty()).then_some(w.keyring_data),
                    call.now().0
                )?;
                maintain::configured(tx, call.now()).await?;
                sync::request_read(tx).await?;
                tx.changed("boot_source", id, 0, call.now()).await?;
                find(tx, id).await
            })
        })
        .await?;
    Ok(Answer::json(json(&row)).status(201))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let row = call
        .write(|tx, call| {
            Box::pin(async move {
                let was = find(tx, call.path_id("id", "BootSource")?).await?;
                let w = Wanted::of(&call, Some(&was))?;
                unique(tx, &w.url, was.id).await?;
                if w.url != was.url {
                    // What it offered was of another place.
                    store::exec!(
                        tx,
                        "DELETE FROM boot_source_cache WHERE boot_source_id = $1",
                        was.id
                    )?;
                    store::exec!(
                        tx,
                        "UPDATE boot_source SET synced = NULL WHERE id = $1",
                        was.id
                    )?;
                }
                // Later than before even within one microsecond: it tells versions of the row apart.
                let updated = call.now().0.max(was.updated + 1);
                store::exec!(
                    tx,
                    "UPDATE boot_source SET url = $2, keyring_filename = $3, keyring_data = $4, last_error = '', updated = $5 \
                     WHERE id = $1",
                    was.id,
                    &w.url,
                    &w.keyring_filename,
                    (!w.keyring_data.is_empty()).then_some(w.keyring_data),
                    updated
                )?;
                sync::request_read(tx).await?;
                tx.changed("boot_source", was.id, 0, call.now()).await?;
                find(tx, was.id).await
            })
        })
        .await?;
    Ok(Answer::json(json(&row)))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, call.path_id("id", "BootSource")?).await?;
            store::exec!(tx, "DELETE FROM boot_source WHERE id = $1", row.id)?;
            maintain::configured(tx, call.now()).await?;
            // An import that runs shall not go on from what is gone.
            tx.poke_job(crate::image::SYNC_KIND, sync::IMPORT).await?;
            tx.changed("boot_source", row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
