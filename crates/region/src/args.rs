//! The parameters of a request: from the query, a form, multipart or JSON, checked against the table.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::multipart;
use crate::operation::{Kind, Need, Operation};

/// Most parameters of one request.
pub const MAX_PARAMS: usize = 10_000;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Text.
    Text(String),
    /// A file part.
    File(Bytes),
}

/// All parameters of a request by name. `Debug` shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Args {
    values: BTreeMap<String, Vec<Arg>>,
}

impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Args {
    /// Adds a value.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push(&mut self, name: String, value: Arg) -> Result<(), ApiError> {
        if self.values.len() >= MAX_PARAMS {
            return Err(ApiError::Bad(format!(
                "A request may have at most {MAX_PARAMS} parameters."
            )));
        }
        let list = self.values.entry(name).or_default();
        if list.len() >= MAX_PARAMS {
            return Err(ApiError::Bad(format!(
                "A parameter may be repeated at most {MAX_PARAMS} times."
            )));
        }
        list.push(value);
        Ok(())
    }

    /// Adds `a=b&c=d`.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push_urlencoded(&mut self, text: &str) -> Result<(), ApiError> {
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.push(decode(name), Arg::Text(decode(value)))?;
        }
        Ok(())
    }

    /// Adds what a body holds, by its content type.
    ///
    /// # Errors
    /// When the body does not have the form that its content type says.
    pub fn push_body(&mut self, content_type: &str, body: &Bytes) -> Result<(), ApiError> {
        let essence = content_type
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        match essence.as_str() {
            "multipart/form-data" => {
                for part in multipart::parse(content_type, body)? {
                    let value =
                        if part.is_file {
                            Arg::File(part.content)
                        } else {
                            Arg::Text(String::from_utf8(part.content.to_vec()).map_err(|_| {
                                ApiError::field(&part.name, "This is not UTF-8 text.")
                            })?)
                        };
                    self.push(part.name, value)?;
                }
                Ok(())
            }
            "application/json" if !body.is_empty() => {
                let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(body) else {
                    return Err(ApiError::Bad("The body is not a JSON object.".to_owned()));
                };
                self.push_json(map)
            }
            _ if body.is_empty() => Ok(()),
            // Also without a content type: old clients post forms so.
            _ => {
                let text = std::str::from_utf8(body)
                    .map_err(|_| ApiError::Bad("The body is not UTF-8 text.".to_owned()))?;
                self.push_urlencoded(text)
            }
        }
    }

    /// Adds the fields of a JSON object: a list is a parameter that is repeated, null is one that is not there.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push_json(&mut self, map: Map<String, Value>) -> Result<(), ApiError> {
        for (name, value) in map {
            match value {
                Value::Array(list) => {
                    for v in list {
                        self.push(name.clone(), Arg::Text(json_text(v)))?;
                    }
                }
                Value::Null => {}
                v => self.push(name, Arg::Text(json_text(v)))?,
            }
        }
        Ok(())
    }

    /// Every name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Checks presence and types of what an operation declares.
    ///
    /// # Errors
    /// [`ApiError::Fields`] with every field that is wrong, or the plain text that clients know.
    pub fn check(&self, operation: &Operation) -> Result<(), ApiError> {
        let mut wrong: Vec<(String, Vec<String>)> = Vec::new();
        for p in operation.params {
            if p.kind == Kind::Prefix {
                continue;
            }
            let given = self.values.get(p.name).filter(|v| !v.is_empty());
            let Some(values) = given else {
                match p.need {
                    Need::Optional => {}
                    Need::Field => wrong.push((
                        p.name.to_owned(),
                        vec!["This field is required.".to_owned()],
                    )),
                    Need::Param => return Err(ApiError::Bad(format!("No provided {}!", p.name))),
                }
                continue;
            };
            for v in values {
                if let Err(message) = check_kind(p.kind, v) {
                    wrong.push((p.name.to_owned(), vec![message]));
                    break;
                }
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Fields(wrong))
        }
    }

    /// Whether the parameter was given at all, even empty.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The last text given under a name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)?.last()? {
            Arg::Text(t) => Some(t),
            Arg::File(b) => std::str::from_utf8(b).ok(),
        }
    }

    /// The last text given under a name when it is not empty.
    #[must_use]
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|t| !t.is_empty())
    }

    /// The text of a parameter that the table requires.
    ///
    /// # Errors
    /// 400 when it is not there or empty.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.filled(name)
            .ok_or_else(|| ApiError::field(name, "This field is required."))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 when it is no number.
    pub fn int(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.filled(name) {
            None => Ok(None),
            Some(t) => t
                .trim()
                .parse()
                .map(Some)
                .map_err(|_| ApiError::field(name, "Enter a whole number.")),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn bool(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.filled(name) {
            None => Ok(None),
            Some(t) => parse_bool(t)
                .map(Some)
                .ok_or_else(|| ApiError::field(name, "Enter true or false.")),
        }
    }

    /// Every value under a name; commas separate too. Empty values are left out.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        self.repeated(name)
            .into_iter()
            .flat_map(|t| {
                t.split(',')
                    .map(|s| s.trim().to_owned())
                    .filter(|s| !s.is_empty())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Every value under a name as it was given.
    #[must_use]
    pub fn repeated(&self, name: &str) -> Vec<String> {
        self.values
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|v| match v {
                Arg::Text(t) => Some(t.clone()),
                Arg::File(b) => String::from_utf8(b.to_vec()).ok(),
            })
            .collect()
    }

    /// The bytes under a name, from a file part or a field.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        match self.values.get(name)?.last()? {
            Arg::Text(t) => Some(Bytes::copy_from_slice(t.as_bytes())),
            Arg::File(b) => Some(b.clone()),
        }
    }

    /// Names and values of the parameters that start with a prefix, the prefix taken off.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values.iter().filter_map(move |(name, values)| {
            let rest = name.strip_prefix(prefix)?;
            match values.last()? {
                Arg::Text(t) => Some((rest, t.as_str())),
                Arg::File(_) => None,
            }
        })
    }

    /// Every file part: its name and content.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.values.iter().flat_map(|(name, values)| {
            values.iter().filter_map(move |v| match v {
                Arg::File(b) => Some((name.as_str(), b)),
                Arg::Text(_) => None,
            })
        })
    }

    /// Every name and its texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().flat_map(|(name, values)| {
            values.iter().filter_map(move |v| match v {
                Arg::Text(t) => Some((name.as_str(), t.as_str())),
                Arg::File(_) => None,
            })
        })
    }
}

/// The truth values that clients send.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
        _ => None,
    }
}

fn check_kind(kind: Kind, value: &Arg) -> Result<(), String> {
    let Arg::Text(text) = value else {
        return Ok(());
    };
    if text.is_empty() {
        return Ok(());
    }
    match kind {
        Kind::Text | Kind::List | Kind::File | Kind::Prefix => Ok(()),
        Kind::Int => text
            .trim()
            .parse::<i64>()
            .map(|_| ())
            .map_err(|_| "Enter a whole number.".to_owned()),
        Kind::Bool => parse_bool(text)
            .map(|_| ())
            .ok_or_else(|| "Enter true or false.".to_owned()),
        Kind::Choice(words) => {
            if words.contains(&text.as_str()) {
                Ok(())
            } else {
                Err(format!(
                    "'{}' is not one of: {}.",
                    text.chars().take(64).collect::<String>(),
                    words.join(", ")
                ))
            }
        }
    }
}

fn json_text(v: Value) -> String {
    match v {
        Value::String(s) => s,
        other => other.to_string(),
    }
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
}
