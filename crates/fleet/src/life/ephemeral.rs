//! The ephemeral system: root, preseed, cloud-init, agent, end.

use std::sync::Arc;

use tokio::time::sleep;

use super::cloud::{self, Cloud};
use super::loader::Loaded;
use super::{End, Stage, agent, for_ever, stuck};
use crate::cmdline::Cmdline;
use crate::dhcp::Speaker;
use crate::fault::Fault;
use crate::http::{Http, Request};
use crate::machine::Machine;
use crate::net::Link;
use crate::preseed::{PowerState, Preseed, has_script};
use crate::state::Phase;

/// The machine in the ephemeral system.
pub(super) struct Booted<'a> {
    pub m: &'a Machine,
    pub link: Link,
    pub http: Http,
    pub cmdline: String,
}

pub(super) async fn run(m: &Machine, loaded: Loaded) -> Stage<End> {
    let config = &m.shared.config;
    let words = Cmdline::parse(&loaded.cmdline);
    m.enter(Phase::Kernel, "fetching the root file system");
    // The initrd asks for an address of its own; over loopback it is the same.
    let Loaded {
        cmdline,
        link,
        http,
    } = loaded;
    let (link, http) = match &link.lease {
        None => (link, http),
        Some(_) => {
            drop(link);
            let speaker = Speaker::System {
                hostname: m.hardware.hostname.clone(),
            };
            let link = m
                .shared
                .medium
                .up(&m.hardware, speaker, &m.shared.counting)
                .await;
            let link =
                link.map_err(|e| End::Stuck(format!("the ephemeral system has no address: {e}")))?;
            m.show(|s| s.address = Some(link.address));
            let http = Http::new(
                Some(link.address),
                "Wget/1.21 (simulated)",
                Arc::clone(&m.shared.counting),
            );
            (link, http)
        }
    };
    if let Some(root) = &words.root {
        http.fetch(root, config.transfer).await?;
    }
    m.enter(Phase::Ephemeral, "starting");
    sleep(config.timing.boot).await;
    if m.has(&Fault::NoMetadataRoute) {
        return stuck("the ephemeral system has no route to the metadata service");
    }
    let Some(url) = &words.preseed else {
        return stuck("the kernel command line names no preseed");
    };
    let http = http.named("Cloud-Init/24.4 (simulated)");
    let text = http
        .deliver(&Request::get(url), config.patience)
        .await?
        .text();
    let mut preseed = Preseed::parse(&text)
        .map_err(|e| End::Stuck(format!("the preseed cannot be used: {e}")))?;
    if m.has(&Fault::RefusedCredentials) {
        preseed.credentials = preseed.credentials.map(|c| c.spoiled());
    }
    let booted = Booted {
        m,
        link,
        http,
        cmdline,
    };
    let cloud = Cloud::new(m, booted.http.clone(), &preseed)?;
    cloud.event("init-local", "start").await;
    cloud.event("init-local", "finish").await;
    cloud.event("init-network", "start").await;
    let user_data = cloud.datasource().await?;
    cloud.event("init-network", "finish").await;
    cloud.event("modules-config", "start").await;
    cloud.event("modules-config", "finish").await;
    cloud.event("modules-final", "start").await;
    if !user_data.as_deref().is_some_and(has_script) {
        return stuck("the user-data of the ephemeral system has no program in it");
    }
    let done = agent::run(&booted, &preseed).await?;
    // The region may have changed the preseed when it made the machine known.
    let (preseed, end) = match done {
        agent::Done::Ended(end) => return Ok(end),
        agent::Done::Enlisted(preseed) => (preseed, true),
        agent::Done::Scripts => (preseed, true),
        agent::Done::Rescue => (preseed, false),
    };
    let cloud = Cloud::new(m, booted.http.clone(), &preseed)?;
    cloud.event("modules-final", "finish").await;
    match preseed.power_state.filter(|_| end) {
        Some(PowerState::PowerOff) => {
            sleep(config.timing.shutdown).await;
            Ok(End::PowerOff)
        }
        Some(PowerState::Reboot) => {
            sleep(config.timing.shutdown).await;
            Ok(End::Reboot)
        }
        None => {
            if end {
                m.enter(Phase::Ephemeral, "stays up");
                for_ever().await
            }
            cloud::beat_for_ever(m, &booted.http, &preseed).await
        }
    }
}
