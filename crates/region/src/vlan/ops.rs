//! The operations of VLANs.

use metal::SystemId;
use store::Tx;

use super::{VlanRow, all};
use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::fabric;
use crate::interface::made;
use crate::node::row;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::rack_link::register::is_rack;
use crate::select_vlan;

const DESCRIBE: &[Param] = &[
    Param::opt("name", Kind::Text, "Name."),
    Param::opt("description", Kind::Text, "A description."),
    Param::field("vid", Kind::Int, "802.1Q number, 1 to 4094."),
    Param::opt("mtu", Kind::Int, "MTU in bytes, 552 to 65535."),
    Param::opt("space", Kind::Text, "Its space, by name or id."),
];
const CHANGE: &[Param] = &[
    Param::opt("name", Kind::Text, "Name."),
    Param::opt("description", Kind::Text, "A description."),
    Param::opt("vid", Kind::Int, "802.1Q number."),
    Param::opt("mtu", Kind::Int, "MTU in bytes, 552 to 65535."),
    Param::opt(
        "dhcp_on",
        Kind::Bool,
        "Whether the racks give out addresses here.",
    ),
    Param::opt(
        "primary_rack",
        Kind::Text,
        "System id of the rack that serves.",
    ),
    Param::opt(
        "secondary_rack",
        Kind::Text,
        "System id of the rack that stands by.",
    ),
    Param::opt(
        "relay_vlan",
        Kind::Int,
        "Id of the VLAN through which requests are relayed.",
    ),
    Param::opt("space", Kind::Text, "Its space, by name or id."),
    Param::opt(
        "fabric",
        Kind::Text,
        "Another fabric to put it into, by name or id.",
    ),
];

const VLANS: Operation = Operation {
    handler: "VlansHandler",
    uri: "fabrics/{fabric_id}/vlans/",
    ..Operation::READ
};
const VLAN: Operation = Operation {
    handler: "VlanHandler",
    uri: "fabrics/{fabric_id}/vlans/{vid}/",
    also: &["vlans/{vlan_id}/"],
    ..Operation::READ
};

/// `fabrics/{fabric_id}/vlans/` and `fabrics/{fabric_id}/vlans/{vid}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the VLANs of a fabric.",
        run: |c| Box::pin(list(c)),
        ..VLANS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a VLAN.",
        params: DESCRIBE,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..VLANS
    },
    Operation {
        title: "Read a VLAN.",
        run: |c| Box::pin(read(c)),
        ..VLAN
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a VLAN; switches DHCP on and off.",
        params: CHANGE,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..VLAN
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a VLAN without subnets.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..VLAN
    },
];

