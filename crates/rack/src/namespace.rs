//! The paths that boot loaders ask for, parsed: bytes from a machine in, what it wants out.
//!
//! The same names are asked for over TFTP and HTTP. Loaders disagree on slashes (`/x`, `//x`, `\x`) and
//! some keep the `images/` of the address they were loaded from, so both are taken off first.

use metal::MacAddr;

/// Longest path that is looked at, in bytes; longer ones are unknown files.
pub const MAX_PATH: usize = 1_024;
/// Shortest prefix of a SHA-256 that names content, in hexadecimal digits.
pub const MIN_HASH_PREFIX: usize = 7;
/// Hexadecimal digits of a SHA-256.
pub const HASH_DIGITS: usize = 64;

/// A boot loader with a configuration language of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loader {
    /// PXELINUX (and petitboot, which reads the same files).
    Pxelinux,
    /// GRUB.
    Grub,
    /// iPXE.
    Ipxe,
    /// The network loader of s390x, which reads PXELINUX's language but appends no `BOOTIF`.
    S390x,
}

impl Loader {
    /// The word of the timeline.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pxelinux => "pxelinux",
            Self::Grub => "grub",
            Self::Ipxe => "ipxe",
            Self::S390x => "s390x",
        }
    }
}

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The first configuration of GRUB or iPXE, the same for all: it names the machine's own.
    Chain(Loader),
    /// A boot configuration.
    Config {
        /// For which loader.
        loader: Loader,
        /// For whom.
        who: Who,
        /// Architecture that the path's directory implies.
        arch: Option<&'static str>,
    },
    /// Content by its hash or a prefix of it (lower-case hexadecimal).
    Blob(String),
    /// Any other file: the path without leading separators, `/` between its parts.
    File(String),
    /// A path that names nothing: too long, or leading out of the namespace.
    Nothing,
}

/// For whom a boot configuration is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A hardware address.
    Mac(MacAddr),
    /// An SMBIOS UUID, lower case.
    Uuid(String),
    /// Whoever has no configuration of its own, with the architecture (Debian's names) where named.
    Default(Option<String>),
}

/// Parses a path as a loader sent it.
#[must_use]
pub fn parse(path: &str) -> Ask {
    if path.len() > MAX_PATH {
        return Ask::Nothing;
    }
    let flat = path.replace('\\', "/");
    let mut parts: Vec<&str> = flat
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    if parts.contains(&"..") {
        return Ask::Nothing;
    }
    if parts.first() == Some(&"images") {
        parts.remove(0);
        if let Some(hash) = parts.first().and_then(|p| hash_prefix(p)) {
            return Ask::Blob(hash);
        }
    }
    match parts.as_slice() {
        [] => Ask::Nothing,
        ["pxelinux.cfg", name] => {
            config_or_file(Loader::Pxelinux, pxelinux_name(name), None, &parts)
        }
        ["ppc64el", "pxelinux.cfg", name] => config_or_file(
            Loader::Pxelinux,
            pxelinux_name(name),
            Some("ppc64el"),
            &parts,
        ),
        ["s390x", name] | ["s390x", "pxelinux.cfg", name] => {
            config_or_file(Loader::S390x, pxelinux_name(name), Some("s390x"), &parts)
        }
        ["grub", "grub.cfg"] => Ask::Chain(Loader::Grub),
        ["grub", name] => config_or_file(
            Loader::Grub,
            name.strip_prefix("grub.cfg-").and_then(grub_name),
            None,
            &parts,
        ),
        ["ipxe.cfg"] => Ask::Chain(Loader::Ipxe),
        [name] => config_or_file(
            Loader::Ipxe,
            name.strip_prefix("ipxe.cfg-").and_then(ipxe_name),
            None,
            &parts,
        ),
        _ => Ask::File(parts.join("/")),
    }
}

fn config_or_file(
    loader: Loader,
    who: Option<Who>,
    arch: Option<&'static str>,
    parts: &[&str],
) -> Ask {
    match who {
        Some(who) => Ask::Config { loader, who, arch },
        None => Ask::File(parts.join("/")),
    }
}

