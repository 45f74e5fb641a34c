//! Facility and severity: the number in angle brackets, `facility * 8 + severity`.

use std::fmt;

/// Largest priority value: facility 23, severity 7 (RFC 5424 §6.2.1).
const PRIORITY_MAX: u8 = 191;

/// RFC 5424 table 2. Smaller is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// 0: the system is unusable.
    Emergency,
    /// 1: action must be taken at once.
    Alert,
    /// 2
    Critical,
    /// 3
    Error,
    /// 4
    Warning,
    /// 5: normal but of importance.
    Notice,
    /// 6
    Info,
    /// 7
    Debug,
}

impl Severity {
    const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    /// The usual short keyword.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Emergency => "emerg",
            Self::Alert => "alert",
            Self::Critical => "crit",
            Self::Error => "err",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// RFC 5424 table 1: 0 to 23.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Facility(u8);

impl Facility {
    const NAMES: [&'static str; 24] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
        "authpriv", "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2",
        "local3", "local4", "local5", "local6", "local7",
    ];

    /// The facility with this code; `None` above 23.
    #[must_use]
    pub fn new(code: u8) -> Option<Self> {
        (usize::from(code) < Self::NAMES.len()).then_some(Self(code))
    }

    /// 0 to 23.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0
    }

    /// The usual short keyword.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .get(usize::from(self.0))
            .copied()
            .unwrap_or("unknown")
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Both together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Priority {
    /// Which part of the system speaks.
    pub facility: Facility,
    /// How bad it is.
    pub severity: Severity,
}

impl Priority {
    /// From the number on the wire; `None` above 191.
    #[must_use]
    pub fn from_value(value: u8) -> Option<Self> {
        if value > PRIORITY_MAX {
            return None;
        }
        let facility = Facility::new(value >> 3)?;
        let severity = Severity::ALL.get(usize::from(value & 7)).copied()?;
        Some(Self { facility, severity })
    }

    /// The number on the wire.
    #[must_use]
    pub fn value(self) -> u8 {
        self.facility.code() * 8 + self.severity as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_priority_round_trips_and_no_other_exists() {
        for value in 0..=u8::MAX {
            let priority = Priority::from_value(value);
            assert_eq!(
                priority.map(Priority::value),
                (value <= 191).then_some(value)
            );
        }
        let priority = Priority::from_value(165).unwrap();
        assert_eq!(
            (priority.facility.name(), priority.severity.name()),
            ("local4", "notice")
        );
    }
}
