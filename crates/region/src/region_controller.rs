//! `region-controllers`: the hosts that decide.

use metal::status::Status;
use serde_json::Value;

use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::family::{self, shared};
use crate::node::row::REGION_AND_RACK;
use crate::node::{NodeRow, View, filter, row};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::{rack_controller, version};

const REGIONS: Operation = Operation {
    handler: "RegionControllersHandler",
    uri: "regioncontrollers/",
    ..Operation::READ
};
const REGION: Operation = Operation {
    handler: "RegionControllerHandler",
    uri: "regioncontrollers/{system_id}/",
    ..Operation::READ
};

/// What `regioncontrollers/` shares with the other collections.
pub const SHARED: &[Operation] = &shared(
    "RegionControllersHandler",
    "AnonRegionControllersHandler",
    "regioncontrollers/",
);

/// `regioncontrollers/` and `regioncontrollers/{system_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List region controllers.",
        params: filter::FILTERS,
        run: |c| Box::pin(family::list(c)),
        ..REGIONS
    },
    Operation {
        title: "Read a region controller.",
        run: |c| Box::pin(family::read(c)),
        ..REGION
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a region controller.",
        params: rack_controller::CHANGES,
        audit: Some("NODE"),
        run: |c| Box::pin(rack_controller::update(c)),
        ..REGION
    },
    Operation {
        method: Method::Delete,
        title: "Delete a region controller that is gone.",
        params: &[Param::opt(
            "force",
            Kind::Bool,
            "Also when it is a rack as well.",
        )],
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(delete(c)),
        ..REGION
    },
    Operation {
        op: Some("details"),
        title: "What commissioning found, as BSON.",
        run: |c| Box::pin(family::details(c)),
        ..REGION
    },
    Operation {
        op: Some("power_parameters"),
        who: Who::Admin,
        title: "The power parameters, with credentials.",
        run: |c| Box::pin(family::power_parameters(c)),
        ..REGION
    },
];

/// A region as the API shows it.
#[must_use]
pub fn json_of(view: &View, n: &NodeRow) -> Value {
    let mut o = view.common_json(n, Status::from_code(n.status).unwrap_or(Status::Deployed));
    for k in ["owner", "status", "status_name", "status_message"] {
        o.remove(k);
    }
    o.insert("version".into(), version::MAAS_VERSION.into());
    o.insert(
        "resource_uri".into(),
        format!("/MAAS/api/2.0/regioncontrollers/{}/", n.system_id).into(),
    );
    Value::Object(o)
}

/// Deletes a region that is gone. The one that answers is not.
///
/// # Errors
/// 400 for the region that answers, and for one that is a rack as well unless forced.
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let node = family::find(tx, &call).await?;
            let owner = Resource::Machine { owner: node.owner_id };
            authorize(call.actor(), Action::Admin, owner)?;
            if node.hostname == rack_controller::short(&call.region().config.name) {
                return Err(ApiError::Bad(format!("{} is the region that answers you; it cannot be deleted.", node.hostname)));
            }
            if node.node_type == REGION_AND_RACK && !call.args().bool("force")?.unwrap_or(false) {
                return Err(ApiError::Bad(format!(
                    "{} is a rack controller as well; delete it with force, or as a rack controller first.",
                    node.hostname
                )));
            }
            row::delete(tx, &node, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}
