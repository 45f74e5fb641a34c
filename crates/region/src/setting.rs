//! `maas`: the settings of the installation. Every setting is declared here once, with its type,
//! default and meaning.

use metal::setting::Form;
use serde_json::{Value, json};
use store::Tx;

use crate::answer::{Answer, Content};
use crate::args::parse_bool;
use crate::call::Call;
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};

/// `maas/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "MaasHandler",
        uri: "maas/",
        op: Some("get_config"),
        title: "Read a setting.",
        params: &[Param::must("name", Kind::Text, "The setting's name.")],
        run: |call| Box::pin(get(call)),
        ..Operation::READ
    },
    Operation {
        handler: "MaasHandler",
        uri: "maas/",
        method: Method::Post,
        op: Some("set_config"),
        who: Who::Admin,
        title: "Change a setting.",
        params: &[
            Param::must("name", Kind::Text, "The setting's name."),
            Param::opt(
                "value",
                Kind::Text,
                "The new value; empty restores the default.",
            ),
        ],
        audit: Some("SETTINGS"),
        run: |call| Box::pin(set(call)),
        ..Operation::READ
    },
];

/// The type of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// Text.
    Text,
    /// Text or null.
    MaybeText,
    /// Text of a form, or null.
    Formed(Form),
    /// Text of a form, or nothing, that only administrators read and that is kept sealed.
    Secret(Form),
    /// One of these numbers.
    Numbers(&'static [i64]),
    /// A whole number within bounds.
    Int(i64, i64),
    /// A truth value.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub of: Type,
    /// Its default as JSON text.
    pub default: &'static str,
}

const fn s(name: &'static str, of: Type, default: &'static str) -> Setting {
    Setting { name, of, default }
}

const LAYOUTS: &[&str] = &["blank", "flat", "lvm", "vmfs7", "custom", "vmfs6", "bcache"];
const ANY: i64 = i64::MAX;
/// Seconds between scans for neighbours; 0 for never.
const SCANS: &[i64] = &[
    0, 604_800, 86_400, 43_200, 21_600, 10_800, 3_600, 1_800, 600,
];

