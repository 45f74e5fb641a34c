//! The server's side of one transfer.
//!
//! ```text
//!           options granted                    ACK 0
//!  begin ──────────────────▶ Negotiating ─────────────────┐
//!    │ none                    │ ERROR 0/8 to a tsize      ▼
//!    └───────────────────────────────────────────────▶ Reading ◀──┐ ACK moved the window
//!                              ▼ question                 │ Data   │
//!                            Probed                       ▼        │
//!                                                      Waiting ────┴──▶ Done, Failed
//! ```
//!
//! A window's bytes stay in memory until they are acknowledged: a retransmission reads nothing.

use std::time::{Duration, Instant};

use crate::limits::{BLKSIZE_DEFAULT, Limits};
use crate::netascii;
use crate::packet::{ErrorCode, Packet, error_reply};
use crate::request::{Mode, ReadRequest};

/// How long a window is left alone after a repeated ACK for the block before it. Long enough for
/// any progress that crossed with the ACK, short against every retransmission time.
const REPEATED_ACK_DELAY: Duration = Duration::from_millis(20);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// A datagram from the client's address and port.
    Packet(&'a [u8]),
    /// The answer to [`Action::Read`]. Bytes beyond the length asked for are not used.
    Data {
        /// The offset asked for.
        offset: u64,
        /// As many bytes as were asked for; fewer mean that the file is shorter than was said.
        bytes: &'a [u8],
    },
    /// The file could not be read.
    ReadFailed,
    /// [`Transfer::deadline`] may have passed; harmless before.
    Timeout,
}

/// What the caller has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this datagram to the client.
    Send(Vec<u8>),
    /// Read from the file and come back with [`Input::Data`] or [`Input::ReadFailed`]. One read
    /// is outstanding at most; it stays within the size given to [`Transfer::begin`].
    Read {
        /// Byte offset in the file.
        offset: u64,
        /// Bytes, at least 1, at most window times block size.
        len: usize,
    },
    /// The client has everything. Nothing follows.
    Done(Summary),
    /// The client wanted the size only: PXE firmware asks with `tsize`, ends the transfer with an
    /// ERROR and asks again. Nothing follows.
    Probed(Summary),
    /// The transfer ended early. Nothing follows.
    Failed {
        /// Why.
        reason: FailReason,
        /// How far it came.
        summary: Summary,
    },
}

/// Why a transfer ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailReason {
    /// The client sent an ERROR packet.
    #[error("the client ended the transfer with error {}: {message:?}", u16::from(*code))]
    Client {
        /// Its code.
        code: ErrorCode,
        /// Its words, control characters replaced.
        message: String,
    },
    /// Nothing was heard although everything was sent again as often as allowed.
    #[error("the client did not answer after {blocks} acknowledged blocks")]
    NoAnswer {
        /// Blocks acknowledged before.
        blocks: u64,
    },
    /// Everything was sent, only the last acknowledgement is missing. Some firmware starts what it
    /// has loaded without sending it, so the file may well have arrived.
    #[error("the last block was not acknowledged")]
    LastAckMissing,
    /// The caller could not read the file.
    #[error("the file could not be read")]
    ReadFailed,
    /// The file ended before the size it was announced with.
    #[error("the file became shorter while it was sent")]
    FileShrank,
    /// [`Transfer::abort`] was called.
    #[error("the transfer was aborted here")]
    Aborted,
}

/// What client and server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// Payload bytes per block.
    pub blksize: u16,
    /// Blocks per acknowledgement.
    pub windowsize: u16,
    /// Retransmission time if the client named one.
    pub timeout: Option<Duration>,
    /// Whether the client was told the size.
    pub tsize: bool,
}

/// Datagrams that changed nothing, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// No TFTP packet.
    Malformed,
    /// The same acknowledgement again; answering each would double every packet from here on
    /// (the "sorcerer's apprentice" of RFC 1123 §4.2.3.1).
    DuplicateAck,
    /// An acknowledgement for a block that is long acknowledged, or was never sent.
    StrayAck,
    /// A packet that has no place in a read transfer.
    Unexpected,
    /// File data that was not asked for.
    UnaskedData,
    /// Anything after the end.
    AfterEnd,
}

/// How often each [`Ignored`] was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IgnoredCounts {
    /// [`Ignored::Malformed`]
    pub malformed: u64,
    /// [`Ignored::DuplicateAck`]
    pub duplicate_acks: u64,
    /// [`Ignored::StrayAck`]
    pub stray_acks: u64,
    /// [`Ignored::Unexpected`]
    pub unexpected: u64,
    /// [`Ignored::UnaskedData`]
    pub unasked_data: u64,
    /// [`Ignored::AfterEnd`]
    pub after_end: u64,
}

