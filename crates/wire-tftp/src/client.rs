//! The other side: fetching a file as firmware does. Used by simulated machines and by the tests
//! of this crate.
//!
//! The caller sends the first datagram to port 69, then sticks to the port that the first answer
//! came from.

use std::time::{Duration, Instant};

use crate::limits::{BLKSIZE_DEFAULT, BLKSIZE_MAX, BLKSIZE_MIN};
use crate::netascii::Decoder;
use crate::packet::{ErrorCode, Packet, error_reply};
use crate::request::{Mode, ReadRequest, parse_number};

/// A window of which nothing more comes for this long is acknowledged as far as it came.
const WINDOW_QUIET: Duration = Duration::from_millis(100);
/// In a window, a block that comes again sooner than this after the last packet of ours is a copy
/// made by the network or has crossed with our ACK; answering it would double the traffic.
const REPEAT_QUIET: Duration = Duration::from_millis(50);

/// What to do about the file's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SizeQuestion {
    /// Do not ask.
    #[default]
    No,
    /// Ask and go on.
    Ask,
    /// Ask, then end with ERROR 8, as PXE firmware does before it allocates memory.
    ProbeOnly,
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOptions {
    /// Transfer mode.
    pub mode: Mode,
    /// `blksize` option.
    pub blksize: Option<u16>,
    /// `windowsize` option.
    pub windowsize: Option<u16>,
    /// `timeout` option, in seconds.
    pub timeout_seconds: Option<u16>,
    /// `tsize` option.
    pub size: SizeQuestion,
    /// Time without a packet until the last answer is sent again.
    pub patience: Duration,
    /// How often it is sent again before giving up.
    pub retries_max: u32,
    /// Largest file taken, in bytes.
    pub file_max: u64,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Octet,
            blksize: None,
            windowsize: None,
            timeout_seconds: None,
            size: SizeQuestion::No,
            patience: Duration::from_secs(4),
            retries_max: 5,
            // A kernel with its initrd is a tenth of this.
            file_max: 1 << 30,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchInput<'a> {
    /// A datagram from the server's port.
    Packet(&'a [u8]),
    /// [`Fetch::deadline`] may have passed.
    Timeout,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchAction {
    /// Send this to the server.
    Send(Vec<u8>),
    /// The next bytes of the file.
    Deliver(Vec<u8>),
    /// The file is complete. Keep feeding packets for a moment: the last ACK may have to be
    /// repeated.
    Done(Fetched),
    /// The size, as asked with [`SizeQuestion::ProbeOnly`]; `None` if the server did not tell.
    Probed(Option<u64>),
    /// It did not work.
    Failed(FetchError),
}

/// The account of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes delivered.
    pub bytes: u64,
    /// What the server said in `tsize`.
    pub size_told: Option<u64>,
    /// Block size used.
    pub blksize: u16,
    /// Window used.
    pub windowsize: u16,
}

/// Why a fetch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The server sent an ERROR.
    #[error("the server answered with error {}: {message:?}", u16::from(*code))]
    Server {
        /// Its code.
        code: ErrorCode,
        /// Its words.
        message: String,
    },
    /// The OACK contains something that was not asked for or is out of range.
    #[error("the server's option {0:?} is not acceptable")]
    Option(String),
    /// Nothing came.
    #[error("the server did not answer")]
    NoAnswer,
    /// The file is larger than [`FetchOptions::file_max`].
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asking,
    Receiving,
    Complete,
    Failed,
}

/// One fetch.
#[derive(Debug)]
pub struct Fetch {
    options: FetchOptions,
    phase: Phase,
    blksize: u16,
    windowsize: u16,
    size_told: Option<u64>,
    /// Blocks received in order.
    received: u64,
    /// Blocks received since the last ACK.
    unacked: u16,
    /// Whether the gap after `received` was reported.
    gap_reported: bool,
    bytes: u64,
    decoder: Decoder,
    last_sent: Vec<u8>,
    last_sent_at: Instant,
    retries: u32,
    deadline: Option<Instant>,
}

