//! One call of an operation: who calls, with what, from where, and how it reads and writes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use metal::{MacAddr, SystemId, Timestamp};
use store::Tx;
use store::db::{MAX_TRIES, Patience};

use crate::args::Args;
use crate::auth::Actor;
use crate::error::ApiError;
use crate::event;
use crate::operation::{Face, Operation};
use crate::region::Region;
use crate::v1;
use crate::v1::etag::Guard;

/// Where a request came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The caller's address as the socket that took the request saw it.
    pub ip: IpAddr,
    /// The rack that passed it on, when it came over one.
    pub rack: Option<SystemId>,
    /// The hardware address that the rack knows behind the caller's address.
    pub mac: Option<MacAddr>,
    /// `http://host:port` as the caller reached us (or its rack).
    pub base: String,
    /// The caller's `User-Agent`.
    pub user_agent: String,
    /// The part of the content that is asked for: the `Range` header.
    pub range: Option<String>,
    /// The tags that the object must have for a write: the header `If-Match`.
    pub if_match: Option<String>,
    /// The tags that the caller has: the header `If-None-Match`.
    pub if_none_match: Option<String>,
    /// Where a stream goes on: the header `Last-Event-ID`.
    pub last_event_id: Option<String>,
}

/// Parameters that name what a call is about, for its audit event. None of them is ever a secret.
const NAMING: [&str; 10] = [
    "name", "username", "hostname", "machines", "cidr", "vid", "start_ip", "os", "release", "tag",
];
/// Longest such name in an audit event, in characters.
const MAX_NAME: usize = 200;

/// How long the change of a machine's call is tried again while others are in its way: a machine's cloud-init does
/// not come again when it is refused. Less than a rack waits for the answer.
pub const MACHINE_PATIENCE: Duration = Duration::from_secs(40);

/// A call. Cheap to clone: everything is behind one pointer.
#[derive(Clone)]
pub struct Call {
    inner: Arc<Inner>,
}

