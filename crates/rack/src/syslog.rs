//! The syslog receiver: what machines say while they boot and install goes into their boot timelines.
//!
//! Only machines that this rack knows by address are listened to. Warnings and worse are always kept, up to
//! a bound that only a machine gone wild reaches; the rest has a smaller one. What is left out is counted and
//! said.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use metal::timeline::{Entry, MAX_TEXT, What};
use metal::{MacAddr, Timestamp};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire_syslog::{Framer, MESSAGE_MAX, Message, Severity};

use crate::shared::Shared;

/// The service's name in the API.
pub const SERVICE: &str = "syslog_rack";
/// The port where the settings name none.
pub const PORT: u16 = 5247;
/// TCP connections at once.
pub const CONNECTIONS_MAX: usize = 512;
/// Machines whose rate is watched at once.
pub const CLIENTS_MAX: usize = 8_192;
/// Lines below a warning that a machine may send at once, and per second in the long run.
const ORDINARY: Rate = Rate {
    burst: 200.0,
    per_second: 10.0,
};
/// The same for warnings and worse.
const SEVERE: Rate = Rate {
    burst: 500.0,
    per_second: 20.0,
};
/// Severity of a line that states none (RFC 3164 §4.3.3: user.notice).
const SEVERITY_DEFAULT: Severity = Severity::Notice;
/// Longest name of a program that is kept, in bytes.
const APP_MAX: usize = 64;
/// How often folded lines are handed on.
const FLUSH: Duration = Duration::from_secs(1);
/// A connection without a byte for this long is closed: the machine is off.
const IDLE_MAX: Duration = Duration::from_secs(3_600);
/// Time between attempts to get the port.
const REOPEN: Duration = Duration::from_secs(30);
/// Pause after an error of a listening socket.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Receives until told to stop; follows the port of the settings. Cancel-safe: yes (lines of the last second
/// may be lost).
pub async fn run(shared: Shared, stop: CancellationToken) {
    let collector = Arc::new(Mutex::new(Collector::default()));
    let mut changes = shared.changes();
    let mut said = None;
    loop {
        let port = port(&shared);
        let opened = open(port);
        let (status, info) = match &opened {
            Ok(_) => ("running", format!("listening on port {port}, UDP and TCP")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => (
                "dead",
                format!("port {port} is taken by another program on this host"),
            ),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (
                "off",
                format!("port {port} needs root or the privilege CAP_NET_BIND_SERVICE"),
            ),
            Err(error) => ("dead", format!("port {port} cannot be opened: {error}")),
        };
        if said.as_ref() != Some(&info) {
            tracing::info!(status, info, "syslog");
            shared.set_service(SERVICE, status, info.clone());
            said = Some(info);
        }
        let mut tasks = JoinSet::new();
        let failed = opened.is_err();
        if let Ok((datagrams, streams)) = opened {
            let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            for socket in datagrams {
                tasks.spawn(receive(socket, Arc::clone(&collector), shared.clone()));
            }
            for listener in streams {
                tasks.spawn(accept(
                    listener,
                    Arc::clone(&connections),
                    Arc::clone(&collector),
                    shared.clone(),
                ));
            }
        }
        let other_port = async {
            let mut flush = tokio::time::interval(FLUSH);
            let started = tokio::time::Instant::now();
            loop {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() || self::port(&shared) != port {
                        return;
                    },
                    _ = flush.tick() => {
                        note(&shared, locked(&collector).flush());
                        if failed && started.elapsed() >= REOPEN {
                            return;
                        }
                    }
                }
            }
        };
        let stopped = stop.run_until_cancelled(other_port).await.is_none();
        tasks.shutdown().await;
        note(&shared, locked(&collector).flush());
        if stopped {
            shared.set_service(SERVICE, "off", "stopped");
            return;
        }
    }
}

fn port(shared: &Shared) -> u16 {
    match shared.snapshot().settings.syslog_port {
        0 => PORT,
        port => port,
    }
}

