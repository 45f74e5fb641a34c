//! `interfaces=`: `label:key=value[,key=value];label2:…`. A key that stands there more than once is served
//! by any of its values; `not_key` by none of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_ITEMS, MAX_TEXT};

/// A text that is no interface constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not `label:key=value,…`.
    #[error(
        "Malformed interface constraint, \"{0}\": write it as label:key=value,key=value;label:…."
    )]
    Item(String),
    /// A key that there is not.
    #[error("\"{0}\" is not a key of interface constraints.")]
    Key(String),
    /// A value that the key cannot have.
    #[error("\"{value}\" is not a value of {key}.")]
    Value {
        /// The key.
        key: &'static str,
        /// The text.
        value: String,
    },
    /// The same label twice.
    #[error("Malformed interface constraint: the label \"{0}\" stands there twice.")]
    Repeated(String),
    /// Too much.
    #[error("An interface constraint may have at most {MAX_ITEMS} items and {MAX_TEXT} bytes.")]
    TooLong,
}

/// What can be asked of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Database id.
    Id,
    /// The fabric, by id or name.
    Fabric,
    /// The fabric's class.
    FabricClass,
    /// An address that it has.
    Ip,
    /// How it gets an address: `auto`, `static`, `dhcp`, `link_up`, `unconfigured`.
    Mode,
    /// Its name.
    Name,
    /// The machine's host name.
    Hostname,
    /// A subnet by id, name or CIDR.
    Subnet,
    /// The space of a subnet or of its VLAN, by id or name.
    Space,
    /// A subnet by its CIDR.
    SubnetCidr,
    /// A tag.
    Tag,
    /// `physical`, `bond`, `bridge`, `vlan`.
    Type,
    /// The VLAN, by id, name or number.
    Vlan,
    /// The VLAN's number.
    Vid,
    /// The rack that serves its VLAN, by system id.
    Rack,
    /// Its hardware address.
    Mac,
    /// Fewest Mbit/s.
    LinkSpeed,
}

/// Every key and its word.
pub const KEYS: [(Key, &str); 17] = [
    (Key::Id, "id"),
    (Key::Fabric, "fabric"),
    (Key::FabricClass, "fabric_class"),
    (Key::Ip, "ip"),
    (Key::Mode, "mode"),
    (Key::Name, "name"),
    (Key::Hostname, "hostname"),
    (Key::Subnet, "subnet"),
    (Key::Space, "space"),
    (Key::SubnetCidr, "subnet_cidr"),
    (Key::Tag, "tag"),
    (Key::Type, "type"),
    (Key::Vlan, "vlan"),
    (Key::Vid, "vid"),
    (Key::Rack, "rack"),
    (Key::Mac, "mac_address"),
    (Key::LinkSpeed, "link_speed"),
];

/// Whether the values are asked for or ruled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sense {
    /// One of the values.
    Is,
    /// None of the values.
    IsNot,
}

/// What is asked of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name under which the answer tells what was found.
    pub label: String,
    /// Values by key.
    pub asked: BTreeMap<(Key, Sense), BTreeSet<String>>,
}

/// A constraint: for each item an interface of the machine must serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraint {
    /// Its items.
    pub items: Vec<Item>,
}

/// A subnet of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// Database id.
    pub id: i64,
    /// Name.
    pub name: String,
    /// CIDR.
    pub cidr: String,
    /// Its space's id and name.
    pub space: Option<(i64, String)>,
}

/// An interface as constraints see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // as the keys of [`Key`] say
pub struct Interface {
    pub id: i64,
    pub name: String,
    pub kind: String,
    pub mac: Option<String>,
    pub hostname: String,
    pub link_speed: i64,
    pub tags: BTreeSet<String>,
    pub fabric: Option<(i64, String)>,
    pub fabric_class: Option<String>,
    /// Id, name and number of its VLAN.
    pub vlan: Option<(i64, String, i64)>,
    /// Space of its VLAN.
    pub space: Option<(i64, String)>,
    pub racks: BTreeSet<String>,
    pub subnets: Vec<Subnet>,
    pub ips: BTreeSet<String>,
    pub modes: BTreeSet<String>,
}

fn number(key: Key) -> bool {
    matches!(key, Key::Id | Key::Vid | Key::LinkSpeed)
}

fn key_of(word: &str) -> Option<(Key, Sense)> {
    let find = |w: &str| KEYS.iter().find(|(_, k)| *k == w).map(|(k, _)| *k);
    match word.strip_prefix("not_") {
        Some(rest) => find(rest).map(|k| (k, Sense::IsNot)),
        None => find(word).map(|k| (k, Sense::Is)),
    }
}

