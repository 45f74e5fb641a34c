//! Bringing the schema up to date: forward only, one text per migration for both engines.

use futures::FutureExt as _;

use crate::db::Db;
use crate::dialect::{self, Engine};
use crate::error::StoreError;
use crate::tx::Tx;

/// Every migration, oldest first: its number and its text.
pub const MIGRATIONS: [(i64, &str); 1] = [(1, include_str!("../migrations/0001_first.sql"))];

/// Applies what is missing. Several regions may start at once: on PostgreSQL an advisory lock lets one
/// of them do it.
pub(crate) async fn run(db: &Db) -> Result<(), StoreError> {
    db.write(|tx: &mut Tx| apply(tx).boxed()).await
}

async fn apply(tx: &mut Tx) -> Result<(), StoreError> {
    if tx.engine() == Engine::Postgres {
        tx.raw("SELECT pg_advisory_xact_lock(7331001)").await?;
    }
    tx.raw("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)").await?;
    let (found,) = crate::one!(tx, (i64,), "SELECT COALESCE(MAX(version), 0) FROM schema_version")?;
    let known = MIGRATIONS.last().map_or(0, |m| m.0);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (version, text) in MIGRATIONS {
        if version <= found {
            continue;
        }
        let sql = dialect::statement(tx.engine(), text);
        tx.raw(sql).await.map_err(|e| match e {
            StoreError::Sql(cause) => StoreError::Migrate { version, cause },
            other => other,
        })?;
        crate::exec!(tx, "INSERT INTO schema_version (version) VALUES ($1)", version)?;
    }
    Ok(())
}
