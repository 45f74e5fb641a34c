//! Power orders: which driver, one command per BMC at a time, and whether the machine did it.
//!
//! A [`Power`] runs any number of orders; how many talk to a BMC at once is bounded, and two orders for one
//! BMC never overlap. After a switch the state is asked for on a schedule, and the switch repeated, until
//! the machine obeys or the schedule ends.

mod ipmi;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use link::message::{Outcome, Parameters, PowerAction, PowerOrder, PowerState};
use metal::timeline::{Entry, PowerFault, PowerFaultClass, What};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use wire_ipmi::client::{BootOnce, Goal, OffMode, Outcome as IpmiOutcome, Timing};
use wire_ipmi::command::BootDevice;

use self::ipmi::Bmc;
use crate::files::now;
use crate::shared::Shared;

/// BMCs that are spoken to at the same time, unless configured otherwise.
pub const DEFAULT_SESSIONS: usize = 256;
/// BMCs whose turn is remembered before forgotten ones are swept out.
const SWEEP_TURNS_AT: usize = 1_024;

/// How power orders are carried out.
#[derive(Clone, Debug)]
pub struct PowerConfig {
    /// BMCs that are spoken to at the same time; further orders wait.
    pub sessions: usize,
    /// Waits before each look at whether the machine obeyed. After every look but the first the switch is
    /// sent again when it did not.
    pub verify: Vec<Duration>,
    /// Waits and limits of one conversation with a BMC.
    pub timing: Timing,
}

impl Default for PowerConfig {
    /// A first look after a second, because most BMCs obey at once; then 4, 8, 16 and 32 seconds, which
    /// slow ones need.
    fn default() -> Self {
        Self {
            sessions: DEFAULT_SESSIONS,
            verify: [1, 4, 8, 16, 32].map(Duration::from_secs).to_vec(),
            timing: Timing::default(),
        }
    }
}

/// How often a switch that the BMC refuses is tried again.
const REFUSALS: usize = 3;

/// Carries out power orders. Cheap to clone.
#[derive(Clone)]
pub struct Power {
    inner: Arc<Inner>,
}

struct Inner {
    config: PowerConfig,
    shared: Shared,
    sessions: Semaphore,
    turns: Mutex<HashMap<SocketAddr, Weak<AsyncMutex<()>>>>,
}

impl Power {
    /// Orders are noted in the timeline through `shared`.
    #[must_use]
    pub fn new(config: PowerConfig, shared: Shared) -> Self {
        let sessions = Semaphore::new(config.sessions);
        Self {
            inner: Arc::new(Inner {
                config,
                shared,
                sessions,
                turns: Mutex::default(),
            }),
        }
    }

    /// Carries out an order. Cancel-safe: the BMC may or may not have switched; every order can be repeated.
    pub async fn execute(&self, order: &PowerOrder) -> Outcome {
        let result = match order.driver.as_str() {
            "manual" => Ok(PowerState::Unknown),
            "ipmi" => self.ipmi(order).await,
            other => Err(PowerFault {
                class: PowerFaultClass::Settings,
                message: format!("this rack has no power driver called {other}"),
            }),
        };
        // What a BMC took is noted when it took it: the machine may speak before it is seen to have obeyed.
        if order.driver != "ipmi" || result.is_err() {
            self.record(order, result.as_ref().err());
        }
        match result {
            Ok(state) => Outcome::Power { state },
            Err(fault) => Outcome::PowerFault(fault),
        }
    }

    /// A question that was answered changes nothing and is not worth an entry.
    fn record(&self, order: &PowerOrder, fault: Option<&PowerFault>) {
        let command = match order.action {
            PowerAction::On { .. } => "on",
            PowerAction::Off => "off",
            PowerAction::SoftOff => "soft-off",
            PowerAction::Cycle { .. } => "cycle",
            PowerAction::Query => "query",
        };
        if order.action != PowerAction::Query || fault.is_some() {
            let what = What::Power {
                command: command.into(),
                driver: order.driver.clone(),
                error: fault.cloned(),
            };
            self.note(order, what);
        }
    }

    fn note(&self, order: &PowerOrder, what: What) {
        self.inner.shared.note(Entry {
            system_id: Some(order.system_id.clone()),
            ..Entry::new(now(), what)
        });
    }

