//! What can be made to go wrong with a machine.

use std::time::Duration;

/// A fault of a machine. It stays until it is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine hangs before it sends anything: no request is ever seen.
    StopBeforeRequest,
    /// Firmware is given a loader that it cannot start (over DHCP because it names another architecture).
    WrongLoader,
    /// The loader starts and hangs: no configuration or kernel is asked for.
    StopAfterLoader,
    /// The machine hangs while it fetches the kernel.
    StopDuringKernel,
    /// The ephemeral system has no route to the metadata service.
    NoMetadataRoute,
    /// The ephemeral system's credentials are wrong.
    RefusedCredentials,
    /// A script ends with this exit status.
    ScriptFails {
        /// Its name.
        script: String,
        /// Its exit status.
        exit_status: i32,
    },
    /// The machine hangs while it fetches the image to install.
    StopDuringImage,
    /// The machine does not come back from the reboot after the installation.
    NoReturn,
}

/// A fault of a BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BmcFault {
    /// None.
    #[default]
    None,
    /// The password is another one now.
    OtherPassword,
    /// It answers nothing.
    Silent,
    /// Every answer takes this long.
    Slow(Duration),
}
