//! Events: what happened to machines, and the audit trail of accepted changes.

use metal::Timestamp;
use store::Tx;

use crate::auth::Actor;
use crate::call::Call;
use crate::error::ApiError;

/// Levels of events, with the numbers of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Accepted changes.
    Audit = 0,
    /// For developers.
    Debug = 10,
    /// Worth knowing.
    Info = 20,
    /// May need somebody.
    Warning = 30,
    /// Something failed.
    Error = 40,
    /// Everything is at stake.
    Critical = 50,
}

impl Level {
    /// The word in queries and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Audit => "AUDIT",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    /// The level of a word or number.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let all = [
            Self::Audit,
            Self::Debug,
            Self::Info,
            Self::Warning,
            Self::Error,
            Self::Critical,
        ];
        all.into_iter()
            .find(|l| l.word().eq_ignore_ascii_case(text) || (*l as i64).to_string() == text)
    }

    /// The level of a number in the database.
    #[must_use]
    pub fn of_number(n: i64) -> Self {
        Self::of(&n.to_string()).unwrap_or(Self::Info)
    }
}

/// The types of events: the word that clients filter by, its level, and what it is called.
macro_rules! kinds {
    ($($name:ident = $word:literal $level:ident $text:literal),* $(,)?) => {
        /// A type of event. The words are MAAS's, because clients filter by them; the texts are ours.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $text] $name,)*
        }

        impl Kind {
            /// The word that clients filter by.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Its level.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }

            /// What it is called.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    PowerOn = "NODE_POWERED_ON" Debug "Power is on",
    PowerOff = "NODE_POWERED_OFF" Debug "Power is off",
    PowerOnFailed = "NODE_POWER_ON_FAILED" Error "Power could not be switched on",
    PowerOffFailed = "NODE_POWER_OFF_FAILED" Error "Power could not be switched off",
    PowerCycleFailed = "NODE_POWER_CYCLE_FAILED" Error "Power could not be cycled",
    PowerQueryFailed = "NODE_POWER_QUERY_FAILED" Warning "The BMC could not be asked",
    PxeRequest = "NODE_PXE_REQUEST" Debug "Asked for its boot configuration",
    PerformingPxe = "PERFORMING_PXE_BOOT" Info "Booting from the network",
    StatusChanged = "NODE_CHANGED_STATUS" Debug "Status changed",
    StatusEvent = "NODE_STATUS_EVENT" Debug "Progress",
    InstallEvent = "NODE_INSTALL_EVENT" Debug "Installation step",
    InstallFailed = "NODE_INSTALL_EVENT_FAILED" Error "Installation step failed",
    InstallationFinished = "NODE_INSTALLATION_FINISHED" Debug "Installation done",
    CommissioningEvent = "NODE_COMMISSIONING_EVENT" Debug "Commissioning step",
    CommissioningFailed = "NODE_COMMISSIONING_EVENT_FAILED" Error "Commissioning step failed",
    PreseedRefused = "NODE_PRESEED_REFUSED" Warning "Somebody else asked for this machine's preseed",
    New = "NEW" Info "New",
    Commissioning = "COMMISSIONING" Info "Commissioning",
    FailedCommissioning = "FAILED_COMMISSIONING" Info "Commissioning failed",
    Testing = "TESTING" Info "Testing",
    FailedTesting = "FAILED_TESTING" Info "Testing failed",
    Ready = "READY" Info "Ready",
    Deploying = "DEPLOYING" Info "Deploying",
    Deployed = "DEPLOYED" Info "Deployed",
    Releasing = "RELEASING" Info "Releasing",
    Released = "RELEASED" Info "Released",
    EnteringRescueMode = "ENTERING_RESCUE_MODE" Info "Entering rescue mode",
    RescueMode = "RESCUE_MODE" Info "In rescue mode",
    ConfiguringStorage = "CONFIGURING_STORAGE" Info "Preparing the disks",
    InstallingOs = "INSTALLING_OS" Info "Writing the operating system",
    ConfiguringOs = "CONFIGURING_OS" Info "Configuring the operating system",
    Rebooting = "REBOOTING" Info "Rebooting",
    LoadingEphemeral = "LOADING_EPHEMERAL" Info "Starting the ephemeral system",
    GatheringInfo = "GATHERING_INFO" Info "Taking inventory",
    RunningTest = "RUNNING_TEST" Info "Running a test",
    ScriptDidNotComplete = "SCRIPT_DID_NOT_COMPLETE" Info "A script did not complete",
    ScriptChanged = "SCRIPT_RESULT_CHANGED_STATUS" Debug "Script result",
    AbortedCommissioning = "ABORTED_COMMISSIONING" Info "Commissioning was aborted",
    AbortedDeployment = "ABORTED_DEPLOYMENT" Info "Deployment was aborted",
    AbortedTesting = "ABORTED_TESTING" Info "Testing was aborted",
    MarkedFailed = "REQUEST_NODE_MARK_FAILED_SYSTEM" Error "Marked as failed",
    RequestCommissioning = "REQUEST_NODE_START_COMMISSIONING" Debug "Commissioning was asked for",
    RequestAbort = "REQUEST_NODE_ABORT_COMMISSIONING" Debug "Abort was asked for",
    RequestAcquire = "REQUEST_NODE_ACQUIRE" Debug "Allocation was asked for",
    RequestDeploy = "REQUEST_NODE_START_DEPLOYMENT" Debug "Deployment was asked for",
    RequestRelease = "REQUEST_NODE_RELEASE" Debug "Release was asked for",
    RequestTesting = "REQUEST_NODE_START_TESTING" Debug "Tests were asked for",
    RequestOverride = "REQUEST_NODE_OVERRIDE_FAILED_TESTING" Debug "Failed tests were set aside",
    RequestRescue = "REQUEST_NODE_START_RESCUE_MODE" Debug "Rescue mode was asked for",
    RequestRescueEnd = "REQUEST_NODE_STOP_RESCUE_MODE" Debug "The end of rescue mode was asked for",
    ExitedRescueMode = "EXITED_RESCUE_MODE" Info "Out of rescue mode",
    RequestPowerOn = "REQUEST_NODE_START" Debug "Power on was asked for",
    RequestPowerOff = "REQUEST_NODE_STOP" Debug "Power off was asked for",
    ImportInfo = "REGION_IMPORT_INFO" Debug "Image import",
    ImportWarning = "REGION_IMPORT_WARNING" Warning "Image import",
    ImportError = "REGION_IMPORT_ERROR" Error "Image import failed",
    ForeignDhcp = "RACK_FOREIGN_DHCP" Warning "A foreign DHCP server answers",
}

/// A node that an event is about.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// Database id.
    pub id: i64,
    /// System id.
    pub system_id: &'a str,
    /// Host name at this time.
    pub hostname: &'a str,
}

