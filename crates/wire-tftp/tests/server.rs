//! The server's answers, packet by packet.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use wire_tftp::client::{Fetch, FetchAction, FetchError, FetchInput, FetchOptions, SizeQuestion};
use wire_tftp::{
    Action, ErrorCode, FailReason, Input, Limits, Packet, ReadRequest, Transfer, error_reply,
};

fn request(text: &[u8]) -> ReadRequest {
    ReadRequest::parse(text).unwrap()
}

fn ack(block: u16) -> Vec<u8> {
    Packet::Ack { block }.encode()
}

fn data(block: u16, data: &[u8]) -> Action {
    Action::Send(Packet::Data { block, data }.encode())
}

struct Server {
    transfer: Transfer,
    now: Instant,
}

impl Server {
    fn begin(text: &[u8], size: u64) -> (Self, Vec<Action>) {
        let now = Instant::now();
        let (transfer, actions) = Transfer::begin(&request(text), size, &Limits::default(), now);
        (Self { transfer, now }, actions)
    }
    fn packet(&mut self, datagram: &[u8]) -> Vec<Action> {
        self.transfer.handle(Input::Packet(datagram), self.now)
    }
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Vec<Action> {
        self.transfer
            .handle(Input::Data { offset, bytes }, self.now)
    }
    /// Lets the deadline pass; says how long that took.
    fn silence(&mut self) -> (Duration, Vec<Action>) {
        let deadline = self.transfer.deadline().expect("a timer runs");
        let waited = deadline - self.now;
        self.now = deadline;
        (waited, self.transfer.handle(Input::Timeout, self.now))
    }
}

#[test]
fn options_are_answered_in_the_clients_order_and_spelling() {
    let (server, actions) = Server::begin(
        b"\x00\x01f\0octet\0tsize\x000\0blkSize\x0065464\0multicast\0\0windowsize\x0065535\0timeout\x003\0", 1234,
    );
    assert_eq!(
        actions,
        [Action::Send(
            b"\x00\x06tsize\x001234\0blkSize\x001468\0windowsize\x0064\0timeout\x003\0".to_vec()
        )]
    );
    let negotiated = server.transfer.negotiated();
    assert_eq!((negotiated.blksize, negotiated.windowsize), (1468, 64));
    assert_eq!(negotiated.timeout, Some(Duration::from_secs(3)));
}

#[test]
fn options_out_of_range_are_left_out_and_the_transfer_starts_plainly() {
    let (_, actions) = Server::begin(
        b"\x00\x01f\0octet\0blksize\x007\0timeout\x000\0windowsize\x000\0tsize\0x\0blksize\0-1\0",
        5,
    );
    // `tsize` is answered whatever its value is; everything else is as if it had not been asked.
    assert_eq!(actions, [Action::Send(b"\x00\x06tsize\x005\0".to_vec())]);
    let (_, actions) = Server::begin(b"\x00\x01f\0octet\0blksize\x007\0utimeout\x005\0", 5);
    assert_eq!(actions, [Action::Read { offset: 0, len: 5 }]);
}

#[test]
fn an_empty_file_is_one_empty_block() {
    let (mut server, actions) = Server::begin(b"\x00\x01f\0octet\0", 0);
    assert_eq!(actions, [data(1, b"")]);
    let end = server.packet(&ack(1));
    assert!(
        matches!(&end[..], [Action::Done(summary)] if summary.bytes == 0 && summary.blocks == 1),
        "{end:?}"
    );
}

#[test]
fn a_file_of_whole_blocks_ends_with_an_empty_one() {
    let (mut server, actions) = Server::begin(b"\x00\x01f\0octet\0", 1024);
    assert_eq!(
        actions,
        [Action::Read {
            offset: 0,
            len: 512
        }]
    );
    assert_eq!(server.data(0, &[1; 512]), [data(1, &[1; 512])]);
    assert_eq!(
        server.packet(&ack(1)),
        [Action::Read {
            offset: 512,
            len: 512
        }]
    );
    assert_eq!(server.data(512, &[2; 512]), [data(2, &[2; 512])]);
    assert_eq!(server.packet(&ack(2)), [data(3, b"")]);
    assert!(matches!(server.packet(&ack(3))[..], [Action::Done(_)]));
}

