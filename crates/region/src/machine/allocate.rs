//! Allocation: the smallest free machine that meets the constraints, given to exactly one caller.

use metal::status::Status;
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::event;
use crate::lifecycle::{self, Cause};
use crate::machine::{act, read};
use crate::node::{NodeRow, View};
use crate::operation::{Kind, Param};
use crate::select_node;

/// The constraints that are understood. Another one is refused, because a machine that does not meet
/// it must not be handed out.
pub const PARAMS: &[Param] = &[
    Param::opt("name", Kind::Text, "Host name."),
    Param::opt("system_id", Kind::Text, "System id."),
    Param::opt("arch", Kind::List, "Architecture: amd64 or amd64/generic."),
    Param::opt("cpu_count", Kind::Text, "At least this many CPU cores."),
    Param::opt("mem", Kind::Text, "At least this much memory in MiB."),
    Param::opt("tags", Kind::List, "With all of these tags."),
    Param::opt("not_tags", Kind::List, "With none of these tags."),
    Param::opt("zone", Kind::Text, "In this zone."),
    Param::opt("not_in_zone", Kind::List, "In none of these zones."),
    Param::opt("pool", Kind::Text, "In this resource pool."),
    Param::opt(
        "not_in_pool",
        Kind::List,
        "In none of these resource pools.",
    ),
    Param::opt(
        "agent_name",
        Kind::Text,
        "A name to remember the allocation by.",
    ),
    Param::opt("comment", Kind::Text, "A note for the event log."),
    Param::opt("dry_run", Kind::Bool, "Only say which machine it would be."),
    Param::opt(
        "verbose",
        Kind::Bool,
        "Say more about what met which constraint.",
    ),
];

/// Constraints of MAAS that are not matched yet.
const NOT_YET: [&str; 14] = [
    "subnets",
    "not_subnets",
    "storage",
    "interfaces",
    "fabrics",
    "not_fabrics",
    "fabric_classes",
    "not_fabric_classes",
    "vlans",
    "not_vlans",
    "devices",
    "bridge_all",
    "bridge_stp",
    "bridge_fd",
];

struct Constraints {
    name: Option<String>,
    system_id: Option<String>,
    arch: Vec<String>,
    cpu_count: f64,
    mem: f64,
    tags: Vec<String>,
    not_tags: Vec<String>,
    zone: Option<String>,
    not_in_zone: Vec<String>,
    pool: Option<String>,
    not_in_pool: Vec<String>,
}

impl Constraints {
    fn of(args: &Args) -> Result<Self, ApiError> {
        for name in NOT_YET {
            if args
                .filled(name)
                .is_some_and(|v| crate::args::parse_bool(v) != Some(false))
            {
                return Err(ApiError::field(
                    name,
                    "This constraint is not available yet.",
                ));
            }
        }
        let number = |name: &str| match args.filled(name) {
            None => Ok(0.0),
            Some(t) => match t.trim().parse::<f64>() {
                Ok(n) if n.is_finite() && n >= 0.0 => Ok(n),
                _ => Err(ApiError::field(
                    name,
                    format!("Invalid {name}: number required."),
                )),
            },
        };
        Ok(Self {
            name: args.filled("name").map(str::to_owned),
            system_id: args.filled("system_id").map(str::to_owned),
            arch: args.list("arch"),
            cpu_count: number("cpu_count")?,
            mem: number("mem")?,
            tags: args.list("tags"),
            not_tags: args.list("not_tags"),
            zone: args.filled("zone").map(str::to_owned),
            not_in_zone: args.list("not_in_zone"),
            pool: args.filled("pool").map(str::to_owned),
            not_in_pool: args.list("not_in_pool"),
        })
    }

