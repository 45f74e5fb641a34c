//! Allocation: the cheapest free machine that meets the constraints, given to exactly one caller.

use metal::filter::{OneOf, Wanted};
use metal::status::Status;
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::event;
use crate::interface::ops;
use crate::lifecycle::{self, Cause};
use crate::machine::demand::{Demand, Served};
use crate::machine::{act, read};
use crate::node::filter::{self, Grounds};
use crate::node::{NodeRow, View};
use crate::operation::{Kind, Param};
use crate::select_node;

/// The constraints that are understood. Another one is refused, because a machine that does not meet
/// it must not be handed out.
pub const PARAMS: &[Param] = &[
    Param::opt("name", Kind::List, "Host name, or full name."),
    Param::opt("system_id", Kind::List, "System id."),
    Param::opt("arch", Kind::List, "Architecture: amd64 or amd64/generic."),
    Param::opt("not_arch", Kind::List, "None of these architectures."),
    Param::opt("cpu_count", Kind::Text, "At least this many CPU cores."),
    Param::opt("cpu_speed", Kind::Text, "At least this many MHz."),
    Param::opt("mem", Kind::Text, "At least this much memory in MiB."),
    Param::opt("tags", Kind::List, "With all of these tags."),
    Param::opt("not_tags", Kind::List, "With none of these tags."),
    Param::opt("zone", Kind::List, "In this zone."),
    Param::opt("not_in_zone", Kind::List, "In none of these zones."),
    Param::opt("pool", Kind::List, "In this resource pool."),
    Param::opt(
        "not_in_pool",
        Kind::List,
        "In none of these resource pools.",
    ),
    Param::opt("pod", Kind::Text, "On this VM host."),
    Param::opt("not_pod", Kind::Text, "Not on this VM host."),
    Param::opt("pod_type", Kind::Text, "On a VM host of this type."),
    Param::opt("not_pod_type", Kind::Text, "Not on a VM host of this type."),
    Param::opt("subnets", Kind::List, "On all of these subnets."),
    Param::opt("not_subnets", Kind::List, "On none of these subnets."),
    Param::opt("fabrics", Kind::List, "On one of these fabrics."),
    Param::opt("not_fabrics", Kind::List, "On none of these fabrics."),
    Param::opt(
        "fabric_classes",
        Kind::List,
        "On a fabric of one of these classes.",
    ),
    Param::opt(
        "not_fabric_classes",
        Kind::List,
        "On no fabric of these classes.",
    ),
    Param::opt("vlans", Kind::List, "On one of these VLANs."),
    Param::opt("not_vlans", Kind::List, "On none of these VLANs."),
    Param::opt(
        "link_speed",
        Kind::Text,
        "With a link of at least this many Mbit/s.",
    ),
    Param::opt(
        "storage",
        Kind::Text,
        "With these disks: label:size(tag,…),…",
    ),
    Param::opt(
        "interfaces",
        Kind::Text,
        "With these interfaces: label:key=value,…;…",
    ),
    Param::opt(
        "devices",
        Kind::Text,
        "With these devices: vendor_id=…,product_id=…;…",
    ),
    Param::opt(
        "agent_name",
        Kind::Text,
        "A name to remember the allocation by.",
    ),
    Param::opt("comment", Kind::Text, "A note for the event log."),
    Param::opt("bridge_all", Kind::Bool, "Put a bridge on every interface."),
    Param::opt(
        "bridge_type",
        Kind::Choice(&["standard", "ovs"]),
        "Which kind of bridge.",
    ),
    Param::opt("bridge_stp", Kind::Bool, "Spanning tree on those bridges."),
    Param::opt(
        "bridge_fd",
        Kind::Int,
        "Forward delay of those bridges in seconds.",
    ),
    Param::opt("dry_run", Kind::Bool, "Only say which machine it would be."),
    Param::opt(
        "verbose",
        Kind::Bool,
        "Say more about what met which constraint.",
    ),
];

/// Parameters that are no constraints.
const PLAIN: [&str; 8] = [
    "agent_name",
    "comment",
    "bridge_all",
    "bridge_type",
    "bridge_stp",
    "bridge_fd",
    "dry_run",
    "verbose",
];

/// What a request asks for.
struct Constraints {
    wanted: Wanted,
    demand: Demand,
    /// Whether it is to be on a VM host: no machine is, yet.
    on_pod: bool,
}

impl Constraints {
    fn of(args: &Args) -> Result<Self, ApiError> {
        let all = filter::wanted(args)?;
        // What lists can be filtered by besides is no constraint of an allocation.
        let wanted = Wanted {
            name: args.list("name"),
            hostname: OneOf::default(),
            mac_address: Vec::new(),
            domain: OneOf::default(),
            owner: OneOf::default(),
            agent_name: OneOf::default(),
            status: OneOf::default(),
            simple_status: OneOf::default(),
            power_state: OneOf::default(),
            deployment_target: OneOf::default(),
            system_id: OneOf {
                any: args.list("system_id"),
                none: Vec::new(),
            },
            ..all
        };
        Ok(Self {
            wanted,
            demand: Demand::of(args)?,
            on_pod: args.filled("pod").is_some() || args.filled("pod_type").is_some(),
        })
    }

