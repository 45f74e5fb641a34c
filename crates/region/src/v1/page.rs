//! Pages of lists: where they begin, how long they are, which objects and which of their fields.

use std::cmp::Ordering;

use api::Page;
use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::args::Args;
use crate::error::ApiError;
use crate::operation::{Kind, Param};
use crate::v1::json;

/// Objects of a page unless asked otherwise.
pub const DEFAULT_LIMIT: usize = 100;
/// Objects of a page at most.
pub const MAX_LIMIT: usize = 1_000;

/// How many objects.
pub const LIMIT: Param = Param::opt(
    "limit",
    Kind::Int,
    "Objects of a page, 1 to 1000; 100 when left out.",
);
/// Where to go on.
pub const CURSOR: Param = Param::opt(
    "cursor",
    Kind::Text,
    "Where the page begins: `next` of the page before.",
);
/// Which fields.
pub const FIELDS: Param = Param::opt("fields", Kind::List, "Only these fields of each object.");
/// Which objects.
pub const FILTER: Param = Param::opt(
    "filter",
    Kind::Text,
    "Only objects with this value, as `field:value`; a dot leads into an object, as in `zone.name:default`. Repeated, all must hold.",
);
/// Whether to count.
pub const COUNT: Param = Param::opt("count", Kind::Bool, "Whether to say how many there are.");

/// What every list takes.
pub const PARAMS: &[Param] = &[LIMIT, CURSOR, FIELDS, FILTER, COUNT];

/// The length of a page.
///
/// # Errors
/// 400 when it is out of bounds.
pub fn limit(args: &Args) -> Result<usize, ApiError> {
    let given = args.int("limit")?;
    let limit = given.map_or(Some(DEFAULT_LIMIT), |n| usize::try_from(n).ok());
    limit
        .filter(|n| (1..=MAX_LIMIT).contains(n))
        .ok_or_else(|| ApiError::field("limit", format!("Give a number from 1 to {MAX_LIMIT}.")))
}

/// What an object is put in order by: its number, or its name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Number(i64),
    Name(String),
}

impl Key {
    fn of(value: &Value) -> Self {
        if let Some(n) = value["id"].as_i64() {
            return Self::Number(n);
        }
        let name = ["system_id", "username", "name", "key", "filename"]
            .iter()
            .find_map(|f| value[*f].as_str());
        Self::Name(name.map_or_else(|| value.to_string(), str::to_owned))
    }

    fn text(&self) -> String {
        match self {
            Self::Number(n) => format!("n{n}"),
            Self::Name(s) => format!("t{}", hex::encode(s)),
        }
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = || {
            ApiError::field(
                "cursor",
                "This is no cursor of this list; begin again without.",
            )
        };
        match text.split_at_checked(1) {
            Some(("n", rest)) => rest.parse().map(Self::Number).map_err(|_| bad()),
            Some(("t", rest)) => hex::decode(rest)
                .ok()
                .and_then(|b| String::from_utf8(b).ok())
                .map(Self::Name)
                .ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Name(a), Self::Name(b)) => a.cmp(b),
            (Self::Number(_), Self::Name(_)) => Ordering::Less,
            (Self::Name(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

/// The number in a cursor of a list that is in the order of numbers.
///
/// # Errors
/// 400 when it is none.
pub fn after(args: &Args) -> Result<i64, ApiError> {
    match args.filled("cursor").map(Key::parse).transpose()? {
        None => Ok(0),
        Some(Key::Number(n)) => Ok(n),
        Some(Key::Name(_)) => Err(ApiError::field("cursor", "This is no cursor of this list.")),
    }
}

/// The cursor behind an object with this number.
#[must_use]
pub fn cursor(id: i64) -> String {
    Key::Number(id).text()
}

/// The filters of a request.
fn filters(args: &Args) -> Result<Vec<(Vec<String>, String)>, ApiError> {
    args.repeated("filter")
        .iter()
        .map(|f| {
            let (path, value) = f
                .split_once(':')
                .filter(|(path, _)| !path.is_empty())
                .ok_or_else(|| ApiError::field("filter", "Write it as field:value."))?;
            Ok((
                path.split('.').map(str::to_owned).collect(),
                value.to_owned(),
            ))
        })
        .collect()
}

fn holds(value: &Value, path: &[String], wanted: &str) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return match value {
            Value::String(s) => s == wanted,
            Value::Null => wanted == "null",
            Value::Array(list) => list.iter().any(|v| holds(v, path, wanted)),
            other => {
                let text = other.to_string();
                text == wanted
            }
        };
    };
    match value {
        Value::Array(list) => list.iter().any(|v| holds(v, path, wanted)),
        Value::Object(map) => map.get(first).is_some_and(|v| holds(v, rest, wanted)),
        _ => false,
    }
}

/// A page of objects that are all at hand.
///
/// # Errors
/// 400 for a cursor, a limit or a filter that is none.
pub fn answer(args: &Args, items: Vec<Value>) -> Result<Answer, ApiError> {
    let limit = limit(args)?;
    let from = args.filled("cursor").map(Key::parse).transpose()?;
    let filters = filters(args)?;
    let mut all: Vec<(Key, Value)> = items
        .into_iter()
        .filter(|v| filters.iter().all(|(path, wanted)| holds(v, path, wanted)))
        .map(|v| (Key::of(&v), v))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let total = all.len();
    let mut rest = all
        .into_iter()
        .filter(|(k, _)| from.as_ref().is_none_or(|f| k > f));
    let mut page: Vec<(Key, Value)> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let next = page.last().filter(|_| more).map(|(k, _)| k.text());
    let items = page
        .drain(..)
        .map(|(_, v)| sparse(args, v))
        .collect::<Vec<_>>();
    json(
        200,
        &Page {
            items,
            next,
            total: counted(args)?.then_some(total as u64),
        },
    )
}

/// Whether the caller wants to know how many there are.
///
/// # Errors
/// 400 for what is no truth value.
pub fn counted(args: &Args) -> Result<bool, ApiError> {
    Ok(args.bool("count")?.unwrap_or(false))
}

/// An object with the fields that were asked for.
#[must_use]
pub fn sparse(args: &Args, value: Value) -> Value {
    let fields = args.list("fields");
    match value {
        Value::Object(map) if !fields.is_empty() => {
            let kept: Map<String, Value> = map
                .into_iter()
                .filter(|(k, _)| fields.iter().any(|f| f == k))
                .collect();
            kept.into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_lead_into_objects_and_lists() {
        let v =
            serde_json::json!({"zone": {"name": "a"}, "tags": ["x", "y"], "n": 3, "none": null});
        let holds = |f: &str, w: &str| {
            let path: Vec<String> = f.split('.').map(str::to_owned).collect();
            holds(&v, &path, w)
        };
        assert!(holds("zone.name", "a") && holds("tags", "y") && holds("n", "3"));
        assert!(holds("none", "null") && !holds("zone.id", "1") && !holds("zone.name", "b"));
    }

    proptest! {
        #[test]
        fn cursors_are_read_back(name in ".{0,40}", number: i64) {
            for key in [Key::Name(name.clone()), Key::Number(number)] {
                prop_assert_eq!(Key::parse(&key.text()).unwrap(), key);
            }
        }

        #[test]
        fn no_text_makes_a_cursor_panic(text in ".{0,40}") {
            drop(Key::parse(&text));
        }
    }
}
