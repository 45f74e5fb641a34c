//! SMBIOS tables (DMTF DSP0134 3.x), as the kernel shows them in `/sys/firmware/dmi/tables`.
//!
//! A structure is a formatted area with a four-byte header, then its strings, then a zero byte:
//!
//! ```text
//! 0      1       2        4 …length     …
//! +------+-------+--------+-------------+------------------+---+
//! | type | length| handle | formatted   | "text\0" "text\0"| 0 |
//! +------+-------+--------+-------------+------------------+---+
//! ```

use crate::sys::Sys;

/// Structures that are read from one table at most.
pub const STRUCTURES_MAX: usize = 4096;
/// Type of the structure that ends the table.
const END_OF_TABLE: u8 = 127;

/// One structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Its type (§7).
    pub kind: u8,
    /// Its handle.
    pub handle: u16,
    /// The formatted area, with the header.
    pub data: Vec<u8>,
    /// Its strings, in order.
    pub strings: Vec<String>,
}

impl Structure {
    /// The byte at an offset of the formatted area.
    #[must_use]
    pub fn byte(&self, offset: usize) -> Option<u8> {
        self.data.get(offset).copied()
    }

    /// The little-endian word at an offset.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes(
            self.data.get(offset..offset + 2)?.try_into().ok()?,
        ))
    }

    /// The little-endian double word at an offset.
    #[must_use]
    pub fn dword(&self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.data.get(offset..offset + 4)?.try_into().ok()?,
        ))
    }

    /// The string whose number is at an offset; none for number 0, a missing string, or white space.
    #[must_use]
    pub fn string(&self, offset: usize) -> Option<&str> {
        let number = usize::from(self.byte(offset)?);
        let text = self.strings.get(number.checked_sub(1)?)?.trim();
        (!text.is_empty()).then_some(text)
    }
}

/// Splits a table into structures. Reading stops at the first that is cut off.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<Structure> {
    let mut out = Vec::new();
    let mut rest = table;
    while out.len() < STRUCTURES_MAX {
        let [kind, length, low, high, ..] = *rest else {
            break;
        };
        let length = usize::from(length);
        if length < 4 || length > rest.len() {
            break;
        }
        let (data, tail) = rest.split_at(length);
        let mut strings = Vec::new();
        let mut at = 0;
        // A structure without strings has two zero bytes here.
        loop {
            let Some(end) = tail[at..].iter().position(|b| *b == 0) else {
                return out;
            };
            if end == 0 {
                at += if strings.is_empty() && at == 0 { 2 } else { 1 };
                break;
            }
            strings.push(String::from_utf8_lossy(&tail[at..at + end]).into_owned());
            at += end + 1;
            if at >= tail.len() {
                return out;
            }
        }
        out.push(Structure {
            kind,
            handle: u16::from_le_bytes([low, high]),
            data: data.to_vec(),
            strings,
        });
        if kind == END_OF_TABLE || at > tail.len() {
            break;
        }
        rest = &tail[at..];
    }
    out
}

/// A memory slot (type 17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDevice {
    /// Handle.
    pub handle: u16,
    /// Bytes; 0 when the slot is empty.
    pub size: u64,
    /// Where it is plugged in.
    pub slot: String,
    /// `DDR4` and the like.
    pub kind: &'static str,
    /// Mega-transfers per second.
    pub speed: Option<u16>,
    /// Manufacturer.
    pub vendor: Option<String>,
    /// Part number.
    pub product: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
}

/// The machine's SMBIOS tables.
#[derive(Clone, Debug, Default)]
pub struct Dmi {
    /// All structures, in order.
    pub structures: Vec<Structure>,
    /// Version of the specification: major, minor.
    pub version: (u8, u8),
}

impl Dmi {
    /// Reads the tables below a root.
    #[must_use]
    pub fn read(sys: &Sys) -> Self {
        let structures = sys
            .bytes("sys/firmware/dmi/tables/DMI")
            .map(|t| parse(&t))
            .unwrap_or_default();
        let version = sys
            .bytes("sys/firmware/dmi/tables/smbios_entry_point")
            .and_then(|e| entry_version(&e))
            .unwrap_or((2, 6));
        Self {
            structures,
            version,
        }
    }

