//! The agent: introduces the machine, asks for its work, does it.

use metal::install::Work;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::cloud::Cloud;
use super::ephemeral::Booted;
use super::{End, Stage, install, scripts, stuck};
use crate::form::{multipart, quote};
use crate::http::{HttpError, Request, nonce};
use crate::preseed::Preseed;
use crate::state::{Phase, count};

/// Tries until the preseed of a machine that has just been made known is handed out.
const PRESEED_TRIES: u32 = 100;

/// How the agent's work ended.
pub(super) enum Done {
    /// The machine was introduced; from now on this is its preseed.
    Enlisted(Preseed),
    /// Scripts ran.
    Scripts,
    /// The machine stays up.
    Rescue,
    /// The agent ended the boot itself.
    Ended(End),
}

pub(super) async fn run(b: &Booted<'_>, preseed: &Preseed) -> Stage<Done> {
    let http = b.http.named("steelyard-agent (simulated)");
    let cloud = Cloud::new(b.m, http, preseed)?;
    if !cloud.is_known() {
        return enlist(b, &cloud).await;
    }
    if let Ok(id) = cloud.get("meta-data/instance-id").await {
        b.m.show(|s| s.system_id = Some(id.text().trim().to_owned()));
    }
    let answer = cloud.get("agent-work").await?;
    let work: Work = serde_json::from_slice(&answer.body)
        .map_err(|_| End::Stuck("the agent does not understand its work order".into()))?;
    match work {
        Work::Scripts => {
            scripts::run_all(b, &cloud).await?;
            Ok(Done::Scripts)
        }
        Work::Install(plan) => install::run(b, cloud, &plan).await.map(Done::Ended),
        Work::Rescue => {
            cloud
                .signal("OK", "rescue mode: the machine stays up")
                .await?;
            Ok(Done::Rescue)
        }
        Work::Nothing => {
            sleep(b.m.shared.config.timing.shutdown).await;
            Ok(Done::Ended(End::PowerOff))
        }
    }
}

async fn enlist(b: &Booted<'_>, cloud: &Cloud) -> Stage<Done> {
    let (m, hardware) = (b.m, &b.m.hardware);
    let config = &m.shared.config;
    m.enter(Phase::Enlisting, "introducing itself");
    let site = cloud
        .base()
        .rfind("/metadata/")
        .map_or(cloud.base(), |at| &cloud.base()[..=at]);
    let machines = format!("{site}api/2.0/machines/");
    let asked = format!(
        "{machines}?op=is_registered&mac_address={}",
        quote(&hardware.mac_list())
    );
    let known = cloud
        .http()
        .deliver(&Request::get(asked), config.patience)
        .await?;
    if serde_json::from_slice::<Value>(&known.body).ok() == Some(Value::Bool(true)) {
        return Ok(Done::Ended(End::PowerOff));
    }
    let power = match cloud.get("maas-scripts").await {
        Ok(archive) => scripts::finds_bmc(&archive.body).then(|| power_parameters(b)),
        Err(e)
            if e.status()
                .is_some_and(|s| matches!(s.as_u16(), 401 | 403 | 404)) =>
        {
            None
        }
        Err(e) => return Err(e.into()),
    };
    let mut fields = vec![
        ("architecture", "amd64".to_owned()),
        ("mac_addresses", hardware.mac_list()),
        ("commission", "true".to_owned()),
        ("hostname", hardware.hostname.clone()),
    ];
    if let Some(parameters) = power {
        fields.push(("power_type", "ipmi".to_owned()));
        fields.push(("power_parameters", parameters.to_string()));
    }
    let request = Request::post(&machines, multipart(&nonce(), &fields, &[]));
    let answer = cloud.http().deliver(&request, config.patience).await?;
    let machine: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let Some(id) = machine["system_id"].as_str().map(str::to_owned) else {
        return stuck("the answer to the introduction names no machine");
    };
    count(&m.shared.counting.enlistments);
    m.show(|s| s.system_id = Some(id.clone()));

    let preseed = own_preseed(
        b,
        cloud,
        &format!("{}latest/by-id/{id}/?op=get_preseed", cloud.base()),
    )
    .await?;
    if preseed.credentials.is_none() {
        return stuck("the preseed of the new machine has no key");
    }
    let cloud = Cloud::new(m, cloud.http().clone(), &preseed)?;
    cloud
        .signal("COMMISSIONING", "enlisted; commissioning begins")
        .await?;
    scripts::run_all(b, &cloud).await?;
    Ok(Done::Enlisted(preseed))
}

/// The rack hands the preseed out when it has heard of the machine, which may take a moment.
async fn own_preseed(b: &Booted<'_>, cloud: &Cloud, url: &str) -> Stage<Preseed> {
    let patience = b.m.shared.config.patience;
    for tries in 1.. {
        match cloud.http().deliver(&Request::get(url), patience).await {
            Ok(answer) => {
                return Preseed::parse(&answer.text()).map_err(|e| End::Stuck(e.to_string()));
            }
            Err(e) if not_yet(&e) && tries < PRESEED_TRIES => sleep(patience.first).await,
            Err(e) => return Err(e.into()),
        }
    }
    stuck("the preseed of the new machine did not come")
}

fn not_yet(e: &HttpError) -> bool {
    e.status()
        .is_some_and(|s| matches!(s.as_u16(), 401 | 403 | 404))
}

/// What a look at the BMC from inside would find.
pub(super) fn power_parameters(b: &Booted<'_>) -> Value {
    let bmc = &b.m.bmc;
    json!({
        "power_address": bmc.address().to_string(), "power_user": bmc.settings().user, "power_pass": bmc.settings().password,
        "power_driver": "LAN_2_0", "power_boot_type": "auto", "cipher_suite_id": "17", "privilege_level": "ADMIN",
    })
}
