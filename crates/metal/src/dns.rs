//! Names of DNS, and the data of records that people enter: RFC 1035, 1123, 2181, 2782, 4255.

/// Longest name (RFC 1035 §2.3.4), without the dot at its end.
pub const NAME_MAX: usize = 253;
/// Longest label (RFC 1035 §2.3.4).
pub const LABEL_MAX: usize = 63;
/// Longest data of a record as text.
pub const DATA_MAX: usize = 4_096;
/// Longest time to live (RFC 2181 §8).
pub const TTL_MAX: i64 = 2_147_483_647;
/// The name of a domain itself, among the names in it.
pub const APEX: &str = "@";

/// Types of records whose data people enter. Addresses belong to a name, not to its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordType {
    /// Another name of something.
    Cname,
    /// Who takes mail.
    Mx,
    /// Who knows a domain below.
    Ns,
    /// Where a service is.
    Srv,
    /// Fingerprint of a host's SSH key.
    Sshfp,
    /// Text.
    Txt,
}

impl RecordType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cname,
        Self::Mx,
        Self::Ns,
        Self::Srv,
        Self::Sshfp,
        Self::Txt,
    ];

    /// The word in zones and in the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Srv => "SRV",
            Self::Sshfp => "SSHFP",
            Self::Txt => "TXT",
        }
    }

    /// The type of a word, in whatever case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|t| t.word().eq_ignore_ascii_case(word.trim()))
    }
}

/// Why a name or data cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// A name is empty or too long.
    #[error("a name has 1 to {NAME_MAX} characters")]
    Length,
    /// A label is empty or too long.
    #[error("each part between dots has 1 to {LABEL_MAX} characters")]
    Label,
    /// A label with other characters.
    #[error("'{0}' is not made of letters, digits and inner hyphens")]
    Characters(String),
    /// Data with the wrong number of words, or words of the wrong kind.
    #[error("the data of {} is: {}", .0.word(), form(*.0))]
    Form(RecordType),
    /// Data that is too long or has characters that no zone can hold.
    #[error("the data of a record is one line of at most {DATA_MAX} characters")]
    Data,
    /// The name of a service is not one.
    #[error("a service is named _service._protocol, with a name behind it or without one")]
    Service,
    /// An alias to itself.
    #[error("an alias cannot point to itself")]
    Loop,
}

const fn form(of: RecordType) -> &'static str {
    match of {
        RecordType::Cname | RecordType::Ns => "the name of a host",
        RecordType::Mx => "a preference from 0 to 65535 and the name of a host",
        RecordType::Srv => {
            "priority, weight and port, each from 0 to 65535, and the name of a host or a dot"
        }
        RecordType::Sshfp => {
            "the algorithm from 0 to 6, the kind of fingerprint from 0 to 2, and the fingerprint in hexadecimal"
        }
        RecordType::Txt => "text",
    }
}

fn check_label(label: &str) -> Result<(), DnsError> {
    if label.is_empty() || label.len() > LABEL_MAX {
        return Err(DnsError::Label);
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if label.chars().all(inner) && edge(label.chars().next()) && edge(label.chars().next_back()) {
        Ok(())
    } else {
        Err(DnsError::Characters(label.to_owned()))
    }
}

/// A name of a host or domain (RFC 1123 §2.1): labels of letters, digits and inner hyphens.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), DnsError> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(DnsError::Length);
    }
    name.split('.').try_for_each(check_label)
}

/// The name of something within a domain: labels, or `@` for the domain itself; the first label may be `*`
/// (RFC 4592), and labels may begin with an underscore (RFC 8552).
///
/// # Errors
/// What is wrong with it.
pub fn check_owner(name: &str) -> Result<(), DnsError> {
    if name == APEX {
        return Ok(());
    }
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(DnsError::Length);
    }
    for (n, label) in name.split('.').enumerate() {
        if n == 0 && label == "*" {
            continue;
        }
        if label.len() > LABEL_MAX {
            return Err(DnsError::Label);
        }
        check_label(label.strip_prefix('_').unwrap_or(label))?;
    }
    Ok(())
}

