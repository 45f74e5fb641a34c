//! `discovery`: who was seen on the networks of the racks, known or not.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use metal::MacAddr;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::view::time_json;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::subnet::{self, SubnetRow};

/// Most probes at a time that a scan may ask for.
const MAX_THREADS: i64 = 256;
/// What `scan` lacks.
const SCANNER: &str = "a scanner of networks at the racks";

const DISCOVERIES: Operation = Operation {
    handler: "DiscoveriesHandler",
    uri: "discovery/",
    ..Operation::READ
};

/// `discovery/` and `discovery/{discovery_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List who was seen, the latest first.",
        run: |c| Box::pin(list(c, Only::All)),
        ..DISCOVERIES
    },
    Operation {
        op: Some("by_unknown_mac"),
        title: "Those whose hardware address belongs to no known node.",
        run: |c| Box::pin(list(c, Only::UnknownMac)),
        ..DISCOVERIES
    },
    Operation {
        op: Some("by_unknown_ip"),
        title: "Those whose address is not one that was given out.",
        run: |c| Box::pin(list(c, Only::UnknownIp)),
        ..DISCOVERIES
    },
    Operation {
        op: Some("by_unknown_ip_and_mac"),
        title: "Those whose hardware address and address are both unknown.",
        run: |c| Box::pin(list(c, Only::UnknownBoth)),
        ..DISCOVERIES
    },
    Operation {
        method: Method::Post,
        op: Some("clear"),
        who: Who::Admin,
        title: "Forget what was seen.",
        params: &[
            Param::opt("mdns", Kind::Bool, "Names from multicast DNS."),
            Param::opt("neighbours", Kind::Bool, "Addresses that were seen."),
            Param::opt("all", Kind::Bool, "Everything."),
        ],
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(clear(c)),
        ..DISCOVERIES
    },
    Operation {
        method: Method::Post,
        op: Some("clear_by_mac_and_ip"),
        who: Who::Admin,
        title: "Forget one that was seen.",
        params: &[
            Param::must("ip", Kind::Text, "Its address."),
            Param::must("mac", Kind::Text, "Its hardware address."),
        ],
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(clear_one(c)),
        ..DISCOVERIES
    },
    Operation {
        method: Method::Post,
        op: Some("scan"),
        title: "Scan networks for hosts now.",
        params: &[
            Param::opt("cidr", Kind::List, "The networks; all known when left out."),
            Param::opt(
                "force",
                Kind::Bool,
                "Needed to scan all networks, those too that are not to be scanned.",
            ),
            Param::opt(
                "always_use_ping",
                Kind::Bool,
                "Ping even where nmap is there.",
            ),
            Param::opt("slow", Kind::Bool, "At most 9 packets a second."),
            Param::opt("threads", Kind::Int, "Probes at a time."),
        ],
        run: |c| Box::pin(scan(c)),
        ..DISCOVERIES
    },
    Operation {
        handler: "DiscoveryHandler",
        uri: "discovery/{discovery_id}/",
        title: "Read one that was seen.",
        run: |c| Box::pin(read(c)),
        ..Operation::READ
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    All,
    UnknownMac,
    UnknownIp,
    UnknownBoth,
}

#[derive(sqlx::FromRow)]
struct Row {
    ip: String,
    mac: String,
    vid: Option<i64>,
    last_seen: i64,
    hostname: Option<String>,
    fabric_id: Option<i64>,
    fabric_name: Option<String>,
    observer: String,
    observer_hostname: String,
    interface_id: i64,
    interface_name: String,
}

impl Row {
    /// The name of a sighting in paths. Nothing in an address or a hardware address yields `/` or `+`.
    fn id(&self) -> String {
        STANDARD.encode(format!("{},{}", self.ip, self.mac))
    }

    fn json(&self) -> Value {
        let fabric = self.fabric_id.map(|id| {
            self.fabric_name
                .clone()
                .filter(|n| !n.is_empty())
                .unwrap_or_else(|| format!("fabric-{id}"))
        });
        json!({
            "discovery_id": self.id(),
            "ip": self.ip,
            "mac_address": self.mac,
            "mac_organization": null,
            "last_seen": time_json(Some(self.last_seen)),
            "hostname": self.hostname,
            "fabric_name": fabric,
            "vid": self.vid,
            "observer": {
                "system_id": self.observer,
                "hostname": self.observer_hostname,
                "interface_id": self.interface_id,
                "interface_name": self.interface_name,
            },
            "resource_uri": format!("/MAAS/api/2.0/discovery/{}/", self.id()),
        })
    }
}

