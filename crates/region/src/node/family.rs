//! The kinds of nodes as the API has them: each with its collection, its name in answers, and its JSON.
//! What all of them can be asked for is here once.

use metal::MacAddr;
use metal::status::Status;
use serde_json::{Map, Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::{Action, Actor, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::row::{self, DEVICE, MACHINE, REGION};
use crate::node::{NodeRow, View, filter};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::select_node;
use crate::{power, rack_controller, region_controller};

/// A kind of node, by its collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `nodes`: all of them.
    Nodes,
    /// `machines`.
    Machines,
    /// `devices`.
    Devices,
    /// `rackcontrollers`.
    Racks,
    /// `regioncontrollers`.
    Regions,
}

impl Family {
    /// The kind that the path of an operation is about.
    #[must_use]
    pub fn of(operation: &Operation) -> Self {
        match operation.uri.split('/').next() {
            Some("machines") => Self::Machines,
            Some("devices") => Self::Devices,
            Some("rackcontrollers") => Self::Racks,
            Some("regioncontrollers") => Self::Regions,
            _ => Self::Nodes,
        }
    }

    /// The numbers of its types, as a JSON list.
    const fn types(self) -> &'static str {
        match self {
            Self::Nodes => "[0,1,2,3,4]",
            Self::Machines => "[0]",
            Self::Devices => "[1]",
            Self::Racks => "[2,4]",
            Self::Regions => "[3,4]",
        }
    }

    const fn has(self, node_type: i64) -> bool {
        match self {
            Self::Nodes => true,
            Self::Machines => node_type == 0,
            Self::Devices => node_type == 1,
            Self::Racks => matches!(node_type, 2 | 4),
            Self::Regions => matches!(node_type, 3 | 4),
        }
    }

    /// What is missing when there is none.
    const fn model(self) -> &'static str {
        match self {
            Self::Nodes => "Node",
            Self::Machines => "Machine",
            Self::Devices => "Device",
            Self::Racks => "RackController",
            Self::Regions => "RegionController",
        }
    }

    /// Every node of this kind that the actor may see.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn visible(self, tx: &mut Tx, actor: &Actor) -> Result<Vec<NodeRow>, ApiError> {
        Ok(store::all!(
            tx,
            NodeRow,
            select_node!(
                "WHERE n.node_type IN @ids($3) AND (n.owner_id IS NULL OR n.owner_id = $1 OR $2) ORDER BY n.id"
            ),
            actor.user_id(),
            actor.is_admin(),
            self.types()
        )?)
    }

    /// A node of this kind by its system id; 404 also for those that the actor may not see.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn by_system_id(
        self,
        tx: &mut Tx,
        actor: &Actor,
        system_id: &str,
    ) -> Result<NodeRow, ApiError> {
        match row::by_system_id(tx, actor, system_id).await {
            Ok(n) if self.has(n.node_type) => Ok(n),
            Ok(_) | Err(ApiError::NotFound(_)) => Err(ApiError::missing(self.model())),
            Err(e) => Err(e),
        }
    }
}

/// The node that the path of a call names.
///
/// # Errors
/// 404 when there is none of the kind, or the caller may not see it.
pub async fn find(tx: &mut Tx, call: &Call) -> Result<NodeRow, ApiError> {
    Family::of(call.operation())
        .by_system_id(tx, call.actor(), call.path("system_id"))
        .await
}

/// Nodes of any kind as the API shows them. A controller that is both is shown as a region only where
/// regions are asked for.
///
/// # Errors
/// When the database fails.
pub async fn json_of(
    tx: &mut Tx,
    call: &Call,
    family: Family,
    nodes: &[NodeRow],
    view: &View,
) -> Result<Vec<Value>, ApiError> {
    let racks = if nodes
        .iter()
        .any(|n| !matches!(n.node_type, MACHINE | DEVICE))
    {
        rack_controller::states(tx).await?
    } else {
        Vec::new()
    };
    Ok(nodes
        .iter()
        .map(|n| match n.node_type {
            MACHINE => view.machine_json(n),
            DEVICE => view.device_json(n),
            REGION => region_controller::json_of(view, n),
            _ if family == Family::Regions => region_controller::json_of(view, n),
            _ => rack_controller::json_of(call.region(), view, n, &racks),
        })
        .collect())
}

/// One node of any kind, read anew by its database id, as the path of the call shows it.
///
/// # Errors
/// When the database fails.
pub async fn fresh(tx: &mut Tx, call: &Call, id: i64) -> Result<Value, ApiError> {
    let nodes = [row::by_id(tx, id).await?];
    let view = View::load(tx, &nodes, call.now()).await?;
    let all = json_of(tx, call, Family::of(call.operation()), &nodes, &view).await?;
    Ok(all.into_iter().next().unwrap_or(Value::Null))
}

