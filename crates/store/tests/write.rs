//! Reading and writing through the front door: what a change promises, on both engines.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use futures::FutureExt as _;
use store::testing::TestDb;
use store::{Db, Options, StoreError, Target, Tx};
use tokio::sync::Notify;

async fn put(db: &Db, name: impl Into<String>) -> Result<(), StoreError> {
    let name = name.into();
    db.write(move |tx: &mut Tx| {
        let name = name.clone();
        async move {
            store::exec!(
                tx,
                "INSERT INTO setting (name, value) VALUES ($1, '0')",
                name
            )?;
            Ok(())
        }
        .boxed()
    })
    .await
}

async fn names(db: &Db) -> Vec<String> {
    let mut tx = db.read().await.unwrap();
    let rows = store::all!(tx, (String,), "SELECT name FROM setting ORDER BY name").unwrap();
    rows.into_iter().map(|r| r.0).collect()
}

fn send<T: Send>(t: T) -> T {
    t
}

store::both! {
    async fn a_refused_change_does_not_harm_its_neighbours(t: TestDb) {
        put(&t.db, "taken").await.unwrap();
        let all = (0..150).map(|n| {
            let db = t.db.clone();
            tokio::spawn(async move {
                let r = if n % 3 == 0 { put(&db, "taken").await } else { put(&db, format!("n{n:03}")).await };
                (n, r)
            })
        });
        for (n, r) in futures::future::try_join_all(all).await.unwrap() {
            match r {
                Ok(()) => assert_ne!(n % 3, 0),
                Err(e) => assert!(n % 3 == 0 && e.is_unique_violation(), "{n}: {e:?}"),
            }
        }
        assert_eq!(names(&t.db).await.len(), 1 + 100);
    }

    async fn nothing_is_kept_of_a_change_that_returns_an_error(t: TestDb) {
        let r: Result<(), StoreError> = t.db.write(|tx: &mut Tx| async move {
            store::exec!(tx, "INSERT INTO setting (name, value) VALUES ('half', '0')")?;
            Err(StoreError::Corrupt("on purpose".into()))
        }.boxed()).await;
        assert!(matches!(r, Err(StoreError::Corrupt(_))));
        assert!(names(&t.db).await.is_empty());
    }

    async fn a_change_that_ignores_a_failed_statement_is_refused(t: TestDb) {
        put(&t.db, "taken").await.unwrap();
        let r: Result<(), StoreError> = t.db.write(|tx: &mut Tx| async move {
            store::exec!(tx, "INSERT INTO setting (name, value) VALUES ('new', '0')")?;
            store::exec!(tx, "INSERT INTO setting (name, value) VALUES ('taken', '0')").ok();
            Ok(())
        }.boxed()).await;
        assert!(matches!(r, Err(StoreError::Ignored)), "{r:?}");
        assert_eq!(names(&t.db).await, ["taken"]);
    }

    async fn a_panic_belongs_to_its_caller_and_the_database_lives_on(t: TestDb) {
        let db = t.db.clone();
        let caller = tokio::spawn(async move {
            db.write(|tx: &mut Tx| async move {
                store::exec!(tx, "INSERT INTO setting (name, value) VALUES ('half', '0')")?;
                if tx.statements > 0 {
                    panic!("on purpose");
                }
                Ok::<(), StoreError>(())
            }.boxed()).await
        });
        assert!(caller.await.unwrap_err().is_panic());
        put(&t.db, "after").await.unwrap();
        assert_eq!(names(&t.db).await, ["after"]);
    }

    async fn a_read_is_a_snapshot_and_cannot_write(t: TestDb) {
        put(&t.db, "a").await.unwrap();
        let mut tx = t.db.read().await.unwrap();
        let (before,) = store::one!(tx, (i64,), "SELECT COUNT(*) FROM setting").unwrap();
        put(&t.db, "b").await.unwrap();
        let (after,) = store::one!(tx, (i64,), "SELECT COUNT(*) FROM setting").unwrap();
        assert_eq!((before, after), (1, 1));
        assert!(store::exec!(tx, "DELETE FROM setting").is_err());
        drop(tx);
        assert_eq!(names(&t.db).await, ["a", "b"]);
    }

    async fn readers_that_are_dropped_halfway_leave_nothing_behind(t: TestDb) {
        for n in 0..100 {
            let mut tx = t.db.read().await.unwrap();
            let query = async { store::all!(tx, (String,), "SELECT name FROM setting") };
            // Polled once and dropped.
            let mut query = Box::pin(query);
            drop(futures::poll!(&mut query));
            drop(query);
            drop(tx);
            put(&t.db, format!("n{n}")).await.unwrap();
            assert_eq!(names(&t.db).await.len(), n + 1, "a reader sees what was committed before");
        }
    }

    async fn writers_dropped_halfway_leave_a_whole_or_nothing(t: TestDb) {
        for n in 0..50 {
            let db = t.db.clone();
            let mut write = Box::pin(async move {
                db.write(move |tx: &mut Tx| async move {
                    store::exec!(tx, "INSERT INTO setting (name, value) VALUES ($1, '0')", format!("{n}-1"))?;
                    store::exec!(tx, "INSERT INTO setting (name, value) VALUES ($1, '0')", format!("{n}-2"))?;
                    Ok::<(), StoreError>(())
                }.boxed()).await
            });
            for _ in 0..=n % 7 {
                if futures::poll!(&mut write).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        put(&t.db, "last").await.unwrap();
        t.db.close().await;
        let again = Db::open(&t.options).await.unwrap();
        assert_eq!(names(&again).await.len() % 2, 1, "pairs, and the last");
    }

    async fn futures_are_send(t: TestDb) {
        let db = t.db.clone();
        send(async move {
            let mut tx = db.read().await?;
            let rows = store::all!(tx, (i64, String), "SELECT 1, name FROM setting WHERE name IN @texts($1)", "[]")?;
            let none = store::opt!(tx, (i64,), "SELECT id FROM node WHERE id IN @ids($1)", "[1, 2]")?;
            drop(tx);
            put(&db, "x").await?;
            Ok::<_, StoreError>((rows.len(), none))
        })
        .await
        .unwrap();
    }

    async fn a_newer_schema_is_refused_in_words(t: TestDb) {
        t.db.write(|tx: &mut Tx| async move {
            store::exec!(tx, "INSERT INTO schema_version (version) VALUES (999)")?;
            Ok::<_, StoreError>(())
        }.boxed()).await.unwrap();
        t.db.close().await;
        let e = Db::open(&t.options).await.unwrap_err();
        assert!(matches!(e, StoreError::Newer { found: 999, .. }));
        let words = e.to_string();
        assert!(words.contains("999") && words.contains("newer program"), "{words}");
    }

    async fn what_was_written_is_there_after_opening_again(t: TestDb) {
        put(&t.db, "kept").await.unwrap();
        t.db.close().await;
        assert!(matches!(put(&t.db, "late").await, Err(StoreError::Closed | StoreError::Sql(_))));
        let again = Db::open(&t.options).await.unwrap();
        assert_eq!(names(&again).await, ["kept"]);
    }

    async fn programs_that_start_together_bring_up_the_schema_once(t: TestDb) {
        let options = match &t.options.target {
            Target::Sqlite(path) => Options::new(Target::Sqlite(path.with_file_name("other.db"))),
            Target::Postgres(_) => Options { connections: 2, ..Options::new(Target::Postgres(fresh_postgres().await)) },
        };
        let all = (0..4).map(|_| {
            let options = options.clone();
            tokio::spawn(async move { Db::open(&options).await })
        });
        for db in futures::future::try_join_all(all).await.unwrap() {
            let mut tx = db.expect("every one of them opens").read().await.unwrap();
            assert_eq!(store::one!(tx, (i64,), "SELECT COUNT(*) FROM zone").unwrap(), (1,));
        }
    }
}

#[cfg(feature = "peers")]
async fn fresh_postgres() -> String {
    store::testing::postgres_database().await
}

#[cfg(not(feature = "peers"))]
async fn fresh_postgres() -> String {
    unreachable!("without peers no test runs on PostgreSQL")
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_changes_are_committed_together() {
    let t = store::testing::sqlite().await;
    let (holding, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let first = {
        let (db, holding, go_on) = (t.db.clone(), Arc::clone(&holding), Arc::clone(&go_on));
        tokio::spawn(async move {
            db.write(move |_: &mut Tx| {
                let (holding, go_on) = (Arc::clone(&holding), Arc::clone(&go_on));
                async move {
                    holding.notify_one();
                    go_on.notified().await;
                    Ok::<_, StoreError>(())
                }
                .boxed()
            })
            .await
        })
    };
    holding.notified().await;
    let before = *t.db.wakes().borrow();
    // Polled in order: each has its place in the queue before the next one is looked at.
    let mut rest: Vec<_> = (0..50)
        .map(|n| {
            let db = t.db.clone();
            Box::pin(async move {
                db.write(move |tx: &mut Tx| {
                    async move { tx.changed("test", n, 0, metal::Timestamp(0)).await }.boxed()
                })
                .await
            })
        })
        .collect();
    for change in &mut rest {
        assert!(futures::poll!(change).is_pending());
    }
    go_on.notify_one();
    first.await.unwrap().unwrap();
    futures::future::try_join_all(rest).await.unwrap();
    assert_eq!(
        *t.db.wakes().borrow() - before,
        1,
        "one commit for all fifty"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_committed_fails_alone() {
    let t = store::testing::sqlite().await;
    let (holding, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let first = {
        let (db, holding, go_on) = (t.db.clone(), Arc::clone(&holding), Arc::clone(&go_on));
        tokio::spawn(async move {
            db.write(move |_: &mut Tx| {
                let (holding, go_on) = (Arc::clone(&holding), Arc::clone(&go_on));
                async move {
                    holding.notify_one();
                    go_on.notified().await;
                    Ok::<_, StoreError>(())
                }
                .boxed()
            })
            .await
        })
    };
    holding.notified().await;
    let mut rest: Vec<_> = (0..10)
        .map(|n| {
            let db = t.db.clone();
            Box::pin(async move {
                if n == 4 {
                    // Checked only when the whole transaction commits.
                    return db
                        .write(|tx: &mut Tx| {
                            async move {
                                store::exec!(tx, "PRAGMA defer_foreign_keys = 1")?;
                                store::exec!(
                                    tx,
                                    "INSERT INTO node_tag (node_id, tag_id) VALUES (77, 77)"
                                )?;
                                Ok::<_, StoreError>(())
                            }
                            .boxed()
                        })
                        .await;
                }
                put(&db, format!("n{n}")).await
            })
        })
        .collect();
    for change in &mut rest {
        assert!(futures::poll!(change).is_pending());
    }
    go_on.notify_one();
    first.await.unwrap().unwrap();
    let results = futures::future::join_all(rest).await;
    for (n, r) in results.iter().enumerate() {
        assert_eq!(r.is_err(), n == 4, "{n}: {r:?}");
    }
    assert_eq!(names(&t.db).await.len(), 9);
}

/// The test runs itself as the program that is killed.
const KILLED: &str = "STEELYARD_TEST_KILLED_DB";

#[test]
fn kill_minus_nine_loses_nothing_that_was_acknowledged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(path) = std::env::var_os(KILLED) {
        runtime.block_on(write_until_killed(path.into()));
        return;
    }
    for round in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("region.db");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kill_minus_nine_loses_nothing_that_was_acknowledged",
                "--nocapture",
            ])
            .env(KILLED, &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        let mut killed = false;
        // After the kill, what is still in the pipe was acknowledged too.
        for line in std::io::BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            acknowledged.extend(line.strip_prefix("ack ").map(str::to_owned));
            if !killed && acknowledged.len() >= 150 + 100 * round {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(
            killed,
            "the child ended by itself after {} changes",
            acknowledged.len()
        );
        let kept = runtime.block_on(async {
            let db = Db::open(&Options::new(Target::Sqlite(path))).await.unwrap();
            let mut tx = db.read().await.unwrap();
            let (check,) = store::one!(tx, (String,), "PRAGMA integrity_check").unwrap();
            assert_eq!(check, "ok");
            names(&db)
                .await
                .into_iter()
                .collect::<std::collections::HashSet<_>>()
        });
        for name in &acknowledged {
            assert!(kept.contains(name), "{name} was acknowledged and is lost");
        }
    }
}

async fn write_until_killed(path: std::path::PathBuf) {
    let db = Db::open(&Options::new(Target::Sqlite(path))).await.unwrap();
    let writers = (0..8).map(|w| {
        let db = db.clone();
        tokio::spawn(async move {
            for n in 0..100_000 {
                let name = format!("{w}-{n}");
                put(&db, name.clone()).await.unwrap();
                // Straight to the pipe, past the test harness and its buffers.
                let mut out = std::io::stdout().lock();
                out.write_all(format!("ack {name}\n").as_bytes()).unwrap();
                out.flush().unwrap();
            }
        })
    });
    futures::future::try_join_all(writers).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexed_read_is_cheap() {
    let t = store::testing::sqlite().await;
    let mut best = std::time::Duration::MAX;
    for _ in 0..20 {
        let began = std::time::Instant::now();
        for _ in 0..200 {
            let mut tx = t.db.read().await.unwrap();
            store::one!(tx, (i64,), "SELECT id FROM zone WHERE name = $1", "default").unwrap();
        }
        best = best.min(began.elapsed() / 200);
    }
    assert!(
        best < std::time::Duration::from_micros(500),
        "{best:?} in the best of twenty rounds, unoptimised"
    );
}
