//! Answers for people: lists as tables, objects as names and values. Programs get the JSON as it came.

use serde_json::{Map, Value};

use crate::out;

/// Columns of a table at most.
const MAX_COLUMNS: usize = 8;
/// Characters of a cell at most.
const MAX_CELL: usize = 40;
/// Characters of a value of a single object at most.
const MAX_VALUE: usize = 200;

/// What a person looks for first, in this order; further columns follow in the order of the answer.
const FIRST: [&str; 30] = [
    "system_id",
    "id",
    "hostname",
    "fqdn",
    "name",
    "username",
    "title",
    "key",
    "status_name",
    "power_state",
    "owner",
    "architecture",
    "pool",
    "zone",
    "cidr",
    "start_ip",
    "end_ip",
    "ip",
    "vid",
    "type",
    "fabric",
    "vlan",
    "space",
    "mac_address",
    "size",
    "os",
    "release",
    "url",
    "email",
    "description",
];

/// Names of no use on a screen.
const NEVER: [&str; 3] = ["resource_uri", "keyring_data", "numanode_set"];

/// An answer as text for a person, or nothing where it is no JSON that a table makes easier to read.
#[must_use]
pub fn render(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    match &value {
        Value::Array(list) if list.is_empty() => Some("None.".to_owned()),
        Value::Array(list) => {
            let objects: Vec<&Map<String, Value>> =
                list.iter().filter_map(Value::as_object).collect();
            if objects.len() == list.len() {
                Some(table(&objects))
            } else {
                let lines: Vec<String> = list.iter().map(|v| cell(v, MAX_VALUE)).collect();
                Some(lines.join("\n"))
            }
        }
        // A page of something, as events have it.
        Value::Object(o) if o.contains_key("count") => {
            let mut lists = o.values().filter_map(Value::as_array);
            match (lists.next(), lists.next()) {
                (Some(list), None) if !list.is_empty() && list.iter().all(Value::is_object) => {
                    let objects: Vec<&Map<String, Value>> =
                        list.iter().filter_map(Value::as_object).collect();
                    Some(table(&objects))
                }
                _ => Some(object(o)),
            }
        }
        Value::Object(o) => Some(object(o)),
        Value::String(s) => Some(s.lines().map(out::printable).collect::<Vec<_>>().join("\n")),
        other => Some(other.to_string()),
    }
}

fn object(o: &Map<String, Value>) -> String {
    let rows: Vec<Vec<String>> = o
        .iter()
        .filter(|(k, _)| !NEVER.contains(&k.as_str()))
        .map(|(k, v)| vec![out::printable(k), cell(v, MAX_VALUE)])
        .collect();
    aligned(&rows)
}

fn table(rows: &[&Map<String, Value>]) -> String {
    let columns = columns(rows);
    let mut cells = vec![columns.iter().map(|c| c.to_uppercase()).collect::<Vec<_>>()];
    for row in rows {
        let line = columns.iter();
        cells.push(
            line.map(|c| row.get(*c).map_or_else(String::new, |v| cell(v, MAX_CELL)))
                .collect(),
        );
    }
    aligned(&cells)
}

/// The names worth a column: present in a short form in some row, the important ones first.
fn columns<'a>(rows: &[&'a Map<String, Value>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        for (name, value) in *row {
            let useful = !NEVER.contains(&name.as_str())
                && (is_short(value) || FIRST.contains(&name.as_str()));
            if useful && !value.is_null() && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let rank = |n: &str| FIRST.iter().position(|f| *f == n).unwrap_or(FIRST.len());
    names.sort_by_key(|n| rank(n));
    names.truncate(MAX_COLUMNS);
    names
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(a) => a.iter().all(|v| !v.is_object() && !v.is_array()),
        Value::String(s) => !s.contains('\n'),
        _ => true,
    }
}

/// A value in one line.
fn cell(value: &Value, most: usize) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Array(a) if is_short(value) => {
            let all: Vec<String> = a.iter().map(|v| cell(v, most)).collect();
            all.join(", ")
        }
        Value::Array(a) => {
            let names: Vec<String> = a
                .iter()
                .filter_map(|v| v.get("name").map(|n| cell(n, most)))
                .collect();
            if names.len() == a.len() {
                names.join(", ")
            } else {
                format!("{} entries", a.len())
            }
        }
        Value::Object(o) => match o.get("name").or_else(|| o.get("id")) {
            Some(name) => cell(name, most),
            None => value.to_string(),
        },
        other => other.to_string(),
    };
    let text = out::printable(&text);
    if text.chars().count() > most {
        let mut short: String = text.chars().take(most - 1).collect();
        short.push('…');
        short
    } else {
        text
    }
}

/// Rows with their columns one below the other.
#[must_use]
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|r| r.get(i));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells.map(|(c, w)| format!("{c:<w$}")).collect();
            line.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_table_with_what_matters_first() {
        let body = br#"[
            {"comment": "x", "name": "default", "id": 0, "zone": {"id": 1, "name": "z"}, "resource_uri": "/a/"},
            {"comment": null, "name": "lab\u001b[2J", "id": 12, "zone": null, "parts": [{"a": 1}]}]"#;
        assert_eq!(
            render(body).unwrap(),
            "ID  NAME     ZONE  COMMENT\n0   default  z     x\n12  lab·[2J"
        );
        assert_eq!(render(b"[]").unwrap(), "None.");
        assert_eq!(render(br#"["a", "b"]"#).unwrap(), "a\nb");
    }

    #[test]
    fn an_object_becomes_names_and_values() {
        let body = br#"{"name": "n", "tags": ["a", "b"], "vlan": {"id": 5}, "set": [{"x": 1}], "resource_uri": "/"}"#;
        assert_eq!(
            render(body).unwrap(),
            "name  n\ntags  a, b\nvlan  5\nset   1 entries"
        );
        let page = br#"{"count": 1, "events": [{"id": 3, "description": "d"}]}"#;
        assert_eq!(render(page).unwrap(), "ID  DESCRIPTION\n3   d");
        assert_eq!(render(b"\"x\"").unwrap(), "x");
        assert!(render(b"plain text").is_none());
    }

    #[test]
    fn a_long_value_is_cut() {
        let body = format!("[{{\"name\": \"{}\"}}]", "a".repeat(500));
        let text = render(body.as_bytes()).unwrap();
        assert!(text.lines().all(|l| l.chars().count() <= MAX_CELL));
    }
}
