//! TFTP, over the boot namespace of [`crate::files`].
//!
//! Each transfer has a socket of its own, bound to the address that the client asked and connected to the
//! client: the answer comes from where it is expected on a host with many addresses.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use metal::timeline::{FileOutcome, MAX_TEXT, What};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire_tftp::{
    Action, ErrorCode, FailReason, Input, Limits, REQUEST_MAX, ReadRequest, Transfer, error_reply,
};

use crate::files::{ClientContext, Files, OpenError, Opened, Transport};
use crate::raw::{UdpSocket, transfer_socket};
use crate::shared::Shared;

/// The service's name in the API.
pub const SERVICE: &str = "tftp";
/// The well-known port.
pub const PORT: u16 = 69;
/// Transfers at once. Each holds one window, 94 kB at most.
pub const TRANSFERS_MAX: usize = 512;
/// Time between attempts to get the port.
const REOPEN: Duration = Duration::from_secs(30);
/// Largest datagram read during a transfer: ACK and ERROR packets.
const ANSWER_MAX: usize = 1_024;
/// Pause after an error of the listening socket.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How the service runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on. Those of IPv6 may be missing on the host.
    pub listen: Vec<SocketAddr>,
    /// What clients are granted.
    pub limits: Limits,
    /// Transfers at once.
    pub transfers_max: usize,
    /// What is counted.
    pub counters: Arc<Counters>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: vec![
                (Ipv4Addr::UNSPECIFIED, PORT).into(),
                (Ipv6Addr::UNSPECIFIED, PORT).into(),
            ],
            limits: Limits::default(),
            transfers_max: TRANSFERS_MAX,
            counters: Arc::default(),
        }
    }
}

/// Requests by how they ended, and bytes.
#[derive(Debug, Default)]
pub struct Counters {
    /// Everything was acknowledged.
    pub complete: AtomicU64,
    /// The client wanted the size only.
    pub probed: AtomicU64,
    /// The client went away, or said so.
    pub aborted: AtomicU64,
    /// No such file.
    pub not_found: AtomicU64,
    /// The file could not be read.
    pub failed: AtomicU64,
    /// No read request that can be served.
    pub refused: AtomicU64,
    /// Not answered because too many transfers were under way.
    pub too_many: AtomicU64,
    /// A request that was sent again while it was being answered.
    pub repeated: AtomicU64,
    /// Payload bytes acknowledged.
    pub bytes: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Where files come from.
#[async_trait]
pub trait Source: Clone + Send + Sync + 'static {
    /// Opens a path for a client.
    async fn open_file(&self, path: &str, context: ClientContext) -> Result<Opened, OpenError>;
}

#[async_trait]
impl Source for Files {
    async fn open_file(&self, path: &str, context: ClientContext) -> Result<Opened, OpenError> {
        self.open_or_why(path, context).await
    }
}

/// Serves until told to stop. Cancel-safe: yes (transfers end with it).
pub async fn run<S: Source>(options: Options, files: S, shared: Shared, stop: CancellationToken) {
    let mut said = None;
    loop {
        match open(&options.listen) {
            Ok(sockets) => {
                let ports: Vec<String> = sockets
                    .iter()
                    .filter_map(|s| Some(s.local_address().ok()?.to_string()))
                    .collect();
                shared.set_service(
                    SERVICE,
                    "running",
                    format!("listening on {}", ports.join(" and ")),
                );
                let mut listeners = JoinSet::new();
                for socket in sockets {
                    let server = Server {
                        options: options.clone(),
                        files: files.clone(),
                        shared: shared.clone(),
                    };
                    listeners.spawn(server.listen(socket, stop.clone()));
                }
                while listeners.join_next().await.is_some() {}
                shared.set_service(SERVICE, "off", "stopped");
                return;
            }
            Err(error) => {
                let sentence = format!("files cannot be served over TFTP: {}", error.sentence());
                if said.as_ref() != Some(&sentence) {
                    tracing::warn!(sentence, "TFTP is off");
                    let status = if error.is_privilege() { "off" } else { "dead" };
                    shared.set_service(SERVICE, status, sentence.clone());
                    said = Some(sentence);
                }
                if stop
                    .run_until_cancelled(tokio::time::sleep(REOPEN))
                    .await
                    .is_none()
                {
                    return;
                }
            }
        }
    }
}

