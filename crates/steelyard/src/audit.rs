//! `steelyard audit`: who changed what, from the audit events.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

use crate::client::table;
use crate::out;
use crate::server::ServerArgs;

/// Events asked for at once.
const PAGE: usize = 1_000;

/// `steelyard audit`.
#[derive(clap::Args)]
pub struct AuditArgs {
    /// Only what this user did; may be repeated
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,
    /// Only about this machine, by host name; may be repeated
    #[arg(long, value_name = "NAME")]
    machine: Vec<String>,
    /// At most this many, the newest
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints the events, newest first: as a table on a terminal, as JSON elsewhere.
///
/// # Errors
/// When there is no server to ask, or it refuses.
pub async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let api = args.server.connect().await?;
    let mut found: Vec<Value> = Vec::new();
    let mut before = None;
    while found.len() < args.limit {
        let wanted = PAGE.min(args.limit - found.len());
        let mut target = api.resolve("events/")?;
        {
            let mut query = target.query_pairs_mut();
            query
                .append_pair("op", "query")
                .append_pair("level", "AUDIT");
            query.append_pair("limit", &wanted.to_string());
            for user in &args.user {
                query.append_pair("owner", user);
            }
            for machine in &args.machine {
                query.append_pair("hostname", machine);
            }
            if let Some(id) = before {
                query.append_pair("before", &format!("{id}"));
            }
        }
        let answer = api.get(target.as_str()).await?.json()?;
        let page = answer["events"]
            .as_array()
            .context("the server did not answer events")?;
        before = page.iter().filter_map(|e| e["id"].as_i64()).min();
        found.extend(page.iter().cloned());
        if page.len() < wanted {
            break;
        }
    }
    if !out::is_terminal() {
        out::line(&serde_json::to_string_pretty(&found)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |e: &Value, key: &str| out::printable(e[key].as_str().unwrap_or(""));
    let mut rows = vec![
        ["TIME", "USER", "TYPE", "MACHINE", "WHAT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for e in &found {
        let keys = ["created", "username", "type", "hostname", "description"];
        rows.push(keys.map(|k| text(e, k)).to_vec());
    }
    out::line(&table::aligned(&rows))?;
    Ok(ExitCode::SUCCESS)
}
