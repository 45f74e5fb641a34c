//! The installed system's own files: names, cloud-init, what the plan adds.

use std::io;

use metal::install::Plan;
use serde_json::json;

use super::tree::Tree;
use super::{InstallError, yaml};

/// Longest host name (RFC 1035 §2.3.4).
const HOST_NAME_MAX: usize = 253;

fn io_error(what: &str) -> impl Fn(io::Error) -> InstallError + '_ {
    move |cause| InstallError::Io {
        what: format!("cannot write {what}"),
        cause,
    }
}

/// Writes `/etc/hostname`, `/etc/hosts` and an empty `/etc/machine-id`.
///
/// # Errors
/// When a name is no host name or a file cannot be written.
pub fn name(tree: &Tree, plan: &Plan) -> Result<(), InstallError> {
    for name in [&plan.hostname, &plan.fqdn] {
        let fits = !name.is_empty()
            && name.len() <= HOST_NAME_MAX
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !fits {
            return Err(InstallError::Plan(format!("'{name}' is no host name")));
        }
    }
    let put = |path: &str, content: &str| {
        tree.write(path, content.as_bytes(), 0o644)
            .map_err(io_error(path))
    };
    put("/etc/hostname", &format!("{}\n", plan.hostname))?;
    let own = if plan.fqdn == plan.hostname {
        plan.hostname.clone()
    } else {
        format!("{} {}", plan.fqdn, plan.hostname)
    };
    let old = tree.read("/etc/hosts").unwrap_or_else(|| {
        "127.0.0.1 localhost\n\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n".to_owned()
    });
    let mut hosts = String::new();
    let mut placed = false;
    for line in old.lines() {
        let address = line.split_whitespace().next();
        if address == Some("127.0.1.1") {
            continue;
        }
        hosts.push_str(line);
        hosts.push('\n');
        if address == Some("127.0.0.1") && !placed {
            hosts.push_str(&format!("127.0.1.1 {own}\n"));
            placed = true;
        }
    }
    if !placed {
        hosts.insert_str(0, &format!("127.0.0.1 localhost\n127.0.1.1 {own}\n"));
    }
    put("/etc/hosts", &hosts)?;
    // An image's id would be shared by all machines it is installed on; empty means "make one".
    put("/etc/machine-id", "")?;
    tree.remove("/var/lib/dbus/machine-id")
        .map_err(io_error("/var/lib/dbus/machine-id"))
}

/// Writes cloud-init's datasource, key and reporting, unless the plan brings those files itself, and
/// removes what cloud-init remembers of the machine the image was made on.
///
/// # Errors
/// When a file cannot be written.
pub fn cloud_init(tree: &Tree, plan: &Plan, report_url: &str) -> Result<(), InstallError> {
    for name in ["instance", "instances", "data", "sem"] {
        let path = format!("/var/lib/cloud/{name}");
        tree.remove(&path).map_err(io_error(&path))?;
    }
    let source = &plan.datasource;
    let key = json!({"consumer_key": source.consumer_key, "token_key": source.token_key, "token_secret": source.token_secret});
    let mut datasource = key.clone();
    datasource["metadata_url"] = source.metadata_url.clone().into();
    let mut reporting = key;
    reporting["type"] = "webhook".into();
    reporting["endpoint"] = report_url.into();
    let files = [
        (
            "90_maas_datasource.cfg",
            "datasource_list: [ MAAS ]\n".to_owned(),
            0o644,
        ),
        (
            "90_maas_cloud_config.cfg",
            yaml::document(&json!({"datasource": {"MAAS": datasource}})),
            0o600,
        ),
        (
            "90_maas_cloud_init_reporting.cfg",
            yaml::document(&json!({"reporting": {"maas": reporting}})),
            0o600,
        ),
    ];
    for (name, content, mode) in files {
        let path = format!("/etc/cloud/cloud.cfg.d/{name}");
        if !plan.files.iter().any(|f| f.path == path) {
            tree.write(&path, content.as_bytes(), mode)
                .map_err(io_error(&path))?;
        }
    }
    Ok(())
}

/// Writes the plan's own files.
///
/// # Errors
/// When a path is not absolute or a file cannot be written.
pub fn files(tree: &Tree, plan: &Plan) -> Result<(), InstallError> {
    for file in &plan.files {
        if !file.path.starts_with('/') {
            return Err(InstallError::Plan(format!(
                "the plan's file '{}' has no absolute path",
                file.path
            )));
        }
        tree.write(&file.path, file.content.as_bytes(), file.mode)
            .map_err(io_error(&file.path))?;
    }
    Ok(())
}

/// The value of a key in the installed system's `os-release`.
#[must_use]
pub fn os_release(tree: &Tree, key: &str) -> Option<String> {
    let text = tree
        .read("/etc/os-release")
        .or_else(|| tree.read("/usr/lib/os-release"))?;
    crate::inventory::resources::os_release(&text)
        .remove(key)
        .filter(|v| !v.is_empty())
}
