//! `rack-controllers`: the racks, what they run, and whether they are there.

use std::collections::BTreeMap;

use metal::status::Status;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::machine::{act, create, power_ops, test, update};
use crate::node::family::{self, Family, shared};
use crate::node::row::{REGION, REGION_AND_RACK};
use crate::node::{NodeRow, View, filter, row};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::region::Region;
use crate::{image, power_type, version};

pub use crate::rack_link::register::short;

const RACKS: Operation = Operation {
    handler: "RackControllersHandler",
    uri: "rackcontrollers/",
    ..Operation::READ
};
const RACK: Operation = Operation {
    handler: "RackControllerHandler",
    uri: "rackcontrollers/{system_id}/",
    ..Operation::READ
};
const ACT: Operation = Operation {
    method: Method::Post,
    audit: Some("NODE"),
    ..RACK
};
const COMMENT: Param = Param::opt("comment", Kind::Text, "A note for the event log.");

/// What can be changed of a controller.
pub const CHANGES: &[Param] = &[
    Param::opt("description", Kind::Text, "A description."),
    Param::opt("domain", Kind::Text, "Its DNS domain, by name or id."),
    Param::opt("power_type", Kind::Text, "Power driver."),
    Param::opt(
        "power_parameters",
        Kind::Prefix,
        "Parameters of the power driver, one by one or as JSON.",
    ),
    Param::opt(
        "power_parameters_skip_check",
        Kind::Bool,
        "Accept power parameters unchecked.",
    ),
    Param::opt("zone", Kind::Text, "Its zone, by name."),
];

/// What `rackcontrollers/` shares with the other collections.
pub const SHARED: &[Operation] = &shared(
    "RackControllersHandler",
    "AnonRackControllersHandler",
    "rackcontrollers/",
);

/// `rackcontrollers/` and `rackcontrollers/{system_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List rack controllers.",
        params: filter::FILTERS,
        run: |c| Box::pin(family::list(c)),
        ..RACKS
    },
    Operation {
        op: Some("power_parameters"),
        who: Who::Admin,
        title: "Power parameters of several rack controllers.",
        params: &[Param::must("id", Kind::List, "System ids.")],
        run: |c| Box::pin(family::several_power_parameters(c)),
        ..RACKS
    },
    Operation {
        op: Some("describe_power_types"),
        who: Who::Admin,
        title: "The power types and their parameters.",
        run: |c| Box::pin(describe_power_types(c)),
        ..RACKS
    },
    Operation {
        method: Method::Post,
        op: Some("import_boot_images"),
        who: Who::Admin,
        title: "Import boot images; every rack fetches what its machines ask for.",
        success: 202,
        audit: Some("NODE"),
        run: |c| Box::pin(import(c)),
        ..RACKS
    },
    Operation {
        title: "Read a rack controller.",
        run: |c| Box::pin(family::read(c)),
        ..RACK
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a rack controller.",
        params: CHANGES,
        audit: Some("NODE"),
        run: |c| Box::pin(update(c)),
        ..RACK
    },
    Operation {
        method: Method::Delete,
        title: "Delete a rack controller.",
        params: &[Param::opt(
            "force",
            Kind::Bool,
            "Also when it is the only one that serves DHCP on a VLAN.",
        )],
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(delete(c)),
        ..RACK
    },
    Operation {
        op: Some("details"),
        title: "What commissioning found, as BSON.",
        run: |c| Box::pin(family::details(c)),
        ..RACK
    },
    Operation {
        op: Some("power_parameters"),
        who: Who::Admin,
        title: "The power parameters, with credentials.",
        run: |c| Box::pin(family::power_parameters(c)),
        ..RACK
    },
    Operation {
        op: Some("list_boot_images"),
        who: Who::Admin,
        title: "The boot images that a rack controller serves.",
        run: |c| Box::pin(list_boot_images(c)),
        ..RACK
    },
    Operation {
        op: Some("import_boot_images"),
        who: Who::Admin,
        title: "Import boot images; the rack fetches what its machines ask for.",
        success: 202,
        run: |c| Box::pin(import(c)),
        ..ACT
    },
    Operation {
        op: Some("query_power_state"),
        title: "Ask the BMC for the power state now.",
        run: |c| Box::pin(power_ops::query(c)),
        ..RACK
    },
    Operation {
        op: Some("power_on"),
        title: "Switch the power on.",
        params: &[
            COMMENT,
            Param::opt("user_data", Kind::Text, "Controllers take none."),
        ],
        run: |c| Box::pin(power_ops::on(c)),
        ..ACT
    },
    Operation {
        op: Some("power_off"),
        title: "Switch the power off.",
        params: &[
            COMMENT,
            Param::opt(
                "stop_mode",
                Kind::Choice(&["hard", "soft"]),
                "Whether to ask the system to shut down.",
            ),
        ],
        run: |c| Box::pin(power_ops::off(c)),
        ..ACT
    },
    Operation {
        op: Some("abort"),
        title: "Stop what the controller is doing.",
        params: &[COMMENT],
        run: |c| Box::pin(act::abort(c)),
        ..ACT
    },
    Operation {
        op: Some("test"),
        title: "Run tests on the controller's host.",
        params: test::PARAMS,
        run: |c| Box::pin(test_host(c)),
        ..ACT
    },
    Operation {
        op: Some("override_failed_testing"),
        title: "Use the controller although tests failed.",
        params: &[COMMENT],
        run: |c| Box::pin(test::override_failed(c)),
        ..ACT
    },
];

