//! A running fleet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bmc::FakeBmc;
use crate::config::{FleetConfig, MACHINES_MAX, Network};
use crate::fault::{BmcFault, Fault};
use crate::hardware::{Firmware, Hardware};
use crate::machine::{Machine, Shared};
use crate::net::Medium;
use crate::state::{Counters, Counting, Phase, State};
use crate::wire::Wire;

/// Why a fleet does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Too many machines.
    #[error("a fleet has at most {MACHINES_MAX} machines, not {0}")]
    TooMany(usize),
    /// A BMC's port cannot be had.
    #[error("BMC {index} cannot listen")]
    Bmc {
        /// Whose.
        index: usize,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The interface cannot be used.
    #[error("the interface {interface} cannot be used for simulated machines")]
    Interface {
        /// Its name.
        interface: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// A machine did not get where it was waited for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("machine {index} is {:?} ({}) after {limit:?}", state.phase, state.detail)]
pub struct WaitError {
    /// Which.
    pub index: usize,
    /// How long it was waited for.
    pub limit: Duration,
    /// Where it is.
    pub state: Box<State>,
}

/// A running fleet. Dropping it stops it without waiting.
pub struct Fleet {
    machines: Vec<Arc<Machine>>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("machines", &self.machines.len())
            .finish_non_exhaustive()
    }
}

impl Fleet {
    /// Makes the machines; their BMCs answer, and all are switched off. Runs until [`Self::stop`].
    /// With [`Network::Raw`] it belongs to the network namespace of the calling thread, and so must every
    /// thread of the runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: FleetConfig) -> Result<Self, StartError> {
        if config.count > MACHINES_MAX {
            return Err(StartError::TooMany(config.count));
        }
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let medium = match &config.network {
            Network::LoopbackHttp { rack, first } => Medium::Loopback {
                rack: *rack,
                first: *first,
            },
            Network::Raw { interface } => {
                let wire = Wire::open(interface).map_err(|cause| StartError::Interface {
                    interface: interface.clone(),
                    cause,
                })?;
                tasks.spawn(Arc::clone(&wire).run(cancel.clone()));
                Medium::Cable(wire)
            }
        };
        let shared = Arc::new(Shared {
            medium,
            counting: Arc::new(Counting::default()),
            config,
        });
        let config = &shared.config;
        let mut machines = Vec::with_capacity(config.count);
        for index in 0..config.count {
            let turn = index
                .checked_rem(config.firmware.len())
                .and_then(|n| config.firmware.get(n));
            let hardware = Hardware::draw(
                config.seed,
                index,
                turn.copied().unwrap_or(Firmware::IpxeBios),
            );
            let bmc = FakeBmc::bind(&config.bmc, index, config.seed)
                .await
                .map_err(|cause| StartError::Bmc { index, cause })?;
            let machine = Arc::new(Machine::new(hardware, Arc::new(bmc), Arc::clone(&shared)));
            let told = Arc::clone(&machine);
            tasks.spawn(
                Arc::clone(&machine.bmc).run(cancel.clone(), move |control| told.told(control)),
            );
            tasks.spawn(Arc::clone(&machine).live(cancel.clone()));
            machines.push(machine);
        }
        tasks.close();
        Ok(Self {
            machines,
            shared,
            tasks,
            cancel,
        })
    }

    /// How many machines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    fn machine(&self, index: usize) -> &Arc<Machine> {
        &self.machines[index]
    }

    /// What a machine is made of.
    ///
    /// # Panics
    /// When there is no such machine; so do all that take an index.
    #[must_use]
    pub fn hardware(&self, index: usize) -> &Hardware {
        &self.machine(index).hardware
    }

    /// The number of the machine with that hardware address.
    #[must_use]
    pub fn with_mac(&self, mac: &str) -> Option<usize> {
        self.machines
            .iter()
            .position(|m| m.hardware.nics.iter().any(|n| n.mac.to_string() == mac))
    }

    /// A machine's BMC.
    #[must_use]
    pub fn bmc(&self, index: usize) -> &FakeBmc {
        &self.machine(index).bmc
    }

    /// The parameters of the `ipmi` power driver for a machine, as the API takes them.
    #[must_use]
    pub fn power_parameters(&self, index: usize) -> Value {
        let bmc = self.bmc(index);
        json!({
            "power_address": bmc.address().to_string(), "power_user": bmc.settings().user, "power_pass": bmc.settings().password,
            "power_driver": "LAN_2_0",
        })
    }

    /// A machine as it is now.
    #[must_use]
    pub fn state(&self, index: usize) -> State {
        self.machine(index).state().borrow().clone()
    }

    /// Presses the power button of a machine that is off.
    pub fn press(&self, index: usize) {
        self.machine(index).press();
    }

    /// Presses every button, one after the other with a pause between.
    pub async fn press_all(&self, pause: Duration) {
        for machine in &self.machines {
            machine.press();
            tokio::time::sleep(pause).await;
        }
    }

    /// Pulls a machine's plug; the BMC says off and goes on.
    pub fn pull(&self, index: usize) {
        self.machine(index).pull();
    }

    /// Empties a machine's disk.
    pub fn wipe(&self, index: usize) {
        self.machine(index).write_disk(None);
    }

    /// Gives a machine a fault, until [`Self::heal`].
    pub fn inject(&self, index: usize, fault: Fault) {
        self.machine(index).set_faults(|f| f.push(fault));
    }

    /// Gives a BMC a fault, until another one or [`Self::heal`].
    pub fn inject_bmc(&self, index: usize, fault: BmcFault) {
        self.bmc(index).set_fault(fault);
    }

    /// Takes a machine's and its BMC's faults away. A machine that is stuck stays so until its power changes.
    pub fn heal(&self, index: usize) {
        self.machine(index).set_faults(Vec::clear);
        self.bmc(index).set_fault(BmcFault::None);
    }

    /// Waits until a machine is as wanted.
    ///
    /// # Errors
    /// Where it is when the limit has passed. Cancel-safe: yes.
    pub async fn wait(
        &self,
        index: usize,
        limit: Duration,
        mut wanted: impl FnMut(&State) -> bool,
    ) -> Result<State, WaitError> {
        let mut state = self.machine(index).state();
        let seen = tokio::time::timeout(limit, state.wait_for(|s| wanted(s))).await;
        if let Ok(Ok(seen)) = seen {
            return Ok(seen.clone());
        }
        let state = Box::new(self.state(index));
        Err(WaitError {
            index,
            limit,
            state,
        })
    }

    /// Waits until a machine is in a phase.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn wait_phase(
        &self,
        index: usize,
        phase: Phase,
        limit: Duration,
    ) -> Result<State, WaitError> {
        self.wait(index, limit, |s| s.phase == phase).await
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counting.read()
    }

    /// Stops everything and returns when it has ended.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