#[test]
fn a_size_probe_is_no_failure() {
    for code in [ErrorCode::OptionsRefused, ErrorCode::NotDefined] {
        let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0tsize\x000\0blksize\x001408\0", 77);
        let end = server.packet(&error_reply(code, "TFTP Aborted"));
        assert!(matches!(end[..], [Action::Probed(_)]), "{end:?}");
        assert!(server.transfer.is_finished() && server.transfer.deadline().is_none());
    }
}

#[test]
fn a_client_that_gives_up_later_or_for_another_reason_is_a_failure() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0tsize\x000\0", 600);
    server.packet(&ack(0));
    server.data(0, &[0; 512]);
    let end = server.packet(&error_reply(ErrorCode::NotDefined, "User\naborted"));
    let [Action::Failed { reason, .. }] = &end[..] else {
        panic!("{end:?}")
    };
    assert_eq!(
        *reason,
        FailReason::Client {
            code: ErrorCode::NotDefined,
            message: "User aborted".into()
        }
    );

    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0tsize\x000\0", 600);
    assert!(matches!(
        server.packet(&error_reply(ErrorCode::DiskFull, "x"))[..],
        [Action::Failed { .. }]
    ));
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0blksize\x001408\0", 600);
    assert!(matches!(
        server.packet(&error_reply(ErrorCode::OptionsRefused, "x"))[..],
        [Action::Failed { .. }]
    ));
}

#[test]
fn a_repeated_ack_in_lockstep_sends_nothing() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0", 2000);
    server.data(0, &[0; 512]);
    server.packet(&ack(1));
    server.data(512, &[0; 512]);
    assert_eq!(server.packet(&ack(1)), []);
    assert_eq!(server.packet(&ack(0)), []);
    assert_eq!(server.packet(&ack(3)), []);
    assert_eq!(server.packet(b"\x00\x03\x00\x01x"), []);
    assert_eq!(server.packet(b"\x00\x63"), []);
    let end = server.transfer.abort("stopping", server.now);
    let [
        Action::Send(_),
        Action::Failed {
            reason: FailReason::Aborted,
            summary,
        },
    ] = &end[..]
    else {
        panic!("{end:?}")
    };
    assert_eq!(
        (summary.ignored.duplicate_acks, summary.ignored.stray_acks),
        (1, 2)
    );
    assert_eq!(
        (summary.ignored.unexpected, summary.ignored.malformed),
        (1, 1)
    );
}

#[test]
fn a_lost_block_in_a_window_is_sent_again_from_there() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0windowsize\x004\0", 512 * 8);
    assert_eq!(
        server.packet(&ack(0)),
        [Action::Read {
            offset: 0,
            len: 2048
        }]
    );
    assert_eq!(server.data(0, &[7; 2048]).len(), 4);
    // Block 3 is missing: the window moves to 3..=6, only 5 and 6 must be read.
    assert_eq!(
        server.packet(&ack(2)),
        [Action::Read {
            offset: 2048,
            len: 1024
        }]
    );
    let sent = server.data(2048, &[8; 1024]);
    assert_eq!(
        sent,
        [
            data(3, &[7; 512]),
            data(4, &[7; 512]),
            data(5, &[8; 512]),
            data(6, &[8; 512])
        ]
    );
    // Block 3 missing again, said twice: answered once, and only when no progress comes meanwhile.
    assert_eq!(server.packet(&ack(2)), []);
    assert_eq!(server.packet(&ack(2)), []);
    assert_eq!(server.silence(), (Duration::from_millis(20), sent.clone()));
    assert_eq!(server.packet(&ack(2)), []);
    assert_eq!(server.silence(), (Duration::from_secs(1), sent));
}

#[test]
fn progress_after_a_repeated_ack_sends_nothing_twice() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0windowsize\x002\0", 512 * 4);
    server.packet(&ack(0));
    server.data(0, &[7; 1024]);
    assert_eq!(server.packet(&ack(0)), []);
    assert_eq!(
        server.packet(&ack(2)),
        [Action::Read {
            offset: 1024,
            len: 1024
        }]
    );
    assert_eq!(
        server.data(1024, &[8; 1024]),
        [data(3, &[8; 512]), data(4, &[8; 512])]
    );
    assert_eq!(
        server.transfer.deadline(),
        Some(server.now + Duration::from_secs(1))
    );
}

