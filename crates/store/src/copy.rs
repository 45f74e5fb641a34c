//! The whole database as a file that either engine can read: backup, restore, and the move from SQLite to
//! PostgreSQL.
//!
//! The file is gzip over lines of JSON: a head (form, schema), then for each table its name, its columns with
//! their types and its sequence, then its rows as arrays, and at the end how many rows each table has. Bytes
//! are hexadecimal. A file without its end was cut off and is refused. Secrets are in it as they are in the
//! database: sealed; the key is not.
//!
//! A copy is made from one snapshot while others write, and loaded in one transaction: all of it or nothing.
//! The change feed is not copied; a loaded database begins a new history, so that everybody who follows it
//! starts from a snapshot.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use futures::{FutureExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::db::Db;
use crate::dialect::Engine;
use crate::error::StoreError;
use crate::migrate;
use crate::timeline::{self, Timeline};
use crate::tx::Tx;

/// The form of the file.
const FORM: u32 = 1;
/// Bytes of rows inserted with one statement.
const BATCH_BYTES: usize = 1 << 20;
/// Rows inserted with one statement.
const BATCH_ROWS: usize = 500;
/// Tables whose rows belong to one database and one history.
const LEFT_OUT: [&str; 2] = ["change_feed", "feed_state"];

/// Rows of each table.
pub type Counts = BTreeMap<String, u64>;

/// Why a copy was not made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file could not be read or written.
    #[error("the copy {path} cannot be used")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        cause: std::io::Error,
    },
    /// The file is no copy, or not all of one.
    #[error("{path} is no complete copy of a database: {why}")]
    Broken {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The copy has another schema than this program.
    #[error(
        "the copy has schema {found} and this program {known}; load it with the version that made it, and start the newer one then"
    )]
    Schema {
        /// The copy's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database that was to be loaded is in use.
    #[error(
        "the database has {rows} rows in {table}; a copy is loaded into a new one only, unless it is told to replace what is there"
    )]
    NotEmpty {
        /// A table with rows.
        table: &'static str,
        /// How many.
        rows: i64,
    },
    /// Fewer or more rows arrived than there were.
    #[error("{table} has {found} rows, but {expected} were copied")]
    Counts {
        /// The table.
        table: String,
        /// Rows there.
        found: u64,
        /// Rows there should be.
        expected: u64,
    },
    /// The database.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

impl crate::tx::TxError for CopyError {
    fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(e) => Some(e),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    steelyard_copy: u32,
    schema: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Table {
    table: String,
    columns: Vec<(String, Kind)>,
    #[serde(default)]
    sequence: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct End {
    end: Counts,
}

/// The type of a column, the same on both engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Int,
    Text,
    Bool,
    Bytes,
    Real,
}

/// One of the two sets of tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Main,
    Timeline,
}

impl Part {
    fn tables(self) -> Vec<&'static str> {
        let schema = match self {
            Self::Main => &migrate::MAIN,
            Self::Timeline => &timeline::SCHEMA,
        };
        let made = schema.migrations.iter().flat_map(|(_, sql)| {
            sql.lines().filter_map(|line| {
                let rest = line.strip_prefix("CREATE TABLE ")?;
                rest.split([' ', '(']).next()
            })
        });
        made.filter(|t| !LEFT_OUT.contains(t)).collect()
    }
}

fn known_schema() -> i64 {
    migrate::MIGRATIONS.last().map_or(0, |m| m.0)
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> CopyError + '_ {
    move |cause| CopyError::File {
        path: path.display().to_string(),
        cause,
    }
}

fn broken(path: &Path, why: impl Into<String>) -> CopyError {
    CopyError::Broken {
        path: path.display().to_string(),
        why: why.into(),
    }
}

/// Writes a copy of the database into a new file that only its owner may read, and gives the rows of each
/// table. Others may go on writing.
///
/// # Errors
/// When the database cannot be read, or the file is there already or cannot be written.
pub async fn save(db: &Db, timeline: &Timeline, path: &Path) -> Result<Counts, CopyError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(file_error(path))?;
    let result = write(db, timeline, file, path).await;
    if result.is_err() {
        // Half a copy helps nobody; the error is told.
        std::fs::remove_file(path).ok();
    }
    result
}

