//! The timeline of boots through the front door, on both engines.

use metal::timeline::{Entry, MAX_BOOTS, MAX_ENTRIES, What};
use metal::{MacAddr, SystemId, Timestamp};
use store::Timeline;
use store::testing::TestDb;
use store::timeline::record::Stage;
use store::timeline::{Batch, MAX_STRANGERS, Who};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn machine() -> SystemId {
    SystemId("4y3h7n".into())
}

fn at(seconds: i64, what: What) -> Entry {
    Entry::new(Timestamp(seconds * 1_000_000), what)
}

fn discover() -> What {
    What::Dhcp {
        message: "discover".into(),
        arch: Some(0),
        speaker: "firmware".into(),
        boot_file: None,
    }
}

fn power_on() -> What {
    What::Power {
        command: "on".into(),
        driver: "ipmi".into(),
        error: None,
    }
}

fn metadata() -> What {
    What::Metadata {
        method: "GET".into(),
        path: "/MAAS/metadata/".into(),
        status: 200,
    }
}

fn line(text: impl Into<String>) -> What {
    What::Syslog {
        severity: 6,
        app: "kernel".into(),
        text: text.into(),
    }
}

async fn open(t: &TestDb) -> Timeline {
    Timeline::open(&t.options).await.unwrap()
}

