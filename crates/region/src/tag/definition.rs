//! Definitions of tags: XPath expressions over what commissioning found, asked of every machine as durable
//! work, and of one machine when it has been commissioned again.

use std::collections::HashMap;
use std::sync::Arc;

use metal::Timestamp;
use metal::xpath::Expression;
use store::job::{Attempt, Job, NewJob, WhenActive};
use store::{StoreError, Tx};

use super::probe;
use crate::error::ApiError;
use crate::node::row;
use crate::region::Region;

/// Kind of the jobs of this module.
pub const KIND: &str = "tag";
/// The scripts whose outputs definitions are asked of.
pub const SCRIPTS: [&str; 2] = ["maas-lshw", "maas-capture-lldpd"];
/// Machines asked between two transactions.
const PAGE: i64 = 50;

/// Whether a definition can be used.
///
/// # Errors
/// 400 with what is wrong with it.
pub fn check(definition: &str) -> Result<(), ApiError> {
    definition
        .parse::<Expression>()
        .map(drop)
        .map_err(|e| ApiError::field("definition", format!("Invalid XPath expression: {e}.")))
}

/// Lets a tag be asked of every machine.
///
/// # Errors
/// When the database fails.
pub async fn rebuild(tx: &mut Tx, tag: i64) -> Result<(), ApiError> {
    tx.enqueue_job(&NewJob {
        kind: KIND,
        subject: &format!("tag:{tag}"),
        when_active: WhenActive::Replace,
        ..NewJob::default()
    })
    .await?;
    Ok(())
}

/// Lets every tag be asked of one machine.
///
/// # Errors
/// When the database fails.
pub async fn renew(tx: &mut Tx, node: i64) -> Result<(), ApiError> {
    let (defined,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM tag WHERE definition <> ''"
    )?;
    if defined > 0 {
        tx.enqueue_job(&NewJob {
            kind: KIND,
            subject: &format!("node:{node}"),
            when_active: WhenActive::Replace,
            ..NewJob::default()
        })
        .await?;
    }
    Ok(())
}

fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// Does one of these jobs. It may be done again from the start.
///
/// # Errors
/// When the database fails.
pub async fn job(region: &Arc<Region>, job: &Job) -> Result<(), ApiError> {
    let fence = job.fence();
    let done = match job
        .subject
        .split_once(':')
        .map(|(w, n)| (w, n.parse::<i64>()))
    {
        Some(("tag", Ok(tag))) => every_machine(region, fence, tag).await,
        Some(("node", Ok(node))) => {
            let tags = definitions(region, None).await?;
            ask(region, fence, &tags, node - 1, Some(node))
                .await
                .map(drop)
        }
        _ => Ok(()),
    };
    let finished = match done {
        Ok(()) => {
            region
                .db
                .write(move |tx| {
                    Box::pin(async move { Ok::<(), ApiError>(tx.finish_job(fence).await?) })
                })
                .await
        }
        Err(e) => Err(e),
    };
    match finished {
        // The tag has another definition by now, or another region works on it.
        Err(ApiError::Store(StoreError::Fenced { .. })) => Ok(()),
        r => r,
    }
}

/// The tags that are defined, or one of them.
async fn definitions(
    region: &Region,
    only: Option<i64>,
) -> Result<Vec<(i64, Expression)>, ApiError> {
    let mut tx = region.db.read().await?;
    let rows = store::all!(
        tx,
        (i64, String, String),
        "SELECT id, name, definition FROM tag WHERE definition <> '' AND ($1 < 0 OR id = $1) ORDER BY id",
        only.unwrap_or(-1)
    )?;
    Ok(rows
        .into_iter()
        .filter_map(|(id, name, text)| match text.parse() {
            Ok(e) => Some((id, e)),
            Err(e) => {
                tracing::warn!(tag = name, error = %e, "a definition that was accepted can no longer be read");
                None
            }
        })
        .collect())
}

