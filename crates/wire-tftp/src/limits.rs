//! Bounds on what a client may ask for.

use std::time::Duration;

/// Payload bytes of a DATA packet when nothing was negotiated (RFC 1350 §2).
pub const BLKSIZE_DEFAULT: u16 = 512;
/// Smallest block size a client may ask for (RFC 2348).
pub const BLKSIZE_MIN: u16 = 8;
/// Largest block size there is (RFC 2348).
pub const BLKSIZE_MAX: u16 = 65464;
/// Smallest value of the `timeout` option, in seconds (RFC 2349).
pub const TIMEOUT_SECONDS_MIN: u16 = 1;
/// Largest value of the `timeout` option, in seconds (RFC 2349).
pub const TIMEOUT_SECONDS_MAX: u16 = 255;

/// What the server grants at most. Every field is a cap, never a target: the client gets what it
/// asked for up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest block granted, in payload bytes. Values outside
    /// [`BLKSIZE_MIN`]..=[`BLKSIZE_MAX`] are brought into it.
    pub blksize_max: u16,
    /// Most blocks sent before an acknowledgement is needed (RFC 7440); 0 counts as 1.
    pub windowsize_max: u16,
    /// Longest `timeout` option granted; a client that asks for more gets none and ours is used.
    pub timeout_max: Duration,
    /// Time without an answer until the first retransmission when the client named none. Doubles
    /// with each further one, up to [`Limits::backoff_max`].
    pub timeout: Duration,
    /// Longest time between two retransmissions when the client named none.
    pub backoff_max: Duration,
    /// Retransmissions without any progress before the transfer is given up.
    pub retries_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 1500 (Ethernet) - 20 (IPv4) - 8 (UDP) - 4 (TFTP): larger blocks would be fragmented,
            // and network card ROMs often have no reassembly. Firmware asks for this value too.
            blksize_max: 1468,
            // 64 * 1468 is below 100 KiB: the most that one transfer keeps in memory, and what
            // the receive buffers of EDK2 cope with.
            windowsize_max: 64,
            timeout_max: Duration::from_secs(30),
            timeout: Duration::from_secs(1),
            backoff_max: Duration::from_secs(8),
            // With the doubling: 1+2+4+8+8+8 = 31 s, longer than any firmware waits.
            retries_max: 5,
        }
    }
}

impl Limits {
    /// The block size granted to a client that asked for `asked` bytes; `None` when the value is
    /// below [`BLKSIZE_MIN`], that is no block size at all.
    #[must_use]
    pub fn grant_blksize(&self, asked: u64) -> Option<u16> {
        if asked < u64::from(BLKSIZE_MIN) {
            return None;
        }
        let cap = self.blksize_max.clamp(BLKSIZE_MIN, BLKSIZE_MAX);
        Some(u16::try_from(asked).unwrap_or(u16::MAX).min(cap))
    }

    /// The window granted to a client that asked for `asked` blocks; `None` for 0.
    #[must_use]
    pub fn grant_windowsize(&self, asked: u64) -> Option<u16> {
        if asked == 0 {
            return None;
        }
        Some(
            u16::try_from(asked)
                .unwrap_or(u16::MAX)
                .min(self.windowsize_max.max(1)),
        )
    }

    /// The retransmission time granted; `None` when outside RFC 2349 or above
    /// [`Limits::timeout_max`]. It cannot be lowered: the answer must repeat the value.
    #[must_use]
    pub fn grant_timeout(&self, asked_seconds: u64) -> Option<Duration> {
        let seconds = u16::try_from(asked_seconds).ok()?;
        let duration = Duration::from_secs(u64::from(seconds));
        ((TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX).contains(&seconds)
            && duration <= self.timeout_max)
            .then_some(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_follow_the_client_up_to_the_cap() {
        let limits = Limits {
            blksize_max: 1468,
            windowsize_max: 16,
            ..Limits::default()
        };
        assert_eq!(limits.grant_blksize(7), None);
        assert_eq!(limits.grant_blksize(8), Some(8));
        assert_eq!(limits.grant_blksize(1408), Some(1408));
        assert_eq!(limits.grant_blksize(65464), Some(1468));
        assert_eq!(limits.grant_blksize(u64::MAX), Some(1468));
        assert_eq!(limits.grant_windowsize(0), None);
        assert_eq!(limits.grant_windowsize(4), Some(4));
        assert_eq!(limits.grant_windowsize(65535), Some(16));
        assert_eq!(limits.grant_timeout(0), None);
        assert_eq!(limits.grant_timeout(3), Some(Duration::from_secs(3)));
        assert_eq!(limits.grant_timeout(255), None);
    }

    #[test]
    fn a_cap_outside_the_standard_is_brought_into_it() {
        let limits = Limits {
            blksize_max: 0,
            windowsize_max: 0,
            ..Limits::default()
        };
        assert_eq!(limits.grant_blksize(1468), Some(8));
        assert_eq!(limits.grant_windowsize(9), Some(1));
        let limits = Limits {
            blksize_max: u16::MAX,
            ..Limits::default()
        };
        assert_eq!(limits.grant_blksize(65535), Some(65464));
    }
}
