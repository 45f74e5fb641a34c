//! What a rack is told: the snapshot, and for each change the part of it that changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use link::snapshot::{
    Change, Machine, Position, Range, Reservation, Settings, Snapshot, Subnet, Vlan,
};
use metal::boot::Facts;
use metal::status::Status;
use metal::{MacAddr, SystemId};
use store::Tx;

use crate::error::ApiError;
use crate::image;
use crate::node::row::MACHINE;
use crate::setting;
use crate::subnet::{SubnetRow, texts};
use crate::vlan::VlanRow;
use crate::{select_subnet, select_vlan};

/// A position of the feed as racks know it.
#[must_use]
pub const fn position(p: store::feed::Position) -> Position {
    Position {
        epoch: p.epoch,
        transaction: p.xact,
        sequence: p.seq,
    }
}

/// The other way round.
#[must_use]
pub const fn feed_position(p: Position) -> store::feed::Position {
    store::feed::Position {
        epoch: p.epoch,
        xact: p.transaction,
        seq: p.sequence,
    }
}

/// Everything, as of one moment.
///
/// # Errors
/// When the database fails.
pub async fn build(tx: &mut Tx) -> Result<(Snapshot, store::feed::Position), ApiError> {
    let at = tx.feed_position().await?;
    let (images, loaders) = image::for_racks(tx).await?;
    let snapshot = Snapshot {
        position: position(at),
        settings: settings(tx).await?,
        vlans: vlans(tx, None)
            .await?
            .into_iter()
            .map(|v| (v.id, v))
            .collect(),
        subnets: subnets(tx, None)
            .await?
            .into_iter()
            .map(|s| (s.id, s))
            .collect(),
        machines: machines(tx, None)
            .await?
            .into_iter()
            .map(|m| (m.system_id.clone(), m))
            .collect(),
        images,
        loaders,
    };
    Ok((snapshot, at))
}

/// What these changes of the feed mean to a rack. Each object is read once, as it is now.
///
/// # Errors
/// When the database fails.
pub async fn changes(tx: &mut Tx, feed: &[store::feed::Change]) -> Result<Vec<Change>, ApiError> {
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    for c in feed {
        if !seen.insert((c.noun.as_str(), c.object.as_str())) {
            continue;
        }
        match c.noun.as_str() {
            "setting" => out.push(Change::Settings(settings(tx).await?)),
            "domain" => out.push(Change::Settings(settings(tx).await?)),
            "vlan" => {
                let Ok(id) = c.object.parse() else { continue };
                match vlans(tx, Some(id)).await?.pop() {
                    Some(v) => out.push(Change::Vlan(v)),
                    None => out.push(Change::VlanGone { id }),
                }
            }
            "subnet" => {
                let Ok(id) = c.object.parse() else { continue };
                match subnets(tx, Some(id)).await?.pop() {
                    Some(s) => out.push(Change::Subnet(s)),
                    None => out.push(Change::SubnetGone { id }),
                }
            }
            "node" => match machines(tx, Some(&c.object)).await?.pop() {
                Some(m) => out.push(Change::Machine(Box::new(m))),
                None => out.push(Change::MachineGone {
                    system_id: SystemId(c.object.clone()),
                }),
            },
            "boot_resource" if seen.insert(("images", "")) => {
                let (images, loaders) = image::for_racks(tx).await?;
                out.push(Change::Images { images, loaders });
            }
            // Users, tags and the like mean nothing to a rack.
            _ => {}
        }
    }
    Ok(out)
}

