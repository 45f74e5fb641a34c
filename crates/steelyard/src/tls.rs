//! `config-tls`: HTTPS with given files. A region that runs takes them over by itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use region::https::{self, DEFAULT_PORT, Files};

use crate::data::DataArgs;
use crate::{admin, out};

/// `steelyard config-tls`.
#[derive(clap::Args)]
pub struct TlsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Serve HTTPS with these files, or with these in place of others
    Enable {
        /// The private key, PEM
        key: PathBuf,
        /// The certificate and those between it and its authority, PEM
        cert: PathBuf,
        /// Certificates of the authority to send along, PEM
        #[arg(long, value_name = "FILE")]
        cacert: Option<PathBuf>,
        /// The port
        #[arg(long, short, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Accepted for scripts; nothing is asked
        #[arg(long = "yes", hide = true)]
        _yes: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Serve no HTTPS any more
    Disable {
        #[command(flatten)]
        data: DataArgs,
    },
    /// Say whether HTTPS is served, and where
    Status {
        #[command(flatten)]
        data: DataArgs,
    },
}

/// Runs it.
///
/// # Errors
/// When the files cannot be used, or the data cannot be opened.
pub async fn run(args: TlsArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Enable {
            key,
            cert,
            cacert,
            port,
            _yes: _,
            data,
        } => {
            let files = Files {
                key: read(&key)?,
                certificate: read(&cert)?,
                cacert: cacert.as_deref().map(read).transpose()?,
                port,
            };
            files.check().with_context(|| {
                format!("{} and {} were not taken", key.display(), cert.display())
            })?;
            set(&data, Some(&files)).await?;
            out::line(&format!(
                "HTTPS is served on port {port}; a region that runs does so within seconds."
            ))?;
        }
        What::Disable { data } => {
            set(&data, None).await?;
            out::line("HTTPS is off; a region that runs stops it within seconds.")?;
        }
        What::Status { data } => {
            let region = admin::open(&data).await?;
            let files = https::get(&region).await;
            region.stop().await;
            out::line(&match files.map_err(admin::said)? {
                Some(f) => format!("HTTPS is on, port {}.", f.port),
                None => "HTTPS is off.".to_owned(),
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

async fn set(data: &DataArgs, files: Option<&Files>) -> anyhow::Result<()> {
    let region = admin::open(data).await?;
    let done = https::set(&region, files).await;
    region.stop().await;
    done.map_err(admin::said)
}
