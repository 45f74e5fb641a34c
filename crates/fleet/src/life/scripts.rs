//! The published protocol of scripts, with made-up outputs.

use std::collections::HashSet;
use std::io::Read as _;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::cloud::Cloud;
use super::ephemeral::Booted;
use super::{End, Stage};
use crate::fault::Fault;
use crate::http::HttpError;
use crate::inventory;
use crate::state::{Phase, count};

/// Largest list of scripts that is read.
const INDEX_MAX: u64 = 16 << 20;
/// Rounds of commissioning: each may bring scripts that match what the last one found.
const ROUNDS_MAX: usize = 8;
/// The tag, and the name, of the script that looks for a BMC.
const BMC_CONFIG: [&str; 2] = ["bmc-config", "30-maas-01-bmc-config"];

#[derive(Deserialize, Default)]
struct Index {
    #[serde(default)]
    commissioning_scripts: Vec<Script>,
    #[serde(default)]
    testing_scripts: Vec<Script>,
    #[serde(default)]
    release_scripts: Vec<Script>,
    #[serde(default)]
    deployment_scripts: Vec<Script>,
}

#[derive(Clone, Deserialize)]
struct Script {
    name: String,
    #[serde(default)]
    script_result_id: Option<i64>,
    #[serde(default)]
    script_version_id: Option<i64>,
    #[serde(default)]
    parallel: u8,
    #[serde(default)]
    hardware_type: u8,
    #[serde(default)]
    tags: Value,
    #[serde(default)]
    packages: Value,
    #[serde(default)]
    apply_configured_networking: bool,
    #[serde(default)]
    has_finished: bool,
}

impl Script {
    fn is_bmc_config(&self) -> bool {
        BMC_CONFIG.contains(&self.name.as_str())
            || self
                .tags
                .as_array()
                .is_some_and(|t| t.iter().any(|t| t == BMC_CONFIG[0]))
    }

    fn wants_packages(&self) -> bool {
        self.packages.as_object().is_some_and(|p| {
            p.values()
                .any(|v| v.as_array().is_some_and(|a| !a.is_empty()))
        })
    }
}

/// The list in an archive of scripts. Bodies are not looked at: nothing is run.
fn index(archive: &[u8]) -> Option<Index> {
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries().ok()?.flatten() {
        let is_index = entry
            .path()
            .is_ok_and(|p| p.file_name().is_some_and(|n| n == "index.json"));
        if is_index {
            let mut text = String::new();
            entry.take(INDEX_MAX).read_to_string(&mut text).ok()?;
            let mut all: Value = serde_json::from_str(&text).ok()?;
            return serde_json::from_value(all.get_mut("1.0")?.take()).ok();
        }
    }
    None
}

/// Whether the scripts for strangers look for a BMC.
pub(super) fn finds_bmc(archive: &[u8]) -> bool {
    index(archive).is_some_and(|i| i.commissioning_scripts.iter().any(Script::is_bmc_config))
}

async fn fetch(cloud: &Cloud) -> Stage<Index> {
    let answer = cloud.get("maas-scripts").await?;
    if answer.status.as_u16() == 204 || answer.body.is_empty() {
        return Ok(Index::default());
    }
    index(&answer.body).ok_or_else(|| End::Stuck("the archive of scripts has no list".into()))
}

/// Runs everything there is and signals the end of it.
pub(super) async fn run_all(b: &Booted<'_>, cloud: &Cloud) -> Stage<()> {
    b.m.enter(Phase::Scripts, "running scripts");
    cloud.beating(b.m, phases(b, cloud)).await
}

async fn phases(b: &Booted<'_>, cloud: &Cloud) -> Stage<()> {
    let (mut ran, mut failed) = (0, Vec::new());
    let mut done: HashSet<Option<i64>> = HashSet::new();
    let mut index = fetch(cloud).await?;
    for _ in 0..ROUNDS_MAX {
        let new: Vec<Script> = index
            .commissioning_scripts
            .iter()
            .filter(|s| !s.has_finished && done.insert(s.script_result_id))
            .cloned()
            .collect();
        if new.is_empty() {
            break;
        }
        run(b, cloud, &new, &mut ran, &mut failed).await?;
        index = fetch(cloud).await?;
    }
    if index.testing_scripts.iter().any(|s| !s.has_finished) {
        cloud.signal("TESTING", "tests begin").await?;
        run(b, cloud, &index.testing_scripts, &mut ran, &mut failed).await?;
    }
    for scripts in [&index.release_scripts, &index.deployment_scripts] {
        run(b, cloud, scripts, &mut ran, &mut failed).await?;
    }
    if failed.is_empty() {
        cloud.signal("OK", &format!("{ran} scripts passed")).await?;
    } else {
        cloud
            .signal(
                "FAILED",
                &format!(
                    "{} of {ran} scripts failed: {}",
                    failed.len(),
                    failed.join(", ")
                ),
            )
            .await?;
    }
    Ok(())
}

