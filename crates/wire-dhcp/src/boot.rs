//! Which boot file a client is given: a table, and the rule for reading it.
//!
//! The order, names and file names are those that MAAS clients and images rely on (reference:
//! boot-and-provision §1).

use std::borrow::Cow;
use std::net::Ipv4Addr;

/// A way of booting, as users name it in a subnet's `disabled_boot_architectures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BootMethod {
    /// An iPXE ROM or an iPXE loaded by other means.
    Ipxe,
    /// BIOS firmware, and whatever is not recognised.
    Pxe,
    /// x86-64 UEFI over TFTP.
    UefiAmd64Tftp,
    /// x86-64 UEFI HTTP boot.
    UefiAmd64Http,
    /// UEFI that calls itself EFI byte code; some x86-64 firmware does.
    UefiEbcTftp,
    /// arm64 UEFI over TFTP.
    UefiArm64Tftp,
    /// arm64 UEFI HTTP boot.
    UefiArm64Http,
    /// POWER with Open Firmware.
    OpenFirmwarePpc64el,
    /// POWER with OPAL (petitboot).
    Powernv,
    /// Windows images; known by name, never chosen by DHCP.
    Windows,
    /// IBM Z under KVM or z/VM.
    S390x,
    /// IBM Z partition.
    S390xPartition,
}

impl BootMethod {
    /// Every method, in the order in which they are tried.
    pub const ALL: [BootMethod; 12] = [
        BootMethod::Ipxe,
        BootMethod::Pxe,
        BootMethod::UefiAmd64Tftp,
        BootMethod::UefiAmd64Http,
        BootMethod::UefiEbcTftp,
        BootMethod::UefiArm64Tftp,
        BootMethod::UefiArm64Http,
        BootMethod::OpenFirmwarePpc64el,
        BootMethod::Powernv,
        BootMethod::Windows,
        BootMethod::S390x,
        BootMethod::S390xPartition,
    ];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            BootMethod::Ipxe => "ipxe",
            BootMethod::Pxe => "pxe",
            BootMethod::UefiAmd64Tftp => "uefi_amd64_tftp",
            BootMethod::UefiAmd64Http => "uefi_amd64_http",
            BootMethod::UefiEbcTftp => "uefi_ebc_tftp",
            BootMethod::UefiArm64Tftp => "uefi_arm64_tftp",
            BootMethod::UefiArm64Http => "uefi_arm64_http",
            BootMethod::OpenFirmwarePpc64el => "open-firmware_ppc64el",
            BootMethod::Powernv => "powernv",
            BootMethod::Windows => "windows",
            BootMethod::S390x => "s390x",
            BootMethod::S390xPartition => "s390x_partition",
        }
    }

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<BootMethod> {
        BootMethod::ALL
            .into_iter()
            .find(|method| method.name() == name)
    }

    /// What is recorded as a machine's `bios_boot_method`.
    pub fn bios_boot_method(self) -> &'static str {
        match self {
            BootMethod::Ipxe => "ipxe",
            BootMethod::Pxe => "pxe",
            BootMethod::UefiAmd64Tftp
            | BootMethod::UefiAmd64Http
            | BootMethod::UefiEbcTftp
            | BootMethod::UefiArm64Tftp
            | BootMethod::UefiArm64Http => "uefi",
            BootMethod::OpenFirmwarePpc64el => "open-firmware",
            BootMethod::Powernv => "powernv",
            BootMethod::Windows => "windows",
            BootMethod::S390x => "s390x",
            BootMethod::S390xPartition => "s390x_partition",
        }
    }
}

/// A set of boot methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MethodSet(u16);

impl MethodSet {
    /// Adds a method.
    pub fn insert(&mut self, method: BootMethod) {
        self.0 |= 1 << method as u8;
    }

    /// Whether the method is in the set.
    pub fn contains(self, method: BootMethod) -> bool {
        self.0 & (1 << method as u8) != 0
    }
}

