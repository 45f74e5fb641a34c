//! Databases for tests (feature `testing`): each test has its own, on SQLite in a temporary directory
//! and, with the feature `peers`, on a real PostgreSQL too.
//!
//! ```ignore
//! store::both! {
//!     /// A released address can be given again.
//!     async fn release_returns_ip_to_the_pool(t: store::testing::TestDb) { … t.db … }
//! }
//! ```
//!
//! makes a module `release_returns_ip_to_the_pool` with the tests `sqlite` and, with `peers`, `postgres`.
//!
//! The PostgreSQL server is Debian's package (15 or newer), private to the tests: started by the first
//! test process that needs it, shared by those that run at the same time, and stopped and removed when
//! the last of them has ended, however it ended. A supervising shell watches a lock that every test
//! process holds while it lives, so a killed test leaves nothing behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use tempfile::TempDir;

use crate::db::{Db, Options, Target};

/// How long a PostgreSQL server may take to be made and started on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A database of its own. What it needs on disk goes with it.
#[derive(Debug)]
pub struct TestDb {
    /// The database.
    pub db: Db,
    /// How to open it again.
    pub options: Options,
    /// A directory for the test, gone with this value.
    pub dir: TempDir,
}

/// A fresh SQLite database in a temporary directory.
///
/// # Panics
/// When it cannot be made.
pub async fn sqlite() -> TestDb {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new(Target::Sqlite(dir.path().join("region.db")));
    open(options, dir).await
}

/// A fresh database on the PostgreSQL server of the tests.
///
/// # Panics
/// When there is no PostgreSQL or it does not start: with `peers` on, that is a failure.
pub async fn postgres() -> TestDb {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = postgres_database().await;
    open(
        Options {
            connections: 4,
            ..Options::new(Target::Postgres(url))
        },
        dir,
    )
    .await
}

async fn open(options: Options, dir: TempDir) -> TestDb {
    let db = Db::open(&options).await.expect("a fresh database opens");
    TestDb { db, options, dir }
}

/// The URL of a new and empty database on the PostgreSQL server of the tests.
///
/// # Panics
/// When there is no PostgreSQL or it does not start.
pub async fn postgres_database() -> String {
    use sqlx::{Connection as _, Executor as _};
    let server = tokio::task::spawn_blocking(server)
        .await
        .expect("the server's start does not panic");
    let name = format!("t{:032x}", rand::random::<u128>());
    let admin = format!("{server}/postgres");
    let mut conn = sqlx::PgConnection::connect(&admin)
        .await
        .expect("the test server answers");
    conn.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .expect("a new database");
    conn.close().await.expect("the connection ends");
    format!("{server}/{name}")
}

/// The server's URL without a database. The lock lives as long as the process.
fn server() -> String {
    static SERVER: LazyLock<Mutex<Option<(String, File)>>> = LazyLock::new(Mutex::default);
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if server.is_none() {
        *server = Some(attach());
    }
    server
        .as_ref()
        .map(|(url, _)| url.clone())
        .expect("it was just set")
}

/// Joins the running server of the tests, or starts it.
fn attach() -> (String, File) {
    let uid = rustix::process::getuid().as_raw();
    let base = std::env::temp_dir().join(format!("steelyard-test-postgres-{uid}"));
    std::fs::create_dir_all(&base).expect("a directory for the test server");
    let lock = |name: &str| {
        File::options()
            .create(true)
            .append(true)
            .open(base.join(name))
            .expect("a lock file for the test server")
    };
    // While a server is being taken down its supervisor holds this lock alone, so this waits.
    let users = lock("users");
    users.lock_shared().expect("a lock on the test server");
    let starting = lock("starting");
    starting.lock().expect("the lock to start the test server");
    let url_file = base.join("url");
    let url = match std::fs::read_to_string(&url_file) {
        Ok(url) if answers(&url) => url,
        _ => start(&base, &url_file),
    };
    (url, users)
}

fn port_of(url: &str) -> Option<u16> {
    url.rsplit(':').next()?.parse().ok()
}

fn answers(url: &str) -> bool {
    port_of(url).is_some_and(|p| std::net::TcpStream::connect(("127.0.0.1", p)).is_ok())
}

