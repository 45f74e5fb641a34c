//! What the texts of settings may be.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::dns;

/// Longest text of a setting.
pub const TEXT_MAX: usize = 16 << 10;
/// Words that say how a BMC deviates from the standard, as FreeIPMI calls them.
pub const IPMI_WORKAROUNDS: [&str; 12] = [
    "opensesspriv",
    "authcap",
    "idzero",
    "unexpectedauth",
    "forcepermsg",
    "endianseq",
    "intel20",
    "supermicro20",
    "sun20",
    "nochecksumcheck",
    "integritycheckvalue",
    "ipmiping",
];

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Anything on one line.
    Line,
    /// Addresses, with spaces or commas between.
    Addresses,
    /// Addresses and networks, with spaces or commas between.
    Networks,
    /// Hosts by name or address, with spaces or commas between.
    Hosts,
    /// A host, with `:port` or without.
    HostPort,
    /// An http or https URL.
    Url,
    /// The name of a domain.
    Domain,
    /// A time as `1h 30m` or `15m`.
    Duration,
    /// [`IPMI_WORKAROUNDS`], with spaces or commas between.
    Workarounds,
    /// An IPMI key: 20 characters, or `0x` and 40 hexadecimal digits (IPMI 2.0 §13.31).
    BmcKey,
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\n', '\t']).filter(|w| !w.is_empty())
}

fn host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
        || dns::check_name(text.strip_suffix('.').unwrap_or(text)).is_ok()
}

fn host_port(text: &str) -> bool {
    if host(text) {
        return true;
    }
    text.rsplit_once(':').is_some_and(|(h, port)| {
        let bare = h
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(h);
        host(bare) && port.parse::<u16>().is_ok_and(|p| p > 0)
    })
}

/// Seconds of `1h 30m 5s`, `2d` or a plain number of seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    if let Ok(n) = text.trim().parse() {
        return Some(n);
    }
    let (mut total, mut number, mut any) = (0_u64, String::new(), false);
    for c in text.trim().chars() {
        match c {
            '0'..='9' => number.push(c),
            ' ' if number.is_empty() => {}
            unit => {
                let of = match unit {
                    'w' => 604_800,
                    'd' => 86_400,
                    'h' => 3_600,
                    'm' => 60,
                    's' => 1,
                    _ => return None,
                };
                let n: u64 = number.parse().ok()?;
                total = total.checked_add(n.checked_mul(of)?)?;
                number.clear();
                any = true;
            }
        }
    }
    (any && number.is_empty()).then_some(total)
}

fn url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let authority = |r: &str| {
        let end = r.find(['/', '?', '#']).unwrap_or(r.len());
        let host = r[..end].rsplit('@').next().unwrap_or_default();
        host_port(host) || host_port(host.trim_matches(['[', ']']))
    };
    let plain = !text.contains(|c: char| c.is_control() || c.is_whitespace());
    plain && rest.is_some_and(authority)
}

/// Checks a text.
///
/// # Errors
/// What it should be.
pub fn check(form: Form, text: &str) -> Result<(), String> {
    if text.len() > TEXT_MAX {
        return Err(format!("At most {TEXT_MAX} bytes."));
    }
    let all = |good: fn(&str) -> bool, what: &str| match words(text).find(|w| !good(w)) {
        None => Ok(()),
        Some(bad) => {
            let bad: String = bad.chars().take(64).collect();
            Err(format!("'{bad}' is not {what}."))
        }
    };
    let one = |good: bool, what: &str| {
        if good {
            Ok(())
        } else {
            Err(format!("Enter {what}."))
        }
    };
    match form {
        Form::Line => one(!text.chars().any(char::is_control), "one line of text"),
        Form::Addresses => all(|w| w.parse::<IpAddr>().is_ok(), "an IP address"),
        Form::Networks => all(
            |w| w.parse::<IpAddr>().is_ok() || w.parse::<IpNet>().is_ok(),
            "an IP address or a network",
        ),
        Form::Hosts => all(host, "an IP address or the name of a host"),
        Form::HostPort => one(
            host_port(text.trim()),
            "a host, with :port where it is not the usual one",
        ),
        Form::Url => one(url(text), "an http or https URL"),
        Form::Domain => dns::check_name(text).map_err(|e| format!("Invalid domain name: {e}.")),
        Form::Duration => one(
            seconds(text).is_some_and(|s| s > 0),
            "a time as 1h 30m or 15m",
        ),
        Form::Workarounds => all(
            |w| IPMI_WORKAROUNDS.contains(&w),
            "a workaround that FreeIPMI knows",
        ),
        Form::BmcKey => {
            let good = match text.strip_prefix("0x") {
                Some(h) => h.len() == 40 && h.bytes().all(|b| b.is_ascii_hexdigit()),
                None => text.len() == 20 && !text.chars().any(char::is_control),
            };
            one(good, "20 characters, or 0x and 40 hexadecimal digits")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_takes_what_it_says() {
        for (form, good) in [
            (Form::Line, "any thing"),
            (Form::Addresses, "10.0.0.1 fd00::1,10.0.0.2"),
            (Form::Networks, "10.0.0.0/8 10.1.1.1"),
            (Form::Hosts, "ntp.example.org, 10.0.0.1"),
            (Form::HostPort, "log.example.org:514"),
            (Form::HostPort, "[fd00::1]:514"),
            (Form::Url, "http://user:pass@proxy.example:3128/"),
            (Form::Url, "https://[fd00::1]:3128"),
            (Form::Url, "https://[fd00::1]/x"),
            (Form::Domain, "maas-internal"),
            (Form::Duration, "1h 30m"),
            (Form::Workarounds, "authcap,idzero"),
            (Form::BmcKey, "0x0011223344556677889900112233445566778899"),
            (Form::BmcKey, "abcdefghij0123456789"),
        ] {
            assert_eq!(check(form, good), Ok(()), "{form:?} {good}");
        }
        for (form, bad) in [
            (Form::Line, "two\nlines"),
            (Form::Addresses, "10.0.0.1 host"),
            (Form::Networks, "10.0.0.0/33"),
            (Form::Hosts, "no_host"),
            (Form::HostPort, "host:99999"),
            (Form::HostPort, ""),
            (Form::Url, "ftp://x"),
            (Form::Url, "http://"),
            (Form::Url, "http://a b"),
            (Form::Domain, "a b"),
            (Form::Duration, "soon"),
            (Form::Duration, "0m"),
            (Form::Duration, "5x"),
            (Form::Workarounds, "magic"),
            (Form::BmcKey, "short"),
        ] {
            assert!(check(form, bad).is_err(), "{form:?} {bad}");
        }
        assert_eq!(seconds("1h 30m"), Some(5_400));
        assert_eq!(seconds("90"), Some(90));
        assert_eq!(seconds("1h5"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            for form in [Form::Url, Form::HostPort, Form::Duration, Form::Hosts, Form::BmcKey] {
                let _result = check(form, &text);
            }
        }
    }
}
