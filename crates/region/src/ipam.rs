//! Addresses for interfaces: which are free is `metal::ipam`'s arithmetic over what the database knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use metal::ipam::{Network, Range, RangeKind};
use metal::{MacAddr, Timestamp};
use store::Tx;

use crate::error::ApiError;
use crate::interface::AUTO;
use crate::node::NodeRow;
use crate::select_subnet;
use crate::subnet::{SubnetRow, texts};

/// Seconds after which it is worth asking again for an address of a full subnet.
pub const EXHAUSTED_RETRY: u32 = 60;

/// A subnet with what is known of its addresses.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The subnet's row.
    pub subnet: SubnetRow,
    /// Its network and ranges.
    pub network: Network,
    /// Addresses that are assigned to something.
    pub assigned: BTreeSet<IpAddr>,
    /// Addresses that cannot be given: assigned or leased.
    pub taken: BTreeSet<IpAddr>,
    /// Addresses that racks saw somebody use; they are given when there is no other.
    pub seen: BTreeSet<IpAddr>,
}

/// 503: the subnet is full.
fn exhausted(subnet: &SubnetRow) -> ApiError {
    ApiError::Unavailable(
        format!("No more IPs available in subnet: {}.", subnet.cidr),
        EXHAUSTED_RETRY,
    )
}

/// The ranges of a subnet, lowest first; `but` is left out.
///
/// # Errors
/// When the database fails.
pub async fn ranges(tx: &mut Tx, subnet: i64, but: Option<i64>) -> Result<Vec<Range>, ApiError> {
    let rows = store::all!(
        tx,
        (String, String, String),
        "SELECT start_ip, end_ip, type FROM ip_range WHERE subnet_id = $1 AND id <> $2 ORDER BY id",
        subnet,
        but.unwrap_or(-1)
    )?;
    rows.into_iter()
        .map(|(start, end, kind)| {
            let unreadable = || ApiError::bug("a range's addresses cannot be read");
            Ok(Range {
                start: start.parse().map_err(|_| unreadable())?,
                end: end.parse().map_err(|_| unreadable())?,
                kind: RangeKind::from_word(&kind).ok_or_else(unreadable)?,
            })
        })
        .collect()
}

/// The subnet as the arithmetic sees it; the range `but` is left out.
///
/// # Errors
/// When the database fails or holds something unreadable.
pub async fn network(
    tx: &mut Tx,
    subnet: &SubnetRow,
    but: Option<i64>,
) -> Result<Network, ApiError> {
    Ok(Network {
        net: subnet.net()?,
        managed: subnet.managed,
        gateway: subnet.gateway_ip.as_ref().and_then(|g| g.parse().ok()),
        dns_servers: texts(&subnet.dns_servers)
            .iter()
            .filter_map(|d| d.parse().ok())
            .collect(),
        ranges: ranges(tx, subnet.id, but).await?,
        reserved: reserved(tx, subnet.id).await?,
    })
}

/// The addresses of a subnet that belong to one hardware address each.
///
/// # Errors
/// When the database fails.
pub async fn reserved(tx: &mut Tx, subnet: i64) -> Result<BTreeMap<IpAddr, MacAddr>, ApiError> {
    let rows = store::all!(
        tx,
        (String, String),
        "SELECT ip, mac FROM reserved_ip WHERE subnet_id = $1 ORDER BY id",
        subnet
    )?;
    Ok(rows
        .into_iter()
        .filter_map(|(ip, mac)| Some((ip.parse().ok()?, mac.parse().ok()?)))
        .collect())
}

