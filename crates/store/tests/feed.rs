//! The change feed through the front door, on both engines: no reader misses a change.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use metal::Timestamp;
use proptest::prelude::*;
use store::feed::{FeedReader, Position};
use store::testing::TestDb;
use store::{Db, StoreError, Tx};

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(60);

async fn change(db: &Db, object: &str) {
    let object = object.to_owned();
    db.write(move |tx: &mut Tx| {
        let object = object.clone();
        async move { tx.changed("test", object, 1, Timestamp(1_000_000)).await }.boxed()
    })
    .await
    .unwrap();
}

async fn here(db: &Db) -> Position {
    db.read().await.unwrap().feed_position().await.unwrap()
}

async fn next(reader: &mut FeedReader) -> Vec<String> {
    let rows = tokio::time::timeout(LIMIT, reader.next())
        .await
        .expect("a change in time")
        .unwrap();
    rows.into_iter().map(|c| c.object).collect()
}

/// Reads until an object comes.
async fn until(reader: &mut FeedReader, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    while !all.iter().any(|o| o == last) {
        all.extend(next(reader).await);
    }
    all
}

store::both! {
    async fn changes_come_in_order_from_where_the_reader_stands(t: TestDb) {
        let mut reader = t.db.feed_reader(here(&t.db).await);
        change(&t.db, "before").await;
        assert_eq!(next(&mut reader).await, ["before"]);
        let mut reader = t.db.feed_reader(here(&t.db).await);
        for n in 0..5 {
            change(&t.db, &format!("{n}")).await;
        }
        assert_eq!(until(&mut reader, "4").await, ["0", "1", "2", "3", "4"]);
        let mut again = t.db.feed_reader(reader.position());
        change(&t.db, "5").await;
        assert_eq!(next(&mut again).await, ["5"]);
    }

    async fn a_sleeping_reader_is_woken(t: TestDb) {
        let mut reader = t.db.feed_reader(here(&t.db).await);
        let sleeper = tokio::spawn(async move { next(&mut reader).await });
        let db = t.db.clone();
        // By another program that has the same database open.
        let other = Db::open(&t.options).await.unwrap();
        change(&other, "x").await;
        drop(db);
        assert_eq!(tokio::time::timeout(LIMIT, sleeper).await.unwrap().unwrap(), ["x"]);
    }

    async fn a_trimmed_feed_says_start_again(t: TestDb) {
        let early = here(&t.db).await;
        for n in 0..10 {
            change(&t.db, &format!("{n}")).await;
        }
        let mut reader = t.db.feed_reader(early);
        until(&mut reader, "9").await;
        let late = reader.position();
        let trimmed = t.db.write(|tx: &mut Tx| tx.trim_feed(Timestamp(2_000_000)).boxed()).await.unwrap();
        assert_eq!(trimmed, 10);
        assert_eq!(here(&t.db).await, late, "the place stays when its rows go");
        assert!(matches!(t.db.feed_reader(early).next().await, Err(StoreError::StartAgain)));
        let mut reader = t.db.feed_reader(late);
        change(&t.db, "after").await;
        assert_eq!(next(&mut reader).await, ["after"]);
        let kept = t.db.write(|tx: &mut Tx| tx.trim_feed(Timestamp(500_000)).boxed()).await.unwrap();
        assert_eq!(kept, 0, "what is young stays");
    }

    async fn a_position_of_another_history_says_start_again(t: TestDb) {
        change(&t.db, "x").await;
        let at = here(&t.db).await;
        let nonsense = [
            Position::default(),
            Position { epoch: at.epoch ^ 1, ..at },
            Position { xact: at.xact + 1_000_000, seq: at.seq + 1_000_000, ..at },
        ];
        for position in nonsense {
            let r = t.db.read().await.unwrap().changes_after(position).await;
            assert!(matches!(r, Err(StoreError::StartAgain)), "{position:?}: {r:?}");
        }
        t.db.write(|tx: &mut Tx| tx.new_feed_epoch().boxed()).await.unwrap();
        let r = t.db.read().await.unwrap().changes_after(at).await;
        assert!(matches!(r, Err(StoreError::StartAgain)), "{r:?}");
        assert_ne!(here(&t.db).await.epoch, at.epoch);
    }

    async fn the_epoch_stays_when_the_program_starts_again(t: TestDb) {
        let at = here(&t.db).await;
        t.db.close().await;
        assert_eq!(here(&Db::open(&t.options).await.unwrap()).await, at);
    }
}

/// The case that a sequence number alone gets wrong: the older row commits last.
#[cfg(feature = "peers")]
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_commits_late_is_not_passed_over_on_postgres() {
    use std::sync::Arc;
    use tokio::sync::Notify;

    let t = store::testing::postgres().await;
    let from = here(&t.db).await;
    let (written, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (db, written, go_on) = (t.db.clone(), Arc::clone(&written), Arc::clone(&go_on));
        tokio::spawn(async move {
            db.write(move |tx: &mut Tx| {
                let (written, go_on) = (Arc::clone(&written), Arc::clone(&go_on));
                async move {
                    tx.changed("test", "older", 1, Timestamp(0)).await?;
                    written.notify_one();
                    go_on.notified().await;
                    Ok::<_, StoreError>(())
                }
                .boxed()
            })
            .await
        })
    };
    written.notified().await;
    change(&t.db, "younger").await;
    assert_eq!(
        t.db.read()
            .await
            .unwrap()
            .changes_after(from)
            .await
            .unwrap(),
        [],
        "held back"
    );
    assert_eq!(
        here(&t.db).await,
        from,
        "a new reader does not begin behind it either"
    );
    go_on.notify_one();
    slow.await.unwrap().unwrap();
    assert_eq!(
        until(&mut t.db.feed_reader(from), "younger").await,
        ["older", "younger"]
    );
}

