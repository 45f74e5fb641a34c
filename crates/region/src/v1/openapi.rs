//! `openapi.json`: the document of this face (OpenAPI 3.1), made from the operation table and the schemas of the
//! shared types. What it says of a parameter is what [`crate::args`] checks.

use std::collections::BTreeMap;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Body, Face, Kind, Method, Need, Operation, Param, Who};
use crate::v1::{Shape, json as answer_json, problem, shape};

/// `openapi.json`.
pub const OPERATIONS: &[Operation] = &[Operation {
    face: Face::V1,
    uri: "openapi.json",
    who: Who::Anyone,
    title: "This document.",
    run: |c| Box::pin(read(c)),
    ..Operation::READ
}];

async fn read(call: Call) -> Result<Answer, ApiError> {
    answer_json(200, &document(call.region().table()))
}

/// Statuses that any operation may refuse with.
const REFUSALS: [(u16, &str); 9] = [
    (400, "A parameter is wrong; `errors` names each."),
    (401, "No valid credentials."),
    (403, "Not allowed."),
    (404, "There is no such object, or it is not to be seen."),
    (409, "The object is not in a state for this."),
    (410, "It was there, and is no longer."),
    (412, "The object is not the one that `If-Match` names."),
    (413, "The request is too large."),
    (503, "Something that this needs is not there now."),
];

/// The document.
#[must_use]
pub fn document(table: &[&'static Operation]) -> Value {
    let mut schemas = SchemaGenerator::new(SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
    }));
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for op in table.iter().filter(|o| o.face == Face::V1) {
        let place = paths.entry(format!("/{}", op.uri)).or_default();
        place.insert(method(op).to_ascii_lowercase(), operation(op, &mut schemas));
    }
    // Asked for, so that it is among the definitions.
    schema::<api::Problem>(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Steelyard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Bare-metal provisioning. Times are microseconds since 1970 unless said otherwise.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/MAAS/api/v1" }],
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "key": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "An API key as OAuth 1.0 with PLAINTEXT signatures (RFC 5849 §3.4.4).",
                },
            },
        },
    })
}

/// The method that the document names: changes are partial.
fn method(op: &Operation) -> &'static str {
    match op.method {
        Method::Put if op.body == Body::Form => "PATCH",
        other => other.word(),
    }
}

fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

/// A name for generated clients: `machines_system_id_actions_deploy_post`.
fn operation_id(op: &Operation) -> String {
    let words: Vec<&str> = op
        .uri
        .split(['/', '{', '}', '-', '.'])
        .filter(|w| !w.is_empty())
        .collect();
    format!("{}_{}", words.join("_"), method(op).to_ascii_lowercase())
}

fn operation(op: &'static Operation, schemas: &mut SchemaGenerator) -> Value {
    let in_query = matches!(op.method, Method::Get | Method::Delete);
    let mut parameters: Vec<Value> = op
        .path_params()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if in_query {
        parameters.extend(op.params.iter().filter(|p| p.kind != Kind::Prefix).map(|p| {
            json!({
                "name": p.name, "in": "query", "required": p.need != Need::Optional, "description": p.doc, "schema": kind(p),
            })
        }));
    }
    let header = |name: &str, doc: &str| json!({ "name": name, "in": "header", "required": false, "description": doc, "schema": { "type": "string" } });
    match shape(op) {
        Shape::Read => parameters.push(header(
            "If-None-Match",
            "Tags at hand: 304 when the object is one of them.",
        )),
        Shape::Update | Shape::Delete => parameters.push(header(
            "If-Match",
            "The tag of the object as it was seen: 412 when it is another one.",
        )),
        _ => {}
    }
    let tag = op.uri.split('/').next().unwrap_or("");
    let mut out = json!({
        "operationId": operation_id(op),
        "summary": op.title,
        "tags": [tag],
        "parameters": parameters,
        "responses": responses(op, schemas),
    });
    if op.is_anonymous() {
        out["security"] = json!([]);
    }
    if !in_query && let Some(body) = request(op, schemas) {
        out["requestBody"] = body;
    }
    out
}

