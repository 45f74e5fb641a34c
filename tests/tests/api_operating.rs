//! What those who run it look at: metrics, readiness, and the limit of failed log-ins.

use region::attempts::{PER_ADDRESS, PER_NAME};
use reqwest::Method;
use steelyard_tests::front::ADMIN;
use steelyard_tests::{Front, Reply};

/// A page that has nothing to do with `/MAAS`.
async fn page(f: &Front, path: &str) -> Reply {
    let nobody = f.nobody();
    nobody
        .send(nobody.request(Method::GET, &format!("/..{path}")))
        .await
}

async fn log_in(f: &Front, name: &str, password: &str) -> Reply {
    let fields = [
        ("username", name),
        ("password", password),
        ("consumer", "c"),
    ];
    let nobody = f.nobody();
    nobody
        .call(Method::POST, "/accounts/authenticate/", None, &fields)
        .await
}

steelyard_tests::front_test! {
    async fn metrics_count_what_is_there(f: Front) {
        let value = |text: &str, name: &str| -> String {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).to_owned()
        };
        let before = page(f, "/metrics").await.expect(200);
        assert_eq!(before.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(value(&before.text(), "maas_machines{status=\"new\"}"), "0");
        drop(f.machine(&[]).await);
        drop(f.machine(&[]).await);
        drop(f.admin.create("fabrics/", &[]).await.good());
        let after = page(f, "/metrics").await.text();
        assert_eq!(value(&after, "maas_machines{status=\"new\"}"), "2");
        assert_eq!(value(&after, "maas_nodes{type=\"machine\"}"), "2");
        assert_eq!(value(&after, "maas_machine_arches{arches=\"amd64/generic\"}"), "2");
        let number = |text: &str| value(text, "maas_net_fabrics").parse::<i64>().expect("a number");
        assert_eq!(number(&after), number(&before.text()) + 1);
        // Every sample belongs to a family that was announced, and none twice.
        let mut seen = std::collections::BTreeSet::new();
        for line in after.lines().filter(|l| !l.starts_with('#')) {
            let (sample, number) = line.rsplit_once(' ').expect("a sample and its value");
            let family = sample.split('{').next().unwrap_or_default();
            assert!(after.contains(&format!("# TYPE {family} ")), "{line}");
            assert!(seen.insert(sample), "{line}");
            number.parse::<i64>().expect("a number");
        }
    }

    async fn a_region_is_ready_until_it_stops(f: Front) {
        assert_eq!(page(f, "/healthz").await.expect(200).text(), "ok\n");
        assert_eq!(page(f, "/readyz").await.expect(200).text(), "ready\n");
        f.region.db.close().await;
        let reply = page(f, "/readyz").await.expect(503);
        assert_eq!(reply.text(), "the database does not answer\n");
        assert_eq!(page(f, "/healthz").await.expect(200).text(), "ok\n", "it lives all the same");
    }

    async fn passwords_cannot_be_tried_without_end(f: Front) {
        drop(log_in(f, ADMIN.0, ADMIN.1).await.expect(200));
        for _ in 0..PER_NAME {
            drop(log_in(f, ADMIN.0, "wrong").await.expect(403));
        }
        // The right one does not help any more, for a while.
        let refused = log_in(f, ADMIN.0, ADMIN.1).await.expect(429);
        let wait: u32 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=300).contains(&wait), "{wait}");
        assert!(refused.text().contains("Too many log-ins"), "{}", refused.text());
        // Nobody else has to wait, and keys go on working.
        drop(f.user("eva").await);
        drop(log_in(f, "eva", "another password").await.expect(200));
        assert_eq!(f.admin.ask("users/", "whoami", &[]).await.good()["username"], "admin");
        // Then the address has to.
        for n in PER_NAME..PER_ADDRESS {
            drop(log_in(f, &format!("nobody-{n}"), "wrong").await.expect(403));
        }
        drop(log_in(f, "eva", "another password").await.expect(429));
    }
}
