//! From a request to a script: its text, what that says of itself, and what the request says beside it.

use bytes::Bytes;
use metal::Timestamp;
use serde_json::{Map, Value};
use store::Tx;

use super::{find, fresh, number_of};
use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Param};
use crate::script::meta::{self, Declared, HARDWARE, PARALLEL, TYPES};

/// Most bytes of a script.
pub const MAX_SCRIPT: usize = 2 << 20;

/// What a script can be told beside its text.
pub const PARAMS: &[Param] = &[
    Param::opt(
        "name",
        Kind::Text,
        "Name; may stand in the script's metadata instead.",
    ),
    Param::opt("title", Kind::Text, "Title."),
    Param::opt("description", Kind::Text, "A description."),
    Param::opt("tags", Kind::List, "Tags."),
    Param::opt(
        "type",
        Kind::Text,
        "commissioning, testing, release or deployment.",
    ),
    Param::opt("script_type", Kind::Text, "The longer name of type."),
    Param::opt(
        "hardware_type",
        Kind::Text,
        "What it is about: node, cpu, memory, storage, network or gpu.",
    ),
    Param::opt(
        "parallel",
        Kind::Text,
        "Beside what it may run: disabled (0), instance (1) or any (2).",
    ),
    Param::opt(
        "timeout",
        Kind::Text,
        "How long it may take: seconds or HH:MM:SS; 0 is without limit.",
    ),
    Param::opt("destructive", Kind::Bool, "It destroys data."),
    Param::opt("script", Kind::File, "The script, as text or as a file."),
    Param::opt("comment", Kind::Text, "What is new in this version."),
    Param::opt(
        "packages",
        Kind::Text,
        "Packages that it needs, as a JSON object.",
    ),
    Param::opt(
        "for_hardware",
        Kind::List,
        "Hardware that it is for, as pci:10de:*, usb:174c:07d1 or modalias:….",
    ),
    Param::opt("may_reboot", Kind::Bool, "It may reboot the machine."),
    Param::opt(
        "recommission",
        Kind::Bool,
        "The built-in scripts run again after it.",
    ),
    Param::opt(
        "apply_configured_networking",
        Kind::Bool,
        "It runs with the network that the machine is to have.",
    ),
];

/// The text of a script out of a request.
fn text(bytes: &Bytes, field: &str) -> Result<String, ApiError> {
    if bytes.len() > MAX_SCRIPT {
        return Err(ApiError::field(
            field,
            format!("A script may have at most {MAX_SCRIPT} bytes."),
        ));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| ApiError::field(field, "This is not UTF-8 text."))
}

fn declared(body: &str, field: &str) -> Result<Declared, ApiError> {
    meta::parse(body).map_err(|e| match e {
        meta::MetaError::Key { key, why } => ApiError::field(key, why),
        other => ApiError::field(field, other.to_string()),
    })
}

/// What a script says is not said otherwise beside it.
const OVERRIDE: &str = "May not override values defined in embedded YAML.";

