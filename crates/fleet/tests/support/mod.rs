//! A rack and a region in one, as small as machines can live with: it answers what it was told to, and
//! remembers what it was asked.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub const LIMIT: Duration = Duration::from_secs(30);
pub const IMAGE: &[u8] = b"an image that is installed";

/// What machines are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nobody knows them.
    Unknown,
    Commissioning,
    Deploying,
    /// Boots the disk.
    Deployed,
    /// No image: say so.
    Missing,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub from: std::net::IpAddr,
    pub signed: bool,
    pub body: String,
}

pub struct World {
    pub address: SocketAddr,
    pub role: Arc<Mutex<Role>>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// The image that is served, when it is another than the one that is planned.
    pub image: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    pub async fn start(role: Role) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let role = Arc::new(Mutex::new(role));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let image = Arc::new(Mutex::new(IMAGE.to_vec()));
        let task = tokio::spawn({
            let (role, seen, image) = (Arc::clone(&role), Arc::clone(&seen), Arc::clone(&image));
            async move {
                loop {
                    let (stream, from) = listener.accept().await.unwrap();
                    let (role, seen, image) =
                        (Arc::clone(&role), Arc::clone(&seen), Arc::clone(&image));
                    tokio::spawn(async move {
                        let Some((mut stream, request)) = read(stream, from.ip()).await else {
                            return;
                        };
                        seen.lock().unwrap().push(request.clone());
                        let (status, body) = answer(&role, &image, address, &request);
                        let head = format!(
                            "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                            body.len()
                        );
                        stream.write_all(head.as_bytes()).await.ok();
                        stream.write_all(&body).await.ok();
                    });
                }
            }
        });
        Self {
            address,
            role,
            seen,
            image,
            task,
        }
    }

    pub fn set(&self, role: Role) {
        *self.role.lock().unwrap() = role;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and path of everything, in order.
    pub fn calls(&self) -> Vec<String> {
        self.seen()
            .iter()
            .map(|s| format!("{} {}", s.method, s.target))
            .collect()
    }

    /// Values of a form field in everything that was posted, in order.
    pub fn posted(&self, field: &str) -> Vec<String> {
        let name = format!("name=\"{field}\"");
        let all = self.seen();
        let of = |s: &Seen| {
            s.body
                .split("\r\n--")
                .filter(|p| p.contains(&name))
                .filter_map(|p| Some(p.split_once("\r\n\r\n")?.1.to_owned()))
                .collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }

    /// Names and kinds of the events that were reported.
    pub fn events(&self) -> Vec<String> {
        let all = self.seen();
        let json = all
            .iter()
            .filter_map(|s| serde_json::from_str::<Value>(&s.body).ok());
        json.map(|v| {
            format!(
                "{} {}",
                v["name"].as_str().unwrap_or_default(),
                v["event_type"].as_str().unwrap_or_default()
            )
        })
        .collect()
    }
}

async fn read(mut stream: TcpStream, from: std::net::IpAddr) -> Option<(TcpStream, Seen)> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        let n = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        all.extend_from_slice(&buffer[..n]);
        if let Some(at) = all.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|l| {
            l.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .trim()
                .parse::<usize>()
                .ok()
        })
        .unwrap_or(0);
    while all.len() < end + length {
        let n = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        all.extend_from_slice(&buffer[..n]);
    }
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let signed = head.to_ascii_lowercase().contains("authorization: oauth")
        && head.contains("oauth_signature=\"%26secret\"");
    let body = String::from_utf8_lossy(&all[end..]).into_owned();
    Some((
        stream,
        Seen {
            method,
            target,
            from,
            signed,
            body,
        },
    ))
}

fn preseed(to: SocketAddr, role: Role) -> String {
    let base = format!("http://{to}/MAAS/metadata/");
    if role == Role::Unknown {
        return format!(
            "#cloud-config\ndatasource:\n  MAAS: {{metadata_url: '{base}'}}\npower_state: {{mode: poweroff}}\n"
        );
    }
    let mode = if role == Role::Deploying {
        "reboot"
    } else {
        "poweroff"
    };
    format!(
        "#cloud-config\ndatasource:\n  MAAS: {{metadata_url: '{base}', consumer_key: c, token_key: t, token_secret: secret}}\n\
         reporting:\n  maas: {{type: webhook, endpoint: '{base}status/abc', consumer_key: c, token_key: t, token_secret: secret}}\n\
         power_state: {{mode: {mode}}}\n"
    )
}

fn scripts() -> Vec<u8> {
    let index = json!({ "1.0": { "commissioning_scripts": [
        { "name": "maas-lshw", "path": "commissioning/maas-lshw", "script_result_id": 2, "parallel": 2 },
        { "name": "50-maas-01-commissioning", "path": "commissioning/50-maas-01-commissioning", "script_result_id": 1 },
    ] } });
    let text = index.to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "index.json", text.as_bytes())
        .unwrap();
    tar.into_inner().unwrap()
}