impl IgnoredCounts {
    fn count(&mut self, reason: Ignored) {
        let counter = match reason {
            Ignored::Malformed => &mut self.malformed,
            Ignored::DuplicateAck => &mut self.duplicate_acks,
            Ignored::StrayAck => &mut self.stray_acks,
            Ignored::Unexpected => &mut self.unexpected,
            Ignored::UnaskedData => &mut self.unasked_data,
            Ignored::AfterEnd => &mut self.after_end,
        };
        *counter = counter.saturating_add(1);
    }
}

/// The account of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Payload bytes acknowledged, as they were on the wire.
    pub bytes: u64,
    /// Blocks acknowledged.
    pub blocks: u64,
    /// Blocks and option acknowledgements that were sent again.
    pub retransmits: u64,
    /// From the request to the end.
    pub duration: Duration,
    /// What was agreed on.
    pub negotiated: Negotiated,
    /// What was ignored.
    pub ignored: IgnoredCounts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The option acknowledgement is out.
    Negotiating,
    /// A read of the file is outstanding.
    Reading { offset: u64, len: usize },
    /// A window is out.
    Waiting,
    /// Reported.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RepeatedAck {
    None,
    /// The deadline was drawn near.
    Hastened,
    /// The window was sent again; the next repetition waits for the timer.
    Answered,
}

/// One transfer to one client. Block numbers are counted in 64 bits and wrap to 0 on the wire
/// only, so that files of more than 65535 blocks work.
#[derive(Debug)]
pub struct Transfer {
    size: u64,
    mode: Mode,
    negotiated: Negotiated,
    limits: Limits,
    oack: Vec<u8>,
    phase: Phase,
    /// Highest block acknowledged.
    acked: u64,
    /// Highest block ever sent.
    sent: u64,
    /// Wire bytes from block `acked + 1` on.
    buffer: Vec<u8>,
    /// Bytes of the file that have been read.
    read: u64,
    /// The block that is shorter than the others, once it has been sent.
    last_block: Option<u64>,
    /// Retransmissions since the last progress.
    retries: u32,
    /// What a repeated ACK for `acked` has led to.
    repeated_ack: RepeatedAck,
    deadline: Option<Instant>,
    started: Instant,
    bytes_acked: u64,
    retransmits: u64,
    ignored: IgnoredCounts,
}

impl Transfer {
    /// Starts serving a file of `size` bytes.
    #[must_use]
    pub fn begin(
        request: &ReadRequest,
        size: u64,
        limits: &Limits,
        now: Instant,
    ) -> (Self, Vec<Action>) {
        let (negotiated, oack) = negotiate(request, size, limits);
        let mut transfer = Self {
            size,
            mode: request.mode,
            negotiated,
            limits: limits.clone(),
            oack,
            phase: Phase::Negotiating,
            acked: 0,
            sent: 0,
            buffer: Vec::new(),
            read: 0,
            last_block: None,
            retries: 0,
            repeated_ack: RepeatedAck::None,
            deadline: None,
            started: now,
            bytes_acked: 0,
            retransmits: 0,
            ignored: IgnoredCounts::default(),
        };
        let mut actions = Vec::new();
        if transfer.oack.is_empty() {
            transfer.advance(now, &mut actions);
        } else {
            actions.push(Action::Send(transfer.oack.clone()));
            transfer.arm(now);
        }
        (transfer, actions)
    }

