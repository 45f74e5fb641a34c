//! The preseed that cloud-init saved: where the metadata service is, and with what key.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Deserialize;

use crate::oauth::Credentials;

/// Largest preseed that is read.
const PRESEED_BYTES_MAX: u64 = 1024 * 1024;

/// What the agent takes from the preseed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Base of the metadata service, ending in `/`: `http://RACK:5248/MAAS/metadata/`.
    pub metadata_url: String,
    /// The machine's key; none for a machine that is not known yet.
    pub credentials: Option<Credentials>,
    /// Where progress is reported (`…/metadata/status/SYSTEM_ID`), when the preseed says so.
    pub report_url: Option<String>,
}

/// A preseed that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not readable.
    #[error("cannot read the preseed {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file cannot be replaced.
    #[error("cannot write the preseed {path}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The text is not YAML. The parser's message is left out: it quotes the text, keys and all.
    #[error("the preseed is not YAML of the expected shape")]
    Shape,
    /// No metadata URL.
    #[error("the preseed has no datasource.MAAS.metadata_url")]
    NoMetadataUrl,
    /// A URL that is not plain HTTP.
    #[error("the metadata service {0} is not reached by http; the agent speaks to its rack only")]
    NotHttp(String),
}

#[derive(Deserialize)]
struct Preseed {
    #[serde(default)]
    datasource: Option<BTreeMap<String, Option<Section>>>,
    #[serde(default)]
    reporting: Option<BTreeMap<String, Option<Reporting>>>,
}

#[derive(Deserialize, Default)]
struct Section {
    #[serde(default)]
    metadata_url: Option<String>,
    #[serde(default)]
    consumer_key: Option<String>,
    #[serde(default)]
    token_key: Option<String>,
    #[serde(default)]
    token_secret: Option<String>,
}

#[derive(Deserialize)]
struct Reporting {
    #[serde(default)]
    endpoint: Option<String>,
}

impl Config {
    /// Reads a preseed's text.
    ///
    /// # Errors
    /// When it is not YAML or names no metadata service.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let preseed: Preseed = serde_saphyr::from_str(text).map_err(|_| ConfigError::Shape)?;
        let mut section = preseed
            .datasource
            .and_then(|mut d| d.remove("MAAS"))
            .flatten()
            .unwrap_or_default();
        let mut metadata_url = section
            .metadata_url
            .take()
            .ok_or(ConfigError::NoMetadataUrl)?;
        if !metadata_url.starts_with("http://") {
            return Err(ConfigError::NotHttp(metadata_url));
        }
        if !metadata_url.ends_with('/') {
            metadata_url.push('/');
        }
        let credentials = match (
            section.consumer_key,
            section.token_key,
            section.token_secret,
        ) {
            (Some(consumer_key), Some(token_key), Some(token_secret))
                if !token_secret.is_empty() =>
            {
                Some(Credentials {
                    consumer_key,
                    token_key,
                    token_secret,
                })
            }
            _ => None,
        };
        let report_url = preseed
            .reporting
            .and_then(|mut r| r.remove("maas"))
            .flatten()
            .and_then(|r| r.endpoint);
        Ok(Self {
            metadata_url,
            credentials,
            report_url,
        })
    }

    /// Reads a preseed's file.
    ///
    /// # Errors
    /// When it is not readable or [`Config::parse`] refuses it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |cause| ConfigError::Read {
            path: path.display().to_string(),
            cause,
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, PRESEED_BYTES_MAX), &mut text)
            .map_err(failed)?;
        Self::parse(&text)
    }

    /// Puts the preseed `text` in the place of the saved one, readable by root only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(path: &Path, text: &str) -> Result<(), ConfigError> {
        let failed = |cause| ConfigError::Write {
            path: path.display().to_string(),
            cause,
        };
        // Removed first: the mode below counts only for a new file.
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)
    }

    /// Scheme, host and port of the rack: `http://RACK:5248`.
    #[must_use]
    pub fn base_url(&self) -> String {
        let rest = self
            .metadata_url
            .strip_prefix("http://")
            .unwrap_or(&self.metadata_url);
        format!("http://{}", rest.split('/').next().unwrap_or_default())
    }

    /// The path before `metadata/`: `http://RACK:5248/MAAS/`.
    #[must_use]
    pub fn site_url(&self) -> String {
        match self.metadata_url.rfind("/metadata/") {
            Some(at) => self.metadata_url[..=at].to_owned(),
            None => format!("{}/MAAS/", self.base_url()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "#cloud-config\ndatasource:\n  MAAS: {consumer_key: ck, metadata_url: 'http://10.0.0.1:5248/MAAS/metadata', token_key: tk, token_secret: ts}\n\
        reporting:\n  maas: {consumer_key: ck, endpoint: 'http://10.0.0.1:5248/MAAS/metadata/status/abc', token_key: tk, token_secret: ts, type: webhook}\n\
        power_state: {delay: now, mode: poweroff}\n";

    #[test]
    fn a_known_machine_has_a_key() {
        let config = Config::parse(KNOWN).unwrap();
        assert_eq!(config.metadata_url, "http://10.0.0.1:5248/MAAS/metadata/");
        assert_eq!(config.credentials.as_ref().unwrap().token_secret, "ts");
        assert_eq!(
            config.report_url.as_deref(),
            Some("http://10.0.0.1:5248/MAAS/metadata/status/abc")
        );
        assert_eq!(config.base_url(), "http://10.0.0.1:5248");
        assert_eq!(config.site_url(), "http://10.0.0.1:5248/MAAS/");
    }

    #[test]
    fn an_unknown_machine_has_none() {
        let config = Config::parse("#cloud-config\ndatasource:\n  MAAS:\n    metadata_url: http://[fd00::1]:5248/MAAS/metadata/\n").unwrap();
        assert_eq!(config.credentials, None);
        assert_eq!(config.base_url(), "http://[fd00::1]:5248");
    }

    #[test]
    fn what_is_wrong_is_named_without_the_keys() {
        assert!(matches!(
            Config::parse("datasource: {}"),
            Err(ConfigError::NoMetadataUrl)
        ));
        assert!(matches!(
            Config::parse("datasource: {MAAS: {metadata_url: 'https://x/'}}"),
            Err(ConfigError::NotHttp(_))
        ));
        let broken = Config::parse("datasource: [token_secret, hunter2hunter2").unwrap_err();
        assert!(!format!("{broken:?} {broken}").contains("hunter2"));
    }

    #[test]
    fn a_saved_preseed_is_for_root_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("91.cfg");
        std::fs::write(&path, "old").unwrap();
        Config::save(&path, KNOWN).unwrap();
        assert!(Config::read(&path).unwrap().credentials.is_some());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
