//! Why a boot stalled, in one sentence with its remedy. (face; being filled in)

use std::fmt;

use crate::timeline::Entry;

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Short name of the cause, the key of the table of verdicts.
    pub code: &'static str,
    /// What is wrong.
    pub sentence: String,
    /// What to do.
    pub remedy: String,
    /// The last thing that was seen of the machine.
    pub last_seen: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} Last seen: {}.",
            self.sentence, self.remedy, self.last_seen
        )
    }
}

/// The verdict on what was seen of one boot, oldest first.
#[must_use]
pub fn judge(entries: &[Entry], _boot_method: Option<&str>) -> Verdict {
    Verdict {
        code: "unknown",
        sentence: String::new(),
        remedy: String::new(),
        last_seen: format!("{} entries", entries.len()),
    }
}
