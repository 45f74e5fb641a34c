//! A machine as a list of machines describes it.

use std::collections::BTreeMap;

use metal::MacAddr;
use serde_json::{Map, Value};

use super::csv;

/// Architecture of machines of which the list says nothing.
pub const ARCHITECTURE: &str = "amd64/generic";
/// Machines in one list at most.
pub const MAX_MACHINES: usize = 20_000;

/// One machine of a list. What is `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Host name.
    pub name: Option<String>,
    /// MAC addresses; at least one.
    pub macs: Vec<MacAddr>,
    /// `ARCH/SUBARCH`.
    pub architecture: Option<String>,
    /// Power driver.
    pub power_type: Option<String>,
    /// Its parameters.
    pub power: BTreeMap<String, String>,
    /// Resource pool.
    pub pool: Option<String>,
    /// Zone.
    pub zone: Option<String>,
    /// DNS domain.
    pub domain: Option<String>,
    /// Tags that it is to have.
    pub tags: Vec<String>,
}

/// A place in the list and what stands there, or why it is no machine.
pub type Entry = (String, Result<Machine, String>);

/// Reads a list in CSV; the first row names the columns.
///
/// # Errors
/// When it is no such list.
pub fn from_csv(text: &str) -> Result<Vec<Entry>, String> {
    let mut rows = csv::rows(text)?.into_iter();
    let (_, head) = rows
        .next()
        .ok_or("the list is empty; the first row names the columns")?;
    let head: Vec<String> = head.iter().map(|h| h.to_lowercase()).collect();
    for name in &head {
        Machine::default().set(name, "")?;
    }
    Ok(rows
        .map(|(line, cells)| {
            let machine = if cells.len() > head.len() {
                Err(format!("{} cells, but {} columns", cells.len(), head.len()))
            } else {
                let mut m = Machine::default();
                head.iter()
                    .zip(&cells)
                    .try_for_each(|(name, value)| m.set(name, value))
                    .and_then(|()| m.checked())
            };
            (format!("line {line}"), machine)
        })
        .collect())
}

/// Reads a list in JSON: an array of objects, or an object whose `machines` is one.
///
/// # Errors
/// When it is no such list.
pub fn from_json(text: &str) -> Result<Vec<Entry>, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("this is no JSON: {e}"))?;
    let list = value
        .as_array()
        .or_else(|| value["machines"].as_array())
        .ok_or("an array of machines is wanted")?;
    Ok(list
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let machine = match v {
                Value::Object(o) => object(o),
                _ => Err("this is no object".to_owned()),
            };
            (format!("entry {}", i + 1), machine)
        })
        .collect())
}

fn object(o: &Map<String, Value>) -> Result<Machine, String> {
    let mut m = Machine::default();
    for (name, value) in o {
        match (name.as_str(), value) {
            ("power" | "power_parameters", Value::Object(power)) => {
                for (key, value) in power {
                    match key.as_str() {
                        "type" => m.set("power_type", &word(key, value)?)?,
                        key => m.set_power(key, &word(key, value)?),
                    }
                }
            }
            (_, Value::Array(list)) => {
                let all: Result<Vec<String>, String> = list.iter().map(|v| word(name, v)).collect();
                m.set(name, &all?.join(" "))?;
            }
            _ => m.set(name, &word(name, value)?)?,
        }
    }
    m.checked()
}

fn word(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        _ => Err(format!("{name} is neither text nor a number")),
    }
}

impl Machine {
    /// Sets what a column or key names.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = Some(value.trim().to_owned()).filter(|v| !v.is_empty());
        let words = || {
            value
                .split([' ', ',', ';', '|', '\n'])
                .filter(|w| !w.is_empty())
        };
        match name {
            "name" | "hostname" => self.name = text.map(|t| t.to_lowercase()),
            "mac" | "macs" | "mac_address" | "mac_addresses" => {
                for w in words() {
                    let mac = w.parse().map_err(|_| format!("{w} is not a MAC address"))?;
                    if !self.macs.contains(&mac) {
                        self.macs.push(mac);
                    }
                }
            }
            "architecture" | "arch" => {
                self.architecture = text.map(|t| {
                    if t.contains('/') {
                        t
                    } else {
                        format!("{t}/generic")
                    }
                });
            }
            "power_type" | "power" => self.power_type = text,
            "pool" | "resource_pool" => self.pool = text,
            "zone" => self.zone = text,
            "domain" => self.domain = text,
            "tags" | "tag_names" => self.tags = words().map(str::to_owned).collect(),
            _ => match name.strip_prefix("power_parameters_") {
                Some(key) => self.set_power(key, value),
                None if name.starts_with("power_") => self.set_power(name, value),
                None => {
                    return Err(format!(
                        "{name} is unknown; there are name, macs, architecture, power_type, power_address and other power_…, pool, zone, domain, tags"
                    ));
                }
            },
        }
        Ok(())
    }

    fn set_power(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            // `address` is what drivers call `power_address`.
            let key = if matches!(key, "address" | "user" | "pass" | "id") {
                format!("power_{key}")
            } else {
                key.to_owned()
            };
            self.power.insert(key, value.to_owned());
        }
    }

    fn checked(self) -> Result<Self, String> {
        if self.macs.is_empty() {
            return Err("it has no MAC address, by which it would be known again".to_owned());
        }
        if self.power_type.is_none() && !self.power.is_empty() {
            return Err("it has power parameters but no power_type".to_owned());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Machine {
        Machine {
            name: Some("n1".into()),
            macs: vec![
                "52:54:00:00:00:01".parse().unwrap(),
                "52:54:00:00:00:02".parse().unwrap(),
            ],
            architecture: Some("amd64/generic".into()),
            power_type: Some("ipmi".into()),
            power: [("power_address", "10.0.0.1"), ("power_pass", "a,b")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            pool: Some("lab".into()),
            tags: vec!["a".into(), "b".into()],
            ..Machine::default()
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let csv = "Name,MACs,arch,power_type,power_address,power_pass,pool,tags\n\
                   N1,\"52:54:00:00:00:01 52-54-00-00-00-02\",amd64,ipmi,10.0.0.1,\"a,b\",lab,a;b\n";
        let json = r#"{"machines": [{"hostname": "n1", "macs": ["52:54:00:00:00:01", "52:54:00:00:00:02"],
            "architecture": "amd64/generic", "power": {"type": "ipmi", "address": "10.0.0.1", "pass": "a,b"},
            "pool": "lab", "tags": ["a", "b"], "zone": null}]}"#;
        assert_eq!(from_csv(csv).unwrap(), [("line 2".into(), Ok(expected()))]);
        assert_eq!(
            from_json(json).unwrap(),
            [("entry 1".into(), Ok(expected()))]
        );
    }

    #[test]
    fn what_is_wrong_is_told_for_the_row_and_the_others_stay() {
        let list =
            from_csv("name,mac\na,nonsense\nb,\nc,52:54:00:00:00:01,x\nd,52:54:00:00:00:01\n");
        let said: Vec<String> = list
            .unwrap()
            .into_iter()
            .map(|(at, m)| format!("{at}: {}", m.err().unwrap_or_default()))
            .collect();
        assert_eq!(
            said,
            [
                "line 2: nonsense is not a MAC address",
                "line 3: it has no MAC address, by which it would be known again",
                "line 4: 3 cells, but 2 columns",
                "line 5: "
            ]
        );
        assert!(from_csv("name,colour\n").unwrap_err().contains("colour"));
        assert!(from_json("{}").is_err());
    }
}