/// What a rack has told of itself: services by name.
pub type State = (i64, String);

/// What every rack has told of itself.
///
/// # Errors
/// When the database fails.
pub async fn states(tx: &mut Tx) -> Result<Vec<State>, ApiError> {
    Ok(store::all!(
        tx,
        State,
        "SELECT node_id, services FROM rack_state"
    )?)
}

/// A rack as the API shows it.
#[must_use]
pub fn json_of(region: &Region, view: &View, n: &NodeRow, states: &[State]) -> Value {
    let mut o = view.common_json(n, Status::from_code(n.status).unwrap_or(Status::Deployed));
    for k in ["owner", "status", "status_name", "status_message"] {
        o.remove(k);
    }
    let connected = region.hub.is_connected(&n.sid());
    let mut services = vec![json!({
        "name": "rackd",
        "status": if connected { "running" } else { "dead" },
        "status_info": if connected { "" } else { "not connected to this region" },
    })];
    if let Some((_, text)) = states.iter().find(|(id, _)| *id == n.id)
        && let Ok(Value::Object(all)) = serde_json::from_str(text)
    {
        for (name, s) in all {
            services.push(json!({
                "name": name,
                "status": if connected { s["status"].clone() } else { "unknown".into() },
                "status_info": s["info"],
            }));
        }
    }
    o.insert("service_set".into(), services.into());
    o.insert("version".into(), version::MAAS_VERSION.into());
    o.insert(
        "resource_uri".into(),
        format!("/MAAS/api/2.0/rackcontrollers/{}/", n.system_id).into(),
    );
    Value::Object(o)
}

async fn describe_power_types(_call: Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(power_type::json()))
}

/// What racks serve: they fetch the content from the region when a machine asks for it.
async fn list_boot_images(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = family::find(&mut tx, &call).await?;
    let (held, _) = image::for_racks(&mut tx).await?;
    let mut images: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for i in held.into_values() {
        let name = format!("{}/{}", i.osystem, i.release);
        images.entry((name, i.arch)).or_default().push(i.subarch);
    }
    let connected = call.region().hub.is_connected(&node.sid());
    Ok(Answer::json(json!({
        "images": images.into_iter().map(|((name, architecture), mut subarches)| {
            subarches.sort();
            subarches.dedup();
            json!({ "name": name, "architecture": architecture, "subarches": subarches })
        }).collect::<Vec<_>>(),
        "connected": connected,
        "status": if connected { "synced" } else { "unknown" },
    })))
}