store::both! {
    async fn a_boot_is_read_back_as_it_was_seen(t: TestDb) {
        let timeline = open(&t).await;
        let seen = vec![at(1, discover()), at(2, metadata()), at(3, line("hello"))];
        let done = timeline.append(MAC.into(), seen.clone()).await.unwrap();
        assert_eq!((done.kept, done.folded, done.dropped), (3, 0, 0));
        let boot = timeline.latest(MAC).await.unwrap().unwrap();
        assert_eq!(boot.entries, seen);
        let s = &boot.summary;
        assert_eq!((s.number, s.entries, s.stage, s.ended), (1, 3, Stage::Running, None));
        assert_eq!((s.started, s.last), (Timestamp(1_000_000), Timestamp(3_000_000)));
        assert_eq!(timeline.boots(MAC).await.unwrap(), std::slice::from_ref(&boot.summary));
        assert_eq!(timeline.boot(s.id + 1).await.unwrap(), None);
    }

    async fn repeats_fold_across_batches(t: TestDb) {
        let timeline = open(&t).await;
        timeline.append(MAC.into(), vec![at(1, discover()), at(2, What::Note { text: "x".into() })]).await.unwrap();
        let done = timeline.append(MAC.into(), vec![at(5, discover()), at(9, discover())]).await.unwrap();
        assert_eq!((done.kept, done.folded), (0, 2));
        let boot = timeline.latest(MAC).await.unwrap().unwrap();
        assert_eq!(boot.entries.len(), 2);
        let first = &boot.entries[0];
        assert_eq!((first.count, first.first, first.last), (3, Timestamp(1_000_000), Timestamp(9_000_000)));
    }

    async fn the_next_boot_ends_the_last_one(t: TestDb) {
        let timeline = open(&t).await;
        timeline.append(machine().into(), vec![at(1, power_on()), at(2, metadata()), at(90, power_on())]).await.unwrap();
        let boots = timeline.boots(machine()).await.unwrap();
        assert_eq!(boots.iter().map(|b| (b.number, b.ended)).collect::<Vec<_>>(), [(2, None), (1, Some(Timestamp(90_000_000)))]);
    }

    async fn the_boots_of_a_stranger_become_those_of_the_machine(t: TestDb) {
        let timeline = open(&t).await;
        timeline.append(MAC.into(), vec![at(1, discover()), at(2, metadata())]).await.unwrap();
        assert_eq!(timeline.adopt(MAC, &machine()).await.unwrap(), 1);
        // The region names the machine and the rack its address: both add to the same boots.
        timeline.append(machine().into(), vec![at(3, power_on())]).await.unwrap();
        timeline.append(MAC.into(), vec![at(4, discover())]).await.unwrap();
        let boots = timeline.boots(machine()).await.unwrap();
        assert_eq!(boots.iter().map(|b| (b.number, b.entries)).collect::<Vec<_>>(), [(2, 2), (1, 2)]);
        assert_eq!(boots[0].mac, Some(MAC));
        assert_eq!(timeline.forget(&machine()).await.unwrap(), 2);
        assert_eq!(timeline.boots(machine()).await.unwrap(), []);
        assert_eq!(timeline.boots(MAC).await.unwrap(), []);
    }

    async fn a_batch_that_comes_again_is_not_stored_again(t: TestDb) {
        let timeline = open(&t).await;
        let send = |number, text: &str| {
            let batch = Batch { source: "rack".into(), number };
            timeline.append_all(Some(batch), vec![(MAC.into(), vec![at(1, line(text))])])
        };
        assert!(!send(1, "a").await.unwrap().repeated);
        assert!(send(1, "a").await.unwrap().repeated);
        assert!(!send(2, "b").await.unwrap().repeated);
        assert!(send(1, "a").await.unwrap().repeated);
        let boot = timeline.latest(MAC).await.unwrap().unwrap();
        assert_eq!(boot.entries.iter().map(|e| e.count).collect::<Vec<_>>(), [1, 1]);
    }

    async fn entries_of_nobody_are_counted_and_not_kept(t: TestDb) {
        let timeline = open(&t).await;
        let done = timeline.append(Who::default(), vec![at(1, discover())]).await.unwrap();
        assert_eq!((done.nobody, done.kept), (1, 0));
    }

    async fn a_boot_and_the_boots_of_a_machine_are_bounded(t: TestDb) {
        let timeline = open(&t).await;
        let lines = (0..MAX_ENTRIES + 50).map(|n| at(1, line(format!("{n}")))).collect();
        let done = timeline.append(machine().into(), lines).await.unwrap();
        assert!(done.dropped >= 50);
        let full = timeline.latest(machine()).await.unwrap().unwrap();
        assert_eq!(full.summary.entries, i64::try_from(full.entries.len()).unwrap());
        assert_eq!(full.summary.dropped, i64::try_from(done.dropped).unwrap());
        assert!(full.entries.len() <= MAX_ENTRIES);
        for n in 0..2 * MAX_BOOTS {
            let n = i64::try_from(n).unwrap();
            timeline.append(machine().into(), vec![at(100 + n, power_on()), at(100 + n, metadata())]).await.unwrap();
        }
        let boots = timeline.boots(machine()).await.unwrap();
        assert_eq!(boots.len(), MAX_BOOTS);
        assert_eq!(boots[0].number, 1 + 2 * i64::try_from(MAX_BOOTS).unwrap());
        assert_eq!(timeline.boot(full.summary.id).await.unwrap(), None, "the oldest went");
    }

    async fn strangers_are_bounded_in_all(t: TestDb) {
        let timeline = open(&t).await;
        let stranger = |n: i64| {
            let b = n.to_be_bytes();
            MacAddr([2, 0, 0, b[5], b[6], b[7]])
        };
        let items = (0..MAX_STRANGERS + 20).map(|n| (stranger(n).into(), vec![at(n, discover())])).collect();
        timeline.append_all(None, items).await.unwrap();
        assert_eq!(timeline.boots(stranger(19)).await.unwrap().len(), 0);
        assert_eq!(timeline.boots(stranger(20)).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_the_timeline_is_a_file_of_its_own_and_outlives_the_program() {
    let t = store::testing::sqlite().await;
    let timeline = open(&t).await;
    timeline
        .append(MAC.into(), vec![at(1, discover())])
        .await
        .unwrap();
    timeline.close().await;
    assert!(t.dir.path().join(store::timeline::FILE_NAME).exists());
    assert_eq!(open(&t).await.boots(MAC).await.unwrap().len(), 1);
}
