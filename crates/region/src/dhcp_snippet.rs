//! `dhcp-snippets`: pieces of DHCP configuration that people add, with all that each of them ever was.

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::view::{time_json, type_name};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::{subnet, vlan};

const SNIPPETS: Operation = Operation {
    handler: "DHCPSnippetsHandler",
    uri: "dhcp-snippets/",
    ..Operation::READ
};
const SNIPPET: Operation = Operation {
    handler: "DHCPSnippetHandler",
    uri: "dhcp-snippets/{id}/",
    ..Operation::READ
};
const DESCRIPTION: Param = Param::opt("description", Kind::Text, "What it is for.");
const ENABLED: Param = Param::opt(
    "enabled",
    Kind::Bool,
    "Whether it is in force; true when left out.",
);
const NODE: Param = Param::opt("node", Kind::Text, "For this node only, by system id.");
const SUBNET: Param = Param::opt(
    "subnet",
    Kind::Text,
    "For this subnet only, by id, cidr or name.",
);
const RANGE: Param = Param::opt("iprange", Kind::Text, "For this IP range only, by id.");
const GLOBAL: Param = Param::opt("global_snippet", Kind::Bool, "For everything.");

/// `dhcp-snippets/` and `dhcp-snippets/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List DHCP snippets.",
        run: |c| Box::pin(list(c)),
        ..SNIPPETS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a DHCP snippet.",
        params: &[
            Param::field("name", Kind::Text, "Its name."),
            Param::field("value", Kind::File, "The configuration."),
            DESCRIPTION,
            ENABLED,
            NODE,
            SUBNET,
            RANGE,
            GLOBAL,
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(create(c)),
        ..SNIPPETS
    },
    Operation {
        title: "Read a DHCP snippet.",
        run: |c| Box::pin(read(c)),
        ..SNIPPET
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a DHCP snippet; what it was stays in its history.",
        params: &[
            Param::opt("name", Kind::Text, "Its name."),
            Param::opt("value", Kind::File, "The configuration."),
            DESCRIPTION,
            ENABLED,
            NODE,
            SUBNET,
            RANGE,
            GLOBAL,
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(update(c)),
        ..SNIPPET
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a DHCP snippet with its history.",
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(delete(c)),
        ..SNIPPET
    },
    Operation {
        method: Method::Post,
        op: Some("revert"),
        who: Who::Admin,
        title: "Go back to what a DHCP snippet was; what came after is forgotten.",
        params: &[Param::must(
            "to",
            Kind::Int,
            "An id of its history, or how far back: -1 for the one before.",
        )],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(revert(c)),
        ..SNIPPET
    },
];

/// Longest name.
const NAME_MAX: usize = 255;
/// Longest description.
const DESCRIPTION_MAX: usize = 4_096;
/// Most texts kept of one snippet; the oldest are forgotten first.
const HISTORY_MAX: usize = 100;

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    name: String,
    description: String,
    enabled: bool,
    node_id: Option<i64>,
    subnet_id: Option<i64>,
    ip_range_id: Option<i64>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, description, enabled, node_id, subnet_id, ip_range_id FROM dhcp_snippet ",
            $rest
        )
    };
}

#[derive(sqlx::FromRow)]
struct ValueRow {
    id: i64,
    snippet_id: i64,
    value: String,
    created: i64,
}

#[derive(sqlx::FromRow)]
struct NodeRow {
    id: i64,
    system_id: String,
    node_type: i64,
    hostname: String,
    domain: String,
    description: String,
    created: i64,
    updated: i64,
}

/// `Fri, 20 Nov 2026 18:12:48 -0000`, as RFC 5322 spells times of no particular zone.
fn spelled(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map(|t| t.strftime("%a, %d %b %Y %H:%M:%S -0000").to_string())
        .unwrap_or_default()
}

