//! `zones` and `resourcepools`: where machines stand, and to whom they are given. Both are a name and
//! a description, so one set of functions serves them.

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};

const NAME: Param = Param::field("name", Kind::Text, "Name.");
const DESCRIPTION: Param = Param::opt("description", Kind::Text, "A description.");
const CHANGES: &[Param] = &[Param::opt("name", Kind::Text, "New name."), DESCRIPTION];

const ZONES: Operation = Operation {
    handler: "ZonesHandler",
    uri: "zones/",
    ..Operation::READ
};
const ZONE: Operation = Operation {
    handler: "ZoneHandler",
    uri: "zones/{name}/",
    ..Operation::READ
};
const POOLS: Operation = Operation {
    handler: "ResourcePoolsHandler",
    uri: "resourcepools/",
    ..Operation::READ
};
const POOL: Operation = Operation {
    handler: "ResourcePoolHandler",
    uri: "resourcepool/{id}/",
    ..Operation::READ
};

/// `zones/`, `zones/{name}/`, `resourcepools/`, `resourcepool/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List zones.",
        run: |c| Box::pin(list(c, Place::Zone)),
        ..ZONES
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a zone.",
        params: &[NAME, DESCRIPTION],
        audit: Some("ZONES"),
        run: |c| Box::pin(create(c, Place::Zone)),
        ..ZONES
    },
    Operation {
        title: "Read a zone.",
        run: |c| Box::pin(read(c, Place::Zone)),
        ..ZONE
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a zone.",
        params: CHANGES,
        audit: Some("ZONES"),
        run: |c| Box::pin(update(c, Place::Zone)),
        ..ZONE
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a zone; its machines go to the default zone.",
        success: 204,
        audit: Some("ZONES"),
        run: |c| Box::pin(delete(c, Place::Zone)),
        ..ZONE
    },
    Operation {
        title: "List resource pools.",
        run: |c| Box::pin(list(c, Place::Pool)),
        ..POOLS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a resource pool.",
        params: &[NAME, DESCRIPTION],
        audit: Some("NODE"),
        run: |c| Box::pin(create(c, Place::Pool)),
        ..POOLS
    },
    Operation {
        title: "Read a resource pool.",
        run: |c| Box::pin(read(c, Place::Pool)),
        ..POOL
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a resource pool.",
        params: CHANGES,
        audit: Some("NODE"),
        run: |c| Box::pin(update(c, Place::Pool)),
        ..POOL
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a resource pool that is empty.",
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(delete(c, Place::Pool)),
        ..POOL
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Zone,
    Pool,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    name: String,
    description: String,
}

impl Place {
    const fn noun(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Pool => "resource_pool",
        }
    }

    fn json(self, r: &Row) -> Value {
        let uri = match self {
            Self::Zone => format!("/MAAS/api/2.0/zones/{}/", r.name),
            Self::Pool => format!("/MAAS/api/2.0/resourcepool/{}/", r.id),
        };
        json!({ "name": r.name, "description": r.description, "id": r.id, "resource_uri": uri })
    }
}

async fn all(tx: &mut Tx, place: Place) -> Result<Vec<Row>, ApiError> {
    Ok(match place {
        Place::Zone => store::all!(
            tx,
            Row,
            "SELECT id, name, description FROM zone ORDER BY id"
        )?,
        Place::Pool => store::all!(
            tx,
            Row,
            "SELECT id, name, description FROM resource_pool ORDER BY id"
        )?,
    })
}

async fn find(tx: &mut Tx, call: &Call, place: Place) -> Result<Row, ApiError> {
    let row = match place {
        Place::Zone => store::opt!(
            tx,
            Row,
            "SELECT id, name, description FROM zone WHERE name = $1",
            call.path("name")
        )?,
        Place::Pool => {
            let id = call.path_id("id", "ResourcePool")?;
            store::opt!(
                tx,
                Row,
                "SELECT id, name, description FROM resource_pool WHERE id = $1",
                id
            )?
        }
    };
    row.ok_or_else(|| {
        ApiError::missing(if place == Place::Zone {
            "Zone"
        } else {
            "ResourcePool"
        })
    })
}

async fn list(call: Call, place: Place) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(
        all(&mut tx, place)
            .await?
            .iter()
            .map(|r| place.json(r))
            .collect(),
    ))
}

