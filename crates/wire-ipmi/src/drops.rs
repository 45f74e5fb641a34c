//! Why a datagram was not used, and how often.

use std::fmt;

/// The reason for which a received datagram was dropped. Every datagram that has no effect has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Longer than [`crate::packet::DATAGRAM_MAX`].
    TooLong,
    /// Ends before a field that must be there.
    TooShort,
    /// The RMCP header has another version.
    NotRmcp,
    /// An RMCP class other than IPMI and ASF, or an RMCP acknowledgement.
    OtherClass,
    /// An ASF message other than the expected ping or pong.
    OtherAsf,
    /// A session header with an authentication type that the session does not use.
    AuthType,
    /// A payload type that nobody waits for.
    PayloadType,
    /// The length field and the datagram disagree.
    Length,
    /// A session number that is not known here.
    Session,
    /// A known session, but from another address than the one that opened it.
    Peer,
    /// The authentication code does not fit: forged, damaged, or made with another key.
    AuthCode,
    /// A session packet without the protection that was agreed on.
    Unprotected,
    /// Decryption gave no well-formed padding.
    Decryption,
    /// A checksum of the IPMI message is wrong.
    Checksum,
    /// The session sequence number was seen before.
    Duplicate,
    /// The session sequence number is too far from the others.
    OutOfWindow,
    /// Well-formed, but no answer to what was asked last (late, repeated or misdirected).
    Unexpected,
    /// A handshake message of a shape that the spec does not have.
    Malformed,
    /// No room for another session.
    Full,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [DropReason; 19] = [
        DropReason::TooLong,
        DropReason::TooShort,
        DropReason::NotRmcp,
        DropReason::OtherClass,
        DropReason::OtherAsf,
        DropReason::AuthType,
        DropReason::PayloadType,
        DropReason::Length,
        DropReason::Session,
        DropReason::Peer,
        DropReason::AuthCode,
        DropReason::Unprotected,
        DropReason::Decryption,
        DropReason::Checksum,
        DropReason::Duplicate,
        DropReason::OutOfWindow,
        DropReason::Unexpected,
        DropReason::Malformed,
        DropReason::Full,
    ];

    /// A short fixed word, fit for a metric label.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::TooLong => "too_long",
            DropReason::TooShort => "too_short",
            DropReason::NotRmcp => "not_rmcp",
            DropReason::OtherClass => "other_class",
            DropReason::OtherAsf => "other_asf",
            DropReason::AuthType => "auth_type",
            DropReason::PayloadType => "payload_type",
            DropReason::Length => "length",
            DropReason::Session => "session",
            DropReason::Peer => "peer",
            DropReason::AuthCode => "auth_code",
            DropReason::Unprotected => "unprotected",
            DropReason::Decryption => "decryption",
            DropReason::Checksum => "checksum",
            DropReason::Duplicate => "duplicate",
            DropReason::OutOfWindow => "out_of_window",
            DropReason::Unexpected => "unexpected",
            DropReason::Malformed => "malformed",
            DropReason::Full => "full",
        }
    }

    /// Whether the datagram was damaged or forged, rather than merely late, repeated or not for us.
    pub fn is_damage(self) -> bool {
        match self {
            DropReason::TooLong
            | DropReason::TooShort
            | DropReason::NotRmcp
            | DropReason::Length
            | DropReason::AuthType
            | DropReason::AuthCode
            | DropReason::Unprotected
            | DropReason::Decryption
            | DropReason::Checksum
            | DropReason::Malformed => true,
            DropReason::OtherClass
            | DropReason::OtherAsf
            | DropReason::PayloadType
            | DropReason::Session
            | DropReason::Peer
            | DropReason::Duplicate
            | DropReason::OutOfWindow
            | DropReason::Unexpected
            | DropReason::Full => false,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::TooLong => "datagram too long",
            DropReason::TooShort => "datagram ends early",
            DropReason::NotRmcp => "not an RMCP datagram",
            DropReason::OtherClass => "RMCP class is neither IPMI nor ASF",
            DropReason::OtherAsf => "unexpected ASF message",
            DropReason::AuthType => "authentication type differs from the session's",
            DropReason::PayloadType => "unexpected payload type",
            DropReason::Length => "length field does not fit the datagram",
            DropReason::Session => "unknown session number",
            DropReason::Peer => "session belongs to another address",
            DropReason::AuthCode => "authentication code does not fit",
            DropReason::Unprotected => "packet is not protected as agreed",
            DropReason::Decryption => "cannot be decrypted",
            DropReason::Checksum => "checksum is wrong",
            DropReason::Duplicate => "sequence number was seen before",
            DropReason::OutOfWindow => "sequence number outside the window",
            DropReason::Unexpected => "no answer to the current question",
            DropReason::Malformed => "malformed handshake message",
            DropReason::Full => "no room for another session",
        })
    }
}

/// One counter per [`DropReason`]; a counter stops at its maximum instead of wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl DropCounts {
    /// Counts one dropped datagram.
    pub fn add(&mut self, reason: DropReason) {
        let slot = &mut self.0[reason as usize];
        *slot = slot.saturating_add(1);
    }

    /// How many were dropped for this reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were dropped in all.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Every reason with its count, also those that are zero.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (*r, self.get(*r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let mut names = std::collections::BTreeSet::new();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            assert!(names.insert(reason.name()));
            let mut counts = DropCounts::default();
            counts.add(reason);
            assert_eq!((counts.get(reason), counts.total()), (1, 1));
        }
    }
}
