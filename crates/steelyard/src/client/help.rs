//! Help at every level, from the description of the server.

use super::describe::{Action, Description, Resource};
use super::profile::{Profile, Profiles};
use crate::cli;

/// Columns before the text of an entry.
const INDENT: usize = 24;
/// Columns of a line.
const WIDTH: usize = 100;
const OPTIONS: &str = "\nOptions:\n  -h, --help            Show this\n  -d, --debug           Show the headers of the answer\n  -k, --insecure        Do not check the server's certificate\n  --json, --table         Print the answer as it came, or as a table [default: a table on a terminal]\n";

/// Without a profile.
#[must_use]
pub fn top(name: &str, profiles: &Profiles) -> String {
    let mut text = format!(
        "Usage: {name} COMMAND ...\n       {name} PROFILE RESOURCE ACTION [ARGUMENT...] [KEY=VALUE | KEY@=FILE...]\n\nCommands:\n"
    );
    entry(&mut text, "login", "Keep a server and a key under a name");
    entry(&mut text, "logout", "Forget a profile");
    entry(&mut text, "list", "List the profiles with their keys");
    entry(
        &mut text,
        "refresh",
        "Read the descriptions of the servers again",
    );
    if name == "maas" {
        for (word, about) in cli::about() {
            entry(&mut text, &word, &about);
        }
    }
    text.push_str("\nProfiles:\n");
    for (name, p) in profiles.iter() {
        entry(&mut text, name, &p.url);
    }
    if profiles.iter().next().is_none() {
        text.push_str("  none yet\n");
    }
    text.trim_end().to_owned()
}

/// The resources of a profile.
#[must_use]
pub fn profile(typed: &str, profile: &Profile, description: &Description<'_>) -> String {
    let mut text = format!(
        "Usage: {typed} RESOURCE ACTION ...\n\n{}\n\nResources:\n",
        profile.url
    );
    for r in &description.resources {
        entry(&mut text, &r.name, first_line(&r.doc));
    }
    text.trim_end().to_owned()
}

/// The actions of a resource.
#[must_use]
pub fn resource(typed: &str, resource: &Resource) -> String {
    let mut text = format!(
        "Usage: {typed} ACTION {}...\n\n{}\n\nActions:\n",
        positionals(resource),
        resource.doc.trim()
    );
    for a in &resource.actions {
        entry(&mut text, &a.name, first_line(&a.summary()));
    }
    text.trim_end().to_owned()
}

/// An action with its parameters.
#[must_use]
pub fn action(typed: &str, resource: &Resource, action: &Action) -> String {
    let data = if action.takes_data() {
        "[KEY=VALUE | KEY@=FILE...] "
    } else {
        ""
    };
    let mut text = format!(
        "Usage: {typed} {}{data}[-d] [-k]\n\n{}\n",
        positionals(resource),
        action.summary()
    );
    if action.op.is_some() || action.method != "GET" {
        let op = action
            .op
            .as_ref()
            .map_or(String::new(), |o| format!("?op={o}"));
        text.push_str(&format!("\n{} {}{op}\n", action.method, resource.path));
    }
    let params = action.params();
    if !params.is_empty() {
        text.push_str("\nParameters:\n");
    }
    for p in params {
        let kind = if p.kind.is_empty() {
            String::new()
        } else {
            format!(" [{}]", p.kind)
        };
        entry(&mut text, &p.name, &format!("{}{kind}", p.doc));
    }
    text.push_str(OPTIONS);
    text.trim_end().to_owned()
}

fn positionals(resource: &Resource) -> String {
    resource
        .params
        .iter()
        .map(|p| format!("{} ", p.to_uppercase()))
        .collect()
}

fn first_line(doc: &str) -> &str {
    doc.trim().lines().next().unwrap_or("")
}

/// A name and its text, folded to the width of the page.
fn entry(out: &mut String, name: &str, text: &str) {
    let mut line = format!("  {name:<width$}", width = INDENT - 2);
    if name.len() >= INDENT - 2 {
        out.push_str(&format!("  {name}\n"));
        line = " ".repeat(INDENT);
    }
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(INDENT);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