async fn write(db: &Db, timeline: &Timeline, file: File, path: &Path) -> Result<Counts, CopyError> {
    let mut out = GzEncoder::new(BufWriter::new(file), Compression::fast());
    let mut line = |text: &str| -> Result<(), CopyError> {
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .map_err(file_error(path))
    };
    line(&json(&Head {
        steelyard_copy: FORM,
        schema: known_schema(),
    })?)?;
    let mut counts = Counts::new();
    for (part, db) in [(Part::Main, db), (Part::Timeline, timeline.db())] {
        let mut tx = db.read().await?;
        if tx.engine() == Engine::Postgres {
            tx.raw("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
                .await?;
        }
        for name in part.tables() {
            let table = look(&mut tx, name).await?;
            line(&json(&table)?)?;
            let n = rows(&mut tx, &table, &mut line).await?;
            counts.insert(name.to_owned(), n);
        }
    }
    line(&json(&End {
        end: counts.clone(),
    })?)?;
    let file = out
        .finish()
        .and_then(|w| w.into_inner().map_err(std::io::IntoInnerError::into_error))
        .map_err(file_error(path))?;
    file.sync_all().map_err(file_error(path))?;
    Ok(counts)
}

fn json(value: &impl Serialize) -> Result<String, CopyError> {
    serde_json::to_string(value)
        .map_err(|e| StoreError::Corrupt(format!("a row cannot be written: {e}")).into())
}

/// The columns of a table, as the database has them.
async fn look(tx: &mut Tx, name: &str) -> Result<Table, CopyError> {
    let engine = tx.engine();
    let found: Vec<(String, String)> = match engine {
        Engine::Sqlite => crate::all!(
            tx,
            (String, String),
            "SELECT name, type FROM pragma_table_info($1) ORDER BY cid",
            name
        )?,
        Engine::Postgres => crate::all!(
            tx,
            (String, String),
            "SELECT column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
            name
        )?,
    };
    if found.is_empty() {
        return Err(StoreError::Corrupt(format!("there is no table {name}")).into());
    }
    let mut columns = Vec::new();
    for (column, kind) in found {
        let kind = match kind.to_ascii_lowercase().as_str() {
            "integer" | "bigint" => Kind::Int,
            "text" => Kind::Text,
            "boolean" => Kind::Bool,
            "blob" | "bytea" => Kind::Bytes,
            "real" | "double precision" => Kind::Real,
            other => {
                return Err(StoreError::Corrupt(format!(
                    "{name}.{column} has the type {other}, which copies do not know"
                ))
                .into());
            }
        };
        columns.push((column, kind));
    }
    let sequence = match engine {
        Engine::Sqlite => crate::opt!(
            tx,
            (i64,),
            "SELECT seq FROM sqlite_sequence WHERE name = $1",
            name
        )?,
        Engine::Postgres => crate::opt!(
            tx,
            (Option<i64>,),
            "SELECT last_value FROM pg_sequences WHERE schemaname = current_schema() AND sequencename = $1 || '_id_seq'",
            name
        )?
        .and_then(|(v,)| v)
        .map(|v| (v,)),
    };
    Ok(Table {
        table: name.to_owned(),
        columns,
        sequence: sequence.map(|s| s.0),
    })
}

/// Writes every row of a table as a line.
async fn rows(
    tx: &mut Tx,
    table: &Table,
    line: &mut impl FnMut(&str) -> Result<(), CopyError>,
) -> Result<u64, CopyError> {
    let engine = tx.engine();
    let values: Vec<String> = table
        .columns
        .iter()
        .map(|(c, kind)| match (engine, kind) {
            (Engine::Sqlite, Kind::Bytes) => {
                format!("CASE WHEN \"{c}\" IS NULL THEN NULL ELSE lower(hex(\"{c}\")) END")
            }
            (Engine::Sqlite, Kind::Real) => {
                format!("CASE WHEN \"{c}\" IS NULL THEN NULL ELSE printf('%!.17g', \"{c}\") END")
            }
            (Engine::Postgres, Kind::Bytes) => format!("encode(\"{c}\", 'hex')"),
            (Engine::Postgres, Kind::Real) => format!("\"{c}\"::text"),
            _ => format!("\"{c}\""),
        })
        .collect();
    let values = values.join(", ");
    let sql = match engine {
        Engine::Sqlite => format!("SELECT json_array({values}) FROM \"{}\"", table.table),
        Engine::Postgres => {
            format!(
                "SELECT json_build_array({values})::text FROM \"{}\"",
                table.table
            )
        }
    };
    let mut n = 0;
    let mut failed = None;
    let read = crate::on_conn!(tx, c => async {
        let mut all = sqlx::query_as::<_, (String,)>(AssertSqlSafe(sql.clone())).fetch(c);
        while let Some((row,)) = all.try_next().await? {
            if let Err(e) = line(&row) {
                failed = Some(e);
                break;
            }
            n += 1;
        }
        Ok::<(), sqlx::Error>(())
    }.await);
    read?;
    failed.map_or(Ok(n), Err)
}

/// A copy that is being read.
struct Reader {
    lines: std::io::Lines<BufReader<GzDecoder<BufReader<File>>>>,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, CopyError> {
        let file = File::open(path).map_err(file_error(path))?;
        let mut this = Self {
            lines: BufReader::new(GzDecoder::new(BufReader::new(file))).lines(),
        };
        let head: Head = this
            .next(path)?
            .and_then(|l| serde_json::from_str(&l).ok())
            .ok_or_else(|| broken(path, "it does not begin as one"))?;
        if head.steelyard_copy != FORM {
            return Err(broken(path, "it was made by a newer program"));
        }
        if head.schema != known_schema() {
            return Err(CopyError::Schema {
                found: head.schema,
                known: known_schema(),
            });
        }
        Ok(this)
    }

    fn next(&mut self, path: &Path) -> Result<Option<String>, CopyError> {
        self.lines
            .next()
            .transpose()
            .map_err(|e| broken(path, e.to_string()))
    }
}

/// The sealed secret of that name in a copy, for a look at whether a key opens it, before anything is done.
///
/// # Errors
/// When the file is no complete copy.
pub fn secret(path: &Path, name: &str) -> Result<Option<Vec<u8>>, CopyError> {
    let mut reader = Reader::open(path)?;
    let (mut within, mut found, mut ended) = (false, None, false);
    while let Some(line) = reader.next(path)? {
        if line.starts_with('[') {
            if within
                && let Ok((n, sealed)) = serde_json::from_str::<(String, String)>(&line)
                && n == name
            {
                found = hex::decode(sealed).ok();
            }
        } else {
            ended = line.starts_with("{\"end\"");
            within = serde_json::from_str::<Table>(&line).is_ok_and(|t| t.table == "secret");
        }
    }
    if !ended {
        return Err(broken(path, "its end is missing"));
    }
    Ok(found)
}

/// Whether what is in the database may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Only a database without users and machines is loaded.
    Nothing,
    /// Whatever is there goes.
    Everything,
}

