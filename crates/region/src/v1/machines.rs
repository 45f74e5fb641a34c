//! The list of machines in pages that the database makes: a page of ten thousand machines costs what a page
//! of a hundred costs.

use metal::MacAddr;
use metal::status::Status;
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::dispatch;
use crate::error::ApiError;
use crate::node::{NodeRow, View};
use crate::select_node;
use crate::v1::{json, page};

/// The filters, as JSON lists for the database; an empty list is no filter.
struct Filters {
    lists: [String; 9],
    states: String,
    /// How many tags a machine must have.
    tags: i64,
}

const NAMES: [&str; 9] = [
    "hostname",
    "id",
    "domain",
    "zone",
    "pool",
    "owner",
    "agent_name",
    "mac_address",
    "tags",
];

impl Filters {
    fn of(args: &Args) -> Result<Self, ApiError> {
        let mut lists: [String; 9] = Default::default();
        let mut tags = 0;
        for (slot, name) in lists.iter_mut().zip(NAMES) {
            let mut given = args.list(name);
            if name == "mac_address" {
                given = given
                    .iter()
                    .map(|m| {
                        m.parse::<MacAddr>().map(|m| m.to_string()).map_err(|_| {
                            ApiError::field("mac_address", "This is not a hardware address.")
                        })
                    })
                    .collect::<Result<_, _>>()?;
            }
            given.sort();
            given.dedup();
            if name == "tags" {
                tags = i64::try_from(given.len()).unwrap_or(i64::MAX);
            }
            *slot = serde_json::to_string(&given).unwrap_or_default();
        }
        let mut states = Vec::new();
        for s in args.list("status") {
            let status = Status::from_word(&s.to_ascii_lowercase())
                .or_else(|| s.parse().ok().and_then(Status::from_code))
                .ok_or_else(|| {
                    ApiError::field(
                        "status",
                        format!(
                            "'{}' is not a status of a machine.",
                            s.chars().take(64).collect::<String>()
                        ),
                    )
                })?;
            states.push(status.code());
        }
        let states = serde_json::to_string(&states).unwrap_or_default();
        Ok(Self {
            lists,
            states,
            tags,
        })
    }
}

/// A statement over the machines that meet all filters: `$1` user, `$2` administrator, `$3` after this number,
/// `$4` to `$12` the lists in the order of [`NAMES`], `$13` states, `$14` how many tags.
macro_rules! matching {
    ($what:literal, $rest:literal) => {
        concat!(
            $what,
            " FROM node n JOIN domain d ON d.id = n.domain_id JOIN zone z ON z.id = n.zone_id ",
            "LEFT JOIN user_account u ON u.id = n.owner_id LEFT JOIN resource_pool p ON p.id = n.pool_id ",
            "WHERE n.node_type = 0 AND (n.owner_id IS NULL OR n.owner_id = $1 OR $2) AND n.id > $3 ",
            "AND ($4 = '[]' OR n.hostname IN @texts($4)) AND ($5 = '[]' OR n.system_id IN @texts($5)) ",
            "AND ($6 = '[]' OR d.name IN @texts($6)) AND ($7 = '[]' OR z.name IN @texts($7)) ",
            "AND ($8 = '[]' OR p.name IN @texts($8)) AND ($9 = '[]' OR u.username IN @texts($9)) ",
            "AND ($10 = '[]' OR n.agent_name IN @texts($10)) ",
            "AND ($11 = '[]' OR EXISTS (SELECT 1 FROM interface i WHERE i.node_id = n.id AND i.mac IN @texts($11))) ",
            "AND ($12 = '[]' OR (SELECT COUNT(DISTINCT t.name) FROM node_tag nt JOIN tag t ON t.id = nt.tag_id ",
            "WHERE nt.node_id = n.id AND t.name IN @texts($12)) = $14) ",
            "AND ($13 = '[]' OR n.status IN @ids($13)) ",
            $rest
        )
    };
}

/// The machines of a page, and how many there are in all where that was asked for.
async fn find(
    tx: &mut Tx,
    call: &Call,
    filters: &Filters,
    (after, limit): (i64, usize),
) -> Result<(Vec<NodeRow>, Option<i64>), ApiError> {
    let [hostname, id, domain, zone, pool, owner, agent, mac, tags] = &filters.lists;
    let (user, admin) = (call.actor().user_id(), call.actor().is_admin());
    let rows = store::all!(
        tx,
        (i64,),
        matching!("SELECT n.id", "ORDER BY n.id LIMIT $15"),
        user,
        admin,
        after,
        hostname,
        id,
        domain,
        zone,
        pool,
        owner,
        agent,
        mac,
        tags,
        &filters.states,
        filters.tags,
        i64::try_from(limit).unwrap_or(i64::MAX)
    )?;
    let ids: Vec<i64> = rows.into_iter().map(|(id,)| id).collect();
    let ids = serde_json::to_string(&ids).unwrap_or_default();
    let nodes = store::all!(
        tx,
        NodeRow,
        select_node!("WHERE n.id IN @ids($1) ORDER BY n.id"),
        &ids
    )?;
    if !page::counted(call.args())? {
        return Ok((nodes, None));
    }
    let (count,) = store::one!(
        tx,
        (i64,),
        matching!("SELECT COUNT(*)", ""),
        user,
        admin,
        0_i64,
        hostname,
        id,
        domain,
        zone,
        pool,
        owner,
        agent,
        mac,
        tags,
        &filters.states,
        filters.tags
    )?;
    Ok((nodes, Some(count)))
}

/// A page of machines.
pub(super) async fn list(call: &Call) -> Result<Answer, ApiError> {
    let args = call.args();
    if !args.names().all(in_sql) {
        let of = call
            .operation()
            .of
            .ok_or_else(|| ApiError::bug("a list of nothing"))?;
        return super::read(call, dispatch::run(call.second(of, None, None)).await?);
    }
    let (limit, after) = (page::limit(args)?, page::after(args)?);
    let filters = Filters::of(args)?;
    let mut tx = call.read().await?;
    // One more than asked for tells whether there is another page.
    let (mut nodes, total) = find(&mut tx, call, &filters, (after, limit + 1)).await?;
    let more = nodes.len() > limit;
    nodes.truncate(limit);
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    drop(tx);
    let next = nodes.last().filter(|_| more).map(|n| page::cursor(n.id));
    let items: Vec<_> = nodes
        .iter()
        .map(|n| page::sparse(args, view.machine_json(n)))
        .collect();
    json(
        200,
        &api::Page {
            items,
            next,
            total: total.and_then(|t| u64::try_from(t).ok()),
        },
    )
}

/// Whether the database can do what a parameter asks; other filters go over all machines.
fn in_sql(name: &str) -> bool {
    NAMES.contains(&name)
        || ["status", "limit", "cursor", "fields", "count"].contains(&name)
        || name.starts_with("oauth_")
}
