//! What only the running kernel can tell: interface addresses and its own name.

use std::net::IpAddr;

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

/// Facts of the running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Live {
    /// All addresses of all interfaces.
    pub addresses: Vec<InterfaceAddress>,
    /// `Linux`.
    pub kernel: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// `uname -m`.
    pub machine: String,
    /// Host name.
    pub host_name: String,
}

impl Live {
    /// Asks the kernel.
    #[must_use]
    pub fn now() -> Self {
        let name = rustix::system::uname();
        let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
        Self {
            addresses: addresses::all(),
            kernel: text(name.sysname()),
            kernel_version: text(name.release()),
            machine: text(name.machine()),
            host_name: text(name.nodename()),
        }
    }
}

/// The Debian name of the architecture that `uname -m` calls `machine`.
#[must_use]
pub fn debian_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "ppc64le" => "ppc64el",
        "armv7l" | "armv6l" => "armhf",
        "i386" | "i486" | "i586" | "i686" => "i386",
        other => other,
    }
}

#[allow(unsafe_code)]
mod addresses {
    use std::ffi::CStr;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::InterfaceAddress;

    /// Most entries that are walked.
    const ENTRIES_MAX: usize = 65_536;

    /// All addresses, as getifaddrs(3) lists them; empty when it fails.
    pub(super) fn all() -> Vec<InterfaceAddress> {
        let mut head: *mut libc::ifaddrs = std::ptr::null_mut();
        // SAFETY: `head` is a valid place for the result; on success it is a list that is freed below.
        if unsafe { libc::getifaddrs(&mut head) } != 0 {
            return Vec::new();
        }
        let mut out = Vec::new();
        let mut at = head;
        for _ in 0..ENTRIES_MAX {
            if at.is_null() {
                break;
            }
            // SAFETY: `at` is an entry of the list, which lives until freeifaddrs.
            let entry = unsafe { &*at };
            at = entry.ifa_next;
            if entry.ifa_name.is_null() {
                continue;
            }
            // SAFETY: `ifa_name` is a NUL-terminated text owned by the list.
            let interface = unsafe { CStr::from_ptr(entry.ifa_name) }
                .to_string_lossy()
                .into_owned();
            if let (Some(address), Some(mask)) = (ip(entry.ifa_addr), ip(entry.ifa_netmask)) {
                let prefix = match mask {
                    IpAddr::V4(m) => m.to_bits().count_ones(),
                    IpAddr::V6(m) => m.to_bits().count_ones(),
                };
                out.push(InterfaceAddress {
                    interface,
                    address,
                    prefix: u8::try_from(prefix).unwrap_or(128),
                });
            }
        }
        // SAFETY: `head` came from getifaddrs and no reference into the list is left.
        unsafe { libc::freeifaddrs(head) };
        out
    }

    fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
        if address.is_null() {
            return None;
        }
        // SAFETY: not null, and every sockaddr begins with its family.
        match i32::from(unsafe { (*address).sa_family }) {
            libc::AF_INET => {
                // SAFETY: an AF_INET address is a sockaddr_in; read unaligned to ask nothing of the allocator.
                let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
                Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(
                    v4.sin_addr.s_addr,
                ))))
            }
            libc::AF_INET6 => {
                // SAFETY: an AF_INET6 address is a sockaddr_in6.
                let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
                Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_found() {
        let live = Live::now();
        assert_eq!(live.kernel, "Linux");
        assert!(live.addresses.iter().all(|a| a.prefix <= 128));
        assert!(
            live.addresses.iter().any(|a| a.address.is_loopback()),
            "{:?}",
            live.addresses
        );
    }

    #[test]
    fn architectures_have_their_debian_names() {
        assert_eq!(debian_architecture("x86_64"), "amd64");
        assert_eq!(debian_architecture("aarch64"), "arm64");
        assert_eq!(debian_architecture("riscv64"), "riscv64");
    }
}