/// Lists the nodes of the path's kind that meet the filters.
///
/// # Errors
/// 400 for a filter that cannot be read.
pub async fn list(call: Call) -> Result<Answer, ApiError> {
    let family = Family::of(call.operation());
    let mut tx = call.read().await?;
    let nodes = family.visible(&mut tx, call.actor()).await?;
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    let nodes = filter::keep(&mut tx, call.args(), nodes, &view).await?;
    let all = json_of(&mut tx, &call, family, &nodes, &view).await?;
    Ok(Answer::json(all.into()))
}

/// Reads one node.
///
/// # Errors
/// 404 when there is none.
pub async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = find(&mut tx, &call).await?;
    fresh(&mut tx, &call, node.id).await.map(Answer::json)
}

/// Whether a node with a MAC address is known.
///
/// # Errors
/// When the database fails.
pub async fn is_registered(call: Call) -> Result<Answer, ApiError> {
    // A list of addresses is compared as one, as upstream has it: it matches nothing.
    let Ok(mac) = call.args().required("mac_address")?.parse::<MacAddr>() else {
        return Ok(Answer::json(false.into()));
    };
    let mut tx = call.read().await?;
    let Some(node) = row::by_mac(&mut tx, &mac.to_string()).await? else {
        return Ok(Answer::json(false.into()));
    };
    // A machine that is being enlisted asks again and again; it may.
    let open = matches!(
        node.status()?,
        Status::New | Status::Commissioning | Status::Retired
    ) && node.node_type == MACHINE;
    let known = *call.actor() != Actor::Anonymous || !open;
    Ok(Answer::json(known.into()))
}

/// Whether the machine with a MAC address is being commissioned or deployed.
///
/// # Errors
/// When the database fails.
pub async fn is_action_in_progress(call: Call) -> Result<Answer, ApiError> {
    let Ok(mac) = call.args().required("mac_address")?.parse::<MacAddr>() else {
        return Ok(Answer::json(false.into()));
    };
    let mut tx = call.read().await?;
    let busy = match row::by_mac(&mut tx, &mac.to_string()).await? {
        None => false,
        Some(node) => matches!(node.status()?, Status::Commissioning | Status::Deploying),
    };
    Ok(Answer::json(busy.into()))
}

/// Puts several nodes into a zone: all of them or none.
///
/// # Errors
/// 400 for a zone or a node that is not there, 403 for a node that is not the caller's to change.
pub async fn set_zone(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let name = call.args().filled("zone").unwrap_or("");
            let number = name.parse::<i64>().unwrap_or(-1);
            let (zone,) = store::opt!(
                tx,
                (i64,),
                "SELECT id FROM zone WHERE name = $1 OR id = $2 ORDER BY id LIMIT 1",
                name,
                number
            )?
            .ok_or_else(|| {
                ApiError::field(
                    "zone",
                    "Select a valid choice. That choice is not one of the available choices.",
                )
            })?;
            let family = Family::of(call.operation());
            for id in call.args().list("nodes") {
                let node = match family.by_system_id(tx, call.actor(), &id).await {
                    Ok(n) => n,
                    Err(ApiError::NotFound(_)) => {
                        return Err(ApiError::field("nodes", format!("Unknown node: {id}.")));
                    }
                    Err(e) => return Err(e),
                };
                let action = if node.node_type == DEVICE {
                    Action::Edit
                } else {
                    Action::Admin
                };
                authorize(
                    call.actor(),
                    action,
                    Resource::Machine {
                        owner: node.owner_id,
                    },
                )?;
                store::exec!(
                    tx,
                    "UPDATE node SET zone_id = $2 WHERE id = $1",
                    node.id,
                    zone
                )?;
                node.touch(tx, call.now()).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Answer::json(Value::Null))
}

/// What commissioning found, as BSON.
///
/// # Errors
/// 404 when there is no such node.
pub async fn details(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = find(&mut tx, &call).await?;
    let Some(set) = node.current_commissioning_set_id else {
        return Ok(bson(&[]));
    };
    let rows = store::all!(
        tx,
        (String, Option<Vec<u8>>),
        "SELECT script_name, stdout FROM script_result WHERE script_set_id = $1 AND status = 2 AND script_name IN ('maas-lshw', 'maas-capture-lldpd')",
        set
    )?;
    let parts: Vec<(&str, Vec<u8>)> = rows
        .into_iter()
        .filter_map(|(name, out)| Some((if name == "maas-lshw" { "lshw" } else { "lldp" }, out?)))
        .collect();
    Ok(bson(&parts))
}

