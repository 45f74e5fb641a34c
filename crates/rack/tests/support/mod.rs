//! A region that lives in the test, and a client that speaks HTTP as boot loaders do.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use link::message::{
    Batch, CommandResult, Hello, PassedRequest, PassedResponse, Report, ToRack, Welcome,
};
use link::port::{BlobReader, LinkError, Region};
use link::snapshot::{
    Blob, Change, Delta, Image, Machine, Position, RootMethod, Settings, Snapshot,
};
use metal::boot::Facts;
use metal::status::Status;
use metal::timeline::{Entry, What};
use metal::{MacAddr, SystemId};
use rack::rack::Enable;
use rack::{Config, Rack};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Limit of every wait.
pub const LIMIT: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct State {
    pub away: bool,
    pub snapshot: Snapshot,
    pub subscriber: Option<mpsc::Sender<ToRack>>,
    pub subscribed_from: Vec<Option<Position>>,
    pub batches: Vec<Batch>,
    pub last_batch: u64,
    /// Batches that are stored, but whose answer is lost.
    pub lose_answers: u32,
    pub passed: Vec<PassedRequest>,
    pub results: Vec<CommandResult>,
    pub blobs: HashMap<String, Vec<u8>>,
    /// Every opening: hash and offset.
    pub opened: Vec<(String, u64)>,
    /// The next readers break off after so many bytes.
    pub cut: Vec<usize>,
}

#[derive(Clone, Default)]
pub struct FakeRegion(pub Arc<Mutex<State>>);

impl FakeRegion {
    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// Cuts the link, or lets it be made again.
    pub fn set_away(&self, away: bool) {
        self.with(|s| {
            s.away = away;
            if away {
                s.subscriber = None;
            }
        });
    }

    pub fn add_blob(&self, content: &[u8], filename: &str) -> Blob {
        let sha256 = hex::encode(Sha256::digest(content));
        self.with(|s| s.blobs.insert(sha256.clone(), content.to_vec()));
        Blob {
            filename: filename.into(),
            sha256,
            size: content.len() as u64,
        }
    }

    /// Changes the snapshot, and tells the rack.
    pub fn change(&self, change: Change) {
        self.with(|s| {
            let from = s.snapshot.position;
            let to = Position {
                sequence: from.sequence + 1,
                ..from
            };
            let delta = Delta {
                from,
                to,
                changes: vec![change],
            };
            s.snapshot.apply(delta.clone()).unwrap();
            if let Some(to_rack) = &s.subscriber {
                to_rack.try_send(ToRack::Delta(delta)).unwrap();
            }
        });
    }

    pub fn command(&self, command: link::message::Command) {
        self.with(|s| {
            s.subscriber
                .as_ref()
                .expect("subscribed")
                .try_send(ToRack::Command(command))
                .unwrap()
        });
    }

    pub fn reports(&self) -> Vec<Report> {
        self.with(|s| s.batches.iter().flat_map(|b| b.reports.clone()).collect())
    }

    pub fn timeline(&self) -> Vec<Entry> {
        self.reports()
            .into_iter()
            .flat_map(|r| {
                if let Report::Timeline { entries } = r {
                    entries
                } else {
                    vec![]
                }
            })
            .collect()
    }

    pub fn saw(&self, f: impl Fn(&What) -> bool) -> bool {
        self.timeline().iter().any(|e| f(&e.what))
    }

