//! What crosses a connection: frames of a length (32 bits, network order) and JSON.

use metal::SystemId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::MAX_MESSAGE;
use crate::message::{Batch, CommandResult, Hello, PassedRequest, PassedResponse, ToRack, Welcome};
use crate::port::LinkError;
use crate::snapshot::Position;

/// The first frame of a connection says what it is for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "open", rename_all = "kebab-case")]
pub enum Open {
    /// Messages.
    Session,
    /// One content, from an offset; its bytes follow the answer, to the end of the connection.
    Blob {
        /// SHA-256.
        sha256: String,
        /// Where to begin.
        offset: u64,
    },
    /// A rack asks for its certificate.
    Enrol {
        /// The token of its secret.
        token: String,
        /// Its certificate request, PEM.
        csr: String,
        /// Its host name.
        hostname: String,
    },
}

/// The answer to [`Open::Blob`].
#[derive(Debug, Serialize, Deserialize)]
pub struct BlobHead {
    /// Size of the whole content, or why there is none.
    pub size: Result<u64, WireError>,
}

/// The answer to [`Open::Enrol`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Enrolled {
    /// The certificate, PEM, and the rack's system id; or why not.
    pub result: Result<(String, SystemId), String>,
}

/// From rack to region.
#[derive(Debug, Serialize, Deserialize)]
pub struct Up {
    /// Number of the call.
    pub id: u64,
    /// The call.
    pub call: Call,
}

/// The calls of [`crate::port::Region`] that are messages.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "call", content = "with", rename_all = "kebab-case")]
pub enum Call {
    /// `hello`.
    Hello(Box<Hello>),
    /// `subscribe`.
    Subscribe(Option<Position>),
    /// `report`.
    Report(Box<Batch>),
    /// `complete`.
    Complete(CommandResult),
    /// `pass`.
    Pass(Box<PassedRequest>),
    /// Is somebody there?
    Ping,
}

/// From region to rack.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "down", rename_all = "kebab-case")]
pub enum Down {
    /// The answer to a call.
    Reply {
        /// Its number.
        id: u64,
        /// How it went.
        result: Result<Reply, WireError>,
    },
    /// What the subscription brings.
    Push {
        /// The message.
        message: ToRack,
    },
    /// The subscription has ended at the region.
    Ended,
}

/// What a call gives.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "kebab-case")]
pub enum Reply {
    /// To `hello`.
    Welcome(Welcome),
    /// To `pass`.
    Response(PassedResponse),
    /// To all others.
    Done,
}

/// [`LinkError`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "error", content = "with", rename_all = "kebab-case")]
pub enum WireError {
    /// See [`LinkError::Refused`].
    Refused(String),
    /// See [`LinkError::Version`].
    Version(u32, u32),
    /// See [`LinkError::NoBlob`].
    NoBlob(String),
    /// See [`LinkError::Failed`].
    Failed(String),
    /// See [`LinkError::Invalid`].
    Invalid(String),
}

impl From<LinkError> for WireError {
    fn from(e: LinkError) -> Self {
        match e {
            LinkError::Away(m) | LinkError::Failed(m) => Self::Failed(m),
            LinkError::Refused(m) => Self::Refused(m),
            LinkError::Version { region, rack } => Self::Version(region, rack),
            LinkError::NoBlob(m) => Self::NoBlob(m),
            LinkError::Invalid(m) => Self::Invalid(m),
        }
    }
}

impl From<WireError> for LinkError {
    fn from(e: WireError) -> Self {
        match e {
            WireError::Refused(m) => Self::Refused(m),
            WireError::Version(region, rack) => Self::Version { region, rack },
            WireError::NoBlob(m) => Self::NoBlob(m),
            WireError::Failed(m) => Self::Failed(m),
            WireError::Invalid(m) => Self::Invalid(m),
        }
    }
}

fn invalid(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, e)
}

/// Writes one frame.
///
/// # Errors
/// When the connection fails or the message is too long.
pub async fn write<W: AsyncWrite + Unpin, T: Serialize + Sync>(
    to: &mut W,
    message: &T,
) -> std::io::Result<()> {
    let body = serde_json::to_vec(message).map_err(invalid)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|n| *n as usize <= MAX_MESSAGE)
        .ok_or_else(|| invalid("message too long"))?;
    to.write_all(&length.to_be_bytes()).await?;
    to.write_all(&body).await?;
    to.flush().await
}

/// Reads one frame; `None` when the connection ended between frames.
///
/// # Errors
/// When the connection fails or the frame is not what it should be.
pub async fn read<R: AsyncRead + Unpin, T: for<'de> Deserialize<'de>>(
    from: &mut R,
    limit: usize,
) -> std::io::Result<Option<T>> {
    let mut head = [0u8; 4];
    let first = from.read(&mut head).await?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[first..]).await?;
    let length = u32::from_be_bytes(head) as usize;
    if length > limit {
        return Err(invalid("message too long"));
    }
    // Grown as the bytes come, so that a length alone costs nothing.
    let mut body = Vec::with_capacity(length.min(64 << 10));
    let got = from.take(length as u64).read_to_end(&mut body).await?;
    if got != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&body).map(Some).map_err(invalid)
}
