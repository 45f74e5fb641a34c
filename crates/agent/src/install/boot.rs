//! The boot loader: GRUB, for the firmware that booted this machine.

use metal::install::{Plan, StorageItem};

use super::disks::Found;
use super::filesystem::Mount;
use super::target::os_release;
use super::tree::Tree;
use super::{InstallError, Site, chroot};
use crate::block::partition_path;
use crate::process::{Cmd, End, Output, must};

/// How the firmware booted this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// Names that UEFI, GRUB and Debian's packages have for one architecture.
struct Arch {
    /// GRUB's target.
    target: &'static str,
    /// Suffix of file names below `EFI`.
    suffix: &'static str,
    /// Packages of a Debian or Ubuntu system.
    packages: &'static [&'static str],
}

fn arch(machine: &str) -> Option<Arch> {
    Some(match machine {
        "x86_64" => Arch {
            target: "x86_64-efi",
            suffix: "x64",
            packages: &["grub-efi-amd64", "grub-efi-amd64-signed", "shim-signed"],
        },
        "aarch64" => Arch {
            target: "arm64-efi",
            suffix: "aa64",
            packages: &["grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed"],
        },
        _ => return None,
    })
}

fn io_error(what: String) -> impl Fn(std::io::Error) -> InstallError {
    move |cause| InstallError::Io {
        what: what.clone(),
        cause,
    }
}

/// The machine's firmware, by what the running kernel shows.
#[must_use]
pub fn firmware(site: &Site<'_>) -> Firmware {
    if site.sys.exists("sys/firmware/efi") {
        Firmware::Uefi
    } else {
        Firmware::Bios
    }
}

/// The text with shell's double-quote specials escaped.
fn shell(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if "\"\\$`".contains(c) {
                vec!['\\', c]
            } else {
                vec![c]
            }
        })
        .collect()
}

/// The options of the installed kernel: the running kernel's consoles, then the plan's.
#[must_use]
pub fn kernel_options(running: &[String], planned: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for option in running
        .iter()
        .map(String::as_str)
        .filter(|o| o.starts_with("console="))
        .chain(planned.split_whitespace())
    {
        if !out.contains(&option) {
            out.push(option);
        }
    }
    out.join(" ")
}

/// GRUB's settings. GRUB itself speaks on the serial console, too, where the kernel does.
#[must_use]
pub fn grub_defaults(options: &str) -> String {
    let mut out = String::from("# Written at installation.\nGRUB_DISABLE_OS_PROBER=true\n");
    if !options.is_empty() {
        out.push_str(&format!(
            "GRUB_CMDLINE_LINUX=\"${{GRUB_CMDLINE_LINUX:+$GRUB_CMDLINE_LINUX }}{}\"\n",
            shell(options)
        ));
    }
    let serial = options.split(' ').rev().find_map(|o| {
        let rest = o.strip_prefix("console=ttyS")?;
        let (unit, line) = rest.split_once(',').unwrap_or((rest, ""));
        let unit: u8 = unit.parse().ok()?;
        let speed: String = line.chars().take_while(char::is_ascii_digit).collect();
        Some((
            unit,
            if speed.is_empty() {
                "115200".to_owned()
            } else {
                speed
            },
        ))
    });
    if let Some((unit, speed)) = serial {
        out.push_str(&format!("GRUB_TERMINAL=\"console serial\"\nGRUB_SERIAL_COMMAND=\"serial --unit={unit} --speed={speed}\"\n"));
    }
    out
}

