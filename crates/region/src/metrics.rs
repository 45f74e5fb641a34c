//! `/metrics`: numbers for Prometheus, under the names that MAAS gives them where it has them, and under
//! `steelyard_` where it does not. They hold no names of machines or people, and cost a handful of queries.

use std::fmt::Write as _;

use metal::status;

use crate::error::ApiError;
use crate::region::Region;

/// The text format, as Prometheus announces it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Node types by number.
const TYPES: [&str; 5] = [
    "machine",
    "device",
    "rack_controller",
    "region_controller",
    "region_and_rack_controller",
];

/// One page, written family by family.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into memory cannot fail.
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: i64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(k, v)| format!("{k}=\"{}\"", escaped(v)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        writeln!(self.0, "{name}{labels} {value}").ok();
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(String, i64)]) {
        self.family(name, "gauge", help);
        for (of, value) in values {
            self.sample(name, &[(label, of)], *value);
        }
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[derive(sqlx::FromRow)]
struct Totals {
    cpu: i64,
    memory: i64,
    storage: i64,
    fabrics: i64,
    vlans: i64,
    spaces: i64,
    v4: i64,
    v6: i64,
    feed: i64,
}

/// The numbers of now.
///
/// # Errors
/// When the database cannot be read.
pub async fn page(region: &Region) -> Result<String, ApiError> {
    let mut tx = region.db.read().await?;
    let statuses = store::all!(
        tx,
        (i64, i64),
        "SELECT status, COUNT(*) FROM node WHERE node_type = 0 GROUP BY status ORDER BY status"
    )?;
    let types = store::all!(
        tx,
        (i64, i64),
        "SELECT node_type, COUNT(*) FROM node GROUP BY node_type ORDER BY node_type"
    )?;
    let arches = store::all!(
        tx,
        (String, i64),
        "SELECT architecture, COUNT(*) FROM node WHERE node_type = 0 AND architecture IS NOT NULL \
         GROUP BY architecture ORDER BY architecture"
    )?;
    let jobs = store::all!(
        tx,
        (String, String, i64),
        "SELECT kind, state, COUNT(*) FROM job GROUP BY kind, state ORDER BY kind, state"
    )?;
    let t = store::one!(
        tx,
        Totals,
        "SELECT \
           CAST((SELECT COALESCE(SUM(cpu_count), 0) FROM node WHERE node_type = 0) AS BIGINT) AS cpu, \
           CAST((SELECT COALESCE(SUM(memory), 0) FROM node WHERE node_type = 0) AS BIGINT) AS memory, \
           CAST((SELECT COALESCE(SUM(b.size), 0) FROM block_device b JOIN node n ON n.id = b.node_id \
             WHERE n.node_type = 0 AND b.type = 'physical') AS BIGINT) AS storage, \
           (SELECT COUNT(*) FROM fabric) AS fabrics, \
           (SELECT COUNT(*) FROM vlan) AS vlans, \
           (SELECT COUNT(*) FROM space) AS spaces, \
           (SELECT COUNT(*) FROM subnet WHERE cidr NOT LIKE '%:%') AS v4, \
           (SELECT COUNT(*) FROM subnet WHERE cidr LIKE '%:%') AS v6, \
           (SELECT COALESCE(MAX(seq), 0) FROM change_feed) AS feed"
    )?;
    drop(tx);

    let mut page = Page::default();
    let by_status: Vec<(String, i64)> = status::ALL
        .iter()
        .map(|s| {
            let n = statuses.iter().find(|(code, _)| *code == s.code());
            (s.word().to_owned(), n.map_or(0, |(_, n)| *n))
        })
        .collect();
    page.gauges("maas_machines", "Machines by status.", "status", &by_status);
    let by_type: Vec<(String, i64)> = TYPES
        .iter()
        .zip(0_i64..)
        .map(|(word, code)| {
            let n = types.iter().find(|(t, _)| *t == code);
            ((*word).to_owned(), n.map_or(0, |(_, n)| *n))
        })
        .collect();
    page.gauges("maas_nodes", "Nodes by type.", "type", &by_type);
    page.gauges(
        "maas_machine_arches",
        "Machines by architecture.",
        "arches",
        &arches,
    );
    for (name, help, value) in [
        (
            "maas_machines_total_cpu",
            "Processor cores of all machines.",
            t.cpu,
        ),
        (
            "maas_machines_total_mem",
            "Memory of all machines, in MiB.",
            t.memory,
        ),
        (
            "maas_machines_total_storage",
            "Physical disks of all machines, in bytes.",
            t.storage,
        ),
        ("maas_net_fabrics", "Fabrics.", t.fabrics),
        ("maas_net_vlans", "VLANs.", t.vlans),
        ("maas_net_spaces", "Spaces.", t.spaces),
        ("maas_net_subnets_v4", "IPv4 subnets.", t.v4),
        ("maas_net_subnets_v6", "IPv6 subnets.", t.v6),
    ] {
        page.gauge(name, help, value);
    }
    page.family("steelyard_jobs", "gauge", "Durable jobs by kind and state.");
    for (kind, state, n) in &jobs {
        page.sample("steelyard_jobs", &[("kind", kind), ("state", state)], *n);
    }
    page.gauge(
        "steelyard_racks_connected",
        "Racks that are connected to this region.",
        i64::try_from(region.hub.connected().len()).unwrap_or(i64::MAX),
    );
    page.gauge(
        "steelyard_feed_position",
        "The newest entry of the change feed.",
        t.feed,
    );
    page.gauge(
        "steelyard_failed_logins_remembered",
        "Log-in names and addresses with failures of late.",
        i64::try_from(region.attempts.remembered()).unwrap_or(i64::MAX),
    );
    page.family(
        "steelyard_statements_read_total",
        "counter",
        "Statements run on snapshots since the start.",
    );
    page.sample(
        "steelyard_statements_read_total",
        &[],
        i64::try_from(region.db.statements_read()).unwrap_or(i64::MAX),
    );
    page.family("steelyard_info", "gauge", "The version of the program.");
    page.sample(
        "steelyard_info",
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("region", &region.config.name),
        ],
        1,
    );
    Ok(page.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_the_format() {
        let mut page = Page::default();
        page.gauges("m", "Help.", "l", &[("a\"b\\c\nd".to_owned(), 3)]);
        assert_eq!(
            page.0,
            "# HELP m Help.\n# TYPE m gauge\nm{l=\"a\\\"b\\\\c\\nd\"} 3\n"
        );
    }
}
