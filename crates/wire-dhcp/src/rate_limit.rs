//! A token bucket for each client, in a table of bounded size.

use crate::types::{Mac, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Clients remembered at a time; the one that was quiet longest is forgotten first.
pub(crate) const CLIENTS_MAX: usize = 16_384;

/// Tokens are kept in thousandths, so that one millisecond at one packet per second is one unit.
const TOKEN: u64 = 1000;

#[derive(Debug)]
struct Bucket {
    tokens: u64,
    seen: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    buckets: BTreeMap<Mac, Bucket>,
    by_age: BTreeSet<(Timestamp, Mac)>,
}

impl RateLimit {
    /// Takes one token of the client; false when it has none left.
    pub(crate) fn allow(&mut self, mac: Mac, now: Timestamp, burst: u32, per_second: u32) -> bool {
        let full = u64::from(burst.max(1)) * TOKEN;
        let tokens = match self.buckets.get(&mac) {
            Some(bucket) => {
                self.by_age.remove(&(bucket.seen, mac));
                let refill = now
                    .since_ms(bucket.seen)
                    .saturating_mul(u64::from(per_second));
                bucket.tokens.saturating_add(refill).min(full)
            }
            None => {
                if self.buckets.len() >= CLIENTS_MAX
                    && let Some((_, oldest)) = self.by_age.pop_first()
                {
                    self.buckets.remove(&oldest);
                }
                full
            }
        };
        let allowed = tokens >= TOKEN;
        let tokens = if allowed { tokens - TOKEN } else { tokens };
        self.buckets.insert(mac, Bucket { tokens, seen: now });
        self.by_age.insert((now, mac));
        allowed
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.buckets.len(), self.by_age.len());
        self.buckets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn a_client_gets_its_burst_and_then_its_rate() {
        let mut limit = RateLimit::default();
        let at = |ms: u64| Timestamp(1_000_000 + ms);
        let burst = (0..20).filter(|_| limit.allow(mac(1), at(0), 8, 2)).count();
        assert_eq!(burst, 8);
        assert!(!limit.allow(mac(1), at(499), 8, 2));
        assert!(limit.allow(mac(1), at(500), 8, 2));
        assert!(!limit.allow(mac(1), at(501), 8, 2));
        assert!(
            limit.allow(mac(2), at(501), 8, 2),
            "others are not affected"
        );
        let later = (0..20)
            .filter(|_| limit.allow(mac(1), at(1_000_000), 8, 2))
            .count();
        assert_eq!(later, 8, "never more than a burst");
    }

    #[test]
    fn the_table_stays_at_its_bound() {
        let mut limit = RateLimit::default();
        for n in 0..CLIENTS_MAX as u32 + 100 {
            assert!(limit.allow(mac(n), Timestamp(u64::from(n)), 1, 1));
        }
        assert_eq!(limit.len(), CLIENTS_MAX);
        assert!(!limit.allow(
            mac(CLIENTS_MAX as u32 + 99),
            Timestamp(CLIENTS_MAX as u64 + 99),
            1,
            1
        ));
    }

    #[test]
    fn a_clock_set_back_neither_panics_nor_fills_the_bucket() {
        let mut limit = RateLimit::default();
        assert!(limit.allow(mac(1), Timestamp(10_000), 1, 1));
        assert!(!limit.allow(mac(1), Timestamp(0), 1, 1));
        assert!(limit.allow(mac(1), Timestamp(u64::MAX), 1, u32::MAX));
    }
}
