//! Interfaces that are made of others: bonds, bridges, VLAN interfaces.

use std::collections::BTreeSet;

use metal::Timestamp;
use metal::interface::{
    Kind, Parent, bridge_name, check_parents, inherited_mac, inherited_vlan, vlan_name,
};
use serde_json::{Map, Value};
use store::Tx;

use super::form::{self, Fields};
use super::{InterfaceRow, link};
use crate::args::Args;
use crate::error::ApiError;
use crate::node::NodeRow;
use crate::operation::{Kind as ParamKind, Param};
use crate::{select_interface, select_vlan, vlan};

const BOND_MODES: &[&str] = &[
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
];
const LACP_RATES: &[&str] = &["fast", "slow"];
const HASH_POLICIES: &[&str] = &["layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4"];
const BRIDGE_TYPES: &[&str] = &["standard", "ovs"];

/// How one parameter of a bond or a bridge is read.
enum Rule {
    /// One of these words.
    Word(&'static [&'static str], &'static str),
    /// A number from 0 to the first one; the second when left out.
    Number(i64, i64),
    /// Yes or no.
    Flag(bool),
}

const BOND: &[(&str, Rule)] = &[
    ("bond_mode", Rule::Word(BOND_MODES, "balance-rr")),
    ("bond_miimon", Rule::Number(i64::MAX, 100)),
    ("bond_downdelay", Rule::Number(i64::MAX, 0)),
    ("bond_updelay", Rule::Number(i64::MAX, 0)),
    ("bond_lacp_rate", Rule::Word(LACP_RATES, "fast")),
    ("bond_xmit_hash_policy", Rule::Word(HASH_POLICIES, "layer2")),
    ("bond_num_grat_arp", Rule::Number(255, 1)),
];
const BRIDGE: &[(&str, Rule)] = &[
    ("bridge_type", Rule::Word(BRIDGE_TYPES, "standard")),
    ("bridge_stp", Rule::Flag(false)),
    ("bridge_fd", Rule::Number(i64::MAX, 15)),
];

const PARENTS: Param = Param::opt(
    "parents",
    ParamKind::List,
    "The interfaces it lies on, by id or name.",
);
const PARENT: Param = Param::opt("parent", ParamKind::Text, "The interface it lies on.");
const BOND_PARAMS: [Param; 7] = [
    Param::opt("bond_mode", ParamKind::Text, "Mode of the bond."),
    Param::opt(
        "bond_miimon",
        ParamKind::Int,
        "Milliseconds between looks at the links.",
    ),
    Param::opt(
        "bond_downdelay",
        ParamKind::Int,
        "Milliseconds until a lost link is given up.",
    ),
    Param::opt(
        "bond_updelay",
        ParamKind::Int,
        "Milliseconds until a new link is used.",
    ),
    Param::opt("bond_lacp_rate", ParamKind::Text, "802.3ad: fast or slow."),
    Param::opt(
        "bond_xmit_hash_policy",
        ParamKind::Text,
        "What decides over which card a packet leaves.",
    ),
    Param::opt(
        "bond_num_grat_arp",
        ParamKind::Int,
        "Announcements after a change of the card.",
    ),
];
const BRIDGE_PARAMS: [Param; 3] = [
    Param::opt("bridge_type", ParamKind::Text, "standard or ovs."),
    Param::opt("bridge_stp", ParamKind::Bool, "Spanning tree."),
    Param::opt(
        "bridge_fd",
        ParamKind::Int,
        "Seconds until a new port forwards.",
    ),
];
const F: &[Param] = form::PARAMS;

