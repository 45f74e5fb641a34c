//! `spaces`: sets of VLANs whose subnets may be used alike, across fabrics.

use std::collections::HashMap;

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::subnet::{self, SubnetRow};
use crate::vlan::{self, VlanRow};

/// The name of the space that VLANs without one are in.
pub const UNDEFINED: &str = "undefined";
/// Its id in the API.
const UNDEFINED_ID: i64 = -1;

const PARAMS: &[Param] = &[
    Param::opt(
        "name",
        Kind::Text,
        "Name; made up from the number when left out.",
    ),
    Param::opt("description", Kind::Text, "A description."),
];
const SPACES: Operation = Operation {
    handler: "SpacesHandler",
    uri: "spaces/",
    ..Operation::READ
};
const SPACE: Operation = Operation {
    handler: "SpaceHandler",
    uri: "spaces/{id}/",
    ..Operation::READ
};

/// `spaces/` and `spaces/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List spaces; the last one holds the VLANs that are in none.",
        run: |c| Box::pin(list(c)),
        ..SPACES
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a space.",
        params: PARAMS,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..SPACES
    },
    Operation {
        title: "Read a space.",
        run: |c| Box::pin(read(c)),
        ..SPACE
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a space.",
        params: PARAMS,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..SPACE
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a space; its VLANs are in none afterwards.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..SPACE
    },
];

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    name: Option<String>,
    description: String,
}

/// What the JSON of spaces needs beside their rows: all VLANs and subnets.
struct Around {
    vlans: HashMap<i64, VlanRow>,
    subnets: Vec<SubnetRow>,
}

impl Around {
    async fn load(tx: &mut Tx) -> Result<Self, ApiError> {
        let mut subnets: Vec<SubnetRow> = subnet::all(tx).await?.into_values().collect();
        subnets.sort_by_key(|s| s.id);
        Ok(Self {
            vlans: vlan::all(tx).await?,
            subnets,
        })
    }
}

impl Row {
    fn undefined() -> Self {
        Self {
            id: UNDEFINED_ID,
            name: Some(UNDEFINED.to_owned()),
            description: String::new(),
        }
    }

    const fn is_undefined(&self) -> bool {
        self.id == UNDEFINED_ID
    }

    fn shown_name(&self) -> String {
        self.name
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| format!("space-{}", self.id))
    }

    fn json(&self, around: &Around) -> Value {
        let own_id = (!self.is_undefined()).then_some(self.id);
        let mut own: Vec<&VlanRow> = around
            .vlans
            .values()
            .filter(|v| v.space_id == own_id)
            .collect();
        own.sort_by_key(|v| v.id);
        let subnets: Vec<Value> = around
            .subnets
            .iter()
            .filter(|s| own.iter().any(|v| v.id == s.vlan_id))
            .map(|s| s.json(&around.vlans))
            .collect();
        let place = if self.is_undefined() {
            UNDEFINED.to_owned()
        } else {
            self.id.to_string()
        };
        json!({
            "name": self.shown_name(),
            "description": self.description,
            "id": self.id,
            "vlans": own.iter().map(|v| v.json(&around.vlans)).collect::<Vec<_>>(),
            "subnets": subnets,
            "resource_uri": format!("/MAAS/api/2.0/spaces/{place}/"),
        })
    }
}

async fn all(tx: &mut Tx) -> Result<Vec<Row>, ApiError> {
    Ok(store::all!(
        tx,
        Row,
        "SELECT id, name, description FROM space ORDER BY id"
    )?)
}

/// The space of the path: by id or by name.
async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    let text = call.path("id");
    if text == UNDEFINED {
        return Ok(Row::undefined());
    }
    let name = text.strip_prefix("name:").unwrap_or(text);
    all(tx)
        .await?
        .into_iter()
        .find(|r| r.id.to_string() == text || r.shown_name() == name)
        .ok_or_else(|| ApiError::missing("Space"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let mut rows = all(&mut tx).await?;
    rows.push(Row::undefined());
    let around = Around::load(&mut tx).await?;
    Ok(Answer::json(rows.iter().map(|r| r.json(&around)).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(row.json(&Around::load(&mut tx).await?)))
}

async fn check_name(tx: &mut Tx, name: &str, own: Option<i64>) -> Result<(), ApiError> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    if name.len() > 256 || !name.chars().all(fits) {
        return Err(ApiError::field(
            "name",
            "Use letters, digits, spaces, hyphens, underscores and dots only.",
        ));
    }
    let numbered = name.strip_prefix("space-").map(str::parse::<i64>);
    if name == UNDEFINED || matches!(numbered, Some(Ok(n)) if Some(n) != own) {
        return Err(ApiError::field(
            "name",
            "This name is kept for a space without a name of its own.",
        ));
    }
    let taken = store::opt!(tx, (i64,), "SELECT id FROM space WHERE name = $1", name)?;
    if taken.is_some_and(|(id,)| Some(id) != own) {
        return Err(ApiError::field(
            "name",
            "Space with this Name already exists.",
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
                    "INSERT INTO space (name, description) VALUES ($1, $2) RETURNING id, name, description",
                    args.filled("name"),
                    args.text("description").unwrap_or("")
                )?;
                tx.changed("space", row.id, 0, call.now()).await?;
                Ok(row.json(&Around::load(tx).await?))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

fn refuse_undefined(row: &Row) -> Result<(), ApiError> {
    if row.is_undefined() {
        Err(ApiError::Bad(
            "The space 'undefined' stands for VLANs without a space: it can be neither changed nor deleted."
                .to_owned(),
        ))
    } else {
        Ok(())
    }
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                refuse_undefined(&row)?;
                let args = call.args();
                if let Some(name) = args.filled("name") {
                    check_name(tx, name, Some(row.id)).await?;
                    row.name = Some(name.to_owned());
                }
                if let Some(d) = args.text("description") {
                    row.description = d.to_owned();
                }
                store::exec!(
                    tx,
                    "UPDATE space SET name = $2, description = $3 WHERE id = $1",
                    row.id,
                    &row.name,
                    &row.description
                )?;
                tx.changed("space", row.id, 0, call.now()).await?;
                Ok(row.json(&Around::load(tx).await?))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            refuse_undefined(&row)?;
            let vlans = store::all!(
                tx,
                (i64,),
                "SELECT id FROM vlan WHERE space_id = $1 ORDER BY id",
                row.id
            )?;
            store::exec!(tx, "DELETE FROM space WHERE id = $1", row.id)?;
            tx.changed("space", row.id, 0, call.now()).await?;
            for (id,) in vlans {
                tx.changed("vlan", id, 0, call.now()).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
