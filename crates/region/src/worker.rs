//! Durable work: power commands and image imports, and the watch over machines that take too long.
//!
//! A region that was killed and starts again takes its own jobs back at once; those of another one are
//! taken over when their lease has run out.

use std::sync::Arc;
use std::time::Duration;

use link::message::{Command, Order, Outcome, PowerAction, PowerOrder, PowerState};
use metal::status::Status;
use metal::timeline::{Entry, PowerFaultClass, What};
use metal::{SystemId, Timestamp};
use rand::Rng as _;
use store::Tx;
use store::job::{Job, Overrun};

use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::lifecycle::{self, Cause};
use crate::node::{NodeRow, row};
use crate::power::{self, PowerJob};
use crate::rack_link::hub::CommandError;
use crate::region::Region;
use crate::tag::definition;
use crate::{detour, image, monitor};

/// How long a job belongs to a region before another may take it; renewed while it works.
pub const LEASE: Duration = Duration::from_secs(30);
/// Jobs worked at by one region at a time.
pub const MAX_AT_ONCE: usize = 256;
/// The file in the data directory with the number by which a region knows its own jobs again.
const INSTANCE_FILE: &str = "instance";
/// How long a question to a BMC may take.
pub const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// Starts the region's own work: jobs and the monitor.
pub fn start(region: &Arc<Region>) {
    let instance = instance(region);
    for kind in [power::KIND, image::SYNC_KIND, definition::KIND] {
        let (r, instance) = (Arc::clone(region), instance.clone());
        region.tasks.spawn(async move {
            let stop = r.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = async {
                    take_back(&r, kind, &instance).await;
                    work(r, kind, &instance).await;
                } => {}
            }
        });
    }
    let r = Arc::clone(region);
    region.tasks.spawn(async move {
        let stop = r.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = monitor::run(r) => {}
        }
    });
}

fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// The number of this data directory, the same in every run on it. A new one when it cannot be kept: then
/// a killed run's jobs wait for the end of their lease.
fn instance(region: &Region) -> String {
    let path = region.config.data_dir.join(INSTANCE_FILE);
    let is_number = |t: &String| t.len() == 32 && t.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(kept) = std::fs::read_to_string(&path).ok().filter(is_number) {
        return kept;
    }
    let fresh = format!("{:032x}", rand::rng().random::<u128>());
    let new = path.with_extension("new");
    if let Err(e) = std::fs::write(&new, &fresh).and_then(|()| std::fs::rename(&new, &path)) {
        tracing::warn!(path = %path.display(), error = %e, "the number of this data directory cannot be kept");
    }
    fresh
}

/// Ends the leases of jobs that an earlier run on this data directory held: it has ended, for it held the
/// directory.
async fn take_back(region: &Arc<Region>, kind: &'static str, instance: &str) {
    let part = format!(":{instance}:");
    let ended = region.db.write(move |tx| {
        let part = part.clone();
        Box::pin(async move { Ok::<_, ApiError>(tx.end_leases(kind, &part).await?) })
    });
    match ended.await {
        Ok(0) => {}
        Ok(jobs) => tracing::info!(kind, jobs, "jobs of an earlier run go on"),
        Err(e) => {
            tracing::warn!(kind, error = %e, "jobs of an earlier run wait for their lease to end")
        }
    }
}

