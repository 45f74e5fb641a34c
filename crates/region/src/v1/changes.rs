//! `changes`: the change feed as server-sent events (HTML Living Standard §9.2), from a position on.
//!
//! An event names an object, never its content; the reader reads the object again. Who was away gives the last
//! position it saw and misses nothing; a position that the feed no longer reaches gets 410, and then a
//! snapshot of what matters is to be read anew.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use api::Change as Shown;
use bytes::Bytes;
use store::feed::{Change, FeedReader, Position};
use store::{StoreError, Tx};
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::{Answer, Content};
use crate::auth::Actor;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Face, Kind, Operation, Param};
use crate::v1::json;

/// Streams at a time.
pub const MAX_STREAMS: usize = 1_000;
/// How often a stream with nothing to say shows that it is alive.
const ALIVE: Duration = Duration::from_secs(15);

/// `changes` and `changes/position`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        face: Face::V1,
        uri: "changes",
        title: "Follow what changes, as server-sent events.",
        params: &[
            Param::opt(
                "since",
                Kind::Text,
                "The position to go on from; the header Last-Event-ID does the same. From now on when left out.",
            ),
            Param::opt(
                "nouns",
                Kind::List,
                "Only changes of these nouns, for example `node`.",
            ),
        ],
        run: |c| Box::pin(stream(c)),
        ..Operation::READ
    },
    Operation {
        face: Face::V1,
        uri: "changes/position",
        title: "The position of now: read it before a snapshot, then follow from there.",
        run: |c| Box::pin(position(c)),
        ..Operation::READ
    },
];

fn text(p: Position) -> String {
    format!("{}.{}.{}", p.epoch, p.xact, p.seq)
}

fn parse(text: &str) -> Option<Position> {
    let mut parts = text.split('.').map(|p| p.parse::<i64>().ok());
    let p = Position {
        epoch: parts.next()??,
        xact: parts.next()??,
        seq: parts.next()??,
    };
    parts.next().is_none().then_some(p)
}

async fn position(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let at = tx.feed_position().await?;
    json(200, &serde_json::json!({ "position": text(at) }))
}

/// What the stream needs to go on.
struct Stream {
    call: Call,
    feed: FeedReader,
    nouns: HashSet<String>,
    first: VecDeque<Bytes>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

async fn stream(call: Call) -> Result<Answer, ApiError> {
    let permit = call
        .region()
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| {
            ApiError::Unavailable(format!("There are {MAX_STREAMS} streams already."), 10)
        })?;
    let given = call.args().filled("since").map(str::to_owned);
    let given = given.or_else(|| call.origin().last_event_id.clone());
    let mut tx = call.read().await?;
    let at = match given {
        None => tx.feed_position().await?,
        Some(g) => {
            parse(&g).ok_or_else(|| ApiError::field("since", "This is no position of the feed."))?
        }
    };
    match tx.changes_after(at).await {
        Ok(_) => {}
        Err(StoreError::StartAgain) => {
            return Err(ApiError::Gone(
                "The feed no longer reaches back to this position: read what you need anew, then follow from changes/position.".to_owned(),
            ));
        }
        Err(e) => return Err(e.into()),
    }
    drop(tx);
    let first = VecDeque::from([Bytes::from(format!(
        "event: position\nid: {0}\ndata: {{\"position\":\"{0}\"}}\n\n",
        text(at)
    ))]);
    let state = Stream {
        feed: call.region().db.feed_reader(at),
        nouns: call.args().list("nouns").into_iter().collect(),
        call,
        first,
        over: false,
        _permit: permit,
    };
    let body = futures::stream::unfold(state, |mut s| async move {
        let chunk = s.next().await?;
        Some((Ok(chunk), s))
    });
    Ok(Answer {
        status: 200,
        headers: vec![("Cache-Control", "no-store".to_owned())],
        content: Content::Stream(Box::pin(body), "text/event-stream", None),
    })
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.pop_front() {
            return Some(first);
        }
        if self.over {
            return None;
        }
        let stop = self.call.region().stop.clone();
        loop {
            let rows = tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(ALIVE) => return Some(Bytes::from_static(b": alive\n\n")),
                rows = self.feed.next() => rows,
            };
            match rows {
                Ok(rows) => match self.shown(rows).await {
                    Ok(chunk) if chunk.is_empty() => {}
                    Ok(chunk) => return Some(chunk),
                    Err(_) => return None,
                },
                Err(StoreError::StartAgain) => {
                    self.over = true;
                    return Some(Bytes::from_static(b"event: reset\ndata: {}\n\n"));
                }
                // The client comes again with its last position.
                Err(_) => return None,
            }
        }
    }

    async fn shown(&self, rows: Vec<Change>) -> Result<Bytes, ApiError> {
        let epoch = self.feed.position().epoch;
        let hidden = if self.call.actor().is_admin() {
            HashSet::new()
        } else {
            let mut tx = self.call.read().await?;
            hidden(&mut tx, self.call.actor(), &rows).await?
        };
        let mut out = String::new();
        for c in rows {
            if !(self.nouns.is_empty() || self.nouns.contains(&c.noun))
                || hidden.contains(&c.object) && c.noun == "node"
            {
                continue;
            }
            let position = text(c.position(epoch));
            let change = Shown {
                position: position.clone(),
                noun: c.noun,
                object: c.object,
                revision: c.revision,
                at: c.at,
            };
            let data = serde_json::to_string(&change).map_err(|e| ApiError::bug(&e.to_string()))?;
            out.push_str(&format!("event: change\nid: {position}\ndata: {data}\n\n"));
        }
        Ok(out.into())
    }
}

/// The nodes among these that somebody else owns. One that is gone is nobody's.
async fn hidden(tx: &mut Tx, actor: &Actor, rows: &[Change]) -> Result<HashSet<String>, ApiError> {
    let nodes: Vec<&str> = rows
        .iter()
        .filter(|c| c.noun == "node")
        .map(|c| c.object.as_str())
        .collect();
    if nodes.is_empty() {
        return Ok(HashSet::new());
    }
    let ids = serde_json::to_string(&nodes).unwrap_or_default();
    let rows = store::all!(
        tx,
        (String,),
        "SELECT system_id FROM node WHERE system_id IN @texts($1) AND owner_id IS NOT NULL AND owner_id <> $2",
        &ids,
        actor.user_id()
    )?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_back() {
        let p = Position {
            epoch: 5,
            xact: 7,
            seq: 11,
        };
        assert_eq!(parse(&text(p)), Some(p));
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "a.b.c",
            "1..2",
            "99999999999999999999.1.1",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
