//! The link over TLS, with a region that is made of what it was told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use link::message::{
    Batch, CommandResult, Hello, Outcome, PassedRequest, PassedResponse, Report, ToRack, Welcome,
};
use link::port::{BlobReader, LinkError, Region};
use link::snapshot::{Position, Snapshot};
use link::tls::TlsError;
use link::tls::ca::{self, Identity, Secret};
use link::tls::client::{self, Client};
use link::tls::server::{self, Host};
use metal::{SystemId, Timestamp};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Told {
    batches: Vec<(SystemId, u64)>,
    results: Vec<CommandResult>,
    subscribers: Vec<mpsc::Sender<ToRack>>,
    spent: bool,
}

struct Fake {
    told: Arc<Mutex<Told>>,
    fingerprint: String,
}

const CONTENT: &[u8] = &[7; 1_000_000];

#[async_trait]
impl Region for Fake {
    async fn hello(&self, hello: Hello) -> Result<Welcome, LinkError> {
        if !link::is_served(hello.version) {
            return Err(LinkError::Version {
                region: link::VERSION,
                rack: hello.version,
            });
        }
        Ok(Welcome {
            rack: SystemId(self.fingerprint[..6].to_owned()),
            version: link::VERSION,
            last_batch: 4,
        })
    }

    async fn subscribe(
        &self,
        _rack: &SystemId,
        _from: Option<Position>,
    ) -> Result<mpsc::Receiver<ToRack>, LinkError> {
        let (to, from) = mpsc::channel(4);
        to.send(ToRack::Snapshot(Box::<Snapshot>::default()))
            .await
            .expect("there is room");
        self.told.lock().unwrap().subscribers.push(to);
        Ok(from)
    }

    async fn report(&self, rack: &SystemId, batch: Batch) -> Result<(), LinkError> {
        self.told
            .lock()
            .unwrap()
            .batches
            .push((rack.clone(), batch.number));
        Ok(())
    }

    async fn complete(&self, _rack: &SystemId, result: CommandResult) -> Result<(), LinkError> {
        self.told.lock().unwrap().results.push(result);
        Ok(())
    }

    async fn pass(
        &self,
        _rack: &SystemId,
        request: PassedRequest,
    ) -> Result<PassedResponse, LinkError> {
        Ok(PassedResponse {
            status: 200,
            headers: vec![],
            body: request.body,
        })
    }

    async fn blob(
        &self,
        _rack: &SystemId,
        sha256: &str,
        offset: u64,
    ) -> Result<BlobReader, LinkError> {
        if sha256 != "good" {
            return Err(LinkError::NoBlob(sha256.to_owned()));
        }
        let rest = &CONTENT[usize::try_from(offset).unwrap()..];
        Ok(BlobReader {
            size: CONTENT.len() as u64,
            reader: Box::new(rest),
        })
    }
}

struct Hosting {
    told: Arc<Mutex<Told>>,
    authority: Identity,
    token_hash: String,
}

#[async_trait]
impl Host for Hosting {
    fn region(&self, fingerprint: String) -> Arc<dyn Region> {
        Arc::new(Fake {
            told: Arc::clone(&self.told),
            fingerprint,
        })
    }

    async fn enrol(
        &self,
        token: String,
        csr: String,
        hostname: String,
    ) -> Result<(String, SystemId), String> {
        let mut told = self.told.lock().unwrap();
        if told.spent || ca::hash_token(&token) != self.token_hash {
            return Err("the secret is spent or wrong".to_owned());
        }
        told.spent = true;
        let pem =
            ca::issue_rack(&self.authority, &csr, &hostname, [9; 16]).map_err(|e| e.to_string())?;
        Ok((pem, SystemId("abc123".to_owned())))
    }
}

struct Setup {
    address: SocketAddr,
    authority: Identity,
    secret: Secret,
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), TlsError>>,
}

