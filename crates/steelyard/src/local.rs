//! What the program asks of a region in its own process.

use std::sync::Arc;

use anyhow::Context as _;
use region::Region;

/// The names of the administrators, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn administrators(region: &Arc<Region>) -> anyhow::Result<Vec<String>> {
    let read = async {
        let mut tx = region.db.read().await?;
        let rows = store::all!(
            tx,
            (String,),
            "SELECT username FROM user_account WHERE is_superuser ORDER BY id"
        )?;
        Ok::<_, store::StoreError>(rows)
    };
    let rows = read.await.context("the administrators cannot be read")?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}
