//! How people name networks and devices: a number, a name, or a word, a colon and what it is about.
//!
//! | | plain | with a word |
//! |---|---|---|
//! | fabric | id or name | `id:`, `name:`, `class:` |
//! | VLAN | number on the wire, `untagged`, or name | `id:`, `vid:`, `name:`, `space:`, `fabric:` and a fabric |
//! | subnet | id, network or name | `id:`, `name:`, `cidr:`, `ip:`, `space:`, `vid:`, `vlan:` and a VLAN, `fabric:` and a fabric |

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Device, Fabric, Net, Vlan};

/// A name of something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The word before the colon.
    #[error("'{word}:' cannot be asked for here; use one of: {known}")]
    Word {
        /// What was written.
        word: String,
        /// What could be.
        known: &'static str,
    },
    /// What stands behind the colon.
    #[error("'{text}' is no {what}")]
    Value {
        /// What was written.
        text: String,
        /// What it should be.
        what: &'static str,
    },
    /// A device without `key=value`.
    #[error("'{0}' is not of the form key=value")]
    Pair(String),
}

fn number(text: &str) -> Result<i64, SpecError> {
    text.parse().map_err(|_| SpecError::Value {
        text: text.to_owned(),
        what: "number",
    })
}

fn word_of(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((w, rest))
            if !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') =>
        {
            (Some(w), rest)
        }
        _ => (None, text),
    }
}

/// A fabric, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FabricSpec {
    /// By id.
    Id(i64),
    /// By name.
    Name(String),
    /// By class.
    Class(String),
}

impl FromStr for FabricSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match word_of(text) {
            (None, t) => Ok(t
                .parse()
                .map_or_else(|_| Self::Name(t.to_owned()), Self::Id)),
            (Some("id"), t) => number(t).map(Self::Id),
            (Some("name"), t) => Ok(Self::Name(t.to_owned())),
            (Some("class"), t) => Ok(Self::Class(t.to_owned())),
            (Some(w), _) => Err(SpecError::Word {
                word: w.to_owned(),
                known: "id, name, class",
            }),
        }
    }
}

impl FabricSpec {
    /// Whether this fabric is meant.
    #[must_use]
    pub fn is(&self, f: &Fabric) -> bool {
        match self {
            Self::Id(id) => *id == f.id,
            Self::Name(n) => *n == f.name,
            Self::Class(c) => f.class.as_ref() == Some(c),
        }
    }
}

/// A VLAN, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VlanSpec {
    /// By database id.
    Id(i64),
    /// By its number on the wire.
    Vid(i64),
    /// By name.
    Name(String),
    /// Every VLAN of a space.
    Space(String),
    /// Every VLAN of a fabric.
    Fabric(FabricSpec),
}

impl FromStr for VlanSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match word_of(text) {
            (None | Some("vid"), "untagged") => Ok(Self::Vid(0)),
            (None, t) => Ok(t
                .parse()
                .map_or_else(|_| Self::Name(t.to_owned()), Self::Vid)),
            (Some("id"), t) => number(t).map(Self::Id),
            (Some("vid"), t) => number(t).map(Self::Vid),
            (Some("name"), t) => Ok(Self::Name(t.to_owned())),
            (Some("space"), t) => Ok(Self::Space(t.to_owned())),
            (Some("fabric"), t) => t.parse().map(Self::Fabric),
            (Some(w), _) => Err(SpecError::Word {
                word: w.to_owned(),
                known: "id, vid, name, space, fabric",
            }),
        }
    }
}

fn is_space(asked: &str, space: Option<&(i64, String)>) -> bool {
    space.is_some_and(|(id, name)| super::names(asked, name, *id))
}

impl VlanSpec {
    /// Whether this VLAN is meant.
    #[must_use]
    pub fn is(&self, v: &Vlan) -> bool {
        match self {
            Self::Id(id) => *id == v.id,
            Self::Vid(vid) => *vid == v.vid,
            Self::Name(n) => *n == v.name,
            Self::Space(s) => is_space(s, v.space.as_ref()),
            Self::Fabric(f) => f.is(&v.fabric),
        }
    }
}

/// A subnet, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubnetSpec {
    /// By id.
    Id(i64),
    /// By name.
    Name(String),
    /// By its network.
    Cidr(IpNet),
    /// The one with this address in it.
    Ip(IpAddr),
    /// Every subnet of a space.
    Space(String),
    /// Every subnet of a VLAN.
    Vlan(VlanSpec),
}

