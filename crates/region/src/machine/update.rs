//! Changing and deleting machines.

use crate::answer::Answer;
use crate::auth::{Action, Resource, authorize};
use crate::call::Call;
use crate::error::ApiError;
use crate::machine::{create, read};
use crate::node::{family, row};
use crate::operation::{Kind, Param};
use crate::power;

/// What can be changed.
pub const PARAMS: &[Param] = &[
    Param::opt("hostname", Kind::Text, "Host name."),
    Param::opt("description", Kind::Text, "A description."),
    Param::opt("domain", Kind::Text, "Its DNS domain, by name or id."),
    Param::opt(
        "architecture",
        Kind::Text,
        "Architecture, for example amd64/generic.",
    ),
    Param::opt(
        "min_hwe_kernel",
        Kind::Text,
        "The oldest kernel it may run.",
    ),
    Param::opt("power_type", Kind::Text, "Power driver: ipmi or manual."),
    Param::opt(
        "power_parameters",
        Kind::Prefix,
        "Parameters of the power driver, one by one or as JSON.",
    ),
    Param::opt(
        "power_parameters_skip_check",
        Kind::Bool,
        "Accept power parameters unchecked.",
    ),
    Param::opt("pool", Kind::Text, "Its resource pool, by name."),
    Param::opt("zone", Kind::Text, "Its zone, by name."),
    Param::opt("swap_size", Kind::Text, "Bytes of swap, with K, M, G or T."),
    Param::opt("cpu_count", Kind::Int, "Number of CPU cores."),
    Param::opt("memory", Kind::Text, "Memory in MiB."),
];

pub(super) async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = row::machine(tx, call.actor(), call.path("system_id")).await?;
                authorize(
                    call.actor(),
                    Action::Admin,
                    Resource::Machine {
                        owner: node.owner_id,
                    },
                )?;
                refuse_locked(&node)?;
                let args = call.args();
                if let Some(name) = args.filled("hostname") {
                    let name = create::check_hostname(name)?;
                    let taken = store::opt!(
                        tx,
                        (i64,),
                        "SELECT id FROM node WHERE hostname = $1 AND domain_id = $2 AND id <> $3",
                        &name,
                        node.domain_id,
                        node.id
                    )?;
                    if taken.is_some() {
                        return Err(ApiError::field(
                            "hostname",
                            "Node with this Hostname already exists.",
                        ));
                    }
                    store::exec!(
                        tx,
                        "UPDATE node SET hostname = $2 WHERE id = $1",
                        node.id,
                        name
                    )?;
                }
                if args.has("description") {
                    store::exec!(
                        tx,
                        "UPDATE node SET description = $2 WHERE id = $1",
                        node.id,
                        args.text("description").unwrap_or("")
                    )?;
                }
                if let Some(d) = args.filled("domain") {
                    let id = create::domain_id(tx, Some(d)).await?;
                    store::exec!(
                        tx,
                        "UPDATE node SET domain_id = $2 WHERE id = $1",
                        node.id,
                        id
                    )?;
                }
                if let Some(z) = args.filled("zone") {
                    let id = create::place_id(tx, "zone", Some(z)).await?;
                    store::exec!(
                        tx,
                        "UPDATE node SET zone_id = $2 WHERE id = $1",
                        node.id,
                        id
                    )?;
                }
                if let Some(p) = args.filled("pool") {
                    let id = create::place_id(tx, "pool", Some(p)).await?;
                    store::exec!(
                        tx,
                        "UPDATE node SET pool_id = $2 WHERE id = $1",
                        node.id,
                        id
                    )?;
                }
                if let Some(a) = args.filled("architecture") {
                    crate::image::check_architecture(tx, a).await?;
                    store::exec!(
                        tx,
                        "UPDATE node SET architecture = $2 WHERE id = $1",
                        node.id,
                        a
                    )?;
                }
                if let Some(k) = args.text("min_hwe_kernel") {
                    store::exec!(
                        tx,
                        "UPDATE node SET min_hwe_kernel = $2 WHERE id = $1",
                        node.id,
                        k
                    )?;
                }
                if let Some(n) = args.int("cpu_count")? {
                    store::exec!(
                        tx,
                        "UPDATE node SET cpu_count = $2 WHERE id = $1",
                        node.id,
                        n
                    )?;
                }
                if let Some(m) = args.filled("memory") {
                    let mib: i64 = m
                        .trim()
                        .parse()
                        .map_err(|_| ApiError::field("memory", "Enter a whole number."))?;
                    store::exec!(
                        tx,
                        "UPDATE node SET memory = $2 WHERE id = $1",
                        node.id,
                        mib
                    )?;
                }
                if let Some(s) = args.text("swap_size") {
                    let bytes = if s.is_empty() {
                        None
                    } else {
                        Some(parse_size("swap_size", s)?)
                    };
                    store::exec!(
                        tx,
                        "UPDATE node SET swap_size = $2 WHERE id = $1",
                        node.id,
                        bytes
                    )?;
                }
                update_power(tx, &call, &node).await?;
                node.touch(tx, call.now()).await?;
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// Changes the power driver and its parameters, where the request names them.
///
/// # Errors
/// 400 for a driver or a parameter that cannot be.
pub async fn update_power(
    tx: &mut store::Tx,
    call: &Call,
    node: &row::NodeRow,
) -> Result<(), ApiError> {
    let args = call.args();
    let given = create::power_parameters(args)?;
    let new_type = args.filled("power_type").map(str::to_owned);
    if given.is_none() && new_type.is_none() {
        return Ok(());
    }
    let power_type = new_type.unwrap_or_else(|| node.power_type.clone());
    // Parameters of the same driver are kept where the request is silent.
    let mut parameters = if power_type == node.power_type {
        power::parameters(tx, call.region(), node).await?
    } else {
        link::message::Parameters::default()
    };
    parameters.0.extend(given.unwrap_or_default().0);
    create::check_power(
        &power_type,
        &parameters,
        args.bool("power_parameters_skip_check")?.unwrap_or(false),
    )?;
    store::exec!(
        tx,
        "UPDATE node SET power_type = $2, power_state = 'unknown' WHERE id = $1",
        node.id,
        &power_type
    )?;
    power::set_parameters(tx, call.region(), node.id, &node.system_id, &parameters).await
}

