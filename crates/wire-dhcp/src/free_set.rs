//! A set of addresses kept as runs, so that 65,536 free addresses are one entry.

use std::collections::BTreeMap;

/// Addresses that nobody holds and nobody has held. Every operation is O(log runs).
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct FreeSet {
    /// First address of a run to its last.
    runs: BTreeMap<u32, u32>,
    len: u64,
}

impl FreeSet {
    /// The set of all addresses in `ranges`, which are sorted and do not touch each other's addresses.
    pub(crate) fn from_ranges(ranges: &[(u32, u32)]) -> FreeSet {
        let mut set = FreeSet::default();
        for &(first, last) in ranges {
            set.runs.insert(first, last);
            set.len += u64::from(last - first) + 1;
        }
        set
    }

    /// How many addresses are in the set.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The lowest address.
    pub(crate) fn lowest(&self) -> Option<u32> {
        self.runs.first_key_value().map(|(&first, _)| first)
    }

    fn run_of(&self, address: u32) -> Option<(u32, u32)> {
        let (&first, &last) = self.runs.range(..=address).next_back()?;
        (address <= last).then_some((first, last))
    }

    /// Whether the address is in the set.
    pub(crate) fn contains(&self, address: u32) -> bool {
        self.run_of(address).is_some()
    }

    /// Takes an address out; false when it was not in.
    pub(crate) fn remove(&mut self, address: u32) -> bool {
        let Some((first, last)) = self.run_of(address) else {
            return false;
        };
        if first == address {
            self.runs.remove(&first);
        } else {
            self.runs.insert(first, address - 1);
        }
        if address < last {
            self.runs.insert(address + 1, last);
        }
        self.len -= 1;
        true
    }

    /// Puts an address in; false when it was in already.
    pub(crate) fn insert(&mut self, address: u32) -> bool {
        if self.contains(address) {
            return false;
        }
        let mut first = address;
        let mut last = address;
        if let Some(below) = address.checked_sub(1)
            && let Some((run_first, _)) = self.run_of(below)
        {
            first = run_first;
        }
        if let Some(above) = address.checked_add(1)
            && let Some(run_last) = self.runs.remove(&above)
        {
            last = run_last;
        }
        self.runs.insert(first, last);
        self.len += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn runs_hold_the_same_addresses_as_a_plain_set(
            steps in prop::collection::vec((any::<bool>(), prop_oneof![0u32..40, u32::MAX - 8..=u32::MAX]), 0..300)
        ) {
            let mut runs = FreeSet::from_ranges(&[(3, 9), (20, 20), (30, 39)]);
            let mut plain: BTreeSet<u32> = (3..=9).chain(20..=20).chain(30..=39).collect();
            for (put_in, address) in steps {
                if put_in {
                    prop_assert_eq!(runs.insert(address), plain.insert(address));
                } else {
                    prop_assert_eq!(runs.remove(address), plain.remove(&address));
                }
                prop_assert_eq!(runs.len(), plain.len() as u64);
                prop_assert_eq!(runs.lowest(), plain.first().copied());
                let mut previous_last = None;
                for (&first, &last) in &runs.runs {
                    prop_assert!(first <= last);
                    if let Some(previous) = previous_last {
                        prop_assert!(first > previous + 1, "runs that touch are one run");
                    }
                    previous_last = Some(last);
                }
            }
            for address in 0..40 {
                prop_assert_eq!(runs.contains(address), plain.contains(&address));
            }
        }
    }
}