/// Installs kernel and boot loader where the image has none; most images bring both.
fn packages(site: &Site<'_>, tree: &Tree, firmware: Firmware) -> Result<(), InstallError> {
    let mut missing: Vec<String> = Vec::new();
    let mut add = |names: &[&str]| missing.extend(names.iter().map(|n| (*n).to_owned()));
    if !tree.list("/boot").iter().any(|n| n.starts_with("vmlinu")) {
        let debian = crate::inventory::live::debian_architecture(&site.machine);
        add(&[&if os_release(tree, "ID").as_deref() == Some("ubuntu") {
            "linux-generic".to_owned()
        } else {
            format!("linux-image-{debian}")
        }]);
    }
    let installer = ["/usr/sbin/grub-install", "/usr/sbin/grub2-install"]
        .iter()
        .any(|p| tree.has(p));
    match (firmware, arch(&site.machine)) {
        (Firmware::Bios, _) if !installer || !tree.has("/usr/lib/grub/i386-pc") => {
            add(&["grub-pc"])
        }
        (Firmware::Uefi, Some(arch))
            if signed(tree, &arch).is_none()
                && (!installer || !tree.has(&format!("/usr/lib/grub/{}", arch.target))) =>
        {
            add(arch.packages);
        }
        _ => {}
    }
    if missing.is_empty() || !tree.has("/usr/bin/apt-get") {
        // Other distributions' images must bring both; what is missing then is named by the commands below.
        return Ok(());
    }
    site.journal.line(format_args!(
        "the image lacks {}: installing",
        missing.join(" ")
    ));
    // Often a link to a file that only a running resolver writes: that file is made for the time being.
    let resolv = tree
        .follow("/etc/resolv.conf")
        .map_err(io_error("cannot find /etc/resolv.conf".to_owned()))?;
    let lent = !resolv.exists();
    if let (true, Some(text)) = (lent, site.sys.text("etc/resolv.conf")) {
        let made = resolv
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&resolv, format!("{text}\n")));
        made.map_err(io_error("cannot write /etc/resolv.conf".to_owned()))?;
    }
    // Nothing that is installed may start a service from inside the tree.
    let policy = "/usr/sbin/policy-rc.d";
    tree.write(policy, b"#!/bin/sh\nexit 101\n", 0o755)
        .map_err(io_error(format!("cannot write {policy}")))?;
    let apt = |arguments: &[&str]| {
        let mut argv = vec!["apt-get", "-qy"];
        argv.extend(arguments);
        chroot(tree, &argv).env("DEBIAN_FRONTEND", "noninteractive")
    };
    let mut install = vec!["install", "--no-install-recommends", "--"];
    install.extend(missing.iter().map(String::as_str));
    let result =
        must(site.runner, &apt(&["update"])).and_then(|_| must(site.runner, &apt(&install)));
    tree.remove(policy)
        .map_err(io_error(format!("cannot remove {policy}")))?;
    if lent && resolv.exists() {
        std::fs::remove_file(&resolv)
            .map_err(io_error("cannot remove /etc/resolv.conf".to_owned()))?;
    }
    result?;
    Ok(())
}

/// Mounts what commands inside the tree need to see of the running system.
fn bind(site: &Site<'_>, tree: &Tree, firmware: Firmware) -> Result<(), InstallError> {
    let mut mounts: Vec<(&str, Vec<&str>)> = vec![
        // Private: what is mounted below must not show up in the running system's /dev.
        ("/dev", vec!["--bind", "--make-private", "/dev"]),
        ("/dev/pts", vec!["--bind", "--make-private", "/dev/pts"]),
        ("/proc", vec!["-t", "proc", "proc"]),
        ("/sys", vec!["-t", "sysfs", "sysfs"]),
        ("/run", vec!["-t", "tmpfs", "tmpfs"]),
    ];
    if firmware == Firmware::Uefi && site.sys.exists("sys/firmware/efi/efivars") {
        mounts.push((
            "/sys/firmware/efi/efivars",
            vec!["-t", "efivarfs", "efivarfs"],
        ));
    }
    for (at, what) in mounts {
        let to = tree
            .path(at)
            .map_err(io_error(format!("cannot find {at}")))?;
        if !at.starts_with("/sys/") && !at.starts_with("/dev/") {
            std::fs::create_dir_all(&to).map_err(io_error(format!("cannot make {at}")))?;
        }
        let to = to.to_string_lossy().into_owned();
        let mut argv = vec!["mount"];
        argv.extend(&what);
        argv.push(&to);
        let cmd = Cmd::new(&argv);
        if at.starts_with("/sys/") || at == "/dev/pts" {
            // Boot variables that cannot be written are no reason to stop.
            tolerate(site, &cmd);
        } else {
            must(site.runner, &cmd)?;
        }
    }
    Ok(())
}

/// Runs a command whose failure is only logged.
fn tolerate(site: &Site<'_>, cmd: &Cmd) -> Option<Output> {
    let output = site.runner.run(cmd, None);
    if output.end == End::Exited(0) {
        return Some(output);
    }
    site.journal.line(format_args!(
        "`{cmd}`: {} {}",
        output.end,
        output.stderr.trim()
    ));
    None
}

