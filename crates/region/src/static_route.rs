//! `static-routes`: ways from one subnet to another.

use std::net::IpAddr;

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::subnet::{self, SubnetRow};
use crate::vlan;

const CREATE: &[Param] = &[
    Param::field(
        "source",
        Kind::Text,
        "The subnet whose machines use the route: id, cidr:… or name:….",
    ),
    Param::field("destination", Kind::Text, "The subnet it leads to."),
    Param::field(
        "gateway_ip",
        Kind::Text,
        "The router's address in the source subnet.",
    ),
    Param::opt(
        "metric",
        Kind::Int,
        "Weight; of several routes the lowest wins. 0 when left out.",
    ),
];
const CHANGE: &[Param] = &[
    Param::opt("source", Kind::Text, "The subnet whose machines use it."),
    Param::opt("destination", Kind::Text, "The subnet it leads to."),
    Param::opt("gateway_ip", Kind::Text, "The router's address."),
    Param::opt("metric", Kind::Int, "Weight."),
];
const ROUTES: Operation = Operation {
    handler: "StaticRoutesHandler",
    uri: "static-routes/",
    ..Operation::READ
};
const ROUTE: Operation = Operation {
    handler: "StaticRouteHandler",
    uri: "static-routes/{id}/",
    ..Operation::READ
};

/// `static-routes/` and `static-routes/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List static routes.",
        run: |c| Box::pin(list(c)),
        ..ROUTES
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a static route.",
        params: CREATE,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..ROUTES
    },
    Operation {
        title: "Read a static route.",
        run: |c| Box::pin(read(c)),
        ..ROUTE
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a static route.",
        params: CHANGE,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..ROUTE
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a static route.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..ROUTE
    },
];

/// A route as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct RouteRow {
    /// Database id.
    pub id: i64,
    /// The subnet whose machines use it.
    pub source_id: i64,
    /// The subnet it leads to.
    pub destination_id: i64,
    /// The router.
    pub gateway_ip: String,
    /// Weight.
    pub metric: i64,
}

/// Every route, oldest first: one query.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx) -> Result<Vec<RouteRow>, ApiError> {
    Ok(store::all!(
        tx,
        RouteRow,
        "SELECT id, source_id, destination_id, gateway_ip, metric FROM static_route ORDER BY id"
    )?)
}

async fn render(tx: &mut Tx, rows: &[RouteRow]) -> Result<Vec<Value>, ApiError> {
    let vlans = vlan::all(tx).await?;
    let subnets = subnet::all(tx).await?;
    Ok(rows
        .iter()
        .map(|r| {
            json!({
                "source": subnets.get(&r.source_id).map(|s| s.json(&vlans)),
                "destination": subnets.get(&r.destination_id).map(|s| s.json(&vlans)),
                "gateway_ip": r.gateway_ip,
                "metric": r.metric,
                "id": r.id,
                "resource_uri": format!("/MAAS/api/2.0/static-routes/{}/", r.id),
            })
        })
        .collect())
}

async fn one(tx: &mut Tx, row: RouteRow) -> Result<Value, ApiError> {
    Ok(render(tx, &[row]).await?.pop().unwrap_or(Value::Null))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<RouteRow, ApiError> {
    let id = call.path_id("id", "StaticRoute")?;
    store::opt!(
        tx,
        RouteRow,
        "SELECT id, source_id, destination_id, gateway_ip, metric FROM static_route WHERE id = $1",
        id
    )?
    .ok_or_else(|| ApiError::missing("StaticRoute"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = all(&mut tx).await?;
    Ok(Answer::json(render(&mut tx, &rows).await?.into()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    Ok(Answer::json(one(&mut tx, row).await?))
}

/// Puts what a request names into a route, and checks the whole.
async fn fill(tx: &mut Tx, args: &Args, row: &mut RouteRow) -> Result<(), ApiError> {
    let subnets = subnet::all(tx).await?;
    let named = |field: &str, old: i64| match args.filled(field) {
        None => Ok(old),
        Some(text) => subnet::choose(&subnets, text)
            .map(|s| s.id)
            .ok_or_else(|| ApiError::field(field, format!("There is no subnet {}.", short(text)))),
    };
    row.source_id = named("source", row.source_id)?;
    row.destination_id = named("destination", row.destination_id)?;
    if let Some(text) = args.filled("gateway_ip") {
        let ip: IpAddr = text
            .trim()
            .parse()
            .map_err(|_| ApiError::field("gateway_ip", "Enter a valid IPv4 or IPv6 address."))?;
        row.gateway_ip = ip.to_string();
    }
    match args.int("metric")? {
        Some(m) if m < 0 => {
            return Err(ApiError::field(
                "metric",
                "Ensure this value is greater than or equal to 0.",
            ));
        }
        m => row.metric = m.unwrap_or(row.metric),
    }
    let subnet = |id: i64| -> Result<&SubnetRow, ApiError> {
        subnets.get(&id).ok_or_else(|| ApiError::missing("Subnet"))
    };
    let (source, destination) = (subnet(row.source_id)?, subnet(row.destination_id)?);
    if source.id == destination.id {
        return Err(ApiError::field(
            "destination",
            "The destination is the source itself; name two subnets.",
        ));
    }
    if source.is_v6() != destination.is_v6() {
        return Err(ApiError::field(
            "destination",
            "Source and destination must be of one address family.",
        ));
    }
    let inside = row
        .gateway_ip
        .parse::<IpAddr>()
        .is_ok_and(|ip| source.contains(ip));
    if !inside {
        return Err(ApiError::field(
            "gateway_ip",
            format!("Enter an address within the source subnet {}.", source.cidr),
        ));
    }
    let same = store::opt!(
        tx,
        (i64,),
        "SELECT id FROM static_route WHERE source_id = $1 AND destination_id = $2 AND gateway_ip = $3 AND id <> $4",
        row.source_id,
        row.destination_id,
        &row.gateway_ip,
        row.id
    )?;
    if same.is_some() {
        return Err(ApiError::field(
            "__all__",
            "Static route with this Source, Destination and Gateway ip already exists.",
        ));
    }
    Ok(())
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                for field in ["source", "destination", "gateway_ip"] {
                    call.args().required(field)?;
                }
                let mut row = RouteRow {
                    id: -1,
                    source_id: -1,
                    destination_id: -1,
                    gateway_ip: String::new(),
                    metric: 0,
                };
                fill(tx, call.args(), &mut row).await?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO static_route (source_id, destination_id, gateway_ip, metric) VALUES ($1, $2, $3, $4) RETURNING id",
                    row.source_id,
                    row.destination_id,
                    &row.gateway_ip,
                    row.metric
                )?;
                row.id = id;
                tx.changed("static_route", id, 0, call.now()).await?;
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
                fill(tx, call.args(), &mut row).await?;
                store::exec!(
                    tx,
                    "UPDATE static_route SET source_id = $2, destination_id = $3, gateway_ip = $4, metric = $5 WHERE id = $1",
                    row.id,
                    row.source_id,
                    row.destination_id,
                    &row.gateway_ip,
                    row.metric
                )?;
                tx.changed("static_route", row.id, 0, call.now()).await?;
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
            store::exec!(tx, "DELETE FROM static_route WHERE id = $1", row.id)?;
            tx.changed("static_route", row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
