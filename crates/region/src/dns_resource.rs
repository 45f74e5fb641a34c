//! `dnsresources`: names in domains, with their addresses and other data.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use metal::dns::{self, RecordType, Standing};
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::dns_record::{self, DataRow};
use crate::domain::{self, DomainRow};
use crate::error::ApiError;
use crate::interface::USER_RESERVED;
use crate::node::view::time_json;
use crate::node::{NodeRow, View};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::{select_node, subnet};

const RESOURCES: Operation = Operation {
    handler: "DNSResourcesHandler",
    uri: "dnsresources/",
    ..Operation::READ
};
const RESOURCE: Operation = Operation {
    handler: "DNSResourceHandler",
    uri: "dnsresources/{id}/",
    ..Operation::READ
};
const FQDN: Param = Param::opt(
    "fqdn",
    Kind::Text,
    "The full name, instead of name and domain.",
);
const NAME: Param = Param::opt(
    "name",
    Kind::Text,
    "The name within the domain; @ for the domain itself.",
);
const DOMAIN: Param = Param::opt("domain", Kind::Text, "The domain, by name or id.");
const TTL: Param = Param::opt(
    "address_ttl",
    Kind::Int,
    "Seconds that the addresses may be kept; empty for the domain's.",
);
const ADDRESSES: Param = Param::opt(
    "ip_addresses",
    Kind::Text,
    "Its addresses, or ids of addresses, with spaces or commas between.",
);
/// Most addresses of one name.
const ADDRESSES_MAX: usize = 256;

/// `dnsresources/` and `dnsresources/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List names with their addresses and data.",
        params: &[
            Param::opt("fqdn", Kind::Text, "Only this full name."),
            Param::opt(
                "domain",
                Kind::Text,
                "Only names of this domain, by name or id.",
            ),
            Param::opt("name", Kind::Text, "Only this name within its domain."),
            Param::opt("rrtype", Kind::Text, "Only names with data of this type."),
            Param::opt("all", Kind::Bool, "With the names of machines too."),
        ],
        run: |c| Box::pin(list(c)),
        ..RESOURCES
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a name with addresses.",
        params: &[FQDN, NAME, DOMAIN, TTL, ADDRESSES],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..RESOURCES
    },
    Operation {
        title: "Read a name with its addresses and data.",
        run: |c| Box::pin(read(c)),
        ..RESOURCE
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a name or its addresses.",
        params: &[FQDN, NAME, DOMAIN, TTL, ADDRESSES],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..RESOURCE
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a name with its data, and the addresses that were reserved for it.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..RESOURCE
    },
];

/// A name as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ResourceRow {
    /// Database id.
    pub id: i64,
    /// Name within its domain.
    pub name: String,
    /// Its domain.
    pub domain_id: i64,
    /// The domain's name.
    pub domain: String,
    /// Seconds that its addresses may be kept.
    pub address_ttl: Option<i64>,
}

/// Columns of [`ResourceRow`] from `dns_resource r` and `domain d`; a `WHERE` or `ORDER BY` may follow.
#[macro_export]
#[doc(hidden)]
macro_rules! select_dns_resource {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.name, r.domain_id, d.name AS domain, r.address_ttl FROM dns_resource r JOIN domain d ON d.id = r.domain_id ",
            $rest
        )
    };
}

/// An address of a name.
#[derive(Clone, Debug, sqlx::FromRow)]
struct AddressRow {
    resource_id: i64,
    ip: Option<String>,
    alloc_type: i64,
    subnet_id: Option<i64>,
    interface_id: Option<i64>,
    node_id: Option<i64>,
    created: i64,
    username: Option<String>,
    email: Option<String>,
    is_superuser: Option<bool>,
    is_local: Option<bool>,
}

const fn alloc_type_name(of: i64) -> &'static str {
    match of {
        0 => "Automatic",
        1 => "Sticky",
        4 => "User reserved",
        5 => "DHCP",
        _ => "Observed",
    }
}

impl ResourceRow {
    /// The full name.
    #[must_use]
    pub fn fqdn(&self) -> String {
        dns::join(&self.name, &self.domain)
    }
}