fn hash_prefix(s: &str) -> Option<String> {
    ((MIN_HASH_PREFIX..=HASH_DIGITS).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| s.to_ascii_lowercase())
}

/// `01-MAC`, `UUID`, `default`, `default.ARCH`, `default-ARCH-SUBARCH`.
fn pxelinux_name(name: &str) -> Option<Who> {
    if let Some(mac) = name.strip_prefix("01-") {
        return mac.parse().ok().map(Who::Mac);
    }
    uuid(name).or_else(|| default_of(name))
}

/// `MAC`, `01-MAC`, `UUID`, `default-ARCH`.
fn grub_name(name: &str) -> Option<Who> {
    let mac = name.strip_prefix("01-").unwrap_or(name);
    spelled_mac(mac)
        .or_else(|| uuid(name))
        .or_else(|| default_of(name))
}

/// `MAC`, `UUID`, `default-ARCH`.
fn ipxe_name(name: &str) -> Option<Who> {
    spelled_mac(name)
        .or_else(|| uuid(name))
        .or_else(|| default_of(name))
}

/// A MAC with separators: twelve bare digits could be anything.
fn spelled_mac(s: &str) -> Option<Who> {
    if s.len() == 17 {
        s.parse().ok().map(Who::Mac)
    } else {
        None
    }
}

fn uuid(s: &str) -> Option<Who> {
    let groups: Vec<&str> = s.split('-').collect();
    let shape = [8, 4, 4, 4, 12];
    (groups.len() == shape.len()
        && groups
            .iter()
            .zip(shape)
            .all(|(g, n)| g.len() == n && g.bytes().all(|b| b.is_ascii_hexdigit())))
    .then(|| Who::Uuid(s.to_ascii_lowercase()))
}

fn default_of(name: &str) -> Option<Who> {
    let rest = name.strip_prefix("default")?;
    if rest.is_empty() {
        return Some(Who::Default(None));
    }
    let arch = rest.strip_prefix(['-', '.'])?.split(['-', '/']).next()?;
    Some(Who::Default(Some(debian_arch(arch)?.to_owned())))
}

