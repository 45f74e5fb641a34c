//! The operations of subnets.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use store::Tx;

use super::{SubnetRow, all, usage};
use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::event_query;
use crate::ip_range;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::{fabric, select_subnet, vlan};

const FIELDS: &[Param] = &[
    Param::opt(
        "cidr",
        Kind::Text,
        "Network and prefix length, for example 10.0.0.0/24.",
    ),
    Param::opt("name", Kind::Text, "Name; the cidr when left out."),
    Param::opt("description", Kind::Text, "A description."),
    Param::opt("vlan", Kind::Text, "Id of its VLAN."),
    Param::opt("fabric", Kind::Text, "Its fabric, when no VLAN is named."),
    Param::opt("vid", Kind::Int, "802.1Q number within the fabric."),
    Param::opt("gateway_ip", Kind::Text, "Default gateway."),
    Param::opt(
        "rdns_mode",
        Kind::Int,
        "Reverse DNS: 0 off, 1 on, 2 with RFC 2317 delegations.",
    ),
    Param::opt(
        "allow_dns",
        Kind::Bool,
        "Whether machines here may ask the rack's DNS.",
    ),
    Param::opt(
        "allow_proxy",
        Kind::Bool,
        "Whether machines here may use the rack's proxy.",
    ),
    Param::opt("dns_servers", Kind::List, "DNS servers of its own."),
    Param::opt("active_discovery", Kind::Bool, "Whether it is scanned."),
    Param::opt(
        "managed",
        Kind::Bool,
        "Whether addresses are given out freely, or only from reserved ranges.",
    ),
    Param::opt(
        "disabled_boot_architectures",
        Kind::List,
        "Boot methods left out of DHCP.",
    ),
    Param::opt(
        "router_advertisements",
        Kind::Bool,
        "IPv6: whether the rack advertises itself (never as a router).",
    ),
];

const SUBNETS: Operation = Operation {
    handler: "SubnetsHandler",
    uri: "subnets/",
    ..Operation::READ
};
const SUBNET: Operation = Operation {
    handler: "SubnetHandler",
    uri: "subnets/{id}/",
    ..Operation::READ
};

/// `subnets/` and `subnets/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List subnets.",
        run: |c| Box::pin(list(c)),
        ..SUBNETS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a subnet.",
        params: FIELDS,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..SUBNETS
    },
    Operation {
        title: "Read a subnet.",
        run: |c| Box::pin(read(c)),
        ..SUBNET
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a subnet.",
        params: FIELDS,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..SUBNET
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a subnet.",
        params: &[Param::opt("force", Kind::Bool, "Also when DHCP is on.")],
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..SUBNET
    },
    Operation {
        op: Some("ip_addresses"),
        title: "The addresses in use in a subnet.",
        params: &[
            Param::opt("with_username", Kind::Bool, "Name their users."),
            Param::opt("with_node_summary", Kind::Bool, "Name their machines."),
            Param::opt(
                "with_summary",
                Kind::Bool,
                "The older name of with_node_summary.",
            ),
        ],
        run: |c| Box::pin(addresses(c)),
        ..SUBNET
    },
    Operation {
        op: Some("reserved_ip_ranges"),
        title: "The addresses of a subnet that are used for something, and for what.",
        run: |c| Box::pin(usage::reserved_ranges(c)),
        ..SUBNET
    },
    Operation {
        op: Some("unreserved_ip_ranges"),
        title: "The addresses of a subnet that are free.",
        run: |c| Box::pin(usage::unreserved_ranges(c)),
        ..SUBNET
    },
    Operation {
        op: Some("statistics"),
        title: "How full a subnet is.",
        params: &[
            Param::opt(
                "include_ranges",
                Kind::Bool,
                "Say what each address is used for.",
            ),
            Param::opt(
                "include_suggestions",
                Kind::Bool,
                "Suggest a gateway and a dynamic range.",
            ),
        ],
        run: |c| Box::pin(usage::statistics(c)),
        ..SUBNET
    },
];