/// The objects of the API, in a constant number of queries.
async fn render(tx: &mut Tx, call: &Call, rows: &[ResourceRow]) -> Result<Vec<Value>, ApiError> {
    let ids = json!(rows.iter().map(|r| r.id).collect::<Vec<_>>()).to_string();
    let addresses = store::all!(
        tx,
        AddressRow,
        "SELECT x.resource_id, a.ip, a.alloc_type, a.subnet_id, a.interface_id, i.node_id, a.created, u.username, u.email, u.is_superuser, u.is_local \
         FROM dns_resource_address x JOIN ip_address a ON a.id = x.ip_address_id LEFT JOIN interface i ON i.id = a.interface_id \
         LEFT JOIN user_account u ON u.id = a.user_id WHERE x.resource_id IN @ids($1) ORDER BY a.id",
        &ids
    )?;
    let data = store::all!(
        tx,
        DataRow,
        crate::select_dns_data!("WHERE w.resource_id IN @ids($1) ORDER BY w.id"),
        &ids
    )?;
    let hosts = json!(
        addresses
            .iter()
            .filter_map(|a| a.node_id)
            .collect::<Vec<_>>()
    )
    .to_string();
    let nodes = store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.id IN @ids($1) AND (n.owner_id IS NULL OR n.owner_id = $2 OR $3) ORDER BY n.id"
        ),
        hosts,
        call.actor().user_id(),
        call.actor().is_admin()
    )?;
    let view = View::load(tx, &nodes, call.now()).await?;
    let subnets = subnet::all(tx).await?;
    let vlans = crate::vlan::all(tx).await?;
    let address = |a: &AddressRow| {
        let interface = nodes
            .iter()
            .find(|n| Some(n.id) == a.node_id)
            .and_then(|n| {
                let i = view
                    .interfaces_of(n.id)
                    .iter()
                    .find(|i| Some(i.id) == a.interface_id)?;
                Some(i.json(&n.system_id, &view.around))
            });
        let owner = a.username.as_ref().map(|name| {
            json!({
                "is_superuser": a.is_superuser,
                "username": name,
                "email": a.email,
                "is_local": a.is_local,
                "resource_uri": format!("/MAAS/api/2.0/users/{name}/"),
            })
        });
        json!({
            "created": time_json(Some(a.created)),
            "ip": a.ip,
            "alloc_type": a.alloc_type,
            "subnet": a.subnet_id.and_then(|s| subnets.get(&s)).map(|s| s.json(&vlans)),
            "owner": owner,
            "alloc_type_name": alloc_type_name(a.alloc_type),
            "interface_set": interface.into_iter().collect::<Vec<_>>(),
            "resource_uri": "/MAAS/api/2.0/ipaddresses/",
        })
    };
    Ok(rows
        .iter()
        .map(|r| {
            let of = |a: &&AddressRow| a.resource_id == r.id && a.ip.is_some();
            json!({
                "address_ttl": r.address_ttl,
                "resource_records": data.iter().filter(|d| d.resource_id == r.id).map(DataRow::json).collect::<Vec<_>>(),
                "fqdn": r.fqdn(),
                "ip_addresses": addresses.iter().filter(of).map(address).collect::<Vec<_>>(),
                "id": r.id,
                "resource_uri": format!("/MAAS/api/2.0/dnsresources/{}/", r.id),
            })
        })
        .collect())
}

async fn one(tx: &mut Tx, call: &Call, row: ResourceRow) -> Result<Value, ApiError> {
    Ok(render(tx, call, &[row]).await?.pop().unwrap_or(Value::Null))
}

/// What a list is narrowed to.
pub(crate) struct Filter {
    /// The domain.
    pub domain: Option<i64>,
    /// The name within it.
    pub name: Option<String>,
    /// The type of data.
    pub rrtype: Option<String>,
}

