//! Who calls: OAuth 1.0 PLAINTEXT as MAAS clients sign it, and what a caller may do.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metal::{SystemId, Timestamp};
use rand::Rng as _;
use store::Tx;

use crate::error::ApiError;
use crate::region::Region;

/// Somebody or something that calls the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// No credentials.
    Anonymous,
    /// A person.
    User(User),
    /// A machine with its own credentials.
    Node(Node),
}

/// A person who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Database id.
    pub id: i64,
    /// Log-in name.
    pub username: String,
    /// Administrator.
    pub is_superuser: bool,
    /// The token in use.
    pub token_key: String,
}

/// A machine that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Database id.
    pub id: i64,
    /// System id.
    pub system_id: SystemId,
    /// What its token was made for: `ephemeral` or `installed`.
    pub purpose: String,
}

impl Actor {
    /// The person, or 401.
    ///
    /// # Errors
    /// 401 when nobody has logged in, 403 for a machine.
    pub fn user(&self) -> Result<&User, ApiError> {
        match self {
            Self::User(u) => Ok(u),
            Self::Anonymous => Err(unauthorized()),
            Self::Node(_) => Err(ApiError::forbidden()),
        }
    }

    /// The machine.
    ///
    /// # Errors
    /// 401 without credentials, 403 for a person.
    pub fn node(&self) -> Result<&Node, ApiError> {
        match self {
            Self::Node(n) => Ok(n),
            Self::Anonymous => Err(unauthorized()),
            Self::User(_) => Err(ApiError::Forbidden(
                "These are a person's credentials; the metadata of a machine needs its own."
                    .to_owned(),
            )),
        }
    }

    /// Whether this is an administrator.
    #[must_use]
    pub const fn is_admin(&self) -> bool {
        matches!(self, Self::User(u) if u.is_superuser)
    }

    /// The name for events; empty for machines and strangers.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User(u) => &u.username,
            Self::Anonymous | Self::Node(_) => "",
        }
    }

    /// The id of the person for predicates in SQL; -1 matches nobody.
    #[must_use]
    pub const fn user_id(&self) -> i64 {
        match self {
            Self::User(u) => u.id,
            Self::Anonymous | Self::Node(_) => -1,
        }
    }
}

/// What somebody wants to do to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look at a machine.
    View,
    /// Use a machine: deploy, release, power, annotate.
    Edit,
    /// Change the machine itself: commission, configure, delete.
    Admin,
    /// Change what belongs to everybody: networks, zones, images, users, settings.
    Global,
}

/// What the action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A machine and its owner.
    Machine {
        /// The owner's id.
        owner: Option<i64>,
    },
    /// The installation.
    Installation,
}

/// The one question before anything.
///
/// # Errors
/// 401 without credentials, 403 when it is not allowed.
pub fn authorize(actor: &Actor, action: Action, resource: Resource) -> Result<(), ApiError> {
    let user = actor.user()?;
    let allowed = user.is_superuser
        || match (action, resource) {
            (Action::View, Resource::Machine { owner }) => {
                owner.is_none() || owner == Some(user.id)
            }
            (Action::Edit, Resource::Machine { owner }) => owner == Some(user.id),
            (Action::View, Resource::Installation) => true,
            (Action::Admin | Action::Global, _) | (Action::Edit, Resource::Installation) => false,
        };
    if allowed {
        Ok(())
    } else {
        Err(ApiError::forbidden())
    }
}

fn unauthorized() -> ApiError {
    ApiError::Unauthorized("Log in first: this needs the credentials of an API key.".to_owned())
}

/// A key of three parts, as people paste it: `consumer:token:secret`.
#[derive(Clone)]
pub struct ApiKey {
    /// Consumer key.
    pub consumer_key: String,
    /// Token key.
    pub token_key: String,
    /// Token secret.
    pub token_secret: String,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey")
            .field("token_key", &self.token_key)
            .finish_non_exhaustive()
    }
}

impl ApiKey {
    /// A new random key: 18, 18 and 32 letters and digits.
    #[must_use]
    pub fn random() -> Self {
        let mut rng = rand::rng();
        let mut text = |n: usize| -> String {
            (0..n)
                .map(|_| char::from(rng.sample(rand::distr::Alphanumeric)))
                .collect()
        };
        Self {
            consumer_key: text(18),
            token_key: text(18),
            token_secret: text(32),
        }
    }

