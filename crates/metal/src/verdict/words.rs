//! What was seen, in words.

use crate::Timestamp;
use crate::boot::Purpose;
use crate::timeline::{Entry, FileOutcome, What};

/// Longest quotation from an entry, in characters.
pub(super) const QUOTE: usize = 300;

/// A text from outside: one line, not too long.
pub(super) fn quote(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(QUOTE)
        .collect();
    if text.chars().nth(QUOTE).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

const fn purpose(p: Purpose) -> &'static str {
    match p {
        Purpose::Enlist => "enlist",
        Purpose::Commissioning => "boot the ephemeral system",
        Purpose::Xinstall => "boot the ephemeral system and install",
        Purpose::Local => "boot its disk",
        Purpose::Poweroff => "power off",
    }
}

const fn ended(o: FileOutcome) -> &'static str {
    match o {
        FileOutcome::Complete => "sent whole",
        FileOutcome::Probed => "only its size was asked for",
        FileOutcome::Aborted => "the machine stopped taking it",
        FileOutcome::NotFound => "there is no such file",
        FileOutcome::Failed => "it could not be read",
    }
}

/// What an entry says.
pub(super) fn describe(what: &What) -> String {
    match what {
        What::Dhcp {
            message,
            speaker,
            boot_file,
            ..
        } => {
            let file = boot_file
                .as_ref()
                .map(|f| format!(", boot file {}", quote(f)))
                .unwrap_or_default();
            format!("DHCP {} ({}{file})", quote(message), quote(speaker))
        }
        What::File {
            transport,
            path,
            bytes,
            size,
            outcome,
        } => {
            let of = size.map(|s| format!(" of {s}")).unwrap_or_default();
            format!(
                "{} over {}, {bytes}{of} bytes, {}",
                quote(path),
                quote(transport),
                ended(*outcome)
            )
        }
        What::Config {
            loader, purpose: p, ..
        } => format!("the {} configuration to {}", quote(loader), purpose(*p)),
        What::Metadata {
            method,
            path,
            status,
        } => format!("{} {} answered with {status}", quote(method), quote(path)),
        What::Signal {
            status,
            script,
            exit_status,
            message,
        } => {
            let script = script
                .as_ref()
                .map(|s| format!(" of {}", quote(s)))
                .unwrap_or_default();
            let exit = exit_status
                .map(|e| format!(" (exit status {e})"))
                .unwrap_or_default();
            let said = Some(quote(message))
                .filter(|m| !m.is_empty())
                .map(|m| format!(": {m}"))
                .unwrap_or_default();
            format!("signal {}{script}{exit}{said}", quote(status))
        }
        What::Report {
            name,
            event,
            result,
            description,
            ..
        } => {
            let result = result
                .as_ref()
                .map(|r| format!(" {}", quote(r)))
                .unwrap_or_default();
            let said = Some(quote(description))
                .filter(|d| !d.is_empty())
                .map(|d| format!(": {d}"))
                .unwrap_or_default();
            format!("{} of step {}{result}{said}", quote(event), quote(name))
        }
        What::Power { command, error, .. } => match error {
            None => format!("power command '{}', carried out", quote(command)),
            Some(e) => format!(
                "power command '{}', failed: {}",
                quote(command),
                quote(&e.message)
            ),
        },
        What::Syslog { app, text, .. } => format!("log line of {}: {}", quote(app), quote(text)),
        What::Status { from, to } => format!("status from {from} to {to}"),
        What::Note { text } => quote(text),
    }
}

/// A span of time for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// The entry and when it was, counted from the start of the boot.
pub(super) fn last_seen(entry: &Entry, start: Timestamp, after: &str) -> String {
    let words = describe(&entry.what);
    let words = words.trim_end_matches('.');
    let times = if entry.count > 1 {
        format!(", {} times", entry.count)
    } else {
        String::new()
    };
    format!(
        "{words}{times}, {} after {after}",
        span(entry.last.since(start).as_secs())
    )
}