/// Puts what the request says onto what the script declares.
fn overlay(d: &mut Declared, args: &Args) -> Result<(), ApiError> {
    let mut wrong: Vec<(String, Vec<String>)> = Vec::new();
    let mut clash = |key: &str, differs: bool, said: bool| -> bool {
        if said && differs {
            wrong.push((key.to_owned(), vec![OVERRIDE.to_owned()]));
        }
        !said
    };
    let said = d.said.clone();
    let has = |key: &str| said.contains(&key);
    if let Some(v) = args.text("title").filter(|_| args.has("title"))
        && clash("title", v != d.title, has("title"))
    {
        d.title = v.to_owned();
    }
    if let Some(v) = args.text("description")
        && clash("description", v != d.description, has("description"))
    {
        d.description = v.to_owned();
    }
    if args.has("tags") {
        // Tags are the one thing that people add to: they never clash.
        let mut tags = if has("tags") {
            d.tags.clone()
        } else {
            Vec::new()
        };
        for t in args.list("tags") {
            if !tags.contains(&t) {
                tags.push(t);
            }
        }
        d.tags = tags;
    }
    let kind = match number_of(args, "type", TYPES)? {
        Some(n) => Some(n),
        None => number_of(args, "script_type", TYPES)?,
    };
    if let Some(n) = kind
        && clash("type", n != d.script_type, has("script_type"))
    {
        d.script_type = n;
    }
    if let Some(n) = number_of(args, "hardware_type", HARDWARE)?
        && clash("hardware_type", n != d.hardware_type, has("hardware_type"))
    {
        d.hardware_type = n;
    }
    if let Some(n) = number_of(args, "parallel", PARALLEL)?
        && clash("parallel", n != d.parallel, has("parallel"))
    {
        d.parallel = n;
    }
    if let Some(t) = args.filled("timeout") {
        let n = meta::seconds(t)
            .ok_or_else(|| ApiError::field("timeout", "Enter seconds or HH:MM:SS."))?;
        if clash("timeout", n != d.timeout, has("timeout")) {
            d.timeout = n;
        }
    }
    let mut flag = |key: &str, value: &mut bool| -> Result<(), ApiError> {
        if let Some(v) = args.bool(key)?
            && clash(key, v != *value, has(key))
        {
            *value = v;
        }
        Ok(())
    };
    flag("destructive", &mut d.destructive)?;
    flag("may_reboot", &mut d.may_reboot)?;
    flag("recommission", &mut d.recommission)?;
    flag(
        "apply_configured_networking",
        &mut d.apply_configured_networking,
    )?;
    if let Some(t) = args.filled("packages") {
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(t) else {
            return Err(ApiError::field("packages", "Enter a JSON object."));
        };
        if clash("packages", map != d.packages, has("packages")) {
            d.packages = map;
        }
    }
    if args.has("for_hardware") {
        let list = args.list("for_hardware");
        if clash("for_hardware", list != d.for_hardware, has("for_hardware")) {
            d.for_hardware = list;
        }
    }
    for h in &d.for_hardware {
        if !hardware_fits(h) {
            wrong.push((
                "for_hardware".to_owned(),
                vec![format!("Hardware identifier '{h}' must be a modalias, PCI ID, USB ID, system vendor, system product, mainboard vendor, or mainboard product.")],
            ));
            break;
        }
    }
    if d.may_reboot && d.script_type != crate::script::COMMISSIONING {
        wrong.push((
            "may_reboot".to_owned(),
            vec!["Only commissioning scripts may reboot.".to_owned()],
        ));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(ApiError::Fields(wrong))
    }
}

fn hardware_fits(text: &str) -> bool {
    let id = |s: &str| s == "*" || s.len() == 4 && s.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split_once(':') {
        Some(("pci" | "usb", rest)) => rest
            .split_once(':')
            .is_some_and(|(vendor, product)| id(vendor) && id(product)),
        Some((
            "modalias" | "system_vendor" | "system_product" | "system_version" | "mainboard_vendor"
            | "mainboard_product",
            rest,
        )) => !rest.is_empty(),
        _ => false,
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|e| ApiError::bug(&e.to_string()))
}

/// Writes what a script is onto its row.
async fn keep(tx: &mut Tx, id: i64, d: &Declared, now: Timestamp) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE script SET title = $2, description = $3, tags = $4, script_type = $5, hardware_type = $6, parallel = $7, results = $8, \
         parameters = $9, packages = $10, timeout = $11, destructive = $12, may_reboot = $13, recommission = $14, for_hardware = $15, \
         apply_configured_networking = $16, updated = $17 WHERE id = $1",
        id,
        &d.title,
        &d.description,
        json(&d.all_tags())?,
        d.script_type,
        d.hardware_type,
        d.parallel,
        json(&d.results)?,
        json(&d.parameters)?,
        json(&d.packages)?,
        d.timeout,
        d.destructive,
        d.may_reboot,
        d.recommission,
        json(&d.for_hardware)?,
        d.apply_configured_networking,
        now.0
    )?;
    Ok(())
}

