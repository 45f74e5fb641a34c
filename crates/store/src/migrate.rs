//! Bringing the schema up to date: forward only, one text per migration for both engines.

use futures::FutureExt as _;

use crate::db::{Db, EngineOf};
use crate::dialect::{self, Engine};
use crate::error::StoreError;
use crate::tx::Tx;

/// Every migration of the main database, oldest first: its number and its text.
pub const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../migrations/0001_first.sql")),
    (
        2,
        concat!(
            include_str!("../migrations/0002/network.sql"),
            include_str!("../migrations/0002/names.sql"),
            include_str!("../migrations/0002/storage.sql"),
            include_str!("../migrations/0002/nodes.sql"),
            include_str!("../migrations/0002/hosts.sql"),
        ),
    ),
];

/// A set of tables that is migrated as one.
pub(crate) struct Schema {
    /// Makes the table of versions.
    pub(crate) make: &'static str,
    /// Reads the newest version applied.
    pub(crate) newest: &'static str,
    /// Notes a version.
    pub(crate) note: &'static str,
    /// The migrations, oldest first.
    pub(crate) migrations: &'static [(i64, &'static str)],
}

/// The main database.
pub(crate) static MAIN: Schema = Schema {
    make: "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)",
    newest: "SELECT COALESCE(MAX(version), 0) FROM schema_version",
    note: "INSERT INTO schema_version (version) VALUES ($1)",
    migrations: MIGRATIONS,
};

/// Applies what is missing. Several regions may start at once: on PostgreSQL a lock lets one of them do
/// it, on SQLite the one writer does.
pub(crate) async fn run(db: &Db, schema: &'static Schema) -> Result<(), StoreError> {
    let lock = match &db.inner.engine {
        EngineOf::Pg(p) => Some(p.migration_lock().await?),
        EngineOf::Lite(_) => None,
    };
    let result = db.write(move |tx: &mut Tx| apply(tx, schema).boxed()).await;
    if let Some(lock) = lock {
        lock.release().await;
    }
    result
}

async fn apply(tx: &mut Tx, schema: &'static Schema) -> Result<(), StoreError> {
    if tx.engine() == Engine::Postgres {
        tx.raw("SET LOCAL statement_timeout = 0").await?;
    }
    tx.raw(schema.make).await?;
    let (found,) = crate::one!(tx, (i64,), schema.newest)?;
    let known = schema.migrations.last().map_or(0, |m| m.0);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for &(version, text) in schema.migrations {
        if version <= found {
            continue;
        }
        let sql = dialect::statement(tx.engine(), text);
        tx.raw(sql).await.map_err(|e| match e {
            StoreError::Sql(cause) if !StoreError::retryable(&cause) => {
                StoreError::Migrate { version, cause }
            }
            other => other,
        })?;
        crate::exec!(tx, schema.note, version)?;
    }
    Ok(())
}