async fn every_machine(region: &Arc<Region>, fence: Attempt, tag: i64) -> Result<(), ApiError> {
    let tags = definitions(region, Some(tag)).await?;
    if tags.is_empty() {
        return Ok(());
    }
    let mut after = -1;
    while let Some(last) = ask(region, fence, &tags, after, None).await? {
        after = last;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Found {
    id: i64,
    script_name: Option<String>,
    stdout: Option<Vec<u8>>,
}

/// Asks tags of the machines behind an id, or of one: the id of the last one asked, none when there were
/// none.
async fn ask(
    region: &Arc<Region>,
    fence: Attempt,
    tags: &[(i64, Expression)],
    after: i64,
    only: Option<i64>,
) -> Result<Option<i64>, ApiError> {
    let mut tx = region.db.read().await?;
    let found = store::all!(
        tx,
        Found,
        "SELECT n.id, r.script_name, r.stdout FROM (SELECT id, current_commissioning_set_id FROM node \
         WHERE node_type <> 1 AND id > $1 AND ($2 < 0 OR id = $2) ORDER BY id LIMIT $3) n \
         LEFT JOIN script_result r ON r.script_set_id = n.current_commissioning_set_id AND r.status = 2 AND r.script_name IN @texts($4) \
         ORDER BY n.id",
        after,
        only.unwrap_or(-1),
        PAGE,
        serde_json::to_string(&SCRIPTS).unwrap_or_default()
    )?;
    drop(tx);
    let Some(last) = found.last().map(|f| f.id) else {
        return Ok(None);
    };
    let expressions = tags.to_vec();
    // To read listings takes a processor's time.
    let verdicts = tokio::task::spawn_blocking(move || judge(&expressions, found))
        .await
        .map_err(|e| ApiError::bug(&e.to_string()))?;
    region
        .db
        .write(move |tx| {
            let verdicts = verdicts.clone();
            Box::pin(async move {
                tx.hold_job(fence).await?;
                for (node, tag, is) in verdicts {
                    let changed = if is {
                        store::exec!(
                            tx,
                            "INSERT INTO node_tag (node_id, tag_id) SELECT n.id, t.id FROM node n, tag t WHERE n.id = $1 AND t.id = $2 \
                             AND t.definition <> '' ON CONFLICT DO NOTHING",
                            node,
                            tag
                        )?
                    } else {
                        store::exec!(
                            tx,
                            "DELETE FROM node_tag WHERE node_id = $1 AND tag_id = $2",
                            node,
                            tag
                        )?
                    };
                    if changed > 0 {
                        row::touch(tx, node, now()).await?;
                    }
                }
                Ok::<(), ApiError>(())
            })
        })
        .await?;
    Ok(Some(last))
}

/// What a machine's scripts printed: `lshw` and LLDP.
type Listings = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Which tag is on which machine: (node, tag, whether).
fn judge(tags: &[(i64, Expression)], found: Vec<Found>) -> Vec<(i64, i64, bool)> {
    let mut listings: HashMap<i64, Listings> = HashMap::new();
    let mut order = Vec::new();
    for f in found {
        if order.last() != Some(&f.id) {
            order.push(f.id);
        }
        let entry = listings.entry(f.id).or_default();
        match f.script_name.as_deref() {
            Some("maas-lshw") => entry.0 = f.stdout,
            Some(_) => entry.1 = f.stdout,
            None => {}
        }
    }
    let mut out = Vec::new();
    for node in order {
        let (lshw, lldp) = listings.remove(&node).unwrap_or_default();
        let doc = probe::document(lshw.as_deref(), lldp.as_deref());
        for (tag, expression) in tags {
            let is = expression.is_true(&doc).unwrap_or_else(|e| {
                tracing::warn!(tag, node, error = %e, "a tag cannot be asked of a machine: it does not get it");
                false
            });
            out.push((node, *tag, is));
        }
    }
    out
}