/// A size such as `512M`, in decimal units, or plain bytes.
///
/// # Errors
/// 400 when it is none.
pub fn parse_size(field: &str, text: &str) -> Result<i64, ApiError> {
    let t = text.trim();
    let bad = || ApiError::field(field, "Enter a size such as 512M or 10G.");
    let (digits, factor) = match t.chars().last() {
        Some('K' | 'k') => (&t[..t.len() - 1], 1_000),
        Some('M' | 'm') => (&t[..t.len() - 1], 1_000_000),
        Some('G' | 'g') => (&t[..t.len() - 1], 1_000_000_000),
        Some('T' | 't') => (&t[..t.len() - 1], 1_000_000_000_000),
        _ => (t, 1),
    };
    let n: i64 = digits.trim().parse().map_err(|_| bad())?;
    if n < 0 {
        Err(bad())
    } else {
        n.checked_mul(factor).ok_or_else(bad)
    }
}

/// 409 for a machine that is protected.
///
/// # Errors
/// 409 when it is.
pub fn refuse_locked(node: &row::NodeRow) -> Result<(), ApiError> {
    if node.locked {
        Err(ApiError::Conflict(format!(
            "{} is locked; unlock it first.",
            node.hostname
        )))
    } else {
        Ok(())
    }
}

/// Deletes a machine.
///
/// # Errors
/// 403 when it is not the caller's to delete, 409 when it is locked.
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    let system_id = call
        .write(|tx, call| {
            Box::pin(async move {
                let node = family::find(tx, &call).await?;
                authorize(
                    call.actor(),
                    Action::Admin,
                    Resource::Machine {
                        owner: node.owner_id,
                    },
                )?;
                refuse_locked(&node)?;
                row::delete(tx, &node, call.now()).await?;
                Ok(node.sid())
            })
        })
        .await?;
    if let Err(e) = call.region().timeline.forget(&system_id).await {
        tracing::warn!(error = %e, %system_id, "the boots of a deleted machine stay");
    }
    Ok(Answer::none())
}