    /// The form that people paste.
    #[must_use]
    pub fn joined(&self) -> String {
        format!(
            "{}:{}:{}",
            self.consumer_key, self.token_key, self.token_secret
        )
    }
}

/// Whom a new token is for.
#[derive(Clone, Copy, Debug)]
pub enum TokenFor<'a> {
    /// A person, with a name for the token.
    User {
        /// The person.
        id: i64,
        /// The token's name.
        name: &'a str,
    },
    /// A machine, with what the token is made for.
    Node {
        /// The machine.
        id: i64,
        /// `ephemeral` or `installed`.
        purpose: &'a str,
    },
}

fn seal_context(token_key: &str) -> String {
    format!("token:{token_key}")
}

/// Keeps a new token. The key itself is made outside the transaction, because that may run again.
///
/// # Errors
/// When the database fails.
pub async fn insert_token(
    tx: &mut Tx,
    region: &Region,
    key: &ApiKey,
    whom: TokenFor<'_>,
    now: Timestamp,
) -> Result<(), ApiError> {
    let (user, node, name, purpose) = match whom {
        TokenFor::User { id, name } => (Some(id), None, name, ""),
        TokenFor::Node { id, purpose } => (None, Some(id), "", purpose),
    };
    let sealed = region
        .sealer
        .seal(&seal_context(&key.token_key), key.token_secret.as_bytes());
    store::exec!(
        tx,
        "INSERT INTO token (consumer_key, token_key, sealed_secret, name, user_id, node_id, purpose, created) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &key.consumer_key,
        &key.token_key,
        &sealed,
        name,
        user,
        node,
        purpose,
        now.0
    )?;
    Ok(())
}

/// A token as it is kept, with its secret opened.
///
/// # Errors
/// When the secret cannot be unsealed.
pub fn open_token(
    region: &Region,
    consumer_key: &str,
    token_key: &str,
    sealed: &[u8],
) -> Result<ApiKey, ApiError> {
    let secret = region.sealer.unseal(&seal_context(token_key), sealed)?;
    Ok(ApiKey {
        consumer_key: consumer_key.to_owned(),
        token_key: token_key.to_owned(),
        token_secret: String::from_utf8(secret)
            .map_err(|_| ApiError::bug("a token's secret is not text"))?,
    })
}

/// The parameters of OAuth 1.0 that a request carried.
#[derive(Default)]
pub struct OAuth {
    consumer_key: String,
    token: String,
    signature: String,
    method: String,
    timestamp: String,
    nonce: String,
}

impl OAuth {
    /// Reads an `Authorization` header; `None` when it is of another kind.
    #[must_use]
    pub fn from_header(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("oauth") {
            return None;
        }
        Some(Self::collect(rest.split(',').filter_map(|p| {
            let (k, v) = p.trim().split_once('=')?;
            let v = v.trim().trim_matches('"');
            Some((
                k.trim().to_owned(),
                percent_encoding::percent_decode_str(v)
                    .decode_utf8_lossy()
                    .into_owned(),
            ))
        })))
    }

    /// Reads `oauth_…` parameters of a query or form; `None` when there is no token among them.
    pub fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let o = Self::collect(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
        (!o.token.is_empty()).then_some(o)
    }

    fn collect(pairs: impl Iterator<Item = (String, String)>) -> Self {
        let mut o = Self::default();
        for (k, v) in pairs {
            match k.as_str() {
                "oauth_consumer_key" => o.consumer_key = v,
                "oauth_token" => o.token = v,
                "oauth_signature" => o.signature = v,
                "oauth_signature_method" => o.method = v,
                "oauth_timestamp" => o.timestamp = v,
                "oauth_nonce" => o.nonce = v,
                _ => {}
            }
        }
        o
    }
}

/// Nonces seen of late; the same one twice is refused.
#[derive(Default)]
pub struct Nonces {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    set: HashSet<String>,
    order: VecDeque<(Timestamp, String)>,
}

/// How long a signed request is valid: MAAS refuses older timestamps.
pub const MAX_AGE: Duration = Duration::from_secs(300);
/// Most nonces remembered.
const MAX_NONCES: usize = 200_000;

