//! `ipaddresses`: addresses that users keep for themselves, and, for administrators, every address in use.

use std::collections::HashMap;
use std::net::IpAddr;

use metal::MacAddr;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::interface::{AUTO, DHCP, InterfaceRow, STICKY, USER_RESERVED, link};
use crate::ipam;
use crate::node::view::time_json;
use crate::node::{NodeRow, View, row};
use crate::operation::{Kind, Method, Operation, Param};
use crate::subnet::{self, SubnetRow};
use crate::user::UserRow;
use crate::{select_interface, select_node};

/// `alloc_type` of an address that a rack leased.
pub const DISCOVERED: i64 = 6;
/// Longest host name of an address, in characters.
const MAX_HOSTNAME: usize = 63;
/// Where the collection is; the API names it for each address.
const COLLECTION: &str = "/MAAS/api/2.0/ipaddresses/";

const ADDRESSES: Operation = Operation {
    handler: "IPAddressesHandler",
    uri: "ipaddresses/",
    ..Operation::READ
};

/// `ipaddresses/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the caller's addresses; for administrators also those of others, or all.",
        params: &[
            Param::opt("ip", Kind::Text, "Only this address."),
            Param::opt(
                "all",
                Kind::Bool,
                "Every address in use, leases too; for administrators.",
            ),
            Param::opt(
                "owner",
                Kind::Text,
                "Those of this user; for administrators.",
            ),
        ],
        run: |c| Box::pin(list(c)),
        ..ADDRESSES
    },
    Operation {
        method: Method::Post,
        op: Some("reserve"),
        title: "Keep an address for the caller.",
        params: &[
            Param::opt("subnet", Kind::Text, "The subnet, by id, cidr:… or name:…."),
            Param::opt("ip", Kind::Text, "The address; a free one when left out."),
            Param::opt("ip_address", Kind::Text, "The older name of ip."),
            Param::opt("hostname", Kind::Text, "A host name for it."),
            Param::opt("mac", Kind::Text, "The hardware address that will use it."),
        ],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(reserve(c)),
        ..ADDRESSES
    },
    Operation {
        method: Method::Post,
        op: Some("release"),
        title: "Give an address back.",
        params: &[
            Param::must("ip", Kind::Text, "The address."),
            Param::opt(
                "force",
                Kind::Bool,
                "Whoever has it, a machine too; for administrators.",
            ),
            Param::opt(
                "discovered",
                Kind::Bool,
                "With force: forget the lease of the address.",
            ),
        ],
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(release(c)),
        ..ADDRESSES
    },
];

#[derive(Clone, sqlx::FromRow)]
struct Row {
    id: i64,
    ip: String,
    alloc_type: i64,
    subnet_id: Option<i64>,
    interface_id: Option<i64>,
    user_id: Option<i64>,
    mac: Option<String>,
    created: i64,
}

const fn kind_name(alloc_type: i64) -> &'static str {
    match alloc_type {
        AUTO => "Automatic",
        STICKY => "Sticky",
        USER_RESERVED => "User reserved",
        DHCP => "DHCP",
        DISCOVERED => "Observed",
        _ => "Unknown",
    }
}

/// What the hardware address of a reservation looks like as long as no machine has it.
fn unknown_card(r: &Row, mac: &str, subnet: Option<&Value>) -> Value {
    json!({
        "id": r.id, "numa_node": null, "type": "unknown", "parents": [], "effective_mtu": 1500, "name": "eth0",
        "vlan": subnet.map_or(Value::Null, |s| s["vlan"].clone()), "system_id": null, "tags": [], "mac_address": mac,
        "firmware_version": null, "children": [], "params": "", "interface_speed": 0, "discovered": null, "product": null,
        "enabled": true, "sriov_max_vf": 0, "link_speed": 0, "links": [], "link_connected": true, "vendor": null,
        "resource_uri": "",
    })
}