/// The name of a host as data: with a dot at its end or without one.
fn target(text: &str) -> bool {
    text == APEX || check_owner(text.strip_suffix('.').unwrap_or(text)).is_ok()
}

fn number(text: &str, most: u32) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok_and(|n| n <= most)
}

/// Checks a record: the name it stands under within its domain, and its data. Gives the data as it is kept.
///
/// # Errors
/// What is wrong with it.
pub fn check_record(name: &str, of: RecordType, data: &str) -> Result<String, DnsError> {
    let data = data.trim();
    if data.is_empty() || data.len() > DATA_MAX || data.chars().any(char::is_control) {
        return Err(DnsError::Data);
    }
    let words: Vec<&str> = data.split_ascii_whitespace().collect();
    let fits = match (of, words.as_slice()) {
        (RecordType::Txt, _) => true,
        (RecordType::Cname | RecordType::Ns, [host]) => target(host),
        (RecordType::Mx, [preference, host]) => number(preference, 65_535) && target(host),
        (RecordType::Srv, [priority, weight, port, host]) => {
            [priority, weight, port].iter().all(|n| number(n, 65_535))
                && (*host == "." || target(host))
        }
        (RecordType::Sshfp, [algorithm, kind, print]) => {
            number(algorithm, 6)
                && number(kind, 2)
                && print.len() % 2 == 0
                && print.bytes().all(|b| b.is_ascii_hexdigit())
        }
        _ => false,
    };
    if !fits {
        return Err(DnsError::Form(of));
    }
    if of == RecordType::Srv {
        // RFC 2782: _Service._Proto.Name
        let labels: Vec<&str> = name.split('.').collect();
        let service = |l: Option<&&str>| l.is_some_and(|l| l.len() > 1 && l.starts_with('_'));
        if !service(labels.first()) || !service(labels.get(1)) {
            return Err(DnsError::Service);
        }
    }
    if of == RecordType::Cname && words.first().is_some_and(|w| w.eq_ignore_ascii_case(name)) {
        return Err(DnsError::Loop);
    }
    Ok(match of {
        RecordType::Txt => data.to_owned(),
        _ => words.join(" "),
    })
}

/// What already stands under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Addresses.
    pub addresses: usize,
    /// Aliases.
    pub aliases: usize,
    /// Records of other types.
    pub others: usize,
}

/// Why a record cannot join what stands under its name (RFC 1034 §3.6.2, RFC 2181 §10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// There is an alias already.
    #[error("Only one CNAME can be associated with a name.")]
    SecondAlias,
    /// An alias beside something else.
    #[error("CNAME records for a name cannot coexist with non-CNAME records.")]
    AliasAndOther,
}

/// Whether a record of this type can join.
///
/// # Errors
/// Why not.
pub const fn joins(standing: Standing, of: RecordType) -> Result<(), Clash> {
    match of {
        RecordType::Cname if standing.aliases > 0 => Err(Clash::SecondAlias),
        RecordType::Cname if standing.others > 0 || standing.addresses > 0 => {
            Err(Clash::AliasAndOther)
        }
        RecordType::Cname => Ok(()),
        _ if standing.aliases > 0 => Err(Clash::AliasAndOther),
        _ => Ok(()),
    }
}

/// Splits a full name into the name within a domain and the domain, which is the longest that fits.
#[must_use]
pub fn split<'d>(
    fqdn: &str,
    domains: impl IntoIterator<Item = &'d str>,
) -> Option<(String, &'d str)> {
    let fqdn = fqdn.strip_suffix('.').unwrap_or(fqdn);
    domains
        .into_iter()
        .filter_map(|d| {
            if fqdn.eq_ignore_ascii_case(d) {
                return Some((APEX.to_owned(), d));
            }
            let at = fqdn.len().checked_sub(d.len() + 1)?;
            let (name, rest) = (fqdn.get(..at)?, fqdn.get(at..)?);
            let rest = rest.strip_prefix('.')?;
            (rest.eq_ignore_ascii_case(d) && !name.is_empty()).then(|| (name.to_owned(), d))
        })
        .max_by_key(|(_, d)| d.len())
}

