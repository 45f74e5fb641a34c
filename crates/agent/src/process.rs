//! External commands: run with a time limit, their output bounded, their failure told in full.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Bytes of each output stream that are kept: the end of it.
pub const OUTPUT_KEPT: usize = 16 * 1024;
/// Bytes of each output stream that a failure shows.
const OUTPUT_SHOWN: usize = 4 * 1024;
/// Time a command may take when nothing else was said.
pub const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long output is awaited after the command itself ended: a daemon it left behind may hold the pipes.
const OUTPUT_GRACE: Duration = Duration::from_secs(5);

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It ran over its time and was killed.
    TimedOut(Duration),
    /// It could not be started.
    NotStarted(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(n) => write!(f, "exit status {n}"),
            Self::Killed(n) => write!(f, "killed by signal {n}"),
            Self::TimedOut(after) => {
                write!(f, "killed after {} s, its time limit", after.as_secs())
            }
            Self::NotStarted(why) => write!(f, "not started: {why}"),
        }
    }
}

/// A command of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What it reads.
    pub stdin: Option<String>,
    /// Variables added to the environment.
    pub env: Vec<(String, String)>,
    /// Where its standard output goes instead of being kept.
    pub stdout_to: Option<PathBuf>,
    /// Time limit.
    pub limit: Duration,
}

impl Cmd {
    /// A command with the default time limit and nothing to read.
    #[must_use]
    pub fn new<S: AsRef<str>>(argv: &[S]) -> Self {
        Self {
            argv: argv.iter().map(|a| a.as_ref().to_owned()).collect(),
            stdin: None,
            env: Vec::new(),
            stdout_to: None,
            limit: TIME_LIMIT,
        }
    }

    /// The same, reading `text`.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// The same with a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, argument) in self.argv.iter().enumerate() {
            if n > 0 {
                f.write_char(' ')?;
            }
            let plain = !argument.is_empty()
                && argument
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_./=:,+@%*".contains(&b));
            if plain {
                f.write_str(argument)?
            } else {
                write!(f, "'{}'", argument.replace('\'', "'\\''"))?
            }
        }
        Ok(())
    }
}

/// What came out of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub end: End,
    /// The end of its standard output.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr: String,
}

/// A command that did not end with status 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFailed {
    /// The command line.
    pub command: String,
    /// What came out.
    pub output: Output,
}

fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(OUTPUT_SHOWN);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].trim_end()
}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.command, self.output.end)?;
        for (name, text) in [
            ("stderr", &self.output.stderr),
            ("stdout", &self.output.stdout),
        ] {
            if !text.trim().is_empty() {
                write!(f, "\n{name}: {}", tail(text))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for CommandFailed {}

/// Runs commands. The real one is [`Host`]; tests record.
pub trait Runner: Send + Sync {
    /// Runs a command to its end. `source`, when given, is copied into its standard input.
    fn run(&self, cmd: &Cmd, source: Option<&mut dyn Read>) -> Output;

    /// Whether a program can be found.
    fn has(&self, program: &str) -> bool;
}

/// Runs a command that must end with status 0.
///
/// # Errors
/// When it did not.
pub fn must(runner: &dyn Runner, cmd: &Cmd) -> Result<Output, CommandFailed> {
    judge(cmd, runner.run(cmd, None))
}

/// Makes a failure of an end other than status 0.
///
/// # Errors
/// When the end is another.
pub fn judge(cmd: &Cmd, output: Output) -> Result<Output, CommandFailed> {
    match output.end {
        End::Exited(0) => Ok(output),
        _ => Err(CommandFailed {
            command: cmd.to_string(),
            output,
        }),
    }
}

/// Commands of the running system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

/// Keeps the end of what is written to it.
#[derive(Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        if kept.len() > 2 * OUTPUT_KEPT {
            let surplus = kept.len() - OUTPUT_KEPT;
            kept.drain(..surplus);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Runner for Host {
    fn run(&self, cmd: &Cmd, source: Option<&mut dyn Read>) -> Output {
        let failed = |why: String| Output {
            end: End::NotStarted(why),
            stdout: String::new(),
            stderr: String::new(),
        };
        let Some((program, arguments)) = cmd.argv.split_first() else {
            return failed("no program".to_owned());
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .envs(cmd.env.iter().map(|(k, v)| (k, v)));
        let (stdout, stderr) = (Tail::default(), Tail::default());
        let (kept_out, kept_err) = (Arc::clone(&stdout.0), Arc::clone(&stderr.0));
        let out: Sink = match &cmd.stdout_to {
            None => Box::new(stdout),
            Some(path) => match OpenOptions::new().write(true).open(path) {
                Ok(file) => Box::new(file),
                Err(e) => return failed(format!("cannot open {}: {e}", path.display())),
            },
        };
        let mut text = cmd.stdin.as_deref().unwrap_or_default().as_bytes();
        let input: Option<&mut dyn Read> = match source {
            Some(source) => Some(source),
            None => cmd.stdin.is_some().then_some(&mut text),
        };
        let (end, _) = supervise(command, input, [out, Box::new(stderr)], Some(cmd.limit));
        let take = |kept: &Mutex<Vec<u8>>| {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&kept[kept.len().saturating_sub(OUTPUT_KEPT)..]).into_owned()
        };
        Output {
            end,
            stdout: take(&kept_out),
            stderr: take(&kept_err),
        }
    }

    fn has(&self, program: &str) -> bool {
        let path =
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    }
}

/// Where an output stream is written to.
pub type Sink = Box<dyn Write + Send>;

/// Kills a process group when its time is over.
struct Watchdog {
    done: SyncSender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    fn start(pid: Pid, limit: Duration) -> Self {
        let (done, ended): (_, Receiver<()>) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let over = ended.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if over {
                // Not yet waited for, so the number still belongs to it; a group that is gone is no error.
                rustix::process::kill_process_group(pid, Signal::KILL).ok();
            }
            over
        });
        Self { done, thread }
    }

    /// Whether it had to kill.
    fn stop(self) -> bool {
        // It may have ended by itself; then nobody listens.
        self.done.send(()).ok();
        self.thread.join().unwrap_or(false)
    }
}

