//! The metadata service: what machines ask and report, from cloud-init's first request to the installed
//! system's first boot.
//!
//! Three trees have the same content: the plain one, `curtin/` (a machine that is being installed: nothing
//! fetched there ends the deployment) and `enlist/` (a machine that nobody knows). Every call is recorded
//! in the machine's boot timeline: by its rack when it came over one, else here ([`note`]).

mod boot;
mod data;
mod signal;
mod status;
mod work;

use std::net::IpAddr;

use metal::timeline::{Entry, What};
use metal::{MacAddr, SystemId, Timestamp};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::{NodeRow, row};
use crate::operation::{Body, Face, Kind, Method, Operation, Param, Who};
use crate::region::Region;

/// Versions of the service that there are.
pub const VERSIONS: [&str; 2] = ["2012-03-01", "latest"];
/// Most bytes of a report to the status webhook: logs come with it.
pub const MAX_REPORT: usize = 32 << 20;

const ANYONE: Operation = Operation {
    face: Face::Metadata,
    who: Who::Anyone,
    ..Operation::READ
};
const NODE: Operation = Operation {
    face: Face::Metadata,
    who: Who::Node,
    ..Operation::READ
};
const NODE_POST: Operation = Operation {
    method: Method::Post,
    ..NODE
};

const SIGNAL_PARAMS: &[Param] = &[
    Param::must(
        "status",
        Kind::Choice(&signal::WORDS),
        "What is the matter.",
    ),
    Param::opt("error", Kind::Text, "A sentence for people."),
    Param::opt(
        "script_result_id",
        Kind::Int,
        "The script result that this is about.",
    ),
    Param::opt(
        "script_version_id",
        Kind::Int,
        "The version of the script that ran.",
    ),
    Param::opt("exit_status", Kind::Int, "Exit status of the script."),
    Param::opt("script_result", Kind::Int, "Another name for exit_status."),
    Param::opt("runtime", Kind::Text, "Seconds that the script ran."),
    Param::opt(
        "name",
        Kind::Text,
        "Name of the script, where it has no result yet.",
    ),
    Param::opt(
        "power_type",
        Kind::Text,
        "Power driver that the machine found for itself.",
    ),
    Param::opt(
        "power_parameters",
        Kind::Text,
        "Parameters of the power driver, as a JSON object.",
    ),
    Param::opt(
        "attempt",
        Kind::Int,
        "Number of the installation that this is about; an older one is refused.",
    ),
];

