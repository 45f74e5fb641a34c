//! `fabrics`: sets of VLANs that can reach each other.

use std::collections::HashMap;

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::vlan::{self, VlanRow};

const PARAMS: &[Param] = &[
    Param::opt(
        "name",
        Kind::Text,
        "Name; made up from the number when left out.",
    ),
    Param::opt("description", Kind::Text, "A description."),
    Param::opt("class_type", Kind::Text, "A class, for example 10g."),
];
const FABRICS: Operation = Operation {
    handler: "FabricsHandler",
    uri: "fabrics/",
    ..Operation::READ
};
const FABRIC: Operation = Operation {
    handler: "FabricHandler",
    uri: "fabrics/{id}/",
    ..Operation::READ
};

/// `fabrics/` and `fabrics/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List fabrics.",
        run: |c| Box::pin(list(c)),
        ..FABRICS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a fabric, with its untagged VLAN.",
        params: PARAMS,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..FABRICS
    },
    Operation {
        title: "Read a fabric.",
        run: |c| Box::pin(read(c)),
        ..FABRIC
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a fabric.",
        params: PARAMS,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..FABRIC
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a fabric without subnets.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..FABRIC
    },
];

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    name: Option<String>,
    class_type: Option<String>,
}

impl Row {
    fn shown_name(&self) -> String {
        self.name
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| format!("fabric-{}", self.id))
    }

    fn json(&self, vlans: &HashMap<i64, VlanRow>) -> Value {
        let mut own: Vec<&VlanRow> = vlans.values().filter(|v| v.fabric_id == self.id).collect();
        own.sort_by_key(|v| v.id);
        json!({
            "class_type": self.class_type,
            "name": self.shown_name(),
            "id": self.id,
            "vlans": own.iter().map(|v| v.json(vlans)).collect::<Vec<_>>(),
            "resource_uri": format!("/MAAS/api/2.0/fabrics/{}/", self.id),
        })
    }
}

/// The fabric of a path or a parameter: its id, or its name.
///
/// # Errors
/// 404 when there is none.
pub async fn id_of(tx: &mut Tx, text: &str) -> Result<i64, ApiError> {
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, name, class_type FROM fabric ORDER BY id"
    )?;
    rows.iter()
        .find(|r| r.id.to_string() == text || r.shown_name() == text)
        .map(|r| r.id)
        .ok_or_else(|| ApiError::missing("Fabric"))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    let id = id_of(tx, call.path("id")).await?;
    Ok(store::one!(
        tx,
        Row,
        "SELECT id, name, class_type FROM fabric WHERE id = $1",
        id
    )?)
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, name, class_type FROM fabric ORDER BY id"
    )?;
    let vlans = vlan::all(&mut tx).await?;
    Ok(Answer::json(rows.iter().map(|r| r.json(&vlans)).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    let vlans = vlan::all(&mut tx).await?;
    Ok(Answer::json(row.json(&vlans)))
}

async fn check_name(tx: &mut Tx, name: &str, own: Option<i64>) -> Result<(), ApiError> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    if name.len() > 256 || !name.chars().all(fits) {
        return Err(ApiError::field(
            "name",
            "Use letters, digits, spaces, hyphens, underscores and dots only.",
        ));
    }
    if let Some(n) = name.strip_prefix("fabric-")
        && n.parse().ok() != own
        && n.parse::<i64>().is_ok()
    {
        return Err(ApiError::field(
            "name",
            "Names made of 'fabric-' and a number belong to the fabric of that number.",
        ));
    }
    let taken = store::opt!(tx, (i64,), "SELECT id FROM fabric WHERE name = $1", name)?;
    if taken.is_some_and(|(id,)| Some(id) != own) {
        return Err(ApiError::field(
            "name",
            "Fabric with this Name already exists.",
        ));
    }
    Ok(())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                if let Some(name) = args.filled("name") {
                    check_name(tx, name, None).await?;
                }
                let row = store::one!(
                    tx,
                    Row,
                    "INSERT INTO fabric (name, description, class_type) VALUES ($1, $2, $3) RETURNING id, name, class_type",
                    args.filled("name"),
                    args.text("description").unwrap_or(""),
                    args.filled("class_type")
                )?;
                let (vlan,) = store::one!(tx, (i64,), "INSERT INTO vlan (fabric_id, vid) VALUES ($1, 0) RETURNING id", row.id)?;
                tx.changed("fabric", row.id, 0, call.now()).await?;
                tx.changed("vlan", vlan, 0, call.now()).await?;
                let vlans = vlan::all(tx).await?;
                Ok(row.json(&vlans))
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
                if let Some(name) = args.filled("name") {
                    check_name(tx, name, Some(row.id)).await?;
                    row.name = Some(name.to_owned());
                }
                if args.has("class_type") {
                    row.class_type = args.filled("class_type").map(str::to_owned);
                }
                store::exec!(
                    tx,
                    "UPDATE fabric SET name = $2, class_type = $3 WHERE id = $1",
                    row.id,
                    &row.name,
                    &row.class_type
                )?;
                if let Some(d) = args.text("description") {
                    store::exec!(
                        tx,
                        "UPDATE fabric SET description = $2 WHERE id = $1",
                        row.id,
                        d
                    )?;
                }
                tx.changed("fabric", row.id, 0, call.now()).await?;
                let vlans = vlan::all(tx).await?;
                Ok(row.json(&vlans))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            if row.id == 0 {
                return Err(ApiError::Bad("This fabric is the default fabric, it cannot be deleted.".to_owned()));
            }
            let subnets = store::all!(
                tx,
                (String,),
                "SELECT s.cidr FROM subnet s JOIN vlan v ON v.id = s.vlan_id WHERE v.fabric_id = $1 ORDER BY s.id",
                row.id
            )?;
            if !subnets.is_empty() {
                let names: Vec<String> = subnets.into_iter().map(|s| s.0).collect();
                return Err(ApiError::Bad(format!("Can't delete fabric; the following subnets are still present: {}", names.join(", "))));
            }
            let vlans = store::all!(tx, (i64,), "SELECT id FROM vlan WHERE fabric_id = $1", row.id)?;
            store::exec!(tx, "DELETE FROM fabric WHERE id = $1", row.id)?;
            tx.changed("fabric", row.id, 0, call.now()).await?;
            for (id,) in vlans {
                tx.changed("vlan", id, 0, call.now()).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