/// The objects of the API, in a constant number of queries.
async fn render(tx: &mut Tx, rows: &[Row]) -> Result<Vec<Value>, ApiError> {
    let ids = json!(rows.iter().map(|r| r.id).collect::<Vec<_>>()).to_string();
    let values = store::all!(
        tx,
        ValueRow,
        "SELECT id, snippet_id, value, created FROM dhcp_snippet_value WHERE snippet_id IN @ids($1) ORDER BY id DESC",
        &ids
    )?;
    let nodes = store::all!(
        tx,
        NodeRow,
        "SELECT n.id, n.system_id, n.node_type, n.hostname, d.name AS domain, n.description, n.created, n.updated FROM node n \
         JOIN domain d ON d.id = n.domain_id WHERE n.id IN (SELECT s.node_id FROM dhcp_snippet s WHERE s.id IN @ids($1))",
        &ids
    )?;
    let subnets = subnet::all(tx).await?;
    let vlans = vlan::all(tx).await?;
    Ok(rows
        .iter()
        .map(|r| {
            let history: Vec<&ValueRow> = values.iter().filter(|v| v.snippet_id == r.id).collect();
            let node = nodes.iter().find(|n| Some(n.id) == r.node_id).map(|n| {
                json!({
                    "created": time_json(Some(n.created)),
                    "updated": time_json(Some(n.updated)),
                    "system_id": n.system_id,
                    "hostname": n.hostname,
                    "fqdn": format!("{}.{}", n.hostname, n.domain),
                    "description": n.description,
                    "node_type": n.node_type,
                    "node_type_name": type_name(n.node_type),
                    "resource_uri": format!("/MAAS/api/2.0/nodes/{}/", n.system_id),
                })
            });
            json!({
                "name": r.name,
                "description": r.description,
                "enabled": r.enabled,
                "node": node,
                "subnet": r.subnet_id.and_then(|s| subnets.get(&s)).map(|s| s.json(&vlans)),
                "id": r.id,
                "history": history.iter().map(|v| json!({
                    "id": v.id,
                    "value": v.value,
                    "created": spelled(v.created),
                })).collect::<Vec<_>>(),
                "value": history.first().map(|v| v.value.as_str()),
                "global_snippet": r.node_id.is_none() && r.subnet_id.is_none() && r.ip_range_id.is_none(),
                "resource_uri": format!("/MAAS/api/2.0/dhcp-snippets/{}/", r.id),
            })
        })
        .collect())
}

