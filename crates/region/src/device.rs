//! `devices`: what has a name and addresses here, and is not managed: a printer, a container of a machine.

use metal::status::Status;
use metal::{MacAddr, SystemId};
use rand::Rng as _;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::machine::{act, create};
use crate::node::family::{self, Family, shared};
use crate::node::{NodeRow, View, filter, row};
use crate::operation::{Kind, Method, Need, Operation, Param, Who};

const DEVICES: Operation = Operation {
    handler: "DevicesHandler",
    uri: "devices/",
    ..Operation::READ
};
const DEVICE: Operation = Operation {
    handler: "DeviceHandler",
    uri: "devices/{system_id}/",
    ..Operation::READ
};
const ACT: Operation = Operation {
    method: Method::Post,
    audit: Some("NODE"),
    ..DEVICE
};
const PARENT: Param = Param::opt(
    "parent",
    Kind::Text,
    "System id of the machine that it belongs to.",
);
const ANNOTATION: &[Param] = &[Param {
    name: "key",
    kind: Kind::Prefix,
    need: Need::Optional,
    doc: "Any name.",
}];

/// What `devices/` shares with the other collections.
pub const SHARED: &[Operation] = &shared("DevicesHandler", "AnonDevicesHandler", "devices/");

/// `devices/` and `devices/{system_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List devices.",
        params: filter::FILTERS,
        run: |c| Box::pin(family::list(c)),
        ..DEVICES
    },
    Operation {
        method: Method::Post,
        title: "Add a device.",
        params: &[
            Param::opt(
                "hostname",
                Kind::Text,
                "Host name; one is made up when left out.",
            ),
            Param::opt("description", Kind::Text, "A description."),
            Param::opt("domain", Kind::Text, "Its DNS domain, by name or id."),
            Param::field(
                "mac_addresses",
                Kind::List,
                "MAC addresses of its network interfaces.",
            ),
            PARENT,
            Param::opt("zone", Kind::Text, "Its zone, by name."),
        ],
        audit: Some("NODE"),
        run: |c| Box::pin(create(c)),
        ..DEVICES
    },
    Operation {
        title: "Read a device.",
        run: |c| Box::pin(family::read(c)),
        ..DEVICE
    },
    Operation {
        method: Method::Put,
        title: "Change a device.",
        params: &[
            Param::opt("hostname", Kind::Text, "Host name."),
            Param::opt("description", Kind::Text, "A description."),
            Param::opt("domain", Kind::Text, "Its DNS domain, by name or id."),
            PARENT,
            Param::opt("zone", Kind::Text, "Its zone, by name."),
        ],
        audit: Some("NODE"),
        run: |c| Box::pin(update(c)),
        ..DEVICE
    },
    Operation {
        method: Method::Delete,
        title: "Delete a device.",
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(delete(c)),
        ..DEVICE
    },
    Operation {
        op: Some("details"),
        title: "What commissioning found, as BSON; devices are not commissioned.",
        run: |c| Box::pin(family::details(c)),
        ..DEVICE
    },
    Operation {
        op: Some("power_parameters"),
        who: Who::Admin,
        title: "The power parameters; devices have none.",
        run: |c| Box::pin(family::power_parameters(c)),
        ..DEVICE
    },
    Operation {
        op: Some("restore_default_configuration"),
        title: "Go back to interfaces without addresses.",
        run: |c| Box::pin(restore(c)),
        ..ACT
    },
    Operation {
        op: Some("restore_networking_configuration"),
        title: "Go back to interfaces without addresses.",
        run: |c| Box::pin(restore(c)),
        ..ACT
    },
    Operation {
        op: Some("set_workload_annotations"),
        title: "Set annotations: each parameter is one; an empty value removes it.",
        params: ANNOTATION,
        run: |c| Box::pin(act::annotate(c)),
        ..ACT
    },
    Operation {
        op: Some("set_owner_data"),
        title: "The older name of set_workload_annotations.",
        run: |c| Box::pin(act::annotate(c)),
        ..ACT
    },
];

impl View {
    /// A device as `devices` shows it.
    #[must_use]
    pub fn device_json(&self, n: &NodeRow) -> Value {
        let mut o = self.common_json(n, Status::New);
        o.retain(|k, _| {
            matches!(
                k.as_str(),
                "system_id"
                    | "hostname"
                    | "description"
                    | "domain"
                    | "fqdn"
                    | "owner"
                    | "tag_names"
                    | "ip_addresses"
                    | "interface_set"
                    | "zone"
                    | "node_type"
                    | "node_type_name"
            )
        });
        let data = Value::Object(self.owner_data_of(n.id));
        o.insert("owner_data".to_owned(), data.clone());
        o.insert("workload_annotations".to_owned(), data);
        o.insert("address_ttl".to_owned(), n.address_ttl.into());
        o.insert("parent".to_owned(), json!(n.parent));
        o.insert(
            "resource_uri".to_owned(),
            format!("/MAAS/api/2.0/devices/{}/", n.system_id).into(),
        );
        Value::Object(o)
    }
}

/// The node that a device shall belong to: one that the caller may see.
async fn parent_id(tx: &mut Tx, call: &Call) -> Result<Option<i64>, ApiError> {
    let Some(id) = call.args().filled("parent") else {
        return Ok(None);
    };
    match row::by_system_id(tx, call.actor(), id).await {
        Ok(n) if n.node_type != row::DEVICE => Ok(Some(n.id)),
        Ok(_) | Err(ApiError::NotFound(_)) => Err(ApiError::field(
            "parent",
            "Select a valid choice. That choice is not one of the available choices.",
        )),
        Err(e) => Err(e),
    }
}