    /// 400 for tags, zones and pools that do not exist: nothing could ever match them.
    async fn check(&self, tx: &mut Tx) -> Result<(), ApiError> {
        for t in self.tags.iter().chain(&self.not_tags) {
            if store::opt!(tx, (i64,), "SELECT id FROM tag WHERE name = $1", t)?.is_none() {
                return Err(ApiError::field("tags", format!("No such tag(s): '{t}'.")));
            }
        }
        for z in self.zone.iter().chain(&self.not_in_zone) {
            if store::opt!(tx, (i64,), "SELECT id FROM zone WHERE name = $1", z)?.is_none() {
                return Err(ApiError::field("zone", format!("No such zone: '{z}'.")));
            }
        }
        for p in self.pool.iter().chain(&self.not_in_pool) {
            if store::opt!(
                tx,
                (i64,),
                "SELECT id FROM resource_pool WHERE name = $1",
                p
            )?
            .is_none()
            {
                return Err(ApiError::field("pool", format!("No such pool: '{p}'.")));
            }
        }
        Ok(())
    }

    #[allow(clippy::cast_precision_loss)] // core and MiB counts are small
    fn fits(&self, n: &NodeRow, view: &View) -> bool {
        let tags = view.tags_of(n.id);
        let arch = n.architecture.as_deref().unwrap_or("");
        let zone = &n.zone_name;
        let pool = n.pool_name.as_deref().unwrap_or("");
        self.name
            .as_ref()
            .is_none_or(|h| *h == n.hostname || *h == n.fqdn())
            && self.system_id.as_ref().is_none_or(|s| *s == n.system_id)
            && (self.arch.is_empty()
                || self
                    .arch
                    .iter()
                    .any(|a| a == arch || arch.split('/').next() == Some(a.as_str())))
            && n.cpu_count as f64 >= self.cpu_count
            && n.memory as f64 >= self.mem
            && self.tags.iter().all(|t| tags.contains(t))
            && !self.not_tags.iter().any(|t| tags.contains(t))
            && self.zone.as_ref().is_none_or(|z| z == zone)
            && !self.not_in_zone.contains(zone)
            && self.pool.as_ref().is_none_or(|p| p == pool)
            && !self.not_in_pool.iter().any(|p| p == pool)
    }
}

pub(super) async fn allocate(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let constraints = Constraints::of(call.args())?;
                constraints.check(tx).await?;
                let mut node = pick(tx, &call, &constraints).await?;
                if !call.args().bool("dry_run")?.unwrap_or(false) {
                    acquire(tx, &call, &mut node).await?;
                }
                let mut value = read::fresh(tx, &call, node.id).await?;
                value["constraints_by_type"] = serde_json::json!({});
                Ok(value)
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn pick(tx: &mut Tx, call: &Call, constraints: &Constraints) -> Result<NodeRow, ApiError> {
    let free = store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.node_type = 0 AND n.status = $1 AND n.owner_id IS NULL AND NOT n.locked ORDER BY n.cpu_count, n.memory, n.id"
        ),
        Status::Ready.code()
    )?;
    // Only tags are needed of what surrounds them; the view is loaded for the free machines alone.
    let view = View::load(tx, &free, call.now()).await?;
    free.into_iter()
        .find(|n| constraints.fits(n, &view))
        .ok_or_else(|| {
            let named: Vec<String> = call
                .args()
                .iter()
                .filter(|(k, _)| PARAMS.iter().any(|p| p.name == *k))
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            if named.is_empty() {
                ApiError::Conflict("No machine available.".to_owned())
            } else {
                ApiError::Conflict(format!(
                    "No available machine matches constraints: {}",
                    named.join(" ")
                ))
            }
        })
}

/// Gives a Ready machine to the caller.
pub(super) async fn acquire(tx: &mut Tx, call: &Call, node: &mut NodeRow) -> Result<(), ApiError> {
    let user = call.actor().user()?;
    let cause: Cause<'_> = act::cause(call);
    event::add(
        tx,
        event::Kind::RequestAcquire,
        Some(node.about()),
        cause.by,
        cause.why,
        cause.at,
    )
    .await?;
    let taken = store::exec!(
        tx,
        "UPDATE node SET owner_id = $2, agent_name = $3 WHERE id = $1 AND owner_id IS NULL",
        node.id,
        user.id,
        call.args().text("agent_name").unwrap_or("")
    )?;
    if taken == 0 {
        return Err(ApiError::Conflict(format!(
            "{} has just been taken by somebody else.",
            node.hostname
        )));
    }
    node.owner_id = Some(user.id);
    node.owner = Some(user.username.clone());
    lifecycle::set_status(tx, node, Status::Allocated, cause).await
}
