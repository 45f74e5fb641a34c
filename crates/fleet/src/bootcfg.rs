//! Boot configurations as loaders understand them: PXELINUX, GRUB and iPXE, the parts that are served.
//!
//! Text in, what the loader would do out. No loader is fully here: commands that are not known are passed
//! over, as each of the three does with what it cannot make sense of.

use metal::MacAddr;

/// Most lines of a configuration that are looked at.
pub const LINES_MAX: usize = 4_096;

/// A loader with a language of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loader {
    /// PXELINUX.
    Pxelinux,
    /// GRUB.
    Grub,
    /// iPXE.
    Ipxe,
}

/// What variables in a configuration stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vars {
    /// `net_default_mac`, `mac`.
    pub mac: MacAddr,
    /// `uuid`.
    pub uuid: String,
    /// `grub_cpu`: `x86_64`.
    pub grub_cpu: String,
    /// iPXE's `buildarch`: `i386` or `x86_64`.
    pub build_arch: String,
    /// iPXE's `platform`: `pcbios` or `efi`.
    pub platform: String,
}

/// A kernel to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Where the kernel is, as written.
    pub kernel: String,
    /// Where the initrd is, as written.
    pub initrd: Option<String>,
    /// The kernel's command line, with `BOOTIF`.
    pub cmdline: String,
}

/// What a configuration makes the loader do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// Read these configurations instead: the first that is there.
    Chain(Vec<String>),
    /// Start a kernel.
    System(System),
    /// Boot the local disk.
    Local,
    /// Say something on the console, and start again after a while.
    Retry(String),
    /// Nothing that could be started.
    Nothing,
}

impl Vars {
    /// Replaces `${name}` and `${name:setting}`.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            let Some(len) = rest[start..].find('}') else {
                break;
            };
            out.push_str(&self.value(&rest[start + 2..start + len]));
            rest = &rest[start + len + 1..];
        }
        out.push_str(rest);
        out
    }

    fn value(&self, name: &str) -> String {
        match name {
            "mac" | "net_default_mac" | "net0/mac" => self.mac.to_string(),
            "mac:hexhyp" | "net0/mac:hexhyp" => self.mac.dashed(),
            "uuid" => self.uuid.clone(),
            "grub_cpu" => self.grub_cpu.clone(),
            "buildarch" => self.build_arch.clone(),
            "platform" => self.platform.clone(),
            // Unset variables are empty in all of them.
            _ => String::new(),
        }
    }
}

/// Reads a configuration.
#[must_use]
pub fn read(loader: Loader, text: &str, vars: &Vars) -> Config {
    match loader {
        Loader::Pxelinux => pxelinux(text, vars),
        Loader::Grub => grub(text, vars),
        Loader::Ipxe => ipxe(text, vars),
    }
}

/// First word and the rest.
fn split(line: &str) -> (&str, &str) {
    let line = line.trim();
    line.split_once(char::is_whitespace)
        .map_or((line, ""), |(a, b)| (a, b.trim()))
}

fn pxelinux(text: &str, vars: &Vars) -> Config {
    let mut default = None;
    let mut label = "";
    let mut said = Vec::new();
    // What the default label says.
    let (mut kernel, mut initrd, mut append, mut ipappend, mut local) =
        (None, None, "", 0u8, false);
    for line in text.lines().take(LINES_MAX) {
        let (word, rest) = split(line);
        match word.to_ascii_uppercase().as_str() {
            "DEFAULT" => default = Some(rest),
            "SAY" => said.push(rest),
            "LABEL" => label = rest,
            _ if default != Some(label) => {}
            "KERNEL" | "LINUX" | "COM32" => kernel = Some(rest),
            "INITRD" => initrd = Some(rest.to_owned()),
            "APPEND" => append = rest,
            "IPAPPEND" | "SYSAPPEND" => ipappend = rest.parse().unwrap_or(0),
            "LOCALBOOT" => local = true,
            _ => {}
        }
    }
    match kernel {
        _ if local => Config::Local,
        Some("chain.c32") => Config::Local,
        Some("reboot.c32") => Config::Retry(said.join(" ")),
        Some(kernel) => {
            let mut cmdline = append.to_owned();
            // IPAPPEND is a sum of bits; 2 is BOOTIF.
            if ipappend & 2 != 0 {
                cmdline.push_str(&format!(" BOOTIF=01-{}", vars.mac.dashed()));
            }
            Config::System(System {
                kernel: kernel.to_owned(),
                initrd,
                cmdline,
            })
        }
        None => Config::Nothing,
    }
}

