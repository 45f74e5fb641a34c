//! The link over TCP: TLS with certificates on both sides, one connection per rack for messages and one
//! for each content being read.
//!
//! A rack trusts exactly one certificate authority, its region's, whose fingerprint is part of the
//! one-time secret it enrols with ([`ca::Secret`]). A region trusts the certificates that it issued, and
//! knows each rack by the fingerprint of its own.

pub mod ca;
pub mod client;
pub mod frame;
pub mod server;

/// Default TCP port of a region for its racks.
pub const PORT: u16 = 5250;
/// Name that every region's certificate carries beside its host's, so that racks need not know names.
pub const SERVER_NAME: &str = "region.steelyard.internal";

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key could not be made.
    #[error("a certificate could not be made")]
    Make(#[source] rcgen::Error),
    /// A certificate or key could not be read.
    #[error("a certificate or key cannot be read: {0}")]
    Read(String),
    /// rustls refused the configuration.
    #[error("the TLS configuration was refused")]
    Config(#[source] rustls::Error),
    /// The secret of an enrolment cannot be read.
    #[error("this is not an enrolment secret; copy the whole line that the region printed")]
    Secret,
    /// The region's certificate is not the one that the secret names.
    #[error("the region at this address is not the one that made the secret")]
    OtherRegion,
    /// The connection failed.
    #[error("the region cannot be reached")]
    Connect(#[source] std::io::Error),
    /// The region refused.
    #[error("the region refused: {0}")]
    Refused(String),
}

impl From<rcgen::Error> for TlsError {
    fn from(e: rcgen::Error) -> Self {
        Self::Make(e)
    }
}
