//! Both engines have the same tables: the catalogues are compared, modulo the names of the types.

#![cfg(feature = "peers")]

use std::collections::{BTreeMap, BTreeSet};

use store::testing::TestDb;
use store::{Db, Timeline};

#[derive(Debug, Default, PartialEq)]
struct Table {
    /// Name → type, not null, has a default.
    columns: BTreeMap<String, (String, bool, bool)>,
    /// Columns in order.
    primary: Vec<String>,
    /// Unique keys and indexes other than the primary key: columns in order, unique, partial.
    indexes: BTreeSet<(Vec<String>, bool, bool)>,
    /// Columns, table referred to, its columns, what a deletion does.
    foreign: BTreeSet<(String, String, String, String)>,
}

type Tables = BTreeMap<String, Table>;

/// What only the engine itself needs.
fn is_ours(table: &str) -> bool {
    !table.starts_with("sqlite_")
}

async fn sqlite(db: &Db) -> Tables {
    let mut tx = db.read().await.unwrap();
    let mut out = Tables::new();
    for (name,) in store::all!(
        tx,
        (String,),
        "SELECT name FROM sqlite_schema WHERE type = 'table'"
    )
    .unwrap()
    {
        if !is_ours(&name) {
            continue;
        }
        let mut table = Table::default();
        let columns = store::all!(
            tx,
            (String, String, bool, bool, i64),
            "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk FROM pragma_table_info($1) ORDER BY pk",
            name.as_str()
        )
        .unwrap();
        for (column, kind, not_null, default, pk) in columns {
            if pk > 0 {
                table.primary.push(column.clone());
            }
            let kind = if kind == "BIGINT" {
                "INTEGER".to_owned()
            } else {
                kind
            };
            table.columns.insert(column, (kind, not_null, default));
        }
        let indexes = store::all!(
            tx,
            (String, bool, bool),
            "SELECT name, \"unique\", partial FROM pragma_index_list($1) WHERE origin <> 'pk'",
            name.as_str()
        )
        .unwrap();
        for (index, unique, partial) in indexes {
            let columns = store::all!(
                tx,
                (String,),
                "SELECT name FROM pragma_index_info($1) ORDER BY seqno",
                index
            )
            .unwrap();
            table
                .indexes
                .insert((columns.into_iter().map(|c| c.0).collect(), unique, partial));
        }
        let foreign = store::all!(
            tx,
            (String, String, String, String),
            "SELECT \"from\", \"table\", \"to\", on_delete FROM pragma_foreign_key_list($1)",
            name.as_str()
        )
        .unwrap();
        table.foreign.extend(foreign);
        out.insert(name, table);
    }
    out
}

async fn postgres(db: &Db) -> Tables {
    let mut tx = db.read().await.unwrap();
    let mut out = Tables::new();
    let columns = store::all!(
        tx,
        (String, String, String, bool, bool),
        "SELECT table_name::text, column_name::text, data_type::text, is_nullable = 'NO', column_default IS NOT NULL \
         FROM information_schema.columns WHERE table_schema = 'public'"
    )
    .unwrap();
    for (table, column, kind, not_null, default) in columns {
        let kind = match kind.as_str() {
            "bigint" | "boolean" => "INTEGER",
            "text" => "TEXT",
            "bytea" => "BLOB",
            "double precision" => "REAL",
            other => other,
        };
        out.entry(table)
            .or_default()
            .columns
            .insert(column, (kind.to_owned(), not_null, default));
    }
    let indexes = store::all!(
        tx,
        (String, String, bool, bool, bool),
        "SELECT t.relname::text, \
           (SELECT string_agg(a.attname::text, ',' ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n) \
              JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum), \
           i.indisprimary, i.indisunique, i.indpred IS NOT NULL \
         FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace \
         WHERE n.nspname = 'public'"
    )
    .unwrap();
    for (table, columns, primary, unique, partial) in indexes {
        let table = out.get_mut(&table).unwrap();
        let columns = columns.split(',').map(str::to_owned).collect();
        if primary {
            table.primary = columns;
        } else {
            table.indexes.insert((columns, unique, partial));
        }
    }
    let foreign = store::all!(
        tx,
        (String, String, String, String, String),
        "SELECT t.relname::text, a.attname::text, r.relname::text, b.attname::text, \
           CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'a' THEN 'NO ACTION' ELSE c.confdeltype::text END \
         FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class r ON r.oid = c.confrelid \
           JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.conkey[1] \
           JOIN pg_attribute b ON b.attrelid = r.oid AND b.attnum = c.confkey[1] \
         WHERE c.contype = 'f'"
    )
    .unwrap();
    for (table, column, to, to_column, on_delete) in foreign {
        out.get_mut(&table)
            .unwrap()
            .foreign
            .insert((column, to, to_column, on_delete));
    }
    out
}

fn compare(mut lite: Tables, mut pg: Tables) {
    let (a, b): (BTreeSet<_>, BTreeSet<_>) =
        (lite.keys().cloned().collect(), pg.keys().cloned().collect());
    assert_eq!(a, b, "the tables");
    for name in a {
        let (mut l, mut p) = (lite.remove(&name).unwrap(), pg.remove(&name).unwrap());
        l.primary.sort();
        p.primary.sort();
        // The two spell the start value of an identity differently; what counts is that there is one.
        assert_eq!(l.columns, p.columns, "the columns of {name}");
        assert_eq!(l.primary, p.primary, "the primary key of {name}");
        assert_eq!(l.indexes, p.indexes, "the indexes of {name}");
        assert_eq!(l.foreign, p.foreign, "the foreign keys of {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_have_the_same_tables() {
    let (lite, pg): (TestDb, TestDb) = (
        store::testing::sqlite().await,
        store::testing::postgres().await,
    );
    let (lite, pg) = (sqlite(&lite.db).await, postgres(&pg.db).await);
    assert!(
        lite.len() > 30 && lite["node"].columns.len() > 60,
        "the catalogue was read"
    );
    compare(lite, pg);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_have_the_same_timeline() {
    let (lite, pg) = (
        store::testing::sqlite().await,
        store::testing::postgres().await,
    );
    Timeline::open(&lite.options).await.unwrap().close().await;
    Timeline::open(&pg.options).await.unwrap().close().await;
    let file = lite.dir.path().join(store::timeline::FILE_NAME);
    let url = format!("sqlite://{}", file.display());
    let alone = RawLite::open(&url).await;
    let pg: Tables = postgres(&pg.db)
        .await
        .into_iter()
        .filter(|(name, _)| alone.names.contains(name))
        .collect();
    assert_eq!(
        pg.keys().cloned().collect::<BTreeSet<_>>(),
        alone.names,
        "the tables"
    );
    for (name, table) in pg {
        assert_eq!(
            alone.columns[&name],
            table.columns.keys().cloned().collect::<BTreeSet<_>>(),
            "the columns of {name}"
        );
    }
}

/// The timeline's file, read beside the product.
struct RawLite {
    names: BTreeSet<String>,
    columns: BTreeMap<String, BTreeSet<String>>,
}

impl RawLite {
    async fn open(url: &str) -> Self {
        use store::sqlx::{self, Connection as _};
        let mut conn = sqlx::SqliteConnection::connect(url).await.unwrap();
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (table, column) in rows {
            columns.entry(table).or_default().insert(column);
        }
        Self {
            names: columns.keys().cloned().collect(),
            columns,
        }
    }
}
