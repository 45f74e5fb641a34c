//! `package-repositories`: where the packages of installed machines come from.

use serde_json::{Value, json};
use store::Tx;
use wire_simplestreams::Keyring;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::image::fetch::chain;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::subnet::texts;

const REPOSITORIES: Operation = Operation {
    handler: "PackageRepositoriesHandler",
    uri: "package-repositories/",
    ..Operation::READ
};
const REPOSITORY: Operation = Operation {
    handler: "PackageRepositoryHandler",
    uri: "package-repositories/{id}/",
    ..Operation::READ
};
const DISTRIBUTIONS: Param = Param::opt(
    "distributions",
    Kind::List,
    "Which distributions of it to use.",
);
const POCKETS: Param = Param::opt(
    "disabled_pockets",
    Kind::List,
    "Pockets not to use: updates, security, backports.",
);
const DISABLED_COMPONENTS: Param = Param::opt(
    "disabled_components",
    Kind::List,
    "Components of an Ubuntu archive not to use: restricted, universe, multiverse.",
);
const COMPONENTS: Param = Param::opt(
    "components",
    Kind::List,
    "Components of a repository that is no Ubuntu archive.",
);
const ARCHES: Param = Param::opt(
    "arches",
    Kind::List,
    "Architectures that it has; amd64 and i386 when left out.",
);
const KEY: Param = Param::opt(
    "key",
    Kind::Text,
    "The public key that signs it, in ASCII armour.",
);
const SOURCES: Param = Param::opt(
    "disable_sources",
    Kind::Bool,
    "Whether source packages are left out; true when left out.",
);
const ENABLED: Param = Param::opt("enabled", Kind::Bool, "Whether it is used at all.");

/// `package-repositories/` and `package-repositories/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List package repositories.",
        run: |c| Box::pin(list(c)),
        ..REPOSITORIES
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Add a package repository.",
        params: &[
            Param::field("name", Kind::Text, "Its name."),
            Param::field(
                "url",
                Kind::Text,
                "An http or https URL, or ppa:owner/name.",
            ),
            DISTRIBUTIONS,
            POCKETS,
            DISABLED_COMPONENTS,
            COMPONENTS,
            ARCHES,
            KEY,
            SOURCES,
            ENABLED,
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(create(c)),
        ..REPOSITORIES
    },
    Operation {
        title: "Read a package repository.",
        run: |c| Box::pin(read(c)),
        ..REPOSITORY
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a package repository.",
        params: &[
            Param::opt("name", Kind::Text, "Its name."),
            Param::opt(
                "url",
                Kind::Text,
                "An http or https URL, or ppa:owner/name.",
            ),
            DISTRIBUTIONS,
            POCKETS,
            DISABLED_COMPONENTS,
            COMPONENTS,
            ARCHES,
            KEY,
            SOURCES,
            ENABLED,
        ],
        audit: Some("SETTINGS"),
        run: |c| Box::pin(update(c)),
        ..REPOSITORY
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a package repository; the two archives of Ubuntu stay.",
        success: 204,
        audit: Some("SETTINGS"),
        run: |c| Box::pin(delete(c)),
        ..REPOSITORY
    },
];

const POCKETS_ALL: &[&str] = &["updates", "security", "backports"];
const COMPONENTS_ALL: &[&str] = &["restricted", "universe", "multiverse"];
const ARCHES_ALL: &[&str] = &[
    "amd64", "i386", "armhf", "arm64", "ppc64el", "s390x", "riscv64",
];
const ARCHES_DEFAULT: &[&str] = &["amd64", "i386"];
/// Longest name.
const NAME_MAX: usize = 255;
/// Longest URL.
const URL_MAX: usize = 1_024;
/// Most distributions or components of one repository.
const WORDS_MAX: usize = 64;

