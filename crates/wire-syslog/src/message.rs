//! One message.
//!
//! ```text
//! RFC 5424  <PRI>1 TIMESTAMP HOST APP PROCID MSGID STRUCTURED-DATA[ MSG]      "-" is nothing
//! RFC 3164  <PRI>Mmm dd hh:mm:ss HOST TAG[PID]: MSG
//! ```
//!
//! RFC 3164 describes what was seen in the wild rather than a format. Also read are: an RFC 3339
//! time stamp in its place (rsyslog's forwarding format), a year after the day, no host name
//! (busybox), and neither time nor host (iPXE).

use crate::priority::{Facility, Priority, Severity};

/// Longest message, in bytes; the rest is cut off and [`Message::truncated`] says so.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Longest header field (time stamp, host, application, process, message id), in bytes. RFC 5424
/// allows a host name of 255; a word longer than that is text.
pub const FIELD_MAX: usize = 255;

/// How the message was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// RFC 5424.
    Rfc5424,
    /// RFC 3164 or something near.
    Rfc3164,
    /// Text without a known header.
    #[default]
    Text,
}

/// A message and what could be understood of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// How it was understood.
    pub format: Format,
    /// Facility and severity.
    pub priority: Option<Priority>,
    /// The sender's time stamp, as sent.
    pub timestamp: Option<String>,
    /// The name the sender gives itself.
    pub hostname: Option<String>,
    /// Application or tag.
    pub app: Option<String>,
    /// Process id, mostly a number.
    pub pid: Option<String>,
    /// RFC 5424 message id.
    pub message_id: Option<String>,
    /// RFC 5424 structured data, with its brackets, as sent.
    pub structured_data: Option<String>,
    /// The message itself: without the line end, invalid UTF-8 and control characters other than
    /// tab and line feed replaced by U+FFFD (a machine must not write to an operator's terminal).
    pub text: String,
    /// Whether the end was cut off.
    pub truncated: bool,
}

impl Message {
    /// Reads a datagram, or a frame of a stream.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let truncated = bytes.len() > MESSAGE_MAX;
        let bytes = bytes.get(..MESSAGE_MAX).unwrap_or(bytes);
        let lossy = String::from_utf8_lossy(bytes);
        let all = lossy.trim_end_matches(['\n', '\r', '\0']);
        let (priority, rest) = match priority(all) {
            Some((priority, rest)) => (Some(priority), rest),
            None => (None, all),
        };
        let mut message = priority
            .and_then(|_| rfc5424(rest))
            .or_else(|| rfc3164(rest, priority.is_some()))
            .unwrap_or_else(|| Self {
                text: clean(rest),
                ..Self::default()
            });
        if message.format == Format::Text && priority.is_some() {
            message.format = Format::Rfc3164;
        }
        message.priority = priority;
        message.truncated = truncated;
        message
    }

    /// Severity, if the message has a priority.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.priority.map(|priority| priority.severity)
    }

    /// Facility, if the message has a priority.
    #[must_use]
    pub fn facility(&self) -> Option<Facility> {
        self.priority.map(|priority| priority.facility)
    }

    /// The message as RFC 5424, for forwarding. Fields become what the format allows: printable
    /// ASCII without blanks, at most [`FIELD_MAX`] bytes, `-` for nothing. A message without a
    /// priority is sent as user.notice (RFC 3164 §4.3.3), one whose time stamp has no RFC 3339
    /// shape without it.
    #[must_use]
    pub fn to_rfc5424(&self) -> String {
        // user.notice
        let priority = self.priority.map_or(13, Priority::value);
        let timestamp = self.timestamp.as_deref().filter(|text| is_rfc3339(text));
        let fields = [
            timestamp,
            self.hostname.as_deref(),
            self.app.as_deref(),
            self.pid.as_deref(),
            self.message_id.as_deref(),
        ];
        let mut out = format!("<{priority}>1");
        for field in fields {
            out.push(' ');
            let printable: String = field
                .unwrap_or_default()
                .chars()
                .filter(char::is_ascii_graphic)
                .take(FIELD_MAX)
                .collect();
            out.push_str(if printable.is_empty() {
                "-"
            } else {
                &printable
            });
        }
        let data = self
            .structured_data
            .as_deref()
            .filter(|data| structured_data(data) == Some(data.len()));
        out.push(' ');
        out.push_str(data.unwrap_or("-"));
        if !self.text.is_empty() {
            out.push(' ');
            if !self.text.is_ascii() {
                // RFC 5424 §6.4: marks the text as UTF-8.
                out.push('\u{feff}');
            }
            out.push_str(&self.text);
        }
        out
    }
}

