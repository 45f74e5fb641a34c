//! `sshkeys`: the keys that a person's machines accept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param};

/// `account/prefs/sshkeys/` and `account/prefs/sshkeys/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "SSHKeysHandler",
        uri: "account/prefs/sshkeys/",
        title: "List the caller's SSH keys.",
        run: |call| Box::pin(list(call)),
        ..Operation::READ
    },
    Operation {
        handler: "SSHKeysHandler",
        uri: "account/prefs/sshkeys/",
        method: Method::Post,
        title: "Add an SSH key.",
        params: &[
            Param::field("key", Kind::Text, "A public key as in authorized_keys."),
            Param::opt(
                "user",
                Kind::Text,
                "Whose it is to be, by name; only administrators give keys to others.",
            ),
        ],
        success: 201,
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(create(call)),
        ..Operation::READ
    },
    Operation {
        handler: "SSHKeysHandler",
        uri: "account/prefs/sshkeys/",
        method: Method::Post,
        op: Some("import"),
        title: "Take over the keys that somebody shows on Launchpad or GitHub.",
        params: &[Param::must(
            "keysource",
            Kind::Text,
            "lp:user or gh:user; a user alone is one of Launchpad.",
        )],
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(import(call)),
        ..Operation::READ
    },
    Operation {
        handler: "SSHKeyHandler",
        uri: "account/prefs/sshkeys/{id}/",
        title: "Read an SSH key.",
        run: |call| Box::pin(read(call)),
        ..Operation::READ
    },
    Operation {
        handler: "SSHKeyHandler",
        uri: "account/prefs/sshkeys/{id}/",
        method: Method::Delete,
        title: "Delete an SSH key.",
        success: 204,
        audit: Some("AUTHORISATION"),
        run: |call| Box::pin(delete(call)),
        ..Operation::READ
    },
];

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: i64,
    user_id: i64,
    key: String,
    keysource: Option<String>,
}

impl KeyRow {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "key": self.key,
            "keysource": self.keysource,
            "resource_uri": format!("/MAAS/api/2.0/account/prefs/sshkeys/{}/", self.id),
        })
    }
}

/// Checks one line of `authorized_keys` (sshd(8)): the type's name stands again at the start of the key.
///
/// # Errors
/// A sentence for the user.
pub fn check(line: &str) -> Result<String, String> {
    let line = line.trim();
    if line.is_empty() || line.contains(['\n', '\r']) || line.len() > 16 << 10 {
        return Err("Enter one public key, on one line.".to_owned());
    }
    let invalid = || "This is not an OpenSSH public key.".to_owned();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let at = words
        .iter()
        .position(|w| w.starts_with("ssh-") || w.starts_with("ecdsa-") || w.starts_with("sk-"))
        .filter(|at| *at <= 1)
        .ok_or_else(invalid)?;
    let (kind, data) = (words[at], words.get(at + 1).ok_or_else(invalid)?);
    let bytes = STANDARD.decode(data).map_err(|_| invalid())?;
    let length = bytes
        .get(..4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .ok_or_else(invalid)?;
    let inner = bytes
        .get(4..4usize.saturating_add(length))
        .ok_or_else(invalid)?;
    if inner != kind.as_bytes() {
        return Err(invalid());
    }
    Ok(line.to_owned())
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        KeyRow,
        "SELECT id, user_id, key, keysource FROM sshkey WHERE user_id = $1 ORDER BY id",
        call.actor().user()?.id
    )?;
    Ok(Answer::json(rows.iter().map(KeyRow::json).collect()))
}

/// The person and the protocol that a source of keys names.
fn check_source(text: &str) -> Result<(&str, &str), ApiError> {
    let (protocol, user) = text.trim().split_once(':').unwrap_or(("lp", text.trim()));
    if !matches!(protocol, "lp" | "gh") {
        return Err(ApiError::field(
            "keysource",
            "Name a user of Launchpad (lp:user) or of GitHub (gh:user).",
        ));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if user.is_empty() || user.len() > SOURCE_MAX || !user.chars().all(fits) {
        return Err(ApiError::field(
            "keysource",
            format!("A user is 1 to {SOURCE_MAX} letters, digits and - _ . +."),
        ));
    }
    Ok((protocol, user))
}

/// Longest name of a user of another service.
const SOURCE_MAX: usize = 100;

async fn import(call: Call) -> Result<Answer, ApiError> {
    check_source(call.args().required("keysource")?)?;
    Err(ApiError::NoEngine(
        "fetching the keys that Launchpad and GitHub show",
    ))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let actor = call.actor().user()?;
    let key = check(call.args().required("key")?)
        .map_err(|m| ApiError::field("key", format!("Invalid SSH public key: {m}")))?;
    let user = match call.args().filled("user") {
        Some(name) if name != actor.username => {
            if !actor.is_superuser {
                return Err(ApiError::Forbidden(
                    "Only administrators give keys to others.".to_owned(),
                ));
            }
            let mut tx = call.read().await?;
            crate::user::by_name(&mut tx, name)
                .await
                .map_err(|_| ApiError::field("user", "There is no user with that name."))?
                .id
        }
        _ => actor.id,
    };
    let row = call
        .write(move |tx, call| {
            let key = key.clone();
            Box::pin(async move {
                store::opt!(
                    tx,
                    KeyRow,
                    "INSERT INTO sshkey (user_id, key, created) VALUES ($1, $2, $3) ON CONFLICT (user_id, key) DO NOTHING \
                     RETURNING id, user_id, key, keysource",
                    user,
                    &key,
                    call.now().0
                )?
                .ok_or_else(|| ApiError::field("key", "This key has already been added for this user."))
            })
        })
        .await?;
    Ok(Answer::json(row.json()).status(201))
}

async fn find(tx: &mut store::Tx, call: &Call) -> Result<KeyRow, ApiError> {
    let id = call.path_id("id", "SSHKey")?;
    let row = store::opt!(
        tx,
        KeyRow,
        "SELECT id, user_id, key, keysource FROM sshkey WHERE id = $1",
        id
    )?
    .ok_or_else(|| ApiError::missing("SSHKey"))?;
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
            store::exec!(tx, "DELETE FROM sshkey WHERE id = $1", row.id)?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_keys_names_a_service_and_a_person() {
        assert_eq!(check_source("gh:me").unwrap(), ("gh", "me"));
        assert_eq!(check_source("me").unwrap(), ("lp", "me"));
        for bad in ["", "lp:", "gl:me", "gh:a/b", "gh:a b"] {
            assert!(check_source(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_public_keys_are_accepted() {
        let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmKp1Gx0f5yqS4mPqcCRQ4pZcGZk0Xk5p4XfC3o9WmT me@here";
        assert!(check(good).is_ok());
        for bad in [
            "",
            "ssh-rsa",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIEmK",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-ed25519 !!!",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