async fn new_version(
    tx: &mut Tx,
    id: i64,
    body: &str,
    comment: &str,
    now: Timestamp,
) -> Result<i64, ApiError> {
    let (version,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO script_version (script_id, body, comment, created) VALUES ($1, $2, $3, $4) RETURNING id",
        id,
        body,
        comment,
        now.0
    )?;
    store::exec!(
        tx,
        "UPDATE script SET current_version_id = $2 WHERE id = $1",
        id,
        version
    )?;
    Ok(version)
}

/// A new script out of a request whose text is under a certain name: its id.
pub(super) async fn insert(
    tx: &mut Tx,
    args: &Args,
    field: &'static str,
    forced_type: Option<i64>,
    now: Timestamp,
) -> Result<i64, ApiError> {
    let bytes = args
        .bytes(field)
        .filter(|b| !b.is_empty())
        .ok_or_else(|| ApiError::field(field, "This field is required."))?;
    let body = text(&bytes, field)?;
    let mut d = declared(&body, field)?;
    overlay(&mut d, args)?;
    if let Some(kind) = forced_type {
        d.script_type = kind;
    }
    let name = args
        .filled("name")
        .map(str::to_owned)
        .or_else(|| d.name.clone())
        .ok_or_else(|| ApiError::field("name", "This field is required."))?;
    if !meta::name_fits(&name) {
        return Err(ApiError::field(
            "name",
            "Use letters, digits, '-', '_' and '.' only.",
        ));
    }
    if d.name.as_ref().is_some_and(|n| *n != name) {
        return Err(ApiError::field("name", OVERRIDE));
    }
    let row = store::opt!(
        tx,
        (i64,),
        "INSERT INTO script (name, script_type, created, updated) VALUES ($1, $2, $3, $3) ON CONFLICT (name) DO NOTHING RETURNING id",
        &name,
        d.script_type,
        now.0
    )?;
    let (id,) =
        row.ok_or_else(|| ApiError::field("name", "Script with this Name already exists."))?;
    let comment = args.filled("comment").unwrap_or(&d.comment).to_owned();
    let version = new_version(tx, id, &body, &comment, now).await?;
    keep(tx, id, &d, now).await?;
    tx.changed("script", &name, version, now).await?;
    Ok(id)
}

pub(super) async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let id = insert(tx, call.args(), "script", None, call.now()).await?;
                fresh(tx, id, call.args()).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// What a row says, in the form of what a script declares: the ground for a change without a new text.
fn of_row(row: &super::Row, body: &str) -> Result<Declared, ApiError> {
    let object = |t: &str| serde_json::from_str::<Map<String, Value>>(t).unwrap_or_default();
    let mut d = declared(body, "script")?;
    d.title.clone_from(&row.title);
    d.description.clone_from(&row.description);
    d.tags = crate::subnet::texts(&row.tags);
    d.script_type = row.script_type;
    d.hardware_type = row.hardware_type;
    d.parallel = row.parallel;
    d.packages = object(&row.packages);
    d.timeout = row.timeout;
    d.destructive = row.destructive;
    d.may_reboot = row.may_reboot;
    d.recommission = row.recommission;
    d.for_hardware = crate::subnet::texts(&row.for_hardware);
    d.apply_configured_networking = row.apply_configured_networking;
    Ok(d)
}

async fn body_of(tx: &mut Tx, row: &super::Row) -> Result<String, ApiError> {
    let found = store::opt!(
        tx,
        (String,),
        "SELECT body FROM script_version WHERE id = $1",
        row.current_version_id
    )?;
    found
        .map(|r| r.0)
        .ok_or_else(|| ApiError::bug("a script has no text"))
}

/// What a script is, read anew from its present text.
///
/// # Errors
/// When the database fails.
pub async fn redeclare(tx: &mut Tx, id: i64, now: Timestamp) -> Result<(), ApiError> {
    let row = find(tx, &id.to_string()).await?;
    let body = body_of(tx, &row).await?;
    let mut d = declared(&body, "script")?;
    // What people put on it stays.
    for t in crate::subnet::texts(&row.tags) {
        if !d.tags.contains(&t) {
            d.tags.push(t);
        }
    }
    keep(tx, id, &d, now).await
}