fn clean(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' && c != '\n' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// `<PRI>`: one to three digits, up to 191.
fn priority(text: &str) -> Option<(Priority, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    if !(1..=3).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Priority::from_value(digits.parse().ok()?)?, rest))
}

/// A header field up to the next blank: printable ASCII of a bounded length.
fn field(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(' ')?;
    is_field(word).then_some((word, rest))
}

fn is_field(word: &str) -> bool {
    (1..=FIELD_MAX).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic())
}

fn present(word: &str) -> Option<String> {
    (word != "-").then(|| word.to_owned())
}

fn rfc5424(rest: &str) -> Option<Message> {
    let rest = rest.strip_prefix("1 ")?;
    let (timestamp, rest) = field(rest)?;
    if timestamp != "-" && !is_rfc3339(timestamp) {
        return None;
    }
    let (hostname, rest) = field(rest)?;
    let (app, rest) = field(rest)?;
    let (pid, rest) = field(rest)?;
    // Some senders stop after the last field that they have.
    let (message_id, rest) = field(rest).or_else(|| is_field(rest).then_some((rest, "")))?;
    let (data, text) = match rest.strip_prefix('-') {
        Some(text) if text.is_empty() || text.starts_with(' ') => (None, text),
        _ => match structured_data(rest) {
            Some(end) => {
                let (data, text) = rest.split_at(end);
                (Some(data.to_owned()), text)
            }
            // Broken structured data is text.
            None => (None, rest),
        },
    };
    Some(Message {
        format: Format::Rfc5424,
        timestamp: present(timestamp),
        hostname: present(hostname),
        app: present(app),
        pid: present(pid),
        message_id: present(message_id),
        structured_data: data,
        text: clean(text.strip_prefix(' ').unwrap_or(text)),
        ..Message::default()
    })
}

/// Length of `[id name="value" ...][...]` at the start of `text`; `None` if there is none or if
/// it is broken. In values `\` escapes `"`, `\` and `]` (RFC 5424 §6.3.3).
fn structured_data(text: &str) -> Option<usize> {
    let mut end = 0;
    while text.get(end..).is_some_and(|rest| rest.starts_with('[')) {
        let mut quoted = false;
        let mut escaped = false;
        let mut close = None;
        for (at, c) in text.get(end..)?.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ']' if !quoted => {
                    close = Some(at);
                    break;
                }
                c if c.is_control() => return None,
                _ => {}
            }
        }
        end = end.checked_add(close?)?.checked_add(1)?;
    }
    let followed = text
        .get(end..)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    (end > 0 && followed).then_some(end)
}

fn rfc3164(rest: &str, has_priority: bool) -> Option<Message> {
    let mut message = Message {
        format: Format::Rfc3164,
        ..Message::default()
    };
    let Some((timestamp, rest)) = timestamp(rest) else {
        // Text that has no priority either is no syslog, whatever it looks like.
        if !has_priority {
            return None;
        }
        // iPXE: `<PRI>ipxe: text`, or `<PRI>node1.maas ipxe: text` once it has a name.
        if let Some((word, after)) = field(rest)
            && after.starts_with("ipxe: ")
        {
            message.hostname = Some(word.to_owned());
            tagged(after, &mut message);
            return Some(message);
        }
        return tagged(rest, &mut message).then_some(message);
    };
    message.timestamp = Some(timestamp);
    if tag(rest).is_some() {
        // busybox: no host name.
        tagged(rest, &mut message);
        return Some(message);
    }
    let Some((hostname, after)) = field(rest) else {
        message.text = clean(rest);
        return Some(message);
    };
    message.hostname = Some(hostname.to_owned());
    // Some senders align what follows.
    if !tagged(after.trim_start_matches(' '), &mut message) {
        message.text = clean(after);
    }
    Some(message)
}

