//! `steelyard boots MACHINE`: what was seen of a machine's boots, as a timeline for people.

use std::process::ExitCode;

use anyhow::Context as _;
use metal::Timestamp;
use metal::timeline::{Entry, What};
use serde_json::Value;

use crate::client::api::Api;
use crate::out;
use crate::server::ServerArgs;

/// `steelyard boots`.
#[derive(clap::Args)]
pub struct BootsArgs {
    /// Host name or system id
    machine: String,
    /// Show every boot that is kept in full, not only the newest
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints the timeline.
///
/// # Errors
/// When there is no server to ask, or no such machine.
pub async fn run(args: BootsArgs) -> anyhow::Result<ExitCode> {
    let api = args.server.connect().await?;
    let id = system_id(&api, &args.machine).await?;
    let boots = api
        .get(&format!("/MAAS/api/v1/machines/{id}/boots"))
        .await?
        .json()?;
    out::bytes(render(&boots, args.all).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The system id of a machine by its host name, its full name or its system id.
async fn system_id(api: &Api, machine: &str) -> anyhow::Result<String> {
    let machines = api.get(api.resolve("machines/")?.as_str()).await?.json()?;
    let is = |m: &&Value| {
        ["system_id", "hostname", "fqdn"]
            .iter()
            .any(|k| m[*k] == machine)
    };
    let found: Vec<&Value> = machines
        .as_array()
        .into_iter()
        .flatten()
        .filter(is)
        .collect();
    match found[..] {
        [one] => Ok(one["system_id"]
            .as_str()
            .context("a machine without a system id")?
            .to_owned()),
        [] => anyhow::bail!("there is no machine {machine}"),
        _ => anyhow::bail!(
            "{machine} is the name of {} machines; use the system id",
            found.len()
        ),
    }
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or("")
}

fn at(v: &Value, key: &str) -> Option<Timestamp> {
    v[key].as_i64().map(Timestamp)
}

fn render(answer: &Value, all: bool) -> String {
    let boots = answer["boots"].as_array().map_or(&[][..], Vec::as_slice);
    let mut page = format!(
        "{} ({}): {} recorded\n",
        out::printable(text(answer, "hostname")),
        out::printable(text(answer, "system_id")),
        match boots.len() {
            0 => "no boot".to_owned(),
            1 => "1 boot".to_owned(),
            n => format!("{n} boots"),
        }
    );
    for (i, boot) in boots.iter().enumerate() {
        render_boot(&mut page, boot, all || i == 0);
    }
    if !all && boots.len() > 1 {
        page.push_str("\n--all shows the earlier boots in full\n");
    }
    page
}

fn render_boot(page: &mut String, boot: &Value, full: bool) {
    let started = at(boot, "started").unwrap_or_default();
    let clock = jiff::Timestamp::from_second(started.seconds())
        .map_or_else(|_| "?".to_owned(), |t| t.to_string());
    let mac = boot["mac"]
        .as_str()
        .map_or(String::new(), |m| format!(", from {}", out::printable(m)));
    page.push_str(&format!("\nboot {} at {clock}{mac}\n", boot["number"]));
    if full {
        for entry in boot["entries"].as_array().into_iter().flatten() {
            match serde_json::from_value::<Entry>(entry.clone()) {
                Ok(e) => page.push_str(&line(&e, started)),
                // A newer server may know kinds that we do not.
                Err(_) => page.push_str(&format!(
                    "  {:>10}  {}\n",
                    "",
                    out::printable(&entry.to_string())
                )),
            }
        }
    }
    if let Some(n) = boot["dropped"].as_i64().filter(|n| *n > 0) {
        page.push_str(&format!("  {n} more were seen and not kept\n"));
    }
    let verdict = &boot["verdict"];
    for (label, key) in [
        ("verdict", "sentence"),
        ("remedy", "remedy"),
        ("last seen", "last_seen"),
    ] {
        if !text(verdict, key).is_empty() {
            page.push_str(&format!(
                "  {label:>10}  {}\n",
                out::printable(text(verdict, key))
            ));
        }
    }
}

fn line(e: &Entry, started: Timestamp) -> String {
    let after = e.first.since(started).as_secs_f64();
    let (kind, words) = words(&e.what);
    let times = if e.count > 1 {
        format!(
            " ({} times in {:.1} s)",
            e.count,
            e.last.since(e.first).as_secs_f64()
        )
    } else {
        String::new()
    };
    format!(
        "  {:>9}s  {kind:<9} {}{times}\n",
        format!("+{after:.1}"),
        out::printable(&words)
    )
}

/// The name that something has as JSON, for enums.
fn name<T: serde::Serialize>(v: &T) -> String {
    serde_json::to_value(v)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn words(what: &What) -> (&'static str, String) {
    match what {
        What::Dhcp {
            message,
            arch,
            speaker,
            boot_file,
        } => {
            let arch = arch.map_or(String::new(), |a| format!(", architecture {a}"));
            let file = boot_file
                .as_ref()
                .map_or(String::new(), |f| format!(", boot file {f}"));
            ("DHCP", format!("{message} ({speaker}{arch}){file}"))
        }
        What::File {
            transport,
            path,
            bytes,
            size,
            outcome,
        } => {
            let size = size.map_or(String::new(), |s| format!(" of {s}"));
            (
                if transport == "tftp" { "TFTP" } else { "HTTP" },
                format!("{path}: {}, {bytes}{size} bytes", name(outcome)),
            )
        }
        What::Config {
            loader,
            path,
            purpose,
        } => (
            "config",
            format!("{loader} {path}: told to {}", name(purpose)),
        ),
        What::Metadata {
            method,
            path,
            status,
        } => ("metadata", format!("{method} {path}: {status}")),
        What::Signal {
            status,
            script,
            exit_status,
            message,
        } => {
            let script = script.as_ref().map_or(String::new(), |s| format!(" {s}"));
            let exit = exit_status.map_or(String::new(), |s| format!(", exit status {s}"));
            ("signal", join(format!("{status}{script}{exit}"), message))
        }
        What::Report {
            origin,
            name,
            event,
            result,
            description,
        } => {
            let result = result.as_ref().map_or(String::new(), |r| format!(" {r}"));
            (
                "report",
                join(format!("{origin} {name} {event}{result}"), description),
            )
        }
        What::Power {
            command,
            driver,
            error,
        } => match error {
            None => ("power", format!("{command} by {driver}: done")),
            Some(f) => (
                "power",
                format!("{command} by {driver}: {} ({})", f.message, name(&f.class)),
            ),
        },
        What::Syslog {
            severity,
            app,
            text,
        } => ("syslog", format!("<{severity}> {app}: {text}")),
        What::Status { from, to } => ("status", format!("{} to {}", name(from), name(to))),
        What::Note { text } => ("note", text.clone()),
    }
}

fn join(head: String, tail: &str) -> String {
    if tail.is_empty() {
        head
    } else {
        format!("{head}: {tail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_boot_reads_as_a_timeline_with_its_verdict() {
        let second = 1_000_000;
        let boot = |number: i64| {
            json!({
                "number": number, "mac": "52:54:00:00:00:01", "started": 60 * second, "dropped": 3,
                "entries": [
                    {"first": 60 * second, "last": 64 * second, "count": 3, "kind": "dhcp", "message": "discover", "speaker": "firmware", "arch": 7},
                    {"first": 65 * second, "last": 65 * second, "count": 1, "kind": "file", "transport": "tftp", "path": "bootx64.efi", "bytes": 10, "size": 20, "outcome": "aborted"},
                    {"first": 66 * second, "last": 66 * second, "count": 1, "kind": "note", "text": "a\u{1b}b"},
                    {"kind": "from-the-future"},
                ],
                "verdict": {"sentence": "It stopped.", "remedy": "Start it.", "last_seen": "bootx64.efi"},
            })
        };
        let answer =
            json!({"hostname": "node1", "system_id": "abc123", "boots": [boot(2), boot(1)]});
        let expected = "\
node1 (abc123): 2 boots recorded

boot 2 at 1970-01-01T00:01:00Z, from 52:54:00:00:00:01
       +0.0s  DHCP      discover (firmware, architecture 7) (3 times in 4.0 s)
       +5.0s  TFTP      bootx64.efi: aborted, 10 of 20 bytes
       +6.0s  note      a·b
              {\"kind\":\"from-the-future\"}
  3 more were seen and not kept
     verdict  It stopped.
      remedy  Start it.
   last seen  bootx64.efi

boot 1 at 1970-01-01T00:01:00Z, from 52:54:00:00:00:01
  3 more were seen and not kept
     verdict  It stopped.
      remedy  Start it.
   last seen  bootx64.efi

--all shows the earlier boots in full
";
        assert_eq!(render(&answer, false), expected);
    }
}
