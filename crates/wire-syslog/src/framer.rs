//! Messages out of a TCP stream (RFC 6587).
//!
//! Octet counting is `LENGTH SP <PRI>...`; otherwise a message ends with a line feed (§3.4.2) or
//! with a zero byte, as some senders have it. Each frame is looked at by itself, so that a sender
//! may mix both.

use crate::message::MESSAGE_MAX;

/// Digits of a length read at most; more are no length.
const LENGTH_DIGITS_MAX: usize = 8;

/// A message as it was framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// At most [`MESSAGE_MAX`] bytes, for [`crate::Message::parse`].
    pub bytes: Vec<u8>,
    /// Whether more was sent than is kept.
    pub truncated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a message.
    Between,
    /// Within what may be a length; the buffer holds the digits.
    Length,
    /// After `LENGTH SP`; the buffer holds both.
    AfterLength(u64),
    /// This many bytes of the message are to come.
    Counted(u64),
    /// Up to the end of the line.
    Line,
}

/// Cuts a stream into frames. Holds at most one message.
#[derive(Debug)]
pub struct Framer {
    state: State,
    buffer: Vec<u8>,
    truncated: bool,
}

impl Default for Framer {
    fn default() -> Self {
        Self {
            state: State::Between,
            buffer: Vec::new(),
            truncated: false,
        }
    }
}

impl Framer {
    /// Takes the next bytes of the stream, however cut, and returns the messages they complete.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Between => {
                    match byte {
                        // Some senders end counted frames with a line feed too.
                        b'\n' | b'\r' | 0 => {}
                        b'1'..=b'9' => {
                            self.buffer.push(byte);
                            self.state = State::Length;
                        }
                        _ => {
                            self.state = State::Line;
                            continue;
                        }
                    }
                    bytes = rest;
                }
                State::Length => match byte {
                    b'0'..=b'9' if self.buffer.len() < LENGTH_DIGITS_MAX => {
                        self.buffer.push(byte);
                        bytes = rest;
                    }
                    b' ' => {
                        let digits = self.buffer.iter();
                        let length =
                            digits.fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
                        self.buffer.push(byte);
                        self.state = State::AfterLength(length);
                        bytes = rest;
                    }
                    _ => self.state = State::Line,
                },
                State::AfterLength(length) => {
                    // A message starts with its priority: a line that starts with a number is
                    // none.
                    if byte == b'<' {
                        self.buffer.clear();
                        self.state = State::Counted(length);
                    } else {
                        self.state = State::Line;
                    }
                }
                State::Counted(left) => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at(len);
                    self.keep(part);
                    bytes = rest;
                    let left = left.saturating_sub(len as u64);
                    self.state = State::Counted(left);
                    if left == 0 {
                        frames.extend(self.take());
                    }
                }
                State::Line => {
                    let end = bytes.iter().position(|byte| matches!(byte, b'\n' | 0));
                    let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    self.keep(part);
                    bytes = rest;
                    if end.is_some() {
                        frames.extend(self.take());
                    }
                }
            }
        }
        frames
    }

    /// The stream has ended: what is left is a message too.
    pub fn finish(&mut self) -> Option<Frame> {
        self.take()
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MESSAGE_MAX.saturating_sub(self.buffer.len());
        let kept = part.get(..room).unwrap_or(part);
        self.truncated |= kept.len() < part.len();
        self.buffer.extend_from_slice(kept);
    }

    fn take(&mut self) -> Option<Frame> {
        self.state = State::Between;
        let frame = Frame {
            bytes: std::mem::take(&mut self.buffer),
            truncated: std::mem::take(&mut self.truncated),
        };
        (!frame.bytes.is_empty()).then_some(frame)
    }
}