/// Every setting. The names, types and defaults are MAAS's; the last block is our own.
pub const SETTINGS: &[Setting] = &[
    s("maas_name", Type::Text, "\"steelyard\""),
    s("theme", Type::Text, "\"\""),
    s("kernel_opts", Type::MaybeText, "null"),
    s("enable_http_proxy", Type::Bool, "true"),
    s("maas_proxy_port", Type::Int(1, 65_535), "8000"),
    s("use_peer_proxy", Type::Bool, "false"),
    s("prefer_v4_proxy", Type::Bool, "false"),
    s("http_proxy", Type::Formed(Form::Url), "null"),
    s("default_dns_ttl", Type::Int(1, ANY), "30"),
    s("upstream_dns", Type::Formed(Form::Addresses), "null"),
    s(
        "dnssec_validation",
        Type::Choice(&["auto", "yes", "no"]),
        "\"auto\"",
    ),
    s(
        "maas_internal_domain",
        Type::Formed(Form::Domain),
        "\"maas-internal\"",
    ),
    s("dns_trusted_acl", Type::Formed(Form::Networks), "null"),
    s("allow_only_trusted_transfers", Type::Bool, "true"),
    s("remote_syslog", Type::Formed(Form::HostPort), "null"),
    s("maas_syslog_port", Type::Int(1, 65_535), "5247"),
    s(
        "network_discovery",
        Type::Choice(&["enabled", "disabled"]),
        "\"enabled\"",
    ),
    s("active_discovery_interval", Type::Numbers(SCANS), "10800"),
    s(
        "default_boot_interface_link_type",
        Type::Choice(&["auto", "dhcp", "static", "link_up"]),
        "\"auto\"",
    ),
    s("default_osystem", Type::Text, "\"ubuntu\""),
    s("default_distro_series", Type::Text, "\"noble\""),
    s("default_min_hwe_kernel", Type::Text, "\"\""),
    s("enable_kernel_crash_dump", Type::Bool, "false"),
    s("default_storage_layout", Type::Choice(LAYOUTS), "\"flat\""),
    s("commissioning_osystem", Type::Text, "\"ubuntu\""),
    s("commissioning_distro_series", Type::Text, "\"noble\""),
    s("enable_third_party_drivers", Type::Bool, "true"),
    s("enable_disk_erasing_on_release", Type::Bool, "false"),
    s("disk_erase_with_secure_erase", Type::Bool, "true"),
    s("disk_erase_with_quick_erase", Type::Bool, "false"),
    s("boot_images_auto_import", Type::Bool, "true"),
    s("boot_images_no_proxy", Type::Bool, "false"),
    s("curtin_verbose", Type::Bool, "true"),
    s("force_v1_network_yaml", Type::Bool, "false"),
    s("enable_analytics", Type::Bool, "true"),
    s("completed_intro", Type::Bool, "false"),
    s("max_node_commissioning_results", Type::Int(1, ANY), "10"),
    s("max_node_testing_results", Type::Int(1, ANY), "10"),
    s("max_node_installation_results", Type::Int(1, ANY), "3"),
    s("max_node_release_results", Type::Int(1, ANY), "3"),
    s(
        "subnet_ip_exhaustion_threshold_count",
        Type::Int(1, ANY),
        "16",
    ),
    s("release_notifications", Type::Bool, "true"),
    s("use_rack_proxy", Type::Bool, "true"),
    s("node_timeout", Type::Int(1, ANY), "30"),
    s("prometheus_enabled", Type::Bool, "false"),
    s(
        "prometheus_push_gateway",
        Type::Formed(Form::HostPort),
        "null",
    ),
    s("prometheus_push_interval", Type::Int(1, ANY), "60"),
    s("promtail_enabled", Type::Bool, "false"),
    s("promtail_port", Type::Int(1, 65_535), "5238"),
    s("enlist_commissioning", Type::Bool, "true"),
    s("maas_auto_ipmi_user", Type::Text, "\"maas\""),
    s(
        "maas_auto_ipmi_user_privilege_level",
        Type::Choice(&["USER", "OPERATOR", "ADMIN"]),
        "\"ADMIN\"",
    ),
    s(
        "maas_auto_ipmi_cipher_suite_id",
        Type::Choice(&["17", "3", "", "8", "12"]),
        "\"3\"",
    ),
    s(
        "maas_auto_ipmi_k_g_bmc_key",
        Type::Secret(Form::BmcKey),
        "\"\"",
    ),
    s(
        "maas_auto_ipmi_workaround_flags",
        Type::Formed(Form::Workarounds),
        "null",
    ),
    s(
        "ntp_servers",
        Type::Formed(Form::Hosts),
        "\"ntp.ubuntu.com\"",
    ),
    s("ntp_external_only", Type::Bool, "false"),
    s("vcenter_server", Type::Text, "\"\""),
    s("vcenter_username", Type::Text, "\"\""),
    s("vcenter_password", Type::Secret(Form::Line), "\"\""),
    s("vcenter_datacenter", Type::Text, "\"\""),
    s(
        "hardware_sync_interval",
        Type::Formed(Form::Duration),
        "\"15m\"",
    ),
    s(
        "tls_cert_expiration_notification_enabled",
        Type::Bool,
        "false",
    ),
    s(
        "tls_cert_expiration_notification_interval",
        Type::Int(1, 90),
        "30",
    ),
    s("session_length", Type::Int(10, 1_209_600), "1209600"),
    s("auto_vlan_creation", Type::Bool, "true"),
    s("windows_kms_host", Type::MaybeText, "null"),
    s(
        "boot_images_import_interval_minutes",
        Type::Int(1, ANY),
        "60",
    ),
    // Our own.
    s("open_preseeds", Type::Bool, "false"),
    s("ignore_external_dhcp", Type::Bool, "false"),
    s("node_timeout_seconds", Type::Int(0, ANY), "0"),
];

