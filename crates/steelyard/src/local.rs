//! Calling operations of a region in this process, as the one who may read its data directory anyway.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Context as _;
use region::Region;
use region::args::Args;
use region::auth::{Actor, User};
use region::call::{Call, Origin, Parts};
use region::operation::Method;
use serde_json::Value;

/// Reads a collection of the 2.0 API, for example `users/`, with the eyes of an administrator.
///
/// # Errors
/// When there is no such operation, or it fails.
pub async fn read(region: &Arc<Region>, uri: &str) -> anyhow::Result<Value> {
    let operation = region
        .table()
        .iter()
        .copied()
        .find(|o| o.uri == uri && o.method == Method::Get && o.op.is_none() && !o.handler.is_empty())
        .with_context(|| format!("the API has no {uri}"))?;
    // No person: the id is nobody's, so nothing can come to belong to it.
    let actor = Actor::User(User { id: -1, username: String::new(), is_superuser: true, token_key: String::new() });
    let call = Call::new(Parts {
        region: Arc::clone(region),
        operation,
        actor,
        path: Vec::new(),
        args: Args::default(),
        body: bytes::Bytes::new(),
        origin: Origin {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            rack: None,
            mac: None,
            base: String::new(),
            user_agent: String::new(),
        },
        now: metal::Timestamp::from_system(std::time::SystemTime::now()),
    });
    let answer = (operation.run)(call).await?;
    let (_, _, body) = region::http::collect(answer).await;
    serde_json::from_slice(&body).with_context(|| format!("{uri} did not answer JSON"))
}

/// The names of the administrators.
///
/// # Errors
/// When the database fails.
pub async fn administrators(region: &Arc<Region>) -> anyhow::Result<Vec<String>> {
    let users = read(region, "users/").await?;
    let admins = users.as_array().into_iter().flatten().filter(|u| u["is_superuser"] == true);
    Ok(admins.filter_map(|u| u["username"].as_str().map(str::to_owned)).collect())
}
