use link::message::{Lease, LeaseEvent, PassedRequest};
use metal::{MacAddr, Timestamp};

use super::*;

fn note(text: &str) -> Report {
    Report::Timeline {
        entries: vec![Entry::new(Timestamp(1), What::Note { text: text.into() })],
    }
}

fn lease(last: u8) -> Report {
    Report::Lease(Lease {
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        ip: IpAddr::from([10, 0, 0, last]),
        subnet_id: 1,
        hostname: None,
        until: Timestamp(5),
        event: LeaseEvent::Commit,
    })
}

fn delivery(last: u8) -> Report {
    let request = PassedRequest {
        method: "POST".into(),
        target: "/MAAS/metadata/2012-03-01/".into(),
        headers: vec![],
        body: bytes::Bytes::from_static(b"op=signal"),
        client: IpAddr::from([10, 0, 0, last]),
        mac: None,
        base: "http://10.0.0.1:5248".into(),
    };
    Report::Passed {
        request,
        at: Timestamp(1),
    }
}

fn next(journal: &mut Journal) -> Option<Batch> {
    match journal.front().unwrap() {
        Waiting::Batch(batch) => Some(batch),
        Waiting::Nothing => None,
    }
}

#[test]
fn what_is_written_after_a_restart_follows_what_was_read_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    journal.welcome(0).unwrap();
    journal.append(&[lease(1)], Durability::Disk).unwrap();
    drop(journal);
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    assert_eq!(next(&mut journal).map(|b| b.number), Some(1));
    journal.done(1).unwrap();
    // The first of this run is in a file of its own.
    journal.append(&[lease(2)], Durability::Disk).unwrap();
    let second = next(&mut journal).expect("it is there");
    assert_eq!((second.number, second.reports), (2, vec![lease(2)]));
}

#[test]
fn batches_survive_a_restart_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, left) = Journal::open(dir.path().into()).unwrap();
    assert_eq!(left, journal::Left::default());
    journal
        .append(&[lease(1), delivery(9)], Durability::Disk)
        .unwrap();
    journal.append(&[lease(2)], Durability::Kernel).unwrap();
    assert_eq!(
        next(&mut journal),
        None,
        "nothing has a number before the region was heard"
    );
    drop(journal);

    let (mut journal, left) = Journal::open(dir.path().into()).unwrap();
    assert_eq!(
        left,
        journal::Left {
            batches: 2,
            kept: vec![Kept {
                client: IpAddr::from([10, 0, 0, 9]),
                to_disk: None
            }]
        }
    );
    journal.append(&[lease(3)], Durability::Disk).unwrap();
    journal.welcome(40).unwrap();
    let mut seen = Vec::new();
    while let Some(batch) = next(&mut journal) {
        assert_eq!(
            next(&mut journal).as_ref(),
            Some(&batch),
            "asked again, it is the same"
        );
        journal.done(batch.number).unwrap();
        seen.push((batch.number, batch.reports.last().cloned().unwrap()));
    }
    assert_eq!(seen, [(41, delivery(9)), (42, lease(2)), (43, lease(3))]);
}

#[test]
fn a_machines_credentials_are_not_readable_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut report = delivery(1);
    if let Report::Passed { request, .. } = &mut report {
        request.headers.push((
            "authorization".into(),
            "OAuth oauth_signature=planted-secret".into(),
        ));
        request.body = bytes::Bytes::from_static(b"power_pass=planted-secret");
    }
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    journal
        .append(std::slice::from_ref(&report), Durability::Disk)
        .unwrap();
    journal.welcome(0).unwrap();
    let batch = next(&mut journal).unwrap();
    assert_eq!(batch.reports, [report]);
    journal.set_aside(&batch).unwrap();
    for (secret, encoded) in [
        ("planted-secret", "cGxhbnRlZC1zZWNyZXQ"),
        ("power_pass", "cG93ZXJfcGFzc"),
    ] {
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(secret) && !text.contains(encoded), "{text}");
        }
    }
}

#[test]
fn what_the_region_has_stored_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    journal.welcome(0).unwrap();
    for i in 1..=5 {
        journal.append(&[delivery(i)], Durability::Disk).unwrap();
    }
    drop(journal); // before the answers of the region arrived
    let (mut journal, left) = Journal::open(dir.path().into()).unwrap();
    assert_eq!(left.batches, 5);
    let gone = journal.welcome(3).unwrap();
    let gone: Vec<IpAddr> = gone.iter().map(|k| k.client).collect();
    assert_eq!(gone, [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n])));
    assert_eq!(next(&mut journal).unwrap().number, 4);
    assert_eq!(journal.waiting(), 2);
}

