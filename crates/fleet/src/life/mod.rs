//! One boot of a machine: firmware, loader, kernel, system, until it ends.

mod agent;
mod cloud;
mod ephemeral;
mod firmware;
mod install;
mod installed;
mod loader;
mod scripts;

use std::time::Duration;

use tokio::time::sleep;

use crate::fault::Fault;
use crate::http::HttpError;
use crate::machine::Machine;
use crate::net::LinkError;
use crate::state::Phase;
use crate::tftp::TftpError;

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine switched itself off.
    PowerOff,
    /// It starts again.
    Reboot,
    /// It does nothing any more, and why.
    Stuck(String),
}

/// A stage that may end the boot.
type Stage<T> = Result<T, End>;

fn stuck<T>(why: impl Into<String>) -> Stage<T> {
    Err(End::Stuck(why.into()))
}

impl From<HttpError> for End {
    fn from(e: HttpError) -> Self {
        Self::Stuck(e.to_string())
    }
}

/// What the network cannot give; firmware tries again.
#[derive(Debug, thiserror::Error)]
enum NetError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Tftp(#[from] TftpError),
    #[error("{0}")]
    Other(String),
    /// A fault: it does not try again.
    #[error("the loader hangs")]
    Hang,
}

impl NetError {
    /// Whether the file is not there, rather than the network.
    fn is_missing(&self) -> bool {
        match self {
            Self::Http(e) => e.status().is_some_and(|s| s.is_client_error()),
            Self::Tftp(e) => e.is_missing(),
            Self::Link(_) | Self::Other(_) | Self::Hang => false,
        }
    }
}

/// One boot.
pub(crate) async fn boot(m: &Machine) -> End {
    match whole(m).await {
        Ok(end) | Err(end) => end,
    }
}

async fn whole(m: &Machine) -> Stage<End> {
    let timing = m.shared.config.timing;
    m.enter(Phase::Firmware, "self test");
    sleep(timing.post).await;
    if m.has(&Fault::StopBeforeRequest) {
        return stuck("hangs before its first request");
    }
    match firmware::boot(m).await? {
        firmware::Found::System(loaded) => ephemeral::run(m, *loaded).await,
        firmware::Found::Disk => installed::run(m).await,
        firmware::Found::Retry(words) => {
            m.enter(Phase::Loader, words);
            sleep(timing.retry).await;
            Ok(End::Reboot)
        }
    }
}

/// Waits for as long as a machine can.
async fn for_ever<T>() -> T {
    loop {
        sleep(Duration::from_secs(3_600)).await;
    }
}
