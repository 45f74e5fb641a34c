//! Commands of the region: executed side by side, each attempt of a job once, its result delivered.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use link::message::{Command, CommandResult, Order, Outcome};
use link::port::{LinkError, Region};
use metal::SystemId;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Tasks;
use crate::power::Power;

/// Jobs whose attempts are remembered; the oldest that are done are forgotten first.
pub const MAX_REMEMBERED_COMMANDS: usize = 65_536;
/// Commands that are executed at the same time; further ones wait.
const MAX_RUNNING: usize = 1_024;
/// First wait after a result could not be delivered; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest wait between attempts to deliver.
const MAX_RETRY: Duration = Duration::from_secs(10);

/// Who can look for foreign DHCP servers.
#[async_trait]
pub trait DhcpProbe: Send + Sync + 'static {
    /// Looks for foreign DHCP servers on a VLAN now.
    ///
    /// # Errors
    /// Why it cannot be done, in words.
    async fn probe(&self, vlan_id: i64) -> Result<Vec<IpAddr>, String>;
}

/// Executes commands. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    inner: Arc<Inner>,
}

struct Inner {
    region: Arc<dyn Region>,
    power: Power,
    probe: Option<Arc<dyn DhcpProbe>>,
    rack: watch::Sender<Option<SystemId>>,
    jobs: Mutex<Jobs>,
    running: Semaphore,
    tasks: Tasks,
    cancel: CancellationToken,
}

#[derive(Default)]
struct Jobs {
    /// The highest attempt of each job.
    highest: HashMap<i64, Attempt>,
    /// Jobs in the order in which they were first seen.
    order: VecDeque<i64>,
}

struct Attempt {
    number: i64,
    /// Stops it when a newer attempt comes.
    superseded: CancellationToken,
    /// Its result, once there is one: the region may have missed it.
    outcome: Option<Outcome>,
}

impl Commands {
    /// Orders for power go to `power`, searches for DHCP servers to `probe`; results go to `region`.
    pub(crate) fn new(
        region: Arc<dyn Region>,
        power: Power,
        probe: Option<Arc<dyn DhcpProbe>>,
        tasks: Tasks,
        cancel: CancellationToken,
    ) -> Self {
        let inner = Inner {
            region,
            power,
            probe,
            rack: watch::channel(None).0,
            jobs: Mutex::default(),
            running: Semaphore::new(MAX_RUNNING),
            tasks,
            cancel,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Results can be delivered from now on.
    pub(crate) fn link_up(&self, rack: SystemId) {
        self.inner.rack.send_replace(Some(rack));
    }

    /// Begins a command, unless it is old or running already. Returns at once.
    pub(crate) fn execute(&self, command: Command) {
        let (id, attempt) = (command.id, command.attempt);
        let superseded = self.inner.cancel.child_token();
        {
            let mut jobs = self
                .inner
                .jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match jobs.highest.get_mut(&id) {
                Some(known) if attempt < known.number => {
                    let message = format!(
                        "attempt {attempt} is old: attempt {} is known",
                        known.number
                    );
                    drop(jobs);
                    return self.deliver(CommandResult {
                        id,
                        attempt,
                        outcome: Outcome::Refused { message },
                    });
                }
                Some(known) if attempt == known.number => {
                    let outcome = known.outcome.clone();
                    drop(jobs);
                    if let Some(outcome) = outcome {
                        self.deliver(CommandResult {
                            id,
                            attempt,
                            outcome,
                        });
                    }
                    return;
                }
                Some(known) => {
                    known.superseded.cancel();
                    *known = Attempt {
                        number: attempt,
                        superseded: superseded.clone(),
                        outcome: None,
                    };
                }
                None => {
                    jobs.make_room();
                    jobs.order.push_back(id);
                    jobs.highest.insert(
                        id,
                        Attempt {
                            number: attempt,
                            superseded: superseded.clone(),
                            outcome: None,
                        },
                    );
                }
            }
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = this.carry_out(&command.order) => outcome,
                // A newer attempt answers for the job; with the rack stopping, the region starts another.
                () = superseded.cancelled() => return,
            };
            {
                let mut jobs = this
                    .inner
                    .jobs
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = jobs.highest.get_mut(&id).filter(|k| k.number == attempt) {
                    known.outcome = Some(outcome.clone());
                }
            }
            this.deliver(CommandResult {
                id,
                attempt,
                outcome,
            });
        });
    }

    async fn carry_out(&self, order: &Order) -> Outcome {
        let Ok(_place) = self.inner.running.acquire().await else {
            return Outcome::Refused {
                message: "the rack is stopping".into(),
            };
        };
        match order {
            Order::Power(order) => self.inner.power.execute(order).await,
            Order::ProbeDhcp { vlan_id } => {
                let Some(probe) = &self.inner.probe else {
                    return Outcome::Refused {
                        message: "DHCP is off on this rack".into(),
                    };
                };
                match probe.probe(*vlan_id).await {
                    Ok(servers) => Outcome::Dhcp { servers },
                    Err(message) => Outcome::Refused { message },
                }
            }
        }
    }

    /// Delivers a result, however long the region is away.
    fn deliver(&self, result: CommandResult) {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = this.deliver_now(result) => {}
                () = this.inner.cancel.cancelled() => {}
            }
        });
    }

    async fn deliver_now(&self, result: CommandResult) {
        let mut rack = self.inner.rack.subscribe();
        let mut wait = FIRST_RETRY;
        loop {
            let id = match rack.wait_for(Option::is_some).await {
                Ok(id) => id.clone(),
                Err(_) => return,
            };
            let Some(id) = id else { continue };
            match self.inner.region.complete(&id, result.clone()).await {
                Ok(()) => return,
                Err(error @ (LinkError::Invalid(_) | LinkError::NoBlob(_))) => {
                    tracing::error!(job = result.id, attempt = result.attempt, %error, "the region refused a result");
                    return;
                }
                Err(error) => {
                    tracing::debug!(job = result.id, attempt = result.attempt, %error, "a result was not delivered")
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY);
        }
    }
}

impl Jobs {
    /// Forgets the oldest job that is done, when there are too many.
    fn make_room(&mut self) {
        if self.highest.len() < MAX_REMEMBERED_COMMANDS {
            return;
        }
        let done = self
            .order
            .iter()
            .position(|id| self.highest.get(id).is_none_or(|a| a.outcome.is_some()));
        // With every one of them running, the oldest is given up.
        if let Some(id) = self.order.remove(done.unwrap_or(0))
            && let Some(attempt) = self.highest.remove(&id)
        {
            attempt.superseded.cancel();
        }
    }
}
