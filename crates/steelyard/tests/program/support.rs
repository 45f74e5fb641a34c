//! The program as a process, in a home of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Variables of the environment that would change what the program does.
const FOREIGN: [&str; 12] = [
    "STEELYARD_DATA_DIR",
    "STEELYARD_DATABASE",
    "STEELYARD_PROFILES",
    "STEELYARD_AGENT_DIR",
    "STEELYARD_API_KEY",
    "STEELYARD_LOG",
    "XDG_CONFIG_HOME",
    "http_proxy",
    "HTTP_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
];

/// A directory with a home and a data directory, and the program under its names.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Standard output of a command that must have gone well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Asserts how the command failed, and what it said of that on standard error.
    #[track_caller]
    pub fn fails(self, code: i32, said: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(said), "{said:?} is not in {self:?}");
    }
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "steelyard",
            "maas",
            "maas-region",
            "maas-region-admin",
            "maas-rack",
        ] {
            symlink(env!("CARGO_BIN_EXE_steelyard"), dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn profiles(&self) -> PathBuf {
        self.path(".config/steelyard/profiles.json")
    }

    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut c = Command::new(self.path(name));
        c.args(arguments)
            .env("HOME", self.dir.path())
            .env("STEELYARD_DATA_DIR", self.data())
            .stdin(Stdio::null());
        for name in FOREIGN.iter().filter(|n| **n != "STEELYARD_DATA_DIR") {
            c.env_remove(name);
        }
        c
    }

    pub fn run(&self, name: &str, arguments: &[&str], input: &str) -> Done {
        let mut c = self.command(name, arguments);
        let mut child = c
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read is no failure.
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        let o = child.wait_with_output().unwrap();
        Done {
            code: o.status.code().unwrap_or(-1),
            out: String::from_utf8(o.stdout).unwrap(),
            err: String::from_utf8(o.stderr).unwrap(),
        }
    }

    /// Runs a command on a terminal of its own (`script` of util-linux), where `input` is typed. What it
    /// wrote is in `out`, wherever it wrote it.
    pub fn on_terminal(&self, name: &str, arguments: &[&str], input: &str) -> Done {
        let quoted = |w: &str| format!("'{}'", w.replace('\'', "'\\''"));
        let program = self.path(name).display().to_string();
        let words = std::iter::once(program.as_str()).chain(arguments.iter().copied());
        let line = words.map(quoted).collect::<Vec<_>>().join(" ");
        let like = self.command(name, arguments);
        let mut c = Command::new("script");
        c.args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (key, value) in like.get_envs() {
            match value {
                Some(v) => c.env(key, v),
                None => c.env_remove(key),
            };
        }
        let mut child = c.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let o = child.wait_with_output().unwrap();
        Done {
            code: o.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&o.stdout).replace("\r\n", "\n"),
            err: String::from_utf8_lossy(&o.stderr).into_owned(),
        }
    }

    pub fn steelyard(&self, arguments: &[&str]) -> Done {
        self.run("steelyard", arguments, "")
    }

    pub fn maas(&self, arguments: &[&str]) -> Done {
        self.run("maas", arguments, "")
    }

    pub fn maas_with_input(&self, arguments: &[&str], input: &str) -> Done {
        self.run("maas", arguments, input)
    }

    /// Makes an administrator and gives the API key.
    pub fn admin(&self, name: &str) -> String {
        self.steelyard(&[
            "createadmin",
            "--username",
            name,
            "--password",
            "geheim-1",
            "--email",
            "a@b.example",
        ])
        .ok();
        self.steelyard(&["apikey", "--username", name])
            .ok()
            .trim()
            .to_owned()
    }
}

/// Arguments of `up` that need neither privileges nor free ports nor the internet.
pub const UP: [&str; 8] = [
    "up",
    "--listen",
    "127.0.0.1:0",
    "--http-port",
    "0",
    "--without",
    "dhcp,tftp,syslog",
    "--no-default-images",
];

/// A running process; killed when dropped.
pub struct Up {
    child: Child,
    /// The API, `http://127.0.0.1:PORT/MAAS/`.
    pub url: String,
    /// What it said when it was up.
    pub said: String,
    out: BufReader<ChildStdout>,
}

impl Up {
    pub fn start(place: &Place) -> Self {
        Self::start_with(place, &UP, &[])
    }

    pub fn start_with(place: &Place, arguments: &[&str], environment: &[(&str, &Path)]) -> Self {
        let mut c = place.command("steelyard", arguments);
        c.stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .envs(environment.iter().copied());
        let mut child = c.spawn().unwrap();
        let mut up = Self {
            out: BufReader::new(child.stdout.take().unwrap()),
            child,
            url: String::new(),
            said: String::new(),
        };
        // It says the address among its first lines, or ends.
        while up.url.is_empty() {
            let mut line = String::new();
            assert_ne!(
                up.out.read_line(&mut line).unwrap(),
                0,
                "it ended without saying where it listens: {}",
                up.said
            );
            if let Some(url) = line.trim().strip_prefix("API") {
                url.trim().clone_into(&mut up.url);
            }
            up.said.push_str(&line);
        }
        up
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it with a signal; gives the exit status and everything it said.
    pub fn stop(mut self, signal: Signal) -> (i32, String) {
        self.signal(signal);
        let mut said = std::mem::take(&mut self.said);
        std::io::Read::read_to_string(&mut self.out, &mut said).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), said)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
