//! `users`: the people who may log in.

use metal::Timestamp;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::auth::{self, ApiKey, TokenFor};
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::region::Region;

/// `users/` and `users/{username}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "UsersHandler",
        uri: "users/",
        title: "List users.",
        run: |call| Box::pin(list(call)),
        ..Operation::READ
    },
    Operation {
        handler: "UsersHandler",
        uri: "users/",
        op: Some("whoami"),
        title: "The user whose key this is.",
        run: |call| Box::pin(whoami(call)),
        ..Operation::READ
    },
    Operation {
        handler: "UsersHandler",
        uri: "users/",
        method: Method::Post,
        who: Who::Admin,
        title: "Create a user.",
        params: &[
            Param::must("username", Kind::Text, "Log-in name."),
            Param::must("email", Kind::Text, "E-mail address."),
            Param::must("password", Kind::Text, "Password."),
            Param::must(
                "is_superuser",
                Kind::Bool,
                "Whether the user is an administrator.",
            ),
        ],
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(create(call)),
        ..Operation::READ
    },
    Operation {
        handler: "UserHandler",
        uri: "users/{username}/",
        title: "Read a user.",
        run: |call| Box::pin(read(call)),
        ..Operation::READ
    },
    Operation {
        handler: "UserHandler",
        uri: "users/{username}/",
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a user.",
        params: &[Param::opt(
            "transfer_resources_to",
            Kind::Text,
            "The user who gets the machines of this one.",
        )],
        success: 204,
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(delete(call)),
        ..Operation::READ
    },
];

/// A user as it is kept.
#[derive(Clone, sqlx::FromRow)]
pub struct UserRow {
    /// Database id.
    pub id: i64,
    /// Log-in name.
    pub username: String,
    /// E-mail address.
    pub email: String,
    /// Administrator.
    pub is_superuser: bool,
    /// Kept here, not by an identity service.
    pub is_local: bool,
}

impl UserRow {
    /// The object of the API.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "is_superuser": self.is_superuser,
            "username": self.username,
            "email": self.email,
            "is_local": self.is_local,
            "resource_uri": format!("/MAAS/api/2.0/users/{}/", self.username),
        })
    }
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        UserRow,
        "SELECT id, username, email, is_superuser, is_local FROM user_account ORDER BY username"
    )?;
    Ok(Answer::json(rows.iter().map(UserRow::json).collect()))
}

/// The user with that name.
///
/// # Errors
/// 404 when there is none.
pub async fn by_name(tx: &mut Tx, username: &str) -> Result<UserRow, ApiError> {
    store::opt!(
        tx,
        UserRow,
        "SELECT id, username, email, is_superuser, is_local FROM user_account WHERE username = $1",
        username
    )?
    .ok_or_else(|| ApiError::missing("User"))
}

async fn whoami(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(
        by_name(&mut tx, &call.actor().user()?.username)
            .await?
            .json(),
    ))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(
        by_name(&mut tx, call.path("username")).await?.json(),
    ))
}

/// A new person, checked but not yet kept.
#[derive(Clone)]
pub struct NewUser {
    username: String,
    email: String,
    password_hash: String,
    is_superuser: bool,
}

impl NewUser {
    /// Checks the name, and hashes the password away from the event loop.
    ///
    /// # Errors
    /// 400 for a name or a password that cannot be.
    pub async fn new(
        username: &str,
        email: &str,
        password: &str,
        is_superuser: bool,
    ) -> Result<Self, ApiError> {
        let fits = |c: char| c.is_alphanumeric() || "@.+-_".contains(c);
        if username.is_empty() || username.chars().count() > 150 || !username.chars().all(fits) {
            return Err(ApiError::field(
                "username",
                "Use 1 to 150 letters, digits and @ . + - _ only.",
            ));
        }
        if !email.is_empty() && (!email.contains('@') || email.len() > 254) {
            return Err(ApiError::field("email", "Enter a valid e-mail address."));
        }
        if password.is_empty() {
            return Err(ApiError::field("password", "This field is required."));
        }
        Ok(Self {
            username: username.to_owned(),
            email: email.to_owned(),
            password_hash: hash_password(password.to_owned()).await?,
            is_superuser,
        })
    }

    /// Keeps the person.
    ///
    /// # Errors
    /// 400 when the name is taken.
    pub async fn insert(&self, tx: &mut Tx, now: Timestamp) -> Result<i64, ApiError> {
        let row = store::opt!(
            tx,
            (i64,),
            "INSERT INTO user_account (username, email, password_hash, is_superuser, created) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (username) DO NOTHING RETURNING id",
            &self.username,
            &self.email,
            &self.password_hash,
            self.is_superuser,
            now.0
        )?;
        let Some((id,)) = row else {
            return Err(ApiError::field(
                "username",
                "A user with that username already exists.",
            ));
        };
        tx.changed("user", &self.username, 0, now).await?;
        Ok(id)
    }
}

async fn hash_password(password: String) -> Result<String, ApiError> {
    use argon2::password_hash::PasswordHasher as _;
    tokio::task::spawn_blocking(move || {
        argon2::Argon2::default()
            .hash_password(password.as_bytes())
            .map(|h| h.to_string())
            .map_err(|e| ApiError::bug(&e.to_string()))
    })
    .await
    .map_err(|e| ApiError::bug(&e.to_string()))?
}

