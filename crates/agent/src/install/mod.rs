//! Installing an operating system: a list of named steps, each of which can be repeated, each reported.
//!
//! [`install`] runs the steps; [`disks`], [`partition`], [`filesystem`], [`extract`], [`network`],
//! [`target`] and [`boot`] are what they do. Whatever a step runs outside this program goes through
//! [`Runner`]; whatever it writes into the new system goes through [`tree::Tree`].

pub mod boot;
pub mod disks;
pub mod extract;
pub mod filesystem;
pub mod image;
pub mod network;
pub mod partition;
mod raw;
pub mod target;
pub mod tree;
pub mod yaml;

use std::path::PathBuf;

use metal::install::{Plan, StorageItem};

use self::disks::Found;
use self::extract::Kind;
use self::filesystem::{Filesystem, Mount};
use self::tree::Tree;
use crate::http::HttpError;
use crate::journal::Journal;
use crate::metadata::Metadata;
use crate::process::{Cmd, CommandFailed, End, Runner, must};
use crate::report::{Event, Outcome, Reporter};
use crate::sys::Sys;

/// Path under which the log is kept with the result.
pub const LOG_PATH: &str = "/tmp/install.log";

/// Where and with what an installation runs.
pub struct Site<'a> {
    /// The machine.
    pub sys: &'a Sys,
    /// External commands.
    pub runner: &'a dyn Runner,
    /// The metadata service.
    pub metadata: &'a Metadata,
    /// The log.
    pub journal: &'a Journal,
    /// Where the new system is mounted.
    pub target: PathBuf,
    /// `uname -m`.
    pub machine: String,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A command.
    #[error(transparent)]
    Command(#[from] CommandFailed),
    /// The image.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// The metadata service.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A planned disk is not in this machine.
    #[error("disk {id} ({wanted}) is not in this machine; it has {present}")]
    NoDisk {
        /// Id in the plan.
        id: String,
        /// What it was looked for by.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// The plan and the machine do not fit.
    #[error("{0}")]
    Plan(String),
    /// A file.
    #[error("{what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        #[source]
        cause: std::io::Error,
    },
}

/// An installation that failed: where, and why in full.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed: {reason}")]
pub struct Failure {
    /// Name of the step.
    pub step: String,
    /// The reason with its causes, without secrets.
    pub reason: String,
}

/// What the steps know and hand on.
struct State<'a> {
    site: &'a Site<'a>,
    plan: &'a Plan,
    report: &'a Reporter,
    report_url: String,
    tree: Tree,
    found: Found,
    filesystems: Vec<Filesystem>,
    mounts: Vec<Mount>,
    raw_root: bool,
}

type Step = (
    &'static str,
    &'static str,
    fn(&mut State<'_>) -> Result<(), InstallError>,
);
type Stage = (&'static str, &'static [Step]);

const FIND: Step = ("find-disks", "finding the planned disks", find_disks);
const RELEASE: Step = (
    "release-disks",
    "freeing the disks from what holds them",
    release_disks,
);
const WIPE: Step = ("wipe-disks", "wiping old signatures", wipe_disks);
const FINISH: &[Step] = &[
    ("unmount", "unmounting the new system", |s| unmount(s)),
    ("netboot-off", "switching to booting from the disk", |s| {
        Ok(s.site.metadata.netboot_off()?)
    }),
];

/// Steps for a root file system.
const STAGES: &[Stage] = &[
    (
        "partitioning",
        &[
            FIND,
            (
                "check-plan",
                "checking the plan against the machine",
                check_plan,
            ),
            RELEASE,
            WIPE,
            ("partition-disks", "writing partition tables", |s| {
                partition::partition(s.site.sys, s.site.runner, &s.plan.storage, &s.found)
            }),
            ("make-file-systems", "making file systems", |s| {
                filesystem::make(s.site.runner, &s.filesystems)
            }),
            (
                "mount-file-systems",
                "mounting the new file systems",
                mount_filesystems,
            ),
        ],
    ),
    (
        "extract",
        &[("extract-image", "unpacking the image", extract::image)],
    ),
    (
        "curthooks",
        &[
            ("write-fstab", "writing fstab", write_fstab),
            ("name-host", "naming the machine", |s| {
                target::name(&s.tree, s.plan)
            }),
            (
                "configure-network",
                "configuring the network",
                configure_network,
            ),
            ("configure-cloud-init", "configuring cloud-init", |s| {
                target::cloud_init(&s.tree, s.plan, &s.report_url)
            }),
            ("write-files", "writing the plan's files", |s| {
                target::files(&s.tree, s.plan)
            }),
            ("install-boot-loader", "installing the boot loader", |s| {
                boot::install(s.site, &s.tree, s.plan, &s.found, &s.mounts)
            }),
        ],
    ),
    ("late", FINISH),
];

/// Steps for an image of a whole disk.
const RAW_STAGES: &[Stage] = &[
    ("partitioning", &[FIND, RELEASE, WIPE]),
    (
        "extract",
        &[(
            "extract-image",
            "writing the image onto the disk",
            raw::write,
        )],
    ),
    (
        "curthooks",
        &[
            ("mount-image", "looking for the image's system", raw::mount),
            (
                "configure-cloud-init",
                "configuring cloud-init",
                raw::configure,
            ),
        ],
    ),
    ("late", FINISH),
];

impl State<'_> {
    /// Path of the disk that the firmware boots.
    fn boot_disk(&self) -> Result<String, InstallError> {
        let grub = self.plan.storage.iter().find_map(|i| {
            if let StorageItem::Disk {
                id,
                grub_device: true,
                ..
            } = i
            {
                Some(id)
            } else {
                None
            }
        });
        let first = self.plan.storage.iter().find_map(|i| {
            if let StorageItem::Disk { id, .. } = i {
                Some(id)
            } else {
                None
            }
        });
        let disk = grub.or(first).and_then(|id| self.found.get(id));
        disk.map(crate::block::Disk::path)
            .ok_or_else(|| InstallError::Plan("the plan has no disk to boot from".to_owned()))
    }
}

