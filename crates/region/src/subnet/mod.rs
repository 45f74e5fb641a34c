//! `subnets`: networks with addresses.

pub mod ops;

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
