//! `reservedips`: addresses that belong to one hardware address each, whether or not a machine with it is
//! known. Whoever has the hardware address gets exactly this address, from DHCP and from us; nobody else
//! does.

use std::net::IpAddr;

use metal::MacAddr;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::{ipam, subnet, vlan};

/// Longest comment, in characters.
const MAX_COMMENT: usize = 255;

const COMMENT: Param = Param::opt("comment", Kind::Text, "A comment.");
const RESERVATIONS: Operation = Operation {
    handler: "ReservedIpsHandler",
    uri: "reservedips/",
    ..Operation::READ
};
const RESERVATION: Operation = Operation {
    handler: "ReservedIpHandler",
    uri: "reservedips/{id}/",
    ..Operation::READ
};

/// `reservedips/` and `reservedips/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List reserved addresses.",
        run: |c| Box::pin(list(c)),
        ..RESERVATIONS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Reserve an address for a hardware address.",
        params: &[
            Param::field("ip", Kind::Text, "The address."),
            Param::field(
                "mac_address",
                Kind::Text,
                "The hardware address it belongs to.",
            ),
            Param::opt(
                "subnet",
                Kind::Text,
                "Its subnet; found by the address when left out.",
            ),
            COMMENT,
        ],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..RESERVATIONS
    },
    Operation {
        title: "Read a reserved address.",
        run: |c| Box::pin(read(c)),
        ..RESERVATION
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change the comment of a reserved address.",
        params: &[COMMENT],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..RESERVATION
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Give up a reserved address.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..RESERVATION
    },
];

#[derive(Clone, sqlx::FromRow)]
struct Row {
    id: i64,
    subnet_id: i64,
    ip: String,
    mac: String,
    comment: String,
}

async fn render(tx: &mut Tx, rows: &[Row]) -> Result<Vec<Value>, ApiError> {
    let vlans = vlan::all(tx).await?;
    let subnets = subnet::all(tx).await?;
    Ok(rows
        .iter()
        .map(|r| {
            json!({
                "ip": r.ip,
                "subnet": subnets.get(&r.subnet_id).map(|s| s.json(&vlans)),
                "mac_address": r.mac,
                "comment": r.comment,
                "id": r.id,
                "resource_uri": format!("/MAAS/api/2.0/reservedips/{}/", r.id),
            })
        })
        .collect())
}

