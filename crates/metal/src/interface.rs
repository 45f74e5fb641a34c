//! Network interfaces of machines: of what each kind is made.

use crate::MacAddr;

/// Longest name of an interface (Linux `IFNAMSIZ` - 1).
pub const MAX_NAME: usize = 15;

/// Kinds of interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A card.
    Physical,
    /// Several cards as one.
    Bond,
    /// A switch with one port of the machine.
    Bridge,
    /// The tagged packets of another interface.
    Vlan,
    /// What the API knows beside these.
    Other,
}

impl Kind {
    /// The kind of a word of the API.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "physical" => Self::Physical,
            "bond" => Self::Bond,
            "bridge" => Self::Bridge,
            "vlan" => Self::Vlan,
            _ => Self::Other,
        }
    }

    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Bond => "bond",
            Self::Bridge => "bridge",
            Self::Vlan => "vlan",
            Self::Other => "unknown",
        }
    }

    /// Whether an interface of this kind takes its parents over: they have no address of their own then.
    #[must_use]
    pub const fn takes_over(self) -> bool {
        matches!(self, Self::Bond | Self::Bridge)
    }

    /// Whether it can lie on one of that kind.
    #[must_use]
    pub const fn lies_on(self, parent: Self) -> bool {
        match self {
            Self::Bond => matches!(parent, Self::Physical),
            Self::Bridge => matches!(parent, Self::Physical | Self::Bond | Self::Vlan),
            Self::Vlan => matches!(parent, Self::Physical | Self::Bond | Self::Bridge),
            Self::Physical | Self::Other => false,
        }
    }
}

/// An interface that another one is to lie on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its VLAN.
    pub vlan: Option<i64>,
    /// Its hardware address.
    pub mac: Option<MacAddr>,
    /// Whether the machine boots from it.
    pub boots: bool,
    /// The name of what has taken it over already.
    pub taken_by: Option<String>,
}

/// Why an interface cannot lie on others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParentError {
    /// There is none.
    #[error("A {} interface must have {}.", .0.word(), if matches!(.0, Kind::Bond) { "one or more parents" } else { "exactly one parent" })]
    Number(Kind),
    /// It has some, and cannot.
    #[error("A physical interface cannot have parents.")]
    Physical,
    /// One is of a kind that it cannot lie on.
    #[error("A {} interface cannot lie on {name}, which is a {} interface.", kind.word(), parent.word())]
    Kind {
        /// What was to be made.
        kind: Kind,
        /// The parent.
        name: String,
        /// Its kind.
        parent: Kind,
    },
    /// Some belong to another bond or bridge.
    #[error("Interfaces already in-use: {}.", .0.join(", "))]
    Taken(Vec<String>),
    /// They are in different VLANs.
    #[error("The parents are in different VLANs; put them into one first: {}.", .0.join(", "))]
    Vlans(Vec<String>),
}

/// Checks what an interface is to lie on.
///
/// # Errors
/// Why it cannot.
pub fn check_parents(kind: Kind, parents: &[Parent]) -> Result<(), ParentError> {
    match (kind, parents.len()) {
        (Kind::Physical | Kind::Other, 0) => return Ok(()),
        (Kind::Physical | Kind::Other, _) => return Err(ParentError::Physical),
        (Kind::Bond, 1..) | (Kind::Bridge | Kind::Vlan, 1) => {}
        _ => return Err(ParentError::Number(kind)),
    }
    if let Some(p) = parents.iter().find(|p| !kind.lies_on(p.kind)) {
        return Err(ParentError::Kind {
            kind,
            name: p.name.clone(),
            parent: p.kind,
        });
    }
    let taken: Vec<String> = parents
        .iter()
        .filter(|p| p.taken_by.is_some())
        .map(|p| p.name.clone())
        .collect();
    if !taken.is_empty() {
        return Err(ParentError::Taken(taken));
    }
    let mut known = parents.iter().filter_map(|p| p.vlan);
    let first = known.next();
    if known.any(|v| Some(v) != first) {
        return Err(ParentError::Vlans(
            parents.iter().map(|p| p.name.clone()).collect(),
        ));
    }
    Ok(())
}

