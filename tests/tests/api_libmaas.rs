//! python-libmaas, which people have programs on, through every noun that it knows.
#![cfg(feature = "peers")]

use std::path::Path;
use std::process::Command;

use metal::status::Status;
use steelyard_tests::front::{ADMIN, now};

steelyard_tests::front_test! {
    /// What it does is in `libmaas/scenario.py`.
    async fn python_libmaas_walks_through_every_noun_it_knows(f: Front) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let python = root.join("target/peers/libmaas/bin/python");
        assert!(python.exists(), "{} is missing: run scripts/install-python", python.display());
        let machine = f.machine(&[("hostname", "walked")]).await;
        let id = machine["system_id"].as_str().expect("an id").to_owned();
        f.equip(&id).await;
        f.put_into(&id, Status::Ready, None).await;
        let key = region::user::api_key(&f.region, ADMIN.0, now()).await.expect("a key").joined();
        let mut command = Command::new(python);
        command
            .arg(root.join("tests/tests/libmaas/scenario.py"))
            .args([&format!("{}/", f.url), &key, &id, ADMIN.0, ADMIN.1]);
        let out = tokio::task::spawn_blocking(move || command.output().expect("python runs"))
            .await
            .expect("it ends");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "the walk is over\n");
    }
}
