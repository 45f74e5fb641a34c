//! `storage=`: `label:size(tag,tag),…`. Sizes are in decimal gigabytes, the label and the tags may be left
//! out, and the first item is the disk that the machine boots from.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_ITEMS, MAX_TEXT};

/// Bytes of the unit of sizes.
const GIGABYTE: u64 = 1_000_000_000;
/// The tag that asks for a partition instead of a disk.
pub const PARTITION: &str = "partition";
/// The tag that asks for room in a volume group instead of a disk.
pub const VOLUME_GROUP: &str = "volume_group";

/// A text that is no storage constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not `label:size(tag,…)`.
    #[error(
        "Malformed storage constraint, \"{0}\": write it as label:size(tag,tag), with the size in gigabytes."
    )]
    Item(String),
    /// The same label twice.
    #[error("Malformed storage constraint: the label \"{0}\" stands there twice.")]
    Repeated(String),
    /// Too much.
    #[error("A storage constraint may have at most {MAX_ITEMS} items and {MAX_TEXT} bytes.")]
    TooLong,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A whole disk.
    Disk,
    /// A partition.
    Partition,
    /// Free room in a volume group.
    VolumeGroup,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name under which the answer tells what was found.
    pub label: Option<String>,
    /// What is looked for.
    pub kind: Kind,
    /// Fewest bytes.
    pub size: u64,
    /// Tags that it must have.
    pub tags: BTreeSet<String>,
}

/// A constraint: what all is to be had at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraint {
    /// Its items; the first is for the boot disk.
    pub items: Vec<Item>,
}

/// A piece of storage that a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Database id, of its kind.
    pub id: i64,
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Whether the machine boots from it.
    pub boot: bool,
}

fn item(text: &str) -> Option<Item> {
    let text = text.trim();
    let (head, tags) = match text.split_once('(') {
        Some((head, rest)) => (head.trim(), Some(rest.strip_suffix(')')?)),
        None => (text, None),
    };
    let (label, size) = match head.split_once(':') {
        Some((l, s)) => (Some(l.trim()), s.trim()),
        None => (None, head),
    };
    if label.is_some_and(|l| {
        l.is_empty() || !l.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c))
    }) {
        return None;
    }
    let (whole, part) = size.split_once('.').unwrap_or((size, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    let part: u64 = format!("{part:0<9}").parse().ok()?;
    let size = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(GIGABYTE)?
        .checked_add(part)?;
    let mut tags: BTreeSet<String> = match tags {
        None => BTreeSet::new(),
        Some(t) => t
            .split(',')
            .map(|t| t.trim().to_owned())
            .filter(|t| !t.is_empty())
            .collect(),
    };
    if tags.iter().any(|t| t.contains(['(', ')'])) {
        return None;
    }
    let kind = if tags.remove(PARTITION) {
        Kind::Partition
    } else if tags.remove(VOLUME_GROUP) {
        Kind::VolumeGroup
    } else {
        Kind::Disk
    };
    Some(Item {
        label: label.map(str::to_owned),
        kind,
        size,
        tags,
    })
}

/// Cuts at the commas that are not between parentheses.
fn cut(text: &str) -> Vec<&str> {
    let (mut out, mut from, mut depth) = (Vec::new(), 0, 0_usize);
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                out.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[from..]);
    out
}

impl std::str::FromStr for Constraint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_TEXT {
            return Err(Malformed::TooLong);
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut items = Vec::new();
        let mut labels = BTreeSet::new();
        for part in cut(text) {
            let shown = || part.trim().chars().take(64).collect::<String>();
            let one = item(part).ok_or_else(|| Malformed::Item(shown()))?;
            if let Some(l) = &one.label
                && !labels.insert(l.clone())
            {
                return Err(Malformed::Repeated(l.clone()));
            }
            items.push(one);
            if items.len() > MAX_ITEMS {
                return Err(Malformed::TooLong);
            }
        }
        Ok(Self { items })
    }
}

impl Item {
    fn fits(&self, p: &Piece) -> bool {
        self.kind == p.kind && self.size <= p.size && self.tags.is_subset(&p.tags)
    }
}

