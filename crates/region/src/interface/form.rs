//! The fields of an interface in a request.

use std::collections::BTreeSet;

use metal::MacAddr;
use store::Tx;

use crate::args::Args;
use crate::error::ApiError;
use crate::interface::InterfaceRow;
use crate::node::NodeRow;
use crate::operation::{Kind, Param};

/// Longest name (Linux `IFNAMSIZ` - 1).
pub const MAX_NAME: usize = metal::interface::MAX_NAME;
/// Smallest MTU that the API takes.
pub const MIN_MTU: i64 = 552;
/// Largest MTU that an interface can have.
pub const MAX_MTU: i64 = 65_535;
/// Most tags of one interface or disk.
pub const MAX_TAGS: usize = 256;

const CHOICE: &str = "Select a valid choice. That choice is not one of the available choices.";

/// What may be given on creation and change.
pub const PARAMS: &[Param] = &[
    Param::opt("name", Kind::Text, "Name; the next ethN when left out."),
    Param::opt("mac_address", Kind::Text, "Hardware address."),
    Param::opt("tags", Kind::List, "Tags."),
    Param::opt("vlan", Kind::Text, "Id of its VLAN; empty disconnects it."),
    Param::opt("mtu", Kind::Text, "Largest packet, in bytes."),
    Param::opt(
        "accept_ra",
        Kind::Bool,
        "Accept IPv6 router advertisements.",
    ),
    Param::opt("link_connected", Kind::Bool, "Whether the cable is in."),
    Param::opt("interface_speed", Kind::Int, "What it can do, in Mbit/s."),
    Param::opt("link_speed", Kind::Int, "What it does, in Mbit/s."),
    Param::opt("enabled", Kind::Bool, "Whether it is configured at all."),
    Param::opt("numa_node", Kind::Int, "The NUMA node it is attached to."),
];

/// As [`PARAMS`], where the hardware address must be given.
pub const CREATE_PARAMS: &[Param] = &[
    PARAMS[0],
    Param::field("mac_address", Kind::Text, "Hardware address."),
    PARAMS[2],
    PARAMS[3],
    PARAMS[4],
    PARAMS[5],
    PARAMS[6],
    PARAMS[7],
    PARAMS[8],
    PARAMS[9],
    PARAMS[10],
];

/// The fields that a request names, checked. `None` is a field that it does not name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    /// Name.
    pub name: Option<String>,
    /// Hardware address.
    pub mac: Option<MacAddr>,
    /// Tags.
    pub tags: Option<Vec<String>>,
    /// Its VLAN, or none.
    pub vlan: Option<Option<i64>>,
    /// MTU, or the VLAN's.
    pub mtu: Option<Option<i64>>,
    /// Accept router advertisements.
    pub accept_ra: Option<bool>,
    /// Whether the cable is in.
    pub link_connected: Option<bool>,
    /// Mbit/s at best.
    pub interface_speed: Option<i64>,
    /// Mbit/s now.
    pub link_speed: Option<i64>,
    /// Whether it is configured at all.
    pub enabled: Option<bool>,
    /// NUMA node.
    pub numa_node: Option<i64>,
}

fn speed(args: &Args, name: &str) -> Result<Option<i64>, ApiError> {
    match args.int(name)? {
        Some(n) if n < 0 => Err(ApiError::field(
            name,
            "Ensure this value is greater than or equal to 0.",
        )),
        n => Ok(n),
    }
}

/// Checks a tag of an interface or a disk.
///
/// # Errors
/// 400 when it has other characters than letters, digits, `_`, `-`, `.`.
pub fn check_tag(tag: &str) -> Result<(), ApiError> {
    let fits = (1..=255).contains(&tag.len())
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if fits {
        Ok(())
    } else {
        Err(ApiError::field(
            "tag",
            "A tag has letters, digits and the characters _ - . only.",
        ))
    }
}