async fn settings(tx: &mut Tx) -> Result<Settings, ApiError> {
    let domain = store::opt!(tx, (String,), "SELECT name FROM domain WHERE is_default")?;
    let words = |s: String| {
        s.split([' ', ','])
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let remote = setting::text(tx, "remote_syslog").await?;
    Ok(Settings {
        kernel_opts: setting::text(tx, "kernel_opts").await?,
        commissioning_osystem: setting::text(tx, "commissioning_osystem").await?,
        commissioning_distro_series: setting::text(tx, "commissioning_distro_series").await?,
        default_domain: domain.map_or_else(String::new, |d| d.0),
        ntp_servers: words(setting::text(tx, "ntp_servers").await?),
        dns_servers: words(setting::text(tx, "upstream_dns").await?)
            .iter()
            .filter_map(|w| w.parse().ok())
            .collect(),
        remote_syslog: (!remote.is_empty()).then_some(remote),
        syslog_port: u16::try_from(setting::number(tx, "maas_syslog_port").await?).unwrap_or(5247),
        ignore_external_dhcp: setting::flag(tx, "ignore_external_dhcp").await?,
    })
}

async fn vlans(tx: &mut Tx, only: Option<i64>) -> Result<Vec<Vlan>, ApiError> {
    let rows = match only {
        Some(id) => store::all!(tx, VlanRow, select_vlan!("WHERE v.id = $1"), id)?,
        None => store::all!(tx, VlanRow, select_vlan!("ORDER BY v.id"))?,
    };
    Ok(rows
        .into_iter()
        .map(|v| Vlan {
            id: v.id,
            vid: u16::try_from(v.vid).unwrap_or(0),
            fabric: v.fabric(),
            mtu: u16::try_from(v.mtu).unwrap_or(1500),
            dhcp_on: v.dhcp_on,
            primary_rack: v.primary_rack.map(SystemId),
            secondary_rack: v.secondary_rack.map(SystemId),
            relay_vlan: v.relay_vlan_id,
        })
        .collect())
}

async fn subnets(tx: &mut Tx, only: Option<i64>) -> Result<Vec<Subnet>, ApiError> {
    let rows = match only {
        Some(id) => store::all!(tx, SubnetRow, select_subnet!("WHERE s.id = $1"), id)?,
        None => store::all!(tx, SubnetRow, select_subnet!("ORDER BY s.id"))?,
    };
    let ranges = match only {
        Some(id) => store::all!(
            tx,
            (i64, String, String, String),
            "SELECT subnet_id, start_ip, end_ip, type FROM ip_range WHERE subnet_id = $1 ORDER BY id",
            id
        )?,
        None => store::all!(
            tx,
            (i64, String, String, String),
            "SELECT subnet_id, start_ip, end_ip, type FROM ip_range ORDER BY id"
        )?,
    };
    let mut reserved = reservations(tx, only).await?;
    let mut by_subnet: HashMap<i64, Vec<Range>> = HashMap::new();
    for (subnet, start, end, kind) in ranges {
        if let (Ok(start), Ok(end)) = (start.parse(), end.parse()) {
            by_subnet.entry(subnet).or_default().push(Range {
                start,
                end,
                dynamic: kind == "dynamic",
            });
        }
    }
    rows.into_iter()
        .map(|s| {
            Ok(Subnet {
                id: s.id,
                vlan_id: s.vlan_id,
                cidr: s.net()?,
                gateway: s.gateway_ip.as_ref().and_then(|g| g.parse().ok()),
                dns_servers: texts(&s.dns_servers)
                    .iter()
                    .filter_map(|d| d.parse().ok())
                    .collect(),
                allow_dns: s.allow_dns,
                disabled_boot_architectures: texts(&s.disabled_boot_architectures),
                router_advertisements: s.router_advertisements,
                ranges: by_subnet.remove(&s.id).unwrap_or_default(),
                reserved: reserved.remove(&s.id).unwrap_or_default(),
            })
        })
        .collect()
}

/// Addresses of subnets that belong to a hardware address: reserved for it, or kept by a user who named it.
async fn reservations(
    tx: &mut Tx,
    only: Option<i64>,
) -> Result<HashMap<i64, Vec<Reservation>>, ApiError> {
    let rows = store::all!(
        tx,
        (i64, String, String),
        "SELECT r.subnet_id, r.ip, r.mac FROM reserved_ip r WHERE $1 OR r.subnet_id = $2 UNION ALL \
         SELECT a.subnet_id, a.ip, a.mac FROM ip_address a WHERE a.mac IS NOT NULL AND a.ip IS NOT NULL AND a.interface_id IS NULL \
         AND a.subnet_id IS NOT NULL AND ($1 OR a.subnet_id = $2) ORDER BY 1, 2",
        only.is_none(),
        only.unwrap_or(-1)
    )?;
    let mut out: HashMap<i64, Vec<Reservation>> = HashMap::new();
    for (subnet_id, ip, mac) in rows {
        if let (Ok(ip), Ok(mac)) = (ip.parse(), mac.parse()) {
            out.entry(subnet_id)
                .or_default()
                .push(Reservation { mac, ip, subnet_id });
        }
    }
    Ok(out)
}

#[derive(sqlx::FromRow)]
struct MachineRow {
    id: i64,
    system_id: String,
    node_type: i64,
    hostname: String,
    domain: String,
    status: i64,
    netboot: bool,
    ephemeral_deploy: bool,
    architecture: Option<String>,
    hardware_uuid: Option<String>,
    osystem: String,
    distro_series: String,
}

async fn machines(tx: &mut Tx, only: Option<&str>) -> Result<Vec<Machine>, ApiError> {
    let rows = match only {
        Some(id) => store::all!(
            tx,
            MachineRow,
            "SELECT n.id, n.system_id, n.node_type, n.hostname, d.name AS domain, n.status, n.netboot, n.ephemeral_deploy, n.architecture, \
             n.hardware_uuid, n.osystem, n.distro_series FROM node n JOIN domain d ON d.id = n.domain_id WHERE n.system_id = $1",
            id
        )?,
        None => store::all!(
            tx,
            MachineRow,
            "SELECT n.id, n.system_id, n.node_type, n.hostname, d.name AS domain, n.status, n.netboot, n.ephemeral_deploy, n.architecture, \
             n.hardware_uuid, n.osystem, n.distro_series FROM node n JOIN domain d ON d.id = n.domain_id ORDER BY n.id"
        )?,
    };
    let ids =
        serde_json::to_string(&rows.iter().map(|r| r.id).collect::<Vec<_>>()).unwrap_or_default();
    let mut macs: BTreeMap<i64, Vec<MacAddr>> = BTreeMap::new();
    let physical = store::all!(
        tx,
        (i64, String),
        "SELECT i.node_id, i.mac FROM interface i WHERE i.type = 'physical' AND i.mac IS NOT NULL AND i.node_id IN @ids($1) ORDER BY i.id",
        &ids
    )?;
    for (node, mac) in physical {
        if let Ok(mac) = mac.parse() {
            macs.entry(node).or_default().push(mac);
        }
    }
    let mut addresses: BTreeMap<i64, Vec<Reservation>> = BTreeMap::new();
    let linked = store::all!(
        tx,
        (i64, String, String, i64, i64),
        "SELECT i.node_id, i.mac, a.ip, a.subnet_id, a.id FROM ip_address a JOIN interface i ON i.id = a.interface_id \
         WHERE a.ip IS NOT NULL AND a.subnet_id IS NOT NULL AND i.mac IS NOT NULL AND i.node_id IN @ids($1) \
         UNION SELECT i.node_id, p.mac, a.ip, a.subnet_id, a.id FROM ip_address a JOIN interface i ON i.id = a.interface_id \
         JOIN interface_relation r ON r.child_id = i.id JOIN interface p ON p.id = r.parent_id \
         WHERE i.type IN ('bond', 'bridge') AND a.ip IS NOT NULL AND a.subnet_id IS NOT NULL AND p.mac IS NOT NULL \
         AND i.node_id IN @ids($1) ORDER BY 5, 2",
        &ids
    )?;
    // Any member of a bond may be the one that the machine boots from.
    for (node, mac, ip, subnet_id, _) in linked {
        if let (Ok(mac), Ok(ip)) = (mac.parse(), ip.parse()) {
            addresses
                .entry(node)
                .or_default()
                .push(Reservation { mac, ip, subnet_id });
        }
    }
    let mut options: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let tagged = store::all!(
        tx,
        (i64, String),
        "SELECT nt.node_id, t.kernel_opts FROM node_tag nt JOIN tag t ON t.id = nt.tag_id \
         WHERE t.kernel_opts <> '' AND nt.node_id IN @ids($1) ORDER BY t.name",
        &ids
    )?;
    for (node, opts) in tagged {
        options.entry(node).or_default().push(opts);
    }
    Ok(rows
        .into_iter()
        .map(|r| Machine {
            fqdn: format!("{}.{}", r.hostname, r.domain),
            system_id: SystemId(r.system_id),
            hostname: r.hostname,
            facts: Facts {
                status: Status::from_code(r.status).unwrap_or(Status::New),
                netboot: r.netboot,
                ephemeral_deploy: r.ephemeral_deploy,
                is_machine: r.node_type == MACHINE,
            },
            architecture: r.architecture.unwrap_or_default(),
            hardware_uuid: r.hardware_uuid.map(|u| u.to_ascii_lowercase()),
            macs: macs.remove(&r.id).unwrap_or_default(),
            addresses: addresses.remove(&r.id).unwrap_or_default(),
            kernel_opts: options.remove(&r.id).unwrap_or_default().join(" "),
            deploy: (!r.osystem.is_empty()).then_some((r.osystem, r.distro_series)),
        })
        .collect())
}
