//! The operations of interfaces.

use metal::interface::{Kind as Made, bridge_name};
use metal::status::Status;
use serde_json::Value;
use store::Tx;

use super::form::{self, Fields, check_tag};
use super::{InterfaceRow, editable, link, made};
use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::node::row::{self, DEVICE, MACHINE};
use crate::node::{NodeRow, View};
use crate::operation::{Kind, Method, Operation, Param};
use crate::select_interface;
use crate::subnet::texts;

const INTERFACES: Operation = Operation {
    handler: "InterfacesHandler",
    uri: "nodes/{system_id}/interfaces/",
    ..Operation::READ
};
const INTERFACE: Operation = Operation {
    handler: "InterfaceHandler",
    uri: "nodes/{system_id}/interfaces/{id}/",
    ..Operation::READ
};
const ACT: Operation = Operation {
    method: Method::Post,
    audit: Some("NODE"),
    ..INTERFACE
};

/// `nodes/{system_id}/interfaces/` and `nodes/{system_id}/interfaces/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the interfaces of a node.",
        run: |c| Box::pin(list(c)),
        ..INTERFACES
    },
    Operation {
        method: Method::Post,
        op: Some("create_physical"),
        title: "Add a physical interface.",
        params: form::CREATE_PARAMS,
        audit: Some("NODE"),
        run: |c| Box::pin(create_physical(c)),
        ..INTERFACES
    },
    Operation {
        method: Method::Post,
        op: Some("create_bond"),
        title: "Make one interface of several cards.",
        params: made::CREATE_BOND,
        audit: Some("NODE"),
        run: |c| Box::pin(create_made(c, Made::Bond)),
        ..INTERFACES
    },
    Operation {
        method: Method::Post,
        op: Some("create_bridge"),
        title: "Put a bridge on an interface.",
        params: made::CREATE_BRIDGE,
        audit: Some("NODE"),
        run: |c| Box::pin(create_made(c, Made::Bridge)),
        ..INTERFACES
    },
    Operation {
        method: Method::Post,
        op: Some("create_vlan"),
        title: "Add an interface for the tagged packets of another one.",
        params: made::CREATE_VLAN,
        audit: Some("NODE"),
        run: |c| Box::pin(create_made(c, Made::Vlan)),
        ..INTERFACES
    },
    Operation {
        title: "Read an interface.",
        run: |c| Box::pin(read(c)),
        ..INTERFACE
    },
    Operation {
        method: Method::Put,
        title: "Change an interface.",
        params: made::UPDATE,
        audit: Some("NODE"),
        run: |c| Box::pin(update(c)),
        ..INTERFACE
    },
    Operation {
        method: Method::Delete,
        title: "Delete an interface.",
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(delete(c)),
        ..INTERFACE
    },
    Operation {
        op: Some("link_subnet"),
        title: "Give an interface an address in a subnet.",
        params: link::PARAMS,
        run: |c| Box::pin(link_subnet(c)),
        ..ACT
    },
    Operation {
        op: Some("unlink_subnet"),
        title: "Take an address from an interface.",
        params: &[Param::field("id", Kind::Int, "Id of the link.")],
        run: |c| Box::pin(unlink_subnet(c)),
        ..ACT
    },
    Operation {
        op: Some("disconnect"),
        title: "Take all addresses and the VLAN from an interface.",
        run: |c| Box::pin(disconnect(c)),
        ..ACT
    },
    Operation {
        op: Some("set_default_gateway"),
        title: "Use the gateway of one of its subnets as the machine's default gateway.",
        params: &[Param::opt(
            "link_id",
            Kind::Int,
            "Id of the link, when more than one has a gateway.",
        )],
        run: |c| Box::pin(set_default_gateway(c)),
        ..ACT
    },
    Operation {
        op: Some("add_tag"),
        title: "Add a tag.",
        params: &[Param::must("tag", Kind::Text, "The tag.")],
        run: |c| Box::pin(add_tag(c)),
        ..ACT
    },
    Operation {
        op: Some("remove_tag"),
        title: "Remove a tag.",
        params: &[Param::must("tag", Kind::Text, "The tag.")],
        run: |c| Box::pin(remove_tag(c)),
        ..ACT
    },
];

