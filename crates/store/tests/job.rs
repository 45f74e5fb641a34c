//! Durable jobs through the front door, on both engines.

use std::time::Duration;

use futures::FutureExt as _;
use store::job::{NewJob, Overrun, State, WhenActive};
use store::testing::TestDb;
use store::{StoreError, Tx};

const LEASE: Duration = Duration::from_secs(60);
/// Over at once: its owner is as good as dead.
const NO_LEASE: Duration = Duration::ZERO;

fn deploy(subject: &str) -> NewJob<'_> {
    NewJob {
        kind: "deploy",
        subject,
        ..NewJob::default()
    }
}

fn is_fenced<T: std::fmt::Debug>(r: Result<T, StoreError>) -> bool {
    matches!(r, Err(StoreError::Fenced { .. }))
}

store::both! {
    async fn a_job_goes_to_one_owner(t: TestDb) {
        let id = t.db.enqueue_job(NewJob { payload: serde_json::json!({"image": "trixie"}), ..deploy("4y3h7n") }).await.unwrap();
        let job = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().expect("it is due");
        assert_eq!((job.id, job.attempt, job.state, job.overrun), (id, 1, State::Running, None));
        assert_eq!(job.payload["image"], "trixie");
        assert_eq!(t.db.claim_job(&["deploy"], "b", LEASE).await.unwrap(), None);
        t.db.finish_job(job.fence()).await.unwrap();
        assert_eq!(t.db.claim_job(&["deploy"], "b", LEASE).await.unwrap(), None);
        let ended = t.db.read().await.unwrap().job(id).await.unwrap().unwrap();
        assert_eq!(ended.state, State::Done);
    }

    async fn many_owners_share_jobs_without_overlap(t: TestDb) {
        for n in 0..40 {
            t.db.enqueue_job(deploy(&format!("m{n}"))).await.unwrap();
        }
        let owners = (0..4).map(|o| {
            let db = t.db.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    match db.claim_job(&["deploy"], &format!("owner{o}"), LEASE).await {
                        Ok(Some(job)) => mine.push(job.id),
                        Ok(None) => return mine,
                        // Too busy is an answer; asking again is the remedy.
                        Err(StoreError::Conflict { .. }) => {}
                        Err(e) => panic!("{e:?}"),
                    }
                }
            })
        });
        let mut all: Vec<i64> = futures::future::try_join_all(owners).await.unwrap().concat();
        all.sort_unstable();
        let jobs = all.len();
        all.dedup();
        assert_eq!((jobs, all.len()), (40, 40), "every job once");
    }

    async fn the_job_of_a_dead_owner_is_taken_over_and_the_dead_owner_is_refused(t: TestDb) {
        t.db.enqueue_job(deploy("4y3h7n")).await.unwrap();
        let dead = t.db.claim_job(&["deploy"], "a", NO_LEASE).await.unwrap().unwrap();
        let taken = loop {
            // The lease is over when the clock has moved on by a microsecond.
            if let Some(job) = t.db.claim_job(&["deploy"], "b", LEASE).await.unwrap() {
                break job;
            }
        };
        assert_eq!((taken.id, taken.attempt, taken.failures), (dead.id, 2, 1));
        assert!(is_fenced(t.db.renew_job(dead.fence(), LEASE).await));
        assert!(is_fenced(t.db.save_job(dead.fence(), serde_json::json!(1)).await));
        assert!(is_fenced(t.db.wait_job(dead.fence(), taken.run_at, "…").await));
        assert!(is_fenced(t.db.retry_job(dead.fence(), taken.run_at, "…").await));
        assert!(is_fenced(t.db.fail_job(dead.fence(), "…").await));
        assert!(is_fenced(t.db.finish_job(dead.fence()).await));
        t.db.renew_job(taken.fence(), LEASE).await.unwrap();
        t.db.finish_job(taken.fence()).await.unwrap();
        assert!(is_fenced(t.db.finish_job(taken.fence()).await), "a job ends once");
    }

    async fn a_write_of_a_stale_attempt_leaves_nothing(t: TestDb) {
        t.db.enqueue_job(deploy("4y3h7n")).await.unwrap();
        let stale = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().unwrap().fence();
        t.db.cancel_job("deploy", "4y3h7n", "released").await.unwrap();
        let refused = t.db.write(move |tx: &mut Tx| async move {
            store::exec!(tx, "INSERT INTO setting (name, value) VALUES ('x', '1')")?;
            tx.hold_job(stale).await
        }.boxed()).await;
        assert!(is_fenced(refused));
        let mut tx = t.db.read().await.unwrap();
        assert_eq!(store::opt!(tx, (String,), "SELECT value FROM setting WHERE name = 'x'").unwrap(), None);
    }

    async fn one_job_per_kind_and_subject_is_active(t: TestDb) {
        let first = t.db.enqueue_job(deploy("4y3h7n")).await.unwrap();
        assert_eq!(t.db.enqueue_job(deploy("4y3h7n")).await.unwrap(), first);
        assert_ne!(t.db.enqueue_job(deploy("aaaaaa")).await.unwrap(), first);
        let running = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().unwrap();
        assert_eq!(running.id, first);
        assert_eq!(t.db.enqueue_job(deploy("4y3h7n")).await.unwrap(), first, "also while it runs");
        let second = t.db.enqueue_job(NewJob { when_active: WhenActive::Replace, ..deploy("4y3h7n") }).await.unwrap();
        assert_ne!(second, first);
        assert!(is_fenced(t.db.finish_job(running.fence()).await), "the replaced job's owner is refused");
        let active = t.db.read().await.unwrap().active_jobs("4y3h7n").await.unwrap();
        assert_eq!(active.iter().map(|j| j.id).collect::<Vec<_>>(), [second]);
    }

    async fn a_waiting_job_says_why_and_comes_back_when_poked(t: TestDb) {
        let id = t.db.enqueue_job(deploy("4y3h7n")).await.unwrap();
        let job = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().unwrap();
        let later = job.updated.plus(Duration::from_secs(3600));
        t.db.wait_job(job.fence(), later, "waiting for a PXE request, 3 of 30 minutes").await.unwrap();
        assert_eq!(t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap(), None);
        let waiting = t.db.read().await.unwrap().job(id).await.unwrap().unwrap();
        assert_eq!((waiting.state, waiting.owner), (State::Waiting, None));
        assert_eq!(waiting.reason, "waiting for a PXE request, 3 of 30 minutes");
        assert!(t.db.poke_job("deploy", "4y3h7n").await.unwrap());
        let again = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().expect("poked");
        assert_eq!((again.attempt, again.failures), (2, 0), "waiting is no failure");
        // Poked while it runs: what it is about to wait for may have happened already.
        assert!(t.db.poke_job("deploy", "4y3h7n").await.unwrap());
        t.db.wait_job(again.fence(), later, "waiting").await.unwrap();
        assert!(t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().is_some());
        assert!(!t.db.poke_job("deploy", "nobody").await.unwrap());
    }

    async fn a_passed_deadline_is_handed_to_an_owner(t: TestDb) {
        let now = t.db.write(|tx: &mut Tx| tx.now().boxed()).await.unwrap();
        let soon = now.plus(Duration::from_millis(20));
        let far = now.plus(Duration::from_secs(3600));
        t.db.enqueue_job(NewJob { deadline: Some(soon), run_at: Some(far), ..deploy("4y3h7n") }).await.unwrap();
        let mut claims = t.db.claims(&["deploy"], "a", LEASE);
        let job = loop {
            claims.ready().await.unwrap();
            if let Some(job) = claims.claim().await.unwrap() {
                break job;
            }
        };
        assert_eq!(job.overrun, Some(Overrun::Deadline));
        t.db.fail_job(job.fence(), "no PXE request was seen").await.unwrap();
    }

    async fn too_many_failures_are_handed_to_an_owner(t: TestDb) {
        t.db.enqueue_job(NewJob { max_failures: Some(2), ..deploy("4y3h7n") }).await.unwrap();
        for failures in 0..2 {
            let job = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().unwrap();
            assert_eq!((job.failures, job.overrun), (failures, None));
            t.db.retry_job(job.fence(), job.run_at, "the BMC did not answer").await.unwrap();
        }
        let job = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().unwrap();
        assert_eq!(job.overrun, Some(Overrun::Failures));
    }

    async fn a_sleeping_worker_wakes_for_a_new_job(t: TestDb) {
        let mut claims = t.db.claims(&["deploy"], "a", LEASE);
        let worker = tokio::spawn(async move {
            loop {
                claims.ready().await.unwrap();
                if let Some(job) = claims.claim().await.unwrap() {
                    return job;
                }
            }
        });
        let began = std::time::Instant::now();
        t.db.enqueue_job(deploy("4y3h7n")).await.unwrap();
        let job = tokio::time::timeout(Duration::from_secs(30), worker).await.expect("in time").unwrap();
        assert_eq!(job.subject, "4y3h7n");
        assert!(began.elapsed() < store::job::POLL, "it was woken, not found by polling: {:?}", began.elapsed());
    }

    async fn jobs_of_an_owner_that_ended_are_claimed_before_their_lease_is_over(t: TestDb) {
        for (subject, owner) in [("mine", "r:0a1b:7"), ("other", "r:0a1c:7")] {
            t.db.enqueue_job(deploy(subject)).await.unwrap();
            t.db.claim_job(&["deploy"], owner, LEASE).await.unwrap().unwrap();
        }
        assert!(t.db.claim_job(&["deploy"], "r:0a1b:8", LEASE).await.unwrap().is_none());
        let end = |kind: &'static str| t.db.write(move |tx: &mut Tx| async move { tx.end_leases(kind, ":0a1b:").await }.boxed());
        assert_eq!((end("another").await.unwrap(), end("deploy").await.unwrap()), (0, 1));
        let again = t.db.claim_job(&["deploy"], "r:0a1b:8", LEASE).await.unwrap().unwrap();
        assert_eq!((again.subject.as_str(), again.attempt), ("mine", 2));
        assert!(t.db.claim_job(&["deploy"], "r:0a1b:8", LEASE).await.unwrap().is_none());
    }

    async fn ended_jobs_are_pruned_and_active_ones_stay(t: TestDb) {
        let old = t.db.enqueue_job(deploy("old")).await.unwrap();
        let job = t.db.claim_job(&["deploy"], "a", LEASE).await.unwrap().unwrap();
        t.db.finish_job(job.fence()).await.unwrap();
        let active = t.db.enqueue_job(deploy("new")).await.unwrap();
        let pruned = t.db.write(|tx: &mut Tx| async move {
            let now = tx.now().await?;
            tx.prune_jobs(now.plus(Duration::from_secs(1))).await
        }.boxed()).await.unwrap();
        assert_eq!(pruned, 1);
        let mut tx = t.db.read().await.unwrap();
        assert!(tx.job(old).await.unwrap().is_none());
        assert!(tx.job(active).await.unwrap().is_some());
    }

    async fn a_payload_has_a_limit(t: TestDb) {
        let large = serde_json::Value::String("x".repeat(store::job::MAX_PAYLOAD));
        let refused = t.db.enqueue_job(NewJob { payload: large, ..deploy("4y3h7n") }).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    }
}
