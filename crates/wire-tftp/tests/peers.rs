//! Stock clients (tftp-hpa, atftp, curl) fetch files from a loop around the state machine. A
//! client that is not installed is a failure.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::task::JoinSet;
use wire_tftp::{
    Action, ErrorCode, FailReason, Input, Limits, ReadRequest, Summary, Transfer, error_reply,
    unknown_transfer_reply,
};

/// A client that takes longer has failed.
const CLIENT_LIMIT: Duration = Duration::from_secs(180);

type Files = Arc<HashMap<String, Vec<u8>>>;
type Outcomes = Arc<Mutex<Vec<(String, Result<Summary, FailReason>)>>>;

/// Serves one transfer on its own socket.
async fn transfer(
    request: ReadRequest,
    client: SocketAddr,
    files: Files,
    limits: Limits,
    outcomes: Outcomes,
) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let Some(file) = files.get(&request.filename) else {
        let reply = error_reply(ErrorCode::FileNotFound, "no such file");
        socket.send_to(&reply, client).await.expect("send");
        return;
    };
    let (mut transfer, mut actions) =
        Transfer::begin(&request, file.len() as u64, &limits, Instant::now());
    let mut buffer = vec![0; 2048];
    loop {
        while !actions.is_empty() {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Send(datagram) => {
                        socket.send_to(&datagram, client).await.expect("send");
                    }
                    Action::Read { offset, len } => {
                        let from = usize::try_from(offset).expect("test files fit");
                        let bytes = &file[from..from + len];
                        actions = transfer.handle(Input::Data { offset, bytes }, Instant::now());
                    }
                    Action::Done(summary) | Action::Probed(summary) => {
                        outcomes
                            .lock()
                            .expect("lock")
                            .push((request.filename.clone(), Ok(summary)));
                        return;
                    }
                    Action::Failed { reason, .. } => {
                        outcomes
                            .lock()
                            .expect("lock")
                            .push((request.filename.clone(), Err(reason)));
                        return;
                    }
                }
            }
        }
        let deadline = transfer.deadline().expect("waiting for the client");
        actions =
            match tokio::time::timeout_at(deadline.into(), socket.recv_from(&mut buffer)).await {
                Ok(Ok((len, from))) if from == client => {
                    transfer.handle(Input::Packet(&buffer[..len]), Instant::now())
                }
                Ok(Ok((_, stranger))) => {
                    socket
                        .send_to(&unknown_transfer_reply(), stranger)
                        .await
                        .expect("send");
                    Vec::new()
                }
                // ICMP "port unreachable": the client is gone, the timer will say so.
                Ok(Err(_)) => Vec::new(),
                Err(_) => transfer.handle(Input::Timeout, Instant::now()),
            };
    }
}

async fn listen(socket: UdpSocket, files: Files, limits: Limits, outcomes: Outcomes) {
    let active: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let mut transfers = JoinSet::new();
    let mut buffer = vec![0; 2048];
    loop {
        let (len, client) = socket.recv_from(&mut buffer).await.expect("receive");
        match ReadRequest::parse(&buffer[..len]) {
            Ok(request) => {
                // A request sent again while its transfer runs is no second transfer.
                if active.lock().expect("lock").insert(client) {
                    let (files, limits, outcomes) =
                        (files.clone(), limits.clone(), outcomes.clone());
                    let active = active.clone();
                    transfers.spawn(async move {
                        transfer(request, client, files, limits, outcomes).await;
                        active.lock().expect("lock").remove(&client);
                    });
                }
            }
            Err(refusal) => {
                if let Some(reply) = refusal.reply {
                    socket.send_to(&reply, client).await.expect("send");
                }
            }
        }
        while transfers.try_join_next().is_some() {}
    }
}

struct Server {
    port: u16,
    files: Files,
    outcomes: Outcomes,
    _tasks: JoinSet<()>,
    dir: tempfile::TempDir,
}

const MEBIBYTE: usize = 1 << 20;

async fn server(limits: Limits) -> Server {
    let mut files = HashMap::new();
    for size in [
        0,
        1,
        511,
        512,
        513,
        1407,
        1408,
        1409,
        MEBIBYTE,
        40 * MEBIBYTE,
    ] {
        files.insert(format!("file-{size}"), content(size));
    }
    let files = Arc::new(files);
    let outcomes = Outcomes::default();
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let port = socket.local_addr().expect("bound").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(listen(socket, files.clone(), limits, outcomes.clone()));
    Server {
        port,
        files,
        outcomes,
        _tasks: tasks,
        dir: tempfile::tempdir().expect("a directory"),
    }
}

fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