/// GRUB's quoting: `\x` is x, quotes go.
fn unquote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut chars, mut quote) = (text.chars(), None);
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => out.extend(chars.next()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            (c, _) => out.push(c),
        }
    }
    out
}

fn grub(text: &str, vars: &Vars) -> Config {
    let (mut chain, mut said) = (Vec::new(), Vec::new());
    let (mut kernel, mut initrd, mut local, mut reboot) = (None, None, false, false);
    for line in text.lines().take(LINES_MAX) {
        let (word, rest) = split(line);
        match word {
            "configfile" => chain.push(vars.expand(rest)),
            "linux" | "linuxefi" => {
                let (path, args) = split(rest);
                // Escaped dollars are no variables.
                kernel = Some((path.to_owned(), unquote(&vars.expand(args))));
            }
            "initrd" | "initrdefi" => initrd = Some(rest.to_owned()),
            "chainloader" | "exit" => local = true,
            "echo" => said.push(unquote(rest)),
            "reboot" => reboot = true,
            _ => {}
        }
    }
    match kernel {
        Some((kernel, cmdline)) => Config::System(System {
            kernel,
            initrd,
            cmdline,
        }),
        None if !chain.is_empty() => Config::Chain(chain),
        None if local => Config::Local,
        None if reboot => Config::Retry(said.join(" ")),
        None => Config::Nothing,
    }
}

