//! An image mirror that stops in the middle of a file until it is told to go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The mirror; ends with its runtime.
pub struct SlowMirror {
    pub url: String,
    held: watch::Receiver<u32>,
    open: watch::Sender<bool>,
}

struct Shared {
    dir: PathBuf,
    /// Of files with this name only the first half is sent while the mirror holds.
    slow: &'static str,
    held: watch::Sender<u32>,
    open: watch::Receiver<bool>,
}

impl SlowMirror {
    pub async fn start(dir: &Path, slow: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (held, seen) = watch::channel(0);
        let (open, opened) = watch::channel(false);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            slow,
            held,
            open: opened,
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A client that went away is no matter.
                tokio::spawn(async move { answer(stream, &shared).await.ok() });
            }
        });
        Self {
            url,
            held: seen,
            open,
        }
    }

    /// Waits until somebody has got half of the slow file.
    pub async fn in_the_middle(&mut self) {
        let held = self.held.wait_for(|n| *n > 0);
        let held = tokio::time::timeout(std::time::Duration::from_secs(60), held).await;
        held.expect("somebody asks for the file")
            .expect("the mirror runs");
    }

    /// From now on it sends everything.
    pub fn go_on(&self) {
        self.open.send_replace(true);
    }
}

async fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    let mut from = 0;
    while let Some(line) = lines.next_line().await?.filter(|l| !l.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap_or(0);
        }
    }
    let path = first
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/');
    let Ok(content) = std::fs::read(shared.dir.join(path)) else {
        let none = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return write.write_all(none).await;
    };
    let rest = &content[from.min(content.len())..];
    let status = if from == 0 {
        "200 OK".to_owned()
    } else {
        format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            content.len() - 1,
            content.len()
        )
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    );
    write.write_all(head.as_bytes()).await?;
    if path.ends_with(shared.slow) && !*shared.open.borrow() {
        write.write_all(&rest[..rest.len() / 2]).await?;
        write.flush().await?;
        shared.held.send_modify(|n| *n += 1);
        // Then the connection ends in the middle.
        shared.open.clone().wait_for(|open| *open).await.ok();
        return Ok(());
    }
    write.write_all(rest).await?;
    write.flush().await
}