#[test]
fn silence_is_met_with_a_bounded_number_of_repeats() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0", 600);
    let sent = server.data(0, &[9; 512]);
    assert_eq!(
        server.transfer.handle(Input::Timeout, server.now),
        [],
        "nothing before its time"
    );
    let mut waits = Vec::new();
    let end = loop {
        let (waited, actions) = server.silence();
        waits.push(waited.as_secs());
        if actions != sent {
            break actions;
        }
    };
    assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
    let [
        Action::Failed {
            reason: FailReason::NoAnswer { blocks: 0 },
            summary,
        },
    ] = &end[..]
    else {
        panic!("{end:?}")
    };
    assert_eq!(
        (summary.retransmits, summary.duration),
        (5, Duration::from_secs(31))
    );
}

#[test]
fn the_clients_timeout_is_kept_to() {
    let (mut server, first) = Server::begin(b"\x00\x01f\0octet\0timeout\x005\0", 600);
    for _ in 0..5 {
        assert_eq!(server.silence(), (Duration::from_secs(5), first.clone()));
    }
    assert!(matches!(
        server.silence().1[..],
        [Action::Failed {
            reason: FailReason::NoAnswer { .. },
            ..
        }]
    ));
}

#[test]
fn a_missing_last_ack_has_its_own_reason() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0", 3);
    server.data(0, b"abc");
    let end = (0..6).map(|_| server.silence().1).last().unwrap();
    assert!(
        matches!(
            end[..],
            [Action::Failed {
                reason: FailReason::LastAckMissing,
                ..
            }]
        ),
        "{end:?}"
    );
}

#[test]
fn a_file_that_shrinks_or_fails_ends_the_transfer_with_an_error() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0", 600);
    let end = server.data(0, b"short");
    assert!(
        matches!(&end[..], [Action::Send(error), Action::Failed { reason: FailReason::FileShrank, .. }] if error[1] == 5)
    );
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0", 600);
    let end = server.transfer.handle(Input::ReadFailed, server.now);
    assert!(
        matches!(&end[..], [Action::Send(error), Action::Failed { reason: FailReason::ReadFailed, .. }] if error[1] == 5)
    );
    assert_eq!(server.packet(&ack(1)), [], "nothing after the end");
}

#[test]
fn data_that_was_not_asked_for_changes_nothing() {
    let (mut server, _) = Server::begin(b"\x00\x01f\0octet\0", 600);
    assert_eq!(server.data(512, &[0; 88]), []);
    assert_eq!(
        server.data(0, &[1; 600]),
        [data(1, &[1; 512])],
        "more than asked for is not used"
    );
    assert_eq!(server.data(0, &[1; 512]), []);
}

#[test]
fn the_client_probes_as_firmware_does() {
    let now = Instant::now();
    let options = FetchOptions {
        size: SizeQuestion::ProbeOnly,
        blksize: Some(1408),
        ..FetchOptions::default()
    };
    let (mut client, first) = Fetch::start("pxe.0", options, now);
    assert_eq!(
        first,
        [FetchAction::Send(
            b"\x00\x01pxe.0\0octet\0tsize\x000\0blksize\x001408\0".to_vec()
        )]
    );
    let end = client.handle(FetchInput::Packet(b"\x00\x06tsize\x0099\0"), now);
    assert!(
        matches!(&end[..], [FetchAction::Send(error), FetchAction::Probed(Some(99))] if error[..4] == [0, 5, 0, 8])
    );
}

#[test]
fn the_client_refuses_options_it_did_not_ask_for() {
    let now = Instant::now();
    for (options, answer) in [
        (FetchOptions::default(), &b"\x00\x06blksize\x001408\0"[..]),
        (
            FetchOptions {
                blksize: Some(1000),
                ..FetchOptions::default()
            },
            b"\x00\x06blksize\x001001\0",
        ),
        (
            FetchOptions {
                windowsize: Some(4),
                ..FetchOptions::default()
            },
            b"\x00\x06windowsize\x000\0",
        ),
        (
            FetchOptions {
                timeout_seconds: Some(4),
                ..FetchOptions::default()
            },
            b"\x00\x06timeout\x005\0",
        ),
        (FetchOptions::default(), b"\x00\x06multicast\0x\0"),
    ] {
        let (mut client, _) = Fetch::start("f", options, now);
        let end = client.handle(FetchInput::Packet(answer), now);
        assert!(
            matches!(
                end[..],
                [
                    FetchAction::Send(_),
                    FetchAction::Failed(FetchError::Option(_))
                ]
            ),
            "{end:?}"
        );
    }
}

