//! What is written to disk about a lease, and how it is read back.
//!
//! The file belongs to the caller: it appends [`LeaseLog::append`]'s bytes, syncs, and only then sends the
//! ACK. A record says all there is to know about one address, so the last record of an address wins and
//! records of different addresses do not depend on each other. The caller rewrites the log from
//! [`crate::Engine::records`] when [`LeaseLog::wants_compaction`] says so.
//!
//! ```text
//!  0   1    2       3    4   5 ..              5+n
//! +---+---+-------+----+---+-----------------+------------+
//! |'S'|'L'|version| n, u16 | payload, n bytes | CRC-32     |   CRC over version, n and payload
//! +---+---+-------+----+---+-----------------+------------+
//! payload of version 1, integers big-endian:
//!   state u8 | address [4] | MAC [6] | subnet i64 | start u64 | expires u64 | name length u8 | name
//! ```

use crate::types::{Mac, SubnetId, Timestamp};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const MAGIC: [u8; 2] = *b"SL";
const VERSION: u8 = 1;
const FRAME_HEAD_LEN: usize = 5;
const CRC_LEN: usize = 4;
const FIXED_PAYLOAD_LEN: usize = 1 + 4 + 6 + 8 + 8 + 8 + 1;
/// Largest payload that a reader looks for; room for later versions.
const PAYLOAD_LEN_MAX: usize = 1024;
/// Bytes of a host name that are kept.
const HOSTNAME_MAX: usize = 255;
/// Below this size a log is never rewritten.
const COMPACT_BYTES_MIN: u64 = 1 << 20;
/// A log is rewritten when it is this many times larger than its content.
const COMPACT_FACTOR: u64 = 4;

/// What a record says about its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordState {
    /// Leased until `expires`.
    Bound = 1,
    /// Given back at `expires`.
    Released = 2,
    /// In use by a stranger according to the client; not given out until `expires`.
    Declined = 3,
}

impl RecordState {
    fn from_byte(byte: u8) -> Option<RecordState> {
        match byte {
            1 => Some(RecordState::Bound),
            2 => Some(RecordState::Released),
            3 => Some(RecordState::Declined),
            _ => None,
        }
    }
}

/// All that is known of one address at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// What holds.
    pub state: RecordState,
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it, had it, or declined it.
    pub mac: Mac,
    /// The subnet it was given out from.
    pub subnet: SubnetId,
    /// When the client first got it without a break.
    pub start: Timestamp,
    /// When the state ends, or for [`RecordState::Released`] when it began.
    pub expires: Timestamp,
    /// What the client calls itself, or its reservation does.
    pub hostname: Option<String>,
}

/// Functions on the bytes of a lease log.
#[derive(Debug)]
pub struct LeaseLog;

/// What was found in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// The last record of each address, in the order of addresses.
    pub records: Vec<LeaseRecord>,
    /// Bytes up to the end of the last good record. Whatever follows was torn by a crash: cut the file here
    /// before appending.
    pub valid_len: usize,
    /// Bytes between good records that belong to none: damage on disk, to be reported.
    pub damaged_bytes: usize,
    /// Good records of a version or state that this program does not know.
    pub unknown_records: usize,
}

impl Replay {
    /// Whether the log ends in the middle of a record.
    pub fn is_torn(&self, log: &[u8]) -> bool {
        self.valid_len < log.len()
    }
}

impl LeaseLog {
    /// Appends the encoded record to `log`.
    pub fn append(record: &LeaseRecord, log: &mut Vec<u8>) {
        let hostname = record.hostname.as_deref().unwrap_or("");
        let hostname = &hostname[..hostname.floor_char_boundary(HOSTNAME_MAX)];
        let start = log.len();
        log.extend(MAGIC);
        log.push(VERSION);
        log.extend(((FIXED_PAYLOAD_LEN + hostname.len()) as u16).to_be_bytes());
        log.push(record.state as u8);
        log.extend(record.address.octets());
        log.extend(record.mac.0);
        log.extend(record.subnet.0.to_be_bytes());
        log.extend(record.start.0.to_be_bytes());
        log.extend(record.expires.0.to_be_bytes());
        log.push(hostname.len() as u8);
        log.extend(hostname.as_bytes());
        let crc = crc32(&log[start + MAGIC.len()..]);
        log.extend(crc.to_be_bytes());
    }

    /// Reads a log. Never fails: a torn end is left off, damage in the middle is stepped over.
    pub fn replay(log: &[u8]) -> Replay {
        let mut replay = Replay::default();
        let mut latest: BTreeMap<Ipv4Addr, LeaseRecord> = BTreeMap::new();
        let mut at = 0;
        while at < log.len() {
            match frame(&log[at..]) {
                Some((version, payload)) => {
                    replay.damaged_bytes += at - replay.valid_len;
                    at += FRAME_HEAD_LEN + payload.len() + CRC_LEN;
                    replay.valid_len = at;
                    match (version == VERSION).then(|| decode(payload)).flatten() {
                        Some(record) => {
                            latest.insert(record.address, record);
                        }
                        None => replay.unknown_records += 1,
                    }
                }
                None => at += 1,
            }
        }
        replay.records = latest.into_values().collect();
        replay
    }

    /// Whether a log of `log_bytes` that holds `live_records` addresses is worth rewriting.
    pub fn wants_compaction(log_bytes: u64, live_records: usize) -> bool {
        let content =
            live_records as u64 * (FRAME_HEAD_LEN + FIXED_PAYLOAD_LEN + CRC_LEN + 16) as u64;
        log_bytes > COMPACT_BYTES_MIN.max(content * COMPACT_FACTOR)
    }
}

