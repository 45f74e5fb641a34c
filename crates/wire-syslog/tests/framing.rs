//! Streams cut into messages.

use proptest::prelude::*;
use wire_syslog::{Framer, MESSAGE_MAX};

fn frames(stream: &[u8], cut: usize) -> Vec<Vec<u8>> {
    let mut framer = Framer::default();
    let mut frames: Vec<_> = stream
        .chunks(cut)
        .flat_map(|part| framer.feed(part))
        .collect();
    frames.extend(framer.finish());
    frames.into_iter().map(|frame| frame.bytes).collect()
}

#[track_caller]
fn check(stream: &[u8], expected: &[&[u8]]) {
    for cut in [1, 2, 3, 7, stream.len().max(1)] {
        assert_eq!(frames(stream, cut), expected, "cut {cut}");
    }
}

#[test]
fn both_framings_are_read_and_may_be_mixed() {
    check(b"<14>one\n<14>two\r\n", &[b"<14>one", b"<14>two\r"]);
    check(b"7 <14>one8 <14>two\n", &[b"<14>one", b"<14>two\n"]);
    check(
        b"7 <14>one\n<14>two\n7 <14>six",
        &[b"<14>one", b"<14>two", b"<14>six"],
    );
    check(b"<14>one\0<14>two\0", &[b"<14>one", b"<14>two"]);
    check(b"11 <14>one\ntwo", &[b"<14>one\ntwo"]);
}

#[test]
fn a_line_that_starts_with_a_number_is_a_line() {
    check(
        b"12 monkeys\n3\n2026-01-01 x\n123456789 <14>x\n0 <14>y\n",
        &[
            b"12 monkeys",
            b"3",
            b"2026-01-01 x",
            b"123456789 <14>x",
            b"0 <14>y",
        ],
    );
}

#[test]
fn an_unfinished_message_is_kept_at_the_end() {
    check(b"100 <14>cut off", &[b"<14>cut off"]);
    check(b"<14>cut off", &[b"<14>cut off"]);
    check(b"10", &[b"10"]);
    check(b"", &[]);
    check(b"\n\n\r\n\0", &[]);
}

#[test]
fn an_endless_message_is_cut_and_the_next_one_found() {
    for ending in ["\n", ""] {
        let long = format!("<14>{}", "x".repeat(MESSAGE_MAX));
        let stream = if ending.is_empty() {
            format!("{} {long}7 <14>two", long.len())
        } else {
            format!("{long}\n<14>two\n")
        };
        let mut framer = Framer::default();
        let mut found: Vec<_> = stream
            .as_bytes()
            .chunks(1000)
            .flat_map(|part| framer.feed(part))
            .collect();
        found.extend(framer.finish());
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].bytes.len(), found[0].truncated),
            (MESSAGE_MAX, true)
        );
        assert_eq!(
            (found[1].bytes.as_slice(), found[1].truncated),
            (&b"<14>two"[..], false)
        );
    }
}

proptest! {
    #[test]
    fn counted_messages_come_back_however_the_stream_is_cut(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10), cut in 1usize..40,
    ) {
        let messages: Vec<Vec<u8>> = messages.into_iter().map(|rest| [b"<14>", rest.as_slice()].concat()).collect();
        let stream: Vec<u8> =
            messages.iter().flat_map(|m| [format!("{} ", m.len()).into_bytes(), m.clone()].concat()).collect();
        prop_assert_eq!(frames(&stream, cut), messages);
    }

    #[test]
    fn how_a_stream_is_cut_does_not_matter(stream in proptest::collection::vec(prop_oneof![
        Just(b'\n'), Just(b' '), Just(b'<'), b'0'..=b'9', any::<u8>()], 0..200), cut in 1usize..50) {
        prop_assert_eq!(frames(&stream, cut), frames(&stream, 1));
    }
}
