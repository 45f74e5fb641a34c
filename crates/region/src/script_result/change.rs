//! Results that are set aside or deleted, and their archive.

use serde_json::Value;

use super::{Outputs, ResultRow, Wanted, set_id, sets};
use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::row;

/// Names and contents of the files of a download, in their order.
pub(super) type Files = Vec<(String, Vec<u8>)>;

/// Sets results aside, or takes them into account again.
pub(super) async fn update(call: Call) -> Result<Answer, ApiError> {
    let suppressed = call.args().bool("suppressed")?;
    let with_output = call.args().bool("include_output")?.unwrap_or(false);
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let mut wanted = Wanted::of(&call)?;
                let node =
                    row::by_system_id(tx, call.actor(), call.path("system_id")).await?;
                let set = set_id(&node, call.path("id"))?;
                wanted.set = Some(set);
                let before = sets(tx, &node, &wanted, false).await?;
                let shown = before
                    .first()
                    .ok_or_else(|| ApiError::missing("ScriptSet"))?;
                if let Some(aside) = suppressed {
                    let ids: Vec<&Value> = shown["results"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|r| &r["id"])
                        .collect();
                    store::exec!(
                        tx,
                        "UPDATE script_result SET suppressed = $2, updated = $3 WHERE id IN @ids($1)",
                        serde_json::to_string(&ids).unwrap_or_default(),
                        aside,
                        call.now().0
                    )?;
                    node.touch(tx, call.now()).await?;
                }
                sets(tx, &node, &wanted, with_output)
                    .await?
                    .pop()
                    .ok_or_else(|| ApiError::missing("ScriptSet"))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Deletes a set; a node whose current one it was has none then.
pub(super) async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let node = row::by_system_id(tx, call.actor(), call.path("system_id")).await?;
            let set = set_id(&node, call.path("id"))?;
            let gone = store::exec!(
                tx,
                "DELETE FROM script_set WHERE id = $1 AND node_id = $2",
                set,
                node.id
            )?;
            if gone == 0 {
                return Err(ApiError::missing("ScriptSet"));
            }
            store::exec!(
                tx,
                "UPDATE node SET \
                 current_commissioning_set_id = CASE WHEN current_commissioning_set_id = $2 THEN NULL ELSE current_commissioning_set_id END, \
                 current_testing_set_id = CASE WHEN current_testing_set_id = $2 THEN NULL ELSE current_testing_set_id END, \
                 current_installation_set_id = CASE WHEN current_installation_set_id = $2 THEN NULL ELSE current_installation_set_id END, \
                 current_release_set_id = CASE WHEN current_release_set_id = $2 THEN NULL ELSE current_release_set_id END WHERE id = $1",
                node.id,
                set
            )?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

/// The files of results: what each script printed, by the kind of output that is asked for.
pub(super) fn files(which: &str, results: &[ResultRow], all: &[Outputs]) -> Files {
    let mut out = Files::new();
    for r in results {
        let Some(o) = all.iter().find(|o| o.id == r.id) else {
            continue;
        };
        let parts: Vec<(&str, &Option<Vec<u8>>)> = match which {
            "stdout" => vec![(".out", &o.stdout)],
            "stderr" => vec![(".err", &o.stderr)],
            "result" => vec![(".yaml", &o.result)],
            "all" => vec![
                ("", &o.output),
                (".out", &o.stdout),
                (".err", &o.stderr),
                (".yaml", &o.result),
            ],
            _ => vec![("", &o.output)],
        };
        for (tail, content) in parts {
            let content = content.clone().unwrap_or_default();
            out.push((format!("{}{tail}", r.script_name), content));
        }
    }
    out
}

/// The files as one text, with a heading before each where there are several.
pub(super) fn text(files: &Files) -> Vec<u8> {
    if let [(_, only)] = files.as_slice() {
        return only.clone();
    }
    let mut text = Vec::new();
    for (name, content) in files.iter().filter(|(_, c)| !c.is_empty()) {
        text.extend_from_slice(format!("==> {name} <==\n").as_bytes());
        text.extend_from_slice(content);
        if !content.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    text
}

/// The files as a compressed archive with one directory. Names that come twice get a number.
pub(super) fn archive(directory: &str, files: &Files, mtime: u64) -> std::io::Result<Vec<u8>> {
    let options = lzma_rust2::XzOptions::with_preset(6);
    let mut tar = tar::Builder::new(lzma_rust2::XzWriter::new(Vec::new(), options)?);
    let mut seen: Vec<String> = Vec::new();
    for (name, content) in files {
        // A name may be the path of a log.
        let flat = name.trim_start_matches('/').replace('/', "-");
        let mut unique = flat.clone();
        let mut n = 1;
        while seen.contains(&unique) {
            n += 1;
            unique = format!("{flat}-{n}");
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(mtime);
        tar.append_data(
            &mut header,
            format!("{directory}/{unique}"),
            content.as_slice(),
        )?;
        seen.push(unique);
    }
    tar.into_inner()?.finish()
}