/// Version and payload of the whole record that `log` begins with.
fn frame(log: &[u8]) -> Option<(u8, &[u8])> {
    let [b'S', b'L', version, high, low, rest @ ..] = log else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > PAYLOAD_LEN_MAX {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    let crc: [u8; CRC_LEN] = rest.get(..CRC_LEN)?.try_into().ok()?;
    let checked = &log[MAGIC.len()..FRAME_HEAD_LEN + length];
    (crc32(checked) == u32::from_be_bytes(crc)).then_some((*version, payload))
}

fn decode(payload: &[u8]) -> Option<LeaseRecord> {
    let mut rest = payload;
    let state = RecordState::from_byte(take::<1>(&mut rest)?[0])?;
    let address = Ipv4Addr::from(take::<4>(&mut rest)?);
    let mac = Mac(take::<6>(&mut rest)?);
    let subnet = SubnetId(i64::from_be_bytes(take(&mut rest)?));
    let start = Timestamp(u64::from_be_bytes(take(&mut rest)?));
    let expires = Timestamp(u64::from_be_bytes(take(&mut rest)?));
    let length = usize::from(take::<1>(&mut rest)?[0]);
    if rest.len() != length {
        return None;
    }
    let hostname = std::str::from_utf8(rest).ok()?;
    let hostname = (!hostname.is_empty()).then(|| hostname.to_owned());
    Some(LeaseRecord {
        state,
        address,
        mac,
        subnet,
        start,
        expires,
        hostname,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        let mut value = n as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 != 0 {
                0xedb8_8320 ^ (value >> 1)
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[n] = value;
        n += 1;
    }
    table
};

/// CRC-32 of Ethernet and gzip (reflected 0x04C11DB7).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        CRC_TABLE[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = LeaseRecord> {
        (
            prop_oneof![
                Just(RecordState::Bound),
                Just(RecordState::Released),
                Just(RecordState::Declined)
            ],
            any::<[u8; 4]>(),
            any::<[u8; 6]>(),
            any::<i64>(),
            any::<u64>(),
            any::<u64>(),
            prop::option::of("[a-zé]{1,100}"),
        )
            .prop_map(|(state, address, mac, subnet, start, expires, hostname)| {
                LeaseRecord {
                    state,
                    address: address.into(),
                    mac: Mac(mac),
                    subnet: SubnetId(subnet),
                    start: Timestamp(start),
                    expires: Timestamp(expires),
                    hostname,
                }
            })
    }

    fn log_of(records: &[LeaseRecord]) -> Vec<u8> {
        let mut log = Vec::new();
        for record in records {
            LeaseLog::append(record, &mut log);
        }
        log
    }

    fn latest(records: &[LeaseRecord]) -> Vec<LeaseRecord> {
        let map: BTreeMap<_, _> = records.iter().map(|r| (r.address, r.clone())).collect();
        map.into_values().collect()
    }

    proptest! {
        #[test]
        fn records_come_back_as_written(records in prop::collection::vec(record(), 0..20)) {
            let log = log_of(&records);
            let replay = LeaseLog::replay(&log);
            prop_assert_eq!(&replay.records, &latest(&records));
            prop_assert_eq!(replay.valid_len, log.len());
            prop_assert_eq!((replay.damaged_bytes, replay.unknown_records), (0, 0));
        }

        #[test]
        fn a_torn_end_costs_the_torn_record_only(records in prop::collection::vec(record(), 1..8), cut in 1usize..30) {
            let whole = log_of(&records[..records.len() - 1]);
            let log = log_of(&records);
            let torn = &log[..log.len() - cut];
            let replay = LeaseLog::replay(torn);
            prop_assert_eq!(&replay.records, &latest(&records[..records.len() - 1]));
            prop_assert_eq!(replay.valid_len, whole.len());
            prop_assert!(replay.is_torn(torn));
        }

        #[test]
        fn damage_in_the_middle_is_stepped_over(records in prop::collection::vec(record(), 3..6), flip in 0usize..200, bit in 0u8..8) {
            let first = log_of(&records[..1]).len();
            let second = log_of(&records[..2]).len();
            let mut log = log_of(&records);
            log[first + flip % (second - first)] ^= 1 << bit;
            let replay = LeaseLog::replay(&log);
            let left: Vec<_> = records.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, r)| r.clone()).collect();
            prop_assert_eq!(&replay.records, &latest(&left));
            prop_assert_eq!(replay.damaged_bytes, second - first);
            prop_assert_eq!(replay.valid_len, log.len());
        }

        #[test]
        fn any_bytes_can_be_replayed(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let replay = LeaseLog::replay(&bytes);
            prop_assert!(replay.valid_len <= bytes.len());
        }
    }

    #[test]
    fn crc_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_record_of_a_later_version_is_kept_apart_not_taken_for_damage() {
        let mut log = Vec::from(*b"SL\x02\x00\x03abc");
        let crc = crc32(&log[2..]);
        log.extend(crc.to_be_bytes());
        let replay = LeaseLog::replay(&log);
        assert_eq!(
            (
                replay.unknown_records,
                replay.damaged_bytes,
                replay.valid_len
            ),
            (1, 0, log.len())
        );
    }

    #[test]
    fn compaction_waits_until_it_is_worth_it() {
        assert!(!LeaseLog::wants_compaction(1 << 20, 0));
        assert!(LeaseLog::wants_compaction((1 << 20) + 1, 10));
        assert!(!LeaseLog::wants_compaction(10 << 20, 65_536));
    }
}