/// Everything below `/MAAS/metadata/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        uri: "",
        also: &["curtin", "curtin/", "enlist", "enlist/"],
        title: "Versions of the metadata service.",
        run: |_| Box::pin(async { Ok(lines(&VERSIONS)) }),
        ..ANYONE
    },
    Operation {
        uri: "{version}/",
        also: &["{version}", "curtin/{version}/", "curtin/{version}"],
        title: "What there is for a machine.",
        run: |c| Box::pin(data::index(c)),
        ..NODE
    },
    Operation {
        uri: "{version}/meta-data/",
        also: &[
            "{version}/meta-data",
            "curtin/{version}/meta-data/",
            "curtin/{version}/meta-data",
        ],
        title: "Names of the machine's metadata.",
        run: |c| Box::pin(data::list(c)),
        ..NODE
    },
    Operation {
        uri: "{version}/meta-data/{item}",
        also: &[
            "{version}/meta-data/{item}/",
            "{version}/meta-data/{item}/{rest}",
            "curtin/{version}/meta-data/{item}",
            "curtin/{version}/meta-data/{item}/",
            "curtin/{version}/meta-data/{item}/{rest}",
        ],
        title: "One piece of the machine's metadata.",
        run: |c| Box::pin(data::item(c)),
        ..NODE
    },
    Operation {
        uri: "{version}/user-data",
        also: &["{version}/user-data/"],
        title: "The machine's user-data. Fetched by the installed system, it ends the deployment.",
        run: |c| Box::pin(data::user_data(c)),
        ..NODE
    },
    Operation {
        uri: "curtin/{version}/user-data",
        also: &["curtin/{version}/user-data/"],
        title: "User-data of the ephemeral system that installs the machine.",
        run: |c| Box::pin(data::curtin_user_data(c)),
        ..NODE
    },
    Operation {
        uri: "{version}/maas-scripts",
        also: &[
            "{version}/maas-scripts/",
            "curtin/{version}/maas-scripts",
            "curtin/{version}/maas-scripts/",
            "enlist/{version}/maas-scripts",
        ],
        who: Who::NodeOrAnyone,
        title: "The scripts to run, as a tar archive.",
        run: |c| Box::pin(work::scripts(c)),
        ..NODE
    },
    Operation {
        uri: "{version}/agent-work",
        also: &["curtin/{version}/agent-work"],
        title: "What the agent is to do.",
        run: |c| Box::pin(work::work(c)),
        ..NODE
    },
    Operation {
        uri: "{version}/",
        also: &["{version}", "curtin/{version}/", "curtin/{version}"],
        op: Some("signal"),
        title: "Progress, results and the end of what a machine does.",
        params: SIGNAL_PARAMS,
        run: |c| Box::pin(signal::signal(c)),
        ..NODE_POST
    },
    Operation {
        uri: "{version}/",
        also: &["{version}", "curtin/{version}/", "curtin/{version}"],
        op: Some("netboot_off"),
        title: "From now on the machine boots its disk.",
        run: |c| Box::pin(work::netboot(c, false)),
        ..NODE_POST
    },
    Operation {
        uri: "{version}/",
        also: &["{version}", "curtin/{version}/", "curtin/{version}"],
        op: Some("netboot_on"),
        title: "From now on the machine boots from the network.",
        run: |c| Box::pin(work::netboot(c, true)),
        ..NODE_POST
    },
    Operation {
        uri: "{version}/by-id/{system_id}/",
        also: &[
            "curtin/{version}/by-id/{system_id}/",
            "enlist/{version}/by-id/{system_id}/",
        ],
        op: Some("get_preseed"),
        title: "The preseed of a machine, for that machine only.",
        run: |c| Box::pin(boot::preseed(c)),
        ..ANYONE
    },
    Operation {
        uri: "{version}/by-id/{system_id}/",
        also: &["curtin/{version}/by-id/{system_id}/"],
        method: Method::Post,
        op: Some("netboot_off"),
        title: "From now on the machine boots its disk; told by the machine itself.",
        run: |c| Box::pin(boot::netboot_off(c)),
        ..ANYONE
    },
    Operation {
        uri: "{version}/enlist-preseed/",
        op: Some("get_enlist_preseed"),
        title: "The preseed of machines that nobody knows.",
        run: |c| Box::pin(boot::enlist_preseed(c)),
        ..ANYONE
    },
    Operation {
        uri: "enlist/{version}/",
        also: &["enlist/{version}"],
        title: "What there is for a machine that nobody knows.",
        run: |c| Box::pin(data::enlist_index(c)),
        ..ANYONE
    },
    Operation {
        uri: "enlist/{version}/meta-data/",
        also: &["enlist/{version}/meta-data"],
        title: "Names of the metadata of a machine that nobody knows.",
        run: |c| Box::pin(data::enlist_list(c)),
        ..ANYONE
    },
    Operation {
        uri: "enlist/{version}/meta-data/{item}",
        also: &[
            "enlist/{version}/meta-data/{item}/",
            "enlist/{version}/meta-data/{item}/{rest}",
        ],
        title: "One piece of the metadata of a machine that nobody knows.",
        run: |c| Box::pin(data::enlist_item(c)),
        ..ANYONE
    },
    Operation {
        uri: "enlist/{version}/user-data",
        also: &["enlist/{version}/user-data/"],
        title: "User-data of a machine that nobody knows.",
        run: |c| Box::pin(data::enlist_user_data(c)),
        ..ANYONE
    },
    Operation {
        uri: "status/{system_id}",
        also: &["status/{system_id}/"],
        method: Method::Post,
        body: Body::Raw(MAX_REPORT),
        success: 204,
        title: "Progress of cloud-init and of an installation.",
        run: |c| Box::pin(status::report(c)),
        ..NODE
    },
];

/// A list with one name per line.
fn lines(names: &[&str]) -> Answer {
    Answer::text(names.join("\n"))
}