/// Signed loaders that the image brings: shim, GRUB, and shim's key manager.
fn signed(tree: &Tree, arch: &Arch) -> Option<(String, String, Option<String>)> {
    let first = |paths: &[String]| paths.iter().find(|p| tree.has(p)).cloned();
    let s = arch.suffix;
    let shim = first(&[
        format!("/usr/lib/shim/shim{s}.efi.signed"),
        format!("/usr/lib/shim/shim{s}.efi.signed.latest"),
        format!("/usr/lib/shim/shim{s}.efi.dualsigned"),
    ])?;
    let grub = first(&[format!(
        "/usr/lib/grub/{}-signed/grub{s}.efi.signed",
        arch.target
    )])?;
    let manager = first(&[
        format!("/usr/lib/shim/mm{s}.efi.signed"),
        format!("/usr/lib/shim/mm{s}.efi"),
    ]);
    Some((shim, grub, manager))
}

/// Installs the boot loader.
///
/// # Errors
/// When the plan has no place for it or a command fails.
pub fn install(
    site: &Site<'_>,
    tree: &Tree,
    plan: &Plan,
    found: &Found,
    mounts: &[Mount],
) -> Result<(), InstallError> {
    let firmware = firmware(site);
    let disk = boot_disk(plan, found)?;
    bind(site, tree, firmware)?;
    packages(site, tree, firmware)?;
    let options = kernel_options(&site.sys.kernel_options(), &plan.kernel_options);
    let defaults = grub_defaults(&options);
    let debian = tree.has("/usr/sbin/update-grub") || tree.has("/etc/default/grub.d");
    if debian {
        let path = "/etc/default/grub.d/90-steelyard.cfg";
        tree.write(path, defaults.as_bytes(), 0o644)
            .map_err(io_error(format!("cannot write {path}")))?;
    } else {
        let path = "/etc/default/grub";
        let old = tree.read(path).unwrap_or_default();
        tree.write(path, format!("{old}\n{defaults}").as_bytes(), 0o644)
            .map_err(io_error(format!("cannot write {path}")))?;
    }
    match firmware {
        Firmware::Bios => {
            must(
                site.runner,
                &chroot(
                    tree,
                    &[
                        grub_program(tree, "install"),
                        "--target=i386-pc",
                        "--recheck",
                        &disk,
                    ],
                ),
            )?;
        }
        Firmware::Uefi => uefi(site, tree, plan, found, mounts)?,
    }
    let update: Vec<&str> = if tree.has("/usr/sbin/update-grub") {
        vec!["update-grub"]
    } else if tree.has("/boot/grub2") {
        vec![grub_program(tree, "mkconfig"), "-o", "/boot/grub2/grub.cfg"]
    } else {
        vec![grub_program(tree, "mkconfig"), "-o", "/boot/grub/grub.cfg"]
    };
    must(site.runner, &chroot(tree, &update))?;
    Ok(())
}

fn grub_program(tree: &Tree, tool: &str) -> &'static str {
    match (tool, tree.has("/usr/sbin/grub2-install")) {
        ("install", true) => "grub2-install",
        ("install", false) => "grub-install",
        (_, true) => "grub2-mkconfig",
        (_, false) => "grub-mkconfig",
    }
}

/// The disk that the firmware boots: the plan's word, else the one that has the root file system's disk first.
fn boot_disk(plan: &Plan, found: &Found) -> Result<String, InstallError> {
    let disks = || {
        plan.storage.iter().filter_map(|i| {
            if let StorageItem::Disk {
                id, grub_device, ..
            } = i
            {
                Some((id, *grub_device))
            } else {
                None
            }
        })
    };
    let id = disks()
        .find(|(_, grub)| *grub)
        .or_else(|| disks().next())
        .map(|(id, _)| id);
    id.and_then(|id| found.get(id))
        .map(crate::block::Disk::path)
        .ok_or_else(|| InstallError::Plan("the plan has no disk to boot from".to_owned()))
}

/// Names for the architecture, and the mount of the EFI system partition.
fn uefi_place<'a>(site: &Site<'_>, mounts: &'a [Mount]) -> Result<(Arch, &'a Mount), InstallError> {
    let arch = arch(&site.machine).ok_or_else(|| {
        InstallError::Plan(format!("no UEFI boot loader is known for {}", site.machine))
    })?;
    let esp = mounts
        .iter()
        .find(|m| m.path.as_deref() == Some("/boot/efi") && m.filesystem.kind == "vfat");
    let esp = esp.ok_or_else(|| {
        InstallError::Plan("this machine was booted by UEFI, but the plan mounts no EFI system partition at /boot/efi".to_owned())
    })?;
    Ok((arch, esp))
}

