//! `ipranges`: parts of subnets that are given out by DHCP, or kept back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use metal::ipam::{Range, RangeError, RangeKind};
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param};
use crate::subnet::{self, SubnetRow};
use crate::user::UserRow;
use crate::{ipam, select_subnet, vlan};

const RANGES: Operation = Operation {
    handler: "IPRangesHandler",
    uri: "ipranges/",
    ..Operation::READ
};
const RANGE: Operation = Operation {
    handler: "IPRangeHandler",
    uri: "ipranges/{id}/",
    ..Operation::READ
};

/// `ipranges/` and `ipranges/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List IP ranges.",
        run: |c| Box::pin(list(c)),
        ..RANGES
    },
    Operation {
        method: Method::Post,
        title: "Create an IP range; dynamic ones are for administrators.",
        params: &[
            Param::field(
                "type",
                Kind::Choice(&["dynamic", "reserved"]),
                "What it is for.",
            ),
            Param::field("start_ip", Kind::Text, "First address."),
            Param::field("end_ip", Kind::Text, "Last address."),
            Param::opt(
                "subnet",
                Kind::Text,
                "Its subnet by id; found by the addresses when left out.",
            ),
            Param::opt("comment", Kind::Text, "A comment."),
        ],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..RANGES
    },
    Operation {
        title: "Read an IP range.",
        run: |c| Box::pin(read(c)),
        ..RANGE
    },
    Operation {
        method: Method::Put,
        title: "Change an IP range.",
        params: &[
            Param::opt("start_ip", Kind::Text, "First address."),
            Param::opt("end_ip", Kind::Text, "Last address."),
            Param::opt("comment", Kind::Text, "A comment."),
        ],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..RANGE
    },
    Operation {
        method: Method::Delete,
        title: "Delete an IP range.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..RANGE
    },
];

#[derive(Clone, sqlx::FromRow)]
struct Row {
    id: i64,
    subnet_id: i64,
    r#type: String,
    start_ip: String,
    end_ip: String,
    comment: String,
    user_id: Option<i64>,
}

impl Row {
    fn ends(&self) -> Result<(IpAddr, IpAddr), ApiError> {
        let ip = |s: &str| {
            s.parse()
                .map_err(|_| ApiError::bug("an IP range cannot be read"))
        };
        Ok((ip(&self.start_ip)?, ip(&self.end_ip)?))
    }
}

async fn render(tx: &mut Tx, rows: &[Row]) -> Result<Vec<Value>, ApiError> {
    let vlans = vlan::all(tx).await?;
    let subnets = subnet::all(tx).await?;
    let users = store::all!(
        tx,
        UserRow,
        "SELECT id, username, email, is_superuser, is_local FROM user_account"
    )?;
    Ok(rows
        .iter()
        .map(|r| {
            json!({
                "subnet": subnets.get(&r.subnet_id).map(|s| s.json(&vlans)),
                "type": r.r#type,
                "start_ip": r.start_ip,
                "end_ip": r.end_ip,
                "user": r.user_id.and_then(|u| users.iter().find(|x| x.id == u)).map(UserRow::json),
                "comment": r.comment,
                "id": r.id,
                "resource_uri": format!("/MAAS/api/2.0/ipranges/{}/", r.id),
            })
        })
        .collect())
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, subnet_id, type, start_ip, end_ip, comment, user_id FROM ip_range ORDER BY id"
    )?;
    Ok(Answer::json(render(&mut tx, &rows).await?.into()))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    let id = call.path_id("id", "IPRange")?;
    store::opt!(tx, Row, "SELECT id, subnet_id, type, start_ip, end_ip, comment, user_id FROM ip_range WHERE id = $1", id)?
        .ok_or_else(|| ApiError::missing("IPRange"))
}

async fn one(tx: &mut Tx, row: Row) -> Result<Value, ApiError> {
    Ok(render(tx, &[row]).await?.pop().unwrap_or(Value::Null))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(one(&mut tx, row).await?))
}

