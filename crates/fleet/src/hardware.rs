//! What a simulated machine is made of: drawn from a seed, the same every time.

use metal::MacAddr;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// DMI vendor of every simulated machine.
pub const VENDOR: &str = "Steelyard";
/// DMI product of every simulated machine.
pub const PRODUCT: &str = "Simulated machine";
/// How the host names of simulated machines begin.
pub const HOSTNAME_PREFIX: &str = "sim-";
/// The tag that simulated machines carry where the fleet may set one.
pub const TAG: &str = "simulated";

const MIB: u64 = 1 << 20;
const GB: u64 = 1_000_000_000;

/// Firmware of a machine, and with it the way it boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// BIOS with a PXE ROM: PXELINUX over TFTP, then HTTP.
    Bios,
    /// UEFI with PXE: shim and GRUB over TFTP.
    Uefi,
    /// UEFI with HTTP boot: shim and GRUB over HTTP.
    UefiHttp,
    /// BIOS whose card has an iPXE ROM.
    IpxeBios,
    /// UEFI whose card has an iPXE ROM.
    IpxeUefi,
}

impl Firmware {
    /// Option 93 of DHCP (RFC 4578 §2.1 and IANA's list).
    #[must_use]
    pub const fn arch(self) -> u16 {
        match self {
            Self::Bios | Self::IpxeBios => 0x00,
            Self::Uefi | Self::IpxeUefi => 0x07,
            Self::UefiHttp => 0x10,
        }
    }

    /// Whether it is UEFI.
    #[must_use]
    pub const fn is_uefi(self) -> bool {
        matches!(self, Self::Uefi | Self::UefiHttp | Self::IpxeUefi)
    }

    /// The same kind of machine with an iPXE ROM.
    #[must_use]
    pub const fn with_ipxe(self) -> Self {
        if self.is_uefi() {
            Self::IpxeUefi
        } else {
            Self::IpxeBios
        }
    }
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name.
    pub name: String,
    /// Model.
    pub model: &'static str,
    /// Serial number.
    pub serial: String,
    /// Bytes.
    pub size: u64,
    /// Revolutions per minute; 0 for flash.
    pub rpm: u32,
}

/// A network port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: MacAddr,
    /// Mbit/s.
    pub speed: u32,
    /// PCI address.
    pub pci: String,
}

/// A simulated machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Its number in the fleet, from 0.
    pub index: usize,
    /// Its host name until it gets another.
    pub hostname: String,
    /// Serial number.
    pub serial: String,
    /// SMBIOS UUID, lower case.
    pub uuid: String,
    /// Sockets.
    pub sockets: u32,
    /// Cores of a socket.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
    /// Clock in MHz.
    pub mhz: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Disks; the first one boots.
    pub disks: Vec<Disk>,
    /// Network ports; the first one boots.
    pub nics: Vec<Nic>,
    /// Firmware.
    pub firmware: Firmware,
}