/// Writes an event about a node (or about none).
///
/// # Errors
/// When the database fails.
pub async fn add(
    tx: &mut Tx,
    kind: Kind,
    about: Option<About<'_>>,
    username: &str,
    description: &str,
    at: Timestamp,
) -> Result<(), ApiError> {
    let (id, system_id, hostname) = match &about {
        Some(a) => (Some(a.id), Some(a.system_id), a.hostname),
        None => (None, None, ""),
    };
    store::exec!(
        tx,
        "INSERT INTO event (type, level, type_description, node_id, node_system_id, node_hostname, username, description, created) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        kind.word(),
        kind.level() as i64,
        kind.text(),
        id,
        system_id,
        hostname,
        username,
        cut(description),
        at.0
    )?;
    if let Some(a) = about
        && kind.level() >= Level::Info
    {
        store::exec!(
            tx,
            "UPDATE node SET status_action = $2, status_message = $3 WHERE id = $1",
            a.id,
            kind.text(),
            if description.is_empty() {
                kind.text().to_owned()
            } else {
                format!("{} - {}", kind.text(), cut(description))
            }
        )?;
    }
    Ok(())
}

/// Longest description kept, in bytes.
const MAX_DESCRIPTION: usize = 4_096;

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_DESCRIPTION);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Writes the audit event of a call.
pub(crate) async fn audit(tx: &mut Tx, call: &Call) -> Result<(), ApiError> {
    let Some(kind) = call.operation().audit else {
        return Ok(());
    };
    let op = call.operation();
    let description = format!("{} {} {}", op.action(), op.uri, call.object());
    // Who logs in with a password is nobody until then; the password was right, or this is not reached.
    let username = match call.actor() {
        Actor::Anonymous => call.args().filled("username").unwrap_or(""),
        actor => actor.name(),
    };
    store::exec!(
        tx,
        "INSERT INTO event (type, level, type_description, node_system_id, username, ip_address, endpoint, user_agent, description, created) \
         VALUES ($1, 0, $1, $2, $3, $4, $5, $6, $7, $8)",
        kind,
        Some(call.path("system_id")).filter(|s| !s.is_empty()),
        username,
        call.origin().ip.to_string(),
        endpoint(&call.origin().user_agent),
        cut(&call.origin().user_agent),
        cut(description.trim_end()),
        call.now().0
    )?;
    Ok(())
}

/// 0 API, 1 UI, 2 command line.
fn endpoint(user_agent: &str) -> i64 {
    if user_agent.starts_with("Mozilla/") {
        1
    } else if user_agent.contains("maascli") || user_agent.starts_with("steelyard-cli") {
        2
    } else {
        0
    }
}
