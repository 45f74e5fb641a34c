//! `files`: what clients put here to have it again, or to hand out by a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};

const FILES: Operation = Operation {
    handler: "FilesHandler",
    uri: "files/",
    ..Operation::READ
};
const FILE: Operation = Operation {
    handler: "FileHandler",
    uri: "files/{filename}/",
    // A name may have slashes.
    also: &[
        "files/{filename}/{b}/",
        "files/{filename}/{b}/{c}/",
        "files/{filename}/{b}/{c}/{d}/",
        "files/{filename}/{b}/{c}/{d}/{e}/",
        "files/{filename}/{b}/{c}/{d}/{e}/{f}/",
    ],
    ..Operation::READ
};
const FILENAME: Param = Param::must("filename", Kind::Text, "The file's name.");
const BY_KEY: Operation = Operation {
    op: Some("get_by_key"),
    title: "The content of whoever's file, by its key.",
    params: &[Param::must("key", Kind::Text, "The file's key.")],
    run: |c| Box::pin(get_by_key(c)),
    ..FILES
};

/// `files/` and `files/{filename}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the caller's files.",
        params: &[Param::opt(
            "prefix",
            Kind::Text,
            "Only files whose names begin with this.",
        )],
        run: |c| Box::pin(list(c)),
        ..FILES
    },
    Operation {
        method: Method::Post,
        title: "Keep a file; one of the same name is replaced.",
        params: &[
            FILENAME,
            Param::opt("file", Kind::File, "Its content, required."),
        ],
        success: 201,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(create(c)),
        ..FILES
    },
    Operation {
        method: Method::Delete,
        title: "Delete a file of the caller's.",
        params: &[FILENAME],
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(delete(c)),
        ..FILES
    },
    Operation {
        op: Some("get"),
        title: "The content of a file of the caller's.",
        params: &[FILENAME],
        run: |c| Box::pin(get(c)),
        ..FILES
    },
    BY_KEY,
    Operation {
        handler: "AnonFilesHandler",
        who: Who::Anyone,
        ..BY_KEY
    },
    Operation {
        title: "Read a file of the caller's, with its content in base64.",
        run: |c| Box::pin(read(c)),
        ..FILE
    },
    Operation {
        method: Method::Delete,
        title: "Delete a file of the caller's.",
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(delete(c)),
        ..FILE
    },
];

/// Longest name.
const NAME_MAX: usize = 255;
/// Largest file.
pub const FILE_MAX: usize = 16 << 20;
/// Most files of one person.
pub const FILES_MAX: i64 = 1_000;
/// Content type of contents.
const OCTETS: &str = "application/octet-stream";

#[derive(sqlx::FromRow)]
struct Row {
    filename: String,
    key: String,
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Row {
    fn json(&self) -> Value {
        let path: Vec<String> = self.filename.split('/').map(escaped).collect();
        json!({
            "filename": self.filename,
            "anon_resource_uri": format!("/MAAS/api/2.0/files/?op=get_by_key&key={}", self.key),
            "resource_uri": format!("/MAAS/api/2.0/files/{}/", path.join("/")),
        })
    }
}

/// The name of the request: a parameter, or the path with all its parts.
fn name(call: &Call) -> String {
    if let Some(given) = call.args().filled("filename") {
        return given.to_owned();
    }
    let parts = ["filename", "b", "c", "d", "e", "f"].map(|p| call.path(p));
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    parts.join("/")
}

fn missing() -> ApiError {
    ApiError::missing("FileStorage")
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let prefix = call.args().text("prefix").unwrap_or("");
    let rows = store::all!(
        tx,
        Row,
        "SELECT filename, key FROM file WHERE user_id = $1 AND substr(filename, 1, CAST($2 AS INTEGER)) = $3 ORDER BY filename",
        call.actor().user()?.id,
        i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX),
        prefix
    )?;
    Ok(Answer::json(rows.iter().map(Row::json).collect()))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let user = call.actor().user()?.id;
    let filename = name(&call);
    if filename.is_empty() || filename.len() > NAME_MAX || filename.chars().any(char::is_control) {
        return Err(ApiError::Bad(format!(
            "A filename is one line of 1 to {NAME_MAX} bytes."
        )));
    }
    let files = call.args().files().count();
    if files > 1 {
        return Err(ApiError::Bad(
            "Exactly one file must be supplied".to_owned(),
        ));
    }
    let content = call
        .args()
        .bytes("file")
        .or_else(|| call.args().files().next().map(|(_, b)| b.clone()))
        .ok_or_else(|| ApiError::Bad("File not supplied".to_owned()))?;
    if content.len() > FILE_MAX {
        return Err(ApiError::TooLarge(format!(
            "A file has at most {FILE_MAX} bytes."
        )));
    }
    // Made outside of the transaction, which may run again.
    let key = uuid::Uuid::new_v4().to_string();
    let row = call
        .write(move |tx, call| {
            let (filename, content, key) = (filename.clone(), content.clone(), key.clone());
            Box::pin(async move {
                let (others,) = store::one!(
                    tx,
                    (i64,),
                    "SELECT COUNT(*) FROM file WHERE user_id = $1 AND filename <> $2",
                    user,
                    &filename
                )?;
                if others >= FILES_MAX {
                    return Err(ApiError::Conflict(format!(
                        "There are {others} files already; delete some first."
                    )));
                }
                Ok(store::one!(
                    tx,
                    Row,
                    "INSERT INTO file (user_id, filename, key, content, created, updated) VALUES ($1, $2, $3, $4, $5, $5) \
                     ON CONFLICT (user_id, filename) DO UPDATE SET content = excluded.content, updated = excluded.updated RETURNING filename, key",
                    user,
                    &filename,
                    &key,
                    &content[..],
                    call.now().0
                )?)
            })
        })
        .await?;
    Ok(Answer::json(row.json()).status(201))
}

async fn content(
    tx: &mut Tx,
    user: i64,
    filename: &str,
) -> Result<Option<(String, String, Vec<u8>)>, ApiError> {
    Ok(store::opt!(
        tx,
        (String, String, Vec<u8>),
        "SELECT filename, key, content FROM file WHERE user_id = $1 AND filename = $2",
        user,
        filename
    )?)
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (filename, key, content) = content(&mut tx, call.actor().user()?.id, &name(&call))
        .await?
        .ok_or_else(missing)?;
    let mut out = Row { filename, key }.json();
    out["content"] = STANDARD.encode(content).into();
    Ok(Answer::json(out))
}

async fn get(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (_, _, content) = content(&mut tx, call.actor().user()?.id, &name(&call))
        .await?
        .ok_or_else(missing)?;
    Ok(Answer::bytes(Bytes::from(content), OCTETS))
}

async fn get_by_key(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let (content,) = store::opt!(
        tx,
        (Vec<u8>,),
        "SELECT content FROM file WHERE key = $1",
        call.args().required("key")?
    )?
    .ok_or_else(missing)?;
    Ok(Answer::bytes(Bytes::from(content), OCTETS))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    let user = call.actor().user()?.id;
    call.write(move |tx, call| {
        Box::pin(async move {
            let gone = store::exec!(
                tx,
                "DELETE FROM file WHERE user_id = $1 AND filename = $2",
                user,
                name(&call)
            )?;
            if gone == 0 { Err(missing()) } else { Ok(()) }
        })
    })
    .await?;
    Ok(Answer::none())
}