/// The addresses as the API shows them, with the interfaces of those nodes that the caller may see.
async fn render(tx: &mut Tx, call: &Call, rows: &[Row]) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<i64> = rows.iter().filter_map(|r| r.interface_id).collect();
    let nodes = store::all!(
        tx,
        NodeRow,
        select_node!(
            "WHERE (n.owner_id IS NULL OR n.owner_id = $2 OR $3) AND n.id IN (SELECT i.node_id FROM interface i WHERE i.id IN @ids($1)) ORDER BY n.id"
        ),
        serde_json::to_string(&ids).unwrap_or_default(),
        call.actor().user_id(),
        call.actor().is_admin()
    )?;
    let view = View::load(tx, &nodes, call.now()).await?;
    let users = store::all!(
        tx,
        UserRow,
        "SELECT id, username, email, is_superuser, is_local FROM user_account"
    )?;
    let users: HashMap<i64, &UserRow> = users.iter().map(|u| (u.id, u)).collect();
    let mut interfaces: HashMap<i64, Value> = HashMap::new();
    for n in &nodes {
        for i in view.interfaces_of(n.id) {
            interfaces.insert(i.id, i.json(&n.system_id, &view.around));
        }
    }
    Ok(rows
        .iter()
        .map(|r| {
            let subnet = r
                .subnet_id
                .and_then(|s| view.around.subnets.get(&s))
                .map(|s| s.json(&view.around.vlans));
            let known = r.interface_id.and_then(|i| interfaces.get(&i)).cloned();
            let unknown = r
                .mac
                .as_ref()
                .filter(|_| r.interface_id.is_none())
                .map(|m| unknown_card(r, m, subnet.as_ref()));
            let cards: Vec<Value> = known.or(unknown).into_iter().collect();
            json!({
                "created": time_json(Some(r.created)),
                "ip": r.ip,
                "alloc_type": r.alloc_type,
                "alloc_type_name": kind_name(r.alloc_type),
                "subnet": subnet,
                "owner": r.user_id.and_then(|u| users.get(&u)).map(|u| u.json()),
                "interface_set": cards,
                "resource_uri": COLLECTION,
            })
        })
        .collect())
}

fn address_of(text: &str, field: &str) -> Result<IpAddr, ApiError> {
    text.trim()
        .parse()
        .map_err(|_| ApiError::field(field, "Enter a valid IPv4 or IPv6 address."))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let every = args.bool("all")?.unwrap_or(false);
    let owner = args.filled("owner");
    let admin = call.actor().is_admin();
    let call_user = call.actor().user()?.username.as_str();
    if every && !admin {
        return Err(ApiError::Forbidden(
            "Listing all IP addresses requires admin privileges.".to_owned(),
        ));
    }
    if owner.is_some_and(|o| o != call_user) && !admin {
        return Err(ApiError::Forbidden(
            "Listing another user's IP addresses requires admin privileges.".to_owned(),
        ));
    }
    let ip = args
        .filled("ip")
        .map(|t| address_of(t, "ip"))
        .transpose()?
        .map(|ip| ip.to_string());
    let mut tx = call.read().await?;
    let me = call.actor().user_id();
    let mut rows = store::all!(
        tx,
        Row,
        "SELECT a.id, a.ip, a.alloc_type, a.subnet_id, a.interface_id, a.user_id, a.mac, a.created FROM ip_address a \
         LEFT JOIN user_account u ON u.id = a.user_id WHERE a.ip IS NOT NULL AND ($1 OR u.username = $2 OR ($3 AND a.user_id = $4)) \
         AND ($5 OR a.ip = $6) ORDER BY a.id",
        every && owner.is_none(),
        owner,
        !every && owner.is_none(),
        me,
        ip.is_none(),
        &ip
    )?;
    if every && owner.is_none() {
        rows.extend(store::all!(
            tx,
            Row,
            "SELECT CAST(0 AS BIGINT) AS id, l.ip, CAST(6 AS BIGINT) AS alloc_type, l.subnet_id, (SELECT i.id FROM interface i WHERE i.mac = l.mac AND i.type = 'physical') \
             AS interface_id, CAST(NULL AS BIGINT) AS user_id, l.mac, l.updated AS created FROM lease l WHERE l.until > $1 AND ($2 OR l.ip = $3) ORDER BY l.ip",
            call.now().0,
            ip.is_none(),
            &ip
        )?);
    }
    Ok(Answer::json(render(&mut tx, &call, &rows).await?.into()))
}

fn hostname_of(call: &Call) -> Result<Option<String>, ApiError> {
    let Some(text) = call.args().filled("hostname") else {
        return Ok(None);
    };
    // A full name is as good: its first part is the host's.
    let name = text.split('.').next().unwrap_or_default();
    let fits = (1..=MAX_HOSTNAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        Ok(Some(name.to_ascii_lowercase()))
    } else {
        Err(ApiError::field(
            "hostname",
            "A host name has letters, digits and hyphens only, and no hyphen at its ends.",
        ))
    }
}

/// What a reservation asks for.
#[derive(Clone)]
struct Wish {
    ip: Option<IpAddr>,
    mac: Option<MacAddr>,
    hostname: Option<String>,
}

impl Wish {
    fn from_call(call: &Call) -> Result<Self, ApiError> {
        let args = call.args();
        let ip = match (args.filled("ip"), args.filled("ip_address")) {
            (Some(t), _) => Some(address_of(t, "ip")?),
            (None, Some(t)) => Some(address_of(t, "ip_address")?),
            (None, None) => None,
        };
        let mac = args.filled("mac").map(|t| {
            t.trim().parse().map_err(|_| {
                ApiError::field(
                    "mac_address",
                    format!(
                        "'{}' is not a valid MAC address.",
                        t.chars().take(64).collect::<String>()
                    ),
                )
            })
        });
        Ok(Self {
            ip,
            mac: mac.transpose()?,
            hostname: hostname_of(call)?,
        })
    }

