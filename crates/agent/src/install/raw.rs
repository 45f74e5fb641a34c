//! Whole-disk images (`root-dd*`): written as they are, then given cloud-init's datasource.

use super::{InstallError, State, extract};
use crate::block;
use crate::process::{Cmd, End};

/// File systems an installed system's root can be on.
const ROOT_KINDS: [&str; 4] = ["ext4", "ext3", "xfs", "btrfs"];

/// Writes the image onto the disk that the firmware boots.
pub(super) fn write(state: &mut State<'_>) -> Result<(), InstallError> {
    let device = state.boot_disk()?;
    let archive = state.plan.image.ftype == "root-dd" || state.plan.image.ftype.contains(".tar");
    let to = state.site.sys.path(&device);
    extract::stream(state, |packing| {
        let mut cmd = if archive {
            let mut argv = vec!["tar", "--extract", "--to-stdout", "--file=-"];
            argv.extend(packing.tar_option());
            Cmd::new(&argv)
        } else {
            match packing.program() {
                Some(program) => Cmd::new(&[program, "-dc"]),
                None => Cmd::new(&["cat"]),
            }
        };
        cmd.stdout_to = Some(to.clone());
        cmd
    })
}

/// Finds the image's root file system and mounts it. An image without one that cloud-init could use is left as it is.
pub(super) fn mount(state: &mut State<'_>) -> Result<(), InstallError> {
    let device = state.boot_disk()?;
    let site = state.site;
    for argv in [
        vec!["sync"],
        vec!["partprobe", &device],
        vec!["udevadm", "settle", "--timeout=20"],
    ] {
        site.runner.run(&Cmd::new(&argv), None);
    }
    let root = state.tree.root().to_path_buf();
    std::fs::create_dir_all(&root).map_err(|cause| InstallError::Io {
        what: format!("cannot make {}", root.display()),
        cause,
    })?;
    let name = device.trim_start_matches("/dev/").to_owned();
    let partitions = block::disks(site.sys)
        .into_iter()
        .find(|d| d.name == name)
        .map(|d| d.partitions)
        .unwrap_or_default();
    // Whole-disk file systems have no partitions; the largest file system is the root more often than not.
    let mut candidates: Vec<(u64, String)> = partitions
        .into_iter()
        .map(|p| (p.size, format!("/dev/{}", p.name)))
        .collect();
    candidates.push((0, device));
    candidates.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    for (_, candidate) in candidates {
        for kind in ROOT_KINDS {
            if site
                .runner
                .run(
                    &Cmd::new(&["mount", "-t", kind, &candidate, &root.to_string_lossy()]),
                    None,
                )
                .end
                != End::Exited(0)
            {
                continue;
            }
            if state.tree.has("/etc/cloud") {
                site.journal.line(format_args!(
                    "the image's system is on {candidate} ({kind})"
                ));
                state.raw_root = true;
                return Ok(());
            }
            site.runner
                .run(&Cmd::new(&["umount", &root.to_string_lossy()]), None);
        }
    }
    site.journal
        .line("the image has no system with cloud-init; it is left as it is");
    Ok(())
}

/// Gives the image's cloud-init its datasource, and the plan's files.
pub(super) fn configure(state: &mut State<'_>) -> Result<(), InstallError> {
    if !state.raw_root {
        return Ok(());
    }
    super::target::cloud_init(&state.tree, state.plan, &state.report_url)?;
    super::target::files(&state.tree, state.plan)
}