/// 404 for a version that there is not.
fn check_version(call: &Call) -> Result<(), ApiError> {
    let version = call.path("version");
    if VERSIONS.contains(&version) {
        Ok(())
    } else {
        Err(ApiError::NotFound(format!(
            "Unknown metadata version: {}.",
            version.chars().take(64).collect::<String>()
        )))
    }
}

/// The machine that calls.
async fn caller(tx: &mut Tx, call: &Call) -> Result<NodeRow, ApiError> {
    row::by_id(tx, call.actor().node()?.id).await
}

/// Puts something into the boot timeline of the machine that calls.
async fn record(call: &Call, what: What) {
    let Ok(node) = call.actor().node() else {
        return;
    };
    let mut entry = Entry::new(call.now(), what);
    entry.ip = Some(call.origin().ip);
    entry.mac = call.origin().mac;
    entry.system_id = Some(node.system_id.clone());
    crate::rack_link::report::timeline(call.region(), vec![entry]).await;
}

/// Text for the timeline: not more of it than is kept.
fn short(text: &str) -> String {
    let mut end = text.len().min(metal::timeline::MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A request that reached the region without a rack.
#[derive(Clone, Debug)]
pub struct Direct {
    method: String,
    path: String,
    ip: IpAddr,
    token: Option<String>,
    at: Timestamp,
}

impl Direct {
    /// What of a request is recorded: nothing of its credentials.
    #[must_use]
    pub fn new(
        method: &str,
        target: &str,
        authorization: Option<&str>,
        ip: IpAddr,
        at: Timestamp,
    ) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let op = query.split('&').find(|p| p.starts_with("op="));
        let path = op.map_or_else(|| path.to_owned(), |op| format!("{path}?{op}"));
        let token = authorization
            .and_then(|a| a.split("oauth_token=\"").nth(1)?.split('"').next())
            .map(str::to_owned);
        Self {
            method: method.to_owned(),
            path: short(&path),
            ip,
            token,
            at,
        }
    }
}

/// Records a request that no rack recorded, also a refused one, where its machine can be told.
pub async fn note(region: &Region, request: Direct, status: u16) {
    match whose(region, &request).await {
        Ok((None, None)) => {}
        Ok((system_id, mac)) => {
            let what = What::Metadata {
                method: request.method,
                path: request.path,
                status,
            };
            let mut entry = Entry::new(request.at, what);
            (entry.ip, entry.mac, entry.system_id) = (Some(request.ip), mac, system_id);
            crate::rack_link::report::timeline(region, vec![entry]).await;
        }
        Err(e) => tracing::warn!(error = %e, "a metadata call was not recorded"),
    }
}

async fn whose(
    region: &Region,
    request: &Direct,
) -> Result<(Option<SystemId>, Option<MacAddr>), ApiError> {
    let mut tx = region.db.read().await?;
    if let Some(token) = &request.token {
        let found = store::opt!(
            tx,
            (String,),
            "SELECT n.system_id FROM token t JOIN node n ON n.id = t.node_id WHERE t.token_key = $1",
            token
        )?;
        if let Some((id,)) = found {
            return Ok((Some(SystemId(id)), None));
        }
    }
    let ip = request.ip.to_string();
    let leased = store::opt!(
        tx,
        (String,),
        "SELECT mac FROM lease WHERE ip = $1 AND until > $2",
        &ip,
        request.at.0
    )?;
    if let Some(mac) = leased.and_then(|l| l.0.parse().ok()) {
        return Ok((None, Some(mac)));
    }
    let booted = store::opt!(
        tx,
        (String,),
        "SELECT system_id FROM node WHERE boot_client_ip = $1 AND boot_client_at > $2 ORDER BY boot_client_at DESC LIMIT 1",
        &ip,
        request.at.minus(crate::preseed::BOOT_AGE).0
    )?;
    Ok((booted.map(|b| SystemId(b.0)), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_is_recorded() {
        let d = Direct::new(
            "GET",
            "/MAAS/metadata/latest/?oauth_token=a&op=signal&oauth_signature=%26secret",
            Some("OAuth oauth_token=\"tk\", oauth_signature=\"%26secret\""),
            IpAddr::from([10, 0, 0, 1]),
            Timestamp(1),
        );
        assert_eq!(d.path, "/MAAS/metadata/latest/?op=signal");
        assert_eq!(d.token.as_deref(), Some("tk"));
    }
}