impl Fields {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 with the field that is wrong.
    pub fn from_args(args: &Args) -> Result<Self, ApiError> {
        let name = args.filled("name").map(str::trim).map(str::to_owned);
        if let Some(n) = &name {
            let fits = n.len() <= MAX_NAME
                && !matches!(n.as_str(), "." | "..")
                && n.bytes()
                    .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'#'));
            if !fits {
                return Err(ApiError::field(
                    "name",
                    format!("A name has at most {MAX_NAME} characters, without spaces, / : and #."),
                ));
            }
        }
        let mac = args
            .filled("mac_address")
            .map(|m| {
                m.parse::<MacAddr>().map_err(|_| {
                    ApiError::field(
                        "mac_address",
                        format!(
                            "'{}' is not a valid MAC address.",
                            m.chars().take(64).collect::<String>()
                        ),
                    )
                })
            })
            .transpose()?;
        let tags = args.has("tags").then(|| args.list("tags"));
        for t in tags.iter().flatten() {
            check_tag(t).map_err(|_| {
                ApiError::field(
                    "tags",
                    "A tag has letters, digits and the characters _ - . only.",
                )
            })?;
        }
        if tags.as_ref().is_some_and(|t| t.len() > MAX_TAGS) {
            return Err(ApiError::field(
                "tags",
                format!("At most {MAX_TAGS} tags are kept."),
            ));
        }
        let vlan = match args.text("vlan") {
            None => None,
            Some("") => Some(None),
            Some(v) => Some(Some(
                v.trim()
                    .parse()
                    .map_err(|_| ApiError::field("vlan", CHOICE))?,
            )),
        };
        let mtu = match args.text("mtu") {
            None => None,
            Some("") => Some(None),
            Some(_) => match args.int("mtu")? {
                Some(n) if (MIN_MTU..=MAX_MTU).contains(&n) => Some(Some(n)),
                _ => {
                    return Err(ApiError::field(
                        "mtu",
                        format!("Enter a number between {MIN_MTU} and {MAX_MTU}."),
                    ));
                }
            },
        };
        Ok(Self {
            name,
            mac,
            tags,
            vlan,
            mtu,
            accept_ra: args.bool("accept_ra")?,
            link_connected: args.bool("link_connected")?,
            interface_speed: speed(args, "interface_speed")?,
            link_speed: speed(args, "link_speed")?,
            enabled: args.bool("enabled")?,
            numa_node: speed(args, "numa_node")?,
        })
    }

    /// Only what can be said of an interface of a machine that runs its system.
    #[must_use]
    pub fn of_deployed(self) -> Self {
        Self {
            tags: None,
            vlan: None,
            mtu: None,
            accept_ra: None,
            enabled: None,
            numa_node: None,
            ..self
        }
    }

    /// Only what can be said of an interface of a controller: the rest is its host's own affair.
    #[must_use]
    pub fn of_controller(self) -> Self {
        Self {
            name: None,
            mac: None,
            vlan: self.vlan,
            ..self.of_deployed()
        }
    }

    /// Puts the fields into a row, after checking them against the other rows.
    ///
    /// # Errors
    /// 400 with the field that is wrong.
    pub async fn fill(
        &self,
        tx: &mut Tx,
        node: &NodeRow,
        row: &mut InterfaceRow,
    ) -> Result<(), ApiError> {
        if let Some(n) = &self.name {
            let taken = store::opt!(
                tx,
                (i64,),
                "SELECT id FROM interface WHERE node_id = $1 AND name = $2 AND id <> $3",
                node.id,
                n,
                row.id
            )?;
            if taken.is_some() {
                return Err(ApiError::field(
                    "name",
                    "Interface with this name already exists on this node.",
                ));
            }
            row.name.clone_from(n);
        }
        if let Some(m) = self.mac {
            let m = m.to_string();
            // What lies on a card may have its address.
            let owner = store::opt!(
                tx,
                (String,),
                "SELECT n.hostname FROM interface i JOIN node n ON n.id = i.node_id WHERE i.mac = $1 AND i.type = 'physical' AND i.id <> $2 \
                 AND ($3 OR i.node_id <> $4)",
                &m,
                row.id,
                row.r#type == "physical",
                node.id
            )?;
            if let Some((hostname,)) = owner {
                return Err(ApiError::field(
                    "mac_address",
                    format!("This MAC address is already in use by {hostname}."),
                ));
            }
            row.mac = Some(m);
        }
        if let Some(t) = &self.tags {
            let unique: BTreeSet<&String> = t.iter().collect();
            row.tags = serde_json::to_string(&unique).unwrap_or_default();
        }
        match self.vlan {
            None => {}
            Some(None) => row.vlan_id = None,
            Some(Some(id)) => {
                let known = store::opt!(tx, (i64,), "SELECT id FROM vlan WHERE id = $1", id)?;
                row.vlan_id = Some(known.ok_or_else(|| ApiError::field("vlan", CHOICE))?.0);
            }
        }
        let mut params = row.params_map();
        match self.mtu {
            None => {}
            Some(None) => {
                params.remove("mtu");
            }
            Some(Some(n)) => {
                params.insert("mtu".to_owned(), n.into());
            }
        }
        if let Some(a) = self.accept_ra {
            params.insert("accept_ra".to_owned(), a.into());
        }
        row.set_params(params);
        row.enabled = self.enabled.unwrap_or(row.enabled);
        row.numa_index = self.numa_node.or(row.numa_index);
        row.link_connected = self.link_connected.unwrap_or(row.link_connected);
        row.interface_speed = self.interface_speed.unwrap_or(row.interface_speed);
        row.link_speed = self.link_speed.unwrap_or(row.link_speed);
        if !row.link_connected {
            if self.link_speed.is_some_and(|s| s > 0) {
                return Err(ApiError::field(
                    "link_speed",
                    "There is no speed without a link: link_connected is false.",
                ));
            }
            row.link_speed = 0;
        }
        if row.interface_speed > 0 && row.link_speed > row.interface_speed {
            return Err(ApiError::field(
                "link_speed",
                "link_speed may not be greater than interface_speed.",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(query: &str) -> Result<Fields, ApiError> {
        let mut args = Args::default();
        args.push_urlencoded(query).unwrap();
        Fields::from_args(&args)
    }

    #[test]
    fn only_what_is_named_is_changed() {
        assert_eq!(fields("").unwrap(), Fields::default());
        let f = fields("vlan=&mtu=9000&tags=a,b&name=eth1").unwrap();
        assert_eq!((f.vlan, f.mtu), (Some(None), Some(Some(9000))));
        assert_eq!(
            f.tags.as_deref(),
            Some(&["a".to_owned(), "b".to_owned()][..])
        );
        let d = f.of_deployed();
        assert_eq!((d.vlan, d.mtu, d.tags), (None, None, None));
        assert_eq!(d.name.as_deref(), Some("eth1"));
    }

    #[test]
    fn what_no_interface_can_have_is_refused() {
        for bad in [
            "name=a%20b",
            "name=sixteen-chars-xx",
            "name=..",
            "mac_address=nope",
            "tags=a%20b",
            "vlan=x",
            "mtu=551",
            "mtu=65536",
            "mtu=x",
            "link_speed=-1",
            "accept_ra=perhaps",
        ] {
            assert!(matches!(fields(bad), Err(ApiError::Fields(_))), "{bad}");
        }
    }
}
