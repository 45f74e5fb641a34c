//! A node as it is kept.

use metal::status::Status;
use metal::{SystemId, Timestamp};
use store::Tx;

use crate::auth::Actor;
use crate::error::ApiError;
use crate::event::About;

/// `node_type` of machines.
pub const MACHINE: i64 = 0;
/// `node_type` of devices.
pub const DEVICE: i64 = 1;
/// `node_type` of rack controllers.
pub const RACK: i64 = 2;
/// `node_type` of region controllers.
pub const REGION: i64 = 3;
/// `node_type` of hosts that are both.
pub const REGION_AND_RACK: i64 = 4;

/// A node with the names of what it belongs to.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs)] // the columns of the table `node`, described there
pub struct NodeRow {
    pub id: i64,
    pub system_id: String,
    pub node_type: i64,
    pub revision: i64,
    pub hostname: String,
    pub description: String,
    pub domain_id: i64,
    pub zone_id: i64,
    pub pool_id: Option<i64>,
    pub owner_id: Option<i64>,
    pub status: i64,
    pub previous_status: i64,
    pub status_since: i64,
    pub status_expires: Option<i64>,
    pub status_action: String,
    pub status_message: Option<String>,
    pub error_description: String,
    pub locked: bool,
    pub agent_name: String,
    pub architecture: Option<String>,
    pub min_hwe_kernel: String,
    pub hwe_kernel: Option<String>,
    pub hardware_uuid: Option<String>,
    pub cpu_count: i64,
    pub cpu_speed: i64,
    pub memory: i64,
    pub swap_size: Option<i64>,
    pub numa: String,
    pub hardware_info: String,
    pub bios_boot_method: Option<String>,
    pub boot_interface_id: Option<i64>,
    pub boot_disk_id: Option<i64>,
    pub boot_client_ip: Option<String>,
    pub boot_rack_ip: Option<String>,
    pub netboot: bool,
    pub osystem: String,
    pub distro_series: String,
    pub ephemeral_deploy: bool,
    pub install_attempt: i64,
    pub power_type: String,
    pub power_state: String,
    pub power_state_updated: Option<i64>,
    pub address_ttl: Option<i64>,
    pub enlisting: bool,
    pub enable_ssh: bool,
    pub skip_networking: bool,
    pub skip_storage: bool,
    pub current_commissioning_set_id: Option<i64>,
    pub current_testing_set_id: Option<i64>,
    pub current_installation_set_id: Option<i64>,
    pub current_release_set_id: Option<i64>,
    pub default_gateway_v4_id: Option<i64>,
    pub default_gateway_v6_id: Option<i64>,
    pub enable_hw_sync: bool,
    pub sync_interval: Option<i64>,
    pub last_sync: Option<i64>,
    pub enable_kernel_crash_dump: bool,
    pub is_dpu: bool,
    pub created: i64,
    pub owner: Option<String>,
    pub domain_name: String,
    pub domain_ttl: Option<i64>,
    pub domain_authoritative: bool,
    pub domain_is_default: bool,
    pub zone_name: String,
    pub zone_description: String,
    pub pool_name: Option<String>,
    pub pool_description: Option<String>,
    pub return_status: Option<i64>,
    pub parent: Option<String>,
}

/// Columns and joins of [`NodeRow`] from `node n`; a `WHERE` or `ORDER BY` may follow.
#[macro_export]
#[doc(hidden)]
macro_rules! select_node {
    ($rest:literal) => {
        concat!(
            "SELECT n.id, n.system_id, n.node_type, n.revision, n.hostname, n.description, n.domain_id, n.zone_id, n.pool_id, n.owner_id, ",
            "n.status, n.previous_status, n.status_since, n.status_expires, n.status_action, n.status_message, n.error_description, ",
            "n.locked, n.agent_name, n.architecture, n.min_hwe_kernel, n.hwe_kernel, n.hardware_uuid, n.cpu_count, n.cpu_speed, n.memory, ",
            "n.swap_size, n.numa, n.hardware_info, n.bios_boot_method, n.boot_interface_id, n.boot_disk_id, n.boot_client_ip, ",
            "n.boot_rack_ip, n.netboot, n.osystem, n.distro_series, n.ephemeral_deploy, n.install_attempt, n.power_type, n.power_state, ",
            "n.power_state_updated, n.address_ttl, n.enlisting, n.enable_ssh, n.skip_networking, n.skip_storage, ",
            "n.current_commissioning_set_id, n.current_testing_set_id, n.current_installation_set_id, n.current_release_set_id, ",
            "n.default_gateway_v4_id, n.default_gateway_v6_id, n.enable_hw_sync, n.sync_interval, n.last_sync, ",
            "n.enable_kernel_crash_dump, n.is_dpu, n.created, u.username AS owner, d.name AS domain_name, d.ttl AS domain_ttl, ",
            "d.authoritative AS domain_authoritative, d.is_default AS domain_is_default, z.name AS zone_name, ",
            "z.description AS zone_description, p.name AS pool_name, p.description AS pool_description, n.return_status, ",
            "(SELECT pn.system_id FROM node pn WHERE pn.id = n.parent_id) AS parent ",
            "FROM node n JOIN domain d ON d.id = n.domain_id JOIN zone z ON z.id = n.zone_id ",
            "LEFT JOIN user_account u ON u.id = n.owner_id LEFT JOIN resource_pool p ON p.id = n.pool_id ",
            $rest
        )
    };
}