fn plan(to: SocketAddr, disk: &str) -> Value {
    let base = format!("http://{to}/MAAS/metadata/");
    json!({ "work": "install", "attempt": 3, "hostname": "rex", "fqdn": "rex.maas",
        "image": { "url": format!("http://{to}/images/root"), "sha256": hex::encode(Sha256::digest(IMAGE)), "size": IMAGE.len(), "ftype": "root-tgz" },
        "storage": [{ "type": "disk", "id": disk, "name": disk }],
        "network": { "network": { "version": 2, "ethernets": { "eno1": { "addresses": ["127.1.200.7/16"] } } } },
        "datasource": { "metadata_url": base, "consumer_key": "c", "token_key": "t", "token_secret": "secret" },
        "files": [{ "path": "/etc/cloud/cloud.cfg.d/90_reporting.cfg", "content": format!("reporting: {{maas: {{endpoint: '{base}status/abc'}}}}"), "mode": 384 }],
        "kernel_options": "", "timeout_minutes": 30 })
}

fn answer(
    role: &Mutex<Role>,
    image: &Mutex<Vec<u8>>,
    to: SocketAddr,
    request: &Seen,
) -> (u16, Vec<u8>) {
    let role_now = *role.lock().unwrap();
    let ok = |text: String| (200, text.into_bytes());
    let path = request.target.split('?').next().unwrap();
    let unsigned = (401, b"no credentials".to_vec());
    match (request.method.as_str(), path) {
        ("GET", "/ipxe.cfg") => ok(
            "#!ipxe\nchain ipxe.cfg-${mac:hexhyp} ||\nchain ipxe.cfg-default-${buildarch} ||\n"
                .into(),
        ),
        ("GET", p) if p.starts_with("/ipxe.cfg-") => {
            let own = !p.contains("default");
            match role_now {
                Role::Unknown if own => (404, Vec::new()),
                Role::Deployed => ok("#!ipxe\nsanboot --drive 0x80 ||\nexit 1\n".into()),
                Role::Missing => {
                    ok("#!ipxe\necho Cannot boot: no image.\nsleep 30\nreboot\n".into())
                }
                Role::Unknown | Role::Commissioning | Role::Deploying => ok(format!(
                    "#!ipxe\nkernel http://{to}/images/kernel\ninitrd http://{to}/images/initrd\n\
                     imgargs kernel root=squash:http://{to}/images/squashfs cloud-config-url=http://{to}/preseed BOOTIF=01-${{mac:hexhyp}}\nboot\n"
                )),
            }
        }
        ("GET", "/images/root") => (200, image.lock().unwrap().clone()),
        ("GET", p) if p.starts_with("/images/") => ok("bytes".into()),
        ("GET", "/preseed") => ok(preseed(to, role_now)),
        ("GET", "/MAAS/api/2.0/machines/") => ok("false".into()),
        ("POST", "/MAAS/api/2.0/machines/") => {
            *role.lock().unwrap() = Role::Commissioning;
            ok(json!({ "system_id": "abc" }).to_string())
        }
        ("GET", "/MAAS/metadata/latest/by-id/abc/") => ok(preseed(to, Role::Commissioning)),
        ("POST", "/MAAS/metadata/status/abc") => (204, Vec::new()),
        (_, p)
            if p.starts_with("/MAAS/metadata/2012-03-01/")
                && !request.signed
                && role_now != Role::Unknown =>
        {
            unsigned
        }
        ("GET", "/MAAS/metadata/2012-03-01/meta-data/instance-id") => ok("abc".into()),
        ("GET", "/MAAS/metadata/2012-03-01/meta-data/local-hostname") => ok("rex".into()),
        ("GET", "/MAAS/metadata/2012-03-01/user-data") => ok("#!/bin/sh\n".into()),
        ("GET", "/MAAS/metadata/2012-03-01/maas-scripts") if role_now == Role::Unknown => {
            (404, Vec::new())
        }
        ("GET", "/MAAS/metadata/2012-03-01/maas-scripts") => (200, scripts()),
        ("GET", "/MAAS/metadata/2012-03-01/agent-work") => ok(match role_now {
            Role::Deploying => plan(to, "sda").to_string(),
            _ => json!({ "work": "scripts" }).to_string(),
        }),
        ("POST", "/MAAS/metadata/2012-03-01/") => {
            if request.body.contains("netboot_off") {
                *role.lock().unwrap() = Role::Deployed;
            }
            ok("OK".into())
        }
        _ => (404, Vec::new()),
    }
}
