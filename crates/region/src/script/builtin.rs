//! The scripts that come with the product. They are written like a user's: a shell script with its
//! metadata in comments; what they do is in the agent.

use metal::Timestamp;
use store::Tx;

use super::meta::{self, Declared};
use crate::error::ApiError;
use crate::region::Region;

/// The bodies, in the order of their names.
const BODIES: [&str; 7] = [
    include_str!("builtin/20-maas-03-machine-resources.sh"),
    include_str!("builtin/50-maas-01-commissioning.sh"),
    include_str!("builtin/maas-kernel-cmdline.sh"),
    include_str!("builtin/maas-list-modaliases.sh"),
    include_str!("builtin/maas-lshw.sh"),
    include_str!("builtin/maas-serial-ports.sh"),
    include_str!("builtin/maas-support-info.sh"),
];

/// Name of the script whose output is the inventory.
pub const INVENTORY: &str = "50-maas-01-commissioning";
/// Name of the script that tells the interface a machine booted from.
pub const KERNEL_CMDLINE: &str = "maas-kernel-cmdline";

fn declared() -> Result<Vec<(String, Declared, &'static str)>, ApiError> {
    BODIES
        .iter()
        .map(|body| {
            let d =
                meta::parse(body).map_err(|e| ApiError::bug(&format!("a built-in script: {e}")))?;
            let name = d
                .name
                .clone()
                .ok_or_else(|| ApiError::bug("a built-in script has no name"))?;
            Ok((name, d, *body))
        })
        .collect()
}

/// Brings the built-in scripts in the database up to date. A body that changed becomes a new version;
/// a script that the product no longer has goes. Doing it again changes nothing.
///
/// # Errors
/// When the database fails.
pub async fn ensure_builtin(region: &Region) -> Result<(), ApiError> {
    let scripts = declared()?;
    let now = Timestamp::from_system(std::time::SystemTime::now());
    region
        .db
        .write(move |tx| {
            let scripts = scripts.clone();
            Box::pin(async move {
                for (name, d, body) in &scripts {
                    ensure(tx, name, d, body, now).await?;
                }
                let names: Vec<&str> = scripts.iter().map(|(n, ..)| n.as_str()).collect();
                store::exec!(
                    tx,
                    "DELETE FROM script WHERE is_default AND name NOT IN @texts($1)",
                    serde_json::to_string(&names).unwrap_or_default()
                )?;
                Ok::<(), ApiError>(())
            })
        })
        .await
}

/// A value as JSON text.
fn json<T: serde::Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|e| ApiError::bug(&e.to_string()))
}

async fn ensure(
    tx: &mut Tx,
    name: &str,
    d: &Declared,
    body: &str,
    now: Timestamp,
) -> Result<(), ApiError> {
    let found = store::opt!(
        tx,
        (i64, bool, Option<String>),
        "SELECT s.id, s.is_default, v.body FROM script s LEFT JOIN script_version v ON v.id = s.current_version_id WHERE s.name = $1",
        name
    )?;
    let id = match found {
        Some((_, false, _)) => {
            tracing::warn!(script = name, "a user's script has the name of a built-in one, which is left out");
            return Ok(());
        }
        Some((_, true, Some(old))) if old == body => return Ok(()),
        Some((id, true, _)) => id,
        None => {
            store::one!(
                tx,
                (i64,),
                "INSERT INTO script (name, script_type, is_default, created, updated) VALUES ($1, $2, TRUE, $3, $3) RETURNING id",
                name,
                d.script_type,
                now.0
            )?
            .0
        }
    };
    let (version,) = store::one!(
        tx,
        (i64,),
        "INSERT INTO script_version (script_id, body, comment, created) VALUES ($1, $2, $3, $4) RETURNING id",
        id,
        body,
        concat!("Comes with version ", env!("CARGO_PKG_VERSION")),
        now.0
    )?;
    store::exec!(
        tx,
        "UPDATE script SET title = $2, description = $3, tags = $4, script_type = $5, hardware_type = $6, parallel = $7, results = $8, \
         parameters = $9, packages = $10, timeout = $11, destructive = $12, may_reboot = $13, recommission = $14, for_hardware = $15, \
         apply_configured_networking = $16, current_version_id = $17, updated = $18 WHERE id = $1",
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
        version,
        now.0
    )?;
    tx.changed("script", name, version, now).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_script_declares_itself_and_calls_the_agent() {
        let mut names = Vec::new();
        for (name, d, body) in declared().unwrap() {
            assert_eq!(d.script_type, super::super::COMMISSIONING, "{name}");
            assert!(d.timeout > 0, "{name} has no time limit");
            assert!(!d.title.is_empty() && !d.description.is_empty(), "{name}");
            assert!(body.contains("\"$STEELYARD_AGENT\" inventory "), "{name}");
            names.push(name);
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(names, sorted);
        for needed in [INVENTORY, KERNEL_CMDLINE] {
            assert!(names.iter().any(|n| n == needed), "{needed}");
        }
    }
}