struct Inner {
    region: Arc<Region>,
    operation: &'static Operation,
    actor: Actor,
    path: Vec<(&'static str, String)>,
    args: Args,
    body: Bytes,
    origin: Origin,
    now: Timestamp,
    audited: AtomicBool,
    /// What must still hold when this writes.
    guard: Option<Guard>,
    /// The operation that this begins with a machine, and its number once it has.
    begins: Option<metal::operation::Kind>,
    begun: AtomicI64,
}

/// What a [`Call`] is made of.
pub struct Parts {
    /// The region.
    pub region: Arc<Region>,
    /// The operation called.
    pub operation: &'static Operation,
    /// Who calls.
    pub actor: Actor,
    /// The varying parts of the path.
    pub path: Vec<(&'static str, String)>,
    /// Parameters.
    pub args: Args,
    /// The body as it came, for operations with a raw body.
    pub body: Bytes,
    /// Where the request came from.
    pub origin: Origin,
    /// When it came.
    pub now: Timestamp,
}

impl Call {
    /// A call of these parts.
    #[must_use]
    pub fn new(p: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                region: p.region,
                operation: p.operation,
                actor: p.actor,
                path: p.path,
                args: p.args,
                body: p.body,
                origin: p.origin,
                now: p.now,
                audited: AtomicBool::new(false),
                guard: None,
                begins: None,
                begun: AtomicI64::new(0),
            }),
        }
    }

    /// The same call of the operation that stands behind this one: same caller, path and parameters.
    #[must_use]
    pub(crate) fn second(
        &self,
        operation: &'static Operation,
        guard: Option<Guard>,
        begins: Option<metal::operation::Kind>,
    ) -> Self {
        self.derived(
            operation,
            self.inner.path.clone(),
            self.inner.args.clone(),
            guard,
            begins,
        )
    }

    /// A call of an operation on one object, by the same caller.
    #[must_use]
    pub(crate) fn of_item(
        &self,
        operation: &'static Operation,
        path: Vec<(&'static str, String)>,
        args: Args,
    ) -> Self {
        self.derived(operation, path, args, None, None)
    }

    fn derived(
        &self,
        operation: &'static Operation,
        path: Vec<(&'static str, String)>,
        args: Args,
        guard: Option<Guard>,
        begins: Option<metal::operation::Kind>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                region: Arc::clone(&self.inner.region),
                operation,
                actor: self.inner.actor.clone(),
                path,
                args,
                body: self.inner.body.clone(),
                origin: self.inner.origin.clone(),
                now: self.inner.now,
                audited: AtomicBool::new(false),
                guard,
                begins,
                begun: AtomicI64::new(0),
            }),
        }
    }

    /// The number of the operation that this call began with a machine.
    #[must_use]
    pub fn begun(&self) -> Option<i64> {
        Some(self.inner.begun.load(Ordering::Acquire)).filter(|id| *id > 0)
    }

    /// All varying parts of the path.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.inner.path.iter().map(|(_, v)| v.as_str())
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.inner.region
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> &'static Operation {
        self.inner.operation
    }

    /// Who calls.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.inner.actor
    }

    /// The parameters.
    #[must_use]
    pub fn args(&self) -> &Args {
        &self.inner.args
    }

    /// The raw body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.inner.body
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// When it came.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.now
    }

    /// A varying part of the path.
    #[must_use]
    pub fn path(&self, name: &str) -> &str {
        self.inner
            .path
            .iter()
            .find(|(n, _)| *n == name)
            .map_or("", |(_, v)| v)
    }

    /// A varying part of the path that is a database id.
    ///
    /// # Errors
    /// 404 for the model when it is no number.
    pub fn path_id(&self, name: &str, model: &str) -> Result<i64, ApiError> {
        self.path(name)
            .parse()
            .map_err(|_| ApiError::missing(model))
    }

    /// A snapshot to read from.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn read(&self) -> Result<Tx, ApiError> {
        Ok(self.inner.region.db.read().await?)
    }

    /// Runs a change as one transaction, with the audit event of this call in it. The closure may run
    /// more than once and does nothing but SQL.
    ///
    /// # Errors
    /// The closure's own, or the database's.
    pub async fn write<T, F>(&self, f: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx, Self) -> BoxFuture<'t, Result<T, ApiError>>
            + Send
            + Sync
            + 'static,
    {
        let call = self.clone();
        let f = Arc::new(f);
        let patience = if self.is_from_a_machine() {
            Patience::For(MACHINE_PATIENCE)
        } else {
            Patience::Tries(MAX_TRIES)
        };
        let result = self
            .inner
            .region
            .db
            .write_with(patience, move |tx| {
                let (call, f) = (call.clone(), Arc::clone(&f));
                Box::pin(async move {
                    if let Some(guard) = &call.inner.guard {
                        guard.check(tx).await?;
                    }
                    let t = f(tx, call.clone()).await?;
                    if let Some(kind) = call.inner.begins {
                        let id = v1::operations::begin(tx, &call, kind).await?;
                        call.inner.begun.store(id, Ordering::Release);
                    }
                    if !call.inner.audited.load(Ordering::Acquire) {
                        event::audit(tx, &call).await?;
                    }
                    Ok::<T, ApiError>(t)
                })
            })
            .await;
        if result.is_ok() {
            self.inner.audited.store(true, Ordering::Release);
        }
        result
    }

    /// A call that only machines make: with a machine's credentials, to the metadata service, or to enlist itself.
    fn is_from_a_machine(&self) -> bool {
        self.inner.operation.face == Face::Metadata
            || matches!(self.inner.actor, Actor::Node(_) | Actor::Anonymous)
    }

    /// Whether the audit event of this call is written.
    pub(crate) fn is_audited(&self) -> bool {
        self.inner.audited.load(Ordering::Acquire)
    }

    /// What the audit event calls the object: the varying parts of the path, and the parameters that name
    /// something.
    pub(crate) fn object(&self) -> String {
        let given = self.inner.operation.params.iter().filter_map(|p| {
            let value = self.inner.args.filled(p.name)?;
            NAMING.contains(&p.name).then_some((p.name, value))
        });
        self.inner
            .path
            .iter()
            .map(|(n, v)| (*n, v.as_str()))
            .chain(given)
            .map(|(n, v)| format!("{n}={}", v.chars().take(MAX_NAME).collect::<String>()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}