/// What was seen: of several sightings of one address and hardware address the latest.
async fn seen(tx: &mut Tx, only: Only) -> Result<Vec<Row>, ApiError> {
    let rows = store::all!(
        tx,
        Row,
        "SELECT b.ip, b.mac, b.vid, b.last_seen, (SELECT MIN(m.hostname) FROM mdns_name m WHERE m.ip = b.ip) AS hostname, \
         f.id AS fabric_id, f.name AS fabric_name, n.system_id AS observer, n.hostname AS observer_hostname, \
         i.id AS interface_id, i.name AS interface_name \
         FROM neighbour b JOIN interface i ON i.id = b.interface_id JOIN node n ON n.id = i.node_id \
         LEFT JOIN vlan v ON v.id = i.vlan_id LEFT JOIN fabric f ON f.id = v.fabric_id \
         WHERE NOT EXISTS (SELECT 1 FROM neighbour o WHERE o.ip = b.ip AND o.mac = b.mac \
         AND (o.last_seen > b.last_seen OR (o.last_seen = b.last_seen AND o.id > b.id))) \
         AND (NOT $1 OR NOT EXISTS (SELECT 1 FROM interface k WHERE k.mac = b.mac)) \
         AND (NOT $2 OR NOT EXISTS (SELECT 1 FROM ip_address a WHERE a.ip = b.ip)) \
         ORDER BY b.last_seen DESC, b.id",
        matches!(only, Only::UnknownMac | Only::UnknownBoth),
        matches!(only, Only::UnknownIp | Only::UnknownBoth)
    )?;
    Ok(rows)
}

async fn list(call: Call, only: Only) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = seen(&mut tx, only).await?;
    Ok(Answer::json(rows.iter().map(Row::json).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let id = call.path("discovery_id");
    seen(&mut tx, Only::All)
        .await?
        .iter()
        .find(|r| r.id() == id)
        .map(|r| Answer::json(r.json()))
        .ok_or_else(|| ApiError::missing("Discovery"))
}

async fn clear(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let flag = |name: &str| args.bool(name).map(|v| v.unwrap_or(false));
    let all = flag("all")?;
    let (mdns, neighbours) = (all || flag("mdns")?, all || flag("neighbours")?);
    if !mdns && !neighbours {
        return Err(ApiError::Bad(
            "Say what to forget: set mdns, neighbours or all to true.".to_owned(),
        ));
    }
    call.write(move |tx, call| {
        Box::pin(async move {
            if mdns {
                store::exec!(tx, "DELETE FROM mdns_name")?;
            }
            if neighbours {
                store::exec!(tx, "DELETE FROM neighbour")?;
            }
            tx.changed("discovery", "", 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn clear_one(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let ip: IpAddr = args
        .required("ip")?
        .trim()
        .parse()
        .map_err(|_| ApiError::field("ip", "Enter a valid IPv4 or IPv6 address."))?;
    let mac: MacAddr = args
        .required("mac")?
        .trim()
        .parse()
        .map_err(|_| ApiError::field("mac", "Enter a valid MAC address."))?;
    call.write(move |tx, call| {
        Box::pin(async move {
            let gone = store::exec!(
                tx,
                "DELETE FROM neighbour WHERE ip = $1 AND mac = $2",
                ip.to_string(),
                mac.to_string()
            )?;
            if gone == 0 {
                return Err(ApiError::missing("Discovery"));
            }
            store::exec!(tx, "DELETE FROM mdns_name WHERE ip = $1", ip.to_string())?;
            tx.changed("discovery", ip, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn scan(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let cidrs = args.list("cidr");
    if cidrs.is_empty() && !args.bool("force")?.unwrap_or(false) {
        return Err(ApiError::Bad(
            "Name the networks to scan with cidr, or set force to scan all of them.".to_owned(),
        ));
    }
    for flag in ["always_use_ping", "slow"] {
        args.bool(flag)?;
    }
    if args
        .int("threads")?
        .is_some_and(|n| !(1..=MAX_THREADS).contains(&n))
    {
        return Err(ApiError::field(
            "threads",
            format!("Enter a number between 1 and {MAX_THREADS}."),
        ));
    }
    let mut tx = call.read().await?;
    let subnets = subnet::all(&mut tx).await?;
    for c in &cidrs {
        let known = subnet::choose(&subnets, c).is_some_and(SubnetRow::is_scannable);
        if !known {
            return Err(ApiError::field(
                "cidr",
                format!(
                    "{} is no IPv4 subnet that is known here; IPv6 is too large to scan.",
                    c.chars().take(64).collect::<String>()
                ),
            ));
        }
    }
    Err(ApiError::NoEngine(SCANNER))
}