    async fn subnet(&self, tx: &mut Tx, call: &Call) -> Result<SubnetRow, ApiError> {
        let subnets = subnet::all(tx).await?;
        let found = match (call.args().filled("subnet"), self.ip) {
            (Some(text), _) => subnet::choose(&subnets, text).ok_or_else(|| {
                ApiError::Bad(format!(
                    "There is no subnet {}.",
                    text.chars().take(64).collect::<String>()
                ))
            })?,
            (None, Some(ip)) => subnet::narrowest(&subnets, ip)
                .ok_or_else(|| ApiError::Bad(format!("No known subnet holds {ip}.")))?,
            (None, None) => {
                return Err(ApiError::Bad(
                    "Name a subnet, or the address itself.".to_owned(),
                ));
            }
        };
        Ok(found.clone())
    }
}

async fn reserve(call: Call) -> Result<Answer, ApiError> {
    let wish = Wish::from_call(&call)?;
    let value = call
        .write(move |tx, call| {
            let wish = wish.clone();
            Box::pin(async move {
                let s = wish.subnet(tx, &call).await?;
                let mac = wish.mac.map(|m| m.to_string());
                let mut addresses = ipam::addresses(tx, s.id, call.now()).await?;
                let ip = match wish.ip {
                    None => addresses.take(tx, mac.as_deref()).await?,
                    Some(ip) => {
                        addresses
                            .network
                            .check_address(ip, wish.mac, &addresses.assigned)
                            .map_err(|e| ApiError::field("ip_address", e.to_string()))?;
                        if ipam::is_assigned(tx, ip).await? {
                            return Err(ApiError::field(
                                "ip_address",
                                metal::ipam::AddressError::InUse.to_string(),
                            ));
                        }
                        ip
                    }
                };
                let row = store::one!(
                    tx,
                    Row,
                    "INSERT INTO ip_address (ip, alloc_type, subnet_id, user_id, hostname, mac, created, updated) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id, ip, alloc_type, subnet_id, interface_id, user_id, mac, created",
                    ip.to_string(),
                    USER_RESERVED,
                    s.id,
                    call.actor().user_id(),
                    &wish.hostname,
                    &mac,
                    call.now().0
                )?;
                tx.changed("ip_address", row.id, 0, call.now()).await?;
                // Racks hear of it with its subnet.
                tx.changed("subnet", s.id, 0, call.now()).await?;
                Ok(render(tx, &call, &[row]).await?.pop().unwrap_or(Value::Null))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

fn unknown(ip: IpAddr) -> ApiError {
    ApiError::NotFound(format!("IP address {ip} does not exist."))
}

/// Takes an address from whatever has it. An interface that has no other is up without one.
async fn take_away(tx: &mut Tx, call: &Call, row: &Row) -> Result<(), ApiError> {
    store::exec!(tx, "DELETE FROM ip_address WHERE id = $1", row.id)?;
    tx.changed("ip_address", row.id, 0, call.now()).await?;
    if let Some(s) = row.subnet_id {
        tx.changed("subnet", s, 0, call.now()).await?;
    }
    let Some(id) = row.interface_id else {
        return Ok(());
    };
    let i = store::opt!(tx, InterfaceRow, select_interface!("WHERE i.id = $1"), id)?;
    if let Some(i) = i {
        link::ensure_up(tx, &i, call.now()).await?;
        let node = row::by_id(tx, i.node_id).await?;
        link::drop_gateways(tx, &node).await?;
        node.touch(tx, call.now()).await?;
    }
    Ok(())
}

async fn release(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let force = args.bool("force")?.unwrap_or(false);
    let discovered = args.bool("discovered")?.unwrap_or(false);
    let ip = address_of(args.required("ip")?, "ip")?;
    if force && !call.actor().is_admin() {
        return Err(ApiError::Forbidden(
            "Force-releasing an IP address requires admin privileges.".to_owned(),
        ));
    }
    call.write(move |tx, call| {
        Box::pin(async move {
            let row = store::opt!(
                tx,
                Row,
                "SELECT id, ip, alloc_type, subnet_id, interface_id, user_id, mac, created FROM ip_address \
                 WHERE ip = $1 AND ($2 OR (user_id = $3 AND alloc_type = $4))",
                ip.to_string(),
                force,
                call.actor().user_id(),
                USER_RESERVED
            )?;
            let leases = if force && discovered {
                store::exec!(tx, "DELETE FROM lease WHERE ip = $1", ip.to_string())?
            } else {
                0
            };
            match row {
                Some(row) => take_away(tx, &call, &row).await,
                None if leases > 0 => Ok(()),
                None => Err(unknown(ip)),
            }
        })
    })
    .await?;
    Ok(Answer::none())
}