    async fn ipmi(&self, order: &PowerOrder) -> Result<PowerState, PowerFault> {
        let bmc = Bmc::new(&order.parameters, self.inner.config.timing)?;
        let address = bmc.resolve().await?;
        // First the turn, then the place: orders that wait for one slow BMC take no places from others.
        let turn = self.turn(address);
        let _turn = turn.lock().await;
        let _place = self
            .inner
            .sessions
            .acquire()
            .await
            .map_err(|_| stopping())?;

        let boot = |pxe: bool| {
            pxe.then_some(BootOnce {
                device: BootDevice::Pxe,
                boot_type: bmc.boot_type,
            })
        };
        let (goal, wanted) = match order.action {
            PowerAction::Query => (Goal::Status, None),
            PowerAction::On { pxe } => (Goal::On { boot: boot(pxe) }, Some(PowerState::On)),
            PowerAction::Cycle { pxe } => (Goal::Cycle { boot: boot(pxe) }, Some(PowerState::On)),
            PowerAction::Off => (Goal::Off { mode: bmc.off_mode }, Some(PowerState::Off)),
            PowerAction::SoftOff => (
                Goal::Off {
                    mode: OffMode::Soft,
                },
                None,
            ),
        };
        let mut first = bmc.reach(address, goal).await;
        // A machine that is just going down by itself makes BMCs refuse the switch. Each conversation
        // looks at the state first, so the same goal again does what is still missing.
        for wait in self.inner.config.verify.iter().take(REFUSALS) {
            if wanted.is_none() || !matches!(&first, Err(f) if f.class == PowerFaultClass::Action) {
                break;
            }
            tokio::time::sleep(*wait).await;
            first = bmc.reach(address, goal).await;
        }
        let outcome = first?;
        self.record(order, None);
        self.note_warnings(order, &outcome);
        let before = outcome.status.map(|s| state_of(s.power));
        let Some(wanted) = wanted else {
            return before.ok_or_else(|| no_status(address));
        };
        if outcome.sent.is_none() && before == Some(wanted) {
            return Ok(wanted);
        }
        self.verify(&bmc, address, order, goal, wanted).await
    }

    /// Looks until the machine is in the wanted state, and repeats the switch.
    async fn verify(
        &self,
        bmc: &Bmc,
        address: SocketAddr,
        order: &PowerOrder,
        goal: Goal,
        wanted: PowerState,
    ) -> Result<PowerState, PowerFault> {
        // Repeating a cycle would interrupt the boot that it began: what is missing is "on".
        let again = match goal {
            Goal::Cycle { boot } => Goal::On { boot },
            other => other,
        };
        let asked_softly = matches!(
            goal,
            Goal::Off {
                mode: OffMode::Soft
            }
        );
        let mut last: Result<PowerState, PowerFault> = Err(no_status(address));
        for (i, wait) in self.inner.config.verify.iter().enumerate() {
            tokio::time::sleep(*wait).await;
            // `On` and `Off` look before they switch, so one conversation does both.
            let step = if i == 0 || asked_softly {
                Goal::Status
            } else {
                again
            };
            last = match bmc.reach(address, step).await {
                Ok(outcome) => outcome
                    .status
                    .map(|s| state_of(s.power))
                    .ok_or_else(|| no_status(address)),
                // The BMC said that it will never work; asking again would lock the user out.
                Err(fault)
                    if matches!(
                        fault.class,
                        PowerFaultClass::Auth | PowerFaultClass::Settings
                    ) =>
                {
                    return Err(fault);
                }
                Err(fault) => Err(fault),
            };
            if last.as_ref() == Ok(&wanted) {
                return Ok(wanted);
            }
        }
        match last {
            Err(fault) => Err(fault),
            Ok(state) => Err(PowerFault {
                class: PowerFaultClass::Action,
                message: format!(
                    "the BMC at {address} accepted the command for {}, but the machine is still {}",
                    order.system_id,
                    state.word()
                ),
            }),
        }
    }

    fn note_warnings(&self, order: &PowerOrder, outcome: &IpmiOutcome) {
        for text in outcome.warnings.iter().filter_map(ipmi::warning) {
            self.note(order, What::Note { text });
        }
    }

    fn turn(&self, address: SocketAddr) -> Arc<AsyncMutex<()>> {
        let mut turns = self
            .inner
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&address).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= SWEEP_TURNS_AT {
            turns.retain(|_, t| t.strong_count() > 0);
        }
        let turn = Arc::new(AsyncMutex::new(()));
        turns.insert(address, Arc::downgrade(&turn));
        turn
    }
}

const fn state_of(power: wire_ipmi::command::Power) -> PowerState {
    match power {
        wire_ipmi::command::Power::On => PowerState::On,
        wire_ipmi::command::Power::Off => PowerState::Off,
    }
}

fn no_status(address: SocketAddr) -> PowerFault {
    PowerFault {
        class: PowerFaultClass::Action,
        message: format!("the BMC at {address} gave no power state"),
    }
}

fn stopping() -> PowerFault {
    PowerFault {
        class: PowerFaultClass::Connection,
        message: "the rack is stopping".into(),
    }
}

/// A parameter as text: numbers as they are written.
fn text(parameters: &Parameters, key: &str) -> Option<String> {
    match parameters.0.get(key)? {
        serde_json::Value::String(s) => Some(s.trim().to_owned()).filter(|s| !s.is_empty()),
        serde_json::Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}