async fn hostname_is_free(
    tx: &mut Tx,
    hostname: &str,
    domain: i64,
    but: i64,
) -> Result<bool, ApiError> {
    Ok(store::opt!(
        tx,
        (i64,),
        "SELECT id FROM node WHERE hostname = $1 AND domain_id = $2 AND id <> $3",
        hostname,
        domain,
        but
    )?
    .is_none())
}

const TAKEN: &str = "Node with this Hostname already exists.";

async fn create(call: Call) -> Result<Answer, ApiError> {
    let mut macs = Vec::new();
    for text in call.args().list("mac_addresses") {
        let mac: MacAddr = text.parse().map_err(|_| {
            ApiError::field(
                "mac_addresses",
                format!("One or more MAC addresses is invalid. ('{text}' is not a MAC address.)"),
            )
        })?;
        if !macs.contains(&mac) {
            macs.push(mac);
        }
    }
    if macs.is_empty() {
        return Err(ApiError::field("mac_addresses", "This field is required."));
    }
    if macs.len() > create::MAX_MACS {
        return Err(ApiError::field(
            "mac_addresses",
            format!("A device may have at most {} addresses.", create::MAX_MACS),
        ));
    }
    let system_id = SystemId::from_random(rand::rng().random());
    let spare: Vec<String> = (0..20).map(|_| create::made_up_hostname()).collect();
    let value = call
        .write(move |tx, call| {
            let (macs, system_id, spare) = (macs.clone(), system_id.clone(), spare.clone());
            Box::pin(async move {
                let args = call.args();
                let owner = call.actor().user()?.id;
                let domain = create::domain_id(tx, args.filled("domain")).await?;
                let zone = create::place_id(tx, "zone", args.filled("zone")).await?;
                let parent = parent_id(tx, &call).await?;
                let mut wrong = Vec::new();
                for mac in &macs {
                    if let Some(owner) = row::by_mac(tx, &mac.to_string()).await? {
                        let said = format!("MAC address {mac} already in use on {}.", owner.fqdn());
                        wrong.push(("mac_addresses".to_owned(), vec![said]));
                        break;
                    }
                }
                let hostname = match args.filled("hostname") {
                    Some(h) => {
                        let h = create::check_hostname(h.split('.').next().unwrap_or(h))?;
                        if !hostname_is_free(tx, &h, domain, -1).await? {
                            wrong.push(("hostname".to_owned(), vec![TAKEN.to_owned()]));
                        }
                        h
                    }
                    None => {
                        let mut free = format!("{}-{system_id}", spare[0]);
                        for h in &spare {
                            if hostname_is_free(tx, h, domain, -1).await? {
                                free.clone_from(h);
                                break;
                            }
                        }
                        free
                    }
                };
                if !wrong.is_empty() {
                    return Err(ApiError::Fields(wrong));
                }
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO node (system_id, node_type, hostname, description, domain_id, zone_id, owner_id, parent_id, status, \
                     previous_status, status_since, created, updated) VALUES ($1, 1, $2, $3, $4, $5, $6, $7, 0, 0, $8, $8, $8) RETURNING id",
                    &system_id.0,
                    &hostname,
                    args.text("description").unwrap_or(""),
                    domain,
                    zone,
                    owner,
                    parent,
                    call.now().0
                )?;
                create::add_interfaces(tx, id, &macs, &call).await?;
                row::touch(tx, id, call.now()).await?;
                family::fresh(tx, &call, id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = act::target(tx, &call, Action::Edit).await?;
                let args = call.args();
                let domain = match args.filled("domain") {
                    Some(d) => create::domain_id(tx, Some(d)).await?,
                    None => node.domain_id,
                };
                let zone = match args.filled("zone") {
                    Some(z) => create::place_id(tx, "zone", Some(z)).await?,
                    None => node.zone_id,
                };
                let hostname = match args.filled("hostname") {
                    Some(h) => create::check_hostname(h)?,
                    None => node.hostname.clone(),
                };
                if !hostname_is_free(tx, &hostname, domain, node.id).await? {
                    return Err(ApiError::field("hostname", TAKEN));
                }
                store::exec!(
                    tx,
                    "UPDATE node SET hostname = $2, domain_id = $3, zone_id = $4, description = $5 WHERE id = $1",
                    node.id,
                    hostname,
                    domain,
                    zone,
                    args.text("description").unwrap_or(&node.description)
                )?;
                if args.has("parent") {
                    let parent = parent_id(tx, &call).await?;
                    store::exec!(tx, "UPDATE node SET parent_id = $2 WHERE id = $1", node.id, parent)?;
                }
                node.touch(tx, call.now()).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Deletes a device with its addresses.
///
/// # Errors
/// 403 when it is somebody else's.
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let node = act::target(tx, &call, Action::Edit).await?;
            row::delete(tx, &node, call.now()).await
        })
    })
    .await?;
    Ok(Answer::none())
}

/// Takes every address off: that is what a device starts with.
async fn restore(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = Family::Devices
                    .by_system_id(tx, call.actor(), call.path("system_id"))
                    .await?;
                let owner = Resource::Machine {
                    owner: node.owner_id,
                };
                authorize(call.actor(), Action::Admin, owner)?;
                store::exec!(
                    tx,
                    "DELETE FROM interface WHERE node_id = $1 AND type <> 'physical'",
                    node.id
                )?;
                store::exec!(
                    tx,
                    "DELETE FROM ip_address WHERE interface_id IN (SELECT i.id FROM interface i WHERE i.node_id = $1)",
                    node.id
                )?;
                node.touch(tx, call.now()).await?;
                family::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}