/// A subnet with what is known of its addresses.
///
/// # Errors
/// 404 when there is no such subnet.
pub async fn addresses(tx: &mut Tx, subnet: i64, now: Timestamp) -> Result<Addresses, ApiError> {
    let row = store::opt!(tx, SubnetRow, select_subnet!("WHERE s.id = $1"), subnet)?
        .ok_or_else(|| ApiError::missing("Subnet"))?;
    let network = network(tx, &row, None).await?;
    let assigned: BTreeSet<IpAddr> = store::all!(
        tx,
        (String,),
        "SELECT ip FROM ip_address WHERE ip IS NOT NULL AND subnet_id = $1",
        subnet
    )?
    .into_iter()
    .filter_map(|(ip,)| ip.parse().ok())
    .collect();
    let mut taken = assigned.clone();
    let leased = store::all!(
        tx,
        (String,),
        "SELECT ip FROM lease WHERE subnet_id = $1 AND until > $2",
        subnet,
        now.0
    )?;
    taken.extend(
        leased
            .into_iter()
            .filter_map(|(ip,)| ip.parse::<IpAddr>().ok()),
    );
    let mut seen: BTreeSet<IpAddr> =
        store::all!(tx, (String,), "SELECT DISTINCT ip FROM neighbour")?
            .into_iter()
            .filter_map(|(ip,)| ip.parse().ok())
            .collect();
    seen.retain(|ip| network.net.contains(ip));
    Ok(Addresses {
        subnet: row,
        network,
        assigned,
        taken,
        seen,
    })
}

impl Addresses {
    /// Takes the next address for a card: the one that is reserved for it, else a free one. One that turns
    /// out to be assigned under another subnet (networks may contain each other) is passed over.
    ///
    /// # Errors
    /// 503 when there is none.
    pub async fn take(&mut self, tx: &mut Tx, mac: Option<&str>) -> Result<IpAddr, ApiError> {
        let mac: Option<MacAddr> = mac.and_then(|m| m.parse().ok());
        // The card's own lease of its reserved address is no obstacle.
        let own = mac
            .and_then(|m| self.network.reserved_for(m))
            .filter(|ip| !self.assigned.contains(ip));
        if let Some(ip) = own {
            self.taken.remove(&ip);
        }
        loop {
            let ip = self
                .network
                .free_for(mac, &self.taken, &self.seen)
                .ok_or_else(|| exhausted(&self.subnet))?;
            // Each round takes one more address out, so this ends.
            self.taken.insert(ip);
            self.assigned.insert(ip);
            if !is_assigned(tx, ip).await? {
                return Ok(ip);
            }
        }
    }
}

/// Whether an address is assigned to anything, in whatever subnet.
///
/// # Errors
/// When the database fails.
pub async fn is_assigned(tx: &mut Tx, ip: IpAddr) -> Result<bool, ApiError> {
    let row = store::opt!(
        tx,
        (i64,),
        "SELECT id FROM ip_address WHERE ip = $1",
        ip.to_string()
    )?;
    Ok(row.is_some())
}

/// Gives every AUTO link of a node's enabled interfaces that has no address one. An address is unique by
/// constraint; two nodes that reach for the same one at once are sorted out by the database running one of
/// the transactions again.
///
/// # Errors
/// 503 when a subnet has none left.
pub async fn claim_auto(tx: &mut Tx, node: &NodeRow, now: Timestamp) -> Result<(), ApiError> {
    let links = store::all!(
        tx,
        (i64, i64, Option<String>),
        "SELECT a.id, a.subnet_id, i.mac FROM ip_address a JOIN interface i ON i.id = a.interface_id \
         WHERE i.node_id = $1 AND i.enabled AND a.alloc_type = $2 AND a.ip IS NULL AND a.subnet_id IS NOT NULL \
         ORDER BY a.subnet_id, a.id",
        node.id,
        AUTO
    )?;
    if links.is_empty() {
        return Ok(());
    }
    let mut at: Option<Addresses> = None;
    for (link, subnet, mac) in links {
        let addresses = match &mut at {
            Some(a) if a.subnet.id == subnet => a,
            _ => at.insert(addresses(tx, subnet, now).await?),
        };
        let ip = addresses.take(tx, mac.as_deref()).await?;
        store::exec!(
            tx,
            "UPDATE ip_address SET ip = $2, updated = $3 WHERE id = $1",
            link,
            ip.to_string(),
            now.0
        )?;
    }
    // Racks answer the machine's firmware and its system with this address from now on.
    node.touch(tx, now).await
}