    /// The first structure of a type.
    #[must_use]
    pub fn first(&self, kind: u8) -> Option<&Structure> {
        self.structures.iter().find(|s| s.kind == kind)
    }

    /// A string of the first structure of a type.
    #[must_use]
    pub fn string(&self, kind: u8, offset: usize) -> Option<String> {
        self.first(kind)?.string(offset).map(str::to_owned)
    }

    /// The system's UUID (type 1, offset 8). Before version 2.6 its bytes are in network order (§7.2.1).
    #[must_use]
    pub fn uuid(&self) -> Option<String> {
        let mut bytes: [u8; 16] = self.first(1)?.data.get(8..24)?.try_into().ok()?;
        if bytes == [0; 16] || bytes == [0xff; 16] {
            return None;
        }
        if self.version >= (2, 6) {
            bytes[0..4].reverse();
            bytes[4..6].reverse();
            bytes[6..8].reverse();
        }
        let hex = hex::encode(bytes);
        Some(format!(
            "{}-{}-{}-{}-{}",
            &hex[0..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..32]
        ))
    }

    /// The memory slots.
    #[must_use]
    pub fn memory(&self) -> Vec<MemoryDevice> {
        self.structures
            .iter()
            .filter(|s| s.kind == 17)
            .map(memory_device)
            .collect()
    }

    /// Bytes of memory in all slots; none when no slot says anything.
    #[must_use]
    pub fn memory_size(&self) -> Option<u64> {
        let total: u64 = self
            .memory()
            .iter()
            .map(|m| m.size)
            .fold(0, u64::saturating_add);
        (total > 0).then_some(total)
    }
}

/// Version from an entry point: `_SM3_` (64 bit, §5.2.2) or `_SM_` (32 bit, §5.2.1).
fn entry_version(entry: &[u8]) -> Option<(u8, u8)> {
    if entry.starts_with(b"_SM3_") {
        Some((*entry.get(7)?, *entry.get(8)?))
    } else if entry.starts_with(b"_SM_") {
        Some((*entry.get(6)?, *entry.get(7)?))
    } else {
        None
    }
}

