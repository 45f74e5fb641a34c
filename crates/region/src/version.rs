//! `version`: what clients ask first.

use serde_json::json;

use crate::answer::Answer;
use crate::operation::{Face, Operation, Who};

/// The MAAS version whose API this is.
pub const MAAS_VERSION: &str = "3.7.3";

/// What clients look for before they use a feature.
pub const CAPABILITIES: [&str; 9] = [
    "networks-management",
    "static-ipaddresses",
    "ipv6-deployment-ubuntu",
    "devices-management",
    "storage-deployment-ubuntu",
    "network-deployment-ubuntu",
    "bridging-interface-ubuntu",
    "bridging-automatic-ubuntu",
    "authenticate-api",
];

/// `GET version/` and the older `GET /MAAS/api/version/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        handler: "VersionHandler",
        uri: "version/",
        who: Who::Anyone,
        title: "The version of the API and what it can do.",
        run: |_| {
            Box::pin(async {
                Ok(Answer::json(json!({
                    "capabilities": CAPABILITIES,
                    "version": MAAS_VERSION,
                    "subversion": format!("steelyard-{}", env!("CARGO_PKG_VERSION")),
                })))
            })
        },
        ..Operation::READ
    },
    Operation {
        face: Face::Web,
        uri: "api/version/",
        who: Who::Anyone,
        title: "The version of the API, as one word.",
        run: |_| Box::pin(async { Ok(Answer::text("2.0")) }),
        ..Operation::READ
    },
];
