//! `account`: a person's own API keys, and the exchange of a password for one.

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::auth::{self, ApiKey, TokenFor};
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Face, Kind, Method, Operation, Param, Who};
use crate::user;

/// `account/` and the log-in of libraries.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "AccountHandler",
        uri: "account/",
        method: Method::Post,
        op: Some("create_authorisation_token"),
        title: "Create an API key.",
        params: &[Param::opt("name", Kind::Text, "A name to know the key by.")],
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(create(call)),
        ..Operation::READ
    },
    Operation {
        handler: "AccountHandler",
        uri: "account/",
        method: Method::Post,
        op: Some("delete_authorisation_token"),
        title: "Delete an API key. It stops working at once.",
        params: &[Param::must(
            "token_key",
            Kind::Text,
            "The middle part of the key.",
        )],
        success: 204,
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(delete(call)),
        ..Operation::READ
    },
    Operation {
        handler: "AccountHandler",
        uri: "account/",
        op: Some("list_authorisation_tokens"),
        title: "List the API keys of the caller.",
        run: |call| Box::pin(list(call)),
        ..Operation::READ
    },
    Operation {
        handler: "AccountHandler",
        uri: "account/",
        method: Method::Post,
        op: Some("update_token_name"),
        title: "Rename an API key.",
        params: &[
            Param::must("token", Kind::Text, "The key, or its middle part."),
            Param::must("name", Kind::Text, "The new name."),
        ],
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(rename(call)),
        ..Operation::READ
    },
    Operation {
        face: Face::Web,
        uri: "accounts/authenticate/",
        method: Method::Post,
        who: Who::Anyone,
        title: "Exchange a password for an API key.",
        params: &[
            Param::field("username", Kind::Text, "Log-in name."),
            Param::field("password", Kind::Text, "Password."),
            Param::opt("consumer", Kind::Text, "A name to know the key by."),
        ],
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(authenticate(call)),
        ..Operation::READ
    },
];

fn key_json(key: &ApiKey, name: &str) -> Value {
    json!({
        "token_key": key.token_key,
        "token_secret": key.token_secret,
        "consumer_key": key.consumer_key,
        "name": name,
    })
}

async fn add(call: &Call, user_id: i64, name: String) -> Result<Answer, ApiError> {
    let key = ApiKey::random();
    let (kept, kept_name) = (key.clone(), name.clone());
    call.write(move |tx, call| {
        let (key, name) = (kept.clone(), kept_name.clone());
        Box::pin(async move {
            auth::insert_token(
                tx,
                call.region(),
                &key,
                TokenFor::User {
                    id: user_id,
                    name: &name,
                },
                call.now(),
            )
            .await
        })
    })
    .await?;
    Ok(Answer::json(key_json(&key, &name)))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let name = call
        .args()
        .filled("name")
        .unwrap_or("MAAS consumer")
        .to_owned();
    add(&call, call.actor().user()?.id, name).await
}

async fn authenticate(call: Call) -> Result<Answer, ApiError> {
    let (username, password) = (
        call.args().required("username")?,
        call.args().required("password")?,
    );
    // Noted before the password is looked at, so that many at once gain nothing.
    let attempt = call
        .region()
        .attempts
        .begin(username, call.origin().ip, call.now())?;
    let Some(user) = user::check_password(call.region(), username, password).await? else {
        return Err(ApiError::Forbidden(
            "Wrong user name or password.".to_owned(),
        ));
    };
    call.region().attempts.succeeded(&attempt);
    let name = call
        .args()
        .filled("consumer")
        .unwrap_or("MAAS consumer")
        .to_owned();
    // The same consumer logs in again and again: it gets the key it has.
    let mut tx = call.read().await?;
    let row = store::opt!(
        tx,
        (String, String, Vec<u8>),
        "SELECT consumer_key, token_key, sealed_secret FROM token WHERE user_id = $1 AND name = $2 ORDER BY id LIMIT 1",
        user.id,
        &name
    )?;
    drop(tx);
    match row {
        Some((consumer, token, sealed)) => Ok(Answer::json(key_json(
            &auth::open_token(call.region(), &consumer, &token, &sealed)?,
            &name,
        ))),
        None => add(&call, user.id, name).await,
    }
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    let user = call.actor().user()?.id;
    call.write(move |tx, call| {
        Box::pin(async move {
            let gone = store::exec!(
                tx,
                "DELETE FROM token WHERE user_id = $1 AND token_key = $2",
                user,
                call.args().required("token_key")?
            )?;
            if gone == 0 {
                Err(ApiError::missing("Token"))
            } else {
                Ok(())
            }
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        (String, String, Vec<u8>, String),
        "SELECT consumer_key, token_key, sealed_secret, name FROM token WHERE user_id = $1 ORDER BY id",
        call.actor().user()?.id
    )?;
    let mut out = Vec::new();
    for (consumer, token, sealed, name) in rows {
        let key = auth::open_token(call.region(), &consumer, &token, &sealed)?;
        out.push(json!({ "name": name, "token": key.joined() }));
    }
    Ok(Answer::json(out.into()))
}

async fn rename(call: Call) -> Result<Answer, ApiError> {
    let user = call.actor().user()?.id;
    call.write(move |tx, call| {
        Box::pin(async move {
            let token = call.args().required("token")?;
            let token_key = token.split(':').nth(1).unwrap_or(token);
            let found = store::exec!(
                tx,
                "UPDATE token SET name = $3 WHERE user_id = $1 AND token_key = $2",
                user,
                token_key,
                call.args().required("name")?
            )?;
            if found == 0 {
                Err(ApiError::missing("Token"))
            } else {
                Ok(())
            }
        })
    })
    .await?;
    Ok(Answer::text("Accepted").status(202))
}