fn own(call: &Call, row: &Row) -> Result<(), ApiError> {
    if call.actor().is_admin() || row.user_id == Some(call.actor().user_id()) {
        Ok(())
    } else {
        Err(ApiError::Forbidden(
            "Unable to change an IP range that belongs to somebody else.".to_owned(),
        ))
    }
}

fn address(field: &str, text: &str) -> Result<IpAddr, ApiError> {
    text.trim()
        .parse()
        .map_err(|_| ApiError::field(field, "Enter a valid IPv4 or IPv6 address."))
}

/// 400 for a range that is upside down, outside, or in the way of something; the thing is named.
async fn check(
    tx: &mut Tx,
    s: &SubnetRow,
    kind: &str,
    start: IpAddr,
    end: IpAddr,
    own: Option<i64>,
) -> Result<(), ApiError> {
    let network = ipam::network(tx, s, own).await?;
    let kind = RangeKind::from_word(kind).ok_or_else(|| ApiError::bug("a range without a kind"))?;
    let assigned = store::all!(
        tx,
        (String, Option<String>),
        "SELECT a.ip, n.hostname FROM ip_address a LEFT JOIN interface i ON i.id = a.interface_id LEFT JOIN node n ON n.id = i.node_id \
         WHERE a.subnet_id = $1 AND a.ip IS NOT NULL",
        s.id
    )?;
    let in_use: BTreeSet<IpAddr> = assigned
        .iter()
        .filter_map(|(ip, _)| ip.parse().ok())
        .collect();
    let Err(e) = network.check_range(&Range { start, end, kind }, &in_use) else {
        return Ok(());
    };
    Err(match e {
        RangeError::Family if start.is_ipv4() == end.is_ipv4() => ApiError::field(
            "start_ip",
            format!("Start IP address must be within subnet: {}.", s.cidr),
        ),
        RangeError::Family => ApiError::field(
            "end_ip",
            "Start IP address and end IP address must be in the same address family.",
        ),
        RangeError::Reversed => ApiError::field("end_ip", e.to_string()),
        RangeError::Outside(net) if !net.contains(&start) => ApiError::field(
            "start_ip",
            format!("Start IP address must be within subnet: {}.", s.cidr),
        ),
        RangeError::Outside(_) => ApiError::field(
            "end_ip",
            format!("End IP address must be within subnet: {}.", s.cidr),
        ),
        RangeError::HoldsNetwork(_) => ApiError::field(
            "start_ip",
            "Reserved network address cannot be included in IP range.",
        ),
        RangeError::HoldsBroadcast(_) => ApiError::field(
            "end_ip",
            "Broadcast address cannot be included in IP range.",
        ),
        RangeError::TooSmall(_) => ApiError::field(
            "end_ip",
            "IPv6 dynamic range must be at least 256 addresses in size.",
        ),
        RangeError::HoldsGateway(_) | RangeError::HoldsReserved { .. } => {
            ApiError::field("start_ip", e.to_string())
        }
        RangeError::InUse { ip, .. } => {
            let host = assigned
                .into_iter()
                .find_map(|(a, host)| host.filter(|_| a.parse::<IpAddr>().is_ok_and(|a| a == ip)));
            let whose = host.map_or_else(String::new, |h| format!(" of {h}"));
            ApiError::field(
                "start_ip",
                format!("The dynamic range would include the assigned address {ip}{whose}."),
            )
        }
        RangeError::Overlaps { kind, other } => {
            let id = store::opt!(
                tx,
                (i64,),
                "SELECT id FROM ip_range WHERE subnet_id = $1 AND start_ip = $2 AND id <> $3 ORDER BY id LIMIT 1",
                s.id,
                other.start.to_string(),
                own.unwrap_or(-1)
            )?;
            // The first sentence is known to clients; the second names what is in the way.
            let why = format!(
                "Requested {kind} range conflicts with an existing range. It is {} range {} - {} (id {}).",
                other.kind,
                other.start,
                other.end,
                id.map_or(0, |(id,)| id)
            );
            ApiError::Fields(vec![
                ("start_ip".to_owned(), vec![why.clone()]),
                ("end_ip".to_owned(), vec![why]),
            ])
        }
    })
}

