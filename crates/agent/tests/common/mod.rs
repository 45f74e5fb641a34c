//! What the tests share: a metadata service on a loopback port, a machine made of files, and commands
//! that are written down instead of run.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::config::Config;
use agent::http::{Http, Patience};
use agent::journal::Journal;
use agent::metadata::Metadata;
use agent::process::{Cmd, End, Host, Output, Runner};

pub const SECRET: &str = "s3cret-of-the-machine";

/// Short waits, so that what is retried is retried at once.
pub const HASTY: Patience = Patience {
    first: Duration::from_millis(2),
    most: Duration::from_millis(10),
    limit: Duration::from_secs(20),
};

// ---------------------------------------------------------------- the service

#[derive(Clone, Debug)]
pub struct Req {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Req {
    /// Parts of a multipart body: name, content.
    pub fn parts(&self) -> Vec<(String, Vec<u8>)> {
        let kind = self
            .headers
            .get("content-type")
            .cloned()
            .unwrap_or_default();
        let Some((_, boundary)) = kind.split_once("boundary=") else {
            return Vec::new();
        };
        let mark = format!("--{boundary}").into_bytes();
        let mut out = Vec::new();
        let mut at = find(&self.body, &mark, 0).expect("a first boundary");
        loop {
            at += mark.len();
            if self.body[at..].starts_with(b"--") {
                return out;
            }
            let next = find(&self.body, &mark, at).expect("a next boundary");
            let part = &self.body[at + 2..next - 2];
            let head_end = find(part, b"\r\n\r\n", 0).expect("a head");
            let head = String::from_utf8_lossy(&part[..head_end]).into_owned();
            let name = head
                .split("name=\"")
                .nth(1)
                .and_then(|r| r.split('"').next())
                .expect("a name")
                .to_owned();
            out.push((name, part[head_end + 4..].to_vec()));
            at = next;
        }
    }

    pub fn field(&self, name: &str) -> Option<String> {
        self.parts()
            .into_iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| String::from_utf8_lossy(&v).into_owned())
    }

    /// Signed with the machine's key.
    pub fn is_signed(&self) -> bool {
        self.headers.get("authorization").is_some_and(|a| {
            a.starts_with("OAuth ")
                && a.contains("oauth_signature_method=\"PLAINTEXT\"")
                && a.contains("oauth_consumer_key=\"consumer-1\"")
                && a.contains("oauth_token=\"token-1\"")
                && a.contains(&format!("oauth_signature=\"%26{SECRET}\""))
                && a.contains("oauth_nonce=\"")
                && a.contains("oauth_timestamp=\"")
        })
    }
}

fn find(hay: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    hay[from..]
        .windows(needle.len())
        .position(|w| w == needle)
        .map(|n| n + from)
}