    /// When to come back with [`Input::Timeout`]; `None` while a read is outstanding and after the
    /// end. Changes with every call of [`Transfer::handle`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether `Done`, `Probed` or `Failed` was reported.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// What was agreed on.
    #[must_use]
    pub fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase == Phase::Finished {
            self.ignored.count(Ignored::AfterEnd);
            return actions;
        }
        match input {
            Input::Packet(datagram) => self.on_packet(datagram, now, &mut actions),
            Input::Data { offset, bytes } => self.on_data(offset, bytes, now, &mut actions),
            Input::ReadFailed => {
                actions.push(Action::Send(error_reply(
                    ErrorCode::NotDefined,
                    "the file could not be read",
                )));
                self.fail(FailReason::ReadFailed, now, &mut actions);
            }
            Input::Timeout => self.on_timeout(now, &mut actions),
        }
        actions
    }

    /// Ends the transfer from this side, telling the client in `message`.
    pub fn abort(&mut self, message: &str, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase != Phase::Finished {
            actions.push(Action::Send(error_reply(ErrorCode::NotDefined, message)));
            self.fail(FailReason::Aborted, now, &mut actions);
        }
        actions
    }

    fn on_packet(&mut self, datagram: &[u8], now: Instant, actions: &mut Vec<Action>) {
        match Packet::parse(datagram) {
            Err(_) => self.ignored.count(Ignored::Malformed),
            Ok(Packet::Ack { block }) => self.on_ack(block, now, actions),
            Ok(Packet::Error { code, message }) => {
                let probed = self.phase == Phase::Negotiating
                    && self.negotiated.tsize
                    && matches!(code, ErrorCode::NotDefined | ErrorCode::OptionsRefused);
                if probed {
                    let summary = self.finish(now);
                    actions.push(Action::Probed(summary));
                } else {
                    let message = String::from_utf8_lossy(message).replace(char::is_control, " ");
                    self.fail(FailReason::Client { code, message }, now, actions);
                }
            }
            Ok(Packet::Request(_) | Packet::Data { .. } | Packet::OptionAck(_)) => {
                self.ignored.count(Ignored::Unexpected);
            }
        }
    }

    fn on_ack(&mut self, block: u16, now: Instant, actions: &mut Vec<Action>) {
        if self.phase == Phase::Negotiating {
            if block == 0 {
                self.retries = 0;
                self.advance(now, actions);
            } else {
                self.ignored.count(Ignored::StrayAck);
            }
            return;
        }
        // Distance on the wire's circle; windows are far smaller than half of it.
        let ahead = u64::from(block.wrapping_sub(wire_number(self.acked)));
        let in_flight = self.sent.saturating_sub(self.acked);
        if ahead == 0 {
            // RFC 7440 §4: in a window, an ACK for the block before it says that the window's
            // first block got lost. Or it is the network's copy of the ACK that the window was
            // sent for; answering that one would put a second window on the way for good. So the
            // window is sent again soon, once, and not at all if progress comes first.
            let windowed = self.negotiated.windowsize > 1 && self.phase == Phase::Waiting;
            if windowed && self.repeated_ack == RepeatedAck::None {
                self.repeated_ack = RepeatedAck::Hastened;
                let soon = now.checked_add(REPEATED_ACK_DELAY);
                self.deadline = match (self.deadline, soon) {
                    (Some(deadline), Some(soon)) => Some(deadline.min(soon)),
                    (deadline, None) => deadline,
                    (None, soon) => soon,
                };
            } else {
                self.ignored.count(Ignored::DuplicateAck);
            }
            return;
        }
        if ahead > in_flight {
            self.ignored.count(Ignored::StrayAck);
            return;
        }
        self.acked = self.acked.saturating_add(ahead);
        let bytes = usize::try_from(ahead)
            .unwrap_or(usize::MAX)
            .saturating_mul(usize::from(self.negotiated.blksize))
            .min(self.buffer.len());
        self.buffer.drain(..bytes);
        self.bytes_acked = self.bytes_acked.saturating_add(bytes as u64);
        self.retries = 0;
        self.repeated_ack = RepeatedAck::None;
        match self.phase {
            // The data on its way will be sent from the new place.
            Phase::Reading { .. } => {}
            Phase::Negotiating | Phase::Waiting | Phase::Finished => self.advance(now, actions),
        }
    }

    fn on_data(&mut self, offset: u64, bytes: &[u8], now: Instant, actions: &mut Vec<Action>) {
        let Phase::Reading { offset: asked, len } = self.phase else {
            self.ignored.count(Ignored::UnaskedData);
            return;
        };
        if offset != asked {
            self.ignored.count(Ignored::UnaskedData);
            return;
        }
        let Some(bytes) = bytes.get(..len) else {
            actions.push(Action::Send(error_reply(
                ErrorCode::NotDefined,
                "the file changed while it was sent",
            )));
            self.fail(FailReason::FileShrank, now, actions);
            return;
        };
        self.read = self.read.saturating_add(len as u64);
        match self.mode {
            Mode::Octet => self.buffer.extend_from_slice(bytes),
            Mode::Netascii => netascii::encode(bytes, &mut self.buffer),
        }
        self.advance(now, actions);
    }

    fn on_timeout(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.repeated_ack == RepeatedAck::Hastened {
            // The client is there: this one does not count as a retry.
            self.repeated_ack = RepeatedAck::Answered;
            self.send_window(now, actions);
            return;
        }
        if self.retries >= self.limits.retries_max {
            let reason = if self
                .last_block
                .is_some_and(|last| self.acked.saturating_add(1) == last)
            {
                FailReason::LastAckMissing
            } else {
                FailReason::NoAnswer { blocks: self.acked }
            };
            self.fail(reason, now, actions);
            return;
        }
        self.retries = self.retries.saturating_add(1);
        match self.phase {
            Phase::Negotiating => {
                self.retransmits = self.retransmits.saturating_add(1);
                actions.push(Action::Send(self.oack.clone()));
                self.arm(now);
            }
            Phase::Waiting => self.send_window(now, actions),
            // Neither has a deadline.
            Phase::Reading { .. } | Phase::Finished => {}
        }
    }

    /// Everything acknowledged so far is out of the buffer: finish, read on, or send.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.last_block == Some(self.acked) {
            let summary = self.finish(now);
            actions.push(Action::Done(summary));
            return;
        }
        let window = usize::from(self.negotiated.windowsize) * usize::from(self.negotiated.blksize);
        let missing = window.saturating_sub(self.buffer.len());
        let left = self.size.saturating_sub(self.read);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(missing);
        if len > 0 {
            self.phase = Phase::Reading {
                offset: self.read,
                len,
            };
            self.deadline = None;
            actions.push(Action::Read {
                offset: self.read,
                len,
            });
        } else {
            self.phase = Phase::Waiting;
            self.send_window(now, actions);
        }
    }

    fn send_window(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let blksize = usize::from(self.negotiated.blksize);
        let mut block = self.acked;
        let mut rest = self.buffer.as_slice();
        for _ in 0..self.negotiated.windowsize {
            let (payload, after) = rest.split_at(rest.len().min(blksize));
            block = block.saturating_add(1);
            if block <= self.sent {
                self.retransmits = self.retransmits.saturating_add(1);
            }
            actions.push(Action::Send(
                Packet::Data {
                    block: wire_number(block),
                    data: payload,
                }
                .encode(),
            ));
            // Short only at the end of the file: `advance` has filled the window otherwise.
            if payload.len() < blksize {
                debug_assert_eq!(self.read, self.size, "a short block before the end");
                self.last_block = Some(block);
                break;
            }
            rest = after;
        }
        self.sent = self.sent.max(block);
        self.arm(now);
    }

    fn arm(&mut self, now: Instant) {
        let wait = self.negotiated.timeout.unwrap_or_else(|| {
            let doubled = self
                .limits
                .timeout
                .saturating_mul(1 << self.retries.min(16));
            doubled.min(self.limits.backoff_max.max(self.limits.timeout))
        });
        self.deadline = now.checked_add(wait);
    }

    fn fail(&mut self, reason: FailReason, now: Instant, actions: &mut Vec<Action>) {
        let summary = self.finish(now);
        actions.push(Action::Failed { reason, summary });
    }

    fn finish(&mut self, now: Instant) -> Summary {
        self.phase = Phase::Finished;
        self.deadline = None;
        self.buffer = Vec::new();
        Summary {
            bytes: self.bytes_acked,
            blocks: self.acked,
            retransmits: self.retransmits,
            duration: now.saturating_duration_since(self.started),
            negotiated: self.negotiated,
            ignored: self.ignored,
        }
    }
}

