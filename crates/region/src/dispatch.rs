//! From a request to the operation that answers it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use metal::{MacAddr, SystemId, Timestamp};

use crate::answer::Answer;
use crate::args::Args;
use crate::auth::{self, Actor, OAuth};
use crate::call::{Call, Origin, Parts};
use crate::error::ApiError;
use crate::metadata;
use crate::operation::{Body, Face, MAX_FORM, Method, Operation, Who};
use crate::region::Region;
use crate::v1::problem;

/// A request, whatever brought it: our own socket or a rack.
pub struct Incoming {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The caller's address.
    pub ip: IpAddr,
    /// The rack that passed it on, and the hardware address it knows behind the caller's address.
    pub via: Option<(SystemId, Option<MacAddr>)>,
    /// `http://host:port` as the caller reached us or its rack.
    pub base: String,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("method", &self.method)
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}

impl Incoming {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

const FACES: [Face; 4] = [Face::Maas2, Face::V1, Face::Metadata, Face::Web];

/// A path, its face and its `op`.
struct Target<'a> {
    face: Face,
    path: String,
    op: Option<String>,
    query: &'a str,
}

fn split(target: &str) -> Option<Target<'_>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    for face in FACES {
        let Some(rest) = path.strip_prefix(face.prefix()) else {
            continue;
        };
        let mut rest = rest.to_owned();
        if face == Face::Metadata {
            // cloud-init doubles slashes.
            while rest.contains("//") {
                rest = rest.replace("//", "/");
            }
            rest = rest.trim_start_matches('/').to_owned();
        }
        let mut op = None;
        if let Some((before, last)) = rest
            .rsplit_once('/')
            .map(|(b, l)| (b.to_owned(), l.to_owned()))
            && let Some(name) = last.strip_prefix("op-")
        {
            op = Some(name.to_owned());
            rest = format!("{before}/");
        }
        return Some(Target {
            face,
            path: rest,
            op,
            query,
        });
    }
    None
}

/// Most bytes that the body of this request may have.
#[must_use]
pub fn body_limit(region: &Region, target: &str) -> usize {
    let Some(t) = split(target) else { return 0 };
    let Some(found) = region.router.find(t.face, &t.path) else {
        return 0;
    };
    found
        .operations
        .iter()
        .map(|o| match o.body {
            Body::Form => MAX_FORM,
            Body::Raw(n) => n,
        })
        .max()
        .unwrap_or(0)
}

/// Characters of a caller's trace id that are given back.
const MAX_TRACE: usize = 128;

/// Answers a request.
pub async fn dispatch(region: &Arc<Region>, incoming: Incoming) -> Answer {
    let face = split(&incoming.target).map(|t| t.face);
    // A rack records what it passes on.
    let direct = (face == Some(Face::Metadata) && incoming.via.is_none()).then(|| {
        let now = Timestamp::from_system(std::time::SystemTime::now());
        metadata::Direct::new(
            &incoming.method,
            &incoming.target,
            incoming.header("authorization"),
            incoming.ip,
            now,
        )
    });
    let trace: Option<String> = incoming
        .header("maas-trace-id")
        .map(|t| t.chars().take(MAX_TRACE).collect());
    let mut answer = match answer(region, incoming).await {
        Ok(a) => a,
        Err(e) if face == Some(Face::V1) => problem::of_answer(e.answer()),
        Err(e) => e.answer(),
    };
    if let Some(request) = direct {
        metadata::note(region, request, answer.status).await;
    }
    if face == Some(Face::Maas2) {
        answer
            .headers
            .push(("X-MAAS-API-Hash", region.describe_hash().to_owned()));
        answer
            .headers
            .push(("Vary", "Authorization, Cookie".to_owned()));
        if let Some(trace) = trace {
            answer.headers.push(("MAAS-trace-id", trace));
        }
    }
    answer
}