impl Filter {
    /// Reads it from the parameters.
    ///
    /// # Errors
    /// 404 for a domain that there is not.
    pub(crate) async fn of(tx: &mut Tx, args: &Args) -> Result<Self, ApiError> {
        let missing = || ApiError::missing("Domain");
        let (mut domain, mut name) = (None, args.filled("name").map(str::to_ascii_lowercase));
        if let Some(fqdn) = args.filled("fqdn") {
            let all = domain::all(tx).await?;
            let (host, of) =
                dns::split(fqdn, all.iter().map(|d| d.name.as_str())).ok_or_else(missing)?;
            domain = all.iter().find(|d| d.name == of).map(|d| d.id);
            name = Some(host.to_ascii_lowercase());
        }
        if let Some(d) = args.filled("domain") {
            domain = Some(domain::named(tx, d).await?.ok_or_else(missing)?.id);
        }
        Ok(Self {
            domain,
            name,
            rrtype: args.filled("rrtype").map(str::to_ascii_uppercase),
        })
    }
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let filter = Filter::of(&mut tx, call.args()).await?;
    let rows = store::all!(
        tx,
        ResourceRow,
        select_dns_resource!(
            "WHERE ($1 IS NULL OR r.domain_id = $1) AND ($2 IS NULL OR r.name = $2) AND ($3 IS NULL OR $3 IN ('A', 'AAAA') \
             OR EXISTS (SELECT 1 FROM dns_data w WHERE w.resource_id = r.id AND w.rrtype = $3)) ORDER BY r.id"
        ),
        filter.domain,
        filter.name.as_deref(),
        filter.rrtype.as_deref()
    )?;
    let mut out = render(&mut tx, &call, &rows).await?;
    if let Some(family) = filter
        .rrtype
        .as_deref()
        .filter(|t| matches!(*t, "A" | "AAAA"))
    {
        out.retain(|v| {
            let ips = v["ip_addresses"].as_array().into_iter().flatten();
            ips.filter_map(|a| a["ip"].as_str())
                .any(|ip| address_type(ip) == family)
        });
    }
    if call.args().bool("all")?.unwrap_or(false) {
        out.extend(of_nodes(&mut tx, &call, &filter).await?);
    }
    Ok(Answer::json(out.into()))
}

fn address_type(ip: &str) -> &'static str {
    if ip.contains(':') { "AAAA" } else { "A" }
}

#[derive(sqlx::FromRow)]
struct NodeAddress {
    system_id: String,
    node_type: i64,
    owner_id: Option<i64>,
    hostname: String,
    domain: String,
    ttl: Option<i64>,
    ip: String,
}

/// The names of machines, devices and controllers that the caller may see, each with the records that stand
/// for its addresses.
async fn of_nodes(tx: &mut Tx, call: &Call, filter: &Filter) -> Result<Vec<Value>, ApiError> {
    let default = crate::setting::number(tx, "default_dns_ttl").await?;
    let rows = store::all!(
        tx,
        NodeAddress,
        "SELECT n.system_id, n.node_type, n.owner_id, n.hostname, d.name AS domain, COALESCE(n.address_ttl, d.ttl) AS ttl, a.ip AS ip \
         FROM node n JOIN domain d ON d.id = n.domain_id JOIN interface i ON i.node_id = n.id JOIN ip_address a ON a.interface_id = i.id \
         WHERE a.ip IS NOT NULL AND (n.owner_id IS NULL OR n.owner_id = $1 OR $2) AND ($3 IS NULL OR n.domain_id = $3) \
         AND ($4 IS NULL OR n.hostname = $4) ORDER BY n.id, a.id",
        call.actor().user_id(),
        call.actor().is_admin(),
        filter.domain,
        filter.name.as_deref()
    )?;
    let mut names: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for r in rows {
        let rrtype = address_type(&r.ip);
        if filter.rrtype.as_deref().is_some_and(|t| t != rrtype) {
            continue;
        }
        let fqdn = dns::join(&r.hostname, &r.domain);
        names.entry(fqdn).or_default().push(json!({
            "name": r.hostname,
            "system_id": r.system_id,
            "node_type": r.node_type,
            "user_id": r.owner_id,
            "dnsresource_id": Value::Null,
            "dnsdata_id": Value::Null,
            "ttl": r.ttl.unwrap_or(default),
            "rrtype": rrtype,
            "rrdata": r.ip,
        }));
    }
    Ok(names
        .into_iter()
        .map(|(fqdn, records)| {
            json!({
                "address_ttl": Value::Null,
                "resource_records": records,
                "fqdn": fqdn,
                "ip_addresses": Value::Null,
                "id": -1,
                "resource_uri": "",
            })
        })
        .collect())
}

