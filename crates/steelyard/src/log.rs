//! The log: standard error, filtered by `STEELYARD_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// The environment variable with the filter, for example `debug` or `info,rack=debug`.
pub const FILTER: &str = "STEELYARD_LOG";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people; with colours on a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts the log. `default` is the filter where the environment names none.
pub fn start(form: Form, default: &str) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start, in a test, keeps the first log.
    match form {
        Form::Json => builder.json().flatten_event(true).try_init().ok(),
        Form::Human => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).try_init().ok()
        }
    };
}
