//! The installed system: it fetches its user-data, and stays up.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::time::sleep;

use super::cloud::Cloud;
use super::{End, Stage, stuck};
use crate::dhcp::Speaker;
use crate::fault::Fault;
use crate::http::Http;
use crate::machine::Machine;
use crate::net::{Link, Medium};
use crate::preseed::{PowerState, Preseed};
use crate::state::{Phase, count};

pub(super) async fn run(m: &Machine) -> Stage<End> {
    let Some(system) = m.disk() else {
        return stuck("told to boot the local disk, and there is no system on it");
    };
    let config = &m.shared.config;
    if m.has(&Fault::NoReturn) {
        return stuck("hangs in the reboot after the installation");
    }
    m.enter(Phase::Starting, format!("{} starts", system.hostname));
    sleep(config.timing.boot).await;
    let (mut link, from) = address(m, &system.hostname, system.address).await?;
    m.show(|s| s.address = Some(from));
    let http = Http::new(
        Some(from),
        "Cloud-Init/24.4 (simulated)",
        Arc::clone(&m.shared.counting),
    );
    let cloud = Cloud::new(m, http, &system.cloud)?;
    cloud.event("init-local", "start").await;
    cloud.event("init-local", "finish").await;
    cloud.event("init-network", "start").await;
    let user_data = cloud.datasource().await?;
    cloud.event("init-network", "finish").await;
    count(&m.shared.counting.deployments);
    for stage in ["modules-config", "modules-final"] {
        cloud.event(stage, "start").await;
        cloud.event(stage, "finish").await;
    }
    // What a user asks of the first boot. A second boot does not do it again: the wish is the disk's no more.
    let wish = user_data
        .filter(|u| u.starts_with("#cloud-config"))
        .and_then(|u| Preseed::parse(&u).ok()?.power_state);
    if let Some(wish) = wish.filter(|_| !system.cloud_done) {
        m.write_disk(Some(crate::machine::Installed {
            cloud_done: true,
            ..system
        }));
        sleep(config.timing.shutdown).await;
        return Ok(match wish {
            PowerState::PowerOff => End::PowerOff,
            PowerState::Reboot => End::Reboot,
        });
    }
    m.enter(Phase::Running, system.hostname.clone());
    loop {
        link.keep(
            &m.hardware,
            &system.hostname,
            config.renew_every,
            &m.shared.counting,
        )
        .await;
        // The lease was refused: a new one.
        (link, _) = address(m, &system.hostname, None).await?;
        m.show(|s| s.address = Some(link.address));
    }
}

/// A link, and the address to speak from: the configured one where the network has it.
async fn address(
    m: &Machine,
    hostname: &str,
    configured: Option<Ipv4Addr>,
) -> Stage<(Link, Ipv4Addr)> {
    if let (Some(address), Medium::Cable(wire)) = (configured, &m.shared.medium) {
        let link = Link::fixed(address, wire).map_err(|e| End::Stuck(e.to_string()))?;
        return Ok((link, address));
    }
    let speaker = Speaker::System {
        hostname: hostname.to_owned(),
    };
    let link = m
        .shared
        .medium
        .up(&m.hardware, speaker, &m.shared.counting)
        .await;
    let link = link.map_err(|e| End::Stuck(format!("the installed system has no address: {e}")))?;
    let from = configured
        .filter(Ipv4Addr::is_loopback)
        .unwrap_or(link.address);
    Ok((link, from))
}