/// Takes `TAG[PID]: text` or `TAG: text` apart, if it is that.
fn tagged(rest: &str, message: &mut Message) -> bool {
    let Some((app, pid, text)) = tag(rest) else {
        return false;
    };
    message.app = Some(app.to_owned());
    message.pid = pid.map(str::to_owned);
    message.text = clean(text.strip_prefix(' ').unwrap_or(text));
    true
}

/// Application, process and what follows.
fn tag(rest: &str) -> Option<(&str, Option<&str>, &str)> {
    let end = rest.find([':', '[', ' '])?;
    let (app, after) = rest.split_at(end);
    if !is_field(app) {
        return None;
    }
    if let Some(text) = after.strip_prefix(':') {
        // An address or a path such as `fe80::1` or `http://` is no tag.
        return (text.is_empty() || text.starts_with([' ', '\t', '\n']))
            .then_some((app, None, text));
    }
    let (pid, text) = after.strip_prefix('[')?.split_once(']')?;
    let text = text.strip_prefix(':').unwrap_or(text);
    (is_field(pid) && (text.is_empty() || text.starts_with(' '))).then_some((app, Some(pid), text))
}

/// A time stamp at the start: the BSD form, with or without a year, or RFC 3339.
fn timestamp(text: &str) -> Option<(String, &str)> {
    if let Some((word, rest)) = field(text)
        && is_rfc3339(word)
    {
        return Some((word.to_owned(), rest));
    }
    // `Aug  1 10:00:00 `, day padded with a blank or a zero.
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = text.get(..3)?;
    if !MONTHS.contains(&month) || text.get(3..4)? != " " {
        return None;
    }
    let day_and_on = text.get(4..)?.trim_start_matches(' ');
    let (day, rest) = day_and_on.split_once(' ')?;
    if !(1..=31).contains(&number(day, 2)?) {
        return None;
    }
    let (next, after) = rest.split_once(' ')?;
    let (time, after) = match number(next, 4) {
        Some(1970..) => after.split_once(' ')?,
        _ => (next, after),
    };
    if !is_time(time) {
        return None;
    }
    let length = text.len().checked_sub(after.len())?.checked_sub(1)?;
    Some((text.get(..length)?.to_owned(), after))
}

/// A number of at most `digits` digits and nothing else.
fn number(text: &str, digits: usize) -> Option<u32> {
    let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// `hh:mm:ss`, with or without a fraction.
fn is_time(text: &str) -> bool {
    let (clock, fraction) = text.split_once(['.', ',']).unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let mut part = |max: u32| {
        parts.next().is_some_and(|part| {
            part.len() == 2 && number(part, 2).is_some_and(|value| value <= max)
        })
    };
    // 60: leap second.
    let fine = part(23) && part(59) && part(60);
    fine && parts.next().is_none() && number(fraction, 9).is_some()
}

/// `2026-08-11T10:00:00.123456+02:00` or `...Z`.
fn is_rfc3339(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else {
        return false;
    };
    let mut parts = date.split('-');
    let year = parts
        .next()
        .is_some_and(|part| part.len() == 4 && number(part, 4).is_some());
    let mut part = |range: std::ops::RangeInclusive<u32>| {
        parts.next().is_some_and(|part| {
            part.len() == 2 && number(part, 2).is_some_and(|value| range.contains(&value))
        })
    };
    if !(year && part(1..=12) && part(1..=31)) || parts.next().is_some() {
        return false;
    }
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return is_time(clock);
    }
    let Some(at) = time.rfind(['+', '-']) else {
        return false;
    };
    let (clock, offset) = time.split_at(at);
    let offset = offset.get(1..).unwrap_or_default();
    is_time(clock)
        && offset.split_once(':').is_some_and(|(hours, minutes)| {
            hours.len() == 2
                && minutes.len() == 2
                && number(hours, 2).is_some()
                && number(minutes, 2).is_some()
        })
}
