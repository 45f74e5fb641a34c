//! Processors: sockets, cores, threads, caches, frequencies.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::sys::Sys;

/// All processors.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cpu {
    /// `uname -m`.
    pub architecture: String,
    /// Sockets.
    pub sockets: Vec<Socket>,
    /// Number of threads.
    pub total: u64,
}

/// A socket.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Socket {
    /// Model name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Vendor.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// Number of the socket.
    pub socket: u64,
    /// Caches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache: Vec<Cache>,
    /// Cores.
    pub cores: Vec<Core>,
    /// MHz now, averaged over the cores.
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency: u64,
    /// Lowest MHz.
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency_minimum: u64,
    /// Highest MHz.
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency_turbo: u64,
    /// Feature flags; not part of the resources document.
    #[serde(skip)]
    pub flags: Vec<String>,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1, 2, 3, …
    pub level: u64,
    /// `Data`, `Instruction` or `Unified`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
}

/// A core.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Core {
    /// Its number in the socket.
    pub core: u64,
    /// Number of its die.
    pub die: u64,
    /// Threads.
    pub threads: Vec<Thread>,
    /// MHz now.
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency: u64,
}

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Thread {
    /// The kernel's number of it.
    pub id: u64,
    /// NUMA node.
    pub numa_node: u64,
    /// Its number in the core.
    pub thread: u64,
    /// Whether it is online.
    pub online: bool,
    /// Whether it is kept free from the scheduler.
    pub isolated: bool,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The blocks of `/proc/cpuinfo` by processor number.
fn cpuinfo(sys: &Sys) -> BTreeMap<u64, BTreeMap<String, String>> {
    let text = sys.text("proc/cpuinfo").unwrap_or_default();
    let mut out = BTreeMap::new();
    for block in text.split("\n\n") {
        let fields: BTreeMap<String, String> = block
            .lines()
            .filter_map(|l| l.split_once(':'))
            .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
            .collect();
        if let Some(number) = fields.get("processor").and_then(|n| n.parse().ok()) {
            out.insert(number, fields);
        }
    }
    out
}

/// Numbers of a list such as `0-3,8`.
#[must_use]
pub fn number_list(text: &str) -> Vec<u64> {
    /// Most numbers one range may have.
    const RANGE_MAX: u64 = 65_536;
    let mut out = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(low), Ok(high)) = (low.parse::<u64>(), high.parse::<u64>()) {
            out.extend(low..=high.min(low.saturating_add(RANGE_MAX)));
        }
    }
    out
}

/// Bytes of a cache size such as `32K` or `16384K`.
fn cache_size(text: &str) -> u64 {
    let (digits, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let n: u64 = digits.parse().unwrap_or(0);
    match unit {
        "K" => n << 10,
        "M" => n << 20,
        _ => n,
    }
}

/// ARM's implementer codes (Arm ARM, MIDR_EL1) of the makers of servers.
fn arm_vendor(code: &str) -> Option<&'static str> {
    Some(match code {
        "0x41" => "ARM",
        "0x42" => "Broadcom",
        "0x43" => "Cavium",
        "0x48" => "HiSilicon",
        "0x4e" => "NVIDIA",
        "0x50" => "APM",
        "0x51" => "Qualcomm",
        "0x61" => "Apple",
        "0xc0" => "Ampere",
        _ => return None,
    })
}