/// How a client is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    /// User class `iPXE`, or iPXE's feature list with HTTP and one kernel format.
    Ipxe,
    /// Processor architecture, option 93.
    Arch(u16),
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    /// Name relative to the TFTP root.
    Name(&'static str),
    /// Path below `http://RACK:port/`.
    Http(&'static str),
}

/// Option 210, which PXELINUX puts before every name it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    /// `http://RACK:port/`: the rest of the boot goes over HTTP.
    Http,
    Fixed(&'static str),
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootEntry {
    /// Which method this is.
    pub method: BootMethod,
    matches: Match,
    file: File,
    prefix: Prefix,
    vendor_class: Option<&'static str>,
}

const fn entry(method: BootMethod, matches: Match, file: File, prefix: Prefix) -> BootEntry {
    BootEntry {
        method,
        matches,
        file,
        prefix,
        vendor_class: None,
    }
}

/// UEFI HTTP boot takes an answer only from a server that calls itself `HTTPClient` (UEFI 2.10 §24.7.2).
const fn http_boot(method: BootMethod, arch: u16, path: &'static str) -> BootEntry {
    BootEntry {
        vendor_class: Some("HTTPClient"),
        ..entry(method, Match::Arch(arch), File::Http(path), Prefix::None)
    }
}

/// All boot methods in the order in which they are tried.
pub const TABLE: [BootEntry; 12] = [
    entry(
        BootMethod::Ipxe,
        Match::Ipxe,
        File::Http("ipxe.cfg"),
        Prefix::None,
    ),
    entry(
        BootMethod::Pxe,
        Match::Arch(0x00),
        File::Name("lpxelinux.0"),
        Prefix::Http,
    ),
    entry(
        BootMethod::UefiAmd64Tftp,
        Match::Arch(0x07),
        File::Name("bootx64.efi"),
        Prefix::None,
    ),
    http_boot(BootMethod::UefiAmd64Http, 0x10, "images/bootx64.efi"),
    entry(
        BootMethod::UefiEbcTftp,
        Match::Arch(0x09),
        File::Name("bootx64.efi"),
        Prefix::None,
    ),
    entry(
        BootMethod::UefiArm64Tftp,
        Match::Arch(0x0b),
        File::Name("bootaa64.efi"),
        Prefix::None,
    ),
    http_boot(BootMethod::UefiArm64Http, 0x13, "images/bootaa64.efi"),
    entry(
        BootMethod::OpenFirmwarePpc64el,
        Match::Arch(0x0c),
        File::Name("bootppc64.bin"),
        Prefix::None,
    ),
    entry(
        BootMethod::Powernv,
        Match::Arch(0x0e),
        File::Name("pxelinux.0"),
        Prefix::Fixed("ppc64el/"),
    ),
    entry(
        BootMethod::Windows,
        Match::Never,
        File::Name("pxeboot.0"),
        Prefix::None,
    ),
    entry(
        BootMethod::S390x,
        Match::Arch(0x1f),
        File::Name("boots390x.bin"),
        Prefix::Fixed("s390x/"),
    ),
    entry(
        BootMethod::S390xPartition,
        Match::Arch(0x20),
        File::Name("s390x_partition/maas"),
        Prefix::None,
    ),
];

/// What a client that matches nothing is given. It counts as `pxe` and is left out where `pxe` is.
pub const DEFAULT: BootEntry = entry(
    BootMethod::Pxe,
    Match::Never,
    File::Name("lpxelinux.0"),
    Prefix::None,
);

/// What the choice looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BootClient<'a> {
    /// Option 77 is `iPXE`.
    pub user_class_ipxe: bool,
    /// Option 175 says that HTTP works (suboption 19).
    pub ipxe_http: bool,
    /// Option 175 says that it loads bzImage (24) or EFI (36) programs.
    pub ipxe_kernel: bool,
    /// Option 93: architectures, most wanted first.
    pub architectures: &'a [u16],
}

/// What goes into the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootReply {
    /// Which method was chosen.
    pub method: BootMethod,
    /// Boot file: the `file` field and option 67.
    pub file: Cow<'static, str>,
    /// Option 210, sent unasked.
    pub path_prefix: Option<Cow<'static, str>>,
    /// Option 60, sent unasked.
    pub vendor_class: Option<&'static str>,
}

impl BootEntry {
    /// The reply for a rack at `rack` with its boot service on TCP `http_port`.
    pub fn reply(&self, rack: Ipv4Addr, http_port: u16) -> BootReply {
        BootReply {
            method: self.method,
            file: match self.file {
                File::Name(name) => Cow::Borrowed(name),
                File::Http(path) => Cow::Owned(format!("http://{rack}:{http_port}/{path}")),
            },
            path_prefix: match self.prefix {
                Prefix::None => None,
                Prefix::Http => Some(Cow::Owned(format!("http://{rack}:{http_port}/"))),
                Prefix::Fixed(prefix) => Some(Cow::Borrowed(prefix)),
            },
            vendor_class: self.vendor_class,
        }
    }
}