/// Parameters of `create_bond`.
pub const CREATE_BOND: &[Param] = &[
    Param::field("name", ParamKind::Text, "Name."),
    Param::field(
        "parents",
        ParamKind::List,
        "The cards, by id or name, the name of the parameter repeated.",
    ),
    BOND_PARAMS[0],
    BOND_PARAMS[1],
    BOND_PARAMS[2],
    BOND_PARAMS[3],
    BOND_PARAMS[4],
    BOND_PARAMS[5],
    BOND_PARAMS[6],
    F[1],
    F[2],
    F[3],
    F[4],
    F[5],
    F[6],
    F[7],
    F[8],
];
/// Parameters of `create_bridge`.
pub const CREATE_BRIDGE: &[Param] = &[
    Param::opt("name", ParamKind::Text, "Name; br-PARENT when left out."),
    PARENT,
    PARENTS,
    BRIDGE_PARAMS[0],
    BRIDGE_PARAMS[1],
    BRIDGE_PARAMS[2],
    F[1],
    F[2],
    F[3],
    F[4],
    F[5],
    F[6],
    F[7],
    F[8],
];
/// Parameters of `create_vlan`.
pub const CREATE_VLAN: &[Param] = &[
    Param::field("vlan", ParamKind::Text, "Id of the tagged VLAN."),
    Param::field("parent", ParamKind::Text, "The interface it lies on."),
    PARENTS,
    F[2],
    F[4],
    F[5],
    F[6],
    F[7],
    F[8],
];
/// Parameters of an update, for interfaces of every kind.
pub const UPDATE: &[Param] = &[
    F[0],
    F[1],
    F[2],
    F[3],
    F[4],
    F[5],
    F[6],
    F[7],
    F[8],
    F[9],
    F[10],
    PARENT,
    PARENTS,
    BOND_PARAMS[0],
    BOND_PARAMS[1],
    BOND_PARAMS[2],
    BOND_PARAMS[3],
    BOND_PARAMS[4],
    BOND_PARAMS[5],
    BOND_PARAMS[6],
    BRIDGE_PARAMS[0],
    BRIDGE_PARAMS[1],
    BRIDGE_PARAMS[2],
];

/// The sentence of forms for a word that is not on the list.
pub(super) fn no_choice(text: &str) -> String {
    format!(
        "Select a valid choice. {} is not one of the available choices.",
        text.chars().take(64).collect::<String>()
    )
}

/// Puts the parameters of a kind that a request names into `params`; those that are missing get their
/// defaults.
///
/// # Errors
/// 400 with the field that is wrong.
pub fn fill_params(
    kind: Kind,
    args: &Args,
    params: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let rules = match kind {
        Kind::Bond => BOND,
        Kind::Bridge => BRIDGE,
        Kind::Physical | Kind::Vlan | Kind::Other => return Ok(()),
    };
    for (name, rule) in rules {
        let (given, default): (Option<Value>, Value) = match rule {
            Rule::Word(words, default) => {
                let given = args.filled(name);
                if let Some(text) = given.filter(|t| !words.contains(t)) {
                    return Err(ApiError::field(name, no_choice(text)));
                }
                (given.map(Value::from), (*default).into())
            }
            Rule::Number(most, default) => {
                let given = args.int(name)?;
                if given.is_some_and(|n| n < 0) {
                    return Err(ApiError::field(
                        name,
                        "Ensure this value is greater than or equal to 0.",
                    ));
                }
                if given.is_some_and(|n| n > *most) {
                    return Err(ApiError::field(
                        name,
                        format!("Ensure this value is less than or equal to {most}."),
                    ));
                }
                (given.map(Value::from), (*default).into())
            }
            Rule::Flag(default) => (args.bool(name)?.map(Value::from), (*default).into()),
        };
        match given {
            Some(v) => {
                params.insert((*name).to_owned(), v);
            }
            None => {
                params.entry((*name).to_owned()).or_insert(default);
            }
        }
    }
    Ok(())
}

/// All interfaces of a node and what lies on what.
pub struct Stack {
    rows: Vec<InterfaceRow>,
    /// (parent, child).
    relations: Vec<(i64, i64)>,
    boots: Option<i64>,
}

