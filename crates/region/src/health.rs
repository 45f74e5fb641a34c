//! `/readyz`: whether the region can do its work now. (`/healthz` says that the process answers at all.)

use std::time::Duration;

use crate::answer::Answer;
use crate::region::Region;

/// How long the database may take.
const LIMIT: Duration = Duration::from_secs(2);

/// 200 when the database answers and nobody has told the region to stop; 503 with the reason otherwise.
pub async fn ready(region: &Region) -> Answer {
    let reason = if region.stop.is_cancelled() {
        Some("the region is stopping".to_owned())
    } else {
        match tokio::time::timeout(LIMIT, ask(region)).await {
            Ok(Ok(())) => None,
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "the database does not answer");
                Some("the database does not answer".to_owned())
            }
            Err(_) => Some(format!("the database has not answered within {LIMIT:?}")),
        }
    };
    match reason {
        None => Answer::text("ready\n"),
        Some(reason) => Answer::text(format!("{reason}\n"))
            .status(503)
            .header("Retry-After", "5"),
    }
}

async fn ask(region: &Region) -> Result<(), store::StoreError> {
    let mut tx = region.db.read().await?;
    store::one!(tx, (i64,), "SELECT epoch FROM feed_state WHERE id = 1")?;
    Ok(())
}
