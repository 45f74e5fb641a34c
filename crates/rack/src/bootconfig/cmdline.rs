//! The kernel command line of an ephemeral system.
//!
//! The order is a contract with the images (`BOOTIF` is added by the loader, at the end).

use std::net::IpAddr;

use link::snapshot::{Image, RootMethod};

use super::{Question, image_path};

/// Port of the rack's syslog receiver where the settings name none.
pub const SYSLOG_PORT: u16 = 5_247;
/// Port of another syslog server that is named without one.
pub const REMOTE_SYSLOG_PORT: u16 = 514;
/// Host name of machines that have none yet.
pub const ENLIST_HOSTNAME: &str = "maas-enlist";
/// Kernel options that keep cloud-init from looking for another datasource.
const DATASOURCE: &str = "cc:{'datasource_list': ['MAAS']}end_cc";
/// Ubuntu's releases before 22.04, whose ephemeral system does not start with AppArmor.
const BEFORE_JAMMY: [&str; 20] = [
    "precise", "quantal", "raring", "saucy", "trusty", "utopic", "vivid", "wily", "xenial",
    "yakkety", "zesty", "artful", "bionic", "cosmic", "disco", "eoan", "focal", "groovy",
    "hirsute", "impish",
];

/// The kernel command line for an image, without `BOOTIF`.
#[must_use]
pub fn render(q: &Question<'_>, image: &Image) -> String {
    let settings = &q.snapshot.settings;
    let base = format!("http://{}", q.rack);
    let mut words: Vec<String> = vec!["nomodeset".into()];

    let root = image
        .root
        .as_ref()
        .map(|r| format!("{base}/images/{}", image_path(image, r)));
    match (image.root_method, root) {
        (RootMethod::Squash, Some(url)) => words.push(format!("root=squash:{url}")),
        (RootMethod::LiveBoot, Some(url)) => {
            words.extend(["boot=live".into(), format!("fetch={url}")])
        }
        (RootMethod::Dracut, Some(url)) => words.push(format!("root=live:{url}")),
        (RootMethod::None, _) | (_, None) => {}
    }

    let hostname = q.machine.map_or(ENLIST_HOSTNAME, |m| m.hostname.as_str());
    match (image.root_method, q.rack.ip()) {
        (RootMethod::LiveBoot | RootMethod::Dracut, IpAddr::V4(_)) => {
            // Neither knows a NIC called BOOTIF; both find it by the BOOTIF option itself.
            words.extend(["ip=dhcp".into(), "ip6=off".into()]);
        }
        (RootMethod::Squash | RootMethod::None, IpAddr::V4(_)) => {
            words.extend([format!("ip=::::{hostname}:BOOTIF:dhcp"), "ip6=off".into()]);
        }
        (_, IpAddr::V6(_)) => words.extend(["ip=off".into(), "ip6=dhcp".into()]),
    }

    words.push(DATASOURCE.into());
    words.push(format!("cloud-config-url={}", preseed_url(q, &base)));

    if image.root_method == RootMethod::Squash {
        words.extend(["ro", "overlayroot=tmpfs", "overlayroot_cfgdisk=disabled"].map(String::from));
    }
    if image.osystem == "ubuntu" && BEFORE_JAMMY.contains(&image.release.as_str()) {
        words.push("apparmor=0".into());
    }

    let (log_host, log_port) = log_target(q);
    words.extend([
        format!("log_host={log_host}"),
        format!("log_port={log_port}"),
    ]);

    match image.arch.as_str() {
        "armhf" => words.push("console=ttyAMA0".into()),
        "ppc64el" => words.push("rootdelay=60".into()),
        _ => {}
    }
    if image.osystem == "centos" {
        words.push("nvme-core.multipath=0".into());
    }

    let own = q.machine.map_or("", |m| m.kernel_opts.as_str());
    let extra = merged_options(&image.kparams, &format!("{} {own}", settings.kernel_opts));
    if !extra.is_empty() {
        words.push("---".into());
        words.extend(extra);
    }
    one_line(&words.join(" "))
}

fn preseed_url(q: &Question<'_>, base: &str) -> String {
    match q.machine {
        Some(m) => format!(
            "{base}/MAAS/metadata/latest/by-id/{}/?op=get_preseed",
            m.system_id
        ),
        None => format!("{base}/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed"),
    }
}

fn log_target(q: &Question<'_>) -> (String, u16) {
    let settings = &q.snapshot.settings;
    match settings
        .remote_syslog
        .as_deref()
        .map(str::trim)
        .filter(|r| !r.is_empty())
    {
        Some(remote) => split_port(remote, REMOTE_SYSLOG_PORT),
        None if settings.syslog_port == 0 => (q.rack.ip().to_string(), SYSLOG_PORT),
        None => (q.rack.ip().to_string(), settings.syslog_port),
    }
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
fn split_port(text: &str, default: u16) -> (String, u16) {
    if let Some((host, port)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        let port = port
            .strip_prefix(':')
            .and_then(|p| p.parse().ok())
            .unwrap_or(default);
        return (host.to_owned(), port);
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => {
            (host.to_owned(), port.parse().unwrap_or(default))
        }
        _ => (text.to_owned(), default),
    }
}

/// The image's options without those that the user's replace (same word before `=`), then the user's.
fn merged_options(image: &str, user: &str) -> Vec<String> {
    let key = |o: &str| o.split('=').next().unwrap_or(o).to_owned();
    let replaced: Vec<String> = user.split_whitespace().map(key).collect();
    let kept = image
        .split_whitespace()
        .filter(|o| !replaced.contains(&key(o)));
    kept.chain(user.split_whitespace())
        .map(str::to_owned)
        .collect()
}

/// Control characters would end the loader's line.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