/// 400 when a subnet would move away from under its ranges.
///
/// # Errors
/// As said, or when the database fails.
pub async fn check_moved(tx: &mut Tx, subnet: i64, net: &IpNet) -> Result<(), ApiError> {
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, subnet_id, type, start_ip, end_ip, comment, user_id FROM ip_range WHERE subnet_id = $1",
        subnet
    )?;
    for r in rows {
        let (a, b) = r.ends()?;
        if !net.contains(&a) || !net.contains(&b) {
            return Err(ApiError::field(
                "cidr",
                format!(
                    "The {} range {} - {} would be outside of {net}.",
                    r.r#type, r.start_ip, r.end_ip
                ),
            ));
        }
    }
    Ok(())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let kind = args.required("type")?;
                if kind == "dynamic" && !call.actor().is_admin() {
                    return Err(ApiError::Forbidden("Unable to create dynamic IP range. You don't have sufficient privileges.".to_owned()));
                }
                let start = address("start_ip", args.required("start_ip")?)?;
                let end = address("end_ip", args.required("end_ip")?)?;
                let s = match args.filled("subnet") {
                    Some(id) => {
                        let id: i64 = id.parse().map_err(|_| ApiError::field("subnet", "Enter the id of a subnet."))?;
                        store::opt!(tx, SubnetRow, select_subnet!("WHERE s.id = $1"), id)?
                    }
                    None => subnet::narrowest(&subnet::all(tx).await?, start).cloned(),
                }
                .ok_or_else(|| ApiError::field("subnet", "Unable to find subnet. Name one that exists."))?;
                check(tx, &s, kind, start, end, None).await?;
                let row = store::one!(
                    tx,
                    Row,
                    "INSERT INTO ip_range (subnet_id, type, start_ip, end_ip, comment, user_id) VALUES ($1, $2, $3, $4, $5, $6) \
                     RETURNING id, subnet_id, type, start_ip, end_ip, comment, user_id",
                    s.id,
                    kind,
                    start.to_string(),
                    end.to_string(),
                    args.text("comment").unwrap_or(""),
                    call.actor().user_id()
                )?;
                tx.changed("subnet", s.id, 0, call.now()).await?;
                one(tx, row).await
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
                own(&call, &row)?;
                let args = call.args();
                let (mut start, mut end) = row.ends()?;
                if let Some(t) = args.filled("start_ip") {
                    start = address("start_ip", t)?;
                }
                if let Some(t) = args.filled("end_ip") {
                    end = address("end_ip", t)?;
                }
                let s = store::one!(
                    tx,
                    SubnetRow,
                    select_subnet!("WHERE s.id = $1"),
                    row.subnet_id
                )?;
                check(tx, &s, &row.r#type, start, end, Some(row.id)).await?;
                row.start_ip = start.to_string();
                row.end_ip = end.to_string();
                if let Some(c) = args.text("comment") {
                    row.comment = c.to_owned();
                }
                store::exec!(
                    tx,
                    "UPDATE ip_range SET start_ip = $2, end_ip = $3, comment = $4 WHERE id = $1",
                    row.id,
                    &row.start_ip,
                    &row.end_ip,
                    &row.comment
                )?;
                tx.changed("subnet", row.subnet_id, 0, call.now()).await?;
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
            own(&call, &row)?;
            store::exec!(tx, "DELETE FROM ip_range WHERE id = $1", row.id)?;
            tx.changed("subnet", row.subnet_id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
