//! The describe document, from which the `maas` command and other clients build themselves.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::answer::{Answer, Content};
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Face, Kind, Need, Operation, Who};

/// `GET describe/`.
pub const OPERATIONS: &[Operation] = &[Operation {
    uri: "describe/",
    who: Who::Anyone,
    title: "The description of this API that clients build themselves from.",
    run: |call| Box::pin(read(call)),
    ..Operation::READ
}];

async fn read(call: Call) -> Result<Answer, ApiError> {
    let document = document(
        call.region().table(),
        &call.origin().base,
        call.region().describe_hash(),
    );
    let bytes = serde_json::to_vec(&document).map_err(|e| ApiError::bug(&e.to_string()))?;
    // Clients compare this content type to the letter.
    Ok(Answer {
        status: 200,
        headers: Vec::new(),
        content: Content::Bytes(bytes.into(), "application/json"),
    })
}

/// The document for a base URL such as `http://region:5240`.
#[must_use]
pub fn document(table: &[&'static Operation], base: &str, hash: &str) -> Value {
    let mut handlers: Vec<(&'static str, Vec<&'static Operation>)> = Vec::new();
    for &op in table
        .iter()
        .filter(|o| o.face == Face::Maas2 && !o.handler.is_empty())
    {
        match handlers.iter_mut().find(|(n, _)| *n == op.handler) {
            Some((_, ops)) => ops.push(op),
            None => handlers.push((op.handler, vec![op])),
        }
    }
    handlers.sort_by_key(|(n, _)| *n);
    let anonymous = |name: &str| handlers.iter().find(|(n, _)| *n == format!("Anon{name}"));
    let mut resources = Vec::new();
    let mut flat_anon = Vec::new();
    let mut flat_auth = Vec::new();
    for (name, ops) in &handlers {
        if name
            .strip_prefix("Anon")
            .is_some_and(|rest| handlers.iter().any(|(n, _)| *n == rest))
        {
            continue;
        }
        let all_anonymous = ops.iter().all(|o| o.is_anonymous());
        let anon = match anonymous(name) {
            Some((n, ops)) => Some(handler(n, ops)),
            None if all_anonymous => Some(handler(name, ops)),
            None => None,
        };
        let auth = handler(name, ops);
        flat_anon.extend(anon.clone());
        flat_auth.push(auth.clone());
        let mut r = Map::new();
        r.insert(
            "anon".into(),
            anon.map_or(Value::Null, |h| with_uri(h, base)),
        );
        r.insert("auth".into(), with_uri(auth, base));
        r.insert("name".into(), (*name).into());
        resources.push(Value::Object(r));
    }
    flat_anon.extend(flat_auth);
    json!({ "doc": "MAAS API", "handlers": flat_anon, "hash": hash, "resources": resources })
}

fn with_uri(mut handler: Value, base: &str) -> Value {
    if let Value::Object(h) = &mut handler {
        let path = h
            .get("path")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        h.insert("uri".into(), format!("{base}{path}").into());
    }
    handler
}

fn handler(name: &str, ops: &[&'static Operation]) -> Value {
    let first = ops[0];
    let mut actions: Vec<Value> = ops
        .iter()
        .map(|o| {
            json!({
                "doc": doc(o),
                "method": o.method.word(),
                "name": o.action(),
                "op": o.op,
                "restful": o.op.is_none(),
            })
        })
        .collect();
    actions.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let what = name.trim_start_matches("Anon").trim_end_matches("Handler");
    json!({
        "actions": actions,
        "doc": format!("Manage {}.", words(what)),
        "name": shown(name),
        "params": first.path_params().collect::<Vec<_>>(),
        "path": format!("{}{}", Face::Maas2.prefix(), first.uri),
    })
}

/// What callers without credentials can ask of the collections of nodes is one handler, at several paths.
fn shown(name: &str) -> &str {
    match name {
        "AnonDevicesHandler" | "AnonRackControllersHandler" | "AnonRegionControllersHandler" => {
            "AnonNodesHandler"
        }
        other => other,
    }
}

/// `BootResources` as `boot resources`.
fn words(camel: &str) -> String {
    let mut out = String::new();
    let mut previous_upper = true;
    for c in camel.chars() {
        if c.is_uppercase() && !previous_upper {
            out.push(' ');
        }
        previous_upper = c.is_uppercase();
        out.extend(c.to_lowercase());
    }
    out
}

/// The help text of an action. A client takes `key=value` arguments only where a `:param` stands
/// behind the first paragraph.
fn doc(op: &Operation) -> String {
    let mut out = op.title.to_owned();
    for p in op.params {
        let need = if p.need == Need::Optional {
            "Optional."
        } else {
            "Required."
        };
        let (kind, more) = match p.kind {
            Kind::Text => ("String", String::new()),
            Kind::List => ("String", " May be repeated.".to_owned()),
            Kind::Int => ("Int", String::new()),
            Kind::Bool => ("Boolean", String::new()),
            Kind::File => ("File", String::new()),
            Kind::Choice(c) => ("String", format!(" One of: {}.", c.join(", "))),
            Kind::Prefix => ("String", " Any name that begins so.".to_owned()),
        };
        out.push_str(&format!(
            "\n\n:param {}: {need} {}{more}\n:type {}: {kind}",
            p.name, p.doc, p.name
        ));
    }
    out
}

/// A constant that changes when the operations do: 40 hexadecimal digits.
#[must_use]
pub fn hash(table: &[&'static Operation]) -> String {
    let document = document(table, "", "");
    let digest = Sha256::digest(document.to_string().as_bytes());
    hex::encode(digest)[..40].to_owned()
}