/// The hardware address of an interface on these parents when none is named: that of the card the machine
/// boots from, else the first one.
#[must_use]
pub fn inherited_mac(parents: &[Parent]) -> Option<MacAddr> {
    let boots = parents.iter().find(|p| p.boots && p.mac.is_some());
    boots
        .or_else(|| parents.iter().find(|p| p.mac.is_some()))
        .and_then(|p| p.mac)
}

/// The VLAN of the parents.
#[must_use]
pub fn inherited_vlan(parents: &[Parent]) -> Option<i64> {
    parents.iter().find_map(|p| p.vlan)
}

/// The name of a VLAN interface.
#[must_use]
pub fn vlan_name(parent: &str, vid: i64) -> String {
    format!("{parent}.{vid}")
}

/// The name of a bridge for which none is given.
#[must_use]
pub fn bridge_name(parent: &str) -> String {
    format!("br-{parent}").chars().take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parent(name: &str, kind: Kind, vlan: Option<i64>) -> Parent {
        Parent {
            name: name.to_owned(),
            kind,
            vlan,
            mac: None,
            boots: false,
            taken_by: None,
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        use Kind::{Bond, Bridge, Physical, Vlan};
        let a = parent("eth0", Physical, Some(1));
        let b = parent("eth1", Physical, Some(2));
        let bond = parent("bond0", Bond, Some(1));
        let said = |kind, parents: &[Parent]| check_parents(kind, parents).unwrap_err().to_string();
        assert_eq!(check_parents(Bond, std::slice::from_ref(&a)), Ok(()));
        assert_eq!(
            said(Bond, &[]),
            "A bond interface must have one or more parents."
        );
        assert_eq!(
            said(Vlan, &[a.clone(), a.clone()]),
            "A vlan interface must have exactly one parent."
        );
        assert_eq!(
            said(Bond, std::slice::from_ref(&bond)),
            "A bond interface cannot lie on bond0, which is a bond interface."
        );
        assert!(said(Bond, &[a.clone(), b]).starts_with("The parents are in different VLANs"));
        let taken = Parent {
            taken_by: Some("br0".into()),
            ..bond
        };
        assert_eq!(said(Bridge, &[taken]), "Interfaces already in-use: bond0.");
        assert_eq!(
            said(Physical, &[a]),
            "A physical interface cannot have parents."
        );
    }

    #[test]
    fn the_card_that_boots_gives_its_address() {
        let mac = |n| Some(MacAddr([2, 0, 0, 0, 0, n]));
        let mut all = [
            Parent {
                mac: mac(1),
                ..parent("a", Kind::Physical, None)
            },
            Parent {
                mac: mac(2),
                ..parent("b", Kind::Physical, Some(7))
            },
        ];
        assert_eq!(
            (inherited_mac(&all), inherited_vlan(&all)),
            (mac(1), Some(7))
        );
        all[1].boots = true;
        assert_eq!(inherited_mac(&all), mac(2));
        assert_eq!(bridge_name("enp0s31f6np1"), "br-enp0s31f6np1");
        assert_eq!(bridge_name("enp0s31f6np12345").len(), MAX_NAME);
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_free_of_a_kind_and_in_one_vlan(
            kind in 0usize..4,
            parents in prop::collection::vec((0usize..5, prop::option::of(0i64..3), any::<bool>()), 0..4),
        ) {
            const KINDS: [Kind; 5] = [Kind::Physical, Kind::Bond, Kind::Bridge, Kind::Vlan, Kind::Other];
            let parents: Vec<Parent> = parents.into_iter().enumerate().map(|(n, (k, vlan, taken))| Parent {
                taken_by: taken.then(|| "br0".to_owned()),
                ..parent(&format!("eth{n}"), KINDS[k], vlan)
            }).collect();
            let kind = KINDS[kind];
            if check_parents(kind, &parents).is_ok() {
                prop_assert!(parents.iter().all(|p| kind.lies_on(p.kind) && p.taken_by.is_none()));
                let vlans: std::collections::BTreeSet<i64> = parents.iter().filter_map(|p| p.vlan).collect();
                prop_assert!(vlans.len() <= 1);
                prop_assert_eq!(parents.is_empty(), kind == Kind::Physical);
            }
        }
    }
}
