//! `domains`: the zones of DNS that machines and other names are in.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use metal::dns;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::row::touch;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::setting;

const DOMAINS: Operation = Operation {
    handler: "DomainsHandler",
    uri: "domains/",
    ..Operation::READ
};
const DOMAIN: Operation = Operation {
    handler: "DomainHandler",
    uri: "domains/{id}/",
    ..Operation::READ
};
const AUTHORITATIVE: Param = Param::opt(
    "authoritative",
    Kind::Bool,
    "Whether this installation answers for it; true when left out.",
);
const TTL: Param = Param::opt(
    "ttl",
    Kind::Int,
    "Seconds that its answers may be kept, 1 to 604800; empty for the default.",
);
const FORWARD: Param = Param::opt(
    "forward_dns_servers",
    Kind::Text,
    "Servers that know a domain which is not authoritative: addresses, with :port where it is not 53.",
);
/// Longest time to live of a domain, in seconds.
const TTL_MAX: i64 = 604_800;
/// Most servers that a domain may be forwarded to.
const FORWARD_MAX: usize = 16;
/// Largest serial number of a zone (RFC 1982).
const SERIAL_MAX: i64 = u32::MAX as i64;

/// `domains/` and `domains/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List domains.",
        run: |c| Box::pin(list(c)),
        ..DOMAINS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a domain.",
        params: &[
            Param::field("name", Kind::Text, "Its name."),
            AUTHORITATIVE,
            TTL,
            FORWARD,
        ],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..DOMAINS
    },
    Operation {
        method: Method::Post,
        op: Some("set_serial"),
        who: Who::Admin,
        title: "Set the serial number that the zones have next.",
        params: &[Param::must(
            "serial",
            Kind::Int,
            "The number, 1 to 4294967295.",
        )],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(set_serial(c)),
        ..DOMAINS
    },
    Operation {
        title: "Read a domain.",
        run: |c| Box::pin(read(c)),
        ..DOMAIN
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a domain.",
        params: &[
            Param::opt("name", Kind::Text, "New name."),
            AUTHORITATIVE,
            TTL,
            FORWARD,
        ],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..DOMAIN
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a domain in which there is nothing.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..DOMAIN
    },
    Operation {
        method: Method::Post,
        op: Some("set_default"),
        who: Who::Admin,
        title: "Make this the domain of new machines; machines of nobody that are in the old one move.",
        audit: Some("NETWORKING"),
        run: |c| Box::pin(set_default(c)),
        ..DOMAIN
    },
];

/// A domain as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DomainRow {
    /// Database id.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Whether this installation answers for it.
    pub authoritative: bool,
    /// Seconds that its answers may be kept; the default when none.
    pub ttl: Option<i64>,
    /// Where new machines go.
    pub is_default: bool,
    /// Where its questions are sent on to, as a JSON list.
    pub forward_dns_servers: String,
}

/// Columns of [`DomainRow`] from `domain d`; a `WHERE` or `ORDER BY` may follow.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.name, d.authoritative, d.ttl, d.is_default, d.forward_dns_servers FROM domain d ",
            $rest
        )
    };
}

impl DomainRow {
    fn json(&self, records: &HashMap<i64, i64>) -> Value {
        json!({
            "authoritative": self.authoritative,
            "ttl": self.ttl,
            "id": self.id,
            "is_default": self.is_default,
            "resource_record_count": records.get(&self.id).copied().unwrap_or(0),
            "name": self.name,
            "resource_uri": format!("/MAAS/api/2.0/domains/{}/", self.id),
        })
    }
}

/// How many records each domain has: addresses of nodes, addresses of other names, and data. One query.
///
/// # Errors
/// When the database fails.
pub async fn records(tx: &mut Tx) -> Result<HashMap<i64, i64>, ApiError> {
    let rows = store::all!(
        tx,
        (i64, i64),
        "SELECT t.domain_id, COUNT(*) FROM (\
         SELECT n.domain_id AS domain_id FROM node n JOIN interface i ON i.node_id = n.id JOIN ip_address a ON a.interface_id = i.id WHERE a.ip IS NOT NULL \
         UNION ALL SELECT r.domain_id FROM dns_resource r JOIN dns_resource_address x ON x.resource_id = r.id \
         UNION ALL SELECT r.domain_id FROM dns_resource r JOIN dns_data w ON w.resource_id = r.id) t GROUP BY t.domain_id"
    )?;
    Ok(rows.into_iter().collect())
}

