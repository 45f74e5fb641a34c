//! YAML for cloud-init, which reads version 1.1: every text is quoted, so that none is taken for a
//! number, a truth value or a time.

use serde_json::Value;

/// A document with its `#cloud-config` line.
#[must_use]
pub fn cloud_config(value: &Value) -> String {
    format!("#cloud-config\n{}", document(value))
}

/// A document.
#[must_use]
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

fn key(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    // The words that YAML 1.1 takes for truth values or nothing.
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    if plain && !word {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// A text in double quotes. JSON's escapes are YAML's too; a character that is no text for YAML is escaped.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        let code = u32::from(c);
        if (0x7f..0xa0).contains(&code)
            || matches!(code, 0x2028 | 0x2029 | 0xfeff | 0xfffe | 0xffff)
        {
            out.push_str(&format!("\\u{code:04x}"));
        } else {
            out.push(c);
        }
    }
    out
}

fn block(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (k, v) in map {
                out.push_str(&format!("{indent}{}:", key(k)));
                inline_or_block(out, v, depth);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for v in list {
                out.push_str(&format!("{indent}-"));
                inline_or_block(out, v, depth);
            }
        }
        scalar => {
            out.push_str(&format!("{indent}{}\n", inline(scalar)));
        }
    }
}

fn inline_or_block(out: &mut String, v: &Value, depth: usize) {
    let nested =
        v.as_object().is_some_and(|m| !m.is_empty()) || v.as_array().is_some_and(|l| !l.is_empty());
    if nested {
        out.push('\n');
        block(out, v, depth + 1);
    } else {
        out.push_str(&format!(" {}\n", inline(v)));
    }
}

fn inline(v: &Value) -> String {
    match v {
        Value::String(s) => quoted(s),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_read_back_as_they_were() {
        let value = json!({
            "datasource": { "MAAS": { "token_secret": "0123", "metadata_url": "http://[fd00::1]:5248/MAAS/metadata/" } },
            "manage_etc_hosts": true,
            "power_state": { "timeout": 3600, "condition": "test ! -e /tmp/x" },
            "list": ["yes", 1, [], {}, { "a": ["b\n\"c\"", "\u{85}\u{7f}"] }],
            "no": null, "a key": "v", "22:10": "x",
        });
        let text = cloud_config(&value);
        assert!(text.starts_with("#cloud-config\n"));
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value);
        assert!(text.contains("    token_secret: \"0123\"\n"), "{text}");
        assert!(
            text.contains("\"no\": null\n") && text.contains("\\u0085\\u007f"),
            "{text}"
        );
    }
}
