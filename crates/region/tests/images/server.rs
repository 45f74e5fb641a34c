//! A web server over a directory, with faults: connections that break, files that are altered, files
//! that wait.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub path: String,
    /// Where the range asked for begins.
    pub from: Option<u64>,
}

#[derive(Default)]
struct Faults {
    seen: Vec<Seen>,
    /// Breaks once after this many bytes of the body.
    cut: HashMap<String, usize>,
    /// Sends the first bytes and then waits for ever.
    stuck: HashMap<String, usize>,
    /// Changes the last byte.
    altered: HashSet<String>,
    no_ranges: bool,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    faults: Arc<Mutex<Faults>>,
}

impl Server {
    pub async fn start(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let faults = Arc::new(Mutex::new(Faults::default()));
        let own = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (root, faults) = (root.clone(), Arc::clone(&own));
                tokio::spawn(async move {
                    // A client that goes away is no failure of the test.
                    serve(stream, root, faults).await.ok();
                });
            }
        });
        Self { url, faults }
    }

    pub fn cut(&self, path: &str, after: usize) {
        self.faults
            .lock()
            .unwrap()
            .cut
            .insert(path.to_owned(), after);
    }

    pub fn stick(&self, path: &str, after: usize) {
        self.faults
            .lock()
            .unwrap()
            .stuck
            .insert(path.to_owned(), after);
    }

    pub fn unstick(&self) {
        self.faults.lock().unwrap().stuck.clear();
    }

    pub fn alter(&self, path: &str) {
        self.faults.lock().unwrap().altered.insert(path.to_owned());
    }

    pub fn without_ranges(&self) {
        self.faults.lock().unwrap().no_ranges = true;
    }

    /// The requests for a path.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let faults = self.faults.lock().unwrap();
        faults
            .seen
            .iter()
            .filter(|s| s.path == path)
            .cloned()
            .collect()
    }
}

async fn serve(
    stream: TcpStream,
    root: PathBuf,
    faults: Arc<Mutex<Faults>>,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    let path = first
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/')
        .to_owned();
    let mut from = None;
    while let Some(line) = lines.next_line().await? {
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<u64>().ok();
        }
    }
    let content = std::fs::read(root.join(&path));
    let (cut, stuck, from) = {
        let mut f = faults.lock().unwrap();
        f.seen.push(Seen {
            path: path.clone(),
            from,
        });
        let from = if f.no_ranges { None } else { from };
        (f.cut.remove(&path), f.stuck.get(&path).copied(), from)
    };
    let Ok(mut content) = content else {
        return write
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    };
    if faults.lock().unwrap().altered.contains(&path)
        && let Some(last) = content.last_mut()
    {
        *last ^= 1;
    }
    let start = usize::try_from(from.unwrap_or(0)).unwrap();
    if start >= content.len() && from.is_some() {
        return write
            .write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    }
    let body = &content[start..];
    let head = match from {
        Some(n) => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {n}-{}/{}\r\n",
            content.len() - 1,
            content.len()
        ),
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    let head = format!(
        "{head}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    write.write_all(head.as_bytes()).await?;
    let least = |n: usize| n.min(body.len());
    if let Some(n) = cut {
        write.write_all(&body[..least(n)]).await?;
        return write.shutdown().await;
    }
    if let Some(n) = stuck {
        write.write_all(&body[..least(n)]).await?;
        write.flush().await?;
        return std::future::pending().await;
    }
    write.write_all(body).await
}