/// The setting with that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

fn unknown(name: &str) -> ApiError {
    let valid: Vec<&str> = SETTINGS.iter().map(|s| s.name).collect();
    ApiError::field(
        name,
        format!(
            "{name} is not a valid config setting (valid settings are: {}).",
            valid.join(", ")
        ),
    )
}

/// The value of a setting: what was set, or its default.
///
/// # Errors
/// 400 for an unknown name.
pub async fn value(tx: &mut Tx, name: &str) -> Result<Value, ApiError> {
    let setting = find(name).ok_or_else(|| unknown(name))?;
    let row = store::opt!(
        tx,
        (String,),
        "SELECT value FROM setting WHERE name = $1",
        name
    )?;
    let text = row.as_ref().map_or(setting.default, |r| r.0.as_str());
    serde_json::from_str(text).map_err(|_| ApiError::bug("a setting is not JSON"))
}

/// A setting as text; null is empty.
///
/// # Errors
/// When the database fails.
pub async fn text(tx: &mut Tx, name: &str) -> Result<String, ApiError> {
    Ok(match value(tx, name).await? {
        Value::String(s) => s,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

/// A setting as a truth value.
///
/// # Errors
/// When the database fails.
pub async fn flag(tx: &mut Tx, name: &str) -> Result<bool, ApiError> {
    Ok(value(tx, name).await?.as_bool().unwrap_or(false))
}

/// A setting as a number.
///
/// # Errors
/// When the database fails.
pub async fn number(tx: &mut Tx, name: &str) -> Result<i64, ApiError> {
    Ok(value(tx, name).await?.as_i64().unwrap_or(0))
}

/// How long a machine may take for what it is doing: `node_timeout` in minutes, or, when it is not 0,
/// `node_timeout_seconds`, which exists so that a test need not wait half an hour.
///
/// # Errors
/// When the database fails.
pub async fn node_timeout(tx: &mut Tx) -> Result<std::time::Duration, ApiError> {
    let seconds = match number(tx, "node_timeout_seconds").await? {
        0 => number(tx, "node_timeout").await?.saturating_mul(60),
        s => s,
    };
    Ok(std::time::Duration::from_secs(
        u64::try_from(seconds).unwrap_or(1_800),
    ))
}

/// Checks a new value and gives it as JSON.
fn parse(setting: &Setting, text: &str) -> Result<Value, ApiError> {
    let wrong = |m: String| Err(ApiError::field(setting.name, m));
    if text.is_empty() {
        return serde_json::from_str(setting.default)
            .map_err(|_| ApiError::bug("a default is not JSON"));
    }
    match setting.of {
        Type::Text | Type::MaybeText => match metal::setting::check(Form::Line, text) {
            Ok(()) => Ok(text.into()),
            Err(m) => wrong(m),
        },
        Type::Formed(form) | Type::Secret(form) => match metal::setting::check(form, text) {
            Ok(()) => Ok(text.into()),
            Err(m) => wrong(m),
        },
        Type::Numbers(all) => match text.trim().parse::<i64>() {
            Ok(n) if all.contains(&n) => Ok(n.into()),
            _ => {
                let all: Vec<String> = all.iter().map(i64::to_string).collect();
                wrong(format!("Enter one of: {}.", all.join(", ")))
            }
        },
        Type::Bool => match parse_bool(text) {
            Some(b) => Ok(b.into()),
            None => wrong("Enter true or false.".to_owned()),
        },
        Type::Int(low, high) => match text.trim().parse::<i64>() {
            Ok(n) if (low..=high).contains(&n) => Ok(n.into()),
            Ok(_) => wrong(format!("Enter a number from {low} to {high}.")),
            Err(_) => wrong("Enter a whole number.".to_owned()),
        },
        Type::Choice(words) if words.contains(&text) => Ok(text.into()),
        Type::Choice(words) => wrong(format!("'{text}' is not one of: {}.", words.join(", "))),
    }
}

async fn get(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let name = call.args().required("name")?;
    let setting = find(name).ok_or_else(|| unknown(name))?;
    let value = if matches!(setting.of, Type::Secret(_)) {
        if !call.actor().is_admin() {
            return Err(ApiError::forbidden());
        }
        Value::String(secret(&mut tx, call.region(), name).await?)
    } else {
        value(&mut tx, name).await?
    };
    // The bare value; clients compare this content type.
    Ok(Answer {
        status: 200,
        headers: Vec::new(),
        content: Content::Bytes(value.to_string().into(), "application/json"),
    })
}

async fn set(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let name = call.args().required("name")?;
            let setting = find(name).ok_or_else(|| unknown(name))?;
            let value = parse(setting, call.args().text("value").unwrap_or(""))?;
            if name == "maas_internal_domain" {
                let taken = store::opt!(
                    tx,
                    (i64,),
                    "SELECT id FROM domain WHERE name = $1",
                    value.as_str()
                )?;
                if taken.is_some() {
                    return Err(ApiError::field(name, "There is a domain of this name."));
                }
            }
            if matches!(setting.of, Type::Secret(_)) {
                return put_secret(tx, &call, name, value.as_str().unwrap_or("")).await;
            }
            put(tx, name, &value, call.now()).await
        })
    })
    .await?;
    Ok(Answer::text("OK"))
}