#[derive(Clone, sqlx::FromRow)]
struct Row {
    id: i64,
    name: String,
    url: String,
    distributions: String,
    disabled_pockets: String,
    disabled_components: String,
    disable_sources: bool,
    components: String,
    arches: String,
    key: String,
    is_default: bool,
    enabled: bool,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, url, distributions, disabled_pockets, disabled_components, disable_sources, components, arches, key, is_default, \
             enabled FROM package_repository ",
            $rest
        )
    };
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "url": self.url,
            "distributions": texts(&self.distributions),
            "disabled_pockets": texts(&self.disabled_pockets),
            "disabled_components": texts(&self.disabled_components),
            "disable_sources": self.disable_sources,
            "components": texts(&self.components),
            "arches": texts(&self.arches),
            "key": self.key,
            "enabled": self.enabled,
            "id": self.id,
            "resource_uri": format!("/MAAS/api/2.0/package-repositories/{}/", self.id),
        })
    }

    /// Takes what was given over what is there.
    fn take(&mut self, call: &Call) -> Result<(), ApiError> {
        let args = call.args();
        if let Some(name) = args.filled("name") {
            if name.len() > NAME_MAX || name.chars().any(char::is_control) {
                return Err(ApiError::field(
                    "name",
                    format!("A name is one line of at most {NAME_MAX} bytes."),
                ));
            }
            name.clone_into(&mut self.name);
        }
        if let Some(url) = args.filled("url") {
            self.url = check_url(url)?;
        }
        let list = |field: &str, known: Option<&[&str]>| -> Result<Option<String>, ApiError> {
            if !args.has(field) {
                return Ok(None);
            }
            let words = args.list(field);
            let plain = |w: &String| !w.contains(|c: char| c.is_control() || c.is_whitespace());
            let good = |w: &String| known.map_or_else(|| plain(w), |k| k.contains(&w.as_str()));
            if let Some(bad) = words.iter().find(|w| !good(w)) {
                let bad: String = bad.chars().take(64).collect();
                let known = known.map_or_else(String::new, |k| format!(" Use {}.", k.join(", ")));
                return Err(ApiError::field(
                    field,
                    format!("'{bad}' cannot be used here.{known}"),
                ));
            }
            if words.len() > WORDS_MAX {
                return Err(ApiError::field(
                    field,
                    format!("At most {WORDS_MAX} of them."),
                ));
            }
            Ok(Some(json!(words).to_string()))
        };
        if let Some(l) = list("distributions", None)? {
            self.distributions = l;
        }
        if let Some(l) = list("disabled_pockets", Some(POCKETS_ALL))? {
            self.disabled_pockets = l;
        }
        if let Some(l) = list("disabled_components", Some(COMPONENTS_ALL))? {
            self.disabled_components = l;
        }
        if let Some(l) = list("components", None)? {
            self.components = l;
        }
        if let Some(l) = list("arches", Some(ARCHES_ALL))? {
            self.arches = l;
        }
        if self.arches == "[]" {
            self.arches = json!(ARCHES_DEFAULT).to_string();
        }
        if let Some(key) = args.text("key") {
            self.key = check_key(key)?;
        }
        if let Some(b) = args.bool("disable_sources")? {
            self.disable_sources = b;
        }
        if let Some(b) = args.bool("enabled")? {
            self.enabled = b;
        }
        if self.is_default && !self.enabled {
            return Err(ApiError::field(
                "enabled",
                "Default repositories may not be disabled.",
            ));
        }
        if self.is_default && self.components != "[]" {
            return Err(ApiError::field(
                "components",
                "An archive of Ubuntu has fixed components; name those not to use in disabled_components.",
            ));
        }
        if !self.is_default && self.disabled_components != "[]" {
            return Err(ApiError::field(
                "disabled_components",
                "Only an archive of Ubuntu has components to disable; name those to use in components.",
            ));
        }
        Ok(())
    }
}

fn check_url(url: &str) -> Result<String, ApiError> {
    let wrong = || {
        Err(ApiError::field(
            "url",
            "Enter a valid repository URL or PPA location.",
        ))
    };
    let url = url.trim();
    if url.len() > URL_MAX || url.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return wrong();
    }
    if let Some(ppa) = url.strip_prefix("ppa:") {
        let word = |w: &str| {
            !w.is_empty()
                && w.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-+._~".contains(c))
        };
        let parts: Vec<&str> = ppa.split('/').collect();
        return if (2..=3).contains(&parts.len()) && parts.iter().all(|p| word(p)) {
            Ok(url.to_owned())
        } else {
            wrong()
        };
    }
    match reqwest::Url::parse(url) {
        Ok(u) if matches!(u.scheme(), "http" | "https") && u.host_str().is_some() => {
            Ok(url.to_owned())
        }
        _ => wrong(),
    }
}

