//! `notifications`: what everybody, the administrators or one person shall know.

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::user::UserRow;

const NOTIFICATIONS: Operation = Operation {
    handler: "NotificationsHandler",
    uri: "notifications/",
    ..Operation::READ
};
const NOTIFICATION: Operation = Operation {
    handler: "NotificationHandler",
    uri: "notifications/{id}/",
    ..Operation::READ
};
const CONTEXT: Param = Param::opt(
    "context",
    Kind::Text,
    "A JSON object with what stands for the {words} of the message.",
);
const CATEGORY: Param = Param::opt(
    "category",
    Kind::Choice(&["error", "warning", "success", "info"]),
    "How bad it is; info when left out.",
);
const IDENT: Param = Param::opt("ident", Kind::Text, "A name that only one of them has.");
const USER: Param = Param::opt("user", Kind::Text, "For this user, by id or name.");
const USERS: Param = Param::opt("users", Kind::Bool, "For all users.");
const ADMINS: Param = Param::opt("admins", Kind::Bool, "For all administrators.");
const DISMISSABLE: Param = Param::opt(
    "dismissable",
    Kind::Bool,
    "Whether who has read it may put it away; true when left out.",
);

/// `notifications/` and `notifications/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List what the caller shall know and has not put away.",
        run: |c| Box::pin(list(c)),
        ..NOTIFICATIONS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a notification.",
        params: &[
            Param::field("message", Kind::Text, "What is to be known."),
            CONTEXT,
            CATEGORY,
            IDENT,
            USER,
            USERS,
            ADMINS,
            DISMISSABLE,
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(create(c)),
        ..NOTIFICATIONS
    },
    Operation {
        title: "Read a notification.",
        run: |c| Box::pin(read(c)),
        ..NOTIFICATION
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a notification.",
        params: &[
            Param::opt("message", Kind::Text, "What is to be known."),
            CONTEXT,
            CATEGORY,
            IDENT,
            USER,
            USERS,
            ADMINS,
            DISMISSABLE,
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(update(c)),
        ..NOTIFICATION
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a notification.",
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(delete(c)),
        ..NOTIFICATION
    },
    Operation {
        method: Method::Post,
        op: Some("dismiss"),
        title: "Put a notification away, for the caller only.",
        audit: Some("SETTINGS"),
        run: |c| Box::pin(dismiss(c)),
        ..NOTIFICATION
    },
];

/// Longest name of a notification.
const IDENT_MAX: usize = 40;
/// Longest message, and longest context as JSON, in bytes.
const MESSAGE_MAX: usize = 16 << 10;

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    ident: Option<String>,
    user_id: Option<i64>,
    users: bool,
    admins: bool,
    message: String,
    context: String,
    category: String,
    dismissable: bool,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT m.id, m.ident, m.user_id, m.users, m.admins, m.message, m.context, m.category, m.dismissable FROM notification m ",
            $rest
        )
    };
}

impl Row {
    fn json(&self, people: &[UserRow]) -> Value {
        let context: Value = serde_json::from_str(&self.context).unwrap_or_else(|_| json!({}));
        json!({
            "ident": self.ident,
            "user": self.user_id.and_then(|u| people.iter().find(|x| x.id == u)).map(UserRow::json),
            "users": self.users,
            "admins": self.admins,
            "message": self.message,
            "context": context,
            "category": self.category,
            "dismissable": self.dismissable,
            "id": self.id,
            "resource_uri": format!("/MAAS/api/2.0/notifications/{}/", self.id),
        })
    }

    /// Whether it is for the caller.
    fn is_for(&self, call: &Call) -> bool {
        self.users
            || self.user_id == Some(call.actor().user_id())
            || self.admins && call.actor().is_admin()
    }