impl FromStr for SubnetSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let cidr = |t: &str| {
            t.parse::<IpNet>()
                .map(|n| Self::Cidr(n.trunc()))
                .map_err(|_| SpecError::Value {
                    text: t.to_owned(),
                    what: "network",
                })
        };
        // IPv6 networks have colons of their own.
        if let Ok(plain) = cidr(text) {
            return Ok(plain);
        }
        match word_of(text) {
            (None, t) => Ok(t
                .parse()
                .map_or_else(|_| Self::Name(t.to_owned()), Self::Id)),
            (Some("id"), t) => number(t).map(Self::Id),
            (Some("name"), t) => Ok(Self::Name(t.to_owned())),
            (Some("cidr"), t) => cidr(t),
            (Some("ip"), t) => t.parse().map(Self::Ip).map_err(|_| SpecError::Value {
                text: t.to_owned(),
                what: "IP address",
            }),
            (Some("space"), t) => Ok(Self::Space(t.to_owned())),
            (Some("vid"), t) => format!("vid:{t}").parse().map(Self::Vlan),
            (Some("vlan"), t) => t.parse().map(Self::Vlan),
            (Some("fabric"), t) => t.parse().map(|f| Self::Vlan(VlanSpec::Fabric(f))),
            (Some(w), _) => Err(SpecError::Word {
                word: w.to_owned(),
                known: "id, name, cidr, ip, space, vid, vlan, fabric",
            }),
        }
    }
}

impl SubnetSpec {
    /// Whether this subnet is meant.
    #[must_use]
    pub fn is(&self, n: &Net) -> bool {
        match self {
            Self::Id(id) => *id == n.id,
            Self::Name(name) => *name == n.name,
            Self::Cidr(c) => *c == n.cidr,
            Self::Ip(ip) => n.cidr.contains(ip),
            Self::Space(s) => is_space(s, n.space.as_ref()),
            Self::Vlan(v) => v.is(&n.vlan),
        }
    }
}

/// A device: each part of it that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSpec(Vec<(DeviceKey, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceKey {
    Bus,
    Vendor,
    Product,
    VendorName,
    ProductName,
    Driver,
    Hardware,
}

const DEVICE_KEYS: [(&str, DeviceKey); 7] = [
    ("bus", DeviceKey::Bus),
    ("vendor_id", DeviceKey::Vendor),
    ("product_id", DeviceKey::Product),
    ("vendor_name", DeviceKey::VendorName),
    ("product_name", DeviceKey::ProductName),
    ("commissioning_driver", DeviceKey::Driver),
    ("hardware_type", DeviceKey::Hardware),
];

impl DeviceSpec {
    /// Reads `key=value` pairs with commas between; several devices stand apart by semicolons.
    ///
    /// # Errors
    /// For a pair that is none, or a key that devices do not have.
    pub fn parse(text: &str) -> Result<Vec<Self>, SpecError> {
        text.split(';')
            .filter(|d| !d.trim().is_empty())
            .map(|device| {
                device
                    .split(',')
                    .filter(|p| !p.trim().is_empty())
                    .map(|pair| {
                        let (key, value) = pair
                            .split_once('=')
                            .ok_or_else(|| SpecError::Pair(pair.trim().to_owned()))?;
                        let key = key.trim();
                        let known = DEVICE_KEYS.iter().find(|(w, _)| *w == key);
                        let (_, key) = known.ok_or_else(|| SpecError::Word {
                            word: key.to_owned(),
                            known: "bus, vendor_id, product_id, vendor_name, product_name, commissioning_driver, hardware_type",
                        })?;
                        Ok((*key, value.trim().to_ascii_lowercase()))
                    })
                    .collect::<Result<Vec<_>, _>>()
                    .map(Self)
            })
            .collect()
    }

    /// Whether this device is meant.
    #[must_use]
    pub fn is(&self, d: &Device) -> bool {
        self.0.iter().all(|(key, asked)| {
            let has = match key {
                DeviceKey::Bus => &d.bus,
                DeviceKey::Vendor => &d.vendor_id,
                DeviceKey::Product => &d.product_id,
                DeviceKey::VendorName => &d.vendor_name,
                DeviceKey::ProductName => &d.product_name,
                DeviceKey::Driver => &d.commissioning_driver,
                DeviceKey::Hardware => &d.hardware_type,
            };
            has.eq_ignore_ascii_case(asked)
        })
    }
}
