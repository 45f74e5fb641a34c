//! Copies of the whole database: from each engine, into each engine.

use std::io::Write as _;
use std::path::Path;

use futures::FutureExt as _;
use store::copy::{self, CopyError, Replace};
use store::testing::TestDb;
use store::{Db, Options, StoreError, Target, Timeline};

/// A user with odd characters, a secret in bytes, nulls, a circle of references, and a number that was given
/// out and is gone.
async fn fill(db: &Db) {
    db.write(|tx| {
        async move {
            store::exec!(
                tx,
                "INSERT INTO user_account (username, email, password_hash, is_superuser, created) VALUES ($1, 'e', '', TRUE, 1)",
                "Größe \"x\"\n\t\u{1f600}"
            )?;
            store::exec!(
                tx,
                "INSERT INTO secret (name, sealed) VALUES ('k', $1)",
                vec![0_u8, 255, 10]
            )?;
            store::exec!(tx, "INSERT INTO zone (id, name, created, updated) VALUES (9223372036854770000, 'far', 1, 1)")?;
            store::exec!(tx, "INSERT INTO resource_pool (id, name, created, updated) VALUES (77, 'gone', 1, 1)")?;
            store::exec!(tx, "DELETE FROM resource_pool WHERE id = 77")?;
            Ok::<_, StoreError>(())
        }
        .boxed()
    })
    .await
    .unwrap();
}

async fn other(dir: &Path) -> (Db, Timeline) {
    let options = Options::new(Target::Sqlite(dir.join("other.db")));
    (
        Db::open(&options).await.unwrap(),
        Timeline::open(&options).await.unwrap(),
    )
}

async fn look(db: &Db) -> (String, bool, Vec<u8>, i64) {
    let mut tx = db.read().await.unwrap();
    let (name, admin) = store::one!(
        tx,
        (String, bool),
        "SELECT username, is_superuser FROM user_account ORDER BY id DESC LIMIT 1"
    )
    .unwrap();
    let (sealed,) =
        store::one!(tx, (Vec<u8>,), "SELECT sealed FROM secret WHERE name = 'k'").unwrap();
    let (far,) = store::one!(tx, (i64,), "SELECT id FROM zone WHERE name = 'far'").unwrap();
    (name, admin, sealed, far)
}

store::both! {
    /// What one engine has, the other has after a copy; and back again it is the same file, row for row.
    async fn a_copy_carries_everything_between_the_engines(t: TestDb) {
        fill(&t.db).await;
        let timeline = Timeline::open(&t.options).await.unwrap();
        let first = t.dir.path().join("first.copy");
        let saved = copy::save(&t.db, &timeline, &first).await.unwrap();
        assert!(saved["user_account"] >= 1 && saved.contains_key("boot"), "{saved:?}");
        let before = look(&t.db).await;

        let (db, beside) = other(t.dir.path()).await;
        let loaded = copy::load(&db, &beside, &first, Replace::Nothing).await.unwrap();
        assert_eq!(loaded, saved);
        assert_eq!(look(&db).await, before);

        // And back, over what is there.
        let second = t.dir.path().join("second.copy");
        assert_eq!(copy::save(&db, &beside, &second).await.unwrap(), saved);
        let again = copy::load(&t.db, &timeline, &second, Replace::Everything).await.unwrap();
        assert_eq!(again, saved);
        assert_eq!(look(&t.db).await, before);

        // A number that was given out is not given out again.
        let next = t.db.write(|tx| async move {
            let (id,) = store::one!(tx, (i64,), "INSERT INTO user_account (username, email, password_hash, is_superuser, created) VALUES ('n', 'e', '', FALSE, 1) RETURNING id")?;
            Ok::<_, StoreError>(id)
        }.boxed()).await.unwrap();
        let mut tx = db.read().await.unwrap();
        let (last,) = store::one!(tx, (i64,), "SELECT MAX(id) FROM user_account").unwrap();
        assert_eq!(next, last + 1);
        drop(tx);
        beside.close().await;
        db.close().await;
    }
}

store::both! {
    /// A database with users is not overwritten unless that was asked for.
    async fn a_database_in_use_is_not_replaced_by_accident(t: TestDb) {
        fill(&t.db).await;
        let timeline = Timeline::open(&t.options).await.unwrap();
        let path = t.dir.path().join("a.copy");
        copy::save(&t.db, &timeline, &path).await.unwrap();
        let refused = copy::load(&t.db, &timeline, &path, Replace::Nothing).await;
        assert!(matches!(refused, Err(CopyError::NotEmpty { table: "user_account", .. })), "{refused:?}");
        let twice = copy::save(&t.db, &timeline, &path).await;
        assert!(matches!(twice, Err(CopyError::File { .. })), "an older copy is not overwritten: {twice:?}");
        assert_eq!(copy::secret(&path, "k").unwrap().unwrap(), [0, 255, 10]);
        assert_eq!(copy::secret(&path, "none").unwrap(), None);
    }
}

store::both! {
    /// Of a copy that was cut off or altered nothing is loaded, and what was there stays.
    async fn half_a_copy_changes_nothing(t: TestDb) {
        fill(&t.db).await;
        let timeline = Timeline::open(&t.options).await.unwrap();
        let path = t.dir.path().join("a.copy");
        copy::save(&t.db, &timeline, &path).await.unwrap();
        let before = look(&t.db).await;
        let mut text = String::new();
        let packed = std::fs::read(&path).unwrap();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
        let pack = |text: &str| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(text.as_bytes()).unwrap();
            out.finish().unwrap()
        };
        let lines: Vec<&str> = text.lines().collect();
        let no_end = lines[..lines.len() - 1].join("\n");
        let row = lines.iter().position(|l| l.contains("Größe")).unwrap();
        let less = [&lines[..row], &lines[row + 1..]].concat().join("\n");
        let newer = text.replacen("\"schema\":", "\"schema\":9", 1);
        for (what, bytes) in [
            ("cut", packed[..packed.len() / 2].to_vec()),
            ("no end", pack(&no_end)),
            ("a row less", pack(&less)),
            ("another schema", pack(&newer)),
            ("something else", b"hello".to_vec()),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let refused = copy::load(&t.db, &timeline, &path, Replace::Everything).await;
            assert!(refused.is_err(), "{what}");
            assert_eq!(look(&t.db).await, before, "{what}");
        }
    }
}