    /// Takes what was given over what is there.
    async fn take(&mut self, tx: &mut Tx, call: &Call) -> Result<(), ApiError> {
        let args = call.args();
        let wrong = |field: &str, m: String| Err(ApiError::field(field, m));
        if let Some(m) = args.filled("message") {
            m.clone_into(&mut self.message);
        }
        if let Some(text) = args.text("context") {
            let text = if text.is_empty() { "{}" } else { text };
            match serde_json::from_str::<Value>(text) {
                Ok(v @ Value::Object(_)) => self.context = v.to_string(),
                Ok(_) => return wrong("context", "Context is not a mapping.".to_owned()),
                Err(_) => return wrong("context", "Enter a JSON object.".to_owned()),
            }
        }
        if self.message.len() > MESSAGE_MAX {
            return wrong(
                "message",
                format!("A message has at most {MESSAGE_MAX} bytes."),
            );
        }
        if self.context.len() > MESSAGE_MAX {
            return wrong(
                "context",
                format!("A context has at most {MESSAGE_MAX} bytes."),
            );
        }
        if let Some(c) = args.filled("category") {
            c.clone_into(&mut self.category);
        }
        if let Some(ident) = args.text("ident") {
            if ident.chars().count() > IDENT_MAX {
                return wrong("ident", format!("At most {IDENT_MAX} characters."));
            }
            self.ident = (!ident.is_empty()).then(|| ident.to_owned());
        }
        if let Some(text) = args.text("user") {
            self.user_id = if text.is_empty() {
                None
            } else {
                let row = store::opt!(
                    tx,
                    (i64,),
                    "SELECT id FROM user_account WHERE id = $1 OR username = $2",
                    text.parse::<i64>().ok(),
                    text
                )?;
                let Some((id,)) = row else {
                    return wrong("user", "There is no user with that id or name.".to_owned());
                };
                Some(id)
            };
        }
        if let Some(b) = args.bool("users")? {
            self.users = b;
        }
        if let Some(b) = args.bool("admins")? {
            self.admins = b;
        }
        if let Some(b) = args.bool("dismissable")? {
            self.dismissable = b;
        }
        let context: Value = serde_json::from_str(&self.context).unwrap_or_else(|_| json!({}));
        if let Err(e) = metal::template::check(&self.message, |name| context.get(name).is_some()) {
            return wrong("message", format!("Notification cannot be rendered: {e}."));
        }
        if let Some(ident) = &self.ident {
            let taken = store::opt!(
                tx,
                (i64,),
                "SELECT id FROM notification WHERE ident = $1 AND id <> $2",
                ident,
                self.id
            )?;
            if taken.is_some() {
                return wrong(
                    "ident",
                    "Notification with this Ident already exists.".to_owned(),
                );
            }
        }
        Ok(())
    }
}

async fn people(tx: &mut Tx) -> Result<Vec<UserRow>, ApiError> {
    Ok(store::all!(
        tx,
        UserRow,
        "SELECT id, username, email, is_superuser, is_local FROM user_account WHERE id IN (SELECT user_id FROM notification)"
    )?)
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        select!(
            "WHERE (m.users OR m.user_id = $1 OR (m.admins AND $2)) \
             AND NOT EXISTS (SELECT 1 FROM notification_dismissal x WHERE x.notification_id = m.id AND x.user_id = $1) ORDER BY m.id"
        ),
        call.actor().user_id(),
        call.actor().is_admin()
    )?;
    let people = people(&mut tx).await?;
    Ok(Answer::json(rows.iter().map(|r| r.json(&people)).collect()))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    let id = call.path_id("id", "Notification")?;
    store::opt!(tx, Row, select!("WHERE m.id = $1"), id)?
        .ok_or_else(|| ApiError::missing("Notification"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let row = find(&mut tx, &call).await?;
    if !row.is_for(&call) && !call.actor().is_admin() {
        return Err(ApiError::forbidden());
    }
    Ok(Answer::json(row.json(&people(&mut tx).await?)))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                call.args().required("message")?;
                let mut row = Row {
                    id: -1,
                    ident: None,
                    user_id: None,
                    users: false,
                    admins: false,
                    message: String::new(),
                    context: "{}".to_owned(),
                    category: "info".to_owned(),
                    dismissable: true,
                };
                row.take(tx, &call).await?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO notification (ident, user_id, users, admins, message, context, category, dismissable, created, updated) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) RETURNING id",
                    row.ident.as_deref(),
                    row.user_id,
                    row.users,
                    row.admins,
                    &row.message,
                    &row.context,
                    &row.category,
                    row.dismissable,
                    call.now().0
                )?;
                row.id = id;
                tx.changed("notification", id, 0, call.now()).await?;
                Ok(row.json(&people(tx).await?))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                row.take(tx, &call).await?;
                store::exec!(
                    tx,
                    "UPDATE notification SET ident = $2, user_id = $3, users = $4, admins = $5, message = $6, context = $7, category = $8, \
                     dismissable = $9, updated = $10 WHERE id = $1",
                    row.id,
                    row.ident.as_deref(),
                    row.user_id,
                    row.users,
                    row.admins,
                    &row.message,
                    &row.context,
                    &row.category,
                    row.dismissable,
                    call.now().0
                )?;
                tx.changed("notification", row.id, 0, call.now()).await?;
                Ok(row.json(&people(tx).await?))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            store::exec!(tx, "DELETE FROM notification WHERE id = $1", row.id)?;
            tx.changed("notification", row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn dismiss(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            if !row.is_for(&call) {
                return Err(ApiError::forbidden());
            }
            if !row.dismissable {
                return Err(ApiError::Bad("This notification stays until what it tells of is over; it cannot be dismissed.".to_owned()));
            }
            store::exec!(
                tx,
                "INSERT INTO notification_dismissal (notification_id, user_id, created) VALUES ($1, $2, $3) \
                 ON CONFLICT (notification_id, user_id) DO NOTHING",
                row.id,
                call.actor().user_id(),
                call.now().0
            )?;
            tx.changed("notification", row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::text("OK"))
}
