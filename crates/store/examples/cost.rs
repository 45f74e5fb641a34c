//! What a read and a write cost on SQLite, in the current directory's file system:
//! `cargo run --release -p store --features testing --example cost`.

use std::time::Instant;

use futures::FutureExt as _;
use store::{StoreError, Tx};

#[tokio::main]
async fn main() -> Result<(), StoreError> {
    let t = store::testing::sqlite().await;
    let mut out = String::new();
    for round in 0..5 {
        let n = 5_000;
        let began = Instant::now();
        for _ in 0..n {
            drop(t.db.read().await?);
        }
        let acquire = began.elapsed() / n;
        let began = Instant::now();
        for _ in 0..n {
            let mut tx = t.db.read().await?;
            store::one!(tx, (i64,), "SELECT id FROM zone WHERE name = $1", "default")?;
        }
        let read = began.elapsed() / n;
        let mut tx = t.db.read().await?;
        let began = Instant::now();
        for _ in 0..n {
            store::one!(tx, (i64,), "SELECT id FROM zone WHERE name = $1", "default")?;
        }
        let statement = began.elapsed() / n;
        drop(tx);
        let began = Instant::now();
        let writers = (0..64).map(|w| {
            let db = t.db.clone();
            tokio::spawn(async move {
                for i in 0..20 {
                    let name = format!("{round}.{w}.{i}");
                    db.write(move |tx: &mut Tx| {
                        let name = name.clone();
                        async move {
                            store::exec!(
                                tx,
                                "INSERT INTO setting (name, value) VALUES ($1, '0')",
                                name
                            )?;
                            Ok::<_, StoreError>(())
                        }
                        .boxed()
                    })
                    .await?;
                }
                Ok::<_, StoreError>(())
            })
        });
        for w in futures::future::join_all(writers).await {
            w.expect("no writer panics")?;
        }
        let writes = f64::from(64 * 20) / began.elapsed().as_secs_f64();
        out += &format!(
            "acquire {acquire:?}  read {read:?}  statement {statement:?}  writes {writes:.0}/s\n"
        );
    }
    std::io::Write::write_all(&mut std::io::stdout(), out.as_bytes()).expect("somebody reads this");
    Ok(())
}
