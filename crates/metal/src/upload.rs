//! Images that people bring themselves: their names, the kinds of files, and their versions.

use std::collections::BTreeSet;

/// What the file of an image is: the word that clients send, the type that is kept, and the name of the
/// file.
pub const FILE_TYPES: [(&str, &str, &str); 11] = [
    ("tgz", "root-tgz", "root.tgz"),
    ("tbz", "root-tbz", "root.tbz"),
    ("txz", "root-txz", "root.txz"),
    ("ddtgz", "root-dd", "root-dd"),
    ("ddtar", "root-dd.tar", "root-dd.tar"),
    ("ddraw", "root-dd.raw", "root-dd.raw"),
    ("ddtbz", "root-dd.tar.bz2", "root-dd.tar.bz2"),
    ("ddtxz", "root-dd.tar.xz", "root-dd.tar.xz"),
    ("ddbz2", "root-dd.bz2", "root-dd.bz2"),
    ("ddgz", "root-dd.gz", "root-dd.gz"),
    ("ddxz", "root-dd.xz", "root-dd.xz"),
];
/// Operating systems that an image may be of.
pub const SYSTEMS: [&str; 11] = [
    "ubuntu",
    "ubuntu-core",
    "centos",
    "rhel",
    "ol",
    "suse",
    "windows",
    "esxi",
    "custom",
    "bootloader",
    "onie",
];
/// Longest name.
pub const NAME_MAX: usize = 255;

/// Type and file name of what clients call a kind of file.
#[must_use]
pub fn file_type(word: &str) -> Option<(&'static str, &'static str)> {
    FILE_TYPES
        .iter()
        .find(|(w, _, _)| *w == word)
        .map(|(_, kind, name)| (*kind, *name))
}

/// Why an image cannot be called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or with other characters.
    #[error(
        "use 1 to {NAME_MAX} letters, digits, dots, hyphens and underscores, or os/release of these"
    )]
    Form,
    /// A system that is not known.
    #[error("'{0}' is no operating system; name it custom/… otherwise")]
    System(String),
    /// A name that something else has.
    #[error("'{0}' is a reserved name")]
    Reserved(String),
}

/// Checks the name of an image that somebody brings. `known` are the systems and releases that sources of
/// images offer, which are theirs.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str, known: &BTreeSet<(String, String)>) -> Result<(), NameError> {
    let word = |w: &str| {
        !w.is_empty()
            && w.chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let parts: Vec<&str> = name.split('/').collect();
    if name.len() > NAME_MAX || parts.len() > 2 || !parts.iter().all(|p| word(p)) {
        return Err(NameError::Form);
    }
    let reserved = || Err(NameError::Reserved(name.to_owned()));
    let (system, release) = match parts.as_slice() {
        [release] => (None, *release),
        [system, release] => (Some(*system), *release),
        _ => return Err(NameError::Form),
    };
    match system {
        None | Some("custom") => {
            let taken = SYSTEMS.contains(&release)
                || known.iter().any(|(s, r)| s == release || r == release)
                || is_centos(release);
            if taken { reserved() } else { Ok(()) }
        }
        Some(system) if !SYSTEMS.contains(&system) => Err(NameError::System(system.to_owned())),
        Some(system) => {
            if known.contains(&(system.to_owned(), release.to_owned())) {
                reserved()
            } else {
                Ok(())
            }
        }
    }
}

/// `centos70` and the like, which mean releases of CentOS.
fn is_centos(word: &str) -> bool {
    word.strip_prefix("centos")
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether an image of this name is of a Linux that nobody knows, so that it must say what it is derived
/// from.
#[must_use]
pub fn is_custom(name: &str) -> bool {
    name.split_once('/')
        .is_none_or(|(system, _)| system == "custom")
}

/// The version of what is brought on a day: the day, or the day with the number behind the last one.
#[must_use]
pub fn version(day: &str, taken: &BTreeSet<String>) -> String {
    let last = taken
        .iter()
        .filter_map(|v| match v.strip_prefix(day)? {
            "" => Some(0),
            rest => rest.strip_prefix('.')?.parse::<u64>().ok(),
        })
        .max();
    last.map_or_else(
        || day.to_owned(),
        |n| format!("{day}.{}", n.saturating_add(1)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> BTreeSet<(String, String)> {
        [("ubuntu", "noble"), ("centos", "centos8")]
            .map(|(s, r)| (s.to_owned(), r.to_owned()))
            .into()
    }

    #[test]
    fn names_of_others_are_reserved() {
        for good in [
            "mine",
            "custom/mine",
            "ubuntu/mine",
            "windows/win2019",
            "rhel/9.1",
        ] {
            assert_eq!(check_name(good, &known()), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a/b/c",
            "/a",
            "a/",
            "a b",
            "solaris/11",
            "ubuntu",
            "noble",
            "custom/noble",
            "ubuntu/noble",
            "centos70",
            "custom/windows",
        ] {
            assert!(check_name(bad, &known()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_second_of_a_day_has_a_number() {
        let mut taken = BTreeSet::new();
        for expected in ["20261120", "20261120.1", "20261120.2"] {
            let next = version("20261120", &taken);
            assert_eq!(next, expected);
            taken.insert(next);
        }
        let gone = BTreeSet::from(["20261120.4".to_owned(), "20261119".to_owned()]);
        assert_eq!(version("20261120", &gone), "20261120.5");
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name in ".{0,40}") {
            let _result = check_name(&name, &known());
            let _custom = is_custom(&name);
        }
    }
}