impl std::str::FromStr for Constraint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_TEXT {
            return Err(Malformed::TooLong);
        }
        let mut items: Vec<Item> = Vec::new();
        let mut asked = 0;
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let malformed = || Malformed::Item(part.chars().take(64).collect());
            let (label, rest) = part.split_once(':').ok_or_else(malformed)?;
            let label = label.trim();
            if label.is_empty() || label.contains(['=', ',']) {
                return Err(malformed());
            }
            if items.iter().any(|i| i.label == label) {
                return Err(Malformed::Repeated(label.to_owned()));
            }
            let mut item = Item {
                label: label.to_owned(),
                asked: BTreeMap::new(),
            };
            for pair in rest.split(',') {
                let (word, value) = pair.split_once('=').ok_or_else(malformed)?;
                let (word, value) = (word.trim(), value.trim());
                let (key, sense) =
                    key_of(word).ok_or_else(|| Malformed::Key(word.chars().take(64).collect()))?;
                if value.is_empty() {
                    return Err(malformed());
                }
                if number(key) && value.parse::<i64>().is_err() {
                    return Err(Malformed::Value {
                        key: KEYS.iter().find(|(k, _)| *k == key).map_or("", |(_, w)| w),
                        value: value.chars().take(64).collect(),
                    });
                }
                asked += 1;
                item.asked
                    .entry((key, sense))
                    .or_default()
                    .insert(value.to_owned());
            }
            items.push(item);
            if asked > MAX_ITEMS {
                return Err(Malformed::TooLong);
            }
        }
        Ok(Self { items })
    }
}

/// Whether a value names this thing: its id, its name, or either behind a word (`space:prod`).
fn names(value: &str, id: i64, name: &str) -> bool {
    let bare = value.split_once(':').map_or(value, |(_, v)| v);
    value == name || bare == name || bare.parse() == Ok(id)
}

impl Interface {
    fn has(&self, key: Key, value: &str) -> bool {
        let named = |of: &Option<(i64, String)>| {
            of.as_ref()
                .is_some_and(|(id, name)| names(value, *id, name))
        };
        match key {
            Key::Id => value.parse() == Ok(self.id),
            Key::Fabric => named(&self.fabric),
            Key::FabricClass => self.fabric_class.as_deref() == Some(value),
            Key::Ip => self.ips.contains(value),
            Key::Mode => self.modes.contains(&value.to_ascii_lowercase()),
            Key::Name => self.name == value,
            Key::Hostname => self.hostname == value,
            Key::Subnet => self.subnets.iter().any(|s| {
                names(value, s.id, &s.name)
                    || s.cidr == value
                    || format!("cidr:{}", s.cidr) == value
            }),
            Key::Space => named(&self.space) || self.subnets.iter().any(|s| named(&s.space)),
            Key::SubnetCidr => self.subnets.iter().any(|s| s.cidr == value),
            Key::Tag => self.tags.contains(value),
            Key::Type => self.kind == value,
            Key::Vlan => self.vlan.as_ref().is_some_and(|(id, name, vid)| {
                names(value, *id, name) || value == format!("vid:{vid}")
            }),
            Key::Vid => self
                .vlan
                .as_ref()
                .is_some_and(|(_, _, vid)| value.parse() == Ok(*vid)),
            Key::Rack => self.racks.contains(value),
            Key::Mac => self
                .mac
                .as_ref()
                .is_some_and(|m| m.eq_ignore_ascii_case(value)),
            Key::LinkSpeed => value
                .parse::<i64>()
                .is_ok_and(|least| self.link_speed >= least),
        }
    }
}

impl Item {
    /// Whether an interface is what is asked for.
    #[must_use]
    pub fn fits(&self, i: &Interface) -> bool {
        self.asked.iter().all(|((key, sense), values)| {
            let any = values.iter().any(|v| i.has(*key, v));
            match sense {
                Sense::Is => any,
                Sense::IsNot => !any,
            }
        })
    }
}