/// The full name of a name within a domain.
#[must_use]
pub fn join(name: &str, domain: &str) -> String {
    if name == APEX {
        domain.to_owned()
    } else {
        format!("{name}.{domain}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_standards() {
        for good in ["maas", "a", "a-b.c", "1.2", "x--y", "EXAMPLE.org"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a_b",
            "a b",
            "ä",
            long.as_str(),
            "@",
            "*",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["@", "*", "*.sub", "_sip._tcp", "host"] {
            assert_eq!(check_owner(good), Ok(()), "{good}");
        }
        for bad in ["", "a.*", "__x", "_", "a b", "@.x"] {
            assert!(check_owner(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn data_has_the_form_of_its_type() {
        use RecordType::*;
        for (name, of, data) in [
            ("a", Cname, "b.example.org."),
            ("a", Cname, "b"),
            ("@", Mx, "10 mail.example.org"),
            ("sub", Ns, "ns1.example.org"),
            ("_sip._tcp", Srv, "0 5 5060 sip.example.org."),
            ("_sip._tcp.host", Srv, "0 0 0 ."),
            ("a", Sshfp, "1 1 aabbccdd"),
            ("a", Txt, "any thing; at \"all\""),
        ] {
            assert!(check_record(name, of, data).is_ok(), "{of:?} {data}");
        }
        for (name, of, data) in [
            ("a", Cname, ""),
            ("a", Cname, "b c"),
            ("a", Cname, "a"),
            ("@", Mx, "mail"),
            ("@", Mx, "65536 mail"),
            ("@", Mx, "-1 mail"),
            ("a", Ns, "not_a_name!"),
            ("host", Srv, "0 5 5060 sip"),
            ("_sip._tcp", Srv, "0 5 sip"),
            ("a", Sshfp, "1 1 xyz"),
            ("a", Sshfp, "9 1 aa"),
            ("a", Txt, "two\nlines"),
        ] {
            assert!(check_record(name, of, data).is_err(), "{of:?} {data}");
        }
    }

    #[test]
    fn an_alias_stands_alone() {
        let with = |addresses, aliases, others| Standing {
            addresses,
            aliases,
            others,
        };
        assert_eq!(joins(with(0, 0, 0), RecordType::Cname), Ok(()));
        assert_eq!(
            joins(with(0, 1, 0), RecordType::Cname),
            Err(Clash::SecondAlias)
        );
        assert_eq!(
            joins(with(1, 0, 0), RecordType::Cname),
            Err(Clash::AliasAndOther)
        );
        assert_eq!(
            joins(with(0, 0, 1), RecordType::Cname),
            Err(Clash::AliasAndOther)
        );
        assert_eq!(
            joins(with(0, 1, 0), RecordType::Txt),
            Err(Clash::AliasAndOther)
        );
        assert_eq!(joins(with(3, 0, 3), RecordType::Txt), Ok(()));
    }

    #[test]
    fn the_longest_domain_takes_the_name() {
        let domains = ["org", "example.org"];
        assert_eq!(
            split("a.b.example.org", domains),
            Some(("a.b".to_owned(), "example.org"))
        );
        assert_eq!(
            split("example.org.", domains),
            Some(("@".to_owned(), "example.org"))
        );
        assert_eq!(
            split("notexample.org", domains),
            Some(("notexample".to_owned(), "org"))
        );
        assert_eq!(split("example.com", domains), None);
    }

    proptest! {
        #[test]
        fn a_name_that_is_joined_is_split_again(name in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,3}", domain in "[a-z0-9]{1,8}(\\.[a-z]{1,8}){0,2}") {
            prop_assert_eq!(split(&join(&name, &domain), [domain.as_str()]), Some((name, domain.as_str())));
        }

        #[test]
        fn no_text_makes_it_panic(name in ".{0,80}", data in ".{0,80}") {
            for of in RecordType::ALL {
                // Whatever is accepted is accepted again as it is kept.
                if let Ok(kept) = check_record(&name, of, &data) {
                    prop_assert_eq!(check_record(&name, of, &kept), Ok(kept.clone()));
                }
            }
            let _name = split(&name, ["example.org", data.as_str()]);
        }
    }
}