pub struct Resp {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Resp {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

pub struct Server {
    pub url: String,
    log: Arc<Mutex<Vec<Req>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Req) -> Resp + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, ended, handler) = (Arc::clone(&log), Arc::clone(&stop), Arc::new(handler));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &*handler));
            }
        });
        Self {
            url: format!("http://{address}"),
            log,
            stop,
            thread: Some(thread),
        }
    }

    pub fn requests(&self) -> Vec<Req> {
        self.log.lock().unwrap().clone()
    }

    /// The signals that were accepted: status word and request.
    pub fn signals(&self) -> Vec<(String, Req)> {
        let posts = self
            .requests()
            .into_iter()
            .filter(|r| r.method == "POST" && r.path == "/MAAS/metadata/2012-03-01/");
        posts
            .filter(|r| r.field("op").as_deref() == Some("signal"))
            .map(|r| (r.field("status").unwrap(), r))
            .collect()
    }

    /// The webhook events, in order.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let posts = self
            .requests()
            .into_iter()
            .filter(|r| r.path.starts_with("/MAAS/metadata/status/"));
        posts
            .map(|r| serde_json::from_slice(&r.body).unwrap())
            .collect()
    }

    pub fn preseed(&self) -> String {
        format!(
            "#cloud-config\ndatasource:\n  MAAS:\n    consumer_key: consumer-1\n    metadata_url: {0}/MAAS/metadata/\n    token_key: token-1\n    token_secret: {SECRET}\n\
             reporting:\n  maas: {{type: webhook, endpoint: '{0}/MAAS/metadata/status/abc123', consumer_key: consumer-1, token_key: token-1, token_secret: {SECRET}}}\n",
            self.url
        )
    }

    pub fn metadata(&self, journal: &Journal) -> Metadata {
        Metadata::new(
            Http::new(journal.clone()),
            Config::parse(&self.preseed()).unwrap(),
            HASTY,
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.url.trim_start_matches("http://")).ok();
        self.thread.take().unwrap().join().ok();
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Req>>,
    handler: &(impl Fn(&Req) -> Resp + ?Sized),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim().split_once(':') {
            Some((k, v)) => headers.insert(k.to_lowercase(), v.trim().to_owned()),
            None => break,
        };
    }
    let length = headers
        .get("content-length")
        .map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = Req {
        method,
        path,
        headers,
        body,
    };
    let response = handler(&request);
    // Only what was accepted counts: the client repeats the rest.
    if response.status < 400 {
        seen.lock().unwrap().push(request);
    }
    let mut head = format!(
        "HTTP/1.1 {} x\r\nContent-Length: {}\r\nConnection: close\r\n",
        response.status,
        response.body.len()
    );
    response
        .headers
        .iter()
        .for_each(|(k, v)| head.push_str(&format!("{k}: {v}\r\n")));
    head.push_str("\r\n");
    let sent = response
        .cut
        .unwrap_or(response.body.len())
        .min(response.body.len());
    // A client that went away is what some tests are about.
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&response.body[..sent]))
        .ok();
}

/// A file with ranges. The first answer of each entry in `cuts` breaks off after so many bytes.
pub fn serve_file(request: &Req, content: &[u8], cuts: &Mutex<Vec<usize>>) -> Resp {
    let from = request.headers.get("range").map(|r| {
        r.trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse::<usize>()
            .unwrap()
    });
    let mut response = match from {
        None => Resp::new(200, content),
        Some(from) => Resp::new(206, &content[from..]).header(
            "Content-Range",
            &format!("bytes {from}-{}/{}", content.len() - 1, content.len()),
        ),
    };
    response.cut = cuts.lock().unwrap().pop();
    response
}

pub fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        out.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    out.into_inner().unwrap()
}

// ---------------------------------------------------------------- the machine

pub struct Machine {
    pub root: PathBuf,
}

impl Machine {
    pub fn new(root: &Path) -> Self {
        std::fs::create_dir_all(root).unwrap();
        Self {
            root: root.to_owned(),
        }
    }

    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub fn files(&self, dir: &str, files: &[(&str, &str)]) -> &Self {
        for (name, content) in files {
            self.file(&format!("{dir}/{name}"), content);
        }
        self
    }

    /// A link from one path of the machine to another, relative, as sysfs has them.
    pub fn link(&self, at: &str, to: &str) -> &Self {
        let path = self.root.join(at);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(
            format!("{}{to}", "../".repeat(at.matches('/').count())),
            path,
        )
        .unwrap();
        self
    }

    /// A PCI device at `sys/devices/PLACE`.
    pub fn pci(
        &self,
        place: &str,
        vendor: &str,
        device: &str,
        class: &str,
        driver: &str,
        numa: &str,
    ) -> &Self {
        let address = place.rsplit('/').next().unwrap();
        let dir = format!("sys/devices/{place}");
        self.files(
            &dir,
            &[
                ("vendor", vendor),
                ("device", device),
                ("class", class),
                ("numa_node", numa),
                ("modalias", &format!("pci:v{vendor}d{device}")),
            ],
        );
        self.link(&format!("sys/bus/pci/devices/{address}"), &dir);
        if !driver.is_empty() {
            self.file(&format!("sys/bus/pci/drivers/{driver}/.keep"), "");
            self.link(
                &format!("{dir}/driver"),
                &format!("sys/bus/pci/drivers/{driver}"),
            );
        }
        self
    }