impl Server {
    /// Runs a client that stores the file at the path given to `command`, compares, and returns
    /// what the server says about the transfer.
    async fn fetch(&self, name: &str, command: impl FnOnce(&Path) -> Command) -> Summary {
        let target = self.dir.path().join("received");
        std::fs::remove_file(&target).ok(); // absent the first time
        self.outcomes.lock().expect("lock").clear();
        let mut command = command(&target);
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(CLIENT_LIMIT, command.output())
            .await
            .unwrap_or_else(|_| panic!("{command:?} takes too long"))
            .unwrap_or_else(|error| panic!("{command:?} does not run: {error}"));
        assert!(output.status.success(), "{command:?}: {output:?}");
        let received = std::fs::read(&target)
            .unwrap_or_else(|error| panic!("{command:?}: {error} {output:?}"));
        assert_eq!(received.len(), self.files[name].len(), "{command:?}");
        assert_eq!(
            Sha256::digest(&received),
            Sha256::digest(&self.files[name]),
            "{command:?}"
        );
        let limit = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some((file, outcome)) = self.outcomes.lock().expect("lock").pop() {
                assert_eq!(file, name);
                return outcome.unwrap_or_else(|reason| panic!("{command:?}: {reason}"));
            }
            assert!(Instant::now() < limit, "the server has not noticed the end");
            tokio::task::yield_now().await;
        }
    }

    fn tftp_hpa(&self, mode: &str, name: &str, target: &Path) -> Command {
        let mut command = Command::new("tftp");
        command
            .args(["-4", "-m", mode, "127.0.0.1"])
            .arg(self.port.to_string());
        command.args(["-c", "get", name]).arg(target);
        command
    }

    fn atftp(&self, options: &[&str], name: &str, target: &Path) -> Command {
        let mut command = Command::new("atftp");
        for option in options {
            command.args(["--option", option]);
        }
        command
            .args(["--get", "--remote-file", name, "--local-file"])
            .arg(target);
        command.arg("127.0.0.1").arg(self.port.to_string());
        command
    }

    fn curl(&self, options: &[&str], name: &str, target: &Path) -> Command {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--fail", "-o"])
            .arg(target)
            .args(options);
        command.arg(format!("tftp://127.0.0.1:{}/{name}", self.port));
        command
    }
}

const SMALL: [usize; 9] = [0, 1, 511, 512, 513, 1407, 1408, 1409, MEBIBYTE];

#[tokio::test(flavor = "multi_thread")]
async fn tftp_hpa_gets_every_size_in_both_modes() {
    let server = server(Limits::default()).await;
    for size in SMALL {
        let name = format!("file-{size}");
        for mode in ["octet", "netascii"] {
            server
                .fetch(&name, |target| server.tftp_hpa(mode, &name, target))
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tftp_hpa_gets_a_file_whose_block_numbers_roll_over() {
    let server = server(Limits::default()).await;
    let name = format!("file-{}", 40 * MEBIBYTE);
    let summary = server
        .fetch(&name, |target| server.tftp_hpa("octet", &name, target))
        .await;
    assert_eq!(summary.blocks, 40 * 2048 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn atftp_gets_every_size_with_every_option() {
    let server = server(Limits {
        blksize_max: 65464,
        ..Limits::default()
    })
    .await;
    let combinations: [(&[&str], u16, u16); 6] = [
        (&[], 512, 1),
        (&["tsize"], 512, 1),
        (&["blksize 1408", "tsize"], 1408, 1),
        (&["blksize 1408", "windowsize 8", "timeout 3"], 1408, 8),
        (&["blksize 65464", "tsize"], 65464, 1),
        (&["blksize 8", "windowsize 32"], 8, 32),
    ];
    for (options, blksize, windowsize) in combinations {
        for size in SMALL {
            if size == MEBIBYTE && blksize == 8 {
                continue; // covered by the roll-over test, which takes longer than needed here
            }
            let name = format!("file-{size}");
            let summary = server
                .fetch(&name, |target| server.atftp(options, &name, target))
                .await;
            let negotiated = (summary.negotiated.blksize, summary.negotiated.windowsize);
            assert_eq!(negotiated, (blksize, windowsize), "{options:?}");
            assert_eq!(
                summary.negotiated.tsize,
                options.contains(&"tsize"),
                "{options:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn atftp_gets_a_file_whose_block_numbers_roll_over() {
    let server = server(Limits::default()).await;
    let name = format!("file-{}", 40 * MEBIBYTE);
    let options = ["blksize 512", "windowsize 16"];
    let summary = server
        .fetch(&name, |target| server.atftp(&options, &name, target))
        .await;
    assert_eq!(summary.blocks, 40 * 2048 + 1);
    assert_eq!(summary.negotiated.windowsize, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_every_size() {
    let server = server(Limits::default()).await;
    for size in SMALL {
        let name = format!("file-{size}");
        server
            .fetch(&name, |target| {
                server.curl(&["--tftp-no-options"], &name, target)
            })
            .await;
        if size == 0 {
            continue; // curl asks for `tsize` always and takes the true answer 0 for an error
        }
        server
            .fetch(&name, |target| server.curl(&[], &name, target))
            .await;
        let options = ["--tftp-blksize", "1400"];
        let summary = server
            .fetch(&name, |target| server.curl(&options, &name, target))
            .await;
        assert_eq!(summary.negotiated.blksize, 1400);
    }
    let name = format!("file-{}", 40 * MEBIBYTE);
    let summary = server
        .fetch(&name, |target| server.curl(&[], &name, target))
        .await;
    assert_eq!(summary.blocks, 40 * 2048 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_is_told_no() {
    let server = server(Limits::default()).await;
    let source = server.dir.path().join("upload");
    std::fs::write(&source, b"content").expect("written");
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10", "-T"])
        .arg(&source)
        .arg(format!("tftp://127.0.0.1:{}/upload", server.port))
        .output()
        .await
        .expect("curl runs");
    // 69: "Permission problem on TFTP server".
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_reported_as_such() {
    let server = server(Limits::default()).await;
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10"])
        .arg(format!("tftp://127.0.0.1:{}/nothing", server.port))
        .output()
        .await
        .expect("curl runs");
    // 68: "File not found on TFTP server".
    assert_eq!(output.status.code(), Some(68), "{output:?}");
}