#[derive(Clone, Debug)]
struct Step {
    /// Rows of the feed it writes.
    rows: u8,
    /// It is given up after writing.
    abort: bool,
    /// How often it lets others go first, between its statements.
    yields: u8,
}

fn plan() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step =
        (1..4u8, proptest::bool::weighted(0.3), 0..20u8).prop_map(|(rows, abort, yields)| Step {
            rows,
            abort,
            yields,
        });
    proptest::collection::vec(proptest::collection::vec(step, 1..15), 2..6)
}

/// What a consumer holds: the snapshot it took, and what the feed told it since.
async fn consume(db: Db, prefix: String, last: String) -> BTreeMap<String, i64> {
    let mut tx = db.read().await.unwrap();
    let from = tx.feed_position().await.unwrap();
    let like = format!("{prefix}/%");
    let mut held: BTreeMap<String, i64> = store::all!(
        tx,
        (String,),
        "SELECT name FROM setting WHERE name LIKE $1",
        like
    )
    .unwrap()
    .into_iter()
    .map(|r| (r.0, 0))
    .collect();
    drop(tx);
    if held.contains_key(&last) {
        return held;
    }
    let mut reader = db.feed_reader(from);
    loop {
        for object in next(&mut reader).await {
            if object.starts_with(&format!("{prefix}/")) {
                *held.entry(object.clone()).or_default() += 1;
            }
            if object == last {
                return held;
            }
        }
    }
}

async fn write(db: &Db, objects: Vec<String>, step: Step) -> Result<(), StoreError> {
    db.write(move |tx: &mut Tx| {
        let (objects, step) = (objects.clone(), step.clone());
        async move {
            for o in &objects {
                store::exec!(
                    tx,
                    "INSERT INTO setting (name, value) VALUES ($1, '0')",
                    o.as_str()
                )?;
                for _ in 0..step.yields {
                    tokio::task::yield_now().await;
                }
                tx.changed("test", o, 0, Timestamp(0)).await?;
            }
            if step.abort {
                Err(StoreError::Corrupt("given up".into()))
            } else {
                Ok(())
            }
        }
        .boxed()
    })
    .await
}

async fn run_plan(db: &Db, case: u32, plan: Vec<Vec<Step>>) {
    let prefix = format!("case{case}");
    let last = format!("{prefix}/last");
    let mut consumers = vec![tokio::spawn(consume(
        db.clone(),
        prefix.clone(),
        last.clone(),
    ))];
    let writers: Vec<_> = plan
        .into_iter()
        .enumerate()
        .map(|(w, steps)| {
            let (db, prefix) = (db.clone(), prefix.clone());
            tokio::spawn(async move {
                let mut committed = Vec::new();
                for (s, step) in steps.into_iter().enumerate() {
                    let objects: Vec<_> = (0..step.rows)
                        .map(|r| format!("{prefix}/{w}.{s}.{r}"))
                        .collect();
                    let kept = write(&db, objects.clone(), step.clone()).await;
                    assert_eq!(kept.is_err(), step.abort, "{kept:?}");
                    if kept.is_ok() {
                        committed.extend(objects);
                    }
                }
                committed
            })
        })
        .collect();
    // Consumers that come in the middle of it.
    for _ in 0..3 {
        tokio::task::yield_now().await;
        consumers.push(tokio::spawn(consume(
            db.clone(),
            prefix.clone(),
            last.clone(),
        )));
    }
    let mut expected: Vec<String> = futures::future::try_join_all(writers)
        .await
        .unwrap()
        .concat();
    write(
        db,
        vec![last.clone()],
        Step {
            rows: 1,
            abort: false,
            yields: 0,
        },
    )
    .await
    .unwrap();
    expected.push(last);
    expected.sort();
    let all = tokio::time::timeout(LIMIT, futures::future::try_join_all(consumers))
        .await
        .expect("in time")
        .unwrap();
    for (n, held) in all.iter().enumerate() {
        assert_eq!(
            held.keys().cloned().collect::<Vec<_>>(),
            expected,
            "consumer {n}"
        );
        assert!(
            held.values().all(|times| *times <= 1),
            "consumer {n} was told twice: {held:?}"
        );
    }
}

fn no_reader_misses_a_change(cases: u32, runtime: &tokio::runtime::Runtime, db: &Db) {
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let case = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&plan(), |plan| {
        case.set(case.get() + 1);
        runtime.block_on(run_plan(db, case.get(), plan));
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[test]
fn no_reader_misses_a_change_on_sqlite() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let t = runtime.block_on(store::testing::sqlite());
    no_reader_misses_a_change(20, &runtime, &t.db);
}

#[cfg(feature = "peers")]
#[test]
fn no_reader_misses_a_change_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let t = runtime.block_on(store::testing::postgres());
    no_reader_misses_a_change(20, &runtime, &t.db);
}
