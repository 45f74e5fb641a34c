//! Links between interfaces and subnets: the addresses of a node.

use std::net::IpAddr;

use metal::Timestamp;
use store::Tx;

use super::{AUTO, DHCP, InterfaceRow, LinkRow, STICKY};
use crate::args::Args;
use crate::error::ApiError;
use crate::hardware::nic;
use crate::ipam;
use crate::node::NodeRow;
use crate::operation::{Kind, Param};
use crate::subnet::{self, SubnetRow};

const CHOICE: &str = "Select a valid choice. That choice is not one of the available choices.";
const REQUIRED: &str = "This field is required.";

/// Parameters of `link_subnet`.
pub const PARAMS: &[Param] = &[
    Param::field("mode", Kind::Text, "auto, static, dhcp or link_up."),
    Param::opt("subnet", Kind::Text, "The subnet, by id or cidr."),
    Param::opt(
        "ip_address",
        Kind::Text,
        "static: the address; a free one is picked when left out.",
    ),
    Param::opt(
        "force",
        Kind::Bool,
        "Take any subnet, and give up links that are in the way.",
    ),
    Param::opt(
        "default_gateway",
        Kind::Bool,
        "Use the subnet's gateway as the machine's default gateway.",
    ),
];

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Picked at deployment.
    Auto,
    /// Fixed now.
    Static,
    /// From DHCP.
    Dhcp,
    /// Not at all: the interface is only up.
    LinkUp,
}

impl Mode {
    const WORDS: [(&'static str, Self); 4] = [
        ("auto", Self::Auto),
        ("dhcp", Self::Dhcp),
        ("static", Self::Static),
        ("link_up", Self::LinkUp),
    ];

    fn of(text: &str) -> Result<Self, ApiError> {
        Self::WORDS
            .into_iter()
            .find(|(w, _)| w.eq_ignore_ascii_case(text))
            .map(|(_, m)| m)
            .ok_or_else(|| {
                let words: Vec<String> =
                    Self::WORDS.iter().map(|(w, _)| format!("'{w}'")).collect();
                ApiError::field(
                    "mode",
                    format!(
                        "'{}' is not a valid choice. It should be one of: {}.",
                        text.chars().take(32).collect::<String>(),
                        words.join(", ")
                    ),
                )
            })
    }
}

/// A link that is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    mode: Mode,
    subnet: Option<String>,
    ip: Option<IpAddr>,
    force: bool,
    default_gateway: bool,
}

impl Wish {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 with the field that is wrong.
    pub fn from_args(args: &Args) -> Result<Self, ApiError> {
        let mode = Mode::of(args.required("mode")?)?;
        let subnet = args.filled("subnet").map(str::to_owned);
        if subnet.is_none() && matches!(mode, Mode::Auto | Mode::Static) {
            return Err(ApiError::field("subnet", REQUIRED));
        }
        let ip = args
            .filled("ip_address")
            .map(|t| {
                t.trim().parse().map_err(|_| {
                    ApiError::field("ip_address", "Enter a valid IPv4 or IPv6 address.")
                })
            })
            .transpose()?;
        if ip.is_some() && mode != Mode::Static {
            return Err(ApiError::field(
                "ip_address",
                "An address can be given in the mode 'static' only.",
            ));
        }
        let default_gateway = args.bool("default_gateway")?.unwrap_or(false);
        if default_gateway && !matches!(mode, Mode::Auto | Mode::Static) {
            return Err(ApiError::field(
                "default_gateway",
                "A default gateway can be set in the modes 'auto' and 'static' only.",
            ));
        }
        Ok(Self {
            mode,
            subnet,
            ip,
            force: args.bool("force")?.unwrap_or(false),
            default_gateway,
        })
    }
}

/// The links of an interface, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn of_interface(tx: &mut Tx, interface: i64) -> Result<Vec<LinkRow>, ApiError> {
    Ok(store::all!(
        tx,
        LinkRow,
        "SELECT a.id, a.interface_id, a.ip, a.alloc_type, a.subnet_id FROM ip_address a WHERE a.interface_id = $1 ORDER BY a.id",
        interface
    )?)
}

