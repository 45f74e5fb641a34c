//! What a script says of itself: YAML in its comments, between two marker lines.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Most bytes of a script's YAML.
const MAX_YAML: usize = 64 << 10;
/// Longest name of a script.
const MAX_NAME: usize = 255;
const START: &str = "--- Start MAAS 1.0 script metadata ---";
const END: &str = "--- End MAAS 1.0 script metadata ---";

/// A script as it declares itself. Numbers are those of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Name; none when the script does not say.
    pub name: Option<String>,
    /// Title.
    pub title: String,
    /// Description.
    pub description: String,
    /// Tags as written, without those that every script gets.
    pub tags: Vec<String>,
    /// 0 commissioning, 2 testing, 3 release, 4 deployment.
    pub script_type: i64,
    /// 0 node, 1 cpu, 2 memory, 3 storage, 4 network, 5 gpu.
    pub hardware_type: i64,
    /// 0 no, 1 instances of itself, 2 any.
    pub parallel: i64,
    /// Results by name.
    pub results: Value,
    /// Parameters by name.
    pub parameters: Map<String, Value>,
    /// Packages by kind.
    pub packages: Map<String, Value>,
    /// Seconds it may take; 0 is without limit.
    pub timeout: i64,
    /// Whether it destroys data.
    pub destructive: bool,
    /// Whether it may reboot the machine.
    pub may_reboot: bool,
    /// Whether the built-in scripts run again afterwards.
    pub recommission: bool,
    /// Hardware that it is for.
    pub for_hardware: Vec<String>,
    /// Whether it runs with the network that the machine is to have.
    pub apply_configured_networking: bool,
    /// Comment of this version.
    pub comment: String,
    /// The keys that it says anything about.
    pub said: Vec<&'static str>,
}

/// Metadata that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// No `#!`.
    #[error("Must start with shebang.")]
    NoShebang,
    /// Start without end, or too much between them.
    #[error("The metadata block has no end, or is too long.")]
    Open,
    /// Not YAML.
    #[error("Invalid YAML in the metadata block.")]
    Yaml,
    /// A key with a value that it cannot have.
    #[error("{key}: {why}")]
    Key {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

fn wrong(key: &'static str, why: impl Into<String>) -> MetaError {
    MetaError::Key {
        key,
        why: why.into(),
    }
}

/// The keys as they are written; what each may hold is checked afterwards, so that the message names it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    name: Option<Value>,
    title: Option<Value>,
    description: Option<Value>,
    tags: Option<Value>,
    script_type: Option<Value>,
    hardware_type: Option<Value>,
    parallel: Option<Value>,
    results: Option<Value>,
    parameters: Option<Value>,
    packages: Option<Value>,
    timeout: Option<Value>,
    destructive: Option<Value>,
    may_reboot: Option<Value>,
    recommission: Option<Value>,
    for_hardware: Option<Value>,
    apply_configured_networking: Option<Value>,
    comment: Option<Value>,
}

impl Raw {
    fn said(&self) -> Vec<&'static str> {
        let keys = [
            ("title", &self.title),
            ("description", &self.description),
            ("tags", &self.tags),
            ("script_type", &self.script_type),
            ("hardware_type", &self.hardware_type),
            ("parallel", &self.parallel),
            ("packages", &self.packages),
            ("timeout", &self.timeout),
            ("destructive", &self.destructive),
            ("may_reboot", &self.may_reboot),
            ("recommission", &self.recommission),
            ("for_hardware", &self.for_hardware),
            (
                "apply_configured_networking",
                &self.apply_configured_networking,
            ),
        ];
        keys.into_iter()
            .filter(|(_, v)| v.as_ref().is_some_and(|v| !v.is_null()))
            .map(|(k, _)| k)
            .collect()
    }
}

/// The number that a word, or the number itself, stands for.
#[must_use]
pub fn number_of(words: &[(&str, i64)], text: &str) -> Option<i64> {
    words
        .iter()
        .find(|(w, n)| w.eq_ignore_ascii_case(text) || n.to_string() == text)
        .map(|(_, n)| *n)
}

/// Seconds, or `HH:MM:SS`, as seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<i64> {
    duration(Some(Value::String(text.to_owned()))).ok()
}

/// The YAML between the markers; empty when there are none.
fn block(body: &str) -> Result<String, MetaError> {
    let mut out: Option<String> = None;
    for line in body.lines() {
        let Some(comment) = line.strip_prefix('#') else {
            // Only comments belong to the block; anything else between them is the script's own.
            continue;
        };
        let text = comment.strip_prefix(' ').unwrap_or(comment).trim_end();
        match &mut out {
            None if text.trim() == START => out = Some(String::new()),
            None => {}
            Some(yaml) if text.trim() == END => return Ok(std::mem::take(yaml)),
            Some(yaml) => {
                yaml.push_str(text);
                yaml.push('\n');
                if yaml.len() > MAX_YAML {
                    return Err(MetaError::Open);
                }
            }
        }
    }
    match out {
        None => Ok(String::new()),
        Some(_) => Err(MetaError::Open),
    }
}