fn find_disks(s: &mut State<'_>) -> Result<(), InstallError> {
    Kind::of(&s.plan.image.ftype)?;
    s.found = disks::find(s.site.sys, &s.plan.storage)?;
    for (id, disk) in &s.found {
        let serial = disk.serial.as_deref().unwrap_or("none");
        s.site.journal.line(format_args!(
            "disk {id} is {} (serial {serial}, {} bytes)",
            disk.path(),
            disk.size
        ));
    }
    Ok(())
}

/// Everything that can be known to fail is said before anything is wiped.
fn check_plan(s: &mut State<'_>) -> Result<(), InstallError> {
    for (id, disk) in &s.found {
        partition::parts(&s.plan.storage, id, disk)?;
    }
    s.filesystems = filesystem::filesystems(s.site.sys, &s.plan.storage, &s.found)?;
    s.filesystems
        .iter()
        .try_for_each(|f| filesystem::make_command(f).map(|_| ()))?;
    s.mounts = filesystem::mounts(&s.plan.storage, &s.filesystems)?;
    boot::check(s.site, &s.mounts)
}

fn release_disks(s: &mut State<'_>) -> Result<(), InstallError> {
    s.found
        .values()
        .try_for_each(|d| disks::release(s.site.sys, s.site.runner, s.site.journal, d))
}

fn wipe_disks(s: &mut State<'_>) -> Result<(), InstallError> {
    s.found
        .values()
        .try_for_each(|d| disks::wipe(s.site.sys, s.site.runner, s.site.journal, d))
}

fn mount_filesystems(s: &mut State<'_>) -> Result<(), InstallError> {
    filesystem::mount_all(s.site.runner, s.site.sys, &s.tree, &s.mounts)
}

fn write_fstab(s: &mut State<'_>) -> Result<(), InstallError> {
    let text = filesystem::fstab(&s.mounts);
    s.tree
        .write("/etc/fstab", text.as_bytes(), 0o644)
        .map_err(|cause| InstallError::Io {
            what: "cannot write /etc/fstab".to_owned(),
            cause,
        })
}

fn configure_network(s: &mut State<'_>) -> Result<(), InstallError> {
    let renderer = network::write(&s.tree, &s.plan.network)?;
    s.site
        .journal
        .line(format_args!("the network is configured by {renderer:?}"));
    if renderer == network::Renderer::Networkd {
        must(
            s.site.runner,
            &chroot(
                &s.tree,
                &["systemctl", "enable", "systemd-networkd.service"],
            ),
        )?;
        if s.tree.has("/lib/systemd/systemd-resolved") {
            must(
                s.site.runner,
                &chroot(
                    &s.tree,
                    &["systemctl", "enable", "systemd-resolved.service"],
                ),
            )?;
        }
    }
    Ok(())
}

