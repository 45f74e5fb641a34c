//! `license-keys`: keys of operating systems that need one.

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};

const KEYS: Operation = Operation {
    handler: "LicenseKeysHandler",
    uri: "license-keys/",
    who: Who::Admin,
    ..Operation::READ
};
const KEY: Operation = Operation {
    handler: "LicenseKeyHandler",
    uri: "license-key/{osystem}/{distro_series}",
    who: Who::Admin,
    ..Operation::READ
};

/// `license-keys/` and `license-key/{osystem}/{distro_series}`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List licence keys.",
        run: |c| Box::pin(list(c)),
        ..KEYS
    },
    Operation {
        method: Method::Post,
        title: "Add the licence key of a release.",
        params: &[
            Param::field("osystem", Kind::Text, "The operating system: windows."),
            Param::field("distro_series", Kind::Text, "Its release."),
            Param::field("license_key", Kind::Text, "The key."),
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(create(c)),
        ..KEYS
    },
    Operation {
        title: "Read the licence key of a release.",
        run: |c| Box::pin(read(c)),
        ..KEY
    },
    Operation {
        method: Method::Put,
        title: "Change the licence key of a release.",
        params: &[Param::opt("license_key", Kind::Text, "The key.")],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(update(c)),
        ..KEY
    },
    Operation {
        method: Method::Delete,
        title: "Delete the licence key of a release.",
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(delete(c)),
        ..KEY
    },
];

/// Operating systems whose installation asks for a key.
const LICENSED: &[&str] = &["windows"];
/// Longest name of a release.
const SERIES_MAX: usize = 255;

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    osystem: String,
    distro_series: String,
    sealed: Vec<u8>,
}

fn context(osystem: &str, series: &str) -> String {
    format!("license-key:{osystem}/{series}")
}

fn json(osystem: &str, series: &str, key: &str) -> Value {
    json!({
        "osystem": osystem,
        "distro_series": series,
        "license_key": key,
        "resource_uri": format!("/MAAS/api/2.0/license-key/{osystem}/{series}"),
    })
}

impl Row {
    fn json(&self, call: &Call) -> Result<Value, ApiError> {
        let context = context(&self.osystem, &self.distro_series);
        let key = call.region().sealer.unseal(&context, &self.sealed)?;
        Ok(json(
            &self.osystem,
            &self.distro_series,
            &String::from_utf8_lossy(&key),
        ))
    }
}

/// Five groups of five letters and digits with hyphens between.
fn check_key(key: &str) -> Result<String, ApiError> {
    let key = key.trim();
    let groups: Vec<&str> = key.split('-').collect();
    let good = |g: &&str| g.len() == 5 && g.bytes().all(|b| b.is_ascii_alphanumeric());
    if groups.len() == 5 && groups.iter().all(good) {
        Ok(key.to_owned())
    } else {
        Err(ApiError::field(
            "license_key",
            "Invalid license key: it has the form XXXXX-XXXXX-XXXXX-XXXXX-XXXXX.",
        ))
    }
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, osystem, distro_series, sealed FROM license_key ORDER BY id"
    )?;
    let all: Result<Vec<Value>, ApiError> = rows.iter().map(|r| r.json(&call)).collect();
    Ok(Answer::json(all?.into()))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    store::opt!(
        tx,
        Row,
        "SELECT id, osystem, distro_series, sealed FROM license_key WHERE osystem = $1 AND distro_series = $2",
        call.path("osystem"),
        call.path("distro_series")
    )?
    .ok_or_else(|| ApiError::missing("LicenseKey"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(find(&mut tx, &call).await?.json(&call)?))
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let osystem = args.required("osystem")?;
                if !LICENSED.contains(&osystem) {
                    return Err(ApiError::field(
                        "osystem",
                        format!(
                            "'{}' takes no licence key; these do: {}.",
                            osystem.chars().take(64).collect::<String>(),
                            LICENSED.join(", ")
                        ),
                    ));
                }
                let series = args.required("distro_series")?;
                let series = series
                    .strip_prefix(osystem)
                    .and_then(|s| s.strip_prefix('/'))
                    .unwrap_or(series);
                let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if series.is_empty() || series.len() > SERIES_MAX || !series.chars().all(fits) {
                    return Err(ApiError::field(
                        "distro_series",
                        "Enter the name of a release: letters, digits, dots, hyphens and underscores.",
                    ));
                }
                let key = check_key(args.required("license_key")?)?;
                let sealed = call
                    .region()
                    .sealer
                    .seal(&context(osystem, series), key.as_bytes());
                let row = store::opt!(
                    tx,
                    (i64,),
                    "INSERT INTO license_key (osystem, distro_series, sealed, created, updated) VALUES ($1, $2, $3, $4, $4) \
                     ON CONFLICT (osystem, distro_series) DO NOTHING RETURNING id",
                    osystem,
                    series,
                    sealed,
                    call.now().0
                )?;
                let Some((id,)) = row else {
                    return Err(ApiError::field(
                        "distro_series",
                        "License key with this Osystem and Distro series already exists.",
                    ));
                };
                tx.changed("license_key", id, 0, call.now()).await?;
                Ok(json(osystem, series, &key))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let row = find(tx, &call).await?;
                let Some(key) = call.args().filled("license_key") else {
                    return row.json(&call);
                };
                let key = check_key(key)?;
                let sealed = call
                    .region()
                    .sealer
                    .seal(&context(&row.osystem, &row.distro_series), key.as_bytes());
                store::exec!(
                    tx,
                    "UPDATE license_key SET sealed = $2, updated = $3 WHERE id = $1",
                    row.id,
                    sealed,
                    call.now().0
                )?;
                tx.changed("license_key", row.id, 0, call.now()).await?;
                Ok(json(&row.osystem, &row.distro_series, &key))
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            store::exec!(tx, "DELETE FROM license_key WHERE id = $1", row.id)?;
            tx.changed("license_key", row.id, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