async fn work(region: Arc<Region>, kind: &'static str, instance: &str) {
    let slots = Arc::new(tokio::sync::Semaphore::new(match kind {
        image::SYNC_KIND | definition::KIND => 1,
        _ => MAX_AT_ONCE,
    }));
    let owner = format!("{}:{instance}:{}", region.config.name, std::process::id());
    let mut claims = region.db.claims(&[kind], owner, LEASE);
    loop {
        // A region without a rack leaves power to those that have one.
        if kind == power::KIND && region.hub.connected().is_empty() {
            let arrived = region.hub.arrivals.notified();
            if region.hub.connected().is_empty() {
                tokio::time::timeout(Duration::from_secs(5), arrived)
                    .await
                    .ok();
                continue;
            }
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        if let Err(e) = claims.ready().await {
            tracing::warn!(error = %e, "jobs cannot be looked for; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        match claims.claim().await {
            Ok(Some(job)) => {
                let region = Arc::clone(&region);
                region.clone().tasks.spawn(async move {
                    let _slot = slot;
                    let stop = region.stop.clone();
                    tokio::select! {
                        // The lease runs out and another attempt follows.
                        () = stop.cancelled() => {}
                        () = run(&region, &job) => {}
                    }
                });
            }
            Ok(None) => {}
            Err(e) => {
                tracing::warn!(error = %e, "a job could not be claimed; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn run(region: &Arc<Region>, job: &Job) {
    let renew = async {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            if let Err(e) = region.db.renew_job(job.fence(), LEASE).await {
                tracing::info!(job = job.id, error = %e, "a job is no longer ours");
                return;
            }
        }
    };
    let result = tokio::select! {
        r = async {
            match job.kind.as_str() {
                power::KIND => power_job(region, job).await,
                definition::KIND => definition::job(region, job).await,
                _ => image::sync_job(region, job).await,
            }
        } => r,
        () = renew => return,
    };
    if let Err(e) = result {
        let cause = std::error::Error::source(&e).map(ToString::to_string);
        tracing::warn!(job = job.id, kind = job.kind, error = %e, ?cause, "an attempt at a job failed");
        let later = now().plus(Duration::from_secs(5));
        if let Err(e) = region.db.retry_job(job.fence(), later, e.to_string()).await {
            tracing::info!(job = job.id, error = %e, "the job is no longer ours");
        }
    }
}

/// The rack that shall talk to a machine's BMC: one that is connected here.
fn choose_rack(region: &Region) -> Option<SystemId> {
    region.hub.connected().into_iter().next()
}

async fn power_job(region: &Arc<Region>, job: &Job) -> Result<(), ApiError> {
    let asked: PowerJob = serde_json::from_value(job.payload.clone())
        .map_err(|_| ApiError::bug("a power job's payload cannot be read"))?;
    let mut tx = region.db.read().await?;
    let Some(node) = row::find(&mut tx, &job.subject).await? else {
        drop(tx);
        return finish(region, job, None).await;
    };
    let parameters = power::parameters(&mut tx, region, &node).await?;
    let action = again(&mut tx, job, &node, asked.action).await?;
    drop(tx);
    let outcome = if job.overrun == Some(Overrun::Deadline) {
        Outcome::Refused {
            message: "no rack controller carried the command out in time".to_owned(),
        }
    } else {
        let Some(rack) = choose_rack(region) else {
            region
                .db
                .wait_job(
                    job.fence(),
                    now().plus(Duration::from_secs(1)),
                    "waiting for a rack controller to connect",
                )
                .await?;
            return Ok(());
        };
        let order = PowerOrder {
            system_id: node.sid(),
            action,
            driver: node.power_type.clone(),
            parameters,
        };
        let command = Command {
            id: job.id,
            attempt: job.attempt,
            order: Order::Power(order),
        };
        match region.hub.command(&rack, command, power::LIMIT).await {
            Ok(o) => o,
            Err(CommandError::Timeout(d)) => Outcome::Refused {
                message: format!("the rack controller did not answer within {d:?}"),
            },
            Err(e) => {
                // Lost on the way: the same command again is harmless.
                region
                    .db
                    .retry_job(
                        job.fence(),
                        now().plus(Duration::from_secs(1)),
                        e.to_string(),
                    )
                    .await?;
                return Ok(());
            }
        }
    };
    settle(region, job, &node, asked.action, outcome).await
}

/// What a further attempt at a power command is to do. A machine that has booted since the command was given
/// was switched by an attempt whose outcome got lost: to switch it off now would interrupt its work.
async fn again(
    tx: &mut Tx,
    job: &Job,
    node: &NodeRow,
    asked: PowerAction,
) -> Result<PowerAction, ApiError> {
    let PowerAction::Cycle { pxe } = asked else {
        return Ok(asked);
    };
    if job.attempt <= 1 {
        return Ok(asked);
    }
    let (seen,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM node WHERE id = $1 AND boot_client_at > $2",
        node.id,
        job.created.0
    )?;
    Ok(if seen > 0 {
        PowerAction::On { pxe }
    } else {
        asked
    })
}

async fn finish(region: &Arc<Region>, job: &Job, _why: Option<String>) -> Result<(), ApiError> {
    let fence = job.fence();
    region
        .db
        .write(move |tx| Box::pin(async move { Ok::<(), ApiError>(tx.finish_job(fence).await?) }))
        .await
}

/// Writes what a power command came to, together with the end of its job.
async fn settle(
    region: &Arc<Region>,
    job: &Job,
    node: &NodeRow,
    action: PowerAction,
    outcome: Outcome,
) -> Result<(), ApiError> {
    let (fence, system_id, at) = (job.fence(), node.system_id.clone(), now());
    let failed = match &outcome {
        Outcome::PowerFault(f) => Some((f.class, f.message.clone())),
        Outcome::Refused { message } => Some((PowerFaultClass::Action, message.clone())),
        Outcome::Power { .. } | Outcome::Dhcp { .. } => None,
    };
    if let Some((class, message)) = &failed {
        // The rack records what it did; what never reached a rack is recorded here.
        if matches!(outcome, Outcome::Refused { .. }) {
            let fault = metal::timeline::PowerFault {
                class: *class,
                message: message.clone(),
            };
            let mut entry = Entry::new(
                at,
                What::Power {
                    command: word(action).to_owned(),
                    driver: node.power_type.clone(),
                    error: Some(fault),
                },
            );
            entry.system_id = Some(node.sid());
            crate::rack_link::report::timeline(region, vec![entry]).await;
        }
    }
    region
        .db
        .write(move |tx| {
            let (system_id, outcome, failed) = (system_id.clone(), outcome.clone(), failed.clone());
            Box::pin(async move {
                tx.hold_job(fence).await?;
                if let Some(mut node) = row::find(tx, &system_id).await? {
                    match (&outcome, failed) {
                        (_, Some((class, message))) => {
                            power_failed(tx, &mut node, action, class, &message, at).await?
                        }
                        (Outcome::Power { state }, None) => {
                            power_seen(tx, &mut node, *state, at).await?
                        }
                        _ => {}
                    }
                }
                tx.finish_job(fence).await?;
                Ok::<(), ApiError>(())
            })
        })
        .await
}

const fn word(action: PowerAction) -> &'static str {
    match action {
        PowerAction::On { .. } => "on",
        PowerAction::Off => "off",
        PowerAction::SoftOff => "soft off",
        PowerAction::Cycle { .. } => "cycle",
        PowerAction::Query => "query",
    }
}

/// The power state of a machine was seen; a release that waited for it ends.
///
/// # Errors
/// When the database fails.
pub async fn power_seen(
    tx: &mut Tx,
    node: &mut NodeRow,
    state: PowerState,
    at: Timestamp,
) -> Result<(), ApiError> {
    let changed = node.power_state != state.word();
    store::exec!(
        tx,
        "UPDATE node SET power_state = $2, power_state_updated = $3 WHERE id = $1",
        node.id,
        state.word(),
        at.0
    )?;
    node.power_state = state.word().to_owned();
    if changed {
        match state {
            PowerState::On => event::add(tx, Kind::PowerOn, Some(node.about()), "", "", at).await?,
            PowerState::Off => {
                event::add(tx, Kind::PowerOff, Some(node.about()), "", "", at).await?
            }
            PowerState::Unknown | PowerState::Error => {}
        }
        node.touch(tx, at).await?;
    }
    if state == PowerState::Off && node.status()? == Status::Releasing {
        lifecycle::finish_release(
            tx,
            node,
            Cause {
                by: "",
                why: "",
                at,
            },
        )
        .await?;
    }
    if matches!(state, PowerState::On | PowerState::Off) {
        let cause = Cause {
            by: "",
            why: "",
            at,
        };
        detour::power_seen(tx, node, state == PowerState::On, cause).await?;
    }
    Ok(())
}

async fn power_failed(
    tx: &mut Tx,
    node: &mut NodeRow,
    action: PowerAction,
    class: PowerFaultClass,
    message: &str,
    at: Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE node SET power_state = 'error', power_state_updated = $2 WHERE id = $1",
        node.id,
        at.0
    )?;
    node.power_state = "error".to_owned();
    let kind = match action {
        PowerAction::On { .. } => Kind::PowerOnFailed,
        PowerAction::Off | PowerAction::SoftOff => Kind::PowerOffFailed,
        PowerAction::Cycle { .. } => Kind::PowerCycleFailed,
        PowerAction::Query => Kind::PowerQueryFailed,
    };
    event::add(tx, kind, Some(node.about()), "", message, at).await?;
    node.touch(tx, at).await?;
    if action != PowerAction::Query {
        // What was to come after the power cannot come. It fails with the verdict on a boot of which only this is known.
        let fault = metal::timeline::PowerFault {
            class,
            message: message.to_owned(),
        };
        let entry = Entry::new(
            at,
            What::Power {
                command: word(action).to_owned(),
                driver: node.power_type.clone(),
                error: Some(fault),
            },
        );
        let why = metal::verdict::judge(&[entry], None).to_string();
        lifecycle::fail(
            tx,
            node,
            Cause {
                by: "",
                why: &why,
                at,
            },
        )
        .await?;
    }
    Ok(())
}

/// Asks a machine's BMC for its power state now, and keeps the answer.
///
/// # Errors
/// 503 when no rack is connected or none answers.
pub async fn query_power(region: &Arc<Region>, node: &NodeRow) -> Result<Outcome, ApiError> {
    let Some(rack) = choose_rack(region) else {
        return Err(ApiError::Unavailable(
            "No rack controller is connected that could ask the BMC.".to_owned(),
            10,
        ));
    };
    let mut tx = region.db.read().await?;
    let parameters = power::parameters(&mut tx, region, node).await?;
    drop(tx);
    let order = PowerOrder {
        system_id: node.sid(),
        action: PowerAction::Query,
        driver: node.power_type.clone(),
        parameters,
    };
    let command = Command {
        id: region.query_id(),
        attempt: 1,
        order: Order::Power(order),
    };
    let outcome = region
        .hub
        .command(&rack, command, QUERY_LIMIT)
        .await
        .map_err(|e| ApiError::Unavailable(format!("The BMC could not be asked: {e}."), 10))?;
    let (system_id, at, kept) = (node.system_id.clone(), now(), outcome.clone());
    region
        .db
        .write(move |tx| {
            let (system_id, outcome) = (system_id.clone(), kept.clone());
            Box::pin(async move {
                let Some(mut node) = row::find(tx, &system_id).await? else {
                    return Ok(());
                };
                match outcome {
                    Outcome::Power { state } => power_seen(tx, &mut node, state, at).await,
                    Outcome::PowerFault(f) => {
                        power_failed(tx, &mut node, PowerAction::Query, f.class, &f.message, at)
                            .await
                    }
                    Outcome::Dhcp { .. } | Outcome::Refused { .. } => Ok::<(), ApiError>(()),
                }
            })
        })
        .await?;
    Ok(outcome)
}