/// The node of the path, when the caller may change its interfaces at all.
async fn node_to_change(tx: &mut Tx, call: &Call) -> Result<NodeRow, ApiError> {
    let node = row::by_system_id(tx, call.actor(), call.path("system_id")).await?;
    // Devices belong to people; machines to administrators.
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
    if node.locked {
        return Err(ApiError::Conflict(format!(
            "{} is locked; unlock it first.",
            node.hostname
        )));
    }
    Ok(node)
}

/// The interface of the path, by id or name.
async fn find(tx: &mut Tx, call: &Call, node: &NodeRow) -> Result<InterfaceRow, ApiError> {
    let text = call.path("id");
    let id: i64 = text.parse().unwrap_or(-1);
    store::opt!(
        tx,
        InterfaceRow,
        select_interface!("WHERE i.node_id = $1 AND (i.id = $2 OR i.name = $3)"),
        node.id,
        id,
        text
    )?
    .ok_or_else(|| ApiError::missing("Interface"))
}

/// The node and the interface of the path, for a change.
async fn target(tx: &mut Tx, call: &Call, what: &str) -> Result<(NodeRow, InterfaceRow), ApiError> {
    let node = node_to_change(tx, call).await?;
    let interface = find(tx, call, &node).await?;
    editable(&node, what)?;
    Ok((node, interface))
}

async fn view(tx: &mut Tx, call: &Call, node: &NodeRow) -> Result<View, ApiError> {
    View::load(tx, std::slice::from_ref(node), call.now()).await
}

/// The interface as it is now.
async fn shown(tx: &mut Tx, call: &Call, node: &NodeRow, id: i64) -> Result<Value, ApiError> {
    let v = view(tx, call, node).await?;
    v.interfaces_of(node.id)
        .iter()
        .find(|i| i.id == id)
        .map(|i| i.json(&node.system_id, &v.around))
        .ok_or_else(|| ApiError::missing("Interface"))
}

