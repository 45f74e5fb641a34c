//! The languages of the boot loaders.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::{Question, System};
use crate::files::Transport;
use crate::namespace::Loader;

/// Seconds until a machine without an image asks again.
pub const RETRY_SECONDS: u32 = 30;
/// Loaders on a local EFI system partition, tried in this order.
const EFI_LOADERS: [&str; 5] = [
    "boot/bootx64.efi",
    "debian/shimx64.efi",
    "ubuntu/shimx64.efi",
    "ubuntu/grubx64.efi",
    "Microsoft/Boot/bootmgfw.efi",
];
/// The same, only where Secure Boot is off: signed for another chain than ours.
const EFI_LOADERS_UNSIGNED: [&str; 14] = [
    "centos/shimx64.efi",
    "centos/grubx64.efi",
    "redhat/shimx64.efi",
    "redhat/grubx64.efi",
    "rhel/shimx64.efi",
    "rhel/grubx64.efi",
    "rocky/shimx64.efi",
    "rocky/grubx64.efi",
    "suse/shim.efi",
    "suse/grubx64.efi",
    "ol/shimx64.efi",
    "ol/grubx64.efi",
    "red/shimx64.efi",
    "red/grubx64.efi",
];
/// Loaders on a local EFI system partition of ARM servers.
const EFI_LOADERS_ARM64: [&str; 4] = [
    "boot/bootaa64.efi",
    "debian/shimaa64.efi",
    "ubuntu/shimaa64.efi",
    "ubuntu/grubaa64.efi",
];

/// The first file that GRUB or iPXE reads, the same for every machine.
#[must_use]
pub fn chain(loader: Loader) -> String {
    match loader {
        Loader::Grub => {
            "# The machine's own configuration, else the one for machines that nobody knows.\n\
             set default=0\n\
             set timeout=0\n\
             configfile /grub/grub.cfg-${net_default_mac}\n\
             configfile /grub/grub.cfg-default-${grub_cpu}\n"
                .into()
        }
        Loader::Ipxe => "#!ipxe\n\
             # The machine's own configuration, else the one for machines that nobody knows.\n\
             chain --replace ipxe.cfg-${mac:hexhyp} ||\n\
             chain --replace ipxe.cfg-default-${buildarch}\n"
            .into(),
        Loader::Pxelinux | Loader::S390x => String::new(),
    }
}

/// Boots kernel and initrd from the network.
pub(super) fn system(q: &Question<'_>, system: &System<'_>) -> String {
    let kernel = system.path(&system.image.kernel);
    let initrd = system.path(&system.image.initrd);
    let base = format!("http://{}/images", q.rack);
    let cmdline = &system.cmdline;
    match q.loader {
        Loader::Pxelinux => format!(
            "DEFAULT execute\n\n\
             LABEL execute\n  \
             SAY Booting {what} from the network\n  \
             KERNEL {base}/{kernel}\n  \
             INITRD {base}/{initrd}\n  \
             APPEND {cmdline}\n  \
             IPAPPEND 2\n",
            what = label(system),
        ),
        Loader::S390x => {
            let bootif = q
                .machine
                .and_then(|m| m.macs.first())
                .map(|mac| format!(" BOOTIF=01-{}", mac.dashed()));
            format!(
                "DEFAULT execute\n\n\
                 LABEL execute\n  \
                 KERNEL {base}/{kernel}\n  \
                 INITRD {base}/{initrd}\n  \
                 APPEND {cmdline}{bootif}\n",
                bootif = bootif.unwrap_or_default(),
            )
        }
        Loader::Grub => {
            let device = grub_device(q.transport, q.rack);
            format!(
                "set default=0\n\
                 set timeout=0\n\n\
                 menuentry '{what}' {{\n    \
                 echo 'Booting {what} from the network'\n    \
                 linux {device}/images/{kernel} {cmdline} BOOTIF=01-${{net_default_mac}}\n    \
                 initrd {device}/images/{initrd}\n\
                 }}\n",
                what = label(system),
                cmdline = grub_escape(cmdline),
            )
        }
        Loader::Ipxe => {
            let name = last(&kernel);
            let initrd_name = last(&initrd);
            format!(
                "#!ipxe\n\
                 echo Booting {what} from the network\n\
                 kernel {base}/{kernel}\n\
                 initrd {base}/{initrd}\n\
                 imgargs {name} {cmdline} BOOTIF=01-${{mac:hexhyp}} initrd={initrd_name}\n\
                 boot\n",
                what = label(system),
            )
        }
    }
}

