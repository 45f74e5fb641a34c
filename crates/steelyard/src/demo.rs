//! `steelyard up --demo N`: simulated machines beside the product, for people who want to look.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use fleet::config::Timing;
use fleet::demo::DemoConfig;
use metal::Timestamp;
use rand::Rng as _;
use region::Region;
use region::error::ApiError;
use tokio_util::sync::CancellationToken;

/// The administrator that the demonstration works as, and that a newcomer may use.
pub const USER: &str = "demo";

/// Starts the fleet; it runs until cancelled.
///
/// # Errors
/// When the demonstration's administrator cannot be made.
pub async fn start(
    region: &Arc<Region>,
    machines: usize,
    api: SocketAddr,
    rack_http: SocketAddr,
    data_dir: &Path,
    cancel: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let now = Timestamp::from_system(std::time::SystemTime::now());
    let password: String = (0..32)
        .map(|_| char::from(rand::rng().sample(rand::distr::Alphanumeric)))
        .collect();
    match region::user::create_admin(region, USER, &password, "demo@localhost.invalid", now).await {
        Ok(()) => {}
        // There from the last time.
        Err(ApiError::Fields(f)) if f.iter().any(|(name, _)| name == "username") => {}
        Err(e) => return Err(anyhow::Error::new(e).context("the demonstration's administrator")),
    }
    let key = region::user::api_key(region, USER, now)
        .await
        .context("the demonstration's API key")?;
    let mut address = api;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let config = DemoConfig {
        region_url: format!("http://{address}/MAAS"),
        api_key: key.joined(),
        rack_http,
        machines,
        stream_dir: data_dir.join("demo-stream"),
        timing: Timing::watchable(),
    };
    Ok(tokio::spawn(async move {
        if let Err(e) = fleet::demo::run(config, cancel).await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(e)),
                "the demonstration ended"
            );
        }
    }))
}
