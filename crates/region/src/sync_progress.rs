//! What the processes of a MAAS tell each other over its API: how far regions are with copying images, and the
//! configuration of its agents. Regions and racks of this product do that over their link.

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::row;
use crate::operation::{Method, Operation, Who};

const ALL: Operation = Operation {
    uri: "images-sync-progress/",
    who: Who::Anyone,
    ..Operation::READ
};
const ONE: Operation = Operation {
    uri: "images-sync-progress/{file_id}/{system_id}/",
    who: Who::Anyone,
    ..Operation::READ
};
const AGENT: Operation = Operation {
    uri: "agents/{system_id}/services/{service_name}/config/",
    who: Who::Anyone,
    ..Operation::READ
};

/// `images-sync-progress/…` and `agents/…/config/`; none of them is in the describe document.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "How far all regions are with all files.",
        run: |_| Box::pin(async { Err(COPIES) }),
        ..ALL
    },
    Operation {
        method: Method::Post,
        title: "Tell how far a region is with several files.",
        run: |_| Box::pin(async { Err(COPIES) }),
        ..ALL
    },
    Operation {
        title: "How far a region is with a file.",
        run: |c| Box::pin(one(c)),
        ..ONE
    },
    Operation {
        method: Method::Put,
        title: "Tell how far a region is with a file.",
        run: |c| Box::pin(one(c)),
        ..ONE
    },
    Operation {
        title: "The configuration of a service of an agent.",
        run: |c| Box::pin(agent(c)),
        ..AGENT
    },
    Operation {
        method: Method::Post,
        title: "Ask for the configuration of a service of an agent.",
        run: |c| Box::pin(agent(c)),
        ..AGENT
    },
];

const COPIES: ApiError = ApiError::NoEngine("the exchange of image files between regions of MAAS");
const AGENTS: ApiError = ApiError::NoEngine("the services of the agent of MAAS");

async fn one(call: Call) -> Result<Answer, ApiError> {
    let id = call.path_id("file_id", "BootResourceFile")?;
    let mut tx = call.read().await?;
    store::opt!(
        tx,
        (i64,),
        "SELECT id FROM boot_resource_file WHERE id = $1",
        id
    )?
    .ok_or_else(|| ApiError::missing("BootResourceFile"))?;
    row::find(&mut tx, call.path("system_id"))
        .await?
        .ok_or_else(|| ApiError::missing("RegionController"))?;
    Err(COPIES)
}

async fn agent(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    row::find(&mut tx, call.path("system_id"))
        .await?
        .ok_or_else(|| ApiError::missing("RackController"))?;
    Err(AGENTS)
}