/// In the published order: one at a time, then instances, then the rest; by hardware, whole machine last; by name.
async fn run(
    b: &Booted<'_>,
    cloud: &Cloud,
    scripts: &[Script],
    ran: &mut usize,
    failed: &mut Vec<String>,
) -> Stage<()> {
    let mut todo: Vec<&Script> = scripts.iter().filter(|s| !s.has_finished).collect();
    todo.sort_by_key(|s| {
        (
            s.parallel,
            if s.hardware_type == 0 {
                u8::MAX
            } else {
                s.hardware_type
            },
            s.name.clone(),
            s.script_result_id,
        )
    });
    // What may run together is started together, so that it is seen so; results come one after the other.
    let (alone, together): (Vec<&Script>, Vec<&Script>) =
        todo.into_iter().partition(|s| s.parallel == 0);
    for script in alone {
        start(cloud, script).await?;
        one(b, cloud, script, ran, failed).await?;
    }
    for script in &together {
        start(cloud, script).await?;
    }
    for script in together {
        one(b, cloud, script, ran, failed).await?;
    }
    Ok(())
}

fn about(script: &Script, status: &str, message: String) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("op", "signal".to_owned()),
        ("status", status.to_owned()),
        ("error", message),
    ];
    fields.extend(
        script
            .script_result_id
            .map(|id| ("script_result_id", id.to_string())),
    );
    fields.extend(
        script
            .script_version_id
            .map(|id| ("script_version_id", id.to_string())),
    );
    fields
}

async fn start(cloud: &Cloud, script: &Script) -> Result<(), HttpError> {
    if script.wants_packages() {
        cloud
            .post(
                &about(
                    script,
                    "INSTALLING",
                    format!("installing what {} needs", script.name),
                ),
                &[],
            )
            .await?;
    }
    if script.apply_configured_networking {
        cloud
            .post(
                &about(
                    script,
                    "APPLYING_NETCONF",
                    "applying the configured network".into(),
                ),
                &[],
            )
            .await?;
    }
    cloud
        .post(
            &about(script, "WORKING", format!("{} starts", script.name)),
            &[],
        )
        .await
}

async fn one(
    b: &Booted<'_>,
    cloud: &Cloud,
    script: &Script,
    ran: &mut usize,
    failed: &mut Vec<String>,
) -> Result<(), HttpError> {
    let m = b.m;
    let started = Instant::now();
    m.enter(Phase::Scripts, script.name.clone());
    sleep(m.shared.config.timing.script).await;
    let exit_status = m.faults().iter().find_map(|f| match f {
        Fault::ScriptFails {
            script: name,
            exit_status,
        } if *name == script.name => Some(*exit_status),
        _ => None,
    });
    let exit_status = exit_status.unwrap_or(0);
    let mut fields = about(
        script,
        "WORKING",
        format!("{}: exit status {exit_status}", script.name),
    );
    fields.push(("exit_status", exit_status.to_string()));
    fields.push(("runtime", format!("{:.6}", started.elapsed().as_secs_f64())));
    if script.is_bmc_config() && script.script_result_id.is_some() {
        fields.push(("power_type", "ipmi".into()));
        fields.push((
            "power_parameters",
            super::agent::power_parameters(b).to_string(),
        ));
    }
    let name = &script.name;
    let files = if exit_status == 0 {
        let out = inventory::output(name, &m.hardware, b.link.address, &b.cmdline).into_bytes();
        vec![(name.clone(), out.clone()), (format!("{name}.out"), out)]
    } else {
        let words = format!("{name}: this failure is simulated\n").into_bytes();
        failed.push(name.clone());
        vec![
            (name.clone(), words.clone()),
            (format!("{name}.err"), words),
        ]
    };
    cloud.post(&fields, &files).await?;
    *ran += 1;
    count(&m.shared.counting.scripts);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(index: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(index.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "index.json", index.as_bytes())
            .unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn the_list_of_scripts_is_found_in_the_archive() {
        let tar = archive(
            r#"{"1.0": {"commissioning_scripts": [{"name": "a", "path": "commissioning/a", "tags": ["node", "bmc-config"], "packages": {"apt": ["x"]}}]}}"#,
        );
        let found = index(&tar).unwrap();
        assert!(
            found.commissioning_scripts[0].is_bmc_config()
                && found.commissioning_scripts[0].wants_packages()
        );
        assert!(finds_bmc(&tar));
        assert!(!finds_bmc(&archive(
            r#"{"1.0": {"commissioning_scripts": [{"name": "50-maas-01-commissioning"}]}}"#
        )));
        assert!(index(b"no tar").is_none() && index(&archive("{}")).is_none());
    }
}