/// A name by its id.
async fn find(tx: &mut Tx, call: &Call) -> Result<ResourceRow, ApiError> {
    let id = call.path_id("id", "DNSResource")?;
    store::opt!(tx, ResourceRow, select_dns_resource!("WHERE r.id = $1"), id)?
        .ok_or_else(|| ApiError::missing("DNSResource"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(one(&mut tx, &call, row).await?))
}

/// The name and domain of a request: `fqdn`, or `name` and `domain`, each over what was.
///
/// # Errors
/// 400 with the field that is missing or wrong.
pub(crate) async fn place(
    tx: &mut Tx,
    args: &Args,
    was: Option<&ResourceRow>,
) -> Result<(String, DomainRow), ApiError> {
    let required = |f: &str| ApiError::field(f, "This field is required.");
    let mut name = args
        .filled("name")
        .map(str::to_owned)
        .or_else(|| was.map(|w| w.name.clone()));
    let mut found = match args.filled("domain") {
        Some(d) => Some(domain::named(tx, d).await?.ok_or_else(|| {
            ApiError::field("domain", "Unable to find the domain with that name or id.")
        })?),
        None => match was {
            Some(w) => domain::named(tx, &w.domain_id.to_string()).await?,
            None => None,
        },
    };
    if let Some(fqdn) = args.filled("fqdn") {
        let all = domain::all(tx).await?;
        let (host, of) = dns::split(fqdn, all.iter().map(|d| d.name.as_str()))
            .ok_or_else(|| ApiError::field("fqdn", "This name is in none of the domains."))?;
        found = all.iter().find(|d| d.name == of).cloned();
        name = Some(host);
    }
    let (name, domain) = match (name, found) {
        (Some(n), Some(d)) => (n.trim().to_ascii_lowercase(), d),
        (None, Some(_)) => return Err(required("name")),
        (Some(_), None) => return Err(required("domain")),
        (None, None) => {
            return Err(ApiError::Fields(vec![
                (
                    "name".to_owned(),
                    vec!["This field is required.".to_owned()],
                ),
                (
                    "domain".to_owned(),
                    vec!["This field is required.".to_owned()],
                ),
            ]));
        }
    };
    dns::check_owner(&name)
        .map_err(|e| ApiError::field("name", format!("Invalid DNS name: {e}.")))?;
    if dns::join(&name, &domain.name).len() > dns::NAME_MAX {
        return Err(ApiError::field(
            "name",
            format!(
                "With its domain a name has at most {} characters.",
                dns::NAME_MAX
            ),
        ));
    }
    Ok((name, domain))
}

/// A time to live that was given; none when it is to be the domain's.
///
/// # Errors
/// 400 when it cannot be.
pub(crate) fn ttl(args: &Args, field: &str) -> Result<Option<i64>, ApiError> {
    match args.int(field)? {
        Some(t) if !(0..=dns::TTL_MAX).contains(&t) => Err(ApiError::field(
            field,
            format!("Enter a number of seconds from 0 to {}.", dns::TTL_MAX),
        )),
        other => Ok(other),
    }
}

/// What stands under a name.
///
/// # Errors
/// When the database fails.
pub(crate) async fn standing(
    tx: &mut Tx,
    resource: i64,
    but: Option<i64>,
) -> Result<Standing, ApiError> {
    let (addresses, aliases, others) = store::one!(
        tx,
        (i64, i64, i64),
        "SELECT (SELECT COUNT(*) FROM dns_resource_address x WHERE x.resource_id = $1), \
         (SELECT COUNT(*) FROM dns_data w WHERE w.resource_id = $1 AND w.rrtype = 'CNAME' AND w.id <> $2), \
         (SELECT COUNT(*) FROM dns_data w WHERE w.resource_id = $1 AND w.rrtype <> 'CNAME' AND w.id <> $2)",
        resource,
        but.unwrap_or(-1)
    )?;
    let n = |c: i64| usize::try_from(c).unwrap_or(usize::MAX);
    Ok(Standing {
        addresses: n(addresses),
        aliases: n(aliases),
        others: n(others),
    })
}

/// The name under which a machine of the domain stands already, which nobody else may have an alias under.
pub(crate) async fn is_node(tx: &mut Tx, name: &str, domain: i64) -> Result<bool, ApiError> {
    Ok(store::opt!(
        tx,
        (i64,),
        "SELECT id FROM node WHERE hostname = $1 AND domain_id = $2",
        name,
        domain
    )?
    .is_some())
}

/// Keeps a new name.
///
/// # Errors
/// 400 when it is taken.
pub(crate) async fn insert(
    tx: &mut Tx,
    call: &Call,
    name: &str,
    domain: &DomainRow,
    address_ttl: Option<i64>,
) -> Result<ResourceRow, ApiError> {
    let row = store::opt!(
        tx,
        (i64,),
        "INSERT INTO dns_resource (name, domain_id, address_ttl, created, updated) VALUES ($1, $2, $3, $4, $4) \
         ON CONFLICT (domain_id, name) DO NOTHING RETURNING id",
        name,
        domain.id,
        address_ttl,
        call.now().0
    )?;
    let (id,) = row.ok_or_else(taken)?;
    Ok(ResourceRow {
        id,
        name: name.to_owned(),
        domain_id: domain.id,
        domain: domain.name.clone(),
        address_ttl,
    })
}

fn taken() -> ApiError {
    // Clients know this sentence.
    ApiError::field("name", "Labels must be unique within their zone.")
}

/// An address of the request, resolved.
enum Wanted {
    /// One that is there.
    Is(i64),
    /// One to reserve.
    New(IpAddr),
}

async fn wanted(tx: &mut Tx, args: &Args) -> Result<Option<Vec<Wanted>>, ApiError> {
    if !args.has("ip_addresses") {
        return Ok(None);
    }
    let wrong = |m: String| Err(ApiError::field("ip_addresses", m));
    let words: Vec<String> = args
        .list("ip_addresses")
        .iter()
        .flat_map(|t| {
            t.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<String>>()
        })
        .collect();
    if words.len() > ADDRESSES_MAX {
        return wrong(format!(
            "A name may have at most {ADDRESSES_MAX} addresses."
        ));
    }
    let mut out = Vec::new();
    let mut seen = HashMap::new();
    for word in words {
        let known = match (word.parse::<IpAddr>(), word.parse::<i64>()) {
            (Ok(ip), _) => {
                let ip = ip.to_canonical();
                if ip.is_unspecified() || ip.is_multicast() {
                    return wrong(format!("{ip} is not an address of a host."));
                }
                let known = store::opt!(
                    tx,
                    (i64,),
                    "SELECT id FROM ip_address WHERE ip = $1",
                    ip.to_string()
                )?;
                if known.is_none() && seen.insert(ip, ()).is_none() {
                    out.push(Wanted::New(ip));
                }
                known
            }
            (Err(_), Ok(id)) => {
                let known = store::opt!(
                    tx,
                    (i64,),
                    "SELECT id FROM ip_address WHERE id = $1 AND ip IS NOT NULL",
                    id
                )?;
                if known.is_none() {
                    return wrong(format!("There is no address with the id {id}."));
                }
                known
            }
            _ => {
                let word: String = word.chars().take(64).collect();
                return wrong(format!("'{word}' is neither an address nor the id of one."));
            }
        };
        if let Some((id,)) = known
            && !out.iter().any(|w| matches!(w, Wanted::Is(o) if *o == id))
        {
            out.push(Wanted::Is(id));
        }
    }
    Ok(Some(out))
}

/// Gives a name these addresses and no others. Those that are nobody's yet are reserved for the caller; those
/// that were reserved for this name and are no longer its are free again.
async fn set_addresses(
    tx: &mut Tx,
    call: &Call,
    resource: i64,
    wanted: Vec<Wanted>,
) -> Result<(), ApiError> {
    let mut subnets: Vec<_> = subnet::all(tx).await?.into_values().collect();
    // The narrowest network that contains an address is its own.
    subnets.sort_by_key(|s| std::cmp::Reverse(s.net().map_or(0, |n| n.prefix_len())));
    let mut keep = Vec::new();
    for w in wanted {
        let (id, made) = match w {
            Wanted::Is(id) => (id, false),
            Wanted::New(ip) => {
                let of = subnets.iter().find(|s| s.contains(ip)).map(|s| s.id);
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO ip_address (ip, alloc_type, subnet_id, user_id, created, updated) VALUES ($1, $2, $3, $4, $5, $5) RETURNING id",
                    ip.to_string(),
                    USER_RESERVED,
                    of,
                    call.actor().user_id(),
                    call.now().0
                )?;
                if let Some(s) = of {
                    tx.changed("subnet", s, 0, call.now()).await?;
                }
                (id, true)
            }
        };
        store::exec!(
            tx,
            "INSERT INTO dns_resource_address (resource_id, ip_address_id, made) VALUES ($1, $2, $3) ON CONFLICT (resource_id, ip_address_id) DO NOTHING",
            resource,
            id,
            made
        )?;
        keep.push(id);
    }
    let gone = store::all!(
        tx,
        (i64, bool),
        "DELETE FROM dns_resource_address WHERE resource_id = $1 AND ip_address_id NOT IN @ids($2) RETURNING ip_address_id, made",
        resource,
        json!(keep).to_string()
    )?;
    for (id, made) in gone {
        if made {
            // Another name may have come to use it.
            let heir = store::exec!(
                tx,
                "UPDATE dns_resource_address SET made = TRUE WHERE ip_address_id = $1",
                id
            )?;
            if heir == 0 {
                let free = store::opt!(
                    tx,
                    (Option<i64>,),
                    "DELETE FROM ip_address WHERE id = $1 AND interface_id IS NULL RETURNING subnet_id",
                    id
                )?;
                if let Some((Some(subnet),)) = free {
                    tx.changed("subnet", subnet, 0, call.now()).await?;
                }
            }
        }
    }
    Ok(())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let (name, domain) = place(tx, args, None).await?;
                let address_ttl = ttl(args, "address_ttl")?;
                let addresses = wanted(tx, args).await?.unwrap_or_default();
                if addresses.is_empty() {
                    return Err(ApiError::field(
                        "ip_addresses",
                        "Name at least one address; other data is made with dnsresourcerecords.",
                    ));
                }
                let row = insert(tx, &call, &name, &domain, address_ttl).await?;
                set_addresses(tx, &call, row.id, addresses).await?;
                tx.changed("dns_resource", row.id, 0, call.now()).await?;
                one(tx, &call, row).await
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
                let args = call.args();
                let (name, domain) = place(tx, args, Some(&row)).await?;
                if args.has("address_ttl") {
                    row.address_ttl = ttl(args, "address_ttl")?;
                }
                let same = store::opt!(
                    tx,
                    (i64,),
                    "SELECT id FROM dns_resource WHERE domain_id = $1 AND name = $2 AND id <> $3",
                    domain.id,
                    &name,
                    row.id
                )?;
                if same.is_some() {
                    return Err(taken());
                }
                if let Some(addresses) = wanted(tx, args).await? {
                    if !addresses.is_empty() {
                        let there = standing(tx, row.id, None).await?;
                        dns::joins(
                            Standing {
                                addresses: 0,
                                ..there
                            },
                            RecordType::Txt,
                        )
                        .map_err(|e| ApiError::field("ip_addresses", e.to_string()))?;
                    }
                    set_addresses(tx, &call, row.id, addresses).await?;
                }
                for d in dns_record::of(tx, row.id).await? {
                    dns_record::check(&name, &d.rrtype, &d.rrdata)?;
                }
                (row.name, row.domain_id, row.domain) = (name, domain.id, domain.name);
                store::exec!(
                    tx,
                    "UPDATE dns_resource SET name = $2, domain_id = $3, address_ttl = $4, updated = $5 WHERE id = $1",
                    row.id,
                    &row.name,
                    row.domain_id,
                    row.address_ttl,
                    call.now().0
                )?;
                tx.changed("dns_resource", row.id, 0, call.now()).await?;
                one(tx, &call, row).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            remove(tx, &call, row.id).await
        })
    })
    .await?;
    Ok(Answer::none())
}

/// Removes a name with all that is its own.
///
/// # Errors
/// When the database fails.
pub(crate) async fn remove(tx: &mut Tx, call: &Call, id: i64) -> Result<(), ApiError> {
    set_addresses(tx, call, id, Vec::new()).await?;
    store::exec!(tx, "DELETE FROM dns_resource WHERE id = $1", id)?;
    tx.changed("dns_resource", id, 0, call.now()).await?;
    Ok(())
}
