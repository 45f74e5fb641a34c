//! A live session as both sides see it: keys, sequence numbers, and the window against replays.

use crate::drops::DropReason;
use crate::packet::{self, AuthType, PayloadType, V15, V20};
use crate::rakp::SessionKeys;

/// How far a sequence number may be ahead of the highest one seen (spec §6.12.13: 15 and 8; 16 here for both).
pub const WINDOW_AHEAD: u32 = 16;
/// How far it may be behind.
pub const WINDOW_BEHIND: u32 = 16;

/// Which session sequence numbers were seen, so that each is accepted once and only near the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeqWindow {
    highest: u32,
    /// Bit n: `highest - n` was seen.
    seen: u32,
}

impl SeqWindow {
    /// A window in which `first` is the lowest number that will be accepted.
    pub fn starting_at(first: u32) -> SeqWindow {
        SeqWindow {
            highest: first.wrapping_sub(1),
            seen: u32::MAX,
        }
    }

    /// Accepts a number once.
    ///
    /// # Errors
    /// [`DropReason::Duplicate`] or [`DropReason::OutOfWindow`].
    pub fn accept(&mut self, number: u32) -> Result<(), DropReason> {
        let ahead = number.wrapping_sub(self.highest);
        let behind = self.highest.wrapping_sub(number);
        if ahead != 0 && ahead <= WINDOW_AHEAD {
            self.seen = self.seen << ahead | 1;
            self.highest = number;
            return Ok(());
        }
        if behind > WINDOW_BEHIND {
            return Err(DropReason::OutOfWindow);
        }
        let bit = 1 << behind;
        if self.seen & bit != 0 {
            return Err(DropReason::Duplicate);
        }
        self.seen |= bit;
        Ok(())
    }
}

fn next(counter: &mut u32) -> u32 {
    let number = *counter;
    *counter = match counter.wrapping_add(1) {
        // 0 is for packets outside a session.
        0 => 1,
        n => n,
    };
    number
}

/// Byte order of the sequence number. The spec says least significant byte first; FreeIPMI's
/// workaround `endianseq` is for BMCs that turn it around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeqOrder {
    Little,
    Big,
}

/// Whether the packets of an IPMI 1.5 session carry a code after the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PerMessage {
    /// Each one does, with the session's type.
    Code,
    /// None does ("per-message authentication is disabled", §6.12.4).
    Bare,
}

/// A live IPMI 1.5 session.
#[derive(Debug, Clone)]
pub(crate) struct Channel15 {
    pub auth: AuthType,
    /// For packets that leave.
    pub per_message: PerMessage,
    /// For packets that arrive.
    pub per_message_in: PerMessage,
    pub session: u32,
    pub password: crate::secret::Secret,
    pub next_out: u32,
    pub window: SeqWindow,
    pub order: SeqOrder,
}

impl Channel15 {
    fn on_wire(&self, number: u32) -> u32 {
        match self.order {
            SeqOrder::Little => number,
            SeqOrder::Big => number.swap_bytes(),
        }
    }

    pub fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let number = next(&mut self.next_out);
        let sequence = self.on_wire(number);
        let auth = match self.per_message {
            PerMessage::Code => self.auth,
            PerMessage::Bare => AuthType::None,
        };
        let code = packet::v15_code(
            auth,
            &self.password.padded(),
            self.session,
            sequence.to_le_bytes(),
            payload,
        );
        packet::encode_v15(&V15 {
            auth,
            sequence,
            session: self.session,
            code,
            payload,
        })
    }

    /// Checks code and sequence number; the payload is then genuine.
    pub fn check(&mut self, packet: &V15<'_>) -> Result<(), DropReason> {
        let bare_is_fine = self.auth == AuthType::None || self.per_message_in == PerMessage::Bare;
        match packet.code {
            None if bare_is_fine => {}
            None => return Err(DropReason::Unprotected),
            Some(code) => {
                if packet.auth != self.auth {
                    return Err(DropReason::AuthType);
                }
                // Verified also where none was expected (FreeIPMI calls that `unexpectedauth`).
                let sequence = packet.sequence.to_le_bytes();
                let right = packet::v15_code(
                    self.auth,
                    &self.password.padded(),
                    packet.session,
                    sequence,
                    packet.payload,
                );
                if !right.is_some_and(|right| crate::crypto::same(&right, &code)) {
                    return Err(DropReason::AuthCode);
                }
            }
        }
        self.window.accept(self.on_wire(packet.sequence))
    }
}

/// A live IPMI 2.0 session.
#[derive(Debug, Clone)]
pub(crate) struct Channel20 {
    /// The other side's session number: where packets go.
    pub remote_session: u32,
    pub keys: SessionKeys,
    pub next_out: u32,
    pub window: SeqWindow,
}

impl Channel20 {
    pub fn new(remote_session: u32, keys: SessionKeys) -> Channel20 {
        Channel20 {
            remote_session,
            keys,
            next_out: 1,
            window: SeqWindow::starting_at(1),
        }
    }

    pub fn seal(&mut self, iv: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let sequence = next(&mut self.next_out);
        packet::seal_v20(
            &self.keys,
            PayloadType::Ipmi,
            self.remote_session,
            sequence,
            iv,
            payload,
        )
    }

    /// Checks code and sequence number and decrypts.
    pub fn open(&mut self, packet: &V20<'_>) -> Result<Vec<u8>, DropReason> {
        let plain = packet.open(&self.keys)?;
        self.window.accept(packet.sequence)?;
        if packet.payload_type != PayloadType::Ipmi {
            return Err(DropReason::PayloadType);
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sequence_number_is_accepted_once() {
        let mut window = SeqWindow::starting_at(1);
        assert_eq!(window.accept(1), Ok(()));
        assert_eq!(window.accept(1), Err(DropReason::Duplicate));
        assert_eq!(window.accept(4), Ok(()));
        assert_eq!(window.accept(3), Ok(()), "late but new");
        assert_eq!(window.accept(3), Err(DropReason::Duplicate));
        assert_eq!(
            window.accept(4 + WINDOW_AHEAD + 1),
            Err(DropReason::OutOfWindow)
        );
        assert_eq!(window.accept(4 + WINDOW_AHEAD), Ok(()));
        assert_eq!(window.accept(3), Err(DropReason::OutOfWindow));
    }

    #[test]
    fn nothing_before_the_first_number_is_accepted() {
        let mut window = SeqWindow::starting_at(100);
        assert!(window.accept(99).is_err());
        assert_eq!(window.accept(100), Ok(()));
        assert!(window.accept(98).is_err());
    }

    #[test]
    fn the_window_goes_over_the_wrap() {
        let mut window = SeqWindow::starting_at(u32::MAX);
        assert_eq!(window.accept(u32::MAX), Ok(()));
        assert_eq!(window.accept(1), Ok(()));
        assert_eq!(window.accept(u32::MAX), Err(DropReason::Duplicate));
    }

    proptest! {
        #[test]
        fn no_number_is_ever_accepted_twice(start: u32, steps in proptest::collection::vec(0u32..40, 1..200)) {
            let mut window = SeqWindow::starting_at(start);
            let mut accepted = std::collections::BTreeSet::new();
            let mut base = start;
            for step in steps {
                let number = base.wrapping_add(step).wrapping_sub(20);
                if window.accept(number).is_ok() {
                    prop_assert!(accepted.insert(number));
                    base = number;
                }
            }
        }
    }
}
