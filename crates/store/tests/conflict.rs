//! PostgreSQL's conflicts: a change that could not be serialised runs again, a bounded number of times.

#![cfg(feature = "peers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use store::db::Patience;
use store::{Db, StoreError, Tx, TxError};
use tokio::sync::Barrier;

/// An error that hides what the database said.
#[derive(Debug)]
struct Opaque;

impl From<StoreError> for Opaque {
    fn from(_: StoreError) -> Self {
        Self
    }
}

impl TxError for Opaque {
    fn store(&self) -> Option<&StoreError> {
        None
    }
}

/// Two changes that each read what the other writes: one of them must run again.
async fn race<E: TxError + std::fmt::Debug>(db: &Db) -> u32 {
    let runs = Arc::new(AtomicU32::new(0));
    let both_have_read = Arc::new(Barrier::new(2));
    let racers = ["a", "b"].map(|name| {
        let (db, runs, both_have_read) =
            (db.clone(), Arc::clone(&runs), Arc::clone(&both_have_read));
        tokio::spawn(async move {
            let first = Arc::new(AtomicU32::new(0));
            db.write(move |tx: &mut Tx| {
                let (runs, both_have_read, first) = (
                    Arc::clone(&runs),
                    Arc::clone(&both_have_read),
                    Arc::clone(&first),
                );
                async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    let (count,) = store::one!(tx, (i64,), "SELECT COUNT(*) FROM setting")?;
                    if first.fetch_add(1, Ordering::SeqCst) == 0 {
                        both_have_read.wait().await;
                    }
                    let value = count.to_string();
                    store::exec!(
                        tx,
                        "INSERT INTO setting (name, value) VALUES ($1, $2)",
                        name,
                        value
                    )?;
                    Ok::<_, E>(())
                }
                .boxed()
            })
            .await
        })
    });
    for r in futures::future::try_join_all(racers).await.unwrap() {
        r.unwrap();
    }
    let mut tx = db.read().await.unwrap();
    let seen = store::all!(tx, (String,), "SELECT value FROM setting ORDER BY value").unwrap();
    assert_eq!(
        seen,
        [("0".to_owned(),), ("1".to_owned(),)],
        "one of them saw the other"
    );
    runs.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_conflict_runs_again_on_postgres() {
    let t = store::testing::postgres().await;
    assert!(race::<StoreError>(&t.db).await > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_conflict_runs_again_even_when_its_error_hides_it() {
    let t = store::testing::postgres().await;
    assert!(race::<Opaque>(&t.db).await > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_does_not_end_is_reported_after_bounded_tries() {
    let t = store::testing::postgres().await;
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let r: Result<(), StoreError> =
        t.db.write(move |tx: &mut Tx| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                store::exec!(tx, "DO $$ BEGIN RAISE serialization_failure; END $$")?;
                Ok(())
            }
            .boxed()
        })
        .await;
    assert!(
        matches!(r, Err(StoreError::Conflict { tries }) if tries == store::db::MAX_TRIES),
        "{r:?}"
    );
    assert_eq!(runs.load(Ordering::SeqCst), store::db::MAX_TRIES);
}

/// Changes that collide on purpose, again and again: each reads all of a table and then writes to it.
#[tokio::test(flavor = "multi_thread")]
async fn patient_changes_that_collide_all_get_through() {
    const CHANGES: i64 = 100;
    let t = store::testing::postgres().await;
    let changes = (0..CHANGES).map(|i| {
        let db = t.db.clone();
        tokio::spawn(async move {
            db.write_with(
                Patience::For(Duration::from_secs(60)),
                move |tx: &mut Tx| {
                    async move {
                        let (count,) = store::one!(tx, (i64,), "SELECT COUNT(*) FROM setting")?;
                        let (name, value) = (format!("n{i}"), count.to_string());
                        store::exec!(
                            tx,
                            "INSERT INTO setting (name, value) VALUES ($1, $2)",
                            name,
                            value
                        )?;
                        Ok::<_, StoreError>(())
                    }
                    .boxed()
                },
            )
            .await
        })
    });
    let changes: Vec<_> = changes.collect();
    for r in futures::future::try_join_all(changes).await.unwrap() {
        r.unwrap();
    }
    let mut tx = t.db.read().await.unwrap();
    let (different,) =
        store::one!(tx, (i64,), "SELECT COUNT(DISTINCT value) FROM setting").unwrap();
    assert_eq!(different, CHANGES, "each saw all that were before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_change_gives_up_when_its_time_is_over() {
    let t = store::testing::postgres().await;
    let began = std::time::Instant::now();
    let limit = Duration::from_millis(700);
    let r: Result<(), StoreError> =
        t.db.write_with(Patience::For(limit), |tx: &mut Tx| {
            async move {
                store::exec!(tx, "DO $$ BEGIN RAISE serialization_failure; END $$")?;
                Ok(())
            }
            .boxed()
        })
        .await;
    assert!(
        matches!(r, Err(StoreError::Conflict { tries }) if tries > 2),
        "{r:?}"
    );
    assert!(began.elapsed() >= limit);
}