/// Changes a script out of a request whose text, if any, is under a certain name.
pub(super) async fn change(
    tx: &mut Tx,
    row: &super::Row,
    args: &Args,
    field: &'static str,
    now: Timestamp,
) -> Result<(), ApiError> {
    if row.is_default {
        let refused: Vec<(String, Vec<String>)> = PARAMS
            .iter()
            .filter(|p| !matches!(p.name, "tags" | "timeout") && args.has(p.name))
            .map(|p| {
                let said =
                    "Only tags and timeout of a script that comes with the product can be changed.";
                (p.name.to_owned(), vec![said.to_owned()])
            })
            .collect();
        if !refused.is_empty() {
            return Err(ApiError::Fields(refused));
        }
    }
    let old = body_of(tx, row).await?;
    let given = args.bytes(field).filter(|b| !b.is_empty());
    let mut d = match &given {
        Some(bytes) => declared(&text(bytes, field)?, field)?,
        None => of_row(row, &old)?,
    };
    if row.is_default {
        d.said.retain(|k| *k != "timeout");
    }
    if given.is_none() && args.has("tags") {
        // Without a new text the tags of the request are all there are, but for those that every script has.
        d.tags = Vec::new();
        d.said.retain(|k| *k != "tags");
    }
    overlay(&mut d, args)?;
    let name = args
        .filled("name")
        .map(str::to_owned)
        .or_else(|| d.name.clone().filter(|_| given.is_some()))
        .unwrap_or_else(|| row.name.clone());
    if name != row.name {
        if !meta::name_fits(&name) {
            return Err(ApiError::field(
                "name",
                "Use letters, digits, '-', '_' and '.' only.",
            ));
        }
        store::exec!(
            tx,
            "UPDATE script SET name = $2 WHERE id = $1",
            row.id,
            &name
        )
        .map_err(|e| {
            if e.is_unique_violation() {
                ApiError::field("name", "Script with this Name already exists.")
            } else {
                e.into()
            }
        })?;
    }
    let mut version = row.current_version_id.unwrap_or(0);
    if let Some(bytes) = given {
        let body = text(&bytes, field)?;
        if body != old {
            let comment = args.filled("comment").unwrap_or(&d.comment).to_owned();
            version = new_version(tx, row.id, &body, &comment, now).await?;
        }
    }
    keep(tx, row.id, &d, now).await?;
    tx.changed("script", &name, version, now).await?;
    Ok(())
}

pub(super) async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let row = find(tx, call.path("name")).await?;
                change(tx, &row, call.args(), "script", call.now()).await?;
                fresh(tx, row.id, call.args()).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(pairs: &[(&str, &str)]) -> Args {
        let mut a = Args::default();
        for (k, v) in pairs {
            a.push((*k).to_owned(), crate::args::Arg::Text((*v).to_owned()))
                .unwrap();
        }
        a
    }

    const BODY: &str = "#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# name: a\n# timeout: 60\n# tags: [x]\n# --- End MAAS 1.0 script metadata ---\n";

    #[test]
    fn what_the_script_says_is_not_said_otherwise_beside_it() {
        let mut d = declared(BODY, "script").unwrap();
        overlay(
            &mut d,
            &args(&[("timeout", "0:01:00"), ("title", "T"), ("tags", "y")]),
        )
        .unwrap();
        assert_eq!((d.timeout, d.title.as_str()), (60, "T"));
        assert_eq!(d.tags, ["x", "y"]);
        let refused = overlay(&mut d, &args(&[("timeout", "90")]));
        assert!(matches!(refused, Err(ApiError::Fields(f)) if f[0].0 == "timeout"));
    }

    #[test]
    fn hardware_is_named_in_one_of_its_ways() {
        for good in [
            "pci:10de:*",
            "usb:174c:07d1",
            "modalias:pci:*",
            "system_vendor:ACME",
        ] {
            assert!(hardware_fits(good), "{good}");
        }
        for bad in ["pci:10de", "pci:xyz:1", "acme", "modalias:", "disk:1"] {
            assert!(!hardware_fits(bad), "{bad}");
        }
    }
}