    fn here(&self) -> Result<(), LinkError> {
        if self.with(|s| s.away) {
            Err(LinkError::Away("the test says so".into()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Region for FakeRegion {
    async fn hello(&self, hello: Hello) -> Result<Welcome, LinkError> {
        self.here()?;
        assert_eq!(hello.version, link::VERSION);
        Ok(Welcome {
            rack: SystemId("rack01".into()),
            version: link::VERSION,
            last_batch: self.with(|s| s.last_batch),
        })
    }

    async fn subscribe(
        &self,
        _: &SystemId,
        from: Option<Position>,
    ) -> Result<mpsc::Receiver<ToRack>, LinkError> {
        self.here()?;
        let (to_rack, messages) = mpsc::channel(64);
        self.with(|s| {
            s.subscribed_from.push(from);
            if from != Some(s.snapshot.position) {
                to_rack
                    .try_send(ToRack::Snapshot(Box::new(s.snapshot.clone())))
                    .unwrap();
            }
            s.subscriber = Some(to_rack);
        });
        Ok(messages)
    }

    async fn report(&self, _: &SystemId, batch: Batch) -> Result<(), LinkError> {
        self.here()?;
        self.with(|s| {
            if batch.number > s.last_batch {
                assert_eq!(batch.number, s.last_batch + 1, "numbers rise by one");
                s.last_batch = batch.number;
                s.batches.push(batch);
            }
            if s.lose_answers > 0 {
                s.lose_answers -= 1;
                return Err(LinkError::Away("the answer was lost".into()));
            }
            Ok(())
        })
    }

    async fn complete(&self, _: &SystemId, result: CommandResult) -> Result<(), LinkError> {
        self.here()?;
        self.with(|s| s.results.push(result));
        Ok(())
    }

    async fn pass(
        &self,
        rack: &SystemId,
        request: PassedRequest,
    ) -> Result<PassedResponse, LinkError> {
        self.here()?;
        assert_eq!(rack.as_str(), "rack01");
        self.with(|s| s.passed.push(request));
        let headers = vec![
            ("content-type".into(), "text/x-test".into()),
            ("transfer-encoding".into(), "chunked".into()),
        ];
        Ok(PassedResponse {
            status: 200,
            headers,
            body: "from the region".into(),
        })
    }

    async fn blob(&self, _: &SystemId, sha256: &str, offset: u64) -> Result<BlobReader, LinkError> {
        self.here()?;
        self.with(|s| {
            s.opened.push((sha256.into(), offset));
            let content = s
                .blobs
                .get(sha256)
                .ok_or_else(|| LinkError::NoBlob(sha256.into()))?;
            let size = content.len() as u64;
            let mut rest = content[usize::try_from(offset).unwrap()..].to_vec();
            if !s.cut.is_empty() {
                rest.truncate(s.cut.remove(0));
            }
            Ok(BlobReader {
                size,
                reader: Box::new(Cursor::new(rest)),
            })
        })
    }
}

/// Waits for a condition; the limit is a failure.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);

pub fn a_machine(status: Status) -> Machine {
    Machine {
        system_id: "4y3h7n".into(),
        hostname: "rex".into(),
        fqdn: "rex.maas".into(),
        facts: Facts {
            status,
            netboot: true,
            ephemeral_deploy: false,
            is_machine: true,
        },
        architecture: "amd64/generic".into(),
        hardware_uuid: Some("4c4c4544-0042-3010-8035-b4c04f4e4632".into()),
        macs: vec![MAC],
        addresses: vec![],
        kernel_opts: String::new(),
        deploy: None,
    }
}

/// A region with one image and one machine.
pub fn a_region(status: Status) -> FakeRegion {
    let region = FakeRegion::default();
    let image = Image {
        id: 1,
        osystem: "ubuntu".into(),
        release: "noble".into(),
        arch: "amd64".into(),
        subarch: "ga-24.04".into(),
        label: "stable".into(),
        kernel: region.add_blob(b"the kernel", "boot-kernel"),
        initrd: region.add_blob(b"the initrd", "boot-initrd"),
        root: Some(region.add_blob(&big(1), "squashfs")),
        root_method: RootMethod::Squash,
        kparams: String::new(),
    };
    region.with(|s| {
        s.snapshot = Snapshot {
            position: Position {
                epoch: 1,
                transaction: 0,
                sequence: 1,
            },
            settings: Settings {
                commissioning_osystem: "ubuntu".into(),
                commissioning_distro_series: "noble".into(),
                ..Settings::default()
            },
            machines: [("4y3h7n".into(), a_machine(status))].into(),
            images: [(1, image)].into(),
            ..Snapshot::default()
        }
    });
    region
}

/// Content of some size that is different at every place.
pub fn big(seed: u32) -> Vec<u8> {
    (0..600_000u32)
        .flat_map(|i| (i ^ seed.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect()
}

/// A rack on loopback, with its data in `dir`.
pub async fn a_rack(region: &FakeRegion, dir: &std::path::Path) -> Rack {
    a_rack_with(region, dir, |_| {}).await
}

pub async fn a_rack_with(
    region: &FakeRegion,
    dir: &std::path::Path,
    change: impl FnOnce(&mut Config),
) -> Rack {
    let mut config = Config::new(dir.join("data"));
    config.http_listen = vec!["127.0.0.1:0".parse().unwrap()];
    config.enable = Enable {
        dhcp: false,
        tftp: false,
        http: true,
        syslog: false,
        ra: false,
    };
    config.distribution_root = dir.join("no-packages");
    change(&mut config);
    Rack::start(config, Arc::new(region.clone()), CancellationToken::new())
        .await
        .unwrap()
}

/// Waits until the rack answers from the region's snapshot as it is now.
pub async fn settled(rack: &Rack, region: &FakeRegion) {
    let wanted = region.with(|s| s.snapshot.position);
    until("the rack has the snapshot", || {
        rack.shared().snapshot().position == wanted && rack.shared().rack().is_some()
    })
    .await;
    until("the link is up", || region.with(|s| s.subscriber.is_some())).await;
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body is as long as was announced.
    pub fn whole(&self) -> bool {
        self.headers["content-length"].parse::<usize>().unwrap() == self.body.len()
    }
}

/// One request on a connection of its own; reads to the end of the connection.
pub async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.ok(); // it may be refused before it is read
    let mut all = Vec::new();
    let read = tokio::time::timeout(LIMIT, async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => all.extend_from_slice(&buffer[..n]),
            }
        }
    });
    read.await.expect("the answer ends");
    let end = all
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer to {method} {path}"));
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers: HashMap<String, String> = lines
        .map(|l| l.split_once(": ").unwrap())
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    assert!(
        !headers.contains_key("transfer-encoding"),
        "boot loaders cannot read chunks"
    );
    Reply {
        status,
        headers,
        body: all[end + 4..].to_vec(),
    }
}

pub async fn get(rack: &Rack, path: &str) -> Reply {
    request(rack.http_addresses()[0], "GET", path, &[], b"").await
}