/// Every domain.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx) -> Result<Vec<DomainRow>, ApiError> {
    Ok(store::all!(tx, DomainRow, select!("ORDER BY d.id"))?)
}

/// The domain of a name or an id.
///
/// # Errors
/// When the database fails.
pub async fn named(tx: &mut Tx, text: &str) -> Result<Option<DomainRow>, ApiError> {
    Ok(match text.parse::<i64>() {
        Ok(id) => store::opt!(tx, DomainRow, select!("WHERE d.id = $1"), id)?,
        Err(_) => store::opt!(
            tx,
            DomainRow,
            select!("WHERE d.name = $1"),
            text.to_ascii_lowercase()
        )?,
    })
}

async fn find(tx: &mut Tx, call: &Call) -> Result<DomainRow, ApiError> {
    let id = call.path_id("id", "Domain")?;
    store::opt!(tx, DomainRow, select!("WHERE d.id = $1"), id)?
        .ok_or_else(|| ApiError::missing("Domain"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let records = records(&mut tx).await?;
    Ok(Answer::json(
        all(&mut tx)
            .await?
            .iter()
            .map(|d| d.json(&records))
            .collect(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(row.json(&records(&mut tx).await?)))
}

async fn check_name(tx: &mut Tx, name: &str, own: Option<i64>) -> Result<String, ApiError> {
    let wrong = |m: String| Err(ApiError::field("name", m));
    let name = name.trim().trim_end_matches('.').to_ascii_lowercase();
    if let Err(e) = dns::check_name(&name) {
        return wrong(format!("Invalid domain name: {e}."));
    }
    if name == setting::text(tx, "maas_internal_domain").await? {
        return wrong(
            "Domain name cannot duplicate maas internal domain name, which is a setting."
                .to_owned(),
        );
    }
    match named(tx, &name).await? {
        Some(other) if Some(other.id) != own && other.name == name => {
            wrong("Domain with this Name already exists.".to_owned())
        }
        _ => Ok(name),
    }
}

fn check_ttl(call: &Call) -> Result<Option<i64>, ApiError> {
    match call.args().int("ttl")? {
        Some(t) if !(1..=TTL_MAX).contains(&t) => Err(ApiError::field(
            "ttl",
            format!("Enter a number of seconds from 1 to {TTL_MAX}."),
        )),
        other => Ok(other),
    }
}

/// `address` or `address:port`, `[address]:port` for IPv6.
fn forward_servers(call: &Call) -> Result<Option<String>, ApiError> {
    let Some(text) = call.args().text("forward_dns_servers") else {
        return Ok(None);
    };
    let servers: Vec<&str> = text.split([',', ' ']).filter(|s| !s.is_empty()).collect();
    let good = |s: &&str| s.parse::<IpAddr>().is_ok() || s.parse::<SocketAddr>().is_ok();
    if let Some(bad) = servers.iter().find(|s| !good(s)) {
        let bad: String = bad.chars().take(64).collect();
        return Err(ApiError::field(
            "forward_dns_servers",
            format!("'{bad}' is not an address, with or without :port."),
        ));
    }
    if servers.len() > FORWARD_MAX {
        return Err(ApiError::field(
            "forward_dns_servers",
            format!("At most {FORWARD_MAX} servers."),
        ));
    }
    Ok(Some(json!(servers).to_string()))
}

fn check_forward(row: &DomainRow) -> Result<(), ApiError> {
    if row.authoritative && row.forward_dns_servers != "[]" {
        return Err(ApiError::field(
            "forward_dns_servers",
            "Only a domain that is not authoritative is forwarded; set authoritative to false.",
        ));
    }
    Ok(())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let mut row = DomainRow {
                    id: 0,
                    name: check_name(tx, args.required("name")?, None).await?,
                    authoritative: args.bool("authoritative")?.unwrap_or(true),
                    ttl: check_ttl(&call)?,
                    is_default: false,
                    forward_dns_servers: forward_servers(&call)?.unwrap_or_else(|| "[]".to_owned()),
                };
                check_forward(&row)?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO domain (name, authoritative, ttl, forward_dns_servers) VALUES ($1, $2, $3, $4) RETURNING id",
                    &row.name,
                    row.authoritative,
                    row.ttl,
                    &row.forward_dns_servers
                )?;
                row.id = id;
                tx.changed("domain", id, 0, call.now()).await?;
                Ok(row.json(&HashMap::new()))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                let (args, before) = (call.args(), row.name.clone());
                if let Some(name) = args.filled("name") {
                    row.name = check_name(tx, name, Some(row.id)).await?;
                }
                if let Some(a) = args.bool("authoritative")? {
                    row.authoritative = a;
                }
                if args.has("ttl") {
                    row.ttl = check_ttl(&call)?;
                }
                if let Some(servers) = forward_servers(&call)? {
                    row.forward_dns_servers = servers;
                }
                check_forward(&row)?;
                store::exec!(
                    tx,
                    "UPDATE domain SET name = $2, authoritative = $3, ttl = $4, forward_dns_servers = $5 WHERE id = $1",
                    row.id,
                    &row.name,
                    row.authoritative,
                    row.ttl,
                    &row.forward_dns_servers
                )?;
                tx.changed("domain", row.id, 0, call.now()).await?;
                if row.name != before {
                    // The full names of its machines are others now.
                    let nodes = store::all!(
                        tx,
                        (i64,),
                        "SELECT id FROM node WHERE domain_id = $1 ORDER BY id",
                        row.id
                    )?;
                    for (node,) in nodes {
                        touch(tx, node, call.now()).await?;
                    }
                }
                Ok(row.json(&records(tx).await?))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            if row.is_default {
                // Clients know this sentence.
                return Err(ApiError::Bad(
                    "This domain is the default domain, it cannot be deleted.".to_owned(),
                ));
            }
            let (nodes, names) = store::one!(
                tx,
                (i64, i64),
                "SELECT (SELECT COUNT(*) FROM node WHERE domain_id = $1), (SELECT COUNT(*) FROM dns_resource WHERE domain_id = $1)",
                row.id
            )?;
            if nodes + names > 0 {
                return Err(ApiError::Conflict(format!(
                    "{} still has {nodes} machines, devices or controllers and {names} other names; move or delete them first.",
                    row.name
                )));
            }
            store::exec!(tx, "DELETE FROM domain WHERE id = $1", row.id)?;
            tx.changed("domain", row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn set_default(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                if !row.is_default {
                    // Where a host name is taken in the new domain, the machine stays in the old one.
                    let moved = store::all!(
                        tx,
                        (i64,),
                        "UPDATE node SET domain_id = $1 WHERE owner_id IS NULL AND domain_id = (SELECT d.id FROM domain d WHERE d.is_default) \
                         AND hostname NOT IN (SELECT o.hostname FROM node o WHERE o.domain_id = $1) RETURNING id",
                        row.id
                    )?;
                    store::exec!(tx, "UPDATE domain SET is_default = (id = $1)", row.id)?;
                    tx.changed("domain", row.id, 0, call.now()).await?;
                    for (node,) in moved {
                        touch(tx, node, call.now()).await?;
                    }
                    row.is_default = true;
                }
                Ok(row.json(&records(tx).await?))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn set_serial(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let serial = call.args().int("serial")?.unwrap_or(0);
            if !(1..=SERIAL_MAX).contains(&serial) {
                return Err(ApiError::Bad(format!(
                    "Enter a serial number from 1 to {SERIAL_MAX}."
                )));
            }
            store::exec!(tx, "UPDATE dns_state SET serial = $1 WHERE id = 1", serial)?;
            tx.changed("domain", 0, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::text("OK"))
}