    /// 400 for names of what does not exist: nothing could ever meet them.
    async fn check(&self, tx: &mut Tx, grounds: &Grounds, view: &View) -> Result<(), ApiError> {
        let w = &self.wanted;
        let mut wrong: Vec<(String, Vec<String>)> = Vec::new();
        let tags: Vec<String> = store::all!(tx, (String,), "SELECT name FROM tag")?
            .into_iter()
            .map(|t| t.0)
            .collect();
        for (field, asked) in [("tags", &w.tags.any), ("not_tags", &w.tags.none)] {
            let unknown: Vec<String> = asked
                .iter()
                .filter(|t| !tags.contains(t))
                .map(|t| format!("'{t}'"))
                .collect();
            if !unknown.is_empty() {
                let said = format!("No such tag(s): {}.", unknown.join(", "));
                wrong.push((field.to_owned(), vec![said]));
            }
        }
        let zones = store::all!(tx, (i64, String), "SELECT id, name FROM zone")?;
        let pools = store::all!(tx, (i64, String), "SELECT id, name FROM resource_pool")?;
        for (field, what, asked, known) in [
            ("zone", "zone", &w.zone.any, &zones),
            ("not_in_zone", "zone", &w.zone.none, &zones),
            ("pool", "pool", &w.pool.any, &pools),
            ("not_in_pool", "pool", &w.pool.none, &pools),
        ] {
            let is = |a: &str| known.iter().any(|(id, n)| n == a || a.parse() == Ok(*id));
            if let Some(a) = asked.iter().find(|a| !is(a)) {
                wrong.push((field.to_owned(), vec![format!("No such {what}: '{a}'.")]));
            }
        }
        let (vlans, nets) = grounds.networks(view);
        let mut networks = |field: &str, fits: bool| {
            if !fits {
                wrong.push((
                    field.to_owned(),
                    vec![format!(
                        "No matching {} found.",
                        field.trim_start_matches("not_")
                    )],
                ));
            }
        };
        let fabric = |f: &metal::filter::spec::FabricSpec| vlans.iter().any(|v| f.is(&v.fabric));
        networks("fabrics", w.fabrics.any.iter().all(fabric));
        networks("not_fabrics", w.fabrics.none.iter().all(fabric));
        let vlan = |s: &metal::filter::spec::VlanSpec| vlans.iter().any(|v| s.is(v));
        networks("vlans", w.vlans.any.iter().all(vlan));
        networks("not_vlans", w.vlans.none.iter().all(vlan));
        let subnet = |s: &metal::filter::spec::SubnetSpec| nets.iter().any(|n| s.is(n));
        networks("subnets", w.subnets.any.iter().all(subnet));
        networks("not_subnets", w.subnets.none.iter().all(subnet));
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Fields(wrong))
        }
    }

    fn met_by(&self, n: &NodeRow, grounds: &Grounds, view: &View) -> Option<Served> {
        if self.on_pod || !self.wanted.met_by(&grounds.facts(n, view)) {
            return None;
        }
        self.demand
            .served_by(n, view, &|fabric| grounds.class_of(fabric))
    }
}

/// Whatever was asked for, as it was asked and as it was understood: clients show this to people.
fn refusal(args: &Args) -> ApiError {
    let asked: Vec<&Param> = PARAMS
        .iter()
        .filter(|p| !PLAIN.contains(&p.name) && args.filled(p.name).is_some())
        .collect();
    if asked.is_empty() {
        return ApiError::Conflict("No machine available.".to_owned());
    }
    let given: Vec<String> = asked
        .iter()
        .map(|p| {
            let values: Vec<String> = args
                .repeated(p.name)
                .iter()
                .map(|v| format!("'{v}'"))
                .collect();
            format!("('{}', [{}])", p.name, values.join(", "))
        })
        .collect();
    let understood: Vec<String> = asked
        .iter()
        .map(|p| {
            let value = args.filled(p.name).unwrap_or("");
            let number = matches!(p.name, "cpu_count" | "cpu_speed" | "mem" | "link_speed")
                .then(|| value.trim().parse::<f64>().ok())
                .flatten();
            match (number, p.kind) {
                (Some(n), _) => format!("{}={n:?}", p.name),
                (None, Kind::List) => format!("{}={}", p.name, args.list(p.name).join(",")),
                _ => format!("{}={value}", p.name),
            }
        })
        .collect();
    ApiError::Conflict(format!(
        "No available machine matches constraints: [{}] (resolved to \"{}\")",
        given.join(", "),
        understood.join(" ")
    ))
}

pub(super) async fn allocate(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let constraints = Constraints::of(call.args())?;
                let (mut node, served) = pick(tx, &call, &constraints).await?;
                let verbose = call.args().bool("verbose")?.unwrap_or(false);
                if !call.args().bool("dry_run")?.unwrap_or(false) {
                    acquire(tx, &call, &mut node).await?;
                    if call.args().bool("bridge_all")?.unwrap_or(false) {
                        ops::bridge_all(tx, &call, &node).await?;
                    }
                }
                let mut value = read::fresh(tx, &call, node.id).await?;
                value["constraints_by_type"] = served.json(verbose);
                Ok(value)
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn pick(
    tx: &mut Tx,
    call: &Call,
    constraints: &Constraints,
) -> Result<(NodeRow, Served), ApiError> {
    // What a machine costs: its cores and its gigabytes.
    let free = store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.node_type = 0 AND n.status = $1 AND n.owner_id IS NULL AND NOT n.locked \
             ORDER BY n.cpu_count * 1024 + n.memory, n.id"
        ),
        Status::Ready.code()
    )?;
    let view = View::load(tx, &free, call.now()).await?;
    let grounds = Grounds::load(tx, &constraints.wanted).await?;
    constraints.check(tx, &grounds, &view).await?;
    free.into_iter()
        .find_map(|n| {
            let served = constraints.met_by(&n, &grounds, &view)?;
            Some((n, served))
        })
        .ok_or_else(|| refusal(call.args()))
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