impl Constraint {
    /// Which piece serves which item, each piece for one item only; none when the machine has not all of
    /// them. A disk asked for first is the boot disk. Small pieces are taken before large ones where there
    /// is a choice.
    #[must_use]
    pub fn serve(&self, pieces: &[Piece]) -> Option<Vec<i64>> {
        let mut order: Vec<&Piece> = pieces.iter().collect();
        order.sort_by_key(|p| (p.size, p.id));
        let candidates: Vec<Vec<usize>> = self
            .items
            .iter()
            .enumerate()
            .map(|(n, item)| {
                let first = n == 0 && item.kind == Kind::Disk;
                let fits = |p: &Piece| item.fits(p) && (!first || p.boot);
                (0..order.len()).filter(|i| fits(order[*i])).collect()
            })
            .collect();
        // Kuhn's algorithm: an item may push another to its next choice.
        let mut taken: Vec<Option<usize>> = vec![None; order.len()];
        for n in 0..self.items.len() {
            if !place(n, &candidates, &mut taken, &mut vec![false; order.len()]) {
                return None;
            }
        }
        let mut out = vec![0; self.items.len()];
        for (piece, item) in taken.iter().enumerate() {
            if let Some(n) = item {
                out[*n] = order[piece].id;
            }
        }
        Some(out)
    }

    /// [`Constraint::serve`] by label, as `constraints_by_type.storage` answers it. Items without a label
    /// are left out.
    #[must_use]
    pub fn by_label(&self, pieces: &[Piece]) -> Option<BTreeMap<String, Vec<i64>>> {
        let ids = self.serve(pieces)?;
        let labelled = self.items.iter().zip(ids);
        Some(
            labelled
                .filter_map(|(i, id)| Some((i.label.clone()?, vec![id])))
                .collect(),
        )
    }
}

