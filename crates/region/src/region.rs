//! The region itself: what its parts share, how it starts and stops.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use store::seal::Sealer;
use store::timeline::Timeline;
use store::{Db, Target};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempts::Attempts;
use crate::auth::Nonces;
use crate::describe;
use crate::error::ApiError;
use crate::image::Demand;
use crate::operation::Operation;
use crate::preseed::Agents;
use crate::rack_link::Hub;
use crate::router::Router;
use crate::script;
use crate::table;
use crate::v1::changes;

/// The file with the keys of secrets, in the data directory.
const KEY_FILE: &str = "secret.key";
/// Name and sealing context of the secret that tells whether the key is the right one.
const KEY_CHECK: &str = "key.check";

/// How a region is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    /// The database; SQLite in the data directory unless told otherwise.
    pub database: Target,
    /// The name of this region among several on one database.
    pub name: String,
    /// The agent for each architecture (`amd64`, `arm64`), as bytes.
    pub agents: BTreeMap<String, Bytes>,
}

/// A region. Lives in an [`Arc`].
pub struct Region {
    /// The database.
    pub db: Db,
    /// The boot timelines.
    pub timeline: Timeline,
    /// Seals and opens secrets.
    pub sealer: Sealer,
    /// How it runs.
    pub config: Config,
    /// The agents that machines can fetch.
    pub agents: Agents,
    /// Nonces of signed requests.
    pub nonces: Nonces,
    /// Log-ins that failed.
    pub attempts: Attempts,
    /// All operations by path.
    pub router: Router,
    /// Racks that are connected.
    pub hub: Hub,
    /// Content that racks wait for.
    pub content: Demand,
    /// Room for streams of changes.
    pub streams: Arc<Semaphore>,
    /// The tasks that belong to it; [`Region::stop`] waits for them.
    pub tasks: TaskTracker,
    /// Ends its tasks.
    pub stop: CancellationToken,
    queries: Mutex<HashSet<String>>,
    next_query: AtomicI64,
    table: Vec<&'static Operation>,
    describe_hash: String,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("name", &self.config.name)
            .finish_non_exhaustive()
    }
}

impl Region {
    /// Opens the data of a region: database, timelines, keys. Starts nothing.
    ///
    /// # Errors
    /// When the data cannot be opened.
    pub async fn open(config: Config) -> Result<Arc<Self>, ApiError> {
        std::fs::create_dir_all(&config.data_dir).map_err(|e| {
            ApiError::Bug(format!(
                "cannot make the data directory {}: {e}",
                config.data_dir.display()
            ))
        })?;
        let sealer = Sealer::open_or_create(&config.data_dir.join(KEY_FILE))?;
        let options = store::Options::new(config.database.clone());
        let db = Db::open(&options).await?;
        let timeline = Timeline::open(&options).await?;
        let table = table::all();
        let region = Arc::new(Self {
            db,
            timeline,
            sealer,
            agents: Agents::new(&config.agents),
            nonces: Nonces::default(),
            attempts: Attempts::default(),
            router: Router::new(&table),
            hub: Hub::default(),
            content: Demand::default(),
            streams: Arc::new(Semaphore::new(changes::MAX_STREAMS)),
            queries: Mutex::default(),
            next_query: AtomicI64::new(-1),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            describe_hash: describe::hash(&table),
            table,
            config,
        });
        region.check_key().await?;
        script::ensure_builtin(&region).await?;
        Ok(region)
    }

    /// Whether the key in the data directory is the one that the database's secrets are sealed with. A
    /// second region that made a key of its own would serve and fail later, at the first secret.
    async fn check_key(&self) -> Result<(), ApiError> {
        let sealed = self.sealer.seal(KEY_CHECK, KEY_CHECK.as_bytes());
        let kept = self
            .db
            .write(move |tx| {
                let sealed = sealed.clone();
                Box::pin(async move {
                    let kept = store::opt!(
                        tx,
                        (Vec<u8>,),
                        "SELECT sealed FROM secret WHERE name = $1",
                        KEY_CHECK
                    )?;
                    if let Some((kept,)) = kept {
                        return Ok(kept);
                    }
                    store::exec!(
                        tx,
                        "INSERT INTO secret (name, sealed) VALUES ($1, $2)",
                        KEY_CHECK,
                        &sealed
                    )?;
                    Ok::<_, ApiError>(sealed)
                })
            })
            .await?;
        self.sealer.unseal(KEY_CHECK, &kept).map(drop).map_err(|_| {
            ApiError::Bug(format!(
                "{} is not the key of this database; all regions of a database have the same secret.key: copy it from one that works",
                self.config.data_dir.join(KEY_FILE).display()
            ))
        })
    }

    /// The operation table.
    #[must_use]
    pub fn table(&self) -> &[&'static Operation] {
        &self.table
    }

    /// The hash of the describe document.
    #[must_use]
    pub fn describe_hash(&self) -> &str {
        &self.describe_hash
    }

    /// A number for a question that is no job; never the number of one.
    #[must_use]
    pub fn query_id(&self) -> i64 {
        self.next_query.fetch_sub(1, Ordering::Relaxed)
    }

    /// Notes that a machine's power is being asked for; says whether it was not already.
    #[must_use]
    pub fn begin_query(&self, system_id: &str) -> bool {
        self.queries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(system_id.to_owned())
    }

    /// The answer came, or did not.
    pub fn end_query(&self, system_id: &str) {
        self.queries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(system_id);
    }

    /// Ends all tasks and closes the database.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.timeline.close().await;
        self.db.close().await;
    }
}

/// Default address of the API.
#[must_use]
pub fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 5240))
}