impl NodeRow {
    /// Where it stands in its life cycle.
    ///
    /// # Errors
    /// When the database holds an unknown number.
    pub fn status(&self) -> Result<Status, ApiError> {
        Status::from_code(self.status).ok_or_else(|| ApiError::bug("a node has an unknown status"))
    }

    /// The status before the present one.
    ///
    /// # Errors
    /// When the database holds an unknown number.
    pub fn previous(&self) -> Result<Status, ApiError> {
        Status::from_code(self.previous_status)
            .ok_or_else(|| ApiError::bug("a node had an unknown status"))
    }

    /// Its system id.
    #[must_use]
    pub fn sid(&self) -> SystemId {
        SystemId(self.system_id.clone())
    }

    /// Full name.
    #[must_use]
    pub fn fqdn(&self) -> String {
        format!("{}.{}", self.hostname, self.domain_name)
    }

    /// For events.
    #[must_use]
    pub fn about(&self) -> About<'_> {
        About {
            id: self.id,
            system_id: &self.system_id,
            hostname: &self.hostname,
        }
    }

    /// Tells the change feed that this node changed, under a new revision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch(&self, tx: &mut Tx, now: Timestamp) -> Result<(), ApiError> {
        touch(tx, self.id, now).await
    }
}

/// Tells the change feed that a node changed, under a new revision.
///
/// # Errors
/// When the database fails.
pub async fn touch(tx: &mut Tx, id: i64, now: Timestamp) -> Result<(), ApiError> {
    let row = store::opt!(
        tx,
        (String, i64),
        "UPDATE node SET revision = revision + 1, updated = $2 WHERE id = $1 RETURNING system_id, revision",
        id,
        now.0
    )?;
    if let Some((system_id, revision)) = row {
        tx.changed("node", system_id, revision, now).await?;
    }
    Ok(())
}

/// A node of any type by its system id; 404 also for those that the actor may not see.
///
/// # Errors
/// 404 when there is none.
pub async fn by_system_id(
    tx: &mut Tx,
    actor: &Actor,
    system_id: &str,
) -> Result<NodeRow, ApiError> {
    store::opt!(
        tx,
        NodeRow,
        select_node!("WHERE n.system_id = $1 AND (n.owner_id IS NULL OR n.owner_id = $2 OR $3)"),
        system_id,
        actor.user_id(),
        actor.is_admin()
    )?
    .ok_or_else(|| ApiError::missing("Node"))
}

/// A machine by its system id; 404 also for those that the actor may not see.
///
/// # Errors
/// 404 when there is none.
pub async fn machine(tx: &mut Tx, actor: &Actor, system_id: &str) -> Result<NodeRow, ApiError> {
    let row = by_system_id(tx, actor, system_id)
        .await
        .map_err(|e| match e {
            ApiError::NotFound(_) => ApiError::missing("Machine"),
            other => other,
        })?;
    if row.node_type == MACHINE {
        Ok(row)
    } else {
        Err(ApiError::missing("Machine"))
    }
}

/// A node by its database id, for the product's own work.
///
/// # Errors
/// 404 when it is gone.
pub async fn by_id(tx: &mut Tx, id: i64) -> Result<NodeRow, ApiError> {
    store::opt!(tx, NodeRow, select_node!("WHERE n.id = $1"), id)?
        .ok_or_else(|| ApiError::missing("Node"))
}

/// A node by its system id, for the product's own work.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, system_id: &str) -> Result<Option<NodeRow>, ApiError> {
    Ok(store::opt!(
        tx,
        NodeRow,
        select_node!("WHERE n.system_id = $1"),
        system_id
    )?)
}

/// The machine that a hardware address belongs to, for the product's own work.
///
/// # Errors
/// When the database fails.
pub async fn by_mac(tx: &mut Tx, mac: &str) -> Result<Option<NodeRow>, ApiError> {
    Ok(store::opt!(
        tx,
        NodeRow,
        select_node!(
            "WHERE n.id = (SELECT i.node_id FROM interface i WHERE i.mac = $1 AND i.type = 'physical')"
        ),
        mac
    )?)
}

/// Deletes a node with everything that belongs to it: its addresses, its leases, its power job.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, node: &NodeRow, now: Timestamp) -> Result<(), ApiError> {
    tx.cancel_job(
        crate::power::KIND,
        &node.system_id,
        "the machine was deleted",
    )
    .await?;
    store::exec!(
        tx,
        "DELETE FROM lease WHERE mac IN (SELECT i.mac FROM interface i WHERE i.node_id = $1 AND i.mac IS NOT NULL)",
        node.id
    )?;
    store::exec!(tx, "DELETE FROM node WHERE id = $1", node.id)?;
    tx.changed("node", &node.system_id, node.revision + 1, now)
        .await?;
    Ok(())
}
