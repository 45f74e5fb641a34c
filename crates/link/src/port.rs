//! What a rack can ask of its region, whatever lies between them.

use async_trait::async_trait;
use metal::SystemId;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use crate::message::{Batch, CommandResult, Hello, PassedRequest, PassedResponse, ToRack, Welcome};
use crate::snapshot::Position;

/// Messages that may wait for a rack that is slow to read.
pub const SUBSCRIPTION_CAPACITY: usize = 64;

/// A region, as its racks see it. Implemented by the region itself (in process) and by the TLS client.
///
/// Every call may fail with [`LinkError::Away`]; the rack then goes on with what it has and tries again.
#[async_trait]
pub trait Region: Send + Sync + 'static {
    /// Presents the rack. Called first and after each interruption.
    async fn hello(&self, hello: Hello) -> Result<Welcome, LinkError>;

    /// Snapshots, changes and commands from now on. The first message is a snapshot unless `from`
    /// is a position that the feed still reaches back to. The channel closes when the link is lost.
    async fn subscribe(
        &self,
        rack: &SystemId,
        from: Option<Position>,
    ) -> Result<mpsc::Receiver<ToRack>, LinkError>;

    /// Hands over a batch of reports. `Ok` means that it is stored; a batch with a number that was
    /// stored before is acknowledged and not stored again.
    async fn report(&self, rack: &SystemId, batch: Batch) -> Result<(), LinkError>;

    /// Hands over the result of a command.
    async fn complete(&self, rack: &SystemId, result: CommandResult) -> Result<(), LinkError>;

    /// Passes a machine's request on.
    async fn pass(
        &self,
        rack: &SystemId,
        request: PassedRequest,
    ) -> Result<PassedResponse, LinkError>;

    /// Opens content by its hash, from an offset. The receiver checks the hash.
    async fn blob(
        &self,
        rack: &SystemId,
        sha256: &str,
        offset: u64,
    ) -> Result<BlobReader, LinkError>;
}

/// Content being read.
pub struct BlobReader {
    /// Size of the whole content in bytes.
    pub size: u64,
    /// The bytes from the offset asked for to the end.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
}

/// Why a call over the link failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The region cannot be reached now.
    #[error("the region cannot be reached: {0}")]
    Away(String),
    /// The region does not know this rack, or its certificate.
    #[error("the region does not accept this rack: {0}")]
    Refused(String),
    /// The two speak different versions.
    #[error("the region speaks link version {region}, this rack speaks {rack}")]
    Version {
        /// The region's.
        region: u32,
        /// The rack's.
        rack: u32,
    },
    /// There is no such content.
    #[error("the region has no content {0}")]
    NoBlob(String),
    /// The region failed; the number is in its log.
    #[error("the region failed (error {0})")]
    Failed(String),
    /// The rack's own fault: the message makes no sense.
    #[error("the region refused the message: {0}")]
    Invalid(String),
}