/// Debian's name of an architecture as loaders name it; `None` for what is none.
///
/// 32-bit names of x86 stand for the loader, not for the machine: undionly.kpxe calls itself `i386` on
/// every machine, and nothing is installed on 32-bit x86 any more.
#[must_use]
pub fn debian_arch(name: &str) -> Option<&str> {
    match name {
        "x86_64" | "i386" | "amd64" | "x86" => Some("amd64"),
        "arm64" | "aarch64" => Some("arm64"),
        "arm" | "arm32" | "armhf" => Some("armhf"),
        "powerpc" | "ppc64" | "ppc64le" | "ppc64el" => Some("ppc64el"),
        "s390x" => Some("s390x"),
        "riscv64" => Some("riscv64"),
        other
            if !other.is_empty()
                && other.len() <= 16
                && other.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            Some(other)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);

    fn config(loader: Loader, who: Who) -> Ask {
        Ask::Config {
            loader,
            who,
            arch: None,
        }
    }

    #[test]
    fn every_spelling_of_a_path_names_the_same_file() {
        for p in [
            "bootx64.efi",
            "/bootx64.efi",
            "//bootx64.efi",
            "\\bootx64.efi",
            "/images/bootx64.efi",
            "./bootx64.efi",
        ] {
            assert_eq!(parse(p), Ask::File("bootx64.efi".into()), "{p}");
        }
    }

    #[test]
    fn nothing_leads_out_of_the_namespace() {
        for p in [
            "../etc/passwd",
            "/images/../x",
            "a\\..\\b",
            "",
            "/",
            "images/",
            &"a".repeat(MAX_PATH + 1),
        ] {
            assert_eq!(parse(p), Ask::Nothing, "{p}");
        }
    }

    #[test]
    fn content_is_named_by_hash_or_prefix_and_the_rest_is_for_people() {
        let sha = "ab".repeat(32);
        assert_eq!(
            parse(&format!("/images/{sha}/ubuntu/amd64/x/boot-kernel")),
            Ask::Blob(sha.clone())
        );
        assert_eq!(
            parse(&format!("images/{}", sha.to_uppercase())),
            Ask::Blob(sha)
        );
        assert_eq!(parse("/images/0123abc/x"), Ask::Blob("0123abc".into()));
        assert_eq!(parse("/images/0123ab/x"), Ask::File("0123ab/x".into()));
        assert_eq!(parse("/0123abcd/x"), Ask::File("0123abcd/x".into()));
    }

    #[test]
    fn pxelinux_names() {
        let p = |who| config(Loader::Pxelinux, who);
        assert_eq!(
            parse("/pxelinux.cfg/01-52-54-00-ab-cd-ef"),
            p(Who::Mac(MAC))
        );
        assert_eq!(
            parse("pxelinux.cfg/4C4C4544-0042-3010-8035-B4C04F4E4632"),
            p(Who::Uuid("4c4c4544-0042-3010-8035-b4c04f4e4632".into()))
        );
        assert_eq!(parse("pxelinux.cfg/default"), p(Who::Default(None)));
        assert_eq!(
            parse("pxelinux.cfg/default.i386"),
            p(Who::Default(Some("amd64".into())))
        );
        assert_eq!(
            parse("pxelinux.cfg/default-arm64-generic"),
            p(Who::Default(Some("arm64".into())))
        );
        assert_eq!(
            parse("pxelinux.cfg/0A4D0032"),
            Ask::File("pxelinux.cfg/0A4D0032".into())
        );
        assert_eq!(
            parse("ppc64el/pxelinux.cfg/01-52-54-00-ab-cd-ef"),
            Ask::Config {
                loader: Loader::Pxelinux,
                who: Who::Mac(MAC),
                arch: Some("ppc64el")
            }
        );
        assert_eq!(
            parse("s390x/default"),
            Ask::Config {
                loader: Loader::S390x,
                who: Who::Default(None),
                arch: Some("s390x")
            }
        );
    }

    #[test]
    fn grub_names() {
        let g = |who| config(Loader::Grub, who);
        assert_eq!(parse("/grub/grub.cfg"), Ask::Chain(Loader::Grub));
        for p in [
            "/grub/grub.cfg-52:54:00:AB:cd:ef",
            "images/grub/grub.cfg-52-54-00-ab-cd-ef",
            "grub/grub.cfg-01-52-54-00-ab-cd-ef",
        ] {
            assert_eq!(parse(p), g(Who::Mac(MAC)), "{p}");
        }
        assert_eq!(
            parse("grub/grub.cfg-default-x86_64"),
            g(Who::Default(Some("amd64".into())))
        );
        assert_eq!(
            parse("grub/grub.cfg-default-powerpc-generic"),
            g(Who::Default(Some("ppc64el".into())))
        );
        assert_eq!(
            parse("grub/grub.cfg-0A4D"),
            Ask::File("grub/grub.cfg-0A4D".into())
        );
        assert_eq!(
            parse("grub/x86_64-efi/command.lst"),
            Ask::File("grub/x86_64-efi/command.lst".into())
        );
    }

    #[test]
    fn ipxe_names() {
        let i = |who| config(Loader::Ipxe, who);
        assert_eq!(parse("/ipxe.cfg"), Ask::Chain(Loader::Ipxe));
        assert_eq!(parse("/ipxe.cfg-52:54:00:ab:cd:ef"), i(Who::Mac(MAC)));
        assert_eq!(
            parse("/ipxe.cfg-default-i386"),
            i(Who::Default(Some("amd64".into())))
        );
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics_or_leads_out(path in "(\\PC|[/\\\\.%-]|images/|grub/grub.cfg-|pxelinux.cfg/|default-){0,40}") {
            if let Ask::File(name) = parse(&path) {
                proptest::prop_assert!(!name.starts_with('/') && name.split('/').all(|p| p != ".." && !p.is_empty()));
            }
        }
    }
}
