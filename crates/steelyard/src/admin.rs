//! `createadmin` and `apikey`: what must be possible before anybody can log in. Both work on the data
//! directly, also while the region runs.

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use metal::Timestamp;
use region::Region;
use region::auth::{self, ApiKey, TokenFor};
use region::dispatch::{self, Incoming};
use region::error::ApiError;
use region::user;

use crate::client::oauth::Credentials;
use crate::data::DataArgs;
use crate::{local, out};

/// `steelyard createadmin`.
#[derive(clap::Args)]
pub struct CreateAdminArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Log-in name; asked for when left out
    #[arg(long)]
    username: Option<String>,
    /// Password, or - to read it from standard input; asked for when left out
    #[arg(long)]
    password: Option<String>,
    /// E-mail address; asked for when left out
    #[arg(long)]
    email: Option<String>,
    /// Do nothing when there is an administrator already
    #[arg(long)]
    if_none: bool,
}

/// `steelyard apikey`.
#[derive(clap::Args)]
pub struct ApiKeyArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Whose key
    #[arg(long)]
    username: String,
    /// Make a further key and print that
    #[arg(long, conflicts_with = "delete")]
    generate: bool,
    /// Delete this key; it stops working at once
    #[arg(long, value_name = "KEY")]
    delete: Option<String>,
}

/// The region of a data directory, for a command.
///
/// # Errors
/// When it cannot be opened.
pub async fn open(data: &DataArgs) -> anyhow::Result<Arc<Region>> {
    let data = data.resolve()?;
    data.create()?;
    Region::open(region::Config {
        data_dir: data.dir,
        database: data.database,
        name: "command-line".to_owned(),
        agents: Default::default(),
    })
    .await
    .context("the data cannot be opened")
}

fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// The words of an error of the region, with every field that is wrong.
pub fn said(e: ApiError) -> anyhow::Error {
    match e {
        ApiError::Fields(fields) => {
            let all: Vec<String> = fields
                .iter()
                .map(|(f, m)| format!("{f}: {}", m.join(" ")))
                .collect();
            anyhow::anyhow!(all.join("; "))
        }
        other => other.into(),
    }
}

/// Makes an administrator.
///
/// # Errors
/// When the name is taken or something is missing and nobody can be asked.
pub async fn create_admin(args: CreateAdminArgs) -> anyhow::Result<ExitCode> {
    let region = open(&args.data).await?;
    let result = create(&region, args).await;
    region.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

async fn create(region: &Arc<Region>, args: CreateAdminArgs) -> anyhow::Result<()> {
    if args.if_none {
        let admins = local::administrators(region).await?;
        if !admins.is_empty() {
            return Ok(out::line(&format!(
                "There is an administrator already: {}.",
                admins.join(", ")
            ))?);
        }
    }
    make(region, args.username, args.password, args.email).await
}

/// Makes an administrator; what is not given is asked for on the terminal, the password twice.
///
/// # Errors
/// When it is refused, or something is missing and nobody can be asked.
pub async fn make(
    region: &Arc<Region>,
    username: Option<String>,
    password: Option<String>,
    email: Option<String>,
) -> anyhow::Result<()> {
    let username = or_ask(username, "--username", "Username: ")?;
    let password = match password {
        Some(p) if p == "-" => first_line()?,
        Some(p) => p,
        None => new_password()?,
    };
    let email = or_ask(email, "--email", "E-mail: ")?;
    user::create_admin(region, &username, &password, &email, now())
        .await
        .map_err(said)?;
    Ok(out::line(&format!("{username} is an administrator now."))?)
}

fn or_ask(given: Option<String>, option: &str, prompt: &str) -> anyhow::Result<String> {
    if let Some(g) = given {
        return Ok(g);
    }
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{option} is missing, and there is no terminal to ask for it");
    }
    out::bytes(prompt.as_bytes())?;
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("the terminal cannot be read")?;
    Ok(line.trim().to_owned())
}

