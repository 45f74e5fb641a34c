//! Parameters of a script, as arguments of its command line.

use std::fmt::Display;
use std::time::Duration;

use serde_json::Value;

use super::index::Script;
use crate::block;
use crate::inventory::network;
use crate::sys::Sys;

/// A parameter that names something this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A disk.
    #[error("parameter '{parameter}': this machine has no disk '{wanted}'; it has: {present}")]
    NoDisk {
        /// Which parameter.
        parameter: String,
        /// What it names.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// An interface.
    #[error(
        "parameter '{parameter}': this machine has no interface with address '{wanted}'; it has: {present}"
    )]
    NoInterface {
        /// Which parameter.
        parameter: String,
        /// What it names.
        wanted: String,
        /// What there is.
        present: String,
    },
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn member(value: &Value, key: &str) -> String {
    value.get(key).map(text).unwrap_or_default()
}

fn join<T: Display>(items: impl Iterator<Item = T>) -> String {
    let all: Vec<String> = items.map(|i| i.to_string()).collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

/// Replaces `{name}` for the names given; everything else stays as it is.
fn fill(format: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let known = rest.find('}').and_then(|close| {
            values
                .iter()
                .find(|(k, _)| *k == &rest[1..close])
                .map(|(_, v)| (close, *v))
        });
        match known {
            Some((close, value)) => {
                out.push_str(value);
                rest = &rest[close + 1..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The arguments of a script. A format with spaces makes several arguments; a filled-in value never does.
///
/// # Errors
/// When a parameter names a disk or an interface that is not there.
pub fn arguments(script: &Script, sys: &Sys) -> Result<Vec<String>, ParameterError> {
    let mut out = Vec::new();
    for (name, parameter) in &script.parameters {
        let kind = member(parameter, "type");
        let value = parameter
            .get("value")
            .filter(|v| !v.is_null())
            .or_else(|| parameter.get("default"))
            .unwrap_or(&Value::Null);
        if value.is_null()
            || (value.as_str() == Some("")
                && !parameter
                    .get("required")
                    .and_then(Value::as_bool)
                    .unwrap_or(true))
        {
            continue;
        }
        let given = parameter
            .get("argument_format")
            .and_then(Value::as_str)
            .filter(|f| !f.is_empty());
        let standard = match kind.as_str() {
            "storage" => format!("--{name}={{path}}"),
            "interface" => format!("--{name}={{name}}"),
            _ => format!("--{name}={{input}}"),
        };
        let format = given.unwrap_or(&standard);
        let mut add = |values: &[(&str, &str)]| {
            out.extend(format.split_whitespace().map(|word| fill(word, values)))
        };
        match kind.as_str() {
            "storage" => {
                let disk = find_disk(sys, name, value)?;
                let (path, model, serial) = (
                    disk.path(),
                    disk.model.clone().unwrap_or_default(),
                    disk.serial.clone().unwrap_or_default(),
                );
                add(&[
                    ("input", &path),
                    ("path", &path),
                    ("name", &disk.name),
                    ("model", &model),
                    ("serial", &serial),
                ]);
            }
            "interface" => {
                let (interface, mac) = find_interface(sys, name, value)?;
                let (vendor, product) = (member(value, "vendor"), member(value, "product"));
                add(&[
                    ("input", &interface),
                    ("name", &interface),
                    ("mac_address", &mac),
                    ("vendor", &vendor),
                    ("product", &product),
                ]);
            }
            "boolean" if !format.contains("{input}") => {
                if matches!(
                    text(value).to_lowercase().as_str(),
                    "true" | "yes" | "on" | "1"
                ) {
                    add(&[]);
                }
            }
            _ => {
                let value = text(value);
                add(&[("input", &value)]);
            }
        }
    }
    Ok(out)
}

fn find_disk(sys: &Sys, parameter: &str, value: &Value) -> Result<block::Disk, ParameterError> {
    let disks = block::disks(sys);
    let (serial, model) = (member(value, "serial"), member(value, "model"));
    let name = if value.is_string() {
        text(value)
    } else {
        member(value, "name")
    };
    let id_path = member(value, "id_path");
    let found = disks
        .iter()
        .find(|d| {
            !serial.is_empty()
                && d.serial.as_deref() == Some(&serial)
                && (model.is_empty() || d.model.as_deref().is_none_or(|m| m == model))
        })
        .or_else(|| {
            disks
                .iter()
                .find(|d| !serial.is_empty() && d.serial.as_deref() == Some(&serial))
        })
        .or_else(|| {
            disks.iter().find(|d| {
                d.by_id
                    .as_ref()
                    .is_some_and(|i| id_path == format!("/dev/disk/by-id/{i}"))
            })
        })
        // By its name only where nothing better was given: names move between boots.
        .or_else(|| {
            disks.iter().find(|d| {
                serial.is_empty() && !name.is_empty() && (d.name == name || d.path() == name)
            })
        });
    found.cloned().ok_or_else(|| ParameterError::NoDisk {
        parameter: parameter.to_owned(),
        wanted: if serial.is_empty() { name } else { serial },
        present: join(disks.iter().map(|d| {
            format!(
                "{} ({})",
                d.name,
                d.serial.as_deref().unwrap_or("no serial number")
            )
        })),
    })
}

fn find_interface(
    sys: &Sys,
    parameter: &str,
    value: &Value,
) -> Result<(String, String), ParameterError> {
    let present = network::physical(sys);
    let wanted = if value.is_string() {
        text(value)
    } else {
        member(value, "mac_address")
    }
    .to_lowercase();
    let found = present
        .iter()
        .find(|(name, mac)| *mac == wanted || *name == wanted);
    found.cloned().ok_or_else(|| ParameterError::NoInterface {
        parameter: parameter.to_owned(),
        wanted,
        present: join(present.iter().map(|(n, m)| format!("{n} ({m})"))),
    })
}

/// How long a script may run: its `runtime` parameter, else its timeout; none is without limit.
#[must_use]
pub fn time_limit(script: &Script) -> Option<Duration> {
    let runtime = script
        .parameters
        .values()
        .find(|p| member(p, "type") == "runtime")
        .and_then(|p| {
            let value = p
                .get("value")
                .filter(|v| !v.is_null())
                .or_else(|| p.get("default"))?;
            seconds(&text(value))
        });
    let limit = runtime.unwrap_or(script.timeout_seconds);
    (limit > 0.0)
        .then(|| Duration::try_from_secs_f64(limit).ok())
        .flatten()
}

/// Seconds of `90`, `1.5` or `HH:MM:SS`.
fn seconds(text: &str) -> Option<f64> {
    let mut total = 0.0;
    for part in text.trim().split(':') {
        total = total * 60.0
            + part
                .parse::<f64>()
                .ok()
                .filter(|n| n.is_finite() && *n >= 0.0)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(parameters: Value) -> Script {
        serde_json::from_value(serde_json::json!({"name": "s", "path": "s", "timeout_seconds": 30, "parameters": parameters})).unwrap()
    }

    #[test]
    fn values_become_arguments_in_order() {
        let s = script(serde_json::json!({
            "url": {"type": "url", "value": ["http://a", "http://b c"]},
            "count": {"type": "string", "default": 3, "argument_format": "-n {input} --of {other}"},
            "quick": {"type": "boolean", "value": true, "argument_format": "--quick"},
            "slow": {"type": "boolean", "value": false, "argument_format": "--slow"},
            "none": {"type": "string", "value": null},
        }));
        let got = arguments(&s, &Sys::new("/nonexistent")).unwrap();
        assert_eq!(
            got,
            [
                "--url=http://a,http://b c",
                "-n",
                "3",
                "--of",
                "{other}",
                "--quick"
            ]
        );
    }

    #[test]
    fn a_disk_that_is_not_there_is_named() {
        let s = script(
            serde_json::json!({"storage": {"type": "storage", "value": {"name": "sda", "serial": "S1"}}}),
        );
        let error = arguments(&s, &Sys::new("/nonexistent")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "parameter 'storage': this machine has no disk 'S1'; it has: none"
        );
    }

    #[test]
    fn the_runtime_parameter_is_the_limit() {
        assert_eq!(
            time_limit(&script(serde_json::json!({}))),
            Some(Duration::from_secs(30))
        );
        assert_eq!(
            time_limit(&script(
                serde_json::json!({"runtime": {"type": "runtime", "value": "00:02:05"}})
            )),
            Some(Duration::from_secs(125))
        );
        assert_eq!(
            time_limit(&script(
                serde_json::json!({"runtime": {"type": "runtime", "value": 0}})
            )),
            None
        );
    }
}