/// The first enabled entry that matches; the default where none does; nothing where that is disabled too.
pub fn select(client: BootClient<'_>, disabled: MethodSet) -> Option<&'static BootEntry> {
    const _: () = assert!(TABLE.len() == BootMethod::ALL.len());
    let is_ipxe = client.user_class_ipxe || (client.ipxe_http && client.ipxe_kernel);
    TABLE
        .iter()
        .chain(std::iter::once(&DEFAULT))
        .enumerate()
        .filter(|(_, entry)| !disabled.contains(entry.method))
        .find(|(place, entry)| match entry.matches {
            Match::Ipxe => is_ipxe,
            Match::Arch(arch) => client.architectures.contains(&arch),
            Match::Never => *place == TABLE.len(),
        })
        .map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(architectures: &[u16]) -> BootClient<'_> {
        BootClient {
            architectures,
            ..BootClient::default()
        }
    }

    type Row = (
        u16,
        &'static str,
        &'static str,
        &'static str,
        Option<&'static str>,
        Option<&'static str>,
    );

    #[test]
    fn each_architecture_gets_the_file_of_the_reference() {
        let rack = Ipv4Addr::new(10, 77, 0, 1);
        let rows: [Row; 12] = [
            (
                0x00,
                "pxe",
                "pxe",
                "lpxelinux.0",
                Some("http://10.77.0.1:5248/"),
                None,
            ),
            (0x07, "uefi_amd64_tftp", "uefi", "bootx64.efi", None, None),
            (
                0x10,
                "uefi_amd64_http",
                "uefi",
                "http://10.77.0.1:5248/images/bootx64.efi",
                None,
                Some("HTTPClient"),
            ),
            (0x09, "uefi_ebc_tftp", "uefi", "bootx64.efi", None, None),
            (0x0b, "uefi_arm64_tftp", "uefi", "bootaa64.efi", None, None),
            (
                0x13,
                "uefi_arm64_http",
                "uefi",
                "http://10.77.0.1:5248/images/bootaa64.efi",
                None,
                Some("HTTPClient"),
            ),
            (
                0x0c,
                "open-firmware_ppc64el",
                "open-firmware",
                "bootppc64.bin",
                None,
                None,
            ),
            (
                0x0e,
                "powernv",
                "powernv",
                "pxelinux.0",
                Some("ppc64el/"),
                None,
            ),
            (
                0x1f,
                "s390x",
                "s390x",
                "boots390x.bin",
                Some("s390x/"),
                None,
            ),
            (
                0x20,
                "s390x_partition",
                "s390x_partition",
                "s390x_partition/maas",
                None,
                None,
            ),
            (0x06, "pxe", "pxe", "lpxelinux.0", None, None),
            (0x1b, "pxe", "pxe", "lpxelinux.0", None, None),
        ];
        for (arch, method, recorded, file, prefix, class) in rows {
            let reply = select(of(&[arch]), MethodSet::default())
                .unwrap()
                .reply(rack, 5248);
            assert_eq!(reply.method.name(), method, "{arch:#x}");
            assert_eq!(reply.method.bios_boot_method(), recorded, "{arch:#x}");
            assert_eq!(reply.file, file, "{arch:#x}");
            assert_eq!(reply.path_prefix.as_deref(), prefix, "{arch:#x}");
            assert_eq!(reply.vendor_class, class, "{arch:#x}");
        }
    }

    #[test]
    fn ipxe_comes_first_and_needs_class_or_features() {
        let none = MethodSet::default();
        let by_class = BootClient {
            user_class_ipxe: true,
            ..of(&[7])
        };
        assert_eq!(select(by_class, none).unwrap().method, BootMethod::Ipxe);
        let by_features = BootClient {
            ipxe_http: true,
            ipxe_kernel: true,
            ..of(&[7])
        };
        assert_eq!(select(by_features, none).unwrap().method, BootMethod::Ipxe);
        let without_http = BootClient {
            ipxe_kernel: true,
            ..of(&[7])
        };
        assert_eq!(
            select(without_http, none).unwrap().method,
            BootMethod::UefiAmd64Tftp
        );
    }

    #[test]
    fn disabled_methods_are_left_out() {
        let mut disabled = MethodSet::default();
        disabled.insert(BootMethod::Ipxe);
        let rom = BootClient {
            user_class_ipxe: true,
            ..of(&[0])
        };
        assert_eq!(select(rom, disabled).unwrap().method, BootMethod::Pxe);
        disabled.insert(BootMethod::Pxe);
        assert_eq!(select(rom, disabled), None);
        disabled = MethodSet::default();
        disabled.insert(BootMethod::UefiAmd64Http);
        assert_eq!(select(of(&[0x10]), disabled), Some(&DEFAULT));
    }

    #[test]
    fn names_round_trip_and_order_is_the_table() {
        for (place, method) in BootMethod::ALL.into_iter().enumerate() {
            assert_eq!(BootMethod::from_name(method.name()), Some(method));
            assert_eq!(TABLE[place].method, method);
        }
        assert_eq!(BootMethod::from_name("floppy"), None);
    }
}
