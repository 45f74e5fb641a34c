//! `boot-resources create … content@=FILE`: the file is announced with its size and hash, then sent in pieces.

use std::io::{Read as _, Seek as _};

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::Method;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::api::{Answer, Api, Body, Request};
use super::arguments::{Arguments, Value};
use super::describe::{Action, Resource};
use super::request;
use crate::out;

/// Bytes of a piece, as the MAAS client sends them.
const PIECE: usize = 4 << 20;
/// Bytes read at a time for the hash.
const BLOCK: usize = 1 << 20;

/// Whether these arguments are such an upload.
#[must_use]
pub fn applies(resource: &Resource, action: &Action, arguments: &Arguments) -> bool {
    resource.name == "boot-resources" && action.name == "create" && arguments.big.is_some()
}

/// Uploads, and gives the answer to the announcement, or to the piece that was refused.
///
/// # Errors
/// When the file cannot be read or the server does not say where to send it.
pub async fn run(
    api: &Api,
    resource: &Resource,
    action: &Action,
    mut arguments: Arguments,
) -> anyhow::Result<Answer> {
    let path = arguments.big.take().context("content@= names no file")?;
    let mut file =
        std::fs::File::open(&path).with_context(|| format!("content@={path} cannot be read"))?;
    let (size, sha256) =
        measure(&mut file).with_context(|| format!("content@={path} cannot be read"))?;
    arguments
        .data
        .push(("size".to_owned(), Value::Text(size.to_string())));
    arguments
        .data
        .push(("sha256".to_owned(), Value::Text(sha256)));
    let announced = api
        .send(request::build(resource, action, &arguments))
        .await?;
    if !announced.is_success() {
        return Ok(announced);
    }
    let Some(target) = destination(&announced.json()?)? else {
        return Ok(announced);
    };
    let target = announced
        .url
        .join(&target)
        .context("the server named no place to send the file to")?;
    file.rewind()
        .with_context(|| format!("content@={path} cannot be read"))?;
    let mut sent = 0;
    while sent < size {
        let mut piece = Vec::with_capacity(PIECE);
        let n = file
            .by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .context("the file cannot be read")?;
        if n == 0 {
            anyhow::bail!("{path} became shorter while it was sent");
        }
        let body = Body::Raw(Bytes::from(piece));
        let answer = api
            .send(Request {
                method: Method::PUT,
                target: target.to_string(),
                body,
            })
            .await?;
        if answer.status != 200 {
            return Ok(answer);
        }
        sent += n as u64;
        if out::is_terminal() {
            out::complain(&format!("{sent} of {size} bytes"));
        }
    }
    Ok(announced)
}

/// Size and SHA-256 of a file.
fn measure(file: &mut std::fs::File) -> std::io::Result<(u64, String)> {
    let (mut size, mut hash) = (0, Sha256::new());
    let mut block = vec![0; BLOCK];
    loop {
        let n = file.read(&mut block)?;
        if n == 0 {
            return Ok((size, hex::encode(hash.finalize())));
        }
        hash.update(&block[..n]);
        size += n as u64;
    }
}

/// Where the file is wanted: the one file of the newest set. `None` when the server has it already.
fn destination(announced: &Json) -> anyhow::Result<Option<String>> {
    let sets = announced["sets"]
        .as_object()
        .context("the answer names no sets")?;
    let newest = sets
        .iter()
        .max_by_key(|(version, _)| version.as_str())
        .context("the answer names no sets")?
        .1;
    let files = newest["files"]
        .as_object()
        .context("the newest set names no files")?;
    let mut files = files.values();
    let (Some(file), None) = (files.next(), files.next()) else {
        anyhow::bail!("the newest set does not have exactly one file");
    };
    if file["complete"] == true {
        return Ok(None);
    }
    Ok(Some(
        file["upload_uri"]
            .as_str()
            .context("the answer names no upload_uri")?
            .to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_file_of_the_newest_set_is_sent_unless_it_is_there() {
        let file = |complete| json!({"files": {"root.tgz": {"complete": complete, "upload_uri": "/u/2/"}}});
        let old = json!({"files": {"root.tgz": {"complete": false, "upload_uri": "/u/1/"}}});
        let answer = |complete| json!({"sets": {"20260102": file(complete), "20260101": old}});
        assert_eq!(
            destination(&answer(false)).unwrap().as_deref(),
            Some("/u/2/")
        );
        assert_eq!(destination(&answer(true)).unwrap(), None);
        assert!(destination(&json!({"sets": {"1": {"files": {"a": {}, "b": {}}}}})).is_err());
        assert!(destination(&json!({"sets": {}})).is_err());
    }

    #[test]
    fn size_and_hash_are_those_of_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"abc").unwrap();
        file.rewind().unwrap();
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(measure(&mut file).unwrap(), (3, sha256.to_owned()));
    }
}