/// Debian's newest PostgreSQL programs.
fn programs() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| {
            let version: u32 = e.file_name().to_str()?.parse().ok()?;
            let bin = e.path().join("bin");
            (version >= 15 && bin.join("initdb").exists()).then_some((version, bin))
        });
    found
        .max()
        .expect("PostgreSQL 15 or newer under /usr/lib/postgresql: install the package postgresql")
        .1
}

/// What the supervisor runs. It makes the cluster, starts the server, waits until no test process is left
/// for two seconds, and removes everything. `$1` programs, `$2` directory, `$3` port, then the words
/// that change to the server's user.
const SUPERVISOR: &str = r#"
bin=$1 base=$2 port=$3; shift 3
data=$base/data
rm -rf "$data" "$base/url"
if ! "$@" "$bin/initdb" -D "$data" -U postgres --auth=trust -E UTF8 --locale=C --no-sync; then exit 1; fi
"$@" "$bin/postgres" -D "$data" -p "$port" -k "$base" -c listen_addresses=127.0.0.1 \
    -c fsync=off -c full_page_writes=off -c max_connections=300 -c shared_buffers=64MB \
    -c max_pred_locks_per_transaction=256 -c autovacuum=off -c logging_collector=off &
pid=$!
while :; do
    exec 9>"$base/users"
    flock -x 9
    # Another test process may start right after: keep the server a little.
    flock -u 9
    sleep 2
    if flock -n -x 9; then break; fi
done
rm -f "$base/url"
kill -QUIT "$pid"
wait "$pid"
rm -rf "$data"
"#;

fn start(base: &Path, url_file: &Path) -> String {
    let bin = programs();
    let port = {
        let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        probe
            .local_addr()
            .expect("a bound socket has an address")
            .port()
    };
    let mut words = vec![
        "-c".into(),
        SUPERVISOR.into(),
        "steelyard-test-postgres".into(),
        bin.into_os_string(),
        base.as_os_str().to_owned(),
        port.to_string().into(),
    ];
    if rustix::process::getuid().is_root() {
        // PostgreSQL refuses to run as root.
        std::os::unix::fs::chown(base, Some(user_id("postgres")), None)
            .expect("the server's user may write");
        words.extend(
            [
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--init-groups",
                "--",
            ]
            .map(Into::into),
        );
    } else {
        words.push("env".into());
    }
    let log = File::create(base.join("log")).expect("a log for the test server");
    let mut supervisor = Command::new("setsid")
        .arg("sh")
        .args(words)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log for both outputs"))
        .stderr(log)
        .spawn()
        .expect("the supervisor of the test server starts");
    let url = format!("postgres://postgres@127.0.0.1:{port}");
    let began = Instant::now();
    loop {
        let ready = Command::new(programs().join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()
            .expect("pg_isready runs");
        if ready.success() {
            break;
        }
        let ended = supervisor.try_wait().expect("the supervisor is our child");
        assert!(
            ended.is_none() && began.elapsed() < START_LIMIT,
            "the test PostgreSQL does not start: {}",
            std::fs::read_to_string(base.join("log")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::write(url_file, &url).expect("the server's address is noted");
    url
}

fn user_id(name: &str) -> u32 {
    let users = std::fs::read_to_string("/etc/passwd").expect("the list of users");
    users
        .lines()
        .find_map(|l| {
            let mut fields = l.split(':');
            (fields.next() == Some(name))
                .then(|| fields.nth(1)?.parse().ok())
                .flatten()
        })
        .expect("the user postgres, which the package postgresql makes")
}

/// Makes tests that run on both engines; see [`crate::testing`].
#[cfg(feature = "peers")]
#[macro_export]
macro_rules! both {
    ($($(#[$meta:meta])* async fn $name:ident($t:ident: $ty:ty) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn body($t: $ty) $body
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() { body($crate::testing::sqlite().await).await }
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() { body($crate::testing::postgres().await).await }
        }
    )*};
}

/// Makes tests that run on SQLite, and with the feature `peers` on both engines; see [`crate::testing`].
#[cfg(not(feature = "peers"))]
#[macro_export]
macro_rules! both {
    ($($(#[$meta:meta])* async fn $name:ident($t:ident: $ty:ty) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn body($t: $ty) $body
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() { body($crate::testing::sqlite().await).await }
        }
    )*};
}