async fn setup() -> Setup {
    let authority = ca::new_authority([1; 16]).unwrap();
    let own = ca::issue_region(&authority, &["127.0.0.1".parse().unwrap()], [2; 16]).unwrap();
    let secret = Secret::new([3; 32], &authority.fingerprint().unwrap());
    let told = Arc::default();
    let host = Hosting {
        told: Arc::clone(&told),
        authority: authority.clone(),
        token_hash: secret.hash(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (pem, s) = (authority.certificate.clone(), stop.clone());
    let serving =
        tokio::spawn(async move { server::serve(listener, &pem, &own, Arc::new(host), s).await });
    Setup {
        address,
        authority,
        secret,
        told,
        stop,
        serving,
    }
}

fn hello() -> Hello {
    Hello {
        version: link::VERSION,
        rack: None,
        hostname: "rack-1".to_owned(),
        program: "test".to_owned(),
        interfaces: vec![],
        services: Default::default(),
        position: None,
    }
}

async fn enrolled(s: &Setup) -> Client {
    let (own, authority, rack) = client::enrol(&s.address.to_string(), &s.secret, "rack-1")
        .await
        .unwrap();
    assert_eq!(rack.as_str(), "abc123");
    Client::new(vec![s.address.to_string()], &authority, &own).unwrap()
}

fn request(body: &'static [u8]) -> PassedRequest {
    PassedRequest {
        method: "POST".to_owned(),
        target: "/MAAS/metadata/2012-03-01/".to_owned(),
        headers: vec![("authorization".to_owned(), "OAuth x".to_owned())],
        body: Bytes::from_static(body),
        client: "10.0.0.1".parse().unwrap(),
        mac: None,
        base: "http://10.0.0.2:5248".to_owned(),
    }
}

#[tokio::test]
async fn every_call_crosses_the_link() {
    let s = setup().await;
    let c = enrolled(&s).await;
    let rack = c.hello(hello()).await.unwrap().rack;
    let mut messages = c.subscribe(&rack, None).await.unwrap();
    assert!(matches!(messages.recv().await, Some(ToRack::Snapshot(_))));
    let batch = Batch {
        number: 5,
        reports: vec![Report::Timeline { entries: vec![] }],
    };
    // What a rack calls itself does not count: the region goes by the certificate.
    c.report(&SystemId("other".to_owned()), batch)
        .await
        .unwrap();
    assert_eq!(s.told.lock().unwrap().batches, [(rack.clone(), 5)]);
    let result = CommandResult {
        id: 1,
        attempt: 2,
        outcome: Outcome::Refused {
            message: "no".to_owned(),
        },
    };
    c.complete(&rack, result.clone()).await.unwrap();
    assert_eq!(s.told.lock().unwrap().results, [result]);
    let answer = c.pass(&rack, request(b"\x00\xff binary")).await.unwrap();
    assert_eq!(&answer.body[..], b"\x00\xff binary");
    let mut blob = c.blob(&rack, "good", 999_000).await.unwrap();
    assert_eq!(blob.size, 1_000_000);
    let mut rest = Vec::new();
    blob.reader.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.len(), 1_000);
    assert!(matches!(
        c.blob(&rack, "bad", 0).await,
        Err(LinkError::NoBlob(_))
    ));
    s.stop.cancel();
    s.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_region_ends_the_subscription_and_calls_fail_at_once() {
    let s = setup().await;
    let c = enrolled(&s).await;
    let rack = c.hello(hello()).await.unwrap().rack;
    let mut messages = c.subscribe(&rack, None).await.unwrap();
    messages.recv().await;
    s.stop.cancel();
    s.serving.await.unwrap().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), messages.recv())
        .await
        .expect("the channel closes");
    assert!(ended.is_none());
    let failed = c
        .report(
            &rack,
            Batch {
                number: 6,
                reports: vec![],
            },
        )
        .await;
    assert!(matches!(failed, Err(LinkError::Away(_))), "{failed:?}");
}

#[tokio::test]
async fn a_secret_is_good_once_and_only_at_its_region() {
    let s = setup().await;
    enrolled(&s).await;
    let again = client::enrol(&s.address.to_string(), &s.secret, "rack-2").await;
    assert!(matches!(again, Err(TlsError::Refused(_))), "{again:?}");
    let other = setup().await;
    let elsewhere = Secret::new([3; 32], &"00".repeat(32));
    let refused = client::enrol(&other.address.to_string(), &elsewhere, "rack-2").await;
    assert!(matches!(refused, Err(TlsError::OtherRegion)), "{refused:?}");
    assert!(
        !other.told.lock().unwrap().spent,
        "the token never reached the wrong region"
    );
}

#[tokio::test]
async fn nobody_without_a_certificate_of_the_region_gets_in() {
    let s = setup().await;
    let foreign = ca::new_authority([8; 16]).unwrap();
    let (key, csr) = ca::request("intruder").unwrap();
    let own = Identity {
        certificate: ca::issue_rack(&foreign, &csr, "intruder", [1; 16]).unwrap(),
        key,
    };
    let c = Client::new(vec![s.address.to_string()], &s.authority.certificate, &own).unwrap();
    assert!(matches!(c.hello(hello()).await, Err(LinkError::Away(_))));
    // And a rack does not talk to a region of another authority.
    let (key, csr) = ca::request("rack-1").unwrap();
    let own = Identity {
        certificate: ca::issue_rack(&s.authority, &csr, "rack-1", [1; 16]).unwrap(),
        key,
    };
    let c = Client::new(vec![s.address.to_string()], &foreign.certificate, &own).unwrap();
    assert!(matches!(c.hello(hello()).await, Err(LinkError::Away(_))));
}

#[test]
fn a_passed_request_shows_no_credentials() {
    let text = format!("{:?}", request(b"secret body"));
    assert!(
        !text.contains("OAuth") && !text.contains("secret body"),
        "{text}"
    );
    let report = Report::Passed {
        request: request(b""),
        at: Timestamp(1),
    };
    let back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(back, report);
}
