//! `events`: reading what happened.

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::event::Level;
use crate::operation::{Kind, Operation, Param};

/// Events given when no limit is asked for.
const DEFAULT_LIMIT: i64 = 100;
/// Most events given.
const MAX_LIMIT: i64 = 1_000;

/// `events/`.
pub const OPERATIONS: &[Operation] = &[Operation {
    handler: "EventsHandler",
    uri: "events/",
    op: Some("query"),
    title: "Events, newest first.",
    params: &[
        Param::opt(
            "hostname",
            Kind::List,
            "Only machines with these host names.",
        ),
        Param::opt(
            "mac_address",
            Kind::List,
            "Only machines with these MAC addresses.",
        ),
        Param::opt("id", Kind::List, "Only machines with these system ids."),
        Param::opt("zone", Kind::List, "Only machines in these zones."),
        Param::opt("domain", Kind::List, "Only machines in these domains."),
        Param::opt(
            "agent_name",
            Kind::Text,
            "Only machines allocated under this name.",
        ),
        Param::opt(
            "level",
            Kind::Text,
            "AUDIT, DEBUG, INFO, WARNING, ERROR or CRITICAL, and above; INFO when left out.",
        ),
        Param::opt("limit", Kind::Int, "At most this many, 1000 at most."),
        Param::opt("before", Kind::Int, "Only events older than this one."),
        Param::opt("after", Kind::Int, "Only events newer than this one."),
        Param::opt("owner", Kind::List, "Only events of these users."),
    ],
    run: |c| Box::pin(query(c)),
    ..Operation::READ
}];

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    r#type: String,
    level: i64,
    type_description: String,
    node_system_id: Option<String>,
    node_hostname: String,
    username: String,
    description: String,
    created: i64,
}

/// `Fri, 20 Nov. 2026 17:51:02`, as MAAS spells the times of events and addresses.
#[must_use]
pub fn spelled(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map(|t| t.strftime("%a, %d %b. %Y %H:%M:%S").to_string())
        .unwrap_or_default()
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "username": if self.username.is_empty() { "unknown" } else { &self.username },
            "node": self.node_system_id,
            "hostname": self.node_hostname,
            "id": self.id,
            "level": Level::of_number(self.level).word(),
            "created": spelled(self.created),
            "type": if self.level == 0 { &self.r#type } else { &self.type_description },
            "description": self.description,
        })
    }
}

fn optional_list(args: &Args, name: &str) -> Option<String> {
    let list = args.list(name);
    (!list.is_empty()).then(|| json!(list).to_string())
}

/// Hardware addresses as they are kept.
fn macs(args: &Args) -> Result<Option<String>, ApiError> {
    let mut out = Vec::new();
    for text in args.list("mac_address") {
        let mac: metal::MacAddr = text
            .parse()
            .map_err(|_| ApiError::field("mac_address", "Enter valid MAC addresses."))?;
        out.push(mac.to_string());
    }
    Ok((!out.is_empty()).then(|| json!(out).to_string()))
}

async fn query(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let level = match args.filled("level") {
        None => Level::Info,
        Some(t) => {
            Level::of(t).ok_or_else(|| ApiError::Bad(format!("Unrecognised log level: {t}")))?
        }
    };
    let limit = args.int("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::Bad(format!(
            "Requested number of events ({limit}) is outside of the limit of {MAX_LIMIT}."
        )));
    }
    let (before, after) = (args.int("before")?, args.int("after")?);
    if before.is_some() && after.is_some() {
        return Err(ApiError::Bad(
            "There is undetermined behaviour when both `after` and `before` are specified."
                .to_owned(),
        ));
    }
    let (low, high) = if level == Level::Audit {
        (0, 0)
    } else {
        (level as i64, i64::MAX)
    };
    let admin = call.actor().is_admin();
    if level == Level::Audit && !admin {
        return Err(ApiError::forbidden());
    }
    let macs = macs(args)?;
    let mut tx = call.read().await?;
    // `after` wants the oldest of the newer ones; all else the newest.
    let mut rows = store::all!(
        tx,
        Row,
        "SELECT e.id, e.type, e.level, e.type_description, e.node_system_id, e.node_hostname, e.username, e.description, e.created \
         FROM event e LEFT JOIN node n ON n.id = e.node_id LEFT JOIN zone z ON z.id = n.zone_id \
         WHERE e.level >= $1 AND e.level <= $2 AND ($3 IS NULL OR e.id < $3) AND ($4 IS NULL OR e.id > $4) \
         AND ($5 IS NULL OR e.node_system_id IN @texts($5)) AND ($6 IS NULL OR e.node_hostname IN @texts($6)) \
         AND ($7 IS NULL OR z.name IN @texts($7)) AND ($8 IS NULL OR e.username IN @texts($8)) AND ($9 IS NULL OR n.agent_name = $9) \
         AND ($10 IS NULL OR EXISTS (SELECT 1 FROM interface i WHERE i.node_id = n.id AND i.mac IN @texts($10))) \
         AND ($14 IS NULL OR EXISTS (SELECT 1 FROM domain d WHERE d.id = n.domain_id AND d.name IN @texts($14))) \
         AND ($11 OR e.node_id IS NULL OR n.owner_id IS NULL OR n.owner_id = $12) \
         ORDER BY CASE WHEN $4 IS NULL THEN -e.id ELSE e.id END LIMIT $13",
        low,
        high,
        before,
        after,
        optional_list(args, "id"),
        optional_list(args, "hostname"),
        optional_list(args, "zone"),
        optional_list(args, "owner"),
        args.filled("agent_name"),
        macs,
        admin,
        call.actor().user_id(),
        limit,
        optional_list(args, "domain")
    )?;
    rows.sort_by_key(|r| -r.id);
    let mut query: Vec<String> = args
        .iter()
        .filter(|(k, _)| !matches!(*k, "before" | "after" | "op") && !k.starts_with("oauth_"))
        .map(|(k, v)| {
            format!(
                "{k}={}",
                percent_encoding::utf8_percent_encode(v, percent_encoding::NON_ALPHANUMERIC)
            )
        })
        .collect();
    query.insert(0, "op=query".to_owned());
    let base = format!("/MAAS/api/2.0/events/?{}", query.join("&"));
    let newest = rows.first().map(|r| r.id).or(after).unwrap_or(0);
    let oldest = rows.last().map(|r| r.id).or(before).unwrap_or(0);
    Ok(Answer::json(json!({
        "count": rows.len(),
        "events": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "next_uri": format!("{base}&after={newest}"),
        "prev_uri": format!("{base}&before={oldest}"),
    })))
}
