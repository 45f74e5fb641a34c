//! `/MAAS/api/v1/`: our own face on the operations of `/MAAS/api/2.0/`.
//!
//! Nothing is declared twice: [`derive`] makes the operations of this face from the table, by rule, and [`run`]
//! runs what stands behind one and puts its answer into this face's form:
//!
//! | 2.0 | here |
//! | --- | --- |
//! | `GET zones/` | `GET zones`: a page, see [`page`] |
//! | `POST zones/` | `POST zones`: 201 with `Location` |
//! | `GET zones/{name}/` | `GET zones/{name}`: with `ETag` |
//! | `PUT zones/{name}/` | `PATCH zones/{name}`: with `If-Match` only if nobody was faster |
//! | `DELETE zones/{name}/` | `DELETE zones/{name}` |
//! | `GET machines/{id}/?op=details` | `GET machines/{id}/details` |
//! | `POST machines/{id}/?op=deploy` | `POST machines/{id}/actions/deploy`: 202 with an operation to watch |
//! |  | `POST machines/bulk`: one action on many, see [`bulk`] |
//!
//! Beside these stand the change stream ([`changes`]), [`operations`] and the document ([`openapi`]).

pub mod bulk;
pub mod changes;
pub mod etag;
pub mod machines;
pub mod openapi;
pub mod operations;
pub mod page;
pub mod problem;

use std::collections::BTreeSet;

use metal::operation::Kind as Long;
use serde_json::Value;

use crate::answer::{Answer, Content, TEXT};
use crate::call::Call;
use crate::dispatch;
use crate::error::ApiError;
use crate::operation::{Body, Face, Kind, Method, Operation, Param};

/// Content type of JSON answers of this face.
pub const JSON: &str = "application/json";
/// Paths that are one object though their path has no varying end.
const SINGLE: [&str; 2] = ["version", "maas"];
/// Handlers that stay out: they are for machines and for clients of the other face.
const LEFT_OUT: [&str; 2] = ["DescribeHandler", "VersionHandler"];

/// What an operation of this face is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A list in pages.
    List,
    /// One object.
    Read,
    /// A new object.
    Create,
    /// Changes to an object.
    Update,
    /// The end of an object.
    Delete,
    /// A named look at something.
    View,
    /// A named action.
    Action,
    /// The same action on many objects.
    Bulk,
    /// None of these: it has its own answer.
    Own,
}

/// The shape of an operation of this face.
#[must_use]
pub fn shape(op: &Operation) -> Shape {
    let Some(of) = op.of else {
        return if op.uri.ends_with("/bulk") {
            Shape::Bulk
        } else {
            Shape::Own
        };
    };
    match (of.op, of.method) {
        (Some(_), Method::Get) => Shape::View,
        (Some(_), _) => Shape::Action,
        (None, Method::Get) => {
            if is_item(op.uri) || SINGLE.contains(&op.uri) {
                Shape::Read
            } else {
                Shape::List
            }
        }
        (None, Method::Post) => {
            if is_item(op.uri) {
                Shape::Action
            } else {
                Shape::Create
            }
        }
        (None, Method::Put) => Shape::Update,
        (None, Method::Delete) => Shape::Delete,
    }
}

/// Whether a path is that of one object.
fn is_item(uri: &str) -> bool {
    uri.ends_with('}')
}

/// The path of this face for one of the other.
fn path(uri: &str) -> String {
    let uri = uri.trim_end_matches('/');
    match uri.strip_prefix("resourcepool/") {
        Some(rest) => format!("resourcepools/{rest}"),
        None => uri.to_owned(),
    }
}

