//! Log-ins that failed, so that nobody can try passwords without end: per log-in name, and per address.
//!
//! An attempt is noted before its password is looked at and taken back when it was right; whoever sends many
//! at once is counted for each. A name is refused for a while whether it exists or not. API keys are not
//! counted: they are too long to be guessed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use metal::Timestamp;

use crate::error::ApiError;

/// Failures of one name before it has to wait.
pub const PER_NAME: u32 = 10;
/// Failures from one address before it has to wait; many people may be behind one.
pub const PER_ADDRESS: u32 = 50;
/// How long after the last failure all of them are forgotten, in seconds; also how long one has to wait.
pub const FORGET_SECONDS: i64 = 300;
/// Names and addresses that are remembered; when there are more, those whose last failure is longest ago go.
pub const MAX_REMEMBERED: usize = 10_000;
/// Bytes of a name that tell it from others.
const MAX_NAME: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Name(String),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: i64,
}

/// The failures of late.
#[derive(Debug, Default)]
pub struct Attempts {
    failures: Mutex<HashMap<Key, Failures>>,
}

/// An attempt that is under way.
#[derive(Debug)]
pub struct Attempt {
    keys: [Key; 2],
}

/// Whoever has one IPv6 address has all of its /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let bits = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 => v4,
    }
}

impl Attempts {
    /// Notes an attempt as if it had failed.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub fn begin(&self, name: &str, ip: IpAddr, now: Timestamp) -> Result<Attempt, ApiError> {
        let now = now.seconds();
        let end = name.floor_char_boundary(MAX_NAME);
        let keys = [
            Key::Name(name[..end].to_lowercase()),
            Key::Address(network(ip)),
        ];
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = keys
            .iter()
            .zip([PER_NAME, PER_ADDRESS])
            .filter_map(|(key, most)| {
                let f = all.get(key)?;
                let left = f.last + FORGET_SECONDS - now;
                (f.count >= most && left > 0).then_some(left)
            })
            .max();
        if let Some(left) = wait {
            let left = u64::try_from(left).unwrap_or(1);
            return Err(ApiError::TooMany(
                format!("Too many log-ins have failed; try again in {left} seconds."),
                left,
            ));
        }
        for key in &keys {
            if !all.contains_key(key) && all.len() >= MAX_REMEMBERED {
                make_room(&mut all, now);
            }
            let f = all.entry(key.clone()).or_insert(Failures {
                count: 0,
                last: now,
            });
            if now - f.last >= FORGET_SECONDS {
                f.count = 0;
            }
            f.count += 1;
            f.last = now;
        }
        Ok(Attempt { keys })
    }

    /// The password was right: the name has no failures any more, and the address one less.
    pub fn succeeded(&self, attempt: &Attempt) {
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let [name, address] = &attempt.keys;
        all.remove(name);
        if let Some(f) = all.get_mut(address) {
            f.count = f.count.saturating_sub(1);
            if f.count == 0 {
                all.remove(address);
            }
        }
    }

    /// Names and addresses that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Drops what is over; when nothing is, the older half, so that this is not done for every attempt.
fn make_room(all: &mut HashMap<Key, Failures>, now: i64) {
    all.retain(|_, f| now - f.last < FORGET_SECONDS);
    if all.len() >= MAX_REMEMBERED {
        let mut times: Vec<i64> = all.values().map(|f| f.last).collect();
        let (_, middle, _) = times.select_nth_unstable(MAX_REMEMBERED / 2);
        let middle = *middle;
        let mut surplus = MAX_REMEMBERED / 2;
        all.retain(|_, f| {
            let goes = f.last <= middle && surplus > 0;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn a_name_has_to_wait_wherever_it_is_tried_from() {
        let a = Attempts::default();
        for n in 0..PER_NAME {
            a.begin("eva", ip(n), at(100)).unwrap();
        }
        assert!(matches!(
            a.begin("EVA", ip(99), at(101)),
            Err(ApiError::TooMany(_, 299))
        ));
        a.begin("adam", ip(99), at(101)).unwrap();
        a.begin("eva", ip(99), at(100 + FORGET_SECONDS)).unwrap();
    }

    #[test]
    fn an_address_has_to_wait_whatever_it_tries() {
        let a = Attempts::default();
        let v6 = |last: u16| format!("2001:db8::{last:x}").parse().unwrap();
        for n in 0..PER_ADDRESS {
            let last = u16::try_from(n).unwrap();
            a.begin(&format!("u{n}"), v6(last + 1), at(1)).unwrap();
        }
        a.begin("other", v6(7777), at(2)).unwrap_err();
        a.begin("other", "2001:db8:0:1::1".parse().unwrap(), at(2))
            .unwrap();
    }

    #[test]
    fn a_right_password_clears_the_name() {
        let a = Attempts::default();
        for _ in 0..5 * PER_ADDRESS {
            let attempt = a.begin("eva", ip(1), at(1)).unwrap();
            a.succeeded(&attempt);
        }
        assert_eq!(a.remembered(), 0);
    }

    #[test]
    fn memory_stays_bounded() {
        let a = Attempts::default();
        for n in 0..3 * u32::try_from(MAX_REMEMBERED).unwrap() {
            a.begin(&format!("u{n}"), ip(n), at(1)).unwrap();
            assert!(a.remembered() <= MAX_REMEMBERED);
        }
        // The newest are still counted.
        for _ in 1..PER_NAME {
            a.begin("last", ip(1), at(2)).unwrap();
        }
        a.begin("last", ip(2), at(2)).unwrap();
        a.begin("last", ip(3), at(2)).unwrap_err();
    }
}
