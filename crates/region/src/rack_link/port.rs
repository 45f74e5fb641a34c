//! The region as its racks see it.

use std::sync::Arc;

use async_trait::async_trait;
use link::message::{Batch, CommandResult, Hello, PassedRequest, PassedResponse, ToRack, Welcome};
use link::port::{BlobReader, LinkError, Region as Port, SUBSCRIPTION_CAPACITY};
use link::snapshot::{Delta, Position};
use metal::{SystemId, Timestamp};
use tokio::sync::mpsc;

use super::{register, report, snapshot};
use crate::dispatch::{self, Incoming};
use crate::error::ApiError;
use crate::http;
use crate::image;
use crate::region::Region;

/// [`link::port::Region`] over a region in this process.
#[derive(Clone, Debug)]
pub struct RegionPort {
    region: Arc<Region>,
    /// The certificate of the rack at the other end; none in the all-in-one.
    fingerprint: Option<String>,
}

impl RegionPort {
    /// The port for a rack in the same process.
    #[must_use]
    pub const fn local(region: Arc<Region>) -> Self {
        Self {
            region,
            fingerprint: None,
        }
    }

    /// The port for a rack that showed this certificate.
    #[must_use]
    pub const fn remote(region: Arc<Region>, fingerprint: String) -> Self {
        Self {
            region,
            fingerprint: Some(fingerprint),
        }
    }
}

/// An error of the region as a rack is told.
fn failed(e: ApiError) -> LinkError {
    match e {
        ApiError::Forbidden(m) | ApiError::Unauthorized(m) => LinkError::Refused(m),
        ApiError::Bad(m) => LinkError::Invalid(m),
        other => {
            let id = uuid::Uuid::new_v4().to_string();
            tracing::error!(%id, error = %other, cause = ?std::error::Error::source(&other), "a rack's request failed");
            LinkError::Failed(id)
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

#[async_trait]
impl Port for RegionPort {
    async fn hello(&self, hello: Hello) -> Result<Welcome, LinkError> {
        if !link::is_served(hello.version) {
            return Err(LinkError::Version {
                region: link::VERSION,
                rack: hello.version,
            });
        }
        register::hello(&self.region, hello, self.fingerprint.clone(), now())
            .await
            .map_err(failed)
    }

    async fn subscribe(
        &self,
        rack: &SystemId,
        from: Option<Position>,
    ) -> Result<mpsc::Receiver<ToRack>, LinkError> {
        let (to, receiver) = mpsc::channel(SUBSCRIPTION_CAPACITY);
        let connection = self.region.hub.connect(rack.clone(), to.clone());
        let (region, rack) = (Arc::clone(&self.region), rack.clone());
        self.region.tasks.spawn(async move {
            tokio::select! {
                () = region.stop.cancelled() => {}
                () = to.closed() => {}
                () = feed_rack(&region, &rack, connection, from, &to) => {}
            }
            region.hub.disconnect(&rack, connection);
        });
        Ok(receiver)
    }

    async fn report(&self, rack: &SystemId, batch: Batch) -> Result<(), LinkError> {
        report::store(&self.region, rack, batch, now())
            .await
            .map_err(failed)
    }

    async fn complete(&self, rack: &SystemId, result: CommandResult) -> Result<(), LinkError> {
        tracing::debug!(%rack, job = result.id, attempt = result.attempt, "a command was carried out");
        self.region.hub.complete(result);
        Ok(())
    }

    async fn pass(
        &self,
        rack: &SystemId,
        request: PassedRequest,
    ) -> Result<PassedResponse, LinkError> {
        Ok(pass(&self.region, rack, request).await)
    }

    async fn blob(
        &self,
        _rack: &SystemId,
        sha256: &str,
        offset: u64,
    ) -> Result<BlobReader, LinkError> {
        image::open_blob(&self.region, sha256, offset)
            .await
            .map_err(|e| match e {
                ApiError::NotFound(_) => LinkError::NoBlob(sha256.to_owned()),
                other => failed(other),
            })
    }
}

/// Answers a machine's request that its rack passed on.
pub(super) async fn pass(
    region: &Arc<Region>,
    rack: &SystemId,
    request: PassedRequest,
) -> PassedResponse {
    let incoming = Incoming {
        method: request.method,
        target: request.target,
        headers: request.headers,
        body: request.body,
        ip: request.client,
        via: Some((rack.clone(), request.mac)),
        base: request.base,
    };
    let answer = dispatch::dispatch(region, incoming).await;
    let (status, headers, body) = http::collect(answer).await;
    PassedResponse {
        status,
        headers,
        body,
    }
}

/// Tells a rack everything from a position on, until it goes away.
async fn feed_rack(
    region: &Arc<Region>,
    rack: &SystemId,
    connection: u64,
    from: Option<Position>,
    to: &mpsc::Sender<ToRack>,
) {
    let mut from = from;
    loop {
        let start = match from.take() {
            Some(p) => p,
            None => match full(region).await {
                Ok((snapshot, at)) => {
                    if to.send(ToRack::Snapshot(Box::new(snapshot))).await.is_err() {
                        return;
                    }
                    at
                }
                Err(e) => {
                    tracing::error!(%rack, error = %e, "a snapshot could not be made; trying again");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            },
        };
        region.hub.told(rack, connection, start);
        if follow(region, rack, connection, start, to).await.is_none() {
            return;
        }
    }
}

async fn full(region: &Arc<Region>) -> Result<(link::snapshot::Snapshot, Position), ApiError> {
    let mut tx = region.db.read().await?;
    let (snapshot, _) = snapshot::build(&mut tx).await?;
    let at = snapshot.position;
    Ok((snapshot, at))
}

/// Sends deltas. `Some` when a new snapshot is needed, `None` when the rack is gone.
async fn follow(
    region: &Arc<Region>,
    rack: &SystemId,
    connection: u64,
    start: Position,
    to: &mpsc::Sender<ToRack>,
) -> Option<()> {
    let mut reader = region.db.feed_reader(snapshot::feed_position(start));
    let mut at = start;
    loop {
        let feed = match reader.next().await {
            Ok(f) => f,
            Err(store::StoreError::StartAgain) => return Some(()),
            Err(e) => {
                tracing::warn!(%rack, error = %e, "the change feed cannot be read; trying again");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
        };
        let next = snapshot::position(reader.position());
        let changes = async {
            let mut tx = region.db.read().await?;
            snapshot::changes(&mut tx, &feed).await
        };
        let changes = match changes.await {
            Ok(c) => c,
            Err(e) => {
                tracing::warn!(%rack, error = %e, "changes could not be read; the rack gets a new snapshot");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                return Some(());
            }
        };
        let delta = Delta {
            from: at,
            to: next,
            changes,
        };
        if to.send(ToRack::Delta(delta)).await.is_err() {
            return None;
        }
        at = next;
        region.hub.told(rack, connection, at);
    }
}
