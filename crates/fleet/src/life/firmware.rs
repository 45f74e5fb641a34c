//! From power-on to a kernel: addresses, boot files, loaders.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::sleep;
use wire_ipmi::command::BootDevice;

use super::loader::{self, Place, Started};
use super::{End, NetError, Stage, stuck};
use crate::bootcfg::Loader;
use crate::config::Transfer;
use crate::dhcp::Speaker;
use crate::fault::Fault;
use crate::hardware::Firmware;
use crate::http::{Fetched, Http};
use crate::machine::Machine;
use crate::net::{Link, Medium};
use crate::state::{Phase, count};
use crate::tftp;

/// What firmware found to boot.
pub(super) enum Found {
    /// A kernel from the network.
    System(Box<loader::Loaded>),
    /// The disk.
    Disk,
    /// A loader that says something and wants to start again.
    Retry(String),
}

/// The network as firmware and loaders use it.
pub(super) struct Ground<'a> {
    pub m: &'a Machine,
    pub link: Link,
    pub http: Http,
}

impl Ground<'_> {
    pub(super) async fn text(&self, place: &Place) -> Result<String, NetError> {
        match place {
            Place::Http(url) => Ok(self
                .http
                .send(&crate::http::Request::get(url))
                .await?
                .text()),
            Place::Tftp { server, path } => {
                let file = self.tftp(*server, path).await?;
                Ok(String::from_utf8_lossy(&file).into_owned())
            }
        }
    }

    async fn tftp(&self, server: Ipv4Addr, path: &str) -> Result<Vec<u8>, NetError> {
        let file = tftp::fetch(self.link.address, server, path).await?;
        let counting = &self.m.shared.counting;
        count(&counting.tftp_files);
        counting
            .bytes
            .fetch_add(file.len() as u64, Ordering::Relaxed);
        Ok(file)
    }

    /// Fetches a file and throws it away.
    pub(super) async fn file(
        &self,
        place: &Place,
        transfer: Transfer,
    ) -> Result<Fetched, NetError> {
        match place {
            Place::Http(url) => Ok(self.http.fetch(url, transfer).await?),
            Place::Tftp { server, path } => {
                let size = self.tftp(*server, path).await?.len() as u64;
                Ok(Fetched {
                    bytes: size,
                    size,
                    sha256: None,
                })
            }
        }
    }
}

/// Tries the network, then the disk.
pub(super) async fn boot(m: &Machine) -> Stage<Found> {
    let (config, flags) = (&m.shared.config, m.bmc.take_boot());
    let mut why = String::new();
    if !(flags.valid && flags.device == BootDevice::Disk) {
        for _ in 0..config.boot_tries.max(1) {
            m.enter(Phase::Firmware, "booting from the network");
            match network(m).await {
                Ok(found) => return found,
                Err(NetError::Hang) => return Err(NetError::Hang.into()),
                Err(e) => why = e.to_string(),
            }
            m.enter(Phase::Firmware, why.clone());
            sleep(config.timing.retry).await;
        }
    }
    if m.disk().is_some() {
        return Ok(Found::Disk);
    }
    stuck(if why.is_empty() {
        "no system on the disk".to_owned()
    } else {
        format!("no boot device: {why}; no system on the disk")
    })
}

