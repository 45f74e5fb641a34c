//! The state of the service in words that say what to do.

use std::collections::BTreeMap;

use ::link::snapshot::Snapshot;

use super::Served;
use super::foreign::{Failure, Verdict};
use super::journal::Health;
use super::mapping::Plan;

/// Status word and sentences.
pub(super) fn describe(
    snapshot: &Snapshot,
    plan: &Plan,
    served: &BTreeMap<u32, Served>,
    health: &Health,
) -> (&'static str, String) {
    let mut serving = Vec::new();
    let mut waiting = Vec::new();
    let mut degraded = Vec::new();
    let mut failed = Vec::new();
    let mut missing_privilege = Vec::new();
    for link in served.values() {
        let name = &link.plan.name;
        let vlans: Vec<String> = link
            .plan
            .vlans
            .iter()
            .map(|id| vlan_name(snapshot, *id))
            .collect();
        let vlans = vlans.join(", ");
        if link.sockets.is_some() {
            serving.push(format!("{vlans} through {name}"));
        }
        let mut refuse = |vlans: &str, failure: &Failure| {
            let sentence = format!("{vlans} is not served: {}", failure.sentence);
            if failure.is_privilege {
                missing_privilege.push(sentence)
            } else {
                failed.push(sentence)
            }
        };
        match &link.verdict {
            Verdict::Foreign(server) if link.sockets.is_some() => degraded.push(format!(
                "the DHCP server {server} answers on {name} ({vlans}) as well; machines are served beside it because ignore_external_dhcp is set"
            )),
            Verdict::Foreign(server) => degraded.push(format!(
                "the DHCP server {server} already answers on {name} ({vlans}), so machines are not served there; turn that server off (it is looked for again every minute), or set ignore_external_dhcp to serve beside it"
            )),
            Verdict::Partner(server) if link.sockets.is_none() => {
                waiting.push(format!("standing by for {server} on {name} ({vlans})"));
            }
            Verdict::Unknown if link.sockets.is_none() => {
                waiting.push(format!("looking for other DHCP servers on {name} before serving {vlans}"));
            }
            Verdict::Failed(failure) if link.sockets.is_none() => refuse(&vlans, failure),
            Verdict::Clear | Verdict::Partner(_) | Verdict::Unknown | Verdict::Failed(_) => {}
        }
        if let Some(open) = &link.open_failure {
            refuse(&vlans, &open.failure);
        }
    }
    for id in &plan.unattached {
        degraded.push(format!(
            "{} has DHCP on, but no interface of this host that is up has an address in one of its subnets",
            vlan_name(snapshot, *id)
        ));
    }
    degraded.append(&mut failed);
    degraded.extend(health.failure.clone());
    let status = if !degraded.is_empty() {
        "degraded"
    } else if serving.is_empty() {
        "off"
    } else if missing_privilege.is_empty() {
        "running"
    } else {
        "degraded"
    };
    let mut sentences = degraded;
    sentences.append(&mut missing_privilege);
    sentences.append(&mut waiting);
    if sentences.is_empty() {
        let idle = || String::from("no VLAN that this rack serves has DHCP on");
        return (
            status,
            if serving.is_empty() {
                idle()
            } else {
                format!("serving {}", serving.join("; "))
            },
        );
    }
    (status, sentences.join(". "))
}

/// A VLAN as people know it.
fn vlan_name(snapshot: &Snapshot, id: i64) -> String {
    match snapshot.vlans.get(&id) {
        Some(vlan) if vlan.vid == 0 => format!("the untagged VLAN of {}", vlan.fabric),
        Some(vlan) => format!("VLAN {} of {}", vlan.vid, vlan.fabric),
        None => format!("VLAN with id {id}"),
    }
}
