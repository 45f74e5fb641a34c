//! Tests through the front door: a running Steelyard, real HTTP, real packets, real databases, foreign peers.
//!
//! [`TestCluster`] is a region and a rack in this process, with a database and ports of their own;
//! [`Client`] calls its API as users do. [`cluster_test!`] makes a test for each database engine.
//! [`Front`] is a region alone, without workers and rack; [`front_test!`] makes tests with it.

mod client;
mod cluster;
pub mod front;

pub use client::{Client, Fields, Reply};
pub use cluster::{Engine, Options, TestCluster, until};
pub use front::Front;

/// Makes a test that runs on SQLite, and with the feature `peers` on a real PostgreSQL too:
///
/// ```ignore
/// steelyard_tests::cluster_test! {
///     /// A released address can be given again.
///     async fn release_returns_ip_to_the_pool(c: TestCluster) { … c.admin.get("subnets/").await … }
/// }
/// ```
#[macro_export]
macro_rules! cluster_test {
    ($($(#[$meta:meta])* async fn $name:ident($c:ident: TestCluster) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn body($c: &$crate::TestCluster) $body
            async fn run(engine: $crate::Engine) {
                let cluster = $crate::TestCluster::start($crate::Options { engine, ..Default::default() }).await;
                body(&cluster).await;
                cluster.stop().await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() { run($crate::Engine::Sqlite).await }
            #[cfg(feature = "peers")]
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() { run($crate::Engine::Postgres).await }
        }
    )*};
}