/// The first line of standard input.
///
/// # Errors
/// When it cannot be read.
pub fn first_line() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("standard input cannot be read")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn new_password() -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("--password is missing, and there is no terminal to ask for it");
    }
    let first = rpassword::prompt_password("Password: ").context("the terminal cannot be read")?;
    let second = rpassword::prompt_password("Again: ").context("the terminal cannot be read")?;
    if first != second {
        anyhow::bail!("the two passwords differ");
    }
    Ok(first)
}

/// Prints, makes or deletes a key.
///
/// # Errors
/// When there is no such user or key.
pub async fn api_key(args: ApiKeyArgs) -> anyhow::Result<ExitCode> {
    let region = open(&args.data).await?;
    let result = match &args.delete {
        Some(key) => delete_key(&region, &args.username, key).await,
        None if args.generate => {
            let key = new_key(&region, &args.username).await;
            key.and_then(|k| Ok(out::line(&k.joined())?))
        }
        None => match user::api_key(&region, &args.username, now()).await {
            Ok(key) => out::line(&key.joined()).map_err(Into::into),
            Err(ApiError::NotFound(_)) => Err(no_user(&args.username)),
            Err(e) => Err(said(e)),
        },
    };
    region.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// A key of some administrator, for a command that asks the running process.
///
/// # Errors
/// When there is no administrator.
pub async fn any_admin_key(data: &DataArgs) -> anyhow::Result<String> {
    let region = open(data).await?;
    let key = async {
        let admins = local::administrators(&region).await?;
        let admin = admins
            .first()
            .context("there is no administrator yet; make one with createadmin")?;
        Ok(user::api_key(&region, admin, now())
            .await
            .map_err(said)?
            .joined())
    };
    let key = key.await;
    region.stop().await;
    key
}

fn no_user(username: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no user {username}")
}

async fn new_key(region: &Arc<Region>, username: &str) -> anyhow::Result<ApiKey> {
    let (key, own, name) = (ApiKey::random(), Arc::clone(region), username.to_owned());
    let kept = key.clone();
    let written = region.db.write(move |tx| {
        let (key, region, name) = (kept.clone(), Arc::clone(&own), name.clone());
        Box::pin(async move {
            let user = user::by_name(tx, &name).await?;
            let whom = TokenFor::User {
                id: user.id,
                name: "MAAS consumer",
            };
            auth::insert_token(tx, &region, &key, whom, now()).await
        })
    });
    match written.await {
        Ok(()) => Ok(key),
        Err(ApiError::NotFound(_)) => Err(no_user(username)),
        Err(e) => Err(said(e)),
    }
}

/// Deletes a key through the API's own operation, signed with that very key.
async fn delete_key(region: &Arc<Region>, username: &str, key: &str) -> anyhow::Result<()> {
    let credentials: Credentials = key.parse()?;
    let who = signed(
        region,
        &credentials,
        "GET",
        "/MAAS/api/2.0/users/?op=whoami",
        Bytes::new(),
    )
    .await?;
    let who: serde_json::Value =
        serde_json::from_slice(&who).context("whoami did not answer JSON")?;
    if who["username"] != username {
        anyhow::bail!("this is not a key of {username}");
    }
    let body = format!("token_key={}", credentials.token_key());
    signed(
        region,
        &credentials,
        "POST",
        "/MAAS/api/2.0/account/?op=delete_authorisation_token",
        body.into(),
    )
    .await?;
    Ok(())
}

async fn signed(
    region: &Arc<Region>,
    credentials: &Credentials,
    method: &str,
    target: &str,
    body: Bytes,
) -> anyhow::Result<Bytes> {
    let incoming = Incoming {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: vec![
            ("authorization".to_owned(), credentials.header()),
            (
                "content-type".to_owned(),
                "application/x-www-form-urlencoded".to_owned(),
            ),
        ],
        body,
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        via: None,
        base: String::new(),
    };
    let answer = dispatch::dispatch(region, incoming).await;
    let (status, _, body) = region::http::collect(answer).await;
    match status {
        200..=299 => Ok(body),
        401 => anyhow::bail!("there is no such key"),
        _ => anyhow::bail!("{}", String::from_utf8_lossy(&body)),
    }
}