fn text(key: &'static str, value: Option<Value>) -> Result<String, MetaError> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(s)) => Ok(s),
        Some(Value::Number(n)) => Ok(n.to_string()),
        Some(_) => Err(wrong(key, "Enter text.")),
    }
}

fn flag(key: &'static str, value: Option<Value>) -> Result<bool, MetaError> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(b)) => Ok(b),
        Some(Value::String(s)) => {
            crate::args::parse_bool(&s).ok_or_else(|| wrong(key, "Enter true or false."))
        }
        Some(_) => Err(wrong(key, "Enter true or false.")),
    }
}

/// A list, or a text with commas between.
fn texts(key: &'static str, value: Option<Value>) -> Result<Vec<String>, MetaError> {
    let split = |s: &str| {
        s.split(',')
            .map(|t| t.trim().to_owned())
            .filter(|t| !t.is_empty())
            .collect::<Vec<_>>()
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(s)) => Ok(split(&s)),
        Some(Value::Array(list)) => list.into_iter().map(|v| text(key, Some(v))).collect(),
        Some(_) => Err(wrong(key, "Enter a list.")),
    }
}

fn object(key: &'static str, value: Option<Value>) -> Result<Map<String, Value>, MetaError> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(wrong(key, "Enter a mapping.")),
    }
}

/// A word or its number.
fn choice(
    key: &'static str,
    value: Option<Value>,
    words: &[(&str, i64)],
    default: i64,
) -> Result<i64, MetaError> {
    let found = match &value {
        None | Some(Value::Null) => return Ok(default),
        Some(Value::Number(n)) => n.as_i64().and_then(|n| words.iter().find(|(_, w)| *w == n)),
        Some(Value::String(s)) => words
            .iter()
            .find(|(w, n)| w.eq_ignore_ascii_case(s) || n.to_string() == *s),
        Some(_) => None,
    };
    found.map(|(_, n)| *n).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
        wrong(key, format!("Must be one of: {}.", known.join(", ")))
    })
}

/// Seconds, or `HH:MM:SS`.
fn duration(value: Option<Value>) -> Result<i64, MetaError> {
    let bad = || wrong("timeout", "Enter seconds or HH:MM:SS.");
    match value {
        None | Some(Value::Null) => Ok(0),
        Some(Value::Number(n)) => n.as_i64().filter(|n| *n >= 0).ok_or_else(bad),
        Some(Value::String(s)) => {
            let mut total = 0i64;
            for part in s.trim().split(':') {
                let n: i64 = part.parse().ok().filter(|n| *n >= 0).ok_or_else(bad)?;
                total = total
                    .checked_mul(60)
                    .and_then(|t| t.checked_add(n))
                    .ok_or_else(bad)?;
            }
            Ok(total)
        }
        Some(_) => Err(bad()),
    }
}

/// Whether a name can be a script's.
#[must_use]
pub fn name_fits(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || "_-.".contains(c))
}

/// Types of scripts, in the words of the API.
pub const TYPES: &[(&str, i64)] = &[
    ("commissioning", 0),
    ("testing", 2),
    ("test", 2),
    ("release", 3),
    ("deployment", 4),
];
/// Kinds of hardware, in the words of the API.
pub const HARDWARE: &[(&str, i64)] = &[
    ("node", 0),
    ("cpu", 1),
    ("memory", 2),
    ("storage", 3),
    ("network", 4),
    ("gpu", 5),
];
/// Beside what scripts may run, in the words of the API.
pub const PARALLEL: &[(&str, i64)] = &[("disabled", 0), ("instance", 1), ("any", 2)];

