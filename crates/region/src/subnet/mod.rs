//! `subnets`: networks with addresses.

pub mod ops;
pub mod usage;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use store::Tx;

use crate::error::ApiError;
use crate::vlan::VlanRow;

/// A subnet as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct SubnetRow {
    /// Database id.
    pub id: i64,
    /// Its VLAN.
    pub vlan_id: i64,
    /// Network and prefix length.
    pub cidr: String,
    /// Name.
    pub name: String,
    /// In words.
    pub description: String,
    /// Default gateway.
    pub gateway_ip: Option<String>,
    /// DNS servers as a JSON list.
    pub dns_servers: String,
    /// 0 none, 1 on, 2 with RFC 2317 delegations.
    pub rdns_mode: i64,
    /// Scanned for neighbours.
    pub active_discovery: bool,
    /// Machines may ask the rack's DNS.
    pub allow_dns: bool,
    /// Machines may use the rack's proxy.
    pub allow_proxy: bool,
    /// Addresses are given out freely; otherwise only from reserved ranges.
    pub managed: bool,
    /// Boot methods left out of DHCP, as a JSON list.
    pub disabled_boot_architectures: String,
    /// Whether router advertisements are sent.
    pub router_advertisements: bool,
}

/// Columns of [`SubnetRow`] from `subnet s`; a `WHERE` or `ORDER BY` may follow.
#[macro_export]
#[doc(hidden)]
macro_rules! select_subnet {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.vlan_id, s.cidr, s.name, s.description, s.gateway_ip, s.dns_servers, s.rdns_mode, s.active_discovery, ",
            "s.allow_dns, s.allow_proxy, s.managed, s.disabled_boot_architectures, s.router_advertisements FROM subnet s ",
            $rest
        )
    };
}

/// A JSON list of texts as the database keeps it.
#[must_use]
pub fn texts(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_default()
}

impl SubnetRow {
    /// The network.
    ///
    /// # Errors
    /// When the database holds something else.
    pub fn net(&self) -> Result<IpNet, ApiError> {
        self.cidr
            .parse()
            .map_err(|_| ApiError::bug("a subnet's cidr cannot be read"))
    }

    /// Whether the address is in the network.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.net().is_ok_and(|n| n.contains(&ip))
    }

    /// Whether its addresses are those of IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.cidr.contains(':')
    }

    /// Whether all its addresses can be tried one by one.
    #[must_use]
    pub fn is_scannable(&self) -> bool {
        !self.is_v6()
    }

    /// The object of the API.
    #[must_use]
    pub fn json(&self, vlans: &HashMap<i64, VlanRow>) -> Value {
        let vlan = vlans.get(&self.vlan_id);
        json!({
            "name": self.name,
            "description": self.description,
            "vlan": vlan.map(|v| v.json(vlans)),
            "cidr": self.cidr,
            "rdns_mode": self.rdns_mode,
            "gateway_ip": self.gateway_ip,
            "dns_servers": texts(&self.dns_servers),
            "allow_dns": self.allow_dns,
            "allow_proxy": self.allow_proxy,
            "active_discovery": self.active_discovery,
            "managed": self.managed,
            "disabled_boot_architectures": texts(&self.disabled_boot_architectures),
            "space": vlan.map_or_else(|| "undefined".to_owned(), VlanRow::space),
            "id": self.id,
            "resource_uri": format!("/MAAS/api/2.0/subnets/{}/", self.id),
        })
    }
}

/// Every subnet by its id: one query.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx) -> Result<HashMap<i64, SubnetRow>, ApiError> {
    let rows = store::all!(tx, SubnetRow, select_subnet!("ORDER BY s.id"))?;
    Ok(rows.into_iter().map(|s| (s.id, s)).collect())
}

/// A subnet as requests name it: by id, cidr, `cidr:…`, `name:…` or `ip:…`.
#[must_use]
pub fn choose<'a>(subnets: &'a HashMap<i64, SubnetRow>, text: &str) -> Option<&'a SubnetRow> {
    let text = text.trim();
    if let Ok(id) = text.strip_prefix("id:").unwrap_or(text).parse::<i64>() {
        return subnets.get(&id);
    }
    if let Some(name) = text.strip_prefix("name:") {
        return subnets
            .values()
            .filter(|s| s.name == name)
            .min_by_key(|s| s.id);
    }
    if let Some(ip) = text.strip_prefix("ip:") {
        return narrowest(subnets, ip.parse().ok()?);
    }
    let cidr = text.strip_prefix("cidr:").unwrap_or(text);
    let net = cidr.parse::<IpNet>().ok().map(|n| n.trunc().to_string());
    subnets
        .values()
        .find(|s| s.cidr == cidr || Some(&s.cidr) == net.as_ref())
}

/// The subnet of an address: the smallest that it lies in.
#[must_use]
pub fn narrowest(subnets: &HashMap<i64, SubnetRow>, ip: IpAddr) -> Option<&SubnetRow> {
    subnets
        .values()
        .filter(|s| s.contains(ip))
        .max_by_key(|s| (s.net().map_or(0, |n| n.prefix_len()), -s.id))
}