/// Makes a link.
///
/// # Errors
/// 400 with the field that is wrong, 503 when the subnet is full.
pub async fn make(
    tx: &mut Tx,
    node: &NodeRow,
    i: &InterfaceRow,
    wish: &Wish,
    now: Timestamp,
) -> Result<(), ApiError> {
    let subnets = subnet::all(tx).await?;
    let subnet = match &wish.subnet {
        None => None,
        Some(text) => Some(
            subnet::choose(&subnets, text)
                .filter(|s| wish.force || i.vlan_id.is_none_or(|v| v == s.vlan_id))
                .ok_or_else(|| ApiError::field("subnet", CHOICE))?,
        ),
    };
    let mut links = of_interface(tx, i.id).await?;
    if wish.mode == Mode::LinkUp {
        if links.iter().any(|l| l.mode() != "link_up") && !wish.force {
            return Err(ApiError::field(
                "mode",
                "The interface has addresses already, so it cannot be set to link up (without an address).",
            ));
        }
        store::exec!(tx, "DELETE FROM ip_address WHERE interface_id = $1", i.id)?;
        links.clear();
    }
    if wish.mode == Mode::Dhcp
        && let Some(l) = links.iter().find(|l| l.alloc_type == DHCP)
        && l.subnet_id
            .and_then(|s| subnets.get(&s))
            .is_none_or(|s| subnet.is_none_or(|t| s.cidr.contains(':') == t.cidr.contains(':')))
    {
        return Err(ApiError::field(
            "mode",
            "The interface is already set to DHCP.",
        ));
    }
    if let Some(s) = subnet
        && i.vlan_id != Some(s.vlan_id)
    {
        store::exec!(
            tx,
            "UPDATE interface SET vlan_id = $2, updated = $3 WHERE id = $1",
            i.id,
            s.vlan_id,
            now.0
        )?;
        let moved = InterfaceRow {
            vlan_id: Some(s.vlan_id),
            ..i.clone()
        };
        leave_other_vlans(tx, &moved).await?;
    }
    // Only an interface without any other link is merely up.
    store::exec!(
        tx,
        "DELETE FROM ip_address WHERE interface_id = $1 AND alloc_type = $2 AND ip IS NULL",
        i.id,
        STICKY
    )?;
    let subnet_id = subnet.map(|s| s.id);
    match wish.mode {
        Mode::Auto => nic::link(tx, i.id, subnet_id, AUTO, None, now).await?,
        Mode::Dhcp => nic::link(tx, i.id, subnet_id, DHCP, None, now).await?,
        Mode::LinkUp => nic::link(tx, i.id, subnet_id, STICKY, None, now).await?,
        Mode::Static => {
            let s = subnet.ok_or_else(|| ApiError::field("subnet", REQUIRED))?;
            let ip = fixed(tx, s, i, wish.ip, now).await?;
            nic::link(tx, i.id, subnet_id, STICKY, Some(ip), now).await?;
        }
    }
    if wish.default_gateway {
        let newest = of_interface(tx, i.id).await?.last().map(|l| l.id);
        choose_gateway(tx, node, i, newest).await?;
    }
    Ok(())
}

/// The fixed address asked for, or a free one.
async fn fixed(
    tx: &mut Tx,
    subnet: &SubnetRow,
    i: &InterfaceRow,
    wish: Option<IpAddr>,
    now: Timestamp,
) -> Result<IpAddr, ApiError> {
    let mut addresses = ipam::addresses(tx, subnet.id, now).await?;
    let mac = i.mac.as_deref();
    let Some(ip) = wish else {
        return addresses.take(tx, mac).await;
    };
    addresses
        .network
        .check_address(ip, mac.and_then(|m| m.parse().ok()), &addresses.assigned)
        .map_err(|e| ApiError::field("ip_address", e.to_string()))?;
    // Networks may contain each other.
    if ipam::is_assigned(tx, ip).await? {
        return Err(ApiError::field(
            "ip_address",
            metal::ipam::AddressError::InUse.to_string(),
        ));
    }
    Ok(ip)
}