/// Reads what a script declares.
///
/// # Errors
/// When the block is not YAML, or a key has a value that it cannot have.
pub fn parse(body: &str) -> Result<Declared, MetaError> {
    if !body.starts_with("#!") {
        return Err(MetaError::NoShebang);
    }
    let yaml = block(body)?;
    let raw: Raw = if yaml.trim().is_empty() {
        Raw::default()
    } else {
        serde_saphyr::from_str(&yaml).map_err(|_| MetaError::Yaml)?
    };
    let said = raw.said();
    let name = match raw.name {
        None | Some(Value::Null) => None,
        given => Some(text("name", given)?).filter(|n| !n.is_empty()),
    };
    if let Some(n) = &name
        && !name_fits(n)
    {
        return Err(wrong("name", "Use letters, digits, '-', '_' and '.' only."));
    }
    let results = match raw.results {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(v @ (Value::Object(_) | Value::Array(_))) => v,
        Some(_) => return Err(wrong("results", "Enter a mapping or a list of names.")),
    };
    let script_type = choice("script_type", raw.script_type, TYPES, super::TESTING)?;
    let may_reboot = flag("may_reboot", raw.may_reboot)?;
    if may_reboot && script_type != super::COMMISSIONING {
        return Err(wrong(
            "may_reboot",
            "Only commissioning scripts may reboot.",
        ));
    }
    Ok(Declared {
        name,
        title: text("title", raw.title)?,
        description: text("description", raw.description)?,
        tags: texts("tags", raw.tags)?,
        script_type,
        hardware_type: choice("hardware_type", raw.hardware_type, HARDWARE, 0)?,
        parallel: choice("parallel", raw.parallel, PARALLEL, 0)?,
        results,
        parameters: object("parameters", raw.parameters)?,
        packages: object("packages", raw.packages)?,
        timeout: duration(raw.timeout)?,
        destructive: flag("destructive", raw.destructive)?,
        may_reboot,
        recommission: flag("recommission", raw.recommission)?,
        for_hardware: texts("for_hardware", raw.for_hardware)?,
        apply_configured_networking: flag(
            "apply_configured_networking",
            raw.apply_configured_networking,
        )?,
        comment: text("comment", raw.comment)?,
        said,
    })
}

impl Declared {
    /// Its tags with those that every script gets: its type and its hardware.
    #[must_use]
    pub fn all_tags(&self) -> Vec<String> {
        let word = |words: &[(&str, i64)], n: i64| {
            words
                .iter()
                .find(|(_, w)| *w == n)
                .map(|(w, _)| (*w).to_owned())
        };
        let mut tags = self.tags.clone();
        for t in [
            word(TYPES, self.script_type),
            word(HARDWARE, self.hardware_type),
        ]
        .into_iter()
        .flatten()
        {
            if !tags.contains(&t) {
                tags.push(t);
            }
        }
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(yaml: &str) -> String {
        let lines: String = yaml.lines().map(|l| format!("# {l}\n")).collect();
        format!("#!/bin/sh\n# about it\n# {START}\n{lines}# {END}\necho hi\n")
    }

    #[test]
    fn a_full_block_is_read() {
        let d = parse(&with(
            "name: disk-check\ntitle: Disk check\ntags: [a, b]\nscript_type: test\nhardware_type: storage\nparallel: instance\n\
             parameters:\n  storage: {type: storage}\npackages: {apt: [smartmontools]}\ntimeout: 00:05:00\ndestructive: true\n\
             for_hardware: [\"pci:10de:*\"]\nresults: {speed: {title: Speed}}\ncomment: first",
        ))
        .unwrap();
        assert_eq!(d.name.as_deref(), Some("disk-check"));
        assert_eq!(
            (d.script_type, d.hardware_type, d.parallel, d.timeout),
            (2, 3, 1, 300)
        );
        assert_eq!(d.all_tags(), ["a", "b", "testing", "storage"]);
        assert!(d.destructive && !d.may_reboot);
        assert_eq!(Value::Object(d.packages), json!({"apt": ["smartmontools"]}));
        assert_eq!(d.for_hardware, ["pci:10de:*"]);
    }

    #[test]
    fn a_script_without_block_is_a_test_of_the_node() {
        let d = parse("#!/bin/sh\ntrue\n").unwrap();
        assert_eq!(
            (d.name, d.script_type, d.hardware_type, d.timeout),
            (None, 2, 0, 0)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse("true"), Err(MetaError::NoShebang));
        assert_eq!(
            parse(&format!("#!/bin/sh\n# {START}\n# name: x\n")),
            Err(MetaError::Open)
        );
        assert_eq!(parse(&with("a: [")), Err(MetaError::Yaml));
        let key = |yaml: &str| match parse(&with(yaml)) {
            Err(MetaError::Key { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        for (yaml, expected) in [
            ("script_type: 9", "script_type"),
            ("hardware_type: disk", "hardware_type"),
            ("timeout: soon", "timeout"),
            ("timeout: -1", "timeout"),
            ("name: a/b", "name"),
            ("destructive: maybe", "destructive"),
            ("parameters: [x]", "parameters"),
            ("may_reboot: true", "may_reboot"),
        ] {
            assert_eq!(key(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn tags_may_be_a_text_and_types_numbers() {
        let d = parse(&with(
            "tags: one, two\nscript_type: 0\nmay_reboot: yes\ntimeout: 90",
        ))
        .unwrap();
        assert_eq!(d.tags, ["one", "two"]);
        assert_eq!((d.script_type, d.timeout, d.may_reboot), (0, 90, true));
    }
}
