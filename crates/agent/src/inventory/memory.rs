//! Memory: the total, and what each NUMA node has.

use serde::Serialize;

use super::dmi::Dmi;
use crate::sys::Sys;

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// All memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Per NUMA node.
    pub nodes: Vec<Node>,
    /// Bytes in huge pages.
    pub hugepages_total: u64,
    /// Bytes in used huge pages.
    pub hugepages_used: u64,
    /// Bytes of a huge page.
    pub hugepages_size: u64,
    /// Bytes used.
    pub used: u64,
    /// Bytes built in, rounded to MiB.
    pub total: u64,
}

/// A NUMA node's memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its number.
    pub numa_node: u64,
    /// Bytes in used huge pages.
    pub hugepages_used: u64,
    /// Bytes in huge pages.
    pub hugepages_total: u64,
    /// Bytes used.
    pub used: u64,
    /// Bytes built in, rounded to MiB.
    pub total: u64,
}

/// `/proc/meminfo` or a node's meminfo.
struct MemInfo(Vec<(String, u64)>);

impl MemInfo {
    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter_map(|l| {
                    // A node's lines begin with `Node 0 `.
                    let l = l
                        .strip_prefix("Node ")
                        .and_then(|r| r.split_once(' '))
                        .map_or(l, |(_, r)| r);
                    let (key, value) = l.split_once(':')?;
                    let mut words = value.split_whitespace();
                    let number: u64 = words.next()?.parse().ok()?;
                    Some((
                        key.trim().to_owned(),
                        if words.next() == Some("kB") {
                            number.saturating_mul(1024)
                        } else {
                            number
                        },
                    ))
                })
                .collect(),
        )
    }

    fn get(&self, key: &str) -> Option<u64> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| *v)
    }

    fn used(&self) -> u64 {
        self.get("MemUsed").unwrap_or_else(|| {
            let free = self
                .get("MemAvailable")
                .or_else(|| self.get("MemFree"))
                .unwrap_or(0);
            self.get("MemTotal").unwrap_or(0).saturating_sub(free)
        })
    }
}

fn round(bytes: u64) -> u64 {
    bytes.saturating_add(MIB / 2) / MIB * MIB
}

/// Bytes of the online memory blocks that `dir` lists.
fn blocks(sys: &Sys, dir: &str) -> Option<u64> {
    let size = sys.hex("sys/devices/system/memory/block_size_bytes")?;
    let online = sys
        .list(dir)
        .into_iter()
        .filter(|n| {
            n.strip_prefix("memory")
                .is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_digit()))
        })
        .filter(|n| {
            sys.text(format!("sys/devices/system/memory/{n}/state"))
                .is_none_or(|s| s == "online")
        })
        .count() as u64;
    (online > 0).then(|| size.saturating_mul(online))
}

/// Reads the memory.
#[must_use]
pub fn read(sys: &Sys, dmi: &Dmi) -> Memory {
    let info = MemInfo::parse(&sys.text("proc/meminfo").unwrap_or_default());
    let usable = info.get("MemTotal").unwrap_or(0);
    // What the firmware says is exact, unless it is nonsense: less than the kernel has, or far more.
    let sane = |n: &u64| *n >= usable && *n <= usable.saturating_mul(2).max(usable + 512 * MIB);
    let total = round(
        dmi.memory_size()
            .filter(sane)
            .or_else(|| blocks(sys, "sys/devices/system/memory"))
            .unwrap_or(usable),
    );
    let page = info.get("Hugepagesize").unwrap_or(0);
    let huge = |info: &MemInfo| {
        let total = info.get("HugePages_Total").unwrap_or(0);
        let free = info.get("HugePages_Free").unwrap_or(0);
        (
            total.saturating_mul(page),
            total.saturating_sub(free).saturating_mul(page),
        )
    };
    let (hugepages_total, hugepages_used) = huge(&info);
    let numbers: Vec<u64> = sys
        .list("sys/devices/system/node")
        .into_iter()
        .filter_map(|n| n.strip_prefix("node")?.parse().ok())
        .collect();
    let mut nodes: Vec<Node> = numbers
        .iter()
        .map(|n| {
            let dir = format!("sys/devices/system/node/node{n}");
            let info = MemInfo::parse(&sys.text(format!("{dir}/meminfo")).unwrap_or_default());
            let (hugepages_total, hugepages_used) = huge(&info);
            let total = round(
                blocks(sys, &dir)
                    .or_else(|| info.get("MemTotal"))
                    .unwrap_or(0),
            );
            Node {
                numa_node: *n,
                hugepages_used,
                hugepages_total,
                used: info.used(),
                total,
            }
        })
        .collect();
    match nodes.as_mut_slice() {
        [] => nodes.push(Node {
            numa_node: 0,
            hugepages_used,
            hugepages_total,
            used: info.used(),
            total,
        }),
        // One node has it all; the kernel's count of it lacks what the kernel itself took.
        [only] => only.total = total,
        _ => {}
    }
    Memory {
        nodes,
        hugepages_total,
        hugepages_used,
        hugepages_size: page,
        used: info.used(),
        total,
    }
}