#[test]
fn numbers_go_on_after_the_end_of_the_journal_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    journal.welcome(0).unwrap();
    journal.append(&[lease(1)], Durability::Disk).unwrap();
    // The region has stored seven; the last six never reached this disk.
    journal.welcome(7).unwrap();
    assert_eq!(next(&mut journal), None);
    journal.append(&[lease(2)], Durability::Disk).unwrap();
    assert_eq!(
        next(&mut journal).unwrap(),
        Batch {
            number: 8,
            reports: vec![lease(2)]
        }
    );
}

#[test]
fn a_torn_end_is_cut_off_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    journal.append(&[lease(1)], Durability::Disk).unwrap();
    journal.append(&[lease(2)], Durability::Disk).unwrap();
    drop(journal);
    let segment = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|x| x == "reports"))
        .unwrap();
    let whole = std::fs::read(&segment).unwrap();
    for cut in 1..whole.len() {
        std::fs::write(&segment, &whole[..whole.len() - cut]).unwrap();
        let (mut journal, left) = Journal::open(dir.path().into()).unwrap();
        assert!(left.batches < 2, "cut {cut}");
        journal.append(&[lease(3)], Durability::Disk).unwrap();
        drop(journal);
        let (_, again) = Journal::open(dir.path().into()).unwrap();
        assert_eq!(again.batches, left.batches + 1, "cut {cut}");
        for e in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(e.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn damage_in_the_middle_loses_no_later_segment() {
    let dir = tempfile::tempdir().unwrap();
    for i in 1..=3 {
        // Each run writes a segment of its own.
        let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
        journal
            .append(&[lease(i), note("x")], Durability::Disk)
            .unwrap();
        journal.append(&[lease(i + 10)], Durability::Disk).unwrap();
    }
    let first = dir.path().join("00000000000000000001.reports");
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    journal.welcome(0).unwrap();
    let mut leases = Vec::new();
    while let Some(batch) = next(&mut journal) {
        leases.push(batch.reports[0].clone());
        journal.done(batch.number).unwrap();
    }
    assert_eq!(leases, [lease(2), lease(12), lease(3), lease(13)]);
}

#[test]
fn segments_go_when_their_batches_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path().into()).unwrap();
    journal.welcome(0).unwrap();
    let text = "x".repeat(1 << 20);
    for _ in 0..12 {
        journal.append(&[note(&text)], Durability::Kernel).unwrap();
    }
    let full = journal.bytes();
    assert!(full > 12 << 20);
    while let Some(batch) = next(&mut journal) {
        journal.done(batch.number).unwrap();
    }
    assert!(
        journal.bytes() <= journal::SEGMENT_BYTES,
        "{} left",
        journal.bytes()
    );
    drop(journal);
    // A place that was used is never used again, even with its segment gone.
    let (mut journal, left) = Journal::open(dir.path().into()).unwrap();
    journal.welcome(12).unwrap();
    journal.append(&[lease(1)], Durability::Disk).unwrap();
    assert_eq!(next(&mut journal).unwrap().number, 13, "{left:?}");
}

#[test]
fn alike_entries_fold_and_order_is_kept_around_leases() {
    let mut pending = Pending::default();
    for text in ["a", "b", "a", "a"] {
        pending.add(note(text), Room::Enough);
    }
    pending.add(lease(1), Room::Enough);
    pending.add(note("a"), Room::Enough);
    let (reports, durability, _) = pending.finish();
    assert_eq!(durability, Durability::Disk);
    let counts: Vec<Vec<u32>> = reports
        .iter()
        .map(|r| match r {
            Report::Timeline { entries } => entries.iter().map(|e| e.count).collect(),
            _ => vec![],
        })
        .collect();
    assert_eq!(counts, [vec![3, 1], vec![], vec![1]]);
}

#[test]
fn a_full_spool_drops_the_timeline_counts_it_and_keeps_leases() {
    let mut pending = Pending::default();
    for i in 0..5 {
        pending.add(note("lost"), Room::LeasesOnly);
        pending.add(lease(i), Room::LeasesOnly);
    }
    let (reports, _, _) = pending.finish();
    assert_eq!(
        reports
            .iter()
            .filter(|r| matches!(r, Report::Lease(_)))
            .count(),
        5
    );
    let Some(Report::Timeline { entries }) = reports.last() else {
        panic!("no note of it")
    };
    assert_eq!(
        entries[0].what,
        What::Note {
            text: "5 timeline entries were dropped: the rack's spool was full".into()
        }
    );
}