/// Loads a copy: everything or nothing. Gives the rows of each table, which are as many as the copy says.
///
/// # Errors
/// When the file is no complete copy, has another schema, or the database is in use or does not take it.
pub async fn load(
    db: &Db,
    timeline: &Timeline,
    path: &Path,
    replace: Replace,
) -> Result<Counts, CopyError> {
    if replace == Replace::Nothing {
        check_empty(&mut db.read().await?).await?;
    }
    // The timelines first: the main database is what says whether it was done.
    let mut counts = Counts::new();
    for (part, db) in [(Part::Timeline, timeline.db()), (Part::Main, db)] {
        let path = path.to_owned();
        let loaded = db.write(move |tx| {
            let path = path.clone();
            async move {
                if part == Part::Main && replace == Replace::Nothing {
                    check_empty(tx).await?;
                }
                load_part(tx, part, &path).await
            }
            .boxed()
        });
        counts.extend(loaded.await?);
    }
    Ok(counts)
}

async fn check_empty(tx: &mut Tx) -> Result<(), CopyError> {
    let counted: [(&str, i64); 2] = [
        (
            "user_account",
            crate::one!(tx, (i64,), "SELECT COUNT(*) FROM user_account")?.0,
        ),
        (
            "node",
            crate::one!(tx, (i64,), "SELECT COUNT(*) FROM node WHERE node_type < 2")?.0,
        ),
    ];
    for (table, rows) in counted {
        if rows > 0 {
            return Err(CopyError::NotEmpty { table, rows });
        }
    }
    Ok(())
}

