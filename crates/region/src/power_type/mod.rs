//! Power types: what is known about each way of switching a machine's power, for forms and for clients.
//! Which of them a rack can carry out is the rack's matter.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

/// The description of all types, as clients read it: facts on MAAS's drivers.
const TYPES: &str = include_str!("types.json");

/// A power type.
#[derive(Clone, Debug, Deserialize)]
pub struct PowerType {
    /// The word in requests.
    pub name: String,
    /// In words.
    pub description: String,
    /// Its parameters.
    pub fields: Vec<Field>,
    /// Whether several machines share one controller.
    pub chassis: bool,
    /// Whether the machines of a controller can be listed.
    pub can_probe: bool,
}

/// A parameter of a power type.
#[derive(Clone, Debug, Deserialize)]
pub struct Field {
    /// The word in requests.
    pub name: String,
    /// Whether it must be given.
    pub required: bool,
    /// `string`, `password`, `choice`, …
    pub field_type: String,
    /// What it may be, each with its text.
    pub choices: Vec<(String, String)>,
    /// What it is when it is left out.
    pub default: Value,
    /// Whether it is a credential.
    pub secret: bool,
}

impl Field {
    /// Whether a machine cannot do without it: it must be given, and nothing stands in for it.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.required && self.default.as_str().is_none_or(str::is_empty)
    }
}

static ALL: LazyLock<Vec<PowerType>> =
    LazyLock::new(|| serde_json::from_str(TYPES).unwrap_or_default());

/// Every power type.
#[must_use]
pub fn all() -> &'static [PowerType] {
    &ALL
}

/// The power type of a word.
#[must_use]
pub fn find(name: &str) -> Option<&'static PowerType> {
    ALL.iter().find(|t| t.name == name)
}

/// All types as `describe_power_types` shows them.
#[must_use]
pub fn json() -> Value {
    serde_json::from_str(TYPES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_and_says_what_it_needs() {
        assert_eq!(all().len(), 24);
        assert!(json().as_array().is_some_and(|a| a.len() == 24));
        let needs = |name: &str| -> Vec<&str> {
            let t = find(name).unwrap();
            t.fields
                .iter()
                .filter(|f| f.is_needed())
                .map(|f| f.name.as_str())
                .collect()
        };
        assert_eq!(needs("ipmi"), ["power_address"]);
        assert_eq!(needs("virsh"), ["power_address", "power_id"]);
        assert!(needs("manual").is_empty());
        for t in all() {
            for f in t.fields.iter().filter(|f| f.field_type == "choice") {
                let fits = f
                    .choices
                    .iter()
                    .any(|(c, _)| Some(c.as_str()) == f.default.as_str());
                assert!(fits, "{}.{}", t.name, f.name);
            }
        }
    }
}