/// One try. The outer error is worth another try, the inner one ends the boot.
async fn network(m: &Machine) -> Result<Stage<Found>, NetError> {
    let shared = &m.shared;
    let firmware = match &shared.medium {
        Medium::Loopback { .. } => m.hardware.firmware.with_ipxe(),
        Medium::Cable(_) => m.hardware.firmware,
    };
    let wrong = m.has(&Fault::WrongLoader);
    let speaker = match (firmware, wrong) {
        (f, true) => Speaker::Firmware {
            arch: if f.is_uefi() {
                Firmware::Bios.arch()
            } else {
                Firmware::Uefi.arch()
            },
        },
        (Firmware::IpxeBios | Firmware::IpxeUefi, false) => Speaker::Ipxe {
            arch: firmware.arch(),
        },
        (Firmware::Bios | Firmware::Uefi | Firmware::UefiHttp, false) => Speaker::Firmware {
            arch: firmware.arch(),
        },
    };
    let link = shared
        .medium
        .up(&m.hardware, speaker, &shared.counting)
        .await?;
    m.show(|s| s.address = Some(link.address));
    let agent = match firmware {
        Firmware::IpxeBios | Firmware::IpxeUefi => "iPXE/1.21.1 (simulated)",
        Firmware::UefiHttp => "UefiHttpBoot/1.0",
        Firmware::Bios | Firmware::Uefi => "Syslinux/6.04 (simulated)",
    };
    let http = Http::new(Some(link.address), agent, Arc::clone(&shared.counting));
    let ground = Ground { m, link, http };
    let (file, server) = match (&shared.medium, &ground.link.lease) {
        (Medium::Loopback { rack, .. }, _) if wrong => (
            format!("http://{rack}/{}", wrong_loader(firmware)),
            Ipv4Addr::UNSPECIFIED,
        ),
        (Medium::Loopback { rack, .. }, _) => {
            (format!("http://{rack}/ipxe.cfg"), Ipv4Addr::UNSPECIFIED)
        }
        (Medium::Cable(_), Some(lease)) => {
            let file = lease
                .file
                .clone()
                .ok_or_else(|| NetError::Other("the DHCP server named no boot file".into()))?;
            (file, lease.next_server)
        }
        (Medium::Cable(_), None) => return Err(NetError::Other("no lease".into())),
    };
    let place = Place::of(&file, server);
    if let Place::Tftp { server, path } = &place {
        // PXE ROMs ask for the size first and fetch the file then.
        tftp::probe(ground.link.address, *server, path).await?;
    }
    if wrong {
        // The bytes come, the firmware looks at them, and that is that. Where the rack has no such loader
        // the attempt to get it is seen all the same.
        return match ground.file(&place, Transfer::Full).await {
            Ok(_) => Ok(stuck("the firmware cannot start the loader it was given")),
            Err(e) if e.is_missing() => {
                Ok(stuck("the firmware was given a loader that is not there"))
            }
            Err(e) => Err(e),
        };
    }
    sleep(shared.config.timing.load).await;
    let started = match firmware {
        Firmware::Bios => {
            ground.file(&place, Transfer::Full).await?;
            m.enter(Phase::Loader, "PXELINUX");
            hang(m)?;
            let base = match ground.link.lease.as_ref().and_then(|l| l.prefix.clone()) {
                Some(prefix) => Place::of(&prefix, server),
                None => place.clone(),
            };
            loader::pxelinux(&ground, &base).await?
        }
        Firmware::Uefi | Firmware::UefiHttp => {
            ground.file(&place, Transfer::Full).await?;
            // shim loads GRUB from beside itself.
            ground
                .file(&place.join("grubx64.efi"), Transfer::Full)
                .await?;
            m.enter(Phase::Loader, "GRUB");
            hang(m)?;
            loader::chained(&ground, Loader::Grub, &place.join("/grub/grub.cfg")).await?
        }
        Firmware::IpxeBios | Firmware::IpxeUefi => {
            m.enter(Phase::Loader, "iPXE");
            if m.has(&Fault::StopAfterLoader) {
                // What is fetched and not acted on is the first script.
                ground.text(&place).await?;
            }
            hang(m)?;
            loader::chained(&ground, Loader::Ipxe, &place).await?
        }
    };
    match started {
        Started::System(system, place) => {
            m.enter(Phase::Kernel, "fetching kernel and initrd");
            if m.has(&Fault::StopDuringKernel) {
                if let Place::Http(url) = place.join(&system.kernel) {
                    ground.http.fetch_until(&url, 1).await?;
                }
                return Ok(stuck("hangs while the kernel is fetched"));
            }
            loader::load(ground, system, &place)
                .await
                .map(|loaded| Ok(Found::System(Box::new(loaded))))
        }
        Started::Local => Ok(Ok(Found::Disk)),
        Started::Retry(words) => Ok(Ok(Found::Retry(words))),
    }
}

fn wrong_loader(firmware: Firmware) -> &'static str {
    if firmware.is_uefi() {
        "lpxelinux.0"
    } else {
        "bootx64.efi"
    }
}

fn hang(m: &Machine) -> Result<(), NetError> {
    if m.has(&Fault::StopAfterLoader) {
        Err(NetError::Hang)
    } else {
        Ok(())
    }
}

impl From<NetError> for End {
    fn from(e: NetError) -> Self {
        Self::Stuck(e.to_string())
    }
}
