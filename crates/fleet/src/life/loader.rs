//! Loaders: find the configuration, read it, fetch what it names.

use std::net::Ipv4Addr;

use super::NetError;
use super::firmware::Ground;
use crate::bootcfg::{self, Config, Loader, System, Vars};
use crate::http::{Http, join};
use crate::net::Link;

/// Most configurations that lead to another.
const CHAIN_MAX: usize = 8;

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An `http` URL.
    Http(String),
    /// On a TFTP server.
    Tftp {
        /// The server.
        server: Ipv4Addr,
        /// Its name there.
        path: String,
    },
}

impl Place {
    /// A boot file of DHCP: a URL, or a name on the server.
    pub(super) fn of(file: &str, server: Ipv4Addr) -> Self {
        if file.starts_with("http://") {
            Self::Http(file.to_owned())
        } else {
            Self::Tftp {
                server,
                path: file.to_owned(),
            }
        }
    }

    /// A file named in a configuration that is at this place.
    pub(super) fn join(&self, name: &str) -> Self {
        // GRUB's devices.
        if let Some((device, path)) = name.strip_prefix('(').and_then(|n| n.split_once(')')) {
            return match device.split_once(',') {
                Some(("http", host)) => Self::Http(format!("http://{host}{path}")),
                Some(("tftp", host)) => Self::Tftp {
                    server: host.parse().unwrap_or(Ipv4Addr::UNSPECIFIED),
                    path: path.to_owned(),
                },
                _ => self.join(path),
            };
        }
        match self {
            _ if name.starts_with("http://") => Self::Http(name.to_owned()),
            Self::Http(base) => Self::Http(join(base, name)),
            Self::Tftp { server, path } => {
                let path = match path.rfind('/') {
                    Some(at) if !name.starts_with('/') => format!("{}/{name}", &path[..at]),
                    _ => name.to_owned(),
                };
                Self::Tftp {
                    server: *server,
                    path,
                }
            }
        }
    }
}

/// What a loader was told.
pub(super) enum Started {
    /// A kernel, by the configuration at that place.
    System(System, Place),
    /// The local disk.
    Local,
    /// Say this and start again.
    Retry(String),
}

/// A kernel that runs, with its initrd, its command line, and the network it came over.
pub(super) struct Loaded {
    pub cmdline: String,
    pub link: Link,
    pub http: Http,
}

fn vars(ground: &Ground<'_>) -> Vars {
    let hardware = &ground.m.hardware;
    let uefi = hardware.firmware.is_uefi();
    Vars {
        mac: hardware.mac(),
        uuid: hardware.uuid.clone(),
        grub_cpu: "x86_64".into(),
        build_arch: if uefi { "x86_64" } else { "i386" }.into(),
        platform: if uefi { "efi" } else { "pcbios" }.into(),
    }
}

/// PXELINUX asks for its configuration by UUID, MAC, address in ever shorter hexadecimal, and `default`.
pub(super) async fn pxelinux(ground: &Ground<'_>, base: &Place) -> Result<Started, NetError> {
    let hardware = &ground.m.hardware;
    let address = format!("{:08X}", u32::from(ground.link.address));
    let shorter = (1..=address.len()).rev().map(|n| address[..n].to_owned());
    let names = [
        hardware.uuid.clone(),
        format!("01-{}", hardware.mac().dashed()),
    ]
    .into_iter()
    .chain(shorter)
    .chain(["default".into()]);
    let places = names
        .map(|n| base.join(&format!("pxelinux.cfg/{n}")))
        .collect();
    follow(ground, Loader::Pxelinux, places).await
}

/// GRUB and iPXE start with one file that leads to others.
pub(super) async fn chained(
    ground: &Ground<'_>,
    loader: Loader,
    first: &Place,
) -> Result<Started, NetError> {
    follow(ground, loader, vec![first.clone()]).await
}

async fn follow(
    ground: &Ground<'_>,
    loader: Loader,
    mut places: Vec<Place>,
) -> Result<Started, NetError> {
    let vars = vars(ground);
    for _ in 0..CHAIN_MAX {
        let (place, text) = first_of(ground, &places).await?;
        match bootcfg::read(loader, &text, &vars) {
            Config::Chain(names) => places = names.iter().map(|n| place.join(n)).collect(),
            Config::System(system) => return Ok(Started::System(system, place)),
            Config::Local => return Ok(Started::Local),
            Config::Retry(words) => return Ok(Started::Retry(words)),
            Config::Nothing => {
                return Err(NetError::Other(format!(
                    "there is nothing to boot in the configuration at {place:?}"
                )));
            }
        }
    }
    Err(NetError::Other(
        "the configurations lead in a circle".into(),
    ))
}

async fn first_of(ground: &Ground<'_>, places: &[Place]) -> Result<(Place, String), NetError> {
    let mut missing = NetError::Other("there is no configuration to look for".into());
    for place in places {
        match ground.text(place).await {
            Ok(text) => return Ok((place.clone(), text)),
            Err(e) if e.is_missing() => missing = e,
            Err(e) => return Err(e),
        }
    }
    Err(missing)
}

/// Fetches kernel and initrd and starts them.
pub(super) async fn load(
    ground: Ground<'_>,
    system: System,
    place: &Place,
) -> Result<Loaded, NetError> {
    let transfer = ground.m.shared.config.transfer;
    ground.file(&place.join(&system.kernel), transfer).await?;
    if let Some(initrd) = &system.initrd {
        ground.file(&place.join(initrd), transfer).await?;
    }
    tokio::time::sleep(ground.m.shared.config.timing.load).await;
    Ok(Loaded {
        cmdline: system.cmdline,
        link: ground.link,
        http: ground.http,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_where_loaders_look_for_them() {
        let server = Ipv4Addr::new(10, 0, 0, 2);
        let tftp = |path: &str| Place::Tftp {
            server,
            path: path.into(),
        };
        let http = |url: &str| Place::Http(url.into());
        assert_eq!(Place::of("bootx64.efi", server), tftp("bootx64.efi"));
        assert_eq!(tftp("bootx64.efi").join("grubx64.efi"), tftp("grubx64.efi"));
        assert_eq!(
            tftp("a/bootx64.efi").join("grubx64.efi"),
            tftp("a/grubx64.efi")
        );
        assert_eq!(
            tftp("bootx64.efi").join("/grub/grub.cfg"),
            tftp("/grub/grub.cfg")
        );
        assert_eq!(
            tftp("x").join("(tftp,10.0.0.2)/images/a"),
            tftp("/images/a")
        );
        assert_eq!(
            tftp("x").join("(http,10.0.0.2:5248)/images/a"),
            http("http://10.0.0.2:5248/images/a")
        );
        assert_eq!(tftp("lpxelinux.0").join("http://r/x"), http("http://r/x"));
        assert_eq!(
            http("http://r/").join("pxelinux.cfg/default"),
            http("http://r/pxelinux.cfg/default")
        );
    }
}
