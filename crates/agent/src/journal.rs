//! The agent's log: lines to the console and to a file, with secrets taken out.

use std::collections::VecDeque;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of log kept in memory for the report of an installation; older lines are dropped.
pub const KEPT_BYTES: usize = 256 * 1024;
/// Shortest text that is treated as a secret: anything shorter would blank out half of the log.
const SECRET_LEN_MIN: usize = 6;
/// What stands in the log where a secret was.
const HIDDEN: &str = "[hidden]";

/// The log. Clones write to the same place.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    started: Instant,
    console: bool,
    file: Mutex<Option<File>>,
    secrets: Mutex<Vec<String>>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    dropped: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// A log that is kept in memory only: for tests.
    #[must_use]
    pub fn quiet() -> Self {
        Self::new(false, None)
    }

    /// A log that goes to the standard error stream and, when it can be opened, to `path`.
    #[must_use]
    pub fn console(path: &Path) -> Self {
        if let Some(parent) = path.parent() {
            // Without the directory there is no file; the console still has every line.
            std::fs::create_dir_all(parent).ok();
        }
        Self::new(
            true,
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)
                .ok(),
        )
    }

    fn new(console: bool, file: Option<File>) -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            console,
            file: Mutex::new(file),
            secrets: Mutex::default(),
            kept: Mutex::default(),
        }))
    }

    /// From now on `secret` appears nowhere in the log.
    pub fn hide(&self, secret: &str) {
        let mut secrets = lock(&self.0.secrets);
        if secret.len() >= SECRET_LEN_MIN && !secrets.iter().any(|s| s == secret) {
            secrets.push(secret.to_owned());
        }
    }

    /// `text` without the secrets.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        lock(&self.0.secrets).iter().fold(text.to_owned(), |t, s| {
            if t.contains(s.as_str()) {
                t.replace(s, HIDDEN)
            } else {
                t
            }
        })
    }

    /// Writes one entry; line breaks inside are kept.
    pub fn line(&self, text: impl Display) {
        let text = self.redact(&text.to_string());
        let line = format!(
            "[{:9.3}] steelyard-agent: {text}\n",
            self.0.started.elapsed().as_secs_f64()
        );
        if self.0.console {
            // A console that cannot be written to must not stop the work.
            std::io::stderr().lock().write_all(line.as_bytes()).ok();
        }
        if let Some(file) = lock(&self.0.file).as_mut() {
            // The same for a full disk.
            file.write_all(line.as_bytes()).ok();
        }
        let mut kept = lock(&self.0.kept);
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.bytes > KEPT_BYTES {
            let Some(old) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= old.len();
            kept.dropped += 1;
        }
    }

    /// The lines kept in memory, oldest first.
    #[must_use]
    pub fn text(&self) -> String {
        let kept = lock(&self.0.kept);
        let mut out = String::with_capacity(kept.bytes + 64);
        if kept.dropped > 0 {
            out.push_str(&format!("[{} earlier entries dropped]\n", kept.dropped));
        }
        kept.lines.iter().for_each(|l| out.push_str(l));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_reach_the_log() {
        let journal = Journal::quiet();
        journal.hide("abcdefgh12345");
        journal.hide("ab");
        journal.line("token abcdefgh12345 of ab");
        assert!(
            journal.text().contains("token [hidden] of ab"),
            "{}",
            journal.text()
        );
    }

    #[test]
    fn the_kept_log_is_bounded() {
        let journal = Journal::quiet();
        for n in 0..4000 {
            journal.line(format_args!("{n} {}", "x".repeat(200)));
        }
        let text = journal.text();
        assert!(text.len() <= KEPT_BYTES + 64);
        assert!(
            text.contains("earlier entries dropped")
                && text.contains("3999 xxx")
                && !text.contains(" 0 xxx")
        );
    }
}
