//! An installation: the agent's steps, the image fetched and hashed, nothing written but the note of what
//! would be on the disk.

use std::net::Ipv4Addr;

use metal::install::Plan;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::cloud::Cloud;
use super::ephemeral::Booted;
use super::{End, Stage, stuck};
use crate::config::Transfer;
use crate::fault::Fault;
use crate::form::Credentials;
use crate::machine::Installed;
use crate::preseed::Preseed;
use crate::state::{Phase, count};

/// The agent's stages and steps, by their names in the events.
const STAGES: [(&str, &[&str]); 4] = [
    (
        "partitioning",
        &[
            "find-disks",
            "release-disks",
            "wipe-disks",
            "partition-disks",
            "make-file-systems",
            "mount-file-systems",
        ],
    ),
    ("extract", &[EXTRACT]),
    (
        "curthooks",
        &[
            "write-fstab",
            "name-host",
            "configure-network",
            "configure-cloud-init",
            "write-files",
            "install-boot-loader",
        ],
    ),
    ("late", &["unmount", NETBOOT_OFF]),
];
const EXTRACT: &str = "extract-image";
const NETBOOT_OFF: &str = "netboot-off";
const WHOLE: &str = "cmd-install";

pub(super) async fn run(b: &Booted<'_>, cloud: Cloud, plan: &Plan) -> Stage<End> {
    let cloud = cloud.with_endpoint().await?;
    b.m.enter(Phase::Installing, format!("installing {}", plan.fqdn));
    cloud.beating(b.m, steps(b, &cloud, plan)).await?;
    count(&b.m.shared.counting.installations);
    sleep(b.m.shared.config.timing.shutdown).await;
    Ok(End::Reboot)
}

async fn steps(b: &Booted<'_>, cloud: &Cloud, plan: &Plan) -> Stage<()> {
    let attempt = plan.attempt;
    cloud.progress(WHOLE, "start", attempt, None).await?;
    for (stage, steps) in STAGES {
        let stage = format!("{WHOLE}/stage-{stage}");
        cloud.progress(&stage, "start", attempt, None).await?;
        for step in steps {
            let name = format!("{stage}/{step}");
            b.m.enter(Phase::Installing, (*step).to_owned());
            cloud.progress(&name, "start", attempt, None).await?;
            sleep(b.m.shared.config.timing.step).await;
            if let Err(reason) = carry_out(b, cloud, plan, step).await? {
                let text = format!("{step} failed: {reason}");
                for name in [&name, &stage, WHOLE] {
                    cloud.progress(name, "finish", attempt, Some(&text)).await?;
                }
                let fields = [
                    ("op", "signal".into()),
                    ("status", "FAILED".into()),
                    ("error", text.clone()),
                    ("attempt", attempt.to_string()),
                ];
                cloud.post(&fields, &[]).await?;
                return stuck(text);
            }
            cloud.progress(&name, "finish", attempt, None).await?;
        }
        cloud.progress(&stage, "finish", attempt, None).await?;
    }
    Ok(cloud.progress(WHOLE, "finish", attempt, None).await?)
}

/// One step. The inner error is a failure that is reported.
async fn carry_out(
    b: &Booted<'_>,
    cloud: &Cloud,
    plan: &Plan,
    step: &str,
) -> Stage<Result<(), String>> {
    match step {
        "find-disks" => Ok(find_disks(b, plan)),
        "partition-disks" => {
            // What was there is gone now.
            b.m.write_disk(None);
            Ok(Ok(()))
        }
        EXTRACT => image(b, plan).await,
        NETBOOT_OFF => {
            cloud.post(&[("op", "netboot_off".into())], &[]).await?;
            b.m.write_disk(Some(installed(plan)));
            Ok(Ok(()))
        }
        _ => Ok(Ok(())),
    }
}

fn find_disks(b: &Booted<'_>, plan: &Plan) -> Result<(), String> {
    let disks = &b.m.hardware.disks;
    for item in &plan.storage {
        if let metal::install::StorageItem::Disk {
            id, name, serial, ..
        } = item
        {
            let here = disks
                .iter()
                .any(|d| serial.as_ref().map_or(d.name == *name, |s| d.serial == *s));
            if !here {
                return Err(format!("disk {id} ({name}) is not in this machine"));
            }
        }
    }
    Ok(())
}

async fn image(b: &Booted<'_>, plan: &Plan) -> Stage<Result<(), String>> {
    let (http, image) = (&b.http, &plan.image);
    if b.m.has(&Fault::StopDuringImage) {
        http.fetch_until(&image.url, (image.size / 2).max(1))
            .await?;
        return stuck("hangs while the image is fetched");
    }
    let transfer = b.m.shared.config.transfer;
    // Taken up again where the connection broke, as the agent does; here from its beginning.
    let (patience, started) = (b.m.shared.config.patience, Instant::now());
    let mut wait = patience.first;
    let fetched = loop {
        match http.fetch(&image.url, transfer).await {
            Ok(fetched) => break fetched,
            Err(e) if !e.may_pass() || started.elapsed() + wait > patience.limit => {
                return Ok(Err(e.to_string()));
            }
            Err(error) => tracing::debug!(%error, "trying again"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(patience.most);
    };
    let sizes_agree = fetched.size == image.size;
    let altered = match fetched.sha256 {
        Some(got) if transfer == Transfer::Full && !got.eq_ignore_ascii_case(&image.sha256) => {
            Some(got)
        }
        _ => None,
    };
    Ok(match altered {
        Some(got) => Err(format!(
            "altered image: {} has SHA-256 {got}, planned was {}",
            image.url, image.sha256
        )),
        None if !sizes_agree => Err(format!(
            "altered image: {} has {} bytes, planned were {}",
            image.url, fetched.size, image.size
        )),
        None => Ok(()),
    })
}

/// What the plan leaves on the disk: cloud-init's files, else the plan's datasource itself.
fn installed(plan: &Plan) -> Installed {
    let source = &plan.datasource;
    let mut cloud = Preseed {
        metadata_url: Some(source.metadata_url.clone()),
        credentials: Some(Credentials {
            consumer_key: source.consumer_key.clone(),
            token_key: source.token_key.clone(),
            token_secret: source.token_secret.clone(),
        }),
        endpoint: None,
        power_state: None,
    };
    let mut files: Vec<_> = plan
        .files
        .iter()
        .filter(|f| f.path.starts_with("/etc/cloud/cloud.cfg.d/"))
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        if let Ok(later) = Preseed::parse(&file.content) {
            cloud = later.over(cloud);
        }
    }
    Installed {
        hostname: plan.hostname.clone(),
        cloud,
        address: static_address(&plan.network),
        cloud_done: false,
    }
}

/// The first static IPv4 address of a netplan configuration.
fn static_address(network: &Value) -> Option<Ipv4Addr> {
    let ethernets = network.pointer("/network/ethernets")?.as_object()?;
    let all = ethernets
        .values()
        .filter_map(|e| e.get("addresses")?.as_array())
        .flatten();
    all.filter_map(Value::as_str)
        .find_map(|a| a.split('/').next()?.parse().ok())
}