fn drain(mut from: impl Read + Send + 'static, mut to: Sink, done: SyncSender<()>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0u8; 64 * 1024];
        let mut writable = true;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => writable = writable && to.write_all(&buffer[..n]).is_ok(),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if writable {
            // What cannot be flushed cannot be read back either; the reader notices.
            to.flush().ok();
        }
        drop(to);
        // Nobody waits any more when the grace time was over.
        done.send(()).ok();
    });
}

fn feed(child: &mut Child, input: Option<&mut dyn Read>) {
    let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) else {
        return;
    };
    let mut buffer = vec![0u8; 128 * 1024];
    loop {
        match input.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            // A program that stops reading says why with its exit status.
            Ok(n) => {
                if stdin.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
        }
    }
}

/// Runs `command` in a process group of its own, with its output going to `sinks` (standard output,
/// standard error) and `input` copied into it; kills the whole group after `limit`.
pub fn supervise(
    mut command: Command,
    input: Option<&mut dyn Read>,
    sinks: [Sink; 2],
    limit: Option<Duration>,
) -> (End, Duration) {
    let started = Instant::now();
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return (End::NotStarted(e.to_string()), started.elapsed()),
    };
    let [out, err] = sinks;
    // One word from each of the two streams.
    let (done, drained) = sync_channel(2);
    let mut streams = 0;
    if let Some(stdout) = child.stdout.take() {
        drain(stdout, out, done.clone());
        streams += 1;
    }
    if let Some(stderr) = child.stderr.take() {
        drain(stderr, err, done);
        streams += 1;
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let watchdog = pid
        .zip(limit)
        .map(|(pid, limit)| Watchdog::start(pid, limit));
    feed(&mut child, input);
    drop(child.stdin.take());
    // Wait without reaping first: the watchdog must never kill a number that was given to another process.
    if let Some(pid) = pid {
        while matches!(
            rustix::process::waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT
            ),
            Err(rustix::io::Errno::INTR)
        ) {}
    }
    let killed = watchdog.is_some_and(Watchdog::stop);
    let status = child.wait();
    let took = started.elapsed();
    let deadline = Instant::now() + OUTPUT_GRACE;
    for _ in 0..streams {
        if drained
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_err()
        {
            break;
        }
    }
    let end = match status {
        _ if killed => End::TimedOut(limit.unwrap_or_default()),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Killed(signal.unwrap_or(0)),
        },
        Err(e) => End::NotStarted(e.to_string()),
    };
    (end, took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_command_status_and_output() {
        let cmd = Cmd::new(&["sh", "-c", "echo out; echo bad thing >&2; exit 3"]);
        let failed = must(&Host, &cmd).unwrap_err();
        let text = failed.to_string();
        assert!(
            text.contains("`sh -c 'echo out; echo bad thing >&2; exit 3'`: exit status 3"),
            "{text}"
        );
        assert!(
            text.contains("stderr: bad thing") && text.contains("stdout: out"),
            "{text}"
        );
    }

    #[test]
    fn a_command_over_its_time_is_killed_with_its_children() {
        let mut cmd = Cmd::new(&["sh", "-c", "sleep 600 & sleep 600"]);
        cmd.limit = Duration::from_millis(50);
        let output = Host.run(&cmd, None);
        assert!(matches!(output.end, End::TimedOut(_)), "{:?}", output.end);
    }

    #[test]
    fn input_reaches_the_command_and_long_output_keeps_its_end() {
        let output = Host.run(&Cmd::new(&["cat"]).stdin("hello"), None);
        assert_eq!(
            (output.end, output.stdout.as_str()),
            (End::Exited(0), "hello")
        );
        let output = Host.run(&Cmd::new(&["sh", "-c", "seq 1 20000"]), None);
        assert!(output.stdout.len() <= OUTPUT_KEPT && output.stdout.ends_with("20000\n"));
    }

    #[test]
    fn a_program_that_does_not_exist_is_said_so() {
        assert!(matches!(
            Host.run(&Cmd::new(&["/no/such/program"]), None).end,
            End::NotStarted(_)
        ));
        assert!(Host.has("sh") && !Host.has("no-such-program-here"));
    }
}