/// Whether this is the user's password. Takes its time also when there is no such user.
///
/// # Errors
/// When the database fails.
pub async fn check_password(
    region: &Region,
    username: &str,
    password: &str,
) -> Result<Option<UserRow>, ApiError> {
    use argon2::password_hash::PasswordVerifier as _;
    /// A hash of nothing in particular, so that an unknown name costs the same time.
    const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c3RlZWx5YXJkZGVjb3k$7iVW3zRtYpkYwWmqz0mM6bJ5tqQyq0e8v3dQp1xO1pY";
    let mut tx = region.db.read().await?;
    let hash = store::opt!(
        tx,
        (String,),
        "SELECT password_hash FROM user_account WHERE username = $1",
        username
    )?;
    let user = match &hash {
        Some(_) => Some(by_name(&mut tx, username).await?),
        None => None,
    };
    drop(tx);
    let (hash, password) = (
        hash.map_or_else(|| DECOY.to_owned(), |h| h.0),
        password.to_owned(),
    );
    let fits = tokio::task::spawn_blocking(move || {
        argon2::PasswordHash::new(&hash).is_ok_and(|h| {
            argon2::Argon2::default()
                .verify_password(password.as_bytes(), &h)
                .is_ok()
        })
    })
    .await
    .map_err(|e| ApiError::bug(&e.to_string()))?;
    Ok(user.filter(|_| fits))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let new = NewUser::new(
        args.required("username")?,
        args.required("email")?,
        args.required("password")?,
        args.bool("is_superuser")?.unwrap_or(false),
    )
    .await?;
    let row = call
        .write(move |tx, call| {
            let new = new.clone();
            Box::pin(async move {
                new.insert(tx, call.now()).await?;
                by_name(tx, &new.username).await
            })
        })
        .await?;
    Ok(Answer::json(row.json()))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let user = by_name(tx, call.path("username")).await?;
            if user.id == call.actor().user_id() {
                return Err(ApiError::Bad("An administrator cannot delete the own account.".to_owned()));
            }
            if let Some(to) = call.args().filled("transfer_resources_to") {
                let heir = by_name(tx, to).await.map_err(|_| ApiError::field("transfer_resources_to", "There is no such user."))?;
                store::exec!(tx, "UPDATE node SET owner_id = $2 WHERE owner_id = $1", user.id, heir.id)?;
                store::exec!(tx, "UPDATE ip_address SET user_id = $2 WHERE user_id = $1", user.id, heir.id)?;
                store::exec!(tx, "UPDATE ip_range SET user_id = $2 WHERE user_id = $1", user.id, heir.id)?;
            }
            let (nodes, addresses, ranges) = store::one!(
                tx,
                (i64, i64, i64),
                "SELECT (SELECT COUNT(*) FROM node WHERE owner_id = $1), (SELECT COUNT(*) FROM ip_address WHERE user_id = $1), \
                 (SELECT COUNT(*) FROM ip_range WHERE user_id = $1)",
                user.id
            )?;
            if nodes + addresses + ranges > 0 {
                return Err(ApiError::Bad(format!(
                    "{} still owns {nodes} machines, {addresses} addresses and {ranges} IP ranges; release them or name an heir with \
                     transfer_resources_to.",
                    user.username
                )));
            }
            store::exec!(tx, "DELETE FROM user_account WHERE id = $1", user.id)?;
            tx.changed("user", &user.username, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

/// Makes an administrator, for `steelyard createadmin`.
///
/// # Errors
/// 400 when the name is taken or cannot be.
pub async fn create_admin(
    region: &Region,
    username: &str,
    password: &str,
    email: &str,
    now: Timestamp,
) -> Result<(), ApiError> {
    let new = NewUser::new(username, email, password, true).await?;
    region
        .db
        .write(move |tx| {
            let new = new.clone();
            Box::pin(async move { new.insert(tx, now).await.map(|_| ()) })
        })
        .await
}

/// The user's first key, made when there is none, for `steelyard apikey`.
///
/// # Errors
/// 404 when there is no such user.
pub async fn api_key(
    region: &std::sync::Arc<Region>,
    username: &str,
    now: Timestamp,
) -> Result<ApiKey, ApiError> {
    let (own, username, fresh) = (
        std::sync::Arc::clone(region),
        username.to_owned(),
        ApiKey::random(),
    );
    region
        .db
        .write(move |tx| {
            let (region, username, fresh) = (std::sync::Arc::clone(&own), username.clone(), fresh.clone());
            Box::pin(async move {
                let user = by_name(tx, &username).await?;
                let row = store::opt!(
                    tx,
                    (String, String, Vec<u8>),
                    "SELECT consumer_key, token_key, sealed_secret FROM token WHERE user_id = $1 ORDER BY id LIMIT 1",
                    user.id
                )?;
                if let Some((consumer, token, sealed)) = row {
                    return auth::open_token(&region, &consumer, &token, &sealed);
                }
                auth::insert_token(tx, &region, &fresh, TokenFor::User { id: user.id, name: "MAAS consumer" }, now).await?;
                Ok(fresh)
            })
        })
        .await
}
