//! Identifiers that are more than a number: hardware addresses and system ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet hardware address, printed in the lower-case colon form that MAAS clients expect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The form of boot loader file names and of `BOOTIF`: `aa-bb-cc-dd-ee-ff`.
    #[must_use]
    pub fn dashed(&self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an Ethernet hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a MAC address such as 52:54:00:12:34:56")]
pub struct BadMac(pub String);

impl FromStr for MacAddr {
    type Err = BadMac;

    /// Accepts `:` and `-` between the bytes, the three-group dotted form and twelve bare digits.
    fn from_str(s: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(s.chars().take(64).collect());
        let t = s.trim();
        let digits: String = t
            .chars()
            .filter(|c| !matches!(c, ':' | '-' | '.'))
            .collect();
        let shape_ok = match t.len() {
            17 => t
                .bytes()
                .enumerate()
                .all(|(i, b)| (i % 3 == 2) == matches!(b, b':' | b'-')),
            14 => t
                .bytes()
                .enumerate()
                .all(|(i, b)| (i % 5 == 4) == (b == b'.')),
            12 => true,
            _ => false,
        };
        if !shape_ok || digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut out = [0u8; 6];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[i * 2..i * 2 + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

impl Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = std::borrow::Cow::<'de, str>::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

/// The short random name of a node in URLs, for example `4y3h7n`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(pub String);

impl SystemId {
    /// Digits of a system id: no vowels but `a` and `e`, nothing that reads like another digit.
    const ALPHABET: &'static [u8; 24] = b"34678abcdefghkmnpqrstwxy";

    /// Turns a random number into a system id of six characters, none of them a leading zero digit.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        let low = 24u64.pow(5);
        let mut n = low + random % (24u64.pow(6) - low);
        let mut out = [0u8; 6];
        for c in out.iter_mut().rev() {
            *c = Self::ALPHABET[usize::try_from(n % 24).expect("less than 24")];
            n /= 24;
        }
        Self(String::from_utf8_lossy(&out).into_owned())
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SystemId {
    fn from(s: &str) -> Self {
        Self(s.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_reads_every_common_spelling() {
        for s in [
            "52:54:00:AB:cd:0f",
            "52-54-00-ab-cd-0f",
            "5254.00ab.cd0f",
            "525400abcd0f",
        ] {
            assert_eq!(
                s.parse::<MacAddr>().unwrap().to_string(),
                "52:54:00:ab:cd:0f"
            );
        }
    }

    #[test]
    fn mac_refuses_what_is_not_one() {
        for s in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:0g",
            "52:54:00:ab:cd:0f:11",
            "5:254:00:ab:cd:0f1",
            "…………",
        ] {
            assert!(s.parse::<MacAddr>().is_err(), "{s}");
        }
    }

    #[test]
    fn system_id_has_six_characters_of_the_alphabet() {
        for r in [0, 1, 24u64.pow(6), u64::MAX] {
            let id = SystemId::from_random(r);
            assert_eq!(id.0.len(), 6);
            assert!(id.0.bytes().all(|b| SystemId::ALPHABET.contains(&b)));
            assert_ne!(id.0.as_bytes()[0], b'3');
        }
    }
}