pub(super) async fn find(tx: &mut Tx, call: &Call) -> Result<SubnetRow, ApiError> {
    let key = call.path("id");
    if let Ok(id) = key.parse::<i64>() {
        return store::opt!(tx, SubnetRow, select_subnet!("WHERE s.id = $1"), id)?
            .ok_or_else(|| ApiError::missing("Subnet"));
    }
    // Clients name subnets as name:NAME, cidr:CIDR or plainly.
    let subnets = all(tx).await?;
    super::choose(&subnets, key)
        .or_else(|| {
            subnets
                .values()
                .filter(|s| s.name == key)
                .min_by_key(|s| s.id)
        })
        .cloned()
        .ok_or_else(|| ApiError::missing("Subnet"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let vlans = vlan::all(&mut tx).await?;
    let mut rows: Vec<SubnetRow> = all(&mut tx).await?.into_values().collect();
    rows.sort_by_key(|s| s.id);
    Ok(Answer::json(rows.iter().map(|s| s.json(&vlans)).collect()))
}

async fn answer(tx: &mut Tx, id: i64) -> Result<Value, ApiError> {
    let vlans = vlan::all(tx).await?;
    let row = store::opt!(tx, SubnetRow, select_subnet!("WHERE s.id = $1"), id)?
        .ok_or_else(|| ApiError::missing("Subnet"))?;
    Ok(row.json(&vlans))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let id = find(&mut tx, &call).await?.id;
    Ok(Answer::json(answer(&mut tx, id).await?))
}

/// The VLAN that a request names: by id, by fabric and number, or the default one.
async fn vlan_of(tx: &mut Tx, args: &Args) -> Result<i64, ApiError> {
    if let Some(v) = args.filled("vlan") {
        let id: i64 = v
            .parse()
            .map_err(|_| ApiError::field("vlan", "Enter the id of a VLAN."))?;
        return store::opt!(tx, (i64,), "SELECT id FROM vlan WHERE id = $1", id)?
            .map(|r| r.0)
            .ok_or_else(|| ApiError::field("vlan", "There is no VLAN with that id."));
    }
    let fabric = match args.filled("fabric") {
        Some(f) => fabric::id_of(tx, f)
            .await
            .map_err(|_| ApiError::field("fabric", "There is no such fabric."))?,
        None => 0,
    };
    let vid = args.int("vid")?.unwrap_or(0);
    store::opt!(
        tx,
        (i64,),
        "SELECT id FROM vlan WHERE fabric_id = $1 AND vid = $2",
        fabric,
        vid
    )?
    .map(|r| r.0)
    .ok_or_else(|| ApiError::field("vid", format!("No VLAN with vid {vid} in the fabric.")))
}

fn parse_cidr(text: &str) -> Result<IpNet, ApiError> {
    let bad = || ApiError::field("cidr", "Required format: <network>/<prefixlen>.");
    if !text.contains('/') {
        return Err(bad());
    }
    let net: IpNet = text.parse().map_err(|_| bad())?;
    if net.prefix_len() == 0 {
        return Err(ApiError::field(
            "cidr",
            "A subnet cannot be the whole address space.",
        ));
    }
    Ok(net.trunc())
}

fn addresses_of(args: &Args, name: &str) -> Result<String, ApiError> {
    let mut out = Vec::new();
    for text in args.list(name) {
        for word in text.split_whitespace() {
            let ip: IpAddr = word
                .parse()
                .map_err(|_| ApiError::field(name, format!("Invalid IP address: {word}.")))?;
            out.push(ip.to_string());
        }
    }
    Ok(json!(out).to_string())
}

fn gateway_of(args: &Args, net: &IpNet) -> Result<Option<String>, ApiError> {
    let Some(text) = args.filled("gateway_ip") else {
        return Ok(None);
    };
    let ip: IpAddr = text
        .parse()
        .map_err(|_| ApiError::field("gateway_ip", "Enter a valid IPv4 or IPv6 address."))?;
    let link_local = matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
    if net.contains(&ip) || link_local {
        Ok(Some(ip.to_string()))
    } else {
        Err(ApiError::field(
            "gateway_ip",
            "Gateway IP must be within CIDR range.",
        ))
    }
}

fn boot_methods(args: &Args) -> Result<String, ApiError> {
    const KNOWN: [&str; 13] = [
        "ipxe",
        "pxe",
        "uefi_amd64_tftp",
        "uefi_amd64_http",
        "uefi_ebc_tftp",
        "uefi_arm64_tftp",
        "uefi_arm64_http",
        "open-firmware_ppc64el",
        "powernv",
        "windows",
        "s390x",
        "s390x_partition",
        "uefi_ebc_http",
    ];
    let list = args.list("disabled_boot_architectures");
    if let Some(bad) = list.iter().find(|m| !KNOWN.contains(&m.as_str())) {
        return Err(ApiError::field(
            "disabled_boot_architectures",
            format!(
                "'{bad}' is no boot method; there are: {}.",
                KNOWN.join(", ")
            ),
        ));
    }
    Ok(json!(list).to_string())
}

/// 400 for a network that overlaps another one.
async fn refuse_overlap(tx: &mut Tx, net: &IpNet, own: Option<i64>) -> Result<(), ApiError> {
    for s in all(tx).await?.into_values().filter(|s| Some(s.id) != own) {
        let other = s.net()?;
        if other == *net {
            return Err(ApiError::field(
                "cidr",
                "Subnet with this Cidr already exists.",
            ));
        }
        if other.contains(net) || net.contains(&other) {
            return Err(ApiError::field(
                "cidr",
                format!("{net} overlaps subnet {} ({}).", s.name, s.cidr),
            ));
        }
    }
    Ok(())
}

fn rdns_mode(args: &Args) -> Result<Option<i64>, ApiError> {
    match args.int("rdns_mode")? {
        Some(m) if !(0..=2).contains(&m) => Err(ApiError::field("rdns_mode", "Enter 0, 1 or 2.")),
        other => Ok(other),
    }
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let net = parse_cidr(args.required("cidr")?)?;
                refuse_overlap(tx, &net, None).await?;
                let vlan = vlan_of(tx, args).await?;
                let cidr = net.to_string();
                let flag = |name: &str, default: bool| args.bool(name).map(|v| v.unwrap_or(default));
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO subnet (vlan_id, cidr, name, description, gateway_ip, dns_servers, rdns_mode, active_discovery, allow_dns, \
                     allow_proxy, managed, disabled_boot_architectures, router_advertisements) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id",
                    vlan,
                    &cidr,
                    args.filled("name").unwrap_or(&cidr),
                    args.text("description").unwrap_or(""),
                    gateway_of(args, &net)?,
                    addresses_of(args, "dns_servers")?,
                    rdns_mode(args)?.unwrap_or(2),
                    flag("active_discovery", false)?,
                    flag("allow_dns", true)?,
                    flag("allow_proxy", true)?,
                    flag("managed", true)?,
                    boot_methods(args)?,
                    flag("router_advertisements", false)?
                )?;
                tx.changed("subnet", id, 0, call.now()).await?;
                answer(tx, id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let mut s = find(tx, &call).await?;
                if let Some(c) = args.filled("cidr") {
                    let net = parse_cidr(c)?;
                    refuse_overlap(tx, &net, Some(s.id)).await?;
                    ip_range::check_moved(tx, s.id, &net).await?;
                    if s.name == s.cidr {
                        s.name = net.to_string();
                    }
                    s.cidr = net.to_string();
                }
                let net = s.net()?;
                if args.filled("vlan").is_some() || args.filled("fabric").is_some() || args.has("vid") {
                    s.vlan_id = vlan_of(tx, args).await?;
                }
                if let Some(n) = args.filled("name") {
                    s.name = n.to_owned();
                }
                if let Some(d) = args.text("description") {
                    s.description = d.to_owned();
                }
                if args.has("gateway_ip") {
                    s.gateway_ip = gateway_of(args, &net)?;
                }
                if args.has("dns_servers") {
                    s.dns_servers = addresses_of(args, "dns_servers")?;
                }
                if args.has("disabled_boot_architectures") {
                    s.disabled_boot_architectures = boot_methods(args)?;
                }
                s.rdns_mode = rdns_mode(args)?.unwrap_or(s.rdns_mode);
                s.active_discovery = args.bool("active_discovery")?.unwrap_or(s.active_discovery);
                s.allow_dns = args.bool("allow_dns")?.unwrap_or(s.allow_dns);
                s.allow_proxy = args.bool("allow_proxy")?.unwrap_or(s.allow_proxy);
                s.managed = args.bool("managed")?.unwrap_or(s.managed);
                s.router_advertisements = args.bool("router_advertisements")?.unwrap_or(s.router_advertisements);
                store::exec!(
                    tx,
                    "UPDATE subnet SET vlan_id = $2, cidr = $3, name = $4, description = $5, gateway_ip = $6, dns_servers = $7, rdns_mode = $8, \
                     active_discovery = $9, allow_dns = $10, allow_proxy = $11, managed = $12, disabled_boot_architectures = $13, \
                     router_advertisements = $14 WHERE id = $1",
                    s.id,
                    s.vlan_id,
                    &s.cidr,
                    &s.name,
                    &s.description,
                    &s.gateway_ip,
                    &s.dns_servers,
                    s.rdns_mode,
                    s.active_discovery,
                    s.allow_dns,
                    s.allow_proxy,
                    s.managed,
                    &s.disabled_boot_architectures,
                    s.router_advertisements
                )?;
                tx.changed("subnet", s.id, 0, call.now()).await?;
                answer(tx, s.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let s = find(tx, &call).await?;
            let (dynamic,) = store::one!(
                tx,
                (i64,),
                "SELECT COUNT(*) FROM ip_range r JOIN subnet s ON s.id = r.subnet_id JOIN vlan v ON v.id = s.vlan_id \
                 WHERE s.id = $1 AND v.dhcp_on AND r.type = 'dynamic'",
                s.id
            )?;
            if dynamic > 0 && call.args().bool("force")? != Some(true) {
                return Err(ApiError::Bad(format!(
                    "Cannot delete subnet {}: it gives out addresses by DHCP. Switch DHCP off, or use force.",
                    s.name
                )));
            }
            store::exec!(tx, "DELETE FROM subnet WHERE id = $1", s.id)?;
            tx.changed("subnet", s.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

#[derive(sqlx::FromRow)]
struct AddressRow {
    ip: String,
    alloc_type: i64,
    created: i64,
    updated: i64,
    username: Option<String>,
    system_id: Option<String>,
    hostname: Option<String>,
    domain: Option<String>,
    node_type: Option<i64>,
    interface: Option<String>,
}

async fn addresses(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let s = find(&mut tx, &call).await?;
    let rows = store::all!(
        tx,
        AddressRow,
        "SELECT a.ip, a.alloc_type, a.created, a.updated, u.username, n.system_id, n.hostname, d.name AS domain, n.node_type, i.name AS interface \
         FROM ip_address a LEFT JOIN user_account u ON u.id = a.user_id LEFT JOIN interface i ON i.id = a.interface_id \
         LEFT JOIN node n ON n.id = i.node_id LEFT JOIN domain d ON d.id = n.domain_id \
         WHERE a.subnet_id = $1 AND a.ip IS NOT NULL ORDER BY a.id",
        s.id
    )?;
    let leases = store::all!(
        tx,
        AddressRow,
        "SELECT l.ip, CAST(6 AS BIGINT) AS alloc_type, l.updated AS created, l.updated, NULL AS username, n.system_id, n.hostname, d.name AS domain, \
         n.node_type, i.name AS interface FROM lease l LEFT JOIN interface i ON i.mac = l.mac AND i.type = 'physical' \
         LEFT JOIN node n ON n.id = i.node_id LEFT JOIN domain d ON d.id = n.domain_id WHERE l.subnet_id = $1 AND l.until > $2 ORDER BY l.ip",
        s.id,
        call.now().0
    )?;
    let args = call.args();
    let users = args.bool("with_username")?.unwrap_or(true);
    let nodes = args
        .bool("with_node_summary")?
        .or(args.bool("with_summary")?)
        .unwrap_or(true);
    let mut out: Vec<(IpAddr, Value)> = Vec::new();
    for r in rows.into_iter().chain(leases) {
        let Ok(ip) = r.ip.parse::<IpAddr>() else {
            continue;
        };
        let mut o = json!({
            "ip": r.ip,
            "alloc_type": r.alloc_type,
            "created": event_query::spelled(r.created),
            "updated": event_query::spelled(r.updated),
        });
        if let (true, Some(u)) = (users, r.username) {
            o["user"] = u.into();
        }
        if let (true, Some(system_id), Some(hostname)) = (nodes, r.system_id, r.hostname) {
            let fqdn = format!("{hostname}.{}", r.domain.unwrap_or_default());
            o["node_summary"] = json!({
                "system_id": system_id, "node_type": r.node_type, "fqdn": fqdn, "hostname": hostname,
                "is_container": false, "via": r.interface,
            });
        }
        out.push((ip, o));
    }
    out.sort_by_key(|(ip, _)| *ip);
    Ok(Answer::json(out.into_iter().map(|(_, o)| o).collect()))
}