    /// A disk whose sysfs directory is below `sys/devices/PLACE/block`.
    pub fn disk(
        &self,
        place: &str,
        name: &str,
        dev: &str,
        sectors: u64,
        extra: &[(&str, &str)],
    ) -> &Self {
        let dir = format!("sys/devices/{place}/block/{name}");
        self.files(
            &dir,
            &[
                ("size", &sectors.to_string()),
                ("dev", dev),
                ("ro", "0"),
                ("removable", "0"),
                ("queue/logical_block_size", "512"),
                ("queue/rotational", "0"),
            ],
        );
        self.files(&dir, extra);
        self.link(&format!("{dir}/device"), &format!("sys/devices/{place}"));
        self.link(&format!("sys/block/{name}"), &dir);
        self
    }

    pub fn partition(
        &self,
        disk: &str,
        name: &str,
        number: u32,
        start: u64,
        sectors: u64,
    ) -> &Self {
        let dir = format!("sys/block/{disk}/{name}");
        self.files(
            &dir,
            &[
                ("partition", &number.to_string()),
                ("start", &start.to_string()),
                ("size", &sectors.to_string()),
                ("ro", "0"),
                ("dev", &format!("254:{number}")),
            ],
        )
    }

    pub fn nic(&self, place: &str, name: &str, mac: &str, extra: &[(&str, &str)]) -> &Self {
        let dir = format!("sys/devices/{place}/net/{name}");
        self.files(
            &dir,
            &[
                ("type", "1"),
                ("address", mac),
                ("mtu", "1500"),
                ("flags", "0x1003"),
                ("dev_port", "0"),
            ],
        );
        self.files(&dir, extra);
        self.link(&format!("{dir}/device"), &format!("sys/devices/{place}"));
        self.link(&format!("sys/class/net/{name}"), &dir)
    }

    pub fn cpu(&self, id: u32, package: u32, core: u32) -> &Self {
        let id_text = id.to_string();
        self.files(
            &format!("sys/devices/system/cpu/cpu{id}"),
            &[
                ("topology/physical_package_id", &package.to_string()),
                ("topology/core_id", &core.to_string()),
                ("topology/die_id", "0"),
                ("online", "1"),
                (".id", &id_text),
            ],
        )
    }
}

// ---------------------------------------------------------------- commands

pub type Hook = Box<dyn Fn(&Cmd) -> Option<Output> + Send + Sync>;

/// Writes commands down. Some really run, some do what a hook says, all others succeed silently.
#[derive(Default)]
pub struct Recorder {
    pub log: Mutex<Vec<Cmd>>,
    pub missing: Vec<&'static str>,
    pub real: Vec<&'static str>,
    pub hooks: Vec<(String, Hook)>,
}

pub fn ok(stdout: &str) -> Output {
    Output {
        end: End::Exited(0),
        stdout: stdout.to_owned(),
        stderr: String::new(),
    }
}

pub fn fails(status: i32, stderr: &str) -> Output {
    Output {
        end: End::Exited(status),
        stdout: String::new(),
        stderr: stderr.to_owned(),
    }
}

impl Recorder {
    /// Commands that contain `words` get what `hook` returns.
    pub fn on(
        mut self,
        words: &str,
        hook: impl Fn(&Cmd) -> Option<Output> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.push((words.to_owned(), Box::new(hook)));
        self
    }

    pub fn lines(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Place of the first command that contains `words`.
    pub fn place(&self, words: &str) -> usize {
        let lines = self.lines();
        lines
            .iter()
            .position(|l| l.contains(words))
            .unwrap_or_else(|| panic!("no `{words}` in\n{}", lines.join("\n")))
    }

    pub fn never(&self, words: &str) -> bool {
        !self.lines().iter().any(|l| l.contains(words))
    }
}

impl Runner for Recorder {
    fn run(&self, cmd: &Cmd, source: Option<&mut dyn Read>) -> Output {
        self.log.lock().unwrap().push(cmd.clone());
        let line = cmd.to_string();
        if let Some(output) = self
            .hooks
            .iter()
            .filter(|(words, _)| line.contains(words.as_str()))
            .find_map(|(_, hook)| hook(cmd))
        {
            return output;
        }
        if self.real.iter().any(|r| *r == cmd.argv[0]) {
            return Host.run(cmd, source);
        }
        if let Some(source) = source {
            std::io::copy(source, &mut std::io::sink()).ok();
        }
        ok("")
    }

    fn has(&self, program: &str) -> bool {
        !self.missing.contains(&program)
    }
}
