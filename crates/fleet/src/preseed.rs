//! What cloud-init and the agent take from a preseed, and from user-data.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::form::Credentials;

/// Largest text that is read, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// How a system ends after its first boot (cloud-init's `power_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// It switches itself off.
    PowerOff,
    /// It reboots.
    Reboot,
}

/// A preseed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preseed {
    /// Base of the metadata service, ending in `/`.
    pub metadata_url: Option<String>,
    /// The machine's key.
    pub credentials: Option<Credentials>,
    /// Where progress is reported.
    pub endpoint: Option<String>,
    /// What happens at the end.
    pub power_state: Option<PowerState>,
}

/// A text that is no preseed. What the parser says is left out: it quotes the text, keys and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is no cloud-config")]
pub struct NotCloudConfig;

#[derive(Deserialize, Default)]
struct Text {
    #[serde(default)]
    datasource: Option<BTreeMap<String, Option<Section>>>,
    #[serde(default)]
    reporting: Option<BTreeMap<String, Option<Reporting>>>,
    #[serde(default)]
    power_state: Option<Power>,
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

#[derive(Deserialize)]
struct Power {
    #[serde(default)]
    mode: Option<String>,
}

impl Preseed {
    /// Reads a cloud-config.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, NotCloudConfig> {
        if text.len() > BYTES_MAX {
            return Err(NotCloudConfig);
        }
        let text: Text = serde_saphyr::from_str(text).map_err(|_| NotCloudConfig)?;
        let section = text
            .datasource
            .and_then(|mut d| d.remove("MAAS"))
            .flatten()
            .unwrap_or_default();
        let metadata_url = section
            .metadata_url
            .map(|u| if u.ends_with('/') { u } else { format!("{u}/") });
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
        let endpoint = text
            .reporting
            .and_then(|mut r| r.remove("maas"))
            .flatten()
            .and_then(|r| r.endpoint);
        let power_state = match text.power_state.and_then(|p| p.mode).as_deref() {
            Some("poweroff" | "halt") => Some(PowerState::PowerOff),
            Some("reboot") => Some(PowerState::Reboot),
            _ => None,
        };
        Ok(Self {
            metadata_url,
            credentials,
            endpoint,
            power_state,
        })
    }

    /// What a later file says wins, as cloud-init merges the files of `cloud.cfg.d`.
    #[must_use]
    pub fn over(self, earlier: Self) -> Self {
        Self {
            metadata_url: self.metadata_url.or(earlier.metadata_url),
            credentials: self.credentials.or(earlier.credentials),
            endpoint: self.endpoint.or(earlier.endpoint),
            power_state: self.power_state.or(earlier.power_state),
        }
    }
}

/// Whether user-data has a program in it: a script alone, or a part of a MIME message that is one.
#[must_use]
pub fn has_script(user_data: &str) -> bool {
    let lower = user_data.to_ascii_lowercase();
    user_data.starts_with("#!")
        || (lower.contains("content-type: multipart/") && lower.contains("text/x-shellscript"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preseed_is_read() {
        let text = "#cloud-config\ndatasource:\n  MAAS: {consumer_key: ck, metadata_url: 'http://r:5248/MAAS/metadata', token_key: tk, token_secret: ts}\n\
            reporting:\n  maas: {type: webhook, endpoint: 'http://r:5248/MAAS/metadata/status/abc'}\npower_state: {delay: now, mode: poweroff}\n";
        let p = Preseed::parse(text).unwrap();
        assert_eq!(
            p.metadata_url.as_deref(),
            Some("http://r:5248/MAAS/metadata/")
        );
        assert_eq!(p.credentials.as_ref().unwrap().token_secret, "ts");
        assert_eq!(
            p.endpoint.as_deref(),
            Some("http://r:5248/MAAS/metadata/status/abc")
        );
        assert_eq!(p.power_state, Some(PowerState::PowerOff));
        let enlist = Preseed::parse(
            "#cloud-config\ndatasource:\n  MAAS:\n    metadata_url: http://r/MAAS/metadata/\n",
        )
        .unwrap();
        assert_eq!(
            (enlist.credentials.clone(), enlist.power_state),
            (None, None)
        );
        assert_eq!(
            Preseed::parse("power_state: {mode: reboot}")
                .unwrap()
                .over(p.clone()),
            Preseed {
                power_state: Some(PowerState::Reboot),
                ..p
            }
        );
        assert_eq!(Preseed::parse("a: ["), Err(NotCloudConfig));
    }

    #[test]
    fn programs_in_user_data_are_found() {
        assert!(has_script("#!/bin/sh\ntrue\n"));
        assert!(has_script(
            "Content-Type: multipart/mixed; boundary=\"x\"\n\n--x\nContent-Type: text/x-shellscript; charset=\"utf-8\"\n"
        ));
        assert!(!has_script("#cloud-config\n{}\n"));
    }
}