async fn one(tx: &mut Tx, row: Row) -> Result<Value, ApiError> {
    Ok(render(tx, &[row]).await?.pop().unwrap_or(Value::Null))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(tx, Row, select!("ORDER BY id"))?;
    Ok(Answer::json(render(&mut tx, &rows).await?.into()))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    let id = call.path_id("id", "DHCPSnippet")?;
    store::opt!(tx, Row, select!("WHERE id = $1"), id)?
        .ok_or_else(|| ApiError::missing("DHCPSnippet"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(one(&mut tx, row).await?))
}

impl Row {
    /// Takes what was given over what is there.
    async fn take(&mut self, tx: &mut Tx, call: &Call) -> Result<(), ApiError> {
        let args = call.args();
        let wrong = |field: &str, m: &str| Err(ApiError::field(field, m));
        if let Some(name) = args.filled("name") {
            if name.len() > NAME_MAX || name.chars().any(char::is_control) {
                return wrong("name", "A name is one line of at most 255 bytes.");
            }
            let taken = store::opt!(
                tx,
                (i64,),
                "SELECT id FROM dhcp_snippet WHERE name = $1 AND id <> $2",
                name,
                self.id
            )?;
            if taken.is_some() {
                return wrong("name", "DHCP snippet with this Name already exists.");
            }
            name.clone_into(&mut self.name);
        }
        if let Some(d) = args.text("description") {
            if d.len() > DESCRIPTION_MAX {
                return wrong("description", "A description has at most 4096 bytes.");
            }
            d.clone_into(&mut self.description);
        }
        if let Some(b) = args.bool("enabled")? {
            self.enabled = b;
        }
        self.take_scope(tx, call).await
    }

    /// A snippet is for a node, for a subnet, for a range of a subnet, or for everything.
    async fn take_scope(&mut self, tx: &mut Tx, call: &Call) -> Result<(), ApiError> {
        let args = call.args();
        let wrong = |field: &str, m: &str| Err(ApiError::field(field, m));
        let (node, subnet, range) = (
            args.filled("node"),
            args.filled("subnet"),
            args.filled("iprange"),
        );
        if args.bool("global_snippet")? == Some(true) {
            if let Some(field) = [("node", node), ("subnet", subnet), ("iprange", range)]
                .into_iter()
                .find_map(|(f, v)| v.map(|_| f))
            {
                return wrong(field, "A global snippet is for no node, subnet or range.");
            }
            (self.node_id, self.subnet_id, self.ip_range_id) = (None, None, None);
            return Ok(());
        }
        if node.is_some() && (subnet.is_some() || range.is_some()) {
            return wrong(
                "node",
                "A snippet is for a node or for a subnet, not for both.",
            );
        }
        // An empty one takes the scope away.
        if args.has("node") && node.is_none() {
            self.node_id = None;
        }
        if args.has("subnet") && subnet.is_none() {
            (self.subnet_id, self.ip_range_id) = (None, None);
        }
        if args.has("iprange") && range.is_none() {
            self.ip_range_id = None;
        }
        if let Some(id) = node {
            let row = store::opt!(tx, (i64,), "SELECT id FROM node WHERE system_id = $1", id)?;
            let Some((id,)) = row else {
                return wrong("node", "Unable to find a node with that system id.");
            };
            (self.node_id, self.subnet_id, self.ip_range_id) = (Some(id), None, None);
        }
        if let Some(text) = subnet {
            let all = subnet::all(tx).await?;
            let of = all.values().find(|s| {
                s.id.to_string() == text
                    || s.cidr == text
                    || Some(s.cidr.as_str()) == text.strip_prefix("cidr:")
            });
            let of = of.or_else(|| {
                let name = text.strip_prefix("name:").unwrap_or(text);
                let mut named = all.values().filter(|s| s.name == name);
                named.next().filter(|_| named.next().is_none())
            });
            let Some(of) = of else {
                return wrong(
                    "subnet",
                    "Unable to find one subnet with that id, cidr or name.",
                );
            };
            if self.subnet_id != Some(of.id) {
                self.ip_range_id = None;
            }
            (self.node_id, self.subnet_id) = (None, Some(of.id));
        }
        if let Some(id) = range {
            let row = store::opt!(
                tx,
                (i64, i64),
                "SELECT id, subnet_id FROM ip_range WHERE id = $1",
                id.parse::<i64>().unwrap_or(-1)
            )?;
            let Some((id, of)) = row else {
                return wrong("iprange", "Unable to find an IP range with that id.");
            };
            if subnet.is_some() && self.subnet_id != Some(of) {
                return wrong("iprange", "This IP range is in another subnet.");
            }
            (self.node_id, self.subnet_id, self.ip_range_id) = (None, Some(of), Some(id));
        }
        Ok(())
    }
}

fn check_value(text: &str) -> Result<(), ApiError> {
    metal::snippet::check(text)
        .map_err(|e| ApiError::field("value", format!("Invalid DHCP snippet: {e}.")))
}

async fn insert_value(tx: &mut Tx, call: &Call, snippet: i64, value: &str) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "INSERT INTO dhcp_snippet_value (snippet_id, value, created) VALUES ($1, $2, $3)",
        snippet,
        value,
        call.now().0
    )?;
    store::exec!(
        tx,
        "DELETE FROM dhcp_snippet_value WHERE snippet_id = $1 AND id NOT IN \
         (SELECT v.id FROM dhcp_snippet_value v WHERE v.snippet_id = $1 ORDER BY v.id DESC LIMIT $2)",
        snippet,
        i64::try_from(HISTORY_MAX).unwrap_or(i64::MAX)
    )?;
    Ok(())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                call.args().required("name")?;
                let value = call.args().required("value")?;
                let mut row = Row {
                    id: -1,
                    name: String::new(),
                    description: String::new(),
                    enabled: true,
                    node_id: None,
                    subnet_id: None,
                    ip_range_id: None,
                };
                row.take(tx, &call).await?;
                check_value(value)?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO dhcp_snippet (name, description, enabled, node_id, subnet_id, ip_range_id, created, updated) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id",
                    &row.name,
                    &row.description,
                    row.enabled,
                    row.node_id,
                    row.subnet_id,
                    row.ip_range_id,
                    call.now().0
                )?;
                row.id = id;
                insert_value(tx, &call, id, value).await?;
                tx.changed("dhcp_snippet", id, 0, call.now()).await?;
                one(tx, row).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn newest(tx: &mut Tx, snippet: i64) -> Result<String, ApiError> {
    let (value,) = store::one!(
        tx,
        (String,),
        "SELECT value FROM dhcp_snippet_value WHERE snippet_id = $1 ORDER BY id DESC LIMIT 1",
        snippet
    )?;
    Ok(value)
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                row.take(tx, &call).await?;
                if let Some(value) = call.args().filled("value") {
                    check_value(value)?;
                    if newest(tx, row.id).await? != value {
                        insert_value(tx, &call, row.id, value).await?;
                    }
                }
                store::exec!(
                    tx,
                    "UPDATE dhcp_snippet SET name = $2, description = $3, enabled = $4, node_id = $5, subnet_id = $6, ip_range_id = $7, \
                     updated = $8 WHERE id = $1",
                    row.id,
                    &row.name,
                    &row.description,
                    row.enabled,
                    row.node_id,
                    row.subnet_id,
                    row.ip_range_id,
                    call.now().0
                )?;
                tx.changed("dhcp_snippet", row.id, 0, call.now()).await?;
                one(tx, row).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            store::exec!(tx, "DELETE FROM dhcp_snippet WHERE id = $1", row.id)?;
            tx.changed("dhcp_snippet", row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn revert(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let row = find(tx, &call).await?;
                let to = call.args().int("to")?.unwrap_or(0);
                let ids = store::all!(
                    tx,
                    (i64,),
                    "SELECT id FROM dhcp_snippet_value WHERE snippet_id = $1 ORDER BY id DESC",
                    row.id
                )?;
                let target = if to > 0 {
                    ids.iter().find(|(id,)| *id == to)
                } else {
                    usize::try_from(to.unsigned_abs())
                        .ok()
                        .and_then(|back| ids.get(back))
                };
                let Some((target,)) = target else {
                    return Err(ApiError::Bad(format!(
                        "{to} is neither the id of a text of {} nor how far back one is; there are {} before this one.",
                        row.name,
                        ids.len().saturating_sub(1)
                    )));
                };
                store::exec!(
                    tx,
                    "DELETE FROM dhcp_snippet_value WHERE snippet_id = $1 AND id > $2",
                    row.id,
                    *target
                )?;
                tx.changed("dhcp_snippet", row.id, 0, call.now()).await?;
                one(tx, row).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}
