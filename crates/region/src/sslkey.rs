//! `sslkeys`: certificates that a person's machines get for WinRM.

use serde_json::{Value, json};
use x509_parser::pem::Pem;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param};

const KEYS: Operation = Operation {
    handler: "SSLKeysHandler",
    uri: "account/prefs/sslkeys/",
    ..Operation::READ
};
const KEY: Operation = Operation {
    handler: "SSLKeyHandler",
    uri: "account/prefs/sslkeys/{id}/",
    ..Operation::READ
};

/// `account/prefs/sslkeys/` and `account/prefs/sslkeys/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the caller's SSL keys.",
        run: |c| Box::pin(list(c)),
        ..KEYS
    },
    Operation {
        method: Method::Post,
        title: "Add an SSL key.",
        params: &[Param::field("key", Kind::Text, "A certificate as PEM.")],
        success: 201,
        audit: Some("AUTHORISATION"),
        run: |c| Box::pin(create(c)),
        ..KEYS
    },
    Operation {
        title: "Read an SSL key.",
        run: |c| Box::pin(read(c)),
        ..KEY
    },
    Operation {
        method: Method::Delete,
        title: "Delete an SSL key.",
        success: 204,
        audit: Some("AUTHORISATION"),
        run: |c| Box::pin(delete(c)),
        ..KEY
    },
];

/// Longest PEM.
const PEM_MAX: usize = 64 << 10;

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    user_id: i64,
    key: String,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "key": self.key,
            "id": self.id,
            "resource_uri": format!("/MAAS/api/2.0/account/prefs/sslkeys/{}/", self.id),
        })
    }
}

/// One certificate in PEM (RFC 7468), as it is kept. What is no certificate, a private key above all, is
/// not taken.
fn check(text: &str) -> Result<String, ApiError> {
    let wrong = |m: &str| Err(ApiError::field("key", format!("Invalid SSL key: {m}.")));
    let text = text.trim();
    if text.len() > PEM_MAX {
        return wrong(&format!("it has more than {PEM_MAX} bytes"));
    }
    let mut count = 0;
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let Ok(block) = block else {
            return wrong("it is not PEM");
        };
        if block.label != "CERTIFICATE" {
            return wrong("only certificates are kept here");
        }
        if block.parse_x509().is_err() {
            return wrong("the certificate cannot be read");
        }
        count += 1;
    }
    if count == 1 {
        Ok(text.to_owned())
    } else {
        wrong("enter one certificate as PEM")
    }
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, user_id, key FROM sslkey WHERE user_id = $1 ORDER BY id",
        call.actor().user()?.id
    )?;
    Ok(Answer::json(rows.iter().map(Row::json).collect()))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let user = call.actor().user()?.id;
    let key = check(call.args().required("key")?)?;
    let row = call
        .write(move |tx, call| {
            let key = key.clone();
            Box::pin(async move {
                store::opt!(
                    tx,
                    Row,
                    "INSERT INTO sslkey (user_id, key, created) VALUES ($1, $2, $3) ON CONFLICT (user_id, key) DO NOTHING \
                     RETURNING id, user_id, key",
                    user,
                    &key,
                    call.now().0
                )?
                .ok_or_else(|| {
                    ApiError::field("key", "This key has already been added for this user.")
                })
            })
        })
        .await?;
    Ok(Answer::json(row.json()).status(201))
}

async fn find(tx: &mut store::Tx, call: &Call) -> Result<Row, ApiError> {
    let id = call.path_id("id", "SSLKey")?;
    let row = store::opt!(
        tx,
        Row,
        "SELECT id, user_id, key FROM sslkey WHERE id = $1",
        id
    )?
    .ok_or_else(|| ApiError::missing("SSLKey"))?;
    if row.user_id == call.actor().user()?.id {
        Ok(row)
    } else {
        Err(ApiError::Forbidden(
            "This key belongs to somebody else.".to_owned(),
        ))
    }
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(find(&mut tx, &call).await?.json()))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            store::exec!(tx, "DELETE FROM sslkey WHERE id = $1", row.id)?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