fn unmount(s: &mut State<'_>) -> Result<(), InstallError> {
    let root = s.tree.root().to_string_lossy().into_owned();
    must(s.site.runner, &Cmd::new(&["sync"]))?;
    let raw_without_root = Kind::of(&s.plan.image.ftype)? == Kind::Raw && !s.raw_root;
    if !raw_without_root {
        let plain = Cmd::new(&["umount", "--recursive", &root]);
        let output = s.site.runner.run(&plain, None);
        if output.end != End::Exited(0) {
            // Something in the tree is still held, a daemon perhaps: what was written is synced, and no name leads there any more.
            s.site.journal.line(format_args!(
                "`{plain}`: {} {}",
                output.end,
                output.stderr.trim()
            ));
            must(
                s.site.runner,
                &Cmd::new(&["umount", "--recursive", "--lazy", &root]),
            )?;
        }
    }
    must(s.site.runner, &Cmd::new(&["sync"]))?;
    Ok(())
}

/// A command inside the new system.
#[must_use]
pub fn chroot(tree: &Tree, argv: &[&str]) -> Cmd {
    let root = tree.root().to_string_lossy();
    let mut all = vec!["chroot", &root];
    all.extend(argv);
    Cmd::new(&all).env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )
}

/// An error with all its causes.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let text = e.to_string();
        if !out.ends_with(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        cause = e.source();
    }
    out
}

/// Carries out a plan and reports each step. Rebooting is the caller's.
///
/// # Errors
/// The step that failed. It was reported, and what was mounted is unmounted again.
pub fn install(
    site: &Site<'_>,
    plan: &Plan,
    report: &Reporter,
    report_url: &str,
) -> Result<(), Failure> {
    let mut state = State {
        site,
        plan,
        report,
        report_url: report_url.to_owned(),
        tree: Tree::new(&site.target),
        found: Found::new(),
        filesystems: Vec::new(),
        mounts: Vec::new(),
        raw_root: false,
    };
    let start = |name: &str, description: &str| {
        report.send(Event::Start {
            name: name.to_owned(),
            description: description.to_owned(),
        })
    };
    let finish = |name: &str, description: String, outcome, files| {
        report.send(Event::Finish {
            name: name.to_owned(),
            description,
            outcome,
            files,
        })
    };
    let log = |journal: &Journal| vec![(LOG_PATH.to_owned(), journal.text().into_bytes())];
    start(
        "cmd-install",
        &format!(
            "installing {} ({}, attempt {})",
            plan.fqdn, plan.image.ftype, plan.attempt
        ),
    );
    let stages = match Kind::of(&plan.image.ftype) {
        Ok(Kind::Raw) => RAW_STAGES,
        // An unknown kind fails in its own step, with its name.
        Ok(Kind::Archive | Kind::Squashfs) | Err(_) => STAGES,
    };
    for (stage, steps) in stages {
        let stage = format!("cmd-install/stage-{stage}");
        start(&stage, &format!("{} steps", steps.len()));
        for (step, description, run) in *steps {
            let name = format!("{stage}/{step}");
            site.journal.line(format_args!("{step}: {description}"));
            start(&name, description);
            if let Err(e) = run(&mut state) {
                let reason = site.journal.redact(&chain(&e));
                site.journal.line(format_args!("{step} failed: {reason}"));
                clean_up(&state);
                let text = format!("{step} failed: {reason}");
                finish(&name, text.clone(), Outcome::Fail, Vec::new());
                finish(&stage, text.clone(), Outcome::Fail, Vec::new());
                finish("cmd-install", text, Outcome::Fail, log(site.journal));
                return Err(Failure {
                    step: (*step).to_owned(),
                    reason,
                });
            }
            finish(
                &name,
                (*description).to_owned(),
                Outcome::Success,
                Vec::new(),
            );
        }
        finish(
            &stage,
            format!("{} steps done", steps.len()),
            Outcome::Success,
            Vec::new(),
        );
    }
    site.journal.line("installed");
    finish(
        "cmd-install",
        format!("{} is installed", plan.fqdn),
        Outcome::Success,
        log(site.journal),
    );
    Ok(())
}

/// Unmounts what a failed installation left, as far as it goes.
fn clean_up(state: &State<'_>) {
    let root = state.tree.root().to_string_lossy().into_owned();
    let table = state.site.sys.text("proc/self/mounts").unwrap_or_default();
    for at in [format!("{root}-image"), root] {
        if table
            .lines()
            .any(|l| l.split(' ').nth(1) == Some(at.as_str()))
        {
            state
                .site
                .runner
                .run(&Cmd::new(&["umount", "--recursive", "--lazy", &at]), None);
        }
    }
}
