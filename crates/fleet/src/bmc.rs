//! Fake BMCs: [`wire_ipmi::bmc`] on UDP sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use wire_ipmi::Secret;
use wire_ipmi::bmc::{Bmc, BmcAction, BmcConfig, User};
use wire_ipmi::command::{BootFlags, ChassisControl, Power, Privilege};

use crate::config::BmcSettings;
use crate::fault::BmcFault;

/// Largest datagram that is read.
const DATAGRAM_MAX: usize = 1_024;

/// A BMC on the network. What consoles do to its machine goes to the `told` of [`FakeBmc::run`].
pub struct FakeBmc {
    socket: UdpSocket,
    address: SocketAddr,
    settings: BmcSettings,
    seed: [u8; 32],
    inner: Mutex<Inner>,
}

struct Inner {
    bmc: Bmc,
    fault: BmcFault,
}

impl std::fmt::Debug for FakeBmc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeBmc")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn config(settings: &BmcSettings, password: &str, power: Power) -> BmcConfig {
    let user = User {
        name: settings.user.clone().into_bytes(),
        password: Secret::from(password),
        privilege: Privilege::Admin,
    };
    BmcConfig {
        users: vec![user],
        power,
        ..BmcConfig::default()
    }
}

impl FakeBmc {
    /// Binds BMC `index` of a fleet.
    ///
    /// # Errors
    /// When its port cannot be had.
    pub async fn bind(settings: &BmcSettings, index: usize, seed: u64) -> io::Result<Self> {
        let port = match settings.first_port {
            Some(first) => usize::from(first)
                .checked_add(index)
                .and_then(|p| u16::try_from(p).ok())
                .ok_or(io::ErrorKind::AddrNotAvailable)?,
            None => 0,
        };
        let socket = UdpSocket::bind((settings.address, port)).await?;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&(index as u64).to_be_bytes());
        let bmc = Bmc::new(config(settings, &settings.password, Power::Off), bytes);
        Ok(Self {
            address: socket.local_addr()?,
            socket,
            settings: settings.clone(),
            seed: bytes,
            inner: Mutex::new(Inner {
                bmc,
                fault: BmcFault::None,
            }),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who may use it.
    #[must_use]
    pub const fn settings(&self) -> &BmcSettings {
        &self.settings
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether its machine has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.with(|i| i.bmc.power() == Power::On)
    }

    /// Says that the machine has gone on or off by itself, or by its button.
    pub fn set_power(&self, on: bool) {
        self.with(|i| i.bmc.set_power(if on { Power::On } else { Power::Off }));
    }

    /// The boot flags for a boot that begins now.
    #[must_use]
    pub fn take_boot(&self) -> BootFlags {
        self.with(|i| i.bmc.take_boot())
    }

    /// Sets what is wrong with it.
    pub fn set_fault(&self, fault: BmcFault) {
        self.with(|i| {
            let other = |f: BmcFault| f == BmcFault::OtherPassword;
            if other(i.fault) != other(fault) {
                // A password can only be changed with a BMC that starts anew; open sessions are gone.
                let spoiled = format!(
                    "no-{}",
                    self.settings.password.chars().take(16).collect::<String>()
                );
                let password = if other(fault) {
                    &spoiled
                } else {
                    &self.settings.password
                };
                i.bmc = Bmc::new(config(&self.settings, password, i.bmc.power()), self.seed);
            }
            i.fault = fault;
        });
    }

    /// Serves until cancelled. `told` hears what consoles did to the machine; it must not block.
    pub async fn run(
        self: Arc<Self>,
        cancel: CancellationToken,
        told: impl Fn(ChassisControl) + Send,
    ) {
        loop {
            let ready = tokio::select! {
                () = cancel.cancelled() => return,
                r = self.socket.readable() => r,
            };
            if ready.is_err() {
                return;
            }
            // On the stack between two waits only: an idle BMC has no buffer.
            let actions = {
                let mut datagram = [0; DATAGRAM_MAX];
                match self.socket.try_recv_from(&mut datagram) {
                    Ok((n, peer)) => self.with(|i| match i.fault {
                        BmcFault::Silent => Vec::new(),
                        BmcFault::None | BmcFault::OtherPassword | BmcFault::Slow(_) => {
                            i.bmc.handle(&datagram[..n], peer, Instant::now())
                        }
                    }),
                    Err(_) => continue,
                }
            };
            if let BmcFault::Slow(by) = self.with(|i| i.fault) {
                tokio::time::sleep(by).await;
            }
            for action in actions {
                match action {
                    BmcAction::Send { to, bytes } => {
                        // A datagram that cannot be sent is one that was lost.
                        self.socket.send_to(&bytes, to).await.ok();
                    }
                    BmcAction::Chassis(control) => told(control),
                    // They are asked for when the machine starts.
                    BmcAction::BootDevice(_) => {}
                }
            }
        }
    }
}