fn ipxe(text: &str, vars: &Vars) -> Config {
    if !text.starts_with("#!ipxe") {
        return Config::Nothing;
    }
    let (mut chain, mut said) = (Vec::new(), Vec::new());
    let (mut kernel, mut initrd, mut cmdline, mut booted) = (None, None, String::new(), false);
    for line in text.lines().skip(1).take(LINES_MAX) {
        let line = vars.expand(line.trim().trim_end_matches('|'));
        let (word, rest) = split(&line);
        match word {
            "chain" => chain.extend(
                rest.split_whitespace()
                    .find(|w| !w.starts_with("--"))
                    .map(str::to_owned),
            ),
            "kernel" => {
                let (path, args) = split(rest);
                kernel = Some(path.to_owned());
                args.clone_into(&mut cmdline);
            }
            "initrd" => initrd = Some(rest.to_owned()),
            "imgargs" => split(rest).1.clone_into(&mut cmdline),
            "boot" => booted = true,
            "echo" => said.push(rest.to_owned()),
            "sanboot" | "exit" => return Config::Local,
            "reboot" => return Config::Retry(said.join(" ")),
            _ => {}
        }
    }
    match kernel {
        Some(kernel) if booted => Config::System(System {
            kernel,
            initrd,
            cmdline,
        }),
        _ if !chain.is_empty() => Config::Chain(chain),
        _ => Config::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Vars {
        Vars {
            mac: MacAddr([0x52, 0x54, 0, 1, 2, 3]),
            uuid: "4c4c4544-0042-3010-8035-b4c04f4e4632".into(),
            grub_cpu: "x86_64".into(),
            build_arch: "i386".into(),
            platform: "pcbios".into(),
        }
    }

    fn check(loader: Loader, text: &str, expected: Config) {
        assert_eq!(read(loader, text, &vars()), expected);
    }

    const CMDLINE: &str = "nomodeset root=squash:http://10.0.0.2:5248/images/cc/squashfs cc:{'datasource_list': ['MAAS']}end_cc ro";

    #[test]
    fn pxelinux_configurations_are_read() {
        let text = format!(
            "DEFAULT execute\n\nLABEL execute\n  SAY Booting\n  KERNEL http://10.0.0.2:5248/images/aa/boot-kernel\n  \
             INITRD http://10.0.0.2:5248/images/bb/boot-initrd\n  APPEND {CMDLINE}\n  IPAPPEND 2\n"
        );
        let system = System {
            kernel: "http://10.0.0.2:5248/images/aa/boot-kernel".into(),
            initrd: Some("http://10.0.0.2:5248/images/bb/boot-initrd".into()),
            cmdline: format!("{CMDLINE} BOOTIF=01-52-54-00-01-02-03"),
        };
        check(Loader::Pxelinux, &text, Config::System(system));
        check(
            Loader::Pxelinux,
            "DEFAULT local\n\nLABEL local\n  SAY x\n  KERNEL chain.c32\n  APPEND hd0\n",
            Config::Local,
        );
        check(
            Loader::Pxelinux,
            "DEFAULT local\nLABEL local\n  LOCALBOOT 0\n",
            Config::Local,
        );
        let retry = "SAY Cannot boot: no image.\nDEFAULT again\nPROMPT 1\nTIMEOUT 300\n\nLABEL again\n  COM32 reboot.c32\n";
        check(
            Loader::Pxelinux,
            retry,
            Config::Retry("Cannot boot: no image.".into()),
        );
        // Another label than the default one says nothing.
        check(
            Loader::Pxelinux,
            "DEFAULT a\nLABEL b\n  KERNEL x\n",
            Config::Nothing,
        );
    }

    #[test]
    fn grub_configurations_are_read() {
        let escaped = CMDLINE.replace('{', "\\{").replace('}', "\\}");
        let text = format!(
            "set default=0\nset timeout=0\n\nmenuentry 'ubuntu' {{\n    echo 'Booting'\n    \
             linux (tftp,10.0.0.2)/images/aa/boot-kernel {escaped} BOOTIF=01-${{net_default_mac}}\n    initrd (tftp,10.0.0.2)/images/bb/boot-initrd\n}}\n"
        );
        let system = System {
            kernel: "(tftp,10.0.0.2)/images/aa/boot-kernel".into(),
            initrd: Some("(tftp,10.0.0.2)/images/bb/boot-initrd".into()),
            // GRUB's shell takes the quotes for itself.
            cmdline: format!("{} BOOTIF=01-52:54:00:01:02:03", CMDLINE.replace('\'', "")),
        };
        check(Loader::Grub, &text, Config::System(system));
        let chain = "set default=0\nconfigfile /grub/grub.cfg-${net_default_mac}\nconfigfile /grub/grub.cfg-default-${grub_cpu}\n";
        let places = [
            "/grub/grub.cfg-52:54:00:01:02:03",
            "/grub/grub.cfg-default-x86_64",
        ]
        .map(String::from)
        .to_vec();
        check(Loader::Grub, chain, Config::Chain(places));
        let local = "menuentry 'x' {\n  if search --file /efi/boot/bootx64.efi; then\n    chainloader /efi/boot/bootx64.efi\n    boot\n  fi\n  exit 1\n}\n";
        check(Loader::Grub, local, Config::Local);
        let retry = "menuentry 'No image' {\n    echo 'Cannot boot: no image.'\n    sleep 30\n    reboot\n}\n";
        check(
            Loader::Grub,
            retry,
            Config::Retry("Cannot boot: no image.".into()),
        );
    }

    #[test]
    fn ipxe_configurations_are_read() {
        let text = format!(
            "#!ipxe\necho Booting\nkernel http://10.0.0.2:5248/images/aa/boot-kernel\ninitrd http://10.0.0.2:5248/images/bb/boot-initrd\n\
             imgargs boot-kernel {CMDLINE} BOOTIF=01-${{mac:hexhyp}} initrd=boot-initrd\nboot\n"
        );
        let system = System {
            kernel: "http://10.0.0.2:5248/images/aa/boot-kernel".into(),
            initrd: Some("http://10.0.0.2:5248/images/bb/boot-initrd".into()),
            cmdline: format!("{CMDLINE} BOOTIF=01-52-54-00-01-02-03 initrd=boot-initrd"),
        };
        check(Loader::Ipxe, &text, Config::System(system));
        let chain = "#!ipxe\n# x\nchain --replace ipxe.cfg-${mac:hexhyp} ||\nchain --replace ipxe.cfg-default-${buildarch} ||\n";
        check(
            Loader::Ipxe,
            chain,
            Config::Chain(vec![
                "ipxe.cfg-52-54-00-01-02-03".into(),
                "ipxe.cfg-default-i386".into(),
            ]),
        );
        let local = "#!ipxe\necho x\niseq ${platform} efi && exit 1 ||\nsanboot --no-describe --drive 0x80 ||\nexit 1\n";
        check(Loader::Ipxe, local, Config::Local);
        check(
            Loader::Ipxe,
            "#!ipxe\necho Cannot boot: no image.\nsleep 30\nreboot\n",
            Config::Retry("Cannot boot: no image.".into()),
        );
        check(Loader::Ipxe, "<html>", Config::Nothing);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n|\\$\\{|\\}|#!ipxe|\\\\|linux |KERNEL |DEFAULT |LABEL ){0,60}") {
            for loader in [Loader::Pxelinux, Loader::Grub, Loader::Ipxe] {
                drop(read(loader, &text, &vars()));
            }
        }
    }
}