impl Stack {
    /// Reads them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn load(tx: &mut Tx, node: &NodeRow) -> Result<Self, ApiError> {
        let rows = store::all!(
            tx,
            InterfaceRow,
            select_interface!("WHERE i.node_id = $1 ORDER BY i.id"),
            node.id
        )?;
        let relations = store::all!(
            tx,
            (i64, i64),
            "SELECT r.parent_id, r.child_id FROM interface_relation r JOIN interface p ON p.id = r.parent_id \
             WHERE p.node_id = $1 ORDER BY r.parent_id, r.child_id",
            node.id
        )?;
        Ok(Self {
            rows,
            relations,
            boots: node.boot_interface_id,
        })
    }

    fn row(&self, id: i64) -> Option<&InterfaceRow> {
        self.rows.iter().find(|r| r.id == id)
    }

    /// What has taken an interface over: a bond or a bridge other than `but`.
    #[must_use]
    pub fn taken_by(&self, id: i64, but: i64) -> Option<&InterfaceRow> {
        self.relations
            .iter()
            .filter(|(parent, child)| *parent == id && *child != but)
            .filter_map(|(_, child)| self.row(*child))
            .find(|c| Kind::of(&c.r#type).takes_over())
    }

    fn parents_of(&self, id: i64) -> Vec<&InterfaceRow> {
        self.relations
            .iter()
            .filter(|(_, child)| *child == id)
            .filter_map(|(parent, _)| self.row(*parent))
            .collect()
    }

    /// Everything that lies on an interface, directly or not.
    fn above(&self, id: i64) -> BTreeSet<i64> {
        let mut out = BTreeSet::new();
        let mut todo = vec![id];
        while let Some(at) = todo.pop() {
            for (_, child) in self.relations.iter().filter(|(parent, _)| *parent == at) {
                if out.insert(*child) {
                    todo.push(*child);
                }
            }
        }
        out
    }

    fn facts(&self, row: &InterfaceRow, own: i64) -> Parent {
        Parent {
            name: row.name.clone(),
            kind: Kind::of(&row.r#type),
            vlan: row.vlan_id,
            mac: row.mac.as_ref().and_then(|m| m.parse().ok()),
            boots: self.boots == Some(row.id),
            taken_by: self.taken_by(row.id, own).map(|t| t.name.clone()),
        }
    }

    /// What goes with an interface that is deleted: all that lies on it alone.
    #[must_use]
    pub fn falls_with(&self, id: i64) -> BTreeSet<i64> {
        let mut gone = BTreeSet::from([id]);
        loop {
            let more: Vec<i64> = self
                .rows
                .iter()
                .map(|r| r.id)
                .filter(|r| !gone.contains(r))
                .filter(|r| {
                    let parents = self.parents_of(*r);
                    !parents.is_empty() && parents.iter().all(|p| gone.contains(&p.id))
                })
                .collect();
            if more.is_empty() {
                return gone;
            }
            gone.extend(more);
        }
    }

    /// The interfaces that are freed when these are deleted.
    #[must_use]
    pub fn freed_by(&self, gone: &BTreeSet<i64>) -> Vec<InterfaceRow> {
        self.rows
            .iter()
            .filter(|r| !gone.contains(&r.id))
            .filter(|r| {
                let on_it = self.relations.iter().filter(|(p, _)| *p == r.id);
                let mut on_it = on_it.map(|(_, c)| c).peekable();
                on_it.peek().is_some() && on_it.all(|c| gone.contains(c))
            })
            .cloned()
            .collect()
    }
}

/// What an interface is to lie on.
struct Base {
    ids: Vec<i64>,
    facts: Vec<Parent>,
}

/// The interfaces that a request names as parents; none when it names none at all.
fn named(
    stack: &Stack,
    kind: Kind,
    own: i64,
    args: &Args,
) -> Result<Option<Base>, Vec<(String, Vec<String>)>> {
    let mut names = args.list("parents");
    let field = if kind == Kind::Bond || names.is_empty() && args.filled("parent").is_none() {
        "parents"
    } else {
        "parent"
    };
    if kind != Kind::Bond {
        names.extend(args.filled("parent").map(str::to_owned));
    }
    if names.is_empty() {
        return Ok(None);
    }
    let wrong = |message: String| vec![(field.to_owned(), vec![message])];
    let above = stack.above(own);
    let mut base = Base {
        ids: Vec::new(),
        facts: Vec::new(),
    };
    for text in names {
        let row = stack
            .rows
            .iter()
            .find(|r| r.id.to_string() == text)
            .or_else(|| stack.rows.iter().find(|r| r.name == text))
            .filter(|r| r.id != own && !above.contains(&r.id))
            .ok_or_else(|| wrong(no_choice(&text)))?;
        if !base.ids.contains(&row.id) {
            base.ids.push(row.id);
            base.facts.push(stack.facts(row, own));
        }
    }
    check_parents(kind, &base.facts).map_err(|e| wrong(e.to_string()))?;
    Ok(Some(base))
}

/// The tagged VLAN of a VLAN interface: its id and number.
async fn tagged(tx: &mut Tx, id: Option<i64>, base: &Base) -> Result<(i64, i64), ApiError> {
    let id = id.ok_or_else(|| ApiError::field("vlan", "This field is required."))?;
    let row = store::opt!(tx, vlan::VlanRow, select_vlan!("WHERE v.id = $1"), id)?
        .ok_or_else(|| ApiError::field("vlan", no_choice(&id.to_string())))?;
    if row.vid == 0 {
        return Err(ApiError::field(
            "vlan",
            "A VLAN interface can only belong to a tagged VLAN.",
        ));
    }
    if let Some(parent) = inherited_vlan(&base.facts) {
        let (fabric,) = store::one!(
            tx,
            (i64,),
            "SELECT fabric_id FROM vlan WHERE id = $1",
            parent
        )?;
        if fabric != row.fabric_id {
            return Err(ApiError::field(
                "vlan",
                format!(
                    "VLAN {} is in {}, and the parent in another fabric.",
                    row.vid,
                    row.fabric()
                ),
            ));
        }
    }
    Ok((row.id, row.vid))
}

/// A new interface on others, not yet in the database, and the ids of its parents.
///
/// # Errors
/// 400 with the fields that are wrong.
pub async fn new(
    tx: &mut Tx,
    node: &NodeRow,
    kind: Kind,
    args: &Args,
    fields: &Fields,
    mut row: InterfaceRow,
) -> Result<(InterfaceRow, Vec<i64>), ApiError> {
    let stack = Stack::load(tx, node).await?;
    let base = match named(&stack, kind, row.id, args) {
        Ok(Some(base)) => base,
        Ok(None) => {
            let field = if kind == Kind::Bond {
                "parents"
            } else {
                "parent"
            };
            return Err(ApiError::field(field, "This field is required."));
        }
        Err(mut wrong) => {
            if kind != Kind::Vlan && fields.mac.is_none() {
                let blank = "This field cannot be blank.".to_owned();
                wrong.push(("mac_address".to_owned(), vec![blank]));
            }
            return Err(ApiError::Fields(wrong));
        }
    };
    let first = base
        .facts
        .first()
        .map_or("", |p| p.name.as_str())
        .to_owned();
    row.r#type = kind.word().to_owned();
    row.mac = inherited_mac(&base.facts).map(|m| m.to_string());
    row.vlan_id = inherited_vlan(&base.facts);
    let mut fields = fields.clone();
    match kind {
        Kind::Vlan => {
            let (id, vid) = tagged(tx, fields.vlan.flatten(), &base).await?;
            fields.vlan = Some(Some(id));
            fields.name = Some(named_vlan(&first, vid)?);
            fields.mac = None;
        }
        Kind::Bridge if fields.name.is_none() => fields.name = Some(bridge_name(&first)),
        _ => {}
    }
    fields.fill(tx, node, &mut row).await?;
    let mut params = row.params_map();
    fill_params(kind, args, &mut params)?;
    row.set_params(params);
    Ok((row, base.ids))
}

/// Puts what a request says of bridges into a bridge's row, and the defaults for the rest.
///
/// # Errors
/// 400 with the fields that are wrong.
pub fn fill_bridge(args: &Args, row: &mut InterfaceRow) -> Result<(), ApiError> {
    let mut params = row.params_map();
    fill_params(Kind::Bridge, args, &mut params)?;
    row.set_params(params);
    Ok(())
}

fn named_vlan(parent: &str, vid: i64) -> Result<String, ApiError> {
    let name = vlan_name(parent, vid);
    if name.len() > metal::interface::MAX_NAME {
        return Err(ApiError::field(
            "parent",
            format!("The name would be {name}, which is too long; rename {parent} first."),
        ));
    }
    Ok(name)
}

/// Puts what a request says of the parents and parameters of an interface into its row, after the plain
/// fields. Gives the parents anew where they change.
///
/// # Errors
/// 400 with the fields that are wrong.
pub async fn change(
    tx: &mut Tx,
    node: &NodeRow,
    args: &Args,
    fields: &mut Fields,
    row: &mut InterfaceRow,
) -> Result<Option<Vec<i64>>, ApiError> {
    let kind = Kind::of(&row.r#type);
    let stack = Stack::load(tx, node).await?;
    let base = named(&stack, kind, row.id, args).map_err(ApiError::Fields)?;
    if let Some(by) = stack.taken_by(row.id, -1)
        && fields.vlan.is_some_and(|v| v != row.vlan_id)
    {
        return Err(ApiError::field(
            "vlan",
            format!(
                "{} is part of {}; put that one into another VLAN.",
                row.name, by.name
            ),
        ));
    }
    let mut params = row.params_map();
    fill_params(kind, args, &mut params)?;
    row.set_params(params);
    if kind == Kind::Vlan {
        let kept = Base {
            ids: Vec::new(),
            facts: stack
                .parents_of(row.id)
                .into_iter()
                .map(|p| stack.facts(p, row.id))
                .collect(),
        };
        let on = base.as_ref().unwrap_or(&kept);
        let wanted = fields.vlan.unwrap_or(row.vlan_id);
        let (id, vid) = tagged(tx, wanted, on).await?;
        fields.vlan = Some(Some(id));
        if let Some(parent) = on.facts.first() {
            fields.name = Some(named_vlan(&parent.name, vid)?);
        }
        if base.is_some() {
            fields.mac = inherited_mac(&on.facts);
        }
    }
    Ok(base.map(|b| b.ids))
}

/// Lets an interface lie on these from now on. A bond or a bridge takes over: its parents have no address
/// of their own, and are in its VLAN.
///
/// # Errors
/// When the database fails.
pub async fn put_on(
    tx: &mut Tx,
    row: &InterfaceRow,
    parents: &[i64],
    now: Timestamp,
) -> Result<(), ApiError> {
    let before: Vec<i64> = store::all!(
        tx,
        (i64,),
        "SELECT parent_id FROM interface_relation WHERE child_id = $1",
        row.id
    )?
    .into_iter()
    .map(|(id,)| id)
    .collect();
    store::exec!(
        tx,
        "DELETE FROM interface_relation WHERE child_id = $1",
        row.id
    )?;
    for parent in parents {
        store::exec!(
            tx,
            "INSERT INTO interface_relation (parent_id, child_id) VALUES ($1, $2)",
            *parent,
            row.id
        )?;
    }
    follow(tx, row, now).await?;
    for left in before.into_iter().filter(|id| !parents.contains(id)) {
        let i = store::one!(tx, InterfaceRow, select_interface!("WHERE i.id = $1"), left)?;
        link::ensure_up(tx, &i, now).await?;
    }
    Ok(())
}

/// Lets a bridge have the addresses of what it lies on, until the machine is released.
///
/// # Errors
/// When the database fails.
pub async fn borrow(tx: &mut Tx, bridge: &InterfaceRow, parents: &[i64]) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE ip_address SET interface_id = $1 WHERE interface_id IN @ids($2)",
        bridge.id,
        serde_json::to_string(parents).unwrap_or_default()
    )?;
    store::exec!(
        tx,
        "UPDATE interface SET acquired = TRUE WHERE id = $1",
        bridge.id
    )?;
    Ok(())
}

/// Takes away the bridges that were made for whoever had the machine; what they lay on gets its addresses
/// back.
///
/// # Errors
/// When the database fails.
pub async fn give_back(tx: &mut Tx, node: &NodeRow, now: Timestamp) -> Result<(), ApiError> {
    let bridges = store::all!(
        tx,
        (i64, i64),
        "SELECT i.id, MIN(r.parent_id) FROM interface i JOIN interface_relation r ON r.child_id = i.id \
         WHERE i.node_id = $1 AND i.acquired GROUP BY i.id ORDER BY i.id DESC",
        node.id
    )?;
    for (bridge, parent) in bridges {
        store::exec!(
            tx,
            "UPDATE ip_address SET interface_id = $2 WHERE interface_id = $1",
            bridge,
            parent
        )?;
        remove(tx, node, bridge, now).await?;
    }
    Ok(())
}

/// Brings what a bond or a bridge lies on in line with it.
///
/// # Errors
/// When the database fails.
pub async fn follow(tx: &mut Tx, row: &InterfaceRow, now: Timestamp) -> Result<(), ApiError> {
    if !Kind::of(&row.r#type).takes_over() {
        return Ok(());
    }
    store::exec!(
        tx,
        "DELETE FROM ip_address WHERE interface_id IN (SELECT parent_id FROM interface_relation WHERE child_id = $1)",
        row.id
    )?;
    // A bridge on a VLAN interface leaves that one in its own VLAN: they are the same.
    store::exec!(
        tx,
        "UPDATE interface SET vlan_id = $2, updated = $3 WHERE type <> 'vlan' AND id IN \
         (SELECT parent_id FROM interface_relation WHERE child_id = $1)",
        row.id,
        row.vlan_id,
        now.0
    )?;
    Ok(())
}

/// Deletes an interface with all that lies on it alone.
///
/// # Errors
/// When the database fails.
pub async fn remove(tx: &mut Tx, node: &NodeRow, id: i64, now: Timestamp) -> Result<(), ApiError> {
    let stack = Stack::load(tx, node).await?;
    let gone = stack.falls_with(id);
    for id in &gone {
        store::exec!(tx, "DELETE FROM interface WHERE id = $1", *id)?;
        store::exec!(
            tx,
            "UPDATE node SET boot_interface_id = NULL WHERE id = $1 AND boot_interface_id = $2",
            node.id,
            *id
        )?;
    }
    for i in stack.freed_by(&gone) {
        link::ensure_up(tx, &i, now).await?;
    }
    Ok(())
}