/// A BSON document of binary values (bsonspec.org, version 1.1); `lshw` and `lldp` are always there.
fn bson(parts: &[(&str, Vec<u8>)]) -> Answer {
    let mut body = Vec::new();
    for key in ["lldp", "lshw"] {
        match parts.iter().find(|(k, _)| *k == key) {
            Some((_, bytes)) => {
                body.push(0x05);
                body.extend_from_slice(key.as_bytes());
                body.push(0);
                body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
                body.push(0);
                body.extend_from_slice(bytes);
            }
            None => {
                body.push(0x0a);
                body.extend_from_slice(key.as_bytes());
                body.push(0);
            }
        }
    }
    let total = u32::try_from(body.len() + 5).unwrap_or(u32::MAX);
    let mut out = total.to_le_bytes().to_vec();
    out.extend_from_slice(&body);
    out.push(0);
    Answer::bytes(out.into(), "application/bson")
}

/// The power parameters of one node, with credentials.
///
/// # Errors
/// 404 when there is no such node.
pub async fn power_parameters(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = find(&mut tx, &call).await?;
    Answer::of(&power::parameters(&mut tx, call.region(), &node).await?)
}

/// The power parameters of several nodes, by system id.
///
/// # Errors
/// 404 when one is not there.
pub async fn several_power_parameters(call: Call) -> Result<Answer, ApiError> {
    let family = Family::of(call.operation());
    let mut tx = call.read().await?;
    let mut out = Map::new();
    for id in call.args().list("id") {
        let node = family.by_system_id(&mut tx, call.actor(), &id).await?;
        let parameters = power::parameters(&mut tx, call.region(), &node).await?;
        out.insert(id, json!(parameters));
    }
    Ok(Answer::json(out.into()))
}

const SET_ZONE: &[Param] = &[
    Param::must("zone", Kind::Text, "The zone, by name."),
    Param::must("nodes", Kind::List, "System ids."),
];
const MAC: &[Param] = &[Param::must("mac_address", Kind::Text, "The MAC address.")];

/// What every collection of nodes can be asked: for callers with a key and for those without.
#[must_use]
pub const fn shared(
    handler: &'static str,
    anonymous: &'static str,
    uri: &'static str,
) -> [Operation; 4] {
    let collection = Operation {
        handler,
        uri,
        ..Operation::READ
    };
    let open = Operation {
        handler: anonymous,
        uri,
        who: Who::Anyone,
        params: MAC,
        ..Operation::READ
    };
    [
        Operation {
            op: Some("is_registered"),
            title: "Whether something with this MAC address is known.",
            params: MAC,
            run: |c| Box::pin(is_registered(c)),
            ..collection
        },
        Operation {
            op: Some("is_registered"),
            title: "Whether something with this MAC address is known.",
            run: |c| Box::pin(is_registered(c)),
            ..open
        },
        Operation {
            op: Some("is_action_in_progress"),
            title: "Whether the machine with this MAC address is being commissioned or deployed.",
            run: |c| Box::pin(is_action_in_progress(c)),
            ..open
        },
        Operation {
            method: Method::Post,
            op: Some("set_zone"),
            title: "Put several of them into a zone.",
            params: SET_ZONE,
            audit: Some("NODE"),
            run: |c| Box::pin(set_zone(c)),
            ..collection
        },
    ]
}

const NODES: Operation = Operation {
    handler: "NodesHandler",
    uri: "nodes/",
    ..Operation::READ
};
const NODE: Operation = Operation {
    handler: "NodeHandler",
    uri: "nodes/{system_id}/",
    ..Operation::READ
};

/// What `nodes/` shares with the other collections.
pub const SHARED: &[Operation] = &shared("NodesHandler", "AnonNodesHandler", "nodes/");

/// `nodes/` and `nodes/{system_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List machines, devices and controllers.",
        params: filter::FILTERS,
        run: |c| Box::pin(list(c)),
        ..NODES
    },
    Operation {
        title: "Read a machine, a device or a controller.",
        run: |c| Box::pin(read(c)),
        ..NODE
    },
    Operation {
        method: Method::Delete,
        title: "Delete a machine, a device or a controller.",
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(delete(c)),
        ..NODE
    },
    Operation {
        op: Some("details"),
        title: "What commissioning found, as BSON.",
        run: |c| Box::pin(details(c)),
        ..NODE
    },
    Operation {
        op: Some("power_parameters"),
        who: Who::Admin,
        title: "The power parameters, with credentials.",
        run: |c| Box::pin(power_parameters(c)),
        ..NODE
    },
];

/// Deletes a node by the rules of its kind.
async fn delete(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = find(&mut tx, &call).await?;
    drop(tx);
    match node.node_type {
        MACHINE => crate::machine::update::delete(call).await,
        DEVICE => {
            // A device's owner deletes it through devices/; here it takes an administrator, as for all nodes.
            let owner = Resource::Machine {
                owner: node.owner_id,
            };
            authorize(call.actor(), Action::Admin, owner)?;
            crate::device::delete(call).await
        }
        REGION => region_controller::delete(call).await,
        _ => rack_controller::delete(call).await,
    }
}