/// Boots the local disk.
pub(super) fn local(loader: Loader, arch: &str) -> String {
    match loader {
        Loader::Pxelinux if arch == "amd64" => {
            "DEFAULT local\n\nLABEL local\n  SAY Booting the local disk\n  KERNEL chain.c32\n  APPEND hd0\n".into()
        }
        Loader::Pxelinux => "DEFAULT local\n\nLABEL local\n  SAY Booting the local disk\n  LOCALBOOT 0\n".into(),
        Loader::S390x => String::new(),
        Loader::Grub => {
            let mut out = String::from("set default=0\nset timeout=0\n\nmenuentry 'Local disk' {\n    echo 'Booting the local disk'\n");
            if arch == "arm64" {
                grub_search(&mut out, "    ", &EFI_LOADERS_ARM64);
            } else {
                grub_search(&mut out, "    ", &EFI_LOADERS);
                out.push_str("    if [ \"${lockdown}\" != y -a \"${shim_lock}\" != y ]; then\n");
                grub_search(&mut out, "        ", &EFI_LOADERS_UNSIGNED);
                out.push_str("    fi\n");
            }
            // Back to the firmware, which goes on with its next boot entry.
            out.push_str("    exit 1\n}\n");
            out
        }
        Loader::Ipxe => "#!ipxe\n\
             echo Booting the local disk\n\
             iseq ${platform} efi && exit 1 ||\n\
             sanboot --no-describe --drive 0x80 ||\n\
             sanboot --no-describe --drive 0x81 ||\n\
             sanboot --no-describe --drive 0x82 ||\n\
             sanboot --no-describe --drive 0x83 ||\n\
             exit 1\n"
            .into(),
    }
}

/// Says what is missing, and asks again later.
pub(super) fn missing(loader: Loader, words: &str) -> String {
    let words = console(words);
    match loader {
        Loader::Pxelinux => format!(
            "SAY Cannot boot: {words}.\n\
             SAY Trying again in {RETRY_SECONDS} seconds.\n\
             DEFAULT again\n\
             PROMPT 1\n\
             TIMEOUT {deciseconds}\n\n\
             LABEL again\n  \
             COM32 reboot.c32\n",
            deciseconds = RETRY_SECONDS * 10,
        ),
        Loader::S390x => format!("# Cannot boot: {words}.\n"),
        Loader::Grub => format!(
            "set default=0\n\
             set timeout=0\n\n\
             menuentry 'No image' {{\n    \
             echo 'Cannot boot: {words}.'\n    \
             echo 'Trying again in {RETRY_SECONDS} seconds.'\n    \
             sleep {RETRY_SECONDS}\n    \
             reboot\n\
             }}\n"
        ),
        Loader::Ipxe => format!(
            "#!ipxe\n\
             echo Cannot boot: {words}.\n\
             echo Trying again in {RETRY_SECONDS} seconds.\n\
             sleep {RETRY_SECONDS}\n\
             reboot\n"
        ),
    }
}

fn label(system: &System<'_>) -> String {
    console(&format!(
        "{}/{} for {}",
        system.image.osystem, system.image.release, system.image.arch
    ))
}

/// Text for the console, without characters that mean something to a loader.
fn console(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | ',' | '/' | '-' | '_'))
        .collect()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// GRUB's device for files on the rack. The signed GRUB of Debian has TFTP but not HTTP and, under
/// Secure Boot, cannot load it: it goes on as it came.
fn grub_device(transport: Transport, rack: SocketAddr) -> String {
    match (transport, rack.ip()) {
        (Transport::Http, _) => format!("(http,{rack})"),
        (Transport::Tftp, IpAddr::V4(ip)) => format!("(tftp,{ip})"),
        (Transport::Tftp, IpAddr::V6(ip)) => format!("(tftp,[{ip}])"),
    }
}

/// Characters that GRUB's shell would take for itself. Quotes stay: whoever writes them wants them.
fn grub_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if matches!(c, '{' | '}' | '$' | ';' | '&' | '|' | '<' | '>' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn grub_search(out: &mut String, indent: &str, loaders: &[&str]) {
    for l in loaders {
        write!(
            out,
            "{indent}if search --no-floppy --set=root --file /efi/{l}; then\n\
             {indent}    chainloader /efi/{l}\n\
             {indent}    boot\n\
             {indent}fi\n"
        )
        .expect("writing to a String cannot fail");
    }
}