impl Nonces {
    /// Notes a nonce; says whether it is new.
    fn fresh(&self, key: String, now: Timestamp) -> bool {
        let mut guard = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { set, order } = &mut *guard;
        while order.len() >= MAX_NONCES
            || order
                .front()
                .is_some_and(|(at, _)| now.since(*at) > MAX_AGE * 2)
        {
            let Some((_, old)) = order.pop_front() else {
                break;
            };
            set.remove(&old);
        }
        if !set.insert(key.clone()) {
            return false;
        }
        order.push_back((now, key));
        true
    }
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    consumer_key: String,
    sealed_secret: Vec<u8>,
    purpose: String,
    user_id: Option<i64>,
    username: Option<String>,
    is_superuser: Option<bool>,
    node_id: Option<i64>,
    system_id: Option<String>,
}

/// Finds out who signed a request.
///
/// # Errors
/// 401 for an unknown key or a wrong signature, 400 for a timestamp that is no number.
pub async fn authenticate(
    region: &Region,
    oauth: &OAuth,
    now: Timestamp,
) -> Result<Actor, ApiError> {
    let refuse = |why: &str| ApiError::Unauthorized(format!("Authorization Error: {why}"));
    if !oauth.method.eq_ignore_ascii_case("PLAINTEXT") {
        return Err(refuse("'the signature method must be PLAINTEXT'"));
    }
    let stamp: i64 = oauth
        .timestamp
        .trim()
        .parse()
        .map_err(|_| ApiError::Bad("The oauth_timestamp is not a whole number.".to_owned()))?;
    let mut tx = region.db.read().await?;
    let row = store::opt!(
        tx,
        TokenRow,
        "SELECT t.consumer_key, t.sealed_secret, t.purpose, t.user_id, u.username, u.is_superuser, t.node_id, n.system_id \
         FROM token t LEFT JOIN user_account u ON u.id = t.user_id LEFT JOIN node n ON n.id = t.node_id WHERE t.token_key = $1",
        &oauth.token
    )?;
    drop(tx);
    let Some(row) = row else {
        return Err(refuse("Invalid API key."));
    };
    let key = open_token(region, &row.consumer_key, &oauth.token, &row.sealed_secret)?;
    let expected = format!("&{}", key.token_secret);
    if !same(oauth.consumer_key.as_bytes(), row.consumer_key.as_bytes())
        || !same(oauth.signature.as_bytes(), expected.as_bytes())
    {
        return Err(refuse("Invalid API key."));
    }
    if let (Some(id), Some(system_id)) = (row.node_id, row.system_id) {
        // A machine's clock may be years off before it has been set: no check of its time.
        return Ok(Actor::Node(Node {
            id,
            system_id: SystemId(system_id),
            purpose: row.purpose,
        }));
    }
    let (Some(id), Some(username), Some(is_superuser)) =
        (row.user_id, row.username, row.is_superuser)
    else {
        return Err(refuse("Invalid API key."));
    };
    let age = (now.seconds() - stamp).unsigned_abs();
    if age > MAX_AGE.as_secs() {
        return Err(refuse(
            "'the timestamp is too far from the time of this server'",
        ));
    }
    if !region
        .nonces
        .fresh(format!("{}:{stamp}:{}", oauth.token, oauth.nonce), now)
    {
        return Err(refuse("'the nonce was used before'"));
    }
    Ok(Actor::User(User {
        id,
        username,
        is_superuser,
        token_key: oauth.token.clone(),
    }))
}

/// Compares without telling by the time it takes where the difference is.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_the_maas_client_is_read() {
        let o = OAuth::from_header(
            "OAuth oauth_nonce=\"1\", oauth_timestamp=\"2\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", \
             oauth_consumer_key=\"CK\", oauth_token=\"TK\", oauth_signature=\"%26TS\"",
        )
        .unwrap();
        assert_eq!(
            (
                o.consumer_key.as_str(),
                o.token.as_str(),
                o.signature.as_str()
            ),
            ("CK", "TK", "&TS")
        );
        assert!(OAuth::from_header("Basic abc").is_none());
    }

    #[test]
    fn a_nonce_is_good_once() {
        let n = Nonces::default();
        assert!(n.fresh("a".into(), Timestamp(0)));
        assert!(!n.fresh("a".into(), Timestamp(1)));
        assert!(n.fresh("a".into(), Timestamp(0).plus(MAX_AGE * 3)));
    }
}