/// Whether the plan has a place for the boot loader that this machine's firmware needs.
///
/// # Errors
/// When it has none.
pub fn check(site: &Site<'_>, mounts: &[Mount]) -> Result<(), InstallError> {
    match firmware(site) {
        Firmware::Bios => Ok(()),
        Firmware::Uefi => uefi_place(site, mounts).map(|_| ()),
    }
}

fn uefi(
    site: &Site<'_>,
    tree: &Tree,
    plan: &Plan,
    found: &Found,
    mounts: &[Mount],
) -> Result<(), InstallError> {
    let (arch, esp) = uefi_place(site, mounts)?;
    let id = os_release(tree, "ID").unwrap_or_else(|| "linux".to_owned());
    let s = arch.suffix;
    let own = format!("/boot/efi/EFI/{id}");
    let signed = signed(tree, &arch);
    if tree.has(&format!("/usr/lib/grub/{}", arch.target)) {
        let target = format!("--target={}", arch.target);
        let loader_id = format!("--bootloader-id={id}");
        let cmd = chroot(
            tree,
            &[
                grub_program(tree, "install"),
                &target,
                "--efi-directory=/boot/efi",
                &loader_id,
                "--no-nvram",
                "--recheck",
            ],
        );
        if signed.is_some() {
            // The signed loaders are copied below in any case.
            tolerate(site, &cmd);
        } else {
            must(site.runner, &cmd)?;
        }
    }
    let copy = |from: &str, to: &str| -> Result<(), InstallError> {
        let failed = || io_error(format!("cannot copy {from} to {to}"));
        // Links such as shimx64.efi.signed → …latest are followed inside the tree.
        let content = tree.read_bytes(from).map_err(failed())?;
        tree.write(to, &content, 0o700).map_err(failed())
    };
    let removable = format!("/boot/efi/EFI/BOOT/BOOT{}.EFI", s.to_uppercase());
    let loader = if let Some((shim, grub, manager)) = signed {
        for dir in [own.as_str(), "/boot/efi/EFI/BOOT"] {
            copy(&grub, &format!("{dir}/grub{s}.efi"))?;
            if let Some(manager) = &manager {
                copy(manager, &format!("{dir}/mm{s}.efi"))?;
            }
        }
        copy(&shim, &format!("{own}/shim{s}.efi"))?;
        copy(&shim, &removable)?;
        format!("shim{s}.efi")
    } else {
        copy(&format!("{own}/grub{s}.efi"), &removable)?;
        format!("grub{s}.efi")
    };
    // Where GRUB finds its configuration: the file system that /boot is on.
    let boot = mounts.iter().find(|m| m.path.as_deref() == Some("/boot"));
    let (uuid, dir) = match boot.or_else(|| mounts.iter().find(|m| m.path.as_deref() == Some("/")))
    {
        Some(m) => (
            m.filesystem.uuid.clone(),
            if boot.is_some() { "" } else { "/boot" },
        ),
        None => {
            return Err(InstallError::Plan(
                "the plan mounts nothing at /".to_owned(),
            ));
        }
    };
    let grub_dir = if tree.has("/boot/grub2") {
        "grub2"
    } else {
        "grub"
    };
    let stub = format!(
        "search.fs_uuid {uuid} root\nset prefix=($root)'{dir}/{grub_dir}'\nconfigfile $prefix/grub.cfg\n"
    );
    for dir in [own.as_str(), "/boot/efi/EFI/BOOT"] {
        let path = format!("{dir}/grub.cfg");
        tree.write(&path, stub.as_bytes(), 0o700)
            .map_err(io_error(format!("cannot write {path}")))?;
    }
    // Where only the signed loaders are, nothing has made the directory of the configuration yet.
    let config = tree
        .path(&format!("/boot/{grub_dir}"))
        .and_then(std::fs::create_dir_all);
    config.map_err(io_error(format!("cannot make /boot/{grub_dir}")))?;
    boot_entry(
        site,
        tree,
        plan,
        found,
        &esp.filesystem.device,
        &id,
        &loader,
    );
    Ok(())
}

