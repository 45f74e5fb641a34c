//! The watch over machines that take too long, and over the power of all.

use std::sync::Arc;
use std::time::Duration;

use metal::Timestamp;
use metal::status::Status;
use metal::verdict;

use crate::error::ApiError;
use crate::lifecycle::{self, Cause};
use crate::node::{NodeRow, row};
use crate::power;
use crate::region::Region;
use crate::{select_node, setting, worker};

/// How often the watch looks.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long a power state is good before it is asked for again.
pub const POWER_AGE: Duration = Duration::from_secs(300);
/// Power states asked for at a time.
pub const POWER_AT_ONCE: i64 = 64;

/// Looks again and again, until dropped.
pub async fn run(region: Arc<Region>) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Timestamp::from_system(std::time::SystemTime::now());
        if let Err(e) = overdue(&region, now).await {
            tracing::warn!(error = %e, cause = ?std::error::Error::source(&e), "overdue machines could not be looked at");
        }
        if let Err(e) = powers(&region, now).await {
            tracing::warn!(error = %e, cause = ?std::error::Error::source(&e), "power states could not be looked at");
        }
    }
}

/// Fails the machines whose time has run out, or whose heartbeat has stopped, with the last thing seen.
///
/// # Errors
/// When the database fails.
pub async fn overdue(region: &Arc<Region>, now: Timestamp) -> Result<(), ApiError> {
    let mut tx = region.db.read().await?;
    let limit = setting::node_timeout(&mut tx).await?;
    let late = store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.node_type = 0 AND n.status_expires IS NOT NULL AND n.status_expires < $1 ORDER BY n.status_expires"
        ),
        now.0
    )?;
    let silent = store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.node_type = 0 AND n.status IN (1, 21) AND n.status_expires IS NULL AND EXISTS \
             (SELECT 1 FROM script_set s WHERE s.id IN (n.current_commissioning_set_id, n.current_testing_set_id) AND s.last_ping IS NOT NULL) \
             AND NOT EXISTS (SELECT 1 FROM script_set s WHERE s.id IN (n.current_commissioning_set_id, n.current_testing_set_id) AND s.last_ping > $1)"
        ),
        now.minus(limit).0
    )?;
    drop(tx);
    for node in late {
        give_up(region, &node, limit, now).await?;
    }
    for node in silent {
        give_up(region, &node, limit, now).await?;
    }
    Ok(())
}

async fn give_up(
    region: &Arc<Region>,
    node: &NodeRow,
    limit: Duration,
    now: Timestamp,
) -> Result<(), ApiError> {
    let entries = match region.timeline.latest(&node.sid()).await {
        Ok(Some(boot)) => boot.entries,
        Ok(None) => Vec::new(),
        Err(e) => {
            tracing::warn!(error = %e, system_id = node.system_id, "the boot's timeline cannot be read");
            Vec::new()
        }
    };
    let began = Timestamp(node.status_since);
    let entries: Vec<_> = entries.into_iter().filter(|e| e.last >= began).collect();
    let verdict = verdict::judge(&entries, node.bios_boot_method.as_deref());
    let minutes = limit.as_secs_f64() / 60.0;
    let why = format!(
        "Node operation '{}' timed out after {minutes:.1} minutes. {verdict}",
        node.status()?.name()
    );
    let system_id = node.system_id.clone();
    region
        .db
        .write(move |tx| {
            let (system_id, why) = (system_id.clone(), why.clone());
            Box::pin(async move {
                let Some(mut node) = row::find(tx, &system_id).await? else {
                    return Ok(());
                };
                // It may have moved on since it was read.
                let still_late = node.status_expires.is_some_and(|t| t < now.0)
                    || (node.status_expires.is_none()
                        && matches!(node.status()?, Status::Commissioning | Status::Testing));
                if still_late {
                    lifecycle::fail(
                        tx,
                        &mut node,
                        Cause {
                            by: "",
                            why: &why,
                            at: now,
                        },
                    )
                    .await?;
                }
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// Asks for the power states that have become old, a bounded number at a time.
async fn powers(region: &Arc<Region>, now: Timestamp) -> Result<(), ApiError> {
    if region.hub.connected().is_empty() {
        return Ok(());
    }
    let mut tx = region.db.read().await?;
    let due = store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.node_type = 0 AND n.power_type NOT IN ('', 'manual') AND (n.power_state_updated IS NULL OR n.power_state_updated < \
             CASE WHEN n.status IN (12, 19) THEN $1 ELSE $2 END) \
             AND NOT EXISTS (SELECT 1 FROM job j WHERE j.kind = 'power' AND j.subject = n.system_id AND j.state IN ('waiting', 'running')) \
             ORDER BY n.power_state_updated LIMIT $3"
        ),
        now.minus(Duration::from_secs(5)).0,
        now.minus(POWER_AGE).0,
        POWER_AT_ONCE
    )?;
    drop(tx);
    for node in due {
        if !power::can_switch(&node) || !region.begin_query(&node.system_id) {
            continue;
        }
        let r = Arc::clone(region);
        region.tasks.spawn(async move {
            if let Err(e) = worker::query_power(&r, &node).await {
                tracing::debug!(error = %e, system_id = node.system_id, "a power state could not be asked for");
            }
            r.end_query(&node.system_id);
        });
    }
    Ok(())
}