impl Constraint {
    /// The interfaces that serve each label, as `constraints_by_type.interfaces` answers it; none when a
    /// label has none.
    #[must_use]
    pub fn by_label(&self, interfaces: &[Interface]) -> Option<BTreeMap<String, Vec<i64>>> {
        let mut out = BTreeMap::new();
        for item in &self.items {
            let mut ids: Vec<i64> = interfaces
                .iter()
                .filter(|i| item.fits(i))
                .map(|i| i.id)
                .collect();
            if ids.is_empty() {
                return None;
            }
            ids.sort_unstable();
            out.insert(item.label.clone(), ids);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port() -> Interface {
        let set = |t: &[&str]| t.iter().map(|t| (*t).to_owned()).collect::<BTreeSet<_>>();
        Interface {
            id: 5,
            name: "eth0".to_owned(),
            kind: "physical".to_owned(),
            mac: Some("52:54:00:aa:bb:cc".to_owned()),
            hostname: "crab".to_owned(),
            link_speed: 10_000,
            tags: set(&["sriov"]),
            fabric: Some((3, "fabric-3".to_owned())),
            fabric_class: Some("10g".to_owned()),
            vlan: Some((9, "lab".to_owned(), 100)),
            space: Some((2, "prod".to_owned())),
            racks: set(&["4y3h7n"]),
            subnets: vec![Subnet {
                id: 11,
                name: "net".to_owned(),
                cidr: "10.0.0.0/24".to_owned(),
                space: Some((2, "prod".to_owned())),
            }],
            ips: set(&["10.0.0.7"]),
            modes: set(&["auto"]),
        }
    }

    fn fits(text: &str) -> bool {
        let c: Constraint = format!("a:{text}").parse().unwrap();
        c.by_label(&[port()]).is_some()
    }

    #[test]
    fn every_key_is_answered_and_denied() {
        let right = [
            "id=5",
            "fabric=3",
            "fabric=fabric-3",
            "fabric_class=10g",
            "ip=10.0.0.7",
            "mode=AUTO",
            "name=eth0",
            "hostname=crab",
            "subnet=11",
            "subnet=net",
            "subnet=10.0.0.0/24",
            "subnet=cidr:10.0.0.0/24",
            "space=prod",
            "space=space:prod",
            "subnet_cidr=10.0.0.0/24",
            "tag=sriov",
            "type=physical",
            "vlan=9",
            "vlan=vid:100",
            "vid=100",
            "rack=4y3h7n",
            "mac_address=52:54:00:AA:BB:CC",
            "link_speed=1000",
        ];
        let mut keys = BTreeSet::new();
        for r in right {
            assert!(fits(r), "{r}");
            assert!(!fits(&format!("not_{r}")), "not_{r}");
            keys.insert(r.split('=').next().unwrap().to_owned());
        }
        assert_eq!(keys.len(), KEYS.len(), "every key was tried");
        for (_, word) in KEYS {
            assert!(!fits(&format!("{word}=999999")), "{word}");
            assert!(fits(&format!("not_{word}=999999")), "not_{word}");
        }
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_add_up() {
        assert!(fits("name=eth9,name=eth0"));
        assert!(!fits("name=eth0,tag=none"));
        let c: Constraint = "a:space=prod;b:name=eth0,not_tag=x".parse().unwrap();
        let second = Interface {
            id: 6,
            name: "eth1".to_owned(),
            ..port()
        };
        let found = c.by_label(&[second, port()]).unwrap();
        assert_eq!((&found["a"], &found["b"]), (&vec![5, 6], &vec![5]));
        assert_eq!(c.by_label(&[]), None);
    }

    #[test]
    fn what_is_malformed_is_told() {
        for bad in ["a", "a:", "a:name", ":name=x", "a:name=", "a=b:name=x"] {
            assert!(
                matches!(bad.parse::<Constraint>(), Err(Malformed::Item(_))),
                "{bad}"
            );
        }
        assert_eq!(
            "a:nope=1".parse::<Constraint>(),
            Err(Malformed::Key("nope".to_owned()))
        );
        assert!(matches!(
            "a:vid=x".parse::<Constraint>(),
            Err(Malformed::Value { key: "vid", .. })
        ));
        assert_eq!(
            "a:id=1;a:id=2".parse::<Constraint>(),
            Err(Malformed::Repeated("a".to_owned()))
        );
        let long: Vec<String> = (0..=MAX_ITEMS).map(|n| format!("id={n}")).collect();
        assert_eq!(
            format!("a:{}", long.join(",")).parse::<Constraint>(),
            Err(Malformed::TooLong)
        );
    }

    proptest! {
        #[test]
        fn reading_and_matching_never_panic(text in "[a-c:;,=]{0,20}|([ab]:(not_)?(id|vid|tag|space|link_speed)=[0-9a-z:]{1,4};?){0,3}") {
            if let Ok(c) = text.parse::<Constraint>() {
                let found = c.by_label(&[port()]);
                prop_assert!(found.is_none_or(|f| f.len() == c.items.len()));
            }
        }

        #[test]
        fn not_is_the_opposite(n in 0_usize..17, value in "[0-9]{1,3}|eth0|net|prod|auto") {
            let text = |not: &str| format!("a:{not}{}={value}", KEYS[n].1).parse::<Constraint>();
            if let (Ok(is), Ok(is_not)) = (text(""), text("not_")) {
                prop_assert_ne!(is.by_label(&[port()]).is_some(), is_not.by_label(&[port()]).is_some());
            }
        }
    }
}
