//! `networks`: how MAAS 1.x saw subnets. Old clients may still read; everything else is done at `subnets`.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::subnet::{self, SubnetRow, texts};
use crate::vlan::{self, VlanRow};

const NETWORKS: Operation = Operation {
    handler: "NetworksHandler",
    uri: "networks/",
    ..Operation::READ
};
const NETWORK: Operation = Operation {
    handler: "NetworkHandler",
    uri: "networks/{name}/",
    ..Operation::READ
};
const GONE: &str = "This is no longer available here; use subnets instead.";

/// `networks/` and `networks/{name}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List subnets as networks.",
        params: &[Param::opt(
            "node",
            Kind::List,
            "Only those that these nodes, by system id, are in.",
        )],
        run: |c| Box::pin(list(c)),
        ..NETWORKS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Gone: create a subnet instead.",
        success: 410,
        run: |c| Box::pin(gone(c)),
        ..NETWORKS
    },
    Operation {
        title: "Read a subnet as a network.",
        run: |c| Box::pin(read(c)),
        ..NETWORK
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Gone: change the subnet instead.",
        success: 410,
        run: |c| Box::pin(gone(c)),
        ..NETWORK
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Gone: delete the subnet instead.",
        success: 410,
        run: |c| Box::pin(gone(c)),
        ..NETWORK
    },
    Operation {
        method: Method::Post,
        op: Some("connect_macs"),
        who: Who::Admin,
        title: "Gone: link interfaces to subnets instead.",
        success: 410,
        run: |c| Box::pin(gone(c)),
        ..NETWORK
    },
    Operation {
        method: Method::Post,
        op: Some("disconnect_macs"),
        who: Who::Admin,
        title: "Gone: unlink interfaces from subnets instead.",
        success: 410,
        run: |c| Box::pin(gone(c)),
        ..NETWORK
    },
    Operation {
        op: Some("list_connected_macs"),
        title: "The hardware addresses of interfaces that are linked to a network.",
        run: |c| Box::pin(connected(c)),
        ..NETWORK
    },
];

fn name(s: &SubnetRow) -> String {
    format!("subnet-{}", s.id)
}

fn show(s: &SubnetRow, vlans: &HashMap<i64, VlanRow>) -> Result<Value, ApiError> {
    let net: IpNet = s.net()?;
    Ok(json!({
        "name": name(s),
        "ip": net.network().to_string(),
        "netmask": net.netmask().to_string(),
        "vlan_tag": vlans.get(&s.vlan_id).map(|v| v.vid),
        "description": s.name,
        "default_gateway": s.gateway_ip,
        "dns_servers": texts(&s.dns_servers),
        "resource_uri": format!("/MAAS/api/2.0/networks/{}/", name(s)),
    }))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<SubnetRow, ApiError> {
    let subnets = subnet::all(tx).await?;
    let text = call.path("name");
    let id = text.strip_prefix("subnet-").unwrap_or(text);
    subnet::choose(&subnets, id)
        .cloned()
        .ok_or_else(|| ApiError::missing("Network"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let mut rows: Vec<SubnetRow> = subnet::all(&mut tx).await?.into_values().collect();
    rows.sort_by_key(|s| s.id);
    let wanted: BTreeSet<String> = call.args().list("node").into_iter().collect();
    if !wanted.is_empty() {
        let list = serde_json::to_string(&wanted).unwrap_or_default();
        let seen = store::all!(
            tx,
            (String,),
            "SELECT n.system_id FROM node n WHERE n.system_id IN @texts($1) AND (n.owner_id IS NULL OR n.owner_id = $2 OR $3)",
            &list,
            call.actor().user_id(),
            call.actor().is_admin()
        )?;
        let seen: BTreeSet<String> = seen.into_iter().map(|(s,)| s).collect();
        if let Some(unknown) = wanted.difference(&seen).next() {
            return Err(ApiError::field(
                "node",
                format!(
                    "Unknown node(s): {}.",
                    unknown.chars().take(64).collect::<String>()
                ),
            ));
        }
        let linked = store::all!(
            tx,
            (i64,),
            "SELECT DISTINCT a.subnet_id FROM ip_address a JOIN interface i ON i.id = a.interface_id JOIN node n ON n.id = i.node_id \
             WHERE a.subnet_id IS NOT NULL AND n.system_id IN @texts($1)",
            &list
        )?;
        rows.retain(|s| linked.contains(&(s.id,)));
    }
    let vlans = vlan::all(&mut tx).await?;
    let shown: Result<Vec<Value>, ApiError> = rows.iter().map(|s| show(s, &vlans)).collect();
    Ok(Answer::json(shown?.into()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    let vlans = vlan::all(&mut tx).await?;
    Ok(Answer::json(show(&row, &vlans)?))
}

async fn gone(call: Call) -> Result<Answer, ApiError> {
    if !call.path("name").is_empty() {
        let mut tx = call.read().await?;
        find(&mut tx, &call).await?;
    }
    Ok(Answer::text(GONE).status(410))
}

async fn connected(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    let macs = store::all!(
        tx,
        (String,),
        "SELECT DISTINCT i.mac FROM interface i JOIN node n ON n.id = i.node_id JOIN ip_address a ON a.interface_id = i.id \
         WHERE a.subnet_id = $1 AND i.mac IS NOT NULL AND (n.owner_id IS NULL OR n.owner_id = $2 OR $3) ORDER BY i.mac",
        row.id,
        call.actor().user_id(),
        call.actor().is_admin()
    )?;
    Ok(Answer::json(
        macs.into_iter()
            .map(|(m,)| json!({ "mac_address": m }))
            .collect(),
    ))
}