async fn one(tx: &mut Tx, row: Row) -> Result<Value, ApiError> {
    Ok(render(tx, &[row]).await?.pop().unwrap_or(Value::Null))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    let id = call.path_id("id", "ReservedIP")?;
    store::opt!(
        tx,
        Row,
        "SELECT id, subnet_id, ip, mac, comment FROM reserved_ip WHERE id = $1",
        id
    )?
    .ok_or_else(|| ApiError::missing("ReservedIP"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, subnet_id, ip, mac, comment FROM reserved_ip ORDER BY id"
    )?;
    Ok(Answer::json(render(&mut tx, &rows).await?.into()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(one(&mut tx, row).await?))
}

fn comment_of(call: &Call) -> Result<Option<String>, ApiError> {
    let comment = call.args().text("comment");
    if comment.is_some_and(|c| c.chars().count() > MAX_COMMENT) {
        return Err(ApiError::field(
            "comment",
            format!("A comment has at most {MAX_COMMENT} characters."),
        ));
    }
    Ok(comment.map(str::to_owned))
}

/// What a request asks for, read and checked by itself.
#[derive(Clone)]
struct Wish {
    ip: IpAddr,
    mac: MacAddr,
    comment: String,
}

impl Wish {
    fn from_call(call: &Call) -> Result<Self, ApiError> {
        let args = call.args();
        let ip = args
            .required("ip")?
            .trim()
            .parse()
            .map_err(|_| ApiError::field("ip", "Enter a valid IPv4 or IPv6 address."))?;
        let text = args.required("mac_address")?;
        let mac = text.trim().parse().map_err(|_| {
            ApiError::field(
                "mac_address",
                format!(
                    "'{}' is not a valid MAC address.",
                    text.chars().take(64).collect::<String>()
                ),
            )
        })?;
        Ok(Self {
            ip,
            mac,
            comment: comment_of(call)?.unwrap_or_default(),
        })
    }
}

/// 400 when the address cannot belong to the hardware address.
async fn check(tx: &mut Tx, call: &Call, subnet: i64, wish: &Wish) -> Result<(), ApiError> {
    let (ip, mac) = (wish.ip.to_string(), wish.mac.to_string());
    let taken = store::opt!(
        tx,
        (String,),
        "SELECT mac FROM reserved_ip WHERE ip = $1",
        &ip
    )?;
    if let Some((owner,)) = taken {
        return Err(ApiError::field(
            "ip",
            format!("Reserved IP with this Ip already exists; it belongs to {owner}."),
        ));
    }
    let other = store::opt!(
        tx,
        (String,),
        "SELECT ip FROM reserved_ip WHERE subnet_id = $1 AND mac = $2",
        subnet,
        &mac
    )?;
    if let Some((other,)) = other {
        return Err(ApiError::field(
            "mac_address",
            format!(
                "{mac} has {other} in this subnet already; a card has one reserved address in each."
            ),
        ));
    }
    // An address that the card has already is no obstacle: it keeps it.
    let whose = store::opt!(
        tx,
        (Option<String>, Option<String>, Option<String>),
        "SELECT i.mac, n.hostname, a.mac FROM ip_address a LEFT JOIN interface i ON i.id = a.interface_id \
         LEFT JOIN node n ON n.id = i.node_id WHERE a.ip = $1",
        &ip
    )?;
    let mut addresses = ipam::addresses(tx, subnet, call.now()).await?;
    match whose {
        Some((card, _, reserved)) if card.as_ref().or(reserved.as_ref()) == Some(&mac) => {
            addresses.assigned.remove(&wish.ip);
        }
        Some((_, Some(host), _)) => {
            return Err(ApiError::field(
                "ip",
                format!("IP address is already in use by {host}."),
            ));
        }
        _ => {}
    }
    addresses
        .network
        .check_reservation(wish.ip, wish.mac, &addresses.assigned)
        .map_err(|e| ApiError::field("ip", e.to_string()))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let wish = Wish::from_call(&call)?;
    let value = call
        .write(move |tx, call| {
            let wish = wish.clone();
            Box::pin(async move {
                let subnets = subnet::all(tx).await?;
                let s = match call.args().filled("subnet") {
                    Some(text) => subnet::choose(&subnets, text)
                        .ok_or_else(|| ApiError::field("subnet", "There is no such subnet."))?,
                    None => subnet::narrowest(&subnets, wish.ip).ok_or_else(|| {
                        ApiError::field("subnet", format!("No subnet holds {}; create it first.", wish.ip))
                    })?,
                };
                check(tx, &call, s.id, &wish).await?;
                let row = store::one!(
                    tx,
                    Row,
                    "INSERT INTO reserved_ip (subnet_id, ip, mac, comment, created, updated) VALUES ($1, $2, $3, $4, $5, $5) \
                     RETURNING id, subnet_id, ip, mac, comment",
                    s.id,
                    wish.ip.to_string(),
                    wish.mac.to_string(),
                    &wish.comment,
                    call.now().0
                )?;
                tx.changed("reserved_ip", row.id, 0, call.now()).await?;
                // Racks hear of it with its subnet.
                tx.changed("subnet", s.id, 0, call.now()).await?;
                one(tx, row).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let comment = comment_of(&call)?;
    let value = call
        .write(move |tx, call| {
            let comment = comment.clone();
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                for (field, kept) in [("ip", &row.ip), ("mac_address", &row.mac)] {
                    let asked = call.args().filled(field).map(str::trim);
                    if asked.is_some_and(|a| !a.eq_ignore_ascii_case(kept)) {
                        return Err(ApiError::field(
                            field,
                            "This cannot be changed; delete the reservation and make another one.",
                        ));
                    }
                }
                if let Some(c) = comment {
                    row.comment = c;
                }
                store::exec!(
                    tx,
                    "UPDATE reserved_ip SET comment = $2, updated = $3 WHERE id = $1",
                    row.id,
                    &row.comment,
                    call.now().0
                )?;
                tx.changed("reserved_ip", row.id, 0, call.now()).await?;
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
            store::exec!(tx, "DELETE FROM reserved_ip WHERE id = $1", row.id)?;
            tx.changed("reserved_ip", row.id, 0, call.now()).await?;
            tx.changed("subnet", row.subnet_id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