fn open(addresses: &[SocketAddr]) -> Result<Vec<UdpSocket>, crate::raw::OpenError> {
    let mut sockets = Vec::new();
    for address in addresses {
        match UdpSocket::bind(*address, None) {
            Ok(socket) => sockets.push(socket),
            // A host without IPv6.
            Err(crate::raw::OpenError::Failed { cause, .. })
                if address.is_ipv6() && !sockets.is_empty() =>
            {
                tracing::debug!(%address, error = %cause, "TFTP does not listen there");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

struct Server<S> {
    options: Options,
    files: S,
    shared: Shared,
}

/// A request being answered.
struct Active {
    request: Vec<u8>,
    /// The client has answered: a request of its from now on is a new one.
    heard: Arc<AtomicBool>,
    task: tokio::task::AbortHandle,
}

impl<S: Source> Server<S> {
    async fn listen(self, socket: UdpSocket, stop: CancellationToken) {
        let mut buffer = vec![0; REQUEST_MAX + 1];
        let mut tasks: JoinSet<SocketAddr> = JoinSet::new();
        let mut active: HashMap<SocketAddr, Active> = HashMap::new();
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    // One that was aborted has been replaced already.
                    if let Ok((id, peer)) = ended
                        && active.get(&peer).is_some_and(|a| a.task.id() == id)
                    {
                        active.remove(&peer);
                    }
                    continue;
                }
                received = socket.receive(&mut buffer) => received,
            };
            let datagram = match received {
                Ok(datagram) => datagram,
                Err(error) => {
                    tracing::debug!(%error, "receiving TFTP requests");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            let (peer, local) = (datagram.from, datagram.local);
            let bytes = &buffer[..datagram.len];
            let request = match ReadRequest::parse(bytes) {
                Ok(request) => request,
                Err(refusal) => {
                    count(&self.options.counters.refused);
                    tracing::debug!(client = %peer, reason = %refusal.reason, "TFTP request refused");
                    if let Some(reply) = refusal.reply {
                        // Lost or not, nothing depends on it.
                        socket.send_from(&reply, local, 0, peer).ok();
                    }
                    continue;
                }
            };
            if let Some(known) = active.get(&peer) {
                if known.request == bytes && !known.heard.load(Ordering::Relaxed) {
                    count(&self.options.counters.repeated);
                    continue;
                }
                // The client has begun anew from the same port.
                known.task.abort();
                active.remove(&peer);
            }
            if active.len() >= self.options.transfers_max {
                // Silence makes the client ask again; an ERROR would make it give up.
                count(&self.options.counters.too_many);
                continue;
            }
            let heard = Arc::new(AtomicBool::new(false));
            let one = One {
                files: self.files.clone(),
                shared: self.shared.clone(),
                counters: Arc::clone(&self.options.counters),
                limits: self.options.limits.clone(),
                heard: Arc::clone(&heard),
                peer,
                local,
                path: cut(&request.filename),
                size: None,
                bytes: 0,
                outcome: None,
            };
            let task = tasks.spawn(async move {
                one.serve(request).await;
                peer
            });
            active.insert(
                peer,
                Active {
                    request: bytes.to_vec(),
                    heard,
                    task,
                },
            );
        }
    }
}

/// One request; when dropped, it is recorded however far it came.
struct One<S: Source> {
    files: S,
    shared: Shared,
    counters: Arc<Counters>,
    limits: Limits,
    heard: Arc<AtomicBool>,
    peer: SocketAddr,
    local: IpAddr,
    path: String,
    size: Option<u64>,
    bytes: u64,
    outcome: Option<FileOutcome>,
}

impl<S: Source> One<S> {
    async fn serve(mut self, request: ReadRequest) {
        let socket = match transfer_socket(self.local, self.peer) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(client = %self.peer, local = %self.local, %error, "no socket for a TFTP transfer");
                self.outcome = Some(FileOutcome::Failed);
                return;
            }
        };
        let context = ClientContext {
            ip: self.peer.ip(),
            transport: Transport::Tftp,
            local: self.local,
        };
        let opened = match self.files.open_file(&request.filename, context).await {
            Ok(opened) => opened,
            Err(error) => {
                let (code, words) = match &error {
                    OpenError::NotFound => (
                        ErrorCode::FileNotFound,
                        "there is no such file for this machine",
                    ),
                    OpenError::Unavailable(_) => {
                        (ErrorCode::NotDefined, "the file cannot be had now")
                    }
                };
                self.outcome = Some(match error {
                    OpenError::NotFound => FileOutcome::NotFound,
                    OpenError::Unavailable(_) => FileOutcome::Failed,
                });
                tracing::debug!(client = %self.peer, path = self.path, %error, "TFTP");
                socket.send(&error_reply(code, words)).await.ok();
                return;
            }
        };
        self.size = Some(opened.size());
        let (mut transfer, mut actions) =
            Transfer::begin(&request, opened.size(), &self.limits, Instant::now());
        let mut buffer = vec![0; ANSWER_MAX];
        loop {
            let mut read = None;
            for action in actions {
                match action {
                    Action::Send(datagram) => {
                        // A client that has closed its port is noticed when receiving; anything else is a
                        // lost packet, which is sent again.
                        socket.send(&datagram).await.ok();
                    }
                    Action::Read { offset, len } => read = Some((offset, len)),
                    Action::Done(summary) => self.end(FileOutcome::Complete, summary.bytes),
                    Action::Probed(summary) => self.end(FileOutcome::Probed, summary.bytes),
                    Action::Failed { reason, summary } => {
                        tracing::debug!(client = %self.peer, path = self.path, %reason, bytes = summary.bytes, "TFTP transfer ended early");
                        let outcome = match reason {
                            FailReason::ReadFailed | FailReason::FileShrank => FileOutcome::Failed,
                            FailReason::Client { .. }
                            | FailReason::NoAnswer { .. }
                            | FailReason::LastAckMissing
                            | FailReason::Aborted => FileOutcome::Aborted,
                        };
                        self.end(outcome, summary.bytes);
                    }
                }
            }
            if transfer.is_finished() {
                return;
            }
            actions = match read {
                Some((offset, len)) => match read_whole(&opened, offset, len).await {
                    Ok(bytes) => transfer.handle(
                        Input::Data {
                            offset,
                            bytes: &bytes,
                        },
                        Instant::now(),
                    ),
                    Err(error) => {
                        tracing::warn!(path = self.path, %error, "a boot file cannot be read");
                        transfer.handle(Input::ReadFailed, Instant::now())
                    }
                },
                None => {
                    let deadline = transfer.deadline().unwrap_or_else(Instant::now);
                    match tokio::time::timeout_at(deadline.into(), socket.recv(&mut buffer)).await {
                        Ok(Ok(len)) => {
                            self.heard.store(true, Ordering::Relaxed);
                            transfer.handle(Input::Packet(&buffer[..len]), Instant::now())
                        }
                        // Its port is closed: nothing can reach it any more.
                        Ok(Err(error)) => {
                            tracing::debug!(client = %self.peer, %error, "TFTP client gone");
                            transfer.abort("the transfer has ended", Instant::now())
                        }
                        Err(_) => transfer.handle(Input::Timeout, Instant::now()),
                    }
                }
            };
        }
    }

    fn end(&mut self, outcome: FileOutcome, bytes: u64) {
        self.bytes = bytes;
        self.outcome = Some(outcome);
    }
}

impl<S: Source> Drop for One<S> {
    fn drop(&mut self) {
        // Without an outcome the client began anew, or the rack is stopping.
        let outcome = self.outcome.unwrap_or(FileOutcome::Aborted);
        let counters = &self.counters;
        count(match outcome {
            FileOutcome::Complete => &counters.complete,
            FileOutcome::Probed => &counters.probed,
            FileOutcome::Aborted => &counters.aborted,
            FileOutcome::NotFound => &counters.not_found,
            FileOutcome::Failed => &counters.failed,
        });
        counters.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        let what = What::File {
            transport: Transport::Tftp.word().to_owned(),
            path: std::mem::take(&mut self.path),
            bytes: self.bytes,
            size: self.size,
            outcome,
        };
        self.shared.note_for(self.peer.ip(), what);
    }
}

/// All of the bytes asked for; content may come in pieces while it still arrives from the region.
async fn read_whole(opened: &Opened, offset: u64, len: usize) -> io::Result<Bytes> {
    let first = opened.read_at(offset, len).await?;
    if first.len() >= len {
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(len);
    all.extend_from_slice(&first);
    while all.len() < len {
        let more = opened
            .read_at(offset + all.len() as u64, len - all.len())
            .await?;
        if more.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        all.extend_from_slice(&more);
    }
    Ok(all.freeze())
}

fn cut(path: &str) -> String {
    path[..path.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::message::Report;
    use link::snapshot::Snapshot;
    use std::collections::BTreeMap;
    use tokio::sync::mpsc;

    #[derive(Clone)]
    struct Memory(Arc<BTreeMap<&'static str, Bytes>>);

    #[async_trait]
    impl Source for Memory {
        async fn open_file(&self, path: &str, _: ClientContext) -> Result<Opened, OpenError> {
            self.0
                .get(path)
                .cloned()
                .map(Opened::Rendered)
                .ok_or(OpenError::NotFound)
        }
    }

    struct Running {
        address: SocketAddr,
        counters: Arc<Counters>,
        reports: mpsc::Receiver<Report>,
        _task: tokio_util::task::AbortOnDropHandle<()>,
    }

    fn start(transfers_max: usize) -> Running {
        let (shared, reports) = Shared::new(Snapshot::default());
        let options = Options {
            transfers_max,
            ..Options::default()
        };
        let counters = Arc::clone(&options.counters);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
        let address = socket.local_address().unwrap();
        let files = Memory(Arc::new(BTreeMap::from([(
            "file",
            Bytes::from_static(&[7; 20]),
        )])));
        let server = Server {
            options,
            files,
            shared,
        };
        let task = tokio::spawn(server.listen(socket, CancellationToken::new()));
        Running {
            address,
            counters,
            reports,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    async fn client() -> tokio::net::UdpSocket {
        tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    async fn receive(socket: &tokio::net::UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 600];
        let (len, from) =
            tokio::time::timeout(Duration::from_secs(30), socket.recv_from(&mut buffer))
                .await
                .unwrap()
                .unwrap();
        (buffer[..len].to_vec(), from)
    }

    async fn until(counter: &AtomicU64, value: u64) {
        while counter.load(Ordering::Relaxed) != value {
            tokio::task::yield_now().await;
        }
    }

    async fn next_outcome(running: &mut Running) -> (FileOutcome, u64) {
        let Some(Report::Timeline { entries }) = running.reports.recv().await else {
            panic!("no timeline")
        };
        let What::File { outcome, bytes, .. } = entries[0].what else {
            panic!("{entries:?}")
        };
        (outcome, bytes)
    }

    const ASK_SIZE: &[u8] = b"\0\x01file\0octet\0tsize\x000\0";
    const ASK_BLOCKS: &[u8] = b"\0\x01file\0octet\0blksize\x0016\0";
    const ACK_0: &[u8] = &[0, 4, 0, 0];

    #[tokio::test]
    async fn a_size_probe_and_the_transfer_after_it_may_use_one_port() {
        let mut running = start(8);
        let socket = client().await;
        socket.send_to(ASK_SIZE, running.address).await.unwrap();
        let (answer, first) = receive(&socket).await;
        assert_eq!(answer, b"\0\x06tsize\x0020\0");
        socket
            .send_to(b"\0\x05\0\x08enough\0", first)
            .await
            .unwrap();
        assert_eq!(next_outcome(&mut running).await, (FileOutcome::Probed, 0));
        socket.send_to(ASK_BLOCKS, running.address).await.unwrap();
        let (answer, second) = receive(&socket).await;
        assert_eq!(answer, b"\0\x06blksize\x0016\0");
        socket.send_to(ACK_0, second).await.unwrap();
        assert_eq!(
            receive(&socket).await,
            ([&[0, 3, 0, 1][..], &[7; 16]].concat(), second)
        );
        socket.send_to(&[0, 4, 0, 1], second).await.unwrap();
        assert_eq!(
            receive(&socket).await,
            ([&[0, 3, 0, 2][..], &[7; 4]].concat(), second)
        );
        socket.send_to(&[0, 4, 0, 2], second).await.unwrap();
        assert_eq!(
            next_outcome(&mut running).await,
            (FileOutcome::Complete, 20)
        );
        assert_eq!(running.counters.bytes.load(Ordering::Relaxed), 20);
    }

    #[tokio::test]
    async fn a_client_that_begins_anew_is_served_anew() {
        let mut running = start(8);
        let socket = client().await;
        socket.send_to(ASK_BLOCKS, running.address).await.unwrap();
        let (_, first) = receive(&socket).await;
        // The same again, unanswered so far: our answer was on its way.
        socket.send_to(ASK_BLOCKS, running.address).await.unwrap();
        until(&running.counters.repeated, 1).await;
        // It has heard us, and asks once more: it was switched off and on.
        socket.send_to(ACK_0, first).await.unwrap();
        assert_eq!(receive(&socket).await.1, first);
        socket.send_to(ASK_BLOCKS, running.address).await.unwrap();
        assert_eq!(next_outcome(&mut running).await, (FileOutcome::Aborted, 0));
        let (answer, second) = receive(&socket).await;
        assert_eq!(answer[..2], [0, 6]);
        assert_ne!(second, first);
    }

    #[tokio::test]
    async fn beyond_the_bound_a_request_is_met_with_silence_until_there_is_room() {
        let mut running = start(1);
        let (one, two) = (client().await, client().await);
        one.send_to(ASK_SIZE, running.address).await.unwrap();
        let (_, transfer) = receive(&one).await;
        two.send_to(ASK_SIZE, running.address).await.unwrap();
        until(&running.counters.too_many, 1).await;
        one.send_to(b"\0\x05\0\0\0", transfer).await.unwrap();
        assert_eq!(next_outcome(&mut running).await.0, FileOutcome::Probed);
        loop {
            // The place is free a moment after the end is told.
            two.send_to(ASK_SIZE, running.address).await.unwrap();
            let mut answer = [0; 64];
            if let Ok(received) =
                tokio::time::timeout(Duration::from_millis(50), two.recv(&mut answer)).await
            {
                assert_eq!(answer[..received.unwrap()][..2], [0, 6]);
                break;
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_refused_in_words() {
        let mut running = start(8);
        let socket = client().await;
        socket
            .send_to(b"\0\x01missing\0octet\0", running.address)
            .await
            .unwrap();
        assert_eq!(receive(&socket).await.0[..4], [0, 5, 0, 1]);
        assert_eq!(next_outcome(&mut running).await, (FileOutcome::NotFound, 0));
        socket
            .send_to(b"\0\x01../etc/passwd\0octet\0", running.address)
            .await
            .unwrap();
        assert_eq!(receive(&socket).await.0[..4], [0, 5, 0, 2]);
        socket
            .send_to(b"\0\x02file\0octet\0", running.address)
            .await
            .unwrap();
        assert_eq!(receive(&socket).await.0[..4], [0, 5, 0, 2]);
        assert_eq!(running.counters.refused.load(Ordering::Relaxed), 2);
    }
}