#[test]
fn the_client_is_bounded_in_size_and_patience() {
    let now = Instant::now();
    let options = FetchOptions {
        file_max: 1000,
        retries_max: 2,
        ..FetchOptions::default()
    };
    let (mut client, _) = Fetch::start("f", options.clone(), now);
    client.handle(
        FetchInput::Packet(
            &Packet::Data {
                block: 1,
                data: &[0; 512],
            }
            .encode(),
        ),
        now,
    );
    let end = client.handle(
        FetchInput::Packet(
            &Packet::Data {
                block: 2,
                data: &[0; 512],
            }
            .encode(),
        ),
        now,
    );
    assert!(
        matches!(
            end[..],
            [
                FetchAction::Send(_),
                FetchAction::Failed(FetchError::TooLarge(1000))
            ]
        ),
        "{end:?}"
    );

    let (mut client, first) = Fetch::start("f", options, now);
    for _ in 0..2 {
        assert_eq!(
            client.handle(FetchInput::Timeout, client.deadline().unwrap()),
            first
        );
    }
    let end = client.handle(FetchInput::Timeout, client.deadline().unwrap());
    assert_eq!(end, [FetchAction::Failed(FetchError::NoAnswer)]);
}

#[derive(Debug, Clone)]
enum Event {
    Bytes(Vec<u8>),
    Ack(u16),
    Data(bool),
    ReadFailed,
    Silence(u16),
}

proptest! {
    #[test]
    fn no_sequence_of_inputs_makes_the_server_panic_or_run_away(
        blksize in proptest::option::of(0u32..70000), windowsize in proptest::option::of(0u32..70000),
        tsize: bool, netascii: bool, size in prop_oneof![0u64..5000, Just(u64::MAX)],
        events in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Event::Bytes),
            (0u16..20).prop_map(Event::Ack),
            any::<u16>().prop_map(Event::Ack),
            proptest::bool::weighted(0.9).prop_map(Event::Data),
            Just(Event::ReadFailed),
            (0u16..9000).prop_map(Event::Silence),
        ], 0..100),
    ) {
        let mut text = format!("f\0{}\0", if netascii { "netascii" } else { "octet" });
        for (name, value) in [("blksize", blksize), ("windowsize", windowsize), ("tsize", tsize.then_some(0))] {
            if let Some(value) = value {
                text += &format!("{name}\0{value}\0");
            }
        }
        let mut now = Instant::now();
        let limits = Limits::default();
        let request = request(&[b"\x00\x01", text.as_bytes()].concat());
        let (mut transfer, mut actions) = Transfer::begin(&request, size, &limits, now);
        let window = usize::from(limits.blksize_max) * usize::from(limits.windowsize_max);
        let mut wanted = None;
        for event in events {
            let finished = transfer.is_finished();
            prop_assert!(actions.len() <= usize::from(limits.windowsize_max) + 1);
            for action in &actions {
                if let Action::Read { offset, len } = action {
                    prop_assert!(*len > 0 && *len <= window && offset + *len as u64 <= size);
                    wanted = Some((*offset, *len));
                }
            }
            actions = match event {
                Event::Bytes(bytes) => transfer.handle(Input::Packet(&bytes), now),
                Event::Ack(block) => transfer.handle(Input::Packet(&ack(block)), now),
                Event::Data(enough) => {
                    let (offset, len) = wanted.unwrap_or((0, 3));
                    let bytes = vec![b'\n'; if enough { len } else { len - 1 }];
                    transfer.handle(Input::Data { offset, bytes: &bytes }, now)
                }
                Event::ReadFailed => transfer.handle(Input::ReadFailed, now),
                Event::Silence(millis) => {
                    now += Duration::from_millis(u64::from(millis));
                    transfer.handle(Input::Timeout, now)
                }
            };
            if finished {
                prop_assert!(actions.is_empty());
            }
        }
    }

    #[test]
    fn no_bytes_make_the_client_panic(
        packets in proptest::collection::vec((0u8..7, proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
        windowsize in proptest::option::of(1u16..10),
    ) {
        let now = Instant::now();
        let (mut client, _) = Fetch::start("f", FetchOptions { windowsize, ..FetchOptions::default() }, now);
        for (opcode, rest) in packets {
            client.handle(FetchInput::Packet(&[&[0, opcode], rest.as_slice()].concat()), now);
        }
    }
}