async fn read(call: Call, place: Place) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(
        place.json(&find(&mut tx, &call, place).await?),
    ))
}

/// Names of zones, pools and tags.
///
/// # Errors
/// 400 for a name that cannot be.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 256 || !name.chars().all(fits) {
        return Err(ApiError::field(
            "name",
            "Use letters, digits, hyphens, underscores and dots only, at most 256 of them.",
        ));
    }
    Ok(())
}

async fn create(call: Call, place: Place) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let name = call.args().required("name")?;
                check_name(name)?;
                let (description, now) = (call.args().text("description").unwrap_or(""), call.now().0);
                let row = match place {
                    Place::Zone => store::opt!(
                        tx,
                        Row,
                        "INSERT INTO zone (name, description, created, updated) VALUES ($1, $2, $3, $3) ON CONFLICT (name) DO NOTHING \
                         RETURNING id, name, description",
                        name,
                        description,
                        now
                    )?,
                    Place::Pool => store::opt!(
                        tx,
                        Row,
                        "INSERT INTO resource_pool (name, description, created, updated) VALUES ($1, $2, $3, $3) ON CONFLICT (name) DO NOTHING \
                         RETURNING id, name, description",
                        name,
                        description,
                        now
                    )?,
                };
                let row = row.ok_or_else(|| ApiError::field("name", "This name is taken."))?;
                tx.changed(place.noun(), row.id, 0, call.now()).await?;
                Ok(place.json(&row))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call, place: Place) -> Result<Answer, ApiError> {
    let value = call
        .write(move |tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call, place).await?;
                if let Some(name) = call.args().filled("name")
                    && name != row.name
                {
                    check_name(name)?;
                    if is_default(place, &row) {
                        return Err(ApiError::field("name", "The default one keeps its name."));
                    }
                    if all(tx, place).await?.iter().any(|r| r.name == name) {
                        return Err(ApiError::field("name", "This name is taken."));
                    }
                    row.name = name.to_owned();
                }
                if let Some(d) = call.args().text("description") {
                    row.description = d.to_owned();
                }
                let now = call.now().0;
                match place {
                    Place::Zone => store::exec!(
                        tx,
                        "UPDATE zone SET name = $2, description = $3, updated = $4 WHERE id = $1",
                        row.id,
                        &row.name,
                        &row.description,
                        now
                    )?,
                    Place::Pool => store::exec!(
                        tx,
                        "UPDATE resource_pool SET name = $2, description = $3, updated = $4 WHERE id = $1",
                        row.id,
                        &row.name,
                        &row.description,
                        now
                    )?,
                };
                tx.changed(place.noun(), row.id, 0, call.now()).await?;
                Ok(place.json(&row))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

fn is_default(place: Place, row: &Row) -> bool {
    match place {
        Place::Zone => row.name == "default",
        Place::Pool => row.id == 0,
    }
}

async fn delete(call: Call, place: Place) -> Result<Answer, ApiError> {
    call.write(move |tx, call| {
        Box::pin(async move {
            let row = find(tx, &call, place).await?;
            if is_default(place, &row) {
                // Clients know this sentence.
                return Err(ApiError::Bad(match place {
                    Place::Zone => "This zone is the default zone, it cannot be deleted.".to_owned(),
                    Place::Pool => {
                        "This is the default resource pool, it cannot be deleted.".to_owned()
                    }
                }));
            }
            match place {
                Place::Zone => {
                    store::exec!(
                        tx,
                        "UPDATE node SET zone_id = (SELECT z.id FROM zone z WHERE z.name = 'default') WHERE zone_id = $1",
                        row.id
                    )?;
                    store::exec!(tx, "DELETE FROM zone WHERE id = $1", row.id)?;
                }
                Place::Pool => {
                    let (used,) = store::one!(tx, (i64,), "SELECT COUNT(*) FROM node WHERE pool_id = $1", row.id)?;
                    if used > 0 {
                        return Err(ApiError::Bad(format!("{} still holds {used} machines; move them first.", row.name)));
                    }
                    store::exec!(tx, "DELETE FROM resource_pool WHERE id = $1", row.id)?;
                }
            }
            tx.changed(place.noun(), row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
