//! `vlans`: layer 2 networks of a fabric.

pub mod ops;

use std::collections::HashMap;

use serde_json::{Value, json};
use store::Tx;

use crate::error::ApiError;

/// A VLAN with the names of what it belongs to.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct VlanRow {
    /// Database id.
    pub id: i64,
    /// 802.1Q number.
    pub vid: i64,
    /// Its own name, when it has one.
    pub name: Option<String>,
    /// In words.
    pub description: String,
    /// MTU in bytes.
    pub mtu: i64,
    /// Whether addresses are served.
    pub dhcp_on: bool,
    /// A foreign DHCP server that was seen.
    pub external_dhcp: Option<String>,
    /// The VLAN through which requests are relayed.
    pub relay_vlan_id: Option<i64>,
    /// Its fabric.
    pub fabric_id: i64,
    /// The fabric's own name.
    pub fabric_name: Option<String>,
    /// Its space.
    pub space_id: Option<i64>,
    /// The space's own name.
    pub space_name: Option<String>,
    /// System id of the first rack.
    pub primary_rack: Option<String>,
    /// System id of the second rack.
    pub secondary_rack: Option<String>,
}

/// Columns and joins of [`VlanRow`]; a `WHERE` or `ORDER BY` may follow.
#[macro_export]
#[doc(hidden)]
macro_rules! select_vlan {
    ($rest:literal) => {
        concat!(
            "SELECT v.id, v.vid, v.name, v.description, v.mtu, v.dhcp_on, v.external_dhcp, v.relay_vlan_id, v.fabric_id, ",
            "f.name AS fabric_name, v.space_id, s.name AS space_name, p.system_id AS primary_rack, q.system_id AS secondary_rack ",
            "FROM vlan v JOIN fabric f ON f.id = v.fabric_id LEFT JOIN space s ON s.id = v.space_id ",
            "LEFT JOIN node p ON p.id = v.primary_rack_id LEFT JOIN node q ON q.id = v.secondary_rack_id ",
            $rest
        )
    };
}

impl VlanRow {
    /// The name that is shown.
    #[must_use]
    pub fn shown_name(&self) -> String {
        match &self.name {
            Some(n) if !n.is_empty() => n.clone(),
            _ if self.vid == 0 => "untagged".to_owned(),
            _ => self.vid.to_string(),
        }
    }

    /// The name of its fabric that is shown.
    #[must_use]
    pub fn fabric(&self) -> String {
        self.fabric_name
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| format!("fabric-{}", self.fabric_id))
    }

    /// The name of its space that is shown.
    #[must_use]
    pub fn space(&self) -> String {
        match (self.space_id, &self.space_name) {
            (None, _) => "undefined".to_owned(),
            (Some(_), Some(n)) if !n.is_empty() => n.clone(),
            (Some(id), _) => format!("space-{id}"),
        }
    }

    /// The object of the API. `all` gives the VLAN that this one is relayed through.
    #[must_use]
    pub fn json(&self, all: &HashMap<i64, VlanRow>) -> Value {
        let relay = self.relay_vlan_id.and_then(|id| all.get(&id)).map(|v| {
            // The chain of relays ends here.
            let mut cut = v.clone();
            cut.relay_vlan_id = None;
            cut.json(all)
        });
        json!({
            "vid": self.vid,
            "mtu": self.mtu,
            "dhcp_on": self.dhcp_on,
            "external_dhcp": self.external_dhcp,
            "relay_vlan": relay,
            "id": self.id,
            "space": self.space(),
            "primary_rack": self.primary_rack,
            "fabric": self.fabric(),
            "secondary_rack": self.secondary_rack,
            "name": self.shown_name(),
            "fabric_id": self.fabric_id,
            "resource_uri": format!("/MAAS/api/2.0/vlans/{}/", self.id),
        })
    }
}

/// Every VLAN by its id: one query.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx) -> Result<HashMap<i64, VlanRow>, ApiError> {
    let rows = store::all!(tx, VlanRow, select_vlan!("ORDER BY v.id"))?;
    Ok(rows.into_iter().map(|v| (v.id, v)).collect())
}
