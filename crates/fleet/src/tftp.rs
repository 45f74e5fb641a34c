//! Fetching files over TFTP: [`wire_tftp::client`] with a socket and a clock.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use tokio::net::UdpSocket;
use wire_tftp::client::{Fetch, FetchAction, FetchError, FetchInput, FetchOptions, SizeQuestion};

/// The port that requests go to.
pub const PORT: u16 = 69;
/// Largest block that is asked for, and with four bytes of header the largest datagram.
const BLKSIZE: u16 = 1_428;

/// A file that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum TftpError {
    /// The socket.
    #[error("TFTP is not possible from this address")]
    Socket(#[source] io::Error),
    /// The server.
    #[error("{path} could not be fetched over TFTP")]
    Fetch {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: FetchError,
    },
}

impl TftpError {
    /// Whether the server said that there is no such file.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Fetch {
                cause: FetchError::Server { .. },
                ..
            }
        )
    }
}

/// Asks for a file's size, as PXE firmware does before it allocates memory.
///
/// # Errors
/// [`TftpError`].
pub async fn probe(
    local: Ipv4Addr,
    server: Ipv4Addr,
    path: &str,
) -> Result<Option<u64>, TftpError> {
    let options = FetchOptions {
        size: SizeQuestion::ProbeOnly,
        blksize: Some(BLKSIZE),
        ..FetchOptions::default()
    };
    match run(local, server, path, options).await? {
        End::Probed(size) => Ok(size),
        End::File(file) => Ok(Some(file.len() as u64)),
    }
}

/// Fetches a file.
///
/// # Errors
/// [`TftpError`].
pub async fn fetch(local: Ipv4Addr, server: Ipv4Addr, path: &str) -> Result<Vec<u8>, TftpError> {
    let options = FetchOptions {
        size: SizeQuestion::Ask,
        blksize: Some(BLKSIZE),
        ..FetchOptions::default()
    };
    match run(local, server, path, options).await? {
        End::File(file) => Ok(file),
        // Not asked for.
        End::Probed(_) => Ok(Vec::new()),
    }
}

enum End {
    File(Vec<u8>),
    Probed(Option<u64>),
}

async fn run(
    local: Ipv4Addr,
    server: Ipv4Addr,
    path: &str,
    options: FetchOptions,
) -> Result<End, TftpError> {
    let socket = UdpSocket::bind(SocketAddrV4::new(local, 0))
        .await
        .map_err(TftpError::Socket)?;
    let mut server: SocketAddr = SocketAddrV4::new(server, PORT).into();
    let mut settled = false;
    let (mut fetch, mut actions) = Fetch::start(path, options, Instant::now());
    let mut file = Vec::new();
    let mut datagram = vec![0; usize::from(BLKSIZE) + 512];
    loop {
        let mut end = None;
        for action in actions {
            match action {
                FetchAction::Send(bytes) => {
                    // A datagram that cannot be sent is one that was lost.
                    socket.send_to(&bytes, server).await.ok();
                }
                FetchAction::Deliver(bytes) => file.extend_from_slice(&bytes),
                FetchAction::Done(_) => end = Some(Ok(())),
                FetchAction::Probed(size) => return Ok(End::Probed(size)),
                FetchAction::Failed(cause) => {
                    end = Some(Err(TftpError::Fetch {
                        path: path.to_owned(),
                        cause,
                    }))
                }
            }
        }
        match end {
            Some(Ok(())) => return Ok(End::File(file)),
            Some(Err(e)) => return Err(e),
            None => {}
        }
        let Some(deadline) = fetch.deadline() else {
            return Err(TftpError::Fetch {
                path: path.to_owned(),
                cause: FetchError::NoAnswer,
            });
        };
        actions = tokio::select! {
            received = socket.recv_from(&mut datagram) => match received {
                Ok((n, from)) if from.ip() == server.ip() && (!settled || from == server) => {
                    // The transfer goes on with the port that answered (RFC 1350 §4).
                    (server, settled) = (from, true);
                    fetch.handle(FetchInput::Packet(&datagram[..n]), Instant::now())
                }
                Ok(_) => Vec::new(),
                Err(e) => return Err(TftpError::Socket(e)),
            },
            () = tokio::time::sleep_until(deadline.into()) => fetch.handle(FetchInput::Timeout, Instant::now()),
        };
    }
}
