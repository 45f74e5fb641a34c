//! One machine: its power, its disk, and the task that lives its life.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire_ipmi::command::ChassisControl;

use crate::bmc::FakeBmc;
use crate::config::FleetConfig;
use crate::fault::Fault;
use crate::hardware::Hardware;
use crate::life::{self, End};
use crate::net::Medium;
use crate::preseed::Preseed;
use crate::state::{Counting, Phase, State, count};

/// What the power button and the BMC want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    on: bool,
    /// Shut down in an orderly way, if somebody hears it.
    soft: bool,
    /// Counts the wishes: on after on is a restart.
    number: u64,
}

/// What an installation left on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// Host name.
    pub hostname: String,
    /// cloud-init's configuration.
    pub cloud: Preseed,
    /// The address that its network configuration gives the booting port; none is DHCP.
    pub address: Option<Ipv4Addr>,
    /// Whether what its first boot was asked to do is done.
    pub cloud_done: bool,
}

/// What all machines of a fleet share.
pub(crate) struct Shared {
    pub config: FleetConfig,
    pub medium: Medium,
    pub counting: Arc<Counting>,
}

/// A machine.
pub(crate) struct Machine {
    pub hardware: Hardware,
    pub bmc: Arc<FakeBmc>,
    pub shared: Arc<Shared>,
    faults: Mutex<Vec<Fault>>,
    disk: Mutex<Option<Installed>>,
    state: watch::Sender<State>,
    wish: watch::Sender<Wish>,
}

impl Machine {
    pub(crate) fn new(hardware: Hardware, bmc: Arc<FakeBmc>, shared: Arc<Shared>) -> Self {
        Self {
            hardware,
            bmc,
            shared,
            faults: Mutex::default(),
            disk: Mutex::default(),
            state: watch::Sender::default(),
            wish: watch::Sender::default(),
        }
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Changes what is seen of the machine.
    pub(crate) fn show(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::debug!(machine = %self.hardware.hostname, ?phase, detail, "simulated machine");
        self.show(|s| (s.phase, s.detail) = (phase, detail));
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_faults(&self, change: impl FnOnce(&mut Vec<Fault>)) {
        change(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn has(&self, fault: &Fault) -> bool {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(fault)
    }

    pub(crate) fn disk(&self) -> Option<Installed> {
        self.disk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn write_disk(&self, system: Option<Installed>) {
        self.show(|s| s.installed = system.as_ref().map(|i| i.hostname.clone()));
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = system;
    }

    fn wish(&self, on: bool, soft: bool) {
        self.wish.send_modify(|w| {
            *w = Wish {
                on,
                soft,
                number: w.number.wrapping_add(1),
            }
        });
    }

    /// A console told the BMC, which has taken note already.
    pub(crate) fn told(&self, control: ChassisControl) {
        count(&self.shared.counting.power_commands);
        match control {
            // A machine that is on goes on.
            ChassisControl::PowerUp if self.wish.borrow().on => {}
            ChassisControl::PowerUp | ChassisControl::PowerCycle => self.wish(true, false),
            // Resets reach machines with power only.
            ChassisControl::HardReset if self.wish.borrow().on => self.wish(true, false),
            ChassisControl::PowerDown => self.wish(false, false),
            ChassisControl::SoftShutdown if self.wish.borrow().on => self.wish(true, true),
            ChassisControl::HardReset
            | ChassisControl::SoftShutdown
            | ChassisControl::DiagnosticInterrupt => {}
        }
    }

    /// Somebody pressed the button of a machine without power.
    pub(crate) fn press(&self) {
        if !self.wish.borrow().on {
            self.bmc.set_power(true);
            self.wish(true, false);
        }
    }

    /// Somebody pulled the plug.
    pub(crate) fn pull(&self) {
        self.bmc.set_power(false);
        self.wish(false, false);
    }

    /// The machine switched itself off, unless somebody wished otherwise meanwhile.
    fn went_off(&self, number: u64) {
        self.wish.send_if_modified(|w| {
            let still = w.number == number || w.soft;
            if still {
                self.bmc.set_power(false);
                *w = Wish {
                    on: false,
                    soft: false,
                    number: w.number,
                };
            }
            still
        });
    }

    /// Lives until cancelled.
    pub(crate) async fn live(self: Arc<Self>, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.lives() => {}
        }
    }

    async fn lives(&self) {
        let mut wish = self.wish.subscribe();
        loop {
            if !wish.borrow().on {
                self.enter(Phase::Off, "");
            }
            self.show(|s| s.address = None);
            let Ok(now) = wish.wait_for(|w| w.on).await.map(|w| *w) else {
                return;
            };
            wish.mark_unchanged();
            count(&self.shared.counting.boots);
            self.show(|s| s.boots += 1);
            let mut number = now.number;
            let mut boot = std::pin::pin!(life::boot(self));
            let end = loop {
                tokio::select! {
                    end = &mut boot => break Some(end),
                    changed = wish.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let now = *wish.borrow_and_update();
                        if !now.soft {
                            break None;
                        }
                        number = now.number;
                        if self.state.borrow().phase.hears_shutdown() {
                            tokio::time::sleep(self.shared.config.timing.shutdown).await;
                            break Some(End::PowerOff);
                        }
                    }
                }
            };
            match end {
                // Another wish: the loop looks at it.
                None | Some(End::Reboot) => {}
                Some(End::PowerOff) => self.went_off(number),
                Some(End::Stuck(why)) => {
                    self.enter(Phase::Stuck, why);
                    // Nobody is there who would hear a wish to shut down.
                    while wish.changed().await.is_ok_and(|()| wish.borrow().soft) {
                        wish.mark_unchanged();
                    }
                }
            }
        }
    }
}
