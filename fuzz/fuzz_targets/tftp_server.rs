//! A request and whatever a client may send after it.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use wire_tftp::client::{Fetch, FetchInput, FetchOptions, SizeQuestion};
use wire_tftp::{Action, Input, Limits, Packet, ReadRequest, Transfer};

/// Takes `N` bytes off the front.
fn take<'a>(data: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, tail) = data.split_at(len.min(data.len()));
    *data = tail;
    head
}

fn byte(data: &mut &[u8]) -> u8 {
    take(data, 1).first().copied().unwrap_or(0)
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let start = Instant::now();
    let len = usize::from(byte(&mut data));
    let first = take(&mut data, len);
    ReadRequest::parse(first).ok();
    Packet::parse(first).ok();
    let request = [b"\x00\x01f\0octet\0", first].concat();
    let Ok(request) = ReadRequest::parse(&request) else {
        return;
    };
    assert!(
        request
            .filename
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."))
    );
    assert_eq!(ReadRequest::parse(&request.encode()).as_ref(), Ok(&request));

    let size = u64::from(byte(&mut data)) * 97;
    let limits = Limits::default();
    let mut now = start;
    let (mut transfer, mut actions) = Transfer::begin(&request, size, &limits, now);
    let options = FetchOptions {
        blksize: Some(512),
        windowsize: Some(4),
        timeout_seconds: Some(1),
        size: SizeQuestion::Ask,
        ..FetchOptions::default()
    };
    let (mut client, _) = Fetch::start("f", options, now);
    let mut wanted = (0, 1);
    while !data.is_empty() {
        for action in &actions {
            if let Action::Read { offset, len } = action {
                assert!(*len > 0 && offset + *len as u64 <= size);
                wanted = (*offset, *len);
            }
        }
        let kind = byte(&mut data);
        let len = usize::from(byte(&mut data)) % 64;
        let bytes = take(&mut data, len);
        client.handle(FetchInput::Packet(bytes), now);
        actions = match kind % 5 {
            0 => transfer.handle(Input::Packet(bytes), now),
            1 => transfer.handle(
                Input::Packet(
                    &Packet::Ack {
                        block: u16::from(kind / 5),
                    }
                    .encode(),
                ),
                now,
            ),
            2 => transfer.handle(
                Input::Data {
                    offset: wanted.0,
                    bytes: &vec![b'\n'; wanted.1],
                },
                now,
            ),
            3 => transfer.handle(
                Input::Data {
                    offset: wanted.0,
                    bytes,
                },
                now,
            ),
            _ => {
                now += Duration::from_millis(u64::from(kind) * 40);
                client.handle(FetchInput::Timeout, now);
                transfer.handle(Input::Timeout, now)
            }
        };
        assert!(actions.len() <= usize::from(limits.windowsize_max) + 1);
    }
});