async fn answer(region: &Arc<Region>, incoming: Incoming) -> Result<Answer, ApiError> {
    let now = Timestamp::from_system(std::time::SystemTime::now());
    let unknown = || {
        ApiError::NotFound(format!(
            "Unknown API endpoint: {}.",
            incoming.target.split('?').next().unwrap_or("")
        ))
    };
    let target = split(&incoming.target).ok_or_else(unknown)?;
    let found = region
        .router
        .find(target.face, &target.path)
        .ok_or_else(unknown)?;
    let mut args = Args::default();
    args.push_urlencoded(target.query)?;
    // What the query says goes before what the body says.
    let in_query = args.filled("op").map(str::to_owned);
    let raw = found
        .operations
        .iter()
        .any(|o| matches!(o.body, Body::Raw(_)) && o.method.word() == incoming.method);
    if !raw {
        args.push_body(
            incoming.header("content-type").unwrap_or(""),
            &incoming.body,
        )?;
    }
    let op = target
        .op
        .clone()
        .or(in_query)
        .or_else(|| args.filled("op").map(str::to_owned));

    let oauth = incoming
        .header("authorization")
        .and_then(OAuth::from_header)
        .or_else(|| OAuth::from_pairs(args.iter()));
    let actor = match oauth {
        Some(o) => auth::authenticate(region, &o, now).await?,
        None => Actor::Anonymous,
    };
    let operation = choose(found.operations, &incoming.method, op.as_deref(), &actor)?;
    permit(operation, &actor)?;
    args.check(operation)?;

    let (rack, mac) = match incoming.via.clone() {
        Some((rack, mac)) => (Some(rack), mac),
        None => (None, None),
    };
    let origin = Origin {
        ip: incoming.ip,
        rack,
        mac,
        base: incoming.base.clone(),
        user_agent: incoming
            .header("user-agent")
            .unwrap_or("")
            .chars()
            .take(512)
            .collect(),
        range: incoming.header("range").map(str::to_owned),
        if_match: incoming.header("if-match").map(str::to_owned),
        if_none_match: incoming.header("if-none-match").map(str::to_owned),
        last_event_id: incoming.header("last-event-id").map(str::to_owned),
    };
    let call = Call::new(Parts {
        region: Arc::clone(region),
        operation,
        actor,
        path: found.path,
        args,
        body: incoming.body,
        origin,
        now,
    });
    run(call).await
}

/// Runs a call that was let through.
///
/// # Errors
/// The operation's own.
pub(crate) async fn run(call: Call) -> Result<Answer, ApiError> {
    let operation = call.operation();
    let answer = (operation.run)(call.clone()).await?;
    if operation.audit.is_some() && !call.is_audited() {
        // A change whose effect is not in the database, a command to a BMC for example.
        call.write(|_, _| Box::pin(async { Ok(()) })).await?;
    }
    Ok(answer)
}

/// Picks the operation for a method and an `op`. Callers without credentials see the anonymous
/// operations of the path only, as MAAS has it.
fn choose(
    all: &[&'static Operation],
    method: &str,
    op: Option<&str>,
    actor: &Actor,
) -> Result<&'static Operation, ApiError> {
    let method_of = Method::of(method);
    let matches = |o: &&&'static Operation| Some(o.method) == method_of && o.op == op;
    let anonymous = *actor == Actor::Anonymous;
    let mut candidates: Vec<&'static Operation> = all.iter().filter(matches).copied().collect();
    candidates.sort_by_key(|o| o.is_anonymous() != anonymous);
    if let Some(&first) = candidates.first()
        && (!anonymous || first.is_anonymous())
    {
        return Ok(first);
    }
    if anonymous && !all.iter().any(|o| o.is_anonymous()) {
        return Err(ApiError::Unauthorized(
            "Log in first: this needs the credentials of an API key.".to_owned(),
        ));
    }
    let visible = || all.iter().filter(|o| !anonymous || o.is_anonymous());
    if !visible().any(|o| Some(o.method) == method_of) && op.is_none() && !anonymous {
        let mut allow: Vec<&str> = visible().map(|o| o.method.word()).collect();
        allow.sort_unstable();
        allow.dedup();
        return Err(ApiError::Method(allow.join(", ")));
    }
    let op = op.map_or_else(|| "None".to_owned(), |o| o.chars().take(64).collect());
    Err(ApiError::Bad(format!(
        "Unrecognised signature: method={method} op={op}"
    )))
}

/// Whether somebody may call an operation at all.
pub(crate) fn permit(operation: &Operation, actor: &Actor) -> Result<(), ApiError> {
    match operation.who {
        Who::Anyone => Ok(()),
        Who::User => actor.user().map(|_| ()),
        Who::Admin => {
            if actor.user()?.is_superuser {
                Ok(())
            } else {
                Err(ApiError::forbidden())
            }
        }
        Who::Node => actor.node().map(|_| ()),
        Who::NodeOrAnyone => match actor {
            Actor::Anonymous => Ok(()),
            _ => actor.node().map(|_| ()),
        },
    }
}