fn memory_device(s: &Structure) -> MemoryDevice {
    // §7.18: 0 is an empty slot, 0xffff unknown, 0x7fff means "see the extended size" (in MiB); bit 15 set
    // means KiB, otherwise MiB.
    let size = match s.word(0x0c) {
        None | Some(0 | 0xffff) => 0,
        Some(0x7fff) => u64::from(s.dword(0x1c).unwrap_or(0) & 0x7fff_ffff) << 20,
        Some(n) if n & 0x8000 != 0 => u64::from(n & 0x7fff) << 10,
        Some(n) => u64::from(n) << 20,
    };
    let kind = match s.byte(0x12) {
        Some(0x07) => "RAM",
        Some(0x0f) => "SDRAM",
        Some(0x12) => "DDR",
        Some(0x13) => "DDR2",
        Some(0x18) => "DDR3",
        Some(0x1a) => "DDR4",
        Some(0x1b) => "LPDDR",
        Some(0x1c) => "LPDDR2",
        Some(0x1d) => "LPDDR3",
        Some(0x1e) => "LPDDR4",
        Some(0x20) => "HBM",
        Some(0x21) => "HBM2",
        Some(0x22) => "DDR5",
        Some(0x23) => "LPDDR5",
        _ => "memory",
    };
    let text = |offset| {
        s.string(offset)
            .filter(|t| !matches!(*t, "Not Specified" | "Unknown" | "NO DIMM"))
            .map(str::to_owned)
    };
    MemoryDevice {
        handle: s.handle,
        size,
        slot: s.string(0x10).unwrap_or_default().to_owned(),
        kind,
        speed: s.word(0x15).filter(|n| *n != 0 && *n != 0xffff),
        vendor: text(0x17),
        serial: text(0x18),
        product: text(0x1a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A structure's bytes: formatted area from offset 4 on, and strings.
    pub(crate) fn structure(kind: u8, handle: u16, body: &[u8], strings: &[&str]) -> Vec<u8> {
        let mut out = vec![kind, u8::try_from(body.len() + 4).unwrap()];
        out.extend_from_slice(&handle.to_le_bytes());
        out.extend_from_slice(body);
        for s in strings {
            out.extend_from_slice(s.as_bytes());
            out.push(0);
        }
        out.extend_from_slice(if strings.is_empty() { &[0, 0] } else { &[0] });
        out
    }

    #[test]
    fn a_table_is_split_into_structures() {
        let mut table = structure(0, 1, &[1, 2], &["SeaBIOS", "1.16"]);
        table.extend(structure(3, 2, &[0, 1], &[]));
        table.extend(structure(127, 3, &[], &[]));
        table.extend(b"rubbish after the end");
        let all = parse(&table);
        assert_eq!(all.iter().map(|s| s.kind).collect::<Vec<_>>(), [0, 3, 127]);
        assert_eq!(all[0].string(4), Some("SeaBIOS"));
        assert_eq!(all[0].string(5), Some("1.16"));
        assert_eq!((all[1].string(4), all[1].string(5)), (None, None));
    }

    #[test]
    fn memory_sizes_in_all_their_forms() {
        let device = |size: u16, extended: u32| {
            let mut body = vec![0u8; 0x20 - 4];
            body[0x0c - 4..0x0e - 4].copy_from_slice(&size.to_le_bytes());
            body[0x1c - 4..0x20 - 4].copy_from_slice(&extended.to_le_bytes());
            parse(&structure(17, 5, &body, &[])).remove(0)
        };
        assert_eq!(memory_device(&device(0, 9)).size, 0);
        assert_eq!(memory_device(&device(0xffff, 9)).size, 0);
        assert_eq!(memory_device(&device(2048, 0)).size, 2 << 30);
        assert_eq!(memory_device(&device(0x8000 | 512, 0)).size, 512 << 10);
        assert_eq!(memory_device(&device(0x7fff, 65536)).size, 64 << 30);
    }

    #[test]
    fn the_uuid_is_in_the_order_of_its_version() {
        let mut body = vec![0u8; 23];
        body[4..20].copy_from_slice(&[
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff,
        ]);
        let structures = parse(&structure(1, 1, &body, &["x"]));
        let new = Dmi {
            structures: structures.clone(),
            version: (2, 8),
        };
        assert_eq!(
            new.uuid().as_deref(),
            Some("00112233-4455-6677-8899-aabbccddeeff")
        );
        let old = Dmi {
            structures,
            version: (2, 4),
        };
        assert_eq!(
            old.uuid().as_deref(),
            Some("33221100-5544-7766-8899-aabbccddeeff")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let dmi = Dmi { structures: parse(&bytes), version: (3, 0) };
            prop_assert!(dmi.structures.len() <= STRUCTURES_MAX);
            for s in &dmi.structures {
                prop_assert!((0..=s.data.len()).all(|n| s.string(n).is_none_or(|t| !t.is_empty()) && (s.word(n).is_some() || n + 2 > s.data.len()) && (s.dword(n).is_some() || n + 4 > s.data.len())));
            }
            prop_assert!(dmi.uuid().is_none_or(|u| u.len() == 36) && dmi.memory_size() != Some(0));
        }

        #[test]
        fn what_was_built_is_read_back(kinds in proptest::collection::vec((0u8..127, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40), proptest::collection::vec("[a-zA-Z0-9]{1,12}", 0..4)), 0..12)) {
            let mut table = Vec::new();
            for (kind, handle, body, strings) in &kinds {
                let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
                table.extend(structure(*kind, *handle, body, &strings));
            }
            let read = parse(&table);
            prop_assert_eq!(read.len(), kinds.len());
            for (s, (kind, handle, body, strings)) in read.iter().zip(&kinds) {
                prop_assert_eq!((s.kind, s.handle, &s.data[4..], &s.strings), (*kind, *handle, &body[..], strings));
            }
        }
    }
}