async fn load_part(tx: &mut Tx, part: Part, path: &Path) -> Result<Counts, CopyError> {
    let tables = part.tables();
    let wait = Deferred::begin(tx, &tables).await?;
    for name in tables.iter().rev() {
        run(tx, format!("DELETE FROM \"{name}\"")).await?;
    }
    let mut reader = Reader::open(path)?;
    let mut current: Option<(Table, String)> = None;
    let (mut batch, mut bytes) = (Vec::<String>::new(), 0);
    let mut end = None;
    while let Some(line) = reader.next(path)? {
        if line.starts_with('[') {
            let Some((_, insert)) = &current else {
                continue;
            };
            bytes += line.len();
            batch.push(line);
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                flush(tx, insert, &mut batch).await?;
                bytes = 0;
            }
            continue;
        }
        if let Some((table, insert)) = current.take() {
            flush(tx, &insert, &mut batch).await?;
            bytes = 0;
            set_sequence(tx, &table).await?;
        }
        let value: Value = serde_json::from_str(&line).map_err(|e| broken(path, e.to_string()))?;
        if value.get("end").is_some() {
            let e: End = serde_json::from_value(value).map_err(|e| broken(path, e.to_string()))?;
            end = Some(e.end);
            break;
        }
        let table: Table =
            serde_json::from_value(value).map_err(|e| broken(path, e.to_string()))?;
        if let Some(name) = tables.iter().find(|t| **t == table.table) {
            let ours = look(tx, name).await?;
            let insert =
                insert_into(tx.engine(), &ours, &table).map_err(|why| broken(path, why))?;
            current = Some((table, insert));
        }
    }
    let expected = end.ok_or_else(|| broken(path, "its end is missing"))?;
    wait.end(tx).await?;
    let mut counts = Counts::new();
    for name in tables {
        let found = count(tx, name).await?;
        let expected = expected.get(name).copied().unwrap_or(0);
        if found != expected {
            return Err(CopyError::Counts {
                table: name.to_owned(),
                found,
                expected,
            });
        }
        counts.insert(name.to_owned(), found);
    }
    if part == Part::Main {
        tx.new_feed_epoch().await?;
    }
    Ok(counts)
}

/// The statement that takes a JSON array of rows.
fn insert_into(engine: Engine, ours: &Table, copied: &Table) -> Result<String, String> {
    let mut values = Vec::new();
    for (i, (name, _)) in copied.columns.iter().enumerate() {
        let Some((_, kind)) = ours.columns.iter().find(|(n, _)| n == name) else {
            return Err(format!("{}.{name} is unknown here", copied.table));
        };
        values.push(match engine {
            Engine::Sqlite => {
                let value = format!("json_extract(value, '$[{i}]')");
                match kind {
                    Kind::Bytes => format!("unhex({value})"),
                    Kind::Real => format!("CAST({value} AS REAL)"),
                    _ => value,
                }
            }
            Engine::Postgres => match kind {
                Kind::Bytes => format!("decode(r->>{i}, 'hex')"),
                Kind::Int => format!("(r->>{i})::bigint"),
                Kind::Bool => format!("(r->>{i})::boolean"),
                Kind::Real => format!("(r->>{i})::double precision"),
                Kind::Text => format!("r->>{i}"),
            },
        });
    }
    let columns: Vec<String> = copied
        .columns
        .iter()
        .map(|(n, _)| format!("\"{n}\""))
        .collect();
    let from = match engine {
        Engine::Sqlite => "json_each($1)",
        Engine::Postgres => "json_array_elements($1::json) AS t(r)",
    };
    Ok(format!(
        "INSERT INTO \"{}\" ({}) SELECT {} FROM {from}",
        copied.table,
        columns.join(", "),
        values.join(", ")
    ))
}

