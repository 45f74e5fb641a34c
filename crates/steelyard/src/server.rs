//! Which server a command speaks to: the one named, the process on the data directory, or the only profile.

use anyhow::Context as _;

use crate::client::api::{self, Api};
use crate::client::oauth::Credentials;
use crate::client::profile::Profiles;
use crate::data::DataArgs;
use crate::{admin, running};

/// The options that name a server.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// Profile of "maas login" to ask with
    #[arg(long, conflicts_with = "url")]
    profile: Option<String>,
    /// Server to ask
    #[arg(long, requires = "api_key")]
    url: Option<String>,
    /// Key for that server
    #[arg(
        long,
        value_name = "KEY",
        env = "STEELYARD_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    #[command(flatten)]
    data: DataArgs,
}

impl ServerArgs {
    /// The server that is meant.
    ///
    /// # Errors
    /// When there is none, or nobody to speak as.
    pub async fn connect(&self) -> anyhow::Result<Api> {
        if let (Some(url), Some(key)) = (&self.url, &self.api_key) {
            let key: Credentials = key.parse()?;
            return Api::new(&api::normalise(url)?, Some(key), None, false);
        }
        let profiles = Profiles::open()?;
        if let Some(name) = &self.profile {
            return Api::of(
                profiles
                    .get(name)
                    .with_context(|| format!("there is no profile {name}"))?,
                false,
            );
        }
        let data = self.data.resolve()?;
        if data.is_running()?
            && let Some(r) = running::read(&data.dir)
            && !r.url.is_empty()
        {
            let key: Credentials = admin::any_admin_key(&self.data).await?.parse()?;
            // The process on this very host: its certificate may name another.
            return Api::new(&api::normalise(&r.url)?, Some(key), None, true);
        }
        let mut all = profiles.iter();
        match (all.next(), all.next()) {
            (Some((_, only)), None) => Api::of(only, false),
            _ => anyhow::bail!(
                "nothing is running on {}; name a --profile, or --url and --api-key",
                data.dir.display()
            ),
        }
    }
}