/// The long operation that an action on a machine begins.
fn begins(of: &Operation) -> Option<Long> {
    if of.uri != "machines/{system_id}/" || of.method != Method::Post {
        return None;
    }
    Long::from_word(of.op?)
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// The operations of this face that follow from the table. They live as long as the process: call it once
/// per table.
#[must_use]
pub fn derive(table: &[&'static Operation]) -> Vec<&'static Operation> {
    let mut out: Vec<&'static Operation> = Vec::new();
    let mut taken: BTreeSet<(String, Method)> = table
        .iter()
        .filter(|o| o.face == Face::V1)
        .map(|o| (o.uri.to_owned(), o.method))
        .collect();
    let wanted = |o: &&&'static Operation| {
        o.face == Face::Maas2
            && !o.handler.is_empty()
            && !o.is_anonymous()
            && !LEFT_OUT.contains(&o.handler)
    };
    for &of in table.iter().filter(wanted) {
        let base = path(of.uri);
        let uri = match (of.op, of.method) {
            (None, Method::Post) if is_item(&base) => format!("{base}/actions/create"),
            (None, _) => base,
            (Some(op), Method::Get) => format!("{base}/{}", op.replace('_', "-")),
            (Some(op), _) => format!("{base}/actions/{}", op.replace('_', "-")),
        };
        if !taken.insert((uri.clone(), of.method)) {
            continue;
        }
        let mut op = Operation {
            face: Face::V1,
            handler: "",
            uri: leak(uri),
            also: &[],
            audit: None,
            op: None,
            run: |c| Box::pin(run(c)),
            of: Some(of),
            ..*of
        };
        match shape(&op) {
            Shape::List => {
                // A list that has a parameter of this name already keeps its own.
                let own = |p: &&Param| !of.params.iter().any(|o| o.name == p.name);
                let more: Vec<Param> = page::PARAMS.iter().filter(own).copied().collect();
                op.params = Box::leak([of.params, &more].concat().into_boxed_slice());
            }
            Shape::Read => {
                op.params = Box::leak([of.params, &[page::FIELDS]].concat().into_boxed_slice());
            }
            Shape::Create => op.success = 201,
            Shape::Action if begins(of).is_some() => op.success = 202,
            // What the other face calls accepted has begun nothing that could be watched here.
            Shape::Action if of.success == 202 => op.success = 200,
            _ => {}
        }
        out.push(Box::leak(Box::new(op)));
    }
    let collections: Vec<&'static Operation> = out
        .iter()
        .filter(|o| {
            shape(o) == Shape::List
                && !o.uri.contains('{')
                && out.iter().any(|i| is_item_of(i.uri, o.uri))
        })
        .copied()
        .collect();
    for list in collections {
        out.push(Box::leak(Box::new(bulk::operation(leak(format!(
            "{}/bulk",
            list.uri
        ))))));
    }
    out
}

/// Whether `item` is the path of one object of the list `list`.
fn is_item_of(item: &str, list: &str) -> bool {
    item.strip_prefix(list)
        .and_then(|r| r.strip_prefix("/{"))
        .is_some_and(|r| r.ends_with('}') && !r.contains('/'))
}

/// Runs the operation behind one of this face.
async fn run(call: Call) -> Result<Answer, ApiError> {
    let op = call.operation();
    let of = op
        .of
        .ok_or_else(|| ApiError::bug("an operation without what it stands for"))?;
    known_only(&call, op.params)?;
    match shape(op) {
        Shape::List if op.uri == "machines" => return machines::list(&call).await,
        Shape::List | Shape::Read | Shape::View => {
            let answer = dispatch::run(call.second(of, None, None)).await?;
            return read(&call, answer);
        }
        _ => {}
    }
    let long = begins(of);
    let (inner, answer) = etag::guarded(&call, of, long).await?;
    if let Some(id) = inner.begun() {
        let mut tx = call.read().await?;
        let operation = operations::by_id(&mut tx, call.actor(), id).await?;
        return json(202, &operation)
            .map(|a| a.header("Location", format!("{}operations/{id}", Face::V1.prefix())));
    }
    written(&call, answer)
}

fn read(call: &Call, answer: Answer) -> Result<Answer, ApiError> {
    let value = match body(answer)? {
        Ok(v) => v,
        Err(other) => return Ok(other),
    };
    if shape(call.operation()) == Shape::List
        && let Value::Array(items) = value
    {
        return page::answer(call.args(), items);
    }
    let tag = etag::of(&value);
    if call
        .origin()
        .if_none_match
        .as_deref()
        .is_some_and(|given| etag::matches(given, &tag))
    {
        return Ok(Answer::none().status(304).header("ETag", tag));
    }
    let value = page::sparse(call.args(), value);
    Ok(json(200, &value)?.header("ETag", tag))
}

fn written(call: &Call, answer: Answer) -> Result<Answer, ApiError> {
    let value = match body(answer)? {
        Ok(v) => v,
        Err(other) => return Ok(other),
    };
    match shape(call.operation()) {
        Shape::Create => {
            let made = json(201, &value)?.header("ETag", etag::of(&value));
            Ok(match key(&value) {
                Some(key) => made.header(
                    "Location",
                    format!("{}{}/{key}", Face::V1.prefix(), located(call)),
                ),
                None => made,
            })
        }
        Shape::Update => Ok(json(200, &value)?.header("ETag", etag::of(&value))),
        _ => json(200, &value),
    }
}

/// The path of the list that was called, its varying parts filled in.
fn located(call: &Call) -> String {
    call.operation()
        .uri
        .split('/')
        .map(
            |s| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                Some(name) => percent(call.path(name)),
                None => s.to_owned(),
            },
        )
        .collect::<Vec<_>>()
        .join("/")
}

fn percent(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// What an object is called in its path: the end of its address on the other face.
fn key(value: &Value) -> Option<String> {
    let uri = value.get("resource_uri")?.as_str()?;
    let last = uri.trim_end_matches('/').rsplit('/').next()?;
    (!last.is_empty()).then(|| last.to_owned())
}

/// The JSON of an answer of the other face; what is neither JSON nor text stays as it is.
fn body(answer: Answer) -> Result<Result<Value, Answer>, ApiError> {
    if answer.status >= 400 {
        return Ok(Err(problem::of_answer(answer)));
    }
    let parse = |b: &[u8]| {
        serde_json::from_slice::<Value>(b)
            .map_err(|_| ApiError::bug("an answer that says it is JSON and is not"))
    };
    Ok(match answer.content {
        Content::Json(v) => Ok(v),
        Content::Bytes(b, kind) if kind.starts_with("application/json") => Ok(parse(&b)?),
        Content::Bytes(b, TEXT) => Ok(Value::String(String::from_utf8_lossy(&b).into_owned())),
        Content::Empty => Err(Answer::none()),
        content => Err(Answer { content, ..answer }),
    })
}

/// A JSON answer of this face.
fn json<T: serde::Serialize>(status: u16, value: &T) -> Result<Answer, ApiError> {
    let body = serde_json::to_vec(value).map_err(|e| ApiError::bug(&e.to_string()))?;
    Ok(Answer::bytes(body.into(), JSON).status(status))
}

/// Refuses parameters that the operation does not have: a word that is spelled wrong must not pass for
/// one that was left out.
fn known_only(call: &Call, params: &[Param]) -> Result<(), ApiError> {
    let known = |name: &str| {
        name.starts_with("oauth_")
            || params.iter().any(|p| {
                p.name == name
                    || p.kind == Kind::Prefix
                        && (name.starts_with(p.name) || name == p.name.trim_end_matches('_'))
            })
    };
    if call.operation().of.is_some_and(|o| o.body != Body::Form) {
        return Ok(());
    }
    let unknown: Vec<(String, Vec<String>)> = call
        .args()
        .names()
        .filter(|n| !known(n))
        .map(|n| {
            (
                n.to_owned(),
                vec!["There is no such parameter here.".to_owned()],
            )
        })
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(ApiError::Fields(unknown))
    }
}