/// Racks have no images of their own: they fetch from the region what is asked of them. So it is the
/// region's import that is started.
async fn import(call: Call) -> Result<Answer, ApiError> {
    let text = call
        .write(|tx, call| {
            Box::pin(async move {
                let whom = if call.path("system_id").is_empty() {
                    "all rack controllers".to_owned()
                } else {
                    family::find(tx, &call).await?.hostname
                };
                image::sync::request_import(tx).await?;
                Ok(format!("Import of boot images started for {whom}"))
            })
        })
        .await?;
    Ok(Answer::text(text).status(202))
}

/// Changes a controller.
///
/// # Errors
/// 400 for a field that cannot be.
pub async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = family::find(tx, &call).await?;
                let args = call.args();
                let domain = match args.filled("domain") {
                    Some(d) => create::domain_id(tx, Some(d)).await?,
                    None => node.domain_id,
                };
                let zone = match args.filled("zone") {
                    Some(z) => create::place_id(tx, "zone", Some(z)).await?,
                    None => node.zone_id,
                };
                store::exec!(
                    tx,
                    "UPDATE node SET domain_id = $2, zone_id = $3, description = $4 WHERE id = $1",
                    node.id,
                    domain,
                    zone,
                    args.text("description").unwrap_or(&node.description)
                )?;
                update::update_power(tx, &call, &node).await?;
                node.touch(tx, call.now()).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Deletes a rack. VLANs on which it serves DHCP go to their second rack; one without a second is left
/// only when forced, and serves no more. A rack that is a region as well goes on as that.
///
/// # Errors
/// 400 when a VLAN would be left without DHCP.
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    let system_id = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = match Family::Racks.by_system_id(tx, call.actor(), call.path("system_id")).await {
                    Ok(n) => n,
                    Err(e) => return Err(e),
                };
                let owner = Resource::Machine { owner: node.owner_id };
                authorize(call.actor(), Action::Admin, owner)?;
                let alone = store::all!(
                    tx,
                    (i64, i64),
                    "SELECT id, vid FROM vlan WHERE primary_rack_id = $1 AND secondary_rack_id IS NULL AND dhcp_on ORDER BY id",
                    node.id
                )?;
                if !alone.is_empty() && !call.args().bool("force")?.unwrap_or(false) {
                    let vlans: Vec<String> = alone.iter().map(|(id, vid)| format!("{vid} (id {id})")).collect();
                    return Err(ApiError::Bad(format!(
                        "{} serves DHCP on VLAN {} and no other rack controller would; give those another one, or use force.",
                        node.hostname,
                        vlans.join(", ")
                    )));
                }
                let touched = store::all!(
                    tx,
                    (i64,),
                    "UPDATE vlan SET primary_rack_id = secondary_rack_id, secondary_rack_id = NULL, \
                     dhcp_on = (dhcp_on AND secondary_rack_id IS NOT NULL) WHERE primary_rack_id = $1 RETURNING id",
                    node.id
                )?;
                let second = store::all!(
                    tx,
                    (i64,),
                    "UPDATE vlan SET secondary_rack_id = NULL WHERE secondary_rack_id = $1 RETURNING id",
                    node.id
                )?;
                for (id,) in touched.into_iter().chain(second) {
                    tx.changed("vlan", id, 0, call.now()).await?;
                }
                if node.node_type == REGION_AND_RACK {
                    store::exec!(tx, "DELETE FROM rack_state WHERE node_id = $1", node.id)?;
                    store::exec!(tx, "UPDATE node SET node_type = $2 WHERE id = $1", node.id, REGION)?;
                    node.touch(tx, call.now()).await?;
                    return Ok(None);
                }
                row::delete(tx, &node, call.now()).await?;
                Ok(Some(node.sid()))
            })
        })
        .await?;
    if let Some(id) = system_id
        && let Err(e) = call.region().timeline.forget(&id).await
    {
        tracing::warn!(error = %e, system_id = %id, "the boots of a deleted rack stay");
    }
    Ok(Answer::none())
}

/// Tests of controllers need something on their host that runs scripts; there is none yet.
async fn test_host(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = family::find(&mut tx, &call).await?;
    let owner = Resource::Machine {
        owner: node.owner_id,
    };
    authorize(call.actor(), Action::Admin, owner)?;
    test::check(&mut tx, &call, &node).await?;
    Err(ApiError::NoEngine(
        "running scripts on the hosts of controllers",
    ))
}