fn request(op: &Operation, schemas: &mut SchemaGenerator) -> Option<Value> {
    if shape(op) == Shape::Bulk {
        let schema = schema::<api::Bulk>(schemas);
        return Some(
            json!({ "required": true, "content": { "application/json": { "schema": schema } } }),
        );
    }
    if op.body != Body::Form {
        return Some(json!({
            "required": true, "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } },
        }));
    }
    if op.params.is_empty() {
        return None;
    }
    let mut properties = Map::new();
    let mut patterns = Map::new();
    let mut required = Vec::new();
    for p in op.params {
        let mut schema = kind(p);
        schema["description"] = p.doc.into();
        if p.kind == Kind::Prefix {
            patterns.insert(format!("^{}", p.name), schema);
            continue;
        }
        if p.need != Need::Optional {
            required.push(p.name);
        }
        properties.insert(p.name.to_owned(), schema);
    }
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !patterns.is_empty() {
        schema["patternProperties"] = patterns.into();
    }
    if !required.is_empty() {
        schema["required"] = required.clone().into();
    }
    Some(json!({
        "required": !required.is_empty(),
        "content": { "application/json": { "schema": schema }, "multipart/form-data": { "schema": schema } },
    }))
}

fn kind(p: &Param) -> Value {
    match p.kind {
        Kind::Text | Kind::Prefix => json!({ "type": "string" }),
        Kind::Int => json!({ "type": "integer", "format": "int64" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::List => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::File => json!({ "type": "string", "format": "binary" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
    }
}

/// The schema of one object of a noun.
fn noun(list: &str, schemas: &mut SchemaGenerator) -> Value {
    match list {
        "machines" => schema::<api::noun::Machine>(schemas),
        "zones" => schema::<api::noun::Zone>(schemas),
        "resourcepools" => schema::<api::noun::ResourcePool>(schemas),
        "fabrics" => schema::<api::noun::Fabric>(schemas),
        "subnets" => schema::<api::noun::Subnet>(schemas),
        "tags" => schema::<api::noun::Tag>(schemas),
        "users" => schema::<api::noun::User>(schemas),
        "operations" => schema::<api::Operation>(schemas),
        _ => json!({ "type": "object" }),
    }
}

fn page(item: Value) -> Value {
    json!({
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": { "type": "array", "items": item },
            "next": { "type": ["string", "null"] },
            "total": { "type": "integer" },
        },
    })
}

/// Content of which the document says that it is JSON of this schema.
fn content(description: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn responses(op: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let list = op.uri.split('/').next().unwrap_or("");
    // `zones`, `zones/{name}`: further down are other nouns.
    let own =
        !op.uri.contains('/') || (shape(op) != Shape::List && op.uri.matches('/').count() == 1);
    let item = |schemas: &mut SchemaGenerator| {
        if own {
            noun(list, schemas)
        } else {
            json!({ "type": "object" })
        }
    };
    // `fields` leaves fields out, required ones as well.
    let sparse = json!({ "type": "object" });
    let mut out = Map::new();
    let mut put = |status: u16, value: Value| {
        out.insert(status.to_string(), value);
    };
    let anything = json!({ "description": "Done.", "content": { "*/*": {} } });
    match shape(op) {
        Shape::List => put(
            200,
            content(
                "A page.",
                &page(json!({ "anyOf": [item(schemas), sparse] })),
            ),
        ),
        Shape::Read => {
            put(
                200,
                content("The object.", &json!({ "anyOf": [item(schemas), sparse] })),
            );
            put(304, json!({ "description": "It is one of those at hand." }));
        }
        Shape::Create => put(201, content("The new object.", &item(schemas))),
        Shape::Update => put(200, content("The object as it is now.", &item(schemas))),
        Shape::Delete => put(204, json!({ "description": "It is gone." })),
        Shape::View => put(200, anything),
        Shape::Action if op.success == 202 => put(
            202,
            content("It has begun.", &schema::<api::Operation>(schemas)),
        ),
        Shape::Action => {
            put(200, anything);
            put(
                204,
                json!({ "description": "Done; there is nothing to say." }),
            );
        }
        Shape::Bulk => put(
            200,
            content("What became of each.", &schema::<api::BulkResult>(schemas)),
        ),
        Shape::Own => match op.uri {
            "operations" => put(200, content("A page.", &page(noun("operations", schemas)))),
            "operations/{id}" | "operations/{id}/actions/cancel" => {
                put(200, content("The operation.", &noun("operations", schemas)))
            }
            "changes" => put(
                200,
                json!({
                    "description": "Events `position`, `change` and `reset`; the data of a change is a Change.",
                    "content": { "text/event-stream": {} },
                }),
            ),
            _ => put(200, content("The answer.", &json!({ "type": "object" }))),
        },
    }
    // Named for readers of the document only: the data of the stream's events.
    schema::<api::Change>(schemas);
    for (status, description) in REFUSALS {
        put(
            status,
            json!({
                "description": description,
                "content": { (problem::PROBLEM): { "schema": { "$ref": "#/components/schemas/Problem" } } },
            }),
        );
    }
    out.into()
}
