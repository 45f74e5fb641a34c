//! The list of scripts in the archive: `index.json`, key `1.0`.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Most scripts of one kind that are run.
pub const SCRIPTS_MAX: usize = 1024;

/// The scripts by phase.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Index {
    /// Run first.
    #[serde(default)]
    pub commissioning_scripts: Vec<Script>,
    /// Run after commissioning.
    #[serde(default)]
    pub testing_scripts: Vec<Script>,
    /// Run when a machine is given back.
    #[serde(default)]
    pub release_scripts: Vec<Script>,
    /// Run around a deployment.
    #[serde(default)]
    pub deployment_scripts: Vec<Script>,
}

/// What may run beside a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parallel {
    /// Nothing.
    Disabled,
    /// Other instances of itself.
    Instance,
    /// Every other script of this kind.
    Any,
}

/// One script to run, for one set of parameters.
#[derive(Clone, Debug, Deserialize)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// Where its body is in the archive.
    pub path: String,
    /// The result it belongs to; none for a machine that is not known yet.
    #[serde(default)]
    pub script_result_id: Option<i64>,
    /// Its version.
    #[serde(default)]
    pub script_version_id: Option<i64>,
    /// Seconds it may take; 0 is without limit.
    #[serde(default, deserialize_with = "seconds")]
    pub timeout_seconds: f64,
    /// 0, 1 or 2: see [`Parallel`].
    #[serde(default)]
    pub parallel: u8,
    /// 0 node, 1 cpu, 2 memory, 3 storage, 4 network, 5 gpu.
    #[serde(default)]
    pub hardware_type: u8,
    /// Its parameters, in order.
    #[serde(default, deserialize_with = "object")]
    pub parameters: Map<String, Value>,
    /// Packages it needs, by kind.
    #[serde(default, deserialize_with = "object")]
    pub packages: Map<String, Value>,
    /// Whether it runs with the network that the machine is to have.
    #[serde(default)]
    pub apply_configured_networking: bool,
    /// Whether it ran before and was cut off (it may reboot the machine).
    #[serde(default)]
    pub has_started: bool,
    /// Whether it is done.
    #[serde(default)]
    pub has_finished: bool,
}

fn seconds<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    let value = Option::<f64>::deserialize(d)?.unwrap_or(0.0);
    Ok(if value.is_finite() && value > 0.0 {
        value
    } else {
        0.0
    })
}

fn object<'de, D: Deserializer<'de>>(d: D) -> Result<Map<String, Value>, D::Error> {
    // Absent and empty come as null, {} or [], depending on the region's version.
    Ok(match Value::deserialize(d)? {
        Value::Object(map) => map,
        _ => Map::new(),
    })
}

impl Script {
    /// What may run beside it.
    #[must_use]
    pub fn class(&self) -> Parallel {
        match self.parallel {
            1 => Parallel::Instance,
            2 => Parallel::Any,
            _ => Parallel::Disabled,
        }
    }

    /// Name of its files: unique among the scripts of an archive.
    #[must_use]
    pub fn file_stem(&self) -> String {
        let name: String = self
            .name
            .chars()
            .map(|c| {
                if c.is_alphanumeric() || "-_.".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        match self.script_result_id {
            Some(id) => format!("{name}.{id}"),
            None => name,
        }
    }
}

/// Puts scripts into the groups that run one after the other; a group runs together.
///
/// Within a class they are sorted by hardware type, whole-machine scripts last, then by name; the
/// one-at-a-time ones come first, then the instances of each script, then all others at once.
#[must_use]
pub fn groups(scripts: &[Script]) -> Vec<Vec<&Script>> {
    let mut todo: Vec<&Script> = scripts
        .iter()
        .filter(|s| !s.has_finished)
        .take(SCRIPTS_MAX)
        .collect();
    todo.sort_by_key(|s| {
        (
            s.class(),
            if s.hardware_type == 0 {
                u8::MAX
            } else {
                s.hardware_type
            },
            s.name.clone(),
            s.script_result_id,
        )
    });
    let mut out: Vec<Vec<&Script>> = Vec::new();
    for script in todo {
        let joins = out.last().and_then(|g| g.first()).is_some_and(|first| {
            first.class() == script.class()
                && match script.class() {
                    Parallel::Disabled => false,
                    Parallel::Instance => first.name == script.name,
                    Parallel::Any => true,
                }
        });
        match out.last_mut() {
            Some(group) if joins => group.push(script),
            _ => out.push(vec![script]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(name: &str, parallel: u8, hardware_type: u8) -> Script {
        serde_json::from_value(serde_json::json!({"name": name, "path": name, "parallel": parallel, "hardware_type": hardware_type})).unwrap()
    }

    #[test]
    fn scripts_run_in_the_published_order() {
        let scripts = [
            script("z-any", 2, 0),
            script("b-node", 0, 0),
            script("disk", 1, 3),
            script("a-any", 2, 1),
            script("disk", 1, 3),
            script("a-node", 0, 0),
            script("other", 1, 3),
            script("mem", 0, 2),
        ];
        let names: Vec<Vec<&str>> = groups(&scripts)
            .iter()
            .map(|g| g.iter().map(|s| s.name.as_str()).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["mem"],
                vec!["a-node"],
                vec!["b-node"],
                vec!["disk", "disk"],
                vec!["other"],
                vec!["a-any", "z-any"]
            ]
        );
    }

    #[test]
    fn odd_values_of_an_index_are_taken_as_nothing() {
        let s: Script =
            serde_json::from_str(r#"{"name": "a/b", "path": "p", "timeout_seconds": null, "parameters": [], "packages": null, "script_result_id": 4, "x": 1}"#)
                .unwrap();
        assert_eq!(
            (
                s.timeout_seconds,
                s.parameters.len(),
                s.file_stem().as_str()
            ),
            (0.0, 0, "a_b.4")
        );
    }

    #[test]
    fn finished_scripts_do_not_run_again() {
        let mut done = script("a", 0, 0);
        done.has_finished = true;
        assert!(groups(&[done]).is_empty());
    }
}
