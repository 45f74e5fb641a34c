//! Server and client joined by a network that loses, doubles and reorders datagrams. Time is
//! simulated.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use wire_tftp::client::{Fetch, FetchAction, FetchInput, FetchOptions, Fetched, SizeQuestion};
use wire_tftp::{Action, Input, Limits, Mode, ReadRequest, Summary, Transfer};

/// Most datagrams a run may take before it counts as a livelock.
const DATAGRAMS_MAX: usize = 2_000_000;

#[derive(Debug, Clone, Copy)]
struct Network {
    /// Out of 1000.
    loss: u32,
    duplication: u32,
    reordering: u32,
    seed: u64,
}

const PERFECT: Network = Network {
    loss: 0,
    duplication: 0,
    reordering: 0,
    seed: 1,
};

impl Network {
    fn chance(&mut self, per_mille: u32) -> bool {
        // xorshift64*
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        let value = self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        (value % 1000) < u64::from(per_mille)
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Server,
    Client,
}

/// Arrival, number (keeps the order of equals), receiver, bytes.
type InFlight = Reverse<(Duration, usize, To, Vec<u8>)>;

struct Run {
    file: Vec<u8>,
    fetched: Fetched,
    summary: Option<Summary>,
    datagrams: usize,
}

/// Runs one fetch to its end, and the server until it is finished too.
fn run(file: &[u8], options: FetchOptions, limits: &Limits, mut network: Network) -> Run {
    let start = Instant::now();
    let mut now = Duration::ZERO;
    let mut queue: BinaryHeap<InFlight> = BinaryHeap::new();
    let mut datagrams = 0usize;
    let mut put = |queue: &mut BinaryHeap<_>,
                   now: Duration,
                   to: fn() -> To,
                   bytes: Vec<u8>,
                   datagrams: &mut usize| {
        let copies = if network.chance(network.loss) {
            0
        } else {
            1 + usize::from(network.chance(network.duplication))
        };
        for _ in 0..copies {
            let late = if network.chance(network.reordering) {
                3500
            } else {
                500
            };
            *datagrams += 1;
            queue.push(Reverse((
                now + Duration::from_micros(late),
                *datagrams,
                to(),
                bytes.clone(),
            )));
        }
    };

    let mut server: Option<Transfer> = None;
    let mut summary = None;
    let mut received = Vec::new();
    let mut fetched = None;
    let (mut client, first) = Fetch::start("file", options, start);
    let mut client_actions = first;
    let mut server_actions: Vec<Action> = Vec::new();
    loop {
        for action in std::mem::take(&mut client_actions) {
            match action {
                FetchAction::Send(bytes) => {
                    put(&mut queue, now, || To::Server, bytes, &mut datagrams)
                }
                FetchAction::Deliver(bytes) => received.extend(bytes),
                FetchAction::Done(done) => assert!(fetched.replace(done).is_none(), "done twice"),
                other => panic!("{other:?}"),
            }
        }
        while !server_actions.is_empty() {
            for action in std::mem::take(&mut server_actions) {
                match action {
                    Action::Send(bytes) => {
                        put(&mut queue, now, || To::Client, bytes, &mut datagrams)
                    }
                    Action::Read { offset, len } => {
                        let from = usize::try_from(offset).unwrap();
                        let bytes = &file[from..from + len];
                        server_actions = server
                            .as_mut()
                            .unwrap()
                            .handle(Input::Data { offset, bytes }, start + now);
                    }
                    Action::Done(done) => summary = Some(done),
                    Action::Failed {
                        reason: wire_tftp::FailReason::LastAckMissing,
                        ..
                    } if fetched.is_some() => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(datagrams < DATAGRAMS_MAX, "no end");
        let server_over = server.as_ref().is_some_and(Transfer::is_finished);
        if fetched.is_some() && server_over && queue.is_empty() {
            break;
        }
        let timers = [
            client.deadline(),
            server.as_ref().and_then(Transfer::deadline),
        ];
        let timer = timers.into_iter().flatten().min().map(|at| at - start);
        let packet = queue.peek().map(|Reverse((at, ..))| *at);
        match (packet, timer) {
            (Some(at), timer) if timer.is_none_or(|timer| at <= timer) => {
                let Reverse((at, _, to, bytes)) = queue.pop().unwrap();
                now = now.max(at);
                match (to, &mut server) {
                    (To::Client, _) => {
                        client_actions = client.handle(FetchInput::Packet(&bytes), start + now)
                    }
                    (To::Server, Some(server)) => {
                        // A doubled request reaches the listening port, where the rack knows that
                        // this client is being served.
                        if bytes[..2] != [0, 1] {
                            server_actions = server.handle(Input::Packet(&bytes), start + now);
                        }
                    }
                    (To::Server, none) => {
                        let request = ReadRequest::parse(&bytes).unwrap();
                        let (transfer, actions) =
                            Transfer::begin(&request, file.len() as u64, limits, start + now);
                        *none = Some(transfer);
                        server_actions = actions;
                    }
                }
            }
            (_, Some(at)) => {
                now = now.max(at);
                client_actions = client.handle(FetchInput::Timeout, start + now);
                if let Some(server) = &mut server {
                    server_actions = server.handle(Input::Timeout, start + now);
                }
            }
            (None, None) => panic!("nothing left to happen: fetched {fetched:?}"),
            (Some(_), None) => unreachable!("covered by the guard"),
        }
    }
    Run {
        file: received,
        fetched: fetched.unwrap(),
        summary,
        datagrams,
    }
}

fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Many line ends, for netascii.
            match state % 7 {
                0 => b'\r',
                1 => b'\n',
                _ => state.to_le_bytes()[3],
            }
        })
        .collect()
}

fn patient() -> (FetchOptions, Limits) {
    let options = FetchOptions {
        patience: Duration::from_secs(3),
        retries_max: 200,
        ..FetchOptions::default()
    };
    (
        options,
        Limits {
            retries_max: 200,
            blksize_max: 65464,
            ..Limits::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_exact_file_arrives_over_a_bad_network_with_every_option(
        blksize in proptest::option::of(prop_oneof![Just(8u16), 9u16..600, Just(1468), Just(65464)]),
        windowsize in proptest::option::of(prop_oneof![Just(1u16), 2u16..20, Just(64), Just(65535)]),
        timeout_seconds in proptest::option::of(prop_oneof![1u16..5, Just(255)]),
        ask_size: bool,
        netascii: bool,
        blocks in 0usize..40,
        odd in prop_oneof![Just(0usize), Just(1), 0usize..512],
        loss in 0u32..250, duplication in 0u32..250, reordering in 0u32..250,
        seed in 1u64..,
    ) {
        let (options, limits) = patient();
        let size = blocks * usize::from(blksize.unwrap_or(512)).min(1468) + odd;
        let file = content(size, seed);
        let mode = if netascii { Mode::Netascii } else { Mode::Octet };
        let options = FetchOptions {
            mode, blksize, windowsize, timeout_seconds,
            size: if ask_size { SizeQuestion::Ask } else { SizeQuestion::No },
            ..options
        };
        let run = run(&file, options, &limits, Network { loss, duplication, reordering, seed });
        prop_assert!(run.file == file, "{} bytes for {}", run.file.len(), file.len());
        prop_assert_eq!(run.fetched.bytes, file.len() as u64);
        prop_assert_eq!(run.fetched.blksize, blksize.unwrap_or(512));
        prop_assert_eq!(run.fetched.windowsize, windowsize.unwrap_or(1).min(64));
        prop_assert_eq!(run.fetched.size_told, (ask_size && !netascii).then_some(file.len() as u64));
    }

    #[test]
    fn doubled_datagrams_never_multiply(
        windowsize in proptest::option::of(2u16..10), blocks in 1usize..200, duplication in 0u32..=1000, seed in 1u64..,
    ) {
        let (options, limits) = patient();
        let file = content(blocks * 512, seed);
        let network = Network { loss: 0, duplication, reordering: 0, seed };
        let run = run(&file, FetchOptions { windowsize, ..options }, &limits, network);
        prop_assert!(run.file == file);
        // Each datagram at most twice by the network; nothing is sent again by either side beyond
        // what lockstep demands of the receiver (an ACK for each copy of a block).
        prop_assert_eq!(run.summary.unwrap().retransmits, 0);
        prop_assert!(run.datagrams <= 6 * (blocks + 3), "{} datagrams for {blocks} blocks", run.datagrams);
    }
}

#[test]
fn block_numbers_roll_over_more_than_once() {
    let (options, limits) = patient();
    let file = content(8 * 140_000 + 3, 7);
    let lockstep = run(
        &file,
        FetchOptions {
            blksize: Some(8),
            ..options.clone()
        },
        &limits,
        PERFECT,
    );
    assert!(lockstep.file == file);
    assert_eq!(lockstep.summary.unwrap().blocks, 140_001);
    let lossy = Network {
        loss: 5,
        duplication: 5,
        reordering: 5,
        seed: 3,
    };
    let window = run(
        &file,
        FetchOptions {
            blksize: Some(8),
            windowsize: Some(64),
            ..options
        },
        &limits,
        lossy,
    );
    assert!(window.file == file);
    // One datagram in a hundred goes astray, so that about every second window of 64 has a gap and
    // is sent again from there. More would mean that windows multiply.
    let blocks = 140_001;
    assert!(
        window.datagrams < 2 * blocks,
        "{} datagrams",
        window.datagrams
    );
}

#[test]
fn a_perfect_network_carries_nothing_twice() {
    let (options, limits) = patient();
    let file = content(100 * 1408, 5);
    let options = FetchOptions {
        blksize: Some(1408),
        windowsize: Some(8),
        size: SizeQuestion::Ask,
        ..options
    };
    let run = run(&file, options, &limits, PERFECT);
    let summary = run.summary.unwrap();
    assert_eq!(
        (summary.retransmits, summary.blocks, summary.bytes),
        (0, 101, file.len() as u64)
    );
    assert_eq!(summary.ignored, wire_tftp::IgnoredCounts::default());
    // Request, OACK, ACK 0, 101 blocks, 13 ACKs.
    assert_eq!(run.datagrams, 3 + 101 + 13);
}