fn check_key(key: &str) -> Result<String, ApiError> {
    let key = key.trim();
    if key.is_empty() {
        return Ok(String::new());
    }
    let wrong = |m: String| ApiError::field("key", m);
    if !key.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        return Err(wrong(
            "Enter a public key in ASCII armour, from BEGIN PGP PUBLIC KEY BLOCK to its END."
                .to_owned(),
        ));
    }
    Keyring::from_bytes(key.as_bytes())
        .map_err(|e| wrong(format!("This key cannot be used: {}.", chain(&e))))?;
    Ok(key.to_owned())
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(tx, Row, select!("ORDER BY id"))?;
    Ok(Answer::json(rows.iter().map(Row::json).collect()))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    let id = call.path_id("id", "PackageRepository")?;
    store::opt!(tx, Row, select!("WHERE id = $1"), id)?
        .ok_or_else(|| ApiError::missing("PackageRepository"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(find(&mut tx, &call).await?.json()))
}

async fn check_free(tx: &mut Tx, row: &Row) -> Result<(), ApiError> {
    let taken = store::opt!(
        tx,
        (i64,),
        "SELECT id FROM package_repository WHERE name = $1 AND id <> $2",
        &row.name,
        row.id
    )?;
    match taken {
        None => Ok(()),
        Some(_) => Err(ApiError::field(
            "name",
            "Package repository with this Name already exists.",
        )),
    }
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                call.args().required("name")?;
                call.args().required("url")?;
                let none = || "[]".to_owned();
                let mut row = Row {
                    id: 0,
                    name: String::new(),
                    url: String::new(),
                    distributions: none(),
                    disabled_pockets: none(),
                    disabled_components: none(),
                    disable_sources: true,
                    components: none(),
                    arches: none(),
                    key: String::new(),
                    is_default: false,
                    enabled: true,
                };
                row.take(&call)?;
                check_free(tx, &row).await?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO package_repository (name, url, distributions, disabled_pockets, disabled_components, disable_sources, components, \
                     arches, key, enabled, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) RETURNING id",
                    &row.name,
                    &row.url,
                    &row.distributions,
                    &row.disabled_pockets,
                    &row.disabled_components,
                    row.disable_sources,
                    &row.components,
                    &row.arches,
                    &row.key,
                    row.enabled,
                    call.now().0
                )?;
                row.id = id;
                tx.changed("package_repository", id, 0, call.now()).await?;
                Ok(row.json())
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                let name = row.name.clone();
                row.take(&call)?;
                if row.is_default && row.name != name {
                    return Err(ApiError::field("name", "The archives of Ubuntu keep their names."));
                }
                check_free(tx, &row).await?;
                store::exec!(
                    tx,
                    "UPDATE package_repository SET name = $2, url = $3, distributions = $4, disabled_pockets = $5, disabled_components = $6, \
                     disable_sources = $7, components = $8, arches = $9, key = $10, enabled = $11, updated = $12 WHERE id = $1",
                    row.id,
                    &row.name,
                    &row.url,
                    &row.distributions,
                    &row.disabled_pockets,
                    &row.disabled_components,
                    row.disable_sources,
                    &row.components,
                    &row.arches,
                    &row.key,
                    row.enabled,
                    call.now().0
                )?;
                tx.changed("package_repository", row.id, 0, call.now())
                    .await?;
                Ok(row.json())
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            if row.is_default {
                return Err(ApiError::Bad(format!(
                    "{} is one of the two archives that are always there, it cannot be deleted.",
                    row.name
                )));
            }
            store::exec!(tx, "DELETE FROM package_repository WHERE id = $1", row.id)?;
            tx.changed("package_repository", row.id, 0, call.now())
                .await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