fn open(port: u16) -> io::Result<(Vec<UdpSocket>, Vec<TcpListener>)> {
    let (mut datagrams, mut streams) = (Vec::new(), Vec::new());
    for ip in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ] {
        let address = SocketAddr::new(ip, port);
        match (
            bind(address, Type::DGRAM, Protocol::UDP),
            bind(address, Type::STREAM, Protocol::TCP),
        ) {
            (Ok(udp), Ok(tcp)) => {
                tcp.listen(128)?;
                datagrams.push(UdpSocket::from_std(udp.into())?);
                streams.push(TcpListener::from_std(tcp.into())?);
            }
            // A host without IPv6.
            (Err(error), _) | (_, Err(error))
                if ip.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse =>
            {
                tracing::debug!(%address, %error, "syslog does not listen there");
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
    Ok((datagrams, streams))
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // A restart must not wait for connections of before.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

async fn receive(socket: UdpSocket, collector: Arc<Mutex<Collector>>, shared: Shared) {
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, from)) => take(&shared, &collector, from.ip(), &buffer[..len]),
            Err(error) => {
                tracing::debug!(%error, "receiving syslog datagrams");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    places: Arc<Semaphore>,
    collector: Arc<Mutex<Collector>>,
    shared: Shared,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((_, from)) if shared.client_mac(from.ip().to_canonical()).is_none() => {
                // Strangers must not take the places of machines.
                locked(&collector).strangers += 1;
            }
            Ok((stream, from)) => {
                let (collector, shared) = (Arc::clone(&collector), shared.clone());
                connections.spawn(async move {
                    // However it ends, what was sent before is kept.
                    read(stream, from.ip(), &collector, &shared).await.ok();
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting syslog connections");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn read(
    mut stream: TcpStream,
    from: IpAddr,
    collector: &Mutex<Collector>,
    shared: &Shared,
) -> io::Result<()> {
    let mut framer = Framer::default();
    let mut buffer = vec![0; 8_192];
    loop {
        let read = tokio::time::timeout(IDLE_MAX, stream.read(&mut buffer)).await;
        match read {
            Ok(Ok(len)) if len > 0 => {
                for frame in framer.feed(&buffer[..len]) {
                    take(shared, collector, from, &frame.bytes);
                }
            }
            ended => {
                if let Some(frame) = framer.finish() {
                    take(shared, collector, from, &frame.bytes);
                }
                return ended.map_or_else(|_| Ok(()), |result| result.map(|_| ()));
            }
        }
    }
}

fn locked(collector: &Mutex<Collector>) -> std::sync::MutexGuard<'_, Collector> {
    collector.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(shared: &Shared, collector: &Mutex<Collector>, from: IpAddr, bytes: &[u8]) {
    // A dual-stack peer is known by its IPv4 address.
    let from = from.to_canonical();
    let Some(mac) = shared.client_mac(from) else {
        locked(collector).strangers += 1;
        return;
    };
    let now = Timestamp::from_system(SystemTime::now());
    let entries = locked(collector).line(from, mac, &Message::parse(bytes), now);
    note(shared, entries);
}

fn note(shared: &Shared, entries: Vec<Entry>) {
    for entry in entries {
        shared.note(entry);
    }
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    const fn new(rate: Rate, at: Timestamp) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            at,
        }
    }

    fn allow(&mut self, now: Timestamp) -> bool {
        let earned = now.since(self.at).as_secs_f64() * self.rate.per_second;
        self.tokens = (self.tokens + earned).min(self.rate.burst);
        self.at = self.at.max(now);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[derive(Debug)]
struct Client {
    ordinary: Bucket,
    severe: Bucket,
    /// The last line; one like it is folded into it.
    pending: Option<Entry>,
    left_out: u64,
    last: Timestamp,
}

/// Bounds and folds what machines say. Time comes in.
#[derive(Debug, Default)]
struct Collector {
    clients: HashMap<IpAddr, Client>,
    /// Lines of senders that no machine is known for.
    strangers: u64,
}

impl Collector {
    /// Takes a line in; gives back what is to be noted now. Lines are held for a moment, for others alike.
    fn line(
        &mut self,
        from: IpAddr,
        mac: MacAddr,
        message: &Message,
        now: Timestamp,
    ) -> Vec<Entry> {
        let mut out = Vec::new();
        if self.clients.len() >= CLIENTS_MAX
            && !self.clients.contains_key(&from)
            && let Some(longest_silent) = self
                .clients
                .iter()
                .min_by_key(|(_, c)| c.last)
                .map(|(ip, _)| *ip)
        {
            out.extend(self.clients.remove(&longest_silent).and_then(|c| c.pending));
        }
        let client = self.clients.entry(from).or_insert_with(|| Client {
            ordinary: Bucket::new(ORDINARY, now),
            severe: Bucket::new(SEVERE, now),
            pending: None,
            left_out: 0,
            last: now,
        });
        client.last = now;
        let severity = message.severity().unwrap_or(SEVERITY_DEFAULT);
        let what = What::Syslog {
            severity: number(severity),
            app: cut(message.app.as_deref().unwrap_or_default(), APP_MAX),
            text: cut(&message.text, MAX_TEXT),
        };
        let mut entry = Entry::new(now, what);
        entry.mac = Some(mac);
        entry.ip = Some(from);
        if client
            .pending
            .as_mut()
            .is_some_and(|pending| pending.fold(&entry))
        {
            return out;
        }
        let bucket = if severity <= Severity::Warning {
            &mut client.severe
        } else {
            &mut client.ordinary
        };
        if !bucket.allow(now) {
            client.left_out += 1;
            return out;
        }
        if client.left_out > 0 {
            let text = format!(
                "{} syslog lines were left out: the machine sent too many at once",
                client.left_out
            );
            let note = Entry {
                what: What::Note { text },
                ..entry.clone()
            };
            out.extend(client.pending.take());
            out.push(note);
            client.left_out = 0;
        }
        out.extend(client.pending.replace(entry));
        out
    }

    /// Hands out everything that is held.
    fn flush(&mut self) -> Vec<Entry> {
        if self.strangers > 0 {
            tracing::debug!(
                lines = self.strangers,
                "syslog lines of senders that no machine is known for"
            );
            self.strangers = 0;
        }
        self.clients
            .values_mut()
            .filter_map(|client| client.pending.take())
            .collect()
    }
}

const fn number(severity: Severity) -> u8 {
    match severity {
        Severity::Emergency => 0,
        Severity::Alert => 1,
        Severity::Critical => 2,
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Notice => 5,
        Severity::Info => 6,
        Severity::Debug => 7,
    }
}

fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::message::Report;
    use link::snapshot::Snapshot;
    use tokio::io::AsyncWriteExt as _;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn texts(entries: &[Entry]) -> Vec<(&str, u32)> {
        let text = |entry| match entry {
            &Entry {
                what: What::Syslog { ref text, .. } | What::Note { ref text },
                count,
                ..
            } => (text.as_str(), count),
            other => panic!("{other:?}"),
        };
        entries.iter().map(text).collect()
    }

    #[test]
    fn lines_alike_are_one_entry_with_a_count() {
        let mut collector = Collector::default();
        let line = Message::parse(b"<30>Aug 11 10:00:01 node1 dhclient[9]: no answer");
        for second in 0..5 {
            assert_eq!(collector.line(NODE, MAC, &line, at(second)), []);
        }
        let other = Message::parse(b"<28>Aug 11 10:00:07 node1 dhclient[9]: giving up");
        let folded = collector.line(NODE, MAC, &other, at(7));
        assert_eq!(texts(&folded), [("no answer", 5)]);
        assert_eq!(
            (folded[0].first, folded[0].last, folded[0].mac),
            (at(0), at(4), Some(MAC))
        );
        assert_eq!(texts(&collector.flush()), [("giving up", 1)]);
    }

    #[test]
    fn chatter_is_bounded_and_what_is_left_out_is_said() {
        let mut collector = Collector::default();
        let mut kept = 0;
        for n in 0..1_000 {
            let line = Message::parse(format!("<30>x: line {n}").as_bytes());
            kept += collector.line(NODE, MAC, &line, at(0)).len();
        }
        assert!(kept <= 200, "{kept}");
        // Chatter leaves room for what matters.
        let error = collector.line(NODE, MAC, &Message::parse(b"<27>x: disk on fire"), at(0));
        let said = "800 syslog lines were left out: the machine sent too many at once";
        assert!(
            texts(&error).iter().any(|(text, _)| *text == said),
            "{error:?}"
        );
        assert_eq!(texts(&collector.flush()), [("disk on fire", 1)]);
    }

    #[test]
    fn the_longest_silent_machine_makes_room_and_loses_no_line() {
        let mut collector = Collector::default();
        let line = Message::parse(b"<30>x: here");
        let address = |n: usize| IpAddr::from(Ipv4Addr::from(u32::try_from(n).unwrap()));
        for n in 0..CLIENTS_MAX {
            assert_eq!(
                collector.line(address(n), MAC, &line, at(i64::try_from(n).unwrap())),
                []
            );
        }
        let made_room = collector.line(address(CLIENTS_MAX), MAC, &line, at(1_000_000));
        assert_eq!(
            made_room.iter().map(|e| e.ip).collect::<Vec<_>>(),
            [Some(address(0))]
        );
        assert_eq!(collector.clients.len(), CLIENTS_MAX);
    }

    #[test]
    fn long_lines_are_cut_at_a_character() {
        let mut collector = Collector::default();
        let line = Message::parse(format!("<30>x: {}", "é".repeat(4_000)).as_bytes());
        collector.line(NODE, MAC, &line, at(0));
        let entries = collector.flush();
        let What::Syslog { text, .. } = &entries[0].what else {
            panic!("{entries:?}")
        };
        assert!(
            text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 2,
            "{}",
            text.len()
        );
    }

    #[tokio::test]
    async fn known_machines_are_heard_over_udp_and_tcp_and_strangers_are_not() {
        let (shared, mut reports) = Shared::new(Snapshot::default());
        let (mut udp, mut tcp) = open(0).unwrap();
        let (udp, tcp) = (udp.remove(0), tcp.remove(0));
        let collector = Arc::new(Mutex::new(Collector::default()));
        let (datagrams, streams) = (
            udp.local_addr().unwrap().port(),
            tcp.local_addr().unwrap().port(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(receive(udp, Arc::clone(&collector), shared.clone()));
        tasks.spawn(accept(
            tcp,
            Arc::new(Semaphore::new(4)),
            Arc::clone(&collector),
            shared.clone(),
        ));
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        sender
            .send_to(b"<30>x: from a stranger", ("127.0.0.1", datagrams))
            .await
            .unwrap();
        while locked(&collector).strangers == 0 {
            tokio::task::yield_now().await;
        }
        shared.saw_client("127.0.0.1".parse().unwrap(), MAC, at(0));
        sender
            .send_to(b"<30>x: over UDP", ("127.0.0.1", datagrams))
            .await
            .unwrap();
        let next = reports.recv();
        let mut stream = TcpStream::connect(("127.0.0.1", streams)).await.unwrap();
        while locked(&collector).clients.is_empty() {
            tokio::task::yield_now().await;
        }
        stream
            .write_all(b"<30>x: over TCP\n<30>x: last")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        let Some(Report::Timeline { entries }) = next.await else {
            panic!("no report")
        };
        assert_eq!(texts(&entries), [("over UDP", 1)]);
        let Some(Report::Timeline { entries }) = reports.recv().await else {
            panic!("no report")
        };
        assert_eq!(texts(&entries), [("over TCP", 1)]);
        assert_eq!(texts(&locked(&collector).flush()), [("last", 1)]);
    }
}