fn place(
    n: usize,
    candidates: &[Vec<usize>],
    taken: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for &piece in &candidates[n] {
        if std::mem::replace(&mut seen[piece], true) {
            continue;
        }
        let free = match taken[piece] {
            None => true,
            Some(other) => place(other, candidates, taken, seen),
        };
        if free {
            taken[piece] = Some(n);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(t: &[&str]) -> BTreeSet<String> {
        t.iter().map(|t| (*t).to_owned()).collect()
    }

    fn disk(id: i64, gb: u64, t: &[&str], boot: bool) -> Piece {
        Piece {
            id,
            kind: Kind::Disk,
            size: gb * GIGABYTE,
            tags: tags(t),
            boot,
        }
    }

    fn parse(t: &str) -> Constraint {
        t.parse().unwrap()
    }

    #[test]
    fn labels_sizes_and_tags_are_read() {
        let c = parse("root:20(ssd), data:1.5(sata, raid),0,x:8(partition)");
        let seen: Vec<_> = c
            .items
            .iter()
            .map(|i| (i.label.as_deref(), i.kind, i.size, i.tags.len()))
            .collect();
        assert_eq!(
            seen,
            [
                (Some("root"), Kind::Disk, 20 * GIGABYTE, 1),
                (Some("data"), Kind::Disk, 1_500_000_000, 2),
                (None, Kind::Disk, 0, 0),
                (Some("x"), Kind::Partition, 8 * GIGABYTE, 0),
            ]
        );
        assert_eq!(parse(" "), Constraint::default());
        for bad in [
            "root",
            ":1",
            "a:b:1",
            "1(ssd",
            "1)",
            "1(a)b",
            "-1",
            "1e3",
            "1,",
            ",",
            "1 2",
            "99999999999999",
        ] {
            assert!(
                matches!(bad.parse::<Constraint>(), Err(Malformed::Item(_))),
                "{bad}"
            );
        }
        assert_eq!(
            "a:1,a:2".parse::<Constraint>(),
            Err(Malformed::Repeated("a".to_owned()))
        );
        assert_eq!(
            "1,".repeat(MAX_ITEMS + 1).parse::<Constraint>(),
            Err(Malformed::TooLong)
        );
    }

    #[test]
    fn the_first_item_is_the_boot_disk() {
        let c = parse("root:10,data:10");
        let disks = [disk(1, 20, &[], false), disk(2, 20, &[], true)];
        assert_eq!(c.serve(&disks), Some(vec![2, 1]));
        assert_eq!(
            parse("root:30").serve(&[disk(1, 40, &[], false), disk(2, 20, &[], true)]),
            None
        );
        let labels = c.by_label(&disks).unwrap();
        assert_eq!((&labels["root"], &labels["data"]), (&vec![2], &vec![1]));
    }

    #[test]
    fn one_disk_does_not_serve_two_items_and_choices_are_revised() {
        let boot = disk(1, 1, &[], true);
        // The only disk that serves `b` is the one that `a` would take first.
        let disks = [
            boot.clone(),
            disk(2, 10, &["ssd", "nvme"], false),
            disk(3, 20, &["ssd"], false),
        ];
        assert_eq!(
            parse("0,a:10(ssd),b:10(nvme)").serve(&disks),
            Some(vec![1, 3, 2])
        );
        assert_eq!(parse("0,a:10(ssd),b:10(nvme),c:1").serve(&disks), None);
    }

    #[test]
    fn partitions_and_volume_groups_are_asked_for_by_tag() {
        let part = Piece {
            kind: Kind::Partition,
            ..disk(7, 5, &["fast"], false)
        };
        let group = Piece {
            kind: Kind::VolumeGroup,
            ..disk(7, 50, &[], false)
        };
        let all = [disk(1, 1, &[], true), part, group];
        assert_eq!(
            parse("0,p:5(partition,fast),v:40(volume_group)").serve(&all),
            Some(vec![1, 7, 7])
        );
        assert_eq!(parse("0,p:6(partition)").serve(&all), None);
    }

    fn a_piece(id: i64) -> impl Strategy<Value = Piece> {
        (0_u64..8, prop::collection::btree_set("[abc]", 0..3)).prop_map(move |(gb, tags)| Piece {
            id,
            kind: Kind::Disk,
            size: gb * GIGABYTE,
            tags,
            boot: id == 0,
        })
    }

    /// Whether some choice serves the items from `n` on: every choice is tried.
    fn any_choice(c: &Constraint, pieces: &[Piece], used: &mut Vec<usize>) -> bool {
        let n = used.len();
        let Some(item) = c.items.get(n) else {
            return true;
        };
        (0..pieces.len()).any(|i| {
            if used.contains(&i) || !item.fits(&pieces[i]) || n == 0 && !pieces[i].boot {
                return false;
            }
            used.push(i);
            let found = any_choice(c, pieces, used);
            used.pop();
            found
        })
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "[a-z0-9:.,() _-]{0,40}") {
            if let Ok(c) = text.parse::<Constraint>() {
                prop_assert!(c.items.len() <= MAX_ITEMS);
            }
        }

        #[test]
        fn a_choice_is_found_exactly_when_there_is_one(
            pieces in prop::collection::vec(any::<()>(), 0..5).prop_flat_map(|v| (0..v.len()).map(|i| a_piece(i as i64)).collect::<Vec<_>>()),
            items in prop::collection::vec((0_u64..8, prop::collection::btree_set("[abc]", 0..2)), 0..5),
        ) {
            let items = items.into_iter().map(|(gb, tags)| Item { label: None, kind: Kind::Disk, size: gb * GIGABYTE, tags }).collect();
            let c = Constraint { items };
            match c.serve(&pieces) {
                None => prop_assert!(!any_choice(&c, &pieces, &mut Vec::new())),
                Some(ids) => {
                    prop_assert_eq!(ids.len(), c.items.len());
                    prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "a piece serves one item");
                    for (n, id) in ids.iter().enumerate() {
                        let p = pieces.iter().find(|p| p.id == *id).unwrap();
                        prop_assert!(c.items[n].fits(p) && (n > 0 || p.boot));
                    }
                }
            }
        }
    }
}