async fn flush(tx: &mut Tx, insert: &str, batch: &mut Vec<String>) -> Result<(), CopyError> {
    if batch.is_empty() {
        return Ok(());
    }
    let rows = format!("[{}]", batch.join(","));
    batch.clear();
    let done = crate::on_conn!(tx, c => sqlx::query(AssertSqlSafe(insert.to_owned())).bind(rows.clone()).execute(c).await.map(drop));
    done?;
    Ok(())
}

/// Numbers that were given out are not given out again.
async fn set_sequence(tx: &mut Tx, table: &Table) -> Result<(), CopyError> {
    let Some(last) = table.sequence else {
        return Ok(());
    };
    match tx.engine() {
        Engine::Sqlite => {
            crate::exec!(
                tx,
                "DELETE FROM sqlite_sequence WHERE name = $1",
                &table.table
            )?;
            crate::exec!(
                tx,
                "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)",
                &table.table,
                last
            )?;
        }
        Engine::Postgres if last > 0 => {
            crate::opt!(
                tx,
                (Option<i64>,),
                "SELECT setval(pg_get_serial_sequence($1, 'id'), $2)",
                &table.table,
                last
            )?;
        }
        Engine::Postgres => {}
    }
    Ok(())
}

async fn run(tx: &mut Tx, sql: String) -> Result<(), CopyError> {
    let done = crate::on_conn!(tx, c => sqlx::query(AssertSqlSafe(sql.clone())).execute(c).await.map(drop));
    done?;
    Ok(())
}

async fn count(tx: &mut Tx, table: &str) -> Result<u64, CopyError> {
    let sql = format!("SELECT COUNT(*) FROM \"{table}\"");
    let found = crate::on_conn!(tx, c => sqlx::query_as::<_, (i64,)>(AssertSqlSafe(sql.clone())).fetch_one(c).await)?;
    Ok(u64::try_from(found.0).unwrap_or(0))
}

/// Foreign keys are looked at when everything is there: rows refer to each other in circles.
struct Deferred {
    /// PostgreSQL: table and constraint.
    constraints: Vec<(String, String)>,
}

impl Deferred {
    async fn begin(tx: &mut Tx, tables: &[&str]) -> Result<Self, CopyError> {
        let mut constraints = Vec::new();
        match tx.engine() {
            Engine::Sqlite => tx.raw("PRAGMA defer_foreign_keys = ON").await?,
            Engine::Postgres => {
                tx.raw("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = 0")
                    .await?;
                let all = crate::all!(
                    tx,
                    (String, String),
                    "SELECT r.relname::text, c.conname::text FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid \
                     WHERE c.contype = 'f' AND NOT c.condeferrable AND r.relnamespace = current_schema()::text::regnamespace"
                )?;
                constraints = all
                    .into_iter()
                    .filter(|(t, _)| tables.contains(&t.as_str()))
                    .collect();
                for (t, c) in &constraints {
                    run(
                        tx,
                        format!("ALTER TABLE \"{t}\" ALTER CONSTRAINT \"{c}\" DEFERRABLE INITIALLY DEFERRED"),
                    )
                    .await?;
                }
            }
        }
        Ok(Self { constraints })
    }

    async fn end(self, tx: &mut Tx) -> Result<(), CopyError> {
        if tx.engine() == Engine::Postgres {
            tx.raw("SET CONSTRAINTS ALL IMMEDIATE").await?;
            for (t, c) in &self.constraints {
                run(
                    tx,
                    format!("ALTER TABLE \"{t}\" ALTER CONSTRAINT \"{c}\" NOT DEFERRABLE"),
                )
                .await?;
            }
        }
        Ok(())
    }
}
