//! Logs go to standard error: for people on a terminal, as JSON where a machine reads them.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One human-readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Installs the process-wide logger. `level` is `error`, `warn`, `info`, `debug` or `trace`, or a list of
/// `target=level` pairs.
pub fn init(format: Format, level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let quiet = [
        ("fjall", LevelFilter::WARN),
        ("lsm_tree", LevelFilter::WARN),
        ("h2", LevelFilter::WARN),
        ("hyper_util", LevelFilter::WARN),
    ];
    let targets: Targets = level.parse()?;
    let targets = quiet.into_iter().fold(targets, |targets, (name, level)| targets.with_target(name, level));
    let registry = tracing_subscriber::registry().with(targets);
    let ansi = std::io::stderr().is_terminal();
    match format {
        Format::Text => {
            registry.with(tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(std::io::stderr)).try_init().ok()
        }
        Format::Json => registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init().ok(),
    };
    Ok(())
}
