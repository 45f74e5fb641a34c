//! `operations`: what was begun with machines over this face, to be watched and cancelled.
//!
//! A row is written in the transaction that begins it. It ends in the transaction that moves its machine to
//! a status that decides it ([`moved`], called by the life cycle), or, for power, with the job.

use std::time::Duration;

use api::{Operation as Shown, OperationState};
use metal::operation::{Kind as Long, Outcome};
use metal::status::Status;
use store::Tx;

use crate::answer::Answer;
use crate::auth::{Action, Actor, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::lifecycle::{self, Cause};
use crate::node::{NodeRow, row};
use crate::operation::{Face, Kind, Method, Operation, Param};
use crate::power;
use crate::v1::{json, page};

/// Longest wait of one request.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// Operations kept at most; the oldest that are over go first.
pub const MAX_KEPT: i64 = 100_000;

/// `operations`, `operations/{id}`, `operations/{id}/actions/cancel`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        face: Face::V1,
        uri: "operations",
        title: "List what was begun with machines, newest last.",
        params: &[
            Param::opt(
                "state",
                Kind::Choice(&["running", "succeeded", "failed", "cancelled"]),
                "Only those that stand so.",
            ),
            Param::opt("system_id", Kind::Text, "Only those of this machine."),
            page::LIMIT,
            page::CURSOR,
        ],
        run: |c| Box::pin(list(c)),
        ..Operation::READ
    },
    Operation {
        face: Face::V1,
        uri: "operations/{id}",
        title: "Read how far an operation has come; with `wait`, when it has ended or the time is over.",
        params: &[Param::opt(
            "wait",
            Kind::Int,
            "Wait up to this many seconds, at most 60, for its end.",
        )],
        run: |c| Box::pin(read(c)),
        ..Operation::READ
    },
    Operation {
        face: Face::V1,
        uri: "operations/{id}/actions/cancel",
        method: Method::Post,
        title: "Cancel an operation: what it began is aborted.",
        audit: Some("NODE"),
        run: |c| Box::pin(cancel(c)),
        ..Operation::READ
    },
];

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    kind: String,
    system_id: String,
    username: String,
    state: String,
    reason: String,
    started: i64,
    ended: Option<i64>,
    message: Option<String>,
    job_state: Option<String>,
    job_reason: Option<String>,
    job_updated: Option<i64>,
}

/// Columns and joins of [`Row`], with who may see it; `$1` is the user, `$2` whether an administrator.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT o.id, o.kind, o.system_id, o.username, o.state, o.reason, o.started, o.ended, n.status_message AS message, ",
            "j.state AS job_state, j.reason AS job_reason, j.updated AS job_updated ",
            "FROM operation o LEFT JOIN node n ON n.id = o.node_id LEFT JOIN job j ON j.id = o.job_id ",
            "WHERE (o.user_id = $1 OR $2) ",
            $rest
        )
    };
}

impl Row {
    fn shown(self) -> Shown {
        let stored = match self.state.as_str() {
            "succeeded" => OperationState::Succeeded,
            "failed" => OperationState::Failed,
            "cancelled" => OperationState::Cancelled,
            _ => OperationState::Running,
        };
        let (state, reason, ended) = match (stored, self.job_state.as_deref()) {
            (OperationState::Running, Some("done")) => (
                OperationState::Succeeded,
                self.job_reason.unwrap_or_default(),
                self.job_updated,
            ),
            (OperationState::Running, Some("failed")) => (
                OperationState::Failed,
                self.job_reason.unwrap_or_default(),
                self.job_updated,
            ),
            (OperationState::Running, Some("cancelled")) => (
                OperationState::Cancelled,
                self.job_reason.unwrap_or_default(),
                self.job_updated,
            ),
            (OperationState::Running, Some(_)) => (
                OperationState::Running,
                self.job_reason.unwrap_or_default(),
                None,
            ),
            (OperationState::Running, None) => (
                OperationState::Running,
                self.message.unwrap_or_default(),
                None,
            ),
            (other, _) => (other, self.reason, self.ended),
        };
        Shown {
            id: self.id,
            kind: self.kind,
            system_id: self.system_id,
            by: self.username,
            state,
            reason,
            started: self.started,
            ended,
        }
    }
}

/// Writes down that something was begun, in the transaction that begins it. Gives its number.
///
/// # Errors
/// When the database fails.
pub async fn begin(tx: &mut Tx, call: &Call, kind: Long) -> Result<i64, ApiError> {
    let node = row::machine(tx, call.actor(), call.path("system_id")).await?;
    let job = if kind.is_power() {
        store::opt!(
            tx,
            (i64,),
            "SELECT id FROM job WHERE kind = $1 AND subject = $2 ORDER BY id DESC LIMIT 1",
            power::KIND,
            &node.system_id
        )?
        .map(|(id,)| id)
    } else {
        None
    };
    // It may be over already: a machine without a BMC is released at once; power that cannot be switched
    // is nobody's job.
    let outcome = if kind.is_power() && job.is_none() {
        Outcome::Succeeded
    } else {
        kind.outcome(node.status()?)
    };
    let ended = (outcome != Outcome::Running).then_some(call.now().0);
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO operation (kind, node_id, system_id, user_id, username, job_id, state, started, ended) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
        kind.word(),
        node.id,
        &node.system_id,
        call.actor().user_id(),
        call.actor().name(),
        job,
        outcome.word(),
        call.now().0,
        ended
    )?;
    store::exec!(
        tx,
        "DELETE FROM operation WHERE id <= $1 AND state <> 'running'",
        id - MAX_KEPT
    )?;
    tx.changed("operation", id, 0, call.now()).await?;
    Ok(id)
}