/// Adds the firmware's entry for the new system, behind the one that booted now (the network), so that
/// the machine stays under control. Firmware that refuses still has the removable path.
fn boot_entry(
    site: &Site<'_>,
    tree: &Tree,
    plan: &Plan,
    found: &Found,
    esp: &str,
    id: &str,
    loader: &str,
) {
    let efibootmgr = |arguments: &[&str]| {
        let mut argv = vec!["efibootmgr"];
        argv.extend(arguments);
        if site.runner.has("efibootmgr") {
            Cmd::new(&argv)
        } else {
            chroot(tree, &argv)
        }
    };
    if !site.runner.has("efibootmgr")
        && !tree.has("/usr/bin/efibootmgr")
        && !tree.has("/bin/efibootmgr")
    {
        site.journal
            .line("there is no efibootmgr: the firmware will find the removable path");
        return;
    }
    let place = plan.storage.iter().find_map(|i| match i {
        StorageItem::Partition { number, device, .. } => {
            let disk = found.get(device)?;
            (partition_path(&disk.name, *number) == esp).then(|| (disk.path(), *number))
        }
        _ => None,
    });
    let Some((disk, number)) = place else { return };
    let Some(before) = tolerate(site, &efibootmgr(&[])) else {
        return;
    };
    let before = BootVariables::parse(&before.stdout);
    for old in before.entries.iter().filter(|(_, label)| label == id) {
        tolerate(
            site,
            &efibootmgr(&["--quiet", "--bootnum", &old.0, "--delete-bootnum"]),
        );
    }
    let path = format!("\\EFI\\{id}\\{loader}");
    let Some(after) = tolerate(
        site,
        &efibootmgr(&[
            "--create",
            "--disk",
            &disk,
            "--part",
            &number.to_string(),
            "--label",
            id,
            "--loader",
            &path,
        ]),
    ) else {
        return;
    };
    let after = BootVariables::parse(&after.stdout);
    let Some(new) = after
        .entries
        .iter()
        .find(|(_, label)| label == id)
        .map(|(n, _)| n.clone())
    else {
        return;
    };
    let mut order: Vec<String> = before
        .current
        .into_iter()
        .filter(|c| after.order.contains(c))
        .collect();
    for next in std::iter::once(new).chain(after.order) {
        if !order.contains(&next) {
            order.push(next);
        }
    }
    tolerate(
        site,
        &efibootmgr(&["--quiet", "--bootorder", &order.join(",")]),
    );
}

/// What efibootmgr prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct BootVariables {
    current: Option<String>,
    order: Vec<String>,
    entries: Vec<(String, String)>,
}

impl BootVariables {
    fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            if let Some(current) = line.strip_prefix("BootCurrent:") {
                out.current = Some(current.trim().to_owned());
            } else if let Some(order) = line.strip_prefix("BootOrder:") {
                out.order = order
                    .trim()
                    .split(',')
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
                    .collect();
            } else if let Some(entry) = line.strip_prefix("Boot") {
                let Some((number, rest)) = entry.split_at_checked(4) else {
                    continue;
                };
                if number.bytes().all(|b| b.is_ascii_hexdigit()) {
                    // `* label\tdevice path`; the star marks an active entry.
                    let label = rest
                        .trim_start_matches('*')
                        .split('\t')
                        .next()
                        .unwrap_or_default()
                        .trim();
                    out.entries.push((number.to_owned(), label.to_owned()));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_of_the_running_kernel_are_kept() {
        let running: Vec<String> = ["ro", "console=tty0", "console=ttyS1,9600n8", "quiet"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(
            kernel_options(&running, "console=tty0 nomodeset"),
            "console=tty0 console=ttyS1,9600n8 nomodeset"
        );
        let text = grub_defaults("console=tty0 console=ttyS1,9600n8 x=\"$y\"");
        assert!(text.contains("GRUB_CMDLINE_LINUX=\"${GRUB_CMDLINE_LINUX:+$GRUB_CMDLINE_LINUX }console=tty0 console=ttyS1,9600n8 x=\\\"\\$y\\\"\"\n"), "{text}");
        assert!(
            text.contains("GRUB_SERIAL_COMMAND=\"serial --unit=1 --speed=9600\"\n"),
            "{text}"
        );
        assert!(
            !grub_defaults("").contains("CMDLINE")
                && grub_defaults("console=ttyS0").contains("--unit=0 --speed=115200")
        );
    }

    #[test]
    fn boot_variables_are_read() {
        let text = "BootCurrent: 0003\nTimeout: 0 seconds\nBootOrder: 0003,0001\nBoot0001* debian\tHD(1,GPT)/File(x)\nBoot0003* UEFI PXEv4 (MAC:525400)\nBootNext: 0001\n";
        let vars = BootVariables::parse(text);
        assert_eq!(vars.current.as_deref(), Some("0003"));
        assert_eq!(vars.order, ["0003", "0001"]);
        assert_eq!(
            vars.entries,
            [
                ("0001".to_owned(), "debian".to_owned()),
                ("0003".to_owned(), "UEFI PXEv4 (MAC:525400)".to_owned())
            ]
        );
    }
}