impl Hardware {
    /// Draws machine `index` of the fleet with that seed.
    #[must_use]
    pub fn draw(seed: u64, index: usize, firmware: Firmware) -> Self {
        // Far apart in the generator's state space, whatever the seeds.
        let mut rng =
            StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64);
        let [_, fleet] = fold(seed).to_be_bytes();
        let [high, low] = (index as u16).to_be_bytes();
        let serial = format!("SIM{:02X}{:04X}", fleet, index as u16);
        let mut uuid: [u8; 16] = rng.random();
        // A random UUID, version 4 (RFC 9562 §5.4).
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let h = hex::encode(uuid);
        let uuid = [&h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]].join("-");

        let pick = |rng: &mut StdRng, of: &[u32]| {
            *of.choose(rng).expect("a list of choices is never empty")
        };
        let sockets = pick(&mut rng, &[1, 1, 2]);
        let cores = pick(&mut rng, &[2, 4, 8, 16]);
        let threads = pick(&mut rng, &[1, 2]);
        let mhz = pick(&mut rng, &[2_000, 2_400, 2_900, 3_300]);
        let memory = u64::from(pick(&mut rng, &[4, 8, 16, 32, 64, 128])) * 1024 * MIB;
        let disks = (0..pick(&mut rng, &[1, 1, 2, 4]))
            .zip(b'a'..)
            .map(|(n, letter)| {
                let rotary = n > 0 && rng.random_bool(0.5);
                let size = if rotary {
                    u64::from(pick(&mut rng, &[1_000, 2_000, 4_000]))
                } else {
                    u64::from(pick(&mut rng, &[120, 240, 480]))
                } * GB;
                Disk {
                    name: format!("sd{}", char::from(letter)),
                    model: if rotary {
                        "Simulated HDD"
                    } else {
                        "Simulated SSD"
                    },
                    serial: format!("{serial}-D{n}"),
                    // Whole mebibytes.
                    size: size / MIB * MIB,
                    rpm: if rotary { 7_200 } else { 0 },
                }
            })
            .collect();
        let speed = pick(&mut rng, &[1_000, 10_000, 25_000]);
        let nics = (0..pick(&mut rng, &[1, 2, 2, 4]) as u8)
            .map(|n| Nic {
                name: format!("eno{}", n + 1),
                // 0x52 has the bit of locally administered addresses.
                mac: MacAddr([0x52, 0x54, fleet, high, low, n]),
                speed,
                pci: format!("0000:02:00.{n}"),
            })
            .collect();
        Self {
            index,
            hostname: format!("{HOSTNAME_PREFIX}{:04}", index + 1),
            serial,
            uuid,
            sockets,
            cores,
            threads,
            mhz,
            memory,
            disks,
            nics,
            firmware,
        }
    }

    /// The port that boots.
    ///
    /// # Panics
    /// Never: every machine is drawn with a port.
    #[must_use]
    pub fn boot_nic(&self) -> &Nic {
        self.nics
            .first()
            .expect("every machine is drawn with a port")
    }

    /// The address of the port that boots.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.boot_nic().mac
    }

    /// All addresses, the booting one first, separated by commas.
    #[must_use]
    pub fn mac_list(&self) -> String {
        self.nics
            .iter()
            .map(|n| n.mac.to_string())
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Threads in all.
    #[must_use]
    pub const fn cpu_count(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }
}

fn fold(seed: u64) -> u16 {
    let [a, b, c, d, e, f, g, h] = seed.to_be_bytes();
    u16::from_be_bytes([a ^ c ^ e ^ g, b ^ d ^ f ^ h])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_machines() {
        for i in [0, 1, 500] {
            assert_eq!(
                Hardware::draw(7, i, Firmware::Bios),
                Hardware::draw(7, i, Firmware::Bios)
            );
        }
        assert_ne!(
            Hardware::draw(7, 3, Firmware::Bios).uuid,
            Hardware::draw(8, 3, Firmware::Bios).uuid
        );
    }

    #[test]
    fn no_two_machines_share_an_identity_and_all_are_marked() {
        let all: Vec<Hardware> = (0..2_000)
            .map(|i| Hardware::draw(3, i, Firmware::Uefi))
            .collect();
        let macs: Vec<MacAddr> = all
            .iter()
            .flat_map(|h| h.nics.iter().map(|n| n.mac))
            .collect();
        assert_eq!(macs.iter().collect::<BTreeSet<_>>().len(), macs.len());
        assert!(
            macs.iter().all(|m| m.0[0] & 3 == 2),
            "local, and of one card"
        );
        for of in [
            |h: &Hardware| h.uuid.clone(),
            |h: &Hardware| h.serial.clone(),
            |h: &Hardware| h.hostname.clone(),
        ] {
            assert_eq!(all.iter().map(of).collect::<BTreeSet<_>>().len(), all.len());
        }
        assert!(
            all.iter()
                .all(|h| h.hostname.starts_with(HOSTNAME_PREFIX) && h.serial.starts_with("SIM"))
        );
        // They differ in what they are made of, too.
        for of in [
            |h: &Hardware| h.memory,
            |h: &Hardware| u64::from(h.cpu_count()),
            |h: &Hardware| h.disks.len() as u64,
            |h: &Hardware| h.nics.len() as u64,
        ] {
            assert!(all.iter().map(of).collect::<BTreeSet<_>>().len() > 1);
        }
    }
}