/// A machine came into another status: ends the operations that it decides. Part of the life cycle's
/// transaction.
///
/// # Errors
/// When the database fails.
pub async fn moved(
    tx: &mut Tx,
    node: &NodeRow,
    to: Status,
    cause: Cause<'_>,
) -> Result<(), ApiError> {
    let open = store::all!(
        tx,
        (i64, String),
        "SELECT id, kind FROM operation WHERE node_id = $1 AND state = 'running' AND job_id IS NULL",
        node.id
    )?;
    for (id, kind) in open {
        let outcome = Long::from_word(&kind).map_or(Outcome::Cancelled, |k| k.outcome(to));
        if outcome == Outcome::Running {
            continue;
        }
        let reason = if cause.why.is_empty() {
            to.name()
        } else {
            cause.why
        };
        store::exec!(
            tx,
            "UPDATE operation SET state = $2, reason = $3, ended = $4 WHERE id = $1",
            id,
            outcome.word(),
            reason,
            cause.at.0
        )?;
        tx.changed("operation", id, 0, cause.at).await?;
    }
    Ok(())
}

/// One operation that the actor may see.
///
/// # Errors
/// 404 when there is none.
pub async fn by_id(tx: &mut Tx, actor: &Actor, id: i64) -> Result<Shown, ApiError> {
    store::opt!(
        tx,
        Row,
        select!("AND o.id = $3"),
        actor.user_id(),
        actor.is_admin(),
        id
    )?
    .map(Row::shown)
    .ok_or_else(|| ApiError::missing("Operation"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let (limit, after) = (page::limit(args)?, page::after(args)?);
    let mut tx = call.read().await?;
    // Whether a power command is over is in its job, so the state is looked at afterwards.
    let wanted = args.filled("state");
    let rows = store::all!(
        tx,
        Row,
        select!("AND o.id > $3 AND ($4 = '' OR o.system_id = $4) ORDER BY o.id LIMIT $5"),
        call.actor().user_id(),
        call.actor().is_admin(),
        after,
        args.filled("system_id").unwrap_or(""),
        i64::try_from(limit).unwrap_or(i64::MAX)
    )?;
    let full = rows.len() == limit;
    let next = rows.last().filter(|_| full).map(|r| page::cursor(r.id));
    let items: Vec<Shown> = rows
        .into_iter()
        .map(Row::shown)
        .filter(|o| wanted.is_none_or(|w| serde_json::to_value(o.state).is_ok_and(|s| s == w)))
        .collect();
    json(
        200,
        &api::Page {
            items,
            next,
            total: None,
        },
    )
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let id = call.path_id("id", "Operation")?;
    let wait = call.args().int("wait")?.unwrap_or(0);
    let wait = u64::try_from(wait)
        .map(Duration::from_secs)
        .map_err(|_| ApiError::field("wait", "Give seconds, 0 to 60."))?
        .min(MAX_WAIT);
    let until = tokio::time::Instant::now() + wait;
    loop {
        let mut tx = call.read().await?;
        let at = tx.feed_position().await?;
        let shown = by_id(&mut tx, call.actor(), id).await?;
        drop(tx);
        if shown.state != OperationState::Running || tokio::time::Instant::now() >= until {
            return json(200, &shown);
        }
        // Whatever happens to the machine or the operation is a reason to look again.
        let mut feed = call.region().db.feed_reader(at);
        let about = |o: &str| o == shown.system_id || o == id.to_string();
        let changed = async {
            loop {
                match feed.next().await {
                    Ok(rows) if !rows.iter().any(|c| about(&c.object)) => {}
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(until) => {}
            () = call.region().stop.cancelled() => return json(200, &shown),
        }
    }
}

async fn cancel(call: Call) -> Result<Answer, ApiError> {
    let id = call.path_id("id", "Operation")?;
    let shown = call
        .write(move |tx, call| {
            Box::pin(async move {
                let shown = by_id(tx, call.actor(), id).await?;
                if shown.state != OperationState::Running {
                    return Err(ApiError::Conflict(format!(
                        "Operation {id} is over already."
                    )));
                }
                let mut node = row::machine(tx, call.actor(), &shown.system_id).await?;
                authorize(
                    call.actor(),
                    Action::Edit,
                    Resource::Machine {
                        owner: node.owner_id,
                    },
                )?;
                if Long::from_word(&shown.kind).is_none_or(Long::is_power) {
                    return Err(ApiError::Conflict(
                        "A power command cannot be taken back; send the opposite one.".to_owned(),
                    ));
                }
                let cause = Cause {
                    by: call.actor().name(),
                    why: "cancelled",
                    at: call.now(),
                };
                lifecycle::abort(tx, &mut node, cause).await?;
                by_id(tx, call.actor(), id).await
            })
        })
        .await?;
    json(200, &shown)
}