/// Ends a change: the feed hears of the node, the caller of the interface.
async fn changed(tx: &mut Tx, call: &Call, node: &NodeRow, id: i64) -> Result<Value, ApiError> {
    link::drop_gateways(tx, node).await?;
    node.touch(tx, call.now()).await?;
    shown(tx, call, node, id).await
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    let v = view(&mut tx, &call, &node).await?;
    Ok(Answer::json(
        v.interfaces_of(node.id)
            .iter()
            .map(|i| i.json(&node.system_id, &v.around))
            .collect(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let node = row::by_system_id(&mut tx, call.actor(), call.path("system_id")).await?;
    let found = find(&mut tx, &call, &node).await?;
    Ok(Answer::json(shown(&mut tx, &call, &node, found.id).await?))
}

/// The next free name of the form `eth0`.
async fn next_name(tx: &mut Tx, node: &NodeRow) -> Result<String, ApiError> {
    let rows = store::all!(
        tx,
        (String,),
        "SELECT name FROM interface WHERE node_id = $1",
        node.id
    )?;
    let next = rows
        .iter()
        .filter_map(|(n,)| n.strip_prefix("eth")?.parse::<u32>().ok())
        .max()
        .map_or(0, |n| n.saturating_add(1));
    Ok(format!("eth{next}"))
}

/// An interface that is not in the database yet.
fn blank(node: &NodeRow, name: String) -> InterfaceRow {
    InterfaceRow {
        id: -1,
        node_id: node.id,
        name,
        r#type: "physical".to_owned(),
        mac: None,
        vlan_id: None,
        enabled: true,
        params: String::new(),
        tags: "[]".to_owned(),
        vendor: None,
        product: None,
        firmware_version: None,
        link_connected: true,
        interface_speed: 0,
        link_speed: 0,
        numa_index: None,
        sriov_max_vf: 0,
    }
}

async fn insert(tx: &mut Tx, call: &Call, new: &mut InterfaceRow) -> Result<(), ApiError> {
    let (id,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO interface (node_id, name, type, mac, vlan_id, enabled, params, tags, link_connected, interface_speed, \
         link_speed, numa_index, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13) RETURNING id",
        new.node_id,
        &new.name,
        &new.r#type,
        &new.mac,
        new.vlan_id,
        new.enabled,
        &new.params,
        &new.tags,
        new.link_connected,
        new.interface_speed,
        new.link_speed,
        new.numa_index,
        call.now().0
    )?;
    new.id = id;
    Ok(())
}

async fn create_physical(call: Call) -> Result<Answer, ApiError> {
    call.args().required("mac_address")?;
    let fields = Fields::from_args(call.args())?;
    let value = call
        .write(move |tx, call| {
            let fields = fields.clone();
            Box::pin(async move {
                let node = node_to_change(tx, &call).await?;
                editable(&node, "create")?;
                let mut new = blank(&node, next_name(tx, &node).await?);
                fields.fill(tx, &node, &mut new).await?;
                insert(tx, &call, &mut new).await?;
                link::ensure_up(tx, &new, call.now()).await?;
                changed(tx, &call, &node, new.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn create_made(call: Call, kind: Made) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let node = node_to_change(tx, &call).await?;
                let fields = Fields::from_args(call.args())?;
                // Devices have cards only.
                if node.node_type == DEVICE {
                    return Err(ApiError::missing("Machine"));
                }
                editable(&node, "create")?;
                let row = InterfaceRow {
                    r#type: kind.word().to_owned(),
                    ..blank(&node, String::new())
                };
                let (mut new, parents) =
                    made::new(tx, &node, kind, call.args(), &fields, row).await?;
                insert(tx, &call, &mut new).await?;
                let held = node.node_type == MACHINE && node.status()? == Status::Allocated;
                if held && kind == Made::Bridge {
                    made::borrow(tx, &new, &parents).await?;
                }
                made::put_on(tx, &new, &parents, call.now()).await?;
                link::ensure_up(tx, &new, call.now()).await?;
                changed(tx, &call, &node, new.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Puts a bridge on every interface that is configured, with what the request says of bridges, until the
/// machine is released.
///
/// # Errors
/// 400 when a bridge's name is taken or its parameters are wrong.
pub async fn bridge_all(tx: &mut Tx, call: &Call, node: &NodeRow) -> Result<(), ApiError> {
    let all = store::all!(
        tx,
        InterfaceRow,
        select_interface!("WHERE i.node_id = $1 ORDER BY i.id"),
        node.id
    )?;
    let configured = store::all!(
        tx,
        (i64,),
        "SELECT DISTINCT a.interface_id FROM ip_address a JOIN interface i ON i.id = a.interface_id \
         WHERE i.node_id = $1 AND a.subnet_id IS NOT NULL",
        node.id
    )?;
    for parent in &all {
        let is_configured = configured.contains(&(parent.id,));
        if parent.r#type == Made::Bridge.word() || !parent.enabled || !is_configured {
            continue;
        }
        let mut new = InterfaceRow {
            r#type: Made::Bridge.word().to_owned(),
            mac: parent.mac.clone(),
            vlan_id: parent.vlan_id,
            ..blank(node, bridge_name(&parent.name))
        };
        if all.iter().any(|i| i.name == new.name) {
            return Err(ApiError::field(
                "bridge_all",
                format!("{} has an interface {} already.", node.hostname, new.name),
            ));
        }
        made::fill_bridge(call.args(), &mut new)?;
        insert(tx, call, &mut new).await?;
        made::borrow(tx, &new, &[parent.id]).await?;
        made::put_on(tx, &new, &[parent.id], call.now()).await?;
    }
    Ok(())
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let fields = Fields::from_args(call.args())?;
    let value = call
        .write(move |tx, call| {
            let fields = fields.clone();
            Box::pin(async move {
                let node = node_to_change(tx, &call).await?;
                let mut i = find(tx, &call, &node).await?;
                let (vlan, mut parents) = (i.vlan_id, None);
                let fields = match node.node_type {
                    MACHINE if node.status()? == Status::Deployed => fields.of_deployed(),
                    MACHINE | DEVICE => {
                        editable(&node, "update")?;
                        let mut fields = fields;
                        parents = made::change(tx, &node, call.args(), &mut fields, &mut i).await?;
                        fields
                    }
                    _ => fields.of_controller(),
                };
                fields.fill(tx, &node, &mut i).await?;
                store::exec!(
                    tx,
                    "UPDATE interface SET name = $2, mac = $3, vlan_id = $4, params = $5, tags = $6, link_connected = $7, \
                     interface_speed = $8, link_speed = $9, enabled = $10, numa_index = $11, updated = $12 WHERE id = $1",
                    i.id,
                    &i.name,
                    &i.mac,
                    i.vlan_id,
                    &i.params,
                    &i.tags,
                    i.link_connected,
                    i.interface_speed,
                    i.link_speed,
                    i.enabled,
                    i.numa_index,
                    call.now().0
                )?;
                match parents {
                    Some(parents) => made::put_on(tx, &i, &parents, call.now()).await?,
                    None if i.vlan_id != vlan => made::follow(tx, &i, call.now()).await?,
                    None => {}
                }
                if i.vlan_id != vlan {
                    link::leave_other_vlans(tx, &i).await?;
                    link::ensure_up(tx, &i, call.now()).await?;
                }
                changed(tx, &call, &node, i.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let (node, i) = target(tx, &call, "delete").await?;
            made::remove(tx, &node, i.id, call.now()).await?;
            link::drop_gateways(tx, &node).await?;
            node.touch(tx, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn link_subnet(call: Call) -> Result<Answer, ApiError> {
    let wish = link::Wish::from_args(call.args())?;
    let value = call
        .write(move |tx, call| {
            let wish = wish.clone();
            Box::pin(async move {
                let (node, i) = target(tx, &call, "link").await?;
                let stack = made::Stack::load(tx, &node).await?;
                if let Some(by) = stack.taken_by(i.id, -1) {
                    return Err(ApiError::field(
                        "__all__",
                        format!("{} is part of {}; link that one instead.", i.name, by.name),
                    ));
                }
                link::make(tx, &node, &i, &wish, call.now()).await?;
                changed(tx, &call, &node, i.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn unlink_subnet(call: Call) -> Result<Answer, ApiError> {
    let id = call
        .args()
        .int("id")?
        .ok_or_else(|| ApiError::field("id", "This field is required."))?;
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let (node, i) = target(tx, &call, "unlink").await?;
                let gone = store::exec!(
                    tx,
                    "DELETE FROM ip_address WHERE id = $1 AND interface_id = $2",
                    id,
                    i.id
                )?;
                if gone == 0 {
                    return Err(ApiError::field(
                        "id",
                        "Select a valid choice. That choice is not one of the available choices.",
                    ));
                }
                link::ensure_up(tx, &i, call.now()).await?;
                changed(tx, &call, &node, i.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn disconnect(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let (node, i) = target(tx, &call, "disconnect").await?;
                store::exec!(tx, "DELETE FROM ip_address WHERE interface_id = $1", i.id)?;
                store::exec!(
                    tx,
                    "UPDATE interface SET vlan_id = NULL, updated = $2 WHERE id = $1",
                    i.id,
                    call.now().0
                )?;
                changed(tx, &call, &node, i.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn set_default_gateway(call: Call) -> Result<Answer, ApiError> {
    let chosen = call.args().int("link_id")?;
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let (node, i) = target(tx, &call, "set default gateway of").await?;
                link::choose_gateway(tx, &node, &i, chosen).await?;
                changed(tx, &call, &node, i.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn set_tags(
    tx: &mut Tx,
    call: &Call,
    change: impl FnOnce(&mut Vec<String>) + Send,
) -> Result<Value, ApiError> {
    let node = node_to_change(tx, call).await?;
    let i = find(tx, call, &node).await?;
    let mut tags = texts(&i.tags);
    change(&mut tags);
    tags.sort();
    tags.dedup();
    if tags.len() > form::MAX_TAGS {
        return Err(ApiError::field(
            "tag",
            format!("At most {} tags are kept.", form::MAX_TAGS),
        ));
    }
    store::exec!(
        tx,
        "UPDATE interface SET tags = $2, updated = $3 WHERE id = $1",
        i.id,
        serde_json::to_string(&tags).unwrap_or_default(),
        call.now().0
    )?;
    changed(tx, call, &node, i.id).await
}

async fn add_tag(call: Call) -> Result<Answer, ApiError> {
    check_tag(call.args().required("tag")?)?;
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let tag = call.args().required("tag")?.to_owned();
                set_tags(tx, &call, |tags| tags.push(tag)).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn remove_tag(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let tag = call.args().required("tag")?.to_owned();
                set_tags(tx, &call, |tags| tags.retain(|t| *t != tag)).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}