async fn find(tx: &mut Tx, call: &Call) -> Result<VlanRow, ApiError> {
    let by_id = call.path("vlan_id");
    let row = if by_id.is_empty() {
        let fabric = fabric::id_of(tx, call.path("fabric_id")).await?;
        let vid: i64 = match call.path("vid") {
            "untagged" => 0,
            v => v.parse().map_err(|_| ApiError::missing("VLAN"))?,
        };
        store::opt!(
            tx,
            VlanRow,
            select_vlan!("WHERE v.fabric_id = $1 AND v.vid = $2"),
            fabric,
            vid
        )?
    } else {
        let id = call.path_id("vlan_id", "VLAN")?;
        store::opt!(tx, VlanRow, select_vlan!("WHERE v.id = $1"), id)?
    };
    row.ok_or_else(|| ApiError::missing("VLAN"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let fabric = fabric::id_of(&mut tx, call.path("fabric_id")).await?;
    let vlans = all(&mut tx).await?;
    let mut own: Vec<&VlanRow> = vlans.values().filter(|v| v.fabric_id == fabric).collect();
    own.sort_by_key(|v| v.id);
    Ok(Answer::json(own.iter().map(|v| v.json(&vlans)).collect()))
}

async fn answer(tx: &mut Tx, id: i64) -> Result<serde_json::Value, ApiError> {
    let vlans = all(tx).await?;
    vlans
        .get(&id)
        .map(|v| v.json(&vlans))
        .ok_or_else(|| ApiError::missing("VLAN"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let id = find(&mut tx, &call).await?.id;
    Ok(Answer::json(answer(&mut tx, id).await?))
}

fn check_numbers(vid: Option<i64>, mtu: Option<i64>) -> Result<(), ApiError> {
    if vid.is_some_and(|v| !(0..=4094).contains(&v)) {
        return Err(ApiError::field("vid", "VID must be between 0 and 4094."));
    }
    if mtu.is_some_and(|m| !(552..=65_535).contains(&m)) {
        return Err(ApiError::field("mtu", "MTU must be between 552 and 65535."));
    }
    Ok(())
}

async fn space_id(tx: &mut Tx, text: &str) -> Result<Option<i64>, ApiError> {
    if text.is_empty() || text == "undefined" {
        return Ok(None);
    }
    let row = store::opt!(
        tx,
        (i64,),
        "SELECT id FROM space WHERE name = $1 OR CAST(id AS TEXT) = $1 OR 'space-' || CAST(id AS TEXT) = $1",
        text
    )?;
    row.map(|r| Some(r.0))
        .ok_or_else(|| ApiError::field("space", "There is no space with that name or id."))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let fabric = fabric::id_of(tx, call.path("fabric_id")).await?;
                let (vid, mtu) = (args.int("vid")?, args.int("mtu")?);
                check_numbers(vid, mtu)?;
                let space = space_id(tx, args.text("space").unwrap_or("")).await?;
                let row = store::opt!(
                    tx,
                    (i64,),
                    "INSERT INTO vlan (fabric_id, vid, name, description, mtu, space_id) VALUES ($1, $2, $3, $4, $5, $6) \
                     ON CONFLICT (fabric_id, vid) DO NOTHING RETURNING id",
                    fabric,
                    vid.unwrap_or(0),
                    args.filled("name"),
                    args.text("description").unwrap_or(""),
                    mtu.unwrap_or(1500),
                    space
                )?;
                let Some((id,)) = row else {
                    return Err(ApiError::field("vid", "A VLAN with the specified VID already exists in the destination fabric."));
                };
                tx.changed("vlan", id, 0, call.now()).await?;
                answer(tx, id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// A rack that has an interface on the VLAN, or is reached from it through a relay.
async fn rack_id(
    tx: &mut Tx,
    field: &str,
    system_id: &str,
    vlan: i64,
) -> Result<Option<i64>, ApiError> {
    if system_id.is_empty() {
        return Ok(None);
    }
    let node = row::find(tx, system_id)
        .await?
        .filter(|n| is_rack(n.node_type))
        .ok_or_else(|| {
            ApiError::field(
                field,
                format!("{} is no rack controller.", SystemId::from(system_id)),
            )
        })?;
    let (on,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM interface WHERE node_id = $1 AND vlan_id = $2",
        node.id,
        vlan
    )?;
    if on == 0 {
        return Err(ApiError::field(
            field,
            format!("{} has no interface on this VLAN.", node.hostname),
        ));
    }
    Ok(Some(node.id))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let vlan = find(tx, &call).await?;
                let args = call.args();
                let by_path = !call.path("vid").is_empty() || !call.path("vlan_id").is_empty();
                let new_vid = if by_path { args.int("vid")? } else { None };
                check_numbers(new_vid, args.int("mtu")?)?;
                if let Some(name) = args.text("name") {
                    store::exec!(tx, "UPDATE vlan SET name = $2 WHERE id = $1", vlan.id, Some(name).filter(|n| !n.is_empty()))?;
                }
                if let Some(d) = args.text("description") {
                    store::exec!(tx, "UPDATE vlan SET description = $2 WHERE id = $1", vlan.id, d)?;
                }
                if let Some(m) = args.int("mtu")? {
                    store::exec!(tx, "UPDATE vlan SET mtu = $2 WHERE id = $1", vlan.id, m)?;
                }
                if let Some(v) = new_vid {
                    store::exec!(tx, "UPDATE vlan SET vid = $2 WHERE id = $1", vlan.id, v).map_err(|e| {
                        if e.is_unique_violation() {
                            ApiError::field("vid", "A VLAN with the specified VID already exists in the destination fabric.")
                        } else {
                            e.into()
                        }
                    })?;
                }
                if let Some(f) = args.filled("fabric") {
                    move_to(tx, &vlan, f).await?;
                }
                if let Some(s) = args.text("space") {
                    let space = space_id(tx, s).await?;
                    store::exec!(tx, "UPDATE vlan SET space_id = $2 WHERE id = $1", vlan.id, space)?;
                }
                dhcp(tx, &call, &vlan).await?;
                tx.changed("vlan", vlan.id, 0, call.now()).await?;
                answer(tx, vlan.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Puts a VLAN into another fabric. The default VLAN of a fabric stays where it is.
async fn move_to(tx: &mut Tx, vlan: &VlanRow, fabric: &str) -> Result<(), ApiError> {
    let id = fabric::id_of(tx, fabric)
        .await
        .map_err(|_| ApiError::field("fabric", "There is no such fabric."))?;
    if id == vlan.fabric_id {
        return Ok(());
    }
    if vlan.vid == 0 {
        return Err(ApiError::field(
            "fabric",
            "The untagged VLAN of a fabric cannot leave it.",
        ));
    }
    store::exec!(
        tx,
        "UPDATE vlan SET fabric_id = $2 WHERE id = $1",
        vlan.id,
        id
    )
    .map_err(|e| {
        if e.is_unique_violation() {
            ApiError::field(
                "vid",
                "A VLAN with the specified VID already exists in the destination fabric.",
            )
        } else {
            e.into()
        }
    })?;
    Ok(())
}

/// 400 when requests of a VLAN cannot be relayed to that one. Racks look one step far: the VLAN that is
/// relayed to has racks of its own.
async fn check_relay(tx: &mut Tx, vlan: i64, relay: i64) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::field("relay_vlan", why));
    let vlans = all(tx).await?;
    let Some(to) = vlans.get(&relay).filter(|_| relay != vlan) else {
        return refuse("Name another VLAN that exists.".to_owned());
    };
    if to.relay_vlan_id.is_some() {
        return refuse(format!(
            "VLAN {} is relayed itself; name the one that its racks serve.",
            to.id
        ));
    }
    if let Some(from) = vlans.values().find(|v| v.relay_vlan_id == Some(vlan)) {
        return refuse(format!(
            "VLAN {} is relayed to this one, so this one cannot be relayed.",
            from.id
        ));
    }
    Ok(())
}

/// Who serves addresses here, and whether at all.
async fn dhcp(tx: &mut Tx, call: &Call, vlan: &VlanRow) -> Result<(), ApiError> {
    let args = call.args();
    if let Some(rack) = args.text("primary_rack") {
        let id = rack_id(tx, "primary_rack", rack, vlan.id).await?;
        store::exec!(
            tx,
            "UPDATE vlan SET primary_rack_id = $2 WHERE id = $1",
            vlan.id,
            id
        )?;
    }
    if let Some(rack) = args.text("secondary_rack") {
        let id = rack_id(tx, "secondary_rack", rack, vlan.id).await?;
        store::exec!(
            tx,
            "UPDATE vlan SET secondary_rack_id = $2 WHERE id = $1",
            vlan.id,
            id
        )?;
    }
    if args.has("relay_vlan") {
        let relay = args.int("relay_vlan")?;
        if let Some(r) = relay {
            check_relay(tx, vlan.id, r).await?;
            // The racks of the other VLAN serve this one.
            if args.bool("dhcp_on")?.unwrap_or(vlan.dhcp_on) {
                return Err(ApiError::field(
                    "relay_vlan",
                    "'relay_vlan' cannot be set when dhcp is on.",
                ));
            }
            store::exec!(
                tx,
                "UPDATE vlan SET primary_rack_id = NULL, secondary_rack_id = NULL WHERE id = $1",
                vlan.id
            )?;
        }
        store::exec!(
            tx,
            "UPDATE vlan SET relay_vlan_id = $2 WHERE id = $1",
            vlan.id,
            relay
        )?;
    }
    if let Some(on) = args.bool("dhcp_on")? {
        store::exec!(
            tx,
            "UPDATE vlan SET dhcp_on = $2 WHERE id = $1",
            vlan.id,
            on
        )?;
    }
    let (on, primary, secondary, relay) = store::one!(
        tx,
        (bool, Option<i64>, Option<i64>, Option<i64>),
        "SELECT dhcp_on, primary_rack_id, secondary_rack_id, relay_vlan_id FROM vlan WHERE id = $1",
        vlan.id
    )?;
    if primary.is_some() && primary == secondary {
        return Err(ApiError::field(
            "secondary_rack",
            "The primary and secondary rack must be two different ones.",
        ));
    }
    if on && relay.is_some() {
        return Err(ApiError::field(
            "relay_vlan",
            "'relay_vlan' cannot be set when dhcp is on.",
        ));
    }
    if on && primary.is_none() {
        return Err(ApiError::field(
            "dhcp_on",
            "dhcp can only be turned on when a primary rack controller is set.",
        ));
    }
    if on && !vlan.dhcp_on {
        let (ranges,) = store::one!(
            tx,
            (i64,),
            "SELECT COUNT(*) FROM ip_range r JOIN subnet s ON s.id = r.subnet_id WHERE s.vlan_id = $1 AND r.type = 'dynamic'",
            vlan.id
        )?;
        if ranges == 0 {
            return Err(ApiError::field(
                "dhcp_on",
                "dhcp can only be turned on when a dynamic IP range is defined.",
            ));
        }
    }
    Ok(())
}

/// Takes the interfaces out of a VLAN that goes: those that are its tagged packets go with it, the others
/// are in the fabric's default VLAN from then on.
async fn leave(tx: &mut Tx, call: &Call, vlan: &VlanRow) -> Result<(), ApiError> {
    let on_it = store::all!(
        tx,
        (i64, i64, String),
        "SELECT id, node_id, type FROM interface WHERE vlan_id = $1 ORDER BY id",
        vlan.id
    )?;
    let mut nodes = std::collections::BTreeSet::new();
    for (id, node, kind) in on_it {
        nodes.insert(node);
        if kind == "vlan" {
            let node = row::by_id(tx, node).await?;
            made::remove(tx, &node, id, call.now()).await?;
        }
    }
    store::exec!(
        tx,
        "UPDATE interface SET vlan_id = (SELECT d.id FROM vlan d WHERE d.fabric_id = $2 AND d.vid = 0) WHERE vlan_id = $1",
        vlan.id,
        vlan.fabric_id
    )?;
    for node in nodes {
        row::touch(tx, node, call.now()).await?;
    }
    Ok(())
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let vlan = find(tx, &call).await?;
            if vlan.vid == 0 {
                return Err(ApiError::Bad(
                    "This VLAN is the default VLAN in the fabric, it cannot be deleted.".to_owned(),
                ));
            }
            let subnets = store::all!(
                tx,
                (String,),
                "SELECT cidr FROM subnet WHERE vlan_id = $1 ORDER BY id",
                vlan.id
            )?;
            if !subnets.is_empty() {
                let names: Vec<String> = subnets.into_iter().map(|s| s.0).collect();
                return Err(ApiError::Bad(format!(
                    "Can't delete VLAN; the following subnets are still present: {}",
                    names.join(", ")
                )));
            }
            leave(tx, &call, &vlan).await?;
            let relayed = store::all!(
                tx,
                (i64,),
                "SELECT id FROM vlan WHERE relay_vlan_id = $1 ORDER BY id",
                vlan.id
            )?;
            store::exec!(tx, "DELETE FROM vlan WHERE id = $1", vlan.id)?;
            tx.changed("vlan", vlan.id, 0, call.now()).await?;
            for (id,) in relayed {
                tx.changed("vlan", id, 0, call.now()).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
