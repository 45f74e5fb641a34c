//! Writing YAML: block style, every text quoted where a reader could take it for something else.

use serde_json::Value;

/// Whether a text means itself without quotes to YAML 1.1 and 1.2 readers alike.
fn plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(safe)
        && !WORDS.contains(&text.to_lowercase().as_str())
}

/// A text as a scalar. JSON's string literal is a YAML double-quoted scalar.
#[must_use]
pub fn scalar(text: &str) -> String {
    if plain(text) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

fn write(out: &mut String, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{pad}{}:", scalar(key)));
                nested(out, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&format!("{pad}-"));
                nested(out, item, depth);
            }
        }
        other => out.push_str(&format!("{pad}{}\n", leaf(other))),
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    let deep = matches!(value, Value::Object(m) if !m.is_empty())
        || matches!(value, Value::Array(a) if !a.is_empty());
    if deep {
        out.push('\n');
        write(out, value, depth + 1);
    } else {
        out.push_str(&format!(" {}\n", leaf(value)));
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(s) => scalar(s),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A document.
#[must_use]
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    #[test]
    fn it_looks_as_people_write_it() {
        let value = json!({"network": {"version": 2, "ethernets": {"eth0": {"addresses": ["10.0.0.1/24"], "dhcp4": false, "match": {"macaddress": "52:54:00:00:00:01"}, "x": {}}}}});
        assert_eq!(
            document(&value),
            "network:\n  version: 2\n  ethernets:\n    eth0:\n      addresses:\n        - \"10.0.0.1/24\"\n      dhcp4: false\n      match:\n        macaddress: \"52:54:00:00:00:01\"\n      x: {}\n"
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            prop_oneof!["no", "off", "1e3", "0x10", "12:30:45", "~", "2001-01-01"]
                .prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[a-z0-9:.-]{1,8}", inner), 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect::<Map<_, _>>()))
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            let value = json!({ "top": value });
            let text = document(&value);
            let back: Value = serde_saphyr::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!(back, value, "{}", text);
        }
    }
}
