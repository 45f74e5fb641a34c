//! The IPMI message inside a session packet (spec §13.8, figure 13-4).
//!
//! ```text
//! to address | net function, LUN | checksum | from address | sequence, LUN | command | data … | checksum
//! ```
//! In an answer the net function is odd and the first data byte is the completion code.

use crate::drops::DropReason;

/// Address of the BMC.
pub const BMC_ADDRESS: u8 = 0x20;
/// Address (software id) that a remote console uses.
pub const CONSOLE_ADDRESS: u8 = 0x81;
/// The longest data this crate puts into a message, bytes.
pub const DATA_MAX: usize = 240;
/// Bytes of a message without its data.
const OVERHEAD: usize = 7;

/// Whether wrong checksums make a message unusable. Some BMCs send wrong ones (FreeIPMI's workaround
/// `nochecksumcheck`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// They must be right.
    Check,
    /// They are not looked at.
    Ignore,
}

/// An IPMI message, request or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Address of the receiver.
    pub to: u8,
    /// Unit at the receiver, two bits.
    pub to_lun: u8,
    /// Net function, six bits; odd in answers.
    pub net_fn: u8,
    /// Address of the sender.
    pub from: u8,
    /// Unit at the sender, two bits.
    pub from_lun: u8,
    /// Sequence number, six bits, by which an answer is found.
    pub sequence: u8,
    /// The command.
    pub command: u8,
    /// Its data; in an answer the completion code comes first.
    pub data: Vec<u8>,
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0u8, |sum, b| sum.wrapping_add(*b))
        .wrapping_neg()
}

impl Message {
    /// A request from a remote console to the BMC.
    pub fn request(sequence: u8, net_fn: u8, command: u8, data: Vec<u8>) -> Message {
        Message {
            to: BMC_ADDRESS,
            to_lun: 0,
            net_fn,
            from: CONSOLE_ADDRESS,
            from_lun: 0,
            sequence: sequence & 0x3f,
            command,
            data,
        }
    }

    /// The answer to this request.
    pub fn answer(&self, completion: u8, data: &[u8]) -> Message {
        let mut body = Vec::with_capacity(1 + data.len());
        body.push(completion);
        body.extend_from_slice(data);
        Message {
            to: self.from,
            to_lun: self.from_lun,
            net_fn: (self.net_fn | 1) & 0x3f,
            from: self.to,
            from_lun: self.to_lun,
            sequence: self.sequence,
            command: self.command,
            data: body,
        }
    }

    /// The bytes. Data behind [`DATA_MAX`] is cut off.
    pub fn encode(&self) -> Vec<u8> {
        let data = &self.data[..self.data.len().min(DATA_MAX)];
        let mut out = Vec::with_capacity(OVERHEAD + data.len());
        out.extend_from_slice(&[self.to, self.net_fn << 2 | self.to_lun & 3]);
        out.push(checksum(&out));
        out.extend_from_slice(&[
            self.from,
            self.sequence << 2 | self.from_lun & 3,
            self.command,
        ]);
        out.extend_from_slice(data);
        out.push(checksum(&out[3..]));
        out
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`DropReason::TooShort`] or [`DropReason::Checksum`].
    pub fn decode(bytes: &[u8], checksums: Checksums) -> Result<Message, DropReason> {
        let [
            to,
            function,
            sum,
            from,
            sequence,
            command,
            middle @ ..,
            last,
        ] = bytes
        else {
            return Err(DropReason::TooShort);
        };
        let wrong =
            checksum(&[*to, *function]) != *sum || checksum(&bytes[3..bytes.len() - 1]) != *last;
        if wrong && checksums == Checksums::Check {
            return Err(DropReason::Checksum);
        }
        Ok(Message {
            to: *to,
            to_lun: function & 3,
            net_fn: function >> 2,
            from: *from,
            from_lun: sequence & 3,
            sequence: sequence >> 2,
            command: *command,
            data: middle.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_survives_the_wire(to: u8, from: u8, to_lun in 0u8..4, from_lun in 0u8..4, net_fn in 0u8..64, sequence in 0u8..64,
                                       command: u8, data in proptest::collection::vec(any::<u8>(), 0..DATA_MAX)) {
            let message = Message { to, to_lun, net_fn, from, from_lun, sequence, command, data };
            prop_assert_eq!(Message::decode(&message.encode(), Checksums::Check), Ok(message));
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0usize..9, flip in 1u8..=255) {
            let mut bytes = Message::request(5, 6, 1, vec![1, 2]).encode();
            bytes[at] ^= flip;
            prop_assert_eq!(Message::decode(&bytes, Checksums::Check), Err(DropReason::Checksum));
            prop_assert!(Message::decode(&bytes, Checksums::Ignore).is_ok());
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            Message::decode(&bytes, Checksums::Check).ok();
            Message::decode(&bytes, Checksums::Ignore).ok();
        }
    }
}
