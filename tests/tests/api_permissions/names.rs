//! One object of each kind of names and texts, for the walk over the whole surface.

use region::operation::Operation;
use serde_json::Value;
use steelyard_tests::front::{ssl_key, unique};
use steelyard_tests::{Client, Front};

/// The objects, by id.
pub struct Names {
    domain: String,
    name: String,
    record: String,
    snippet: String,
    repository: String,
    notification: String,
    certificate: String,
    series: String,
    filename: String,
    file_key: String,
    image: String,
    upload: String,
    image_file: String,
}

fn id(v: &Value) -> String {
    v["id"].to_string()
}

impl Names {
    /// Makes them; the certificate and the file are the owner's.
    pub async fn new(f: &Front, owner: &Client) -> Self {
        let (a, n) = (&f.admin, unique());
        // Something stands in no domain: an empty one can be deleted.
        let domain = a
            .create("domains/", &[("name", &*format!("d{n}.example"))])
            .await
            .good();
        let fqdn = format!("n{n}.maas");
        let ip = format!("fd00:1::{n:x}");
        let name = a
            .create("dnsresources/", &[("fqdn", &*fqdn), ("ip_addresses", &*ip)])
            .await
            .good();
        let record = [
            ("fqdn", fqdn.as_str()),
            ("rrtype", "TXT"),
            ("rrdata", "text"),
        ];
        let record = a.create("dnsresourcerecords/", &record).await.good();
        let snippet = [("name", &*format!("s{n}")), ("value", "option x;")];
        let snippet = a.create("dhcp-snippets/", &snippet).await.good();
        let repository = [
            ("name", &*format!("r{n}")),
            ("url", "http://repository.example"),
        ];
        let repository = a.create("package-repositories/", &repository).await.good();
        let notification = [("message", "to be known"), ("users", "1")];
        let notification = a.create("notifications/", &notification).await.good();
        let certificate = owner
            .create("account/prefs/sslkeys/", &[("key", &*ssl_key())])
            .await
            .good();
        let series = format!("win{n}");
        let license = [
            ("osystem", "windows"),
            ("distro_series", series.as_str()),
            ("license_key", LICENSE),
        ];
        drop(a.create("license-keys/", &license).await.good());
        let filename = format!("file-{n}");
        let file = [("filename", filename.as_str()), ("file", "content")];
        let file = owner.create("files/", &file).await.good();
        let (_, key) = file["anon_resource_uri"]
            .as_str()
            .and_then(|u| u.rsplit_once('='))
            .expect("a key");
        // Those of grounds before this one would fill the room for what has begun.
        let old = a.get("boot-resources/").await.good();
        for old in old.as_array().expect("a list") {
            if old["type"] == "Uploaded" {
                let at = format!("boot-resources/{}/", old["id"]);
                drop(a.delete(&at).await.expect(204));
            }
        }
        let image = [
            ("name", &*format!("image-{n}")),
            ("architecture", "amd64/generic"),
            ("sha256", &*hash()),
            ("size", "1000"),
        ];
        let image = a.create("boot-resources/", &image).await.good();
        let upload = image["sets"]
            .as_object()
            .and_then(|sets| sets.values().next()?["files"].as_object()?.values().next())
            .and_then(|file| file["upload_uri"].as_str()?.rsplit('/').nth(1))
            .expect("where its pieces go")
            .to_owned();
        let mut tx = f.region.db.read().await.expect("a reader");
        let (image_file,) = store::one!(tx, (i64,), "SELECT MAX(id) FROM boot_resource_file")
            .expect("there are images");
        drop(tx);
        Self {
            image: id(&image),
            upload,
            image_file: image_file.to_string(),
            domain: id(&domain),
            name: id(&name),
            record: id(&record),
            snippet: id(&snippet),
            repository: id(&repository),
            notification: id(&notification),
            certificate: id(&certificate),
            series,
            filename,
            file_key: key.to_owned(),
        }
    }

    /// The path of one of these operations with its object in it.
    pub fn path(&self, o: &Operation) -> String {
        let ids = [
            ("account/prefs/sslkeys/", &self.certificate),
            ("dhcp-snippets/", &self.snippet),
            ("dnsresourcerecords/", &self.record),
            ("dnsresources/", &self.name),
            ("domains/", &self.domain),
            ("notifications/", &self.notification),
            ("package-repositories/", &self.repository),
        ];
        let mut path = o.uri.to_owned();
        if o.uri.starts_with("boot-resources/{id}/upload/") {
            path = path
                .replace("{id}", &self.image)
                .replace("{file_id}", &self.upload);
        }
        if let Some((_, id)) = ids.iter().find(|(prefix, _)| o.uri.starts_with(prefix)) {
            path = path.replace("{id}", id);
        }
        path.replace("{filename}", &self.filename)
            .replace("{file_id}", &self.image_file)
            .replace("{service_name}", "a-service")
            .replace("{osystem}", "windows")
            .replace("{distro_series}", &self.series)
    }

    /// What these operations need beside what the table says.
    pub fn needs(o: &Operation) -> &'static [&'static str] {
        match (o.uri, o.action()) {
            ("dnsresources/", "create") => &["name", "domain", "ip_addresses"],
            ("dnsresourcerecords/", "create") => &["name", "domain", "rrtype", "rrdata"],
            ("files/", "create") => &["file"],
            ("boot-resources/", "create") => &["sha256", "size"],
            _ => &[],
        }
    }

    /// What is sent for a parameter of these operations.
    pub fn field(&self, o: &Operation, name: &str) -> Option<String> {
        let n = unique();
        let text = match (o.uri, name) {
            ("account/prefs/sslkeys/", "key") => ssl_key(),
            ("files/", "key") => self.file_key.clone(),
            ("files/", "filename") if o.action() == "create" => format!("new-{n}"),
            ("files/", "filename") => self.filename.clone(),
            ("files/", "file") => "content".to_owned(),
            ("dhcp-snippets/", "value") => "option x;".to_owned(),
            ("package-repositories/", "url") => "http://repository.example".to_owned(),
            (_, "keysource") => "lp:somebody".to_owned(),
            (_, "sha256") => hash(),
            (_, "size") => "1000".to_owned(),
            (_, "serial") => "7".to_owned(),
            (_, "osystem") => "windows".to_owned(),
            (_, "distro_series") => format!("win{n}"),
            (_, "license_key") => LICENSE.to_owned(),
            (_, "message") => "to be known".to_owned(),
            (_, "to") => "0".to_owned(),
            (_, "domain") => "maas".to_owned(),
            (_, "ip_addresses") => format!("fd00:2::{n:x}"),
            (_, "rrtype") => "TXT".to_owned(),
            (_, "rrdata") => "text".to_owned(),
            _ => return None,
        };
        Some(text)
    }
}

/// A SHA-256 that nothing has.
fn hash() -> String {
    format!("{:064x}", unique())
}

const LICENSE: &str = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE";