/// Removes the links of an interface to subnets that are not in its VLAN.
///
/// # Errors
/// When the database fails.
pub async fn leave_other_vlans(tx: &mut Tx, i: &InterfaceRow) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "DELETE FROM ip_address WHERE interface_id = $1 AND subnet_id IS NOT NULL \
         AND subnet_id NOT IN (SELECT s.id FROM subnet s WHERE s.vlan_id = $2)",
        i.id,
        i.vlan_id.unwrap_or(-1)
    )?;
    if i.vlan_id.is_none() {
        store::exec!(tx, "DELETE FROM ip_address WHERE interface_id = $1", i.id)?;
    }
    Ok(())
}

/// An interface in a VLAN that has subnets is at least up.
///
/// # Errors
/// When the database fails.
pub async fn ensure_up(tx: &mut Tx, i: &InterfaceRow, now: Timestamp) -> Result<(), ApiError> {
    if i.vlan_id.is_none() || !of_interface(tx, i.id).await?.is_empty() {
        return Ok(());
    }
    // What is part of a bond or a bridge is up with that one.
    let taken = store::opt!(
        tx,
        (i64,),
        "SELECT c.id FROM interface_relation r JOIN interface c ON c.id = r.child_id \
         WHERE r.parent_id = $1 AND c.type IN ('bond', 'bridge') LIMIT 1",
        i.id
    )?;
    if taken.is_some() {
        return Ok(());
    }
    let subnets = subnet::all(tx).await?;
    if let Some(s) = nic::first_of(&subnets, i.vlan_id) {
        nic::link(tx, i.id, Some(s.id), STICKY, None, now).await?;
    }
    Ok(())
}

/// Forgets default gateways whose link is gone.
///
/// # Errors
/// When the database fails.
pub async fn drop_gateways(tx: &mut Tx, node: &NodeRow) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE node SET default_gateway_v4_id = (SELECT a.id FROM ip_address a WHERE a.id = node.default_gateway_v4_id), \
         default_gateway_v6_id = (SELECT a.id FROM ip_address a WHERE a.id = node.default_gateway_v6_id) WHERE id = $1",
        node.id
    )?;
    Ok(())
}

/// Makes the gateway of a link's subnet the node's default gateway of its family. Without a link named,
/// the interface must have just one in each family that it could be.
///
/// # Errors
/// 400 when there is none, or more than one.
pub async fn choose_gateway(
    tx: &mut Tx,
    node: &NodeRow,
    i: &InterfaceRow,
    chosen: Option<i64>,
) -> Result<(), ApiError> {
    let subnets = subnet::all(tx).await?;
    let links = of_interface(tx, i.id).await?;
    let candidates: Vec<(i64, bool)> = links
        .iter()
        .filter(|l| matches!(l.mode(), "auto" | "static"))
        .filter_map(|l| {
            let s = subnets.get(&l.subnet_id?)?;
            s.gateway_ip.as_ref().filter(|g| !g.is_empty())?;
            Some((l.id, s.cidr.contains(':')))
        })
        .collect();
    if candidates.is_empty() {
        return Err(ApiError::field(
            "__all__",
            "This interface has no usable gateways.",
        ));
    }
    let picked: Vec<(i64, bool)> = match chosen {
        Some(id) => vec![
            *candidates
                .iter()
                .find(|(c, _)| *c == id)
                .ok_or_else(|| ApiError::field("link_id", CHOICE))?,
        ],
        None => {
            let twice = [false, true]
                .iter()
                .any(|v6| candidates.iter().filter(|(_, f)| f == v6).count() > 1);
            if twice {
                return Err(ApiError::field(
                    "link_id",
                    "This field is required; Interface has more than one usable gateway.",
                ));
            }
            candidates
        }
    };
    for (link, v6) in picked {
        if v6 {
            store::exec!(
                tx,
                "UPDATE node SET default_gateway_v6_id = $2 WHERE id = $1",
                node.id,
                link
            )?;
        } else {
            store::exec!(
                tx,
                "UPDATE node SET default_gateway_v4_id = $2 WHERE id = $1",
                node.id,
                link
            )?;
        }
    }
    Ok(())
}
