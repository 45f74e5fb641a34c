//! Running one script: its environment, its outputs, its time limit, its result.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::index::Script;
use crate::process::{End, Sink, supervise};

/// Bytes of one output that are kept; what comes after is dropped, with a note at the end.
pub const OUTPUT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The files of one script's run.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Both streams together.
    pub combined: PathBuf,
    /// Standard output.
    pub stdout: PathBuf,
    /// Standard error.
    pub stderr: PathBuf,
    /// What the script itself says about its result, as YAML.
    pub result: PathBuf,
}

impl Outputs {
    /// The files of a script below the directory `out`.
    #[must_use]
    pub fn new(out: &Path, script: &Script) -> Self {
        let path = |tail: &str| out.join(format!("{}{tail}", script.file_stem()));
        Self {
            combined: path(""),
            stdout: path(".out"),
            stderr: path(".err"),
            result: path(".yaml"),
        }
    }

    /// The files as a signal carries them: `NAME`, `NAME.out`, `NAME.err`, `NAME.yaml`; empty ones only
    /// where the name has no ending.
    #[must_use]
    pub fn parts(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let read = |path: &Path| -> Option<Vec<u8>> {
            let mut content = Vec::new();
            File::open(path)
                .ok()?
                .take(OUTPUT_BYTES_MAX + 1024)
                .read_to_end(&mut content)
                .ok()?;
            Some(content)
        };
        let files = [
            ("", &self.combined),
            (".out", &self.stdout),
            (".err", &self.stderr),
            (".yaml", &self.result),
        ];
        let named = files
            .into_iter()
            .filter_map(|(tail, path)| Some((format!("{name}{tail}"), read(path)?, tail)));
        named
            .filter(|(_, content, tail)| tail.is_empty() || !content.is_empty())
            .map(|(n, c, _)| (n, c))
            .collect()
    }

    /// Replaces the outputs by one text: for a script that could not run.
    pub fn explain(&self, text: &str) {
        for path in [&self.combined, &self.stderr] {
            // The exit status still tells of the failure when the disk is full.
            open(path)
                .and_then(|mut f| f.write_all(text.as_bytes()))
                .ok();
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// A file that takes no more than [`OUTPUT_BYTES_MAX`].
struct Bounded {
    file: File,
    left: u64,
}

impl Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        let n = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.file.write_all(&bytes[..n])?;
        self.left -= n as u64;
        if self.left == 0 {
            self.file.write_all(b"\n[output cut off here]\n")?;
        }
        Ok(())
    }
}

/// One stream: its own file and the combined one.
struct Tee {
    own: Bounded,
    combined: Arc<Mutex<Bounded>>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.own.write(bytes)?;
        self.combined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.own.file.flush()
    }
}

fn sinks(outputs: &Outputs) -> std::io::Result<[Sink; 2]> {
    let bounded = |path: &Path| {
        Ok::<_, std::io::Error>(Bounded {
            file: open(path)?,
            left: OUTPUT_BYTES_MAX,
        })
    };
    let combined = Arc::new(Mutex::new(bounded(&outputs.combined)?));
    let tee = |path: &Path| {
        Ok::<Sink, std::io::Error>(Box::new(Tee {
            own: bounded(path)?,
            combined: Arc::clone(&combined),
        }))
    };
    Ok([tee(&outputs.stdout)?, tee(&outputs.stderr)?])
}

/// Runs a script's file to its end.
#[must_use]
pub fn run(
    body: &Path,
    arguments: &[String],
    env: &[(String, String)],
    dir: &Path,
    outputs: &Outputs,
    limit: Option<Duration>,
) -> (End, Duration) {
    let sinks = match sinks(outputs) {
        Ok(sinks) => sinks,
        Err(e) => {
            return (
                End::NotStarted(format!("cannot open its output files: {e}")),
                Duration::ZERO,
            );
        }
    };
    let mut command = Command::new(body);
    command
        .args(arguments)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .current_dir(dir);
    supervise(command, None, sinks, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_without_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = Bounded {
            file: open(&path).unwrap(),
            left: 10,
        };
        file.write(b"01234567").unwrap();
        file.write(b"89abcdef").unwrap();
        file.write(b"more").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "0123456789\n[output cut off here]\n"
        );
    }
}