fn secret_name(name: &str) -> String {
    format!("setting:{name}")
}

/// A setting that is kept sealed; empty when there is none.
///
/// # Errors
/// When the database fails or the key is another one.
pub async fn secret(
    tx: &mut Tx,
    region: &crate::region::Region,
    name: &str,
) -> Result<String, ApiError> {
    let kept = secret_name(name);
    let row = store::opt!(
        tx,
        (Vec<u8>,),
        "SELECT sealed FROM secret WHERE name = $1",
        &kept
    )?;
    match row {
        None => Ok(String::new()),
        Some((sealed,)) => {
            let plain = region.sealer.unseal(&kept, &sealed)?;
            Ok(String::from_utf8_lossy(&plain).into_owned())
        }
    }
}

async fn put_secret(tx: &mut Tx, call: &Call, name: &str, value: &str) -> Result<(), ApiError> {
    let kept = secret_name(name);
    if value.is_empty() {
        store::exec!(tx, "DELETE FROM secret WHERE name = $1", &kept)?;
    } else {
        store::exec!(
            tx,
            "INSERT INTO secret (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
            &kept,
            call.region().sealer.seal(&kept, value.as_bytes())
        )?;
    }
    tx.changed("setting", name, 0, call.now()).await?;
    Ok(())
}

/// Keeps a value that was checked.
///
/// # Errors
/// When the database fails.
pub async fn put(
    tx: &mut Tx,
    name: &str,
    value: &Value,
    now: metal::Timestamp,
) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        value.to_string()
    )?;
    tx.changed("setting", name, 0, now).await?;
    Ok(())
}

/// All settings, for people: name and value.
///
/// # Errors
/// When the database fails.
pub async fn all(tx: &mut Tx) -> Result<Value, ApiError> {
    let mut out = json!({});
    for s in SETTINGS {
        out[s.name] = value(tx, s.name).await?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_type() {
        for s in SETTINGS {
            let v: Value = serde_json::from_str(s.default).unwrap();
            let text = match &v {
                Value::String(t) if t.is_empty() => continue,
                Value::String(t) => t.clone(),
                Value::Null => continue,
                other => other.to_string(),
            };
            assert_eq!(parse(s, &text).unwrap(), v, "{}", s.name);
        }
    }
}