impl Fetch {
    /// Asks for `filename`, sent as it is.
    #[must_use]
    pub fn start(filename: &str, options: FetchOptions, now: Instant) -> (Self, Vec<FetchAction>) {
        let mut asked: Vec<(String, String)> = Vec::new();
        // The order of most PXE ROMs.
        if options.size != SizeQuestion::No {
            asked.push(("tsize".into(), "0".into()));
        }
        let numbers = [
            ("blksize", options.blksize),
            ("timeout", options.timeout_seconds),
            ("windowsize", options.windowsize),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                asked.push((name.into(), value.to_string()));
            }
        }
        let request = ReadRequest {
            filename: filename.to_owned(),
            mode: options.mode,
            options: asked,
        };
        let mut fetch = Self {
            options,
            phase: Phase::Asking,
            blksize: BLKSIZE_DEFAULT,
            windowsize: 1,
            size_told: None,
            received: 0,
            unacked: 0,
            gap_reported: false,
            bytes: 0,
            decoder: Decoder::default(),
            last_sent: Vec::new(),
            last_sent_at: now,
            retries: 0,
            deadline: None,
        };
        let mut actions = Vec::new();
        fetch.send(request.encode(), now, &mut actions);
        (fetch, actions)
    }

    /// When to come back with [`FetchInput::Timeout`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes one input.
    pub fn handle(&mut self, input: FetchInput<'_>, now: Instant) -> Vec<FetchAction> {
        let mut actions = Vec::new();
        match (self.phase, input) {
            (Phase::Failed, _) | (Phase::Complete, FetchInput::Timeout) => {}
            (Phase::Complete, FetchInput::Packet(datagram)) => {
                // The server has not seen the last ACK.
                if let Ok(Packet::Data { block, .. }) = Packet::parse(datagram)
                    && block == self.wire_received()
                {
                    actions.push(FetchAction::Send(self.last_sent.clone()));
                }
            }
            (Phase::Asking | Phase::Receiving, FetchInput::Packet(datagram)) => {
                self.on_packet(datagram, now, &mut actions);
            }
            (Phase::Asking | Phase::Receiving, FetchInput::Timeout) => {
                if self.deadline.is_none_or(|deadline| now < deadline) {
                    return actions;
                }
                if self.unacked > 0 {
                    self.ack(now, &mut actions);
                } else if self.retries >= self.options.retries_max {
                    self.fail(FetchError::NoAnswer, &mut actions);
                } else {
                    self.retries = self.retries.saturating_add(1);
                    self.send(self.last_sent.clone(), now, &mut actions);
                }
            }
        }
        actions
    }

    fn on_packet(&mut self, datagram: &[u8], now: Instant, actions: &mut Vec<FetchAction>) {
        match Packet::parse(datagram) {
            Ok(Packet::OptionAck(options)) => {
                if self.phase == Phase::Asking {
                    self.on_options(&options, now, actions);
                } else if self.received == 0 {
                    // Our ACK 0 got lost.
                    self.ack(now, actions);
                }
            }
            Ok(Packet::Data { block, data }) => {
                if self.phase == Phase::Asking {
                    // A server without options. PXE firmware then goes on without the size.
                    if self.options.size == SizeQuestion::ProbeOnly {
                        self.probed(actions);
                        return;
                    }
                    self.phase = Phase::Receiving;
                }
                self.on_data(block, data, now, actions);
            }
            Ok(Packet::Error { code, message }) => {
                let message = String::from_utf8_lossy(message).into_owned();
                self.fail(FetchError::Server { code, message }, actions);
            }
            Ok(Packet::Request(_) | Packet::Ack { .. }) | Err(_) => {}
        }
    }

    fn on_options(
        &mut self,
        options: &[(&[u8], &[u8])],
        now: Instant,
        actions: &mut Vec<FetchAction>,
    ) {
        for (name, value) in options {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let value = str::from_utf8(value).ok().and_then(parse_number);
            let small = value.and_then(|value| u16::try_from(value).ok());
            let fine = match name.as_str() {
                "blksize" => match (self.options.blksize, small) {
                    (Some(asked), Some(told))
                        if told <= asked && (BLKSIZE_MIN..=BLKSIZE_MAX).contains(&told) =>
                    {
                        self.blksize = told;
                        true
                    }
                    _ => false,
                },
                "windowsize" => match (self.options.windowsize, small) {
                    (Some(asked), Some(told)) if told <= asked && told > 0 => {
                        self.windowsize = told;
                        true
                    }
                    _ => false,
                },
                "timeout" => {
                    self.options.timeout_seconds.is_some() && small == self.options.timeout_seconds
                }
                "tsize" => {
                    self.size_told = value;
                    self.options.size != SizeQuestion::No && value.is_some()
                }
                _ => false,
            };
            if !fine {
                actions.push(FetchAction::Send(error_reply(
                    ErrorCode::OptionsRefused,
                    "option not acceptable",
                )));
                self.fail(FetchError::Option(name), actions);
                return;
            }
        }
        if self.options.size == SizeQuestion::ProbeOnly {
            self.probed(actions);
        } else if let Some(size) = self.size_told.filter(|&size| size > self.options.file_max) {
            self.too_large(size, actions);
        } else {
            self.phase = Phase::Receiving;
            self.ack(now, actions);
        }
    }

    fn on_data(&mut self, block: u16, data: &[u8], now: Instant, actions: &mut Vec<FetchAction>) {
        let ahead = block.wrapping_sub(self.wire_received());
        if ahead != 1 {
            // 0: the last block again, its ACK got lost. Larger: something before it is missing,
            // said once per gap (RFC 7440 §4). In the upper half: an older block, of no interest.
            let windowed = self.windowsize > 1;
            let quiet = now.saturating_duration_since(self.last_sent_at) >= REPEAT_QUIET;
            let repeated = ahead == 0 && self.received > 0 && (quiet || !windowed);
            let gap = ahead > 1 && ahead <= self.windowsize && windowed && !self.gap_reported;
            if repeated || gap {
                self.gap_reported = gap || self.gap_reported;
                self.ack(now, actions);
            }
            return;
        }
        if data.len() > usize::from(self.blksize) {
            return;
        }
        self.received = self.received.saturating_add(1);
        self.unacked = self.unacked.saturating_add(1);
        self.gap_reported = false;
        self.retries = 0;
        let last = data.len() < usize::from(self.blksize);
        let mut bytes = match self.options.mode {
            Mode::Octet => data.to_vec(),
            Mode::Netascii => self.decoder.decode(data),
        };
        if last && self.options.mode == Mode::Netascii {
            bytes.extend_from_slice(self.decoder.finish());
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.options.file_max {
            self.too_large(self.options.file_max, actions);
            return;
        }
        if !bytes.is_empty() {
            actions.push(FetchAction::Deliver(bytes));
        }
        if last || self.unacked >= self.windowsize {
            self.ack(now, actions);
        } else {
            self.deadline = now.checked_add(self.options.patience.min(WINDOW_QUIET));
        }
        if last {
            self.phase = Phase::Complete;
            self.deadline = None;
            actions.push(FetchAction::Done(Fetched {
                bytes: self.bytes,
                size_told: self.size_told,
                blksize: self.blksize,
                windowsize: self.windowsize,
            }));
        }
    }

    fn probed(&mut self, actions: &mut Vec<FetchAction>) {
        actions.push(FetchAction::Send(error_reply(
            ErrorCode::OptionsRefused,
            "only the size was wanted",
        )));
        actions.push(FetchAction::Probed(self.size_told));
        self.phase = Phase::Failed;
        self.deadline = None;
    }

    fn too_large(&mut self, size: u64, actions: &mut Vec<FetchAction>) {
        actions.push(FetchAction::Send(error_reply(
            ErrorCode::DiskFull,
            "the file is too large",
        )));
        self.fail(FetchError::TooLarge(size), actions);
    }

    fn ack(&mut self, now: Instant, actions: &mut Vec<FetchAction>) {
        self.unacked = 0;
        self.send(
            Packet::Ack {
                block: self.wire_received(),
            }
            .encode(),
            now,
            actions,
        );
    }

    fn send(&mut self, datagram: Vec<u8>, now: Instant, actions: &mut Vec<FetchAction>) {
        self.last_sent.clone_from(&datagram);
        self.last_sent_at = now;
        self.deadline = now.checked_add(self.options.patience);
        actions.push(FetchAction::Send(datagram));
    }

    fn fail(&mut self, error: FetchError, actions: &mut Vec<FetchAction>) {
        self.phase = Phase::Failed;
        self.deadline = None;
        actions.push(FetchAction::Failed(error));
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the wire carries the lower 16 bits"
    )]
    fn wire_received(&self) -> u16 {
        self.received as u16
    }
}