/// Block number on the wire; 65536 is 0, as every client in use expects.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the wire carries the lower 16 bits"
)]
fn wire_number(block: u64) -> u16 {
    block as u16
}

/// The options granted and the OACK that says so; empty when there are none (RFC 2347: the server
/// then answers as if no options had been named).
fn negotiate(request: &ReadRequest, size: u64, limits: &Limits) -> (Negotiated, Vec<u8>) {
    let mut negotiated = Negotiated {
        blksize: BLKSIZE_DEFAULT,
        windowsize: 1,
        timeout: None,
        tsize: false,
    };
    let mut granted: Vec<(&str, String)> = Vec::new();
    for (name, _) in &request.options {
        let asked = request.number(name);
        let value = match name.to_ascii_lowercase().as_str() {
            "blksize" => asked
                .and_then(|asked| limits.grant_blksize(asked))
                .map(|blksize| {
                    negotiated.blksize = blksize;
                    u64::from(blksize)
                }),
            "windowsize" => {
                asked
                    .and_then(|asked| limits.grant_windowsize(asked))
                    .map(|windowsize| {
                        negotiated.windowsize = windowsize;
                        u64::from(windowsize)
                    })
            }
            "timeout" => asked
                .and_then(|asked| limits.grant_timeout(asked))
                .map(|timeout| {
                    negotiated.timeout = Some(timeout);
                    timeout.as_secs()
                }),
            // The size on the wire is not known before the end when line ends are translated.
            "tsize" if request.mode == Mode::Octet => {
                negotiated.tsize = true;
                Some(size)
            }
            _ => None,
        };
        if let Some(value) = value {
            granted.push((name, value.to_string()));
        }
    }
    if granted.is_empty() {
        return (negotiated, Vec::new());
    }
    let pairs = granted
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    (negotiated, Packet::OptionAck(pairs).encode())
}