/// Reads the processors.
#[must_use]
pub fn read(sys: &Sys, architecture: &str) -> Cpu {
    let info = cpuinfo(sys);
    let isolated = sys
        .text("sys/devices/system/cpu/isolated")
        .map(|t| number_list(&t))
        .unwrap_or_default();
    let mut nodes = BTreeMap::new();
    for node in sys.list("sys/devices/system/node") {
        let Some(number) = node
            .strip_prefix("node")
            .and_then(|n| n.parse::<u64>().ok())
        else {
            continue;
        };
        let cpus = sys
            .text(format!("sys/devices/system/node/{node}/cpulist"))
            .map(|t| number_list(&t))
            .unwrap_or_default();
        nodes.extend(cpus.into_iter().map(|c| (c, number)));
    }
    let mut sockets: BTreeMap<u64, Socket> = BTreeMap::new();
    let mut total = 0;
    for name in sys.list("sys/devices/system/cpu") {
        let Some(id) = name.strip_prefix("cpu").and_then(|n| n.parse::<u64>().ok()) else {
            continue;
        };
        let dir = format!("sys/devices/system/cpu/{name}");
        let topology = |file: &str| {
            sys.number(format!("{dir}/topology/{file}"))
                .and_then(|n| u64::try_from(n).ok())
        };
        // Offline threads have no topology; they belong to no core that could be named.
        let Some(core_id) = topology("core_id") else {
            continue;
        };
        let fields = info.get(&id).or_else(|| info.values().next());
        let field = |key: &str| fields.and_then(|f| f.get(key)).cloned();
        let mhz = |file: &str| {
            sys.number(format!("{dir}/cpufreq/{file}"))
                .and_then(|n| u64::try_from(n).ok())
                .map(|k| k / 1000)
        };
        let now = mhz("scaling_cur_freq")
            .or_else(|| field("cpu MHz")?.split('.').next()?.parse().ok())
            .unwrap_or(0);
        let socket = sockets
            .entry(topology("physical_package_id").unwrap_or(0))
            .or_insert_with_key(|n| Socket {
                name: field("model name")
                    .or_else(|| field("cpu"))
                    .or_else(|| field("Processor"))
                    .unwrap_or_default(),
                vendor: field("vendor_id")
                    .or_else(|| arm_vendor(&field("CPU implementer")?).map(str::to_owned))
                    .unwrap_or_default(),
                socket: *n,
                flags: field("flags")
                    .or_else(|| field("Features"))
                    .map(|f| f.split(' ').map(str::to_owned).collect())
                    .unwrap_or_default(),
                ..Socket::default()
            });
        socket.frequency_minimum = mhz("cpuinfo_min_freq").unwrap_or(socket.frequency_minimum);
        socket.frequency_turbo = mhz("cpuinfo_max_freq")
            .unwrap_or(0)
            .max(socket.frequency_turbo);
        if socket.cache.is_empty() {
            socket.cache = caches(sys, &dir);
        }
        let die = topology("die_id").unwrap_or(0);
        let core = match socket
            .cores
            .iter()
            .position(|c| c.core == core_id && c.die == die)
        {
            Some(at) => &mut socket.cores[at],
            None => {
                socket.cores.push(Core {
                    core: core_id,
                    die,
                    threads: Vec::new(),
                    frequency: now,
                });
                socket.cores.last_mut().expect("one was pushed")
            }
        };
        core.threads.push(Thread {
            id,
            numa_node: nodes.get(&id).copied().unwrap_or(0),
            thread: core.threads.len() as u64,
            // cpu0 often has no such file: it cannot be taken offline.
            online: sys.number(format!("{dir}/online")).unwrap_or(1) == 1,
            isolated: isolated.contains(&id),
        });
        total += 1;
    }
    for socket in sockets.values_mut() {
        let known: Vec<u64> = socket
            .cores
            .iter()
            .map(|c| c.frequency)
            .filter(|f| *f > 0)
            .collect();
        socket.frequency = known.iter().sum::<u64>() / (known.len() as u64).max(1);
    }
    Cpu {
        architecture: architecture.to_owned(),
        sockets: sockets.into_values().collect(),
        total,
    }
}

fn caches(sys: &Sys, cpu: &str) -> Vec<Cache> {
    let mut out: Vec<Cache> = sys
        .list(format!("{cpu}/cache"))
        .into_iter()
        .filter(|n| n.starts_with("index"))
        .filter_map(|n| {
            Some(Cache {
                level: u64::try_from(sys.number(format!("{cpu}/cache/{n}/level"))?).ok()?,
                kind: sys.text(format!("{cpu}/cache/{n}/type"))?,
                size: cache_size(&sys.text(format!("{cpu}/cache/{n}/size"))?),
            })
        })
        .collect();
    out.sort_by(|a, b| (a.level, &a.kind).cmp(&(b.level, &b.kind)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(number_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert!(number_list("").is_empty() && number_list("x-y").is_empty());
        assert_eq!(cache_size("512K"), 524_288);
    }
}
