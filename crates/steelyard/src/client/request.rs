//! From an action and its arguments to a request, and from the answer to the screen.

use std::process::ExitCode;

use percent_encoding::{percent_encode, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::api::{Answer, Body, Request};
use super::arguments::{Arguments, Form, Line, Value};
use super::describe::{Action, Resource};
use super::oauth::RESERVED;
use super::table;
use crate::{cli, out};

/// The header with the hash of the current description.
const HASH: &str = "x-maas-api-hash";

/// The request of an action. GET and DELETE have everything in the query, POST and PUT a form.
#[must_use]
pub fn build(resource: &Resource, action: &Action, arguments: &Arguments) -> Request {
    let method = match action.method.as_str() {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        _ => Method::GET,
    };
    let mut query: Vec<(&str, &[u8])> = Vec::new();
    if let Some(op) = &action.op {
        query.push(("op", op.as_bytes()));
    }
    let mut body = Body::Empty;
    if method == Method::GET || method == Method::DELETE {
        query.extend(arguments.data.iter().map(|(k, v)| (k.as_str(), v.bytes())));
    } else if !arguments.data.is_empty() {
        let part =
            |(k, v): &(String, Value)| (k.clone(), v.bytes().to_vec(), matches!(v, Value::File(_)));
        body = Body::Form(arguments.data.iter().map(part).collect());
    }
    let mut target = fill(&resource.path, &resource.params, &arguments.path);
    if !query.is_empty() {
        target.push('?');
        let pairs: Vec<String> = query
            .iter()
            .map(|(k, v)| format!("{}={}", encoded(k.as_bytes()), encoded(v)))
            .collect();
        target.push_str(&pairs.join("&"));
    }
    Request {
        method,
        target,
        body,
    }
}

/// Puts values in the place of `{name}`.
fn fill(path: &str, names: &[String], values: &[String]) -> String {
    names
        .iter()
        .zip(values)
        .fold(path.to_owned(), |path, (name, value)| {
            path.replace(
                &format!("{{{name}}}"),
                &utf8_percent_encode(value, RESERVED).to_string(),
            )
        })
}

/// As forms have it in queries.
fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED)
        .to_string()
        .replace("%20", "+")
}

/// Whether an answer is JSON.
fn is_json(answer: &Answer) -> bool {
    let kind = answer.headers.get(CONTENT_TYPE);
    kind.and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.starts_with("application/json"))
}

/// Prints an answer and gives the exit status.
///
/// # Errors
/// When standard output fails.
pub fn print(answer: &Answer, hash: &str, line: &Line) -> anyhow::Result<ExitCode> {
    if line.debug {
        out::complain(&answer.status_line);
        for (name, value) in &answer.headers {
            out::complain(&format!(
                "{name}: {}",
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
        out::complain("");
    }
    let form = line.form.unwrap_or(if out::is_terminal() {
        Form::Table
    } else {
        Form::Json
    });
    match form {
        Form::Json => out::bytes(&answer.body)?,
        Form::Table => {
            let table = is_json(answer)
                .then(|| table::render(&answer.body))
                .flatten();
            match table {
                Some(text) if answer.is_success() => out::line(&text)?,
                _ if answer.body.is_empty() && answer.is_success() => out::line("Done.")?,
                _ => {
                    out::bytes(&answer.body)?;
                    if !answer.body.is_empty() && !answer.body.ends_with(b"\n") {
                        out::line("")?;
                    }
                }
            }
        }
    }
    let current = answer.headers.get(HASH).and_then(|h| h.to_str().ok());
    if current.is_some_and(|c| c != hash) {
        out::complain(
            "*** The API of this server is not the one that this profile knows: run \"maas refresh\". ***",
        );
    }
    Ok(if answer.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(cli::USAGE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, op: Option<&str>, data: &[(&str, Value)]) -> Request {
        let action = Action {
            name: "x".into(),
            method: method.into(),
            op: op.map(str::to_owned),
            doc: String::new(),
        };
        let resource = Resource {
            name: "r".into(),
            doc: String::new(),
            params: vec!["name".into(), "id".into()],
            path: "/MAAS/r/{name}/{id}/".into(),
            actions: Vec::new(),
        };
        let arguments = Arguments {
            path: vec!["a/b {id}".into(), "7".into()],
            data: data
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.clone()))
                .collect(),
            big: None,
        };
        build(&resource, &action, &arguments)
    }

    #[test]
    fn reads_have_everything_in_the_query() {
        let data = [
            ("q", Value::Text("a b&c=ü".into())),
            ("q", Value::File(vec![0, 0xff])),
        ];
        let r = request("GET", Some("list"), &data);
        assert_eq!(
            r.target,
            "/MAAS/r/a%2Fb%20%7Bid%7D/7/?op=list&q=a+b%26c%3D%C3%BC&q=%00%FF"
        );
        assert!(matches!(r.body, Body::Empty));
        assert_eq!(
            request("DELETE", None, &[]).target,
            "/MAAS/r/a%2Fb%20%7Bid%7D/7/"
        );
    }

    #[test]
    fn writes_have_a_form_and_the_op_in_the_query() {
        let r = request(
            "POST",
            Some("go"),
            &[
                ("a", Value::Text("1".into())),
                ("f", Value::File(vec![0xff])),
            ],
        );
        assert!(r.target.ends_with("/7/?op=go"));
        let Body::Form(parts) = r.body else {
            panic!("no form")
        };
        assert_eq!(
            parts,
            [
                ("a".to_owned(), b"1".to_vec(), false),
                ("f".to_owned(), vec![0xff], true)
            ]
        );
        assert!(matches!(request("PUT", None, &[]).body, Body::Empty));
    }
}
